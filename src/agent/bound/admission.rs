//! Whether this node runs a pod that was bound to it: a table of checks, with the kubelet's reasons where it has the
//! same ones (`pkg/kubelet/lifecycle`). Pure.
//!
//! A pod that is refused has failed: its controller sees that and makes another one, after a back-off of its own. A
//! DaemonSet that does not fit this node therefore goes on trying, ever more seldom; `nodeSelector` or `tolerations`
//! keep it away.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PodSpec, Volume};

use super::affinity;
use crate::agent::pod::StaticPod;
use crate::agent::resources::{bytes, millis, of_pod};
use crate::runtime::PodNetwork;

/// Why a pod is not run, for `kubectl describe`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// One word.
    pub reason: String,
    /// What is missing.
    pub message: String,
}

impl Refusal {
    fn new(reason: &str, message: impl Into<String>) -> Self {
        Self { reason: reason.to_owned(), message: message.into() }
    }
}

/// What becomes of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is run.
    Admitted,
    /// It is never run.
    Refused(Refusal),
    /// It cannot run yet, for the node lacks something that is on its way.
    Later(String),
}

/// What the node has to give; what is not known is not checked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amounts {
    /// Thousandths of a processor.
    pub cpu: Option<i64>,
    /// Bytes of memory.
    pub memory: Option<i64>,
    /// Pods.
    pub pods: Option<i64>,
}

/// The node, as far as it matters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ground {
    /// Its name.
    pub name: String,
    /// Its labels; None while nobody knows them.
    pub labels: Option<BTreeMap<String, String>>,
    /// What pods may use of it.
    pub allocatable: Amounts,
    /// Whether the runtime gives pods a network of their own.
    pub network: PodNetwork,
}

/// A check: None lets the pod pass.
type Check = fn(&StaticPod, &Ground, &[&StaticPod]) -> Option<Refusal>;

/// All checks, in the order in which the first that fails is told.
const CHECKS: &[Check] = &[namesake, system, features, volumes, network, placement, ports, room];

/// What becomes of `pod` beside `others`, the pods that the node runs already.
pub fn judge(pod: &StaticPod, ground: &Ground, others: &[&StaticPod]) -> Verdict {
    if let Some(refusal) = CHECKS.iter().find_map(|check| check(pod, ground, others)) {
        return Verdict::Refused(refusal);
    }
    match &ground.network {
        PodNetwork::NotReady { reason, message } if !pod.host_network() => {
            Verdict::Later(format!("{reason}: {message}"))
        }
        _ => Verdict::Admitted,
    }
}

fn namesake(pod: &StaticPod, _: &Ground, others: &[&StaticPod]) -> Option<Refusal> {
    let same = others.iter().any(|other| other.key == pod.key);
    same.then(|| Refusal::new("NameConflict", format!("a static pod of this node is named {} too", pod.key)))
}

fn system(pod: &StaticPod, _: &Ground, _: &[&StaticPod]) -> Option<Refusal> {
    let other = pod.spec.os.as_ref().is_some_and(|os| os.name != "linux");
    let words = "Failed to admit pod as the OS field doesn't match node OS";
    other.then(|| Refusal::new("PodOSNotSupported", words))
}

/// Fields that change how a pod runs and that this agent does not know.
fn features(pod: &StaticPod, _: &Ground, _: &[&StaticPod]) -> Option<Refusal> {
    let spec = &pod.spec;
    let claims = spec.resource_claims.as_ref().is_some_and(|claims| !claims.is_empty());
    let class = spec.runtime_class_name.as_deref().filter(|name| !name.is_empty());
    let rows = [
        (claims, "UnsupportedResourceClaims", "this node cannot allocate resource claims (spec.resourceClaims)"),
        (
            class.is_some(),
            "UnsupportedRuntimeClass",
            "this node has one runtime and no classes of it (spec.runtimeClassName)",
        ),
    ];
    rows.into_iter().find(|(present, ..)| *present).map(|(_, reason, message)| Refusal::new(reason, message))
}

fn volumes(pod: &StaticPod, _: &Ground, _: &[&StaticPod]) -> Option<Refusal> {
    let (volume, what) = pod.spec.volumes.iter().flatten().find_map(|volume| Some((volume, unsupported(volume)?)))?;
    let message = format!(
        "volume {:?}: this node mounts no {what}; it mounts configMap, secret, projected, downwardAPI, emptyDir and hostPath",
        volume.name
    );
    Some(Refusal::new("UnsupportedVolume", message))
}

/// What of a volume is not mounted here.
fn unsupported(volume: &Volume) -> Option<String> {
    let known = volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.downward_api.is_some()
        || volume.empty_dir.is_some()
        || volume.host_path.is_some();
    if known {
        return None;
    }
    let Some(projected) = &volume.projected else {
        let fields = serde_json::to_value(volume).unwrap_or_default();
        let mut names = fields.as_object().into_iter().flat_map(|map| map.keys()).filter(|key| *key != "name");
        return Some(names.next().cloned().unwrap_or_else(|| "volume of an unknown kind".to_owned()));
    };
    let mut sources = projected.sources.iter().flatten();
    sources.find_map(|source| {
        let known = source.config_map.is_some()
            || source.secret.is_some()
            || source.downward_api.is_some()
            || source.service_account_token.is_some();
        let name = match (&source.cluster_trust_bundle, &source.pod_certificate) {
            (Some(_), _) => "clusterTrustBundle",
            (_, Some(_)) => "podCertificate",
            _ => "source of an unknown kind",
        };
        (!known).then(|| format!("projected {name}"))
    })
}

