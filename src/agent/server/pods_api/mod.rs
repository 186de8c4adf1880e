//! The kubelet's pods API (`k8s.io/kubelet/pkg/apis/pods/v1alpha1`): gRPC on a unix socket below the root directory, where
//! the feature gate `PodsAPI` is on. Programs on the node read its pods there, without an API server.
//!
//! A list and a get have the pods that are wanted: static ones until their manifest is gone, bound ones until the API
//! server has removed them. They come with the status that the agent knows, in Kubernetes' protobuf form ([`encode`]).

mod encode;
mod limit;
mod messages;
#[rustfmt::skip]
#[allow(dead_code, missing_docs, clippy::all, reason = "generated from src/agent/server/pods_api/pods.proto")]
mod proto;
mod watch;

use std::future::ready;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use prost::Message;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;
use tonic::server::Grpc;
use tonic_prost::ProstCodec;

use self::limit::Limiter;
use self::messages::{Everything, GetPodRequest, GetPodResponse, ListPodsResponse, SERVICE};
use crate::agent::board::{Board, Entry};
use crate::agent::context::Context;
use crate::agent::pod::StaticPod;
use crate::agent::rpc;
use crate::agent::rpc::Service;
use crate::host::socket::Listener;

/// The socket of an agent with this root directory.
pub fn socket(root_dir: &Path) -> PathBuf {
    root_dir.join("pods-api/pods-api.sock")
}

/// Answers clients until `shutdown`, then ends their connections and removes the socket file.
pub async fn serve(listener: Listener, context: Arc<Context>, shutdown: CancellationToken) {
    rpc::serve(listener, Arc::new(Api { context, limiter: Limiter::default() }), shutdown).await;
}

struct Api {
    context: Arc<Context>,
    limiter: Limiter,
}

impl Service for Api {
    const NAME: &'static str = "v1alpha1.Pods";

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        match path.strip_prefix(SERVICE) {
            Some("ListPods") => self.unary(request, |Everything {}| self.list()).await,
            Some("GetPod") => self.unary(request, |asked: GetPodRequest| self.get(&asked.pod_uid)).await,
            Some("WatchPods") => {
                let context = &self.context;
                let watch = tower::service_fn(|_: tonic::Request<Everything>| {
                    ready(Ok(tonic::Response::new(watch::events(Arc::clone(context)))))
                });
                Grpc::new(ProstCodec::default()).server_streaming(watch, request).await
            }
            _ => rpc::unimplemented(Self::NAME, &path),
        }
    }
}

impl Api {
    /// Answers a request that has one answer, as long as there are not too many.
    async fn unary<Q, A>(&self, request: Request<Incoming>, answer: impl Fn(Q) -> Result<A, Status>) -> Response<Body>
    where
        Q: Message + Default + 'static,
        A: Message + 'static,
    {
        let answer = |question: Q| {
            ready(match self.limiter.allow() {
                true => answer(question),
                false => Err(Status::resource_exhausted("rejected by rate limit")),
            })
        };
        rpc::unary(request, answer).await
    }

    fn list(&self) -> Result<ListPodsResponse, Status> {
        let pods: Result<_, _> = wanted(&self.context.board).iter().map(bytes).collect();
        Ok(ListPodsResponse { pods: pods? })
    }

    fn get(&self, uid: &str) -> Result<GetPodResponse, Status> {
        let found = wanted(&self.context.board).into_iter().find(|entry| entry.report.uid == uid);
        let entry = found.ok_or_else(|| Status::not_found(format!("pod with UID {uid} not found")))?;
        Ok(GetPodResponse { pod: bytes(&entry)? })
    }
}

fn bytes(entry: &Entry) -> Result<Vec<u8>, Status> {
    encode::pod(&entry.to_pod()).map_err(|error| Status::internal(format!("failed to marshal pod: {error}")))
}

/// The pods that are wanted, by UID.
fn wanted(board: &Board) -> Vec<Entry> {
    let mut entries = board.visit(|pods, _| -> Vec<Entry> {
        let entries = pods.values().filter(|entry| entry.pod.as_deref().is_some_and(|pod| is_wanted(entry, pod)));
        entries.cloned().collect()
    });
    entries.sort_by(|one, other| one.report.uid.cmp(&other.report.uid));
    entries
}

/// Whether a pod is still asked for: a bound one is while it is being deleted.
fn is_wanted(entry: &Entry, pod: &StaticPod) -> bool {
    !entry.report.terminating || pod.deletion().is_some()
}

#[cfg(test)]
mod tests;
