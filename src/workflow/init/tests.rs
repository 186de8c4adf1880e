use futures::FutureExt;

use super::*;
use crate::cluster::object::Key;
use crate::runtime::RuntimeError;
use crate::testing::machine::Bench;
use crate::workflow::reset;

pub(super) async fn init(bench: &Bench) -> Result<Outcome, InitError> {
    run_on(&mut bench.machine(), crate::testing::spec(), PhaseSelection::Everything).await
}

pub(super) async fn run_on(
    machine: &mut Machine,
    spec: ClusterSpec,
    what: PhaseSelection,
) -> Result<Outcome, InitError> {
    Ok(run(machine, &InitRequest { spec, saved: None, what }).await?.outcome)
}

/// What the cluster has; tokens, which are random, without their ids.
fn objects(bench: &Bench) -> Vec<String> {
    let name = |key: &Key| match key.name.starts_with("bootstrap-token-") {
        true => "a token".to_owned(),
        false => key.to_string(),
    };
    let mut names: Vec<_> = bench.world.objects().keys().map(name).collect();
    names.sort();
    names
}

async fn reset(bench: &Bench) -> Result<(), reset::ResetError> {
    let mut machine = bench.machine();
    match reset::prepare(&machine, &reset::ResetOptions::everything())? {
        Some(planned) => reset::run(&mut machine, planned).await,
        None => Ok(()),
    }
}

fn ended(bench: &Bench) -> Vec<String> {
    let of = |event: &Event| match event {
        Event::PhaseDone { phase, changed, .. } => Some(format!("{phase} {changed}")),
        _ => None,
    };
    bench.world.events().iter().filter_map(of).collect()
}

#[test]
fn the_phases_are_kubeadms_in_kubeadms_order() {
    let certs = "ca apiserver apiserver-kubelet-client front-proxy-ca front-proxy-client etcd-ca etcd-server etcd-peer \
                 etcd-healthcheck-client apiserver-etcd-client sa";
    let expected = [
        ("preflight", ""),
        ("certs", certs),
        ("kubeconfig", "admin super-admin kubelet controller-manager scheduler"),
        ("etcd", "local"),
        ("control-plane", "apiserver controller-manager scheduler"),
        ("kubelet-start", ""),
        ("wait-control-plane", ""),
        ("upload-config", "kubeadm kubelet"),
        ("upload-certs", ""),
        ("mark-control-plane", ""),
        ("bootstrap-token", ""),
        ("kubelet-finalize", "enable-client-cert-rotation"),
        ("addon", "coredns kube-proxy"),
        ("show-join-command", ""),
    ];
    let there: Vec<(&str, String)> = PHASES
        .list
        .iter()
        .map(|phase| (phase.name, phase.children.iter().map(|c| c.name).collect::<Vec<_>>().join(" ")))
        .collect();
    assert_eq!(there, expected.map(|(name, children)| (name, children.to_owned())));
}

#[tokio::test]
async fn a_fresh_machine_is_initialised_and_reset_leaves_no_trace() {
    let bench = Bench::new();
    let before = bench.listing();
    assert_eq!(init(&bench).await.unwrap(), Outcome::Done);
    assert_eq!(
        ended(&bench),
        [
            "preflight true",
            "images true",
            "certs true",
            "kubeconfig true",
            "etcd true",
            "control-plane true",
            "kubelet-start true",
            "wait-control-plane true",
            "upload-config true",
            "upload-certs false",
            "mark-control-plane false",
            "bootstrap-token true",
            "kubelet-finalize false",
            "addon true",
            "show-join-command false"
        ]
    );
    assert_eq!(bench.runtime.containers().len(), 4);
    reset(&bench).await.unwrap();
    assert_eq!(bench.listing(), before);
    assert!(bench.runtime.containers().is_empty() && !bench.world.is_running());
    assert_eq!(bench.runtime.calls_of("remove_image").len(), 4);
    assert!(reset::prepare(&bench.machine(), &reset::ResetOptions::everything()).unwrap().is_none());
}

