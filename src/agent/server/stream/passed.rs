//! A runtime that speaks the kubelet's protocols itself: a client's request goes on to it as it is, and then every byte.

use bytes::Bytes;
use http::uri::{PathAndQuery, Uri};
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::net::TcpStream;
use tracing::debug;

use crate::agent::server::http::{Body, say};

type Upgraded = TokioIo<hyper::upgrade::Upgraded>;

/// Asks at `url` what the client has asked.
///
/// # Errors
/// Nobody answers there, or not in HTTP.
pub async fn ask(
    url: &str,
    request: &Request<Incoming>,
) -> Result<Response<Incoming>, Box<dyn std::error::Error + Send + Sync>> {
    let url: Uri = url.parse()?;
    let authority = url.authority().ok_or("the runtime's URL has no host")?;
    let stream =
        TcpStream::connect((authority.host().trim_matches(['[', ']']), authority.port_u16().unwrap_or(80))).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the connection, at the latest when the client's own does.
    tokio::spawn(connection.with_upgrades());
    let path = url.path_and_query().map_or("/", PathAndQuery::as_str);
    let mut asked = Request::builder().method(request.method()).uri(path).body(Empty::<Bytes>::new())?;
    *asked.headers_mut() = forwarded(request.headers());
    asked.headers_mut().insert(header::HOST, authority.as_str().parse()?);
    Ok(sender.send_request(asked).await?)
}

/// What the runtime is told of the request: everything but who has asked.
fn forwarded(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    headers.remove(header::AUTHORIZATION);
    headers
}

/// The runtime's answer, as the client's. Where it turns the connection over, what follows goes through `carry`.
pub fn answer(response: Response<Incoming>) -> (Response<Body>, Option<hyper::upgrade::OnUpgrade>) {
    let (parts, body) = response.into_parts();
    let response = Response::from_parts(parts, body);
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return (response.map(|body| body.map_err(Into::into).boxed_unsync()), None);
    }
    let (status, headers) = (response.status(), response.headers().clone());
    let upgrade = hyper::upgrade::on(response);
    let mut own = say(status, "");
    *own.headers_mut() = headers;
    (own, Some(upgrade))
}

/// Carries bytes both ways until one side ends.
pub async fn carry<I: AsyncRead + AsyncWrite + Unpin>(mut client: I, runtime: hyper::upgrade::OnUpgrade) {
    let mut runtime: Upgraded = match runtime.await {
        Ok(upgraded) => TokioIo::new(upgraded),
        Err(error) => return debug!(%error, "the runtime did not turn its connection over"),
    };
    if let Err(error) = copy_bidirectional(&mut client, &mut runtime).await {
        debug!(%error, "a stream of the runtime ended");
    }
}
