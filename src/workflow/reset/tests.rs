use super::*;
use crate::host::fs::{make_dirs, write_file};
use crate::host::mounts;
use crate::testing::machine::Bench;
use crate::testing::threads::{apart, tmpfs};
use crate::workflow::init::{self, Order, What};

async fn initialised() -> (Bench, Vec<String>) {
    let bench = Bench::new();
    let before = bench.listing();
    let order = Order { spec: crate::testing::spec(), saved: None, what: What::Everything };
    init::run(&mut bench.machine(), &order).await.unwrap();
    (bench, before)
}

async fn reset(bench: &Bench) -> Result<(), ResetError> {
    let mut machine = bench.machine();
    let planned = prepare(&machine, &Wanted::everything())?.unwrap();
    run(&mut machine, planned).await
}

fn failed_steps(error: ResetError) -> Vec<String> {
    match error {
        ResetError::Steps { failed, .. } => failed.iter().map(|(step, _)| step.to_string()).collect(),
        other => panic!("{other:?}"),
    }
}

fn refused() -> RuntimeError {
    RuntimeError::Refused { call: "call".into(), message: "fails as the test asked".into() }
}

type Fault = fn(&mut Bench, usize);

#[tokio::test]
async fn whichever_step_fails_all_others_are_done_and_the_next_reset_does_the_rest() {
    let faults: &[(&str, Fault)] = &[
        ("file", |bench, n| bench.tree.fail_at(n)),
        ("service", |bench, n| bench.world.fail_at(n)),
        ("list", |bench, n| bench.runtime.fail_nth("list", n, refused())),
        ("stop", |bench, n| bench.runtime.fail_nth("stop", n, refused())),
        ("remove", |bench, n| bench.runtime.fail_nth("remove", n, refused())),
        ("remove_image", |bench, n| bench.runtime.fail_nth("remove_image", n, refused())),
    ];
    for (what, fault) in faults {
        let mut n = 1;
        loop {
            let (mut bench, before) = initialised().await;
            fault(&mut bench, n);
            let Err(error) = reset(&bench).await else { break };
            let failed = failed_steps(error);
            let is_left =
                |path: &&String| path.starts_with("etc/") && !path.ends_with('/') && !path.contains(".wants/");
            let left = bench.listing().iter().filter(is_left).count();
            match *what {
                "file" => assert_eq!((failed.len(), left), (2, 1), "{what} {n}: the file and the records: {failed:?}"),
                _ => assert_eq!(left, 0, "{what} {n}: every file goes all the same: {failed:?}"),
            }
            reset(&bench).await.unwrap();
            assert_eq!(bench.listing(), before, "{what} {n}");
            assert!(bench.runtime.containers().is_empty() && !bench.world.is_running(), "{what} {n}");
            // Every kind of file is among the first; the rest is more of the same.
            n += if *what == "file" && n > 6 { 7 } else { 1 };
        }
        assert!(n > 1, "{what} never failed");
    }
}

#[tokio::test]
async fn without_the_runtime_everything_else_goes_and_the_containers_later() {
    let (bench, before) = initialised().await;
    bench.runtime.set_unreachable(true);
    let failed = failed_steps(reset(&bench).await.unwrap_err());
    assert!(failed[0].contains("containers"), "{failed:?}");
    assert!(failed[1].contains("image"), "{failed:?}");
    assert!(!bench.listing().iter().any(|path| path.starts_with("etc/kubernetes")));
    bench.runtime.set_unreachable(false);
    reset(&bench).await.unwrap();
    assert_eq!(bench.listing(), before);
    assert!(bench.runtime.containers().is_empty());
}

#[tokio::test]
async fn what_somebody_else_put_there_stays_and_is_named() {
    let (bench, before) = initialised().await;
    let theirs = bench.root.path().join("etc/kubernetes/manifests/web.yaml");
    write_file(&theirs, b"kind: Pod", 0o600).unwrap();
    reset(&bench).await.unwrap();
    let mut expected = before;
    expected.extend(
        ["etc/kubernetes/", "etc/kubernetes/manifests/", "etc/kubernetes/manifests/web.yaml"].map(String::from),
    );
    expected.sort();
    assert_eq!(bench.listing(), expected);
    let said = bench.world.events().iter().any(|event| {
        matches!(event,
        Event::Warning { text, .. } if text.contains("manifests: it holds what kubeboot did not make (web.yaml)"))
    });
    assert!(said, "{:?}", bench.world.events());
}

#[tokio::test]
async fn what_was_there_before_init_stays() {
    let bench = Bench::new();
    let root = bench.root.path();
    for dir in
        ["etc/kubernetes/pki", "var/lib/etcd", "var/lib/kubelet", "var/log/pods/other_pod_uid", "var/log/containers"]
    {
        make_dirs(&root.join(dir), 0o755).unwrap();
    }
    write_file(&root.join("etc/kubernetes/mine"), b"x", 0o600).unwrap();
    write_file(&root.join("var/lib/kubelet/mine"), b"x", 0o600).unwrap();
    let before = bench.listing();
    let order = Order { spec: crate::testing::spec(), saved: None, what: What::Everything };
    init::run(&mut bench.machine(), &order).await.unwrap();
    reset(&bench).await.unwrap();
    assert_eq!(bench.listing(), before);
}

