//! `kubeboot images`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use serde::Serialize;

use super::{Globals, Hint};
use crate::config::spec::Overrides;
use crate::config::{self, ClusterSpec};
use crate::host::silence::Silence;
use crate::manifests;
use crate::release::KubernetesVersion;
use crate::runtime::docker::Docker;
use crate::runtime::docker::build::build_components;
use crate::runtime::endpoint::Endpoint;
use crate::runtime::images::{ImagesError, ensure_images, present};
use crate::runtime::{ContainerRuntime, RuntimeError};
use crate::ui::{self, Output};

/// What `build` can make besides what a control-plane node runs: an image that the cluster's nodes need.
const KUBE_PROXY: &str = "kube-proxy";

/// List, pull or build the images of the control plane
///
/// Which images these are follows from the Kubernetes version and the image repository, by --config or by flags.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kubeboot images list\n  \
    kubeboot images pull --kubernetes-version v1.36.2\n  \
    kubeboot images build --from-dir bin --tag-version v1.36.2\n\n\
    Exit codes: 0 done, 1 any error.")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    List(ListArgs),
    Pull(PullArgs),
    Build(BuildArgs),
}

/// List the images a control-plane node runs, and which of them are on this machine
///
/// A plain list, one a line, comes with `-o json | jq -r '.images[].image'`. Where the container runtime does not
/// answer the list is printed all the same, with a question mark for what is not known.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kubeboot images list\n  \
    kubeboot images list --kubernetes-version v1.35.1 -o json\n  \
    kubeboot images list --missing || kubeboot images pull\n\n\
    Exit codes: 0 done, 1 any error, or an image is not here with --missing.")]
