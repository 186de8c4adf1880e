//! A member of etcd at its address, asked with the client certificate that kubeadm makes for its health checks.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use http::Uri;
use rustls::ClientConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;

use super::proto::{
    DefragmentRequest, DefragmentResponse, DowngradeRequest, DowngradeResponse, HashKvRequest, HashKvResponse,
    MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse, MemberPromoteRequest,
    MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse, MemberUpdateRequest, MemberUpdateResponse,
    RangeRequest, RangeResponse, SnapshotRequest, SnapshotResponse, StatusRequest, StatusResponse,
};
use super::rpc::{Call, Cause, get, streaming, unary};
use super::{
    Answer, Downgrade, Etcd, EtcdError, KvHash, Maintenance, MemberId, MemberRecord, Membership, Minor, Piece, Pieces,
    Status,
};
use crate::config::ClusterSpec;
use crate::config::spec::{ExternalEtcd, last_arg};
use crate::host::Paths;
use crate::pki::verifier::Verifier;

/// Where kubeadm's etcd listens for clients.
const PORT: u16 = 2379;

/// How long a member may take for what it knows itself: it answers in milliseconds or is not there.
const OWN: Duration = Duration::from_secs(3);
/// How long for what a quorum has to agree to: etcd itself gives up after 7 s, and says so.
const AGREED: Duration = Duration::from_secs(10);
/// How long may pass without a piece of a snapshot: the file is read from a disk.
const PIECE: Duration = Duration::from_secs(30);
/// How long for work on the whole database, which may have gigabytes: minutes on a slow disk.
const WHOLE: Duration = Duration::from_secs(600);

/// Where a member serves the versions of itself and of its cluster, beside gRPC, which does not tell the cluster's.
const VERSION: &str = "/version";

/// A row of the table of what a member is asked.
const fn call(path: &'static str, what: &'static str, limit: Duration) -> Call {
    Call { path, what, limit }
}

const STATUS: Call = call("/etcdserverpb.Maintenance/Status", "tell its status", OWN);
const DOWNGRADE: Call = call("/etcdserverpb.Maintenance/Downgrade", "downgrade its data", AGREED);
const CANCEL: Call = call("/etcdserverpb.Maintenance/Downgrade", "cancel the downgrade of its data", AGREED);
const SNAPSHOT: Call = call("/etcdserverpb.Maintenance/Snapshot", "send a snapshot", PIECE);
const DEFRAGMENT: Call = call("/etcdserverpb.Maintenance/Defragment", "defragment its database", WHOLE);
const HASH: Call = call("/etcdserverpb.Maintenance/HashKV", "hash its keys", WHOLE);
const LIST: Call = call("/etcdserverpb.Cluster/MemberList", "list the members", AGREED);
const LIST_LOCAL: Call = call("/etcdserverpb.Cluster/MemberList", "list the members", OWN);
const ADD: Call = call("/etcdserverpb.Cluster/MemberAdd", "add a learner", AGREED);
const PROMOTE: Call = call("/etcdserverpb.Cluster/MemberPromote", "let a learner vote", AGREED);
const REMOVE: Call = call("/etcdserverpb.Cluster/MemberRemove", "remove a member", AGREED);
const UPDATE: Call = call("/etcdserverpb.Cluster/MemberUpdate", "change a member's peer URLs", AGREED);
const RANGE: Call = call("/etcdserverpb.KV/Range", "read a key", AGREED);

/// A member at its address. The files are read for each question: an upgrade renews them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The host, as the server's certificate has it: `127.0.0.1`.
    pub host: String,
    /// The port for clients.
    pub port: u16,
    /// The authority of etcd's certificates, on the host.
    pub ca: PathBuf,
    /// The client's certificate, on the host.
    pub certificate: PathBuf,
    /// Its key, on the host.
    pub key: PathBuf,
}

