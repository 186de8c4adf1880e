//! From the bytes of a manifest to a pod that may run: decode, identify, default, check.
//!
//! Nothing here touches the machine or the runtime: the same bytes at the same path on the same node give the same pod,
//! with the same UID, on every start of the agent. That is what lets a restarted agent find its containers again.

pub mod sysctls;
pub mod resources;
pub mod downward;
mod bound;
mod decode;
mod defaults;
pub mod election;
mod empties;
mod list;
pub mod phase;
mod quantity;
pub mod surge;
mod unknown;
mod validate;

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use crate::host::digest::sha256;

pub use bound::{API_SOURCE, Bound, CONFIG_MIRROR, ephemeral};
pub use decode::MANIFEST_LIMIT;
pub use list::PodList;
pub use validate::{is_env_name, is_extended_resource};

/// Annotation of a container's AppArmor profile, from before there was a field; the container's name comes behind it.
pub const APPARMOR_ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";
/// Annotation: the UID, which is the hash of the manifest (`kubernetes.io/config.hash`).
pub const CONFIG_HASH: &str = "kubernetes.io/config.hash";
/// Annotation: which kind of source the pod came from.
pub const CONFIG_SOURCE: &str = "kubernetes.io/config.source";
/// Annotation: when the agent first saw it.
pub const CONFIG_SEEN: &str = "kubernetes.io/config.seen";

/// Why a manifest cannot run here. The display says only its own part; the cause is the error's source.
#[derive(Debug, thiserror::Error)]
pub enum PodError {
    /// 10 MiB or more.
    #[error("has {size} bytes, a manifest may have less than {MANIFEST_LIMIT}")]
    TooLarge {
        /// Bytes.
        size: usize,
    },
    /// Not UTF-8.
    #[error("is not UTF-8 text")]
    NotText,
    /// Nothing in it.
    #[error("holds no object")]
    Empty,
    /// Neither JSON nor YAML.
    #[error("cannot be parsed: {message}")]
    Syntax {
        /// The parser's words, with line and column.
        message: String,
    },
    /// Another kind of object.
    #[error("{kind} ({api_version}) is not run from a {from}: only {wanted} (v1) is")]
    Kind {
        /// `kind`.
        kind: String,
        /// `apiVersion`.
        api_version: String,
        /// Which kind of source it came from.
        from: &'static str,
        /// What it may hold.
        wanted: &'static str,
    },
    /// A field of the wrong type.
    #[error("is not a Pod: {message}")]
    Shape {
        /// What field and what is wrong.
        message: String,
    },
    /// One of a list cannot run, and with it the list.
    #[error("items[{index}]")]
    Item {
        /// Which, from 0.
        index: usize,
        /// Why.
        #[source]
        source: Box<PodError>,
    },
    /// Values that Kubernetes refuses, all of them.
    #[error("invalid Pod: {}", problems.join("; "))]
    Invalid {
        /// One sentence each, beginning with the field's path.
        problems: Vec<String>,
    },
}

/// Namespace and name (with the node's suffix): at most one pod of a key runs at a time.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodKey {
    /// Namespace.
    pub namespace: String,
    /// Name with the node's suffix.
    pub name: String,
}

impl fmt::Display for PodKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Where a manifest was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place<'a> {
    /// In this file.
    File(&'a Path),
    /// In what this URL answered.
    Url(&'a str),
}

impl Place<'_> {
    /// The annotation `kubernetes.io/config.source`.
    fn source(self) -> &'static str {
        match self {
            Place::File(_) => "file",
            Place::Url(_) => "http",
        }
    }
}

/// Where a manifest was found, and on which node.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// The node's name in lower case.
    pub node_name: &'a str,
    /// The file or URL; part of the UID.
    pub place: Place<'a>,
    /// The moment, for the annotation `kubernetes.io/config.seen`.
    pub seen: Timestamp,
}

/// A pod as it will be run: decoded, identified, defaulted and checked.
#[derive(Debug, Clone, PartialEq)]
pub struct StaticPod {
    /// Namespace and name.
    pub key: PodKey,
    /// UID.
    pub uid: String,
    /// Metadata with name, namespace, UID and the agent's annotations filled in.
    pub metadata: ObjectMeta,
    /// Spec with Kubernetes' defaults filled in.
    pub spec: PodSpec,
    /// Its ephemeral containers as any others, which only a bound pod has; what they aim at is in the spec.
    pub ephemeral: Vec<Container>,
    /// The object as it was written: a typed round trip would drop fields that this build does not know.
    pub manifest: Value,
    /// The file, None of a pod from a URL.
    pub file: Option<PathBuf>,
    /// SHA-256 in hex of the file's bytes.
    pub file_hash: Option<String>,
    /// What is in the manifest and has no effect, one sentence each.
    pub warnings: Vec<String>,
    /// What the API server says of it, None of a static pod.
    pub bound: Option<Box<Bound>>,
}

