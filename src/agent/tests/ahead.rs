//! A pod that is made before the one it replaces ends.

use super::*;

/// An etcd, whose pod asks for it by what it is.
fn etcd(image: &str) -> StaticPod {
    component_of("etcd", image)
}

struct Bench(World);

impl Bench {
    /// An agent with an etcd that is healthy. Under some runtimes it has a sandbox.
    async fn new(has_sandbox: bool) -> Self {
        Self::ending_after(has_sandbox, Duration::ZERO).await
    }

    /// The same, with etcds that take so long to end.
    async fn ending_after(has_sandbox: bool, takes: Duration) -> Self {
        let mut bench = Self(World::new());
        bench.0.fake.behave("etcd", Behaviour { sigterm_takes: takes, ..Behaviour::default() });
        if has_sandbox {
            bench.0.fake.set_needs_sandbox();
        }
        bench.0.start().await;
        bench.0.want(&[etcd("x:1")]).await;
        bench.healthy("x:1").await;
        bench.0.fake.clear_calls();
        bench
    }

    async fn want(&self, image: &str) {
        self.0.want(&[etcd(image)]).await;
    }

    async fn healthy(&self, image: &str) -> PodReport {
        let shown = |report: &HealthReport| {
            find(report, "etcd").is_some_and(|pod| pod.healthy && pod.containers[0].image == image)
        };
        let report = self.0.until(image, shown).await;
        find(&report, "etcd").unwrap().clone()
    }

    fn shown(&self) -> PodReport {
        find(&self.0.report(), "etcd").unwrap().clone()
    }

    /// The images of the containers, and whether they run.
    fn containers(&self) -> Vec<(String, bool)> {
        let all = self.0.fake.containers().into_iter().filter(|one| !one.is_sandbox);
        all.map(|one| (one.image, one.state.is_running())).collect()
    }

    async fn until_containers(&self, wanted: &[(&str, bool)]) {
        let wanted: Vec<_> = wanted.iter().map(|(image, runs)| ((*image).to_owned(), *runs)).collect();
        self.0.fake.until(&format!("{wanted:?}"), |_| self.containers() == wanted).await;
    }

