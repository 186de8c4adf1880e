//! The static-pod agent: what a kubelet does with pod manifests in a directory or from a URL, without a kubelet.
//!
//! A source says which pods are wanted, the link what the runtime has; the supervisor keeps one worker a pod, and each
//! worker compares and takes one step after the other. What they know ends on the board, where the health report
//! ([`report`]) is read. Everything that must outlive the agent is in the runtime's labels and in the manifests, so
//! that a restarted agent finds its pods again and touches none of them.

// What a manifest asks for must not end the agent: no arithmetic that can overflow, none on moments that panic.
#![deny(clippy::disallowed_types)]
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod watchdog;
pub mod server;
mod worker;
mod context;
mod cluster;
mod disk;
mod pull;
mod messages;
mod hooks;
pub mod probe;
mod container;
pub mod logs;
mod devices;
pub(crate) mod rpc;
mod cleanup;
mod volumes;
mod wording;
pub mod objects;
mod cgroups;
mod apiserver;
mod counters;
mod startups;
mod operations;
mod runs;
mod board;
pub mod status;
mod admission;
pub mod source;
mod lock;
pub mod crash;
pub mod backoff;
pub mod control;
mod attempts;
mod histogram;
pub mod events;
pub mod options;
pub mod pod;
#[cfg(any(test, feature = "testing"))]
pub mod trial;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use lock::running;
pub use options::AgentOptions;

use crate::error::chain;
use crate::host::fs::FsError;
use crate::host::socket;
use crate::runtime::{CgroupDriver, ContainerRuntime};
use apiserver::certificates;
use context::Context;
use worker::runtime_watch;
use worker::supervisor::Supervisor;

/// Why an agent cannot start. Once it runs, nothing makes it end but its shutdown and [`AgentError::Crashed`].
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The root directory is not free.
    #[error(transparent)]
    Lock(#[from] lock::LockError),
    /// The control socket could not be made.
    #[error("cannot serve the control socket")]
    Control {
        /// What failed.
        #[source]
        source: control::ControlError,
    },
    /// The socket of the pods API could not be made.
    #[error("cannot serve the pods API at {}", socket.display())]
    PodsApi {
        /// Where.
        socket: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// An address to serve is taken.
    #[error("cannot serve {what} on {address}: is another kubelet or agent running?")]
    Listen {
        /// `/healthz`, or what else is served there.
        what: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The agent's own API cannot be served by its settings.
    #[error("cannot serve the kubelet's API")]
    Tls {
        /// What does not fit.
        #[from]
        source: server::TlsError,
    },
    /// A part of the agent that it cannot do without has panicked. Containers go on; another agent adopts them.
    #[error("{what} crashed")]
    Crashed {
        /// Which part.
        what: &'static str,
        /// The words of the panic.
        #[source]
        source: crash::Crash,
    },
    /// No manifests to run.
    #[error(
        "no manifests: set staticPodPath or staticPodURL in the configuration file, or --pod-manifest-path or \
         --manifest-url"
    )]
    NoSource,
}

/// How long an agent that ends waits for what the runtime is in the middle of.
const FINISH: Duration = Duration::from_secs(10);

/// Runs the agent until `shutdown`, and leaves its containers running then.
///
/// # Errors
/// Only before it has begun: see [`AgentError`]. That the runtime or the manifest directory is missing is no error;
/// both are reported and waited for.
pub async fn run(
    options: AgentOptions,
    runtime: Arc<dyn ContainerRuntime>,
    shutdown: CancellationToken,
) -> Result<(), AgentError> {
    let checker = Arc::new(probe::Prober::new(Arc::clone(&runtime)));
    run_with(options, runtime, checker, shutdown).await
}

/// UIDs of the pods that agents with this root directory have made and not cleared away, for who takes an agent away.
pub fn claimed_pods(root_dir: &Path) -> BTreeSet<String> {
    volumes::claimed(root_dir)
}

/// Removes the directory of a pod that is gone for good and what is mounted below it, for who takes an agent away.
///
/// # Errors
/// What cannot be unmounted or removed.
pub fn remove_pod_dir(root_dir: &Path, uid: &str) -> Result<(), FsError> {
    volumes::remove_pod_dir(root_dir, uid)
}

/// Removes the cgroups of pods that are gone for good, for who takes an agent away. `driver` is the runtime's.
pub fn remove_cgroups(driver: Option<CgroupDriver>, uids: &BTreeSet<String>) {
    let cgroups = cgroups::Cgroups::new(&AgentOptions::new(""));
    cgroups.set_driver(driver);
    for uid in uids {
        if let Err(error) = cgroups.remove(uid) {
            warn!(uid, error = chain(&error), "a cgroup is left");
        }
    }
}

