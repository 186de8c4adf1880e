//! Carries out the plan: one request at a time for each pod, a few at a time for all, and none again in a hurry that was
//! refused.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::core::Request;
use kube::{Client, Resource};
use serde::de::IgnoredAny;
use tokio::sync::{mpsc, watch::Receiver};
use tokio::task::JoinSet;
use tracing::{debug, error, info, warn};

use super::Uids;
use super::object::{self, Found};
use super::plan::{Case, Local, Mirror, Step, step};
use super::watch::{self, News};
use crate::agent::apiserver::ApiServer;
use crate::agent::apiserver::call::{CallError, within_limit};
use crate::agent::apiserver::registered::NodeIdentity;
use crate::agent::backoff::Steps;
use crate::agent::board::{Board, Entry};
use crate::agent::cluster::pod_status::{Sent, patch_status};
use crate::agent::crash::{Crash, caught, caught_now};
use crate::agent::events::{Recorder, Subject};
use crate::agent::pod::{PodKey, StaticPod};
use crate::error::chain;
use crate::host::clock::Instant;

/// Requests under way at a time.
const IN_FLIGHT: usize = 4;
/// How long to wait after a request that was refused. There is no event for a namespace that appears: a node may not
/// watch them.
const REFUSED: Steps = Steps { initial: Duration::from_secs(1), cap: Duration::from_secs(20) };
/// How soon a status is given again to a mirror that another client has changed (the kubelet's interval).
const RECONCILE: Duration = Duration::from_secs(10);
/// How long the watch may take to show what a request has done.
const AWAIT: Duration = Duration::from_secs(10);
/// The reason of the event that tells of a pod without a mirror.
const NO_MIRROR: &str = "FailedMirrorPod";

/// What the driver works with.
pub struct Parts {
    pub board: Arc<Board>,
    pub api: Arc<ApiServer>,
    pub events: Arc<Recorder>,
    pub node_name: String,
    pub uids: Uids,
}

/// What is remembered of one pod and its mirror.
#[derive(Default)]
struct Track {
    /// A request is under way.
    busy: bool,
    /// What the watch is to show before anything else is done, and until when that is waited for.
    awaited: Option<(Awaited, Instant)>,
    /// The status that was given to a mirror.
    shown: Option<Shown>,
    /// Refused requests in a row, for which manifest and Node, and when to try again.
    failures: u32,
    tried: (String, Option<String>),
    retry_at: Option<Instant>,
    /// Why there is no mirror, as it was reported last.
    reported: String,
}

struct Shown {
    uid: String,
    status: PodStatus,
    version: String,
    at: Instant,
}

#[derive(Debug, PartialEq, Eq)]
enum Awaited {
    /// A mirror with this UID.
    Seen(String),
    /// None with this UID.
    Gone(String),
}

/// A step with all it needs.
enum Task {
    Create(Box<Pod>),
    Delete { uid: String },
    Status { uid: String, status: Box<PodStatus> },
}

/// What became of it.
enum Done {
    Created(Result<Found, CallError>),
    Deleted(String, Result<(), CallError>),
    Told { uid: String, status: Box<PodStatus>, result: Result<Sent, CallError> },
    Crashed(Crash),
}

/// See the module.
pub struct Driver {
    parts: Parts,
    node: Receiver<Option<NodeIdentity>>,
    /// None while the API server is away.
    mirrors: Option<BTreeMap<PodKey, Mirror>>,
    tracks: BTreeMap<PodKey, Track>,
    calls: JoinSet<(PodKey, Done)>,
}

impl Driver {
    /// Nothing is known yet.
    pub fn new(parts: Parts, node: Receiver<Option<NodeIdentity>>) -> Self {
        Self { parts, node, mirrors: None, tracks: BTreeMap::new(), calls: JoinSet::new() }
    }

