//! A member over gRPC and TLS, which wants a certificate of its clients.

use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex};

use futures::{StreamExt, stream};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;
use tonic::body::Body;
use tonic::server::Grpc;
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

use super::super::Member;
use super::super::proto::{self, *};
use crate::agent::rpc::{unary, unimplemented};
use crate::testing::etcd::{certificates, database, member, pieces};

/// The size of its database, in 512 bytes.
pub const SECTORS: usize = 4096;
/// What it sends at a time, as etcd does.
pub const PIECE: usize = 32 << 10;

/// Bytes that come of a snapshot that ends in the middle.
pub const HALF: u64 = (SECTORS * 512 / 2) as u64;

/// How its snapshots end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// With everything.
    Whole,
    /// With an error in the middle.
    Error,
    /// In the middle, and then there is silence.
    Pending,
}

struct State {
    tail: Tail,
    asked: Mutex<Vec<String>>,
    /// Ends all connections.
    broken: Notify,
}

/// The server, for as long as the test's runtime lives.
pub struct Server {
    dir: tempfile::TempDir,
    port: u16,
    state: Arc<State>,
}

impl Server {
    pub async fn start(tail: Tail) -> Self {
        let dir = tempfile::tempdir().unwrap();
        certificates(dir.path());
        let acceptor = acceptor(dir.path());
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State { tail, asked: Mutex::default(), broken: Notify::new() });
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (state, acceptor) = (Arc::clone(&shared), acceptor.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let for_requests = Arc::clone(&state);
                    let service = service_fn(move |request| {
                        let state = Arc::clone(&for_requests);
                        async move { Ok::<_, Infallible>(answer(state, request).await) }
                    });
                    let served =
                        http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service);
                    tokio::select! {
                        _ = served => {}
                        () = state.broken.notified() => {}
                    }
                });
            }
        });
        Self { dir, port, state }
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn member(&self) -> Member {
        member(self.dir.path(), self.port)
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Breaks all connections off.
    pub fn break_off(&self) {
        self.state.broken.notify_waiters();
    }

    /// The methods that were called, with what was asked.
    pub fn asked(&self) -> Vec<String> {
        self.state.asked.lock().unwrap().clone()
    }
}

