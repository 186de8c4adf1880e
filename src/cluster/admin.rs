//! The right of admin.conf to do anything.

use std::time::Duration;

use k8s_openapi::api::rbac::v1::{ClusterRoleBinding, RoleRef, Subject};
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};

use super::ClusterError;
use super::client::{Attempt, client};
use super::rbac::GROUP;
use crate::config::ClusterSpec;
use crate::host::Paths;

/// The group of admin.conf's certificate and the name of its binding, both kubeadm's.
const CLUSTER_ADMINS: &str = "kubeadm:cluster-admins";

/// Binds the group of admin.conf to the role `cluster-admin`, as kubeadm does as soon as the API server answers: with
/// admin.conf, which may once that has been done, else with super-admin.conf, which an administrator may have deleted
/// since. Returns whether the binding was made now rather than found.
///
/// # Errors
/// No usable kubeconfig, an API server that refuses, or one that did not answer within `limit`.
pub async fn ensure_cluster_admins(paths: &Paths, spec: &ClusterSpec, limit: Duration) -> Result<bool, ClusterError> {
    let mut clients = Vec::new();
    for file in ["admin.conf", "super-admin.conf"] {
        if paths.kubeconfig(file).exists() {
            clients.push(client(paths, spec, file).await?);
        }
    }
    if clients.is_empty() {
        clients.push(client(paths, spec, "admin.conf").await?);
    }
    create_binding(clients, &format!("https://{}", spec.local_endpoint()), limit).await
}

/// A plain create, which every API server since 1.8 understands alike, with the first of `clients` that may.
async fn create_binding(clients: Vec<Client>, endpoint: &str, limit: Duration) -> Result<bool, ClusterError> {
    let bindings: Vec<Api<ClusterRoleBinding>> = clients.into_iter().map(Api::all).collect();
    let binding = binding();
    let what = format!("create the ClusterRoleBinding {CLUSTER_ADMINS}");
    let create = || async {
        let mut forbidden = None;
        for bindings in &bindings {
            match bindings.create(&PostParams::default(), &binding).await {
                Ok(_) => return Ok(true),
                Err(kube::Error::Api(status)) if status.is_already_exists() => return Ok(false),
                Err(kube::Error::Api(status)) if status.is_forbidden() => forbidden = Some(kube::Error::Api(status)),
                Err(error) => return Err(error),
            }
        }
        forbidden.map_or(Ok(false), Err)
    };
    Attempt { what: &what, endpoint, limit }.retry(create).await
}

fn binding() -> ClusterRoleBinding {
    ClusterRoleBinding {
        metadata: ObjectMeta { name: Some(CLUSTER_ADMINS.into()), ..ObjectMeta::default() },
        role_ref: RoleRef { api_group: Some(GROUP.into()), kind: "ClusterRole".into(), name: "cluster-admin".into() },
        subjects: Some(vec![Subject {
            api_group: Some(GROUP.into()),
            kind: "Group".into(),
            name: CLUSTER_ADMINS.into(),
            namespace: None,
        }]),
    }
}

#[cfg(test)]
mod tests;
