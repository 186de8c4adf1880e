//! What is known of a pod while it ends, and of its containers once they have.

use k8s_openapi::api::core::v1::ContainerStatus;

use super::*;
use crate::agent::board::Entry;

impl World {
    fn entry(&self, name: &str) -> Entry {
        let key = PodKey { namespace: "default".into(), name: format!("{name}-node1") };
        self.agent.as_ref().unwrap().view.board.visit(|pods, _| pods[&key].clone())
    }
}

#[tokio::test(start_paused = true)]
async fn a_container_that_ends_well_after_its_probe_has_condemned_it_is_started_again_under_on_failure() {
    for kind in ["livenessProbe", "startupProbe"] {
        let mut world = World::new();
        world.answers.set("/dies", false);
        world.fake.behave("main", Behaviour { sigterm_exit_code: 0, ..Behaviour::default() });
        world.start().await;
        let probe = format!("{kind}: {{httpGet: {{path: /dies, port: 1}}, periodSeconds: 1, failureThreshold: 1}}");
        world.want(&[pod_of("a", "hostNetwork: true\n  restartPolicy: OnFailure", &probe)]).await;
        let again = |pod: &PodReport| pod.containers.iter().any(|one| one.restarts == 1);
        let report = world.until("it is started again", |r| find(r, "a").is_some_and(again)).await;
        assert_eq!(find(&report, "a").unwrap().phase, Phase::Running, "{kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_from_the_log_is_the_log_and_has_no_newline_that_the_log_has_not() {
    for (open, expected) in [(true, "one\ntwo"), (false, "one\ntwo\n")] {
        let mut world = World::new();
        world.start().await;
        let spec = "hostNetwork: true\n  restartPolicy: Never";
        world.want(&[pod_of("a", spec, "terminationMessagePolicy: FallbackToLogsOnError")]).await;
        let id = world.healthy("a").await.containers[0].id.clone().unwrap();
        world.fake.set_log(&id, &["one", "two"]);
        if open {
            world.fake.open_log(&id);
        }
        world.fake.exit_container(&id, 1);
        world.until("it has failed", |r| find(r, "a").is_some_and(|p| p.phase == Phase::Failed)).await;
        let statuses = world.entry("a").status.container_statuses.unwrap();
        let ended = statuses[0].state.clone().unwrap().terminated.unwrap();
        assert_eq!(ended.message.as_deref(), Some(expected));
    }
}

#[tokio::test(start_paused = true)]
async fn an_edited_pod_says_so_until_the_containers_of_the_one_before_have_ended() {
    let mut world = World::new();
    let takes = Duration::from_secs(8);
    world.fake.behave("main", Behaviour { sigterm_takes: takes, ..Behaviour::default() });
    world.start().await;
    world.want(&[pod("a", "")]).await;
    let old = world.healthy("a").await.uid;
    assert!(!world.entry("a").succeeds);
    let edited = Instant::now();
    world.want(&[pod("a", "args: [other]")]).await;
    world.until("the new one waits", |r| find(r, "a").is_some_and(|p| p.uid != old)).await;
    assert!(world.entry("a").succeeds && edited.elapsed() < takes);
    world.healthy("a").await;
    assert!(!world.entry("a").succeeds && edited.elapsed() >= takes);
}

#[tokio::test(start_paused = true)]
async fn the_pod_before_an_edited_one_says_how_its_containers_end_until_the_last_has() {
    let mut world = World::new();
    let takes = |seconds, code| Behaviour {
        sigterm_takes: Duration::from_secs(seconds),
        sigterm_exit_code: code,
        ..Behaviour::default()
    };
    world.fake.behave("quick", takes(2, 3));
    world.fake.behave("main", takes(9, 0));
    world.start().await;
    let ready = "readinessProbe: {httpGet: {path: /ready, port: 1}, periodSeconds: 1, failureThreshold: 1}";
    let two = |args: &str| pod("a", &format!("{ready}\n    args: [{args}]\n  - {{name: quick, image: 'x:1'}}"));
    world.want(&[two("one")]).await;
    let old = world.healthy("a").await.uid;
    world.want(&[two("other")]).await;
    world.until("the new one waits", |r| find(r, "a").is_some_and(|p| p.uid != old)).await;
    let before = |world: &World| world.entry("a").predecessors[&old].container_statuses.clone().unwrap();
    let ends = |statuses: &[ContainerStatus]| {
        let end = |one: &ContainerStatus| one.state.clone().unwrap().terminated.map(|end| end.exit_code);
        statuses.iter().map(|one| (one.name.clone(), one.ready, end(one))).collect::<Vec<_>>()
    };
    let row = |name: &str, ready, end| (name.to_owned(), ready, end);
    assert_eq!(ends(&before(&world)), [row("main", true, None), row("quick", true, None)]);
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(ends(&before(&world)), [row("main", true, None), row("quick", false, Some(3))]);
    world.answers.set("/ready", false);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(ends(&before(&world)), [row("main", false, None), row("quick", false, Some(3))]);
    let entry = world.entry("a");
    assert!(entry.succeeds && entry.report.uid != old);
    assert_eq!(entry.predecessors[&old].phase.as_deref(), Some("Running"));
    world.answers.set("/ready", true);
    world.healthy("a").await;
    assert!(world.entry("a").predecessors.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_its_probe_has_condemned_is_started_again_by_an_agent_that_has_not_seen_it() {
    for (kind, ended) in [("livenessProbe", true), ("startupProbe", true), ("livenessProbe", false)] {
        let mut world = World::new();
        world.answers.set("/dies", false);
        let takes = Duration::from_secs(8);
        world.fake.behave("main", Behaviour { sigterm_exit_code: 0, sigterm_takes: takes, ..Behaviour::default() });
        world.start().await;
        let probe = format!("{kind}: {{httpGet: {{path: /dies, port: 1}}, periodSeconds: 1, failureThreshold: 1}}");
        let pod = pod_of("a", "hostNetwork: true\n  restartPolicy: OnFailure", &probe);
        world.want(std::slice::from_ref(&pod)).await;
        world.fake.until("it is stopped", |fake| !fake.calls_of("stop").is_empty()).await;
        world.kill().await;
        if ended {
            world.fake.until("it has ended", |fake| fake.containers().iter().all(|one| !one.state.is_running())).await;
        }
        world.answers.set("/dies", true);
        world.start().await;
        world.want(&[pod]).await;
        let again = |pod: &PodReport| pod.healthy && pod.containers[0].restarts == 1;
        let report = world.until("it is started again", |r| find(r, "a").is_some_and(again)).await;
        assert_eq!(find(&report, "a").unwrap().phase, Phase::Running, "{kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_status_says_what_is_mounted_and_given_and_which_image_runs() {
    let mut world = World::new();
    let takes = Duration::from_secs(8);
    world.fake.behave("main", Behaviour { sigterm_takes: takes, ..Behaviour::default() });
    let features = RuntimeFeatures { recursive_read_only: true, ..RuntimeFeatures::default() };
    world.fake.set_features(features);
    world.start().await;
    let pod = |image: &str| {
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: a, uid: own-uid}}\nspec:\n  hostNetwork: true\n  \
             volumes: [{{name: v, emptyDir: {{}}}}]\n  containers:\n  - name: main\n    image: '{image}'\n    \
             resources: {{requests: {{cpu: 100m}}, limits: {{memory: 64Mi}}}}\n    volumeMounts:\n    \
             - {{name: v, mountPath: /w}}\n    - {{name: v, mountPath: /r, readOnly: true}}\n    \
             - {{name: v, mountPath: /rr, readOnly: true, recursiveReadOnly: IfPossible}}\n"
        );
        read(&text).unwrap()
    };
    world.want(&[pod("x:1")]).await;
    world.healthy("a").await;
    let said = serde_json::to_value(&world.entry("a").status.container_statuses.unwrap()[0]).unwrap();
    let mounts = serde_json::json!([
        {"name": "v", "mountPath": "/w"},
        {"name": "v", "mountPath": "/r", "readOnly": true, "recursiveReadOnly": "Disabled"},
        {"name": "v", "mountPath": "/rr", "readOnly": true, "recursiveReadOnly": "Enabled"},
    ]);
    assert_eq!(said["volumeMounts"], mounts);
    assert_eq!(said["resources"]["limits"]["memory"], "64Mi");
    assert_eq!(said["allocatedResources"], said["resources"]["requests"]);
    assert_eq!(said["allocatedResources"]["cpu"], "100m");
    assert_eq!(said["user"], serde_json::json!({"linux": {"uid": 0, "gid": 0, "supplementalGroups": [0]}}));
    let whole = serde_json::to_value(&world.entry("a").status).unwrap();
    let given = serde_json::json!({"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "64Mi"}});
    assert_eq!((&whole["resources"], &whole["allocatedResources"]), (&given, &given["requests"]));
    // Its image changes: the old one runs until it has ended.
    world.want(&[pod("x:2")]).await;
    world.fake.until("it is stopped", |fake| !fake.calls_of("stop").is_empty()).await;
    world.settle().await;
    assert_eq!(world.entry("a").status.container_statuses.unwrap()[0].image, "x:1");
    world.until("it is replaced", |r| find(r, "a").is_some_and(|p| p.healthy && p.containers[0].restarts == 1)).await;
    assert_eq!(world.entry("a").status.container_statuses.unwrap()[0].image, "x:2");
}

#[tokio::test(start_paused = true)]
async fn a_removed_pod_is_shown_as_its_containers_ended_until_all_of_it_is_gone() {
    let mut world = World::new();
    world.fake.behave("main", Behaviour { sigterm_exit_code: 4, ..Behaviour::default() });
    let refused = || RuntimeError::Refused { call: "remove".into(), message: "busy".into() };
    world.fake.fail_when("remove", move |id| id.starts_with("POD").then(refused));
    world.start().await;
    world.want(&[pod_of("a", "hostNetwork: false", "")]).await;
    world.healthy("a").await;
    world.want(&[]).await;
    world.fake.until("its sandbox is left", |fake| fake.containers().len() == 1).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let entry = world.entry("a");
    let ended = entry.status.container_statuses.unwrap()[0].state.clone().unwrap().terminated;
    assert_eq!(ended.map(|end| end.exit_code), Some(4), "{:#?}", entry.report);
    world.fake.heal();
    world.until("it is gone", |r| r.pods.is_empty()).await;
}
