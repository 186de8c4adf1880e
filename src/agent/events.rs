//! What happened to pods, in the kubelet's words: a bounded record of events, for people and for the API.
//!
//! As in the API, the same thing happening again is one event that counts.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::pod::PodKey;

/// Events kept; the oldest go first.
const KEPT: usize = 1000;
/// Longest message kept, in characters (the API refuses more).
const MESSAGE_LIMIT: usize = 1024;

/// Whether an event is a trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// All is well.
    Normal,
    /// It is not.
    Warning,
}

/// Something that happened, once or several times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Grows with each occurrence of anything.
    pub sequence: u64,
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// UID of the pod.
    pub uid: String,
    /// The container, None for the pod as a whole.
    pub container: Option<String>,
    /// Whether it is a trouble.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// The kubelet's reason (`Started`, `Unhealthy`, `BackOff`, ...).
    pub reason: String,
    /// More words.
    pub message: String,
    /// How often it happened.
    pub count: u32,
    /// When first.
    pub first: Timestamp,
    /// When last.
    pub last: Timestamp,
}

/// Which pod and container an event is about.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The pod.
    pub pod: &'a PodKey,
    /// Its UID.
    pub uid: &'a str,
    /// The container, None for the pod as a whole.
    pub container: Option<&'a str>,
}

/// Records events. Cheap to call; never fails and never blocks for long.
pub struct Recorder {
    events: Mutex<VecDeque<Event>>,
    sequence: watch::Sender<u64>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self { events: Mutex::default(), sequence: watch::channel(0).0 }
    }
}

impl Recorder {
    /// All went well.
    pub fn normal(&self, subject: Subject<'_>, reason: &str, message: impl Into<String>) {
        self.record(subject, Kind::Normal, reason, message.into(), Timestamp::now());
    }

    /// Something is wrong.
    pub fn warning(&self, subject: Subject<'_>, reason: &str, message: impl Into<String>) {
        self.record(subject, Kind::Warning, reason, message.into(), Timestamp::now());
    }

    fn record(&self, subject: Subject<'_>, kind: Kind, reason: &str, message: String, now: Timestamp) {
        let message: String = message.chars().take(MESSAGE_LIMIT).collect();
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let sequence = self.sequence.borrow().saturating_add(1);
        let same = events.iter().position(|event| {
            event.uid == subject.uid
                && event.container.as_deref() == subject.container
                && event.kind == kind
                && event.reason == reason
                && event.message == message
        });
        let event = match same.and_then(|index| events.remove(index)) {
            Some(before) => Event { sequence, count: before.count.saturating_add(1), last: now, ..before },
            None => Event {
                sequence,
                namespace: subject.pod.namespace.clone(),
                pod: subject.pod.name.clone(),
                uid: subject.uid.to_owned(),
                container: subject.container.map(str::to_owned),
                kind,
                reason: reason.to_owned(),
                message,
                count: 1,
                first: now,
                last: now,
            },
        };
        if events.len() >= KEPT {
            events.pop_front();
        }
        events.push_back(event);
        self.sequence.send_replace(sequence);
    }

    /// Events with a greater sequence number than `after`, oldest first.
    pub fn since(&self, after: u64) -> Vec<Event> {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.iter().filter(|event| event.sequence > after).cloned().collect()
    }

    /// The sequence number of the latest event, and of each later one.
    pub fn latest(&self) -> watch::Receiver<u64> {
        self.sequence.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_again_counts_and_moves_to_the_end_and_the_oldest_goes() {
        let recorder = Recorder::default();
        let pod = PodKey { namespace: "default".into(), name: "p-n".into() };
        let subject = Subject { pod: &pod, uid: "u", container: Some("c") };
        recorder.normal(subject, "Started", "container started");
        recorder.warning(subject, "Unhealthy", "no answer");
        recorder.normal(subject, "Started", "container started");
        let events = recorder.since(0);
        let seen: Vec<_> = events.iter().map(|e| (e.reason.as_str(), e.count, e.sequence)).collect();
        assert_eq!(seen, [("Unhealthy", 1, 2), ("Started", 2, 3)]);
        assert_eq!(recorder.since(2).len(), 1);
        for number in 0..KEPT {
            recorder.normal(subject, "Pulled", format!("{number}"));
        }
        assert_eq!((recorder.since(0).len(), recorder.since(0)[0].message.as_str()), (KEPT, "0"));
        assert_eq!(*recorder.latest().borrow(), 3 + KEPT as u64);
    }
}
