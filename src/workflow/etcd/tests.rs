use std::path::Path;

use super::cluster::{Cluster, endpoint};
use super::defrag::{DefragError, Own, Which, defragment};
use super::overview::{Health, Overview, overview};
use super::restore::{RestoreError, Wanted, restore};
use super::save::{SaveError, look, save};
use crate::etcd::database::{Database, summary};
use crate::etcd::restore::{NewCluster, Revisions};
use crate::etcd::{MemberId, MemberRecord};
use crate::host::Paths;
use crate::host::disk::{Disk, HostDisk};
use crate::host::fs::{make_dirs, write_file};
use crate::host::tree::{HostTree, NoRecord};
use crate::testing::etcd::{FakeData, database, hash_of};
use crate::testing::etcd_cluster::FakeCluster;
use crate::testing::etcd_database::Builder;
use crate::testing::listing;
use crate::testing::power::{self, Loss};
use crate::testing::tree::{FaultyDisk, FaultyTree};

fn urls(ids: &[u64]) -> Vec<String> {
    ids.iter().map(|id| FakeCluster::url(*id)).collect()
}

async fn seen(cluster: &FakeCluster, asked: &[u64]) -> Overview {
    overview(&Cluster { connector: cluster, endpoints: &urls(asked) }).await.unwrap()
}

#[test]
fn an_endpoint_is_an_address_or_a_url() {
    for text in ["10.0.0.5:2379", "https://10.0.0.5:2379", "https://10.0.0.5:2379/"] {
        assert_eq!(endpoint(text).unwrap(), "https://10.0.0.5:2379");
    }
    assert_eq!(endpoint("[::1]:2379").unwrap(), "https://[::1]:2379");
    for text in ["", "10.0.0.5", "http://10.0.0.5:2379", "unix://x:1", "https://10.0.0.5:2379/v3", "a b:1"] {
        endpoint(text).unwrap_err();
    }
}

#[tokio::test]
async fn a_cluster_whose_members_all_answer_is_healthy() {
    let view = seen(&FakeCluster::of(3), &[1]).await;
    assert_eq!((view.health, view.problems.len()), (Health::Healthy, 0));
    assert_eq!(view.quorum_in_words(), "quorum: 3 of 3 voters answer, 2 needed");
    assert_eq!(view.members.iter().filter(|one| one.is_leader()).count(), 1);
}

#[tokio::test]
async fn a_cluster_is_judged_by_its_quorum_and_who_does_not_answer_is_named() {
    let cluster = FakeCluster::of(3);
    cluster.change(3, |member| member.away = true);
    let view = seen(&cluster, &[3, 2]).await;
    assert_eq!(view.health, Health::Degraded);
    assert_eq!(view.quorum_in_words(), "quorum: 2 of 3 voters answer, 2 needed");
    assert_eq!(view.problems, ["cp3 does not answer: etcd at 10.0.0.3:2379 cannot be reached: Connection refused"]);

    cluster.change(2, |member| member.away = true);
    let view = seen(&cluster, &[1]).await;
    assert_eq!(view.health, Health::NoQuorum);
    assert_eq!(view.quorum_in_words(), "quorum lost: 1 of 3 voters answers, 2 needed");
    assert!(view.problems[0].starts_with("cp1 reads nothing: "), "{:?}", view.problems);

    cluster.change(1, |member| member.status.leader = None);
    assert_eq!(seen(&cluster, &[1]).await.health, Health::NoQuorum);
    cluster.change(1, |member| member.away = true);
    let error = overview(&Cluster { connector: &cluster, endpoints: &urls(&[1, 9]) }).await.unwrap_err().to_string();
    assert!(error.contains("https://10.0.0.1:2379: ") && error.contains("https://10.0.0.9:2379: "), "{error}");
    assert!(error.contains("--endpoints"), "{error}");
}

