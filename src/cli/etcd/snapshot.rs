//! `kubeboot etcd snapshot save|status|restore`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Subcommand;
use serde::Serialize;

use super::{OUTPUT_API, Reach, restore, size};
use crate::etcd::database::summary;
use crate::etcd::{Minor, snapshot};
use crate::host::Paths;
use crate::host::disk::HostDisk;
use crate::ui::{self, Output};
use crate::workflow::etcd::save::{look, save};

/// Take snapshots of etcd's data, check them, and make data of them again
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kubeboot etcd snapshot save /var/backups/etcd.db\n  \
    kubeboot etcd snapshot status /var/backups/etcd.db\n  \
    kubeboot etcd snapshot restore /var/backups/etcd.db --data-dir /var/lib/etcd")]
pub struct Args {
    #[command(subcommand)]
    command: Sub,
}

#[derive(Debug, Subcommand)]
enum Sub {
    Save(Save),
    Status(Status),
    Restore(restore::Args),
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
/// Its size and its SHA-256 are checked, then its database is read from the first page to the last. HASH, REVISION, KEYS and
/// SIZE are those of `etcdutl snapshot status`. No etcd is needed.
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
struct Saved {
    kind: &'static str,
    api_version: &'static str,
    file: PathBuf,
    size: u64,
    sha256: String,
    etcd_version: String,
    storage_version: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    kind: &'static str,
    api_version: &'static str,
    file: PathBuf,
    sha256: String,
    /// The fields of `etcdutl snapshot status`, and their names.
    hash: u32,
    revision: i64,
    total_key: usize,
    total_size: u64,
    storage_version: Option<String>,
}

/// Runs the command.
pub async fn run(args: Args, paths: &Paths) -> anyhow::Result<ExitCode> {
    match args.command {
        Sub::Save(args) => save_it(args, paths).await,
        Sub::Status(args) => status(&args),
        Sub::Restore(args) => restore::run(args, paths),
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
            let document = Saved {
                kind: "EtcdSnapshotSaved",
                api_version: OUTPUT_API,
                file,
                size: saved.snapshot.size,
                sha256: saved.snapshot.sha256,
                etcd_version: saved.version,
                storage_version: saved.storage.map(Minor::target),
            };
            ui::print_value(output, &document)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn status(args: &Status) -> anyhow::Result<ExitCode> {
    let whole = snapshot::check(&args.file)?;
    let found = summary(&args.file)?;
    match args.output {
        Output::Text => {
            let storage = found.storage.map_or_else(|| "-".to_owned(), |minor| minor.to_string());
            let row = [
                format!("{:x}", found.hash),
                found.revision.to_string(),
                found.keys.to_string(),
                size(found.size),
                storage,
                whole.sha256,
            ];
            ui::print(&ui::table(["HASH", "REVISION", "KEYS", "SIZE", "STORAGE", "SHA-256"], [row]))?;
        }
        output => {
            let document = Document {
                kind: "EtcdSnapshot",
                api_version: OUTPUT_API,
                file: args.file.clone(),
                sha256: whole.sha256,
                hash: found.hash,
                revision: found.revision,
                total_key: found.keys,
                total_size: found.size,
                storage_version: found.storage.map(Minor::target),
            };
            ui::print_value(output, &document)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
