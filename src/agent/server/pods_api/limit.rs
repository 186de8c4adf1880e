//! How many requests are answered: as many a second as by the kubelet, which asks the same of each client together.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::host::clock::Instant;

/// Requests that may come at once.
const BURST: u32 = 10;
/// How long it takes until one more may: 100 a second.
const REFILL: Duration = Duration::from_millis(10);

/// Lets requests through while there are not too many.
#[derive(Debug)]
pub struct Limiter(Mutex<Instant>);

impl Default for Limiter {
    fn default() -> Self {
        Self(Mutex::new(Instant::now()))
    }
}

impl Limiter {
    /// Whether one more may be answered; it is counted then. What is kept is the moment at which the whole burst would be
    /// there again: each request puts it off.
    pub fn allow(&self) -> bool {
        let now = Instant::now();
        let mut full = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let next = (*full).max(now) + REFILL;
        let allowed = next.duration_since(now) <= REFILL.saturating_mul(BURST);
        if allowed {
            *full = next;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn ten_come_at_once_and_then_a_hundred_a_second() {
        let limiter = Limiter::default();
        let all = |limiter: &Limiter| (0..50).filter(|_| limiter.allow()).count();
        assert_eq!((all(&limiter), all(&limiter)), (10, 0));
        tokio::time::advance(Duration::from_millis(35)).await;
        assert_eq!(all(&limiter), 3);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(all(&limiter), 10);
    }
}
