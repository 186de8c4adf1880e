//! Fields of a pod's spec against a real Docker daemon, or the containerd whose socket `KUBEBOOT_TEST_CRI` names: what the
//! processes in its containers see, and what is left on the machine when the pod is gone.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use kubeboot::agent::control::report::{PodReport, StateReport};
use kubeboot::runtime::CgroupDriver;
use kubeboot::testing::Machine;
use kubeboot::testing::real::command::{mounts_below, put};
use kubeboot::testing::real::engine::Kind;
use kubeboot::testing::real::pod::Pod;
use serde_json::json;

async fn started(config: &[&str]) -> Machine {
    let mut node = Machine::new();
    node.config = config.iter().map(|line| (*line).to_owned()).collect();
    node.start();
    node
}

fn id(pod: &PodReport) -> String {
    pod.containers[0].id.clone().unwrap()
}

/// What a command in the pod's first container prints.
fn inside(node: &Machine, pod: &PodReport, command: &str) -> String {
    node.exec(&id(pod), &["sh", "-c", command])
}

fn is_waiting(pod: &PodReport, reason: &str) -> bool {
    pod.containers.iter().any(|one| matches!(&one.state, StateReport::Waiting { reason: why, .. } if why == reason))
}

fn message(pod: &PodReport) -> String {
    match &pod.containers[0].state {
        StateReport::Waiting { message, .. } => message.clone(),
        other => panic!("not waiting: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_and_resolver_files_are_the_agents_in_both_networks() {
    let node = started(&["clusterDNS: [10.96.0.10]", "clusterDomain: cluster.local"]).await;
    let aliases = json!([{"ip": "10.1.2.3", "hostnames": ["foo", "foo.local"]}]);
    node.run(&Pod::new("host").spec("hostAliases", aliases.clone()));
    node.run(&Pod::new("own").own_network().spec("hostAliases", aliases).spec("subdomain", "sub"));
    let host = node.ready("host").await;
    let hosts = inside(&node, &host, "cat /etc/hosts");
    assert!(hosts.starts_with("# Kubernetes-managed hosts file (host network)."), "{hosts}");
    assert!(hosts.ends_with("10.1.2.3\tfoo\tfoo.local"), "{hosts}");
    let machine = fs::read_to_string("/etc/hosts").unwrap();
    assert!(hosts.contains(machine.trim()), "{hosts}");
    let own = node.ready("own").await;
    let hosts = inside(&node, &own, "cat /etc/hosts");
    let ip = node.sandbox("own").await.ip.unwrap();
    assert!(hosts.contains(&format!("\n{ip}\town-node1.sub.default.svc.cluster.local\town-node1\n")), "{hosts}");
    assert!(hosts.ends_with("10.1.2.3\tfoo\tfoo.local"), "{hosts}");
    let resolver = inside(&node, &own, "cat /etc/resolv.conf");
    assert!(resolver.starts_with("nameserver 10.96.0.10\nsearch default.svc.cluster.local svc.cluster"), "{resolver}");
    let file = node.root().join("pods").join(&own.uid).join("etc-hosts");
    assert_eq!(fs::read_to_string(file).unwrap().trim(), hosts);
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_volumes_and_sub_paths_are_mounted_and_leave_nothing_behind() {
    let node = started(&[]).await;
    let data = node.path("data");
    fs::create_dir(&data).unwrap();
    let volumes = json!([
        {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "2Mi"}},
        {"name": "data", "hostPath": {"path": data}},
    ]);
    let mounts = json!([
        {"name": "memory", "mountPath": "/memory"},
        {"name": "data", "mountPath": "/mine", "subPathExpr": "of/$(NAME)"},
        {"name": "data", "mountPath": "/ours", "subPath": "of", "readOnly": true},
    ]);
    let env = json!([{"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]);
    let pod = Pod::new("v").spec("volumes", volumes).main("volumeMounts", mounts).main("env", env);
    let up = node.up(&pod).await;
    let table = inside(&node, &up, "grep ' /memory ' /proc/mounts");
    assert!(table.starts_with("tmpfs /memory tmpfs rw") && table.contains("size=2048k"), "{table}");
    inside(&node, &up, "echo hello > /mine/file; echo kept > /memory/file");
    assert_eq!(inside(&node, &up, "cat /ours/v-node1/file"), "hello");
    assert_eq!(fs::read_to_string(data.join("of/v-node1/file")).unwrap(), "hello\n");
    // A container that comes again finds its memory.
    node.kill_container(&id(&up));
    let again = node.pod("v", "was restarted", |pod| pod.ready && pod.containers[0].restarts == 1).await;
    assert_eq!(inside(&node, &again, "cat /memory/file /mine/file"), "kept\nhello");
    assert_eq!(mounts_below(&[&node.root()]).len(), 3);
    node.delete("v.yaml");
    node.empty().await;
    assert_eq!(mounts_below(&[&node.root()]), [""; 0]);
    assert_eq!(fs::read_dir(node.root().join("pods")).unwrap().count(), 0);
    assert!(data.join("of/v-node1/file").exists(), "what was mounted is not the pod's to delete");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sub_path_that_leads_out_and_a_volume_of_another_kind_keep_the_pod_waiting() {
    let node = started(&[]).await;
    let data = node.path("data");
    fs::create_dir(&data).unwrap();
    std::os::unix::fs::symlink("/etc", data.join("out")).unwrap();
    let volume = json!([{"name": "v", "hostPath": {"path": data}}]);
    let mount = json!([{"name": "v", "mountPath": "/v", "subPath": "out/ssl"}]);
    node.run(&Pod::new("out").spec("volumes", volume).main("volumeMounts", mount));
    let nfs = json!([{"name": "v", "nfs": {"server": "10.0.0.1", "path": "/"}}]);
    node.run(&Pod::new("nfs").spec("volumes", nfs));
    let out =
        node.pod("out", "waits", |pod| is_waiting(pod, "ContainerCreating") && message(pod).contains("out")).await;
    assert!(message(&out).contains("subPath out/ssl leads out of volume v"), "{}", message(&out));
    // Where a pod needs a sandbox its volumes come first, and it is the pod that waits.
    let said = |pod: &PodReport| pod.message.clone().unwrap_or_default();
    let nfs = node.pod("nfs", "waits", |pod| is_waiting(pod, "ContainerCreating") && said(pod).contains("nfs")).await;
    assert!(said(&nfs).contains("nfs volumes are not mounted"), "{nfs:?}");
    assert!(node.containers().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn downward_files_and_variables_tell_a_container_of_its_pod() {
    let node = started(&[]).await;
    let field = |path: &str| json!({"fieldRef": {"fieldPath": path}});
    let items = json!([
        {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
        {"path": "deep/limit", "mode": 0o400, "resourceFieldRef":
            {"containerName": "main", "resource": "limits.memory", "divisor": "1Mi"}},
    ]);
    let projected =
        json!({"sources": [{"downwardAPI": {"items": [{"path": "uid", "fieldRef": {"fieldPath": "metadata.uid"}}]}}]});
    let pod = Pod::new("d")
        .metadata("labels", json!({"b": "2", "a": "1"}))
        .spec("securityContext", json!({"fsGroup": 4242}))
        .spec("volumes", json!([{"name": "d", "downwardAPI": {"items": items}}, {"name": "p", "projected": projected}]))
        .main("resources", json!({"limits": {"memory": "32Mi"}}))
        .main(
            "env",
            json!([{"name": "HOST", "valueFrom": field("status.hostIP")}, {"name": "ME", "value": "$(HOST)!"}]),
        )
        .main("volumeMounts", json!([{"name": "d", "mountPath": "/d"}, {"name": "p", "mountPath": "/p"}]));
    let up = node.up(&pod).await;
    assert_eq!(inside(&node, &up, "cat /d/labels"), "a=\"1\"\nb=\"2\"");
    assert_eq!(inside(&node, &up, "cat /d/deep/limit /p/uid"), format!("32{}", up.uid));
    assert_eq!(inside(&node, &up, "stat -L -c '%a %g' /d/deep/limit"), "440 4242");
    let me = inside(&node, &up, "tr '\\0' '\\n' < /proc/1/environ | grep ^ME=");
    assert!(me.trim_end_matches('!').trim_start_matches("ME=").parse::<std::net::IpAddr>().is_ok(), "{me}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_agent_writes_is_read_only_whatever_the_manifest_says_and_any_user_reads_it() {
    let node = started(&[]).await;
    let items = |path: &str| json!([{"path": path, "fieldRef": {"fieldPath": "metadata.name"}}]);
    let volumes = json!([
        {"name": "down", "downwardAPI": {"items": items("name")}},
        {"name": "all", "projected": {"sources": [{"downwardAPI": {"items": items("deep/name")}}]}},
        {"name": "empty", "emptyDir": {}},
    ]);
    let mounts = json!([
        {"name": "down", "mountPath": "/down", "readOnly": false},
        {"name": "all", "mountPath": "/all"},
        {"name": "all", "mountPath": "/part", "subPath": "deep"},
        {"name": "down", "mountPath": "/one", "subPath": "name"},
        {"name": "empty", "mountPath": "/empty"},
    ]);
    let pod = |name: &str, user: i64| {
        let context = json!({"runAsUser": user});
        let pod = Pod::new(name).spec("volumes", volumes.clone()).main("volumeMounts", mounts.clone());
        pod.main("securityContext", context)
    };
    let files = "/down/name /all/deep/name /part/name /one";
    let user = node.up(&pod("user", 4242)).await;
    assert_eq!(inside(&node, &user, &format!("touch /empty/x; cat {files}")), "user-node1".repeat(4));
    // No mode would stop root.
    let root = node.up(&pod("root", 0)).await;
    for path in ["/down/x", "/all/x", "/all/deep/x", "/part/x", "/one"] {
        let said = inside(&node, &root, &format!("{{ echo forged > {path}; }} 2>&1; true"));
        assert!(said.contains("Read-only file system"), "{path}: {said}");
    }
    assert_eq!(inside(&node, &root, &format!("touch /empty/y; cat {files}")), "root-node1".repeat(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_to_have_its_own_users_has_them_or_does_not_run() {
    let node = started(&[]).await;
    let volume = json!([{"name": "v", "emptyDir": {}}]);
    let mount = json!([{"name": "v", "mountPath": "/v"}]);
    let pod = Pod::new("apart").own_network().spec("hostUsers", false);
    node.run(&pod.spec("volumes", volume).main("volumeMounts", mount));
    node.run(&Pod::new("other").own_network());
    let cannot = "can't set `spec.hostUsers: false`, runtime does not support user namespaces";
    let says = |pod: &PodReport| pod.message.as_ref().is_some_and(|message| message.contains(cannot));
    let apart = node.pod("apart", "runs or says why not", |pod| pod.ready || says(pod)).await;
    if apart.ready {
        let map = inside(&node, &apart, "cat /proc/self/uid_map");
        let map: Vec<u32> = map.split_whitespace().map(|number| number.parse().unwrap()).collect();
        assert!(map[0] == 0 && map[1] >= 65536 && map[2] == 65536, "{map:?}");
        inside(&node, &apart, "touch /v/file");
        let file = node.root().join("pods").join(&apart.uid).join("volumes/kubernetes.io~empty-dir/v/file");
        assert_eq!(fs::metadata(file).unwrap().uid(), 0, "on the disk it is root's, in whichever users");
    } else {
        // Another one that comes later runs, and it still does not.
        node.ready("other").await;
        let names = node.running_names();
        assert!(!names.iter().any(|name| name.contains("apart")), "{names:?}");
        let events = node.kubeboot(&["agent", "events"]);
        assert!(events.contains("FailedCreatePodSandBox") && events.contains(cannot), "{events}");
    }
}

/// Where this machine has the hierarchy of a cgroup v1 controller, or the only one.
fn cgroup(controller: &str) -> PathBuf {
    let table = fs::read_to_string("/proc/self/mounts").unwrap();
    let mounts = || table.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let v1 = |line: &Vec<&str>| line[2] == "cgroup" && line[3].split(',').any(|option| option == controller);
    let found = mounts().find(v1).or_else(|| mounts().find(|line| line[2] == "cgroup2"));
    PathBuf::from(found.unwrap_or_else(|| panic!("no cgroup hierarchy has {controller}"))[1])
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_are_in_the_cgroup_of_their_pod_with_its_limits_and_scores() {
    let node = started(&["podPidsLimit: 100"]).await;
    let list = json!({"cpu": "100m", "memory": "32Mi"});
    let burstable = Pod::new("b").own_network().main("resources", json!({"limits": list, "requests": {"cpu": "50m"}}));
    let up = node.up(&burstable).await;
    let driver = node.client.cgroup_driver().await.unwrap();
    if driver != Some(CgroupDriver::Cgroupfs) || Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        eprintln!("cgroups are checked with the cgroupfs driver of cgroup v1 only, this runtime has {driver:?}");
        return;
    }
    let below = format!("kubepods/burstable/pod{}", up.uid);
    let all = node.all().await;
    assert_eq!(all.len(), 2);
    for one in &all {
        assert!(cgroup("memory").join(&below).join(&one.id).exists(), "{}", one.name);
    }
    let value = |controller: &str, file: &str| fs::read_to_string(cgroup(controller).join(&below).join(file)).unwrap();
    assert_eq!(value("memory", "memory.limit_in_bytes").trim(), "33554432");
    assert_eq!((value("cpu", "cpu.shares").trim(), value("cpu", "cpu.cfs_quota_us").trim()), ("51", "10000"));
    assert_eq!(value("pids", "pids.max").trim(), "100");
    let score = fs::read_to_string(format!("/proc/{}/oom_score_adj", node.look(&id(&up)).pid)).unwrap();
    let score: i64 = score.trim().parse().unwrap();
    assert!((3..=999).contains(&score), "32 MiB of the machine's memory: {score}");
    let best = node.up(&Pod::new("best")).await;
    assert_eq!(inside(&node, &best, "cat /proc/1/oom_score_adj"), "1000");
    node.delete("b.yaml");
    node.delete("best.yaml");
    node.empty().await;
    for hierarchy in ["cpu", "memory", "pids", "devices", "freezer"] {
        for left in [below.clone(), format!("kubepods/besteffort/pod{}", best.uid)] {
            assert!(!cgroup(hierarchy).join(&left).exists(), "{hierarchy} {left}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn users_capabilities_and_the_root_directory_are_as_the_security_context_says() {
    let node = started(&[]).await;
    fs::create_dir_all(node.root().join("seccomp")).unwrap();
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]});
    put(&node.root().join("seccomp/no-mkdir.json"), profile.to_string().as_bytes());
    let own = json!({
        "readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false, "runAsUser": 1001, "runAsGroup": 1002,
        "capabilities": {"drop": ["ALL"]}, "seLinuxOptions": {"type": "spc_t"},
        "seccompProfile": {"type": "Localhost", "localhostProfile": "no-mkdir.json"},
    });
    let pod = Pod::new("s")
        .spec("securityContext", json!({"fsGroup": 1003, "supplementalGroups": [1004], "runAsUser": 7}))
        .spec("volumes", json!([{"name": "e", "emptyDir": {}}]))
        .main("volumeMounts", json!([{"name": "e", "mountPath": "/e"}]))
        .main("securityContext", own);
    let up = node.up(&pod).await;
    assert_eq!(inside(&node, &up, "echo $(id -u) $(id -g) $(id -G)"), "1001 1002 1002 1003 1004");
    assert_eq!(inside(&node, &up, "touch /x 2>&1 || true"), "touch: /x: Read-only file system");
    assert_eq!(inside(&node, &up, "touch /e/x; stat -c %g /e/x"), "1003");
    let status = inside(&node, &up, "grep -E '^(CapBnd|CapEff|NoNewPrivs|Seccomp):' /proc/1/status | tr '\\t\\n' '  '");
    assert_eq!(status, "CapEff: 0000000000000000 CapBnd: 0000000000000000 NoNewPrivs: 1 Seccomp: 2");
    assert!(inside(&node, &up, "mkdir /e/d 2>&1 || true").contains("Operation not permitted"));
    let group = node.up(&Pod::new("group").main("securityContext", json!({"runAsGroup": 5}))).await;
    assert_eq!(inside(&node, &group, "echo $(id -u) $(id -g)"), "0 5");
    node.run(&Pod::new("root").main("securityContext", json!({"runAsNonRoot": true})));
    let root = node.pod("root", "is refused", |pod| is_waiting(pod, "CreateContainerConfigError")).await;
    assert_eq!(message(&root), "container has runAsNonRoot and image will run as root");
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_are_the_machines_the_pods_or_the_containers_as_the_spec_says() {
    let node = started(&["clusterDomain: cluster.local"]).await;
    let shared = Pod::new("shared")
        .own_network()
        .spec("shareProcessNamespace", true)
        .spec("hostname", "web")
        .spec("subdomain", "sub")
        .spec("setHostnameAsFQDN", true)
        .spec("securityContext", json!({"sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "81"}]}));
    let shared = node.up(&shared).await;
    assert_eq!(inside(&node, &shared, "cat /proc/sys/kernel/hostname"), "web.sub.default.svc.cluster.local");
    assert_eq!(inside(&node, &shared, "cat /proc/sys/net/ipv4/ip_unprivileged_port_start"), "81");
    let sandbox = node.sandbox("shared").await;
    let namespace = |id: &str, kind: &str| {
        let pid = node.look(id).pid;
        fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap()
    };
    for kind in ["pid", "ipc", "net"] {
        assert_eq!(namespace(&id(&shared), kind), namespace(&sandbox.id, kind), "{kind}");
    }
    let host = node.up(&Pod::new("host").spec("hostPID", true).spec("hostIPC", true)).await;
    for kind in ["pid", "ipc", "net", "uts"] {
        let mine = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        assert_eq!(namespace(&id(&host), kind), mine, "{kind}");
    }
    let sysctl = json!({"sysctls": [{"name": "vm.swappiness", "value": "1"}]});
    node.run(&Pod::new("forbidden").spec("securityContext", sysctl));
    let known = |pod: &PodReport| pod.message.as_deref().unwrap_or_default().contains("forbidden sysctl");
    node.pod("forbidden", "is refused", |pod| known(pod) || message(pod).contains("forbidden sysctl")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_reads_its_variables_from_what_an_init_container_wrote() {
    let node = started(&[]).await;
    let key = json!({"fileKeyRef": {"volumeName": "v", "path": "env", "key": "TOKEN"}});
    let mount = json!([{"name": "v", "mountPath": "/v"}]);
    let pod = Pod::new("f")
        .init("writer", "echo \"TOKEN='a b'\" > /v/env")
        .spec("volumes", json!([{"name": "v", "emptyDir": {}}]))
        .of("initContainers", 0, "volumeMounts", mount.clone())
        .main("volumeMounts", mount)
        .main("env", json!([{"name": "TOKEN", "valueFrom": key}]));
    node.up(&pod).await;
    let main = node.containers().await.into_iter().find(|one| one.name.container == "main").unwrap();
    assert_eq!(node.exec(&main.id, &["sh", "-c", "echo $TOKEN"]), "a b");
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_rotate_by_the_agents_limits() {
    if Kind::chosen() == Kind::Containerd {
        eprintln!("Docker rotates logs at once, the agent by the clock: that is behaviour 74 of the conformance tests");
        return;
    }
    let node = started(&["containerLogMaxSize: 10Ki", "containerLogMaxFiles: 3"]).await;
    let script = "n=0; while [ $n -lt 3000 ]; do echo line number $n of many; n=$((n+1)); done; \
                  trap 'exit 0' TERM; sleep 100000 & wait";
    let up = node.up(&Pod::new("talker").script(script)).await;
    let log = node.look(&id(&up)).log;
    let last = || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        std::future::ready(text.contains("line number 2999 ").then_some(()))
    };
    node.eventually("everything was said", last).await;
    let name = log.file_name().unwrap().to_string_lossy().into_owned();
    let files = fs::read_dir(log.parent().unwrap()).unwrap().flatten();
    let sizes: Vec<u64> = files
        .filter(|file| file.file_name().to_string_lossy().starts_with(&name))
        .map(|file| file.metadata().unwrap().len())
        .collect();
    assert!(sizes.len() == 3 && sizes.iter().all(|size| *size < 11 * 1024), "{sizes:?}");
    let link = node.path("pods").join(format!("default_talker-node1_{}/main/0.log", up.uid));
    assert!(fs::read_to_string(link).unwrap().contains("line number 2999 "));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_whose_rotation_was_cut_off_goes_on() {
    if Kind::chosen() != Kind::Containerd {
        eprintln!("Docker renames logs and goes on by itself: no agent that is killed comes in between");
        return;
    }
    let node = started(&["containerLogMonitorInterval: 3s"]).await;
    let script = "trap 'exit 0' TERM; while :; do echo again; sleep 0.2; done";
    let up = node.up(&Pod::new("talker").script(script)).await;
    let log = node.look(&id(&up)).log;
    // What an agent leaves that is killed before it has told the runtime.
    let renamed = log.with_file_name("0.log.20260102-030405");
    fs::rename(&log, &renamed).unwrap();
    let goes_on = || std::future::ready(fs::read_to_string(&log).ok().filter(|text| text.contains("again")).map(drop));
    node.eventually("the log is where it belongs", goes_on).await;
    assert!(fs::read_to_string(renamed).unwrap().contains("again"));
}
