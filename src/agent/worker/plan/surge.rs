//! Whether a pod is started beside the one it replaces, and when that one has done its work. Pure, as the plan is.

use jiff::Timestamp;

use super::*;
use crate::agent::probe::Health;
use crate::agent::worker::instance::former_uid;

/// How long after its successor was well the old one is told to end. An API server that ends takes its address out of the
/// endpoints of the service `kubernetes`, although its successor has the same; that puts it back when it looks the next time,
/// each 10 s from when it is ready (`EndpointInterval`): shortly before that, it is missing for a moment alone. It is seen to be
/// ready up to 2 s late on a busy machine; what ends after that moment is missing for 10 s.
pub const LINGER: Duration = Duration::from_secs(8);

/// What becomes of the pod that runs and the one that is wanted instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Surge {
    /// Nothing is kept: the old one ends, and then the new one starts.
    None,
    /// The old one serves on. The new one is not started yet, because one before it has not ended.
    Wait(String),
    /// The same, and it may be started as soon as the old one is sure to have all connections.
    Begin(String),
    /// The new one is started and tried beside the old one, which serves on.
    Beside(String),
    /// The new one is ready: it gets the connections.
    Switch(String),
    /// The new one has them, and the old one is told to end at this moment.
    Linger(String, Instant),
    /// The old one has to end whatever the new one does, which goes on alone.
    End(String),
    /// The pod that is wanted was there before this one, which ends: it is wanted again.
    Back(String),
}

impl Surge {
    /// The UID of the old pod, which goes on, and whether it serves.
    pub fn kept(&self) -> Option<(&str, bool)> {
        match self {
            Self::Wait(old) | Self::Begin(old) | Self::Beside(old) => Some((old, true)),
            Self::Linger(old, _) => Some((old, false)),
            Self::None | Self::Switch(_) | Self::End(_) | Self::Back(_) => None,
        }
    }
}

/// A surge that was begun.
#[derive(Debug, Clone, Copy)]
pub struct Begun<'a> {
    /// The UID of the old pod.
    pub old: &'a str,
    /// That of the new one.
    pub new: &'a str,
    /// When the old one is to end, once the new one has the connections.
    pub ends: Option<Instant>,
}

/// What to do for `pod`, which is wanted. `condemned` has the UIDs of pods that a probe of their own has given up.
pub fn surge(
    pod: &PodView,
    seen: &Observed,
    begun: Option<Begun<'_>>,
    condemned: &BTreeSet<String>,
    now: Instant,
) -> Surge {
    let Some(old) = old(pod, seen) else { return Surge::None };
    let uid = old.uid().to_owned();
    let begun = begun.filter(|begun| begun.old == uid && begun.new == pod.uid);
    let age = |one: &Instance| (one.record.created_at, one.record.id.clone());
    let mut own = seen.instances.values().filter(|one| one.uid() == pod.uid && one.is_running());
    if own.any(|one| one.shared_port() == pod.shares && age(one) < age(old)) {
        return if seen.terminating.contains(&pod.uid) { Surge::Wait(uid) } else { Surge::Back(uid) };
    }
    let given_up = condemned.contains(&uid);
    // Whose listener has which place in the group is known of two alone.
    let others = |one: &&Instance| one.uid() != uid && one.uid() != pod.uid;
    let mut left = seen.instances.values().filter(others);
    let crowded = left.any(|one| one.is_running() && !one.record.is_sandbox) || seen.terminating.contains(&pod.uid);
    match begun {
        None if given_up => Surge::None,
        None if crowded => Surge::Wait(uid),
        None => Surge::Begin(uid),
        Some(_) if given_up => Surge::End(uid),
        Some(Begun { ends: Some(until), .. }) if until > now => Surge::Linger(uid, until),
        Some(Begun { ends: Some(_), .. }) => Surge::End(uid),
        Some(_) if is_well(pod, seen, |health| health.ready) => Surge::Switch(uid),
        Some(_) => Surge::Beside(uid),
    }
}

