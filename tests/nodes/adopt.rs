//! A node that the real kubeadm made is taken over and given back: the same data, certificates and manifests.

use crate::node::{Node, VERSION, component_images};

const INIT: &str = "apiVersion: kubeadm.k8s.io/v1beta2
kind: InitConfiguration
nodeRegistration: {criSocket: /run/containerd/containerd.sock}
---
apiVersion: kubeadm.k8s.io/v1beta2
kind: ClusterConfiguration
kubernetesVersion: v1.20.2
imageRepository: registry.k8s.io
";

/// What must stay the same: etcd's ids, every file of the PKI and every kubeconfig, manifests and units.
const IDENTITY: &str = "set -e
C='--cacert /etc/kubernetes/pki/etcd/ca.crt --cert /etc/kubernetes/pki/etcd/server.crt --key /etc/kubernetes/pki/etcd/server.key'
curl -sf $C -X POST -d '{}' https://127.0.0.1:2379/v3/cluster/member/list | grep -oE '\"(cluster_id|ID|member_id)\":\"[0-9]+\"' | sort -u
kubectl --kubeconfig /etc/kubernetes/admin.conf -n default get configmap kept -o jsonpath='{.data.word} {.metadata.uid}'; echo
cd /etc/kubernetes; sha256sum $(find pki manifests *.conf -type f | sort)
sha256sum /var/lib/kubelet/config.yaml /var/lib/kubelet/kubeadm-flags.env /lib/systemd/system/kubelet.service \
  /etc/systemd/system/kubelet.service.d/10-kubeadm.conf
