//! What a container is made of: its configuration for the runtime, and the files and variables that it finds.

pub mod security;
pub mod hosts;
pub mod dns;
pub mod env_file;
pub mod env;
pub mod prepare;
pub mod config;

/// The kubelet's name for the sandbox among the containers.
pub const SANDBOX: &str = "POD";
