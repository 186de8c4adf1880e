//! What people do with kubectl to static pods: the rows 84 and 85 of the table of behaviours.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kubeboot::testing::real::image;

use crate::engine::Engine;
use crate::machine::*;

const SOON: Duration = Duration::from_secs(30);
const API: &str = "https://127.0.0.1:10250";
/// The line ends of a terminal and the loss of half of what was written show from some buffers' worth on.
const MUCH: usize = 3 << 20;
/// A pod of the host's network whose main process reads its input, and whose image has a shell.
const MANIFEST: &str = "apiVersion: v1
kind: Pod
metadata: {name: shell, namespace: kube-system}
spec:
  hostNetwork: true
  terminationGracePeriodSeconds: 1
  containers:
  - name: shell
    image: IMAGE
    imagePullPolicy: Never
    command: [/bin/busybox, sh, -c, 'echo began; while read -r line; do echo \"heard $line\"; [ \"$line\" != die ] || exit 3; done']
    stdin: true
";
const FILE: &str = "/etc/kubernetes/manifests/shell.yaml";

pub fn kubectl_command(args: &[&str]) -> Command {
    let mut command = Command::new("kubectl");
    command.args(["--kubeconfig", ADMIN_CONF, "-n", "kube-system"]).args(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// kubectl with this input, until it ends.
fn fed(args: &[&str], input: &[u8]) -> (i32, Vec<u8>) {
    let mut child = kubectl_command(args).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    let _ = writer.join();
    (output.status.code().unwrap_or(-1), output.stdout)
}

pub fn ended(mut child: Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// The shell's pod, and its image; both go before the control plane does.
pub struct Shell {
    /// The pod's name.
    pub pod: String,
    engine: Engine,
    _plane: (Option<Shared>, Option<ControlPlane>),
}

impl Shell {
    #[track_caller]
    pub fn start(engine: &Engine) -> Self {
        image::made();
        engine.bring(&[IMAGE]);
        let plane = engine.plane();
        put(Path::new(FILE), MANIFEST.replace("IMAGE", IMAGE));
        let shell = Self { pod: format!("shell-{}", node_name()), engine: engine.clone(), _plane: plane };
        shell.restarted(0);
        shell
    }

    /// Waits until the API server shows the pod ready, restarted so often.
    #[track_caller]
    fn restarted(&self, times: u32) {
        const PATH: &str = "jsonpath={.status.containerStatuses[0].ready} {.status.containerStatuses[0].restartCount}";
        eventually("the shell's pod", SOON, || {
            let shown = kubectl(&["-n", "kube-system", "get", "pod", &self.pod, "-o", PATH]).stdout;
            if shown == format!("true {times}") { Ok(()) } else { Err(shown) }
        });
    }

    /// The node's name.
    pub fn node(&self) -> &str {
        self.pod.trim_start_matches("shell-")
    }

    fn on_it<'a>(&'a self, verb: &[&'a str], rest: &[&'a str]) -> Vec<&'a str> {
        [verb, &[self.pod.as_str()], rest].concat()
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // Its manifest is not kubeboot's, and reset would leave it.
        let _ = std::fs::remove_file(FILE);
        eventually("the shell's pod gone", SOON, || self.engine.containers("shell", Some(&self.pod)).is_empty());
    }
}

pub fn b084_kubectl_reaches_static_pods() {
    reaches(&Shell::start(&Engine::Docker));
}

/// All that kubectl does with a pod.
pub fn reaches(shell: &Shell) {
    logs(shell);
    exec(shell);
    over_web_socket(shell);
    attach_and_previous_logs(shell);
    port_forward(shell);
    let node = shell.node();
    let stats = kubectl(&["get", "--raw", &format!("/api/v1/nodes/{node}/proxy/stats/summary")]).ok();
    let stats: serde_json::Value = serde_json::from_str(&stats).unwrap();
    let pods = stats["pods"].as_array().unwrap();
    let memory = |pod: &serde_json::Value| pod["memory"]["workingSetBytes"].as_u64().unwrap_or(0);
    let apiserver = pods.iter().find(|pod| pod["podRef"]["name"] == format!("kube-apiserver-{node}")).unwrap();
    assert!(memory(apiserver) > 1 << 20, "{apiserver}");
}

fn logs(shell: &Shell) {
    let said = |args: &[&str]| kubectl(&[&["-n", "kube-system", "logs"], args].concat());
    assert_eq!(said(&[&shell.pod]).ok(), "began\n");
    let component = shell.pod.replace("shell-", "kube-apiserver-");
    assert_eq!(said(&[&component, "--tail", "2"]).ok().lines().count(), 2);
    assert!(said(&[&component, "--limit-bytes", "10"]).ok().len() == 10);
    let stamped = said(&[&shell.pod, "--timestamps"]).ok();
    assert!(stamped.starts_with("20") && stamped.ends_with("Z began\n"), "{stamped}");
    let none = said(&[&shell.pod, "--previous"]).code(1);
    assert!(none.contains("previous terminated container"), "{none}");
}

fn exec(shell: &Shell) {
    let plain = shell.on_it(&["exec"], &["--", "/bin/busybox", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    let output = kubectl_command(&plain).output().unwrap();
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    assert_eq!(output.stdout, b"out\n");
    assert!(output.stderr.starts_with(b"err\n"), "{output:?}");

    let much: Vec<u8> = (0..MUCH).map(|n| u8::try_from(n * 7 % 251).unwrap()).collect();
    let (code, back) = fed(&shell.on_it(&["exec", "-i"], &["--", "/bin/busybox", "cat"]), &much);
    assert_eq!((code, back.len()), (0, MUCH));
    assert!(back == much, "3 MB came back changed");

    // A terminal of a size of its own, as `script` makes one.
    let line = format!(
        "stty rows 33 cols 101; kubectl --kubeconfig {ADMIN_CONF} -n kube-system exec -it {} -- /bin/busybox sh -c \
         '/bin/busybox sleep 1; /bin/busybox stty size'",
        shell.pod
    );
    let seen = run("script", &["-qec", &line, "/dev/null"]).ok();
    assert!(seen.contains("33 101\r\n"), "{seen:?}");

    let missing = kubectl_command(&shell.on_it(&["exec"], &["--", "/nonexistent"])).output().unwrap();
    assert_eq!(missing.status.code(), Some(shell.engine.code_of_a_missing_program()), "{missing:?}");
    let said = [missing.stdout, missing.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("no such file"), "{said}");
}

/// As a browser asks, and a kubectl that is newer than this cluster: each message begins with its channel.
fn over_web_socket(shell: &Shell) {
    let server = kubectl(&["config", "view", "-o", "jsonpath={.clusters[0].cluster.server}"]).ok();
    let command = "command=/bin/busybox&command=echo&command=over+a+web+socket&stdout=1&stderr=1";
    let url = format!("{server}/api/v1/namespaces/kube-system/pods/{}/exec?{command}", shell.pod);
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| {
        let field = format!("jsonpath={{.users[0].user.client-{name}-data}}");
        let pem = STANDARD.decode(kubectl(&["config", "view", "--raw", "-o", &field]).ok()).unwrap();
        let path = dir.path().join(name);
        create(&path, &pem);
        path.to_str().unwrap().to_owned()
    };
    let (cert, key) = (file("certificate"), file("key"));
    let asked = [
        ["--cert", &cert],
        ["--key", &key],
        ["-H", "Connection: Upgrade"],
        ["-H", "Upgrade: websocket"],
        ["-H", "Sec-WebSocket-Version: 13"],
        ["-H", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="],
        ["-H", "Sec-WebSocket-Protocol: v4.channel.k8s.io"],
    ]
    .concat();
    let said = run("curl", &[&["-skiN", "--http1.1", "--max-time", "20"], asked.as_slice(), &[&url]].concat());
    assert!(said.stdout.starts_with("HTTP/1.1 101 "), "{said:?}");
    assert!(said.stdout.contains("\u{1}over a web socket\n"), "{said:?}");
    assert!(said.stdout.contains("\u{3}{\"metadata\":{},\"status\":\"Success\"}"), "{said:?}");
}

fn attach_and_previous_logs(shell: &Shell) {
    let mut attached = kubectl_command(&shell.on_it(&["attach", "-i"], &[])).spawn().unwrap();
    let mut stdin = attached.stdin.take().unwrap();
    let mut lines = BufReader::new(attached.stdout.take().unwrap()).lines();
    stdin.write_all(b"hello\n").unwrap();
    assert_eq!(lines.find(|line| line.as_ref().is_ok_and(|l| l.starts_with("heard"))).unwrap().unwrap(), "heard hello");

    let mut follower = kubectl_command(&shell.on_it(&["logs", "-f"], &[])).spawn().unwrap();
    let mut followed = BufReader::new(follower.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(followed.any(|line| line == "heard hello"));
    stdin.write_all(b"die\n").unwrap();
    assert_eq!(followed.next().as_deref(), Some("heard die"), "followed until the end");
    assert_eq!(followed.next(), None);
    assert!(follower.wait().unwrap().success());
    drop(stdin);
    attached.wait().unwrap();

    shell.restarted(1);
    let previous = kubectl(&["-n", "kube-system", "logs", "--previous", &shell.pod]).ok();
    assert_eq!(previous, "began\nheard hello\nheard die\n");
}

fn port_forward(shell: &Shell) {
    let etcd = format!("pod/{}", shell.pod.replace("shell-", "etcd-"));
    let mut child = kubectl_command(&["port-forward", &etcd, "12381:2381"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("127.0.0.1:12381"));
    for _ in 0..3 {
        let answer = run("curl", &["-s", "--max-time", "10", "http://127.0.0.1:12381/health"]).ok();
        assert!(answer.contains("\"health\":\"true\""), "{answer}");
    }
    ended(child);
}

/// The status that the API answers with.
fn asked(method: &str, path: &str, more: &[&str]) -> (String, String) {
    let url = format!("{API}{path}");
    let all = [&["-sk", "--max-time", "20", "-X", method, "-w", "\n%{http_code}", &url], more].concat();
    let said = run("curl", &all).ok();
    let (body, code) = said.rsplit_once('\n').unwrap();
    (body.to_owned(), code.to_owned())
}

pub fn b085_the_api_of_the_node_asks_who_and_whether_he_may() {
    let _plane = Shared::plane();
    eventually("the node's API", SOON, || (run("curl", &["-sk", API]).code == 0).then_some(()));
    assert_eq!(asked("GET", "/pods", &[]), ("Unauthorized".into(), "401".into()));
    assert_eq!(asked("GET", "/healthz", &["-H", "Authorization: Bearer nobody"]).1, "401");
    // A user of this cluster whom no binding lets at nodes.
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let pki = "/etc/kubernetes/pki";
    create(path("ext").as_ref(), b"extendedKeyUsage=clientAuth\n");
    let made = format!(
        "openssl req -newkey rsa:2048 -nodes -keyout {key} -out {csr} -subj /CN=jane && openssl x509 -req -in {csr} -CA \
         {pki}/ca.crt -CAkey {pki}/ca.key -set_serial 7 -days 1 -extfile {ext} -out {crt}",
        key = path("key"),
        csr = path("csr"),
        ext = path("ext"),
        crt = path("crt")
    );
    run("sh", &["-c", &made]).ok();
    let jane = ["--cert", &path("crt"), "--key", &path("key")];
    let (words, code) = asked("POST", "/exec/kube-system/etcd/etcd?command=id&output=1", &jane);
    assert_eq!(code, "403", "{words}");
    assert!(words.contains("user=jane, verb=create, resource=nodes, subresource"), "{words}");
    let (cert, key) = (format!("{pki}/apiserver-kubelet-client.crt"), format!("{pki}/apiserver-kubelet-client.key"));
    let server = ["--cert", &cert, "--key", &key];
    let (pods, code) = asked("GET", "/pods", &server);
    assert_eq!(code, "200", "{pods}");
    assert!(pods.contains("kube-apiserver-"), "{pods}");
    assert_eq!(run("curl", &["-s", "http://127.0.0.1:10248/healthz"]).ok(), "ok");
}
