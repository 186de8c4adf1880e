//! Leases in an API server in memory.

use std::path::PathBuf;

use jiff::Timestamp;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::*;
use crate::agent::board::{Entry, Gate};
use crate::agent::options::AgentOptions;
use crate::agent::runs::LONGEST_HOLD;
use crate::agent::runs::tests::run as ended;
use crate::host::fs::write_file;
use crate::testing::api::FakeApi;

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";

struct World {
    fake: FakeApi,
    parts: Parts,
    kubeconfig: PathBuf,
    task: JoinHandle<()>,
    _dir: TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl World {
    async fn new() -> Self {
        let (fake, _) = FakeApi::serve().await;
        let dir = tempfile::tempdir().unwrap();
        let kubeconfig = dir.path().join("m.conf");
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: a\nclusters: [{{name: c, cluster: {{server: 'http://127.0.0.1:{}'}}}}]\n\
             users: [{{name: u, user: {{token: t}}}}]\ncontexts: [{{name: a, context: {{cluster: c, user: u}}}}]\n",
            fake.port()
        );
        write_file(&kubeconfig, text.as_bytes(), 0o600).unwrap();
        let board = Arc::new(Board::new(&AgentOptions::new("cp1")));
        let parts = Parts { runs: Arc::default(), board, events: Arc::default() };
        let task = tokio::spawn(run(parts.clone()));
        Self { fake, parts, kubeconfig, task, _dir: dir }
    }

    /// A lease that this holds since second 110, and has renewed at second 190.
    fn lease(&self, name: &str, holder: &str) -> Value {
        let at = |second: i64| Timestamp::from_second(second).unwrap().to_string();
        let spec = json!({"holderIdentity": holder, "acquireTime": at(110), "renewTime": at(190), "leaseTransitions": 3,
            "leaseDurationSeconds": 15, "unknown": true});
        self.fake.put(LEASES, json!({"metadata": {"name": name}, "spec": spec}));
        self.spec(name)
    }

    fn spec(&self, name: &str) -> Value {
        self.fake.get(&format!("{LEASES}/{name}"))["spec"].clone()
    }

    /// A container of this pod has run from second 100 to 200.
    fn ends(&self, name: &str) -> Run {
        let mut run = ended(name, 100, 200);
        run.election.kubeconfig = self.kubeconfig.clone();
        self.parts.runs.report(run.clone());
        run
    }

    async fn settled(&self) {
        let runs = &self.parts.runs;
        let done = async {
            while !runs.open().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), done).await.unwrap();
    }

    fn told(&self) -> Vec<String> {
        self.parts.events.since(0).into_iter().map(|event| format!("{} {}", event.reason, event.message)).collect()
    }
}

#[tokio::test]
async fn the_lease_of_what_has_ended_is_free_before_the_next_start_and_that_is_told() {
    let world = World::new().await;
    let mut spec = world.lease("m", "cp1_u");
    let run = world.ends("m");
    world.parts.runs.clear(&run.pod).await;
    spec["holderIdentity"] = json!("");
    assert_eq!(world.spec("m"), spec, "and nothing else is changed");
    world.settled().await;
    assert_eq!(world.told(), ["LeaderElection Released leader lease kube-system/m, whose holder has ended"]);
}

#[tokio::test]
async fn what_another_one_holds_or_nobody_is_left_as_it_is() {
    let world = World::new().await;
    let (other, free) = (world.lease("m", "cp2_u"), world.lease("s", ""));
    for name in ["m", "s", "none"] {
        world.ends(name);
    }
    world.settled().await;
    assert_eq!((world.spec("m"), world.spec("s")), (other, free));
    assert!(world.fake.requests().iter().all(|request| request.starts_with("GET ")), "{:?}", world.fake.requests());
    assert_eq!(world.told(), Vec::<String>::new());
}

#[tokio::test]
async fn a_lease_that_is_written_to_meanwhile_is_looked_at_again() {
    let world = World::new().await;
    world.lease("m", "cp1_u");
    world.fake.fail("PUT", LEASES, &[409]);
    world.ends("m");
    world.settled().await;
    assert_eq!(world.spec("m")["holderIdentity"], "", "its holder's last renewal was still under way");
    assert_eq!(world.fake.bodies("PUT").len(), 2);

    // What comes in between is the next leader's.
    world.lease("s", "cp1_u");
    let since = "1970-01-01T00:03:21Z";
    let next = json!({"holderIdentity": "cp1_v", "acquireTime": since, "renewTime": since, "leaseTransitions": 4});
    world.fake.change_before("PUT", &format!("{LEASES}/s"), json!({"spec": next}));
    world.ends("s");
    world.settled().await;
    assert_eq!((&world.spec("s")["holderIdentity"], world.fake.bodies("PUT").len()), (&json!("cp1_v"), 3));
    assert_eq!(world.told().len(), 1);
}

#[tokio::test]
async fn an_api_server_that_is_away_holds_back_no_start_and_the_lease_is_free_once_it_is_back() {
    let world = World::new().await;
    world.lease("m", "cp1_u");
    world.fake.set_down(true);
    let run = world.ends("m");
    let begun = Instant::now();
    world.parts.runs.clear(&run.pod).await;
    assert!(begun.elapsed() < LONGEST_HOLD, "{:?}", begun.elapsed());
    assert_eq!(world.parts.runs.open().len(), 1);
    world.fake.set_down(false);
    let blank = crate::agent::board::tests::entry(true, 1);
    let gate = Some((API_SERVER.to_owned(), Gate { healthy: true, crashed: false }));
    world.parts.board.set_pod(&run.pod, Entry { gate, ..blank });
    world.settled().await;
    assert_eq!(world.spec("m")["holderIdentity"], "");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_done_is_given_up_and_holds_nothing_back() {
    let world = World::new().await;
    let mut run = ended("m", 100, 200);
    run.election.kubeconfig = "/none/there".into();
    world.parts.runs.report(run.clone());
    let begun = Instant::now();
    world.parts.runs.clear(&run.pod).await;
    assert_eq!(begun.elapsed(), Duration::ZERO);
    let done = async {
        while !world.parts.runs.open().is_empty() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(2 * GIVEN_UP_AFTER, done).await.unwrap();
    assert!(begun.elapsed() >= GIVEN_UP_AFTER);
    assert_eq!(world.told(), Vec::<String>::new());
}
