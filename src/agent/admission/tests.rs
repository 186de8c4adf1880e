use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::agent::pod::bound_tests::bound;
use crate::agent::pod::tests::read;

fn site(amounts: &[(&str, i64)]) -> Site {
    let allocatable = amounts.iter().map(|(name, amount)| ((*name).to_owned(), *amount)).collect();
    let labels = Some([("zone".to_owned(), "a".to_owned())].into());
    Site { name: "node1".into(), labels, allocatable, ..Site::default() }
}

/// A static pod with these fields of its spec.
fn fixed(name: &str, spec: &Value) -> StaticPod {
    let mut spec = spec.clone();
    if spec["containers"].is_null() {
        spec["containers"] = json!([{"name": "c", "image": "x:1"}]);
    }
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec});
    read(&pod.to_string()).unwrap()
}

fn asks(requests: Value) -> Value {
    json!([{"name": "c", "image": "x:1", "resources": {"requests": requests}}])
}

/// A bound pod that asks for this.
fn guest(uid: &str, requests: Value) -> StaticPod {
    let mut pod = bound(json!({"containers": asks(requests)}), json!({}));
    (pod.key.name, pod.uid) = (uid.to_owned(), uid.to_owned());
    pod
}

fn reported(admission: Admission) -> String {
    match admission {
        Admission::Admitted { preempts } => preempts.join(" "),
        Admission::Refused(refusal) => format!("{}: {}", refusal.reason, refusal.message),
    }
}

#[test]
fn a_static_pod_runs_where_it_fits_and_is_refused_with_the_kubelets_words() {
    let node = site(&[("cpu", 2000), ("memory", 1 << 30), ("pods", 110), ("ephemeral-storage", 1 << 30)]);
    let affinity = |terms: Value| {
        let required = json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}});
        json!({"affinity": {"nodeAffinity": required}})
    };
    let is_short = |resource: &str, missing: &str| {
        format!(
            "UnexpectedAdmissionError: Unexpected error while attempting to recover from admission failure: preemption: \
             error finding a set of pods to preempt: no set of running pods found to reclaim resources: [(res: \
             {resource}, q: {missing}), ]"
        )
    };
    let gpu = json!([{"name": "c", "image": "x:1", "resources":
        {"requests": {"example.com/gpu": "1"}, "limits": {"example.com/gpu": "1"}}}]);
    let misplaced = "NodeAffinity: Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
    for (spec, expected) in [
        (json!({}), String::new()),
        (json!({"nodeSelector": {"zone": "a"}}), String::new()),
        (json!({"nodeSelector": {"zone": "b"}}), misplaced.into()),
        (
            affinity(json!([{"matchExpressions": [{"key": "zone", "operator": "NotIn", "values": ["a"]}]}])),
            misplaced.into(),
        ),
        (
            affinity(json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node1"]}]}])),
            String::new(),
        ),
        (
            json!({"os": {"name": "windows"}}),
            "PodOSNotSupported: Failed to admit pod as the OS field doesn't match node OS".into(),
        ),
        (json!({"os": {"name": "linux"}}), String::new()),
        (json!({"containers": asks(json!({"cpu": "2"}))}), String::new()),
        (json!({"containers": asks(json!({"cpu": "2001m"}))}), is_short("cpu", "1")),
        (json!({"containers": asks(json!({"memory": "2Gi"}))}), is_short("memory", "1073741824")),
        (json!({"containers": asks(json!({"ephemeral-storage": "2Gi"}))}), is_short("ephemeral-storage", "1073741824")),
        (json!({"containers": gpu}), String::new()),
        (json!({"nodeSelector": {"zone": "b"}, "containers": asks(json!({"cpu": "99"}))}), misplaced.into()),
    ] {
        let name = if spec["os"].is_null() { "p" } else { "os" };
        assert_eq!(reported(admit(&fixed(name, &spec), &node, &[])), expected, "{spec}");
    }
    let full = site(&[("pods", 1)]);
    assert_eq!(reported(admit(&fixed("p", &json!({})), &full, &[&fixed("o", &json!({}))])), is_short("pods", "1"));
    let huge = json!({"containers": [{"name": "c", "image": "x:1", "resources":
        {"requests": {"cpu": "1", "hugepages-2Mi": "4Mi"}, "limits": {"cpu": "1", "hugepages-2Mi": "4Mi"}}}]});
    assert_eq!(reported(admit(&fixed("p", &huge), &node, &[])), is_short("hugepages-2Mi", "4194304"));
    let pages = site(&[("hugepages-2Mi", 8 << 20)]);
    assert_eq!(reported(admit(&fixed("p", &huge), &pages, &[])), "");
    assert_eq!(reported(admit(&fixed("p", &huge), &Site::default(), &[])), "", "what is not known is not checked");
}

