//! [`ClusterSpec`]: the one resolved, validated value that everything else takes.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{EnvVar, Taint};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bootstrap_token::{BootstrapToken, Lifetime, Token};
use super::certificate_key::CertificateKey;
use crate::release::KubernetesVersion;

mod join;
mod overrides;
mod upgrade;

pub use join::*;
pub use overrides::Overrides;
pub use upgrade::*;

/// Everything `init`, `upgrade` and `manifests` need to know, with every default filled in and every value checked.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterSpec {
    /// The version to run; never a label such as `stable-1`.
    pub kubernetes_version: KubernetesVersion,
    /// `clusterName`, which names contexts and clusters in kubeconfigs.
    pub cluster_name: String,
    /// This machine.
    pub node: NodeSpec,
    /// `controlPlaneEndpoint`, its port filled in from `bindPort`.
    pub control_plane_endpoint: Option<Endpoint>,
    /// `certificatesDir`, as the node sees it.
    pub certificates_dir: PathBuf,
    /// Where kubeconfigs are written, as the node sees it: `/etc/kubernetes`, or `--kubeconfig-dir` of a phase.
    pub kubeconfig_dir: PathBuf,
    /// `imageRepository`.
    pub image_repository: String,
    /// Networks of services and pods.
    pub networking: Networking,
    /// Where etcd is.
    pub etcd: EtcdSpec,
    /// kube-apiserver.
    pub api_server: ComponentSpec,
    /// `apiServer.certSANs`.
    pub api_server_cert_sans: Vec<String>,
    /// kube-controller-manager.
    pub controller_manager: ComponentSpec,
    /// kube-scheduler.
    pub scheduler: ComponentSpec,
    /// `encryptionAlgorithm`.
    pub key_algorithm: KeyAlgorithm,
    /// `certificateValidityPeriod`.
    pub certificate_validity: Duration,
    /// `caCertificateValidityPeriod`.
    pub ca_certificate_validity: Duration,
    /// `patches.directory` or `--patches`.
    pub patches_dir: Option<PathBuf>,
    /// `timeouts`.
    pub timeouts: Timeouts,
    /// `skipPhases` or `--skip-phases`.
    pub skip_phases: Vec<String>,
    /// `featureGates`.
    pub feature_gates: Vec<(String, bool)>,
    /// `bootstrapTokens`; never empty.
    pub bootstrap_tokens: Vec<TokenSpec>,
    /// `certificateKey`; None makes one when certificates are uploaded.
    pub certificate_key: Option<CertificateKey>,
    /// `--upload-certs`.
    pub upload_certs: bool,
    /// What is not printed in the end.
    pub hide_secrets: HideSecrets,
    /// `dns`.
    pub dns: DnsSpec,
    /// `proxy`.
    pub proxy: ProxySpec,
    /// The user's KubeProxyConfiguration document as written, without defaults (an empty object when there is none).
    pub kube_proxy: serde_json::Value,
    /// The user's KubeletConfiguration document as written, without defaults (an empty object when there is none).
    pub kubelet: serde_json::Value,
    /// Our own document.
    pub kubeboot: KubebootSpec,
}

impl ClusterSpec {
    /// The API server of this very node, `https://ADVERTISE:PORT`.
    pub fn local_endpoint(&self) -> Endpoint {
        Endpoint { host: self.node.advertise_address.to_string(), port: self.node.bind_port }
    }

    /// What clients outside use: `controlPlaneEndpoint`, else the local endpoint.
    pub fn shared_endpoint(&self) -> Endpoint {
        self.control_plane_endpoint.clone().unwrap_or_else(|| self.local_endpoint())
    }

    /// The address on which components of an IPv6 or IPv4 node talk to themselves.
    pub fn loopback(&self) -> &'static str {
        if self.node.advertise_address.is_ipv6() { "::1" } else { "127.0.0.1" }
    }
}

