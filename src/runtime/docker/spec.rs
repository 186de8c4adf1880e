//! What Docker is asked to make: dockershim's choices, as data, without a daemon.

use std::collections::{BTreeMap, HashMap};

use bollard::models::{
    ContainerCreateBody, DeviceMapping, HealthConfig, HostConfig, HostConfigLogConfig, Mount as ApiMount,
    MountBindOptions, MountBindOptionsPropagationEnum, MountType, PortBinding, RestartPolicy, RestartPolicyNameEnum,
};

use crate::runtime::*;

/// The network (IPC, PID) mode of a container that joins another.
pub const CONTAINER_MODE: &str = "container:";

/// Prefix of labels that hold annotations, which Docker does not have.
pub const ANNOTATION_PREFIX: &str = "annotation.";

/// The least a cgroup takes; a sandbox needs no more.
const MIN_CPU_SHARES: i64 = 2;

/// The pause container of a pod.
pub fn sandbox(config: &SandboxConfig) -> ContainerCreateBody {
    let host_network = config.network == NetworkMode::Host;
    let (exposed, bindings) = ports(&config.ports);
    let host_config = HostConfig {
        network_mode: Some(network_mode(&config.network)),
        ipc_mode: Some(if config.host_ipc { "host" } else { "shareable" }.to_owned()),
        pid_mode: config.host_pid.then(|| "host".to_owned()),
        uts_mode: host_network.then(|| "host".to_owned()),
        port_bindings: some_map(bindings),
        sysctls: some_map(config.sysctls.clone().into_iter().collect()),
        security_opt: Some([vec!["no-new-privileges".to_owned()], label_options(&config.selinux)].concat()),
        cgroup_parent: config.cgroup_parent.clone(),
        log_config: Some(log_config(config.log)),
        cpu_shares: Some(MIN_CPU_SHARES),
        oom_score_adj: Some(config.oom_score_adj),
        restart_policy: Some(no_restart()),
        ..HostConfig::default()
    };
    ContainerCreateBody {
        image: Some(config.image.clone()),
        hostname: config.hostname.clone().filter(|_| !host_network),
        labels: Some(labels(&config.labels, &config.annotations)),
        exposed_ports: some_vec(exposed),
        healthcheck: Some(no_healthcheck()),
        host_config: Some(host_config),
        ..ContainerCreateBody::default()
    }
}

/// A container.
///
/// # Errors
/// [`RuntimeError::Refused`] for a group without a user, for a seccomp profile that cannot be read, and for CDI devices.
pub fn container(config: &ContainerConfig) -> Result<ContainerCreateBody> {
    if let Some(name) = config.cdi_devices.first() {
        return Err(RuntimeError::Refused {
            call: format!("create container {}", config.name.container),
            message: format!("the device plugin asks for the CDI device {name}; that takes a runtime that speaks CRI"),
        });
    }
    Ok(ContainerCreateBody {
        image: Some(config.image.clone()),
        entrypoint: some_vec(config.command.clone()),
        cmd: some_vec(config.args.clone()),
        working_dir: config.working_dir.clone(),
        env: some_vec(
            config.env.iter().map(|(name, value)| format!("{name}={}", String::from_utf8_lossy(value))).collect(),
        ),
        user: user(config)?,
        labels: Some(labels(&config.labels, &config.annotations)),
        open_stdin: Some(config.stdin),
        stdin_once: Some(config.stdin_once),
        tty: Some(config.tty),
        // Probes are the agent's: what the image brings would only run beside them.
        healthcheck: Some(no_healthcheck()),
        host_config: Some(host_config(config)?),
        ..ContainerCreateBody::default()
    })
}

fn device(device: &Device) -> DeviceMapping {
    DeviceMapping {
        path_on_host: Some(device.host_path.clone()),
        path_in_container: Some(device.container_path.clone()),
        cgroup_permissions: Some(device.permissions.clone()),
    }
}

