//! The Node that the agent registers: its status, its lease, and that both come back after whatever happens.

use std::time::Duration;

use crate::machine::*;

const MINUTE: Duration = Duration::from_secs(60);
const API_SERVER: &str = "/etc/kubernetes/manifests/kube-apiserver.yaml";

/// The only Node, or null.
fn node() -> serde_json::Value {
    let listed = kubectl(&["get", "nodes", "-o", "json"]).stdout;
    serde_json::from_str::<serde_json::Value>(&listed).map(|mut list| list["items"][0].take()).unwrap_or_default()
}

/// Status and reason of a condition.
fn condition(node: &serde_json::Value, name: &str) -> (String, String) {
    let all = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let one = all.into_iter().find(|one| one["type"] == name).unwrap_or_default();
    let text = |field: &str| one[field].as_str().unwrap_or_default().to_owned();
    (text("status"), text("reason"))
}

/// When the lease was renewed; empty where there is none.
fn renewed() -> String {
    let path = "jsonpath={.items[0].spec.renewTime}";
    kubectl(&["-n", "kube-node-lease", "get", "leases", "-o", path]).stdout
}

/// Waits until the lease is renewed after `before`.
#[track_caller]
fn renewed_after(before: &str) {
    eventually("lease renewed", MINUTE, || Some(renewed()).filter(|now| !now.is_empty() && now != before));
}

pub fn the_node_is_registered_ready_and_marked_and_comes_back_when_it_is_deleted() {
    let _plane = ControlPlane::init();
    let first = node();
    let is = |name, status: &str, reason: &str| {
        assert_eq!(condition(&first, name), (status.to_owned(), reason.to_owned()), "{name} of {first:#}");
    };
    is("Ready", "True", "KubeletReady");
    is("MemoryPressure", "False", "KubeletHasSufficientMemory");
    is("PIDPressure", "False", "KubeletHasSufficientPID");
    is("NetworkUnavailable", "True", "NoPodNetwork");
    let wide = kubectl(&["get", "nodes", "-o", "wide", "--no-headers"]).ok();
    for word in ["Ready", "control-plane,master", VERSION, "docker://"] {
        assert!(wide.contains(word), "{word} in\n{wide}");
    }
    let annotations = &first["metadata"]["annotations"];
    assert!(annotations["kubeadm.alpha.kubernetes.io/cri-socket"].is_string(), "{annotations}");
    renewed_after("");
    renewed_after(&renewed());

    let uid = |node: &serde_json::Value| node["metadata"]["uid"].as_str().map(str::to_owned);
    kubectl(&["delete", "nodes", "--all"]).ok();
    let second = eventually("node registered again", MINUTE, || Some(node()).filter(|now| uid(now).is_some()));
    assert_ne!(uid(&first), uid(&second));
    let role = "node-role.kubernetes.io/control-plane";
    assert!(second["metadata"]["labels"][role].is_null(), "a node must not say that of itself");
    kubeboot(&["init", "phase", "mark-control-plane", "--kubernetes-version", VERSION]).ok();
    assert_eq!(node()["metadata"]["labels"][role], "");
    eventually("lease of the new node", MINUTE, || {
        let owner = "jsonpath={.items[0].metadata.ownerReferences[0].uid}";
        let owner = kubectl(&["-n", "kube-node-lease", "get", "leases", "-o", owner]).stdout;
        (Some(owner) == uid(&second)).then_some(())
    });
}

pub fn the_node_outlives_its_agent_and_its_api_server() {
    let _plane = Shared::plane();
    let uid = node()["metadata"]["uid"].clone();
    let ids = containers();
    let agent = status()["agent"]["pid"].as_i64().unwrap();
    signal(agent as i32, "KILL");
    eventually("agent gone", MINUTE, || (kubeboot(&["status"]).code == 3).then_some(()));
    let before = renewed();
    kubeboot(&["init", "phase", "kubelet-start", "--kubernetes-version", VERSION]).ok();
    renewed_after(&before);
    assert_eq!((containers(), &node()["metadata"]["uid"]), (ids.clone(), &uid), "the same containers, the same Node");

    let aside = "/etc/kubernetes/kube-apiserver.yaml";
    std::fs::rename(API_SERVER, aside).unwrap();
    eventually("API server gone", MINUTE, || processes("kube-apiserver").is_empty().then_some(()));
    let etcd = containers().remove("etcd");
    assert_eq!(etcd.as_ref(), ids.get("etcd"), "nothing else waits for it");
    std::fs::rename(aside, API_SERVER).unwrap();
    healthy(2 * MINUTE);
    renewed_after(&before);
    let now = node();
    assert_eq!((&now["metadata"]["uid"], condition(&now, "Ready").0.as_str()), (&uid, "True"));
}
