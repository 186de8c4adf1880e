//! A snapshot as the data of a new cluster, as `etcdutl snapshot restore` makes them: the database forgets the members that it
//! had, and a new log begins with those that it has now. So a member of the old cluster, which may still run somewhere, has
//! nothing to do with the new one.
//!
//! Everything follows from the members and a token: each member that is restored from the same snapshot, with the same ones,
//! is of the same cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use http::Uri;
use prost::Message;
use serde::Serialize;
use serde_json::{Value, json};

use super::MemberId;
use super::database::{DatabaseError, Edit, crc32c, revision_of};
use super::proto::{
    ConfChange, ConfState, Entry, HardState, LogSnapshot, Metadata, RaftSnapshot, SnapFile, SnapshotMetadata,
};
use super::wal::{self, ENTRY, METADATA, SNAPSHOT, STATE};
use crate::host::digest::sha1;

/// The term of everything that a new log begins with.
const TERM: u64 = 1;
/// Kind of an entry: a change of the membership.
const CHANGE: i32 = 1;
/// What etcd's second store remembers of its own past, in entries.
const HISTORY: usize = 1000;

/// A member that is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMember {
    /// Its name.
    pub name: String,
    /// Where other members reach it, in order.
    pub peer_urls: Vec<String>,
}

/// A cluster that is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCluster {
    members: BTreeMap<MemberId, NewMember>,
}

/// The log and the state of a member before its first start, as files below `member`.
pub struct Files {
    /// The state: its name below `snap`, and its content.
    pub state: (String, Vec<u8>),
    /// The log: its name below `wal`, and its content.
    pub log: (String, Vec<u8>),
}

/// What is done to the revisions, so that clients that know newer ones than the snapshot has do not take old for new.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Revisions {
    /// By how much the newest one grows, all before it being compacted; 0 leaves them as they are.
    pub bump: u64,
}

/// The URL of a peer: `https://10.0.0.5:2380`.
///
/// # Errors
/// What is wrong with it.
pub fn peer_url(text: &str) -> Result<String, String> {
    let url = text.trim();
    let is_one = |uri: Uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.port_u16().is_some()
            && matches!(uri.path(), "" | "/")
            && uri.query().is_none()
    };
    match url.parse().is_ok_and(is_one) && !url.ends_with('/') {
        true => Ok(url.to_owned()),
        false => Err(format!("expected https://ADDRESS:PORT for a peer, not {text:?}")),
    }
}

