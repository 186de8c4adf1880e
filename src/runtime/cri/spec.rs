//! What a runtime is asked to make: the kubelet's choices, as data, without a runtime.

use std::collections::BTreeMap;
use std::path::Path;

use super::proto::{self, NamespaceMode, ProfileType};
use crate::runtime::*;

/// Labels that say what a CRI runtime knows by itself.
const DOCKERS_LABELS: [&str; 3] = [labels::DOCKER_TYPE, labels::SANDBOX_ID, labels::LOG_PATH];

/// Paths of /proc and /sys that a container does not see (`k8s.io/kubernetes/pkg/securitycontext`).
const MASKED_PATHS: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
/// Those that it cannot write.
const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// A sandbox.
pub fn sandbox(config: &SandboxConfig) -> proto::PodSandboxConfig {
    let name = &config.name;
    let own = |label: &&str| DOCKERS_LABELS.contains(label) || *label == labels::CONTAINER_NAME;
    proto::PodSandboxConfig {
        metadata: Some(proto::PodSandboxMetadata {
            name: name.pod.clone(),
            uid: name.uid.clone(),
            namespace: name.namespace.clone(),
            attempt: name.attempt,
        }),
        hostname: config.hostname.clone().unwrap_or_default(),
        log_directory: config.log_directory.clone().unwrap_or_default(),
        port_mappings: config.ports.iter().map(port).collect(),
        labels: without(&config.labels, own),
        annotations: config.annotations.clone(),
        linux: Some(proto::LinuxPodSandboxConfig {
            cgroup_parent: config.cgroup_parent.clone().unwrap_or_default(),
            security_context: Some(proto::LinuxSandboxSecurityContext {
                namespace_options: Some(proto::NamespaceOption {
                    network: node_or(config.network == NetworkMode::Host, NamespaceMode::Pod),
                    pid: node_or(config.host_pid, NamespaceMode::Container),
                    ipc: node_or(config.host_ipc, NamespaceMode::Pod),
                    target_id: String::new(),
                    userns_options: users(config.users),
                }),
                selinux_options: selinux(&config.selinux),
                privileged: config.privileged,
                seccomp: Some(profile(ProfileType::RuntimeDefault, "")),
            }),
            sysctls: config.sysctls.clone(),
        }),
    }
}

/// A container. Its log is where the label for that says.
pub fn container(config: &ContainerConfig) -> proto::ContainerConfig {
    proto::ContainerConfig {
        metadata: Some(proto::ContainerMetadata { name: config.name.container.clone(), attempt: config.name.attempt }),
        image: Some(proto::ImageSpec { image: config.image.clone(), user_specified_image: config.image.clone() }),
        command: config.command.clone(),
        args: config.args.clone(),
        working_dir: config.working_dir.clone().unwrap_or_default(),
        envs: config
            .env
            .iter()
            .map(|(key, value)| proto::KeyValue { key: key.clone(), value: value.clone() })
            .collect(),
        mounts: config.mounts.iter().map(|one| mount(one, config.users)).collect(),
        devices: config.devices.iter().map(device).collect(),
        cdi_devices: config.cdi_devices.iter().map(|name| proto::CdiDevice { name: name.clone() }).collect(),
        labels: without(&config.labels, |label| DOCKERS_LABELS.contains(label)),
        annotations: config.annotations.clone(),
        log_path: log_path(config).map(|(_, file)| file).unwrap_or_default(),
        stdin: config.stdin,
        stdin_once: config.stdin_once,
        tty: config.tty,
        linux: Some(proto::LinuxContainerConfig {
            resources: Some(resources(&config.resources)),
            security_context: Some(security(config)),
        }),
    }
}

/// The pod's log directory and the log's path below it.
pub fn log_path(config: &ContainerConfig) -> Option<(String, String)> {
    let path = Path::new(config.labels.get(labels::LOG_PATH)?);
    let (directory, file) = (path.parent()?.parent()?, path.file_name()?.to_str()?);
    let name = path.parent()?.file_name()?.to_str()?;
    Some((directory.to_str()?.to_owned(), format!("{name}/{file}")))
}

