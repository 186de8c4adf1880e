//! Plans of made-up cases, in words.

mod bound;
mod ending;
mod restart;

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::*;
use crate::agent::pod::tests::pod_with;
use crate::agent::probe::{Health, MustRestart, ProbeKind};
use crate::agent::worker::order::Hold;
use crate::agent::worker::view::{Fault, Kill};
use crate::runtime::{ContainerName, ContainerRecord, labels};

/// A machine under a plan: a pod and what is there of it.
pub(super) struct Case {
    pub(super) view: PodView,
    pub(super) seen: Observed,
    pub(super) now: Instant,
}

const OLD_GRACE: &str = "7";

impl Case {
    fn new(spec: &str) -> Self {
        let pod = pod_with(&format!("terminationGracePeriodSeconds: 9\n  {spec}"), "");
        Self { view: PodView::of(&pod, false), seen: Observed::new(Duration::from_secs(300)), now: Instant::now() }
    }

    /// A pod with one container and no sandbox.
    pub(super) fn host() -> Self {
        Self::new("hostNetwork: true")
    }

    /// Puts an instance there: `main-3` is the fourth of `main`. Its state: `created`, `running`, or an exit code and
    /// how many seconds ago (`1@5`).
    pub(super) fn with(self, uid: &str, id: &str, sandbox: &str, state: &str) -> Self {
        let hash = self.view.containers.iter().find(|c| id.starts_with(&c.name)).map(|c| c.hash.clone());
        self.with_hash(uid, id, sandbox, state, &hash.unwrap_or_default())
    }

    fn with_hash(mut self, uid: &str, id: &str, sandbox: &str, state: &str, hash: &str) -> Self {
        let (container, attempt) = id.rsplit_once('-').unwrap();
        let uid = if uid == "own" { self.view.uid.clone() } else { uid.to_owned() };
        let at = |second: i64| Some(Timestamp::from_second(1_000_000 + second).unwrap());
        let (state, ended) = match state.split_once('@') {
            Some((code, ago)) => {
                let ended = self.now - Duration::from_secs(ago.parse().unwrap());
                let exit_code = code.parse().unwrap();
                let (reason, message) = (String::new(), String::new());
                (
                    ContainerState::Exited { exit_code, reason, message, started_at: at(0), finished_at: at(1) },
                    Some(ended),
                )
            }
            None if state == "created" => (ContainerState::Created, None),
            None => (ContainerState::Running { started_at: Timestamp::UNIX_EPOCH }, None),
        };
        let name = ContainerName {
            pod: "p-node1".into(),
            namespace: "default".into(),
            uid,
            container: container.to_owned(),
            attempt: attempt.parse().unwrap(),
        };
        let record = ContainerRecord {
            runtime: "docker",
            id: id.to_owned(),
            is_sandbox: container == SANDBOX,
            name,
            image: String::new(),
            image_id: String::new(),
            state,
            created_at: None,
            ip: None,
            user: None,
            labels: BTreeMap::from([(labels::SANDBOX_ID.to_owned(), sandbox.to_owned())]),
            annotations: BTreeMap::from([
                (labels::CONTAINER_HASH.to_owned(), hash.to_owned()),
                (labels::GRACE_PERIOD.to_owned(), OLD_GRACE.to_owned()),
            ]),
        };
        self.seen.instances.insert(id.to_owned(), Instance::new(record, ended));
        self
    }

    pub(super) fn slot(mut self, container: &str, change: impl FnOnce(&mut Slot, Instant)) -> Self {
        change(self.seen.slots.entry(container.to_owned()).or_default(), self.now);
        self
    }

    pub(super) fn terminating(mut self, uid: &str) -> Self {
        self.seen.terminating.insert(uid.to_owned());
        self
    }

    fn plan(&self) -> Plan {
        plan(Some(&self.view), &self.seen, self.now)
    }

    fn actions(&self) -> Vec<String> {
        words(&self.plan())
    }

    /// Seconds until the plan is to be made again.
    fn wake(&self) -> Option<u64> {
        self.plan().wake.map(|at| (at - self.now).as_secs())
    }

    fn waiting(&self, container: &str) -> String {
        self.plan().waiting.get(container).map(|waiting| waiting.reason.clone()).unwrap_or_default()
    }
}

