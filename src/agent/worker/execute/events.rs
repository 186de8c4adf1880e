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
    pub(in crate::agent::worker) fn report_back_offs(&mut self, plan: &Plan) {
        self.report_failure(plan);
        let waiting = plan.waiting.iter().filter(|(_, waiting)| waiting.reason.ends_with("BackOff"));
        let now: BTreeMap<String, String> = waiting.map(|(name, w)| (name.clone(), w.reason.clone())).collect();
        for (name, reason) in now.iter().filter(|(name, reason)| self.backing_off.get(*name) != Some(reason)) {
            if reason == "CrashLoopBackOff" {
                let message = wording::BACK_OFF_RESTARTING.with(&[name, &wording::pod(&self.key, &self.uid())]);
                self.note_trouble(name, "BackOff", &message);
            } else {
                let image = self.pod.as_ref().and_then(|(pod, _)| pod.container(name));
                let image = image.and_then(|c| c.image.as_deref()).unwrap_or(&self.context.options.pause_image);
                self.note_event(name, "BackOff", wording::BACK_OFF_PULLING.with(&[&wording::quoted(image)]));
                self.note_trouble(name, "Failed", &wording::ERROR.with(&[reason]));
            }
        }
        self.backing_off = now;
    }

    /// A pod is ended as a whole, once each time.
    fn report_failure(&mut self, plan: &Plan) {
        let reason = plan.failure.map(|(reason, _)| reason);
        if let Some((reason, message)) = plan.failure.filter(|_| self.ended_for != reason) {
            self.note_event(SANDBOX, reason, message);
        }
        self.ended_for = reason;
    }

    /// A container is being stopped. The reason is reported as by a kubelet; all of it is in the agent's log.
    pub(super) fn note_killing(&self, uid: &str, container: &str, why: &str) {
        if container != SANDBOX {
            let restarts =
                self.pod.as_ref().is_some_and(|(pod, _)| pod.spec.restart_policy.as_deref() != Some("Never"));
            self.context.events.normal(self.subject(uid, container), "Killing", killing(container, why, restarts));
        }
    }

    /// A step failed. What concerns the pod as a whole (its sandbox, its volumes) is the pod's event.
    pub(super) fn note_failure(&self, container: &str, failure: &Failure) {
        let (reason, of, message) = match failure.reason {
            reason @ "NetworkNotReady" => (reason, SANDBOX, failure.message.clone()),
            "CreatePodSandboxError" | "FailedCreatePodSandBox" => {
                ("FailedCreatePodSandBox", SANDBOX, wording::NO_SANDBOX.with(&[&failure.message]))
            }
            "ContainerCreating" => ("FailedMount", SANDBOX, failure.message.clone()),
            reason @ "ImageInspectError" => {
                self.note_trouble(container, "InspectFailed", &failure.message);
                ("Failed", container, wording::ERROR.with(&[&reason]))
            }
            _ => ("Failed", container, wording::ERROR.with(&[&failure.message])),
        };
        self.context.events.warning(self.subject(&self.uid(), of), reason, message);
    }
}

/// What is reported of a container that is stopped, by the plan's reason for it.
fn killing(container: &str, why: &str, restarts: bool) -> String {
    let forms = [
        ("Liveness probe failed", wording::FAILED_LIVENESS),
        ("Startup probe failed", wording::FAILED_STARTUP),
        ("its manifest has changed", wording::CHANGED),
    ];
    match forms.into_iter().find(|(begin, _)| why.starts_with(begin)) {
        Some((_, form)) if restarts => wording::RESTARTED.with(&[&form.with(&[&container])]),
        Some((_, form)) => form.with(&[&container]),
        None if why.starts_with("its postStart hook failed") => wording::KILLED_FOR_HOOK.with(&[]),
        None => wording::STOPPING.with(&[&container]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_killed_in_the_kubelets_words() {
        let liveness = "Liveness probe failed 3 times in a row: no";
        assert_eq!(killing("c", liveness, true), "Container c failed liveness probe, will be restarted");
        assert_eq!(killing("c", liveness, false), "Container c failed liveness probe");
        let startup = killing("c", "Startup probe failed 3 times in a row: no", true);
        assert_eq!(startup, "Container c failed startup probe, will be restarted");
        assert_eq!(killing("c", "its manifest has changed", true), "Container c definition changed, will be restarted");
        assert_eq!(killing("c", "its postStart hook failed: x", true), "FailedPostStartHook");
        assert_eq!(killing("c", "its pod is deleted", true), "Stopping container c");
    }
}
