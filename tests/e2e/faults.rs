//! What people and machines do to a running control plane.

use std::path::Path;
use std::time::Duration;

use crate::machine::*;

const MINUTE: Duration = Duration::from_secs(60);

fn restarts(component: &str) -> i64 {
    let report = status();
    let pods = report["pods"].as_array().cloned().unwrap_or_default();
    let pod = pods.iter().find(|p| p["component"] == component).cloned().unwrap_or_default();
    pod["containers"][0]["restarts"].as_i64().unwrap_or(-1)
}

pub fn a_killed_component_comes_back_and_nothing_is_lost() {
    let _plane = Shared::plane();
    kubectl(&["create", "configmap", "kept", "--from-literal=a=b"]).ok();
    for component in ["kube-scheduler", "kube-controller-manager", "kube-apiserver", "etcd"] {
        let before = restarts(component);
        let old = processes(component);
        assert_eq!(old.len(), 1, "one {component}");
        old.iter().for_each(|pid| signal(*pid, "KILL"));
        eventually(&format!("new {component}"), MINUTE, || {
            (processes(component).difference(&old).count() == 1 && restarts(component) > before).then_some(())
        });
        healthy(MINUTE);
    }
    assert_eq!(kubectl(&["get", "configmap", "kept", "-o", "jsonpath={.data.a}"]).ok(), "b");
    kubectl(&["delete", "configmap", "kept"]).ok();
}

pub fn a_killed_agent_leaves_the_control_plane_running_and_its_successor_adopts_it() {
    let _plane = Shared::plane();
    let ids = containers();
    let agent = status()["agent"]["pid"].as_i64().unwrap();
    signal(agent as i32, "KILL");
    eventually("agent gone", MINUTE, || (kubeboot(&["status"]).code == 3).then_some(()));
    assert!(kubectl(&["get", "--raw", "/readyz"]).ok().contains("ok"), "the API server does not need the agent");
    kubeboot(&["init", "phase", "kubelet-start", "--kubernetes-version", VERSION]).ok();
    healthy(MINUTE);
    assert_eq!(containers(), ids, "the same containers run on");
}

pub fn a_killed_dockerd_that_comes_back_finds_the_control_plane_running_again() {
    let _plane = ControlPlane::init();
    kubectl(&["create", "configmap", "kept", "--from-literal=a=b"]).ok();
    for pid in processes("dockerd") {
        signal(pid, "KILL");
    }
    eventually("dockerd gone", MINUTE, || (run("docker", &["version"]).code != 0).then_some(()));
    eventually("agent says so", MINUTE, || {
        (status()["problems"].as_array().is_some_and(|p| p.iter().any(|p| p["subject"] == "runtime"))).then_some(())
    });
    run("bash", &["-c", ". scripts/lib.sh && docker_up"]).ok();
    eventually("status healthy and the API server answering", 2 * MINUTE, || {
        (kubeboot(&["status"]).code == 0 && kubectl(&["get", "--raw", "/readyz"]).code == 0).then_some(())
    });
    assert_eq!(kubectl(&["get", "configmap", "kept", "-o", "jsonpath={.data.a}"]).ok(), "b");
}

pub fn an_edited_manifest_is_run_and_a_broken_one_hurts_nothing() {
    let _plane = Shared::plane();
    let file = "/etc/kubernetes/manifests/kube-scheduler.yaml";
    let text = std::fs::read_to_string(file).unwrap();
    let edit = |new: &str| put(Path::new(file), new);
    edit(&text.replacen("    - --leader-elect=true\n", "    - --leader-elect=true\n    - --v=3\n", 1));
    eventually("scheduler with --v=3", MINUTE, || {
        processes("kube-scheduler").iter().any(|p| command_line(*p).contains(&"--v=3".to_owned())).then_some(())
    });
    healthy(MINUTE);
    let ids = containers();

    edit("kind: [broken\n");
    let problem = eventually("problem reported", MINUTE, || {
        status()["problems"].as_array()?.iter().find(|p| p["subject"] == file).cloned()
    });
    assert!(problem["message"].as_str().is_some_and(|m| !m.is_empty()));
    let set = "apiVersion: apps/v1\nkind: ReplicaSet\nmetadata: {name: rs}\nspec: {}\n";
    let set_file = "/etc/kubernetes/manifests/rs.yaml";
    put(Path::new(set_file), set);
    let refused = eventually("ReplicaSet refused", MINUTE, || {
        status()["problems"].as_array()?.iter().find(|p| p["subject"] == set_file).cloned()
    });
    assert!(refused["message"].as_str().is_some_and(|m| m.contains("ReplicaSet")), "{refused}");
    assert_eq!(containers(), ids, "neither hurt anything that runs");
    std::fs::remove_file(set_file).unwrap();
    edit(&text);
    eventually("the scheduler as it was", MINUTE, || {
        let runs = processes("kube-scheduler");
        !runs.is_empty() && !runs.iter().any(|p| command_line(*p).contains(&"--v=3".to_owned()))
    });
    healthy(MINUTE);
}
