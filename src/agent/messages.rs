//! What workers hear, and which worker hears of which UID.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;

use super::hooks::{HookError, HookKind};
use super::pod::StaticPod;
use crate::runtime::{ContainerRecord, ImageRecord, RuntimeError, RuntimeEvent};

/// What a worker is sent.
#[derive(Debug)]
pub enum Message {
    /// The pod that is wanted from now on.
    Wanted(Option<Arc<StaticPod>>),
    /// Something happened to one of its containers.
    Event(RuntimeEvent),
    /// All its containers, as the runtime listed them a moment ago.
    Listed(Vec<ContainerRecord>),
    /// A stop has ended.
    Stopped(String, Result<(), RuntimeError>),
    /// A hook of a container has ended.
    Hooked {
        /// The container's id.
        id: String,
        /// Which hook.
        kind: HookKind,
        /// How.
        result: Result<(), HookError>,
    },
    /// A pod that is being stopped has closed its ports.
    Drained(String),
    /// A pull for a container of a UID has ended.
    Pulled {
        /// For which pod.
        uid: String,
        /// For which container.
        container: String,
        /// Of which image.
        image: String,
        /// How long it took, and how long with waiting for its turn.
        took: (Duration, Duration),
        /// How.
        result: Result<ImageRecord, RuntimeError>,
    },
    /// Probe results have changed.
    Probed,
    /// Somebody asks for the pod of this UID to be stopped and started again.
    Restart(String),
}

/// Which worker hears of what happens to a UID's containers.
#[derive(Clone, Default)]
pub struct Routes(Arc<Mutex<HashMap<String, mpsc::UnboundedSender<Message>>>>);

impl Routes {
    /// From now on `worker` hears of `uid`.
    pub fn add(&self, uid: &str, worker: &mpsc::UnboundedSender<Message>) {
        self.lock().entry(uid.to_owned()).or_insert_with(|| worker.clone());
    }

    /// No one does.
    pub fn remove(&self, uid: &str) {
        self.lock().remove(uid);
    }

    /// Forgets the workers that have ended.
    pub fn forget_ended(&self) {
        self.lock().retain(|_, worker| !worker.is_closed());
    }

    /// Whether somebody does.
    pub fn knows(&self, uid: &str) -> bool {
        self.lock().contains_key(uid)
    }

    /// Every UID somebody hears of.
    pub fn uids(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    /// Tells the worker of `uid`, if there is one.
    pub fn tell(&self, uid: &str, message: Message) {
        if let Some(worker) = self.lock().get(uid) {
            let _ = worker.send(message);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, mpsc::UnboundedSender<Message>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
