//! `kubeboot etcd members|status|snapshot|defrag`.

mod defrag;
mod members;
mod restore;
mod snapshot;
mod status;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Subcommand;

use super::Globals;
use super::spec::NodeConfig;
use crate::config::spec::EtcdSpec;
use crate::etcd::Member;
use crate::host::Paths;
use crate::workflow::etcd::cluster::{Cluster, endpoint};

/// What documents are of that only this program prints.
const OUTPUT_API: &str = "output.kubeboot.dev/v1alpha1";

/// Look after etcd: its members, their health, snapshots of its data
///
/// Asks the members themselves, not the API server, with the certificates of this node.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kubeboot etcd status\n  \
    kubeboot etcd members -o json\n  \
    kubeboot etcd snapshot save /var/backups/etcd.db\n  \
    kubeboot etcd defrag --all")]
pub struct Args {
    #[command(subcommand)]
    command: Sub,
}

#[derive(Debug, Subcommand)]
enum Sub {
    Members(members::Args),
    Status(status::Args),
    Snapshot(snapshot::Args),
    Defrag(defrag::Args),
}

/// Runs the command.
pub async fn run(args: Args, globals: &Globals) -> anyhow::Result<ExitCode> {
    let paths = globals.paths();
    match args.command {
        Sub::Members(args) => members::run(args, &paths).await,
        Sub::Status(args) => status::run(args, &paths).await,
        Sub::Snapshot(args) => snapshot::run(args, &paths).await,
        Sub::Defrag(args) => defrag::run(args, &paths).await,
    }
}

/// Which etcd, and how it is reached.
#[derive(Debug, clap::Args)]
struct Reach {
    /// Client URLs of members, separated by commas, of which the first that answers is asked [default: the etcd of this node]
    #[arg(long, value_name = "URL", value_delimiter = ',', value_parser = endpoint)]
    endpoints: Vec<String>,
    #[command(flatten)]
    node: NodeConfig,
}

/// What is known of the etcd of this node.
struct Known {
    /// Its address and certificates.
    member: Member,
    endpoints: Vec<String>,
    /// Where its data are, on the host; None where it is another machine's.
    data_dir: Option<PathBuf>,
}

impl Known {
    fn cluster(&self) -> Cluster<'_> {
        Cluster { connector: &self.member, endpoints: &self.endpoints }
    }
}

impl Reach {
    fn known(self, paths: &Paths) -> anyhow::Result<Known> {
        let spec = self.node.spec(paths)?;
        let (member, mut endpoints, data_dir) = match &spec.etcd {
            EtcdSpec::Local(local) => {
                let member = Member::of(&spec, paths);
                let endpoints = vec![member.url()];
                (member, endpoints, Some(paths.on_host(&local.data_dir)))
            }
            EtcdSpec::External(external) => {
                let member = Member::external(external, paths).context(
                    "the configuration's external etcd has no caFile, certFile and keyFile: members are asked by TLS",
                )?;
                (member, external.endpoints.clone(), None)
            }
        };
        let is_own = self.endpoints.is_empty();
        if !is_own {
            endpoints = self.endpoints;
        }
        Ok(Known { member, endpoints, data_dir: data_dir.filter(|_| is_own) })
    }
}

/// A number of bytes for people.
fn size(bytes: u64) -> String {
    const MIB: u64 = 1 << 20;
    match bytes {
        MIB.. => format!("{:.1} MiB", bytes as f64 / MIB as f64),
        _ => format!("{} KiB", bytes.div_ceil(1 << 10)),
    }
}
