//! Start order of a control plane: who waits for whom before its first start.
//!
//! A leader election that is tried before the API server answers costs seconds, and four processes that start at once
//! on two processors slow each other. So some components are held back, for a moment and never for ever: until the one
//! they wait for is healthy, is not wanted, has crashed, or [`LONGEST_HOLD`] is over.

use std::time::Duration;

use crate::agent::board::Gates;
use crate::agent::pod::StaticPod;
use crate::agent::pod::surge;
use crate::host::clock::Instant;

/// Nothing is held back longer.
pub const LONGEST_HOLD: Duration = Duration::from_secs(30);

/// Which component waits for which. etcd and the API server start together: the API server retries, and has enough to
/// do before it needs etcd.
const ORDER: &[(&str, &str)] = &[("kube-controller-manager", "kube-apiserver"), ("kube-scheduler", "kube-apiserver")];

/// Components whose successor may start while the predecessor still drains. An API server closes its port when it is asked to
/// stop and then serves what it has begun, watches among it, for as long as it is let; no client reaches it any more, and
/// several of them work on one etcd as a matter of course. Waiting for its end would be an outage of the whole grace period.
const OVERLAPPING: &[&str] = &["kube-apiserver"];

/// The ports whose closing lets `pod` start beside a predecessor that is being stopped; empty where it may not.
pub fn overlap_ports(pod: &StaticPod) -> Vec<u16> {
    let may = pod.host_network() && component(pod).is_some_and(|component| OVERLAPPING.contains(&component));
    let ports = pod.containers().filter(|_| may).flat_map(|(_, container)| container.ports.iter().flatten());
    ports.filter_map(|port| u16::try_from(port.container_port).ok()).collect()
}

/// Components that are made before their predecessor ends: while none of these runs, no client is answered.
const AHEAD: &[&str] = &["etcd"];

/// Whether `pod` is made before the one it replaces ends: one of these components, or one that asks for a surge, with which two
/// may be there at once. It has to be on the machine's network, whose ports only a start takes, and have one container alone.
pub fn is_made_ahead(pod: &StaticPod) -> bool {
    let asks = surge::asks(pod) || component(pod).is_some_and(|component| AHEAD.contains(&component));
    let mut containers = pod.containers();
    let is_alone = matches!((containers.next(), containers.next()), (Some((false, _)), None));
    asks && is_alone && pod.host_network() && pod.bound.is_none()
}

/// The component that a pod is, if it is one of a control plane.
pub fn component(pod: &StaticPod) -> Option<&str> {
    let control_plane = pod.label("tier") == Some("control-plane") && pod.key.namespace == "kube-system";
    pod.component().filter(|_| control_plane)
}

/// Whether a pod that was wanted since `since` is held back now.
pub fn hold(pod: &StaticPod, gates: &Gates, since: Instant) -> Option<Hold> {
    let component = component(pod)?;
    let (_, gate) = ORDER.iter().find(|(waiting, _)| *waiting == component)?;
    let state = gates.get(*gate)?;
    let open = state.healthy || state.crashed;
    (!open).then(|| Hold { message: format!("waiting for {gate} to become healthy"), until: since + LONGEST_HOLD })
}

/// A container is held back by the start order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// What for.
    pub message: String,
    /// No longer than this.
    pub until: Instant,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::board::Gate;
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

    #[test]
    fn etcd_and_who_asks_for_a_surge_are_made_ahead_where_nothing_but_a_start_is_in_the_way() {
        let made = |annotation: &str, namespace: &str, component: &str, spec: &str| {
            let pod = read(&format!(
                "apiVersion: v1\nkind: Pod\nmetadata:\n  name: p\n  namespace: {namespace}\n  labels: {{component: {component}, tier: \
                 control-plane}}\n  annotations: {{kubeboot.dev/surge: '{annotation}'}}\nspec:\n  containers:\n  - {{name: c, \
                 image: 'x:1'}}\n  {spec}\n"
            ));
            is_made_ahead(&pod.unwrap())
        };
        const HOST: &str = "hostNetwork: true";
        assert!(made("", "kube-system", "etcd", HOST));
        assert!(made("true", "default", "db", HOST));
        assert!(
            made("true", "kube-system", "kube-apiserver", HOST),
            "where it cannot be started beside the one before"
        );
        assert!(!made("", "default", "etcd", HOST) && !made("", "kube-system", "kube-scheduler", HOST));
        assert!(!made("false", "default", "db", HOST));
        for spec in ["", "- {name: d, image: 'x:1'}\n  hostNetwork: true"] {
            assert!(!made("true", "default", "db", spec), "{spec}");
        }
        assert!(!made("", "kube-system", "etcd", "initContainers: [{name: i, image: 'x:1'}]\n  hostNetwork: true"));
    }

    #[test]
    fn only_an_api_servers_successor_overlaps_and_on_its_own_ports() {
        let ports = |name: &str, network: bool| {
            let pod = read(&format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: kube-system, labels: {{component: {name}, \
                 tier: control-plane}}}}\nspec:\n  hostNetwork: {network}\n  containers: [{{name: c, image: 'x:1', ports: \
                 [{{containerPort: 6443}}]}}]\n"
            ));
            overlap_ports(&pod.unwrap())
        };
        assert_eq!(ports("kube-apiserver", true), [6443]);
        assert!(ports("kube-apiserver", false).is_empty());
        assert!(ports("etcd", true).is_empty(), "two etcds on one directory destroy it");
        assert!(ports("kube-scheduler", true).is_empty());
    }
}
