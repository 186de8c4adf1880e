//! `kubeboot agent events`.

use std::process::ExitCode;

use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;

use super::ask::{Socket, answered, clean, find};
use crate::agent::control;
use crate::agent::events::{About, Event};
use crate::cli::Globals;
use crate::cli::status::age;
use crate::ui::{self, Output};

/// Show what happened to pods
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kubeboot agent events\n  \
    kubeboot agent events -w etcd\n\n\
    Exit codes: 0 shown, 1 any error.")]
pub struct Args {
    /// Show events of this pod only
    #[arg(value_name = "POD")]
    pod: Option<String>,
    /// Go on with what happens from now on
    #[arg(short, long)]
    watch: bool,
    /// Output format; JSON is one event a line with --watch
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    socket: Socket,
}

/// Prints events, oldest first.
pub async fn run(args: Args, globals: &Globals) -> anyhow::Result<ExitCode> {
    let socket = args.socket.path(globals);
    let uid_of = |view: &control::PodView| view.report.uid.clone();
    let uid = match &args.pod {
        Some(pod) => Some(find(&answered(control::pods(&socket).await)?.pods, pod).map(uid_of)?),
        None => None,
    };
    let is_wanted = move |event: &Event| uid.as_ref().is_none_or(|uid| event.uid == *uid);
    let mut events = answered(control::events(&socket, args.watch).await)?;
    if !args.watch {
        let mut all: Vec<Event> = events.try_collect().await?;
        all.retain(is_wanted);
        match args.output {
            Output::Text if all.is_empty() => ui::print("nothing has happened since the agent started\n")?,
            Output::Text => ui::print(&table(&all, Timestamp::now()))?,
            other => ui::print_value(other, &all)?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    while let Some(event) = events.next().await {
        let event = event?;
        if is_wanted(&event) && !ui::print_bytes(line(&event, args.output)?.as_bytes())? {
            break;
        }
    }
    Ok(ExitCode::SUCCESS)
}

const HEADERS: [&str; 5] = ["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"];

/// As `kubectl events` prints them.
pub fn table(events: &[Event], now: Timestamp) -> String {
    let row = |event: &Event| {
        let times = if event.count > 1 {
            format!("{} (x{} over {})", age(event.last, now), event.count, age(event.first, now))
        } else {
            age(event.last, now)
        };
        [times, format!("{:?}", event.kind), event.reason.clone(), object(event), clean(&event.message)]
    };
    ui::table(HEADERS, events.iter().map(row))
}

fn object(event: &Event) -> String {
    if event.about == About::Node {
        return format!("node/{}", event.pod);
    }
    let container = event.container.as_ref().map_or_else(String::new, |container| format!(" ({container})"));
    format!("{}/{}{container}", event.namespace, event.pod)
}

fn line(event: &Event, output: Output) -> anyhow::Result<String> {
    Ok(match output {
        Output::Text => {
            let Event { last, kind, reason, message, .. } = event;
            format!("{last:.0} {kind:?} {reason} {}: {}\n", object(event), clean(message))
        }
        Output::Json => serde_json::to_string(event)? + "\n",
        Output::Yaml => format!("---\n{}", crate::yaml::to_string(event)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::events::Kind;

    #[test]
    fn an_event_says_when_how_often_and_of_what() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let event = Event {
            sequence: 3,
            about: About::Pod,
            namespace: "default".into(),
            pod: "web-cp1".into(),
            uid: "u".into(),
            container: Some("main".into()),
            kind: Kind::Warning,
            reason: "Unhealthy".into(),
            message: "Liveness probe\n\u{1b}[2J failed".into(),
            count: 3,
            first: at(10),
            last: at(100),
        };
        let text = table(std::slice::from_ref(&event), at(105));
        let row = "5s (x3 over 95s)   Warning   Unhealthy   default/web-cp1 (main)   Liveness probe [2J failed";
        assert_eq!(text.lines().nth(1), Some(row));
        let reported = line(&event, Output::Text).unwrap();
        assert_eq!(
            reported,
            "1970-01-01T00:01:40Z Warning Unhealthy default/web-cp1 (main): Liveness probe [2J failed\n"
        );
        let read: Event = serde_json::from_str(&line(&event, Output::Json).unwrap()).unwrap();
        assert_eq!(read, event);
        let node = Event { about: About::Node, namespace: String::new(), pod: "cp1".into(), container: None, ..event };
        assert!(line(&node, Output::Text).unwrap().contains(" Unhealthy node/cp1: "));
    }
}
