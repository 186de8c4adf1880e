//! 67 to 77: what a pod's fields do, and what is seen of it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;

use kubeboot::agent::control::report::{PodReport, Severity};
use kubeboot::testing::real::command::run;
use kubeboot::testing::real::image::{FOREVER, IMAGE};
use kubeboot::testing::real::pod::Pod;
use serde_json::{Value, json};

use crate::node::Node;
use crate::reports::{container, id, restarts, waits};

/// A shared directory that the container sees as `/share`.
fn share(node: &Node) -> PathBuf {
    let path = node.path("share");
    fs::create_dir(&path).unwrap();
    path
}

/// What a pod's script writes to `/share/out`, once it is all there.
async fn output(node: &mut Node, pod: Pod, script: &str) -> String {
    let path = share(node);
    let script = format!("{{ {script}; echo the end; }} > /share/out; {FOREVER}");
    node.start();
    node.up(&pod.script(&script).mount("share", &path)).await;
    node.file_says("share/out", "the end\n").await.replace("the end\n", "")
}

pub async fn b067_images_that_are_not_there_are_told_as_the_kubelet_does(node: &mut Node) {
    let unknown = IMAGE.replace("busybox:1", "unknown:1");
    node.start();
    node.run(&Pod::new("never").main("image", unknown.clone()).main("imagePullPolicy", "Never"));
    node.run(&Pod::new("pulled").main("image", unknown));
    node.pod("never", "is not pulled", |pod| waits(pod).starts_with("ErrImageNeverPull:")).await;
    node.pod("pulled", "was pulled in vain", |pod| waits(pod).starts_with("ErrImagePull:")).await;
    node.pod("pulled", "backs off", |pod| waits(pod).starts_with("ImagePullBackOff:")).await;
}

pub async fn b068_roots_image_under_run_as_non_root_is_a_config_error(node: &mut Node) {
    node.start();
    node.run(&Pod::new("root").spec("securityContext", json!({"runAsNonRoot": true})));
    node.run(&Pod::new("user").spec("securityContext", json!({"runAsNonRoot": true, "runAsUser": 1000})));
    node.ready("user").await;
    let told = |pod: &PodReport| waits(pod).starts_with("CreateContainerConfigError:");
    let root = node.pod("root", "is a config error", told).await;
    assert!(waits(&root).contains("root"), "{}", waits(&root));
    assert!(container(&root, "main").id.is_none(), "{root:#?}");
}

pub async fn b069_host_path_types_make_or_demand_what_they_say(node: &mut Node) {
    let (dir, file, missing) = (node.path("made/dir"), node.path("empty"), node.path("missing"));
    let volume = |name: &str, path: &PathBuf, kind| json!({"name": name, "hostPath": {"path": path, "type": kind}});
    let mount = |name: &str| json!({"name": name, "mountPath": format!("/{name}")});
    let makes = [volume("dir", &dir, "DirectoryOrCreate"), volume("file", &file, "FileOrCreate")];
    node.start();
    let makes = Pod::new("makes").spec("volumes", json!(makes));
    node.up(&makes.main("volumeMounts", json!([mount("dir"), mount("file")]))).await;
    let mode = |path: &PathBuf| {
        let metadata = fs::metadata(path).unwrap();
        (metadata.is_dir(), metadata.permissions().mode() & 0o777)
    };
    assert_eq!((mode(&dir), mode(&node.path("made")), mode(&file)), ((true, 0o755), (true, 0o755), (false, 0o644)));
    let demands = Pod::new("demands").spec("volumes", json!([volume("file", &missing, "File")]));
    node.run(&demands.main("volumeMounts", json!([mount("file")])));
    let held = |pod: &PodReport| waits(pod).starts_with("ContainerCreating:") && pod.message.is_some();
    let held = node.pod("demands", "is held back", held).await;
    assert!(held.message.as_ref().unwrap().contains("missing"), "{held:#?}");
    let failed = || std::future::ready(node.kubeboot(&["agent", "events"]).contains("FailedMount").then_some(()));
    node.eventually("there is an event of it", failed).await;
    fs::File::create(&missing).unwrap();
    node.ready("demands").await;
}

pub async fn b070_arguments_are_expanded_from_what_is_set(node: &mut Node) {
    let script = r#"for word in "$0" "$@"; do echo "$word"; done"#;
    let pod = Pod::new("web").env("A", "val").main("args", json!(["$(A)", "$(B)", "$$(A)"]));
    assert_eq!(output(node, pod, script).await, "val\n$(B)\n$(A)\n");
}

