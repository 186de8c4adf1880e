//! The client of etcd against real ones: the `etcd` on the PATH, or that which `KUBEBOOT_TEST_ETCD_PROGRAM` names (and
//! `KUBEBOOT_TEST_ETCD_NEXT` the one that it is upgraded to). Needs neither root nor a container runtime.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test")]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt;
use kubeboot::error::chain;
use kubeboot::etcd::database::summary;
use kubeboot::etcd::restore::{NewCluster, Revisions};
use kubeboot::etcd::wal::{self, LogFile, Moment};
use kubeboot::etcd::{
    Downgrade, Etcd, EtcdError, Maintenance, Member, MemberId, Membership, Minor, Reason, Status, ensure_learner,
    ensure_promoted, ensure_removed, snapshot,
};
use kubeboot::host::disk::{Disk, HostDisk};
use kubeboot::testing::etcd::{certificates, member};
use kubeboot::testing::real::ports;
use kubeboot::testing::real::wait::{LIMIT, eventually, until_or};
use kubeboot::workflow::etcd::cluster::Cluster;
use kubeboot::workflow::etcd::defrag::{Defragmented, Which, defragment};
use kubeboot::workflow::etcd::overview::{Health, overview};
use kubeboot::workflow::etcd::restore::{Wanted, restore};

fn program() -> PathBuf {
    let named = std::env::var_os("KUBEBOOT_TEST_ETCD_PROGRAM").map(PathBuf::from);
    named.or_else(|| which::which("etcd").ok()).unwrap_or_else(|| {
        panic!("these tests need etcd: apt-get install etcd-server, or name one by KUBEBOOT_TEST_ETCD_PROGRAM")
    })
}

/// A member that runs until it is dropped.
struct Running {
    name: &'static str,
    home: PathBuf,
    process: Child,
    client: u16,
    /// Clients without TLS: what these tests write with.
    plain: u16,
    peer: u16,
}

impl Running {
    /// Starts one with the certificates in `home`, next to `others`, if there are any, which know it already.
    fn start(home: &Path, name: &'static str, peer: u16, others: &[&Self]) -> Self {
        Self::start_as(&program(), home, name, peer, others)
    }

    fn start_as(program: &Path, home: &Path, name: &'static str, peer: u16, others: &[&Self]) -> Self {
        let (client, plain) = (ports::free(), ports::free());
        let url = |port: u16| format!("https://127.0.0.1:{port}");
        let file = |name: &str| home.join(name).display().to_string();
        let cluster: Vec<String> = others
            .iter()
            .map(|one| (one.name, one.peer))
            .chain([(name, peer)])
            .map(|(name, port)| format!("{name}={}", url(port)))
            .collect();
        let state = if others.is_empty() { "new" } else { "existing" };
        let log = File::create(home.join(format!("{name}.log"))).unwrap();
        let process = Command::new(program)
            // So that the log does not begin with its first entry.
            .args(["--snapshot-count", "20"])
            .args(["--name", name, "--data-dir", &file(&format!("{name}.etcd")), "--logger", "zap"])
            .args(["--listen-client-urls", &format!("{},http://127.0.0.1:{plain}", url(client))])
            .args(["--advertise-client-urls", &url(client), "--listen-peer-urls", &url(peer)])
            .args(["--initial-advertise-peer-urls", &url(peer), "--initial-cluster", &cluster.join(",")])
            .args(["--initial-cluster-state", state, "--cert-file", &file("server.crt")])
            .args(["--key-file", &file("server.key"), "--trusted-ca-file", &file("ca.crt"), "--client-cert-auth"])
            .args(["--peer-cert-file", &file("server.crt"), "--peer-key-file", &file("server.key")])
            .args(["--peer-trusted-ca-file", &file("ca.crt"), "--peer-client-cert-auth"])
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self { name, home: home.to_owned(), process, client, plain, peer }
    }

    /// As it is asked with the right certificate.
    fn member(&self) -> Member {
        member(&self.home, self.client)
    }

    /// Waits until it says what is looked for.
    async fn says(&self, what: &str, look: impl Fn(&Status) -> bool) -> Status {
        let etcd = self.member();
        let seen = async || match etcd.status().await {
            Ok(status) if look(&status) => Ok(status),
            Ok(status) => Err(format!("{status:?}")),
            Err(error) => Err(chain(&error)),
        };
        eventually(what, LIMIT, seen).await
    }

    /// Writes a key, and returns whether that was acknowledged.
    fn put(&self, key: &str, value: &[u8]) -> bool {
        put(self.plain, key, value)
    }

    fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("{}", fs::read_to_string(self.home.join(format!("{}.log", self.name))).unwrap_or_default());
        }
    }
}

fn put(port: u16, key: &str, value: &[u8]) -> bool {
    let body = format!(r#"{{"key":"{}","value":"{}"}}"#, STANDARD.encode(key), STANDARD.encode(value));
    let asked = || {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        let head = format!("POST /v3/kv/put HTTP/1.0\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all((head + &body).as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.lines().next().map(|line| line.ends_with("200 OK"))
    };
    asked() == Some(true)
}

/// A cluster of one, which leads itself.
async fn one() -> (tempfile::TempDir, Running) {
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    let etcd = Running::start(dir.path(), "m1", ports::free(), &[]);
    serves(&etcd).await;
    (dir, etcd)
}

async fn serves(etcd: &Running) {
    etcd.says("a leader", |status| status.leader.is_some()).await;
    until_or("a write", LIMIT, || etcd.put("first", b"1"), String::new);
}

/// Some megabytes, more than is on its way at a time.
fn fill(etcd: &Running) {
    for n in 0..40_u8 {
        assert!(etcd.put(&format!("bulk-{n}"), &[n; 256 << 10]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_taken_while_etcd_is_written_to_and_has_every_write_from_before() {
    let (dir, etcd) = one().await;
    fill(&etcd);
    let before: Vec<String> = (0..20).map(|n| format!("key-before-{n}-")).collect();
    assert!(before.iter().all(|key| etcd.put(key, key.as_bytes())));
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, port) = (Arc::clone(&stop), etcd.plain);
    let writer = std::thread::spawn(move || {
        let mut acknowledged = 0;
        while !stopped.load(Ordering::SeqCst) {
            acknowledged += usize::from(put(port, &format!("key-meanwhile-{acknowledged}-"), b"x"));
        }
        acknowledged
    });
    // Where it stays for a look by hand.
    let place = std::env::var_os("KUBEBOOT_TEST_SNAPSHOT").map_or_else(|| dir.path().join("etcd.db"), PathBuf::from);
    let saved = snapshot::save(&etcd.member(), &mut HostDisk, &place).await.unwrap();
    stop.store(true, Ordering::SeqCst);
    let meanwhile = writer.join().unwrap();
    assert_eq!(snapshot::check(&place).unwrap(), saved.snapshot);
    let bytes = fs::read(&place).unwrap();
    assert_eq!(bytes.len() as u64, saved.snapshot.size);
    assert!(bytes.len() > 10 << 20, "{} bytes", bytes.len());
    let text = String::from_utf8_lossy(&bytes);
    let missing: Vec<&String> = before.iter().filter(|key| !text.contains(key.as_str())).collect();
    assert_eq!(missing, [""; 0]);
    let status = etcd.says("its version", |_| true).await;
    assert_eq!((&saved.version, saved.storage), (&status.version, status.storage));
    eprintln!("etcd {}: {} bytes, {meanwhile} writes meanwhile", saved.version, bytes.len());
}

/// A data directory of a snapshot and the log of `data` up to `moment`, as an upgrade puts it back.
fn assemble(data: &Path, snapshot: &Path, state: Option<LogFile>, moment: Moment) -> PathBuf {
    let kept = data.with_extension("kept");
    for dir in ["member/snap", wal::LOG] {
        fs::create_dir_all(kept.join(dir)).unwrap();
    }
    for LogFile { path, length } in state.into_iter().chain(wal::log_of(data, moment).unwrap()) {
        HostDisk.copy_beginning(&data.join(&path), &kept.join(&path), length, &data.join(&path)).unwrap();
    }
    let length = fs::metadata(snapshot).unwrap().len() - snapshot::HASH as u64;
    HostDisk.copy_beginning(snapshot, &kept.join("member/snap/db"), length, snapshot).unwrap();
    fs::set_permissions(&kept, fs::metadata(data).unwrap().permissions()).unwrap();
    kept
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_and_the_log_of_what_came_after_are_the_data_as_the_old_etcd_has_left_them() {
    let (dir, mut old) = one().await;
    fill(&old);
    let (data, place) = (dir.path().join("m1.etcd"), dir.path().join("etcd.db"));
    let status = old.says("its data", |status| status.db_in_use > 10 << 20).await;
    let (begin, state) = wal::begin_of(&data, status.applied_index).unwrap();
    assert!(begin > 0 && state.is_some());
    snapshot::save(&old.member(), &mut HostDisk, &place).await.unwrap();
    let moment = Moment { term: old.member().status().await.unwrap().raft_term, begin };
    assert!(old.put("behind the snapshot", b"x"));
    old.kill();

    let next = std::env::var_os("KUBEBOOT_TEST_ETCD_NEXT").map_or_else(program, PathBuf::from);
    let mut new = Running::start_as(&next, dir.path(), "m1", old.peer, &[]);
    let own = new.says("a leader", |status| status.leader.is_some()).await.minor().unwrap();
    if own >= Minor::of("3.6").unwrap() {
        new.says("its own format", |status| status.storage == Some(own)).await;
    }
    assert!(new.put("of the next etcd", b"x"));
    new.kill();
    let kept = assemble(&data, &place, state, moment);
    let etcd = old.member();
    assert_eq!(etcd.writes_since(&kept, &data), Some(1));
    fs::rename(&data, dir.path().join("m1.next")).unwrap();
    fs::rename(&kept, &data).unwrap();

    let again = Running::start(dir.path(), "m1", old.peer, &[]);
    let now = again.says("a leader", |status| status.leader.is_some()).await;
    assert_eq!((now.version, now.member, now.cluster), (status.version, status.member, status.cluster));
    let member = again.member();
    let value = async |key: String| member.read(key.as_bytes()).await.unwrap().value;
    assert!(value("behind the snapshot".into()).await.is_some());
    assert_eq!(value("of the next etcd".into()).await, None);
    for n in 0..40 {
        assert_eq!(value(format!("bulk-{n}")).await.map(|value| value.len()), Some(256 << 10), "{n}");
    }
    serves(&again).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_that_is_killed_while_it_sends_a_snapshot_ends_it_with_an_error() {
    let (_dir, mut etcd) = one().await;
    fill(&etcd);
    let mut sent = etcd.member().snapshot().await.unwrap();
    let first = sent.next().await.unwrap().unwrap();
    assert!(first.remaining > 10 << 20, "{}", first.remaining);
    etcd.kill();
    let last = sent.fold(None, async |_, piece| Some(piece)).await.unwrap();
    let error = last.unwrap_err();
    assert!(matches!(error, EtcdError::Unreachable { .. }), "{}", chain(&error));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_etcd_says_what_it_is_and_does_what_it_is_asked() {
    let (_dir, etcd) = one().await;
    fill(&etcd);
    let member = etcd.member();
    // All of it is in the file: what is written goes there in batches.
    let before = etcd.says("its size", |status| status.db_in_use > 10 << 20).await;
    assert_eq!(before.leader, Some(before.member));
    assert!(before.cluster != 0 && before.raft_term > 0 && before.raft_index >= before.applied_index);
    assert!(before.db_in_use > 0 && before.db_in_use <= before.db_size, "{before:?}");
    assert_eq!(before.errors, [""; 0]);
    member.defragment().await.unwrap();
    assert!(member.status().await.unwrap().db_size <= before.db_size);
    let hash = member.hash(None).await.unwrap();
    assert_eq!(hash, member.hash(Some(hash.revision)).await.unwrap());
    assert!(etcd.put("one more", b"x"));
    assert_ne!(hash.hash, member.hash(None).await.unwrap().hash);
    let answer = member.read(b"first").await.unwrap();
    assert_eq!((answer.by, answer.value.as_deref()), (before.member, Some(&b"1"[..])));
    assert_eq!(member.read(b"none").await.unwrap().value, None);
    let version = before.minor().unwrap();
    let older = Minor { minor: version.minor - 1, ..version };
    match version >= Minor::of("3.6").unwrap() {
        true => {
            etcd.says("its own format", |status| status.storage == Some(version)).await;
            let validated = async || member.downgrade(Downgrade::Validate, older).await;
            eventually("the cluster's version", LIMIT, validated).await;
            // There is none to cancel, which 3.6 and 3.7 take for done.
            member.downgrade(Downgrade::Cancel, older).await.unwrap();
            let oldest = Minor { minor: version.minor - 2, ..version };
            let error = member.downgrade(Downgrade::Validate, oldest).await.unwrap_err();
            assert_eq!(error.reason(), Some(Reason::DowngradeTarget), "{error}");
        }
        false if version < Minor::of("3.5").unwrap() => {
            let error = member.downgrade(Downgrade::Validate, older).await.unwrap_err();
            assert_eq!(error.reason(), Some(Reason::Unsupported), "{error}");
        }
        false => assert_eq!(before.storage, None),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_etcd_and_its_client_refuse_certificates_and_the_file_is_named() {
    let (dir, etcd) = one().await;
    let good = etcd.member();
    let file = |name: &str| dir.path().join(name);
    let other = Member { certificate: file("other-client.crt"), key: file("other-client.key"), ..good.clone() };
    let error = other.status().await.unwrap_err();
    assert!(matches!(error, EtcdError::NotTaken { .. }), "{error:?}");
    assert!(chain(&error).contains("/other-client.crt"), "{}", chain(&error));
    let error = Member { ca: file("other-ca.crt"), ..good.clone() }.status().await.unwrap_err();
    assert!(matches!(error, EtcdError::NotTrusted { .. }), "{error:?}");
    good.status().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_learner_joins_catches_up_answers_by_itself_and_leaves() {
    let (dir, first) = one().await;
    fill(&first);
    let (cluster, peer) = (first.member(), ports::free());
    let urls = vec![format!("https://127.0.0.1:{peer}")];
    let learner = ensure_learner(&cluster, &urls).await.unwrap();
    assert_eq!(ensure_learner(&cluster, &urls).await.unwrap(), learner, "the reply was lost, so to speak");
    let error = ensure_promoted(&cluster, learner.id).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::LearnerBehind), "{error}");

    let second = Running::start(dir.path(), "m2", peer, &[&first]);
    let status = second.says("a leader", |status| status.leader.is_some()).await;
    assert_eq!((status.member, status.is_learner), (learner.id, true));
    let error = second.member().read(b"first").await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::IsLearner), "{error}");
    eventually("a vote", LIMIT, async || ensure_promoted(&cluster, learner.id).await).await;
    ensure_promoted(&cluster, learner.id).await.unwrap();
    let answer = eventually("an answer of its own", LIMIT, async || second.member().read(b"first").await).await;
    assert_eq!((answer.by, answer.value.as_deref()), (learner.id, Some(&b"1"[..])));
    let hash = cluster.hash(Some(answer.revision)).await.unwrap();
    assert_eq!(second.member().hash(Some(answer.revision)).await.unwrap(), hash);

    let members = cluster.list().await.unwrap();
    let there = members.iter().find(|one| one.id == learner.id).unwrap();
    assert_eq!((there.name.as_deref(), there.is_learner, &there.peer_urls), (Some("m2"), false, &urls));
    // Until it has seen all members for 5 s, etcd refuses.
    eventually("its removal", LIMIT, async || ensure_removed(&cluster, learner.id).await).await;
    ensure_removed(&cluster, learner.id).await.unwrap();
    assert_eq!(cluster.list().await.unwrap().len(), 1);
    assert!(first.put("alone again", b"x"));
}

/// A cluster of three that vote.
async fn three() -> (tempfile::TempDir, [Running; 3]) {
    let (dir, first) = one().await;
    let join = async |name: &'static str, others: &[&Running]| {
        let peer = ports::free();
        let urls = vec![format!("https://127.0.0.1:{peer}")];
        // Until it has seen all members for 5 s, etcd refuses.
        let add = async || ensure_learner(&first.member(), &urls).await;
        let learner = eventually("a learner", LIMIT, add).await;
        let member = Running::start(dir.path(), name, peer, others);
        eventually("a vote", LIMIT, async || ensure_promoted(&first.member(), learner.id).await).await;
        member
    };
    let second = join("m2", &[&first]).await;
    let third = join("m3", &[&first, &second]).await;
    for one in [&second, &third] {
        eventually("a read", LIMIT, async || one.member().read(b"first").await).await;
    }
    (dir, [first, second, third])
}

#[tokio::test(flavor = "multi_thread")]
async fn three_members_are_judged_by_their_quorum_and_defragmented_while_all_answer() {
    let (_dir, [first, mut second, mut third]) = three().await;
    fill(&first);
    for n in 0..40_u8 {
        assert!(first.put(&format!("bulk-{n}"), b"small"));
    }
    let (member, endpoints) = (first.member(), [first.member().url()]);
    let cluster = Cluster { connector: &member, endpoints: &endpoints };
    let view = overview(&cluster).await.unwrap();
    assert_eq!(view.quorum_in_words(), "quorum: 3 of 3 voters answer, 2 needed", "{:?}", view.problems);
    let leader = view.members.iter().find(|one| one.is_leader()).unwrap().name();

    let mut done: Vec<Defragmented> = Vec::new();
    defragment(&cluster, Which::All, None, &mut |one| done.push(one.clone())).await.unwrap();
    assert_eq!((done.len(), &done[2].name), (3, &leader), "the leader last");
    // What was overwritten is kept until it is compacted, so not much is given back.
    assert!(done.iter().all(|one| one.after <= one.before && one.after > 10 << 20), "{done:?}");

    third.kill();
    let view = overview(&cluster).await.unwrap();
    assert_eq!(view.health, Health::Degraded);
    assert_eq!(view.quorum_in_words(), "quorum: 2 of 3 voters answer, 2 needed");
    assert!(view.problems.iter().any(|line| line.starts_with("m3 does not answer: ")), "{:?}", view.problems);
    let refused = defragment(&cluster, Which::One, None, &mut |_| {}).await.unwrap_err().to_string();
    assert!(refused.contains("m3 does not answer"), "{refused}");

    second.kill();
    first.says("no leader", |status| status.leader.is_none()).await;
    let view = overview(&cluster).await.unwrap();
    assert_eq!(view.health, Health::NoQuorum);
    assert_eq!(view.quorum_in_words(), "quorum lost: 1 of 3 voters answers, 2 needed");
    assert_eq!(cluster.members().await.unwrap().members.len(), 3, "as the first one knows them");
}

/// Restores `snapshot` as the data of the member `name`.
fn restore_as(home: &Path, snapshot: &Path, name: &str, members: &str, bump: u64) -> MemberId {
    let cluster = NewCluster::parse(members, "etcd-cluster").unwrap();
    let own = cluster.member(name).unwrap().0;
    let data_dir = home.join(format!("{name}.etcd"));
    let (revisions, skip_hash_check) = (Revisions { bump }, false);
    let wanted = Wanted { snapshot, data_dir: &data_dir, cluster: &cluster, own, revisions, skip_hash_check };
    restore(&HostDisk, &wanted).unwrap();
    own
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_restored_as_a_cluster_of_one_and_of_two() {
    let (dir, mut old) = one().await;
    fill(&old);
    let before = old.says("its data", |_| true).await;
    let file = dir.path().join("etcd.db");
    snapshot::save(&old.member(), &mut HostDisk, &file).await.unwrap();
    let found = summary(&file).unwrap();
    assert_eq!((found.keys, found.revision, found.storage), (41, before.revision, before.storage));
    old.kill();
    let data = dir.path().join("m1.etcd");
    fs::rename(&data, dir.path().join("before")).unwrap();

    let alone = format!("m1=https://127.0.0.1:{}", old.peer);
    let own = restore_as(dir.path(), &file, "m1", &alone, 1_000_000);
    let mut again = Running::start(dir.path(), "m1", old.peer, &[]);
    let now = again.says("a leader", |status| status.leader.is_some()).await;
    assert_eq!(now.member, own);
    assert_eq!((now.member, now.cluster), (before.member, before.cluster), "as etcd derives them");
    let etcd = again.member();
    let answer = etcd.read(b"first").await.unwrap();
    assert_eq!(answer.value.as_deref(), Some(&b"1"[..]));
    assert_eq!(answer.revision, before.revision + 1_000_000);
    assert_eq!(etcd.hash(None).await.unwrap().compacted, Some(answer.revision));
    assert!(again.put("new", b"x"));
    let found = etcd.list().await.unwrap();
    assert_eq!((found.len(), found[0].id), (1, own));
    again.kill();
    // It has its own log and state by then.
    let again = Running::start(dir.path(), "m1", old.peer, &[]);
    again.says("a leader", |status| status.leader.is_some()).await;
    assert_eq!(again.member().read(b"new").await.unwrap().value.as_deref(), Some(&b"x"[..]));
    drop(again);

    fs::rename(&data, dir.path().join("again")).unwrap();
    let (one, two) = (old.peer, ports::free());
    let both = format!("m1=https://127.0.0.1:{one},m2=https://127.0.0.1:{two}");
    let ids = ["m1", "m2"].map(|name| restore_as(dir.path(), &file, name, &both, 0));
    let first = Running::start(dir.path(), "m1", one, &[]);
    let second = Running::start(dir.path(), "m2", two, &[]);
    for (etcd, id) in [(&first, ids[0]), (&second, ids[1])] {
        let status = etcd.says("a leader", |status| status.leader.is_some()).await;
        assert_eq!(status.member, id);
        let answer = eventually("a read", LIMIT, async || etcd.member().read(b"bulk-7").await).await;
        assert_eq!(answer.value.map(|value| value.len()), Some(256 << 10));
    }
    assert!(second.put("of two", b"x"));
    let at = Some(second.member().read(b"of two").await.unwrap().revision);
    let hash = first.member().hash(at).await.unwrap();
    assert_eq!(second.member().hash(at).await.unwrap(), hash);
}
