//! 37 to 53: how pods end, come back and are taken over.

use std::fs;
use std::time::{Duration, Instant};

use kubeboot::agent::control::report::HealthReport;
use kubeboot::testing::real::daemon::Daemon;
use kubeboot::testing::real::image::{FOREVER, STUBBORN};
use kubeboot::testing::real::pod::Pod;
use kubeboot::testing::real::ports;
use kubeboot::testing::real::wait::LIMIT;
use serde_json::json;

use crate::history::Action::{Create, Die, Start};
use crate::node::Node;
use crate::reports::{ended, id, id_of, restarts, runs};
use crate::signals::{self, KILLED};

/// A grace period that is waited for, and what is sure to have passed of it: the two clocks differ by a little.
const GRACE: u64 = 20;
const NEARLY: Duration = Duration::from_secs(GRACE - 1);

fn stubborn() -> Pod {
    Pod::new("web").script(STUBBORN).spec("terminationGracePeriodSeconds", GRACE)
}

fn gone(report: &HealthReport) -> bool {
    report.agent.synced && report.pods.is_empty()
}

pub async fn b037_a_deleted_pod_keeps_its_grace_period(node: &mut Node) {
    node.record().await;
    node.start();
    let web = node.up(&signals::noting(node, stubborn())).await;
    signals::heeds(node).await;
    node.delete("web.yaml");
    let asked = Instant::now();
    node.until("it is being ended", |r| r.pods.iter().any(|pod| pod.terminating)).await;
    let grace = Duration::from_secs(GRACE);
    node.until_within(LIMIT + grace, "it is gone", gone).await;
    assert!(asked.elapsed() >= NEARLY, "gone after {:?}", asked.elapsed());
    let died = node.history().await.one(Die, id(&web));
    let told = signals::asked(node);
    assert!(died.code == KILLED && died.at - told >= NEARLY, "asked at {told:?}: {died:?}");
    node.has_nothing();
}

pub async fn b038_an_edited_pod_keeps_its_grace_period_before_its_successor_starts(node: &mut Node) {
    node.record().await;
    node.start();
    let old = node.up(&signals::noting(node, stubborn())).await;
    signals::heeds(node).await;
    node.run(&stubborn().script(FOREVER).env("VERSION", "2"));
    let limit = LIMIT + Duration::from_secs(GRACE);
    let next = |r: &HealthReport| r.pods.iter().any(|pod| pod.ready && pod.uid != old.uid);
    let report = node.until_within(limit, "the successor is ready", next).await;
    let new = report.pods.iter().find(|pod| pod.uid != old.uid).unwrap();
    let history = node.history().await;
    let (told, died) = (signals::asked(node), history.one(Die, id(&old)));
    assert!(died.code == KILLED && died.at - told >= NEARLY, "asked at {told:?}: {died:?}");
    assert!(history.one(Start, id(new)).at > died.at, "{history:#?}");
}

pub async fn b039_of_300_edits_during_a_termination_the_last_runs(node: &mut Node) {
    node.record().await;
    node.start();
    let pod = |version: u32| Pod::new("web").env("VERSION", &version.to_string());
    let old = node.up(&pod(0).script(STUBBORN)).await;
    for version in 1..=300 {
        node.run(&pod(version));
    }
    let new = node.pod("web", "is another pod", |pod| pod.ready && pod.uid != old.uid).await;
    let env = node.look(id(&new)).env;
    assert!(env.contains(&"VERSION=300".to_owned()), "{env:?}");
    assert_eq!(node.history().await.each(Create, "main").len(), 2);
}

pub async fn b040_a_manifest_put_back_identically_runs_again(node: &mut Node) {
    node.start();
    let old = node.up(&Pod::new("web").script(STUBBORN)).await;
    node.delete("web.yaml");
    node.until("it is being ended", |r| r.pods.iter().any(|pod| pod.terminating)).await;
    node.run(&Pod::new("web").script(STUBBORN));
    let again =
        |pod: &kubeboot::agent::control::report::PodReport| pod.ready && !pod.terminating && id(pod) != id(&old);
    let new = node.pod("web", "runs again", again).await;
    assert_eq!((&new.uid, restarts(&new)), (&old.uid, 1));
    let stays = |r: &HealthReport| r.pods.len() == 1 && r.pods[0].ready && id(&r.pods[0]) == id(&new);
    node.all_along(Duration::from_secs(30), "it stays", stays).await;
}