pub async fn b071_field_refs_give_the_pods_names_and_addresses(node: &mut Node) {
    let fields = [("NAME", "metadata.name"), ("UID", "metadata.uid"), ("POD_IP", "status.podIP")];
    let fields = fields.into_iter().chain([("HOST_IP", "status.hostIP"), ("NODE", "spec.nodeName")]);
    let env: Vec<Value> =
        fields.map(|(name, path)| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}})).collect();
    let pod = Pod::new("web").own_network().main("env", json!(env));
    let said = output(node, pod, r#"echo "$NAME $UID $NODE"; echo "$POD_IP"; echo "$HOST_IP""#).await;
    let web = node.ready("web").await;
    let sandbox = node.sandbox("web").await;
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], format!("web-node1 {} node1", web.uid));
    assert_eq!(lines[1], sandbox.ip.unwrap());
    let own = run("ip", &["-o", "addr"]).ok();
    assert!(own.contains(&format!(" {}/", lines[2])), "{} is no address of this machine: {own}", lines[2]);
}

pub async fn b072_host_aliases_are_in_the_hosts_file(node: &mut Node) {
    let own = node.path("own-hosts");
    kubeboot::testing::real::command::put(&own, b"192.0.2.7 mine\n");
    let aliases = json!([{"ip": "192.0.2.9", "hostnames": ["one.example", "two.example"]}]);
    for (name, network) in [("host", true), ("own", false)] {
        let pod = Pod::new(name).spec("hostNetwork", network).spec("hostAliases", aliases.clone());
        let pod = pod.container("keeps", FOREVER);
        let pod = pod.of("containers", 1, "volumeMounts", json!([{"name": "hosts", "mountPath": "/etc/hosts"}]));
        node.run(&pod.spec("volumes", json!([{"name": "hosts", "hostPath": {"path": own, "type": "File"}}])));
    }
    node.start();
    for name in ["host", "own"] {
        let pod = node.ready(name).await;
        let hosts = node.exec(id(&pod), &["cat", "/etc/hosts"]);
        let line = hosts.lines().find(|line| line.starts_with("192.0.2.9")).unwrap_or_else(|| panic!("{hosts}"));
        assert_eq!(line.split_whitespace().collect::<Vec<_>>(), ["192.0.2.9", "one.example", "two.example"]);
        assert!(hosts.contains("localhost"), "{hosts}");
        let kept = node.exec(crate::reports::id_of(&pod, "keeps"), &["cat", "/etc/hosts"]);
        assert_eq!(kept, "192.0.2.7 mine");
    }
}

pub async fn b073_the_oom_score_follows_priority_and_quality_of_service(node: &mut Node) {
    node.start();
    let burstable = json!({"requests": {"cpu": "10m"}});
    let pods = [
        ("best", Pod::new("best"), 1000),
        ("burst", Pod::new("burst").main("resources", burstable.clone()), 999),
        ("critical", Pod::new("critical").main("resources", burstable).critical(), -997),
    ];
    // A machine may forbid to lower the score of anything.
    let lowest = match may_lower_scores() {
        true => -1000,
        false => 0,
    };
    for (name, pod, score) in pods {
        let pod = node.up(&pod).await;
        let is: i64 = node.exec(id(&pod), &["cat", "/proc/1/oom_score_adj"]).parse().unwrap();
        assert_eq!(is, score.max(lowest), "{name}");
    }
    assert_eq!(node.log().contains("wanted=-997"), lowest == 0, "{}", node.log());
}

/// Whether somebody here may make a process that is killed later than others.
fn may_lower_scores() -> bool {
    let lower = "echo -997 2>/dev/null > /proc/self/oom_score_adj";
    std::process::Command::new("sh").args(["-c", lower]).stderr(Stdio::null()).status().unwrap().success()
}