    /// Runs for ever; what ends it ends its requests too.
    pub async fn run(mut self) {
        let (sender, mut news) = mpsc::channel(64);
        let mut watch = JoinSet::new();
        let name = self.parts.node_name.clone();
        watch.spawn(watch::run(Arc::clone(&self.parts.api), name, self.node.clone(), sender));
        let mut pods = self.parts.board.changes();
        let mut node_ends = false;
        loop {
            pods.borrow_and_update();
            let wake = self.act();
            tokio::select! {
                reported = news.recv() => match reported {
                    Some(reported) => self.receive(reported),
                    None => return,
                },
                _ = pods.changed() => {}
                changed = self.node.changed(), if !node_ends => node_ends = changed.is_err(),
                Some(done) = self.calls.join_next() => {
                    if let Ok((key, done)) = done {
                        self.note(&key, done);
                    }
                }
                () = sleep_until(wake) => {}
            }
        }
    }

    fn receive(&mut self, news: News) {
        match news {
            News::Lost => self.mirrors = None,
            News::Listed(mirrors) => {
                self.parts.uids.clear();
                mirrors.values().for_each(|mirror| self.parts.uids.set(&mirror.uid, &mirror.hash));
                // A list is later than all that was done before it: what has not come of that will not.
                self.tracks.values_mut().for_each(|track| track.awaited = None);
                self.mirrors = Some(mirrors);
            }
            News::Seen(key, mirror) => {
                let Some(mirrors) = &mut self.mirrors else { return };
                self.parts.uids.set(&mirror.uid, &mirror.hash);
                if let Some(track) = self.tracks.get_mut(&key) {
                    track.awaited.take_if(|(awaited, _)| match awaited {
                        Awaited::Seen(uid) => *uid == mirror.uid,
                        Awaited::Gone(uid) => *uid != mirror.uid,
                    });
                }
                mirrors.insert(key, mirror);
            }
            News::Gone(key, uid) => {
                self.parts.uids.remove(&uid);
                if let Some(mirrors) = &mut self.mirrors
                    && mirrors.get(&key).is_some_and(|mirror| mirror.uid == uid)
                {
                    mirrors.remove(&key);
                }
                if let Some(track) = self.tracks.get_mut(&key) {
                    track.awaited.take_if(
                        |(awaited, _)| matches!(awaited, Awaited::Gone(one) | Awaited::Seen(one) if *one == uid),
                    );
                    track.shown.take_if(|shown| shown.uid == uid);
                }
            }
        }
    }

    /// Begins what is to be done now. Returns when to look again though nothing happens.
    fn act(&mut self) -> Option<Instant> {
        let client = self.parts.api.client()?;
        let now = Instant::now();
        let node = self.node.borrow_and_update().clone();
        let mut wake = Wake(None);
        let tasks = self.tasks(node.as_ref(), now, &mut wake);
        for (key, task) in tasks {
            self.tracks.entry(key.clone()).or_default().busy = true;
            let client = client.clone();
            self.calls.spawn(async move {
                let done = caught(perform(&client, &key, task)).await.unwrap_or_else(Done::Crashed);
                (key, done)
            });
        }
        wake.0
    }

    /// What is to be done now, as far as there is room for it.
    fn tasks(&mut self, node: Option<&NodeIdentity>, now: Instant, wake: &mut Wake) -> Vec<(PodKey, Task)> {
        let Some(mirrors) = &self.mirrors else { return vec![] };
        let mut tasks = Vec::new();
        let (tracks, room) = (&mut self.tracks, IN_FLIGHT.saturating_sub(self.calls.len()));
        self.parts.board.visit(|pods, settled| {
            let locals = pods.iter().filter(|(_, entry)| is_static(entry)).map(|(key, _)| key);
            let keys: BTreeSet<&PodKey> = locals.chain(mirrors.keys()).collect();
            tracks.retain(|key, track| track.busy || keys.contains(key));
            for key in keys {
                let entry = pods.get(key).filter(|entry| is_static(entry));
                let track = tracks.entry(key.clone()).or_default();
                let view = View { entry, mirror: mirrors.get(key), node, settled };
                if tasks.len() >= room {
                    continue;
                }
                match caught_now(|| view.task(track, now, wake)) {
                    Ok(task) => tasks.extend(task.map(|task| (key.clone(), task))),
                    Err(crash) => crashed(key, track, &crash),
                }
            }
        });
        tasks
    }

