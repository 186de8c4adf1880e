//! Writing a pod's status to the API server, whichever pod it is: a static one's mirror, or one that was bound to the
//! node.
//!
//! As the kubelet does it (`pkg/util/pod`, `PatchPodStatus`): a strategic merge patch of `pods/status` that names the UID,
//! so that conditions of others stay and a pod of the same name that came after is left alone.

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{Patch, PatchParams};
use kube::core::Request;
use kube::{Client, Resource};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::agent::apiserver::call::{CallError, within_limit};

/// Fields that are the node's: one that is not said any more is taken away, where a patch without it would leave it.
const NODES_OWN: &[&str] = &[
    "message",
    "reason",
    "hostIP",
    "hostIPs",
    "podIP",
    "podIPs",
    "containerStatuses",
    "initContainerStatuses",
    "ephemeralContainerStatuses",
];
/// The same in each condition.
const CONDITIONS_OWN: &[&str] = &["message", "reason"];
/// Lists that a strategic merge patch merges by `ip`.
const ADDRESSES: &[&str] = &["hostIPs", "podIPs"];

/// What became of a status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    /// The API server has it.
    Kept {
        /// The pod's resource version since then; the one before, where the API server had it already.
        version: String,
    },
    /// The pod is gone, or one of the same name has come after it.
    Gone,
}

/// Gives the pod of this namespace, name and UID this status. `status.observedGeneration` is the caller's: the generation
/// of a pod that the API server gave the node, None of a mirror.
///
/// # Errors
/// When the API server cannot be asked, does not answer in time, or refuses; that the pod is gone is no error.
pub async fn patch_status(
    client: &Client,
    namespace: &str,
    name: &str,
    uid: &str,
    status: &PodStatus,
) -> Result<Sent, CallError> {
    let wanted = body(uid, status);
    let one = Target { client, namespace, name };
    match one.patch(&wanted).await {
        Ok(version) => Ok(Sent::Kept { version }),
        // Not found, and a UID that is another's: which code that is depends on the server's version.
        Err(error) if error.code() == Some(404) => Ok(Sent::Gone),
        Err(error) if matches!(error.code(), Some(409 | 422)) => {
            let Some(found) = one.get().await?.filter(|found| found.metadata.uid == uid) else { return Ok(Sent::Gone) };
            // Merged with an address that the pod had before, there would be two of a family.
            let old = found.status.others(&wanted);
            if old.is_empty() {
                return Err(error);
            }
            one.patch(&without(wanted, &old)).await.map(|version| Sent::Kept { version })
        }
        Err(error) => Err(error),
    }
}

struct Target<'a> {
    client: &'a Client,
    namespace: &'a str,
    name: &'a str,
}

