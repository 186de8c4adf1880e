//! From a pod to what the runtime is asked to make: names, labels, mounts, network. Pure.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Container;

use super::plan::SANDBOX;
use crate::agent::AgentOptions;
use crate::agent::env::{self, Facts};
use crate::agent::pod::StaticPod;
use crate::agent::{logs, resources, security, volumes};
use crate::runtime::{
    ContainerConfig, ContainerName, DnsConfig, Mount, NetworkMode, PortMapping, Propagation, ResourceConfig,
    SandboxConfig, labels,
};

/// Where and how one instance of a container is made.
pub struct Place<'a> {
    /// Restart count.
    pub attempt: u32,
    /// The sandbox's id; empty for a pod without one.
    pub sandbox: &'a str,
    /// The image's user.
    pub image_user: &'a str,
    /// What the downward API says.
    pub facts: &'a Facts,
    /// Where each mount's source is, by its index among the container's mounts.
    pub sources: &'a [PathBuf],
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
    let env = env::environment(pod, container, place.facts)?;
    let profiles = options.root_dir.join("seccomp");
    let security = security::config(pod, container, place.image_user, &profiles, options.seccomp_default)?;
    let has_sandbox = !place.sandbox.is_empty();
    Ok(ContainerConfig {
        image: container.image.clone().unwrap_or_default(),
        command: env::expand_all(container.command.as_ref(), &env),
        args: env::expand_all(container.args.as_ref(), &env),
        working_dir: container.working_dir.clone().filter(|dir| !dir.is_empty()),
        mounts: mounts(pod, container, place, options),
        labels: labels(pod, &name, Some(place.sandbox), options),
        annotations: annotations(pod, container, place.attempt),
        network: match (pod.host_network(), has_sandbox) {
            (true, _) => NetworkMode::Host,
            (false, true) => NetworkMode::Sandbox(place.sandbox.to_owned()),
            (false, false) => NetworkMode::Default,
        },
        sandbox: has_sandbox.then(|| place.sandbox.to_owned()),
        host_ipc: pod.spec.host_ipc.unwrap_or(false),
        host_pid: pod.spec.host_pid.unwrap_or(false),
        share_pid: pod.spec.share_process_namespace.unwrap_or(false),
        security,
        resources: limits(pod, container, place.facts, options),
        stdin: container.stdin.unwrap_or(false),
        stdin_once: container.stdin_once.unwrap_or(false),
        tty: container.tty.unwrap_or(false),
        env,
        name,
    })
}

fn limits(pod: &StaticPod, container: &Container, facts: &Facts, options: &AgentOptions) -> ResourceConfig {
    let mut limits = resources::config(&pod.spec, container, facts.node_memory);
    let period = i64::try_from(options.cpu_cfs_quota_period.as_micros()).unwrap_or(limits.cpu_period);
    if !options.cpu_cfs_quota {
        (limits.cpu_quota, limits.cpu_period) = (0, 0);
    } else if limits.cpu_period > 0 {
        limits.cpu_quota = (limits.cpu_quota * period / limits.cpu_period).max(1000);
        limits.cpu_period = period;
    }
    limits
}

fn mounts(pod: &StaticPod, container: &Container, place: &Place<'_>, options: &AgentOptions) -> Vec<Mount> {
    let mounts = container.volume_mounts.iter().flatten().zip(place.sources);
    let mut result: Vec<Mount> = mounts
        .map(|(mount, source)| Mount {
            host_path: source.display().to_string(),
            container_path: mount.mount_path.clone(),
            read_only: mount.read_only.unwrap_or(false),
            propagation: match mount.mount_propagation.as_deref() {
                Some("HostToContainer") => Propagation::HostToContainer,
                Some("Bidirectional") => Propagation::Bidirectional,
                _ => Propagation::Private,
            },
        })
        .collect();
    if let Some(path) = container.termination_message_path.as_deref().filter(|path| !path.is_empty()) {
        let file = volumes::termination_file(&options.root_dir, &pod.uid, &container.name, place.attempt);
        result.push(Mount {
            host_path: file.display().to_string(),
            container_path: path.to_owned(),
            read_only: false,
            propagation: Propagation::Private,
        });
    }
    result
}

/// The sources of a container's mounts, sub-paths made and checked.
pub fn mount_sources(
    pod: &StaticPod,
    container: &Container,
    root: &Path,
) -> Result<Vec<PathBuf>, volumes::VolumeError> {
    let find = |name: &str| pod.spec.volumes.iter().flatten().find(|volume| volume.name == name);
    let mounts = container.volume_mounts.iter().flatten();
    mounts
        .map(|mount| {
            let base = find(&mount.name).and_then(|volume| volumes::path(volume, root, &pod.uid)).unwrap_or_default();
            match mount.sub_path.as_deref().unwrap_or_default() {
                "" => Ok(base),
                sub => volumes::sub_path(&mount.name, &base, sub),
            }
        })
        .collect()
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
    ];
    rows.map(|(key, value)| (key.to_owned(), value)).into()
}

fn grace(pod: &StaticPod) -> String {
    pod.spec.termination_grace_period_seconds.unwrap_or(30).to_string()
}

