//! Every step failed once: the promise is exactly new or exactly old.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};

use super::apply::{Machine, Renewal, Title, Work, apply};
use super::etcd::Aim;
use super::journal::{Journal, State};
use super::kept::FileChange;
use super::objects::Group;
use super::plan::tests::{manifest, target};
use super::plan::{Step, plan};
use super::rollback::rollback;
use super::table::Part;
use super::{Outcome, UpgradeError, current};
use crate::agent::control::expect::HealthSource;
use crate::agent::control::report::{HealthReport, StateReport};
use crate::cluster::apply::{Applied, Outcome as Written};
use crate::cluster::object::{Key, Object};
use crate::config::ClusterSpec;
use crate::event::{Reporter, Silent};
use crate::host::Paths;
use crate::host::tree::{HostTree, MemoryTree, NoRecord, Tree};
use crate::manifests::COMPONENTS;
use crate::pki::{Renewable, renewables};
use crate::testing::report::{pod, report};
use crate::testing::tree::FaultyTree;
use crate::workflow::machine::cluster::{Api, Cluster, Ping, Site};
use crate::workflow::machine::{Cause, Runtimes};

mod etcd;
mod fake_etcd;
mod gates;
mod place;
mod power;
mod progress;

/// An agent that runs at once what is on disk: images that contain `crash` crash, those that contain `never` never get
/// ready, those that contain `later` crash once they have been healthy, and etcd does not open data of newer ones.
struct DiskAgent(PathBuf);

#[async_trait]
impl HealthSource for DiskAgent {
    async fn watch(&self) -> Result<BoxStream<'static, HealthReport>, Box<dyn std::error::Error + Send + Sync>> {
        let mut pods = Vec::new();
        for component in COMPONENTS {
            let file = self.0.join(format!("etc/kubernetes/manifests/{component}.yaml"));
            let Ok(content) = std::fs::read(&file) else { continue };
            let text = String::from_utf8_lossy(&content).into_owned();
            let mut one = pod(component, &crate::host::digest::sha256(&content));
            // In this order: an etcd may open the data before it crashes.
            let crashes = !fake_etcd::suits(&self.0, component, &text) || text.contains("crash");
            one.healthy = !text.contains("never") && !crashes;
            one.containers[0].image.clone_from(&text);
            if crashes {
                one.containers[0].state =
                    StateReport::Waiting { reason: "CrashLoopBackOff".into(), message: "back-off 10s".into() };
            }
            pods.push(one);
        }
        fake_etcd::write(&self.0, &pods);
        let mut later = pods.clone();
        later.retain(|pod| pod.containers[0].image.contains("later"));
        let crash = stream::iter((!later.is_empty()).then(|| {
            later.iter_mut().for_each(|pod| pod.containers[0].restarts = 1);
            report(later)
        }));
        let crash = crash.then(|report| async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            report
        });
        Ok(stream::once(async move { report(pods) }).chain(crash).chain(stream::pending()).boxed())
    }
}

type Files = FaultyTree<HostTree<NoRecord>>;
/// What files hold; None where there are none.
type Contents = BTreeMap<PathBuf, Option<Vec<u8>>>;

/// A cluster's objects by their keys.
#[derive(Default)]
struct Shelf {
    objects: Mutex<BTreeMap<Key, Value>>,
    refuses: AtomicBool,
    silent: Arc<AtomicBool>,
    /// What it and other components say that they are, by the address that is asked.
    versions: Mutex<BTreeMap<String, &'static str>>,
    /// What is written is not read.
    forgets: AtomicBool,
}

impl Shelf {
    fn values(&self) -> BTreeMap<Key, Value> {
        self.objects.lock().unwrap().clone()
    }
}

#[async_trait]
impl Cluster for Shelf {
    async fn ensure_admins(&self, _: Site<'_>, _: Duration) -> Result<bool, Cause> {
        Err("no upgrade asks for that".into())
    }

    async fn get(&self, _: Site<'_>, object: &Object) -> Result<Option<Value>, Cause> {
        match self.silent.load(Ordering::SeqCst) {
            true => Err("connection refused".into()),
            false if self.forgets.load(Ordering::SeqCst) => Ok(None),
            false => Ok(self.objects.lock().unwrap().get(&object.key()).cloned()),
        }
    }

    async fn apply(&self, _: Site<'_>, objects: &[Object]) -> Result<Vec<Applied>, Cause> {
        let one = |object: &Object| {
            let mut all = self.objects.lock().unwrap();
            let outcome = if all.contains_key(&object.key()) { Written::Updated } else { Written::Created };
            all.insert(object.key(), object.value.clone());
            Applied { outcome, uid: String::new() }
        };
        // The first is written before it turns out that the others cannot be.
        // What the gates write is one alone.
        match objects.len() > 1 && self.refuses.swap(false, Ordering::SeqCst) {
            true => objects.iter().take(1).for_each(|object| drop(one(object))),
            false => return Ok(objects.iter().map(one).collect()),
        }
        Err("forbidden".into())
    }

