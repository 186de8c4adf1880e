#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "test support")]

//! What the tests on real runtimes and clusters share: one machine with an agent, one image, one way to wait, one kubectl.
//! Whatever goes wrong in here fails the test.

pub mod command;
pub mod cri;
pub mod daemon;
pub mod engine;
pub mod image;
pub mod machine;
pub mod pod;
pub mod ports;
pub mod reports;
pub mod wait;
