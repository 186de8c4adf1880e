use serde_json::json;

use super::*;
use crate::agent::board;
use crate::agent::options::AgentOptions;
use crate::agent::pod::bound_tests::bound_with;
use crate::agent::pod::tests::read;

struct Bench {
    board: Board,
    sent: Sent,
}

/// A static pod that runs `image`.
fn pod(image: &str) -> Arc<StaticPod> {
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c, image: 'IMAGE'}]}\n";
    Arc::new(read(&text.replace("IMAGE", image)).unwrap())
}

impl Bench {
    fn new() -> Self {
        Self { board: Board::new(&AgentOptions::new("node1")), sent: Sent::default() }
    }

    /// Puts a pod on the board as its worker does.
    fn set(&self, pod: &Arc<StaticPod>, phase: &str, change: impl FnOnce(&mut Entry)) {
        let status = PodStatus { phase: Some(phase.to_owned()), ..PodStatus::default() };
        let mut entry = Entry { pod: Some(Arc::clone(pod)), status, ..board::tests::entry(true, 1) };
        entry.report.uid.clone_from(&pod.uid);
        change(&mut entry);
        self.board.set_pod(&pod.key, entry);
    }

    /// The kind, UID and phase of each event that is due.
    fn due(&mut self) -> Vec<(EventType, String, String)> {
        let phase = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_default();
        let events = self.sent.differences(&self.board);
        events
            .into_iter()
            .map(|event| (event.kind, event.pod.metadata.uid.clone().unwrap(), phase(&event.pod)))
            .collect()
    }
}

fn event(kind: EventType, pod: &StaticPod, phase: &str) -> (EventType, String, String) {
    (kind, pod.uid.clone(), phase.to_owned())
}

#[test]
fn a_pod_is_added_when_it_was_looked_at_then_modified_and_deleted_with_its_names_alone() {
    let (mut bench, pod) = (Bench::new(), pod("x:1"));
    bench.set(&pod, "Pending", |entry| entry.looked = false);
    assert!(bench.due().is_empty());
    bench.set(&pod, "Pending", |_| ());
    assert_eq!(bench.due(), [event(EventType::Added, &pod, "Pending")]);
    assert!(bench.due().is_empty(), "nothing has changed");
    bench.set(&pod, "Running", |_| ());
    assert_eq!(bench.due(), [event(EventType::Modified, &pod, "Running")]);
    bench.set(&pod, "Running", |entry| entry.status.message = Some("stopping".into()));
    assert_eq!(bench.due(), [event(EventType::Modified, &pod, "Running")]);
    bench.board.remove_pod(&pod.key);
    let gone = bench.sent.differences(&bench.board);
    let metadata = ObjectMeta {
        name: Some("p-node1".into()),
        namespace: Some("default".into()),
        uid: Some(pod.uid.clone()),
        ..ObjectMeta::default()
    };
    assert_eq!(gone, [Event { kind: EventType::Deleted, pod: Pod { metadata, ..Pod::default() } }]);
}

#[test]
fn a_pod_that_ends_is_deleted_once_and_added_when_it_runs_again() {
    let (mut bench, pod) = (Bench::new(), pod("x:1"));
    bench.set(&pod, "Running", |_| ());
    bench.due();
    bench.set(&pod, "Succeeded", |_| ());
    let ended = [event(EventType::Modified, &pod, "Succeeded"), event(EventType::Deleted, &pod, "")];
    assert_eq!(bench.due(), ended);
    bench.set(&pod, "Succeeded", |entry| entry.status.message = Some("x".into()));
    assert!(bench.due().is_empty(), "nothing comes behind a deletion");
    bench.set(&pod, "Pending", |_| ());
    assert_eq!(bench.due(), [event(EventType::Added, &pod, "Pending")]);
    bench.set(&pod, "Failed", |_| ());
    assert_eq!(bench.due().len(), 2);
    bench.board.remove_pod(&pod.key);
    assert!(bench.due().is_empty());
}

#[test]
fn a_pod_that_has_ended_before_is_deleted_when_it_goes() {
    let (mut bench, pod) = (Bench::new(), pod("x:1"));
    bench.set(&pod, "Failed", |_| ());
    let (sent, first) = Sent::begin(&bench.board);
    let kinds: Vec<i32> = first.into_iter().map(|event| event.unwrap().kind).collect();
    assert_eq!(kinds, [EventType::Added.into(), i32::from(EventType::InitialSyncComplete)]);
    bench.sent = sent;
    assert!(bench.due().is_empty());
    bench.board.remove_pod(&pod.key);
    assert_eq!(bench.due(), [event(EventType::Deleted, &pod, "")]);
}

#[test]
fn a_successor_is_added_when_the_containers_before_it_have_gone() {
    let (mut bench, before, after) = (Bench::new(), pod("x:1"), pod("x:2"));
    bench.set(&before, "Running", |_| ());
    bench.due();
    bench.set(&after, "Pending", |entry| entry.succeeds = true);
    assert!(bench.due().is_empty());
    bench.set(&after, "Pending", |_| ());
    assert_eq!(bench.due(), [event(EventType::Deleted, &before, ""), event(EventType::Added, &after, "Pending")]);
}

#[test]
fn a_pod_that_is_taken_away_is_not_listed_and_a_bound_one_is_until_it_has_gone() {
    let (bench, gone) = (Bench::new(), pod("x:1"));
    bench.set(&gone, "Running", |entry| entry.report.terminating = true);
    let metadata = json!({"deletionTimestamp": "2024-01-01T00:00:00Z", "deletionGracePeriodSeconds": 7});
    let deleted = Arc::new(bound_with(metadata, json!({}), json!({})));
    bench.set(&deleted, "Running", |entry| entry.report.terminating = true);
    let listed: Vec<String> = wanted(&bench.board).into_iter().map(|entry| entry.report.uid).collect();
    assert_eq!(listed, ["u"]);
}
