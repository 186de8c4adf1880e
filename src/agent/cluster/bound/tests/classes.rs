//! Classes of runtime.

use super::*;
use crate::testing::runtime::MadeFrom;

const CLASSES: &str = "/apis/node.k8s.io/v1/runtimeclasses";

fn handler(cluster: &Cluster, pod: &str) -> Option<String> {
    match cluster.runtime.made_from(&cluster.runtime.find(pod, "POD")?.id)? {
        MadeFrom::Sandbox(config) => Some(config.runtime_handler),
        MadeFrom::Container(_) => None,
    }
}

#[tokio::test]
async fn a_pod_is_run_by_the_handler_of_its_class_once_there_is_such_a_class() {
    let cluster = Cluster::new().await;
    cluster.bind("refused", json!({"runtimeClassName": "gvisor"}));
    let status = cluster.phase("refused", "Failed").await;
    assert_eq!(status["reason"], "UnsupportedRuntimeClass", "Docker has no handlers");
    cluster.runtime.set_needs_sandbox();
    cluster.bind("plain", json!({}));
    cluster.bind("a", json!({"runtimeClassName": "gvisor"}));
    cluster.ready("plain").await;
    assert_eq!(handler(&cluster, "plain").as_deref(), Some(""));
    let reported = |status: &Value| {
        let waiting = &status["containerStatuses"][0]["state"]["waiting"]["reason"];
        waiting == "ContainerCreating" && handler(&cluster, "a").is_none()
    };
    cluster.until("a waits", || reported(&cluster.pod("a")["status"]).then_some(())).await;
    let path = format!("{CLASSES}/gvisor");
    cluster
        .until("the class is asked for", || cluster.api.requests().iter().any(|r| r.contains(&path)).then_some(()))
        .await;
    cluster.api.put(CLASSES, json!({"metadata": {"name": "gvisor"}, "handler": "runsc"}));
    cluster.ready("a").await;
    assert_eq!(handler(&cluster, "a").as_deref(), Some("runsc"));
}
