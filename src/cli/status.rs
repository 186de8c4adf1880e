//! `kubeboot status`.

use std::path::PathBuf;
use std::process::ExitCode;

use jiff::Timestamp;

use super::Globals;
use super::failure::{Hint, report as print_error};
use crate::agent::control::report::{
    ContainerReport, HealthReport, PodReport, Severity, StateReport, TerminationReport,
};
use crate::agent::control::{self, ControlError};
use crate::agent::pod::phase::Phase;
use crate::host::paths;
use crate::ui::{self, Output};

/// Exit code when something is not healthy.
const NOT_HEALTHY: u8 = 2;
/// Exit code when no agent answers.
const NOT_RUNNING: u8 = 3;
/// Longest last error in the table; all of it is in `-o json`.
const ERROR_WIDTH: usize = 100;
/// Reasons of waiting that are no error.
const ON_THE_WAY: &[&str] = &["ContainerCreating", "PodInitializing"];

/// Show the state of the control plane and every other static pod
///
/// Asks the node agent, not the API server, so it also works while the control plane is down. READY says whether a
/// component has answered its readiness check and no probe says otherwise now; SINCE is how long that has been so.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kubeboot status\n  \
    kubeboot status -o json        # the agent's whole health report\n\n\
    Exit codes: 0 everything healthy, 2 something is not healthy, 3 the agent is not running, 1 any other error.")]
pub struct Args {
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    /// Control socket of the agent [default: /run/kubeboot/agent.sock]
    #[arg(long, value_name = "PATH", visible_alias = "control-socket")]
    socket: Option<PathBuf>,
}

/// Prints the agent's health report.
pub async fn run(args: Args, globals: &Globals) -> anyhow::Result<ExitCode> {
    let socket = args.socket.unwrap_or_else(|| globals.paths().on_host(paths::CONTROL_SOCKET));
    let report = match control::report(&socket).await {
        Ok(report) => report,
        Err(error @ ControlError::NotRunning { .. }) => {
            let hint = Hint::new(
                "start it with `systemctl start kubelet` (its log: `journalctl -u kubelet`); without systemd, or if this \
                 machine has no control plane yet, run `kubeboot init`; for an agent with another root directory pass its \
                 --socket",
            );
            print_error(&anyhow::Error::new(error).context(hint));
            return Ok(ExitCode::from(NOT_RUNNING));
        }
        Err(error) => return Err(error.into()),
    };
    match args.output {
        Output::Text => ui::print(&text(&report, Timestamp::now()))?,
        other => ui::print_value(other, &report)?,
    }
    Ok(if healthy(&report) { ExitCode::SUCCESS } else { ExitCode::from(NOT_HEALTHY) })
}

/// Whether there is nothing to do: the agent has read its sources and reaches its runtime, every pod of the node's own is
/// healthy or has ended well, and no source has more than a warning. Pods that the API server has bound to the node are
/// shown; how they are is the cluster's business.
fn healthy(report: &HealthReport) -> bool {
    let well = |pod: &PodReport| pod.bound || (pod.healthy || pod.phase == Phase::Succeeded) && !pod.terminating;
    let fine = report.problems.iter().all(|problem| problem.severity == Severity::Warning);
    report.agent.synced && report.agent.runtime.is_some() && fine && report.pods.iter().all(well)
}

/// The table and, below it, what is wrong apart from the pods.
fn text(report: &HealthReport, now: Timestamp) -> String {
    let agent = &report.agent;
    let mut text = if report.pods.is_empty() {
        let place = agent.static_pod_path.as_deref().unwrap_or("its source");
        let why = if agent.synced { format!(": {place} has no manifests") } else { " yet".to_owned() };
        format!("the agent (pid {}) runs no pods{why}\n", agent.pid)
    } else {
        ui::table(HEADERS, report.pods.iter().flat_map(|pod| rows(pod, now)))
    };
    let mut problems: Vec<_> =
        report.problems.iter().map(|p| clean(&format!("{}: {}", p.subject, p.message))).collect();
    if agent.runtime.is_none() && !report.problems.iter().any(|p| p.subject == "runtime") {
        problems.insert(0, "runtime: the container runtime cannot be reached".to_owned());
    }
    if !agent.synced {
        problems.insert(0, "agent: it has just started and has not read every manifest yet".to_owned());
    }
    if !problems.is_empty() {
        text.push_str("\nProblems:\n");
        problems.iter().for_each(|problem| text.push_str(&format!("  {problem}\n")));
    }
    text
}

