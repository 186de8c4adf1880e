//! Messages of `k8s.io/kubelet/pkg/apis/pods/v1alpha1`.

pub use super::proto::*;

/// Where its methods are: `/v1alpha1.Pods/ListPods`.
pub const SERVICE: &str = "/v1alpha1.Pods/";