#[test]
fn a_pod_that_the_node_cannot_confine_is_refused_and_none_goes_for_it() {
    let node = site(&[("cpu", 2000)]);
    let asks_for = |context: Value| json!({"securityContext": context, "containers": asks(json!({"cpu": "1"}))});
    let sysctls = json!([{"name": "kernel.msgmax", "value": "1"}]);
    let profile = json!({"type": "RuntimeDefault"});
    let absent = "AppArmor: Cannot enforce AppArmor: AppArmor is not enabled on the host";
    for (context, expected) in [
        (json!({"sysctls": sysctls}), "SysctlForbidden: forbidden sysctl: \"kernel.msgmax\" not allowlisted"),
        (json!({"appArmorProfile": profile}), absent),
        (
            json!({"supplementalGroupsPolicy": "Strict"}),
            "SupplementalGroupsPolicyNotSupported: SupplementalGroupsPolicy=Strict is not supported in this node",
        ),
    ] {
        let large = guest("large", json!({"cpu": "1500m"}));
        assert_eq!(reported(admit(&fixed("p", &asks_for(context.clone())), &node, &[&large])), expected, "{context}");
    }
    let mut misplaced = asks_for(json!({"appArmorProfile": profile}));
    misplaced["nodeSelector"] = json!({"zone": "b"});
    assert!(reported(admit(&fixed("p", &misplaced), &node, &[])).starts_with("NodeAffinity: "));
    let allows = Site { unsafe_sysctls: vec!["kernel.msg*".into()], apparmor: true, ..node };
    let both = asks_for(json!({"sysctls": sysctls, "appArmorProfile": profile}));
    assert_eq!(reported(admit(&fixed("p", &both), &allows, &[])), "");
}

#[test]
fn the_label_of_a_pods_system_counts_before_everything_else() {
    let mut pod = fixed("p", &json!({"nodeSelector": {"zone": "b"}}));
    pod.metadata.labels = Some([("kubernetes.io/os".to_owned(), "windows".to_owned())].into());
    assert!(reported(admit(&pod, &site(&[]), &[])).starts_with("PodOSSelectorNodeLabelDoesNotMatch: "));
}

#[test]
fn what_a_pod_asks_for_is_what_its_containers_need_at_a_time_and_its_overhead() {
    let request = |cpu: &str| json!({"requests": {"cpu": cpu}});
    let spec = json!({
        "overhead": {"cpu": "50m"},
        "initContainers": [
            {"name": "first", "image": "x:1", "resources": request("900m")},
            {"name": "side", "image": "x:1", "restartPolicy": "Always", "resources": request("100m")},
            {"name": "second", "image": "x:1", "resources": request("200m")},
        ],
        "containers": [
            {"name": "a", "image": "x:1", "resources": request("300m")},
            {"name": "b", "image": "x:1", "resources": request("250m")},
        ],
    });
    let of = |spec: &Value| room::requests(&serde_json::from_value(spec.clone()).unwrap(), "cpu");
    assert_eq!(of(&spec), 950, "the first init container needs most");
    let mut large = spec;
    large["containers"][0]["resources"] = request("1");
    assert_eq!(of(&large), 1400, "the sidecar stays beside the others");
    large["resources"] = request("2");
    assert_eq!(of(&large), 2050, "what it asks for as a whole counts instead");
    assert_eq!(room::requests(&serde_json::from_value(large).unwrap(), "pods"), 1);
}

