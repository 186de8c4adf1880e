//! Panics: they end the work on one pod for a while, never the agent.

use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

impl World {
    /// Makes the runtime's call panic for the containers of pod `a`, the first `times` times.
    fn crash(&self, call: &str, times: u32) {
        let left = AtomicU32::new(times);
        self.fake.fail_when(call, move |argument| {
            let crashes = argument.contains("_a-node1_")
                && left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
            assert!(!crashes, "made to crash");
            None
        });
    }

    fn failed_syncs(&self) -> Vec<String> {
        let events = self.agent.as_ref().unwrap().events.since(0);
        events.into_iter().filter(|event| event.reason == "FailedSync").map(|event| event.message).collect()
    }
}

fn is_set_aside(report: &HealthReport) -> bool {
    find(report, "a").is_some_and(|pod| pod.message.as_ref().is_some_and(|message| message.contains("set aside")))
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_crashes_is_replaced_after_a_back_off_and_the_other_pods_run_on() {
    let mut world = World::new();
    world.crash("create_container", 2);
    world.start().await;
    let started = Instant::now();
    world.want(&[pod("a", ""), pod("b", "")]).await;
    world.healthy("b").await;
    assert!(started.elapsed() < Duration::from_secs(1), "the other pod waits for nothing");
    world.healthy("a").await;
    assert!(started.elapsed() >= Duration::from_secs(1 + 2), "{:?}", started.elapsed());
    assert_eq!(world.running(), ["a-node1/main 0", "b-node1/main 0"]);
    let reported = world.failed_syncs();
    assert_eq!(reported.len(), 2, "{reported:?}");
    assert!(reported[0].contains("its worker has crashed 1 times: internal error, please report it: made to crash"));
    let report = world.report();
    assert_eq!((find(&report, "a").unwrap().message.as_ref(), report.problems.len()), (None, 0));
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_crashed_its_worker_three_times_is_set_aside_and_reported_until_it_is_another() {
    let mut world = World::new();
    world.crash("create_container", u32::MAX);
    world.start().await;
    world.want(&[pod("a", ""), pod("b", "")]).await;
    let report = world.until("it is set aside", is_set_aside).await;
    assert!(!find(&report, "a").unwrap().healthy);
    let report = world.until("it is a problem", |r| !r.problems.is_empty()).await;
    assert_eq!(report.problems[0].subject, "pod default/a-node1");
    assert!(report.problems[0].message.ends_with("set aside until its manifest changes or the agent is restarted"));
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(world.failed_syncs().len(), 3, "it is left alone");
    // The others are looked after.
    let id = world.healthy("b").await.containers[0].id.clone().unwrap();
    world.fake.kill(&id);
    world.until("b runs again", |r| find(r, "b").is_some_and(|p| p.healthy && p.containers[0].restarts == 1)).await;
    // Another manifest is another chance, and the same once it works.
    world.fake.heal();
    world.want(&[pod("a", "args: [new]"), pod("b", "")]).await;
    world.healthy("a").await;
    world.until("no problem is left", |r| r.problems.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_set_aside_ends_when_its_manifest_goes() {
    let mut world = World::new();
    world.start().await;
    world.want(&[pod("a", "")]).await;
    let id = world.healthy("a").await.containers[0].id.clone().unwrap();
    world.crash("create_container", 3);
    world.fake.kill(&id);
    world.until("it is set aside", is_set_aside).await;
    world.want(&[]).await;
    world.until("it is gone", |r| r.pods.is_empty() && r.problems.is_empty()).await;
    world.fake.until("nothing of it is left", |fake| fake.containers().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn what_crashes_beside_a_worker_is_not_waited_for_in_vain() {
    let mut world = World::new();
    let times = AtomicU32::new(0);
    world.fake.answer_exec("main", Duration::from_secs(1), move |_| {
        assert!(times.fetch_add(1, Ordering::Relaxed) > 0, "the hook crashes");
        Ok(crate::runtime::ExecOutput { exit_code: 0, output: String::new() })
    });
    world.start().await;
    world.want(&[pod("a", "lifecycle: {preStop: {exec: {command: [hook]}}}")]).await;
    world.healthy("a").await;
    world.want(&[]).await;
    world.until("it is gone", |r| r.pods.is_empty()).await;
    assert_eq!(world.failed_syncs().len(), 1);
    assert_eq!(world.fake.calls_of("exec").len(), 2, "the next worker runs the hook");
}

/// Panics at the first check, and finds everything well after that.
#[derive(Default)]
struct Crashing(AtomicU32);

#[async_trait]
impl probe::Checker for Crashing {
    async fn check(&self, _: &Target, _: Duration) -> Outcome {
        assert!(self.0.fetch_add(1, Ordering::Relaxed) > 0, "the first check crashes");
        Outcome::Success { warning: None }
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_crashes_is_made_again() {
    for kind in ["readinessProbe", "startupProbe", "livenessProbe"] {
        let mut world = World::new();
        world.checker = Some(Arc::new(Crashing::default()));
        world.start().await;
        world.want(&[pod("a", &format!("{kind}: {{httpGet: {{path: /, port: 1}}}}"))]).await;
        world.until(kind, |r| find(r, "a").is_some_and(|pod| pod.ready && pod.healthy)).await;
    }
}