pub async fn b074_logs_are_at_the_kubelets_paths_and_rotated(node: &mut Node) {
    let limits = ["containerLogMaxSize: 16Ki", "containerLogMaxFiles: 3", "containerLogMonitorInterval: 3s"];
    node.config.extend(limits.map(str::to_owned));
    node.start();
    let web = node.up(&Pod::new("web").script(&format!("echo first; {FOREVER}"))).await;
    let file = node.path(&format!("pods/default_web-node1_{}/main/0.log", web.uid));
    let link = format!("/var/log/containers/web-node1_default_main-{}.log", id(&web));
    assert_eq!(fs::read_link(&link).unwrap(), file);
    let said = || std::future::ready(fs::read_to_string(&link).ok().filter(|log| log.contains("first")));
    node.eventually("what it said is there", said).await;
    let quiet = share(node);
    let lines = "for i in 0 1 2 3 4 5 6 7 8 9; do echo 0123456789012345678901234567890123456789; done";
    let chatty =
        format!("echo the first; while ! test -e /share/quiet; do {lines}; sleep 0.01; done; echo the last; {FOREVER}");
    let chatty = node.up(&Pod::new("chatty").script(&chatty).mount("share", &quiet)).await;
    let directory = node.path(&format!("pods/default_chatty-node1_{}/main", chatty.uid));
    let kept = node.look(id(&chatty)).log;
    let name = kept.file_name().unwrap().to_string_lossy().into_owned();
    let logs = || {
        let beside = fs::read_dir(kept.parent().unwrap()).unwrap().flatten();
        let files = beside.filter(|e| e.file_name().to_string_lossy().starts_with(&name));
        files.map(|file| fs::read_to_string(file.path()).unwrap_or_default()).collect::<Vec<_>>()
    };
    let rotated = |logs: &Vec<String>| logs.len() == 3 && !logs.iter().any(|log| log.contains("the first"));
    node.eventually("the oldest is gone", || std::future::ready(Some(logs()).filter(rotated))).await;
    fs::File::create(quiet.join("quiet")).unwrap();
    let live = || fs::read_to_string(directory.join("0.log")).unwrap_or_default();
    let settled = |logs: &Vec<String>| live().len() < 32 << 10 && logs.iter().any(|log| log.contains("the last"));
    let logs = node.eventually("the live file is small", || std::future::ready(Some(logs()).filter(settled))).await;
    assert_eq!(logs.len(), 3);
    node.delete("web.yaml");
    node.delete("chatty.yaml");
    node.empty().await;
    assert!(fs::symlink_metadata(&link).is_err() && !file.exists() && !directory.exists());
}

pub async fn b075_the_runtime_has_the_kubelets_names(node: &mut Node) {
    node.start();
    let web = node.up(&Pod::new("web").own_network().container("second", FOREVER)).await;
    node.kill_container(id(&web));
    node.pod("web", "is restarted", |pod| pod.ready && restarts(pod) == 1).await;
    let names = node.running_names();
    let name = |container, attempt| format!("k8s_{container}_web-node1_default_{}_{attempt}", web.uid);
    assert_eq!(names, [name("POD", 0), name("main", 1), name("second", 0)]);
}

pub async fn b076_a_termination_message_is_cut_at_4096_bytes(node: &mut Node) {
    node.start();
    node.run(&Pod::new("web").script("head -c 5000 /dev/zero | tr '\\0' x > /dev/termination-log; exit 1"));
    let message = |pod: &PodReport| container(pod, "main").last_termination.as_ref().map(|last| last.message.clone());
    let ended = |pod: &PodReport| message(pod).is_some_and(|message| !message.is_empty());
    let told = message(&node.pod("web", "has ended with a message", ended).await).unwrap();
    assert!(told.trim() == "x".repeat(4096), "{} bytes: {:.80}...", told.len(), told);
}

pub async fn b077_a_full_disk_is_told_and_evicts_nothing(node: &mut Node) {
    fs::create_dir(node.root()).unwrap();
    let root = node.root().display().to_string();
    run("mount", &["-t", "tmpfs", "-o", "size=4m", "tmpfs", &root]).ok();
    node.start();
    let web = node.up(&Pod::new("web").critical()).await;
    let other = node.up(&Pod::new("other")).await;
    let fill = fs::File::create(node.root().join("fill")).unwrap();
    rustix::fs::fallocate(&fill, rustix::fs::FallocateFlags::empty(), 0, 3900 << 10).unwrap();
    let alarm = |r: &kubeboot::agent::control::report::HealthReport| {
        r.problems.iter().any(|p| p.subject == root && p.severity == Severity::Warning)
    };
    let report = node.until("the disk is told", alarm).await;
    let ids: Vec<_> = report.pods.iter().map(id).collect();
    assert_eq!(ids, [id(&other), id(&web)]);
    assert!(report.pods.iter().all(|pod| pod.ready && !pod.terminating), "{report:#?}");
    drop(fill);
    fs::remove_file(node.root().join("fill")).unwrap();
    node.until("the disk is well again", |r| !alarm(r)).await;
    for pod in [&web, &other] {
        assert!(node.look(id(pod)).running);
    }
}
