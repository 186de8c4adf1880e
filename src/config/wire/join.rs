//! `JoinConfiguration` and `ResetConfiguration`.

use serde::Deserialize;

use super::{LocalApiEndpoint, NodeRegistration, Patches, Secret, Timeouts};

/// `JoinConfiguration`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct JoinConfiguration {
    pub dry_run: bool,
    pub node_registration: NodeRegistration,
    pub ca_cert_path: String,
    pub discovery: Discovery,
    pub control_plane: Option<JoinControlPlane>,
    pub skip_phases: Vec<String>,
    pub patches: Patches,
    pub timeouts: Timeouts,
}

/// `discovery`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Discovery {
    pub bootstrap_token: Option<BootstrapTokenDiscovery>,
    pub file: Option<FileDiscovery>,
    pub tls_bootstrap_token: Secret,
}

/// `discovery.bootstrapToken`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BootstrapTokenDiscovery {
    pub token: Secret,
    pub api_server_endpoint: String,
    pub ca_cert_hashes: Vec<String>,
    #[serde(rename = "unsafeSkipCAVerification")]
    pub unsafe_skip_ca_verification: bool,
}

/// `discovery.file`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct FileDiscovery {
    pub kube_config_path: String,
}

/// `controlPlane`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct JoinControlPlane {
    #[serde(rename = "localAPIEndpoint")]
    pub local_api_endpoint: LocalApiEndpoint,
    pub certificate_key: Secret,
}

/// `ResetConfiguration`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ResetConfiguration {
    pub certificates_dir: String,
    pub cleanup_tmp_dir: bool,
    pub cri_socket: String,
    pub dry_run: bool,
    pub force: bool,
    pub ignore_preflight_errors: Vec<String>,
    pub skip_phases: Vec<String>,
    pub unmount_flags: Vec<String>,
    pub timeouts: Timeouts,
}
