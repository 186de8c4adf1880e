//! `kubeboot etcd snapshot restore`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, anyhow, bail};
use serde::Serialize;

use super::OUTPUT_API;
use crate::cli::spec::{NodeConfig, absolute};
use crate::config::ClusterSpec;
use crate::config::spec::{Endpoint, last_arg};
use crate::etcd::restore::{NewCluster, Revisions, peer_url};
use crate::host::Paths;
use crate::host::disk::HostDisk;
use crate::ui::{self, Output};
use crate::workflow::etcd::restore::{Wanted, restore};

/// Where kubeadm's etcd listens for other members.
const PEER_PORT: u16 = 2380;

/// Make etcd's data from a snapshot
///
/// Writes what etcd starts on: the database of the snapshot, which forgets the members that it had, and a new log with those of
/// --initial-cluster. It is a new cluster, as with `etcdutl snapshot restore`, and is the same whatever version of etcd has saved
/// it (3.4 to 3.7); needed is neither a running etcd nor a container. The data directory has to be empty, and has the data only
/// when they are whole.
///
/// Clients of Kubernetes remember revisions that the snapshot does not have. --bump-revision with --mark-compacted has them
/// read everything again; a thousand million is enough for years.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples, on a control-plane node with a single etcd:\n  \
    mv /etc/kubernetes/manifests/etcd.yaml /root/             # stop etcd\n  \
    mv /var/lib/etcd /var/lib/etcd.before\n  \
    kubeboot etcd snapshot restore /var/backups/etcd.db --data-dir /var/lib/etcd --bump-revision 1000000000 --mark-compacted\n  \
    mv /root/etcd.yaml /etc/kubernetes/manifests/             # start it\n\n\
    Of three members: the same on each, with its own --name and --initial-advertise-peer-urls, and\n  \
    --initial-cluster cp1=https://10.0.0.5:2380,cp2=https://10.0.0.6:2380,cp3=https://10.0.0.7:2380\n\n\
    Exit codes: 0 restored, 1 any error (everything is as it was).")]
pub struct Args {
    /// The snapshot
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The data directory: empty, or not there
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Name of this member [default: the name of this node]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// All members, as NAME=URL,NAME=URL [default: this one]
    #[arg(long, value_name = "MEMBERS")]
    initial_cluster: Option<String>,
    /// Where other members reach this one [default: https://ADDRESS:2380 of this node]
    #[arg(long, value_name = "URL", value_delimiter = ',', value_parser = peer_url)]
    initial_advertise_peer_urls: Vec<String>,
    /// Token of the cluster, from which ids follow: alike for all members
    #[arg(long, value_name = "TOKEN", default_value = "etcd-cluster")]
    initial_cluster_token: String,
    /// Take a file without a hash, such as a copied database, or with a wrong one
    #[arg(long)]
    skip_hash_check: bool,
    /// By how much the newest revision grows
    #[arg(long, value_name = "N", requires = "mark_compacted", value_parser = clap::value_parser!(u64).range(1..=1 << 62))]
    bump_revision: Option<u64>,
    /// Say that everything before that revision is compacted
    #[arg(long, requires = "bump_revision")]
    mark_compacted: bool,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    node: NodeConfig,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    kind: &'static str,
    api_version: &'static str,
    data_dir: PathBuf,
    name: String,
    /// In hexadecimal, as that of the cluster.
    member: String,
    cluster: String,
}

/// Restores it.
pub fn run(args: Args, paths: &Paths) -> anyhow::Result<ExitCode> {
    let spec = match (&args.name, &args.initial_advertise_peer_urls.is_empty()) {
        // Nothing is asked of the configuration.
        (Some(_), false) => None,
        _ => Some(args.node.spec(paths)?),
    };
    let name = args.name.clone().or_else(|| spec.as_ref().map(name_of)).unwrap_or_default();
    let mut urls = match args.initial_advertise_peer_urls.as_slice() {
        [] => spec.as_ref().map(peer_urls).unwrap_or_default(),
        given => given.to_vec(),
    };
    urls.sort();
    let members = args
        .initial_cluster
        .clone()
        .unwrap_or_else(|| urls.iter().map(|url| format!("{name}={url}")).collect::<Vec<_>>().join(","));
    let cluster = NewCluster::parse(&members, &args.initial_cluster_token)
        .map_err(|error| anyhow!(error))
        .with_context(|| format!("--initial-cluster {members}"))?;
    let Some((own, member)) = cluster.member(&name) else {
        bail!(
            "--initial-cluster has no member {name}, but {}: give the name of this one by --name",
            cluster.names().join(", ")
        );
    };
    if member.peer_urls != urls {
        bail!(
            "--initial-cluster has {name} at {}, --initial-advertise-peer-urls at {}: both have to say the same",
            member.peer_urls.join(","),
            urls.join(",")
        );
    }
    let data_dir = absolute(&args.data_dir)?;
    let wanted = Wanted {
        snapshot: &args.file,
        data_dir: &data_dir,
        cluster: &cluster,
        own,
        revisions: Revisions { bump: args.bump_revision.unwrap_or_default() },
        skip_hash_check: args.skip_hash_check,
    };
    restore(&HostDisk, &wanted)?;
    let id = format!("{:x}", cluster.id());
    match args.output {
        Output::Text => ui::print(&format!(
            "restored {} in {} as {name}, member {own} of the new cluster {id}\n",
            args.file.display(),
            data_dir.display()
        ))?,
        output => {
            let member = own.to_string();
            let document =
                Document { kind: "EtcdSnapshotRestored", api_version: OUTPUT_API, data_dir, name, member, cluster: id };
            ui::print_value(output, &document)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The value of a flag that the configuration gives etcd.
fn flag<'a>(spec: &'a ClusterSpec, name: &str) -> Option<&'a str> {
    last_arg(&spec.etcd.local()?.component.extra_args, name)
}

fn name_of(spec: &ClusterSpec) -> String {
    flag(spec, "name").unwrap_or(&spec.node.name).to_owned()
}

fn peer_urls(spec: &ClusterSpec) -> Vec<String> {
    let own = || Endpoint { host: spec.node.advertise_address.to_string(), port: PEER_PORT };
    match flag(spec, "initial-advertise-peer-urls") {
        Some(urls) => urls.split(',').map(str::to_owned).collect(),
        None => vec![format!("https://{}", own())],
    }
}
