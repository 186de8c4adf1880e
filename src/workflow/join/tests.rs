use futures::FutureExt;

use super::*;
use crate::host::fs::{make_dirs, write_file};
use crate::testing::machine::Bench;
use crate::testing::tree::Killed;
use crate::workflow::reset;

fn spec() -> JoinSpec {
    crate::testing::join_spec()
}

async fn join(bench: &Bench) -> Result<(), JoinError> {
    run(&mut bench.machine(), &spec(), &PhaseSelection::Everything).await
}

async fn reset(bench: &Bench) -> Result<(), reset::ResetError> {
    let mut machine = bench.machine();
    match reset::prepare(&machine, &reset::ResetOptions::everything())? {
        Some(planned) => reset::run(&mut machine, planned).await,
        None => Ok(()),
    }
}

fn read(bench: &Bench, path: &str) -> String {
    std::fs::read_to_string(bench.root.path().join(path)).unwrap()
}

#[test]
fn the_phases_are_kubeadms_for_a_worker_and_the_others_may_be_skipped() {
    let names: Vec<&str> = PHASES.list.iter().map(|phase| phase.name).collect();
    assert_eq!(names, ["preflight", "kubelet-start", "kubelet-wait-bootstrap"]);
    let skip = ["control-plane-prepare/certs", "etcd-join", "preflight"].map(str::to_owned);
    assert_eq!(PHASES.select(&skip).unwrap().run.len(), 2);
    assert!(PHASES.select(&["certs".to_owned()]).is_err());
}

