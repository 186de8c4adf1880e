//! Certificates of a running control plane: renewed, and made by a CA whose key is elsewhere.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use crate::asker::Asker;
use crate::machine::*;

const PKI: &str = "/etc/kubernetes/pki";
const MINUTE: Duration = Duration::from_secs(60);

/// The SHA-256 fingerprint of the certificate in a file.
fn in_file(file: &str) -> String {
    run("openssl", &["x509", "-noout", "-fingerprint", "-sha256", "-in", file]).ok()
}

/// The SHA-256 fingerprint of what is served on a port of this machine, as openssl sees it.
fn served(address: &str) -> String {
    let script = format!(
        "openssl s_client -connect {address} </dev/null 2>/dev/null | openssl x509 -noout -fingerprint -sha256"
    );
    run("sh", &["-c", &script]).ok()
}

/// The components whose container is another one than before.
fn replaced(before: &BTreeMap<String, String>) -> Vec<String> {
    let now = containers();
    now.into_iter().filter(|(name, id)| before.get(name) != Some(id)).map(|(name, _)| name).collect()
}

pub fn renewed_certificates_are_in_use_and_only_what_must_be_is_restarted() {
    let _plane = Shared::plane();
    let before = containers();
    let out = kubeboot(&["certs", "renew", "scheduler.conf"]).ok();
    assert!(out.contains("certificate embedded in the kubeconfig file for the scheduler to use renewed"), "{out}");
    assert_eq!(replaced(&before), ["kube-scheduler"]);

    let (before, old) = (containers(), in_file("/etc/kubernetes/pki/apiserver.crt"));
    let old_etcd = in_file("/etc/kubernetes/pki/etcd/server.crt");
    assert_eq!(served("127.0.0.1:6443"), old);
    let asker = Asker::start();
    let out = kubeboot(&["certs", "renew", "all"]).ok();
    // The API server before serves what it had begun, and Docker lists it for a moment longer.
    let all = ["kube-apiserver", "kube-controller-manager", "kube-scheduler"];
    eventually("the new API server alone", MINUTE, || {
        processes("kube-apiserver").len() == 1 && replaced(&before).len() >= all.len()
    });
    asker.lost_nothing();
    assert_eq!(out.lines().filter(|line| line.ends_with(" renewed")).count(), 11, "{out}");
    assert_eq!(replaced(&before), all, "{out}");
    let new = in_file("/etc/kubernetes/pki/apiserver.crt");
    assert!(new != old && served("127.0.0.1:6443") == new);
    let new = in_file("/etc/kubernetes/pki/etcd/server.crt");
    assert!(new != old_etcd && served("127.0.0.1:2379") == new, "etcd serves it without a restart");
    healthy(Duration::from_secs(10));
    kubectl(&["get", "namespaces"]).ok();

    let info = kubeboot(&["certs", "check-expiration", "-o", "json"]).ok();
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    assert_eq!(info["certificates"].as_array().unwrap().len(), 11);
    assert!(info["certificates"].as_array().unwrap().iter().all(|one| one["missing"] == false));

    let dir = tempfile::tempdir().unwrap();
    let conf = dir.path().join("ada.conf");
    let text = kubeboot(&["kubeconfig", "user", "--client-name", "ada", "--org", "x,system:masters"]).ok();
    create(conf.as_ref(), text);
    run("kubectl", &["--kubeconfig", conf.to_str().unwrap(), "get", "nodes"]).ok();
}

/// Kills the agent and starts another one.
fn kill_the_agent() {
    signal(status()["agent"]["pid"].as_i64().unwrap() as i32, "KILL");
    eventually("agent gone", MINUTE, || kubeboot(&["status"]).code == 3);
    kubeboot(&["init", "phase", "kubelet-start", "--kubernetes-version", VERSION]).ok();
}

pub fn a_renewal_that_is_killed_is_finished_by_the_next_one_and_fails_no_request() {
    let _plane = Shared::plane();
    let asker = Asker::start();
    for (mark, and_agent) in [("kube-apiserver: ContainerCreating", true), ("kube-apiserver: healthy", false)] {
        let old = in_file("/etc/kubernetes/pki/apiserver.crt");
        assert_eq!(kill_at(&["certs", "renew", "all"], mark), Ended::Killed, "{mark}");
        let new = in_file("/etc/kubernetes/pki/apiserver.crt");
        assert_ne!(new, old, "{mark}");
        if and_agent {
            kill_the_agent();
        }
        let said = kubeboot(&["certs", "renew", "all"]).ok();
        assert!(said.contains("finishing a renewal that was cut off"), "{mark}: {said}");
        assert_eq!(
            (in_file("/etc/kubernetes/pki/apiserver.crt"), served("127.0.0.1:6443")),
            (new.clone(), new),
            "{mark}"
        );
        healthy(MINUTE);
    }
    eventually("one API server", MINUTE, || processes("kube-apiserver").len() == 1);
    asker.lost_nothing();
}

