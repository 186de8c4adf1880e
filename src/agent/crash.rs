//! What becomes of a panic: it ends the work on the pod it happened in, never the agent.
//!
//! A kubelet does the same (`runtime.HandleCrash`, and a new attempt at the pod later). Three kinds of tasks have three
//! ways to go on:
//!
//! - a pod's worker ends, with everything that it had begun, and the supervisor starts another one after a back-off; a pod
//!   whose workers have crashed [`SET_ASIDE_AFTER`] times is left as it is ([`Crashes`]);
//! - a task that looks after many pods guards its work on each of them with [`caught`], and begins again where it crashes
//!   outside of that ([`restarted`]);
//! - a task without which the agent is none (its sources, the supervisor itself) ends the agent with an error, and the
//!   service manager starts it again.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use tracing::error;

use super::backoff::Steps;
use super::pod::PodKey;
use crate::host::clock::Instant;

/// How long to wait before what has crashed begins again.
const AGAIN: Steps = Steps { initial: Duration::from_secs(1), cap: Duration::from_secs(60) };
/// A pod whose workers have crashed so often is set aside.
pub const SET_ASIDE_AFTER: u32 = 3;
/// What has run this long since its last crash is not crashing again and again.
const FORGIVEN_AFTER: Duration = Duration::from_secs(600);

/// The words of a panic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("internal error, please report it: {0}")]
pub struct Crash(String);

impl Crash {
    fn of(payload: &(dyn Any + Send)) -> Self {
        let words = payload.downcast_ref::<&str>().map(|words| (*words).to_owned());
        let words = words.or_else(|| payload.downcast_ref::<String>().cloned());
        Self(words.unwrap_or_else(|| "no words".to_owned()))
    }
}

/// Runs a future to its end; a panic in it is an error.
///
/// # Errors
/// The words of the panic. What the future shared with others is as the panic left it: share only what is replaced
/// whole or read afresh.
pub async fn caught<T>(work: impl Future<Output = T>) -> Result<T, Crash> {
    AssertUnwindSafe(work).catch_unwind().await.map_err(|payload| Crash::of(&*payload))
}

/// The same for work that does not wait.
///
/// # Errors
/// As [`caught`].
pub fn caught_now<T>(work: impl FnOnce() -> T) -> Result<T, Crash> {
    std::panic::catch_unwind(AssertUnwindSafe(work)).map_err(|payload| Crash::of(&*payload))
}

/// Hands a panic of a task on to what waits for the task; every other end is none of its concern.
pub fn hand_on<T>(ended: Result<T, tokio::task::JoinError>) {
    if let Err(error) = ended
        && let Ok(panic) = error.try_into_panic()
    {
        std::panic::resume_unwind(panic);
    }
}

/// Runs the work that `begin` begins until it ends by itself; after a panic it is begun again, each time a little later.
pub async fn restarted<F: Future<Output = ()> + Send>(what: &str, mut begin: impl FnMut() -> F + Send) {
    let mut crashes = 0_u32;
    loop {
        let started = Instant::now();
        let Err(crash) = caught(begin()).await else { return };
        crashes = if started.elapsed() >= FORGIVEN_AFTER { 1 } else { crashes.saturating_add(1) };
        error!(what, crashes, error = %crash, "crashed; it begins again");
        tokio::time::sleep(AGAIN.after(crashes)).await;
    }
}

/// The crashes of a pod's workers.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Crashed {
    /// Of which pod: the UID that was wanted, None of one that was being stopped.
    uid: Option<String>,
    crash: Crash,
    times: u32,
    last: Instant,
}

/// What a pod may do after crashes of its workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It may have a worker.
    Fine,
    /// Not before this moment.
    Waits(Instant),
    /// Not until it is another pod.
    SetAside(Crash),
}

/// Which pods crash their workers.
#[derive(Debug, Default)]
pub struct Crashes(BTreeMap<PodKey, Crashed>);

