//! Bound pods from the API server to the runtime and back: both in memory, the agent between them whole.

mod classes;
mod devices;
mod ends;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::agent::context::Context;
use crate::agent::options::AgentOptions;
use crate::agent::options::PAUSE_IMAGE;
use crate::agent::probe::{Checker, Prober};
use crate::agent::source;
use crate::agent::volumes::refresh;
use crate::agent::worker::runtime_watch;
use crate::agent::worker::supervisor::Supervisor;
use crate::runtime::RuntimeError;
use crate::testing::api::FakeApi;
use crate::testing::runtime::{Behaviour, FakeRuntime};

const PODS: &str = "/api/v1/namespaces/ns/pods";
const SECRETS: &str = "/api/v1/namespaces/ns/secrets";
const MAPS: &str = "/api/v1/namespaces/ns/configmaps";
const LIMIT: Duration = Duration::from_secs(30);

struct Cluster {
    api: FakeApi,
    client: kube::Client,
    runtime: FakeRuntime,
    root: TempDir,
    agent: Option<(Arc<Context>, CancellationToken, JoinHandle<()>)>,
}

impl Drop for Cluster {
    /// Secrets lie in memory, where a test may mount it: nothing else takes that away.
    fn drop(&mut self) {
        if let Some((_, end, task)) = self.agent.take() {
            end.cancel();
            task.abort();
        }
        for mount in crate::host::mounts::below(self.root.path()).unwrap_or_default().iter().rev() {
            let _ = rustix::mount::unmount(mount, rustix::mount::UnmountFlags::DETACH);
        }
    }
}

impl Cluster {
    async fn new() -> Self {
        let (api, client) = FakeApi::serve().await;
        let runtime = FakeRuntime::new().with_image("x:1").with_image(PAUSE_IMAGE);
        let mut cluster = Self { api, client, runtime, root: tempfile::tempdir().unwrap(), agent: None };
        cluster.start().await;
        cluster
    }

    /// Starts an agent; an earlier one ends first, as a killed one does.
    async fn start(&mut self) {
        self.kill().await;
        let mut options = AgentOptions::new("node1");
        options.root_dir = self.root.path().join("root");
        options.pod_logs_dir = self.root.path().join("pods");
        options.container_logs_dir = self.root.path().join("containers");
        options.node.kubeconfig = Some(PathBuf::from("/nonexistent"));
        options.sync_frequency = Duration::from_millis(50);
        let end = CancellationToken::new();
        let runtime: Arc<dyn crate::runtime::ContainerRuntime> = Arc::new(self.runtime.clone());
        let checker: Arc<dyn Checker> = Arc::new(Prober::new(Arc::clone(&runtime)));
        let context = Context::new(options, runtime, checker, end.clone());
        context.api.as_ref().unwrap().set(self.client.clone());
        let (bound_sender, bound) = mpsc::channel(1);
        let (sender, updates) = mpsc::channel(1);
        let (news_sender, news) = mpsc::channel(64);
        let until = |task| {
            let end = end.clone();
            context.tasks.spawn(async move { end.run_until_cancelled(task).await });
        };
        let boxed = |task: futures::future::BoxFuture<'static, ()>| task;
        until(boxed(Box::pin(run(context.for_cluster().unwrap(), bound_sender))));
        until(boxed(Box::pin(refresh::run(context.for_files()))));
        until(boxed(Box::pin(source::watch(AgentOptions::clone(&context.options), Some(bound), sender, end.clone()))));
        until(boxed(Box::pin(runtime_watch::run(Arc::clone(&context), news_sender))));
        let supervised = Arc::clone(&context);
        let task = tokio::spawn(async move {
            Supervisor::new(Arc::clone(&supervised)).run(updates, news).await;
            supervised.tasks.close();
            supervised.tasks.wait().await;
        });
        self.agent = Some((context, end, task));
    }

    async fn kill(&mut self) {
        if let Some((_, end, task)) = self.agent.take() {
            end.cancel();
            task.await.unwrap();
        }
    }

    /// Binds a pod to the node.
    fn bind(&self, name: &str, spec: Value) -> String {
        let mut spec = spec;
        spec["nodeName"] = json!("node1");
        if spec["hostNetwork"].is_null() {
            spec["hostNetwork"] = json!(true);
        }
        if spec["containers"].is_null() {
            spec["containers"] = json!([{"name": "main", "image": "x:1"}]);
        }
        let metadata = json!({"name": name, "namespace": "ns"});
        self.api.put(PODS, json!({"metadata": metadata, "spec": spec, "status": {"phase": "Pending"}}))
    }

