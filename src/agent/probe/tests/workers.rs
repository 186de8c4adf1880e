use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::super::worker::pace;
use super::super::*;
use super::{container, error, failure, success};
use crate::agent::events::Recorder;
use crate::agent::pod::PodKey;
use crate::host::clock::Instant;

/// Answers by port from a script, the last answer for ever, and remembers when it was asked.
#[derive(Default)]
struct Script {
    answers: Mutex<HashMap<u16, VecDeque<Outcome>>>,
    asked: Mutex<Vec<(u16, Instant)>>,
}

const LIVENESS: u16 = 1;
const READINESS: u16 = 2;
const STARTUP: u16 = 3;

#[async_trait]
impl Checker for Script {
    async fn check(&self, target: &Target, _: Duration) -> Outcome {
        let Target::Tcp { port, .. } = target else { panic!("{target:?}") };
        self.asked.lock().unwrap().push((*port, Instant::now()));
        let mut answers = self.answers.lock().unwrap();
        let answers = answers.get_mut(port).expect("an answer for the port");
        if answers.len() > 1 { answers.pop_front().unwrap() } else { answers[0].clone() }
    }
}

struct Bench {
    script: Arc<Script>,
    manager: Manager,
    events: Arc<Recorder>,
    root: Arc<TempDir>,
    woken: mpsc::UnboundedReceiver<String>,
    begun: Instant,
}

fn refused() -> Outcome {
    Outcome::Failure { message: "connection refused".into(), refused: true }
}

impl Bench {
    fn new(answers: &[(u16, &[Outcome])]) -> Self {
        let script = Arc::new(Script::default());
        for (port, outcomes) in answers {
            script.answers.lock().unwrap().insert(*port, outcomes.iter().cloned().collect());
        }
        Self::over(script, Arc::new(tempfile::tempdir().unwrap()))
    }

    /// A manager of its own on this script and root directory, as an agent has after a restart.
    fn over(script: Arc<Script>, root: Arc<TempDir>) -> Self {
        let (send, woken) = mpsc::unbounded_channel();
        let wake: Wake = Arc::new(move |uid: &str| send.send(uid.to_owned()).unwrap());
        let events = Arc::new(Recorder::default());
        std::fs::create_dir_all(root.path().join("pods/uid")).unwrap();
        let memory = Memory::new(root.path());
        let manager = Manager::new(Arc::clone(&script) as _, wake, Arc::clone(&events), memory);
        Self { manager, script, events, root, woken, begun: Instant::now() }
    }

    /// Runs a container that started `age` ago.
    fn run(&self, id: &str, age: Duration, probes: serde_json::Value) {
        self.manager.set_containers(&key(), "uid", vec![probed(id, age, &probes)]);
    }

    fn health(&self) -> Health {
        self.manager.results("uid").remove("web").unwrap()
    }

    async fn until(&mut self, what: impl Fn(&Health) -> bool) -> Duration {
        let wait = async {
            while !what(&self.health()) {
                assert_eq!(self.woken.recv().await.unwrap(), "uid");
            }
        };
        timeout(Duration::from_secs(3600), wait).await.expect("the health that was waited for");
        self.begun.elapsed()
    }

    /// When this port was asked, in milliseconds.
    fn asked(&self, port: u16) -> Vec<u128> {
        let asked = self.script.asked.lock().unwrap();
        asked.iter().filter(|(p, _)| *p == port).map(|(_, at)| (*at - self.begun).as_millis()).collect()
    }
}

fn key() -> PodKey {
    PodKey { namespace: "default".into(), name: "pod-node1".into() }
}

fn probed(id: &str, age: Duration, probes: &serde_json::Value) -> ProbedContainer {
    let mut value = json!({"name": "web"});
    for (field, port) in [("livenessProbe", LIVENESS), ("readinessProbe", READINESS), ("startupProbe", STARTUP)] {
        if let Some(fields) = probes.get(field) {
            value[field] = fields.clone();
            value[field]["tcpSocket"] = json!({"port": port});
        }
    }
    ProbedContainer {
        route: None,
        name: "web".into(),
        id: id.into(),
        started_at: Timestamp::now() - age,
        ip: None,
        stopping: false,
        probes: Arc::new(Probes::of(&container(value)).0),
    }
}

/// The age of a container is read from the wall clock, which goes on while tokio's stands still.
const WALL_CLOCK: Duration = Duration::from_millis(500);

