//! Pods that the scheduler or a DaemonSet binds to this node: those that need nothing the node has not are run like its
//! own, and every other is refused with a reason that `kubectl describe` shows.
//!
//! [`source`] lists and watches them and asks the table of [`admission`] about each; what is admitted goes to the
//! supervisor with the pods of all other sources. [`store`] asks for what they refer to, [`refresh`] keeps their files up
//! to date, and [`upload`] tells the API server how they are and, at the end of a deletion, that they are gone.
//!
//! What is not done: in-place resizes are not acted on; the pod goes on as it was.

pub mod admission;
pub mod desk;
mod source;
mod upload;

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use crate::agent::context::Context;
use crate::agent::source::Update;
use crate::agent::volumes::refresh;

/// Looks after them until the agent ends. `updates` hears which are wanted.
pub async fn run(context: Arc<Context>, updates: mpsc::Sender<Update>) {
    let (sender, refused) = watch::channel(Vec::new());
    let (source, upload, refresh) = (Arc::clone(&context), Arc::clone(&context), context);
    tokio::join!(source::run(source, updates, sender), upload::run(upload, refused), refresh::run(refresh));
}

#[cfg(test)]
mod tests;
