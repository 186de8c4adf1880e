#![allow(clippy::unwrap_used, reason = "test support")]

//! An etcd in memory: its membership and its database, each call of which can fail, before it has changed anything or with
//! its reply lost; and certificates for a real one.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures::{StreamExt, stream};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};

use crate::etcd::{
    Answer, Downgrade, Etcd, EtcdError, KvHash, Maintenance, Member, MemberId, MemberRecord, Membership, Minor, Piece,
    Pieces, Reason, Status,
};
use crate::host::digest::Sha256;
use crate::host::fs::write_file;

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It was never heard of.
    Before,
    /// What was asked for is done, and the reply is lost.
    After,
}

/// Calls by name, and which of them fail.
#[derive(Default)]
struct Faults {
    calls: Vec<&'static str>,
    due: HashMap<&'static str, Fault>,
}

fn away() -> EtcdError {
    EtcdError::Unreachable { address: "fake".into(), source: "the connection was reset".into() }
}

fn refused(what: &'static str, reason: Reason) -> EtcdError {
    EtcdError::Refused { address: "fake".into(), what, message: format!("{reason:?}"), reason }
}

impl Faults {
    /// Counts a call and does it, unless it fails before; the reply may be lost then.
    fn call<T>(&mut self, name: &'static str, work: impl FnOnce() -> Result<T, EtcdError>) -> Result<T, EtcdError> {
        self.calls.push(name);
        match self.due.remove(name) {
            Some(Fault::Before) => Err(away()),
            Some(Fault::After) => work().and(Err(away())),
            None => work(),
        }
    }
}

/// The members of a cluster: one voter in the beginning. A learner that has been started has caught up.
pub struct FakeMembers(Mutex<(Faults, Vec<MemberRecord>)>);

impl Default for FakeMembers {
    fn default() -> Self {
        let first = MemberRecord {
            id: MemberId(1),
            name: Some("cp1".into()),
            peer_urls: vec!["https://10.0.0.5:2380".into()],
            client_urls: vec!["https://10.0.0.5:2379".into()],
            is_learner: false,
        };
        Self(Mutex::new((Faults::default(), vec![first])))
    }
}

impl FakeMembers {
    /// The next `call` fails so.
    pub fn fail(&self, call: &'static str, how: Fault) {
        self.lock().0.due.insert(call, how);
    }

    /// The calls so far.
    pub fn calls(&self) -> Vec<&'static str> {
        self.lock().0.calls.clone()
    }

    /// A member starts, and catches up.
    pub fn start(&self, id: MemberId, name: &str) {
        if let Some(member) = self.lock().1.iter_mut().find(|one| one.id == id) {
            member.name = Some(name.into());
        }
    }

    fn lock(&self) -> MutexGuard<'_, (Faults, Vec<MemberRecord>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes one member.
    fn change(
        &self,
        call: &'static str,
        id: MemberId,
        change: impl FnOnce(&mut MemberRecord) -> Result<(), EtcdError>,
    ) -> Result<(), EtcdError> {
        let (faults, members) = &mut *self.lock();
        faults.call(call, || {
            let member = members.iter_mut().find(|one| one.id == id);
            member.ok_or_else(|| refused(call, Reason::NoSuchMember)).and_then(change)
        })
    }
}

#[async_trait]
impl Membership for FakeMembers {
    async fn list(&self) -> Result<Vec<MemberRecord>, EtcdError> {
        let (faults, members) = &mut *self.lock();
        faults.call("list", || Ok(members.clone()))
    }

    async fn add_learner(&self, peer_urls: &[String]) -> Result<MemberRecord, EtcdError> {
        let (faults, members) = &mut *self.lock();
        faults.call("add_learner", || {
            if members.iter().any(|one| one.peer_urls.iter().any(|url| peer_urls.contains(url))) {
                return Err(refused("add_learner", Reason::PeerUrlTaken));
            }
            if members.iter().any(|one| one.is_learner) {
                return Err(refused("add_learner", Reason::TooManyLearners));
            }
            let id = MemberId(members.iter().map(|one| one.id.0).max().unwrap_or_default() + 1);
            let peer_urls = peer_urls.to_vec();
            members.push(MemberRecord { id, peer_urls, is_learner: true, ..MemberRecord::default() });
            Ok(members[members.len() - 1].clone())
        })
    }

