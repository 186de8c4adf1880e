use std::path::Path;

use crate::config::Flags;
use crate::event::Event;
use crate::testing::machine::Bench;
use crate::workflow::init::tests::{init, run_on};
use crate::workflow::init::{InitError, InitRequest, Outcome, PhaseSelection, run};
use crate::workflow::state::saved::Saved;
use crate::workflow::upgrade::journal::Journal as Upgrade;

/// An order for the configuration of `flags`, which is kept.
fn kept(mut flags: Flags) -> InitRequest {
    // One whose images there are.
    flags.kubernetes_version = Some(crate::testing::spec().kubernetes_version.to_string());
    let host = crate::config::HostDefaults { hostname: "cp1".into(), address: Some([10, 0, 0, 5].into()) };
    let input = crate::config::Input { file: None, flags, host };
    let spec = crate::config::load(&input).unwrap().spec;
    InitRequest { saved: Some(Saved::new(&input, &spec)), spec, what: PhaseSelection::Everything }
}

#[tokio::test]
async fn another_configuration_is_told_by_the_settings_that_differ() {
    let bench = Bench::new();
    run(&mut bench.machine(), &kept(Flags::default())).await.unwrap();
    let other = |change: fn(&mut Flags)| {
        let mut flags = Flags::default();
        change(&mut flags);
        kept(flags)
    };
    let pods = other(|flags| flags.pod_network_cidr = Some("10.9.0.0/16".into()));
    let error = run(&mut bench.machine(), &pods).await.unwrap_err();
    let InitError::Differs { settings, .. } = &error else { panic!("{error:?}") };
    assert_eq!(settings, &["networking.podSubnet (--pod-network-cidr) is 10.9.0.0/16 and was not set"]);
    assert!(error.to_string().contains("(networking.podSubnet (--pod-network-cidr) is 10.9.0.0/16"), "{error}");
    let services = other(|flags| flags.service_cidr = Some("10.50.0.0/16".into()));
    let error = run(&mut bench.machine(), &services).await.unwrap_err();
    let InitError::Unlike { settings, .. } = &error else { panic!("{error:?}") };
    assert_eq!(settings.len(), 1, "{settings:?}");
    assert!(
        settings[0].starts_with("networking.serviceSubnet (--service-cidr) is 10.50.0.0/16 and was "),
        "{settings:?}"
    );
}

#[tokio::test]
async fn what_was_edited_by_hand_is_no_other_configuration_and_stays() {
    let bench = Bench::new();
    let order = kept(Flags::default());
    run(&mut bench.machine(), &order).await.unwrap();
    let manifest = bench.machine().paths.manifest("kube-scheduler");
    let edited =
        std::fs::read_to_string(&manifest).unwrap().replace("- kube-scheduler\n", "- kube-scheduler\n    - --v=4\n");
    crate::host::fs::write_file(&manifest, edited.as_bytes(), 0o600).unwrap();
    bench.machine().service.stop().unwrap();
    assert_eq!(run(&mut bench.machine(), &order).await.unwrap().outcome, Outcome::Done);
    assert_eq!(std::fs::read_to_string(&manifest).unwrap(), edited);
    let is_named =
        |event: &Event| matches!(event, Event::Warning { text, .. } if text.contains("kube-scheduler.yaml is not as"));
    assert!(bench.world.events().iter().any(is_named), "{:?}", bench.world.events());
    assert!(bench.world.is_running());
}

#[tokio::test]
async fn a_cluster_that_was_given_a_token_is_not_given_another_each_time() {
    let bench = Bench::new();
    let order = kept(Flags::default());
    let tokens =
        |bench: &Bench| bench.world.objects().keys().filter(|key| key.name.starts_with("bootstrap-token-")).count();
    assert!(run(&mut bench.machine(), &order).await.unwrap().text.contains("kubeadm join"));
    assert_eq!(tokens(&bench), 1);
    for _ in 0..2 {
        bench.machine().service.stop().unwrap();
        let ended = run(&mut bench.machine(), &order).await.unwrap();
        assert_eq!(ended.outcome, Outcome::Done);
        assert!(ended.text.contains("kubeboot token create --print-join-command"), "{}", ended.text);
        assert_eq!(tokens(&bench), 1);
    }
    // A phase of its own still gives one.
    run(&mut bench.machine(), &InitRequest { what: PhaseSelection::Phase("bootstrap-token".into(), None), ..order })
        .await
        .unwrap();
    assert_eq!(tokens(&bench), 2);
}