impl StaticPod {
    /// Reads a manifest that holds one pod.
    ///
    /// # Errors
    /// Every kind of [`PodError`] but [`PodError::Item`].
    pub fn from_bytes(bytes: &[u8], origin: Origin<'_>) -> Result<Self, PodError> {
        let decoded = decode::decode(bytes)?;
        decode::check_kind(&decoded.value, origin.place)?;
        let typed = decoded.typed()?;
        let mut pod = Self::from_object(decoded.value, typed, origin)?;
        pod.warnings.splice(0..0, decoded.warnings);
        if let Place::File(file) = origin.place {
            (pod.file, pod.file_hash) = (Some(file.to_owned()), Some(sha256(bytes)));
        }
        Ok(pod)
    }

    /// From the object as it was written and as this build understands it.
    fn from_object(value: Value, pod: Pod, origin: Origin<'_>) -> Result<Self, PodError> {
        let mut warnings = unknown::fields(&value, &pod);
        let uid = match pod.metadata.uid.as_deref() {
            Some(uid) if !uid.is_empty() => uid.to_owned(),
            _ => derive_uid(&value, origin),
        };
        let mut metadata = pod.metadata;
        let mut spec = pod.spec.unwrap_or_default();
        empties::forget(&mut spec);
        validate::written(&metadata, &spec)?;
        defaults::metadata(&mut metadata, &uid, origin);
        defaults::spec(&mut spec, origin);
        validate::defaulted(&metadata, &spec)?;
        warnings.extend(validate::without_effect(&spec));
        let key = PodKey {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
        };
        let (ephemeral, manifest) = (vec![], value);
        Ok(Self { key, uid, metadata, spec, ephemeral, manifest, file: None, file_hash: None, warnings, bound: None })
    }

    /// It is the pod that was seen before: it was first seen then.
    pub fn keep_seen(&mut self, before: &Self) {
        let seen = before.metadata.annotations.as_ref().and_then(|map| map.get(CONFIG_SEEN));
        if let (Some(seen), Some(own)) = (seen, &mut self.metadata.annotations) {
            own.insert(CONFIG_SEEN.to_owned(), seen.clone());
        }
    }

    /// The pod as an API object.
    pub fn to_pod(&self) -> Pod {
        Pod { metadata: self.metadata.clone(), spec: Some(self.spec.clone()), status: None }
    }

    /// Whether the API server gets a mirror of it: it has not given the pod itself.
    pub fn has_mirror(&self) -> bool {
        let source = self.metadata.annotations.as_ref().and_then(|annotations| annotations.get(CONFIG_SOURCE));
        source.is_some_and(|source| {
            [Place::File(Path::new("")).source(), Place::Url("").source()].contains(&source.as_str())
        })
    }

