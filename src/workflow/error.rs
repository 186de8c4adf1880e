//! Why a workflow that makes a node does not end well: `init` and `join` fail in the same ways, and in some of their own.

use std::path::PathBuf;
use std::time::Duration;

use super::machine::Cause;
use super::phase::PhaseError;
use super::stage::CommitError;
use super::state::StateError;
use super::state::saved::SavedError;
use crate::agent::control::expect::WaitError;
use crate::host::fs::FsError;
use crate::kubelet::service::ServiceError;
use crate::pki::PkiError;

/// Why an `init` or a `join` did not end well.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A phase's name is wrong.
    #[error(transparent)]
    Phase(#[from] PhaseError),
    /// Phases that cannot do without others.
    #[error("unresolved dependencies:{}", missing.iter().map(|(needed, by)|
        format!("\n\tmissing {needed:?} phase needed by {by:?} phase")).collect::<String>())]
    Unresolved {
        /// What is missing, and for whom.
        missing: Vec<(&'static str, &'static str)>,
    },
    /// kubeboot's own directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// An upgrade was cut off, or its journal cannot be read.
    #[error(transparent)]
    Upgrade(#[from] crate::workflow::upgrade::UpgradeError),
    /// What an earlier run left half made could not be taken back.
    #[error("cannot take back what an earlier run left half written")]
    Recover(#[source] CommitError),
    /// A phase failed.
    #[error("phase {phase} failed")]
    Failed {
        /// Which one.
        phase: &'static str,
        /// Why.
        #[source]
        source: Box<StepError>,
    },
    /// Stopped by a signal.
    #[error("interrupted in phase {phase}; what is done stays done")]
    Interrupted {
        /// The phase that was not finished.
        phase: &'static str,
    },
    /// A kubelet runs the pods, and no one here can ask it how they are.
    #[error(
        "nodeAgent kubelet: this version of kubeboot cannot see how a kubelet's pods are; pass \
         --skip-phases=wait-control-plane, or leave nodeAgent at embedded"
    )]
    Kubelet,
    /// Another configuration than the one the machine runs with, which does not even go with its files.
    #[error(
        "this machine was initialised with another configuration{}: phase {phase} cannot go on from what is there",
        said(settings)
    )]
    Unlike {
        /// The phase.
        phase: &'static str,
        /// What the configurations say differently, as far as that is known.
        settings: Vec<String>,
        /// Why not.
        #[source]
        source: Box<StepError>,
    },
    /// Another configuration than the one the machine runs with.
    #[error(
        "this machine was initialised with another configuration{}: it would change {}",
        said(settings),
        list(paths)
    )]
    Differs {
        /// What the configurations say differently, as far as that is known.
        settings: Vec<String>,
        /// The files that would change.
        paths: Vec<PathBuf>,
    },
    /// A control-plane node was asked for.
    #[error(
        "joining as a control-plane node comes with high availability, which this version of kubeboot does not have: \
         join the machine as a worker (without --control-plane), or run `kubeboot init` on it for a cluster of its own"
    )]
    ControlPlane,
    /// The machine is the control plane of a cluster.
    #[error("this machine is a control-plane node that `kubeboot init` has made: reset it first")]
    IsControlPlane,
    /// Only a running machine can join.
    #[error(
        "{} is not the running machine, and only that can join: run this there, or add --dry-run", root.display()
    )]
    NotLive {
        /// The root that was given.
        root: PathBuf,
    },
}