#[tokio::test]
async fn a_damaged_record_of_the_configuration_is_named_and_made_good() {
    for damage in [&b"{"[..], b"{\"ofTomorrow\": 1}"] {
        let bench = Bench::new();
        let spec = crate::testing::spec();
        let saved = Saved::new(&crate::config::Input::default(), &spec);
        let order = InitRequest { spec, saved: Some(saved.clone()), what: PhaseSelection::Everything };
        run(&mut bench.machine(), &order).await.unwrap();
        let path = bench.root.path().join("var/lib/kubeboot/input.json");
        crate::host::fs::write_file(&path, damage, 0o600).unwrap();
        assert_eq!(run(&mut bench.machine(), &order).await.unwrap().outcome, Outcome::AlreadyInitialised);
        let is_named = |event: &Event| matches!(event, Event::Warning { text, .. } if text.contains("input.json"));
        assert!(bench.world.events().iter().any(is_named), "{:?}", bench.world.events());
        assert_eq!(Saved::read(&*bench.machine().tree).unwrap(), Some(saved));
    }
}

#[tokio::test]
async fn while_an_upgrade_is_half_done_no_manifest_of_its_comes_back() {
    let bench = Bench::new();
    init(&bench).await.unwrap();
    let etcd = bench.machine().paths.manifest("etcd");
    std::fs::remove_file(&etcd).unwrap();
    let journal = Upgrade::new("v2", "kubeboot upgrade apply v2", "/etc/kubernetes/tmp/backup".into());
    journal.write(&mut *bench.machine().tree).unwrap();
    let error = init(&bench).await.unwrap_err();
    assert!(error.to_string().contains("finish it with `kubeboot upgrade apply v2`"), "{error}");
    assert!(!etcd.exists(), "etcd's data may be half restored");
}

#[tokio::test]
async fn a_second_init_does_nothing_and_one_with_another_configuration_is_refused() {
    let bench = Bench::new();
    init(&bench).await.unwrap();
    let calls = bench.world.calls().len();
    assert_eq!(init(&bench).await.unwrap(), Outcome::AlreadyInitialised);
    assert_eq!(bench.world.calls().len(), calls);

    let mut other = crate::testing::spec();
    other.networking.service_subnets = vec!["10.50.0.0/16".parse().unwrap()];
    let error = run_on(&mut bench.machine(), other, PhaseSelection::Everything).await.unwrap_err();
    assert!(matches!(error, InitError::Unlike { phase: "certs", .. }), "{error:?}");
    let mut other = crate::testing::spec();
    other.scheduler.extra_args = vec![crate::config::spec::Arg { name: "v".into(), value: "4".into() }];
    let error = run_on(&mut bench.machine(), other, PhaseSelection::Everything).await.unwrap_err();
    let InitError::Differs { paths, .. } = error else { panic!("{error:?}") };
    assert_eq!(paths, [Path::new("/etc/kubernetes/manifests/kube-scheduler.yaml")]);
    assert_eq!(bench.world.calls().len(), calls);
}

#[tokio::test]
async fn the_journal_has_a_digest_of_what_was_given_and_one_of_an_earlier_kubeboot_is_no_obstacle() {
    let bench = Bench::new();
    let order = kept(Flags::default());
    run(&mut bench.machine(), &order).await.unwrap();
    let journal = bench.machine().paths.state().join("journal.json");
    let text = std::fs::read_to_string(&journal).unwrap();
    let digest = order.saved.as_ref().unwrap().digest();
    assert_ne!(
        digest,
        kept(Flags { service_cidr: Some("10.50.0.0/16".into()), ..Flags::default() }).saved.unwrap().digest()
    );
    assert!(text.contains(&format!("\"config\":\"{digest}\"")), "{text}");
    // That one hashed the configuration as its own program printed it.
    let earlier = crate::host::digest::sha256(format!("{:?}", order.spec).as_bytes());
    crate::host::fs::write_file(&journal, text.replace(&digest, &earlier).as_bytes(), 0o600).unwrap();
    assert_eq!(run(&mut bench.machine(), &order).await.unwrap().outcome, Outcome::AlreadyInitialised);
}
