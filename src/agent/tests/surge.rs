//! A pod that is started beside the one it replaces.

mod restart;

use std::net::{Ipv4Addr, SocketAddr};

use super::*;
use crate::agent::control::AgentView;
use crate::agent::control::expect::{Expectation, Verdict, judge};
use crate::agent::probe::{Route, SharedPorts};

/// Writes down what is asked of it.
#[derive(Default)]
struct Ports {
    calls: Mutex<Vec<&'static str>>,
    refuses: Mutex<Option<&'static str>>,
}

impl SharedPorts for Ports {
    fn hold(&self, _: u16, _: bool) -> Result<Route, String> {
        self.calls.lock().unwrap().push("hold");
        match *self.refuses.lock().unwrap() {
            Some(why) => Err(why.to_owned()),
            None => Ok(Route::to(SocketAddr::from((Ipv4Addr::LOCALHOST, 1))).unwrap()),
        }
    }

    fn switch(&self, _: &Route) -> Result<(), String> {
        self.calls.lock().unwrap().push("switch");
        Ok(())
    }

    fn give_back(&self, _: u16) -> Result<(), String> {
        self.calls.lock().unwrap().push("give back");
        Ok(())
    }

    fn has_room(&self, _: Option<u32>) -> Result<(), String> {
        self.calls.lock().unwrap().push("room");
        Ok(())
    }
}

/// A world whose `/readyz` says no to what is asked beside another one.
struct Bench {
    world: World,
    ports: Arc<Ports>,
}

impl Bench {
    async fn new() -> Self {
        let mut bench = Self { world: World::new(), ports: Arc::default() };
        bench.world.answers.set("/readyz beside", false);
        bench.start().await;
        bench
    }

    async fn start(&mut self) {
        let ports = Arc::clone(&self.ports);
        self.world.start_with(|context| context.shared_ports = ports).await;
    }

    fn ready(&self) {
        self.world.answers.set("/readyz beside", true);
    }

    fn calls(&self) -> Vec<&'static str> {
        std::mem::take(&mut *self.ports.calls.lock().unwrap())
    }

    /// Waits until so many containers of the pod run, by their images.
    async fn runs(&self, images: &[&str]) {
        let all = |fake: &FakeRuntime| {
            let mut all: Vec<_> = fake.containers().into_iter().filter(|one| one.state.is_running()).collect();
            all.sort_by_key(|one| one.created_at);
            all.into_iter().map(|one| one.image).collect::<Vec<_>>()
        };
        let wanted: Vec<String> = images.iter().map(|image| (*image).to_owned()).collect();
        self.world.fake.until(&format!("{images:?}"), |fake| all(fake) == wanted).await;
    }

    /// Ids of the containers that run, the oldest first.
    fn running(&self) -> Vec<String> {
        let mut all: Vec<_> = self.world.fake.containers().into_iter().filter(|one| one.state.is_running()).collect();
        all.sort_by_key(|one| one.created_at);
        all.into_iter().map(|one| one.id).collect()
    }

    fn restart(&self, uid: &str) {
        assert!(self.world.agent.as_ref().unwrap().view.restart(uid));
    }

    fn id_of(&self, image: &str) -> String {
        let mut all = self.world.fake.containers().into_iter();
        all.find(|one| one.image == image && one.state.is_running()).unwrap().id
    }

    fn events(&self) -> Vec<String> {
        let all = self.world.agent.as_ref().unwrap().events.since(0);
        all.iter().filter(|event| event.reason.starts_with("Surge")).map(|event| event.message.clone()).collect()
    }

    async fn until_shown(&self, what: &str, image: &str) -> PodReport {
        let shown = |report: &HealthReport| {
            find(report, "a").is_some_and(|pod| pod.healthy && pod.containers[0].image == image)
        };
        let report = self.world.until(what, shown).await;
        find(&report, "a").unwrap().clone()
    }
}

const READY: &str = "readinessProbe: {httpGet: {path: /readyz, port: 6443}, periodSeconds: 1}";

fn sharing(image: &str, annotation: &str, flag: &str) -> StaticPod {
    read(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: a, annotations: {{kubeboot.dev/surge: '{annotation}'}}}}\nspec:\n  \
         hostNetwork: true\n  containers:\n  - name: main\n    image: {image}\n    command: [serve, '{flag}']\n    {READY}\n"
    ))
    .unwrap()
}

