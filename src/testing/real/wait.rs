//! Waiting for what nothing tells of. Where something does (the agent's reports, a runtime's events, a pipe) that is waited
//! for instead: see [`super::reports`].

use std::fmt::Display;
use std::time::{Duration, Instant};

/// The pause between two looks.
pub const POLL: Duration = Duration::from_millis(50);
/// Longer than anything takes on a busy machine, grace periods aside.
pub const LIMIT: Duration = Duration::from_secs(60);

/// What a look shows: `true`, `Some` or `Ok` where it is what is waited for. An error says what is there instead.
pub trait Look {
    /// What is found.
    type Found;

    /// It, or what is there instead.
    ///
    /// # Errors
    /// What is there instead.
    fn found(self) -> Result<Self::Found, String>;
}

impl Look for bool {
    type Found = ();

    fn found(self) -> Result<(), String> {
        self.then_some(()).ok_or_else(|| "it is not so".to_owned())
    }
}

impl<T> Look for Option<T> {
    type Found = T;

    fn found(self) -> Result<T, String> {
        self.ok_or_else(|| "nothing".to_owned())
    }
}

impl<T, E: Display> Look for Result<T, E> {
    type Found = T;

    fn found(self) -> Result<T, String> {
        self.map_err(|error| error.to_string())
    }
}

fn late(what: &str, limit: Duration, last: &str) -> String {
    format!("{what}: not within {} s; last seen: {last}", limit.as_secs_f32())
}

/// Looks until there is what is waited for, and returns it.
///
/// # Panics
/// It is not there within `limit`; says what was waited for, and what was seen last.
#[track_caller]
pub fn until<L: Look>(what: &str, limit: Duration, look: impl FnMut() -> L) -> L::Found {
    until_or(what, limit, look, String::new)
}

/// The same with more to say where it does not come.
///
/// # Panics
/// As [`until`] does, with what `explain` says.
#[track_caller]
pub fn until_or<L: Look>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> L,
    explain: impl FnOnce() -> String,
) -> L::Found {
    let started = Instant::now();
    loop {
        match look().found() {
            Ok(found) => return found,
            Err(last) if started.elapsed() > limit => panic!("{}\n{}", late(what, limit, &last), explain()),
            Err(_) => std::thread::sleep(POLL),
        }
    }
}

/// [`until`] for a look that is waited for itself.
///
/// # Panics
/// As [`until`] does.
pub async fn eventually<L: Look, F: Future<Output = L>>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> F,
) -> L::Found {
    let mut last = "nothing yet".to_owned();
    let wait = async {
        loop {
            match look().await.found() {
                Ok(found) => return found,
                Err(state) => last = state,
            }
            tokio::time::sleep(POLL).await;
        }
    };
    match tokio::time::timeout(limit, wait).await {
        Ok(found) => found,
        Err(_) => panic!("{}", late(what, limit, &last)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_is_returned_and_what_does_not_is_told_with_what_was_seen_last() {
        let mut looks = 0;
        let third = until("the third look", LIMIT, || {
            looks += 1;
            (looks == 3).then_some("there")
        });
        assert_eq!((third, looks), ("there", 3));
        let late = std::panic::catch_unwind(|| {
            until_or("tea", Duration::ZERO, || Err::<(), _>("coffee"), || "the kettle is cold".to_owned())
        });
        let said = *late.unwrap_err().downcast::<String>().unwrap();
        assert_eq!(said, "tea: not within 0 s; last seen: coffee\nthe kettle is cold");
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_that_hangs_is_late_as_well() {
        let mut looks = 0;
        eventually("the second look", LIMIT, || {
            looks += 1;
            std::future::ready(looks == 2)
        })
        .await;
        let hangs = tokio::spawn(eventually("tea", LIMIT, std::future::pending::<bool>));
        let said = *hangs.await.unwrap_err().into_panic().downcast::<String>().unwrap();
        assert_eq!(said, "tea: not within 60 s; last seen: nothing yet");
    }
}