impl Member {
    /// The etcd of the node that `spec` describes, at the first address at which it listens for clients.
    pub fn of(spec: &ClusterSpec, paths: &Paths) -> Self {
        let given = spec.etcd.local().and_then(|local| {
            let urls = last_arg(&local.component.extra_args, "listen-client-urls")?;
            host_and_port(urls.split(',').next()?)
        });
        let (host, port) = given.unwrap_or_else(|| (spec.loopback().to_owned(), PORT));
        let file = |name: &str| paths.on_host(spec.certificates_dir.join("etcd").join(name));
        let (certificate, key) = (file("healthcheck-client.crt"), file("healthcheck-client.key"));
        Self { host, port, ca: file("ca.crt"), certificate, key }
    }

    /// The external etcd that `etcd` describes, at its first endpoint; None where it names no TLS files or no endpoint.
    pub fn external(etcd: &ExternalEtcd, paths: &Paths) -> Option<Self> {
        let (host, port) = host_and_port(etcd.endpoints.first()?)?;
        let file = |file: &Option<PathBuf>| file.as_deref().map(|file| paths.on_host(file));
        let (ca, certificate, key) = (file(&etcd.ca_file)?, file(&etcd.cert_file)?, file(&etcd.key_file)?);
        Some(Self { host, port, ca, certificate, key })
    }

    /// Where it is asked: `https://127.0.0.1:2379`.
    pub fn url(&self) -> String {
        format!("https://{}", self.address())
    }

    /// Another member, at one of its client URLs, asked with the same certificate; None where the URL names no port.
    pub fn at(&self, url: &str) -> Option<Self> {
        let (host, port) = host_and_port(url)?;
        Some(Self { host, port, ..self.clone() })
    }

    /// `host:port`.
    pub(super) fn address(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }

    pub(super) fn unreachable(&self, source: impl Into<Cause>) -> EtcdError {
        EtcdError::Unreachable { address: self.address(), source: source.into() }
    }

    /// The settings of a client that trusts the authority and shows the certificate.
    pub(super) fn tls(&self) -> Result<ClientConfig, Cause> {
        let certificates = |path: &Path| {
            let found = CertificateDer::pem_slice_iter(&read(path)?).collect::<Result<Vec<_>, _>>();
            found.map_err(|e| format!("no certificates can be read from {}: {e}", path.display()))
        };
        let (roots, chain) = (certificates(&self.ca)?, certificates(&self.certificate)?);
        let key = PrivateKeyDer::from_pem_slice(&read(&self.key)?)
            .map_err(|e| format!("no key can be read from {}: {e}", self.key.display()))?;
        let pair = |e| format!("{} with {}: {e}", self.certificate.display(), self.key.display());
        let mut config = Verifier::new(&roots)?.client_config(Some((chain, key))).map_err(pair)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}

/// Those of `https://10.0.0.5:2379`, an IPv6 address without its brackets.
fn host_and_port(url: &str) -> Option<(String, u16)> {
    let url: Uri = url.parse().ok()?;
    Some((url.host()?.trim_matches(['[', ']']).to_owned(), url.port_u16()?))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|e| format!("cannot read {}: {e}", path.display()))
}

#[async_trait]
impl Etcd for Member {
    async fn status(&self) -> Result<Status, EtcdError> {
        let said: StatusResponse = unary(self, STATUS, StatusRequest {}).await?;
        let header = said.header.unwrap_or_default();
        Ok(Status {
            cluster: header.cluster_id,
            member: MemberId(header.member_id),
            revision: header.revision,
            storage: Minor::of(&said.storage_version),
            version: said.version,
            leader: (said.leader != 0).then_some(MemberId(said.leader)),
            is_learner: said.is_learner,
            raft_term: said.raft_term,
            raft_index: said.raft_index,
            applied_index: said.raft_applied_index,
            db_size: unsigned(said.db_size),
            db_in_use: unsigned(said.db_size_in_use),
            db_quota: Some(unsigned(said.db_size_quota)).filter(|quota| *quota > 0),
            errors: said.errors,
        })
    }

    async fn cluster_version(&self) -> Result<Option<Minor>, EtcdError> {
        let Some(said) = get(self, VERSION, OWN).await? else { return Ok(None) };
        let said: Value = serde_json::from_slice(&said).unwrap_or_default();
        Ok(said["etcdcluster"].as_str().and_then(Minor::of))
    }

