//! Where the copy of etcd's data is kept: on its own file system where it has one, and where there is room.

use super::etcd::{NEW, OLD, bench_with_files, images, lost, steps};
use super::*;
use crate::host::paths::TMP_DIR;
use crate::workflow::upgrade::backups::{Content, list};

const NAME: &str = "kubeadm-backup-etcd-2026-11-23-20-30-00";
const MIB: u64 = 1 << 20;

/// Where the copy of an upgrade is, on a machine with a file system at `mount`, and so many bytes free on the other.
async fn upgraded(mount: Option<(&'static str, u64)>, free: u64) -> (Bench, PathBuf) {
    let bench = Bench { mount, free, ..bench_with_files() };
    let outcome = bench.apply(&steps(&bench, NEW, "r/x:v2"), None).await.unwrap();
    assert!(matches!(outcome, Outcome::Upgraded { .. }), "{outcome:?}");
    let data = Journal::read(&bench.tree()).unwrap().unwrap().etcd_data.unwrap();
    let dir = data.to.parent().unwrap().to_owned();
    assert!(bench.root.path().join(data.to.strip_prefix("/").unwrap()).join("snapshot.db").exists());
    (bench, dir)
}

#[tokio::test(start_paused = true)]
async fn the_copy_is_on_the_file_system_of_etcds_data_and_kubeadms_place_is_for_all_else() {
    for (mount, free, expected) in [
        (None, u64::MAX, TMP_DIR),
        (Some(("var/lib/etcd", u64::MAX)), 0, "/var/lib/etcd"),
        (Some(("var/lib", u64::MAX)), 0, "/var/lib"),
        (Some(("var/lib/etcd", 10 * MIB)), u64::MAX, TMP_DIR),
    ] {
        let (bench, dir) = upgraded(mount, free).await;
        assert_eq!(dir, Path::new(expected).join(NAME));
        let all = list(&Paths::new(bench.root.path())).unwrap();
        let parts: Vec<_> =
            all.iter().flat_map(|one| &one.parts).filter(|part| part.content == Content::EtcdData).collect();
        assert_eq!(parts.iter().map(|part| &part.path).collect::<Vec<_>>(), [&dir]);
        assert!(all[0].needed && parts[0].size > 4096);
    }
}

#[tokio::test(start_paused = true)]
async fn a_copy_among_etcds_data_goes_back_and_is_no_part_of_the_next_copy() {
    let (bench, dir) = upgraded(Some(("var/lib/etcd", u64::MAX)), 0).await;
    bench.roll_back(&mut bench.tree(), Aim::Copy).await.unwrap();
    assert_eq!(images(&bench)[0], OLD);
    assert!(lost(&bench).iter().all(|write| !["a0", "a1"].contains(&write.as_str())), "{:?}", lost(&bench));
    let dir = Paths::new(bench.root.path()).on_host(dir);
    assert!(dir.exists());
    let outcome = bench.apply(&steps(&bench, NEW, "r/x:v2"), None).await.unwrap();
    assert!(matches!(outcome, Outcome::Upgraded { .. }), "{outcome:?}");
    let copied = crate::testing::listing(&dir);
    assert!(copied.iter().all(|path| !path.contains("kubeadm-backup")), "{copied:?}");
}

#[tokio::test(start_paused = true)]
async fn an_etcd_that_does_not_serve_is_copied_there_too_and_its_data_come_back() {
    let bench = Bench { mount: Some(("var/lib/etcd", u64::MAX)), free: 0, ..Bench::new() };
    let images = BTreeMap::from([("kube-scheduler", "r/x:crash")]);
    bench.apply(&bench.steps(&images), None).await.unwrap();
    let copy = bench.root.path().join("var/lib/etcd").join(NAME).join("etcd/member/db");
    assert_eq!(std::fs::read(copy).unwrap(), b"data of v1");
    assert_eq!(bench.manifests(), all("r/x:v1"));
}

#[tokio::test(start_paused = true)]
async fn where_neither_has_room_both_are_named() {
    let bench = Bench { mount: Some(("var/lib/etcd", 10 * MIB)), free: 60 * MIB, ..bench_with_files() };
    let error = bench.apply(&steps(&bench, NEW, "r/x:v2"), None).await.unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "the copy of etcd's data needs 65 MiB in /var/lib/etcd/{NAME}, where 10 MiB are free, or in {TMP_DIR}/{NAME}, where \
             60 MiB are free: make room there, and run the same command again"
        )
    );
    assert!(Journal::read(&bench.tree()).unwrap().is_none());
}
