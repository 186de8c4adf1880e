//! `kubeboot config images`: kubeadm's list, with the addons' images.

use std::process::ExitCode;

use clap::Subcommand;
use serde::Serialize;

use crate::cli::Globals;
use crate::cli::images::{Which, with_hint};
use crate::config::ClusterSpec;
use crate::manifests;
use crate::runtime::endpoint::Endpoint;
use crate::runtime::images::ensure_images;
use crate::ui::{self, Output};

/// List or pull the images that a cluster of this configuration runs
///
/// In kubeadm's order and form. `kubeboot images` tells more: what is on this machine, and what it takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(ListArgs),
    Pull(PullArgs),
}

/// List the images, one a line
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: 0 done, 1 any error.")]
struct ListArgs {
    #[command(flatten)]
    which: Which,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Pull the images
///
/// By the container runtime, those that are not on this machine yet.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: 0 every image is on this machine, 1 any error.")]
struct PullArgs {
    #[command(flatten)]
    which: Which,
    /// Socket of the container runtime that pulls [default: Docker, else the only one that speaks CRI]
    #[arg(long, value_name = "SOCKET")]
    cri_socket: Option<String>,
}

/// `output.kubeadm.k8s.io/v1alpha3 Images`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Images {
    kind: &'static str,
    api_version: &'static str,
    images: Vec<String>,
}

/// Runs one of the commands.
pub async fn run(args: Args, globals: &Globals) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::List(args) => list(manifests::cluster_images(&args.which.spec()?), args.output)?,
        Command::Pull(args) => {
            pull(&args.which.spec_at(args.cri_socket.as_deref(), globals)?).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list(images: Vec<String>, output: Output) -> anyhow::Result<()> {
    match output {
        Output::Text => ui::print(&images.iter().map(|image| format!("{image}\n")).collect::<String>())?,
        _ => {
            ui::print_value(output, &Images { kind: "Images", api_version: "output.kubeadm.k8s.io/v1alpha3", images })?
        }
    }
    Ok(())
}

async fn pull(spec: &ClusterSpec) -> anyhow::Result<()> {
    let runtime = Endpoint::of(spec).connect()?;
    let images = manifests::cluster_images(spec);
    let reporter = ui::reporter(Output::Text);
    ensure_images(&*runtime, &images, spec.node.image_pull_policy, &*reporter).await.map_err(with_hint)?;
    ui::print(&images.iter().map(|image| format!("[config/images] Pulled {image}\n")).collect::<String>())?;
    Ok(())
}