#[tokio::test]
async fn alarms_lag_learners_and_strangers_are_seen() {
    let cluster = FakeCluster::of(3);
    cluster.change(2, |member| member.status.applied_index = 100);
    cluster.change(1, |member| {
        member.status.raft_index = 9000;
        member.status.applied_index = 9000;
        member.status.errors = vec!["memberID:3 alarm:NOSPACE ".into()];
    });
    cluster.change(3, |member| member.record.is_learner = true);
    let view = seen(&cluster, &[1]).await;
    assert_eq!((view.health, view.quorum.voters), (Health::Degraded, 2));
    let text = view.problems.join("\n");
    assert!(text.contains("cp2 is 8900 entries behind") && text.contains("alarm NOSPACE of cp3: "), "{text}");
    cluster.change(2, |member| member.status.member = MemberId(12));
    let text = seen(&cluster, &[1]).await.problems.join("\n");
    assert!(text.contains("cp2 does not answer: member c answers at https://10.0.0.2:2379"), "{text}");
    let unstarted = |member: &mut crate::testing::etcd_cluster::FakeMember| {
        member.record = MemberRecord { name: None, client_urls: vec![], ..member.record.clone() };
    };
    cluster.change(3, unstarted);
    let text = seen(&cluster, &[1]).await.problems.join("\n");
    assert!(text.contains("member 3 (https://10.0.0.3:2380) has not started"), "{text}");
}

async fn defragmented(cluster: &FakeCluster, which: Which, own: Option<Own<'_>>) -> Result<Vec<String>, DefragError> {
    let mut lines = Vec::new();
    let endpoints = urls(&[1]);
    let all = Cluster { connector: cluster, endpoints: &endpoints };
    let mut reported = |one: &super::defrag::Defragmented| {
        lines.push(format!("{} {}->{}", one.name, one.before >> 20, one.after >> 20));
    };
    defragment(&all, which, own, &mut reported).await?;
    Ok(lines)
}

#[tokio::test]
async fn members_are_defragmented_one_after_the_other_and_the_leader_last() {
    let cluster = FakeCluster::of(3);
    let lines = defragmented(&cluster, Which::All, None).await.unwrap();
    assert_eq!(lines, ["cp2 10->1", "cp3 10->1", "cp1 10->1"]);
    assert_eq!(cluster.asked("defragment"), ["cp2", "cp3", "cp1"]);
    let one = FakeCluster::of(3);
    assert_eq!(defragmented(&one, Which::One, None).await.unwrap(), ["cp1 10->1"]);
    assert_eq!(defragmented(&FakeCluster::of(1), Which::All, None).await.unwrap(), ["cp1 10->1"]);
}

#[tokio::test]
async fn nothing_is_defragmented_while_another_member_is_away_and_the_first_failure_ends_it() {
    let cluster = FakeCluster::of(3);
    cluster.change(3, |member| member.away = true);
    let error = defragmented(&cluster, Which::All, None).await.unwrap_err();
    assert!(matches!(&error, DefragError::NotNow { name, .. } if name == "cp2"), "{error}");
    assert!(error.to_string().contains("cp3 does not answer"), "{error}");
    assert_eq!(cluster.asked("defragment"), [""; 0]);

    cluster.change(3, |member| (member.away, member.refuses) = (false, vec!["defragment"]));
    let error = defragmented(&cluster, Which::All, None).await.unwrap_err();
    assert!(matches!(&error, DefragError::Etcd { name, .. } if name == "cp3"), "{error}");
    assert_eq!(cluster.asked("defragment"), ["cp2", "cp3"]);
}

/// A disk with so many bytes free.
fn full(free: u64) -> FaultyDisk {
    let disk = FaultyTree::new(HostTree::new(Paths::default(), NoRecord)).disk();
    disk.set_free(free);
    disk
}

#[tokio::test]
async fn a_member_is_not_defragmented_where_its_new_database_has_no_room() {
    let cluster = FakeCluster::of(1);
    let data_dir = Path::new("/var/lib/etcd");
    let error = defragmented(&cluster, Which::One, Some(Own { disk: &full(64 << 20), data_dir })).await.unwrap_err();
    let text = "defragmenting cp1 needs 65 MiB in /var/lib/etcd, where 64 MiB are free: make room there";
    assert_eq!(error.to_string(), text);
    defragmented(&cluster, Which::One, Some(Own { disk: &full(65 << 20), data_dir })).await.unwrap();
}

