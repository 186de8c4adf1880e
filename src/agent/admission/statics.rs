//! Which of the static pods that sources want are run. Decided once for each pod, as by the kubelet: what was admitted stays
//! so, and what was refused is looked at again when its manifest changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Admission, Refusal, Site, admit};
use crate::agent::crash::caught_now;
use crate::agent::pod::StaticPod;
use crate::agent::source::Update;

/// The node, and what is known of it.
pub struct Node<'a> {
    /// The node as far as it is known.
    pub site: Site,
    /// Whether the labels are the Node's own, or all that there will be. Else a pod that they keep away is looked at again
    /// once they are: the API server that has them may be a static pod of this node.
    pub is_final: bool,
    /// Whether a pod has ended, and takes no room any more.
    pub has_ended: &'a dyn Fn(&StaticPod) -> bool,
}

/// Every static pod that is wanted, by UID.
#[derive(Default)]
pub struct Statics(BTreeMap<String, Decided>);

struct Decided {
    pod: Arc<StaticPod>,
    refusal: Option<Refusal>,
    /// Refused for labels that are not all known yet.
    provisional: bool,
}

/// What is new.
#[derive(Debug, Default, PartialEq)]
pub struct News {
    /// Static pods that are refused from now on.
    pub refused: Vec<(Arc<StaticPod>, Refusal)>,
    /// Bound pods that go for a static one from now on.
    pub preempted: Vec<Arc<StaticPod>>,
}

impl Statics {
    /// Takes the pods out of `update` that are not run: static ones that are refused, and bound ones that go for them, whose
    /// UIDs are added to `preempted` and taken from it once they are not wanted any more.
    pub fn decide(&mut self, update: &mut Update, node: &Node<'_>, preempted: &mut BTreeSet<String>) -> News {
        let wanted: BTreeSet<&str> = update.pods.iter().map(|pod| pod.uid.as_str()).collect();
        self.0.retain(|uid, _| wanted.contains(uid.as_str()));
        preempted.retain(|uid| wanted.contains(uid.as_str()));
        let mut news = News::default();
        for pod in update.pods.iter().filter(|pod| pod.bound.is_none()) {
            if self.0.get(&pod.uid).is_some_and(|known| !known.is_open(pod, node)) {
                continue;
            }
            let (refusal, victims) = match self.judge(pod, update, node, preempted) {
                Admission::Admitted { preempts } => (None, preempts),
                Admission::Refused(refusal) => (Some(refusal), vec![]),
            };
            for victim in update.pods.iter().filter(|one| victims.contains(&one.uid)) {
                self.preempt(victim, preempted, &mut news);
            }
            let provisional =
                !node.is_final && refusal.as_ref().is_some_and(|refusal| refusal.reason == "NodeAffinity");
            news.refused.extend(refusal.clone().map(|refusal| (Arc::clone(pod), refusal)));
            self.0.insert(pod.uid.clone(), Decided { pod: Arc::clone(pod), refusal, provisional });
        }
        update.pods.retain(|pod| match self.0.get(&pod.uid) {
            Some(known) => known.refusal.is_none(),
            None => !preempted.contains(&pod.uid),
        });
        news
    }

    fn judge(&self, pod: &Arc<StaticPod>, update: &Update, node: &Node<'_>, preempted: &BTreeSet<String>) -> Admission {
        let runs = |one: &StaticPod| match &one.bound {
            Some(_) => one.ended().is_none() && !preempted.contains(&one.uid),
            None => self.0.get(&one.uid).is_some_and(|known| known.refusal.is_none()) && !(node.has_ended)(one),
        };
        let others: Vec<&StaticPod> =
            update.pods.iter().map(Arc::as_ref).filter(|one| one.key != pod.key && runs(one)).collect();
        caught_now(|| admit(pod, &node.site, &others))
            .unwrap_or_else(|crash| Admission::Refused(Refusal::new("UnexpectedAdmissionError", crash.to_string())))
    }

    fn preempt(&mut self, victim: &Arc<StaticPod>, preempted: &mut BTreeSet<String>, news: &mut News) {
        if victim.bound.is_some() {
            preempted.insert(victim.uid.clone());
            news.preempted.push(Arc::clone(victim));
        } else if let Some(known) = self.0.get_mut(&victim.uid) {
            known.refusal = Some(Refusal::preempted());
            news.refused.push((Arc::clone(victim), Refusal::preempted()));
        }
    }

    /// A pod that was admitted is not run all the same.
    pub fn refuse(&mut self, pod: &StaticPod, refusal: Refusal) {
        if let Some(known) = self.0.get_mut(&pod.uid) {
            known.refusal = Some(refusal);
        }
    }

    /// Those that are not run.
    pub fn refused(&self) -> impl Iterator<Item = (&Arc<StaticPod>, &Refusal)> {
        self.0.values().filter_map(|known| Some((&known.pod, known.refusal.as_ref()?)))
    }

    /// Whether some are refused for labels that are not all known yet.
    pub fn is_provisional(&self) -> bool {
        self.0.values().any(|known| known.provisional)
    }
}

impl Decided {
    /// Whether it is decided again. A pod that sets its own UID keeps it when its manifest changes.
    fn is_open(&self, pod: &StaticPod, node: &Node<'_>) -> bool {
        self.refusal.is_some() && (self.pod.spec != pod.spec || self.provisional && node.is_final)
    }
}
