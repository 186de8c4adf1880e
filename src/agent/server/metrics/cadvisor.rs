//! `/metrics/cadvisor`: what containers use, under cAdvisor's names, with its labels.

use ::http::Response;

use super::family::{self, Family, Sample, gauge, number};
use super::usage::{self, ContainerUsage, Interface, Measured, PodUsage};
use crate::agent::cgroups::{Device, MemoryUsage};
use crate::agent::context::Context;
use crate::agent::server::http::Body;

const NANOS: f64 = 1e9;

/// The answer.
pub async fn answer(context: &Context) -> Response<Body> {
    let measured = usage::measure(context).await;
    let mut families = families(&measured);
    let (cpus, memory) = (context.facts.node_cpu_millis, context.facts.node_memory);
    let bytes = number(u64::try_from(memory).unwrap_or(0));
    families.push(gauge("machine_cpu_cores", "Processors", number(u64::try_from(cpus / 1000).unwrap_or(0))));
    families.push(gauge("machine_memory_bytes", "Memory in bytes", bytes));
    family::answer(&families, Some(measured.at.as_millisecond()))
}

/// A name, whether it is a gauge or a counter, what it is, and its value.
type Row<T> = (&'static str, &'static str, &'static str, fn(&T) -> Option<f64>);

fn memory(container: &ContainerUsage, of: fn(&MemoryUsage) -> u64) -> Option<f64> {
    container.usage.memory.map(|memory| number(of(&memory)))
}

const CONTAINERS: &[Row<ContainerUsage>] = &[
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
        Some(c.started_at.as_duration().as_secs_f64())
    }),
];

fn seconds(nanos: u64) -> f64 {
    number(nanos) / NANOS
}

/// What is counted of a CPU limit, where there is one.
fn limited(container: &ContainerUsage, value: Option<f64>) -> Option<f64> {
    value.filter(|_| container.details.quota_micros.is_some())
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

fn labels(pod: &PodUsage, container: &ContainerUsage) -> Vec<(&'static str, String)> {
    vec![
        ("container", container.name.clone()),
        ("id", format!("/kubepods/pod{}/{}", pod.uid, container.id)),
        ("image", container.image.clone()),
        ("name", container.id.clone()),
        ("namespace", pod.namespace.clone()),
        ("pod", pod.name.clone()),
    ]
}

fn families(measured: &Measured) -> Vec<Family> {
    let containers: Vec<_> =
        measured.pods.iter().flat_map(|pod| pod.containers.iter().map(move |container| (pod, container))).collect();
    let cpu = |(pod, container): &(&PodUsage, &ContainerUsage)| -> Option<Sample> {
        let seconds = number(container.usage.cpu_nanos?) / NANOS;
        let mut labels = labels(pod, container);
        labels.push(("cpu", "total".to_owned()));
        Some((labels, seconds))
    };
    let mut families = vec![Family {
        name: "container_cpu_usage_seconds_total",
        kind: "counter",
        help: "Processor time in seconds",
        samples: containers.iter().filter_map(cpu).collect(),
    }];
    families.extend(CONTAINERS.iter().map(|(name, kind, help, value)| {
        let samples =
            containers.iter().filter_map(|(pod, container)| Some((labels(pod, container), value(container)?)));
        Family { name, kind, help, samples: samples.collect() }
    }));
    families.extend(DEVICES.iter().map(|(name, kind, help, value)| {
        let devices = containers.iter().flat_map(|(pod, container)| {
            container.details.devices.iter().filter_map(|device| {
                let mut labels = labels(pod, container);
                labels.push(("device", device_name(&device.number)));
                Some((labels, value(device)?))
            })
        });
        Family { name, kind, help, samples: devices.collect() }
    }));
    families.push(failures(&containers));
    families.push(last_seen(&containers, measured));
    let interfaces: Vec<_> = measured
        .pods
        .iter()
        .flat_map(|pod| pod.network.iter().flatten().map(move |interface| (pod, interface)))
        .collect();
    families.extend(INTERFACES.iter().map(|(name, kind, help, value)| {
        let samples = interfaces.iter().filter_map(|(pod, interface)| {
            let labels = vec![
                ("interface", interface.name.clone()),
                ("namespace", pod.namespace.clone()),
                ("pod", pod.name.clone()),
            ];
            Some((labels, value(interface)?))
        });
        Family { name, kind, help, samples: samples.collect() }
    }));
    families
}

/// Pages that were not there when they were used.
fn failures(containers: &[(&PodUsage, &ContainerUsage)]) -> Family {
    let of = |(pod, container): &(&PodUsage, &ContainerUsage)| {
        let memory = container.usage.memory.unwrap_or_default();
        let kinds = [("pgfault", memory.page_faults), ("pgmajfault", memory.major_page_faults)];
        kinds.map(|(kind, count)| {
            let mut labels = labels(pod, container);
            labels.extend([("failure_type", kind.to_owned()), ("scope", "hierarchy".to_owned())]);
            (labels, number(count))
        })
    };
    let samples = containers.iter().flat_map(of).collect();
    Family { name: "container_memory_failures_total", kind: "counter", help: "Page faults", samples }
}

fn last_seen(containers: &[(&PodUsage, &ContainerUsage)], measured: &Measured) -> Family {
    let now = measured.at.as_duration().as_secs_f64().floor();
    let samples = containers.iter().map(|(pod, container)| (labels(pod, container), now)).collect();
    Family { name: "container_last_seen", kind: "gauge", help: "When it was measured, since the epoch", samples }
}

/// `/dev/sda` of `8:0`, and the number itself of a device without a name.
fn device_name(number: &str) -> String {
    let described = std::fs::read_to_string(format!("/sys/dev/block/{number}/uevent")).unwrap_or_default();
    let name = described.lines().find_map(|line| line.strip_prefix("DEVNAME="));
    name.map_or_else(|| number.to_owned(), |name| format!("/dev/{name}"))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::agent::cgroups::{Details, Usage};

    #[test]
    fn containers_and_pods_networks_are_told_with_cadvisors_labels() {
        let memory = MemoryUsage { usage: 10, limit: None, ..MemoryUsage::default() };
        let container = ContainerUsage {
            name: "c".into(),
            id: "abc".into(),
            image: "i".into(),
            started_at: Timestamp::UNIX_EPOCH,
            usage: Usage { cpu_nanos: Some(2_000_000_000), memory: Some(memory) },
            details: Details {
                throttled_nanos: Some(500_000_000),
                quota_micros: Some(50_000),
                devices: vec![Device { number: "999:9".into(), bytes: [7, 8], operations: [1, 2] }],
                ..Details::default()
            },
        };
        let eth0 = Interface { name: "eth0".into(), received: 5, sent: 6, ..Interface::default() };
        let pod = PodUsage {
            namespace: "ns".into(),
            name: "p".into(),
            uid: "u".into(),
            containers: vec![container],
            network: Some(vec![eth0]),
        };
        let measured = Measured {
            at: Timestamp::UNIX_EPOCH,
            node: Usage::default(),
            agent: Usage::default(),
            network: vec![],
            pods: vec![pod],
        };
        let families = families(&measured);
        let of = |name: &str| families.iter().find(|family| family.name == name).unwrap().samples[0].clone();
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
        let swap = families.iter().find(|family| family.name == "container_memory_swap").unwrap();
        assert!(swap.samples.is_empty(), "what is not counted is not told");
    }
}
