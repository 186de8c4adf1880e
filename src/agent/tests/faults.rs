//! What goes wrong around the agent: its own end, the runtime, single calls.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_restarted_agent_adopts_what_runs_and_touches_nothing() {
    let mut world = World::new();
    let pods = [pod("a", ""), pod_of("b", "hostNetwork: false", "")];
    world.start().await;
    world.want(&pods).await;
    world.healthy("a").await;
    world.healthy("b").await;
    let before = world.fake.containers();
    world.kill().await;
    assert_eq!(world.fake.containers(), before, "an agent that ends stops nothing");
    world.fake.clear_calls();
    world.start().await;
    world.want(&pods).await;
    world.healthy("a").await;
    world.healthy("b").await;
    assert_eq!(world.fake.containers(), before);
    for call in ["create_container", "create_sandbox", "start", "stop", "remove"] {
        assert_eq!(world.fake.calls_of(call), Vec::<String>::new(), "{call}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_made_and_not_started_when_the_agent_died_is_started_by_the_next() {
    let mut world = World::new();
    world.fake.fail_nth("start", 1, RuntimeError::Refused { call: "start".into(), message: "no".into() });
    world.start().await;
    world.want(&[pod("a", "")]).await;
    world.fake.until("it is made", |fake| !fake.calls_of("start").is_empty()).await;
    world.start().await;
    world.want(&[pod("a", "")]).await;
    world.healthy("a").await;
    assert_eq!(world.fake.calls_of("create_container").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_runtime_may_go_away_and_come_back() {
    let mut world = World::new();
    world.fake.set_unreachable(true);
    world.start().await;
    world.want(&[pod("a", "")]).await;
    let away = world.until("the problem is told", |r| r.problems.iter().any(|p| p.subject == "runtime")).await;
    assert_eq!((away.agent.runtime.as_ref(), away.pods.len()), (None, 1));
    world.fake.set_unreachable(false);
    let id = world.healthy("a").await.containers[0].id.clone().unwrap();
    assert_eq!(world.report().agent.runtime.as_deref(), Some("fake 1.0"));
    assert!(world.report().problems.is_empty());
    // Everything dies with the daemon, and no event tells of it.
    world.fake.set_unreachable(true);
    world.fake.kill(&id);
    tokio::time::sleep(Duration::from_secs(120)).await;
    world.fake.set_unreachable(false);
    world.until("it runs again", |r| find(r, "a").is_some_and(|p| p.healthy && p.containers[0].restarts == 1)).await;
}

#[tokio::test(start_paused = true)]
async fn an_event_that_never_came_is_made_up_for_by_the_next_list() {
    let mut world = World::new();
    world.start().await;
    world.want(&[pod("a", "")]).await;
    let id = world.healthy("a").await.containers[0].id.clone().unwrap();
    world.settle().await;
    world.fake.fail_nth("inspect", 1, RuntimeError::Refused { call: "inspect".into(), message: "not now".into() });
    let killed = Instant::now();
    world.fake.kill(&id);
    world.until("it runs again", |r| find(r, "a").is_some_and(|p| p.healthy && p.containers[0].restarts == 1)).await;
    assert!(Instant::now() - killed <= Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn an_idle_agent_asks_the_runtime_for_one_list_in_ten_seconds() {
    let mut world = World::new();
    world.start().await;
    world.want(&[pod("a", ""), pod_of("b", "hostNetwork: false", "")]).await;
    world.healthy("a").await;
    world.healthy("b").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.fake.clear_calls();
    tokio::time::sleep(Duration::from_secs(100)).await;
    let calls: Vec<_> = world.fake.calls().into_iter().map(|call| call.name).collect();
    assert_eq!(calls, ["list"; 10]);
}

/// A pod with everything: sandbox, init container, two containers.
fn full(argument: &str) -> StaticPod {
    let spec = "initContainers: [{name: first, image: 'x:1'}]";
    let other = format!("args: ['{argument}']\n  - name: side\n    image: x:2");
    pod_of("a", spec, &other)
}

#[tokio::test(start_paused = true)]
async fn whichever_call_fails_the_pod_gets_there_and_its_successor_too() {
    let calls = [
        "image",
        "create_sandbox",
        "create_container",
        "start",
        "inspect",
        "stop",
        "remove",
        "list",
        "log_path",
        "events",
    ];
    for (call, nth) in calls.iter().flat_map(|call| (1..=3).map(move |nth| (*call, nth))) {
        let mut world = World::new();
        let once = Behaviour { exits_after: Some((Duration::from_millis(10), 0)), ..Behaviour::default() };
        world.fake.behave("first", once);
        let refused = || RuntimeError::Refused { call: call.to_owned(), message: "once".into() };
        world.fake.fail_nth(call, nth, refused());
        world.start().await;
        world.want(&[full("one")]).await;
        world.healthy("a").await;
        world.fake.fail_nth(call, nth, refused());
        let next = full("two");
        world.want(std::slice::from_ref(&next)).await;
        let replaced = |r: &HealthReport| find(r, "a").is_some_and(|p| p.healthy && p.uid == next.uid);
        world.until(&format!("{call} {nth}: the successor runs"), replaced).await;
        assert_eq!(world.running(), ["a-node1/POD 0", "a-node1/main 0", "a-node1/side 0"], "{call} {nth}");
        world.fake.fail_nth(call, nth, refused());
        world.want(&[]).await;
        world.until(&format!("{call} {nth}: it is gone"), |r| r.pods.is_empty()).await;
        assert!(world.fake.containers().is_empty(), "{call} {nth}: {:?}", world.fake.containers());
    }
}

#[tokio::test(start_paused = true)]
async fn wherever_the_agent_is_killed_the_next_one_gets_there_without_starting_anything_twice() {
    for killed_after in 1..40 {
        let mut world = World::new();
        let once = Behaviour { exits_after: Some((Duration::from_millis(10), 0)), ..Behaviour::default() };
        world.fake.behave("first", once);
        world.start().await;
        world.want(&[full("one")]).await;
        let reached = |fake: &FakeRuntime| fake.calls().len() >= killed_after;
        tokio::time::timeout(Duration::from_secs(5), world.fake.until("so many calls", reached)).await.ok();
        world.start().await;
        world.want(&[full("one")]).await;
        world.healthy("a").await;
        assert_eq!(
            world.running(),
            ["a-node1/POD 0", "a-node1/main 0", "a-node1/side 0"],
            "killed after {killed_after}"
        );
        let starts = world.fake.calls_of("start");
        let mut once: Vec<_> = starts.clone();
        once.dedup();
        assert_eq!(once.len(), 4, "killed after {killed_after}: {starts:?}");
    }
}
