//! Asking the agent to restart a pod whose manifest stays as it is, and waiting for the new one.

use std::error::Error;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};

use super::expect::{Expectation, HealthSource, Verdict, WaitError, until_met};
use super::report::{HealthReport, PodReport};

/// An agent that can be asked to restart pods.
#[async_trait]
pub trait Restarter: HealthSource {
    /// Stops the pod of this UID and starts it again. Asked twice while it stops, it does so once.
    async fn restart(&self, uid: &str) -> Result<(), Box<dyn Error + Send + Sync>>;
}

/// The runtime's ids of the containers that `component` has in `report`.
pub fn containers(report: &HealthReport, component: &str) -> Vec<String> {
    let pods = report.pods.iter().filter(|pod| pod.component.as_deref() == Some(component));
    pods.flat_map(PodReport::generations).flat_map(ids).collect()
}

fn ids(pod: &PodReport) -> impl Iterator<Item = String> + '_ {
    pod.containers.iter().filter_map(|container| container.id.clone())
}

/// Restarts the pod of `want` if any container of `before` is still in it, and waits until one without is healthy.
///
/// The agent may be restarted meanwhile: it is asked again then.
///
/// # Errors
/// See [`until_met`].
pub async fn replace(
    agent: &dyn Restarter,
    want: &Expectation,
    before: &[String],
    limit: Duration,
    changed: &mut (dyn FnMut(&Expectation, &Verdict) + Send),
) -> Result<(), WaitError> {
    let successor = Successor { agent, component: want.component.clone(), before: before.to_vec() };
    until_met(&successor, std::slice::from_ref(want), limit, changed).await
}

/// The agent's reports, in which what runs containers of `before` counts as being stopped.
struct Successor<'a> {
    agent: &'a dyn Restarter,
    component: String,
    before: Vec<String>,
}

#[async_trait]
impl HealthSource for Successor<'_> {
    async fn watch(&self) -> Result<BoxStream<'static, HealthReport>, Box<dyn Error + Send + Sync>> {
        let mut reports = self.agent.watch().await?;
        let Some(first) = reports.next().await else { return Ok(stream::empty().boxed()) };
        let (component, before) = (self.component.clone(), self.before.clone());
        let asked = match old(&first, &component, &before) {
            Some(uid) => {
                self.agent.restart(&uid).await?;
                true
            }
            None => false,
        };
        let reports = stream::once(std::future::ready(first)).chain(reports);
        // An agent that was started again sees only later what runs: then it is asked anew.
        let is_asked = {
            let before = before.clone();
            move |report: &HealthReport| std::future::ready(asked || old(report, &component, &before).is_none())
        };
        Ok(reports.take_while(is_asked).map(move |report| without(report, &before)).boxed())
    }
}

/// The UID of the component's pod in which containers of `before` run. One that is there beside them is the restarted one already.
fn old(report: &HealthReport, component: &str, before: &[String]) -> Option<String> {
    let is_old = |pod: &&PodReport| !pod.terminating && ids(pod).any(|id| before.contains(&id));
    let mut of_component = report.pods.iter().filter(|pod| pod.component.as_deref() == Some(component));
    of_component.find_map(|pod| pod.generations().last().filter(is_old).map(|pod| pod.uid.clone()))
}

fn without(mut report: HealthReport, before: &[String]) -> HealthReport {
    let judge = |pod: &mut PodReport| {
        let is_old = ids(pod).any(|id| before.contains(&id));
        pod.terminating |= is_old;
    };
    for pod in &mut report.pods {
        judge(pod);
        pod.successor.as_deref_mut().into_iter().for_each(judge);
    }
    report
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::testing::report::{Script, pod, report};

    struct Agent(Script, Mutex<Vec<String>>);

    #[async_trait]
    impl HealthSource for Agent {
        async fn watch(&self) -> Result<BoxStream<'static, HealthReport>, Box<dyn Error + Send + Sync>> {
            self.0.watch().await
        }
    }

    #[async_trait]
    impl Restarter for Agent {
        async fn restart(&self, uid: &str) -> Result<(), Box<dyn Error + Send + Sync>> {
            self.1.lock().unwrap().push(uid.to_owned());
            Ok(())
        }
    }

    fn with(id: &str, healthy: bool) -> HealthReport {
        let mut one = pod("kube-apiserver", "h");
        one.containers[0].id = Some(id.to_owned());
        one.healthy = healthy;
        report(vec![one])
    }

    async fn replaced(connections: Vec<Vec<HealthReport>>) -> (Result<(), WaitError>, Vec<String>, Vec<Verdict>) {
        let agent = Agent(Script::new(connections), Mutex::default());
        let file = "/etc/kubernetes/manifests/kube-apiserver.yaml".to_owned();
        let want = Expectation { component: "kube-apiserver".into(), file, file_hash: Some("h".into()) };
        let mut verdicts = Vec::new();
        let mut changed = |_: &Expectation, verdict: &Verdict| verdicts.push(verdict.clone());
        let limit = Duration::from_secs(60);
        let result = replace(&agent, &want, &["old".to_owned()], limit, &mut changed).await;
        let asked = agent.1.lock().unwrap().clone();
        (result, asked, verdicts)
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_container_is_restarted_and_only_its_successor_counts() {
        let (result, asked, verdicts) =
            replaced(vec![vec![with("old", true), with("old", false), with("new", false), with("new", true)]]).await;
        result.unwrap();
        assert_eq!(asked, ["uid-kube-apiserver-h"]);
        assert_eq!(verdicts.first(), Some(&Verdict::Waiting("old instance being stopped".into())));
        assert_eq!(verdicts.last(), Some(&Verdict::Met));
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_sees_only_later_what_runs_is_asked_then() {
        let mut blind = with("", false);
        blind.pods[0].containers[0].id = None;
        let seen = vec![blind, with("old", true)];
        let (result, asked, _) = replaced(vec![seen, vec![with("old", true), with("new", true)]]).await;
        result.unwrap();
        assert_eq!(asked.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn one_beside_the_old_one_is_the_restarted_one() {
        let beside = |healthy| {
            let mut report = with("old", true);
            let next = with("new", healthy).pods.remove(0);
            report.pods[0].successor = Some(Box::new(next));
            report
        };
        let (result, asked, verdicts) = replaced(vec![vec![with("old", true), beside(false), with("new", true)]]).await;
        result.unwrap();
        assert_eq!(asked.len(), 1);
        assert!(matches!(&verdicts[1], Verdict::Waiting(text) if text.contains("not healthy yet")), "{verdicts:?}");
        let (result, asked, _) = replaced(vec![vec![beside(false), with("new", true)]]).await;
        result.unwrap();
        assert!(asked.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_was_restarted_already_is_left_alone() {
        let (result, asked, _) = replaced(vec![vec![with("new", true)]]).await;
        result.unwrap();
        assert!(asked.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_has_forgotten_is_asked_again_and_one_that_does_nothing_is_not_waited_for_for_ever() {
        let (result, asked, _) =
            replaced(vec![vec![with("old", true)], vec![with("old", true), with("new", true)]]).await;
        result.unwrap();
        assert_eq!(asked.len(), 2);
        let (result, _, _) = replaced(vec![vec![with("old", true)]]).await;
        assert!(matches!(result, Err(WaitError::Timeout { .. })));
    }
}
