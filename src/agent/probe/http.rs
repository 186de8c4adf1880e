//! `httpGet` as the kubelet makes it: HTTP/1.1, one connection a request, no proxy, nothing verified.

use std::pin::pin;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::check::{dial_error, is_refusal};
use super::{Outcome, Route};
use crate::release;

/// What is read of a body.
const BODY_LIMIT: usize = 10 * 1024;
/// How many redirects are followed.
const REDIRECTS: usize = 10;
/// What is shown of a body that says why.
const SHOWN: usize = 120;
/// The kubelet's user agent, `kube-probe/<major>.<minor>`, with the newest release that is known here.
pub(super) static USER_AGENT: LazyLock<String> = LazyLock::new(|| {
    let version: Vec<_> = release::DEFAULT_VERSION.trim_start_matches('v').splitn(3, '.').take(2).collect();
    format!("kube-probe/{}", version.join("."))
});

/// What came back.
pub(in crate::agent) struct Answer {
    status: StatusCode,
    location: Option<String>,
    body: String,
}

/// Where a request goes; a redirect makes another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::agent) struct Place {
    /// HTTPS.
    pub tls: bool,
    /// Name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Path and query.
    pub path: String,
}

/// GETs a place; 200 to 399 is a success. A redirect to the same host is followed, one to another is a doubtful
/// success.
pub(super) async fn get(
    tls: &Arc<ClientConfig>,
    mut place: Place,
    headers: &[(String, String)],
    route: Option<&Route>,
) -> Outcome {
    for _ in 0..REDIRECTS {
        let answer = match exchange(tls, &place, headers, route).await {
            Ok(answer) => answer,
            Err(outcome) => return outcome,
        };
        let Some(location) = answer.location.as_deref().filter(|_| is_redirect(answer.status)) else {
            return judge(&answer);
        };
        match follow(&place, location) {
            Some(next) if next.host.eq_ignore_ascii_case(&place.host) => place = next,
            Some(_) => return doubtful(&answer),
            None => return failure(failed(&place, &format!("failed to parse Location header {location:?}"))),
        }
    }
    failure(failed(&place, &format!("stopped after {REDIRECTS} redirects")))
}

/// A redirect that is not followed.
fn doubtful(answer: &Answer) -> Outcome {
    Outcome::Success { warning: Some(format!("Probe terminated redirects, Response body: {}", answer.body)) }
}

/// A request that came to nothing, as Go's client says it.
pub(super) fn failed(place: &Place, why: &str) -> String {
    let Place { tls, host, port, path } = place;
    let scheme = if *tls { "https" } else { "http" };
    format!("Get \"{scheme}://{}:{port}{}\": {why}", bracketed(host), escaped(path))
}

fn judge(answer: &Answer) -> Outcome {
    match answer.status.as_u16() {
        200..300 => Outcome::Success { warning: None },
        300..400 => doubtful(answer),
        code => {
            let why = said(&answer.body);
            let colon = if why.is_empty() { "" } else { ": " };
            failure(format!("HTTP probe failed with statuscode: {code}{colon}{why}"))
        }
    }
}

/// The lines of a health endpoint's body that say what is wrong (`[-]etcd failed: ...`), the `message` of an API
/// server's `Status`, else its first line; nothing of a page made for browsers. One line, and no long one.
fn said(body: &str) -> String {
    if body.trim_start().starts_with('<') {
        return String::new();
    }
    if let Some(message) = status_message(body) {
        return shown(&message);
    }
    let failed: Vec<_> = body.lines().filter(|line| line.starts_with("[-]")).collect();
    let text = if failed.is_empty() { body.lines().next().unwrap_or_default().to_owned() } else { failed.join(", ") };
    shown(&text)
}

/// What an API server answers with to a request it refuses, as JSON over one line or many.
fn status_message(body: &str) -> Option<String> {
    let status: serde_json::Value = serde_json::from_str(body).ok()?;
    status.get("kind").filter(|kind| *kind == "Status")?;
    Some(status.get("message")?.as_str()?.to_owned())
}

fn shown(text: &str) -> String {
    let line: String = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match line.char_indices().nth(SHOWN) {
        Some(_) => line.chars().take(SHOWN - 3).collect::<String>() + "...",
        None => line,
    }
}

