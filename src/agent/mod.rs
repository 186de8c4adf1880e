//! The static-pod agent: what a kubelet does with a directory of pod manifests, without a kubelet.

pub mod control;
pub mod expect;
pub mod healthz;
pub mod options;
pub mod probe;
pub mod report;
