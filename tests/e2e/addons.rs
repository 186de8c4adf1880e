//! What init gives the cluster beyond its configuration: CoreDNS and kube-proxy, uploaded certificates, tokens.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kubeboot::cluster::upload_certs::{files, open_files};
use kubeboot::config::{Flags, HostDefaults, Input, load};
use serde_json::Value;

use crate::machine::*;

const KUBECONFIG: [&str; 2] = ["--kubeconfig", ADMIN_CONF];

fn token(args: &[&str]) -> Ran {
    kubeboot(&[&["token"], args, &KUBECONFIG].concat())
}

fn phase(args: &[&str]) -> Ran {
    kubeboot(&[&["init", "phase"], args, &["--kubernetes-version", VERSION]].concat())
}

fn get(args: &[&str]) -> Value {
    let text = kubectl(&[&["-n", "kube-system", "get", "-o", "json"], args].concat()).ok();
    serde_json::from_str(&text).unwrap()
}

/// The value of a Secret's key.
fn data(secret: &Value, key: &str) -> Option<String> {
    let text = secret["data"][key].as_str()?;
    Some(String::from_utf8(STANDARD.decode(text).unwrap()).unwrap())
}

/// Waits, by a watch, until something is gone.
#[track_caller]
fn gone(what: &str) {
    kubectl(&["-n", "kube-system", "wait", "--for=delete", what, "--timeout=90s", "--request-timeout=100s"]).ok();
}

pub fn tokens_are_made_listed_used_and_deleted_and_expire() {
    let _plane = Shared::plane();
    let made = token(&["create", "--ttl", "1h", "--description", "tea: \"yes\""]).ok();
    let made = made.trim();
    let (id, secret) = made.split_once('.').unwrap();
    let kept = get(&["secret", &format!("bootstrap-token-{id}")]);
    assert_eq!(kept["type"], "bootstrap.kubernetes.io/token");
    for (key, value) in [
        ("token-id", id),
        ("token-secret", secret),
        ("description", "tea: \"yes\""),
        ("usage-bootstrap-signing", "true"),
        ("usage-bootstrap-authentication", "true"),
        ("auth-extra-groups", "system:bootstrappers:kubeadm:default-node-token"),
    ] {
        assert_eq!(data(&kept, key).as_deref(), Some(value), "{key}");
    }

    // Listed, in each form.
    let text = token(&["list"]).ok();
    assert!(text.starts_with("TOKEN "), "{text}");
    let line = text.lines().find(|line| line.starts_with(made)).unwrap();
    assert!(
        line.contains(" 59m ") && line.contains("authentication,signing") && line.contains("tea: \"yes\""),
        "{line}"
    );
    let shown: Vec<Value> = serde_json::Deserializer::from_str(&token(&["list", "-o", "json"]).ok())
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let shown = shown.iter().find(|one| one["token"] == made).unwrap();
    assert_eq!(shown["apiVersion"], "output.kubeadm.k8s.io/v1alpha3");
    assert_eq!(shown["kind"], "BootstrapToken");
    assert_eq!(shown["expires"].as_str(), data(&kept, "expiration").as_deref());

    // It lets its holder in, as nobody but a node that joins.
    let header = format!("Authorization: Bearer {made}");
    let url = format!("{}/api/v1/namespaces/kube-system/secrets", server());
    let denied = run("curl", &["-s", "--cacert", "/etc/kubernetes/pki/ca.crt", "-H", &header, &url]).ok();
    assert!(denied.contains(&format!("system:bootstrap:{id}")) && denied.contains("forbidden"), "{denied}");

    // The command that joins a node names the server and the key of the CA.
    let line = token(&["create", "--print-join-command"]).ok();
    let pin =
        "openssl x509 -pubkey -noout -in /etc/kubernetes/pki/ca.crt | openssl pkey -pubin -outform der | sha256sum";
    let pin = run("sh", &["-c", pin]).ok();
    let pin = pin.split(' ').next().unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words[..3], ["kubeadm", "join", server().trim_start_matches("https://")]);
    assert_eq!(
        (words[3], words[5..].to_vec()),
        ("--token", vec!["--discovery-token-ca-cert-hash", &format!("sha256:{pin}")])
    );

    // An id is given once.
    let again = token(&["create", made]).code(1);
    assert!(again.contains(&format!("a token with id \"{id}\" already exists")) && !again.contains(secret), "{again}");

    assert_eq!(token(&["delete", id]).ok(), format!("bootstrap token \"{id}\" deleted\n"));
    gone(&format!("secret/bootstrap-token-{id}"));
    assert!(token(&["delete", made]).code(1).contains(&format!("failed to delete bootstrap token \"{id}\"")));
    assert!(!token(&["list"]).ok().contains(made));

    // The controller manager takes away what has expired.
    let short = token(&["create", "--ttl", "5s"]).ok();
    gone(&format!("secret/bootstrap-token-{}", short.trim().split_once('.').unwrap().0));
}

/// Where admin.conf says the API server is.
fn server() -> String {
    kubectl(&["config", "view", "-o", "jsonpath={.clusters[0].cluster.server}"]).ok()
}

