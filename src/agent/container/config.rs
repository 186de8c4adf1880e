//! From a pod to what the runtime is asked to make: names, labels, mounts, network. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, VolumeMount};

use super::SANDBOX;
use super::prepare::Prepared;
use super::security;
use crate::agent::container::env;
use crate::agent::container::security::SecurityDefaults;
use crate::agent::devices::Grant;
use crate::agent::options::AgentOptions;
use crate::agent::pod::resources;
use crate::agent::pod::{CONFIG_SOURCE, StaticPod, container_path, sysctls};
use crate::agent::{logs, volumes};
use crate::runtime::{
    ContainerConfig, ContainerName, LogLimits, Mount, NetworkMode, PortMapping, Propagation, ResourceConfig,
    RuntimeFeatures, SandboxConfig, UserRange, labels,
};

/// The longest host name Linux has.
const HOST_NAME_MAX: usize = 64;

/// Where and how one instance of a container is made.
pub struct Place<'a> {
    /// Restart count.
    pub attempt: u32,
    /// The sandbox's id; empty for a pod without one.
    pub sandbox: &'a str,
    /// What that was made from, for a runtime that wants to hear it again.
    pub sandbox_config: Option<Box<SandboxConfig>>,
    /// The image's user.
    pub image_user: &'a str,
    /// The node's memory in bytes.
    pub node_memory: i64,
    /// What is ready on the machine.
    pub prepared: &'a Prepared,
    /// What it gets for its devices.
    pub grant: &'a Grant,
    /// The cgroup to make it in.
    pub cgroup_parent: Option<String>,
    /// Whether the machine has AppArmor.
    pub apparmor: bool,
    /// What the runtime can.
    pub features: RuntimeFeatures,
    /// The id of the container whose processes it is to see, instead of its own alone.
    pub pid_target: Option<String>,
}

/// Why a sandbox cannot be made as the manifest asks.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The kubelet's reason.
    pub reason: &'static str,
    /// Why.
    pub message: String,
}

/// Identity of an instance.
pub fn name(pod: &StaticPod, container: &str, attempt: u32) -> ContainerName {
    ContainerName {
        pod: pod.key.name.clone(),
        namespace: pod.key.namespace.clone(),
        uid: pod.uid.clone(),
        container: container.to_owned(),
        attempt,
    }
}

/// A container, or the message of a `CreateContainerConfigError`.
pub fn container(
    pod: &StaticPod,
    container: &Container,
    place: &Place<'_>,
    options: &AgentOptions,
) -> Result<ContainerConfig, String> {
    let name = name(pod, &container.name, place.attempt);
    let env = place.grant.environment(&place.prepared.env);
    let defaults = SecurityDefaults {
        image_user: place.image_user,
        profiles: &options.root_dir.join("seccomp"),
        seccomp_default: options.seccomp_default,
        apparmor: place.apparmor,
    };
    let security = security::config(pod, container, &defaults)?;
    let has_sandbox = !place.sandbox.is_empty();
    Ok(ContainerConfig {
        image: container.image.clone().unwrap_or_default(),
        command: env::expand_all(container.command.as_ref(), &env).map_err(|why| format!("command: {why}"))?,
        args: env::expand_all(container.args.as_ref(), &env).map_err(|why| format!("args: {why}"))?,
        working_dir: container.working_dir.clone().filter(|dir| !dir.is_empty()),
        mounts: mounts(pod, container, place)?,
        labels: labels(pod, &name, Some(place.sandbox), options),
        annotations: place
            .grant
            .annotations
            .clone()
            .into_iter()
            .chain(annotations(pod, container, place.attempt))
            .collect(),
        devices: place.grant.devices.clone(),
        cdi_devices: place.grant.cdi_devices.clone(),
        network: match (pod.host_network(), has_sandbox) {
            (true, _) => NetworkMode::Host,
            (false, true) => NetworkMode::Sandbox(place.sandbox.to_owned()),
            (false, false) => NetworkMode::Default,
        },
        sandbox: has_sandbox.then(|| place.sandbox.to_owned()),
        sandbox_config: place.sandbox_config.clone(),
        host_ipc: pod.spec.host_ipc.unwrap_or(false),
        host_pid: pod.spec.host_pid.unwrap_or(false),
        share_pid: pod.spec.share_process_namespace.unwrap_or(false),
        pid_target: place.pid_target.clone(),
        users: place.prepared.users,
        security,
        resources: limits(pod, container, place, options),
        cgroup_parent: place.cgroup_parent.clone(),
        log: log(options),
        stdin: container.stdin.unwrap_or(false),
        stdin_once: container.stdin_once.unwrap_or(false),
        tty: container.tty.unwrap_or(false),
        env,
        name,
    })
}

