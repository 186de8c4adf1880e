//! The tasks that ask: one for each probe of a container, by the probe's own rules, and one that asks eagerly.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;

use super::manager::{ProbedContainer, Wake};
use super::rules::{Health, Rules};
use super::{Action, Checker, Outcome, ProbeKind, ProbeSpec};

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
/// The pause after all of [`PACE`]: a component that has not come up in minutes is not worth the processor time.
const PACE_LAST: Duration = Duration::from_secs(1);

/// How long to wait before the next eager check, `age` after the first.
pub(super) fn pace(age: Duration, refused: bool) -> Duration {
    let row = PACE.iter().find(|(until, ..)| age < *until);
    row.map_or(PACE_LAST, |(_, when_refused, otherwise)| if refused { *when_refused } else { *otherwise })
}

/// A container instance under probing.
pub(super) struct Probed {
    uid: String,
    container: ProbedContainer,
    started_at: Instant,
    state: Mutex<State>,
    started: watch::Sender<bool>,
    wake: Wake,
}

struct State {
    rules: Rules,
    published: Health,
    published_at: Instant,
}

impl Probed {
    pub(super) fn new(uid: &str, container: ProbedContainer, now: Instant, wake: Wake) -> Self {
        let rules = Rules::new(container.id.clone(), Arc::clone(&container.probes));
        let age = Timestamp::now().duration_since(container.started_at);
        let age = Duration::try_from(age).unwrap_or_default();
        Self {
            uid: uid.to_owned(),
            started_at: now.checked_sub(age).unwrap_or(now),
            started: watch::Sender::new(rules.started()),
            state: Mutex::new(State { published: rules.health(), rules, published_at: now }),
            container,
            wake,
        }
    }

    /// Whether this is the same instance at the same address.
    pub(super) fn is(&self, other: &ProbedContainer) -> bool {
        let own = &self.container;
        (&own.name, &own.id, &own.ip) == (&other.name, &other.id, &other.ip)
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

    /// Changes the state and tells whoever has to know. Returns whether the container is still worth asking.
    fn update(&self, change: impl FnOnce(&mut Rules)) -> bool {
        let (wake, started, go_on) = {
            let mut state = self.lock();
            change(&mut state.rules);
            let now = state.rules.health();
            let words_only = Health { message: state.published.message.clone(), ..now.clone() } == state.published;
            let wake = now != state.published && (!words_only || state.published_at.elapsed() >= WORDS_EVERY);
            if wake {
                state.published = now;
                state.published_at = Instant::now();
            }
            (wake, state.rules.started(), !state.rules.condemned())
        };
        self.started.send_if_modified(|known| std::mem::replace(known, started) != started);
        if wake {
            (self.wake)(&self.uid);
        }
        go_on
    }

    async fn check(&self, checker: &dyn Checker, spec: &ProbeSpec, limit: Duration) -> Outcome {
        checker.check(&spec.target(&self.container.id, self.container.ip.as_deref()), limit).await
    }

    /// One probe, from the container's start to its end.
    async fn run(&self, kind: ProbeKind, spec: &ProbeSpec, checker: &dyn Checker) {
        if kind != ProbeKind::Startup && self.started.subscribe().wait_for(|started| *started).await.is_err() {
            return;
        }
        let first = (self.started_at + spec.initial_delay).max(Instant::now());
        let mut ticks = tokio::time::interval_at(first, spec.period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            if kind == ProbeKind::Startup && *self.started.borrow() {
                return;
            }
            let outcome = self.check_retrying(checker, spec).await;
            if !self.update(|rules| rules.record(kind, &outcome)) {
                return;
            }
        }
    }

    async fn check_retrying(&self, checker: &dyn Checker, spec: &ProbeSpec) -> Outcome {
        let mut outcome = self.check(checker, spec, spec.timeout).await;
        for _ in 1..TRIES {
            if !matches!(outcome, Outcome::Error { .. }) {
                break;
            }
            outcome = self.check(checker, spec, spec.timeout).await;
        }
        outcome
    }

    /// The eager checker: asks at once and often until there is nothing left to find out.
    async fn run_eager(&self, checker: &dyn Checker) {
        let begun = Instant::now();
        loop {
            let Some(kind) = self.lock().rules.wants_eager() else { return };
            let Some(spec) = self.spec(kind) else { return };
            let outcome = self.check(checker, spec, spec.timeout.min(EAGER_LIMIT)).await;
            if !self.update(|rules| rules.record_eager(kind, &outcome)) {
                return;
            }
            let mut pause = match outcome {
                Outcome::Success { .. } => continue,
                Outcome::Failure { refused, .. } => pace(begun.elapsed(), refused),
                Outcome::Error { .. } => PACE_LAST,
            };
            if matches!(spec.action, Action::Exec { .. }) {
                pause = pause.max(EXEC_PAUSE);
            }
            tokio::time::sleep(pause).await;
        }
    }
}

/// Starting the tasks.
pub(super) mod spawn {
    use std::sync::Arc;

    use tokio_util::sync::CancellationToken;

    use super::{Checker, ProbeKind, Probed};

    /// The task of one probe, if the container has it.
    pub(in super::super) fn probe(
        kind: ProbeKind,
        probed: &Arc<Probed>,
        checker: &Arc<dyn Checker>,
        until: CancellationToken,
    ) {
        let Some(spec) = probed.spec(kind).cloned() else { return };
        let (probed, checker) = (Arc::clone(probed), Arc::clone(checker));
        tokio::spawn(until.run_until_cancelled_owned(async move { probed.run(kind, &spec, &*checker).await }));
    }

    /// The task of the eager checker, if there is anything to find out.
    pub(in super::super) fn eager(probed: &Arc<Probed>, checker: &Arc<dyn Checker>, until: CancellationToken) {
        if probed.lock().rules.wants_eager().is_none() {
            return;
        }
        let (probed, checker) = (Arc::clone(probed), Arc::clone(checker));
        tokio::spawn(until.run_until_cancelled_owned(async move { probed.run_eager(&*checker).await }));
    }
}
