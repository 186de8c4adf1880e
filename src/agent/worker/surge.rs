//! A pod that is started beside the one it replaces, on the same port: no connection is refused in between.
//!
//! The old one has every new connection, whatever listens beside it, until all probes of the new one have come out well; only
//! then the new one gets them, and the old one ends with its grace. Until then the old one is what is reported as the pod. All
//! of it follows from what runs, so that an agent that was started again goes on with it.

use super::instance::former_uid;
use super::plan::surge::{self, Surge as Step};
use super::*;
use crate::agent::container::SANDBOX;
use crate::agent::events::Subject;
use crate::agent::pod::resources::pod_limits;
use crate::agent::pod::surge::{Surge as Asked, of};
use crate::agent::probe::{Mark, Route};
use crate::agent::wording;

/// A surge that goes on.
pub(super) struct Surge {
    old: String,
    new: String,
    /// How the new one is asked until it has the connections.
    pub(super) route: Option<Arc<Route>>,
    /// When the new pod was first well.
    well: Option<Instant>,
    /// When the old pod is to end, once the new one has the connections.
    ends: Option<Instant>,
}

/// A pod that goes on although another one is wanted.
pub(super) struct Kept {
    pub(super) uid: String,
    /// It has the connections, and is what is reported.
    pub(super) serves: bool,
}

impl Worker {
    /// Goes on with a surge as far as it can, before the pods that are not kept are ended. Returns when there is more to do.
    pub(super) async fn surge(&mut self) -> Option<Instant> {
        self.resume_surge();
        if self.surge.is_some() {
            self.hear_probes();
            self.hear_predecessors();
        }
        let step = self.next_step();
        let goes_on = matches!(step, Step::Beside(_) | Step::Switch(_) | Step::Linger(..) | Step::End(_));
        if !goes_on {
            self.end_surge();
        }
        self.seen.waits_for_surge = matches!(step, Step::Wait(_));
        self.kept = step.kept().map(|(uid, serves)| Kept { uid: uid.to_owned(), serves });
        self.seen.waits_to_be_made = false;
        match step {
            Step::None => return self.make_ahead(),
            Step::Wait(_) | Step::Beside(_) => {}
            Step::Begin(old) => self.begin_surge(old).await,
            Step::Switch(old) => {
                self.switch(old).await;
                // How long the old one lingers is judged at once.
                return Some(Instant::now());
            }
            Step::Linger(_, until) => return Some(until),
            Step::End(old) => {
                self.end_surge();
                self.end_beside(old);
            }
            Step::Back(other) => self.give_back(other).await,
        }
        None
    }

    fn next_step(&mut self) -> Step {
        let Some((_, view)) = self.pod.as_ref().filter(|_| self.wanted) else { return Step::None };
        if let Some(surge) = self.surge.as_mut().filter(|surge| surge.new == view.uid)
            && surge.well.is_none()
            && surge::is_well(view, &self.seen, |_| true)
        {
            surge.well = Some(Instant::now());
        }
        let begun = self.surge.as_ref().map(|one| surge::Begun { old: &one.old, new: &one.new, ends: one.ends });
        surge::surge(view, &self.seen, begun, &self.condemned(), Instant::now())
    }

