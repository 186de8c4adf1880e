//! Real nodes join a control plane that kubeboot made, run pods, and leave.

use crate::node::{Node, VERSION, component_images, web_image};

/// One pod a node.
const DAEMON_SET: &str = "apiVersion: apps/v1
kind: DaemonSet
metadata: {name: web, namespace: default}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: 'localhost/web:1', imagePullPolicy: Never}
";

/// A machine with a control plane that kubeboot made.
pub struct ControlPlane {
    /// The machine.
    pub node: Node,
    /// The words of the join command after the program's name.
    pub join: String,
}

impl ControlPlane {
    fn init() -> Self {
        let config = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nkubernetesVersion: ";
        Self::init_with(&format!("{config}{VERSION}\n"), "")
    }

    /// With a configuration and further flags.
    pub fn init_with(config: &str, flags: &str) -> Self {
        let node = Node::boot("control-plane");
        node.load(&component_images());
        node.give_kubeboot();
        node.write("/root/init.yaml", config);
        let out = node.ok(&format!("kubeboot init --config /root/init.yaml {flags}"));
        let (_, command) = out.rsplit_once(" join ").unwrap_or_else(|| panic!("no join command in\n{out}"));
        // Of the two lines that follow, which a shell reads as one.
        let join = command.split("\n\n").next().unwrap().replace("\\\n", " ");
        Self { node, join: join.split_whitespace().collect::<Vec<_>>().join(" ") }
    }

    fn kubectl(&self, args: &str) -> String {
        self.node.kubectl_ok(args)
    }
}

/// A machine with a kubelet that has joined nothing.
fn worker(name: &str) -> Node {
    let node = Node::boot_with_kubelet(name);
    node.remove_docker();
    node.import(&component_images().into_iter().filter(|image| image.contains("/pause:")).collect::<Vec<_>>());
    node.import(&web_image());
    node.give_kubeboot();
    node
}

/// The node is Ready and runs a pod that answers.
fn runs_pods(control: &ControlPlane, worker: &Node) {
    let name = &worker.name;
    let row = || {
        let nodes = control.node.kubectl("get nodes -o wide --no-headers").1;
        nodes.lines().find(|line| line.starts_with(name.as_str())).map(str::to_owned).unwrap_or_default()
    };
    let took = worker.eventually("a Ready node", 120, || row().contains(" Ready "));
    eprintln!("Ready after {took:.1} s: {}", row());
    control.node.write("/root/web.yaml", DAEMON_SET);
    control.kubectl("apply -f /root/web.yaml");
    let of_node = format!("get pods -n default -l app=web --field-selector spec.nodeName={name} --no-headers -o wide");
    let pod = || control.node.kubectl(&of_node).1;
    let took = worker.eventually("a running pod", 120, || pod().contains(" Running "));
    eprintln!("running after {took:.1} s: {}", pod().trim());
    let address =
        control.kubectl(&format!("{} -o jsonpath={{.items[0].status.podIP}}", of_node.replace("-o wide", "")));
    let address = address.split_whitespace().last().unwrap();
    assert_eq!(worker.ok(&format!("curl -sf http://{address}/")).trim(), "hello");
    eprintln!("{}", control.kubectl("get nodes,pods -A -o wide"));
}

fn leaves(control: &ControlPlane, worker: &Node, reset: &str) {
    control.kubectl(&format!("delete node {}", worker.name));
    eprintln!("{}", worker.ok(reset));
    assert!(!control.kubectl("get nodes --no-headers").contains(worker.name.as_str()));
    assert_eq!(
        worker.ok("ls -A /var/lib/kubelet /etc/kubernetes/manifests 2>/dev/null | grep -v : || true").trim(),
        ""
    );
}

#[test]
fn the_real_kubeadm_joins_a_node_that_runs_pods_and_leaves_again() {
    let control = ControlPlane::init();
    let worker = worker("kubeadm-worker");
    // Which wants crictl, which Debian has not.
    eprintln!("{}", worker.ok(&format!("kubeadm join {} --ignore-preflight-errors=all", control.join)));
    runs_pods(&control, &worker);
    leaves(&control, &worker, "kubeadm reset --force");
    an_expired_token_is_refused(&control, &worker);
}

fn an_expired_token_is_refused(control: &ControlPlane, worker: &Node) {
    let token = control.node.ok("kubeboot token create --ttl 1s").trim().to_owned();
    let id = token.split('.').next().unwrap().to_owned();
    control.node.eventually("the token's end", 60, || !control.node.run("kubeboot token list").1.contains(&id));
    let (server, hash) = {
        let words: Vec<&str> = control.join.split_whitespace().collect();
        (words[0].to_owned(), words.iter().find(|word| word.starts_with("sha256:")).unwrap().to_string())
    };
    worker.write(
        "/root/join.yaml",
        &format!(
            "apiVersion: kubeadm.k8s.io/v1beta2\nkind: JoinConfiguration\ndiscovery:\n  timeout: 10s\n  bootstrapToken: \
             {{token: {token}, apiServerEndpoint: '{server}', caCertHashes: ['{hash}']}}\n"
        ),
    );
    let (code, text) = worker.run("kubeadm join --config /root/join.yaml --ignore-preflight-errors=all");
    assert_ne!(code, 0, "{text}");
    assert!(text.contains(&id) && text.contains("JWS"), "{text}");
}

#[test]
fn kubeboot_joins_a_node_with_a_real_kubelet_and_takes_it_away_again() {
    let control = ControlPlane::init();
    let worker = worker("kubeboot-worker");
    eprintln!("{}", worker.ok(&format!("kubeboot join {} --ignore-preflight-errors=all", control.join)));
    runs_pods(&control, &worker);
    takes_the_clusters_settings(&control, &worker);
    leaves(&control, &worker, "kubeboot reset --force");
}

/// `upgrade node` on a worker: its kubelet's settings are those of the cluster, whatever they were.
fn takes_the_clusters_settings(control: &ControlPlane, worker: &Node) {
    let same = worker.ok("kubeboot upgrade node");
    assert!(same.contains("are those of the cluster"), "{same}");
    let map = "-n kube-system get configmap kubelet-config-1.20 -o yaml";
    let set = "sed 's/^    kind: KubeletConfiguration/    maxPods: 77\\n&/'";
    let admin = "kubectl --kubeconfig /etc/kubernetes/admin.conf";
    control.node.ok(&format!("{admin} {map} | {set} | {admin} replace -f -"));
    let would = worker.ok("kubeboot upgrade node --dry-run");
    assert!(would.contains("+maxPods: 77"), "{would}");
    let said = worker.ok("kubeboot upgrade node");
    assert!(said.contains("Wrote /var/lib/kubelet/config.yaml"), "{said}");
    let settings =
        worker.ok("cat /var/lib/kubelet/config.yaml /etc/kubernetes/tmp/kubeadm-kubelet-config-*/config.yaml");
    assert_eq!(settings.matches("maxPods: 77").count(), 1, "{settings}");
}
