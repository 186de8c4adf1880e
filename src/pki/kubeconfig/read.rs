//! A kubeconfig as kubectl reads it: the first document of its file, lists that may be missing, data whose base64 may be
//! broken into lines, and empty texts that mean nothing.

use std::path::Path;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Map, Value};

use crate::host::tree::Tree;
use crate::pki::error::Problem;
use crate::pki::plan::{Stop, at};
use crate::yaml;

/// Base64 as Go takes it: padded, whatever the bits are that the last digit has to spare.
const GO: GeneralPurpose =
    GeneralPurpose::new(&STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

/// The lists of a kubeconfig, and what their items hold beside their names.
const LISTS: [(&str, &str); 3] = [("clusters", "cluster"), ("contexts", "context"), ("users", "user")];

/// The fields that name files.
const FILES: [(&str, &[&str]); 2] =
    [("clusters", &["certificate-authority"]), ("users", &["client-certificate", "client-key", "tokenFile"])];

/// The fields of a cluster, a user or a context.
pub type Fields = Map<String, Value>;

/// A kubeconfig. Holds private keys and tokens, hence no Debug.
#[derive(Clone)]
pub struct Kubeconfig(Fields);

/// What the current context of a kubeconfig names.
pub struct Current<'a> {
    /// Empty where the kubeconfig does not say it.
    pub namespace: &'a str,
    /// The fields of the cluster.
    pub cluster: &'a Fields,
    /// `https://HOST:PORT`; empty where the kubeconfig does not say it.
    pub server: &'a str,
    /// What the context calls the user.
    pub user_name: &'a str,
    /// None where there is no user of that name, which to kubectl is one that shows nothing.
    pub user: Option<&'a Fields>,
}

impl Kubeconfig {
    /// Reads a file's content.
    ///
    /// # Errors
    /// No YAML, another kind of object, and fields of another type than they have. No word of it repeats a value, for
    /// values here may be keys.
    pub fn parse(content: &[u8]) -> Result<Self, Problem> {
        let text = text_of(content)?;
        let place = |error: &yaml::YamlError| unusable(format!("see line {}, column {}", error.line, error.column));
        let document = yaml::documents(&text).map_err(|error| place(&error))?.into_iter().next();
        let value = match document {
            Some(document) => yaml::Node::parse_lenient(&document).map_err(|error| place(&error))?.0.to_value(),
            None => Value::Null,
        };
        let mut fields = match value {
            Value::Null => Fields::new(),
            Value::Object(fields) => fields,
            _ => return Err(unusable("it is no object".into())),
        };
        for (field, expected) in [("kind", "Config"), ("apiVersion", "v1")] {
            if text_in(&fields, field)?.is_some_and(|is| is != expected) {
                return Err(unusable(format!("its {field} is not {expected}")));
            }
        }
        text_in(&fields, "current-context")?;
        for (list, kind) in LISTS {
            fill_in(&mut fields, list, kind)?;
        }
        Ok(Self(fields))
    }

    /// Adds what `next` has and this one has not, as kubectl merges several files: what is named first counts.
    pub fn merge(&mut self, next: Self) {
        for (name, value) in next.0 {
            let is_named = |items: &[Value], item: &Value| items.iter().any(|other| other["name"] == item["name"]);
            match (self.0.get_mut(&name), value) {
                (Some(Value::Array(items)), Value::Array(more)) => {
                    for item in more {
                        if !is_named(items, &item) {
                            items.push(item);
                        }
                    }
                }
                (Some(has), value) if has.is_null() || *has == "" => *has = value,
                (Some(_), _) => {}
                (None, value) => drop(self.0.insert(name, value)),
            }
        }
    }

