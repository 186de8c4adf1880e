//! The objects as wholes: golden files, values that are hostile to YAML, and what stays of a cluster's own.

use serde_json::{Value, json};

use super::super::object::{Object, WriteMode};
use super::{AddonError, coredns, kube_proxy, manifests};
use crate::config::ClusterSpec;
use crate::config::spec::Endpoint;
use crate::testing::golden::assert_golden;
use crate::testing::spec;
use crate::yaml;

/// All objects of both addons, compared with `tests/golden/addons/NAME.yaml`.
fn golden(name: &str, spec: &ClusterSpec, proxy_env: &[(String, String)]) {
    let mut objects = coredns::objects(spec).unwrap().objects();
    objects.extend(kube_proxy::objects(spec, proxy_env).unwrap().objects());
    assert_golden(&format!("addons/{name}.yaml"), &manifests(&objects).unwrap());
}

fn pair(name: &str, value: &str) -> (String, String) {
    (name.into(), value.into())
}

#[test]
fn golden_defaults() {
    golden("defaults", &spec(), &[]);
}

#[test]
fn golden_v1_20_dual_stack() {
    let mut spec = spec();
    spec.kubernetes_version = "v1.20.2".parse().unwrap();
    spec.networking.service_subnets = vec!["10.96.0.0/16".parse().unwrap(), "fd00:10:96::/112".parse().unwrap()];
    spec.networking.pod_subnets = vec!["10.244.0.0/16".parse().unwrap(), "fd00:10:244::/56".parse().unwrap()];
    golden("v1.20-dual-stack", &spec, &[]);
}

#[test]
fn golden_everything_else_of_ones_own() {
    let mut spec = spec();
    spec.node.advertise_address = "fd00::5".parse().unwrap();
    spec.control_plane_endpoint = Some(Endpoint { host: "api.example.com".into(), port: 8443 });
    spec.networking.service_subnets = vec!["fd00:10:96::/112".parse().unwrap()];
    spec.networking.dns_domain = "tea.example".into();
    spec.image_repository = "registry.example.com/k8s".into();
    spec.kube_proxy = json!({"mode": "ipvs", "ipvs": {"strictARP": true}, "oomScoreAdj": null});
    golden("own", &spec, &[pair("https_proxy", "http://proxy.example:3128"), pair("NO_PROXY", ".example,10.0.0.0/8")]);
}

#[test]
fn values_that_are_hostile_to_yaml_stay_what_they_are() {
    for hostile in ["yes", "0644", "a: b", "x # y", "\"", "'", "\\", "{{ x }}", "- a\n- b", "---", "ünï 🦀", "", " "]
    {
        let mut spec = spec();
        spec.image_repository = hostile.into();
        spec.control_plane_endpoint = Some(Endpoint { host: hostile.into(), port: 1 });
        spec.kube_proxy = json!({"hostnameOverride": hostile});
        let objects = kube_proxy::objects(&spec, &[pair(hostile, hostile)]).unwrap();
        let pod = objects.daemon_set.spec.template.spec.unwrap();
        assert_eq!(pod.containers[0].image.as_deref(), Some(format!("{hostile}/kube-proxy:v1.36.2").as_str()));
        let variable = pod.containers[0].env.as_ref().unwrap().last().unwrap();
        assert_eq!((variable.name.as_str(), variable.value.as_deref()), (hostile, Some(hostile)));
        let data = objects.config_map.data.unwrap();
        let read = |key: &str| yaml::to_value(&data[key]).unwrap();
        assert_eq!(read("config.conf")["hostnameOverride"], hostile);
        let server = &read("kubeconfig.conf")["clusters"][0]["cluster"]["server"];
        assert_eq!(*server, format!("https://{}", spec.shared_endpoint()));
        let pod = coredns::objects(&spec).unwrap().deployment.spec.template.spec.unwrap();
        assert_eq!(pod.containers[0].image.as_deref(), Some(format!("{hostile}/coredns:v1.14.2").as_str()));
    }
}

#[test]
fn a_corefile_takes_nothing_but_a_domain() {
    for domain in ["a b", "a {\n}", "", "a#b", "a\tb", "ä"] {
        let mut spec = spec();
        spec.networking.dns_domain = domain.into();
        let error = coredns::objects(&spec).unwrap_err();
        assert!(matches!(error, AddonError::Domain { .. }), "{domain:?}: {error}");
    }
}

/// What becomes of `object` where `current` is there.
fn adapted(object: &Object, current: Value) -> Value {
    let WriteMode::Adapt(adapt) = object.mode else { panic!("{object:?} does not adapt") };
    let mut wanted = object.value.clone();
    adapt(&current, &mut wanted);
    wanted
}

fn object(spec: &ClusterSpec, kind: &str) -> Object {
    let objects = coredns::objects(spec).unwrap().objects();
    objects.into_iter().find(|object| object.resource.kind == kind).unwrap()
}

