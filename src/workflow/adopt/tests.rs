use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use futures::FutureExt;

use super::*;
use crate::host::Paths;
use crate::host::fs::{make_dirs, write_file};
use crate::manifests::COMPONENTS;
use crate::testing::machine::{Bench, World};

mod settings;

/// Processes of a kubelet's pods: they are there while it runs and sees their manifests, and end when they are waited
/// for after that.
struct Pods {
    paths: Paths,
    world: Arc<World>,
    /// Whether the kubelet lets its pods run on.
    stubborn: bool,
    ending: AtomicBool,
}

impl Pods {
    fn of(bench: &Bench) -> Self {
        let paths = bench.machine().paths;
        Self { paths, world: bench.world.clone(), stubborn: false, ending: AtomicBool::new(true) }
    }

    fn kubelet_runs(&self) -> bool {
        self.world.is_running() && !self.paths.on_host(KUBELET_ADOPTED).exists()
    }
}

#[async_trait]
impl Processes for Pods {
    fn find(&self, commands: &[Vec<String>]) -> Vec<u32> {
        let sees = |line: &Vec<String>| self.paths.manifest(&line[0]).exists();
        match self.kubelet_runs() && commands.iter().any(sees) {
            true => vec![7],
            false if self.stubborn || self.ending.load(Ordering::SeqCst) => vec![8],
            false => vec![],
        }
    }

    async fn ended(&self, pid: u32) -> Result<(), ProcessError> {
        if pid == 7 || self.stubborn {
            std::future::pending::<()>().await;
        }
        self.ending.store(false, Ordering::SeqCst);
        Ok(())
    }

    fn listens(&self, _: u32) -> bool {
        true
    }

    fn kill(&self, _: u32) -> Result<(), ProcessError> {
        Ok(())
    }
}

fn manifest(component: &str) -> String {
    let image = crate::manifests::images(&crate::testing::spec()).remove(0).reference;
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {component}, labels: {{component: {component}}}, annotations: {{\
         kubeadm.kubernetes.io/kube-apiserver.advertise-address.endpoint: '10.0.0.7:7443'}}}}\n\
         spec:\n  containers:\n  - {{name: {component}, image: \"{image}\", command: [{component}, --x]}}\n"
    )
}

/// A node as kubeadm leaves it.
fn node() -> (Bench, Vec<String>) {
    let bench = Bench::new();
    let root = bench.root.path();
    for dir in ["etc/kubernetes/manifests", "var/lib/kubelet/pods", "etc/systemd/system/kubelet.service.d"] {
        make_dirs(&root.join(dir), 0o755).unwrap();
    }
    write_file(
        &root.join("var/lib/kubelet/config.yaml"),
        b"staticPodPath: /etc/kubernetes/manifests\ncontainerRuntimeEndpoint: unix:///run/c.sock\n",
        0o644,
    )
    .unwrap();
    for component in COMPONENTS {
        let path = root.join(format!("etc/kubernetes/manifests/{component}.yaml"));
        write_file(&path, manifest(component).as_bytes(), 0o600).unwrap();
    }
    bench.machine().service.start().unwrap();
    let listing = before(&bench);
    (bench, listing)
}

/// Every path but those that a running agent of ours leaves in /run and /var/log beside the kubelet's.
fn before(bench: &Bench) -> Vec<String> {
    bench.listing()
}

async fn adopt(bench: &Bench, pods: &Pods) -> Result<Outcome, AdoptError> {
    run(&mut bench.machine(), &AdoptRequest::default(), pods).await
}

#[tokio::test]
async fn a_node_is_taken_over_and_given_back_as_it_was() {
    let (bench, before) = node();
    let pods = Pods::of(&bench);
    assert!(is_foreign_node(&bench.machine()));
    assert_eq!(adopt(&bench, &pods).await.unwrap(), Outcome::Adopted);
    assert!(!pods.kubelet_runs() && bench.world.is_running());
    assert!(bench.root.path().join(&KUBELET_ADOPTED[1..]).exists());
    assert_eq!(bench.runtime.containers().len(), COMPONENTS.len());
    let starts = bench.world.calls().iter().filter(|call| **call == "start").count();
    assert_eq!(adopt(&bench, &pods).await.unwrap(), Outcome::AlreadyAdopted);
    assert_eq!(bench.world.calls().iter().filter(|call| **call == "start").count(), starts, "nothing is restarted");

    give_back(&mut bench.machine(), &pods).await.unwrap();
    assert!(pods.kubelet_runs() && bench.runtime.containers().is_empty());
    assert_eq!(bench.listing(), before);
    assert!(matches!(give_back(&mut bench.machine(), &pods).await, Err(AdoptError::NotAdopted)));
}

