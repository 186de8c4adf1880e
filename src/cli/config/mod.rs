//! `kubeboot config`.

mod images;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Subcommand;
use serde_json::Value;

use super::{Globals, block_on};
use crate::agent::options;
use crate::cluster::addons::kube_proxy;
use crate::config::{self, defaults, reference};
use crate::host::facts;
use crate::host::fs::write_through;
use crate::kubelet;
use crate::ui::{self, Output};
use crate::yaml;

/// Print, check and bring up to date configuration files, and name the images they ask for
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kubeboot config print init-defaults > cluster.yaml\n  \
    kubeboot config validate --config cluster.yaml\n  \
    kubeboot config migrate --old-config old.yaml --new-config new.yaml\n  \
    kubeboot config images list --config cluster.yaml\n  \
    kubeboot config schema > kubeboot.schema.json\n\n\
    Exit codes: 0 done, 1 any error.")]
pub struct Args {
    #[command(subcommand)]
    command: Sub,
    /// Kubeconfig for the cluster; taken for kubeadm's sake: none of these commands asks the cluster
    #[arg(long, global = true, hide = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Sub {
    Print(PrintArgs),
    Validate(ValidateArgs),
    Migrate(MigrateArgs),
    Images(images::Args),
    Schema(SchemaArgs),
    /// Print the reference of every field, in Markdown
    #[command(after_help = PRINTED)]
    Docs,
}

/// Print a configuration with every default
///
/// Values that only a user knows are placeholders; what is printed loads as it is.
#[derive(Debug, clap::Args)]
struct PrintArgs {
    #[command(subcommand)]
    which: Which,
}

const PRINTED: &str = "Exit codes: 0 printed, 1 any error.";

#[derive(Debug, Subcommand)]
enum Which {
    /// Print InitConfiguration and ClusterConfiguration
    #[command(name = "init-defaults", after_help = PRINTED)]
    Init(ComponentConfigs),
    /// Print JoinConfiguration
    #[command(name = "join-defaults", after_help = PRINTED)]
    Join(ComponentConfigs),
    /// Print ResetConfiguration
    #[command(name = "reset-defaults", after_help = PRINTED)]
    Reset(ComponentConfigs),
    /// Print UpgradeConfiguration
    #[command(name = "upgrade-defaults", after_help = PRINTED)]
    Upgrade(ComponentConfigs),
}

#[derive(Debug, clap::Args)]
struct ComponentConfigs {
    /// Documents of components to print too, separated by commas: KubeletConfiguration, KubeProxyConfiguration
    #[arg(long, value_name = "KIND", value_delimiter = ',', value_parser = [KUBELET, KUBE_PROXY])]
    component_configs: Vec<String>,
}

/// Check every document of a configuration file
///
/// Unknown fields, wrong types and impossible values are errors with file, line and column, all of them at once. The
/// machine is not looked at.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: 0 the file is valid, 1 it is not, or any error.")]
struct ValidateArgs {
    /// The file; - for stdin
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Do not warn of deprecated versions of the API
    #[arg(long)]
    allow_deprecated_api: bool,
    #[command(flatten)]
    experimental: Experimental,
}

/// Write a configuration file anew in the newest versions of its documents
///
/// v1beta3 of kubeadm's API becomes v1beta4. Only what the file says is written, without defaults; comments are lost.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: 0 written, 1 the file is not valid, or any error.")]
struct MigrateArgs {
    /// The file to read; - for stdin
    #[arg(long, value_name = "FILE")]
    old_config: PathBuf,
    /// The file to write [default: stdout]
    #[arg(long, value_name = "FILE")]
    new_config: Option<PathBuf>,
    #[command(flatten)]
    experimental: Experimental,
}

/// Print the JSON schema of a kind, for editors and checks
#[derive(Debug, clap::Args)]
#[command(after_help = PRINTED)]
struct SchemaArgs {
    /// The kind
    #[arg(long, value_name = "KIND", default_value = reference::KUBEBOOT_KIND,
        value_parser = clap::builder::PossibleValuesParser::new(reference::kinds()))]
    kind: String,
}