impl Crashes {
    /// A worker has crashed. Returns how often in a row this pod's have by now.
    pub fn note(&mut self, key: &PodKey, uid: Option<&str>, crash: Crash, now: Instant) -> u32 {
        let before = self.0.get(key).filter(|one| one.uid.as_deref() == uid && now - one.last < FORGIVEN_AFTER);
        let times = before.map_or(1, |one| one.times.saturating_add(1));
        self.0.insert(key.clone(), Crashed { uid: uid.map(str::to_owned), crash, times, last: now });
        times
    }

    /// What the pod of this UID may do. Another pod of its name, or its end, begins from the beginning.
    pub fn standing(&self, key: &PodKey, uid: Option<&str>, now: Instant) -> Standing {
        match self.0.get(key).filter(|one| one.uid.as_deref() == uid) {
            Some(one) if one.times >= SET_ASIDE_AFTER => Standing::SetAside(one.crash.clone()),
            Some(one) if one.last + AGAIN.after(one.times) > now => Standing::Waits(one.last + AGAIN.after(one.times)),
            _ => Standing::Fine,
        }
    }

    /// Forgets the pods that are not there any more, or are others by now. Returns whether there were any.
    pub fn retain(&mut self, is_still: impl Fn(&PodKey, Option<&str>) -> bool) -> bool {
        let before = self.0.len();
        self.0.retain(|key, one| is_still(key, one.uid.as_deref()));
        self.0.len() != before
    }

    /// Pods that are set aside, with the words of the last crash.
    pub fn set_aside(&self) -> impl Iterator<Item = (&PodKey, &Crash)> {
        self.0.iter().filter(|(_, one)| one.times >= SET_ASIDE_AFTER).map(|(key, one)| (key, &one.crash))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn key() -> PodKey {
        PodKey { namespace: "default".into(), name: "a-n".into() }
    }

    #[tokio::test]
    async fn a_panic_is_an_error_with_its_words() {
        assert_eq!(caught(async { 7 }).await, Ok(7));
        let number = 3;
        let crash = caught(async { panic!("row {number}") }).await.map(|()| 7).unwrap_err();
        assert_eq!(crash.to_string(), "internal error, please report it: row 3");
        let plain = caught_now(|| panic!("plain")).map(|()| 7).unwrap_err();
        assert_eq!(plain.to_string(), "internal error, please report it: plain");
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_crashes_begins_again_each_time_a_little_later() {
        let (started, times) = (Instant::now(), AtomicU32::new(0));
        restarted("the test", || async {
            if times.fetch_add(1, Ordering::Relaxed) < 3 {
                panic!("not yet");
            }
        })
        .await;
        assert_eq!((times.load(Ordering::Relaxed), started.elapsed().as_secs()), (4, 1 + 2 + 4));
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_is_set_aside_after_three_crashes_until_it_is_another() {
        let (mut crashes, crash) = (Crashes::default(), Crash("x".into()));
        let now = Instant::now();
        assert_eq!(crashes.standing(&key(), Some("u"), now), Standing::Fine);
        assert_eq!(crashes.note(&key(), Some("u"), crash.clone(), now), 1);
        assert_eq!(crashes.standing(&key(), Some("u"), now), Standing::Waits(now + Duration::from_secs(1)));
        assert_eq!(crashes.standing(&key(), Some("u"), now + Duration::from_secs(1)), Standing::Fine);
        assert_eq!(crashes.note(&key(), Some("u"), crash.clone(), now), 2);
        assert_eq!(crashes.note(&key(), Some("u"), crash.clone(), now), 3);
        let late = now + Duration::from_secs(86400);
        assert_eq!(crashes.standing(&key(), Some("u"), late), Standing::SetAside(crash.clone()));
        assert_eq!(crashes.set_aside().count(), 1);
        for other in [Some("v"), None] {
            assert_eq!(crashes.standing(&key(), other, now), Standing::Fine, "{other:?}");
        }
        assert_eq!(crashes.note(&key(), None, crash.clone(), now), 1, "its end begins from the beginning");
        let later = now + FORGIVEN_AFTER;
        assert_eq!(crashes.note(&key(), None, crash, later), 1, "one crash in ten minutes is no row of them");
        assert!(!crashes.retain(|_, uid| uid.is_none()));
        assert!(crashes.retain(|_, uid| uid.is_some()));
        assert_eq!(crashes.standing(&key(), None, later), Standing::Fine);
    }
}
