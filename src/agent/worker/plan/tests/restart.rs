//! What happens after an exit.

use super::*;

#[test]
fn restart_policies_decide_what_happens_after_an_exit() {
    for (policy, code, expected, finish) in [
        ("Always", 0, vec!["run c 1 after 0"], None),
        ("Always", 1, vec!["run c 1 after 0"], None),
        ("OnFailure", 0, vec![], Some(Finish::Succeeded)),
        ("OnFailure", 1, vec!["run c 1 after 0"], None),
        ("Never", 0, vec![], Some(Finish::Succeeded)),
        ("Never", 1, vec![], Some(Finish::Failed)),
    ] {
        let spec = format!("hostNetwork: true\n  restartPolicy: {policy}");
        let case = Case::new(&spec).with("own", "c-0", "", &format!("{code}@0"));
        assert_eq!(case.actions(), expected, "{policy} {code}");
        assert_eq!(case.plan().finished, finish, "{policy} {code}");
    }
}

#[test]
fn a_crashing_container_waits_from_its_last_exit_on() {
    let crashed = |ago: &str, tries| {
        Case::host().with("own", "c-5", "", &format!("1@{ago}")).slot("c", |slot, _| slot.tries = tries)
    };
    assert_eq!(crashed("0", 0).actions(), ["run c 6 after 0"], "the first restart is free");
    assert_eq!(crashed("3", 1).actions(), NOTHING);
    assert_eq!((crashed("3", 1).wake(), crashed("3", 1).waiting("c")), (Some(7), "CrashLoopBackOff".into()));
    assert_eq!(crashed("10", 1).actions(), ["run c 6 after 1"]);
    assert_eq!(crashed("0", 3).wake(), Some(40));
    assert_eq!(crashed("0", 50).wake(), Some(300));
    let mut capped = crashed("0", 50);
    capped.seen.max_backoff = Duration::from_secs(5);
    assert_eq!(capped.wake(), Some(5));
}

#[test]
fn ten_minutes_of_running_are_forgiven() {
    let mut case = Case::host().with("own", "c-5", "", "1@0").slot("c", |slot, _| slot.tries = 4);
    let one = case.seen.instances.get_mut("c-5").unwrap();
    let ContainerState::Exited { finished_at, .. } = &mut one.record.state else { panic!("it has exited") };
    *finished_at = Some(Timestamp::from_second(1_000_600).unwrap());
    assert_eq!(case.actions(), ["run c 6 after 0"]);
}

#[test]
fn restart_counts_go_on_after_what_was_removed_by_hand() {
    let case = Case::host().slot("c", |slot, _| slot.next_attempt = 3);
    assert_eq!(case.actions(), ["run c 3 after 0"]);
}
