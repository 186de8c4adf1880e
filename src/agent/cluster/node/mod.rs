//! The Node of this machine in the cluster: it is registered, its status is kept up to date, its lease is renewed, and
//! the makers of objects that belong to it know its identity.

mod events;
mod updater;
mod lease;
mod machine;
mod object;
mod observer;
mod status;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;

use crate::agent::admission::amounts;
use crate::agent::cluster::Parts;
use crate::agent::options::AgentOptions;
use machine::Machine;

/// Registers the Node and keeps it until the agent ends.
pub async fn run(parts: Parts) {
    tokio::join!(updater::keep(parts.clone()), lease::keep(parts));
}

/// The addresses of the node: those it was given, else the one it would use itself.
pub fn addresses(options: &AgentOptions, own: Option<&str>) -> Vec<String> {
    let given = options.node.ips.iter().filter(|ip| !ip.is_unspecified()).map(ToString::to_string);
    let given: Vec<String> = given.collect();
    if given.is_empty() { own.map(str::to_owned).into_iter().collect() } else { given }
}

/// What pods may use of the machine, by resource: CPUs in thousandths, everything else in whole units. What cannot be
/// found out is left out.
pub fn allocatable(options: &AgentOptions) -> BTreeMap<String, i64> {
    let machine = Machine::look(Path::new("/"), &options.root_dir);
    let unknown = |resource: &str| match resource {
        "cpu" => machine.cpus <= 0,
        "memory" => machine.memory_kib <= 0,
        "ephemeral-storage" => machine.storage_bytes <= 0,
        _ => false,
    };
    let mut amounts = amounts(&status::resources(&machine, &options.node).1);
    amounts.retain(|resource, _| !unknown(resource));
    amounts
}

/// The labels that the Node is made with: what is known of them while there is none.
pub fn initial_labels(options: &AgentOptions) -> BTreeMap<String, String> {
    object::initial_labels(&options.node_name, &options.node)
}
