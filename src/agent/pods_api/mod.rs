//! The kubelet's pods API (`k8s.io/kubelet/pkg/apis/pods/v1alpha1`): gRPC on a unix socket below the root directory, where
//! the feature gate `PodsAPI` is on. Programs on the node read its pods there, without an API server.
//!
//! A list and a get have the pods that are wanted: static ones until their manifest is gone, bound ones until the API
//! server has removed them. They come with the status that the agent knows, in Kubernetes' protobuf form ([`encode`]).

mod encode;
mod limit;
mod messages;
mod watch;

use std::convert::Infallible;
use std::future::ready;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;
use tonic::body::Body;
use tonic::server::Grpc;
use tonic_prost::ProstCodec;
use tracing::debug;

use self::limit::Limiter;
use self::messages::{Everything, GetPodRequest, GetPodResponse, ListPodsResponse, SERVICE};
use super::context::Context;
use super::pod::StaticPod;
use super::status::{Board, Entry};
use crate::host::socket::Listener;

/// Mode of the socket's directory, the kubelet's.
pub const DIRECTORY_MODE: u32 = 0o750;
/// Clients at a time; further ones wait until one has left.
const CLIENTS: usize = 100;
/// How long clients have to hear of the agent's end.
const PARTING: Duration = Duration::from_secs(1);

/// The socket of an agent with this root directory.
pub fn socket(root_dir: &Path) -> PathBuf {
    root_dir.join("pods-api/pods-api.sock")
}

/// Answers clients until `shutdown`, then ends their connections and removes the socket file.
pub async fn serve(listener: Listener, context: Arc<Context>, shutdown: CancellationToken) {
    let (tasks, slots) = (TaskTracker::new(), Arc::new(Semaphore::new(CLIENTS)));
    let api = Arc::new(Api { context, limiter: Limiter::default() });
    loop {
        let accepted = async {
            let slot = Arc::clone(&slots).acquire_owned().await;
            (slot, listener.accept().await)
        };
        let Some((slot, accepted)) = shutdown.run_until_cancelled(accepted).await else { break };
        match accepted {
            Ok(stream) => {
                let (api, shutdown, streams) = (Arc::clone(&api), shutdown.clone(), tasks.clone());
                tasks.spawn(async move {
                    let _slot = slot;
                    if let Err(error) = connection(stream, api, streams, shutdown).await {
                        debug!(%error, "a client of the pods API left");
                    }
                });
            }
            Err(error) => {
                // Out of file descriptors, as a rule; accept would fail again at once.
                debug!(%error, "cannot accept a client of the pods API");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    tasks.close();
    tasks.wait().await;
}

/// Runs what HTTP/2 does beside its connection among the tasks of the server.
#[derive(Clone)]
struct Tracked(TaskTracker);

impl<F> Executor<F> for Tracked
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}

async fn connection(
    stream: UnixStream,
    api: Arc<Api>,
    streams: TaskTracker,
    shutdown: CancellationToken,
) -> hyper::Result<()> {
    let service = service_fn(move |request| {
        let api = Arc::clone(&api);
        async move { Ok::<_, Infallible>(api.answer(request).await) }
    });
    let mut served = pin!(http2::Builder::new(Tracked(streams)).serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        served = &mut served => return served,
        () = shutdown.cancelled() => served.as_mut().graceful_shutdown(),
    }
    // Watches say why they end. A client that does not read that is not waited for.
    tokio::time::timeout(PARTING, served).await.unwrap_or(Ok(()))
}

struct Api {
    context: Arc<Context>,
    limiter: Limiter,
}

impl Api {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
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
            Some(other) => {
                Status::unimplemented(format!("unknown method {other} for service v1alpha1.Pods")).into_http()
            }
            None => {
                let service = path.trim_start_matches('/').rsplit_once('/').map_or("", |(service, _)| service);
                Status::unimplemented(format!("unknown service {service}")).into_http()
            }
        }
    }

    /// Answers a request that has one answer, as long as there are not too many.
    async fn unary<Q, A>(&self, request: Request<Incoming>, answer: impl Fn(Q) -> Result<A, Status>) -> Response<Body>
    where
        Q: Message + Default + 'static,
        A: Message + 'static,
    {
        let answer = |request: tonic::Request<Q>| {
            let answered = match self.limiter.allow() {
                true => answer(request.into_inner()),
                false => Err(Status::resource_exhausted("rejected by rate limit")),
            };
            ready(answered.map(tonic::Response::new))
        };
        Grpc::new(ProstCodec::<A, Q>::default()).unary(tower::service_fn(answer), request).await
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
