//! Renewals on a machine of fakes: each step failed, each step killed.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, LazyLock, Mutex};

use async_trait::async_trait;
use futures::FutureExt;
use futures::stream::{self, BoxStream};
use tempfile::TempDir;

use super::*;
use crate::agent::control::expect::HealthSource;
use crate::event::Silent;
use crate::host::tree::{HostTree, NoRecord};
use crate::pki::{ensure_certificates, ensure_kubeconfigs};
use crate::testing::report::{pod, report};
use crate::testing::tree::{FaultyTree, Killed};

type Files = FaultyTree<HostTree<NoRecord>>;

/// Components that read their certificates when they start, an agent that restarts them, and who looks at them.
#[derive(Clone)]
struct World(Arc<Mutex<State>>, Paths, ClusterSpec);

#[derive(Default)]
struct State {
    /// How often each component was started.
    starts: BTreeMap<&'static str, u32>,
    /// What each had read by then: the certificate at each address it serves.
    serving: BTreeMap<SocketAddr, String>,
    restarts: Vec<String>,
    sick: Option<&'static str>,
    stale: bool,
}

fn now() -> Timestamp {
    Timestamp::now()
}

/// What every test begins with.
static MADE: LazyLock<MemoryTree> = LazyLock::new(|| {
    let (spec, mut tree) = (crate::testing::spec(), MemoryTree::empty());
    ensure_certificates(&spec, &mut tree, &[], now()).unwrap();
    ensure_kubeconfigs(&spec, &mut tree, &[], now()).unwrap();
    tree
});

struct Bench {
    _root: TempDir,
    paths: Paths,
    spec: ClusterSpec,
    tree: Files,
    world: World,
}

impl Bench {
    /// A machine that runs.
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let (paths, spec) = (Paths::new(root.path()), crate::testing::spec());
        let mut tree = FaultyTree::new(HostTree::new(paths.clone(), NoRecord));
        for (path, file) in MADE.files() {
            tree.write(path, &file.content, file.mode).unwrap();
        }
        for component in COMPONENTS {
            tree.write(&file_of(component), component.as_bytes(), 0o600).unwrap();
        }
        let world = World(Arc::default(), paths.clone(), spec.clone());
        COMPONENTS.iter().for_each(|component| world.start(component));
        Self { _root: root, paths, spec, tree, world }
    }

    async fn renew(
        &mut self,
        names: &[&str],
        restart: bool,
    ) -> (Result<Summary, RenewalError>, Vec<(String, RenewalStatus)>) {
        let mut said = Vec::new();
        let mut reported = |name: &str, reported: RenewalStatus| said.push((name.to_owned(), reported));
        let wanted: Vec<Renewable> = pki::renewables(&self.spec)
            .into_iter()
            .filter(|one| names.is_empty() || names.contains(&one.name))
            .collect();
        let mut machine = Machine {
            paths: self.paths.clone(),
            tree: &mut self.tree,
            spec: &self.spec,
            agent: Some(&self.world as &dyn Restarter).filter(|_| restart),
            live_certificates: &self.world,
            reporter: &Silent,
            reported: &mut reported,
            limit: Duration::from_secs(60),
        };
        let result = run(&mut machine, &wanted, now()).await;
        (result, said)
    }

    fn serials(&self) -> BTreeMap<&'static str, String> {
        let all = pki::renewables(&self.spec);
        all.iter().map(|one| (one.name, one.current(&self.spec, &self.tree).unwrap().unwrap().fingerprint())).collect()
    }

    /// Whether every pair and kubeconfig is sound: init itself looks.
    fn is_sound(&mut self) -> bool {
        let mut tree = HostTree::new(self.paths.clone(), NoRecord);
        ensure_certificates(&self.spec, &mut tree, &[], now()).is_ok()
            && ensure_kubeconfigs(&self.spec, &mut tree, &[], now()).is_ok()
    }

    fn journal(&self) -> bool {
        self.tree.exists(Path::new(journal::JOURNAL))
    }
}