/// Why a phase failed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The machine is not fit.
    #[error(transparent)]
    Preflight(#[from] crate::workflow::preflight::PreflightError),
    /// Images cannot be had.
    #[error(transparent)]
    Images(#[from] crate::runtime::images::ImagesError),
    /// The container runtime.
    #[error("cannot look for images")]
    Runtime(#[from] crate::runtime::RuntimeError),
    /// Certificates or kubeconfigs.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// A manifest.
    #[error(transparent)]
    Manifest(#[from] crate::manifests::ManifestError),
    /// The kubelet's files.
    #[error(transparent)]
    Kubelet(#[from] crate::kubelet::files::KubeletFilesError),
    /// The kubelet's unit.
    #[error(transparent)]
    Unit(#[from] crate::kubelet::unit::UnitError),
    /// A file.
    #[error(transparent)]
    File(#[from] FsError),
    /// A phase's files could not be written.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// kubeboot's own directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// The agent's service.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// A component did not become healthy.
    #[error("the control plane did not become healthy")]
    Unhealthy(#[source] WaitError),
    /// The administrators' rights could not be granted.
    #[error("cannot grant the administrators of admin.conf their rights")]
    Admin(#[source] Cause),
    /// The agent ended.
    #[error("the node agent has ended; its last words:{}", lines(log))]
    AgentGone {
        /// The last lines of its log.
        log: Vec<String>,
    },
    /// The configuration could not be kept.
    #[error("cannot keep the configuration for upgrades")]
    Saved(#[from] SavedError),
    /// An object could not be made or written.
    #[error("cannot give the cluster what it needs")]
    Cluster(#[source] Cause),
    /// The certificate of the cluster's CA is missing.
    #[error("{} is not there; run `kubeboot init phase certs ca` first", path.display())]
    NoAuthority {
        /// Where it should be.
        path: PathBuf,
    },
    /// The cluster was not found, or is not to be trusted.
    #[error("cannot find the cluster")]
    Discovery(#[source] Cause),
    /// The cluster does not say what a node has to know.
    #[error("cannot read the cluster's settings")]
    Settings(#[source] Cause),
    /// There is no kubelet.
    #[error(
        "no kubelet on the PATH: a worker needs one, for kubeboot's own agent runs static pods alone; install the \
         kubelet of the cluster's version"
    )]
    NoKubelet,
    /// The name is taken.
    #[error(
        "a Node with name {name:?} and status \"Ready\" already exists in the cluster; delete it (kubectl delete node \
         {name}), or join under another name with --node-name"
    )]
    NameTaken {
        /// The node's name.
        name: String,
    },
    /// The kubelet is a member under another name.
    #[error("this machine has joined as {is:?} before, not as {wanted:?}: reset it first")]
    OtherName {
        /// The name in its certificate.
        is: String,
        /// The name that was asked for.
        wanted: String,
    },
    /// The kubelet did not become healthy.
    #[error("the kubelet did not become healthy at {url} within {} s; its last words:{}", limit.as_secs(), lines(log))]
    Sick {
        /// Where it should answer.
        url: String,
        /// How long it was given.
        limit: Duration,
        /// The last lines of its log.
        log: Vec<String>,
        /// How it answered last.
        #[source]
        last: Option<Cause>,
    },
    /// The kubelet did not get its certificate.
    #[error(
        "the kubelet got no certificate within {} s: its request may wait for somebody to approve it (kubectl get csr), \
         or its token may have expired; its last words:{}", limit.as_secs(), lines(log)
    )]
    NoCertificate {
        /// How long it was given.
        limit: Duration,
        /// The last lines of its log.
        log: Vec<String>,
    },
    /// The kubelet ended.
    #[error("the kubelet has ended; its last words:{}", lines(log))]
    Ended {
        /// The last lines of its log.
        log: Vec<String>,
    },
    /// Stopped by a signal.
    #[error("interrupted")]
    Interrupted,
}

/// What became of a phase that did not end well.
pub(super) fn failure(phase: &'static str, source: StepError) -> RunError {
    match source {
        StepError::Interrupted => RunError::Interrupted { phase },
        source => RunError::Failed { phase, source: Box::new(source) },
    }
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// What the configurations say differently, in brackets.
fn said(settings: &[String]) -> String {
    if settings.is_empty() { String::new() } else { format!(" ({})", settings.join("; ")) }
}

fn lines(log: &[String]) -> String {
    log.iter().map(|line| format!("\n    {line}")).collect()
}
