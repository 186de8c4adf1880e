mod server;

use std::time::Duration;

use futures::StreamExt;

use self::server::{Server, Tail};
use super::*;
use crate::config::spec::{Arg, EtcdSpec};
use crate::error::chain;
use crate::host::Paths;
use crate::host::disk::HostDisk;
use crate::testing::etcd::{certificates, database, member, part_size, pieces};
use crate::testing::listing;

#[test]
fn minor_versions_are_those_of_versions_and_of_tags() {
    for text in ["3.6", "3.6.8", "v3.6.8", "3.6.8-0", "3.6.8-0-mine"] {
        assert_eq!(Minor::of(text), Some(Minor { major: 3, minor: 6 }), "{text}");
    }
    for text in ["", "3", "v1", "latest", "a.b.c", "3.x.1"] {
        assert_eq!(Minor::of(text), None, "{text}");
    }
    assert_eq!(Minor::of("3.6.8").unwrap().target(), "3.6.0");
    assert!(Minor::of("3.10").unwrap() > Minor::of("3.9").unwrap());
}

#[test]
fn the_member_of_a_node_is_where_its_manifest_has_it_listen() {
    let mut spec = crate::testing::spec();
    let paths = Paths::new("/mnt");
    let member = Member::of(&spec, &paths);
    assert_eq!((member.host.as_str(), member.port), ("127.0.0.1", 2379));
    assert_eq!(member.key, std::path::Path::new("/mnt/etc/kubernetes/pki/etcd/healthcheck-client.key"));
    let EtcdSpec::Local(local) = &mut spec.etcd else { unreachable!() };
    let urls = "https://[::1]:12379,https://10.0.0.5:12379";
    local.component.extra_args.push(Arg { name: "listen-client-urls".into(), value: urls.into() });
    let member = Member::of(&spec, &paths);
    assert_eq!((member.host.as_str(), member.port), ("::1", 12379));
    let other = member.at("https://10.0.0.6:2379").unwrap();
    assert_eq!((other.host.as_str(), other.port, &other.key), ("10.0.0.6", 2379, &member.key));
    for url in ["https://10.0.0.6", "", "a b", "unix://x"] {
        assert_eq!(member.at(url), None, "{url}");
    }
}

#[tokio::test]
async fn a_member_that_is_not_there_is_named_with_its_address_and_the_cause() {
    let missing = Member { port: 1, ..Member::of(&crate::testing::spec(), &Paths::new("/nonexistent-kubeboot")) };
    let text = chain(&missing.status().await.unwrap_err());
    assert!(text.contains("127.0.0.1:1 cannot be reached") && text.contains("cannot read /nonexistent"), "{text}");
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    let text = chain(&member(dir.path(), 1).status().await.unwrap_err());
    assert!(text.starts_with("etcd at 127.0.0.1:1 cannot be reached: Connection refused"), "{text}");
}

#[tokio::test]
async fn a_member_says_what_it_is() {
    let server = Server::start(Tail::Whole).await;
    let status = server.member().status().await.unwrap();
    let expected = Status {
        cluster: 0xc1,
        member: MemberId(0xa1),
        version: "3.6.8".into(),
        storage: Minor::of("3.6"),
        leader: Some(MemberId(0xa1)),
        is_learner: false,
        revision: 42,
        raft_term: 3,
        raft_index: 1001,
        applied_index: 1000,
        db_size: 8192,
        db_in_use: 4096,
        db_quota: Some(2 << 30),
        errors: vec!["memberID:161 alarm:NOSPACE".into()],
    };
    assert_eq!(status, expected);
    assert_eq!(status.member.to_string(), "a1");
    assert_eq!(server.member().cluster_version().await.unwrap(), Minor::of("3.6"));
}

#[tokio::test]
async fn what_is_asked_of_a_member_reaches_it_and_its_answers_are_read() {
    let server = Server::start(Tail::Whole).await;
    let etcd = server.member();
    etcd.downgrade(Downgrade::Enable, Minor::of("3.6").unwrap()).await.unwrap();
    etcd.defragment().await.unwrap();
    let hash = KvHash { hash: 7, revision: 42, compacted: Some(5) };
    assert_eq!(etcd.hash(None).await.unwrap(), hash, "etcd before 3.6 names no revision");
    assert_eq!(etcd.hash(Some(30)).await.unwrap(), KvHash { revision: 30, ..hash });
    let answer = etcd.read(b"/registry/x").await.unwrap();
    assert_eq!(answer, Answer { by: MemberId(0xa1), revision: 42, value: Some(b"value".to_vec()) });
    let voter = MemberRecord {
        id: MemberId(0xa1),
        name: Some("cp1".into()),
        peer_urls: vec!["https://10.0.0.5:2380".into()],
        client_urls: vec!["https://10.0.0.5:2379".into()],
        is_learner: false,
    };
    assert_eq!(etcd.list().await.unwrap(), [voter]);
    let urls = vec!["https://10.0.0.6:2380".to_owned()];
    let learner = etcd.add_learner(&urls).await.unwrap();
    assert_eq!((learner.id, learner.name, learner.is_learner), (MemberId(0xb2), None, true));
    etcd.update(MemberId(0xb2), &urls).await.unwrap();
    etcd.promote(MemberId(0xb2)).await.unwrap();
    etcd.remove(MemberId(0xb2)).await.unwrap();
    let asked = server.asked();
    let expected = [
        "Maintenance/Downgrade 1 3.6.0",
        "Maintenance/Defragment",
        "Maintenance/HashKV 0",
        "Maintenance/HashKV 30",
        "KV/Range /registry/x 1",
        "Cluster/MemberList true",
        "Cluster/MemberAdd https://10.0.0.6:2380 true",
        "Cluster/MemberUpdate b2 https://10.0.0.6:2380",
        "Cluster/MemberPromote b2",
        "Cluster/MemberRemove b2",
    ];
    assert_eq!(asked, expected);
}

