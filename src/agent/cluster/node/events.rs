//! Which events of the Node its status makes, with the kubelet's reasons. Pure.

use k8s_openapi::api::core::v1::NodeStatus;

use crate::agent::events::Kind;
use crate::agent::wording;

/// A condition, and the reasons of the events when it turns true and false.
const CONDITIONS: [(&str, &str, &str); 4] = [
    ("MemoryPressure", "NodeHasInsufficientMemory", "NodeHasSufficientMemory"),
    ("DiskPressure", "NodeHasDiskPressure", "NodeHasNoDiskPressure"),
    ("PIDPressure", "NodeHasInsufficientPID", "NodeHasSufficientPID"),
    (READY, "NodeReady", "NodeNotReady"),
];
const READY: &str = "Ready";

/// An event: its kind, reason and message.
pub type NodeEvent = (Kind, &'static str, String);

/// What an agent that has just begun assumes to be reported of a Node: whether it was ready, and when it was booted.
/// The pressures are reported at each start, as by a kubelet.
pub fn known(there: &NodeStatus) -> NodeStatus {
    let ready = there.conditions.iter().flatten().filter(|one| one.type_ == READY).cloned().collect();
    NodeStatus { conditions: Some(ready), node_info: there.node_info.clone(), ..NodeStatus::default() }
}

/// What is to be reported of the Node of this name whose status was `before` and is `now`.
pub fn changes(name: &str, before: &NodeStatus, now: &NodeStatus) -> Vec<NodeEvent> {
    let of = |status: &NodeStatus, type_: &str| {
        let found = status.conditions.iter().flatten().find(|one| one.type_ == type_);
        found.map(|one| one.status == "True")
    };
    let turned = CONDITIONS.into_iter().filter_map(|(type_, when_true, when_false)| {
        let is = of(now, type_)?;
        (of(before, type_) != Some(is)).then(|| status(name, if is { when_true } else { when_false }))
    });
    let boot = |status: &NodeStatus| status.node_info.as_ref().map(|info| info.boot_id.clone()).unwrap_or_default();
    let (old, new) = (boot(before), boot(now));
    let rebooted =
        (!old.is_empty() && old != new).then(|| (Kind::Warning, "Rebooted", wording::REBOOTED.with(&[&name, &new])));
    turned.chain(rebooted).collect()
}

/// The event of the Node's `spec.unschedulable`.
pub fn schedulable(name: &str, is: bool) -> NodeEvent {
    status(name, if is { "NodeSchedulable" } else { "NodeNotSchedulable" })
}

fn status(name: &str, reason: &'static str) -> NodeEvent {
    (Kind::Normal, reason, wording::NODE_STATUS.with(&[&name, &reason]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(ready: &str, memory: &str, boot: &str) -> NodeStatus {
        let condition = |type_: &str, status: &str| json!({"type": type_, "status": status});
        let info = json!({"bootID": boot, "architecture": "", "containerRuntimeVersion": "", "kernelVersion": "",
            "kubeProxyVersion": "", "kubeletVersion": "", "machineID": "", "operatingSystem": "", "osImage": "",
            "systemUUID": ""});
        let conditions = [condition("Ready", ready), condition("MemoryPressure", memory)];
        serde_json::from_value(json!({"conditions": conditions, "nodeInfo": info})).unwrap()
    }

    #[test]
    fn a_condition_is_told_when_it_turns_and_the_pressures_at_each_start() {
        let reported = |before: &NodeStatus, now: &NodeStatus| -> Vec<String> {
            changes("n", before, now).into_iter().map(|(_, reason, message)| format!("{reason}: {message}")).collect()
        };
        let well = of("True", "False", "one");
        let ready = "NodeReady: Node n status is now: NodeReady";
        let memory = "NodeHasSufficientMemory: Node n status is now: NodeHasSufficientMemory";
        assert_eq!(reported(&NodeStatus::default(), &well), [memory, ready]);
        assert_eq!(reported(&known(&well), &well), [memory]);
        assert!(reported(&well, &well).is_empty());
        let bad = of("False", "True", "one");
        assert_eq!(reported(&well, &bad).iter().filter(|text| text.contains("NodeNotReady")).count(), 1);
        assert!(reported(&well, &bad)[0].starts_with("NodeHasInsufficientMemory: "));
        let rebooted = reported(&known(&well), &of("True", "False", "two"));
        assert_eq!(rebooted, [memory, "Rebooted: Node n has been rebooted, boot id: two"]);
        assert_eq!(schedulable("n", false).2, "Node n status is now: NodeNotSchedulable");
    }
}
