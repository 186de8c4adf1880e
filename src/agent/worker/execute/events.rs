//! Which events a worker's steps make, with the kubelet's reasons.

use std::collections::BTreeMap;

use super::super::action::Plan;
use super::*;

impl Worker {
    fn subject<'a>(&'a self, uid: &'a str, container: &'a str) -> Subject<'a> {
        Subject { pod: &self.key, uid, container: (container != SANDBOX).then_some(container) }
    }

    /// Something went well with a container of the pod, or (`POD`) with its sandbox.
    pub(super) fn note_event(&self, container: &str, reason: &str, message: impl Into<String>) {
        self.context.events.normal(self.subject(&self.uid(), container), reason, message);
    }

    /// Something went badly with a container of the pod, or (`POD`) with its sandbox.
    pub(super) fn note_trouble(&self, container: &str, reason: &str, message: &str) {
        self.context.events.warning(self.subject(&self.uid(), container), reason, message);
    }

    /// Containers that have begun to back off, once each time.
    pub(in crate::agent::worker) fn tell_back_offs(&mut self, plan: &Plan) {
        let waiting = plan.waiting.iter().filter(|(_, waiting)| waiting.reason.ends_with("BackOff"));
        let now: BTreeMap<String, String> = waiting.map(|(name, w)| (name.clone(), w.reason.clone())).collect();
        for (name, reason) in now.iter().filter(|(name, reason)| self.backing_off.get(*name) != Some(reason)) {
            if reason == "CrashLoopBackOff" {
                let (key, uid) = (&self.key, self.uid());
                let pod = format!("{}_{}({uid})", key.name, key.namespace);
                let message = format!("Back-off restarting failed container {name} in pod {pod}");
                self.note_trouble(name, "BackOff", &message);
            } else {
                let image = self.pod.as_ref().and_then(|(pod, _)| pod.container(name));
                let image = image.and_then(|c| c.image.as_deref()).unwrap_or(&self.context.options.pause_image);
                self.note_event(name, "BackOff", format!("Back-off pulling image {image:?}"));
                self.note_trouble(name, "Failed", &format!("Error: {reason}"));
            }
        }
        self.backing_off = now;
    }

    /// A container is being stopped.
    pub(super) fn note_killing(&self, uid: &str, container: &str, why: &str) {
        if container != SANDBOX {
            let message = format!("Stopping container {container}: {why}");
            self.context.events.normal(self.subject(uid, container), "Killing", message);
        }
    }

    /// A step failed. What concerns the pod as a whole (its sandbox, its volumes) is the pod's event.
    pub(super) fn note_failure(&self, container: &str, failure: &Failure) {
        let (reason, of, message) = match failure.reason {
            reason @ "NetworkNotReady" => (reason, SANDBOX, failure.message.clone()),
            "CreatePodSandboxError" | "FailedCreatePodSandBox" => {
                ("FailedCreatePodSandBox", SANDBOX, format!("Failed to create the pod's sandbox: {}", failure.message))
            }
            "ContainerCreating" => ("FailedMount", SANDBOX, failure.message.clone()),
            reason => ("Failed", container, format!("{reason}: {}", failure.message)),
        };
        self.context.events.warning(self.subject(&self.uid(), of), reason, message);
    }
}
