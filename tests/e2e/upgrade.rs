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

pub fn an_upgrade_replaces_every_component_and_keeps_the_data() {
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

pub fn an_upgrade_to_a_broken_image_is_rolled_back_and_keeps_the_data() {
    image_of_script(CRASHING, "echo out of cheese >&2; exit 3");
    image_of_script(HANGING, "exec sleep 100000");
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

    let (mislabelled, mine) = ("kubeboot-test/kube-scheduler:v1.20.9", "kubeboot-test/kube-scheduler:mine");
    for tag in [mislabelled, mine] {
        run("docker", &["tag", &format!("registry.k8s.io/kube-scheduler:{VERSION}"), tag]).ok();
    }
    let said = kubeboot(&["upgrade", "apply", "--image", &format!("kube-scheduler={mislabelled}"), "--yes"]).code(2);
    assert!(said.contains("not past the check `version`") && said.contains("it is v1.20.2, not v1.20.9"), "{said}");
    assert_eq!(manifests(), before);
    let said = kubeboot(&["upgrade", "apply", "--image", &format!("kube-scheduler={mine}"), "--yes"]).code(0);
    assert!(
        said.contains("the check `version` was left out: the tag of kubeboot-test/kube-scheduler:mine is no version")
    );
    kubeboot(&["upgrade", "rollback", "--yes"]).code(0);
    assert_eq!(manifests(), before);
    run("docker", &["rmi", CRASHING, HANGING, mislabelled, mine]);
}

/// The lines of the record of the last upgrade.
fn record() -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string("/var/lib/kubeboot/upgrade/record.json").unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The process that carries the upgrade out, once `component` is being replaced.
fn carrier(component: &str) -> String {
    let of = |line: &serde_json::Value| line["begun"]["pid"].as_u64().map(|pid| pid.to_string());
    let phase = format!("upgrade/{component}");
    eventually(component, MINUTE, || {
        let lines = record();
        lines
            .iter()
            .any(|line| line["event"]["phase"] == *phase)
            .then(|| lines.iter().filter_map(of).next_back().unwrap())
    })
}

/// Waits until the upgrade has ended without anybody's help.
fn upgraded() -> serde_json::Value {
    eventually("the end of the upgrade", 3 * MINUTE, || {
        let json = kubeboot(&["upgrade", "status", "-o", "json"]).stdout;
        let status: serde_json::Value = serde_json::from_str(&json).unwrap();
        let open = ["ordered", "running"].iter().any(|state| status["state"] == **state);
        (!open).then_some(status)
    })
}

pub fn an_upgrade_goes_on_when_its_command_or_what_carries_it_out_is_killed() {
    let _plane = ControlPlane::init();
    let upgrade = ["upgrade", "apply", NEXT_VERSION, "--yes", "-o", "json"];
    let component = |name: &str| format!("{{\"event\":\"component\",\"name\":\"{name}\"");
    for name in ["kube-apiserver", "kube-scheduler"] {
        assert_eq!(kill_at(&upgrade, &component(name)), Ended::Killed, "{name}");
        let other = kubeboot(&["upgrade", "apply", "--image", "etcd=a/b:c", "--yes"]).code(1);
        assert!(other.contains("another upgrade is under way"), "{other}");
        let status = upgraded();
        assert_eq!((&status["state"], &status["attempts"]), (&"upgraded".into(), &1.into()), "{status}");
        assert_eq!(server_version(), NEXT_VERSION);
        kubeboot(&["upgrade", "rollback", "--yes"]).code(0);
        assert_eq!(server_version(), VERSION);
    }
    for name in ["kube-apiserver", "kube-controller-manager"] {
        std::thread::scope(|scope| {
            let command = scope.spawn(|| kubeboot(&upgrade).code(0));
            run("kill", &["-9", &carrier(name)]);
            let followed = command.join().unwrap();
            assert!(followed.contains(&component(name)), "the command follows it to its end: {followed}");
        });
        let status = upgraded();
        assert_eq!((&status["state"], &status["attempts"]), (&"upgraded".into(), &2.into()), "{status}");
        assert_eq!(server_version(), NEXT_VERSION);
        kubeboot(&["upgrade", "rollback", "--yes"]).code(0);
        assert_eq!(server_version(), VERSION);
    }
}

/// What `certs renew` renews, as the files are.
const RENEWED: [&str; 12] = [
    "pki/apiserver.crt",
    "pki/apiserver-kubelet-client.crt",
    "pki/apiserver-etcd-client.crt",
    "pki/front-proxy-client.crt",
    "pki/etcd/server.crt",
    "pki/etcd/peer.crt",
    "pki/etcd/healthcheck-client.crt",
    "pki/apiserver.key",
    "controller-manager.conf",
    "scheduler.conf",
    "admin.conf",
    "super-admin.conf",
];

fn contents() -> Vec<Vec<u8>> {
    RENEWED.map(|file| std::fs::read(format!("/etc/kubernetes/{file}")).unwrap()).to_vec()
}

/// What the cluster says of itself: the version in kubeadm-config, the image of kube-proxy, the whole of what an upgrade
/// writes.
fn cluster_says() -> (String, String, String) {
    let config = kubectl(&["-n", "kube-system", "get", "configmap", "kubeadm-config", "-o", "jsonpath={.data}"]).ok();
    let image = "jsonpath={.spec.template.spec.containers[0].image}";
    let proxy = kubectl(&["-n", "kube-system", "get", "daemonset", "kube-proxy", "-o", image]).ok();
    let rest = "jsonpath={range .items[*]}{.kind} {.metadata.name} {.data}{.rules}{.subjects}{\"\\n\"}{end}";
    let kinds = "configmaps,roles,rolebindings";
    (config, proxy, kubectl(&["-n", "kube-system", "get", kinds, "-o", rest]).ok())
}

pub fn an_upgrade_takes_certificates_and_the_clusters_objects_along_and_a_rollback_brings_them_back() {
    let _plane = ControlPlane::init();
    // The controller manager's own, which it makes once it leads.
    eventually("kube-root-ca.crt", MINUTE, || {
        kubectl(&["-n", "kube-system", "get", "configmap", "kube-root-ca.crt"]).code == 0
    });
    let (files, cluster) = (contents(), cluster_says());
    assert!(cluster.0.contains(&format!("kubernetesVersion: {VERSION}")), "{}", cluster.0);
    let dry = kubeboot(&["upgrade", "apply", NEXT_VERSION, "--dry-run"]).ok();
    assert!(dry.contains("Would renew the certificates of kube-apiserver, "), "{dry}");
    assert!(dry.contains("Would bring the ClusterConfiguration up to date in the cluster"), "{dry}");

    kubeboot(&["upgrade", "apply", NEXT_VERSION, "--yes"]).code(0);
    let (new_files, new_cluster) = (contents(), cluster_says());
    let same: Vec<&str> = (0..RENEWED.len()).filter(|at| files[*at] == new_files[*at]).map(|at| RENEWED[at]).collect();
    // etcd stays as it is, its image being that of both versions: so do its certificates.
    assert!(same.iter().all(|file| file.contains("etcd/")), "not renewed: {same:?}");
    assert!(new_cluster.0.contains(&format!("kubernetesVersion: {NEXT_VERSION}")), "{}", new_cluster.0);
    assert!(new_cluster.1.ends_with(NEXT_VERSION), "{}", new_cluster.1);
    kubeboot(&["upgrade", "node"]).code(0);

    kubeboot(&["upgrade", "rollback", "--yes"]).code(0);
    assert_eq!(server_version(), VERSION);
    assert!(contents() == files, "the old certificates are back");
    assert_eq!(cluster_says(), cluster);
    healthy(MINUTE);

    let phase = |words: &[&str]| {
        let mut args = vec!["upgrade", "apply", "phase"];
        args.extend(words);
        args.extend([NEXT_VERSION, "--yes"]);
        kubeboot(&args).code(0)
    };
    phase(&["control-plane", "--certificate-renewal=false"]);
    assert_eq!(server_version(), NEXT_VERSION);
    assert!(contents() == files, "nothing is renewed that is not to be");
    assert_eq!(cluster_says(), cluster, "the phase of the components leaves the cluster's objects alone");
    phase(&["upload-config", "kubeadm"]);
    assert!(cluster_says().0.contains(NEXT_VERSION));
    phase(&["addon", "kube-proxy"]);
    assert!(cluster_says().1.ends_with(NEXT_VERSION));
    for rest in [&["upload-config", "all"][..], &["kubelet-config"], &["bootstrap-token"], &["post-upgrade"]] {
        phase(rest);
    }
    healthy(MINUTE);
}
