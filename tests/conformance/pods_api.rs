//! 121: the pods API on its socket, asked as any program on the node asks it.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use http::uri::PathAndQuery;
use kubeboot::testing::real::pod::Pod;
use kubeboot::testing::real::wait::LIMIT;
use prost::Message;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::node::Node;

const ADDED: i32 = 1;
const MODIFIED: i32 = 2;
const DELETED: i32 = 3;
const INITIAL_SYNC_COMPLETE: i32 = 4;

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Empty {}

#[derive(Clone, PartialEq, prost::Message)]
struct ListPodsResponse {
    #[prost(bytes = "vec", repeated, tag = "1")]
    pods: Vec<Vec<u8>>,
}

/// The request of a pod by its UID, and the answer with its bytes: one field of either kind under the same number.
#[derive(Clone, PartialEq, prost::Message)]
struct One {
    #[prost(bytes = "vec", tag = "1")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Event {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(bytes = "vec", tag = "2")]
    pod: Vec<u8>,
}

/// Some of a `v1.Pod`, by its numbers in `k8s.io/api/core/v1`.
#[derive(Clone, PartialEq, prost::Message)]
struct ApiPod {
    #[prost(message, optional, tag = "1")]
    metadata: Option<Metadata>,
    #[prost(message, optional, tag = "2")]
    spec: Option<Spec>,
    #[prost(message, optional, tag = "3")]
    status: Option<PodStatus>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Metadata {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "3")]
    namespace: String,
    #[prost(string, tag = "5")]
    uid: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Spec {
    #[prost(message, repeated, tag = "2")]
    containers: Vec<Container>,
    #[prost(string, tag = "3")]
    restart_policy: String,
    #[prost(bool, tag = "11")]
    host_network: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Container {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, repeated, tag = "3")]
    command: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PodStatus {
    #[prost(string, tag = "1")]
    phase: String,
    #[prost(message, repeated, tag = "8")]
    containers: Vec<ContainerStatus>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ContainerStatus {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bool, tag = "4")]
    ready: bool,
}

fn pod(bytes: &[u8]) -> ApiPod {
    ApiPod::decode(bytes).unwrap()
}

/// A client of the socket.
struct Client(tonic::client::Grpc<Channel>);

impl Client {
    async fn of(node: &Node) -> Self {
        let path = socket(node);
        let there = async || path.exists().then_some(());
        node.eventually("the socket is there", there).await;
        let endpoint = Endpoint::from_shared(format!("unix://{}", path.display())).unwrap();
        Self(tonic::client::Grpc::new(endpoint.connect_lazy()))
    }

    async fn ask<Q, A>(&mut self, method: &str, question: Q) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        self.0.ready().await.unwrap();
        let codec = ProstCodec::<Q, A>::default();
        self.0.unary(Request::new(question), path_of(method), codec).await.map(tonic::Response::into_inner)
    }

    async fn watch(&mut self) -> Streaming<Event> {
        self.0.ready().await.unwrap();
        let codec = ProstCodec::<Empty, Event>::default();
        self.0.server_streaming(Request::new(Empty {}), path_of("WatchPods"), codec).await.unwrap().into_inner()
    }
}

fn path_of(method: &str) -> PathAndQuery {
    PathAndQuery::try_from(format!("/v1alpha1.Pods/{method}")).unwrap()
}

fn socket(node: &Node) -> PathBuf {
    node.root().join("pods-api/pods-api.sock")
}

/// The next event, within the time that anything may take.
async fn next(events: &mut Streaming<Event>) -> (i32, ApiPod) {
    let event = tokio::time::timeout(LIMIT, events.message()).await.unwrap().unwrap().unwrap();
    (event.kind, pod(&event.pod))
}

pub async fn b121_pods_are_listed_got_and_watched_on_a_socket_of_their_own(node: &mut Node) {
    node.start();
    let web = node.up(&Pod::new("web")).await;
    assert!(!socket(node).parent().unwrap().exists(), "nothing is there while the gate is closed");
    node.stop();
    node.config.push("featureGates: {PodsAPI: true}".to_owned());
    node.start();
    let mut client = Client::of(node).await;
    let mode = |path: PathBuf| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(node.root().join("pods-api")), mode(socket(node))), (0o750, 0o600));
    node.ready("web").await;

    let list: ListPodsResponse = client.ask("ListPods", Empty {}).await.unwrap();
    let [listed] = &list.pods[..] else { panic!("{} pods", list.pods.len()) };
    let ApiPod { metadata, spec, status } = pod(listed);
    let metadata = metadata.unwrap();
    assert_eq!((&*metadata.name, &*metadata.namespace, &metadata.uid), ("web-node1", "default", &web.uid));
    let spec = spec.unwrap();
    assert_eq!((spec.host_network, &*spec.restart_policy, &*spec.containers[0].name), (true, "Always", "main"));
    assert_eq!(spec.containers[0].command[0], "sh");
    let status = status.unwrap();
    assert_eq!((&*status.phase, status.containers[0].ready), ("Running", true));
    let got: One = client.ask("GetPod", One { value: web.uid.clone().into() }).await.unwrap();
    assert_eq!(pod(&got.value).metadata.unwrap().uid, web.uid);
    let missing = client.ask::<_, One>("GetPod", One { value: b"none".to_vec() }).await.unwrap_err();
    assert_eq!((missing.code(), missing.message()), (Code::NotFound, "pod with UID none not found"));

    let mut events = client.watch().await;
    let (kind, first) = next(&mut events).await;
    assert_eq!((kind, first.metadata.unwrap().uid), (ADDED, web.uid.clone()));
    assert_eq!(next(&mut events).await, (INITIAL_SYNC_COMPLETE, ApiPod::default()));
    node.run(&Pod::new("job").spec("restartPolicy", "Never").script("sleep 1"));
    let mut seen = Vec::new();
    while seen.last().is_none_or(|(kind, _)| *kind != DELETED) {
        let (kind, of) = next(&mut events).await;
        assert_eq!(of.metadata.unwrap().name, "job-node1");
        seen.push((kind, of.status.unwrap_or_default().phase));
    }
    let (changes, ends) = seen[1..].split_at(seen.len() - 3);
    assert_eq!(seen[0], (ADDED, "Pending".to_owned()), "{seen:?}");
    assert!(changes.iter().all(|(kind, phase)| *kind == MODIFIED && phase != "Succeeded"), "{seen:?}");
    assert!(changes.iter().any(|(_, phase)| phase == "Running"), "{seen:?}");
    assert_eq!(ends, [(MODIFIED, "Succeeded".to_owned()), (DELETED, String::new())]);
    node.delete("web.yaml");
    let gone = loop {
        let (kind, of) = next(&mut events).await;
        assert_eq!(of.metadata.as_ref().unwrap().uid, web.uid);
        if kind == DELETED {
            break of;
        }
    };
    assert_eq!((gone.spec, gone.status), (None, None));
    node.stop();
    let ended = tokio::time::timeout(Duration::from_secs(5), events.message()).await.unwrap();
    assert_eq!(ended.unwrap_err().code(), Code::Unavailable);
    assert!(!socket(node).exists());
}
