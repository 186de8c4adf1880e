//! The unit under a real systemd: a container that boots Debian with a Docker Engine of its own
//! (scripts/systemd-image.sh).
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const IMAGE: &str = "kubeboot-test/systemd:2";
const VERSION: &str = "v1.20.2";

fn run(program: &str, args: &[&str]) -> (i32, String) {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap_or(-1), text)
}

fn ok(program: &str, args: &[&str]) -> String {
    let (code, text) = run(program, args);
    assert_eq!(code, 0, "{program} {args:?}:\n{text}");
    text
}

/// A machine that is removed at the end, whatever happens.
struct Node(String);

impl Node {
    fn boot() -> Self {
        let inspect = run("docker", &["image", "inspect", IMAGE]);
        assert_eq!(inspect.0, 0, "image {IMAGE} is missing: scripts/systemd-image.sh makes it");
        let name = format!("kubeboot-systemd-{}", std::process::id());
        #[rustfmt::skip]
        ok("docker", &[
            "run", "-d", "--name", &name, "--hostname", "node1", "--stop-signal", "SIGRTMIN+3", "--cap-add=ALL",
            "--cap-drop=SYS_RESOURCE", "--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined",
            "--cgroupns=host", "-v", "/sys/fs/cgroup:/sys/fs/cgroup:rw", "--tmpfs", "/run", "-v", "/var/lib/docker", IMAGE,
        ]);
        let node = Self(name);
        node.eventually("docker in the node", 60, || node.run("docker version").0 == 0);
        node
    }

    /// The program and the component images.
    fn provide(&self) {
        let program = std::env::var("KUBEBOOT_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_kubeboot").to_owned());
        ok("docker", &["cp", &program, &format!("{}:/usr/local/bin/kubeboot", self.0)]);
        let list = ok(&program, &["images", "list", "--kubernetes-version", VERSION]);
        let images: Vec<&str> =
            list.lines().filter_map(|l| l.split_whitespace().next()).filter(|i| i.contains(':')).collect();
        let mut save = Command::new("docker").arg("save").args(&images).stdout(Stdio::piped()).spawn().unwrap();
        let load = Command::new("docker")
            .args(["exec", "-i", &self.0, "docker", "load", "--quiet"])
            .stdin(save.stdout.take().unwrap())
            .output()
            .unwrap();
        assert!(save.wait().unwrap().success() && load.status.success(), "{}", String::from_utf8_lossy(&load.stderr));
    }

    fn run(&self, script: &str) -> (i32, String) {
        run("docker", &["exec", &self.0, "bash", "-c", script])
    }

    fn ok(&self, script: &str) -> String {
        let (code, text) = self.run(script);
        assert_eq!(code, 0, "{script}:\n{text}\n{}", self.run("journalctl -u kubelet --no-pager | tail -n 30").1);
        text
    }

    fn eventually(&self, what: &str, seconds: u64, test: impl Fn() -> bool) -> f32 {
        let started = Instant::now();
        while !test() {
            assert!(
                started.elapsed() < Duration::from_secs(seconds),
                "{what}: not within {seconds} s\n{}",
                self.run("journalctl -u kubelet --no-pager | tail -n 30; kubeboot status").1
            );
            std::thread::sleep(Duration::from_millis(100));
        }
        started.elapsed().as_secs_f32()
    }

    fn healthy(&self, what: &str) -> f32 {
        self.eventually(what, 120, || self.run("kubeboot status").0 == 0)
    }

    fn containers(&self) -> String {
        self.ok("docker ps --no-trunc --filter label=dev.kubeboot.agent --format '{{.ID}}' | sort")
    }

    fn listing(&self) -> String {
        self.ok(
            "find /etc /var /usr/local /root -xdev -not -path '/var/lib/docker*' -not -path '/var/log/journal*' -not -path \
             '/var/lib/containerd*' -not -path '/var/lib/systemd*' -not -path '/var/tmp*' | sort; docker ps -aq; docker images",
        )
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        run("docker", &["rm", "-f", "-v", &self.0]);
    }
}

#[test]
fn the_unit_runs_the_agent_and_a_reboot_brings_the_control_plane_back() {
    let node = Node::boot();
    node.provide();
    let before = node.listing();

    let out = node.ok(&format!("kubeboot init --kubernetes-version {VERSION}"));
    assert!(out.contains("/etc/kubernetes/admin.conf"), "{out}");
    assert_eq!(node.ok("systemctl is-enabled kubelet").trim(), "enabled");
    assert_eq!(node.ok("systemctl is-active kubelet").trim(), "active");
    let pid = node.ok("systemctl show -p MainPID --value kubelet").trim().to_owned();
    assert!(node.ok(&format!("tr '\\0' ' ' </proc/{pid}/cmdline")).contains("kubeboot agent"));
    assert!(node.ok("ls /etc/systemd/system/kubelet.service.d").contains("10-kubeadm.conf"));

    let ids = node.containers();
    node.ok(&format!("kill -9 {pid}"));
    node.eventually("another agent", 30, || {
        let now = node.run("systemctl show -p MainPID --value kubelet").1;
        now.trim() != pid && now.trim() != "0" && node.run("kubeboot status").0 == 0
    });
    assert_eq!(node.containers(), ids, "a new agent adopts what runs");
    node.ok("systemctl stop kubelet");
    assert_eq!(node.containers(), ids, "stopping the agent stops no pod");
    assert_eq!(node.run("kubeboot status").0, 3);
    node.ok("systemctl start kubelet");
    node.healthy("after a start of the unit");

    ok("docker", &["restart", &node.0]);
    let took = node.healthy("after a reboot");
    eprintln!("after a reboot of the machine: healthy in {took:.1} s, by itself");

    node.ok("kubeboot reset --force");
    assert_ne!(node.run("systemctl cat kubelet").0, 0, "the unit is gone");
    let after = node.listing();
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<std::collections::BTreeSet<_>>();
    let changed: Vec<_> = lines(&before).symmetric_difference(&lines(&after)).cloned().collect();
    assert_eq!(changed, Vec::<String>::new(), "reset leaves the machine as it was");
}