    /// A label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.metadata.labels.as_ref()?.get(key).map(String::as_str)
    }

    /// Its containers, init containers first, each with whether it is one.
    pub fn containers(&self) -> impl Iterator<Item = (bool, &Container)> {
        let init = self.spec.init_containers.iter().flatten().map(|c| (true, c));
        init.chain(self.spec.containers.iter().map(|c| (false, c)))
    }

    /// A container by its name, also an ephemeral one.
    pub fn container(&self, name: &str) -> Option<&Container> {
        self.every_container().find(|container| container.name == name)
    }

    /// All its containers, ephemeral ones last.
    pub fn every_container(&self) -> impl Iterator<Item = &Container> {
        self.containers().map(|(_, container)| container).chain(&self.ephemeral)
    }

    /// What the kubelet's metrics call the type of a container.
    pub fn container_type(&self, name: &str) -> &'static str {
        let of = |all: &[Container]| all.iter().any(|container| container.name == name);
        match () {
            () if of(&self.ephemeral) => "ephemeral_container",
            () if self.spec.init_containers.as_deref().is_some_and(of) => "init_container",
            () => "container",
        }
    }

    /// When it was first seen.
    pub fn seen(&self) -> Option<Timestamp> {
        self.metadata.annotations.as_ref()?.get(CONFIG_SEEN)?.parse().ok()
    }

    /// The name of the container whose processes an ephemeral one is to see.
    pub fn target_of(&self, ephemeral: &str) -> Option<&str> {
        let mut all = self.spec.ephemeral_containers.iter().flatten();
        let target = all.find(|one| one.name == ephemeral)?.target_container_name.as_deref();
        target.filter(|name| !name.is_empty())
    }

    /// Hash of what the manifest says of a container; a running one with another hash is replaced. Like the UID it does
    /// not depend on defaults. It differs from the UID's purpose only where the manifest sets its own UID.
    pub fn container_hash(&self, name: &str) -> String {
        let lists = ["initContainers", "containers", "ephemeralContainers"];
        let lists = lists.into_iter().filter_map(|list| self.manifest["spec"][list].as_array());
        let container = lists.flatten().find(|container| container["name"] == name);
        let mut text = self.shared_hash().unwrap_or_default();
        canonical(container.unwrap_or(&Value::Null), &mut text);
        sha256(text.as_bytes())[..16].to_owned()
    }

    /// Hash of what a pod that sets its own UID says of all its containers together, a change of which concerns them and
    /// their sandbox. None for any other pod: there such a change makes another UID.
    pub fn shared_hash(&self) -> Option<String> {
        self.manifest["metadata"]["uid"].as_str().filter(|uid| !uid.is_empty())?;
        let mut spec = self.manifest["spec"].clone();
        if let Some(fields) = spec.as_object_mut() {
            fields
                .retain(|name, _| !["containers", "initContainers", "activeDeadlineSeconds"].contains(&name.as_str()));
        }
        let mut text = String::new();
        canonical(&spec, &mut text);
        Some(sha256(text.as_bytes())[..16].to_owned())
    }

    /// Whether it lives in the machine's network.
    pub fn host_network(&self) -> bool {
        self.spec.host_network.unwrap_or(false)
    }

    /// Whether it needs a pause container to hold its namespaces: all do but a single container in the host's network,
    /// which has no container to share them with and no sysctls to set in them.
    pub fn needs_sandbox(&self) -> bool {
        let sysctls = self.spec.security_context.as_ref().and_then(|context| context.sysctls.as_ref());
        let alone = self.host_network() && self.containers().count() == 1 && sysctls.is_none_or(Vec::is_empty);
        !alone || self.spec.share_process_namespace.unwrap_or(false)
    }

    /// The pod's host name: its name unless `spec.hostname` or `spec.hostnameOverride` says otherwise, 63 characters at
    /// most.
    pub fn hostname(&self) -> String {
        let named = [&self.spec.hostname_override, &self.spec.hostname].into_iter().flatten();
        let name = named.map(String::as_str).find(|name| !name.is_empty()).unwrap_or(&self.key.name);
        let cut: String = name.chars().take(63).collect();
        cut.trim_end_matches(['-', '.']).to_owned()
    }

    /// The domain of a pod with a subdomain. Where the node knows no domain of its cluster it ends with `svc.`, as with the
    /// kubelet.
    pub fn domain(&self, cluster_domain: Option<&str>) -> Option<String> {
        let subdomain = self.spec.subdomain.as_deref().filter(|name| !name.is_empty())?;
        let cluster = cluster_domain.unwrap_or_default();
        let named = self.spec.hostname_override.is_none();
        named.then(|| format!("{subdomain}.{}.svc.{cluster}", self.key.namespace))
    }
}

/// The UID of a pod without one: a hash of what the manifest says (not of how it is laid out), and of the node and the
/// path or of the URL: what a URL answers has the same UIDs on every node, as with the kubelet.
///
/// The object is hashed as written, not as defaulted: a newer agent with a new default must not restart the control
/// plane.
fn derive_uid(value: &Value, origin: Origin<'_>) -> String {
    let mut text = String::new();
    canonical(value, &mut text);
    let seed = match origin.place {
        Place::File(file) => format!("{text}\nhost:{}\nfile:{}", origin.node_name, file.display()),
        Place::Url(url) => format!("{text}\nurl:{url}"),
    };
    sha256(seed.as_bytes())[..32].to_owned()
}

/// JSON with sorted keys and without nulls, whatever order the map keeps.
fn canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().filter(|(_, v)| !v.is_null()).collect();
            entries.sort_by_key(|(key, _)| *key);
            out.push('{');
            for (key, value) in entries {
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                canonical(value, out);
                out.push(',');
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for item in items {
                canonical(item, out);
                out.push(',');
            }
            out.push(']');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}

/// A path in a container, as the kubelet gives it to the runtime: a relative one is below `/`, without `.` and `..`.
pub fn container_path(path: &str) -> Cow<'_, str> {
    if path.starts_with('/') {
        return Cow::Borrowed(path);
    }
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    Cow::Owned(format!("/{}", parts.join("/")))
}

#[cfg(test)]
pub(crate) mod tests;
#[cfg(test)]
pub(crate) use bound::tests as bound_tests;
