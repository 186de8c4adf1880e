//! 21 to 27: manifests from a URL, which is served by the test.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Response;
use kubeboot::agent::control::report::HealthReport;
use kubeboot::testing::real::pod::Pod;
use serde_json::{Value, json};

use crate::history::Action::Create;
use crate::node::Node;
use crate::reports::id;
use crate::serve::{Server, status};

/// What the URL answers at the moment; None is no answer at all.
type Answer = Arc<Mutex<Option<Response<String>>>>;

fn ok(body: impl Into<String>) -> Option<Response<String>> {
    Some(Response::new(body.into()))
}

fn list(pods: &[Pod]) -> Value {
    let items: Vec<Value> = pods.iter().map(Pod::value).collect();
    json!({"apiVersion": "v1", "kind": "PodList", "items": items})
}

/// Has the node read a URL often that answers as told.
async fn at_url(node: &mut Node, first: Option<Response<String>>) -> (Server, Answer) {
    let answer: Answer = Arc::new(Mutex::new(first));
    let now = Arc::clone(&answer);
    let server = Server::silent(move |_| now.lock().unwrap().clone()).await;
    node.flags.extend(["--manifest-url".to_owned(), url(&server)]);
    node.config.push("httpCheckFrequency: 300ms".to_owned());
    (server, answer)
}

fn url(server: &Server) -> String {
    format!("http://127.0.0.1:{}/pods", server.port)
}

async fn asked_again(node: &Node, server: &Server, times: usize) {
    let before = server.seen().len();
    let asked = || std::future::ready((server.seen().len() >= before + times).then_some(()));
    node.eventually("the URL is asked again", asked).await;
}

fn is_told(report: &HealthReport, server: &Server) -> bool {
    report.problems.iter().any(|problem| problem.subject.starts_with(&url(server)))
}

pub async fn b021_a_pod_of_a_url_runs_as_one_of_http(node: &mut Node) {
    at_url(node, ok(Pod::new("web").own_network().yaml())).await;
    node.serve();
    node.run(&Pod::new("file"));
    node.start();
    node.ready("web").await;
    node.ready("file").await;
    let pods = node.pods().await;
    let source = |name: &str| pods[name]["metadata"]["annotations"]["kubernetes.io/config.source"].clone();
    assert_eq!((source("web-node1"), source("file-node1")), (json!("http"), json!("file")));
    let tolerations = |name: &str| pods[name]["spec"]["tolerations"].to_string();
    assert!(!tolerations("web-node1").contains("NoExecute") && tolerations("file-node1").contains("NoExecute"));
    assert_eq!(node.sandbox("web").await.annotations["kubernetes.io/config.source"], "http");
}

pub async fn b022_every_pod_of_a_list_runs(node: &mut Node) {
    at_url(node, ok(list(&[Pod::new("one"), Pod::new("two"), Pod::new("three")]).to_string())).await;
    node.start();
    for name in ["one", "two", "three"] {
        node.ready(name).await;
    }
}

pub async fn b023_headers_are_sent_with_all_their_values(node: &mut Node) {
    let (server, _) = at_url(node, ok(Pod::new("web").yaml())).await;
    node.config.push("staticPodURLHeader: {X-Rack: [one, two], X-Room: [three]}".to_owned());
    node.start();
    node.ready("web").await;
    for request in server.seen() {
        let values = |name| request.headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect::<Vec<_>>();
        assert_eq!((values("x-rack"), values("x-room")), (vec!["one", "two"], vec!["three"]));
    }
}

pub async fn b024_errors_of_the_url_keep_its_pods(node: &mut Node) {
    let (server, answer) = at_url(node, ok(Pod::new("web").yaml())).await;
    node.start();
    let web = node.ready("web").await;
    let kept = |r: &HealthReport| r.pods.len() == 1 && id(&r.pods[0]) == id(&web) && r.pods[0].ready;
    for failing in [Some(status(404)), Some(status(500)), None] {
        *answer.lock().unwrap() = failing;
        let report = node.until("it is told", |r| is_told(r, &server)).await;
        assert!(kept(&report), "{report:#?}");
        *answer.lock().unwrap() = ok(Pod::new("web").yaml());
        node.until("it is well again", |r| !is_told(r, &server)).await;
    }
    server.close();
    node.until("it is told", |r| is_told(r, &server)).await;
    node.all_along(Duration::from_secs(1), "it stays", kept).await;
}

pub async fn b025_an_empty_body_ends_the_urls_pods(node: &mut Node) {
    let (_, answer) = at_url(node, ok(Pod::new("web").yaml())).await;
    node.start();
    node.ready("web").await;
    let file = node.up(&Pod::new("file")).await;
    *answer.lock().unwrap() = ok("");
    let report = node.until("the URL's pod is gone", |r| r.pods.len() == 1).await;
    assert_eq!(id(&report.pods[0]), id(&file));
}

pub async fn b026_an_invalid_body_is_refused_whole(node: &mut Node) {
    let (server, answer) = at_url(node, ok(Pod::new("web").yaml())).await;
    node.start();
    let web = node.ready("web").await;
    let volumes = |names: &[&str]| json!(names.iter().map(|n| json!({"name": n, "emptyDir": {}})).collect::<Vec<_>>());
    let mut version = Pod::new("web").value();
    version["apiVersion"] = json!("v2");
    let invalid = [
        version,
        Pod::new("web").spec("volumes", volumes(&["No_Name"])).value(),
        Pod::new("web").spec("volumes", volumes(&["twice", "twice"])).value(),
        Pod::new("web").main("name", "No_Name").value(),
        list(&[Pod::new("good"), Pod::new("bad").main("name", "No_Name")]),
    ];
    for body in invalid {
        *answer.lock().unwrap() = ok(body.to_string());
        let report = node.until(&format!("it is refused: {body}"), |r| is_told(r, &server)).await;
        assert_eq!(report.pods.iter().map(id).collect::<Vec<_>>(), [id(&web)], "{report:#?}");
        *answer.lock().unwrap() = ok(Pod::new("web").yaml());
        node.until("it is well again", |r| !is_told(r, &server)).await;
    }
    assert_eq!(id(&node.ready("web").await), id(&web));
}

pub async fn b027_an_unchanged_body_changes_nothing(node: &mut Node) {
    node.record().await;
    let (server, _) = at_url(node, ok(Pod::new("web").yaml())).await;
    node.start();
    let web = node.ready("web").await;
    let before = node.until("it is settled", |r| r.agent.synced).await;
    asked_again(node, &server, 5).await;
    let after = node.until("it is told", |_| true).await;
    assert_eq!((after.pods.as_slice(), after.sequence), ([web].as_slice(), before.sequence));
    assert_eq!(node.history().await.each(Create, "main").len(), 1);
}
