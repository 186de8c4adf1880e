use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn spec(text: &str) -> PodSpec {
    serde_json::from_str(text).unwrap()
}

fn facts(name: &str, state: State) -> ContainerFacts {
    let running = matches!(state, State::Running { .. });
    ContainerFacts {
        name: name.into(),
        init: false,
        sidecar: false,
        image: "i:1".into(),
        image_id: "docker://sha256:1".into(),
        id: Some(format!("docker://id-{name}")),
        state,
        last: None,
        ready: running,
        started: running,
        restarts: 0,
        mounts: vec![],
        resources: None,
        allocated: None,
        user: None,
    }
}

fn init(name: &str, state: State) -> ContainerFacts {
    ContainerFacts { init: true, ready: false, ..facts(name, state) }
}

fn running() -> State {
    State::Running { started_at: at(5) }
}

fn waiting(reason: &str) -> State {
    State::Waiting { reason: reason.into(), message: String::new() }
}

fn ended(exit_code: i64) -> Ended {
    let reason = if exit_code == 0 { "Completed" } else { "Error" };
    Ended {
        id: Some("docker://old".into()),
        exit_code,
        reason: reason.into(),
        message: String::new(),
        started_at: Some(at(1)),
        finished_at: Some(at(2)),
    }
}

fn known(spec: &PodSpec, phase: Phase, containers: Vec<ContainerFacts>) -> Known<'_> {
    Known {
        spec: Some(spec),
        phase,
        containers,
        sandbox_ready: true,
        host_ip: Some("10.0.0.5"),
        pod_ip: Some("172.17.0.2"),
        failure: None,
        conditions: &[],
        start_time: at(3),
        now: at(10),
    }
}

/// `Type=Status reason message` of each condition.
fn said_of(status: &PodStatus) -> Vec<String> {
    let conditions = status.conditions.iter().flatten();
    conditions
        .map(|c| {
            let words = [c.reason.clone(), c.message.clone()].into_iter().flatten().collect::<Vec<_>>().join(" ");
            format!("{}={} {words}", c.type_, c.status).trim_end().to_owned()
        })
        .collect()
}

#[test]
fn a_pod_that_runs_is_told_as_the_kubelet_tells_it() {
    let spec = spec(r#"{"hostNetwork": true, "containers": [{"name": "b"}, {"name": "a"}]}"#);
    let last = ContainerFacts { restarts: 2, last: Some(ended(1)), ..facts("b", running()) };
    let status = status(&known(&spec, Phase::Running, vec![last, facts("a", running())]));
    let expected = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];
    assert_eq!(said_of(&status), expected.map(|name| format!("{name}=True")));
    assert_eq!((status.phase.as_deref(), status.qos_class.as_deref()), (Some("Running"), Some("BestEffort")));
    assert_eq!((status.pod_ip.as_deref(), status.host_ip.as_deref()), (Some("10.0.0.5"), Some("10.0.0.5")));
    let json = serde_json::to_value(status.container_statuses.unwrap()).unwrap();
    assert_eq!(json[0]["name"], "a", "main containers are sorted by name");
    let expected = serde_json::json!({
        "name": "b", "image": "i:1", "imageID": "docker://sha256:1", "containerID": "docker://id-b",
        "ready": true, "started": true, "restartCount": 2,
        "state": {"running": {"startedAt": "1970-01-01T00:00:05Z"}},
        "lastState": {"terminated": {
            "containerID": "docker://old", "exitCode": 1, "reason": "Error",
            "startedAt": "1970-01-01T00:00:01Z", "finishedAt": "1970-01-01T00:00:02Z"
        }},
    });
    assert_eq!(json[1], expected);
}

