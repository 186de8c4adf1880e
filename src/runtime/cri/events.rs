//! What happens to containers, from what reports first: containerd's own events, the API's where a runtime offers them
//! (containerd 1.7, CRI-O), else a list each second.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{FutureExt, Stream, StreamExt, TryStreamExt, stream};
use prost::Message;
use tokio::time::MissedTickBehavior;
use tonic::{Code, Status};

use super::proto::containerd::{Any, Envelope, OfContainer, PublishRequest, SubscribeRequest, TaskExit};
use super::rpc::CONNECT;
use super::{Cri, proto};
use crate::host::clock::Instant;
use crate::runtime::*;

/// How often everything is listed where nothing tells of events.
const RELIST: Duration = Duration::from_secs(1);
/// How long a runtime may need to take in what it has told itself.
const SETTLES_WITHIN: Duration = Duration::from_secs(5);
/// The pauses between two looks whether it has: an eighth of what it took so far, which is how late a look may be, within
/// these bounds.
const LOOK_PAUSE: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(100));
/// How many containers are waited for at once.
const SETTLE_AT_ONCE: usize = 32;

/// containerd's topics and what they mean.
const TOPICS: [(&str, RuntimeEventKind); 3] = [
    ("/tasks/start", RuntimeEventKind::Started),
    ("/tasks/exit", RuntimeEventKind::Exited),
    ("/containers/delete", RuntimeEventKind::Removed),
];

/// Topic of an event that says nothing but that events are told.
const MARK: &str = "/kubeboot/listens";
/// How long one of them may take.
const MARK_PAUSE: Duration = Duration::from_millis(20);
/// How long a runtime has to say that it knows nothing of events; one that does says nothing before the first.
const UNKNOWN_WITHIN: Duration = Duration::from_millis(200);

/// What is reported of a container before it is known whose it is.
type Told = std::result::Result<(String, RuntimeEventKind), Status>;

