//! The status of the Node, as a pure function of what the agent sees.
//!
//! Conditions are the kubelet's, and its reasons. One is the agent's own: where the runtime gives pods no network of
//! the cluster's (a Docker engine), pods on the host's network run all the same, so the Node is ready; but
//! `NetworkUnavailable` is true, with the reason `NoPodNetwork`. The cluster's node controller taints such a Node with
//! `node.kubernetes.io/network-unavailable`, which keeps away the pods that need a network and not those of the host's.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeStatus, NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::machine::{Machine, architecture};
use crate::agent::devices::Amounts;
use crate::agent::options::{NodeOptions, eviction};
use crate::runtime::PodNetwork;

/// Why the agent's own condition is true.
const NO_POD_NETWORK: &str = "NoPodNetwork";
/// Its type, which a network add-on of the cluster may also set.
const NETWORK_UNAVAILABLE: &str = "NetworkUnavailable";
/// The last minor of which kubelets say the version of a kube-proxy that they know nothing of.
const LAST_WITH_PROXY_VERSION: u64 = 32;
/// The first minor of which API servers ask whether a node takes WebSockets.
const FIRST_WITH_WEBSOCKETS: u64 = 36;

/// What the status is made of.
#[derive(Debug, Clone)]
pub struct Seen<'a> {
    /// The machine.
    pub machine: &'a Machine,
    /// What device plugins have, by resource.
    pub devices: &'a BTreeMap<String, Amounts>,
    /// The agent's options for the Node.
    pub options: &'a NodeOptions,
    /// The Node's name, its host name.
    pub name: &'a str,
    /// Its addresses.
    pub addresses: &'a [String],
    /// Name and version of the runtime (`docker 20.10.24`), that it had last.
    pub runtime: &'a str,
    /// What is wrong with the runtime; None while it answers.
    pub runtime_trouble: Option<&'a str>,
    /// What the runtime says of pods' networks.
    pub network: &'a PodNetwork,
    /// What is wrong with the disks.
    pub disk_trouble: Option<&'a str>,
    /// Memory that can be had, in KiB.
    pub available_memory: Option<i64>,
    /// The version of Kubernetes that the Node speaks: its API server's.
    pub version: &'a str,
    /// Its minor.
    pub minor: u64,
    /// Where the agent's own API is served.
    pub port: Option<i32>,
    /// Images the runtime has.
    pub images: &'a [ContainerImage],
    /// Now.
    pub now: Timestamp,
}

/// The status after `before`: a condition that is what it was keeps the time of its last transition.
pub fn status(seen: &Seen<'_>, before: &NodeStatus) -> NodeStatus {
    let (mut capacity, mut allocatable) = resources(seen.machine, seen.options);
    for (resource, amounts) in seen.devices {
        capacity.insert(resource.clone(), Quantity(amounts.capacity.to_string()));
        allocatable.insert(resource.clone(), Quantity(amounts.allocatable.to_string()));
    }
    let address = |type_: &str, address: &str| NodeAddress { type_: type_.to_owned(), address: address.to_owned() };
    let mut addresses: Vec<_> = seen.addresses.iter().map(|ip| address("InternalIP", ip)).collect();
    addresses.push(address("Hostname", seen.name));
    NodeStatus {
        addresses: Some(addresses),
        capacity: Some(capacity),
        allocatable: Some(allocatable),
        conditions: Some(conditions(seen, before)),
        daemon_endpoints: Some(NodeDaemonEndpoints { kubelet_endpoint: seen.port.map(|port| DaemonEndpoint { port }) }),
        images: Some(seen.images.to_vec()).filter(|images| !images.is_empty()),
        node_info: Some(info(seen)),
        declared_features: declared(seen),
        ..NodeStatus::default()
    }
}

/// What an API server asks its nodes for before it relies on it. This one hands on the WebSockets of exec, attach and
/// port-forward as they are, instead of turning them into SPDY first, to a node that says it takes them.
fn declared(seen: &Seen<'_>) -> Option<Vec<String>> {
    let takes = seen.minor >= FIRST_WITH_WEBSOCKETS && seen.port.is_some();
    takes.then(|| vec!["ExtendWebSocketsToKubelet".to_owned()])
}

fn info(seen: &Seen<'_>) -> NodeSystemInfo {
    let machine = seen.machine;
    let (runtime, version) = seen.runtime.split_once(' ').unwrap_or((seen.runtime, ""));
    NodeSystemInfo {
        machine_id: machine.machine_id.clone(),
        system_uuid: machine.system_uuid.clone(),
        boot_id: machine.boot_id.clone(),
        kernel_version: machine.kernel_version.clone(),
        os_image: machine.os_image.clone(),
        container_runtime_version: format!("{runtime}://{version}"),
        kubelet_version: seen.version.to_owned(),
        kube_proxy_version: if seen.minor > LAST_WITH_PROXY_VERSION { String::new() } else { seen.version.to_owned() },
        operating_system: "linux".to_owned(),
        architecture: architecture().to_owned(),
        ..NodeSystemInfo::default()
    }
}

