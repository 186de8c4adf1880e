//! Restart counts of pods that are gone, for a while: the same pod may come back, and then goes on counting.
//!
//! The kubelet finds them in what it has not cleared away yet of such a pod. Here a pod that is gone leaves nothing, so they
//! are remembered; only in memory, for an agent that was restarted meanwhile has not seen it go.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::host::clock::Instant;

/// How long they are remembered.
const KEPT: Duration = Duration::from_secs(600);

/// Restart counts by pod UID and container name.
#[derive(Default)]
pub struct Attempts(Mutex<HashMap<String, Pod>>);

struct Pod {
    noted: Instant,
    next: BTreeMap<String, u32>,
}

impl Attempts {
    /// The next instance of this container, if there is one, is at least the `next`-th after the first.
    pub fn note(&self, uid: &str, container: &str, next: u32) {
        let (mut pods, now) = (self.lock(), Instant::now());
        pods.retain(|_, pod| now - pod.noted < KEPT);
        let pod = pods.entry(uid.to_owned()).or_insert_with(|| Pod { noted: now, next: BTreeMap::new() });
        pod.noted = now;
        let count = pod.next.entry(container.to_owned()).or_default();
        *count = next.max(*count);
    }

    /// The restart count that the next instance of this container has at least.
    pub fn next(&self, uid: &str, container: &str) -> u32 {
        let pods = self.lock();
        let pod = pods.get(uid).filter(|pod| pod.noted.elapsed() < KEPT);
        pod.and_then(|pod| pod.next.get(container)).copied().unwrap_or(0)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Pod>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_highest_count_is_remembered_for_ten_minutes() {
        let attempts = Attempts::default();
        attempts.note("u", "c", 3);
        attempts.note("u", "c", 2);
        attempts.note("u", "d", 1);
        assert_eq!((attempts.next("u", "c"), attempts.next("u", "d"), attempts.next("other", "c")), (3, 1, 0));
        tokio::time::advance(KEPT).await;
        assert_eq!(attempts.next("u", "c"), 0);
        attempts.note("other", "c", 1);
        assert_eq!(attempts.lock().len(), 1);
    }
}
