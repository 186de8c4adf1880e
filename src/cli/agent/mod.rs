//! `kubeboot agent`, and the commands below it that ask a running one.

mod ask;
mod describe;
mod described;
mod events;
mod flags;
mod logs;
mod ps;
mod restart;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use futures::StreamExt;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::Globals;
use super::failure::Hint;
use super::spec::program;
use super::version;
use crate::agent::options::{self, AgentOptions, ConfigFile, Flags, UpgradeSignal};
use crate::agent::{self, control};
use crate::host::environment;
use crate::host::tree::{HostTree, NoRecord};
use crate::runtime::endpoint::Endpoint;
use crate::workflow::renewal;
use crate::workflow::upgrade::order::owner;
use flags::FlagArgs;

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
    #[command(flatten)]
    flags: FlagArgs,
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

/// Runs the agent until it is told to stop, or asks one that runs.
pub async fn run(mut args: Args, globals: &Globals) -> anyhow::Result<ExitCode> {
    match args.ask.take() {
        Some(Ask::Ps(args)) => return ps::run(args, globals).await,
        Some(Ask::Logs(args)) => return logs::run(args, globals).await,
        Some(Ask::Describe(args)) => return describe::run(args, globals).await,
        Some(Ask::Events(args)) => return events::run(args, globals).await,
        Some(Ask::Restart(args)) => return restart::run(args, globals).await,
        None if args.flags.0.version => return version::run(version::Args::default(), globals),
        None => {}
    }
    // Whoever starts it may keep his own files closed; what is in volumes is for the users of containers.
    rustix::process::umask(UMASK);
    let mut options = options(args.flags.0, globals)?;
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
    let upgrades = UpgradeSignal::default();
    options.upgrades = Some(upgrades.clone());
    let owner = tokio::spawn(owner::own(globals.paths(), program()?, upgrades, shutdown.clone()));
    let notifier = tokio::spawn(shutdown.clone().run_until_cancelled_owned(notify(options.control_socket.clone())));
    let ended = agent::run(options, runtime, shutdown.clone()).await;
    shutdown.cancel();
    // All have ended with the token; a panic in one of them has been printed.
    let _ = (signals.await, notifier.await, owner.await);
    ended?;
    Ok(ExitCode::SUCCESS)
}

/// The runtime that was named, else the machine's.
fn endpoint(options: &AgentOptions, globals: &Globals) -> anyhow::Result<Endpoint> {
    let by_environment = environment::docker_host().is_some();
    match &options.runtime {
        Some(named) if !(options.runtime_from_file && by_environment) => Ok(named.clone()),
        _ => Endpoint::detect(&globals.paths()).context(Hint::new("or with --container-runtime-endpoint")),
    }
}

/// Flags and file, resolved; what they say that is not followed is logged.
fn options(mut flags: Flags, globals: &Globals) -> anyhow::Result<AgentOptions> {
    if !globals.paths().is_live() {
        bail!("an agent runs the pods of this machine: --rootfs cannot be used with it");
    }
    flags.map_paths(|relative| {
        std::path::absolute(&relative).with_context(|| format!("cannot resolve {}", relative.display()))
    })?;
    let mut files = Vec::new();
    if let Some(file) = &flags.config {
        files.push(ConfigFile::main(file.clone(), read(file)?));
    }
    if let Some(dir) = &flags.config_dir {
        let found = options::drop_ins(dir);
        files.extend(
            found.map_err(|(path, e)| anyhow::Error::new(e).context(format!("cannot read {}", path.display())))?,
        );
    }
    let hostname = rustix::system::uname();
    let resolved = options::resolve(&flags, &files, &hostname.nodename().to_string_lossy())?;
    resolved.notes.iter().for_each(|note| info!("{note}"));
    resolved.warnings.iter().for_each(|warning| warn!("{warning}"));
    let mut options = resolved.options;
    // Flags of every command, which a kubelet counts among its own.
    let globals = [("v", globals.verbosity.map(|level| level.to_string())), ("vmodule", globals.vmodule.clone())];
    options.given_flags.extend(globals.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    Ok(options)
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
    if !environment::has_notify_socket() {
        return;
    }
    let mut reports = loop {
        match control::watch(&socket).await {
            Ok(reports) => break reports,
            Err(_) => tokio::time::sleep(LISTEN_CHECK).await,
        }
    };
    let (mut ready, mut reported) = (false, String::new());
    loop {
        let Some(Ok(report)) = reports.next().await else { return };
        let healthy = report.pods.iter().filter(|pod| pod.healthy).count();
        let status = format!("{healthy} of {} pods healthy", report.pods.len());
        let now_ready = report.agent.synced && !ready;
        if now_ready || status != reported {
            reported = status.clone();
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
