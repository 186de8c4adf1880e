//! Which events a worker's steps make, with the kubelet's reasons.

use super::*;

impl Worker {
    fn subject<'a>(&'a self, uid: &'a str, container: &'a str) -> Subject<'a> {
        Subject { pod: &self.key, uid, container: (container != SANDBOX).then_some(container) }
    }

    /// Something went well with a container of the pod, or (`POD`) with its sandbox.
    pub(super) fn note_event(&self, container: &str, reason: &str, message: impl Into<String>) {
        self.context.events.normal(self.subject(&self.uid(), container), reason, message);
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
            "SysctlForbidden" => ("SysctlForbidden", SANDBOX, failure.message.clone()),
            "CreatePodSandboxError" | "FailedCreatePodSandBox" => {
                ("FailedCreatePodSandBox", SANDBOX, format!("Failed to create the pod's sandbox: {}", failure.message))
            }
            "ContainerCreating" => ("FailedMount", SANDBOX, failure.message.clone()),
            reason => ("Failed", container, format!("{reason}: {}", failure.message)),
        };
        self.context.events.warning(self.subject(&self.uid(), of), reason, message);
    }
}
