//! Pods that come, change, follow one another and wait for one another.

use super::*;

#[tokio::test(start_paused = true)]
async fn three_hundred_edits_while_the_old_one_stops_end_in_one_start_of_the_last() {
    let mut world = World::new();
    let slow = Behaviour { ignores_sigterm: true, ..Behaviour::default() };
    world.fake.behave("main", slow);
    world.start().await;
    world.want(&[pod_of("a", "hostNetwork: true\n  terminationGracePeriodSeconds: 20", "")]).await;
    world.healthy("a").await;
    let edited = Instant::now();
    for edit in 1..=300 {
        if edit == 2 {
            // The first one has its stop by now; its successors are polite.
            world.fake.until("the stop is under way", |fake| !fake.calls_of("stop").is_empty()).await;
            world.fake.behave("main", Behaviour::default());
        }
        world.want(&[pod("a", &format!("args: ['{edit}']"))]).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let last = pod("a", "args: ['300']");
    world.until("the last edit runs", |r| find(r, "a").is_some_and(|p| p.healthy && p.uid == last.uid)).await;
    assert_eq!(world.fake.calls_of("start").len(), 2);
    let stops = world.fake.calls_of("stop");
    assert_eq!(stops.len(), 1, "an edit does not give the old one its grace anew: {stops:?}");
    assert_eq!((Instant::now() - edited).as_secs(), 20, "the old one had its grace, the new one did not wait longer");
}

#[tokio::test(start_paused = true)]
async fn orphans_get_their_grace_and_end_before_a_successor_of_their_name_starts() {
    let mut world = World::new();
    world.start().await;
    let old = |name| pod_of(name, "hostNetwork: true\n  terminationGracePeriodSeconds: 9", "");
    world.want(&[old("a"), old("b")]).await;
    world.healthy("a").await;
    world.healthy("b").await;
    world.kill().await;
    world.fake.clear_calls();
    let slow = Behaviour { sigterm_takes: Duration::from_secs(3), ..Behaviour::default() };
    world.fake.behave("main", slow);
    world.start().await;
    world.update(Update::default()).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.running().len(), 2, "before the source was read nobody knows that they are orphans");
    world.want(&[pod("a", "args: [new]")]).await;
    world.healthy("a").await;
    world.fake.until("all is gone", |fake| fake.containers().len() == 1).await;
    let calls = world.fake.calls();
    let at = |name: &str, part: &str| {
        calls
            .iter()
            .position(|call| call.name == name && call.argument.contains(part))
            .unwrap_or_else(|| panic!("{name} {part}"))
    };
    assert!(at("remove", "main-1") < at("create_container", "a-node1"), "{calls:#?}");
    assert!(world.fake.calls_of("stop").iter().all(|stop| stop.ends_with(" 9s")), "{:?}", world.fake.calls_of("stop"));
    assert_eq!(world.until("one pod", |r| r.pods.len() == 1).await.pods[0].name, "a-node1");
}

#[tokio::test(start_paused = true)]
async fn a_control_plane_starts_in_order_and_waits_for_nobody_for_ever() {
    let pods = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"].map(component);
    let mut world = World::new();
    world.answers.set("/kube-apiserver", false);
    world.start().await;
    world.want(&pods).await;
    world.fake.until("the first two run", |fake| fake.calls_of("start").len() == 2).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(world.running(), ["etcd-node1/etcd 0", "kube-apiserver-node1/kube-apiserver 0"]);
    let held = find(&world.report(), "kube-scheduler").unwrap().message.clone();
    assert_eq!(held.as_deref(), Some("waiting for kube-apiserver to become healthy"));
    world.answers.set("/kube-apiserver", true);
    for pod in &pods {
        world.healthy(pod.key.name.trim_end_matches("-node1")).await;
    }
    // A later crash of one that waited is not held back, whatever the API server does then.
    world.answers.set("/kube-apiserver", false);
    world.until("the API server is unhealthy", |r| find(r, "kube-apiserver").is_some_and(|p| !p.healthy)).await;
    let crashed = Instant::now();
    world.fake.kill(&world.fake.find("kube-scheduler-node1", "kube-scheduler").unwrap().id);
    world
        .until("the scheduler is back", |r| {
            find(r, "kube-scheduler").is_some_and(|p| p.healthy && p.containers[0].restarts == 1)
        })
        .await;
    assert_eq!(Instant::now(), crashed);
}

#[tokio::test(start_paused = true)]
async fn the_start_order_ends_with_a_crash_and_after_thirty_seconds() {
    let pods = ["kube-apiserver", "kube-scheduler"].map(component);
    for crash in [true, false] {
        let mut world = World::new();
        world.answers.set("/kube-apiserver", false);
        if crash {
            let crashing = Behaviour { exits_after: Some((Duration::from_secs(2), 1)), ..Behaviour::default() };
            world.fake.behave("kube-apiserver", crashing);
        }
        world.start().await;
        let began = Instant::now();
        world.want(&pods).await;
        world.healthy("kube-scheduler").await;
        assert_eq!((Instant::now() - began).as_secs(), if crash { 2 } else { 30 });
    }
}

#[tokio::test(start_paused = true)]
async fn an_identical_pod_that_comes_back_while_it_stops_is_stopped_first() {
    let mut world = World::new();
    let slow = Behaviour { sigterm_takes: Duration::from_secs(3), ..Behaviour::default() };
    world.fake.behave("main", slow);
    world.start().await;
    world.want(&[pod("a", "")]).await;
    let first = world.healthy("a").await;
    world.want(&[]).await;
    world.until("it stops", |r| find(r, "a").is_some_and(|p| p.terminating)).await;
    world.want(&[pod("a", "")]).await;
    let waiting = world.until("it is wanted", |r| find(r, "a").is_some_and(|p| !p.terminating)).await;
    assert!(!find(&waiting, "a").unwrap().healthy, "what is being stopped is not healthy, wanted or not");
    let again = world.until("it runs again", |r| find(r, "a").is_some_and(|p| p.healthy)).await;
    let again = find(&again, "a").unwrap();
    assert_eq!(again.uid, first.uid);
    assert_ne!(again.containers[0].id, first.containers[0].id);
    assert_eq!(world.fake.containers().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn comments_change_what_is_reported_of_the_file_and_nothing_else() {
    let mut world = World::new();
    world.start().await;
    let mut one = pod("a", "");
    world.want(&[one.clone()]).await;
    let before = world.healthy("a").await;
    one.file_hash = Some("other".into());
    world.want(&[one]).await;
    let after =
        world.until("the new hash", |r| find(r, "a").is_some_and(|p| p.file_hash.as_deref() == Some("other"))).await;
    let after = find(&after, "a").unwrap();
    assert!(after.healthy);
    assert_eq!(after.containers, before.containers);
    assert_eq!(after.since, before.since);
}

#[test]
fn a_pod_key_reads_as_people_write_it() {
    let key = PodKey { namespace: "kube-system".into(), name: "etcd-n".into() };
    assert_eq!(key.to_string(), "kube-system/etcd-n");
}
