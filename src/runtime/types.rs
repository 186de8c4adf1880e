//! What goes into and comes out of a runtime, in no runtime's own terms.

use std::collections::BTreeMap;

/// The kubelet's label keys (`pkg/kubelet/types/labels.go`), which `docker ps` and `crictl` show and adoption reads.
pub mod labels {
    /// Pod name with the node's suffix.
    pub const POD_NAME: &str = "io.kubernetes.pod.name";
    /// Pod namespace.
    pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
    /// Pod UID.
    pub const POD_UID: &str = "io.kubernetes.pod.uid";
    /// Container name; `POD` for the sandbox.
    pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
    /// dockershim: `podsandbox` or `container`.
    pub const DOCKER_TYPE: &str = "io.kubernetes.docker.type";
    /// dockershim: the sandbox a container belongs to; empty for a container without one.
    pub const SANDBOX_ID: &str = "io.kubernetes.sandbox.id";
    /// dockershim: the container's log file below /var/log/pods.
    pub const LOG_PATH: &str = "io.kubernetes.container.logpath";
    /// Ours: which agent the container belongs to (its root directory), so that two agents on a machine stay apart.
    pub const OWNER: &str = "dev.kubeboot.agent";
    /// Annotation: hash of what the container was made from.
    pub const CONTAINER_HASH: &str = "io.kubernetes.container.hash";
    /// Annotation: how often the container was restarted; equals the attempt in its name.
    pub const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
    /// Annotation: the pod's grace period in seconds, so that an orphan can be stopped as its manifest asked.
    pub const GRACE_PERIOD: &str = "io.kubernetes.pod.terminationGracePeriod";
    /// Annotation: the container's `preStop` handler as JSON, so that it runs also when the manifest is gone.
    pub const PRE_STOP: &str = "io.kubernetes.container.preStopHandler";
    /// Annotation: the container's ports as JSON, among which that handler may name one.
    pub const PORTS: &str = "io.kubernetes.container.ports";
    /// Ours, annotation of sidecars: how many groups of containers are stopped before it when its pod ends.
    pub const STOP_ORDER: &str = "dev.kubeboot.agent.stop-order";
    /// Ours, annotation: the port that the container shares with the one that is to replace it.
    pub const SHARED_PORT: &str = "dev.kubeboot.agent.shared-port";
    /// Annotation: path of the termination message in the container.
    pub const TERMINATION_MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
}

/// Name and versions of a runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeVersion {
    /// `docker`, `containerd`, ...
    pub name: String,
    /// The runtime's own version.
    pub version: String,
    /// The version of the protocol spoken with it.
    pub api_version: String,
}

/// Who pulls an image from a registry. Has no Debug: it holds a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// The user's name there.
    pub username: String,
    /// The password.
    pub password: String,
}

/// An image that the runtime has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredImage {
    /// By digest, then by tag.
    pub names: Vec<String>,
    /// Bytes on disk.
    pub size: u64,
}

/// What becomes of pods that are not on the host's network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PodNetwork {
    /// They get an address of the cluster's.
    Ready,
    /// They would, but the runtime says it cannot yet (`NetworkReady` of its status is false).
    NotReady {
        /// In one word: `NetworkPluginNotReady`.
        reason: String,
        /// In more: `cni plugin not initialized`.
        message: String,
    },
    /// The runtime knows no network of a cluster's: a Docker engine has its own bridge.
    #[default]
    Absent,
}

/// What some runtimes can and others cannot (`RuntimeHandlerFeatures` of CRI, of the default handler).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RuntimeFeatures {
    /// Pods with users of their own, volumes included.
    pub user_namespaces: bool,
    /// Read-only mounts that hold for what is mounted below them too.
    pub recursive_read_only: bool,
}

/// The users of a pod with a user namespace of its own: user and group 0 there are `first` of the machine's, and so on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserRange {
    /// The machine's id of the pod's root.
    pub first: u32,
    /// How many ids.
    pub count: u32,
}

/// Which pod and container something is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerName {
    /// Pod name with the node's suffix.
    pub pod: String,
    /// Pod namespace.
    pub namespace: String,
    /// Pod UID.
    pub uid: String,
    /// Container name, `POD` for the sandbox.
    pub container: String,
    /// Restart count; for a sandbox, how many came before it.
    pub attempt: u32,
}

