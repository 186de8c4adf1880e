//! Checks of files and directories.

use std::path::{Path, PathBuf};

use super::{Problem, Subject};
use crate::config::spec::{ClusterSpec, EtcdSpec};
use crate::host::facts::Presence;
use crate::host::paths::MANIFESTS_DIR;

/// In kubeadm's order.
const MANIFESTS: [&str; 4] = ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd"];

fn manifest(component: &str) -> PathBuf {
    Path::new(MANIFESTS_DIR).join(format!("{component}.yaml"))
}

fn external_files(spec: &ClusterSpec) -> Vec<&PathBuf> {
    match &spec.etcd {
        EtcdSpec::External(etcd) => [&etcd.ca_file, &etcd.cert_file, &etcd.key_file].into_iter().flatten().collect(),
        EtcdSpec::Local(_) => vec![],
    }
}

pub(super) fn of_interest(spec: &ClusterSpec) -> Vec<PathBuf> {
    let data = match &spec.etcd {
        EtcdSpec::Local(etcd) => Some(etcd.data_dir.clone()),
        EtcdSpec::External(_) => None,
    };
    MANIFESTS.map(manifest).into_iter().chain(data).chain(external_files(spec).into_iter().cloned()).collect()
}

pub(super) fn manifests(s: &Subject) -> Vec<Problem> {
    let foreign = |path: &PathBuf| {
        matches!(s.facts.paths.get(path), Some(Presence::File | Presence::Directory(_))) && !s.ours.has(path)
    };
    let problem = |path: PathBuf| {
        let shown = path.display();
        let message = format!(
            "{shown} exists and kubeboot did not write it: another control plane may be here; reset it with the tool \
             that made it (kubeadm reset), or move the file away"
        );
        Problem::of_path(&path, message)
    };
    MANIFESTS.map(manifest).into_iter().filter(foreign).map(problem).collect()
}

pub(super) fn etcd_data(s: &Subject) -> Vec<Problem> {
    let EtcdSpec::Local(etcd) = &s.spec.etcd else { return vec![] };
    let dir = &etcd.data_dir;
    let message = match s.facts.paths.get(dir) {
        Some(Presence::Directory(entries)) if *entries > 0 && !s.ours.has(dir) => {
            "is not empty and kubeboot did not make it: an etcd started there would take up the old cluster's data; \
             move it away, or choose another directory with etcd.local.dataDir"
        }
        Some(Presence::File) => "is a file where etcd's data directory should be: move it away",
        _ => return vec![],
    };
    vec![Problem::of_path(dir, format!("{} {message}", dir.display()))]
}

pub(super) fn external_etcd(s: &Subject) -> Vec<Problem> {
    let missing =
        external_files(s.spec).into_iter().filter(|path| s.facts.paths.get(*path) == Some(&Presence::Missing));
    missing
        .map(|path| {
            Problem::new(format!("{} of etcd.external is not there: copy it from the etcd host", path.display()))
        })
        .collect()
}
