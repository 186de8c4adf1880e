//! A self-signed certificate to serve with, as a kubelet makes it for itself.

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;

use super::error::PkiError;
use super::issue::{self, Request, Window};
use super::key::PrivateKey;
use super::table::{San, Usage};
use crate::config::spec::KeyAlgorithm;

/// A certificate and its key, as files hold them. Has no Debug, for the key is a secret.
pub struct ServingPair {
    /// The certificate, and behind it the authority that was made for it alone.
    pub certificate: String,
    /// Its private key.
    pub key: Vec<u8>,
}

/// A certificate for a server of this name, reached by `sans`. The authority's key is thrown away.
///
/// # Errors
/// The library cannot make it, or a name cannot stand in a certificate.
pub fn serving_pair(name: &str, sans: Vec<San>, validity: Duration, now: Timestamp) -> Result<ServingPair, PkiError> {
    let path = || PathBuf::from("the serving certificate");
    let fail = |source| PkiError::Issue { path: path(), source };
    let generate =
        || PrivateKey::generate(KeyAlgorithm::EcdsaP256).map_err(|source| PkiError::Key { path: path(), source });
    let request = |common_name: String, usages: Vec<Usage>, sans: Vec<San>| {
        let window = Window::backdated(now, validity)?;
        Ok::<_, PkiError>(Request { common_name, organizations: vec![], usages, sans, window })
    };
    let (authority_key, key) = (generate()?, generate()?);
    let at = now.as_second();
    let authority = issue::authority(&request(format!("{name}-ca@{at}"), vec![], vec![])?, &authority_key);
    let authority = authority.map_err(fail)?;
    let signer = issue::read_back(&authority).map_err(fail)?;
    let leaf = request(format!("{name}@{at}"), vec![Usage::Server], sans)?;
    let leaf = issue::leaf(&leaf, &key, &signer, &authority_key).map_err(fail)?;
    Ok(ServingPair { certificate: leaf + &authority, key: key.pem().to_vec() })
}