/// dockershim's container name, which every tool that knows Kubernetes on Docker parses:
/// `k8s_<container>_<pod>_<namespace>_<uid>_<attempt>`.
impl std::fmt::Display for ContainerName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { pod, namespace, uid, container, attempt } = self;
        write!(f, "k8s_{container}_{pod}_{namespace}_{uid}_{attempt}")
    }
}

/// Whose network a container uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkMode {
    /// The machine's own.
    Host,
    /// The runtime's default network (a sandbox of a pod with its own address).
    Default,
    /// That of the sandbox with this id.
    Sandbox(String),
}

/// A pause container to make.
#[derive(Debug, Clone, PartialEq)]
pub struct SandboxConfig {
    /// Its identity; `container` is `POD`.
    pub name: ContainerName,
    /// The pause image.
    pub image: String,
    /// Host name; None under the host's network.
    pub hostname: Option<String>,
    /// Host or Default.
    pub network: NetworkMode,
    /// Ports to publish on the machine.
    pub ports: Vec<PortMapping>,
    /// Labels (the kubelet's, the pod's and the owner).
    pub labels: BTreeMap<String, String>,
    /// Annotations; Docker keeps them as labels with the prefix `annotation.`.
    pub annotations: BTreeMap<String, String>,
    /// Host's IPC namespace instead of the pod's.
    pub host_ipc: bool,
    /// Host's PID namespace.
    pub host_pid: bool,
    /// The pod's own users; None for the machine's.
    pub users: Option<UserRange>,
    /// Sysctls of the pod.
    pub sysctls: BTreeMap<String, String>,
    /// SELinux options, as in [`SecurityConfig::selinux`].
    pub selinux: Vec<String>,
    /// The cgroup to make it in; None leaves it to the runtime.
    pub cgroup_parent: Option<String>,
    /// How much of its log is kept.
    pub log: LogLimits,
    /// Adjustment of the OOM score; the runtime drops a negative one with a warning where the machine forbids it.
    pub oom_score_adj: i64,
    /// Which of the runtime's handlers runs it (`handler` of a RuntimeClass); empty for its own choice.
    pub runtime_handler: String,
    /// Where the logs of its containers are to be, for runtimes that write them there.
    pub log_directory: Option<String>,
    /// Whether one of its containers is privileged.
    pub privileged: bool,
}

/// `hostPort` of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortMapping {
    /// Port in the pod.
    pub container_port: u16,
    /// Port on the machine.
    pub host_port: u16,
    /// Address on the machine; empty for all.
    pub host_ip: String,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
}

/// Variables in order. A value may be any bytes: a secret's need be no UTF-8.
pub type Env = Vec<(String, Vec<u8>)>;

/// A container to make.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerConfig {
    /// Its identity.
    pub name: ContainerName,
    /// Image reference or id.
    pub image: String,
    /// ENTRYPOINT; empty keeps the image's.
    pub command: Vec<String>,
    /// CMD; with an empty command, empty keeps the image's.
    pub args: Vec<String>,
    /// Working directory; None keeps the image's.
    pub working_dir: Option<String>,
    /// Environment in order, `$(VAR)` already expanded.
    pub env: Vec<(String, Vec<u8>)>,
    /// Mounts.
    pub mounts: Vec<Mount>,
    /// Device files of the machine's.
    pub devices: Vec<Device>,
    /// Names of CDI devices (`vendor.com/class=name`), which the runtime knows by its own files.
    pub cdi_devices: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Network.
    pub network: NetworkMode,
    /// The sandbox, whose IPC (and, with `share_pid`, PID) namespace is joined; None for a pod that has none.
    pub sandbox: Option<String>,
    /// What that was made from, which some runtimes want to hear again.
    pub sandbox_config: Option<Box<SandboxConfig>>,
    /// Host's IPC namespace.
    pub host_ipc: bool,
    /// Host's PID namespace.
    pub host_pid: bool,
    /// The sandbox's PID namespace (`shareProcessNamespace`).
    pub share_pid: bool,
    /// The id of another container, whose PID namespace is joined whatever the other fields say.
    pub pid_target: Option<String>,
    /// As of [`SandboxConfig::users`], for the container and what is mounted in it.
    pub users: Option<UserRange>,
    /// User, groups, capabilities and the like.
    pub security: SecurityConfig,
    /// Limits.
    pub resources: ResourceConfig,
    /// The cgroup to make it in; None leaves it to the runtime.
    pub cgroup_parent: Option<String>,
    /// How much of its log is kept.
    pub log: LogLimits,
    /// Keep stdin open.
    pub stdin: bool,
    /// Close stdin after the first client left.
    pub stdin_once: bool,
    /// A terminal.
    pub tty: bool,
}

