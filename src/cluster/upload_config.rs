//! The configuration that nodes which join read: the config maps `kubeadm-config` and `kubelet-config`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::ObjectMeta;

use super::SYSTEM;
use super::object::Object;
use super::rbac::{JOINING, NODES, reading};
use crate::config::older::{cluster_configuration, cluster_status};
use crate::config::spec::ClusterSpec;
use crate::host::digest::sha256;
use crate::kubelet::files::{KubeletFilesError, cluster_wide};
use crate::release::{kubeadm_row, kubelet_config_map};
use crate::yaml::{self, EmitError};

/// The config map with the ClusterConfiguration.
pub const KUBEADM_CONFIG: &str = "kubeadm-config";
/// By this kubeadm knows whether a component's configuration is its own, which it recreates, or the user's.
const HASH: &str = "kubeadm.kubernetes.io/component-config.hash";

/// Configuration that cannot be written down.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The ClusterConfiguration.
    #[error("cannot write the ClusterConfiguration as YAML")]
    Emit(#[from] EmitError),
    /// The kubelets'.
    #[error(transparent)]
    Kubelet(#[from] KubeletFilesError),
}

/// `kubeadm-config`, and the right of nodes to read it.
///
/// # Errors
/// A configuration that YAML cannot hold.
pub fn kubeadm(spec: &ClusterSpec) -> Result<Vec<Object>, UploadError> {
    let row = kubeadm_row(&spec.kubernetes_version);
    let mut data =
        BTreeMap::from([("ClusterConfiguration", yaml::to_string(&cluster_configuration(spec, row.config_api))?)]);
    if row.has_cluster_status {
        data.insert("ClusterStatus", yaml::to_string(&cluster_status(spec, row.config_api))?);
    }
    let (role, binding) =
        reading(SYSTEM, "kubeadm:nodes-kubeadm-config", ("configmaps", KUBEADM_CONFIG), &[JOINING, NODES]);
    Ok(vec![Object::new(&config_map(KUBEADM_CONFIG, data)), Object::new(&role), Object::new(&binding)])
}

/// `kubelet-config`, and the right of nodes to read it.
///
/// # Errors
/// A configuration that YAML cannot hold.
pub fn kubelet(spec: &ClusterSpec) -> Result<Vec<Object>, UploadError> {
    let name = kubelet_config_map(&spec.kubernetes_version);
    let config = cluster_wide(spec)?;
    let hash = component_hash(&[&config]);
    let mut config_map = config_map(&name, BTreeMap::from([("kubelet", config)]));
    let is_own = spec.kubelet.as_object().is_none_or(|fields| fields.is_empty());
    if is_own {
        config_map.metadata.annotations = Some(BTreeMap::from([(HASH.to_owned(), hash)]));
    }
    let (role, binding) = reading(SYSTEM, &format!("kubeadm:{name}"), ("configmaps", &name), &[NODES, JOINING]);
    Ok(vec![Object::new(&config_map), Object::new(&role), Object::new(&binding)])
}

/// `sha256:HEX` over the values of a config map, in the order of its keys.
fn component_hash(values: &[&str]) -> String {
    format!("sha256:{}", sha256(values.concat().as_bytes()))
}

fn config_map(name: &str, data: BTreeMap<&str, String>) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta { name: Some(name.into()), namespace: Some(SYSTEM.into()), ..ObjectMeta::default() },
        data: Some(data.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
        ..ConfigMap::default()
    }
}
