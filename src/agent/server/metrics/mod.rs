//! `/metrics`: what the kubelet's users measure, in Prometheus' text format.

mod cadvisor;
mod family;
mod resource;
pub mod summary;
pub mod usage;

use std::fs;

use ::http::Response;

use self::family::{Family, counter, gauge, number};
use super::http::Body;
use crate::agent::context::Context;
use crate::agent::report::{AgentReport, HealthReport, Phase, PodReport, Severity, StateReport};
use crate::agent::status::Entry;

pub use self::cadvisor::answer as cadvisor;
pub use self::resource::answer as resource;

/// What `utime` and `stime` of a process are counted in, on every Linux.
const TICKS_A_SECOND: f64 = 100.0;

/// Everything that is measured.
pub fn all(context: &Context) -> Response<Body> {
    let entries = context.board.pods();
    let report = context.board.reports().borrow().clone();
    let mut families = pods(&entries);
    families.extend(counted(context));
    families.push(probes(context, &entries));
    families.extend(health(&report));
    families.extend(process(&report.agent));
    family::answer(&families, None)
}

/// `/metrics/probes`: how probes came out.
pub fn of_probes(context: &Context) -> Response<Body> {
    family::answer(&[probes(context, &context.board.pods())], None)
}

fn how_many<T>(all: impl IntoIterator<Item = T>) -> f64 {
    number(all.into_iter().count() as u64)
}

/// Pods and containers by their state.
fn pods(entries: &[Entry]) -> Vec<Family> {
    let of_static = |count: f64| vec![(vec![("static", String::new())], 0.0), (vec![("static", "true".into())], count)];
    let wanted = |entry: &&Entry| !entry.report.terminating;
    let ended = |pod: &PodReport| matches!(pod.phase, Phase::Succeeded | Phase::Failed);
    let containers = || entries.iter().flat_map(|entry| &entry.report.containers);
    let runs = |state: &StateReport| matches!(state, StateReport::Running { .. });
    let states = [
        ("created", how_many(containers().filter(|c| matches!(c.state, StateReport::Waiting { .. })))),
        ("exited", how_many(containers().filter(|c| matches!(c.state, StateReport::Terminated(_))))),
        ("running", how_many(containers().filter(|c| runs(&c.state)))),
    ];
    let mut working = Vec::new();
    for (config, desired) in [("desired", true), ("orphan", false)] {
        for (lifecycle, terminating) in [("sync", false), ("terminating", true)] {
            let of = entries.iter().filter(|e| e.pod.is_some() == desired && e.report.terminating == terminating);
            let labels = [("config", config), ("lifecycle", lifecycle), ("static", "true")];
            working.push((labels.map(|(name, value)| (name, value.to_owned())).to_vec(), how_many(of)));
        }
    }
    let running = entries.iter().filter(|entry| entry.report.containers.iter().any(|c| runs(&c.state)));
    let active = entries.iter().filter(wanted).filter(|entry| !ended(&entry.report));
    vec![
        gauge("kubelet_running_pods", "Pods of which a container runs", how_many(running)),
        Family {
            name: "kubelet_running_containers",
            kind: "gauge",
            help: "Containers by state",
            samples: states.map(|(state, count)| (vec![("container_state", state.to_owned())], count)).to_vec(),
        },
        Family { name: "kubelet_working_pods", kind: "gauge", help: "Pods that have a worker", samples: working },
        Family {
            name: "kubelet_desired_pods",
            kind: "gauge",
            help: "Pods that are wanted",
            samples: of_static(how_many(entries.iter().filter(wanted))),
        },
        Family {
            name: "kubelet_active_pods",
            kind: "gauge",
            help: "Pods that are wanted and have not ended",
            samples: of_static(how_many(active)),
        },
    ]
}

