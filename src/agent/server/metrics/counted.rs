//! What was counted since the agent started, under the kubelet's names.
//!
//! Two counters of the kubelet's end in `_errors`, where Prometheus' linter wants `_total`: their names are those that
//! dashboards ask for, so their type is left open.

use jiff::Timestamp;

use super::family::{Family, counter, counters, gauge, histogram, histograms, number};
use super::is_static;
use crate::agent::apiserver::certificates::store::Store;
use crate::agent::context::Context;
use crate::pki::inspect::Certificate;

/// All of it.
pub fn families(context: &Context) -> Vec<Family> {
    [starts(context), startups(context), workers(context), runtime(context), requests(context), certificates(context)]
        .concat()
}

/// What was started, refused and found.
fn starts(context: &Context) -> Vec<Family> {
    let metrics = &context.metrics;
    let restarted = [true, false].map(|bound| (vec![is_static(bound)], number(metrics.restarted(bound).get())));
    vec![
        counters(
            ("kubelet_started_containers_total", "Containers that were started"),
            ["container_type"],
            &metrics.started_containers,
        ),
        counters(
            ("kubelet_started_containers_errors_total", "Starts of containers that failed"),
            ["container_type", "code"],
            &metrics.failed_containers,
        ),
        counter("kubelet_started_pods_total", "Pods whose sandbox was started", metrics.started_sandboxes.get()),
        counter("kubelet_started_pods_errors_total", "Sandboxes that could not be", metrics.failed_sandboxes.get()),
        counters(("kubelet_admission_rejections_total", "Pods that were refused"), ["reason"], &metrics.refused_pods),
        gauge("kubelet_mirror_pods", "Mirror pods that are known", number(context.mirrors.count())),
        gauge("kubelet_cgroup_version", "The version of cgroups", if is_unified() { 2.0 } else { 1.0 }),
        Family {
            name: "kubelet_restarted_pods_total",
            kind: "counter",
            help: "Pods that began again under the same UID",
            samples: restarted.to_vec(),
        },
        counter(
            "kubelet_orphaned_runtime_pods_total",
            "Pods found in the runtime that nobody wants",
            metrics.orphans.get(),
        ),
        counter(
            "kubelet_pod_watch_events_dropped_total",
            "Events that clients of the pods API were too slow for",
            metrics.dropped_pod_events.get(),
        ),
        counters(
            ("kubelet_device_plugin_registration_total", "Registrations of device plugins"),
            ["resource_name"],
            &context.devices.registrations,
        ),
        histograms(
            ("kubelet_device_plugin_alloc_duration_seconds", "How long device plugins take to allocate devices"),
            ["resource_name"],
            &context.devices.allocations,
        ),
    ]
}

/// How long pods take to start.
fn startups(context: &Context) -> Vec<Family> {
    let startups = &context.metrics.startups;
    vec![
        histogram(
            "kubelet_pod_start_duration_seconds",
            "From the first sight of a pod until it runs",
            &startups.seen_to_running,
        ),
        histogram(
            "kubelet_pod_start_sli_duration_seconds",
            "From the creation of a pod until the API server has all its containers as running, without pulls and init \
             containers",
            &startups.sli,
        ),
        histogram(
            "kubelet_pod_start_total_duration_seconds",
            "From the creation of a pod until the API server has all its containers as running",
            &startups.total,
        ),
    ]
}

/// What workers of pods do, and how long it takes.
fn workers(context: &Context) -> Vec<Family> {
    let metrics = &context.metrics;
    vec![
        histograms(
            ("kubelet_pod_worker_duration_seconds", "How long a worker takes to create, update, sync or kill a pod"),
            ["operation_type"],
            &metrics.worker,
        ),
        histogram(
            "kubelet_pod_worker_start_duration_seconds",
            "From the first sight of a pod to its worker",
            &metrics.worker_start,
        ),
        histogram("kubelet_containers_per_pod_count", "Containers of a pod", &metrics.containers_per_pod),
        histogram(
            "kubelet_pod_status_sync_duration_seconds",
            "From a change of a pod's status until the API server has it",
            &metrics.status_sync,
        ),
        histograms(
            ("kubelet_image_pull_duration_seconds", "How long a pull takes, with the wait for its turn"),
            ["image_size_in_bytes"],
            &metrics.pulls,
        ),
        histograms(
            ("storage_operation_duration_seconds", "How long an operation of a volume takes"),
            ["volume_plugin", "operation_name", "status", "migrated"],
            &metrics.storage,
        ),
        histograms(
            ("kubelet_cgroup_manager_duration_seconds", "How long it takes to make or remove the cgroup of a pod"),
            ["operation_type"],
            &context.cgroups.times,
        ),
    ]
}