impl Target<'_> {
    fn request(&self) -> Request {
        Request::new(Pod::url_path(&(), Some(self.namespace)))
    }

    async fn patch(&self, body: &Value) -> Result<String, CallError> {
        let patch = Patch::Strategic(body);
        let request = self.request().patch_subresource("status", self.name, &PatchParams::default(), &patch);
        let request = request.map_err(kube::Error::BuildRequest);
        let found: Found = within_limit(async { self.client.request(request?).await }).await?;
        Ok(found.metadata.resource_version)
    }

    async fn get(&self) -> Result<Option<Found>, CallError> {
        let request = self.request().get(self.name, &kube::api::GetParams::default());
        let request = request.map_err(kube::Error::BuildRequest);
        match within_limit(async { self.client.request(request?).await }).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.code() == Some(404) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// What is needed of a pod as the API server has it.
#[derive(Debug, Deserialize)]
struct Found {
    #[serde(default)]
    metadata: FoundMetadata,
    #[serde(default)]
    status: FoundStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct FoundMetadata {
    uid: String,
    resource_version: String,
}

/// The lists of addresses, by their names.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct FoundStatus {
    #[serde(rename = "hostIPs")]
    host_ips: Vec<Address>,
    #[serde(rename = "podIPs")]
    pod_ips: Vec<Address>,
}

#[derive(Debug, Deserialize)]
struct Address {
    ip: String,
}

impl FoundStatus {
    /// Addresses that the status of `body` does not have, with the list they are in.
    fn others(&self, body: &Value) -> Vec<(&'static str, String)> {
        let lists = [&self.host_ips, &self.pod_ips];
        let all = ADDRESSES.iter().zip(lists).flat_map(|(list, found)| found.iter().map(move |one| (*list, &one.ip)));
        let wanted = |list: &str, ip: &String| {
            body["status"][list].as_array().into_iter().flatten().any(|one| one["ip"] == ip.as_str())
        };
        all.filter(|(list, ip)| !wanted(list, ip)).map(|(list, ip)| (list, ip.clone())).collect()
    }
}

/// The patch: everything the status says, and null for what it does not say any more.
fn body(uid: &str, status: &PodStatus) -> Value {
    // These types are structs of texts, numbers, maps and lists of them: there is none that JSON cannot hold.
    let mut status = serde_json::to_value(status).unwrap_or_default();
    if let Some(fields) = status.as_object_mut() {
        take_away(fields, NODES_OWN);
        for condition in fields.get_mut("conditions").and_then(Value::as_array_mut).into_iter().flatten() {
            condition.as_object_mut().into_iter().for_each(|fields| take_away(fields, CONDITIONS_OWN));
        }
    }
    json!({"metadata": {"uid": uid}, "status": status})
}

fn take_away(fields: &mut Map<String, Value>, names: &[&str]) {
    for name in names {
        fields.entry(*name).or_insert(Value::Null);
    }
}

/// The same patch, which takes these addresses out of their lists too.
fn without(mut body: Value, addresses: &[(&'static str, String)]) -> Value {
    for (list, ip) in addresses {
        if let Some(list) = body["status"][*list].as_array_mut() {
            list.push(json!({"$patch": "delete", "ip": ip}));
        }
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::api::FakeApi;

    const PODS: &str = "/api/v1/namespaces/n/pods";

    fn status(value: Value) -> PodStatus {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_is_not_said_any_more_is_taken_away_and_the_rest_left_to_others() {
        let conditions = json!([{"type": "Ready", "status": "True", "lastTransitionTime": "2024-01-01T00:00:00Z"}]);
        let said = status(json!({"phase": "Running", "podIP": "10.0.0.1", "conditions": conditions}));
        let body = body("u", &said);
        assert_eq!(body["metadata"], json!({"uid": "u"}), "labels and all else of the metadata are not touched");
        assert_eq!((&body["status"]["phase"], &body["status"]["podIP"]), (&json!("Running"), &json!("10.0.0.1")));
        let fields = body["status"].as_object().unwrap();
        let taken: Vec<_> = fields.iter().filter(|(_, value)| value.is_null()).map(|(name, _)| name.as_str()).collect();
        for gone in ["message", "reason", "podIPs", "containerStatuses", "initContainerStatuses"] {
            assert!(taken.contains(&gone), "{gone} in {taken:?}");
        }
        for others in ["qosClass", "startTime", "observedGeneration", "nominatedNodeName"] {
            assert!(!fields.contains_key(others), "{others} in {body}");
        }
        let expected = json!([{"type": "Ready", "status": "True", "lastTransitionTime": "2024-01-01T00:00:00Z",
                               "reason": null, "message": null}]);
        assert_eq!(body["status"]["conditions"], expected);
    }

    #[test]
    fn addresses_that_a_pod_had_before_are_taken_out_by_name() {
        let body = body("u", &status(json!({"podIPs": [{"ip": "10.0.0.2"}], "hostIPs": [{"ip": "192.168.0.1"}]})));
        let found = r#"{"podIPs": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}], "hostIPs": [{"ip": "192.168.0.1"}]}"#;
        let found: FoundStatus = serde_json::from_str(found).unwrap();
        let others = found.others(&body);
        assert_eq!(others, [("podIPs", "10.0.0.1".to_owned())]);
        let body = without(body, &others);
        assert_eq!(body["status"]["podIPs"], json!([{"ip": "10.0.0.2"}, {"$patch": "delete", "ip": "10.0.0.1"}]));
        assert_eq!(body["status"]["hostIPs"], json!([{"ip": "192.168.0.1"}]));
    }

    fn running(ip: &str) -> PodStatus {
        status(json!({"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]}))
    }

    #[tokio::test]
    async fn a_status_goes_to_the_pod_of_this_uid_and_to_no_other() {
        let (api, client) = FakeApi::serve().await;
        let pod = json!({"metadata": {"name": "p", "namespace": "n"}, "status": {"phase": "Pending", "reason": "Old"}});
        let uid = api.put(PODS, pod);
        let sent = patch_status(&client, "n", "p", &uid, &running("10.0.0.1")).await.unwrap();
        let found = api.get(&format!("{PODS}/p"));
        assert_eq!(sent, Sent::Kept { version: found["metadata"]["resourceVersion"].as_str().unwrap().to_owned() });
        assert_eq!((&found["status"]["phase"], found["status"].get("reason")), (&json!("Running"), None));
        assert_eq!(patch_status(&client, "n", "p", "another", &running("10.0.0.2")).await.unwrap(), Sent::Gone);
        assert_eq!(patch_status(&client, "n", "none", &uid, &running("10.0.0.2")).await.unwrap(), Sent::Gone);
        assert_eq!(api.get(&format!("{PODS}/p"))["status"]["podIP"], "10.0.0.1");
        api.fail("PATCH", PODS, &[503]);
        assert_eq!(patch_status(&client, "n", "p", &uid, &running("10.0.0.2")).await.unwrap_err().code(), Some(503));
    }

    #[tokio::test]
    async fn a_status_that_is_refused_for_an_old_address_is_sent_again_without_it() {
        let (api, client) = FakeApi::serve().await;
        let pod = json!({"metadata": {"name": "p", "namespace": "n"}, "status": {"podIPs": [{"ip": "10.0.0.1"}]}});
        let uid = api.put(PODS, pod);
        api.fail("PATCH", PODS, &[422]);
        let sent = patch_status(&client, "n", "p", &uid, &running("10.0.0.2")).await.unwrap();
        assert!(matches!(sent, Sent::Kept { .. }), "{sent:?}");
        let list = json!([{"ip": "10.0.0.2"}, {"$patch": "delete", "ip": "10.0.0.1"}]);
        assert_eq!(api.bodies("PATCH").last().unwrap()["status"]["podIPs"], list);
        // No address is too many: it is refused for another reason.
        let pod = json!({"metadata": {"name": "q", "namespace": "n"}});
        let uid = api.put(PODS, pod);
        api.fail("PATCH", PODS, &[422]);
        let refused = patch_status(&client, "n", "q", &uid, &running("10.0.0.2")).await.unwrap_err();
        assert_eq!(refused.code(), Some(422));
    }
}
