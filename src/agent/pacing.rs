//! Start order of a control plane: who waits for whom before its first start.
//!
//! A leader election that is tried before the API server answers costs seconds, and four processes that start at once
//! on two processors slow each other. So some components are held back, for a moment and never for ever: until the one
//! they wait for is healthy, is not wanted, has crashed, or [`LONGEST_HOLD`] is over.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::pod::StaticPod;
use super::worker::Hold;

/// Nothing is held back longer.
pub const LONGEST_HOLD: Duration = Duration::from_secs(30);

/// Which component waits for which. etcd and the API server start together: the API server retries, and has enough to
/// do before it needs etcd.
const ORDER: &[(&str, &str)] = &[("kube-controller-manager", "kube-apiserver"), ("kube-scheduler", "kube-apiserver")];

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

/// The component that a pod is, if it is one of a control plane.
pub fn component(pod: &StaticPod) -> Option<&str> {
    let control_plane = pod.label("tier") == Some("control-plane") && pod.key.namespace == "kube-system";
    pod.label("component").filter(|_| control_plane)
}

/// Whether a pod that was wanted since `since` is held back now.
pub fn hold(pod: &StaticPod, gates: &Gates, since: Instant) -> Option<Hold> {
    let component = component(pod)?;
    let (_, gate) = ORDER.iter().find(|(waiting, _)| *waiting == component)?;
    let state = gates.get(*gate)?;
    let open = state.healthy || state.crashed;
    (!open).then(|| Hold { message: format!("waiting for {gate} to become healthy"), until: since + LONGEST_HOLD })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::pod::tests::read;

    fn pod(name: &str, tier: &str, namespace: &str) -> StaticPod {
        read(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}, labels: {{component: {name}, tier: {tier}}}}}\nspec: {{containers: [{{name: c, image: 'x:1'}}]}}\n"
        ))
        .unwrap()
    }

    #[test]
    fn a_component_waits_only_while_its_gate_is_wanted_unhealthy_and_has_not_crashed() {
        let gate = |healthy, crashed| Gates::from([("kube-apiserver".to_owned(), Gate { healthy, crashed })]);
        let now = Instant::now();
        for (name, tier, namespace, gates, held) in [
            ("kube-scheduler", "control-plane", "kube-system", gate(false, false), true),
            ("kube-controller-manager", "control-plane", "kube-system", gate(false, false), true),
            ("kube-scheduler", "control-plane", "kube-system", gate(true, false), false),
            ("kube-scheduler", "control-plane", "kube-system", gate(false, true), false),
            ("kube-scheduler", "control-plane", "kube-system", Gates::new(), false),
            ("kube-scheduler", "web", "kube-system", gate(false, false), false),
            ("kube-scheduler", "control-plane", "default", gate(false, false), false),
            ("etcd", "control-plane", "kube-system", gate(false, false), false),
            ("kube-apiserver", "control-plane", "kube-system", gate(false, false), false),
        ] {
            let hold = hold(&pod(name, tier, namespace), &gates, now);
            assert_eq!(hold.is_some(), held, "{name} {tier} {namespace} {gates:?}");
            assert!(hold.is_none_or(|hold| hold.until == now + LONGEST_HOLD));
        }
    }
}
