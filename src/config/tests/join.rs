//! The configurations of join, reset and upgrade.

use std::path::PathBuf;
use std::time::Duration;

use super::spec::*;
use super::*;

const TOKEN: &str = "abcdef.0123456789abcdef";
const HASH: &str = "sha256:0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a";

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn secret(text: &str) -> Option<Secret> {
    Some(Secret(text.to_owned()))
}

fn by_flags(flags: JoinFlags) -> Result<Loaded<JoinSpec>, String> {
    load_join(&Input { file: None, flags, host: host() }).map_err(|error| error.to_string())
}

/// The flags that the join command of init has.
fn worker() -> JoinFlags {
    JoinFlags {
        endpoint: some("10.0.0.5:6443"),
        token: secret(TOKEN),
        discovery_token_ca_cert_hash: vec![HASH.into()],
        ..JoinFlags::default()
    }
}

#[test]
fn a_join_file_with_everything_resolves_field_by_field() {
    let loaded = load_join(&file_of(include_str!("join.everything.yaml"))).unwrap();
    let spec = loaded.spec;
    assert!(loaded.dry_run);
    assert_eq!((&spec.node.name[..], &spec.node.hostname[..]), ("worker-1", "cp1"));
    assert_eq!((spec.node.advertise_address.to_string(), spec.node.bind_port), ("10.0.0.7".to_owned(), 7443));
    assert_eq!(spec.node.cri_socket.as_deref(), Some("unix:///run/crio/crio.sock"));
    assert_eq!((&spec.node.taints, &spec.node.kubelet_extra_args[0].value[..]), (&Some(vec![]), "a=b"));
    assert_eq!(
        (&spec.node.ignore_preflight_errors[..], spec.node.image_pull_policy),
        (&["swap".into()][..], PullPolicy::Always)
    );
    assert_eq!(spec.ca_cert_path, PathBuf::from("/pki/ca.crt"));
    let Discovery::Token(discovery) = &spec.discovery else { panic!("{:?}", spec.discovery) };
    assert_eq!((discovery.endpoint.to_string(), discovery.token.id()), ("[fd00::10]:8443".to_owned(), "abcdef"));
    assert_eq!((&discovery.pins[..], discovery.unsafe_skip_ca_verification), (&[CaPin([10; 32])][..], false));
    assert_eq!(spec.tls_bootstrap_token.as_ref().unwrap().id(), "fedcba");
    let key = spec.control_plane.as_ref().unwrap().certificate_key.as_ref().unwrap();
    assert_eq!(key.reveal(), "0123456789abcdef".repeat(4));
    assert_eq!((spec.skip_phases, spec.patches_dir), (vec!["preflight".to_owned()], Some("/patches".into())));
    assert_eq!(
        (spec.timeouts.discovery, spec.timeouts.tls_bootstrap),
        (Duration::from_secs(30), Duration::from_secs(60))
    );
    assert_eq!(spec.timeouts.kubelet_health_check, Timeouts::default().kubelet_health_check);
    assert_eq!(spec.kubeboot.node_agent, NodeAgent::Kubelet);
    assert_eq!(loaded.warnings, Vec::<String>::new());
}

#[test]
fn the_join_command_that_init_prints_loads_with_kubeadms_defaults() {
    let spec = by_flags(worker()).unwrap().spec;
    assert_eq!((&spec.node.name[..], spec.control_plane), ("cp1", None));
    assert_eq!(spec.ca_cert_path, PathBuf::from("/etc/kubernetes/pki/ca.crt"));
    let expected = TokenDiscovery {
        endpoint: Endpoint { host: "10.0.0.5".into(), port: 6443 },
        token: TOKEN.parse().unwrap(),
        pins: vec![CaPin([10; 32])],
        unsafe_skip_ca_verification: false,
    };
    assert_eq!(spec.discovery, Discovery::Token(expected));
    assert_eq!(spec.tls_bootstrap_token, Some(TOKEN.parse().unwrap()));
    assert_eq!((spec.timeouts, spec.skip_phases, spec.patches_dir), (Timeouts::default(), vec![], None));
}

