//! Every step failed once: the promise is exactly new or exactly old.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};

use super::apply::{Machine, Title, apply, rollback};
use super::journal::{Journal, State};
use super::plan::tests::{manifest, target};
use super::plan::{Step, plan};
use super::{Outcome, UpgradeError, current};
use crate::agent::expect::HealthSource;
use crate::agent::report::{HealthReport, StateReport};
use crate::event::Silent;
use crate::host::Paths;
use crate::host::fs::{FsError, Written};
use crate::host::tree::{HostTree, NoRecord, Tree};
use crate::manifests::COMPONENTS;
use crate::testing::report::{pod, report};

/// An agent that runs at once what is on disk: images that contain `crash` crash, those that contain `never` never get
/// ready.
struct DiskAgent(PathBuf);

#[async_trait]
impl HealthSource for DiskAgent {
    async fn watch(&self) -> Result<BoxStream<'static, HealthReport>, Box<dyn std::error::Error + Send + Sync>> {
        let mut pods = Vec::new();
        for component in COMPONENTS {
            let file = self.0.join(format!("etc/kubernetes/manifests/{component}.yaml"));
            let Ok(content) = std::fs::read(&file) else { continue };
            let text = String::from_utf8_lossy(&content).into_owned();
            let mut one = pod(component, &super::manifest::hash(&content));
            one.healthy = !text.contains("never") && !text.contains("crash");
            if text.contains("crash") {
                one.containers[0].state =
                    StateReport::Waiting { reason: "CrashLoopBackOff".into(), message: "back-off 10s".into() };
            }
            pods.push(one);
        }
        Ok(stream::once(async move { report(pods) }).chain(stream::pending()).boxed())
    }
}

/// A tree whose n-th write fails, as a full disk would.
struct FailingTree {
    inner: HostTree<NoRecord>,
    fail_at: Option<usize>,
    writes: usize,
}

impl Tree for FailingTree {
    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, FsError> {
        self.inner.read(path)
    }
    fn exists(&self, path: &Path) -> bool {
        self.inner.exists(path)
    }
    fn make_dir(&mut self, path: &Path, mode: u32) -> Result<(), FsError> {
        self.inner.make_dir(path, mode)
    }
    fn write(&mut self, path: &Path, content: &[u8], mode: u32) -> Result<Written, FsError> {
        self.writes += 1;
        if Some(self.writes) == self.fail_at {
            return Err(FsError::new("write", path, std::io::ErrorKind::StorageFull.into()));
        }
        self.inner.write(path, content, mode)
    }
    fn remove(&mut self, path: &Path) -> Result<bool, FsError> {
        self.inner.remove(path)
    }
}

struct Bench {
    root: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let bench = Self { root: tempfile::tempdir().unwrap() };
        let mut tree = bench.tree(None);
        for component in COMPONENTS {
            tree.write(&target(component, "r/x:v1").file, &manifest(component, "r/x:v1"), 0o600).unwrap();
        }
        tree.write(Path::new("/var/lib/etcd/member/db"), b"data of v1", 0o600).unwrap();
        bench
    }

    fn tree(&self, fail_at: Option<usize>) -> FailingTree {
        FailingTree { inner: HostTree::new(Paths::new(self.root.path()), NoRecord), fail_at, writes: 0 }
    }

    fn steps(&self, images: &BTreeMap<&'static str, &str>) -> Vec<Step> {
        let tree = self.tree(None);
        let targets: Vec<_> =
            COMPONENTS.iter().map(|c| target(c, images.get(c).copied().unwrap_or("r/x:v2"))).collect();
        plan(|path| current(&tree, path), &targets).unwrap()
    }

    async fn apply(&self, steps: &[Step], fail_at: Option<usize>) -> Result<Outcome, UpgradeError> {
        let (health, mut tree) = (DiskAgent(self.root.path().to_owned()), self.tree(fail_at));
        let mut machine = Machine {
            paths: Paths::new(self.root.path()),
            tree: &mut tree,
            health: &health,
            reporter: &Silent,
            limit: Duration::from_secs(300),
        };
        let title = Title {
            target: "v2".into(),
            command: "kubeboot upgrade apply v2".into(),
            stamp: "2026-11-23-20-30-00".into(),
        };
        apply(&mut machine, steps, &title).await
    }

    fn manifests(&self) -> Vec<Vec<u8>> {
        COMPONENTS.iter().map(|c| self.tree(None).read(&target(c, "").file).unwrap().unwrap_or_default()).collect()
    }
}

fn all(image: &str) -> Vec<Vec<u8>> {
    COMPONENTS.iter().map(|c| manifest(c, image)).collect()
}

