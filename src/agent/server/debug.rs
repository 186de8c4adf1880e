//! Pages for people who look into one agent: `/statusz` and `/flagz`, in the form of Kubernetes' components, which promise
//! no program that it stays.

use ::http::{Response, StatusCode};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::http::{Body, respond};
use crate::agent::options::{FlagKind, flags};
use crate::agent::report::AgentReport;

/// What stands for a value that may be a password.
const MASKED: &str = "<masked>";
const WARNING: &str = "Warning: This endpoint is not meant to be machine parseable, has no formatting compatibility \
                       guarantees and is for debugging purposes only.";
/// The paths that there are, by their first part.
const PATHS: &str = "/configz /containerLogs /exec /flagz /healthz /logs /metrics /pods /runningpods /stats /statusz";

/// Since when the agent runs, and what it is.
pub fn status(agent: &AgentReport, now: Timestamp) -> Response<Body> {
    page("statusz", &[status_lines(agent, now)])
}

fn status_lines(agent: &AgentReport, now: Timestamp) -> String {
    let started = agent.started_at.to_zoned(TimeZone::UTC).strftime("%a %b %e %H:%M:%S UTC %Y").to_string();
    let up = now.duration_since(agent.started_at).as_secs().max(0);
    let (hours, minutes, seconds) = (up / 3600, up / 60 % 60, up % 60);
    format!(
        "Started: {started}\nUp: {hours} hr {minutes:02} min {seconds:02} sec\nBinary version: {}\nPaths: {PATHS}",
        agent.version
    )
}

/// The flags that this process was started with. Values of those that may hold passwords are masked.
pub fn flag_page() -> Response<Body> {
    page("flagz", &given(std::env::args()))
}

/// `name=value` of each flag of a command line that is one of the kubelet's.
fn given(arguments: impl Iterator<Item = String>) -> Vec<String> {
    let mut arguments = arguments.peekable();
    let mut lines = Vec::new();
    while let Some(argument) = arguments.next() {
        let Some(text) = argument.strip_prefix("--") else { continue };
        let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value.to_owned())));
        let Some(row) = flags().find(|row| row.name == name) else { continue };
        let value = match (value, row.kind) {
            (Some(value), _) => value,
            (None, FlagKind::Bool) => "true".to_owned(),
            (None, _) => arguments.next_if(|next| !next.starts_with("--")).unwrap_or_default(),
        };
        let hidden = matches!(row.kind, FlagKind::Secret | FlagKind::Headers);
        lines.push(format!("{name}={}", if hidden { MASKED } else { &value }));
    }
    lines.sort();
    lines
}

fn page(title: &str, lines: &[String]) -> Response<Body> {
    let text = format!("\nkubelet {title}\n{WARNING}\n\n{}\n", lines.join("\n"));
    respond(StatusCode::OK, "text/plain; charset=utf-8", text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_told_without_passwords() {
        let line = "kubeboot agent run --config=/c --manifest-url-header X:secret --node-ip 10.0.0.1 --seccomp-default \
                    --no-such=1 --v=2";
        let told = given(line.split_whitespace().map(str::to_owned));
        let expected = ["config=/c", "manifest-url-header=<masked>", "node-ip=10.0.0.1", "seccomp-default=true", "v=2"];
        assert_eq!(told, expected);
    }

    #[test]
    fn the_status_says_since_when_the_agent_runs() {
        let mut agent = crate::testing::report::report(vec![]);
        agent.agent.started_at = Timestamp::UNIX_EPOCH;
        agent.agent.version = "1.2.3".into();
        let lines = status_lines(&agent.agent, Timestamp::from_second(3723).unwrap());
        let expected = "Started: Thu Jan  1 00:00:00 UTC 1970\nUp: 1 hr 02 min 03 sec\nBinary version: 1.2.3\n";
        assert!(lines.starts_with(expected), "{lines}");
    }
}
