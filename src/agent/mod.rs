//! The static-pod agent: what a kubelet does with a directory of pod manifests, without a kubelet.

pub mod expect;
pub mod report;
