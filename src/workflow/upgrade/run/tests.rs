use super::super::table::{PHASES, SelectedPhases};
use super::super::target::ImageChange;
use super::*;
use crate::config::{self, Flags, HostDefaults, Input};
use crate::event::Event;
use crate::release::UpgradePolicy;
use crate::testing::machine::Bench;
use crate::workflow::init::{self, InitRequest, PhaseSelection};
use crate::workflow::state::journal::Record;

pub(in crate::workflow::upgrade) const LIMIT: Duration = Duration::from_secs(60);
pub(in crate::workflow::upgrade) const NEW: &str = "registry.example.com/kube-scheduler:v9";

/// A machine that `init` has made, whose configuration is kept.
pub(in crate::workflow::upgrade) async fn made() -> Bench {
    made_with(None).await
}

/// The same with a configuration file.
pub(in crate::workflow::upgrade) async fn made_with(file: Option<(PathBuf, String)>) -> Bench {
    let bench = Bench::new();
    let version = crate::testing::spec().kubernetes_version.to_string();
    let flags = Flags { kubernetes_version: file.is_none().then_some(version), ..Flags::default() };
    let host = HostDefaults { hostname: "cp1".into(), address: Some([10, 0, 0, 5].into()) };
    let input = Input { file, flags, host };
    let spec = config::load(&input).unwrap().spec;
    let order = InitRequest { saved: Some(Saved::new(&input, &spec)), spec, what: PhaseSelection::Everything };
    init::run(&mut bench.machine(), &order).await.unwrap();
    bench
}

pub(in crate::workflow::upgrade) fn parts(bench: &Bench) -> Parts {
    let world = &bench.world;
    Parts { cluster: world.clone(), runtimes: world.clone(), health: world.clone(), reporter: world.clone() }
}

pub(in crate::workflow::upgrade) fn request(images: &[&str]) -> Request {
    let goal = Goal {
        version: None,
        images: images.iter().map(|image| ImageChange::parse(image).unwrap()).collect(),
        patches_dir: None,
        etcd: true,
        certificates: true,
        policy: UpgradePolicy::default(),
        parts: SelectedPhases::of(&PHASES, &[]).unwrap(),
    };
    Request {
        goal,
        command: "kubeboot upgrade apply --image x".into(),
        one_phase: false,
        ignored: vec![],
        warnings: vec!["said of the configuration".into()],
        warned: false,
        pull_policy: None,
    }
}

fn prepared(bench: &Bench) -> Result<Upgrade, RunError> {
    let image = format!("kube-scheduler={NEW}");
    Upgrade::prepare(&bench.machine().paths, parts(bench), request(&[&image]))
}

pub(in crate::workflow::upgrade) fn scheduler(bench: &Bench) -> String {
    std::fs::read_to_string(bench.machine().paths.manifest("kube-scheduler")).unwrap()
}

fn said(bench: &Bench, words: &str) -> bool {
    let texts = bench.world.events().into_iter().filter_map(|event| match event {
        Event::Note { text, .. } | Event::Warning { text, .. } => Some(text),
        _ => None,
    });
    texts.into_iter().any(|text| text.contains(words))
}

