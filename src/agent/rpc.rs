//! gRPC services that the agent offers on unix sockets: their connections, and how a method is answered.

use std::convert::Infallible;
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

use crate::host::socket::Listener;

/// Mode of a socket's directory, the kubelet's.
pub const DIRECTORY_MODE: u32 = 0o750;
/// Clients at a time; further ones wait until one has left.
const CLIENTS: usize = 100;
/// How long clients have to hear of the agent's end.
const PARTING: Duration = Duration::from_secs(1);

/// What is offered on a socket.
pub trait Service: Send + Sync + 'static {
    /// Its name, for the log.
    const NAME: &'static str;

    /// Answers a request for any method.
    fn answer(self: Arc<Self>, request: Request<Incoming>) -> impl Future<Output = Response<Body>> + Send;
}

/// Answers clients until `shutdown`, then ends their connections and removes the socket file.
pub async fn serve<S: Service>(listener: Listener, service: Arc<S>, shutdown: CancellationToken) {
    let (tasks, slots) = (TaskTracker::new(), Arc::new(Semaphore::new(CLIENTS)));
    loop {
        let accepted = async {
            let slot = Arc::clone(&slots).acquire_owned().await;
            (slot, listener.accept().await)
        };
        let Some((slot, accepted)) = shutdown.run_until_cancelled(accepted).await else { break };
        match accepted {
            Ok(stream) => {
                let (service, shutdown, streams) = (Arc::clone(&service), shutdown.clone(), tasks.clone());
                tasks.spawn(async move {
                    let _slot = slot;
                    if let Err(error) = connection(stream, service, streams, shutdown).await {
                        debug!(%error, service = S::NAME, "a client left");
                    }
                });
            }
            Err(error) => {
                // Out of file descriptors, as a rule; accept would fail again at once.
                debug!(%error, service = S::NAME, "cannot accept a client");
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

async fn connection<S: Service>(
    stream: UnixStream,
    service: Arc<S>,
    streams: TaskTracker,
    shutdown: CancellationToken,
) -> hyper::Result<()> {
    let service = service_fn(move |request| {
        let service = Arc::clone(&service);
        async move { Ok::<_, Infallible>(service.answer(request).await) }
    });
    let mut served = pin!(http2::Builder::new(Tracked(streams)).serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        served = &mut served => return served,
        () = shutdown.cancelled() => served.as_mut().graceful_shutdown(),
    }
    // Streams say why they end. A client that does not read that is not waited for.
    tokio::time::timeout(PARTING, served).await.unwrap_or(Ok(()))
}

/// Answers a request that has one answer.
pub async fn unary<Q, A, F>(request: Request<Incoming>, answer: impl Fn(Q) -> F) -> Response<Body>
where
    Q: Message + Default + 'static,
    A: Message + 'static,
    F: Future<Output = Result<A, Status>>,
{
    let answer = |request: tonic::Request<Q>| {
        let answered = answer(request.into_inner());
        async move { answered.await.map(tonic::Response::new) }
    };
    Grpc::new(ProstCodec::<A, Q>::default()).unary(tower::service_fn(answer), request).await
}

/// The answer to a path that is no method of `service` (`v1beta1.Registration`), in the words of Go's gRPC.
pub fn unimplemented(service: &str, path: &str) -> Response<Body> {
    let (asked, method) = path.trim_start_matches('/').rsplit_once('/').unwrap_or(("", path));
    let message = match asked == service {
        true => format!("unknown method {method} for service {service}"),
        false => format!("unknown service {asked}"),
    };
    Status::unimplemented(message).into_http()
}
