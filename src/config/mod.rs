//! kubeadm's configuration documents and ours, read strictly, defaulted, validated and turned into one [`ClusterSpec`].
//!
//! [`load`] (for init), [`load_join`], [`load_reset`] and [`load_upgrade`] are the ways in, and pure: text and flags in, a
//! spec and warnings out, or everything that is wrong at once.
//! The wire types in `wire` are the table of known fields; the other files each resolve one part of the spec.

pub mod bootstrap_token;
pub mod certificate_key;
pub mod defaults;
pub mod older;
pub mod print;
pub mod reference;
pub mod spec;

mod check;
mod cluster;
mod compare;
mod components;
mod durations;
mod error;
mod flags;
mod join;
mod kinds;
mod load;
mod names;
mod network;
mod node;
mod report;
mod reset;
mod tokens;
mod upgrade;
mod v1beta3;
mod wire;

pub use check::{migrate, validate};
pub use compare::differences;
pub use durations::{DurationError, GoDuration};
pub use error::{ConfigError, ConfigProblem, Place};
pub use flags::Flags;
pub use join::{JoinFlags, load_join};
pub use load::{HostDefaults, Input, Loaded, load};
pub use reset::{ResetFlags, load_reset};
pub use spec::{ClusterSpec, JoinSpec, ResetSpec, UpgradeSpec};
pub use upgrade::{UpgradeFlags, load_upgrade};
pub use wire::Secret;

#[cfg(test)]
mod tests;
