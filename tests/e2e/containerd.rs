//! The whole way of a control plane on containerd: init, use, upgrade, reset. What kubectl does with a pod goes here
//! through containerd's own server of streams.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

use kubeboot::testing::real::image;
use serde_json::Value;

use crate::asker::Asker;
use crate::daemonset::apply;
use crate::engine::{Engine, traces};
use crate::kubectl::{self, Shell, ended, kubectl_command};
use crate::machine::*;
use crate::mirror::{get, is_ready, manifest, mirror, uid};

const MINUTE: Duration = Duration::from_secs(60);
/// The pods' network of `containerd_up` in scripts/lib.sh.
const POD_NETWORK: &str = "10.87.";
const HOST_PORT: &str = "18080";
/// A pod with a network of its own, which is asked from outside whether it is ready.
const OWN: &str = "apiVersion: v1
kind: Pod
metadata: {name: own, namespace: kube-system}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: own
    image: IMAGE
    imagePullPolicy: Never
    command: [/bin/busybox, sh, -c, '/bin/busybox mkdir /www; echo \"tea in $(/bin/busybox hostname)\" > /www/index.html; exec /bin/busybox httpd -f -p 8080 -h /www']
    ports: [{containerPort: 8080, hostPort: 18080}]
    readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
";
/// What the pod of the API server's is given to read.
const OBJECTS: &str = "apiVersion: v1
kind: ConfigMap
metadata: {name: bound, namespace: kube-system}
data: {a: b}
---
apiVersion: v1
kind: Secret
metadata: {name: bound, namespace: kube-system}
stringData: {c: d}
---
";
const VOLUMES: &str = "    volumeMounts:
    - {name: map, mountPath: /map, readOnly: false}
    - {name: secret, mountPath: /secret}
    - {name: all, mountPath: /all}
    - {name: down, mountPath: /down}
  volumes:
  - {name: map, configMap: {name: bound}}
  - {name: secret, secret: {secretName: bound}}
  - {name: all, projected: {sources: [{configMap: {name: bound}}]}}
  - {name: down, downwardAPI: {items: [{path: name, fieldRef: {fieldPath: metadata.name}}]}}
";
/// What CNI makes once, for all that comes after.
const CNIS_OWN: [&str; 4] = ["/run/netns", "/var/lib/cni", "/var/lib/cni/results", "/var/lib/cni/networks"];

/// The pod with a network of its own. Its manifest is not kubeboot's, and reset leaves it alone: it goes before.
struct Own<'e> {
    engine: &'e Engine,
    pod: String,
}

impl<'e> Own<'e> {
    #[track_caller]
    fn start(engine: &'e Engine, node: &str) -> Self {
        let own = Self { engine, pod: format!("own-{node}") };
        own.put(OWN);
        own
    }

    fn put(&self, text: &str) {
        put(&manifest("own"), text.replace("IMAGE", IMAGE));
    }

    fn containers(&self) -> BTreeSet<String> {
        self.engine.containers("own", Some(&self.pod))
    }

    /// The mirror, ready with a container other than `before`'s.
    #[track_caller]
    fn ready(&self, before: &Value) -> Value {
        mirror("kube-system", &self.pod, MINUTE, |now| is_ready(now) && uid(now) != uid(before))
    }
}

impl Drop for Own<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_file(manifest("own"));
        eventually("the pod with a network of its own gone", MINUTE, || self.containers().is_empty().then_some(()));
    }
}

fn page(url: &str) -> String {
    run("curl", &["-s", "--max-time", "10", url]).stdout
}

/// The control plane's containers, each with its process.
fn running(engine: &Engine, socket: &str) -> BTreeMap<String, String> {
    let tasks = kubeboot::testing::real::cri::ctr(socket, &["tasks", "ls"]);
    let of = |component: &str| {
        let ids = engine.containers(component, None);
        tasks.lines().filter(|line| ids.iter().any(|id| line.starts_with(id.as_str()))).collect::<String>()
    };
    COMPONENTS.into_iter().map(|component| (component.to_owned(), of(component))).collect()
}