/// This machine's part of the configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeSpec {
    /// `nodeRegistration.name`: lower case, a DNS subdomain.
    pub name: String,
    /// The operating system's host name; `--hostname-override` is needed where it differs from `name`.
    pub hostname: String,
    /// `localAPIEndpoint.advertiseAddress`.
    pub advertise_address: IpAddr,
    /// `localAPIEndpoint.bindPort`.
    pub bind_port: u16,
    /// `nodeRegistration.criSocket`, a `unix://` URL; None when the configuration named none.
    pub cri_socket: Option<String>,
    /// `nodeRegistration.taints`: None means kubeadm's default taint.
    pub taints: Option<Vec<Taint>>,
    /// `nodeRegistration.kubeletExtraArgs`, in order.
    pub kubelet_extra_args: Vec<Arg>,
    /// `nodeRegistration.ignorePreflightErrors` and the flag, merged, lower case.
    pub ignore_preflight_errors: Vec<String>,
    /// `nodeRegistration.imagePullPolicy`.
    pub image_pull_policy: PullPolicy,
}

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// A DNS name or an address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl std::fmt::Display for Endpoint {
    /// `host:port`, IPv6 addresses in brackets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// `networking`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Networking {
    /// One network, or two of different families; never empty.
    pub service_subnets: Vec<IpNet>,
    /// None, one, or two of different families.
    pub pod_subnets: Vec<IpNet>,
    /// `dnsDomain`.
    pub dns_domain: String,
}

/// Which etcd the API server uses.
#[derive(Debug, Clone, PartialEq)]
pub enum EtcdSpec {
    /// A static pod on this node.
    Local(LocalEtcd),
    /// An external one.
    External(ExternalEtcd),
}

impl EtcdSpec {
    /// The local etcd, if that is where it is.
    pub fn local(&self) -> Option<&LocalEtcd> {
        match self {
            Self::Local(local) => Some(local),
            Self::External(_) => None,
        }
    }
}

/// `etcd.local`.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalEtcd {
    /// `dataDir`, as the node sees it.
    pub data_dir: PathBuf,
    /// Own repository, else the cluster's.
    pub image_repository: Option<String>,
    /// Own tag, else the release's.
    pub image_tag: Option<String>,
    /// `extraArgs` and `extraEnvs`.
    pub component: ComponentSpec,
    /// `serverCertSANs`.
    pub server_cert_sans: Vec<String>,
    /// `peerCertSANs`.
    pub peer_cert_sans: Vec<String>,
}

/// `etcd.external`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalEtcd {
    /// `endpoints`, URLs.
    pub endpoints: Vec<String>,
    /// `httpEndpoints`, where HTTP is asked of other ones than `endpoints`; empty for the same.
    pub http_endpoints: Vec<String>,
    /// `caFile`.
    pub ca_file: Option<PathBuf>,
    /// `certFile`.
    pub cert_file: Option<PathBuf>,
    /// `keyFile`.
    pub key_file: Option<PathBuf>,
}

/// What a user may add to one component.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ComponentSpec {
    /// `extraArgs`, in the user's order, duplicates kept.
    pub extra_args: Vec<Arg>,
    /// `extraVolumes`.
    pub extra_volumes: Vec<HostPathMount>,
    /// `extraEnvs`.
    pub extra_envs: Vec<EnvVar>,
}

/// The value that counts where a flag may stand more than once: the last.
pub fn last_arg<'a>(args: &'a [Arg], name: &str) -> Option<&'a str> {
    args.iter().rev().find(|arg| arg.name == name).map(|arg| arg.value.as_str())
}

/// One `--name=value`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Arg {
    /// Without dashes.
    pub name: String,
    /// May be empty.
    #[serde(default)]
    pub value: String,
}

/// One of `extraVolumes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostPathMount {
    /// Volume name.
    pub name: String,
    /// Path on the node.
    pub host_path: String,
    /// Path in the container.
    pub mount_path: String,
    /// Mounted read-only.
    #[serde(default)]
    pub read_only: bool,
    /// hostPath type, empty for none.
    #[serde(default)]
    pub path_type: String,
}