fn counted(context: &Context) -> Vec<Family> {
    let metrics = &context.metrics;
    let of_type = |kind: &str, count: u64| (vec![("container_type", kind.to_owned())], number(count));
    let restarted = vec![(vec![("static", "true".to_owned())], number(metrics.restarted_pods.get()))];
    vec![
        Family {
            name: "kubelet_started_containers_total",
            kind: "counter",
            help: "Containers that were started",
            samples: vec![
                of_type("container", metrics.started_containers.get()),
                of_type("pod_sandbox", metrics.started_sandboxes.get()),
            ],
        },
        counter("kubelet_started_containers_errors_total", "Starts that failed", metrics.failed_starts.get()),
        Family {
            name: "kubelet_restarted_pods_total",
            kind: "counter",
            help: "Pods that began again under the same UID",
            samples: restarted,
        },
        counter(
            "kubelet_orphaned_runtime_pods_total",
            "Pods found in the runtime that nobody wants",
            metrics.orphans.get(),
        ),
    ]
}

fn probes(context: &Context, entries: &[Entry]) -> Family {
    let mut samples = Vec::new();
    for entry in entries {
        for tally in context.probes.tallies(&entry.report.uid) {
            let labels = [
                ("container", tally.container.as_str()),
                ("namespace", &entry.report.namespace),
                ("pod", &entry.report.name),
                ("pod_uid", &entry.report.uid),
                ("probe_type", tally.kind),
                ("result", tally.result),
            ];
            samples.push((labels.map(|(name, value)| (name, value.to_owned())).to_vec(), number(tally.count)));
        }
    }
    Family { name: "prober_probe_total", kind: "counter", help: "Probes by how they came out", samples }
}

/// What only this agent tells.
fn health(report: &HealthReport) -> Vec<Family> {
    let truth = |yes: bool| if yes { 1.0 } else { 0.0 };
    let pods = report.pods.iter().map(|pod| {
        let labels = vec![("namespace", pod.namespace.clone()), ("pod", pod.name.clone())];
        (labels, truth(pod.healthy))
    });
    let of = |severity: Severity| how_many(report.problems.iter().filter(|problem| problem.severity == severity));
    let problems = [("error", of(Severity::Error)), ("warning", of(Severity::Warning))];
    let node = vec![(vec![("node", report.agent.node_name.clone())], 1.0)];
    let version = vec![(vec![("version", report.agent.version.clone())], 1.0)];
    vec![
        Family { name: "kubelet_node_name", kind: "gauge", help: "The node's name", samples: node },
        Family { name: "kubeboot_build_info", kind: "gauge", help: "The agent's version", samples: version },
        Family {
            name: "kubeboot_pod_healthy",
            kind: "gauge",
            help: "Whether a pod is healthy",
            samples: pods.collect(),
        },
        Family {
            name: "kubeboot_problems",
            kind: "gauge",
            help: "What is wrong with manifests and the runtime",
            samples: problems.map(|(name, count)| (vec![("severity", name.to_owned())], count)).to_vec(),
        },
        gauge(
            "kubeboot_runtime_up",
            "Whether the container runtime can be reached",
            truth(report.agent.runtime.is_some()),
        ),
    ]
}

/// The agent's process, as every Prometheus client library tells it. What cannot be read is left out.
fn process(agent: &AgentReport) -> Vec<Family> {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let resident = resident.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
    let started = agent.started_at.as_duration().as_secs_f64();
    let cpu = cpu_seconds(&stat).map(|seconds| {
        let samples = vec![(vec![], seconds)];
        Family { name: "process_cpu_seconds_total", kind: "counter", help: "Processor time in seconds", samples }
    });
    let open =
        fs::read_dir("/proc/self/fd").ok().map(|fds| gauge("process_open_fds", "Open file descriptors", how_many(fds)));
    let memory = resident.map(|kib| gauge("process_resident_memory_bytes", "Resident memory", kib * 1024.0));
    let since = gauge("process_start_time_seconds", "When the agent started, since the epoch", started);
    [cpu, memory, open, Some(since)].into_iter().flatten().collect()
}

/// `utime` and `stime` of /proc/PID/stat; the command before them may hold anything.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let ticks = fields.next()?.parse::<f64>().ok()? + fields.next()?.parse::<f64>().ok()?;
    Some(ticks / TICKS_A_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_found_behind_any_command() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 250 150 0 0 20 0 4 0 1 1 1";
        assert_eq!(cpu_seconds(stat), Some(4.0));
        assert_eq!(cpu_seconds(""), None);
    }
}
