//! kube-apiserver is replaced by one that is started beside it: no request fails.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use crate::asker::Asker;
use crate::machine::*;

const MINUTE: Duration = Duration::from_secs(60);
const CRASHING: &str = "kubeboot-test/crashing:1";
const MANIFEST: &str = "/etc/kubernetes/manifests/kube-apiserver.yaml";

fn servers() -> BTreeSet<i32> {
    processes("kube-apiserver")
}

/// How many processes listen on the API server's port.
fn listeners() -> usize {
    let ss = run("cat", &["/proc/net/tcp", "/proc/net/tcp6"]).ok();
    ss.lines().filter(|line| line.contains(":192B 0000") && line.contains(" 0A ")).count()
}

fn manifest() -> String {
    std::fs::read_to_string(MANIFEST).unwrap()
}

fn write(text: &str) {
    put(Path::new(MANIFEST), text);
}

/// The manifest with a flag more.
fn with_flag(text: &str, flag: &str) -> String {
    text.replacen("    - kube-apiserver\n", &format!("    - kube-apiserver\n    - {flag}\n"), 1)
}

/// Waits until one server runs alone that is none of these.
#[track_caller]
fn replaced(before: &BTreeSet<i32>) {
    eventually("another API server alone", MINUTE, || {
        let now = servers();
        now.len() == 1 && now.is_disjoint(before)
    });
    healthy(MINUTE);
}

pub fn an_upgrade_and_its_rollback_fail_no_request() {
    let _plane = ControlPlane::init();
    assert!(manifest().contains("kubeboot.dev/surge: \"true\"") && manifest().contains("--permit-port-sharing=true"));
    for (upgrade, version) in
        [(&["upgrade", "apply", NEXT_VERSION][..], NEXT_VERSION), (&["upgrade", "rollback"], VERSION)]
    {
        let (before, asker) = (servers(), Asker::start());
        kubeboot(&[upgrade, &["--yes"]].concat()).code(0);
        let said = kubectl(&["get", "--raw", "/version"]).ok();
        assert!(said.contains(&format!("\"{version}\"")), "{said}");
        replaced(&before);
        asker.lost_nothing();
    }
}

pub fn one_that_cannot_serve_leaves_the_old_one_serving_and_is_rolled_back() {
    image_of_script(CRASHING, "echo out of cheese >&2; exit 3");
    let _plane = Shared::plane();
    let (text, before, asker) = (manifest(), servers(), Asker::start());
    let image = format!("kube-apiserver={CRASHING}");
    let said = kubeboot(&["upgrade", "apply", "--image", &image, "--yes"]).code(2);
    assert!(said.contains("out of cheese") && said.contains("exit code 3"), "{said}");
    assert_eq!((manifest(), servers()), (text.clone(), before.clone()), "the old one has run all the while");

    // It listens, refuses everything it is asked, and is never ready.
    let ca = |file: &str| format!("    - --client-ca-file=/etc/kubernetes/pki/{file}\n");
    assert!(text.contains(&ca("ca.crt")), "{text}");
    write(&with_flag(&text.replace(&ca("ca.crt"), &ca("front-proxy-ca.crt")), "--anonymous-auth=false"));
    let old = before.clone();
    eventually("a second one", MINUTE, || servers().len() == 2 && servers().is_superset(&old));
    eventually("it listens", MINUTE, || listeners() == 2);
    asker.wait_for(500);
    assert!(servers().is_superset(&before));
    let status = kubeboot(&["status"]).stdout;
    assert!(status.contains("kube-apiserver (next)"), "{status}");
    write(&text);
    eventually("the old one alone", MINUTE, || servers() == before);
    healthy(MINUTE);
    asker.lost_nothing();
    run("docker", &["rmi", CRASHING]);
}

/// When the agent is killed.
#[derive(Debug, Clone, Copy)]
enum Kill {
    Never,
    /// The new one is tried beside the old one.
    Tried,
    /// The new one has the connections.
    Switched,
    /// The old one was told to end, and has closed its listener.
    Told,
}

/// Kills the agent when it is time, and starts it again.
fn kill_agent(kill: Kill) {
    let has_next = || kubeboot(&["status"]).stdout.contains("kube-apiserver (next)");
    match kill {
        Kill::Never => return,
        Kill::Tried => eventually("a second one", MINUTE, || servers().len() == 2),
        Kill::Switched => {
            eventually("a second one is tried", MINUTE, has_next);
            eventually("it has the connections", MINUTE, || !has_next());
            assert_eq!(servers().len(), 2);
        }
        Kill::Told => {
            eventually("both listen", MINUTE, || listeners() == 2);
            eventually("one does not any more", MINUTE, || listeners() == 1);
        }
    }
    let agent = status()["agent"]["pid"].as_i64().unwrap();
    signal(agent as i32, "KILL");
    eventually("agent gone", MINUTE, || kubeboot(&["status"]).code == 3);
    kubeboot(&["init", "phase", "kubelet-start", "--kubernetes-version", VERSION]).ok();
}

pub fn an_edit_fails_no_request_also_when_the_agent_is_killed_in_between() {
    let _plane = Shared::plane();
    let text = manifest();
    for (kill, flag) in [(Kill::Never, "--v=3"), (Kill::Tried, "--v=1"), (Kill::Told, "--v=3")] {
        let (before, asker) = (servers(), Asker::start());
        write(&with_flag(&text, flag));
        kill_agent(kill);
        replaced(&before);
        asker.lost_nothing();
    }
    let before = servers();
    write(&text);
    replaced(&before);
}

pub fn a_restart_fails_no_request_also_when_the_agent_is_killed_in_between() {
    let _plane = Shared::plane();
    let (before, asker) = (servers(), Asker::start());
    kubeboot(&["agent", "restart", "kube-apiserver"]).ok();
    kill_agent(Kill::Switched);
    replaced(&before);
    asker.lost_nothing();
}

pub fn one_that_does_not_ask_is_never_there_twice() {
    let _plane = Shared::plane();
    let (text, before) = (manifest(), servers());
    let plain = text.replace("kubeboot.dev/surge: \"true\"", "kubeboot.dev/surge: \"false\"");
    write(&plain);
    let mut most = 0;
    eventually("another API server", MINUTE, || {
        let now = servers();
        // The old one may drain beside it, once it has closed its port.
        most = most.max(listeners());
        now.len() == 1 && now.is_disjoint(&before)
    });
    healthy(MINUTE);
    assert_eq!(most, 1);
    let before = servers();
    write(&text);
    replaced(&before);
}
