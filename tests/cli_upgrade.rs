//! What the commands below `upgrade` print of a machine below another root, for people and for programs.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::Path;

use assert_cmd::Command;
use kubeboot::host::fs::{make_dirs, write_file};
use predicates::prelude::*;
use predicates::str::contains;
use serde_json::Value;

fn kubeboot(root: &Path, args: &[&str]) -> assert_cmd::assert::Assert {
    Command::new(env!("CARGO_BIN_EXE_kubeboot")).arg("--rootfs").arg(root).args(args).assert()
}

fn json(root: &Path, args: &[&str], code: i32) -> Value {
    let assert = kubeboot(root, args).code(code).stderr("");
    serde_json::from_slice(&assert.get_output().stdout).unwrap()
}

/// A machine that init has made, with `extra` in the ClusterConfiguration.
fn made(extra: &str) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let config = root.path().join("config.yaml");
    let text = format!(
        "apiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\nnodeRegistration: {{name: cp1}}\nlocalAPIEndpoint: \
         {{advertiseAddress: 10.0.0.5}}\n---\napiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\n\
         kubernetesVersion: v1.36.2\n{extra}"
    );
    write_file(&config, text.as_bytes(), 0o600).unwrap();
    kubeboot(root.path(), &["init", "--config", config.to_str().unwrap(), "--ignore-preflight-errors=all"]).success();
    root
}

const GATE: &str = "apiServer:\n  extraArgs:\n  - {name: feature-gates, value: AnyVolumeDataSource=true}\n";

#[test]
fn a_plan_is_kubeadms_document_and_exits_with_0() {
    let root = made("");
    let plan = json(root.path(), &["upgrade", "plan", "v1.36.4", "-o", "json"], 0);
    assert_eq!((&plan["kind"], &plan["apiVersion"]), (&"UpgradePlan".into(), &"output.kubeadm.k8s.io/v1alpha3".into()));
    let upgrade = &plan["availableUpgrades"][0];
    assert_eq!(upgrade["description"], "version in the v1.36 series");
    let names: Vec<&str> =
        upgrade["components"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"]);
    let server = &upgrade["components"][1];
    assert_eq!((&server["currentVersion"], &server["newVersion"]), (&"v1.36.2".into(), &"v1.36.4".into()));
    assert_eq!(plan["kubeboot"]["blocked"], false);
    assert_eq!(plan["kubeboot"]["command"], "kubeboot upgrade apply v1.36.4");
    let none = json(root.path(), &["upgrade", "plan", "-o", "json"], 0);
    assert_eq!(none["kubeboot"]["target"], Value::Null);
    assert!(none["kubeboot"]["reachable"].as_array().unwrap().len() >= 2);
    kubeboot(root.path(), &["upgrade", "plan"]).success().stdout(contains("Kubernetes v1.36.2 is running."));
}

#[test]
fn a_plan_that_is_blocked_says_every_reason_and_apply_refuses_the_same() {
    let root = made(GATE);
    let plan = json(root.path(), &["upgrade", "plan", "v1.37.1", "-o", "json"], 5);
    let findings = plan["kubeboot"]["findings"].as_array().unwrap();
    assert_eq!(plan["kubeboot"]["blocked"], true);
    assert_eq!((&findings[0]["check"], &findings[0]["severity"]), (&"RemovedFeatureGates".into(), &"error".into()));
    kubeboot(root.path(), &["upgrade", "plan", "v1.37.1"]).code(5).stdout(contains(
        "error: RemovedFeatureGates: kube-apiserver does not start with the feature gate AnyVolumeDataSource, which Kubernetes \
         1.37 has removed",
    ));
    kubeboot(root.path(), &["upgrade", "plan", "v1.37.1", "--ignore-preflight-errors=RemovedFeatureGates"]).success();
    let manifest = root.path().join("etc/kubernetes/manifests/kube-apiserver.yaml");
    let before = std::fs::read(&manifest).unwrap();
    kubeboot(root.path(), &["upgrade", "apply", "v1.37.1", "--yes"])
        .code(1)
        .stderr(contains("[ERROR RemovedFeatureGates]: kube-apiserver does not start with the feature gate"));
    assert_eq!(std::fs::read(&manifest).unwrap(), before);
    kubeboot(root.path(), &["upgrade", "plan", "v1.39.0"]).code(5).stdout(contains("skips a minor version"));
    let empty = tempfile::tempdir().unwrap();
    kubeboot(empty.path(), &["upgrade", "plan", "v1.37.1"])
        .code(1)
        .stdout("")
        .stderr(contains("kube-apiserver.yaml is missing"));
    kubeboot(root.path(), &["upgrade", "plan", "1.x"]).code(1).stdout("").stderr(contains("1.x"));
}

#[test]
fn a_diff_is_plain_where_no_terminal_is_and_has_a_document() {
    let root = made("");
    let text = kubeboot(root.path(), &["upgrade", "diff", "v1.36.4"]).success();
    let text = String::from_utf8(text.get_output().stdout.clone()).unwrap();
    assert!(text.contains("-    image: registry.k8s.io/kube-apiserver:v1.36.2\n"), "{text}");
    assert!(!text.contains('\x1b'));
    let diff = json(root.path(), &["upgrade", "diff", "v1.36.4", "-o", "json"], 0);
    assert_eq!((&diff["kind"], &diff["apiVersion"]), (&"UpgradeDiff".into(), &"output.kubeboot.dev/v1alpha1".into()));
    let changes = diff["changes"].as_array().unwrap();
    let names: Vec<&str> = changes.iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["kube-apiserver", "kube-controller-manager", "kube-scheduler"]);
    assert_eq!(changes[0]["kind"], "manifest");
    assert!(changes.iter().all(|one| text.contains(one["diff"].as_str().unwrap())));
}

