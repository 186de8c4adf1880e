use super::*;
use crate::event::Event;
use crate::host::fs::{make_dirs, write_file};
use crate::host::mounts;
use crate::host::tree::{HostTree, Tree};
use crate::testing::machine::Bench;
use crate::testing::threads::{apart, tmpfs};
use crate::workflow::init::{self, InitRequest, PhaseSelection};
use crate::workflow::upgrade::journal::{DataCopy, Journal};

async fn initialised() -> (Bench, Vec<String>) {
    let bench = Bench::new();
    let before = bench.listing();
    let order = InitRequest { spec: crate::testing::spec(), saved: None, what: PhaseSelection::Everything };
    init::run(&mut bench.machine(), &order).await.unwrap();
    (bench, before)
}

async fn reset(bench: &Bench) -> Result<(), ResetError> {
    let mut machine = bench.machine();
    let planned = prepare(&machine, &ResetOptions::everything())?.unwrap();
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
    let order = InitRequest { spec: crate::testing::spec(), saved: None, what: PhaseSelection::Everything };
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
            let order = InitRequest { spec: crate::testing::spec(), saved: None, what: PhaseSelection::Everything };
            runtime().block_on(init::run(&mut bench.machine(), &order)).unwrap();
            let secret = pod(&root, "ours");
            make_dirs(&root.join("var/log/pods/shop_web_ours/c"), 0o755).unwrap();
            let mut machine = bench.machine();
            let planned = prepare(&machine, &ResetOptions::everything()).unwrap().unwrap();
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
async fn what_an_agent_that_is_being_stopped_still_makes_goes_from_a_kubelets_directory_too() {
    let bench = Bench::new();
    let kubelet = bench.root.path().join("var/lib/kubelet");
    make_dirs(&kubelet.join("device-plugins"), 0o755).unwrap();
    let before = bench.listing();
    let order = InitRequest { spec: crate::testing::spec(), saved: None, what: PhaseSelection::Everything };
    init::run(&mut bench.machine(), &order).await.unwrap();
    let mut machine = bench.machine();
    let planned = prepare(&machine, &ResetOptions::everything()).unwrap().unwrap();
    make_dirs(&kubelet.join("pki"), 0o755).unwrap();
    write_file(&kubelet.join("pki/kubelet.key"), b"key", 0o600).unwrap();
    run(&mut machine, planned).await.unwrap();
    drop(machine);
    assert_eq!(bench.listing(), before);
}

#[tokio::test]
async fn a_stopped_reset_is_finished_by_the_next_one() {
    let (bench, before) = initialised().await;
    let mut machine = bench.machine();
    machine.stop.cancel();
    let planned = prepare(&machine, &ResetOptions::everything()).unwrap().unwrap();
    assert!(matches!(run(&mut machine, planned).await, Err(ResetError::Interrupted)));
    drop(machine);
    reset(&bench).await.unwrap();
    assert_eq!(bench.listing(), before);
}

/// What a reset of some phases leaves undone of `steps`.
async fn reset_parts(bench: &Bench, parts: &[Part]) {
    let mut machine = bench.machine();
    let wanted = ResetOptions { parts: parts.to_vec(), ..ResetOptions::everything() };
    let planned = prepare(&machine, &wanted).unwrap().unwrap();
    run(&mut machine, planned).await.unwrap();
}

#[tokio::test]
async fn a_whole_reset_reports_its_phases_in_kubeadms_order_and_stops_etcd_before_its_data_go() {
    let (bench, _) = initialised().await;
    let before = bench.world.events().len();
    reset(&bench).await.unwrap();
    let reported: Vec<String> = bench.world.events()[before..]
        .iter()
        .filter_map(|event| match event {
            Event::PhaseStarted { phase, .. } => Some(format!("{phase} begins")),
            Event::PhaseDone { phase, .. } => Some(format!("{phase} done")),
            Event::Note { text, .. } => Some(text.clone()),
            _ => None,
        })
        .collect();
    let at = |text: &str| reported.iter().position(|one| one == text).unwrap_or_else(|| panic!("{text}: {reported:?}"));
    let order = [
        "remove-etcd-member begins",
        "stop and disable the node agent (service kubelet)",
        "stop and remove the containers of the static pods",
        "remove /var/lib/etcd and everything in it",
        "remove-etcd-member done",
        "cleanup-node begins",
        "remove directory /etc/kubernetes",
        "cleanup-node done",
        "remove /var/lib/kubeboot, kubeboot's own records",
    ];
    assert!(order.map(at).is_sorted(), "{reported:?}");
}

#[tokio::test]
async fn phases_one_by_one_end_as_the_whole_does_and_the_records_stay_until_then() {
    let (bench, before) = initialised().await;
    let etcd = bench.root.path().join("var/lib/etcd");
    let machine = bench.machine();
    let alone = ResetOptions { parts: vec![Part::Etcd], ..ResetOptions::everything() };
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

#[tokio::test]
async fn beside_an_agent_that_no_service_has_started_nothing_is_removed() {
    let (bench, before) = initialised().await;
    let there = bench.listing();
    let _ = bench.machine().service.stop().unwrap();
    let root = bench.root.path().join("var/lib/kubelet");
    let lock = crate::host::lock::try_lock(&root.join("kubeboot-agent.lock")).unwrap();
    let error = reset(&bench).await.unwrap_err();
    assert!(matches!(&error, ResetError::OtherAgent { pid: Some(pid) } if *pid == std::process::id()), "{error}");
    assert!(error.to_string().contains(&format!("kill {}", std::process::id())), "{error}");
    let left = bench.listing();
    assert!(there.iter().all(|path| left.contains(path)), "{there:?} {left:?}");
    drop(lock);
    let _ = std::fs::remove_file(root.join("kubeboot-agent.lock"));
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
    assert_eq!(ResetOptions::of(&spec, None).unwrap().parts, [Part::Preflight, Part::Node]);
    assert_eq!(ResetOptions::of(&spec, Some("remove-etcd-member")).unwrap().parts, [Part::Etcd]);
    assert!(ResetOptions::of(&spec, Some("nope")).is_err());
}

fn warnings(bench: &Bench) -> Vec<String> {
    let text = |event: &Event| match event {
        Event::Warning { text, .. } => Some(text.clone()),
        _ => None,
    };
    bench.world.events().iter().filter_map(text).collect()
}

#[tokio::test]
async fn a_configuration_that_is_damaged_or_newer_stops_no_reset() {
    for damage in [&b"{"[..], b"", b"{\"ofTomorrow\": 1}"] {
        let (bench, before) = initialised().await;
        write_file(&bench.root.path().join("var/lib/kubeboot/input.json"), damage, 0o600).unwrap();
        reset(&bench).await.unwrap();
        assert_eq!(bench.listing(), before);
        assert!(warnings(&bench).iter().any(|text| text.contains("input.json")), "{:?}", warnings(&bench));
    }
}

#[tokio::test]
async fn a_record_of_the_inventory_that_makes_no_sense_is_named_and_all_others_count() {
    let (bench, before) = initialised().await;
    let path = bench.root.path().join("var/lib/kubeboot/inventory.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.insert(1, "{\"record\":\"ofTomorrow\"}");
    lines.insert(2, "broken");
    write_file(&path, (lines.join("\n") + "\n").as_bytes(), 0o600).unwrap();
    reset(&bench).await.unwrap();
    assert_eq!(bench.listing(), before);
    let named = warnings(&bench);
    assert!(["line 2", "line 3"].iter().all(|line| named.iter().any(|text| text.contains(line))), "{named:?}");
}

#[tokio::test]
async fn without_an_inventory_what_is_known_to_be_ours_goes_and_the_rest_is_named() {
    for is_there in [true, false] {
        let (bench, _) = initialised().await;
        let path = bench.root.path().join("var/lib/kubeboot/inventory.json");
        match is_there {
            true => drop(write_file(&path, b"", 0o600).unwrap()),
            false => std::fs::remove_file(&path).unwrap(),
        }
        reset(&bench).await.unwrap();
        assert!(bench.runtime.containers().is_empty() && !bench.world.is_running());
        let left = bench.listing();
        assert!(!left.iter().any(|path| path.starts_with("var/lib/kubeboot") || path.contains("kubelet.service")));
        assert!(left.contains(&"etc/kubernetes/pki/ca.key".to_owned()), "no record says whose it is");
        let named = warnings(&bench);
        assert!(
            named.iter().any(|text| text.contains("inventory.json") && text.contains("/etc/kubernetes")),
            "{named:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_the_runtime_refuses_for_a_while_is_made_again() {
    for call in ["stop", "remove"] {
        let (bench, before) = initialised().await;
        let left = std::sync::atomic::AtomicUsize::new(3);
        bench.runtime.fail_when(call, move |_| {
            let more = left.load(std::sync::atomic::Ordering::SeqCst);
            left.store(more.saturating_sub(1), std::sync::atomic::Ordering::SeqCst);
            (more > 0).then(refused)
        });
        reset(&bench).await.unwrap();
        assert_eq!(bench.listing(), before, "{call}");
        assert!(bench.runtime.containers().is_empty(), "{call}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_the_runtime_refuses_for_good_is_a_failed_step() {
    let (bench, before) = initialised().await;
    bench.runtime.fail_when("remove", |_| Some(refused()));
    let failed = failed_steps(reset(&bench).await.unwrap_err());
    assert!(failed[0].contains("containers"), "{failed:?}");
    assert!(
        !bench.listing().iter().any(|path| path.starts_with("etc/kubernetes")),
        "everything else goes all the same"
    );
    bench.runtime.heal();
    reset(&bench).await.unwrap();
    assert_eq!(bench.listing(), before);
}

#[tokio::test]
async fn what_a_restore_of_etcds_data_has_left_beside_them_goes_too() {
    let bench = Bench::new();
    make_dirs(&bench.root.path().join("var/lib/etcd"), 0o700).unwrap();
    let before = bench.listing();
    let order = InitRequest { spec: crate::testing::spec(), saved: None, what: PhaseSelection::Everything };
    init::run(&mut bench.machine(), &order).await.unwrap();
    let mut journal = Journal::new("v2", "c", "/etc/kubernetes/tmp/b".into());
    let (from, to) = ("/var/lib/etcd".into(), "/etc/kubernetes/tmp/e".into());
    journal.etcd_data = Some(DataCopy { from, to, restoring: true, ..DataCopy::default() });
    journal.write(&mut *bench.machine().tree).unwrap();
    let left = bench.root.path().join("var/lib/etcd/.kubeboot-restored/member/db");
    make_dirs(left.parent().unwrap(), 0o700).unwrap();
    write_file(&left, b"half", 0o600).unwrap();
    let copies = ["var/lib/etcd", "var/lib"].map(|dir| format!("/{dir}/kubeadm-backup-etcd-2026-11-30-23-00-00"));
    let mut session = Session::attach(&bench.machine().paths).unwrap().unwrap();
    let mut tree = HostTree::new(bench.machine().paths, session.inventory_mut());
    for copy in &copies {
        tree.make_dir(Path::new(copy), 0o700).unwrap();
        // Nothing below is recorded.
        write_file(&bench.machine().paths.on_host(copy).join("snapshot.db"), b"copy", 0o600).unwrap();
    }
    drop(session);
    reset(&bench).await.unwrap();
    assert_eq!(bench.listing(), before);
}
