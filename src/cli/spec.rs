//! kubeadm's flags that configure, for the commands that take a configuration.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::Hint;
use crate::config::spec::{NodeAgent, Overrides};
use crate::config::{self, ClusterSpec, Flags, HostDefaults, Input, Loaded, Secret};
use crate::host::tree::{HostTree, NoRecord};
use crate::host::{Paths, environment, facts};
use crate::runtime::endpoint::Endpoint;
use crate::workflow::state::saved::Saved;

/// The configuration file, or flags in its place.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Configuration")]
pub struct SpecFlags {
    /// Configuration file: kubeadm's documents (kubeadm.k8s.io/v1beta4, v1beta3) and kubeboot's own
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Kubernetes version to run [default: the newest this program knows]
    #[arg(long, value_name = "VERSION")]
    kubernetes_version: Option<String>,
    /// IP address the API server advertises [default: the source address of the default route]
    #[arg(long, value_name = "IP")]
    apiserver_advertise_address: Option<String>,
    /// Port of the API server [default: 6443]
    #[arg(long, value_name = "PORT")]
    apiserver_bind_port: Option<String>,
    /// More names and addresses for the API server's certificate, separated by commas
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    apiserver_cert_extra_sans: Vec<String>,
    /// Name or address under which all control-plane nodes are reached, with or without a port
    #[arg(long, value_name = "ENDPOINT")]
    control_plane_endpoint: Option<String>,
    /// Repository to take the images from [default: registry.k8s.io]
    #[arg(long, value_name = "REPOSITORY")]
    image_repository: Option<String>,
    /// Name of the node [default: the host name]
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    /// Network of the pods
    #[arg(long, value_name = "CIDR")]
    pod_network_cidr: Option<String>,
    /// Network of the services [default: 10.96.0.0/12]
    #[arg(long, value_name = "CIDR")]
    service_cidr: Option<String>,
    /// Domain of the services [default: cluster.local]
    #[arg(long, value_name = "DOMAIN")]
    service_dns_domain: Option<String>,
    /// Directory of the certificates [default: /etc/kubernetes/pki]
    #[arg(long, value_name = "DIR")]
    cert_dir: Option<String>,
    /// Who runs the static pods: kubeboot's own agent, or a real kubelet [default: embedded]
    #[arg(long, value_name = "AGENT", value_parser = node_agent())]
    node_agent: Option<NodeAgent>,
    /// Socket of the container runtime interface, which goes into the kubelet's settings
    #[arg(long, value_name = "SOCKET")]
    cri_socket: Option<String>,
    /// Directory of patches for the manifests and the kubelet's settings
    #[arg(long, value_name = "DIR")]
    patches: Option<String>,
    /// Feature gates, `NAME=true` or `NAME=false`, separated by commas
    #[arg(long, value_name = "GATE", value_delimiter = ',')]
    feature_gates: Vec<String>,
    /// Checks whose errors are only warnings, separated by commas; `all` are all of them
    #[arg(long, value_name = "CHECK", value_delimiter = ',')]
    ignore_preflight_errors: Vec<String>,
    /// Phases to leave out, separated by commas
    #[arg(long, value_name = "PHASE", value_delimiter = ',')]
    skip_phases: Vec<String>,
}

impl SpecFlags {
    /// Reads the file and asks the machine for its name and address.
    pub fn input(&self) -> anyhow::Result<Input> {
        let file = self.config.as_ref().map(|path| read_file(path)).transpose()?;
        let (hostname, address) = facts::identity();
        Ok(Input { file, flags: self.flags(), host: HostDefaults { hostname, address } })
    }

    fn flags(&self) -> Flags {
        let this = self.clone();
        Flags {
            kubernetes_version: this.kubernetes_version,
            apiserver_advertise_address: this.apiserver_advertise_address,
            apiserver_bind_port: this.apiserver_bind_port,
            apiserver_cert_extra_sans: this.apiserver_cert_extra_sans,
            control_plane_endpoint: this.control_plane_endpoint,
            image_repository: this.image_repository,
            node_name: this.node_name,
            pod_network_cidr: this.pod_network_cidr,
            service_cidr: this.service_cidr,
            service_dns_domain: this.service_dns_domain,
            cert_dir: this.cert_dir,
            ignore_preflight_errors: this.ignore_preflight_errors,
            skip_phases: this.skip_phases,
            patches: this.patches,
            node_agent: this.node_agent,
            cri_socket: this.cri_socket,
            feature_gates: this.feature_gates,
            ..Flags::default()
        }
    }
}

