//! What happened to pods and to the node, sent to the API server: `kubectl describe` and `kubectl get events` show it.
//!
//! As by the kubelet an event is about the static pod's own UID, by which kubectl looks for those of a mirror. What
//! happens again counts in the same event, and what differs by its message alone is combined where there is much of it.
//! Each object's events have a queue of their own, in which they are sent one
//! after the other: one that cannot be sent delays no other object's. Best effort: what cannot be sent while the
//! recorder still has it is lost, and nothing waits for it.

mod budget;
mod lru;
mod similar;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use k8s_openapi::api::core::v1::{Event as ApiEvent, EventSource, Node, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::Request;
use kube::{Client, Resource};
use serde::de::IgnoredAny;
use serde_json::json;
use tracing::debug;

use crate::agent::apiserver::ApiServer;
use crate::agent::apiserver::call::{CallError, within_limit};
use crate::agent::backoff::Steps;
use crate::agent::board::Board;
use crate::agent::crash::caught;
use crate::agent::events::{About, Event, Kind, Recorder};
use crate::agent::pod::{PodKey, StaticPod};
use crate::error::chain;
use crate::host::clock::{Instant, sleep_until};
use budget::Budget;
use similar::{Aggregator, SentEvent};

/// How long to wait for an API server that is away or cannot keep it now.
const RETRY: Steps = Steps { initial: Duration::from_secs(1), cap: Duration::from_secs(30) };
/// How often one that is refused for a reason that may pass is sent.
const TRIES: u32 = 4;
/// How many are under way at a time.
const AT_ONCE: usize = 8;
/// The source of the events, as for every kubelet.
const COMPONENT: &str = "kubelet";
/// The namespace of events about what has none.
const NO_NAMESPACE: &str = "default";
/// Namespaces that an API server makes by itself, some time after it has begun to answer: only these may be missing
/// now and be there later. An event of any other that is missing is given up, as a kubelet gives it up.
const MADE_BY_ITSELF: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// What the poster works with.
pub struct Parts {
    pub board: Arc<Board>,
    pub api: Arc<ApiServer>,
    pub events: Arc<Recorder>,
    pub node_name: String,
}

/// What becomes of an event that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// The API server has it, or never will.
    Over,
    /// It may be kept later.
    Later,
    /// There is no answer.
    Away,
}

/// An event that was sent.
struct Sent {
    uid: String,
    sequence: u64,
    fate: Fate,
}

/// The queue of one object's events.
#[derive(Default)]
struct Lane {
    /// The sequence number of its last event that is done with.
    reported: u64,
    /// One is under way.
    busy: bool,
    /// How often its first one was refused.
    tries: u32,
    /// When its first one is sent again.
    due: Option<Instant>,
    /// Its first one as it is sent; the budget has been asked for it.
    paid: Option<SentEvent>,
}

/// Tells for ever.
pub async fn run(parts: Parts) {
    let mut latest = parts.events.latest();
    let mut clients = parts.api.clients();
    let mut poster = Poster {
        parts: Arc::new(parts),
        reported: 0,
        lanes: HashMap::new(),
        aggregator: Aggregator::default(),
        budget: Budget::default(),
        sending: FuturesUnordered::new(),
        failures: 0,
        pause: None,
    };
    loop {
        latest.borrow_and_update();
        let client = clients.borrow_and_update().clone();
        let wake = client.and_then(|client| poster.begin(&client, Instant::now()));
        tokio::select! {
            changed = latest.changed() => if changed.is_err() { return },
            _ = clients.changed() => poster.pause = None,
            Some(sent) = poster.sending.next(), if !poster.sending.is_empty() => poster.note(&sent, Instant::now()),
            () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
        }
    }
}

