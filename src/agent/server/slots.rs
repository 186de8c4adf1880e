//! How many requests of a kind are answered at a time: each kind has slots of its own, so that what lasts, a log that is
//! followed above all, leaves room for what is short.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ::http::{Response, StatusCode};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::http::{Body, text_response};

/// How long a client may take nothing of an answer that is there at once.
const SHORT: Duration = Duration::from_secs(60);
/// The same of a log or a stream: a user may look at it page by page. Dead connections are found by the system's own
/// probes.
const LONG: Duration = Duration::from_secs(4 * 3600);

/// One kind: the first words of its paths, how many at a time, and how long a client may take nothing.
struct Kind {
    words: &'static [&'static str],
    most: usize,
    patience: Duration,
}

/// The kinds; the last one is of every other path.
const KINDS: [Kind; 5] = [
    Kind { words: &["exec", "run"], most: 64, patience: LONG },
    Kind { words: &["attach"], most: 64, patience: LONG },
    Kind { words: &["portForward"], most: 64, patience: LONG },
    Kind { words: &["containerLogs", "logs"], most: 64, patience: LONG },
    Kind { words: &[], most: 64, patience: SHORT },
];

/// The slots of all kinds.
pub struct Slots([Arc<Semaphore>; KINDS.len()]);

impl Slots {
    /// All free.
    pub fn new() -> Self {
        Self(KINDS.map(|kind| Arc::new(Semaphore::new(kind.most))))
    }

    /// A slot for a request of this path.
    ///
    /// # Errors
    /// The answer, 429, where all of its kind are taken.
    #[allow(clippy::result_large_err, reason = "the answer is on its way to the client")]
    pub fn take(&self, path: &str) -> Result<Slot, Response<Body>> {
        let word = path.get(1..).unwrap_or_default().split('/').next().unwrap_or_default();
        let at = KINDS.iter().position(|kind| kind.words.contains(&word)).unwrap_or(KINDS.len().saturating_sub(1));
        let kind = &KINDS[at];
        match Arc::clone(&self.0[at]).try_acquire_owned() {
            Ok(permit) => Ok(Slot { _permit: Arc::new(permit), patience: kind.patience }),
            Err(_) => {
                let names = if kind.words.is_empty() { "this kind".to_owned() } else { kind.words.join(" and ") };
                let words = format!("too many requests of {names} at a time: {} are being answered\n", kind.most);
                Err(text_response(StatusCode::TOO_MANY_REQUESTS, words))
            }
        }
    }
}

/// A slot, free again once every clone is dropped.
#[derive(Clone)]
pub struct Slot {
    _permit: Arc<OwnedSemaphorePermit>,
    /// How long a client may take nothing of what is sent to it.
    pub patience: Duration,
}

impl Slot {
    /// Keeps the slot until the answer is sent or given up.
    pub fn hold(self, response: Response<Body>) -> Response<Body> {
        response.map(|body| Held { body, _slot: self }.boxed_unsync())
    }
}

struct Held {
    body: Body,
    _slot: Slot,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

impl hyper::body::Body for Held {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use hyper::body::Body as _;

    use super::*;

    #[test]
    fn what_lasts_leaves_the_slots_of_the_others_alone() {
        let slots = Slots::new();
        let taken = |path: &str| -> Vec<Slot> { std::iter::from_fn(|| slots.take(path).ok()).collect() };
        let logs = taken("/containerLogs/ns/p/c");
        assert_eq!(logs.len(), 64);
        for refused in ["/containerLogs/ns/q/c", "/logs/", "/logs"] {
            let refusal = slots.take(refused).err().expect(refused);
            assert_eq!(refusal.status(), StatusCode::TOO_MANY_REQUESTS, "{refused}");
        }
        let kept = [taken("/exec/ns/p/c"), taken("/attach/ns/p/c"), taken("/portForward/ns/p"), taken("/pods")];
        assert_eq!(kept.each_ref().map(Vec::len), [64; 4]);
        assert!(slots.take("/healthz").is_err() && slots.take("/").is_err(), "of the same kind as /pods");
        drop((logs, kept));
        for path in ["/containerLogs/ns/p/c", "/run/ns/p/c", "/metrics", "/", ""] {
            assert!(slots.take(path).is_ok(), "{path:?}");
        }
    }

    #[tokio::test]
    async fn a_slot_is_held_as_long_as_its_answer_is_on_its_way() {
        let slots = Slots::new();
        let mut others: Vec<Slot> = std::iter::from_fn(|| slots.take("/pods").ok()).collect();
        let answer = others.pop().unwrap().hold(text_response(StatusCode::OK, "words"));
        assert_eq!(answer.body().size_hint().exact(), Some(5));
        assert!(slots.take("/pods").is_err());
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "words");
        assert!(slots.take("/pods").is_ok());
    }
}
