//! A mirror as it is made, and what is kept of one that the API server has.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;
use serde::Deserialize;

use super::plan::Mirror;
use crate::agent::apiserver::registered::NodeIdentity;
use crate::agent::pod::{CONFIG_MIRROR, PodKey, StaticPod};

/// The mirror of a pod on this node: what NodeRestriction lets a node make, with the one owner it asks for.
pub fn of(pod: &StaticPod, node: &NodeIdentity) -> Pod {
    let mut annotations = pod.metadata.annotations.clone().unwrap_or_default();
    annotations.insert(CONFIG_MIRROR.to_owned(), pod.uid.clone());
    let owner = OwnerReference {
        api_version: Node::api_version(&()).into_owned(),
        kind: Node::kind(&()).into_owned(),
        name: node.name.clone(),
        uid: node.uid.clone(),
        controller: Some(true),
        block_owner_deletion: None,
    };
    let metadata = ObjectMeta {
        name: Some(pod.key.name.clone()),
        namespace: Some(pod.key.namespace.clone()),
        labels: pod.metadata.labels.clone(),
        annotations: Some(annotations),
        owner_references: Some(vec![owner]),
        ..ObjectMeta::default()
    };
    Pod { metadata, spec: Some(pod.spec.clone()), status: None }
}

/// A pod of this node, as the API server tells of it: its metadata, and of that what is used.
#[derive(Debug, Clone, Deserialize)]
pub struct Found {
    metadata: Metadata,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata {
    namespace: String,
    name: String,
    uid: String,
    resource_version: String,
    deletion_timestamp: Option<String>,
    annotations: Option<BTreeMap<String, String>>,
    owner_references: Option<Vec<Owner>>,
}

#[derive(Debug, Clone, Deserialize)]
struct Owner {
    kind: String,
    uid: String,
}

/// Every pod of this node.
#[derive(Debug, Deserialize)]
pub struct FoundList {
    metadata: ListMetadata,
    /// null where there are none: Go's lists are so where they were never made.
    items: Option<Vec<Found>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListMetadata {
    resource_version: String,
}

impl Found {
    /// Its UID.
    pub fn uid(&self) -> &str {
        &self.metadata.uid
    }

    /// Its resource version.
    pub fn version(&self) -> &str {
        &self.metadata.resource_version
    }

    /// By what it is found.
    pub fn key(&self) -> PodKey {
        PodKey { namespace: self.metadata.namespace.clone(), name: self.metadata.name.clone() }
    }

    /// What is kept of it; None of a pod that is no mirror.
    pub fn into_mirror(self) -> Option<Mirror> {
        let Metadata { uid, resource_version, deletion_timestamp, annotations, owner_references, .. } = self.metadata;
        Some(Mirror {
            hash: annotations?.remove(CONFIG_MIRROR)?,
            node: owner_references.into_iter().flatten().find(|owner| owner.kind == "Node").map(|owner| owner.uid),
            deleting: deletion_timestamp.is_some(),
            version: resource_version,
            uid,
        })
    }
}

impl FoundList {
    /// The version to watch from, and the mirrors.
    pub fn into_mirrors(self) -> (String, BTreeMap<PodKey, Mirror>) {
        let mirrors = self.items.into_iter().flatten().filter_map(|found| Some((found.key(), found.into_mirror()?)));
        (self.metadata.resource_version, mirrors.collect())
    }
}
