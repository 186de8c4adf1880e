use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{NodeCondition, NodeStatus};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::machine::Machine;
use super::status::{Seen, differs, patch, status};
use crate::agent::context::Context;
use crate::agent::devices::Amounts;
use crate::agent::devices::tests::plugin::plugged;
use crate::agent::options::{AgentOptions, NodeOptions};
use crate::agent::probe::Prober;
use crate::runtime::{ContainerRuntime, PodNetwork};
use crate::testing::api::FakeApi;
use crate::testing::runtime::FakeRuntime;

fn machine() -> Machine {
    Machine {
        cpus: 4,
        memory_kib: 8 << 20,
        storage_bytes: 1000 << 20,
        huge_pages: BTreeMap::from([(1 << 20, 0), (2048, 512)]),
        ..Machine::default()
    }
}

fn seen<'a>(machine: &'a Machine, options: &'a NodeOptions, network: &'a PodNetwork) -> Seen<'a> {
    Seen {
        machine,
        devices: const { &BTreeMap::new() },
        options,
        name: "cp1",
        addresses: &[],
        runtime: "docker 20.10.24",
        runtime_trouble: None,
        network,
        disk_trouble: None,
        available_memory: Some(1 << 20),
        version: "v1.20.2",
        minor: 20,
        port: Some(10250),
        images: &[],
        now: Timestamp::from_second(100).unwrap(),
    }
}

fn of<'s>(status: &'s NodeStatus, type_: &str) -> &'s NodeCondition {
    status.conditions.as_ref().unwrap().iter().find(|one| one.type_ == type_).unwrap()
}

fn words(condition: &NodeCondition) -> (&str, &str) {
    (condition.status.as_str(), condition.reason.as_deref().unwrap())
}

#[test]
fn devices_of_plugins_are_the_nodes_and_a_plugin_that_is_gone_has_none() {
    let (machine, options) = (machine(), AgentOptions::new("cp1").node);
    let of = |amounts: [usize; 2]| {
        let [capacity, allocatable] = amounts;
        BTreeMap::from([("example.com/dev".to_owned(), Amounts { capacity, allocatable })])
    };
    let plain = status(&seen(&machine, &options, &PodNetwork::Ready), &NodeStatus::default());
    let mut before = plain;
    for amounts in [[2, 2], [2, 0], [0, 0]] {
        let devices = of(amounts);
        let now = status(&Seen { devices: &devices, ..seen(&machine, &options, &PodNetwork::Ready) }, &before);
        assert!(differs(&before, &now), "{amounts:?}: it is told at once");
        let sent = patch(&before, &now).unwrap();
        let of = |list: &str| sent["status"][list]["example.com/dev"].clone();
        assert_eq!([of("capacity"), of("allocatable")], amounts.map(|amount| json!(amount.to_string())));
        before = now;
    }
}