/// The container that serves in the place of the pod's until that one is ready: of several the one that was there first, which
/// has the connections.
fn old<'a>(pod: &PodView, seen: &'a Observed) -> Option<&'a Instance> {
    let port = pod.shares?;
    let serves = |one: &&Instance| {
        let uid = one.uid();
        one.shared_port() == Some(port) && one.is_running() && uid != pod.uid && !seen.terminating.contains(uid)
    };
    seen.instances.values().filter(serves).min_by_key(|one| (one.record.created_at, one.record.id.clone()))
}

/// A pod that has given its connections to the one of `pod` and when it is to end, as far as an earlier agent has brought it: one
/// that was told to end already is not told again before its grace is over.
pub fn relieved(pod: &PodView, seen: &Observed, now: Instant) -> Option<(String, Instant)> {
    let old = old(pod, seen).filter(|one| one.relieved)?;
    let left = if old.told { old.grace() } else { LINGER };
    Some((old.uid().to_owned(), now + left))
}

/// Pods of which an instance was told to end, and which is not waited for beside another one.
pub fn told(pod: Option<&PodView>, seen: &Observed) -> Vec<String> {
    let is_own = |one: &Instance| pod.is_some_and(|pod| pod.uid == one.uid());
    let told = seen.instances.values().filter(|one| one.is_running() && one.told && (!one.relieved || is_own(one)));
    told.map(|one| one.uid().to_owned()).collect()
}

/// Instances of the pod that serve on while a later one takes their place, with the UIDs by which they count from then on. They
/// were there when that one was made; one that was started again from outside was not.
pub fn succeeded(pod: &PodView, seen: &Observed) -> Vec<(String, String)> {
    let Some(port) = pod.shares else { return vec![] };
    let own = || seen.instances.values().filter(|one| one.uid() == pod.uid);
    let made_later = |one: &Instance, started: &Timestamp| {
        own().any(|other| {
            let (own, other, made) = (&one.record.name, &other.record.name, other.record.created_at);
            other.container == own.container && other.attempt > own.attempt && made.is_some_and(|made| made >= *started)
        })
    };
    let is_former = |one: &&Instance| match &one.record.state {
        ContainerState::Running { started_at } => {
            !one.record.is_sandbox && one.shared_port() == Some(port) && made_later(one, started_at)
        }
        ContainerState::Created | ContainerState::Exited { .. } => false,
    };
    let former = own().filter(is_former).flat_map(|one| {
        let uid = former_uid(&pod.uid, one.record.name.attempt);
        let with = own().filter(|sandbox| sandbox.record.is_sandbox && sandbox.record.id == one.sandbox());
        with.chain([one]).map(|one| (one.record.id.clone(), uid.clone())).collect::<Vec<_>>()
    });
    former.collect()
}

