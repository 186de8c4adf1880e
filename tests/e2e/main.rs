//! A real control plane: etcd and Kubernetes from images that scripts/test.sh builds, on this machine's Docker Engine; and
//! the whole way once more on the containerd whose socket `KUBEBOOT_TEST_CRI` names.
//!
//! Run by scripts/test.sh, as root, one test at a time. Each test begins and ends with a machine without a control
//! plane.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod addons;
mod bad_input;
mod certs;
mod cluster;
mod containerd;
mod daemonset;
mod engine;
mod etcd;
mod faults;
mod hostile;
mod init;
mod kubectl;
mod machine;
mod mirror;
mod node;
mod upgrade;
mod writer;