impl World {
    fn start(&self, component: &'static str) {
        let tree = HostTree::new(self.1.clone(), NoRecord);
        let mut state = self.0.lock().unwrap();
        *state.starts.entry(component).or_default() += 1;
        let started = state.starts[component];
        for row in table::USES.iter().filter(|row| row.component == Some(component)) {
            if let Shows::Served(address) = row.shows {
                let all = pki::renewables(&self.2);
                let one = all.iter().find(|one| one.name == row.name).unwrap();
                let pem = one.current(&self.2, &tree).unwrap().unwrap().pem();
                state.serving.insert(address(&self.2), pem);
            }
        }
        if let Some(address) = own_port(&self.2, component) {
            // Self-signed, new with each start.
            let mut memory = MemoryTree::empty();
            ensure_certificates(&self.2, &mut memory, &["ca"], now()).unwrap();
            let ca = memory.files()[Path::new("/etc/kubernetes/pki/ca.crt")].content.clone();
            state.serving.insert(address, format!("{}\n# {started}", String::from_utf8(ca).unwrap()));
        }
    }

    fn report(&self) -> HealthReport {
        let state = self.0.lock().unwrap();
        let pods = state.starts.iter().map(|(component, starts)| {
            let mut one = pod(component, &sha256(component.as_bytes()));
            one.containers[0].id = Some(format!("{component}-{starts}"));
            one.healthy = state.sick != Some(component);
            if !one.healthy {
                one.containers[0].state = crate::agent::control::report::StateReport::Waiting {
                    reason: "CrashLoopBackOff".into(),
                    message: "it says no".into(),
                };
            }
            one
        });
        report(pods.collect())
    }
}

#[async_trait]
impl HealthSource for World {
    async fn watch(&self) -> Result<BoxStream<'static, HealthReport>, Cause> {
        let world = self.clone();
        Ok(stream::unfold(world, |world| async move { Some((world.report(), world)) }).boxed())
    }
}

#[async_trait]
impl Restarter for World {
    async fn restart(&self, uid: &str) -> Result<(), Cause> {
        let component = COMPONENTS.into_iter().find(|component| uid.contains(component)).unwrap();
        self.0.lock().unwrap().restarts.push(component.to_owned());
        self.start(component);
        Ok(())
    }
}

#[async_trait]
impl LiveCertificates for World {
    async fn served(&self, address: SocketAddr) -> Result<Certificate, Cause> {
        let state = self.0.lock().unwrap();
        let pem = state.serving.get(&address).ok_or("connection refused")?;
        // etcd reads its files for each connection.
        let name = match address.port() {
            2379 if !state.stale => "etcd-server",
            2380 if !state.stale => "etcd-peer",
            _ => return Ok(crate::pki::inspect::read(pem.as_bytes())?.remove(0)),
        };
        let all = pki::renewables(&self.2);
        let one = all.iter().find(|one| one.name == name).unwrap();
        Ok(one.current(&self.2, &HostTree::new(self.1.clone(), NoRecord))?.unwrap())
    }

