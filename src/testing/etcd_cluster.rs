#![allow(clippy::unwrap_used, reason = "test support")]

//! A cluster of etcd in memory: members that answer at their URLs, are away, or fail one call by its name.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::etcd::{
    Answer, Connector, Downgrade, Etcd, EtcdError, KvHash, Maintenance, MemberId, MemberRecord, Membership, Minor,
    Pieces, Reason, Server, Status,
};

/// A member.
#[derive(Debug, Clone)]
pub struct FakeMember {
    /// As the cluster knows it.
    pub record: MemberRecord,
    /// What it says of itself.
    pub status: Status,
    /// Whether it is there.
    pub away: bool,
    /// The calls that it refuses.
    pub refuses: Vec<&'static str>,
}

/// Members by their URLs `https://10.0.0.N:2379`, and every call so far: `cp1 status`.
#[derive(Clone, Default)]
pub struct FakeCluster(Arc<Mutex<(Vec<FakeMember>, Vec<String>)>>);

impl FakeCluster {
    /// `count` members of etcd 3.6.8 that vote, of which the first leads.
    pub fn of(count: u64) -> Self {
        let member = |id: u64| FakeMember {
            record: MemberRecord {
                id: MemberId(id),
                name: Some(format!("cp{id}")),
                peer_urls: vec![format!("https://10.0.0.{id}:2380")],
                client_urls: vec![Self::url(id)],
                is_learner: false,
            },
            status: Status {
                cluster: 7,
                member: MemberId(id),
                version: "3.6.8".into(),
                storage: Minor::of("3.6"),
                leader: Some(MemberId(1)),
                raft_term: 2,
                raft_index: 100,
                applied_index: 100,
                db_size: 10 << 20,
                db_in_use: 1 << 20,
                ..Status::default()
            },
            away: false,
            refuses: vec![],
        };
        Self(Arc::new(Mutex::new(((1..=count).map(member).collect(), vec![]))))
    }

    /// Where the member with this id answers.
    pub fn url(id: u64) -> String {
        format!("https://10.0.0.{id}:2379")
    }

    /// Changes a member.
    pub fn change(&self, id: u64, change: impl FnOnce(&mut FakeMember)) {
        change(self.lock().0.iter_mut().find(|one| one.record.id.0 == id).unwrap());
    }

    /// The calls `call`, by member.
    pub fn asked(&self, call: &str) -> Vec<String> {
        let all = self.lock();
        all.1.iter().filter_map(|one| Some(one.strip_suffix(call)?.trim_end().to_owned())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, (Vec<FakeMember>, Vec<String>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connector for FakeCluster {
    fn connect(&self, url: &str) -> Option<Box<dyn Server>> {
        let id = self.lock().0.iter().find(|one| one.record.client_urls.iter().any(|own| own == url))?.record.id;
        Some(Box::new(Reached { cluster: self.clone(), id }))
    }
}

/// A connection to a member.
struct Reached {
    cluster: FakeCluster,
    id: MemberId,
}

impl Reached {
    fn call<T>(
        &self,
        name: &'static str,
        answer: impl FnOnce(&mut FakeMember, &[MemberRecord]) -> T,
    ) -> Result<T, EtcdError> {
        let (members, calls) = &mut *self.cluster.lock();
        let records: Vec<MemberRecord> = members.iter().map(|one| one.record.clone()).collect();
        let voters = members.iter().filter(|one| !one.record.is_learner);
        let (count, there) = (voters.clone().count(), voters.filter(|one| !one.away).count());
        let member = members.iter_mut().find(|one| one.record.id == self.id).unwrap();
        calls.push(format!("{} {name}", member.record.name.clone().unwrap_or_default()));
        let address = format!("10.0.0.{}:2379", self.id.0);
        if member.away {
            return Err(EtcdError::Unreachable { address, source: "Connection refused".into() });
        }
        let refused = |reason, message: &str| {
            Err(EtcdError::Refused { address: address.clone(), what: name, message: message.to_owned(), reason })
        };
        if member.refuses.contains(&name) {
            return refused(Reason::Other, "no");
        }
        match name {
            "read" | "list" if there * 2 <= count => refused(Reason::NoQuorum, "request timed out"),
            _ => Ok(answer(member, &records)),
        }
    }
}

#[async_trait]
impl Etcd for Reached {
    async fn status(&self) -> Result<Status, EtcdError> {
        self.call("status", |member, _| member.status.clone())
    }

    async fn cluster_version(&self) -> Result<Option<Minor>, EtcdError> {
        self.call("cluster_version", |member, _| member.status.minor())
    }

    async fn downgrade(&self, _: Downgrade, _: Minor) -> Result<(), EtcdError> {
        self.call("downgrade", |_, _| ())
    }
}

#[async_trait]
impl Maintenance for Reached {
    async fn snapshot(&self) -> Result<Pieces, EtcdError> {
        let pieces: Pieces = Box::pin(futures::stream::empty());
        self.call("snapshot", |_, _| pieces)
    }

    async fn defragment(&self) -> Result<(), EtcdError> {
        self.call("defragment", |member, _| member.status.db_size = member.status.db_in_use)
    }

    async fn hash(&self, revision: Option<i64>) -> Result<KvHash, EtcdError> {
        let revision = revision.unwrap_or_default();
        self.call("hash", |_, _| KvHash { hash: 7, revision, compacted: None })
    }

    async fn read(&self, _: &[u8]) -> Result<Answer, EtcdError> {
        self.call("read", |member, _| Answer { by: member.record.id, revision: 1, value: None })
    }
}

#[async_trait]
impl Membership for Reached {
    async fn list(&self) -> Result<Vec<MemberRecord>, EtcdError> {
        self.call("list", |_, all| all.to_vec())
    }

    async fn list_local(&self) -> Result<Vec<MemberRecord>, EtcdError> {
        self.call("list_local", |_, all| all.to_vec())
    }

    async fn add_learner(&self, _: &[String]) -> Result<MemberRecord, EtcdError> {
        self.call("add_learner", |_, all| all[0].clone())
    }

    async fn promote(&self, _: MemberId) -> Result<(), EtcdError> {
        self.call("promote", |_, _| ())
    }

    async fn remove(&self, _: MemberId) -> Result<(), EtcdError> {
        self.call("remove", |_, _| ())
    }

    async fn update(&self, _: MemberId, _: &[String]) -> Result<(), EtcdError> {
        self.call("update", |_, _| ())
    }
}