/// The objects of the addons, and the version of each.
fn versions() -> BTreeMap<String, String> {
    let objects = [
        "serviceaccount/coredns",
        "clusterrole/system:coredns",
        "clusterrolebinding/system:coredns",
        "configmap/coredns",
        "deployment/coredns",
        "service/kube-dns",
        "serviceaccount/kube-proxy",
        "configmap/kube-proxy",
        "daemonset/kube-proxy",
        "clusterrolebinding/kubeadm:node-proxier",
        "role/kube-proxy",
        "rolebinding/kube-proxy",
    ];
    let version = |name: &str| get(&[name])["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    objects.into_iter().map(|name| (name.to_owned(), version(name))).collect()
}

/// Waits until the controllers have done with the addons what they can where no node runs pods.
#[track_caller]
pub fn settled() {
    eventually("the addons' controllers", std::time::Duration::from_secs(60), || {
        let (dns, proxy) = (get(&["deployment/coredns"]), get(&["daemonset/kube-proxy"]));
        let seen = |object: &Value| object["status"]["observedGeneration"] == object["metadata"]["generation"];
        let accounts = ["coredns", "kube-proxy"].map(|name| get(&["serviceaccount", name])["secrets"].is_array());
        (seen(&dns)
            && seen(&proxy)
            && dns["status"]["unavailableReplicas"] == dns["spec"]["replicas"]
            && accounts == [true; 2])
            .then_some(())
    });
}

pub fn addons_are_accepted_and_a_repeat_changes_nothing() {
    let _plane = ControlPlane::init();
    let dns = get(&["service/kube-dns"]);
    assert_eq!(dns["spec"]["clusterIP"], "10.96.0.10");
    let deployment = get(&["deployment/coredns"]);
    assert_eq!(deployment["spec"]["template"]["spec"]["containers"][0]["image"], "registry.k8s.io/coredns:1.7.0");
    let proxy = get(&["daemonset/kube-proxy"]);
    let image = format!("registry.k8s.io/kube-proxy:{VERSION}");
    assert_eq!(proxy["spec"]["template"]["spec"]["containers"][0]["image"], image.as_str());

    settled();
    let before = versions();
    phase(&["addon", "all"]).ok();
    assert_eq!(versions(), before, "a repeat changes nothing");

    // What somebody has chosen stays; what nobody may choose comes back.
    kubectl(&["-n", "kube-system", "scale", "deployment/coredns", "--replicas=3"]).ok();
    let patch = r#"{"data":{"Corefile":". {\n    whoami\n}\n","more":"kept"}}"#;
    kubectl(&["-n", "kube-system", "patch", "configmap/coredns", "-p", patch]).ok();
    let patch = r#"{"rules":[]}"#;
    kubectl(&["patch", "clusterrole/system:coredns", "--type=merge", "-p", patch]).ok();
    phase(&["addon", "coredns"]).ok();
    assert_eq!(get(&["deployment/coredns"])["spec"]["replicas"], 3);
    let map = get(&["configmap/coredns"]);
    assert_eq!(
        (map["data"]["Corefile"].as_str(), &map["data"]["more"]),
        (Some(". {\n    whoami\n}\n"), &"kept".into())
    );
    assert_eq!(get(&["clusterrole/system:coredns"])["rules"].as_array().map(Vec::len), Some(2));

    // What is printed is what would be written.
    let printed = phase(&["addon", "kube-proxy", "--print-manifest"]).ok();
    let kinds: Vec<&str> = printed.lines().filter_map(|line| line.strip_prefix("kind: ")).collect();
    assert_eq!(kinds, ["ServiceAccount", "ConfigMap", "DaemonSet", "ClusterRoleBinding", "Role", "RoleBinding"]);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kube-proxy.yaml");
    create(path.as_ref(), printed);
    kubectl(&["delete", "-f", path.to_str().unwrap()]).ok();
    kubectl(&["create", "-f", path.to_str().unwrap()]).ok();
    settled();
    let before = versions();
    phase(&["addon", "kube-proxy"]).ok();
    assert_eq!(versions(), before, "what is printed is what is written");
}

pub fn uploaded_certificates_are_the_very_files_and_go_with_their_token() {
    let _plane = Shared::plane();
    assert!(phase(&["upload-certs"]).ok().contains("--upload-certs"));
    assert_ne!(kubectl(&["-n", "kube-system", "get", "secret", "kubeadm-certs"]).code, 0);

    let said = phase(&["upload-certs", "--upload-certs"]).ok();
    assert!(said.contains("[upload-certs] Using certificate key:\n"), "{said}");
    let key = said.lines().last().unwrap().parse().unwrap();
    let flags = Flags { kubernetes_version: Some(VERSION.into()), ..Flags::default() };
    let host = HostDefaults { hostname: "x".into(), address: Some([10, 0, 0, 5].into()) };
    let spec = load(&Input { file: None, flags, host }).unwrap().spec;
    let kept = get(&["secret/kubeadm-certs"]);
    let opened = open_files(&spec, &serde_json::from_value(kept.clone()).unwrap(), &key).unwrap();
    for (name, path) in files(&spec) {
        assert_eq!(opened[name], std::fs::read(path.unwrap()).unwrap(), "{name}");
    }

    // With a key that was given, which is then not printed.
    let given = "0f".repeat(32);
    let said =
        phase(&["upload-certs", "--upload-certs", "--certificate-key", &given, "--skip-certificate-key-print"]).ok();
    assert!(!said.contains(&given), "{said}");
    let kept = get(&["secret/kubeadm-certs"]);
    let opened = open_files(&spec, &serde_json::from_value(kept.clone()).unwrap(), &given.parse().unwrap()).unwrap();
    assert_eq!(opened["sa.key"], std::fs::read("/etc/kubernetes/pki/sa.key").unwrap());

    // The token that carries its end takes it along.
    let owner = &kept["metadata"]["ownerReferences"][0];
    assert_eq!((&owner["kind"], &owner["controller"]), (&"Secret".into(), &true.into()));
    let ttl = get(&["secret", owner["name"].as_str().unwrap()]);
    assert_eq!(ttl["metadata"]["uid"], owner["uid"]);
    assert_eq!(data(&ttl, "usage-bootstrap-authentication"), None);
    let id = owner["name"].as_str().unwrap().trim_start_matches("bootstrap-token-");
    token(&["delete", id]).ok();
    gone("secret/kubeadm-certs");
}
