//! `kubeboot agent restart`.

use std::process::ExitCode;

use super::ask::{Socket, answered, find};
use crate::agent::control;
use crate::cli::Globals;
use crate::ui;

/// Stop a pod and start it again
///
/// Its manifest stays as it is. The containers are given their grace period; nobody waits for the new ones here, see
/// `kubeboot agent ps`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kubeboot agent restart kube-apiserver\n  \
    kubeboot agent restart kube-system/etcd-cp1\n\n\
    Exit codes: 0 the agent has begun to, 1 any error.")]
pub struct Args {
    /// The pod, with or without the node's name behind it
    #[arg(value_name = "[NAMESPACE/]POD")]
    pod: String,
    #[command(flatten)]
    socket: Socket,
}

/// Asks the agent.
pub async fn run(args: Args, globals: &Globals) -> anyhow::Result<ExitCode> {
    let socket = args.socket.path(globals);
    let pods = answered(control::pods(&socket).await)?.pods;
    let report = &find(&pods, &args.pod)?.report;
    answered(control::restart(&socket, &report.uid).await)?;
    ui::print(&format!("restarting {}/{}\n", report.namespace, report.name))?;
    Ok(ExitCode::SUCCESS)
}
