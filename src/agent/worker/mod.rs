//! One worker a pod: a task that compares what is wanted with what is there, takes the steps of its [`plan`], and looks
//! again.
//!
//! A worker belongs to a namespace and name and serves one UID after the other, so that a pod's successor cannot start
//! before the pod is gone. Everything that takes long (stopping, pulling) runs beside it and wakes it at its end;
//! source changes, container events, probe results and timers wake it too. It is alone with its pod: nothing it does or
//! waits for holds up another pod.

mod policy;
mod clearing;
mod order;
pub mod runtime_watch;
pub mod supervisor;
mod action;
mod ahead;
mod execute;
mod instance;
mod observe;
mod plan;
mod predecessors;
mod report;
mod status;
mod surge;
mod view;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PodStatus;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::board::{Entry, Gate, Gates};
use super::container;
use super::context::Context;
use super::crash::{self, Crash};
use super::messages::Message;
use super::pod::phase::Phase;
use super::pod::{PodKey, StaticPod};
use super::probe::ProbedContainer;
use crate::host::clock::Instant;
use crate::runtime::{ContainerRecord, ContainerState, RuntimeError, RuntimeEvent, RuntimeEventKind, RuntimeFeatures};
use action::Plan;
use predecessors::Predecessor;
use report::LogTails;
pub use report::{first_entry, orphan_entry, refused_entry};
use surge::{Kept, Surge};
use view::{Instance, Observed, PodView, PostStart, Slot};

/// The other end of a worker.
pub struct Handle {
    inbox: mpsc::UnboundedSender<Message>,
    end: CancellationToken,
}

