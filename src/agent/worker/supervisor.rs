//! One worker for each pod that is wanted or still there. It alone starts and ends workers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use super::clearing::{Clearing, Step};
use super::runtime_watch::News;
use super::{End, Handle};
use crate::agent::admission::Refusal;
use crate::agent::admission::statics::{News as Decisions, Node, Statics};
use crate::agent::board::Entry;
use crate::agent::context::Context;
use crate::agent::control::report::{PodReport, Problem};
use crate::agent::crash::{Crash, Crashes, SET_ASIDE_AFTER, Standing, caught_now};
use crate::agent::devices::gate;
use crate::agent::devices::gate::Gate;
use crate::agent::events::Subject;
use crate::agent::messages::Message;
use crate::agent::pod::{API_SOURCE, CONFIG_SOURCE, PodKey, StaticPod};
use crate::agent::source::{Kind, Update};
use crate::agent::worker;
use crate::host::clock::{self, Instant};
use crate::runtime::ContainerRecord;
use jiff::Timestamp;
use tokio::sync::mpsc;
use tracing::{error, info, warn};

/// How often the loop turns although nothing happens, far below the limit of `/healthz/syncloop`.
const TURN: Duration = Duration::from_secs(30);

/// See the module.
pub struct Supervisor {
    context: Arc<Context>,
    workers: BTreeMap<PodKey, Handle>,
    wanted: BTreeMap<PodKey, Arc<StaticPod>>,
    /// Which static pods are run.
    statics: Statics,
    /// The last update, where static pods in it are refused for labels of the Node that are not known yet.
    provisional: Option<Update>,
    /// The sources have been read once: what they do not want may be stopped,
    synced: bool,
    /// but not what came from these, of which that cannot be known yet.
    held: BTreeSet<Kind>,
    /// Clears what is left of pods that are gone.
    clearing: Clearing,
    /// The last update, where it wants pods whose remains are being removed.
    waiting: Option<Update>,
    /// Has pods wait for their devices.
    gate: Gate,
    /// The last update, where it wants such pods.
    undecided: Option<Update>,
    /// The latest list; None before the first one, when it is not known what runs already.
    records: Option<Vec<ContainerRecord>>,
    /// Pods whose workers have crashed,
    crashes: Crashes,
    /// and those of them whose containers have not been listed since: events were lost meanwhile.
    stale: BTreeSet<PodKey>,
    /// When one of them may have a worker again.
    again: Option<Instant>,
    ended: mpsc::UnboundedSender<End>,
    ends: mpsc::UnboundedReceiver<End>,
}

impl Supervisor {
    /// Nothing is wanted and nothing is known yet.
    pub fn new(context: Arc<Context>) -> Self {
        let (ended, ends) = mpsc::unbounded_channel();
        Self {
            context,
            workers: BTreeMap::new(),
            wanted: BTreeMap::new(),
            statics: Statics::default(),
            provisional: None,
            synced: false,
            held: BTreeSet::new(),
            clearing: Clearing::default(),
            waiting: None,
            gate: Gate::default(),
            undecided: None,
            records: None,
            crashes: Crashes::default(),
            stale: BTreeSet::new(),
            again: None,
            ended,
            ends,
        }
    }

