//! gRPC to a member: TLS with a client certificate, a connection for each question, and what an error means.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use http::uri::PathAndQuery;
use http::{StatusCode, Uri};
use http_body_util::{BodyExt, Limited};
use hyper_util::rt::TokioIo;
use prost::Message;
use rustls::AlertDescription;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::Request;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;
use tower::ServiceExt;

use super::{EtcdError, Member};

/// How long a connection may take: a member is in the same network, or is not there.
const CONNECT: Duration = Duration::from_secs(3);
/// How long a server may take for its first word after the handshake, before it is spoken to all the same.
const FIRST_WORD: Duration = Duration::from_millis(500);
/// How long an answer beside gRPC may be, in bytes.
const LONGEST: usize = 64 << 10;
/// How many bytes may be on their way to here: a whole snapshot goes through one stream.
const WINDOW: u32 = 1 << 20;

/// What a server says to a client whose certificate it does not take.
const ABOUT_CERTIFICATES: &[AlertDescription] = &[
    AlertDescription::BadCertificate,
    AlertDescription::UnsupportedCertificate,
    AlertDescription::CertificateRevoked,
    AlertDescription::CertificateExpired,
    AlertDescription::CertificateUnknown,
    AlertDescription::UnknownCA,
    AlertDescription::AccessDenied,
    AlertDescription::DecryptError,
    AlertDescription::CertificateRequired,
];

/// What broke a connection.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A question.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// Service and method: `/etcdserverpb.Maintenance/Status`.
    pub path: &'static str,
    /// What the member is asked to do, after "refuses to".
    pub what: &'static str,
    /// How long the answer may take; of a stream, each part of it.
    pub limit: Duration,
}

/// A connection to a member, for one question.
struct Line {
    channel: Channel,
    grpc: Grpc<Channel>,
    /// The first error of TLS after the handshake: with TLS 1.3 a server looks at the client's certificate only then.
    /// HTTP/2 passes on no more than its text.
    tls_error: Arc<OnceLock<rustls::Error>>,
}

impl Line {
    async fn to(member: &Member) -> Result<Self, EtcdError> {
        let connected = async {
            let name = ServerName::try_from(member.host.clone()).map_err(|e| member.unreachable(e))?;
            let tls = TlsConnector::from(Arc::new(member.tls().map_err(|e| member.unreachable(e))?));
            let stream = TcpStream::connect(member.address()).await.map_err(|e| member.unreachable(e))?;
            // Questions are small, and each is waited for.
            stream.set_nodelay(true).map_err(|e| member.unreachable(e))?;
            let inner = tls.connect(name, stream).await.map_err(|error| of_handshake(member, error))?;
            // A server that does not take the certificate says so now, and closes: the kernel throws that away where
            // something else was sent meanwhile. One that takes it speaks first too, with its settings.
            let _ = timeout(FIRST_WORD, inner.get_ref().0.peek(&mut [0])).await;
            let tls_error = Arc::new(OnceLock::new());
            let watched = Watched { inner, seen: Arc::clone(&tls_error) };
            let channel = channel(member, watched).await;
            let channel = channel.map_err(|error| tls_or(member, &tls_error, || member.unreachable(error)))?;
            Ok(Self { grpc: Grpc::new(channel.clone()), channel, tls_error })
        };
        timeout(CONNECT, connected).await.map_err(|_| late(member, CONNECT))?
    }

    /// What a status stands for.
    fn error(&self, member: &Member, call: Call, status: &tonic::Status) -> EtcdError {
        tls_or(member, &self.tls_error, || EtcdError::of(member, call.what, status))
    }

    async fn ready(&mut self, member: &Member) -> Result<(), EtcdError> {
        let ready = self.grpc.ready().await;
        ready.map_err(|error| tls_or(member, &self.tls_error, || member.unreachable(error)))
    }
}

/// A channel over one stream. It never connects again: the next question has a connection, and credentials, of its own.
async fn channel(member: &Member, stream: Watched) -> Result<Channel, tonic::transport::Error> {
    let mut stream = Some(stream);
    let connector = tower::service_fn(move |_: Uri| {
        let stream = stream.take().map(TokioIo::new).ok_or(io::ErrorKind::NotConnected);
        async move { stream.map_err(io::Error::from) }
    });
    let endpoint = Endpoint::from_shared(format!("https://{}", member.address()))?
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW);
    endpoint.connect_with_connector(connector).await
}

