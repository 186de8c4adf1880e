//! Agents of tests on a real runtime: what they report, and what they leave.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use futures::StreamExt;

use crate::agent::control;
use crate::agent::control::report::HealthReport;
use crate::runtime::labels;

/// Longer than anything takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Waits for a report of the agent at this control socket of which `condition` holds. That the machine's disk is short is
/// no test's matter.
///
/// # Panics
/// None comes within a minute.
pub async fn until(socket: &Path, what: &str, condition: impl Fn(&HealthReport) -> bool) -> HealthReport {
    let mut last = None;
    let wait = async {
        loop {
            let Ok(mut reports) = Box::pin(control::watch(socket)).await else {
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            while let Some(Ok(mut report)) = reports.next().await {
                report.problems.retain(|problem| !problem.message.starts_with("disk pressure"));
                if condition(&report) {
                    return report;
                }
                last = Some(report);
            }
        }
    };
    match tokio::time::timeout(LIMIT, wait).await {
        Ok(report) => report,
        Err(_) => panic!("{what}: not within {} s; last report: {last:#?}", LIMIT.as_secs()),
    }
}

/// Removes Docker's containers of an agent that has been told to end, until there is none: it may be making one. Only what
/// carries this agent's label is touched.
pub fn remove_containers_of(owner: &str) {
    let label = format!("label={}={owner}", labels::OWNER);
    loop {
        let listed = Command::new("docker").args(["ps", "-aq", "--filter", &label]).output();
        let ids = listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        if ids.trim().is_empty() {
            return;
        }
        for id in ids.split_whitespace() {
            let _ = Command::new("docker").args(["rm", "-fv", id]).output();
        }
    }
}
