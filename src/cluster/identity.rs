//! Whether the API server accepts the identity that a kubeconfig has.

use std::time::Duration;

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::Api;
use kube::api::PostParams;

use super::ClusterError;
use super::client::{Attempt, client};
use crate::config::ClusterSpec;
use crate::host::Paths;

/// Asks the API server of this node, with the credentials of the kubeconfig `file` (`admin.conf`), what its user may do:
/// no client that is not authenticated gets an answer.
///
/// # Errors
/// [`ClusterError::Refused`] when it does not take the credentials, [`ClusterError::Timeout`] when it did not answer
/// within `limit`.
pub async fn is_known(paths: &Paths, spec: &ClusterSpec, file: &str, limit: Duration) -> Result<(), ClusterError> {
    let api: Api<SelfSubjectAccessReview> = Api::all(client(paths, spec, file).await?);
    let attributes =
        ResourceAttributes { verb: Some("get".into()), resource: Some("pods".into()), ..ResourceAttributes::default() };
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() },
        ..Default::default()
    };
    let what = format!("authenticate with {file}");
    let endpoint = spec.local_endpoint().to_string();
    let attempt = Attempt { what: &what, endpoint: &endpoint, limit };
    attempt.retry(|| async { api.create(&PostParams::default(), &review).await.map(drop) }).await
}
