//! A pod that is made before the one it replaces ends, so that between the two there is nothing but a stop and a start.
//!
//! The old one is what is reported as the pod until then. All of it follows from what runs: an agent that was started again
//! finds a container that was made and not started, and another one that runs in its place.

use super::plan::ahead::{self, Ahead};
use super::*;
use crate::agent::wording;

impl Worker {
    /// Whether the pod of this UID, wanted until now, may go on until the one of `view` is made. One that was itself being
    /// tried beside another may not.
    pub(super) fn may_go_on(&self, before: &str, view: &PodView) -> bool {
        view.ahead && self.surge.is_none() && !self.seen.abandoned.contains(before)
    }

    /// Keeps the pod that runs until the one that is wanted is made, or it takes too long. Returns when it does.
    pub(super) fn make_ahead(&mut self) -> Option<Instant> {
        let (_, view) = self.pod.as_ref().filter(|_| self.wanted)?;
        match ahead::ahead(view, &self.seen, &self.condemned(), self.since, Instant::now()) {
            Ahead::None => None,
            Ahead::Wait(old, until) => {
                self.seen.waits_to_be_made = true;
                self.kept = Some(Kept { uid: old, serves: true });
                Some(until)
            }
            Ahead::Made(old) => {
                info!(pod = %self.key, %old, new = %view.uid, "the new one is made and waits for the old one to end");
                None
            }
            Ahead::Late(why) => {
                warn!(pod = %self.key, new = %view.uid, why, "the new one is not made yet, and the old one is ended");
                self.tell_of(&view.uid, "NotMadeAhead", wording::NOT_MADE_AHEAD.with(&[&why]));
                None
            }
        }
    }
}
