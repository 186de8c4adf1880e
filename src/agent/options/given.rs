//! The flags that the agent follows, as they are given.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::flag_shown::Shown;
use super::flag_value::Given;

/// Flags the agent follows, as given; None where not given. Values are checked by
/// [`super::resolve`]. A flag that is resolved together with others has a field of its own.
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
    /// `--healthz-port`; 0 for none.
    pub healthz_port: Option<u16>,
    /// `--healthz-bind-address`.
    pub healthz_bind_address: Option<String>,
    /// `--address`.
    pub address: Option<String>,
    /// `--read-only-port`; 0 for none.
    pub read_only_port: Option<u16>,
    /// `--serialize-image-pulls`.
    pub serialize_image_pulls: Option<bool>,
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
    /// Those that stand for one option alone, by name: a value each, of lists all that was given.
    pub followed: BTreeMap<&'static str, Given>,
    /// What was given of each flag, as [`Flags::shown`] has it.
    pub given: BTreeMap<&'static str, Shown>,
    /// Names of given flags that mean nothing to this agent, each once.
    pub ignored: Vec<String>,
}

/// Flags about the API server and the Node, as given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeFlags {
    /// `--kubeconfig`.
    pub kubeconfig: Option<PathBuf>,
    /// `--bootstrap-kubeconfig`.
    pub bootstrap_kubeconfig: Option<PathBuf>,
    /// `--cert-dir`.
    pub cert_dir: Option<PathBuf>,
    /// `--node-labels`, each as given: `name=value,name2=value2`.
    pub node_labels: Vec<String>,
    /// `--register-with-taints` as given last: `key=value:effect,...`.
    pub register_with_taints: Vec<String>,
    /// `--node-status-update-frequency`, in Go's form.
    pub node_status_update_frequency: Option<String>,
    /// `--system-reserved`: `cpu=100m,memory=1Gi`; several add up to one.
    pub system_reserved: Option<String>,
    /// `--kube-reserved`, the same.
    pub kube_reserved: Option<String>,
    /// `--eviction-hard`: `memory.available<100Mi,nodefs.available<10%`; several add up to one.
    pub eviction_hard: Option<String>,
}

/// Flags about the agent's own API, as given. `--address` is among the others, for it is the read-only port's too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerFlags {
    /// `--enable-server`.
    pub enable_server: Option<bool>,
    /// `--port`; 0 for none.
    pub port: Option<u16>,
    /// `--tls-cert-file`.
    pub tls_cert_file: Option<PathBuf>,
    /// `--tls-private-key-file`.
    pub tls_private_key_file: Option<PathBuf>,
    /// `--tls-min-version`.
    pub tls_min_version: Option<String>,
    /// `--anonymous-auth`.
    pub anonymous_auth: Option<bool>,
    /// `--client-ca-file`.
    pub client_ca_file: Option<PathBuf>,
    /// `--authentication-token-webhook`.
    pub token_webhook: Option<bool>,
    /// `--authentication-token-webhook-cache-ttl`, in Go's form.
    pub token_webhook_ttl: Option<String>,
    /// `--authorization-mode`.
    pub authorization_mode: Option<String>,
    /// `--authorization-webhook-cache-authorized-ttl`, in Go's form.
    pub authorized_ttl: Option<String>,
    /// `--authorization-webhook-cache-unauthorized-ttl`, in Go's form.
    pub unauthorized_ttl: Option<String>,
}
