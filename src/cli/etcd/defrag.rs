//! `kubeboot etcd defrag`.

use std::process::ExitCode;

use serde::Serialize;

use super::{OUTPUT_API, Reach, size};
use crate::host::Paths;
use crate::host::disk::HostDisk;
use crate::ui::{self, Output};
use crate::workflow::etcd::defrag::{Defragmented, Own, Which, defragment};

/// Make etcd's databases small again: give back what is not in use
///
/// A member answers nothing while its database is written again: for a second or so with some hundred megabytes, for minutes
/// with many gigabytes on a slow disk. So it is done only where all others answer, to one member after the other, the leader
/// last. A single member is the whole cluster: the API server waits meanwhile.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kubeboot etcd defrag          # the etcd of this node\n  \
    kubeboot etcd defrag --all\n\n\
    Exit codes: 0 done, 1 any error (members that were done before it are said).")]
pub struct Args {
    /// All members
    #[arg(long)]
    all: bool,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    reach: Reach,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    kind: &'static str,
    api_version: &'static str,
    members: Vec<Defragmented>,
}

/// Runs the command.
pub async fn run(args: Args, paths: &Paths) -> anyhow::Result<ExitCode> {
    let known = args.reach.known(paths)?;
    let own = known.data_dir.as_deref().filter(|dir| dir.is_dir());
    let own = own.map(|data_dir| Own { disk: &HostDisk, data_dir });
    let which = if args.all { Which::All } else { Which::One };
    let (mut members, mut shown) = (Vec::new(), Ok(()));
    let mut reported = |done: &Defragmented| {
        if args.output == Output::Text {
            shown = ui::print(&line(done));
        }
        members.push(done.clone());
    };
    let outcome = defragment(&known.cluster(), which, own, &mut reported).await;
    if args.output != Output::Text {
        ui::print_value(args.output, &Document { kind: "EtcdDefrag", api_version: OUTPUT_API, members })?;
    }
    shown?;
    outcome?;
    Ok(ExitCode::SUCCESS)
}

fn line(done: &Defragmented) -> String {
    let seconds = done.millis as f64 / 1000.0;
    format!("{}: {} before, {} after, in {seconds:.1} s\n", done.name, size(done.before), size(done.after))
}
