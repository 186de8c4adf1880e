//! One pod: its containers, images, probes and volumes.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_killed_container_is_replaced_the_moment_it_dies() {
    let mut world = World::new();
    world.start().await;
    world.want(&[pod("a", "")]).await;
    let first = world.healthy("a").await;
    let id = first.containers[0].id.clone().unwrap();
    world.fake.set_log(&id, &["one", "two"]);
    let before = Instant::now();
    world.fake.kill(&id);
    let report =
        world.until("restarted", |r| find(r, "a").is_some_and(|p| p.healthy && p.containers[0].restarts == 1)).await;
    assert_eq!(Instant::now(), before, "no time passes");
    let last = world.until("last words", |r| {
        find(r, "a").and_then(|p| p.containers[0].last_termination.as_ref()).is_some_and(|t| !t.log.is_empty())
    });
    let last = find(&*last.await, "a").unwrap().containers[0].last_termination.clone().unwrap();
    assert_eq!((last.exit_code, last.log), (137, vec!["one".to_owned(), "two".to_owned()]));
    assert_eq!(find(&report, "a").unwrap().uid, first.uid);
}

#[tokio::test(start_paused = true)]
async fn starts_of_a_crashing_container_follow_the_kubelets_back_off() {
    let mut world = World::new();
    world.fake.behave("main", Behaviour { exits_after: Some((Duration::from_secs(1), 1)), ..Behaviour::default() });
    world.start().await;
    world.want(&[pod("a", "")]).await;
    world.fake.until("seven starts", |fake| fake.calls_of("start").len() == 7).await;
    let starts: Vec<_> =
        world.fake.calls().into_iter().filter(|call| call.name == "start").map(|call| call.at).collect();
    let gaps: Vec<u64> = starts.windows(2).map(|pair| (pair[1] - pair[0]).as_secs()).collect();
    assert_eq!(gaps, [1, 11, 21, 41, 81, 161]);
    let report = world.until("backing off", |r| {
        find(r, "a").is_some_and(
            |p| matches!(&p.containers[0].state, StateReport::Waiting { reason, .. } if reason == "CrashLoopBackOff"),
        )
    });
    let report = report.await;
    let pod = find(&report, "a").unwrap();
    assert_eq!((pod.phase, pod.containers[0].restarts), (Phase::Running, 6));
    assert_eq!(pod.containers[0].last_termination.as_ref().unwrap().exit_code, 1);
    assert_eq!(world.fake.containers().len(), 1, "one dead instance is kept");
}

#[tokio::test(start_paused = true)]
async fn a_pod_behind_a_sandbox_is_rebuilt_when_that_dies() {
    let mut world = World::new();
    world.start().await;
    world.want(&[pod_of("a", "hostNetwork: false", "")]).await;
    world.healthy("a").await;
    assert_eq!(world.running(), ["a-node1/POD 0", "a-node1/main 0"]);
    let Some(MadeFrom::Container(config)) = world.fake.made_from(&world.fake.find("a-node1", "main").unwrap().id)
    else {
        panic!("a container");
    };
    let sandbox = world.fake.find("a-node1", "POD").unwrap();
    assert_eq!(config.sandbox.as_deref(), Some(sandbox.id.as_str()));
    assert_eq!(config.labels[labels::SANDBOX_ID], sandbox.id);
    world.fake.kill(&sandbox.id);
    world.until("rebuilt", |r| find(r, "a").is_some_and(|p| p.healthy && p.containers[0].restarts == 1)).await;
    assert_eq!(world.running(), ["a-node1/POD 1", "a-node1/main 1"]);
}

#[tokio::test(start_paused = true)]
async fn a_container_removed_by_hand_comes_back_counted() {
    let mut world = World::new();
    world.start().await;
    world.want(&[pod("a", "")]).await;
    let id = world.healthy("a").await.containers[0].id.clone().unwrap();
    world.fake.destroy(&id);
    let report =
        world.until("back", |r| find(r, "a").is_some_and(|p| p.healthy && p.containers[0].id.as_ref() != Some(&id)));
    let report = report.await;
    assert_eq!(find(&report, "a").unwrap().containers[0].restarts, 1);
}

