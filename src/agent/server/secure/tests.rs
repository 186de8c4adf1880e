use std::net::SocketAddr;
use std::time::Duration;

use jiff::Timestamp;
use rustls_pki_types::ServerName;
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::agent::board;
use crate::agent::control::report::{ContainerReport, StateReport};
use crate::agent::options::AgentOptions;
use crate::agent::options::{Authorization, ServerOptions};
use crate::agent::pod::PodKey;
use crate::agent::probe::Prober;
use crate::runtime::ContainerRuntime;
use crate::testing::runtime::{FakeRuntime, container_config};
use crate::testing::tls::connector;

/// Longer than an answer takes on a busy machine, and far below what one waits behind strangers.
const SOON: Duration = Duration::from_secs(8);

/// An API that is served, with a pod `p` of which the container `c` runs.
struct Bench {
    address: SocketAddr,
    read_only: SocketAddr,
    end: CancellationToken,
    task: tokio::task::JoinHandle<((), ())>,
    _dir: TempDir,
}

impl Bench {
    async fn start(change: impl FnOnce(&mut ServerOptions)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        let (listener, open) = (http::bind(local).await.unwrap(), http::bind(local).await.unwrap());
        let (address, read_only) = (listener.local_addr().unwrap(), open.local_addr().unwrap());
        let mut options = AgentOptions::new("node1");
        options.root_dir = dir.path().join("root");
        options.node.cert_dir = dir.path().join("pki");
        options.server = ServerOptions {
            anonymous: true,
            tokens: false,
            authorization: Authorization::AlwaysAllow,
            ..ServerOptions::default()
        };
        change(&mut options.server);
        let fake = FakeRuntime::new().with_image("x:1");
        let id = fake.create_container(&container_config("o", "p", "c", 0, "x:1")).await.unwrap();
        fake.start(&id).await.unwrap();
        fake.write_log(&id, "a line");
        let (runtime, end) = (Arc::new(fake) as Arc<dyn ContainerRuntime>, CancellationToken::new());
        let checker = Arc::new(Prober::new(Arc::clone(&runtime)));
        let context = Context::new(options, runtime, checker, end.clone());
        let mut entry = board::tests::entry(true, 1);
        entry.report.name = "p".into();
        entry.report.containers = vec![ContainerReport {
            name: "c".into(),
            init: false,
            image: "x:1".into(),
            id: Some(id.clone()),
            state: StateReport::Running { started_at: Timestamp::UNIX_EPOCH },
            last_termination: None,
            started: true,
            ready: true,
            healthy: true,
            restarts: 0,
            probe_message: None,
        }];
        let started = Timestamp::UNIX_EPOCH.to_string();
        let container = json!({
            "name": "c", "image": "x:1", "imageID": "x", "containerID": format!("docker://{id}"), "ready": true,
            "restartCount": 0, "state": {"running": {"startedAt": started}},
        });
        entry.status = serde_json::from_value(json!({"containerStatuses": [container]})).unwrap();
        context.board.set_pod(&PodKey { namespace: "default".into(), name: "p".into() }, entry);
        let secure = serve(listener, Arc::clone(&context), end.clone()).unwrap();
        let open = crate::agent::server::serve(open, context, end.clone());
        let task = tokio::spawn(async move { tokio::join!(secure, open) });
        Self { address, read_only, end, task, _dir: dir }
    }

    /// A connection; the certificate may have to be made first.
    async fn connect(&self) -> TlsStream<TcpStream> {
        let connector = connector();
        loop {
            let stream = TcpStream::connect(self.address).await.unwrap();
            if let Ok(stream) = connector.connect(ServerName::try_from("node1").unwrap(), stream).await {
                return stream;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Asks, and reads the status. What follows comes on the connection.
    async fn ask(&self, path: &str) -> (u16, TlsStream<TcpStream>) {
        let asked = async {
            let mut stream = self.connect().await;
            let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut head = [0; 12];
            stream.read_exact(&mut head).await.unwrap();
            (std::str::from_utf8(&head[9..]).unwrap().parse().unwrap(), stream)
        };
        tokio::time::timeout(SOON, asked).await.unwrap_or_else(|_| panic!("no answer to {path}"))
    }

    async fn status(&self, path: &str) -> u16 {
        self.ask(path).await.0
    }

    /// The answer at the read-only address.
    async fn read_only(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.read_only).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), body.to_owned())
    }

    async fn end(self) {
        self.end.cancel();
        self.task.await.unwrap();
    }
}

/// What is asked for by those who look after a node. The container runtime here gives no streams.
const NEEDED: [(&str, u16); 3] =
    [("/healthz", 200), ("/metrics", 200), ("/exec/default/p/c?command=true&output=1", 501)];