#[tokio::test]
async fn a_snapshot_takes_the_place_of_a_file_only_by_force_and_of_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("etcd.db");
    let etcd = FakeData::whole(&database(8));
    save(&etcd, &mut HostDisk, &file, false).await.unwrap();
    let error = save(&etcd, &mut HostDisk, &file, false).await.unwrap_err();
    assert_eq!(error.to_string(), format!("{} exists: name another file, or replace it with --force", file.display()));
    write_file(&file, b"old", 0o644).unwrap();
    save(&etcd, &mut HostDisk, &file, true).await.unwrap();
    assert_eq!(crate::etcd::snapshot::check(&file).unwrap().size, 8 * 512 + 32);

    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    for there in [Path::new("/dev/null"), dir.path(), &link] {
        assert!(matches!(look(there, true), Err(SaveError::NoFile { .. })), "{}", there.display());
    }
    let error = look(&dir.path().join("none/etcd.db"), false).unwrap_err().to_string();
    assert!(error.ends_with("none does not exist: make it first"), "{error}");
    look(Path::new("etcd-of-this-test.db"), false).unwrap();
}

/// A snapshot of a database of etcd, with its hash.
fn snapshot_in(dir: &Path) -> std::path::PathBuf {
    let mut builder = Builder::default();
    let meta = [("consistent_index", vec![0, 0, 0, 0, 0, 0, 9, 9]), ("term", vec![0, 0, 0, 0, 0, 0, 0, 4])];
    builder.bucket("meta", &meta.map(|(key, value)| (key.as_bytes().to_vec(), value)));
    builder.bucket("members", &[(b"abc".to_vec(), b"{}".to_vec())]);
    builder.bucket("members_removed", &[(b"def".to_vec(), b"removed".to_vec())]);
    builder.keys(&[(2, "a", false), (3, "b", false)]);
    let bytes = builder.bytes();
    let path = dir.join("etcd.db");
    write_file(&path, &[bytes.clone(), hash_of(&bytes)].concat(), 0o600).unwrap();
    path
}

fn restored(snapshot: &Path, data_dir: &Path, disk: &dyn Disk, skip_hash_check: bool) -> Result<(), RestoreError> {
    let cluster = NewCluster::parse("cp1=https://10.0.0.5:2380", "etcd-cluster").unwrap();
    let own = cluster.member("cp1").unwrap().0;
    let revisions = Revisions { bump: 1000 };
    restore(disk, &Wanted { snapshot, data_dir, cluster: &cluster, own, revisions, skip_hash_check })
}

#[test]
fn a_snapshot_becomes_a_data_directory_of_a_new_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let (snapshot, data) = (snapshot_in(dir.path()), dir.path().join("new/etcd"));
    restored(&snapshot, &data, &HostDisk, false).unwrap();
    let files = [
        "member/",
        "member/snap/",
        "member/snap/0000000000000001-0000000000000001.snap",
        "member/snap/db",
        "member/wal/",
        "member/wal/0000000000000000-0000000000000000.wal",
    ];
    assert_eq!(listing(&data), files);
    let database = Database::open(&data.join("member/snap/db")).unwrap();
    let members = database.small_bucket("members").unwrap();
    assert_eq!(members.len(), 1);
    let id = u64::from_str_radix(std::str::from_utf8(&members[0].0).unwrap(), 16).unwrap();
    let json = format!(r#"{{"id":{id},"peerURLs":["https://10.0.0.5:2380"],"name":"cp1"}}"#);
    assert_eq!(std::str::from_utf8(&members[0].1), Ok(json.as_str()));
    assert_eq!(database.small_bucket("members_removed").unwrap(), []);
    let meta = database.small_bucket("meta").unwrap();
    let numbers: Vec<_> = meta.iter().map(|(key, value)| (std::str::from_utf8(key).unwrap(), value[7])).collect();
    assert_eq!(numbers, [("consistent_index", 1), ("scheduledCompactRev", 0xeb), ("term", 1)]);
    assert_eq!(summary(&data.join("member/snap/db")).unwrap().revision, 1003);
    let mode = |path: &Path| std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions()) & 0o777;
    assert_eq!((mode(&data), mode(&data.join("member/snap/db"))), (0o700, 0o600));

    let error = restored(&snapshot, &data, &HostDisk, false).unwrap_err().to_string();
    assert!(error.contains("is not empty (member is in it)") && error.contains(".before`"), "{error}");
}