type Resources = BTreeMap<String, Quantity>;

/// What the machine has, and what of that pods can have: less what is reserved, and less what a kubelet keeps from them
/// by default, that it may evict some before the machine has nothing left.
pub(super) fn resources(machine: &Machine, options: &NodeOptions) -> (Resources, Resources) {
    let reserved = |resource: &str| options.reserved.get(resource).copied().unwrap_or(0);
    let huge_kib: i64 = machine.huge_pages.iter().map(|(kib, pages)| kib.saturating_mul(*pages)).sum();
    let memory = less(
        machine.memory_kib,
        [huge_kib, least_memory_kib(machine, options).unwrap_or(0), reserved("memory") / 1024],
    );
    let storage = less(
        machine.storage_bytes,
        [reserved("ephemeral-storage"), least(options, eviction::DISK, machine.storage_bytes).unwrap_or(0)],
    );
    let cpus = less(machine.cpus.saturating_mul(1000), [reserved("cpu")]);
    let cpus = if cpus % 1000 == 0 { (cpus / 1000).to_string() } else { format!("{cpus}m") };
    let mut both: Vec<(String, String, String)> = vec![
        ("cpu".into(), machine.cpus.to_string(), cpus),
        ("memory".into(), format!("{}Ki", machine.memory_kib), format!("{memory}Ki")),
        ("ephemeral-storage".into(), format!("{}Ki", machine.storage_bytes / 1024), storage.to_string()),
        ("pods".into(), options.max_pods.to_string(), options.max_pods.to_string()),
    ];
    for (kib, pages) in &machine.huge_pages {
        let (size, all) = (binary(*kib), if *pages == 0 { "0".to_owned() } else { binary(kib.saturating_mul(*pages)) });
        both.push((format!("hugepages-{size}"), all.clone(), all));
    }
    let capacity = both.iter().map(|(name, all, _)| (name.clone(), Quantity(all.clone()))).collect();
    (capacity, both.into_iter().map(|(name, _, free)| (name, Quantity(free))).collect())
}

/// Less than this is short.
fn least(options: &NodeOptions, signal: &str, all: i64) -> Option<i64> {
    let least = options.eviction.least(signal, u64::try_from(all).unwrap_or(0))?;
    Some(i64::try_from(least).unwrap_or(i64::MAX))
}

/// Less free memory than this is short.
fn least_memory_kib(machine: &Machine, options: &NodeOptions) -> Option<i64> {
    least(options, eviction::MEMORY, machine.memory_kib.saturating_mul(1024)).map(|bytes| bytes / 1024)
}

/// What is left of an amount; never less than nothing.
fn less<const N: usize>(all: i64, parts: [i64; N]) -> i64 {
    parts.into_iter().fold(all, i64::saturating_sub).max(0)
}

/// KiB in the largest unit that needs no fraction.
fn binary(kib: i64) -> String {
    match kib {
        kib if kib % (1 << 20) == 0 => format!("{}Gi", kib >> 20),
        kib if kib % (1 << 10) == 0 => format!("{}Mi", kib >> 10),
        kib => format!("{kib}Ki"),
    }
}

/// A condition as it is now: type, status, reason, message.
type Now = (&'static str, bool, &'static str, String);

