//! 87 to 91, 129 and 131: what is told of pods and containers that end.

use std::fs;
use std::time::{Duration, Instant};

use kubeboot::agent::control::report::{Phase, PodReport};
use kubeboot::testing::real::command::put;
use kubeboot::testing::real::image::FOREVER;
use kubeboot::testing::real::pod::Pod;
use serde_json::{Value, json};

use crate::node::Node;
use crate::reports::{container, ended, id, restarts, runs};

/// Works on for two seconds at SIGTERM, leaves a message, and ends with 7.
const WORKS: &str =
    "trap 'sleep 2; echo done > /dev/termination-log; exit 7' TERM; while :; do sleep 1000 & wait $!; done";

/// The API's status of a container of the pod `web`.
async fn status(node: &Node, list: &str) -> Value {
    node.pods().await["web-node1"]["status"][list][0].clone()
}

pub async fn b087_a_pod_runs_until_its_sidecars_have_ended(node: &mut Node) {
    node.serve();
    node.start();
    let pod = Pod::new("web").spec("restartPolicy", "Never").sidecar("side", WORKS);
    node.run(&pod.script("sleep 1"));
    let works = |pod: &PodReport| ended(pod, "main").is_some() && runs(pod, "side");
    let working = node.pod("web", "has ended but for its sidecar", works).await;
    assert_eq!(working.phase, Phase::Running);
    let over = node.pod("web", "has ended", |pod| pod.phase != Phase::Running).await;
    assert_eq!((over.phase, ended(&over, "side").unwrap().exit_code), (Phase::Succeeded, 7));
    let end = &status(node, "initContainerStatuses").await["state"]["terminated"];
    assert_eq!((&end["exitCode"], &end["message"]), (&json!(7), &json!("done\n")));
}

pub async fn b088_a_pod_whose_time_is_over_runs_until_its_containers_have_ended(node: &mut Node) {
    node.serve();
    node.start();
    node.run(&Pod::new("web").spec("activeDeadlineSeconds", 3).script(WORKS));
    let begun = Instant::now();
    let over = node.pod("web", "is over", |pod| pod.phase == Phase::Failed).await;
    assert!(begun.elapsed() >= Duration::from_secs(4), "after {:?}", begun.elapsed());
    assert_eq!(ended(&over, "main").unwrap().exit_code, 7);
    let pod = &node.pods().await["web-node1"]["status"];
    assert_eq!(pod["reason"], "DeadlineExceeded");
    assert_eq!(pod["containerStatuses"][0]["state"]["terminated"]["message"], "done\n");
}

pub async fn b089_what_its_probe_condemns_is_started_again_whatever_it_ends_with(node: &mut Node) {
    node.start();
    let probe = json!({"exec": {"command": ["test", "-e", "/share/well"]}, "periodSeconds": 1, "failureThreshold": 1});
    let pod = Pod::new("web").spec("restartPolicy", "OnFailure").main("livenessProbe", probe);
    fs::create_dir(node.path("share")).unwrap();
    put(&node.path("share/well"), b"");
    let web = node.up(&pod.script(FOREVER).mount("share", &node.path("share"))).await;
    fs::remove_file(node.path("share/well")).unwrap();
    let again = node.pod("web", "is started again", |pod| restarts(pod) == 1).await;
    let last = container(&again, "main").last_termination.clone().unwrap();
    assert_eq!((last.exit_code, container(&again, "main").id != Some(id(&web).to_owned())), (0, true), "{last:?}");
}