#[tokio::test]
async fn a_refusal_is_said_in_etcds_words_with_its_reason_and_what_to_do() {
    let server = Server::start(Tail::Whole).await;
    let etcd = server.member();
    let error = etcd.promote(MemberId(0xdead)).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::LearnerBehind));
    let address = format!("127.0.0.1:{}", etcd.port);
    let text = "can only promote a learner member which is in sync with leader; it has to run, and to catch up with the \
                leader first";
    assert_eq!(chain(&error), format!("etcd at {address} refuses to let a learner vote: {text}"));
    let error = etcd.remove(MemberId(0xdead)).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::NoSuchMember));
    let error = etcd.downgrade(Downgrade::Cancel, Minor::of("3.6").unwrap()).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::NoDowngrade));
    assert!(error.to_string().contains("refuses to cancel the downgrade of its data: no inflight"), "{error}");
    let error = etcd.read(b"no quorum").await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::NoQuorum), "it was reached, and says so itself");
    let error = etcd.hash(Some(-1)).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::Unsupported), "{error}");
}

#[tokio::test]
async fn tls_that_is_refused_says_by_whom_and_which_file_is_wrong() {
    let server = Server::start(Tail::Whole).await;
    let (dir, good) = (server.dir(), server.member());
    // A server that another authority has signed.
    let error = Member { ca: dir.join("other-ca.crt"), ..good.clone() }.status().await.unwrap_err();
    assert!(matches!(error, EtcdError::NotTrusted { .. }), "{error:?}");
    let text = chain(&error);
    assert!(text.contains("/other-ca.crt: invalid peer certificate") && text.contains(&server.address()), "{text}");
    // A certificate that is not for this address.
    let error = Member { host: "localhost".into(), ..good.clone() }.status().await.unwrap_err();
    assert!(matches!(error, EtcdError::NotTrusted { .. }), "{error:?}");
    // A client that another authority has signed: the server says so after the handshake.
    let other = Member { certificate: dir.join("other-client.crt"), key: dir.join("other-client.key"), ..good.clone() };
    let errors = [other.status().await.unwrap_err(), other.snapshot().await.err().unwrap()];
    for error in errors {
        assert!(matches!(error, EtcdError::NotTaken { .. }), "{error:?}");
        let text = chain(&error);
        assert!(text.contains("does not take the client certificate") && text.contains("/other-client.crt"), "{text}");
        assert!(text.contains("received fatal alert"), "{text}");
    }
    // A key that is of another certificate.
    let error = Member { key: dir.join("other-client.key"), ..good.clone() }.status().await.unwrap_err();
    assert!(matches!(error, EtcdError::Unreachable { .. }), "{error:?}");
    good.status().await.unwrap();
    assert_eq!(server.asked(), ["Maintenance/Status"], "only the last one got that far");
}

#[tokio::test]
async fn a_snapshot_is_streamed_into_a_file() {
    let server = Server::start(Tail::Whole).await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("etcd.db");
    let saved = snapshot::save(&server.member(), &mut HostDisk, &path).await.unwrap();
    assert_eq!((saved.version.as_str(), saved.storage), ("3.6.8", Minor::of("3.6")));
    assert_eq!(snapshot::check(&path).unwrap(), saved.snapshot);
    assert_eq!(std::fs::read(&path).unwrap()[..server::SECTORS * 512], database(server::SECTORS));
    let sent: Vec<_> = server.member().snapshot().await.unwrap().collect().await;
    assert_eq!(sent.len(), pieces(&database(server::SECTORS), server::PIECE).len());
}

/// Saves what `server` sends, which does not end, while `meanwhile` goes on, and expects nothing to be left.
async fn cut_off(server: &Server, meanwhile: impl AsyncFn(&Path)) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("etcd.db");
    let (etcd, mut disk) = (server.member(), HostDisk);
    let both = async { tokio::join!(snapshot::save(&etcd, &mut disk, &path), meanwhile(dir.path())).0 };
    let ended = tokio::time::timeout(Duration::from_secs(60), both).await;
    let error = ended.expect("an end").unwrap_err();
    assert!(matches!(error, snapshot::SnapshotError::Cut { received, .. } if received > 0), "{error:?}");
    assert_eq!(listing(dir.path()), [""; 0]);
    chain(&error)
}

#[tokio::test]
async fn a_snapshot_whose_connection_breaks_or_whose_etcd_gives_up_or_falls_silent_leaves_nothing() {
    let server = Server::start(Tail::Error).await;
    let text = cut_off(&server, async |_| ()).await;
    assert!(text.ends_with("refuses to send a snapshot: out of cheese"), "{text}");

    let server = Server::start(Tail::Pending).await;
    let text = cut_off(&server, async |dir| {
        while part_size(dir) < Some(100_000) {
            tokio::task::yield_now().await;
        }
        server.break_off();
    })
    .await;
    assert!(text.contains(&format!("etcd at {} cannot be reached", server.address())), "{text}");

    let server = Server::start(Tail::Pending).await;
    let text = cut_off(&server, async |dir| {
        // All that is sent: the next one is waited for then.
        while part_size(dir) < Some(server::HALF) {
            tokio::task::yield_now().await;
        }
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(31)).await;
    })
    .await;
    assert!(text.ends_with("cannot be reached: no answer within 30 s"), "{text}");
}
