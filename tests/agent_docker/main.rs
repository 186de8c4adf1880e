//! The agent against a real Docker daemon, or containerd where `KUBEBOOT_TEST_CRI` names its socket: what somebody sees who
//! puts manifests in a directory. Every test has an agent of its own, with its own root directory, which is also what its
//! containers are labelled with.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod lifecycle;

use std::path::{Path, PathBuf};
use std::time::Duration;

use kubeboot::agent::control::report::{HealthReport, Phase, PodReport, Problem, StateReport};
use kubeboot::runtime::ContainerState;
use kubeboot::testing::Machine;
use kubeboot::testing::real::engine::Kind;
use kubeboot::testing::real::image::{FOREVER, IMAGE, STUBBORN};
use kubeboot::testing::real::machine::Agent;
use kubeboot::testing::real::wait::{LIMIT, eventually};

fn start(machine: &Machine) -> Agent {
    machine.embed(machine.options())
}

/// How many sandboxes so many pods have, of which `own` have their own network.
fn sandboxes(pods: usize, own: usize) -> usize {
    if Kind::chosen() == Kind::Containerd { pods } else { own }
}

/// What is wrong. That the machine's disk is short is no test's matter.
fn problems(report: &HealthReport) -> Vec<&Problem> {
    report.problems.iter().filter(|problem| !problem.message.starts_with("disk pressure")).collect()
}

fn pod<'a>(report: &'a HealthReport, name: &str) -> Option<&'a PodReport> {
    report.pods.iter().find(|pod| pod.name == format!("{name}-node1"))
}

fn id(pod: &PodReport) -> String {
    pod.containers[0].id.clone().unwrap()
}

fn manifest(name: &str, spec: &str, container: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  labels: {{component: {name}}}\nspec:\n  \
         terminationGracePeriodSeconds: 5\n{spec}  containers:\n  - name: main\n    image: {IMAGE}\n    \
         command: [sh, -c, {FOREVER:?}]\n{container}"
    )
}

