//! Waiting for what an agent reports: it says by itself when something is another.

use std::path::Path;
use std::time::Duration;

use futures::StreamExt;
use tokio::time::Instant;

use super::wait::POLL;
use crate::agent::control;
use crate::agent::control::report::HealthReport;

/// Waits for a report of the agent at this control socket of which `condition` holds.
///
/// # Panics
/// None comes within `limit`; says what was waited for, and what was reported last.
pub async fn until(
    socket: &Path,
    limit: Duration,
    what: &str,
    condition: impl Fn(&HealthReport) -> bool,
) -> HealthReport {
    let mut last = None;
    let wait = async {
        loop {
            // Until the agent listens there is nothing to wait for.
            let Ok(mut reports) = Box::pin(control::watch(socket)).await else {
                tokio::time::sleep(POLL / 5).await;
                continue;
            };
            while let Some(Ok(report)) = reports.next().await {
                if condition(&report) {
                    return report;
                }
                last = Some(report);
            }
        }
    };
    match tokio::time::timeout(limit, wait).await {
        Ok(report) => report,
        Err(_) => panic!("{what}: not within {} s; last report: {last:#?}", limit.as_secs()),
    }
}

/// Checks that `condition` holds in every report of the next `time`.
///
/// # Panics
/// It does not, or the agent is gone.
pub async fn all_along(socket: &Path, time: Duration, what: &str, condition: impl Fn(&HealthReport) -> bool) {
    let end = Instant::now() + time;
    let mut reports = control::watch(socket).await.unwrap();
    while let Ok(report) = tokio::time::timeout_at(end, reports.next()).await {
        let report = report.unwrap_or_else(|| panic!("{what}: the agent is gone")).unwrap();
        assert!(condition(&report), "{what}: {report:#?}");
    }
}