fn log(options: &AgentOptions) -> LogLimits {
    LogLimits { max_bytes: options.container_log_max_size, max_files: options.container_log_max_files }
}

fn limits(pod: &StaticPod, container: &Container, place: &Place<'_>, options: &AgentOptions) -> ResourceConfig {
    let mut limits = resources::config(&pod.spec, container, place.node_memory);
    let period = i64::try_from(options.cpu_cfs_quota_period.as_micros()).unwrap_or(limits.cpu_period);
    if !options.cpu_cfs_quota {
        (limits.cpu_quota, limits.cpu_period) = (0, 0);
    } else if limits.cpu_period > 0 {
        limits.cpu_quota =
            limits.cpu_quota.saturating_mul(period).checked_div(limits.cpu_period).unwrap_or(0).max(1000);
        limits.cpu_period = period;
    }
    if place.cgroup_parent.is_none() {
        // There is no cgroup of the pod as a whole to say it in.
        limits.pids = options.pod_pids_limit.unwrap_or(0);
    }
    limits
}

/// Whether something in the container is mounted from a volume that is read-only whatever the manifest says: the runtime is
/// to be asked then what it can.
pub fn asks_for_features(pod: &StaticPod, container: &Container) -> bool {
    let mut mounts = container.volume_mounts.iter().flatten();
    mounts.any(|mount| mount.recursive_read_only.is_some() || is_of_api(pod, mount))
}

/// Whether the agent writes the files of the volume that is mounted.
fn is_of_api(pod: &StaticPod, mount: &VolumeMount) -> bool {
    let volume = pod.spec.volumes.iter().flatten().find(|volume| volume.name == mount.name);
    volume.is_some_and(volumes::is_of_api)
}

fn mounts(pod: &StaticPod, container: &Container, place: &Place<'_>) -> Result<Vec<Mount>, String> {
    let own = container.volume_mounts.iter().flatten().zip(&place.prepared.sources);
    let own = own.map(|(mount, source)| {
        let propagation = match mount.mount_propagation.as_deref() {
            Some("HostToContainer") => Propagation::HostToContainer,
            Some("Bidirectional") => Propagation::Bidirectional,
            _ => Propagation::Private,
        };
        // What a container wrote into a volume that the agent writes would be taken for the API server's.
        let of_api = is_of_api(pod, mount);
        let read_only = of_api || mount.read_only.unwrap_or(false);
        let wanted = mount.recursive_read_only.as_deref();
        let can = place.features.recursive_read_only;
        if wanted == Some("Enabled") && !can {
            return Err(format!(
                "failed to resolve recursive read-only mode: volume {:?} requested recursive read-only mode, but it is not \
                 supported by the runtime",
                mount.name
            ));
        }
        let recursive = of_api || matches!(wanted, Some("Enabled" | "IfPossible"));
        Ok(Mount {
            host_path: source.display().to_string(),
            container_path: container_path(&mount.mount_path).into_owned(),
            read_only,
            recursive_read_only: recursive && read_only && can && propagation == Propagation::Private,
            propagation,
        })
    });
    let of_devices = place.grant.mounts.iter().cloned().map(Ok);
    of_devices.chain(own).chain(place.prepared.managed.iter().cloned().map(Ok)).collect()
}

/// The kubelet's and dockershim's labels, and the owner's. Containers do not carry the pod's labels.
fn labels(
    pod: &StaticPod,
    name: &ContainerName,
    sandbox: Option<&str>,
    options: &AgentOptions,
) -> BTreeMap<String, String> {
    let kind = if sandbox.is_some() { "container" } else { "podsandbox" };
    let rows = [
        (labels::POD_NAME, name.pod.clone()),
        (labels::POD_NAMESPACE, name.namespace.clone()),
        (labels::POD_UID, pod.uid.clone()),
        (labels::CONTAINER_NAME, name.container.clone()),
        (labels::DOCKER_TYPE, kind.to_owned()),
        (labels::OWNER, options.owner()),
    ];
    let mut result: BTreeMap<String, String> = match sandbox {
        None => pod.metadata.labels.clone().unwrap_or_default(),
        Some(id) => BTreeMap::from([
            (labels::SANDBOX_ID.to_owned(), id.to_owned()),
            (labels::LOG_PATH.to_owned(), logs::file(options, name).display().to_string()),
        ]),
    };
    result.extend(rows.map(|(key, value)| (key.to_owned(), value)));
    result
}

