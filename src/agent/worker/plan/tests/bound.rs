//! Pods of the API server's: deleted ones, and ones that have ended.

use super::*;

fn deleted(mut case: Case, grace: u64) -> Case {
    case.view.deletion = Some(Duration::from_secs(grace));
    case
}

#[test]
fn a_deleted_pod_is_stopped_within_the_deletions_grace_and_nothing_of_it_is_removed_or_started() {
    let running = || Case::new("").with("own", "POD-0", "", "running").with("own", "c-0", "POD-0", "running");
    assert_eq!(deleted(running(), 5).actions(), ["kill c-0 5s"], "not the 9 s of its manifest");
    assert_eq!(deleted(running(), 0).actions(), ["kill c-0 2s"]);
    let stopped = Case::new("").with("own", "POD-0", "", "running").with("own", "c-0", "POD-0", "0@1");
    assert_eq!(deleted(stopped, 5).actions(), ["kill POD-0 2s"]);
    let never = deleted(Case::new(""), 5);
    assert_eq!((never.actions(), never.plan().finished), (vec![], Some(Finish::Failed)));
}

#[test]
fn a_deleted_pod_has_ended_well_if_every_container_has() {
    for (state, expected) in [("0@1", Finish::Succeeded), ("143@1", Finish::Failed)] {
        let case = deleted(Case::host().with("own", "c-0", "", state), 5);
        assert_eq!((case.plan().finished, case.actions()), (Some(expected), vec![]), "{state}");
    }
    let running = deleted(Case::host().with("own", "c-0", "", "running"), 5);
    assert_eq!(running.plan().finished, None);
}

#[test]
fn a_grace_that_is_shortened_ends_sooner() {
    let dying = |grace: u64, ago: u64| {
        let mut case = deleted(Case::host().with("own", "c-0", "", "running"), grace);
        let since = case.now - Duration::from_secs(ago);
        let one = case.seen.instances.get_mut("c-0").unwrap();
        one.kill = Some(Kill { since, grace: Duration::from_secs(30), ordered: true, hook: false });
        one.stopping = true;
        case
    };
    assert_eq!(dying(30, 10).actions(), NOTHING);
    assert_eq!((dying(15, 10).actions(), dying(15, 10).wake()), (vec![], Some(5)));
    assert_eq!(dying(5, 10).actions(), ["hurry c-0"]);
    let mut hurried = dying(5, 10);
    hurried.seen.instances.values_mut().for_each(|one| one.hurried = true);
    assert_eq!(hurried.actions(), NOTHING);
}

#[test]
fn what_the_api_server_has_as_ended_is_not_started_again() {
    let ended = |mut case: Case, finish: Finish| {
        case.view.ended = Some(finish);
        case
    };
    let gone = ended(Case::new(""), Finish::Succeeded);
    assert_eq!((gone.actions(), gone.plan().finished), (vec![], Some(Finish::Succeeded)));
    let left = ended(Case::host().with("own", "c-0", "", "running"), Finish::Failed);
    assert_eq!(left.actions(), ["kill c-0 9s"]);
    let both = deleted(ended(Case::host().with("own", "c-0", "", "143@1"), Finish::Succeeded), 5);
    assert_eq!(both.plan().finished, Some(Finish::Succeeded), "what was said once holds");
}

#[test]
fn an_ephemeral_container_is_started_once_whatever_the_others_do() {
    use crate::agent::pod::bound_tests::bound;
    use serde_json::json;

    let spec = json!({"initContainers": [{"name": "i", "image": "x:1"}], "ephemeralContainers": [{"name": "d", "image": "x:1"}]});
    let case = || {
        let mut case = Case::new("");
        case.view = PodView::of(&bound(spec.clone(), json!({})), false);
        case.with("own", "POD-0", "", "running")
    };
    assert_eq!(case().actions(), ["run d 0 after 0", "run i 0 after 0"], "init containers do not hold it up");
    let started = || case().with("own", "i-0", "POD-0", "running");
    assert_eq!(started().with("own", "d-0", "POD-0", "running").actions(), NOTHING);
    assert_eq!(started().with("own", "d-0", "POD-0", "created").actions(), ["resume d-0"]);
    let done = || case().with("own", "i-0", "POD-0", "0@9").with("own", "c-0", "POD-0", "running");
    assert_eq!(done().with("own", "d-0", "POD-0", "1@9").actions(), NOTHING, "it is not started again");
    let gone = done().slot("d", |slot, _| slot.next_attempt = 1);
    assert_eq!(gone.actions(), NOTHING, "nor where it was removed");
    let alone = case().with("own", "d-0", "POD-0", "running");
    assert_eq!(alone.actions(), ["run i 0 after 0"], "that it runs says nothing of init containers");
    let stranger = done().with("own", "d-0", "POD-9", "running");
    assert_eq!(stranger.actions(), ["kill d-0 30s"]);
}
