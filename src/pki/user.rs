//! A kubeconfig for another user.

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;

use super::error::PkiError;
use super::issue::{Request, Window};
use super::key::PrivateKey;
use super::kubeconfig::document::{Client, Parts, compose};
use super::kubeconfig::{authority, sign, trusted_pem};
use super::table::Usage;
use crate::config::ClusterSpec;
use crate::host::tree::Tree;

/// Who is to have a kubeconfig. May hold a token, hence no Debug.
pub struct NewUser {
    /// The user: the common name of the client certificate.
    pub name: String,
    /// The user's groups: its organizations.
    pub organizations: Vec<String>,
    /// A token instead of a certificate.
    pub token: Option<String>,
    /// How long the certificate is valid.
    pub validity: Duration,
}

/// The text of a kubeconfig for `user`, which holds a new private key or the user's token.
///
/// # Errors
/// [`PkiError::Refused`] where the CA is missing, [`PkiError::Issue`] where its key is (a token needs none).
pub fn user_kubeconfig(
    spec: &ClusterSpec,
    tree: &dyn Tree,
    user: &NewUser,
    now: Timestamp,
) -> Result<String, PkiError> {
    let path = PathBuf::from("the kubeconfig");
    let authority = authority(spec, tree, now)?;
    let trusted = trusted_pem(&authority);
    let server = format!("https://{}", spec.shared_endpoint());
    let made;
    let client = match &user.token {
        Some(token) => Client::Token(token),
        None => {
            let start = authority.signer.as_deref().map_or(now, |(own, _)| own.not_before);
            let request = Request {
                common_name: user.name.clone(),
                organizations: user.organizations.clone(),
                usages: vec![Usage::Client],
                sans: vec![],
                window: Window::from(start, now, user.validity)?,
            };
            let key = PrivateKey::generate(spec.key_algorithm);
            let key = key.map_err(|source| PkiError::Key { path: path.clone(), source })?;
            let fail = |source| PkiError::Issue { path: path.clone(), source };
            made = (sign(&request, &key, &authority).map_err(fail)?, key);
            Client::Certificate { certificate: &made.0, key: made.1.pem() }
        }
    };
    let parts = Parts { cluster: &spec.cluster_name, server, user: &user.name, trusted: Some(&trusted), client };
    compose(&parts).map_err(|source| PkiError::Yaml { path: path.clone(), source })
}
