//! Whether a pod is started beside the one it replaces, and when that one has done its work. Pure, as the plan is.

use super::*;

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
    /// The new one is ready: it gets the connections, and the old one ends.
    Switch(String),
    /// The old one has to end whatever the new one does, which goes on alone.
    Give(String),
}

impl Surge {
    /// The UID of the old pod, which goes on.
    pub fn kept(&self) -> Option<&str> {
        match self {
            Self::Wait(old) | Self::Begin(old) | Self::Beside(old) => Some(old),
            Self::None | Self::Switch(_) | Self::Give(_) => None,
        }
    }
}

/// A surge that was begun: the UIDs of the old and of the new pod.
pub type Pair<'a> = (&'a str, &'a str);

/// What to do for `pod`, which is wanted. `begun` is what goes on already; `condemned` has the UIDs of pods that a probe of
/// their own has given up.
pub fn surge(pod: &PodView, seen: &Observed, begun: Option<Pair<'_>>, condemned: &BTreeSet<String>) -> Surge {
    let Some(old) = old(pod, seen) else { return Surge::None };
    let uid = old.record.name.uid.clone();
    let is_begun = begun == Some((uid.as_str(), pod.uid.as_str()));
    if condemned.contains(&uid) {
        return if is_begun { Surge::Give(uid) } else { Surge::None };
    }
    let others = |one: &&Instance| one.record.name.uid != uid && one.record.name.uid != pod.uid;
    let mut left = seen.instances.values().filter(others);
    // Whose listener has which place in the group is known of two alone.
    let crowded = left.any(|one| one.is_running() && !one.record.is_sandbox) || seen.terminating.contains(&pod.uid);
    match is_begun {
        false if crowded => Surge::Wait(uid),
        false => Surge::Begin(uid),
        true if is_ready(pod, seen) => Surge::Switch(uid),
        true => Surge::Beside(uid),
    }
}

/// The container that serves in the place of the pod's until that one is ready: of several the one that was there first, which
/// has the connections.
fn old<'a>(pod: &PodView, seen: &'a Observed) -> Option<&'a Instance> {
    let port = pod.shares?;
    let serves = |one: &&Instance| {
        let uid = &one.record.name.uid;
        one.shared_port() == Some(port) && one.is_running() && *uid != pod.uid && !seen.terminating.contains(uid)
    };
    seen.instances.values().filter(serves).min_by_key(|one| (one.record.created_at, one.record.id.clone()))
}

/// Whether every container of the pod runs and all of its probes have come out well.
fn is_ready(pod: &PodView, seen: &Observed) -> bool {
    let newest = |container: &ContainerView| {
        let own = seen.instances.values().filter(|one| one.record.name.uid == pod.uid && !one.record.is_sandbox);
        let own = own.filter(|one| one.record.name.container == container.name);
        own.max_by_key(|one| (one.record.name.attempt, one.record.created_at))
    };
    let well = |container: &ContainerView| {
        let health = seen.slots.get(&container.name).and_then(|slot| slot.health.as_ref());
        newest(container).zip(health).is_some_and(|(one, health)| {
            let asked = health.id == one.record.id && one.is_running() && !one.is_ending();
            asked && one.post_start == PostStart::None && health.started && health.ready && health.healthy
        })
    };
    pod.of_role(Role::Main).all(well)
}
