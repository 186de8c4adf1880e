use std::os::unix::fs::PermissionsExt;

use futures::StreamExt;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tonic::Code;

use super::messages::{EventType, WatchPodsEvent};
use super::*;
use crate::agent::board;
use crate::agent::options::AgentOptions;
use crate::agent::pod::tests::read;
use crate::agent::probe::Prober;
use crate::agent::rpc::DIRECTORY_MODE;
use crate::host::socket;
use crate::runtime::ContainerRuntime;
use crate::runtime::cri::rpc::Rpc;
use crate::testing::runtime::FakeRuntime;

/// Of a `v1.Pod`, what the tests look at.
#[derive(Clone, PartialEq, prost::Message)]
struct PodHead {
    #[prost(message, optional, tag = "1")]
    metadata: Option<Metadata>,
    #[prost(message, optional, tag = "3")]
    status: Option<Phase>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Metadata {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "5")]
    uid: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Phase {
    #[prost(string, tag = "1")]
    phase: String,
}

/// The pods API of an agent without pods.
struct Bench {
    context: Arc<Context>,
    end: CancellationToken,
    server: JoinHandle<()>,
    path: PathBuf,
    client: Rpc,
    _dir: TempDir,
}

impl Bench {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut options = AgentOptions::new("node1");
        options.root_dir = dir.path().join("root");
        let path = super::socket(&options.root_dir);
        let listener = socket::bind(&path, DIRECTORY_MODE).await.unwrap();
        let (runtime, end) = (Arc::new(FakeRuntime::new()) as Arc<dyn ContainerRuntime>, CancellationToken::new());
        let checker = Arc::new(Prober::new(Arc::clone(&runtime)));
        let context = Context::new(options, runtime, checker, end.clone());
        let server = tokio::spawn(serve(listener, Arc::clone(&context), end.clone()));
        let client = Rpc::new(&format!("unix://{}", path.display())).unwrap();
        Self { context, end, server, path, client, _dir: dir }
    }

    /// Puts a pod of this name on the board, and returns its UID.
    fn set(&self, name: &str, message: &str) -> String {
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{containers: [{{name: c, image: 'x:1'}}]}}\n"
        );
        let pod = Arc::new(read(&text).unwrap());
        let mut entry = Entry { pod: Some(Arc::clone(&pod)), ..board::tests::entry(true, 1) };
        entry.report.uid.clone_from(&pod.uid);
        (entry.status.phase, entry.status.message) = (Some("Running".into()), Some(message.into()));
        self.context.board.set_pod(&pod.key, entry);
        pod.uid.clone()
    }

    async fn list(&self) -> Result<Vec<PodHead>, Status> {
        let all: ListPodsResponse = self.client.unary(&method("ListPods"), Everything {}, None).await?;
        Ok(all.pods.iter().map(|pod| PodHead::decode(&pod[..]).unwrap()).collect())
    }
}

fn method(name: &str) -> String {
    format!("{SERVICE}{name}")
}

fn uid(pod: &PodHead) -> String {
    pod.metadata.clone().unwrap_or_default().uid
}

#[tokio::test]
async fn pods_are_listed_by_uid_and_got_by_it() {
    let bench = Bench::start().await;
    assert_eq!(bench.list().await.unwrap(), []);
    let mut uids: Vec<String> = ["a", "b", "c"].iter().map(|name| bench.set(name, "")).collect();
    uids.sort();
    let listed = bench.list().await.unwrap();
    assert_eq!(listed.iter().map(uid).collect::<Vec<_>>(), uids);
    let asked = GetPodRequest { pod_uid: uids[1].clone() };
    let got: GetPodResponse = bench.client.unary(&method("GetPod"), asked, None).await.unwrap();
    let got = PodHead::decode(&got.pod[..]).unwrap();
    assert_eq!((uid(&got), got.status.unwrap().phase), (uids[1].clone(), "Running".to_owned()));
    for pod_uid in ["none", ""] {
        let asked = GetPodRequest { pod_uid: pod_uid.to_owned() };
        let error = bench.client.unary::<_, GetPodResponse>(&method("GetPod"), asked, None).await.unwrap_err();
        let words = format!("pod with UID {pod_uid} not found");
        assert_eq!((error.code(), error.message()), (Code::NotFound, words.as_str()));
    }
    for (path, words) in [
        ("/v1alpha1.Pods/Nope", "unknown method Nope for service v1alpha1.Pods"),
        ("/v1.Pods/ListPods", "unknown service v1.Pods"),
    ] {
        let error = bench.client.unary::<_, ListPodsResponse>(path, Everything {}, None).await.unwrap_err();
        assert_eq!((error.code(), error.message()), (Code::Unimplemented, words));
    }
}

#[tokio::test]
async fn a_watch_has_every_pod_a_mark_and_then_what_changes_until_the_agent_ends() {
    let bench = Bench::start().await;
    let first = bench.set("a", "");
    let mut events = bench.client.stream::<_, WatchPodsEvent>(&method("WatchPods"), Everything {}).await.unwrap();
    let mut next = async || {
        let event = events.next().await.unwrap()?;
        Ok::<_, Status>((event.kind(), uid(&PodHead::decode(&event.pod[..]).unwrap())))
    };
    assert_eq!(next().await.unwrap(), (EventType::Added, first.clone()));
    assert_eq!(next().await.unwrap(), (EventType::InitialSyncComplete, String::new()));
    let second = bench.set("b", "");
    assert_eq!(next().await.unwrap(), (EventType::Added, second));
    bench.set("a", "other");
    assert_eq!(next().await.unwrap(), (EventType::Modified, first));
    bench.end.cancel();
    assert_eq!(next().await.unwrap_err().code(), Code::Unavailable);
    bench.server.await.unwrap();
    assert!(!bench.path.exists(), "the socket goes with the agent");
}

#[tokio::test]
async fn a_client_that_does_not_read_is_sent_away_and_counted() {
    let bench = Bench::start().await;
    let mut events = Box::pin(watch::events(Arc::clone(&bench.context)));
    assert_eq!(events.next().await.unwrap().unwrap().kind(), EventType::InitialSyncComplete);
    let mut changes = bench.context.board.changes();
    for number in 0..200 {
        bench.set("a", &number.to_string());
        changes.borrow_and_update();
        // Its task runs once for each change.
        tokio::task::yield_now().await;
    }
    let all: Vec<_> = events.collect().await;
    let (last, before) = all.split_last().unwrap();
    let error = last.as_ref().unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::ResourceExhausted, "watch client channel closed"));
    assert!(before.iter().all(Result::is_ok) && before.len() == 100, "{}", before.len());
    assert_eq!(bench.context.metrics.dropped_pod_events.get(), 1);
}

#[tokio::test]
async fn more_requests_than_the_kubelet_answers_are_refused() {
    let bench = Bench::start().await;
    let mut answers = Vec::new();
    for _ in 0..200 {
        answers.push(bench.list().await.map_err(|error| (error.code(), error.message().to_owned())));
    }
    assert!(answers[..10].iter().all(Result::is_ok), "{answers:?}");
    let refused = Err((Code::ResourceExhausted, "rejected by rate limit".to_owned()));
    assert!(answers.iter().all(|answer| answer.is_ok() || *answer == refused), "{answers:?}");
}

#[tokio::test]
async fn only_its_owner_reaches_the_socket() {
    let bench = Bench::start().await;
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(bench.path.parent().unwrap()), mode(&bench.path)), (0o750, 0o600));
}
