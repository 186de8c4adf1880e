//! kubeadm's `v1beta4` documents as they are written. Only shapes and the type-level defaults; meaning comes later.
//!
//! The derives are the table of known fields: whatever is not here is an unknown field.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::EnvVarSource;
use schemars::JsonSchema;
use serde::Deserialize;

use super::durations::GoDuration;
use super::spec::{Arg, HostPathMount, PullPolicy};

mod join;
mod upgrade;

pub use join::*;
pub use upgrade::*;

/// `InitConfiguration`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct InitConfiguration {
    /// Tokens for nodes that join; one of kubeadm's defaults where there is none.
    pub bootstrap_tokens: Vec<BootstrapToken>,
    /// Only show what would be done.
    pub dry_run: bool,
    /// This node.
    pub node_registration: NodeRegistration,
    /// Where the API server of this node listens.
    #[serde(rename = "localAPIEndpoint")]
    pub local_api_endpoint: LocalApiEndpoint,
    /// Key that uploaded certificates are encrypted with, 64 hexadecimal digits; random where there is none.
    pub certificate_key: Secret,
    /// Phases to leave out, `GROUP` or `GROUP/PHASE`; `--skip-phases` counts in place of it.
    pub skip_phases: Vec<String>,
    /// Changes to what is written.
    pub patches: Patches,
    /// How long is waited.
    pub timeouts: Timeouts,
}

/// A text that no message may show.
#[derive(Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// One of `bootstrapTokens`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BootstrapToken {
    /// The token, 6 characters, a dot and 16 characters of a-z and 0-9; random where there is none.
    pub token: Secret,
    /// What it is for, in words for people.
    pub description: String,
    /// How long it lives; `0s` for ever. Excludes `expires`.
    pub ttl: Option<GoDuration>,
    /// When it ends, as RFC 3339 has it. Excludes `ttl`.
    pub expires: Option<String>,
    /// What it may be used for: signing, authentication.
    pub usages: Vec<String>,
    /// Groups of who shows it; each begins with `system:bootstrappers:`.
    pub groups: Vec<String>,
}

/// `nodeRegistration`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct NodeRegistration {
    /// Name of the node, a DNS subdomain; the host name in lower case where there is none.
    pub name: String,
    /// Socket of the container runtime, a `unix://` URL, which goes into the kubelet's settings.
    pub cri_socket: String,
    /// Taints of the node; kubeadm's for its role where there are none, `[]` for none at all.
    pub taints: Option<Vec<Taint>>,
    /// Arguments of the kubelet.
    pub kubelet_extra_args: Vec<Arg>,
    /// Checks whose errors are only warnings; `all` alone for every check. `--ignore-preflight-errors` adds to it.
    pub ignore_preflight_errors: Vec<String>,
    /// When images are pulled.
    pub image_pull_policy: PullPolicy,
    /// Taken for kubeadm's sake: images are pulled side by side.
    pub image_pull_serial: Option<bool>,
}

/// One of `nodeRegistration.taints`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Taint {
    /// Key.
    pub key: String,
    /// Value.
    #[serde(default)]
    pub value: Option<String>,
    /// NoSchedule, PreferNoSchedule or NoExecute.
    pub effect: String,
}

/// `localAPIEndpoint`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LocalApiEndpoint {
    /// Address that others reach this node at; the source address of the default route where there is none, or 0.0.0.0 or ::.
    pub advertise_address: String,
    /// Port of the API server.
    pub bind_port: Option<i32>,
}

/// `patches`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Patches {
    /// Directory of patches, `TARGET[SUFFIX][+TYPE].yaml` or `.json`.
    pub directory: String,
}

/// `timeouts`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Timeouts {
    /// How long the components of the control plane may take to become healthy.
    pub control_plane_component_health_check: Option<GoDuration>,
    /// How long the node agent may take to answer.
    pub kubelet_health_check: Option<GoDuration>,
    /// How long one request to the API server may be repeated.
    #[serde(rename = "kubernetesAPICall")]
    pub kubernetes_api_call: Option<GoDuration>,
    /// How long etcd may take to answer.
    #[serde(rename = "etcdAPICall")]
    pub etcd_api_call: Option<GoDuration>,
    /// How long the kubelet of a joining node may take to get its certificate.
    pub tls_bootstrap: Option<GoDuration>,
    /// How long a joining node may look for the cluster.
    pub discovery: Option<GoDuration>,
    /// How long one replaced static pod may take to be healthy.
    pub upgrade_manifests: Option<GoDuration>,
}