    async fn remove(&self, _: Site<'_>, object: &Object) -> Result<(), Cause> {
        self.objects.lock().unwrap().remove(&object.key());
        Ok(())
    }

    async fn would_make(&self, _: Site<'_>, _: &Object) -> Result<(), Cause> {
        Err("no upgrade asks for that once it has begun".into())
    }

    async fn metrics(&self, _: Site<'_>) -> Result<String, Cause> {
        Err("no upgrade asks for that once it has begun".into())
    }

    async fn list_nodes(&self, _: Site<'_>, _: &str) -> Result<Vec<Value>, Cause> {
        Err("no upgrade asks for that once it has begun".into())
    }

    async fn version(&self, _: Site<'_>, metrics: Option<&str>) -> Result<String, Cause> {
        let versions = self.versions.lock().unwrap();
        Ok((*versions.get(metrics.unwrap_or_default()).ok_or("refused")?).to_owned())
    }

    fn ping<'a>(&'a self, _: Site<'a>) -> Option<Ping<'a>> {
        Some(Box::new(|| async { !self.silent.load(Ordering::SeqCst) }.boxed()))
    }
}

/// Certificates and kubeconfigs, made once for all tests.
static MADE: LazyLock<MemoryTree> = LazyLock::new(|| {
    let (spec, mut tree, now) = (crate::testing::spec(), MemoryTree::empty(), Timestamp::now());
    crate::pki::ensure_certificates(&spec, &mut tree, &[], now).unwrap();
    crate::pki::ensure_kubeconfigs(&spec, &mut tree, &[], now).unwrap();
    tree
});

fn config_map(name: &str, says: &str) -> Object {
    let value = json!({"metadata": {"name": name, "namespace": "kube-system"}, "data": {"says": says}});
    Object::new(&serde_json::from_value::<ConfigMap>(value).unwrap())
}

struct Bench {
    root: tempfile::TempDir,
    spec: ClusterSpec,
    shelf: Shelf,
    reporter: Arc<dyn Reporter>,
    /// Bytes.
    free: u64,
    /// A directory that is a file system of its own, and the bytes that are free there.
    mount: Option<(&'static str, u64)>,
}

impl Bench {
    /// A machine with nothing on it.
    fn empty() -> Self {
        let (root, spec) = (crate::testing::tempdir_in_memory(), crate::testing::spec());
        Self { root, spec, shelf: Shelf::default(), reporter: Arc::new(Silent), free: u64::MAX, mount: None }
    }

    fn new() -> Self {
        let bench = Self::empty();
        let mut tree = bench.tree();
        for component in COMPONENTS {
            tree.write(&target(component, "r/x:v1").file, &manifest(component, "r/x:v1"), 0o600).unwrap();
        }
        tree.write(Path::new("/var/lib/etcd/member/db"), b"data of v1", 0o600).unwrap();
        tree.write(Path::new(SETTINGS), b"v1", 0o644).unwrap();
        for (path, file) in MADE.files() {
            tree.write(path, &file.content, file.mode).unwrap();
        }
        let there = config_map("kubeadm-config", "v1");
        bench.shelf.objects.lock().unwrap().insert(there.key(), there.value);
        bench
    }

    fn tree(&self) -> Files {
        FaultyTree::new(HostTree::new(Paths::new(self.root.path()), NoRecord))
    }

    fn steps(&self, images: &BTreeMap<&'static str, &str>) -> Vec<Step> {
        let tree = self.tree();
        let targets: Vec<_> =
            COMPONENTS.iter().map(|c| target(c, images.get(c).copied().unwrap_or("r/x:v2"))).collect();
        plan(|path| current(&tree, path), &targets).unwrap()
    }

