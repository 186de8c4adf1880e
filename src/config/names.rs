//! What Kubernetes takes for a name, a path, an image, a port. Every function says in its error what to write instead.

use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;

use super::spec::Endpoint;

fn label_chars(label: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !label.is_empty()
        && label.len() <= 63
        && label.chars().all(inner)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// An RFC 1123 subdomain.
pub(super) fn dns_subdomain(text: &str) -> Result<(), String> {
    if text.len() <= 253 && text.split('.').all(label_chars) {
        return Ok(());
    }
    Err(format!("{text:?} is not a DNS name; {}", dns_advice(text)))
}

/// An RFC 1123 label.
pub(super) fn dns_label(text: &str) -> Result<(), String> {
    if label_chars(text) {
        return Ok(());
    }
    Err(format!("{text:?} is not a DNS label; write up to 63 lower-case letters, digits and '-'"))
}

fn dns_advice(text: &str) -> String {
    if text.len() > 253 {
        return "it is longer than 253 characters".into();
    }
    if let Some(long) = text.split('.').find(|label| label.len() > 63) {
        return format!("{long:?} is longer than 63 characters");
    }
    let lower = text.to_lowercase().replace('_', "-");
    match lower != text && lower.split('.').all(label_chars) {
        true => format!("write {lower:?}"),
        false => "use lower-case letters, digits, '-' and '.', with a letter or digit at both ends of each part".into(),
    }
}

/// A subject alternative name: an address, a DNS name, or one with a `*.` in front. Comes back in lower case.
pub(super) fn san(text: &str) -> Result<String, String> {
    let lower = text.to_lowercase();
    let name = lower.strip_prefix("*.").unwrap_or(&lower);
    if text.parse::<IpAddr>().is_ok() || (name.len() <= 253 && name.split('.').all(label_chars)) {
        return Ok(lower);
    }
    Err(format!("{text:?} is neither an address nor a DNS name; write a name such as api.example.com or *.example.com"))
}

/// A path from the root.
pub(super) fn absolute(text: &str) -> Result<PathBuf, String> {
    if text.starts_with('/') && !text.contains('\0') {
        return Ok(PathBuf::from(text));
    }
    Err(format!("{text:?} is not an absolute path; begin it with /"))
}

/// What comes before the image name: a registry and perhaps a path.
pub(super) fn image_repository(text: &str) -> Result<(), String> {
    if let Some((scheme, rest)) = text.split_once("://") {
        return Err(format!("{text:?} begins with a scheme; leave {scheme}:// out and write {rest}"));
    }
    let mut parts = text.split('/');
    let first = parts.next().unwrap_or_default();
    if is_registry(first) && parts.all(is_path_component) {
        return Ok(());
    }
    let advice = match first.matches(':').count() {
        0 | 1 => "write HOST[:PORT][/PATH] in lower case, such as registry.example.com:5000/k8s",
        _ => "write an IPv6 address in brackets, such as [fd00::5]:5000/k8s",
    };
    Err(format!("{text:?} is not an image repository; {advice}"))
}

fn is_registry(text: &str) -> bool {
    if let Some((address, port)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let has_port = || port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
        return address.parse::<Ipv6Addr>().is_ok() && (port.is_empty() || has_port());
    }
    let (host, port) = text.split_once(':').unwrap_or((text, "5000"));
    let host_part = |part: &str| {
        let inner = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        !part.is_empty() && part.chars().all(inner) && !part.starts_with(['-', '_']) && !part.ends_with(['-', '_'])
    };
    (is_path_component(host) || host.split('.').all(host_part)) && port.parse::<u16>().is_ok()
}

fn is_path_component(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-');
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    text.chars().all(inner) && edge(text.chars().next()) && edge(text.chars().last()) && !text.contains("..")
}

/// An image tag.
pub(super) fn image_tag(text: &str) -> Result<(), String> {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if text.len() <= 128 && text.chars().all(inner) && !text.starts_with(['.', '-']) && !text.is_empty() {
        return Ok(());
    }
    Err(format!("{text:?} is not an image tag; write up to 128 letters, digits, '.', '_' and '-'"))
}

/// A port.
pub(super) fn port(number: i32) -> Result<u16, String> {
    u16::try_from(number)
        .ok()
        .filter(|port| *port != 0)
        .ok_or_else(|| format!("{number} is not a port from 1 to 65535"))
}

/// `controlPlaneEndpoint`: a host, or a host and a port; `default_port` where there is none.
pub(super) fn endpoint(text: &str, default_port: u16) -> Result<Endpoint, String> {
    if let Some((scheme, rest)) = text.split_once("://") {
        let rest = rest.trim_end_matches('/');
        return Err(format!("{text:?} is a URL; leave {scheme}:// out and write {rest}"));
    }
    let (host, port) = split_port(text);
    let port = match port {
        None => default_port,
        Some(port) => match port.parse::<u16>() {
            Ok(number) if number != 0 => number,
            _ => return Err(format!("{port:?} in {text:?} is not a port from 1 to 65535")),
        },
    };
    if host.parse::<IpAddr>().is_err() {
        dns_subdomain(host).map_err(|problem| format!("{problem}, or an address, and perhaps :PORT"))?;
    }
    Ok(Endpoint { host: host.to_owned(), port })
}

/// As [`endpoint`], with the port.
pub(super) fn host_port(text: &str) -> Result<Endpoint, String> {
    if text.is_empty() {
        return Err("the address of the API server is missing; write HOST:PORT, such as 10.0.0.1:6443".into());
    }
    let found = endpoint(text, 6443)?;
    match split_port(text) {
        (_, Some(_)) => Ok(found),
        (_, None) => Err(format!("{text:?} has no port; write {found}")),
    }
}

/// `host`, `host:port`, `[v6]`, `[v6]:port`, or an IPv6 address without brackets, which has no port.
fn split_port(text: &str) -> (&str, Option<&str>) {
    if let Some((host, after)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return (host, after.strip_prefix(':').or(Some(after).filter(|after| !after.is_empty())));
    }
    match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') => (host, Some(port)),
        _ => (text, None),
    }
}

/// A socket of a container runtime: `unix:///path`. The flag says whether the scheme had to be added.
pub(super) fn socket(text: &str) -> Result<(String, bool), String> {
    if text.starts_with('/') {
        return Ok((format!("unix://{text}"), true));
    }
    match text.strip_prefix("unix://") {
        Some(path) if path.starts_with('/') => Ok((text.to_owned(), false)),
        _ => Err(format!(
            "{text:?} is not a socket; write unix:// and an absolute path, such as \
             unix:///run/containerd/containerd.sock"
        )),
    }
}
