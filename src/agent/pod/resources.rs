//! Requests, limits, cgroup values and OOM scores, by the kubelet's arithmetic (`pkg/kubelet/cm`, `pkg/kubelet/qos`).

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

pub use super::quantity::{bytes, millis};
use crate::runtime::ResourceConfig;

/// Adjustment for a pause container.
pub const SANDBOX_OOM_SCORE: i64 = -998;
/// Adjustment for critical and Guaranteed pods.
const PROTECTED_OOM_SCORE: i64 = -997;
/// Neither as safe as a Guaranteed pod nor as exposed as one that asks for nothing.
const MIN_BURSTABLE_SCORE: i64 = 3;
const MAX_BURSTABLE_SCORE: i64 = 999;
const CFS_PERIOD: i64 = 100_000;
const MIN_SHARES: i64 = 2;
const MAX_SHARES: i64 = 262_144;

/// Binary units of bytes, largest first.
const BINARY: [(&str, i64); 6] =
    [("Ei", 1 << 60), ("Pi", 1 << 50), ("Ti", 1 << 40), ("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)];

/// Resource lists of the API.
type Quantities = BTreeMap<String, Quantity>;
/// How a quantity is read: [`bytes`] or [`millis`].
pub type Unit = fn(&Quantity) -> Option<i64>;

fn listed(list: Option<&Quantities>, resource: &str, unit: Unit) -> i64 {
    list.and_then(|list| list.get(resource)).and_then(unit).unwrap_or(0)
}

/// A request (or, without one, the limit's default is already in place) or a limit of a container; 0 when it has none.
pub fn amount(container: &Container, limit: bool, resource: &str, unit: Unit) -> i64 {
    let list = container.resources.as_ref().and_then(|r| if limit { r.limits.as_ref() } else { r.requests.as_ref() });
    listed(list, resource, unit)
}

/// The cgroup values of a container.
pub fn config(pod: &PodSpec, container: &Container, node_memory: i64) -> ResourceConfig {
    let cpu_limit = limit(pod, container, "cpu", millis);
    let cpu_request = match amount(container, false, "cpu", millis) {
        0 => cpu_limit,
        request => request,
    };
    let limited = cpu_limit > 0;
    ResourceConfig {
        cpu_shares: (cpu_request.saturating_mul(1024) / 1000).clamp(MIN_SHARES, MAX_SHARES),
        cpu_quota: if limited { (cpu_limit.saturating_mul(CFS_PERIOD) / 1000).max(1000) } else { 0 },
        cpu_period: if limited { CFS_PERIOD } else { 0 },
        memory_bytes: limit(pod, container, "memory", bytes),
        pids: 0,
        oom_score_adj: oom_score(pod, container, node_memory),
    }
}

/// Quality of service of a pod: what the kernel takes from first when memory runs out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QosClass {
    /// Every container has cpu and memory limits that equal its requests.
    Guaranteed,
    /// In between.
    Burstable,
    /// No container asks for cpu or memory.
    BestEffort,
}

/// The API's words (`status.qosClass`).
impl fmt::Display for QosClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        })
    }
}

/// Requests and limits of cpu and memory, 0 where there is none.
type Shares = [(i64, i64); 2];

/// The quality of service of a pod by its requests and limits (`ComputePodQOS`): those of the pod as a whole where it
/// has some (`spec.resources`), else those of every container, init containers included.
pub fn qos_class(pod: &PodSpec) -> QosClass {
    let of = |requests: Option<&Quantities>, limits: Option<&Quantities>| {
        [("cpu", millis as Unit), ("memory", bytes as Unit)]
            .map(|(name, unit)| (listed(requests, name, unit).max(0), listed(limits, name, unit).max(0)))
    };
    let own = |resources: &ResourceRequirements| of(resources.requests.as_ref(), resources.limits.as_ref());
    let all: Vec<Shares> = match pod.resources.as_ref().map(own).filter(|shares| *shares != Shares::default()) {
        Some(shares) => vec![shares],
        None => {
            let containers = pod.init_containers.iter().flatten().chain(&pod.containers);
            containers.map(|c| c.resources.as_ref().map(own).unwrap_or_default()).collect()
        }
    };
    if all.iter().flatten().all(|(request, limit)| *request == 0 && *limit == 0) {
        QosClass::BestEffort
    } else if all.iter().flatten().all(|(request, limit)| *limit > 0 && request == limit) {
        QosClass::Guaranteed
    } else {
        QosClass::Burstable
    }
}