#[test]
fn a_pod_in_its_own_network_has_its_own_address_and_none_before_its_sandbox() {
    let spec = spec(r#"{"containers": [{"name": "a"}]}"#);
    let with = status(&known(&spec, Phase::Running, vec![facts("a", running())]));
    assert_eq!(with.pod_ips.unwrap()[0].ip, "172.17.0.2");
    let without = Known {
        pod_ip: None,
        sandbox_ready: false,
        ..known(&spec, Phase::Pending, vec![facts("a", waiting("ContainerCreating"))])
    };
    let without = status(&without);
    assert_eq!((without.pod_ip.clone(), without.pod_ips.clone()), (None, None));
    assert_eq!(said_of(&without)[0], "PodReadyToStartContainers=False");
}

#[test]
fn conditions_name_the_containers_that_are_not_ready() {
    let spec = spec(r#"{"containers": [{"name": "a"}, {"name": "b"}]}"#);
    let a = ContainerFacts { ready: false, ..facts("a", running()) };
    let b = ContainerFacts { last: Some(ended(1)), ..facts("b", waiting("CrashLoopBackOff")) };
    let status = status(&known(&spec, Phase::Running, vec![a, b]));
    let unready = "False ContainersNotReady containers with unready status: [a b]";
    assert_eq!(
        said_of(&status)[1..4],
        ["Initialized=True".to_owned(), format!("Ready={unready}"), format!("ContainersReady={unready}")]
    );
    let crashed = &status.container_statuses.unwrap()[1];
    let state = crashed.state.as_ref().unwrap();
    assert_eq!(state.waiting.as_ref().unwrap().reason.as_deref(), Some("CrashLoopBackOff"));
    assert_eq!(crashed.last_state.as_ref().unwrap().terminated.as_ref().unwrap().exit_code, 1);
}

#[test]
fn init_containers_come_in_order_and_hold_initialized_back_until_they_are_done() {
    let spec = spec(r#"{"initContainers": [{"name": "z"}, {"name": "side"}], "containers": [{"name": "a"}]}"#);
    let side = ContainerFacts { sidecar: true, ..init("side", waiting("PodInitializing")) };
    let main = facts("a", waiting("PodInitializing"));
    let first = status(&known(&spec, Phase::Pending, vec![init("z", running()), side.clone(), main.clone()]));
    assert_eq!(
        said_of(&first)[1],
        "Initialized=False ContainersNotInitialized containers with incomplete status: [z side]"
    );
    let names: Vec<_> = first.init_container_statuses.unwrap().into_iter().map(|c| c.name).collect();
    assert_eq!(names, ["z", "side"]);
    let done = init("z", State::Terminated(ended(0)));
    let second = status(&known(&spec, Phase::Pending, vec![done.clone(), side, main.clone()]));
    assert!(second.init_container_statuses.unwrap()[0].ready, "an init container that has done its work is ready");
    let side = ContainerFacts { sidecar: true, ready: true, ..init("side", running()) };
    let third = status(&known(&spec, Phase::Pending, vec![done, side.clone(), main]));
    assert_eq!(said_of(&third)[1], "Initialized=True");
    assert!(said_of(&third)[3].ends_with("containers with unready status: [a]"));
    let again = init("z", waiting("PodInitializing"));
    let fourth = status(&known(&spec, Phase::Running, vec![again, side, facts("a", running())]));
    assert_eq!(said_of(&fourth)[1], "Initialized=True", "what main containers have run after stays done");
}

#[test]
fn a_pod_that_has_ended_says_how() {
    let spec = spec(r#"{"containers": [{"name": "a"}]}"#);
    let done = status(&known(&spec, Phase::Succeeded, vec![facts("a", State::Terminated(ended(0)))]));
    let expected = ["Initialized=True PodCompleted", "Ready=False PodCompleted", "ContainersReady=False PodCompleted"];
    assert_eq!(said_of(&done)[1..4], expected);
    let failed = Known {
        failure: Some(("DeadlineExceeded", "too long")),
        ..known(&spec, Phase::Failed, vec![facts("a", State::Terminated(ended(1)))])
    };
    let failed = status(&failed);
    assert_eq!(said_of(&failed)[2..4], ["Ready=False PodFailed", "ContainersReady=False PodFailed"]);
    assert_eq!((failed.reason.as_deref(), failed.message.as_deref()), (Some("DeadlineExceeded"), Some("too long")));
}

#[test]
fn a_readiness_gate_that_nobody_sets_keeps_the_pod_unready_and_its_containers_ready() {
    let spec = spec(r#"{"readinessGates": [{"conditionType": "x/y"}], "containers": [{"name": "a"}]}"#);
    let status = status(&known(&spec, Phase::Running, vec![facts("a", running())]));
    assert!(said_of(&status)[2].starts_with("Ready=False ReadinessGatesNotReady"));
    assert_eq!(said_of(&status)[3], "ContainersReady=True");
}

#[test]
fn moments_are_kept_while_what_they_are_of_is_the_same() {
    let spec = spec(r#"{"containers": [{"name": "a"}]}"#);
    let facts_then = ContainerFacts { ready: false, ..facts("a", running()) };
    let before = status(&known(&spec, Phase::Running, vec![facts_then]));
    let mut now =
        Known { now: at(20), start_time: at(15), ..known(&spec, Phase::Running, vec![facts("a", running())]) };
    let mut after = status(&now);
    keep(&mut after, &before);
    let since: Vec<_> =
        after.conditions.iter().flatten().map(|c| c.last_transition_time.as_ref().unwrap().0.as_second()).collect();
    assert_eq!(since, [10, 10, 20, 20, 10]);
    assert_eq!(after.start_time.clone().unwrap().0, at(3));
    now.now = at(30);
    let mut later = status(&now);
    keep(&mut later, &after);
    assert_eq!(later, after);
}

#[test]
fn termination_messages_share_their_room_and_no_character_is_torn() {
    let spec = spec(r#"{"containers": [{"name": "a"}, {"name": "b"}]}"#);
    let long = Ended { message: format!("x{}", "é".repeat(5000)), ..ended(1) };
    let containers = ["a", "b"].map(|name| facts(name, State::Terminated(long.clone()))).to_vec();
    let status = status(&known(&spec, Phase::Failed, containers));
    let state = status.container_statuses.unwrap()[1].state.clone().unwrap();
    let message = state.terminated.unwrap().message.unwrap();
    assert_eq!(message.len(), 6 * 1024 - 1);
}

#[test]
fn what_was_made_and_never_started_began_in_1970_and_what_was_never_made_did_not() {
    let spec = spec(r#"{"containers": [{"name": "a"}]}"#);
    let failed = Ended { reason: "StartError".into(), started_at: None, ..ended(128) };
    let of = |end: Ended| {
        let status = status(&known(&spec, Phase::Failed, vec![facts("a", State::Terminated(end))]));
        serde_json::to_value(&status.container_statuses.unwrap()[0].state).unwrap()["terminated"].clone()
    };
    assert_eq!(of(failed)["startedAt"], "1970-01-01T00:00:00Z");
    assert_eq!((&of(Ended::lost())["startedAt"], &of(Ended::lost())["finishedAt"]), (&().into(), &().into()));
}

#[test]
fn what_never_ran_in_a_pod_that_has_ended_has_failed_as_far_as_it_was_to_run() {
    let ends = |containers: Vec<ContainerFacts>| -> Vec<(String, i64)> {
        let code = |one: &ContainerFacts| match &one.state {
            State::Terminated(end) => end.exit_code,
            _ => -1,
        };
        all_ended(containers).iter().map(|one| (one.name.clone(), code(one))).collect()
    };
    let waits = || waiting("PodInitializing");
    let row = |name: &str, code: i64| (name.to_owned(), code);
    let main = || facts("a", waits());
    assert_eq!(ends(vec![main()]), [row("a", 137)], "no init container");
    let failed = init("z", State::Terminated(ended(1)));
    assert_eq!(ends(vec![failed, init("y", waits()), main()]), [row("z", 1), row("y", -1), row("a", -1)]);
    assert_eq!(ends(vec![init("z", waits()), main()]), [row("z", 137), row("a", -1)], "the first was to run");
    let done = init("z", State::Terminated(ended(0)));
    assert_eq!(ends(vec![done.clone(), main()]), [row("z", 0), row("a", 137)]);
    let ran = ContainerFacts { last: Some(ended(1)), ..main() };
    assert_eq!(ends(vec![init("z", waits()), ran]), [row("z", 137), row("a", 137)]);
    let side = ContainerFacts { sidecar: true, ..init("side", running()) };
    assert_eq!(ends(vec![done, side, main()]), [row("z", 0), row("side", 137), row("a", 137)]);
}
