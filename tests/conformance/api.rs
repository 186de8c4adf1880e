//! 52, 53 and 78 to 86: what has to do with an API server, as far as an agent without one goes, and the kubelet's
//! paths.

use std::time::Duration;

use kubeboot::agent::control::report::HealthReport;
use kubeboot::testing::real::command::put;
use kubeboot::testing::real::pod::Pod;
use kubeboot::testing::real::ports;
use serde_json::json;

use crate::node::Node;
use crate::reports::{id, restarts};
use crate::serve::{Server, status};

/// Gives the agent a kubeconfig of an API server at a port.
pub fn kubeconfig(node: &mut Node, port: u16) {
    let path = node.path("kubelet.conf");
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "node",
        "clusters": [{"name": "c", "cluster": {"server": format!("http://127.0.0.1:{port}")}}],
        "users": [{"name": "node", "user": {"token": "t"}}],
        "contexts": [{"name": "node", "context": {"cluster": "c", "user": "node"}}],
    });
    put(&path, config.to_string().as_bytes());
    node.flags.extend(["--kubeconfig".to_owned(), path.display().to_string(), "--port=0".to_owned()]);
}

pub async fn b052_without_its_api_server_the_agent_replaces_pods_as_ever(node: &mut Node) {
    kubeconfig(node, ports::free());
    node.start();
    let old = node.up(&Pod::new("web").env("A", "one")).await;
    node.up(&Pod::new("other")).await;
    node.run(&Pod::new("web").env("A", "two"));
    node.pod("web", "is replaced", |pod| pod.ready && pod.uid != old.uid).await;
    node.delete("other.yaml");
    node.until("the removed pod is gone", |r| r.pods.len() == 1).await;
}

pub async fn b053_a_restarted_agent_acts_without_its_api_server(node: &mut Node) {
    kubeconfig(node, ports::free());
    node.start();
    let old = node.up(&Pod::new("web").env("A", "one")).await;
    node.up(&Pod::new("later")).await;
    node.up(&Pod::new("gone")).await;
    node.kill();
    node.delete("gone.yaml");
    node.start();
    node.ready("web").await;
    node.run(&Pod::new("web").env("A", "two"));
    node.pod("web", "is replaced", |pod| pod.ready && pod.uid != old.uid).await;
    node.delete("later.yaml");
    node.until("the removed pods are gone", |r| r.agent.synced && r.pods.len() == 1).await;
    assert_eq!(node.containers().await.len(), 1);
}

pub async fn b082_a_pod_runs_without_a_node_and_a_namespace(node: &mut Node) {
    let server = Server::http(|_| status(404)).await;
    kubeconfig(node, server.port);
    node.start();
    let web = node.up(&Pod::new("web").metadata("namespace", "nowhere")).await;
    assert_eq!(web.namespace, "nowhere");
}

pub async fn b083_an_api_server_that_comes_and_goes_restarts_nothing(node: &mut Node) {
    let server = Server::http(|_| status(200)).await;
    kubeconfig(node, server.port);
    node.start();
    let web = node.up(&Pod::new("web")).await;
    server.close();
    node.all_along(Duration::from_secs(2), "it stays", |r| r.pods.len() == 1 && id(&r.pods[0]) == id(&web)).await;
    let other = node.up(&Pod::new("other")).await;
    assert_eq!((restarts(&other), restarts(&node.ready("web").await)), (0, 0));
}

pub async fn b085_healthz_answers_ok_to_everyone(node: &mut Node) {
    let port = ports::free();
    node.flags.push(format!("--healthz-port={port}"));
    node.start();
    let answer = node.eventually("/healthz is served", || std::future::ready(ports::get(port, "/healthz"))).await;
    assert_eq!(answer, (200, "ok".to_owned()));
}

pub async fn b086_pods_lists_live_statuses_until_the_manifest_is_gone(node: &mut Node) {
    node.serve();
    node.start();
    let web = node.up(&Pod::new("web")).await;
    let pods = node.pods().await;
    let pod = &pods["web-node1"];
    assert_eq!((&pod["metadata"]["uid"], &pod["status"]["phase"]), (&json!(web.uid), &json!("Running")));
    let status = &pod["status"]["containerStatuses"][0];
    assert_eq!(status["containerID"], json!(node.reference(id(&web))));
    assert_eq!((&status["ready"], &status["restartCount"]), (&json!(true), &json!(0)));
    node.kill_container(id(&web));
    node.pod("web", "is restarted", |pod| pod.ready && restarts(pod) == 1).await;
    let restarted = &node.pods().await["web-node1"]["status"]["containerStatuses"][0];
    assert_eq!((&restarted["restartCount"], &restarted["ready"]), (&json!(1), &json!(true)));
    assert_eq!(restarted["lastState"]["terminated"]["exitCode"], json!(137));
    node.delete("web.yaml");
    node.until("it is gone", |r: &HealthReport| r.pods.is_empty()).await;
    assert!(node.pods().await.is_empty());
}