fn asking(image: &str) -> StaticPod {
    sharing(image, "true", "--permit-port-sharing=true")
}

#[tokio::test(start_paused = true)]
async fn the_old_one_serves_and_is_shown_until_the_new_one_is_ready_and_then_ends() {
    let bench = Bench::new().await;
    let takes = Duration::from_secs(9);
    bench.world.fake.behave("main", Behaviour { sigterm_takes: takes, ..Behaviour::default() });
    bench.world.want(&[asking("x:1")]).await;
    let old = bench.world.healthy("a").await;
    bench.world.want(&[asking("x:2")]).await;
    bench.runs(&["x:1", "x:2"]).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    bench.runs(&["x:1", "x:2"]).await;
    assert!(bench.world.fake.calls_of("stop").is_empty());
    let shown = find(&bench.world.report(), "a").unwrap().clone();
    assert_eq!((&shown.uid, shown.healthy, shown.ready), (&old.uid, true, true));
    let successor = shown.successor.unwrap();
    assert!(successor.uid != old.uid && !successor.healthy, "{successor:#?}");
    assert_eq!(bench.calls(), ["room", "hold"]);

    bench.ready();
    let new = bench.until_shown("the new one is shown", "x:2").await;
    assert!(new.successor.is_none() && new.containers[0].restarts == 0);
    assert_eq!(bench.calls(), ["switch"]);
    let switched = Instant::now();
    bench.runs(&["x:1", "x:2"]).await;
    assert!(bench.world.fake.calls_of("stop").is_empty(), "it has a moment before it is told to end");
    bench.runs(&["x:2"]).await;
    let ended = switched.elapsed().checked_sub(takes).unwrap();
    assert!((Duration::from_secs(6)..Duration::from_secs(9)).contains(&ended), "{ended:?}");
    assert_eq!(bench.events().len(), 2, "{:?}", bench.events());
    // And again, from the one that is there now.
    bench.world.answers.set("/readyz beside", false);
    bench.world.want(&[asking("x:1")]).await;
    bench.runs(&["x:2", "x:1"]).await;
    bench.ready();
    bench.until_shown("the third one is shown", "x:1").await;
    bench.runs(&["x:1"]).await;
}

