//! What the runtime and the prober say, taken in.

use super::*;
use crate::agent::probe::Mark;
use crate::agent::runs::Run;
use crate::host::facts::hostname;

impl Worker {
    /// An event says nothing new about what the worker did itself and has looked at since.
    pub(super) fn is_news(&self, event: &RuntimeEvent) -> bool {
        let known = self.seen.instances.get(&event.id);
        match event.kind {
            RuntimeEventKind::Started => !known.is_some_and(Instance::is_running),
            RuntimeEventKind::Exited => known.is_none_or(|one| one.exit_code().is_none()),
            RuntimeEventKind::Removed => known.is_some(),
        }
    }

    /// A listing is as old as the call that made it: what it says of a container is reason to look, nothing more.
    pub(super) async fn compare(&mut self, records: Vec<ContainerRecord>) {
        self.suspended = false;
        let gone = self.seen.instances.keys().filter(|id| records.iter().all(|record| record.id != **id));
        let mut doubtful: Vec<String> = gone.cloned().collect();
        let differs = |record: &&ContainerRecord| {
            self.seen.instances.get(&record.id).is_none_or(|one| one.record.state != record.state)
        };
        doubtful.extend(records.iter().filter(differs).map(|record| record.id.clone()));
        for id in doubtful {
            self.refresh(&id).await;
        }
        self.link_logs().await;
    }

    /// Looks at a container again.
    pub(super) async fn refresh(&mut self, id: &str) {
        match self.context.runtime.inspect(id).await {
            Ok(record) => self.observe(record),
            Err(RuntimeError::NotFound { .. }) => self.forget_container(id),
            Err(error) => {
                // It is not known whether a container runs: nothing is done before the next list says so.
                self.suspended = true;
                self.failed_on(id, &error);
                self.context.relink.notify_one();
            }
        }
    }

    pub(super) fn observe(&mut self, record: ContainerRecord) {
        let id = record.id.clone();
        let exited = matches!(record.state, ContainerState::Exited { .. });
        self.context.routes.add(&record.name.uid, &self.myself);
        let is_news = self.seen.instances.get(&id).is_none_or(|one| one.ended.is_none());
        match self.seen.instances.get_mut(&id) {
            Some(one) => {
                let was_running = one.is_running();
                one.record = record;
                if exited && one.ended.is_none() {
                    one.ended = Some(ended_at(&one.record));
                    (one.failures, one.retry_at) = (0, None);
                    if was_running && !one.is_ending() && !self.seen.terminating.contains(one.uid()) {
                        self.crashed = true;
                        let (name, code) = (one.record.name.container.clone(), one.exit_code());
                        info!(pod = %self.key, container = %name, ?code, "container ended");
                    }
                    one.stopping = false;
                }
                if !exited && one.ended.take().is_some() {
                    // It was started again from outside, which its end before does not concern.
                    one.kill = None;
                    if std::mem::take(&mut one.condemned) {
                        let name = &one.record.name;
                        self.context.probes.note_condemned(&name.uid, &name.container, None);
                    }
                }
            }
            None => {
                let ended = exited.then(|| ended_at(&record));
                let name = &record.name;
                let condemned =
                    !record.is_sandbox && self.context.probes.was_condemned(&name.uid, &name.container, &id);
                let memory = self.context.probes.memory();
                let mut one = Instance { condemned, ..Instance::new(record, ended) };
                if one.shared_port().is_some() {
                    let has = |mark| memory.has(mark, &one.record.name.uid, &one.record.name.container, &id);
                    (one.relieved, one.told) = (has(Mark::Relieved), has(Mark::Told));
                }
                self.seen.instances.insert(id.clone(), one);
            }
        }
        if exited {
            self.end_hook(&id);
            if is_news {
                self.report_run(&id, None);
            }
        }
        self.note_start(&id);
        self.note_running();
    }

    /// A container has ended: what it has left in the cluster is put right before the next one starts. Of a pod whose manifest
    /// this agent has not seen, that of its successor says what it ran.
    fn report_run(&self, id: &str, ended: Option<Timestamp>) {
        let Some(record) = self.seen.instances.get(id).map(|one| &one.record).filter(|one| !one.is_sandbox) else {
            return;
        };
        let (started, finished) = match record.state {
            ContainerState::Running { started_at } => (Some(started_at), ended),
            ContainerState::Exited { started_at, finished_at, .. } => (started_at, finished_at),
            ContainerState::Created => return,
        };
        let pod = self.known_pod(&record.name.uid).or(self.pod.as_ref().map(|(pod, _)| pod.as_ref()));
        let Some((pod, election)) = pod.and_then(|pod| Some((pod, pod.election(&record.name.container)?))) else {
            return;
        };
        let (name, uid) = (&record.name, record.name.uid.clone());
        let (election, started, ended) = match (election, started, finished) {
            (Ok(election), Some(started), Some(ended)) => (election, started, ended),
            (Err(why), ..) => {
                return debug!(pod = %self.key, container = name.container, why, "its leader lease is left to run out");
            }
            _ => return,
        };
        let host = if pod.host_network() { hostname() } else { pod.hostname() };
        let (pod, container) = (self.key.clone(), name.container.clone());
        self.context.runs.report(Run { pod, uid, container, election, host, started, ended });
    }

