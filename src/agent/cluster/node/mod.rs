//! The Node of this machine in the cluster: it is registered, its status is kept up to date, its lease is renewed, and
//! the makers of objects that belong to it know its identity.

mod events;
mod keeper;
mod lease;
mod machine;
mod object;
mod observer;
mod status;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;

use crate::agent::admission::amounts;
use crate::agent::context::Context;
use crate::agent::options::AgentOptions;
use machine::Machine;

/// Registers the Node and keeps it until the agent ends; nothing where the agent has no API server.
pub async fn run(context: Arc<Context>) {
    let Some(api) = context.api.clone() else { return };
    tokio::join!(keeper::keep(Arc::clone(&context), Arc::clone(&api)), lease::keep(context, api));
}

/// The addresses of the node: those it was given, else the one it would use itself.
pub fn addresses(context: &Context) -> Vec<String> {
    let told: Vec<String> =
        context.options.node.ips.iter().filter(|ip| !ip.is_unspecified()).map(ToString::to_string).collect();
    if told.is_empty() { context.facts.host_ip.iter().cloned().collect() } else { told }
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

/// A Node as it is registered. One that is deleted and recreated has another UID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeIdentity {
    /// Its name.
    pub name: String,
    /// Its `metadata.uid`.
    pub uid: String,
}

/// The identity of the Node, for objects that belong to it.
pub struct NodeState {
    identities: watch::Sender<Option<NodeIdentity>>,
    labels: watch::Sender<Option<BTreeMap<String, String>>>,
}

impl Default for NodeState {
    fn default() -> Self {
        Self { identities: watch::Sender::new(None), labels: watch::Sender::new(None) }
    }
}

impl NodeState {
    /// The Node, if it is known to be registered.
    pub fn identity(&self) -> Option<NodeIdentity> {
        self.identities.borrow().clone()
    }

    /// The Node as it changes: it is registered, deleted, and registered again.
    pub fn identities(&self) -> watch::Receiver<Option<NodeIdentity>> {
        self.identities.subscribe()
    }

    /// The Node's labels as they change, None before the API server has said them once. They stay what they were while it
    /// is away, or the Node is.
    pub fn labels(&self) -> watch::Receiver<Option<BTreeMap<String, String>>> {
        self.labels.subscribe()
    }

    /// The API server says that these are the Node's labels.
    pub fn set_labels(&self, labels: BTreeMap<String, String>) {
        let labels = Some(labels);
        self.labels.send_if_modified(|current| {
            let changed = *current != labels;
            *current = labels;
            changed
        });
    }

    /// From now on this is the Node. Listeners are notified only if it is another.
    pub fn set(&self, identity: Option<NodeIdentity>) {
        self.identities.send_if_modified(|current| {
            let changed = *current != identity;
            *current = identity;
            changed
        });
    }
}
