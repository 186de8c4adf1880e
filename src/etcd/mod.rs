//! The etcd of this node: what it says of itself, and its own downgrade.

mod client;
#[rustfmt::skip]
#[allow(dead_code, missing_docs, clippy::all, reason = "generated from src/etcd/etcd.proto")]
mod proto;
#[cfg(test)]
mod tests;
mod wal;

use std::fmt;
use std::path::Path;

use async_trait::async_trait;

pub use client::Member;
pub use proto::DowngradeAction as Downgrade;

/// What a member says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The version of the program: `3.6.8`.
    pub version: String,
    /// Whether it knows a leader: without one nothing is written.
    pub has_leader: bool,
    /// The minor version whose format its data have; None before etcd 3.6, which does not say.
    pub storage: Option<Minor>,
}

impl Status {
    /// The minor version of the program.
    pub fn minor(&self) -> Option<Minor> {
        Minor::of(&self.version)
    }
}

/// A minor version of etcd: an etcd opens data of its own minor version and of the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Minor {
    /// 3 of 3.6.
    pub major: u64,
    /// 6 of 3.6.
    pub minor: u64,
}

impl Minor {
    /// That of a version or of an image's tag: `3.6.8`, `v3.6.8`, `3.6.8-0`, `3.6`. None where the text is none.
    pub fn of(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix('v').unwrap_or(text).splitn(3, '.');
        Some(Self { major: parts.next()?.parse().ok()?, minor: parts.next()?.parse().ok()? })
    }

    /// The whole version that a downgrade is asked for by: `3.6.0`.
    pub fn target(self) -> String {
        format!("{self}.0")
    }
}

impl fmt::Display for Minor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Why etcd did not do as it was asked.
#[derive(Debug, thiserror::Error)]
pub enum EtcdError {
    /// It cannot be asked.
    #[error("etcd at {address} cannot be reached")]
    Unreachable {
        /// Where.
        address: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It says no.
    #[error("etcd refuses to {what}: {message}")]
    Refused {
        /// What it was asked.
        what: &'static str,
        /// What it said.
        message: String,
        /// Whether a job that was asked for earlier is in its way.
        busy: bool,
    },
}

/// A member of etcd.
#[async_trait]
pub trait Etcd: Send + Sync {
    /// What it says of itself.
    ///
    /// # Errors
    /// [`EtcdError`]; one that does not answer within seconds is one.
    async fn status(&self) -> Result<Status, EtcdError>;

    /// Validates, enables or cancels the downgrade of the cluster's data to a minor version, as `etcdctl downgrade` does.
    /// An enabled one is carried out within seconds, while etcd serves on: [`Status::storage`] then says so.
    ///
    /// # Errors
    /// [`EtcdError`].
    async fn downgrade(&self, action: Downgrade, to: Minor) -> Result<(), EtcdError>;

    /// How many writes the data directory `data` holds that `copy`, an earlier state of the same, does not; None where
    /// either cannot be read. Both are paths of the host, and no etcd has to run.
    fn writes_since(&self, copy: &Path, data: &Path) -> Option<u64> {
        wal::writes_since(copy, data)
    }
}
