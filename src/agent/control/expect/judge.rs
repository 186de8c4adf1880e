//! What a report says of a manifest that was written. Pure: reports in, verdicts out.

use std::collections::HashMap;

use super::{Expectation, Failure, Verdict};
use crate::agent::control::report::{
    ContainerReport, HealthReport, PodReport, Severity, StateReport, TerminationReport,
};
use crate::agent::pod::phase::Phase;

/// Reasons of a waiting container that do not go away by themselves, or not soon enough to wait for.
const HOPELESS: &[&str] = &[
    "CrashLoopBackOff",
    "ErrImagePull",
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
];

/// Restarts that are nothing new: what each container had when it was first seen, by the pod's UID and its name.
///
/// A manifest that did not change keeps its containers, and with them what they went through before anybody waited.
#[derive(Debug, Default)]
pub(super) struct Baseline(HashMap<(String, String), u32>);

impl Baseline {
    /// Restarts of a container since it was first seen.
    fn restarts(&mut self, pod: &PodReport, container: &ContainerReport) -> u32 {
        // Without an instance nothing is known yet: an agent that has just started has not looked.
        if container.id.is_none() {
            return 0;
        }
        let first = self.0.entry((pod.uid.clone(), container.name.clone())).or_insert(container.restarts);
        container.restarts.saturating_sub(*first)
    }
}

/// How far `want` is in `report`, taken by itself: restarts it mentions may be old, and condemn nothing.
pub fn judge(report: &HealthReport, want: &Expectation) -> Verdict {
    judge_since(report, want, &mut Baseline::default())
}

pub(super) fn judge_since(report: &HealthReport, want: &Expectation, baseline: &mut Baseline) -> Verdict {
    let mut of_component = report.pods.iter().filter(|p| p.component.as_deref() == Some(want.component.as_str()));
    let Some(hash) = &want.file_hash else {
        return match of_component.next() {
            None if report.agent.synced => Verdict::Met,
            None => Verdict::Waiting("agent starting".into()),
            Some(_) => Verdict::Waiting("being stopped".into()),
        };
    };
    let mut all = of_component.clone().flat_map(PodReport::generations);
    match all.find(|p| p.file_hash.as_ref() == Some(hash) && !p.terminating) {
        Some(pod) => judge_pod(pod, want, baseline),
        None => judge_problem(report, want, hash).unwrap_or_else(|| {
            // The old one may serve on until the new one does.
            let words = match of_component.next() {
                Some(old) if old.terminating => "old instance being stopped",
                Some(_) => "old instance still running",
                None => "not seen by the agent yet",
            };
            Verdict::Waiting(words.into())
        }),
    }
}

/// What the agent has against the file. A problem of what the file was before, or a mere warning, says nothing.
fn judge_problem(report: &HealthReport, want: &Expectation, hash: &str) -> Option<Verdict> {
    let problem = report.problems.iter().find(|p| {
        let of_file = p.subject == want.file && p.severity == Severity::Error;
        of_file && p.file_hash.as_deref().is_none_or(|refused| refused == hash)
    })?;
    if problem.file_hash.is_none() {
        // No one could read it: that may pass.
        return Some(Verdict::Waiting(problem.message.clone()));
    }
    Some(Verdict::Failed(Failure {
        component: want.component.clone(),
        reason: "InvalidManifest".into(),
        message: problem.message.clone(),
        exit_code: None,
        log: vec![],
    }))
}

fn judge_pod(pod: &PodReport, want: &Expectation, baseline: &mut Baseline) -> Verdict {
    // All of them, so that the first sight of each is its first.
    let restarts: Vec<u32> = pod.containers.iter().map(|c| baseline.restarts(pod, c)).collect();
    if pod.healthy {
        return Verdict::Met;
    }
    if let Some(failure) = pod.containers.iter().zip(restarts).find_map(|(c, times)| failure_of(c, times, want)) {
        return Verdict::Failed(failure);
    }
    if let Some(refusal) = refusal(pod, want) {
        return Verdict::Failed(refusal);
    }
    Verdict::Waiting(pod.containers.iter().find(|c| !c.healthy).map_or_else(
        || pod.message.clone().unwrap_or_else(|| "starting".into()),
        |c| state_text(c, pod.message.as_deref()),
    ))
}

