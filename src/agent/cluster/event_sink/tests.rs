use k8s_openapi::api::core::v1::PodStatus;

use super::budget::BURST;
use super::similar::SIMILAR;
use super::*;
use crate::agent::board::Entry;
use crate::agent::events::Subject;
use crate::agent::options::AgentOptions;
use crate::agent::pod::tests::read;
use crate::testing::api::FakeApi;

const EVENTS: &str = "/api/v1/namespaces/default/events";

struct World {
    fake: FakeApi,
    events: Arc<Recorder>,
    key: PodKey,
}

impl World {
    async fn new() -> Self {
        let (fake, client) = FakeApi::serve().await;
        let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  initContainers: [{name: i, image: x:1}]\n  \
                   containers: [{name: c, image: x:1}]\n";
        let pod = Arc::new(read(pod).unwrap());
        let (board, events) = (Arc::new(Board::new(&AgentOptions::new("n"))), Arc::new(Recorder::default()));
        let key = pod.key.clone();
        let entry = crate::agent::board::tests::entry(true, 1);
        board.set_pod(&key, Entry { pod: Some(pod), status: PodStatus::default(), ..entry });
        let api = Arc::new(ApiServer::default());
        api.set(client);
        tokio::spawn(run(Parts { board, api, events: Arc::clone(&events), node_name: "n".into() }));
        Self { fake, events, key }
    }

    fn subject<'a>(&'a self, container: Option<&'a str>) -> Subject<'a> {
        Subject { pod: &self.key, uid: "u", container }
    }

    /// What the API server has been asked, once it was asked so often.
    async fn asked(&self, times: usize) -> Vec<String> {
        let all = async {
            while self.fake.requests().len() < times {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), all).await.unwrap();
        self.fake.requests()
    }
}

#[tokio::test]
async fn an_event_is_told_once_and_counted_when_it_comes_again() {
    let world = World::new().await;
    world.events.normal(world.subject(Some("i")), "Started", "Started container i");
    world.asked(1).await;
    world.events.normal(world.subject(Some("i")), "Started", "Started container i");
    let asked = world.asked(2).await;
    let reported = &world.fake.bodies("POST")[0];
    let path = format!("{EVENTS}/{}", reported["metadata"]["name"].as_str().unwrap());
    assert_eq!(asked, [format!("POST {EVENTS}"), format!("PATCH {path}")]);
    assert_eq!(reported["involvedObject"]["uid"], "u");
    assert_eq!(reported["involvedObject"]["fieldPath"], "spec.initContainers{i}");
    assert_eq!(
        (&reported["type"], &reported["source"]),
        (&json!("Normal"), &json!({"component": "kubelet", "host": "n"}))
    );
    let kept = world.fake.get(&path);
    assert_eq!((&kept["count"], &kept["reason"]), (&json!(2), &json!("Started")));
    // The API server forgets events after an hour.
    world.fake.remove(&path);
    world.events.normal(world.subject(Some("i")), "Started", "Started container i");
    world.asked(4).await;
    assert_eq!(world.fake.get(&path)["count"], 3);
}

