//! Upgrades that work, crash, hang, and are killed.

use std::time::Duration;

use crate::machine::*;

const MINUTE: Duration = Duration::from_secs(60);
const CRASHING: &str = "kubeboot-test/crashing:1";
const HANGING: &str = "kubeboot-test/hanging:1";

fn server_version() -> String {
    let json = kubectl(&["get", "--raw", "/version"]).ok();
    serde_json::from_str::<serde_json::Value>(&json).unwrap()["gitVersion"].as_str().unwrap().to_owned()
}

#[test]
fn an_upgrade_replaces_every_component_and_keeps_the_data() {
    let _plane = ControlPlane::init();
    kubectl(&["create", "configmap", "kept", "--from-literal=a=b"]).ok();
    let diff = kubeboot(&["upgrade", "diff", NEXT_VERSION]).ok();
    assert!(diff.contains(&format!("+    image: registry.k8s.io/kube-apiserver:{NEXT_VERSION}")), "{diff}");
    let plan = kubeboot(&["upgrade", "plan", NEXT_VERSION]).ok();
    assert!(plan.contains("kube-scheduler") && plan.contains(NEXT_VERSION), "{plan}");

    kubeboot(&["upgrade", "apply", NEXT_VERSION, "--yes"]).code(0);
    assert_eq!(server_version(), NEXT_VERSION);
    assert_eq!(kubectl(&["get", "configmap", "kept", "-o", "jsonpath={.data.a}"]).ok(), "b");
    kubeboot(&["status"]).code(0);
    kubeboot(&["upgrade", "apply", NEXT_VERSION, "--yes"]).code(0);

    kubeboot(&["upgrade", "rollback", "--yes"]).code(0);
    assert_eq!(server_version(), VERSION);
    assert_eq!(kubectl(&["get", "configmap", "kept", "-o", "jsonpath={.data.a}"]).ok(), "b");
}

#[test]
fn an_upgrade_to_a_broken_image_is_rolled_back_and_keeps_the_data() {
    busybox_image(CRASHING, "echo out of cheese >&2; exit 3");
    busybox_image(HANGING, "exec sleep 100000");
    let _plane = ControlPlane::init();
    kubectl(&["create", "configmap", "kept", "--from-literal=a=b"]).ok();
    let manifests = || {
        let read = |c: &str| std::fs::read_to_string(format!("/etc/kubernetes/manifests/{c}.yaml")).unwrap();
        ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"].map(read)
    };
    let before = manifests();
    for component in ["etcd", "kube-apiserver", "kube-scheduler"] {
        let said = kubeboot(&["upgrade", "apply", "--image", &format!("{component}={CRASHING}"), "--yes"]).code(2);
        assert!(said.contains("out of cheese") && said.contains("exit code 3"), "{said}");
        assert_eq!(manifests(), before, "{component}");
        healthy(MINUTE);
        assert_eq!(kubectl(&["get", "configmap", "kept", "-o", "jsonpath={.data.a}"]).ok(), "b", "{component}");
    }
    let image = format!("kube-controller-manager={HANGING}");
    kubeboot(&["upgrade", "apply", "--image", &image, "--timeout", "8s", "--yes"]).code(2);
    assert_eq!(manifests(), before);
    healthy(MINUTE);
    let missing = kubeboot(&["upgrade", "apply", "--image", "etcd=registry.invalid/etcd:none", "--yes"]).code(1);
    assert!(missing.contains("registry.invalid/etcd:none"), "{missing}");
    assert_eq!(manifests(), before, "an image that cannot be had is found out before anything is touched");
    run("docker", &["rmi", CRASHING, HANGING]);
}

#[test]
fn a_killed_upgrade_is_finished_by_the_same_command() {
    let _plane = ControlPlane::init();
    let component = |name: &str| format!("{{\"event\":\"component\",\"name\":\"{name}\"");
    for name in ["kube-apiserver", "kube-controller-manager", "kube-scheduler"] {
        let ended = kill_at(&["upgrade", "apply", NEXT_VERSION, "--yes", "-o", "json"], &component(name));
        assert_eq!(ended, Ended::Killed, "{name}");
        let other = kubeboot(&["upgrade", "apply", "--image", "etcd=a/b:c", "--yes"]).code(1);
        assert!(other.contains("rollback") || other.contains("a/b:c"), "{other}");
        kubeboot(&["upgrade", "apply", NEXT_VERSION, "--yes"]).code(0);
        assert_eq!(server_version(), NEXT_VERSION);
        kubeboot(&["upgrade", "rollback", "--yes"]).code(0);
        assert_eq!(server_version(), VERSION);
    }
}
