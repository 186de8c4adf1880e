//! What a pod goes through: it is restarted, removed and brought back, changed in place, or its time is over.

use super::*;

fn restarts(report: &HealthReport) -> Option<u32> {
    find(report, "a").filter(|pod| pod.healthy).map(|pod| pod.containers[0].restarts)
}

#[tokio::test(start_paused = true)]
async fn an_identical_pod_that_is_removed_and_comes_back_goes_on_counting() {
    let mut world = World::new();
    world.start().await;
    world.want(&[pod("a", "")]).await;
    world.healthy("a").await;
    world.want(&[]).await;
    world.until("it is gone", |r| r.pods.is_empty()).await;
    assert_eq!(std::fs::read_dir(world.root.path().join("root/pods")).unwrap().count(), 0);
    world.want(&[pod("a", "")]).await;
    let report = world.until("it is back", |r| restarts(r).is_some()).await;
    assert_eq!(restarts(&report), Some(1));
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(restarts(&world.report()), Some(1), "and stays");
}

#[tokio::test(start_paused = true)]
async fn an_init_container_that_was_removed_is_done_and_a_sidecar_is_started_again() {
    let mut world = World::new();
    let once = Behaviour { exits_after: Some((Duration::from_millis(10), 0)), ..Behaviour::default() };
    world.fake.behave("first", once);
    let spec = "initContainers: [{name: first, image: 'x:1'}, {name: side, image: 'x:1', restartPolicy: Always}]";
    world.start().await;
    world.want(&[pod_of("a", spec, "")]).await;
    world.healthy("a").await;
    let main = world.fake.find("a-node1", "main").unwrap().id;
    world.kill().await;
    for name in ["first", "side"] {
        world.fake.destroy(&world.fake.find("a-node1", name).unwrap().id);
    }
    world.fake.clear_calls();
    world.start().await;
    world.want(&[pod_of("a", spec, "")]).await;
    let pod = world.healthy("a").await;
    let StateReport::Terminated(ended) = &pod.containers[0].state else { panic!("{pod:#?}") };
    assert_eq!((ended.exit_code, ended.reason.as_str()), (0, "Completed"));
    let starts = world.fake.calls_of("start");
    assert!(starts.len() == 1 && starts[0].starts_with("side"), "{starts:?}");
    assert_eq!(world.fake.find("a-node1", "main").unwrap().id, main);
}

#[tokio::test(start_paused = true)]
async fn a_runtime_that_goes_away_while_a_pod_stops_delays_that_no_longer_than_it_is_away() {
    let mut world = World::new();
    world.fake.behave("main", Behaviour { ignores_sigterm: true, ..Behaviour::default() });
    world.start().await;
    world.want(&[pod_of("a", "hostNetwork: true\n  terminationGracePeriodSeconds: 30", "")]).await;
    world.healthy("a").await;
    let away = || RuntimeError::Unreachable { address: "fake".into(), source: "away".into() };
    world.fake.fail_nth("stop", 1, away());
    world.fake.fail_when("inspect", move |_| Some(away()));
    world.want(&[]).await;
    world.fake.until("the stop fails", |fake| !fake.calls_of("stop").is_empty()).await;
    let unwanted = Instant::now();
    world.fake.set_unreachable(true);
    tokio::time::sleep(Duration::from_secs(15)).await;
    world.fake.heal();
    world.fake.set_unreachable(false);
    world.until("it is gone", |r| r.agent.synced && r.pods.is_empty()).await;
    let took = unwanted.elapsed().as_secs();
    assert!((30..=32).contains(&took), "the grace goes on meanwhile: {took} s, {:?}", world.fake.calls_of("stop"));
}

#[tokio::test(start_paused = true)]
async fn a_pod_whose_time_is_over_is_failed_and_stays_so() {
    let mut world = World::new();
    world.start().await;
    let started = Instant::now();
    world.want(&[pod_of("a", "activeDeadlineSeconds: 60", "")]).await;
    world.healthy("a").await;
    let report = world.until("it is over", |r| find(r, "a").is_some_and(|p| p.phase == Phase::Failed)).await;
    // Its age is that of its sandbox, on the wall clock.
    assert!((59..=60).contains(&started.elapsed().as_secs()));
    assert!(find(&report, "a").unwrap().message.as_ref().unwrap().starts_with("DeadlineExceeded"));
    world.fake.until("all stops", |fake| fake.containers().iter().all(|one| !one.state.is_running())).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(world.running().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_keeps_its_uid_takes_every_change_of_its_spec() {
    let pod = |spec: &str, container: &str| {
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: a, uid: own-uid}}\nspec:\n  {spec}\n  containers:\n  - name: main\n    image: x:1\n    {container}\n"
        );
        read(&text).unwrap()
    };
    let mut world = World::new();
    world.start().await;
    world.want(&[pod("dnsPolicy: Default", "env: [{name: A, value: one}]")]).await;
    world.healthy("a").await;
    world.want(&[pod("dnsPolicy: Default", "env: [{name: A, value: two}]")]).await;
    world.until("its container is replaced", |r| restarts(r) == Some(1)).await;
    assert_eq!(world.running(), ["a-node1/POD 0", "a-node1/main 1"]);
    world
        .want(&[pod("dnsPolicy: None\n  dnsConfig: {nameservers: [192.0.2.1]}", "env: [{name: A, value: two}]")])
        .await;
    world.until("all of it is replaced", |r| restarts(r) == Some(2)).await;
    assert_eq!(world.running(), ["a-node1/POD 1", "a-node1/main 2"]);
    assert_eq!(find(&world.report(), "a").unwrap().uid, "own-uid");
}

#[tokio::test(start_paused = true)]
async fn images_nobody_can_have_say_why() {
    for (image, policy, reason, pulls) in [
        ("absent:1", "Never", "ErrImageNeverPull", 0),
        ("No Such", "IfNotPresent", "InvalidImageName", 0),
        ("x:1", "Always", "ErrImagePull", 1),
        ("x:1", "Always", "ImagePullBackOff", 1),
    ] {
        let mut world = World::new();
        world.start().await;
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec: {{hostNetwork: true, containers: [{{name: c, image: '{image}', imagePullPolicy: {policy}}}]}}\n"
        );
        world.want(&[read(&text).unwrap()]).await;
        let waits = |r: &HealthReport| {
            let state = find(r, "a").and_then(|pod| pod.containers.first()).map(|container| &container.state);
            matches!(state, Some(StateReport::Waiting { reason: r, .. }) if r == reason)
        };
        world.until(reason, waits).await;
        assert_eq!(world.fake.calls_of("pull").len(), pulls, "{image} {policy}");
        assert!(world.fake.calls_of("create_container").is_empty(), "an image that is here is no excuse");
    }
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_removed_when_its_pod_went_is_removed_later_and_nothing_of_pods_that_are_wanted() {
    let mut world = World::new();
    world.start().await;
    world.want(&[pod("a", "")]).await;
    let wanted = world.healthy("a").await.uid;
    let root = world.root.path().join("root");
    let pods = root.join("pods");
    crate::agent::volumes::claim(&root, "gone").unwrap();
    std::fs::create_dir_all(pods.join("a-kubelets/volumes")).unwrap();
    tokio::time::sleep(Duration::from_secs(540)).await;
    assert!(pods.join("gone").exists(), "it is looked for at the start and every ten minutes");
    tokio::time::sleep(Duration::from_secs(90)).await;
    assert!(!pods.join("gone").exists());
    assert!(pods.join(wanted).exists() && pods.join("a-kubelets").exists());
}