fn acceptor(dir: &Path) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let certificate = |name: &str| CertificateDer::from_pem_file(dir.join(name)).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate("ca.crt")).unwrap();
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
    let key = PrivateKeyDer::from_pem_file(dir.join("server.key")).unwrap();
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients)
        .with_single_cert(vec![certificate("server.crt")], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

fn header() -> Option<ResponseHeader> {
    Some(ResponseHeader { cluster_id: 0xc1, member_id: 0xa1, revision: 42 })
}

fn status() -> StatusResponse {
    StatusResponse {
        header: header(),
        version: "3.6.8".into(),
        db_size: 8192,
        leader: 0xa1,
        raft_index: 1001,
        raft_term: 3,
        raft_applied_index: 1000,
        errors: vec!["memberID:161 alarm:NOSPACE".into()],
        db_size_in_use: 4096,
        is_learner: false,
        storage_version: "3.6.0".into(),
        db_size_quota: 2 << 30,
    }
}

fn refused(code: Code, text: &str) -> Status {
    Status::new(code, format!("etcdserver: {text}"))
}

impl State {
    /// Answers a request that has one answer: what is remembered of the question, and what is said.
    async fn reply<Q, A>(
        &self,
        request: Request<Incoming>,
        answer: impl Fn(Q) -> (String, Result<A, Status>),
    ) -> Response<Body>
    where
        Q: Message + Default + 'static,
        A: Message + 'static,
    {
        let path = request.uri().path().trim_start_matches("/etcdserverpb.").to_owned();
        unary(request, |asked| {
            let (what, said) = answer(asked);
            self.asked.lock().unwrap().push(format!("{path} {what}").trim_end().to_owned());
            std::future::ready(said)
        })
        .await
    }
}

/// Answers of a member, which knows no member 0xdead.
async fn answer(state: Arc<State>, request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let (service, method) = path.rsplit_once('/').unwrap();
    match service {
        "/etcdserverpb.Maintenance" => maintenance(&state, method, request).await,
        "/etcdserverpb.Cluster" => cluster(&state, method, request).await,
        "/etcdserverpb.KV" => state.reply(request, range).await,
        "" if method == "version" => {
            let said = r#"{"etcdserver":"3.6.8","etcdcluster":"3.6.0","storage":"3.6.0"}"#;
            Response::new(Body::new(http_body_util::Full::new(bytes::Bytes::from(said))))
        }
        _ => unimplemented("etcdserverpb", &path),
    }
}

async fn maintenance(state: &Arc<State>, method: &str, request: Request<Incoming>) -> Response<Body> {
    match method {
        "Status" => state.reply(request, |StatusRequest {}| (String::new(), Ok(status()))).await,
        "Defragment" => state.reply(request, |DefragmentRequest {}| (String::new(), Ok(DefragmentResponse {}))).await,
        "Downgrade" => state.reply(request, downgrade).await,
        "HashKV" => state.reply(request, hash).await,
        "Snapshot" => {
            let sent = tower::service_fn(|_: tonic::Request<SnapshotRequest>| {
                std::future::ready(Ok::<_, Status>(tonic::Response::new(snapshot(state.tail))))
            });
            Grpc::new(ProstCodec::default()).server_streaming(sent, request).await
        }
        _ => unimplemented("etcdserverpb.Maintenance", method),
    }
}

fn downgrade(asked: DowngradeRequest) -> (String, Result<DowngradeResponse, Status>) {
    let said = match asked.action() {
        DowngradeAction::Cancel => Err(refused(Code::FailedPrecondition, "no inflight downgrade job")),
        _ => Ok(DowngradeResponse { version: asked.version.clone() }),
    };
    (format!("{} {}", asked.action, asked.version), said)
}

fn hash(asked: HashKvRequest) -> (String, Result<HashKvResponse, Status>) {
    let said = match asked.revision {
        -1 => Err(Status::unimplemented("unknown method HashKV for service etcdserverpb.Maintenance")),
        _ => Ok(HashKvResponse { header: header(), hash: 7, compact_revision: 5, hash_revision: 0 }),
    };
    (asked.revision.to_string(), said)
}

fn range(asked: RangeRequest) -> (String, Result<RangeResponse, Status>) {
    let name = String::from_utf8_lossy(&asked.key).into_owned();
    let said = match name.as_str() {
        "no quorum" => Err(refused(Code::Unavailable, "request timed out")),
        _ => {
            let found = KeyValue { key: asked.key, mod_revision: 40, value: b"value".to_vec() };
            Ok(RangeResponse { header: header(), kvs: vec![found] })
        }
    };
    (format!("{name} {}", asked.limit), said)
}

async fn cluster(state: &State, method: &str, request: Request<Incoming>) -> Response<Body> {
    match method {
        "MemberList" => state.reply(request, list).await,
        "MemberAdd" => {
            let added = |MemberAddRequest { peer_urls, is_learner }| {
                let what = format!("{} {is_learner}", peer_urls.join(","));
                let member = proto::Member { id: 0xb2, peer_urls, is_learner, ..proto::Member::default() };
                (what, Ok(MemberAddResponse { member: Some(member) }))
            };
            state.reply(request, added).await
        }
        "MemberPromote" => {
            let behind = "can only promote a learner member which is in sync with leader";
            let promoted = |MemberPromoteRequest { id }| {
                let refused = refused(Code::FailedPrecondition, behind);
                (format!("{id:x}"), if id == 0xdead { Err(refused) } else { Ok(MemberPromoteResponse {}) })
            };
            state.reply(request, promoted).await
        }
        "MemberRemove" => {
            let removed = |MemberRemoveRequest { id }| {
                let refused = refused(Code::NotFound, "member not found");
                (format!("{id:x}"), if id == 0xdead { Err(refused) } else { Ok(MemberRemoveResponse {}) })
            };
            state.reply(request, removed).await
        }
        "MemberUpdate" => {
            let updated = |MemberUpdateRequest { id, peer_urls }| {
                (format!("{id:x} {}", peer_urls.join(",")), Ok(MemberUpdateResponse {}))
            };
            state.reply(request, updated).await
        }
        _ => unimplemented("etcdserverpb.Cluster", method),
    }
}

fn list(asked: MemberListRequest) -> (String, Result<MemberListResponse, Status>) {
    let urls = |port: u16| vec![format!("https://10.0.0.5:{port}")];
    let (peer_urls, client_urls) = (urls(2380), urls(2379));
    let one = proto::Member { id: 0xa1, name: "cp1".into(), peer_urls, client_urls, is_learner: false };
    (asked.linearizable.to_string(), Ok(MemberListResponse { header: header(), members: vec![one] }))
}

type Parts = stream::BoxStream<'static, Result<SnapshotResponse, Status>>;

fn snapshot(tail: Tail) -> Parts {
    let all = pieces(&database(SECTORS), PIECE).into_iter().map(|piece| {
        Ok(SnapshotResponse { remaining_bytes: piece.remaining, blob: piece.bytes, version: "3.6.0".into() })
    });
    let half = HALF as usize / PIECE;
    match tail {
        Tail::Whole => stream::iter(all).boxed(),
        Tail::Error => stream::iter(all.take(half).chain([Err(Status::internal("out of cheese"))])).boxed(),
        Tail::Pending => stream::iter(all.take(half)).chain(stream::pending()).boxed(),
    }
}
