//! Which protocol a client's connection is to go on with.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};

use super::websocket::Format;
use crate::agent::server::http::{Body, text_response};

/// The header with the names of protocols on SPDY.
pub const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const ACCEPTED_PROTOCOLS: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");
/// What a connection is turned over to that carries SPDY.
pub const SPDY: &str = "SPDY/3.1";
const WEBSOCKET: &str = "websocket";
/// What a WebSocket's key is hashed with (RFC 6455, section 1.3).
const KEY_SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What a protocol is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Streams of SPDY.
    Spdy,
    /// Messages of a WebSocket, a channel each.
    WebSocket(Format),
    /// Streams of SPDY inside a WebSocket.
    Tunnel,
}

/// A protocol of the kubelet.
#[derive(Debug, PartialEq, Eq)]
pub struct Protocol {
    /// Its name, as clients ask for it.
    pub name: &'static str,
    /// What it is on.
    pub transport: Transport,
    /// Whether the end is sent in JSON, rather than a failure in words.
    pub json_status: bool,
    /// Whether the size of a terminal is sent.
    pub resizes: bool,
}

const PLAIN: Transport = Transport::WebSocket(Format { base64: false, closes: false });
const BASE64: Transport = Transport::WebSocket(Format { base64: true, closes: false });
const CLOSING: Transport = Transport::WebSocket(Format { base64: false, closes: true });

const fn row(name: &'static str, transport: Transport, json_status: bool, resizes: bool) -> Protocol {
    Protocol { name, transport, json_status, resizes }
}

/// Those of `exec` and `attach`.
pub const COMMANDS: &[Protocol] = &[
    row("v4.channel.k8s.io", Transport::Spdy, true, true),
    row("v3.channel.k8s.io", Transport::Spdy, false, true),
    row("v2.channel.k8s.io", Transport::Spdy, false, false),
    row("channel.k8s.io", Transport::Spdy, false, false),
    row("v5.channel.k8s.io", CLOSING, true, true),
    row("v4.channel.k8s.io", PLAIN, true, true),
    row("v4.base64.channel.k8s.io", BASE64, true, true),
    row("channel.k8s.io", PLAIN, false, true),
    row("base64.channel.k8s.io", BASE64, false, true),
    row("", PLAIN, false, true),
];

/// Those of `portForward`.
pub const FORWARDS: &[Protocol] = &[
    row("portforward.k8s.io", Transport::Spdy, false, false),
    row("SPDY/3.1+portforward.k8s.io", Transport::Tunnel, false, false),
    row("v4.channel.k8s.io", PLAIN, false, false),
    row("v4.base64.channel.k8s.io", BASE64, false, false),
    row("", PLAIN, false, false),
];

/// The protocol and the answer that turns the connection over to it.
///
/// # Errors
/// The answer to a client that asks for none, or for none of these.
pub fn negotiate(
    headers: &HeaderMap,
    known: &'static [Protocol],
) -> Result<(&'static Protocol, Response<Body>), Response<Body>> {
    let upgrades = words(headers, &header::CONNECTION).iter().any(|word| word.eq_ignore_ascii_case("upgrade"));
    let to = |protocol: &str| words(headers, &header::UPGRADE).iter().any(|word| word.eq_ignore_ascii_case(protocol));
    match (upgrades && to(WEBSOCKET), upgrades && to(SPDY)) {
        (true, _) => web_socket(headers, known),
        (_, true) => spdy(headers, known),
        _ => Err(text_response(StatusCode::BAD_REQUEST, "unable to upgrade: missing upgrade headers in request\n")),
    }
}

/// Whether a client asks for what runtimes do not speak on a WebSocket: channels whose end is sent
/// (`v5.channel.k8s.io`). The kubelet looks at the same (`ExtendWebSocketsToKubelet`).
pub fn tells_ends(headers: &HeaderMap) -> bool {
    let has = |name: &HeaderName, word: &str| words(headers, name).iter().any(|one| one.eq_ignore_ascii_case(word));
    has(&header::CONNECTION, "upgrade")
        && has(&header::UPGRADE, WEBSOCKET)
        && has(&header::SEC_WEBSOCKET_PROTOCOL, "v5.channel.k8s.io")
}

/// What stands in a header, parted at commas.
fn words<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Vec<&'h str> {
    let texts = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(',')).map(str::trim).filter(|word| !word.is_empty()).collect()
}

fn spdy(
    headers: &HeaderMap,
    known: &'static [Protocol],
) -> Result<(&'static Protocol, Response<Body>), Response<Body>> {
    let asked = words(headers, &STREAM_PROTOCOL);
    if asked.is_empty() {
        let words = "unable to upgrade: X-Stream-Protocol-Version is required\n";
        return Err(text_response(StatusCode::BAD_REQUEST, words));
    }
    let here: Vec<&Protocol> = known.iter().filter(|protocol| protocol.transport == Transport::Spdy).collect();
    let found = asked.iter().find_map(|name| here.iter().find(|protocol| protocol.name == *name).copied());
    let Some(protocol) = found else {
        let names: Vec<&str> = here.iter().map(|protocol| protocol.name).collect();
        let (asked, accepts) = (asked.join(" "), names.join(" "));
        let words = format!(
            "unable to upgrade: unable to negotiate protocol: client supports [{asked}], server accepts [{accepts}]\n"
        );
        let mut refusal = text_response(StatusCode::FORBIDDEN, words);
        for name in names {
            refusal.headers_mut().append(ACCEPTED_PROTOCOLS, HeaderValue::from_static(name));
        }
        return Err(refusal);
    };
    let mut response = switch(SPDY);
    response.headers_mut().insert(STREAM_PROTOCOL, HeaderValue::from_static(protocol.name));
    Ok((protocol, response))
}

