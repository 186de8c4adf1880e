//! Waiting for the agent to report what somebody wrote: the very manifest, by the hash of its bytes, running and
//! healthy.
//!
//! `init` waits for all four components this way, `upgrade` for one after the other. No one asks the API server: it may
//! be the component that is being replaced.

mod judge;

use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;

use self::judge::{Baseline, judge_since};
use super::report::HealthReport;
use crate::event::Event;
use crate::host::clock::Instant;

pub use self::judge::judge;

/// A manifest that was written and is to become healthy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expectation {
    /// Its `component` label.
    pub component: String,
    /// The file, as the agent sees it.
    pub file: String,
    /// SHA-256 of the file's bytes in hex; None waits for the component to be gone.
    pub file_hash: Option<String>,
}

impl Expectation {
    /// What there is to tell of a new verdict.
    pub fn event(&self, verdict: &Verdict) -> Event {
        let (state, healthy, detail) = match verdict {
            Verdict::Waiting(text) => (text.clone(), false, None),
            Verdict::Met => ("healthy".to_owned(), true, None),
            Verdict::Failed(failure) => (failure.reason.clone(), false, Some(failure.message.clone())),
        };
        let detail = detail.filter(|text| !text.is_empty());
        Event::Component { name: self.component.clone(), state, healthy, detail }
    }
}

/// How far an [`Expectation`] is.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// Not there yet; the text says what it waits for.
    Waiting(String),
    /// As it should be.
    Met,
    /// It will not get there by waiting.
    Failed(Failure),
}

/// Why a component will not become healthy.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// Which one.
    pub component: String,
    /// In the API's words: `CrashLoopBackOff`, `ErrImagePull`, `InvalidManifest`, ...
    pub reason: String,
    /// More words.
    pub message: String,
    /// Exit code of the last instance.
    pub exit_code: Option<i64>,
    /// Its last log lines, oldest first.
    pub log: Vec<String>,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.component, self.reason)?;
        if let Some(code) = self.exit_code {
            write!(f, " (exit code {code})")?;
        }
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        for line in &self.log {
            write!(f, "\n    {line}")?;
        }
        Ok(())
    }
}

/// Why waiting ended without success.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// A component failed for good.
    #[error("{0}")]
    Failed(Failure),
    /// The time is over.
    #[error("not healthy after {} s: {}", limit.as_secs(), waiting.join("; "))]
    Timeout {
        /// The limit.
        limit: Duration,
        /// What each unmet component was doing, `component: state`.
        waiting: Vec<String>,
    },
}

/// Where health reports come from: the agent's control socket, or a script in tests.
#[async_trait]
pub trait HealthSource: Send + Sync {
    /// The current report and every later change. Ends when the agent does, and is then asked for again.
    async fn watch(&self) -> Result<BoxStream<'static, HealthReport>, Box<dyn std::error::Error + Send + Sync>>;
}

/// How long a component's last words may take to follow the news of its end.
const LOG_TAIL: Duration = Duration::from_secs(1);

/// Waits until every one of `wants` is met, for `limit` at most. `changed` hears of each new verdict.
///
/// An agent that goes away meanwhile (it was restarted, or has not opened its socket yet) is waited for within the
/// limit.
///
/// # Errors
/// The first failure, or at the limit what was still being waited for.
pub async fn until_met(
    source: &dyn HealthSource,
    wants: &[Expectation],
    limit: Duration,
    changed: &mut (dyn FnMut(&Expectation, &Verdict) + Send),
) -> Result<(), WaitError> {
    let deadline = Instant::now() + limit;
    let mut last: Vec<Verdict> = vec![Verdict::Waiting("agent not answering yet".into()); wants.len()];
    let mut unheard: Option<Instant> = None;
    let mut baseline = Baseline::default();
    while Instant::now() < deadline {
        // No event tells when a socket appears in a directory that may not exist yet: asked again, shortly after.
        let Ok(mut reports) = source.watch().await else {
            tokio::time::sleep(Duration::from_millis(25)).await;
            continue;
        };
        let mut newest = None;
        loop {
            let until = unheard.map_or(deadline, |since| deadline.min(since + LOG_TAIL));
            let heard = match crate::host::clock::timeout_at(until, reports.next()).await {
                Ok(Some(report)) => newest.insert(report),
                Ok(None) => break,
                Err(_) => match &mut newest {
                    // Nothing more has come: it ended without a word.
                    Some(report) if unheard.is_some() => report,
                    _ => break,
                },
            };
            let patient = unheard.is_none_or(|since| Instant::now() < since + LOG_TAIL);
            match settle(heard, wants, (&mut last, &mut baseline), patient, changed)? {
                Settled::Met => return Ok(()),
                Settled::Unheard => unheard = unheard.or_else(|| Some(Instant::now())),
                Settled::NotYet => unheard = None,
            }
        }
    }
    let waiting = wants.iter().zip(&last).filter_map(|(want, verdict)| match verdict {
        Verdict::Waiting(text) => Some(format!("{}: {text}", want.component)),
        _ => None,
    });
    Err(WaitError::Timeout { limit, waiting: waiting.collect() })
}

