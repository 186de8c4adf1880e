//! What more than one command knows of a node's files: how a manifest is made on this machine, and what appears on it
//! once a node agent runs.

use std::path::{Path, PathBuf};

use super::state::inventory::Item;
use crate::config::ClusterSpec;
use crate::host::paths::{AGENT_LOG, CONTAINER_LOGS_DIR, KUBELET_DIR, POD_LOGS_DIR, RUN_DIR, TMP_DIR};
use crate::host::tree::Tree;
use crate::manifests::{self, Manifest, ManifestError};

/// One manifest as it would be written on a machine with this tree.
///
/// # Errors
/// Settings and patches that make no valid pod.
pub fn render(
    spec: &ClusterSpec,
    component: &str,
    proxy_env: &[(String, String)],
    tree: &dyn Tree,
) -> Result<Manifest, ManifestError> {
    let exists = |path: &Path| tree.exists(path);
    let host = manifests::Host { exists: &exists, proxy_env: proxy_env.to_vec() };
    manifests::render(spec, component, &host)
}

/// What systemd-resolved makes while it runs.
pub const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";

/// What a kubelet and the agent make below the kubelet's directory, where that was there before.
const KUBELET_SUBDIRS: &[&str] = &[
    "pods",
    "pki",
    "plugins",
    "plugins_registry",
    "device-plugins",
    "checkpoints",
    "kubeboot-manifests",
    "kubeboot-agent.lock",
];

/// What the agent, and the service manager for it, will make where it is missing.
pub(super) fn made_by_agent(had_kubelet_dir: bool) -> Vec<Item> {
    let kubelet = Path::new(KUBELET_DIR);
    let log_dir = Path::new(AGENT_LOG).parent().map(PathBuf::from);
    let mut items = match had_kubelet_dir {
        true => KUBELET_SUBDIRS.iter().map(|name| Item::tree(kubelet.join(name))).collect(),
        false => vec![Item::tree(kubelet)],
    };
    items.extend([POD_LOGS_DIR, CONTAINER_LOGS_DIR, RUN_DIR, TMP_DIR].map(Item::tree));
    items.extend(log_dir.map(Item::tree));
    items.push(Item::dir("/etc/systemd/system/multi-user.target.wants"));
    items
}
