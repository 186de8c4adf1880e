//! A pod that is restarted beside itself, and agents that are killed meanwhile.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_restarted_is_started_beside_itself() {
    let bench = Bench::new().await;
    bench.world.want(&[asking("x:1")]).await;
    let uid = bench.world.healthy("a").await.uid;
    for n in 0..2 {
        bench.world.answers.set("/readyz beside", false);
        let before = bench.running();
        bench.restart(&uid);
        bench.runs(&["x:1", "x:1"]).await;
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!((bench.running().len(), &bench.running()[0]), (2, &before[0]));
        assert!(bench.world.fake.calls_of("stop").len() == n, "{:?}", bench.world.fake.calls());
        let shown = find(&bench.world.report(), "a").unwrap().clone();
        assert_eq!((&shown.uid, shown.healthy, shown.containers[0].id.as_ref()), (&uid, true, before.first()));
        let new = bench.running()[1].clone();
        let next = shown.successor.unwrap();
        assert!(next.uid == uid && !next.healthy && next.containers[0].id.as_ref() == Some(&new), "{next:#?}");
        assert_eq!(bench.calls(), ["room", "hold"]);

        bench.ready();
        let has = |pod: &PodReport| pod.healthy && pod.containers[0].id.as_ref() == Some(&new);
        let report = bench.world.until("the new one is shown", |report| find(report, "a").is_some_and(has)).await;
        let shown = find(&report, "a").unwrap();
        assert!(shown.uid == uid && shown.successor.is_none());
        assert_eq!(shown.containers[0].restarts as usize, n + 1);
        bench.runs(&["x:1"]).await;
        assert_eq!((bench.running(), bench.calls()), (vec![new], vec!["switch"]));
        let gone = |fake: &FakeRuntime| fake.containers().iter().all(|one| one.id != before[0]);
        bench.world.fake.until("the old one is removed", gone).await;
        // What the pod has on the machine is the new one's.
        let options = &bench.world.agent.as_ref().unwrap().view.options;
        assert!(crate::agent::volumes::pod_dir(&options.root_dir, &uid).is_dir());
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_starts_while_a_pod_is_restarted_goes_on() {
    for (ready, crash) in [(false, false), (true, false), (false, true)] {
        let mut bench = Bench::new().await;
        bench.world.want(&[asking("x:1")]).await;
        let uid = bench.world.healthy("a").await.uid;
        bench.restart(&uid);
        bench.runs(&["x:1", "x:1"]).await;
        let (old, new) = (bench.running()[0].clone(), bench.running()[1].clone());
        bench.calls();
        bench.world.kill().await;
        if crash {
            bench.world.fake.exit_container(&new, 1);
        }
        if ready {
            bench.ready();
        }
        bench.start().await;
        bench.world.want(&[asking("x:1")]).await;
        if !ready {
            bench.runs(&["x:1", "x:1"]).await;
            tokio::time::sleep(Duration::from_secs(20)).await;
            assert_eq!((bench.running().len(), &bench.running()[0]), (2, &old), "crash: {crash}");
            assert_eq!(bench.running()[1] == new, !crash);
            assert!(bench.world.fake.calls_of("stop").is_empty());
            bench.ready();
        }
        let is_new = |pod: &PodReport| pod.healthy && pod.containers[0].id.as_ref() != Some(&old);
        bench.world.until("the new one", |report| find(report, "a").is_some_and(is_new)).await;
        bench.runs(&["x:1"]).await;
        assert_ne!(bench.running()[0], old);
        let begun: &[&str] = if crash { &["room", "hold", "switch"] } else { &["hold", "switch"] };
        assert_eq!(bench.calls(), begun);
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_starts_once_the_new_one_has_the_connections_leaves_them_there_and_ends_the_old_one_once() {
    for (edited, told) in [(true, false), (true, true), (false, false), (false, true)] {
        let mut bench = Bench::new().await;
        let takes = Duration::from_secs(20);
        bench.world.fake.behave("main", Behaviour { sigterm_takes: takes, ..Behaviour::default() });
        bench.world.want(&[asking("x:1")]).await;
        let uid = bench.world.healthy("a").await.uid;
        let old = bench.running()[0].clone();
        let next = asking(if edited { "x:2" } else { "x:1" });
        bench.ready();
        match edited {
            true => bench.world.want(std::slice::from_ref(&next)).await,
            false => bench.restart(&uid),
        }
        let is_new = |pod: &PodReport| pod.healthy && pod.containers[0].id.as_ref() != Some(&old);
        bench.world.until("the new one", |report| find(report, "a").is_some_and(is_new)).await;
        if told {
            bench.world.fake.until("told to end", |fake| fake.calls_of("stop").len() == 1).await;
        }
        assert_eq!(bench.calls(), ["room", "hold", "switch"]);
        let new = bench.running()[1].clone();
        bench.world.kill().await;
        bench.start().await;
        bench.world.want(&[next]).await;
        bench.world.until("the new one again", |report| find(report, "a").is_some_and(is_new)).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(bench.running().len(), 2, "edited {edited}, told {told}");
        let gone = |fake: &FakeRuntime| fake.containers().iter().all(|one| one.id != old);
        bench.world.fake.until("the old one is gone", gone).await;
        assert_eq!((bench.running(), bench.calls()), (vec![new], vec![]), "edited {edited}, told {told}");
        assert_eq!(bench.world.fake.calls_of("stop").len(), 1, "edited {edited}, told {told}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_restart_that_crashes_and_then_a_manifest_that_changes_leave_the_old_one_serving_until_one_is_ready() {
    let bench = Bench::new().await;
    bench.world.want(&[asking("x:1")]).await;
    let uid = bench.world.healthy("a").await.uid;
    let old = bench.running()[0].clone();
    bench.restart(&uid);
    for _ in 0..2 {
        bench.runs(&["x:1", "x:1"]).await;
        bench.world.fake.exit_container(&bench.running()[1], 1);
        bench.runs(&["x:1"]).await;
    }
    // Asked again, it begins again at once.
    bench.runs(&["x:1", "x:1"]).await;
    let tried = bench.running()[1].clone();
    bench.restart(&uid);
    let again = |fake: &FakeRuntime| {
        fake.containers().iter().any(|one| one.state.is_running() && one.id != old && one.id != tried)
    };
    bench.world.fake.until("another one", again).await;
    assert_eq!(bench.running()[0], old);
    bench.world.want(&[asking("x:2")]).await;
    bench.runs(&["x:1", "x:2"]).await;
    assert_eq!(bench.running()[0], old);
    assert!(bench.world.fake.calls_of("stop").iter().all(|id| !id.contains(&old)));
    bench.ready();
    bench.until_shown("the edited one", "x:2").await;
    bench.runs(&["x:2"]).await;
    bench.world.fake.until("one is left", |fake| fake.containers().len() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_that_cannot_be_beside_is_one_in_place_and_an_event_says_why() {
    let limited = || {
        let pod = serde_json::to_string(&asking("x:1").to_pod()).unwrap();
        read(&pod.replace(r#""name":"main""#, r#""name":"main","resources":{"limits":{"memory":"1Gi"}}"#)).unwrap()
    };
    for (pod, refuses, said) in [
        (asking("x:1"), Some("no way"), Some("no way")),
        (limited(), None, Some("its limit of memory")),
        (sharing("x:1", "true", "--other"), None, Some("does not run with --permit-port-sharing=true")),
        (sharing("x:1", "false", "--permit-port-sharing=true"), None, None),
    ] {
        let bench = Bench::new().await;
        *bench.ports.refuses.lock().unwrap() = refuses;
        bench.world.want(&[pod]).await;
        let shown = bench.world.until("healthy", |r| r.pods.first().is_some_and(|pod| pod.healthy)).await;
        let (uid, old) = (shown.pods[0].uid.clone(), bench.running()[0].clone());
        bench.restart(&uid);
        let is_new = |r: &HealthReport| {
            r.pods.first().is_some_and(|pod| pod.healthy && pod.containers[0].id.as_ref() != Some(&old))
        };
        bench.world.until("the new one", is_new).await;
        assert_eq!(bench.running().len(), 1);
        let calls = bench.world.fake.calls();
        let at = |name: &str, n: usize| calls.iter().enumerate().filter(|(_, one)| one.name == name).nth(n).unwrap().0;
        assert!(at("stop", 0) < at("start", 1), "{calls:#?}");
        let events = bench.events();
        assert_eq!(events.len(), usize::from(said.is_some()), "{events:?}");
        assert!(said.is_none_or(|said| events[0].contains(said)), "{events:?}");
    }
}
