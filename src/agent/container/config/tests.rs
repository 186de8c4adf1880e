use serde_json::{Value, json};

use super::*;
use crate::agent::pod::bound_tests::bound;
use crate::agent::pod::tests::{pod, pod_with};

fn made(pod: &StaticPod, sandbox: &str) -> ContainerConfig {
    tried(pod, sandbox, false).unwrap()
}

fn tried(pod: &StaticPod, sandbox: &str, recursive: bool) -> Result<ContainerConfig, String> {
    let sources = pod.spec.containers[0].volume_mounts.iter().flatten().map(|_| "/data".into()).collect();
    let prepared = Prepared { sources, ..Prepared::default() };
    let place = Place {
        attempt: 2,
        sandbox,
        sandbox_config: None,
        image_user: "",
        node_memory: 1 << 30,
        prepared: &prepared,
        grant: &Grant::default(),
        cgroup_parent: Some("/kubepods/podx".into()),
        apparmor: false,
        features: RuntimeFeatures { recursive_read_only: recursive, ..RuntimeFeatures::default() },
        pid_target: None,
    };
    container(pod, &pod.spec.containers[0], &place, &AgentOptions::new("node1"))
}

/// How the mounts of the first container are made: whether read-only, and whether that holds below too.
fn read_only(pod: &StaticPod, recursive: bool) -> Vec<(bool, bool)> {
    let made = tried(pod, "sandbox1", recursive).unwrap();
    made.mounts.iter().map(|mount| (mount.read_only, mount.recursive_read_only)).collect()
}

#[test]
fn what_the_agent_writes_is_read_only_whatever_the_manifest_says() {
    let volumes = json!([
        {"name": "map", "configMap": {"name": "m"}}, {"name": "secret", "secret": {"secretName": "s"}},
        {"name": "all", "projected": {"sources": []}}, {"name": "down", "downwardAPI": {"items": []}},
        {"name": "dir", "emptyDir": {}},
    ]);
    let mut pod = bound(json!({"volumes": volumes}), json!({}));
    for (volume, of_api) in [("map", true), ("secret", true), ("all", true), ("down", true), ("dir", false)] {
        let mount = |rest: Value| {
            let mut mount = json!({"name": volume, "mountPath": "/v"});
            mount.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
            mount
        };
        let said = [json!({}), json!({"readOnly": false}), json!({"subPath": "x"}), json!({"readOnly": true})];
        let hosts = mount(json!({"mountPropagation": "HostToContainer"}));
        let mounts: Vec<Value> = said.into_iter().map(mount).chain([hosts]).collect();
        pod.spec.containers[0].volume_mounts = serde_json::from_value(mounts.into()).unwrap();
        assert_eq!(asks_for_features(&pod, &pod.spec.containers[0]), of_api);
        let expected = [of_api, of_api, of_api, true, of_api];
        assert_eq!(read_only(&pod, false), expected.map(|yes| (yes, false)), "{volume}");
        let below = [of_api, of_api, of_api, of_api, false];
        let both: Vec<_> = expected.into_iter().zip(below).collect();
        assert_eq!(read_only(&pod, true), both, "{volume}");
    }
}

#[test]
fn a_relative_mount_path_is_below_the_root() {
    let pod = pod_with(
        "volumes: [{name: v, emptyDir: {}}]",
        "volumeMounts: [{name: v, mountPath: data/x}, {name: v, mountPath: ../y, subPath: z}, {name: v, mountPath: '/a:b'}]",
    );
    let made = tried(&pod, "sandbox1", false).unwrap();
    let paths: Vec<&str> = made.mounts.iter().map(|mount| mount.container_path.as_str()).collect();
    assert_eq!(paths, ["/data/x", "/y", "/a:b"]);
}

#[test]
fn a_mount_that_must_be_read_only_below_needs_a_runtime_that_can_and_one_that_may_be_does_not() {
    let of = |value: &str| {
        pod_with(
            "volumes: [{name: v, emptyDir: {}}]",
            &format!("volumeMounts: [{{name: v, mountPath: /v, readOnly: true, recursiveReadOnly: {value}}}]"),
        )
    };
    for (value, can, expected) in [
        ("IfPossible", false, Some(false)),
        ("IfPossible", true, Some(true)),
        ("Disabled", true, Some(false)),
        ("Enabled", true, Some(true)),
        ("Enabled", false, None),
    ] {
        let got = tried(&of(value), "sandbox1", can).map(|made| made.mounts[0].recursive_read_only);
        assert_eq!(got.as_ref().ok().copied(), expected, "{value} {can} {got:?}");
        let words = "failed to resolve recursive read-only mode: volume \"v\" requested recursive read-only mode, \
                     but it is not supported by the runtime";
        assert!(got.is_ok() || got == Err(words.to_owned()), "{got:?}");
    }
}

