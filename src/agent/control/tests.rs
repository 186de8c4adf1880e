use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::agent::control::report::{HealthReport, Problem};
use crate::agent::events::Subject;
use crate::agent::pod::PodKey;
use crate::testing::report;

fn numbered(sequence: u64) -> Arc<HealthReport> {
    Arc::new(HealthReport { sequence, ..report::report(vec![]) })
}

/// A desk on which nothing lies but a log.
#[derive(Default)]
struct Bare(Recorder);

#[async_trait]
impl AgentView for Bare {
    fn pods(&self) -> PodList {
        PodList { pods: vec![PodView { pod: Pod::default(), report: crate::testing::report::pod("etcd", "hash") }] }
    }

    fn events(&self) -> &Recorder {
        &self.0
    }

    async fn logs(&self, wanted: &LogRequest) -> Result<BoxStream<'static, runtime::Result<Bytes>>, LogError> {
        if wanted.pod != "p" {
            return Err(LogError::NoPod { pod: wanted.pod.clone() });
        }
        let pieces = ["{\"error\":\"no refusal\"}\n", "no line break"];
        Ok(futures::stream::iter(pieces.map(|piece| Ok(Bytes::from(piece)))).boxed())
    }

    fn restart(&self, uid: &str) -> bool {
        uid == "uid"
    }

    fn look_for_upgrade(&self) -> bool {
        false
    }
}

struct Bench {
    view: Arc<Bare>,
    _dir: tempfile::TempDir,
    socket: PathBuf,
    reports: watch::Sender<Arc<HealthReport>>,
    shutdown: CancellationToken,
    server: JoinHandle<()>,
}

async fn bench() -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("run/agent.sock");
    let (reports, receiver) = watch::channel(numbered(1));
    let shutdown = CancellationToken::new();
    let listener = bind(&socket).await.unwrap();
    let view = Arc::new(Bare::default());
    let server = tokio::spawn(serve(listener, receiver, view.clone(), shutdown.clone()));
    Bench { view, _dir: dir, socket, reports, shutdown, server }
}