pub async fn b090_a_ready_pod_stays_ready_under_the_next_agent_until_its_probe_says_otherwise(node: &mut Node) {
    let probe = json!({"exec": {"command": ["test", "-e", "/share/well"]}, "periodSeconds": 1, "failureThreshold": 5});
    fs::create_dir(node.path("share")).unwrap();
    put(&node.path("share/well"), b"");
    node.start();
    let web = node.up(&Pod::new("web").main("readinessProbe", probe).mount("share", &node.path("share"))).await;
    // What it says is written down a moment after it is told.
    let mark = node.root().join("pods").join(&web.uid).join("containers/main/ready");
    node.eventually("it is remembered", || std::future::ready(mark.exists().then_some(()))).await;
    node.kill();
    fs::remove_file(node.path("share/well")).unwrap();
    node.start();
    let found = node.pod("web", "is found", |pod| runs(pod, "main")).await;
    assert_eq!((found.ready, id(&found)), (true, id(&web)));
    node.pod("web", "is not ready any more", |pod| !pod.ready).await;
}

pub async fn b091_a_message_from_the_log_is_the_log(node: &mut Node) {
    node.serve();
    node.start();
    let pod = Pod::new("web").spec("restartPolicy", "Never").main("terminationMessagePolicy", "FallbackToLogsOnError");
    node.run(&pod.script("printf 'one\\ntwo'; exit 1"));
    node.pod("web", "has failed", |pod| pod.phase == Phase::Failed).await;
    let told = status(node, "containerStatuses").await["state"]["terminated"]["message"].clone();
    assert_eq!(told, "one\ntwo");
}

pub async fn b129_what_a_probe_condemned_is_started_again_by_the_next_agent(node: &mut Node) {
    let probe = json!({"exec": {"command": ["test", "-e", "/share/well"]}, "periodSeconds": 1, "failureThreshold": 1});
    let works_on = "trap 'touch /share/stops; sleep 2; exit 0' TERM; while :; do sleep 1000 & wait $!; done";
    fs::create_dir(node.path("share")).unwrap();
    put(&node.path("share/well"), b"");
    node.start();
    let pod = Pod::new("web").spec("restartPolicy", "OnFailure").main("livenessProbe", probe);
    let web = node.up(&pod.script(works_on).mount("share", &node.path("share"))).await;
    fs::remove_file(node.path("share/well")).unwrap();
    node.file_says("share/stops", "").await;
    node.kill();
    put(&node.path("share/well"), b"");
    node.eventually("it has ended", || async {
        let all = node.all().await;
        all.iter().any(|one| one.id == id(&web) && !one.state.is_running()).then_some(())
    })
    .await;
    node.start();
    let again = node.pod("web", "is started again", |pod| restarts(pod) == 1 && pod.ready).await;
    let last = container(&again, "main").last_termination.clone().unwrap();
    assert_eq!((last.exit_code, again.phase), (0, Phase::Running), "{last:?}");
}

pub async fn b131_what_has_started_stays_so_under_the_next_agent(node: &mut Node) {
    let asks = |file: &str| json!({"exec": {"command": ["test", "-e", format!("/share/{file}")]}, "periodSeconds": 1, "failureThreshold": 3});
    fs::create_dir(node.path("share")).unwrap();
    put(&node.path("share/starts"), b"");
    put(&node.path("share/well"), b"");
    node.start();
    let pod = Pod::new("web").main("startupProbe", asks("starts")).main("readinessProbe", asks("well"));
    let web = node.up(&pod.mount("share", &node.path("share"))).await;
    let marks = node.root().join("pods").join(&web.uid).join("containers/main");
    let remembered =
        || std::future::ready((marks.join("started").exists() && marks.join("ready").exists()).then_some(()));
    node.eventually("it is remembered", remembered).await;
    node.kill();
    fs::remove_file(node.path("share/starts")).unwrap();
    node.start();
    let found = node.pod("web", "is found", |pod| runs(pod, "main")).await;
    assert_eq!((container(&found, "main").started, found.ready, id(&found)), (true, true, id(&web)));
    // Its startup probe is not asked again, or it would be restarted by now.
    let stays = |pod: &PodReport| container(pod, "main").started && pod.ready && id(pod) == id(&web);
    let all = |report: &kubeboot::agent::control::report::HealthReport| report.pods.iter().all(stays);
    node.all_along(Duration::from_secs(5), "it stays started and ready", all).await;
}
