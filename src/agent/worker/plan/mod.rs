//! What to do next for one pod, from what is wanted and what is there. Pure: no clock, no runtime, no file.
//!
//! The plan is level-triggered: it is recomputed from the whole state after every step, so that an event that was missed
//! or a step that failed changes nothing but the moment at which it is made.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::time::Duration;

use super::action::{Action, Plan, Waiting};
use super::view::{ContainerView, Finish, Instance, Observed, PodView, PostStart, Pull, Role, Slot};
use crate::agent::backoff::{CALL, CRASH, FORGIVEN_AFTER};
use crate::agent::container::SANDBOX;
use crate::agent::pod::PodKey;
use crate::agent::wording;
use crate::host::clock::Instant;
use crate::runtime::ContainerState;

pub mod ahead;
mod ending;
pub mod surge;
mod whole;

/// No stop is given less (the kubelet's `minimumGracePeriodInSeconds`).
const MIN_GRACE: Duration = Duration::from_secs(2);
/// A sandbox that ran this long was a good one.
const SANDBOX_LIVES: Duration = Duration::from_secs(60);

/// The next steps for `pod`, None when none is wanted.
pub fn plan(pod: Option<&PodView>, seen: &Observed, now: Instant) -> Plan {
    let mut planner = Planner { seen, now, plan: Plan::default(), hooked: None };
    let free = pod.filter(|pod| !seen.is_blocked(pod));
    let (first, later) = (free.filter(|pod| pod.ahead), free.filter(|pod| !pod.ahead));
    if let Some(pod) = first {
        // What its predecessor has left is removed when it has started.
        planner.run(pod);
    }
    for uid in &seen.terminating {
        planner.terminate(uid);
    }
    if let Some(pod) = later {
        planner.run(pod);
    }
    if let Some(pod) = pod.filter(|_| free.is_none()) {
        planner.force_stop(pod);
        planner.wait_for_predecessor(pod);
        planner.make_ahead(pod);
    }
    planner.plan
}

/// Tries in a row of a container whose newest instance is `last`: none if that one ran long enough.
pub fn tries(slot: &Slot, last: Option<&Instance>) -> u32 {
    match last.and_then(Instance::ran_for) {
        Some(ran) if ran >= FORGIVEN_AFTER => 0,
        _ => slot.tries,
    }
}

/// Sandboxes in a row that did not live, of which `newest` is the last: none if that one did.
pub fn sandbox_tries(tries: u32, newest: Option<&Instance>) -> u32 {
    match newest.and_then(Instance::ran_for) {
        Some(ran) if ran >= SANDBOX_LIVES => 0,
        _ => tries,
    }
}

/// How far one container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Runs, and its startup probe (if any) has passed.
    Started,
    /// Will run, or will run again, or has not passed its startup probe.
    Underway,
    /// Ended for good.
    Done { well: bool },
}

struct Planner<'a> {
    seen: &'a Observed,
    now: Instant,
    plan: Plan,
    /// The container whose `postStart` hook holds back the pod's further starts.
    hooked: Option<String>,
}

impl<'a> Planner<'a> {
    fn act(&mut self, action: Action) {
        self.plan.actions.push(action);
    }

    fn wake_at(&mut self, at: Instant) {
        self.plan.wake = Some(self.plan.wake.map_or(at, |before| before.min(at)));
    }

    /// Whether `at` has come; if not, the plan is made again then.
    fn due(&mut self, at: Option<Instant>) -> bool {
        match at {
            Some(at) if at > self.now => {
                self.wake_at(at);
                false
            }
            _ => true,
        }
    }

    fn wait(&mut self, container: &str, reason: &str, message: impl Into<String>) {
        let waiting = Waiting { reason: reason.to_owned(), message: message.into() };
        self.plan.waiting.insert(container.to_owned(), waiting);
    }

    fn instances(&self, uid: &str) -> impl Iterator<Item = &'a Instance> + use<'a> {
        let uid = uid.to_owned();
        self.seen.instances.values().filter(move |one| one.uid() == uid)
    }

    fn remove(&mut self, one: &Instance) {
        if self.due(one.retry_at) {
            self.act(Action::Remove { id: one.record.id.clone() });
        }
    }

    fn wait_for_predecessor(&mut self, pod: &PodView) {
        self.plan.message = Some("waiting until the previous instance of the pod has stopped".to_owned());
        for container in &pod.containers {
            self.wait(&container.name, pod.initial_reason(), "");
        }
    }

