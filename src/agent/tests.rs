//! The agent from its source on, against a runtime in memory and under a paused clock.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::pod::tests::read;
use super::pod::{PodKey, StaticPod};
use super::probe::{Outcome, Target};
use super::report::{HealthReport, Phase, PodReport, StateReport};
use super::source::Update;
use super::*;
use crate::runtime::{ContainerState, RuntimeError, labels};
use crate::testing::runtime::{Behaviour, FakeRuntime, MadeFrom};

/// Answers every check at once: well, unless told otherwise by the path of the request.
#[derive(Default)]
struct Answers(Mutex<HashMap<String, bool>>);

impl Answers {
    fn set(&self, path: &str, well: bool) {
        self.0.lock().unwrap().insert(path.to_owned(), well);
    }
}

#[async_trait]
impl probe::Checker for Answers {
    async fn check(&self, target: &Target, _: Duration) -> Outcome {
        let Target::Http { path, .. } = target else { return Outcome::Success { warning: None } };
        match self.0.lock().unwrap().get(path) {
            Some(false) => Outcome::Failure { message: "said no".into(), refused: false },
            _ => Outcome::Success { warning: None },
        }
    }
}

struct World {
    fake: FakeRuntime,
    answers: Arc<Answers>,
    root: TempDir,
    agent: Option<Running>,
}

struct Running {
    updates: mpsc::Sender<Update>,
    reports: watch::Receiver<Arc<HealthReport>>,
    end: CancellationToken,
    task: JoinHandle<()>,
}

impl World {
    fn new() -> Self {
        let fake = FakeRuntime::new().with_image("x:1").with_image("x:2").with_image(options::PAUSE_IMAGE);
        Self { fake, answers: Arc::default(), root: tempfile::tempdir().unwrap(), agent: None }
    }

    /// Starts an agent on the same root directory; an earlier one ends first, as a killed one does.
    async fn start(&mut self) {
        self.kill().await;
        let mut options = AgentOptions::new("node1");
        options.root_dir = self.root.path().join("root");
        options.pod_logs_dir = self.root.path().join("pods");
        options.container_logs_dir = self.root.path().join("containers");
        let end = CancellationToken::new();
        let context = Context::new(options, Arc::new(self.fake.clone()), self.answers.clone(), end.clone());
        let reports = context.board.reports();
        let (updates, receiver) = mpsc::channel(1);
        let (news_sender, news) = mpsc::channel(64);
        let (linked, until) = (Arc::clone(&context), end.clone());
        context.tasks.spawn(async move { until.run_until_cancelled(link::run(linked, news_sender)).await });
        let task = tokio::spawn(async move {
            Supervisor::new(Arc::clone(&context)).run(receiver, news).await;
            context.tasks.close();
            context.tasks.wait().await;
        });
        self.agent = Some(Running { updates, reports, end, task });
    }

    async fn kill(&mut self) {
        if let Some(agent) = self.agent.take() {
            agent.end.cancel();
            agent.task.await.unwrap();
        }
    }

    /// What the source wants from now on.
    async fn want(&self, pods: &[StaticPod]) {
        let pods = pods.iter().cloned().map(Arc::new).collect();
        self.update(Update { pods, problems: vec![], synced: true }).await;
    }

    async fn update(&self, update: Update) {
        self.agent.as_ref().unwrap().updates.send(update).await.unwrap();
    }

    /// Waits for a report of which this holds.
    async fn until(&self, what: &str, condition: impl Fn(&HealthReport) -> bool) -> Arc<HealthReport> {
        let mut reports = self.agent.as_ref().unwrap().reports.clone();
        let found = tokio::time::timeout(Duration::from_secs(3600), async {
            reports.wait_for(|report| condition(report)).await.unwrap().clone()
        });
        let found = found.await;
        found.unwrap_or_else(|_| panic!("{what}: {:#?} {:#?}", self.report(), self.fake.calls()))
    }

    fn report(&self) -> Arc<HealthReport> {
        self.agent.as_ref().unwrap().reports.borrow().clone()
    }

    async fn healthy(&self, pod: &str) -> PodReport {
        let report = self.until("healthy", |report| find(report, pod).is_some_and(|pod| pod.healthy)).await;
        find(&report, pod).unwrap().clone()
    }

    /// Waits until the agent has nothing to do but wait for time.
    async fn settle(&self) {
        for _ in 0..200 {
            tokio::task::yield_now().await;
        }
    }