fn health(id: &str) -> Health {
    Health { id: id.into(), started: false, ready: false, healthy: false, message: None, must_restart: None }
}

pub(super) fn words(plan: &Plan) -> Vec<String> {
    let word = |action: &Action| match action {
        Action::Kill { id, grace, .. } => format!("kill {id} {}s", grace.as_secs()),
        Action::Stop { id, grace } => format!("stop {id} {}s", grace.as_secs()),
        Action::Remove { id } => format!("remove {id}"),
        Action::CreateSandbox { attempt } => format!("sandbox {attempt}"),
        Action::Run { container, attempt, tries } => format!("run {container} {attempt} after {tries}"),
        Action::Hurry { id } => format!("hurry {id}"),
        Action::Prepare { container, attempt } => format!("prepare {container} {attempt}"),
        Action::Resume { id } => format!("resume {id}"),
        Action::Forget { uid } => format!("forget {uid}"),
    };
    plan.actions.iter().map(word).collect()
}

const NOTHING: [&str; 0] = [];

#[test]
fn a_lone_container_on_the_hosts_network_runs_without_a_sandbox() {
    assert_eq!(Case::host().actions(), ["run c 0 after 0"]);
    assert_eq!(Case::host().with("own", "c-0", "", "running").actions(), NOTHING);
    assert_eq!(Case::host().with("own", "c-0", "", "created").actions(), ["resume c-0"]);
}

#[test]
fn every_other_pod_gets_its_sandbox_first() {
    let pod = || Case::new("hostNetwork: false");
    assert_eq!(pod().actions(), ["sandbox 0"]);
    assert_eq!(pod().waiting("c"), "ContainerCreating");
    assert_eq!(pod().with("own", "POD-0", "", "created").actions(), ["resume POD-0"]);
    let up = || pod().with("own", "POD-0", "", "running");
    assert_eq!(up().actions(), ["run c 0 after 0"]);
    assert_eq!(up().with("own", "c-0", "POD-0", "running").actions(), NOTHING);
}

#[test]
fn sandboxes_that_do_not_live_are_backed_off() {
    let dead = |tries: u32, state: &str| {
        Case::new("hostNetwork: false").with("own", "POD-4", "", state).slot(SANDBOX, |slot, _| slot.tries = tries)
    };
    assert_eq!(dead(1, "0@0").actions(), ["sandbox 5"], "the first one is replaced at once");
    assert_eq!((dead(3, "0@1").actions(), dead(3, "0@1").wake()), (vec![], Some(1)));
    assert_eq!(dead(3, "0@2").actions(), ["sandbox 5"]);
    assert_eq!(dead(30, "0@9").wake(), Some(1), "never longer than ten seconds");
}

#[test]
fn a_pod_that_lost_its_sandbox_is_rebuilt_whole() {
    let dead = || Case::new("hostNetwork: false").with("own", "POD-2", "", "137@1");
    assert_eq!(dead().with("own", "c-0", "POD-2", "running").actions(), ["kill c-0 9s"]);
    assert_eq!(dead().with("own", "c-0", "POD-2", "143@0").actions(), ["sandbox 3"]);
    let rebuilt = dead().with("own", "c-0", "POD-2", "143@0").with("own", "POD-3", "", "running");
    assert_eq!(rebuilt.actions(), ["remove POD-2", "run c 1 after 0"]);
    let by_hand = Case::new("hostNetwork: false").slot(SANDBOX, |slot, _| slot.next_attempt = 4);
    assert_eq!(by_hand.actions(), ["sandbox 4"], "removed sandboxes count too");
    let moved =
        Case::new("hostNetwork: false").with("own", "POD-1", "", "running").with("own", "c-0", "POD-0", "running");
    assert_eq!(moved.actions(), ["kill c-0 9s"], "a container of another sandbox");
}

