//! Messages of `k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1`.

pub use super::proto::*;

/// The version of the API that the kubelet knows.
pub const VERSION: &str = "v1beta1";
/// The service that the kubelet offers.
pub const REGISTRATION: &str = "v1beta1.Registration";
/// Where the methods of a plugin are: `/v1beta1.DevicePlugin/Allocate`.
pub const PLUGIN: &str = "/v1beta1.DevicePlugin/";
/// The health of a device that can be given to a container.
pub const HEALTHY: &str = "Healthy";