#[tokio::test]
async fn a_worker_joins_and_reset_leaves_no_trace() {
    use std::os::unix::fs::PermissionsExt;
    let bench = Bench::new();
    bench.world.has_sandbox("theirs");
    let before = bench.listing();
    join(&bench).await.unwrap();
    let root = bench.root.path();
    assert!(!root.join("etc/kubernetes/bootstrap-kubelet.conf").exists());
    assert!(root.join("etc/kubernetes/manifests").is_dir());
    assert_eq!(read(&bench, "etc/kubernetes/pki/ca.crt"), "CA");
    assert!(read(&bench, "var/lib/kubelet/config.yaml").contains("maxPods: 7\n"));
    assert_eq!(read(&bench, "var/lib/kubelet/kubeadm-flags.env"), "KUBELET_KUBEADM_ARGS=\"\"\n");
    assert!(read(&bench, "etc/systemd/system/kubelet.service").contains("\nExecStart=/usr/bin/kubelet\n"));
    assert_eq!(bench.world.sandbox_ids(), ["theirs", "web"]);
    let mode = std::fs::metadata(root.join("etc/kubernetes/kubelet.conf")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    reset(&bench).await.unwrap();
    assert_eq!(bench.listing(), before);
    assert_eq!(bench.world.sandbox_ids(), ["theirs"], "pods that were there before stay");
    assert!(!bench.world.is_running());
}

#[tokio::test]
async fn a_second_join_asks_with_the_kubelets_own_certificate_and_changes_nothing() {
    let bench = Bench::new();
    join(&bench).await.unwrap();
    let (files, changes) = (bench.listing(), bench.tree.changes());
    // By now the node itself is there, Ready; that is no other machine.
    bench.world.has_ready_node("w1");
    let calls = bench.world.calls().len();
    join(&bench).await.unwrap();
    assert_eq!(bench.listing(), files);
    let new = bench.world.calls().split_off(calls);
    assert!(!new.contains(&"discover") && !new.contains(&"start") && new.contains(&"read"), "{new:?}");
    assert!(bench.tree.changes() > changes, "it looked at every file");
}

#[tokio::test]
async fn whichever_step_fails_the_next_join_ends_as_an_undisturbed_one_and_so_does_reset() {
    type Fault = fn(&mut Bench, usize);
    let faults: [(&str, Fault); 2] =
        [("file change", |bench, n| bench.tree.fail_at(n)), ("call", |bench, n| bench.world.fail_at(n))];
    let undisturbed = Bench::new();
    join(&undisturbed).await.unwrap();
    for (what, fault) in faults {
        let mut n = 1;
        loop {
            let (mut bench, mut other) = (Bench::new(), Bench::new());
            let before = bench.listing();
            fault(&mut bench, n);
            fault(&mut other, n);
            let Err(error) = join(&bench).await else { break };
            assert!(matches!(error, JoinError::Failed { .. }), "{what} {n}: {error:?}");
            join(&bench).await.unwrap();
            assert_eq!(bench.listing(), undisturbed.listing(), "{what} {n}");
            join(&other).await.unwrap_err();
            reset(&other).await.unwrap();
            assert_eq!(other.listing(), before, "{what} {n}");
            n += 1;
        }
        assert!(n > 4, "{what}: only {n} steps");
    }
}

#[tokio::test]
async fn killed_at_any_file_change_the_same_command_ends_as_an_undisturbed_one() {
    let undisturbed = Bench::new();
    join(&undisturbed).await.unwrap();
    let mut n = 1;
    loop {
        let (mut bench, mut other) = (Bench::new(), Bench::new());
        let before = bench.listing();
        let mut killed = true;
        for bench in [&mut bench, &mut other] {
            bench.tree.die_at(n);
            match std::panic::AssertUnwindSafe(join(bench)).catch_unwind().await {
                Ok(done) => (killed, ()) = (false, done.unwrap()),
                Err(panic) => assert!(panic.is::<Killed>()),
            }
        }
        if !killed {
            break;
        }
        join(&bench).await.unwrap();
        assert_eq!(bench.listing(), undisturbed.listing(), "killed at {n}");
        reset(&other).await.unwrap();
        assert_eq!(other.listing(), before, "killed at {n}");
        n += 1;
    }
    assert!(n > 8, "only {n} changes");
}

#[tokio::test]
async fn a_name_that_a_ready_node_has_is_refused_before_anything_is_written() {
    let bench = Bench::new();
    let before = bench.listing();
    bench.world.has_ready_node("w1");
    let JoinError::Failed { phase, source } = join(&bench).await.unwrap_err() else { panic!() };
    assert_eq!(phase, "kubelet-start");
    assert!(source.to_string().starts_with("a Node with name \"w1\" and status \"Ready\" already exists"), "{source}");
    assert_eq!(bench.listing(), before);
}

#[tokio::test]
async fn a_machine_without_a_kubelet_is_refused_with_all_that_is_missing() {
    let bench = Bench::new();
    let before = bench.listing();
    bench.world.lose_kubelet();
    let JoinError::Failed { source, .. } = join(&bench).await.unwrap_err() else { panic!() };
    assert!(source.to_string().contains("[ERROR FileExisting-kubelet]"), "{source}");
    let mut ignoring = spec();
    ignoring.node.ignore_preflight_errors = vec!["all".into()];
    let JoinError::Failed { source, .. } =
        run(&mut bench.machine(), &ignoring, &PhaseSelection::Everything).await.unwrap_err()
    else {
        panic!()
    };
    assert!(matches!(*source, StepError::NoKubelet), "{source}");
    assert_eq!(bench.listing(), before);
}

#[tokio::test]
async fn a_node_of_another_tool_and_a_control_plane_are_left_alone() {
    let bench = Bench::new();
    make_dirs(&bench.root.path().join("etc/kubernetes"), 0o755).unwrap();
    write_file(&bench.root.path().join("etc/kubernetes/kubelet.conf"), b"theirs", 0o600).unwrap();
    let JoinError::Failed { source, .. } = join(&bench).await.unwrap_err() else { panic!() };
    assert!(source.to_string().contains("[ERROR FileAvailable--etc-kubernetes-kubelet.conf]"), "{source}");

    let bench = Bench::new();
    let order = crate::workflow::init::InitRequest {
        spec: crate::testing::spec(),
        saved: None,
        what: crate::workflow::init::PhaseSelection::Everything,
    };
    crate::workflow::init::run(&mut bench.machine(), &order).await.unwrap();
    assert!(matches!(join(&bench).await.unwrap_err(), JoinError::IsControlPlane));

    let control_plane = crate::config::spec::ControlPlaneJoin { certificate_key: None };
    let spec = JoinSpec { control_plane: Some(control_plane), ..spec() };
    let error = run(&mut Bench::new().machine(), &spec, &PhaseSelection::Everything).await.unwrap_err();
    assert!(error.to_string().contains("high availability"), "{error}");
}

#[tokio::test]
async fn a_unit_that_a_package_brought_is_kept_and_stays_after_reset() {
    let bench = Bench::new();
    let unit = bench.root.path().join("usr/lib/systemd/system/kubelet.service");
    make_dirs(&unit.parent().unwrap().join("kubelet.service.d"), 0o755).unwrap();
    write_file(&unit, b"[Service]\n", 0o644).unwrap();
    write_file(&unit.parent().unwrap().join("kubelet.service.d/10-kubeadm.conf"), b"[Service]\n", 0o644).unwrap();
    make_dirs(&bench.root.path().join("var/lib/kubelet"), 0o700).unwrap();
    let before = bench.listing();
    join(&bench).await.unwrap();
    assert!(!bench.root.path().join("etc/systemd/system/kubelet.service").exists());
    reset(&bench).await.unwrap();
    assert_eq!(bench.listing(), before, "the directory of a kubelet that was installed before stays, empty");
}

#[tokio::test]
async fn a_dry_run_shows_every_file_without_the_token_and_touches_nothing() {
    let bench = Bench::new();
    let before = bench.listing();
    let machine = bench.machine();
    let interest = Interest { kubelet: true, programs: vec!["kubelet"], ..Interest::default() };
    let facts = machine.facts.gather(&machine.paths, &interest);
    let place = (&machine.paths, &facts);
    let rehearsed =
        dry_run::rehearse(&spec(), &PhaseSelection::Everything, place, &*machine.joining, &*machine.reporter)
            .await
            .unwrap();
    let text = rehearsed.text();
    for words in [
        "[dryrun] Would write file \"/etc/kubernetes/bootstrap-kubelet.conf\"",
        "[dryrun] Would write file \"/var/lib/kubelet/config.yaml\"",
        "[kubelet-start] Would enable and start the service kubelet",
        "[kubelet-wait-bootstrap] Would wait for the kubelet's own certificate, 300 s at most",
    ] {
        assert!(text.contains(words), "{words} in\n{text}");
    }
    assert!(!text.contains("0123456789abcdef"), "{text}");
    assert_eq!(bench.listing(), before);
}

#[tokio::test(start_paused = true)]
async fn a_kubelet_that_does_not_come_up_is_told_of_with_its_last_words() {
    let bench = Bench::new();
    let mut machine = bench.machine();
    run(&mut machine, &spec(), &PhaseSelection::Phase("kubelet-start".into(), None)).await.unwrap();
    machine.service.stop().unwrap();
    let phase = PhaseSelection::Phase("kubelet-wait-bootstrap".into(), None);
    let JoinError::Failed { source, .. } = run(&mut machine, &spec(), &phase).await.unwrap_err() else { panic!() };
    let StepError::Sick { url, log, .. } = &*source else { panic!("{source}") };
    assert_eq!(
        (url.as_str(), log.as_slice()),
        ("http://127.0.0.1:10248/healthz", &["kubelet: told to fail".to_owned()][..])
    );
}

#[tokio::test(start_paused = true)]
async fn a_kubelet_without_a_certificate_is_told_of_when_its_time_is_up() {
    let bench = Bench::new();
    let mut machine = bench.machine();
    run(&mut machine, &spec(), &PhaseSelection::Phase("kubelet-start".into(), None)).await.unwrap();
    std::fs::remove_file(bench.root.path().join("etc/kubernetes/kubelet.conf")).unwrap();
    let phase = PhaseSelection::Phase("kubelet-wait-bootstrap".into(), None);
    let JoinError::Failed { source, .. } = run(&mut machine, &spec(), &phase).await.unwrap_err() else { panic!() };
    assert!(source.to_string().contains("kubectl get csr"), "{source}");
    assert!(bench.root.path().join("etc/kubernetes/bootstrap-kubelet.conf").exists(), "for the next try");
}
