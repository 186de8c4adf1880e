use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http::Response;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Secret};
use tokio::net::TcpListener;

use super::*;

/// A tiny API server: objects by path, resource versions that must match, and faults for the first requests.
#[derive(Default)]
struct Server {
    objects: std::collections::BTreeMap<String, Value>,
    /// Codes and kinds (of the status' details) that are answered before anything else.
    faults: Vec<(u16, &'static str)>,
    requests: Vec<String>,
    version: u64,
}

impl Server {
    fn answer(&mut self, method: &str, path: &str, body: &[u8]) -> (u16, Value) {
        self.requests.push(format!("{method} {path}"));
        if let Some((code, kind)) = (!self.faults.is_empty()).then(|| self.faults.remove(0)) {
            return (code, status(code, kind));
        }
        let sent: Value = serde_json::from_slice(body).unwrap_or_default();
        if method == "POST" {
            let path = format!("{path}/{}", sent["metadata"]["name"].as_str().unwrap());
            if self.objects.contains_key(&path) {
                return (409, status(409, ""));
            }
            return self.keep(path, sent);
        }
        let Some(current) = self.objects.get(path).cloned() else { return (404, status(404, "")) };
        if method == "GET" {
            return (200, current);
        }
        if sent["metadata"]["resourceVersion"] != current["metadata"]["resourceVersion"] {
            return (409, status(409, "conflict"));
        }
        let mut new = current;
        match method {
            "PUT" => new = sent,
            "PATCH" => json_patch::merge(&mut new, &sent),
            other => panic!("{other}"),
        }
        self.keep(path.to_owned(), new)
    }

    fn keep(&mut self, path: String, mut object: Value) -> (u16, Value) {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        object["metadata"]["uid"] = json!(format!("uid of {path}"));
        self.objects.insert(path, object.clone());
        (201, object)
    }
}

fn status(code: u16, kind: &str) -> Value {
    let reason = match (code, kind) {
        (409, "") => "AlreadyExists",
        (409, _) => "Conflict",
        (404, _) => "NotFound",
        _ => "Other",
    };
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": "m",
           "details": {"kind": kind, "name": "n"}})
}

async fn serve() -> (Client, Arc<Mutex<Server>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Arc::new(Mutex::new(Server::default()));
    let shared = server.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let shared = shared.clone();
            let answer = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let shared = shared.clone();
                async move {
                    let (method, path) = (request.method().to_string(), request.uri().path().to_owned());
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    let (code, value) = shared.lock().unwrap().answer(&method, &path, &body);
                    let body = Full::new(Bytes::from(value.to_string()));
                    Ok::<_, Infallible>(Response::builder().status(code).body(body).unwrap())
                }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
        }
    });
    let mut config = kube::Config::new(format!("http://{address}").parse().unwrap());
    config.default_retry = false;
    (Client::try_from(config).unwrap(), server)
}

fn target(client: &Client) -> Target<'static> {
    Target { client: client.clone(), endpoint: "https://here", limit: Duration::from_secs(20) }
}

fn config_map(name: &str, value: &str) -> Object {
    let value = json!({"metadata": {"name": name, "namespace": "n"}, "data": {"k": value}});
    Object::new(&serde_json::from_value::<ConfigMap>(value).unwrap())
}

async fn outcomes(client: &Client, objects: &[Object]) -> Vec<Outcome> {
    target(client).apply(objects).await.unwrap().into_iter().map(|applied| applied.outcome).collect()
}

const PATH: &str = "/api/v1/namespaces/n/configmaps";

#[tokio::test]
async fn objects_are_made_once_and_then_kept_up_to_date() {
    let (client, server) = serve().await;
    let many: Vec<Object> = (0..20).map(|n| config_map(&format!("c{n}"), "v")).collect();
    assert_eq!(outcomes(&client, &many).await, vec![Outcome::Created; 20]);
    assert_eq!(outcomes(&client, &many).await, vec![Outcome::Unchanged; 20]);
    let before = server.lock().unwrap().version;
    assert_eq!(outcomes(&client, &[config_map("c1", "new")]).await, [Outcome::Updated]);
    assert_eq!(server.lock().unwrap().version, before + 1);
    let found = target(&client).get(&config_map("c1", "")).await.unwrap().unwrap();
    assert_eq!(found["data"]["k"], "new");
    assert_eq!(target(&client).get(&config_map("none", "")).await.unwrap(), None);
}

#[tokio::test]
async fn whatever_may_pass_is_tried_again() {
    let (client, server) = serve().await;
    // The namespace is not there yet, the server is busy, not ready, does not yet know the administrators.
    server.lock().unwrap().faults = vec![(404, "namespaces"), (429, ""), (503, ""), (403, ""), (500, "")];
    assert_eq!(outcomes(&client, &[config_map("a", "v")]).await, [Outcome::Created]);
    assert_eq!(server.lock().unwrap().requests, vec![format!("POST {PATH}"); 6]);
}

