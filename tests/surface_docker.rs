//! What an agent on a real Docker daemon shows of its pods: on the kubelet's paths, read-only or not, and to the commands that
//! ask over its control socket.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::net::SocketAddr;
use std::ops::Deref;

use kubeboot::agent::control::report::{HealthReport, PodReport};
use kubeboot::agent::options::{Authorization, ServerOptions};
use kubeboot::testing::Machine;
use kubeboot::testing::real::command::{self, Ran, program};
use kubeboot::testing::real::image::{FOREVER, IMAGE};
use kubeboot::testing::real::machine::Agent;
use kubeboot::testing::real::ports;
use kubeboot::testing::real::wait::LIMIT;
use kubeboot::testing::tls::connector;
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// A connection to the agent.
trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<I: AsyncRead + AsyncWrite + Send + Unpin> Io for I {}

/// The statuses of these paths at the read-only address.
async fn ask_read_only(machine: &Served, paths: &[&str]) -> Vec<u16> {
    let mut statuses = Vec::new();
    for path in paths {
        let mut stream = TcpStream::connect(machine.read_only).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        statuses.push(answer[9..12].parse().unwrap());
    }
    statuses
}

/// A machine whose agent serves the kubelet's paths.
struct Served {
    machine: Machine,
    agent: Agent,
    read_only: SocketAddr,
    /// The kubelet's API, where everybody may do everything.
    secure: SocketAddr,
}

impl Deref for Served {
    type Target = Machine;

    fn deref(&self) -> &Machine {
        &self.machine
    }
}

impl Served {
    async fn start() -> Self {
        let machine = Machine::new();
        let free = || SocketAddr::from(([127, 0, 0, 1], ports::free()));
        let (read_only, secure) = (free(), free());
        let mut options = machine.options();
        options.read_only = Some(read_only);
        options.server = ServerOptions {
            listen: Some(secure),
            anonymous: true,
            tokens: false,
            authorization: Authorization::AlwaysAllow,
            ..ServerOptions::default()
        };
        let agent = machine.embed(options);
        machine.until("the agent has begun", |report| report.agent.synced).await;
        Self { machine, agent, read_only, secure }
    }

    fn write(&self, name: &str, spec: &str) {
        let text = format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n{spec}");
        self.machine.write(&format!("{name}.yaml"), text);
    }

    /// A connection to where this path is served: what shows containers from within is not at the read-only address.
    async fn connect(&self, path: &str) -> Box<dyn Io> {
        if !["/containerLogs/", "/runningpods/", "/configz"].iter().any(|secured| path.starts_with(secured)) {
            return Box::new(TcpStream::connect(self.read_only).await.unwrap());
        }
        let (connector, name) = (connector(), ServerName::try_from("node1").unwrap());
        let connected = async || {
            let stream = TcpStream::connect(self.secure).await.unwrap();
            connector.connect(name.clone(), stream).await
        };
        Box::new(self.eventually("the certificate is made, and served with", connected).await)
    }

