//! What is printed loads again: to the same spec, to the same documents.

use std::path::Path;

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::config::{defaults, print};
use crate::yaml;

fn stream(documents: &[Value]) -> String {
    documents.iter().map(|document| yaml::to_string(document).unwrap()).collect::<Vec<_>>().join("---\n")
}

/// The spec of `file`, printed and loaded again.
fn again(spec: &ClusterSpec) -> Loaded {
    let documents = [print::init_configuration(spec), print::cluster_configuration(spec)];
    good(&stream(&documents))
}

/// What a file says, but for what is not kubeadm's to say.
fn kubeadms(mut spec: ClusterSpec) -> ClusterSpec {
    spec.kubeboot = KubebootSpec::default();
    spec.kubelet = serde_json::json!({});
    spec
}

#[test]
fn a_spec_with_everything_prints_as_documents_that_load_to_it() {
    let spec = good(include_str!("everything.yaml")).spec;
    assert_eq!(again(&spec).spec, kubeadms(spec));
    let body = "etcd: {external: {endpoints: ['https://b:2379'], caFile: /a, certFile: /c, keyFile: /k}}\n\
                dns: {disabled: true}\nproxy: {disabled: true}\ncontrolPlaneEndpoint: fd00::1\n";
    let tokens = "bootstrapTokens:\n- {token: abcdef.0123456789abcdef, ttl: 0s, description: mine}\n\
                  - {token: fedcba.0123456789abcdef, expires: '2030-01-02T15:04:05Z', usages: [signing]}\n\
                  nodeRegistration: {taints: [], kubeletExtraArgs: [{name: v}]}\n---\n";
    let spec = good(&(init(tokens) + &cluster(body))).spec;
    assert_eq!(again(&spec).spec, spec);
}

#[test]
fn the_printed_defaults_are_kubeadms_but_for_what_is_ours() {
    let [first, second] = &defaults::init().unwrap()[..] else { panic!("two documents") };
    let expected = "\
apiVersion: kubeadm.k8s.io/v1beta4
bootstrapTokens:
- groups:
  - system:bootstrappers:kubeadm:default-node-token
  token: abcdef.0123456789abcdef
  ttl: 24h0m0s
  usages:
  - signing
  - authentication
kind: InitConfiguration
localAPIEndpoint:
  advertiseAddress: \"1.2.3.4\"
  bindPort: 6443
nodeRegistration:
  criSocket: unix:///var/run/containerd/containerd.sock
  imagePullPolicy: IfNotPresent
  imagePullSerial: true
  name: node
  taints: null
timeouts:
  controlPlaneComponentHealthCheck: 4m0s
  discovery: 5m0s
  etcdAPICall: 2m0s
  kubeletHealthCheck: 4m0s
  kubernetesAPICall: 1m0s
  tlsBootstrap: 5m0s
  upgradeManifests: 5m0s
";
    assert_eq!(yaml::to_string(first).unwrap(), expected);
    let expected = "\
apiServer: {}
apiVersion: kubeadm.k8s.io/v1beta4
caCertificateValidityPeriod: 87600h0m0s
certificateValidityPeriod: 8760h0m0s
certificatesDir: /etc/kubernetes/pki
clusterName: kubernetes
controllerManager: {}
dns: {}
encryptionAlgorithm: ECDSA-P256
etcd:
  local:
    dataDir: /var/lib/etcd
imageRepository: registry.k8s.io
kind: ClusterConfiguration
kubernetesVersion: \"1.37.1\"
networking:
  dnsDomain: cluster.local
  serviceSubnet: 10.96.0.0/12
proxy: {}
scheduler: {}
";
    assert_eq!(yaml::to_string(second).unwrap(), expected);
}

#[test]
fn the_printed_defaults_of_every_command_load_without_a_warning() {
    let loaded = good(&stream(&defaults::init().unwrap()));
    assert_eq!(loaded.warnings, Vec::<String>::new());
    let mut expected = defaults::init_spec().unwrap();
    expected.node.hostname = host().hostname;
    assert_eq!(loaded.spec, expected);
    let join = load_join(&file_of(&stream(&defaults::join("Worker").unwrap()))).unwrap();
    assert_eq!((&join.spec.node.name[..], &join.warnings[..]), ("worker", &[][..]));
    assert_eq!(print::join_configuration(&join.spec), defaults::join("worker").unwrap()[0]);
    let reset = load_reset(&file_of(&stream(&defaults::reset().unwrap()))).unwrap();
    assert_eq!(
        (print::reset_configuration(&reset.spec), reset.warnings),
        (defaults::reset().unwrap()[0].clone(), vec![])
    );
    let documents = defaults::upgrade().unwrap();
    let upgrade = load_upgrade(&file_of(&stream(&documents))).unwrap().spec;
    assert_eq!(print::upgrade_configuration(&upgrade), documents[0]);
    for documents in [defaults::init(), defaults::join("a"), defaults::reset(), defaults::upgrade()].map(Result::unwrap)
    {
        assert_eq!(validate(Path::new("c.yaml"), &stream(&documents), false), Ok(vec![]));
    }
}