#[test]
fn init_containers_run_one_by_one_before_the_others() {
    let pod = || {
        Case::new("initContainers: [{name: one, image: x}, {name: two, image: x}]").with("own", "POD-0", "", "running")
    };
    let after = |case: Case| case.with("own", "one-0", "POD-0", "0@5");
    assert_eq!(pod().actions(), ["run one 0 after 0"]);
    assert_eq!((pod().waiting("two"), pod().waiting("c")), ("PodInitializing".into(), "PodInitializing".into()));
    assert_eq!(pod().with("own", "one-0", "POD-0", "running").actions(), NOTHING);
    assert_eq!(after(pod()).actions(), ["run two 0 after 0"]);
    assert_eq!(
        after(pod()).with("own", "two-0", "POD-0", "1@0").actions(),
        ["run two 1 after 0"],
        "a failed one again"
    );
    let both = || after(pod()).with("own", "two-0", "POD-0", "0@1");
    assert_eq!(both().actions(), ["run c 0 after 0"]);
    assert!(both().plan().initialized);
    let begun = pod().with("own", "c-0", "POD-0", "running");
    assert_eq!(
        begun.actions(),
        NOTHING,
        "once a main container exists, init containers that were removed are not run again"
    );
    let rebuilt = both().with("own", "POD-1", "", "running").with("own", "c-0", "POD-0", "1@0");
    assert_eq!(
        rebuilt.actions()[..2],
        ["remove POD-0", "run one 1 after 0"],
        "a new sandbox begins from the beginning"
    );
}

#[test]
fn an_init_container_that_may_not_be_repeated_fails_the_pod() {
    let pod = Case::new("restartPolicy: Never\n  initContainers: [{name: one, image: x}]")
        .with("own", "POD-0", "", "running")
        .with("own", "one-0", "POD-0", "1@0");
    assert_eq!(pod.plan().finished, Some(Finish::Failed));
    assert_eq!(pod.actions(), ["kill POD-0 2s"]);
}

#[test]
fn a_sidecar_holds_the_next_one_back_until_it_has_started_and_is_always_restarted() {
    let pod = || {
        Case::new("restartPolicy: Never\n  initContainers: [{name: side, image: x, restartPolicy: Always}]")
            .with("own", "POD-0", "", "running")
    };
    let health = |started| Health {
        id: "side-0".into(),
        started,
        ready: false,
        healthy: false,
        message: None,
        must_restart: None,
    };
    assert_eq!(pod().actions(), ["run side 0 after 0"]);
    let running = |started| {
        pod().with("own", "side-0", "POD-0", "running").slot("side", move |slot, _| slot.health = Some(health(started)))
    };
    assert_eq!(running(false).actions(), NOTHING);
    assert_eq!(running(true).actions(), ["run c 0 after 0"]);
    let dead = pod().with("own", "side-0", "POD-0", "0@0").with("own", "c-0", "POD-0", "running");
    assert_eq!(dead.actions(), ["run side 1 after 0"]);
    let finished = running(true).with("own", "c-0", "POD-0", "0@0");
    assert_eq!(finished.actions(), ["kill side-0 9s"], "a sidecar keeps no finished pod alive");
    assert_eq!(finished.plan().finished, None, "but it works until it has ended");
    let ended = finished.with("own", "side-0", "POD-0", "7@0");
    assert_eq!(ended.plan().finished, Some(Finish::Succeeded));
}

#[test]
fn what_a_probe_condemns_is_stopped_with_the_probes_grace() {
    let condemned = |grace| {
        let must_restart = MustRestart { kind: ProbeKind::Liveness, message: "failed".into(), grace };
        let health = Health {
            id: "c-0".into(),
            started: true,
            ready: false,
            healthy: false,
            message: None,
            must_restart: Some(must_restart),
        };
        Case::host().with("own", "c-0", "", "running").slot("c", move |slot, _| slot.health = Some(health))
    };
    assert_eq!(condemned(None).actions(), ["kill c-0 9s"]);
    assert_eq!(condemned(Some(Duration::from_secs(4))).actions(), ["kill c-0 4s"]);
    let mut stopping = condemned(None);
    stopping.seen.instances.get_mut("c-0").unwrap().stopping = true;
    assert_eq!(stopping.actions(), NOTHING, "once");
    let other = Case::host().with("own", "c-1", "", "running").slot("c", |slot, _| {
        slot.health = condemned(None).seen.slots["c"].health.clone();
    });
    assert_eq!(other.actions(), NOTHING, "the result of another instance says nothing");
}

