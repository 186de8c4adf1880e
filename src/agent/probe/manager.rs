//! Which containers are probed, and what is known of each.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::memory::{Mark, Memory};
use super::rules::Health;
use super::worker::{Probed, spawn};
use super::{Checker, ProbeKind, Probes, Route};
use crate::agent::events::Recorder;
use crate::agent::histogram::Counts;
use crate::agent::pod::PodKey;
use crate::host::clock::Instant;

/// An agent that has run for less than this finds containers, it does not start them.
const ADOPTING: Duration = Duration::from_secs(10);
/// As many adopted containers are probed without spreading their probes over the period.
const FEW: usize = 10;
/// Commands that eager checks run at once; each starts a process in a container.
const EAGER_COMMANDS: usize = 8;

/// One running container as the prober needs it.
#[derive(Debug, Clone)]
pub struct ProbedContainer {
    /// Name in the pod.
    pub name: String,
    /// The runtime's id of this instance.
    pub id: String,
    /// When this instance was started: delays count from here, also after a restart of the agent.
    pub started_at: Timestamp,
    /// Address of the pod, the node's for one on the host's network; None there where the agent is in no cluster, and then
    /// it is asked at [`super::LOOPBACK`].
    pub ip: Option<String>,
    /// It is being stopped: only its readiness probe goes on.
    pub stopping: bool,
    /// Its probes.
    pub probes: Arc<Probes>,
    /// How it is asked while another process serves on its port.
    pub route: Option<Arc<Route>>,
}

/// How often a probe of a container came out so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    /// The container.
    pub container: String,
    /// `Startup`, `Readiness` or `Liveness`.
    pub kind: &'static str,
    /// `successful`, `failed` or `unknown`.
    pub result: &'static str,
    /// How often, since the container was started or the agent was.
    pub count: u64,
}

/// Called with a pod's UID when something its worker should look at has changed.
pub type Wake = Arc<dyn Fn(&str) + Send + Sync>;

/// Runs the probes of all pods of an agent. Dropping it ends them.
pub struct Manager {
    shared: Arc<Shared>,
    started: Instant,
    pods: Mutex<HashMap<String, BTreeMap<String, Instance>>>,
}

/// What all probes of an agent use.
pub(super) struct Shared {
    pub checker: Arc<dyn Checker>,
    pub wake: Wake,
    pub events: Arc<Recorder>,
    pub memory: Memory,
    pub eager_commands: Semaphore,
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
    pub fn new(checker: Arc<dyn Checker>, wake: Wake, events: Arc<Recorder>, memory: Memory) -> Self {
        let eager_commands = Semaphore::new(EAGER_COMMANDS);
        let shared = Arc::new(Shared { checker, wake, events, memory, eager_commands });
        Self { shared, started: Instant::now(), pods: Mutex::default() }
    }

    /// Says which containers of a pod run now. New instances (another id, another address) are probed from the start,
    /// those that are not named any more are forgotten, the others go on. Call it within a tokio runtime, right after a
    /// start or an exit and as often as you like.
    pub fn set_containers(&self, key: &PodKey, uid: &str, running: Vec<ProbedContainer>) {
        let mut pods = self.lock();
        let herd = self.started.elapsed() < ADOPTING && pods.values().map(BTreeMap::len).sum::<usize>() >= FEW;
        let pod = pods.entry(uid.to_owned()).or_default();
        pod.retain(|_, known| running.iter().any(|r| known.probed.is(r)));
        for container in running {
            let (name, stopping) = (container.name.clone(), container.stopping);
            let instance = pod.entry(name).or_insert_with(|| self.start(key, uid, container, herd));
            if stopping {
                instance.alive.cancel();
            }
        }
        if pod.is_empty() {
            pods.remove(uid);
        }
    }

    /// The pod is being stopped: only its readiness probes go on, and only of these containers, which still run.
    pub fn terminating(&self, uid: &str, running: &[&str]) {
        let mut pods = self.lock();
        let Some(pod) = pods.get_mut(uid) else { return };
        pod.retain(|_, known| running.contains(&known.probed.id()));
        pod.values().for_each(|instance| instance.alive.cancel());
    }

    /// What was set for the pod of one UID goes on under another.
    pub fn rename_pod(&self, uid: &str, to: &str) {
        let mut pods = self.lock();
        if let Some(pod) = pods.remove(uid) {
            pods.insert(to.to_owned(), pod);
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

    /// What is remembered of instances.
    pub fn memory(&self) -> &Memory {
        &self.shared.memory
    }

    /// Whether an instance was stopped, by this agent or one before it, because its own liveness or startup probe failed for
    /// good.
    pub fn was_condemned(&self, uid: &str, container: &str, id: &str) -> bool {
        self.shared.memory.has(Mark::Condemned, uid, container, id)
    }

    /// Writes down that this instance is stopped for that or (None) that none of the container's is. Blocks for as long as a
    /// small file takes to be written.
    pub fn note_condemned(&self, uid: &str, container: &str, id: Option<&str>) {
        self.shared.memory.note(Mark::Condemned, uid, container, id);
    }

    /// How often the probes of a pod's running containers were made, by how they came out.
    pub fn tallies(&self, uid: &str) -> Vec<Tally> {
        let pods = self.lock();
        let pod = pods.get(uid).into_iter().flatten();
        let of = |(name, instance): (&String, &Instance)| {
            let tally = instance.probed.tally().into_iter();
            tally
                .map(|(kind, result, count)| Tally { container: name.clone(), kind, result, count })
                .collect::<Vec<_>>()
        };
        pod.flat_map(of).collect()
    }

    /// How long the probes of a pod's running containers took that came out well, by container and kind.
    pub fn times(&self, uid: &str) -> Vec<(String, &'static str, Counts)> {
        let pods = self.lock();
        let all = pods.get(uid).into_iter().flatten();
        let of = |(name, one): (&String, &Instance)| {
            let times = one.probed.times().into_iter();
            times.map(|(kind, counts)| (name.clone(), kind, counts)).collect::<Vec<_>>()
        };
        all.flat_map(of).collect()
    }

    fn start(&self, key: &PodKey, uid: &str, container: ProbedContainer, herd: bool) -> Instance {
        let all = CancellationToken::new();
        let alive = all.child_token();
        let probed = Arc::new(Probed::new(key, uid, container, herd, Arc::clone(&self.shared)));
        for kind in [ProbeKind::Startup, ProbeKind::Liveness, ProbeKind::Readiness] {
            let until = if kind == ProbeKind::Readiness { &all } else { &alive };
            spawn::probe(kind, &probed, until.clone());
        }
        spawn::eager(&probed, alive.clone());
        Instance { probed, all, alive }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, BTreeMap<String, Instance>>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
