//! The API server as a source of pods: a list of those with `spec.nodeName` of this node, then a watch from there.
//!
//! When no API server answers, pods stay what they were: none is ended because the API server is down. Before the first
//! list it is not known what is wanted, and what runs of such pods is left alone.
//!
//! Not kube's `watcher`, though it takes no more memory (10.3 MB for 100 pods, and 10.1 MB this way): it has no limit for a
//! list that is never answered, and opens a watch that a server ends at once again without a pause (25 times a second
//! where it was measured).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::{Api, Client};
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;
use tracing::{debug, info, warn};

use super::admission::{NodeOffers, Verdict};
use super::bound_pods::{BoundPods, Refused};
use crate::agent::admission::{Refusal, Site, amounts};
use crate::agent::apiserver::ApiServer;
use crate::agent::apiserver::call::{CallError, within_limit};
use crate::agent::backoff::CALL;
use crate::agent::cluster::Parts;
use crate::agent::events::Subject;
use crate::agent::pod::StaticPod;
use crate::agent::source::Update;
use crate::error::chain;
use crate::host::clock::Instant;
use crate::runtime::PodNetwork;

/// How often a pod that waits for something of the node's is looked at again.
const LOOK: Duration = Duration::from_secs(5);
/// A watch that held this long was a good one.
const LASTS: Duration = Duration::from_secs(10);