fn conditions(seen: &Seen<'_>, before: &NodeStatus) -> Vec<NodeCondition> {
    let pressure = |type_, reasons: [&'static str; 2], messages: [&str; 2], trouble: bool| {
        let at = usize::from(trouble);
        (type_, trouble, reasons[at], messages[at].to_owned())
    };
    let least = least_memory_kib(seen.machine, seen.options);
    let memory_short = seen.available_memory.zip(least).is_some_and(|(kib, least)| kib < least);
    let little = format!(
        "less than {} of memory are available; no pod is evicted",
        seen.options.eviction.shown(eviction::MEMORY)
    );
    let mut now: Vec<Now> = vec![
        pressure(
            "MemoryPressure",
            ["KubeletHasSufficientMemory", "KubeletHasInsufficientMemory"],
            ["kubelet has sufficient memory available", &little],
            memory_short,
        ),
        pressure(
            "DiskPressure",
            ["KubeletHasNoDiskPressure", "KubeletHasDiskPressure"],
            ["kubelet has no disk pressure", seen.disk_trouble.unwrap_or_default()],
            seen.disk_trouble.is_some(),
        ),
        // Like a kubelet, which by default knows no limit of processes.
        ("PIDPressure", false, "KubeletHasSufficientPID", "kubelet has sufficient PID available".to_owned()),
    ];
    let message = "the container runtime gives pods no network of the cluster's; pods on the host's network run";
    match seen.network {
        PodNetwork::Absent => now.push((NETWORK_UNAVAILABLE, true, NO_POD_NETWORK, message.to_owned())),
        PodNetwork::Ready | PodNetwork::NotReady { .. } => {}
    }
    let trouble = trouble(seen);
    let reason = if trouble.is_some() { "KubeletNotReady" } else { "KubeletReady" };
    let ready = match seen.machine.apparmor {
        true => "kubelet is posting ready status. AppArmor enabled",
        false => "kubelet is posting ready status",
    };
    now.push(("Ready", trouble.is_none(), reason, trouble.unwrap_or_else(|| ready.to_owned())));
    now.into_iter().map(|one| condition(one, before, seen.now)).collect()
}

/// Why the Node is not ready, in the kubelet's words and the runtime's.
fn trouble(seen: &Seen<'_>) -> Option<String> {
    match (seen.runtime_trouble, seen.network) {
        (Some(words), _) => Some(format!("container runtime is down: {words}")),
        (None, PodNetwork::NotReady { reason, message }) => {
            Some(format!("container runtime network not ready: NetworkReady=false reason:{reason} message:{message}"))
        }
        _ => None,
    }
}

fn condition((type_, is, reason, message): Now, before: &NodeStatus, now: Timestamp) -> NodeCondition {
    let status = if is { "True" } else { "False" };
    let old = before.conditions.iter().flatten().find(|old| old.type_ == type_ && old.status == status);
    NodeCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_heartbeat_time: Some(Time(now)),
        last_transition_time: old.and_then(|old| old.last_transition_time.clone()).or(Some(Time(now))),
    }
}

/// Whether `new` says anything that `old`, which may say more, does not.
pub fn differs(old: &NodeStatus, new: &NodeStatus) -> bool {
    let beside = |status: &NodeStatus| NodeStatus { conditions: None, ..status.clone() };
    let kept = NodeStatus {
        addresses: old.addresses.clone(),
        capacity: new.capacity.as_ref().map(|new| known(old.capacity.as_ref(), new)),
        allocatable: new.allocatable.as_ref().map(|new| known(old.allocatable.as_ref(), new)),
        daemon_endpoints: old.daemon_endpoints.clone(),
        images: old.images.clone(),
        node_info: old.node_info.clone(),
        // An API server without the feature gate keeps none: it is sent with the next status, and is none by itself.
        declared_features: new.declared_features.clone(),
        ..NodeStatus::default()
    };
    let same = |one: &NodeCondition| {
        let found = old.conditions.iter().flatten().find(|old| old.type_ == one.type_);
        found.is_some_and(|old| (&old.status, &old.reason, &old.message) == (&one.status, &one.reason, &one.message))
    };
    kept != beside(new) || !new.conditions.iter().flatten().all(same) || is_left(old, new)
}

/// Those of `old` that are in `new`.
fn known(old: Option<&Resources>, new: &Resources) -> Resources {
    old.into_iter().flatten().filter(|(name, _)| new.contains_key(*name)).map(|(n, q)| (n.clone(), q.clone())).collect()
}

/// Whether the agent's own condition is of another day, when the runtime was another.
fn is_left(old: &NodeStatus, new: &NodeStatus) -> bool {
    let ours = |one: &NodeCondition| {
        one.type_ == NETWORK_UNAVAILABLE && one.reason.as_deref() == Some(NO_POD_NETWORK) && one.status == "True"
    };
    old.conditions.iter().flatten().any(ours) && !new.conditions.iter().flatten().any(ours)
}

/// The strategic merge patch that makes `new` out of `old`. What others wrote (conditions of an add-on, extended
/// resources) stays; addresses are replaced, because two of one type would be merged into one.
pub fn patch(old: &NodeStatus, new: &NodeStatus) -> Result<Value, serde_json::Error> {
    let mut status = serde_json::to_value(new)?;
    if let Some(addresses) = status["addresses"].as_array_mut() {
        addresses.push(json!({ "$patch": "replace" }));
    }
    if is_left(old, new)
        && let Some(conditions) = status["conditions"].as_array_mut()
    {
        conditions.push(json!({ "$patch": "delete", "type": NETWORK_UNAVAILABLE }));
    }
    Ok(json!({ "status": status }))
}