/// kubeadm's flags for what `init` tells the cluster, and those who are to join it.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Configuration")]
pub struct ClusterFlags {
    /// Bootstrap token for nodes that join [default: a random one]
    #[arg(long, value_name = "TOKEN", value_parser = secret)]
    token: Option<Secret>,
    /// How long the token lives; 0 lets it live for ever [default: 24h0m0s]
    #[arg(long, value_name = "DURATION")]
    token_ttl: Option<String>,
    /// Upload the certificates that control-plane nodes share, encrypted, to the Secret kubeadm-certs
    #[arg(long)]
    upload_certs: bool,
    /// Key to encrypt uploaded certificates with, 64 hexadecimal digits [default: a random one]
    #[arg(long, value_name = "KEY", value_parser = secret)]
    certificate_key: Option<Secret>,
    /// Print no token
    #[arg(long)]
    skip_token_print: bool,
    /// Print no certificate key
    #[arg(long)]
    skip_certificate_key_print: bool,
}

/// A secret of the command line, for clap.
pub fn secret(text: &str) -> Result<Secret, std::convert::Infallible> {
    Ok(Secret(text.to_owned()))
}

impl ClusterFlags {
    /// Adds these flags to `flags`.
    pub fn add_to(&self, flags: &mut Flags) {
        flags.token = self.token.clone().unwrap_or_default();
        flags.token_ttl = self.token_ttl.clone();
        flags.certificate_key = self.certificate_key.clone().unwrap_or_default();
        flags.upload_certs = self.upload_certs;
        flags.skip_token_print = self.skip_token_print;
        flags.skip_certificate_key_print = self.skip_certificate_key_print;
    }
}

fn node_agent() -> impl TypedValueParser<Value = NodeAgent> {
    PossibleValuesParser::new(["embedded", "kubelet"]).map(|name| match name.as_str() {
        "kubelet" => NodeAgent::Kubelet,
        _ => NodeAgent::Embedded,
    })
}

/// The configuration file, by its name and its text.
pub fn read_file(path: &Path) -> anyhow::Result<(PathBuf, String)> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the configuration file {}", path.display()))?;
    Ok((path.to_owned(), text))
}

/// The configuration that `input` is.
///
/// The agent has to speak with the Docker this command speaks with: an address in the environment goes into the unit.
pub fn load(input: &Input) -> anyhow::Result<Loaded> {
    let loaded = config::load(input).map_err(|error| match &input.file {
        Some(_) => anyhow::Error::new(error),
        None => anyhow::Error::new(error).context(Hint::new("see `kubeboot init --help` for what each flag takes")),
    })?;
    let is_docker = matches!(Endpoint::of(&loaded.spec), Endpoint::Docker(_));
    let is_open = is_docker && loaded.spec.kubeboot.docker_host.is_none();
    let docker_host = environment::docker_host().filter(|_| is_open);
    Ok(Loaded { spec: loaded.spec.with(Overrides { docker_host, ..Overrides::default() }), ..loaded })
}

/// The configuration of a node that is there already.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct NodeConfig {
    /// Configuration file [default: what `kubeboot init` was given on this machine, else kubeadm's defaults]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl NodeConfig {
    /// The configuration.
    pub fn spec(&self, paths: &Paths) -> anyhow::Result<ClusterSpec> {
        let saved = match self.config {
            None => Saved::read(&HostTree::new(paths.clone(), NoRecord))?,
            Some(_) => None,
        };
        let (spec, warnings) = match saved {
            Some(saved) => saved.spec()?,
            None => {
                let flags = SpecFlags { config: self.config.clone(), ..SpecFlags::default() };
                let loaded = load(&flags.input()?)?;
                (Endpoint::choose(loaded.spec, paths)?, loaded.warnings)
            }
        };
        warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        Ok(spec)
    }
}

/// A directory as the node sees it, wherever this command was started.
pub fn absolute(dir: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(dir).with_context(|| format!("cannot resolve {}", dir.display()))
}

/// The program that the unit is to run: this one, by its real path.
pub fn program() -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe().context("cannot find the path of this program")?;
    Ok(path.canonicalize().unwrap_or(path))
}