    /// Status and body of a GET.
    async fn get(&self, path: &str) -> (u16, String) {
        let mut stream = self.connect(path).await;
        let request = format!("GET {path} HTTP/1.0\r\nHost: node1\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // A peer that closes without a farewell of TLS is no matter of these tests.
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split_whitespace().nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// Asks until the body is as wanted.
    async fn until_get(&self, path: &str, wanted: impl Fn(&str) -> bool) -> String {
        let look = async || {
            let body = self.get(path).await.1;
            if wanted(&body) { Ok(body) } else { Err(body) }
        };
        self.eventually(path, look).await
    }

    /// The id of a container that is healthy.
    async fn healthy_container(&self, name: &str, container: &str) -> String {
        let of = |report: &HealthReport| {
            let found = pod(report, name)?.containers.iter().find(|c| c.name == container && c.healthy)?;
            found.id.clone()
        };
        let report = self.until(&format!("{container} is healthy"), |report| of(report).is_some()).await;
        of(&report).unwrap()
    }

    async fn json(&self, path: &str) -> Value {
        let (status, body) = self.get(path).await;
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    async fn stop(self) {
        self.agent.stop().await;
    }
}

fn pod<'a>(report: &'a HealthReport, name: &str) -> Option<&'a PodReport> {
    report.pods.iter().find(|pod| pod.name == format!("{name}-node1"))
}

/// `Type=Status` of each condition.
fn conditions(pod: &Value) -> Vec<String> {
    let conditions = pod["status"]["conditions"].as_array().unwrap().iter();
    conditions.map(|c| format!("{}={}", c["type"].as_str().unwrap(), c["status"].as_str().unwrap())).collect()
}

fn container(name: &str, script: &str) -> String {
    format!("  - name: {name}\n    image: {IMAGE}\n    command: [sh, -c, {script:?}]\n")
}

const GRACE: &str = "  terminationGracePeriodSeconds: 1\n";

#[tokio::test(flavor = "multi_thread")]
async fn pods_lists_what_is_wanted_as_the_api_would_show_it() {
    let machine = Served::start().await;
    assert_eq!(machine.json("/pods").await["items"], serde_json::json!([]));
    let containers = [container("web", FOREVER), container("main", FOREVER)].concat();
    machine.write("web", &format!("{GRACE}  hostNetwork: true\n  containers:\n{containers}"));
    let report = machine.healthy("web").await;

    let list = machine.json("/pods").await;
    assert_eq!((list["kind"].as_str(), list["apiVersion"].as_str()), (Some("PodList"), Some("v1")));
    let pod = &list["items"][0];
    assert_eq!(pod["metadata"]["name"], "web-node1");
    assert_eq!(pod["metadata"]["uid"], report.uid.as_str());
    assert_eq!(pod["metadata"]["annotations"]["kubernetes.io/config.source"], "file");
    assert_eq!(pod["spec"]["nodeName"], "node1");
    let status = &pod["status"];
    assert_eq!((status["phase"].as_str(), status["qosClass"].as_str()), (Some("Running"), Some("BestEffort")));
    assert_eq!(
        conditions(pod),
        ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"]
            .map(|name| format!("{name}=True"))
    );
    let names = [&status["containerStatuses"][0]["name"], &status["containerStatuses"][1]["name"]];
    assert_eq!(names, ["main", "web"], "sorted by name");
    let web = &status["containerStatuses"][1];
    let id = report.containers[0].id.clone().unwrap();
    assert_eq!(web["containerID"], format!("docker://{id}"));
    assert!(web["imageID"].as_str().unwrap().starts_with("docker://sha256:"), "{web}");
    assert!(web["state"]["running"]["startedAt"].is_string() && web["ready"] == true, "{web}");

    let running = machine.json("/runningpods/").await;
    assert_eq!(running["items"][0]["metadata"]["uid"], report.uid.as_str());
    assert_eq!(running["items"][0]["spec"]["containers"].as_array().unwrap().len(), 2);

    machine.kill_container(&id);
    let restarted = |r: &HealthReport| pod_restarts(r, "web") == 1 && is_healthy(r, "web");
    machine.until("it is restarted", restarted).await;
    let list = machine.json("/pods").await;
    let web = &list["items"][0]["status"]["containerStatuses"][1];
    assert_eq!((web["restartCount"].as_i64(), web["ready"].as_bool()), (Some(1), Some(true)));
    assert_eq!(web["lastState"]["terminated"]["exitCode"], 137);
    assert_eq!(web["lastState"]["terminated"]["containerID"], format!("docker://{id}"));

    machine.delete("web.yaml");
    machine.until("the pod is gone", |r| r.pods.is_empty()).await;
    assert_eq!(machine.json("/pods").await["items"], serde_json::json!([]));
    assert_eq!(machine.json("/runningpods/").await["items"], serde_json::json!([]));
    assert_eq!(machine.get("/nothing").await.0, 404);
    machine.stop().await;
}

fn pod_restarts(report: &HealthReport, name: &str) -> u32 {
    pod(report, name).map_or(0, |pod| pod.containers.iter().map(|c| c.restarts).sum())
}

fn is_healthy(report: &HealthReport, name: &str) -> bool {
    pod(report, name).is_some_and(|pod| pod.healthy)
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_served_whole_cut_followed_and_of_the_instance_before() {
    let machine = Served::start().await;
    let script = "echo one; echo two >&2; echo three; trap 'echo bye; exit 0' TERM; sleep 100000 & wait";
    let containers = [
        container("main", script),
        format!("{}    tty: true\n", container("term", "echo terminal; sleep 100000")),
        "  - name: none\n    image: kubeboot.test/nowhere:1\n    imagePullPolicy: Never\n".to_owned(),
    ];
    machine.write("log", &format!("{GRACE}  hostNetwork: true\n  containers:\n{}", containers.concat()));
    let runs = |r: &HealthReport| pod(r, "log").is_some_and(|p| p.containers.iter().filter(|c| c.healthy).count() == 2);
    machine.until("it runs", runs).await;
    let at = |query: &str| format!("/containerLogs/default/log-node1/{query}");

    machine.until_get(&at("main"), |body| body.lines().count() == 3).await;
    let (status, term) = machine.get(&at("term")).await;
    assert_eq!((status, term.as_str()), (200, "terminal\r\n"));
    let (_, last) = machine.get(&at("main?tailLines=1")).await;
    assert_eq!(last.lines().count(), 1, "{last}");
    assert_eq!(machine.get(&at("main?limitBytes=5")).await.1.len(), 5);
    let (_, stamped) = machine.get(&at("main?timestamps=true")).await;
    let first = stamped.split_whitespace().next().unwrap();
    first.parse::<jiff::Timestamp>().unwrap();
    assert_eq!(machine.get(&at("main?sinceTime=2999-01-01T00:00:00Z")).await.1, "");
    for (query, status) in [
        ("main?previous=true", 400),
        ("none", 400),
        ("other", 404),
        ("main?tailLines=-1", 422),
        ("main?sinceSeconds=5&sinceTime=2999-01-01T00:00:00Z", 422),
    ] {
        assert_eq!(machine.get(&at(query)).await.0, status, "{query}");
    }
    assert_eq!(machine.get("/containerLogs/default/other/main").await.0, 404);

    let follow = at("main?follow=true&tailLines=0");
    let mut followed = machine.connect(&follow).await;
    let request = format!("GET {follow} HTTP/1.0\r\n\r\n");
    followed.write_all(request.as_bytes()).await.unwrap();
    // A client that never reads is nobody's trouble.
    let mut dead = machine.connect(&follow).await;
    dead.write_all(request.as_bytes()).await.unwrap();
    let mut head = [0; 12];
    followed.read_exact(&mut head).await.unwrap();
    let id = machine.healthy_container("log", "main").await;
    command::run("docker", &["stop", &id]).ok();
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(LIMIT, followed.read_to_end(&mut rest)).await.unwrap();
    let rest = String::from_utf8(rest).unwrap();
    assert!(rest.contains("bye\n") && !rest.contains("one"), "{rest}");

    machine.until("it is restarted", |r| pod_restarts(r, "log") == 1).await;
    let (status, previous) = machine.get(&at("main?previous=true")).await;
    assert!(status == 200 && previous.contains("bye\n"), "{status} {previous}");
    machine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_health_and_configuration_are_on_the_kubelets_paths() {
    let machine = Served::start().await;
    let probe = "    livenessProbe: {exec: {command: [\"true\"]}, periodSeconds: 1}\n";
    let containers = format!("{}{}{probe}", container("side", FOREVER), container("main", FOREVER));
    let spec = format!("{GRACE}  hostNetwork: true\n  containers:\n{containers}");
    machine.write("web", &spec);
    let report = machine.healthy("web").await;
    let probes = machine.until_get("/metrics/probes", |text| text.contains("result=\"successful\"")).await;
    let (_, text) = machine.get("/metrics").await;
    assert!(!text.contains("prober_probe_total"), "it is on one page: {text}");
    let probed = format!(
        "prober_probe_total{{container=\"main\",namespace=\"default\",pod=\"web-node1\",pod_uid=\"{}\",\
         probe_type=\"Liveness\",result=\"successful\"}}",
        report.uid
    );
    assert!(probes.contains(&probed), "{probed} is missing in\n{probes}");
    for line in [
        "kubelet_running_pods 1",
        "kubelet_running_containers{container_state=\"running\"} 2",
        "kubelet_desired_pods{static=\"true\"} 1",
        "kubelet_started_containers_total{container_type=\"container\"} 2",
        "kubelet_started_pods_total 1",
        "kubelet_working_pods{config=\"desired\",lifecycle=\"sync\",static=\"true\"} 1",
        "kubelet_restarted_pods_total{static=\"true\"} 0",
        "kubelet_orphaned_runtime_pods_total 0",
        "kubeboot_pod_healthy{namespace=\"default\",pod=\"web-node1\"} 1",
        "process_resident_memory_bytes ",
        "process_cpu_seconds_total ",
    ] {
        assert!(text.lines().any(|found| found.starts_with(line)), "{line} is missing in\n{text}");
    }

    for path in ["/healthz", "/healthz/ping", "/healthz/log", "/healthz/syncloop"] {
        assert_eq!(machine.get(path).await, (200, "ok".to_owned()), "{path}");
    }
    assert!(machine.get("/healthz?verbose").await.1.contains("[+]syncloop ok"));
    assert_eq!(machine.get("/healthz/other").await.0, 404);
    let denied =
        ask_read_only(&machine, &["/containerLogs/default/web-node1/main", "/runningpods/", "/exec/a/b/c"]).await;
    assert_eq!(denied, [405; 3], "for who has said who he is");
    assert_eq!(ask_read_only(&machine, &["/configz"]).await, [404]);
    let config = machine.json("/configz").await["kubeletconfig"].clone();
    assert_eq!(config["staticPodPath"], machine.path("manifests").display().to_string());
    assert_eq!(config["readOnlyPort"], machine.read_only.port());
    machine.stop().await;
}

/// What a command below `kubeboot agent` says, and whether it ended well.
fn ask(machine: &Machine, words: &[&str]) -> (bool, String, String) {
    let socket = machine.socket().display().to_string();
    let Ran { code, stdout, stderr } = command::kubeboot(&[&["agent"], words, &["--control-socket", &socket]].concat());
    (code == 0, stdout, stderr)
}

#[tokio::test(flavor = "multi_thread")]
async fn people_ask_the_agent_for_pods_logs_and_what_happened() {
    let machine = Served::start().await;
    let script = "echo begun; trap 'echo bye; exit 3' TERM; sleep 100000 & wait";
    let probe = "    readinessProbe: {exec: {command: [\"true\"]}}\n    volumeMounts: [{name: v, mountPath: /v}]\n";
    let volume = "  volumes: [{name: v, hostPath: {path: /proc}}]\n";
    let spec = format!("{GRACE}  hostNetwork: true\n{volume}  containers:\n{}{probe}", container("main", script));
    machine.write("web", &spec);
    // Healthy comes before ready, which keeps to the probe's own period.
    let ready = |r: &HealthReport| pod(r, "web").is_some_and(|pod| pod.ready);
    let report = machine.until("it is ready", ready).await;
    let report = pod(&report, "web").unwrap();

    let (well, table, _) = ask(&machine, &["ps"]);
    let row: Vec<_> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert!(well && row[..5] == ["default", "web-node1", "1/1", "Running", "0"], "{table}");
    assert_eq!(row[6], machine.path("manifests/web.yaml").display().to_string());
    let (_, containers, _) = ask(&machine, &["ps", "--containers"]);
    assert!(
        containers.lines().nth(1).unwrap().contains(&report.containers[0].id.clone().unwrap()[..12]),
        "{containers}"
    );
    let json: Value = serde_json::from_str(&ask(&machine, &["ps", "-o", "json"]).1).unwrap();
    assert_eq!((&json["kind"], &json["items"][0]["status"]["phase"]), (&"PodList".into(), &"Running".into()));

    let follow = tokio::process::Command::new(program())
        .args(["agent", "logs", "-f", "web", "--control-socket"])
        .arg(machine.socket())
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut followed = tokio::io::BufReader::new(follow.stdout.unwrap());
    let mut first = String::new();
    tokio::io::AsyncBufReadExt::read_line(&mut followed, &mut first).await.unwrap();
    assert_eq!(first, "begun\n");
    let id = report.containers[0].id.clone().unwrap();
    command::run("docker", &["stop", &id]).ok();
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(LIMIT, followed.read_to_end(&mut rest)).await.unwrap();
    let rest = String::from_utf8(rest).unwrap();
    assert!(rest.ends_with("bye\n"), "{rest}");
    machine.until("it is restarted", |r| pod_restarts(r, "web") == 1 && ready(r)).await;
    let (well, previous, _) = ask(&machine, &["logs", "--previous", "--tail=1", "default/web-node1"]);
    assert!(well && previous == "bye\n", "{previous}");

    let (well, text, _) = ask(&machine, &["describe", "web"]);
    for words in ["Exit Code:  3", "Last State:   Terminated", "exec [true]", "v: hostPath path=/proc", "Ready"] {
        let found = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(well && found.contains(&words.split_whitespace().collect::<Vec<_>>().join(" ")), "{words}:\n{text}");
    }
    let (well, events, _) = ask(&machine, &["events", "web"]);
    assert!(well && events.lines().any(|line| line.contains("Started")), "{events}");
    let json: Value = serde_json::from_str(&ask(&machine, &["events", "-o", "json"]).1).unwrap();
    assert_eq!(json[0]["pod"], "web-node1");

    let (well, _, error) = ask(&machine, &["describe", "other"]);
    assert!(!well && error.contains("no pod is called other") && error.contains("default/web-node1"), "{error}");
    let (_, _, error) = ask(&machine, &["logs", "web", "-c", "side"]);
    assert!(error.contains("no container side") && error.contains("main"), "{error}");
    machine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_does_not_run_is_told_with_what_to_do() {
    let Served { machine, agent, .. } = Served::start().await;
    assert_eq!(ask(&machine, &["ps"]).1, "the agent runs no pods\n");
    agent.stop().await;
    for words in [&["ps"][..], &["logs", "web"], &["describe", "web"], &["events"]] {
        let (well, _, error) = ask(&machine, words);
        assert!(!well && error.contains("no agent answers") && error.contains("hint: start the agent"), "{error}");
    }
}