#[test]
fn every_join_flag_arrives_where_the_file_would_have_put_it() {
    let flags = JoinFlags {
        discovery_token: secret(TOKEN),
        token: secret("zzzzzz.0123456789abcdef"),
        tls_bootstrap_token: secret("fedcba.0123456789abcdef"),
        endpoint: some("[fd00::10]:8443"),
        control_plane: true,
        apiserver_advertise_address: some("10.0.0.7"),
        apiserver_bind_port: some("7443"),
        certificate_key: Some(Secret("0123456789abcdef".repeat(4))),
        node_name: some("Worker-1"),
        ignore_preflight_errors: vec!["Swap".into()],
        skip_phases: vec!["preflight".into()],
        patches: some("/patches"),
        cri_socket: some("unix:///run/crio/crio.sock"),
        ..worker()
    };
    let file = include_str!("join.everything.yaml")
        .replace("  taints: []\n", "")
        .replace("  imagePullPolicy: Always\n", "")
        .replace("  kubeletExtraArgs: [{name: node-labels, value: a=b}]\n", "")
        .replace("timeouts: {discovery: 30s, tlsBootstrap: 1m}\n", "")
        .replace("caCertPath: /pki/ca.crt\n", "")
        .replace("dryRun: true\n", "")
        .replace("nodeAgent: kubelet\n", "");
    assert_eq!(by_flags(flags).unwrap(), load_join(&file_of(&file)).unwrap());
}

#[test]
fn a_file_discovery_needs_no_token_and_takes_one() {
    let flags = JoinFlags { discovery_file: some("/tmp/cluster.conf"), ..JoinFlags::default() };
    let spec = by_flags(flags.clone()).unwrap().spec;
    assert_eq!(spec.discovery, Discovery::File(KubeconfigSource::Path("/tmp/cluster.conf".into())));
    assert_eq!(spec.tls_bootstrap_token, None);
    let url = "https://example.com/cluster.conf";
    let spec = by_flags(JoinFlags { discovery_file: some(url), token: secret(TOKEN), ..flags }).unwrap().spec;
    assert_eq!(spec.discovery, Discovery::File(KubeconfigSource::Url(url.into())));
    assert_eq!(spec.tls_bootstrap_token.unwrap().id(), "abcdef");
}

#[test]
fn a_bad_join_flag_is_called_by_its_name_and_shows_no_secret() {
    const NOT_A_TOKEN: &str = "not a token; write 6 characters, a dot and 16 characters of a-z and 0-9";
    let skip = JoinFlags { discovery_token_unsafe_skip_ca_verification: true, ..worker() };
    let cases = [
        (JoinFlags { token: secret("abcdef.XYZ"), ..worker() }, format!("--token: {NOT_A_TOKEN}")),
        (JoinFlags { discovery_token: secret("XYZ"), ..worker() }, format!("--discovery-token: {NOT_A_TOKEN}")),
        (JoinFlags { tls_bootstrap_token: secret("XYZ"), ..worker() }, format!("--tls-bootstrap-token: {NOT_A_TOKEN}")),
        (JoinFlags { endpoint: some("10.0.0.5"), ..worker() }, "HOST:PORT: \"10.0.0.5\" has no port; write 10.0.0.5:6443".into()),
        (
            JoinFlags { discovery_token_ca_cert_hash: vec![HASH.into(), "sha256:1".into()], ..worker() },
            "--discovery-token-ca-cert-hash: \"sha256:1\" is not the hash of a CA's public key; write sha256: and 64 \
             hexadecimal digits"
                .into(),
        ),
        (
            JoinFlags { control_plane: true, certificate_key: secret("XYZ"), ..worker() },
            "--certificate-key: not a key; write the 64 hexadecimal digits of 32 bytes".into(),
        ),
        (
            JoinFlags { control_plane: true, apiserver_bind_port: some("2379"), ..worker() },
            "--apiserver-bind-port: 2379 is the port of etcd's clients; choose another".into(),
        ),
        (
            JoinFlags { discovery_file: some("http://example.com/c"), ..JoinFlags::default() },
            "--discovery-file: \"http://example.com/c\" is neither a path nor an https URL; nothing else is safe to trust"
                .into(),
        ),
        (
            JoinFlags { discovery_token_ca_cert_hash: vec![], ..worker() },
            "--discovery-token-ca-cert-hash: without a hash of the cluster's CA anybody who holds the token can pose as \
             the cluster; give one (`kubeboot token create --print-join-command` shows it), or set \
             unsafeSkipCAVerification (--discovery-token-unsafe-skip-ca-verification)"
                .into(),
        ),
        (
            JoinFlags { token: secret(TOKEN), ..JoinFlags::default() },
            "discovery: nothing says how to find the cluster; give HOST:PORT with --token and \
             --discovery-token-ca-cert-hash, or --discovery-file (in a file: bootstrapToken or file)"
                .into(),
        ),
        (
            JoinFlags { discovery_file: some("/a"), ..worker() },
            "discovery: bootstrapToken and file exclude each other; leave one out".into(),
        ),
    ];
    for (flags, expected) in cases {
        assert_eq!(by_flags(flags).unwrap_err(), expected);
    }
    assert!(by_flags(JoinFlags { discovery_token_ca_cert_hash: vec![], ..skip }).is_ok());
}

