//! `kubeboot join`.

use std::path::PathBuf;
use std::process::ExitCode;

use super::phases::{Sub, table};
use super::signals::stop_on_signals;
use super::spec::{program, read_file, secret};
use super::{Globals, Hint};
use crate::config::spec::{JoinSpec, NodeAgent};
use crate::config::{self, HostDefaults, Input, JoinFlags, Secret};
use crate::error::is_denied;
use crate::host::facts::{self, Interest, find_program};
use crate::kubelet::service::Program;
use crate::kubelet::sockets;
use crate::ui::{self, Output};
use crate::workflow::join::dry_run::rehearse;
use crate::workflow::join::options::OPTIONS;
use crate::workflow::join::{self, JoinError, PHASES, PhaseSelection, StepError};
use crate::workflow::machine::Machine;
use crate::workflow::machine::joining::Real;

/// Make this machine a worker of a cluster
///
/// Finds the cluster at the given API server by a bootstrap token and a hash of the cluster's CA, or by a file, hands
/// the machine's own kubelet what it needs to ask for its certificate, starts it, and waits until it has that. A worker
/// needs a kubelet on the PATH and a container runtime that speaks CRI. A run that was cut off or failed is finished by
/// the same command; `kubeboot reset` takes everything away again.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  \
    kubeboot join 10.0.0.5:6443 --token abcdef.0123456789abcdef --discovery-token-ca-cert-hash sha256:...\n  \
    kubeboot join --discovery-file /root/cluster.conf --tls-bootstrap-token abcdef.0123456789abcdef\n  \
    kubeboot join --config join.yaml --dry-run\n\n\
    `kubeboot token create --print-join-command` on a control-plane node prints the first of these.\n\n\
    Exit codes: 0 the node has joined, 1 any error."
)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Sub<JoinPhases>>,
    #[command(flatten)]
    flags: Flags,
}

table!(
    /// The phases of `join`.
    JoinPhases,
    Flags,
    PHASES,
    OPTIONS,
    phase_help()
);

fn phase_help() -> String {
    format!(
        "Phases:\n{}\nkubeadm's phases of a joining control-plane node come with high availability.\n\nExamples:\n  \
         kubeboot join phase preflight --config join.yaml\n  kubeboot join phase kubelet-start 10.0.0.5:6443 --token \
         ... --discovery-token-ca-cert-hash ...\n\nExit codes: 0 done, 1 any error.",
        PHASES.help()
    )
}

#[derive(Debug, clap::Args)]
struct Flags {
    /// API server to ask, host:port
    #[arg(value_name = "API-SERVER-ENDPOINT")]
    endpoint: Option<String>,
    /// Configuration file with a JoinConfiguration (kubeadm.k8s.io/v1beta4, v1beta3)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Token for both discovery and TLS bootstrap
    #[arg(long, value_name = "TOKEN", help_heading = "Discovery", value_parser = secret)]
    token: Option<Secret>,
    /// Token that the cluster's public information is signed with
    #[arg(long, value_name = "TOKEN", help_heading = "Discovery", value_parser = secret)]
    discovery_token: Option<Secret>,
    /// Token with which the kubelet asks for its certificate
    #[arg(long, value_name = "TOKEN", help_heading = "Discovery", value_parser = secret)]
    tls_bootstrap_token: Option<Secret>,
    /// Hash of the cluster CA's public key, `sha256:<hex>`; may be repeated, one has to fit
    #[arg(long, value_name = "HASH", value_delimiter = ',', help_heading = "Discovery")]
    discovery_token_ca_cert_hash: Vec<String>,
    /// Let the token alone vouch for the cluster
    #[arg(long, help_heading = "Discovery")]
    discovery_token_unsafe_skip_ca_verification: bool,
    /// Kubeconfig of the cluster, a path or an https URL, in place of a token and hashes
    #[arg(long, value_name = "FILE", help_heading = "Discovery")]
    discovery_file: Option<String>,
    /// Name of the node [default: the host name]
    #[arg(long, value_name = "NAME", help_heading = "Node")]
    node_name: Option<String>,
    /// Socket of the container runtime [default: the one that is there]
    #[arg(long, value_name = "SOCKET", help_heading = "Node")]
    cri_socket: Option<String>,
    /// Directory of patches for the kubelet's settings
    #[arg(long, value_name = "DIR", help_heading = "Node")]
    patches: Option<String>,
    /// Checks whose errors are only warnings, separated by commas; `all` are all of them
    #[arg(long, value_name = "CHECK", value_delimiter = ',', help_heading = "Options")]
    ignore_preflight_errors: Vec<String>,
    /// Phases to leave out, separated by commas
    #[arg(long, value_name = "PHASE", value_delimiter = ',', help_heading = "Options")]
    skip_phases: Vec<String>,
    /// Find the cluster, show what would be done and every file, and change nothing
    #[arg(long, help_heading = "Options")]
    dry_run: bool,
    /// With --dry-run: write the files below this directory
    #[arg(long, value_name = "DIR", requires = "dry_run", help_heading = "Options")]
    output_dir: Option<PathBuf>,
    /// Format of the events: text, or one JSON object or YAML document each
    #[arg(short, long, value_enum, default_value_t, help_heading = "Options")]
    output: Output,
    #[command(flatten)]
    control_plane: ControlPlane,
}