    async fn promote(&self, id: MemberId) -> Result<(), EtcdError> {
        self.change("promote", id, |member| match (member.is_learner, &member.name) {
            (false, _) => Err(refused("promote", Reason::NotALearner)),
            (true, None) => Err(refused("promote", Reason::LearnerBehind)),
            (true, Some(_)) => {
                member.is_learner = false;
                Ok(())
            }
        })
    }

    async fn remove(&self, id: MemberId) -> Result<(), EtcdError> {
        let (faults, members) = &mut *self.lock();
        faults.call("remove", || match members.iter().position(|one| one.id == id) {
            None => Err(refused("remove", Reason::NoSuchMember)),
            Some(at) => {
                members.remove(at);
                Ok(())
            }
        })
    }

    async fn update(&self, id: MemberId, peer_urls: &[String]) -> Result<(), EtcdError> {
        self.change("update", id, |member| {
            member.peer_urls = peer_urls.to_vec();
            Ok(())
        })
    }
}

/// What is sent of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    /// A piece.
    Piece(Piece),
    /// The connection breaks.
    Broken,
    /// Nothing more comes, and no end.
    Silence,
}

/// A database in memory that sends what a test asks for.
#[derive(Clone)]
pub struct FakeData {
    /// What it says of itself.
    pub status: Status,
    /// The snapshot that it sends.
    pub sent: Vec<Sent>,
    faults: Arc<Mutex<Faults>>,
}

/// A database of `sectors` times 512 bytes: none that etcd would open, but one that begins as they do.
pub fn database(sectors: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..sectors * 512).map(|n| (n % 251) as u8).collect();
    bytes[16..20].copy_from_slice(&[0xed, 0xda, 0x0c, 0xed]);
    bytes
}

/// The SHA-256 of `bytes`.
pub fn hash_of(bytes: &[u8]) -> Vec<u8> {
    let mut hash = Sha256::default();
    hash.update(bytes);
    hash.finish()
}

/// A database in pieces of `size` bytes, its hash the last one, as etcd sends it.
pub fn pieces(database: &[u8], size: usize) -> Vec<Piece> {
    let storage = Minor::of("3.6.0");
    let mut remaining = database.len();
    let mut all: Vec<Piece> = database
        .chunks(size)
        .map(|bytes| {
            remaining -= bytes.len();
            Piece { bytes: bytes.to_vec(), remaining: remaining as u64, storage }
        })
        .collect();
    all.push(Piece { bytes: hash_of(database), remaining: 0, storage });
    all
}

impl FakeData {
    /// An etcd 3.6.8 that sends `sent`.
    pub fn new(sent: Vec<Sent>) -> Self {
        let status = Status { version: "3.6.8".into(), leader: Some(MemberId(1)), ..Status::default() };
        Self {
            status: Status { storage: Minor::of("3.6.0"), db_size: 1 << 20, ..status },
            sent,
            faults: Arc::default(),
        }
    }

    /// One that sends the whole of `database`.
    pub fn whole(database: &[u8]) -> Self {
        Self::new(pieces(database, 1000).into_iter().map(Sent::Piece).collect())
    }

    /// The next `call` fails so.
    pub fn fail(&self, call: &'static str, how: Fault) {
        self.lock().due.insert(call, how);
    }

