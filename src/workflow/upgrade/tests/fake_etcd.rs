//! An etcd that runs what is on disk: what it opens and refuses, and what it writes into its database and its log.

use super::super::manifest::{image, image_version, parse};
use super::*;
use crate::agent::control::report::PodReport;
use crate::etcd::{
    Answer, Downgrade, Etcd, EtcdError, KvHash, Maintenance, MemberId, MemberRecord, Membership, Minor, Pieces, Status,
};
use crate::testing::etcd::{database, pieces};
use crate::testing::etcd_log;

pub(super) const MEMBER: &str = "var/lib/etcd/member";
const DATABASE: &str = "snap/db";
const LOG: &str = "wal/0000000000000000-0000000000000000.wal";

/// What a data directory holds: a database with the version of its format and everything written, and a log of that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Db {
    pub storage: Option<Minor>,
    /// Whether etcd has been asked to go back, so that a newer one leaves the format as it is.
    pub goes_back: bool,
    pub term: u64,
    pub index: u64,
    pub writes: Vec<String>,
}

impl Db {
    /// None where the data are none that these tests have made; an etcd begins with empty ones where there are none.
    pub fn read(root: &Path) -> Option<Self> {
        let member = root.join(MEMBER);
        if member.join("db").exists() {
            return None;
        }
        let bytes = std::fs::read(member.join(DATABASE)).unwrap_or_else(|_| database_of("3.0 1 0 EMPTY"));
        let text = String::from_utf8(bytes[32..].to_vec()).ok()?;
        let mut words = text.trim_end_matches('\0').split(' ').map(str::to_owned);
        let first = words.next()?;
        let storage = Some(Minor::of(first.trim_end_matches('<'))?);
        let (term, index) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let mut db = Self { storage, goes_back: first.ends_with('<'), term, index, writes: words.collect() };
        // As after a crash: the log has what the database lacks.
        let (term, index, puts) = etcd_log::read(&std::fs::read(member.join(LOG)).unwrap_or_default());
        db.writes.extend(puts.into_iter().filter(|(at, _)| *at > db.index).map(|(_, write)| write));
        (db.term, db.index) = (db.term.max(term), db.index.max(index));
        Some(db)
    }

    pub fn save(&self, root: &Path) {
        let mark = if self.goes_back { "<" } else { "" };
        let storage = self.storage.map_or_else(String::new, |storage| format!("{storage}{mark}"));
        let numbers = vec![storage, self.term.to_string(), self.index.to_string()];
        let database = database_of(&[numbers, self.writes.clone()].concat().join(" "));
        for dir in ["snap", "wal"] {
            crate::host::fs::make_dirs(&root.join(MEMBER).join(dir), 0o700).unwrap();
        }
        crate::host::fs::write_file(&root.join(MEMBER).join(DATABASE), &database, 0o600).unwrap();
    }

    /// Adds to the log first, as etcd does.
    fn log(&mut self, root: &Path, record: &[u8]) {
        let path = root.join(MEMBER).join(LOG);
        crate::host::fs::make_dirs(path.parent().unwrap(), 0o700).unwrap();
        let log = [std::fs::read(&path).unwrap_or_default(), record.to_vec()].concat();
        crate::host::fs::write_file(&path, &log, 0o600).unwrap();
        self.save(root);
    }

    /// A process begins.
    pub fn elect(&mut self, root: &Path) {
        (self.term, self.index) = (self.term + 1, self.index + 1);
        self.log(root, &etcd_log::election(self.term, self.index));
    }

    /// A write that is acknowledged.
    fn put(&mut self, root: &Path) {
        let acknowledged = root.join("acknowledged");
        let before = std::fs::read_to_string(&acknowledged).unwrap_or_default();
        let next = format!("a{}", before.split_whitespace().count());
        self.index += 1;
        self.writes.push(next.clone());
        self.log(root, &etcd_log::put(self.term, self.index, &next));
        crate::host::fs::write_file(&acknowledged, format!("{before}{next} ").as_bytes(), 0o600).unwrap();
    }
}

