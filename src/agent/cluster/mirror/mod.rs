//! Mirror pods: the API server's copies of the static pods, so that `kubectl get pods` shows them with their live statuses.
//!
//! The board says what runs, a [watch](watch) what mirrors the API server has; the [plan] compares the two, pod by pod,
//! and the [driver] takes one step at a time for each pod: it makes a mirror, deletes one, or gives one a status. All of
//! it is level-triggered: what was missed while the API server was away is done when it is back, and nothing that runs
//! pods ever waits for it.
//!
//! As with the kubelet (`pkg/kubelet/pod/mirror_client.go`), a mirror is matched by its name and by the hash in its
//! annotation, and by nothing else: other changes that a client makes to it stay.

mod driver;
mod object;
mod plan;
mod watch;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::agent::cluster::{self, event_sink};
use driver::{Driver, Parts};

/// Keeps the mirrors, and tells what happens to pods, until the agent ends.
pub async fn run(all: cluster::Parts) {
    let cluster::Parts { board, api, events, node, mirrors: uids, options, .. } = all;
    let node_name = options.node_name.clone();
    let telling = event_sink::Parts {
        board: Arc::clone(&board),
        api: Arc::clone(&api),
        events: Arc::clone(&events),
        node_name: node_name.clone(),
    };
    let parts = Parts { board, api, events, node_name, uids };
    tokio::join!(Driver::new(parts, node.identities()).run(), event_sink::run(telling));
}

/// Which mirror is whose: a mirror has a UID of its own, and everything local goes by the static pod's.
#[derive(Debug, Clone, Default)]
pub struct Uids(Arc<Mutex<BTreeMap<String, String>>>);

impl Uids {
    /// The UID of the static pod whose mirror has this one; any other UID is itself.
    pub fn local(&self, uid: &str) -> String {
        self.lock().get(uid).cloned().unwrap_or_else(|| uid.to_owned())
    }

    /// How many mirrors are known.
    pub fn count(&self) -> u64 {
        self.lock().len() as u64
    }

    fn set(&self, mirror: &str, of: &str) {
        self.lock().insert(mirror.to_owned(), of.to_owned());
    }

    fn remove(&self, mirror: &str) {
        self.lock().remove(mirror);
    }

    fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