pub async fn b041_a_renamed_container_takes_the_port_over_without_a_clash(node: &mut Node) {
    let port = ports::free();
    let serve = format!("exec httpd -f -p 127.0.0.1:{port}");
    let probe = json!({"tcpSocket": {"host": "127.0.0.1", "port": port}, "periodSeconds": 1});
    let pod = |name: &str| {
        let pod = Pod::new("web").main("name", name).script(&serve).main("readinessProbe", probe.clone());
        pod.main("ports", json!([{"containerPort": port}]))
    };
    node.record().await;
    node.start();
    let old = node.up(&pod("before")).await;
    node.run(&pod("after"));
    let new = node.pod("web", "is ready under its new name", |pod| pod.ready && pod.uid != old.uid).await;
    assert_eq!(new.containers.iter().map(|c| (c.name.as_str(), c.restarts)).collect::<Vec<_>>(), [("after", 0)]);
    assert_eq!(node.history().await.each(Start, "after").len(), 1, "a clash would have ended the first instance");
}

pub async fn b043_a_killed_agent_leaves_containers_and_restart_counts_alone(node: &mut Node) {
    node.record().await;
    node.start();
    node.up(&Pod::new("pair").own_network().container("second", FOREVER)).await;
    let web = node.up(&Pod::new("web")).await;
    node.kill_container(id(&web));
    node.pod("web", "is restarted", |pod| pod.ready && restarts(pod) == 1).await;
    let before = node.until("both are there", |r| r.pods.len() == 2 && r.pods.iter().all(|pod| pod.ready)).await;
    node.kill();
    let starts = node.history().await.iter().filter(|e| e.action == Start).count();
    node.start();
    let after = node.until("both are ready", |r| r.pods.len() == 2 && r.pods.iter().all(|pod| pod.ready)).await;
    for (old, new) in before.pods.iter().zip(&after.pods) {
        let of = |pod: &kubeboot::agent::control::report::PodReport| -> Vec<_> {
            pod.containers.iter().map(|c| (c.name.clone(), c.id.clone(), c.restarts)).collect()
        };
        assert_eq!((of(old), &old.uid), (of(new), &new.uid));
    }
    assert_eq!(node.history().await.iter().filter(|e| e.action == Start).count(), starts);
}

pub async fn b044_a_manifest_removed_while_the_agent_was_down_ends_its_pod(node: &mut Node) {
    node.start();
    node.up(&Pod::new("gone").own_network()).await;
    let kept = node.up(&Pod::new("kept")).await;
    node.kill();
    node.delete("gone.yaml");
    node.start();
    node.until("the orphan is gone", |r| r.agent.synced && r.pods.len() == 1).await;
    let left = node.containers().await;
    assert_eq!(left.iter().map(|one| one.id.as_str()).collect::<Vec<_>>(), [id(&kept)]);
}

pub async fn b045_a_removed_init_container_is_told_completed_and_not_run_again(node: &mut Node) {
    fs::create_dir(node.path("share")).unwrap();
    let pod = Pod::new("web").init("first", "echo once >> /share/runs").mount("share", &node.path("share"));
    node.start();
    let before = node.up(&pod).await;
    node.kill();
    node.remove_container(id_of(&before, "first"));
    node.start();
    let after = node.ready("web").await;
    let first = ended(&after, "first").unwrap_or_else(|| panic!("{after:#?}"));
    assert_eq!((first.reason.as_str(), first.exit_code), ("Completed", 0));
    assert_eq!((id(&after), restarts(&after)), (id(&before), 0));
    assert_eq!(fs::read_to_string(node.path("share/runs")).unwrap(), "once\n");
}

pub async fn b046_a_removed_sidecar_runs_again(node: &mut Node) {
    node.start();
    let before = node.up(&Pod::new("web").sidecar("side", FOREVER)).await;
    node.kill();
    node.remove_container(id_of(&before, "side"));
    node.start();
    let again = |pod: &kubeboot::agent::control::report::PodReport| {
        pod.ready && runs(pod, "side") && id_of(pod, "side") != id_of(&before, "side")
    };
    let after = node.pod("web", "has a sidecar again", again).await;
    assert_eq!((id(&after), restarts(&after)), (id(&before), 0));
}

pub async fn b047_a_killed_pause_container_rebuilds_the_pod(node: &mut Node) {
    node.start();
    let before = node.up(&Pod::new("web").own_network().container("second", FOREVER)).await;
    let sandbox = node.sandbox("web").await;
    assert_eq!(sandbox.name.attempt, 0);
    node.kill_container(&sandbox.id);
    let rebuilt = |pod: &kubeboot::agent::control::report::PodReport| pod.ready && restarts(pod) == 1;
    let after = node.pod("web", "is rebuilt", rebuilt).await;
    assert_eq!(node.sandbox("web").await.name.attempt, 1);
    for name in ["main", "second"] {
        assert_ne!(id_of(&after, name), id_of(&before, name));
    }
    assert_eq!(after.uid, before.uid);
}

