//! The board that workers, sources and the runtime's link write on, and that the health report is read from.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tokio::sync::watch;

use super::control::report::{AgentReport, HealthReport, PodReport, Problem};
use super::options::AgentOptions;
use super::pod::{PodKey, StaticPod};
use super::status;

/// One pod on the board.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// What is reported.
    pub report: PodReport,
    /// Its state as a gate of the start order, by component; None for what is no component or not wanted any more.
    pub gate: Option<(String, Gate)>,
    /// The pod as it is run; None for containers whose manifest no one has any more.
    pub pod: Option<Arc<StaticPod>>,
    /// Its status as the API has it.
    pub status: PodStatus,
    /// Its worker has looked at it: what is said before is no news to anybody.
    pub looked: bool,
    /// Containers of the pod that had its name before have not ended yet.
    pub succeeds: bool,
    /// Statuses of such pods by UID, as far as their manifests are still known.
    pub predecessors: BTreeMap<String, PodStatus>,
}

impl Entry {
    /// The status of the pod of this UID: of the pod itself, or of one that had its name before and has not ended yet.
    pub fn status_of(&self, uid: &str) -> Option<&PodStatus> {
        if self.report.uid == uid { Some(&self.status) } else { self.predecessors.get(uid) }
    }

    /// The pod as the API would show it.
    pub fn to_pod(&self) -> Pod {
        let known = self.pod.as_ref().map(|pod| pod.to_pod());
        let nameless = || {
            let text = |text: &String| Some(text.clone());
            let PodReport { name, namespace, uid, .. } = &self.report;
            let metadata =
                ObjectMeta { name: text(name), namespace: text(namespace), uid: text(uid), ..ObjectMeta::default() };
            Pod { metadata, ..Pod::default() }
        };
        Pod { status: Some(self.status.clone()), ..known.unwrap_or_else(nameless) }
    }
}

/// A pod has been as healthy as it is since it was last reported to be otherwise.
fn keep_since(now: &mut PodReport, before: &PodReport) {
    if now.uid == before.uid && now.healthy == before.healthy {
        now.since = before.since;
    }
    if let (Some(now), Some(before)) = (&mut now.successor, &before.successor) {
        keep_since(now, before);
    }
}

struct State {
    agent: AgentReport,
    pods: BTreeMap<PodKey, Entry>,
    problems: BTreeMap<&'static str, Vec<Problem>>,
    settled: bool,
}

/// Collects what is known and publishes a report whenever one differs from the one before.
pub struct Board {
    state: Mutex<State>,
    reports: watch::Sender<Arc<HealthReport>>,
    gates: watch::Sender<Gates>,
    changes: watch::Sender<()>,
}

impl Board {
    /// A board of an agent that has just started.
    pub fn new(options: &AgentOptions) -> Self {
        let agent = AgentReport {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node_name: options.node_name.clone(),
            started_at: Timestamp::now(),
            static_pod_path: options.static_pod_path.as_ref().map(|path| path.display().to_string()),
            runtime: None,
            synced: false,
        };
        let first = HealthReport { sequence: 1, agent: agent.clone(), pods: vec![], problems: vec![] };
        Self {
            state: Mutex::new(State { agent, pods: BTreeMap::new(), problems: BTreeMap::new(), settled: false }),
            reports: watch::channel(Arc::new(first)).0,
            gates: watch::channel(Gates::new()).0,
            changes: watch::channel(()).0,
        }
    }

    /// Every report from now on, and the current one.
    pub fn reports(&self) -> watch::Receiver<Arc<HealthReport>> {
        self.reports.subscribe()
    }

    /// The gates of the start order.
    pub fn gates(&self) -> watch::Receiver<Gates> {
        self.gates.subscribe()
    }

    /// Tells that something of a pod is another than before, its status included, which reports do not show whole.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Sets what is known of a pod. Most of what workers say is what they said before, and costs nothing then.
    pub fn set_pod(&self, key: &PodKey, mut entry: Entry) {
        self.change(|state| {
            if let Some(before) = state.pods.get(key) {
                for (uid, status) in &mut entry.predecessors {
                    before.status_of(uid).into_iter().for_each(|known| status::keep(status, known));
                }
                if before.report.uid == entry.report.uid {
                    keep_since(&mut entry.report, &before.report);
                    status::keep(&mut entry.status, &before.status);
                    if *before == entry {
                        return Changed::Nothing;
                    }
                }
            }
            state.pods.insert(key.clone(), entry);
            Changed::Pod(key)
        });
    }

    /// Several pods at once: a report shows all or none of them.
    pub fn set_new_pods(&self, entries: Vec<(PodKey, Entry)>) {
        if entries.is_empty() {
            return;
        }
        self.change(|state| {
            for (key, entry) in entries {
                state.pods.entry(key).or_insert(entry);
            }
            Changed::Everything
        });
    }

