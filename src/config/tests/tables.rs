//! kubeadm's tables of fields, row by row: values that each takes and values that it refuses.

use std::path::Path;

use serde_json::{Value, json};

use super::*;
use crate::config::reference;

/// A document's kind, a field, what it takes, what it refuses; values as YAML, separated by ` | `.
type Row = (&'static str, &'static str, &'static str, &'static str);

const INIT: &str = "InitConfiguration";
const CLUSTER: &str = "ClusterConfiguration";
const JOIN: &str = "JoinConfiguration";
const RESET: &str = "ResetConfiguration";
const UPGRADE: &str = "UpgradeConfiguration";
const KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef | ''";

const ROWS: &[Row] = &[
    (
        INIT,
        "bootstrapTokens[0].token",
        "abcdef.0123456789abcdef | ''",
        "abcdef | ABCDEF.0123456789abcdef | abcdef.0123",
    ),
    (INIT, "bootstrapTokens[0].description", "free text | ''", "5 | [a]"),
    (INIT, "bootstrapTokens[0].ttl", "0s | 24h | 1.5h", "-1s | 24 | '24' | 1d"),
    (INIT, "bootstrapTokens[0].expires", "2030-01-02T15:04:05Z", "tomorrow | 2030-01-02"),
    (INIT, "bootstrapTokens[0].usages[0]", "signing | authentication", "sign | ''"),
    (INIT, "bootstrapTokens[0].groups[0]", "system:bootstrappers:a", "system:masters | 'system:bootstrappers:'"),
    (INIT, "dryRun", "true | yes | Off | n", "1 | 'true' | maybe"),
    (
        INIT,
        "localAPIEndpoint.advertiseAddress",
        "10.0.0.7 | 192.0.2.1 | 0.0.0.0",
        "127.0.0.1 | 224.0.0.1 | 169.254.1.1 | h",
    ),
    (INIT, "localAPIEndpoint.bindPort", "1 | 65535 | 0o20", "0 | 65536 | -1 | '6443' | 2379"),
    (INIT, "certificateKey", KEY, "abc | 0123456789abcdef"),
    (INIT, "skipPhases", "[preflight] | []", "preflight | {}"),
    (INIT, "patches.directory", "/patches | patches", "[a]"),
    (INIT, "nodeRegistration.name", "cp1 | CP1.Example.com | ' a '", "a_b | -a | a..b | 7"),
    (INIT, "nodeRegistration.criSocket", "unix:///a | /a", "tcp://a | a | unix://a"),
    (INIT, "nodeRegistration.taints", "null | [] | [{key: a, effect: NoSchedule}]", "a | {}"),
    (INIT, "nodeRegistration.taints[0]", "{key: a, value: b, effect: NoExecute}", "a | {effect: NoExecute}"),
    (INIT, "nodeRegistration.kubeletExtraArgs", "[] | [{name: v, value: '4'}]", "{v: '4'}"),
    (INIT, "nodeRegistration.kubeletExtraArgs[0].name", "v | v | node-ip", "'' | --v | a=b"),
    (INIT, "nodeRegistration.ignorePreflightErrors", "[all] | [Swap, Mem]", "[all, Swap]"),
    (INIT, "nodeRegistration.imagePullPolicy", "Always | IfNotPresent | Never", "always | ''"),
    (INIT, "nodeRegistration.imagePullSerial", "true | false | on", "1 | serial"),
    (INIT, "timeouts.controlPlaneComponentHealthCheck", "4m0s | 1s", "0s | -1s | 4"),
    (INIT, "timeouts.kubeletHealthCheck", "4m0s", "0s"),
    (INIT, "timeouts.kubernetesAPICall", "1m0s", "0s"),
    (INIT, "timeouts.etcdAPICall", "2m0s", "0s"),
    (INIT, "timeouts.tlsBootstrap", "5m0s", "0s"),
    (INIT, "timeouts.discovery", "5m0s", "0s"),
    (INIT, "timeouts.upgradeManifests", "5m0s", "0s"),
    (
        CLUSTER,
        "kubernetesVersion",
        "v1.36.2 | 1.36.2 | v1.36.0-rc.1+a | stable-1.36",
        "v1.1 | 1.1 | ci/latest | stable-1.1 | x",
    ),
    (CLUSTER, "controlPlaneEndpoint", "a | a.b:1 | 10.0.0.1 | '[fd00::1]:1'", "a_b | a:0 | a:b | http://a"),
    (CLUSTER, "clusterName", "prod", "1 | [a]"),
    (CLUSTER, "certificatesDir", "/pki", "pki | ./pki"),
    (
        CLUSTER,
        "imageRepository",
        "a.b:5000/c | \"[fd00:5::10]:5000/k8s\" | \"[::1]\" | \"[FD00::A]/a/b\" | 10.0.0.1:5000",
        "https://a | A/B/C | a b | \"[fd00::zz]/k8s\" | \"[10.0.0.1]/k8s\" | \"[::1]5000/k8s\" | \"fd00:5::10/k8s\" | \"[::1\"",
    ),
    (CLUSTER, "featureGates.NodeLocalCRISocket", "true", "false | 1"),
    (CLUSTER, "featureGates.PublicKeysECDSA", "true | false", "x"),
    (CLUSTER, "featureGates.RootlessControlPlane", "true | false", "x"),
    (CLUSTER, "encryptionAlgorithm", "RSA-2048 | RSA-3072 | RSA-4096 | ECDSA-P256 | ECDSA-P384", "RSA-1024 | ed25519"),
    (CLUSTER, "certificateValidityPeriod", "1h | 8760h", "0s | -1h | 365d"),
    (CLUSTER, "caCertificateValidityPeriod", "87600h | 9000h", "0s | 10y"),
    (
        CLUSTER,
        "networking.serviceSubnet",
        "10.0.0.0/12 | '10.0.0.0/28,fd00::/108'",
        "10.0.0.0/11 | 10.0.0.0/29 | 10.0.0.0 | a",
    ),
    (
        CLUSTER,
        "networking.podSubnet",
        "10.0.0.0/24 | 10.0.0.0/8 | 'fd00::/48'",
        "10.0.0.0/25 | 10.0.0.0/7 | 'fd00::/47'",
    ),
    (CLUSTER, "networking.dnsDomain", "a | a.b", "A_b | a..b"),
    (CLUSTER, "etcd.local.dataDir", "/d", "d"),
    (CLUSTER, "etcd.local.imageRepository", "a/b", "A/B/C"),
    (CLUSTER, "etcd.local.imageTag", "3.6.8-0", "a:b"),
    (CLUSTER, "etcd.local.extraArgs[0].name", "a", "--a"),
    (CLUSTER, "etcd.local.extraEnvs[0].name", "A", "'' | A=B"),
    (CLUSTER, "etcd.local.serverCertSANs[0]", "a.b | '*.a.b' | 10.0.0.1 | 'fd00::1'", "a b | '*'"),
    (CLUSTER, "etcd.local.peerCertSANs[0]", "a.b", "a_b!"),
    (CLUSTER, "etcd.external.endpoints[0]", "http://a:1 | https://a", "a:1 | ftp://a"),
    (CLUSTER, "apiServer.extraArgs[0].name", "v", "'' | -v"),
    (CLUSTER, "apiServer.extraEnvs[0].name", "A", "''"),
    (CLUSTER, "apiServer.certSANs[0]", "A.B | '*.a.b' | 10.0.0.1", "a b | a_b!"),
    (CLUSTER, "controllerManager.extraArgs[0].name", "v", "'' | v=4"),
    (CLUSTER, "scheduler.extraArgs[0].name", "v", "''"),
    (CLUSTER, "dns.imageRepository", "a/b", "A/B/C"),
    (CLUSTER, "dns.imageTag", "v1", "a:b"),
    (CLUSTER, "dns.disabled", "true | off", "1"),
    (CLUSTER, "proxy.disabled", "true | off", "1"),
    (JOIN, "caCertPath", "/a.crt", "a.crt | /a.pem | /a"),
    (JOIN, "discovery.file.kubeConfigPath", "/a | a | https://a/b", "http://a | ''"),
    (JOIN, "discovery.bootstrapToken.token", "abcdef.0123456789abcdef", "abc | ''"),
    (JOIN, "discovery.bootstrapToken.apiServerEndpoint", "a:1 | 10.0.0.1:6443 | '[fd00::1]:1'", "a | 'a:0' | ''"),
    (JOIN, "discovery.tlsBootstrapToken", "abcdef.0123456789abcdef", "abc"),
    (JOIN, "controlPlane.localAPIEndpoint.bindPort", "1 | 65535", "0 | 65536"),
    (JOIN, "controlPlane.certificateKey", KEY, "abc"),
    (RESET, "certificatesDir", "/pki", "pki"),
    (RESET, "cleanupTmpDir", "yes | false", "1"),
    (RESET, "criSocket", "unix:///a | /a", "a"),
    (RESET, "force", "on", "'on'"),
    (RESET, "unmountFlags[0]", "MNT_FORCE | MNT_DETACH | MNT_EXPIRE | UMOUNT_NOFOLLOW", "MNT_LAZY | 1"),
    (UPGRADE, "apply.kubernetesVersion", "v1.36.2 | stable | ''", "v1.1 | 1.36"),
    (UPGRADE, "apply.patches.directory", "/p | ''", "p | ./p"),
    (UPGRADE, "apply.imagePullPolicy", "Never", "never"),
    (UPGRADE, "node.patches.directory", "/p", "p"),
    (UPGRADE, "plan.kubernetesVersion", "1.36.2", "x"),
    (UPGRADE, "diff.contextLines", "0 | 9", "-1 | '3'"),
    (UPGRADE, "timeouts.upgradeManifests", "1s", "0s"),
];

