//! Whether this node runs a pod, by the kubelet's rules (`pkg/kubelet/lifecycle/predicate.go`) and in its words. Pure.
//!
//! The node's own pods are asked these questions here; pods that the API server binds to the node are asked some more
//! ([`super::bound::admission`]). A pod that is refused is in phase Failed until its manifest changes, and takes no room.
//!
//! Every static pod is critical, as with the kubelet: where there is no room for one, pods that are not critical go
//! ([`preemption`]), and only where that does not help it is refused. Taints do not keep static pods away.
//! [`statics`] remembers what was decided.

mod affinity;
mod apparmor;
mod preemption;
mod room;
pub mod statics;
mod sysctls;

use std::collections::BTreeMap;

use super::pod::StaticPod;
use preemption::is_critical;
pub use room::amounts;
use room::shortages;

/// The reason of a pod that had to go for one that is critical.
pub const PREEMPTED: &str = "Preempting";

/// Why a pod is not run, for `kubectl describe`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// One word, the kubelet's where it has one (`NodeAffinity`, `OutOfcpu`).
    pub reason: String,
    /// What is missing.
    pub message: String,
}

impl Refusal {
    /// A refusal for this reason.
    pub fn new(reason: &str, message: impl Into<String>) -> Self {
        Self { reason: reason.to_owned(), message: message.into() }
    }

    /// That of a pod that was run, and had to go for one that is critical.
    pub fn preempted() -> Self {
        Self::new(PREEMPTED, "Preempted in order to admit critical pod")
    }

    /// What the status of the pod says.
    pub fn status_message(&self) -> String {
        match self.reason.as_str() {
            PREEMPTED => self.message.clone(),
            _ => format!("Pod was rejected: {}", self.message),
        }
    }
}

/// The node, as far as it matters to every pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Site {
    /// Its name.
    pub name: String,
    /// Its labels; None while they are not known, and then they are not asked for.
    pub labels: Option<BTreeMap<String, String>>,
    /// What pods may use of it by resource, CPUs in thousandths, everything else in whole units. What is missing here is
    /// not known and not checked, but for huge pages: the node has none of a size that is missing.
    pub allocatable: BTreeMap<String, i64>,
    /// Patterns of the kernel parameters that pods may set beyond those that are safe for other pods.
    pub unsafe_sysctls: Vec<String>,
    /// Whether it has AppArmor.
    pub apparmor: bool,
}

/// What becomes of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// It is run, once the pods with these UIDs are being stopped; as a rule none.
    Admitted {
        /// UIDs of pods that are not critical.
        preempts: Vec<String>,
    },
    /// It is not run.
    Refused(Refusal),
}

/// What becomes of a static pod beside `others`, the pods that the node runs: the static ones that were admitted, and
/// those bound to it. None of them has ended.
pub fn admit(pod: &StaticPod, site: &Site, others: &[&StaticPod]) -> Admission {
    match system(pod, site) {
        Some(refusal) => Admission::Refused(refusal),
        None => fit(pod, site, others),
    }
}

/// What is asked of the node's operating system, which no room helps.
pub fn system(pod: &StaticPod, site: &Site) -> Option<Refusal> {
    if let Some(refusal) = sysctls::refusal(pod, &site.unsafe_sysctls) {
        return Some(refusal);
    }
    // The label of the pod, not of the node: the kubelet has it that way.
    if pod.label("kubernetes.io/os").is_some_and(|os| os != "linux") {
        let message = "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label";
        return Some(Refusal::new("PodOSSelectorNodeLabelDoesNotMatch", message));
    }
    if pod.spec.os.as_ref().is_some_and(|os| os.name != "linux") {
        let message = "Failed to admit pod as the OS field doesn't match node OS";
        return Some(Refusal::new("PodOSNotSupported", message));
    }
    let policy = pod.spec.security_context.as_ref().and_then(|context| context.supplemental_groups_policy.as_deref());
    // No runtime is asked yet whether it can leave out the image's groups.
    let message = "SupplementalGroupsPolicy=Strict is not supported in this node";
    (policy == Some("Strict")).then(|| Refusal::new("SupplementalGroupsPolicyNotSupported", message))
}