fn annotations(pod: &StaticPod, container: &Container, attempt: u32) -> BTreeMap<String, String> {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let rows = [
        (labels::CONTAINER_HASH, pod.container_hash(&container.name)),
        (labels::RESTART_COUNT, attempt.to_string()),
        (labels::GRACE_PERIOD, grace(pod)),
        (labels::TERMINATION_MESSAGE_PATH, text(&container.termination_message_path)),
        ("io.kubernetes.container.terminationMessagePolicy", text(&container.termination_message_policy)),
        (
            CONFIG_SOURCE,
            pod.metadata.annotations.as_ref().and_then(|map| map.get(CONFIG_SOURCE)).cloned().unwrap_or_default(),
        ),
    ];
    let json = |value: serde_json::Result<String>| value.unwrap_or_default();
    let mut result: BTreeMap<String, String> = rows.map(|(key, value)| (key.to_owned(), value)).into();
    if let Some(handler) = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref()) {
        result.insert(labels::PRE_STOP.to_owned(), json(serde_json::to_string(handler)));
        result.insert(
            labels::PORTS.to_owned(),
            json(serde_json::to_string(container.ports.as_deref().unwrap_or_default())),
        );
    }
    // The last sidecar goes first, after all that is none.
    let init = pod.spec.init_containers.iter().flatten();
    let sidecars = init.filter(|one| one.restart_policy.as_deref() == Some("Always")).rev();
    if let Some(place) = sidecars.enumerate().find_map(|(place, one)| (one.name == container.name).then_some(place)) {
        result.insert(labels::STOP_ORDER.to_owned(), place.saturating_add(1).to_string());
    }
    result
}

fn grace(pod: &StaticPod) -> String {
    pod.spec.termination_grace_period_seconds.unwrap_or(30).to_string()
}

/// The pause container of a pod.
pub fn sandbox(
    pod: &StaticPod,
    attempt: u32,
    cgroup_parent: Option<String>,
    users: Option<UserRange>,
    options: &AgentOptions,
) -> Result<SandboxConfig, Refusal> {
    let name = name(pod, SANDBOX, attempt);
    let host_network = pod.host_network();
    let mut annotations = pod.metadata.annotations.clone().unwrap_or_default();
    annotations.insert(labels::GRACE_PERIOD.to_owned(), grace(pod));
    annotations.extend(pod.shared_hash().map(|hash| (labels::CONTAINER_HASH.to_owned(), hash)));
    let context = pod.spec.security_context.clone().unwrap_or_default();
    Ok(SandboxConfig {
        image: options.pause_image.clone(),
        hostname: if host_network { None } else { Some(hostname(pod, options)?) },
        network: if host_network { NetworkMode::Host } else { NetworkMode::Default },
        ports: if host_network { vec![] } else { ports(pod) },
        labels: labels(pod, &name, None, options),
        annotations,
        host_ipc: pod.spec.host_ipc.unwrap_or(false),
        host_pid: pod.spec.host_pid.unwrap_or(false),
        users,
        sysctls: sysctls::sysctls(pod),
        selinux: security::selinux(context.se_linux_options),
        cgroup_parent,
        log: log(options),
        oom_score_adj: resources::SANDBOX_OOM_SCORE,
        runtime_handler: String::new(),
        log_directory: Some(logs::pod_dir(options, &name).display().to_string()),
        privileged: pod.containers().any(|(_, container)| {
            container.security_context.as_ref().and_then(|context| context.privileged).unwrap_or(false)
        }),
        name,
    })
}

/// The host name as the pod's processes see it: with the domain where `setHostnameAsFQDN` asks for it.
fn hostname(pod: &StaticPod, options: &AgentOptions) -> Result<String, Refusal> {
    let short = pod.hostname();
    let domain = pod.domain(options.cluster_domain.as_deref());
    let Some(domain) = domain.filter(|_| pod.spec.set_hostname_as_fqdn.unwrap_or(false)) else { return Ok(short) };
    let full = format!("{short}.{domain}");
    if full.len() > HOST_NAME_MAX {
        let length = full.len();
        let message = format!(
            "failed to construct FQDN from pod hostname and cluster domain, FQDN {full} is too long ({HOST_NAME_MAX} \
             characters is the max, {length} characters requested)"
        );
        return Err(Refusal { reason: "FailedCreatePodSandBox", message });
    }
    Ok(full)
}

/// Every `hostPort` of the pod.
fn ports(pod: &StaticPod) -> Vec<PortMapping> {
    let ports = pod.containers().flat_map(|(_, container)| container.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let host_port = port.host_port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p > 0)?;
            Some(PortMapping {
                container_port: u16::try_from(port.container_port).ok()?,
                host_port,
                host_ip: port.host_ip.clone().unwrap_or_default(),
                protocol: port.protocol.clone().unwrap_or_default().to_lowercase(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
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
}
