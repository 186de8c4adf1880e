//! What the API server has bound to the node, and what becomes of each pod of it. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tracing::error;

use super::admission::{NodeOffers, Verdict, judge};
use crate::agent::admission::Refusal;
use crate::agent::crash::caught_now;
use crate::agent::pod::{CONFIG_MIRROR, PodKey, StaticPod};
use crate::agent::source::{Kind, Update};

/// A pod that is not run, whose status must say so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Namespace and name.
    pub key: PodKey,
    /// UID.
    pub uid: String,
    /// Why.
    pub refusal: Refusal,
    /// It is deleted: there is nothing to stop.
    pub deleted: bool,
    /// Its status says so already.
    pub reported: bool,
    /// `metadata.generation`.
    pub generation: Option<i64>,
}

/// Every pod of the node, as far as it is known.
#[derive(Default)]
pub struct BoundPods {
    pods: BTreeMap<String, Known>,
    listed: bool,
}

struct Known {
    pod: Arc<StaticPod>,
    verdict: Option<Verdict>,
}

impl BoundPods {
    /// Takes a complete list in.
    pub fn list(&mut self, pods: Vec<Pod>, now: Timestamp) {
        let uids: BTreeSet<String> = pods.iter().filter_map(|pod| pod.metadata.uid.clone()).collect();
        self.pods.retain(|uid, _| uids.contains(uid));
        pods.into_iter().for_each(|pod| self.put(pod, now));
        self.listed = true;
    }

    /// Takes in a pod that is new or has changed. The API server's copy of a static pod is none of these.
    pub fn put(&mut self, pod: Pod, now: Timestamp) {
        if pod.metadata.annotations.as_ref().is_some_and(|map| map.contains_key(CONFIG_MIRROR)) {
            return;
        }
        let key = pod.metadata.name.clone().unwrap_or_default();
        let mut pod = match caught_now(|| StaticPod::from_api(pod, now)) {
            Ok(pod) => pod,
            Err(crash) => return error!(pod = key, error = %crash, "the pod is not run"),
        };
        // One that was begun with was admitted then; one that has ended or is to end needs no leave for that.
        let state = pod.bound.as_deref();
        let admitted = state.is_some_and(|state| state.started || state.ended.is_some() || state.deletion.is_some());
        match self.pods.get_mut(&pod.uid) {
            Some(known) => {
                pod.keep_seen(&known.pod);
                if *known.pod != pod {
                    known.pod = Arc::new(pod);
                }
                let open = matches!(known.verdict, None | Some(Verdict::Later(_)));
                if open && admitted {
                    known.verdict = Some(Verdict::Admitted);
                }
            }
            None => {
                // Refused by an agent before this one: there is nothing of it to look after.
                let refused = state.is_some_and(|state| state.ended.is_some() && !state.started);
                let verdict = match refused {
                    true => Some(Verdict::Refused(Refusal { reason: String::new(), message: String::new() })),
                    false => admitted.then_some(Verdict::Admitted),
                };
                self.pods.insert(pod.uid.clone(), Known { pod: Arc::new(pod), verdict });
            }
        }
    }

    /// A pod is gone from the API server.
    pub fn gone(&mut self, uid: &str) {
        self.pods.remove(uid);
    }

    /// Whether there are pods of which it is not decided what becomes of them.
    pub fn is_open(&self) -> bool {
        self.pods.values().any(|known| matches!(known.verdict, None | Some(Verdict::Later(_))))
    }

    /// Decides what becomes of pods, the oldest first, and returns those of which something is to be reported: they are
    /// refused, or wait from now on. `statics` are the node's own pods.
    pub fn judge(&mut self, node: &NodeOffers, statics: &[Arc<StaticPod>]) -> Vec<(Arc<StaticPod>, Verdict)> {
        let mut open: Vec<Arc<StaticPod>> = self.of(|known| matches!(known.verdict, None | Some(Verdict::Later(_))));
        open.sort_by_key(|pod| (pod.metadata.creation_timestamp.as_ref().map(|time| time.0), pod.uid.clone()));
        let mut reported = Vec::new();
        for pod in open {
            // What has ended takes no room.
            let admitted = self.of(|known| known.verdict == Some(Verdict::Admitted) && known.pod.ended().is_none());
            let others: Vec<&StaticPod> = admitted.iter().chain(statics).map(Arc::as_ref).collect();
            let (verdict, preempted) = caught_now(|| judge(&pod, node, &others)).unwrap_or_else(|crash| {
                (Verdict::Refused(Refusal::new("UnexpectedAdmissionError", crash.to_string())), vec![])
            });
            reported.extend(self.preempt(&preempted.into_iter().collect()));
            let Some(known) = self.pods.get_mut(&pod.uid) else { continue };
            let is_news = verdict != Verdict::Admitted && known.verdict.as_ref() != Some(&verdict);
            known.verdict = Some(verdict.clone());
            if is_news {
                reported.push((pod, verdict));
            }
        }
        reported
    }