#[test]
fn a_container_whose_manifest_changed_under_the_same_uid_is_replaced_without_back_off() {
    let running = Case::host().with_hash("own", "c-0", "", "running", "other");
    assert_eq!(running.actions(), ["kill c-0 9s"]);
    let stopped = Case::host().with_hash("own", "c-0", "", "143@0", "other").slot("c", |slot, _| slot.tries = 5);
    assert_eq!(stopped.actions(), ["run c 1 after 0"]);
    let created = Case::host().with_hash("own", "c-0", "", "created", "other");
    assert_eq!(created.actions(), ["run c 1 after 0", "remove c-0"]);
    let gone = Case::host().with("own", "c-0", "", "running").with("own", "extra-0", "", "running");
    assert_eq!(gone.actions(), ["kill extra-0 9s"], "a container that the manifest has no more");
}

#[test]
fn of_two_running_instances_the_newer_one_stays() {
    let case = Case::host().with("own", "c-0", "", "running").with("own", "c-1", "", "running");
    assert_eq!(case.actions(), ["kill c-0 9s"]);
}

#[test]
fn one_dead_instance_of_each_container_is_kept_for_its_log() {
    let case =
        Case::host().with("own", "c-1", "", "1@60").with("own", "c-2", "", "1@30").with("own", "c-3", "", "running");
    assert_eq!(case.actions(), ["remove c-1"]);
    let crashed =
        Case::host().with("own", "c-1", "", "1@60").with("own", "c-2", "", "1@0").slot("c", |s, _| s.tries = 3);
    assert_eq!(crashed.actions(), ["remove c-1"]);
}

#[test]
fn the_start_order_holds_first_starts_back_and_no_longer_than_it_says() {
    let mut case = Case::host();
    case.seen.hold = Some(Hold { message: "waiting for x".into(), until: case.now + Duration::from_secs(30) });
    assert_eq!((case.actions(), case.wake()), (vec!["prepare c 0".to_owned()], Some(30)), "made, not started");
    assert_eq!(case.plan().message.as_deref(), Some("waiting for x"));
    let hold = case.seen.hold.clone();
    let mut made = Case::host().with("own", "c-0", "", "created");
    made.seen.hold = hold;
    assert_eq!(made.actions(), NOTHING);
    made.now += Duration::from_secs(30);
    assert_eq!(made.actions(), ["resume c-0"]);
    case.now += Duration::from_secs(30);
    assert_eq!(case.actions(), ["run c 0 after 0"]);
}

#[test]
fn images_and_failures_hold_back_their_own_container_alone() {
    let pod = || {
        let case = Case::new("hostNetwork: false").with("own", "POD-0", "", "running");
        let mut other = case.view.containers[0].clone();
        other.name = "other".into();
        let mut case = case;
        case.view.containers.push(other);
        case
    };
    let pulling = pod().slot("c", |slot, _| slot.pull = Pull::Running { image: "x".into() });
    assert_eq!(pulling.actions(), ["run other 0 after 0"]);
    assert_eq!(pulling.waiting("c"), "ContainerCreating");
    let failed = pod().slot("c", |slot, now| {
        let until = now + Duration::from_secs(10);
        slot.pull = Pull::Failed {
            reason: "ErrImagePull",
            message: "no".into(),
            backed_off: "Back-off: no".into(),
            until,
            reported: Some(now + Duration::from_secs(5)),
            tries: 1,
        };
    });
    assert_eq!((failed.actions(), failed.wake()), (vec!["run other 0 after 0".into()], Some(5)));
    assert_eq!(failed.waiting("c"), "ErrImagePull");
    let fault = pod().slot("c", |slot, now| {
        let until = now + Duration::from_secs(1);
        slot.fault = Some(Fault { reason: "CreateContainerError", message: "no".into(), until, tries: 1 });
    });
    assert_eq!((fault.actions(), fault.wake()), (vec!["run other 0 after 0".into()], Some(1)));
    let mut later = fault;
    later.now += Duration::from_secs(1);
    assert_eq!(later.actions(), ["run c 0 after 0", "run other 0 after 0"]);
}

#[test]
fn a_call_that_failed_is_not_repeated_at_once() {
    let mut case = Case::host().with_hash("own", "c-0", "", "running", "other");
    case.seen.instances.get_mut("c-0").unwrap().retry_at = Some(case.now + Duration::from_secs(2));
    assert_eq!((case.actions(), case.wake()), (vec![], Some(2)));
}