#[test]
fn as_few_pods_as_will_do_go_for_a_critical_one_and_the_best_service_last() {
    let node = site(&[("cpu", 4000), ("memory", 4 << 30)]);
    let wants = |cpu: &str| fixed("p", &json!({"containers": asks(json!({"cpu": cpu}))}));
    let (small, large) = (guest("small", json!({"cpu": "500m"})), guest("large", json!({"cpu": "1500m"})));
    let mut sure = guest("sure", json!({"cpu": "1", "memory": "1Gi"}));
    let container = &mut sure.spec.containers[0];
    let resources = container.resources.as_mut().unwrap();
    resources.limits = resources.requests.clone();
    let others = [&small, &large, &sure];
    for (cpu, expected) in [
        ("1", ""),
        ("1500m", "small"),
        ("2500m", "large"),
        ("3", "large small"),
        ("3500m", "large sure"),
        ("4", "large small sure"),
    ] {
        let mut found: Vec<String> =
            reported(admit(&wants(cpu), &node, &others)).split(' ').map(str::to_owned).collect();
        found.sort();
        assert_eq!(found.join(" "), expected, "{cpu}");
    }
    assert!(reported(admit(&wants("4001m"), &node, &others)).contains("[(res: cpu, q: 1), ]"));
    let own = fixed("o", &json!({"containers": asks(json!({"cpu": "3"}))}));
    assert!(
        reported(admit(&wants("2"), &node, &[&own])).contains("[(res: cpu, q: 1000), ]"),
        "static pods are critical too"
    );
    let (mut low, mut high) = (own, wants("2"));
    (low.spec.priority, high.spec.priority) = (Some(1), Some(2));
    assert_eq!(reported(admit(&high, &node, &[&low])), low.uid, "but for one of a lower priority");
}

#[test]
fn decisions_last_until_the_manifest_changes() {
    use super::statics::{Node, Statics};
    use crate::agent::source::Update;

    let picky = |zone: &str| {
        let mut pod = fixed("p", &json!({"nodeSelector": {"zone": zone}}));
        pod.uid = "own".into();
        Arc::new(pod)
    };
    let mut statics = Statics::default();
    let mut decide = |pod: &Arc<StaticPod>, zone: &str, is_final: bool| {
        let mut site = site(&[]);
        site.labels = Some([("zone".to_owned(), zone.to_owned())].into());
        let node = Node { site, is_final, has_ended: &|_| false };
        let mut update = Update { pods: vec![Arc::clone(pod)], ..Update::default() };
        let news = statics.decide(&mut update, &node, &mut Default::default());
        (update.pods.len(), news.refused.len(), statics.is_provisional())
    };
    assert_eq!(decide(&picky("b"), "a", true), (0, 1, false));
    assert_eq!(decide(&picky("b"), "b", true), (0, 0, false), "a label that comes later changes nothing");
    assert_eq!(decide(&picky("c"), "c", true), (1, 0, false), "the same UID, another manifest");
    assert_eq!(decide(&picky("c"), "a", true), (1, 0, false), "what was admitted stays so");
    assert_eq!(decide(&Arc::new(fixed("q", &json!({}))), "a", true), (1, 0, false));
    assert_eq!(decide(&picky("c"), "a", false), (0, 1, true), "it was gone, and is asked again");
    assert_eq!(decide(&picky("c"), "a", false), (0, 0, true));
    assert_eq!(decide(&picky("c"), "c", true), (1, 0, false), "the Node's own labels are known now");
}
