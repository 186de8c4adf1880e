//! The kubelet files: config.yaml, flags, unit and drop-in; and the service manager that runs them.

pub mod files;
pub mod service;
pub mod sockets;
pub mod unit;