/// What a pod asks for or may use as a whole: its own amount if it has one, else what its containers need at the same
/// time.
pub fn of_pod(pod: &PodSpec, limit: bool, resource: &str, unit: Unit) -> i64 {
    match of_pod_alone(pod, limit, resource, unit) {
        0 => of_containers(pod, limit, resource, unit),
        own => own,
    }
}

/// What a pod asks for or may use in its own name (`spec.resources`); 0 where it has nothing of that.
fn of_pod_alone(pod: &PodSpec, limit: bool, resource: &str, unit: Unit) -> i64 {
    let own = pod.resources.as_ref().and_then(|r| if limit { r.limits.as_ref() } else { r.requests.as_ref() });
    listed(own, resource, unit).max(0)
}

/// What a container may use: its own limit, else that of its pod, which it may use up alone; 0 where neither has one.
pub fn limit(pod: &PodSpec, container: &Container, resource: &str, unit: Unit) -> i64 {
    match amount(container, true, resource, unit) {
        0 => of_pod_alone(pod, true, resource, unit),
        own => own,
    }
}

/// What the containers of a pod need at the same time. Init containers run one after the other; those that stay (sidecars)
/// run beside all that come later.
pub fn of_containers(pod: &PodSpec, limit: bool, resource: &str, unit: Unit) -> i64 {
    let (mut staying, mut starting) = (0_i64, 0_i64);
    for container in pod.init_containers.iter().flatten() {
        let amount = amount(container, limit, resource, unit);
        starting = starting.max(staying.saturating_add(amount));
        if is_sidecar(container) {
            staying = staying.saturating_add(amount);
        }
    }
    let main = pod.containers.iter().map(|container| amount(container, limit, resource, unit));
    main.fold(staying, i64::saturating_add).max(starting)
}

fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// The cgroup values of a pod as a whole (`ResourceConfigForPod`); what is not limited is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PodLimits {
    /// cpu.shares.
    pub cpu_shares: i64,
    /// CFS quota in microseconds per [`Self::cpu_period`].
    pub cpu_quota: i64,
    /// CFS period in microseconds.
    pub cpu_period: i64,
    /// Bytes.
    pub memory_bytes: i64,
}

/// The cgroup values of a pod as a whole: a limit holds only where every container has one.
pub fn pod_limits(pod: &PodSpec, period: i64) -> PodLimits {
    if qos_class(pod) == QosClass::BestEffort {
        return PodLimits { cpu_shares: MIN_SHARES, cpu_quota: 0, cpu_period: period, memory_bytes: 0 };
    }
    // What its sandbox takes beside its containers (`spec.overhead`, of its RuntimeClass).
    let overhead = |resource: &str, unit: Unit| listed(pod.overhead.as_ref(), resource, unit).max(0);
    let limit = |resource: &str, unit: Unit| {
        let mut all = pod.init_containers.iter().flatten().chain(&pod.containers);
        let declared = of_pod_alone(pod, true, resource, unit) > 0 || all.all(|c| amount(c, true, resource, unit) > 0);
        if declared { of_pod(pod, true, resource, unit).saturating_add(overhead(resource, unit)) } else { 0 }
    };
    let cpu = of_pod(pod, false, "cpu", millis).saturating_add(overhead("cpu", millis));
    let limit_cpu = limit("cpu", millis);
    PodLimits {
        cpu_shares: (cpu.saturating_mul(1024) / 1000).clamp(MIN_SHARES, MAX_SHARES),
        cpu_quota: if limit_cpu > 0 { (limit_cpu.saturating_mul(period) / 1000).max(1000) } else { 0 },
        cpu_period: period,
        memory_bytes: limit("memory", bytes),
    }
}

