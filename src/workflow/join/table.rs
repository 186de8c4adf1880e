//! The phases of `join` for a worker, in kubeadm's order and by kubeadm's names. A new phase is one more row.

use std::sync::LazyLock;

use futures::future::LocalBoxFuture;

use super::files;
use super::live;
use super::{Join, StepError};
use crate::config::spec::JoinSpec;
use crate::host::tree::Tree;
use crate::workflow::phase::{Phase, Phases};

/// What a phase does on the running machine. Returns whether it changed anything.
pub type Act = for<'a> fn(&'a mut Join<'_>) -> LocalBoxFuture<'a, Result<bool, StepError>>;

/// What a phase does to files: into a tree, whichever that is.
pub type WriteFiles = fn(&files::Input<'_>, &mut dyn Tree) -> Result<files::Files, StepError>;

/// What a phase of `join` does.
#[derive(Clone, Copy)]
pub struct Work {
    /// What it does.
    pub act: Act,
    /// The files it writes, which a dry run shows.
    pub files: Option<WriteFiles>,
    /// What a dry run says instead of acting.
    pub would: fn(&JoinSpec) -> Vec<String>,
}

/// The phases of `join`.
pub static PHASES: LazyLock<Phases<Work>> = LazyLock::new(|| Phases { list: rows(), not_built: CONTROL_PLANE });

/// kubeadm's phases of a joining control-plane node: a worker has nothing to do in them, so they may be skipped.
const CONTROL_PLANE: &[&str] = &[
    "control-plane-prepare",
    "control-plane-prepare/download-certs",
    "control-plane-prepare/certs",
    "control-plane-prepare/kubeconfig",
    "control-plane-prepare/control-plane",
    "check-etcd",
    "etcd-join",
    "control-plane-join",
    "control-plane-join/mark-control-plane",
    "wait-control-plane",
];

fn rows() -> Vec<Phase<Work>> {
    let row = |name, title, work| Phase { name, aliases: &[], title, children: vec![], work };
    vec![
        row(
            "preflight",
            "check the machine and find the cluster",
            Work { act: live::preflight, files: None, would: |_| vec!["Would check the machine".into()] },
        ),
        row(
            "kubelet-start",
            "write the kubelet's settings and start it",
            Work {
                act: live::kubelet_start,
                files: Some(files::kubelet),
                would: |_| vec!["Would enable and start the service kubelet".into()],
            },
        ),
        row(
            "kubelet-wait-bootstrap",
            "wait until the kubelet has its own certificate",
            Work { act: live::wait_bootstrap, files: None, would: live::would_wait },
        ),
    ]
}
