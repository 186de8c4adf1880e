//! `kubeboot manifests`.

use std::process::ExitCode;

use super::spec::{SpecFlags, load};
use super::{Globals, Hint};
use crate::host::environment;
use crate::host::tree::MemoryTree;
use crate::manifests::wanted;
use crate::ui;
use crate::workflow::node_files::render;

/// Print the static pod manifests that init would write
///
/// Needs no root, no network and no container runtime, and touches nothing. CA bundles and proxy variables are those of
/// this machine, as they are for init.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kubeboot manifests\n  \
    kubeboot manifests kube-apiserver --config cluster.yaml\n  \
    kubeboot manifests etcd | kubectl apply --dry-run=client -f -\n\n\
    Exit codes: 0 printed, 1 any error.")]
pub struct Args {
    /// Components [default: all of etcd, kube-apiserver, kube-controller-manager, kube-scheduler]
    #[arg(value_name = "COMPONENT")]
    components: Vec<String>,
    #[command(flatten)]
    spec: SpecFlags,
}

/// Prints the manifests, `---` between them.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<ExitCode> {
    let loaded = load(&args.spec.input()?)?;
    let known = wanted(&loaded.spec);
    let tree = MemoryTree::above(globals.paths());
    let components: Vec<&str> = match args.components.is_empty() {
        true => known,
        false => args.components.iter().map(String::as_str).collect(),
    };
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let proxy_env = environment::proxies();
    let mut text = String::new();
    for component in components {
        let manifest = render(&loaded.spec, component, &proxy_env, &tree)
            .map_err(|error| anyhow::Error::new(error).context(Hint::new("see `kubeboot manifests --help`")))?;
        if !text.is_empty() {
            text.push_str("---\n");
        }
        text.push_str(&manifest.yaml);
    }
    ui::print(&text)?;
    Ok(ExitCode::SUCCESS)
}