    /// The calls so far.
    pub fn calls(&self) -> Vec<&'static str> {
        self.lock().calls.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Etcd for FakeData {
    async fn status(&self) -> Result<Status, EtcdError> {
        self.lock().call("status", || Ok(self.status.clone()))
    }

    async fn cluster_version(&self) -> Result<Option<Minor>, EtcdError> {
        self.lock().call("cluster_version", || Ok(self.status.minor()))
    }

    async fn downgrade(&self, _: Downgrade, _: Minor) -> Result<(), EtcdError> {
        self.lock().call("downgrade", || Ok(()))
    }
}

#[async_trait]
impl Maintenance for FakeData {
    async fn snapshot(&self) -> Result<Pieces, EtcdError> {
        let sent = self.sent.clone();
        self.lock().call("snapshot", || {
            let pieces = stream::iter(sent).then(async |one| match one {
                Sent::Piece(piece) => Ok(piece),
                Sent::Broken => Err(away()),
                Sent::Silence => std::future::pending().await,
            });
            Ok(pieces.boxed())
        })
    }

    async fn defragment(&self) -> Result<(), EtcdError> {
        self.lock().call("defragment", || Ok(()))
    }

    async fn hash(&self, revision: Option<i64>) -> Result<KvHash, EtcdError> {
        let revision = revision.unwrap_or(self.status.revision);
        self.lock().call("hash", || Ok(KvHash { hash: 7, revision, compacted: None }))
    }

    async fn read(&self, _: &[u8]) -> Result<Answer, EtcdError> {
        let Status { is_learner, leader, member: by, revision, .. } = self.status.clone();
        self.lock().call("read", || match (is_learner, leader) {
            (true, _) => Err(refused("read", Reason::IsLearner)),
            (_, None) => Err(refused("read", Reason::NoQuorum)),
            _ => Ok(Answer { by, revision, value: None }),
        })
    }
}

/// Bytes of the half file that is being written in `dir`; None where there is none.
pub fn part_size(dir: &Path) -> Option<u64> {
    let half = super::listing(dir).into_iter().find(|name| name.starts_with(".kubeboot-part-"))?;
    Some(std::fs::metadata(dir.join(half)).ok()?.len())
}

/// An authority, and what it signs.
struct Authority(Issuer<'static, KeyPair>);

/// Writes certificates for an etcd at 127.0.0.1 into `dir`: the authority `ca.crt`, `server.crt` for servers and peers,
/// `client.crt`, and what another authority of the same name has signed, `other-ca.crt` and `other-client.crt`; the keys
/// beside them (`server.key`).
///
/// # Panics
/// They cannot be made or written.
pub fn certificates(dir: &Path) {
    let own = Authority::new(dir, "ca");
    own.sign(dir, "server", &[ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]);
    own.sign(dir, "client", &[ExtendedKeyUsagePurpose::ClientAuth]);
    Authority::new(dir, "other-ca").sign(dir, "other-client", &[ExtendedKeyUsagePurpose::ClientAuth]);
}

impl Authority {
    fn new(dir: &Path, file: &str) -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "etcd-ca");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        write_file(&dir.join(format!("{file}.crt")), pem.as_bytes(), 0o644).unwrap();
        Self(Issuer::new(params, key))
    }

    fn sign(&self, dir: &Path, file: &str, usages: &[ExtendedKeyUsagePurpose]) {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, file);
        params.subject_alt_names = vec![SanType::IpAddress([127, 0, 0, 1].into())];
        params.extended_key_usages = usages.to_vec();
        let key = KeyPair::generate().unwrap();
        let pem = params.signed_by(&key, &self.0).unwrap().pem();
        write_file(&dir.join(format!("{file}.crt")), pem.as_bytes(), 0o644).unwrap();
        write_file(&dir.join(format!("{file}.key")), key.serialize_pem().as_bytes(), 0o600).unwrap();
    }
}

/// The member at 127.0.0.1 that serves with the [`certificates`] in `dir`, asked as `client`.
pub fn member(dir: &Path, port: u16) -> Member {
    Member {
        host: "127.0.0.1".into(),
        port,
        ca: dir.join("ca.crt"),
        certificate: dir.join("client.crt"),
        key: dir.join("client.key"),
    }
}
