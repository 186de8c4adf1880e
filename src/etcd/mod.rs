//! etcd: what its members say of themselves, what they are asked to do, snapshots of their data, and their write-ahead log.

mod client;
pub mod database;
mod error;
mod members;
#[rustfmt::skip]
#[allow(dead_code, missing_docs, clippy::all, reason = "generated from src/etcd/etcd.proto")]
mod proto;
mod rpc;
pub mod restore;
pub mod snapshot;
#[cfg(test)]
mod tests;
pub mod wal;

use std::fmt;
use std::path::Path;

use async_trait::async_trait;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};

pub use client::Member;
pub use error::{EtcdError, Reason};
pub use members::{ensure_learner, ensure_promoted, ensure_removed};
pub use proto::DowngradeAction as Downgrade;

/// What a member says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// The id of the cluster.
    pub cluster: u64,
    /// Its own id.
    pub member: MemberId,
    /// The version of the program: `3.6.8`.
    pub version: String,
    /// The minor version whose format its data have; None before etcd 3.6, which does not say.
    pub storage: Option<Minor>,
    /// The leader that it knows: without one nothing is written.
    pub leader: Option<MemberId>,
    /// Whether it is a learner, which does not vote and answers no reads.
    pub is_learner: bool,
    /// The revision of its keys.
    pub revision: i64,
    /// The term of the leader.
    pub raft_term: u64,
    /// The last entry that the cluster has agreed to, as far as it knows.
    pub raft_index: u64,
    /// The last one that its data have.
    pub applied_index: u64,
    /// Bytes of its database's file.
    pub db_size: u64,
    /// Bytes of it that are in use: the others come back by [`Maintenance::defragment`].
    pub db_in_use: u64,
    /// Bytes that the database may have; None before etcd 3.6, which does not say.
    pub db_quota: Option<u64>,
    /// Alarms, and that there is no leader, in etcd's words.
    pub errors: Vec<String>,
}

impl Status {
    /// The minor version of the program.
    pub fn minor(&self) -> Option<Minor> {
        Minor::of(&self.version)
    }

    /// The alarms of the cluster, which every member knows.
    pub fn alarms(&self) -> Vec<Alarm> {
        self.errors.iter().filter_map(|error| Alarm::of(error)).collect()
    }
}

/// An alarm, which stays until it is disarmed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Alarm {
    /// The member that it is about.
    pub member: MemberId,
    /// `NOSPACE`: its database is full, and the cluster takes no writes. `CORRUPT`: its data differ from the others'.
    pub kind: String,
}

impl Alarm {
    /// That of `memberID:10276657743932975437 alarm:NOSPACE`, as a status has it; None of any other text.
    fn of(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let member = words.next()?.strip_prefix("memberID:")?.parse().ok()?;
        Some(Self { member: MemberId(member), kind: words.next()?.strip_prefix("alarm:")?.to_owned() })
    }
}

/// The id of a member, which etcd prints in hexadecimal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub u64);

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// A member as the cluster knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemberRecord {
    /// Its id.
    pub id: MemberId,
    /// Its name; None until it has started.
    pub name: Option<String>,
    /// Where other members reach it: `https://10.0.0.5:2380`.
    pub peer_urls: Vec<String>,
    /// Where clients reach it; none until it has started.
    pub client_urls: Vec<String>,
    /// Whether it is a learner.
    pub is_learner: bool,
}

/// A minor version of etcd: an etcd opens data of its own minor version and of the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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

/// A hash of all keys, alike on all members at one revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvHash {
    /// The hash, of everything between both revisions.
    pub hash: u32,
    /// Up to which revision.
    pub revision: i64,
    /// Since which one; None where nothing was ever compacted.
    pub compacted: Option<i64>,
}

/// What a member answers to a read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Which member answered.
    pub by: MemberId,
    /// At which revision.
    pub revision: i64,
    /// The value; None where there is no such key.
    pub value: Option<Vec<u8>>,
}

/// A piece of a snapshot, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Its bytes: of the database's file, and in the last piece the file's SHA-256.
    pub bytes: Vec<u8>,
    /// How many bytes of the file follow. The hash, which is no part of it, is not among them.
    pub remaining: u64,
    /// The format of the data; None before etcd 3.6, which does not say.
    pub storage: Option<Minor>,
}