#[test]
fn a_worker_is_warned_of_flags_of_the_control_plane() {
    let flags = JoinFlags { apiserver_bind_port: some("7443"), certificate_key: secret("0123"), ..worker() };
    let warnings = by_flags(flags).unwrap().warnings;
    let expected = ["--apiserver-bind-port", "--certificate-key"];
    assert_eq!(warnings, expected.map(|flag| format!("{flag}: has no effect without --control-plane")));
}

#[test]
fn join_flags_that_configure_are_refused_beside_a_file() {
    let mut input = file_of::<JoinFlags>(include_str!("join.everything.yaml"));
    input.flags = JoinFlags { control_plane: true, patches: some("/p"), ..worker() };
    let fields: Vec<String> =
        load_join(&input).unwrap_err().problems.into_iter().map(|problem| problem.field).collect();
    assert_eq!(fields, ["--token", "--discovery-token-ca-cert-hash", "--control-plane", "--patches"]);
    input.flags = JoinFlags {
        endpoint: some("h:1"),
        node_name: some("other"),
        skip_phases: vec!["a".into()],
        ..JoinFlags::default()
    };
    let loaded = load_join(&input).unwrap();
    assert_eq!((&loaded.spec.node.name[..], &loaded.spec.skip_phases[..]), ("other", &["a".into()][..]));
    let ignored = "HOST:PORT: ignored beside --config: discovery.bootstrapToken.apiServerEndpoint of the file counts";
    assert_eq!(loaded.warnings, [ignored]);
}

#[test]
fn a_v1beta3_join_loads_as_the_v1beta4_it_migrates_to() {
    let old = "\
apiVersion: kubeadm.k8s.io/v1beta3
kind: JoinConfiguration
discovery: {bootstrapToken: {token: abcdef.0123456789abcdef, apiServerEndpoint: 'a:1', unsafeSkipCAVerification: on}, timeout: 9m}
nodeRegistration: {kubeletExtraArgs: {v: '4', node-ip: 10.0.0.5}}
";
    let new = document(
        "JoinConfiguration",
        "discovery: {bootstrapToken: {token: abcdef.0123456789abcdef, apiServerEndpoint: 'a:1', unsafeSkipCAVerification: true}}\n\
         timeouts: {discovery: 9m}\n\
         nodeRegistration: {kubeletExtraArgs: [{name: node-ip, value: 10.0.0.5}, {name: v, value: '4'}]}\n",
    );
    let (old, new) = (load_join(&file_of(old)).unwrap(), load_join(&file_of(&new)).unwrap());
    assert_eq!(old.spec, new.spec);
    assert_eq!(old.spec.timeouts.discovery, Duration::from_secs(540));
}

#[test]
fn reset_takes_its_file_and_its_flags() {
    let file = document(
        "ResetConfiguration",
        "certificatesDir: /pki\ncleanupTmpDir: true\ncriSocket: /run/crio/crio.sock\ndryRun: true\nforce: true\n\
         ignorePreflightErrors: [A]\nskipPhases: [preflight]\nunmountFlags: [MNT_FORCE, MNT_DETACH, MNT_EXPIRE, \
         UMOUNT_NOFOLLOW]\ntimeouts: {etcdAPICall: 1s}\n",
    );
    let mut input = file_of::<ResetFlags>(&file);
    input.flags.ignore_preflight_errors = vec!["b".into()];
    let loaded = load_reset(&input).unwrap();
    let timeouts = Timeouts { etcd_api_call: Duration::from_secs(1), ..Timeouts::default() };
    let expected = ResetSpec {
        certificates_dir: "/pki".into(),
        cleanup_tmp_dir: true,
        cri_socket: some("unix:///run/crio/crio.sock"),
        force: true,
        ignore_preflight_errors: vec!["b".into(), "a".into()],
        skip_phases: vec!["preflight".into()],
        unmount_flags: vec![UnmountFlag::Force, UnmountFlag::Detach, UnmountFlag::Expire, UnmountFlag::NoFollow],
        timeouts,
    };
    assert_eq!((&loaded.spec, loaded.dry_run), (&expected, true));
    let flags = ResetFlags {
        cert_dir: some("/pki"),
        cleanup_tmp_dir: true,
        cri_socket: some("unix:///run/crio/crio.sock"),
        force: true,
        ignore_preflight_errors: vec!["b,a".into()],
        skip_phases: vec!["preflight".into()],
    };
    let by_flags = load_reset(&Input { file: None, flags, host: host() }).unwrap();
    let expected = ResetSpec { unmount_flags: vec![], timeouts: Timeouts::default(), ..expected };
    assert_eq!((by_flags.spec, by_flags.dry_run), (expected, false));
    input.flags.force = true;
    let refused = "--force: cannot be given together with --config; set force in the file instead";
    assert_eq!(load_reset(&input).unwrap_err().to_string(), refused);
}