#[tokio::test]
async fn what_a_kill_in_the_middle_of_a_copy_leaves_is_no_manifest() {
    let (mut bench, before) = node();
    let pods = Pods::of(&bench);
    let aside = bench.root.path().join(&ADOPTED_MANIFESTS[1..]);
    let mut n = 1;
    while std::fs::read_dir(&aside).map_or(0, Iterator::count) == 0 {
        bench.tree.die_at(n);
        let mut machine = bench.machine();
        let order = AdoptRequest::default();
        assert!(AssertUnwindSafe(run(&mut machine, &order, &pods)).catch_unwind().await.is_err(), "{n}");
        n += 1;
    }
    let half = format!("{}half", crate::host::fs::TEMPORARY_PREFIX);
    for dir in [aside, bench.root.path().join(&MANIFESTS_DIR[1..])] {
        write_file(&dir.join(&half), b"apiVersion: v1\nkind: P", 0o600).unwrap();
    }
    give_back(&mut bench.machine(), &pods).await.unwrap();
    assert_eq!(bench.listing(), before);
}

type Fault = fn(&mut Bench, usize);

#[tokio::test]
async fn whichever_step_fails_the_kubelet_runs_its_pods_as_before_and_the_next_run_succeeds() {
    let faults: &[(&str, Fault)] = &[
        ("file", |bench, n| bench.tree.fail_at(n)),
        ("service", |bench, n| bench.world.fail_at(n)),
        ("health", |bench, n| {
            if n == 1 {
                bench.world.make_sick("etcd");
            }
        }),
    ];
    for (what, fault) in faults {
        let mut n = 1;
        loop {
            let (mut bench, before) = node();
            let pods = Pods::of(&bench);
            fault(&mut bench, n);
            tokio::time::pause();
            let failed = adopt(&bench, &pods).await;
            tokio::time::resume();
            let Err(error) = failed else { break };
            assert!(!matches!(error, AdoptError::Stuck { .. }), "{what} {n}: {error:?}");
            assert!(pods.kubelet_runs(), "{what} {n}: {error:?}");
            assert_eq!(bench.listing(), before, "{what} {n}: {error:?}");
            assert!(bench.runtime.containers().is_empty(), "{what} {n}");
            if *what != "health" {
                pods.ending.store(true, Ordering::SeqCst);
                adopt(&bench, &pods).await.unwrap();
            }
            n += 1;
        }
        assert!(n > 1, "{what} never failed");
    }
}

#[tokio::test]
async fn a_run_that_was_killed_is_finished_by_the_next_one_or_taken_back() {
    for finish in [true, false] {
        let mut n = 1;
        loop {
            let (mut bench, before) = node();
            let pods = Pods::of(&bench);
            bench.tree.die_at(n);
            let mut machine = bench.machine();
            let order = AdoptRequest::default();
            let killed = AssertUnwindSafe(run(&mut machine, &order, &pods)).catch_unwind().await;
            if killed.is_ok() {
                break;
            }
            match finish {
                true => assert_eq!(adopt(&bench, &pods).await.unwrap(), Outcome::Adopted, "{n}"),
                false => {
                    give_back(&mut bench.machine(), &pods).await.unwrap();
                    assert_eq!(bench.listing(), before, "{n}");
                }
            }
            let manifests = manifests::names(&bench.machine().paths, MANIFESTS_DIR).unwrap();
            assert_eq!(manifests.len(), COMPONENTS.len(), "{n}");
            n += 1;
        }
        assert!(n > COMPONENTS.len(), "{n}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_kubelet_that_does_not_stop_its_pods_keeps_them() {
    let (bench, before) = node();
    let pods = Pods { stubborn: true, ..Pods::of(&bench) };
    let error = adopt(&bench, &pods).await.unwrap_err();
    assert!(
        matches!(&error, AdoptError::Undone(cause) if matches!(**cause, AdoptError::StillRunning { .. })),
        "{error:?}"
    );
    assert!(pods.kubelet_runs());
    assert_eq!(bench.listing(), before);
}

#[tokio::test]
async fn nothing_is_touched_where_an_image_is_not_to_be_had() {
    let (bench, before) = node();
    let path = bench.root.path().join("etc/kubernetes/manifests/etcd.yaml");
    write_file(&path, manifest("etcd").replace("image: \"", "image: \"nowhere.example/").as_bytes(), 0o600).unwrap();
    let stops = bench.world.calls().iter().filter(|call| **call == "stop").count();
    let error = adopt(&bench, &Pods::of(&bench)).await.unwrap_err();
    assert!(matches!(error, AdoptError::Images(_)), "{error:?}");
    assert_eq!(bench.world.calls().iter().filter(|call| **call == "stop").count(), stops);
    assert_eq!(bench.listing(), before);
}

#[tokio::test]
async fn what_is_no_node_of_kubeadms_is_refused() {
    let bench = Bench::new();
    let error = adopt(&bench, &Pods::of(&bench)).await.unwrap_err();
    assert!(matches!(error, AdoptError::NoNode { .. }), "{error:?}");
    let (bench, _) = node();
    bench.machine().service.stop().unwrap();
    let error = adopt(&bench, &Pods::of(&bench)).await.unwrap_err();
    assert!(matches!(error, AdoptError::NotRunning), "{error:?}");
    let link = bench.root.path().join("etc/kubernetes/manifests/link.yaml");
    std::os::unix::fs::symlink("etcd.yaml", link).unwrap();
    let error = adopt(&bench, &Pods::of(&bench)).await.unwrap_err();
    assert!(error.to_string().contains("it is a link"), "{error}");
}