#[test]
fn a_corefile_of_the_users_stays_and_one_of_ours_becomes_this_releases() {
    let corefile = |version: &str, domain: &str| {
        let mut spec = ClusterSpec { kubernetes_version: version.parse().unwrap(), ..spec() };
        spec.networking.dns_domain = domain.into();
        object(&spec, "ConfigMap").value["data"]["Corefile"].as_str().unwrap().to_owned()
    };
    let becomes = |current: &str| {
        let current = json!({"data": {"Corefile": current}});
        adapted(&object(&spec(), "ConfigMap"), current)["data"]["Corefile"].as_str().unwrap().to_owned()
    };
    let (new, old) = (corefile("v1.36.2", "cluster.local"), corefile("v1.20.2", "cluster.local"));
    assert!(new.contains("disable success cluster.local") && !old.contains("disable"), "{new}{old}");
    for ours in [&old, &new, "", "\n", new.trim_end(), &corefile("v1.36.2", "tea.example")] {
        assert_eq!(becomes(ours), new, "{ours}");
    }
    for own in [&old.replace("ttl 30", "ttl 5"), ". {\n    whoami\n}\n", "kubernetes ", "\"y: yes"] {
        assert_eq!(becomes(own), own);
    }
    assert_eq!(adapted(&object(&spec(), "ConfigMap"), json!({}))["data"]["Corefile"], new);
}

#[test]
fn the_number_of_servers_that_somebody_has_chosen_stays() {
    let becomes = |current: Value| adapted(&object(&spec(), "Deployment"), current)["spec"]["replicas"].clone();
    assert_eq!(becomes(json!({"spec": {"replicas": 5}})), 5);
    assert_eq!(becomes(json!({"spec": {"replicas": 0}})), 0);
    assert_eq!(becomes(json!({})), 2);
}

#[test]
fn the_deployment_takes_patches_and_nothing_that_makes_it_none() {
    let dir = tempfile::tempdir().unwrap();
    let mut spec = spec();
    spec.patches_dir = Some(dir.path().to_owned());
    let patched = |text: &str| {
        let path = dir.path().join("corednsdeployment+strategic.yaml");
        crate::host::fs::write_file(&path, text.as_bytes(), 0o644).unwrap();
        coredns::objects(&spec).map(|objects| objects.deployment.spec)
    };
    let text = "spec: {replicas: 3, template: {spec: {containers: [{name: coredns, resources: {limits: {cpu: 2}}}]}}}";
    let deployment = patched(text).unwrap();
    let container = &deployment.template.spec.unwrap().containers[0];
    assert_eq!(deployment.replicas, Some(3));
    let limits = container.resources.clone().unwrap().limits.unwrap();
    assert_eq!((limits["cpu"].0.as_str(), limits["memory"].0.as_str()), ("2", "170Mi"));
    assert_eq!(container.args.as_ref().unwrap()[1], "/etc/coredns/Corefile");
    for text in ["spec: {replicas: many}", "spec: {template: {spec: {container: [{name: x}]}}}"] {
        assert!(matches!(patched(text), Err(AddonError::NotTyped { .. })), "{text}");
    }
    assert!(matches!(patched("spec: {$patch: odd}"), Err(AddonError::Patch { .. })));
}

#[test]
fn the_daemon_set_takes_patches_and_nothing_that_makes_it_none() {
    let dir = tempfile::tempdir().unwrap();
    let mut spec = spec();
    spec.patches_dir = Some(dir.path().to_owned());
    let patched = |text: &str| {
        let path = dir.path().join("kubeproxydaemonset+strategic.yaml");
        crate::host::fs::write_file(&path, text.as_bytes(), 0o644).unwrap();
        kube_proxy::objects(&spec, &[]).map(|objects| objects.daemon_set.spec)
    };
    let text = "spec: {template: {spec: {containers: [{name: kube-proxy, resources: {limits: {cpu: 2}}}]}}}";
    let containers = patched(text).unwrap().template.spec.unwrap().containers;
    assert_eq!(containers.len(), 1);
    assert_eq!(containers[0].resources.clone().unwrap().limits.unwrap()["cpu"].0, "2");
    assert!(containers[0].volume_mounts.as_ref().unwrap().len() > 1, "the other fields stay");
    assert!(matches!(patched("spec: {minReadySeconds: many}"), Err(AddonError::NotTyped { .. })));
    assert!(matches!(patched("spec: {$patch: odd}"), Err(AddonError::Patch { .. })));
}