#[derive(Debug, clap::Args)]
struct Experimental {
    /// Allow experimental versions of the API; there is none now
    #[arg(long)]
    allow_experimental_api: bool,
}

/// Runs one of the commands.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<ExitCode> {
    match args.command {
        Sub::Print(args) => print(&args.which)?,
        Sub::Validate(args) => validate(&args)?,
        Sub::Migrate(args) => migrate(&args)?,
        Sub::Schema(args) => ui::print_value(Output::Json, &reference::schema(&args.kind))?,
        Sub::Docs => ui::print(&docs()?)?,
        Sub::Images(args) => return block_on(images::run(args, globals)),
    }
    Ok(ExitCode::SUCCESS)
}

/// The whole of docs/configuration.md.
fn docs() -> anyhow::Result<String> {
    Ok(reference::markdown()? + &options::reference::markdown())
}

fn print(which: &Which) -> anyhow::Result<()> {
    let documents = match which {
        Which::Init(components) => with_components(defaults::init()?, components)?,
        Which::Join(components) => with_components(defaults::join(&facts::identity().0)?, components)?,
        Which::Reset(components) => with_components(defaults::reset()?, components)?,
        Which::Upgrade(components) => with_components(defaults::upgrade()?, components)?,
    };
    Ok(ui::print(&stream(&documents)?)?)
}

/// Kinds of component documents.
const KUBELET: &str = "KubeletConfiguration";
const KUBE_PROXY: &str = "KubeProxyConfiguration";

fn with_components(mut documents: Vec<Value>, components: &ComponentConfigs) -> anyhow::Result<Vec<Value>> {
    for kind in &components.component_configs {
        documents.push(if kind == KUBELET { kubelet_configuration()? } else { kube_proxy_configuration()? });
    }
    Ok(documents)
}

/// What kube-proxy gets when nobody says anything else.
fn kube_proxy_configuration() -> anyhow::Result<Value> {
    let objects = kube_proxy::objects(&defaults::init_spec()?, &[])?;
    let data = objects.config_map.data.unwrap_or_default();
    let text = data.get("config.conf").context("the config map of kube-proxy has no configuration")?;
    Ok(yaml::to_value(text)?)
}

/// What every kubelet gets when nobody says anything else: a node's own settings are not in it.
fn kubelet_configuration() -> anyhow::Result<Value> {
    let files = kubelet::files::render(&defaults::init_spec()?, false)?;
    let mut document = yaml::to_value(&files.config)?;
    if let Some(fields) = document.as_object_mut() {
        fields.remove("containerRuntimeEndpoint");
    }
    Ok(document)
}

fn validate(args: &ValidateArgs) -> anyhow::Result<()> {
    let text = read(&args.config)?;
    warn(config::validate(&args.config, &text, args.allow_deprecated_api)?);
    Ok(ui::print("ok\n")?)
}

fn migrate(args: &MigrateArgs) -> anyhow::Result<()> {
    let text = read(&args.old_config)?;
    let (documents, warnings) = config::migrate(&args.old_config, &text)?;
    warn(warnings);
    let text = stream(&documents)?;
    match &args.new_config {
        // It may hold a token.
        Some(path) => drop(write_through(path, text.as_bytes(), 0o600)?),
        None => ui::print(&text)?,
    }
    Ok(())
}

fn warn(warnings: Vec<String>) {
    for warning in warnings {
        tracing::warn!("{warning}");
    }
}

/// The documents one after the other.
fn stream(documents: &[Value]) -> Result<String, yaml::EmitError> {
    let texts = documents.iter().map(yaml::to_string).collect::<Result<Vec<_>, _>>()?;
    Ok(texts.join("---\n"))
}

/// The text of a file, or of stdin for `-`.
fn read(path: &Path) -> anyhow::Result<String> {
    let text = match path.as_os_str() == "-" {
        true => std::io::read_to_string(std::io::stdin()),
        false => std::fs::read_to_string(path),
    };
    text.with_context(|| format!("cannot read the configuration file {}", path.display()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_reference_in_the_repository_is_the_one_that_is_made() {
        crate::testing::golden::assert_generated("docs/configuration.md", &super::docs().unwrap());
    }
}
