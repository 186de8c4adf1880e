//! How bound pods end, and what the API server hears of it.

use super::*;
use crate::agent::volumes::termination_file;
use crate::runtime::PodNetwork;

/// Takes so long to end at its signal, and ends with this code.
fn works(milliseconds: u64, code: i64) -> Behaviour {
    let takes = Duration::from_millis(milliseconds);
    Behaviour { sigterm_takes: takes, sigterm_exit_code: code, ..Behaviour::default() }
}

/// Ends by itself with 0.
fn ends() -> Behaviour {
    Behaviour { exits_after: Some((Duration::from_millis(50), 0)), ..Behaviour::default() }
}

/// The API's status of a container.
fn container<'a>(status: &'a Value, name: &str) -> &'a Value {
    let all = ["containerStatuses", "initContainerStatuses"].into_iter().filter_map(|list| status[list].as_array());
    all.flatten().find(|one| one["name"] == name).unwrap_or(&Value::Null)
}

impl Cluster {
    /// Lets a container leave this message.
    fn leaves(&self, uid: &str, container: &str, message: &str) {
        let file = termination_file(&self.root.path().join("root"), uid, container, 0);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        crate::host::fs::write_file(&file, message.as_bytes(), 0o600).unwrap();
    }

    /// Every status that was sent, in order.
    fn sent(&self) -> Vec<Value> {
        self.api.bodies("PATCH").into_iter().map(|body| body["status"].clone()).collect()
    }

    /// Panics where a pod was called ended while a container ran, or without an address.
    fn assert_no_early_end(&self) {
        for status in self.sent() {
            let ended = status["phase"] == "Succeeded" || status["phase"] == "Failed";
            let all = [&status["containerStatuses"], &status["initContainerStatuses"]];
            let runs =
                all.into_iter().filter_map(Value::as_array).flatten().any(|one| one["state"]["running"].is_object());
            assert!(!(ended && runs), "{status:#}");
            assert!(!ended || status["podIP"].is_string(), "{status:#}");
        }
    }
}

#[tokio::test]
async fn a_pod_ends_with_its_last_container_and_its_last_status_has_all_that_they_left() {
    let cluster = Cluster::new().await;
    cluster.runtime.set_pod_network(PodNetwork::Ready);
    cluster.runtime.behave("main", ends());
    cluster.runtime.behave("side", works(300, 7));
    let side = json!([{"name": "side", "image": "x:1", "restartPolicy": "Always"}]);
    let uid = cluster.bind("p", json!({"hostNetwork": false, "restartPolicy": "Never", "initContainers": side}));
    let status = cluster
        .until("its container ends", || {
            let status = cluster.pod("p")["status"].clone();
            container(&status, "main")["state"]["terminated"].is_object().then_some(status)
        })
        .await;
    assert_eq!(status["phase"], "Running", "its sidecar works: {status:#}");
    cluster.leaves(&uid, "side", "the side's last word");
    let status = cluster.phase("p", "Succeeded").await;
    let ended = &container(&status, "side")["state"]["terminated"];
    assert_eq!((&ended["exitCode"], &ended["message"]), (&json!(7), &json!("the side's last word")));
    assert!(status["podIP"].as_str().unwrap().starts_with("172.17.0.") && status["podIPs"].is_array(), "{status:#}");
    cluster.assert_no_early_end();
}

#[tokio::test]
async fn a_deleted_pod_tells_how_each_container_ended_before_it_goes() {
    let cluster = Cluster::new().await;
    cluster.runtime.behave("main", works(40, 3));
    for n in 0..10 {
        let name = format!("p{n}");
        let uid = cluster.bind(&name, json!({}));
        cluster.ready(&name).await;
        cluster.leaves(&uid, "main", "why");
        cluster.delete(&name, 7);
        cluster.until("it is gone", || cluster.pod(&name).is_null().then_some(())).await;
        let last = cluster.sent().pop().unwrap();
        let ended = &container(&last, "main")["state"]["terminated"];
        assert_eq!(
            (&last["phase"], &ended["exitCode"], &ended["message"]),
            (&json!("Failed"), &json!(3), &json!("why"))
        );
    }
    cluster.assert_no_early_end();
}

#[tokio::test]
async fn a_deleted_pod_is_ready_by_its_probe_until_it_has_ended() {
    let cluster = Cluster::new().await;
    cluster.runtime.behave("main", works(600, 0));
    cluster.bind("p", json!({}));
    cluster.ready("p").await;
    let before = cluster.sent().len();
    cluster.delete("p", 7);
    cluster.until("it is stopped", || (!cluster.runtime.calls_of("stop").is_empty()).then_some(())).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    for status in &cluster.sent()[before..] {
        assert_eq!(
            (&status["phase"], container(status, "main")["ready"] == true),
            (&json!("Running"), true),
            "{status:#}"
        );
    }
    cluster.until("it is gone", || cluster.pod("p").is_null().then_some(())).await;
    let last = cluster.sent().pop().unwrap();
    assert_eq!((&last["phase"], &container(&last, "main")["ready"]), (&json!("Succeeded"), &json!(false)));
}

