//! 113 to 123: what is told of pods in events, in waiting, and on the pages of metrics.

use kubeboot::agent::events::Event;
use kubeboot::testing::real::image::FOREVER;
use kubeboot::testing::real::pod::Pod;
use kubeboot::testing::real::ports;
use serde_json::json;

use crate::node::Node;
use crate::reports::{id, restarts, waits};

/// The first event of a pod with this reason.
async fn event(node: &Node, pod: &str, reason: &str) -> Event {
    let of = |event: &Event| event.pod == format!("{pod}-node1") && event.reason == reason;
    let found = async || node.events().await.into_iter().find(of);
    node.eventually(&format!("{pod} has an event {reason}"), found).await
}

pub async fn b113_crashes_are_told_in_the_kubelets_words(node: &mut Node) {
    node.start();
    node.run(&Pod::new("web").script("exit 3"));
    let pod =
        node.pod("web", "backs off", |pod| waits(pod).starts_with("CrashLoopBackOff") && restarts(pod) >= 1).await;
    let of = format!("web-node1_default({})", pod.uid);
    assert_eq!(waits(&pod), format!("CrashLoopBackOff: back-off 10s restarting failed container=main pod={of}"));
    let told = event(node, "web", "BackOff").await;
    assert_eq!(told.message, format!("Back-off restarting failed container main in pod {of}"));
    assert_eq!(event(node, "web", "Started").await.message, "Container started");
}

pub async fn b114_probes_and_stops_are_told_in_the_kubelets_words(node: &mut Node) {
    node.start();
    let probe = |command: &str, limit: u32| {
        let exec = json!({"command": ["sh", "-c", command]});
        json!({"exec": exec, "periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": limit})
    };
    node.run(&Pod::new("late").script(FOREVER).main("livenessProbe", probe("sleep 9", 1)));
    // A busy machine may take longer than a second to run it.
    node.run(&Pod::new("bad").script(FOREVER).main("livenessProbe", probe("echo no such thing; exit 1", 30)));
    let late = event(node, "late", "Unhealthy").await;
    assert_eq!(late.message, "Liveness probe failed: command timed out: \"sh -c sleep 9\" timed out after 1s");
    assert_eq!(event(node, "bad", "Unhealthy").await.message, "Liveness probe failed: no such thing");
    let killed = event(node, "bad", "Killing").await;
    assert_eq!(killed.message, "Container main failed liveness probe, will be restarted");
}

pub async fn b115_images_and_volumes_that_fail_are_told_in_the_kubelets_words(node: &mut Node) {
    node.start();
    node.run(&Pod::new("name").main("image", "No Such"));
    node.run(&Pod::new("never").main("image", "127.0.0.1:1/none:1").main("imagePullPolicy", "Never"));
    let nowhere = node.path("nowhere");
    node.run(
        &Pod::new("volume")
            .spec("volumes", json!([{"name": "v", "hostPath": {"path": nowhere, "type": "File"}}]))
            .main("volumeMounts", json!([{"name": "v", "mountPath": "/v"}])),
    );
    let inspected = event(node, "name", "InspectFailed").await;
    let expected = "Failed to apply default image tag \"No Such\": couldn't parse image name \"No Such\": invalid \
                    reference format";
    assert_eq!(inspected.message, expected);
    assert_eq!(event(node, "name", "Failed").await.message, "Error: InvalidImageName");
    let never = event(node, "never", "ErrImageNeverPull").await;
    let expected = "Container image \"127.0.0.1:1/none:1\" is not present with pull policy of Never";
    assert_eq!(never.message, expected);
    let mount = event(node, "volume", "FailedMount").await;
    assert!(mount.message.starts_with("MountVolume.SetUp failed for volume \"v\" : hostPath type "), "{mount:?}");
}

pub async fn b116_metrics_tell_static_pods_apart_and_what_containers_use(node: &mut Node) {
    node.serve();
    node.start();
    node.up(&Pod::new("web")).await;
    let port = node.read_only_port();
    let page = |path: &str| ports::get(port, path).unwrap().1;
    let metrics = page("/metrics");
    for line in [
        "kubelet_desired_pods{static=\"true\"} 1",
        "kubelet_desired_pods{static=\"\"} 0",
        "kubelet_active_pods{static=\"true\"} 1",
        "kubelet_runtime_operations_total{operation_type=\"start_container\"} ",
        "kubelet_runtime_operations_duration_seconds_bucket{operation_type=\"start_container\",le=\"+Inf\"} ",
        "kubelet_pleg_relist_duration_seconds_count ",
    ] {
        assert!(metrics.lines().any(|found| found.starts_with(line)), "{line} is missing in\n{metrics}");
    }
    assert!(!metrics.contains("prober_probe_total") && page("/metrics/probes").contains("prober_probe_total"));
    let used = page("/metrics/cadvisor");
    for name in ["container_cpu_user_seconds_total", "container_threads", "container_memory_mapped_file"] {
        let of_main = format!("{name}{{container=\"main\",");
        assert!(used.contains(&of_main), "{of_main} is missing in\n{used}");
    }
    assert!(page("/metrics/slis").contains("kubernetes_healthcheck{name=\"syncloop\",type=\"healthz\"} 1"));
    let summary: serde_json::Value = serde_json::from_str(&page("/stats/summary")).unwrap();
    assert_eq!(summary["node"]["systemContainers"][0]["name"], "kubelet");
}

pub async fn b123_pods_that_begin_again_are_counted_by_where_they_come_from(node: &mut Node) {
    node.serve();
    node.start();
    let web = Pod::new("web").script("trap 'sleep 2; exit 0' TERM; while :; do sleep 0.1; done");
    let old = node.up(&web).await;
    let line = |of: &str| format!("kubelet_restarted_pods_total{{static=\"{of}\"}} ");
    let port = node.read_only_port();
    let counted = || {
        let page = ports::get(port, "/metrics").unwrap().1;
        ["true", ""].map(|of| page.lines().find_map(|found| found.strip_prefix(&line(of)).map(str::to_owned)))
    };
    assert_eq!(counted(), [Some("0".to_owned()), Some("0".to_owned())]);
    node.delete("web.yaml");
    node.until("it is being ended", |r| r.pods.iter().any(|pod| pod.terminating)).await;
    node.run(&web);
    node.pod("web", "runs again", |pod| pod.ready && !pod.terminating && id(pod) != id(&old)).await;
    assert_eq!(counted(), [Some("1".to_owned()), Some("0".to_owned())]);
}