#[tokio::test(start_paused = true)]
async fn one_that_is_wanted_again_before_it_has_ended_goes_on_and_so_does_any_other() {
    let bench = Bench::new().await;
    bench.world.fake.add_image("x:3");
    bench.world.want(&[asking("x:1")]).await;
    bench.world.healthy("a").await;
    let own = bench.id_of("x:1");
    bench.world.want(&[asking("x:2")]).await;
    bench.ready();
    bench.until_shown("the new one", "x:2").await;
    bench.world.want(&[asking("x:1")]).await;
    bench.until_shown("the old one again", "x:1").await;
    bench.runs(&["x:1"]).await;
    assert_eq!(bench.id_of("x:1"), own);
    assert_eq!(bench.calls(), ["room", "hold", "switch", "give back"]);

    bench.world.want(&[asking("x:2")]).await;
    bench.until_shown("the new one", "x:2").await;
    bench.world.want(&[asking("x:3")]).await;
    bench.until_shown("the last one", "x:3").await;
    bench.runs(&["x:3"]).await;
    assert_eq!(bench.calls(), ["room", "hold", "switch", "room", "hold", "switch"]);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_did_not_ask_or_runs_without_the_flag_is_never_there_twice() {
    let plain = || sharing("x:1", "false", "--permit-port-sharing=true");
    for (before, after, said) in [
        (plain(), sharing("x:2", "false", "--permit-port-sharing=true"), None),
        (plain(), asking("x:2"), Some("was not started with --permit-port-sharing=true")),
        (sharing("x:1", "true", "--other"), asking("x:2"), Some("was not started with")),
        (asking("x:1"), sharing("x:2", "true", "--other"), Some("does not run with --permit-port-sharing=true")),
        (asking("x:1"), sharing("x:2", "", "--permit-port-sharing=true"), None),
    ] {
        let bench = Bench::new().await;
        bench.world.want(&[before]).await;
        bench.world.healthy("a").await;
        bench.world.want(&[after]).await;
        bench.until_shown("the new one is shown", "x:2").await;
        let calls = bench.world.fake.calls();
        let at = |name: &str, n: usize| calls.iter().enumerate().filter(|(_, one)| one.name == name).nth(n).unwrap().0;
        assert!(at("stop", 0) < at("start", 1), "{calls:#?}");
        assert!(bench.calls().is_empty());
        let events = bench.events();
        assert_eq!(events.len(), usize::from(said.is_some()), "{events:?}");
        assert!(said.is_none_or(|said| events[0].contains(said)), "{events:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn where_it_cannot_be_done_the_pod_is_restarted_as_any_other_and_an_event_says_why() {
    let bench = Bench::new().await;
    bench.world.want(&[asking("x:1")]).await;
    bench.world.healthy("a").await;
    *bench.ports.refuses.lock().unwrap() = Some("no way");
    bench.world.want(&[asking("x:2")]).await;
    bench.until_shown("the new one is shown", "x:2").await;
    assert_eq!(bench.world.fake.calls_of("stop").len(), 1);
    assert_eq!(bench.events(), ["The instance before is stopped first: no way"]);
}

#[tokio::test(start_paused = true)]
async fn one_that_crashes_is_tried_again_beside_the_old_one_and_an_upgrade_hears_of_it() {
    let bench = Bench::new().await;
    bench.world.want(&[asking("x:1")]).await;
    bench.world.healthy("a").await;
    let broken = asking("x:2");
    bench.world.want(std::slice::from_ref(&broken)).await;
    for _ in 0..3 {
        bench.runs(&["x:1", "x:2"]).await;
        bench.world.fake.exit_container(&bench.id_of("x:2"), 1);
        bench.runs(&["x:1"]).await;
    }
    let loops = |pod: &PodReport| {
        let successor = pod.successor.as_ref();
        let waits = |one: &PodReport| matches!(&one.containers[0].state, StateReport::Waiting { reason, .. } if reason == "CrashLoopBackOff");
        pod.healthy && successor.is_some_and(|one| waits(one))
    };
    let report = bench.world.until("it backs off", |r| find(r, "a").is_some_and(loops)).await;
    let mut of_component = (*report).clone();
    of_component.pods.iter_mut().flat_map(|pod| pod.successor.as_mut()).for_each(|pod| {
        pod.file_hash = Some("new".into());
    });
    of_component.pods.iter_mut().for_each(|pod| pod.component = Some("a".into()));
    let want = Expectation { component: "a".into(), file: "/m/p.yaml".into(), file_hash: Some("new".into()) };
    let verdict = judge(&of_component, &want);
    assert!(matches!(&verdict, Verdict::Failed(failure) if failure.exit_code == Some(1)), "{verdict:?}");
    assert!(bench.world.fake.calls_of("stop").is_empty());

    // It is rolled back: the old one has run all the while.
    bench.world.want(&[asking("x:1")]).await;
    let alone = |pod: &PodReport| pod.healthy && pod.successor.is_none() && pod.containers[0].image == "x:1";
    let report = bench.world.until("the old one alone", |r| find(r, "a").is_some_and(alone)).await;
    assert_eq!(find(&report, "a").unwrap().containers[0].restarts, 0);
    bench.world.fake.until("the new one is gone", |fake| fake.containers().iter().all(|one| one.image != "x:2")).await;
    bench.runs(&["x:1"]).await;
    let own = bench.id_of("x:1");
    assert!(bench.world.fake.calls_of("stop").iter().all(|id| !id.contains(&own)));
}

#[tokio::test(start_paused = true)]
async fn an_image_that_cannot_be_had_leaves_the_old_one_alone() {
    let bench = Bench::new().await;
    bench.world.want(&[asking("x:1")]).await;
    bench.world.healthy("a").await;
    bench.world.want(&[asking("none:1")]).await;
    let waits = |pod: &PodReport| {
        let state = pod.successor.as_ref().map(|one| one.containers[0].state.clone());
        pod.healthy && matches!(state, Some(StateReport::Waiting { reason, .. }) if reason.contains("Image"))
    };
    bench.world.until("it waits", |r| find(r, "a").is_some_and(waits)).await;
    bench.runs(&["x:1"]).await;
    assert!(bench.world.fake.calls_of("stop").is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_old_one_that_dies_meanwhile_leaves_the_place_to_the_new_one() {
    let bench = Bench::new().await;
    bench.world.want(&[asking("x:1")]).await;
    let old = bench.world.healthy("a").await.uid;
    bench.world.want(&[asking("x:2")]).await;
    bench.runs(&["x:1", "x:2"]).await;
    let new = bench.id_of("x:2");
    bench.world.fake.exit_container(&bench.id_of("x:1"), 1);
    // It is asked as any other then, and answers.
    let shown = bench.until_shown("the new one", "x:2").await;
    assert!(shown.uid != old && shown.containers[0].id.as_ref() == Some(&new) && shown.containers[0].restarts == 0);
    bench.runs(&["x:2"]).await;
    assert_eq!(bench.calls(), ["room", "hold"]);
}

#[tokio::test(start_paused = true)]
async fn a_manifest_that_changes_again_takes_the_place_of_the_one_that_was_tried() {
    let bench = Bench::new().await;
    bench.world.fake.add_image("x:3");
    bench.world.want(&[asking("x:1")]).await;
    let old = bench.world.healthy("a").await;
    bench.world.want(&[asking("x:2")]).await;
    bench.runs(&["x:1", "x:2"]).await;
    bench.world.want(&[asking("x:3")]).await;
    // Never three at once.
    bench.runs(&["x:1"]).await;
    bench.runs(&["x:1", "x:3"]).await;
    let shown = find(&bench.world.report(), "a").unwrap().clone();
    assert_eq!((&shown.uid, shown.healthy), (&old.uid, true));
    bench.ready();
    bench.until_shown("the last one", "x:3").await;
    bench.runs(&["x:3"]).await;
    assert_eq!(bench.calls(), ["room", "hold", "room", "hold", "switch"]);
}

#[tokio::test(start_paused = true)]
async fn a_manifest_that_is_removed_meanwhile_ends_both() {
    let bench = Bench::new().await;
    bench.world.want(&[asking("x:1")]).await;
    bench.world.healthy("a").await;
    bench.world.want(&[asking("x:2")]).await;
    bench.runs(&["x:1", "x:2"]).await;
    bench.world.want(&[]).await;
    bench.world.until("both are gone", |report| report.pods.is_empty()).await;
    assert!(bench.world.fake.containers().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_starts_in_between_goes_on() {
    for ready in [false, true] {
        let mut bench = Bench::new().await;
        bench.world.want(&[asking("x:1")]).await;
        bench.world.healthy("a").await;
        bench.world.want(&[asking("x:2")]).await;
        bench.runs(&["x:1", "x:2"]).await;
        let new = bench.id_of("x:2");
        bench.calls();
        bench.world.kill().await;
        if ready {
            bench.ready();
        }
        bench.start().await;
        bench.world.want(&[asking("x:2")]).await;
        if !ready {
            tokio::time::sleep(Duration::from_secs(20)).await;
            bench.runs(&["x:1", "x:2"]).await;
            assert!(bench.world.fake.calls_of("stop").is_empty());
            bench.ready();
        }
        let shown = bench.until_shown("the new one", "x:2").await;
        assert_eq!(shown.containers[0].id.as_ref(), Some(&new));
        bench.runs(&["x:2"]).await;
        assert_eq!(bench.calls(), ["hold", "switch"], "{ready}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_old_one_whose_liveness_probe_fails_for_good_ends_and_the_new_one_goes_on() {
    let bench = Bench::new().await;
    let live = |image: &str| {
        let pod = serde_json::to_string(&asking(image).to_pod()).unwrap();
        let probe = r#""livenessProbe":{"httpGet":{"path":"/livez","port":6443},"periodSeconds":1,"failureThreshold":2},"name":"main""#;
        read(&pod.replace(r#""name":"main""#, probe)).unwrap()
    };
    bench.world.want(&[live("x:1")]).await;
    bench.world.healthy("a-node1").await;
    bench.world.want(&[live("x:2")]).await;
    bench.runs(&["x:1", "x:2"]).await;
    let new = bench.id_of("x:2");
    bench.world.answers.set("/livez", false);
    bench.runs(&["x:2"]).await;
    assert_eq!(bench.id_of("x:2"), new);
}
