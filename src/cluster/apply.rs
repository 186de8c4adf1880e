//! Writing objects: each made or brought up to date, side by side, tried again until its time is up.

use std::time::Duration;

use futures::stream::{self, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Node;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::DynamicObject;
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::ClusterError;
use super::client::Attempt;
use super::object::{Object, Update, WriteMode};

/// Requests that are under way at a time: more only queue up in the API server and etcd.
const AT_A_TIME: usize = 8;

/// How long a Node is waited for that is only marked: its agent announces it when the API server is up.
const NODE_LIMIT: Duration = Duration::from_secs(15);
/// How often it is looked for.
const NODE_CHECK: Duration = Duration::from_millis(250);

/// What became of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is new.
    Created,
    /// It was there, and is other than before.
    Updated,
    /// It was there, as it should be.
    Unchanged,
    /// It is not there, and is not made.
    Absent,
}

/// An object that was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Applied {
    /// What became of it.
    pub outcome: Outcome,
    /// Its `metadata.uid`; empty where it is absent.
    pub uid: String,
}

/// The API server, and how long one object may take.
pub struct Target<'a> {
    /// With the credentials of an administrator.
    pub client: Client,
    /// `https://host:port`, for messages.
    pub endpoint: &'a str,
    /// How long one object may take.
    pub limit: Duration,
}

impl Target<'_> {
    /// Writes `objects` side by side; those that have an owner after the others. Returns what became of each, in order.
    ///
    /// # Errors
    /// The first object that the API server refuses, or that was not written in time.
    pub async fn apply(&self, objects: &[Object]) -> Result<Vec<Applied>, ClusterError> {
        let mut done: Vec<Option<Applied>> = vec![None; objects.len()];
        for owned in [false, true] {
            let wave: Vec<_> = (0..objects.len()).filter(|at| objects[*at].owner.is_some() == owned).collect();
            let uids = wave.iter().map(|at| self.with_owner(&objects[*at], objects, &done)).collect::<Vec<_>>();
            let written = stream::iter(uids).map(|object| async move { self.write(&object).await });
            let written: Vec<Applied> = written.buffered(AT_A_TIME).try_collect().await?;
            wave.into_iter().zip(written).for_each(|(at, applied)| done[at] = Some(applied));
        }
        Ok(done.into_iter().flatten().collect())
    }

    /// The object with the id of its owner, which has been written.
    fn with_owner(&self, object: &Object, all: &[Object], done: &[Option<Applied>]) -> Object {
        let mut object = object.clone();
        let Some(owner) = object.owner.clone() else { return object };
        let is_owner = |one: &Object| one.name() == owner && one.resource.kind == object.resource.kind;
        let at = all.iter().position(is_owner);
        let uid = at.and_then(|at| done[at].as_ref()).map(|applied| applied.uid.clone()).unwrap_or_default();
        object.value["metadata"]["ownerReferences"] = json!([{
            "apiVersion": object.resource.api_version,
            "kind": object.resource.kind,
            "name": owner,
            "uid": uid,
            "controller": true,
            "blockOwnerDeletion": true,
        }]);
        object
    }

    async fn write(&self, object: &Object) -> Result<Applied, ClusterError> {
        let what = format!("write the {}", object.key());
        let api = self.api(object);
        let attempt = Attempt { what: &what, endpoint: self.endpoint, limit: self.limit };
        let deadline = Instant::now() + self.limit.min(NODE_LIMIT);
        loop {
            let applied = attempt.retry(|| write_once(&api, object)).await?;
            if applied.outcome != Outcome::Absent || Instant::now() + NODE_CHECK >= deadline {
                return Ok(applied);
            }
            sleep(NODE_CHECK).await;
        }
    }

    /// The object of this key as it is; None where there is none.
    ///
    /// # Errors
    /// The API server refuses, or does not answer in time.
    pub async fn get(&self, object: &Object) -> Result<Option<Value>, ClusterError> {
        let what = format!("read the {}", object.key());
        let api = self.api(object);
        let get = || async { api.get_opt(object.name()).await };
        let found = Attempt { what: &what, endpoint: self.endpoint, limit: self.limit }.retry(get).await?;
        Ok(found.map(value_of))
    }

    /// Removes the object of this key, if there is one.
    ///
    /// # Errors
    /// Those of [`Self::get`].
    pub async fn remove(&self, object: &Object) -> Result<(), ClusterError> {
        let what = format!("remove the {}", object.key());
        let api = self.api(object);
        let remove = || async {
            match api.delete(object.name(), &DeleteParams::default()).await {
                Ok(_) => Ok(()),
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
                Err(error) => Err(error),
            }
        };
        Attempt { what: &what, endpoint: self.endpoint, limit: self.limit }.retry(remove).await
    }

    /// Whether the API server would make the object: it does all it does for that, and keeps nothing.
    ///
    /// # Errors
    /// It would not, or does not answer in time.
    pub async fn would_make(&self, object: &Object) -> Result<(), ClusterError> {
        let what = format!("make a {}", object.resource.kind);
        let api = self.api(object);
        let params = PostParams { dry_run: true, field_manager: Some(super::FIELD_MANAGER.into()) };
        let make = || async { api.create(&params, &typed(object, object.value.clone())?).await.map(drop) };
        Attempt { what: &what, endpoint: self.endpoint, limit: self.limit }.retry(make).await
    }

    /// The nodes that have this label; an empty one stands for all nodes.
    ///
    /// # Errors
    /// Those of [`Self::get`].
    pub async fn list_nodes(&self, label: &str) -> Result<Vec<Value>, ClusterError> {
        let api: Api<Node> = Api::all(self.client.clone());
        let params = ListParams::default().labels(label);
        let list = || async { api.list(&params).await };
        let found = Attempt { what: "list the nodes", endpoint: self.endpoint, limit: self.limit }.retry(list).await?;
        // They came as JSON.
        Ok(found.items.iter().map(|node| serde_json::to_value(node).unwrap_or_default()).collect())
    }

    /// The API server's own metrics, in Prometheus' text format.
    ///
    /// # Errors
    /// Those of [`Self::get`].
    pub async fn metrics(&self) -> Result<String, ClusterError> {
        let read = || async {
            let request = http::Request::get("/metrics").body(Vec::new()).map_err(kube::Error::HttpError)?;
            self.client.request_text(request).await
        };
        Attempt { what: "read the metrics", endpoint: self.endpoint, limit: self.limit }.retry(read).await
    }

    fn api(&self, object: &Object) -> Api<DynamicObject> {
        match object.namespace() {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &object.resource),
            None => Api::all_with(self.client.clone(), &object.resource),
        }
    }
}

