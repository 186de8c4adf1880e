//! The file itself: read as far as it is needed here, written as kubeadm writes it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::host::tree::Tree;
use crate::pki::error::Problem;
use crate::pki::plan::Stop;
use crate::yaml::{self, EmitError};

/// A kubeconfig as far as it is read and written here. Holds a private key, hence no Debug.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Kubeconfig {
    #[serde(rename = "apiVersion")]
    api_version: String,
    clusters: Vec<NamedCluster>,
    contexts: Vec<NamedContext>,
    current_context: String,
    kind: String,
    users: Vec<NamedUser>,
}

#[derive(Serialize, Deserialize)]
struct NamedCluster {
    cluster: Cluster,
    name: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Cluster {
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_authority: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_authority_data: Option<String>,
    pub server: String,
}

#[derive(Serialize, Deserialize)]
struct NamedContext {
    context: Context,
    name: String,
}

#[derive(Serialize, Deserialize)]
struct Context {
    cluster: String,
    user: String,
}

#[derive(Serialize, Deserialize)]
struct NamedUser {
    name: String,
    user: User,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct User {
    #[serde(skip_serializing_if = "Option::is_none")]
    client_certificate: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_certificate_data: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_key: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_key_data: Option<String>,
    /// Other ways to say who one is: a token, a plugin.
    #[serde(flatten)]
    other: BTreeMap<String, Value>,
}

impl User {
    /// Whether it says who the user is by other means than a certificate.
    pub fn has_other_means(&self) -> bool {
        !self.other.is_empty()
    }
}

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

/// The text of a new kubeconfig, in kubeadm's order.
pub fn compose(parts: &Parts<'_>) -> Result<String, EmitError> {
    let Parts { cluster, server, user, trusted, client } = parts;
    let name = format!("{user}@{cluster}");
    let mut who = User::default();
    match client {
        Client::Certificate { certificate, key } => {
            who.client_certificate_data = Some(STANDARD.encode(certificate));
            who.client_key_data = Some(STANDARD.encode(key));
        }
        Client::Key(key) => who.client_key_data = Some(STANDARD.encode(key)),
        Client::Token(token) => drop(who.other.insert("token".into(), json!(token))),
    }
    let config = Kubeconfig {
        api_version: "v1".into(),
        kind: "Config".into(),
        current_context: name.clone(),
        clusters: vec![NamedCluster {
            name: (*cluster).to_owned(),
            cluster: Cluster {
                certificate_authority: None,
                certificate_authority_data: trusted.map(|pem| STANDARD.encode(pem)),
                server: server.clone(),
            },
        }],
        contexts: vec![NamedContext {
            name,
            context: Context { cluster: (*cluster).to_owned(), user: (*user).to_owned() },
        }],
        users: vec![NamedUser { name: (*user).to_owned(), user: who }],
    };
    yaml::to_string(&config)
}

pub fn parse<T: serde::de::DeserializeOwned>(text: &[u8]) -> Result<T, Problem> {
    let unusable = |reason: String| Problem::Kubeconfig { reason };
    let text = std::str::from_utf8(text).map_err(|_| unusable("not a text".into()))?;
    // Only where it fails: the parser's words may repeat a value, and values here may be keys.
    yaml::from_str(text).map_err(|error| unusable(format!("see line {}, column {}", error.line, error.column)))
}

/// What the current context of a kubeconfig names.
pub struct Current<'a> {
    pub cluster: &'a Cluster,
    pub user_name: &'a str,
    pub user: &'a User,
}

/// The cluster and the user that the current context names.
pub fn current(config: &Kubeconfig) -> Result<Current<'_>, Problem> {
    let lacks = |what: &str, name: &str| Problem::Kubeconfig { reason: format!("it has no {what} {name:?}") };
    let name = &config.current_context;
    let context = config.contexts.iter().find(|context| context.name == *name).ok_or_else(|| lacks("context", name))?;
    let Context { cluster, user } = &context.context;
    let cluster = config.clusters.iter().find(|c| c.name == *cluster).ok_or_else(|| lacks("cluster", cluster))?;
    let named = config.users.iter().find(|u| u.name == *user).ok_or_else(|| lacks("user", user))?;
    Ok(Current { cluster: &cluster.cluster, user_name: user, user: &named.user })
}

