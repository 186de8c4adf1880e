//! The kubelet's flags: those the agent follows, each with how it is read and what it sets.
//!
//! One table for the command line and for code that has to know beforehand whether an agent will take some flags
//! ([`Flags::read`]).

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::flag_shown::Shown;
use super::flag_value::{Given, Kind};
use super::ignored_flags::IGNORED;
use super::{NodeFlags, OptionsError, ServerFlags, wrong};

/// Flags the agent follows, as given; None where not given. Values are checked by [`super::resolve`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags {
    /// `--pod-manifest-path`.
    pub pod_manifest_path: Option<PathBuf>,
    /// `--manifest-url`.
    pub manifest_url: Option<String>,
    /// `--manifest-url-header`, each as given: `name:value,name2:value2`.
    pub manifest_url_headers: Vec<String>,
    /// `--hostname-override`.
    pub hostname_override: Option<String>,
    /// `--root-dir`.
    pub root_dir: Option<PathBuf>,
    /// `--file-check-frequency`, in Go's form.
    pub file_check_frequency: Option<String>,
    /// `--http-check-frequency`, in Go's form.
    pub http_check_frequency: Option<String>,
    /// `--sync-frequency`, in Go's form.
    pub sync_frequency: Option<String>,
    /// `--healthz-port`; 0 for none.
    pub healthz_port: Option<u16>,
    /// `--healthz-bind-address`.
    pub healthz_bind_address: Option<String>,
    /// `--address`.
    pub address: Option<String>,
    /// `--read-only-port`; 0 for none.
    pub read_only_port: Option<u16>,
    /// `--container-log-max-size`, a quantity.
    pub container_log_max_size: Option<String>,
    /// `--container-log-max-files`.
    pub container_log_max_files: Option<i64>,
    /// `--cgroups-per-qos`.
    pub cgroups_per_qos: Option<bool>,
    /// `--cgroup-root`.
    pub cgroup_root: Option<String>,
    /// `--pod-max-pids`; 0 and less for no limit.
    pub pod_max_pids: Option<i64>,
    /// `--serialize-image-pulls`.
    pub serialize_image_pulls: Option<bool>,
    /// `--pod-infra-container-image`.
    pub pod_infra_container_image: Option<String>,
    /// `--allowed-unsafe-sysctls`.
    pub allowed_unsafe_sysctls: Vec<String>,
    /// `--cluster-dns`.
    pub cluster_dns: Vec<String>,
    /// `--cluster-domain`.
    pub cluster_domain: Option<String>,
    /// `--resolv-conf`.
    pub resolv_conf: Option<String>,
    /// `--oom-score-adj`.
    pub oom_score_adj: Option<i32>,
    /// `--seccomp-default`.
    pub seccomp_default: Option<bool>,
    /// `--cpu-cfs-quota`.
    pub cpu_cfs_quota: Option<bool>,
    /// `--cpu-cfs-quota-period`, in Go's form.
    pub cpu_cfs_quota_period: Option<String>,
    /// `--control-socket`, ours.
    pub control_socket: Option<PathBuf>,
    /// `--docker-host`, ours.
    pub docker_host: Option<String>,
    /// Those about the API server and the Node.
    pub node: NodeFlags,
    /// Those about the agent's own API.
    pub server: ServerFlags,
    /// `--container-runtime-endpoint`.
    pub container_runtime_endpoint: Option<String>,
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--config-dir`.
    pub config_dir: Option<PathBuf>,
    /// `--version`: that is printed, and nothing is run.
    pub version: bool,
    /// `--feature-gates`, each as given: `Name=true,Other=false`.
    pub feature_gates: Vec<String>,
    /// What was given of each flag, as [`Flags::shown`] has it.
    pub given: BTreeMap<&'static str, Shown>,
    /// Names of given flags that mean nothing to this agent, each once.
    pub ignored: Vec<String>,
}

/// One flag.
pub struct FlagRow {
    /// Its name, without dashes before it.
    pub name: &'static str,
    /// How its value is read.
    pub kind: Kind,
    /// What it is to this agent.
    pub role: Role,
}

/// What a flag is to this agent.
#[derive(Clone, Copy)]
pub enum Role {
    /// It is followed: this sets it.
    Followed(fn(&mut Flags, Given)),
    /// It is one of every command of this program, which reads it.
    Global,
    /// It is taken, because a unit or `KUBELET_KUBEADM_ARGS` may carry it, and named in one log line.
    Ignored,
}

const fn row(name: &'static str, kind: Kind, set: fn(&mut Flags, Given)) -> FlagRow {
    FlagRow { name, kind, role: Role::Followed(set) }
}

const fn global(name: &'static str, kind: Kind) -> FlagRow {
    FlagRow { name, kind, role: Role::Global }
}

/// A value that adds to what was given before.
fn join(to: &mut Option<String>, more: Given) {
    let Some(more) = more.text() else { return };
    *to = Some(match to.take() {
        Some(before) => format!("{before},{more}"),
        None => more,
    });
}

fn path(given: Given) -> Option<PathBuf> {
    given.text().map(PathBuf::from)
}

/// The flags that are followed. Of several of a kind that holds one value the last counts.
const FOLLOWED: &[FlagRow] = &[
    row("address", Kind::Ip, |flags, given| flags.address = given.text()),
    row("allowed-unsafe-sysctls", Kind::List, |flags, given| flags.allowed_unsafe_sysctls.extend(given.list())),
    row("anonymous-auth", Kind::Bool, |flags, given| flags.server.anonymous_auth = given.boolean()),
    row("authentication-token-webhook", Kind::Bool, |flags, given| flags.server.token_webhook = given.boolean()),
    row("authentication-token-webhook-cache-ttl", Kind::Duration, |flags, given| {
        flags.server.token_webhook_ttl = given.text()
    }),
    row("authorization-mode", Kind::Text, |flags, given| flags.server.authorization_mode = given.text()),
    row("authorization-webhook-cache-authorized-ttl", Kind::Duration, |flags, given| {
        flags.server.authorized_ttl = given.text()
    }),
    row("authorization-webhook-cache-unauthorized-ttl", Kind::Duration, |flags, given| {
        flags.server.unauthorized_ttl = given.text()
    }),
    row("bootstrap-kubeconfig", Kind::Path, |flags, given| flags.node.bootstrap_kubeconfig = path(given)),
    row("cert-dir", Kind::Path, |flags, given| flags.node.cert_dir = path(given)),
    row("cgroup-root", Kind::Text, |flags, given| flags.cgroup_root = given.text()),
    row("cgroups-per-qos", Kind::Bool, |flags, given| flags.cgroups_per_qos = given.boolean()),
    row("client-ca-file", Kind::Path, |flags, given| flags.server.client_ca_file = path(given)),
    row("cluster-dns", Kind::List, |flags, given| flags.cluster_dns.extend(given.list())),
    row("cluster-domain", Kind::Text, |flags, given| flags.cluster_domain = given.text()),
    row("config", Kind::Path, |flags, given| flags.config = path(given)),
    row("config-dir", Kind::Path, |flags, given| flags.config_dir = path(given)),
    row("container-log-max-files", Kind::Int, |flags, given| flags.container_log_max_files = given.number()),
    row("container-log-max-size", Kind::Text, |flags, given| flags.container_log_max_size = given.text()),
    row("container-runtime-endpoint", Kind::Text, |flags, given| flags.container_runtime_endpoint = given.text()),
    row("control-socket", Kind::Path, |flags, given| flags.control_socket = path(given)),
    row("cpu-cfs-quota", Kind::Bool, |flags, given| flags.cpu_cfs_quota = given.boolean()),
    row("cpu-cfs-quota-period", Kind::Duration, |flags, given| flags.cpu_cfs_quota_period = given.text()),
    row("docker-host", Kind::Text, |flags, given| flags.docker_host = given.text()),
    row("enable-debugging-handlers", Kind::Bool, |flags, given| flags.server.debugging_handlers = given.boolean()),
    row("enable-server", Kind::Bool, |flags, given| flags.server.enable_server = given.boolean()),
    row("eviction-hard", Kind::Thresholds, |flags, given| join(&mut flags.node.eviction_hard, given)),
    row("feature-gates", Kind::Gates, |flags, given| flags.feature_gates.extend(given.text())),
    row("file-check-frequency", Kind::Duration, |flags, given| flags.file_check_frequency = given.text()),
    row("healthz-bind-address", Kind::Ip, |flags, given| flags.healthz_bind_address = given.text()),
    row("healthz-port", Kind::Port, |flags, given| flags.healthz_port = given.port()),
    row("hostname-override", Kind::Text, |flags, given| flags.hostname_override = given.text()),
    row("http-check-frequency", Kind::Duration, |flags, given| flags.http_check_frequency = given.text()),
    row("kube-reserved", Kind::Map, |flags, given| join(&mut flags.node.kube_reserved, given)),
    row("kubeconfig", Kind::Path, |flags, given| flags.node.kubeconfig = path(given)),
    row("manifest-url", Kind::Secret, |flags, given| flags.manifest_url = given.text()),
    row("manifest-url-header", Kind::Headers, |flags, given| flags.manifest_url_headers.extend(given.list())),
    row("max-pods", Kind::Int, |flags, given| flags.node.max_pods = given.number()),
    row("node-ip", Kind::Text, |flags, given| flags.node.node_ip = given.text()),
    row("node-labels", Kind::Labels, |flags, given| flags.node.node_labels.extend(given.list())),
    row("node-status-max-images", Kind::Int, |flags, given| flags.node.node_status_max_images = given.number()),
    row("node-status-update-frequency", Kind::Duration, |flags, given| {
        flags.node.node_status_update_frequency = given.text()
    }),
    row("oom-score-adj", Kind::Int, |flags, given| {
        flags.oom_score_adj = given.number().and_then(|score| i32::try_from(score).ok())
    }),
    row("pod-infra-container-image", Kind::Text, |flags, given| flags.pod_infra_container_image = given.text()),
    row("pod-manifest-path", Kind::Path, |flags, given| flags.pod_manifest_path = path(given)),
    row("pod-max-pids", Kind::Int64, |flags, given| flags.pod_max_pids = given.number()),
    row("port", Kind::Port, |flags, given| flags.server.port = given.port()),
    row("provider-id", Kind::Text, |flags, given| flags.node.provider_id = given.text()),
    row("read-only-port", Kind::Port, |flags, given| flags.read_only_port = given.port()),
    row("register-node", Kind::Bool, |flags, given| flags.node.register_node = given.boolean()),
    row("register-with-taints", Kind::Taints, |flags, given| flags.node.register_with_taints = given.list()),
    row("resolv-conf", Kind::Text, |flags, given| flags.resolv_conf = given.text()),
    row("root-dir", Kind::Path, |flags, given| flags.root_dir = path(given)),
    row("rotate-certificates", Kind::Bool, |flags, given| flags.node.rotate_certificates = given.boolean()),
    row("rotate-server-certificates", Kind::Bool, |flags, given| {
        flags.node.rotate_server_certificates = given.boolean()
    }),
    row("seccomp-default", Kind::Bool, |flags, given| flags.seccomp_default = given.boolean()),
    row("serialize-image-pulls", Kind::Bool, |flags, given| flags.serialize_image_pulls = given.boolean()),
    row("streaming-connection-idle-timeout", Kind::Duration, |flags, given| flags.server.idle_timeout = given.text()),
    row("sync-frequency", Kind::Duration, |flags, given| flags.sync_frequency = given.text()),
    row("system-reserved", Kind::Map, |flags, given| join(&mut flags.node.system_reserved, given)),
    row("tls-cert-file", Kind::Path, |flags, given| flags.server.tls_cert_file = path(given)),
    row("tls-cipher-suites", Kind::List, |flags, given| flags.server.tls_cipher_suites.extend(given.list())),
    row("tls-min-version", Kind::Text, |flags, given| flags.server.tls_min_version = given.text()),
    row("tls-private-key-file", Kind::Path, |flags, given| flags.server.tls_private_key_file = path(given)),
    row("version", Kind::Version, |flags, given| {
        flags.version = matches!(given.text().as_deref(), Some("1" | "t" | "T" | "true" | "TRUE" | "True" | "raw"));
    }),
];

/// Those that every command has.
const GLOBAL: &[FlagRow] = &[global("help", Kind::Bool), global("v", Kind::Level), global("vmodule", Kind::Text)];

/// Every flag that is known.
pub fn all() -> impl Iterator<Item = &'static FlagRow> {
    FOLLOWED.iter().chain(GLOBAL).chain(IGNORED)
}

impl Flags {
    /// Takes in what is given of a flag.
    pub fn set(&mut self, row: &FlagRow, given: Given) {
        self.given.entry(row.name).or_default().add(row.kind, &given);
        match row.role {
            Role::Followed(set) => set(self, given),
            Role::Ignored if given != Given::Nothing && !self.ignored.iter().any(|name| name == row.name) => {
                self.ignored.push(row.name.to_owned());
            }
            Role::Ignored | Role::Global => {}
        }
    }

    /// The flags that were given with their values, as a kubelet's `/flagz` shows them: without what may be a password.
    pub fn shown(&self) -> BTreeMap<String, String> {
        self.given.iter().map(|(name, shown)| ((*name).to_owned(), shown.to_string())).collect()
    }

    /// Reads flags as the command line does, each with its name without dashes and its value.
    ///
    /// # Errors
    /// All that is wrong with them: names that no kubelet has, and values that the flag cannot have.
    pub fn read<'a>(given: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, Vec<OptionsError>> {
        let (mut flags, mut faults) = (Self::default(), Vec::new());
        for (name, value) in given {
            let dashed = name.replace('_', "-");
            match all().find(|row| row.name == dashed) {
                None => faults.push(OptionsError::UnknownFlag { name: name.to_owned() }),
                Some(row) => match row.kind.read(value) {
                    Ok(given) => flags.set(row, given),
                    Err(problem) if matches!(row.kind, Kind::Headers | Kind::Secret) => {
                        faults.push(OptionsError::Hidden { setting: format!("--{dashed}"), problem });
                    }
                    Err(problem) => faults.push(wrong(&format!("--{dashed}"), value, problem)),
                },
            }
        }
        if faults.is_empty() { Ok(flags) } else { Err(faults) }
    }
}
