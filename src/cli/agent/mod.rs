//! `kubeboot agent`, and the commands below it that ask a running one.

mod ask;
mod describe;
mod described;
mod events;
mod logs;
mod node_flags;
mod ps;
mod restart;
mod server_flags;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{ArgAction, ArgMatches, FromArgMatches};
use futures::StreamExt;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::Globals;
use super::failure::Hint;
use crate::agent::options::{self, AgentOptions, FLAGS_LET_BE, Flags, Takes};
use crate::agent::{self, control};
use crate::host::tree::{HostTree, NoRecord};
use crate::runtime::endpoint::Endpoint;
use crate::workflow::renewal;

/// The agent's own, which leaves the modes of everything it makes as they are meant.
const UMASK: rustix::fs::Mode = rustix::fs::Mode::from_raw_mode(0o022);
/// How often the control socket is tried until the agent listens on it.
const LISTEN_CHECK: Duration = Duration::from_millis(50);

/// Run the static-pod agent in the foreground
///
/// Runs every pod whose manifest is in a directory, on the container runtime of this machine, as a kubelet would, with
/// no cluster at all. Reads the kubelet's configuration file and takes the kubelet's flags; those that mean nothing to
/// it are accepted. When it ends the containers go on, and the next agent takes them over.
///
/// The commands below it ask a running agent; without one of them an agent is run.
#[derive(Debug, clap::Args)]
#[command(args_override_self = true, args_conflicts_with_subcommands = true)]
#[command(after_help = "Examples:\n  \
    kubeboot agent --pod-manifest-path /etc/kubernetes/manifests\n  \
    kubeboot agent --config /var/lib/kubelet/config.yaml\n  \
    kubeboot agent ps\n\n\
    Exit codes: 0 stopped by SIGTERM or SIGINT, 1 any error.")]
pub struct Args {
    #[command(subcommand)]
    ask: Option<Ask>,
    /// KubeletConfiguration file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory of drop-in files (*.conf), each merged over the file and those before it
    #[arg(long, value_name = "DIR")]
    config_dir: Option<PathBuf>,
    /// Directory of manifests, or one manifest; staticPodPath of the file
    #[arg(long, value_name = "PATH")]
    pod_manifest_path: Option<PathBuf>,
    /// URL of a manifest or a list of pods; staticPodURL of the file
    #[arg(long, value_name = "URL")]
    manifest_url: Option<String>,
    /// Headers of the requests to it: name:value,name2:value2
    #[arg(long, value_name = "HEADERS", action = ArgAction::Append)]
    manifest_url_header: Vec<String>,
    /// How often it is asked [default: 20s]
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    http_check_frequency: Option<String>,
    /// Name of the node, which pods' names end with [default: the host name]
    #[arg(long, value_name = "NAME")]
    hostname_override: Option<String>,
    /// Directory for volumes; agents with different ones live side by side [default: /var/lib/kubelet]
    #[arg(long, value_name = "DIR")]
    root_dir: Option<PathBuf>,
    /// How often the manifests are listed whatever the watch says [default: 20s]
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    file_check_frequency: Option<String>,
    /// How often every pod is looked at whatever its events say [default: 1m]
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    sync_frequency: Option<String>,
    /// Port of /healthz, 0 for none [default: 10248]
    #[arg(long, value_name = "PORT")]
    healthz_port: Option<u16>,
    /// Address of /healthz [default: 127.0.0.1]
    #[arg(long, value_name = "IP")]
    healthz_bind_address: Option<String>,
    /// Image of pause containers
    #[arg(long, value_name = "IMAGE")]
    pod_infra_container_image: Option<String>,
    /// Name servers of pods
    #[arg(long, value_name = "IP", value_delimiter = ',', action = ArgAction::Append)]
    cluster_dns: Vec<String>,
    /// Search domain of pods
    #[arg(long, value_name = "DOMAIN")]
    cluster_domain: Option<String>,
    /// The machine's resolver file, for pods
    #[arg(long, value_name = "FILE")]
    resolv_conf: Option<String>,
    /// The agent's own OOM score [default: -999]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    oom_score_adj: Option<i32>,
    /// Give containers without a seccomp profile the runtime's
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    seccomp_default: Option<bool>,
    /// Enforce CPU limits [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    cpu_cfs_quota: Option<bool>,
    /// The period over which they are enforced [default: 100ms]
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    cpu_cfs_quota_period: Option<String>,
    /// Bytes at which a container's log is rotated; negative for never [default: 10Mi]
    #[arg(long, value_name = "QUANTITY", allow_hyphen_values = true)]
    container_log_max_size: Option<String>,
    /// How many files of a container's log are kept [default: 5]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    container_log_max_files: Option<i64>,
    /// Port of the kubelet's read-only paths, 0 for none [default: 0]
    #[arg(long, value_name = "PORT")]
    read_only_port: Option<u16>,
    /// Address of the read-only port [default: 127.0.0.1]
    #[arg(long, value_name = "IP")]
    address: Option<String>,
    /// Give pods cgroups of their own, by quality of service [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    cgroups_per_qos: Option<bool>,
    /// The cgroup below which pods' cgroups are
    #[arg(long, value_name = "PATH")]
    cgroup_root: Option<String>,
    /// The most processes of a pod, -1 for no limit [default: -1]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pod_max_pids: Option<i64>,
    /// Pull one image at a time [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    serialize_image_pulls: Option<bool>,
    /// Control socket, where `kubeboot status` asks [default: /run/kubeboot/agent.sock]
    #[arg(long, value_name = "PATH", help_heading = "kubeboot's own options")]
    control_socket: Option<PathBuf>,
    /// Address of the Docker engine [default: DOCKER_HOST, else unix:///var/run/docker.sock]
    #[arg(long, value_name = "ADDRESS", help_heading = "kubeboot's own options")]
    docker_host: Option<String>,
    /// Socket of the container runtime, a unix:// URL [default: Docker, else the only one that speaks CRI]
    #[arg(long, value_name = "SOCKET")]
    container_runtime_endpoint: Option<String>,
    #[command(flatten)]
    node: node_flags::NodeArgs,
    #[command(flatten)]
    server: server_flags::ServerArgs,
    #[command(flatten)]
    let_be: LetBe,
}