impl Current<'_> {
    /// The PEM of the CAs that are trusted.
    pub fn trusted(&self, tree: &dyn Tree, config: &Path) -> Result<Option<Vec<u8>>, Stop> {
        embedded(tree, config, &self.cluster.certificate_authority, &self.cluster.certificate_authority_data)
    }

    /// The PEM of the client certificate.
    pub fn certificate(&self, tree: &dyn Tree, config: &Path) -> Result<Option<Vec<u8>>, Stop> {
        embedded(tree, config, &self.user.client_certificate, &self.user.client_certificate_data)
    }

    /// The PEM of its key.
    pub fn key(&self, tree: &dyn Tree, config: &Path) -> Result<Option<Vec<u8>>, Stop> {
        embedded(tree, config, &self.user.client_key, &self.user.client_key_data)
    }
}

/// What a kubeconfig holds as data, or in a file that it names (relative to its own directory).
fn embedded(
    tree: &dyn Tree,
    config: &Path,
    file: &Option<PathBuf>,
    data: &Option<String>,
) -> Result<Option<Vec<u8>>, Stop> {
    let refuse = |reason: String| Stop::Refuse(config.to_owned(), Problem::Kubeconfig { reason });
    if let Some(data) = data {
        let bytes = STANDARD.decode(data).map_err(|_| refuse("data in it is not base64".into()))?;
        return Ok(Some(bytes));
    }
    let Some(file) = file else { return Ok(None) };
    let path = config.parent().unwrap_or(Path::new("/")).join(file);
    match tree.read(&path)? {
        Some(bytes) => Ok(Some(bytes)),
        None => Err(refuse(format!("it names {}, which is not there", path.display()))),
    }
}

/// The kubeconfig `text` with its current user's certificate and key both in `file`; None when it is so already.
pub fn point_at(text: &[u8], file: &Path) -> Result<Option<Kubeconfig>, Problem> {
    let mut config: Kubeconfig = parse(text)?;
    let name = current(&config)?.user_name.to_owned();
    let is_so = |user: &User| {
        [&user.client_certificate, &user.client_key].into_iter().all(|path| path.as_deref() == Some(file))
            && user.client_certificate_data.is_none()
            && user.client_key_data.is_none()
    };
    let named = config.users.iter_mut().find(|named| named.name == name).filter(|named| !is_so(&named.user));
    let Some(named) = named else { return Ok(None) };
    let (client_certificate, client_key) = (Some(file.to_owned()), Some(file.to_owned()));
    named.user = User { client_certificate, client_key, ..User::default() };
    Ok(Some(config))
}

/// The kubeconfig `text` with another client certificate, key and CA in its current context; everything else in it
/// stays.
pub fn replace(text: &[u8], certificate: &str, key: &[u8], trusted: &str) -> Result<Value, Problem> {
    let typed: Kubeconfig = parse(text)?;
    let context = typed.contexts.iter().find(|context| context.name == typed.current_context);
    let unusable = || Problem::Kubeconfig { reason: "its current context is incomplete".into() };
    let Context { cluster, user } = &context.ok_or_else(unusable)?.context;
    let mut config: Value = parse(text)?;
    let mut edit = |list: &str, kind: &str, name: &str, old: [&str; 2], new: &[(&str, String)]| {
        let named = config.get_mut(list).and_then(Value::as_array_mut)?.iter_mut().find(|one| one["name"] == *name)?;
        let object: &mut Map<String, Value> = named.get_mut(kind)?.as_object_mut()?;
        old.iter().for_each(|key| drop(object.remove(*key)));
        object.extend(new.iter().map(|(key, value)| ((*key).to_owned(), Value::String(value.clone()))));
        Some(())
    };
    let authority = [("certificate-authority-data", STANDARD.encode(trusted))];
    edit("clusters", "cluster", cluster, ["certificate-authority", ""], &authority).ok_or_else(unusable)?;
    let client = [("client-certificate-data", STANDARD.encode(certificate)), ("client-key-data", STANDARD.encode(key))];
    edit("users", "user", user, ["client-certificate", "client-key"], &client).ok_or_else(unusable)?;
    Ok(config)
}