#[tokio::test]
async fn what_happens_while_the_api_server_is_away_is_told_when_it_is_back_and_what_it_never_takes_is_dropped() {
    let world = World::new().await;
    world.fake.fail("POST", EVENTS, &[403]);
    world.fake.set_down(true);
    for number in 0..3 {
        world.events.warning(world.subject(None), "Unhealthy", format!("{number}"));
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(world.fake.requests().is_empty());
    world.fake.set_down(false);
    world.asked(3).await;
    let reported: Vec<_> = world.fake.bodies("POST").iter().map(|body| body["message"].clone()).collect();
    assert_eq!(reported, ["0", "1", "2"]);
    assert_eq!(world.fake.get(&format!("{EVENTS}/none")), serde_json::Value::Null);
}

/// How many requests carried this message.
fn reported(world: &World, message: &str) -> usize {
    world.fake.bodies("POST").iter().filter(|body| body["message"] == message).count()
}

#[tokio::test]
async fn a_namespace_that_is_gone_or_forbidden_holds_up_no_event_and_is_asked_once_for_each() {
    let world = World::new().await;
    for (namespace, code) in [("gone", 404), ("theirs", 403)] {
        world.fake.fail("POST", &format!("/api/v1/namespaces/{namespace}/events"), &[code; 8]);
        let key = PodKey { namespace: namespace.into(), name: "p".into() };
        for number in 0..2 {
            let subject = Subject { pod: &key, uid: namespace, container: None };
            world.events.warning(subject, "FailedMount", format!("{namespace} {number}"));
        }
    }
    world.events.normal(world.subject(None), "Started", "in time");
    let all = async {
        while reported(&world, "in time") == 0 || reported(&world, "gone 1") == 0 || reported(&world, "theirs 1") == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(3), all).await.expect("one dead namespace holds up the others");
    for message in ["gone 0", "gone 1", "theirs 0", "theirs 1", "in time"] {
        assert_eq!(reported(&world, message), 1, "{message}");
    }
}

#[tokio::test]
async fn a_namespace_that_the_api_server_makes_by_itself_is_waited_for_beside_everything_else() {
    let world = World::new().await;
    world.fake.fail("POST", "/api/v1/namespaces/kube-system/events", &[404, 404]);
    let key = PodKey { namespace: "kube-system".into(), name: "etcd".into() };
    world.events.normal(Subject { pod: &key, uid: "e", container: None }, "Started", "etcd");
    world.events.normal(world.subject(None), "Started", "at once");
    world.asked(2).await;
    assert_eq!((reported(&world, "etcd"), reported(&world, "at once")), (1, 1));
    world.asked(4).await;
    assert_eq!((reported(&world, "etcd"), reported(&world, "at once")), (3, 1));
}

#[tokio::test]
async fn a_probe_that_fails_for_ever_does_not_use_up_what_the_end_of_its_pod_is_told_with() {
    let world = World::new().await;
    for number in 0..BURST + 5 {
        world.events.warning(world.subject(None), "Unhealthy", format!("{number}"));
    }
    world.events.normal(world.subject(Some("c")), "Killing", "Stopping container c");
    world.asked(BURST as usize + 1).await;
    assert_eq!(reported(&world, "Stopping container c"), 1);
}

#[tokio::test]
async fn what_happens_to_the_node_is_told_of_it_as_by_a_kubelet() {
    let world = World::new().await;
    world.events.node("n", Kind::Normal, "Starting", "Starting kubelet.");
    world.asked(1).await;
    let reported = &world.fake.bodies("POST")[0];
    assert_eq!(reported["metadata"]["namespace"], "default");
    assert_eq!(reported["involvedObject"], json!({"kind": "Node", "name": "n", "uid": "n"}));
    assert_eq!((&reported["reason"], &reported["message"]), (&json!("Starting"), &json!("Starting kubelet.")));
}

#[tokio::test]
async fn events_that_differ_by_their_messages_alone_are_combined_into_one_that_counts() {
    let world = World::new().await;
    for number in 1..=SIMILAR + 2 {
        world.events.warning(world.subject(Some("c")), "Unhealthy", format!("{number}"));
    }
    let asked = world.asked(SIMILAR + 2).await;
    let posted = world.fake.bodies("POST");
    let messages: Vec<_> = posted.iter().map(|body| body["message"].as_str().unwrap()).collect();
    let tenth = "(combined from similar events): 10";
    assert_eq!(messages, ["1", "2", "3", "4", "5", "6", "7", "8", "9", tenth]);
    let path = format!("{EVENTS}/{}", posted[SIMILAR - 1]["metadata"]["name"].as_str().unwrap());
    assert_eq!(asked[SIMILAR..], [format!("PATCH {path}"), format!("PATCH {path}")]);
    let kept = world.fake.get(&path);
    assert_eq!((&kept["count"], &kept["message"]), (&json!(3), &json!("(combined from similar events): 12")));
    assert_eq!(kept["firstTimestamp"], posted[SIMILAR - 1]["firstTimestamp"]);
}