    async fn downgrade(&self, action: Downgrade, to: Minor) -> Result<(), EtcdError> {
        let call = match action {
            Downgrade::Validate | Downgrade::Enable => DOWNGRADE,
            Downgrade::Cancel => CANCEL,
        };
        let question = DowngradeRequest { action: action.into(), version: to.target() };
        unary(self, call, question).await.map(|_: DowngradeResponse| ())
    }
}

#[async_trait]
impl Maintenance for Member {
    async fn snapshot(&self) -> Result<Pieces, EtcdError> {
        let sent = streaming::<_, SnapshotResponse>(self, SNAPSHOT, SnapshotRequest {}).await?;
        let piece = |sent: SnapshotResponse| Piece {
            bytes: sent.blob,
            remaining: sent.remaining_bytes,
            storage: Minor::of(&sent.version),
        };
        Ok(sent.map(move |sent| sent.map(piece)).boxed())
    }

    async fn defragment(&self) -> Result<(), EtcdError> {
        unary(self, DEFRAGMENT, DefragmentRequest {}).await.map(|_: DefragmentResponse| ())
    }

    async fn hash(&self, revision: Option<i64>) -> Result<KvHash, EtcdError> {
        let question = HashKvRequest { revision: revision.unwrap_or_default() };
        let said: HashKvResponse = unary(self, HASH, question).await?;
        let newest = said.header.unwrap_or_default().revision;
        let stated = Some(said.hash_revision).filter(|revision| *revision > 0);
        Ok(KvHash {
            hash: said.hash,
            revision: stated.or(revision).unwrap_or(newest),
            compacted: Some(said.compact_revision).filter(|revision| *revision > 0),
        })
    }

    async fn read(&self, key: &[u8]) -> Result<Answer, EtcdError> {
        let said: RangeResponse = unary(self, RANGE, RangeRequest { key: key.to_vec(), limit: 1 }).await?;
        let header = said.header.unwrap_or_default();
        let value = said.kvs.into_iter().next().map(|found| found.value);
        Ok(Answer { by: MemberId(header.member_id), revision: header.revision, value })
    }
}

#[async_trait]
impl Membership for Member {
    async fn list(&self) -> Result<Vec<MemberRecord>, EtcdError> {
        let said: MemberListResponse = unary(self, LIST, MemberListRequest { linearizable: true }).await?;
        Ok(said.members.into_iter().map(record).collect())
    }

    async fn list_local(&self) -> Result<Vec<MemberRecord>, EtcdError> {
        let said: MemberListResponse = unary(self, LIST_LOCAL, MemberListRequest { linearizable: false }).await?;
        Ok(said.members.into_iter().map(record).collect())
    }

    async fn add_learner(&self, peer_urls: &[String]) -> Result<MemberRecord, EtcdError> {
        let question = MemberAddRequest { peer_urls: peer_urls.to_vec(), is_learner: true };
        let said: MemberAddResponse = unary(self, ADD, question).await?;
        said.member.map(record).ok_or_else(|| self.unreachable("the answer names no member"))
    }

    async fn promote(&self, id: MemberId) -> Result<(), EtcdError> {
        unary(self, PROMOTE, MemberPromoteRequest { id: id.0 }).await.map(|_: MemberPromoteResponse| ())
    }

    async fn remove(&self, id: MemberId) -> Result<(), EtcdError> {
        unary(self, REMOVE, MemberRemoveRequest { id: id.0 }).await.map(|_: MemberRemoveResponse| ())
    }

    async fn update(&self, id: MemberId, peer_urls: &[String]) -> Result<(), EtcdError> {
        let question = MemberUpdateRequest { id: id.0, peer_urls: peer_urls.to_vec() };
        unary(self, UPDATE, question).await.map(|_: MemberUpdateResponse| ())
    }
}

fn record(said: super::proto::Member) -> MemberRecord {
    MemberRecord {
        id: MemberId(said.id),
        name: Some(said.name).filter(|name| !name.is_empty()),
        peer_urls: said.peer_urls,
        client_urls: said.client_urls,
        is_learner: said.is_learner,
    }
}

/// Sizes are signed in the protocol alone.
fn unsigned(size: i64) -> u64 {
    u64::try_from(size).unwrap_or_default()
}
