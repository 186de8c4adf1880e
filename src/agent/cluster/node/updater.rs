//! Registers the Node and keeps its status up to date.
//!
//! A session lasts as long as its watch on the Node does: while the API server is away the agent comes back to it with
//! the kubelet's back-off, and nothing else waits for that. A Node that is deleted comes back at once, which a kubelet
//! would do only when it is restarted; what an administrator had given it does not, for a node may not give itself the
//! label and the taint of a control plane: `kubeboot init phase mark-control-plane` does.

use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::{Node, NodeStatus};
use kube::api::{Api, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::{Client, ResourceExt};
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::observer::{Observer, Version};
use super::{events, object, status};
use crate::agent::apiserver::CALL_LIMIT;
use crate::agent::apiserver::registered::NodeIdentity;
use crate::agent::backoff::{Steps, jittered};
use crate::agent::cluster::Parts;
use crate::agent::control::report::HealthReport;
use crate::agent::events::Kind;
use crate::agent::wording;
use crate::error::chain;
use crate::host::clock::{Instant, sleep_until};

/// How long to wait for an API server that is away, or refuses: the kubelet's numbers.
const RETRY: Steps = Steps { initial: Duration::from_millis(100), cap: Duration::from_secs(7) };
/// How long the first status waits for the runtime: a Node that is not ready at first is tainted.
const RUNTIME_WAIT: Duration = Duration::from_secs(3);
/// The component that answers.
const API_SERVER: &str = "kube-apiserver";
/// By how much the intervals differ from one time to the next.
const UPDATE_JITTER: f64 = 0.04;
const REPORT_JITTER: f64 = 0.5;

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The API server refused, or could not be reached.
    #[error("cannot {what}")]
    Call {
        /// What was tried.
        what: &'static str,
        /// What came of it.
        #[source]
        source: Box<kube::Error>,
    },
    /// It did not answer in time.
    #[error("cannot {what}: no answer within {} s", CALL_LIMIT.as_secs())]
    Timeout {
        /// What was tried.
        what: &'static str,
    },
    /// There is no Node, and the agent is not to make one.
    #[error("the Node is not there, and registerNode is false")]
    NotRegistered,
    /// The watch has ended, as watches do.
    #[error("the watch on the Node has ended")]
    WatchEnded,
}

impl SessionError {
    /// What the API server answered, if it did.
    fn code(&self) -> Option<u16> {
        match self {
            Self::Call { source, .. } => match &**source {
                kube::Error::Api(status) => Some(status.code),
                _ => None,
            },
            _ => None,
        }
    }

    fn is_gone(&self) -> bool {
        self.code() == Some(404)
    }

    /// Whether the object is another by now, or none.
    pub fn is_conflict(&self) -> bool {
        matches!(self.code(), Some(404 | 409))
    }
}