const HOST: &str = "  hostNetwork: true\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_runs_is_edited_is_killed_and_goes() {
    let machine = Machine::new();
    let agent = start(&machine);
    machine.write("web.yaml", manifest("web", HOST, "    env: [{name: A, value: one}]\n"));
    let first = machine.healthy("web").await;
    assert_eq!((first.phase, first.ready, first.component.as_deref()), (Phase::Running, true, Some("web")));
    assert_eq!(
        machine.all().await.len(),
        1 + sandboxes(1, 0),
        "a lone container on the host's network needs no sandbox"
    );
    let all = machine.containers().await;
    assert_eq!(all[0].name.to_string(), format!("k8s_main_web-node1_default_{}_0", first.uid));
    let log = machine.path("containers").join(format!("web-node1_default_main-{}.log", all[0].id));
    assert!(std::fs::read_link(&log).is_ok(), "the log link is made");

    machine.write("web.yaml", manifest("web", HOST, "    env: [{name: A, value: two}]\n"));
    let edited = machine
        .until("the edited pod is healthy", |r| pod(r, "web").is_some_and(|p| p.healthy && p.uid != first.uid))
        .await;
    let edited = pod(&edited, "web").unwrap().clone();
    assert_ne!(edited.file_hash, first.file_hash);
    assert_eq!(edited.containers[0].restarts, 0);
    assert!(std::fs::read_link(&log).is_err(), "the old one's log link is gone");

    machine.kill_container(&id(&edited));
    let killed = machine
        .until("it was restarted", |r| pod(r, "web").is_some_and(|p| p.healthy && p.containers[0].restarts == 1))
        .await;
    let killed = pod(&killed, "web").unwrap().clone();
    assert_eq!(killed.uid, edited.uid);
    assert_eq!(killed.containers[0].last_termination.as_ref().unwrap().exit_code, 137);

    machine.delete("web.yaml");
    machine.until("the pod is gone", |r| r.agent.synced && r.pods.is_empty()).await;
    assert!(machine.all().await.is_empty());
    assert_eq!(std::fs::read_dir(machine.path("containers")).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(machine.path("pods")).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(machine.path("root/pods")).unwrap().count(), 0);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_kind_is_refused_and_hurts_no_other() {
    let machine = Machine::new();
    let agent = start(&machine);
    machine.write("web.yaml", manifest("web", HOST, ""));
    let before = machine.healthy("web").await;
    machine.write("set.yaml", "apiVersion: apps/v1\nkind: ReplicaSet\nmetadata: {name: set}\nspec: {}\n");
    let report = machine.until("it is refused", |r| !problems(r).is_empty()).await;
    assert_eq!(problems(&report)[0].subject, machine.path("manifests/set.yaml").display().to_string());
    assert!(problems(&report)[0].message.starts_with("ReplicaSet (apps/v1) is not run"), "{:?}", report.problems);
    assert_eq!(id(pod(&report, "web").unwrap()), id(&before));
    machine.delete("set.yaml");
    machine.until("the problem is gone", |r| problems(r).is_empty()).await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_turns_invalid_keeps_its_pod_even_across_a_restart_of_the_agent() {
    let machine = Machine::new();
    let agent = start(&machine);
    let good = manifest("web", HOST, "");
    machine.write("web.yaml", &good);
    let before = machine.healthy("web").await;
    machine.write("web.yaml", good.replace("containers:", "containerz:"));
    let invalid = |r: &HealthReport| r.problems.iter().any(|p| p.message.contains("at least one container"));
    machine.until("it is reported", invalid).await;
    agent.stop().await;
    let agent = start(&machine);
    machine.until("it is reported again", invalid).await;
    let after = machine.healthy("web").await;
    assert_eq!((id(&after), after.containers[0].restarts), (id(&before), 0));
    machine.write("web.yaml", &good);
    machine.until("all is well", |r| problems(r).is_empty()).await;
    assert_eq!(id(&machine.healthy("web").await), id(&before));
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_goes_keeps_the_pods_and_is_watched_again_when_it_comes_back() {
    let machine = Machine::new();
    let agent = start(&machine);
    machine.write("web.yaml", manifest("web", HOST, ""));
    let before = machine.healthy("web").await;
    // Whole: `rm -r` removes the manifests first, and the agent may see each of them go.
    std::fs::rename(machine.path("manifests"), machine.path("away")).unwrap();
    let gone = machine.until("it is reported", |r| r.problems.iter().any(|p| p.message.contains("is missing"))).await;
    assert_eq!(id(pod(&gone, "web").unwrap()), id(&before));
    // Another directory is put in its place, whole.
    std::fs::create_dir(machine.path("next")).unwrap();
    std::fs::rename(machine.path("next"), machine.path("manifests")).unwrap();
    machine.until("an empty directory wants nothing", |r| r.pods.is_empty() && problems(r).is_empty()).await;
    machine.write("other.yaml", manifest("other", HOST, ""));
    machine.healthy("other").await;
    // And one directory is replaced by another, without a moment in which there is none.
    let there = machine.path("manifests");
    std::fs::create_dir(machine.path("next")).unwrap();
    std::fs::copy(there.join("other.yaml"), machine.path("next/other.yaml")).unwrap();
    std::fs::rename(&there, machine.path("old")).unwrap();
    std::fs::rename(machine.path("next"), &there).unwrap();
    machine.write("third.yaml", manifest("third", HOST, ""));
    machine.healthy("third").await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_agent_adopts_what_runs_and_clears_what_is_not_wanted() {
    let machine = Machine::new();
    let agent = start(&machine);
    machine.write("host.yaml", manifest("host", HOST, ""));
    machine.write("own.yaml", manifest("own", "", ""));
    machine.write("orphan.yaml", manifest("orphan", "", ""));
    let before = [machine.healthy("host").await, machine.healthy("own").await];
    machine.healthy("orphan").await;
    agent.stop().await;
    assert_eq!(machine.all().await.iter().filter(|one| one.state.is_running()).count(), 3 + sandboxes(3, 2));
    machine.delete("orphan.yaml");
    let agent = start(&machine);
    let synced =
        machine.until("the orphan is gone", |r| r.agent.synced && pod(r, "orphan").is_none() && r.pods.len() == 2);
    synced.await;
    for old in before {
        let new = machine.healthy(old.name.trim_end_matches("-node1")).await;
        assert_eq!((id(&new), new.containers[0].restarts), (id(&old), 0), "{}", old.name);
    }
    let left = machine.all().await;
    assert_eq!(left.len(), 2 + sandboxes(2, 1), "{left:#?}");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_agent_on_the_same_root_directory_is_refused() {
    let machine = Machine::new();
    let agent = start(&machine);
    machine.until("it runs", |r| r.agent.runtime.is_some()).await;
    let error = start(&machine).ended().await.unwrap_err();
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_of_a_pod_share_its_network_volumes_and_order() {
    let machine = Machine::new();
    let agent = start(&machine);
    let init = format!(
        "  volumes: [{{name: shared, emptyDir: {{}}}}]\n  initContainers:\n  - name: first\n    image: {IMAGE}\n    \
         command: [sh, -c, 'echo $(GREETING) > /shared/file']\n    env: [{{name: GREETING, value: hello}}]\n    \
         volumeMounts: [{{name: shared, mountPath: /shared}}]\n"
    );
    let probe = "    readinessProbe: {exec: {command: [sh, -c, 'cat /shared/file']}}\n    \
                 volumeMounts: [{name: shared, mountPath: /shared, readOnly: true}]\n";
    machine.write("pair.yaml", manifest("pair", &init, probe));
    let ready = machine.healthy("pair").await;
    assert!(matches!(&ready.containers[0].state, StateReport::Terminated(end) if end.exit_code == 0), "{ready:#?}");
    let file = machine.path("root/pods").join(&ready.uid).join("volumes/kubernetes.io~empty-dir/shared/file");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "hello\n");
    // The pause container dies: everything again, volumes kept.
    let sandbox = machine.all().await.into_iter().find(|one| one.is_sandbox).unwrap();
    machine.kill_container(&sandbox.id);
    let rebuilt = |r: &HealthReport| pod(r, "pair").is_some_and(|p| p.healthy && p.containers[1].restarts == 1);
    machine.until("it is rebuilt", rebuilt).await;
    // podman keeps a dead sandbox for as long as there are containers that were in it, and so does the agent with CRI.
    let kept = Kind::chosen() == Kind::Containerd || machine.client.version().await.unwrap().name == "podman";
    let mut sandboxes = machine.all().await;
    sandboxes.retain(|one| one.is_sandbox && (one.state.is_running() || !kept));
    assert_eq!(sandboxes.iter().map(|one| one.name.attempt).collect::<Vec<_>>(), [1]);
    machine.delete("pair.yaml");
    machine.until("it is gone", |r| r.pods.is_empty()).await;
    assert!(!file.exists());
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_shows_its_exit_code_its_last_lines_and_its_message() {
    let machine = Machine::new();
    let agent = start(&machine);
    let crash = manifest("bad", HOST, "")
        .replace(FOREVER, "echo out of cheese; echo last words > /dev/termination-log; exit 3");
    machine.write("bad.yaml", &crash);
    let report = machine.until("it crashed", |r| {
        let last = pod(r, "bad").and_then(|p| p.containers.first()).and_then(|c| c.last_termination.as_ref());
        last.is_some_and(|last| !last.log.is_empty())
    });
    let report = report.await;
    let last = pod(&report, "bad").unwrap().containers[0].last_termination.clone().unwrap();
    assert_eq!((last.exit_code, last.log, last.message.trim()), (3, vec!["out of cheese".to_owned()], "last words"));
    machine.delete("bad.yaml");
    machine.until("it is gone", |r| r.pods.is_empty()).await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_written_manifest_is_not_run() {
    use std::io::Write;
    let machine = Machine::new();
    let agent = start(&machine);
    machine.until("it runs", |r| r.agent.synced).await;
    let text = manifest("web", HOST, "    env: [{name: A, value: one}]\n");
    let (half, rest) = text.split_at(text.find("    env:").unwrap());
    let mut file = std::fs::File::create(machine.path("manifests/web.yaml")).unwrap();
    file.write_all(half.as_bytes()).unwrap();
    // Another manifest makes the agent list the directory now.
    machine.write("other.yaml", manifest("other", HOST, ""));
    machine.until("the other one is seen", |r| pod(r, "other").is_some()).await;
    file.write_all(rest.as_bytes()).unwrap();
    drop(file);
    let ready = machine.healthy("web").await;
    let mut made = machine.all().await;
    made.retain(|one| one.name.pod == ready.name && !one.is_sandbox);
    assert_eq!(made.len(), 1, "half a manifest is a valid one here, and must not have run");
    assert_eq!(made[0].name.uid, ready.uid);
    agent.stop().await;
}
