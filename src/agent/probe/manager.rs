//! Which containers are probed, and what is known of each.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::rules::Health;
use super::worker::{Probed, spawn};
use super::{Checker, ProbeKind, Probes};

/// One running container as the prober needs it.
#[derive(Debug, Clone)]
pub struct ProbedContainer {
    /// Name in the pod.
    pub name: String,
    /// The runtime's id of this instance.
    pub id: String,
    /// When this instance was started: delays count from here, also after a restart of the agent.
    pub started_at: Timestamp,
    /// Address of the pod; None on the host's network, which is asked at 127.0.0.1.
    pub ip: Option<String>,
    /// Its probes.
    pub probes: Arc<Probes>,
}

/// Called with a pod's UID when something its worker should look at has changed.
pub type Wake = Arc<dyn Fn(&str) + Send + Sync>;

/// Runs the probes of all pods of an agent. Dropping it ends them.
pub struct Manager {
    checker: Arc<dyn Checker>,
    wake: Wake,
    pods: Mutex<HashMap<String, BTreeMap<String, Instance>>>,
}

struct Instance {
    probed: Arc<Probed>,
    /// Ends everything.
    all: CancellationToken,
    /// Ends what a terminating pod is not asked any more: liveness, startup and the eager checks.
    alive: CancellationToken,
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.all.cancel();
    }
}

impl Manager {
    /// A manager without containers. `wake` is called from the workers' tasks and must not block.
    pub fn new(checker: Arc<dyn Checker>, wake: Wake) -> Self {
        Self { checker, wake, pods: Mutex::default() }
    }

    /// Says which containers of a pod run now. New instances (another id, another address) are probed from the start,
    /// those that are not named any more are forgotten, the others go on. Call it within a tokio runtime, right after a
    /// start or an exit and as often as you like.
    pub fn set_containers(&self, uid: &str, running: Vec<ProbedContainer>) {
        let mut pods = self.lock();
        let pod = pods.entry(uid.to_owned()).or_default();
        pod.retain(|_, known| running.iter().any(|r| known.probed.is(r)));
        for container in running {
            if !pod.contains_key(&container.name) {
                pod.insert(container.name.clone(), self.start(uid, container));
            }
        }
        if pod.is_empty() {
            pods.remove(uid);
        }
    }

    /// The pod is being stopped: only its readiness probes go on, until `remove_pod` or an empty `set_containers`.
    pub fn terminating(&self, uid: &str) {
        for instance in self.lock().get(uid).into_iter().flat_map(BTreeMap::values) {
            instance.alive.cancel();
        }
    }

    /// Forgets a pod.
    pub fn remove_pod(&self, uid: &str) {
        self.lock().remove(uid);
    }

    /// What is known of a pod's running containers, by name. A container that is missing here has not been set.
    pub fn results(&self, uid: &str) -> BTreeMap<String, Health> {
        let pods = self.lock();
        let pod = pods.get(uid).into_iter().flatten();
        pod.map(|(name, instance)| (name.clone(), instance.probed.health())).collect()
    }

    fn start(&self, uid: &str, container: ProbedContainer) -> Instance {
        let all = CancellationToken::new();
        let alive = all.child_token();
        let probed = Arc::new(Probed::new(uid, container, Instant::now(), Arc::clone(&self.wake)));
        for kind in [ProbeKind::Startup, ProbeKind::Liveness, ProbeKind::Readiness] {
            let until = if kind == ProbeKind::Readiness { &all } else { &alive };
            spawn::probe(kind, &probed, &self.checker, until.clone());
        }
        spawn::eager(&probed, &self.checker, alive.clone());
        Instance { probed, all, alive }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, BTreeMap<String, Instance>>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