    /// These pods go for one that is critical. Returns those of them that were run until now, with their verdicts.
    pub fn preempt(&mut self, uids: &BTreeSet<String>) -> Vec<(Arc<StaticPod>, Verdict)> {
        let verdict = Verdict::Refused(Refusal::preempted());
        let mut gone = Vec::new();
        for (_, known) in self.pods.iter_mut().filter(|(uid, _)| uids.contains(*uid)) {
            if known.verdict == Some(Verdict::Admitted) && known.pod.ended().is_none() {
                known.verdict = Some(verdict.clone());
                gone.push((Arc::clone(&known.pod), verdict.clone()));
            }
        }
        gone
    }

    /// These pods were admitted, and there are no devices for them.
    pub fn refuse(&mut self, refusals: &BTreeMap<String, Refusal>) {
        for (uid, refusal) in refusals {
            if let Some(known) = self.pods.get_mut(uid).filter(|known| known.verdict == Some(Verdict::Admitted)) {
                known.verdict = Some(Verdict::Refused(refusal.clone()));
            }
        }
    }

    fn of(&self, which: impl Fn(&Known) -> bool) -> Vec<Arc<StaticPod>> {
        self.pods.values().filter(|known| which(known)).map(|known| Arc::clone(&known.pod)).collect()
    }

    /// The pods that are run.
    pub fn update(&self) -> Update {
        let pods = self.of(|known| known.verdict == Some(Verdict::Admitted));
        let held = if self.listed { vec![] } else { vec![Kind::Api] };
        Update { pods, synced: true, held: held.into_iter().collect(), ..Update::default() }
    }

