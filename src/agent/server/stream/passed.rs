//! A runtime that speaks the kubelet's protocols itself: a client's request goes on to it as it is, and then every byte.

use std::time::Duration;

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery, Uri};
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use super::negotiate;
use crate::agent::server::http::{Body, text_response};

/// A runtime listens on this machine.
const CONNECT: Duration = Duration::from_secs(5);
/// How long it may take to turn a connection over or to say why it does not: it waits for nothing in between.
const ANSWER: Duration = Duration::from_secs(30);
/// The most bytes of its reasons that are passed on.
const REASONS: usize = 64 << 10;

type Upgraded = TokioIo<hyper::upgrade::Upgraded>;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A runtime's answer, and its connection, which ends with this.
pub struct Asked {
    response: Response<Incoming>,
    /// How long the rest of it may take.
    limit: Duration,
    connection: AbortOnDropHandle<hyper::Result<()>>,
}

/// A runtime's connection that is being turned over.
pub struct Turning {
    upgrade: hyper::upgrade::OnUpgrade,
    connection: AbortOnDropHandle<hyper::Result<()>>,
}

/// Asks at `url` what the client has asked.
///
/// # Errors
/// No server answers there in time, or not in HTTP.
pub async fn ask(url: &str, request: &Request<Incoming>) -> Result<Asked, Failure> {
    let url: Uri = url.parse()?;
    let authority = authority(&url)?;
    let path = url.path_and_query().map_or("/", PathAndQuery::as_str);
    let mut asked = Request::builder().method(request.method()).uri(path).body(Empty::<Bytes>::new())?;
    *asked.headers_mut() = forwarded(request.headers());
    asked.headers_mut().insert(header::HOST, authority.as_str().parse()?);
    send(authority, asked, ANSWER).await
}

/// The connection to `url`, turned over to SPDY with this protocol of the kubelet's.
///
/// # Errors
/// As [`ask`]; and it is not turned over.
pub async fn spdy(
    url: &str,
    protocol: &'static str,
) -> Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static, Failure> {
    let url: Uri = url.parse()?;
    let authority = authority(&url)?;
    let path = url.path_and_query().map_or("/", PathAndQuery::as_str);
    let request = Request::post(path)
        .header(header::HOST, authority.as_str())
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, negotiate::SPDY)
        .header(negotiate::STREAM_PROTOCOL, protocol);
    let (response, turning) = answer(send(authority, request.body(Empty::new())?, ANSWER).await?).await;
    match turning {
        Some(turning) => Ok(turning.turned().await?),
        None => {
            let reason = response.into_body().collect().await?.to_bytes();
            Err(format!("it answers {}", String::from_utf8_lossy(&reason).trim()).into())
        }
    }
}

async fn send(authority: &Authority, request: Request<Empty<Bytes>>, limit: Duration) -> Result<Asked, Failure> {
    let to = (authority.host().trim_matches(['[', ']']), authority.port_u16().unwrap_or(80));
    let stream = timeout(CONNECT, TcpStream::connect(to)).await.map_err(|_| late(CONNECT))??;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = AbortOnDropHandle::new(tokio::spawn(connection.with_upgrades()));
    let response = timeout(limit, sender.send_request(request)).await.map_err(|_| late(limit))??;
    Ok(Asked { response, limit, connection })
}

fn late(limit: Duration) -> String {
    format!("not within {} s", limit.as_secs())
}

/// Who is asked. A runtime serves its streams on this machine alone, unless it was configured to serve them to others, and
/// by TLS with a certificate that is not known.
fn authority(url: &Uri) -> Result<&Authority, Failure> {
    if url.scheme_str() == Some("https") {
        return Err("it serves streams by TLS (enable_tls_streaming of containerd), which is not spoken".into());
    }
    Ok(url.authority().ok_or("the runtime's URL has no host")?)
}

/// What the runtime gets of the request: everything but who has asked.
fn forwarded(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    headers.remove(header::AUTHORIZATION);
    headers
}

