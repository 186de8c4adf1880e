//! What happened to pods and to the node, in the kubelet's words: a bounded record of events, for people and for the API.
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

/// What kind of object an event is about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum About {
    /// A pod.
    #[default]
    Pod,
    /// The Node of this machine.
    Node,
}

/// Something that happened, once or several times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Grows with each occurrence of anything.
    pub sequence: u64,
    /// What kind of object it is about.
    #[serde(default)]
    pub about: About,
    /// Namespace of the pod, empty for the Node.
    pub namespace: String,
    /// Name of the pod, or of the Node.
    pub pod: String,
    /// UID of the pod. The Node's is its name, as in a kubelet's events.
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

/// The object of an event.
struct Object<'a> {
    about: About,
    namespace: &'a str,
    name: &'a str,
    uid: &'a str,
    container: Option<&'a str>,
}

impl<'a> From<Subject<'a>> for Object<'a> {
    fn from(Subject { pod, uid, container }: Subject<'a>) -> Self {
        Self { about: About::Pod, namespace: &pod.namespace, name: &pod.name, uid, container }
    }
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
        self.record(&subject.into(), Kind::Normal, reason, message.into(), Timestamp::now());
    }

    /// Something is wrong.
    pub fn warning(&self, subject: Subject<'_>, reason: &str, message: impl Into<String>) {
        self.record(&subject.into(), Kind::Warning, reason, message.into(), Timestamp::now());
    }

    /// Something happened to the Node of this name.
    pub fn node(&self, name: &str, kind: Kind, reason: &str, message: impl Into<String>) {
        let node = Object { about: About::Node, namespace: "", name, uid: name, container: None };
        self.record(&node, kind, reason, message.into(), Timestamp::now());
    }

    fn record(&self, of: &Object<'_>, kind: Kind, reason: &str, message: String, now: Timestamp) {
        let message = limited(&message);
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let sequence = self.sequence.borrow().saturating_add(1);
        let same = events.iter().position(|event| {
            (event.about, event.uid.as_str()) == (of.about, of.uid)
                && event.container.as_deref() == of.container
                && event.kind == kind
                && event.reason == reason
                && event.message == message
        });
        let event = match same.and_then(|index| events.remove(index)) {
            Some(before) => Event { sequence, count: before.count.saturating_add(1), last: now, ..before },
            None => Event {
                sequence,
                about: of.about,
                namespace: of.namespace.to_owned(),
                pod: of.name.to_owned(),
                uid: of.uid.to_owned(),
                container: of.container.map(str::to_owned),
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
        self.pick(after, |_| true)
    }

    /// Those of [`Recorder::since`] that `wanted`, which is asked of each in that order, wants.
    pub fn pick(&self, after: u64, mut wanted: impl FnMut(&Event) -> bool) -> Vec<Event> {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.iter().filter(|event| event.sequence > after && wanted(event)).cloned().collect()
    }

    /// The sequence number of the latest event, and of each later one.
    pub fn latest(&self) -> watch::Receiver<u64> {
        self.sequence.subscribe()
    }
}

/// A message as far as the API takes it.
pub fn limited(message: &str) -> String {
    message.chars().take(MESSAGE_LIMIT).collect()
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