#[tokio::test]
async fn the_cluster_gets_what_kubeadm_gives_it() {
    let bench = Bench::new();
    let mut machine = bench.machine();
    let order = InitRequest { spec: crate::testing::spec(), saved: None, what: PhaseSelection::Everything };
    let text = run(&mut machine, &order).await.unwrap().text;
    assert_eq!(
        objects(&bench),
        [
            "ClusterRole kubeadm:get-nodes",
            "ClusterRole system:coredns",
            "ClusterRoleBinding kubeadm:apiserver-kubelet-client",
            "ClusterRoleBinding kubeadm:get-nodes",
            "ClusterRoleBinding kubeadm:kubelet-bootstrap",
            "ClusterRoleBinding kubeadm:node-autoapprove-bootstrap",
            "ClusterRoleBinding kubeadm:node-autoapprove-certificate-rotation",
            "ClusterRoleBinding kubeadm:node-proxier",
            "ClusterRoleBinding system:coredns",
            "ConfigMap kube-public/cluster-info",
            "ConfigMap kube-system/coredns",
            "ConfigMap kube-system/kube-proxy",
            "ConfigMap kube-system/kubeadm-config",
            "ConfigMap kube-system/kubelet-config",
            "DaemonSet kube-system/kube-proxy",
            "Deployment kube-system/coredns",
            "Role kube-public/kubeadm:bootstrap-signer-clusterinfo",
            "Role kube-system/kube-proxy",
            "Role kube-system/kubeadm:kubelet-config",
            "Role kube-system/kubeadm:nodes-kubeadm-config",
            "RoleBinding kube-public/kubeadm:bootstrap-signer-clusterinfo",
            "RoleBinding kube-system/kube-proxy",
            "RoleBinding kube-system/kubeadm:kubelet-config",
            "RoleBinding kube-system/kubeadm:nodes-kubeadm-config",
            "Service kube-system/kube-dns",
            "ServiceAccount kube-system/coredns",
            "ServiceAccount kube-system/kube-proxy",
            "a token",
        ]
    );
    // The token that is shown is the one that the cluster has.
    let id = text.split("--token ").nth(1).and_then(|rest| rest.split('.').next()).unwrap();
    assert!(bench.world.objects().keys().any(|key| key.name == format!("bootstrap-token-{id}")), "{text}");
}

#[tokio::test]
async fn phases_that_others_need_cannot_be_left_out_alone() {
    let bench = Bench::new();
    let mut spec = crate::testing::spec();
    spec.skip_phases = vec!["bootstrap-token".into()];
    let error = run_on(&mut bench.machine(), spec.clone(), PhaseSelection::Everything).await.unwrap_err();
    let expected =
        "unresolved dependencies:\n\tmissing \"bootstrap-token\" phase needed by \"show-join-command\" phase";
    assert_eq!(error.to_string(), expected);
    spec.skip_phases.extend(["show-join-command".into(), "addon/coredns".into()]);
    run_on(&mut bench.machine(), spec, PhaseSelection::Everything).await.unwrap();
    assert!(!objects(&bench).contains(&"a token".to_owned()));
}

#[tokio::test]
async fn a_kubelet_that_rotates_its_certificate_is_pointed_at_it_once() {
    let bench = Bench::new();
    init(&bench).await.unwrap();
    let what = || PhaseSelection::Phase("kubelet-finalize".into(), Some("all".into()));
    let rotated = bench.root.path().join("var/lib/kubelet/pki/kubelet-client-current.pem");
    crate::host::fs::make_dirs(rotated.parent().unwrap(), 0o755).unwrap();
    crate::host::fs::write_file(&rotated, b"x", 0o600).unwrap();
    run_on(&mut bench.machine(), crate::testing::spec(), what()).await.unwrap();
    run_on(&mut bench.machine(), crate::testing::spec(), what()).await.unwrap();
    assert_eq!(ended(&bench)[15..], ["kubelet-finalize true", "kubelet-finalize false"]);
    let conf = std::fs::read_to_string(bench.root.path().join("etc/kubernetes/kubelet.conf")).unwrap();
    assert!(conf.contains("client-key: /var/lib/kubelet/pki/kubelet-client-current.pem"), "{conf}");
    assert!(!conf.contains("client-key-data"), "{conf}");
}