    fn running(&self) -> Vec<String> {
        let all = self.fake.containers().into_iter().filter(|one| one.state.is_running());
        let mut running: Vec<_> =
            all.map(|one| format!("{}/{} {}", one.name.pod, one.name.container, one.name.attempt)).collect();
        running.sort();
        running
    }
}

fn find<'a>(report: &'a HealthReport, pod: &str) -> Option<&'a PodReport> {
    report.pods.iter().find(|one| one.name == format!("{pod}-node1"))
}

/// A pod with one container `main` on the host's network.
fn pod(name: &str, container: &str) -> StaticPod {
    pod_of(name, "hostNetwork: true", container)
}

fn pod_of(name: &str, spec: &str, container: &str) -> StaticPod {
    read(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  {spec}\n  containers:\n  - name: main\n    image: x:1\n    {container}\n"
    ))
    .unwrap()
}

fn component(name: &str) -> StaticPod {
    read(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: kube-system, labels: {{component: {name}, tier: control-plane}}}}\n\
         spec:\n  hostNetwork: true\n  containers:\n  - name: {name}\n    image: x:1\n    readinessProbe: {{httpGet: {{path: /{name}, port: 1}}}}\n"
    ))
    .unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_killed_container_is_replaced_the_moment_it_dies() {
    let mut world = World::new();
    world.start().await;
    world.want(&[pod("a", "")]).await;
    let first = world.healthy("a").await;
    let id = first.containers[0].id.clone().unwrap();
    world.fake.set_log(&id, &["one", "two"]);
    let before = Instant::now();
    world.fake.kill(&id);
    let report =
        world.until("restarted", |r| find(r, "a").is_some_and(|p| p.healthy && p.containers[0].restarts == 1)).await;
    assert_eq!(Instant::now(), before, "no time passes");
    let last = world.until("last words", |r| {
        find(r, "a").and_then(|p| p.containers[0].last_termination.as_ref()).is_some_and(|t| !t.log.is_empty())
    });
    let last = find(&*last.await, "a").unwrap().containers[0].last_termination.clone().unwrap();
    assert_eq!((last.exit_code, last.log), (137, vec!["one".to_owned(), "two".to_owned()]));
    assert_eq!(find(&report, "a").unwrap().uid, first.uid);
}

#[tokio::test(start_paused = true)]
async fn starts_of_a_crashing_container_follow_the_kubelets_back_off() {
    let mut world = World::new();
    world.fake.behave("main", Behaviour { exits_after: Some((Duration::from_secs(1), 1)), ..Behaviour::default() });
    world.start().await;
    world.want(&[pod("a", "")]).await;
    world.fake.until("seven starts", |fake| fake.calls_of("start").len() == 7).await;
    let starts: Vec<_> =
        world.fake.calls().into_iter().filter(|call| call.name == "start").map(|call| call.at).collect();
    let gaps: Vec<u64> = starts.windows(2).map(|pair| (pair[1] - pair[0]).as_secs()).collect();
    assert_eq!(gaps, [1, 11, 21, 41, 81, 161]);
    let report = world.until("backing off", |r| {
        find(r, "a").is_some_and(
            |p| matches!(&p.containers[0].state, StateReport::Waiting { reason, .. } if reason == "CrashLoopBackOff"),
        )
    });
    let report = report.await;
    let pod = find(&report, "a").unwrap();
    assert_eq!((pod.phase, pod.containers[0].restarts), (Phase::Running, 6));
    assert_eq!(pod.containers[0].last_termination.as_ref().unwrap().exit_code, 1);
    assert_eq!(world.fake.containers().len(), 1, "one dead instance is kept");
}