/// A CA in `dir`: its key stays there.
fn make_ca(dir: &Path, name: &str, subject: &str) {
    let file = |suffix: &str| dir.join(format!("{name}.{suffix}")).display().to_string();
    let (key, crt) = (file("key"), file("crt"));
    run("openssl", &["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", &key]).ok();
    let made = ["req", "-x509", "-new", "-key", &key, "-days", "10", "-subj", subject, "-out", &crt];
    run("openssl", &made).ok();
}

/// Signs a request where the CA's key is.
fn sign(ca: &Path, name: &str, csr: &str, crt: &str) {
    let file = |suffix: &str| ca.join(format!("{name}.{suffix}")).display().to_string();
    let (crt_of_ca, key) = (file("crt"), file("key"));
    run(
        "openssl",
        &[
            "x509",
            "-req",
            "-in",
            csr,
            "-CA",
            &crt_of_ca,
            "-CAkey",
            &key,
            "-CAcreateserial",
            "-days",
            "5",
            "-copy_extensions",
            "copy",
            "-out",
            crt,
        ],
    )
    .ok();
}

/// Signs every request that `certs generate-csr` has left, and puts the certificates where init looks for them.
fn sign_all(ca: &Path) {
    for (name, base) in [
        ("ca", "apiserver"),
        ("ca", "apiserver-kubelet-client"),
        ("front", "front-proxy-client"),
        ("etcd", "apiserver-etcd-client"),
        ("etcd", "etcd/server"),
        ("etcd", "etcd/peer"),
        ("etcd", "etcd/healthcheck-client"),
    ] {
        sign(ca, name, &format!("{PKI}/{base}.csr"), &format!("{PKI}/{base}.crt"));
    }
    for (conf, user) in [
        ("admin", "kubernetes-admin".to_owned()),
        ("super-admin", "kubernetes-super-admin".to_owned()),
        ("controller-manager", "system:kube-controller-manager".to_owned()),
        ("scheduler", "system:kube-scheduler".to_owned()),
        ("kubelet", format!("system:node:{}", run("hostname", &[]).ok().trim().to_lowercase())),
    ] {
        let file = format!("/etc/kubernetes/{conf}.conf");
        let crt = ca.join(format!("{conf}.crt")).display().to_string();
        sign(ca, "ca", &format!("{file}.csr"), &crt);
        let certificate = format!("--client-certificate={crt}");
        let set = ["--kubeconfig", &file, "config", "set-credentials", &user, &certificate, "--embed-certs=true"];
        run("kubectl", &set).ok();
    }
}

/// What was made here before init, which a reset leaves.
struct Foreign;

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all("/etc/kubernetes");
    }
}

pub fn a_control_plane_comes_up_with_certificates_that_others_have_signed() {
    ready();
    let _foreign = Foreign;
    let elsewhere = tempfile::tempdir().unwrap();
    let ca = elsewhere.path();
    std::fs::create_dir_all(format!("{PKI}/etcd")).unwrap();
    for (name, subject, file) in [
        ("ca", "/CN=corporate", "ca.crt"),
        ("etcd", "/CN=corporate etcd", "etcd/ca.crt"),
        ("front", "/CN=front", "front-proxy-ca.crt"),
    ] {
        make_ca(ca, name, subject);
        std::fs::copy(ca.join(format!("{name}.crt")), format!("{PKI}/{file}")).unwrap();
    }
    kubeboot(&["certs", "generate-csr", "--kubernetes-version", VERSION]).ok();

    // Nothing is signed yet: all findings at once.
    let refused = kubeboot(&["init", "--kubernetes-version", VERSION]).code(1);
    for file in [
        "pki/apiserver.crt",
        "pki/etcd/peer.crt",
        "pki/front-proxy-client.crt",
        "kubernetes/admin.conf",
        "kubernetes/kubelet.conf",
    ] {
        assert!(refused.contains(file), "{file} in {refused}");
    }

    let plane = ControlPlane;
    sign_all(ca);
    kubeboot(&["init", "--kubernetes-version", VERSION]).ok();
    healthy(Duration::from_secs(10));
    kubectl(&["get", "namespaces"]).ok();
    let manifest = std::fs::read_to_string("/etc/kubernetes/manifests/kube-controller-manager.yaml").unwrap();
    assert!(manifest.contains("--cluster-signing-cert-file=\n"), "{manifest}");
    assert!(!manifest.contains("ca.key"), "nobody here can sign");

    let table = kubeboot(&["certs", "check-expiration"]).ok();
    assert!(table.lines().filter(|line| line.ends_with("yes")).count() == 14, "{table}");
    let before = containers();
    let out = kubeboot(&["certs", "renew", "all"]).ok();
    assert_eq!(out.lines().filter(|line| line.starts_with("Detected external ")).count(), 11, "{out}");
    assert_eq!(replaced(&before), Vec::<String>::new());

    drop(plane);
    // These are not kubeboot's: reset leaves them.
    assert!(Path::new(PKI).join("apiserver.key").exists());
}

