//! Which log is asked for, and why there is none.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::runtime::{LogOptions, RuntimeError};

/// What is wanted of a container's log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LogRequest {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod, with the node's suffix.
    pub pod: String,
    /// Name of the container.
    pub container: String,
    /// The instance before the present one.
    pub previous: bool,
    /// Go on with what is written, until the container ends.
    pub follow: bool,
    /// Begin each line with when it was written.
    pub timestamps: bool,
    /// Only lines since.
    pub since: Option<Timestamp>,
    /// Begin with this many lines before the end.
    pub tail: Option<u64>,
    /// No more bytes than this.
    pub limit_bytes: Option<u64>,
}

impl LogRequest {
    /// What the runtime is asked for.
    pub fn options(&self) -> LogOptions {
        LogOptions {
            // What has ended says nothing more.
            follow: self.follow && !self.previous,
            timestamps: self.timestamps,
            since: self.since,
            tail: self.tail,
            limit_bytes: self.limit_bytes,
        }
    }
}

/// Why there is no log to show.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// No such pod.
    #[error("pod {pod:?} does not exist")]
    NoPod {
        /// Namespace and name.
        pod: String,
    },
    /// No such container.
    #[error("container {container:?} not found in pod {pod:?}")]
    NoContainer {
        /// The container.
        container: String,
        /// Namespace and name.
        pod: String,
    },
    /// It has never run.
    #[error("container {container:?} in pod {pod:?} is waiting to start: {reason}")]
    Waiting {
        /// The container.
        container: String,
        /// Namespace and name.
        pod: String,
        /// The reason of its state, and more words.
        reason: String,
    },
    /// Nothing came before, or it was removed.
    #[error("previous terminated container {container:?} in pod {pod:?} not found")]
    NoPrevious {
        /// The container.
        container: String,
        /// Namespace and name.
        pod: String,
    },
    /// The runtime does not give it.
    #[error("cannot read the log")]
    Runtime {
        /// Why.
        #[from]
        source: RuntimeError,
    },
}
