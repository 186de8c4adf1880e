//! The plan by its table, and the driver against an API server in memory.

use std::time::Duration;

use k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::plan::{Case, Local, Mirror, Step, step};
use super::*;
use crate::agent::apiserver::ApiServer;
use crate::agent::apiserver::registered::NodeIdentity;
use crate::agent::board::{Board, Entry};
use crate::agent::events::Recorder;
use crate::agent::options::AgentOptions;
use crate::agent::pod::tests::read;
use crate::agent::pod::{PodKey, StaticPod};
use crate::testing::api::FakeApi;

const PODS: &str = "/api/v1/namespaces/default/pods";

fn status(phase: &str) -> PodStatus {
    PodStatus { phase: Some(phase.to_owned()), ..PodStatus::default() }
}

fn mirror(hash: &str, node: &str, deleting: bool) -> Mirror {
    Mirror { uid: "m".into(), version: "1".into(), hash: hash.into(), node: Some(node.into()), deleting }
}

#[test]
fn each_pod_and_its_mirror_get_the_step_that_is_next() {
    let running = status("Running");
    let unseen = PodStatus::default();
    let blank = Local { hash: "h", ending: false, succeeds: false, predecessor: None, status: Some(&running) };
    let local = |ending| Some(Local { ending, ..blank });
    let unlooked = Some(Local { status: None, ..blank });
    let succeeds = Some(Local { succeeds: true, ..blank });
    let follows = Some(Local { succeeds: true, predecessor: Some(&unseen), ..blank });
    let (fits, other, gone) = (mirror("h", "n", false), mirror("old", "n", false), mirror("h", "n", true));
    let (moved, orphan) = (mirror("h", "before", false), Mirror { node: None, ..mirror("h", "n", false) });
    let node = Some("n");
    let base = Case { local: None, mirror: None, node, shown: None, settled: true };
    let rows: &[(&str, Case<'_>, Option<Step>)] = &[
        ("nothing anywhere", base, None),
        ("a pod without a mirror", Case { local: local(false), ..base }, Some(Step::Create)),
        ("without a Node there is none", Case { local: local(false), node: None, ..base }, None),
        ("none is made of a pod that ends", Case { local: local(true), ..base }, None),
        ("a mirror of nothing", Case { mirror: Some(&fits), ..base }, Some(Step::Delete)),
        ("of nothing that is known yet", Case { mirror: Some(&fits), settled: false, ..base }, None),
        ("of nothing, and no Node", Case { mirror: Some(&fits), node: None, ..base }, Some(Step::Delete)),
        ("one that fits", Case { local: local(false), mirror: Some(&fits), ..base }, Some(Step::Status)),
        ("and is up to date", Case { local: local(false), mirror: Some(&fits), shown: Some(&running), ..base }, None),
        (
            "another manifest",
            Case { local: local(false), mirror: Some(&other), shown: Some(&running), ..base },
            Some(Step::Delete),
        ),
        ("deleted by somebody", Case { local: local(false), mirror: Some(&gone), ..base }, Some(Step::Delete)),
        ("of the Node before", Case { local: local(false), mirror: Some(&moved), ..base }, Some(Step::Delete)),
        ("of no Node", Case { local: local(false), mirror: Some(&orphan), ..base }, Some(Step::Delete)),
        ("no Node to make it anew", Case { local: local(false), mirror: Some(&gone), node: None, ..base }, None),
        (
            "fits whatever Node",
            Case { local: local(false), mirror: Some(&moved), node: None, ..base },
            Some(Step::Status),
        ),
        ("it stays while the pod ends", Case { local: local(true), mirror: Some(&fits), ..base }, Some(Step::Status)),
        (
            "deleted while it ends",
            Case { local: local(true), mirror: Some(&gone), shown: Some(&running), ..base },
            None,
        ),
        ("another manifest ends", Case { local: local(true), mirror: Some(&other), ..base }, None),
        (
            "containers that nobody knows the pod of",
            Case { local: Some(Local { ending: true, status: Some(&unseen), ..blank }), mirror: Some(&fits), ..base },
            None,
        ),
        ("nobody has looked at the pod yet", Case { local: unlooked, mirror: Some(&fits), ..base }, None),
        ("its mirror may be of a pod that still runs", Case { local: unlooked, mirror: Some(&other), ..base }, None),
        ("its mirror is of a pod that still runs", Case { local: succeeds, mirror: Some(&other), ..base }, None),
        ("and is told how that is", Case { local: follows, mirror: Some(&other), ..base }, Some(Step::Status)),
        ("once", Case { local: follows, mirror: Some(&other), shown: Some(&unseen), ..base }, None),
        ("none is of that pod", Case { local: succeeds, ..base }, Some(Step::Create)),
        ("its own is there already", Case { local: succeeds, mirror: Some(&fits), ..base }, Some(Step::Status)),
        ("its own was deleted", Case { local: succeeds, mirror: Some(&gone), ..base }, Some(Step::Delete)),
        ("but it is to have a mirror", Case { local: unlooked, ..base }, Some(Step::Create)),
    ];
    for (what, case, expected) in rows {
        assert_eq!(step(case), *expected, "{what}");
    }
}

/// A driver with its board, its Node and its API server.
struct World {
    fake: FakeApi,
    api: Arc<ApiServer>,
    board: Arc<Board>,
    events: Arc<Recorder>,
    node: tokio::sync::watch::Sender<Option<NodeIdentity>>,
    uids: Uids,
    driver: JoinHandle<()>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl World {
    async fn new() -> Self {
        let (fake, client) = FakeApi::serve().await;
        let (board, events) = (Arc::new(Board::new(&AgentOptions::new("n"))), Arc::new(Recorder::default()));
        let api = Arc::new(ApiServer::default());
        api.set(client);
        let (node, nodes) = tokio::sync::watch::channel(None);
        let uids = Uids::default();
        let parts = Parts {
            board: Arc::clone(&board),
            api: Arc::clone(&api),
            events: Arc::clone(&events),
            node_name: "n".into(),
            uids: uids.clone(),
        };
        let driver = tokio::spawn(Driver::new(parts, nodes).run());
        Self { fake, api, board, events, node, uids, driver }
    }

    fn register(&self, uid: &str) {
        self.node.send_replace(Some(NodeIdentity { name: "n".into(), uid: uid.into() }));
    }

    /// Puts a pod on the board: this is how it is now.
    fn show(&self, pod: &Arc<StaticPod>, phase: &str, ending: bool) {
        self.board.set_pod(&pod.key, Self::entry(pod, phase, ending));
    }

    fn entry(pod: &Arc<StaticPod>, phase: &str, ending: bool) -> Entry {
        let blank = crate::agent::board::tests::entry(true, 1);
        let mut report = blank.report;
        (report.uid, report.name, report.terminating) = (pod.uid.clone(), pod.key.name.clone(), ending);
        Entry { report, gate: None, pod: Some(Arc::clone(pod)), status: status(phase), ..blank }
    }

    fn mirror(&self, key: &PodKey) -> Value {
        self.fake.get(&format!("{PODS}/{}", key.name))
    }

    /// The mirror, once this holds of it.
    async fn until(&self, key: &PodKey, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let found = async {
            loop {
                let mirror = self.mirror(key);
                if holds(&mirror) {
                    return mirror;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let found = tokio::time::timeout(Duration::from_secs(20), found).await;
        found.unwrap_or_else(|_| panic!("{what}: {} {:#?}", self.mirror(key), self.fake.requests()))
    }

    async fn running(&self, key: &PodKey) -> Value {
        self.until(key, "running", |mirror| mirror["status"]["phase"] == "Running").await
    }

    /// Long enough for whatever is wrongly done.
    async fn quiet(&self) -> Vec<String> {
        tokio::time::sleep(Duration::from_millis(200)).await;
        self.fake.requests()
    }
}

fn pod(image: &str) -> Arc<StaticPod> {
    let text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: p, labels: {{a: b}}}}\nspec:\n  containers: [{{name: c, image: '{image}'}}]\n"
    );
    Arc::new(read(&text).unwrap())
}

fn uid(mirror: &Value) -> String {
    mirror["metadata"]["uid"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_mirror_is_made_once_there_is_a_node_and_told_the_status() {
    let world = World::new().await;
    let pod = pod("x:1");
    world.show(&pod, "Pending", false);
    assert!(world.quiet().await.iter().all(|asked| asked.starts_with("GET")), "no Node, no mirror");
    world.register("node-1");
    let mirror = world.until(&pod.key, "made", |mirror| mirror["status"]["phase"] == "Pending").await;
    let annotations = &mirror["metadata"]["annotations"];
    for (name, value) in [("mirror", pod.uid.as_str()), ("hash", &pod.uid), ("source", "file")] {
        assert_eq!(annotations[format!("kubernetes.io/config.{name}")], value, "{name}");
    }
    assert!(annotations["kubernetes.io/config.seen"].is_string());
    let owner = json!([{"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "node-1", "controller": true}]);
    assert_eq!(mirror["metadata"]["ownerReferences"], owner);
    assert_eq!((&mirror["metadata"]["labels"]["a"], &mirror["spec"]["nodeName"]), (&json!("b"), &json!("node1")));
    world.show(&pod, "Running", false);
    let mirror = world.running(&pod.key).await;
    let asked = world.quiet().await;
    assert_eq!(asked.iter().filter(|asked| asked.starts_with("PATCH")).count(), 2, "{asked:#?}");
    assert_eq!(world.uids.local(&uid(&mirror)), pod.uid);
    assert_eq!(world.uids.local(&pod.uid), pod.uid);
}

#[tokio::test]
async fn a_mirror_that_somebody_deletes_comes_back_with_another_uid() {
    let world = World::new().await;
    let pod = pod("x:1");
    let path = format!("{PODS}/{}", pod.key.name);
    world.register("node-1");
    world.show(&pod, "Running", false);
    let first = uid(&world.running(&pod.key).await);
    // By force: it is gone. With grace: it waits for the node.
    world.fake.remove(&path);
    let again = |before: String| move |mirror: &Value| mirror["status"]["phase"] == "Running" && uid(mirror) != before;
    let second = uid(&world.until(&pod.key, "by force", again(first)).await);
    world.fake.change(&path, &json!({"metadata": {"deletionTimestamp": "2024-01-01T00:00:00Z"}}));
    let third = world.until(&pod.key, "with grace", again(second.clone())).await;
    assert!(third["metadata"].get("deletionTimestamp").is_none());
    let deletions = world.fake.bodies("DELETE");
    assert_eq!(deletions.len(), 1, "{deletions:#?}");
    assert_eq!(
        (&deletions[0]["gracePeriodSeconds"], &deletions[0]["preconditions"]["uid"]),
        (&json!(0), &json!(second))
    );
    // What a client writes on it stays.
    world.fake.change(&path, &json!({"metadata": {"labels": {"a": "c"}}}));
    world.quiet().await;
    assert_eq!(world.mirror(&pod.key)["metadata"]["labels"]["a"], "c");
    assert_eq!(uid(&world.mirror(&pod.key)), uid(&third));
}

#[tokio::test]
async fn another_manifest_and_another_node_make_it_anew_and_it_goes_after_the_pod() {
    let world = World::new().await;
    let (old, new) = (pod("x:1"), pod("x:2"));
    world.register("node-1");
    world.show(&old, "Running", false);
    let first = world.running(&old.key).await;
    world.show(&new, "Running", false);
    let is =
        |hash: String| move |mirror: &Value| mirror["metadata"]["annotations"]["kubernetes.io/config.mirror"] == hash;
    let second = world.until(&new.key, "the new manifest", is(new.uid.clone())).await;
    assert_ne!(uid(&first), uid(&second));
    assert_eq!(second["spec"]["containers"][0]["image"], "x:2");
    world.running(&new.key).await;
    world.register("node-2");
    let owner = |mirror: &Value| mirror["metadata"]["ownerReferences"][0]["uid"] == "node-2";
    world.until(&new.key, "the new Node", owner).await;
    let third = world.running(&new.key).await;
    // The manifest is removed: the mirror stays until the containers have ended.
    world.board.set_settled(true);
    world.show(&new, "Running", true);
    world.quiet().await;
    assert_eq!(uid(&world.mirror(&new.key)), uid(&third));
    world.board.remove_pod(&new.key);
    world.until(&new.key, "gone", Value::is_null).await;
}

#[tokio::test]
async fn the_mirror_of_a_pod_that_was_edited_stays_until_its_containers_have_ended() {
    let world = World::new().await;
    let (old, new) = (pod("x:1"), pod("x:2"));
    world.register("node-1");
    world.show(&old, "Running", false);
    let first = world.running(&old.key).await;
    let next = World::entry(&new, "Pending", false);
    world.board.set_pod(&new.key, Entry { looked: false, ..next.clone() });
    world.quiet().await;
    world.board.set_pod(&new.key, Entry { succeeds: true, ..next.clone() });
    world.quiet().await;
    assert_eq!(world.mirror(&old.key), first, "the old pod ends");
    world.board.set_pod(&new.key, next);
    let is_new = |mirror: &Value| mirror["metadata"]["annotations"]["kubernetes.io/config.mirror"] == new.uid;
    world.until(&new.key, "the new pod", is_new).await;
}

#[tokio::test]
async fn the_mirror_of_a_pod_that_was_edited_is_told_how_its_containers_end() {
    let world = World::new().await;
    let (old, new) = (pod("x:1"), pod("x:2"));
    world.register("node-1");
    world.show(&old, "Running", false);
    let first = world.running(&old.key).await;
    let next = Entry { succeeds: true, ..World::entry(&new, "Pending", false) };
    let ends = PodStatus { message: Some("one has ended".to_owned()), ..status("Running") };
    let predecessors = [(old.uid.clone(), ends)].into();
    world.board.set_pod(&new.key, Entry { predecessors, ..next });
    let reported = world.until(&old.key, "told", |mirror| mirror["status"]["message"] == "one has ended").await;
    assert_eq!((uid(&reported), &reported["status"]["phase"]), (uid(&first), &json!("Running")));
    let asked = world.quiet().await;
    assert_eq!(asked.iter().filter(|asked| asked.starts_with("PATCH")).count(), 2, "{asked:#?}");
    world.show(&new, "Pending", false);
    let is_new = |mirror: &Value| mirror["metadata"]["annotations"]["kubernetes.io/config.mirror"] == new.uid;
    let reported =
        world.until(&new.key, "the new pod", |mirror| is_new(mirror) && mirror["status"]["phase"] == "Pending");
    assert!(reported.await["status"]["message"].is_null());
}

#[tokio::test]
async fn a_mirror_keeps_its_status_until_an_agent_that_has_just_started_has_looked_at_the_pod() {
    let world = World::new().await;
    let pod = pod("x:1");
    let annotations = json!({"kubernetes.io/config.mirror": pod.uid});
    let owners = json!([{"kind": "Node", "name": "n", "uid": "node-1"}]);
    let metadata =
        json!({"name": pod.key.name, "namespace": "default", "annotations": annotations, "ownerReferences": owners});
    world.fake.put(PODS, json!({"metadata": metadata, "status": {"phase": "Running", "message": "of before"}}));
    world.register("node-1");
    let entry = World::entry(&pod, "Pending", false);
    world.board.set_pod(&pod.key, Entry { looked: false, ..entry });
    let asked = world.quiet().await;
    assert!(asked.iter().all(|asked| asked.starts_with("GET")), "{asked:#?}");
    assert_eq!(world.mirror(&pod.key)["status"]["message"], "of before");
    // It is not Pending by the manifest alone any more, but by what was found.
    world.show(&pod, "Pending", false);
    world.until(&pod.key, "told", |mirror| mirror["status"]["phase"] == "Pending").await;
}

#[tokio::test]
async fn a_mirror_of_nothing_goes_once_everything_is_known() {
    let world = World::new().await;
    let key = pod("x:1").key.clone();
    let annotations = json!({"kubernetes.io/config.mirror": "old"});
    let metadata = |name: &str, annotations: &Value| json!({"metadata": {"name": name, "namespace": "default", "annotations": annotations}});
    world.fake.put(PODS, metadata(&key.name, &annotations));
    world.fake.put(PODS, metadata("bound", &json!({})));
    world.quiet().await;
    assert!(!world.mirror(&key).is_null(), "a manifest may still be read");
    world.board.set_settled(true);
    world.until(&key, "gone", Value::is_null).await;
    assert!(!world.fake.get(&format!("{PODS}/bound")).is_null(), "no mirror");
}

#[tokio::test]
async fn what_is_refused_is_told_once_and_tried_again_with_a_pause() {
    let world = World::new().await;
    let pod = pod("x:1");
    world.fake.fail("POST", PODS, &[404, 404]);
    world.register("node-1");
    world.show(&pod, "Running", false);
    world.quiet().await;
    let posts = || world.fake.bodies("POST").len();
    assert_eq!(posts(), 1, "no hot loop");
    world.running(&pod.key).await;
    assert_eq!(posts(), 3);
    let reported: Vec<_> = world.events.since(0).iter().map(|event| (event.reason.clone(), event.count)).collect();
    assert_eq!(reported, [("FailedMirrorPod".to_owned(), 1)]);
}

#[tokio::test]
async fn after_the_api_server_was_away_everything_is_caught_up_with() {
    let world = World::new().await;
    let pod = pod("x:1");
    world.register("node-1");
    world.show(&pod, "Pending", false);
    world.until(&pod.key, "made", |mirror| mirror["status"]["phase"] == "Pending").await;
    world.fake.set_down(true);
    world.show(&pod, "Running", false);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(world.mirror(&pod.key)["status"]["phase"], "Pending");
    world.fake.set_down(false);
    let mirror = world.running(&pod.key).await;
    // Its watches are too old, and the client is another one.
    world.fake.set_down(true);
    world.fake.forget();
    world.fake.set_down(false);
    world.api.set(world.api.client().unwrap());
    world.fake.remove(&format!("{PODS}/{}", pod.key.name));
    world.until(&pod.key, "made anew", |now| now["status"]["phase"] == "Running" && uid(now) != uid(&mirror)).await;
}

#[tokio::test]
async fn a_status_that_somebody_else_writes_is_written_over_in_time() {
    let world = World::new().await;
    let pod = pod("x:1");
    world.register("node-1");
    world.show(&pod, "Running", false);
    world.running(&pod.key).await;
    let started = crate::host::clock::Instant::now();
    world.fake.change(&format!("{PODS}/{}", pod.key.name), &json!({"status": {"phase": "Failed"}}));
    world.running(&pod.key).await;
    let took = started.elapsed();
    assert!(took > Duration::from_secs(9), "no quarrel about it: {took:?}");
}
