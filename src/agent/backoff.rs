//! How long to wait before trying again: the kubelet's numbers.

use std::time::Duration;

/// A delay that doubles from `initial` to `cap`, the first try being free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Steps {
    /// The second try comes this long after the first.
    pub initial: Duration,
    /// No delay is longer.
    pub cap: Duration,
}

/// A crashing container: 0, 10 s, 20 s, ... 300 s after its last exit (`MaxContainerBackOff`).
pub const CRASH: Steps = Steps { initial: Duration::from_secs(10), cap: Duration::from_secs(300) };
/// An image that cannot be pulled.
pub const PULL: Steps = Steps { initial: Duration::from_secs(10), cap: Duration::from_secs(300) };
/// A volume that is not as its type demands.
pub const MOUNT: Steps = Steps { initial: Duration::from_millis(500), cap: Duration::from_secs(122) };
/// A call that the runtime refused. The kubelet waits 10 s; what is cheap to ask is asked sooner at first.
pub const CALL: Steps = Steps { initial: Duration::from_secs(1), cap: Duration::from_secs(10) };

/// A container that has run this long is not crashing: its back-off begins again. Not changed by a lower cap.
pub const FORGIVEN_AFTER: Duration = Duration::from_secs(600);

/// `duration` and a random part of it besides, of `share` at the most: what many agents do often they do not all do at
/// once.
pub fn jittered(duration: Duration, share: f64) -> Duration {
    duration.mul_f64(1.0 + share * fraction())
}

/// A random number from 0 to 1.
pub fn fraction() -> f64 {
    let mut bytes = [0; 4];
    // Without random numbers the middle does.
    match aws_lc_rs::rand::fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_be_bytes(bytes)) / f64::from(u32::MAX),
        Err(_) => 0.5,
    }
}

impl Steps {
    /// The delay after `tries` tries in a row: none after none.
    pub fn after(self, tries: u32) -> Duration {
        match tries {
            0 => Duration::ZERO,
            n => self.initial.min(self.cap).saturating_mul(1 << n.saturating_sub(1).min(20)).min(self.cap),
        }
    }

    /// The same and up to as much again, as a kubelet waits for its API server (client-go's reflectors): the agents of many
    /// nodes, which have lost it at the same moment, do not come back at the same moment.
    pub fn spread(self, tries: u32) -> Duration {
        jittered(self.after(tries), 1.0)
    }

    /// The same steps with another cap; a lower one lowers the first step too.
    pub fn capped(self, cap: Duration) -> Self {
        Self { cap, initial: self.initial.min(cap) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_cap() {
        let seconds = |steps: Steps| (0..8).map(|n| steps.after(n).as_secs()).collect::<Vec<_>>();
        assert_eq!(seconds(CRASH), [0, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(seconds(CRASH.capped(Duration::from_secs(5))), [0, 5, 5, 5, 5, 5, 5, 5]);
        assert_eq!(CRASH.after(u32::MAX), CRASH.cap);
    }

    #[test]
    fn agents_come_back_spread_over_a_time_as_long_as_the_delay() {
        for tries in 0..8 {
            let (least, waits) = (CALL.after(tries), (0..1000).map(|_| CALL.spread(tries)).collect::<Vec<_>>());
            assert!(waits.iter().all(|wait| (least..=least * 2).contains(wait)), "{tries}: {waits:?}");
            // A quarter of 1000 agents in each quarter of the time, give or take seven times the deviation.
            for quarter in (0..4).filter(|_| tries > 0) {
                let (from, to) = (least + least / 4 * quarter, least + least / 4 * (quarter + 1));
                let many = waits.iter().filter(|wait| (from..to).contains(*wait)).count();
                assert!((150..=350).contains(&many), "{many} agents between {from:?} and {to:?}");
            }
        }
        assert!((0..1000).all(|_| (100..=104).contains(&jittered(Duration::from_millis(100), 0.04).as_millis())));
    }
}