#[tokio::test(start_paused = true)]
async fn three_hundred_edits_while_the_old_one_stops_end_in_one_start_of_the_last() {
    let mut world = World::new();
    let slow = Behaviour { ignores_sigterm: true, ..Behaviour::default() };
    world.fake.behave("main", slow);
    world.start().await;
    world.want(&[pod_of("a", "hostNetwork: true\n  terminationGracePeriodSeconds: 20", "")]).await;
    world.healthy("a").await;
    let edited = Instant::now();
    for edit in 1..=300 {
        if edit == 2 {
            // The first one has its stop by now; its successors are polite.
            world.fake.until("the stop is under way", |fake| !fake.calls_of("stop").is_empty()).await;
            world.fake.behave("main", Behaviour::default());
        }
        world.want(&[pod("a", &format!("args: ['{edit}']"))]).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let last = pod("a", "args: ['300']");
    world.until("the last edit runs", |r| find(r, "a").is_some_and(|p| p.healthy && p.uid == last.uid)).await;
    assert_eq!(world.fake.calls_of("start").len(), 2);
    let stops = world.fake.calls_of("stop");
    assert_eq!(stops.len(), 1, "an edit does not give the old one its grace anew: {stops:?}");
    assert_eq!((Instant::now() - edited).as_secs(), 20, "the old one had its grace, the new one did not wait longer");
}

#[tokio::test(start_paused = true)]
async fn a_pod_behind_a_sandbox_is_rebuilt_when_that_dies() {
    let mut world = World::new();
    world.start().await;
    world.want(&[pod_of("a", "hostNetwork: false", "")]).await;
    world.healthy("a").await;
    assert_eq!(world.running(), ["a-node1/POD 0", "a-node1/main 0"]);
    let Some(MadeFrom::Container(config)) = world.fake.made_from(&world.fake.find("a-node1", "main").unwrap().id)
    else {
        panic!("a container");
    };
    let sandbox = world.fake.find("a-node1", "POD").unwrap();
    assert_eq!(config.sandbox.as_deref(), Some(sandbox.id.as_str()));
    assert_eq!(config.labels[labels::SANDBOX_ID], sandbox.id);
    world.fake.kill(&sandbox.id);
    world.until("rebuilt", |r| find(r, "a").is_some_and(|p| p.healthy && p.containers[0].restarts == 1)).await;
    assert_eq!(world.running(), ["a-node1/POD 1", "a-node1/main 1"]);
}

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
async fn orphans_get_their_grace_and_end_before_a_successor_of_their_name_starts() {
    let mut world = World::new();
    world.start().await;
    let old = |name| pod_of(name, "hostNetwork: true\n  terminationGracePeriodSeconds: 9", "");
    world.want(&[old("a"), old("b")]).await;
    world.healthy("a").await;
    world.healthy("b").await;
    world.kill().await;
    world.fake.clear_calls();
    let slow = Behaviour { sigterm_takes: Duration::from_secs(3), ..Behaviour::default() };
    world.fake.behave("main", slow);
    world.start().await;
    world.update(Update::default()).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.running().len(), 2, "before the source was read nobody knows that they are orphans");
    world.want(&[pod("a", "args: [new]")]).await;
    world.healthy("a").await;
    world.fake.until("all is gone", |fake| fake.containers().len() == 1).await;
    let calls = world.fake.calls();
    let at = |name: &str, part: &str| {
        calls
            .iter()
            .position(|call| call.name == name && call.argument.contains(part))
            .unwrap_or_else(|| panic!("{name} {part}"))
    };
    assert!(at("remove", "main-1") < at("create_container", "a-node1"), "{calls:#?}");
    assert!(world.fake.calls_of("stop").iter().all(|stop| stop.ends_with(" 9s")), "{:?}", world.fake.calls_of("stop"));
    assert_eq!(world.until("one pod", |r| r.pods.len() == 1).await.pods[0].name, "a-node1");
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
async fn a_container_removed_by_hand_comes_back_counted() {
    let mut world = World::new();
    world.start().await;
    world.want(&[pod("a", "")]).await;
    let id = world.healthy("a").await.containers[0].id.clone().unwrap();
    world.fake.destroy(&id);
    let report =
        world.until("back", |r| find(r, "a").is_some_and(|p| p.healthy && p.containers[0].id.as_ref() != Some(&id)));
    let report = report.await;
    assert_eq!(find(&report, "a").unwrap().containers[0].restarts, 1);
}

#[tokio::test(start_paused = true)]
async fn an_image_that_cannot_be_had_is_asked_for_again_later_and_holds_up_no_other_pod() {
    let mut world = World::new();
    world.start().await;
    let absent = read(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {hostNetwork: true, containers: [{name: c, image: 'absent:1'}]}\n",
    );
    let absent = absent.unwrap();
    world.want(&[absent.clone(), pod("b", "")]).await;
    world.healthy("b").await;
    let waits = |reason: &'static str| {
        move |r: &HealthReport| {
            find(r, "a").is_some_and(
                |p| matches!(&p.containers[0].state, StateReport::Waiting { reason: r, .. } if r == reason),
            )
        }
    };
    let first = world.until("first failure", waits("ErrImagePull")).await;
    assert!(find(&first, "a").unwrap().message.as_ref().unwrap().contains("absent:1"), "{first:#?}");
    world.until("second failure", waits("ImagePullBackOff")).await;
    let pulls: Vec<_> = world.fake.calls().into_iter().filter(|call| call.name == "pull").map(|call| call.at).collect();
    assert_eq!(pulls[1] - pulls[0], Duration::from_secs(10));
    // Another manifest does not wait for the first one's back-off.
    let fixed = Instant::now();
    world.want(&[pod("a", ""), pod("b", "")]).await;
    world.healthy("a").await;
    assert_eq!(Instant::now(), fixed);
}

