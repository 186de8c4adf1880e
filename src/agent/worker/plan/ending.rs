//! How containers end: a pod that is not wanted any more, one that has finished, and what is left of earlier runs.

use super::*;

impl Planner<'_> {
    /// Containers first and all at once, then their remains, then the sandbox, then the rest.
    pub(super) fn terminate(&mut self, uid: &str) {
        let containers: Vec<_> = self.instances(uid).filter(|one| !one.record.is_sandbox).collect();
        let running: Vec<_> = containers.iter().filter(|one| one.is_running()).collect();
        for one in &running {
            self.stop(one, one.grace(), "its pod is not wanted any more");
        }
        if !running.is_empty() {
            return;
        }
        let sandboxes: Vec<_> = self.instances(uid).filter(|one| one.record.is_sandbox).collect();
        for one in containers.iter().chain(&sandboxes) {
            self.remove(one);
        }
        if containers.is_empty() && sandboxes.is_empty() {
            self.act(Action::Forget { uid: uid.to_owned() });
        }
    }

    /// A pod that is wanted again and only drains, its ports closed, serves nobody: its grace ends now, for it is in its own
    /// way.
    pub(super) fn hurry(&mut self, pod: &PodView) {
        if !self.seen.drained.contains(&pod.uid) {
            return;
        }
        let draining: Vec<_> =
            self.instances(&pod.uid).filter(|one| one.is_running() && one.stopping && !one.hurried).collect();
        for one in draining {
            self.act(Action::Hurry { id: one.record.id.clone() });
        }
    }

    /// How the pod has ended, if every main container has for good, or an init container has failed for good.
    pub(super) fn finished(&self, pod: &PodView) -> Option<Finish> {
        let verdict = |container: &ContainerView| {
            let last = self.latest(pod, container)?;
            let code = last.exit_code()?;
            let for_good = last.hash() == Some(container.hash.as_str()) && !container.restart.again(code);
            for_good.then_some(code == 0)
        };
        let init_failed = pod.of_role(Role::Init).any(|c| verdict(c) == Some(false));
        let mains: Option<Vec<bool>> = pod.of_role(Role::Main).map(verdict).collect();
        match mains {
            _ if init_failed => Some(Finish::Failed),
            Some(all) if all.iter().all(|well| *well) => Some(Finish::Succeeded),
            Some(_) => Some(Finish::Failed),
            None => None,
        }
    }

    /// Stops what a finished pod has left (sidecars, the sandbox); its dead containers stay for their logs.
    pub(super) fn finish(&mut self, pod: &PodView, finish: Finish) {
        self.plan.finished = Some(finish);
        self.plan.initialized = true;
        let running: Vec<_> = self.instances(&pod.uid).filter(|one| one.is_running()).collect();
        let containers = running.iter().filter(|one| !one.record.is_sandbox);
        for one in containers.clone() {
            self.stop(one, pod.grace, "its pod has finished");
        }
        if containers.count() == 0 {
            for one in running {
                self.stop(one, MIN_GRACE, "its pod has finished");
            }
        }
    }

    /// Removes dead instances but the newest dead one of each container, which keeps the log of the run before.
    pub(super) fn collect(&mut self, pod: &PodView, sandbox: &str) {
        for container in &pod.containers {
            let mut all: Vec<_> = self
                .instances(&pod.uid)
                .filter(|one| !one.record.is_sandbox && one.record.name.container == container.name)
                .collect();
            all.sort_by_key(|one| std::cmp::Reverse((one.record.name.attempt, one.record.created_at)));
            let usable = |one: &Instance| {
                one.record.state == ContainerState::Created
                    && one.sandbox() == sandbox
                    && one.hash() == Some(container.hash.as_str())
            };
            let newest_usable = all.first().is_some_and(|one| usable(one));
            let created = all.iter().skip(usize::from(newest_usable));
            let (unstarted, dead): (Vec<&&Instance>, Vec<&&Instance>) =
                created.filter(|one| !one.is_running()).partition(|one| one.record.state == ContainerState::Created);
            for one in unstarted.into_iter().chain(dead.into_iter().skip(1)) {
                self.remove(one);
            }
        }
    }
}
