//! Why a `join` did not end well.

use std::path::PathBuf;
use std::time::Duration;

use crate::host::fs::FsError;
use crate::kubelet::service::ServiceError;
use crate::workflow::machine::Cause;
use crate::workflow::phase::PhaseError;
use crate::workflow::stage::CommitError;
use crate::workflow::state::StateError;

/// Why a `join` did not end well.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// A phase's name is wrong.
    #[error(transparent)]
    Phase(#[from] PhaseError),
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
    /// kubeboot's own directory.
    #[error(transparent)]
    State(#[from] StateError),
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
}

/// Why a phase failed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The machine is not fit.
    #[error(transparent)]
    Preflight(#[from] crate::workflow::preflight::PreflightError),
    /// The cluster was not found, or is not to be trusted.
    #[error("cannot find the cluster")]
    Discovery(#[source] Cause),
    /// The cluster does not say what a node has to know.
    #[error("cannot read the cluster's settings")]
    Cluster(#[source] Cause),
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
    /// The kubelet's files.
    #[error(transparent)]
    Kubelet(#[from] crate::kubelet::files::KubeletFilesError),
    /// The kubelet's unit.
    #[error(transparent)]
    Unit(#[from] crate::kubelet::unit::UnitError),
    /// A file.
    #[error(transparent)]
    File(#[from] FsError),
    /// The files could not be written.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The kubelet's service.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// Stopped by a signal.
    #[error("interrupted")]
    Interrupted,
}

fn lines(log: &[String]) -> String {
    log.iter().map(|line| format!("\n    {line}")).collect()
}

pub(super) fn failure(phase: &'static str, source: StepError) -> JoinError {
    match source {
        StepError::Interrupted => JoinError::Interrupted { phase },
        source => JoinError::Failed { phase, source: Box::new(source) },
    }
}
