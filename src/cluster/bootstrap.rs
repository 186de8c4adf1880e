//! What a node that joins needs: tokens, the rights of who shows one, and the public information on the cluster.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::ObjectMeta;
use serde_json::{Value, json};

use super::bootstrap_token::to_secret;
use super::object::{Object, WriteMode};
use super::rbac::{JOINING, NODES, bind, getting, reading};
use crate::config::bootstrap_token::BootstrapToken;
use crate::config::spec::ClusterSpec;
use crate::yaml::{self, EmitError};

/// The namespace of what every client may read.
const PUBLIC: &str = "kube-public";
/// The config map with the cluster's CA and address.
const CLUSTER_INFO: &str = "cluster-info";

/// The Secrets of the tokens, made at `now`.
pub fn tokens(tokens: &[BootstrapToken], now: Timestamp) -> Vec<Object> {
    tokens.iter().map(|token| Object::new(&to_secret(token, now))).collect()
}

/// What a node may do that shows a token, and what it may once it has a certificate.
pub fn rights() -> Vec<Object> {
    const CSR: &str = "system:certificates.k8s.io:certificatesigningrequests";
    let nodes = "kubeadm:get-nodes";
    let (new_client, own_client) = (format!("{CSR}:nodeclient"), format!("{CSR}:selfnodeclient"));
    let api_server = ("User", "kube-apiserver-kubelet-client");
    let mut objects = vec![Object::new(&getting(nodes, "nodes"))];
    let bindings = [
        (nodes, nodes, JOINING),
        ("kubeadm:kubelet-bootstrap", "system:node-bootstrapper", JOINING),
        ("kubeadm:node-autoapprove-bootstrap", &new_client, JOINING),
        ("kubeadm:node-autoapprove-certificate-rotation", &own_client, NODES),
        ("kubeadm:apiserver-kubelet-client", "system:kubelet-api-admin", api_server),
    ];
    objects.extend(bindings.iter().map(|(name, role, who)| Object::new(&bind(name, role, *who))));
    objects
}

/// The config map `cluster-info`, which every client may read. The controller manager signs it with each token that may
/// sign; its signatures stay.
///
/// # Errors
/// None but those of writing YAML.
pub fn cluster_info(spec: &ClusterSpec, authority: &[u8]) -> Result<Vec<Object>, EmitError> {
    let kubeconfig = yaml::to_string(&json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "",
            "cluster": {
                "certificate-authority-data": STANDARD.encode(authority),
                "server": format!("https://{}", spec.shared_endpoint()),
            },
        }],
        "contexts": Value::Null,
        "current-context": "",
        "users": Value::Null,
    }))?;
    let config_map = ConfigMap {
        metadata: ObjectMeta {
            name: Some(CLUSTER_INFO.into()),
            namespace: Some(PUBLIC.into()),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([("kubeconfig".to_owned(), kubeconfig)])),
        ..ConfigMap::default()
    };
    let name = "kubeadm:bootstrap-signer-clusterinfo";
    let (role, binding) = reading(PUBLIC, name, ("configmaps", CLUSTER_INFO), &[("User", "system:anonymous")]);
    Ok(vec![Object::new(&config_map).with(WriteMode::Merge), Object::new(&role), Object::new(&binding)])
}