fn network(pod: &StaticPod, ground: &Ground, _: &[&StaticPod]) -> Option<Refusal> {
    let lacks = !pod.host_network() && ground.network == PodNetwork::Absent;
    let message = "this node has no pod network: it runs pods with hostNetwork: true only";
    lacks.then(|| Refusal::new("PodNetworkUnavailable", message))
}

/// `nodeSelector` and required node affinity.
fn placement(pod: &StaticPod, ground: &Ground, _: &[&StaticPod]) -> Option<Refusal> {
    let labels = ground.labels.as_ref()?;
    let fits = affinity::fits(&pod.spec, labels, &ground.name);
    let message = "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
    (!fits).then(|| Refusal::new("NodeAffinity", message))
}

fn ports(pod: &StaticPod, _: &Ground, others: &[&StaticPod]) -> Option<Refusal> {
    let taken: Vec<HostPort> = others.iter().flat_map(|other| host_ports(other)).collect();
    let port = host_ports(pod).into_iter().find(|port| taken.iter().any(|other| port.meets(other)))?;
    let message = format!(
        "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports: {} is taken",
        port.port
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
        let any = |one: &Self| matches!(one.address.as_str(), "" | "0.0.0.0" | "::");
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
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
        Some(HostPort { address: port.host_ip.clone().unwrap_or_default(), protocol, port: number })
    });
    taken.collect()
}

fn room(pod: &StaticPod, ground: &Ground, others: &[&StaticPod]) -> Option<Refusal> {
    let count = i64::try_from(others.len()).unwrap_or(i64::MAX);
    let used =
        |amount: fn(&PodSpec) -> i64| others.iter().map(|other| amount(&other.spec)).fold(0, i64::saturating_add);
    let (cpu, memory) = (cpu as fn(&PodSpec) -> i64, memory as fn(&PodSpec) -> i64);
    let rows = [
        ("pods", 1, count, ground.allocatable.pods),
        ("cpu", cpu(&pod.spec), used(cpu), ground.allocatable.cpu),
        ("memory", memory(&pod.spec), used(memory), ground.allocatable.memory),
    ];
    let short = rows.into_iter().find_map(|(name, wanted, used, has)| {
        let has = has?;
        (wanted > 0 && used.saturating_add(wanted) > has).then_some((name, wanted, used, has))
    });
    short.map(|(name, wanted, used, has)| {
        let words =
            format!("Node didn't have enough resource: {name}, requested: {wanted}, used: {used}, capacity: {has}");
        Refusal::new(&format!("OutOf{name}"), words)
    })
}

fn cpu(pod: &PodSpec) -> i64 {
    of_pod(pod, false, "cpu", millis).saturating_add(overhead(pod, "cpu", millis))
}

fn memory(pod: &PodSpec) -> i64 {
    of_pod(pod, false, "memory", bytes).saturating_add(overhead(pod, "memory", bytes))
}