/// A document whose `field` is `value`, everything around it as it must be for that.
fn with(kind: &str, field: &str, value: &str) -> String {
    let mut body = String::new();
    let mut close = String::new();
    for part in field.split('.') {
        let (name, listed) = part.strip_suffix("[0]").map_or((part, false), |name| (name, true));
        let (open, end) = if listed { ("[", "]") } else { ("", "") };
        body.push_str(&format!("{{{}{name}: {open}", beside(kind, field, name)));
        close.insert_str(0, &format!("{end}}}"));
    }
    let inner = format!("{body}{value}{close}");
    // The outermost braces are the document's.
    let inner = &inner[1..inner.len() - 1];
    let discovery =
        if kind == JOIN && !field.starts_with("discovery") { ", discovery: {file: {kubeConfigPath: /a}}" } else { "" };
    format!("{{apiVersion: kubeadm.k8s.io/v1beta4, kind: {kind}, {inner}{discovery}}}")
}

/// What must be written beside `name` for the rest to be valid.
fn beside(kind: &str, field: &str, name: &str) -> &'static str {
    let within = |path: &str| kind == JOIN && field.starts_with("discovery.bootstrapToken.") && field.ends_with(path);
    match name {
        "token" if within("token") => "apiServerEndpoint: 'a:1', unsafeSkipCAVerification: true, ",
        "apiServerEndpoint" => "token: abcdef.0123456789abcdef, unsafeSkipCAVerification: true, ",
        "tlsBootstrapToken" => "file: {kubeConfigPath: /a}, ",
        _ => "",
    }
}