#[tokio::test]
async fn an_agent_that_is_gone_is_started_by_the_next_init() {
    let bench = Bench::new();
    init(&bench).await.unwrap();
    bench.machine().service.stop().unwrap();
    assert_eq!(init(&bench).await.unwrap(), Outcome::Done);
    assert!(bench.world.is_running());
}

/// Fails step `n` of one kind.
type Fault = fn(&mut Bench, usize);

const FAULTS: &[(&str, Fault)] = &[
    ("file change", |bench, n| bench.tree.fail_at(n)),
    ("call of service or cluster", |bench, n| bench.world.fail_at(n)),
    ("question for an image", |bench, n| bench.runtime.fail_nth("image", n, refused())),
    ("pull", |bench, n| bench.runtime.fail_nth("pull", n, refused())),
];

fn refused() -> RuntimeError {
    RuntimeError::Refused { call: "call".into(), message: "fails as the test asked".into() }
}

/// Runs `init` with the `n`-th step of a kind failing; None when there are fewer steps.
async fn failed_init(fault: Fault, n: usize) -> Option<(Bench, Vec<String>)> {
    let mut bench = Bench::new();
    let before = bench.listing();
    fault(&mut bench, n);
    let error = init(&bench).await.err()?;
    assert!(matches!(error, InitError::Failed { .. }), "{error:?}");
    bench.runtime.heal();
    Some((bench, before))
}

#[tokio::test]
async fn whichever_step_fails_the_next_init_ends_as_an_undisturbed_one() {
    let undisturbed = Bench::new();
    init(&undisturbed).await.unwrap();
    for (what, fault) in FAULTS {
        let mut n = 1;
        while let Some((bench, _)) = failed_init(*fault, n).await {
            assert_eq!(init(&bench).await.unwrap(), Outcome::Done, "{what} {n}");
            assert_eq!(bench.listing(), undisturbed.listing(), "{what} {n}");
            assert_eq!(objects(&bench), objects(&undisturbed), "{what} {n}");
            assert_eq!(init(&bench).await.unwrap(), Outcome::AlreadyInitialised, "{what} {n}");
            // Later files are like earlier ones of the same batch; the reset below tries every one.
            n += if n < 10 { 1 } else { 3 };
        }
        assert!(n >= 4, "only {n} of {what}");
    }
}

#[tokio::test]
async fn whichever_step_fails_reset_leaves_no_trace() {
    for (what, fault) in FAULTS {
        let mut n = 1;
        while let Some((bench, before)) = failed_init(*fault, n).await {
            reset(&bench).await.unwrap();
            assert_eq!(bench.listing(), before, "{what} {n}");
            assert!(bench.runtime.containers().is_empty(), "{what} {n}");
            n += 1;
        }
    }
}

/// Runs `init` and kills it at the `n`-th change of a file; None when there are fewer.
async fn killed_init(n: usize) -> Option<(Bench, Vec<String>)> {
    let mut bench = Bench::new();
    let before = bench.listing();
    bench.tree.die_at(n);
    let end = std::panic::AssertUnwindSafe(init(&bench)).catch_unwind().await;
    end.is_err().then_some((bench, before))
}

#[tokio::test]
async fn killed_at_any_change_init_is_finished_by_the_next_one_and_undone_by_reset() {
    let undisturbed = Bench::new();
    init(&undisturbed).await.unwrap();
    let mut n = 1;
    while let Some((bench, before)) = killed_init(n).await {
        // What a write leaves aside when it is killed before its rename.
        let pki = bench.root.path().join("etc/kubernetes/pki");
        if pki.is_dir() {
            crate::host::fs::write_file(&pki.join(".kubeboot-a1b2c3"), b"half", 0o600).unwrap();
        }
        if n % 3 == 0 {
            init(&bench).await.unwrap();
            assert_eq!(bench.listing(), undisturbed.listing(), "killed at {n}");
            assert_eq!(objects(&bench), objects(&undisturbed), "killed at {n}");
        }
        reset(&bench).await.unwrap();
        assert_eq!(bench.listing(), before, "killed at {n}");
        n += 1;
    }
    assert!(n > 40, "only {n} changes");
}

