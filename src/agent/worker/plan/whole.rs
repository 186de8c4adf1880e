//! What becomes of a pod as a whole: it has finished, its time is over, or one of its containers asks for a restart of all.

use super::*;

/// The kubelet's words for a pod whose `activeDeadlineSeconds` are over.
const DEADLINE: (&str, &str) = ("DeadlineExceeded", "Pod was active on the node longer than the specified deadline");

impl<'a> Planner<'a> {
    /// Whether the pod has ended for good or is ended now.
    pub(super) fn is_over(&mut self, pod: &PodView) -> bool {
        match self.finished(pod) {
            _ if self.is_overdue(pod) => {
                self.plan.message = Some(format!("{}: {}", DEADLINE.0, DEADLINE.1));
                self.finish(pod, Finish::Failed, "the activeDeadlineSeconds of its pod are over");
                self.plan.failure = self.plan.finished.map(|_| DEADLINE);
            }
            Some(finish) => self.finish(pod, finish, "its pod has finished"),
            None => return false,
        }
        true
    }

    /// Whether the time of the pod is over and it had not ended by then.
    fn is_overdue(&mut self, pod: &PodView) -> bool {
        let Some(deadline) = pod.deadline.zip(self.seen.started).map(|(time, started)| started + time) else {
            return false;
        };
        let in_time = |one: &Instance| one.ended.is_some_and(|ended| ended <= deadline);
        if !self.due(Some(deadline)) {
            return false;
        }
        let mut mains = pod.of_role(Role::Main).filter_map(|container| self.latest(pod, container));
        self.finished(pod).is_none() || !mains.all(in_time)
    }

    /// Whether the API server, whose pod it is, has deleted it, or has it as ended.
    pub(super) fn is_taken_back(&mut self, pod: &PodView) -> bool {
        match (pod.deletion, pod.ended) {
            (Some(grace), ended) => self.delete(pod, grace, ended),
            (None, Some(finish)) => self.finish(pod, finish, "its pod has ended"),
            (None, None) => return false,
        }
        true
    }

    /// Ends a deleted pod. Once nothing of it runs it has finished: well, where every main container ended well, as the
    /// kubelet counts it.
    fn delete(&mut self, pod: &PodView, grace: Duration, ended: Option<Finish>) {
        self.plan.message = Some("being deleted".to_owned());
        let running: Vec<_> = self.instances(&pod.uid).filter(|one| one.is_running()).collect();
        if running.is_empty() {
            let well = |container| self.latest(pod, container).and_then(Instance::exit_code) == Some(0);
            let all_well = pod.of_role(Role::Main).all(well);
            let finish = if all_well { Finish::Succeeded } else { Finish::Failed };
            self.plan.finished = Some(ended.unwrap_or(finish));
            self.plan.initialized = true;
            if ended.is_none() && self.is_overdue(pod) {
                (self.plan.finished, self.plan.failure) = (Some(Finish::Failed), Some(DEADLINE));
            }
            return;
        }
        let (sandboxes, containers): (Vec<_>, Vec<_>) = running.into_iter().partition(|one| one.record.is_sandbox);
        self.kill_all(&containers, |_| grace, "its pod is deleted");
        for one in &containers {
            self.shorten(one, grace);
        }
        if containers.is_empty() {
            self.kill_all(&sandboxes, |_| MIN_GRACE, "its pod is deleted");
        }
    }

    /// Ends the grace of a container sooner than it was given when its end began.
    fn shorten(&mut self, one: &Instance, grace: Duration) {
        let Some(kill) = one.kill.as_ref().filter(|_| !one.hurried) else { return };
        let grace = grace.max(MIN_GRACE);
        if grace < kill.grace && self.due(Some(kill.since + grace)) {
            self.act(Action::Hurry { id: one.record.id.clone() });
        }
    }

    /// How the pod has ended, if every main container has for good, or an init container has failed for good.
    fn finished(&self, pod: &PodView) -> Option<Finish> {
        let verdict = |container: &ContainerView| {
            let last = self.latest(pod, container)?;
            let code = last.exit_code()?;
            let for_good =
                last.hash() == Some(container.hash.as_str()) && !container.restart.again(code, last.condemned);
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

    /// Stops what a pod that is over has left (sidecars, the sandbox); its dead containers stay for their logs. The pod has
    /// ended when the last container has: one that handles its signal still works, and its exit code is not known yet.
    fn finish(&mut self, pod: &PodView, finish: Finish, why: &str) {
        self.plan.initialized = true;
        let running = self.instances(&pod.uid).filter(|one| one.is_running());
        let (sandboxes, containers): (Vec<_>, Vec<_>) = running.partition(|one| one.record.is_sandbox);
        self.kill_all(&containers, |_| pod.grace, why);
        if containers.is_empty() {
            self.plan.finished = Some(finish);
            self.kill_all(&sandboxes, |_| MIN_GRACE, why);
        }
    }

    /// Ends and removes all containers when one has ended for which a rule says so; they begin again in the same sandbox,
    /// init containers first, after the back-off of the one that asked. Returns whether that is under way.
    pub(super) fn restart_all(&mut self, pod: &PodView, sandbox: &str) -> bool {
        let asks = |container: &ContainerView| {
            let last = self.latest(pod, container).filter(|one| one.sandbox() == sandbox)?;
            let same = last.hash() == Some(container.hash.as_str());
            last.exit_code().filter(|code| same && container.restart.all_again(*code))?;
            Some((container.name.clone(), last))
        };
        let Some((name, last)) = pod.containers.iter().find_map(asks) else { return false };
        let own = self.instances(&pod.uid).filter(|one| !one.record.is_sandbox);
        let (running, dead): (Vec<_>, Vec<_>) = own.partition(|one| one.is_running());
        for container in pod.containers.iter().filter(|container| container.name != name) {
            self.wait(&container.name, pod.initial_reason(), format!("container {name} restarts all containers"));
        }
        self.kill_all(&running, |_| pod.grace, &format!("container {name} restarts all containers"));
        let slot = self.slot(&name);
        if running.is_empty() && self.backed_off(&name, last, tries(&slot, Some(last))) {
            for one in dead {
                self.remove(one);
            }
        }
        true
    }
}
