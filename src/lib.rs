//! kubeboot turns a Linux machine into a Kubernetes control-plane node.
//!
//! It renders the static-pod manifests for etcd, kube-apiserver, kube-controller-manager and kube-scheduler, issues
//! every certificate, writes the kubeconfigs, installs the kubelet unit and waits until its embedded static-pod agent
//! reports the control plane healthy.
//!
//! This file is the map of the house. A room knows the rooms listed below it, never those above.

pub mod cli;
pub mod ui;
pub mod workflow;
pub mod upgrade;
pub mod cluster;
pub mod etcd;
pub mod agent;
pub mod kubelet;
pub mod runtime;
pub mod manifests;
pub mod pki;
pub mod config;
pub mod release;
pub mod host;
pub mod event;
pub mod error;
pub mod yaml;

#[cfg(any(test, feature = "testing"))]
pub mod testing;
