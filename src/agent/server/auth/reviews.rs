//! Asking the API server.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::timeout;

use super::User;
use super::access::Attributes;
use crate::agent::apiserver::ApiServer;

/// A client waits behind the question.
const LIMIT: Duration = Duration::from_secs(10);

/// Who knows users and what they may do.
#[async_trait]
pub trait Reviews: Send + Sync {
    /// The user of a token; None where it has none.
    async fn token(&self, token: &str) -> Result<Option<User>, String>;

    /// Whether a user may do something.
    async fn access(&self, user: &User, attributes: &Attributes) -> Result<bool, String>;
}

/// The API server, where the agent has one.
#[async_trait]
impl Reviews for Option<Arc<ApiServer>> {
    async fn token(&self, token: &str) -> Result<Option<User>, String> {
        let spec = TokenReviewSpec { token: token.to_owned(), ..TokenReviewSpec::default() };
        let review = ask(self, TokenReview { spec, ..TokenReview::default() }).await?;
        let status = review.status.unwrap_or_default();
        let user = status.user.filter(|_| status.authenticated == Some(true));
        Ok(user.map(|user| User {
            name: user.username.unwrap_or_default(),
            uid: user.uid,
            groups: user.groups.unwrap_or_default(),
            extra: user.extra.unwrap_or_default().into_iter().collect(),
        }))
    }

    async fn access(&self, user: &User, attributes: &Attributes) -> Result<bool, String> {
        let spec = SubjectAccessReviewSpec {
            user: Some(user.name.clone()),
            uid: user.uid.clone(),
            groups: Some(user.groups.clone()),
            extra: Some(user.extra.iter().cloned().collect()),
            resource_attributes: Some(ResourceAttributes {
                verb: Some(attributes.verb.to_owned()),
                version: Some("v1".to_owned()),
                resource: Some("nodes".to_owned()),
                subresource: Some(attributes.subresource.to_owned()),
                name: Some(attributes.node.clone()),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        };
        let review = ask(self, SubjectAccessReview { spec, ..SubjectAccessReview::default() }).await?;
        Ok(review.status.is_some_and(|status| status.allowed && status.denied != Some(true)))
    }
}

/// What the API server makes of a question.
async fn ask<K>(server: &Option<Arc<ApiServer>>, question: K) -> Result<K, String>
where
    K: kube::Resource<Scope = kube::core::ClusterResourceScope, DynamicType = ()>,
    K: Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
{
    let client: Option<Client> = server.as_ref().and_then(|server| server.client());
    let api: Api<K> = Api::all(client.ok_or("there are no credentials for the API server yet")?);
    let parameters = PostParams::default();
    let asked = timeout(LIMIT, api.create(&parameters, &question)).await;
    asked.map_err(|_| format!("no answer within {} s", LIMIT.as_secs()))?.map_err(|error| error.to_string())
}
