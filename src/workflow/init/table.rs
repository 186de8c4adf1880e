//! The phases of `init`, in kubeadm's order and by kubeadm's names. A new phase is one more row.

use std::sync::LazyLock;

use futures::future::LocalBoxFuture;

use super::files::{self, Files};
use super::live;
use super::{Init, StepError};
use crate::config::ClusterSpec;
use crate::host::tree::Tree;
use crate::pki::{CERTIFICATES, KUBECONFIGS};
use crate::workflow::phase::{Child, Phase, Phases};

/// What a phase does to files: into a tree, whichever that is.
pub type WriteFiles = fn(&files::Input<'_>, &[&'static str], &mut dyn Tree) -> Result<Files, StepError>;

/// What a phase does besides writing files, on the running machine alone. `changed` says whether its files were new.
/// Returns whether it did anything.
pub type Act = for<'a> fn(&'a mut Init<'_>, changed: bool) -> LocalBoxFuture<'a, Result<bool, StepError>>;

/// What a phase of `init` does.
#[derive(Clone, Copy, Default)]
pub struct Work {
    /// Files, if it writes any. Also done by dry runs, in memory.
    pub files: Option<WriteFiles>,
    /// What is done once its files are in place.
    pub act: Option<Act>,
    /// Whether it acts below another root too.
    pub anywhere: bool,
    /// What a dry run says instead of acting.
    pub would: Option<fn(&ClusterSpec) -> Vec<String>>,
}

/// The phases of `init`.
pub static PHASES: LazyLock<Phases<Work>> = LazyLock::new(|| Phases { list: rows(), not_built: NOT_BUILT });

/// kubeadm's phases that are to come, with their children and aliases: they may be skipped already.
const NOT_BUILT: &[&str] = &[
    "upload-config",
    "uploadconfig",
    "upload-config/kubeadm",
    "upload-config/kubelet",
    "upload-certs",
    "mark-control-plane",
    "bootstrap-token",
    "bootstraptoken",
    "kubelet-finalize",
    "kubelet-finalize/enable-client-cert-rotation",
    "addon",
    "addon/coredns",
    "addon/kube-proxy",
    "show-join-command",
];

fn rows() -> Vec<Phase<Work>> {
    let row = |name, title, children, work| Phase { name, aliases: &[], title, children, work };
    let child = |name, title| Child { name, title };
    let files = |files: WriteFiles| Work { files: Some(files), ..Work::default() };
    vec![
        row(
            "preflight",
            "check the machine and fetch the images",
            vec![],
            Work { act: Some(live::preflight), anywhere: true, would: Some(live::would_preflight), ..Work::default() },
        ),
        row(
            "certs",
            "make the certificates",
            CERTIFICATES.iter().map(|row| child(row.phase, row.title)).collect(),
            files(files::certificates),
        ),
        row(
            "kubeconfig",
            "make the kubeconfig files of the control plane and the admin",
            KUBECONFIGS.iter().map(|row| child(row.phase, row.title)).collect(),
            files(files::kubeconfigs),
        ),
        row(
            "etcd",
            "write the static pod manifest of a local etcd",
            vec![child("local", "the manifest of a local, single-node etcd")],
            files(files::etcd),
        ),
        row(
            "control-plane",
            "write the static pod manifests of the control plane",
            vec![
                child("apiserver", "the manifest of kube-apiserver"),
                child("controller-manager", "the manifest of kube-controller-manager"),
                child("scheduler", "the manifest of kube-scheduler"),
            ],
            files(files::control_plane),
        ),
        row(
            "kubelet-start",
            "write the kubelet's settings and unit, and start the node agent",
            vec![],
            Work {
                files: Some(files::kubelet),
                act: Some(live::start_agent),
                anywhere: false,
                would: Some(|_| vec!["Would enable and start the service kubelet, which runs the node agent".into()]),
            },
        ),
        row(
            "wait-control-plane",
            "wait until the control plane is healthy",
            vec![],
            Work { act: Some(live::wait), would: Some(live::would_wait), ..Work::default() },
        ),
    ]
}