/// One request.
pub async fn call<T>(
    what: &'static str,
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, SessionError> {
    let answer = timeout(CALL_LIMIT, request).await.map_err(|_| SessionError::Timeout { what })?;
    answer.map_err(|source| SessionError::Call { what, source: source.into() })
}

/// Keeps the Node until the agent ends.
pub async fn keep(parts: Parts) {
    let api = Arc::clone(&parts.api);
    let mut clients = api.clients();
    let observer = Observer::new(&parts).await;
    let mut updater =
        NodeUpdater { observer, parts, failures: 0, next_report: None, reported: None, unschedulable: false };
    updater.tell((Kind::Normal, "Starting", wording::STARTING.with(&[])));
    loop {
        let client = clients.borrow_and_update().clone();
        let Some(client) = client else {
            if clients.changed().await.is_err() {
                return;
            }
            continue;
        };
        let ended = tokio::select! {
            ended = updater.session(client) => ended,
            _ = clients.changed() => continue,
        };
        match ended {
            Ok(()) => {}
            Err(SessionError::WatchEnded) => debug!("the watch on the Node has ended"),
            Err(error) if error.is_gone() => updater.gone(),
            Err(error) => {
                // An API server that is away is no news on a node that runs it.
                match updater.failures {
                    0 => warn!(error = chain(&error), "the Node cannot be kept up to date"),
                    _ => debug!(error = chain(&error), "the Node cannot be kept up to date yet"),
                }
                updater.failures = updater.failures.saturating_add(1);
            }
        }
        updater.pause().await;
    }
}

struct NodeUpdater {
    parts: Parts,
    observer: Observer,
    failures: u32,
    /// When the status is sent although it is what it was.
    next_report: Option<Instant>,
    /// The status that events have reported.
    reported: Option<NodeStatus>,
    /// Whether the Node was closed for new pods.
    unschedulable: bool,
}

impl NodeUpdater {
    fn gone(&mut self) {
        info!("the Node has been deleted; it is registered again");
        self.parts.node.set(None);
        (self.next_report, self.reported) = (None, None);
    }

    fn tell(&self, (kind, reason, message): events::NodeEvent) {
        self.parts.events.node(&self.parts.options.node_name, kind, reason, message);
    }

    /// Tells what has become of the Node, whose status was `there` before the agent said anything.
    fn report_changes(&mut self, there: &NodeStatus, now: &NodeStatus) {
        let before = self.reported.take().unwrap_or_else(|| events::known(there));
        for reported in events::changes(&self.parts.options.node_name, &before, now) {
            self.tell(reported);
        }
        let (conditions, node_info) = (now.conditions.clone(), now.node_info.clone());
        self.reported = Some(NodeStatus { conditions, node_info, ..NodeStatus::default() });
    }

    /// Waits until it is time for another try: at once where the API server is a pod of this very node and has just
    /// become healthy.
    async fn pause(&self) {
        let pause = RETRY.spread(self.failures);
        let mut reports = self.parts.board.reports();
        if serves(&reports.borrow_and_update()) {
            return sleep(pause).await;
        }
        // Reports are published as long as the agent runs.
        let _ = timeout(pause, reports.wait_for(|report| serves(report))).await;
    }

    /// From the first answer to the first failure, or until the Node is gone.
    async fn session(&mut self, client: Client) -> Result<(), SessionError> {
        let version = call("ask for the version", client.apiserver_version()).await?;
        let version = Version { minor: minor(&version.minor), full: version.git_version };
        let nodes: Api<Node> = Api::all(client);
        let mut node = self.register(&nodes, &version).await?;
        if self.failures > 0 {
            info!("the Node is kept up to date again");
            self.failures = 0;
        }
        let name = self.parts.options.node_name.clone();
        let params = WatchParams::default().fields(&format!("metadata.name={name}"));
        // From the version that was just read: kube's `watcher` would list first, and go on where a session is to end.
        let since = node.resource_version().unwrap_or_default();
        let events = call("watch the Node", nodes.watch(&params, &since)).await?;
        let mut events = Box::pin(events);
        let mut reports = self.parts.board.reports();
        let mut devices = self.parts.devices.changes();
        loop {
            devices.mark_unchanged();
            self.identify(&node);
            self.send(&nodes, &version, &mut node).await?;
            let mut due =
                Box::pin(sleep_until(Instant::now() + jittered(self.parts.options.node.status_update, UPDATE_JITTER)));
            let runtime = reports.borrow_and_update().agent.runtime.is_some();
            loop {
                tokio::select! {
                    () = &mut due => break,
                    Ok(()) = devices.changed() => break,
                    changed = reports.changed() => {
                        // The runtime that comes or goes is news; a pod that does is none.
                        if changed.is_err() || reports.borrow_and_update().agent.runtime.is_some() != runtime {
                            break;
                        }
                    }
                    now = next(&mut events) => match now? {
                        Some(now) => node = now,
                        None => {
                            self.gone();
                            return Ok(());
                        }
                    },
                }
            }
        }
    }

    fn identify(&mut self, node: &Node) {
        let unschedulable = node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false);
        if std::mem::replace(&mut self.unschedulable, unschedulable) != unschedulable {
            self.tell(events::schedulable(&self.parts.options.node_name, !unschedulable));
        }
        let (name, uid) = (node.name_any(), node.uid().unwrap_or_default());
        self.parts.node.set_labels(node.metadata.labels.clone().unwrap_or_default());
        self.parts.node.set(Some(NodeIdentity { name, uid }));
    }

    /// The Node as it is registered, by now.
    async fn register(&mut self, nodes: &Api<Node>, version: &Version) -> Result<Node, SessionError> {
        let (options, name) = (&self.parts.options.node, &self.parts.options.node_name);
        if let Some(node) = call("read the Node", nodes.get_opt(name)).await? {
            return match object::amended(&node, name, options) {
                Some(patch) => {
                    let patch = Patch::Merge(&patch);
                    call("mend the Node", nodes.patch(name, &PatchParams::default(), &patch)).await
                }
                None => Ok(node),
            };
        }
        if !options.register {
            return Err(SessionError::NotRegistered);
        }
        let mut reports = self.parts.board.reports();
        let linked = reports.wait_for(|report| report.agent.runtime.is_some());
        // Without a runtime the Node is one that is not ready.
        let _ = timeout(RUNTIME_WAIT, linked).await;
        let status = self.observer.status(&self.parts, version, &NodeStatus::default()).await;
        let made = object::node(name, options, status.clone());
        let made = call("register the Node", nodes.create(&PostParams::default(), &made)).await?;
        info!(node = name, uid = made.uid(), version = version.full, "registered the Node");
        let (status_report, there) = (options.status_report, NodeStatus::default());
        self.report_changes(&there, &status);
        self.next_report = Some(Instant::now() + jittered(status_report, REPORT_JITTER));
        Ok(made)
    }

    /// Sends the status if there is anything to say, or if nothing has been said for long.
    async fn send(&mut self, nodes: &Api<Node>, version: &Version, node: &mut Node) -> Result<(), SessionError> {
        let old = node.status.clone().unwrap_or_default();
        let new = self.observer.status(&self.parts, version, &old).await;
        self.report_changes(&old, &new);
        let quiet = self.next_report.is_some_and(|at| Instant::now() < at);
        if quiet && !status::differs(&old, &new) {
            return Ok(());
        }
        let what = "send the Node's status";
        let patch = status::patch(&old, &new);
        let patch = patch.map_err(|e| SessionError::Call { what, source: kube::Error::SerdeError(e).into() })?;
        let (name, params) = (&self.parts.options.node_name, PatchParams::default());
        *node = call(what, nodes.patch_status(name, &params, &Patch::Strategic(&patch))).await?;
        self.next_report = Some(Instant::now() + jittered(self.parts.options.node.status_report, REPORT_JITTER));
        Ok(())
    }
}

/// The Node after the next event; None once it is deleted.
async fn next(
    events: &mut (impl Stream<Item = Result<WatchEvent<Node>, kube::Error>> + Unpin),
) -> Result<Option<Node>, SessionError> {
    let fail = |source: kube::Error| SessionError::Call { what: "watch the Node", source: source.into() };
    loop {
        match events.next().await.ok_or(SessionError::WatchEnded)?.map_err(fail)? {
            WatchEvent::Added(node) | WatchEvent::Modified(node) => return Ok(Some(node)),
            WatchEvent::Deleted(_) => return Ok(None),
            WatchEvent::Bookmark(_) => {}
            // Too old a version: the next session begins with a new one.
            WatchEvent::Error(_) => return Err(SessionError::WatchEnded),
        }
    }
}

/// Whether an API server runs here and answers.
fn serves(report: &HealthReport) -> bool {
    report.pods.iter().any(|pod| pod.healthy && pod.component.as_deref() == Some(API_SERVER))
}

/// `20+` is 20.
fn minor(text: &str) -> u64 {
    text.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or(0)
}
