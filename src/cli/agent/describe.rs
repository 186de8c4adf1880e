//! `kubeboot agent describe`.

use std::process::ExitCode;

use futures::TryStreamExt;
use jiff::Timestamp;
use serde_json::json;

use super::ask::{Socket, answered, find};
use super::described;
use crate::agent::control;
use crate::agent::events::Event;
use crate::cli::Globals;
use crate::ui::{self, Output};

/// Show everything about a pod
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kubeboot agent describe etcd\n  \
    kubeboot agent describe kube-system/kube-apiserver -o json\n\n\
    Exit codes: 0 shown, 1 any error.")]
pub struct Args {
    /// The pod, with or without the node's name behind it; NAMESPACE/NAME where several have the name
    #[arg(value_name = "POD")]
    pod: String,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    socket: Socket,
}

/// Prints the pod with its events.
pub async fn run(args: Args, globals: &Globals) -> anyhow::Result<ExitCode> {
    let socket = args.socket.path(globals);
    let pods = answered(control::pods(&socket).await)?.pods;
    let view = find(&pods, &args.pod)?;
    let mut events: Vec<Event> = answered(control::events(&socket, false).await)?.try_collect().await?;
    events.retain(|event| event.uid == view.report.uid);
    match args.output {
        Output::Text => ui::print(&described::text(view, &events, Timestamp::now()))?,
        other => {
            let value = json!({ "pod": view.pod, "report": view.report, "events": events });
            ui::print_value(other, &value)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
