//! A pod that is made before the one it replaces ends: its image, its sandbox and its container, which waits at the start line
//! while the other one still serves. Pure, as the plan is.

use super::*;

/// The pod that runs is not kept longer for its successor to be made.
pub const LONGEST: Duration = Duration::from_secs(10);

/// What becomes of the pod that runs while the one that is wanted instead is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ahead {
    /// Nothing is kept: what runs is ended at once.
    None,
    /// The one of this UID goes on, until this moment at the latest.
    Wait(String, Instant),
    /// The new one is made: the one of this UID ends now.
    Made(String),
    /// The new one could not be made in time, for this reason; the old one ends all the same.
    Late(String),
}

/// What to do for `pod`, which is wanted since `since`. `condemned` has the UIDs of pods that a probe of their own has given up.
pub fn ahead(pod: &PodView, seen: &Observed, condemned: &BTreeSet<String>, since: Instant, now: Instant) -> Ahead {
    let Some(old) = old(pod, seen).filter(|old| !condemned.contains(old)) else { return Ahead::None };
    if has_begun(pod, seen) {
        return Ahead::None;
    }
    let until = since + LONGEST;
    match () {
        () if is_made(pod, seen, now) => Ahead::Made(old),
        () if until <= now => Ahead::Late(why_not(pod, seen)),
        () => Ahead::Wait(old, until),
    }
}

/// The one pod that runs in the place of `pod`, and that no one has begun to end.
fn old(pod: &PodView, seen: &Observed) -> Option<String> {
    let runs = |one: &&Instance| one.is_running() && !one.record.is_sandbox && one.uid() != pod.uid;
    let others: Vec<_> = seen.instances.values().filter(runs).filter(|one| !seen.drained.contains(one.uid())).collect();
    let ends = |one: &&Instance| one.is_ending() || seen.terminating.contains(one.uid());
    let uids: BTreeSet<&str> = others.iter().map(|one| one.uid()).collect();
    let may = pod.ahead && uids.len() == 1 && !others.iter().any(ends) && !seen.terminating.contains(&pod.uid);
    uids.first().filter(|_| may).map(|uid| (*uid).to_owned())
}

/// Whether a container of the pod has ever been started.
fn has_begun(pod: &PodView, seen: &Observed) -> bool {
    let mut own = seen.instances.values().filter(|one| one.uid() == pod.uid && !one.record.is_sandbox);
    own.any(|one| one.record.state != ContainerState::Created)
}

/// Whether nothing is left but to start it.
fn is_made(pod: &PodView, seen: &Observed, now: Instant) -> bool {
    let mut planner = Planner { seen, now, plan: Plan::default(), hooked: None };
    let Some(sandbox) = planner.sandbox(pod) else { return false };
    pod.containers.iter().all(|container| planner.is_made(pod, container, &sandbox))
}

/// Why the pod is not made yet.
fn why_not(pod: &PodView, seen: &Observed) -> String {
    let names = pod.containers.iter().map(|container| container.name.as_str()).chain([SANDBOX]);
    let mut slots = names.filter_map(|name| seen.slots.get(name));
    let why = slots.find_map(|slot| match (&slot.fault, &slot.pull) {
        (Some(fault), _) => Some(fault.message.clone()),
        (None, Pull::Failed { message, .. }) => Some(message.clone()),
        (None, Pull::Running { image }) => Some(format!("image {image} is still being pulled")),
        (None, Pull::Idle) => None,
    });
    why.unwrap_or_else(|| format!("that takes longer than {}", wording::span(LONGEST)))
}

