//! What the agent counts of itself, for `/metrics` and `/healthz/syncloop`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::host::clock::Instant;

/// Something that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Once more.
    pub fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How often so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What is counted since the agent started.
#[derive(Debug)]
pub struct Metrics {
    /// Containers that were started.
    pub started_containers: Counter,
    /// Sandboxes that were started.
    pub started_sandboxes: Counter,
    /// Starts of either that failed.
    pub failed_starts: Counter,
    /// Static pods that began from the beginning under the UID they had before: a manifest that was put back.
    pub restarted_static_pods: Counter,
    /// Bound pods that did.
    pub restarted_bound_pods: Counter,
    /// Events of pods that a client of the pods API was too slow for.
    pub dropped_pod_events: Counter,
    /// Pods that were found in the runtime and that nobody wanted.
    pub orphans: Counter,
    turned: Mutex<Instant>,
}

impl Default for Metrics {
    fn default() -> Self {
        let (started_containers, started_sandboxes, failed_starts) = Default::default();
        let (restarted_static_pods, restarted_bound_pods, dropped_pod_events, orphans) = Default::default();
        let turned = Mutex::new(Instant::now());
        Self {
            started_containers,
            started_sandboxes,
            failed_starts,
            restarted_static_pods,
            restarted_bound_pods,
            dropped_pod_events,
            orphans,
            turned,
        }
    }
}

impl Metrics {
    /// What counts pods that began again, of bound ones or of static ones.
    pub fn restarted(&self, bound: bool) -> &Counter {
        if bound { &self.restarted_bound_pods } else { &self.restarted_static_pods }
    }

    /// The supervisor's loop has turned once more.
    pub fn turn(&self) {
        *self.turned.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// How long ago it turned last.
    pub fn since_turn(&self) -> Duration {
        self.turned.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}
