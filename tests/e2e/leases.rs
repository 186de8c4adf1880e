//! Leaders that end, and how soon the next one leads.

use std::path::Path;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::machine::*;

const MINUTE: Duration = Duration::from_secs(60);
const MANAGER: &str = "kube-controller-manager";
const MANIFEST: &str = "/etc/kubernetes/manifests/kube-controller-manager.yaml";

/// The lease of a component, as it is now.
#[derive(Debug)]
struct Lease {
    holder: String,
    acquired: Timestamp,
    renewed: Timestamp,
    lasts: SignedDuration,
    transitions: i64,
}

fn lease(component: &str) -> Lease {
    let json = kubectl(&["-n", "kube-system", "get", "lease", component, "-o", "json"]).ok();
    let spec = serde_json::from_str::<serde_json::Value>(&json).unwrap()["spec"].clone();
    let moment = |field: &str| spec[field].as_str().unwrap().parse().unwrap();
    Lease {
        holder: spec["holderIdentity"].as_str().unwrap_or_default().to_owned(),
        acquired: moment("acquireTime"),
        renewed: moment("renewTime"),
        lasts: SignedDuration::from_secs(spec["leaseDurationSeconds"].as_i64().unwrap()),
        transitions: spec["leaseTransitions"].as_i64().unwrap_or(0),
    }
}

/// Has a component end, and checks that the next one has not waited until the lease ran out.
fn followed_at_once(what: &str, component: &str, end: impl FnOnce()) {
    let before = lease(component);
    end();
    let after = eventually(&format!("{what}: the next leader"), MINUTE, || {
        let now = lease(component);
        (!now.holder.is_empty() && now.holder != before.holder).then_some(now)
    });
    assert!(after.acquired < before.renewed + before.lasts, "{what}: {before:?} {after:?}");
    assert!(after.transitions > before.transitions, "{what}: {before:?} {after:?}");
    healthy(MINUTE);
}

fn signalled(component: &str, name: &str) {
    let all = processes(component);
    assert_eq!(all.len(), 1, "one {component}");
    all.iter().for_each(|pid| signal(*pid, name));
}

pub fn a_leader_that_ends_is_followed_at_once_and_another_nodes_lease_is_left_alone() {
    let _plane = Shared::plane();
    followed_at_once("kill -9", MANAGER, || {
        signalled(MANAGER, "KILL");
        kubectl(&["create", "deployment", "followed", "--image=a/b:c"]).ok();
    });
    eventually("pods of a deployment that was made meanwhile", MINUTE, || {
        !kubectl(&["get", "pods", "-l", "app=followed", "-o", "name"]).ok().is_empty()
    });
    kubectl(&["delete", "deployment", "followed"]).ok();
    followed_at_once("SIGTERM", MANAGER, || signalled(MANAGER, "TERM"));
    followed_at_once("kill -9 of a scheduler", "kube-scheduler", || signalled("kube-scheduler", "KILL"));

    let text = std::fs::read_to_string(MANIFEST).unwrap();
    let edited = text.replacen("    - --leader-elect=true\n", "    - --leader-elect=true\n    - --v=3\n", 1);
    assert_ne!(edited, text);
    followed_at_once("an edit", MANAGER, || put(Path::new(MANIFEST), &edited));
    followed_at_once("an edit back", MANAGER, || put(Path::new(MANIFEST), &text));
    eventually("it is told", MINUTE, || {
        let events = kubectl(&["-n", "kube-system", "get", "events", "--field-selector=reason=LeaderElection"]).ok();
        events.contains("Released leader lease kube-system/kube-controller-manager")
    });

    let other = "elsewhere_00000000-0000-0000-0000-000000000000";
    let patch = format!("{{\"spec\":{{\"holderIdentity\":\"{other}\"}}}}");
    let old = processes(MANAGER);
    kubectl(&["-n", "kube-system", "patch", "lease", MANAGER, "--type=merge", "-p", &patch]).ok();
    signalled(MANAGER, "KILL");
    eventually("another process", MINUTE, || processes(MANAGER).difference(&old).count() == 1);
    healthy(MINUTE);
    assert_eq!(lease(MANAGER).holder, other, "it runs out like any other node's");
    eventually("a leader", MINUTE, || lease(MANAGER).holder != other);
}