/// Why the node does not run a pod: it has failed, and nothing of it was ever made.
fn refusal(pod: &PodReport, want: &Expectation) -> Option<Failure> {
    let untouched = pod.phase == Phase::Failed && pod.containers.iter().all(|c| c.id.is_none());
    let StateReport::Waiting { reason, message } = &pod.containers.first().filter(|_| untouched)?.state else {
        return None;
    };
    let (component, message) = (want.component.clone(), message.clone());
    Some(Failure { component, reason: reason.clone(), message, exit_code: None, log: vec![] })
}

fn failure_of(container: &ContainerReport, restarts: u32, want: &Expectation) -> Option<Failure> {
    let ended = match &container.state {
        StateReport::Terminated(t) => Some(t),
        _ => container.last_termination.as_ref(),
    };
    let (reason, message) = match &container.state {
        StateReport::Waiting { reason, message } if HOPELESS.contains(&reason.as_str()) => {
            (reason.clone(), message.clone())
        }
        // One crash may be bad luck (the API server was not there yet); a second one is the component's own.
        _ if restarts >= 2 => ("CrashLoopBackOff".to_owned(), String::new()),
        _ => return None,
    };
    let bad = ended.filter(|t: &&TerminationReport| t.exit_code != 0 || reason == "CrashLoopBackOff");
    let end = bad.map(|t| t.message.clone()).unwrap_or_default();
    let message = [message, end].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(": ");
    Some(Failure {
        component: want.component.clone(),
        reason,
        message,
        exit_code: bad.map(|t| t.exit_code),
        log: bad.map(|t| t.log.clone()).unwrap_or_default(),
    })
}

