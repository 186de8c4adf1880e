//! The agent from its source on, against a runtime in memory and under a paused clock.

mod admission;
mod ahead;
mod containers;
mod crashes;
mod devices;
mod ending;
mod ends;
mod events;
mod faults;
mod history;
mod leases;
mod pods;
mod stalls;
mod surge;

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::control::report::{HealthReport, PodReport, StateReport};
use super::pod::phase::Phase;
use super::pod::tests::read;
use super::pod::{PodKey, StaticPod};
use super::probe::{Outcome, Target};
use super::source::Update;
use super::*;
use crate::host::clock::Instant;
use crate::runtime::{ContainerState, RuntimeError, RuntimeFeatures, labels};
use crate::testing::runtime::{Behaviour, FakeRuntime, MadeFrom};

/// Answers every check at once: well, unless told otherwise by the path of the request.
#[derive(Default)]
struct Answers(Mutex<HashMap<String, bool>>);

impl Answers {
    fn set(&self, path: &str, well: bool) {
        self.0.lock().unwrap().insert(path.to_owned(), well);
    }
}

#[async_trait]
impl probe::Checker for Answers {
    async fn check(&self, target: &Target, _: Duration) -> Outcome {
        let Target::Http { path, .. } = target else { return Outcome::Success { warning: None } };
        match self.0.lock().unwrap().get(path) {
            Some(false) => Outcome::Failure { message: "said no".into(), refused: false },
            _ => Outcome::Success { warning: None },
        }
    }

    /// What is asked beside another one answers under its path and `beside`.
    async fn check_by(&self, route: &probe::Route, target: &Target, limit: Duration) -> Outcome {
        let Target::Http { tls, host, port, path, headers } = target.clone() else { panic!("{target:?}") };
        let path = if route.is_over() { path } else { format!("{path} beside") };
        self.check(&Target::Http { tls, host, port, path, headers }, limit).await
    }
}

struct World {
    fake: FakeRuntime,
    answers: Arc<Answers>,
    /// Answers checks instead of `answers`.
    checker: Option<Arc<dyn probe::Checker>>,
    root: TempDir,
    agent: Option<Running>,
}

struct Running {
    updates: mpsc::Sender<Update>,
    reports: watch::Receiver<Arc<HealthReport>>,
    events: Arc<super::events::Recorder>,
    view: Arc<Context>,
    end: CancellationToken,
    task: JoinHandle<()>,
}

impl World {
    fn new() -> Self {
        let fake = FakeRuntime::new().with_image("x:1").with_image("x:2").with_image(options::PAUSE_IMAGE);
        Self { fake, answers: Arc::default(), checker: None, root: tempfile::tempdir().unwrap(), agent: None }
    }

    /// Starts an agent on the same root directory; an earlier one ends first, as a killed one does.
    async fn start(&mut self) {
        self.start_with(|_| ()).await;
    }

    /// The same with something else than usual.
    async fn start_with(&mut self, change: impl FnOnce(&mut Context)) {
        self.kill().await;
        let mut options = AgentOptions::new("node1");
        options.root_dir = self.root.path().join("root");
        options.pod_logs_dir = self.root.path().join("pods");
        options.container_logs_dir = self.root.path().join("containers");
        let end = CancellationToken::new();
        let checker = self.checker.clone().unwrap_or_else(|| self.answers.clone());
        let mut context = Context::new(options, Arc::new(self.fake.clone()), checker, end.clone());
        let own = Arc::get_mut(&mut context).unwrap();
        // What pods may use is not to depend on the machine that runs the tests.
        own.allocatable.clear();
        change(own);
        let (reports, events) = (context.board.reports(), Arc::clone(&context.events));
        let view = Arc::clone(&context);
        let (updates, receiver) = mpsc::channel(1);
        let (news_sender, news) = mpsc::channel(64);
        let (linked, until) = (Arc::clone(&context), end.clone());
        context.tasks.spawn(async move { until.run_until_cancelled(runtime_watch::run(linked, news_sender)).await });
        let task = tokio::spawn(async move {
            Supervisor::new(Arc::clone(&context)).run(receiver, news).await;
            context.tasks.close();
            context.tasks.wait().await;
        });
        self.agent = Some(Running { updates, reports, events, view, end, task });
    }

    async fn kill(&mut self) {
        if let Some(agent) = self.agent.take() {
            agent.end.cancel();
            agent.task.await.unwrap();
        }
    }

    /// What the source wants from now on.
    async fn want(&self, pods: &[StaticPod]) {
        let pods = pods.iter().cloned().map(Arc::new).collect();
        self.update(Update { pods, synced: true, ..Update::default() }).await;
    }

    async fn update(&self, update: Update) {
        self.agent.as_ref().unwrap().updates.send(update).await.unwrap();
    }

    /// Waits for a report of which this holds.
    async fn until(&self, what: &str, condition: impl Fn(&HealthReport) -> bool) -> Arc<HealthReport> {
        let mut reports = self.agent.as_ref().unwrap().reports.clone();
        let found = tokio::time::timeout(Duration::from_secs(3600), async {
            reports.wait_for(|report| condition(report)).await.unwrap().clone()
        });
        let found = found.await;
        found.unwrap_or_else(|_| panic!("{what}: {:#?} {:#?}", self.report(), self.fake.calls()))
    }

    fn report(&self) -> Arc<HealthReport> {
        self.agent.as_ref().unwrap().reports.borrow().clone()
    }

    async fn healthy(&self, pod: &str) -> PodReport {
        let report = self.until("healthy", |report| find(report, pod).is_some_and(|pod| pod.healthy)).await;
        find(&report, pod).unwrap().clone()
    }

    /// Waits until the agent has nothing to do but wait for time.
    async fn settle(&self) {
        for _ in 0..200 {
            tokio::task::yield_now().await;
        }
    }

    fn running(&self) -> Vec<String> {
        let all = self.fake.containers().into_iter().filter(|one| one.state.is_running());
        let mut running: Vec<_> =
            all.map(|one| format!("{}/{} {}", one.name.pod, one.name.container, one.name.attempt)).collect();
        running.sort();
        running
    }
}

fn find<'a>(report: &'a HealthReport, pod: &str) -> Option<&'a PodReport> {
    report.pods.iter().find(|one| one.name == format!("{pod}-node1"))
}

/// A pod with one container `main` on the host's network.
fn pod(name: &str, container: &str) -> StaticPod {
    pod_of(name, "hostNetwork: true", container)
}

fn pod_of(name: &str, spec: &str, container: &str) -> StaticPod {
    read(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  {spec}\n  containers:\n  - name: main\n    image: x:1\n    {container}\n"
    ))
    .unwrap()
}

fn component(name: &str) -> StaticPod {
    component_of(name, "x:1")
}

fn component_of(name: &str, image: &str) -> StaticPod {
    read(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: kube-system, labels: {{component: {name}, tier: control-plane}}}}\n\
         spec:\n  hostNetwork: true\n  containers:\n  - name: {name}\n    image: {image}\n    readinessProbe: {{httpGet: {{path: /{name}, port: 1}}}}\n"
    ))
    .unwrap()
}
