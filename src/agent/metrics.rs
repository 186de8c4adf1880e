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
    /// Pods that began from the beginning under the UID they had before.
    pub restarted_pods: Counter,
    /// Pods that were found in the runtime and that nobody wanted.
    pub orphans: Counter,
    turned: Mutex<Instant>,
}

impl Default for Metrics {
    fn default() -> Self {
        let (started_containers, started_sandboxes, failed_starts) = Default::default();
        let (restarted_pods, orphans) = Default::default();
        let turned = Mutex::new(Instant::now());
        Self { started_containers, started_sandboxes, failed_starts, restarted_pods, orphans, turned }
    }
}

impl Metrics {
    /// The supervisor's loop has turned once more.
    pub fn turn(&self) {
        *self.turned.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// How long ago it turned last.
    pub fn since_turn(&self) -> Duration {
        self.turned.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}
