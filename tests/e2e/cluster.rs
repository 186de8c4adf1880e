//! What init makes in the cluster: all that a joining node asks for.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::addons::settled;
use crate::machine::*;

const TOKEN: &str = "abcdef.0123456789abcdef";

/// `(namespace, resource)` of what is made for joining nodes, by the names that kubeadm and the kubelet ask for.
const OBJECTS: &[(&str, &str)] = &[
    ("kube-system", "configmap/kubeadm-config"),
    ("kube-system", "configmap/kubelet-config-1.20"),
    ("kube-public", "configmap/cluster-info"),
    ("kube-system", "configmap/coredns"),
    ("kube-system", "deployment/coredns"),
    ("kube-system", "service/kube-dns"),
    ("kube-system", "serviceaccount/coredns"),
    ("kube-system", "configmap/kube-proxy"),
    ("kube-system", "daemonset/kube-proxy"),
    ("kube-system", "serviceaccount/kube-proxy"),
    ("kube-system", "secret/kubeadm-certs"),
    ("kube-system", "secret/bootstrap-token-abcdef"),
    ("kube-system", "role/kubeadm:nodes-kubeadm-config"),
    ("kube-system", "rolebinding/kubeadm:nodes-kubeadm-config"),
    ("kube-system", "role/kubeadm:kubelet-config-1.20"),
    ("kube-system", "rolebinding/kubeadm:kubelet-config-1.20"),
    ("kube-system", "role/kubeadm:kubeadm-certs"),
    ("kube-system", "rolebinding/kubeadm:kubeadm-certs"),
    ("kube-system", "role/kube-proxy"),
    ("kube-system", "rolebinding/kube-proxy"),
    ("kube-public", "role/kubeadm:bootstrap-signer-clusterinfo"),
    ("kube-public", "rolebinding/kubeadm:bootstrap-signer-clusterinfo"),
    ("", "clusterrole/kubeadm:get-nodes"),
    ("", "clusterrolebinding/kubeadm:get-nodes"),
    ("", "clusterrolebinding/kubeadm:kubelet-bootstrap"),
    ("", "clusterrolebinding/kubeadm:node-autoapprove-bootstrap"),
    ("", "clusterrolebinding/kubeadm:node-autoapprove-certificate-rotation"),
    ("", "clusterrolebinding/kubeadm:cluster-admins"),
    ("", "clusterrolebinding/kubeadm:node-proxier"),
    ("", "clusterrole/system:coredns"),
    ("", "clusterrolebinding/system:coredns"),
];

/// The version of each of [`OBJECTS`].
fn versions() -> BTreeMap<&'static str, String> {
    let version = |(namespace, resource): &(&str, &'static str)| {
        let path = "jsonpath={.metadata.resourceVersion}";
        (*resource, kubectl(&["-n", namespace, "get", resource, "-o", path]).ok())
    };
    OBJECTS.iter().map(version).collect()
}

/// The values of the config map that anybody may read.
fn cluster_info() -> BTreeMap<String, String> {
    let text = kubectl(&["-n", "kube-public", "get", "configmap", "cluster-info", "-o", "jsonpath={.data}"]).ok();
    serde_json::from_str(&text).unwrap()
}

/// RFC 7515, appendix F: a compact JWS whose payload is carried apart.
#[track_caller]
fn verify_detached(jws: &str, payload: &str, id: &str, secret: &str) {
    let (header, signature) = jws.split_once("..").unwrap();
    let said: serde_json::Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap();
    assert_eq!((&said["alg"], &said["kid"]), (&"HS256".into(), &id.into()));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(payload));
    hmac::verify(&key, signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
}

#[test]
fn init_gives_the_cluster_what_joining_nodes_need() {
    ready();
    let args = ["init", "--kubernetes-version", VERSION, "--token", TOKEN, "--upload-certs"];
    let _plane = ControlPlane;
    let said = kubeboot(&args).ok();

    let pin =
        "openssl x509 -pubkey -noout -in /etc/kubernetes/pki/ca.crt | openssl pkey -pubin -outform der | sha256sum";
    let pin = run("sh", &["-c", pin]).ok();
    let pin = format!("sha256:{}", pin.split(' ').next().unwrap());
    let server = kubectl(&["config", "view", "-o", "jsonpath={.clusters[0].cluster.server}"]).ok();
    let endpoint = server.trim_start_matches("https://");
    let words: Vec<&str> = said.split_whitespace().filter(|word| *word != "\\").collect();
    let join = ["kubeadm", "join", endpoint, "--token", TOKEN, "--discovery-token-ca-cert-hash", &pin];
    assert!(words.windows(join.len()).any(|w| w == join), "{join:?} in\n{said}");

    let signature = eventually("signature of cluster-info", Duration::from_secs(60), || {
        cluster_info().remove("jws-kubeconfig-abcdef")
    });
    let (id, secret) = TOKEN.split_once('.').unwrap();
    let kubeconfig = cluster_info().remove("kubeconfig").unwrap();
    assert!(kubeconfig.contains(&format!("server: {server}\n")), "{kubeconfig}");
    verify_detached(&signature, &kubeconfig, id, secret);

    // The controller manager takes away what has expired, and its signature.
    let short = kubeboot(&["token", "create", "--ttl", "3s", "--kubeconfig", ADMIN_CONF]).ok();
    let name = format!("secret/bootstrap-token-{}", short.trim().split_once('.').unwrap().0);
    kubectl(&["-n", "kube-system", "wait", "--for=delete", &name, "--timeout=60s", "--request-timeout=70s"]).ok();
    eventually("only the signature of the token that is left", Duration::from_secs(30), || {
        cluster_info().keys().eq(["jws-kubeconfig-abcdef", "kubeconfig"]).then_some(())
    });

    settled();
    let before = versions();
    let again = kubeboot(&args).code(0);
    assert!(again.contains("initialized before"), "{again}");
    assert_eq!(versions(), before, "a second init writes nothing");
}
