//! Hooks, and the order in which a pod's containers end.

use super::*;
use crate::agent::events::Event;
use crate::runtime::ExecOutput;

/// A container `main` with an exec hook, in a pod with a grace of ten seconds.
fn hooked(hook: &str) -> StaticPod {
    pod_of("a", "terminationGracePeriodSeconds: 10", &format!("lifecycle: {{{hook}: {{exec: {{command: [hook]}}}}}}"))
}

fn exits(code: i64) -> impl Fn(&[String]) -> crate::runtime::Result<ExecOutput> {
    move |_| Ok(ExecOutput { exit_code: code, output: String::new() })
}

impl World {
    fn call_at(&self, name: &str, part: &str) -> Instant {
        let call = self.fake.calls().into_iter().find(|call| call.name == name && call.argument.contains(part));
        call.unwrap_or_else(|| panic!("{name} {part}: {:#?}", self.fake.calls())).at
    }

    fn events_of(&self, reason: &str) -> Vec<Event> {
        let events = self.agent.as_ref().unwrap().events.since(0);
        events.into_iter().filter(|event| event.reason == reason).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_pre_stop_hook_runs_before_the_signal_on_the_grace_and_also_for_an_orphan() {
    for (takes, left, code, restarted) in [(3, "7s", 0, false), (3, "7s", 1, true), (60, "2s", 0, true)] {
        let mut world = World::new();
        world.fake.answer_exec("main", Duration::from_secs(takes), exits(code));
        world.start().await;
        world.want(&[hooked("preStop")]).await;
        let id = world.healthy("a").await.containers[0].id.clone().unwrap();
        if restarted {
            world.start().await;
        }
        let unwanted = Instant::now();
        world.want(&[]).await;
        world.until("it is gone", |r| r.agent.synced && r.pods.is_empty()).await;
        assert_eq!(world.fake.calls_of("exec"), [format!("{id} hook")]);
        assert_eq!(world.fake.calls_of("stop"), [format!("{id} {left}")], "hook of {takes} s");
        let hook = world.call_at("stop", &id) - unwanted;
        assert_eq!(hook.as_secs(), takes.min(10));
        let bad = usize::from(code != 0 || takes > 10);
        assert_eq!(world.events_of("FailedPreStopHook").len(), bad, "hook of {takes} s, exit code {code}");
    }
}

/// What `int64` holds, with which a manifest may ask for 292 billion years.
const HUGE: i64 = i64::MAX;

#[tokio::test(start_paused = true)]
async fn a_pod_with_a_huge_grace_period_ends_like_any_other_and_the_agent_lives_on() {
    for (restarted, hook) in [(false, ""), (true, ""), (false, "lifecycle: {preStop: {exec: {command: [hook]}}}")] {
        let mut world = World::new();
        world.start().await;
        let huge = pod_of("a", &format!("terminationGracePeriodSeconds: {HUGE}"), hook);
        world.want(&[huge.clone(), pod("b", "")]).await;
        let id = world.healthy("a").await.containers[0].id.clone().unwrap();
        world.healthy("b").await;
        if restarted {
            world.start().await;
            world.want(&[huge, pod("b", "")]).await;
            world.healthy("a").await;
        }
        world.want(&[pod("b", "")]).await;
        world.until("it is gone", |r| find(r, "a").is_none()).await;
        assert_eq!(world.fake.calls_of("stop")[0], format!("{id} {}s", i32::MAX));
        assert!(world.healthy("b").await.message.is_none());
        assert_eq!(world.events_of("FailedSync"), []);
    }
}

#[tokio::test(start_paused = true)]
async fn no_number_of_a_manifest_is_too_much_for_the_agent() {
    let probe = |kind: &str, path: &str| {
        let most = i32::MAX;
        format!(
            "{kind}: {{httpGet: {{path: {path}, port: 1}}, initialDelaySeconds: {most}, periodSeconds: {most}, \
             timeoutSeconds: {most}, failureThreshold: {most}, successThreshold: {}}}",
            if kind == "readinessProbe" { most } else { 1 }
        )
    };
    let mut world = World::new();
    world.answers.set("/dies", false);
    world.start().await;
    let condemned = format!(
        "livenessProbe: {{httpGet: {{path: /dies, port: 1}}, periodSeconds: 1, failureThreshold: 1, \
         terminationGracePeriodSeconds: {HUGE}}}"
    );
    let never = format!("activeDeadlineSeconds: {}", i32::MAX);
    let pods = [
        pod("condemned", &condemned),
        pod("probed", &[probe("readinessProbe", "/r"), probe("startupProbe", "/s")].join("\n    ")),
        pod_of("late", &never, ""),
        pod("b", ""),
    ];
    world.want(&pods).await;
    world
        .until("the condemned one is restarted", |r| {
            find(r, "condemned").is_some_and(|pod| pod.containers.iter().any(|one| one.restarts >= 1))
        })
        .await;
    world.want(&pods[3..]).await;
    world.until("all others are gone", |r| r.pods.len() == 1).await;
    world.healthy("b").await;
    assert_eq!(world.events_of("FailedSync"), []);
}

#[tokio::test(start_paused = true)]
async fn a_container_that_ends_during_its_hook_is_not_waited_for() {
    let mut world = World::new();
    world.fake.answer_exec("main", Duration::from_secs(8), exits(0));
    world.start().await;
    world.want(&[hooked("preStop")]).await;
    let id = world.healthy("a").await.containers[0].id.clone().unwrap();
    let unwanted = Instant::now();
    world.want(&[]).await;
    world.fake.until("the hook runs", |fake| !fake.calls_of("exec").is_empty()).await;
    world.fake.kill(&id);
    world.until("it is gone", |r| r.pods.is_empty()).await;
    assert_eq!(Instant::now(), unwanted);
    assert!(world.events_of("FailedPreStopHook").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_post_start_hook_holds_the_next_container_back_and_the_worker_still_listens() {
    let mut world = World::new();
    world.fake.answer_exec("main", Duration::from_secs(20), exits(0));
    world.start().await;
    let container = "lifecycle: {postStart: {exec: {command: [hook]}}}\n  - {name: next, image: 'x:1'}";
    let pod = pod_of("a", "terminationGracePeriodSeconds: 10", container);
    world.want(std::slice::from_ref(&pod)).await;
    world.fake.until("the hook runs", |fake| !fake.calls_of("exec").is_empty()).await;
    world.settle().await;
    assert_eq!(world.running(), ["a-node1/POD 0", "a-node1/main 0"]);
    assert!(!find(&world.report(), "a").unwrap().containers[0].ready, "not before its hook is done");
    world.healthy("a").await;
    let (hook, next) = (world.call_at("exec", "hook"), world.call_at("start", "next"));
    assert_eq!((next - hook).as_secs(), 20);
    // Again, and this time it is not wanted any more in the midst of it.
    world.want(&[]).await;
    world.until("it is gone", |r| r.pods.is_empty()).await;
    world.fake.clear_calls();
    world.want(&[pod]).await;
    world.fake.until("the hook runs", |fake| !fake.calls_of("exec").is_empty()).await;
    let unwanted = Instant::now();
    world.want(&[]).await;
    world.until("it is gone", |r| r.pods.is_empty()).await;
    assert_eq!(Instant::now(), unwanted);
}

#[tokio::test(start_paused = true)]
async fn a_post_start_hook_that_fails_gets_its_container_restarted_with_back_off() {
    let mut world = World::new();
    world.fake.answer_exec("main", Duration::ZERO, exits(1));
    world.fake.behave("main", Behaviour { sigterm_takes: Duration::from_secs(1), ..Behaviour::default() });
    world.start().await;
    world.want(&[hooked("postStart")]).await;
    let waits = |reason: &'static str| {
        move |r: &HealthReport| {
            let state = find(r, "a").and_then(|pod| pod.containers.first()).map(|container| &container.state);
            matches!(state, Some(StateReport::Waiting { reason: r, .. }) if r == reason)
        }
    };
    world.until("it says why", waits("PostStartHookError")).await;
    world.until("it backs off", waits("CrashLoopBackOff")).await;
    assert_eq!(world.fake.calls_of("start").iter().filter(|id| id.starts_with("main")).count(), 2);
    assert_eq!(world.events_of("FailedPostStartHook")[0].count, 2);
    let last = find(&world.report(), "a").unwrap().containers[0].last_termination.clone().unwrap();
    assert!(last.message.starts_with("its postStart hook failed: hook exited with code 1"), "{last:?}");
}

#[tokio::test(start_paused = true)]
async fn sidecars_end_last_and_in_reverse_also_when_the_agent_was_restarted_and_when_the_pod_finishes() {
    for case in ["removed", "removed after a restart", "finished", "sandbox lost"] {
        let mut world = World::new();
        let slow = Behaviour { sigterm_takes: Duration::from_secs(2), ..Behaviour::default() };
        for name in ["main", "one", "two"] {
            world.fake.behave(name, slow.clone());
        }
        if case == "finished" {
            let once = Behaviour { exits_after: Some((Duration::from_secs(5), 0)), ..Behaviour::default() };
            world.fake.behave("main", once);
        }
        world.start().await;
        let sidecar = |name: &str| format!("{{name: {name}, image: 'x:1', restartPolicy: Always}}");
        let sidecars = format!("initContainers: [{}, {}]", sidecar("one"), sidecar("two"));
        let spec = format!("terminationGracePeriodSeconds: 10\n  restartPolicy: OnFailure\n  {sidecars}");
        world.want(&[pod_of("a", &spec, "")]).await;
        world.healthy("a").await;
        let sandbox = world.fake.find("a-node1", "POD").unwrap().id;
        match case {
            "removed" => world.want(&[]).await,
            "finished" => {}
            "sandbox lost" => world.fake.kill(&sandbox),
            _ => {
                world.start().await;
                world.want(&[]).await;
            }
        }
        let ended = |fake: &FakeRuntime| fake.calls_of("stop").iter().any(|stop| stop.starts_with("one"));
        world.fake.until(case, ended).await;
        let stops: Vec<_> =
            world.fake.calls_of("stop").iter().map(|stop| stop.replace(['-', '1', '2', '3', '4'], "")).collect();
        let expected: &[&str] = match case {
            "finished" => &["two 0s", "one 8s"],
            _ => &["main 0s", "two 8s", "one 6s"],
        };
        assert_eq!(stops, expected, "{case}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_restarted_on_request_once_and_no_other() {
    use crate::agent::control::AgentView;
    let mut world = World::new();
    world.start().await;
    world.want(&[pod("a", ""), pod("b", "")]).await;
    let (a, b) = (world.healthy("a").await, world.healthy("b").await);
    let view = world.agent.as_ref().unwrap().view.clone();
    assert!(!view.restart("nobody"));
    assert!(view.restart(&a.uid) && view.restart(&a.uid), "asked twice");
    let is_new = |report: &HealthReport| {
        find(report, "a").is_some_and(|pod| pod.healthy && pod.containers[0].id != a.containers[0].id)
    };
    world.until("it is a new one", is_new).await;
    world.settle().await;
    assert_eq!(world.running(), ["a-node1/main 1", "b-node1/main 0"]);
    assert_eq!(world.healthy("b").await.containers[0].id, b.containers[0].id);
    assert_eq!(world.fake.calls_of("stop").len(), 1);
    let again = world.healthy("a").await;
    assert_eq!(again.uid, a.uid, "its manifest is the same");

    // It has not crashed so far, so its first crash has no back-off to wait for.
    let before = Instant::now();
    world.fake.kill(again.containers[0].id.as_deref().unwrap());
    let restarted = |report: &HealthReport| {
        find(report, "a").is_some_and(|pod| pod.healthy && pod.containers[0].id != again.containers[0].id)
    };
    world.until("it is started again", restarted).await;
    assert_eq!(Instant::now(), before, "no time passes");
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_ends_leaves_the_runtime_in_the_middle_of_nothing() {
    let root = tempfile::tempdir().unwrap();
    let fake = FakeRuntime::new();
    let mut options = AgentOptions::new("node1");
    options.root_dir = root.path().join("root");
    options.control_socket = root.path().join("agent.sock");
    options.static_pod_path = Some(root.path().join("manifests"));
    (options.healthz, options.read_only, options.server.listen) = (None, None, None);
    let end = CancellationToken::new();
    end.cancel();
    run_with(options, Arc::new(fake.clone()), Arc::new(Answers::default()), end).await.unwrap();
    let calls = fake.calls();
    assert_eq!(calls.last().map(|call| call.name), Some("finish"), "{calls:?}");
}