#[tokio::test]
async fn a_pod_whose_time_is_over_runs_until_its_containers_have_ended() {
    let cluster = Cluster::new().await;
    cluster.runtime.behave("main", works(500, 9));
    cluster.bind("p", json!({"activeDeadlineSeconds": 1}));
    let status = cluster.phase("p", "Failed").await;
    assert_eq!(
        (&status["reason"], &container(&status, "main")["state"]["terminated"]["exitCode"]),
        (&json!("DeadlineExceeded"), &json!(9))
    );
    cluster.assert_no_early_end();
    assert!(cluster.sent().iter().all(|sent| sent["phase"] == "Failed" || sent["reason"].is_null()));
    cluster.delete("p", 30);
    cluster.until("it is deleted", || cluster.pod("p").is_null().then_some(())).await;
    assert_eq!(cluster.sent().pop().unwrap()["reason"], "DeadlineExceeded", "deleted it still says why");
}

#[tokio::test]
async fn what_a_pod_that_was_called_ended_leaves_later_is_told_and_nothing_known_is_lost() {
    let mut cluster = Cluster::new().await;
    cluster.runtime.behave("main", works(200, 4));
    let uid = cluster.bind("p", json!({"restartPolicy": "Never"}));
    cluster.ready("p").await;
    cluster.leaves(&uid, "main", "late");
    let status = json!({"phase": "Failed", "reason": "Evicted", "message": "by another"});
    cluster.api.change(&format!("{PODS}/p"), &json!({"status": status}));
    let ended = |status: &Value| container(status, "main")["state"]["terminated"].clone();
    let reported = || Some(cluster.pod("p")["status"].clone()).filter(|status| ended(status).is_object());
    let status = cluster.until("its end is told", reported).await;
    assert_eq!((&status["phase"], &status["reason"]), (&json!("Failed"), &json!("Evicted")));
    assert_eq!((&ended(&status)["exitCode"], &ended(&status)["message"]), (&json!(4), &json!("late")));
    // Its container is gone when the next agent looks.
    let id = cluster.runtime.find("p", "main").unwrap().id;
    cluster.kill().await;
    cluster.runtime.destroy(&id);
    cluster.start().await;
    let (context, ..) = cluster.agent.as_ref().unwrap();
    let known = || context.board.pods().iter().any(|one| one.looked).then_some(());
    cluster.until("it is looked at", known).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(ended(&cluster.pod("p")["status"]), ended(&status));
}

#[tokio::test]
async fn what_never_started_in_a_deleted_pod_has_failed() {
    let cluster = Cluster::new().await;
    cluster.bind("p", json!({"containers": [{"name": "main", "image": "absent:1", "imagePullPolicy": "Never"}]}));
    let waits = || (container(&cluster.pod("p")["status"], "main")["state"]["waiting"].is_object()).then_some(());
    cluster.until("it waits", waits).await;
    cluster.delete("p", 7);
    cluster.until("it is gone", || cluster.pod("p").is_null().then_some(())).await;
    let last = cluster.sent().pop().unwrap();
    let ended = &container(&last, "main")["state"]["terminated"];
    assert_eq!((&last["phase"], &ended["exitCode"]), (&json!("Failed"), &json!(137)));
    assert_eq!(ended["message"], "The container could not be located when the pod was terminated");
}

#[tokio::test]
async fn each_condition_says_of_which_generation_it_is() {
    let cluster = Cluster::new().await;
    cluster.bind("p", json!({}));
    cluster.api.change(&format!("{PODS}/p"), &json!({"metadata": {"generation": 3}}));
    cluster.ready("p").await;
    let generation = |status: &Value| {
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        !conditions.is_empty() && conditions.iter().all(|one| one["observedGeneration"] == 3)
    };
    cluster.until("all are of it", || generation(&cluster.pod("p")["status"]).then_some(())).await;
}

#[tokio::test]
async fn a_pod_that_goes_for_another_has_failed_when_its_containers_have_ended() {
    let cluster = Cluster::new().await;
    cluster.runtime.behave("main", works(300, 5));
    let uid = cluster.bind("p", json!({}));
    cluster.ready("p").await;
    let (context, ..) = cluster.agent.as_ref().unwrap();
    context.preempted.send_modify(|uids| uids.extend([uid]));
    let status = cluster.phase("p", "Failed").await;
    assert_eq!(status["reason"], "Preempting");
    assert_eq!(container(&status, "main")["state"]["terminated"]["exitCode"], 5);
    cluster.assert_no_early_end();
}