fn overhead(pod: &PodSpec, resource: &str, unit: crate::agent::resources::Unit) -> i64 {
    pod.overhead.as_ref().and_then(|list| list.get(resource)).and_then(unit).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::agent::pod::bound_tests::bound;

    fn ground() -> Ground {
        Ground {
            name: "node1".into(),
            labels: Some([("zone".to_owned(), "a".to_owned())].into()),
            allocatable: Amounts { cpu: Some(2000), memory: Some(1 << 30), pods: Some(3) },
            network: PodNetwork::Absent,
        }
    }

    /// A pod of the host's network with these further fields.
    fn pod(rest: Value) -> StaticPod {
        let mut spec = json!({"hostNetwork": true});
        spec.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        bound(spec, json!({}))
    }

    fn other(spec: Value) -> StaticPod {
        let mut pod = bound(spec, json!({}));
        pod.key.name = "other".into();
        pod
    }

    fn reason(verdict: Verdict) -> String {
        match verdict {
            Verdict::Admitted => String::new(),
            Verdict::Refused(refusal) => format!("{}: {}", refusal.reason, refusal.message),
            Verdict::Later(why) => format!("later: {why}"),
        }
    }

    fn volume(source: Value) -> Value {
        let mut volume = source;
        volume["name"] = json!("v");
        json!({"volumes": [volume]})
    }

    fn container(rest: Value) -> Value {
        let mut container = json!({"name": "c", "image": "x:1"});
        container.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        json!({"containers": [container]})
    }

    #[test]
    fn a_pod_of_the_hosts_network_with_volumes_of_the_api_and_of_the_node_is_run() {
        let sources = json!([{"serviceAccountToken": {"path": "t"}}, {"configMap": {"name": "m"}},
            {"secret": {"name": "s"}}, {"downwardAPI": {}}]);
        for source in [
            json!({"configMap": {"name": "m"}}),
            json!({"secret": {"secretName": "s"}}),
            json!({"projected": {"sources": sources}}),
            json!({"downwardAPI": {}}),
            json!({"emptyDir": {}}),
            json!({"hostPath": {"path": "/x"}}),
        ] {
            assert_eq!(judge(&pod(volume(source.clone())), &ground(), &[]), Verdict::Admitted, "{source}");
        }
    }

    #[test]
    fn what_this_node_cannot_do_is_refused_with_its_reason() {
        let bundle = json!({"projected": {"sources": [{"clusterTrustBundle": {"path": "x"}}]}});
        for (spec, expected) in [
            (json!({"hostNetwork": false}), "PodNetworkUnavailable: this node has no pod network"),
            (
                volume(json!({"nfs": {"server": "s", "path": "/"}})),
                "UnsupportedVolume: volume \"v\": this node mounts no nfs",
            ),
            (volume(json!({"persistentVolumeClaim": {"claimName": "c"}})), "no persistentVolumeClaim"),
            (volume(json!({"csi": {"driver": "d"}})), "this node mounts no csi"),
            (volume(bundle), "this node mounts no projected clusterTrustBundle"),
            (json!({"os": {"name": "windows"}}), "PodOSNotSupported: "),
            (json!({"resourceClaims": [{"name": "gpu"}]}), "UnsupportedResourceClaims: "),
            (json!({"runtimeClassName": "kata"}), "UnsupportedRuntimeClass: "),
            (json!({"nodeSelector": {"zone": "b"}}), "NodeAffinity: Predicate NodeAffinity failed"),
            (json!({"nodeSelector": {"zone": "a"}}), ""),
            (
                container(json!({"resources": {"requests": {"cpu": "2500m"}}})),
                "OutOfcpu: Node didn't have enough resource: cpu, requested: 2500, used: 0, capacity: 2000",
            ),
            (container(json!({"resources": {"requests": {"memory": "2Gi"}}})), "OutOfmemory: "),
            (container(json!({"resources": {"requests": {"cpu": "2", "memory": "1Gi"}}})), ""),
        ] {
            let found = reason(judge(&pod(spec.clone()), &ground(), &[]));
            assert!(found.is_empty() == expected.is_empty() && found.contains(expected), "{spec}: {found}");
        }
        let unknown = Ground { labels: None, allocatable: Amounts::default(), ..ground() };
        let wants = json!({"nodeSelector": {"zone": "b"}});
        assert_eq!(judge(&pod(wants), &unknown, &[]), Verdict::Admitted, "what nobody knows is not checked");
    }

    #[test]
    fn a_pod_must_fit_beside_the_others() {
        let with_port = |port: Value| container(json!({"ports": [port]}));
        let busy = other(with_port(json!({"containerPort": 80, "hostPort": 80, "hostIP": "10.0.0.1"})));
        for (port, taken) in [
            (json!({"containerPort": 80, "hostPort": 80}), true),
            (json!({"containerPort": 80, "hostPort": 80, "hostIP": "10.0.0.1"}), true),
            (json!({"containerPort": 80, "hostPort": 80, "hostIP": "10.0.0.2"}), false),
            (json!({"containerPort": 80, "hostPort": 80, "protocol": "UDP"}), false),
            (json!({"containerPort": 80, "hostPort": 81}), false),
            (json!({"containerPort": 80}), false),
        ] {
            let found = reason(judge(&pod(with_port(port.clone())), &ground(), &[&busy]));
            assert_eq!(found.starts_with("NodePorts: "), taken, "{port}: {found}");
        }
        let large = other(container(json!({"resources": {"requests": {"cpu": "1500m"}}})));
        let wants = pod(container(json!({"resources": {"requests": {"cpu": "600m"}}})));
        assert!(reason(judge(&wants, &ground(), &[&large])).contains("requested: 600, used: 1500"));
        assert!(reason(judge(&pod(json!({})), &ground(), &[&large, &large, &large])).starts_with("OutOfpods: "));
        let namesake = bound(json!({}), json!({}));
        assert!(reason(judge(&pod(json!({})), &ground(), &[&namesake])).starts_with("NameConflict: "));
    }

    #[test]
    fn a_pod_network_runs_pods_of_it_once_it_is_there() {
        let own = bound(json!({}), json!({}));
        for (network, expected) in [
            (PodNetwork::Ready, ""),
            (PodNetwork::NotReady { reason: "No".into(), message: "plugin yet".into() }, "later: No: plugin yet"),
            (PodNetwork::Absent, "PodNetworkUnavailable: "),
        ] {
            let found = reason(judge(&own, &Ground { network: network.clone(), ..ground() }, &[]));
            assert!(found.starts_with(expected) && found.is_empty() == expected.is_empty(), "{found}");
            let hosts = judge(&pod(json!({})), &Ground { network, ..ground() }, &[]);
            assert_eq!(hosts, Verdict::Admitted, "it needs none");
        }
    }
}