/// A configuration whose node asks the cluster for the certificate that its API serves with.
const ASKS: &str = "apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: v1.20.2
---
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
serverTLSBootstrap: true
";
const NODES_API: &str = "127.0.0.1:10250";

/// The names of the node's requests for a serving certificate.
fn requests() -> Vec<String> {
    let path = "jsonpath={range .items[?(@.spec.signerName==\"kubernetes.io/kubelet-serving\")]}{.metadata.name}{\"\\n\"}{end}";
    kubectl(&["get", "csr", "-o", path]).stdout.lines().map(str::to_owned).collect()
}

/// Whether a client that trusts the cluster's CA finds this name or address served on the node's port.
fn verified(kind: &str, name: &str) -> bool {
    let ca = format!("{PKI}/ca.crt");
    run("openssl", &["s_client", "-connect", NODES_API, "-CAfile", &ca, "-verify_return_error", kind, name]).code == 0
}

pub fn the_nodes_api_serves_the_certificate_that_an_administrator_approves() {
    let minute = MINUTE;
    ready();
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("kubeadm.yaml");
    create(config.as_ref(), ASKS);
    let _plane = ControlPlane;
    kubeboot(&["init", "--config", config.to_str().unwrap()]).ok();
    let node = node_name();
    let address = kubectl(&["get", "nodes", "-o", "jsonpath={.items[0].status.addresses[0].address}"]).ok();
    let agent = status()["agent"]["pid"].clone();
    let request = eventually("a request", minute, || requests().pop());
    // Nobody approves it by himself, and until then there is nothing to serve with.
    assert!(!verified("-verify_hostname", &node));
    let current = "/var/lib/kubelet/pki/kubelet-server-current.pem";
    assert!(!Path::new(current).exists());

    kubectl(&["certificate", "approve", &request]).ok();
    let begun = std::time::Instant::now();
    eventually("the certificate is served", minute, || verified("-verify_hostname", &node).then_some(()));
    eprintln!("served {} ms after it was approved", begun.elapsed().as_millis());
    assert!(verified("-verify_ip", &address) && !verified("-verify_hostname", "elsewhere"));
    assert_eq!(served(NODES_API), in_file(current));
    let text =
        run("openssl", &["x509", "-noout", "-issuer", "-subject", "-ext", "subjectAltName", "-in", current]).ok();
    for part in ["issuer=CN = kubernetes", &format!("CN = system:node:{node}"), &format!("IP Address:{address}")] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let logs = kubectl(&["-n", "kube-system", "logs", "--tail=1", &format!("etcd-{node}")]).ok();
    assert_eq!(logs.lines().count(), 1);
    assert_eq!(status()["agent"]["pid"], agent, "without a restart");

    // One that starts anew has it, and asks for no other.
    let before = served(NODES_API);
    signal(i32::try_from(agent.as_i64().unwrap()).unwrap(), "KILL");
    eventually("agent gone", minute, || (kubeboot(&["status"]).code == 3).then_some(()));
    kubeboot(&["init", "phase", "kubelet-start", "--config", config.to_str().unwrap()]).ok();
    eventually("the certificate is served again", minute, || verified("-verify_hostname", &node).then_some(()));
    assert_eq!((served(NODES_API), requests()), (before, vec![request]));
}
