//! The power goes before each sync of an upgrade: what is found on the disk afterwards is enough to end exactly new, and to
//! end exactly old.

use super::etcd::{NEW, OLD, bench, images, lost, steps};
use super::*;
use crate::testing::power::{Disk, Loss};

const LOSSES: [Loss; 2] = [Loss::All, Loss::Contents];

/// Runs `what` on machines whose power goes before the first sync, the second and so on, and `then` on what is found
/// afterwards. Returns how many syncs there are.
async fn cut_everywhere(
    made: impl Fn() -> Bench,
    what: impl AsyncFn(&Bench),
    then: impl AsyncFn(&Bench, &str),
) -> usize {
    for n in 1.. {
        let bench = made();
        let disk = Disk::cut_before(bench.root.path(), n);
        what(&bench).await;
        if !disk.was_cut() {
            return n;
        }
        for loss in LOSSES {
            disk.restore(loss);
            then(&bench, &format!("cut before sync {n}, lost: {loss:?}")).await;
        }
    }
    unreachable!("the numbers do not end")
}

async fn upgrade(bench: &Bench) -> Result<Outcome, UpgradeError> {
    bench.run(&bench.work(&BTreeMap::new()), &mut bench.tree()).await
}

#[tokio::test(start_paused = true)]
async fn whenever_the_power_goes_the_same_command_ends_exactly_new() {
    let syncs = cut_everywhere(
        Bench::new,
        async |bench| drop(upgrade(bench).await),
        async |bench, when| {
            let outcome = upgrade(bench).await;
            assert!(matches!(outcome, Ok(Outcome::Upgraded { .. })), "{when}: {outcome:?}");
            assert_eq!(bench.manifests(), all("r/x:v2"), "{when}");
            assert_eq!(bench.renewed(), crate::pki::renewable_names(), "{when}");
            bench.check_pairs(when);
            assert!(bench.work(&BTreeMap::new()).is_idle(), "{when}");
        },
    )
    .await;
    assert!(syncs > 40, "backups, journal, certificates and manifests are all synced, not only {syncs}");
}

#[tokio::test(start_paused = true)]
async fn whenever_the_power_goes_it_can_be_taken_back_to_exactly_the_old() {
    let (old, _) = Bench::new().state();
    cut_everywhere(
        Bench::new,
        async |bench| drop(upgrade(bench).await),
        async |bench, when| {
            if Journal::read(&bench.tree()).unwrap_or_else(|error| panic!("{when}: {error}")).is_some() {
                assert_eq!(bench.rollback().await.state, State::RolledBack, "{when}");
            }
            assert!(bench.state().0 == old, "{when}");
        },
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn whenever_the_power_goes_a_rollback_that_is_run_again_ends_exactly_old() {
    let (old, _) = Bench::new().state();
    for n in 1.. {
        let bench = Bench::new();
        upgrade(&bench).await.unwrap();
        let disk = Disk::cut_before(bench.root.path(), n);
        let _ = bench.roll_back(&mut bench.tree(), Aim::Old).await;
        if !disk.was_cut() {
            assert!(n > 20, "only {n} syncs");
            return;
        }
        for loss in LOSSES {
            disk.restore(loss);
            assert_eq!(bench.rollback().await.state, State::RolledBack, "cut before sync {n}, lost: {loss:?}");
            assert!(bench.state().0 == old, "cut before sync {n}, lost: {loss:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn whenever_the_power_goes_no_write_that_etcd_acknowledged_is_lost() {
    for rest in ["r/x:v2", "r/x:crash"] {
        cut_everywhere(
            || bench(OLD, "r/x:v1"),
            async |bench| drop(bench.apply(&steps(bench, NEW, rest), None).await),
            async |bench, when| {
                assert_eq!(lost(bench), [""; 0], "{rest}, {when}: before anything is done");
                let journal = Journal::read(&bench.tree()).unwrap_or_else(|error| panic!("{rest}, {when}: {error}"));
                if journal.is_some_and(|journal| journal.state == State::RolledBack) {
                    // It had ended; the same command would begin another one.
                    assert_eq!(images(bench)[1..], ["r/x:v1"; 3], "{rest}, {when}");
                    return;
                }
                let outcome = bench.apply(&steps(bench, NEW, rest), None).await;
                let wanted = match rest {
                    "r/x:crash" => {
                        assert!(matches!(outcome, Ok(Outcome::RolledBack { .. })), "{rest}, {when}: {outcome:?}");
                        "r/x:v1"
                    }
                    _ => {
                        assert!(matches!(outcome, Ok(Outcome::Upgraded { .. })), "{rest}, {when}: {outcome:?}");
                        rest
                    }
                };
                assert_eq!(images(bench)[1..], [wanted; 3], "{rest}, {when}");
                assert_eq!(lost(bench), [""; 0], "{rest}, {when}");
            },
        )
        .await;
    }
}