    async fn known(&self, _: &ClusterSpec, _: &str) -> Result<(), Cause> {
        match self.0.lock().unwrap().starts["kube-apiserver"] {
            0 => Err("nobody answers".into()),
            _ => Ok(()),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn only_what_must_be_is_restarted_and_every_new_certificate_is_seen() {
    for (names, restarted, proven) in [
        (&["apiserver"][..], &["kube-apiserver"][..], 1),
        (&["apiserver-etcd-client", "front-proxy-client"], &["kube-apiserver"], 2),
        (&["etcd-server", "etcd-peer"], &[], 2),
        (&["scheduler.conf"], &["kube-scheduler"], 1),
        (&["admin.conf"], &[], 1),
        (&["etcd-healthcheck-client"], &[], 0),
        (&[], &["kube-apiserver", "kube-controller-manager", "kube-scheduler"], 10),
    ] {
        let mut bench = Bench::new();
        let before = bench.serials();
        let (result, reported) = bench.renew(names, true).await;
        let summary = result.unwrap();
        assert_eq!(summary.restarted, restarted, "{names:?}");
        assert_eq!(bench.world.0.lock().unwrap().restarts, restarted, "{names:?}");
        assert_eq!((summary.proven.len(), summary.left), (proven, vec![]), "{names:?}");
        assert!(reported.iter().all(|(_, reported)| *reported == RenewalStatus::Renewed) && !reported.is_empty());
        let after = bench.serials();
        for (name, serial) in before {
            assert_eq!(serial != after[name], names.is_empty() || names.contains(&name), "{name}");
        }
        assert!(bench.is_sound() && !bench.journal());
    }
}

#[tokio::test(start_paused = true)]
async fn an_etcd_that_goes_on_with_the_old_certificate_is_restarted() {
    let mut bench = Bench::new();
    bench.world.0.lock().unwrap().stale = true;
    let summary = bench.renew(&["etcd-server"], true).await.0.unwrap();
    assert_eq!((summary.restarted, summary.proven), (vec!["etcd".to_owned()], vec!["etcd-server".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn without_an_agent_only_files_are_written() {
    let mut bench = Bench::new();
    let (result, reported) = bench.renew(&[], false).await;
    let summary = result.unwrap();
    assert_eq!(summary.left, COMPONENTS);
    assert_eq!(reported.len(), 11);
    assert!(bench.world.0.lock().unwrap().restarts.is_empty() && bench.is_sound() && !bench.journal());
}

#[tokio::test(start_paused = true)]
async fn whichever_change_fails_everything_is_old_or_new_and_the_next_run_finishes() {
    let mut bench = Bench::new();
    let start = bench.tree.changes();
    bench.renew(&[], true).await.0.unwrap();
    let changes = bench.tree.changes() - start;
    assert!(changes > 20, "{changes}");
    for fail_at in 1..=changes {
        let mut bench = Bench::new();
        let before = bench.serials();
        bench.tree.fail_at(fail_at);
        let failed = bench.renew(&[], true).await.0;
        assert!(failed.is_err(), "change {fail_at}");
        assert!(bench.is_sound(), "change {fail_at}");
        let after = bench.serials();
        let same = before.iter().filter(|(name, serial)| after[*name] == **serial).count();
        assert!(same == 0 || same == before.len(), "change {fail_at}: {same} of {} are old", before.len());
        let summary = bench.renew(&[], true).await.0.unwrap();
        assert_eq!(summary.proven.len(), 10, "change {fail_at}");
        assert!(bench.serials().iter().all(|(name, serial)| before[name] != *serial), "change {fail_at}");
        assert!(bench.is_sound() && !bench.journal(), "change {fail_at}");
    }
}

#[tokio::test(start_paused = true)]
async fn killed_at_whichever_change_the_next_run_converges_and_restarts_what_did_not_restart() {
    let mut bench = Bench::new();
    let start = bench.tree.changes();
    bench.renew(&[], true).await.0.unwrap();
    let changes = bench.tree.changes() - start;
    for die_at in 1..=changes {
        let mut bench = Bench::new();
        let before = bench.serials();
        bench.tree.die_at(die_at);
        let killed = AssertUnwindSafe(bench.renew(&[], true)).catch_unwind().await.err().unwrap();
        assert!(killed.is::<Killed>(), "change {die_at}");
        // The agent that starts on such a machine, or the next renewal, completes the files.
        if recover(&mut bench.tree).unwrap() {
            assert!(bench.is_sound(), "change {die_at}");
        }
        let (result, _) = bench.renew(&[], true).await;
        result.unwrap();
        assert!(bench.serials().iter().all(|(name, serial)| before[name] != *serial), "change {die_at}");
        assert!(bench.is_sound() && !bench.journal(), "change {die_at}");
        let served = bench.world.served(SocketAddr::new(bench.spec.node.advertise_address, 6443)).await.unwrap();
        assert_eq!(served.fingerprint(), bench.serials()["apiserver"], "change {die_at}");
        let restarts = bench.world.0.lock().unwrap().restarts.clone();
        assert!(restarts.len() <= 4, "change {die_at}: {restarts:?}");
    }
}

#[tokio::test]
async fn a_certificate_without_its_key_is_mended_once_the_command_is_gone() {
    let mut mended = 0;
    for die_at in 1..20 {
        let mut bench = Bench::new();
        drop(crate::workflow::state::State::open_or_create(&bench.paths).unwrap());
        let command = Session::attach(&bench.paths).unwrap();
        bench.tree.die_at(die_at);
        let killed = AssertUnwindSafe(bench.renew(&["etcd-server", "etcd-peer"], true)).catch_unwind().await;
        if killed.is_ok() || bench.is_sound() {
            continue;
        }
        let waiting = tokio::spawn(recover_when_free(bench.paths.clone()));
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!waiting.is_finished() && !bench.is_sound(), "change {die_at}: the command may be at it still");
        drop(command);
        assert!(waiting.await.unwrap().unwrap() && bench.is_sound(), "change {die_at}");
        mended += 1;
        bench.renew(&[], true).await.0.unwrap();
        assert!(!recover_when_free(bench.paths.clone()).await.unwrap(), "nothing is left to do");
    }
    assert_eq!(mended, 2, "a certificate of etcd's was there without its key");
}

#[tokio::test(start_paused = true)]
async fn a_component_that_does_not_come_back_is_named_and_the_next_run_goes_on_with_it() {
    let mut bench = Bench::new();
    bench.world.0.lock().unwrap().sick = Some("kube-controller-manager");
    let error = bench.renew(&[], true).await.0.unwrap_err();
    let RenewalError::Unhealthy { component, source } = error else { panic!("{error}") };
    assert_eq!(component, "kube-controller-manager");
    assert!(source.to_string().contains("it says no"), "{source}");
    assert!(bench.journal() && bench.is_sound());
    bench.world.0.lock().unwrap().sick = None;
    let serials = bench.serials();
    let summary = bench.renew(&[], true).await.0.unwrap();
    assert_eq!(summary.restarted, ["kube-controller-manager", "kube-scheduler"]);
    assert_eq!(bench.serials(), serials, "what was renewed is not renewed again");
    assert_eq!(
        bench.world.0.lock().unwrap().restarts,
        ["kube-apiserver", "kube-controller-manager", "kube-scheduler"],
        "each once"
    );
}

#[tokio::test(start_paused = true)]
async fn a_server_that_shows_another_certificate_is_an_error() {
    let mut bench = Bench::new();
    let stubborn = bench.world.clone();
    bench.renew(&["apiserver"], true).await.0.unwrap();
    let address = SocketAddr::new(bench.spec.node.advertise_address, 6443);
    let other = Bench::new().world.served(address).await.unwrap().pem();
    stubborn.0.lock().unwrap().serving.insert(address, other);
    let mut reported = |_: &str, _: RenewalStatus| {};
    let machine = Machine {
        paths: bench.paths.clone(),
        tree: &mut bench.tree,
        spec: &bench.spec,
        agent: Some(&stubborn),
        live_certificates: &stubborn,
        reporter: &Silent,
        reported: &mut reported,
        limit: Duration::from_secs(1),
    };
    assert!(matches!(prove(&machine, "apiserver").await, Err(RenewalError::Other { .. })));
}

#[test]
fn a_journal_is_for_root_alone_and_a_damaged_one_is_named() {
    let mut tree = MemoryTree::empty();
    Journal::default().write(&mut tree).unwrap();
    assert_eq!(tree.files()[Path::new(journal::JOURNAL)].mode, 0o600);
    tree.write(Path::new(journal::JOURNAL), b"{", 0o600).unwrap();
    let error = recover(&mut tree).unwrap_err().to_string();
    assert!(error.contains("is damaged"), "{error}");
}
