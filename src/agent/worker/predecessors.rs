//! Pods that had the name of the wanted pod before: their mirrors stay, and show how they end, until their containers
//! have ended.

use super::*;

/// A pod that is being stopped because another one has taken its name.
pub(super) struct Predecessor {
    pub(super) pod: Arc<StaticPod>,
    pub(super) view: PodView,
    pub(super) slots: BTreeMap<String, Slot>,
}

impl Worker {
    /// The pod that was wanted until now is shown until its containers have ended, where it has a mirror to be shown by.
    pub(super) fn keep_predecessor(&mut self, slots: BTreeMap<String, Slot>) {
        let before = self.pod.take().filter(|(pod, view)| pod.has_mirror() || view.shares.is_some() || view.ahead);
        self.predecessors.extend(before.map(|(pod, view)| Predecessor { pod, view, slots }));
        self.forget_predecessors();
    }

    /// Forgets the predecessors of which nothing runs any more, and the wanted pod, should it be one again.
    pub(super) fn forget_predecessors(&mut self) {
        let wanted = self.wanted_uid().map(str::to_owned);
        let seen = &self.seen;
        self.predecessors.retain(|one| Some(&one.view.uid) != wanted.as_ref() && seen.runs(&one.view.uid));
    }

    /// Takes in what the prober says of them: their readiness probes go on.
    pub(super) fn hear_predecessors(&mut self) {
        for one in &mut self.predecessors {
            let mut results = self.context.probes.results(&one.view.uid);
            one.slots.iter_mut().for_each(|(name, slot)| slot.health = results.remove(name));
        }
    }

    /// The pod of this UID, wanted or not, while its manifest is known.
    pub(super) fn known_pod(&self, uid: &str) -> Option<&StaticPod> {
        let before = self.predecessors.iter().map(|one| one.pod.as_ref());
        self.pod.iter().map(|(pod, _)| pod.as_ref()).chain(before).find(|pod| pod.uid == uid)
    }

    /// The one that serves on while the wanted pod is tried beside it.
    pub(super) fn kept_predecessor(&self) -> Option<&Predecessor> {
        let kept = self.kept.as_ref().filter(|kept| kept.serves)?;
        self.predecessors.iter().find(|one| one.view.uid == kept.uid)
    }

    /// Their statuses, by UID.
    pub(super) fn predecessor_statuses(&self) -> BTreeMap<String, PodStatus> {
        let plan = Plan::default();
        let status = |one: &Predecessor| {
            let facts = report::Facts { pod: Some((&one.pod, &one.view)), ..self.facts(&plan, &one.slots) };
            (one.pod.uid.clone(), status::pod(&facts, &report::pod(&facts)))
        };
        // What a pod was before it was restarted is shown by the same mirror as the pod.
        let shown = |one: &&Predecessor| one.pod.has_mirror() && one.view.uid == one.pod.uid;
        self.predecessors.iter().filter(shown).map(status).collect()
    }
}
