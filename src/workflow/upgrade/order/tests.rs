use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};

use super::record::{Ending, OrderRecord, Said, lines};
use super::status::{State, status};
use super::*;
use crate::agent::control::expect::HealthSource;
use crate::agent::control::report::HealthReport;
use crate::agent::options::UpgradeSignal;
use crate::event::{Event, Reporter};
use crate::host::digest::sha256;
use crate::host::fs::make_dirs;
use crate::host::tree::{HostTree, NoRecord};
use crate::manifests::COMPONENTS;
use crate::testing::machine::Bench;
use crate::testing::power::{Disk, Loss};
use crate::testing::report::{pod, report};
use crate::workflow::machine::Cause;
use crate::workflow::upgrade::journal::Journal;
use crate::workflow::upgrade::rollback::RollbackOptions;
use crate::workflow::upgrade::run::tests::{LIMIT, NEW, made, made_with, parts, request, scheduler};
use crate::workflow::upgrade::run::{Parts, Rollback, Upgrade};

/// An agent on which whatever has `broken` in its manifest does not get healthy.
struct Picky(Paths);

#[async_trait]
impl HealthSource for Picky {
    async fn watch(&self) -> Result<BoxStream<'static, HealthReport>, Cause> {
        let of = |component: &&'static str| {
            let content = std::fs::read(self.0.manifest(component)).unwrap();
            let mut one = pod(component, &sha256(&content));
            one.healthy = !String::from_utf8_lossy(&content).contains("broken");
            one
        };
        let pods = COMPONENTS.iter().map(of).collect();
        Ok(stream::once(async move { report(pods) }).chain(stream::pending()).boxed())
    }
}

/// A machine with an upgrade of the scheduler to `image` on order.
pub(super) async fn ordered(image: &str) -> (Bench, Paths) {
    let bench = made().await;
    bench.runtime.registry_has(image, std::time::Duration::from_millis(1));
    let paths = bench.machine().paths;
    order_upgrade(&bench, image);
    (bench, paths)
}

fn order_upgrade(bench: &Bench, image: &str) {
    let paths = bench.machine().paths;
    let wanted = request(&[&format!("kube-scheduler={image}")]);
    let upgrade = Upgrade::prepare(&paths, parts(bench), wanted).unwrap();
    upgrade.order(None, LIMIT).unwrap().write(&paths).unwrap();
}

pub(super) async fn carry(bench: &Bench) -> Result<Option<Ending>, OrderError> {
    let paths = bench.machine().paths;
    let health: Arc<dyn HealthSource> = Arc::new(Picky(paths.clone()));
    carry_out(&paths, &|_, reporter| Parts { reporter, health: health.clone(), ..parts(bench) }).await
}

#[tokio::test(start_paused = true)]
async fn what_was_ordered_is_carried_out_once_and_its_record_stays() {
    let (bench, paths) = ordered(NEW).await;
    assert!(matches!(status(&paths).unwrap().unwrap().state, State::Ordered));
    assert_eq!(carry(&bench).await.unwrap().unwrap(), Ending::default());
    assert!(scheduler(&bench).contains(NEW) && Order::read(&paths).unwrap().is_none());
    let status = status(&paths).unwrap().unwrap();
    assert_eq!(
        (status.state, status.attempts, status.command.as_str()),
        (State::Upgraded, 1, "kubeboot upgrade apply --image x")
    );
    let scheduler = &status.components[0];
    assert!(scheduler.healthy && scheduler.name == "kube-scheduler" && scheduler.state == "healthy", "{status:?}");
    let way = scheduler.replacement.as_ref().unwrap();
    assert!(way.from.ends_with("kube-scheduler:v1.36.2") && way.to == NEW, "{status:?}");
    let json = serde_json::to_value(scheduler).unwrap();
    assert!(json["step"] == "done" && json["seconds"].is_number() && json["to"] == NEW, "{json}");
    assert!(carry(&bench).await.unwrap().is_none(), "nothing is on order any more");
}

