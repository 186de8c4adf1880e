use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::super::worker::pace;
use super::super::*;
use super::{container, error, failure, success};

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
        let (send, woken) = mpsc::unbounded_channel();
        let wake: Wake = Arc::new(move |uid: &str| send.send(uid.to_owned()).unwrap());
        Self { manager: Manager::new(Arc::clone(&script) as _, wake), script, woken, begun: Instant::now() }
    }

    /// Runs a container that started `age` ago.
    fn run(&self, id: &str, age: Duration, probes: serde_json::Value) {
        let mut value = json!({"name": "web"});
        for (field, port) in [("livenessProbe", LIVENESS), ("readinessProbe", READINESS), ("startupProbe", STARTUP)] {
            if let Some(fields) = probes.get(field) {
                value[field] = fields.clone();
                value[field]["tcpSocket"] = json!({"port": port});
            }
        }
        self.manager.set_containers(
            "uid",
            vec![ProbedContainer {
                name: "web".into(),
                id: id.into(),
                started_at: Timestamp::now() - age,
                ip: None,
                probes: Arc::new(Probes::of(&container(value)).0),
            }],
        );
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

fn seconds(range: std::ops::Range<u64>, found: Duration) {
    assert!(found >= Duration::from_secs(range.start) && found < Duration::from_secs(range.end), "{found:?}");
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
    bench.manager.set_containers("uid", vec![]);
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
    bench.manager.terminating("uid");
    let (liveness, readiness) = (bench.asked(LIVENESS).len(), bench.asked(READINESS).len());
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(bench.asked(LIVENESS).len(), liveness);
    assert_eq!(bench.asked(READINESS).len(), readiness + 5);
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
