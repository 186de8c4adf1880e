//! A trial of the agent by arbitrary pods: from their bytes through admission, plan and execution to their end, on a runtime
//! in memory and under a paused clock. For the fuzzer and the property tests; compiled for tests only.
#![allow(clippy::expect_used, clippy::arithmetic_side_effects, reason = "test support")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::admission::Site;
use super::cluster::bound::admission::NodeOffers;
use super::cluster::bound::bound_pods::BoundPods;
use super::context::Context;
use super::events::Event;
use super::options;
use super::options::AgentOptions;
use super::pod::{Origin, Place, StaticPod};
use super::probe::{Checker, Outcome, Target};
use super::source::Update;
use super::worker::runtime_watch;
use super::worker::supervisor::Supervisor;
use crate::runtime::{PodNetwork, RuntimeError};
use crate::testing::pods::{self, Choices};
use crate::testing::runtime::{Behaviour, FakeRuntime};

/// What has become of a trial.
#[derive(Debug, Default)]
pub struct Outcomes {
    /// Pods that a manifest's reader or the admission took.
    pub taken: usize,
    /// Containers that were started.
    pub started: usize,
    /// Crashes of workers: there must be none.
    pub crashes: Vec<Event>,
    /// Whether everything was gone within three hours of the pods' end, or may take longer by its grace period.
    pub ended: bool,
}

/// Finds every third check of a container unwell.
#[derive(Default)]
struct Moody(AtomicUsize);

#[async_trait]
impl Checker for Moody {
    async fn check(&self, _: &Target, _: Duration) -> Outcome {
        match self.0.fetch_add(1, Ordering::Relaxed) % 3 {
            2 => Outcome::Failure { message: "unwell".into(), refused: false },
            _ => Outcome::Success { warning: None },
        }
    }
}

/// How long pods may take to end that do not ask for more.
const PATIENCE: Duration = Duration::from_secs(3 * 3600);

/// Runs the trial that these bytes choose.
pub fn run(bytes: &[u8]) -> Outcomes {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("a tokio runtime").block_on(Trial::new().run(&mut Choices::new(bytes)))
}

struct Trial {
    fake: FakeRuntime,
    /// A pod asks for more than [`PATIENCE`].
    slow: AtomicBool,
    root: tempfile::TempDir,
}

impl Trial {
    fn new() -> Self {
        let fake = FakeRuntime::new().with_image("x:1").with_image(options::PAUSE_IMAGE);
        Self { fake, slow: AtomicBool::default(), root: tempfile::tempdir().expect("a temporary directory") }
    }

    async fn run(self, choices: &mut Choices<'_>) -> Outcomes {
        let mut options = AgentOptions::new("n");
        options.root_dir = self.root.path().join("root");
        options.pod_logs_dir = self.root.path().join("pods");
        options.container_logs_dir = self.root.path().join("containers");
        let end = CancellationToken::new();
        let mut context = Context::new(options, Arc::new(self.fake.clone()), Arc::new(Moody::default()), end.clone());
        // Whatever pods ask for, they are run.
        Arc::get_mut(&mut context).expect("nobody else has it yet").allocatable.clear();
        let (updates, receiver) = mpsc::channel(1);
        let (news_sender, news) = mpsc::channel(64);
        context.kept("runtime", move |context| runtime_watch::run(context, news_sender.clone()));
        let agent = tokio::spawn(Supervisor::new(Arc::clone(&context)).run(receiver, news));
        let mut outcomes = Outcomes { ended: true, ..Outcomes::default() };
        let mut wanted: Vec<Arc<StaticPod>> = Vec::new();
        for _ in 0..8 {
            match choices.below(6) {
                0 | 1 => {
                    let pod = self.pod(choices);
                    outcomes.taken += usize::from(pod.is_some());
                    wanted.retain(|one| pod.as_ref().is_none_or(|pod| pod.key != one.key));
                    wanted.extend(pod);
                }
                2 => drop(wanted.pop()),
                3 => self.fail(choices),
                4 => self.fake.containers().iter().for_each(|one| self.fake.kill(&one.id)),
                _ => self.fake.heal(),
            }
            let update = Update { pods: wanted.clone(), synced: true, ..Update::default() };
            updates.send(update).await.expect("the agent runs");
            tokio::time::sleep(Duration::from_millis(1 << (4 * choices.below(6)))).await;
            if choices.is_empty() {
                break;
            }
        }
        outcomes.started = self.fake.calls_of("start").len();
        self.fake.heal();
        updates.send(Update { synced: true, ..Update::default() }).await.expect("the agent runs");
        let mut reports = context.board.reports();
        let gone = async { reports.wait_for(|report| report.pods.is_empty()).await.is_ok() };
        let gone = tokio::time::timeout(PATIENCE, gone).await.is_ok();
        outcomes.ended = gone || self.slow.load(Ordering::Relaxed);
        outcomes.crashes = context.events.since(0).into_iter().filter(|event| event.reason == "FailedSync").collect();
        end.cancel();
        agent.await.expect("the supervisor does not crash");
        context.tasks.close();
        context.tasks.wait().await;
        outcomes
    }

