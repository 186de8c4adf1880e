//! The phases of `init`, in kubeadm's order and by kubeadm's names. A new phase is one more row.

use std::path::Path;
use std::sync::LazyLock;

use futures::future::LocalBoxFuture;

use super::files::{self, Files};
use super::live;
use super::objects::{self, Objects};
use super::{Init, StepError};
use crate::config::ClusterSpec;
use crate::host::paths::{KUBERNETES_DIR, PKI_DIR};
use crate::host::tree::Tree;
use crate::pki::{CERTIFICATES, KUBECONFIGS};
use crate::workflow::phase::{Child, Phase, Phases};

/// What a phase does to files: into a tree, whichever that is.
pub type WriteFiles = fn(&files::Input<'_>, &[&'static str], &mut dyn Tree) -> Result<Files, StepError>;

/// What a phase does besides writing files, on the running machine alone. `changed` says whether its files were new.
/// Returns whether it did anything.
pub type Act = for<'a> fn(&'a mut Init<'_>, changed: bool) -> LocalBoxFuture<'a, Result<bool, StepError>>;

/// What a phase writes to the API server.
pub type MakeObjects = fn(&objects::Input<'_>, &[&'static str]) -> Result<Objects, StepError>;

/// A directory of the configuration.
#[derive(Clone, Copy)]
pub struct Directory {
    /// Where it is.
    pub of: fn(&ClusterSpec) -> &Path,
    /// Where it is by default.
    pub usual: &'static str,
}

const CERTIFICATES_DIR: Directory = Directory { of: |spec| &spec.certificates_dir, usual: PKI_DIR };
const KUBECONFIG_DIR: Directory = Directory { of: |spec| &spec.kubeconfig_dir, usual: KUBERNETES_DIR };

/// What a phase of `init` does.
#[derive(Clone, Copy, Default)]
pub struct Work {
    /// Files, if it writes any. Also done by dry runs, in memory.
    pub files: Option<WriteFiles>,
    /// What it writes to the API server once its files are in place. Dry runs print it.
    pub objects: Option<MakeObjects>,
    /// What is done once its files and objects are in place.
    pub act: Option<Act>,
    /// Whether it acts below another root too.
    pub anywhere: bool,
    /// What a dry run says instead of acting.
    pub would: Option<fn(&ClusterSpec) -> Vec<String>>,
    /// The directory that all its files are in, where a flag may name one that is not this machine's.
    pub dir: Option<Directory>,
    /// Phases that it cannot do without.
    pub needs: &'static [&'static str],
}

/// The phases of `init`.
pub static PHASES: LazyLock<Phases<Work>> = LazyLock::new(|| Phases { list: rows(), not_built: &[] });

fn rows() -> Vec<Phase<Work>> {
    [node_rows(), cluster_rows()].into_iter().flatten().collect()
}

fn row(name: &'static str, title: &'static str, children: Vec<Child>, work: Work) -> Phase<Work> {
    Phase { name, aliases: &[], title, children, work }
}

fn child(name: &'static str, title: &'static str) -> Child {
    Child { name, title }
}

/// What makes this machine a node of a control plane.
fn node_rows() -> Vec<Phase<Work>> {
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
            Work { dir: Some(CERTIFICATES_DIR), ..files(files::certificates) },
        ),
        row(
            "kubeconfig",
            "make the kubeconfig files of the control plane and the admin",
            KUBECONFIGS.iter().map(|row| child(row.phase, row.title)).collect(),
            Work { dir: Some(KUBECONFIG_DIR), ..files(files::kubeconfigs) },
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
                ..Work::default()
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

/// What makes the control plane a cluster that other nodes join.
fn cluster_rows() -> Vec<Phase<Work>> {
    let objects = |objects: MakeObjects| Work { objects: Some(objects), ..Work::default() };
    vec![
        Phase {
            aliases: &["uploadconfig"],
            ..row(
                "upload-config",
                "store the configuration in the cluster",
                vec![
                    child("kubeadm", "the ClusterConfiguration, in the config map kubeadm-config"),
                    child("kubelet", "the KubeletConfiguration, in the config map kubelet-config"),
                ],
                objects(objects::upload_config),
            )
        },
        row(
            "upload-certs",
            "share the certificates with control-plane nodes to come",
            vec![],
            objects(objects::upload_certs),
        ),
        row(
            "mark-control-plane",
            "mark the node as one of the control plane's",
            vec![],
            objects(objects::mark_control_plane),
        ),
        Phase {
            aliases: &["bootstraptoken"],
            ..row("bootstrap-token", "let nodes join with a token", vec![], objects(objects::bootstrap_token))
        },
        row(
            "kubelet-finalize",
            "let a kubelet use the client certificate that it rotates",
            vec![child(
                "enable-client-cert-rotation",
                "point kubelet.conf at the certificate that the kubelet rotates",
            )],
            Work { act: Some(live::finalize_kubelet), would: Some(live::would_finalize_kubelet), ..Work::default() },
        ),
        row(
            "addon",
            "install the addons",
            vec![child("coredns", "CoreDNS, the DNS server"), child("kube-proxy", "kube-proxy, on every node")],
            objects(objects::addons),
        ),
        row(
            "show-join-command",
            "show how to use the cluster and how nodes join it",
            vec![],
            Work {
                act: Some(live::show_join_command),
                would: Some(|_| vec!["Would show the commands that join other nodes".into()]),
                needs: &["bootstrap-token", "upload-certs"],
                ..Work::default()
            },
        ),
    ]
}
