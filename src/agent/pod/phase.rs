//! Phases of a pod.

use serde::{Deserialize, Serialize};

/// Phases of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Not every container has been started.
    Pending,
    /// At least one runs or will be restarted.
    Running,
    /// All ended well and none will be restarted.
    Succeeded,
    /// All ended, one of them badly, and none will be restarted; or the node does not run it.
    Failed,
}

impl Phase {
    /// Whether nothing of the pod is started any more.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}
