//! The conditions of a pod, in the kubelet's order.

use k8s_openapi::api::core::v1::PodCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{ContainerFacts, Known};
use crate::agent::pod::phase::Phase;

/// Why a condition is not true: reason and words.
type Doubt = (&'static str, String);

/// All conditions of a pod.
pub fn all(known: &Known<'_>) -> Vec<PodCondition> {
    let containers_ready = containers_ready(known);
    let ready = containers_ready.clone().or_else(|| gates(known));
    let sandbox = (!known.sandbox_ready).then(<(&str, String)>::default);
    let initialized = initialized(known);
    let done = initialized.is_none() && known.phase == Phase::Succeeded;
    let mut all = vec![
        ("PodReadyToStartContainers", sandbox),
        ("Initialized", initialized),
        ("Ready", ready),
        ("ContainersReady", containers_ready),
        ("PodScheduled", None),
    ]
    .into_iter()
    .map(|(type_, doubt)| condition(known, type_, doubt))
    .collect::<Vec<_>>();
    if done && let Some(initialized) = all.get_mut(1) {
        initialized.reason = Some("PodCompleted".to_owned());
    }
    all
}

fn condition(known: &Known<'_>, type_: &str, doubt: Option<Doubt>) -> PodCondition {
    let status = if doubt.is_none() { "True" } else { "False" };
    let (reason, message) = doubt.unwrap_or_default();
    PodCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: super::said(reason),
        message: super::said(&message),
        last_transition_time: Some(Time(known.now)),
        ..PodCondition::default()
    }
}

/// Init containers have done their work and sidecars have started, or a main container has been started.
fn initialized(known: &Known<'_>) -> Option<Doubt> {
    let mains_run = known.containers.iter().any(|c| !c.init && c.has_run());
    if mains_run || known.phase == Phase::Succeeded {
        return None;
    }
    let fine = |c: &ContainerFacts| if c.sidecar { c.started } else { c.is_ready() };
    let names = names(known, |c| c.init && !fine(c));
    (!names.is_empty())
        .then(|| ("ContainersNotInitialized", format!("containers with incomplete status: [{}]", names.join(" "))))
}

/// Every main container and sidecar is ready.
fn containers_ready(known: &Known<'_>) -> Option<Doubt> {
    match known.phase {
        Phase::Succeeded => return Some(("PodCompleted", String::new())),
        Phase::Failed => return Some(("PodFailed", String::new())),
        Phase::Pending | Phase::Running => {}
    }
    if known.containers.is_empty() {
        return Some(("UnknownContainerStatuses", String::new()));
    }
    let lasting = |c: &ContainerFacts| !c.init || c.sidecar;
    let names = names(known, |c| lasting(c) && !c.is_ready());
    (!names.is_empty())
        .then(|| ("ContainersNotReady", format!("containers with unready status: [{}]", names.join(" "))))
}

/// Only the API sets the conditions that `readinessGates` name; a static pod has none of them.
fn gates(known: &Known<'_>) -> Option<Doubt> {
    let gates = known.spec?.readiness_gates.iter().flatten().map(|gate| &gate.condition_type);
    let closed = gates.filter(|gate| !known.conditions.contains(gate));
    let missing: Vec<_> = closed.map(|gate| format!("readiness gate {gate:?} has no condition")).collect();
    (!missing.is_empty()).then(|| ("ReadinessGatesNotReady", missing.join(", ")))
}

fn names<'a>(known: &'a Known<'_>, which: impl Fn(&ContainerFacts) -> bool) -> Vec<&'a str> {
    known.containers.iter().filter(|c| which(c)).map(|c| c.name.as_str()).collect()
}
