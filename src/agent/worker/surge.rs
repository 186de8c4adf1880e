//! A pod that is started beside the one it replaces, on the same port: no connection is refused in between.
//!
//! The old one has every new connection, whatever listens beside it, until all probes of the new one have come out well; only
//! then the new one gets them, and the old one ends with its grace. Until then the old one is what is reported as the pod. All
//! of it follows from what runs, so that an agent that was started again goes on with it.

use tracing::warn;

use super::plan::surge::{self, Surge as Step};
use super::*;
use crate::agent::events::Subject;
use crate::agent::pod::surge::{Surge as Asked, of};
use crate::agent::probe::Route;
use crate::agent::wording;

/// A surge that goes on.
pub(super) struct Surge {
    old: String,
    new: String,
    pub(super) route: Arc<Route>,
}

impl Worker {
    /// Goes on with a surge as far as it can, before the pods that are not kept are ended.
    pub(super) async fn surge(&mut self) {
        let step = self.next_step();
        let begun = self.surge.as_ref().map(|one| (one.old.as_str(), one.new.as_str()));
        let goes_on = matches!(step, Step::Beside(_) | Step::Switch(_) | Step::Give(_));
        if !goes_on && begun.is_some() {
            self.end_surge();
        }
        self.seen.waits_for_surge = matches!(step, Step::Wait(_));
        self.kept = step.kept().map(str::to_owned);
        match step {
            Step::None | Step::Wait(_) | Step::Beside(_) => {}
            Step::Begin(old) => self.begin_surge(old).await,
            Step::Switch(old) => self.switch(old).await,
            Step::Give(old) => {
                self.end_surge();
                self.end_beside(old);
            }
        }
    }

    fn next_step(&self) -> Step {
        let Some((_, view)) = self.pod.as_ref().filter(|_| self.wanted) else { return Step::None };
        let begun = self.surge.as_ref().map(|one| (one.old.as_str(), one.new.as_str()));
        surge::surge(view, &self.seen, begun, &self.condemned())
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
                self.tell(&new, "SurgeStarted", wording::SURGE_STARTED.with(&[]));
                self.surge = Some(Surge { old, new, route: Arc::new(route) });
            }
            Err(why) => {
                warn!(pod = %self.key, %old, %new, why, "the new one cannot be started beside the old one");
                self.tell(&new, "SurgeSkipped", wording::SURGE_SKIPPED.with(&[&why]));
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
        let Some(surge) = &self.surge else { return };
        let (route, new) = (Arc::clone(&surge.route), surge.new.clone());
        let ports = Arc::clone(&self.context.shared_ports);
        let switched = tokio::task::spawn_blocking(move || ports.switch(&route)).await;
        if let Err(why) = switched.unwrap_or_else(|error| Err(error.to_string())) {
            // Once the old one has closed its listener, the new one has them all the same.
            warn!(pod = %self.key, why, "connections go to both until the old one has stopped");
        }
        info!(pod = %self.key, %old, %new, "the new one is ready and has the connections");
        self.tell(&new, "SurgeCompleted", wording::SURGE_COMPLETED.with(&[]));
        self.end_surge();
        self.end_beside(old);
    }

    /// Ends a pod beside which the wanted one goes on.
    fn end_beside(&mut self, old: String) {
        self.kept = None;
        self.seen.terminating.insert(old.clone());
        self.seen.drained.insert(old);
    }

    /// The new pod is asked as any other from now on.
    fn end_surge(&mut self) {
        if let Some(surge) = self.surge.take() {
            surge.route.end();
        }
    }

    /// Whether the pod of this UID, wanted until now, may serve on beside the one of `view`. One that was itself being tried
    /// beside another may not: it serves no client, and need not be waited for long.
    pub(super) fn may_be_kept(&mut self, before: &str, view: &PodView) -> bool {
        if self.surge.as_ref().is_some_and(|surge| surge.new == before) {
            self.seen.abandoned.insert(before.to_owned());
            return false;
        }
        let mut own = self.seen.instances.values().filter(|one| one.record.name.uid == before && one.is_running());
        view.shares.is_some() && own.any(|one| one.shared_port() == view.shares)
    }

    /// Tells why a pod that asks for a surge does not get it.
    pub(super) fn note_no_surge(&self, pod: &StaticPod, before: &str) {
        let mut own =
            self.seen.instances.values().filter(|one| one.record.name.uid == before && !one.record.is_sandbox);
        let Some(runs) = own.find(|one| one.is_running()) else { return };
        let why = match of(pod) {
            Asked::Port(port) if runs.shared_port() != Some(port) => {
                "the one that runs was not started with --permit-port-sharing=true on the same port".to_owned()
            }
            Asked::Impossible(why) => why,
            Asked::None | Asked::Port(_) => return,
        };
        self.tell(&pod.uid, "SurgeSkipped", wording::SURGE_SKIPPED.with(&[&why]));
    }

    fn tell(&self, uid: &str, reason: &str, message: String) {
        let subject = Subject { pod: &self.key, uid, container: None };
        self.context.events.normal(subject, reason, message);
    }

    /// UIDs of the predecessors that their own probes have given up.
    fn condemned(&self) -> std::collections::BTreeSet<String> {
        let given_up = |one: &&Predecessor| {
            one.slots.values().any(|slot| slot.health.as_ref().is_some_and(|health| health.must_restart.is_some()))
        };
        self.predecessors.iter().filter(given_up).map(|one| one.pod.uid.clone()).collect()
    }

    /// The process of the container of a pod.
    async fn pid_of(&self, uid: &str) -> Option<u32> {
        let of = |one: &&Instance| one.record.name.uid == uid && !one.record.is_sandbox && one.is_running();
        let id = self.seen.instances.values().find(of)?.record.id.clone();
        self.context.runtime.process(&id).await.ok()?.pid
    }
}