/// The runtime's answer, as the client's. Where it turns the connection over, what follows goes through [`carry`].
pub async fn answer(asked: Asked) -> (Response<Body>, Option<Turning>) {
    let Asked { response, limit, connection } = asked;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let mut own = text_response(response.status(), "");
        *own.headers_mut() = response.headers().clone();
        return (own, Some(Turning { upgrade: hyper::upgrade::on(response), connection }));
    }
    let (parts, body) = response.into_parts();
    match timeout(limit, Limited::new(body, REASONS).collect()).await {
        Ok(Ok(body)) => {
            let body = Full::new(body.to_bytes()).map_err(|never| match never {}).boxed_unsync();
            (Response::from_parts(parts, body), None)
        }
        Ok(Err(error)) => (cut_off(&error.to_string()), None),
        Err(_) => (cut_off(&late(limit)), None),
    }
}

fn cut_off(why: &str) -> Response<Body> {
    text_response(StatusCode::BAD_GATEWAY, format!("the container runtime's answer cannot be read: {why}"))
}

impl Turning {
    async fn turned(self) -> hyper::Result<Upgraded> {
        let Self { upgrade, connection } = self;
        let upgraded = upgrade.await;
        drop(connection);
        upgraded.map(TokioIo::new)
    }
}

/// Carries bytes both ways until one side ends.
pub async fn carry<I: AsyncRead + AsyncWrite + Unpin>(mut client: I, runtime: Turning) {
    let mut runtime = match runtime.turned().await {
        Ok(runtime) => runtime,
        Err(error) => return debug!(%error, "the runtime did not turn its connection over"),
    };
    if let Err(error) = copy_bidirectional(&mut client, &mut runtime).await {
        debug!(%error, "a stream of the runtime ended");
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A runtime that reads a request, says this and no more, and what comes of it.
    async fn said(words: Vec<u8>) -> Result<(StatusCode, usize), String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority: Authority = listener.local_addr().unwrap().to_string().parse().unwrap();
        let runtime = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 1024]).await.unwrap();
            let _ = stream.write_all(&words).await;
            std::future::pending::<()>().await;
        });
        let asked = send(&authority, Request::new(Empty::new()), Duration::from_secs(1)).await;
        let (response, turned) = answer(asked.map_err(|error| error.to_string())?).await;
        assert!(turned.is_none());
        runtime.abort();
        Ok((response.status(), response.into_body().collect().await.unwrap().to_bytes().len()))
    }

    #[tokio::test]
    async fn a_runtime_that_says_nothing_or_not_all_is_not_waited_for_without_end() {
        assert_eq!(said(vec![]).await.unwrap_err(), "not within 1 s");
        let half = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 20\r\n\r\nhalf".to_vec();
        let (status, _) = said(half).await.unwrap();
        assert_eq!(status, StatusCode::BAD_GATEWAY);
    }

    #[tokio::test]
    async fn a_runtimes_reasons_are_passed_on_as_far_as_somebody_reads_them() {
        let answer = |length: usize| {
            let head = format!("HTTP/1.1 400 Bad Request\r\nContent-Length: {length}\r\n\r\n");
            [head.into_bytes(), vec![b'x'; length]].concat()
        };
        assert_eq!(said(answer(1000)).await.unwrap(), (StatusCode::BAD_REQUEST, 1000));
        let (status, length) = said(answer(1 << 20)).await.unwrap();
        assert!(status == StatusCode::BAD_GATEWAY && length < 200, "{status} {length}");
    }

    #[test]
    fn a_runtime_is_asked_without_tls_and_says_so_where_it_wants_it() {
        let ask = |url: &str| authority(&url.parse().unwrap()).map(ToString::to_string).map_err(|why| why.to_string());
        assert_eq!(ask("http://127.0.0.1:4711/exec/token").unwrap(), "127.0.0.1:4711");
        assert!(ask("https://127.0.0.1:4711/exec/token").unwrap_err().contains("enable_tls_streaming"));
        assert!(ask("/exec/token").unwrap_err().contains("no host"));
    }

    #[test]
    fn the_runtime_does_not_learn_who_has_asked() {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, "Bearer secret".parse().unwrap());
        headers.insert(header::UPGRADE, "SPDY/3.1".parse().unwrap());
        let forwarded = forwarded(&headers);
        assert_eq!((forwarded.get(header::AUTHORIZATION), forwarded.len()), (None, 1));
    }
}