/// What one report came to.
#[derive(PartialEq, Eq)]
enum Settled {
    Met,
    NotYet,
    /// Something failed, and its last words are not here yet.
    Unheard,
}

/// Judges each want against one report. When `patient`, what failed without a word is given time for its last words.
fn settle(
    report: &HealthReport,
    wants: &[Expectation],
    (last, baseline): (&mut [Verdict], &mut Baseline),
    patient: bool,
    changed: &mut (dyn FnMut(&Expectation, &Verdict) + Send),
) -> Result<Settled, WaitError> {
    let mut settled = Settled::Met;
    for (want, known) in wants.iter().zip(last.iter_mut()) {
        let verdict = judge_since(report, want, baseline);
        if let Verdict::Failed(failure) = &verdict
            && patient
            && failure.exit_code.is_some()
            && failure.log.is_empty()
        {
            settled = Settled::Unheard;
            continue;
        }
        if verdict != *known {
            changed(want, &verdict);
            *known = verdict.clone();
        }
        match verdict {
            Verdict::Failed(failure) => return Err(WaitError::Failed(failure)),
            Verdict::Waiting(_) if settled == Settled::Met => settled = Settled::NotYet,
            _ => {}
        }
    }
    Ok(settled)
}

#[cfg(test)]
mod tests {
    use super::judge::tests::{crash_loop, want};
    use super::*;
    use crate::testing::report::{Script, pod, report};

    fn restarted(times: u32) -> HealthReport {
        let mut pod = pod("etcd", "new");
        pod.containers[0].restarts = times;
        report(vec![pod])
    }

    #[tokio::test(start_paused = true)]
    async fn only_restarts_during_the_wait_are_a_crash_loop() {
        let unlooked = {
            let mut report = restarted(0);
            report.pods[0].containers[0].id = None;
            report
        };
        let old = Script::new(vec![vec![unlooked.clone(), restarted(7), restarted(8)]]);
        let error = until_met(&old, &[want("new")], Duration::from_secs(60), &mut |_, _| {}).await.unwrap_err();
        assert!(matches!(error, WaitError::Timeout { .. }), "{error}");

        let new = Script::new(vec![vec![unlooked, restarted(7)], vec![restarted(8), restarted(9)]]);
        let error = until_met(&new, &[want("new")], Duration::from_secs(60), &mut |_, _| {}).await.unwrap_err();
        assert!(matches!(error, WaitError::Failed(failure) if failure.reason == "CrashLoopBackOff"));
    }

    #[tokio::test(start_paused = true)]
    async fn last_words_that_come_after_the_news_of_the_end_are_waited_for_but_not_for_long() {
        let silent = || report(vec![crash_loop(&[])]);
        let reported = report(vec![crash_loop(&["boom"])]);
        let source = Script::new(vec![vec![silent(), silent(), reported]]);
        let error = until_met(&source, &[want("new")], Duration::from_secs(60), &mut |_, _| {}).await.unwrap_err();
        assert!(matches!(error, WaitError::Failed(failure) if failure.log == ["boom"]));

        let started = Instant::now();
        let source = Script::new(vec![vec![silent()]]);
        let error = until_met(&source, &[want("new")], Duration::from_secs(60), &mut |_, _| {}).await.unwrap_err();
        assert!(matches!(error, WaitError::Failed(failure) if failure.log.is_empty()));
        assert_eq!(started.elapsed(), LOG_TAIL);
    }

    #[tokio::test(start_paused = true)]
    async fn the_limit_says_what_was_waited_for() {
        let source = Script::new(vec![vec![report(vec![pod("etcd", "new")])]]);
        let error = until_met(&source, &[want("new")], Duration::from_secs(60), &mut |_, _| {}).await.unwrap_err();
        assert_eq!(error.to_string(), "not healthy after 60 s: etcd: running, not healthy yet");
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_restarts_is_waited_for() {
        let mut ready = pod("etcd", "new");
        ready.healthy = true;
        let source =
            Script::new(vec![vec![report(vec![])], vec![report(vec![pod("etcd", "new")]), report(vec![ready])]]);
        let mut seen = vec![];
        until_met(&source, &[want("new")], Duration::from_secs(60), &mut |_, v| seen.push(v.clone())).await.unwrap();
        assert_eq!(seen.last(), Some(&Verdict::Met));
    }
}
