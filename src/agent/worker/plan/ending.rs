//! How containers end: a pod that is not wanted any more, one that has finished, and what is left of earlier runs.

use super::*;

impl Planner<'_> {
    /// Begins to end a container that runs, once.
    pub(super) fn kill(&mut self, one: &Instance, grace: Duration, why: &str) {
        self.begin(one, grace, why, false);
    }

    /// Begins to end all of these, which are what runs of a pod: sidecars are to end after the others.
    pub(super) fn kill_all(&mut self, running: &[&Instance], grace: impl Fn(&Instance) -> Duration, why: &str) {
        for one in running {
            self.begin(one, grace(one), why, true);
        }
    }

    fn begin(&mut self, one: &Instance, grace: Duration, why: &str, ordered: bool) {
        if !one.is_ending() && self.due(one.retry_at) {
            let (id, why) = (one.record.id.clone(), why.to_owned());
            self.act(Action::Kill { id, grace: grace.max(MIN_GRACE), why, ordered });
        }
    }

    /// Sends what is being ended its signal when its hook is done and its turn has come. What its hook and its
    /// predecessors took is off its grace; it waits for neither longer than that.
    pub(super) fn carry_on(&mut self, uid: &str) {
        let running: Vec<_> = self.instances(uid).filter(|one| one.is_running() && !one.record.is_sandbox).collect();
        let first = running.iter().map(|one| one.stop_order()).min().unwrap_or_default();
        let all = self.instances(uid).filter(|one| one.is_running() && !one.stopping);
        for (one, kill) in all.filter_map(|one| Some((one, one.kill.as_ref()?))) {
            let left = kill.since + kill.grace - self.now;
            if kill.hook {
                continue;
            }
            if kill.ordered && !one.record.is_sandbox && one.stop_order() > first && !left.is_zero() {
                self.wake_at(kill.since + kill.grace);
            } else if self.due(one.retry_at) {
                self.act(Action::Stop { id: one.record.id.clone(), grace: left.max(MIN_GRACE) });
            }
        }
    }

    /// Containers first, sidecars after the others, then their remains, then the sandbox, then the rest.
    pub(super) fn terminate(&mut self, uid: &str) {
        self.carry_on(uid);
        let containers: Vec<_> = self.instances(uid).filter(|one| !one.record.is_sandbox).collect();
        let running: Vec<_> = containers.iter().copied().filter(|one| one.is_running()).collect();
        let grace = |one: &Instance| if self.seen.abandoned.contains(uid) { MIN_GRACE } else { one.grace() };
        self.kill_all(&running, grace, "its pod is not wanted any more");
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

    /// A pod that is wanted again and only drains, its ports closed, is idle: its grace ends now, for it is in its own
    /// way.
    pub(super) fn force_stop(&mut self, pod: &PodView) {
        if !self.seen.drained.contains(&pod.uid) {
            return;
        }
        let draining: Vec<_> =
            self.instances(&pod.uid).filter(|one| one.is_running() && one.stopping && !one.hurried).collect();
        for one in draining {
            self.act(Action::Hurry { id: one.record.id.clone() });
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
