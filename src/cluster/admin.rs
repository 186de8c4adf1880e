//! The right of admin.conf to do anything.

use std::time::Duration;

use k8s_openapi::api::rbac::v1::{ClusterRoleBinding, RoleRef, Subject};
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};

use super::ClusterError;
use super::client::{Attempt, client};
use crate::config::ClusterSpec;
use crate::host::Paths;

/// The group of admin.conf's certificate and the name of its binding, both kubeadm's.
const CLUSTER_ADMINS: &str = "kubeadm:cluster-admins";

/// Binds the group of admin.conf to the role `cluster-admin`, with the rights of super-admin.conf, as kubeadm does as
/// soon as the API server answers. Returns whether the binding was made now rather than found.
///
/// # Errors
/// No usable super-admin.conf, an API server that refuses, or one that did not answer within `limit`.
pub async fn ensure_cluster_admins(paths: &Paths, spec: &ClusterSpec, limit: Duration) -> Result<bool, ClusterError> {
    let client = client(paths, spec, "super-admin.conf").await?;
    create_binding(client, &format!("https://{}", spec.local_endpoint()), limit).await
}

/// A plain create, which every API server since 1.8 understands alike.
async fn create_binding(client: Client, endpoint: &str, limit: Duration) -> Result<bool, ClusterError> {
    let bindings: Api<ClusterRoleBinding> = Api::all(client);
    let binding = binding();
    let what = format!("create the ClusterRoleBinding {CLUSTER_ADMINS}");
    let create = || async {
        match bindings.create(&PostParams::default(), &binding).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(false),
            Err(error) => Err(error),
        }
    };
    Attempt { what: &what, endpoint, limit }.retry(create).await
}

fn binding() -> ClusterRoleBinding {
    const GROUP: &str = "rbac.authorization.k8s.io";
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