    fn pod(&self, name: &str) -> Value {
        self.api.get(&format!("{PODS}/{name}"))
    }

    async fn until<T>(&self, what: &str, mut test: impl FnMut() -> Option<T>) -> T {
        let found = tokio::time::timeout(LIMIT, async {
            loop {
                match test() {
                    Some(found) => return found,
                    None => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        });
        found.await.unwrap_or_else(|_| panic!("{what}: {:#?} {:#?}", self.api.requests(), self.runtime.calls()))
    }

    async fn phase(&self, name: &str, phase: &str) -> Value {
        let found = || Some(self.pod(name)["status"].clone()).filter(|status| status["phase"] == phase);
        self.until(&format!("{name} is {phase}"), found).await
    }

    async fn ready(&self, name: &str) {
        let ready = |status: &Value| status["containerStatuses"][0]["ready"] == true;
        self.until(&format!("{name} is ready"), || ready(&self.pod(name)["status"]).then_some(())).await;
    }

    fn delete(&self, name: &str, grace: u32) {
        let metadata = json!({"deletionTimestamp": "2024-01-01T00:00:00Z", "deletionGracePeriodSeconds": grace});
        self.api.change(&format!("{PODS}/{name}"), &json!({"metadata": metadata}));
    }
}

#[tokio::test]
async fn a_bound_pod_runs_is_told_of_and_deleted_in_order() {
    let cluster = Cluster::new().await;
    let uid = cluster.bind("p", json!({}));
    cluster.ready("p").await;
    let status = cluster.phase("p", "Running").await;
    assert!(status["startTime"].is_string() && status["conditions"].is_array(), "{status}");
    let made = cluster.runtime.find("p", "main").unwrap();
    assert_eq!((made.name.uid.as_str(), made.name.namespace.as_str()), (uid.as_str(), "ns"));
    assert_eq!(made.annotations["kubernetes.io/config.source"], "api");

    cluster.delete("p", 7);
    cluster.until("it is gone", || cluster.pod("p").is_null().then_some(())).await;
    cluster.until("nothing is left", || cluster.runtime.containers().is_empty().then_some(())).await;
    let stops = cluster.runtime.calls_of("stop");
    assert!([" 6s", " 7s"].iter().any(|grace| stops[0].ends_with(grace)), "less what it took to say so: {stops:?}");
    let requests = cluster.api.requests();
    let last = |of: &str| requests.iter().rposition(|one| one.starts_with(of)).unwrap();
    assert!(last("PATCH") < last("DELETE"), "the end is told before the pod goes: {requests:?}");
    let reported = cluster.api.bodies("PATCH").pop().unwrap();
    assert!(["Succeeded", "Failed"].contains(&reported["status"]["phase"].as_str().unwrap()), "{reported}");
    let sent = cluster.api.bodies("DELETE").pop().unwrap();
    assert_eq!((&sent["gracePeriodSeconds"], &sent["preconditions"]["uid"]), (&json!(0), &json!(uid)));
    let dir = cluster.root.path().join("root/pods").join(uid);
    cluster.until("its directory is gone", || (!dir.exists()).then_some(())).await;
}

#[tokio::test]
async fn a_bound_pod_that_begins_again_is_not_counted_as_a_static_one() {
    let cluster = Cluster::new().await;
    let uid = cluster.bind("p", json!({}));
    cluster.ready("p").await;
    let (context, ..) = cluster.agent.as_ref().unwrap();
    assert!(crate::agent::control::AgentView::restart(&**context, &uid));
    let counted = || [true, false].map(|bound| context.metrics.restarted(bound).get());
    cluster.until("it is counted", || (counted() == [1, 0]).then_some(())).await;
}

#[tokio::test]
async fn a_pod_that_this_node_cannot_run_fails_with_its_reason_and_an_event() {
    let cluster = Cluster::new().await;
    cluster.bind("sysctl", json!({"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}}));
    let sysctl = cluster.phase("sysctl", "Failed").await;
    assert_eq!(sysctl["reason"], "SysctlForbidden");
    let words = "Pod was rejected: forbidden sysctl: \"kernel.msgmax\" not allowlisted";
    assert_eq!(sysctl["message"], words);
    cluster.bind("net", json!({"hostNetwork": false}));
    cluster.bind("disk", json!({"volumes": [{"name": "v", "nfs": {"server": "s", "path": "/"}}]}));
    let net = cluster.phase("net", "Failed").await;
    let disk = cluster.phase("disk", "Failed").await;
    assert_eq!((&net["reason"], &disk["reason"]), (&json!("PodNetworkUnavailable"), &json!("UnsupportedVolume")));
    assert!(disk["message"].as_str().unwrap().starts_with("Pod was rejected: volume \"v\": this node mounts no nfs"));
    let (context, ..) = cluster.agent.as_ref().unwrap();
    let events = context.events.since(0);
    assert!(events.iter().any(|event| event.reason == "PodNetworkUnavailable" && event.pod == "net"), "{events:?}");
    assert!(cluster.runtime.calls_of("create_container").is_empty());
    let patches = cluster.api.bodies("PATCH").len();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(cluster.api.bodies("PATCH").len(), patches, "it is said once");
    cluster.delete("net", 30);
    cluster.until("it is deleted", || cluster.pod("net").is_null().then_some(())).await;
}

#[tokio::test]
async fn a_pod_waits_for_its_config_map_and_follows_it() {
    let mut cluster = Cluster::new().await;
    let from = json!({"configMapKeyRef": {"name": "m", "key": "k"}});
    let containers = json!([{"name": "main", "image": "x:1", "env": [{"name": "A", "valueFrom": from}],
        "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]);
    let volumes = json!([{"name": "v", "configMap": {"name": "m"}}]);
    let uid = cluster.bind("p", json!({"containers": containers, "volumes": volumes}));
    let (context, ..) = cluster.agent.as_ref().unwrap();
    let waits = || context.events.since(0).into_iter().find(|event| event.reason == "FailedMount");
    let event = cluster.until("it waits", waits).await;
    assert!(event.message.contains("configmap \"m\" not found"), "{}", event.message);
    let pulled = context.events.since(0).iter().any(|event| event.reason == "Pulled");
    assert!(!pulled && cluster.runtime.containers().is_empty(), "nothing is made before its volumes");
    cluster.api.put(MAPS, json!({"metadata": {"name": "m"}, "data": {"k": "one"}}));
    cluster.ready("p").await;
    let made = cluster.runtime.find("p", "main").unwrap();
    let crate::testing::runtime::MadeFrom::Container(config) = cluster.runtime.made_from(&made.id).unwrap() else {
        panic!("a container is made from a container's configuration")
    };
    assert!(config.env.contains(&("A".to_owned(), b"one".to_vec())), "{:?}", config.env);
    let file = cluster.root.path().join("root/pods").join(uid).join("volumes/kubernetes.io~configmap/v/k");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "one");
    cluster.api.change(&format!("{MAPS}/m"), &json!({"data": {"k": "two"}}));
    let changed = || std::fs::read_to_string(&file).is_ok_and(|text| text == "two").then_some(());
    cluster.until("the file follows", changed).await;
    cluster.start().await;
    cluster.api.change(&format!("{MAPS}/m"), &json!({"data": {"k": "three"}}));
    let changed = || std::fs::read_to_string(&file).is_ok_and(|text| text == "three").then_some(());
    cluster.until("it follows after a restart of the agent too", changed).await;
    cluster.api.remove(&format!("{MAPS}/m"));
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "three", "what is gone leaves the file as it was");
}

/// A pod's files as `path=text`, by their names in the volume and behind them.
fn files(volume: &std::path::Path) -> Vec<String> {
    let entries = [volume.to_owned(), volume.join("..data")].map(std::fs::read_dir);
    let entries = entries.into_iter().flatten().flatten().map(|entry| entry.unwrap().path());
    let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    let plain = entries.filter(|path| !name(path).starts_with(".."));
    let mut all: Vec<_> =
        plain.map(|path| format!("{}={}", name(&path), std::fs::read_to_string(&path).unwrap_or_default())).collect();
    all.sort();
    all.dedup();
    all
}

#[tokio::test]
async fn what_is_taken_back_goes_from_the_volumes_whatever_else_cannot_be_had() {
    let cluster = Cluster::new().await;
    cluster.api.put(MAPS, json!({"metadata": {"name": "m"}, "data": {"k": "1", "l": "2"}}));
    cluster.api.put(SECRETS, json!({"metadata": {"name": "s"}, "data": {"k": "MQ==", "l": "Mg=="}}));
    let token = json!({"serviceAccountToken": {"path": "token", "expirationSeconds": 600}});
    let sources = json!([{"configMap": {"name": "m"}}, {"secret": {"name": "s", "optional": true,
        "items": [{"key": "l", "path": "secret"}]}}]);
    let volumes = json!([
        {"name": "map", "configMap": {"name": "m"}},
        {"name": "secret", "secret": {"secretName": "s", "optional": true}},
        {"name": "all", "projected": {"sources": sources}},
    ]);
    let uid = cluster.bind("p", json!({"volumes": volumes}));
    cluster.ready("p").await;
    let dir = cluster.root.path().join("root/pods").join(uid).join("volumes");
    let seen = || {
        let all = ["kubernetes.io~configmap/map", "kubernetes.io~secret/secret", "kubernetes.io~projected/all"];
        all.map(|volume| files(&dir.join(volume)).join(" "))
    };
    assert_eq!(seen(), ["k=1 l=2", "k=1 l=2", "k=1 l=2 secret=2"]);
    cluster.api.change(&format!("{MAPS}/m"), &json!({"data": {"l": null}}));
    let map = || (seen() == ["k=1", "k=1 l=2", "k=1 secret=2"]).then_some(());
    cluster.until("the key of the config map is gone", map).await;
    cluster.api.remove(&format!("{SECRETS}/s"));
    cluster.until("the secret is gone", || (seen() == ["k=1", "", "k=1"]).then_some(())).await;

    // One volume's token cannot be had any more: the others follow all the same.
    let volumes =
        json!([{"name": "map", "configMap": {"name": "m"}}, {"name": "all", "projected": {"sources": [token]}}]);
    let account = "/api/v1/namespaces/ns/serviceaccounts/default/token";
    let expired = json!({"status": {"token": "jwt", "expirationTimestamp": "2024-01-01T00:00:00Z"}});
    cluster.api.answer_post(account, expired);
    let uid = cluster.bind("q", json!({"volumes": volumes}));
    cluster.ready("q").await;
    cluster.api.fail("POST", account, &[403; 200]);
    cluster.api.change(&format!("{MAPS}/m"), &json!({"data": {"k": null, "z": "3"}}));
    let map = cluster.root.path().join("root/pods").join(uid).join("volumes/kubernetes.io~configmap/map");
    cluster.until("the config map follows", || (files(&map) == ["z=3"]).then_some(())).await;
}

#[tokio::test]
async fn a_container_starts_again_though_its_config_map_is_gone() {
    let cluster = Cluster::new().await;
    cluster.api.put(MAPS, json!({"metadata": {"name": "m"}, "data": {"k": "1"}}));
    let uid = cluster.bind("p", json!({"volumes": [{"name": "v", "configMap": {"name": "m"}}]}));
    cluster.ready("p").await;
    cluster.api.remove(&format!("{MAPS}/m"));
    let id = cluster.runtime.find("p", "main").unwrap().id;
    cluster.runtime.kill(&id);
    let again = || {
        let one = cluster.runtime.find("p", "main")?;
        (one.id != id && one.state.is_running()).then_some(())
    };
    cluster.until("it runs again", again).await;
    let volume = cluster.root.path().join("root/pods").join(uid).join("volumes/kubernetes.io~configmap/v");
    assert_eq!(files(&volume), ["k=1"]);
}

#[tokio::test]
async fn the_volumes_of_a_pod_go_with_its_end_and_what_it_said_stays() {
    let cluster = Cluster::new().await;
    let ends = Behaviour { exits_after: Some((Duration::from_millis(50), 0)), ..Behaviour::default() };
    cluster.runtime.behave("main", ends);
    cluster.api.put(SECRETS, json!({"metadata": {"name": "s"}, "data": {"k": "MQ=="}}));
    let volumes = json!([{"name": "s", "secret": {"secretName": "s"}}, {"name": "e", "emptyDir": {}}]);
    let containers = json!([{"name": "main", "image": "x:1", "terminationMessagePath": "/dev/termination-log"}]);
    let uid = cluster.bind("job", json!({"restartPolicy": "Never", "volumes": volumes, "containers": containers}));
    cluster.phase("job", "Succeeded").await;
    let dir = cluster.root.path().join("root/pods").join(uid);
    cluster.until("they are gone", || (!dir.join("volumes").exists()).then_some(())).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!dir.join("volumes").exists(), "nothing brings them back");
    assert!(dir.join("containers/main/00000000").is_file());
    assert_eq!(cluster.pod("job")["status"]["phase"], "Succeeded");
}

#[tokio::test]
async fn an_ephemeral_container_runs_once_in_a_running_pod_and_sees_its_targets_processes() {
    let mut cluster = Cluster::new().await;
    let ends = Behaviour { exits_after: Some((Duration::from_millis(300), 3)), ..Behaviour::default() };
    cluster.runtime.behave("debugger", ends);
    cluster.bind("p", json!({}));
    cluster.ready("p").await;
    let main = cluster.runtime.find("p", "main").unwrap().id;
    let debuggers = json!([{"name": "debugger", "image": "x:1", "stdin": true, "tty": true, "targetContainerName": "main"},
        {"name": "astray", "image": "x:1", "targetContainerName": "none"}]);
    cluster.api.change(&format!("{PODS}/p"), &json!({"spec": {"ephemeralContainers": debuggers}}));
    let state = |of: &str| {
        let status = cluster.pod("p")["status"].clone();
        let all = status["ephemeralContainerStatuses"].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|one| one["name"] == of)
    };
    let runs = || state("debugger").filter(|one| one["state"]["running"].is_object());
    let status = cluster.until("it runs", runs).await;
    assert_eq!((&status["ready"], &status["restartCount"]), (&json!(false), &json!(0)));
    let made = cluster.runtime.find("p", "debugger").unwrap();
    let crate::testing::runtime::MadeFrom::Container(config) = cluster.runtime.made_from(&made.id).unwrap() else {
        panic!("a container is made from a container's configuration")
    };
    assert_eq!((config.pid_target.as_deref(), config.stdin, config.tty), (Some(main.as_str()), true, true));
    let waits = || state("astray").filter(|one| one["state"]["waiting"]["reason"] == "CreateContainerConfigError");
    let astray = cluster.until("the other has no target", waits).await;
    assert_eq!(astray["state"]["waiting"]["message"], "unable to find target container none");
    let ended = || state("debugger").filter(|one| one["state"]["terminated"]["exitCode"] == 3);
    cluster.until("it has ended", ended).await;
    cluster.start().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let made = cluster.runtime.calls_of("create_container");
    assert_eq!(made.iter().filter(|name| name.contains("debugger")).count(), 1, "it is started once: {made:?}");
    let status = cluster.phase("p", "Running").await;
    assert_eq!(status["containerStatuses"][0]["ready"], true, "it concerns no other: {status}");
    assert_eq!(status["containerStatuses"].as_array().unwrap().len(), 1);
    assert!(!cluster.runtime.calls_of("stop").iter().any(|stop| stop.starts_with("main")));
}

#[tokio::test]
async fn containers_go_on_without_the_api_server_and_an_agent_that_is_restarted_finds_them() {
    let mut cluster = Cluster::new().await;
    cluster.bind("p", json!({}));
    cluster.ready("p").await;
    let before = cluster.runtime.find("p", "main").unwrap().id;
    cluster.api.set_down(true);
    cluster.start().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(cluster.runtime.calls_of("stop").is_empty(), "nobody knows that it is not wanted");
    cluster.api.set_down(false);
    let (context, ..) = cluster.agent.as_ref().unwrap();
    cluster.until("it is known again", || context.board.pods().iter().any(|one| one.report.ready).then_some(())).await;
    assert_eq!(cluster.runtime.find("p", "main").unwrap().id, before);
    assert_eq!(cluster.runtime.calls_of("create_container").len(), 1);
    let patches = cluster.api.bodies("PATCH");
    let not_ready = patches.iter().rev().take(1).any(|patch| patch["status"]["phase"] != "Running");
    assert!(!not_ready, "{patches:#?}");
    cluster.api.remove(&format!("{PODS}/p"));
    cluster.until("deleted by force it is stopped", || cluster.runtime.containers().is_empty().then_some(())).await;
}

#[tokio::test]
async fn a_pod_that_has_ended_stays_so_and_is_not_run_again() {
    let mut cluster = Cluster::new().await;
    let ends = Behaviour { exits_after: Some((Duration::from_millis(50), 0)), ..Behaviour::default() };
    cluster.runtime.behave("main", ends);
    cluster.bind("job", json!({"restartPolicy": "Never"}));
    cluster.phase("job", "Succeeded").await;
    let id = cluster.runtime.find("job", "main").unwrap().id;
    cluster.kill().await;
    cluster.runtime.destroy(&id);
    cluster.start().await;
    let (context, ..) = cluster.agent.as_ref().unwrap();
    let known = || context.board.pods().iter().any(|one| one.looked && one.report.name == "job").then_some(());
    cluster.until("it is looked at", known).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(cluster.runtime.calls_of("create_container").len(), 1);
    assert_eq!(cluster.pod("job")["status"]["phase"], "Succeeded");
    cluster.delete("job", 30);
    cluster.until("it is deleted", || cluster.pod("job").is_null().then_some(())).await;
}

#[tokio::test]
async fn an_image_is_pulled_with_the_secrets_of_its_pod_and_of_the_node() {
    let cluster = Cluster::new().await;
    let secret = |name: &str, kind: &str, key: &str, text: Value| {
        let data = json!({key: base64::engine::general_purpose::STANDARD.encode(text.to_string())});
        cluster.api.put(SECRETS, json!({"metadata": {"name": name}, "type": kind, "data": data}));
    };
    let user = |name: &str| json!({"r.io": {"username": name, "password": "p"}});
    secret("json", "kubernetes.io/dockerconfigjson", ".dockerconfigjson", json!({"auths": user("one")}));
    secret("old", "kubernetes.io/dockercfg", ".dockercfg", user("two"));
    secret("other", "Opaque", ".dockercfg", user("never"));
    let root = cluster.root.path().join("root");
    std::fs::create_dir_all(&root).unwrap();
    let config = json!({"auths": user("node")}).to_string();
    crate::host::fs::write_file(&root.join("config.json"), config.as_bytes(), 0o600).unwrap();
    for image in ["r.io/x:1", "r.io/y:1"] {
        cluster.runtime.registry_has(image, Duration::ZERO);
    }
    cluster.runtime.registry_demands("r.io/x:1", "node", "p");
    let secrets: Vec<Value> = ["json", "old", "other", "none"].iter().map(|name| json!({"name": name})).collect();
    let containers = |image: &str| json!([{"name": "main", "image": image}]);
    cluster.bind("p", json!({"containers": containers("r.io/x:1"), "imagePullSecrets": secrets}));
    cluster.ready("p").await;
    let names = |all: &[&str]| all.iter().map(|name| Some((*name).to_owned())).collect::<Vec<_>>();
    assert_eq!(cluster.runtime.pulled_as(), names(&["one", "two", "node"]));
    let (context, ..) = cluster.agent.as_ref().unwrap();
    let events = context.events.since(0);
    let reported = events.iter().find(|event| event.reason == "FailedToRetrieveImagePullSecret").unwrap();
    assert!(
        reported.message.starts_with("Unable to retrieve some image pull secrets (other, none);"),
        "{}",
        reported.message
    );
    // What is public is had though no password is right.
    let refused = RuntimeError::Pull { image: "r.io/y:1".into(), message: "unauthorized".into() };
    cluster.runtime.fail_nth("pull", 1, refused);
    cluster.bind("q", json!({"containers": containers("r.io/y:1")}));
    cluster.ready("q").await;
    assert_eq!(cluster.runtime.pulled_as()[3..], [Some("node".to_owned()), None]);
}

#[tokio::test]
async fn a_watch_that_is_too_old_is_begun_anew_and_a_refused_status_sent_again() {
    let cluster = Cluster::new().await;
    cluster.api.fail("PATCH", PODS, &[500, 500]);
    cluster.bind("a", json!({}));
    cluster.ready("a").await;
    cluster.api.set_down(true);
    tokio::time::sleep(Duration::from_millis(100)).await;
    cluster.bind("b", json!({}));
    cluster.api.forget();
    cluster.api.set_down(false);
    cluster.ready("b").await;
    assert!(cluster.runtime.calls_of("stop").is_empty());
}