#[tokio::test(start_paused = true)]
async fn a_pull_is_given_up_when_its_pod_is_not_wanted_any_more() {
    let mut world = World::new();
    world.fake.registry_has("slow:1", Duration::from_secs(1000));
    world.start().await;
    let slow = read(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {hostNetwork: true, containers: [{name: main, image: 'slow:1'}]}\n",
    );
    world.want(&[slow.unwrap()]).await;
    world.fake.until("it pulls", |fake| !fake.calls_of("pull").is_empty()).await;
    let edited = Instant::now();
    world.want(&[pod("a", "")]).await;
    world.healthy("a").await;
    assert_eq!(Instant::now(), edited);
    world.want(&[]).await;
    world.until("gone", |r| r.pods.is_empty()).await;
    assert!(world.fake.containers().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_failing_liveness_probe_gets_the_container_restarted() {
    let mut world = World::new();
    world.start().await;
    let probe = "livenessProbe: {httpGet: {path: /live, port: 1}, periodSeconds: 10, failureThreshold: 2}";
    world.want(&[pod("a", probe), pod("b", "")]).await;
    world.healthy("a").await;
    world.answers.set("/live", false);
    world.until("unhealthy", |r| find(r, "a").is_some_and(|p| !p.healthy)).await;
    world.fake.until("stopped", |fake| !fake.calls_of("stop").is_empty()).await;
    world.answers.set("/live", true);
    let report =
        world.until("restarted", |r| find(r, "a").is_some_and(|p| p.healthy && p.containers[0].restarts == 1)).await;
    let ended = find(&report, "a").unwrap().containers[0].last_termination.as_ref().unwrap();
    assert!(ended.message.starts_with("Liveness probe failed 2 times in a row: said no"), "{ended:?}");
    assert_eq!(find(&report, "b").unwrap().containers[0].restarts, 0);
}

#[tokio::test(start_paused = true)]
async fn a_control_plane_starts_in_order_and_waits_for_nobody_for_ever() {
    let pods = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"].map(component);
    let mut world = World::new();
    world.answers.set("/kube-apiserver", false);
    world.start().await;
    world.want(&pods).await;
    world.fake.until("the first two run", |fake| fake.calls_of("start").len() == 2).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(world.running(), ["etcd-node1/etcd 0", "kube-apiserver-node1/kube-apiserver 0"]);
    let held = find(&world.report(), "kube-scheduler").unwrap().message.clone();
    assert_eq!(held.as_deref(), Some("waiting for kube-apiserver to become healthy"));
    world.answers.set("/kube-apiserver", true);
    for pod in &pods {
        world.healthy(pod.key.name.trim_end_matches("-node1")).await;
    }
    // A later crash of one that waited is not held back, whatever the API server does then.
    world.answers.set("/kube-apiserver", false);
    world.until("the API server is unhealthy", |r| find(r, "kube-apiserver").is_some_and(|p| !p.healthy)).await;
    let crashed = Instant::now();
    world.fake.kill(&world.fake.find("kube-scheduler-node1", "kube-scheduler").unwrap().id);
    world
        .until("the scheduler is back", |r| {
            find(r, "kube-scheduler").is_some_and(|p| p.healthy && p.containers[0].restarts == 1)
        })
        .await;
    assert_eq!(Instant::now(), crashed);
}

#[tokio::test(start_paused = true)]
async fn the_start_order_ends_with_a_crash_and_after_thirty_seconds() {
    let pods = ["kube-apiserver", "kube-scheduler"].map(component);
    for crash in [true, false] {
        let mut world = World::new();
        world.answers.set("/kube-apiserver", false);
        if crash {
            let crashing = Behaviour { exits_after: Some((Duration::from_secs(2), 1)), ..Behaviour::default() };
            world.fake.behave("kube-apiserver", crashing);
        }
        world.start().await;
        let began = Instant::now();
        world.want(&pods).await;
        world.healthy("kube-scheduler").await;
        assert_eq!((Instant::now() - began).as_secs(), if crash { 2 } else { 30 });
    }
}

#[tokio::test(start_paused = true)]
async fn an_identical_pod_that_comes_back_while_it_stops_is_stopped_first() {
    let mut world = World::new();
    let slow = Behaviour { sigterm_takes: Duration::from_secs(3), ..Behaviour::default() };
    world.fake.behave("main", slow);
    world.start().await;
    world.want(&[pod("a", "")]).await;
    let first = world.healthy("a").await;
    world.want(&[]).await;
    world.until("it stops", |r| find(r, "a").is_some_and(|p| p.terminating)).await;
    world.want(&[pod("a", "")]).await;
    let waiting = world.until("it is wanted", |r| find(r, "a").is_some_and(|p| !p.terminating)).await;
    assert!(!find(&waiting, "a").unwrap().healthy, "what is being stopped is not healthy, wanted or not");
    let again = world.until("it runs again", |r| find(r, "a").is_some_and(|p| p.healthy)).await;
    let again = find(&again, "a").unwrap();
    assert_eq!(again.uid, first.uid);
    assert_ne!(again.containers[0].id, first.containers[0].id);
    assert_eq!(world.fake.containers().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_pod_whose_volume_is_not_as_it_should_be_waits_and_says_why() {
    let mut world = World::new();
    let file = world.root.path().join("file");
    world.start().await;
    let spec =
        format!("hostNetwork: true\n  volumes: [{{name: v, hostPath: {{path: {}, type: File}}}}]", file.display());
    world.want(&[pod_of("a", &spec, "volumeMounts: [{name: v, mountPath: /v}]")]).await;
    let report = world
        .until("it says why", |r| {
            find(r, "a").is_some_and(|p| p.message.as_ref().is_some_and(|m| m.contains("volume v")))
        })
        .await;
    let waiting = &find(&report, "a").unwrap().containers[0].state;
    assert!(matches!(waiting, StateReport::Waiting { reason, .. } if reason == "ContainerCreating"), "{waiting:?}");
    std::fs::File::create(&file).unwrap();
    world.healthy("a").await;
}

#[tokio::test(start_paused = true)]
async fn a_container_that_must_not_be_root_and_would_be_is_not_made() {
    let mut world = World::new();
    world.start().await;
    world.want(&[pod("a", "securityContext: {runAsNonRoot: true}")]).await;
    let refused = |r: &HealthReport| {
        let state = find(r, "a").and_then(|p| p.containers.first()).map(|c| c.state.clone());
        matches!(state, Some(StateReport::Waiting { reason, message })
            if reason == "CreateContainerConfigError" && message == "container has runAsNonRoot and image will run as root")
    };
    world.until("it says why", refused).await;
    assert_eq!(world.fake.calls_of("create_container"), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_finished_pod_stays_finished_and_is_reported() {
    let mut world = World::new();
    let behaviour = |code| Behaviour { exits_after: Some((Duration::from_secs(1), code)), ..Behaviour::default() };
    world.fake.behave("main", behaviour(0));
    world.start().await;
    world.want(&[pod_of("a", "restartPolicy: OnFailure", "")]).await;
    let done = |r: &HealthReport| find(r, "a").is_some_and(|p| p.phase == Phase::Succeeded);
    world.until("it succeeds", done).await;
    world.fake.until("its sandbox stops", |fake| fake.containers().iter().all(|one| !one.state.is_running())).await;
    world.start().await;
    world.want(&[pod_of("a", "restartPolicy: OnFailure", "")]).await;
    world.until("it has succeeded", done).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(world.fake.containers().iter().all(|one| matches!(one.state, ContainerState::Exited { .. })));
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

#[tokio::test(start_paused = true)]
async fn comments_change_what_is_reported_of_the_file_and_nothing_else() {
    let mut world = World::new();
    world.start().await;
    let mut one = pod("a", "");
    world.want(&[one.clone()]).await;
    let before = world.healthy("a").await;
    one.file_hash = "other".into();
    world.want(&[one]).await;
    let after =
        world.until("the new hash", |r| find(r, "a").is_some_and(|p| p.file_hash.as_deref() == Some("other"))).await;
    let after = find(&after, "a").unwrap();
    assert!(after.healthy);
    assert_eq!(after.containers, before.containers);
    assert_eq!(after.since, before.since);
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

#[test]
fn a_pod_key_reads_as_people_write_it() {
    let key = PodKey { namespace: "kube-system".into(), name: "etcd-n".into() };
    assert_eq!(key.to_string(), "kube-system/etcd-n");
}