/// `encryptionAlgorithm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyAlgorithm {
    /// `RSA-2048`, kubeadm's default.
    Rsa2048,
    /// `RSA-3072`.
    Rsa3072,
    /// `RSA-4096`.
    Rsa4096,
    /// `ECDSA-P256`, ours: as strong as RSA-3072 and made in a millisecond.
    #[default]
    EcdsaP256,
    /// `ECDSA-P384`.
    EcdsaP384,
}

/// `imagePullPolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum PullPolicy {
    /// Ask the registry each time.
    Always,
    /// Pull what is missing.
    #[default]
    IfNotPresent,
    /// Never ask a registry.
    Never,
}

/// One of `bootstrapTokens`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSpec {
    /// `token`; None makes one at random.
    pub token: Option<Token>,
    /// `description`.
    pub description: String,
    /// `ttl` or `expires`, from when `init` gives it to the cluster.
    pub lifetime: Lifetime,
    /// `usages`.
    pub usages: Vec<String>,
    /// `groups`.
    pub groups: Vec<String>,
}

impl TokenSpec {
    /// The whole of it, once it is known which token it is.
    pub fn with(&self, token: Token) -> BootstrapToken {
        BootstrapToken {
            token,
            description: self.description.clone(),
            lifetime: self.lifetime,
            usages: self.usages.clone(),
            groups: self.groups.clone(),
        }
    }
}

/// Secrets that the join command is printed without.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HideSecrets {
    /// `--skip-token-print`.
    pub token: bool,
    /// `--skip-certificate-key-print`.
    pub certificate_key: bool,
}

/// `dns`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DnsSpec {
    /// Own repository, else the cluster's.
    pub image_repository: Option<String>,
    /// Own tag, else the release's.
    pub image_tag: Option<String>,
    /// `disabled`, or the phase `addon/coredns` is skipped.
    pub disabled: bool,
}

/// `proxy`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProxySpec {
    /// `disabled`, or the phase `addon/kube-proxy` is skipped.
    pub disabled: bool,
}

/// `timeouts`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// How long the components may take to become healthy (4 min).
    pub control_plane_component_health_check: Duration,
    /// How long the node agent may take to answer (4 min).
    pub kubelet_health_check: Duration,
    /// How long one object may take to be accepted (1 min).
    pub kubernetes_api_call: Duration,
    /// How long etcd may take to answer (2 min).
    pub etcd_api_call: Duration,
    /// How long TLS bootstrap may take (5 min).
    pub tls_bootstrap: Duration,
    /// How long discovery may take (5 min).
    pub discovery: Duration,
    /// How long one replaced static pod may take to be healthy (5 min).
    pub upgrade_manifests: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let minutes = |n: u64| Duration::from_secs(n * 60);
        Self {
            control_plane_component_health_check: minutes(4),
            kubelet_health_check: minutes(4),
            kubernetes_api_call: minutes(1),
            etcd_api_call: minutes(2),
            tls_bootstrap: minutes(5),
            discovery: minutes(5),
            upgrade_manifests: minutes(5),
        }
    }
}

/// `kubeboot.dev/v1alpha1 KubebootConfiguration`: what kubeadm's documents have no word for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct KubebootSpec {
    /// Who runs the static pods.
    pub node_agent: NodeAgent,
    /// Address of the Docker Engine, such as `unix:///var/run/docker.sock`; `DOCKER_HOST`, else the default socket, where
    /// there is none.
    pub docker_host: Option<String>,
    /// Which components are replaced by one that is started beside them, so that no request fails meanwhile.
    pub surge: Surge,
}

/// Components that are replaced by one that is started beside them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Surge {
    /// kube-apiserver: when its manifest changes, the new one is started on the same port, and the old one serves until the
    /// new one is ready. Needs the embedded agent, and memory for both meanwhile. It runs with `--permit-port-sharing` for
    /// that.
    pub api_server: bool,
}

impl Default for Surge {
    fn default() -> Self {
        Self { api_server: true }
    }
}

/// Who runs the static pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NodeAgent {
    /// This program's own agent.
    #[default]
    Embedded,
    /// A real kubelet, found on the PATH.
    Kubelet,
}