fn state_text(container: &ContainerReport, pod_message: Option<&str>) -> String {
    let mut text = match &container.state {
        StateReport::Waiting { reason, message } if message.is_empty() => reason.clone(),
        StateReport::Waiting { reason, message } => format!("{reason}: {message}"),
        StateReport::Running { .. } => match &container.probe_message {
            Some(probe) => format!("running, not healthy yet: {probe}"),
            None => "running, not healthy yet".into(),
        },
        StateReport::Terminated(t) => format!("ended with exit code {}", t.exit_code),
    };
    if let Some(ended) = container.last_termination.as_ref().filter(|t| t.exit_code != 0 || !t.message.is_empty()) {
        let why = ended.message.lines().next().map_or_else(String::new, |line| format!(": {line}"));
        text = format!("{text} (ended before with exit code {}{why})", ended.exit_code);
    }
    if let Some(message) = pod_message.filter(|message| !text.contains(*message)) {
        text = format!("{text} ({message})");
    }
    text
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::agent::control::report::Problem;
    use crate::testing::report::{container, pod, report};

    /// The manifest of etcd with this hash.
    pub fn want(hash: &str) -> Expectation {
        Expectation { component: "etcd".into(), file: "/m/etcd.yaml".into(), file_hash: Some(hash.into()) }
    }

    #[test]
    fn only_the_manifest_that_was_written_counts() {
        let mut old = pod("etcd", "old");
        old.healthy = true;
        let waiting = |old: &PodReport| judge(&report(vec![old.clone()]), &want("new"));
        assert_eq!(waiting(&old), Verdict::Waiting("old instance still running".into()));
        assert_eq!(judge(&report(vec![old.clone()]), &want("old")), Verdict::Met);
        old.terminating = true;
        assert_eq!(waiting(&old), Verdict::Waiting("old instance being stopped".into()));
    }

    #[test]
    fn a_crash_loop_fails_with_the_exit_code_and_the_log() {
        let crashed = crash_loop(&["boom"]);
        let Verdict::Failed(failure) = judge(&report(vec![crashed]), &want("new")) else { panic!("not failed") };
        assert_eq!(failure.to_string(), "etcd: CrashLoopBackOff (exit code 3): back-off 10s\n    boom");
    }

    #[test]
    fn an_invalid_manifest_fails_although_the_old_pod_runs_on() {
        let mut with_problem = report(vec![pod("etcd", "old")]);
        with_problem.problems.push(Problem::error("/m/etcd.yaml", "no Pod").about("new"));
        assert!(matches!(judge(&with_problem, &want("new")), Verdict::Failed(f) if f.reason == "InvalidManifest"));
    }

    #[test]
    fn neither_a_warning_nor_a_problem_of_what_the_file_was_before_nor_another_files_fails_it() {
        let of = |problem| HealthReport { problems: vec![problem], ..report(vec![]) };
        let here = |message| Problem::error("/m/etcd.yaml", message);
        let unseen = Verdict::Waiting("not seen by the agent yet".into());
        let warning = Problem { severity: Severity::Warning, ..here("odd").about("new") };
        assert_eq!(judge(&of(warning), &want("new")), unseen);
        assert_eq!(judge(&of(here("no Pod").about("old")), &want("new")), unseen);
        assert_eq!(judge(&of(Problem::error("/m/x.yaml", "no Pod").about("new")), &want("new")), unseen);
        assert_eq!(judge(&of(here("cannot be read")), &want("new")), Verdict::Waiting("cannot be read".into()));
    }

    #[test]
    fn why_an_instance_was_stopped_is_said_of_its_successor_and_of_its_failure() {
        let mut pod = crash_loop(&[]);
        let ended = pod.containers[0].last_termination.as_mut().unwrap();
        ended.message = "Liveness probe failed 8 times in a row: no answer\nmore".into();
        let Verdict::Failed(failure) = judge(&report(vec![pod.clone()]), &want("new")) else { panic!("not failed") };
        assert!(failure.message.starts_with("back-off 10s: Liveness probe failed 8 times in a row"), "{failure}");
        pod.containers[0].state = StateReport::Running { started_at: jiff::Timestamp::UNIX_EPOCH };
        let why = "ended before with exit code 3: Liveness probe failed 8 times in a row: no answer";
        let waiting = Verdict::Waiting(format!("running, not healthy yet ({why})"));
        assert_eq!(judge(&report(vec![pod]), &want("new")), waiting);
    }

    #[test]
    fn a_pod_that_the_node_does_not_run_is_waited_for_no_longer() {
        let mut refused = pod("etcd", "new");
        (refused.phase, refused.healthy) = (Phase::Failed, false);
        let container = &mut refused.containers[0];
        (container.id, container.healthy) = (None, false);
        let message = "Pod was rejected: no room".to_owned();
        container.state = StateReport::Waiting { reason: "UnexpectedAdmissionError".into(), message: message.clone() };
        let Verdict::Failed(failure) = judge(&report(vec![refused]), &want("new")) else { panic!("not failed") };
        assert_eq!(
            (failure.reason.as_str(), failure.message, failure.exit_code),
            ("UnexpectedAdmissionError", message, None)
        );
    }

    #[test]
    fn gone_means_no_pod_of_the_component_once_the_agent_has_synced() {
        let gone = Expectation { file_hash: None, ..want("x") };
        assert_eq!(judge(&report(vec![]), &gone), Verdict::Met);
        assert_eq!(judge(&report(vec![pod("etcd", "old")]), &gone), Verdict::Waiting("being stopped".into()));
    }

    /// A pod of etcd that has crashed with these last words.
    pub fn crash_loop(log: &[&str]) -> PodReport {
        let mut crashed = pod("etcd", "new");
        let mut c = container("etcd");
        c.state = StateReport::Waiting { reason: "CrashLoopBackOff".into(), message: "back-off 10s".into() };
        c.last_termination = Some(TerminationReport {
            exit_code: 3,
            reason: "Error".into(),
            message: String::new(),
            finished_at: None,
            log: log.iter().map(|line| (*line).to_owned()).collect(),
        });
        crashed.containers = vec![c];
        crashed
    }
}
