//! The files of a worker, into whichever tree: the machine's or a dry run's.

use std::path::{Path, PathBuf};

use super::StepError;
use crate::config::spec::{JoinSpec, NodeAgent};
use crate::host::paths::{
    CONTAINER_LOGS_DIR, KUBELET_DIR, KUBELET_DROP_IN, KUBELET_UNIT, KUBERNETES_DIR, MANIFESTS_DIR, POD_LOGS_DIR,
};
use crate::host::tree::Tree;
use crate::kubelet::files::{DEFAULT_CRI_SOCKET, Joining, render_joining, write_files};
use crate::kubelet::service::Program;
use crate::kubelet::unit;
use crate::release::KubeletRow;
use crate::workflow::machine::joining::Found;
use crate::workflow::node_files::RESOLVED;
use crate::workflow::session::made_below;
use crate::workflow::state::inventory::{Entry, Item};

/// The kubeconfig with which the kubelet asks for its first certificate.
pub const BOOTSTRAP_CONF: &str = "/etc/kubernetes/bootstrap-kubelet.conf";
/// The kubeconfig that the kubelet writes once it has that certificate.
pub const KUBELET_CONF: &str = "/etc/kubernetes/kubelet.conf";

/// What the files are made from.
pub struct Input<'a> {
    /// The configuration.
    pub spec: &'a JoinSpec,
    /// The cluster.
    pub found: &'a Found,
    /// The kubelet's program.
    pub program: &'a Path,
    /// What that kubelet takes.
    pub row: &'static KubeletRow,
    /// Whether a path is an earlier run's.
    pub owns: &'a dyn Fn(&Path) -> bool,
}

/// What there is to say besides the files.
#[derive(Debug, Default)]
pub struct Files {
    /// Lines for the user.
    pub notes: Vec<String>,
    /// Paths that the kubelet will make where they are missing.
    pub will_be_made: Vec<Item>,
    /// What else the inventory has to know.
    pub entries: Vec<Entry>,
}

/// Units and drop-ins that packages bring.
const VENDOR_UNITS: [(&str, [&str; 2]); 2] = [
    (KUBELET_UNIT, ["/usr/lib/systemd/system/kubelet.service", "/lib/systemd/system/kubelet.service"]),
    (
        KUBELET_DROP_IN,
        [
            "/usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf",
            "/lib/systemd/system/kubelet.service.d/10-kubeadm.conf",
        ],
    ),
];

/// What a kubelet makes below its directory, where that was there before.
const KUBELET_SUBDIRS: &[&str] = &[
    "pods",
    "pki",
    "plugins",
    "plugins_registry",
    "pod-resources",
    "device-plugins",
    "checkpoints",
    "seccomp",
    "cpu_manager_state",
    "memory_manager_state",
    "dra_manager_state",
    "actuated_pods_state",
    "allocated_pods_state",
    "kubelet.sock",
    "dynamic-config",
    "node-info",
    "usernsd",
];

/// Where kubelets before 1.36 look for volume drivers of their own, which they make.
const VOLUME_PLUGINS: &str = "/usr/libexec/kubernetes/kubelet-plugins/volume/exec";

/// `kubelet-start`: the bootstrap kubeconfig, the CA, the kubelet's settings, and a unit where the machine has none.
pub fn kubelet(input: &Input<'_>, tree: &mut dyn Tree) -> Result<Files, StepError> {
    let Input { spec, found, .. } = input;
    let mut files = Files { will_be_made: made_by_kubelet(tree), ..Files::default() };
    tree.make_dir(Path::new(MANIFESTS_DIR), 0o755)?;
    if let Some(bootstrap) = &found.bootstrap {
        tree.write(Path::new(BOOTSTRAP_CONF), bootstrap.expose().as_bytes(), 0o600)?;
        files.notes.push(format!("wrote {BOOTSTRAP_CONF}"));
    }
    if !tree.exists(&spec.ca_cert_path) || (input.owns)(&spec.ca_cert_path) {
        if let Some(dir) = spec.ca_cert_path.parent() {
            tree.make_dir(dir, 0o755)?;
        }
        tree.write(&spec.ca_cert_path, &found.ca, 0o644)?;
    }
    let joining = Joining {
        node: &spec.node,
        patches_dir: spec.patches_dir.as_deref(),
        cluster: &found.kubelet_config,
        kubelet: input.row,
        systemd_resolved: tree.exists(Path::new(RESOLVED)),
    };
    for (path, _) in write_files(render_joining(&joining)?, tree)?.files {
        files.notes.push(format!("wrote {path}"));
    }
    let program = Program { path: input.program.to_owned(), agent: NodeAgent::Kubelet, docker_host: None };
    let made = unit::render_for(&program)?;
    for ((path, vendors), content) in VENDOR_UNITS.iter().zip([made.unit, made.drop_in]) {
        if let Some(there) = theirs(path, vendors, tree, input.owns) {
            files.notes.push(format!("kept {}", there.display()));
        } else {
            tree.write(Path::new(path), content.as_bytes(), 0o644)?;
            files.notes.push(format!("wrote {path}"));
        }
    }
    Ok(files)
}

/// The file that somebody else has put in the place of one of ours.
fn theirs(path: &str, vendors: &[&str], tree: &dyn Tree, owns: &dyn Fn(&Path) -> bool) -> Option<PathBuf> {
    let own = Some(path).filter(|path| !owns(Path::new(path)));
    own.into_iter().chain(vendors.iter().copied()).map(PathBuf::from).find(|path| tree.exists(path))
}

fn made_by_kubelet(tree: &dyn Tree) -> Vec<Item> {
    let mut items = made_below(Path::new(KUBELET_DIR), KUBELET_SUBDIRS, tree);
    items.push(Item::file(KUBELET_CONF));
    items.extend([POD_LOGS_DIR, CONTAINER_LOGS_DIR].map(Item::tree));
    items.push(Item::dir(VOLUME_PLUGINS));
    items.extend(
        [crate::host::paths::RUN_DIR, crate::host::paths::TMP_DIR].map(Item::tree).into_iter().chain(log_dir()),
    );
    items.push(Item::dir("/etc/systemd/system/multi-user.target.wants"));
    items
}

/// Where the log of a kubelet goes that no service manager starts.
fn log_dir() -> Option<Item> {
    Path::new(crate::host::paths::AGENT_LOG).parent().map(Item::tree)
}

/// The socket of the node's runtime.
pub fn socket(spec: &JoinSpec) -> &str {
    spec.node.cri_socket.as_deref().unwrap_or(DEFAULT_CRI_SOCKET)
}

/// kubeadm's directory, below which it all is.
pub fn kubernetes_dir() -> &'static Path {
    Path::new(KUBERNETES_DIR)
}
