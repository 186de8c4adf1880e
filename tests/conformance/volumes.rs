//! 100 to 107: what becomes of a pod's volumes, what is refused, names, and containers that come later.

use std::fs;

use kubeboot::agent::control::report::{Phase, PodReport};
use kubeboot::testing::api::FakeApi;
use kubeboot::testing::real::image::{FOREVER, IMAGE};
use kubeboot::testing::real::pod::Pod;
use serde_json::{Value, json};

use crate::api::kubeconfig;
use crate::node::Node;
use crate::reports::{id, id_of, restarts, runs, waits};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const PODS: &str = "/api/v1/namespaces/default/pods";

/// An API server for the node's agent, which looks after its files each second.
async fn api(node: &mut Node) -> FakeApi {
    let (api, _) = FakeApi::serve().await;
    kubeconfig(node, api.port());
    node.config.push("syncFrequency: 1s".to_owned());
    api
}

/// Binds a pod to the node; reports know it without the node's suffix.
fn bind(api: &FakeApi, pod: &Pod) -> String {
    let mut object = pod.value();
    object["metadata"]["name"] = json!(format!("{}-node1", pod.name()));
    object["metadata"]["namespace"] = json!("default");
    object["spec"]["nodeName"] = json!("node1");
    api.put(PODS, object)
}

fn mounts(names: &[&str]) -> Value {
    names.iter().map(|name| json!({"name": name, "mountPath": format!("/{name}")})).collect()
}

pub async fn b100_what_is_taken_back_goes_from_the_volumes(node: &mut Node) {
    let api = api(node).await;
    api.put(MAPS, json!({"metadata": {"name": "m"}, "data": {"a": "1", "b": "2"}}));
    api.put(SECRETS, json!({"metadata": {"name": "s"}, "data": {"k": "MQ=="}}));
    let sources = json!([{"configMap": {"name": "m"}}, {"secret": {"name": "s", "optional": true}}]);
    let volumes = json!([{"name": "map", "configMap": {"name": "m"}}, {"name": "all", "projected": {"sources": sources}},
        {"name": "secret", "secret": {"secretName": "s", "optional": true}}]);
    let pod = Pod::new("web").spec("volumes", volumes).main("volumeMounts", mounts(&["map", "secret", "all"]));
    bind(&api, &pod);
    node.start();
    let web = node.ready("web").await;
    let seen = || ["/map", "/secret", "/all"].map(|path| node.exec(id(&web), &["ls", path]).replace('\n', " "));
    assert_eq!(seen(), ["a b", "k", "a b k"]);
    api.change(&format!("{MAPS}/m"), &json!({"data": {"a": null}}));
    let look = || std::future::ready((seen() == ["b", "k", "b k"]).then_some(()));
    node.eventually("the key has gone", look).await;
    api.remove(&format!("{SECRETS}/s"));
    let look = || std::future::ready((seen() == ["b", "", "b"]).then_some(()));
    node.eventually("the secret has gone", look).await;
    assert_eq!(restarts(&node.ready("web").await), 0);
}

pub async fn b101_a_pod_that_waits_for_its_volumes_has_nothing_yet(node: &mut Node) {
    let api = api(node).await;
    let pod = |name: &str, volume: Value| {
        // Two containers need a sandbox.
        let pod = Pod::new(name).container("other", FOREVER).spec("volumes", json!([volume]));
        pod.main("volumeMounts", mounts(&["v"]))
    };
    bind(&api, &pod("map", json!({"name": "v", "configMap": {"name": "m"}})));
    let missing = node.path("missing");
    node.run(&pod("disk", json!({"name": "v", "hostPath": {"path": missing, "type": "Directory"}})));
    node.start();
    let held = |pod: &PodReport| waits(pod).starts_with("ContainerCreating:") && pod.message.is_some();
    for name in ["map", "disk"] {
        node.pod(name, "is held back", held).await;
    }
    assert_eq!(node.all().await, [], "neither a sandbox nor a container");
    let events = node.kubeboot(&["agent", "events"]);
    assert!(events.contains("FailedMount") && !events.contains("Pulled"), "{events}");
    api.put(MAPS, json!({"metadata": {"name": "m"}, "data": {"a": "1"}}));
    fs::create_dir(&missing).unwrap();
    for name in ["map", "disk"] {
        node.ready(name).await;
    }
}

pub async fn b102_memory_of_a_pod_that_has_ended_is_given_back(node: &mut Node) {
    let volumes = json!([{"name": "mem", "emptyDir": {"medium": "Memory"}}, {"name": "disk", "emptyDir": {}}]);
    let pod = Pod::new("job").spec("restartPolicy", "Never").spec("volumes", volumes);
    let pod = pod.main("volumeMounts", mounts(&["mem", "disk"]));
    let pod = pod.script("echo secret > /mem/file; echo done > /dev/termination-log");
    node.run(&pod);
    node.start();
    let job = node.pod("job", "has ended", |pod| pod.phase == Phase::Succeeded).await;
    let dir = node.path("root").join("pods").join(&job.uid);
    let look = || std::future::ready((!dir.join("volumes").exists()).then_some(()));
    node.eventually("its volumes have gone", look).await;
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&job.uid), "{mounts}");
    assert!(dir.join("containers").is_dir(), "what it said stays");
}