#[test]
fn upgrade_has_a_section_for_each_of_its_commands() {
    let defaults = load_upgrade(&Input::<UpgradeFlags>::default()).unwrap().spec;
    let common = UpgradeCommon {
        certificate_renewal: true,
        etcd_upgrade: true,
        ignore_preflight_errors: vec![],
        patches_dir: None,
        skip_phases: vec![],
        image_pull_policy: None,
        image_pull_serial: true,
    };
    assert_eq!((&defaults.apply.common, &defaults.node.common), (&common, &common));
    assert_eq!((defaults.apply.kubernetes_version, defaults.timeouts, defaults.diff.context_lines), (None, None, 3));
    let file = document(
        "UpgradeConfiguration",
        "apply: {kubernetesVersion: v1.36.3, certificateRenewal: false, etcdUpgrade: false, forceUpgrade: true, \
         allowExperimentalUpgrades: true, allowRCUpgrades: true, dryRun: true, printConfig: true, \
         ignorePreflightErrors: [Mem], patches: {directory: /p}, skipPhases: [addon], imagePullPolicy: Never, \
         imagePullSerial: false}\n\
         node: {certificateRenewal: false, dryRun: true, patches: {directory: /n}}\n\
         plan: {kubernetesVersion: v1.36.4, etcdUpgrade: false}\n\
         diff: {kubernetesVersion: v1.36.5, contextLines: 7}\n\
         timeouts: {upgradeManifests: 1m}\n",
    );
    let spec = load_upgrade(&file_of(&file)).unwrap().spec;
    let versions = [&spec.apply.kubernetes_version, &spec.plan.kubernetes_version, &spec.diff.kubernetes_version];
    assert_eq!(versions.map(|version| version.as_ref().unwrap().patch()), [3, 4, 5]);
    let apply = &spec.apply;
    assert!(
        apply.force
            && apply.allow_experimental_upgrades
            && apply.allow_rc_upgrades
            && apply.dry_run
            && apply.print_config
    );
    let expected = UpgradeCommon {
        certificate_renewal: false,
        etcd_upgrade: false,
        ignore_preflight_errors: vec!["mem".into()],
        patches_dir: Some("/p".into()),
        skip_phases: vec!["addon".into()],
        image_pull_policy: Some(PullPolicy::Never),
        image_pull_serial: false,
    };
    assert_eq!(apply.common, expected);
    assert_eq!((spec.node.dry_run, spec.node.common.patches_dir.clone()), (true, Some("/n".into())));
    assert_eq!((spec.plan.etcd_upgrade, spec.diff.context_lines), (false, 7));
    assert_eq!(spec.timeouts.unwrap().upgrade_manifests, Duration::from_secs(60));
}

#[test]
fn upgrade_flags_win_where_they_may_go_beside_a_file_and_are_refused_where_not() {
    let file = document("UpgradeConfiguration", "apply: {kubernetesVersion: v1.36.3}");
    let mut input = file_of::<UpgradeFlags>(&file);
    input.flags = UpgradeFlags {
        version: some("1.36.9"),
        dry_run: Some(true),
        skip_phases: vec!["a".into()],
        ..UpgradeFlags::default()
    };
    let spec = load_upgrade(&input).unwrap().spec;
    assert_eq!(spec.apply.kubernetes_version.unwrap().patch(), 9);
    assert_eq!(
        (spec.apply.dry_run, spec.node.dry_run, &spec.apply.common.skip_phases[..]),
        (true, true, &["a".into()][..])
    );
    input.flags =
        UpgradeFlags { etcd_upgrade: Some(false), force: Some(true), patches: some("/p"), ..UpgradeFlags::default() };
    let fields: Vec<String> =
        load_upgrade(&input).unwrap_err().problems.into_iter().map(|problem| problem.field).collect();
    assert_eq!(fields, ["--etcd-upgrade", "--force", "--patches"]);
    input.file = None;
    let spec = load_upgrade(&input).unwrap().spec;
    assert_eq!(
        (spec.plan.etcd_upgrade, spec.apply.force, spec.node.common.patches_dir),
        (false, true, Some("/p".into()))
    );
    input.flags.version = some("1.36");
    let error = load_upgrade(&input).unwrap_err().to_string();
    assert!(error.starts_with("the version: \"1.36\" is not a Kubernetes version"), "{error}");
}

#[test]
fn other_documents_in_the_file_of_reset_or_upgrade_are_passed_over_with_a_warning() {
    let file = cluster("clusterName: x\n---\n") + &document("UpgradeConfiguration", "");
    let expected = ["c.yaml:2:7: kind: ClusterConfiguration is ignored: it is for init"];
    assert_eq!(load_upgrade(&file_of(&file)).unwrap().warnings, expected);
    let warnings = load_upgrade(&file_of(&cluster(""))).unwrap().warnings;
    assert_eq!(warnings, expected);
}