stat -c '%n %a %U' manifests/*";

fn identity(node: &Node) -> String {
    // Right after a start the API server may not serve yet.
    node.eventually("an API server that answers", 120, || node.kubectl("get --raw /readyz").0 == 0);
    let text = node.ok(IDENTITY);
    assert!(text.contains("cluster_id") && text.contains("hello ") && text.contains("pki/ca.key"), "{text}");
    text
}

/// Processes of the control plane by whose containers they run in: (the kubelet's, the agent's).
fn runners(node: &Node) -> (usize, usize) {
    // Each is the child of a shim, which was told the namespace of its runtime's client.
    let shims = node.run(
        "for pid in $(pgrep -x 'etcd|kube-apiserver|kube-controller|kube-scheduler'); do \
           ps -o args= -p $(ps -o ppid= -p $pid); done",
    );
    let of = |namespace: &str| shims.1.lines().filter(|line| line.contains(namespace)).count();
    (of("-namespace k8s.io"), of("-namespace moby"))
}

#[test]
fn a_node_of_kubeadms_is_taken_over_and_given_back_with_its_data_and_certificates() {
    let node = Node::boot_with_kubelet("made-by-kubeadm");
    node.import(&component_images());
    node.give_kubeboot();
    node.write("/root/init.yaml", INIT);
    // The preflight of this kubeadm wants crictl, which Debian has not.
    node.ok("kubeadm init --config /root/init.yaml --skip-phases=preflight,addon");
    let kubectl = |args: &str| node.kubectl_ok(args);
    kubectl("-n default create configmap kept --from-literal=word=hello");
    let before = identity(&node);

    let (code, refused) = node.run("kubeboot adopt --force");
    assert_eq!(code, 1, "{refused}");
    assert!(refused.contains("docker load") && refused.contains("kube-apiserver"), "{refused}");
    assert_eq!(node.ok("systemctl is-active kubelet").trim(), "active");
    assert_eq!(runners(&node).1, 0);

    node.load(&component_images());
    let plan = node.ok("kubeboot adopt --dry-run");
    assert!(plan.contains("Would move etcd.yaml, kube-apiserver.yaml"), "{plan}");
    eprintln!("{}", node.ok("time kubeboot adopt --force"));
    assert_eq!(runners(&node), (0, 4), "{}", node.run("docker ps; ctr -n k8s.io tasks ls").1);
    assert_eq!(identity(&node), before);
    assert!(node.ok("kubeboot adopt --force").contains("was taken over before"));

    eprintln!("{}", node.ok("time kubeboot adopt --back --force"));
    assert_eq!(identity(&node), before);
    assert_eq!(runners(&node).1, 0);
    assert_eq!(node.run("ls /var/lib/kubeboot /etc/systemd/system/kubelet.service.d/90-kubeboot.conf").0, 2);
    node.eventually("a Ready node", 120, || node.kubectl("get nodes").1.contains(" Ready "));
    kubectl("-n default delete configmap kept");
    kubectl("-n default create configmap kept --from-literal=word=hello");
    killed_in_the_middle(&node);
}

/// What kubeadm 1.20 asks of crictl, which Debian has not, done by containerd's own client.
const CRICTL: &str = "#!/bin/sh
shift 2
case $1 in
inspecti) ctr -n k8s.io images ls -q | grep -qxF \"$2\" ;;
*) exit 0 ;;
esac
";

/// The components' versions, as the node's own agent reports them.
fn runs(node: &Node, version: &str) {
    node.healthy(&format!("a healthy control plane of {version}"));
    let status = node.ok("kubeboot status");
    assert_eq!(status.lines().filter(|line| line.contains(&format!(":{version} "))).count(), 3, "{status}");
}

#[test]
fn a_node_that_was_taken_over_is_upgraded_by_us_and_by_the_real_kubeadm_and_given_back() {
    const NEWER: &str = "v1.20.3";
    let node = Node::boot_with_kubelet("upgraded-by-both");
    let newer = component_images().into_iter().filter(|image| image.ends_with(VERSION));
    let newer = newer.map(|image| image.replace(VERSION, NEWER)).filter(|image| !image.contains("kube-proxy"));
    let images: Vec<String> = component_images().into_iter().chain(newer).collect();
    node.import(&images);
    node.load(&images);
    node.give_kubeboot();
    node.write("/root/init.yaml", INIT);
    node.ok("kubeadm init --config /root/init.yaml --skip-phases=preflight,addon");
    node.kubectl_ok("-n default create configmap kept --from-literal=word=hello");
    let before = identity(&node);
    node.ok("kubeboot adopt --force");
    eprintln!("{}", node.ok(&format!("time kubeboot upgrade apply {NEWER} --yes")));
    runs(&node, NEWER);

    node.write("/usr/local/bin/crictl", CRICTL);
    node.ok("chmod +x /usr/local/bin/crictl");
    let plan = node.ok("kubeadm upgrade plan --ignore-preflight-errors=all");
    assert!(plan.contains(&format!("Cluster version: {NEWER}")), "{plan}");
    let certificates = node.ok("kubeadm certs check-expiration");
    assert_eq!(certificates.lines().filter(|line| line.contains("364d")).count(), 10, "{certificates}");

    node.ok("kubeboot upgrade rollback --yes");
    runs(&node, VERSION);
    assert_eq!(identity(&node), before);
    let upgrade = format!("kubeadm upgrade apply {NEWER} --force --yes --ignore-preflight-errors=all");
    let said = node.ok(&format!("time {upgrade}"));
    assert!(said.contains("[upgrade/successful] SUCCESS!"), "{said}");
    eprintln!("{}", said.lines().rev().take(4).collect::<Vec<_>>().join("\n"));
    runs(&node, NEWER);

    let backups = node.ok("ls /etc/kubernetes/tmp");
    node.ok("kubeboot adopt --back --force");
    assert_eq!(runners(&node).1, 0);
    // What it says when it is back: an administrator is served.
    assert!(node.kubectl_ok("version -o json").contains(NEWER));
    assert!(node.kubectl_ok("get configmap -n default kept -o jsonpath={.data.word}").contains("hello"));
    assert_eq!(node.ok("ls /etc/kubernetes/tmp"), backups);
    node.eventually("a Ready node", 120, || node.kubectl("get nodes").1.contains(" Ready "));
}

/// What adopt says when it comes to a step.
const STEPS: [&str; 5] =
    ["wait until the pods", "move etcd.yaml aside", "stop the kubelet", "start the unit", "etcd: running"];

/// Killed at a step, and then taken over or given back: as if it had never been killed.
fn killed_in_the_middle(node: &Node) {
    let before = identity(node);
    for (round, step) in STEPS.iter().enumerate() {
        node.ok(&format!(
            "kubeboot adopt --force >/tmp/said 2>&1 & pid=$!
             until grep -q '{step}' /tmp/said; do kill -0 $pid || exit 1; done; kill -9 $pid; rm /tmp/said"
        ));
        if round == 0 {
            node.ok("kubeboot adopt --force");
            assert_eq!(identity(node), before, "killed at {step}");
            node.ok("timeout --signal=KILL 0.5 kubeboot adopt --back --force >/dev/null 2>&1; true");
            // Had it ended already, there is nothing left to give back.
            node.run("kubeboot adopt --back --force");
        } else {
            node.ok("kubeboot adopt --back --force");
        }
        assert_eq!(identity(node), before, "given back, killed at {step}");
        assert_eq!(runners(node).1, 0);
    }
    assert!(node.ok("kubectl --kubeconfig /etc/kubernetes/admin.conf version -o json").contains(VERSION));
    // kubeadm's own word for it; and a reset gives the node back as well.
    node.ok("kubeboot init phase kubelet-start --node-agent embedded --kubernetes-version v1.20.2");
    assert_eq!(runners(node), (0, 4));
    node.ok("kubeboot reset --force");
    assert_eq!(identity(node), before);
}
