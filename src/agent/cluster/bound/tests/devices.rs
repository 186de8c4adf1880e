//! Bound pods that ask for devices of a plugin.

use super::*;
use crate::agent::devices::tests::plugin::plugged;

const DEV: &str = "example.com/dev";

fn asking(count: u32) -> Value {
    let limits = json!({DEV: count.to_string()});
    json!({"containers": [
        {"name": "main", "image": "x:1", "resources": {"limits": limits.clone(), "requests": limits}}]})
}

#[tokio::test]
async fn a_bound_pod_is_given_devices_and_fails_where_there_are_none() {
    let mut cluster = Cluster::new().await;
    let context = Arc::clone(&cluster.agent.as_ref().unwrap().0);
    let plugin = plugged(&context, &["a"], DEV).await;
    cluster.bind("one", asking(1));
    cluster.ready("one").await;
    assert_eq!(plugin.calls()[2..], ["Allocate a"]);
    let health = |health: &str| {
        let resources = json!([{"resourceID": "a", "health": health}]);
        json!([{"name": DEV, "resources": resources}])
    };
    let shown = || cluster.pod("one")["status"]["containerStatuses"][0]["allocatedResourcesStatus"].clone();
    cluster.until("its device is shown", || (shown() == health("Healthy")).then_some(())).await;

    cluster.bind("two", asking(1));
    let two = cluster.phase("two", "Failed").await;
    assert_eq!(two["reason"], "UnexpectedAdmissionError");
    let words = format!("requested number of devices unavailable for {DEV}. Requested: 1, Available: 0");
    let message = format!("Allocate failed due to {words}, which is unexpected");
    assert_eq!(two["message"], format!("Pod was rejected: {message}"));
    let events = context.events.since(0);
    let reported = events.iter().filter(|event| event.reason == "UnexpectedAdmissionError");
    assert_eq!(
        reported.map(|event| (event.pod.as_str(), event.message.as_str())).collect::<Vec<_>>(),
        [("two", message.as_str())]
    );
    assert!(cluster.runtime.find("two", "main").is_none());

    plugin.set(&[("a", false)]);
    cluster.until("it is ill", || (shown() == health("Unhealthy")).then_some(())).await;
    assert_eq!(cluster.pod("one")["status"]["phase"], "Running");
    plugin.set(&[("a", true)]);
    cluster.until("it is well", || (shown() == health("Healthy")).then_some(())).await;

    // Another agent finds it as it is, though the plugin has not registered again yet.
    drop(context);
    cluster.start().await;
    let context = Arc::clone(&cluster.agent.as_ref().unwrap().0);
    context.devices.restore();
    cluster.ready("one").await;
    let plugin = plugged(&context, &["a"], DEV).await;
    cluster.delete("one", 1);
    cluster.until("it is gone", || cluster.pod("one").is_null().then_some(())).await;
    cluster.bind("three", asking(1));
    let decided = || Some(cluster.pod("three")["status"].clone()).filter(|status| status["startTime"].is_string());
    let three = cluster.until("the third one is decided", decided).await;
    assert_eq!(three["message"], Value::Null, "what the first one had is free: {three}");
    cluster.ready("three").await;
    assert_eq!(plugin.calls()[2..], ["Allocate a"]);
}