#[test]
fn other_specs_print_as_documents_that_load_to_them() {
    let join = load_join(&file_of(include_str!("join.everything.yaml"))).unwrap().spec;
    let printed = stream(&[print::join_configuration(&join)]);
    let mut expected = join.clone();
    expected.kubeboot = KubebootSpec::default();
    assert_eq!(load_join(&file_of(&printed)).unwrap().spec, expected);
    let body = "cleanupTmpDir: true\nforce: true\nunmountFlags: [MNT_FORCE, UMOUNT_NOFOLLOW]\nskipPhases: [a]\n";
    let reset = load_reset(&file_of(&document("ResetConfiguration", body))).unwrap().spec;
    assert_eq!(load_reset(&file_of(&stream(&[print::reset_configuration(&reset)]))).unwrap().spec, reset);
    let body = "apply: {kubernetesVersion: v1.36.3, etcdUpgrade: false, forceUpgrade: true, skipPhases: [a], \
                imagePullPolicy: Never, patches: {directory: /p}}\nnode: {dryRun: true, imagePullPolicy: Always}\n\
                plan: {etcdUpgrade: false, printConfig: true}\ndiff: {contextLines: 9}\ntimeouts: {discovery: 1s}\n";
    let upgrade = load_upgrade(&file_of(&document("UpgradeConfiguration", body))).unwrap().spec;
    assert_eq!(load_upgrade(&file_of(&stream(&[print::upgrade_configuration(&upgrade)]))).unwrap().spec, upgrade);
}

const OLD: &str = "\
apiVersion: kubeadm.k8s.io/v1beta3
kind: ClusterConfiguration
kubernetesVersion: v1.36.2
apiServer: {timeoutForControlPlane: 6m0s, extraArgs: {v: '4', audit-log-path: /a}}
---
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
maxPods: 0372
---
apiVersion: kubeadm.k8s.io/v1beta3
kind: JoinConfiguration
discovery: {file: {kubeConfigPath: /f}, timeout: 9m}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: UpgradeConfiguration
apply: {etcdUpgrade: no}
";

#[test]
fn migrating_changes_versions_and_forms_and_nothing_else() {
    let (documents, warnings) = migrate(Path::new("old.yaml"), OLD).unwrap();
    let expected = "\
apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
timeouts:
  controlPlaneComponentHealthCheck: 6m0s
---
apiServer:
  extraArgs:
  - name: audit-log-path
    value: /a
  - name: v
    value: \"4\"
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: v1.36.2
---
apiVersion: kubeadm.k8s.io/v1beta4
discovery:
  file:
    kubeConfigPath: /f
kind: JoinConfiguration
timeouts:
  discovery: 9m
---
apiVersion: kubeadm.k8s.io/v1beta4
apply:
  etcdUpgrade: false
kind: UpgradeConfiguration
---
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
maxPods: 250
";
    let text = stream(&documents);
    assert_eq!((text.as_str(), warnings), (expected, vec![]));
    let (again, _) = migrate(Path::new("new.yaml"), &text).unwrap();
    assert_eq!(again, documents, "migrating again changes nothing");
    assert_eq!(load(&file_of::<Flags>(&text)).unwrap().spec, load(&file_of::<Flags>(OLD)).unwrap().spec);
}

#[test]
fn validating_reads_every_kind_whichever_command_it_is_for() {
    let warnings = validate(Path::new("old.yaml"), OLD, false).unwrap();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings.iter().all(|warning| warning.contains("v1beta3 is deprecated")));
    assert_eq!(validate(Path::new("old.yaml"), OLD, true), Ok(vec![]));
    let file = init("criSocket: unix:///a\n---\n")
        + &document("ResetConfiguration", "forced: true\n---\n")
        + &document("UpgradeConfiguration", "diff: {contextLines: many}\n---\n")
        + &document("JoinConfiguration", "discovery: {}\n");
    let problems = validate(Path::new("c.yaml"), &file, false).unwrap_err().problems;
    let fields: Vec<_> = problems.iter().map(ToString::to_string).collect();
    let expected = [
        "c.yaml:3:1: criSocket belongs below nodeRegistration",
        "c.yaml:7:1: forced: unknown field; did you mean force?",
        "c.yaml:11:22: diff.contextLines: expected a whole number, found the text \"many\"",
    ];
    assert_eq!((fields.len(), &fields[..3]), (4, &expected.map(String::from)[..]), "{fields:?}");
    assert!(fields[3].starts_with("c.yaml:15:1: discovery: nothing says how to find the cluster"), "{fields:?}");
    for empty in ["", "# nothing\n---\n"] {
        let problem = validate(Path::new("c.yaml"), empty, false).unwrap_err().to_string();
        assert!(problem.starts_with("c.yaml:1:1: the file has no document"), "{problem}");
    }
    // An IPv6 cluster is valid on any machine.
    let ipv6 = cluster("networking: {serviceSubnet: 'fd00:10:96::/112'}");
    assert_eq!(validate(Path::new("c.yaml"), &ipv6, false), Ok(vec![]));
}