#[tokio::test]
async fn any_number_of_strangers_keeps_no_client_out_and_few_of_them_stay() {
    let bench = Bench::start(|_| ()).await;
    bench.connect().await;
    let mut strangers = Vec::new();
    for _ in 0..200 {
        strangers.push(TcpStream::connect(bench.address).await.unwrap());
    }
    for (path, status) in NEEDED {
        assert_eq!(bench.status(path).await, status, "{path}");
    }
    // Those who came first have made room.
    let mut gone = 0;
    for stranger in &mut strangers[..100] {
        let left = tokio::time::timeout(SOON, stranger.read(&mut [0; 1])).await;
        gone += usize::from(matches!(left, Ok(Ok(0) | Err(_))));
    }
    assert_eq!(gone, 100);
    bench.end().await;
}

#[tokio::test]
async fn a_client_without_credentials_gets_one_answer() {
    let bench = Bench::start(|server| server.anonymous = false).await;
    let (status, mut stream) = bench.ask("/healthz").await;
    assert_eq!(status, 401);
    let mut rest = Vec::new();
    let read = tokio::time::timeout(SOON, stream.read_to_end(&mut rest)).await;
    assert!(read.is_ok(), "the connection stays open");
    let rest = String::from_utf8_lossy(&rest).to_lowercase();
    assert!(rest.contains("\r\nconnection: close\r\n") && rest.ends_with("\r\n\r\nunauthorized"), "{rest}");
    bench.end().await;
}

#[tokio::test]
async fn logs_that_are_followed_leave_room_for_what_a_node_needs() {
    let bench = Bench::start(|_| ()).await;
    let log = "/containerLogs/default/p/c?follow=true";
    let mut followed = Vec::new();
    for _ in 0..64 {
        let (status, stream) = bench.ask(log).await;
        assert_eq!(status, 200);
        followed.push(stream);
    }
    assert_eq!(bench.status(log).await, 429);
    for (path, status) in NEEDED {
        assert_eq!(bench.status(path).await, status, "{path}");
    }
    drop(followed);
    let free = async {
        while bench.status(log).await != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, free).await.expect("whoever leaves makes room");
    bench.end().await;
}

/// What shows containers from within, which a kubelet without debugging handlers says are disabled.
const DEBUGGING: [&str; 9] = [
    "/exec/default/p/c?command=true&output=1",
    "/run/default/p/c?cmd=true",
    "/attach/default/p/c?output=1",
    "/portForward/default/p?port=80",
    "/containerLogs/default/p/c",
    "/runningpods/",
    "/runningpods",
    "/logs/",
    "/debug/pprof/",
];
/// What such a kubelet has all the same, and what it has not.
const REST: [(&str, u16); 9] = [
    ("/configz", 404),
    ("/execute", 404),
    ("/pods", 200),
    ("/metrics", 200),
    ("/metrics/slis", 200),
    ("/statusz", 404),
    ("/flagz", 404),
    ("/healthz", 200),
    ("/stats/summary", 200),
];

#[tokio::test]
async fn without_debugging_handlers_nothing_shows_containers_from_within() {
    let bench = Bench::start(|server| server.debugging = false).await;
    for path in DEBUGGING {
        assert_eq!(bench.status(path).await, 405, "{path}");
    }
    for (path, status) in REST {
        assert_eq!(bench.status(path).await, status, "{path}");
    }
    bench.end().await;
}

#[tokio::test]
async fn the_read_only_address_has_no_debugging_handlers_whatever_the_options_say() {
    let bench = Bench::start(|server| server.debugging = true).await;
    for path in DEBUGGING {
        assert_eq!(bench.read_only(path).await, (405, "Debug endpoints are disabled.\n".to_owned()), "{path}");
    }
    for (path, status) in REST {
        assert_eq!(bench.read_only(path).await.0, status, "{path}");
    }
    for (page, metric, is_there) in [
        ("/metrics", "\nkubelet_desired_pods{static=\"true\"} 1\n", true),
        ("/metrics", "prober_probe_total", false),
        ("/metrics/probes", "# TYPE prober_probe_total counter\n", true),
        ("/metrics/slis", "\nkubernetes_healthcheck{name=\"ping\",type=\"healthz\"} 1\n", true),
    ] {
        assert_eq!(bench.read_only(page).await.1.contains(metric), is_there, "{page}: {metric}");
    }
    for path in ["/containerLogs/default/p/c", "/runningpods/", "/configz", "/flagz", "/statusz"] {
        assert_eq!(bench.status(path).await, 200, "{path} is there for who has rights");
    }
    bench.end().await;
}
