//! Values of flags and fields, checked where they are written: a field's fault is told with its line, a flag's with the
//! flag.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Uri};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde::Deserialize;
use serde::de::{Deserializer, Error};

use super::{NodeTaint, flag_value};
use crate::agent::pod::resources;
use crate::agent::pod::sysctls;
use crate::config::GoDuration;

/// A duration as Go writes it; 0 stands for the default, as it does throughout the configuration.
pub(super) fn duration(text: &str) -> Result<Option<Duration>, String> {
    text.parse::<GoDuration>().map_err(|e| e.to_string()).and_then(positive)
}

fn positive(duration: GoDuration) -> Result<Option<Duration>, String> {
    let duration = duration.to_std().ok_or("must not be negative")?;
    Ok(Some(duration).filter(|d| !d.is_zero()))
}

/// An address, none where the text is empty.
pub(super) fn address(text: &str) -> Result<Option<IpAddr>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    flag_value::address(text).map(Some)
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

pub(super) fn sysctls_field<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<String>>, D::Error> {
    let checked_one = |text: String| sysctl(&text).map_err(|problem| format!("{text:?}: {problem}"));
    checked(from, |given: Vec<String>| given.into_iter().map(checked_one).collect::<Result<_, _>>().map(Some))
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

/// The kubelet takes no less than three seconds either.
pub(super) fn log_interval_field<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    checked(from, |given: GoDuration| match positive(given)? {
        Some(interval) if interval < Duration::from_secs(3) => Err(format!("must be 3s or more, found {given}")),
        interval => Ok(interval),
    })
}

pub(super) fn address_field<'de, D: Deserializer<'de>>(from: D) -> Result<Option<IpAddr>, D::Error> {
    checked(from, |text: String| address(&text))
}

pub(super) fn url_field<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    checked(from, |text: String| url(&text))
}

pub(super) fn log_size_field<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    checked(from, |text: String| log_size(&text))
}

pub(super) fn log_files_field<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    checked(from, log_files)
}

pub(super) fn cgroup_field<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    checked(from, |text: String| cgroup(&text))
}

pub(super) fn pulls_field<'de, D: Deserializer<'de>>(from: D) -> Result<Option<usize>, D::Error> {
    checked(from, pulls)
}

/// A number of things; 0 stands for the default.
pub(super) fn natural(number: i64) -> Result<Option<i64>, String> {
    match number {
        0 => Ok(None),
        1..=0x7fff_ffff => Ok(Some(number)),
        _ => Err(format!("must be between 0 and {}, found {number}", i32::MAX)),
    }
}

/// A number of things, -1 for no limit.
pub(super) fn at_least_minus_one(number: i64) -> Result<Option<i64>, String> {
    if number >= -1 { Ok(Some(number)) } else { Err(format!("must be -1 or more, found {number}")) }
}

pub(super) fn natural_field<'de, D: Deserializer<'de>>(from: D) -> Result<Option<i64>, D::Error> {
    checked(from, natural)
}

pub(super) fn at_least_minus_one_field<'de, D: Deserializer<'de>>(from: D) -> Result<Option<i64>, D::Error> {
    checked(from, at_least_minus_one)
}

pub(super) fn seconds_field<'de, D: Deserializer<'de>>(from: D) -> Result<Option<i32>, D::Error> {
    checked(from, |number| Ok(natural(number)?.and_then(|number| i32::try_from(number).ok())))
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
