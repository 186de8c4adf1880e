//! 139: devices of a plugin in a container. The plugin is written after the protocol's own description, not after the agent.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::{StreamExt, stream};
use http::uri::PathAndQuery;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use kubeboot::agent::pod::phase::Phase;
use kubeboot::testing::real::command::put;
use kubeboot::testing::real::pod::Pod;
use serde_json::json;
use tokio::net::UnixListener;
use tonic::Status;
use tonic::body::Body;
use tonic::server::Grpc;
use tonic::transport::Endpoint;
use tonic_prost::ProstCodec;

use crate::node::Node;

const RESOURCE: &str = "kubeboot.test/null";

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Empty {}

#[derive(Clone, PartialEq, prost::Message)]
struct RegisterRequest {
    #[prost(string, tag = "1")]
    version: String,
    #[prost(string, tag = "2")]
    endpoint: String,
    #[prost(string, tag = "3")]
    resource_name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Devices {
    #[prost(message, repeated, tag = "1")]
    devices: Vec<Device>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Device {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    health: String,
}

/// What is asked of Allocate: a list of devices a container, of which the kubelet sends one.
#[derive(Clone, PartialEq, prost::Message)]
struct AllocateRequest {
    #[prost(message, repeated, tag = "1")]
    containers: Vec<Ids>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Ids {
    #[prost(string, repeated, tag = "1")]
    ids: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AllocateResponse {
    #[prost(message, repeated, tag = "1")]
    containers: Vec<Given>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Given {
    #[prost(btree_map = "string, string", tag = "1")]
    envs: BTreeMap<String, String>,
    #[prost(message, repeated, tag = "2")]
    mounts: Vec<Mount>,
    #[prost(message, repeated, tag = "3")]
    devices: Vec<DeviceSpec>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Mount {
    #[prost(string, tag = "1")]
    container_path: String,
    #[prost(string, tag = "2")]
    host_path: String,
    #[prost(bool, tag = "3")]
    read_only: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct DeviceSpec {
    #[prost(string, tag = "1")]
    container_path: String,
    #[prost(string, tag = "2")]
    host_path: String,
    #[prost(string, tag = "3")]
    permissions: String,
}

/// Has one device, `one`, which is /dev/null.
struct Plugin {
    /// What comes with it.
    driver: PathBuf,
}

impl Plugin {
    /// Listens, registers, and is answered once the agent has its device on record.
    async fn plug(self, node: &Node) {
        let dir = node.root().join("device-plugins");
        let kubelet = dir.join("kubelet.sock");
        node.eventually("plugins can register", async || kubelet.exists().then_some(())).await;
        let listener = UnixListener::bind(dir.join("null.sock")).unwrap();
        let plugin = Arc::new(self);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let plugin = Arc::clone(&plugin);
                let answer = service_fn(move |request| {
                    let plugin = Arc::clone(&plugin);
                    async move { Ok::<_, Infallible>(plugin.answer(request).await) }
                });
                tokio::spawn(http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), answer));
            }
        });
        register(&kubelet).await;
        let record = dir.join("kubelet_internal_checkpoint");
        let is_known = async || std::fs::read_to_string(&record).ok().filter(|text| text.contains(RESOURCE));
        node.eventually("the device is on record", is_known).await;
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        match path.strip_prefix("/v1beta1.DevicePlugin/") {
            Some("ListAndWatch") => {
                let list = tower::service_fn(async |_: tonic::Request<Empty>| {
                    let devices = vec![Device { id: "one".into(), health: "Healthy".into() }];
                    let all = stream::iter([Ok::<_, Status>(Devices { devices })]);
                    Ok::<_, Status>(tonic::Response::new(all.chain(stream::pending()).boxed()))
                });
                Grpc::new(ProstCodec::<Devices, Empty>::default()).server_streaming(list, request).await
            }
            Some("Allocate") => {
                let allocate = tower::service_fn(async |asked: tonic::Request<AllocateRequest>| {
                    let containers = asked.into_inner().containers;
                    let containers = containers.into_iter().map(|one| self.given(&one.ids)).collect();
                    Ok::<_, Status>(tonic::Response::new(AllocateResponse { containers }))
                });
                Grpc::new(ProstCodec::<AllocateResponse, AllocateRequest>::default()).unary(allocate, request).await
            }
            // It has no options: an empty message.
            _ => {
                let nothing =
                    tower::service_fn(async |_: tonic::Request<Empty>| Ok::<_, Status>(tonic::Response::new(Empty {})));
                Grpc::new(ProstCodec::<Empty, Empty>::default()).unary(nothing, request).await
            }
        }
    }

    fn given(&self, ids: &[String]) -> Given {
        let device = DeviceSpec {
            container_path: "/dev/kubeboot-null".into(),
            host_path: "/dev/null".into(),
            permissions: "rw".into(),
        };
        let driver =
            Mount { container_path: "/driver".into(), host_path: self.driver.display().to_string(), read_only: true };
        Given { envs: [("DEVICES".to_owned(), ids.join(","))].into(), mounts: vec![driver], devices: vec![device] }
    }
}

async fn register(kubelet: &Path) {
    let endpoint = Endpoint::from_shared(format!("unix://{}", kubelet.display())).unwrap();
    let mut client = tonic::client::Grpc::new(endpoint.connect_lazy());
    client.ready().await.unwrap();
    let asked =
        RegisterRequest { version: "v1beta1".into(), endpoint: "null.sock".into(), resource_name: RESOURCE.into() };
    let path = PathAndQuery::from_static("/v1beta1.Registration/Register");
    let codec = ProstCodec::<RegisterRequest, Empty>::default();
    client.unary(tonic::Request::new(asked), path, codec).await.unwrap();
}

fn asking(name: &str) -> Pod {
    Pod::new(name).main("resources", json!({"limits": {RESOURCE: "1"}}))
}

/// 139.
pub async fn b139_a_container_has_the_device_that_it_asks_for_and_the_next_pod_has_none(node: &mut Node) {
    std::fs::create_dir(node.path("driver")).unwrap();
    put(&node.path("driver/version"), b"7");
    node.start();
    Plugin { driver: node.path("driver") }.plug(node).await;
    let first = node.up(&asking("first")).await;
    let id = first.containers[0].id.clone().unwrap();
    let look = "echo $DEVICES; cat /driver/version; echo; echo x > /dev/kubeboot-null; test -c /dev/kubeboot-null && echo is a device; \
                (echo 8 > /driver/version) 2>/dev/null || echo no";
    let said = node.exec(&id, &["sh", "-c", look]);
    assert_eq!(said.lines().collect::<Vec<_>>(), ["one", "7", "is a device", "no"], "{said}");

    let is_refused = |pod: &kubeboot::agent::control::report::PodReport| pod.phase == Phase::Failed;
    node.run(&asking("second"));
    let refused = node.pod("second", "there is no other device", is_refused).await;
    let why = refused.message.unwrap_or_default();
    assert!(why.starts_with("Pod was rejected: Allocate failed") && why.contains("Available: 0"), "{why}");
    assert!(node.log().contains("reason=\"UnexpectedAdmissionError\""), "{}", node.log());
    node.stop();
    node.start();
    let still = node.ready("first").await;
    assert_eq!(still.containers[0].id.as_ref(), Some(&id), "the next agent leaves it where it is");
}
