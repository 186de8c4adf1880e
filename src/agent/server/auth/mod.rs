//! Who a client is, and whether it may do what it asks for. Every path of the agent's own API is behind this.

mod access;
mod cache;
mod certificates;
mod reviews;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use http::{HeaderMap, Method, Response, StatusCode, header};
use rustls_pki_types::CertificateDer;
use tracing::{debug, warn};

use self::access::Attributes;
use self::cache::Cache;
pub(super) use self::certificates::ClientAuthorities;
pub use self::reviews::Reviews;
use super::http::{Body, text_response};
use crate::agent::options::{Authorization, ServerOptions};

/// What is remembered of tokens and of rights, each.
const REMEMBERED: usize = 512;

/// A user, as certificates and tokens name him.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct User {
    /// His name.
    pub name: String,
    /// His id, where the API server knows one.
    pub uid: Option<String>,
    /// His groups.
    pub groups: Vec<String>,
    /// What else the API server knows of him.
    pub extra: Vec<(String, Vec<String>)>,
}

impl User {
    fn anonymous() -> Self {
        Self::new("system:anonymous", vec!["system:unauthenticated".to_owned()])
    }

    fn new(name: &str, groups: Vec<String>) -> Self {
        Self { name: name.to_owned(), uid: None, groups, extra: Vec::new() }
    }

    /// The same user, in the group of those who have said who they are.
    fn authenticated(mut self) -> Self {
        let group = "system:authenticated";
        if !self.groups.iter().any(|one| one == group) {
            self.groups.push(group.to_owned());
        }
        self
    }
}

/// What a connection says of its client: the certificates, his own first.
pub type Presented = Arc<[CertificateDer<'static>]>;

/// Lets clients in, or not.
pub struct Gate<R> {
    node: String,
    anonymous: bool,
    authorities: Option<ClientAuthorities>,
    tokens: Option<Cache<[u8; 32], Option<User>>>,
    token_ttl: Duration,
    authorization: Authorization,
    rights: Cache<(User, Attributes), bool>,
    allowed_ttl: Duration,
    denied_ttl: Duration,
    reviews: R,
}

impl<R: Reviews> Gate<R> {
    /// By these options. `reviews` is who is asked of tokens and rights.
    pub fn new(node: &str, options: &ServerOptions, reviews: R) -> Self {
        Self {
            node: node.to_owned(),
            anonymous: options.anonymous,
            authorities: options.client_ca.as_deref().map(ClientAuthorities::new),
            tokens: options.tokens.then(|| Cache::new(REMEMBERED)),
            token_ttl: options.token_ttl,
            authorization: options.authorization,
            rights: Cache::new(REMEMBERED),
            allowed_ttl: options.allowed_ttl,
            denied_ttl: options.denied_ttl,
            reviews,
        }
    }

    /// Lets a request in.
    ///
    /// # Errors
    /// The answer to a client that is not: 401, 403, or 500 where that cannot be decided.
    #[allow(clippy::result_large_err, reason = "the answer is on its way to the client")]
    pub async fn admit(
        &self,
        presented: Option<&Presented>,
        headers: &HeaderMap,
        method: &Method,
        path: &str,
    ) -> Result<User, Response<Body>> {
        let Some(user) = self.identify(presented, headers).await else {
            return Err(text_response(StatusCode::UNAUTHORIZED, "Unauthorized"));
        };
        self.authorize(&user, method, path).await.map(|()| user)
    }

    async fn identify(&self, presented: Option<&Presented>, headers: &HeaderMap) -> Option<User> {
        if let (Some(authorities), Some(presented)) = (&self.authorities, presented) {
            match authorities.user(presented) {
                Ok(user) => return Some(user.authenticated()),
                Err(error) => debug!(%error, "a client certificate is not accepted"),
            }
        }
        let given = bearer(headers);
        match (given, &self.tokens) {
            // Who says something of himself that is not so is not let in as a stranger either.
            (Some(token), Some(cache)) => self.token(token, cache).await.map(User::authenticated),
            (Some(_), None) => None,
            (None, _) => self.anonymous.then(User::anonymous),
        }
    }

    async fn token(&self, token: &str, cache: &Cache<[u8; 32], Option<User>>) -> Option<User> {
        // A token is a secret: only what it cannot be derived from is kept.
        let key = <[u8; 32]>::try_from(digest(&SHA256, token.as_bytes()).as_ref()).unwrap_or_default();
        if let Some(known) = cache.get(&key) {
            return known;
        }
        match self.reviews.token(token).await {
            Ok(user) => {
                cache.put(key, user.clone(), self.token_ttl);
                user
            }
            Err(error) => {
                warn!(error, "cannot ask the API server whose a token is");
                None
            }
        }
    }

    #[allow(clippy::result_large_err, reason = "the answer is on its way to the client")]
    async fn authorize(&self, user: &User, method: &Method, path: &str) -> Result<(), Response<Body>> {
        if self.authorization == Authorization::AlwaysAllow {
            return Ok(());
        }
        let asked = access::attributes(&self.node, method, path);
        let (verb, subresources) = (access::verb(method), access::subresources(path).join(" "));
        let reported = format!("user={}, verb={verb}, resource=nodes, subresource(s)=[{subresources}]", user.name);
        for attributes in asked {
            match self.may(user, attributes).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => {
                    warn!(error, user = user.name, path, "cannot ask the API server what a user may do");
                    let words = format!("Authorization error ({reported})");
                    return Err(text_response(StatusCode::INTERNAL_SERVER_ERROR, words));
                }
            }
        }
        debug!(user = user.name, path, "a user may not do what he asks for");
        Err(text_response(StatusCode::FORBIDDEN, format!("Forbidden ({reported})")))
    }

    async fn may(&self, user: &User, attributes: Attributes) -> Result<bool, String> {
        let key = (user.clone(), attributes);
        if let Some(known) = self.rights.get(&key) {
            return Ok(known);
        }
        let allowed = self.reviews.access(&key.0, &key.1).await?;
        self.rights.put(key, allowed, if allowed { self.allowed_ttl } else { self.denied_ttl });
        Ok(allowed)
    }
}

/// The token a request carries.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim()).filter(|token| !token.is_empty())
}

/// Whether a file of authorities can be used; said at the start, for a client would only see that it is not let in.
pub fn check_authorities(file: &Path) -> Result<(), String> {
    certificates::check(file)
}

#[cfg(test)]
mod tests;
