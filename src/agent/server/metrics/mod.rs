//! `/metrics`: what the kubelet's users measure, in Prometheus' text format.

mod cadvisor;
mod counted;
mod family;
mod machine;
mod resource;
mod storage;
pub mod summary;
mod usage;

use std::collections::BTreeMap;
use std::fs;

use ::http::Response;

use self::family::{Family, gauge, number, series};
use super::healthz;
use super::http::Body;
use crate::agent::board::Entry;
use crate::agent::context::Context;
use crate::agent::control::report::{AgentReport, HealthReport, Severity, StateReport};
use crate::agent::volumes;

pub use self::cadvisor::answer as cadvisor;
pub use self::resource::answer as resource;

/// What is kept from one measurement to the next.
#[derive(Default)]
pub struct Measurer {
    rates: usage::Rates,
    storage: storage::Storage,
}

/// What `utime` and `stime` of a process are counted in, on every Linux.
const TICKS_A_SECOND: f64 = 100.0;

/// Everything that is measured.
pub fn all(context: &Context) -> Response<Body> {
    let entries = context.board.pods();
    let report = context.board.reports().borrow().clone();
    let mut families = pods(&entries);
    families.extend(counted::families(context));
    families.push(total_volumes(&entries));
    families.extend(health(&report));
    families.extend(process(&report.agent));
    family::answer(&families, None)
}

/// `/metrics/probes`: how probes came out.
pub fn of_probes(context: &Context) -> Response<Body> {
    let (entries, report) = (context.board.pods(), context.board.reports().borrow().clone());
    let families = [probes(context, &entries), probe_times(context, &entries), started(&report.agent)];
    family::answer(&families, None)
}

/// `/metrics/slis`: how the checks of `/healthz` are.
pub fn slis(context: &Context) -> Response<Body> {
    let sample = |(name, well): (&str, bool)| {
        let labels = vec![("name", name.to_owned()), ("type", "healthz".to_owned())];
        (labels, if well { 1.0 } else { 0.0 })
    };
    let samples = healthz::checks(context).map(sample).collect();
    let help = "Whether a check of /healthz passes";
    let healthchecks = Family { name: "kubernetes_healthcheck", kind: "gauge", help, samples };
    family::answer(&[healthchecks, started(&context.board.reports().borrow().agent)], None)
}

fn how_many<T>(all: impl IntoIterator<Item = T>) -> f64 {
    number(all.into_iter().count() as u64)
}

/// The label that tells static pods from those of the API server, as the kubelet writes it.
fn is_static(bound: bool) -> (&'static str, String) {
    ("static", if bound { String::new() } else { "true".to_owned() })
}

/// Volumes of the pods that are wanted, and of those that run, by the plugin that makes them.
fn total_volumes(entries: &[Entry]) -> Family {
    let mut counts: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for entry in entries.iter().filter(|entry| !entry.report.terminating) {
        let runs = entry.report.containers.iter().any(|c| matches!(c.state, StateReport::Running { .. }));
        let states: &[&str] =
            if runs { &["actual_state_of_world", "desired_state_of_world"] } else { &["desired_state_of_world"] };
        let of = entry.pod.iter().flat_map(|pod| pod.spec.volumes.iter().flatten());
        for (plugin, state) in of.flat_map(|volume| states.iter().map(|state| (volumes::plugin(volume), *state))) {
            let count = counts.entry((plugin, state)).or_default();
            *count = count.saturating_add(1);
        }
    }
    let samples = counts.into_iter().map(|((plugin, state), count)| {
        (vec![("plugin_name", plugin.to_owned()), ("state", state.to_owned())], number(count))
    });
    let help = "Volumes by plugin and state";
    Family { name: "volume_manager_total_volumes", kind: "gauge", help, samples: samples.collect() }
}

/// Pods and containers by their state.
fn pods(entries: &[Entry]) -> Vec<Family> {
    let by_static = |count: fn(&Entry) -> bool| {
        let of = |bound: bool| how_many(entries.iter().filter(|e| e.report.bound == bound && count(e)));
        [true, false].map(|bound| (vec![is_static(bound)], of(bound))).to_vec()
    };
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
            for bound in [true, false] {
                let of = entries.iter().filter(|e| e.pod.is_some() == desired && e.report.terminating == terminating);
                let labels =
                    [("config", config), ("lifecycle", lifecycle)].map(|(name, value)| (name, value.to_owned()));
                let labels = labels.into_iter().chain([is_static(bound)]).collect();
                working.push((labels, how_many(of.filter(|e| e.report.bound == bound))));
            }
        }
    }
    let ephemeral = entries.iter().flat_map(|entry| &entry.pod).flat_map(|pod| &pod.ephemeral);
    let running = entries.iter().filter(|entry| entry.report.containers.iter().any(|c| runs(&c.state)));
    vec![
        gauge("kubelet_managed_ephemeral_containers", "Ephemeral containers of pods", how_many(ephemeral)),
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
            samples: by_static(|entry| !entry.report.terminating),
        },
        Family {
            name: "kubelet_active_pods",
            kind: "gauge",
            help: "Pods that are wanted and have not ended",
            samples: by_static(|entry| !entry.report.terminating && !entry.report.phase.is_final()),
        },
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