#[tokio::test(start_paused = true)]
async fn a_rollback_that_has_ended_is_told_as_one() {
    let (bench, paths) = ordered(NEW).await;
    carry(&bench).await.unwrap();
    let order_rollback = || {
        let rollback = Rollback::prepare(&paths, parts(&bench), RollbackOptions::default()).unwrap();
        rollback.order(None, LIMIT).unwrap().write(&paths).unwrap();
    };
    order_rollback();
    assert_eq!(carry(&bench).await.unwrap().unwrap().code, 0);
    let taken_back = status(&paths).unwrap().unwrap();
    assert!(taken_back.state == State::RolledBack && taken_back.is_rollback(), "{taken_back:?}");
    let backup = Journal::read(&HostTree::new(paths.clone(), NoRecord)).unwrap().unwrap().backup;
    let broken = std::fs::read_to_string(paths.manifest("kube-scheduler")).unwrap() + "# broken\n";
    write_file(&paths.on_host(backup.join("kube-scheduler.yaml")), broken.as_bytes(), 0o600).unwrap();
    order_rollback();
    assert_eq!(carry(&bench).await.unwrap().unwrap().code, 1);
    assert_eq!(status(&paths).unwrap().unwrap().state, State::Failed, "something was changed");
}

#[tokio::test(start_paused = true)]
async fn what_the_command_has_warned_of_is_not_warned_of_again_by_who_carries_it_out() {
    let file = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nkubernetesVersion: v1.36.2\napiServer:\n  \
                extraArgs:\n  - {name: admission-control, value: AlwaysAdmit}\n";
    let bench = made_with(Some(("config.yaml".into(), file.to_owned()))).await;
    let image = "registry.example.com/kube-apiserver:v1.36.2";
    bench.runtime.registry_has(image, std::time::Duration::from_millis(1));
    let paths = bench.machine().paths;
    let upgrade = Upgrade::prepare(&paths, parts(&bench), request(&[&format!("kube-apiserver={image}")])).unwrap();
    upgrade.order(None, LIMIT).unwrap().write(&paths).unwrap();
    drop(upgrade);
    assert_eq!(carry(&bench).await.unwrap().unwrap(), Ending::default());
    let recorded = lines(&paths).unwrap().into_iter().filter_map(|line| match line.what {
        Said::Event(event) => Some(event),
        _ => None,
    });
    let all: Vec<Event> = bench.world.events().into_iter().chain(recorded).collect();
    let times = |words: &str| {
        let has = |event: &&Event| matches!(event, Event::Warning { text, .. } if text.contains(words));
        all.iter().filter(has).count()
    };
    assert_eq!((times("DeprecatedFlags: kube-apiserver"), times("said of the configuration")), (1, 1), "{all:?}");
}

#[tokio::test(start_paused = true)]
async fn wherever_it_is_killed_the_next_attempt_ends_new() {
    for polls in 1.. {
        let (bench, paths) = ordered(NEW).await;
        let mut killed = Box::pin(carry(&bench));
        let mut ended = None;
        for _ in 0..polls {
            ended = killed.as_mut().now_or_never();
            if ended.is_some() {
                break;
            }
            tokio::time::advance(std::time::Duration::from_millis(100)).await;
            tokio::task::yield_now().await;
        }
        drop(killed);
        if ended.is_some() {
            assert!(polls > 2, "it never waited");
            break;
        }
        assert_eq!(carry(&bench).await.unwrap().unwrap().code, 0, "killed after {polls} polls");
        assert!(scheduler(&bench).contains(NEW), "killed after {polls} polls");
        assert!(status(&paths).unwrap().unwrap().attempts <= 2, "killed after {polls} polls");
    }
}

