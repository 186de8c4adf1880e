//! Stopping and removing containers, and what a pod has left on the machine.

use std::sync::PoisonError;

use super::*;
use crate::agent::cleanup;
use crate::agent::probe::Mark;
use crate::agent::worker::instance::pod_uid;

/// How often a pod that is being stopped is asked whether it has closed its ports, and how many times.
const PORT_LOOK: Duration = Duration::from_millis(10);
const PORT_LOOKS: u32 = 3000;

impl Worker {
    pub(in crate::agent::worker) fn kill(&mut self, id: &str, grace: Duration, why: String, ordered: bool) {
        let Some(one) = self.seen.instances.get_mut(id) else { return };
        info!(pod = %self.key, container = %one.record.name.container, grace = grace.as_secs(), why, "stopping container");
        one.kill = Some(Kill { since: Instant::now(), grace, ordered, hook: one.has_pre_stop() });
        one.stopped_for = Some(why.clone());
        let health = self.seen.slots.get(&one.record.name.container).and_then(|slot| slot.health.as_ref());
        one.condemned |= health.is_some_and(|health| health.id == one.record.id && health.must_restart.is_some());
        let (uid, container, has_hook) =
            (one.record.name.uid.clone(), one.record.name.container.clone(), one.has_pre_stop());
        self.note_killing(&uid, &container, &why);
        if has_hook {
            self.pre_stop(id, grace);
        }
    }

    /// Before a condemned container is sent its signal, it is written down that it is: under OnFailure it is started again
    /// whatever it ends with, also by an agent that has not seen its probe fail. (A kubelet that is restarted in between
    /// goes by the exit code alone.)
    pub(in crate::agent::worker) async fn remember_condemned(&self, id: &str) {
        let Some(one) = self.seen.instances.get(id).filter(|one| one.condemned) else { return };
        let (context, name, id) = (Arc::clone(&self.context), one.record.name.clone(), id.to_owned());
        let note = move || context.probes.note_condemned(&name.uid, &name.container, Some(&id));
        let _ = tokio::task::spawn_blocking(note).await;
    }

    pub(in crate::agent::worker) fn stop(&mut self, id: String, grace: Duration) {
        let Some(one) = self.seen.instances.get_mut(&id) else { return };
        one.stopping = true;
        let uid = one.uid().to_owned();
        let name = one.shared_port().map(|_| one.record.name.clone());
        if !self.seen.drained.contains(&uid) {
            self.watch_ports(uid);
        }
        let (context, myself) = (Arc::clone(&self.context), self.myself.clone());
        self.stops.spawn(async move {
            if let Some(name) = name {
                let (context, id) = (Arc::clone(&context), id.clone());
                let note = move || context.probes.memory().note(Mark::Told, &name.uid, &name.container, Some(&id));
                let _ = tokio::task::spawn_blocking(note).await;
            }
            let runtime = &context.runtime;
            let result = runtime.stop(&id, grace).await;
            let _ = myself.send(Message::Stopped(id, result));
        });
    }

    /// The stop that is under way ends with the container, and reports it.
    pub(in crate::agent::worker) fn force_stop(&mut self, id: String) {
        let Some(one) = self.seen.instances.get_mut(&id) else { return };
        one.hurried = true;
        info!(pod = %self.key, container = %one.record.name.container, "ending the grace of a container that only drains");
        let runtime = Arc::clone(&self.context.runtime);
        self.stops.spawn(async move {
            // A failure costs the rest of the grace, no more.
            let _ = runtime.stop(&id, Duration::ZERO).await;
        });
    }

    /// Tells when the ports that the wanted pod needs are closed by the pod of `uid`, which is being stopped for it: by its
    /// predecessor, or by itself where it is to be restarted.
    pub(in crate::agent::worker) fn watch_ports(&mut self, uid: String) {
        let for_itself = self.seen.terminating.contains(&uid);
        let wanted = self.pod.as_ref().filter(|(pod, _)| self.wanted && (for_itself || pod.uid != uid));
        let Some((pod, _)) = wanted else { return };
        let ports = order::overlap_ports(pod);
        if ports.is_empty() {
            return;
        }
        let myself = self.myself.clone();
        self.stops.spawn(async move {
            // The kernel sends no event when a port is closed. Bounded: by then the grace period is over.
            for _ in 0..PORT_LOOKS {
                // The table may be long, and this is looked at often.
                let wanted = ports.clone();
                let look = move || crate::host::ports::is_listening(Path::new("/proc"), &wanted);
                if !tokio::task::spawn_blocking(look).await.unwrap_or(true) {
                    let _ = myself.send(Message::Drained(uid));
                    return;
                }
                tokio::time::sleep(PORT_LOOK).await;
            }
        });
    }

    pub(in crate::agent::worker) async fn remove(&mut self, id: &str) {
        match self.context.runtime.remove(id).await {
            Ok(()) => {
                if let Some(one) = self.seen.instances.get(id) {
                    let (context, name) = (Arc::clone(&self.context), one.record.name.clone());
                    let id = id.to_owned();
                    let unlink = move || logs::unlink(&context.options, &name, &id);
                    let _ = tokio::task::spawn_blocking(unlink).await;
                }
                self.forget_container(id);
            }
            Err(error) => self.failed_on(id, &error),
        }
    }

    pub(in crate::agent::worker) async fn forget(&mut self, uid: String) {
        if !self.has_successor(&uid) {
            self.clean_up(pod_uid(&uid)).await;
        }
        self.context.probes.remove_pod(&uid);
        self.seen.terminating.remove(&uid);
        self.seen.drained.remove(&uid);
        self.seen.abandoned.remove(&uid);
        if let Some((pod, _)) = self.pod.as_ref().filter(|(pod, _)| pod.uid == uid) {
            if self.wanted {
                // The same pod again: it begins from the beginning.
                self.context.metrics.restarted(pod.bound.is_some()).count();
                self.seen.slots = self.fresh_slots(pod);
                self.begun = false;
                self.since = Instant::now();
                self.context.routes.add(&uid, &self.myself);
            } else {
                self.pod = None;
            }
        }
        info!(pod = %self.key, %uid, "stopped");
    }

    /// Whether what is of `uid` is also of another run of the same pod, one before or after a restart.
    fn has_successor(&self, uid: &str) -> bool {
        let pod = pod_uid(uid);
        let is_wanted = pod != uid && (self.wanted_uid() == Some(pod) || self.seen.terminating.contains(pod));
        is_wanted || self.seen.instances.values().any(|one| one.record.name.uid == pod)
    }

    async fn clean_up(&self, uid: &str) {
        let (context, removed) = (Arc::clone(&self.context), uid.to_owned());
        let removal = tokio::task::spawn_blocking(move || {
            let remove = || cleanup::remove(&context.options, &context.cgroups, &removed);
            context.objects.forget(&removed, remove)
        });
        let failure = match removal.await {
            Ok(removed) => removed.err().map(|error| chain(&error)),
            Err(crash) => Some(crash.to_string()),
        };
        if let Some(error) = failure {
            warn!(pod = %self.key, error, "cannot remove all that the pod has left");
            self.context.left.lock().unwrap_or_else(PoisonError::into_inner).insert(uid.to_owned());
        }
        self.context.metrics.startups.forget(uid);
        self.context.routes.remove(uid);
    }
}
