//! Pods that ask for devices of a plugin. The clock is the machine's: plugins are at real sockets.

use super::*;
use crate::agent::devices::tests::plugin::{FakePlugin, plugged};

const DEV: &str = "test.device/some";

/// A pod that asks for so many devices.
fn asking(name: &str, count: u32) -> StaticPod {
    pod(name, &format!("resources: {{limits: {{{DEV}: {count}}}}}"))
}

impl World {
    fn view(&self) -> &Arc<Context> {
        &self.agent.as_ref().unwrap().view
    }

    /// Starts an agent at which a plugin with these devices registers.
    async fn start_with_plugin(&mut self, ids: &[&str]) -> Arc<FakePlugin> {
        self.start().await;
        self.view().devices.restore();
        plugged(self.view(), ids, DEV).await
    }
}

#[tokio::test]
async fn a_pod_is_given_devices_before_it_runs_and_is_refused_where_there_are_none() {
    let mut world = World::new();
    let plugin = world.start_with_plugin(&["a", "b"]).await;
    world.want(&[asking("one", 2), pod("plain", "")]).await;
    world.healthy("one").await;
    world.healthy("plain").await;
    assert_eq!(plugin.calls()[2..], ["Allocate a b"]);
    let made = world.fake.containers().into_iter().find(|one| one.name.pod == "one-node1" && !one.is_sandbox).unwrap();
    assert_eq!(made.annotations["vendor.com/ids"], "a,b");

    world.want(&[asking("one", 2), pod("plain", ""), asking("two", 1)]).await;
    let is_refused = |report: &HealthReport| find(report, "two").is_some_and(|pod| pod.phase == Phase::Failed);
    let report = world.until("refused", is_refused).await;
    let words = format!(
        "Allocate failed due to requested number of devices unavailable for {DEV}. Requested: 1, Available: 0, which is \
         unexpected"
    );
    assert_eq!(find(&report, "two").unwrap().message, Some(format!("Pod was rejected: {words}")));
    let reported = world.agent.as_ref().unwrap().events.since(0);
    assert!(reported.iter().any(|event| event.reason == "UnexpectedAdmissionError" && event.message == words));
    assert!(find(&report, "one").unwrap().healthy && find(&report, "plain").unwrap().healthy);

    // Once the first one is gone what it had is free.
    world.want(&[]).await;
    world.until("gone", |report| report.pods.is_empty()).await;
    world.want(&[asking("three", 2)]).await;
    world.healthy("three").await;
}

#[tokio::test]
async fn a_pod_that_runs_keeps_its_devices_when_the_agent_is_restarted_without_its_plugin() {
    let mut world = World::new();
    let plugin = world.start_with_plugin(&["a"]).await;
    world.want(&[asking("one", 1)]).await;
    world.healthy("one").await;
    let before = world.running();
    plugin.stop();
    world.start().await;
    world.view().devices.restore();
    world.want(&[asking("one", 1)]).await;
    world.healthy("one").await;
    assert_eq!(world.running(), before);
    let plugin = world.start_with_plugin(&["a"]).await;
    world.want(&[asking("one", 1), asking("two", 1)]).await;
    let is_refused = |report: &HealthReport| find(report, "two").is_some_and(|pod| pod.phase == Phase::Failed);
    world.until("the device is the other one's", is_refused).await;
    assert!(plugin.calls().iter().all(|call| !call.starts_with("Allocate")));
}