#[tokio::test]
async fn the_nodes_resources_follow_the_devices_of_a_plugin_at_once() {
    let (api, client) = FakeApi::serve().await;
    let version = json!({"metadata": {"name": "version"}, "major": "1", "minor": "36", "gitVersion": "v1.36.2",
        "gitCommit": "", "gitTreeState": "", "buildDate": "", "goVersion": "", "compiler": "", "platform": ""});
    api.put("", version);
    let root = tempfile::tempdir().unwrap();
    let mut options = AgentOptions::new("node1");
    options.root_dir = root.path().join("root");
    options.node.kubeconfig = Some("/nonexistent".into());
    // Far more than the test takes: nothing but what is sent changes the status.
    options.node.status_update = Duration::from_secs(3600);
    let (end, runtime) = (CancellationToken::new(), Arc::new(FakeRuntime::new()) as Arc<dyn ContainerRuntime>);
    let checker = Arc::new(Prober::new(Arc::clone(&runtime)));
    let context = Context::new(options, runtime, checker, end.clone());
    context.board.set_runtime(Some("docker 1".to_owned()));
    let server = context.api.clone().unwrap();
    server.set(client);
    let updater = tokio::spawn(super::updater::keep(context.for_cluster().unwrap()));
    let until = async |expected: Value| {
        let shown = || {
            let status = api.get("/api/v1/nodes/node1")["status"].clone();
            json!([status["capacity"]["example.com/dev"], status["allocatable"]["example.com/dev"]])
        };
        let found = async {
            while shown() != expected || !api.get("/api/v1/nodes/node1").is_object() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let found = tokio::time::timeout(Duration::from_secs(20), found).await;
        found.unwrap_or_else(|_| panic!("{} instead of {expected}: {:?}", shown(), api.requests()));
    };
    until(json!([null, null])).await;
    let plugin = plugged(&context, &["a", "b"], "example.com/dev").await;
    until(json!(["2", "2"])).await;
    plugin.set(&[("a", true), ("b", false)]);
    until(json!(["2", "1"])).await;
    plugin.stop();
    until(json!(["2", "0"])).await;
    updater.abort();
    end.cancel();
}

#[test]
fn what_pods_can_have_is_what_there_is_without_what_is_kept() {
    let mut options = AgentOptions::new("cp1").node;
    options.reserved = BTreeMap::from([("cpu".to_owned(), 100), ("memory".to_owned(), 1 << 20)]);
    let machine = machine();
    let made = status(&seen(&machine, &options, &PodNetwork::Ready), &NodeStatus::default());
    let text = |list: &Option<BTreeMap<_, _>>| serde_json::to_value(list).unwrap();
    assert_eq!(
        text(&made.capacity),
        json!({"cpu": "4", "memory": "8388608Ki", "ephemeral-storage": "1024000Ki", "pods": "110",
               "hugepages-1Gi": "0", "hugepages-2Mi": "1Gi"})
    );
    assert_eq!(
        text(&made.allocatable),
        json!({"cpu": "3900m", "memory": "7236608Ki", "ephemeral-storage": "943718400", "pods": "110",
               "hugepages-1Gi": "0", "hugepages-2Mi": "1Gi"})
    );
}

#[test]
fn a_node_is_ready_in_the_kubelets_words_and_has_no_pod_network_on_docker() {
    let (machine, options) = (machine(), AgentOptions::new("cp1").node);
    let made = status(&seen(&machine, &options, &PodNetwork::Absent), &NodeStatus::default());
    assert_eq!(words(of(&made, "Ready")), ("True", "KubeletReady"));
    assert_eq!(words(of(&made, "NetworkUnavailable")), ("True", "NoPodNetwork"));
    assert_eq!(words(of(&made, "MemoryPressure")), ("False", "KubeletHasSufficientMemory"));
    let info = made.node_info.clone().unwrap();
    assert_eq!(info.container_runtime_version, "docker://20.10.24");
    assert_eq!(made.declared_features, None, "no API server of that age asks for it");
    assert_eq!((info.kubelet_version.as_str(), info.kube_proxy_version.as_str()), ("v1.20.2", "v1.20.2"));
    let newer = Seen { minor: 36, ..seen(&machine, &options, &PodNetwork::Ready) };
    let made = status(&newer, &NodeStatus::default());
    assert_eq!(made.node_info.as_ref().unwrap().kube_proxy_version, "");
    assert_eq!(made.declared_features, Some(vec!["ExtendWebSocketsToKubelet".to_owned()]));
    let forgotten = NodeStatus { declared_features: None, ..made.clone() };
    assert!(!differs(&forgotten, &made), "an API server that keeps it not is not told each time");
    let unserved = status(&Seen { port: None, ..newer }, &NodeStatus::default());
    assert_eq!(unserved.declared_features, None);
    assert!(!made.conditions.unwrap().iter().any(|one| one.type_ == "NetworkUnavailable"));
}

#[test]
fn trouble_shows_in_the_condition_it_belongs_to() {
    let (machine, options) = (machine(), AgentOptions::new("cp1").node);
    let cni =
        PodNetwork::NotReady { reason: "NetworkPluginNotReady".into(), message: "cni plugin not initialized".into() };
    let made = status(&seen(&machine, &options, &cni), &NodeStatus::default());
    let ready = of(&made, "Ready");
    assert_eq!(words(ready), ("False", "KubeletNotReady"));
    assert_eq!(
        ready.message.as_deref().unwrap(),
        "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:cni plugin not \
         initialized"
    );
    let bad = Seen {
        runtime_trouble: Some("cannot reach it"),
        disk_trouble: Some("/: full"),
        available_memory: Some(1),
        ..seen(&machine, &options, &PodNetwork::Absent)
    };
    let made = status(&bad, &NodeStatus::default());
    assert_eq!(of(&made, "Ready").message.as_deref(), Some("container runtime is down: cannot reach it"));
    assert_eq!(words(of(&made, "MemoryPressure")), ("True", "KubeletHasInsufficientMemory"));
    assert_eq!(words(of(&made, "DiskPressure")), ("True", "KubeletHasDiskPressure"));
}

#[test]
fn a_transition_keeps_its_time_until_the_next_one_and_heartbeats_are_no_change() {
    let (machine, options) = (machine(), AgentOptions::new("cp1").node);
    let seen = seen(&machine, &options, &PodNetwork::Absent);
    let first = status(&seen, &NodeStatus::default());
    let later = Timestamp::from_second(200).unwrap();
    let second = status(&Seen { now: later, ..seen.clone() }, &first);
    assert!(!differs(&first, &second));
    assert_eq!(of(&second, "Ready").last_transition_time, of(&first, "Ready").last_transition_time);
    assert_eq!(of(&second, "Ready").last_heartbeat_time.as_ref().unwrap().0, later);
    let third = status(&Seen { now: later, runtime_trouble: Some("x"), ..seen }, &first);
    assert!(differs(&first, &third));
    assert_eq!(of(&third, "Ready").last_transition_time.as_ref().unwrap().0, later);
    assert_eq!(of(&third, "DiskPressure").last_transition_time, of(&first, "DiskPressure").last_transition_time);
}

#[test]
fn what_others_wrote_is_no_difference_and_stays() {
    let (machine, options) = (machine(), AgentOptions::new("cp1").node);
    let seen = seen(&machine, &options, &PodNetwork::Ready);
    let mut there = status(&seen, &NodeStatus::default());
    let mut theirs = of(&there, "Ready").clone();
    theirs.type_ = "NetworkUnavailable".into();
    theirs.status = "False".into();
    theirs.reason = Some("FlannelIsUp".into());
    there.conditions.as_mut().unwrap().push(theirs);
    let extended = k8s_openapi::apimachinery::pkg::api::resource::Quantity("1".into());
    there.capacity.as_mut().unwrap().insert("example.org/gpu".into(), extended);
    let new = status(&seen, &there);
    assert!(!differs(&there, &new));
    let sent = patch(&there, &new).unwrap();
    assert!(!sent.to_string().contains("NetworkUnavailable"));
    assert_eq!(sent["status"]["addresses"][1], json!({"$patch": "replace"}));
    let docker = status(&Seen { network: &PodNetwork::Absent, ..seen.clone() }, &new);
    assert!(differs(&docker, &new), "the agent's own condition is of another day");
    let sent = patch(&docker, &new).unwrap();
    let conditions = sent["status"]["conditions"].as_array().unwrap();
    assert_eq!(conditions.last().unwrap(), &json!({"$patch": "delete", "type": "NetworkUnavailable"}));
}