fn without(map: &BTreeMap<String, String>, leave_out: impl Fn(&&str) -> bool) -> BTreeMap<String, String> {
    let kept = map.iter().filter(|(key, _)| !leave_out(&key.as_str()));
    kept.map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn node_or(node: bool, other: NamespaceMode) -> i32 {
    (if node { NamespaceMode::Node } else { other }).into()
}

fn port(mapping: &PortMapping) -> proto::PortMapping {
    proto::PortMapping {
        protocol: match mapping.protocol.to_ascii_lowercase().as_str() {
            "udp" => 1,
            "sctp" => 2,
            _ => 0,
        },
        container_port: mapping.container_port.into(),
        host_port: mapping.host_port.into(),
        host_ip: mapping.host_ip.clone(),
    }
}

/// In a pod with its own users, a volume's files belong in there to whom they belong to outside, as with a kubelet.
fn mount(mount: &Mount, users: Option<UserRange>) -> proto::Mount {
    proto::Mount {
        container_path: mount.container_path.clone(),
        host_path: mount.host_path.clone(),
        readonly: mount.read_only,
        propagation: match mount.propagation {
            Propagation::Private => 0,
            Propagation::HostToContainer => 1,
            Propagation::Bidirectional => 2,
        },
        uid_mappings: mapping(users),
        gid_mappings: mapping(users),
        recursive_read_only: mount.recursive_read_only,
    }
}

fn device(device: &Device) -> proto::Device {
    proto::Device {
        container_path: device.container_path.clone(),
        host_path: device.host_path.clone(),
        permissions: device.permissions.clone(),
    }
}

fn users(users: Option<UserRange>) -> Option<proto::UserNamespace> {
    let mode = NamespaceMode::Pod.into();
    users.is_some().then(|| proto::UserNamespace { mode, uids: mapping(users), gids: mapping(users) })
}

fn mapping(users: Option<UserRange>) -> Vec<proto::IdMapping> {
    let one = |range: UserRange| proto::IdMapping { host_id: range.first, container_id: 0, length: range.count };
    users.map(one).into_iter().collect()
}

/// CRI has no limit of processes but that of cgroup v2 by its own name; elsewhere it is the pod's cgroup's.
fn resources(config: &ResourceConfig) -> proto::LinuxContainerResources {
    proto::LinuxContainerResources {
        cpu_period: config.cpu_period,
        cpu_quota: config.cpu_quota,
        cpu_shares: config.cpu_shares,
        memory_limit_in_bytes: config.memory_bytes,
        oom_score_adj: config.oom_score_adj,
        unified: BTreeMap::new(),
    }
}

fn security(config: &ContainerConfig) -> proto::LinuxContainerSecurityContext {
    let security = &config.security;
    let paths = |paths: &[&str]| -> Vec<String> {
        if security.unmasked_proc { vec![] } else { paths.iter().map(|path| (*path).to_owned()).collect() }
    };
    let (apparmor, apparmor_profile) = apparmor(&security.apparmor);
    let pid = if config.share_pid { NamespaceMode::Pod } else { NamespaceMode::Container };
    let pid = if config.pid_target.is_some() { NamespaceMode::Target.into() } else { node_or(config.host_pid, pid) };
    proto::LinuxContainerSecurityContext {
        capabilities: Some(proto::Capability {
            add_capabilities: security.add_capabilities.clone(),
            drop_capabilities: security.drop_capabilities.clone(),
        }),
        privileged: security.privileged,
        namespace_options: Some(proto::NamespaceOption {
            network: node_or(config.network == NetworkMode::Host, NamespaceMode::Pod),
            pid,
            ipc: node_or(config.host_ipc, NamespaceMode::Pod),
            target_id: config.pid_target.clone().unwrap_or_default(),
            userns_options: users(config.users),
        }),
        selinux_options: selinux(&security.selinux),
        run_as_user: security.user.map(|value| proto::Int64Value { value }),
        run_as_username: security.user_name.clone().filter(|_| security.user.is_none()).unwrap_or_default(),
        readonly_rootfs: security.read_only_root,
        supplemental_groups: security.supplemental_groups.clone(),
        apparmor_profile,
        no_new_privs: security.no_new_privileges,
        run_as_group: security.group.map(|value| proto::Int64Value { value }),
        masked_paths: paths(&MASKED_PATHS),
        readonly_paths: paths(&READONLY_PATHS),
        seccomp: Some(match &security.seccomp {
            Seccomp::RuntimeDefault => profile(ProfileType::RuntimeDefault, ""),
            Seccomp::Unconfined => profile(ProfileType::Unconfined, ""),
            Seccomp::Localhost(path) => profile(ProfileType::Localhost, path),
        }),
        apparmor,
    }
}

/// The profile, and the same in the words of older runtimes. Where nothing is said the runtime takes its own, if the
/// machine has AppArmor; named, that would be refused elsewhere.
fn apparmor(profile_of: &AppArmor) -> (Option<proto::SecurityProfile>, String) {
    match profile_of {
        AppArmor::RuntimeDefault => (None, String::new()),
        AppArmor::Unconfined => (Some(profile(ProfileType::Unconfined, "")), "unconfined".to_owned()),
        AppArmor::Localhost(name) => (Some(profile(ProfileType::Localhost, name)), format!("localhost/{name}")),
    }
}

fn profile(kind: ProfileType, localhost: &str) -> proto::SecurityProfile {
    proto::SecurityProfile { profile_type: kind.into(), localhost_ref: localhost.to_owned() }
}

/// `user:`, `role:`, `type:` and `level:`, as a message.
fn selinux(options: &[String]) -> Option<proto::SelinuxOption> {
    if options.is_empty() {
        return None;
    }
    let part = |name: &str| {
        let found = options.iter().find_map(|option| option.strip_prefix(name)?.strip_prefix(':'));
        found.unwrap_or_default().to_owned()
    };
    Some(proto::SelinuxOption { user: part("user"), role: part("role"), r#type: part("type"), level: part("level") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::runtime::container_config;

    #[test]
    fn a_pods_own_users_hold_for_its_sandbox_its_containers_and_their_mounts() {
        let mut config = container_config("o", "p", "c", 0, "x:1");
        let mount = |recursive_read_only| Mount {
            host_path: "/a".into(),
            container_path: "/b".into(),
            read_only: true,
            recursive_read_only,
            propagation: Propagation::Private,
        };
        config.mounts = vec![mount(false), mount(true)];
        let options = |made: &proto::ContainerConfig| {
            let security = made.linux.clone().unwrap().security_context.unwrap();
            security.namespace_options.unwrap().userns_options
        };
        let plain = container(&config);
        assert_eq!((options(&plain), plain.mounts[0].uid_mappings.len()), (None, 0), "nothing is said");
        config.users = Some(UserRange { first: 131_072, count: 65536 });
        let own = container(&config);
        let mapping = vec![proto::IdMapping { host_id: 131_072, container_id: 0, length: 65536 }];
        let expected = proto::UserNamespace { mode: 0, uids: mapping.clone(), gids: mapping.clone() };
        assert_eq!(options(&own), Some(expected));
        let seen: Vec<_> = own.mounts.iter().map(|one| (&one.uid_mappings, &one.gid_mappings)).collect();
        assert_eq!(seen, [(&mapping, &mapping), (&mapping, &mapping)]);
        assert_eq!(own.mounts.iter().map(|one| one.recursive_read_only).collect::<Vec<_>>(), [false, true]);
    }

    #[test]
    fn devices_are_handed_on() {
        let mut config = container_config("o", "p", "c", 0, "x:1");
        config.devices =
            vec![Device { host_path: "/dev/a".into(), container_path: "/dev/b".into(), permissions: "rwm".into() }];
        config.cdi_devices = vec!["vendor.com/gpu=one".into()];
        let made = container(&config);
        let device = &made.devices[0];
        let paths = (device.host_path.as_str(), device.container_path.as_str(), device.permissions.as_str());
        assert_eq!(paths, ("/dev/a", "/dev/b", "rwm"));
        assert_eq!(made.cdi_devices, [proto::CdiDevice { name: "vendor.com/gpu=one".into() }]);
        // The field of `ContainerConfig` in CRI is the 17th.
        let bytes = prost::Message::encode_to_vec(&proto::ContainerConfig {
            cdi_devices: made.cdi_devices,
            ..proto::ContainerConfig::default()
        });
        assert_eq!(bytes[..2], [17 << 3 | 2 | 0x80, 1]);
    }

    #[test]
    fn processes_are_the_containers_own_the_pods_the_machines_or_those_of_a_target() {
        let mut config = container_config("o", "p", "c", 0, "x:1");
        let of = |config: &ContainerConfig| {
            let options = security(config).namespace_options.unwrap();
            (options.pid, options.target_id)
        };
        assert_eq!(of(&config), (1, String::new()));
        config.share_pid = true;
        assert_eq!(of(&config), (0, String::new()));
        config.host_pid = true;
        assert_eq!(of(&config), (2, String::new()));
        config.pid_target = Some("main-id".into());
        assert_eq!(of(&config), (3, "main-id".to_owned()));
    }
}