struct ListArgs {
    #[command(flatten)]
    which: Which,
    /// Socket of the container runtime [default: Docker, else the only one that speaks CRI]
    #[arg(long, value_name = "SOCKET")]
    cri_socket: Option<String>,
    /// Print only the names of images that are not here, one a line, and exit 1 if there are any
    #[arg(long)]
    missing: bool,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Pull the images that are not on this machine yet
///
/// `kubeboot init` does this too; pulling first makes it quick. The pause image may be missing: the control plane does
/// without it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kubeboot images pull\n  \
    kubeboot images pull --config cluster.yaml\n\n\
    Exit codes: 0 every image is on this machine, 1 any error.")]
struct PullArgs {
    #[command(flatten)]
    which: Which,
    /// Socket of the container runtime [default: Docker, else the only one that speaks CRI]
    #[arg(long, value_name = "SOCKET")]
    cri_socket: Option<String>,
    /// Format of the events and the result
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Build images out of local binaries, for your own Kubernetes builds and for machines that reach no registry
///
/// Looks in a directory for kube-apiserver, kube-controller-manager, kube-scheduler, kube-proxy, etcd and pause, and
/// makes an image of each that is there, under the name `kubeboot init` asks for with the same version and repository.
/// A linked binary gets its libraries from this machine. The same binaries make the same images.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kubeboot images build --from-dir ~/kubernetes/_output/bin --tag-version v1.37.0-my.1\n  \
    kubeboot images build --from-dir bin --tag-version v1.36.2 --image-repository registry.example.com/k8s\n\n\
    Exit codes: 0 built, 1 any error.")]
struct BuildArgs {
    /// Directory of the binaries
    #[arg(long, value_name = "DIR")]
    from_dir: PathBuf,
    /// Kubernetes version the images are for
    #[arg(long, value_name = "VERSION")]
    tag_version: KubernetesVersion,
    /// Repository of the images' names [default: registry.k8s.io]
    #[arg(long, value_name = "REPOSITORY")]
    image_repository: Option<String>,
    /// Format of the events and the result
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Which images.
#[derive(Debug, clap::Args)]
pub(super) struct Which {
    /// Configuration file (kubeadm's documents and kubeboot's)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Kubernetes version [default: the newest this program knows]
    #[arg(long, value_name = "VERSION")]
    kubernetes_version: Option<String>,
    /// Repository to take the images from [default: registry.k8s.io]
    #[arg(long, value_name = "REPOSITORY")]
    image_repository: Option<String>,
    /// Feature gates, `NAME=true` or `NAME=false`, separated by commas
    #[arg(long, value_name = "GATE", value_delimiter = ',')]
    feature_gates: Vec<String>,
}

/// Runs one of the commands.
pub async fn run(args: Args, globals: &Globals) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::List(args) => list(args, globals).await,
        Command::Pull(args) => pull(args, globals).await,
        Command::Build(args) => build(args).await,
    }
}

#[derive(Debug, Serialize)]
struct List {
    images: Vec<Item>,
}

#[derive(Debug, Serialize)]
struct Item {
    component: &'static str,
    image: String,
    optional: bool,
    /// None when the runtime does not answer.
    present: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
}

async fn list(args: ListArgs, globals: &Globals) -> anyhow::Result<ExitCode> {
    let spec = args.which.spec_at(args.cri_socket.as_deref(), globals)?;
    let images = manifests::images(&spec);
    let references: Vec<String> = images.iter().map(|image| image.reference.clone()).collect();
    let local = match present(&*Endpoint::of(&spec).connect()?, &references).await {
        Ok(local) => Some(local),
        Err(error) => {
            tracing::warn!(%error, "cannot tell which images are on this machine");
            None
        }
    };
    let item = |image: manifests::ComponentImage| {
        let found = local.as_ref().map(|local| local.iter().find(|(name, _)| *name == image.reference));
        let record = found.map(|found| found.and_then(|(_, record)| record.as_ref()));
        Item {
            component: image.component,
            optional: image.optional,
            present: record.map(|record| record.is_some()),
            size: record.flatten().map(|record| record.size),
            image: image.reference,
        }
    };
    let list = List { images: images.into_iter().map(item).collect() };
    if args.missing {
        return print_missing(&list);
    }
    match args.output {
        Output::Text => ui::print(&text(&list))?,
        other => ui::print_value(other, &list)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The optional ones are not missed.
fn print_missing(list: &List) -> anyhow::Result<ExitCode> {
    let missing: Vec<&Item> = list.images.iter().filter(|i| !i.optional && i.present != Some(true)).collect();
    ui::print(&missing.iter().map(|item| format!("{}\n", item.image)).collect::<String>())?;
    Ok(if missing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn text(list: &List) -> String {
    let row = |item: &Item| {
        let present = match item.present {
            Some(true) => "yes",
            Some(false) if item.optional => "no (optional)",
            Some(false) => "no",
            None => "?",
        };
        [item.image.clone(), present.to_owned(), item.size.map(megabytes).unwrap_or_default()]
    };
    ui::table(["IMAGE", "PRESENT", "SIZE"], list.images.iter().map(row))
}

/// As `docker images` counts: `110MB`.
fn megabytes(bytes: u64) -> String {
    let tenths = (bytes + 50_000) / 100_000;
    if tenths < 100 { format!("{}.{}MB", tenths / 10, tenths % 10) } else { format!("{}MB", (tenths + 5) / 10) }
}

async fn pull(args: PullArgs, globals: &Globals) -> anyhow::Result<ExitCode> {
    let spec = args.which.spec_at(args.cri_socket.as_deref(), globals)?;
    let reporter = ui::reporter(args.output);
    let runtime = Endpoint::of(&spec).connect()?;
    let (optional, needed): (Vec<_>, Vec<_>) = manifests::images(&spec).into_iter().partition(|image| image.optional);
    let references = |images: Vec<manifests::ComponentImage>| -> Vec<String> {
        images.into_iter().map(|image| image.reference).collect()
    };
    let policy = spec.node.image_pull_policy;
    let mut pulled = ensure_images(&*runtime, &references(needed), policy, &*reporter).await.map_err(with_hint)?;
    match ensure_images(&*runtime, &references(optional), policy, &*reporter).await {
        Ok(more) => pulled.extend(more),
        Err(ImagesError::Missing(missing)) => {
            for image in missing {
                reporter.warn("images", format!("left out, as the control plane needs it not: {image}"));
            }
        }
        Err(error) => return Err(with_hint(error)),
    }
    if pulled.is_empty() {
        reporter.note("images", "every image is on this machine already".to_owned());
    }
    Ok(ExitCode::SUCCESS)
}

async fn build(args: BuildArgs) -> anyhow::Result<ExitCode> {
    let flags = config::Flags {
        kubernetes_version: Some(args.tag_version.to_string()),
        image_repository: args.image_repository,
        ..config::Flags::default()
    };
    let spec = load(None, flags)?;
    let mut wanted: Vec<(&str, String)> =
        manifests::images(&spec).into_iter().map(|image| (image.component, image.reference)).collect();
    let proxy = format!("{}/{KUBE_PROXY}:{}", spec.image_repository, spec.kubernetes_version.image_tag());
    wanted.push((KUBE_PROXY, proxy));
    let reporter = ui::reporter(args.output);
    let docker = Docker::connect(None)?;
    docker.version().await.map_err(unreachable)?;
    let components = build_components(&docker, &args.from_dir, &wanted, &*reporter).await?;
    for absent in &components.absent {
        reporter.note("images", format!("{} has no {absent}", args.from_dir.display()));
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn with_hint(error: ImagesError) -> anyhow::Error {
    match error {
        ImagesError::Runtime(error) => unreachable(error).context("cannot look for images"),
        other => other.into(),
    }
}

fn unreachable(error: RuntimeError) -> anyhow::Error {
    const START: &str = "`systemctl start docker` (without systemd: `dockerd &`), or name another in DOCKER_HOST";
    let hint = Hint::new(match error.silence().unwrap_or_default() {
        (Silence::Denied, _) => "run this as root, or as a member of the socket's group".to_owned(),
        (_, true) => "correct DOCKER_HOST, or take it out of the environment".to_owned(),
        (Silence::Missing, _) => format!("install Docker, and start it with {START}"),
        _ => format!("start it with {START}"),
    });
    match error {
        error @ RuntimeError::Unreachable { .. } => anyhow::Error::new(error).context(hint),
        other => other.into(),
    }
}

impl Which {
    /// The configuration that the flags and the file are.
    pub(super) fn spec(&self) -> anyhow::Result<ClusterSpec> {
        let file = self.config.as_ref().map(|path| {
            let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            anyhow::Ok((path.clone(), text))
        });
        let flags = config::Flags {
            kubernetes_version: self.kubernetes_version.clone(),
            image_repository: self.image_repository.clone(),
            feature_gates: self.feature_gates.clone(),
            ..config::Flags::default()
        };
        load(file.transpose()?, flags)
    }
}

impl Which {
    /// The same with the runtime at a socket, or else the machine's.
    pub(super) fn spec_at(&self, cri_socket: Option<&str>, globals: &Globals) -> anyhow::Result<ClusterSpec> {
        let spec = self.spec()?;
        let overrides = match cri_socket.filter(|socket| !socket.is_empty()).map(Endpoint::parse).transpose()? {
            Some(Endpoint::Cri(socket)) => Overrides { cri_socket: Some(Some(socket)), ..Overrides::default() },
            Some(Endpoint::Docker(docker_host)) => {
                Overrides { cri_socket: Some(None), docker_host, ..Overrides::default() }
            }
            None => return Ok(Endpoint::choose(spec, &globals.paths())?),
        };
        Ok(spec.with(overrides))
    }
}

/// Resolves what images depend on. The machine is not asked: neither its name nor its address is in an image's.
fn load(file: Option<(PathBuf, String)>, flags: config::Flags) -> anyhow::Result<ClusterSpec> {
    let host = config::HostDefaults { hostname: "node".to_owned(), address: Some([10, 0, 0, 1].into()) };
    let loaded = config::load(&config::Input { file, flags, host })?;
    for warning in loaded.warnings {
        tracing::warn!("{warning}");
    }
    Ok(loaded.spec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_says_what_is_here_what_is_not_and_what_is_not_known() {
        let item = |image: &str, optional, present, size| Item {
            component: "etcd",
            image: image.to_owned(),
            optional,
            present,
            size,
        };
        let list = List {
            images: vec![
                item("r/a:1", false, Some(true), Some(110_256_290)),
                item("r/b:1", false, Some(false), None),
                item("r/c:1", true, Some(false), None),
                item("r/d:1", false, None, None),
            ],
        };
        let expected = ["IMAGE PRESENT SIZE", "r/a:1 yes 110MB", "r/b:1 no", "r/c:1 no (optional)", "r/d:1 ?"];
        let text = text(&list);
        let lines: Vec<String> =
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(lines, expected);
    }

    #[test]
    fn sizes_are_counted_as_docker_counts_them() {
        assert_eq!([771_266, 23_671_082, 9_949_999].map(megabytes), ["0.8MB", "24MB", "9.9MB"]);
    }

    #[test]
    fn the_images_follow_from_the_flags_alone() {
        let which = Which {
            config: None,
            kubernetes_version: Some("v1.20.2".into()),
            image_repository: Some("localhost:5000/k".into()),
            feature_gates: vec![],
        };
        let images = manifests::images(&which.spec().unwrap());
        assert_eq!(images[0].reference, "localhost:5000/k/kube-apiserver:v1.20.2");
    }
}
