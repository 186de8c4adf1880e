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
use crate::agent::pod::surge::{self, Surge};
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
    if let Surge::Port(port) = surge::of(pod) {
        result.insert(labels::SHARED_PORT.to_owned(), port.to_string());
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
mod tests;
