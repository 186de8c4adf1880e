//! The tasks that ask: one for each probe of a container, by the probe's own rules, and one that asks eagerly.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

use super::manager::{ProbedContainer, Shared};
use super::memory::Mark;
use super::rules::{Health, Rules};
use super::{Action, Outcome, ProbeKind, ProbeSpec};
use crate::agent::events::Subject;
use crate::agent::histogram::{self, Counts};
use crate::agent::pod::PodKey;
use crate::agent::wording;
use crate::host::clock::Instant;

/// How often a check that cannot be made is tried before it is dropped, as in the kubelet.
const TRIES: usize = 3;
/// No eager check waits longer: a server that is just starting may lose the one it was asked first.
const EAGER_LIMIT: Duration = Duration::from_secs(2);
/// A change of words alone wakes the pod's worker no more often than this.
const WORDS_EVERY: Duration = Duration::from_secs(1);
/// An eager exec starts a process, so it is not asked more often than this.
const EXEC_PAUSE: Duration = Duration::from_millis(100);

/// Pauses between eager checks by the age of the waiting: up to (refused, connected but not well).
const PACE: [(Duration, Duration, Duration); 4] = [
    (Duration::from_secs(2), Duration::from_millis(15), Duration::from_millis(50)),
    (Duration::from_secs(6), Duration::from_millis(25), Duration::from_millis(75)),
    (Duration::from_secs(12), Duration::from_millis(100), Duration::from_millis(150)),
    (Duration::from_secs(300), Duration::from_millis(250), Duration::from_millis(250)),
];
/// What has not answered for so long is asked no more often than its probe's own period.
const EAGER_FOR: Duration = Duration::from_secs(300);
/// The pause after all of [`PACE`]: a component that has not come up in minutes is not worth the processor time.
const PACE_LAST: Duration = Duration::from_secs(1);

/// How long to wait before the next eager check, `age` after the first.
pub(super) fn pace(age: Duration, refused: bool) -> Duration {
    let row = PACE.iter().find(|(until, ..)| age < *until);
    row.map_or(PACE_LAST, |(_, when_refused, otherwise)| if refused { *when_refused } else { *otherwise })
}

/// A container instance under probing.
pub(super) struct Probed {
    pod: PodKey,
    uid: String,
    container: ProbedContainer,
    started_at: Instant,
    /// Many were adopted at the same moment: each has its own place in the period, so that they do not go in step.
    herd: bool,
    state: Mutex<State>,
    started: watch::Sender<bool>,
    /// What its readiness probe says, to be remembered; held by who writes that down.
    writing: Arc<Mutex<()>>,
    is_ready: Arc<AtomicBool>,
    shared: Arc<Shared>,
    tally: Mutex<BTreeMap<(&'static str, &'static str), u64>>,
    times: Mutex<BTreeMap<&'static str, Counts>>,
}

struct State {
    rules: Rules,
    published: Health,
    published_at: Instant,
}

impl Probed {
    pub(super) fn new(pod: &PodKey, uid: &str, container: ProbedContainer, herd: bool, shared: Arc<Shared>) -> Self {
        let now = Instant::now();
        let mut rules = Rules::new(container.id.clone(), Arc::clone(&container.probes));
        let had = |mark| shared.memory.has(mark, uid, &container.name, &container.id);
        if !rules.started() && had(Mark::Started) {
            rules.start();
        }
        if container.probes.readiness.is_some() && had(Mark::Ready) {
            rules.stay_ready();
        }
        let age = Timestamp::now().duration_since(container.started_at);
        let age = Duration::try_from(age).unwrap_or_default();
        Self {
            pod: pod.clone(),
            uid: uid.to_owned(),
            started_at: now.checked_sub(age).unwrap_or(now),
            herd: herd && !age.is_zero(),
            started: watch::Sender::new(rules.started()),
            writing: Arc::default(),
            is_ready: Arc::new(AtomicBool::new(rules.health().ready)),
            state: Mutex::new(State { published: rules.health(), rules, published_at: now }),
            container,
            shared,
            tally: Mutex::default(),
            times: Mutex::default(),
        }
    }

    /// How often each probe was made and how that came out: kind, result and count.
    pub(super) fn tally(&self) -> Vec<(&'static str, &'static str, u64)> {
        let tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        tally.iter().map(|((kind, result), count)| (*kind, *result, *count)).collect()
    }

