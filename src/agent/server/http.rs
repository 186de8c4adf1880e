//! Serving HTTP/1.1 to strangers: few at a time, each on a task of its own, and none that stops reading or writing stays
//! for ever.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

/// Connections at a time; more wait.
const CONNECTIONS: usize = 64;
/// How long a client may take to send its headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take nothing of what is sent to it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// What is answered: all at once, or as it comes.
pub type Body = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// Listens at an address.
///
/// # Errors
/// As the system says, `AddrInUse` above all: another kubelet or agent runs.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// An answer of this type.
pub fn respond(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let body = Full::new(body.into()).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// An answer in words.
pub fn say(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    respond(status, "text/plain; charset=utf-8", text)
}

/// How a client is let in: what its connection becomes, and what is known of it then, which goes with each of its
/// requests as an extension.
pub trait Door: Clone + Send + Sync + 'static {
    /// The connection.
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// What is known of the client.
    type Peer: Clone + Send + Sync + 'static;
    /// How long a client may take nothing of what is sent to it.
    const PATIENCE: Duration;

    /// Lets a client in.
    fn open(&self, stream: TcpStream) -> impl Future<Output = io::Result<(Self::Io, Self::Peer)>> + Send;
}

/// Everybody is let in, and nothing is known of him.
#[derive(Clone, Copy)]
pub struct Ajar;

impl Door for Ajar {
    type Io = TcpStream;
    type Peer = ();
    const PATIENCE: Duration = WRITE_TIMEOUT;

    async fn open(&self, stream: TcpStream) -> io::Result<(TcpStream, ())> {
        Ok((stream, ()))
    }
}

/// Answers clients until `shutdown`, then ends their connections.
pub async fn serve<D, H, F>(listener: TcpListener, door: D, answer: H, shutdown: CancellationToken)
where
    D: Door,
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let (connections, slots) = (TaskTracker::new(), Arc::new(Semaphore::new(CONNECTIONS)));
    loop {
        let slot = tokio::select! {
            () = shutdown.cancelled() => break,
            slot = Arc::clone(&slots).acquire_owned() => slot,
        };
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, as a rule; accept would fail again at once.
                debug!(%error, "cannot accept an HTTP client");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (door, answer, shutdown) = (door.clone(), answer.clone(), shutdown.clone());
        connections.spawn(async move {
            let _slot = slot;
            if let Some(Err(error)) = shutdown.run_until_cancelled(welcome(stream, door, answer)).await {
                debug!(%error, "an HTTP client left");
            }
        });
    }
    connections.close();
    connections.wait().await;
}

async fn welcome<D, H, F>(stream: TcpStream, door: D, answer: H) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
where
    D: Door,
    H: Fn(Request<Incoming>) -> F + Send,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let opened = tokio::time::timeout(HEADER_TIMEOUT, door.open(stream)).await?;
    let (io, peer) = opened?;
    let answer = |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        answer(request)
    };
    Ok(connection(Patient { io, waiting: None, patience: D::PATIENCE }, answer).await?)
}

/// Serves one connection, whatever it is made of.
async fn connection<I, H, F>(io: I, answer: H) -> hyper::Result<()>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let service = service_fn(move |request| {
        let answer = answer(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades()
        .await
}

/// A connection on which a write that gets nowhere for so long fails: its client is dead or does not read.
struct Patient<I> {
    io: I,
    waiting: Option<Pin<Box<Sleep>>>,
    patience: Duration,
}

impl<I> Patient<I> {
    fn judge<T>(&mut self, cx: &mut Context<'_>, progress: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if progress.is_ready() {
            self.waiting = None;
            return progress;
        }
        let patience = self.patience;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        match waiting.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Patient<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Patient<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let progress = Pin::new(&mut self.io).poll_write(cx, buf);
        self.judge(cx, progress)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let progress = Pin::new(&mut self.io).poll_flush(cx);
        self.judge(cx, progress)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let progress = Pin::new(&mut self.io).poll_shutdown(cx);
        self.judge(cx, progress)
    }
}

#[cfg(test)]
mod tests {
    use futures::{StreamExt, stream};
    use http_body_util::StreamBody;
    use hyper::body::Frame;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    fn endless() -> Response<Body> {
        let chunks = stream::repeat_with(|| Ok(Frame::data(Bytes::from_static(&[b'x'; 1024]))));
        Response::new(StreamBody::new(chunks.boxed()).boxed_unsync())
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_stops_reading_is_given_up() {
        let (server, mut client) = duplex(4096);
        client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let begun = crate::host::clock::Instant::now();
        let served =
            connection(Patient { io: server, waiting: None, patience: WRITE_TIMEOUT }, |_| async { endless() }).await;
        assert!(served.is_err());
        assert_eq!(begun.elapsed().as_secs(), WRITE_TIMEOUT.as_secs());
    }

    #[tokio::test]
    async fn a_client_that_leaves_ends_its_answer() {
        let (server, mut client) = duplex(4096);
        client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let serving = tokio::spawn(connection(server, |_| async {
            Response::new(StreamBody::new(stream::pending().boxed()).boxed_unsync())
        }));
        let mut head = [0; 12];
        client.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 200");
        drop(client);
        tokio::time::timeout(Duration::from_secs(10), serving).await.unwrap().unwrap().unwrap_err();
    }
}