impl Handle {
    /// Tells the worker something. One that has ended hears nothing.
    pub fn tell(&self, message: Message) {
        let _ = self.inbox.send(message);
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

/// What a worker begins with.
#[derive(Debug)]
pub struct Start {
    /// The pod that is wanted.
    pub wanted: Option<Arc<StaticPod>>,
    /// Its containers, as the runtime listed them after it began to tell events.
    pub records: Vec<ContainerRecord>,
}

/// How a worker has ended.
#[derive(Debug)]
pub enum End {
    /// Nothing is wanted and nothing is left. It goes on for as long as its handle lives, should its pod be wanted again.
    Idle(PodKey),
    /// It panicked. What it had begun has ended with it.
    Crashed(PodKey, Crash),
}

/// The most bytes that a worker may be, which each pod takes for as long as it runs. What is long and rare is boxed.
const LARGEST: usize = 12 * 1024;

/// Starts the worker of a pod. `ends` receives how it ends, unless the agent or its handle's owner ends it.
pub fn spawn(key: PodKey, context: Arc<Context>, ends: mpsc::UnboundedSender<End>, start: Start) -> Handle {
    let (inbox, messages) = mpsc::unbounded_channel();
    let end = context.shutdown.child_token();
    let worker = Worker {
        gates: context.board.gates(),
        devices: context.devices.changes(),
        seen: Observed::new(context.options.max_restart_backoff),
        key: key.clone(),
        messages,
        myself: inbox.clone(),
        ends: ends.clone(),
        pod: None,
        wanted: false,
        predecessors: vec![],
        surge: None,
        kept: None,
        since: Instant::now(),
        begun: false,
        crashed: false,
        suspended: false,
        said_idle: false,
        about: "sync",
        released: false,
        backing_off: BTreeMap::new(),
        ended_for: None,
        log_tails: LogTails::new(),
        features: None,
        stops: JoinSet::new(),
        hooks: HashMap::new(),
        pulls: JoinSet::new(),
        context,
    };
    let (token, tasks) = (end.clone(), worker.context.tasks.clone());
    let task = async move {
        if let Some(Err(crash)) = token.run_until_cancelled(crash::caught(worker.run(start))).await {
            let _ = ends.send(End::Crashed(key, crash));
        }
    };
    debug_assert!(std::mem::size_of_val(&task) <= LARGEST, "{} bytes", std::mem::size_of_val(&task));
    tasks.spawn(task);
    Handle { inbox, end }
}

struct Worker {
    key: PodKey,
    context: Arc<Context>,
    messages: mpsc::UnboundedReceiver<Message>,
    /// For tasks that report back.
    myself: mpsc::UnboundedSender<Message>,
    ends: mpsc::UnboundedSender<End>,
    /// The pod that is wanted or, when none is, the last one that was.
    pod: Option<(Arc<StaticPod>, PodView)>,
    wanted: bool,
    /// Pods that had its name before and whose containers have not ended yet.
    predecessors: Vec<Predecessor>,
    /// The wanted pod is being tried beside one of them,
    surge: Option<Surge>,
    /// which goes on.
    kept: Option<Kept>,
    /// When its present UID was first wanted.
    since: Instant,
    /// A container of this UID has been started, or was found running: the start order has no more to say.
    begun: bool,
    /// A container of this UID ended by itself.
    crashed: bool,
    /// The runtime cannot be reached; nothing is tried until it has listed again.
    suspended: bool,
    said_idle: bool,
    /// What it is about, in the kubelet's words: `create` a pod, `update` one, or `sync` it.
    about: &'static str,
    /// The volumes of the pod, which has ended, have been removed.
    released: bool,
    /// Containers that back off, with the reason that was reported.
    backing_off: BTreeMap<String, String>,
    /// The reason for which the pod was ended as a whole that was reported.
    ended_for: Option<&'static str>,
    seen: Observed,
    log_tails: LogTails,
    /// What the runtime can, once something of the pod depended on it.
    features: Option<RuntimeFeatures>,
    gates: watch::Receiver<Gates>,
    /// Devices of plugins change.
    devices: watch::Receiver<()>,
    /// Stops and hooks under way.
    stops: JoinSet<()>,
    /// The hooks among them, by container id.
    hooks: HashMap<String, AbortHandle>,
    /// Pulls under way.
    pulls: JoinSet<()>,
}

impl Worker {
    async fn run(mut self, start: Start) {
        self.want(start.wanted);
        for record in start.records {
            // What is there already was started before the agent.
            self.context.metrics.startups.forget(&record.name.uid);
            self.observe(record);
        }
        Box::pin(self.link_logs()).await;
        let mut woken = Instant::now();
        loop {
            while let Ok(message) = self.messages.try_recv() {
                self.on_message(message).await;
            }
            let surge = Box::pin(self.surge()).await;
            self.mark_terminating();
            self.forget_predecessors();
            self.report_probes();
            Box::pin(self.read_log_tails()).await;
            Box::pin(self.learn_features()).await;
            let mut plan = self.plan();
            if self.unheard().next().is_some() {
                // The last status of a pod has all that its containers have left.
                (plan.finished, plan.failure) = (None, None);
            }
            self.publish(&plan);
            self.report_back_offs(&plan);
            Box::pin(self.release_volumes(&plan)).await;
            if !self.suspended && !plan.actions.is_empty() {
                for action in plan.actions {
                    Box::pin(self.execute(action)).await;
                }
                continue;
            }
            self.report_idle();
            let about = if self.wanted { std::mem::replace(&mut self.about, "sync") } else { "kill" };
            self.context.metrics.worker.time([about.into()], woken.elapsed());
            self.sleep(plan.wake.into_iter().chain(surge).min()).await;
            woken = Instant::now();
        }
    }

    fn plan(&mut self) -> Plan {
        let wanted = self.pod.as_ref().filter(|_| self.wanted);
        let gates = self.gates.borrow_and_update();
        self.seen.hold = match wanted {
            Some((pod, _)) if !self.begun => order::hold(pod, &gates, self.since),
            _ => None,
        };
        drop(gates);
        plan::plan(wanted.map(|(_, view)| view), &self.seen, Instant::now())
    }

    /// Waits until something happens.
    async fn sleep(&mut self, until: Option<Instant>) {
        let timer = async {
            match until {
                Some(until) => crate::host::clock::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        let held = self.seen.hold.is_some();
        let has_devices = self.wanted_uid().is_some_and(|uid| self.context.devices.has(uid));
        let message = tokio::select! {
            message = self.messages.recv() => message,
            () = timer, if !self.suspended => None,
            _ = self.gates.changed(), if held => None,
            Ok(()) = self.devices.changed(), if has_devices => None,
            // What crashes beside the worker would leave it waiting for its end: it crashes too, and begins again.
            Some(ended) = self.stops.join_next() => { crash::hand_on(ended); None }
            Some(ended) = self.pulls.join_next() => { crash::hand_on(ended); None }
        };
        if let Some(message) = message {
            self.on_message(message).await;
        }
    }

    async fn on_message(&mut self, message: Message) {
        match message {
            Message::Wanted(pod) => self.want(pod),
            Message::Event(event) => {
                if self.is_news(&event) {
                    Box::pin(self.refresh(&event.id)).await;
                }
            }
            Message::Listed(records) => Box::pin(self.compare(records)).await,
            Message::Stopped(id, result) => {
                if let Some(one) = self.seen.instances.get_mut(&id) {
                    one.stopping = false;
                }
                if let Err(error) = result {
                    self.failed_on(&id, &error);
                }
                Box::pin(self.refresh(&id)).await;
            }
            Message::Hooked { id, kind, result } => self.hooked(&id, kind, result),
            Message::Pulled { uid, container, image, took, result } => {
                if self.wanted_uid() == Some(uid.as_str()) {
                    self.pulled(&container, &image, took, result);
                }
            }
            Message::Drained(uid) => {
                if self.seen.terminating.contains(&uid) {
                    self.seen.drained.insert(uid);
                }
            }
            Message::Probed => {}
            Message::Restart(uid) => self.restart(uid),
        }
    }

    fn want(&mut self, pod: Option<Arc<StaticPod>>) {
        self.wanted = pod.is_some();
        self.said_idle = false;
        let Some(pod) = pod else { return };
        let before = self.pod.as_ref().map(|(pod, _)| pod.uid.clone());
        let view = PodView::of(&pod, self.context.runtime.needs_sandbox());
        self.about = match () {
            () if before.as_ref() != Some(&pod.uid) => "create",
            // What changes before it is made is a part of that.
            () if self.about == "create" => "create",
            () => "update",
        };
        if before.as_ref() != Some(&pod.uid) {
            if let Some(before) = before {
                self.note_no_surge(&pod, &before);
                if !self.may_be_kept(&before, &view) && !self.may_go_on(&before, &view) {
                    self.seen.terminating.insert(before);
                }
            }
            // Pulls for the old one are of no use. Its stops go on: an edit must not give it its grace again.
            self.pulls.abort_all();
            (self.since, self.begun, self.crashed) = (Instant::now(), false, false);
            self.released = false;
            self.seen.started = Some(self.since);
            let fresh = self.fresh_slots(&pod);
            let slots = std::mem::replace(&mut self.seen.slots, fresh);
            self.keep_predecessor(slots);
            self.context.routes.add(&pod.uid, &self.myself);
            self.note_first_seen(&pod);
        }
        self.pod = Some((pod, view));
        self.note_running();
    }

    /// The start of a pod counts from the moment in which it was first seen.
    fn note_first_seen(&self, pod: &StaticPod) {
        let metrics = &self.context.metrics;
        let age = pod.seen().map(|seen| Timestamp::now().duration_since(seen));
        let age = age.and_then(|age| Duration::try_from(age).ok()).unwrap_or_default();
        metrics.worker_start.time(age);
        metrics.containers_per_pod.observe(f64::from(u32::try_from(pod.spec.containers.len()).unwrap_or(u32::MAX)));
        metrics.startups.begin(&pod.uid, self.since.checked_sub(age).unwrap_or(self.since));
    }

    /// Restart counts go on where containers that are gone have ended: by the logs they left, or as it is remembered.
    fn fresh_slots(&self, pod: &StaticPod) -> BTreeMap<String, Slot> {
        let names = pod.every_container().map(|container| container.name.as_str()).chain([container::SANDBOX]);
        let slots = names.map(|container| {
            let name = container::config::name(pod, container, 0);
            let logged =
                super::logs::last_attempt(&self.context.options, &name).map_or(0, |last| last.saturating_add(1));
            let next_attempt = logged.max(self.context.attempts.next(&pod.uid, container));
            (container.to_owned(), Slot { next_attempt, ..Slot::default() })
        });
        slots.collect()
    }

    /// Every UID but the wanted one is taken down, and stays so until it is gone.
    fn mark_terminating(&mut self) {
        let wanted = self.wanted_uid().map(str::to_owned);
        let unknown_containers = self.seen.instances.values().map(|one| one.uid().to_owned());
        let stays =
            |uid: &String| Some(uid) == wanted.as_ref() || self.kept.as_ref().is_some_and(|kept| kept.uid == *uid);
        let unknown_containers: Vec<String> = unknown_containers.filter(|uid| !stays(uid)).collect();
        let left = self.pod.as_ref().filter(|_| !self.wanted && !self.said_idle).map(|(pod, _)| pod.uid.clone());
        for uid in unknown_containers.into_iter().chain(left) {
            if self.seen.terminating.insert(uid.clone()) {
                info!(pod = %self.key, %uid, "stopping");
            }
        }
    }

    fn wanted_uid(&self) -> Option<&str> {
        self.pod.as_ref().filter(|_| self.wanted).map(|(pod, _)| pod.uid.as_str())
    }

    fn publish(&self, plan: &Plan) {
        if self.pod.is_none() && self.seen.instances.is_empty() || self.is_taken_away() || self.said_idle {
            return;
        }
        let pod = self.pod.as_ref().map(|(pod, view)| (pod.as_ref(), view));
        let facts = report::Facts { pod, wanted: self.wanted, ..self.facts(plan, &self.seen.slots) };
        let mut entry = self.entry(&facts);
        if let Some(old) = self.kept_predecessor() {
            let plan = Plan { initialized: true, ..Plan::default() };
            let kept =
                report::Facts { pod: Some((&old.pod, &old.view)), wanted: true, ..self.facts(&plan, &old.slots) };
            entry = report::beside(Entry { pod: Some(Arc::clone(&old.pod)), ..self.entry(&kept) }, entry.report);
        }
        self.context.board.set_pod(&self.key, entry);
    }

    fn entry(&self, facts: &report::Facts<'_>) -> Entry {
        let report = report::pod(facts);
        if report.phase == Phase::Running {
            self.context.metrics.startups.running(&report.uid);
        }
        let mut status = status::pod(facts, &report);
        self.context.devices.show(&report.uid, status.container_statuses.as_deref_mut().unwrap_or_default());
        let component = self.pod.as_ref().filter(|_| self.wanted).and_then(|(pod, _)| order::component(pod));
        let gate = Gate { healthy: report.healthy, crashed: self.crashed };
        let gate = component.map(|component| (component.to_owned(), gate));
        let pod = self.pod.as_ref().map(|(pod, _)| Arc::clone(pod));
        let succeeds = self.wanted_uid().is_some_and(|uid| self.seen.runs_other_than(uid));
        let predecessors = self.predecessor_statuses();
        Entry { report, gate, pod, status, looked: true, succeeds, predecessors }
    }

    /// What is reported of no pod yet.
    fn facts<'a>(&'a self, plan: &'a Plan, slots: &'a BTreeMap<String, Slot>) -> report::Facts<'a> {
        report::Facts {
            key: &self.key,
            pod: None,
            wanted: false,
            seen: &self.seen,
            slots,
            plan,
            log_tails: &self.log_tails,
            host_ip: self.context.facts.host_ip.as_deref(),
            recursive_read_only: self.features.is_some_and(|features| features.recursive_read_only),
            now: Timestamp::now(),
        }
    }

    /// The containers of a pod that is not wanted any more are gone: it stays shown as they ended, which is not known now.
    fn is_taken_away(&self) -> bool {
        let Some((pod, _)) = self.pod.as_ref().filter(|_| !self.wanted) else { return false };
        let mut left = self.seen.instances.values().filter(|one| !one.record.is_sandbox);
        let shown = |entry: &Entry| entry.report.uid == pod.uid && entry.report.terminating;
        left.all(|one| one.record.name.uid != pod.uid)
            && self.context.board.visit(|pods, _| pods.get(&self.key).is_some_and(shown))
    }

    fn report_idle(&mut self) {
        let left = !self.seen.instances.is_empty() || !self.seen.terminating.is_empty();
        if !self.wanted && !left && !self.said_idle {
            debug!(pod = %self.key, "gone");
            self.said_idle = true;
            self.pod = None;
            self.context.board.remove_pod(&self.key);
            let _ = self.ends.send(End::Idle(self.key.clone()));
        }
    }
}