    fn note(&mut self, key: &PodKey, done: Done) {
        let mirror = self.mirrors.as_ref().and_then(|mirrors| mirrors.get(key));
        let until = Instant::now() + AWAIT;
        let Some(track) = self.tracks.get_mut(key) else { return };
        track.busy = false;
        let refusal = match done {
            Done::Created(Ok(found)) => {
                info!(pod = %key, uid = found.uid(), "made the mirror pod");
                if mirror.is_none_or(|mirror| mirror.uid != found.uid()) {
                    track.awaited = Some((Awaited::Seen(found.uid().to_owned()), until));
                }
                None
            }
            Done::Deleted(uid, Ok(())) => {
                info!(pod = %key, uid, "deleted the mirror pod");
                if mirror.is_some_and(|mirror| mirror.uid == uid) {
                    track.awaited = Some((Awaited::Gone(uid), until));
                }
                None
            }
            Done::Told { uid, status, result: Ok(Sent::Kept { version }) } => {
                track.shown = Some(Shown { uid, status: *status, version, at: Instant::now() });
                None
            }
            Done::Told { uid, result: Ok(Sent::Gone), .. } => {
                track.awaited = Some((Awaited::Gone(uid), until));
                None
            }
            Done::Created(Err(error)) => Some(("make", error)),
            Done::Deleted(_, Err(error)) => Some(("delete", error)),
            Done::Told { result: Err(error), .. } => Some(("tell the status to", error)),
            Done::Crashed(crash) => return crashed(key, track, &crash),
        };
        match refusal {
            None => (track.failures, track.retry_at, track.reported) = (0, None, String::new()),
            Some((what, error)) => refused(&self.parts, key, track, what, &error),
        }
    }
}

/// It is retried later, and reported when it was not reported before. An API server that does not answer is not reported.
fn refused(parts: &Parts, key: &PodKey, track: &mut Track, what: &str, error: &CallError) {
    track.failures = track.failures.saturating_add(1);
    track.retry_at = Some(Instant::now() + REFUSED.spread(track.failures));
    let text = chain(error);
    if error.code().is_none() {
        debug!(pod = %key, error = text, "cannot {what} the mirror pod now");
        return;
    }
    if std::mem::replace(&mut track.reported, text.clone()) != text {
        warn!(pod = %key, error = text, "cannot {what} the mirror pod; the pod itself is not affected");
        let subject = Subject { pod: key, uid: &track.tried.0, container: None };
        parts.events.warning(subject, NO_MIRROR, format!("cannot {what} the mirror pod: {text}"));
    }
}

/// What crashes with one pod waits as long as what is refused; the other pods' mirrors go on.
fn crashed(key: &PodKey, track: &mut Track, crash: &Crash) {
    track.failures = track.failures.saturating_add(1);
    track.awaited = None;
    track.retry_at = Some(Instant::now() + REFUSED.after(track.failures));
    error!(pod = %key, error = %crash, "the mirror pod stays as it is");
}

/// A pod whose mirror this is about: not one that the API server gave the node.
fn is_static(entry: &Entry) -> bool {
    entry.pod.as_deref().is_none_or(StaticPod::has_mirror)
}

/// One pod and its mirror.
struct View<'a> {
    entry: Option<&'a Entry>,
    mirror: Option<&'a Mirror>,
    node: Option<&'a NodeIdentity>,
    settled: bool,
}