    /// Runs until the agent ends.
    pub async fn run(mut self, mut updates: mpsc::Receiver<Update>, mut news: mpsc::Receiver<News>) {
        let shutdown = self.context.shutdown.clone();
        // A quiet agent is not a stuck one: the loop turns without news too.
        // More often than the service manager is notified of it.
        let turn =
            self.context.options.watchdog.and_then(|every| every.checked_div(2)).map_or(TURN, |half| TURN.min(half));
        let mut ticks = tokio::time::interval(turn.max(Duration::from_millis(1)));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut labels = self.context.node.labels();
        loop {
            self.context.metrics.turn();
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => {}
                Some(update) = updates.recv() => self.update(update),
                Some(news) = news.recv() => self.news(news),
                Some(end) = self.ends.recv() => match end {
                    End::Idle(key) => self.end(&key),
                    End::Crashed(key, crash) => self.crashed(&key, crash),
                },
                () = sleep_until(self.again) => {
                    self.again = None;
                    self.context.relink.notify_one();
                }
                Some(step) = self.clearing.next() => self.cleared(step),
                Some(answer) = self.gate.next() => self.given(answer),
                Ok(()) = labels.changed() => {
                    if let Some(update) = self.provisional.take() {
                        self.update(update);
                    }
                }
            }
        }
    }

    fn update(&mut self, mut update: Update) {
        let waits = |pod: &Arc<StaticPod>| self.clearing.is_removing(&pod.uid);
        self.waiting = update.pods.iter().any(waits).then(|| update.clone());
        update.pods.retain(|pod| !waits(pod));
        self.admit(&mut update);
        self.hold_back(&mut update);
        self.context.board.set_problems("source", update.problems);
        let before = std::mem::take(&mut self.wanted);
        self.wanted = update.pods.into_iter().map(|pod| (pod.key.clone(), pod)).collect();
        self.synced |= update.synced;
        self.held = update.held;
        // Gates of the start order must be known before the first worker asks for them.
        let host_ip = self.context.facts.host_ip.as_deref();
        let new = self.wanted.values().filter(|pod| !before.contains_key(&pod.key));
        let new = new.map(|pod| (pod.key.clone(), first_entry(pod, host_ip)));
        self.context.board.set_new_pods(new.collect());
        for (key, pod) in &self.wanted {
            if before.get(key) != Some(pod)
                && let Some(worker) = self.workers.get(key)
            {
                worker.tell(Message::Wanted(Some(Arc::clone(pod))));
            }
        }
        for key in before.keys().filter(|key| !self.wanted.contains_key(key)) {
            match self.workers.get(key) {
                Some(worker) => worker.tell(Message::Wanted(None)),
                None => self.context.board.remove_pod(key),
            }
        }
        self.show_refused();
        self.clear_and_ensure_workers();
    }

    /// Takes the pods out of `update` that have no devices yet which they ask for.
    fn hold_back(&mut self, update: &mut Update) {
        self.undecided = None;
        if self.context.devices.is_idle() {
            return;
        }
        let is_known = update.synced && update.held.is_empty();
        let active = is_known.then(|| self.active(update));
        let known = gate::Known { wanted: &self.wanted, records: self.records.as_deref(), active };
        let whole = update.clone();
        self.gate.hold_back(&mut update.pods, &self.context.devices, &known);
        let gone = |uid: &String| whole.pods.iter().all(|pod| pod.uid != *uid);
        self.context.without_devices.send_if_modified(|all| {
            all.retain(|uid, _| !gone(uid));
            false
        });
        self.undecided = (whole.pods.len() > update.pods.len()).then_some(whole);
    }

    /// UIDs of the pods that are wanted and have not ended, and of those of which something still runs: what the others had
    /// of devices is free.
    fn active(&self, update: &Update) -> BTreeSet<String> {
        let wanted: BTreeSet<&str> = update.pods.iter().map(|pod| pod.uid.as_str()).collect();
        let mut active: BTreeSet<String> = wanted.iter().map(|uid| (*uid).to_owned()).collect();
        active.extend(self.context.routes.uids());
        self.context.board.visit(|pods, _| {
            for report in pods.values().map(|entry| &entry.report) {
                let is_over = report.phase.is_final() || !wanted.contains(report.uid.as_str()) && !report.is_running();
                match is_over {
                    true => active.remove(&report.uid),
                    false => active.insert(report.uid.clone()),
                };
            }
        });
        active
    }

    /// A pod has the devices that it asks for, or cannot have them.
    fn given(&mut self, answer: gate::Answer) {
        let gate::Answer { pod, refusal } = answer;
        if let Some(refusal) = refusal {
            self.report_refused(&pod, &refusal);
            match pod.bound {
                Some(_) => self.context.without_devices.send_modify(|all| drop(all.insert(pod.uid.clone(), refusal))),
                None => self.statics.refuse(&pod, refusal),
            }
        }
        if let Some(update) = self.undecided.take() {
            self.update(update);
        }
    }

    /// Takes the pods out of `update` that are not run, and tells of those that were until now.
    fn admit(&mut self, update: &mut Update) {
        let whole = update.clone();
        let before: BTreeMap<PodKey, String> =
            self.statics.refused().map(|(pod, _)| (pod.key.clone(), pod.uid.clone())).collect();
        let decisions = self.decide(update);
        self.provisional = self.statics.is_provisional().then_some(whole);
        for (pod, refusal) in decisions.refused {
            self.report_refused(&pod, &refusal);
        }
        for pod in decisions.preempted {
            self.report_refused(&pod, &Refusal::preempted());
        }
        let now: BTreeSet<&str> = self.statics.refused().map(|(pod, _)| pod.uid.as_str()).collect();
        for (key, uid) in before {
            // What is being stopped under this name is its worker's to show.
            if !now.contains(uid.as_str()) && !self.workers.contains_key(&key) {
                self.context.board.remove_pod(&key);
            }
        }
    }

    fn decide(&mut self, update: &mut Update) -> Decisions {
        let context = &self.context;
        let labels = context.node.labels().borrow().clone();
        let is_final = context.api.is_none() || labels.is_some();
        let labels = labels.unwrap_or_else(|| context.initial_labels.clone());
        let site = context.site(Some(labels));
        let has_ended = |pod: &StaticPod| {
            let is_it = |entry: &Entry| entry.report.uid == pod.uid && entry.report.phase.is_final();
            context.board.visit(|pods, _| pods.get(&pod.key).is_some_and(is_it))
        };
        let node = Node { site, is_final, has_ended: &has_ended };
        let mut preempted = context.preempted.borrow().clone();
        let decisions = self.statics.decide(update, &node, &mut preempted);
        context.preempted.send_if_modified(|before| std::mem::replace(before, preempted.clone()) != preempted);
        decisions
    }

    fn report_refused(&self, pod: &StaticPod, refusal: &Refusal) {
        info!(pod = %pod.key, reason = refusal.reason, message = refusal.message, "pod refused");
        self.context.metrics.refused_pods.count([refusal.reason.clone().into()]);
        let subject = Subject { pod: &pod.key, uid: &pod.uid, container: None };
        self.context.events.warning(subject, &refusal.reason, refusal.message.clone());
    }

    /// Pods that are not run are shown with their reasons, once nothing is left of what ran under their names.
    fn show_refused(&self) {
        for (pod, refusal) in self.statics.refused().filter(|(pod, _)| !self.workers.contains_key(&pod.key)) {
            self.context.board.set_pod(&pod.key, worker::refused_entry(pod, refusal, Timestamp::now()));
        }
    }

    fn news(&mut self, news: News) {
        match news {
            News::Event(event) if self.context.routes.knows(&event.pod_uid) => {
                self.context.routes.tell(&event.pod_uid.clone(), Message::Event(event));
            }
            // Of a pod that no worker has yet: the next list shows it.
            News::Event(_) => {}
            News::Listed(records) => {
                let mut shares: BTreeMap<PodKey, Vec<ContainerRecord>> = BTreeMap::new();
                for record in &records {
                    shares.entry(key_of(record)).or_default().push(record.clone());
                }
                for (key, worker) in &self.workers {
                    worker.tell(Message::Listed(shares.remove(key).unwrap_or_default()));
                }
                let is_first = self.records.replace(records).is_none();
                self.stale.clear();
                match is_first.then(|| self.undecided.take()).flatten() {
                    Some(update) => self.update(update),
                    None => self.clear_and_ensure_workers(),
                }
            }
        }
    }

    /// What is left of unknown pods goes once everything that may be known is, before any pod can be made that is
    /// not known yet, and later again: it may have been in use when its pod went.
    fn clear_remains(&mut self) {
        if self.records.is_some() && self.synced && self.held.is_empty() {
            let noted = !self.left().is_empty();
            self.clearing.look(&self.context, noted);
        }
    }

    fn cleared(&mut self, step: Step) {
        match step {
            Step::Found(claimed) => {
                let running = self.records.iter().flatten().map(|record| record.name.uid.clone());
                let wanted = self.wanted.values().map(|pod| pod.uid.clone());
                let known: BTreeSet<String> = wanted.chain(running).chain(self.context.routes.uids()).collect();
                let unknown: BTreeSet<String> = claimed.difference(&known).cloned().collect();
                // An older list may still know one of them: it stays noted until it is gone.
                self.left().retain(|uid| known.contains(uid) || unknown.contains(uid));
                self.clearing.remove(&self.context, unknown);
            }
            Step::Removed(uids, still) => {
                let mut left = self.left();
                left.retain(|uid| !uids.contains(uid));
                left.extend(still);
            }
            Step::Late => warn!("what pods that are gone have left takes long to be removed; the others start"),
            Step::Failed => {}
        }
        match self.waiting.take() {
            Some(update) => self.update(update),
            None => self.ensure_workers(),
        }
    }

    fn left(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.context.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the workers that are missing: those of wanted pods, and those of orphans once it is sure that they are
    /// some.
    fn clear_and_ensure_workers(&mut self) {
        self.clear_remains();
        self.ensure_workers();
    }

    fn ensure_workers(&mut self) {
        if self.clearing.holds_all_up() {
            return;
        }
        let Some(records) = &self.records else { return };
        let held: BTreeSet<PodKey> =
            records.iter().filter(|one| self.held.contains(&kind_of(one))).map(key_of).collect();
        let orphans = records.iter().map(key_of).filter(|key| self.synced && !held.contains(key));
        let keys: BTreeSet<PodKey> = self.wanted.keys().cloned().chain(orphans).collect();
        let uid_of = |key: &PodKey| self.wanted.get(key).map(|pod| pod.uid.as_str());
        if self.crashes.retain(|key, uid| keys.contains(key) && uid_of(key) == uid) {
            self.show_set_aside();
        }
        for key in keys {
            if self.workers.contains_key(&key) {
                continue;
            }
            let uid = self.wanted.get(&key).map(|pod| pod.uid.as_str());
            match self.crashes.standing(&key, uid, Instant::now()) {
                Standing::Fine if !self.stale.contains(&key) => {}
                Standing::Fine | Standing::SetAside(_) => continue,
                Standing::Waits(until) => {
                    self.again = Some(self.again.map_or(until, |before| before.min(until)));
                    continue;
                }
            }
            let records: Vec<_> = records.iter().filter(|record| key_of(record) == key).cloned().collect();
            let wanted = self.wanted.get(&key).cloned();
            if wanted.is_none() {
                info!(pod = %key, containers = records.len(), "found containers of a pod that is not wanted");
                self.context.metrics.orphans.count();
                let uid = records.first().map(|record| record.name.uid.clone()).unwrap_or_default();
                self.context.board.set_new_pods(vec![(key.clone(), worker::orphan_entry(&key, uid))]);
            }
            let (context, ended) = (Arc::clone(&self.context), self.ended.clone());
            let worker = worker::spawn(key.clone(), context, ended, worker::Start { wanted, records });
            self.workers.insert(key, worker);
        }
        // Only now is a pod that is missing from the report one that is neither wanted nor there.
        if self.synced {
            self.context.board.set_synced();
        }
        self.context.board.set_settled(self.synced && self.held.is_empty() && self.waiting.is_none());
    }

    /// A worker has panicked: another one begins a little later. What it was about goes on as it is meanwhile.
    fn crashed(&mut self, key: &PodKey, crash: Crash) {
        self.workers.remove(key);
        self.context.routes.forget_ended();
        self.stale.insert(key.clone());
        let pod = self.wanted.get(key);
        let times = self.crashes.note(key, pod.map(|pod| pod.uid.as_str()), crash.clone(), Instant::now());
        let shown = self.context.board.visit(|pods, _| pods.get(key).cloned());
        let uid = shown.as_ref().map(|entry| entry.report.uid.clone()).unwrap_or_default();
        let mut message = format!("error syncing pod: its worker has crashed {times} times: {crash}");
        if times >= SET_ASIDE_AFTER {
            message = format!("{message}; the pod is set aside: it stays as it is until its manifest changes");
            self.context.probes.remove_pod(&uid);
        }
        error!(pod = %key, message, "crashed");
        self.context.events.warning(Subject { pod: key, uid: &uid, container: None }, "FailedSync", message.clone());
        if let Some(mut entry) = shown {
            (entry.report.healthy, entry.report.ready, entry.report.message) = (false, false, Some(message));
            self.context.board.set_pod(key, entry);
        }
        self.show_set_aside();
        self.clear_and_ensure_workers();
    }

    fn show_set_aside(&self) {
        let problem = |(key, crash): (&PodKey, &Crash)| {
            let message = format!("{crash}; the pod is set aside until its manifest changes or the agent is restarted");
            Problem::error(format!("pod {key}"), message)
        };
        self.context.board.set_problems("crashes", self.crashes.set_aside().map(problem).collect());
    }

    /// A worker has nothing left to do, unless its pod is wanted again by now.
    fn end(&mut self, key: &PodKey) {
        if !self.wanted.contains_key(key) {
            self.workers.remove(key);
            // It saw the last of these go; an older list must not bring it back.
            if let Some(records) = &mut self.records {
                records.retain(|record| key_of(record) != *key);
            }
            self.show_refused();
        }
    }
}

/// What is reported of a new pod. Whatever is wrong with it is for its worker to find out.
fn first_entry(pod: &Arc<StaticPod>, host_ip: Option<&str>) -> Entry {
    caught_now(|| worker::first_entry(pod, host_ip)).unwrap_or_else(|crash| {
        let blank = worker::orphan_entry(&pod.key, pod.uid.clone());
        let report = PodReport { terminating: false, message: Some(crash.to_string()), ..blank.report };
        Entry { report, pod: Some(Arc::clone(pod)), ..blank }
    })
}

async fn sleep_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => clock::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// Where a container's pod came from: its sandbox says so, and the container itself.
fn kind_of(record: &ContainerRecord) -> Kind {
    match record.annotations.get(CONFIG_SOURCE).map(String::as_str) {
        Some("http") => Kind::Http,
        Some(API_SOURCE) => Kind::Api,
        _ => Kind::File,
    }
}

fn key_of(record: &ContainerRecord) -> PodKey {
    PodKey { namespace: record.name.namespace.clone(), name: record.name.pod.clone() }
}
