//! `JoinConfiguration` and `ResetConfiguration`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{LocalApiEndpoint, NodeRegistration, Patches, Secret, Timeouts};

/// `JoinConfiguration`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct JoinConfiguration {
    /// Only show what would be done.
    pub dry_run: bool,
    /// This node.
    pub node_registration: NodeRegistration,
    /// Where the cluster's CA is written; ends in `.crt`.
    pub ca_cert_path: String,
    /// How the cluster is found and trusted.
    pub discovery: Discovery,
    /// Makes this node one of the control plane; a worker without it.
    pub control_plane: Option<JoinControlPlane>,
    /// Phases to leave out; `--skip-phases` counts in place of it.
    pub skip_phases: Vec<String>,
    /// Changes to what is written.
    pub patches: Patches,
    /// How long is waited.
    pub timeouts: Timeouts,
}

/// `discovery`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Discovery {
    /// By the cluster's public information, signed with a token. Excludes `file`.
    pub bootstrap_token: Option<BootstrapTokenDiscovery>,
    /// By a kubeconfig. Excludes `bootstrapToken`.
    pub file: Option<FileDiscovery>,
    /// Token that the kubelet asks for its certificate with; that of `bootstrapToken` where there is none.
    pub tls_bootstrap_token: Secret,
}

/// `discovery.bootstrapToken`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BootstrapTokenDiscovery {
    /// The token.
    pub token: Secret,
    /// `HOST:PORT` of an API server.
    pub api_server_endpoint: String,
    /// Hashes of the cluster's CA, `sha256:HEX`: it must match one of them.
    pub ca_cert_hashes: Vec<String>,
    /// Trust any CA that a holder of the token presents.
    #[serde(rename = "unsafeSkipCAVerification")]
    pub unsafe_skip_ca_verification: bool,
}

/// `discovery.file`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct FileDiscovery {
    /// Path or https URL of a kubeconfig.
    pub kube_config_path: String,
}

/// `controlPlane`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct JoinControlPlane {
    /// Where the API server of this node listens.
    #[serde(rename = "localAPIEndpoint")]
    pub local_api_endpoint: LocalApiEndpoint,
    /// Key that the uploaded certificates were encrypted with.
    pub certificate_key: Secret,
}

/// `ResetConfiguration`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ResetConfiguration {
    /// Directory of the certificates.
    pub certificates_dir: String,
    /// Empty /etc/kubernetes/tmp too.
    pub cleanup_tmp_dir: bool,
    /// Socket of the container runtime, a `unix://` URL.
    pub cri_socket: String,
    /// Only show what would be done.
    pub dry_run: bool,
    /// Do not ask.
    pub force: bool,
    /// Checks whose errors are only warnings.
    pub ignore_preflight_errors: Vec<String>,
    /// Phases to leave out.
    pub skip_phases: Vec<String>,
    /// How to unmount: MNT_FORCE, MNT_DETACH, MNT_EXPIRE, UMOUNT_NOFOLLOW.
    pub unmount_flags: Vec<String>,
    /// How long is waited.
    pub timeouts: Timeouts,
}