#[tokio::test(start_paused = true)]
async fn an_image_is_replaced_and_taken_back_and_nothing_is_left_to_do() {
    let bench = made().await;
    bench.runtime.registry_has(NEW, Duration::from_millis(1));
    let old = scheduler(&bench);
    let mut upgrade = prepared(&bench).unwrap();
    assert!(!upgrade.is_idle() && upgrade.would().contains(&format!("+    image: {NEW}")), "{}", upgrade.would());
    assert_eq!(upgrade.question(), "Replace kube-scheduler?");
    assert_eq!(scheduler(&bench), old, "nothing is touched before it is run");
    let outcome = upgrade.run(LIMIT).await.unwrap();
    assert!(matches!(&outcome, Outcome::Upgraded { replaced } if replaced == &["kube-scheduler"]), "{outcome:?}");
    assert!(scheduler(&bench).contains(NEW));
    let recorded: Vec<_> = upgrade.session.state().unwrap().journal.records().iter().rev().take(4).rev().collect();
    assert!(
        matches!(
            recorded[..],
            [
                Record::Begun { command, .. },
                Record::Started { phase },
                Record::Done { phase: done },
                Record::Finished { .. }
            ] if command == "kubeboot upgrade apply --image x" && phase == "control-plane" && done == phase
        ),
        "only the phases that have anything to do run: {recorded:?}"
    );
    assert!(said(&bench, "the new images are running: kube-scheduler replaced"), "{:?}", bench.world.events());
    assert!(said(&bench, "said of the configuration"));
    drop(upgrade);
    assert!(prepared(&bench).unwrap().is_idle());

    let mut rollback = Rollback::prepare(&bench.machine().paths, parts(&bench), RollbackOptions::default()).unwrap();
    assert!(rollback.question().starts_with("Put the manifests in /etc/kubernetes/tmp/kubeadm-backup-manifests-"));
    assert!(rollback.would().starts_with("would put the manifests in"));
    rollback.run(LIMIT).await.unwrap();
    assert_eq!(scheduler(&bench), old);
    assert!(said(&bench, "are back and healthy"));
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_that_another_one_has_followed_is_taken_back_by_force_alone() {
    let bench = made().await;
    bench.runtime.registry_has(NEW, Duration::from_millis(1));
    let old = scheduler(&bench);
    prepared(&bench).unwrap().run(LIMIT).await.unwrap();
    let paths = bench.machine().paths;
    let put = |image: &str, flag: &str| {
        let text = scheduler(&bench).replace(NEW, image).replace("--leader-elect=true", flag);
        crate::host::fs::write_file(&paths.manifest("kube-scheduler"), text.as_bytes(), 0o600).unwrap();
    };
    // As kubeadm would.
    put("registry.example.com/kube-scheduler:v10", "--leader-elect=true");
    let take_back =
        |force| Rollback::prepare(&paths, parts(&bench), RollbackOptions { force, ..RollbackOptions::default() });
    let refused = take_back(false).err().unwrap().to_string();
    let words = "kube-scheduler runs registry.example.com/kube-scheduler:v10, and what would be taken back is `kubeboot upgrade \
                 apply --image x`, from ";
    assert!(refused.starts_with(words), "{refused}");
    assert!(refused.contains("or add --force, which puts the manifests in /etc/kubernetes/tmp/kubeadm-b"), "{refused}");
    let mut forced = take_back(true).unwrap();
    assert_eq!(forced.options.command(), "kubeboot upgrade rollback --force");
    forced.run(LIMIT).await.unwrap();
    assert_eq!(scheduler(&bench), old);
}

#[tokio::test(start_paused = true)]
async fn an_edit_since_the_upgrade_goes_with_a_rollback_and_is_kept_beside_it() {
    let bench = made().await;
    bench.runtime.registry_has(NEW, Duration::from_millis(1));
    let old = scheduler(&bench);
    prepared(&bench).unwrap().run(LIMIT).await.unwrap();
    let paths = bench.machine().paths;
    let edited = scheduler(&bench).replace("--leader-elect=true", "--leader-elect=false");
    crate::host::fs::write_file(&paths.manifest("kube-scheduler"), edited.as_bytes(), 0o600).unwrap();
    let mut rollback = Rollback::prepare(&paths, parts(&bench), RollbackOptions::default()).unwrap();
    rollback.run(LIMIT).await.unwrap();
    assert_eq!(scheduler(&bench), old);
    assert!(said(
        &bench,
        "kube-scheduler.yaml has been changed since the upgrade: what it was is in /etc/kubernetes/tmp"
    ));
    let kept = paths.on_host(rollback.journal.backup.join("changed/kube-scheduler.yaml"));
    assert_eq!(std::fs::read_to_string(kept).unwrap(), edited);
}

#[tokio::test(start_paused = true)]
async fn an_image_that_cannot_be_had_leaves_everything_as_it_is() {
    let bench = made().await;
    let before = bench.listing();
    let error = prepared(&bench).unwrap().run(LIMIT).await.unwrap_err();
    assert!(matches!(error, RunError::Upgrade(UpgradeError::Images(_))), "{error:?}");
    assert_eq!(bench.listing(), before);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_begun_is_refused_with_its_reason() {
    let bench = Bench::new();
    let paths = bench.machine().paths;
    let refused = |request: Request| Upgrade::prepare(&paths, parts(&bench), request).err().unwrap().to_string();
    assert_eq!(
        refused(request(&[])),
        "name a version (kubeboot upgrade apply v1.36.3) or an image (--image COMPONENT=IMAGE)"
    );
    assert_eq!(
        refused(request(&["etcd=x:1"])),
        "this machine was not initialised by `kubeboot init`: there is nothing to upgrade"
    );
    let bench = made().await;
    let none =
        Rollback::prepare(&bench.machine().paths, parts(&bench), RollbackOptions::default()).err().unwrap().to_string();
    assert_eq!(none, "no upgrade to take back: /var/lib/kubeboot/upgrade.json is not there");
    let first = prepared(&bench).unwrap();
    let second = prepared(&bench).err().unwrap().to_string();
    assert!(second.contains(&format!("process {}", std::process::id())), "{second}");
    drop(first);
    assert!(prepared(&bench).is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_preflight_by_itself_fetches_the_images_and_changes_nothing() {
    let bench = made().await;
    let before = bench.listing();
    let preflight = || {
        let mut request = request(&[]);
        request.goal.version = Some("v1.36.4".parse().unwrap());
        (request.one_phase, request.goal.parts) = (true, SelectedPhases::one(&PHASES, "preflight", None).unwrap());
        Upgrade::prepare(&bench.machine().paths, parts(&bench), request).unwrap()
    };
    let mut upgrade = preflight();
    assert!(upgrade.is_preflight() && !upgrade.is_idle());
    assert!(upgrade.would().contains("Would fetch registry.k8s.io/kube-apiserver:v1.36.4 if"), "{}", upgrade.would());
    let error = upgrade.run(LIMIT).await.unwrap_err();
    assert!(matches!(error, RunError::Upgrade(UpgradeError::Images(_))), "{error:?}");
    drop(upgrade);
    for component in ["kube-apiserver", "kube-controller-manager", "kube-scheduler"] {
        bench.runtime.registry_has(&format!("registry.k8s.io/{component}:v1.36.4"), Duration::from_millis(1));
    }
    let mut upgrade = preflight();
    upgrade.run(LIMIT).await.unwrap();
    assert!(said(&bench, "nothing stands in the way, and every image is here"), "{:?}", bench.world.events());
    drop(upgrade);
    assert_eq!(bench.listing(), before);
    // One that was cut off comes first.
    let mut tree = HostTree::new(bench.machine().paths, NoRecord);
    Journal::new("v1.36.3", "kubeboot upgrade apply v1.36.3", "/b".into()).write(&mut tree).unwrap();
    let mut request = request(&[&format!("kube-scheduler={NEW}")]);
    request.goal.parts = SelectedPhases::one(&PHASES, "preflight", None).unwrap();
    let refused = Upgrade::prepare(&bench.machine().paths, parts(&bench), request).err().unwrap();
    assert!(refused.to_string().contains("finish it with `kubeboot upgrade apply v1.36.3`"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn a_gate_of_the_kubelets_that_the_version_has_removed_stops_the_upgrade() {
    let file = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nkubernetesVersion: v1.36.2\n---\n\
                apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nfeatureGates: {AnyVolumeDataSource: true}\n";
    let bench = made_with(Some((PathBuf::from("config.yaml"), file.to_owned()))).await;
    let refused = |version: &str| {
        let mut request = request(&[]);
        request.goal.version = Some(version.parse().unwrap());
        Upgrade::prepare(&bench.machine().paths, parts(&bench), request).map(drop)
    };
    let error = refused("v1.37.1").unwrap_err().to_string();
    assert!(error.contains("[ERROR RemovedFeatureGates]: kubelet does not start with the feature gate Any"), "{error}");
    refused("v1.36.4").unwrap();
}