impl Cri {
    pub(super) async fn subscribe(&self, owner: &str) -> Result<BoxStream<'static, Result<RuntimeEvent>>> {
        let reported =
            if self.is_containerd().await? { self.containerds_events().await } else { self.api_events().await };
        let reported = match reported {
            Ok(reported) => reported,
            Err(status) if status.code() == Code::Unimplemented => return self.listed_events(owner).await,
            Err(status) => return Err(self.error("watch containers", "the runtime", status)),
        };
        let running = self.list_all(owner).await?.into_iter().filter(|one| one.state.is_running());
        let running: BTreeSet<String> = running.map(|one| one.id).collect();
        let (cri, owner) = (self.clone(), owner.to_owned());
        let settled = reported.map(move |reported| {
            let (cri, owner) = (cri.clone(), owner.clone());
            async move {
                match reported {
                    Ok((id, kind)) => cri.settle(&owner, id, kind).await.map(Ok),
                    Err(status) => Some(Err(cri.error("watch containers", "the runtime", status))),
                }
            }
        });
        let events = settled.buffered(SETTLE_AT_ONCE).filter_map(|event| async { event });
        Ok(in_order(events, running).boxed())
    }

    /// The event of a container of this owner, once the runtime itself answers accordingly: it tells of an end before it
    /// has noted how it ended.
    async fn settle(&self, owner: &str, id: String, kind: RuntimeEventKind) -> Option<RuntimeEvent> {
        let known = match self.0.known.get(&id) {
            Some(known) => known,
            None => self.look_at(&id).await.ok()?,
        };
        if known.labels.get(labels::OWNER).is_none_or(|label| label != owner) {
            return None;
        }
        let begin = Instant::now();
        while begin.elapsed() < SETTLES_WITHIN && self.lags_behind(&id, kind).await {
            tokio::time::sleep((begin.elapsed() / 8).clamp(LOOK_PAUSE.0, LOOK_PAUSE.1)).await;
        }
        if kind == RuntimeEventKind::Removed {
            self.0.known.forget(&id);
        }
        Some(RuntimeEvent { id, pod_uid: known.name.uid, kind })
    }

    /// Whether the runtime's answer is older than what it has reported.
    async fn lags_behind(&self, id: &str, kind: RuntimeEventKind) -> bool {
        let state = self.look_at(id).await.map(|record| record.state);
        match (kind, state) {
            (RuntimeEventKind::Started, Ok(state)) => state == ContainerState::Created,
            (RuntimeEventKind::Exited, Ok(state)) => !matches!(state, ContainerState::Exited { .. }),
            (RuntimeEventKind::Removed, Ok(_)) => true,
            (_, Err(_)) => false,
        }
    }

    async fn containerds_events(&self) -> std::result::Result<BoxStream<'static, Told>, Status> {
        const SUBSCRIBE: &str = "/containerd.services.events.v1.Events/Subscribe";
        const PUBLISH: &str = "/containerd.services.events.v1.Events/Publish";
        let topics = TOPICS.map(|(topic, _)| topic).into_iter().chain([MARK]);
        let filters = topics.map(|topic| format!("topic==\"{topic}\",namespace==k8s.io")).collect();
        let open = self.0.rpc.stream::<_, Envelope>(SUBSCRIBE, SubscribeRequest { filters });
        let mut open = std::pin::pin!(open);
        // containerd answers with the first event only: until then no one can know whether it listens yet.
        let begin = Instant::now();
        let envelopes = loop {
            let event = Some(Any { type_url: "containerd.events.NamespaceUpdate".to_owned(), value: vec![] });
            let mark = PublishRequest { topic: MARK.to_owned(), event };
            self.0.rpc.unary::<_, proto::Empty>(PUBLISH, mark, Some(CONNECT)).await?;
            match tokio::time::timeout(MARK_PAUSE, &mut open).await {
                Ok(opened) => break opened?,
                Err(_) if begin.elapsed() > SETTLES_WITHIN => {
                    return Err(Status::deadline_exceeded("containerd tells no events"));
                }
                Err(_) => {}
            }
        };
        Ok(envelopes.filter_map(|envelope| async { envelope.map(|one| read(&one)).transpose() }).boxed())
    }

    async fn api_events(&self) -> std::result::Result<BoxStream<'static, Told>, Status> {
        let package = self.spoken().await.map_err(|error| Status::from_error(Box::new(error)))?.0;
        let path = format!("/{package}.RuntimeService/GetContainerEvents");
        let rpc = self.0.rpc.clone();
        let open = async move { rpc.stream::<_, proto::ContainerEvent>(&path, proto::Empty {}).await };
        let mut open = open.boxed();
        let events = match tokio::time::timeout(UNKNOWN_WITHIN, &mut open).await {
            Ok(opened) => opened?.boxed(),
            Err(_) => stream::once(open).try_flatten().boxed(),
        };
        let reported = |event: std::result::Result<proto::ContainerEvent, Status>| async {
            let kind = |kind| match kind {
                1 => Some(RuntimeEventKind::Started),
                2 => Some(RuntimeEventKind::Exited),
                3 => Some(RuntimeEventKind::Removed),
                _ => None,
            };
            event.map(|event| Some((event.container_id, kind(event.kind)?))).transpose()
        };
        Ok(events.filter_map(reported).boxed())
    }

    /// What has changed from one list to the next.
    async fn listed_events(&self, owner: &str) -> Result<BoxStream<'static, Result<RuntimeEvent>>> {
        let mut ticks = tokio::time::interval(RELIST);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let start = (self.clone(), owner.to_owned(), by_id(self.list_all(owner).await?), ticks);
        let lists = stream::unfold(Some(start), |state| async {
            let (cri, owner, before, mut ticks) = state?;
            ticks.tick().await;
            match cri.list_all(&owner).await {
                Ok(list) => {
                    let now = by_id(list);
                    let changes: Vec<_> = changes(&before, &now).into_iter().map(Ok).collect();
                    Some((stream::iter(changes), Some((cri, owner, now, ticks))))
                }
                Err(error) => Some((stream::iter(vec![Err(error)]), None)),
            }
        });
        Ok(lists.flatten().boxed())
    }
}

/// containerd's event; None for one that was not asked for, such as the end of a command in a container.
fn read(envelope: &Envelope) -> Option<(String, RuntimeEventKind)> {
    let (_, kind) = TOPICS.into_iter().find(|(topic, _)| *topic == envelope.topic)?;
    let value = envelope.event.as_ref()?.value.as_slice();
    if kind == RuntimeEventKind::Exited {
        let exit = TaskExit::decode(value).ok()?;
        return (exit.id == exit.container_id).then_some((exit.container_id, kind));
    }
    Some((OfContainer::decode(value).ok()?.container_id, kind))
}

/// Events in the order of a container's life, which comes but once: a runtime may tell of an end before the start.
fn in_order(
    events: impl Stream<Item = Result<RuntimeEvent>> + Send + 'static,
    mut started: BTreeSet<String>,
) -> impl Stream<Item = Result<RuntimeEvent>> + Send + 'static {
    let ordered = events.map(move |event| {
        let Ok(event) = event else { return vec![event] };
        match event.kind {
            RuntimeEventKind::Started if !started.insert(event.id.clone()) => vec![],
            RuntimeEventKind::Started => vec![Ok(event)],
            RuntimeEventKind::Exited if started.insert(event.id.clone()) => {
                let start = RuntimeEvent { kind: RuntimeEventKind::Started, ..event.clone() };
                vec![Ok(start), Ok(event)]
            }
            RuntimeEventKind::Exited => vec![Ok(event)],
            RuntimeEventKind::Removed => {
                started.remove(&event.id);
                vec![Ok(event)]
            }
        }
    });
    ordered.flat_map(stream::iter)
}

