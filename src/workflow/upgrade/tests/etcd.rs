//! Upgrades across minor versions of etcd, whose data only go forward: nothing acknowledged is lost, wherever one fails or
//! is killed.

use super::super::etcd::Aim;
use super::super::manifest::{image, parse};
use super::fake_etcd::{AWAY, Db, FakeEtcd, MEMBER, PROCESS, STUCK};
use super::*;
use crate::etcd::{Downgrade, Etcd, Minor};
use crate::host::fs::write_file;
use crate::testing::etcd::database;
use crate::workflow::upgrade::order::record::Ending;
use crate::workflow::upgrade::run::TakenBack;

/// A machine whose etcd is `etcd` and whose other components have the image `rest`.
pub(super) fn bench(etcd: &str, rest: &str) -> Bench {
    let bench = Bench::empty();
    let mut tree = bench.tree();
    for component in COMPONENTS {
        let image = if component == "etcd" { etcd } else { rest };
        tree.write(&target(component, image).file, &manifest(component, image), 0o600).unwrap();
    }
    let storage = Minor::of(etcd.rsplit_once(':').unwrap().1);
    let mut db = Db { storage, goes_back: false, term: 1, index: 1, writes: vec!["w0".into()] };
    db.elect(bench.root.path());
    let process = manifest("etcd", etcd);
    write_file(&bench.root.path().join(PROCESS), &process, 0o600).unwrap();
    bench
}

/// The steps to `etcd`, with `rest` for the others.
pub(super) fn steps(bench: &Bench, etcd: &'static str, rest: &'static str) -> Vec<Step> {
    bench.steps(&COMPONENTS.iter().map(|c| (*c, if *c == "etcd" { etcd } else { rest })).collect())
}

pub(super) fn images(bench: &Bench) -> Vec<String> {
    let image_of = |content: &Vec<u8>| match content.is_empty() {
        true => String::new(),
        false => image(&parse(Path::new("x"), content).unwrap()).to_owned(),
    };
    bench.manifests().iter().map(image_of).collect()
}

/// Every write that was acknowledged and is not there.
pub(super) fn lost(bench: &Bench) -> Vec<String> {
    let there = Db::read(bench.root.path()).unwrap().writes;
    let log = std::fs::read_to_string(bench.root.path().join("acknowledged")).unwrap_or_default();
    log.split_whitespace().filter(|write| !there.iter().any(|one| one == write)).map(str::to_owned).collect()
}

pub(super) const OLD: &str = "r/etcd:3.6.8-0";
pub(super) const NEW: &str = "r/etcd:3.7.1-0";

#[tokio::test(start_paused = true)]
async fn an_etcd_that_has_served_stays_and_everything_else_goes_back() {
    for (old, new, version) in [(OLD, NEW, "3.7.1-0"), ("r/etcd:3.4.23", "r/etcd:3.5.16", "3.5.16")] {
        let bench = bench(old, "r/x:v1");
        let outcome = bench.apply(&steps(&bench, new, "r/x:crash"), None).await.unwrap();
        let Outcome::RolledBack { etcd, .. } = &outcome else { panic!("{outcome:?}") };
        assert_eq!((etcd.as_deref(), outcome.exit_code()), (Some(version), 2));
        assert_eq!(images(&bench), [new, "r/x:v1", "r/x:v1", "r/x:v1"]);
        assert_eq!(lost(&bench), [""; 0]);
        assert_eq!(Journal::read(&bench.tree()).unwrap().unwrap().etcd_kept.as_deref(), Some(version));
    }
}