    /// Puts `dir` in front of the names of files that are relative: they are meant from where the kubeconfig is.
    pub fn make_absolute(&mut self, dir: &Path) {
        for (list, names) in FILES {
            let kind = LISTS.iter().find(|(known, _)| *known == list).map_or("", |(_, kind)| *kind);
            for item in self.0.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                for name in names {
                    if let Some(Value::String(file)) = item.get_mut(kind).and_then(|fields| fields.get_mut(*name))
                        && !file.is_empty()
                    {
                        *file = dir.join(&*file).display().to_string();
                    }
                }
            }
        }
    }

    /// The cluster and the user that the current context names.
    ///
    /// # Errors
    /// A context or a cluster that is not there.
    pub fn current(&self) -> Result<Current<'_>, Problem> {
        let lacks = |what: &str, name: &str| unusable(format!("it has no {what} {name:?}"));
        let name = text_in(&self.0, "current-context")?.unwrap_or_default();
        let context = self.named("contexts", "context", name).ok_or_else(|| lacks("context", name))?;
        let text = |field| text_in(context, field).map(Option::unwrap_or_default);
        let (cluster_name, user_name) = (text("cluster")?, text("user")?);
        let cluster = self.named("clusters", "cluster", cluster_name).ok_or_else(|| lacks("cluster", cluster_name))?;
        let server = text_in(cluster, "server")?.unwrap_or_default();
        let user = self.named("users", "user", user_name);
        Ok(Current { namespace: text("namespace")?, cluster, server, user_name, user })
    }

    /// Lets the cluster of the current context be at `server`, whatever it says.
    ///
    /// # Errors
    /// A context or a cluster that is not there.
    pub fn go_to(&mut self, server: &str) -> Result<(), Problem> {
        let (cluster, _) = self.names()?;
        let lacks = || unusable(format!("it has no cluster {cluster:?}"));
        self.cluster_mut(&cluster).ok_or_else(lacks)?.insert("server".to_owned(), server.into());
        Ok(())
    }

    /// The cluster with an empty name, else that of the current context, else the first: the one a kubeconfig without
    /// contexts is about.
    pub fn cluster(&self) -> Option<&Fields> {
        let named = self.named("clusters", "cluster", "");
        named
            .or_else(|| self.current().ok().map(|current| current.cluster))
            .or_else(|| self.first("clusters", "cluster"))
    }

    /// The name and the fields of the user of the current context, else of the first.
    pub fn user(&self) -> Option<(&str, &Fields)> {
        if let Ok(Current { user_name, user: Some(user), .. }) = self.current() {
            return Some((user_name, user));
        }
        let first = self.items("users").first()?;
        Some((first["name"].as_str().unwrap_or_default(), first["user"].as_object()?))
    }

    /// The user's fields, to be changed; they are made where they are missing.
    pub fn user_mut(&mut self, name: &str) -> Option<&mut Fields> {
        self.named_mut("users", "user", name)
    }

    /// The same of a cluster.
    pub fn cluster_mut(&mut self, name: &str) -> Option<&mut Fields> {
        self.named_mut("clusters", "cluster", name)
    }

    /// The names of cluster and user in the current context.
    pub fn names(&self) -> Result<(String, String), Problem> {
        let name = text_in(&self.0, "current-context")?.unwrap_or_default();
        let context = self.named("contexts", "context", name);
        let context = context.ok_or_else(|| unusable(format!("it has no context {name:?}")))?;
        let text = |field| text_in(context, field).map(|text| text.unwrap_or_default().to_owned());
        Ok((text("cluster")?, text("user")?))
    }

    /// The whole, to be written.
    pub fn into_value(self) -> Value {
        Value::Object(self.0)
    }

    fn items(&self, list: &str) -> &[Value] {
        self.0.get(list).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    fn named(&self, list: &str, kind: &str, name: &str) -> Option<&Fields> {
        self.items(list).iter().find(|item| item["name"] == name)?.get(kind)?.as_object()
    }

    fn named_mut(&mut self, list: &str, kind: &str, name: &str) -> Option<&mut Fields> {
        let items = self.0.get_mut(list)?.as_array_mut()?;
        items.iter_mut().find(|item| item["name"] == name)?.get_mut(kind)?.as_object_mut()
    }

    fn first(&self, list: &str, kind: &str) -> Option<&Fields> {
        self.items(list).first()?.get(kind)?.as_object()
    }
}

