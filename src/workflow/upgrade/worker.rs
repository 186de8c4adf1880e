//! `upgrade node` on a worker: the kubelet's settings, made from the cluster's.

use std::path::{Path, PathBuf};

use serde_json::Value;
use similar::TextDiff;

use super::run::stamp;
use super::settings::of_worker;
use crate::cluster::joining::ClusterFacts;
use crate::host::Paths;
use crate::host::fs::FsError;
use crate::host::paths::{KUBELET_CONFIG, TMP_DIR};
use crate::host::tree::{HostTree, NoRecord, Recorder, Tree};
use crate::kubelet::files::{KubeletFilesError, in_cluster};
use crate::kubelet::service::flags_on;
use crate::workflow::node_files::RESOLVED;
use crate::workflow::preflight::Finding;
use crate::workflow::session::Session;
use crate::workflow::state::StateError;
use crate::yaml;

/// What became of the settings.
#[derive(Debug, PartialEq, Eq)]
pub enum Settings {
    /// They are those of the cluster.
    Same,
    /// A dry run: how they would change, as a unified diff.
    WouldChange(String),
    /// They are new, and the old ones are in this directory.
    Written(PathBuf),
}

/// Why the settings could not be renewed.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The machine is no worker of a cluster.
    #[error("{KUBELET_CONFIG} is not there")]
    NotJoined,
    /// They cannot be read.
    #[error("{KUBELET_CONFIG} is no YAML")]
    Unreadable(#[source] yaml::YamlError),
    /// They cannot be made.
    #[error(transparent)]
    Kubelet(#[from] KubeletFilesError),
    /// kubeboot's own directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// A file.
    #[error(transparent)]
    File(#[from] FsError),
}

/// Whether this machine runs no control plane.
pub fn is_worker(paths: &Paths) -> bool {
    !HostTree::new(paths.clone(), NoRecord).exists(&super::target::file("kube-apiserver"))
}

/// What is wrong with the settings for the kubelet of the cluster's version, which does not start with all that the one before
/// has taken. Of a machine without settings nothing is known.
///
/// # Errors
/// Settings that cannot be made.
pub fn findings(paths: &Paths, facts: &ClusterFacts, patches: Option<&Path>) -> Result<Vec<Finding>, WorkerError> {
    let (_, new) = settings(&HostTree::new(paths.clone(), NoRecord), facts, patches)?;
    Ok(of_worker(new.as_bytes(), &flags_on(paths), facts.version.minor()))
}

/// The settings as they are, and as they will be.
fn settings(tree: &dyn Tree, facts: &ClusterFacts, patches: Option<&Path>) -> Result<(String, String), WorkerError> {
    let old = tree.read(Path::new(KUBELET_CONFIG))?.ok_or(WorkerError::NotJoined)?;
    let old = String::from_utf8_lossy(&old).into_owned();
    let before: Value = yaml::to_value(&old).map_err(WorkerError::Unreadable)?;
    let new = in_cluster(&facts.kubelet_config, &before, patches, tree.exists(Path::new(RESOLVED)))?;
    Ok((old, new))
}

/// Renews the kubelet's settings from the cluster's.
///
/// # Errors
/// See [`WorkerError`]; the old settings are in place then.
pub fn renew_settings(
    paths: &Paths,
    facts: &ClusterFacts,
    patches: Option<&Path>,
    dry_run: bool,
) -> Result<Settings, WorkerError> {
    let mut session = Session::attach(paths)?;
    let inventory = session.as_mut().and_then(Session::inventory_mut);
    renew(HostTree::new(paths.clone(), inventory), facts, patches, dry_run)
}

fn renew<R: Recorder>(
    mut tree: HostTree<R>,
    facts: &ClusterFacts,
    patches: Option<&Path>,
    dry_run: bool,
) -> Result<Settings, WorkerError> {
    let path = Path::new(KUBELET_CONFIG);
    let (old, new) = settings(&tree, facts, patches)?;
    if new == old {
        return Ok(Settings::Same);
    }
    if dry_run {
        let diff = TextDiff::from_lines(&old, &new);
        let text = diff.unified_diff().header(KUBELET_CONFIG, &format!("{KUBELET_CONFIG} (new)")).to_string();
        return Ok(Settings::WouldChange(text));
    }
    let backup = Path::new(TMP_DIR).join(format!("kubeadm-kubelet-config-{}", stamp()));
    tree.make_dir(&backup, 0o700)?;
    tree.write(&backup.join("config.yaml"), old.as_bytes(), 0o600)?;
    tree.write(path, new.as_bytes(), 0o644)?;
    Ok(Settings::Written(backup))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::host::fs::{make_dirs, write_file};

    fn facts(max_pods: u32) -> ClusterFacts {
        let kubelet_config =
            json!({"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration", "maxPods": max_pods});
        ClusterFacts { version: "v1.36.3".parse().unwrap(), kubelet_config }
    }

    #[test]
    fn settings_are_renewed_once_with_the_old_ones_kept() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        assert!(matches!(renew_settings(&paths, &facts(7), None, false), Err(WorkerError::NotJoined)));
        let config = paths.on_host(KUBELET_CONFIG);
        make_dirs(config.parent().unwrap(), 0o755).unwrap();
        write_file(&config, b"maxPods: 5\n", 0o644).unwrap();
        let would = renew_settings(&paths, &facts(7), None, true).unwrap();
        assert!(matches!(&would, Settings::WouldChange(diff) if diff.contains("+maxPods: 7")), "{would:?}");
        assert_eq!(std::fs::read(&config).unwrap(), b"maxPods: 5\n");
        let Settings::Written(backup) = renew_settings(&paths, &facts(7), None, false).unwrap() else {
            panic!("no backup")
        };
        assert_eq!(std::fs::read(paths.on_host(backup.join("config.yaml"))).unwrap(), b"maxPods: 5\n");
        assert_eq!(renew_settings(&paths, &facts(7), None, false).unwrap(), Settings::Same);
    }

    #[test]
    fn flags_and_gates_that_the_clusters_version_has_removed_are_found_before_anything_is_written() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        let put = |path: &str, text: &str| {
            let path = paths.on_host(path);
            make_dirs(path.parent().unwrap(), 0o755).unwrap();
            write_file(&path, text.as_bytes(), 0o644).unwrap();
        };
        put(KUBELET_CONFIG, "maxPods: 5\n");
        let mut facts = facts(7);
        facts.kubelet_config["featureGates"] = json!({"AppArmor": true});
        let found = |facts: &ClusterFacts| {
            let all = findings(&paths, facts, None).unwrap();
            all.into_iter().map(|one| (one.check, one.message)).collect::<Vec<_>>()
        };
        let gate = found(&facts);
        assert!(gate.len() == 1 && gate[0].0 == "RemovedFeatureGates" && gate[0].1.contains("AppArmor"), "{gate:?}");
        facts.kubelet_config["featureGates"] = json!({});
        put("/var/lib/kubelet/kubeadm-flags.env", "KUBELET_KUBEADM_ARGS=\"--network-plugin=cni --node-ip=10.0.0.7\"\n");
        put("/etc/default/kubelet", "KUBELET_EXTRA_ARGS=--feature-gates=AppArmor=true\n");
        let [flag, gate] = &found(&facts)[..] else { panic!("{:?}", found(&facts)) };
        assert_eq!((flag.0.as_str(), gate.0.as_str()), ("RemovedFlags", "RemovedFeatureGates"));
        assert_eq!(
            flag.1,
            "kubelet does not start with --network-plugin, which Kubernetes 1.24 has removed: use the runtime's settings of its \
             network (of /var/lib/kubelet/kubeadm-flags.env, or of KUBELET_EXTRA_ARGS in /etc/default/kubelet or \
             /etc/sysconfig/kubelet)"
        );
        facts.version = "v1.20.3".parse().unwrap();
        assert_eq!(found(&facts), []);
    }

    #[test]
    fn a_machine_with_an_api_server_is_no_worker() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        assert!(is_worker(&paths));
        let manifest = paths.manifest("kube-apiserver");
        make_dirs(manifest.parent().unwrap(), 0o755).unwrap();
        write_file(&manifest, b"x", 0o600).unwrap();
        assert!(!is_worker(&paths));
    }
}