pub async fn b103_sysctls_are_set_where_they_are_safe_or_allowed(node: &mut Node) {
    node.config.push("allowedUnsafeSysctls: [kernel.msg*]".to_owned());
    let pod = |name: &str, sysctl: &str, value: &str| {
        let context = json!({"sysctls": [{"name": sysctl, "value": value}]});
        Pod::new(name).own_network().spec("securityContext", context)
    };
    node.run(&pod("allowed", "kernel.msgmax", "9123"));
    node.run(&pod("safe", "net/ipv4/ip_unprivileged_port_start", "81"));
    node.run(&pod("refused", "net.core.somaxconn", "100"));
    node.run(&pod("hosts", "kernel.msgmnb", "100").spec("hostIPC", true));
    node.start();
    for (name, path, value) in [
        ("allowed", "/proc/sys/kernel/msgmax", "9123"),
        ("safe", "/proc/sys/net/ipv4/ip_unprivileged_port_start", "81"),
    ] {
        assert_eq!(node.exec(id(&node.ready(name).await), &["cat", path]), value);
    }
    for (name, words) in [
        ("refused", "\"net.core.somaxconn\" not allowlisted"),
        ("hosts", "\"kernel.msgmnb\" not allowed with host IPC enabled"),
    ] {
        let pod = node.pod(name, "is refused", |pod| pod.phase == Phase::Failed).await;
        assert_eq!(waits(&pod), format!("SysctlForbidden: Pod was rejected: forbidden sysctl: {words}"));
    }
    assert_eq!(node.containers().await.len(), 2);
}

pub async fn b104_a_profile_of_app_armor_needs_a_machine_that_has_it(node: &mut Node) {
    let has = fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with('Y'));
    node.run(&Pod::new("web").spec("securityContext", json!({"appArmorProfile": {"type": "RuntimeDefault"}})));
    node.start();
    if has {
        node.ready("web").await;
        return;
    }
    let web = node.pod("web", "is refused", |pod| pod.phase == Phase::Failed).await;
    let words = "Pod was rejected: Cannot enforce AppArmor: AppArmor is not enabled on the host";
    assert_eq!(waits(&web), format!("AppArmor: {words}"));
}

pub async fn b105_memory_has_the_mode_and_group_that_the_kubelet_gives_it(node: &mut Node) {
    let volumes = json!([{"name": "mem", "emptyDir": {"medium": "Memory"}}]);
    let pod = |name: &str| Pod::new(name).spec("volumes", volumes.clone()).main("volumeMounts", mounts(&["mem"]));
    node.run(&pod("plain"));
    node.run(&pod("group").spec("securityContext", json!({"fsGroup": 4242})));
    node.start();
    for (name, expected) in [("plain", "1777 0"), ("group", "3777 4242")] {
        let pod = node.ready(name).await;
        assert_eq!(node.exec(id(&pod), &["stat", "-c", "%a %g", "/mem"]), expected, "{name}");
    }
}

pub async fn b106_a_host_name_may_have_its_domain_where_it_fits(node: &mut Node) {
    let named = |pod: Pod| pod.own_network().spec("subdomain", "sub").spec("setHostnameAsFQDN", true);
    let long = "x".repeat(60);
    node.run(&named(Pod::new("short").spec("hostname", "web")));
    node.run(&named(Pod::new("long").spec("hostname", long.as_str())));
    node.run(&Pod::new(&long).own_network());
    node.start();
    let short = node.ready("short").await;
    let name = |pod: &PodReport| node.exec(id(pod), &["cat", "/proc/sys/kernel/hostname"]);
    assert_eq!(name(&short), "web.sub.default.svc.", "no domain of a cluster is configured");
    let hosts = node.exec(id(&short), &["cat", "/etc/hosts"]);
    assert!(hosts.contains("\tweb.sub.default.svc.\tweb"), "{hosts}");
    assert_eq!(name(&node.ready(&long).await), format!("{long}-no"), "63 characters of the pod's name");
    let told = |pod: &PodReport| pod.message.as_ref().is_some_and(|text| text.contains("failed to construct FQDN"));
    let held = node.pod("long", "has too long a name", told).await;
    let full = format!("FQDN {long}.sub.default.svc. is too long (64 characters is the max, 77 characters requested)");
    assert!(held.message.as_ref().unwrap().contains(&full), "{held:#?}");
}

pub async fn b107_an_ephemeral_container_sees_its_targets_processes(node: &mut Node) {
    let api = api(node).await;
    bind(&api, &Pod::new("web"));
    node.start();
    let web = node.ready("web").await;
    let script = format!("echo hello; {FOREVER}");
    let debugger = json!({"name": "debugger", "image": IMAGE, "command": ["sh", "-c", script],
        "imagePullPolicy": "IfNotPresent", "targetContainerName": "main"});
    api.change(&format!("{PODS}/web-node1"), &json!({"spec": {"ephemeralContainers": [debugger]}}));
    let there = |pod: &PodReport| pod.containers.iter().any(|one| one.name == "debugger") && runs(pod, "debugger");
    let seen = node.pod("web", "has its debugger", there).await;
    assert_eq!((id(&seen), restarts(&seen), seen.ready), (id(&web), 0, true));
    let processes = |id: &str| node.exec(id, &["ls", "-l", "/proc/1/ns/pid"]).rsplit(' ').next().unwrap().to_owned();
    assert_eq!(processes(id_of(&seen, "debugger")), processes(id(&web)));
    let status = || {
        let status = api.get(&format!("{PODS}/web-node1"))["status"]["ephemeralContainerStatuses"][0].clone();
        std::future::ready(status["state"]["running"].is_object().then_some(status))
    };
    let status = node.eventually("the API server is told", status).await;
    assert_eq!((&status["name"], &status["ready"]), (&json!("debugger"), &json!(false)));
    let said = || {
        let log = node.kubeboot(&["agent", "logs", "web-node1", "-c", "debugger"]);
        std::future::ready(log.contains("hello").then_some(()))
    };
    node.eventually("its log is found", said).await;
    node.kill_container(id_of(&seen, "debugger"));
    let ended = node.pod("web", "goes on without it", |pod| !runs(pod, "debugger")).await;
    assert!(ended.ready && id(&ended) == id(&web));
}
