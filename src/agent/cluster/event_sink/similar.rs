//! Which events are combined: client-go's aggregation, which a kubelet's events go through before they are counted.
//!
//! Events of one object, type and reason that differ by their messages alone are sent one by one while they are few.
//! From the tenth message on, as long as each comes within ten minutes of the one before, they are one event that counts
//! and has the latest message.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use jiff::Timestamp;

use super::lru::Lru;
use crate::agent::events::{Event, Kind, limited};
use crate::host::clock::Instant;

/// From so many different messages on they are combined.
pub(super) const SIMILAR: usize = 10;
/// How long after an event the next one is still similar to it.
pub(super) const INTERVAL: Duration = Duration::from_secs(600);
/// What the message of a combined event begins with.
pub(super) const COMBINED: &str = "(combined from similar events): ";

/// An event as it is sent.
#[derive(Debug, Clone)]
pub(super) struct SentEvent {
    /// Its name, the same for each of its occurrences.
    pub name: String,
    /// What it says.
    pub event: Event,
}

/// What is remembered of each object, type and reason of event.
#[derive(Debug, Default)]
pub(super) struct Aggregator(Lru<(String, bool, String), Record>);

#[derive(Debug)]
struct Record {
    /// Hashes of the messages that are sent by themselves: fewer than [`SIMILAR`].
    messages: Vec<u64>,
    /// When the last event came.
    at: Instant,
    /// What it was, by the time that it says of itself.
    last: Timestamp,
    /// The event that stands for all others.
    combined: Option<Combined>,
}

#[derive(Debug)]
struct Combined {
    first: Timestamp,
    count: u32,
}

impl Aggregator {
    /// The event as it is to be sent: itself, or the one that stands for it and others.
    pub fn take(&mut self, event: Event, now: Instant) -> SentEvent {
        let key = (event.uid.clone(), event.kind == Kind::Warning, event.reason.clone());
        let new = || Record { messages: vec![], at: now, last: Timestamp::MIN, combined: None };
        let record = self.0.get_or_insert_with(key, new);
        if now - record.at > INTERVAL {
            record.messages.clear();
        }
        record.at = now;
        // What began after the last one that was sent has not been sent at all.
        let times = if event.first > record.last { event.count } else { 1 };
        record.last = event.last;
        let message = hash(&event.message);
        if !record.messages.contains(&message) {
            if record.messages.len().saturating_add(1) >= SIMILAR {
                return record.combine(event, times);
            }
            record.messages.push(message);
        }
        SentEvent { name: name(&event), event }
    }
}

impl Record {
    fn combine(&mut self, event: Event, times: u32) -> SentEvent {
        let combined = self.combined.get_or_insert(Combined { first: event.last, count: 0 });
        combined.count = combined.count.saturating_add(times);
        let message = limited(&format!("{COMBINED}{}", event.message));
        let event = Event { message, first: combined.first, count: combined.count, ..event };
        // It is the event of all messages and containers.
        let name = name(&Event { message: COMBINED.to_owned(), container: None, ..event.clone() });
        SentEvent { name, event }
    }
}

/// The same for each occurrence of an event, and another for any other event: object and a number, as everywhere.
fn name(event: &Event) -> String {
    let Event { uid, container, kind, reason, message, first, .. } = event;
    let number = hash(&(uid, container, *kind == Kind::Warning, reason, message, first.as_nanosecond()));
    format!("{}.{number:016x}", event.pod)
}

fn hash(what: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::events::{Recorder, Subject};
    use crate::agent::pod::PodKey;

    /// The event that is recorded now.
    fn event(recorder: &Recorder, container: &str, reason: &str, message: &str) -> Event {
        let key = PodKey { namespace: "default".into(), name: "p".into() };
        let container = Some(container).filter(|name| !name.is_empty());
        recorder.warning(Subject { pod: &key, uid: "u", container }, reason, message);
        let latest = *recorder.latest().borrow();
        recorder.since(latest - 1).remove(0)
    }

    #[test]
    fn events_that_differ_by_their_messages_are_combined_from_the_tenth_on() {
        let (recorder, now, mut aggregator) = (Recorder::default(), Instant::now(), Aggregator::default());
        let mut take = |container: &str, reason: &str, message: &str, now| {
            aggregator.take(event(&recorder, container, reason, message), now)
        };
        let own: Vec<SentEvent> = (1..SIMILAR).map(|number| take("a", "Unhealthy", &number.to_string(), now)).collect();
        assert!(own.iter().enumerate().all(|(number, reported)| reported.event.message == (number + 1).to_string()));
        let tenth = take("a", "Unhealthy", "ten", now);
        assert_eq!((tenth.event.message.as_str(), tenth.event.count), ("(combined from similar events): ten", 1));
        assert_eq!(tenth.event.first, tenth.event.last);
        let next = take("b", "Unhealthy", "eleven", now);
        assert_eq!((next.event.message.as_str(), next.event.count), ("(combined from similar events): eleven", 2));
        assert_eq!((&next.name, next.event.first), (&tenth.name, tenth.event.first), "of any container");
        let known = take("a", "Unhealthy", "1", now);
        assert_eq!((&known.name, known.event.count), (&own[0].name, 2), "it is told by itself as before");
        assert_eq!(take("a", "Killing", "ten", now).event.message, "ten", "another reason");
        let late = take("a", "Unhealthy", "twelve", now + INTERVAL);
        assert_eq!((&late.name, late.event.count), (&tenth.name, 3), "within the interval of the one before");
        let later = now + INTERVAL * 2 + Duration::from_secs(1);
        assert_eq!(take("a", "Unhealthy", "thirteen", later).event.message, "thirteen", "it begins again");
    }

    #[test]
    fn what_was_not_told_yet_counts_as_often_as_it_happened() {
        let (recorder, now, mut aggregator) = (Recorder::default(), Instant::now(), Aggregator::default());
        for number in 1..SIMILAR {
            aggregator.take(event(&recorder, "", "Unhealthy", &number.to_string()), now);
        }
        event(&recorder, "", "Unhealthy", "often");
        let often = aggregator.take(event(&recorder, "", "Unhealthy", "often"), now);
        assert_eq!(often.event.count, 2);
        assert_eq!(aggregator.take(event(&recorder, "", "Unhealthy", "often"), now).event.count, 3);
        let long = aggregator.take(event(&recorder, "", "Unhealthy", &"x".repeat(5000)), now);
        assert_eq!(long.event.message.chars().count(), 1024);
    }
}
