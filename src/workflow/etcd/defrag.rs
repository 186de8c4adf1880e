//! Databases made small again, one member after the other, the leader last. A member answers nothing while its database is
//! written again, so all others have to answer before.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::cluster::{Cluster, ClusterError};
use super::overview::{MemberState, Overview, of_members, overview};
use crate::etcd::{EtcdError, MemberId};
use crate::host::disk::Disk;
use crate::host::fs::FsError;

/// How long a member may take to answer again, and to catch up with what was written meanwhile.
const AGAIN_LIMIT: Duration = Duration::from_secs(30);
/// The pause between two looks: etcd has no event for it.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// Entries that it may still be behind then.
const NEAR: u64 = 100;
/// What stays free beside the new database, for etcd's log.
const SPARE: u64 = 64 << 20;
const MIB: u64 = 1 << 20;

/// Whose databases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// That of the member that is asked.
    One,
    /// All.
    All,
}

/// The disk of the member that is asked, where that is this machine's.
pub struct Own<'a> {
    /// Who knows how much is free.
    pub disk: &'a dyn Disk,
    /// Where its data are, on the host.
    pub data_dir: &'a Path,
}

/// A database that was made small again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Defragmented {
    /// The member.
    pub name: String,
    /// Bytes that the file had.
    pub before: u64,
    /// Bytes that it has.
    pub after: u64,
    /// How long it took, in milliseconds.
    pub millis: u64,
}

/// Why a database stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum DefragError {
    /// The cluster says nothing.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The others have to serve meanwhile.
    #[error(
        "{name} is not defragmented, for it answers nothing meanwhile and {}; `kubeboot etcd status` shows the cluster",
        reasons.join("; ")
    )]
    NotNow {
        /// The member.
        name: String,
        /// What is wrong.
        reasons: Vec<String>,
    },
    /// etcd writes the new database beside the old one.
    #[error(
        "defragmenting {name} needs {} MiB in {}, where {} MiB are free: make room there", need.div_ceil(MIB),
        path.display(), free / MIB
    )]
    NoRoom {
        /// The member.
        name: String,
        /// Its data directory.
        path: PathBuf,
        /// Bytes, with those that have to stay free.
        need: u64,
        /// Bytes.
        free: u64,
    },
    /// Nothing tells how much is free.
    #[error(transparent)]
    File(#[from] FsError),
    /// etcd does not do it.
    #[error("{name} is not defragmented")]
    Etcd {
        /// The member.
        name: String,
        /// Why.
        #[source]
        source: EtcdError,
    },
    /// It has not come back.
    #[error("{name} is defragmented, but has not caught up within {} s; no other member is touched", AGAIN_LIMIT.as_secs())]
    Behind {
        /// The member.
        name: String,
    },
}

/// Defragments; each database that is done is `reported` at once.
///
/// # Errors
/// [`DefragError`]. Members before the one with the error are done, those behind it are as they were.
pub async fn defragment(
    cluster: &Cluster<'_>,
    which: Which,
    own: Option<Own<'_>>,
    reported: &mut (dyn FnMut(&Defragmented) + Send),
) -> Result<(), DefragError> {
    let asked = cluster.ask().await?;
    let view = of_members(cluster.connector, &asked).await?;
    let mut left: Vec<MemberId> = match which {
        Which::One => vec![asked.status.member],
        Which::All => view.members.iter().map(|member| member.record.id).collect(),
    };
    while !left.is_empty() {
        let view = of_members(cluster.connector, &asked).await?;
        // Who leads may change meanwhile.
        let at = left.iter().position(|id| !view.member(*id).is_some_and(MemberState::is_leader)).unwrap_or_default();
        let id = left.remove(at);
        let Some(member) = view.member(id) else { continue };
        look(&view, member)?;
        if let Some(own) = own.as_ref().filter(|_| id == asked.status.member) {
            room(own, member)?;
        }
        let url = if id == asked.status.member { Some(&asked.endpoint) } else { member.record.client_urls.first() };
        reported(&one(cluster, member, url.map(String::as_str).unwrap_or_default()).await?);
    }
    Ok(())
}

/// Whether the cluster can do without the member for a while.
fn look(view: &Overview, member: &MemberState) -> Result<(), DefragError> {
    let others = view.members.iter().filter(|one| one.record.id != member.record.id && !one.record.is_learner);
    let mut reasons: Vec<String> = others.filter(|one| !one.serves()).map(why).collect();
    if !member.serves() {
        reasons.insert(0, why(member));
    }
    match reasons.is_empty() {
        true => Ok(()),
        false => Err(DefragError::NotNow { name: member.name(), reasons }),
    }
}

fn why(member: &MemberState) -> String {
    let (name, unread) = (member.name(), member.unread.as_deref().unwrap_or("it reads nothing"));
    match &member.status {
        Err(reason) => format!("{name} does not answer ({reason})"),
        Ok(_) => format!("{name} does not serve ({unread})"),
    }
}

fn room(own: &Own<'_>, member: &MemberState) -> Result<(), DefragError> {
    let in_use = member.status.as_ref().map_or(0, |status| status.db_in_use);
    let (need, free) = (in_use.saturating_add(SPARE), own.disk.free(own.data_dir)?);
    let (name, path) = (member.name(), own.data_dir.to_owned());
    if free < need { Err(DefragError::NoRoom { name, path, need, free }) } else { Ok(()) }
}

async fn one(cluster: &Cluster<'_>, member: &MemberState, url: &str) -> Result<Defragmented, DefragError> {
    let (name, begin) = (member.name(), Instant::now());
    let fail = |source| DefragError::Etcd { name: name.clone(), source };
    let away = || EtcdError::Unreachable { address: url.to_owned(), source: "members are asked by TLS".into() };
    let server = cluster.connector.connect(url).ok_or_else(|| fail(away()))?;
    server.defragment().await.map_err(fail)?;
    let millis = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
    let urls = [url.to_owned()];
    let own = Cluster { connector: cluster.connector, endpoints: &urls };
    let again = async {
        loop {
            if let Ok(view) = overview(&own).await
                && let Some(state) = view.member(member.record.id)
                && let Ok(status) = &state.status
                && state.serves()
                && state.lag(view.index).is_some_and(|lag| lag <= NEAR)
            {
                return status.db_size;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    let before = member.status.as_ref().map_or(0, |status| status.db_size);
    match tokio::time::timeout(AGAIN_LIMIT, again).await {
        Ok(after) => Ok(Defragmented { name, before, after, millis }),
        Err(_) => Err(DefragError::Behind { name }),
    }
}