impl NewCluster {
    /// That of `NAME=URL,NAME=URL`, as etcd's `--initial-cluster` has it; a name that stands there twice has two URLs.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str, token: &str) -> Result<Self, String> {
        let mut named: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut all = BTreeSet::new();
        for part in text.split(',') {
            let (name, url) = part.split_once('=').ok_or_else(|| format!("expected NAME=URL, not {part:?}"))?;
            let (name, url) = (name.trim(), peer_url(url)?);
            if name.is_empty() {
                return Err(format!("expected a name before {url}"));
            }
            if !all.insert(url.clone()) {
                return Err(format!("{url} stands there twice"));
            }
            named.entry(name.to_owned()).or_default().insert(url);
        }
        let member = |(name, urls): (String, BTreeSet<String>)| {
            let peer_urls: Vec<String> = urls.into_iter().collect();
            let id = id([peer_urls.concat().as_bytes(), token.as_bytes()].concat().as_slice());
            (MemberId(id), NewMember { name, peer_urls })
        };
        Ok(Self { members: named.into_iter().map(member).collect() })
    }

    /// The member of this name.
    pub fn member(&self, name: &str) -> Option<(MemberId, &NewMember)> {
        self.members.iter().find(|(_, member)| member.name == name).map(|(id, member)| (*id, member))
    }

    /// The names of all members.
    pub fn names(&self) -> Vec<&str> {
        self.members.values().map(|member| member.name.as_str()).collect()
    }

    /// The id of the cluster.
    pub fn id(&self) -> u64 {
        id(&self.members.keys().flat_map(|id| id.0.to_be_bytes()).collect::<Vec<u8>>())
    }

    /// The last entry of the new log, one for each member.
    fn index(&self) -> u64 {
        self.members.len() as u64
    }

    /// The log and the state with which the member `own` begins.
    pub fn files(&self, own: MemberId) -> Files {
        let (index, voters) = (self.index(), self.members.keys().map(|id| id.0).collect());
        let state = ConfState { voters };
        let mut records = vec![
            (METADATA, Metadata { member: own.0, cluster: self.id() }.encode_to_vec()),
            (SNAPSHOT, LogSnapshot::default().encode_to_vec()),
        ];
        for ((id, member), index) in self.members.iter().zip(1..) {
            let context = member.json(*id);
            let data = ConfChange { kind: 0, member: id.0, context }.encode_to_vec();
            records.push((ENTRY, Entry { kind: CHANGE, term: TERM, index, data }.encode_to_vec()));
        }
        let vote = self.members.keys().next().map_or(0, |id| id.0);
        records.push((STATE, HardState { term: TERM, vote, commit: index }.encode_to_vec()));
        let moment = LogSnapshot { index, term: TERM, state: Some(state.clone()) };
        records.push((SNAPSHOT, moment.encode_to_vec()));
        let metadata = Some(SnapshotMetadata { state: Some(state), index, term: TERM });
        let data = RaftSnapshot { data: self.store().to_string().into_bytes(), metadata }.encode_to_vec();
        Files {
            state: (format!("{TERM:016x}-{index:016x}.snap"), SnapFile { crc: crc32c(0, &data), data }.encode_to_vec()),
            log: (format!("{:016x}-{:016x}.wal", 0, 0), wal::begin(&records)),
        }
    }

    /// The store of etcd's second version, which has nothing but the members.
    fn store(&self) -> Value {
        let node = |path: &str, at: u64, value: &str, children: Value| {
            json!({
                "Path": path, "CreatedIndex": at, "ModifiedIndex": at, "ExpireTime": "0001-01-01T00:00:00Z",
                "Value": value, "Children": children,
            })
        };
        let members: serde_json::Map<String, Value> = self
            .members
            .iter()
            .zip(1..)
            .map(|((id, member), at)| {
                let path = format!("/0/members/{id}");
                let urls = json!({"peerURLs": member.peer_urls}).to_string();
                let leaf = node(&format!("{path}/raftAttributes"), at, &urls, Value::Null);
                (id.to_string(), node(&path, at, "", json!({"raftAttributes": leaf})))
            })
            .collect();
        let members = node("/0/members", 1, "", members.into());
        let own = node("/0", 0, "", json!({"members": members}));
        let root = node("/", 0, "", json!({"0": own, "1": node("/1", 0, "", json!({}))}));
        let queue =
            json!({"Events": vec![Value::Null; HISTORY], "Size": 0, "Front": 0, "Back": 0, "Capacity": HISTORY});
        json!({
            "Root": root,
            "WatcherHub": {"EventHistory": {"Queue": queue, "StartIndex": 0, "LastIndex": 0}},
            "CurrentIndex": self.index(),
            "Stats": {},
            "CurrentVersion": 2,
        })
    }

    /// Makes the database in the file `path`, which no etcd has open, that of this cluster.
    ///
    /// # Errors
    /// [`DatabaseError`]; the database may be as it was, or as it is to be.
    pub fn take_over(&self, path: &Path, revisions: Revisions) -> Result<(), DatabaseError> {
        let mut database = Edit::open(path)?;
        let record = |(id, member): (&MemberId, &NewMember)| (id.to_string().into_bytes(), member.json(*id));
        let mut members: Vec<_> = self.members.iter().map(record).collect();
        members.sort();
        database.replace("members", &members)?;
        database.replace("members_removed", &[])?;
        let mut meta: BTreeMap<Vec<u8>, Vec<u8>> = database.small_bucket("meta")?.into_iter().collect();
        meta.insert(b"consistent_index".to_vec(), self.index().to_be_bytes().to_vec());
        // etcd 3.4 has none.
        if let Some(term) = meta.get_mut(b"term".as_slice()) {
            *term = TERM.to_be_bytes().to_vec();
        }
        if revisions.bump > 0 {
            let last = match database.last_key("key")? {
                Some(key) => revision_of(&key).map_err(|damage| database.damaged(damage))?.0,
                None => 1,
            };
            let newest = u64::try_from(last).unwrap_or_default().saturating_add(revisions.bump);
            let newest = [&newest.to_be_bytes()[..], b"_", &[0; 8]].concat();
            database.append("key", &newest, &[])?;
            meta.insert(b"scheduledCompactRev".to_vec(), newest);
        }
        database.replace("meta", &meta.into_iter().collect::<Vec<_>>())?;
        database.write()
    }
}

/// A member as etcd stores it, with its fields in etcd's order.
#[derive(Serialize)]
struct Stored<'a> {
    id: u64,
    #[serde(rename = "peerURLs")]
    peer_urls: &'a [String],
    name: &'a str,
}

impl NewMember {
    /// As etcd stores it.
    fn json(&self, id: MemberId) -> Vec<u8> {
        let stored = Stored { id: id.0, peer_urls: &self.peer_urls, name: &self.name };
        // Numbers and texts have a JSON whatever they are.
        serde_json::to_vec(&stored).unwrap_or_default()
    }
}

/// The first eight bytes of a SHA-1: how etcd makes ids.
fn id(bytes: &[u8]) -> u64 {
    sha1(bytes).first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_that_etcd_makes() {
        let text = "m1=https://127.0.0.1:11380,m2=https://127.0.0.1:12380";
        let cluster = NewCluster::parse(text, "tok").unwrap();
        let ids: Vec<String> = cluster.members.keys().map(MemberId::to_string).collect();
        assert_eq!(ids, ["494b376db0c206a6", "5c510cadaf584cf8"]);
        // Of the log that etcd 3.6.8 begins with them.
        assert_eq!(format!("{:x}", cluster.id()), "59db0e6c79a2c478");
        assert_eq!(cluster.member("m2").unwrap().0.to_string(), "5c510cadaf584cf8");
        assert_ne!(NewCluster::parse(text, "other").unwrap().id(), cluster.id());
    }

    #[test]
    fn the_members_of_a_cluster_are_named_as_etcds_flag_has_them() {
        let two = NewCluster::parse("a=https://10.0.0.5:2380,a=https://10.0.0.4:2380", "t").unwrap();
        assert_eq!(two.member("a").unwrap().1.peer_urls, ["https://10.0.0.4:2380", "https://10.0.0.5:2380"]);
        let bad = [
            ("", "expected NAME=URL"),
            ("a", "expected NAME=URL"),
            ("=https://1.2.3.4:1", "expected a name"),
            ("a=1.2.3.4:2380", "for a peer"),
            ("a=https://1.2.3.4", "for a peer"),
            ("a=https://1.2.3.4:2380/x", "for a peer"),
            ("a=https://1.2.3.4:1,b=https://1.2.3.4:1", "twice"),
        ];
        for (text, why) in bad {
            let error = NewCluster::parse(text, "t").unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
