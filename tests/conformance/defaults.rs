//! 28 to 36: what is made of a manifest before it runs, and what is refused.

use std::fs;

use kubeboot::testing::real::image::{IMAGE, LATEST};
use kubeboot::testing::real::pod::Pod;
use serde_json::{Value, json};

use crate::node::Node;
use crate::reports::{id, refusals, waits};

pub async fn b028_the_nodes_name_in_lower_case_ends_the_pods(node: &mut Node) {
    node.name = "Node1".to_owned();
    node.run(&Pod::new("a"));
    node.write("upper.yaml", Pod::new("Upper").yaml());
    node.start();
    assert_eq!(node.ready("a").await.name, "a-node1");
    let report = node.until("the upper-case name is refused", |r| !refusals(r).is_empty()).await;
    assert!(refusals(&report)[0].message.contains("Upper"), "{:#?}", report.problems);
    assert_eq!(report.pods.len(), 1);
}

pub async fn b029_the_uid_is_the_same_until_content_path_or_node_differ(node: &mut Node) {
    node.start();
    let first = node.up(&Pod::new("web")).await;
    node.kill();
    node.start();
    let restarted = node.ready("web").await;
    assert_eq!((&restarted.uid, id(&restarted)), (&first.uid, id(&first)));
    fs::rename(node.manifest("web.yaml"), node.manifest("www.yaml")).unwrap();
    node.pod("web", "is another pod from another path", |pod| pod.ready && pod.uid != first.uid).await;
    fs::rename(node.manifest("www.yaml"), node.manifest("web.yaml")).unwrap();
    node.pod("web", "is the first pod again", |pod| pod.ready && pod.uid == first.uid).await;
    node.stop();
    node.name = "node2".to_owned();
    node.start();
    let other = node.ready("web").await;
    assert_eq!(other.name, "web-node2");
    assert_ne!(other.uid, first.uid);
}

pub async fn b030_a_uid_in_the_manifest_is_kept(node: &mut Node) {
    node.start();
    let pod = Pod::new("web").own_network().metadata("uid", "my-own-uid-1");
    assert_eq!(node.up(&pod).await.uid, "my-own-uid-1");
    let sandbox = node.sandbox("web").await;
    assert_eq!(sandbox.name.uid, "my-own-uid-1");
    assert_eq!(sandbox.annotations["kubernetes.io/config.hash"], "my-own-uid-1");
}

pub async fn b031_the_namespace_is_default_or_the_manifests(node: &mut Node) {
    node.start();
    assert_eq!(node.up(&Pod::new("one")).await.namespace, "default");
    let system = node.up(&Pod::new("two").metadata("namespace", "kube-system")).await;
    assert_eq!(system.namespace, "kube-system");
    assert_eq!(node.look(id(&system)).name, format!("k8s_main_two-node1_kube-system_{}_0", system.uid));
}

pub async fn b033_the_pull_policy_follows_the_tag(node: &mut Node) {
    node.start();
    // All three are there; that one is pulled shows in a registry that nobody is at.
    node.run(&Pod::new("latest").main("image", LATEST));
    node.run(&Pod::new("bare").main("image", LATEST.trim_end_matches(":latest")));
    node.up(&Pod::new("tagged").main("image", IMAGE)).await;
    for name in ["latest", "bare"] {
        node.pod(name, "is pulled in vain", |pod| waits(pod).starts_with("ErrImagePull:")).await;
    }
    node.up(&Pod::new("kept").main("image", LATEST).main("imagePullPolicy", "IfNotPresent")).await;
}