/// Why a watch begins again with a list.
#[derive(Debug, thiserror::Error)]
enum SourceError {
    #[error("cannot list the pods of this node")]
    List(#[source] CallError),
    #[error("cannot watch the pods of this node")]
    Watch(#[source] CallError),
    #[error("the watch of the pods of this node has ended: {0}")]
    Ended(String),
}

/// Publishes the pods that the API server has bound to this node, and those that this node does not run, until the agent
/// ends.
pub async fn run(parts: Parts, updates: mpsc::Sender<Update>, refused: watch::Sender<Vec<Refused>>) {
    let api = Arc::clone(&parts.api);
    let (mut preempted, mut without_devices) = (parts.preempted.clone(), parts.without_devices.clone());
    // What was decided is news where this begins again.
    preempted.mark_changed();
    without_devices.mark_changed();
    let source = Source { bound_pods: BoundPods::default(), updates, refused, preempted, without_devices, parts };
    source.run(&api).await;
}

struct Source {
    parts: Parts,
    bound_pods: BoundPods,
    updates: mpsc::Sender<Update>,
    refused: watch::Sender<Vec<Refused>>,
    /// UIDs of pods that go for a static one.
    preempted: watch::Receiver<BTreeSet<String>>,
    /// Why pods are not run that lack devices, by UID.
    without_devices: watch::Receiver<BTreeMap<String, Refusal>>,
}

impl Source {
    async fn run(mut self, api: &ApiServer) {
        let (mut clients, mut failures) = (api.clients(), 0_u32);
        loop {
            let client = clients.borrow_and_update().clone();
            let Some(client) = client else {
                if clients.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let started = Instant::now();
            let ended = tokio::select! {
                ended = self.session(&client) => ended,
                changed = clients.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return,
                },
            };
            let Err(error) = ended else { return };
            failures = if started.elapsed() >= LASTS { 0 } else { failures.saturating_add(1) };
            if failures == 2 {
                warn!(error = chain(&error), "pods that the API server binds to this node stay as they are");
            } else {
                debug!(error = chain(&error), "listing the pods of this node again");
            }
            tokio::select! {
                () = tokio::time::sleep(CALL.spread(failures)) => {}
                changed = clients.changed() => if changed.is_err() { return },
            }
        }
    }

    /// One list and the watches from it. Ends well only when the receiver of pods is gone.
    async fn session(&mut self, client: &Client) -> Result<(), SourceError> {
        let (pods, mine) = (Api::<Pod>::all(client.clone()), format!("spec.nodeName={}", self.parts.options.node_name));
        let list = within_limit(pods.list(&ListParams::default().fields(&mine))).await.map_err(SourceError::List)?;
        let mut version = list.metadata.resource_version.clone().unwrap_or_default();
        self.bound_pods.list(list.items, Timestamp::now());
        self.decide(client).await;
        info!(pods = self.bound_pods.update().pods.len(), "listed the pods that are bound to this node");
        loop {
            if self.publish().await.is_err() {
                return Ok(());
            }
            let started = Instant::now();
            let watch = within_limit(pods.watch(&WatchParams::default().fields(&mine), &version)).await;
            let mut events = watch.map_err(SourceError::Watch)?.boxed();
            let mut looks = crate::host::clock::interval_at(Instant::now() + LOOK, LOOK);
            looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                let event = tokio::select! {
                    event = events.try_next() => event,
                    Ok(()) = self.preempted.changed() => {
                        let uids = self.preempted.borrow_and_update().clone();
                        // The supervisor has reported it, and stops them.
                        self.bound_pods.preempt(&uids);
                        if self.publish().await.is_err() {
                            return Ok(());
                        }
                        continue;
                    }
                    Ok(()) = self.without_devices.changed() => {
                        let refusals = self.without_devices.borrow_and_update().clone();
                        self.bound_pods.refuse(&refusals);
                        if self.publish().await.is_err() {
                            return Ok(());
                        }
                        continue;
                    }
                    _ = looks.tick(), if self.bound_pods.is_open() => {
                        self.decide(client).await;
                        if self.publish().await.is_err() {
                            return Ok(());
                        }
                        continue;
                    }
                };
                match event {
                    Ok(Some(event)) => version = self.receive(event, version)?,
                    // A server ends each watch after some minutes; so does a proxy one on which nothing is said.
                    _ if started.elapsed() >= LASTS => break,
                    Ok(None) => return Err(SourceError::Ended("the server closed it".to_owned())),
                    Err(error) => return Err(SourceError::Ended(chain(&error))),
                }
                self.decide(client).await;
                if self.publish().await.is_err() {
                    return Ok(());
                }
            }
        }
    }

    /// Takes an event in and returns the version it is of.
    fn receive(&mut self, event: WatchEvent<Pod>, before: String) -> Result<String, SourceError> {
        let version = |pod: &Pod| pod.metadata.resource_version.clone().unwrap_or_default();
        Ok(match event {
            WatchEvent::Added(pod) | WatchEvent::Modified(pod) => {
                let version = version(&pod);
                self.bound_pods.put(pod, Timestamp::now());
                version
            }
            WatchEvent::Deleted(pod) => {
                self.bound_pods.gone(pod.metadata.uid.as_deref().unwrap_or_default());
                version(&pod)
            }
            WatchEvent::Bookmark(mark) => mark.metadata.resource_version,
            WatchEvent::Error(status) => {
                debug!(before, code = status.code, "the watch is too far behind");
                return Err(SourceError::Ended(status.message));
            }
        })
    }

    async fn publish(&self) -> Result<(), mpsc::error::SendError<Update>> {
        let refused = self.bound_pods.refused();
        self.refused.send_if_modified(|before| std::mem::replace(before, refused.clone()) != refused);
        self.updates.send(self.bound_pods.update()).await
    }

    /// Decides about pods that are new.
    async fn decide(&mut self, client: &Client) {
        if !self.bound_pods.is_open() {
            return;
        }
        let node = node(&self.parts, client).await;
        let entries = self.parts.board.pods().into_iter().filter(|entry| !entry.report.phase.is_final());
        let statics: Vec<Arc<StaticPod>> =
            entries.filter_map(|entry| entry.pod).filter(|pod| pod.bound.is_none()).collect();
        for (pod, verdict) in self.bound_pods.judge(&node, &statics) {
            let subject = Subject { pod: &pod.key, uid: &pod.uid, container: None };
            match verdict {
                Verdict::Refused(refusal) => {
                    info!(pod = %pod.key, reason = refusal.reason, message = refusal.message, "pod refused");
                    self.parts.events.warning(subject, &refusal.reason, refusal.message);
                }
                Verdict::Later(why) => self.parts.events.warning(subject, "NetworkNotReady", why),
                Verdict::Admitted => {}
            }
        }
    }
}

/// What is known of the node: by its object where there is one, else by the machine.
async fn node(parts: &Parts, client: &Client) -> NodeOffers {
    let (nodes, name) = (Api::<Node>::all(client.clone()), &parts.options.node_name);
    let node = within_limit(nodes.get_opt(name)).await.unwrap_or_else(|error| {
        debug!(error = chain(&error), "the node's labels are not known");
        None
    });
    let network = parts.runtime.pod_network().await.unwrap_or_else(|error| PodNetwork::NotReady {
        reason: "RuntimeUnavailable".to_owned(),
        message: chain(&error),
    });
    let labels = node.as_ref().map(|node| node.metadata.labels.clone().unwrap_or_default());
    let status = node.and_then(|node| node.status).unwrap_or_default();
    let mut site = Site { labels, ..parts.site.clone() };
    site.allocatable.extend(amounts(&status.allocatable.or(status.capacity).unwrap_or_default()));
    NodeOffers { site, network, has_handlers: parts.runtime.needs_sandbox() }
}
