//! The unit under a real systemd: a container that boots Debian with a Docker Engine of its own
//! (scripts/systemd-image.sh).
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

#[path = "nodes/node.rs"]
mod node;

use kubeboot::testing::real::command::run;
use node::{Node, VERSION, component_images};

fn containers(node: &Node) -> String {
    node.ok("docker ps --no-trunc --filter label=dev.kubeboot.agent --format '{{.ID}}' | sort")
}

fn listing(node: &Node) -> String {
    node.ok(
        "find /etc /var /usr/local /root -xdev -not -path '/var/lib/docker*' -not -path '/var/log/journal*' -not -path \
             '/var/lib/containerd*' -not -path '/var/lib/systemd*' -not -path '/var/tmp*' | sort; docker ps -aq; \
             docker images --no-trunc --format '{{.Repository}}:{{.Tag}} {{.ID}}'",
    )
}

fn main_pid(node: &Node) -> String {
    node.run("systemctl show -p MainPID --value kubelet").1.trim().to_owned()
}

/// An agent that does not turn any more is ended by systemd, and one that does is not.
fn hangs(node: &Node, containers_before: &str) {
    assert_eq!(node.ok("systemctl show -p WatchdogUSec --value kubelet").trim(), "2min");
    let drop_in = "/etc/systemd/system/kubelet.service.d/95-watchdog.conf";
    node.write(drop_in, "[Service]\nWatchdogSec=6\n");
    node.ok("systemctl daemon-reload; systemctl restart kubelet");
    node.healthy("with a watchdog of six seconds");
    let pid = main_pid(node);
    // Twice what systemd waits for.
    std::thread::sleep(std::time::Duration::from_secs(12));
    assert_eq!(main_pid(node), pid, "an agent that turns says so");
    node.ok(&format!("kill -STOP {pid}"));
    node.eventually("another agent in place of the one that hangs", 60, || {
        let now = main_pid(node);
        now != pid && now != "0" && node.run("kubeboot status").0 == 0
    });
    assert_eq!(containers(node), containers_before, "its containers go on");
    node.ok(&format!("rm {drop_in}; systemctl daemon-reload; systemctl restart kubelet"));
    node.healthy("without the drop-in");
}

/// What the unit takes from the agent leaves it what it does for pods: the runtime sees what it mounts.
fn mounts(node: &Node) {
    let image = node.ok("docker images --format '{{.Repository}}:{{.Tag}}' | grep etcd | head -n 1");
    let pod = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: mounts}}\nspec:\n  terminationGracePeriodSeconds: 1\n  hostNetwork: true\n  \
         securityContext: {{fsGroup: 4242}}\n  containers:\n  - name: main\n    image: {}\n    imagePullPolicy: Never\n    \
         command: [etcd, --data-dir=/m/data, --listen-client-urls=http://127.0.0.1:12379, \
         --advertise-client-urls=http://127.0.0.1:12379, --listen-peer-urls=http://127.0.0.1:12380]\n    \
         volumeMounts: [{{name: memory, mountPath: /m}}]\n  volumes: [{{name: memory, emptyDir: {{medium: Memory}}}}]\n",
        image.trim()
    );
    node.write("/etc/kubernetes/manifests/mounts.yaml", &pod);
    let container = "docker ps -q --filter label=io.kubernetes.container.name=main";
    node.eventually("the pod runs", 60, || !node.run(container).1.trim().is_empty());
    let of_pod =
        "/proc/$(docker inspect -f '{{.State.Pid}}' $(docker ps -q --filter label=io.kubernetes.container.name=main))";
    let seen = node.ok(&format!("grep ' /m ' {of_pod}/mountinfo"));
    assert!(seen.contains(" - tmpfs "), "{seen}");
    node.eventually("what it writes is there", 30, || node.run(&format!("ls {of_pod}/root/m/data/member")).0 == 0);
    node.ok("rm /etc/kubernetes/manifests/mounts.yaml");
    node.eventually("it ends", 60, || node.run(container).1.trim().is_empty());
}

/// What the unit takes from the agent leaves it what it needs to start an API server beside the one that is replaced.
fn surges(node: &Node) {
    let running = "docker ps -q --filter label=io.kubernetes.container.name=kube-apiserver | wc -l";
    let count = || node.run(running).1.trim().to_owned();
    assert_eq!(count(), "1");
    node.ok("sed -i 's/^    - --secure-port=6443$/    - --v=1\\n&/' /etc/kubernetes/manifests/kube-apiserver.yaml");
    node.eventually("two API servers side by side", 60, || count() == "2");
    node.eventually("the new one alone", 60, || count() == "1" && node.run("kubeboot status").0 == 0);
}

#[test]
fn the_unit_runs_the_agent_and_a_reboot_brings_the_control_plane_back() {
    let node = Node::boot("systemd");
    node.give_kubeboot();
    node.load(&component_images());
    let before = listing(&node);

    let out = node.ok(&format!("kubeboot init --kubernetes-version {VERSION}"));
    assert!(out.contains("/etc/kubernetes/admin.conf"), "{out}");
    assert_eq!(node.ok("systemctl is-enabled kubelet").trim(), "enabled");
    assert_eq!(node.ok("systemctl is-active kubelet").trim(), "active");
    let pid = node.ok("systemctl show -p MainPID --value kubelet").trim().to_owned();
    assert!(node.ok(&format!("tr '\\0' ' ' </proc/{pid}/cmdline")).contains("kubeboot agent"));
    assert!(node.ok("ls /etc/systemd/system/kubelet.service.d").contains("10-kubeadm.conf"));

    surges(&node);
    let ids = containers(&node);
    node.ok(&format!("kill -9 {pid}"));
    node.eventually("another agent", 30, || {
        let now = node.run("systemctl show -p MainPID --value kubelet").1;
        now.trim() != pid && now.trim() != "0" && node.run("kubeboot status").0 == 0
    });
    assert_eq!(containers(&node), ids, "a new agent adopts what runs");
    node.ok("systemctl stop kubelet");
    assert_eq!(containers(&node), ids, "stopping the agent stops no pod");
    assert_eq!(node.run("kubeboot status").0, 3);
    node.ok("systemctl start kubelet");
    node.healthy("after a start of the unit");

    hangs(&node, &ids);
    mounts(&node);

    run("docker", &["restart", &node.name]).ok();
    let took = node.healthy("after a reboot");
    eprintln!("after a reboot of the machine: healthy in {took:.1} s, by itself");

    node.ok("kubeboot reset --force");
    assert_ne!(node.run("systemctl cat kubelet").0, 0, "the unit is gone");
    let after = listing(&node);
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<std::collections::BTreeSet<_>>();
    let changed: Vec<_> = lines(&before).symmetric_difference(&lines(&after)).cloned().collect();
    assert_eq!(changed, Vec::<String>::new(), "reset leaves the machine as it was");
}