    /// The pods that are not.
    pub fn refused(&self) -> Vec<Refused> {
        let refused = self.pods.values().filter_map(|Known { pod, verdict }| {
            let Some(Verdict::Refused(refusal)) = verdict else { return None };
            let (key, uid) = (pod.key.clone(), pod.uid.clone());
            let (deleted, reported) = (pod.deletion().is_some(), pod.ended().is_some());
            let generation = pod.bound.as_ref().and_then(|bound| bound.generation);
            Some(Refused { key, uid, refusal: refusal.clone(), deleted, reported, generation })
        });
        refused.collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::agent::admission::{PREEMPTED, Site};
    use crate::agent::pod::bound_tests::object;
    use crate::runtime::PodNetwork;

    /// A pod of the host's network that was made at this second.
    fn pod(uid: &str, second: i64, status: Value) -> Pod {
        let created = Timestamp::from_second(second).unwrap().to_string();
        let metadata = json!({"name": format!("p-{uid}"), "uid": uid, "creationTimestamp": created});
        object(metadata, json!({"hostNetwork": true}), status)
    }

    fn node(pods: i64) -> NodeOffers {
        let site = Site { allocatable: [("pods".to_owned(), pods)].into(), ..Site::default() };
        NodeOffers { site, ..NodeOffers::default() }
    }

    fn run(bound_pods: &BoundPods) -> Vec<String> {
        bound_pods.update().pods.iter().map(|pod| pod.uid.clone()).collect()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn nothing_is_known_before_the_first_list_and_what_is_listed_is_run_once_it_is_admitted() {
        let mut bound_pods = BoundPods::default();
        assert!(bound_pods.update().held.contains(&Kind::Api) && bound_pods.update().synced);
        bound_pods.list(vec![pod("b", 2, json!({})), pod("a", 3, json!({}))], at(0));
        assert!(bound_pods.update().held.is_empty() && bound_pods.is_open() && run(&bound_pods).is_empty());
        let reported = bound_pods.judge(&node(1), &[]);
        assert_eq!(
            (run(&bound_pods), reported.len(), bound_pods.is_open()),
            (vec!["b".to_owned()], 1, false),
            "the older one has the room"
        );
        let refused = bound_pods.refused();
        assert_eq!((refused[0].uid.as_str(), refused[0].refusal.reason.as_str()), ("a", "OutOfpods"));
        assert!(!refused[0].reported);
        assert!(bound_pods.judge(&node(9), &[]).is_empty(), "it is decided once");
        bound_pods.put(pod("a", 3, json!({"phase": "Failed"})), at(1));
        assert!(bound_pods.refused()[0].reported && run(&bound_pods) == ["b"]);
        bound_pods.list(vec![pod("b", 2, json!({}))], at(2));
        assert!(bound_pods.refused().is_empty());
        bound_pods.gone("b");
        assert!(run(&bound_pods).is_empty());
    }

    #[test]
    fn what_was_begun_has_ended_or_is_deleted_needs_no_leave() {
        let mut bound_pods = BoundPods::default();
        let started = pod("a", 1, json!({"phase": "Running", "startTime": "2024-01-01T00:00:00Z"}));
        let mut deleted = pod("c", 1, json!({}));
        deleted.metadata.deletion_timestamp = started.metadata.creation_timestamp.clone();
        let done = json!({"phase": "Succeeded", "startTime": "2024-01-01T00:00:00Z", "containerStatuses": [
            {"name": "c", "ready": false, "restartCount": 0, "image": "x:1", "imageID": ""}]});
        let refused = json!({"phase": "Failed", "startTime": "2024-01-01T00:00:00Z"});
        bound_pods.list(vec![started, pod("b", 1, done), deleted, pod("d", 1, refused)], at(0));
        assert!(!bound_pods.is_open());
        assert_eq!(run(&bound_pods), ["a", "b", "c"], "one that was refused before is not looked after");
        assert!(bound_pods.refused().iter().all(|one| one.uid == "d" && one.reported));
    }

    #[test]
    fn a_pod_that_there_are_no_devices_for_is_run_no_more_and_says_why() {
        let mut bound_pods = BoundPods::default();
        bound_pods.list(vec![pod("a", 1, json!({})), pod("b", 1, json!({}))], at(0));
        bound_pods.judge(&node(9), &[]);
        let refusal = Refusal::new("UnexpectedAdmissionError", "Allocate failed");
        bound_pods.refuse(&[("a".to_owned(), refusal.clone()), ("other".to_owned(), refusal.clone())].into());
        assert_eq!(run(&bound_pods), ["b"]);
        assert_eq!(bound_pods.refused()[0].refusal, refusal);
        assert!(bound_pods.judge(&node(9), &[]).is_empty() && run(&bound_pods) == ["b"], "it stays so");
    }

    #[test]
    fn mirrors_are_left_out_and_the_same_pod_again_is_no_other() {
        let mut bound_pods = BoundPods::default();
        let mut mirror = pod("m", 1, json!({}));
        mirror.metadata.annotations = Some([(CONFIG_MIRROR.to_owned(), "x".to_owned())].into());
        bound_pods.list(vec![mirror, pod("a", 1, json!({}))], at(1));
        bound_pods.judge(&node(9), &[]);
        let before = bound_pods.update();
        assert_eq!(run(&bound_pods), ["a"]);
        bound_pods.put(pod("a", 1, json!({})), at(2));
        assert!(Arc::ptr_eq(&before.pods[0], &bound_pods.update().pods[0]), "it was first seen when it was first seen");
    }

    #[test]
    fn a_pod_that_waits_for_the_network_is_told_once_and_run_when_it_is_there() {
        let mut bound_pods = BoundPods::default();
        let mut own = pod("a", 1, json!({}));
        own.spec.as_mut().unwrap().host_network = None;
        bound_pods.list(vec![own], at(0));
        let pending =
            NodeOffers { network: PodNetwork::NotReady { reason: "No".into(), message: "plugin".into() }, ..node(9) };
        assert_eq!(bound_pods.judge(&pending, &[])[0].1, Verdict::Later("No: plugin".into()));
        assert!(bound_pods.judge(&pending, &[]).is_empty() && bound_pods.is_open() && bound_pods.refused().is_empty());
        bound_pods.judge(&NodeOffers { network: PodNetwork::Ready, ..pending }, &[]);
        assert_eq!(run(&bound_pods), ["a"]);
    }

    #[test]
    fn what_goes_for_a_critical_pod_is_run_no_more_and_says_why() {
        let mut bound_pods = BoundPods::default();
        bound_pods.list(vec![pod("a", 1, json!({})), pod("b", 1, json!({}))], at(0));
        bound_pods.judge(&node(9), &[]);
        let gone = bound_pods.preempt(&["a".to_owned(), "other".to_owned()].into());
        assert_eq!((gone.len(), run(&bound_pods)), (1, vec!["b".to_owned()]));
        let refused = bound_pods.refused();
        assert_eq!((refused[0].refusal.reason.as_str(), refused[0].reported), (PREEMPTED, false));
        assert_eq!(refused[0].refusal.status_message(), "Preempted in order to admit critical pod");
        assert!(bound_pods.preempt(&["a".to_owned()].into()).is_empty(), "it is told once");
        let mut critical = pod("c", 2, json!({}));
        critical.spec.as_mut().unwrap().priority = Some(2_000_000_000);
        bound_pods.put(critical, at(1));
        let reported = bound_pods.judge(&node(1), &[]);
        assert_eq!((reported.len(), run(&bound_pods)), (1, vec!["c".to_owned()]), "b goes for it");
    }
}