const HEADERS: [&str; 7] = ["NAME", "STATE", "READY", "IMAGE", "RESTARTS", "SINCE", "LAST-ERROR"];

/// One pod, and below it the one that is started beside it to take its place.
fn rows(pod: &PodReport, now: Timestamp) -> impl Iterator<Item = [String; 7]> {
    let next = pod.successor.as_ref().map(|next| {
        let [name, rest @ ..] = row(next, now);
        let [state, ready, image, restarts, since, error] = rest;
        [format!("{name} (next)"), state, ready, image, restarts, since, error]
    });
    std::iter::once(row(pod, now)).chain(next)
}

/// One pod: under its component's name, or its own where it has none.
fn row(pod: &PodReport, now: Timestamp) -> [String; 7] {
    let name = pod.component.clone().unwrap_or_else(|| format!("{}/{}", pod.namespace, pod.name));
    let main: Vec<_> = pod.containers.iter().filter(|c| !c.init).collect();
    let more = if main.len() > 1 { format!(" (+{})", main.len() - 1) } else { String::new() };
    let restarts: u32 = pod.containers.iter().map(|c| c.restarts).sum();
    [
        name,
        state(pod),
        if pod.healthy { "yes" } else { "no" }.to_owned(),
        main.first().map_or_else(|| "-".to_owned(), |c| format!("{}{more}", c.image)),
        restarts.to_string(),
        age(pod.since, now),
        last_error(pod, now).map_or_else(|| "-".to_owned(), |error| one_line(&error)),
    ]
}

/// The pod's state in the words of `kubectl get pods`: its first container that is not as it should be, else its phase.
pub(super) fn state(pod: &PodReport) -> String {
    if pod.terminating {
        return "Terminating".to_owned();
    }
    let init_done =
        |c: &ContainerReport| c.init && matches!(&c.state, StateReport::Terminated(ended) if ended.exit_code == 0);
    let odd = pod.containers.iter().filter(|c| !init_done(c)).find_map(|c| match &c.state {
        StateReport::Waiting { reason, .. } => Some(reason.clone()),
        StateReport::Terminated(ended) if ended.exit_code != 0 => Some(ended.reason.clone()),
        _ => None,
    });
    odd.filter(|reason| !reason.is_empty()).unwrap_or_else(|| format!("{:?}", pod.phase))
}

/// What is wrong now, else how its last instance ended, else nothing.
fn last_error(pod: &PodReport, now: Timestamp) -> Option<String> {
    let each = || pod.containers.iter();
    let waits = || {
        each().find_map(|c| match &c.state {
            StateReport::Waiting { reason, message } if !ON_THE_WAY.contains(&reason.as_str()) => {
                Some(c.last_termination.as_ref().map_or_else(
                    || if message.is_empty() { reason.clone() } else { message.clone() },
                    |ended| ending(ended, now),
                ))
            }
            StateReport::Terminated(ended) if ended.exit_code != 0 => Some(ending(ended, now)),
            _ => None,
        })
    };
    let probed = || each().filter(|c| !c.healthy).find_map(|c| c.probe_message.clone());
    let ended = || each().find_map(|c| c.last_termination.as_ref().map(|ended| ending(ended, now)));
    pod.message.clone().or_else(waits).or_else(probed).or_else(ended)
}

/// `exit code 1 (Error) 12s ago: last log line`.
fn ending(ended: &TerminationReport, now: Timestamp) -> String {
    let when = ended.finished_at.map_or_else(String::new, |at| format!(" {} ago", age(at, now)));
    let said = if ended.message.is_empty() { ended.log.last() } else { Some(&ended.message) };
    let said = said.map_or_else(String::new, |words| format!(": {words}"));
    format!("exit code {} ({}){when}{said}", ended.exit_code, ended.reason)
}