    fn run(&mut self, pod: &PodView) {
        self.carry_on(&pod.uid);
        let hooked = self.instances(&pod.uid).find(|one| one.is_running() && one.post_start == PostStart::Running);
        self.hooked = hooked.map(|one| one.record.name.container.clone());
        if self.is_taken_back(pod) || self.is_over(pod) {
            return;
        }
        let Some(sandbox) = self.sandbox(pod) else {
            for container in &pod.containers {
                if self.latest(pod, container).is_none() {
                    self.wait(&container.name, pod.initial_reason(), "");
                }
            }
            return;
        };
        if self.restart_all(pod, &sandbox) {
            return;
        }
        self.stop_unknown_containers(pod, &sandbox);
        self.ephemeral(pod, &sandbox);
        if self.init(pod, &sandbox) {
            self.plan.initialized = true;
            for container in pod.of_role(Role::Main) {
                self.ensure(pod, container, &sandbox);
            }
        } else {
            for container in pod.of_role(Role::Main) {
                self.wait(&container.name, "PodInitializing", "");
            }
        }
        self.collect(pod, &sandbox);
    }

    /// The newest instance of a container.
    fn latest(&self, pod: &PodView, container: &ContainerView) -> Option<&'a Instance> {
        self.instances(&pod.uid)
            .filter(|one| !one.record.is_sandbox && one.record.name.container == container.name)
            .max_by_key(|one| (one.record.name.attempt, one.record.created_at))
    }

    /// The id of the sandbox that containers are to join (empty for a pod that needs none), or None while there is
    /// none.
    fn sandbox(&mut self, pod: &PodView) -> Option<String> {
        let mut sandboxes: Vec<_> = self.instances(&pod.uid).filter(|one| one.record.is_sandbox).collect();
        sandboxes.sort_by_key(|one| (one.record.name.attempt, one.record.created_at));
        let newest = if pod.needs_sandbox { sandboxes.pop() } else { None };
        for old in sandboxes {
            // The ended containers in it, whose logs are kept, would go with it.
            let holds = |id: &str| self.instances(&pod.uid).any(|one| !one.record.is_sandbox && one.sandbox() == id);
            if !pod.sandbox_keeps || !holds(&old.record.id) {
                self.remove(old);
            }
        }
        if !pod.needs_sandbox {
            return Some(String::new());
        }
        if let Some(newest) = newest
            && newest.is_running()
            && !newest.is_ending()
            && pod.fits(newest)
        {
            return Some(newest.record.id.clone());
        }
        // Without its sandbox the pod is rebuilt whole: what still runs has lost its network's holder.
        let running = self.instances(&pod.uid).filter(|one| one.is_running());
        let (sandboxes, containers): (Vec<_>, Vec<_>) = running.partition(|one| one.record.is_sandbox);
        let why = if sandboxes.is_empty() { "the sandbox of its pod is gone" } else { "its pod has changed" };
        self.kill_all(&containers, |_| pod.grace, why);
        if containers.is_empty() {
            self.kill_all(&sandboxes, |_| MIN_GRACE, why);
        }
        if !containers.is_empty() || !sandboxes.is_empty() {
            return None;
        }
        match newest {
            Some(newest) if newest.record.state == ContainerState::Created && pod.fits(newest) => {
                if self.may_start(pod, SANDBOX) {
                    self.act(Action::Resume { id: newest.record.id.clone() });
                }
            }
            newest => {
                let attempt = newest.map_or(0, |one| one.record.name.attempt.saturating_add(1));
                let slot = self.slot(SANDBOX);
                // The first one to end is replaced at once; a pause image that cannot live must not spin.
                let failures = sandbox_tries(slot.tries, newest).saturating_sub(1);
                let due = newest.and_then(|one| one.ended).map(|ended| ended + CALL.after(failures));
                if self.may_start(pod, SANDBOX) && self.due(due) {
                    self.act(Action::CreateSandbox { attempt: attempt.max(self.slot(SANDBOX).next_attempt) });
                }
            }
        }
        None
    }

    /// Containers of this UID that the pod has not (its manifest keeps its own UID), running ones of another sandbox,
    /// and those that were started again from outside after another had taken their place.
    fn stop_unknown_containers(&mut self, pod: &PodView, sandbox: &str) {
        let names: BTreeSet<&str> = pod.containers.iter().map(|c| c.name.as_str()).collect();
        let unknown_containers: Vec<_> = self.instances(&pod.uid).filter(|one| !one.record.is_sandbox).collect();
        for one in unknown_containers {
            let known = names.contains(one.record.name.container.as_str());
            match (known, one.is_running()) {
                (false, true) => self.kill(one, pod.grace, "its pod has no such container any more"),
                (false, false) => self.remove(one),
                (true, true) if one.sandbox() != sandbox => self.kill(one, pod.grace, "it is in another sandbox"),
                (true, true) if self.is_outdated(pod, one) => self.kill(one, pod.grace, "another one is in its place"),
                _ => {}
            }
        }
    }

    fn is_outdated(&self, pod: &PodView, one: &Instance) -> bool {
        let container = pod.containers.iter().find(|c| c.name == one.record.name.container);
        container.and_then(|c| self.latest(pod, c)).is_some_and(|latest| latest.record.id != one.record.id)
    }

    /// Ephemeral containers, whatever the others do. Each is started once: one that has ended, or of which nothing is left, has
    /// done its work.
    fn ephemeral(&mut self, pod: &PodView, sandbox: &str) {
        for container in pod.of_role(Role::Ephemeral) {
            let slot = self.slot(&container.name);
            match self.latest(pod, container) {
                None if slot.next_attempt == 0 => {
                    self.start(pod, container, 0, slot.tries);
                }
                Some(one)
                    if one.record.state == ContainerState::Created
                        && one.sandbox() == sandbox
                        && self.may_start(pod, &container.name) =>
                {
                    self.act(Action::Resume { id: one.record.id.clone() });
                }
                _ => {}
            }
        }
    }

    /// Init containers one by one, sidecars in their place among them. True once all are done.
    fn init(&mut self, pod: &PodView, sandbox: &str) -> bool {
        let is_init = |container: &ContainerView| matches!(container.role, Role::Init | Role::Sidecar);
        let here = |container: &ContainerView| {
            let latest = self.latest(pod, container).filter(|_| container.role != Role::Ephemeral);
            latest.is_some_and(|one| one.sandbox() == sandbox)
        };
        let here: Vec<bool> = pod.containers.iter().map(here).collect();
        for (index, container) in pod.containers.iter().enumerate().filter(|(_, c)| is_init(c)) {
            // Nothing behind it would be there if it had not been done, even where nothing is left of it.
            let begun = here.iter().skip(index.saturating_add(1)).any(|here| *here);
            if begun && container.role == Role::Init {
                if self.latest(pod, container).is_none() {
                    self.plan.completed.insert(container.name.clone());
                }
                continue;
            }
            let standing = self.ensure(pod, container, sandbox);
            if !begun && !matches!(standing, Standing::Started | Standing::Done { well: true }) {
                let later = pod.containers.iter().filter(|c| is_init(c));
                for container in later.skip_while(|c| c.name != container.name).skip(1) {
                    self.wait(&container.name, "PodInitializing", "");
                }
                return false;
            }
        }
        true
    }

    fn slot(&self, container: &str) -> Slot {
        self.seen.slots.get(container).cloned().unwrap_or_default()
    }

    /// Brings one container to where it should be.
    fn ensure(&mut self, pod: &PodView, container: &ContainerView, sandbox: &str) -> Standing {
        let slot = self.slot(&container.name);
        let Some(last) = self.latest(pod, container) else {
            return self.start(pod, container, slot.next_attempt, slot.tries);
        };
        let next = last.record.name.attempt.saturating_add(1).max(slot.next_attempt);
        let same = last.hash() == Some(container.hash.as_str());
        match &last.record.state {
            ContainerState::Running { .. } => self.watch(pod, container, last, &slot, same),
            ContainerState::Created if same && last.sandbox() == sandbox => {
                if self.may_start(pod, &container.name) && !self.held(pod, container) {
                    self.act(Action::Resume { id: last.record.id.clone() });
                }
                Standing::Underway
            }
            // Made for another sandbox or from another manifest: only good to be collected.
            ContainerState::Created => self.start(pod, container, next, 0),
            ContainerState::Exited { exit_code, .. } => {
                let redo = container.role == Role::Init && last.sandbox() != sandbox;
                if *exit_code == 0 && container.role == Role::Init && !redo {
                    return Standing::Done { well: true };
                }
                if !redo && same && !container.restart.again(*exit_code, last.condemned) {
                    return Standing::Done { well: *exit_code == 0 };
                }
                let tries = if same { tries(&slot, Some(last)) } else { 0 };
                self.restart(pod, container, last, (next, tries))
            }
        }
    }

    /// A running container: fine, or to be replaced.
    fn watch(
        &mut self,
        pod: &PodView,
        container: &ContainerView,
        last: &Instance,
        slot: &Slot,
        same: bool,
    ) -> Standing {
        let health = slot.health.as_ref().filter(|health| health.id == last.record.id);
        if !same {
            self.kill(last, pod.grace, "its manifest has changed");
        } else if let PostStart::Failed(why) = &last.post_start {
            self.wait(&container.name, "PostStartHookError", why.clone());
            self.kill(last, pod.grace, &format!("its postStart hook failed: {why}"));
        } else if let Some(condemned) = health.and_then(|health| health.must_restart.as_ref()) {
            self.kill(last, condemned.grace.unwrap_or(pod.grace), &condemned.message);
        }
        let started = container.role == Role::Main || health.is_some_and(|health| health.started);
        let failed = last.post_start != PostStart::None;
        let fine = started && container.role != Role::Init && !last.is_ending() && !failed;
        if fine { Standing::Started } else { Standing::Underway }
    }

    /// Starts an exited container again, not before its back-off is over.
    fn restart(
        &mut self,
        pod: &PodView,
        container: &ContainerView,
        last: &Instance,
        (attempt, tries): (u32, u32),
    ) -> Standing {
        if self.backed_off(&container.name, last, tries) {
            return self.start(pod, container, attempt, tries);
        }
        Standing::Underway
    }

    /// Whether the back-off after the end of a container is over.
    fn backed_off(&mut self, container: &str, last: &Instance, tries: u32) -> bool {
        let delay = CRASH.capped(self.seen.max_backoff).after(tries);
        let over = self.due(last.ended.map(|ended| ended + delay));
        if !over {
            let of = &last.record.name;
            let key = PodKey { namespace: of.namespace.clone(), name: of.pod.clone() };
            let parts: [&dyn Display; 3] = [&wording::span(delay), &container, &wording::pod(&key, &of.uid)];
            self.wait(container, "CrashLoopBackOff", wording::WAITS_FOR_RESTART.with(&parts));
        }
        over
    }

    fn start(&mut self, pod: &PodView, container: &ContainerView, attempt: u32, tries: u32) -> Standing {
        if self.may_start(pod, &container.name) {
            let name = container.name.clone();
            if self.held(pod, container) {
                // The first container of an image costs the runtime a tenth of a second or more, which is free now.
                self.act(Action::Prepare { container: name, attempt });
            } else {
                self.wait(&name, pod.initial_reason(), "");
                self.act(Action::Run { container: name, attempt, tries });
            }
        }
        Standing::Underway
    }

    /// Whether neither another one's hook nor a pull nor an earlier failure is in the way.
    fn may_start(&mut self, pod: &PodView, container: &str) -> bool {
        if let Some(hooked) = &self.hooked {
            let message = format!("waiting for the postStart hook of container {hooked}");
            self.wait(container, pod.initial_reason(), message);
            return false;
        }
        let slot = self.slot(container);
        match &slot.pull {
            Pull::Idle => {}
            Pull::Running { image } => {
                // One that failed before goes on being called that.
                let reason = if slot.pull_tries > 0 { "ImagePullBackOff" } else { pod.initial_reason() };
                self.wait(container, reason, format!("pulling image {image}"));
                return false;
            }
            Pull::Failed { reason, message, backed_off, until, reported, .. } => {
                if !self.due(Some(*until)) {
                    let backs_off = reported.is_some() && self.due(*reported);
                    let (reason, words) = if backs_off { ("ImagePullBackOff", backed_off) } else { (*reason, message) };
                    self.wait(container, reason, words.clone());
                    self.plan.message.get_or_insert_with(|| message.clone());
                    return false;
                }
            }
        }
        if let Some(fault) = &slot.fault
            && !self.due(Some(fault.until))
        {
            self.wait(container, fault.reason, fault.message.clone());
            self.plan.message.get_or_insert_with(|| fault.message.clone());
            return false;
        }
        true
    }

    /// Whether the start order holds the container back.
    fn held(&mut self, pod: &PodView, container: &ContainerView) -> bool {
        let Some(hold) = &self.seen.hold else { return false };
        if !self.due(Some(hold.until)) {
            self.wait(&container.name, pod.initial_reason(), hold.message.clone());
            self.plan.message.get_or_insert_with(|| hold.message.clone());
            return true;
        }
        false
    }
}

#[cfg(test)]
mod tests;
