//! Messages of `k8s.io/kubelet/pkg/apis/pods/v1alpha1`.

/// Where its methods are: `/v1alpha1.Pods/ListPods`.
pub const SERVICE: &str = "/v1alpha1.Pods/";

/// The request of a list, or of a watch.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Everything {}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ListPodsResponse {
    /// Each one is a `v1.Pod`.
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub pods: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct GetPodRequest {
    #[prost(string, tag = "1")]
    pub pod_uid: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct GetPodResponse {
    /// A `v1.Pod`.
    #[prost(bytes = "vec", tag = "1")]
    pub pod: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct WatchPodsEvent {
    #[prost(enumeration = "EventType", tag = "1")]
    pub kind: i32,
    /// A `v1.Pod`; nothing of [`EventType::InitialSyncComplete`], and no more than namespace, name and UID of
    /// [`EventType::Deleted`].
    #[prost(bytes = "vec", tag = "2")]
    pub pod: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum EventType {
    Unspecified = 0,
    Added = 1,
    Modified = 2,
    Deleted = 3,
    /// Every pod that there was when the watch began has been sent.
    InitialSyncComplete = 4,
}