fn failure(message: String) -> Outcome {
    Outcome::Failure { message, refused: false }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Where an answer sends who asked at `from`, if it does.
pub(in crate::agent) fn redirect(from: &Place, answer: &Answer) -> Option<Place> {
    follow(from, answer.location.as_deref().filter(|_| is_redirect(answer.status))?)
}

/// The place a `Location` names, seen from `from`.
fn follow(from: &Place, location: &str) -> Option<Place> {
    if location.starts_with('/') && !location.starts_with("//") {
        return Some(Place { path: location.to_owned(), ..from.clone() });
    }
    let scheme = if from.tls { "https:" } else { "http:" };
    let absolute = if location.starts_with("//") { format!("{scheme}{location}") } else { location.to_owned() };
    let absolute = absolute.split('#').next().unwrap_or_default();
    if !absolute.contains("://") {
        let base = from.path.split('?').next().unwrap_or_default();
        let directory = base.rsplit_once('/').map_or("", |(directory, _)| directory);
        return Some(Place { path: format!("{directory}/{absolute}"), ..from.clone() });
    }
    let uri: Uri = absolute.parse().ok()?;
    let tls = match uri.scheme_str()? {
        "http" => false,
        "https" => true,
        _ => return None,
    };
    let host = uri.host()?.trim_start_matches('[').trim_end_matches(']').to_owned();
    let path = uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
    Some(Place { tls, host, port: uri.port_u16().unwrap_or(if tls { 443 } else { 80 }), path })
}

async fn exchange(
    tls: &Arc<ClientConfig>,
    place: &Place,
    headers: &[(String, String)],
    route: Option<&Route>,
) -> Result<Answer, Outcome> {
    let request = request(place, headers)?;
    let stream = match route {
        Some(route) => route.connect(&place.host, place.port).await,
        None => TcpStream::connect((place.host.as_str(), place.port)).await,
    };
    let stream = stream.map_err(|error| Outcome::Failure {
        message: failed(place, &dial_error(&place.host, place.port, &error)),
        refused: is_refusal(&error),
    })?;
    if !place.tls {
        return converse(stream, request).await;
    }
    let name = ServerName::try_from(place.host.clone())
        .map_err(|_| Outcome::Error { message: format!("{:?} is no host name", place.host) })?;
    let stream = TlsConnector::from(Arc::clone(tls)).connect(name, stream).await;
    converse(stream.map_err(|error| failure(format!("TLS handshake failed: {error}")))?, request).await
}

/// Sends a request over a connection and reads the answer.
pub(in crate::agent) async fn converse<S>(stream: S, request: Request<Empty<Bytes>>) -> Result<Answer, Outcome>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let broken = |error: hyper::Error| failure(format!("HTTP exchange failed: {error}"));
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let mut exchange = pin!(async {
        let response = sender.send_request(request).await.map_err(broken)?;
        Ok(read(response).await)
    });
    tokio::select! {
        answer = &mut exchange => answer,
        // What the server sent before it closed is still to be read.
        _ = connection => exchange.await,
    }
}

async fn read(response: Response<Incoming>) -> Answer {
    let (parts, mut body) = response.into_parts();
    let mut bytes = Vec::new();
    while bytes.len() < BODY_LIMIT {
        // A body that breaks off does not change what the status said.
        let Some(Ok(frame)) = body.frame().await else { break };
        bytes.extend_from_slice(frame.data_ref().map_or(&[], |data| &data[..]));
    }
    bytes.truncate(BODY_LIMIT);
    let location = parts.headers.get(header::LOCATION).and_then(|v| v.to_str().ok()).map(str::to_owned);
    Answer { status: parts.status, location, body: String::from_utf8_lossy(&bytes).into_owned() }
}

/// Headers that belong to the exchange and not to the probe, as in the kubelet: an answer could not be read otherwise.
const NOT_THEIRS: [&str; 5] = ["Connection", "Content-Length", "Trailer", "Transfer-Encoding", "Upgrade"];

/// The request, with the kubelet's own headers unless the probe sets them; an empty `Accept` or `User-Agent` drops it.
/// Of several hosts the first counts, and an empty one does not.
pub(in crate::agent) fn request(place: &Place, headers: &[(String, String)]) -> Result<Request<Empty<Bytes>>, Outcome> {
    let is = |given: &str, name: &str| given.eq_ignore_ascii_case(name);
    let usual = if place.tls { 443 } else { 80 };
    let address = bracketed(&place.host);
    let address = if place.port == usual { address } else { format!("{address}:{}", place.port) };
    let host = headers.iter().find(|(name, value)| is(name, "Host") && !value.is_empty());
    let host = host.map_or(address.as_str(), |(_, value)| value);
    let mut builder = Request::get(escaped(&place.path)).header(header::CONNECTION, "close").header(header::HOST, host);
    for (name, value) in [("User-Agent", USER_AGENT.as_str()), ("Accept", "*/*")] {
        let mut own = headers.iter().filter(|(given, _)| is(given, name)).peekable();
        if own.peek().is_none() {
            builder = builder.header(name, value);
        }
        for (_, value) in own.filter(|(_, value)| !value.is_empty()) {
            builder = builder.header(name, value);
        }
    }
    let settled = ["Host", "User-Agent", "Accept"];
    for (name, value) in headers {
        if !settled.iter().chain(&NOT_THEIRS).any(|other| is(name, other)) {
            builder = builder.header(name.as_str(), value.as_str());
        }
    }
    builder.body(Empty::new()).map_err(|error| Outcome::Error { message: format!("cannot make the request: {error}") })
}

/// A host as it stands before a port: an IPv6 address in brackets.
pub(super) fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

/// The path as a request target: with a leading slash, without a fragment, bytes that may not stand there escaped.
fn escaped(path: &str) -> String {
    let path = path.split('#').next().unwrap_or_default();
    let mut target = String::from(if path.starts_with('/') { "" } else { "/" });
    for byte in path.bytes() {
        match byte {
            0..=b' ' | 127.. | b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' => {
                target.push_str(&format!("%{byte:02X}"));
            }
            _ => target.push(char::from(byte)),
        }
    }
    target
}
