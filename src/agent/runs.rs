//! Runs of containers that have ended and may have left something that has to be put right before the next one starts: the
//! lease of a leader. Workers report them here, and wait a moment; whatever reads them says when it is done.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

use super::pod::PodKey;
use super::pod::election::Election;
use crate::host::clock::{Instant, timeout_at};

/// No start is held back for longer.
pub const LONGEST_HOLD: Duration = Duration::from_secs(1);

/// A run of a container that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Its pod.
    pub pod: PodKey,
    /// The UID of that.
    pub uid: String,
    /// The container.
    pub container: String,
    /// The election that it took part in.
    pub election: Election,
    /// The host name that its processes saw.
    pub host: String,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
}

/// A run that is not done with.
#[derive(Debug, Clone)]
struct Open {
    run: Run,
    /// The next start of its pod waits for it until then.
    holds: Option<Instant>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    open: BTreeMap<u64, Open>,
}

/// The runs that are not done with. Cheap to share; made once an agent.
#[derive(Debug)]
pub struct Runs(watch::Sender<State>);

impl Default for Runs {
    fn default() -> Self {
        Self(watch::Sender::new(State::default()))
    }
}

impl Runs {
    /// A run has ended. The next start of its pod is held back until it is done with, or no longer waited for.
    pub fn report(&self, run: Run) {
        let holds = Some(Instant::now() + LONGEST_HOLD);
        self.0.send_modify(|state| {
            state.open.insert(state.next, Open { run, holds });
            state.next = state.next.saturating_add(1);
        });
    }

    /// Every run that is not done with, by number.
    pub fn open(&self) -> BTreeMap<u64, Run> {
        self.0.borrow().open.iter().map(|(number, open)| (*number, open.run.clone())).collect()
    }

    /// Waits for another one than those of [`Runs::open`] that end with `last`.
    pub async fn later_than(&self, last: Option<u64>) {
        let later = |state: &State| state.open.keys().next_back().copied() > last;
        // Its sender is here: it does not end.
        let _ = self.0.subscribe().wait_for(later).await;
    }

    /// No start waits for it any longer.
    pub fn let_go(&self, number: u64) {
        self.0.send_if_modified(|state| state.open.get_mut(&number).is_some_and(|open| open.holds.take().is_some()));
    }

    /// It is done with.
    pub fn done(&self, number: u64) {
        self.0.send_if_modified(|state| state.open.remove(&number).is_some());
    }

    /// Waits until no run of a pod holds back its next start.
    pub async fn clear(&self, pod: &PodKey) {
        let held = |state: &State| {
            let of_pod = state.open.values().filter(|open| open.run.pod == *pod);
            of_pod.filter_map(|open| open.holds).max().filter(|until| *until > Instant::now())
        };
        let mut states = self.0.subscribe();
        loop {
            let until = held(&states.borrow_and_update());
            let Some(until) = until else { return };
            let _ = timeout_at(until, states.changed()).await;
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A run of `kube-system/NAME` from one second to another.
    pub fn run(name: &str, from: i64, to: i64) -> Run {
        let at = |second| Timestamp::from_second(second).unwrap();
        Run {
            pod: PodKey { namespace: "kube-system".into(), name: name.into() },
            uid: "u".into(),
            container: "c".into(),
            election: Election { kubeconfig: "/none".into(), namespace: "kube-system".into(), lease: name.into() },
            host: "cp1".into(),
            started: at(from),
            ended: at(to),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_start_waits_for_the_runs_of_its_pod_until_they_are_done_or_let_go_and_never_long() {
        let runs = Runs::default();
        let (one, other) = (run("a", 1, 2), run("b", 1, 2));
        let waited = async |pod: &PodKey| {
            let from = Instant::now();
            runs.clear(pod).await;
            from.elapsed()
        };
        assert_eq!(waited(&one.pod).await, Duration::ZERO);
        for end in [Runs::done, Runs::let_go] {
            runs.report(one.clone());
            runs.report(one.clone());
            assert_eq!(waited(&other.pod).await, Duration::ZERO);
            let numbers: Vec<u64> = runs.open().into_keys().collect();
            let ends = async {
                for number in numbers.iter().rev().take(2) {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    end(&runs, *number);
                }
            };
            let (waited, ()) = tokio::join!(waited(&one.pod), ends);
            assert_eq!(waited.as_millis(), 200);
        }
        assert_eq!(runs.open().len(), 2, "what is let go is not done with");
        runs.report(one.clone());
        assert_eq!(waited(&one.pod).await.as_secs(), LONGEST_HOLD.as_secs());
        assert_eq!(waited(&one.pod).await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn who_reads_them_is_woken_by_new_ones_alone() {
        let runs = Runs::default();
        let late = || Instant::now() + Duration::from_secs(60);
        assert!(timeout_at(late(), runs.later_than(None)).await.is_err());
        runs.report(run("a", 1, 2));
        runs.later_than(None).await;
        assert!(timeout_at(late(), runs.later_than(Some(0))).await.is_err());
        runs.done(0);
        let (_, ()) = tokio::join!(runs.later_than(Some(0)), async { runs.report(run("a", 1, 2)) });
        assert_eq!(runs.open().into_keys().collect::<Vec<_>>(), [1]);
    }
}