    /// What was asked of the runtime that changes something, of containers alone.
    fn changes(&self) -> Vec<&'static str> {
        let calls = self.0.fake.calls();
        let of_containers = calls.iter().filter(|call| !call.argument.starts_with("POD"));
        let changes = ["create_container", "start", "stop", "remove"];
        of_containers.filter(|call| changes.contains(&call.name)).map(|call| call.name).collect()
    }

    fn events(&self, reason: &str) -> Vec<String> {
        let all = self.0.agent.as_ref().unwrap().events.since(0);
        all.iter().filter(|event| event.reason == reason).map(|event| event.message.clone()).collect()
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn between_two_etcds_there_is_a_stop_and_a_start_and_nothing_else() {
    for has_sandbox in [false, true] {
        let bench = Bench::new(has_sandbox).await;
        bench.0.fake.add_image("x:3");
        for image in ["x:2", "x:3"] {
            bench.want(image).await;
            let new = bench.healthy(image).await;
            assert_eq!((new.containers[0].restarts, new.successor), (0, None));
            bench.until_containers(&[(image, true)]).await;
            assert_eq!(bench.changes(), ["create_container", "stop", "start", "remove"], "{has_sandbox}");
            bench.0.fake.clear_calls();
        }
        assert_eq!(bench.events("NotMadeAhead"), [""; 0]);
        let all = bench.0.agent.as_ref().unwrap().events.since(0);
        let of_life = ["Created", "Started", "Killing"];
        let life: Vec<_> = all.iter().map(|event| &*event.reason).filter(|reason| of_life.contains(reason)).collect();
        let next = ["Created", "Killing", "Started"];
        assert_eq!(life, [&["Created", "Started"][..], &next, &next].concat());
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_does_not_ask_is_made_when_the_one_before_has_gone() {
    let mut bench = Bench(World::new());
    bench.0.start().await;
    for (before, after) in [("x:1", "x:2"), ("x:2", "x:1")] {
        let of = |image: &str| component_of("db", image);
        bench.0.want(&[of(before)]).await;
        bench.0.healthy("db").await;
        bench.0.fake.clear_calls();
        bench.0.want(&[of(after)]).await;
        bench.until_containers(&[(after, true)]).await;
        bench.0.healthy("db").await;
        assert_eq!(bench.changes(), ["stop", "remove", "create_container", "start"]);
    }
}

#[tokio::test(start_paused = true)]
async fn the_old_one_serves_and_is_shown_while_the_image_of_the_new_one_is_pulled() {
    for has_sandbox in [false, true] {
        let bench = Bench::new(has_sandbox).await;
        let old = bench.shown();
        bench.0.fake.registry_has("x:3", 9 * SECOND);
        bench.want("x:3").await;
        tokio::time::sleep(8 * SECOND).await;
        let shown = bench.shown();
        assert_eq!((&shown.uid, shown.healthy, shown.terminating), (&old.uid, true, false));
        let next = shown.successor.unwrap();
        assert!(next.uid != old.uid && !next.healthy && next.containers[0].id.is_none(), "{next:#?}");
        assert_eq!(bench.changes(), [""; 0]);
        bench.healthy("x:3").await;
        bench.until_containers(&[("x:3", true)]).await;
        assert_eq!(bench.changes(), ["create_container", "stop", "start", "remove"]);
        assert_eq!(bench.events("NotMadeAhead"), [""; 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_is_not_made_in_time_keeps_the_old_one_no_longer() {
    for has_sandbox in [false, true] {
        let bench = Bench::new(has_sandbox).await;
        bench.0.fake.registry_has("x:3", 25 * SECOND);
        let begun = Instant::now();
        bench.want("x:3").await;
        bench.0.fake.until("the old one ends", |fake| !fake.calls_of("stop").is_empty()).await;
        assert_eq!(begun.elapsed().as_secs(), 10);
        assert_eq!(
            bench.events("NotMadeAhead"),
            ["The instance before is stopped although this one is not made yet: image x:3 is still being pulled"]
        );
        bench.healthy("x:3").await;
        assert_eq!(begun.elapsed().as_secs(), 25, "the pull has gone on");
        assert_eq!(bench.events("NotMadeAhead").len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_cannot_be_made_keeps_the_old_one_no_longer_and_an_event_says_why() {
    for call in ["create_container", "create_sandbox"] {
        let bench = Bench::new(true).await;
        let refusal = || RuntimeError::Refused { call: "create".into(), message: "no space left".into() };
        bench.0.fake.fail_when(call, move |_| Some(refusal()));
        let begun = Instant::now();
        bench.want("x:2").await;
        bench.0.fake.until("the old one ends", |fake| !fake.calls_of("stop").is_empty()).await;
        assert_eq!(begun.elapsed().as_secs(), 10);
        let said = bench.events("NotMadeAhead");
        assert!(said.len() == 1 && said[0].ends_with("no space left"), "{said:?}");
        bench.0.fake.heal();
        bench.healthy("x:2").await;
        bench.until_containers(&[("x:2", true)]).await;
    }
    let bench = Bench::new(false).await;
    bench.want("none:1").await;
    bench.0.fake.until("the old one ends", |fake| !fake.calls_of("stop").is_empty()).await;
    let said = bench.events("NotMadeAhead");
    assert!(said.len() == 1 && said[0].contains("none:1"), "{said:?}");
}

#[tokio::test(start_paused = true)]
async fn one_that_does_not_start_is_tried_again() {
    let bench = Bench::new(false).await;
    let refusal = RuntimeError::Refused { call: "start".into(), message: "no".into() };
    bench.0.fake.fail_nth("start", 1, refusal);
    bench.want("x:2").await;
    bench.healthy("x:2").await;
    bench.until_containers(&[("x:2", true)]).await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_starts_in_between_goes_on() {
    for has_sandbox in [false, true] {
        // The image is being pulled.
        let mut bench = Bench::new(has_sandbox).await;
        bench.0.fake.registry_has("x:3", 9 * SECOND);
        bench.want("x:3").await;
        tokio::time::sleep(5 * SECOND).await;
        bench.0.start().await;
        bench.want("x:3").await;
        tokio::time::sleep(5 * SECOND).await;
        assert_eq!((bench.containers(), bench.changes()), (vec![("x:1".to_owned(), true)], vec![]));
        bench.healthy("x:3").await;
        bench.until_containers(&[("x:3", true)]).await;
        assert_eq!(bench.changes(), ["create_container", "stop", "start", "remove"]);

        // The old one has been told to end.
        let mut bench = Bench::ending_after(has_sandbox, 20 * SECOND).await;
        bench.want("x:2").await;
        bench.0.fake.until("told to end", |fake| fake.calls_of("stop").len() == 1).await;
        let made = bench.0.fake.find("etcd-node1", "etcd").unwrap().id;
        bench.0.start().await;
        bench.want("x:2").await;
        let new = bench.healthy("x:2").await;
        assert_eq!((new.containers[0].id.as_ref(), new.containers[0].restarts), (Some(&made), 0));
        bench.until_containers(&[("x:2", true)]).await;
        assert_eq!(bench.events("NotMadeAhead"), [""; 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_manifest_that_is_put_back_meanwhile_leaves_the_old_one_as_it_is() {
    for has_sandbox in [false, true] {
        let bench = Bench::new(has_sandbox).await;
        let old = bench.shown();
        bench.0.fake.registry_has("x:3", 9 * SECOND);
        bench.want("x:3").await;
        tokio::time::sleep(2 * SECOND).await;
        bench.want("x:1").await;
        let alone = |report: &HealthReport| {
            let pod = find(report, "etcd").unwrap();
            pod.healthy && pod.successor.is_none() && pod.containers == old.containers
        };
        bench.0.until("the old one alone", alone).await;
        tokio::time::sleep(20 * SECOND).await;
        assert!(alone(&bench.0.report()));
        assert_eq!((bench.containers(), bench.changes()), (vec![("x:1".to_owned(), true)], vec![]));
        assert_eq!(bench.0.fake.containers().len(), 1 + usize::from(has_sandbox));
    }
}

#[tokio::test(start_paused = true)]
async fn a_manifest_that_changes_once_more_or_is_put_back_while_the_old_one_ends_has_the_made_one_removed() {
    for has_sandbox in [false, true] {
        let bench = Bench::ending_after(has_sandbox, 20 * SECOND).await;
        let old = bench.shown().containers[0].id.clone();
        bench.0.fake.add_image("x:3");
        bench.want("x:2").await;
        bench.until_containers(&[("x:1", true), ("x:2", false)]).await;
        bench.want("x:3").await;
        bench.until_containers(&[("x:1", true), ("x:3", false)]).await;
        bench.want("x:1").await;
        bench.until_containers(&[("x:1", true)]).await;
        bench.0.fake.until("it has ended", |_| bench.containers().is_empty()).await;
        let again = bench.healthy("x:1").await;
        assert_ne!(again.containers[0].id, old);
        assert_eq!(bench.0.fake.containers().len(), 1 + usize::from(has_sandbox));
    }
}

#[tokio::test(start_paused = true)]
async fn a_manifest_that_changes_once_more_before_the_new_one_is_made_counts_from_then_on() {
    let bench = Bench::new(true).await;
    let old = bench.shown().uid;
    bench.0.fake.registry_has("x:3", 9 * SECOND);
    bench.0.fake.registry_has("x:4", 9 * SECOND);
    bench.want("x:3").await;
    tokio::time::sleep(8 * SECOND).await;
    bench.want("x:4").await;
    tokio::time::sleep(8 * SECOND).await;
    assert_eq!((bench.shown().uid, bench.changes()), (old, vec![]));
    bench.healthy("x:4").await;
    bench.until_containers(&[("x:4", true)]).await;
    assert_eq!(bench.changes(), ["create_container", "stop", "start", "remove"]);
    assert_eq!(bench.0.fake.containers().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_manifest_that_is_removed_meanwhile_is_not_waited_for() {
    for has_sandbox in [false, true] {
        let bench = Bench::new(has_sandbox).await;
        bench.0.fake.registry_has("x:3", 9 * SECOND);
        bench.want("x:3").await;
        tokio::time::sleep(2 * SECOND).await;
        let begun = Instant::now();
        bench.0.want(&[]).await;
        bench.0.until("gone", |report| report.pods.is_empty()).await;
        assert!(begun.elapsed() < SECOND, "{:?}", begun.elapsed());
        assert!(bench.0.fake.containers().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn an_old_one_that_ends_meanwhile_is_not_started_again() {
    let bench = Bench::new(false).await;
    bench.0.fake.registry_has("x:3", 5 * SECOND);
    let begun = Instant::now();
    bench.want("x:3").await;
    tokio::time::sleep(2 * SECOND).await;
    bench.0.fake.exit_container(&bench.shown().containers[0].id.clone().unwrap(), 1);
    bench.healthy("x:3").await;
    assert_eq!(begun.elapsed().as_secs(), 5);
    assert_eq!(bench.changes().iter().filter(|change| **change == "start").count(), 1);
}
