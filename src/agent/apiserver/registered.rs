//! The Node of this machine at the API server, as far as it is known.

use std::collections::BTreeMap;

use tokio::sync::watch;

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