#[tokio::test(start_paused = true)]
async fn whenever_the_power_goes_it_ends_new_by_itself() {
    for n in 1.. {
        for loss in [Loss::All, Loss::Contents] {
            let bench = made().await;
            bench.runtime.registry_has(NEW, std::time::Duration::from_millis(1));
            let paths = bench.machine().paths;
            let old = scheduler(&bench);
            let disk = Disk::cut_before(bench.root.path(), n);
            order_upgrade(&bench, NEW);
            let _ = carry(&bench).await;
            if !disk.was_cut() {
                assert!(n > 20, "only {n} syncs");
                return;
            }
            disk.restore(loss);
            let when = format!("cut before sync {n}, lost: {loss:?}");
            let was_ordered = Order::read(&paths).unwrap_or_else(|error| panic!("{when}: {error}")).is_some();
            let ending = carry(&bench).await.unwrap_or_else(|error| panic!("{when}: {error}"));
            assert_eq!(ending.map(|ending| ending.code), was_ordered.then_some(0), "{when}");
            // Ordered and done, or never ordered.
            let is_new = scheduler(&bench).contains(NEW);
            assert!(is_new || (!was_ordered && scheduler(&bench) == old), "{when}");
            status(&paths).unwrap_or_else(|error| panic!("{when}: {error}"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_fails_ends_old_and_says_why_to_who_asks_later() {
    let broken = "registry.example.com/kube-scheduler:broken";
    let (bench, paths) = ordered(broken).await;
    let before = scheduler(&bench);
    let ending = carry(&bench).await.unwrap().unwrap();
    assert_eq!((ending.code, ending.errors.len()), (2, 1), "{ending:?}");
    let first: Vec<&str> = ending.errors[0].iter().map(String::as_str).take(2).collect();
    assert_eq!(
        first,
        ["the upgrade failed, and everything is as it was before", "kube-scheduler did not become healthy"]
    );
    assert_eq!(scheduler(&bench), before);
    let status = status(&paths).unwrap().unwrap();
    assert_eq!((status.state, status.ending), (State::RolledBack, Some(ending)));
    assert!(Order::read(&paths).unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn one_that_cannot_be_begun_changes_nothing_and_is_not_tried_for_ever() {
    let bench = made().await;
    let missing = "registry.example.com/kube-scheduler:missing";
    order_upgrade(&bench, missing);
    let before = scheduler(&bench);
    let ending = carry(&bench).await.unwrap().unwrap();
    assert!(ending.code == 1 && ending.errors[0].concat().contains(missing), "{ending:?}");
    assert_eq!(scheduler(&bench), before);
    assert!(carry(&bench).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_cut_off_upgrade_that_cannot_go_on_is_taken_back() {
    let (bench, paths) = ordered("registry.example.com/kube-scheduler:broken").await;
    let before = scheduler(&bench);
    // The manifest is the new one, and its health is waited for; then the order is of somebody's who knows more components.
    let mut killed = Box::pin(carry(&bench));
    while !scheduler(&bench).contains("broken") {
        assert!(killed.as_mut().now_or_never().is_none());
        tokio::time::advance(std::time::Duration::from_millis(1)).await;
        tokio::task::yield_now().await;
    }
    drop(killed);
    let order = paths.on_host(ORDER);
    let half = std::fs::read_to_string(&order).unwrap().replace("kube-scheduler=", "kube-something=");
    crate::host::fs::write_file(&order, half.as_bytes(), 0o600).unwrap();
    let ending = carry(&bench).await.unwrap().unwrap();
    assert_eq!(ending.code, 2, "{ending:?}");
    assert!(ending.errors[0].concat().contains("kube-something"), "{ending:?}");
    assert_eq!(scheduler(&bench), before);
}

#[tokio::test(start_paused = true)]
async fn a_rollback_is_ordered_as_an_upgrade_is() {
    let (bench, paths) = ordered(NEW).await;
    let before = scheduler(&bench);
    carry(&bench).await.unwrap();
    let rollback = Rollback::prepare(&paths, parts(&bench), RollbackOptions::default()).unwrap();
    rollback.order(None, LIMIT).unwrap().write(&paths).unwrap();
    drop(rollback);
    assert_eq!(carry(&bench).await.unwrap().unwrap(), Ending::default());
    assert_eq!(scheduler(&bench), before);
}

#[tokio::test(start_paused = true)]
async fn an_order_whose_end_is_on_record_is_not_carried_out_again() {
    let (bench, paths) = ordered(NEW).await;
    let order = Order::read(&paths).unwrap().unwrap();
    let ended = Ending { code: 2, errors: vec![vec!["why".into()]], hint: None };
    let (record, none) = OrderRecord::open(&paths, &order).unwrap();
    assert!(none.is_none());
    record.end(ended.clone()).unwrap();
    assert_eq!(carry(&bench).await.unwrap(), Some(ended));
    assert!(!scheduler(&bench).contains(NEW) && Order::read(&paths).unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn an_end_that_cannot_be_recorded_is_an_end_all_the_same() {
    let (bench, paths) = ordered(NEW).await;
    let order = Order::read(&paths).unwrap().unwrap();
    let mut heard = Heard::default();
    // Where nothing can be recorded, nothing is begun.
    drop(OrderRecord::open(&paths, &order).unwrap());
    let record = paths.on_host(RECORD);
    let first = std::fs::read(&record).unwrap();
    std::fs::remove_file(&record).unwrap();
    make_dirs(&record, 0o700).unwrap();
    assert!(carry(&bench).await.is_err());
    assert!(Order::read(&paths).unwrap().is_some() && !scheduler(&bench).contains(NEW));
    std::fs::remove_dir(&record).unwrap();
    write_file(&record, &first, 0o600).unwrap();
    carry(&bench).await.unwrap();
    // The end is lost.
    let lines = std::fs::read_to_string(&record).unwrap();
    let (kept, end) = lines.trim_end().rsplit_once('\n').unwrap();
    assert!(end.contains("ended"), "{end}");
    write_file(&record, format!("{kept}\n").as_bytes(), 0o600).unwrap();
    assert_eq!(status(&paths).unwrap().unwrap().state, State::Upgraded, "the journal knows");
    let followed = follow(&paths, &order.id, &heard).await;
    assert!(matches!(followed, Err(FollowError::Unrecorded)), "{followed:?}");
    assert!(heard.0.get_mut().unwrap().len() > 3);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_was_cut_anywhere_stops_no_upgrade() {
    let (bench, paths) = ordered(NEW).await;
    carry(&bench).await.unwrap();
    let record = paths.on_host(RECORD);
    let whole = std::fs::read(&record).unwrap();
    for cut in [1, whole.len() / 2, whole.len() - 1] {
        order_upgrade(&bench, "registry.example.com/kube-scheduler:missing");
        write_file(&record, &whole[..cut], 0o600).unwrap();
        assert_eq!(carry(&bench).await.unwrap().unwrap().code, 1, "cut at {cut}");
        assert_eq!(status(&paths).unwrap().unwrap().state, State::Refused, "cut at {cut}");
    }
}

#[derive(Default)]
struct Heard(std::sync::Mutex<Vec<Event>>);

impl Reporter for Heard {
    fn event(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}

#[tokio::test]
async fn who_follows_hears_everything_from_the_beginning_and_the_end() {
    let (bench, paths) = ordered(NEW).await;
    let order = Order::read(&paths).unwrap().unwrap();
    let heard = Heard::default();
    let (followed, carried) = tokio::join!(follow(&paths, &order.id, &heard), carry(&bench));
    assert_eq!(followed.unwrap(), carried.unwrap().unwrap());
    let recorded: Vec<Event> = lines(&paths)
        .unwrap()
        .into_iter()
        .filter_map(|line| if let Said::Event(event) = line.what { Some(event) } else { None })
        .collect();
    assert!(recorded.len() > 3);
    assert_eq!(*heard.0.lock().unwrap(), recorded);
    let other = follow(&paths, "another", &Heard::default()).await;
    assert!(matches!(other, Err(FollowError::Gone)), "{other:?}");
}

#[test]
fn an_order_that_makes_no_sense_is_named_with_what_to_do() {
    let root = tempfile::tempdir().unwrap();
    let paths = Paths::new(root.path());
    assert!(Order::read(&paths).unwrap().is_none());
    make_dirs(&paths.on_host(DIR), 0o700).unwrap();
    for (content, words) in [
        ("{", "order.json is damaged, or of another kubeboot's: remove it, and order the upgrade again"),
        (r#"{"format":1,"news":true}"#, "order.json is damaged"),
        (r#"{"format":7,"news":true}"#, "order.json is of format 7, which this kubeboot does not know"),
    ] {
        write_file(&paths.on_host(ORDER), content.as_bytes(), 0o600).unwrap();
        let error = Order::read(&paths).unwrap_err().to_string();
        assert!(error.contains(words), "{content}: {error}");
    }
}

#[tokio::test]
async fn the_agent_starts_what_carries_an_order_out_again_until_the_order_has_ended() {
    let root = tempfile::tempdir().unwrap();
    let paths = Paths::new(root.path());
    make_dirs(&paths.on_host(DIR), 0o700).unwrap();
    let (order, runs) = (paths.on_host(ORDER), root.path().join("runs"));
    let program = root.path().join("program");
    // Fails the first time.
    let script = format!(
        "#!/bin/sh\necho \"$@\" >> {runs}\n[ $(wc -l < {runs}) -lt 2 ] && exit 1\nrm -f {order}\n",
        runs = runs.display(),
        order = order.display()
    );
    write_file(&program, script.as_bytes(), 0o755).unwrap();
    assert_eq!(std::fs::metadata(&program).unwrap().permissions().mode() & 0o777, 0o755);
    let (signal, shutdown) = (UpgradeSignal::default(), tokio_util::sync::CancellationToken::new());
    let owner = tokio::spawn(owner::own(paths.clone(), program, signal.clone(), shutdown.clone()));
    write_file(&order, b"{}", 0o600).unwrap();
    signal.wake();
    let mut watched = crate::host::watched::Files::new(vec![order.clone()]);
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while order.exists() {
        assert!(std::time::Instant::now() < until, "the order is still there");
        watched.changed(std::time::Duration::from_secs(1)).await;
    }
    shutdown.cancel();
    owner.await.unwrap();
    assert_eq!(std::fs::read_to_string(&runs).unwrap(), "upgrade carry-out\nupgrade carry-out\n");
}