fn host_config(config: &ContainerConfig) -> Result<HostConfig> {
    let (security, resources) = (&config.security, &config.resources);
    let of_sandbox = config.sandbox.as_ref().map(|id| format!("{CONTAINER_MODE}{id}"));
    let host = |yes: bool| yes.then(|| "host".to_owned());
    let (mounts, binds): (Vec<&Mount>, Vec<&Mount>) =
        config.mounts.iter().partition(|mount| mount.host_path.contains(':') || mount.container_path.contains(':'));
    let limit = |value: i64| (value > 0).then_some(value);
    Ok(HostConfig {
        network_mode: Some(network_mode(&config.network)),
        ipc_mode: host(config.host_ipc).or_else(|| of_sandbox.clone()),
        pid_mode: { config.pid_target.as_ref().map(|id| format!("{CONTAINER_MODE}{id}")) }
            .or_else(|| host(config.host_pid))
            .or_else(|| of_sandbox.filter(|_| config.share_pid)),
        uts_mode: host(config.network == NetworkMode::Host),
        binds: some_vec(binds.into_iter().map(bind).collect()),
        mounts: some_vec(mounts.into_iter().map(bind_mount).collect()),
        devices: some_vec(config.devices.iter().map(device).collect()),
        group_add: some_vec(security.supplemental_groups.iter().map(i64::to_string).collect()),
        privileged: Some(security.privileged),
        cap_add: some_vec(security.add_capabilities.clone()),
        cap_drop: some_vec(security.drop_capabilities.clone()),
        readonly_rootfs: Some(security.read_only_root),
        security_opt: some_vec(security_options(config)?),
        // An empty list, unlike none, takes Docker's own away.
        masked_paths: security.unmasked_proc.then(Vec::new),
        readonly_paths: security.unmasked_proc.then(Vec::new),
        cgroup_parent: config.cgroup_parent.clone(),
        log_config: Some(log_config(config.log)),
        pids_limit: limit(resources.pids),
        cpu_shares: limit(resources.cpu_shares),
        cpu_quota: limit(resources.cpu_quota),
        cpu_period: limit(resources.cpu_period),
        memory: limit(resources.memory_bytes),
        // Equal to the memory limit: no swap on top of it.
        memory_swap: limit(resources.memory_bytes),
        oom_score_adj: Some(resources.oom_score_adj),
        restart_policy: Some(no_restart()),
        ..HostConfig::default()
    })
}

fn security_options(config: &ContainerConfig) -> Result<Vec<String>> {
    let mut options = Vec::new();
    if config.security.no_new_privileges {
        options.push("no-new-privileges".to_owned());
    }
    match &config.security.seccomp {
        Seccomp::RuntimeDefault => {}
        Seccomp::Unconfined => options.push("seccomp=unconfined".to_owned()),
        // The API takes the profile itself.
        Seccomp::Localhost(path) => {
            let profile = std::fs::read_to_string(path)
                .map_err(|error| refused(config, format!("cannot read the seccomp profile {path}: {error}")))?;
            options.push(format!("seccomp={profile}"));
        }
    }
    match &config.security.apparmor {
        AppArmor::RuntimeDefault => {}
        AppArmor::Unconfined => options.push("apparmor=unconfined".to_owned()),
        AppArmor::Localhost(profile) => options.push(format!("apparmor={profile}")),
    }
    options.extend(label_options(&config.security.selinux));
    Ok(options)
}

fn label_options(selinux: &[String]) -> Vec<String> {
    selinux.iter().map(|option| format!("label={option}")).collect()
}

/// Always said, so that a daemon with another default still leaves logs to read. Rotation is Docker's, uncompressed:
/// what rotated can be read with any tool.
fn log_config(limits: LogLimits) -> HostConfigLogConfig {
    let config = [
        ("max-size", limits.max_bytes.max(1).to_string()),
        ("max-file", limits.max_files.max(1).to_string()),
        ("compress", "false".to_owned()),
    ];
    HostConfigLogConfig {
        typ: Some("json-file".to_owned()),
        config: Some(config.map(|(key, value)| (key.to_owned(), value)).into()),
    }
}