#[tokio::test]
async fn an_image_that_is_nowhere_leaves_nothing_behind() {
    let bench = Bench::new();
    let before = bench.listing();
    bench.runtime.fail_when("pull", |_| Some(refused()));
    init(&bench).await.unwrap_err();
    assert_eq!(bench.listing(), before);
}

#[tokio::test]
async fn waiting_for_images_is_said_and_their_failure_is_preflights() {
    let started = |bench: &Bench| {
        let of = |event: &Event| match event {
            Event::PhaseStarted { phase, title } => Some((phase.clone(), title.clone())),
            _ => None,
        };
        bench.world.events().iter().filter_map(of).collect::<Vec<_>>()
    };
    let waits = ("images".to_owned(), "wait for the images that are being pulled".to_owned());
    let bench = Bench::new();
    bench.runtime.fail_when("pull", |_| Some(refused()));
    let InitError::Failed { phase, source } = init(&bench).await.unwrap_err() else { panic!("another error") };
    assert!(phase == "preflight" && matches!(*source, StepError::Images(_)), "{phase}: {source:?}");
    assert!(!started(&bench).iter().any(|(phase, _)| phase == "certs"), "no certificate over the bars of the pulls");
    let bench = Bench::new();
    init(&bench).await.unwrap();
    assert_eq!(started(&bench)[1], waits);
    assert_eq!(started(&bench)[2].0, "certs");
    let bench = Bench::new();
    for image in crate::manifests::images(&crate::testing::spec()) {
        bench.runtime.add_image(&image.reference);
    }
    init(&bench).await.unwrap();
    assert!(!started(&bench).contains(&waits), "nothing was pulled");
}

#[tokio::test]
async fn what_is_wrong_with_the_last_file_shows_before_the_first_is_written() {
    let bench = Bench::new();
    let before = bench.listing();
    let mut spec = crate::testing::spec();
    spec.patches_dir = Some("/nonexistent".into());
    for image in crate::manifests::images(&spec) {
        bench.runtime.add_image(&image.reference);
    }
    let error = run_on(&mut bench.machine(), spec, PhaseSelection::Everything).await.unwrap_err();
    assert!(matches!(error, InitError::Failed { phase: "addon", .. }), "{error:?}");
    assert_eq!(bench.listing(), before);
}

#[tokio::test]
async fn a_component_that_stays_ill_is_named_at_the_limit() {
    let bench = Bench::new();
    bench.world.make_sick("kube-scheduler");
    let mut spec = crate::testing::spec();
    spec.timeouts.control_plane_component_health_check = std::time::Duration::from_millis(20);
    let error = run_on(&mut bench.machine(), spec, PhaseSelection::Everything).await.unwrap_err();
    let InitError::Failed { phase: "wait-control-plane", source } = error else { panic!("{error:?}") };
    let StepError::Unhealthy(cause) = *source else { panic!("{source:?}") };
    assert!(cause.to_string().contains("kube-scheduler"), "{cause}");
}

#[tokio::test]
async fn a_stopped_init_says_where_and_is_gone_on_with() {
    let bench = Bench::new();
    let mut machine = bench.machine();
    machine.stop.cancel();
    let error = run_on(&mut machine, crate::testing::spec(), PhaseSelection::Everything).await.unwrap_err();
    assert!(matches!(error, InitError::Interrupted { phase: "preflight" }));
    init(&bench).await.unwrap();
}

#[tokio::test]
async fn a_kubelet_whose_pods_nobody_could_see_is_refused_before_the_first_write() {
    let bench = Bench::new();
    let before = bench.listing();
    let mut spec = crate::testing::spec();
    spec.kubeboot.node_agent = NodeAgent::Kubelet;
    let error = run_on(&mut bench.machine(), spec, PhaseSelection::Everything).await.unwrap_err();
    assert!(error.to_string().contains("--skip-phases=wait-control-plane"), "{error}");
    assert_eq!(bench.listing(), before);
}