/// One line of a ClusterConfiguration, or none.
fn line(name: &'static str, values: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop::option::of(prop::sample::select(values))
        .prop_map(move |value| value.map(|value| format!("{name}: {value}\n")).unwrap_or_default())
}

fn component_line(name: &'static str) -> impl Strategy<Value = String> {
    let args = prop::collection::vec(("[a-z]{1,8}", "[ -~é]{0,12}"), 0..3);
    (args, any::<bool>()).prop_map(move |(args, mount)| {
        let args = args.iter().map(|(name, value)| serde_json::json!({ "name": name, "value": value }).to_string());
        let volumes = if mount { "[{name: a, hostPath: /h, mountPath: /m, readOnly: on}]" } else { "[]" };
        let args = args.collect::<Vec<_>>().join(", ");
        format!("{name}: {{extraArgs: [{args}], extraVolumes: {volumes}, extraEnvs: [{{name: A, value: '1'}}]}}\n")
    })
}

fn any_cluster() -> impl Strategy<Value = String> {
    let scalars = (
        line("kubernetesVersion", &["v1.36.2", "1.35.0-rc.1", "stable-1", "v1.20.2", "1.37.0+build"]),
        line("controlPlaneEndpoint", &["k8s.example.com", "10.0.0.9:443", "'[fd00::1]:8443'", "fd00::2"]),
        line("clusterName", &["prod", "'yes'", "'1.0'"]),
        line("certificatesDir", &["/pki", "'/with space'"]),
        line("imageRepository", &["registry.example.com:5000/k8s", "localhost"]),
        line("encryptionAlgorithm", &["RSA-2048", "RSA-3072", "RSA-4096", "ECDSA-P256", "ECDSA-P384"]),
        line("certificateValidityPeriod", &["1h", "2160h", "1.5h", "90m30s"]),
        line("caCertificateValidityPeriod", &["43800h0m0s", "20000h"]),
        line("featureGates", &["{NodeLocalCRISocket: true}", "{PublicKeysECDSA: no}"]),
    );
    let objects = (
        line("dns", &["{imageRepository: a.example.com, imageTag: v1}", "{disabled: yes}"]),
        line("proxy", &["{disabled: true}", "{disabled: off}"]),
        line(
            "networking",
            &[
                "{dnsDomain: corp.local}",
                "{podSubnet: 10.244.0.0/16}",
                "{podSubnet: '10.244.0.0/16,fd00:10:244::/56', serviceSubnet: '10.96.0.0/16,fd00:10:96::/112'}",
            ],
        ),
        line(
            "etcd",
            &[
                "{local: {dataDir: /d, imageTag: 3.6.8-0, serverCertSANs: [a.b], extraArgs: [{name: a, value: '1'}]}}",
                "{external: {endpoints: ['http://a:1', 'http://b']}}",
                "{external: {endpoints: ['https://a:1'], caFile: /a, certFile: /b, keyFile: /c}}",
            ],
        ),
        component_line("apiServer"),
        component_line("controllerManager"),
        component_line("scheduler"),
    );
    (scalars, objects).prop_map(|(s, o)| {
        let scalars = [s.0, s.1, s.2, s.3, s.4, s.5, s.6, s.7, s.8].concat();
        scalars + &[o.0, o.1, o.2, o.3, o.4, o.5, o.6].concat()
    })
}

proptest! {
    #[test]
    fn any_valid_cluster_configuration_prints_as_one_that_loads_to_the_same_spec(body in any_cluster()) {
        let spec = good(&cluster(&body)).spec;
        prop_assert_eq!(again(&spec).spec, spec);
    }

    #[test]
    fn no_file_makes_any_loader_panic(text in "[a-zA-Z0-9:\\[\\]{} \n\"'&*!|>%@#<-]{0,80}", line in 0_usize..60) {
        let everything = include_str!("everything.yaml").to_owned() + "---\n" + include_str!("join.everything.yaml");
        let cut: Vec<&str> = everything.lines().enumerate().map(|(at, old)| if at == line { &text } else { old }).collect();
        for file in [text.clone(), cut.join("\n")] {
            let _ = (load(&file_of::<Flags>(&file)), load_join(&file_of(&file)), load_reset(&file_of(&file)));
            let _ = (load_upgrade(&file_of(&file)), migrate(Path::new("c.yaml"), &file));
        }
    }
}