/// kubeadm's flags of a joining control-plane node.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Control plane (comes with high availability)")]
struct ControlPlane {
    /// Join as a control-plane node
    #[arg(long)]
    control_plane: bool,
    /// IP address its API server advertises
    #[arg(long, value_name = "IP")]
    apiserver_advertise_address: Option<String>,
    /// Port of its API server
    #[arg(long, value_name = "PORT")]
    apiserver_bind_port: Option<String>,
    /// Key of the uploaded certificates
    #[arg(long, value_name = "KEY", value_parser = secret)]
    certificate_key: Option<Secret>,
}

impl Flags {
    fn input(&self) -> anyhow::Result<Input<JoinFlags>> {
        let given = |secret: &Option<Secret>| secret.clone().filter(|secret| !secret.0.is_empty());
        let (hostname, address) = facts::identity();
        Ok(Input {
            file: self.config.as_ref().map(|path| read_file(path)).transpose()?,
            flags: JoinFlags {
                endpoint: self.endpoint.clone(),
                token: given(&self.token),
                discovery_token: given(&self.discovery_token),
                tls_bootstrap_token: given(&self.tls_bootstrap_token),
                discovery_token_ca_cert_hash: self.discovery_token_ca_cert_hash.clone(),
                discovery_token_unsafe_skip_ca_verification: self.discovery_token_unsafe_skip_ca_verification,
                discovery_file: self.discovery_file.clone(),
                control_plane: self.control_plane.control_plane,
                apiserver_advertise_address: self.control_plane.apiserver_advertise_address.clone(),
                apiserver_bind_port: self.control_plane.apiserver_bind_port.clone(),
                certificate_key: given(&self.control_plane.certificate_key),
                node_name: self.node_name.clone(),
                ignore_preflight_errors: self.ignore_preflight_errors.clone(),
                skip_phases: self.skip_phases.clone(),
                patches: self.patches.clone(),
                cri_socket: self.cri_socket.clone(),
            },
            host: HostDefaults { hostname, address },
        })
    }
}

/// Runs join, one phase of it, or the dry run of either.
pub async fn run(args: Args, globals: &Globals) -> anyhow::Result<ExitCode> {
    let (what, flags) = match args.command {
        Some(Sub::Phase(phase)) => (PhaseSelection::Phase(phase.name, phase.sub), phase.flags),
        None => (PhaseSelection::Everything, args.flags),
    };
    let loaded = config::load_join(&flags.input()?)
        .map_err(|error| anyhow::Error::new(error).context(Hint::new("see `kubeboot join --help`")))?;
    let spec = match loaded.spec.node.cri_socket {
        Some(_) => loaded.spec,
        None => loaded.spec.with_cri_socket(sockets::find(&globals.paths())?),
    };
    let kubelet = find_program("kubelet").map_or_else(program, Ok)?;
    let service = Program { path: kubelet, agent: NodeAgent::Kubelet, docker_host: None };
    let mut machine = Machine::this(&globals.paths(), service, ui::reporter(flags.output));
    loaded.warnings.into_iter().for_each(|warning| machine.reporter.warn("config", warning));
    stop_on_signals(&machine.stop);
    if flags.dry_run || loaded.dry_run {
        return show(&spec, &what, &flags, &machine).await;
    }
    join::run(&mut machine, &spec, &what).await.map_err(explain)?;
    if flags.output == Output::Text && what == PhaseSelection::Everything {
        ui::print(JOINED)?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn show(spec: &JoinSpec, what: &PhaseSelection, flags: &Flags, machine: &Machine) -> anyhow::Result<ExitCode> {
    let interest = Interest { kubelet: true, programs: vec!["kubelet"], ..Interest::default() };
    let facts = machine.facts.gather(&machine.paths, &interest);
    let rehearsed = rehearse(spec, what, (&machine.paths, &facts), &Real, &*machine.reporter).await;
    super::init::print_dry_run(&rehearsed.map_err(explain)?, flags.output_dir.as_deref(), flags.output)
}

/// kubeadm's words at the end.
const JOINED: &str = "\nThis node has joined the cluster:\n\
    * Certificate signing request was sent to apiserver and a response was received.\n\
    * The Kubelet was informed of the new secure connection details.\n\n\
    Run 'kubectl get nodes' on the control-plane to see this node join the cluster.\n\n";

/// What to do next, attached to what went wrong.
fn explain(error: JoinError) -> anyhow::Error {
    let hint = match &error {
        JoinError::Interrupted { .. } => {
            Some("run the same command again to go on, or `kubeboot reset` to take everything away")
        }
        JoinError::IsControlPlane => Some("`kubeboot reset` takes the control plane away"),
        _ if is_denied(&error) => Some("run this as root"),
        JoinError::Failed { source, .. } => match &**source {
            StepError::Preflight(_) | StepError::NameTaken { .. } | StepError::NoKubelet => None,
            StepError::OtherName { .. } => Some("`kubeboot reset` makes it a machine that can join anew"),
            _ => Some(
                "mend the cause and run the same command again: it goes on from here; or take everything away with \
                 `kubeboot reset`",
            ),
        },
        _ => None,
    };
    let error = anyhow::Error::new(error);
    match hint {
        Some(hint) => error.context(Hint::new(hint)),
        None => error,
    }
}