/// What the server says to `request`, to the end.
async fn ask(bench: &Bench, request: &str) -> String {
    let mut stream = UnixStream::connect(&bench.socket).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_report_is_one_line_and_the_socket_is_for_its_owner_alone() {
    let bench = bench().await;
    assert_eq!(report(&bench.socket).await.unwrap(), *numbered(1));
    assert_eq!(std::fs::metadata(&bench.socket).unwrap().permissions().mode() & 0o777, 0o600);
    for request in ["{\"request\":\"report\"}\n", "{\"version\":1,\"request\":\"report\"}\n"] {
        let answer = ask(&bench, request).await;
        assert_eq!(answer.lines().count(), 1);
        assert_eq!(serde_json::from_str::<HealthReport>(&answer).unwrap(), *numbered(1));
    }
}

#[tokio::test]
async fn a_watcher_gets_the_present_report_and_each_that_follows_until_the_agent_ends() {
    let bench = bench().await;
    let mut watching = watch(&bench.socket).await.unwrap();
    for sequence in 1..4 {
        assert_eq!(watching.next().await.unwrap().unwrap().sequence, sequence);
        bench.reports.send_replace(numbered(sequence + 1));
    }
    assert_eq!(watching.next().await.unwrap().unwrap().sequence, 4);
    bench.shutdown.cancel();
    bench.server.await.unwrap();
    assert!(watching.next().await.is_none());
    assert!(!bench.socket.exists(), "the socket file goes with the agent");
}

#[tokio::test]
async fn pods_are_told_once_and_events_as_they_happen() {
    let bench = bench().await;
    assert_eq!(pods(&bench.socket).await.unwrap(), bench.view.pods());
    let key = PodKey { namespace: "default".into(), name: "p-n".into() };
    let happen = |reason: &str| bench.view.0.normal(Subject { pod: &key, uid: "u", container: None }, reason, "so");
    happen("Pulled");
    let mut watching = events(&bench.socket, true).await.unwrap();
    assert_eq!(watching.next().await.unwrap().unwrap().reason, "Pulled");
    happen("Started");
    assert_eq!(watching.next().await.unwrap().unwrap().reason, "Started");
    let past: Vec<_> = events(&bench.socket, false).await.unwrap().map(|event| event.unwrap().reason).collect().await;
    assert_eq!(past, ["Pulled", "Started"]);
}

#[tokio::test]
async fn a_log_comes_as_it_is_and_a_refusal_before_it() {
    let bench = bench().await;
    let wanted = LogRequest { pod: "p".into(), ..LogRequest::default() };
    let mut log = logs(&bench.socket, &wanted).await.unwrap();
    let mut text = Vec::new();
    while let Some(bytes) = log.next().await.unwrap() {
        text.extend_from_slice(&bytes);
    }
    assert_eq!(text, b"{\"error\":\"no refusal\"}\nno line break");
    let other = LogRequest { pod: "q".into(), ..LogRequest::default() };
    let refused = logs(&bench.socket, &other).await.err().unwrap();
    assert!(matches!(refused, ControlError::Refused { message, .. } if message.contains("does not exist")));
    let answer = ask(&bench, "{\"request\":\"logs\"}\n").await;
    assert!(answer.contains("does not say whose log"), "{answer}");
}

#[tokio::test]
async fn a_restart_is_taken_or_refused() {
    let bench = bench().await;
    restart(&bench.socket, "uid").await.unwrap();
    let refused = restart(&bench.socket, "other").await.err().unwrap();
    assert!(matches!(refused, ControlError::Refused { message, .. } if message == "no pod has the UID \"other\""));
    assert!(ask(&bench, "{\"request\":\"restart\"}\n").await.contains("no pod has the UID"));
}

#[tokio::test]
async fn a_watcher_that_does_not_read_holds_nobody_up_and_gets_the_newest_then() {
    let bench = bench().await;
    let mut slow = watch(&bench.socket).await.unwrap();
    let problem = Problem::error("x".repeat(200_000), "");
    for sequence in 2..50 {
        let mut report = (*numbered(sequence)).clone();
        report.problems.push(problem.clone());
        bench.reports.send_replace(Arc::new(report));
        assert_eq!(report_of(&bench).await, sequence);
    }
    let mut seen = vec![];
    while seen.last() != Some(&49) {
        seen.push(slow.next().await.unwrap().unwrap().sequence);
    }
    assert!(seen.is_sorted() && seen.len() < 48, "{seen:?}");
}

async fn report_of(bench: &Bench) -> u64 {
    report(&bench.socket).await.unwrap().sequence
}

#[tokio::test]
async fn a_request_that_cannot_be_answered_gets_one_line_that_says_why() {
    let bench = bench().await;
    for (request, why) in [
        ("{\"request\":\"reboot\"}\n", "unknown request \"reboot\""),
        ("{\"version\":2,\"request\":\"report\"}\n", "speaks version 1"),
        ("GET / HTTP/1.1\r\n", "cannot read the request"),
        ("", "cannot read the request"),
    ] {
        let answer: serde_json::Value = serde_json::from_str(&ask(&bench, request).await).unwrap();
        assert!(answer["error"].as_str().unwrap().contains(why), "{answer}");
    }
}

#[tokio::test]
async fn clients_beyond_the_limit_are_turned_away_and_let_in_when_others_leave() {
    let bench = bench().await;
    let mut watching = Vec::new();
    let refused = loop {
        let mut one = watch(&bench.socket).await.unwrap();
        match one.next().await.unwrap() {
            Ok(_) => watching.push(one),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, ControlError::Refused { message, .. } if message.contains("connected already")));
    assert_eq!(watching.len(), 32);
    drop(watching);
    let come_back = async { while report(&bench.socket).await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(10), come_back).await.unwrap();
}

#[tokio::test]
async fn nobody_at_the_socket_is_an_agent_that_does_not_run() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("agent.sock");
    assert!(matches!(report(&socket).await, Err(ControlError::NotRunning { .. })));
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    assert!(matches!(watch(&socket).await.map(|_| ()), Err(ControlError::NotRunning { .. })));
}

#[tokio::test]
async fn a_socket_left_behind_is_replaced_and_one_that_answers_or_is_no_socket_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("agent.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let first = bind(&socket).await.unwrap();
    assert!(matches!(bind(&socket).await, Err(ControlError::InUse { .. })));
    assert_eq!(first.path(), socket);
    drop(first);
    assert!(!socket.exists());
    std::fs::File::create(&socket).unwrap();
    assert!(matches!(bind(&socket).await, Err(ControlError::Listen { .. })));
    assert!(socket.exists(), "a file that is not ours stays");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}
