//! Every path the program uses, below one root.

use std::path::{Path, PathBuf};

/// Where things are, all below `root` (`--rootfs`, `/` as a rule).
///
/// Two kinds of paths exist. A path *on the host* is where this process opens a file: it is below the root. A path *as
/// the node sees it* is what is written into manifests, kubeconfigs and units: it has no root in front of it. Constants
/// here are of the second kind, methods of the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    root: PathBuf,
}

/// kubeadm's directory.
pub const KUBERNETES_DIR: &str = "/etc/kubernetes";
/// kubeadm's default `certificatesDir`.
pub const PKI_DIR: &str = "/etc/kubernetes/pki";
/// The static-pod directory (`staticPodPath`).
pub const MANIFESTS_DIR: &str = "/etc/kubernetes/manifests";
/// Upgrade backups and dry-run trees, as kubeadm keeps them.
pub const TMP_DIR: &str = "/etc/kubernetes/tmp";
/// The kubelet's root directory (`--root-dir`).
pub const KUBELET_DIR: &str = "/var/lib/kubelet";
/// `KubeletConfiguration` of the node.
pub const KUBELET_CONFIG: &str = "/var/lib/kubelet/config.yaml";
/// Node-only overrides that kubeadm keeps beside it.
pub const KUBELET_INSTANCE_CONFIG: &str = "/var/lib/kubelet/instance-config.yaml";
/// `KUBELET_KUBEADM_ARGS=...`.
pub const KUBELET_FLAGS_ENV: &str = "/var/lib/kubelet/kubeadm-flags.env";
/// The unit that runs the node agent, under the name every tool expects.
pub const KUBELET_UNIT: &str = "/etc/systemd/system/kubelet.service";
/// kubeadm's drop-in for it.
pub const KUBELET_DROP_IN: &str = "/etc/systemd/system/kubelet.service.d/10-kubeadm.conf";
/// Our drop-in on a node that was taken over.
pub const KUBELET_ADOPTED: &str = "/etc/systemd/system/kubelet.service.d/90-kubeboot.conf";
/// Where the manifests of such a node are while the kubelet stops their pods.
pub const ADOPTED_MANIFESTS: &str = "/var/lib/kubeboot/manifests";
/// Journal, inventory and lock of kubeboot itself.
pub const STATE_DIR: &str = "/var/lib/kubeboot";
/// Sockets and pid files of a running agent.
pub const RUN_DIR: &str = "/run/kubeboot";
/// The agent's control socket for the default root directory.
pub const CONTROL_SOCKET: &str = "/run/kubeboot/agent.sock";
/// Pid file of an agent that no service manager started.
pub const AGENT_PID: &str = "/run/kubeboot/agent.pid";
/// Log of an agent that no service manager started.
pub const AGENT_LOG: &str = "/var/log/kubeboot/agent.log";
/// Pod logs, one directory a pod.
pub const POD_LOGS_DIR: &str = "/var/log/pods";
/// Links to the pod logs, one a container.
pub const CONTAINER_LOGS_DIR: &str = "/var/log/containers";

impl Paths {
    /// Paths below `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The root itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether this is the running machine (`/`), where services, agents and runtimes may be touched.
    pub fn is_live(&self) -> bool {
        self.root == Path::new("/")
    }

    /// Where this process finds `path`, a path as the node sees it.
    pub fn on_host(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        match path.strip_prefix("/") {
            Ok(relative) if !self.is_live() => self.root.join(relative),
            _ => path.to_owned(),
        }
    }

    /// The manifest directory.
    pub fn manifests(&self) -> PathBuf {
        self.on_host(MANIFESTS_DIR)
    }

    /// The manifest of one component.
    pub fn manifest(&self, component: &str) -> PathBuf {
        self.manifests().join(format!("{component}.yaml"))
    }

    /// A kubeconfig by its file name (`admin.conf`).
    pub fn kubeconfig(&self, file: &str) -> PathBuf {
        self.on_host(KUBERNETES_DIR).join(file)
    }

    /// kubeboot's own state directory.
    pub fn state(&self) -> PathBuf {
        self.on_host(STATE_DIR)
    }
}

impl Default for Paths {
    fn default() -> Self {
        Self::new("/")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_live_root_changes_no_path_and_another_is_put_in_front() {
        assert_eq!(Paths::default().on_host("/etc/x"), Path::new("/etc/x"));
        assert_eq!(Paths::new("/tmp/r").on_host("/etc/x"), Path::new("/tmp/r/etc/x"));
        assert_eq!(Paths::new("/tmp/r").manifest("etcd"), Path::new("/tmp/r/etc/kubernetes/manifests/etcd.yaml"));
    }
}
