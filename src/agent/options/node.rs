//! How the agent reaches an API server, and what it says of its Node there.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::eviction::Thresholds;

/// A taint a Node is made with.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeTaint {
    /// Its key.
    pub key: String,
    /// Its value, as a rule none.
    #[serde(default)]
    pub value: String,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
    pub effect: String,
    /// Since when; taken and let be, as the kubelet does it.
    #[serde(default, rename = "timeAdded")]
    pub(super) _time_added: Option<String>,
}

impl NodeTaint {
    /// Whether it has a key, and an effect that there is.
    pub(super) fn is_valid(&self) -> bool {
        ["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&self.effect.as_str()) && !self.key.is_empty()
    }
}

/// How the agent reaches an API server, and what it says of its node there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeOptions {
    /// `--kubeconfig`; None runs without an API server. The file need not be there yet.
    pub kubeconfig: Option<PathBuf>,
    /// `--bootstrap-kubeconfig`: what to ask for a first client certificate with.
    pub bootstrap_kubeconfig: Option<PathBuf>,
    /// `--cert-dir`: certificates that were asked for. By default `pki` in the root directory.
    pub cert_dir: PathBuf,
    /// `--node-ip`, empty for the machine's own choice.
    pub ips: Vec<IpAddr>,
    /// `--node-labels`.
    pub labels: BTreeMap<String, String>,
    /// Whether the agent makes its Node; `registerNode`.
    pub register: bool,
    /// Taints it is made with; `registerWithTaints`.
    pub taints: Vec<NodeTaint>,
    /// How often its status is computed; `nodeStatusUpdateFrequency`.
    pub status_update: Duration,
    /// How often it is sent although nothing has changed; `nodeStatusReportFrequency`.
    pub status_report: Duration,
    /// `nodeLeaseDurationSeconds`.
    pub lease_seconds: i32,
    /// `maxPods`.
    pub max_pods: u32,
    /// The most images in its status, None for all; `nodeStatusMaxImages`.
    pub max_images: Option<usize>,
    /// What pods cannot have, by resource: `systemReserved` and `kubeReserved` together, CPUs in thousandths, all else
    /// in whole units.
    pub reserved: BTreeMap<String, i64>,
    /// `systemReserved`, as it is written.
    pub system_reserved: BTreeMap<String, String>,
    /// `kubeReserved`, as it is written.
    pub kube_reserved: BTreeMap<String, String>,
    /// `evictionHard`.
    pub eviction: Thresholds,
    /// `providerID`.
    pub provider_id: Option<String>,
    /// Whether the client certificate is renewed; `rotateCertificates`.
    pub rotate_certificates: bool,
    /// Whether the serving certificate is asked of the cluster; `serverTLSBootstrap`.
    pub server_tls_bootstrap: bool,
}

impl NodeOptions {
    pub(super) fn new(root_dir: &Path) -> Self {
        Self {
            kubeconfig: None,
            bootstrap_kubeconfig: None,
            cert_dir: root_dir.join("pki"),
            ips: Vec::new(),
            labels: BTreeMap::new(),
            register: true,
            taints: Vec::new(),
            status_update: Duration::from_secs(10),
            status_report: Duration::from_secs(300),
            lease_seconds: 40,
            max_pods: 110,
            max_images: Some(50),
            reserved: BTreeMap::new(),
            system_reserved: BTreeMap::new(),
            kube_reserved: BTreeMap::new(),
            eviction: Thresholds::default(),
            provider_id: None,
            rotate_certificates: false,
            server_tls_bootstrap: false,
        }
    }
}
