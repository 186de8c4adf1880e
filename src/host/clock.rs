//! Moments and spans of time that cannot overflow.
//!
//! `Instant + Duration` of the standard library and of tokio panics when the result does not fit, and a manifest may ask
//! for a grace period of 292 billion years. [`Instant`] saturates instead, so that no arithmetic on it can end a process;
//! `clippy.toml` forbids the other two where manifests are run. [`seconds`] is the way in for a number of seconds that
//! comes from outside.

use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Interval, Sleep, Timeout};

/// What is later than this is never: 68 years, as many seconds as every runtime's API can be given (`int32`).
pub const NEVER: Duration = Duration::from_secs(i32::MAX as u64);

/// A number of seconds from outside: none below zero, and none above [`NEVER`].
pub fn seconds(number: i64) -> Duration {
    u64::try_from(number).map_or(Duration::ZERO, Duration::from_secs).min(NEVER)
}

/// A span in whole seconds, as runtimes count: never less than it is, and [`NEVER`] at the most.
pub fn whole_seconds(span: Duration) -> i32 {
    let seconds = span.as_secs().saturating_add(u64::from(span.subsec_nanos() > 0));
    i32::try_from(seconds).unwrap_or(i32::MAX)
}

/// A moment of the monotonic clock (tokio's, which tests can pause). All its arithmetic saturates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(tokio::time::Instant);

impl Instant {
    /// Now.
    pub fn now() -> Self {
        Self(tokio::time::Instant::now())
    }

    /// How long ago it was; zero for one that is to come.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    /// How long after `earlier` it is; zero where it is not.
    pub fn duration_since(&self, earlier: Self) -> Duration {
        self.0.saturating_duration_since(earlier.0)
    }

    /// The moment so long before; None where the clock had not begun.
    pub fn checked_sub(&self, before: Duration) -> Option<Self> {
        self.0.checked_sub(before).map(Self)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    /// So long after; [`NEVER`] at the most, and the moment itself where even that does not fit.
    fn add(self, after: Duration) -> Self {
        self.0.checked_add(after.min(NEVER)).map_or(self, Self)
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, after: Duration) {
        *self = *self + after;
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.duration_since(earlier)
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;

    /// So long before; the moment itself where the clock had not begun.
    fn sub(self, before: Duration) -> Self {
        self.checked_sub(before).unwrap_or(self)
    }
}

impl SubAssign<Duration> for Instant {
    fn sub_assign(&mut self, before: Duration) {
        *self = *self - before;
    }
}

/// Sleeps until a moment.
pub fn sleep_until(moment: Instant) -> Sleep {
    tokio::time::sleep_until(moment.0)
}

/// Lets a sleep end at another moment.
pub fn reset(sleep: Pin<&mut Sleep>, moment: Instant) {
    sleep.reset(moment.0);
}

/// Waits for a future, until a moment at the latest.
pub fn timeout_at<F: IntoFuture>(moment: Instant, future: F) -> Timeout<F::IntoFuture> {
    tokio::time::timeout_at(moment.0, future)
}

/// Ticks from a moment on. A period below a millisecond is one: no clock ticks faster, and none at all would panic.
pub fn interval_at(first: Instant, period: Duration) -> Interval {
    tokio::time::interval_at(first.0, period.max(Duration::from_millis(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_span_is_too_long_for_a_moment() {
        let now = Instant::now();
        for span in [NEVER, Duration::from_secs(i64::MAX.unsigned_abs()), Duration::MAX] {
            let later = now + span;
            assert_eq!(later - now, NEVER, "{span:?}");
            let mut again = later;
            (0..1000).for_each(|_| again += span);
            assert!(again >= later);
        }
        assert_eq!(now - (now + Duration::from_secs(1)), Duration::ZERO, "a moment to come is not long ago");
        assert_eq!((now + Duration::MAX).elapsed(), Duration::ZERO);
    }

    #[test]
    fn seconds_from_outside_are_at_least_none_and_at_most_sixty_eight_years() {
        let all = [i64::MIN, -1, 0, 30, i64::from(i32::MAX), i64::MAX].map(|number| seconds(number).as_secs());
        assert_eq!(all, [0, 0, 0, 30, NEVER.as_secs(), NEVER.as_secs()]);
    }

    #[test]
    fn whole_seconds_are_never_fewer() {
        let all = [0, 1, 999, 1000, 1001].map(|millis| whole_seconds(Duration::from_millis(millis)));
        assert_eq!(all, [0, 1, 1, 1, 2]);
        assert_eq!(whole_seconds(Duration::MAX), i32::MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn what_never_comes_is_waited_for_without_a_panic() {
        let never = Instant::now() + Duration::MAX;
        let until = Instant::now() + Duration::from_secs(5);
        assert!(timeout_at(until, sleep_until(never)).await.is_err());
        let mut ticks = interval_at(never, Duration::ZERO);
        assert!(timeout_at(until + Duration::from_secs(5), ticks.tick()).await.is_err());
    }
}