    /// Everything that an upgrade to v2 does.
    fn work(&self, images: &BTreeMap<&'static str, &str>) -> Work<'_> {
        let (steps, tree) = (self.steps(images), self.tree());
        let file = |path: &str| FileChange { path: path.into(), content: b"v2".to_vec(), mode: 0o644 };
        let wanted = [file(SETTINGS), file(MADE_FILE)];
        let files = wanted.into_iter().filter(|file| tree.read(&file.path).unwrap().as_ref() != Some(&file.content));
        let group = |part, title, objects| Group { part, title, objects, only_with: None, warnings: vec![] };
        let addon = vec![config_map("addon", "v2")];
        let addon = Group { only_with: Some("ConfigMap"), ..group(Part::Addon, "an addon", addon) };
        let maps = vec![config_map("kubeadm-config", "v2"), config_map("kubelet-config", "v2")];
        Work {
            steps,
            renewal: Some(Renewal { spec: &self.spec, now: Timestamp::now() }),
            files: files.collect(),
            objects: vec![group(Part::UploadConfig, "the configuration", maps), addon],
            settle: true,
            ..Work::default()
        }
    }

    async fn with<T>(&self, tree: &mut Files, what: impl AsyncFnOnce(&mut Machine<'_>) -> T) -> T {
        let health = DiskAgent(self.root.path().to_owned());
        let (mut disk, etcd) = (tree.disk(), fake_etcd::FakeEtcd(self.root.path().to_owned()));
        disk.set_free(self.free);
        if let Some((at, free)) = self.mount {
            disk.mount(self.root.path().join(at), free);
        }
        let paths = Paths::new(self.root.path());
        let mut machine = Machine {
            paths: paths.clone(),
            tree,
            disk: &mut disk,
            etcd: &etcd,
            health: &health,
            api: Api { cluster: &self.shelf, site: Site { paths: &paths, spec: &self.spec } },
            runtimes: &NoRuntimes,
            log: None,
            reporter: &*self.reporter,
            limit: Duration::from_secs(300),
        };
        what(&mut machine).await
    }

    async fn run(&self, work: &Work<'_>, tree: &mut Files) -> Result<Outcome, UpgradeError> {
        self.with(tree, async |machine| apply(machine, work, &title()).await).await
    }

    /// The components alone.
    async fn apply(&self, steps: &[Step], fail_at: Option<usize>) -> Result<Outcome, UpgradeError> {
        let mut tree = self.tree();
        if let Some(n) = fail_at {
            tree.fail_at(n);
        }
        self.run(&Work { steps: steps.to_vec(), ..Work::default() }, &mut tree).await
    }

    async fn rollback(&self) -> Journal {
        self.roll_back(&mut self.tree(), Aim::Old).await.unwrap()
    }

    async fn roll_back(&self, tree: &mut Files, aim: Aim) -> Result<Journal, UpgradeError> {
        self.with(tree, async |machine| rollback(machine, aim).await).await
    }

    fn manifests(&self) -> Vec<Vec<u8>> {
        COMPONENTS.iter().map(|c| self.tree().read(&target(c, "").file).unwrap().unwrap_or_default()).collect()
    }

    /// Everything that is the upgrade's: files of the PKI, kubeconfigs, settings, manifests, objects.
    fn state(&self) -> (Contents, BTreeMap<Key, Value>) {
        let tree = self.tree();
        let files = MADE.files().keys().cloned().chain([SETTINGS, MADE_FILE].map(PathBuf::from));
        let manifests = COMPONENTS.iter().map(|component| target(component, "").file);
        (files.chain(manifests).map(|path| (path.clone(), tree.read(&path).unwrap())).collect(), self.shelf.values())
    }

    /// Names of the certificates that are not the first ones.
    fn renewed(&self) -> Vec<&'static str> {
        let there = |one: &Renewable, tree: &dyn Tree| one.current(&self.spec, tree).unwrap().unwrap();
        let is_new = |one: &Renewable| there(one, &self.tree()).fingerprint() != there(one, &*MADE).fingerprint();
        renewables(&self.spec).into_iter().filter(is_new).map(|one| one.name).collect()
    }

    /// Whether each certificate is its key's.
    fn check_pairs(&self, when: &str) {
        let ensured = crate::pki::ensure_certificates(&self.spec, &mut self.tree(), &[], Timestamp::now());
        assert!(ensured.unwrap().iter().all(|one| one.action == crate::pki::Action::Kept), "{when}");
    }
}

fn title() -> Title {
    let (target, command) = ("v2".into(), "kubeboot upgrade apply v2".into());
    Title { target, command, stamp: "2026-11-23-20-30-00".into() }
}

/// A machine whose container runtime does not answer: an upgrade that has its images needs none.
struct NoRuntimes;

#[async_trait]
impl Runtimes for NoRuntimes {
    fn connect(&self, _: Option<&str>) -> crate::runtime::Result<std::sync::Arc<dyn crate::runtime::ContainerRuntime>> {
        Err(crate::runtime::RuntimeError::NotFound { what: "a runtime".into() })
    }

    async fn sandboxes(&self, _: &str) -> crate::runtime::Result<std::sync::Arc<dyn crate::runtime::cri::Sandboxes>> {
        Err(crate::runtime::RuntimeError::NotFound { what: "a runtime".into() })
    }
}

/// A file of the node that is there, and one that is not.
const SETTINGS: &str = "/var/lib/kubelet/config.yaml";
const MADE_FILE: &str = "/var/lib/kubelet/instance-config.yaml";

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

