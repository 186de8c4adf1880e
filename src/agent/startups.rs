//! How long pods take to start, for the kubelet's `pod_start` metrics.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, PodSpec, PodStatus};

use super::histogram::{Histogram, POD_START};
use crate::host::clock::Instant;

/// The most pods that are followed; a node has far fewer.
const MOST: usize = 4096;

/// Pods that are on their way, and how long others took.
#[derive(Debug)]
pub struct Startups {
    pods: Mutex<BTreeMap<String, Startup>>,
    /// From the moment in which the agent first saw a pod until something of it ran.
    pub seen_to_running: Histogram,
    /// From the creation of a pod of the API server until all of it ran, without pulls and init containers.
    pub sli: Histogram,
    /// The same with them.
    pub total: Histogram,
}

#[derive(Debug)]
struct Startup {
    /// When it was first seen.
    seen: Instant,
    /// For how long an image of it was pulled,
    pulling: Duration,
    /// and when the last pull ended.
    pulled: Option<Instant>,
    runs: bool,
}

impl Default for Startups {
    fn default() -> Self {
        let histogram = || Histogram::new(POD_START);
        Self { pods: Mutex::default(), seen_to_running: histogram(), sli: histogram(), total: histogram() }
    }
}

impl Startups {
    /// A pod of which nothing is there yet was first seen at `seen`.
    pub fn begin(&self, uid: &str, seen: Instant) {
        let mut pods = self.lock();
        if pods.len() < MOST {
            pods.insert(uid.to_owned(), Startup { seen, pulling: Duration::ZERO, pulled: None, runs: false });
        }
    }

    /// An image of it was pulled since `from`. Time in which several were counts once.
    pub fn pulled(&self, uid: &str, from: Instant) {
        let (mut pods, now) = (self.lock(), Instant::now());
        let Some(pod) = pods.get_mut(uid) else { return };
        let from = pod.pulled.map_or(from, |before| from.max(before));
        pod.pulling = pod.pulling.saturating_add(now.duration_since(from));
        pod.pulled = Some(now);
    }

    /// It is in phase Running. Only the first time counts, and only of a pod whose start was seen.
    pub fn running(&self, uid: &str) {
        let mut pods = self.lock();
        let Some(pod) = pods.get_mut(uid).filter(|pod| !pod.runs) else { return };
        pod.runs = true;
        self.seen_to_running.time(pod.seen.elapsed());
    }

    /// The API server has this status of a pod that was created at `created`. Once all its containers run it has started,
    /// and is followed no more.
    pub fn reported(&self, uid: &str, spec: &PodSpec, status: &PodStatus, created: Timestamp) {
        let containers = || status.container_statuses.iter().flatten();
        if containers().next().is_none() || !containers().all(runs) {
            return;
        }
        let Some(pod) = self.lock().remove(uid) else { return };
        let took = Duration::try_from(Timestamp::now().duration_since(created)).unwrap_or_default();
        self.total.time(took);
        if !is_stateful(spec) {
            let init = status.init_container_statuses.iter().flatten().map(ran_for).sum();
            self.sli.time(took.saturating_sub(pod.pulling).saturating_sub(init));
        }
    }

    /// It is gone, or its start was not seen.
    pub fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Startup>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn runs(status: &ContainerStatus) -> bool {
    status.state.as_ref().and_then(|state| state.running.as_ref()).is_some_and(|running| running.started_at.is_some())
}

/// How long an init container ran.
fn ran_for(status: &ContainerStatus) -> Duration {
    let ended = status.state.as_ref().and_then(|state| state.terminated.as_ref());
    let times = ended.and_then(|ended| Some((ended.started_at.as_ref()?.0, ended.finished_at.as_ref()?.0)));
    times.and_then(|(from, to)| Duration::try_from(to.duration_since(from)).ok()).unwrap_or_default()
}

/// Whether a volume is of a kind that may have to be waited for, in the words of the objective for starts of pods.
fn is_stateful(spec: &PodSpec) -> bool {
    spec.volumes.iter().flatten().any(|volume| {
        volume.secret.is_none()
            && volume.config_map.is_none()
            && volume.downward_api.is_none()
            && volume.empty_dir.is_none()
            && volume.projected.is_none()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status(running: bool) -> PodStatus {
        let state = if running { json!({"running": {"startedAt": "2026-01-01T00:00:09Z"}}) } else { json!({}) };
        let container = |name: &str, state: serde_json::Value| json!({"name": name, "image": "i", "imageID": "", "ready": true, "restartCount": 0, "state": state});
        let ended = json!({"terminated": {"exitCode": 0, "startedAt": "2026-01-01T00:00:01Z",
            "finishedAt": "2026-01-01T00:00:05Z"}});
        serde_json::from_value(json!({
            "containerStatuses": [container("c", state)], "initContainerStatuses": [container("i", ended)]
        }))
        .unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_has_started_once_and_pulls_and_init_containers_are_no_part_of_the_objective() {
        let (startups, spec) = (Startups::default(), PodSpec::default());
        let seen = Instant::now();
        startups.begin("u", seen);
        tokio::time::advance(Duration::from_secs(3)).await;
        // Two pulls of three seconds at once.
        startups.pulled("u", seen);
        startups.pulled("u", seen);
        startups.running("u");
        startups.running("u");
        assert_eq!((startups.seen_to_running.get().count, startups.seen_to_running.get().sum), (1, 3.0));
        let created = Timestamp::now() - jiff::SignedDuration::from_secs(20);
        startups.reported("u", &spec, &status(false), created);
        assert_eq!(startups.total.get().count, 0, "not all of it runs");
        startups.reported("u", &spec, &status(true), created);
        startups.reported("u", &spec, &status(true), created);
        let (total, sli) = (startups.total.get(), startups.sli.get());
        assert_eq!((total.count, sli.count), (1, 1));
        assert!((total.sum - 20.0).abs() < 1.0 && (total.sum - sli.sum - 7.0).abs() < 0.001, "{total:?} {sli:?}");
    }

    #[test]
    fn a_pod_with_a_volume_that_may_have_to_be_waited_for_is_not_of_the_objective() {
        let startups = Startups::default();
        let spec = json!({"containers": [], "volumes": [{"name": "v", "hostPath": {"path": "/v"}}]});
        startups.begin("u", Instant::now());
        startups.reported("u", &serde_json::from_value(spec).unwrap(), &status(true), Timestamp::now());
        assert_eq!((startups.total.get().count, startups.sli.get().count), (1, 0));
        startups.running("never-begun");
        assert_eq!(startups.seen_to_running.get().count, 0);
    }
}