/// [`running`], once containerd says of each that it runs: while a machine is busy it may not know for a moment.
fn all_running(engine: &Engine, socket: &str) -> BTreeMap<String, String> {
    let all = |found: &BTreeMap<String, String>| found.values().all(|task| task.contains("RUNNING"));
    eventually("containerd knows that all run", MINUTE, || Some(running(engine, socket)).filter(all))
}

pub fn a_control_plane_on_containerd_is_made_used_upgraded_and_taken_away() {
    let Some(engine) = Engine::containerd() else { return };
    let Engine::Containerd(socket) = &engine else { unreachable!("it is one") };
    ready();
    let mut times = Times::start();
    for version in [VERSION, NEXT_VERSION] {
        let listed = kubeboot(&["images", "list", "--kubernetes-version", version]).ok();
        let images: Vec<&str> = listed.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
        engine.bring(&images);
    }
    image::made();
    times.took("images");
    let (before, listing) = (traces(socket), Listing::take());
    let shell = Shell::start(&engine);
    times.took("init");
    the_node_and_its_pods_are_shown(shell.node());
    kubectl::reaches(&shell);
    times.took("kubectl");
    let own = Own::start(&engine, shell.node());
    let first = a_pod_has_a_network_of_its_own(&own);
    the_node_tells_of_pods_and_images(&shell, &own);
    a_pod_of_the_api_servers_has_one_too(&engine, shell.node());
    times.took("pod network");
    let mut pods = uids();
    deleted_mirrors_come_back(&engine, socket, shell.node());
    an_edit_replaces_the_pod(&own, &first);
    times.took("mirrors");
    an_upgrade_keeps_the_data(&engine, socket, &own);
    times.took("upgrade");
    a_restart_of_the_api_server_fails_no_request();
    times.took("restart");
    pods.extend(uids());
    drop(own);
    drop(shell);
    times.took("reset");
    // Another containerd may come and go meanwhile, and its pods' networks with it.
    eventually("reset leaves nothing in containerd, and no network of a pod's", MINUTE, || {
        let left: Vec<String> = traces(socket).difference(&before).cloned().collect();
        if left.is_empty() { Ok(()) } else { Err(left.join("\n")) }
    });
    let mut left = listing.diff(&Listing::take());
    // Somebody else's cgroups come and go.
    left.retain(|line| !line.contains(" cgroup ") || pods.iter().any(|uid| line.contains(uid)));
    left.retain(|line| !CNIS_OWN.iter().any(|own| line.starts_with(&format!("+ {own} "))));
    assert_eq!(left, Vec::<String>::new(), "reset leaves the machine as it was");
}

/// What the cgroups of the pods that there are now are called after.
fn uids() -> BTreeSet<String> {
    let hash = "{.metadata.annotations.kubernetes\\.io/config\\.hash}";
    let path = format!("jsonpath={{range .items[*]}}{{.metadata.uid}} {hash} {{end}}");
    let all = kubectl(&["get", "pods", "-A", "-o", &path]).ok();
    // One of systemd's cgroups has no dashes of a UID's.
    all.split_whitespace().flat_map(|uid| [uid.to_owned(), uid.replace('-', "_")]).collect()
}

/// What took how long.
struct Times(Instant);

impl Times {
    fn start() -> Self {
        Self(Instant::now())
    }

    fn took(&mut self, what: &str) {
        eprintln!("containerd: {what:12} {:>6} ms", self.0.elapsed().as_millis());
        self.0 = Instant::now();
    }
}

fn the_node_and_its_pods_are_shown(node: &str) {
    let wide = kubectl(&["get", "nodes", "-o", "wide", "--no-headers"]).ok();
    let words: Vec<&str> = wide.split_whitespace().collect();
    assert_eq!(words[..3], [node, "Ready", "control-plane,master"], "{wide}");
    assert!(wide.contains(VERSION) && wide.contains("containerd://1."), "{wide}");
    for component in COMPONENTS {
        let pod = mirror("kube-system", &format!("{component}-{node}"), MINUTE, is_ready);
        let id = pod["status"]["containerStatuses"][0]["containerID"].as_str().unwrap();
        assert!(id.starts_with("containerd://"), "{id}");
    }
    let pods = kubectl(&["get", "pods", "-A", "-o", "wide", "--no-headers"]).ok();
    let runs = |component: &&str| {
        let name = format!(" {component}-{node} ");
        pods.lines().any(|line| line.contains(&name) && line.contains(" 1/1 ") && line.contains(" Running "))
    };
    assert!(COMPONENTS.iter().all(runs), "{pods}");
}

