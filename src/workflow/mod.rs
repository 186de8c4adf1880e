//! Phases of init, join, upgrade and reset: an ordered list of named steps, and the journal that lets a killed run go on.

pub mod adopt;
mod error;
pub mod init;
pub mod join;
pub mod machine;
pub mod node_files;
pub mod phase;
pub mod preflight;
pub mod renewal;
pub mod reset;
pub mod session;
pub mod stage;
pub mod state;
pub mod upgrade;
