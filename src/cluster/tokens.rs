//! The cluster's bootstrap tokens: making, listing and deleting them.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::{Value, json};

use super::ClusterError;
use super::bootstrap_token::{NAMESPACE, SECRET_TYPE, from_secret, rfc3339, secret_name, to_secret};
use super::client::Attempt;
use super::remote::Remote;
use crate::config::bootstrap_token::{BootstrapToken, Lifetime};

/// kubeadm's limit of one request.
const LIMIT: Duration = Duration::from_secs(10);

/// The API of `kubeadm token list -o json`.
const OUTPUT_VERSION: &str = "output.kubeadm.k8s.io/v1alpha3";

/// What could not be done with a token.
#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    /// There is one with the same id.
    #[error("a token with id {id:?} already exists")]
    Exists {
        /// Which.
        id: String,
    },
    /// There is none with this id.
    #[error("failed to delete bootstrap token {id:?}: the cluster has none with this id")]
    NotFound {
        /// Which.
        id: String,
    },
    /// The user may not.
    #[error("the API server at {server} does not let this user {what}")]
    Forbidden {
        /// Where.
        server: String,
        /// What was tried.
        what: String,
        /// Its words.
        #[source]
        source: Box<kube::Error>,
    },
    /// The API server.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

/// What a request ended with that is no reason to try again.
type Answer<T> = Result<T, kube::Error>;

/// Makes the Secret of a token.
///
/// # Errors
/// One with the same id is there; the API server refuses or does not answer.
pub async fn create(remote: &Remote, token: &BootstrapToken, now: Timestamp) -> Result<(), TokensError> {
    let (api, secret, params) = (api(remote), to_secret(token, now), PostParams::default());
    let answer = ask(remote, "create a bootstrap token", || api.create(&params, &secret)).await?;
    match answer {
        Ok(_) => Ok(()),
        Err(error) if has_code(&error, 409) => Err(TokensError::Exists { id: token.token.id().to_owned() }),
        Err(error) => Err(forbidden(remote, "create a bootstrap token", error)),
    }
}

/// All tokens, in the order of the API server, each a token or what is wrong with its Secret.
///
/// # Errors
/// The API server refuses or does not answer.
pub async fn list(
    remote: &Remote,
) -> Result<Vec<Result<BootstrapToken, super::bootstrap_token::SecretError>>, TokensError> {
    let what = "list the bootstrap tokens";
    let (api, selector) = (api(remote), ListParams::default().fields(&format!("type={SECRET_TYPE}")));
    let answer = ask(remote, what, || api.list(&selector)).await?;
    let secrets = answer.map_err(|error| forbidden(remote, what, error))?;
    Ok(secrets.items.iter().map(from_secret).collect())
}

/// Deletes the token with this id.
///
/// # Errors
/// There is none; the API server refuses or does not answer.
pub async fn delete(remote: &Remote, id: &str) -> Result<(), TokensError> {
    let what = format!("delete the bootstrap token {id}");
    let (api, name, params) = (api(remote), secret_name(id), DeleteParams::default());
    match ask(remote, &what, || api.delete(&name, &params)).await? {
        Ok(_) => Ok(()),
        Err(error) if has_code(&error, 404) => Err(TokensError::NotFound { id: id.to_owned() }),
        Err(error) => Err(forbidden(remote, &what, error)),
    }
}

fn api(remote: &Remote) -> Api<Secret> {
    Api::namespaced(remote.client.clone(), NAMESPACE)
}

/// Asks until there is an answer; that it may not, is there or is not there are answers.
async fn ask<T, F>(remote: &Remote, what: &str, mut once: impl FnMut() -> F) -> Result<Answer<T>, ClusterError>
where
    F: Future<Output = Result<T, kube::Error>>,
{
    let attempt = Attempt { what, endpoint: &remote.server, limit: LIMIT };
    let answer = |result: Result<T, kube::Error>| match result {
        Err(error) if [403, 404, 409].into_iter().any(|code| has_code(&error, code)) => Ok(Err(error)),
        other => other.map(Ok),
    };
    attempt
        .retry(|| {
            let request = once();
            async move { answer(request.await) }
        })
        .await
}

fn has_code(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

fn forbidden(remote: &Remote, what: &str, error: kube::Error) -> TokensError {
    TokensError::Forbidden { server: remote.server.clone(), what: what.to_owned(), source: Box::new(error) }
}

/// kubeadm's columns of a list.
pub const COLUMNS: [&str; 6] = ["TOKEN", "TTL", "EXPIRES", "USAGES", "DESCRIPTION", "EXTRA GROUPS"];

/// A token as a line of a list. Shows its secret: the list is for that.
pub fn row(token: &BootstrapToken, now: Timestamp) -> [String; 6] {
    let or_none = |text: String| if text.is_empty() { "<none>".to_owned() } else { text };
    let (ttl, expires) = match token.lifetime.end(now) {
        Some(end) => (short(end.duration_since(now)), rfc3339(end)),
        None => ("<forever>".into(), "<never>".into()),
    };
    let description = or_none(token.description.clone());
    [token.token.reveal(), ttl, expires, or_none(token.usages.join(",")), description, or_none(token.groups.join(","))]
}

/// A token as `kubeadm token list -o json` shows it.
pub fn shown(token: &BootstrapToken) -> Value {
    let mut value = json!({ "apiVersion": OUTPUT_VERSION, "kind": "BootstrapToken", "token": token.token.reveal() });
    let lists = [("usages", &token.usages), ("groups", &token.groups)];
    lists.into_iter().filter(|(_, list)| !list.is_empty()).for_each(|(name, list)| value[name] = json!(list));
    if !token.description.is_empty() {
        value["description"] = json!(token.description);
    }
    if let Lifetime::Until(end) = token.lifetime {
        value["expires"] = json!(rfc3339(end));
    }
    value
}

/// A duration in its largest unit, as `kubectl` shows ages.
fn short(duration: SignedDuration) -> String {
    let seconds = duration.as_secs();
    let units = [(365 * 24 * 3600, "y"), (24 * 3600, "d"), (3600, "h"), (60, "m"), (1, "s")];
    match units.into_iter().find(|(length, _)| seconds >= *length) {
        Some((length, name)) => format!("{}{name}", seconds / length),
        None if seconds < -1 => "<invalid>".into(),
        None => "0s".into(),
    }
}

#[cfg(test)]
mod tests;
