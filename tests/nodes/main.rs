//! Real nodes: machines with systemd, containerd, and the kubelet and kubeadm of Kubernetes 1.20.2.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod adopt;
mod certificates;
mod join;
mod node;
