//! Values of flags and fields, checked where they are written: a field's fault is reported with its line, a flag's with the
//! flag.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Uri};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde::Deserialize;
use serde::de::{Deserializer, Error};

use super::flag_value;
use super::node::NodeTaint;
use crate::agent::pod::resources;
use crate::agent::pod::sysctls;
use crate::config::GoDuration;

/// A duration as Go writes it; 0 stands for the default, as it does throughout the configuration.
pub(super) fn duration(text: &str) -> Result<Option<Duration>, String> {
    text.parse::<GoDuration>().map_err(|e| e.to_string()).and_then(positive)
}

fn positive(duration: GoDuration) -> Result<Option<Duration>, String> {
    duration_from(duration, Duration::ZERO)
}

/// A duration that is no shorter than `least`; 0 stands for the default.
pub(super) fn duration_from(given: GoDuration, least: Duration) -> Result<Option<Duration>, String> {
    let duration = given.to_std().ok_or("must not be negative")?;
    match Some(duration).filter(|duration| !duration.is_zero()) {
        Some(short) if short < least => Err(format!("must be {} or more, found {given}", GoDuration::from(least))),
        duration => Ok(duration),
    }
}

/// An address, none where the text is empty.
pub(super) fn address(text: &str) -> Result<Option<IpAddr>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    flag_value::address(text).map(Some)
}

/// Addresses of the machine, one or one of each family. `0.0.0.0` and `::` only choose the family.
pub(super) fn addresses(text: &str) -> Result<Vec<IpAddr>, String> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let parse = |part: &str| part.parse::<IpAddr>().map_err(|_| format!("{part:?} is no IP address"));
    let found = parts.map(parse).collect::<Result<Vec<_>, _>>()?;
    match found.as_slice() {
        [] | [_] => Ok(found),
        [one, other] if one.is_ipv4() != other.is_ipv4() => Ok(found),
        _ => Err("must be one address, or one of each family".to_owned()),
    }
}

/// A URL that can be asked for manifests, none where the text is empty. It may hold a password, so that no message
/// shows it.
pub(super) fn url(text: &str) -> Result<Option<String>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let good = text.parse::<Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty())
    });
    good.then(|| Some(text.to_owned())).ok_or_else(|| "must be an http:// or https:// URL with a host".to_owned())
}

/// One header of a request. Its value may be a secret, so that no message shows it.
pub(super) fn header(name: &str, value: &str) -> Result<(), String> {
    HeaderName::from_str(name).map_err(|_| format!("{name:?} is no name of a header"))?;
    HeaderValue::from_str(value).map_err(|_| format!("a value of the header {name} cannot be sent"))?;
    Ok(())
}

/// `name:value,name2:value2`, as `--manifest-url-header` takes it.
pub(super) fn header_pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let pairs = text.split(',').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once(':').ok_or("every header must be written as name:value")?;
            let (name, value) = (name.trim(), value.trim());
            header(name, value).map(|()| (name.to_owned(), value.to_owned()))
        })
        .collect()
}

/// Bytes as a quantity; what is negative stands for no rotation, which no log reaches.
pub(super) fn log_size(text: &str) -> Result<Option<u64>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let bytes = resources::bytes(&Quantity(text.to_owned()));
    match bytes.ok_or_else(|| format!("{text:?} is no quantity; write it as 10Mi"))? {
        0 => Err("must not be 0; a negative one turns rotation off".to_owned()),
        bytes => Ok(Some(u64::try_from(bytes).unwrap_or(u64::MAX))),
    }
}

/// Files of a log: the live one and at least one more. 0 stands for the default.
pub(super) fn log_files(number: i64) -> Result<Option<u32>, String> {
    match u32::try_from(number) {
        Ok(0) => Ok(None),
        Ok(files) if files > 1 => Ok(Some(files)),
        _ => Err(format!("must be 2 or more, found {number}")),
    }
}

/// A pattern of kernel parameters that pods may set.
pub(super) fn sysctl(text: &str) -> Result<String, String> {
    sysctls::pattern(text)
}

/// A cgroup, by its path below the hierarchy's top.
pub(super) fn cgroup(text: &str) -> Result<Option<String>, String> {
    match text {
        _ if text.split('/').any(|part| part == "..") => Err("must not contain '..'".to_owned()),
        _ => Ok(Some(text.trim_matches('/').to_owned()).filter(|path| !path.is_empty())),
    }
}

fn pulls(number: i64) -> Result<Option<usize>, String> {
    match usize::try_from(number) {
        Ok(pulls) if pulls > 0 => Ok(Some(pulls)),
        _ => Err(format!("must be 1 or more, found {number}")),
    }
}

/// Reads a field that may be left out, and checks it.
fn checked<'de, D: Deserializer<'de>, T: Deserialize<'de>, U>(
    from: D,
    check: impl Fn(T) -> Result<Option<U>, String>,
) -> Result<Option<U>, D::Error> {
    Option::<T>::deserialize(from)?.map_or(Ok(None), check).map_err(D::Error::custom)
}

pub(super) fn duration_field<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    checked(from, positive)
}

pub(super) fn address_field<'de, D: Deserializer<'de>>(from: D) -> Result<Option<IpAddr>, D::Error> {
    checked(from, |text: String| address(&text))
}

pub(super) fn url_field<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    checked(from, |text: String| url(&text))
}

pub(super) fn pulls_field<'de, D: Deserializer<'de>>(from: D) -> Result<Option<usize>, D::Error> {
    checked(from, pulls)
}

/// A number of things; 0 stands for the default.
pub(super) fn natural(number: i64) -> Result<Option<i32>, String> {
    match i32::try_from(number) {
        Ok(0) => Ok(None),
        Ok(number) if number > 0 => Ok(Some(number)),
        _ => Err(format!("must be between 0 and {}, found {number}", i32::MAX)),
    }
}

/// A number of things, -1 for no limit.
pub(super) fn at_least_minus_one(number: i64) -> Result<i64, String> {
    if number >= -1 { Ok(number) } else { Err(format!("must be -1 or more, found {number}")) }
}

pub(super) fn taints_field<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<NodeTaint>>, D::Error> {
    checked(from, |taints: Vec<NodeTaint>| match taints.iter().find(|taint| !taint.is_valid()) {
        Some(taint) => Err(format!("{:?} is no effect of a taint", taint.effect)),
        None => Ok(Some(taints)),
    })
}

/// Headers by name.
type Headers = BTreeMap<String, Vec<String>>;

/// Values of which the decoder shows nothing when they are of another type: it knows the name.
#[derive(Deserialize)]
struct Secret(Vec<String>);

pub(super) fn headers_field<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Headers>, D::Error> {
    checked(from, |headers: BTreeMap<String, Secret>| {
        let headers: Headers = headers.into_iter().map(|(name, values)| (name, values.0)).collect();
        for (name, values) in &headers {
            values.iter().try_for_each(|value| header(name, value))?;
        }
        Ok(Some(headers))
    })
}