#[test]
fn every_row_of_kubeadms_tables_takes_and_refuses_what_kubeadm_does() {
    let check = |file: &str| validate(Path::new("c.yaml"), file, false);
    let mut wrong = Vec::new();
    for (kind, field, taken, refused) in ROWS {
        for value in taken.split(" | ") {
            if let Err(error) = check(&with(kind, field, value)) {
                wrong.push(format!("{kind} {field}: {value} was refused: {error}"));
            }
        }
        for value in refused.split(" | ") {
            match check(&with(kind, field, value)) {
                Ok(_) => wrong.push(format!("{kind} {field}: {value} was taken")),
                Err(error) if error.problems.iter().any(|problem| problem.field == *field) => {}
                Err(error) => wrong.push(format!("{kind} {field}: {value} was refused elsewhere: {error}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// `field` (`a.b[].c`) with a value that no field takes.
fn faulty(field: &str) -> Value {
    field.rsplit('.').fold(json!(1.5), |value, part| match part.strip_suffix("[]") {
        Some(name) => json!({ name: [value] }),
        None => json!({ part: value }),
    })
}

#[test]
fn a_wrong_type_is_told_in_every_field_there_is() {
    let mut count = 0;
    for kind in reference::kinds() {
        let api_version =
            if kind == reference::KUBEBOOT_KIND { "kubeboot.dev/v1alpha1" } else { "kubeadm.k8s.io/v1beta4" };
        for path in reference::paths(kind) {
            let mut document = faulty(&path);
            document["apiVersion"] = api_version.into();
            document["kind"] = kind.into();
            let problems = validate(Path::new("c.yaml"), &document.to_string(), false).expect_err(&path).problems;
            let reported = path.replace("[]", "[0]");
            let found = problems.iter().find(|problem| problem.field == reported);
            let problem = found.unwrap_or_else(|| panic!("{kind}: nothing about {reported}: {problems:?}"));
            assert!(problem.message.starts_with("expected ") && problem.place.is_some(), "{kind} {problem}");
            count += 1;
        }
    }
    assert!(count > 150, "{count}");
}

#[test]
fn a_misspelt_field_is_told_in_every_object_there_is() {
    for kind in reference::kinds() {
        let api_version =
            if kind == reference::KUBEBOOT_KIND { "kubeboot.dev/v1alpha1" } else { "kubeadm.k8s.io/v1beta4" };
        for path in reference::paths(kind) {
            let name = path.rsplit(['.', ']']).next().unwrap_or_default();
            let misspelt = format!("{path}x");
            let mut document = faulty(&misspelt);
            document["apiVersion"] = api_version.into();
            document["kind"] = kind.into();
            let error = validate(Path::new("c.yaml"), &document.to_string(), false).expect_err(&misspelt).to_string();
            assert!(error.contains("unknown field; did you mean "), "{kind} {name}: {error}");
        }
    }
}