/// How much is kept of a container's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogLimits {
    /// Bytes at which a new file is begun.
    pub max_bytes: u64,
    /// Files, the live one included; at least 1.
    pub max_files: u32,
}

/// The kubelet's defaults.
impl Default for LogLimits {
    fn default() -> Self {
        Self { max_bytes: 10 << 20, max_files: 5 }
    }
}

/// How a runtime makes cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupDriver {
    /// It makes directories; a parent is a path.
    Cgroupfs,
    /// It asks systemd; a parent is the name of a slice.
    Systemd,
}

/// One bind mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Path on the machine.
    pub host_path: String,
    /// Path in the container.
    pub container_path: String,
    /// Read-only.
    pub read_only: bool,
    /// Read-only with all that is mounted below; only where the runtime can ([`RuntimeFeatures::recursive_read_only`]).
    pub recursive_read_only: bool,
    /// Propagation.
    pub propagation: Propagation,
}

/// One device file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Path on the machine.
    pub host_path: String,
    /// Path in the container.
    pub container_path: String,
    /// What the container may do with it: of `r`, `w` and `m` (mknod).
    pub permissions: String,
}

/// Mount propagation, in Kubernetes' words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Propagation {
    /// `None`.
    #[default]
    Private,
    /// `HostToContainer`.
    HostToContainer,
    /// `Bidirectional`.
    Bidirectional,
}

/// Who a container's processes are and what they may.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecurityConfig {
    /// `runAsUser`.
    pub user: Option<i64>,
    /// The image's user, where a group is asked for and the image names its user.
    pub user_name: Option<String>,
    /// `runAsGroup`.
    pub group: Option<i64>,
    /// `supplementalGroups` and `fsGroup`.
    pub supplemental_groups: Vec<i64>,
    /// `privileged`.
    pub privileged: bool,
    /// `capabilities.add`.
    pub add_capabilities: Vec<String>,
    /// `capabilities.drop`.
    pub drop_capabilities: Vec<String>,
    /// `readOnlyRootFilesystem`.
    pub read_only_root: bool,
    /// `allowPrivilegeEscalation: false`.
    pub no_new_privileges: bool,
    /// `procMount: Unmasked`.
    pub unmasked_proc: bool,
    /// Seccomp.
    pub seccomp: Seccomp,
    /// AppArmor.
    pub apparmor: AppArmor,
    /// SELinux: `user:`, `role:`, `type:` and `level:`, those that are set.
    pub selinux: Vec<String>,
}

/// An AppArmor profile.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum AppArmor {
    /// The runtime's default profile, where there is AppArmor.
    #[default]
    RuntimeDefault,
    /// None at all.
    Unconfined,
    /// A profile that is loaded on the machine.
    Localhost(String),
}

/// A seccomp profile.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Seccomp {
    /// The runtime's default profile.
    RuntimeDefault,
    /// None at all: what Kubernetes means by leaving the field out.
    #[default]
    Unconfined,
    /// A profile file on the machine.
    Localhost(String),
}

/// Limits of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResourceConfig {
    /// cpu.shares, at least 2.
    pub cpu_shares: i64,
    /// CFS quota in microseconds per period; 0 is unlimited.
    pub cpu_quota: i64,
    /// CFS period in microseconds; 0 leaves the runtime's.
    pub cpu_period: i64,
    /// Memory limit in bytes; 0 is unlimited.
    pub memory_bytes: i64,
    /// Limit of processes; 0 is unlimited.
    pub pids: i64,
    /// Adjustment of the OOM score.
    pub oom_score_adj: i64,
}
