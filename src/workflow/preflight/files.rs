//! Checks of files and directories.

use std::path::{Path, PathBuf};

use super::{Goal, Problem, Subject};
use crate::config::spec::{ClusterSpec, EtcdSpec, JoinSpec};
use crate::host::facts::Presence;
use crate::host::paths::{KUBERNETES_DIR, MANIFESTS_DIR};

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

/// What makes a machine a node of some cluster already.
fn of_a_node(spec: &JoinSpec) -> Vec<PathBuf> {
    let conf = |file| Path::new(KUBERNETES_DIR).join(file);
    vec![conf("kubelet.conf"), conf("bootstrap-kubelet.conf"), spec.ca_cert_path.clone()]
}

pub(super) fn of_interest(goal: Goal<'_>) -> Vec<PathBuf> {
    let spec = match goal {
        Goal::Init(spec) => spec,
        Goal::Join(spec, _) => return of_a_node(spec),
    };
    let data = match &spec.etcd {
        EtcdSpec::Local(etcd) => Some(etcd.data_dir.clone()),
        EtcdSpec::External(_) => None,
    };
    MANIFESTS.map(manifest).into_iter().chain(data).chain(external_files(spec).into_iter().cloned()).collect()
}

/// Those of `paths` that are there and not ours.
fn foreign(s: &Subject, paths: impl IntoIterator<Item = PathBuf>, message: impl Fn(&str) -> String) -> Vec<Problem> {
    let is_foreign = |path: &PathBuf| {
        matches!(s.facts.paths.get(path), Some(Presence::File | Presence::Directory(_))) && !s.ours.has(path)
    };
    let problem = |path: PathBuf| Problem::of_path(&path, message(&path.display().to_string()));
    paths.into_iter().filter(is_foreign).map(problem).collect()
}

pub(super) fn manifests(s: &Subject) -> Vec<Problem> {
    foreign(s, MANIFESTS.map(manifest), |path| {
        format!(
            "{path} exists and kubeboot did not write it: another control plane may be here; reset it with the tool \
             that made it (kubeadm reset), or move the file away"
        )
    })
}

pub(super) fn of_another_node(s: &Subject) -> Vec<Problem> {
    let Goal::Join(spec, _) = s.goal else { return vec![] };
    foreign(s, of_a_node(spec), |path| {
        format!(
            "{path} already exists and kubeboot did not write it: this machine may be a node of a cluster; reset it \
             with the tool that made it (kubeadm reset), or move the file away"
        )
    })
}

pub(super) fn etcd_data(s: &Subject) -> Vec<Problem> {
    let Some(etcd) = s.cluster().and_then(|spec| spec.etcd.local()) else { return vec![] };
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
    let files = s.cluster().map(external_files).unwrap_or_default();
    let missing = files.into_iter().filter(|path| s.facts.paths.get(*path) == Some(&Presence::Missing));
    missing
        .map(|path| {
            Problem::new(format!("{} of etcd.external is not there: copy it from the etcd host", path.display()))
        })
        .collect()
}