struct Poster {
    parts: Arc<Parts>,
    /// Every event up to this sequence number is done with.
    reported: u64,
    /// By UID of an object.
    lanes: HashMap<String, Lane>,
    aggregator: Aggregator,
    budget: Budget,
    sending: FuturesUnordered<BoxFuture<'static, Sent>>,
    /// How often in a row there was no answer.
    failures: u32,
    /// Until when nothing is sent, because there was none.
    pause: Option<Instant>,
}

impl Poster {
    /// Sends what can be sent. Returns when there may be more to send although nothing happens.
    fn begin(&mut self, client: &Client, now: Instant) -> Option<Instant> {
        if let Some(until) = self.pause.filter(|until| *until > now) {
            return Some(until);
        }
        loop {
            let heads = self.heads(now);
            if heads.is_empty() {
                break;
            }
            let mut dropped = false;
            for event in heads {
                if self.sending.len() >= AT_ONCE {
                    return None;
                }
                dropped |= !self.send(client, event, now);
            }
            if !dropped {
                break;
            }
        }
        if self.sending.is_empty() && self.lanes.values().all(|lane| lane.due.is_none()) {
            // Everything is sent, and the recorder is not asked for it again.
            self.reported = self.lanes.values().map(|lane| lane.reported).fold(self.reported, u64::max);
            self.lanes.clear();
        }
        self.lanes.values().filter_map(|lane| lane.due.filter(|_| !lane.busy)).min()
    }

    /// The first event that is not sent yet of each object of which none is under way or waits.
    fn heads(&self, now: Instant) -> Vec<Event> {
        let mut seen = HashSet::new();
        self.parts.events.pick(self.reported, |event| {
            let lane = self.lanes.get(&event.uid);
            let is_head = lane.is_none_or(|lane| event.sequence > lane.reported) && seen.insert(event.uid.clone());
            is_head && lane.is_none_or(|lane| !lane.busy && lane.due.is_none_or(|due| due <= now))
        })
    }

    /// Sends an event. Returns whether it may be sent at all.
    fn send(&mut self, client: &Client, event: Event, now: Instant) -> bool {
        let lane = self.lanes.entry(event.uid.clone()).or_default();
        let (uid, sequence, paid) = (event.uid.clone(), event.sequence, lane.paid.take());
        let is_paid = paid.is_some();
        // One that has happened again while it waited is sent as it is now.
        let same = paid.filter(|reported| reported.event.sequence == sequence);
        let reported = same.unwrap_or_else(|| self.aggregator.take(event, now));
        if !is_paid && !self.budget.take(&reported.event, now) {
            lane.reported = sequence;
            return false;
        }
        (lane.busy, lane.due, lane.paid) = (true, None, Some(reported.clone()));
        let (parts, client) = (Arc::clone(&self.parts), client.clone());
        self.sending.push(Box::pin(async move {
            let fate = caught(deliver(&parts, &client, &reported)).await.unwrap_or(Fate::Over);
            Sent { uid, sequence, fate }
        }));
        true
    }

    fn note(&mut self, sent: &Sent, now: Instant) {
        let Some(lane) = self.lanes.get_mut(&sent.uid) else { return };
        lane.busy = false;
        if sent.fate == Fate::Away {
            self.failures = self.failures.saturating_add(1);
            self.pause = Some(now + RETRY.spread(self.failures));
            return;
        }
        self.failures = 0;
        lane.tries = lane.tries.saturating_add(1);
        if sent.fate == Fate::Later && lane.tries < TRIES {
            lane.due = Some(now + RETRY.spread(lane.tries));
        } else {
            *lane = Lane { reported: sent.sequence, ..Lane::default() };
        }
    }
}

/// Sends one event once.
async fn deliver(parts: &Parts, client: &Client, reported: &SentEvent) -> Fate {
    let Err(error) = parts.post(client, reported).await else { return Fate::Over };
    let event = &reported.event;
    let fate = fate(&error, namespace(event));
    debug!(object = event.pod, reason = event.reason, error = chain(&error), ?fate, "an event is not told");
    fate
}

