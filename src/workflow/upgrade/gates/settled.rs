//! No replaced component crashes in the first seconds after the last of them has become healthy.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;

use super::super::UpgradeError;
use crate::agent::control::expect::HealthSource;
use crate::agent::control::report::{ContainerReport, HealthReport, PodReport};
use crate::event::Reporter;
use crate::host::clock::{Instant, timeout_at};

/// The name of the gate.
pub const NAME: &str = "settled";
/// How long what has become healthy must not crash.
pub const SETTLING: Duration = Duration::from_secs(1);
/// How soon an agent that has ended is asked for again.
const AGAIN: Duration = Duration::from_millis(25);

/// Restarts of the containers of each component, by UID and name.
type Restarts = BTreeMap<(String, String), u32>;

/// The time after the last component has become healthy; other checks go on meanwhile.
pub struct Settling {
    until: Instant,
    components: Vec<&'static str>,
    before: Restarts,
}

impl Settling {
    /// It begins now, for these components.
    pub async fn begin(health: &dyn HealthSource, components: Vec<&'static str>) -> Self {
        let until = Instant::now() + SETTLING;
        let first = timeout_at(until, async { health.watch().await.ok()?.next().await });
        let report = first.await.ok().flatten();
        let before = report.map(|report| restarts(&report, &components)).unwrap_or_default();
        Self { until, components, before }
    }

    /// Waits until it is over.
    ///
    /// # Errors
    /// A container that has ended meanwhile.
    pub async fn end(mut self, health: &dyn HealthSource, reporter: &dyn Reporter) -> Result<(), UpgradeError> {
        if Instant::now() < self.until {
            let text = format!(
                "seeing whether any of them crashes in its first {} s: {}",
                SETTLING.as_secs(),
                self.components.join(", ")
            );
            reporter.note("upgrade", text);
        }
        while Instant::now() < self.until {
            if let Ok(mut reports) = health.watch().await {
                while let Ok(Some(report)) = timeout_at(self.until, reports.next()).await {
                    if let Some((component, why)) = self.crash(&report) {
                        return Err(UpgradeError::Gate { gate: NAME, component, limit: SETTLING, why });
                    }
                }
            }
            // No event tells when the agent is back.
            tokio::time::sleep(AGAIN).await;
        }
        Ok(())
    }

    /// What has crashed by this report, and its last words.
    fn crash(&mut self, report: &HealthReport) -> Option<(&'static str, String)> {
        for (component, pod, container) in of(report, &self.components) {
            let key = (pod.uid.clone(), container.name.clone());
            let before = *self.before.entry(key).or_insert(container.restarts);
            if container.restarts > before {
                return Some((component, crashed(container)));
            }
        }
        None
    }
}

fn of<'r>(
    report: &'r HealthReport,
    components: &'r [&'static str],
) -> impl Iterator<Item = (&'static str, &'r PodReport, &'r ContainerReport)> {
    let pods = report.pods.iter().filter(|pod| !pod.terminating).filter_map(|pod| {
        let component = components.iter().find(|component| pod.component.as_deref() == Some(**component))?;
        Some((*component, pod))
    });
    pods.flat_map(|(component, pod)| pod.containers.iter().map(move |container| (component, pod, container)))
        // Without an instance nothing is known yet: an agent that has just started has not looked.
        .filter(|(.., container)| container.id.is_some())
}

fn restarts(report: &HealthReport, components: &[&'static str]) -> Restarts {
    of(report, components)
        .map(|(_, pod, container)| ((pod.uid.clone(), container.name.clone()), container.restarts))
        .collect()
}

fn crashed(container: &ContainerReport) -> String {
    let Some(end) = &container.last_termination else { return "it was restarted".into() };
    let log: String = end.log.iter().map(|line| format!("\n    {line}")).collect();
    format!("it ended with exit code {}{log}", end.exit_code)
}
