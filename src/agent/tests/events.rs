//! The events that a pod's life makes.

use super::*;
use crate::runtime::PodNetwork;

impl World {
    /// Reasons of a pod's events about `container` (empty: the pod as a whole), oldest first.
    fn reasons(&self, container: &str) -> Vec<String> {
        self.events(container).into_iter().map(|event| event.reason).collect()
    }

    fn events(&self, container: &str) -> Vec<super::super::events::Event> {
        let all = self.agent.as_ref().unwrap().events.since(0);
        all.into_iter().filter(|event| event.container.as_deref().unwrap_or_default() == container).collect()
    }

    fn message(&self, container: &str, reason: &str) -> String {
        let found = self.events(container).into_iter().find(|event| event.reason == reason);
        found.unwrap_or_else(|| panic!("no event {reason}: {:?}", self.events(container))).message
    }
}

#[tokio::test(start_paused = true)]
async fn a_container_is_created_started_and_killed_and_a_dead_sandbox_is_told_of() {
    let mut world = World::new();
    world.start().await;
    world.want(&[pod_of("a", "hostNetwork: false", "")]).await;
    world.healthy("a").await;
    assert_eq!(world.reasons("main").iter().filter(|r| *r == "Created" || *r == "Started").count(), 2);
    world.fake.kill(&world.fake.find("a-node1", "POD").unwrap().id);
    world.until("rebuilt", |r| find(r, "a").is_some_and(|p| p.healthy && p.containers[0].restarts == 1)).await;
    assert!(world.reasons("").contains(&"SandboxChanged".to_owned()));
    assert_eq!(world.message("main", "Killing"), "Stopping container main");
    let uid = find(&world.report(), "a").unwrap().uid.clone();
    assert!(world.agent.as_ref().unwrap().events.since(0).iter().all(|e| (&*e.pod, &*e.uid) == ("a-node1", &*uid)));
}

#[tokio::test(start_paused = true)]
async fn a_step_that_fails_is_a_warning_about_what_it_was_done_for() {
    let mut world = World::new();
    let refused = |what: &str| RuntimeError::Refused { call: "a call".into(), message: format!("cannot {what}") };
    world.fake.fail_nth("create_sandbox", 1, refused("make a sandbox"));
    world.fake.fail_nth("create_container", 1, refused("make a container"));
    world.fake.fail_nth("start", 2, refused("start a container"));
    world.start().await;
    world.want(&[pod_of("a", "hostNetwork: false", "")]).await;
    world.healthy("a").await;
    assert_eq!(world.message("", "FailedCreatePodSandBox"), "Failed to create pod sandbox: cannot make a sandbox");
    let failed: Vec<_> = world.events("main").into_iter().filter(|event| event.reason == "Failed").collect();
    let failed: Vec<_> = failed.iter().map(|event| event.message.as_str()).collect();
    let expected = ["Error: cannot make a container", "Error: cannot start a container"];
    assert_eq!(failed, expected);
}

#[tokio::test(start_paused = true)]
async fn a_pod_waits_for_the_network_plugin_and_one_of_the_hosts_network_does_not() {
    let mut world = World::new();
    let (reason, message) = ("NetworkPluginNotReady".to_owned(), "cni plugin not initialized".to_owned());
    world.fake.set_pod_network(PodNetwork::NotReady { reason, message });
    world.start().await;
    world.want(&[pod_of("a", "hostNetwork: false", ""), pod_of("b", "hostNetwork: true", "")]).await;
    world.healthy("b").await;
    assert_eq!(
        world.message("", "NetworkNotReady"),
        "network is not ready: container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady \
         message:cni plugin not initialized"
    );
    assert!(!world.reasons("").contains(&"FailedCreatePodSandBox".to_owned()));
    world.fake.set_pod_network(PodNetwork::Ready);
    world.healthy("a").await;
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_cannot_be_mounted_is_a_failed_mount_of_the_pod() {
    let mut world = World::new();
    world.start().await;
    let missing = world.root.path().join("nowhere");
    let spec =
        format!("hostNetwork: true\n  volumes: [{{name: v, hostPath: {{path: {}, type: File}}}}]", missing.display());
    world.want(&[pod_of("a", &spec, "volumeMounts: [{name: v, mountPath: /v}]")]).await;
    world.until("waits", |r| find(r, "a").is_some_and(|p| p.message.is_some())).await;
    let message = world.message("", "FailedMount");
    assert!(message.starts_with("MountVolume.SetUp failed for volume \"v\" : hostPath type "), "{message}");
    assert!(message.contains("nowhere"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_none_of_an_image_is_an_inspection_that_failed() {
    let mut world = World::new();
    world.start().await;
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {hostNetwork: true, containers: [{name: main, image: 'No Such'}]}\n";
    world.want(&[read(text).unwrap()]).await;
    world.until("waits", |r| find(r, "a").is_some_and(|p| p.message.is_some())).await;
    let expected = "Failed to apply default image tag \"No Such\": couldn't parse image name \"No Such\": invalid \
                    reference format";
    assert_eq!(world.message("main", "InspectFailed"), expected);
    assert_eq!(world.message("main", "Failed"), "Error: InvalidImageName");
}

#[tokio::test(start_paused = true)]
async fn a_container_that_crashes_waits_in_the_kubelets_words_and_a_pod_whose_time_is_over_says_so() {
    let mut world = World::new();
    world.start().await;
    world.want(&[pod_of("a", "hostNetwork: true\n  activeDeadlineSeconds: 600", "")]).await;
    let pod = world.healthy("a").await;
    for _ in 0..2 {
        world.healthy("a").await;
        world.fake.kill(&world.fake.find("a-node1", "main").unwrap().id);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let expected = format!("back-off 10s restarting failed container=main pod=a-node1_default({})", pod.uid);
    let waits = |r: &HealthReport| match find(r, "a").map(|pod| &pod.containers[0].state) {
        Some(StateReport::Waiting { message, .. }) => *message == expected,
        _ => false,
    };
    world.until("backs off", waits).await;
    tokio::time::sleep(Duration::from_secs(700)).await;
    let all = world.events("");
    let over: Vec<_> = all.iter().filter(|event| event.reason == "DeadlineExceeded").collect();
    assert_eq!(over.len(), 1, "{all:?}");
    assert_eq!(
        (over[0].count, over[0].message.as_str()),
        (1, "Pod was active on the node longer than the specified deadline")
    );
}