#[test]
fn a_container_carries_what_dockershim_gave_it_and_what_adoption_needs() {
    let pod = pod_with("hostNetwork: true\n  terminationGracePeriodSeconds: 5", "");
    let config = made(&pod, "");
    assert_eq!(config.name.to_string(), format!("k8s_c_p-node1_default_{}_2", pod.uid));
    assert_eq!((&config.network, &config.sandbox), (&NetworkMode::Host, &None));
    let log = format!("/var/log/pods/default_p-node1_{}/c/2.log", pod.uid);
    for (key, value) in [
        (labels::POD_NAME, "p-node1"),
        (labels::POD_NAMESPACE, "default"),
        (labels::POD_UID, &pod.uid),
        (labels::CONTAINER_NAME, "c"),
        (labels::DOCKER_TYPE, "container"),
        (labels::SANDBOX_ID, ""),
        (labels::LOG_PATH, &log),
        (labels::OWNER, "/var/lib/kubelet"),
    ] {
        assert_eq!(config.labels[key], value, "{key}");
    }
    for (key, value) in [
        (labels::CONTAINER_HASH, pod.container_hash("c").as_str()),
        (labels::RESTART_COUNT, "2"),
        (labels::GRACE_PERIOD, "5"),
        (labels::TERMINATION_MESSAGE_PATH, "/dev/termination-log"),
    ] {
        assert_eq!(config.annotations[key], value, "{key}");
    }
    assert_eq!(config.cgroup_parent.as_deref(), Some("/kubepods/podx"));
    assert_eq!(config.log, LogLimits { max_bytes: 10 << 20, max_files: 5 });
}

#[test]
fn a_container_behind_a_sandbox_joins_it_and_mounts_its_volumes() {
    let pod = pod_with(
        "volumes: [{name: v, hostPath: {path: /data}}]",
        "volumeMounts: [{name: v, mountPath: /v, readOnly: true, mountPropagation: HostToContainer}]",
    );
    let config = made(&pod, "sandbox1");
    assert_eq!(config.network, NetworkMode::Sandbox("sandbox1".into()));
    assert_eq!(config.sandbox.as_deref(), Some("sandbox1"));
    let expected = Mount {
        host_path: "/data".into(),
        container_path: "/v".into(),
        read_only: true,
        recursive_read_only: false,
        propagation: Propagation::HostToContainer,
    };
    assert_eq!(config.mounts[0], expected);
}

#[test]
fn a_sandbox_has_the_pods_labels_name_and_ports() {
    let options = AgentOptions::new("node1");
    let pod = pod("ports: [{containerPort: 80, hostPort: 8080}, {containerPort: 81}]");
    let own = sandbox(&pod, 1, None, None, &options).unwrap();
    assert_eq!(own.name.to_string(), format!("k8s_POD_p-node1_default_{}_1", pod.uid));
    assert_eq!((own.hostname.as_deref(), &own.network), (Some("p-node1"), &NetworkMode::Default));
    assert_eq!(own.labels[labels::DOCKER_TYPE], "podsandbox");
    assert_eq!(own.annotations["kubernetes.io/config.hash"], pod.uid);
    assert_eq!(own.ports.iter().map(|p| (p.container_port, p.host_port)).collect::<Vec<_>>(), [(80, 8080)]);
    let host = pod_with("hostNetwork: true", "ports: [{containerPort: 80}]");
    let host = sandbox(&host, 0, None, None, &options).unwrap();
    assert_eq!((host.hostname, host.network, host.ports), (None, NetworkMode::Host, vec![]));
}

#[test]
fn a_sandbox_has_its_name_and_sysctls_and_no_name_that_cannot_be_said() {
    let mut options = AgentOptions::new("node1");
    options.cluster_domain = Some("cluster.local".into());
    let of = |spec: &str| sandbox(&pod_with(spec, ""), 0, None, None, &options);
    let full = of("hostname: web\n  subdomain: sub\n  setHostnameAsFQDN: true").unwrap();
    assert_eq!(full.hostname.as_deref(), Some("web.sub.default.svc.cluster.local"));
    let unset = sandbox(
        &pod_with("hostname: web\n  subdomain: sub\n  setHostnameAsFQDN: true", ""),
        0,
        None,
        None,
        &AgentOptions::new("node1"),
    );
    assert_eq!(unset.unwrap().hostname.as_deref(), Some("web.sub.default.svc."));
    let long = format!("hostname: {}\n  subdomain: sub\n  setHostnameAsFQDN: true", "x".repeat(40));
    let error = of(&long).unwrap_err();
    let full = format!("{}.sub.default.svc.cluster.local", "x".repeat(40));
    let words = format!(
        "failed to construct FQDN from pod hostname and cluster domain, FQDN {full} is too long (64 characters is the \
         max, 70 characters requested)"
    );
    assert_eq!((error.reason, error.message), ("FailedCreatePodSandBox", words));
    let set = |name: &str| format!("securityContext: {{sysctls: [{{name: {name}, value: '1'}}]}}");
    assert_eq!(of(&set("net.ipv4.tcp_syncookies")).unwrap().sysctls["net.ipv4.tcp_syncookies"], "1");
}