    /// Every pod that is wanted or still being stopped, by namespace and name.
    pub fn pods(&self) -> Vec<Entry> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).pods.values().cloned().collect()
    }

    /// Looks at all of them without copying any, and at whether there are no others: see [`Board::set_settled`]. What
    /// writes on the board waits meanwhile.
    pub fn visit<T>(&self, look: impl FnOnce(&BTreeMap<PodKey, Entry>, bool) -> T) -> T {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        look(&state.pods, state.settled)
    }

    /// Forgets a pod.
    pub fn remove_pod(&self, key: &PodKey) {
        self.change(|state| state.pods.remove(key).map_or(Changed::Nothing, |_| Changed::Pod(key)));
    }

    /// Sets everything that is wrong in the eyes of `owner` (a source, the runtime's link).
    pub fn set_problems(&self, owner: &'static str, problems: Vec<Problem>) {
        self.change(|state| {
            state.problems.insert(owner, problems);
            Changed::Everything
        });
    }

    /// What is wrong in the eyes of `owner`.
    pub fn problems(&self, owner: &str) -> Vec<Problem> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.problems.get(owner).cloned().unwrap_or_default()
    }

    /// Sets the runtime's name and version, None while it cannot be reached.
    pub fn set_runtime(&self, runtime: Option<String>) {
        self.change(|state| {
            state.agent.runtime = runtime;
            Changed::Everything
        });
    }

    /// Says that every source has been read.
    pub fn set_synced(&self) {
        self.change(|state| match std::mem::replace(&mut state.agent.synced, true) {
            true => Changed::Nothing,
            false => Changed::Everything,
        });
    }

    /// Says whether every pod that may be wanted or there is on the board: what every source wants is known, and what the
    /// runtime has.
    pub fn set_settled(&self, settled: bool) {
        self.change(|state| match std::mem::replace(&mut state.settled, settled) == settled {
            true => Changed::Nothing,
            false => Changed::Everything,
        });
    }

    fn change<'k>(&self, change: impl FnOnce(&mut State) -> Changed<'k>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = change(&mut state);
        if changed == Changed::Nothing {
            return;
        }
        let gates: Gates = state.pods.values().filter_map(|entry| entry.gate.clone()).collect();
        self.changes.send_replace(());
        self.gates.send_if_modified(|before| std::mem::replace(before, gates.clone()) != gates);
        self.reports.send_if_modified(|before| match changed {
            Changed::Nothing => false,
            Changed::Pod(key) => replace_pod(before, key, state.pods.get(key).map(|entry| &entry.report)),
            Changed::Everything => replace_all(before, &state),
        });
    }
}

/// What a change of the board's state has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Changed<'k> {
    /// Nothing.
    Nothing,
    /// What is known of one pod. The other pods, of which there may be many, stay in the report as they are.
    Pod(&'k PodKey),
    /// Anything.
    Everything,
}

/// Puts one pod into a report, or takes it out. Returns whether the report is another one then. Reports that somebody
/// still reads are copied, not changed.
fn replace_pod(report: &mut Arc<HealthReport>, key: &PodKey, pod: Option<&PodReport>) -> bool {
    let order = |one: &PodReport| (&one.namespace, &one.name).cmp(&(&key.namespace, &key.name));
    match (report.pods.binary_search_by(order), pod) {
        (Err(_), None) => return false,
        (Ok(at), Some(pod)) if report.pods[at] == *pod => return false,
        (Ok(at), Some(pod)) => Arc::make_mut(report).pods[at] = pod.clone(),
        (Err(at), Some(pod)) => Arc::make_mut(report).pods.insert(at, pod.clone()),
        (Ok(at), None) => drop(Arc::make_mut(report).pods.remove(at)),
    }
    let report = Arc::make_mut(report);
    report.sequence = report.sequence.saturating_add(1);
    true
}

fn replace_all(report: &mut Arc<HealthReport>, state: &State) -> bool {
    let pods: Vec<PodReport> = state.pods.values().map(|entry| entry.report.clone()).collect();
    let problems: Vec<Problem> = state.problems.values().flatten().cloned().collect();
    if report.agent == state.agent && report.pods == pods && report.problems == problems {
        return false;
    }
    let sequence = report.sequence.saturating_add(1);
    *report = Arc::new(HealthReport { sequence, agent: state.agent.clone(), pods, problems });
    true
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::agent::pod::phase::Phase;

    pub fn entry(healthy: bool, since: i64) -> Entry {
        let report = PodReport {
            name: "p-n".into(),
            namespace: "default".into(),
            uid: "u".into(),
            file: None,
            file_hash: None,
            component: None,
            bound: false,
            phase: Phase::Running,
            ready: healthy,
            healthy,
            terminating: false,
            since: Timestamp::from_second(since).unwrap(),
            message: None,
            containers: vec![],
            successor: None,
        };
        let gate = Some(("c".into(), Gate { healthy, crashed: false }));
        let status = PodStatus::default();
        Entry { report, gate, pod: None, status, looked: true, succeeds: false, predecessors: BTreeMap::new() }
    }

    #[test]
    fn the_sequence_grows_with_each_difference_and_with_nothing_else() {
        let board = Board::new(&AgentOptions::new("n"));
        let key = PodKey { namespace: "default".into(), name: "p-n".into() };
        let reports = board.reports();
        let mut gates = board.gates();
        let now = || reports.borrow().sequence;
        assert_eq!(now(), 1);
        board.set_pod(&key, entry(false, 1));
        assert_eq!(now(), 2);
        board.set_pod(&key, entry(false, 2));
        assert_eq!(now(), 2, "the same health keeps its moment");
        assert!(gates.has_changed().unwrap());
        gates.mark_unchanged();
        board.set_problems("source", vec![]);
        board.set_runtime(None);
        assert_eq!(now(), 2);
        board.set_pod(&key, entry(true, 3));
        assert_eq!(now(), 3);
        assert_eq!(reports.borrow().pods[0].since.as_second(), 3);
        assert!(gates.has_changed().unwrap());
        gates.mark_unchanged();
        board.set_synced();
        assert_eq!(now(), 4);
        assert!(!gates.has_changed().unwrap(), "gates wake nobody for what is no gate's");
        board.remove_pod(&key);
        assert!(reports.borrow().pods.is_empty());
        assert!(gates.borrow_and_update().is_empty());
    }
}

/// How a component that others may wait for is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gate {
    /// It runs and answers.
    pub healthy: bool,
    /// It has ended by itself since the agent looks after it.
    pub crashed: bool,
}

/// Every wanted control-plane component by name.
pub type Gates = BTreeMap<String, Gate>;
