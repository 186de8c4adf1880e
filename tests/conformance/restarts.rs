//! 54 to 58: restart policies, back-off, init containers and sidecars.

use std::fs;
use std::time::Duration;

use kubeboot::agent::control::report::{Phase, PodReport, StateReport};
use kubeboot::testing::real::image::FOREVER;
use kubeboot::testing::real::pod::Pod;
use serde_json::json;

use crate::history::Action::{Create, Die, Start};
use crate::node::Node;
use crate::reports::{container, ended, restarts, runs, waits};

pub async fn b054_a_crashing_container_is_started_after_0_10_and_20_seconds(node: &mut Node) {
    node.record().await;
    node.start();
    node.run(&Pod::new("web").script("exit 1"));
    node.pod("web", "backs off", |pod| waits(pod).starts_with("CrashLoopBackOff:")).await;
    let thrice = |pod: &PodReport| restarts(pod) == 3 && waits(pod).starts_with("CrashLoopBackOff:");
    let web = node.pod("web", "was restarted three times", thrice).await;
    assert_eq!(web.phase, Phase::Running);
    assert_eq!(container(&web, "main").last_termination.as_ref().map(|last| last.exit_code), Some(1));
    let history = node.history().await;
    let (starts, deaths) = (history.each(Start, "main"), history.each(Die, "main"));
    let gaps: Vec<f64> = starts[1..].iter().zip(&deaths).map(|(s, d)| (s.at - d.at).as_secs_f64()).collect();
    let wanted = [0.0, 10.0, 20.0];
    assert_eq!(gaps.len(), wanted.len(), "{gaps:?}");
    for (gap, wanted) in gaps.iter().zip(wanted) {
        // The next step is ten seconds away: a busy machine may take half of that to start one.
        assert!((wanted - 0.5..wanted + 5.0).contains(gap), "{gaps:?}");
    }
}

pub async fn b056_a_pod_that_has_ended_is_succeeded_or_failed(node: &mut Node) {
    node.record().await;
    node.start();
    node.run(&Pod::new("well").spec("restartPolicy", "OnFailure").script("exit 0"));
    node.run(&Pod::new("badly").spec("restartPolicy", "Never").script("exit 1"));
    let well = node.pod("well", "has succeeded", |pod| pod.phase == Phase::Succeeded).await;
    let badly = node.pod("badly", "has failed", |pod| pod.phase == Phase::Failed).await;
    assert_eq!(ended(&well, "main").unwrap().reason, "Completed");
    assert_eq!(
        (ended(&badly, "main").unwrap().reason.as_str(), ended(&badly, "main").unwrap().exit_code),
        ("Error", 1)
    );
    // A first restart would come at once: the next pod, from its manifest to its container, takes longer.
    node.up(&Pod::new("later")).await;
    assert_eq!(node.history().await.each(Start, "main").len(), 3);
}

pub async fn b057_a_failing_init_container_holds_the_main_ones_back(node: &mut Node) {
    node.record().await;
    node.start();
    node.run(&Pod::new("again").init("first", "exit 1"));
    node.run(&Pod::new("once").init("first", "exit 1").spec("restartPolicy", "Never"));
    let retried = |pod: &PodReport| container(pod, "first").restarts >= 2;
    let again = node.pod("again", "is retried", retried).await;
    assert_eq!((again.phase, waits(&again).as_str()), (Phase::Pending, "PodInitializing: "));
    let once = node.pod("once", "has failed", |pod| pod.phase == Phase::Failed).await;
    assert_eq!(container(&once, "first").restarts, 0);
    assert!(node.history().await.each(Create, "main").is_empty());
}

pub async fn b058_the_container_after_a_sidecar_waits_for_its_startup_probe(node: &mut Node) {
    fs::create_dir(node.path("share")).unwrap();
    let probe = json!({"exec": {"command": ["test", "-e", "/share/open"]}, "periodSeconds": 1, "failureThreshold": 60});
    let pod = Pod::new("web").sidecar("side", FOREVER).of("initContainers", 0, "startupProbe", probe);
    node.start();
    node.run(&pod.init("second", "echo ran > /share/second").mount("share", &node.path("share")));
    let told = |pod: &PodReport| runs(pod, "side") && container(pod, "side").probe_message.is_some();
    node.pod("web", "runs its sidecar and has asked it in vain", told).await;
    let held = |pod: &PodReport| {
        let waits = |name| matches!(container(pod, name).state, StateReport::Waiting { .. });
        pod.phase == Phase::Pending && waits("second") && waits("main") && !container(pod, "side").started
    };
    node.all_along(Duration::from_secs(2), "they wait", |r| r.pods.iter().all(held)).await;
    assert!(!node.path("share/second").exists());
    fs::File::create(node.path("share/open")).unwrap();
    let web = node.ready("web").await;
    assert!(container(&web, "side").started && runs(&web, "side"));
    node.file_says("share/second", "ran").await;
}