#[tokio::test(start_paused = true)]
async fn an_image_that_cannot_be_had_is_asked_for_again_later_and_holds_up_no_other_pod() {
    let mut world = World::new();
    world.start().await;
    let absent = read(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {hostNetwork: true, containers: [{name: c, image: 'absent:1'}]}\n",
    );
    let absent = absent.unwrap();
    world.want(&[absent.clone(), pod("b", "")]).await;
    world.healthy("b").await;
    let waits = |reason: &'static str| {
        move |r: &HealthReport| {
            find(r, "a").is_some_and(
                |p| matches!(&p.containers[0].state, StateReport::Waiting { reason: r, .. } if r == reason),
            )
        }
    };
    let first = world.until("first failure", waits("ErrImagePull")).await;
    assert!(find(&first, "a").unwrap().message.as_ref().unwrap().contains("absent:1"), "{first:#?}");
    world.until("it waits", waits("ImagePullBackOff")).await;
    world.fake.until("it is tried again", |fake| fake.calls_of("pull").len() == 2).await;
    world.until("it fails again", waits("ErrImagePull")).await;
    let pulls: Vec<_> = world.fake.calls().into_iter().filter(|call| call.name == "pull").map(|call| call.at).collect();
    assert_eq!(pulls[1] - pulls[0], Duration::from_secs(10));
    // Another manifest does not wait for the first one's back-off.
    let fixed = Instant::now();
    world.want(&[pod("a", ""), pod("b", "")]).await;
    world.healthy("a").await;
    assert_eq!(Instant::now(), fixed);
}

