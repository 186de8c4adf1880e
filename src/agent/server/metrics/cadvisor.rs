//! `/metrics/cadvisor`: what containers use, under cAdvisor's names, with its labels.

use ::http::Response;

use super::family::{self, Family, Sample, gauge, number};
use super::usage::{self, ContainerUsage, Interface, Measured, PodUsage};
use crate::agent::cgroups::MemoryUsage;
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
    ("container_start_time_seconds", "gauge", "Start since the epoch", |c| {
        Some(c.started_at.as_duration().as_secs_f64())
    }),
];

const INTERFACES: &[Row<Interface>] = &[
    ("container_network_receive_bytes_total", "counter", "Bytes received", |i| Some(number(i.received))),
    ("container_network_receive_errors_total", "counter", "Errors when receiving", |i| Some(number(i.receive_errors))),
    ("container_network_transmit_bytes_total", "counter", "Bytes sent", |i| Some(number(i.sent))),
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

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::agent::cgroups::Usage;

    #[test]
    fn containers_and_pods_networks_are_told_with_cadvisors_labels() {
        let memory = MemoryUsage { usage: 10, limit: None, ..MemoryUsage::default() };
        let container = ContainerUsage {
            name: "c".into(),
            id: "abc".into(),
            image: "i".into(),
            started_at: Timestamp::UNIX_EPOCH,
            usage: Usage { cpu_nanos: Some(2_000_000_000), memory: Some(memory) },
        };
        let eth0 = Interface { name: "eth0".into(), received: 5, receive_errors: 0, sent: 6, send_errors: 0 };
        let pod = PodUsage {
            namespace: "ns".into(),
            name: "p".into(),
            uid: "u".into(),
            containers: vec![container],
            network: Some(vec![eth0]),
        };
        let measured = Measured { at: Timestamp::UNIX_EPOCH, node: Usage::default(), network: vec![], pods: vec![pod] };
        let families = families(&measured);
        let of = |name: &str| families.iter().find(|family| family.name == name).unwrap().samples[0].clone();
        let (labels, seconds) = of("container_cpu_usage_seconds_total");
        assert_eq!(seconds, 2.0);
        assert!(
            labels.contains(&("id", "/kubepods/podu/abc".to_owned())) && labels.contains(&("cpu", "total".to_owned()))
        );
        assert_eq!(of("container_spec_memory_limit_bytes").1, 0.0);
        assert_eq!(of("container_network_transmit_bytes_total").1, 6.0);
    }
}