/// Whether the node has room for a pod, is one that it may be on, and can confine it. A critical pod never lacks room alone:
/// others make it.
pub fn fit(pod: &StaticPod, site: &Site, others: &[&StaticPod]) -> Admission {
    match placed(pod, site, others) {
        // The last question, as with the kubelet, and none goes for a pod that is refused all the same.
        Admission::Admitted { preempts } => match apparmor::refusal(pod, site.apparmor) {
            Some(refusal) => Admission::Refused(refusal),
            None => Admission::Admitted { preempts },
        },
        refused @ Admission::Refused(_) => refused,
    }
}

fn placed(pod: &StaticPod, site: &Site, others: &[&StaticPod]) -> Admission {
    let short = shortages(pod, site, others);
    let misplaced = placement(pod, site).or_else(|| ports(pod, others));
    match (short.first(), misplaced) {
        (None, None) => Admission::Admitted { preempts: vec![] },
        (Some(shortage), _) if !is_critical(pod) => Admission::Refused(shortage.refusal()),
        (_, Some(refusal)) => Admission::Refused(refusal),
        (Some(_), None) => match preemption::victims(pod, others, &short) {
            Ok(preempts) => Admission::Admitted { preempts },
            Err(unmet) => {
                let message = format!(
                    "Unexpected error while attempting to recover from admission failure: preemption: error finding a \
                     set of pods to preempt: no set of running pods found to reclaim resources: {unmet}"
                );
                Admission::Refused(Refusal::new("UnexpectedAdmissionError", message))
            }
        },
    }
}

/// `nodeSelector` and required node affinity.
fn placement(pod: &StaticPod, site: &Site) -> Option<Refusal> {
    let labels = site.labels.as_ref()?;
    let fits = affinity::fits(&pod.spec, labels, &site.name);
    let message = "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
    (!fits).then(|| Refusal::new("NodeAffinity", message))
}

fn ports(pod: &StaticPod, others: &[&StaticPod]) -> Option<Refusal> {
    let wanted = host_ports(pod);
    let taken: Vec<(&StaticPod, HostPort)> =
        others.iter().flat_map(|other| host_ports(other).into_iter().map(move |port| (*other, port))).collect();
    let meets = |port: &HostPort| taken.iter().find(|(_, other)| port.meets(other));
    let (port, (other, _)) = wanted.iter().find_map(|port| Some((port, meets(port)?)))?;
    let message = format!(
        "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports: {} is taken by {}",
        port.port, other.key
    );
    Some(Refusal::new("NodePorts", message))
}

struct HostPort {
    address: String,
    protocol: String,
    port: i32,
}

impl HostPort {
    /// One address stands for all.
    fn meets(&self, other: &Self) -> bool {
        let any = |one: &Self| matches!(one.address.as_str(), "" | "0.0.0.0");
        let same_address = any(self) || any(other) || self.address == other.address;
        same_address && self.port == other.port && self.protocol == other.protocol
    }
}

/// Ports of main containers and sidecars: those of init containers are free again when it matters.
fn host_ports(pod: &StaticPod) -> Vec<HostPort> {
    let lasting = pod.containers().filter(|(init, one)| !init || one.restart_policy.as_deref() == Some("Always"));
    let ports = lasting.flat_map(|(_, container)| container.ports.iter().flatten());
    let taken = ports.filter_map(|port| {
        let number = port.host_port.filter(|number| *number > 0)?;
        let protocol = port.protocol.clone().filter(|name| !name.is_empty()).unwrap_or_else(|| "TCP".to_owned());
        Some(HostPort { address: port.host_ip.clone().unwrap_or_default(), protocol, port: number })
    });
    taken.collect()
}

#[cfg(test)]
mod tests;
