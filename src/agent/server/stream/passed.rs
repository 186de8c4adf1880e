//! A runtime that speaks the kubelet's protocols itself: a client's request goes on to it as it is, and then every byte.

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery, Uri};
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::net::TcpStream;
use tracing::debug;

use crate::agent::server::http::{Body, say};

type Upgraded = TokioIo<hyper::upgrade::Upgraded>;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Asks at `url` what the client has asked.
///
/// # Errors
/// Nobody answers there, or not in HTTP.
pub async fn ask(url: &str, request: &Request<Incoming>) -> Result<Response<Incoming>, Failure> {
    let url: Uri = url.parse()?;
    let authority = authority(&url)?;
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

/// Who is asked. A runtime serves its streams on this machine alone, unless somebody has made it serve them to others, and
/// by TLS with a certificate that nobody knows.
fn authority(url: &Uri) -> Result<&Authority, Failure> {
    if url.scheme_str() == Some("https") {
        return Err("it serves streams by TLS (enable_tls_streaming of containerd), which is not spoken".into());
    }
    Ok(url.authority().ok_or("the runtime's URL has no host")?)
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

#[cfg(test)]
mod tests {
    use super::*;

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