    /// The wanted pod began no later than the first that was made of it.
    fn note_start(&mut self, id: &str) {
        let Some(record) = self.seen.instances.get(id).map(|one| &one.record) else { return };
        if self.wanted_uid() == Some(record.name.uid.as_str()) {
            let made = record.created_at.map(|at| instant_of(at, Duration::MAX));
            self.seen.started = self.seen.started.into_iter().chain(made).min();
        }
    }

    /// A container of the wanted pod that runs takes the pod out of the start order.
    pub(super) fn note_running(&mut self) {
        if let Some(uid) = self.wanted_uid() {
            let mut own = self.seen.instances.values().filter(|one| one.uid() == uid && !one.record.is_sandbox);
            self.begun |= own.any(Instance::is_running);
        }
    }

    /// A container is gone; its restart count is not.
    pub(super) fn forget_container(&mut self, id: &str) {
        self.log_tails.remove(id);
        self.end_hook(id);
        if self.seen.instances.get(id).is_some_and(Instance::is_running) {
            // It was taken away from outside: when it ended is not known, but that it has.
            self.report_run(id, Some(Timestamp::now()));
        }
        let Some(one) = self.seen.instances.remove(id) else { return };
        let (name, ran) = (&one.record.name, one.record.state != ContainerState::Created);
        if ran {
            self.context.attempts.note(&name.uid, &name.container, name.attempt.saturating_add(1));
        }
        if self.wanted_uid() == Some(one.uid()) {
            let slot = self.seen.slots.entry(one.record.name.container.clone()).or_default();
            slot.next_attempt = slot.next_attempt.max(one.record.name.attempt.saturating_add(1));
            slot.tries = plan::tries(slot, Some(&one));
            if one.is_running() {
                self.crashed = true;
                let (context, name, id) = (Arc::clone(&self.context), one.record.name.clone(), id.to_owned());
                // Nothing waits for it: the next container's log has another name.
                tokio::task::spawn_blocking(move || crate::agent::logs::unlink(&context.options, &name, &id));
            }
        }
    }

    /// Tells the prober which containers run, and reads what it knows.
    pub(super) fn report_probes(&mut self) {
        for uid in &self.seen.terminating {
            let running = self.seen.instances.values().filter(|one| one.uid() == uid && one.is_running());
            let running: Vec<_> = running.map(|one| one.record.id.as_str()).collect();
            self.context.probes.terminating(uid, &running);
        }
        self.hear_predecessors();
        let Some((pod, view)) = self.pod.as_ref() else { return };
        if self.wanted && !self.seen.is_blocked(view) {
            let running = self.probed(pod, view);
            self.context.probes.set_containers(&self.key, &pod.uid, running);
        }
        self.hear_probes();
    }

    /// Takes in what the prober says of the wanted pod.
    pub(super) fn hear_probes(&mut self) {
        let Some((pod, _)) = self.pod.as_ref() else { return };
        let mut results = self.context.probes.results(&pod.uid);
        for (name, slot) in &mut self.seen.slots {
            slot.health = results.remove(name);
        }
    }

    /// The newest running instance of each container.
    fn probed(&self, pod: &StaticPod, view: &PodView) -> Vec<ProbedContainer> {
        let own = || self.seen.instances.values().filter(|one| one.uid() == pod.uid);
        let shared =
            own().filter(|one| one.record.is_sandbox && one.is_running()).find_map(|one| one.record.ip.clone());
        let of_host = pod.host_network().then(|| self.context.host_network_ip().map(str::to_owned));
        let mut probed = Vec::new();
        for container in &view.containers {
            let running = own().filter(|one| !one.record.is_sandbox && one.record.name.container == container.name);
            let newest = running.filter(|one| one.is_running()).max_by_key(|one| one.record.name.attempt);
            let Some((one, ContainerState::Running { started_at })) = newest.map(|one| (one, &one.record.state)) else {
                continue;
            };
            if one.post_start != PostStart::None {
                // The kubelet probes no container whose hook is not done.
                continue;
            }
            probed.push(ProbedContainer {
                name: container.name.clone(),
                id: one.record.id.clone(),
                started_at: *started_at,
                ip: of_host.clone().unwrap_or_else(|| shared.clone().or_else(|| one.record.ip.clone())),
                stopping: one.is_ending(),
                probes: Arc::clone(&container.probes),
                route: self.surge.as_ref().and_then(|surge| surge.route.clone()),
            });
        }
        probed
    }
}

/// When a container ended, on tokio's clock; none is long ago.
fn ended_at(record: &ContainerRecord) -> Instant {
    match record.state {
        ContainerState::Exited { finished_at: Some(at), .. } => instant_of(at, Duration::from_secs(3600)),
        _ => Instant::now(),
    }
}

/// A moment on tokio's clock, `longest` ago at most. Wall clocks jump, so a moment in the future is now.
fn instant_of(at: Timestamp, longest: Duration) -> Instant {
    let now = Instant::now();
    let ago = Duration::try_from(Timestamp::now().duration_since(at)).unwrap_or_default();
    now.checked_sub(ago.min(longest)).unwrap_or(now)
}
