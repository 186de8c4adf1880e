//! Static pods that the node does not run.

use k8s_openapi::api::core::v1::PodStatus;
use serde_json::json;

use super::*;
use crate::agent::pod::bound_tests::bound_with;

/// A pod with these further fields of its spec, which asks for this much of the processors.
fn asking(name: &str, spec: &str, cpu: &str) -> StaticPod {
    pod_of(name, &format!("hostNetwork: true\n  {spec}"), &format!("resources: {{requests: {{cpu: {cpu}}}}}"))
}

fn status(world: &World, name: &str) -> PodStatus {
    let agent = world.agent.as_ref().unwrap();
    agent.view.board.pods().into_iter().find(|entry| entry.report.name == format!("{name}-node1")).unwrap().status
}

fn events(world: &World, reason: &str) -> Vec<String> {
    let events = world.agent.as_ref().unwrap().events.since(0).into_iter().filter(|event| event.reason == reason);
    events.map(|event| format!("{}: {}", event.pod, event.message)).collect()
}

async fn refused(world: &World, name: &str) -> PodReport {
    let is_refused = |report: &HealthReport| find(report, name).is_some_and(|pod| pod.phase == Phase::Failed);
    find(&*world.until("refused", is_refused).await, name).unwrap().clone()
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_the_node_is_not_for_has_failed_with_an_event_until_its_manifest_changes() {
    let mut world = World::new();
    world.start_with(|context| context.initial_labels.extend([("disk".to_owned(), "ssd".to_owned())])).await;
    let selects = |value: &str| pod_of("picky", &format!("hostNetwork: true\n  nodeSelector: {{disk: {value}}}"), "");
    let os = pod_of("other", "hostNetwork: true\n  os: {name: windows}", "");
    let named = pod_of(
        "named",
        "hostNetwork: true\n  nodeSelector: {kubernetes.io/hostname: node1, kubernetes.io/os: linux}",
        "",
    );
    world.want(&[selects("nvme"), os, named]).await;
    let report = refused(&world, "picky").await;
    let words = "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
    let message = format!("Pod was rejected: {words}");
    let StateReport::Waiting { reason, .. } = &report.containers[0].state else { panic!("{report:#?}") };
    assert_eq!((report.message.as_ref(), reason.as_str()), (Some(&message), "NodeAffinity"));
    let reported = status(&world, "picky");
    assert_eq!((reported.phase.as_deref(), reported.reason.as_deref()), (Some("Failed"), Some("NodeAffinity")));
    assert_eq!((reported.message, reported.container_statuses), (Some(message), None));
    assert_eq!(events(&world, "NodeAffinity"), [format!("picky-node1: {words}")]);
    refused(&world, "other").await;
    assert_eq!(status(&world, "other").reason.as_deref(), Some("PodOSNotSupported"));
    world.healthy("named").await;
    assert_eq!(world.running(), ["named-node1/main 0"]);

    world.want(&[selects("ssd")]).await;
    world.healthy("picky").await;
    world.want(&[selects("hdd")]).await;
    refused(&world, "picky").await;
    world.fake.until("what ran is stopped", |fake| fake.containers().is_empty()).await;
    world.settle().await;
    assert_eq!(find(&world.report(), "picky").unwrap().phase, Phase::Failed, "it is shown once nothing is left");
    world.want(&[]).await;
    world.until("it is gone with its manifest", |report| report.pods.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_is_restarted_stops_what_the_node_is_not_for_any_more() {
    let mut world = World::new();
    let label = |value: &str| [("disk".to_owned(), value.to_owned())];
    world.start_with(|context| context.initial_labels.extend(label("ssd"))).await;
    let picky = || pod_of("picky", "hostNetwork: true\n  nodeSelector: {disk: ssd}", "");
    world.want(&[picky()]).await;
    world.healthy("picky").await;
    world.start_with(|context| context.initial_labels.extend(label("hdd"))).await;
    world.want(&[picky()]).await;
    world.fake.until("it is stopped", |fake| fake.containers().is_empty()).await;
    refused(&world, "picky").await;
}

#[tokio::test(start_paused = true)]
async fn a_static_pod_without_room_is_refused_in_the_kubelets_words_and_takes_no_room() {
    let mut world = World::new();
    world.start_with(|context| context.allocatable = [("cpu".to_owned(), 2000), ("pods".to_owned(), 3)].into()).await;
    world.want(&[asking("a", "", "1500m"), asking("b", "", "99"), asking("c", "", "500m")]).await;
    world.healthy("a").await;
    world.healthy("c").await;
    let report = refused(&world, "b").await;
    let words = "Unexpected error while attempting to recover from admission failure: preemption: error finding a set of \
                 pods to preempt: no set of running pods found to reclaim resources: [(res: cpu, q: 98500), ]";
    assert_eq!(report.message, Some(format!("Pod was rejected: {words}")));
    assert_eq!(status(&world, "b").reason.as_deref(), Some("UnexpectedAdmissionError"));
    assert_eq!(world.running(), ["a-node1/main 0", "c-node1/main 0"]);
    world.want(&[asking("b", "", "2"), asking("c", "", "500m")]).await;
    refused(&world, "b").await;
    world.want(&[asking("b", "", "1500m"), asking("c", "", "500m")]).await;
    world.healthy("b").await;
}

#[tokio::test(start_paused = true)]
async fn a_bound_pod_that_is_not_critical_goes_for_a_static_one() {
    let mut world = World::new();
    world.start_with(|context| context.allocatable = [("cpu".to_owned(), 2000)].into()).await;
    let bound = |name: &str, cpu: &str, priority: i32| {
        let containers = json!([{"name": "main", "image": "x:1", "resources": {"requests": {"cpu": cpu}}}]);
        let metadata = json!({"name": format!("{name}-node1"), "namespace": "default", "uid": name});
        bound_with(metadata, json!({"hostNetwork": true, "priority": priority, "containers": containers}), json!({}))
    };
    let pods = || [bound("small", "400m", 0), bound("large", "1", 0), bound("system", "500m", 2_000_000_000)];
    // Without an API server they are begun with and no more: their services are not known.
    world.want(&pods()).await;
    world
        .until("they are begun with", |report| report.pods.iter().filter(|pod| pod.message.is_some()).count() == 3)
        .await;
    let with_static: Vec<StaticPod> = [asking("a", "", "1")].into_iter().chain(pods()).collect();
    world.want(&with_static).await;
    world.healthy("a").await;
    world.until("one goes, as few as will do", |report| find(report, "large").is_none()).await;
    assert_eq!(world.report().pods.len(), 3);
    assert_eq!(events(&world, "Preempting"), ["large-node1: Preempted in order to admit critical pod"]);
    let preempted = || world.agent.as_ref().unwrap().view.preempted.borrow().clone();
    assert_eq!(preempted(), ["large".to_owned()].into());
    let two: Vec<StaticPod> = [asking("a", "", "1"), asking("b", "", "3")].into_iter().chain(pods()).collect();
    world.want(&two).await;
    refused(&world, "b").await;
    assert_eq!(world.report().pods.len(), 4, "where it does not help no pod goes");
    world.want(&[asking("a", "", "1")]).await;
    world.until("the others are deleted", |report| report.pods.len() == 1).await;
    assert!(preempted().is_empty(), "what is not wanted any more is forgotten");
}

#[tokio::test(start_paused = true)]
async fn labels_that_only_the_api_server_knows_are_waited_for() {
    let mut world = World::new();
    world.start_with(|context| context.api = Some(Arc::default())).await;
    world.want(&[pod_of("picky", "hostNetwork: true\n  nodeSelector: {role: db}", "")]).await;
    refused(&world, "picky").await;
    let agent = world.agent.as_ref().unwrap();
    agent.view.node.set_labels([("role".to_owned(), "db".to_owned())].into());
    world.healthy("picky").await;
    agent.view.node.set_labels([("role".to_owned(), "web".to_owned())].into());
    world.settle().await;
    assert!(find(&world.report(), "picky").unwrap().healthy, "what was admitted stays so");
}

#[tokio::test(start_paused = true)]
async fn two_pods_of_one_host_port_do_not_run_beside_each_other() {
    let mut world = World::new();
    world.start().await;
    let on = |name: &str, port: u16| pod_of(name, "hostNetwork: true", &format!("ports: [{{containerPort: {port}}}]"));
    world.want(&[on("a", 80), on("b", 80), on("c", 81)]).await;
    world.healthy("a").await;
    world.healthy("c").await;
    refused(&world, "b").await;
    assert_eq!(status(&world, "b").reason.as_deref(), Some("NodePorts"));
    // A pod's own successor has its ports.
    let edited = pod_of("a", "hostNetwork: true", "args: [new]\n    ports: [{containerPort: 80}]");
    world.want(&[edited.clone(), on("c", 81)]).await;
    world.until("the edit runs", |r| find(r, "a").is_some_and(|pod| pod.healthy && pod.uid == edited.uid)).await;
}

/// Notes the hosts that are asked.
#[derive(Default)]
struct Hosts(Mutex<Vec<String>>);

#[async_trait]
impl probe::Checker for Hosts {
    async fn check(&self, target: &Target, _: Duration) -> Outcome {
        if let Target::Http { host, .. } | Target::Tcp { host, .. } | Target::Grpc { host, .. } = target {
            self.0.lock().unwrap().push(host.clone());
        }
        Outcome::Success { warning: None }
    }
}

#[tokio::test(start_paused = true)]
async fn probes_of_the_hosts_network_go_to_the_node_in_a_cluster_and_to_loopback_without_one() {
    for (in_cluster, expected) in [(true, "10.0.0.7"), (false, "127.0.0.1")] {
        for probe in ["httpGet: {path: /x, port: 1}", "tcpSocket: {port: 1}", "grpc: {port: 1}"] {
            let hosts = Arc::new(Hosts::default());
            let mut world = World { checker: Some(hosts.clone()), ..World::new() };
            let change = |context: &mut Context| {
                context.api = in_cluster.then(Arc::default);
                context.facts.host_ip = Some("10.0.0.7".into());
            };
            world.start_with(change).await;
            world.want(&[pod("a", &format!("readinessProbe: {{{probe}}}"))]).await;
            world.healthy("a").await;
            assert!(
                hosts.0.lock().unwrap().iter().all(|host| host == expected),
                "{probe} {in_cluster}: {hosts:?}",
                hosts = hosts.0
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn hooks_of_the_hosts_network_go_where_its_probes_go() {
    for (in_cluster, expected) in [(true, "127.0.0.2"), (false, "127.0.0.1")] {
        let mut world = World::new();
        let change = |context: &mut Context| {
            context.api = in_cluster.then(Arc::default);
            context.facts.host_ip = Some("127.0.0.2".into());
        };
        world.start_with(change).await;
        // Nothing listens there, and the report says where that was; the event does not.
        world.want(&[pod("a", "lifecycle: {postStart: {httpGet: {path: /x, port: 1}}}")]).await;
        let asked = format!("cannot ask {expected} at port 1: ");
        world.until("it says where", |r| serde_json::to_string(r).unwrap().contains(&asked)).await;
        let reported = events(&world, "FailedPostStartHook");
        assert!(reported[0].ends_with(": PostStartHook failed"), "{in_cluster}: {reported:?}");
    }
}