fn user(config: &ContainerConfig) -> Result<Option<String>> {
    let SecurityConfig { user, user_name, group, .. } = &config.security;
    match (user.map(|user| user.to_string()).or_else(|| user_name.clone()), group) {
        (None, None) => Ok(None),
        (Some(user), None) => Ok(Some(user)),
        (Some(user), Some(group)) => Ok(Some(format!("{user}:{group}"))),
        (None, Some(_)) => Err(refused(config, "runAsGroup needs runAsUser on docker: set both".into())),
    }
}

fn refused(config: &ContainerConfig, message: String) -> RuntimeError {
    RuntimeError::Refused { call: format!("create container {}", config.name.container), message }
}

/// `source:target[:ro][,propagation]`. Binds, unlike mounts, make a directory where the source is missing, which is
/// what a hostPath without a type expects.
fn bind(mount: &Mount) -> String {
    let mut options = Vec::new();
    if mount.read_only {
        options.push("ro");
    }
    match mount.propagation {
        Propagation::Private => {}
        Propagation::HostToContainer => options.push("rslave"),
        Propagation::Bidirectional => options.push("rshared"),
    }
    let options = if options.is_empty() { String::new() } else { format!(":{}", options.join(",")) };
    format!("{}:{}{options}", mount.host_path, mount.container_path)
}

/// The same for a path with a colon, which a bind cannot say.
fn bind_mount(mount: &Mount) -> ApiMount {
    let propagation = match mount.propagation {
        Propagation::Private => MountBindOptionsPropagationEnum::RPRIVATE,
        Propagation::HostToContainer => MountBindOptionsPropagationEnum::RSLAVE,
        Propagation::Bidirectional => MountBindOptionsPropagationEnum::RSHARED,
    };
    ApiMount {
        typ: Some(MountType::BIND),
        source: Some(mount.host_path.clone()),
        target: Some(mount.container_path.clone()),
        read_only: Some(mount.read_only),
        bind_options: Some(MountBindOptions { propagation: Some(propagation), ..MountBindOptions::default() }),
        ..ApiMount::default()
    }
}

type Bindings = HashMap<String, Option<Vec<PortBinding>>>;

fn ports(mappings: &[PortMapping]) -> (Vec<String>, Bindings) {
    let mut bindings = Bindings::new();
    for mapping in mappings {
        let port = format!("{}/{}", mapping.container_port, mapping.protocol.to_lowercase());
        let binding = PortBinding {
            host_ip: Some(mapping.host_ip.clone()).filter(|ip| !ip.is_empty()),
            host_port: Some(mapping.host_port.to_string()),
        };
        bindings.entry(port).or_default().get_or_insert_default().push(binding);
    }
    (bindings.keys().cloned().collect(), bindings)
}

fn network_mode(network: &NetworkMode) -> String {
    match network {
        NetworkMode::Host => "host".to_owned(),
        NetworkMode::Default => "default".to_owned(),
        NetworkMode::Sandbox(id) => format!("{CONTAINER_MODE}{id}"),
    }
}

fn labels(labels: &BTreeMap<String, String>, annotations: &BTreeMap<String, String>) -> HashMap<String, String> {
    let annotations = annotations.iter().map(|(key, value)| (format!("{ANNOTATION_PREFIX}{key}"), value.clone()));
    annotations.chain(labels.clone()).collect()
}

fn no_restart() -> RestartPolicy {
    RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }
}

fn no_healthcheck() -> HealthConfig {
    HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() }
}

fn some_vec<T>(items: Vec<T>) -> Option<Vec<T>> {
    (!items.is_empty()).then_some(items)
}

fn some_map<V>(items: HashMap<String, V>) -> Option<HashMap<String, V>> {
    (!items.is_empty()).then_some(items)
}
