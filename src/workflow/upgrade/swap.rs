//! One etcd in the place of another: the manifest is replaced in one rename, with nothing else between the end of the old
//! one and the start of the new one.
//!
//! After its signal an etcd answers what it was asked already, refuses what comes then, and waits for seconds (7 by default)
//! for its clients' watches, which the API server never ends. All that time nothing is served, so it is not waited for.

use std::path::Path;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::json;

use super::UpgradeError;
use super::apply::{Machine, tell, wait};
use super::journal::Journal;
use super::plan::Step;
use super::snapshot::keep_log_if_possible;
use crate::agent::control::expect::HealthSource;
use crate::agent::control::report::{HealthReport, PodReport};
use crate::agent::control::restart;
use crate::cluster::object::Object;
use crate::manifests::ETCD;
use crate::runtime::endpoint::Endpoint;
use crate::workflow::machine::Runtimes;

/// How long after its signal etcd may answer what it was asked: that takes it milliseconds.
const LAST_ANSWERS: Duration = Duration::from_millis(100);
/// How long the API server may take to find the new etcd: its client tries again after 1 s, 1.6 s more, and so on.
const API_LIMIT: Duration = Duration::from_secs(6);
/// How long one question to the API server may take.
const API_ANSWER: Duration = Duration::from_secs(1);
/// The pause between two questions.
const API_PAUSE: Duration = Duration::from_millis(50);

/// Replaces etcd and waits for the new one; journals whether that has served, and keeps the log of the old one.
pub(super) async fn swap(machine: &mut Machine<'_>, step: &Step, journal: &mut Journal) -> Result<(), UpgradeError> {
    if let Some(data) = &mut journal.etcd_data
        && data.served.take().is_some()
    {
        // What an earlier try came to says nothing of this one.
        journal.write(machine.tree)?;
    }
    let old = ending(machine, journal).await;
    machine.tree.write(&step.file, &step.new, 0o600)?;
    let healthy = wait_for(machine, &step.file, step.new_hash(), &old).await;
    if healthy.is_ok()
        && let Some(data) = &mut journal.etcd_data
    {
        data.served = Some(true);
        journal.write(machine.tree)?;
    }
    keep_log_if_possible(machine, journal);
    if healthy.is_ok() {
        await_api(machine).await;
    }
    healthy
}

/// The containers of the etcd that runs, whose end is not waited for; none where the agent does not say, and none of one of
/// several members: before its end it has another one elected.
pub(super) async fn ending(machine: &Machine<'_>, journal: &Journal) -> Vec<String> {
    if journal.restorable().is_none_or(|data| data.snapshot.is_none()) {
        return vec![];
    }
    let Ok(mut reports) = machine.health.watch().await else { return vec![] };
    reports.next().await.map_or_else(Vec::new, |report| restart::containers(&report, ETCD))
}

/// Waits for the etcd of a manifest that was written, and ends the grace of `old`.
pub(super) async fn wait_for(
    machine: &Machine<'_>,
    file: &Path,
    hash: String,
    old: &[String],
) -> Result<(), UpgradeError> {
    let ending = async {
        let address = Endpoint::of(machine.api.site.spec).address();
        end_grace(machine.health, machine.runtimes, address.as_deref(), old).await;
        std::future::pending().await
    };
    tokio::select! {
        healthy = wait(machine, ETCD, file, Some(hash)) => healthy,
        never = ending => never,
    }
}

/// Ends the grace of `containers` once the agent stops them. Whatever etcd has acknowledged is on the disk, so a kill loses
/// nothing. A failure costs the rest of the grace, no more.
async fn end_grace(health: &dyn HealthSource, runtimes: &dyn Runtimes, address: Option<&str>, containers: &[String]) {
    if containers.is_empty() {
        return;
    }
    let Ok(mut reports) = health.watch().await else { return };
    while let Some(report) = reports.next().await {
        if !are_stopped(&report, containers) {
            continue;
        }
        // etcd reports no event for it.
        tokio::time::sleep(LAST_ANSWERS).await;
        let Ok(runtime) = runtimes.connect(address) else { return };
        for id in containers {
            // One that has ended, or is gone, is fine.
            let _ = runtime.stop(id, Duration::ZERO).await;
        }
        return;
    }
}

/// Whether the agent has begun to stop all of them. One that has just started has not looked yet.
fn are_stopped(report: &HealthReport, containers: &[String]) -> bool {
    let has = |pod: &&PodReport| {
        let mut ids = pod.containers.iter().filter_map(|container| container.id.as_ref());
        ids.any(|id| containers.contains(id))
    };
    report.agent.synced && report.pods.iter().filter(has).all(|pod| pod.terminating)
}

/// Waits until the API server reads from the new etcd: replaced before, it would be away for both times in one. One that
/// does not is replaced all the same.
async fn await_api(machine: &Machine<'_>) {
    let value = json!({"metadata": {"name": "kubeadm-config", "namespace": "kube-system"}});
    let Ok(map) = serde_json::from_value::<ConfigMap>(value) else { return };
    let map = Object::new(&map);
    tell(machine.reporter, ETCD, "waiting for the API server to find it".into(), true);
    let answered = async {
        while !matches!(
            tokio::time::timeout(API_ANSWER, machine.api.cluster.get(machine.api.site, &map)).await,
            Ok(Ok(_))
        ) {
            // The API server reports no event for it.
            tokio::time::sleep(API_PAUSE).await;
        }
    };
    let _ = tokio::time::timeout(API_LIMIT, answered).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::machine::Bench;
    use crate::testing::report::{Script, pod, report};

    /// A report of etcd with a container.
    fn etcd(id: Option<&str>, terminating: bool) -> HealthReport {
        let mut one = pod(ETCD, "h");
        one.containers[0].id = id.map(str::to_owned);
        one.terminating = terminating;
        report(vec![one])
    }

    async fn stopped(reports: Vec<HealthReport>, containers: &[&str]) -> Vec<String> {
        let (bench, script) = (Bench::new(), Script::new(vec![reports]));
        let containers: Vec<String> = containers.iter().map(|id| (*id).to_owned()).collect();
        let ending = end_grace(&script, &*bench.world, None, &containers);
        let _ = tokio::time::timeout(Duration::from_secs(60), ending).await;
        bench.runtime.calls_of("stop")
    }

    #[tokio::test(start_paused = true)]
    async fn the_grace_of_the_old_etcd_ends_when_the_agent_stops_it_and_not_before() {
        let runs = etcd(Some("old"), false);
        assert_eq!(stopped(vec![runs.clone(), runs.clone()], &["old"]).await, [""; 0]);
        // The pod of the new manifest, or the old one on its way out.
        for next in [etcd(None, false), etcd(Some("new"), false), etcd(Some("old"), true), report(vec![])] {
            assert_eq!(stopped(vec![runs.clone(), next], &["old"]).await, ["old 0s"]);
        }
        let mut unsynced = report(vec![]);
        unsynced.agent.synced = false;
        assert_eq!(stopped(vec![runs.clone(), unsynced], &["old"]).await, [""; 0]);
        assert_eq!(stopped(vec![runs, etcd(None, false)], &[]).await, [""; 0], "one whose end others have to see");
    }
}
