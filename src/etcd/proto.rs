//! The messages of etcd's `etcdserverpb.Maintenance` that are used here: those fields that are read, under their numbers.

/// Asks a member about itself.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StatusRequest {}

#[derive(Clone, PartialEq, prost::Message)]
pub struct StatusResponse {
    #[prost(string, tag = "2")]
    pub version: String,
    #[prost(uint64, tag = "4")]
    pub leader: u64,
    /// Empty before etcd 3.6.
    #[prost(string, tag = "11")]
    pub storage_version: String,
}

/// What is done about a downgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum DowngradeAction {
    /// Asks whether a downgrade is possible.
    Validate = 0,
    /// Begins one.
    Enable = 1,
    /// Ends one that has begun.
    Cancel = 2,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct DowngradeRequest {
    #[prost(enumeration = "DowngradeAction", tag = "1")]
    pub action: i32,
    #[prost(string, tag = "2")]
    pub version: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct DowngradeResponse {
    #[prost(string, tag = "2")]
    pub version: String,
}