/// Asks `member` and waits for the answer.
///
/// # Errors
/// [`EtcdError`]; one that does not answer in time is one.
pub async fn unary<Q, A>(member: &Member, call: Call, question: Q) -> Result<A, EtcdError>
where
    Q: Message + 'static,
    A: Message + Default + 'static,
{
    let mut line = Line::to(member).await?;
    let asked = async {
        line.ready(member).await?;
        let path = PathAndQuery::from_static(call.path);
        let answer = line.grpc.unary(Request::new(question), path, ProstCodec::<Q, A>::default()).await;
        answer.map(tonic::Response::into_inner).map_err(|status| line.error(member, call, &status))
    };
    timeout(call.limit, asked).await.map_err(|_| late(member, call.limit))?
}

/// Gets what `member` serves at a path beside gRPC, on the same port; None where it serves nothing there.
///
/// # Errors
/// As [`unary`].
pub async fn get(member: &Member, path: &'static str, limit: Duration) -> Result<Option<Bytes>, EtcdError> {
    let mut line = Line::to(member).await?;
    let asked = async {
        line.ready(member).await?;
        let failed = |error: Cause| tls_or(member, &line.tls_error, || member.unreachable(error));
        let question = http::Request::get(path).body(Body::empty()).map_err(|error| failed(error.into()))?;
        let answer = line.channel.clone().oneshot(question).await.map_err(|error| failed(error.into()))?;
        if answer.status() != StatusCode::OK {
            return Ok(None);
        }
        let body = Limited::new(answer.into_body(), LONGEST).collect().await.map_err(failed)?;
        Ok(Some(body.to_bytes()))
    };
    timeout(limit, asked).await.map_err(|_| late(member, limit))?
}

/// Asks `member` for a stream of answers. It ends after the first error.
///
/// # Errors
/// As [`unary`]; each part has the whole limit.
pub async fn streaming<Q, A>(
    member: &Member,
    call: Call,
    question: Q,
) -> Result<BoxStream<'static, Result<A, EtcdError>>, EtcdError>
where
    Q: Message + 'static,
    A: Message + Default + Send + 'static,
{
    let mut line = Line::to(member).await?;
    let asked = async {
        line.ready(member).await?;
        let path = PathAndQuery::from_static(call.path);
        let answers = line.grpc.server_streaming(Request::new(question), path, ProstCodec::<Q, A>::default()).await;
        answers.map(tonic::Response::into_inner).map_err(|status| line.error(member, call, &status))
    };
    let answers = timeout(call.limit, asked).await.map_err(|_| late(member, call.limit))??;
    let begin = (member.clone(), line, answers);
    let parts = stream::try_unfold(begin, move |(member, line, mut answers)| async move {
        match timeout(call.limit, answers.message()).await {
            Ok(Ok(part)) => Ok(part.map(|part| (part, (member, line, answers)))),
            Ok(Err(status)) => Err(line.error(&member, call, &status)),
            Err(_) => Err(late(&member, call.limit)),
        }
    });
    Ok(parts.boxed())
}

fn late(member: &Member, limit: Duration) -> EtcdError {
    member.unreachable(format!("no answer within {} s", limit.as_secs()))
}

/// The error of TLS inside of an error of the stream, if it is one.
fn tls_error(error: &io::Error) -> Option<rustls::Error> {
    error.get_ref()?.downcast_ref::<rustls::Error>().cloned()
}

fn of_handshake(member: &Member, error: io::Error) -> EtcdError {
    match tls_error(&error) {
        Some(error) => of_tls(member, error),
        None => member.unreachable(error),
    }
}

fn of_tls(member: &Member, error: rustls::Error) -> EtcdError {
    let (address, source) = (member.address(), Box::new(error));
    match *source {
        rustls::Error::InvalidCertificate(_) => EtcdError::NotTrusted { address, ca: member.ca.clone(), source },
        rustls::Error::AlertReceived(alert) if ABOUT_CERTIFICATES.contains(&alert) => {
            EtcdError::NotTaken { address, certificate: member.certificate.clone(), source }
        }
        _ => EtcdError::Unreachable { address, source },
    }
}

/// The error of TLS that was seen, or else another one.
fn tls_or(member: &Member, seen: &OnceLock<rustls::Error>, other: impl FnOnce() -> EtcdError) -> EtcdError {
    seen.get().map_or_else(other, |error| of_tls(member, error.clone()))
}

/// A stream that keeps the first error of TLS.
struct Watched {
    inner: TlsStream<TcpStream>,
    seen: Arc<OnceLock<rustls::Error>>,
}

impl Watched {
    fn watch<T>(&self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &result
            && let Some(error) = tls_error(error)
        {
            self.seen.get_or_init(|| error);
        }
        result
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        self.watch(read)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.watch(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        self.watch(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