/// A snapshot as it is sent. It ends after the first error.
pub type Pieces = BoxStream<'static, Result<Piece, EtcdError>>;

/// A member of etcd.
#[async_trait]
pub trait Etcd: Send + Sync {
    /// What it says of itself.
    ///
    /// # Errors
    /// [`EtcdError`]; one that does not answer within seconds is one.
    async fn status(&self) -> Result<Status, EtcdError>;

    /// The version of the cluster, which is that of its oldest member; None where the member does not say.
    ///
    /// # Errors
    /// [`EtcdError`].
    async fn cluster_version(&self) -> Result<Option<Minor>, EtcdError>;

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

/// What is done with the data of one member while it serves, as `etcdctl` does it.
#[async_trait]
pub trait Maintenance: Etcd {
    /// A snapshot of its database, as `etcdctl snapshot save` takes it: [`snapshot::save`] writes one to a file.
    ///
    /// # Errors
    /// [`EtcdError`].
    async fn snapshot(&self) -> Result<Pieces, EtcdError>;

    /// Writes its database again without what is not in use. It answers no one else meanwhile, for minutes where there are
    /// gigabytes: one member after the other, the leader last.
    ///
    /// # Errors
    /// [`EtcdError`].
    async fn defragment(&self) -> Result<(), EtcdError>;

    /// The hash of its keys up to `revision`, or to its newest one.
    ///
    /// # Errors
    /// [`EtcdError`]; a revision that was compacted, or that it has not reached, is refused.
    async fn hash(&self, revision: Option<i64>) -> Result<KvHash, EtcdError>;

    /// Reads one key, linearizably: the member has asked the leader how far it has to be, and has come that far. A learner
    /// refuses, and so does a member without a quorum, whatever their `/health` and `/readyz` say.
    ///
    /// # Errors
    /// [`EtcdError`].
    async fn read(&self, key: &[u8]) -> Result<Answer, EtcdError>;
}

/// The members of a cluster, asked of one of them. A reply may be lost when the change was made: [`ensure_learner`],
/// [`ensure_promoted`] and [`ensure_removed`] look again.
#[async_trait]
pub trait Membership: Send + Sync {
    /// All members. Since etcd 3.5 as a quorum knows them, before as the one that is asked does.
    ///
    /// # Errors
    /// [`EtcdError`].
    async fn list(&self) -> Result<Vec<MemberRecord>, EtcdError>;

    /// All members as the one that is asked knows them, with or without a quorum.
    ///
    /// # Errors
    /// [`EtcdError`].
    async fn list_local(&self) -> Result<Vec<MemberRecord>, EtcdError> {
        self.list().await
    }

    /// Adds a member that does not vote, with the URLs at which other members reach it.
    ///
    /// # Errors
    /// [`EtcdError`].
    async fn add_learner(&self, peer_urls: &[String]) -> Result<MemberRecord, EtcdError>;

    /// Lets a learner vote.
    ///
    /// # Errors
    /// [`EtcdError`]; one that has not caught up is refused, with [`Reason::LearnerBehind`].
    async fn promote(&self, id: MemberId) -> Result<(), EtcdError>;

    /// Removes a member for good: its data are of no use afterwards.
    ///
    /// # Errors
    /// [`EtcdError`].
    async fn remove(&self, id: MemberId) -> Result<(), EtcdError>;

    /// Gives a member other peer URLs.
    ///
    /// # Errors
    /// [`EtcdError`].
    async fn update(&self, id: MemberId, peer_urls: &[String]) -> Result<(), EtcdError>;
}

/// A member that can be asked for all of it.
pub trait Server: Maintenance + Membership {}

impl<T: Maintenance + Membership> Server for T {}

/// Connects to members by their URLs.
pub trait Connector: Send + Sync {
    /// The member at a URL for clients (`https://10.0.0.5:2379`); None where that is no such URL.
    fn connect(&self, url: &str) -> Option<Box<dyn Server>>;
}

impl Connector for Member {
    fn connect(&self, url: &str) -> Option<Box<dyn Server>> {
        Some(Box::new(self.at(url)?))
    }
}
