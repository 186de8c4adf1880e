//! How many events are sent: client-go's spam filter, which a kubelet's events go through.

use std::time::Duration;

use super::lru::Lru;
use crate::agent::events::{Event, Kind};
use crate::host::clock::Instant;

/// Events of one object and one type that may come at once, and how long it takes until one more may.
pub(super) const BURST: u32 = 25;
/// See [`BURST`].
pub(super) const REFILL: Duration = Duration::from_secs(300);

/// What is left to each object and type of event (Normal, Warning): a probe that fails for hours does not use up what its
/// pod's end is reported with.
#[derive(Debug, Default)]
pub(super) struct Budget(Lru<(String, bool), Bucket>);

impl Budget {
    /// Whether one more event of this object and type may be sent; it is counted as sent.
    pub fn take(&mut self, event: &Event, now: Instant) -> bool {
        self.0.retain(|bucket| !bucket.is_full(now));
        let key = (event.uid.clone(), event.kind == Kind::Warning);
        self.0.get_or_insert_with(key, || Bucket::new(now)).take(now)
    }
}

/// How many more events may be sent.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: u32,
    /// Since when the next one is waited for.
    since: Instant,
}

impl Bucket {
    fn new(now: Instant) -> Self {
        Self { left: BURST, since: now }
    }

    fn fill(&mut self, now: Instant) {
        while self.left < BURST && self.since + REFILL <= now {
            (self.left, self.since) = (self.left.saturating_add(1), self.since + REFILL);
        }
        if self.left == BURST {
            self.since = now;
        }
    }

    fn take(&mut self, now: Instant) -> bool {
        self.fill(now);
        let some = self.left > 0;
        self.left = self.left.saturating_sub(1);
        some
    }

    fn is_full(&self, now: Instant) -> bool {
        let mut copy = *self;
        copy.fill(now);
        copy.left == BURST
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::events::{Recorder, Subject};
    use crate::agent::pod::PodKey;

    #[tokio::test(start_paused = true)]
    async fn a_pod_may_tell_so_much_at_once_and_no_more_until_time_has_passed() {
        let mut bucket = Bucket::new(Instant::now());
        let taken = |bucket: &mut Bucket| (0..BURST + 5).filter(|_| bucket.take(Instant::now())).count();
        assert_eq!(taken(&mut bucket), BURST as usize);
        tokio::time::advance(REFILL * 2).await;
        assert!(!bucket.is_full(Instant::now()));
        assert_eq!(taken(&mut bucket), 2);
        tokio::time::advance(REFILL * BURST).await;
        assert!(bucket.is_full(Instant::now()));
    }

    #[test]
    fn each_type_of_event_of_each_object_has_a_budget_of_its_own() {
        let (recorder, key) = (Recorder::default(), PodKey { namespace: "default".into(), name: "p".into() });
        recorder.warning(Subject { pod: &key, uid: "a", container: None }, "Unhealthy", "");
        recorder.normal(Subject { pod: &key, uid: "a", container: None }, "Killing", "");
        recorder.warning(Subject { pod: &key, uid: "b", container: None }, "Unhealthy", "");
        let (events, now, mut budget) = (recorder.since(0), Instant::now(), Budget::default());
        let reported = |budget: &mut Budget, event| (0..BURST + 5).filter(|_| budget.take(event, now)).count();
        let all: Vec<_> = events.iter().map(|event| reported(&mut budget, event)).collect();
        assert_eq!(all, [BURST as usize; 3]);
    }
}
