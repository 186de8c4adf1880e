//! `/metrics/cadvisor`: what containers use, under cAdvisor's names, with its labels.

use ::http::{Response, StatusCode};
use jiff::Timestamp;

use super::family::{self, Family, Sample, number};
use super::machine::{self, Processes, device_name};
use super::usage::{self, ContainerUsage, GroupUsage, Interface, Measured, PodUsage};
use crate::agent::cgroups::{Details, Device, MemoryUsage, Stall, Usage};
use crate::agent::context::Context;
use crate::agent::server::http::{Body, text_response};

const NANOS: f64 = 1e9;

/// The answer.
pub async fn answer(context: &Context) -> Response<Body> {
    let measured = usage::measure(context).await;
    let (cpus, memory) = (context.cpu_capacity, context.memory_capacity);
    let (root, at) = (context.options.root_dir.clone(), measured.at);
    // Off the runtime's threads: processes are looked through, and a network file system may hang.
    let reported = tokio::task::spawn_blocking(move || {
        let mut families = families(&measured);
        families.extend(machine::families(&measured, &root, cpus, memory));
        families
    });
    match reported.await {
        Ok(families) => family::answer(&families, Some(at.as_millisecond())),
        Err(error) => text_response(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot measure: {error}\n")),
    }
}

/// What is measured as one: a container, or a cgroup around several. Those are without a container's name.
struct Group<'a> {
    labels: Vec<(&'static str, String)>,
    usage: Usage,
    details: &'a Details,
    /// Of a container.
    started: Option<Timestamp>,
    processes: Option<Processes>,
}

impl<'a> Group<'a> {
    fn container(pod: &PodUsage, container: &'a ContainerUsage) -> Self {
        let (path, name) = (container.cgroup.as_str(), container.name.as_str());
        Self {
            labels: labels(path, Some(pod), name, &container.id, &container.image),
            usage: container.usage,
            details: &container.details,
            started: Some(container.started_at),
            processes: Processes::of(&container.details.pids),
        }
    }

    fn around(group: &'a GroupUsage, pod: Option<&PodUsage>) -> Self {
        let labels = labels(&group.path, pod, "", "", "");
        Self { labels, usage: group.usage, details: &group.details, started: None, processes: None }
    }

    /// Everything, from the machine to its containers.
    fn all(measured: &'a Measured) -> Vec<Self> {
        let around = [Some(&measured.node), measured.all_pods.as_ref()].into_iter().flatten();
        let around = around.map(|group| Self::around(group, None));
        let pods = measured.pods.iter().filter_map(|pod| Some(Self::around(pod.own.as_ref()?, Some(pod))));
        let containers = measured
            .pods
            .iter()
            .flat_map(|pod| pod.containers.iter().map(move |container| Self::container(pod, container)));
        around.chain(pods).chain(containers).collect()
    }
}

/// A name, whether it is a gauge or a counter, what it is, and its value.
type Row<T> = (&'static str, &'static str, &'static str, fn(&T) -> Option<f64>);

/// The same of whatever is measured as one.
type GroupRow = (&'static str, &'static str, &'static str, fn(&Group<'_>) -> Option<f64>);

fn memory(group: &Group<'_>, of: fn(&MemoryUsage) -> u64) -> Option<f64> {
    group.usage.memory.map(|memory| number(of(&memory)))
}

const GROUPS: &[GroupRow] = &[
    ("container_memory_usage_bytes", "gauge", "Memory in bytes", |c| memory(c, |m| m.usage)),
    ("container_memory_working_set_bytes", "gauge", "Working set in bytes", |c| memory(c, |m| m.working_set)),
    ("container_memory_rss", "gauge", "Memory without files' in bytes", |c| memory(c, |m| m.rss)),
    ("container_memory_cache", "gauge", "Memory of files in bytes", |c| memory(c, |m| m.cache)),
    // 0 stands for no limit.
    ("container_spec_memory_limit_bytes", "gauge", "Limit of memory in bytes", |c| memory(c, |m| m.limit.unwrap_or(0))),
    ("container_cpu_user_seconds_total", "counter", "Processor time outside the kernel in seconds", |c| {
        c.details.user_nanos.map(seconds)
    }),
    ("container_cpu_system_seconds_total", "counter", "Processor time in the kernel in seconds", |c| {
        c.details.system_nanos.map(seconds)
    }),
    ("container_cpu_cfs_periods_total", "counter", "Periods of the CPU limit", |c| {
        limited(c, c.details.periods.map(number))
    }),
    ("container_cpu_cfs_throttled_periods_total", "counter", "Periods in which it was held back", |c| {
        limited(c, c.details.throttled_periods.map(number))
    }),
    ("container_cpu_cfs_throttled_seconds_total", "counter", "For how long it was held back in seconds", |c| {
        limited(c, c.details.throttled_nanos.map(seconds))
    }),
    ("container_spec_cpu_period", "gauge", "Period of the CPU limit in microseconds", |c| {
        c.details.period_micros.map(number)
    }),
    ("container_spec_cpu_quota", "gauge", "CPU limit in microseconds of a period", |c| {
        c.details.quota_micros.map(number)
    }),
    ("container_spec_cpu_shares", "gauge", "Share of the processors", |c| c.details.shares.map(number)),
    ("container_memory_swap", "gauge", "Memory that was swapped out in bytes", |c| c.details.swap.map(number)),
    ("container_memory_mapped_file", "gauge", "Mapped files in bytes", |c| c.details.mapped_file.map(number)),
    ("container_memory_kernel_usage", "gauge", "Memory of the kernel in bytes", |c| c.details.kernel.map(number)),
    ("container_memory_max_usage_bytes", "gauge", "The most memory in bytes", |c| c.details.peak.map(number)),
    ("container_memory_total_active_file_bytes", "gauge", "Files used of late in bytes", |c| {
        c.details.active_file.map(number)
    }),
    ("container_memory_total_inactive_file_bytes", "gauge", "Files not used of late in bytes", |c| {
        c.details.inactive_file.map(number)
    }),
    ("container_oom_events_total", "counter", "Processes that were killed for memory", |c| {
        c.details.oom_kills.map(number)
    }),
    ("container_processes", "gauge", "Processes", |c| c.details.processes.map(number)),
    ("container_threads", "gauge", "Threads", |c| c.details.threads.map(number)),
    ("container_start_time_seconds", "gauge", "Start since the epoch", |c| {
        Some(c.started?.as_duration().as_secs_f64())
    }),
    ("container_cpu_cfs_burst_periods_total", "counter", "Periods in which it went beyond the CPU limit", |c| {
        limited(c, c.details.burst_periods.map(number))
    }),
    ("container_cpu_cfs_burst_seconds_total", "counter", "For how long it went beyond it in seconds", |c| {
        limited(c, c.details.burst_nanos.map(seconds))
    }),
    // The kubelet's name, which Prometheus' linter does not take for a counter's.
    ("container_memory_failcnt", "untyped", "How often it was at its limit of memory", |c| {
        c.details.at_limit.map(number)
    }),
    ("container_spec_memory_reservation_limit_bytes", "gauge", "Memory that it is to keep in bytes", |c| {
        c.usage.memory.map(|_| number(c.details.reservation.unwrap_or(0)))
    }),
    ("container_spec_memory_swap_limit_bytes", "gauge", "Limit of swapped out memory in bytes", |c| {
        c.usage.memory.map(|_| number(c.details.swap_limit.unwrap_or(0)))
    }),
    ("container_threads_max", "gauge", "The most threads, 0 without a limit", |c| {
        c.details.threads.map(|_| number(c.details.threads_limit.unwrap_or(0)))
    }),
    ("container_file_descriptors", "gauge", "Open file descriptors", |c| c.processes.map(|all| number(all.files))),
    ("container_sockets", "gauge", "Open sockets", |c| c.processes.map(|all| number(all.sockets))),
    ("container_pressure_cpu_waiting_seconds_total", "counter", "Some tasks waited for processors", |c| {
        c.details.cpu_pressure.map(|waited| waited.some).map(waited)
    }),
    ("container_pressure_cpu_stalled_seconds_total", "counter", "All tasks waited for processors", |c| {
        c.details.cpu_pressure.map(|waited| waited.full).map(waited)
    }),
    ("container_pressure_memory_waiting_seconds_total", "counter", "Some tasks waited for memory", |c| {
        c.details.memory_pressure.map(|waited| waited.some).map(waited)
    }),
    ("container_pressure_memory_stalled_seconds_total", "counter", "All tasks waited for memory", |c| {
        c.details.memory_pressure.map(|waited| waited.full).map(waited)
    }),
    ("container_pressure_io_waiting_seconds_total", "counter", "Some tasks waited for disks", |c| {
        c.details.io_pressure.map(|waited| waited.some).map(waited)
    }),
    ("container_pressure_io_stalled_seconds_total", "counter", "All tasks waited for disks", |c| {
        c.details.io_pressure.map(|waited| waited.full).map(waited)
    }),
];

fn waited(stall: Stall) -> f64 {
    number(stall.micros) / 1e6
}

fn seconds(nanos: u64) -> f64 {
    number(nanos) / NANOS
}

/// What is counted of a CPU limit, where there is one.
fn limited(group: &Group<'_>, value: Option<f64>) -> Option<f64> {
    value.filter(|_| group.details.quota_micros.is_some())
}

/// What a container read from and wrote to each block device.
const DEVICES: &[Row<Device>] = &[
    ("container_fs_reads_bytes_total", "counter", "Bytes read", |d| Some(number(d.bytes[0]))),
    ("container_fs_writes_bytes_total", "counter", "Bytes written", |d| Some(number(d.bytes[1]))),
    ("container_fs_reads_total", "counter", "Reads", |d| Some(number(d.operations[0]))),
    ("container_fs_writes_total", "counter", "Writes", |d| Some(number(d.operations[1]))),
];

const INTERFACES: &[Row<Interface>] = &[
    ("container_network_receive_bytes_total", "counter", "Bytes received", |i| Some(number(i.received))),
    ("container_network_receive_packets_total", "counter", "Packets received", |i| Some(number(i.received_packets))),
    ("container_network_receive_packets_dropped_total", "counter", "Packets dropped when receiving", |i| {
        Some(number(i.receive_drops))
    }),
    ("container_network_receive_errors_total", "counter", "Errors when receiving", |i| Some(number(i.receive_errors))),
    ("container_network_transmit_bytes_total", "counter", "Bytes sent", |i| Some(number(i.sent))),
    ("container_network_transmit_packets_total", "counter", "Packets sent", |i| Some(number(i.sent_packets))),
    ("container_network_transmit_packets_dropped_total", "counter", "Packets dropped when sending", |i| {
        Some(number(i.send_drops))
    }),
    ("container_network_transmit_errors_total", "counter", "Errors when sending", |i| Some(number(i.send_errors))),
];

/// The kubelet's labels, on all alike.
fn labels(id: &str, pod: Option<&PodUsage>, container: &str, name: &str, image: &str) -> Vec<(&'static str, String)> {
    let (namespace, pod) = pod.map_or(("", ""), |pod| (&pod.namespace, &pod.name));
    let labels = [
        ("container", container),
        ("id", id),
        ("image", image),
        ("name", name),
        ("namespace", namespace),
        ("pod", pod),
    ];
    labels.map(|(name, value)| (name, value.to_owned())).to_vec()
}

fn families(measured: &Measured) -> Vec<Family> {
    let groups = Group::all(measured);
    let cpu = |group: &Group<'_>| -> Option<Sample> {
        let seconds = number(group.usage.cpu_nanos?) / NANOS;
        let mut labels = group.labels.clone();
        labels.push(("cpu", "total".to_owned()));
        Some((labels, seconds))
    };
    let mut families = vec![Family {
        name: "container_cpu_usage_seconds_total",
        kind: "counter",
        help: "Processor time in seconds",
        samples: groups.iter().filter_map(cpu).collect(),
    }];
    families.extend(GROUPS.iter().map(|(name, kind, help, value)| {
        let samples = groups.iter().filter_map(|group| Some((group.labels.clone(), value(group)?)));
        Family { name, kind, help, samples: samples.collect() }
    }));
    families.extend(DEVICES.iter().map(|(name, kind, help, value)| {
        let devices = groups.iter().flat_map(|group| {
            group.details.devices.iter().filter_map(|device| {
                let mut labels = group.labels.clone();
                labels.push(("device", device_name(&device.number)));
                Some((labels, value(device)?))
            })
        });
        Family { name, kind, help, samples: devices.collect() }
    }));
    families.extend([devices(&groups), failures(&groups), last_seen(&groups, measured)]);
    let interfaces: Vec<_> = measured
        .pods
        .iter()
        .flat_map(|pod| pod.network.iter().flatten().map(move |interface| (pod, interface)))
        .collect();
    families.extend(INTERFACES.iter().map(|(name, kind, help, value)| {
        let samples = interfaces.iter().filter_map(|(pod, interface)| {
            let id = pod.own.as_ref().map_or("", |own| own.path.as_str());
            let mut labels = labels(id, Some(pod), "", "", "");
            labels.push(("interface", interface.name.clone()));
            Some((labels, value(interface)?))
        });
        Family { name, kind, help, samples: samples.collect() }
    }));
    families
}

