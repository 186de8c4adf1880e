//! `kubeboot etcd snapshot save|status`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Subcommand;
use serde::Serialize;

use super::{OUTPUT_API, Reach, size};
use crate::etcd::{Minor, snapshot};
use crate::host::Paths;
use crate::host::disk::HostDisk;
use crate::ui::{self, Output};
use crate::workflow::etcd::save::{look, save};

/// Take snapshots of etcd's data, and look at them
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kubeboot etcd snapshot save /var/backups/etcd.db\n  \
    kubeboot etcd snapshot status /var/backups/etcd.db")]
pub struct Args {
    #[command(subcommand)]
    command: Sub,
}

#[derive(Debug, Subcommand)]
enum Sub {
    Save(Save),
    Status(Status),
}

/// Save a snapshot of etcd's data in a file, as etcdctl does
///
/// etcd serves on. The file is in its place, durably, only when every byte of it has come and the SHA-256 that etcd sends is
/// that of the bytes; with its mode 0600 it is for its owner alone, for it holds every secret of the cluster.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kubeboot etcd snapshot save /var/backups/etcd.db\n  \
    kubeboot etcd snapshot save --force /var/backups/etcd.db    # in the place of the one before\n\n\
    Exit codes: 0 saved, 1 any error (what was there before is there still).")]
struct Save {
    /// Where to; its directory has to exist
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Replace the file if it is there
    #[arg(long)]
    force: bool,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    reach: Reach,
}

/// Check a snapshot, and show what it is
///
/// Its size and its SHA-256 are checked. No etcd is needed.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kubeboot etcd snapshot status /var/backups/etcd.db -o json\n\n\
    Exit codes: 0 it is whole, 1 it is not, or any other error.")]
struct Status {
    /// The snapshot
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    kind: &'static str,
    api_version: &'static str,
    file: PathBuf,
    size: u64,
    sha256: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    etcd_version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    storage_version: Option<String>,
}

/// Runs the command.
pub async fn run(args: Args, paths: &Paths) -> anyhow::Result<ExitCode> {
    match args.command {
        Sub::Save(args) => save_it(args, paths).await,
        Sub::Status(args) => status(&args),
    }
}

async fn save_it(args: Save, paths: &Paths) -> anyhow::Result<ExitCode> {
    let Save { file, force, output, reach } = args;
    look(&file, force)?;
    let known = reach.known(paths)?;
    let asked = known.cluster().ask().await?;
    if asked.status.leader.is_none() {
        tracing::warn!("{} knows no leader: its data may lack what others have", asked.endpoint);
    }
    let begin = Instant::now();
    let saved = save(&*asked.server, &mut HostDisk, &file, force).await?;
    let seconds = begin.elapsed().as_secs_f64();
    match output {
        Output::Text => ui::print(&format!(
            "saved {} from {}: {}, SHA-256 {}, etcd {}, in {seconds:.1} s\n",
            file.display(),
            asked.endpoint,
            size(saved.snapshot.size),
            saved.snapshot.sha256,
            saved.version
        ))?,
        output => {
            let document = Document {
                kind: "EtcdSnapshot",
                api_version: OUTPUT_API,
                file,
                size: saved.snapshot.size,
                sha256: saved.snapshot.sha256,
                etcd_version: Some(saved.version),
                storage_version: saved.storage.map(Minor::target),
            };
            ui::print_value(output, &document)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn status(args: &Status) -> anyhow::Result<ExitCode> {
    let found = snapshot::check(&args.file)?;
    match args.output {
        Output::Text => {
            ui::print(&format!("{}: whole, {}, SHA-256 {}\n", args.file.display(), size(found.size), found.sha256))?
        }
        output => {
            let document = Document {
                kind: "EtcdSnapshot",
                api_version: OUTPUT_API,
                file: args.file.clone(),
                size: found.size,
                sha256: found.sha256,
                etcd_version: None,
                storage_version: None,
            };
            ui::print_value(output, &document)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
