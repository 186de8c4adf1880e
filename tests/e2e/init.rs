//! init, use, reset; and init killed after each phase.

use std::time::{Duration, Instant};

use crate::machine::*;

pub fn init_makes_a_control_plane_and_reset_leaves_no_trace() {
    ready();
    let before = Listing::take();
    let plane = ControlPlane::init();

    assert!(kubectl(&["get", "--raw", "/readyz"]).ok().contains("ok"));
    kubectl(&["create", "namespace", "shop"]).ok();
    // The controller manager makes the service account, so this also shows that it works.
    eventually("default service account", Duration::from_secs(30), || {
        (kubectl(&["-n", "shop", "get", "serviceaccount", "default"]).code == 0).then_some(())
    });
    kubectl(&["-n", "shop", "create", "configmap", "prices", "--from-literal=tea=2"]).ok();
    assert_eq!(kubectl(&["-n", "shop", "get", "configmap", "prices", "-o", "jsonpath={.data.tea}"]).ok(), "2");
    let binding = ["get", "clusterrolebinding", "kubeadm:cluster-admins", "-o", "jsonpath={.subjects[0].name}"];
    assert_eq!(kubectl(&binding).ok(), "kubeadm:cluster-admins");

    kubeboot(&["status"]).code(0);
    let names = run("docker", &["ps", "--format", "{{.Names}}"]).ok();
    for component in ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"] {
        let prefix = format!("k8s_{component}_{component}-");
        assert!(names.lines().any(|n| n.starts_with(&prefix) && n.contains("_kube-system_")), "{prefix} in\n{names}");
    }
    assert_eq!(run("curl", &["-s", "http://127.0.0.1:10248/healthz"]).stdout, "ok");

    // Again: nothing to do, and quickly told.
    let ids = containers();
    kubeboot(&["init", "--kubernetes-version", VERSION]).ok();
    assert_eq!(containers(), ids, "a second init touches nothing");
    let other = kubeboot(&["init", "--kubernetes-version", VERSION, "--service-cidr", "10.50.0.0/16"]).code(1);
    assert!(other.contains("kubeboot reset"), "{other}");

    drop(plane);
    assert_eq!(before.diff(&Listing::take()), Vec::<String>::new(), "reset leaves the machine as it was");
    kubeboot(&["status"]).code(3);
    assert!(kubeboot(&["reset", "--force"]).ok().contains("never initialised"));
}

/// The phases at whose end init is killed, and one more kill in the middle of each.
const PHASES: &[&str] =
    &["preflight", "certs", "kubeconfig", "etcd", "control-plane", "kubelet-start", "wait-control-plane"];

/// After its last phase init has nothing left to do, and may be gone before the signal comes.
#[track_caller]
fn check_ended(ended: Ended, mark: &str) {
    let last = mark.contains("phaseDone") && mark.contains("wait-control-plane");
    assert!(ended == Ended::Killed || (last && ended == Ended::Finished), "{mark}: {ended:?}");
}

pub fn init_killed_after_any_phase_is_finished_by_a_second_init() {
    let mut table = vec![format!("{:20} {:>8} {:>12} {:>8}", "killed", "by", "second init", "reset")];
    ready();
    let before = Listing::take();
    for phase in PHASES {
        for (event, what) in [("phaseStarted", "at the start of"), ("phaseDone", "after")] {
            let args = ["init", "--kubernetes-version", VERSION, "-o", "json"];
            let mark = format!("{{\"event\":\"{event}\",\"phase\":\"{phase}\"");
            let ended = kill_at(&args, &mark);
            check_ended(ended, &mark);
            let plane = ControlPlane;
            let started = Instant::now();
            kubeboot(&["init", "--kubernetes-version", VERSION]).ok();
            let took = started.elapsed().as_secs_f32();
            assert!(kubectl(&["get", "--raw", "/readyz"]).ok().contains("ok"));
            drop(plane);
            let left = before.diff(&Listing::take());
            assert_eq!(left, Vec::<String>::new(), "killed {what} {phase}");
            table.push(format!("{what} {phase:20} {ended:?}  healthy {took:>4.1} s  nothing left"));
        }
    }
    eprintln!("{}", table.join("\n"));
}

pub fn a_killed_init_is_reset_without_a_trace() {
    ready();
    let before = Listing::take();
    for phase in PHASES {
        let mark = format!("{{\"event\":\"phaseDone\",\"phase\":\"{phase}\"");
        check_ended(kill_at(&["init", "--kubernetes-version", VERSION, "-o", "json"], &mark), &mark);
        kubeboot(&["reset", "--force"]).ok();
        assert_eq!(before.diff(&Listing::take()), Vec::<String>::new(), "killed after {phase}");
    }
}

pub fn a_dry_run_needs_no_root_and_touches_nothing() {
    ready();
    let before = Listing::take();
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let binary = directory.path().join("kubeboot");
    std::fs::copy(program(), &binary).unwrap();
    let binary = binary.to_str().unwrap();
    let address = "--apiserver-advertise-address=10.0.0.5";
    let ran =
        run("setpriv", &["--reuid=65534", "--regid=65534", "--clear-groups", binary, "init", "--dry-run", address]);
    let out = ran.ok();
    assert!(out.contains("/etc/kubernetes/manifests/kube-apiserver.yaml"), "{out}");
    assert!(!out.contains("PRIVATE KEY") && !out.contains("LS0tLS1CRUdJTiBQUklWQVRF"), "a private key is printed");
    assert_eq!(before.diff(&Listing::take()), Vec::<String>::new());
}

pub fn manifests_are_what_init_writes() {
    let printed = kubeboot(&["manifests", "kube-scheduler", "--kubernetes-version", VERSION]).ok();
    let _plane = Shared::plane();
    assert_eq!(printed, std::fs::read_to_string("/etc/kubernetes/manifests/kube-scheduler.yaml").unwrap());
}