impl Current<'_> {
    /// The PEM of the CAs that are trusted.
    pub(in crate::pki) fn trusted(&self, tree: &dyn Tree, config: &Path) -> Result<Option<Vec<u8>>, Stop> {
        embedded(tree, config, self.cluster, "certificate-authority")
    }

    /// The PEM of the client certificate.
    pub(in crate::pki) fn certificate(&self, tree: &dyn Tree, config: &Path) -> Result<Option<Vec<u8>>, Stop> {
        self.user.map_or(Ok(None), |user| embedded(tree, config, user, "client-certificate"))
    }

    /// The PEM of its key.
    pub(in crate::pki) fn key(&self, tree: &dyn Tree, config: &Path) -> Result<Option<Vec<u8>>, Stop> {
        self.user.map_or(Ok(None), |user| embedded(tree, config, user, "client-key"))
    }

    /// Whether it says who the user is by other means than a certificate: a token, a plugin.
    pub fn has_other_means(&self) -> bool {
        let of_certificates = |name: &str| name.starts_with("client-certificate") || name.starts_with("client-key");
        let said = |value: &Value| !value.is_null() && *value != "";
        self.user.is_some_and(|user| user.iter().any(|(name, value)| !of_certificates(name) && said(value)))
    }
}

/// What a kubeconfig holds as data, or in a file that it names (relative to its own directory).
fn embedded(tree: &dyn Tree, config: &Path, fields: &Fields, what: &str) -> Result<Option<Vec<u8>>, Stop> {
    if let Some(data) = at(config, data_in(fields, &format!("{what}-data")))? {
        return Ok(Some(data));
    }
    let Some(file) = at(config, text_in(fields, what))? else { return Ok(None) };
    let path = config.parent().unwrap_or(Path::new("/")).join(file);
    match tree.read(&path)? {
        Some(bytes) => Ok(Some(bytes)),
        None => at(config, Err(unusable(format!("it names {}, which is not there", path.display())))),
    }
}

/// A text; None where it is missing, null or empty, which is one to Go.
pub fn text_in<'a>(fields: &'a Fields, name: &str) -> Result<Option<&'a str>, Problem> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
        Some(_) => Err(unusable(format!("{name} in it is no text"))),
    }
}

/// Bytes in base64, which may be broken into lines.
pub fn data_in(fields: &Fields, name: &str) -> Result<Option<Vec<u8>>, Problem> {
    let Some(text) = text_in(fields, name)? else { return Ok(None) };
    let digits: String = text.chars().filter(|digit| !matches!(digit, '\r' | '\n')).collect();
    GO.decode(digits).map(Some).map_err(|_| unusable(format!("{name} in it is not base64")))
}

/// A kubeconfig that cannot be used; `reason` never repeats a value.
pub fn unusable(reason: String) -> Problem {
    Problem::Kubeconfig { reason }
}

/// Makes of `list` what its type says it is: a list of objects with a name and a `kind`.
fn fill_in(fields: &mut Fields, list: &str, kind: &str) -> Result<(), Problem> {
    let wrong = |what: &str| unusable(format!("{list} in it {what}"));
    let items = match fields.entry(list).or_insert(Value::Null) {
        Value::Array(items) => items,
        other @ Value::Null => {
            *other = Value::Array(vec![]);
            return Ok(());
        }
        _ => return Err(wrong("is no list")),
    };
    for item in items {
        let Value::Object(item) = item else { return Err(wrong("holds something that is no object")) };
        for (name, empty) in [("name", Value::from("")), (kind, Value::Object(Fields::new()))] {
            let value = item.entry(name).or_insert(Value::Null);
            if value.is_null() {
                *value = empty;
            } else if value.is_string() != empty.is_string() || value.is_object() != empty.is_object() {
                return Err(wrong(&format!("has a {name} of another type than it should be")));
            }
        }
    }
    Ok(())
}

/// The text of a file, in the Unicode that its byte order mark says.
fn text_of(content: &[u8]) -> Result<String, Problem> {
    let utf16 = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = bytes.chunks_exact(2).map(|pair| unit([pair[0], pair[1]])).collect();
        String::from_utf16(&units).ok()
    };
    let text = match content {
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes),
        _ => std::str::from_utf8(content).ok().map(str::to_owned),
    };
    text.ok_or_else(|| unusable("not a text".into()))
}
