//! Which pods go for a critical one (`pkg/kubelet/preemption`): as few as possible, those of the lowest quality of service
//! first.

use super::room::{Shortage, requests};
use crate::agent::pod::StaticPod;
use crate::agent::pod::resources::{QosClass, qos_class};

/// Pods of this priority and above are critical (`scheduling.SystemCriticalPriority`).
const SYSTEM_CRITICAL: i32 = 2_000_000_000;

/// Whether others go before a pod does: every static pod, and those of the classes for the system.
pub fn is_critical(pod: &StaticPod) -> bool {
    pod.bound.is_none() || pod.spec.priority.is_some_and(|priority| priority >= SYSTEM_CRITICAL)
}

/// Whether `one` goes for `pod`.
fn goes_for(pod: &StaticPod, one: &StaticPod) -> bool {
    let higher = || pod.spec.priority.zip(one.spec.priority).is_some_and(|(own, other)| own > other);
    (is_critical(pod) && !is_critical(one)) || higher()
}

/// How much of a resource is still missing.
type Need = (String, i64);

/// UIDs of the pods among `others` that have to go so that there is room for `pod`.
///
/// # Errors
/// What is still missing when all of them go, in the kubelet's words: `[(res: cpu, q: 500), ]`.
pub(super) fn victims(pod: &StaticPod, others: &[&StaticPod], short: &[Shortage]) -> Result<Vec<String>, String> {
    let needs: Vec<Need> = short.iter().map(|one| (one.resource.clone(), one.missing())).collect();
    let of = |class: QosClass| -> Vec<&StaticPod> {
        let may_go = others.iter().filter(|one| goes_for(pod, one) && qos_class(&one.spec) == class);
        may_go.copied().collect()
    };
    let (best_effort, burstable, guaranteed) =
        (of(QosClass::BestEffort), of(QosClass::Burstable), of(QosClass::Guaranteed));
    let beside = |lists: [&[&StaticPod]; 2]| without(&needs, &lists.concat());
    let unmet = without(&beside([&best_effort, &burstable]), &guaranteed);
    if !unmet.is_empty() {
        return Err(in_words(&unmet));
    }
    // Those that are Guaranteed go only for what no other pod could give, and so on down.
    let guaranteed = nearest(guaranteed, beside([&best_effort, &burstable]))?;
    let burstable = nearest(burstable, beside([&best_effort, &guaranteed]))?;
    let best_effort = nearest(best_effort, beside([&burstable, &guaranteed]))?;
    Ok(best_effort.iter().chain(&burstable).chain(&guaranteed).map(|one| one.uid.clone()).collect())
}

/// As few of `pods` as cover `needs`, the one that covers most of them first.
fn nearest(mut pods: Vec<&StaticPod>, mut needs: Vec<Need>) -> Result<Vec<&StaticPod>, String> {
    let mut chosen = Vec::new();
    while !needs.is_empty() {
        let best = (0..pods.len()).reduce(|best, one| {
            let (nearer, farther) = (distance(&needs, pods[one]), distance(&needs, pods[best]));
            let is_better = nearer < farther || (nearer <= farther && is_smaller(pods[one], pods[best]));
            if is_better { one } else { best }
        });
        let Some(best) = best else { return Err(in_words(&needs)) };
        let one = pods.swap_remove(best);
        needs = without(&needs, &[one]);
        chosen.push(one);
    }
    Ok(chosen)
}

/// What is missing of `needs` when `pods` go.
fn without(needs: &[Need], pods: &[&StaticPod]) -> Vec<Need> {
    let left = |(resource, missing): &Need| {
        let freed = pods.iter().map(|pod| requests(&pod.spec, resource)).fold(0, i64::saturating_add);
        let missing = missing.saturating_sub(freed);
        (missing > 0).then(|| (resource.clone(), missing))
    };
    needs.iter().filter_map(left).collect()
}

/// How far a pod is from covering all needs, each of which weighs the same.
fn distance(needs: &[Need], pod: &StaticPod) -> f64 {
    let part = |(resource, missing): &Need| {
        let left = missing.saturating_sub(requests(&pod.spec, resource));
        if left > 0 { (left as f64 / *missing as f64).powi(2) } else { 0.0 }
    };
    needs.iter().map(part).sum()
}

/// Whether a pod asks for less than another: memory counts before CPUs.
fn is_smaller(one: &StaticPod, other: &StaticPod) -> bool {
    let of = |pod: &StaticPod| ["memory", "cpu"].map(|resource| requests(&pod.spec, resource));
    of(one) <= of(other)
}

fn in_words(needs: &[Need]) -> String {
    let parts: String = needs.iter().map(|(resource, missing)| format!("(res: {resource}, q: {missing}), ")).collect();
    format!("[{parts}]")
}
