//! Serving HTTP/1.1: each connection on a task of its own, few of clients that have not been let in, and none that stops
//! reading or writing stays for ever.

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
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::connections::{Connection, Connections, Patience};

/// The most bytes of a request's headers, tokens among them.
const HEADER_BYTES: usize = 64 << 10;
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
pub fn text_response(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    respond(status, "text/plain; charset=utf-8", text)
}

/// How a client's connection is opened: what it becomes, and what is known of its client then, which goes with each of its
/// requests as an extension, as the [`Connection`] does.
pub trait Transport: Clone + Send + Sync + 'static {
    /// The connection.
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// What is known of the client.
    type Peer: Clone + Send + Sync + 'static;
    /// How long a client may take nothing of what is sent to it, as long as the [`Connection`] says nothing else.
    const PATIENCE: Duration;
    /// How long a client may take to its first request, from the connection's first moment on; None for as long as it sends
    /// its headers.
    const FIRST_REQUEST: Option<Duration>;

    /// Opens a connection.
    fn open(&self, stream: TcpStream) -> impl Future<Output = io::Result<(Self::Io, Self::Peer)>> + Send;
}

/// Nothing is known of clients, none of which is let in: they all have the same few places.
#[derive(Clone, Copy)]
pub struct PlainTransport;

impl Transport for PlainTransport {
    type Io = TcpStream;
    type Peer = ();
    const PATIENCE: Duration = WRITE_TIMEOUT;
    const FIRST_REQUEST: Option<Duration> = None;

    async fn open(&self, stream: TcpStream) -> io::Result<(TcpStream, ())> {
        Ok((stream, ()))
    }
}

/// Answers clients until `shutdown`, then ends their connections.
pub async fn serve<D, H, F>(listener: TcpListener, transport: D, answer: H, shutdown: CancellationToken)
where
    D: Transport,
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let (tasks, connections) = (TaskTracker::new(), Connections::new());
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, as a rule; accept would fail again at once.
                debug!(%error, "cannot accept an HTTP client");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let connection = connections.enter(from.ip(), D::PATIENCE);
        let (transport, answer, shutdown) = (transport.clone(), answer.clone(), shutdown.clone());
        tasks.spawn(async move {
            let served = tokio::select! {
                served = shutdown.run_until_cancelled(open(stream, transport, answer, &connection)) => served,
                why = connection.cut_off(D::FIRST_REQUEST) => Some(Err(why.into())),
            };
            connection.leave();
            if let Some(Err(error)) = served {
                debug!(%error, "an HTTP client left");
            }
        });
    }
    tasks.close();
    tasks.wait().await;
}

async fn open<D, H, F>(
    stream: TcpStream,
    transport: D,
    answer: H,
    known: &Arc<Connection>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
where
    D: Transport,
    H: Fn(Request<Incoming>) -> F + Send,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let opened = tokio::time::timeout(HEADER_TIMEOUT, transport.open(stream)).await?;
    let (io, peer) = opened?;
    let answer = |mut request: Request<Incoming>| {
        known.ask();
        request.extensions_mut().insert(peer.clone());
        request.extensions_mut().insert(Arc::clone(known));
        answer(request)
    };
    Ok(connection(Patient::new(io, known.patience()), answer).await?)
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
        .max_buf_size(HEADER_BYTES)
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades()
        .await
}

/// A connection on which a write that gets nowhere for so long fails: its client is dead or does not read.
pub struct Patient<I> {
    io: I,
    waiting: Option<Pin<Box<Sleep>>>,
    patience: Arc<Patience>,
}

impl<I> Patient<I> {
    fn new(io: I, patience: Arc<Patience>) -> Self {
        Self { io, waiting: None, patience }
    }

    /// The connection itself.
    pub fn get_ref(&self) -> &I {
        &self.io
    }

    fn judge<T>(&mut self, cx: &mut Context<'_>, progress: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if progress.is_ready() {
            self.waiting = None;
            return progress;
        }
        let patience = self.patience.get();
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
        let started = crate::host::clock::Instant::now();
        let patience = Arc::new(Patience::new(WRITE_TIMEOUT));
        let served = connection(Patient::new(server, patience), |_| async { endless() }).await;
        assert!(served.is_err());
        assert_eq!(started.elapsed().as_secs(), WRITE_TIMEOUT.as_secs());
    }

    /// Lets in a request for `/in`.
    #[derive(Clone, Copy)]
    struct Guarded;

    impl Transport for Guarded {
        type Io = TcpStream;
        type Peer = ();
        const PATIENCE: Duration = WRITE_TIMEOUT;
        const FIRST_REQUEST: Option<Duration> = Some(Duration::from_millis(500));

        async fn open(&self, stream: TcpStream) -> io::Result<(TcpStream, ())> {
            Ok((stream, ()))
        }
    }

    #[tokio::test]
    async fn who_sends_no_request_goes_soon_and_who_was_let_in_stays() {
        let listener = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = |request: Request<Incoming>| async move {
            let connection = request.extensions().get::<Arc<Connection>>().unwrap();
            let admitted = request.uri().path() == "/in" && connection.admit();
            text_response(StatusCode::OK, if admitted { "in" } else { "out" })
        };
        let (shutdown, started) = (CancellationToken::new(), crate::host::clock::Instant::now());
        let server = tokio::spawn(serve(listener, Guarded, answer, shutdown.clone()));
        let mut admitted = TcpStream::connect(address).await.unwrap();
        admitted.write_all(b"GET /in HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut head = [0; 12];
        admitted.read_exact(&mut head).await.unwrap();
        let mut silent = TcpStream::connect(address).await.unwrap();
        let mut dribbling = TcpStream::connect(address).await.unwrap();
        dribbling.write_all(b"GET / HT").await.unwrap();
        for stream in [&mut silent, &mut dribbling] {
            let left = tokio::time::timeout(Duration::from_secs(8), stream.read(&mut [0; 64])).await;
            assert!(matches!(left.expect("long before the limit of headers"), Ok(0) | Err(_)));
        }
        assert!(started.elapsed() >= Duration::from_millis(500));
        admitted.write_all(b"GET /in HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut rest = String::new();
        admitted.read_to_string(&mut rest).await.unwrap();
        assert!(rest.ends_with("\r\n\r\nin"), "{rest}");
        shutdown.cancel();
        server.await.unwrap();
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
