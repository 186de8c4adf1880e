//! What becomes of bound pods is reported to the API server: their statuses, that they are refused, and at the end of a
//! deletion that nothing of them is left, which is the node's to say.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, Preconditions};
use kube::{Api, Client};
use tokio::sync::watch;
use tracing::{debug, error, info, warn};

use super::bound_pods::Refused;
use crate::agent::admission::{PREEMPTED, Refusal};
use crate::agent::apiserver::call::{CallError, within_limit};
use crate::agent::backoff::CALL;
use crate::agent::cluster::Parts;
use crate::agent::cluster::pod_status::{Sent, patch_status};
use crate::agent::crash::{Crash, caught};
use crate::agent::pod::{PodKey, StaticPod};
use crate::agent::status;
use crate::error::chain;
use crate::host::clock::Instant;

/// Tells the API server until the agent ends.
pub async fn run(parts: Parts, mut refused: watch::Receiver<Vec<Refused>>) {
    let api = Arc::clone(&parts.api);
    let (mut statuses, mut clients) = (parts.board.changes(), api.clients());
    let (mut uploader, mut failures) = (Uploader::default(), 0_u32);
    loop {
        statuses.borrow_and_update();
        clients.borrow_and_update();
        let pods = refused.borrow_and_update().clone();
        let done = match api.client() {
            Some(client) => uploader.tell(&parts, &client, &pods).await,
            None => true,
        };
        failures = if done { 0 } else { failures.saturating_add(1) };
        let again = async {
            match failures {
                0 => std::future::pending().await,
                failures => tokio::time::sleep(CALL.spread(failures)).await,
            }
        };
        tokio::select! {
            Ok(()) = statuses.changed(), if failures == 0 => {}
            Ok(()) = refused.changed(), if failures == 0 => {}
            Ok(()) = clients.changed() => {}
            () = again => {}
            else => return,
        }
    }
}

/// What crashes with one pod is left out until something changes; the other pods are reported.
fn skipped(key: &PodKey, crash: &Crash) -> Result<(), CallError> {
    error!(pod = %key, error = %crash, "the status of the pod is not sent");
    Ok(())
}

/// A controller counts what had to go for another pod as no failure of its own.
fn conditions(refusal: &Refusal) -> Option<Vec<PodCondition>> {
    let target = PodCondition {
        type_: "DisruptionTarget".to_owned(),
        status: "True".to_owned(),
        reason: Some("TerminationByKubelet".to_owned()),
        message: Some("Pod was preempted by Kubelet to accommodate a critical pod.".to_owned()),
        last_transition_time: Some(Time(Timestamp::now())),
        ..PodCondition::default()
    };
    let not = |type_: &str| PodCondition {
        type_: type_.to_owned(),
        status: "False".to_owned(),
        reason: Some("PodFailed".to_owned()),
        last_transition_time: Some(Time(Timestamp::now())),
        ..PodCondition::default()
    };
    (refusal.reason == PREEMPTED).then(|| vec![target, not("Ready"), not("ContainersReady")])
}

/// How a pod is.
struct StatusReport {
    status: PodStatus,
    /// Nothing of it runs any more, and its status says all that is known of its end.
    over: bool,
}

/// What was reported to the API server.
#[derive(Default)]
struct Uploader {
    /// The status of each pod, by UID.
    sent: BTreeMap<String, PodStatus>,
    /// UIDs of pods that are gone for good.
    gone: BTreeSet<String>,
    /// How pods are that go for another one, which is what is left to tell of them when they have ended.
    going: BTreeMap<String, PodStatus>,
    /// Since when the API server is behind with pods, by UID.
    behind: BTreeMap<String, Instant>,
    /// What failed last, to say so once.
    failed: Option<String>,
}

impl Uploader {
    /// Reports what is new. Returns whether all of it could be reported.
    async fn tell(&mut self, parts: &Parts, client: &Client, refused: &[Refused]) -> bool {
        let bound: Vec<(Arc<StaticPod>, StatusReport)> = { parts.board.pods().into_iter() }
            .filter(|entry| entry.looked)
            .filter_map(|entry| {
                let reported = StatusReport { status: entry.status, over: entry.report.phase.is_final() };
                Some((entry.pod.filter(|pod| pod.bound.is_some())?, reported))
            })
            .collect();
        // What goes for a critical pod has failed once its containers have ended.
        let stopping: BTreeSet<String> = bound.iter().map(|(pod, _)| pod.uid.clone()).collect();
        let is_refused = |uid: &str| refused.iter().any(|one| one.uid == uid);
        let uids: BTreeSet<&str> =
            bound.iter().map(|(pod, _)| pod.uid.as_str()).chain(refused.iter().map(|one| one.uid.as_str())).collect();
        self.sent.retain(|uid, _| uids.contains(uid.as_str()));
        self.behind.retain(|uid, _| uids.contains(uid.as_str()));
        self.gone.retain(|uid| uids.contains(uid.as_str()));
        self.going.retain(|uid, _| uids.contains(uid.as_str()));
        for (pod, reported) in bound.iter().filter(|(pod, _)| is_refused(&pod.uid)) {
            let mut status = reported.status.clone();
            if let Some(before) = self.going.get(&pod.uid) {
                status::keep_ends(&mut status, before);
            }
            self.going.insert(pod.uid.clone(), status);
        }
        let mut failure = None;
        for (pod, reported) in bound.iter().filter(|(pod, _)| !is_refused(&pod.uid)) {
            let reported = caught(self.report_pod(parts, client, (pod, reported))).await;
            let result = reported.unwrap_or_else(|crash| skipped(&pod.key, &crash));
            failure = failure.or(result.err().map(|error| (pod.key.clone(), error)));
        }
        for one in refused {
            let reported = caught(self.report_refused(client, one, stopping.contains(&one.uid))).await;
            let result = reported.unwrap_or_else(|crash| skipped(&one.key, &crash));
            failure = failure.or(result.err().map(|error| (one.key.clone(), error)));
        }
        let words = failure.map(|(pod, error)| format!("{pod}: {}", chain(&error)));
        if let Some(words) = words.as_ref().filter(|words| self.failed.as_ref() != Some(words)) {
            warn!(words, "cannot tell the API server of a pod yet");
        }
        self.failed = words;
        self.failed.is_none()
    }