/// How long probes took that came out well.
fn probe_times(context: &Context, entries: &[Entry]) -> Family {
    let mut samples = Vec::new();
    for entry in entries {
        for (container, kind, counts) in context.probes.times(&entry.report.uid) {
            let labels = [
                ("container", container.as_str()),
                ("namespace", &entry.report.namespace),
                ("pod", &entry.report.name),
                ("probe_type", kind),
            ];
            samples.extend(series(&labels.map(|(name, value)| (name, value.to_owned())), &counts));
        }
    }
    let help = "How long a probe takes that comes out well";
    Family { name: "prober_probe_duration_seconds", kind: "histogram", help, samples }
}

/// When the agent started.
fn started(agent: &AgentReport) -> Family {
    let at = agent.started_at.as_duration().as_secs_f64();
    gauge("process_start_time_seconds", "When the agent started, since the epoch", at)
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
    let cpu = cpu_seconds(&stat).map(|seconds| {
        let samples = vec![(vec![], seconds)];
        Family { name: "process_cpu_seconds_total", kind: "counter", help: "Processor time in seconds", samples }
    });
    let open =
        fs::read_dir("/proc/self/fd").ok().map(|fds| gauge("process_open_fds", "Open file descriptors", how_many(fds)));
    let memory = resident.map(|kib| gauge("process_resident_memory_bytes", "Resident memory", kib * 1024.0));
    // `utime` is the 14th field of /proc/PID/stat, the size of its memory the 23rd.
    let size = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(20)?.parse::<f64>().ok());
    let size = size.map(|bytes| gauge("process_virtual_memory_bytes", "Virtual memory", bytes));
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let most = limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next());
    let most = most.and_then(|most| most.parse::<f64>().ok());
    let most = most.map(|most| gauge("process_max_fds", "The most open file descriptors", most));
    [cpu, memory, size, open, most, Some(started(agent))].into_iter().flatten().collect()
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
    fn pods_are_counted_apart_by_where_they_come_from() {
        let entry = |name: &str, bound: bool| {
            let mut entry = crate::agent::board::tests::entry(true, 1);
            (entry.report.name, entry.report.bound) = (name.to_owned(), bound);
            entry
        };
        let mut ended = entry("c", true);
        ended.report.phase = crate::agent::pod::phase::Phase::Succeeded;
        let families = pods(&[entry("a", false), entry("b", true), ended]);
        let of = |name: &str| {
            let family = families.iter().find(|family| family.name == name).unwrap();
            let value = |of: &str| family.samples.iter().find(|(labels, _)| labels[0].1 == of).unwrap().1;
            [value("true"), value("")]
        };
        assert_eq!((of("kubelet_desired_pods"), of("kubelet_active_pods")), ([1.0, 2.0], [1.0, 1.0]));
    }

    #[test]
    fn volumes_are_counted_by_plugin() {
        let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  containers: [{name: c, image: x:1}]\n  \
                   volumes: [{name: a, hostPath: {path: /a}}, {name: b, hostPath: {path: /b}}, {name: c, emptyDir: {}}]\n";
        let pod = std::sync::Arc::new(crate::agent::pod::tests::read(pod).unwrap());
        let mut entry = Entry { pod: Some(pod), ..crate::agent::board::tests::entry(true, 1) };
        entry.report.containers.clear();
        let samples = total_volumes(&[entry]).samples;
        let expected = [("kubernetes.io/empty-dir", 1.0), ("kubernetes.io/host-path", 2.0)];
        assert_eq!(samples.iter().map(|(labels, count)| (&*labels[0].1, *count)).collect::<Vec<_>>(), expected);
        assert!(samples.iter().all(|(labels, _)| labels[1].1 == "desired_state_of_world"));
    }

    #[test]
    fn processor_time_is_found_behind_any_command() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 250 150 0 0 20 0 4 0 1 1 1";
        assert_eq!(cpu_seconds(stat), Some(4.0));
        assert_eq!(cpu_seconds(""), None);
    }
}
