//! Whether this node runs a pod that was bound to it: the questions that are asked of every pod
//! ([`super::super::admission`]), and a table of checks of what this node cannot do. Pure.
//!
//! A pod that is refused has failed: its controller sees that and makes another one, after a back-off of its own. A
//! DaemonSet that does not fit this node therefore goes on trying, ever more seldom; `nodeSelector` or `tolerations`
//! keep it away.

use k8s_openapi::api::core::v1::Volume;

use crate::agent::admission::{Admission, Refusal, Site, fit, system};
use crate::agent::pod::StaticPod;
use crate::runtime::PodNetwork;

/// What becomes of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is run.
    Admitted,
    /// It is never run, or not any more.
    Refused(Refusal),
    /// It cannot run yet, for the node lacks something that is on its way.
    Later(String),
}

/// The node, as far as it matters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeOffers {
    /// What matters to every pod.
    pub site: Site,
    /// Whether the runtime gives pods a network of their own.
    pub network: PodNetwork,
    /// Whether the runtime has handlers for classes of runtime, as only one that speaks CRI has.
    pub has_handlers: bool,
}

/// A check: None lets the pod pass.
type Check = fn(&StaticPod, &NodeOffers, &[&StaticPod]) -> Option<Refusal>;

/// The checks that only bound pods need, in the order in which the first that fails is reported.
const CHECKS: &[Check] = &[name_conflict, |pod, node, _| system(pod, &node.site), features, volumes, network];

/// What becomes of `pod` beside `others`, the pods that the node runs already; and UIDs of pods that have to go for it,
/// which only a critical one has.
pub fn judge(pod: &StaticPod, node: &NodeOffers, others: &[&StaticPod]) -> (Verdict, Vec<String>) {
    if let Some(refusal) = CHECKS.iter().find_map(|check| check(pod, node, others)) {
        return (Verdict::Refused(refusal), vec![]);
    }
    let preempts = match fit(pod, &node.site, others) {
        Admission::Admitted { preempts } => preempts,
        Admission::Refused(refusal) => return (Verdict::Refused(refusal), vec![]),
    };
    match &node.network {
        PodNetwork::NotReady { reason, message } if !pod.host_network() => {
            (Verdict::Later(format!("{reason}: {message}")), vec![])
        }
        _ => (Verdict::Admitted, preempts),
    }
}

fn name_conflict(pod: &StaticPod, _: &NodeOffers, others: &[&StaticPod]) -> Option<Refusal> {
    let same = others.iter().any(|other| other.key == pod.key);
    same.then(|| Refusal::new("NameConflict", format!("a static pod of this node is named {} too", pod.key)))
}

/// Fields that change how a pod runs and that this agent does not know.
fn features(pod: &StaticPod, node: &NodeOffers, _: &[&StaticPod]) -> Option<Refusal> {
    let spec = &pod.spec;
    let claims = spec.resource_claims.as_ref().is_some_and(|claims| !claims.is_empty());
    let class = spec.runtime_class_name.as_deref().filter(|name| !name.is_empty());
    let rows = [
        (claims, "UnsupportedResourceClaims", "this node cannot allocate resource claims (spec.resourceClaims)"),
        (
            class.is_some() && !node.has_handlers,
            "UnsupportedRuntimeClass",
            "this node's container runtime has no handlers for classes of runtime (spec.runtimeClassName)",
        ),
    ];
    rows.into_iter().find(|(present, ..)| *present).map(|(_, reason, message)| Refusal::new(reason, message))
}

fn volumes(pod: &StaticPod, _: &NodeOffers, _: &[&StaticPod]) -> Option<Refusal> {
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

fn network(pod: &StaticPod, node: &NodeOffers, _: &[&StaticPod]) -> Option<Refusal> {
    let lacks = !pod.host_network() && node.network == PodNetwork::Absent;
    let message = "this node has no pod network: it runs pods with hostNetwork: true only";
    lacks.then(|| Refusal::new("PodNetworkUnavailable", message))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::agent::pod::bound_tests::bound;

    fn node() -> NodeOffers {
        let amounts = [("cpu", 2000), ("memory", 1 << 30), ("pods", 3)];
        let site = Site {
            name: "node1".into(),
            labels: Some([("zone".to_owned(), "a".to_owned())].into()),
            allocatable: amounts.map(|(name, amount)| (name.to_owned(), amount)).into(),
            ..Site::default()
        };
        NodeOffers { site, network: PodNetwork::Absent, has_handlers: false }
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

    fn reason((verdict, _): (Verdict, Vec<String>)) -> String {
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
            assert_eq!(reason(judge(&pod(volume(source.clone())), &node(), &[])), "", "{source}");
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
            (
                json!({"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}}),
                "SysctlForbidden: forbidden sysctl: \"kernel.msgmax\" not allowlisted",
            ),
            (
                json!({"securityContext": {"appArmorProfile": {"type": "RuntimeDefault"}}}),
                "AppArmor: Cannot enforce AppArmor: AppArmor is not enabled on the host",
            ),
            (
                json!({"securityContext": {"supplementalGroupsPolicy": "Strict"}}),
                "SupplementalGroupsPolicyNotSupported: ",
            ),
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
            let found = reason(judge(&pod(spec.clone()), &node(), &[]));
            assert!(found.is_empty() == expected.is_empty() && found.contains(expected), "{spec}: {found}");
        }
        let wants = json!({"nodeSelector": {"zone": "b"}});
        assert_eq!(reason(judge(&pod(wants), &NodeOffers::default(), &[])), "", "what is not known is not checked");
    }

    #[test]
    fn a_pod_needs_a_name_and_room_of_its_own_and_a_critical_one_takes_it() {
        let large = other(container(json!({"resources": {"requests": {"cpu": "1500m"}}})));
        let wants = container(json!({"resources": {"requests": {"cpu": "600m"}}}));
        assert!(reason(judge(&pod(wants.clone()), &node(), &[&large])).starts_with("OutOfcpu: "));
        let mut critical = wants;
        critical["priority"] = json!(2_000_000_000);
        assert_eq!(judge(&pod(critical), &node(), &[&large]), (Verdict::Admitted, vec![large.uid.clone()]));
        let name_conflict = bound(json!({}), json!({}));
        assert!(reason(judge(&pod(json!({})), &node(), &[&name_conflict])).starts_with("NameConflict: "));
    }

    #[test]
    fn a_pod_network_runs_pods_of_it_once_it_is_there() {
        let own = bound(json!({}), json!({}));
        for (network, expected) in [
            (PodNetwork::Ready, ""),
            (PodNetwork::NotReady { reason: "No".into(), message: "plugin yet".into() }, "later: No: plugin yet"),
            (PodNetwork::Absent, "PodNetworkUnavailable: "),
        ] {
            let found = reason(judge(&own, &NodeOffers { network: network.clone(), ..node() }, &[]));
            assert!(found.starts_with(expected) && found.is_empty() == expected.is_empty(), "{found}");
            let hosts = reason(judge(&pod(json!({})), &NodeOffers { network, ..node() }, &[]));
            assert_eq!(hosts, "", "it needs none");
        }
    }
}
