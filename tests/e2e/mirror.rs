//! Mirror pods on a real API server: the rows 78 to 83 of the table of behaviours that only a cluster shows.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use kubeboot::testing::real::image::{self, LATEST};
use serde_json::Value;

use crate::machine::*;

/// As soon as one who looks at it sees it; much longer than it takes, on a machine with other work.
const SOON: Duration = Duration::from_secs(10);
const HASH: &str = "kubernetes.io/config.hash";
const MIRROR: &str = "kubernetes.io/config.mirror";

pub fn manifest(name: &str) -> PathBuf {
    PathBuf::from("/etc/kubernetes/manifests").join(format!("{name}.yaml"))
}

/// An object, null when it is not there or the API server is away.
pub fn get(namespace: &str, resource: &str) -> Value {
    let ran = kubectl(&["-n", namespace, "get", resource, "-o", "json"]);
    serde_json::from_str(&ran.stdout).unwrap_or_default()
}

pub fn uid(object: &Value) -> &str {
    object["metadata"]["uid"].as_str().unwrap_or_default()
}

pub fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.is_some_and(|all| all.iter().any(|one| one["type"] == "Ready" && one["status"] == "True"))
}

/// The mirror of a static pod, once this holds of it.
#[track_caller]
pub fn mirror(namespace: &str, pod: &str, limit: Duration, holds: impl Fn(&Value) -> bool) -> Value {
    eventually(&format!("mirror of {pod}"), limit, || Some(get(namespace, &format!("pod/{pod}"))).filter(&holds))
}

/// A control plane whose mirrors are there, and its Node's name.
fn plane() -> (Shared, String) {
    let plane = Shared::plane();
    let node = node_name();
    for component in COMPONENTS {
        mirror("kube-system", &format!("{component}-{node}"), Duration::from_secs(30), is_ready);
    }
    (plane, node)
}

/// A pod that needs its whole grace period to end. Its manifest is not kubeboot's, and reset leaves it alone: it goes
/// before, and its mirror with it.
struct Slow(&'static str);

impl Drop for Slow {
    fn drop(&mut self) {
        let _ = fs::remove_file(manifest("slow"));
        if !std::thread::panicking() {
            let left = || kubectl(&["-n", self.0, "get", "pods", "-o", "name"]).stdout;
            eventually("the slow pod is gone", Duration::from_secs(30), || {
                !containers().contains_key("slow") && !left().contains("slow-")
            });
        }
    }
}

/// Writes its manifest.
fn write_slow(namespace: &'static str, grace: u32, extra: &str) -> Slow {
    image::made();
    let text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: slow, namespace: {namespace}}}\nspec:\n  hostNetwork: true\n  \
         terminationGracePeriodSeconds: {grace}\n  {extra}\n  containers:\n  - name: slow\n    image: {IMAGE}\n    imagePullPolicy: Never\n    \
         command: [sh, -c, \"trap '' TERM; while :; do sleep 1; done\"]\n"
    );
    put(&manifest("slow"), text);
    Slow(namespace)
}

