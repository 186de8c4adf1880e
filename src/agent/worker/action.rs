//! What a plan consists of.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::view::Finish;
use crate::host::clock::Instant;

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Begin to end a container: its `preStop` hook runs, if it has one. It is not waited for here.
    Kill {
        /// Which.
        id: String,
        /// How long it may take in all.
        grace: Duration,
        /// Why, for the log.
        why: String,
        /// See [`Kill::ordered`](super::view::Kill::ordered).
        ordered: bool,
    },
    /// Send the stop signal to a container that is being ended.
    Stop {
        /// Which.
        id: String,
        /// What is left of its grace.
        grace: Duration,
    },
    /// End the grace of a container that is being stopped.
    Hurry {
        /// Which.
        id: String,
    },
    /// Remove a dead container with its log links, or a sandbox.
    Remove {
        /// Which.
        id: String,
    },
    /// Make and start the pod's sandbox.
    CreateSandbox {
        /// How many came before it.
        attempt: u32,
    },
    /// Make and start a container: its image, volumes and configuration too.
    Run {
        /// Its name.
        container: String,
        /// Its restart count.
        attempt: u32,
        /// Tries in a row so far, for the back-off after this one.
        tries: u32,
    },
    /// Make a container that is held back, so that only its start is left when the hold ends.
    Prepare {
        /// Its name.
        container: String,
        /// Its restart count.
        attempt: u32,
    },
    /// Start what was made and not started: it was held back, the agent was killed in between, or the start failed.
    Resume {
        /// Which.
        id: String,
    },
    /// The pod of this UID is gone: remove what it left on the machine.
    Forget {
        /// Which.
        uid: String,
    },
}

/// Why a container is not running, in the kubelet's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// `ContainerCreating`, `CrashLoopBackOff`, ...
    pub reason: String,
    /// More words.
    pub message: String,
}

/// What to do now, and why what is not done is not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Steps, in order.
    pub actions: Vec<Action>,
    /// When something changes by itself.
    pub wake: Option<Instant>,
    /// Containers that do not run and will.
    pub waiting: BTreeMap<String, Waiting>,
    /// Why the pod as a whole does not go on.
    pub message: Option<String>,
    /// All init containers are done.
    pub initialized: bool,
    /// Init containers that have ended well and of which nothing is left.
    pub completed: BTreeSet<String>,
    /// Reason and message of a pod that was ended as a whole.
    pub failure: Option<(&'static str, &'static str)>,
    /// Every container has ended for good.
    pub finished: Option<Finish>,
}
