//! Options as `/configz` prints them.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::agent::options::agent_options::AgentOptions;
use crate::agent::options::node::NodeTaint;
use crate::config::GoDuration;
use crate::runtime::endpoint::Endpoint;

/// What stands for a header's value: it may be a password.
const MASKED: &str = "<masked>";

/// As Go writes it.
pub(super) fn duration(duration: Duration) -> Value {
    json!(GoDuration::from(duration).to_string())
}

/// In the largest binary unit that leaves a whole number; a negative one where there is no limit.
pub(super) fn quantity(bytes: u64) -> String {
    if bytes == u64::MAX {
        return "-1".to_owned();
    }
    let units = [(1 << 30, "Gi"), (1 << 20, "Mi"), (1 << 10, "Ki")];
    let unit = units.into_iter().find(|(size, _)| bytes != 0 && bytes.is_multiple_of(*size));
    unit.map_or_else(|| bytes.to_string(), |(size, unit)| format!("{}{unit}", bytes.checked_div(size).unwrap_or(bytes)))
}

/// A list, null for an empty one.
pub(super) fn some<T: serde::Serialize>(list: &[T]) -> Value {
    if list.is_empty() { Value::Null } else { json!(list) }
}

pub(super) fn path(path: &Path) -> Value {
    json!(path.display().to_string())
}

/// A path, null for none.
pub(super) fn some_path(given: Option<&PathBuf>) -> Value {
    given.map(|given| path(given)).unwrap_or_default()
}

/// The names of the headers.
pub(super) fn headers(options: &AgentOptions) -> Value {
    let headers: Map<String, Value> =
        options.static_pod_url_headers.iter().map(|(name, _)| (name.clone(), json!([MASKED]))).collect();
    if headers.is_empty() { Value::Null } else { headers.into() }
}

/// The field `address`. Where it is not set the read-only port is on the loopback and the other one is not: to say an
/// address then would open the read-only port to the network once it is written back.
pub(super) fn address(options: &AgentOptions) -> Option<IpAddr> {
    let (own, read_only) = (options.server.listen.map(|at| at.ip()), options.read_only.map(|at| at.ip()));
    match (own, read_only) {
        (Some(own), Some(read_only)) => (own == read_only).then_some(own),
        (own, read_only) => own.or(read_only),
    }
}

/// The runtime's socket, where it is one that the field can have and the files do not name it.
pub(super) fn endpoint(options: &AgentOptions) -> Option<&str> {
    match options.runtime.as_ref().filter(|_| !options.runtime_from_file)? {
        Endpoint::Cri(socket) => Some(socket),
        Endpoint::Docker(socket) => socket.as_deref().filter(|socket| socket.starts_with("unix://")),
    }
}

pub(super) fn taints(options: &AgentOptions) -> Value {
    let taint = |taint: &NodeTaint| json!({"key": taint.key, "value": taint.value, "effect": taint.effect});
    some(&options.node.taints.iter().map(taint).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::quantity;

    #[test]
    fn quantities_are_printed_in_the_largest_unit_that_leaves_a_whole_number() {
        assert_eq!([quantity(0), quantity(1536), quantity(3), quantity(u64::MAX)], ["0", "1536", "3", "-1"]);
    }
}