/// What a running agent is asked.
#[derive(Debug, clap::Subcommand)]
enum Ask {
    Ps(ps::Args),
    Logs(logs::Args),
    Describe(describe::Args),
    Events(events::Args),
    Restart(restart::Args),
}

impl Args {
    /// Whether a running agent is asked, rather than one run.
    pub fn asks(&self) -> bool {
        self.ask.is_some()
    }
}

/// The kubelet's other flags, from the table of those that mean nothing to the agent.
#[derive(Debug)]
struct LetBe(Vec<String>);

impl clap::Args for LetBe {
    fn augment_args(command: clap::Command) -> clap::Command {
        FLAGS_LET_BE.iter().fold(command, |command, (name, takes)| {
            let arg = clap::Arg::new(*name).long(*name).hide(true).action(ArgAction::Append);
            command.arg(match takes {
                Takes::Switch => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
                Takes::Value => arg.num_args(1).allow_hyphen_values(true),
            })
        })
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for LetBe {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let names = FLAGS_LET_BE.iter().map(|(name, _)| *name);
        Ok(Self(names.filter(|name| matches.contains_id(name)).map(str::to_owned).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl From<Args> for Flags {
    fn from(args: Args) -> Self {
        Self {
            pod_manifest_path: args.pod_manifest_path,
            manifest_url: args.manifest_url,
            manifest_url_headers: args.manifest_url_header,
            hostname_override: args.hostname_override,
            root_dir: args.root_dir,
            file_check_frequency: args.file_check_frequency,
            http_check_frequency: args.http_check_frequency,
            sync_frequency: args.sync_frequency,
            healthz_port: args.healthz_port,
            healthz_bind_address: args.healthz_bind_address,
            address: args.address,
            read_only_port: args.read_only_port,
            container_log_max_size: args.container_log_max_size,
            container_log_max_files: args.container_log_max_files,
            cgroups_per_qos: args.cgroups_per_qos,
            cgroup_root: args.cgroup_root,
            pod_max_pids: args.pod_max_pids,
            serialize_image_pulls: args.serialize_image_pulls,
            pod_infra_container_image: args.pod_infra_container_image,
            cluster_dns: args.cluster_dns,
            cluster_domain: args.cluster_domain,
            resolv_conf: args.resolv_conf,
            oom_score_adj: args.oom_score_adj,
            seccomp_default: args.seccomp_default,
            cpu_cfs_quota: args.cpu_cfs_quota,
            cpu_cfs_quota_period: args.cpu_cfs_quota_period,
            control_socket: args.control_socket,
            docker_host: args.docker_host,
            node: args.node.into(),
            server: args.server.into(),
            container_runtime_endpoint: args.container_runtime_endpoint,
            let_be: args.let_be.0,
        }
    }
}

/// Runs the agent until it is told to stop, or asks one that runs.
pub async fn run(mut args: Args, globals: &Globals) -> anyhow::Result<ExitCode> {
    match args.ask.take() {
        Some(Ask::Ps(args)) => return ps::run(args, globals).await,
        Some(Ask::Logs(args)) => return logs::run(args, globals).await,
        Some(Ask::Describe(args)) => return describe::run(args, globals).await,
        Some(Ask::Events(args)) => return events::run(args, globals).await,
        Some(Ask::Restart(args)) => return restart::run(args, globals).await,
        None => {}
    }
    // Whoever starts it may keep his own files closed; what is in volumes is for the users of containers.
    rustix::process::umask(UMASK);
    let mut options = options(args, globals)?;
    // Half of what the service manager allows.
    options.watchdog = sd_notify::watchdog_enabled().map(|limit| limit / 2).filter(|every| !every.is_zero());
    protect(options.oom_score_adj);
    allow_descriptors();
    // Components that start with half of a renewal's files would not come up.
    match renewal::recover(&mut HostTree::new(globals.paths(), NoRecord)) {
        Ok(true) => info!("put the files of a renewal of certificates in place that was cut off"),
        Ok(false) => {}
        Err(error) => warn!(error = %error, "cannot finish a renewal of certificates that was cut off"),
    }
    let endpoint = endpoint(&options, globals)?;
    let runtime = endpoint.connect().context(Hint::new(
        "--docker-host and DOCKER_HOST take addresses such as unix:///var/run/docker.sock and tcp://127.0.0.1:2375",
    ))?;
    let shutdown = CancellationToken::new();
    let signals = stop_on_signals(shutdown.clone())?;
    let notifier = tokio::spawn(shutdown.clone().run_until_cancelled_owned(notify(options.control_socket.clone())));
    let ended = agent::run(options, runtime, shutdown.clone()).await;
    shutdown.cancel();
    // Both have ended with the token; a panic in one of them has been printed.
    let _ = (signals.await, notifier.await);
    ended?;
    Ok(ExitCode::SUCCESS)
}

/// The runtime that was named, else the machine's.
fn endpoint(options: &AgentOptions, globals: &Globals) -> anyhow::Result<Endpoint> {
    let by_environment = std::env::var_os("DOCKER_HOST").is_some_and(|host| !host.is_empty());
    match &options.runtime {
        Some(named) if !(options.runtime_from_file && by_environment) => Ok(named.clone()),
        _ => Endpoint::detect(&globals.paths()).context(Hint::new("or with --container-runtime-endpoint")),
    }
}

/// Flags and file, resolved; what they say that is not followed is logged.
fn options(mut args: Args, globals: &Globals) -> anyhow::Result<AgentOptions> {
    if !globals.paths().is_live() {
        bail!("an agent runs the pods of this machine: --rootfs cannot be used with it");
    }
    let paths = [
        &mut args.config,
        &mut args.config_dir,
        &mut args.pod_manifest_path,
        &mut args.root_dir,
        &mut args.control_socket,
        &mut args.node.kubeconfig,
        &mut args.node.bootstrap_kubeconfig,
        &mut args.node.cert_dir,
        &mut args.server.tls_cert_file,
        &mut args.server.tls_private_key_file,
        &mut args.server.client_ca_file,
    ];
    for path in paths {
        if let Some(relative) = path.take_if(|path| !path.as_os_str().is_empty()) {
            *path = Some(std::path::absolute(&relative).with_context(|| format!("cannot resolve {relative:?}"))?);
        }
    }
    let mut files = Vec::new();
    if let Some(file) = args.config.take().filter(|path| !path.as_os_str().is_empty()) {
        let text = read(&file)?;
        files.push((file, text));
    }
    if let Some(dir) = args.config_dir.take().filter(|path| !path.as_os_str().is_empty()) {
        let found = options::drop_ins(&dir);
        files.extend(
            found.map_err(|(path, e)| anyhow::Error::new(e).context(format!("cannot read {}", path.display())))?,
        );
    }
    let hostname = rustix::system::uname();
    let resolved = options::resolve(&args.into(), &files, &hostname.nodename().to_string_lossy())?;
    resolved.notes.iter().for_each(|note| debug!("{note}"));
    resolved.warnings.iter().for_each(|warning| warn!("{warning}"));
    Ok(resolved.options)
}

fn read(file: &Path) -> anyhow::Result<String> {
    fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display())).context(Hint::new(
        "`kubeboot init` writes this file; without a cluster pass --pod-manifest-path DIR instead of --config",
    ))
}

/// Asks the kernel to kill anything before the agent. Only root may.
fn protect(score: i32) {
    // procfs takes the value in one write and knows no rename.
    let written = fs::OpenOptions::new()
        .write(true)
        .open("/proc/self/oom_score_adj")
        .and_then(|mut file| std::io::Write::write_all(&mut file, score.to_string().as_bytes()));
    if let Err(error) = written {
        debug!(score, %error, "cannot set the agent's own OOM score");
    }
}

/// Takes as many descriptors as there may be, as any Go program does: every stream that is looked at has several.
fn allow_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        debug!(%error, "cannot raise the limit of open files");
    }
}

/// Cancels at SIGTERM and SIGINT. The task ends when the agent does.
fn stop_on_signals(shutdown: CancellationToken) -> anyhow::Result<tokio::task::JoinHandle<()>> {
    let install = |kind| signal(kind).context("cannot catch signals");
    let (mut terminate, mut interrupt) = (install(SignalKind::terminate())?, install(SignalKind::interrupt())?);
    Ok(tokio::spawn(async move {
        let name = tokio::select! {
            () = shutdown.cancelled() => return,
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        info!(signal = name, "stopping");
        shutdown.cancel();
        tell(|| sd_notify::notify(&[NotifyState::Stopping])).await;
    }))
}

/// Tells the service manager, if there is one, that the agent is ready (its control socket answers and every source has
/// been read once), and what it does. That it is alive is the agent's own matter ([`AgentOptions::watchdog`]).
async fn notify(socket: PathBuf) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    let mut reports = loop {
        match control::watch(&socket).await {
            Ok(reports) => break reports,
            Err(_) => tokio::time::sleep(LISTEN_CHECK).await,
        }
    };
    let (mut ready, mut told) = (false, String::new());
    loop {
        let Some(Ok(report)) = reports.next().await else { return };
        let healthy = report.pods.iter().filter(|pod| pod.healthy).count();
        let status = format!("{healthy} of {} pods healthy", report.pods.len());
        let now_ready = report.agent.synced && !ready;
        if now_ready || status != told {
            told = status.clone();
            ready |= now_ready;
            tell(move || match now_ready {
                true => sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(&status)]),
                false => sd_notify::notify(&[NotifyState::Status(&status)]),
            })
            .await;
        }
    }
}

/// Tells the service manager something, off the runtime's threads: it may not take it at once.
async fn tell(say: impl FnOnce() -> std::io::Result<()> + Send + 'static) {
    if let Ok(Err(error)) = tokio::task::spawn_blocking(say).await {
        debug!(%error, "cannot talk to the service manager");
    }
}

#[cfg(test)]
mod tests;