#[tokio::test(start_paused = true)]
async fn everything_is_replaced_and_can_be_taken_back() {
    let bench = Bench::new();
    let steps = bench.steps(&BTreeMap::new());
    let outcome = bench.apply(&steps, None).await.unwrap();
    assert!(matches!(&outcome, Outcome::Upgraded { replaced } if replaced.len() == 4), "{outcome:?}");
    assert_eq!(bench.manifests(), all("r/x:v2"));
    assert_eq!(bench.steps(&BTreeMap::new()), [], "a second upgrade has nothing to do");

    let (health, mut tree) = (DiskAgent(bench.root.path().to_owned()), bench.tree(None));
    let limit = Duration::from_secs(300);
    let paths = Paths::new(bench.root.path());
    let mut machine = Machine { paths, tree: &mut tree, health: &health, reporter: &Silent, limit };
    assert_eq!(rollback(&mut machine).await.unwrap().state, State::RolledBack);
    assert_eq!(bench.manifests(), all("r/x:v1"));
}

#[tokio::test(start_paused = true)]
async fn whichever_component_fails_the_old_ones_come_back() {
    for component in COMPONENTS {
        for image in ["r/x:crash", "r/x:never"] {
            let bench = Bench::new();
            let steps = bench.steps(&BTreeMap::from([(component, image)]));
            let outcome = bench.apply(&steps, None).await.unwrap();
            assert!(matches!(outcome, Outcome::RolledBack { .. }), "{component} {image}: {outcome:?}");
            assert_eq!(outcome.exit_code(), 2);
            assert_eq!(bench.manifests(), all("r/x:v1"), "{component} {image}");
            let data = std::fs::read(bench.root.path().join("var/lib/etcd/member/db")).unwrap();
            assert_eq!(data, b"data of v1");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn whichever_write_fails_the_same_command_ends_exactly_new() {
    let mut failed = 0;
    for n in 1.. {
        let bench = Bench::new();
        let first = bench.apply(&bench.steps(&BTreeMap::new()), Some(n)).await;
        if matches!(first, Ok(Outcome::Upgraded { .. })) {
            break;
        }
        failed += 1;
        if !matches!(first, Ok(Outcome::Failed { .. })) {
            let now = bench.manifests();
            assert!(now == all("r/x:v1") || now == all("r/x:v2"), "write {n}: mixed after {first:?}");
        }
        let again = bench.apply(&bench.steps(&BTreeMap::new()), None).await.unwrap();
        assert!(matches!(again, Outcome::Upgraded { .. }), "write {n}: {again:?}");
        assert_eq!(bench.manifests(), all("r/x:v2"), "write {n}");
    }
    assert!(failed >= 10, "backups, journal and manifests were all failed once, not only {failed}");
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_that_was_cut_off_is_finished_only_by_the_same_one() {
    let bench = Bench::new();
    let mut tree = bench.tree(None);
    let journal = Journal {
        target: "v3".into(),
        command: "kubeboot upgrade apply v3".into(),
        backup: "/etc/kubernetes/tmp/kubeadm-backup-manifests-x".into(),
        etcd_data: None,
        state: State::Applying,
    };
    journal.write(&mut tree).unwrap();
    let error = bench.apply(&bench.steps(&BTreeMap::new()), None).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "an upgrade to v3 was cut off: finish it with `kubeboot upgrade apply v3`, or take it back with `kubeboot upgrade \
         rollback`"
    );
    assert_eq!(bench.manifests(), all("r/x:v1"));
}

#[tokio::test(start_paused = true)]
async fn a_manifest_that_a_cut_off_upgrade_had_taken_away_is_found_in_its_backup() {
    let bench = Bench::new();
    let mut tree = bench.tree(None);
    let backup = PathBuf::from("/etc/kubernetes/tmp/kubeadm-backup-manifests-x");
    tree.write(&backup.join("etcd.yaml"), &manifest("etcd", "r/x:v1"), 0o600).unwrap();
    tree.remove(&target("etcd", "").file).unwrap();
    let journal = Journal {
        target: "v2".into(),
        command: "kubeboot upgrade apply v2".into(),
        backup,
        etcd_data: None,
        state: State::Applying,
    };
    journal.write(&mut tree).unwrap();
    let outcome = bench.apply(&bench.steps(&BTreeMap::new()), None).await.unwrap();
    assert!(matches!(outcome, Outcome::Upgraded { .. }), "{outcome:?}");
    assert_eq!(bench.manifests(), all("r/x:v2"));
}
