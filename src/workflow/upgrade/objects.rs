//! Objects of the cluster that belong to a version: brought up to date, and put back as they were.

use kube::core::ApiResource;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::UpgradeError;
use super::table::Part;
use crate::cluster::addons::{coredns, kube_proxy};
use crate::cluster::apply::Outcome;
use crate::cluster::object::{Object, WriteMode, stripped};
use crate::cluster::{bootstrap, upload_config};
use crate::config::ClusterSpec;
use crate::workflow::machine::Cause;
use crate::workflow::machine::cluster::Api;

/// Objects that belong together.
#[derive(Debug, Clone)]
pub struct Group {
    /// The phase that writes them.
    pub part: Part,
    /// What they are, in words.
    pub title: &'static str,
    /// The objects.
    pub objects: Vec<Object>,
    /// Kind of the object without which the others are not wanted: an addon that no one has is not installed.
    pub only_with: Option<&'static str>,
    /// What the user should know of.
    pub warnings: Vec<String>,
}

impl Group {
    fn always(part: Part, title: &'static str, objects: Vec<Object>) -> Self {
        Self { part, title, objects, only_with: None, warnings: Vec::new() }
    }

    /// The object that decides.
    pub fn decisive(&self) -> Option<&Object> {
        self.objects.iter().find(|object| Some(object.resource.kind.as_str()) == self.only_with)
    }
}

/// The ClusterConfiguration, in kubeadm-config.
///
/// # Errors
/// A configuration that YAML cannot hold.
pub fn kubeadm_config(spec: &ClusterSpec) -> Result<Group, Cause> {
    Ok(Group::always(Part::UploadConfig, "the ClusterConfiguration", upload_config::kubeadm(spec)?))
}

/// The KubeletConfiguration, in kubelet-config.
///
/// # Errors
/// A configuration that YAML cannot hold.
pub fn kubelet_config(spec: &ClusterSpec) -> Result<Group, Cause> {
    Ok(Group::always(Part::UploadConfig, "the KubeletConfiguration", upload_config::kubelet(spec)?))
}

/// What nodes that join may do.
pub fn bootstrap_rights() -> Group {
    Group::always(Part::BootstrapToken, "the rights of nodes that join", bootstrap::rights())
}

/// CoreDNS, where it is; None where the configuration disables it.
///
/// # Errors
/// Patches and settings that cannot be used.
pub fn coredns(spec: &ClusterSpec) -> Result<Option<Group>, Cause> {
    if spec.dns.disabled {
        return Ok(None);
    }
    let objects = coredns::objects(spec)?.objects();
    Ok(Some(Group { only_with: Some("Deployment"), ..Group::always(Part::Addon, "CoreDNS", objects) }))
}

/// kube-proxy, where it is; None where the configuration disables it.
///
/// # Errors
/// Settings that cannot be used.
pub fn kube_proxy(spec: &ClusterSpec, proxy_env: &[(String, String)]) -> Result<Option<Group>, Cause> {
    if spec.proxy.disabled {
        return Ok(None);
    }
    let made = kube_proxy::objects(spec, proxy_env)?;
    let group = Group { only_with: Some("DaemonSet"), ..Group::always(Part::Addon, "kube-proxy", made.objects()) };
    Ok(Some(Group { warnings: made.warnings, ..group }))
}

/// An object as it was before the upgrade.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Before {
    group: String,
    version: String,
    kind: String,
    plural: String,
    namespace: Option<String>,
    name: String,
    /// None where it was not there.
    value: Option<Value>,
}

impl Before {
    fn object(&self) -> Object {
        let api_version = match self.group.as_str() {
            "" => self.version.clone(),
            group => format!("{group}/{}", self.version),
        };
        let value = self.value.clone().unwrap_or_else(|| {
            serde_json::json!({"apiVersion": api_version, "kind": self.kind, "metadata": {"name": self.name, "namespace": self.namespace}})
        });
        let resource = ApiResource {
            group: self.group.clone(),
            version: self.version.clone(),
            api_version,
            kind: self.kind.clone(),
            plural: self.plural.clone(),
        };
        Object { resource, value, mode: WriteMode::Replace, kept: None, owner: None }
    }
}

/// What there is of the objects of `groups`.
///
/// # Errors
/// The API server does not answer.
pub async fn before(api: Api<'_>, groups: &[Group]) -> Result<Vec<Before>, UpgradeError> {
    let mut all = Vec::new();
    for object in groups.iter().flat_map(|group| &group.objects) {
        let value = api.cluster.get(api.site, object).await.map_err(UpgradeError::Unreadable)?;
        let resource = &object.resource;
        all.push(Before {
            group: resource.group.clone(),
            version: resource.version.clone(),
            kind: resource.kind.clone(),
            plural: resource.plural.clone(),
            namespace: object.namespace().map(str::to_owned),
            name: object.name().to_owned(),
            value: value.as_ref().map(|value| {
                let mut value = stripped(value);
                if let Some(fields) = value.as_object_mut() {
                    fields.remove("status");
                }
                value
            }),
        });
    }
    Ok(all)
}

/// Writes one group; returns what there is to say of it.
///
/// # Errors
/// The API server refuses.
pub async fn write(api: Api<'_>, group: &Group) -> Result<String, UpgradeError> {
    let failed = |source| UpgradeError::Objects { what: group.title, source };
    if let Some(decisive) = group.decisive()
        && api.cluster.get(api.site, decisive).await.map_err(failed)?.is_none()
    {
        return Ok(format!("{} is not there, and is left out", group.title));
    }
    let written = api.cluster.apply(api.site, &group.objects).await.map_err(failed)?;
    let changed = written.iter().filter(|one| matches!(one.outcome, Outcome::Created | Outcome::Updated)).count();
    Ok(match changed {
        0 => format!("{}: as it should be", group.title),
        count => format!("{}: {count} of {} objects brought up to date", group.title, written.len()),
    })
}

/// Puts every object back as it was.
///
/// # Errors
/// The API server refuses.
pub async fn restore(api: Api<'_>, before: &[Before]) -> Result<(), UpgradeError> {
    let failed = |source| UpgradeError::Objects { what: "the old objects", source };
    for one in before.iter().filter(|one| one.value.is_none()) {
        api.cluster.remove(api.site, &one.object()).await.map_err(failed)?;
    }
    let old: Vec<Object> = before.iter().filter(|one| one.value.is_some()).map(Before::object).collect();
    api.cluster.apply(api.site, &old).await.map(drop).map_err(failed)
}