/// What went to and from block devices once more, by the device's numbers and the operation.
fn devices(groups: &[Group<'_>]) -> Family {
    let of = |group: &Group<'_>, device: &Device| {
        let (major, minor) = device.number.split_once(':').unwrap_or_default();
        let name = device_name(&device.number);
        [("Read", device.bytes[0]), ("Write", device.bytes[1])].map(|(operation, bytes)| {
            let own = [("device", name.as_str()), ("major", major), ("minor", minor), ("operation", operation)];
            let own = own.map(|(name, value)| (name, value.to_owned()));
            (group.labels.iter().cloned().chain(own).collect(), number(bytes))
        })
    };
    let samples = groups.iter().flat_map(|group| group.details.devices.iter().flat_map(|device| of(group, device)));
    let (name, help) = ("container_blkio_device_usage_total", "Bytes by device and operation");
    Family { name, kind: "counter", help, samples: samples.collect() }
}

/// Pages that were not there when they were used.
fn failures(groups: &[Group<'_>]) -> Family {
    let of = |group: &Group<'_>| {
        let memory = group.usage.memory.unwrap_or_default();
        let kinds = [("pgfault", memory.page_faults), ("pgmajfault", memory.major_page_faults)];
        kinds.map(|(kind, count)| {
            let mut labels = group.labels.clone();
            labels.extend([("failure_type", kind.to_owned()), ("scope", "hierarchy".to_owned())]);
            (labels, number(count))
        })
    };
    let samples = groups.iter().flat_map(of).collect();
    Family { name: "container_memory_failures_total", kind: "counter", help: "Page faults", samples }
}

