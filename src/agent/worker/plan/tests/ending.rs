//! How pods and containers end.

use super::*;

#[test]
fn a_pod_that_is_not_wanted_is_stopped_all_at_once_then_removed_then_forgotten() {
    let stopped = |case: Case| words(&plan(None, &case.terminating("old").seen, Instant::now()));
    let case = || Case::host().with("old", "POD-0", "", "running");
    let both = case().with("old", "a-0", "POD-0", "running").with("old", "b-0", "POD-0", "running");
    assert_eq!(stopped(both), ["kill a-0 7s", "kill b-0 7s"], "the grace their manifest asked for");
    let one_left = case().with("old", "a-0", "POD-0", "0@0").with("old", "b-0", "POD-0", "running");
    assert_eq!(stopped(one_left), ["kill b-0 7s"]);
    let none_left = case().with("old", "a-0", "POD-0", "0@0").with("old", "b-0", "POD-0", "created");
    assert_eq!(stopped(none_left), ["remove a-0", "remove b-0", "remove POD-0"]);
    assert_eq!(stopped(Case::host()), ["forget old"]);
}

#[test]
fn a_successor_starts_only_after_its_predecessor_is_gone() {
    let old = || Case::host().terminating("old");
    assert_eq!(old().with("old", "c-0", "", "running").actions(), ["kill c-0 7s"]);
    assert_eq!(old().with("old", "c-0", "", "0@0").actions(), ["remove c-0"]);
    assert_eq!(old().actions(), ["forget old"]);
    assert_eq!(old().plan().message.unwrap(), "waiting until the previous instance of the pod has stopped");
}

#[test]
fn a_successor_starts_beside_a_predecessor_that_has_closed_its_ports_and_beside_no_other() {
    let old = || Case::host().with("old", "c-0", "", "running").terminating("old");
    let run = "run c 0 after 0".to_owned();
    assert!(!old().actions().contains(&run));
    let mut drained = old();
    drained.seen.drained.insert("old".to_owned());
    assert!(drained.actions().contains(&run));
    assert!(!drained.terminating("another").actions().contains(&run));

    // Wanted again while it drains: no other is started beside it, and its grace ends.
    let uid = Case::host().view.uid;
    let mut again = Case::host().with("own", "c-0", "", "running").terminating(&uid);
    again.seen.drained.insert(uid);
    again.seen.instances.values_mut().for_each(|one| one.stopping = true);
    assert_eq!(again.actions(), ["hurry c-0"]);
    again.seen.instances.values_mut().for_each(|one| one.hurried = true);
    assert_eq!(again.actions(), NOTHING);
}

#[test]
fn a_stop_is_given_two_seconds_at_least() {
    let mut case = Case::host().with_hash("own", "c-0", "", "running", "other");
    case.view.grace = Duration::ZERO;
    assert_eq!(case.actions(), ["kill c-0 2s"]);
}

/// A kill that was begun so many seconds ago.
fn killed(mut case: Case, id: &str, ago: u64, ordered: bool, hook: bool) -> Case {
    let since = case.now - Duration::from_secs(ago);
    let one = case.seen.instances.get_mut(id).unwrap();
    one.kill = Some(Kill { since, grace: Duration::from_secs(10), ordered, hook });
    case
}

#[test]
fn a_hook_precedes_the_signal_and_is_paid_for_with_the_grace() {
    let case = || Case::host().with("own", "c-0", "", "running");
    assert_eq!(killed(case(), "c-0", 3, false, true).actions(), NOTHING, "the hook runs");
    assert_eq!(killed(case(), "c-0", 3, false, false).actions(), ["stop c-0 7s"]);
    assert_eq!(killed(case(), "c-0", 10, false, false).actions(), ["stop c-0 2s"], "it took all");
    let mut stopping = killed(case(), "c-0", 3, false, false);
    stopping.seen.instances.get_mut("c-0").unwrap().stopping = true;
    assert_eq!(stopping.actions(), NOTHING, "one signal");
    let failed = killed(case(), "c-0", 3, false, false);
    let mut failed = failed;
    failed.seen.instances.get_mut("c-0").unwrap().retry_at = Some(failed.now + Duration::from_secs(2));
    assert_eq!((failed.actions(), failed.wake()), (vec![], Some(2)), "a stop that failed is repeated, not at once");
}

#[test]
fn sidecars_end_after_the_others_and_the_last_one_first_within_one_grace() {
    let pod = || {
        let case = Case::host().with("old", "POD-0", "", "running").with("old", "c-0", "POD-0", "running");
        let case = case.with("old", "one-0", "POD-0", "running").with("old", "two-0", "POD-0", "running");
        order(order(case.terminating("old"), "one-0", 2), "two-0", 1)
    };
    fn order(mut case: Case, id: &str, order: usize) -> Case {
        let annotations = &mut case.seen.instances.get_mut(id).unwrap().record.annotations;
        annotations.insert(labels::STOP_ORDER.to_owned(), order.to_string());
        case
    }
    let gone = |case: &Case| words(&plan(None, &case.seen, case.now));
    assert_eq!(gone(&pod()), ["kill c-0 7s", "kill one-0 7s", "kill two-0 7s"], "hooks begin together");
    let mut case = pod();
    for id in ["c-0", "one-0", "two-0"] {
        case = killed(case, id, 4, true, false);
    }
    assert_eq!(gone(&case), ["stop c-0 6s"]);
    case = case.with("old", "c-0", "POD-0", "0@0");
    assert_eq!(gone(&case), ["stop two-0 6s"]);
    case = case.with("old", "two-0", "POD-0", "0@0");
    assert_eq!(gone(&case), ["stop one-0 6s"]);
    let mut late = pod();
    for id in ["c-0", "one-0", "two-0"] {
        late = killed(late, id, 10, true, false);
        late.seen.instances.get_mut(id).unwrap().stopping = id == "c-0";
    }
    assert_eq!(gone(&late), ["stop one-0 2s", "stop two-0 2s"], "nobody is waited for longer than the grace");
    let mut early = late;
    early.now -= Duration::from_secs(3);
    assert_eq!(plan(None, &early.seen, early.now).wake, Some(early.now + Duration::from_secs(3)));
}

#[test]
fn a_post_start_hook_holds_back_every_other_start_and_its_failure_ends_its_container() {
    let pod = |state: PostStart| {
        let mut case = Case::new("initContainers: [{name: one, image: x, restartPolicy: Always}]")
            .with("own", "POD-0", "", "running")
            .with("own", "one-0", "POD-0", "running");
        case.seen.instances.get_mut("one-0").unwrap().post_start = state;
        let health = crate::agent::probe::Health { started: true, ..health("one-0") };
        case.slot("one", |slot, _| slot.health = Some(health))
    };
    assert_eq!(pod(PostStart::None).actions(), ["run c 0 after 0"]);
    let held = pod(PostStart::Running);
    assert_eq!((held.actions(), held.waiting("c")), (vec![], "PodInitializing".to_owned()));
    let failed = pod(PostStart::Failed("no".into()));
    assert_eq!(failed.actions(), ["kill one-0 9s"]);
    assert_eq!(failed.waiting("one"), "PostStartHookError");
}