fn a_pod_has_a_network_of_its_own(own: &Own<'_>) -> Value {
    let pod = own.ready(&Value::Null);
    let status = &pod["status"];
    let (ip, host) = (status["podIP"].as_str().unwrap(), status["hostIP"].as_str().unwrap());
    assert!(ip.starts_with(POD_NETWORK) && ip != host, "{status}");
    let said = format!("tea in {}\n", own.pod);
    assert_eq!(page(&format!("http://{ip}:8080/")), said);
    assert_eq!(page(&format!("http://{host}:{HOST_PORT}/")), said);
    // Through the API server into the pod's own loopback, which nothing outside reaches.
    let exec = |command: &[&str]| kubectl(&[&["-n", "kube-system", "exec", &own.pod, "--"], command].concat()).ok();
    assert_eq!(exec(&["/bin/busybox", "wget", "-qO-", "http://127.0.0.1:8080/"]), said);
    assert!(exec(&["/bin/busybox", "cat", "/etc/hosts"]).contains(&format!("{ip}\t{}", own.pod)));
    assert!(exec(&["/bin/busybox", "cat", "/etc/resolv.conf"]).starts_with("nameserver 10.96.0.10\n"));
    let mut child = kubectl_command(&["port-forward", &format!("pod/{}", own.pod), "12382:8080"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("127.0.0.1:12382"));
    assert_eq!(page("http://127.0.0.1:12382/"), said);
    ended(child);
    // Those that the API server gives the node get one too, whether their images can be had or not.
    eventually("addresses of CoreDNS's pods", MINUTE, || {
        let path = "jsonpath={.items[*].status.podIP}";
        let all = kubectl(&["-n", "kube-system", "get", "pods", "-l", "k8s-app=kube-dns", "-o", path]).stdout;
        (all.split_whitespace().filter(|one| one.starts_with(POD_NETWORK)).count() == 2).then_some(())
    });
    pod
}

/// As [`OWN`], but given to the API server, and so without the node's name at its end.
fn a_pod_of_the_api_servers_has_one_too(engine: &Engine, node: &str) {
    let spec = format!("spec:\n  nodeName: {node}\n  automountServiceAccountToken: false");
    let text = OWN.replace("spec:", &spec).replace("own", "bound").replace(", hostPort: 18080", "");
    apply(&format!("{OBJECTS}{text}{VOLUMES}").replace("IMAGE", IMAGE));
    let pod = mirror("kube-system", "bound", MINUTE, is_ready);
    let ip = pod["status"]["podIP"].as_str().unwrap();
    assert!(ip.starts_with(POD_NETWORK), "{ip}");
    assert_eq!(page(&format!("http://{ip}:8080/")), "tea in bound\n");
    let name = kubectl(&["-n", "kube-system", "exec", "bound", "--", "/bin/busybox", "hostname"]).ok();
    assert_eq!(name, "bound\n");
    for dir in ["/map", "/secret", "/all", "/down"] {
        let file = format!("{dir}/forged");
        let touched = kubectl(&["-n", "kube-system", "exec", "bound", "--", "/bin/busybox", "touch", &file]);
        assert!(touched.code != 0 && touched.stderr.contains("Read-only file system"), "{dir}: {touched:?}");
    }
    for object in ["pod", "configmap", "secret"] {
        kubectl(&["-n", "kube-system", "delete", object, "bound"]).ok();
    }
    assert!(engine.containers("bound", Some("bound")).is_empty());
}

fn the_node_tells_of_pods_and_images(shell: &Shell, own: &Own<'_>) {
    let raw = |path: &str| kubectl(&["get", "--raw", &format!("/api/v1/nodes/{}/proxy/{path}", shell.node())]).ok();
    let stats: Value = serde_json::from_str(&raw("stats/summary")).unwrap();
    let of = |name: &str| stats["pods"].as_array().unwrap().iter().find(|pod| pod["podRef"]["name"] == name).unwrap();
    // A machine's own need not be called eth0, whose numbers would stand for all.
    let received = |pod: &Value| -> u64 {
        pod["network"]["interfaces"].as_array().unwrap().iter().map(|one| one["rxBytes"].as_u64().unwrap()).sum()
    };
    let (mine, machines) = (received(of(&own.pod)), received(of(&shell.pod)));
    assert!(mine > 0 && mine < machines, "{mine} of {machines} bytes");
    assert!(of(&own.pod)["memory"]["workingSetBytes"].as_u64().unwrap() > 0, "{}", of(&own.pod));
    assert!(of(&own.pod)["cpu"]["usageCoreNanoSeconds"].as_u64().unwrap() > 0, "{}", of(&own.pod));
    let metrics = raw("metrics/cadvisor");
    let counted = |line: &str| line.starts_with("container_cpu_usage_seconds_total{container=\"etcd\"");
    assert!(metrics.lines().any(counted), "{metrics}");
    let node = get("", &format!("node/{}", shell.node()));
    let names =
        node["status"]["images"].as_array().unwrap().iter().flat_map(|image| image["names"].as_array().unwrap());
    let image = format!("registry.k8s.io/kube-apiserver:{VERSION}");
    assert!(names.into_iter().any(|name| *name == image), "{}", node["status"]["images"]);
    let conditions = node["status"]["conditions"].as_array().unwrap();
    assert!(conditions.iter().all(|one| one["type"] != "NetworkUnavailable"), "{conditions:?}");
}

fn deleted_mirrors_come_back(engine: &Engine, socket: &str, node: &str) {
    let before = all_running(engine, socket);
    for component in COMPONENTS {
        let (pod, resource) = (format!("{component}-{node}"), format!("pod/{component}-{node}"));
        let old = get("kube-system", &resource);
        kubectl(&["-n", "kube-system", "delete", &resource, "--wait=false"]).ok();
        mirror("kube-system", &pod, MINUTE, |now| is_ready(now) && uid(now) != uid(&old));
    }
    assert_eq!(all_running(engine, socket), before, "no container is touched");
}

fn an_edit_replaces_the_pod(own: &Own<'_>, before: &Value) {
    let old = own.containers();
    own.put(&OWN.replace("tea in", "milk in"));
    let now = own.ready(before);
    assert!(own.containers().is_disjoint(&old), "the old container is gone");
    let said = format!("milk in {}\n", own.pod);
    let host = now["status"]["hostIP"].as_str().unwrap();
    assert_eq!(page(&format!("http://{}:8080/", now["status"]["podIP"].as_str().unwrap())), said);
    assert_eq!(page(&format!("http://{host}:{HOST_PORT}/")), said, "the port leads to the new pod");
}

/// The API server before another one has ended.
#[track_caller]
fn one_api_server() {
    eventually("one API server", MINUTE, || processes("kube-apiserver").len() == 1);
}

fn a_restart_of_the_api_server_fails_no_request() {
    let (before, asker) = (processes("kube-apiserver"), Asker::start());
    kubeboot(&["agent", "restart", "kube-apiserver"]).ok();
    eventually("another API server", MINUTE, || processes("kube-apiserver").is_disjoint(&before));
    one_api_server();
    healthy(MINUTE);
    asker.lost_nothing();
}

fn an_upgrade_keeps_the_data(engine: &Engine, socket: &str, own: &Own<'_>) {
    kubectl(&["create", "configmap", "kept", "--from-literal=a=b"]).ok();
    let (before, others) = (all_running(engine, socket), own.containers());
    let asker = Asker::start();
    kubeboot(&["upgrade", "apply", NEXT_VERSION, "--yes"]).code(0);
    one_api_server();
    asker.lost_nothing();
    let version: Value = serde_json::from_str(&kubectl(&["get", "--raw", "/version"]).ok()).unwrap();
    assert_eq!(version["gitVersion"], NEXT_VERSION);
    assert_eq!(kubectl(&["get", "configmap", "kept", "-o", "jsonpath={.data.a}"]).ok(), "b");
    healthy(MINUTE);
    let after = all_running(engine, socket);
    for component in COMPONENTS {
        assert_eq!(after[component] == before[component], component == "etcd", "{component}: {before:?} {after:?}");
    }
    assert_eq!(own.containers(), others, "who is not upgraded runs on");
}