pub async fn b034_references_to_the_apis_objects_are_refused(node: &mut Node) {
    let volume = |source: Value| json!([merge(json!({"name": "v"}), source)]);
    let template = json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    let refused = [
        ("account", "serviceAccountName", json!("builder")),
        ("pull-secret", "imagePullSecrets", json!([{"name": "s"}])),
        ("claims", "resourceClaims", json!([{"name": "c", "resourceClaimName": "r"}])),
        ("secret", "volumes", volume(json!({"secret": {"secretName": "s"}}))),
        ("config-map", "volumes", volume(json!({"configMap": {"name": "c"}}))),
        ("claim", "volumes", volume(json!({"persistentVolumeClaim": {"claimName": "c"}}))),
        ("ephemeral", "volumes", volume(json!({"ephemeral": {"volumeClaimTemplate": template}}))),
        ("trust", "volumes", volume(json!({"projected": {"sources": [{"clusterTrustBundle": {"path": "p"}}]}}))),
        ("token", "volumes", volume(json!({"projected": {"sources": [{"serviceAccountToken": {"path": "p"}}]}}))),
    ];
    for (name, field, value) in &refused {
        node.run(&Pod::new(name).spec(field, value.clone()));
    }
    let env = |source: &str| json!([{"name": "A", "valueFrom": {source: {"name": "n", "key": "k"}}}]);
    node.run(&Pod::new("env-secret").main("env", env("secretKeyRef")));
    node.run(&Pod::new("env-map").main("env", env("configMapKeyRef")));
    node.run(&Pod::new("env-from").main("envFrom", json!([{"configMapRef": {"name": "n"}}])));
    node.run(&Pod::new("good"));
    node.start();
    node.ready("good").await;
    let count = refused.len() + 3;
    let report = node.until("all are refused", |r| refusals(r).len() == count).await;
    for problem in refusals(&report) {
        assert!(problem.message.contains("may not reference"), "{problem:#?}");
    }
    assert_eq!(report.pods.len(), 1);
}

pub async fn b035_ephemeral_containers_are_refused(node: &mut Node) {
    node.run(&Pod::new("debug").spec("ephemeralContainers", json!([{"name": "e", "image": IMAGE}])));
    node.run(&Pod::new("good"));
    node.start();
    node.ready("good").await;
    let report = node.until("it is refused", |r| !refusals(r).is_empty()).await;
    assert!(refusals(&report)[0].message.contains("ephemeral containers"), "{:#?}", report.problems);
    assert_eq!(report.pods.len(), 1);
}

pub async fn b036_a_containers_own_restart_policy_overrides_the_pods(node: &mut Node) {
    let pod = Pod::new("web").spec("restartPolicy", "Never").container("again", "exit 1");
    node.start();
    node.run(&pod.of("containers", 1, "restartPolicy", "Always"));
    node.pod("web", "restarts the one container", |pod| {
        pod.containers.iter().any(|c| c.name == "again" && c.restarts == 1)
    })
    .await;
}

fn merge(mut left: Value, right: Value) -> Value {
    left.as_object_mut().unwrap().extend(right.as_object().unwrap().clone());
    left
}

pub async fn b032_a_files_pod_gets_the_kubelets_defaults(node: &mut Node) {
    let mut pod = Pod::new("web").own_network().main("image", "127.0.0.1:1/kubeboot/nothing:1").value();
    pod["spec"].as_object_mut().unwrap().remove("terminationGracePeriodSeconds");
    node.serve();
    node.write("web.yaml", pod.to_string());
    node.start();
    node.pod("web", "waits for its image", |pod| !waits(pod).is_empty()).await;
    let pod = node.pods().await.remove("web-node1").unwrap();
    let spec = &pod["spec"];
    assert_eq!(spec["tolerations"], json!([{"operator": "Exists", "effect": "NoExecute"}]));
    assert_eq!((&pod["status"]["phase"], &spec["restartPolicy"]), (&json!("Pending"), &json!("Always")));
    assert_eq!(spec["terminationGracePeriodSeconds"], json!(30));
    assert_eq!((&spec["dnsPolicy"], &spec["nodeName"]), (&json!("ClusterFirst"), &json!("node1")));
    let annotations = &pod["metadata"]["annotations"];
    assert_eq!(annotations["kubernetes.io/config.source"], json!("file"));
    assert_eq!(annotations["kubernetes.io/config.hash"], pod["metadata"]["uid"]);
}
