//! `/metrics/resource`: what the metrics server reads, and scales by.

use ::http::Response;

use super::family::{self, Family, Sample, gauge, number};
use super::usage::{self, Measured};
use crate::agent::cgroups::Usage;
use crate::agent::context::Context;
use crate::agent::server::http::Body;

const NANOS: f64 = 1e9;

/// The answer.
pub async fn answer(context: &Context) -> Response<Body> {
    let measured = usage::measure(context).await;
    family::answer(&families(&measured), Some(measured.at.as_millisecond()))
}

/// A name, what it is, and its value in a usage.
type Row = (&'static str, &'static str, &'static str, fn(&Usage) -> Option<f64>);

fn cpu(usage: &Usage) -> Option<f64> {
    usage.cpu_nanos.map(|nanos| number(nanos) / NANOS)
}

fn working_set(usage: &Usage) -> Option<f64> {
    usage.memory.map(|memory| number(memory.working_set))
}

const SWAPPED: &str = "Memory of it that was swapped out in bytes";

const NODE: [Row; 2] = [
    ("node_cpu_usage_seconds_total", "counter", "Processor time of the node in seconds", cpu),
    ("node_memory_working_set_bytes", "gauge", "Working set of the node in bytes", working_set),
];
const POD: [Row; 2] = [
    ("pod_cpu_usage_seconds_total", "counter", "Processor time of a pod in seconds", cpu),
    ("pod_memory_working_set_bytes", "gauge", "Working set of a pod in bytes", working_set),
];
const CONTAINER: [Row; 2] = [
    ("container_cpu_usage_seconds_total", "counter", "Processor time of a container in seconds", cpu),
    ("container_memory_working_set_bytes", "gauge", "Working set of a container in bytes", working_set),
];

fn families(measured: &Measured) -> Vec<Family> {
    let pod_labels = |pod: &usage::PodUsage| vec![("namespace", pod.namespace.clone()), ("pod", pod.name.clone())];
    let nodes = vec![(vec![], measured.node.usage)];
    let pods: Vec<_> = measured.pods.iter().map(|pod| (pod_labels(pod), pod.total())).collect();
    let containers = measured.pods.iter().flat_map(|pod| {
        pod.containers.iter().map(move |container| {
            let mut labels = vec![("container", container.name.clone())];
            labels.extend(pod_labels(pod));
            (labels, container)
        })
    });
    let containers: Vec<_> = containers.collect();
    let used: Vec<_> = containers.iter().map(|(labels, one)| (labels.clone(), one.usage)).collect();
    let of = |(name, kind, help, value): Row, all: &[(Vec<(&'static str, String)>, Usage)]| {
        let samples = all.iter().filter_map(|(labels, usage)| Some((labels.clone(), value(usage)?)));
        Family { name, kind, help, samples: samples.collect() }
    };
    let mut families: Vec<Family> = NODE.map(|row| of(row, &nodes)).into();
    families.extend(POD.map(|row| of(row, &pods)));
    families.extend(CONTAINER.map(|row| of(row, &used)));
    let started = |(labels, one): &(Vec<(&'static str, String)>, &usage::ContainerUsage)| -> Sample {
        (labels.clone(), one.started_at.as_duration().as_secs_f64())
    };
    families.push(Family {
        name: "container_start_time_seconds",
        kind: "gauge",
        help: "When a container started, since the epoch",
        samples: containers.iter().map(started).collect(),
    });
    families.extend(swapped(measured, &containers));
    let failed = measured.node.usage.cpu_nanos.is_none() || measured.node.usage.memory.is_none();
    // The first name is that of old, which old metrics servers look at.
    families.push(gauge("scrape_error", "Whether something could not be measured", f64::from(u8::from(failed))));
    families.push(gauge(
        "resource_scrape_error",
        "Whether something could not be measured",
        f64::from(u8::from(failed)),
    ));
    families
}

/// What was swapped out. Where a machine has no swap that is nothing, whether or not it is counted.
fn swapped(measured: &Measured, containers: &[(Vec<(&'static str, String)>, &usage::ContainerUsage)]) -> [Family; 4] {
    let none = (measured.node.details.swap_limit == Some(0)).then_some(0);
    let family = |name, help, samples| Family { name, kind: "gauge", help, samples };
    let sample = |labels, bytes: Option<u64>| bytes.map(|bytes| (labels, number(bytes)));
    let node = sample(vec![], measured.node.details.swap).into_iter().collect();
    let labels = |pod: &usage::PodUsage| vec![("namespace", pod.namespace.clone()), ("pod", pod.name.clone())];
    let pods = measured.pods.iter().filter_map(|pod| sample(labels(pod), pod.swap().or(none))).collect();
    let used = containers.iter().filter_map(|(labels, one)| sample(labels.clone(), one.details.swap.or(none)));
    let limits = containers.iter().filter_map(|(labels, one)| sample(labels.clone(), one.details.swap_limit));
    [
        family("node_swap_usage_bytes", SWAPPED, node),
        family("pod_swap_usage_bytes", SWAPPED, pods),
        family("container_swap_usage_bytes", SWAPPED, used.collect()),
        family("container_swap_limit_bytes", "How much of it may be swapped out in bytes", limits.collect()),
    ]
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::agent::cgroups::{Details, MemoryUsage};

    #[test]
    fn what_the_metrics_server_reads_is_there() {
        let memory = MemoryUsage { working_set: 4096, ..MemoryUsage::default() };
        let used = Usage { cpu_nanos: Some(1_500_000_000), memory: Some(memory) };
        let container = usage::ContainerUsage {
            name: "c".into(),
            id: "id".into(),
            started_at: Timestamp::from_second(9).unwrap(),
            usage: used,
            details: Details { swap_limit: Some(5), ..Details::default() },
            ..usage::ContainerUsage::default()
        };
        let pod = usage::PodUsage {
            namespace: "ns".into(),
            name: "p".into(),
            containers: vec![container],
            ..usage::PodUsage::default()
        };
        let mut measured = Measured { pods: vec![pod], ..Measured::default() };
        measured.node.details = Details { swap: Some(0), swap_limit: Some(0), ..Details::default() };
        let families = families(&measured);
        let value = |name: &str| families.iter().find(|family| family.name == name).unwrap().samples.clone();
        assert!(value("node_cpu_usage_seconds_total").is_empty(), "what is not known is not said");
        assert_eq!(value("scrape_error")[0].1, 1.0);
        let labels = [("container", "c"), ("namespace", "ns"), ("pod", "p")].map(|(name, of)| (name, of.to_owned()));
        assert_eq!(value("container_cpu_usage_seconds_total"), [(labels.to_vec(), 1.5)]);
        assert_eq!(value("container_start_time_seconds")[0].1, 9.0);
        for (name, expected) in [
            ("node_swap_usage_bytes", 0.0),
            ("pod_swap_usage_bytes", 0.0),
            ("container_swap_usage_bytes", 0.0),
            ("container_swap_limit_bytes", 5.0),
        ] {
            assert_eq!(value(name)[0].1, expected, "{name}");
        }
        assert_eq!(value("pod_memory_working_set_bytes"), [(labels[1..].to_vec(), 4096.0)]);
    }
}