    fn pod(&self, choices: &mut Choices<'_>) -> Option<Arc<StaticPod>> {
        let pod = self.any_pod(choices)?;
        let probes = pod.containers().flat_map(|(_, one)| [&one.liveness_probe, &one.startup_probe]).flatten();
        let graces = probes.map(|probe| probe.termination_grace_period_seconds);
        let deletion = pod.deletion().map(|time| i64::try_from(time.as_secs()).unwrap_or(i64::MAX));
        let slow = graces.chain([pod.spec.termination_grace_period_seconds, deletion]).flatten().any(|one| one > 3600);
        self.slow.fetch_or(slow, Ordering::Relaxed);
        Some(pod)
    }

    /// A pod, by its manifest or by the API server.
    fn any_pod(&self, choices: &mut Choices<'_>) -> Option<Arc<StaticPod>> {
        let by_api = choices.below(2) == 1;
        let mut json = pods::pod(choices);
        if !by_api {
            let place = Place::File(std::path::Path::new("/m/p.yaml"));
            let origin = Origin { node_name: "n", place, seen: Timestamp::UNIX_EPOCH };
            let text = serde_json::to_vec(&json).expect("JSON can be written");
            return StaticPod::from_bytes(&text, origin).ok().map(Arc::new);
        }
        json["metadata"]["uid"] = serde_json::json!(format!("u{}", choices.below(3)));
        if choices.below(4) == 1 {
            json["metadata"]["deletionTimestamp"] = serde_json::json!("2024-01-01T00:00:00Z");
            json["metadata"]["deletionGracePeriodSeconds"] = serde_json::json!(i64::MAX);
        }
        let pod: Pod = serde_json::from_value(json).ok()?;
        let mut bound_pods = BoundPods::default();
        bound_pods.list(vec![pod], Timestamp::UNIX_EPOCH);
        let all = [("cpu", 64_000), ("memory", 1 << 40), ("pods", 110)];
        let allocatable = all.map(|(name, amount)| (name.to_owned(), amount)).into();
        let site = Site { name: "n".into(), allocatable, ..Site::default() };
        let node = NodeOffers { site, network: PodNetwork::Ready, has_handlers: true };
        bound_pods.judge(&node, &[]);
        bound_pods.refused();
        bound_pods.update().pods.pop()
    }

    /// Makes a call fail once, or a container behave badly.
    fn fail(&self, choices: &mut Choices<'_>) {
        let calls = ["create_container", "create_sandbox", "start", "stop", "remove", "inspect", "image", "list"];
        match choices.below(10) {
            8 => {
                let exits_after = Some((Duration::from_secs(5), i64::try_from(choices.below(256)).unwrap_or(1)));
                self.fake.behave("main", Behaviour { exits_after, ..Behaviour::default() });
            }
            9 => self.fake.behave("main", Behaviour { sigterm_takes: Duration::from_secs(3), ..Behaviour::default() }),
            n => {
                let error = RuntimeError::Refused { call: calls[n].into(), message: "made to fail".into() };
                self.fake.fail_nth(calls[n], 1, error);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::strategy::ValueTree;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]
        #[test]
        fn arbitrary_pods_crash_no_worker_and_come_to_their_end(
            bytes in proptest::collection::vec(any::<u8>(), 0..600)
        ) {
            let outcomes = run(&bytes);
            prop_assert!(outcomes.crashes.is_empty(), "{:#?}", outcomes.crashes);
            prop_assert!(outcomes.ended);
        }
    }

    #[test]
    fn the_trial_reaches_what_it_is_to_try() {
        let mut generator = proptest::test_runner::TestRunner::deterministic();
        let bytes = proptest::collection::vec(any::<u8>(), 300..600);
        let outcomes: Vec<_> =
            (0..60).map(|_| run(&bytes.new_tree(&mut generator).expect("bytes").current())).collect();
        let sum = |of: fn(&Outcomes) -> usize| outcomes.iter().map(of).sum::<usize>();
        assert!(sum(|one| one.taken) >= 30, "{} pods taken", sum(|one| one.taken));
        assert!(sum(|one| one.started) >= 30, "{} containers started", sum(|one| one.started));
    }
}