fn seconds(range: std::ops::Range<u64>, found: Duration) {
    assert!(
        found + WALL_CLOCK >= Duration::from_secs(range.start) && found < Duration::from_secs(range.end),
        "{found:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn healthy_comes_with_the_first_answer_and_ready_after_the_initial_delay() {
    let mut bench = Bench::new(&[(READINESS, &[refused(), refused(), failure("503"), success()])]);
    bench.run("a", Duration::ZERO, json!({"readinessProbe": {"initialDelaySeconds": 30}}));
    let healthy = bench.until(|h| h.healthy).await;
    assert!(healthy <= Duration::from_millis(100), "{healthy:?}");
    assert!(!bench.health().ready);
    assert_eq!(bench.asked(READINESS).len(), 4);
    seconds(29..31, bench.until(|h| h.ready).await);
    assert_eq!(bench.asked(READINESS).len(), 5, "no more eager asking after the first success");
}

#[tokio::test(start_paused = true)]
async fn a_container_adopted_long_after_its_start_is_ready_at_once() {
    let mut bench = Bench::new(&[(READINESS, &[success()])]);
    bench.run("a", Duration::from_secs(300), json!({"readinessProbe": {"initialDelaySeconds": 60}}));
    seconds(0..1, bench.until(|h| h.ready && h.healthy).await);
}

#[tokio::test(start_paused = true)]
async fn liveness_and_readiness_wait_for_startup() {
    let mut bench =
        Bench::new(&[(STARTUP, &[failure("no")]), (LIVENESS, &[failure("no")]), (READINESS, &[failure("no")])]);
    bench.run(
        "a",
        Duration::ZERO,
        json!({
            "startupProbe": {"initialDelaySeconds": 10, "periodSeconds": 10, "failureThreshold": 6},
            "livenessProbe": {"failureThreshold": 1}, "readinessProbe": {"periodSeconds": 1}
        }),
    );
    let failed = bench.until(|h| h.must_restart.is_some()).await;
    seconds(60..61, failed);
    assert_eq!(bench.health().must_restart.unwrap().kind, ProbeKind::Startup);
    assert_eq!(bench.asked(LIVENESS), Vec::<u128>::new());
    let asked = bench.script.asked.lock().unwrap().len();
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(bench.script.asked.lock().unwrap().len(), asked, "a condemned container is asked nothing more");
}

#[tokio::test(start_paused = true)]
async fn an_early_startup_success_lets_liveness_begin() {
    let mut bench = Bench::new(&[(STARTUP, &[refused(), success()]), (LIVENESS, &[success()])]);
    bench.run(
        "a",
        Duration::ZERO,
        json!({
            "startupProbe": {"initialDelaySeconds": 10}, "livenessProbe": {"initialDelaySeconds": 2, "periodSeconds": 5}
        }),
    );
    seconds(0..1, bench.until(|h| h.started && h.healthy && h.ready).await);
    tokio::time::sleep(Duration::from_millis(13_000)).await;
    let asked = bench.asked(LIVENESS);
    assert_eq!(asked.len(), 3, "{asked:?}");
    seconds(1..3, Duration::from_millis(u64::try_from(asked[0]).unwrap()));
    assert_eq!(bench.asked(STARTUP).len(), 2, "startup probing ends with its success");
}

#[tokio::test(start_paused = true)]
async fn liveness_condemns_after_its_threshold_of_periods_and_a_new_instance_begins_anew() {
    let mut bench = Bench::new(&[(LIVENESS, &[success(), failure("500")])]);
    bench.run("a", Duration::ZERO, json!({"livenessProbe": {"periodSeconds": 10, "failureThreshold": 3}}));
    // A success at once, failures at 10, 20 and 30 s.
    seconds(29..31, bench.until(|h| h.must_restart.is_some()).await);
    bench.run("b", Duration::ZERO, json!({"livenessProbe": {}}));
    let health = bench.health();
    assert_eq!((health.id.as_str(), health.must_restart), ("b", None));
}

#[tokio::test(start_paused = true)]
async fn an_error_is_tried_three_times_at_once() {
    let bench = Bench::new(&[(READINESS, &[success()]), (LIVENESS, &[error("x")])]);
    bench.run("a", Duration::ZERO, json!({"livenessProbe": {"failureThreshold": 1}, "readinessProbe": {}}));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(bench.asked(LIVENESS).len(), 3);
    assert_eq!(bench.health().must_restart, None);
}

#[tokio::test(start_paused = true)]
async fn a_container_that_is_not_named_any_more_is_forgotten_and_asked_nothing() {
    let bench = Bench::new(&[(LIVENESS, &[success()])]);
    bench.run("a", Duration::ZERO, json!({"livenessProbe": {"periodSeconds": 1}}));
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    bench.run("a", Duration::ZERO, json!({"livenessProbe": {"periodSeconds": 1}}));
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(bench.asked(LIVENESS).len(), 6, "naming it again changes nothing");
    bench.manager.set_containers(&key(), "uid", vec![]);
    assert!(bench.manager.results("uid").is_empty());
    let asked = bench.asked(LIVENESS).len();
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(bench.asked(LIVENESS).len(), asked);
}

#[tokio::test(start_paused = true)]
async fn a_terminating_pod_is_asked_for_readiness_alone() {
    let bench = Bench::new(&[(LIVENESS, &[success()]), (READINESS, &[success()])]);
    let probe = json!({"periodSeconds": 1});
    bench.run("a", Duration::ZERO, json!({"livenessProbe": probe, "readinessProbe": probe}));
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    bench.manager.terminating("uid", &["a"]);
    let (liveness, readiness) = (bench.asked(LIVENESS).len(), bench.asked(READINESS).len());
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(bench.asked(LIVENESS).len(), liveness);
    assert_eq!(bench.asked(READINESS).len(), readiness + 5);
    bench.manager.terminating("uid", &[]);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(bench.asked(READINESS).len(), readiness + 5, "a container that has ended is asked nothing");
}

#[tokio::test(start_paused = true)]
async fn a_condemned_container_stays_condemned_while_it_is_stopped_and_its_readiness_is_still_asked() {
    let mut bench = Bench::new(&[(LIVENESS, &[success(), failure("x")]), (READINESS, &[success()])]);
    let probe = json!({"periodSeconds": 1, "failureThreshold": 1});
    let probes = json!({"livenessProbe": probe, "readinessProbe": probe});
    bench.run("a", Duration::ZERO, probes.clone());
    bench.until(|h| h.must_restart.is_some()).await;
    let stopping = ProbedContainer { stopping: true, ..probed("a", Duration::ZERO, &probes) };
    bench.manager.set_containers(&key(), "uid", vec![stopping]);
    let (liveness, readiness) = (bench.asked(LIVENESS).len(), bench.asked(READINESS).len());
    bench.script.answers.lock().unwrap().insert(READINESS, [failure("closing")].into());
    bench.until(|h| !h.ready).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(bench.health().must_restart.is_some());
    assert_eq!(bench.asked(LIVENESS).len(), liveness);
    assert!(bench.asked(READINESS).len() > readiness);
}

#[tokio::test(start_paused = true)]
async fn a_container_that_has_started_stays_started_under_the_next_agent_and_its_successor_does_not() {
    let mut bench = Bench::new(&[(STARTUP, &[success()]), (LIVENESS, &[success()])]);
    let probes = json!({"startupProbe": {}, "livenessProbe": {"periodSeconds": 10}});
    bench.run("a", Duration::ZERO, probes.clone());
    bench.until(|h| h.started).await;
    let mark = bench.root.path().join("pods/uid/containers/web/started");
    while std::fs::read(&mark).ok().as_deref() != Some(b"a") {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    bench.script.answers.lock().unwrap().insert(STARTUP, [failure("forgot")].into());
    let next = Bench::over(Arc::clone(&bench.script), Arc::clone(&bench.root));
    next.run("a", Duration::from_secs(60), probes.clone());
    assert!(next.health().started);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(next.health().healthy && next.health().ready);
    assert_eq!(next.asked(STARTUP).len(), 1, "only the first agent has asked");
    next.run("b", Duration::ZERO, probes);
    assert!(!next.health().started);
}

#[tokio::test(start_paused = true)]
async fn a_container_that_was_ready_is_ready_under_the_next_agent_until_its_probe_says_otherwise() {
    let mut bench = Bench::new(&[(READINESS, &[success()])]);
    let probes = json!({"readinessProbe": {"periodSeconds": 10, "failureThreshold": 2}});
    bench.run("a", Duration::ZERO, probes.clone());
    assert!(!bench.health().ready, "none is ready before it was asked");
    bench.until(|h| h.ready).await;
    let mark = bench.root.path().join("pods/uid/containers/web/ready");
    let noted = async |wanted: &[u8]| {
        while std::fs::read(&mark).ok().as_deref() != Some(wanted) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    noted(b"a").await;
    let next = Bench::over(Arc::clone(&bench.script), Arc::clone(&bench.root));
    next.run("b", Duration::from_secs(60), probes.clone());
    assert!(!next.health().ready, "another instance");
    bench.script.answers.lock().unwrap().insert(READINESS, [failure("no")].into());
    let mut next = Bench::over(Arc::clone(&bench.script), Arc::clone(&bench.root));
    next.run("a", Duration::from_secs(60), probes.clone());
    assert!(next.health().ready, "before it was asked");
    next.until(|h| !h.ready).await;
    assert!(next.begun.elapsed() >= Duration::from_secs(10), "by the probe's own threshold");
    noted(b"").await;
    let last = Bench::over(Arc::clone(&bench.script), Arc::clone(&bench.root));
    last.run("a", Duration::from_secs(90), probes);
    assert!(!last.health().ready, "and so it stays");
}

#[tokio::test(start_paused = true)]
async fn a_herd_of_adopted_containers_is_ready_at_once_and_spreads_its_checks_over_the_period() {
    let bench = Bench::new(&[(READINESS, &[success()]), (LIVENESS, &[success()])]);
    let probe = json!({"periodSeconds": 10});
    let probes = json!({"readinessProbe": probe, "livenessProbe": probe});
    let uid = |n: usize| format!("uid-{n}");
    for n in 0..100 {
        let one = probed(&format!("id-{n}"), Duration::from_secs(300), &probes);
        bench.manager.set_containers(&key(), &uid(n), vec![one]);
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!((0..100).all(|n| bench.manager.results(&uid(n))["web"].ready));
    tokio::time::sleep(Duration::from_secs(10)).await;
    let mut seconds = [0; 10];
    let asked = bench.asked(LIVENESS);
    asked.iter().filter(|at| **at < 10_000).for_each(|at| seconds[usize::try_from(*at / 1000).unwrap()] += 1);
    assert!(seconds[1..].iter().all(|count| (1..=30).contains(count)), "{seconds:?}");
    assert_eq!(seconds.iter().sum::<i32>(), 100);
}

#[tokio::test(start_paused = true)]
async fn failures_errors_and_warnings_of_checks_that_are_due_are_events() {
    let doubtful = Outcome::Success { warning: Some("redirected".into()) };
    let bench = Bench::new(&[(LIVENESS, &[failure("no"), failure("no"), error("odd")]), (READINESS, &[doubtful])]);
    bench.run(
        "a",
        Duration::ZERO,
        json!({"livenessProbe": {"periodSeconds": 1, "failureThreshold": 9}, "readinessProbe": {"periodSeconds": 60}}),
    );
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let events = bench.events.since(0);
    let mut seen: Vec<_> = events.iter().map(|e| (e.reason.as_str(), e.message.as_str(), e.count)).collect();
    seen.sort_unstable();
    assert_eq!(
        seen,
        [
            ("ProbeWarning", "Readiness probe warning: redirected", 1),
            ("Unhealthy", "Liveness probe errored and resulted in unknown state: odd", 1),
            ("Unhealthy", "Liveness probe failed: no", 2),
        ]
    );
    assert!(events.iter().all(|e| e.pod == "pod-node1" && e.container.as_deref() == Some("web")));
}

#[tokio::test(start_paused = true)]
async fn words_alone_wake_the_worker_at_most_once_a_second() {
    let mut bench = Bench::new(&[(READINESS, &[refused()])]);
    let changing: VecDeque<_> = (0..10_000).map(|n| failure(&n.to_string())).collect();
    bench.script.answers.lock().unwrap().insert(READINESS, changing);
    bench.run("a", Duration::ZERO, json!({"readinessProbe": {"initialDelaySeconds": 3600}}));
    tokio::time::sleep(Duration::from_secs(10)).await;
    let mut wakes = 0;
    while bench.woken.try_recv().is_ok() {
        wakes += 1;
    }
    assert!((5..=11).contains(&wakes), "{wakes}");
}

#[test]
fn the_pace_of_eager_checks_grows_slowly_and_is_kinder_to_who_answers() {
    let millis = |age: u64, refused| pace(Duration::from_millis(age), refused).as_millis();
    assert!((10..=25).contains(&millis(0, true)));
    assert!((50..=100).contains(&millis(0, false)));
    assert_eq!(millis(13_000, true), 250);
    assert_eq!(millis(13_000, false), 250);
    assert_eq!(millis(3_600_000, true), 1000);
    let mut before = (0, 0);
    for age in (0..600).map(|half| half * 500) {
        let now = (millis(age, true), millis(age, false));
        assert!(now.0 >= before.0 && now.1 >= before.1 && now.0 <= now.1, "{age}");
        before = now;
    }
}