    /// Counts a probe, by the names the kubelet's metrics have.
    fn count(&self, kind: ProbeKind, outcome: &Outcome, took: Duration) {
        let result = match outcome {
            Outcome::Success { .. } => "successful",
            Outcome::Failure { .. } => "failed",
            Outcome::Error { .. } => "unknown",
        };
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        let count = tally.entry((kind.title(), result)).or_default();
        *count = count.saturating_add(1);
        if matches!(outcome, Outcome::Success { .. }) {
            let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
            times.entry(kind.title()).or_insert_with(|| Counts::new(histogram::DEFAULT)).add(took.as_secs_f64());
        }
    }

    /// How long each kind of probe took that came out well.
    pub(super) fn times(&self) -> BTreeMap<&'static str, Counts> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether this is the same instance at the same address.
    pub(super) fn is(&self, other: &ProbedContainer) -> bool {
        let own = &self.container;
        (&own.name, &own.id, &own.ip) == (&other.name, &other.id, &other.ip)
    }

    /// The runtime's id of the instance.
    pub(super) fn id(&self) -> &str {
        &self.container.id
    }

    pub(super) fn health(&self) -> Health {
        self.lock().rules.health()
    }

    fn spec(&self, kind: ProbeKind) -> Option<&ProbeSpec> {
        self.container.probes.get(kind)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and notifies those that depend on it. Returns whether no probe has condemned the container.
    fn update(&self, change: impl FnOnce(&mut Rules)) -> bool {
        let (wake, started, ready, go_on) = {
            let mut state = self.lock();
            change(&mut state.rules);
            let now = state.rules.health();
            let words_only = Health { message: state.published.message.clone(), ..now.clone() } == state.published;
            let ready = now.ready;
            let wake = now != state.published && (!words_only || state.published_at.elapsed() >= WORDS_EVERY);
            if wake {
                state.published = now;
                state.published_at = Instant::now();
            }
            (wake, state.rules.started(), ready, !state.rules.condemned())
        };
        if self.started.send_if_modified(|known| std::mem::replace(known, started) != started) {
            self.remember(Mark::Started);
        }
        if self.container.probes.readiness.is_some() && self.is_ready.swap(ready, Ordering::SeqCst) != ready {
            self.remember(Mark::Ready);
        }
        if wake {
            (self.shared.wake)(&self.uid);
        }
        go_on
    }

    /// Writes down that the container has started, or whether it is ready.
    fn remember(&self, mark: Mark) {
        let (memory, uid) = (self.shared.memory.clone(), self.uid.clone());
        let (name, id) = (self.container.name.clone(), self.container.id.clone());
        let (turn, is_ready) = (Arc::clone(&self.writing), Arc::clone(&self.is_ready));
        tokio::task::spawn_blocking(move || {
            // The last writer writes the state of that moment.
            let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
            let holds = mark != Mark::Ready || is_ready.load(Ordering::SeqCst);
            memory.note(mark, &uid, &name, holds.then_some(id.as_str()));
        });
    }

    async fn check(&self, spec: &ProbeSpec, limit: Duration) -> Outcome {
        let target = spec.target(&self.container.id, self.container.ip.as_deref());
        match &self.container.route {
            Some(route) => self.shared.checker.check_by(route, &target, limit).await,
            None => self.shared.checker.check(&target, limit).await,
        }
    }

    /// The kubelet's events of a check that was due.
    fn note_event(&self, kind: ProbeKind, outcome: &Outcome) {
        let (reason, message) = match outcome {
            Outcome::Success { warning: None } => return,
            Outcome::Success { warning: Some(text) } => {
                ("ProbeWarning", wording::PROBE_WARNING.with(&[&kind.title(), text]))
            }
            Outcome::Failure { message, .. } => ("Unhealthy", wording::PROBE_FAILED.with(&[&kind.title(), message])),
            Outcome::Error { message } => {
                ("Unhealthy", wording::PROBE_ERRORED.with(&[&kind.title(), &"unknown", message]))
            }
        };
        let subject = Subject { pod: &self.pod, uid: &self.uid, container: Some(&self.container.name) };
        self.shared.events.warning(subject, reason, message);
    }

    /// When a probe is first due, which may have been long ago.
    fn due(&self, spec: &ProbeSpec) -> Instant {
        self.started_at + spec.initial_delay
    }

    /// One probe, from the container's start to its end.
    async fn run(&self, kind: ProbeKind, spec: &ProbeSpec) {
        if kind != ProbeKind::Startup && self.started.subscribe().wait_for(|started| *started).await.is_err() {
            return;
        }
        let first = self.due(spec).max(Instant::now());
        let offset = if self.herd { spec.period.mul_f64(place(&self.container.id, kind)) } else { Duration::ZERO };
        let mut ticks = crate::host::clock::interval_at(first + offset, spec.period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            if kind == ProbeKind::Startup && *self.started.borrow() {
                return;
            }
            let begun = Instant::now();
            let outcome = self.check_retrying(spec).await;
            self.count(kind, &outcome, begun.elapsed());
            self.note_event(kind, &outcome);
            // A condemned container may still say that it is not ready, until it has stopped.
            if !self.update(|rules| rules.record(kind, &outcome)) && kind != ProbeKind::Readiness {
                return;
            }
        }
    }

    async fn check_retrying(&self, spec: &ProbeSpec) -> Outcome {
        let mut outcome = self.check(spec, spec.timeout).await;
        for _ in 1..TRIES {
            if !matches!(outcome, Outcome::Error { .. }) {
                break;
            }
            outcome = self.check(spec, spec.timeout).await;
        }
        outcome
    }

    /// The eager checker: asks at once and often until there is nothing left to find out.
    async fn run_eager(&self) {
        let begun = Instant::now();
        loop {
            let Some(kind) = self.lock().rules.wants_eager() else { return };
            let Some(spec) = self.spec(kind) else { return };
            let is_exec = matches!(spec.action, Action::Exec { .. });
            let turn = match is_exec {
                true => self.shared.eager_commands.acquire().await.ok(),
                false => None,
            };
            let outcome = self.check(spec, spec.timeout.min(EAGER_LIMIT)).await;
            drop(turn);
            // In a herd this check stands for the first one that was due, which the others' come before.
            let counts = self.herd && self.due(spec) <= begun && matches!(outcome, Outcome::Success { .. });
            let reported = self.update(|rules| {
                rules.record_eager(kind, &outcome);
                if counts && rules.started() {
                    rules.record(kind, &outcome);
                }
            });
            if !reported {
                return;
            }
            let mut pause = match outcome {
                Outcome::Success { .. } => continue,
                Outcome::Failure { refused, .. } => pace(begun.elapsed(), refused),
                Outcome::Error { .. } => PACE_LAST,
            };
            if is_exec {
                pause = pause.max(EXEC_PAUSE);
            }
            if begun.elapsed() >= EAGER_FOR {
                pause = pause.max(spec.period);
            }
            tokio::time::sleep(pause).await;
        }
    }
}

/// Where in its period a probe has its place, from 0 to 1: always the same for the same instance.
pub(super) fn place(id: &str, kind: ProbeKind) -> f64 {
    let mut hasher = DefaultHasher::new();
    (id, kind).hash(&mut hasher);
    f64::from(u16::try_from(hasher.finish() % 1000).unwrap_or_default()) / 1000.0
}

/// Starting the tasks.
pub(super) mod spawn {
    use std::sync::Arc;

    use tokio_util::sync::CancellationToken;

    use super::{ProbeKind, Probed};
    use crate::agent::crash;

    /// The task of one probe, if the container has it.
    pub(in super::super) fn probe(kind: ProbeKind, probed: &Arc<Probed>, until: CancellationToken) {
        let Some(spec) = probed.spec(kind).cloned() else { return };
        let probed = Arc::clone(probed);
        tokio::spawn(until.run_until_cancelled_owned(async move {
            crash::restarted(kind.title(), || probed.run(kind, &spec)).await;
        }));
    }

    /// The task of the eager checker, if there is anything to find out.
    pub(in super::super) fn eager(probed: &Arc<Probed>, until: CancellationToken) {
        if probed.lock().rules.wants_eager().is_none() {
            return;
        }
        let probed = Arc::clone(probed);
        tokio::spawn(until.run_until_cancelled_owned(async move {
            crash::restarted("eager check", || probed.run_eager()).await;
        }));
    }
}