fn by_id(list: Vec<ContainerRecord>) -> BTreeMap<String, ContainerRecord> {
    list.into_iter().map(|record| (record.id.clone(), record)).collect()
}

fn changes(before: &BTreeMap<String, ContainerRecord>, now: &BTreeMap<String, ContainerRecord>) -> Vec<RuntimeEvent> {
    let event =
        |record: &ContainerRecord, kind| RuntimeEvent { id: record.id.clone(), pod_uid: record.name.uid.clone(), kind };
    let stage = |record: Option<&ContainerRecord>| match record.map(|record| &record.state) {
        None | Some(ContainerState::Created) => 0,
        Some(ContainerState::Running { .. }) => 1,
        Some(ContainerState::Exited { .. }) => 2,
    };
    let kinds = [RuntimeEventKind::Started, RuntimeEventKind::Exited];
    let mut changes: Vec<RuntimeEvent> = Vec::new();
    for (id, record) in now {
        let (from, to) = (stage(before.get(id)), stage(Some(record)));
        changes.extend(kinds.iter().take(to).skip(from).map(|kind| event(record, *kind)));
    }
    let gone = before.iter().filter(|(id, _)| !now.contains_key(*id));
    changes.extend(gone.map(|(_, record)| event(record, RuntimeEventKind::Removed)));
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: &str, kind: RuntimeEventKind) -> RuntimeEvent {
        RuntimeEvent { id: id.to_owned(), pod_uid: "u".to_owned(), kind }
    }

    #[tokio::test]
    async fn an_end_that_is_told_before_its_start_comes_behind_it() {
        use RuntimeEventKind::*;
        let reported = [("a", Exited), ("a", Started), ("b", Started), ("b", Exited), ("old", Exited), ("a", Removed)];
        let reported = reported.map(|(id, kind)| Ok(event(id, kind)));
        let running = BTreeSet::from(["old".to_owned()]);
        let ordered: Vec<_> = in_order(stream::iter(reported), running).map(|event| event.unwrap()).collect().await;
        let expected = [("a", Started), ("a", Exited), ("b", Started), ("b", Exited), ("old", Exited), ("a", Removed)];
        assert_eq!(ordered, expected.map(|(id, kind)| event(id, kind)));
    }

    #[test]
    fn of_containerds_events_those_of_first_processes_count() {
        let envelope = |topic: &str, value: Vec<u8>| Envelope {
            topic: topic.into(),
            event: Some(Any { value, ..Any::default() }),
        };
        let exit = |process: &str| TaskExit { container_id: "c".into(), id: process.into() }.encode_to_vec();
        assert_eq!(read(&envelope("/tasks/exit", exit("c"))), Some(("c".into(), RuntimeEventKind::Exited)));
        assert_eq!(read(&envelope("/tasks/exit", exit("exec-1"))), None);
        // Field 2 of a start is a number.
        let start = [OfContainer { container_id: "c".into() }.encode_to_vec(), vec![0x10, 77]].concat();
        assert_eq!(read(&envelope("/tasks/start", start)), Some(("c".into(), RuntimeEventKind::Started)));
        assert_eq!(read(&envelope("/tasks/oom", exit("c"))), None);
    }

    #[test]
    fn lists_tell_what_has_happened_between_them() {
        use RuntimeEventKind::*;
        let record = |id: &str, state: i32| {
            let status = proto::ContainerStatus { id: id.into(), state, finished_at: 1, ..Default::default() };
            super::super::record::container("containerd", status, "s")
        };
        let list = |all: &[(&str, i32)]| by_id(all.iter().map(|(id, state)| record(id, *state)).collect());
        let reported = |before: &[(&str, i32)], now: &[(&str, i32)]| {
            changes(&list(before), &list(now)).into_iter().map(|event| (event.id, event.kind)).collect::<Vec<_>>()
        };
        let of = |all: &[(&str, RuntimeEventKind)]| {
            all.iter().map(|(id, kind)| ((*id).to_owned(), *kind)).collect::<Vec<_>>()
        };
        assert_eq!(reported(&[], &[("a", 2), ("b", 0)]), of(&[("a", Started), ("a", Exited)]));
        assert_eq!(reported(&[("a", 1), ("b", 0)], &[("a", 2), ("b", 1)]), of(&[("a", Exited), ("b", Started)]));
        assert_eq!(reported(&[("a", 2)], &[]), of(&[("a", Removed)]));
        assert_eq!(reported(&[("a", 1)], &[("a", 1)]), []);
    }
}
