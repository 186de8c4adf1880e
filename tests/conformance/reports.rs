//! What a report says of a pod, in the few words that tests ask for.

use kubeboot::agent::control::report::{
    ContainerReport, HealthReport, PodReport, Problem, StateReport, TerminationReport,
};

/// The container of this name.
pub fn container<'a>(pod: &'a PodReport, name: &str) -> &'a ContainerReport {
    pod.containers.iter().find(|one| one.name == name).unwrap_or_else(|| panic!("no container {name}: {pod:#?}"))
}

/// The runtime's id of the container `main`.
pub fn id(pod: &PodReport) -> &str {
    id_of(pod, "main")
}

/// The runtime's id of a container.
pub fn id_of<'a>(pod: &'a PodReport, name: &str) -> &'a str {
    container(pod, name).id.as_deref().unwrap_or_else(|| panic!("{name} has no id: {pod:#?}"))
}

/// How often the container `main` was restarted.
pub fn restarts(pod: &PodReport) -> u32 {
    container(pod, "main").restarts
}

/// `REASON: MESSAGE` of what the container `main` waits for, empty when it does not.
pub fn waits(pod: &PodReport) -> String {
    match &container(pod, "main").state {
        StateReport::Waiting { reason, message } => format!("{reason}: {message}"),
        _ => String::new(),
    }
}

/// Whether a container runs.
pub fn runs(pod: &PodReport, name: &str) -> bool {
    matches!(container(pod, name).state, StateReport::Running { .. })
}

/// How a container has ended, if it has and does not run again.
pub fn ended<'a>(pod: &'a PodReport, name: &str) -> Option<&'a TerminationReport> {
    match &container(pod, name).state {
        StateReport::Terminated(end) => Some(end),
        _ => None,
    }
}

/// What is wrong with manifests. The machine's disk, which may be short too, is another matter.
pub fn refusals(report: &HealthReport) -> Vec<&Problem> {
    report.problems.iter().filter(|problem| problem.subject.contains("/manifests")).collect()
}