/// [`run`] with another prober.
async fn run_with(
    options: AgentOptions,
    runtime: Arc<dyn ContainerRuntime>,
    checker: Arc<dyn probe::Checker>,
    shutdown: CancellationToken,
) -> Result<(), AgentError> {
    if options.static_pod_path.is_none() && options.static_pod_url.is_none() {
        return Err(AgentError::NoSource);
    }
    let _lock = lock::acquire(&options.root_dir)?;
    let control = control::bind(&options.control_socket).await.map_err(|source| AgentError::Control { source })?;
    let healthz = listen("/healthz", options.healthz).await?;
    let read_only = listen("the read-only paths", options.read_only).await?;
    let secure = listen("the kubelet's API", options.server.listen).await?;
    let pods = listen_for_pods(&options).await?;
    announce(&options);
    // A token of its own, so that what it has begun ends with it whatever becomes of the caller's.
    let end = shutdown.child_token();
    let _guard = end.clone().drop_guard();
    let context = Context::new(options, runtime, checker, end.clone());
    context.devices.restore();
    context.vital("the control socket", control::serve(control, context.board.reports(), context.clone(), end.clone()));
    if let Some(listener) = healthz {
        context.vital("/healthz", server::serve_healthz(listener, end.clone()));
    }
    if let Some(listener) = read_only {
        context.vital("the read-only paths", server::serve(listener, Arc::clone(&context), end.clone()));
    }
    if let Some(listener) = secure {
        context.vital("the kubelet's API", server::serve_secure(listener, Arc::clone(&context), end.clone())?);
    }
    if let Some(listener) = pods {
        context.vital("the pods API", server::pods_api::serve(listener, Arc::clone(&context), end.clone()));
    }
    listen_for_plugins(&context).await;
    look_after(&context);
    let bound = context.for_cluster().map(|parts| join_cluster(&context, parts));
    let (update_sender, updates) = mpsc::channel(1);
    let options = AgentOptions::clone(&context.options);
    context.vital("sources", source::watch(options, bound, update_sender, end.clone()));
    let (news_sender, news) = mpsc::channel(64);
    context.kept("container runtime", move |context| runtime_watch::run(context, news_sender.clone()));
    let supervisor = Supervisor::new(Arc::clone(&context)).run(updates, news);
    if let Err(crash) = crash::caught(supervisor).await {
        context.end_for("the supervisor of the pods", crash);
    }
    finish(&context).await
}

/// What is looked after beside the pods.
fn look_after(context: &Arc<Context>) {
    context.kept("watchdog", |context| watchdog::keep(context.options.clone(), context.metrics.clone()));
    context.kept("disk usage", |context| disk::watch(context.options.clone(), context.board.clone()));
    context.kept("log rotation", |context| logs::rotate::watch(context.runtime.clone(), context.options.clone()));
    context.kept("leader leases", |context| cluster::leader_lease::run(context.for_leases()));
    context.kept("volume usage", |context| {
        volumes::usage::watch(context.options.root_dir.clone(), context.board.clone(), context.events.clone())
    });
}

/// Has the agent be a node of the cluster; returns the pods that are bound to it, as they come.
fn join_cluster(context: &Arc<Context>, parts: cluster::Parts) -> mpsc::Receiver<source::Update> {
    context.kept("API server", |context| apiserver::keep(context.for_client()));
    context.kept("client certificate", |context| certificates::client::keep(context.for_client()));
    context.kept("serving certificate", |context| certificates::server::keep(context.for_serving()));
    context.kept("files of volumes", |context| volumes::refresh::run(context.for_files()));
    let (node, mirror) = (parts.clone(), parts.clone());
    context.kept("node", move |_| cluster::node::run(node.clone()));
    context.kept("mirror pods", move |_| cluster::mirror::run(mirror.clone()));
    let (sender, bound) = mpsc::channel(1);
    context.kept("bound pods", move |_| cluster::bound::run(parts.clone(), sender.clone()));
    bound
}

/// Waits for all that was begun.
async fn finish(context: &Context) -> Result<(), AgentError> {
    context.tasks.close();
    context.tasks.wait().await;
    if tokio::time::timeout(FINISH, context.runtime.finish()).await.is_err() {
        warn!("the container runtime does not answer; what it was asked last is left half done");
    }
    if let Some((what, source)) = context.crash.get().cloned() {
        return Err(AgentError::Crashed { what, source });
    }
    info!("agent ended; its containers go on");
    Ok(())
}

async fn listen(what: &'static str, address: Option<SocketAddr>) -> Result<Option<TcpListener>, AgentError> {
    let Some(address) = address else { return Ok(None) };
    let listener = server::http::bind(address).await;
    listener.map(Some).map_err(|source| AgentError::Listen { what, address, source })
}

fn announce(options: &AgentOptions) {
    let path = options.static_pod_path.as_ref().map(|path| path.display().to_string());
    let url = options.static_pod_url.as_deref().map(source::shown);
    info!(path, url, node = options.node_name, root = %options.root_dir.display(), "agent started");
}

/// The socket of the pods API, where its gate is open. Without it there is nothing there.
async fn listen_for_pods(options: &AgentOptions) -> Result<Option<socket::Listener>, AgentError> {
    if !options.gates.pods_api {
        return Ok(None);
    }
    let path = server::pods_api::socket(&options.root_dir);
    let listener = socket::bind(&path, rpc::DIRECTORY_MODE).await;
    listener.map(Some).map_err(|source| AgentError::PodsApi { socket: path, source })
}

/// The socket at which device plugins register. Without it there are no devices, and everything else goes on.
async fn listen_for_plugins(context: &Arc<Context>) {
    match devices::listen(&context.devices).await {
        Ok(listener) => {
            let (devices, end) = (Arc::clone(&context.devices), context.shutdown.clone());
            context.vital("the registration of device plugins", devices::serve(listener, devices, end));
        }
        Err(error) => {
            let root = context.options.root_dir.display();
            warn!(%root, error = chain(&error), "no device plugin can register below the root directory");
        }
    }
}

#[cfg(test)]
mod tests;