pub async fn b048_a_container_killed_or_removed_by_hand_is_restarted(node: &mut Node) {
    node.record().await;
    node.start();
    let web = node.up(&Pod::new("web")).await;
    node.kill_container(id(&web));
    let once = node.pod("web", "is restarted", |pod| pod.ready && restarts(pod) == 1).await;
    node.up(&Pod::new("other")).await;
    let other = node.ready("other").await;
    node.remove_container(id(&other));
    let after = node.pod("other", "is restarted", |pod| pod.ready && restarts(pod) == 1).await;
    let history = node.history().await;
    for (old, new) in [(id(&web), id(&once)), (id(&other), id(&after))] {
        let gap = history.one(Start, new).at.saturating_sub(history.one(Die, old).at);
        // Far from the seconds of a list or the back-off of a second crash.
        assert!(gap < Duration::from_secs(10), "{gap:?}: {history:#?}");
    }
}

pub async fn b050_a_grace_of_zero_is_two_seconds(node: &mut Node) {
    node.record().await;
    node.start();
    let web = node.up(&signals::noting(node, stubborn().spec("terminationGracePeriodSeconds", 0))).await;
    signals::heeds(node).await;
    node.delete("web.yaml");
    node.empty().await;
    let died = node.history().await.one(Die, id(&web));
    let gap = died.at - signals::asked(node);
    let range = Duration::from_millis(1800)..Duration::from_secs(10);
    assert!(died.code == KILLED && range.contains(&gap), "{gap:?}: {died:?}");
}

pub async fn b049_a_pre_stop_hook_runs_before_sigterm_and_within_the_grace(node: &mut Node) {
    fs::create_dir(node.path("share")).unwrap();
    let script = "trap 'echo term >> /share/order' TERM; while :; do sleep 1 & wait $!; done";
    let hook = json!({"preStop": {"exec": {"command": ["sh", "-c", "echo hook >> /share/order; sleep 8"]}}});
    let pod = Pod::new("web").script(script).main("lifecycle", hook).spec("terminationGracePeriodSeconds", 11);
    node.start();
    node.up(&pod.mount("share", &node.path("share"))).await;
    node.delete("web.yaml");
    let asked = Instant::now();
    node.empty().await;
    let took = asked.elapsed().as_secs_f64();
    // 8 s of hook, then the 3 s that are left; 19 s if the hook's time did not count.
    assert!((10.0..18.0).contains(&took), "gone after {took} s");
    assert_eq!(fs::read_to_string(node.path("share/order")).unwrap(), "hook\nterm\n");
}

pub async fn b042_a_runtime_that_comes_back_finds_the_pod_gone_after_its_grace(node: &mut Node) {
    let daemon = Daemon::new().await;
    daemon.engine().take_images();
    *node = Node::on(daemon);
    node.start();
    node.up(&stubborn()).await;
    node.delete("web.yaml");
    let asked = Instant::now();
    node.until("it is being ended", |r| r.pods.iter().any(|pod| pod.terminating)).await;
    node.daemon().stop();
    node.until("the runtime is missed", |r| r.agent.runtime.is_none() && !r.pods.is_empty()).await;
    node.daemon().start().await;
    node.until_within(LIMIT + Duration::from_secs(GRACE), "it is gone", gone).await;
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(GRACE + 20), "gone after {took:?}");
    node.has_nothing();
}

pub async fn b051_a_volume_that_somebody_uses_holds_no_successor_back(node: &mut Node) {
    let volume = json!([{"name": "memory", "emptyDir": {"medium": "Memory"}}]);
    let pod = Pod::new("web").spec("volumes", volume);
    let pod = pod.main("volumeMounts", json!([{"name": "memory", "mountPath": "/memory"}]));
    node.start();
    let old = node.up(&pod).await;
    node.exec(id(&old), &["touch", "/memory/old"]);
    let directory = node.root().join("pods").join(&old.uid);
    let path = directory.join("volumes/kubernetes.io~empty-dir/memory/old");
    let used = fs::File::open(&path).unwrap();
    node.delete("web.yaml");
    node.empty().await;
    assert!(!directory.exists());
    let new = node.up(&pod).await;
    assert_eq!(new.uid, old.uid);
    assert!(!path.exists() && path.parent().unwrap().exists(), "another volume, and an empty one");
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert_eq!(mounts.lines().filter(|mount| mount.contains(&directory.display().to_string())).count(), 1);
    drop(used);
}
