//! `kubeboot agent ps`.

use std::process::ExitCode;

use jiff::Timestamp;
use k8s_openapi::List;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};

use super::ask::{Socket, answered};
use crate::agent::control::{self, PodView};
use crate::cli::Globals;
use crate::cli::status::{age, state};
use crate::ui::{self, Output};

/// List the pods an agent runs
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kubeboot agent ps\n  \
    kubeboot agent ps --containers\n  \
    kubeboot agent ps -o json | jq '.items[].status.phase'\n\n\
    Exit codes: 0 listed, 1 any error.")]
pub struct Args {
    /// Show a line for each container
    #[arg(short, long)]
    containers: bool,
    /// Show pods of this namespace only
    #[arg(short, long, value_name = "NAME")]
    namespace: Option<String>,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    socket: Socket,
}

/// Prints the table, or the pods as a list of the API.
pub async fn run(args: Args, globals: &Globals) -> anyhow::Result<ExitCode> {
    let mut pods = answered(control::pods(&args.socket.path(globals)).await)?.pods;
    pods.retain(|view| args.namespace.as_ref().is_none_or(|namespace| view.report.namespace == *namespace));
    let now = Timestamp::now();
    match (args.output, args.containers) {
        (Output::Text, _) if pods.is_empty() => ui::print("the agent runs no pods\n")?,
        (Output::Text, false) => ui::print(&ui::table(PODS, pods.iter().map(|view| pod_row(view, now))))?,
        (Output::Text, true) => ui::print(&ui::table(CONTAINERS, pods.iter().flat_map(|view| rows(view, now))))?,
        (other, _) => {
            let items: Vec<Pod> = pods.into_iter().map(|view| view.pod).collect();
            ui::print_value(other, &List { items, ..List::default() })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

const PODS: [&str; 7] = ["NAMESPACE", "NAME", "READY", "STATUS", "RESTARTS", "AGE", "SOURCE"];
const CONTAINERS: [&str; 8] = ["NAMESPACE", "POD", "CONTAINER", "READY", "STATE", "RESTARTS", "SINCE", "ID"];

/// Columns as `kubectl get pods` fills them; behind them where the manifest is.
fn pod_row(view: &PodView, now: Timestamp) -> [String; 7] {
    let report = &view.report;
    let status = view.pod.status.clone().unwrap_or_default();
    let lasting: Vec<_> = report.containers.iter().filter(|c| !c.init).collect();
    let ready = lasting.iter().filter(|c| c.ready).count();
    let restarts: u32 = report.containers.iter().map(|c| c.restarts).sum();
    let last = report.containers.iter().filter_map(|c| c.last_termination.as_ref()?.finished_at).max();
    let last = last.filter(|_| restarts > 0).map(|at| format!(" ({} ago)", age(at, now)));
    [
        report.namespace.clone(),
        report.name.clone(),
        format!("{ready}/{}", lasting.len()),
        state(report),
        format!("{restarts}{}", last.unwrap_or_default()),
        status.start_time.map_or_else(|| "-".to_owned(), |at| age(at.0, now)),
        report.file.clone().unwrap_or_else(|| "-".to_owned()),
    ]
}

fn rows(view: &PodView, now: Timestamp) -> Vec<[String; 8]> {
    let status = view.pod.status.clone().unwrap_or_default();
    let all =
        status.init_container_statuses.into_iter().flatten().chain(status.container_statuses.into_iter().flatten());
    let row = |c: ContainerStatus| {
        let (state, since) = reported(&c.state.clone().unwrap_or_default());
        let id = c.container_id.as_deref().and_then(|id| id.rsplit('/').next()).unwrap_or("-");
        [
            view.report.namespace.clone(),
            view.report.name.clone(),
            c.name,
            if c.ready { "yes" } else { "no" }.to_owned(),
            state,
            c.restart_count.to_string(),
            since.map_or_else(|| "-".to_owned(), |at| age(at, now)),
            id.chars().take(12).collect(),
        ]
    };
    all.map(row).collect()
}

/// A container's state in one word, and since when.
fn reported(state: &ContainerState) -> (String, Option<Timestamp>) {
    let word = |reason: &Option<String>, otherwise: &str| reason.clone().unwrap_or_else(|| otherwise.to_owned());
    match state {
        ContainerState { running: Some(running), .. } => {
            ("Running".to_owned(), running.started_at.as_ref().map(|at| at.0))
        }
        ContainerState { terminated: Some(ended), .. } => {
            (word(&ended.reason, "Terminated"), ended.finished_at.as_ref().map(|at| at.0))
        }
        ContainerState { waiting, .. } => {
            (word(&waiting.as_ref().and_then(|waiting| waiting.reason.clone()), "Waiting"), None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::control::report::{StateReport, TerminationReport};
    use crate::testing::report::pod;

    #[test]
    fn a_line_says_what_kubectl_says_and_where_the_manifest_is() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut report = pod("web", "hash");
        report.containers[0].ready = true;
        let mut crashed = report.containers[0].clone();
        (crashed.ready, crashed.restarts) = (false, 3);
        crashed.state = StateReport::Waiting { reason: "CrashLoopBackOff".into(), message: String::new() };
        crashed.last_termination = Some(TerminationReport {
            exit_code: 1,
            reason: "Error".into(),
            message: String::new(),
            finished_at: Some(at(100)),
            log: vec![],
        });
        report.containers.push(crashed);
        let status = serde_json::json!({"status": {
            "startTime": "1970-01-01T00:00:10Z",
            "containerStatuses": [{
                "name": "web", "image": "i", "imageID": "", "ready": true, "restartCount": 0,
                "containerID": "docker://0123456789abcdef", "state": {"running": {"startedAt": "1970-01-01T00:01:00Z"}},
            }],
        }});
        let view = PodView { pod: serde_json::from_value(status).unwrap(), report };
        let table = ui::table(PODS, [pod_row(&view, at(130))]);
        let file = "/etc/kubernetes/manifests/web.yaml";
        let row = format!("kube-system   web-cp1   1/2     CrashLoopBackOff   3 (30s ago)   2m    {file}");
        assert_eq!(table.lines().nth(1), Some(row.as_str()));
        assert_eq!(rows(&view, at(130))[0][2..], ["web", "yes", "Running", "0", "70s", "0123456789ab"]);
    }
}
