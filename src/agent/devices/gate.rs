//! Pods that ask for devices wait here until they have them. The others go on meanwhile: a plugin may take long.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::task::JoinSet;

use super::Devices;
use crate::agent::admission::Refusal;
use crate::agent::crash::caught;
use crate::agent::pod::{PodKey, StaticPod};
use crate::runtime::ContainerRecord;

/// What came of a pod that asked for devices.
pub struct Answer {
    /// Which.
    pub pod: Arc<StaticPod>,
    /// Why it is not run; None when it has its devices.
    pub refusal: Option<Refusal>,
}

/// What is known of the pods.
pub struct Known<'a> {
    /// Those that are run.
    pub wanted: &'a BTreeMap<PodKey, Arc<StaticPod>>,
    /// What the runtime has; None before it was listed once.
    pub records: Option<&'a [ContainerRecord]>,
    /// UIDs of the pods that may have devices; None while they are not all known.
    pub active: Option<BTreeSet<String>>,
}

/// See the module.
#[derive(Default)]
pub struct Gate {
    /// UIDs of pods that are being given their devices,
    asking: BTreeSet<String>,
    /// of those that have them,
    passed: BTreeSet<String>,
    /// and of those that cannot.
    refused: BTreeSet<String>,
    tasks: JoinSet<Answer>,
}

impl Gate {
    /// The next pod that was decided; None where none is asked for.
    pub async fn next(&mut self) -> Option<Answer> {
        // A crash of what is asked is the answer: the task itself does not end otherwise.
        let answer = self.tasks.join_next().await?.ok()?;
        let uid = &answer.pod.uid;
        self.asking.remove(uid);
        let decided = if answer.refusal.is_some() { &mut self.refused } else { &mut self.passed };
        decided.insert(uid.clone());
        Some(answer)
    }

    /// Takes the pods out of `pods` that have to wait, or are not run, and asks for their devices. What is run stays so, and
    /// a pod whose containers run has them already: an agent before this one gave them.
    pub fn hold_back(&mut self, pods: &mut Vec<Arc<StaticPod>>, devices: &Arc<Devices>, known: &Known<'_>) {
        for decided in [&mut self.passed, &mut self.refused] {
            decided.retain(|uid| pods.iter().any(|pod| pod.uid == *uid));
        }
        let mut waits = |pod: &Arc<StaticPod>| {
            if self.refused.contains(&pod.uid) || self.asking.contains(&pod.uid) {
                return true;
            }
            let is_run = known.wanted.get(&pod.key).is_some_and(|run| run.uid == pod.uid);
            let is_over = pod.ended().is_some() || pod.deletion().is_some();
            if is_run || is_over || self.passed.contains(&pod.uid) || !devices.wants(pod) {
                return false;
            }
            let Some(records) = known.records else { return true };
            let runs = |one: &ContainerRecord| one.name.uid == pod.uid && !one.is_sandbox && one.state.is_running();
            if records.iter().any(runs) {
                return false;
            }
            self.asking.insert(pod.uid.clone());
            let mut active = known.active.clone();
            active.iter_mut().for_each(|active| active.extend(self.asking.iter().cloned()));
            self.tasks.spawn(ask(Arc::clone(pod), Arc::clone(devices), active));
            true
        };
        pods.retain(|pod| !waits(pod));
    }
}

async fn ask(pod: Arc<StaticPod>, devices: Arc<Devices>, active: Option<BTreeSet<String>>) -> Answer {
    let given = caught(devices.allocate(&pod, active.as_ref())).await;
    let why = given.map_err(|crash| crash.to_string()).and_then(|given| given);
    let refusal = why.err().map(|why| {
        Refusal::new("UnexpectedAdmissionError", format!("Allocate failed due to {why}, which is unexpected"))
    });
    Answer { pod, refusal }
}