pub fn b078_every_static_pod_has_a_mirror_that_the_node_owns() {
    let (_plane, node) = plane();
    let owner = get("", &format!("node/{node}"));
    let running = containers();
    for component in COMPONENTS {
        let pod = get("kube-system", &format!("pod/{component}-{node}"));
        let annotations = &pod["metadata"]["annotations"];
        assert!(annotations[HASH].is_string() && annotations[HASH] == annotations[MIRROR], "{annotations}");
        assert_eq!(annotations["kubernetes.io/config.source"], "file");
        assert!(annotations["kubernetes.io/config.seen"].is_string());
        let expected = serde_json::json!([
            {"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid(&owner), "controller": true}
        ]);
        assert_eq!(pod["metadata"]["ownerReferences"], expected);
        let status = &pod["status"];
        let container = &status["containerStatuses"][0];
        assert_eq!((&status["phase"], &container["name"]), (&"Running".into(), &component.into()));
        assert_eq!(container["containerID"], format!("docker://{}", running[component]));
        assert!(status["podIP"].is_string() && status["podIP"] == status["hostIP"], "{status}");
        assert!(status["qosClass"].is_string(), "{status}");
    }
    let told = eventually("events", SOON, || {
        let ran = kubectl(&["-n", "kube-system", "describe", "pod", &format!("etcd-{node}")]);
        ran.stdout.contains("Started").then_some(ran.stdout)
    });
    assert!(told.contains("kubelet  "), "{told}");
}

pub fn b079_a_deleted_mirror_comes_back_and_the_containers_stay() {
    let (_plane, node) = plane();
    let before = containers();
    let pod = format!("etcd-{node}");
    let resource = format!("pod/{pod}");
    for flags in [["--wait=false", "--grace-period=30"].as_slice(), &["--force", "--grace-period=0"]] {
        let old = get("kube-system", &resource);
        let begun = Instant::now();
        kubectl(&[["-n", "kube-system", "delete", &resource].as_slice(), flags].concat()).ok();
        let new = mirror("kube-system", &pod, SOON, |now| is_ready(now) && uid(now) != uid(&old));
        eprintln!("{flags:?}: a new mirror, ready, after {} ms", begun.elapsed().as_millis());
        assert_eq!(new["metadata"]["annotations"], old["metadata"]["annotations"]);
    }
    // What somebody changes in it stays, and it with it.
    let old = get("kube-system", &resource);
    kubectl(&["-n", "kube-system", "label", &resource, "somebodys=own"]).ok();
    std::thread::sleep(Duration::from_secs(3));
    let new = get("kube-system", &resource);
    assert_eq!((uid(&new), &new["metadata"]["labels"]["somebodys"]), (uid(&old), &"own".into()));
    assert_eq!(containers(), before);
}

pub fn b080_an_edited_manifest_makes_the_mirror_anew() {
    let (_plane, node) = plane();
    let _slow = write_slow("default", 1, "activeDeadlineSeconds: 3600");
    let pod = format!("slow-{node}");
    let mut old = mirror("default", &pod, SOON, is_ready);
    let text = fs::read_to_string(manifest("slow")).unwrap();
    let edits = [
        ("activeDeadlineSeconds: 3600", "activeDeadlineSeconds: 7200", "/spec/activeDeadlineSeconds"),
        (IMAGE, LATEST, "/spec/containers/0/image"),
    ];
    for (from, to, field) in edits {
        put(&manifest("slow"), text.replace(from, to));
        let differs = |now: &Value| is_ready(now) && uid(now) != uid(&old);
        let new = mirror("default", &pod, Duration::from_secs(30), differs);
        assert_ne!(new.pointer(field), old.pointer(field), "{field}");
        let annotations = &new["metadata"]["annotations"];
        assert_eq!(annotations[HASH], annotations[MIRROR]);
        assert_ne!(annotations[HASH], old["metadata"]["annotations"][HASH]);
        // Servers before 1.33 tell neither.
        assert!(new["metadata"]["generation"].as_i64().is_none_or(|generation| generation == 1), "{new}");
        assert!(new["status"]["observedGeneration"].as_i64().is_none_or(|generation| generation == 0), "{new}");
        old = new;
    }
}

pub fn b081_the_mirror_goes_after_the_containers_have_ended() {
    let (_plane, node) = plane();
    let _slow = write_slow("default", 5, "");
    let pod = format!("slow-{node}");
    let first = mirror("default", &pod, SOON, is_ready);
    let begun = Instant::now();
    fs::remove_file(manifest("slow")).unwrap();
    eventually("the mirror is gone", Duration::from_secs(30), || {
        let now = get("default", &format!("pod/{pod}"));
        assert!(now.is_null() || uid(&now) == uid(&first), "it is not made anew: {now}");
        now.is_null().then_some(())
    });
    assert!(!containers().contains_key("slow"), "the containers have ended before");
    assert!(begun.elapsed() >= Duration::from_secs(4), "it was there while they ended: {:?}", begun.elapsed());
}

pub fn b082_a_mirror_waits_for_its_namespace_and_follows_its_node() {
    let (_plane, node) = plane();
    let slow = write_slow("later", 1, "");
    let pod = format!("slow-{node}");
    let id = eventually("container", SOON, || containers().remove("slow"));
    assert!(get("later", &format!("pod/{pod}")).is_null());
    kubectl(&["create", "namespace", "later"]).ok();
    mirror("later", &pod, Duration::from_secs(40), is_ready);
    // Without its Node there is no mirror of it either; a Node that is registered anew has others.
    let before = get("", &format!("node/{node}"));
    kubectl(&["delete", "node", &node]).ok();
    let anew = eventually("the Node is registered anew", Duration::from_secs(60), || {
        Some(get("", &format!("node/{node}"))).filter(|now| !uid(now).is_empty() && uid(now) != uid(&before))
    });
    mirror("later", &pod, Duration::from_secs(40), |now| {
        is_ready(now) && now["metadata"]["ownerReferences"][0]["uid"] == uid(&anew)
    });
    assert_eq!(containers().remove("slow"), Some(id));
    drop(slow);
    kubectl(&["delete", "namespace", "later", "--wait=false"]).ok();
    kubeboot(&["init", "phase", "mark-control-plane", "--kubernetes-version", VERSION]).ok();
}

pub fn b083_statuses_converge_after_the_api_server_was_away() {
    let (_plane, node) = plane();
    let _slow = write_slow("default", 1, "");
    let pod = format!("slow-{node}");
    mirror("default", &pod, SOON, is_ready);
    let before = containers();
    let (manifest, aside) = (manifest("kube-apiserver"), PathBuf::from("/etc/kubernetes/kube-apiserver.yaml"));
    fs::rename(&manifest, &aside).unwrap();
    eventually("the API server is gone", Duration::from_secs(60), || {
        (!containers().contains_key("kube-apiserver")).then_some(())
    });
    // What happens meanwhile is seen later.
    run("docker", &["kill", &before["slow"]]).ok();
    let again = eventually("the pod's container is there again", SOON, || {
        containers().remove("slow").filter(|id| *id != before["slow"])
    });
    fs::rename(&aside, &manifest).unwrap();
    let begun = Instant::now();
    let seen = |now: &Value| {
        let container = &now["status"]["containerStatuses"][0];
        is_ready(now) && container["restartCount"] == 1 && container["containerID"] == format!("docker://{again}")
    };
    mirror("default", &pod, Duration::from_secs(90), seen);
    eprintln!("the status was right {} ms after the API server's manifest was back", begun.elapsed().as_millis());
    mirror("kube-system", &format!("kube-apiserver-{node}"), Duration::from_secs(60), is_ready);
    let after = containers();
    assert_eq!((&after["etcd"], &after["slow"]), (&before["etcd"], &again));
}