/// What the runtime was asked, and how long it takes to look at everything that it has.
fn runtime(context: &Context) -> Vec<Family> {
    let (operations, metrics) = (&context.operations, &context.metrics);
    let done = operations.times.all().into_iter();
    let done = done.map(|([name], counts)| (vec![("operation_type", name.into_owned())], number(counts.count)));
    let last = metrics.last_list().map(|at| gauge("kubelet_pleg_last_seen_seconds", "The last look", seconds(at)));
    let families = [
        Family {
            name: "kubelet_runtime_operations_total",
            kind: "counter",
            help: "Requests to the runtime",
            samples: done.collect(),
        },
        counters(
            ("kubelet_runtime_operations_errors_total", "Requests that failed"),
            ["operation_type"],
            &operations.errors,
        ),
        histograms(
            ("kubelet_runtime_operations_duration_seconds", "Duration of requests"),
            ["operation_type"],
            &operations.times,
        ),
        histograms(
            ("kubelet_run_podsandbox_duration_seconds", "How long it takes to make a sandbox"),
            ["runtime_handler"],
            &metrics.sandboxes,
        ),
        histogram("kubelet_pleg_relist_duration_seconds", "Duration of a look at all containers", &metrics.relist),
        histogram(
            "kubelet_pleg_relist_interval_seconds",
            "From one look at all containers to the next",
            &metrics.relist_interval,
        ),
    ];
    families.into_iter().chain(last).collect()
}

/// What the API server was asked.
fn requests(context: &Context) -> Vec<Family> {
    let Some(api) = &context.api else { return Vec::new() };
    vec![
        counters(
            ("rest_client_requests_total", "Requests to the API server"),
            ["code", "method", "host"],
            &api.requests.results,
        ),
        histograms(
            ("rest_client_request_duration_seconds", "How long until the API server begins to answer"),
            ["verb", "host"],
            &api.requests.times,
        ),
    ]
}

/// For how long certificates of the cluster are still valid, and how their renewal goes.
fn certificates(context: &Context) -> Vec<Family> {
    let node = &context.options.node;
    let errors = |name, count| Family { kind: "untyped", ..counter(name, "Renewals that failed", count) };
    let mut families = Vec::new();
    if context.api.is_some() && node.rotate_certificates {
        families.push(errors(
            "kubelet_certificate_manager_client_expiration_renew_errors",
            context.metrics.client_certificate_errors.get(),
        ));
        families.push(gauge(
            "kubelet_certificate_manager_client_ttl_seconds",
            "For how long the client certificate is still valid, +Inf without one",
            left(Store::client(&node.cert_dir).current().ok().flatten().map(|pair| pair.certificate.not_after)),
        ));
    }
    if context.api.is_some() && node.server_tls_bootstrap {
        families
            .push(errors("kubelet_server_expiration_renew_errors", context.metrics.server_certificate_errors.get()));
        let serving = context.serving.certificates().borrow().clone();
        let first = serving.as_ref().and_then(|key| key.cert.first());
        families.push(gauge(
            "kubelet_certificate_manager_server_ttl_seconds",
            "For how long the serving certificate is still valid, +Inf without one",
            left(first.and_then(|der| Certificate::parse(der).ok()).map(|certificate| certificate.not_after)),
        ));
        families.push(histogram(
            "kubelet_certificate_manager_server_rotation_seconds",
            "For how long the serving certificate before was used",
            &context.metrics.server_rotation,
        ));
    }
    families
}

/// Whole seconds until then, less than none when it is over.
fn left(end: Option<Timestamp>) -> f64 {
    end.map_or(f64::INFINITY, |end| end.duration_since(Timestamp::now()).as_secs_f64().trunc())
}

fn seconds(at: Timestamp) -> f64 {
    at.as_duration().as_secs_f64()
}

/// Whether the machine has cgroups of version 2 alone.
fn is_unified() -> bool {
    std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}