#[tokio::test(start_paused = true)]
async fn a_pull_is_given_up_when_its_pod_is_not_wanted_any_more() {
    let mut world = World::new();
    world.fake.registry_has("slow:1", Duration::from_secs(1000));
    world.start().await;
    let slow = read(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {hostNetwork: true, containers: [{name: main, image: 'slow:1'}]}\n",
    );
    world.want(&[slow.unwrap()]).await;
    world.fake.until("it pulls", |fake| !fake.calls_of("pull").is_empty()).await;
    let edited = Instant::now();
    world.want(&[pod("a", "")]).await;
    world.healthy("a").await;
    assert_eq!(Instant::now(), edited);
    world.want(&[]).await;
    world.until("gone", |r| r.pods.is_empty()).await;
    assert!(world.fake.containers().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_failing_liveness_probe_gets_the_container_restarted() {
    let mut world = World::new();
    world.start().await;
    let probe = "livenessProbe: {httpGet: {path: /live, port: 1}, periodSeconds: 10, failureThreshold: 2}";
    world.want(&[pod("a", probe), pod("b", "")]).await;
    world.healthy("a").await;
    world.answers.set("/live", false);
    world.until("unhealthy", |r| find(r, "a").is_some_and(|p| !p.healthy)).await;
    world.fake.until("stopped", |fake| !fake.calls_of("stop").is_empty()).await;
    world.answers.set("/live", true);
    let report =
        world.until("restarted", |r| find(r, "a").is_some_and(|p| p.healthy && p.containers[0].restarts == 1)).await;
    let ended = find(&report, "a").unwrap().containers[0].last_termination.as_ref().unwrap();
    assert!(ended.message.starts_with("Liveness probe failed 2 times in a row: said no"), "{ended:?}");
    assert_eq!(find(&report, "b").unwrap().containers[0].restarts, 0);
}

#[tokio::test(start_paused = true)]
async fn a_pod_whose_volume_is_not_as_it_should_be_waits_and_says_why() {
    let mut world = World::new();
    let file = world.root.path().join("file");
    world.start().await;
    let spec =
        format!("hostNetwork: true\n  volumes: [{{name: v, hostPath: {{path: {}, type: File}}}}]", file.display());
    world.want(&[pod_of("a", &spec, "volumeMounts: [{name: v, mountPath: /v}]")]).await;
    let report = world
        .until("it says why", |r| {
            find(r, "a").is_some_and(|p| p.message.as_ref().is_some_and(|m| m.contains("volume \"v\" : ")))
        })
        .await;
    let waiting = &find(&report, "a").unwrap().containers[0].state;
    assert!(matches!(waiting, StateReport::Waiting { reason, .. } if reason == "ContainerCreating"), "{waiting:?}");
    std::fs::File::create(&file).unwrap();
    world.healthy("a").await;
}

#[tokio::test(start_paused = true)]
async fn a_container_that_must_not_be_root_and_would_be_is_not_made() {
    let mut world = World::new();
    world.start().await;
    world.want(&[pod("a", "securityContext: {runAsNonRoot: true}")]).await;
    let refused = |r: &HealthReport| {
        let state = find(r, "a").and_then(|p| p.containers.first()).map(|c| c.state.clone());
        matches!(state, Some(StateReport::Waiting { reason, message })
            if reason == "CreateContainerConfigError" && message == "container has runAsNonRoot and image will run as root")
    };
    world.until("it says why", refused).await;
    assert_eq!(world.fake.calls_of("create_container"), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_finished_pod_stays_finished_and_is_reported() {
    let mut world = World::new();
    let behaviour = |code| Behaviour { exits_after: Some((Duration::from_secs(1), code)), ..Behaviour::default() };
    world.fake.behave("main", behaviour(0));
    world.start().await;
    world.want(&[pod_of("a", "restartPolicy: OnFailure", "")]).await;
    let done = |r: &HealthReport| find(r, "a").is_some_and(|p| p.phase == Phase::Succeeded);
    world.until("it succeeds", done).await;
    world.fake.until("its sandbox stops", |fake| fake.containers().iter().all(|one| !one.state.is_running())).await;
    world.start().await;
    world.want(&[pod_of("a", "restartPolicy: OnFailure", "")]).await;
    world.until("it has succeeded", done).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(world.fake.containers().iter().all(|one| matches!(one.state, ContainerState::Exited { .. })));
}

/// A pod that is to have its own users, as a kubelet's words refuse it or not.
const APART: &str = "hostUsers: false";

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_to_have_its_own_users_never_runs_with_the_machines() {
    let mut world = World::new();
    world.start().await;
    world.want(&[pod_of("a", APART, "")]).await;
    let said = "can't set `spec.hostUsers: false`, runtime does not support user namespaces";
    let refused = |r: &HealthReport| {
        find(r, "a").is_some_and(|pod| pod.message.as_ref().is_some_and(|message| message.contains(said)))
    };
    world.until("it says why", refused).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(world.fake.calls_of("create_sandbox"), Vec::<String>::new());
    assert_eq!(world.fake.calls_of("create_container"), Vec::<String>::new());
    let events = world.agent.as_ref().unwrap().events.since(0);
    assert!(events.iter().any(|event| event.reason == "FailedCreatePodSandBox" && event.message.contains(said)));
    // A runtime that can has come.
    world.fake.set_features(RuntimeFeatures { user_namespaces: true, ..RuntimeFeatures::default() });
    world.healthy("a").await;
}

#[tokio::test(start_paused = true)]
async fn a_pods_own_users_are_no_other_pods_and_outlive_the_agent() {
    let mut world = World::new();
    world.fake.set_features(RuntimeFeatures { user_namespaces: true, ..RuntimeFeatures::default() });
    let users = |world: &World, pod: &str| {
        let made = |container: &str| {
            let found = world.fake.find(&format!("{pod}-node1"), container).unwrap();
            match world.fake.made_from(&found.id).unwrap() {
                MadeFrom::Sandbox(config) => config.users,
                MadeFrom::Container(config) => config.users,
            }
        };
        let (sandbox, container) = (made("POD"), made("main"));
        assert_eq!(sandbox, container, "{pod}");
        sandbox.map(|range| (range.first, range.count))
    };
    for round in 0..2 {
        world.start().await;
        world.want(&[pod_of("a", APART, ""), pod_of("b", APART, ""), pod_of("c", "hostUsers: true", "")]).await;
        for pod in ["a", "b", "c"] {
            world.healthy(pod).await;
        }
        let mut own = [users(&world, "a"), users(&world, "b")];
        own.sort();
        assert_eq!((own, users(&world, "c")), ([Some((65536, 65536)), Some((131_072, 65536))], None), "{round}");
        let before = users(&world, "a");
        world.fake.kill(&world.fake.find("a-node1", "POD").unwrap().id);
        world.fake.until("a new sandbox", |fake| fake.calls_of("create_sandbox").len() == 4 + round).await;
        world.healthy("a").await;
        assert_eq!(users(&world, "a"), before, "the pod's files are whose they were");
    }
    world.want(&[]).await;
    world.fake.until("all gone", |fake| fake.containers().is_empty()).await;
    world.settle().await;
    let dirs = world.root.path().join("root/pods");
    world.until("nothing is left", |_| std::fs::read_dir(&dirs).is_ok_and(|dirs| dirs.count() == 0)).await;
}

#[tokio::test(start_paused = true)]
async fn a_log_whose_rotation_was_cut_off_goes_on() {
    let mut world = World::new();
    world.fake.set_needs_sandbox();
    world.start().await;
    world.want(&[pod("a", "")]).await;
    world.healthy("a").await;
    let id = world.fake.find("a-node1", "main").unwrap().id;
    let log = world.fake.find("a-node1", "main").unwrap().labels[labels::LOG_PATH].clone();
    let (log, renamed) = (Path::new(&log), format!("{log}.20260102-030405"));
    std::fs::create_dir_all(log.parent().unwrap()).unwrap();
    std::fs::File::create(&renamed).unwrap();
    let context = Arc::clone(&world.agent.as_ref().unwrap().view);
    let watch = tokio::spawn(logs::rotate::watch(Arc::clone(&context.runtime), Arc::clone(&context.options)));
    world.fake.until("the runtime goes on", |fake| !fake.calls_of("reopen_log").is_empty()).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(world.fake.calls_of("reopen_log"), [id], "once: the log is there");
    assert!(log.exists() && Path::new(&renamed).exists());
    watch.abort();
}