    async fn report_pod(
        &mut self,
        parts: &Parts,
        client: &Client,
        (pod, reported): (&StaticPod, &StatusReport),
    ) -> Result<(), CallError> {
        if self.gone.contains(&pod.uid) {
            return Ok(());
        }
        if pod.ended().is_some() && self.sent.get(&pod.uid).is_some_and(|sent| !status::is_final(sent)) {
            // Another client has called it ended, whose words the API server has.
            self.sent.remove(&pod.uid);
        }
        let generation = pod.bound.as_ref().and_then(|bound| bound.generation);
        let since = *self.behind.entry(pod.uid.clone()).or_insert_with(Instant::now);
        let sent = self.report_status(client, (&pod.key, &pod.uid), reported.status.clone(), generation).await?;
        self.behind.remove(&pod.uid);
        if sent {
            parts.metrics.status_sync.time(since.elapsed());
            if let Some(created) = pod.created() {
                parts.metrics.startups.reported(&pod.uid, &pod.spec, &reported.status, created);
            }
        }
        if reported.over && pod.deletion().is_some() {
            self.delete(client, &pod.key, &pod.uid).await?;
        }
        Ok(())
    }

    /// `stopping`: something of the pod may still run.
    async fn report_refused(&mut self, client: &Client, one: &Refused, stopping: bool) -> Result<(), CallError> {
        if !one.reported && !stopping && !self.gone.contains(&one.uid) {
            let known = self.going.get(&one.uid).cloned().unwrap_or_default();
            let status = PodStatus {
                phase: Some("Failed".to_owned()),
                reason: Some(one.refusal.reason.clone()),
                message: Some(one.refusal.status_message()),
                conditions: conditions(&one.refusal),
                start_time: known.start_time.clone().or_else(|| Some(Time(Timestamp::now()))),
                ..known
            };
            self.report_status(client, (&one.key, &one.uid), status, one.generation).await?;
        }
        if one.deleted && !stopping { self.delete(client, &one.key, &one.uid).await } else { Ok(()) }
    }

    /// Returns whether there was anything to tell.
    async fn report_status(
        &mut self,
        client: &Client,
        (key, uid): (&PodKey, &str),
        mut status: PodStatus,
        generation: Option<i64>,
    ) -> Result<bool, CallError> {
        let before = match self.sent.get(uid) {
            Some(before) => before.clone(),
            // An agent that was restarted goes on from what the one before it said.
            None => {
                let pods = Api::<Pod>::namespaced(client.clone(), &key.namespace);
                let found = within_limit(pods.get_opt(&key.name)).await?;
                found
                    .filter(|pod| pod.metadata.uid.as_deref() == Some(uid))
                    .and_then(|pod| pod.status)
                    .unwrap_or_default()
            }
        };
        status::keep(&mut status, &before);
        status::keep_end(&mut status, &before);
        status.observed_generation = generation;
        status.conditions.iter_mut().flatten().for_each(|one| one.observed_generation = generation);
        if before == status {
            self.sent.insert(uid.to_owned(), before);
            return Ok(false);
        }
        match patch_status(client, &key.namespace, &key.name, uid, &status).await? {
            Sent::Kept { .. } => debug!(pod = %key, phase = status.phase, "status sent"),
            Sent::Gone => drop(self.gone.insert(uid.to_owned())),
        }
        self.sent.insert(uid.to_owned(), status);
        Ok(true)
    }

    /// Nothing of a deleted pod runs any more: the API server may forget it.
    async fn delete(&mut self, client: &Client, key: &PodKey, uid: &str) -> Result<(), CallError> {
        if self.gone.contains(uid) {
            return Ok(());
        }
        let preconditions = Preconditions { uid: Some(uid.to_owned()), ..Preconditions::default() };
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(preconditions),
            ..DeleteParams::default()
        };
        let pods = Api::<Pod>::namespaced(client.clone(), &key.namespace);
        match within_limit(pods.delete(&key.name, &params)).await {
            Ok(_) => info!(pod = %key, "deleted"),
            // Gone already, or another one of its name.
            Err(error) if matches!(error.code(), Some(404 | 409)) => {}
            Err(error) => return Err(error),
        }
        self.gone.insert(uid.to_owned());
        Ok(())
    }
}