/// `oom_score_adj` of a container's processes (`GetContainerOOMScoreAdjust`); every static pod with the node-critical
/// class is protected whatever its class of service.
fn oom_score(pod: &PodSpec, container: &Container, node_memory: i64) -> i64 {
    if pod.priority_class_name.as_deref() == Some("system-node-critical") {
        return PROTECTED_OOM_SCORE;
    }
    match qos_class(pod) {
        QosClass::Guaranteed => PROTECTED_OOM_SCORE,
        QosClass::BestEffort => 1000,
        QosClass::Burstable => {
            let share = |request: i64| request.saturating_mul(1000).checked_div(node_memory).unwrap_or(i64::MAX);
            let of = |request: i64| 1000_i64.saturating_sub(share(request));
            let requested = |container| amount(container, false, "memory", bytes);
            // What the pod asks for beyond its containers is shared among them.
            let all = || pod.init_containers.iter().flatten().filter(|c| is_sidecar(c)).chain(&pod.containers);
            let sum: i64 = all().map(requested).fold(0, i64::saturating_add);
            let count = i64::try_from(all().count()).unwrap_or(1).max(1);
            let own = of_pod_alone(pod, false, "memory", bytes);
            let spare = own.saturating_sub(sum).max(0).checked_div(count).unwrap_or(0);
            let mut score = of(requested(container).saturating_add(spare));
            // A sidecar goes no sooner than the containers it serves.
            let in_init = pod.init_containers.iter().flatten().any(|init| init.name == container.name);
            if in_init && is_sidecar(container) {
                let least = pod.containers.iter().map(requested).min().unwrap_or(0);
                score = score.min(of(least.saturating_add(spare)));
            }
            score.clamp(MIN_BURSTABLE_SCORE, MAX_BURSTABLE_SCORE)
        }
    }
}

/// How amounts of this resource are read.
pub fn unit(resource: &str) -> Unit {
    if resource == "cpu" { millis } else { bytes }
}

/// Whether a pod may have an amount of this in its own name.
pub fn is_of_pods(resource: &str) -> bool {
    matches!(resource, "cpu" | "memory") || resource.starts_with("hugepages-")
}

/// An amount as a quantity of this resource, in the largest unit that it is a whole number of.
pub fn quantity(resource: &str, amount: i64) -> Quantity {
    let whole = |(suffix, factor): (&str, i64)| {
        (amount != 0 && amount.checked_rem(factor) == Some(0))
            .then(|| format!("{}{suffix}", amount.checked_div(factor).unwrap_or(amount)))
    };
    let text = match resource {
        "cpu" if amount % 1000 != 0 => format!("{amount}m"),
        "cpu" => (amount / 1000).to_string(),
        _ => BINARY.into_iter().find_map(whole).unwrap_or_else(|| amount.to_string()),
    };
    Quantity(text)
}

/// What a running container was given, as its status says it: of the lists that its spec has, what its pod's limits give it
/// too.
pub fn given(pod: &PodSpec, container: &Container) -> ResourceRequirements {
    let mut given = container.resources.clone().unwrap_or_default();
    let add = |list: Option<&mut Quantities>, resource: &str| {
        let amount = limit(pod, container, resource, unit(resource));
        if let Some(list) = list.filter(|_| amount > 0) {
            list.entry(resource.to_owned()).or_insert_with(|| quantity(resource, amount));
        }
    };
    for resource in ["cpu", "memory"] {
        add(given.limits.as_mut(), resource);
    }
    // Its weight is that of its limit.
    add(given.requests.as_mut(), "cpu");
    given
}

