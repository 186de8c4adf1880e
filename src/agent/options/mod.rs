//! How the agent is configured: `KubeletConfiguration` files and the kubelet's flags, resolved into [`AgentOptions`].
//!
//! Every flag and field is one row of the [`table`], from which the command line, its help, the reader of files, `/configz`,
//! `/flagz`, the documentation and the log line about what means nothing are made.

mod agent_options;
mod config_files;
mod error;
pub mod eviction;
mod flag_shown;
mod flag_value;
mod flags;
mod follow;
mod gates;
mod given;
mod kubelet_config;
mod node;
pub mod reference;
mod server;
pub mod table;
mod values;

pub use agent_options::{AgentOptions, PAUSE_IMAGE, UpgradeSignal};
pub use config_files::{ConfigFile, drop_ins};
pub use error::OptionsError;
pub use flag_value::{Given, Kind as FlagKind};
pub use follow::{Resolved, resolve};
pub use gates::Gates;
pub use given::{Flags, NodeFlags, ServerFlags};
pub use kubelet_config::unknown_fields;
pub use node::{NodeOptions, NodeTaint};
pub use server::{Authorization, ServerOptions};

#[cfg(test)]
mod order_tests;
#[cfg(test)]
mod tests;