/// The pause container of a pod.
pub fn sandbox(pod: &StaticPod, attempt: u32, options: &AgentOptions) -> SandboxConfig {
    let name = name(pod, SANDBOX, attempt);
    let host_network = pod.host_network();
    let mut annotations = pod.metadata.annotations.clone().unwrap_or_default();
    annotations.insert(labels::GRACE_PERIOD.to_owned(), grace(pod));
    let sysctls = pod.spec.security_context.iter().flat_map(|context| context.sysctls.iter().flatten());
    SandboxConfig {
        image: options.pause_image.clone(),
        hostname: (!host_network).then(|| pod.hostname()),
        network: if host_network { NetworkMode::Host } else { NetworkMode::Default },
        ports: if host_network { vec![] } else { ports(pod) },
        dns: dns(pod, options),
        labels: labels(pod, &name, None, options),
        annotations,
        host_ipc: pod.spec.host_ipc.unwrap_or(false),
        host_pid: pod.spec.host_pid.unwrap_or(false),
        sysctls: sysctls.map(|sysctl| (sysctl.name.clone(), sysctl.value.clone())).collect(),
        oom_score_adj: resources::SANDBOX_OOM_SCORE,
        name,
    }
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

/// resolv.conf by `dnsPolicy` and `dnsConfig`; None leaves the machine's. ClusterFirst on the host's network, or
/// without a cluster's name server, means the machine's.
fn dns(pod: &StaticPod, options: &AgentOptions) -> Option<DnsConfig> {
    let cluster = match pod.spec.dns_policy.as_deref() {
        Some("ClusterFirst") => !pod.host_network(),
        Some("ClusterFirstWithHostNet") => true,
        _ => false,
    };
    let mut config = DnsConfig::default();
    if cluster && !options.cluster_dns.is_empty() {
        config.servers = options.cluster_dns.clone();
        if let Some(domain) = &options.cluster_domain {
            let namespace = &pod.key.namespace;
            config.searches = vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()];
        }
        config.options.push("ndots:5".to_owned());
    }
    if let Some(own) = &pod.spec.dns_config {
        config.servers.extend(own.nameservers.clone().unwrap_or_default());
        config.searches.extend(own.searches.clone().unwrap_or_default());
        for option in own.options.iter().flatten() {
            let name = option.name.clone().unwrap_or_default();
            config.options.push(option.value.as_ref().map_or(name.clone(), |value| format!("{name}:{value}")));
        }
    }
    (config != DnsConfig::default()).then_some(config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::pod::tests::{pod, pod_with};

    fn place<'a>(sandbox: &'a str, facts: &'a Facts, sources: &'a [PathBuf]) -> Place<'a> {
        Place { attempt: 2, sandbox, image_user: "", facts, sources }
    }

    fn made(pod: &StaticPod, sandbox: &str) -> ContainerConfig {
        let root = tempfile::tempdir().unwrap();
        let sources = mount_sources(pod, &pod.spec.containers[0], root.path()).unwrap();
        let facts = Facts::default();
        container(pod, &pod.spec.containers[0], &place(sandbox, &facts, &sources), &AgentOptions::new("node1")).unwrap()
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
        let message = format!("/var/lib/kubelet/pods/{}/containers/c/00000002", pod.uid);
        let mounts: Vec<_> = config.mounts.iter().map(|m| (m.host_path.as_str(), m.container_path.as_str())).collect();
        assert_eq!(mounts, [(message.as_str(), "/dev/termination-log")]);
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
            propagation: Propagation::HostToContainer,
        };
        assert_eq!(config.mounts[0], expected);
    }

    #[test]
    fn a_sandbox_has_the_pods_labels_name_ports_and_resolver() {
        let mut options = AgentOptions::new("node1");
        options.cluster_dns = vec!["10.96.0.10".into()];
        options.cluster_domain = Some("cluster.local".into());
        let pod = pod("ports: [{containerPort: 80, hostPort: 8080}, {containerPort: 81}]");
        let own = sandbox(&pod, 1, &options);
        assert_eq!(own.name.to_string(), format!("k8s_POD_p-node1_default_{}_1", pod.uid));
        assert_eq!((own.hostname.as_deref(), &own.network), (Some("p-node1"), &NetworkMode::Default));
        assert_eq!(own.labels[labels::DOCKER_TYPE], "podsandbox");
        assert_eq!(own.annotations["kubernetes.io/config.hash"], pod.uid);
        assert_eq!(own.ports.iter().map(|p| (p.container_port, p.host_port)).collect::<Vec<_>>(), [(80, 8080)]);
        let dns = own.dns.unwrap();
        assert_eq!(dns.servers, ["10.96.0.10"]);
        assert_eq!(dns.searches, ["default.svc.cluster.local", "svc.cluster.local", "cluster.local"]);
        assert_eq!(dns.options, ["ndots:5"]);
        let host = sandbox(&pod_with("hostNetwork: true", "ports: [{containerPort: 80}]"), 0, &options);
        assert_eq!((host.hostname, host.network, host.ports, host.dns), (None, NetworkMode::Host, vec![], None));
    }
}
