//! The unit under a real systemd: a container that boots Debian with a Docker Engine of its own
//! (scripts/systemd-image.sh).
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

#[path = "nodes/node.rs"]
mod node;

use node::{Node, VERSION, component_images, ok};

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

    ok("docker", &["restart", &node.name]);
    let took = node.healthy("after a reboot");
    eprintln!("after a reboot of the machine: healthy in {took:.1} s, by itself");

    node.ok("kubeboot reset --force");
    assert_ne!(node.run("systemctl cat kubelet").0, 0, "the unit is gone");
    let after = listing(&node);
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<std::collections::BTreeSet<_>>();
    let changed: Vec<_> = lines(&before).symmetric_difference(&lines(&after)).cloned().collect();
    assert_eq!(changed, Vec::<String>::new(), "reset leaves the machine as it was");
}