#[test]
fn kube_proxys_mode_is_written_down_from_1_37_on_and_ipvs_warned_of_from_1_35_on() {
    let of = |version: &str, mode: Value| {
        let mut spec = spec();
        spec.kubernetes_version = version.parse().unwrap();
        spec.kube_proxy = mode;
        let objects = kube_proxy::objects(&spec, &[]).unwrap();
        let config = yaml::to_value(&objects.config_map.data.unwrap()["config.conf"]).unwrap();
        (config["mode"].as_str().unwrap_or("-").to_owned(), objects.warnings)
    };
    let written = |version, mode| of(version, mode).0;
    assert_eq!(written("v1.36.2", json!({})), "-");
    assert_eq!(written("v1.37.1", json!({})), "iptables");
    assert_eq!(written("v1.37.1", json!({"mode": ""})), "iptables");
    assert_eq!(written("v1.37.1", json!({"mode": "nftables"})), "nftables");
    for (version, mode, warned) in
        [("v1.34.9", "ipvs", 0), ("v1.35.0", "ipvs", 1), ("v1.37.1", "ipvs", 1), ("v1.37.1", "nftables", 0)]
    {
        assert_eq!(of(version, json!({"mode": mode})).1.len(), warned, "{version} {mode}");
    }
}

#[test]
fn a_users_document_keeps_its_values_without_a_hash_and_warns_of_odd_ones() {
    let mut spec = spec();
    spec.networking.pod_subnets = vec!["10.244.0.0/16".parse().unwrap()];
    let hash_of = |spec: &ClusterSpec| {
        let annotations = kube_proxy::objects(spec, &[]).unwrap().config_map.metadata.annotations;
        annotations.unwrap_or_default().remove("kubeadm.kubernetes.io/component-config.hash")
    };
    let hash = hash_of(&spec).unwrap();
    assert!(hash.starts_with("sha256:") && hash.len() == 7 + 64, "{hash}");
    spec.kube_proxy = json!({"clusterCIDR": "10.0.0.0/8", "clientConnection": {"qps": 1.5}});
    assert_eq!(hash_of(&spec), None);
    let objects = kube_proxy::objects(&spec, &[]).unwrap();
    let warning = "KubeProxyConfiguration: clusterCIDR is \"10.0.0.0/8\"; this cluster expects \"10.244.0.0/16\"";
    assert_eq!(objects.warnings, [warning]);
    let config = yaml::to_value(&objects.config_map.data.unwrap()["config.conf"]).unwrap();
    let expected = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "bindAddress": "0.0.0.0",
        "clusterCIDR": "10.0.0.0/8",
        "clientConnection": {"kubeconfig": "/var/lib/kube-proxy/kubeconfig.conf", "qps": 1.5},
    });
    assert_eq!(config, expected);
}

#[test]
fn a_document_that_kube_proxy_would_not_start_with_is_refused_by_field() {
    let refused = |document: Value| {
        let spec = ClusterSpec { kube_proxy: document, ..spec() };
        kube_proxy::objects(&spec, &[]).unwrap_err().to_string()
    };
    let cases = [
        (json!({"clusterCidr": "10.0.0.0/8"}), "there is no field clusterCidr; did you mean clusterCIDR?"),
        (json!({"ipvs": {"zzz": 1}}), "there is no field ipvs.zzz"),
        (json!({"iptables": {"masqueradeAll": "yes"}}), "iptables.masqueradeAll is not true or false"),
        (json!({"mode": true}), "mode is not a text"),
        (json!({"oomScoreAdj": "1"}), "oomScoreAdj is not a number"),
        (json!({"nodePortAddresses": [1]}), "nodePortAddresses is not a list of texts"),
        (json!({"conntrack": []}), "conntrack is no object"),
    ];
    for (document, expected) in cases {
        assert_eq!(refused(document), format!("KubeProxyConfiguration: {expected}"));
    }
}

#[test]
fn a_corefile_of_somebodys_own_is_brought_to_a_newer_coredns_and_the_old_one_kept() {
    let own = ".:53 {\n    log\n    kubernetes cluster.local {\n       upstream\n    }\n}\n";
    let adapted = |version: &str| {
        let spec = ClusterSpec { kubernetes_version: version.parse().unwrap(), ..spec() };
        let object = coredns::objects(&spec).unwrap().objects().remove(3);
        let current = serde_json::json!({"data": {"Corefile": own}});
        let WriteMode::Adapt(adapt) = object.mode else { panic!("a Corefile may be somebody's") };
        let mut wanted = object.value;
        adapt(&current, &mut wanted);
        wanted["data"].clone()
    };
    let new = own.replace("       upstream\n", "");
    assert_eq!(adapted("v1.36.2"), serde_json::json!({"Corefile": new, "Corefile-backup": own}));
    assert_eq!(adapted("v1.20.2"), serde_json::json!({"Corefile": own}));
    let refused = coredns::check(&spec(), ".:53 {\n    unbound\n}\n").unwrap_err();
    assert_eq!(refused.check(), "CoreDNSUnsupportedPlugins");
    assert_eq!(coredns::check(&spec(), own), Ok(()));
}