    /// Has the old pod keep the connections; where that cannot be done, it ends before the new one starts.
    async fn begin_surge(&mut self, old: String) {
        let Some((port, new)) = self.pod.as_ref().and_then(|(pod, view)| Some((view.shares?, pod.uid.clone()))) else {
            return;
        };
        let has_begun = self.seen.runs(&new);
        let pid = self.pid_of(&old).await;
        let ports = Arc::clone(&self.context.shared_ports);
        let held = tokio::task::spawn_blocking(move || {
            if !has_begun {
                ports.has_room(pid)?;
            }
            ports.hold(port, has_begun)
        });
        match held.await.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(route) => {
                info!(pod = %self.key, %old, %new, port, "starting the new one beside the old one");
                self.tell_of(&new, "SurgeStarted", wording::SURGE_STARTED.with(&[]));
                let route = Some(Arc::new(route));
                self.surge = Some(Surge { old, new, route, well: None, ends: None });
            }
            Err(why) => {
                warn!(pod = %self.key, %old, %new, why, "the new one cannot be started beside the old one");
                self.tell_of(&new, "SurgeSkipped", wording::SURGE_SKIPPED.with(&[&why]));
                self.kept = None;
                match has_begun {
                    true => self.end_beside(old),
                    false => drop(self.seen.terminating.insert(old)),
                }
            }
        }
    }

    /// The new pod is ready.
    async fn switch(&mut self, old: String) {
        let Some(surge) = &mut self.surge else { return };
        surge.ends = Some(surge.well.unwrap_or_else(Instant::now) + surge::LINGER);
        let (Some(route), new) = (surge.route.take(), surge.new.clone()) else { return };
        let (ports, to) = (Arc::clone(&self.context.shared_ports), Arc::clone(&route));
        let switched = tokio::task::spawn_blocking(move || ports.switch(&to)).await;
        if let Err(why) = switched.unwrap_or_else(|error| Err(error.to_string())) {
            // Once the old one has closed its listener, the new one has them all the same.
            warn!(pod = %self.key, why, "connections go to both until the old one has stopped");
        }
        route.end();
        self.remember(&old, Mark::Relieved, true).await;
        info!(pod = %self.key, %old, %new, "the new one is ready and has the connections");
        self.tell_of(&new, "SurgeCompleted", wording::SURGE_COMPLETED.with(&[]));
        self.kept = Some(Kept { uid: old, serves: false });
    }

    /// The wanted pod runs, and another one beside it that took its place, or was to.
    async fn give_back(&mut self, other: String) {
        let Some(port) = self.pod.as_ref().and_then(|(_, view)| view.shares) else { return };
        let ports = Arc::clone(&self.context.shared_ports);
        let given = tokio::task::spawn_blocking(move || ports.give_back(port)).await;
        if let Err(why) = given.unwrap_or_else(|error| Err(error.to_string())) {
            warn!(pod = %self.key, why, "connections go to both until the other one has stopped");
        }
        if let Some(uid) = self.wanted_uid().map(str::to_owned) {
            self.remember(&uid, Mark::Relieved, false).await;
        }
        info!(pod = %self.key, %other, "the one before is wanted again and has the connections");
        self.end_beside(other);
    }

    /// Ends a pod beside which the wanted one goes on.
    fn end_beside(&mut self, old: String) {
        self.kept = None;
        self.seen.terminating.insert(old.clone());
        self.seen.drained.insert(old);
    }

    /// The new pod is asked as any other from now on.
    fn end_surge(&mut self) {
        if let Some(route) = self.surge.take().and_then(|surge| surge.route) {
            route.end();
        }
    }

    /// Whether the pod of this UID, wanted until now, may serve on beside the one of `view`. One that was itself being tried
    /// beside another may not: it serves no client, and need not be waited for long.
    pub(super) fn may_be_kept(&mut self, before: &str, view: &PodView) -> bool {
        match self
            .surge
            .as_ref()
            .filter(|surge| surge.new == before)
            .map(|surge| (surge.ends.is_some(), surge.old.clone()))
        {
            Some((false, _)) => {
                self.seen.abandoned.insert(before.to_owned());
                return false;
            }
            Some((true, old)) if old != view.uid => self.end_beside(old),
            Some((true, _)) | None => {}
        }
        let mut own = self.seen.instances.values().filter(|one| one.uid() == before && one.is_running());
        view.shares.is_some() && own.any(|one| one.shared_port() == view.shares)
    }

    /// Restarts the wanted pod of this UID: beside itself where it asks for that and can, else as a pod that was given up and is
    /// wanted again, whose containers, sandbox and volumes are recreated.
    pub(super) fn restart(&mut self, uid: String) {
        let Some((pod, view)) = self.pod.clone().filter(|(pod, _)| self.wanted && pod.uid == uid) else { return };
        if self.seen.terminating.contains(&uid) {
            return;
        }
        self.crashed = false;
        info!(pod = %self.key, "restarting on request");
        self.note_no_surge(&pod, &uid);
        if !self.may_be_kept(&uid, &view) {
            self.seen.terminating.insert(uid);
        } else if pod_limits(&pod.spec, 0).memory_bytes > 0 {
            // The cgroup of the pod holds both.
            self.tell_of(
                &uid,
                "SurgeSkipped",
                wording::SURGE_SKIPPED.with(&[&"its limit of memory is for one of them"]),
            );
            self.seen.terminating.insert(uid);
        } else {
            self.restart_beside(&pod, view);
        }
    }

    /// What runs of the wanted pod becomes its predecessor.
    fn restart_beside(&mut self, pod: &Arc<StaticPod>, view: PodView) {
        let own = self.seen.instances.values_mut().filter(|one| one.uid() == pod.uid && one.is_running());
        let own: Vec<_> = own.collect();
        let attempt = own.iter().filter(|one| !one.record.is_sandbox).map(|one| one.record.name.attempt).max();
        let former = former_uid(&pod.uid, attempt.unwrap_or_default());
        let mut next = BTreeMap::new();
        for one in own {
            one.former = Some(former.clone());
            let container = if one.record.is_sandbox { SANDBOX } else { one.record.name.container.as_str() };
            next.insert(container.to_owned(), one.record.name.attempt.saturating_add(1));
        }
        self.context.probes.rename_pod(&pod.uid, &former);
        self.context.metrics.restarted(pod.bound.is_some()).count();
        (self.since, self.begun) = (Instant::now(), false);
        let mut fresh = self.fresh_slots(pod);
        for (name, slot) in &mut fresh {
            slot.next_attempt = slot.next_attempt.max(next.get(name).copied().unwrap_or_default());
        }
        let slots = std::mem::replace(&mut self.seen.slots, fresh);
        self.predecessors.push(Predecessor { pod: Arc::clone(pod), view: PodView { uid: former, ..view }, slots });
    }

    /// Goes on with what an earlier agent has left: a pod that was being restarted beside itself, one that has given its
    /// connections away, one that was told to end.
    fn resume_surge(&mut self) {
        let wanted = self.pod.as_ref().filter(|_| self.wanted).map(|(_, view)| view);
        for (id, former) in wanted.map(|view| surge::succeeded(view, &self.seen)).unwrap_or_default() {
            self.seen.instances.entry(id).and_modify(|one| one.former = Some(former));
        }
        self.seen.terminating.extend(surge::told(wanted, &self.seen));
        let Some(view) = wanted.filter(|_| self.surge.is_none()) else { return };
        if let Some((old, ends)) = surge::relieved(view, &self.seen, Instant::now()) {
            info!(pod = %self.key, %old, new = %view.uid, "the new one has the connections already");
            self.surge = Some(Surge { old, new: view.uid.clone(), route: None, well: None, ends: Some(ends) });
        }
    }

    /// Has the next agent know what has become of what runs of a pod.
    async fn remember(&mut self, uid: &str, mark: Mark, has: bool) {
        let own = self.seen.instances.values_mut().filter(|one| one.uid() == uid && one.shared_port().is_some());
        let own: Vec<_> = own
            .map(|one| {
                one.relieved = has;
                (one.record.name.clone(), Some(one.record.id.clone()).filter(|_| has))
            })
            .collect();
        let context = Arc::clone(&self.context);
        let note = move || {
            for (name, id) in own {
                context.probes.memory().note(mark, &name.uid, &name.container, id.as_deref());
            }
        };
        let _ = tokio::task::spawn_blocking(note).await;
    }

    /// Tells why a pod that asks for a surge does not get it.
    pub(super) fn note_no_surge(&self, pod: &StaticPod, before: &str) {
        let mut own = self.seen.instances.values().filter(|one| one.uid() == before && !one.record.is_sandbox);
        let Some(runs) = own.find(|one| one.is_running()) else { return };
        let why = match of(pod) {
            Asked::Port(port) if runs.shared_port() != Some(port) => {
                "the one that runs was not started with --permit-port-sharing=true on the same port".to_owned()
            }
            Asked::Impossible(why) => why,
            Asked::None | Asked::Port(_) => return,
        };
        self.tell_of(&pod.uid, "SurgeSkipped", wording::SURGE_SKIPPED.with(&[&why]));
    }

    pub(super) fn tell_of(&self, uid: &str, reason: &str, message: String) {
        let subject = Subject { pod: &self.key, uid, container: None };
        self.context.events.normal(subject, reason, message);
    }

    /// UIDs of the predecessors that their own probes have given up.
    pub(super) fn condemned(&self) -> std::collections::BTreeSet<String> {
        let given_up = |one: &&Predecessor| {
            one.slots.values().any(|slot| slot.health.as_ref().is_some_and(|health| health.must_restart.is_some()))
        };
        self.predecessors.iter().filter(given_up).map(|one| one.view.uid.clone()).collect()
    }

    /// The process of the container of a pod.
    async fn pid_of(&self, uid: &str) -> Option<u32> {
        let of = |one: &&Instance| one.uid() == uid && !one.record.is_sandbox && one.is_running();
        let id = self.seen.instances.values().find(of)?.record.id.clone();
        self.context.runtime.process(&id).await.ok()?.pid
    }
}
