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
fn what_its_own_probe_has_condemned_has_failed_whatever_it_ends_with() {
    for (policy, code, expected, finish) in [
        ("OnFailure", 0, vec!["run c 1 after 0"], None),
        ("OnFailure", 1, vec!["run c 1 after 0"], None),
        ("Never", 0, vec![], Some(Finish::Succeeded)),
        ("Never", 137, vec![], Some(Finish::Failed)),
    ] {
        let spec = format!("hostNetwork: true\n  restartPolicy: {policy}");
        let mut case = Case::new(&spec).with("own", "c-0", "", &format!("{code}@0"));
        case.seen.instances.get_mut("c-0").unwrap().condemned = true;
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

#[test]
fn rules_of_a_container_come_before_its_policy_and_that_before_the_pods() {
    let rules = "restartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [42]}}]";
    let not_in = "restartPolicyRules: [{action: Restart, exitCodes: {operator: NotIn, values: [0, 1]}}]";
    for (pod, own, code, expected) in [
        ("Never", "restartPolicy: Always", 0, true),
        ("Always", "restartPolicy: Never", 1, false),
        ("Always", "restartPolicy: OnFailure", 0, false),
        ("Never", &format!("restartPolicy: Never\n    {rules}"), 42, true),
        ("Never", &format!("restartPolicy: Never\n    {rules}"), 1, false),
        ("Always", &format!("restartPolicy: Never\n    {not_in}"), 2, true),
        ("Always", &format!("restartPolicy: Never\n    {not_in}"), 1, false),
    ] {
        let pod = pod_with(&format!("hostNetwork: true\n  restartPolicy: {pod}"), own);
        let view = PodView::of(&pod, false);
        assert_eq!(view.containers[0].restart.again(code, false), expected, "{own} {code}");
    }
    let init = "initContainers: [{name: one, image: x, restartPolicy: Never}]";
    let pod = Case::new(init).with("own", "POD-0", "", "running").with("own", "one-0", "POD-0", "1@0");
    assert_eq!(pod.plan().finished, Some(Finish::Failed), "an init container that is never repeated");
}

#[test]
fn a_rule_may_restart_all_containers_in_the_same_sandbox() {
    let rule = "restartPolicyRules: [{action: RestartAllContainers, exitCodes: {operator: In, values: [42]}}]";
    let case = || {
        let mut case = Case::new("initContainers: [{name: one, image: x}]").with("own", "POD-0", "", "running");
        let pod = pod_with("initContainers: [{name: one, image: x}]", &format!("restartPolicy: Never\n    {rule}"));
        case.view = PodView::of(&pod, false);
        case.with("own", "POD-0", "", "running").with("own", "one-0", "POD-0", "0@9")
    };
    assert_eq!(case().with("own", "c-0", "POD-0", "1@0").plan().finished, Some(Finish::Failed));
    let asks = || case().with("own", "c-0", "POD-0", "42@0");
    let other = |mut case: Case, state| {
        let mut view = case.view.containers[1].clone();
        view.name = "other".into();
        case.view.containers.push(view);
        case.with("own", "other-0", "POD-0", state)
    };
    assert_eq!(other(asks(), "running").actions(), ["kill other-0 30s"]);
    assert_eq!(other(asks(), "143@0").actions(), ["remove c-0", "remove one-0", "remove other-0"]);
    let again = asks().slot("c", |slot, _| slot.tries = 1);
    assert_eq!((again.actions(), again.wake(), again.waiting("c")), (vec![], Some(10), "CrashLoopBackOff".into()));
    let mut fresh = case();
    fresh.seen.instances.retain(|id, _| id == "POD-0");
    let fresh = fresh.slot("one", |slot, _| slot.next_attempt = 1);
    assert_eq!(fresh.actions(), ["run one 1 after 0"], "from the beginning");
}

#[test]
fn init_containers_of_which_nothing_is_left_are_done_when_something_behind_them_is_there() {
    let spec =
        "initContainers: [{name: one, image: x}, {name: side, image: x, restartPolicy: Always}, {name: two, image: x}]";
    let pod = || Case::new(spec).with("own", "POD-0", "", "running");
    let side = |case: Case| case.with("own", "side-0", "POD-0", "running");
    let completed = |case: &Case| case.plan().completed.into_iter().collect::<Vec<_>>();
    let begun = side(pod()).with("own", "two-0", "POD-0", "running");
    assert_eq!((begun.actions(), completed(&begun)), (vec![], vec!["one".to_owned()]));
    let begun = pod().with("own", "c-0", "POD-0", "running");
    assert_eq!(begun.actions(), ["run side 0 after 0"], "a sidecar that is gone is started again");
    assert_eq!(completed(&begun), ["one", "two"]);
    let other_sandbox = pod().with("own", "c-0", "POD-9", "0@1");
    assert_eq!(other_sandbox.actions(), ["run one 0 after 0"]);
    assert!(completed(&other_sandbox).is_empty());
}

#[test]
fn a_pod_is_ended_at_its_deadline_and_one_that_was_over_before_is_not() {
    let case = |ago: u64, state: &str| {
        let mut case = Case::new("activeDeadlineSeconds: 60\n  restartPolicy: OnFailure")
            .with("own", "POD-0", "", "running")
            .with("own", "c-0", "POD-0", state);
        case.seen.started = Some(case.now - Duration::from_secs(ago));
        case
    };
    assert_eq!((case(50, "running").actions(), case(50, "running").wake()), (vec![], Some(10)));
    let over = case(60, "running");
    assert_eq!(over.actions(), ["kill c-0 9s"]);
    assert_eq!((over.plan().failure, over.plan().finished), (None, None), "it runs until its containers have ended");
    let ended = case(60, "143@0");
    assert_eq!(ended.plan().failure.unwrap().0, "DeadlineExceeded");
    assert_eq!(ended.plan().finished, Some(Finish::Failed));
    let mut deleted = case(61, "0@0").with("own", "POD-0", "", "0@0");
    deleted.view.deletion = Some(Duration::from_secs(5));
    assert_eq!((deleted.plan().finished, deleted.plan().failure), (Some(Finish::Failed), ended.plan().failure));
    let dead = case(70, "0@5");
    assert_eq!((dead.actions(), dead.plan().finished), (vec!["kill POD-0 2s".to_owned()], Some(Finish::Failed)));
    let done = case(70, "0@30");
    assert_eq!((done.plan().finished, done.plan().failure), (Some(Finish::Succeeded), None), "long before");
}

#[test]
fn a_pod_that_keeps_its_uid_is_rebuilt_when_what_its_containers_share_changes() {
    let mut case = Case::new("hostNetwork: false").with("own", "POD-0", "", "running");
    case = case.with("own", "c-0", "POD-0", "running");
    case.view.sandbox_hash = Some("new".into());
    assert_eq!(case.actions(), ["kill c-0 9s"]);
    let stopped = case.with("own", "c-0", "POD-0", "143@0");
    assert_eq!(stopped.actions(), ["kill POD-0 2s"]);
    let rebuilt = stopped.with("own", "POD-0", "", "137@0");
    assert_eq!(rebuilt.actions(), ["sandbox 1"]);
    let mut fits = rebuilt.with_hash("own", "POD-1", "", "running", "new");
    fits.view.containers[0].hash = fits.seen.instances["c-0"].hash().unwrap().to_owned();
    assert_eq!(fits.actions(), ["remove POD-0", "run c 1 after 0"]);
}

#[test]
fn a_pull_that_failed_is_called_so_for_a_moment_and_then_called_waiting() {
    let failed = |ago: u64| {
        Case::host().slot("c", |slot, now| {
            let begun = now - Duration::from_secs(ago);
            let (until, reported) = (begun + Duration::from_secs(10), Some(begun + Duration::from_secs(5)));
            slot.pull = Pull::Failed {
                reason: "ErrImagePull",
                message: "no".into(),
                backed_off: "no".into(),
                until,
                reported,
                tries: 1,
            };
        })
    };
    assert_eq!((failed(0).waiting("c"), failed(0).wake()), ("ErrImagePull".into(), Some(5)));
    assert_eq!((failed(5).waiting("c"), failed(5).wake()), ("ImagePullBackOff".into(), Some(5)));
    assert_eq!(failed(10).actions(), ["run c 0 after 0"]);
    let again = Case::host().slot("c", |slot, _| {
        (slot.pull, slot.pull_tries) = (Pull::Running { image: "x".into() }, 1);
    });
    assert_eq!(again.waiting("c"), "ImagePullBackOff");
}
