//! kubeadm's configuration documents and ours, read strictly, defaulted, validated and turned into one [`ClusterSpec`].
//!
//! [`load`] is the way in, and pure: text and flags in, a spec and warnings out, or everything that is wrong at once.
//! The wire types in `wire` are the table of known fields; the other files each resolve one part of the spec.

pub mod bootstrap_token;
pub mod certificate_key;
pub mod spec;

mod cluster;
mod components;
mod durations;
mod error;
mod flags;
mod kinds;
mod load;
mod names;
mod network;
mod node;
mod report;
mod tokens;
mod v1beta3;
mod wire;

pub use durations::{DurationError, GoDuration};
pub use error::{ConfigError, ConfigProblem, Place};
pub use flags::Flags;
pub use load::{HostDefaults, Input, Loaded, load};
pub use spec::ClusterSpec;
pub use wire::Secret;

#[cfg(test)]
mod tests;