fn last_seen(groups: &[Group<'_>], measured: &Measured) -> Family {
    let now = measured.at.as_duration().as_secs_f64().floor();
    let samples = groups.iter().map(|group| (group.labels.clone(), now)).collect();
    Family { name: "container_last_seen", kind: "gauge", help: "When it was measured, since the epoch", samples }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::cgroups::Pressure;

    fn labels_of<'a>(labels: &'a [(&'static str, String)]) -> Vec<(&'static str, &'a str)> {
        let wanted = labels.iter().filter(|(name, _)| ["container", "id", "pod"].contains(name));
        wanted.map(|(name, value)| (*name, value.as_str())).collect()
    }

    #[test]
    fn containers_and_pods_networks_are_told_with_cadvisors_labels() {
        let memory = MemoryUsage { usage: 10, limit: None, ..MemoryUsage::default() };
        let stall = Stall { micros: 2_500_000, ..Stall::default() };
        let container = ContainerUsage {
            name: "c".into(),
            id: "abc".into(),
            cgroup: "/kubepods/podu/abc".into(),
            usage: Usage { cpu_nanos: Some(2_000_000_000), memory: Some(memory) },
            details: Details {
                throttled_nanos: Some(500_000_000),
                quota_micros: Some(50_000),
                threads: Some(3),
                memory_pressure: Some(Pressure { some: stall, ..Pressure::default() }),
                devices: vec![Device { number: "999:9".into(), bytes: [7, 8], operations: [1, 2] }],
                ..Details::default()
            },
            ..ContainerUsage::default()
        };
        let eth0 = Interface { name: "eth0".into(), received: 5, sent: 6, ..Interface::default() };
        let own = GroupUsage {
            path: "/kubepods/podu".into(),
            usage: Usage { cpu_nanos: Some(3_000_000_000), memory: None },
            ..GroupUsage::default()
        };
        let pod = PodUsage {
            namespace: "ns".into(),
            name: "p".into(),
            uid: "u".into(),
            containers: vec![container],
            own: Some(own),
            network: Some(vec![eth0]),
            ..PodUsage::default()
        };
        let measured = Measured { pods: vec![pod], ..Measured::default() };
        let families = families(&measured);
        let of =
            |name: &str| families.iter().find(|family| family.name == name).unwrap().samples.last().cloned().unwrap();
        let (labels, seconds) = of("container_cpu_usage_seconds_total");
        assert_eq!(seconds, 2.0);
        assert!(
            labels.contains(&("id", "/kubepods/podu/abc".to_owned())) && labels.contains(&("cpu", "total".to_owned()))
        );
        assert_eq!(of("container_spec_memory_limit_bytes").1, 0.0);
        assert_eq!(of("container_network_transmit_bytes_total").1, 6.0);
        assert_eq!(of("container_cpu_cfs_throttled_seconds_total").1, 0.5);
        let (labels, written) = of("container_fs_writes_bytes_total");
        assert_eq!((labels.last().unwrap(), written), (&("device", "999:9".to_owned()), 8.0));
        let (labels, written) = of("container_blkio_device_usage_total");
        let own: Vec<_> = labels[7..].iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!((own, written), (vec![("major", "999"), ("minor", "9"), ("operation", "Write")], 8.0));
        assert_eq!(of("container_pressure_memory_waiting_seconds_total").1, 2.5);
        assert_eq!(of("container_threads_max").1, 0.0, "no limit");
        let cpu = families.iter().find(|family| family.name == "container_cpu_usage_seconds_total").unwrap();
        let pod = labels_of(&cpu.samples[0].0);
        assert_eq!(pod, [("container", ""), ("id", "/kubepods/podu"), ("pod", "p")], "the cgroup of the pod");
        let swap = families.iter().find(|family| family.name == "container_memory_swap").unwrap();
        assert!(swap.samples.is_empty(), "what is not counted is not told");
    }
}
