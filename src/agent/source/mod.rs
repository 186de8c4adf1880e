//! Where pods come from. A source publishes the complete set it wants each time something in it changes; what it cannot
//! read it reports and leaves as it was.

mod checkpoint;
pub mod dir;
mod listing;

use std::sync::Arc;

use super::pod::StaticPod;
use super::report::Problem;

/// Everything a source wants.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Update {
    /// The pods, one a namespace and name.
    pub pods: Vec<Arc<StaticPod>>,
    /// What could not be used.
    pub problems: Vec<Problem>,
    /// Whether the source could be read once: before that, a pod that is missing here may still be wanted.
    pub synced: bool,
}