#[tokio::test]
async fn what_never_will_is_told_at_once() {
    let (client, server) = serve().await;
    server.lock().unwrap().faults = vec![(422, "")];
    let error = target(&client).apply(&[config_map("a", "v")]).await.unwrap_err();
    assert_eq!(error.to_string(), "the API server at https://here refuses to write the ConfigMap n/a");
    assert_eq!(server.lock().unwrap().requests, [format!("POST {PATH}"), format!("GET {PATH}/a")]);
}

#[tokio::test]
async fn one_that_is_invalid_only_because_it_is_there_is_kept_up_to_date() {
    let (client, server) = serve().await;
    outcomes(&client, &[config_map("a", "v")]).await;
    for (value, outcome) in [("v", Outcome::Unchanged), ("new", Outcome::Updated)] {
        server.lock().unwrap().faults = vec![(422, "")];
        assert_eq!(outcomes(&client, &[config_map("a", value)]).await, [outcome]);
    }
}

#[tokio::test]
async fn one_that_somebody_deletes_or_changes_in_between_is_written_all_the_same() {
    let (client, server) = serve().await;
    // There when it was made, gone when it was read.
    server.lock().unwrap().faults = vec![(409, ""), (404, "")];
    assert_eq!(outcomes(&client, &[config_map("a", "v")]).await, [Outcome::Created]);
    // Exists; read; changed by another client before the update.
    server.lock().unwrap().requests.clear();
    let read = server.lock().unwrap().objects[&format!("{PATH}/a")].clone();
    let shared = server.clone();
    let racing = async move {
        loop {
            let asked = shared.lock().unwrap().requests.len();
            if asked >= 2 {
                let mut server = shared.lock().unwrap();
                server.faults = vec![(409, "conflict")];
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    let new = [config_map("a", "new")];
    let (outcome, ()) = tokio::join!(outcomes(&client, &new), racing);
    assert!(outcome == [Outcome::Updated] && read["data"]["k"] == "v", "{outcome:?}");
    assert_eq!(server.lock().unwrap().objects[&format!("{PATH}/a")]["data"]["k"], "new");
}

#[tokio::test]
async fn what_others_write_into_an_object_stays_where_it_is_merged() {
    let (client, server) = serve().await;
    let path = format!("{PATH}/a");
    outcomes(&client, &[config_map("a", "v")]).await;
    server.lock().unwrap().objects.get_mut(&path).unwrap()["data"]["theirs"] = json!("x");
    assert_eq!(outcomes(&client, &[config_map("a", "w").with(WriteMode::Merge)]).await, [Outcome::Updated]);
    assert_eq!(server.lock().unwrap().objects[&path]["data"], json!({"k": "w", "theirs": "x"}));
    assert_eq!(outcomes(&client, &[config_map("a", "w")]).await, [Outcome::Updated]);
    assert_eq!(server.lock().unwrap().objects[&path]["data"], json!({"k": "w"}));
}

#[tokio::test]
async fn a_node_that_is_not_there_is_waited_for_and_not_made() {
    let (client, server) = serve().await;
    let spec = crate::testing::spec();
    let mark = crate::cluster::node::mark(&spec);
    let hurried = Target { limit: Duration::from_millis(300), ..target(&client) };
    let applied = hurried.apply(std::slice::from_ref(&mark)).await.unwrap();
    assert_eq!(applied[0].outcome, Outcome::Absent);
    let asked = server.lock().unwrap().requests.len();
    let node: Node = serde_json::from_value(json!({"metadata": {"name": "cp1"}})).unwrap();
    let register = async {
        while server.lock().unwrap().requests.len() == asked {
            tokio::task::yield_now().await;
        }
        outcomes(&client, &[Object::new(&node)]).await
    };
    let marks = std::slice::from_ref(&mark);
    let both = tokio::join!(outcomes(&client, marks), register);
    assert_eq!(both, (vec![Outcome::Updated], vec![Outcome::Created]));
    assert_eq!(outcomes(&client, &[mark]).await, [Outcome::Unchanged]);
    let labels = server.lock().unwrap().objects["/api/v1/nodes/cp1"]["metadata"]["labels"].clone();
    assert_eq!(labels["node-role.kubernetes.io/control-plane"], "");
}

#[tokio::test]
async fn what_is_owned_comes_after_its_owner_and_names_it() {
    let (client, server) = serve().await;
    let secret = |name: &str| {
        let value = json!({"metadata": {"name": name, "namespace": "n"}});
        Object::new(&serde_json::from_value::<Secret>(value).unwrap())
    };
    let owner = secret("owner");
    let objects = [secret("owned").owned_by(&owner), owner];
    assert_eq!(outcomes(&client, &objects).await, [Outcome::Created, Outcome::Created]);
    let path = "/api/v1/namespaces/n/secrets/owned";
    let references = server.lock().unwrap().objects[path]["metadata"]["ownerReferences"].clone();
    assert_eq!(references[0]["uid"], "uid of /api/v1/namespaces/n/secrets/owner");
    assert_eq!(outcomes(&client, &objects).await, [Outcome::Unchanged, Outcome::Unchanged]);
}