/// One try. Whatever another client does in between (deletes it, changes it) is a conflict, which is tried again.
async fn write_once(api: &Api<DynamicObject>, object: &Object) -> Result<Applied, kube::Error> {
    let params = PostParams { field_manager: Some(super::FIELD_MANAGER.into()), ..PostParams::default() };
    let exists = match object.mode {
        WriteMode::Amend(_) => None,
        _ => match api.create(&params, &typed(object, object.value.clone())?).await {
            Ok(made) => return Ok(Applied { outcome: Outcome::Created, uid: uid(&made) }),
            Err(error) if may_be_there(&error) => Some(error),
            Err(error) => return Err(error),
        },
    };
    let current = match (api.get_opt(object.name()).await?, exists) {
        (Some(current), _) => current,
        (None, Some(refusal)) => return Err(refusal),
        (None, None) => return Ok(Applied { outcome: Outcome::Absent, uid: String::new() }),
    };
    let uid = uid(&current);
    match object.update(&value_of(current)) {
        None => return Ok(Applied { outcome: Outcome::Unchanged, uid }),
        Some(Update::Put(value)) => drop(api.replace(object.name(), &params, &typed(object, value)?).await?),
        Some(Update::Patch(patch)) => {
            let params = PatchParams { field_manager: params.field_manager, ..PatchParams::default() };
            api.patch(object.name(), &params, &Patch::Merge(&patch)).await?;
        }
    }
    Ok(Applied { outcome: Outcome::Updated, uid })
}

/// Whether the object may be why it cannot be made. A Service whose address was chosen is refused as invalid, before its
/// name is looked at, because the address is taken: by itself.
fn may_be_there(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_already_exists() || status.code == 422)
}

fn typed(object: &Object, value: Value) -> Result<DynamicObject, kube::Error> {
    object.dynamic(value).map_err(kube::Error::SerdeError)
}

fn value_of(object: DynamicObject) -> Value {
    // It came as JSON.
    serde_json::to_value(object).unwrap_or_default()
}

fn uid(object: &DynamicObject) -> String {
    object.metadata.uid.clone().unwrap_or_default()
}

#[cfg(test)]
mod tests;
