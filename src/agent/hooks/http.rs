//! `httpGet` of a hook: any answer is a success, and one in plain HTTP to an HTTPS request is asked for again in it.

use std::io;
use std::sync::{Arc, LazyLock};

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::HookError;
use crate::agent::probe::http::{self, Answer, Place};
use crate::agent::probe::{HttpGet, Outcome, Port};
use crate::release;

/// How many redirects are followed, to whatever host.
const REDIRECTS: usize = 10;
/// The kubelet's user agent, `kube-lifecycle/<major>.<minor>`, with the newest release that is known here.
static USER_AGENT: LazyLock<String> = LazyLock::new(|| {
    let version: Vec<_> = release::DEFAULT_VERSION.trim_start_matches('v').splitn(3, '.').take(2).collect();
    format!("kube-lifecycle/{}", version.join("."))
});

/// GETs what the hook asks for at `host`.
pub(super) async fn get(tls: &Arc<ClientConfig>, get: &HttpGet, host: &str) -> Result<(), HookError> {
    let port = match &get.port {
        Port::Number(port) => *port,
        Port::Unknown(name) => {
            return Err(HookError::Unusable(format!("no port of the container is called {name:?}")));
        }
    };
    let mut headers = get.headers.clone();
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("user-agent")) {
        headers.push(("User-Agent".to_owned(), USER_AGENT.clone()));
    }
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let mut place = Place { tls: get.tls, host, port, path: get.path.clone() };
    for _ in 0..=REDIRECTS {
        let answer = ask(tls, &mut place, &headers).await?;
        match http::redirect(&place, &answer) {
            Some(next) => place = next,
            None => return Ok(()),
        }
    }
    Err(HookError::Http(format!("stopped after {REDIRECTS} redirects")))
}

/// Asks once, or a second time in plain HTTP.
async fn ask(tls: &Arc<ClientConfig>, place: &mut Place, headers: &[(String, String)]) -> Result<Answer, HookError> {
    let failed = |place: &Place, error: &dyn std::fmt::Display| {
        HookError::Http(format!("cannot ask {} at port {}: {error}", place.host, place.port))
    };
    let connect = |place: &Place| TcpStream::connect((place.host.clone(), place.port));
    let mut stream = connect(place).await.map_err(|error| failed(place, &error))?;
    if place.tls {
        let name = ServerName::try_from(place.host.clone()).map_err(|error| failed(place, &error))?;
        match TlsConnector::from(Arc::clone(tls)).connect(name, stream).await {
            Ok(stream) => {
                let request = http::request(place, headers).map_err(said)?;
                return http::converse(stream, request).await.map_err(said);
            }
            Err(error) if is_no_tls(&error) => {
                place.tls = false;
                stream = connect(place).await.map_err(|error| failed(place, &error))?;
            }
            Err(error) => return Err(failed(place, &error)),
        }
    }
    let request = http::request(place, headers).map_err(said)?;
    http::converse(stream, request).await.map_err(said)
}

/// Whether what came back was no TLS at all, as a plain HTTP server's answer is.
fn is_no_tls(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::InvalidMessage(_)))
}

fn said(outcome: Outcome) -> HookError {
    match outcome {
        Outcome::Failure { message, .. } | Outcome::Error { message } => HookError::Http(message),
        Outcome::Success { .. } => HookError::Http("no answer".to_owned()),
    }
}