/// What a pod asks for and may use as a whole, its overhead included, as its status says it; what is none is left out.
pub fn effective(pod: &PodSpec) -> ResourceRequirements {
    let containers = pod.init_containers.iter().flatten().chain(&pod.containers);
    let all = || containers.clone().filter_map(|c| c.resources.as_ref()).chain(&pod.resources);
    let overhead = |name: &str| listed(pod.overhead.as_ref(), name, unit(name));
    let list = |limit: bool| {
        let lists = all().filter_map(|of| if limit { of.limits.as_ref() } else { of.requests.as_ref() });
        let names =
            lists.flat_map(BTreeMap::keys).chain(pod.overhead.iter().filter(|_| !limit).flat_map(BTreeMap::keys));
        let amount =
            |name: &String| (name.clone(), of_pod(pod, limit, name, unit(name)).saturating_add(overhead(name)));
        let list: Quantities =
            names.map(amount).map(|(name, amount)| (name.clone(), quantity(&name, amount))).collect();
        Some(list).filter(|list| !list.is_empty())
    };
    ResourceRequirements { requests: list(false), limits: list(true), claims: None }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(resources: serde_json::Value, class: Option<&str>) -> PodSpec {
        serde_json::from_value(json!({
            "priorityClassName": class,
            "containers": [{"name": "c", "image": "x:1", "resources": resources}],
        }))
        .unwrap()
    }

    #[test]
    fn the_quality_of_service_follows_from_every_container_or_from_the_pod_as_a_whole() {
        let same = json!({"cpu": "1", "memory": "1Gi"});
        let (guaranteed, none) = (json!({"requests": same, "limits": same}), json!({}));
        for (whole, init, main, expected) in [
            (&none, &none, &none, "BestEffort"),
            (&none, &none, &json!({"requests": {"cpu": "0"}}), "BestEffort"),
            (&none, &none, &json!({"requests": {"nvidia.com/gpu": "1"}}), "BestEffort"),
            (&none, &guaranteed, &guaranteed, "Guaranteed"),
            (&none, &none, &guaranteed, "Burstable"),
            (&none, &guaranteed, &none, "Burstable"),
            (&none, &guaranteed, &json!({"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}), "Burstable"),
            (&guaranteed, &none, &none, "Guaranteed"),
            (&json!({"requests": {"cpu": "1"}}), &guaranteed, &guaranteed, "Burstable"),
        ] {
            let spec = serde_json::from_value(json!({
                "resources": whole,
                "initContainers": [{"name": "i", "image": "x:1", "resources": init}],
                "containers": [{"name": "c", "image": "x:1", "resources": main}],
            }));
            assert_eq!(qos_class(&spec.unwrap()).to_string(), expected, "{whole} {init} {main}");
        }
    }

    #[test]
    fn oom_scores_follow_the_quality_of_service_unless_the_pod_is_node_critical() {
        let node = 16 << 30;
        let same = json!({"cpu": "1", "memory": "1Gi"});
        for (resources, class, expected) in [
            (json!({}), None, 1000),
            (json!({"requests": {"cpu": "100m"}}), None, 999),
            (json!({"requests": {"memory": "8Gi"}}), None, 500),
            (json!({"requests": {"memory": "64Gi"}}), None, 3),
            (json!({"requests": same, "limits": same}), None, -997),
            (json!({"requests": {"cpu": "100m"}}), Some("system-node-critical"), -997),
            (json!({"requests": {"cpu": "100m"}}), Some("system-cluster-critical"), 999),
        ] {
            let pod = pod(resources.clone(), class);
            assert_eq!(oom_score(&pod, &pod.containers[0], node), expected, "{resources} {class:?}");
        }
    }

    #[test]
    fn a_sidecar_is_as_safe_as_the_containers_it_serves_and_a_pods_own_request_counts_for_all() {
        let memory = |text: &str| json!({"requests": {"memory": text}});
        let mut spec: PodSpec = serde_json::from_value(json!({
            "initContainers": [
                {"name": "side", "restartPolicy": "Always", "image": "x:1", "resources": memory("1Gi")},
                {"name": "init", "image": "x:1", "resources": memory("1Gi")},
            ],
            "containers": [{"name": "c", "image": "x:1", "resources": memory("5Gi")}],
        }))
        .unwrap();
        let scores = |spec: &PodSpec| {
            let init = spec.init_containers.as_ref().unwrap();
            [&init[0], &init[1], &spec.containers[0]].map(|container| oom_score(spec, container, 10 << 30))
        };
        assert_eq!(scores(&spec), [500, 900, 500]);
        spec.resources = serde_json::from_value(memory("8Gi")).unwrap();
        assert_eq!(scores(&spec), [400, 800, 400], "2 GiB more, for two");
    }

    #[test]
    fn a_container_without_a_limit_has_that_of_its_pod() {
        let mut spec = pod(json!({"requests": {"cpu": "100m"}, "limits": {"memory": "32Mi"}}), None);
        let values = |spec: &PodSpec| {
            let config = config(spec, &spec.containers[0], 8 << 30);
            (config.cpu_shares, config.cpu_quota, config.memory_bytes)
        };
        assert_eq!(values(&spec), (102, 0, 32 << 20));
        spec.resources = serde_json::from_value(json!({"limits": {"cpu": "500m", "memory": "64Mi"}})).unwrap();
        assert_eq!(values(&spec), (102, 50_000, 32 << 20));
        let said = |spec: &PodSpec| serde_json::to_value(given(spec, &spec.containers[0])).unwrap();
        let both = json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "500m", "memory": "32Mi"}});
        assert_eq!(said(&spec), both);
        spec.containers[0].resources = serde_json::from_value(json!({"requests": {"memory": "1Mi"}})).unwrap();
        assert_eq!(said(&spec), json!({"requests": {"cpu": "500m", "memory": "1Mi"}}));
        spec.containers[0].resources = None;
        assert_eq!((values(&spec), said(&spec)), ((512, 50_000, 64 << 20), json!({})));
    }

    #[test]
    fn a_pod_says_what_it_asks_for_and_may_use_as_a_whole() {
        let spec: PodSpec = serde_json::from_value(json!({
            "overhead": {"cpu": "10m"},
            "initContainers": [{"name": "i", "image": "x:1", "resources": {"requests": {"memory": "1Gi"}}}],
            "containers": [
                {"name": "a", "image": "x:1", "resources": {"requests": {"cpu": "1500m", "memory": "96Mi"}}},
                {"name": "b", "image": "x:1", "resources": {"requests": {"cpu": "490m"}, "limits": {"cpu": "2"}}},
            ],
        }))
        .unwrap();
        let said = |spec: &PodSpec| serde_json::to_value(effective(spec)).unwrap();
        let expected = json!({"requests": {"cpu": "2", "memory": "1Gi"}, "limits": {"cpu": "2010m"}});
        assert_eq!(said(&spec), expected);
        let own = json!({"requests": {"memory": "1500000"}, "limits": {"cpu": "4"}});
        let whole = PodSpec { resources: serde_json::from_value(own).unwrap(), ..spec };
        let expected = json!({"requests": {"cpu": "2", "memory": "1500000"}, "limits": {"cpu": "4010m"}});
        assert_eq!(said(&whole), expected);
        assert_eq!(said(&pod(json!({}), None)), json!({}));
    }

    #[test]
    fn a_pod_is_limited_where_all_its_containers_are() {
        let of = |init: serde_json::Value, side: serde_json::Value, main: serde_json::Value| {
            let spec: PodSpec = serde_json::from_value(json!({
                "initContainers": [
                    {"name": "i", "image": "x:1", "resources": init},
                    {"name": "s", "restartPolicy": "Always", "image": "x:1", "resources": side},
                ],
                "containers": [{"name": "c", "image": "x:1", "resources": main}],
            }))
            .unwrap();
            let limits = pod_limits(&spec, 100_000);
            (limits.cpu_shares, limits.cpu_quota, limits.memory_bytes)
        };
        let both = |cpu: &str, memory: &str| {
            let list = json!({"cpu": cpu, "memory": memory});
            json!({"requests": list, "limits": list})
        };
        assert_eq!(of(json!({}), json!({}), json!({})), (2, 0, 0));
        let all = of(both("3", "1Ki"), both("500m", "1Ki"), both("1", "2Ki"));
        assert_eq!(all, (3072, 300_000, 3072), "the init container needs most cpu, the others most memory");
        assert_eq!(of(json!({}), both("500m", "1Ki"), both("1", "2Ki")), (1536, 0, 0));
    }

    #[test]
    fn a_pods_cgroup_has_room_for_what_its_sandbox_takes() {
        let of = |resources: Value| {
            let spec = json!({
                "containers": [{"name": "a", "resources": resources}],
                "overhead": {"cpu": "200m", "memory": "140Ki"},
            });
            let limits = pod_limits(&serde_json::from_value(spec).unwrap(), 100_000);
            (limits.cpu_shares, limits.cpu_quota, limits.memory_bytes)
        };
        let list = json!({"cpu": "100m", "memory": "100Ki"});
        assert_eq!(of(json!({"requests": list, "limits": list})), (307, 30_000, 240 << 10));
        assert_eq!(of(json!({"requests": list})), (307, 0, 0), "what is not limited is not by the overhead");
        assert_eq!(of(json!({})), (2, 0, 0));
    }

    #[test]
    fn cpu_becomes_shares_and_quota() {
        for (resources, shares, quota, memory) in [
            (json!({}), 2, 0, 0),
            (json!({"requests": {"cpu": "250m"}}), 256, 0, 0),
            (json!({"limits": {"cpu": "500m", "memory": "1Mi"}}), 512, 50_000, 1_048_576),
            (json!({"limits": {"cpu": "1m"}}), 2, 1000, 0),
            (json!({"requests": {"cpu": "1000"}}), 262_144, 0, 0),
        ] {
            let pod = pod(resources.clone(), None);
            let got = config(&pod, &pod.containers[0], 1 << 30);
            assert_eq!((got.cpu_shares, got.cpu_quota, got.memory_bytes), (shares, quota, memory), "{resources}");
        }
    }
}
