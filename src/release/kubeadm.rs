//! What the kubeadm of a release, on a node that joins, expects to find in the cluster.

use super::KubernetesVersion;

/// What differs from one kubeadm to the next. Apart from [`super::Release`], because it changed in other minors.
#[derive(Debug)]
pub struct KubeadmRow {
    /// First minor of the row.
    pub since: u64,
    /// Version of the ClusterConfiguration in the config map `kubeadm-config`.
    pub config_api: ConfigApi,
    /// Whether `kubeadm-config` also lists the API servers, under the key ClusterStatus.
    pub has_cluster_status: bool,
    /// Whether the kubelets' config map, its Role and RoleBinding carry the minor in their names.
    pub versioned_kubelet_config: bool,
    /// Keys of the labels of a control-plane node; their values are empty.
    pub control_plane_labels: &'static [&'static str],
    /// Keys of the taints of a control-plane node; their effect is NoSchedule.
    pub control_plane_taints: &'static [&'static str],
    /// Whether an annotation of the Node names its runtime's socket; later a file on the node does.
    pub annotates_cri_socket: bool,
}

/// A version of the API `kubeadm.k8s.io`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConfigApi {
    /// Arguments are maps; there are `dns.type` and `useHyperKubeImage`, both of which may be left out.
    V1Beta2,
    /// Arguments are maps.
    V1Beta3,
    /// Arguments are lists.
    V1Beta4,
}

impl ConfigApi {
    /// As `apiVersion` has it.
    pub fn api_version(self) -> &'static str {
        match self {
            Self::V1Beta2 => "kubeadm.k8s.io/v1beta2",
            Self::V1Beta3 => "kubeadm.k8s.io/v1beta3",
            Self::V1Beta4 => "kubeadm.k8s.io/v1beta4",
        }
    }
}

/// Label and taint of a control-plane node, by its old name.
pub(super) const MASTER: &str = "node-role.kubernetes.io/master";
/// The same by its name of today.
pub(super) const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";

/// Oldest first. Each minor is where kubeadm made the change.
static ROWS: [KubeadmRow; 6] = [
    KubeadmRow {
        since: 0,
        config_api: ConfigApi::V1Beta2,
        has_cluster_status: true,
        versioned_kubelet_config: true,
        control_plane_labels: &[MASTER, CONTROL_PLANE],
        control_plane_taints: &[MASTER],
        annotates_cri_socket: true,
    },
    KubeadmRow {
        since: 22,
        config_api: ConfigApi::V1Beta3,
        has_cluster_status: false,
        versioned_kubelet_config: true,
        control_plane_labels: &[MASTER, CONTROL_PLANE],
        control_plane_taints: &[MASTER],
        annotates_cri_socket: true,
    },
    KubeadmRow {
        since: 24,
        config_api: ConfigApi::V1Beta3,
        has_cluster_status: false,
        versioned_kubelet_config: false,
        control_plane_labels: &[CONTROL_PLANE],
        control_plane_taints: &[MASTER, CONTROL_PLANE],
        annotates_cri_socket: true,
    },
    KubeadmRow {
        since: 25,
        config_api: ConfigApi::V1Beta3,
        has_cluster_status: false,
        versioned_kubelet_config: false,
        control_plane_labels: &[CONTROL_PLANE],
        control_plane_taints: &[CONTROL_PLANE],
        annotates_cri_socket: true,
    },
    KubeadmRow {
        since: 31,
        config_api: ConfigApi::V1Beta4,
        has_cluster_status: false,
        versioned_kubelet_config: false,
        control_plane_labels: &[CONTROL_PLANE],
        control_plane_taints: &[CONTROL_PLANE],
        annotates_cri_socket: true,
    },
    KubeadmRow {
        since: 34,
        config_api: ConfigApi::V1Beta4,
        has_cluster_status: false,
        versioned_kubelet_config: false,
        control_plane_labels: &[CONTROL_PLANE],
        control_plane_taints: &[CONTROL_PLANE],
        annotates_cri_socket: false,
    },
];

/// The row of `version`'s kubeadm.
pub fn kubeadm_row(version: &KubernetesVersion) -> &'static KubeadmRow {
    ROWS.iter().rev().find(|row| row.since <= version.minor()).unwrap_or(&ROWS[0])
}

/// Name of the config map in kube-system that holds the kubelets' configuration; `kubeadm:` in front of it names the
/// Role and the RoleBinding that let nodes read it.
pub fn kubelet_config_map(version: &KubernetesVersion) -> String {
    match kubeadm_row(version).versioned_kubelet_config {
        true => format!("kubelet-config-1.{}", version.minor()),
        false => "kubelet-config".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_minor_finds_what_its_kubeadm_reads() {
        let reported = |minor: u64| {
            let version = format!("v1.{minor}.0").parse().unwrap();
            let row = kubeadm_row(&version);
            (row.config_api, row.has_cluster_status, row.control_plane_taints.len(), kubelet_config_map(&version))
        };
        assert_eq!(reported(20), (ConfigApi::V1Beta2, true, 1, "kubelet-config-1.20".into()));
        assert_eq!(reported(21), (ConfigApi::V1Beta2, true, 1, "kubelet-config-1.21".into()));
        assert_eq!(reported(23), (ConfigApi::V1Beta3, false, 1, "kubelet-config-1.23".into()));
        assert_eq!(reported(24), (ConfigApi::V1Beta3, false, 2, "kubelet-config".into()));
        assert_eq!(reported(30), (ConfigApi::V1Beta3, false, 1, "kubelet-config".into()));
        assert_eq!(reported(37), (ConfigApi::V1Beta4, false, 1, "kubelet-config".into()));
        assert!(ROWS.is_sorted_by(|a, b| a.since < b.since));
    }
}