fn web_socket(
    headers: &HeaderMap,
    known: &'static [Protocol],
) -> Result<(&'static Protocol, Response<Body>), Response<Body>> {
    let key = headers.get(header::SEC_WEBSOCKET_KEY).and_then(|key| key.to_str().ok());
    let version = headers.get(header::SEC_WEBSOCKET_VERSION).map(HeaderValue::as_bytes);
    let (Some(key), Some(b"13")) = (key, version) else {
        return Err(text_response(StatusCode::BAD_REQUEST, "unable to upgrade: not a WebSocket of RFC 6455\n"));
    };
    let asked = words(headers, &header::SEC_WEBSOCKET_PROTOCOL);
    let mut here = known.iter().filter(|protocol| protocol.transport != Transport::Spdy);
    let found = match asked.as_slice() {
        [] => here.find(|protocol| protocol.name.is_empty()),
        asked => asked.iter().find_map(|name| here.clone().find(|protocol| protocol.name == *name)),
    };
    let Some(protocol) = found else {
        let words = format!("unable to upgrade: requested protocols are not supported: [{}]\n", asked.join(" "));
        return Err(text_response(StatusCode::FORBIDDEN, words));
    };
    let mut response = switch(WEBSOCKET);
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{KEY_SUFFIX}").as_bytes());
    if let Ok(accept) = HeaderValue::from_str(&STANDARD.encode(hash)) {
        response.headers_mut().insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    if !protocol.name.is_empty() {
        response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol.name));
    }
    Ok((protocol, response))
}

fn switch(to: &'static str) -> Response<Body> {
    let mut response = text_response(StatusCode::SWITCHING_PROTOCOLS, "");
    response.headers_mut().remove(header::CONTENT_TYPE);
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static(to));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(
        known: &'static [Protocol],
        headers: &[(&'static str, &'static str)],
    ) -> Result<(&'static Protocol, HeaderMap), u16> {
        let headers =
            headers.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        negotiate(&headers.collect(), known)
            .map(|(protocol, response)| (protocol, response.headers().clone()))
            .map_err(|refusal| refusal.status().as_u16())
    }

    const UPGRADE: (&str, &str) = ("connection", "keep-alive, Upgrade");

    #[test]
    fn the_first_protocol_of_the_client_that_is_known_is_taken() {
        let spdy = ("upgrade", "SPDY/3.1");
        let both = ("x-stream-protocol-version", "v9.channel.k8s.io, v4.channel.k8s.io,channel.k8s.io");
        let (protocol, headers) = asked(COMMANDS, &[UPGRADE, spdy, both]).unwrap();
        assert_eq!((protocol.name, protocol.transport), ("v4.channel.k8s.io", Transport::Spdy));
        assert_eq!(headers["x-stream-protocol-version"], "v4.channel.k8s.io");
        assert_eq!(headers[header::UPGRADE], "SPDY/3.1");
        assert_eq!(asked(COMMANDS, &[UPGRADE, spdy]), Err(400));
        let none = ("x-stream-protocol-version", "v5.channel.k8s.io");
        assert_eq!(asked(COMMANDS, &[UPGRADE, spdy, none]), Err(403), "the fifth is none of SPDY's");
        assert_eq!(asked(COMMANDS, &[UPGRADE, both]), Err(400));
    }

    #[test]
    fn a_web_socket_is_answered_as_its_rfc_says() {
        let of = [
            UPGRADE,
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let with = |name: &'static str| [&of[..], &[("sec-websocket-protocol", name)]].concat();
        let (protocol, headers) = asked(COMMANDS, &with("v5.channel.k8s.io, v4.channel.k8s.io")).unwrap();
        assert_eq!(protocol.transport, CLOSING);
        assert_eq!(headers[header::SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(headers[header::SEC_WEBSOCKET_PROTOCOL], "v5.channel.k8s.io");
        let (protocol, headers) = asked(COMMANDS, &of).unwrap();
        assert_eq!((protocol.transport, headers.get(header::SEC_WEBSOCKET_PROTOCOL)), (PLAIN, None));
        let (protocol, _) = asked(FORWARDS, &with("SPDY/3.1+portforward.k8s.io")).unwrap();
        assert_eq!(protocol.transport, Transport::Tunnel);
        assert_eq!(asked(FORWARDS, &with("v5.channel.k8s.io")), Err(403));
        assert_eq!(asked(COMMANDS, &of[..3]), Err(400));
    }
}
