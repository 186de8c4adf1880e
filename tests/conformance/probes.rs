//! 59 to 66: probes. What they ask is a server in the test, which says what it was asked.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use kubeboot::agent::control::report::{HealthReport, PodReport, StateReport};
use kubeboot::testing::real::pod::Pod;
use kubeboot::testing::real::ports;
use serde_json::{Value, json};
use tonic_health::ServingStatus;

use crate::history::Action::Die;
use crate::node::Node;
use crate::reports::{container, id, restarts, runs};
use crate::serve::{self, Server, redirect, status};
use crate::signals::{self, KILLED};

/// A probe that asks each second and gives up at once.
fn quick(mut handler: Value) -> Value {
    for (field, value) in [("periodSeconds", 1), ("failureThreshold", 1)] {
        if handler.get(field).is_none() {
            handler[field] = json!(value);
        }
    }
    handler
}

fn get(port: u16, path: &str) -> Value {
    quick(json!({"httpGet": {"host": "127.0.0.1", "port": port, "path": path}}))
}

fn exec(script: &str) -> Value {
    quick(json!({"exec": {"command": ["sh", "-c", script]}}))
}

fn with(mut probe: Value, field: &str, value: u32) -> Value {
    probe[field] = json!(value);
    probe
}

pub async fn b059_each_kind_of_failing_liveness_probe_restarts(node: &mut Node) {
    let server = Server::http(|_| status(500)).await;
    let (grpc, health) = serve::grpc().await;
    health.set_service_status("", ServingStatus::NotServing).await;
    let closed = ports::free();
    let handlers = [
        ("exec", exec("false")),
        ("http", get(server.port, "/livez")),
        ("tcp", quick(json!({"tcpSocket": {"host": "127.0.0.1", "port": closed}}))),
        ("grpc", quick(json!({"grpc": {"port": grpc}}))),
    ];
    node.start();
    for (name, probe) in &handlers {
        node.run(&Pod::new(name).main("livenessProbe", with(probe.clone(), "failureThreshold", 2)));
    }
    let counts: RefCell<BTreeMap<String, u32>> = RefCell::default();
    let all_twice = |r: &HealthReport| {
        let mut counts = counts.borrow_mut();
        for pod in r.pods.iter().filter(|pod| !pod.containers.is_empty()) {
            let before = counts.insert(pod.name.clone(), restarts(pod)).unwrap_or(0);
            assert!(restarts(pod) >= before, "restartCount fell from {before}: {pod:#?}");
        }
        counts.len() == handlers.len() && counts.values().all(|count| *count >= 2)
    };
    let report = node.until("all are restarted twice", all_twice).await;
    for pod in &report.pods {
        let last = container(pod, "main").last_termination.as_ref().unwrap();
        assert!(last.message.contains("Liveness probe failed"), "{last:#?}");
    }
}

pub async fn b060_success_and_foreign_redirects_restart_nothing(node: &mut Node) {
    let server = Server::http(|path| match path {
        "/foreign" => redirect("http://elsewhere.invalid/livez"),
        "/local" => redirect("/sick"),
        "/good" => redirect("/well"),
        "/sick" => status(500),
        _ => status(200),
    })
    .await;
    node.start();
    for name in ["well", "good", "foreign", "local"] {
        node.run(&Pod::new(name).main("livenessProbe", get(server.port, &format!("/{name}"))));
    }
    node.pod("local", "is restarted", |pod| restarts(pod) >= 1).await;
    let several = || {
        let asked = ["/well", "/good", "/foreign"].iter().all(|path| server.count(path) >= 5);
        std::future::ready(asked.then_some(()))
    };
    node.eventually("the others are asked often", several).await;
    for name in ["well", "good", "foreign"] {
        let pod = node.ready(name).await;
        assert_eq!(restarts(&pod), 0, "{pod:#?}");
    }
}

pub async fn b061_an_exec_probe_that_takes_too_long_fails(node: &mut Node) {
    node.start();
    let slow = |limit| with(exec("sleep 3"), "timeoutSeconds", limit);
    node.run(&Pod::new("late").main("livenessProbe", slow(1)));
    node.run(&Pod::new("timely").main("livenessProbe", slow(30)));
    let late = node.pod("late", "is restarted", |pod| restarts(pod) >= 1).await;
    let last = container(&late, "main").last_termination.as_ref().unwrap();
    assert!(last.message.contains("Liveness probe failed"), "{last:#?}");
    let timely = node.pod("timely", "has answered", |pod| pod.healthy).await;
    assert_eq!(restarts(&timely), 0);
}