#[tokio::test(start_paused = true)]
async fn a_rollback_takes_etcd_back_by_its_own_downgrade_and_loses_nothing() {
    for api in ["r/x:crash", "r/x:v2"] {
        let bench = bench(OLD, "r/x:v1");
        bench.apply(&steps(&bench, NEW, api), None).await.unwrap();
        assert_eq!(bench.rollback().await.etcd_kept, None, "{api}");
        assert_eq!(images(&bench), [OLD, "r/x:v1", "r/x:v1", "r/x:v1"], "{api}");
        assert_eq!(lost(&bench), [""; 0], "{api}");
        assert_eq!(Db::read(bench.root.path()).unwrap().storage, Minor::of("3.6"));
        // And again, with nothing left to do.
        assert_eq!(bench.rollback().await.etcd_kept, None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_downgrade_that_does_not_get_on_is_cancelled_and_the_new_etcd_stays_as_it_was() {
    let bench = bench(OLD, "r/x:v1");
    bench.apply(&steps(&bench, NEW, "r/x:v2"), None).await.unwrap();
    write_file(&bench.root.path().join(STUCK), b"", 0o600).unwrap();
    let begun = tokio::time::Instant::now();
    let journal = bench.rollback().await;
    assert_eq!(journal.etcd_kept.as_deref(), Some("3.7.1-0"));
    assert!((20..25).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    assert_eq!(images(&bench), [NEW, "r/x:v1", "r/x:v1", "r/x:v1"]);
    let db = Db::read(bench.root.path()).unwrap();
    assert_eq!((db.storage, db.goes_back), (Minor::of("3.7"), false), "no downgrade is left behind");
    assert_eq!(lost(&bench), [""; 0]);
    let ending = Ending::of_rollback(&TakenBack::ButEtcd { version: "3.7.1-0".into(), has_copy: true });
    assert_eq!(ending.code, 2);
    assert!(ending.hint.unwrap().contains("`kubeboot upgrade rollback --etcd-copy`"));
    // And the same command takes it back when it does get on.
    std::fs::remove_file(bench.root.path().join(STUCK)).unwrap();
    assert_eq!(bench.rollback().await.etcd_kept, None);
    assert_eq!(images(&bench)[0], OLD);
}

#[tokio::test(start_paused = true)]
async fn where_the_old_api_server_does_not_work_with_the_new_etcd_that_goes_back_too() {
    let bench = bench(OLD, "r/x:needs-3.6");
    let outcome = bench.apply(&steps(&bench, NEW, "r/x:crash"), None).await.unwrap();
    assert!(matches!(outcome, Outcome::RolledBack { etcd: None, .. }), "{outcome:?}");
    assert_eq!(images(&bench), [OLD, "r/x:needs-3.6", "r/x:needs-3.6", "r/x:needs-3.6"]);
    assert_eq!(lost(&bench), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_that_is_finished_after_a_rollback_was_cut_off_calls_the_downgrade_off() {
    let mut killed_at = 1;
    let bench = loop {
        let bench = bench(OLD, "r/x:v1");
        let work = Work { steps: steps(&bench, NEW, "r/x:v2"), ..Work::default() };
        let mut tree = bench.tree();
        tree.die_at(killed_at);
        let run = AssertUnwindSafe(bench.run(&work, &mut tree)).catch_unwind().await;
        assert!(run.is_err(), "never with the new etcd in place");
        if images(&bench)[0] == NEW {
            break bench;
        }
        killed_at += 1;
    };
    let etcd = FakeEtcd(bench.root.path().to_owned());
    etcd.downgrade(Downgrade::Enable, Minor::of("3.6").unwrap()).await.unwrap();
    let outcome = bench.apply(&steps(&bench, NEW, "r/x:v2"), None).await.unwrap();
    assert!(matches!(outcome, Outcome::Upgraded { .. }), "{outcome:?}");
    let db = Db::read(bench.root.path()).unwrap();
    assert_eq!((db.storage, db.goes_back), (Minor::of("3.7"), false));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_go_back_without_loss_does_so_only_when_that_is_asked_for() {
    let bench = bench("r/etcd:3.4.23", "r/x:needs-3.4");
    let outcome = bench.apply(&steps(&bench, "r/etcd:3.5.16", "r/x:crash"), None).await.unwrap();
    assert!(matches!(outcome, Outcome::Failed { .. }), "{outcome:?}");
    assert_eq!(lost(&bench), [""; 0]);
    assert!(bench.roll_back(&mut bench.tree(), Aim::Old).await.is_err());
    assert_eq!(lost(&bench), [""; 0]);

    let data = Journal::read(&bench.tree()).unwrap().unwrap().etcd_data.unwrap();
    let on_host = |path| Paths::new(bench.root.path()).on_host(path);
    let etcd = FakeEtcd(bench.root.path().to_owned());
    let writes = etcd.writes_since(&on_host(data.to), &on_host(data.from)).unwrap();
    assert!(writes > 1 && super::super::data::loss(Some(writes)).contains(&format!(": {writes} writes")));
    bench.roll_back(&mut bench.tree(), Aim::Copy).await.unwrap();
    assert_eq!(images(&bench)[0], "r/etcd:3.4.23");
    // And the one that is taken while it is looked at what runs.
    assert_eq!(lost(&bench).len(), usize::try_from(writes).unwrap() + 1);
}

#[tokio::test(start_paused = true)]
async fn an_etcd_that_never_served_gives_way_to_the_copy_and_nothing_is_lost_with_it() {
    for new in ["r/etcd:3.7.1-opens-crash", "r/etcd:crash", "r/etcd:3.6.9-crash"] {
        let bench = bench(OLD, "r/x:v1");
        let outcome = bench.apply(&steps(&bench, new, "r/x:v2"), None).await.unwrap();
        assert!(matches!(outcome, Outcome::RolledBack { etcd: None, .. }), "{new}: {outcome:?}");
        assert_eq!(images(&bench), [OLD, "r/x:v1", "r/x:v1", "r/x:v1"], "{new}");
        assert_eq!(lost(&bench), [""; 0], "{new}");
        assert_eq!(Db::read(bench.root.path()).unwrap().writes[0], "w0", "{new}");
    }
}

#[tokio::test(start_paused = true)]
async fn etcd_serves_until_its_successor_starts_and_the_copy_has_its_last_writes() {
    for (old, new) in [(OLD, NEW), ("r/etcd:3.4.23", "r/etcd:3.5.16")] {
        let bench = bench(old, "r/x:v1");
        let outcome = bench.apply(&steps(&bench, new, "r/x:v2"), None).await.unwrap();
        assert!(matches!(outcome, Outcome::Upgraded { .. }), "{outcome:?}");
        assert!(!bench.root.path().join(AWAY).exists(), "it was stopped before the new manifest was there");
        let data = Journal::read(&bench.tree()).unwrap().unwrap().etcd_data.unwrap();
        let snapshot = data.snapshot.as_ref().unwrap();
        assert!(snapshot.has_log && snapshot.moment.is_some_and(|moment| moment.term == 2), "{snapshot:?}");
        assert_eq!((data.version.as_deref(), data.served), (old.rsplit_once(':').map(|(_, tag)| tag), Some(true)));

        let acknowledged = std::fs::read_to_string(bench.root.path().join("acknowledged")).unwrap();
        bench.roll_back(&mut bench.tree(), Aim::Copy).await.unwrap();
        let db = Db::read(bench.root.path()).unwrap();
        // a0 behind the snapshot, a1 and more until it was stopped: what the new one took is lost, as was asked for.
        assert!(acknowledged.starts_with("a0 a1 ") && db.writes.starts_with(&["w0", "a0", "a1"].map(str::to_owned)));
        assert_eq!(images(&bench)[0], old);
        assert_eq!(Journal::read(&bench.tree()).unwrap().unwrap().etcd_data, None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_is_not_whole_any_more_is_not_put_back() {
    let other = [database(2), crate::testing::etcd::hash_of(&database(2))].concat();
    let damages = [("is no whole snapshot", b"short".to_vec()), ("is not the snapshot", other)];
    for (words, damage) in damages {
        let bench = bench(OLD, "r/x:v1");
        bench.apply(&steps(&bench, NEW, "r/x:v2"), None).await.unwrap();
        let journal = Journal::read(&bench.tree()).unwrap().unwrap();
        let copy = Paths::new(bench.root.path()).on_host(&journal.etcd_data.unwrap().to);
        write_file(&copy.join("snapshot.db"), &damage, 0o600).unwrap();
        let error = bench.roll_back(&mut bench.tree(), Aim::Copy).await.unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!((images(&bench)[0].as_str(), lost(&bench)), (NEW, vec![]));
    }
}

#[tokio::test(start_paused = true)]
async fn the_data_of_one_of_several_members_do_not_go_back() {
    let several = |bench: &Bench| write_file(&bench.root.path().join("several"), b"", 0o600).unwrap();
    let bench_one = bench(OLD, "r/x:v1");
    several(&bench_one);
    bench_one.apply(&steps(&bench_one, NEW, "r/x:v2"), None).await.unwrap();
    let error = bench_one.roll_back(&mut bench_one.tree(), Aim::Copy).await.unwrap_err().to_string();
    assert!(
        error.contains("etcd has more than one member") && error.contains("/etcd/snapshot.db is a snapshot"),
        "{error}"
    );
    assert_eq!(images(&bench_one)[0], NEW);

    let broken = bench(OLD, "r/x:v1");
    several(&broken);
    let outcome = broken.apply(&steps(&broken, "r/etcd:3.7.1-crash", "r/x:v2"), None).await.unwrap();
    assert!(matches!(outcome, Outcome::RolledBack { etcd: None, .. }), "{outcome:?}");
    assert_eq!((images(&broken)[0].as_str(), lost(&broken)), (OLD, vec![]));
}

#[tokio::test(start_paused = true)]
async fn an_etcd_that_would_not_open_the_data_is_refused_before_anything_is_touched() {
    for (old, new, words) in [
        ("r/etcd:3.5.16", "r/etcd:3.7.1", "etcd 3.7.1 does not open the data of etcd 3.5.16"),
        ("r/etcd:3.5.16", "r/etcd:3.7.1", "(here to 3.6)"),
        ("r/etcd:3.7.1", "r/etcd:3.6.8", "(none is known)"),
    ] {
        let bench = bench(old, "r/x:v1");
        let before = bench.state();
        let error = bench.apply(&steps(&bench, new, "r/x:v2"), None).await.unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        assert!(bench.state() == before && Journal::read(&bench.tree()).unwrap().is_none());
    }
}

/// Which of the old and the new whole the data are; anything else is neither.
fn whole(bench: &Bench, when: &str) {
    let db = Db::read(bench.root.path()).unwrap();
    assert!(db.writes.first().is_some_and(|first| first == "w0"), "{when}: half of the data: {db:?}");
    let member = crate::testing::listing(&bench.root.path().join(MEMBER));
    let is_whole = ["snap/", "snap/db", "wal/"].iter().all(|name| member.iter().any(|one| one == name));
    assert!(is_whole && member.len() == 5, "{when}: {member:?}");
}

/// A machine with more than one file of data.
pub(super) fn bench_with_files() -> Bench {
    let bench = bench(OLD, "r/x:v1");
    let state = Path::new("/").join(MEMBER).join("snap/0000000000000002-0000000000000001.snap");
    bench.tree().write(&state, b"bytes", 0o600).unwrap();
    bench
}

#[tokio::test(start_paused = true)]
async fn a_restore_that_fails_or_is_killed_at_any_step_is_finished_by_the_next_command() {
    const CRASHING: &str = "r/etcd:3.7.1-opens-crash";
    for (kills, again) in [(true, true), (true, false), (false, true), (false, false)] {
        let mut restored = 0;
        for n in 1.. {
            let when = format!("step {n}, killed: {kills}, again: {again}");
            let bench = bench_with_files();
            let mut tree = bench.tree();
            match kills {
                true => tree.die_at(n),
                false => tree.fail_at(n),
            }
            let crashing = steps(&bench, CRASHING, "r/x:v2");
            let work = Work { steps: crashing.clone(), ..Work::default() };
            let run = AssertUnwindSafe(bench.run(&work, &mut tree)).catch_unwind().await;
            whole(&bench, &when);
            if tree.changes() < n {
                break;
            }
            let journal = Journal::read(&bench.tree()).unwrap();
            restored += usize::from(journal.as_ref().is_some_and(Journal::is_restoring));
            let is_over = matches!(run, Ok(Ok(Outcome::RolledBack { .. }) | Err(_))) || journal.is_none();
            if again && !is_over {
                // The same command: it fails as before, and goes back by itself.
                let outcome = bench.run(&work, &mut bench.tree()).await.unwrap();
                assert!(matches!(outcome, Outcome::RolledBack { .. }), "{when}: {outcome:?}");
            } else if !is_over {
                bench.roll_back(&mut bench.tree(), Aim::Old).await.unwrap();
            }
            whole(&bench, &when);
            assert_eq!(images(&bench), [OLD, "r/x:v1", "r/x:v1", "r/x:v1"], "{when}");
            assert_eq!(
                (Db::read(bench.root.path()).unwrap().storage, lost(&bench)),
                (Minor::of("3.6"), vec![]),
                "{when}"
            );

            let outcome = bench.apply(&steps(&bench, NEW, "r/x:v2"), None).await.unwrap();
            assert!(matches!(outcome, Outcome::Upgraded { .. }), "{when}: {outcome:?}");
            whole(&bench, &when);
            assert_eq!(
                (Db::read(bench.root.path()).unwrap().storage, lost(&bench)),
                (Minor::of("3.7"), vec![]),
                "{when}"
            );
        }
        assert!(restored >= 6, "the restore was hit only {restored} times");
    }
}

#[tokio::test(start_paused = true)]
async fn wherever_an_upgrade_of_etcd_is_killed_a_rollback_ends_with_a_control_plane_that_lost_nothing() {
    for (api, mount) in [("r/x:v2", None), ("r/x:crash", Some(("var/lib/etcd", u64::MAX)))] {
        for n in 1.. {
            let (bench, when) = (Bench { mount, ..bench_with_files() }, format!("{api}, step {n}"));
            let mut tree = bench.tree();
            tree.die_at(n);
            let work = Work { steps: steps(&bench, NEW, api), ..Work::default() };
            let run = AssertUnwindSafe(bench.run(&work, &mut tree)).catch_unwind().await;
            if run.is_ok() {
                break;
            }
            if Journal::read(&bench.tree()).unwrap().is_some() {
                // And the rollback is killed too.
                let mut second = bench.tree();
                second.die_at(n % 7 + 1);
                let _ = AssertUnwindSafe(bench.roll_back(&mut second, Aim::Old)).catch_unwind().await;
                whole(&bench, &when);
                let kept = bench.rollback().await.etcd_kept;
                assert_eq!(kept, None, "{when}");
            }
            assert_eq!(images(&bench), [OLD, "r/x:v1", "r/x:v1", "r/x:v1"], "{when}");
            assert_eq!(
                (Db::read(bench.root.path()).unwrap().storage, lost(&bench)),
                (Minor::of("3.6"), vec![]),
                "{when}"
            );
            whole(&bench, &when);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn without_room_for_the_copy_nothing_is_touched_and_the_numbers_are_said() {
    let mut bench = bench_with_files();
    bench.free = 70 << 20;
    bench.apply(&steps(&bench, NEW, "r/x:v1"), None).await.unwrap();
    let mut bench = bench_with_files();
    bench.free = 60 << 20;
    let before = bench.state();
    let error = bench.apply(&steps(&bench, NEW, "r/x:v2"), None).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("needs 65 MiB in /etc/kubernetes/tmp/kubeadm-backup-etcd-"), "{text}");
    assert!(text.contains("where 60 MiB are free"), "{text}");
    assert!(bench.state() == before && Journal::read(&bench.tree()).unwrap().is_none());
    assert!(!bench.root.path().join("etc/kubernetes/tmp").exists());
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_fills_the_disk_goes_again_before_anything_is_put_back() {
    let whole_run = {
        let bench = bench_with_files();
        let mut tree = bench.tree();
        bench.run(&Work { steps: steps(&bench, NEW, "r/x:v1"), ..Work::default() }, &mut tree).await.unwrap();
        tree.changes()
    };
    let mut failed = 0;
    for n in 1..=whole_run {
        let bench = bench_with_files();
        let outcome = bench.apply(&steps(&bench, NEW, "r/x:v1"), Some(n)).await;
        let copy = bench.root.path().join("etc/kubernetes/tmp/kubeadm-backup-etcd-2026-11-23-20-30-00/etcd");
        let Ok(Outcome::RolledBack { cause: UpgradeError::File(error), .. }) = outcome else { continue };
        assert!(images(&bench)[0].starts_with("r/etcd:3."), "step {n}");
        if error.path.starts_with(bench.root.path().join("var/lib/etcd")) || error.path.starts_with(&copy) {
            failed += 1;
            assert!(!copy.exists(), "step {n}: {error}");
            assert_eq!(images(&bench)[0], OLD, "step {n}");
        }
    }
    assert!(failed >= 5, "directories, files and syncs of the copy were failed only {failed} times");
}
