//! What a watch is sent: every pod that is wanted, a mark, and then each difference.
//!
//! A pod is added once its worker has looked at it, and deleted when it has ended: a job that is done before its object
//! is removed, as by the kubelet. One that takes the place of another under the same name is added when the other's
//! containers have gone.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{Stream, stream};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

use super::messages::{EventType, WatchPodsEvent};
use super::{bytes, encode, is_wanted, wanted};
use crate::agent::board::{Board, Entry};
use crate::agent::context::Context;
use crate::agent::pod::{PodKey, StaticPod};

/// Events that a client may be behind. One that reads more slowly is sent away, as by the kubelet: it has to begin again.
const QUEUE: usize = 100;

/// The events for one client, and why they end.
pub fn events(context: Arc<Context>) -> impl Stream<Item = Result<WatchPodsEvent, Status>> + Send + 'static {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let (end, why) = oneshot::channel();
    let tasks = context.tasks.clone();
    tasks.spawn(async move {
        let ended = tokio::select! {
            ended = send(&context, &sender) => ended,
            () = context.shutdown.cancelled() => Status::unavailable("the agent ends"),
            () = sender.closed() => return,
        };
        // No client any more: then it need not know.
        let _ = end.send(ended);
    });
    stream::unfold((receiver, Some(why)), |(mut receiver, why)| async move {
        if let Some(event) = receiver.recv().await {
            return Some((Ok(event), (receiver, why)));
        }
        let ended = why?.await.unwrap_or_else(|_| Status::internal("the watch crashed"));
        Some((Err(ended), (receiver, None)))
    })
}

/// Sends events to a client for as long as it reads them; returns why it gets no more.
async fn send(context: &Context, client: &mpsc::Sender<WatchPodsEvent>) -> Status {
    let mut changes = context.board.changes();
    let (mut sent, first) = Sent::begin(&context.board);
    for event in first {
        let sending = match event {
            Ok(event) => client.send(event).await,
            Err(error) => return error,
        };
        if sending.is_err() {
            return Status::cancelled("the client left");
        }
    }
    while changes.changed().await.is_ok() {
        for event in sent.differences(&context.board) {
            let event = match event.encoded() {
                Ok(event) => event,
                Err(error) => return error,
            };
            if client.try_send(event).is_err() {
                context.metrics.dropped_pod_events.count();
                return Status::resource_exhausted("watch client channel closed");
            }
        }
    }
    Status::unavailable("the agent ends")
}

/// What has become of a pod.
#[derive(Debug, Clone, PartialEq)]
struct Event {
    kind: EventType,
    pod: Pod,
}

impl Event {
    fn encoded(&self) -> Result<WatchPodsEvent, Status> {
        let pod = encode::pod(&self.pod)
            .map_err(|error| Status::internal(format!("error marshalling watch event pod: {error}")))?;
        Ok(WatchPodsEvent { kind: self.kind.into(), pod })
    }
}

/// A pod as it was sent last.
struct Known {
    pod: Arc<StaticPod>,
    status: PodStatus,
    /// That it has gone was sent: because it has ended.
    deleted: bool,
}

impl Known {
    fn of(pod: &Arc<StaticPod>, entry: &Entry) -> Self {
        Self { pod: Arc::clone(pod), status: entry.status.clone(), deleted: false }
    }

    fn shows(&self, pod: &Arc<StaticPod>, entry: &Entry) -> bool {
        (Arc::ptr_eq(&self.pod, pod) || self.pod == *pod) && self.status == entry.status
    }

    /// What has become of it since it was sent. That it has ended is sent once.
    fn follow(&mut self, pod: &Arc<StaticPod>, entry: &Entry, events: &mut Vec<Event>) {
        if self.shows(pod, entry) || self.deleted {
            return;
        }
        events.push(Event { kind: EventType::Modified, pod: entry.to_pod() });
        self.deleted = has_ended(&entry.status) && !has_ended(&self.status);
        (self.pod, self.status) = (Arc::clone(pod), entry.status.clone());
        if self.deleted {
            events.push(self.gone());
        }
    }

    /// That it is gone, with what identifies it and nothing else.
    fn gone(&self) -> Event {
        let metadata = ObjectMeta {
            name: Some(self.pod.key.name.clone()),
            namespace: Some(self.pod.key.namespace.clone()),
            uid: Some(self.pod.uid.clone()),
            ..ObjectMeta::default()
        };
        Event { kind: EventType::Deleted, pod: Pod { metadata, ..Pod::default() } }
    }
}

fn has_ended(status: &PodStatus) -> bool {
    matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"))
}

/// What a client knows.
#[derive(Default)]
struct Sent(BTreeMap<PodKey, Known>);

impl Sent {
    /// Every pod, and the mark behind them.
    fn begin(board: &Board) -> (Self, Vec<Result<WatchPodsEvent, Status>>) {
        let (mut sent, mut events) = (Self::default(), Vec::new());
        for entry in wanted(board) {
            let Some(pod) = &entry.pod else { continue };
            sent.0.insert(pod.key.clone(), Known::of(pod, &entry));
            events.push(bytes(&entry).map(|pod| WatchPodsEvent { kind: EventType::Added.into(), pod }));
        }
        events.push(Ok(WatchPodsEvent { kind: EventType::InitialSyncComplete.into(), pod: vec![] }));
        (sent, events)
    }

    /// What is another than it was sent.
    fn differences(&mut self, board: &Board) -> Vec<Event> {
        board.visit(|pods, _| {
            let mut events = Vec::new();
            self.0.retain(|key, known| {
                let stays = pods.contains_key(key);
                if !stays && !known.deleted {
                    events.push(known.gone());
                }
                stays
            });
            for entry in pods.values().filter(|entry| entry.looked && !entry.succeeds) {
                if let Some(pod) = &entry.pod {
                    self.compare(pod, entry, &mut events);
                }
            }
            events
        })
    }

    fn compare(&mut self, pod: &Arc<StaticPod>, entry: &Entry, events: &mut Vec<Event>) {
        // One that has gone and does not stay ended is another.
        let is_same = |known: &Known| known.pod.uid == pod.uid && (!known.deleted || has_ended(&entry.status));
        match self.0.get_mut(&pod.key) {
            Some(known) if is_same(known) => known.follow(pod, entry, events),
            before => {
                events.extend(before.filter(|before| !before.deleted).map(|before| before.gone()));
                self.0.remove(&pod.key);
                if is_wanted(entry, pod) {
                    events.push(Event { kind: EventType::Added, pod: entry.to_pod() });
                    self.0.insert(pod.key.clone(), Known::of(pod, entry));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
