//! The file itself: written as kubeadm writes it, and changed where it is there.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::read::{Fields, Kubeconfig, unusable};
use crate::pki::error::Problem;
use crate::yaml::{self, EmitError};

/// What a new kubeconfig holds.
pub struct Parts<'a> {
    pub cluster: &'a str,
    pub server: String,
    pub user: &'a str,
    /// PEM of the CAs that the server's certificate may be signed by.
    pub trusted: Option<&'a str>,
    pub client: Client<'a>,
}

/// Who its user is.
pub enum Client<'a> {
    /// One with a certificate and its key.
    Certificate {
        certificate: &'a str,
        key: &'a [u8],
    },
    /// One whose certificate is to come.
    Key(&'a [u8]),
    Token(&'a str),
}

/// The text of a new kubeconfig.
pub fn compose(parts: &Parts<'_>) -> Result<String, EmitError> {
    let Parts { cluster, server, user, trusted, client } = parts;
    let name = format!("{user}@{cluster}");
    let who = match client {
        Client::Certificate { certificate, key } => json!({
            "client-certificate-data": STANDARD.encode(certificate),
            "client-key-data": STANDARD.encode(key),
        }),
        Client::Key(key) => json!({ "client-key-data": STANDARD.encode(key) }),
        Client::Token(token) => json!({ "token": token }),
    };
    let mut where_to = json!({ "server": server });
    if let Some(pem) = trusted {
        where_to["certificate-authority-data"] = STANDARD.encode(pem).into();
    }
    yaml::to_string(&json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [{ "name": cluster, "cluster": where_to }],
        "contexts": [{ "name": name, "context": { "cluster": cluster, "user": user } }],
        "users": [{ "name": user, "user": who }],
    }))
}

/// The kubeconfig `text` with its current user's certificate and key both in `file`; None when it is so already.
/// Everything else in it stays.
pub fn point_at(text: &[u8], file: &Path) -> Result<Option<Value>, Problem> {
    let mut config = Kubeconfig::parse(text)?;
    let file = file.display().to_string();
    let (_, name) = config.names()?;
    let user = config.user_mut(&name).ok_or_else(|| unusable(format!("it has no user {name:?}")))?;
    let names_it = |field: &str| user.get(field).is_some_and(|value| *value == file.as_str());
    let has = |field: &str| user.get(field).is_some_and(|value| !value.is_null() && *value != "");
    if CERTIFICATE.iter().all(|[path, data]| names_it(path) && !has(data)) {
        return Ok(None);
    }
    for [path, data] in CERTIFICATE {
        user.remove(data);
        user.insert(path.to_owned(), file.clone().into());
    }
    Ok(Some(config.into_value()))
}

/// The fields of a user's certificate and its key, in a file and inside.
const CERTIFICATE: [[&str; 2]; 2] =
    [["client-certificate", "client-certificate-data"], ["client-key", "client-key-data"]];

/// The kubeconfig `text` with another client certificate, key and CA in its current context; everything else in it
/// stays.
pub fn replace(text: &[u8], certificate: &str, key: &[u8], trusted: &str) -> Result<Value, Problem> {
    let mut config = Kubeconfig::parse(text)?;
    let (cluster, user) = config.names()?;
    let put = |fields: Option<&mut Fields>, [path, data]: [&str; 2], content: &[u8]| {
        let fields = fields.ok_or_else(|| unusable("its current context is incomplete".into()))?;
        fields.remove(path);
        fields.insert(data.to_owned(), STANDARD.encode(content).into());
        Ok(())
    };
    let authority = ["certificate-authority", "certificate-authority-data"];
    put(config.cluster_mut(&cluster), authority, trusted.as_bytes())?;
    let [certificate_fields, key_fields] = CERTIFICATE;
    put(config.user_mut(&user), certificate_fields, certificate.as_bytes())?;
    put(config.user_mut(&user), key_fields, key)?;
    Ok(config.into_value())
}