/// Whether every container of the pod runs and its probes have come out well so far, and this too.
pub fn is_well(pod: &PodView, seen: &Observed, and: fn(&Health) -> bool) -> bool {
    let newest = |container: &ContainerView| {
        let own = seen.instances.values().filter(|one| one.uid() == pod.uid && !one.record.is_sandbox);
        let own = own.filter(|one| one.record.name.container == container.name);
        own.max_by_key(|one| (one.record.name.attempt, one.record.created_at))
    };
    let well = |container: &ContainerView| {
        let health = seen.slots.get(&container.name).and_then(|slot| slot.health.as_ref());
        newest(container).zip(health).is_some_and(|(one, health)| {
            let asked = health.id == one.record.id && one.is_running() && !one.is_ending();
            asked && one.post_start == PostStart::None && health.started && health.healthy && and(health)
        })
    };
    pod.of_role(Role::Main).all(well)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::worker::plan::tests::Case;
    use crate::runtime::labels;

    fn case() -> Case {
        let mut case = Case::host();
        case.view.shares = Some(6443);
        case
    }

    /// Puts an instance there that shares a port.
    fn sharing(case: Case, uid: &str, id: &str, state: &str, port: u16) -> Case {
        let mut case = case.with(uid, id, "", state);
        let one = case.seen.instances.get_mut(id).unwrap();
        one.record.annotations.insert(labels::SHARED_PORT.to_owned(), port.to_string());
        case
    }

    fn pair<'a>(case: &'a Case, old: &'a str) -> Begun<'a> {
        Begun { old, new: case.view.uid.as_str(), ends: None }
    }

    fn decide(case: &Case, begun: Option<&str>) -> Surge {
        surge(&case.view, &case.seen, begun.map(|old| pair(case, old)), &BTreeSet::new(), case.now)
    }

    fn healthy(case: Case, id: &str) -> Case {
        let id = id.to_owned();
        case.slot("c", |slot, _| {
            let (started, ready, healthy, message, must_restart) = (true, true, true, None, None);
            slot.health = Some(Health { id, started, ready, healthy, message, must_restart });
        })
    }

    #[test]
    fn one_that_shares_the_port_is_kept_until_the_new_one_is_ready() {
        let old = "old".to_owned();
        let begins = sharing(case(), "old", "c-0", "running", 6443);
        assert_eq!(decide(&begins, None), Surge::Begin(old.clone()));
        assert_eq!(decide(&begins, Some("old")), Surge::Beside(old.clone()));
        let runs = sharing(begins, "own", "c-1", "running", 6443);
        assert_eq!(decide(&runs, None), Surge::Begin(old.clone()), "an agent that was started again");
        assert_eq!(decide(&runs, Some("old")), Surge::Beside(old.clone()));
        let before = healthy(runs, "c-0");
        assert_eq!(decide(&before, Some("old")), Surge::Beside(old.clone()), "it is not the new one that is well");
        let ready = healthy(before, "c-1");
        assert_eq!(decide(&ready, Some("old")), Surge::Switch(old.clone()));
        assert_eq!(decide(&ready, None), Surge::Begin(old.clone()), "it may be the old one that has answered");
        let condemned = BTreeSet::from([old.clone()]);
        let (view, seen, now) = (&ready.view, &ready.seen, ready.now);
        let pair = pair(&ready, "old");
        assert_eq!(surge(view, seen, Some(pair), &condemned, now), Surge::End(old.clone()));
        assert_eq!(surge(view, seen, None, &condemned, now), Surge::None);

        // The old one ends just before the new one looks after its endpoints again.
        let pair = Begun { ends: Some(now + LINGER), ..pair };
        let after = |seconds| surge(view, seen, Some(pair), &BTreeSet::new(), now + Duration::from_secs(seconds));
        assert_eq!(after(0), Surge::Linger(old.clone(), now + LINGER));
        assert_eq!(after(7), Surge::Linger(old.clone(), now + LINGER));
        assert_eq!(after(8), Surge::End(old));
    }

    #[test]
    fn nothing_is_kept_that_does_not_serve_on_that_port_or_is_ended_already() {
        let not_asked = Case::host();
        assert_eq!(decide(&sharing(not_asked, "old", "c-0", "running", 6443), None), Surge::None);
        assert_eq!(decide(&case().with("old", "c-0", "", "running"), None), Surge::None);
        assert_eq!(decide(&sharing(case(), "old", "c-0", "running", 7), None), Surge::None);
        assert_eq!(decide(&sharing(case(), "old", "c-0", "1@3", 6443), Some("old")), Surge::None);
        assert_eq!(decide(&sharing(case(), "old", "c-0", "running", 6443).terminating("old"), None), Surge::None);
        assert_eq!(decide(&sharing(case(), "own", "c-0", "running", 6443), None), Surge::None);
    }

    #[test]
    fn a_pod_that_is_wanted_again_while_it_runs_has_its_connections_back() {
        let runs = sharing(sharing(case(), "own", "c-0", "running", 6443), "other", "c-1", "running", 6443);
        assert_eq!(decide(&runs, None), Surge::Back("other".to_owned()));
        let own = runs.view.uid.clone();
        assert_eq!(decide(&runs.terminating(&own), None), Surge::Wait("other".to_owned()), "it ends already");
    }

    #[test]
    fn a_third_one_is_waited_for() {
        let third = sharing(case(), "old", "c-0", "running", 6443).with("third", "c-1", "", "running");
        let third = third.terminating("third");
        assert_eq!(decide(&third, None), Surge::Wait("old".to_owned()));
        let mut again = sharing(case(), "old", "c-0", "running", 6443);
        let own = again.view.uid.clone();
        again = again.terminating(&own);
        assert_eq!(decide(&again, None), Surge::Wait("old".to_owned()), "its own earlier run still ends");
    }
}