/// Terminals interpret control characters, tables do not survive line breaks.
fn clean(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn one_line(text: &str) -> String {
    let mut words = clean(text);
    if words.chars().count() > ERROR_WIDTH {
        words = words.chars().take(ERROR_WIDTH - 3).collect::<String>() + "...";
    }
    words
}

/// How long ago, as kubectl prints ages: two units while they matter, one later.
pub(super) fn age(since: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(since).as_secs().max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    let two = |large: i64, unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{large}{unit}"),
        _ => format!("{large}{unit}{small}{small_unit}"),
    };
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => two(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(days, "d", hours % 24, "h"),
        _ => format!("{days}d"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::control::report::Problem;
    use crate::testing::report::{container, pod, report};

    fn now() -> Timestamp {
        Timestamp::from_second(300).unwrap()
    }

    fn well(component: &str) -> PodReport {
        let mut pod = pod(component, "hash");
        (pod.healthy, pod.ready) = (true, true);
        (pod.containers[0].healthy, pod.containers[0].ready) = (true, true);
        pod
    }

    fn ended(exit_code: i64, reason: &str, log: &[&str]) -> TerminationReport {
        TerminationReport {
            exit_code,
            reason: reason.into(),
            message: String::new(),
            finished_at: Some(Timestamp::from_second(290).unwrap()),
            log: log.iter().map(|l| (*l).to_owned()).collect(),
        }
    }

    fn crashing() -> PodReport {
        let mut pod = pod("kube-apiserver", "hash");
        let container = &mut pod.containers[0];
        container.restarts = 3;
        container.state = StateReport::Waiting { reason: "CrashLoopBackOff".into(), message: "back-off 40s".into() };
        container.last_termination = Some(ended(1, "Error", &["starting", "no such\tflag: \u{1b}[31m--x"]));
        pod
    }

    #[test]
    fn what_is_started_beside_a_pod_has_a_line_of_its_own_below_it() {
        let mut next = crashing();
        next.containers[0].image = "registry.k8s.io/kube-apiserver:v1.36.3".into();
        let served = PodReport { successor: Some(Box::new(next)), ..well("kube-apiserver") };
        let report = report(vec![served]);
        assert!(healthy(&report), "it serves");
        let text = text(&report, now());
        let line = |at: usize| text.lines().nth(at).unwrap().split_whitespace().take(4).collect::<Vec<_>>().join(" ");
        assert_eq!(line(1), "kube-apiserver Running yes registry.k8s.io/kube-apiserver:v1.36.2");
        assert_eq!(line(2), "kube-apiserver (next) CrashLoopBackOff no");
    }

    #[test]
    fn one_line_a_component_with_what_is_wrong_and_the_problems_below() {
        let mut probed = pod("kube-scheduler", "hash");
        probed.containers[0].probe_message = Some("Readiness probe failed: connection refused".into());
        let mut other = well("web");
        (other.component, other.namespace) = (None, "default".into());
        other.containers.push(container("sidecar"));
        let mut report = report(vec![well("etcd"), crashing(), probed, other]);
        report.problems.push(Problem::error("/m/x.yaml", "kind ReplicaSet is no pod"));
        insta::assert_snapshot!(text(&report, now()), @r"
        NAME              STATE              READY   IMAGE                                    RESTARTS   SINCE   LAST-ERROR
        etcd              Running            yes     registry.k8s.io/etcd:v1.36.2             0          5m      -
        kube-apiserver    CrashLoopBackOff   no      registry.k8s.io/kube-apiserver:v1.36.2   3          5m      exit code 1 (Error) 10s ago: no such flag: [31m--x
        kube-scheduler    Running            no      registry.k8s.io/kube-scheduler:v1.36.2   0          5m      Readiness probe failed: connection refused
        default/web-cp1   Running            yes     registry.k8s.io/web:v1.36.2 (+1)         0          5m      -

        Problems:
          /m/x.yaml: kind ReplicaSet is no pod
        ");
    }

    #[test]
    fn an_agent_that_has_just_started_or_lost_its_runtime_says_so() {
        let mut report = report(vec![]);
        assert!(healthy(&report), "no manifests is nothing wrong");
        assert!(text(&report, now()).contains("/etc/kubernetes/manifests has no manifests"));
        report.agent.synced = false;
        report.agent.runtime = None;
        insta::assert_snapshot!(text(&report, now()), @r"
        the agent (pid 1) runs no pods yet

        Problems:
          agent: it has just started and has not read every manifest yet
          runtime: the container runtime cannot be reached
        ");
        assert!(!healthy(&report));
    }

    #[test]
    fn healthy_means_that_every_pod_is_and_no_source_has_a_problem() {
        assert!(healthy(&report(vec![well("etcd"), well("web")])));
        assert!(!healthy(&report(vec![well("etcd"), pod("web", "hash")])));
        assert!(!healthy(&report(vec![PodReport { terminating: true, ..well("etcd") }])));
        assert!(healthy(&report(vec![well("etcd"), PodReport { bound: true, ..pod("proxy", "hash") }])));
        let done = PodReport { phase: Phase::Succeeded, ..pod("job", "hash") };
        assert!(healthy(&report(vec![done])), "a pod that has ended well need not answer");
        let mut troubled = report(vec![well("etcd")]);
        troubled.problems.push(Problem { severity: Severity::Warning, ..Problem::error("x", "y") });
        assert!(healthy(&troubled), "a warning is no trouble");
        troubled.problems.push(Problem::error("x", "y"));
        assert!(!healthy(&troubled));
    }

    #[test]
    fn the_state_is_that_of_the_container_in_trouble() {
        assert_eq!(state(&crashing()), "CrashLoopBackOff");
        assert_eq!(state(&PodReport { terminating: true, ..crashing() }), "Terminating");
        assert_eq!(state(&well("etcd")), "Running");
        let mut with_init = well("etcd");
        let done = ContainerReport {
            init: true,
            state: StateReport::Terminated(ended(0, "Completed", &[])),
            ..container("init")
        };
        with_init.containers.insert(0, done);
        assert_eq!(state(&with_init), "Running");
        assert_eq!(last_error(&with_init, now()), None);
        with_init.containers[0].state = StateReport::Terminated(ended(2, "Error", &[]));
        assert_eq!(state(&with_init), "Error");
    }

    #[test]
    fn the_last_error_outlives_the_restart_that_mended_it() {
        let mut pod = well("etcd");
        pod.containers[0].last_termination = Some(ended(137, "OOMKilled", &[]));
        assert_eq!(last_error(&pod, now()).unwrap(), "exit code 137 (OOMKilled) 10s ago");
        pod.message = Some("volume data: no such directory".into());
        assert_eq!(last_error(&pod, now()).unwrap(), "volume data: no such directory");
    }

    #[test]
    fn a_long_error_is_cut_and_nothing_in_it_reaches_the_terminal_as_a_command() {
        let line = one_line(&format!("a\u{1b}[2J\nb{}", "é".repeat(300)));
        assert!(line.starts_with("a [2J b") && line.ends_with("...") && line.chars().count() == 100, "{line}");
    }

    #[test]
    fn ages_are_printed_as_kubectl_prints_them() {
        let of = |seconds: i64| age(Timestamp::UNIX_EPOCH, Timestamp::from_second(seconds).unwrap());
        let printed = [0, 119, 120, 599, 3600, 10_860, 100_000, 176_400, 9_000_000].map(of);
        assert_eq!(printed, ["0s", "119s", "2m", "9m59s", "60m", "3h1m", "27h", "2d1h", "104d"]);
        assert_eq!(age(Timestamp::from_second(5).unwrap(), Timestamp::UNIX_EPOCH), "0s", "a clock may be set back");
    }
}