impl View<'_> {
    /// What is to be done now, and when to look again at what must wait.
    fn task(&self, track: &mut Track, now: Instant, wake: &mut Wake) -> Option<Task> {
        if track.busy {
            return None;
        }
        track.awaited.take_if(|(_, until)| *until <= now);
        let node = self.node.map(|node| node.uid.as_str());
        let local = self.entry.map(|entry| Local {
            hash: &entry.report.uid,
            ending: entry.report.terminating,
            succeeds: entry.succeeds,
            predecessor: self.mirror.and_then(|mirror| entry.predecessors.get(&mirror.hash)),
            status: entry.looked.then_some(&entry.status),
        });
        let shown = self.shown(track, now, wake);
        let step = step(&Case { local, mirror: self.mirror, node, shown, settled: self.settled })?;
        if let Some((_, until)) = &track.awaited {
            wake.at(*until);
            return None;
        }
        let tried = (local.map(|local| local.hash.to_owned()).unwrap_or_default(), node.map(str::to_owned));
        if let Some(at) = track.retry_at.filter(|at| *at > now && track.tried == tried) {
            wake.at(at);
            return None;
        }
        if track.tried != tried {
            (track.failures, track.tried) = (0, tried);
        }
        self.of(step)
    }

    /// The status that this mirror has, None where that is not known: another client has changed it since.
    fn shown<'t>(&self, track: &'t Track, now: Instant, wake: &mut Wake) -> Option<&'t PodStatus> {
        let mirror = self.mirror?;
        let shown = track.shown.as_ref().filter(|shown| shown.uid == mirror.uid)?;
        if shown.version != mirror.version {
            let again = shown.at + RECONCILE;
            if again <= now {
                return None;
            }
            wake.at(again);
        }
        Some(&shown.status)
    }

    fn of(&self, step: Step) -> Option<Task> {
        match step {
            Step::Create => {
                let pod = self.entry?.pod.as_deref()?;
                Some(Task::Create(Box::new(object::of(pod, self.node?))))
            }
            Step::Delete => Some(Task::Delete { uid: self.mirror?.uid.clone() }),
            Step::Status => {
                let status = Box::new(self.entry?.status_of(&self.mirror?.hash)?.clone());
                Some(Task::Status { uid: self.mirror?.uid.clone(), status })
            }
        }
    }
}

/// The earliest of several moments.
struct Wake(Option<Instant>);

impl Wake {
    fn at(&mut self, moment: Instant) {
        self.0 = Some(self.0.map_or(moment, |before| before.min(moment)));
    }
}

async fn sleep_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => crate::host::clock::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

async fn perform(client: &Client, key: &PodKey, task: Task) -> Done {
    match task {
        Task::Create(pod) => Done::Created(create(client, key, &pod).await),
        Task::Delete { uid } => {
            let result = delete(client, key, &uid).await;
            Done::Deleted(uid, result)
        }
        Task::Status { uid, status } => {
            let result = patch_status(client, &key.namespace, &key.name, &uid, &status).await;
            Done::Told { uid, status, result }
        }
    }
}

fn request(key: &PodKey) -> Request {
    Request::new(Pod::url_path(&(), Some(&key.namespace)))
}

async fn create(client: &Client, key: &PodKey, pod: &Pod) -> Result<Found, CallError> {
    within_limit(async {
        let body = serde_json::to_vec(pod).map_err(kube::Error::SerdeError)?;
        let request = request(key).create(&PostParams::default(), body).map_err(kube::Error::BuildRequest)?;
        client.request(request).await
    })
    .await
}

/// That it is gone already, or another has come after it, is as good.
async fn delete(client: &Client, key: &PodKey, uid: &str) -> Result<(), CallError> {
    let preconditions = Preconditions { uid: Some(uid.to_owned()), ..Preconditions::default() };
    let params = DeleteParams::default().grace_period(0).preconditions(preconditions);
    let request = request(key).delete(&key.name, &params);
    let deleted = within_limit(async {
        client.request::<IgnoredAny>(request.map_err(kube::Error::BuildRequest)?).await.map(drop)
    });
    match deleted.await {
        Err(error) if matches!(error.code(), Some(404 | 409)) => Ok(()),
        other => other,
    }
}