/// A database with a text in it.
fn database_of(text: &str) -> Vec<u8> {
    let mut bytes = database(1);
    bytes.truncate(32);
    bytes.extend(text.as_bytes());
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn version(root: &Path) -> Option<String> {
    let path = root.join("etc/kubernetes/manifests/etcd.yaml");
    image_version(image(&parse(&path, &std::fs::read(&path).ok()?).ok()?))
}

/// Whether a component works with what there is. An etcd takes older data to its own format first.
pub(super) fn suits(root: &Path, component: &str, manifest: &str) -> bool {
    let (Some(mut db), Some(version)) = (Db::read(root), version(root)) else { return true };
    let minor = Minor::of(&version);
    if component != "etcd" {
        // An API server that works with one etcd alone.
        return manifest.split("needs-").nth(1).is_none_or(|needed| Minor::of(&needed[..3]) == minor);
    }
    if db.storage > minor {
        return false;
    }
    // `crash` alone ends before it opens anything.
    if !manifest.contains("crash") || manifest.contains("opens") {
        db.goes_back &= db.storage < minor;
        db.storage = if db.goes_back { db.storage } else { minor };
        let process = root.join(PROCESS);
        if std::fs::read_to_string(&process).ok().as_deref() != Some(manifest) {
            crate::host::fs::write_file(&process, manifest.as_bytes(), 0o600).unwrap();
            db.elect(root);
        }
        db.save(root);
    }
    true
}

/// The manifest of the etcd that runs.
pub(super) const PROCESS: &str = "process";
/// That etcd was seen to be away.
pub(super) const AWAY: &str = "away";

/// One more write, if etcd serves.
pub(super) fn write(root: &Path, pods: &[PodReport]) {
    let etcd = pods.iter().find(|pod| pod.component.as_deref() == Some("etcd"));
    if let Some(mut db) = Db::read(root).filter(|_| etcd.is_some_and(|pod| pod.healthy)) {
        db.put(root);
    }
    if etcd.is_none() {
        let _ = std::fs::remove_file(root.join(PROCESS));
        crate::host::fs::write_file(&root.join(AWAY), b"", 0o600).unwrap();
    }
}

/// The version that it claims to be, where that is another than its image's.
pub(super) const CLAIMS: &str = "claims";

/// With this file, the cluster's version stays 3.6.
pub(super) const SLOW: &str = "slow";
/// With this file, no downgrade gets on.
pub(super) const STUCK: &str = "stuck";

/// An etcd that runs what is on disk; one of two members where there is a file `several`.
pub(super) struct FakeEtcd(pub PathBuf);

fn away() -> EtcdError {
    EtcdError::Unreachable { address: "fake".into(), source: "refused".into() }
}

impl FakeEtcd {
    fn db(&self) -> Result<(String, Db), EtcdError> {
        let (version, db) = version(&self.0).zip(Db::read(&self.0)).ok_or_else(away)?;
        match version.contains("crash") || db.storage > Minor::of(&version) {
            true => Err(away()),
            false => Ok((version, db)),
        }
    }
}

#[async_trait]
impl Etcd for FakeEtcd {
    async fn status(&self) -> Result<Status, EtcdError> {
        let (version, db) = self.db()?;
        let says = Minor::of(&version) >= Minor::of("3.6");
        let storage = db.storage.filter(|_| says);
        // What its image's tag does not say.
        let version = std::fs::read_to_string(self.0.join(CLAIMS)).unwrap_or(version);
        let (raft_term, applied_index, leader) = (db.term, db.index, Some(MemberId(1)));
        Ok(Status { version, leader, storage, raft_term, applied_index, ..Status::default() })
    }

    async fn cluster_version(&self) -> Result<Option<Minor>, EtcdError> {
        let (version, _) = self.db()?;
        match self.0.join(SLOW).exists() {
            true => Ok(Minor::of("3.6")),
            false => Ok(Minor::of(&version)),
        }
    }

    async fn downgrade(&self, action: Downgrade, to: Minor) -> Result<(), EtcdError> {
        let (version, mut db) = self.db()?;
        match action {
            // What it was asked for it does not do.
            Downgrade::Enable if self.0.join(STUCK).exists() => db.goes_back = true,
            Downgrade::Enable => (db.storage, db.goes_back) = (Some(to), true),
            Downgrade::Cancel => (db.storage, db.goes_back) = (Minor::of(&version), false),
            Downgrade::Validate => {}
        }
        db.save(&self.0);
        Ok(())
    }
}

#[async_trait]
impl Maintenance for FakeEtcd {
    /// One write is acknowledged behind it.
    async fn snapshot(&self) -> Result<Pieces, EtcdError> {
        let (_, mut db) = self.db()?;
        let database = std::fs::read(self.0.join(MEMBER).join(DATABASE)).map_err(|_| away())?;
        db.put(&self.0);
        Ok(stream::iter(pieces(&database, 100).into_iter().map(Ok)).boxed())
    }

    async fn defragment(&self) -> Result<(), EtcdError> {
        Err(away())
    }

    async fn hash(&self, _: Option<i64>) -> Result<KvHash, EtcdError> {
        Err(away())
    }

    async fn read(&self, _: &[u8]) -> Result<Answer, EtcdError> {
        Err(away())
    }
}

#[async_trait]
impl Membership for FakeEtcd {
    async fn list(&self) -> Result<Vec<MemberRecord>, EtcdError> {
        let members = if self.0.join("several").exists() { 2 } else { 1 };
        self.db().map(|_| vec![MemberRecord::default(); members])
    }

    async fn add_learner(&self, _: &[String]) -> Result<MemberRecord, EtcdError> {
        Err(away())
    }

    async fn promote(&self, _: MemberId) -> Result<(), EtcdError> {
        Err(away())
    }

    async fn remove(&self, _: MemberId) -> Result<(), EtcdError> {
        Err(away())
    }

    async fn update(&self, _: MemberId, _: &[String]) -> Result<(), EtcdError> {
        Err(away())
    }
}