#[tokio::test]
async fn one_phase_runs_alone_and_below_another_root_only_files_are_written() {
    let bench = Bench::new();
    let mut machine = bench.machine();
    machine.live = false;
    let what = PhaseSelection::Phase("certs".into(), Some("ca".into()));
    run_on(&mut machine, crate::testing::spec(), what).await.unwrap();
    let there = bench.listing();
    assert!(there.contains(&"etc/kubernetes/pki/ca.crt".into()) && !there.iter().any(|p| p.contains("apiserver")));
    run_on(&mut machine, crate::testing::spec(), PhaseSelection::Everything).await.unwrap();
    assert!(bench.world.calls().is_empty() && bench.runtime.calls().is_empty());
    assert!(bench.listing().contains(&"etc/kubernetes/manifests/etcd.yaml".into()));
}

#[tokio::test]
async fn the_key_of_uploaded_certificates_is_an_event_of_its_own_unless_it_is_withheld() {
    for hide_secrets in [false, true] {
        let (bench, mut spec) = (Bench::new(), crate::testing::spec());
        spec.upload_certs = true;
        spec.hide_secrets.certificate_key = hide_secrets;
        run_on(&mut bench.machine(), spec, PhaseSelection::Everything).await.unwrap();
        let is_key = |event: &Event| matches!(event, Event::CertificateKey { key } if key.len() == 64);
        assert_eq!(bench.world.events().iter().filter(|event| is_key(event)).count(), usize::from(!hide_secrets));
    }
}

/// What is below the directories of another cluster.
fn others(bench: &Bench) -> Vec<String> {
    bench.listing().into_iter().filter(|path| path.starts_with("root/")).collect()
}

#[tokio::test]
async fn what_a_single_phase_writes_into_directories_of_its_own_belongs_to_no_machine() {
    for initialised in [false, true] {
        let bench = Bench::new();
        if initialised {
            init(&bench).await.unwrap();
        }
        let mut spec = crate::testing::spec();
        (spec.certificates_dir, spec.kubeconfig_dir) = ("/root/other/pki".into(), "/root/other".into());
        for phase in ["certs", "kubeconfig"] {
            let what = PhaseSelection::Phase(phase.into(), Some("all".into()));
            run_on(&mut bench.machine(), spec.clone(), what).await.unwrap();
        }
        let theirs = others(&bench);
        for file in ["root/other/pki/ca.key", "root/other/pki/sa.key", "root/other/admin.conf"] {
            assert!(theirs.contains(&file.to_owned()), "{theirs:?}");
        }
        assert_eq!(bench.machine().paths.state().exists(), initialised);
        reset(&bench).await.unwrap();
        assert_eq!(others(&bench), theirs, "initialised: {initialised}");
    }
}

#[tokio::test]
async fn a_manifest_with_certificates_of_elsewhere_is_this_machines_and_they_are_not() {
    let bench = Bench::new();
    let mut spec = crate::testing::spec();
    spec.certificates_dir = "/root/other/pki".into();
    run_on(&mut bench.machine(), spec.clone(), PhaseSelection::Phase("certs".into(), Some("all".into())))
        .await
        .unwrap();
    let theirs = others(&bench);
    run_on(&mut bench.machine(), spec, PhaseSelection::Phase("etcd".into(), Some("local".into()))).await.unwrap();
    assert!(bench.listing().contains(&"etc/kubernetes/manifests/etcd.yaml".to_owned()));
    reset(&bench).await.unwrap();
    assert!(!bench.listing().iter().any(|path| path.starts_with("etc/kubernetes")));
    assert_eq!(others(&bench), theirs);
}

#[tokio::test]
async fn a_phase_that_writes_nothing_ends_no_earlier_run() {
    let mut bench = Bench::new();
    bench.tree.fail_at(30);
    init(&bench).await.unwrap_err();
    run_on(&mut bench.machine(), crate::testing::spec(), PhaseSelection::Phase("preflight".into(), None))
        .await
        .unwrap();
    let state = crate::workflow::state::State::open(&bench.machine().paths).unwrap().unwrap();
    assert!(!state.journal.has_finished("init"));
}