/// A pod of the agent's with a secret in memory.
fn pod(root: &Path, uid: &str) -> PathBuf {
    let dir = root.join("var/lib/kubelet/pods").join(uid);
    let secret = dir.join("volumes/kubernetes.io~secret/s");
    make_dirs(&secret, 0o755).unwrap();
    write_file(&dir.join(".kubeboot"), b"", 0o600).unwrap();
    tmpfs(&secret);
    write_file(&secret.join("token"), b"jwt", 0o600).unwrap();
    secret
}

#[test]
fn what_the_agents_pods_have_mounted_goes_whoever_made_their_directory() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for linked in [false, true] {
        apart(|| {
            let bench = Bench::new();
            let root = bench.root.path().to_owned();
            make_dirs(&root.join("var/lib/kubelet/pods/theirs"), 0o755).unwrap();
            make_dirs(&root.join("var/log/pods/shop_theirs_theirs"), 0o755).unwrap();
            if linked {
                std::fs::rename(root.join("var"), root.join("disk")).unwrap();
                std::os::unix::fs::symlink(root.join("disk"), root.join("var")).unwrap();
            }
            let before = bench.listing();
            let order = Order { spec: crate::testing::spec(), saved: None, what: What::Everything };
            runtime().block_on(init::run(&mut bench.machine(), &order)).unwrap();
            let secret = pod(&root, "ours");
            make_dirs(&root.join("var/log/pods/shop_web_ours/c"), 0o755).unwrap();
            let mut machine = bench.machine();
            let planned = prepare(&machine, &Wanted::everything()).unwrap().unwrap();
            // The agent of this world leaves one without a mark.
            write_file(&root.join("var/lib/kubelet/pods/uid/.kubeboot"), b"", 0o600).unwrap();
            // It comes to be while the agent is being stopped.
            pod(&root, "late");
            runtime().block_on(run(&mut machine, planned)).unwrap();
            drop(machine);
            assert!(!secret.exists() && mounts::below(&root).unwrap().is_empty(), "linked: {linked}");
            assert_eq!(bench.listing(), before, "linked: {linked}");
        });
    }
}

#[tokio::test]
async fn a_stopped_reset_is_finished_by_the_next_one() {
    let (bench, before) = initialised().await;
    let mut machine = bench.machine();
    machine.stop.cancel();
    let planned = prepare(&machine, &Wanted::everything()).unwrap().unwrap();
    assert!(matches!(run(&mut machine, planned).await, Err(ResetError::Interrupted)));
    drop(machine);
    reset(&bench).await.unwrap();
    assert_eq!(bench.listing(), before);
}

/// What a reset of some phases leaves undone of `steps`.
async fn reset_parts(bench: &Bench, parts: &[Part]) {
    let mut machine = bench.machine();
    let wanted = Wanted { parts: parts.to_vec(), ..Wanted::everything() };
    let planned = prepare(&machine, &wanted).unwrap().unwrap();
    run(&mut machine, planned).await.unwrap();
}

#[tokio::test]
async fn phases_one_by_one_end_as_the_whole_does_and_the_records_stay_until_then() {
    let (bench, before) = initialised().await;
    let etcd = bench.root.path().join("var/lib/etcd");
    let machine = bench.machine();
    let alone = Wanted { parts: vec![Part::Etcd], ..Wanted::everything() };
    assert!(matches!(prepare(&machine, &alone), Err(ResetError::EtcdRuns)));
    drop(machine);
    reset_parts(&bench, &[Part::Preflight]).await;
    assert!(bench.world.is_running());
    reset_parts(&bench, &[Part::Node]).await;
    assert!(etcd.exists() && !bench.world.is_running() && !bench.root.path().join("etc/kubernetes").exists());
    reset_parts(&bench, &[Part::Etcd]).await;
    assert!(!etcd.exists());
    reset(&bench).await.unwrap();
    assert_eq!(bench.listing(), before);
}

#[test]
fn phases_are_kubeadms_and_skipping_leaves_the_others() {
    let names: Vec<&str> = PHASES.list.iter().map(|phase| phase.name).collect();
    assert_eq!(names, ["preflight", "remove-etcd-member", "cleanup-node"]);
    assert!(OPTIONS.iter().all(|row| names.contains(&row.name)) && OPTIONS.len() == names.len());
    let input = crate::config::Input {
        file: None,
        flags: crate::config::ResetFlags { skip_phases: vec!["remove-etcd-member".into()], ..Default::default() },
        host: Default::default(),
    };
    let spec = crate::config::load_reset(&input).unwrap().spec;
    assert_eq!(Wanted::of(&spec, None).unwrap().parts, [Part::Preflight, Part::Node]);
    assert_eq!(Wanted::of(&spec, Some("remove-etcd-member")).unwrap().parts, [Part::Etcd]);
    assert!(Wanted::of(&spec, Some("nope")).is_err());
}