#[test]
fn backups_are_listed_and_pruned_and_kubeadms_stay() {
    let root = made("");
    kubeboot(root.path(), &["upgrade", "backups"]).success().stdout(contains("No backups"));
    let backup = root.path().join("etc/kubernetes/tmp/kubeadm-backup-manifests-2026-01-02-03-04-05");
    make_dirs(&backup, 0o700).unwrap();
    std::fs::copy(root.path().join("etc/kubernetes/manifests/kube-apiserver.yaml"), backup.join("kube-apiserver.yaml"))
        .unwrap();
    let list = json(root.path(), &["upgrade", "backups", "-o", "json"], 0);
    assert_eq!(list["kind"], "UpgradeBackups");
    let one = &list["backups"][0];
    assert_eq!((&one["name"], &one["madeBy"]), (&"2026-01-02-03-04-05".into(), &"kubeadm".into()));
    assert_eq!((&one["from"], &one["rollback"]), (&"v1.36.2".into(), &false.into()));
    let prune = ["upgrade", "backups", "prune", "--keep", "0"];
    kubeboot(root.path(), &prune).success().stdout("Nothing to remove.\n");
    let dry: Vec<&str> = prune.iter().copied().chain(["--kubeadm", "--dry-run"]).collect();
    kubeboot(root.path(), &dry)
        .success()
        .stdout(contains("would remove /etc/kubernetes/tmp/kubeadm-backup-manifests-2026"));
    assert!(backup.exists());
    let all: Vec<&str> = prune.iter().copied().chain(["--kubeadm", "-o", "json"]).collect();
    let pruned = json(root.path(), &all, 0);
    assert_eq!((pruned["removed"].as_array().unwrap().len(), &pruned["dryRun"]), (1, &false.into()));
    assert!(!backup.exists());
    for wrong in ["soon", "-1d", ""] {
        kubeboot(root.path(), &["upgrade", "backups", "prune", &format!("--older-than={wrong}")])
            .code(1)
            .stderr(contains("--older-than").and(contains("error:")));
    }
}
