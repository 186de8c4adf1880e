//! Where pods come from. A source publishes the complete set it wants each time something in it changes; what it cannot
//! read it reports and leaves as it was.

mod checkpoint;
pub mod dir;
pub mod http;
mod listing;
mod merge;
mod remote;

use std::collections::BTreeSet;
use std::sync::Arc;

pub use merge::watch;
pub use remote::shown;

use super::control::report::Problem;
use super::pod::StaticPod;

/// A kind of source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A directory or a file.
    File,
    /// A URL.
    Http,
    /// An API server, which binds pods to the node.
    Api,
}

/// Everything a source, or all of them together, want.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Update {
    /// The pods, one a namespace and name.
    pub pods: Vec<Arc<StaticPod>>,
    /// What could not be used.
    pub problems: Vec<Problem>,
    /// Whether the source was looked at once: the directory could be read, the URL was asked. Before that a pod that is
    /// missing here may still be wanted.
    pub synced: bool,
    /// Kinds of sources whose pods are not known all the same (a URL that has never answered): what runs of them may
    /// still be wanted.
    pub held: BTreeSet<Kind>,
}
