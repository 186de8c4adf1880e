//! What the agent counts of itself, for `/metrics` and `/healthz/syncloop`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use super::histogram::{
    CONTAINERS, Counters, DEFAULT, Histogram, Histograms, IMAGE_PULL, ROTATION, STATUS_SYNC, STORAGE,
};
use super::startups::Startups;
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

/// What is counted since the agent started. Labels are in the order of the kubelet's metric of that name.
#[derive(Debug)]
pub struct Metrics {
    /// Containers that were started, by their type.
    pub started_containers: Counters<1>,
    /// Starts of containers that failed, by type and reason.
    pub failed_containers: Counters<2>,
    /// Sandboxes that were started.
    pub started_sandboxes: Counter,
    /// Sandboxes that could not be.
    pub failed_sandboxes: Counter,
    /// How long it takes to make a sandbox, by the handler of its runtime class.
    pub sandboxes: Histograms<1>,
    /// Static pods that began from the beginning under the UID they had before: a manifest that was put back.
    pub restarted_static_pods: Counter,
    /// Bound pods that did.
    pub restarted_bound_pods: Counter,
    /// Events of pods that a client of the pods API was too slow for.
    pub dropped_pod_events: Counter,
    /// Pods that were found in the runtime and that were not wanted.
    pub orphans: Counter,
    /// Pods that were refused, by the reason.
    pub refused_pods: Counters<1>,
    /// How long a worker takes from what woke it until it waits again, by what it was about.
    pub worker: Histograms<1>,
    /// How long a pod waits for its worker.
    pub worker_start: Histogram,
    /// How many containers a pod has that a worker begins with.
    pub containers_per_pod: Histogram,
    /// Starts of pods.
    pub startups: Startups,
    /// Pulls, by the size of the image.
    pub pulls: Histograms<1>,
    /// How long it takes to list all containers.
    pub relist: Histogram,
    /// How long it is from one list to the next.
    pub relist_interval: Histogram,
    /// What is done with volumes, by plugin, operation, result and whether it is of an in-tree plugin that was replaced.
    pub storage: Histograms<4>,
    /// How long the API server is behind with the status of a pod that it gave the node.
    pub status_sync: Histogram,
    /// Renewals of the client certificate that failed,
    pub client_certificate_errors: Counter,
    /// and of the serving one.
    pub server_certificate_errors: Counter,
    /// How long the serving certificate before was used.
    pub server_rotation: Histogram,
    relisted: Mutex<Option<(Instant, Timestamp)>>,
    turned: Mutex<Instant>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            started_containers: Counters::default(),
            failed_containers: Counters::default(),
            started_sandboxes: Counter::default(),
            failed_sandboxes: Counter::default(),
            sandboxes: Histograms::new(DEFAULT),
            restarted_static_pods: Counter::default(),
            restarted_bound_pods: Counter::default(),
            dropped_pod_events: Counter::default(),
            orphans: Counter::default(),
            refused_pods: Counters::default(),
            worker: Histograms::new(DEFAULT),
            worker_start: Histogram::new(DEFAULT),
            containers_per_pod: Histogram::new(CONTAINERS),
            startups: Startups::default(),
            pulls: Histograms::new(IMAGE_PULL),
            relist: Histogram::new(DEFAULT),
            relist_interval: Histogram::new(DEFAULT),
            storage: Histograms::new(STORAGE),
            status_sync: Histogram::new(STATUS_SYNC),
            client_certificate_errors: Counter::default(),
            server_certificate_errors: Counter::default(),
            server_rotation: Histogram::new(ROTATION),
            relisted: Mutex::default(),
            turned: Mutex::new(Instant::now()),
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

    /// All containers were listed, which began at `begun`.
    pub fn relisted(&self, started: Instant) {
        self.relist.time(started.elapsed());
        let mut last = self.relisted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((before, _)) = last.replace((started, Timestamp::now())) {
            self.relist_interval.time(started.duration_since(before));
        }
    }

    /// When they were listed last.
    pub fn last_list(&self) -> Option<Timestamp> {
        self.relisted.lock().unwrap_or_else(PoisonError::into_inner).map(|(_, at)| at)
    }
}

/// A size of an image as the kubelet's metric of pulls has it.
pub fn image_size(bytes: u64) -> &'static str {
    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;
    const SIZES: [(u64, &str); 11] = [
        (10 * MIB, "0-10MB"),
        (100 * MIB, "10MB-100MB"),
        (500 * MIB, "100MB-500MB"),
        (GIB, "500MB-1GB"),
        (5 * GIB, "1GB-5GB"),
        (10 * GIB, "5GB-10GB"),
        (20 * GIB, "10GB-20GB"),
        (30 * GIB, "20GB-30GB"),
        (40 * GIB, "30GB-40GB"),
        (60 * GIB, "40GB-60GB"),
        (100 * GIB, "60GB-100GB"),
    ];
    SIZES.iter().find(|(below, _)| bytes < *below).map_or("GT100GB", |(_, label)| label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn lists_are_timed_and_so_is_what_is_between_them() {
        let metrics = Metrics::default();
        assert!(metrics.last_list().is_none());
        for _ in 0..2 {
            let started = Instant::now();
            tokio::time::advance(Duration::from_secs(2)).await;
            metrics.relisted(started);
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!((metrics.relist.get().count, metrics.relist.get().sum), (2, 4.0));
        assert_eq!((metrics.relist_interval.get().count, metrics.relist_interval.get().sum), (1, 3.0));
        assert!(metrics.last_list().is_some());
    }

    #[test]
    fn images_are_told_apart_by_the_kubelets_sizes() {
        let sizes = [0, 10 << 20, (1 << 30) - 1, 1 << 40].map(image_size);
        assert_eq!(sizes, ["0-10MB", "10MB-100MB", "500MB-1GB", "GT100GB"]);
    }
}