impl Parts {
    async fn post(&self, client: &Client, reported: &SentEvent) -> Result<(), CallError> {
        let SentEvent { name, event } = reported;
        let request = Request::new(ApiEvent::url_path(&(), Some(namespace(event))));
        if event.count > 1 {
            let change = json!({"count": event.count, "lastTimestamp": Time(event.last), "message": event.message});
            let patch = request.patch(name, &PatchParams::default(), &Patch::Strategic(change));
            match send(client, patch).await {
                // It was never sent, or the API server has forgotten it.
                Err(error) if error.code() == Some(404) => {}
                other => return other,
            }
        }
        // These types are structs of texts, numbers and maps of them: there is none that JSON cannot hold.
        let body = serde_json::to_vec(&self.object(name, event)).unwrap_or_default();
        match send(client, request.create(&PostParams::default(), body)).await {
            // It was sent, and the answer was lost.
            Err(error) if error.code() == Some(409) => Ok(()),
            other => other,
        }
    }

    fn object(&self, name: &str, event: &Event) -> ApiEvent {
        let text = |text: &str| Some(text.to_owned());
        ApiEvent {
            metadata: ObjectMeta { name: text(name), namespace: text(namespace(event)), ..ObjectMeta::default() },
            involved_object: self.involved(event),
            type_: text(match event.kind {
                Kind::Normal => "Normal",
                Kind::Warning => "Warning",
            }),
            reason: text(&event.reason),
            message: text(&event.message),
            count: i32::try_from(event.count).ok(),
            first_timestamp: Some(Time(event.first)),
            last_timestamp: Some(Time(event.last)),
            source: Some(EventSource { component: text(COMPONENT), host: text(&self.node_name) }),
            reporting_component: text(COMPONENT),
            reporting_instance: text(&self.node_name),
            ..ApiEvent::default()
        }
    }

    fn involved(&self, event: &Event) -> ObjectReference {
        let named = ObjectReference {
            name: Some(event.pod.clone()),
            uid: Some(event.uid.clone()),
            ..ObjectReference::default()
        };
        match event.about {
            About::Node => ObjectReference { kind: Some(Node::kind(&()).into_owned()), ..named },
            About::Pod => ObjectReference {
                api_version: Some(Pod::api_version(&()).into_owned()),
                kind: Some(Pod::kind(&()).into_owned()),
                namespace: Some(event.namespace.clone()),
                field_path: event.container.as_deref().map(|container| self.field(event, container)),
                ..named
            },
        }
    }

    /// Where in the pod the container is.
    fn field(&self, event: &Event, container: &str) -> String {
        let key = PodKey { namespace: event.namespace.clone(), name: event.pod.clone() };
        let list = self.board.visit(|pods, _| {
            let pod = pods.get(&key).and_then(|entry| entry.pod.as_deref());
            let is_init = |pod: &StaticPod| pod.containers().any(|(init, one)| init && one.name == container);
            match pod {
                Some(pod) if is_init(pod) => "initContainers",
                Some(pod) if pod.ephemeral.iter().any(|one| one.name == container) => "ephemeralContainers",
                _ => "containers",
            }
        });
        format!("spec.{list}{{{container}}}")
    }
}

async fn send(
    client: &Client,
    request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
) -> Result<(), CallError> {
    within_limit(async { client.request::<IgnoredAny>(request.map_err(kube::Error::BuildRequest)?).await.map(drop) })
        .await
}

/// Where an event is kept.
fn namespace(event: &Event) -> &str {
    if event.namespace.is_empty() { NO_NAMESPACE } else { &event.namespace }
}

fn fate(error: &CallError, namespace: &str) -> Fate {
    match error.code() {
        None => Fate::Away,
        Some(404) if MADE_BY_ITSELF.contains(&namespace) => Fate::Later,
        Some(429 | 500..) => Fate::Later,
        Some(_) => Fate::Over,
    }
}
