//! The real kubeadm reads what `upload-certs` wrote.

use crate::join::ControlPlane;
use crate::node::Node;

/// The key that the test's certificates are sealed with.
const KEY: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0";

/// Every file that a further control-plane node gets.
const SUMS: &str = "cd /etc/kubernetes/pki && sha256sum ca.crt ca.key front-proxy-ca.crt front-proxy-ca.key sa.pub sa.key \
                    etcd/ca.crt etcd/ca.key";

#[test]
fn the_real_kubeadm_downloads_the_uploaded_certificates() {
    for algorithm in ["ECDSA-P256", "RSA-2048"] {
        let config = format!(
            "apiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\ncertificateKey: {KEY}\n---\napiVersion: \
             kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nkubernetesVersion: {}\nencryptionAlgorithm: {algorithm}\n",
            crate::node::VERSION
        );
        let control = ControlPlane::init_with(&config, "--upload-certs");
        let node = Node::boot_with_kubelet("second");
        let words: Vec<&str> = control.join.split_whitespace().collect();
        let after = |flag: &str| words[words.iter().position(|word| *word == flag).unwrap() + 1];
        let (token, hash) = (after("--token"), after("--discovery-token-ca-cert-hash"));
        let said = node.ok(&format!(
            "kubeadm join phase control-plane-prepare download-certs {} --token {token} --discovery-token-ca-cert-hash \
             {hash} --certificate-key {KEY} --control-plane",
            words[0]
        ));
        eprintln!("{said}");
        let (ours, kubeadms) = (control.node.ok(SUMS), node.ok(SUMS));
        eprintln!("{kubeadms}");
        assert_eq!(kubeadms.lines().count(), 8);
        assert_eq!(kubeadms, ours, "{algorithm}");
    }
}
