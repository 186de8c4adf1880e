//! Pods that the scheduler or a DaemonSet binds to this node: those that need nothing the node has not are run like its
//! own, and every other is refused with a reason that `kubectl describe` shows.
//!
//! [`source`] lists and watches them and asks the table of [`admission`] about each; what is admitted goes to the
//! supervisor with the pods of all other sources. [`store`] asks for what they refer to, [`refresh`] keeps their files up
//! to date, and [`upload`] tells the API server how they are and, at the end of a deletion, that they are gone.
//!
//! What is not done: in-place resizes are not acted on; the pod goes on as it was.

pub mod admission;
pub mod bound_pods;
mod source;
mod upload;

use tokio::sync::{mpsc, watch};

use crate::agent::cluster::Parts;
use crate::agent::source::Update;

/// Looks after them until the agent ends. `updates` hears which are wanted.
pub async fn run(parts: Parts, updates: mpsc::Sender<Update>) {
    let (sender, refused) = watch::channel(Vec::new());
    tokio::join!(source::run(parts.clone(), updates, sender), upload::run(parts, refused));
}

#[cfg(test)]
mod tests;