    assert_eq!(bench.rollback().await.state, State::RolledBack);
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
    let mut tree = bench.tree();
    let journal =
        Journal::new("v3", "kubeboot upgrade apply v3", "/etc/kubernetes/tmp/kubeadm-backup-manifests-x".into());
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
    let mut tree = bench.tree();
    let backup = PathBuf::from("/etc/kubernetes/tmp/kubeadm-backup-manifests-x");
    tree.write(&backup.join("etcd.yaml"), &manifest("etcd", "r/x:v1"), 0o600).unwrap();
    tree.remove(&target("etcd", "").file).unwrap();
    let journal = Journal::new("v2", "kubeboot upgrade apply v2", backup);
    journal.write(&mut tree).unwrap();
    let outcome = bench.apply(&bench.steps(&BTreeMap::new()), None).await.unwrap();
    assert!(matches!(outcome, Outcome::Upgraded { .. }), "{outcome:?}");
    assert_eq!(bench.manifests(), all("r/x:v2"));
}

#[tokio::test(start_paused = true)]
async fn certificates_settings_and_objects_go_with_the_components_and_come_back_with_them() {
    let bench = Bench::new();
    let before = bench.state();
    let outcome = bench.run(&bench.work(&BTreeMap::new()), &mut bench.tree()).await.unwrap();
    assert!(matches!(&outcome, Outcome::Upgraded { replaced } if replaced.len() == 4), "{outcome:?}");
    assert_eq!(bench.manifests(), all("r/x:v2"));
    assert_eq!(bench.renewed(), crate::pki::renewable_names());
    bench.check_pairs("after the upgrade");
    let objects = bench.shelf.values();
    assert!(objects.values().all(|object| object["data"]["says"] == "v2") && objects.len() == 2, "{objects:?}");
    assert!(bench.work(&BTreeMap::new()).is_idle());

    assert_eq!(bench.rollback().await.state, State::RolledBack);
    assert!(bench.state() == before, "everything is as it was");
    assert!(bench.renewed().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_failure_anywhere_takes_certificates_settings_and_objects_back_too() {
    for component in COMPONENTS {
        let bench = Bench::new();
        let before = bench.state();
        let work = bench.work(&BTreeMap::from([(component, "r/x:crash")]));
        let outcome = bench.run(&work, &mut bench.tree()).await.unwrap();
        assert!(matches!(outcome, Outcome::RolledBack { .. }), "{component}: {outcome:?}");
        assert!(bench.state() == before, "{component}");
    }
    let bench = Bench::new();
    let before = bench.state();
    bench.shelf.refuses.store(true, Ordering::SeqCst);
    let outcome = bench.run(&bench.work(&BTreeMap::new()), &mut bench.tree()).await.unwrap();
    assert!(matches!(outcome, Outcome::RolledBack { cause: UpgradeError::Objects { .. }, .. }), "{outcome:?}");
    assert!(bench.state() == before);
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_does_not_answer_is_found_out_before_anything_is_touched() {
    let bench = Bench::new();
    let before = bench.state();
    bench.shelf.silent.store(true, Ordering::SeqCst);
    let error = bench.run(&bench.work(&BTreeMap::new()), &mut bench.tree()).await.unwrap_err();
    assert!(matches!(error, UpgradeError::Unreadable(_)), "{error}");
    assert!(bench.state() == before && Journal::read(&bench.tree()).unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn wherever_it_is_killed_the_same_command_ends_new_and_a_rollback_ends_old() {
    let (mut killed, mut n) = (0, 1);
    loop {
        let bench = Bench::new();
        let before = bench.state();
        let (work, mut tree) = (bench.work(&BTreeMap::new()), bench.tree());
        tree.die_at(n);
        let run = AssertUnwindSafe(bench.run(&work, &mut tree)).catch_unwind().await;
        if run.is_ok() {
            break;
        }
        killed += 1;
        if n % 2 == 0 && Journal::read(&bench.tree()).unwrap().is_some() {
            bench.rollback().await;
            assert!(bench.state() == before, "killed at change {n}, rolled back");
        } else {
            let again = bench.run(&bench.work(&BTreeMap::new()), &mut bench.tree()).await.unwrap();
            assert!(matches!(again, Outcome::Upgraded { .. }), "killed at change {n}: {again:?}");
            assert_eq!(bench.manifests(), all("r/x:v2"), "killed at change {n}");
            assert_eq!(bench.renewed(), crate::pki::renewable_names(), "killed at change {n}");
            assert!(bench.shelf.values().values().all(|object| object["data"]["says"] == "v2"));
        }
        bench.check_pairs(&format!("killed at change {n}"));
        // An odd step, so that finishing and taking back alternate.
        n += if n < 8 { 1 } else { 5 };
    }
    assert!(killed > 15, "copies, certificates, manifests, settings, journal: only {killed}");
}