impl Planner<'_> {
    /// Makes what is missing of a pod that asks for it while another one is in its place. Nothing of it but its sandbox is started.
    pub(super) fn make_ahead(&mut self, pod: &PodView) {
        let is_restarted = self.seen.terminating.contains(&pod.uid);
        if !pod.ahead || is_restarted || self.seen.waits_for_surge || has_begun(pod, self.seen) {
            return;
        }
        let Some(sandbox) = self.sandbox(pod) else { return };
        for container in &pod.containers {
            if !self.is_made(pod, container, &sandbox) && self.may_start(pod, &container.name) {
                let next = self.slot(&container.name).next_attempt;
                let after = self.latest(pod, container).map_or(0, |last| last.record.name.attempt.saturating_add(1));
                self.act(Action::Prepare { container: container.name.clone(), attempt: next.max(after) });
            }
        }
        self.collect(pod, &sandbox);
    }

    fn is_made(&self, pod: &PodView, container: &ContainerView, sandbox: &str) -> bool {
        self.latest(pod, container).is_some_and(|one| {
            let same = one.hash() == Some(container.hash.as_str()) && one.sandbox() == sandbox;
            same && one.record.state == ContainerState::Created
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::worker::plan::tests::{Case, words};
    use crate::agent::worker::view::Fault;

    fn case() -> Case {
        let mut case = Case::host();
        case.view.ahead = true;
        case
    }

    /// The same under a runtime where every pod has a sandbox.
    fn boxed() -> Case {
        let mut case = case().with("old", "POD-9", "", "running");
        (case.view.needs_sandbox, case.view.sandbox_keeps) = (true, true);
        case
    }

    fn replacing(case: Case) -> Case {
        case.with("old", "c-9", "", "running")
    }

    /// What is decided so many seconds after the pod was first wanted.
    fn decide_after(case: &Case, seconds: u64) -> Ahead {
        let since = case.now - Duration::from_secs(seconds);
        ahead(&case.view, &case.seen, &BTreeSet::new(), since, case.now)
    }

    fn decide(case: &Case) -> Ahead {
        decide_after(case, 0)
    }

    /// The steps, once the old one is kept.
    fn steps(mut case: Case) -> Vec<String> {
        case.seen.waits_to_be_made = matches!(decide(&case), Ahead::Wait(..));
        assert!(case.seen.waits_to_be_made);
        words(&plan(Some(&case.view), &case.seen, case.now))
    }

    #[test]
    fn the_old_one_is_kept_until_the_new_one_is_made_and_then_ends() {
        let waits = |case: &Case| Ahead::Wait("old".to_owned(), case.now + LONGEST);
        let begins = replacing(case());
        assert_eq!(decide(&begins), waits(&begins));
        assert_eq!(steps(begins), ["prepare c 0"]);
        let made = replacing(case()).with("own", "c-0", "", "created");
        assert_eq!(decide(&made), Ahead::Made("old".to_owned()));
        assert_eq!(decide_after(&made, 60), Ahead::Made("old".to_owned()));

        let begins = replacing(boxed());
        assert_eq!(decide(&begins), waits(&begins));
        assert_eq!(steps(begins), ["sandbox 0"]);
        let sandbox = || replacing(boxed()).with("own", "POD-0", "", "running");
        let empty = sandbox();
        assert_eq!(decide(&empty), waits(&empty));
        assert_eq!(steps(empty), ["prepare c 0"]);
        assert_eq!(decide(&sandbox().with("own", "c-0", "POD-0", "created")), Ahead::Made("old".to_owned()));
        let lost = sandbox().with("own", "c-0", "POD-8", "created");
        assert_eq!(decide(&lost), waits(&lost), "made for another sandbox");
        assert_eq!(steps(lost), ["prepare c 1", "remove c-0"]);
    }

    #[test]
    fn nothing_is_kept_for_longer_than_its_time_or_where_it_ends_anyway() {
        assert_eq!(decide(&replacing(Case::host())), Ahead::None, "it does not ask");
        assert_eq!(decide(&case()), Ahead::None, "nothing runs");
        assert_eq!(decide(&case().with("old", "c-9", "", "1@3")), Ahead::None);
        assert_eq!(decide(&case().with("own", "c-0", "", "running")), Ahead::None, "there is no other one");
        assert_eq!(decide(&replacing(case()).terminating("old")), Ahead::None);
        let own = case().view.uid;
        assert_eq!(decide(&replacing(case()).terminating(&own)), Ahead::None, "it still ends itself");
        assert_eq!(decide(&replacing(case()).with("another", "c-8", "", "running")), Ahead::None, "two at once");
        for state in ["running", "1@3"] {
            assert_eq!(
                decide(&replacing(case()).with("own", "c-0", "", state)),
                Ahead::None,
                "it was started: {state}"
            );
        }
        let mut ending = replacing(case());
        ending.seen.instances.get_mut("c-9").unwrap().stopping = true;
        assert_eq!(decide(&ending), Ahead::None);
        let (case, condemned) = (replacing(case()), BTreeSet::from(["old".to_owned()]));
        assert_eq!(ahead(&case.view, &case.seen, &condemned, case.now, case.now), Ahead::None);
    }

    #[test]
    fn why_it_was_not_made_in_time_is_said() {
        let late = |case: Case, seconds| match decide_after(&case, seconds) {
            Ahead::Late(why) => why,
            other => format!("{other:?}"),
        };
        assert!(late(replacing(case()), 9).starts_with("Wait"));
        assert_eq!(late(replacing(case()), 10), "that takes longer than 10s");
        let pulls = replacing(case()).slot("c", |slot, _| slot.pull = Pull::Running { image: "x:2".into() });
        assert_eq!(late(pulls, 10), "image x:2 is still being pulled");
        let fault = |container| {
            replacing(case()).slot(container, |slot, now| {
                let (reason, message) = ("CreateContainerError", "no space left".to_owned());
                slot.fault = Some(Fault { reason, message, until: now, tries: 3 });
            })
        };
        assert_eq!(late(fault("c"), 10), "no space left");
        assert_eq!(late(fault(SANDBOX), 10), "no space left");
        assert!(late(fault("c"), 9).starts_with("Wait"), "it is tried again as long as there is time");
    }

    #[test]
    fn it_is_made_while_the_old_one_ends_and_started_as_soon_as_that_has() {
        let ends = |case: Case| words(&plan(Some(&case.view), &case.seen, case.now));
        assert_eq!(ends(replacing(case()).terminating("old")), ["kill c-9 7s", "prepare c 0"]);
        assert_eq!(ends(replacing(Case::host()).terminating("old")), ["kill c-9 7s"], "one that does not ask");
        let made = || case().with("own", "c-0", "", "created").terminating("old");
        assert_eq!(ends(replacing(made())), ["kill c-9 7s"]);
        assert_eq!(ends(made().with("old", "c-9", "", "0@0")), ["resume c-0", "remove c-9"]);
        assert_eq!(ends(made()), ["resume c-0", "forget old"]);
        let not_made = case().with("old", "c-9", "", "0@0").terminating("old");
        assert_eq!(ends(not_made), ["run c 0 after 0", "remove c-9"]);
        let boxed = boxed().with("own", "POD-0", "", "running").with("own", "c-0", "POD-0", "created");
        let boxed = boxed.terminating("old").with("old", "c-9", "POD-9", "0@0");
        assert_eq!(ends(boxed), ["resume c-0", "remove c-9", "remove POD-9"]);

        // It is the one that still ends itself, or had been made for something else.
        let own = case().view.uid;
        assert_eq!(ends(case().with("own", "c-0", "", "created").terminating(&own)), ["remove c-0"]);
        let outdated = replacing(case()).with("own", "extra-0", "", "created").terminating("old");
        assert_eq!(ends(outdated), ["kill c-9 7s", "prepare c 0"]);
    }
}