/// `ClusterConfiguration`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ClusterConfiguration {
    /// Where etcd is; local where nothing is said.
    pub etcd: Etcd,
    /// Networks of services and pods.
    pub networking: Networking,
    /// Version to run, or a label: `stable`, `latest`, `stable-1` and `latest-1` are the newest release that this
    /// program knows, `stable-1.N` and `latest-1.N` the newest of that minor. No server is asked.
    pub kubernetes_version: String,
    /// Name or address that all control-plane nodes share, with or without a port.
    pub control_plane_endpoint: String,
    /// kube-apiserver.
    pub api_server: ApiServer,
    /// kube-controller-manager.
    pub controller_manager: Component,
    /// kube-scheduler.
    pub scheduler: Component,
    /// CoreDNS.
    pub dns: Dns,
    /// kube-proxy.
    pub proxy: Proxy,
    /// Directory of the certificates.
    pub certificates_dir: String,
    /// Repository that images are taken from.
    pub image_repository: String,
    /// kubeadm's feature gates.
    pub feature_gates: BTreeMap<String, bool>,
    /// Name of the cluster in kubeconfigs.
    pub cluster_name: String,
    /// Keys of certificates: RSA-2048, RSA-3072, RSA-4096, ECDSA-P256 or ECDSA-P384.
    pub encryption_algorithm: String,
    /// How long certificates are valid.
    pub certificate_validity_period: Option<GoDuration>,
    /// How long CAs are valid.
    pub ca_certificate_validity_period: Option<GoDuration>,
}

/// `networking`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Networking {
    /// Network of the services, or two of different families separated by a comma.
    pub service_subnet: String,
    /// Network of the pods, or two of different families separated by a comma; none leaves pods' addresses to the
    /// network plugin.
    pub pod_subnet: String,
    /// Domain of the services.
    pub dns_domain: String,
}

/// `etcd`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Etcd {
    /// etcd as a static pod of this node. Excludes `external`.
    pub local: Option<LocalEtcd>,
    /// An external etcd. Excludes `local`.
    pub external: Option<ExternalEtcd>,
}

/// `etcd.local`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LocalEtcd {
    /// Repository of etcd's image; the cluster's where there is none.
    pub image_repository: String,
    /// Tag of etcd's image; that of the Kubernetes release where there is none.
    pub image_tag: String,
    /// Directory of etcd's data.
    pub data_dir: String,
    /// Arguments of etcd.
    pub extra_args: Vec<Arg>,
    /// Environment variables of etcd.
    pub extra_envs: Vec<EnvVar>,
    /// More names and addresses for etcd's serving certificate.
    #[serde(rename = "serverCertSANs")]
    pub server_cert_sans: Vec<String>,
    /// More names and addresses for etcd's peer certificate.
    #[serde(rename = "peerCertSANs")]
    pub peer_cert_sans: Vec<String>,
}

/// `etcd.external`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ExternalEtcd {
    /// URLs of etcd; `https` where a TLS file is given.
    pub endpoints: Vec<String>,
    /// Taken for kubeadm's sake: `endpoints` are asked.
    pub http_endpoints: Vec<String>,
    /// CA of etcd's servers.
    pub ca_file: String,
    /// Client certificate; with `keyFile` and `caFile` only.
    pub cert_file: String,
    /// Key of the client certificate.
    pub key_file: String,
}

/// `apiServer`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ApiServer {
    /// Arguments; one of the same name as a default replaces it.
    pub extra_args: Vec<Arg>,
    /// Paths of the host that are mounted.
    pub extra_volumes: Vec<HostPathMount>,
    /// Environment variables.
    pub extra_envs: Vec<EnvVar>,
    /// More names and addresses for the serving certificate.
    #[serde(rename = "certSANs")]
    pub cert_sans: Vec<String>,
}

/// `controllerManager` and `scheduler`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Component {
    /// Arguments; one of the same name as a default replaces it.
    pub extra_args: Vec<Arg>,
    /// Paths of the host that are mounted.
    pub extra_volumes: Vec<HostPathMount>,
    /// Environment variables.
    pub extra_envs: Vec<EnvVar>,
}

/// One of `extraEnvs`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnvVar {
    /// Name.
    pub name: String,
    /// Value; excludes `valueFrom`.
    #[serde(default)]
    pub value: Option<String>,
    /// Source of the value, as in a Pod.
    #[serde(default)]
    #[schemars(with = "Option<serde_json::Map<String, serde_json::Value>>")]
    pub value_from: Option<EnvVarSource>,
}

/// `dns`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Dns {
    /// Repository of CoreDNS' image; the cluster's where there is none.
    pub image_repository: String,
    /// Tag of CoreDNS' image; that of the Kubernetes release where there is none.
    pub image_tag: String,
    /// Leave CoreDNS out.
    pub disabled: bool,
}

/// `proxy`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Proxy {
    /// Leave kube-proxy out.
    pub disabled: bool,
}
