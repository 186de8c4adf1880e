//! The addons that kubeadm installs: CoreDNS and kube-proxy. Each is a template, filled in, parsed into typed objects and
//! patched; [`coredns::objects`] and [`kube_proxy::objects`] are pure.

pub mod coredns;
pub mod corefile;
pub mod kube_proxy;

#[cfg(test)]
mod tests;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::object::Object;
use crate::kubelet::files::KubeletFilesError;
use crate::manifests::patches::PatchError;
use crate::manifests::typed::{self, NotTyped};
use crate::yaml::{self, EmitError, YamlError};

/// An addon whose objects cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum AddonError {
    /// The template could not be filled in.
    #[error("cannot fill in the template of {addon}")]
    Template {
        /// Whose.
        addon: &'static str,
        /// Why.
        #[source]
        source: askama::Error,
    },
    /// What the template gave is no YAML.
    #[error("the template of {addon} gave no YAML")]
    Yaml {
        /// Whose.
        addon: &'static str,
        /// Why.
        #[source]
        source: YamlError,
    },
    /// An object that is not of its type, as a rule because of a patch.
    #[error("the {kind} of {addon} is not one; look at its patches")]
    NotTyped {
        /// Whose.
        addon: &'static str,
        /// What it should be.
        kind: String,
        /// Why it is not.
        #[source]
        source: NotTyped,
    },
    /// The template has no such object.
    #[error("the template of {addon} has no {kind}")]
    NoObject {
        /// Whose.
        addon: &'static str,
        /// What is missing.
        kind: String,
    },
    /// A patch that cannot be read or applied.
    #[error("cannot patch {addon}")]
    Patch {
        /// Whose.
        addon: &'static str,
        /// Why.
        #[source]
        source: PatchError,
    },
    /// A document in an object that cannot be written as YAML.
    #[error("cannot write the settings of {addon} as YAML")]
    Emit {
        /// Whose.
        addon: &'static str,
        /// Why.
        #[source]
        source: EmitError,
    },
    /// A service network too small for a DNS server.
    #[error(transparent)]
    Network(#[from] KubeletFilesError),
    /// A domain that a Corefile cannot hold; validation lets none through.
    #[error("{domain:?} is no domain that a Corefile can hold")]
    Domain {
        /// Which.
        domain: String,
    },
    /// A field of the user's KubeProxyConfiguration that is none, or of another type.
    #[error("KubeProxyConfiguration: {problem}")]
    KubeProxyField {
        /// Which, and what is wrong with it.
        problem: String,
    },
}

/// The objects of one template, by kind.
struct Objects {
    addon: &'static str,
    values: Vec<Value>,
}

impl Objects {
    fn parse(addon: &'static str, text: &str) -> Result<Self, AddonError> {
        let yaml = |source| AddonError::Yaml { addon, source };
        let documents = yaml::documents(text).map_err(yaml)?;
        let values = documents.iter().map(yaml::confirmed).collect::<Result<_, _>>();
        Ok(Self { addon, values: values.map_err(yaml)? })
    }

    /// The object of a kind, taken out.
    fn take(&mut self, kind: &str) -> Result<Value, AddonError> {
        match self.values.iter().position(|value| value["kind"] == kind) {
            Some(at) => Ok(self.values.remove(at)),
            None => Err(AddonError::NoObject { addon: self.addon, kind: kind.to_owned() }),
        }
    }

    /// The same as its type.
    fn typed<T: Serialize + DeserializeOwned>(&mut self, kind: &str) -> Result<T, AddonError> {
        let value = self.take(kind)?;
        self.decode(kind, value)
    }

    fn decode<T: Serialize + DeserializeOwned>(&self, kind: &str, value: Value) -> Result<T, AddonError> {
        let not_typed = |source| AddonError::NotTyped { addon: self.addon, kind: kind.to_owned(), source };
        typed::decode(value, "/spec/template").map_err(not_typed)
    }
}

/// Objects as one stream of YAML documents.
///
/// # Errors
/// None but those of writing YAML.
pub fn manifests(objects: &[Object]) -> Result<String, EmitError> {
    let documents = objects.iter().map(|object| object.shown().map(|text| format!("---\n{text}")));
    documents.collect()
}