#[test]
fn a_restore_that_fails_leaves_what_was_there() {
    let dir = tempfile::tempdir().unwrap();
    let (snapshot, data) = (snapshot_in(dir.path()), dir.path().join("etcd"));
    let whole = std::fs::read(&snapshot).unwrap();
    assert!(matches!(restored(&snapshot, &data, &full(64 << 20), false), Err(RestoreError::NoRoom { .. })));
    let none = restored(&dir.path().join("none"), &data, &HostDisk, false).unwrap_err();
    assert!(matches!(none, RestoreError::File(_)), "{none}");
    let mut bad = whole.clone();
    *bad.last_mut().unwrap() ^= 1;
    write_file(&snapshot, &bad, 0o600).unwrap();
    assert!(matches!(restored(&snapshot, &data, &HostDisk, false), Err(RestoreError::Snapshot(_))));
    // A copied database has no hash.
    write_file(&snapshot, &whole[..whole.len() - 32], 0o600).unwrap();
    assert!(matches!(restored(&snapshot, &data, &HostDisk, false), Err(RestoreError::Snapshot(_))));
    write_file(&snapshot, &database(64), 0o600).unwrap();
    assert!(matches!(restored(&snapshot, &data, &HostDisk, true), Err(RestoreError::Database(_))));
    assert!(!data.exists(), "{:?}", listing(dir.path()));

    make_dirs(&data.join(".kubeboot-restore/snap"), 0o700).unwrap();
    make_dirs(&data.join("lost+found"), 0o700).unwrap();
    write_file(&snapshot, &bad, 0o600).unwrap();
    assert!(restored(&snapshot, &data, &HostDisk, false).is_err());
    assert_eq!(listing(&data), ["lost+found/"]);
    restored(&snapshot, &data, &HostDisk, true).unwrap();
    write_file(&snapshot, &whole[..whole.len() - 32], 0o600).unwrap();
    restored(&snapshot, &dir.path().join("other"), &HostDisk, true).unwrap();
}

/// Every file below a directory, with its content.
fn contents(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let files = listing(dir).into_iter().filter(|name| !name.ends_with('/'));
    files.map(|name| (name.clone(), std::fs::read(dir.join(name)).unwrap())).collect()
}

#[test]
fn whenever_the_power_goes_the_data_are_whole_or_the_same_command_makes_them() {
    let aside = tempfile::tempdir().unwrap();
    let snapshot = snapshot_in(aside.path());
    restored(&snapshot, &aside.path().join("whole"), &HostDisk, false).unwrap();
    let whole = contents(&aside.path().join("whole"));
    for n in 1.. {
        let dir = crate::testing::tempdir_in_memory();
        let data = dir.path().join("etcd");
        let disk = power::Disk::cut_before(dir.path(), n);
        restored(&snapshot, &data, &HostDisk, false).unwrap();
        if !disk.was_cut() {
            assert!(n > 8, "only {n} syncs");
            return;
        }
        for loss in [Loss::All, Loss::Contents] {
            disk.restore(loss);
            match restored(&snapshot, &data, &HostDisk, false) {
                Ok(()) | Err(RestoreError::NotEmpty { .. }) => {}
                Err(error) => panic!("cut before sync {n}, {loss:?}: {error}"),
            }
            assert!(contents(&data) == whole, "cut before sync {n}, {loss:?}: {:?}", listing(&data));
        }
    }
}
