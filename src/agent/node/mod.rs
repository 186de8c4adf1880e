//! The Node of this machine in the cluster: it is registered, its status is kept up to date, its lease is renewed, and
//! whoever makes objects that belong to it knows who it is.

mod keeper;
mod lease;
mod machine;
mod object;
mod observer;
mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use tokio::sync::watch;

use super::context::Context;

/// Registers the Node and keeps it until the agent ends; nothing where the agent has no API server.
pub async fn run(context: Arc<Context>) {
    let Some(api) = context.api.clone() else { return };
    tokio::join!(keeper::keep(Arc::clone(&context), Arc::clone(&api)), lease::keep(context, api));
}

/// The addresses of the node: those it was told, else the one it would use itself.
pub fn addresses(context: &Context) -> Vec<String> {
    let told: Vec<String> =
        context.options.node.ips.iter().filter(|ip| !ip.is_unspecified()).map(ToString::to_string).collect();
    if told.is_empty() { context.facts.host_ip.iter().cloned().collect() } else { told }
}

/// A Node as it is registered. One that is deleted and made anew has another UID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeIdentity {
    /// Its name.
    pub name: String,
    /// Its `metadata.uid`.
    pub uid: String,
}

/// Who the Node is, for whoever makes objects that belong to it.
pub struct NodeState {
    identities: watch::Sender<Option<NodeIdentity>>,
}

impl Default for NodeState {
    fn default() -> Self {
        Self { identities: watch::Sender::new(None) }
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

    /// From now on this is the Node. Whoever listens hears of it only if it is another.
    pub fn set(&self, identity: Option<NodeIdentity>) {
        self.identities.send_if_modified(|current| {
            let changed = *current != identity;
            *current = identity;
            changed
        });
    }
}