pub async fn b062_liveness_waits_for_the_startup_probe(node: &mut Node) {
    let open = Arc::new(AtomicBool::new(false));
    let is_open = Arc::clone(&open);
    let server = Server::http(move |path| match path {
        "/startup" if is_open.load(Ordering::Relaxed) => status(200),
        _ => status(500),
    })
    .await;
    node.start();
    let startup = with(get(server.port, "/startup"), "failureThreshold", 100);
    node.run(&Pod::new("web").main("startupProbe", startup).main("livenessProbe", get(server.port, "/livez")));
    node.run(&Pod::new("never").main("startupProbe", with(get(server.port, "/never"), "failureThreshold", 2)));
    let asked = || std::future::ready((server.count("/startup") >= 5).then_some(()));
    node.eventually("the startup probe has failed a few times", asked).await;
    let web = node.pod("web", "runs", |pod| runs(pod, "main")).await;
    assert_eq!((restarts(&web), container(&web, "main").started, server.count("/livez")), (0, false, 0));
    let never = node.pod("never", "is restarted", |pod| restarts(pod) >= 1).await;
    let last = container(&never, "main").last_termination.as_ref().unwrap();
    assert!(last.message.contains("Startup probe failed"), "{last:#?}");
    open.store(true, Ordering::Relaxed);
    let web = node.pod("web", "is restarted", |pod| restarts(pod) >= 1).await;
    let last = container(&web, "main").last_termination.as_ref().unwrap();
    assert!(last.message.contains("Liveness probe failed"), "{last:#?}");
}

pub async fn b063_a_readiness_probe_waits_for_its_initial_delay_and_never_restarts(node: &mut Node) {
    let server = Server::http(|path| status(if path == "/readyz" { 200 } else { 500 })).await;
    node.start();
    let delay = 6;
    node.run(&Pod::new("web").main("readinessProbe", with(get(server.port, "/readyz"), "initialDelaySeconds", delay)));
    node.run(&Pod::new("never").main("readinessProbe", get(server.port, "/never")));
    let web = node.ready("web").await;
    let StateReport::Running { started_at } = container(&web, "main").state else { panic!("{web:#?}") };
    let after = Timestamp::now().duration_since(started_at).as_secs_f64();
    // The delay counts in whole seconds.
    assert!(after >= f64::from(delay) - 1.0, "ready {after} s after its start");
    let asked = || std::future::ready((server.count("/never") >= 5).then_some(()));
    node.eventually("the other one has failed often", asked).await;
    let never = node.pod("never", "runs", |pod| runs(pod, "main")).await;
    assert_eq!((restarts(&never), never.ready), (0, false));
}

pub async fn b064_a_probes_own_grace_overrides_the_pods(node: &mut Node) {
    node.record().await;
    node.start();
    // It fails once there is what it asks for, and passes for the successor.
    let probe = with(exec("! test -e /told/heeds || test -e /told/signals"), "terminationGracePeriodSeconds", 3);
    let web = Pod::new("web").spec("terminationGracePeriodSeconds", 50).main("livenessProbe", probe);
    node.run(&signals::noting(node, web));
    node.pod("web", "is restarted", |pod| restarts(pod) == 1).await;
    let history = node.history().await;
    let died = history.each(Die, "main").remove(0);
    let gap = died.at - signals::asked(node);
    let range = Duration::from_millis(2800)..Duration::from_secs(20);
    assert!(died.code == KILLED && range.contains(&gap), "{gap:?}: {history:#?}");
}

pub async fn b065_an_https_probe_takes_a_self_signed_certificate(node: &mut Node) {
    let server = Server::https(|_| status(200)).await;
    let handler = json!({"host": "127.0.0.1", "port": server.port, "path": "/readyz", "scheme": "HTTPS"});
    node.start();
    node.up(&Pod::new("web").main("readinessProbe", quick(json!({"httpGet": handler})))).await;
    for request in server.seen() {
        let agent = request.headers["user-agent"].to_str().unwrap();
        assert!(agent.starts_with("kube-probe/") && request.path == "/readyz", "{request:?}");
    }
}

pub async fn b066_a_terminating_pod_turns_not_ready_and_is_not_asked_whether_it_lives(node: &mut Node) {
    let server = Server::http(|_| status(200)).await;
    fs::create_dir(node.path("share")).unwrap();
    let script = "touch /share/ready; trap 'rm /share/ready' TERM; while :; do sleep 1 & wait $!; done";
    let pod = Pod::new("web").script(script).spec("terminationGracePeriodSeconds", 8);
    let pod =
        pod.main("readinessProbe", exec("test -e /share/ready")).main("livenessProbe", get(server.port, "/livez"));
    node.start();
    let web = node.up(&pod.mount("share", &node.path("share"))).await;
    let asked = || std::future::ready((server.count("/livez") >= 2).then_some(()));
    node.eventually("it is asked whether it lives", asked).await;
    node.delete("web.yaml");
    let unready = |pod: &PodReport| pod.terminating && !pod.ready && runs(pod, "main");
    let ending = node.pod("web", "runs on and is not ready", unready).await;
    assert_eq!(id(&ending), id(&web));
    let asked = server.count("/livez");
    node.empty().await;
    assert_eq!(server.count("/livez"), asked, "seconds of grace, and a probe each second");
}
