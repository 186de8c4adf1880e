//! What the kubelet and the API server fill in before a static pod runs.

use k8s_openapi::api::core::v1::{
    Container, DownwardAPIVolumeFile, EmptyDirVolumeSource, HTTPGetAction, ObjectFieldSelector, PodSpec, Probe,
    Toleration, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::agent::pod::resources;

use super::{CONFIG_HASH, CONFIG_SEEN, CONFIG_SOURCE, Origin, Place};

/// Permissions of files that the agent writes into a volume.
const DEFAULT_MODE: i32 = 0o644;

/// Name with the node's suffix, namespace, UID, annotations.
pub(super) fn metadata(metadata: &mut ObjectMeta, uid: &str, origin: Origin<'_>) {
    let name = metadata.name.take().unwrap_or_default();
    metadata.name = Some(format!("{name}-{}", origin.node_name));
    if metadata.namespace.as_deref().unwrap_or_default().is_empty() {
        metadata.namespace = Some("default".to_owned());
    }
    metadata.uid = Some(uid.to_owned());
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.insert(CONFIG_HASH.to_owned(), uid.to_owned());
    annotations.insert(CONFIG_SOURCE.to_owned(), origin.place.source().to_owned());
    annotations.insert(CONFIG_SEEN.to_owned(), format!("{:.9}", origin.seen));
}

/// The defaults of a pod's spec that change how it runs (`pkg/apis/core/v1/defaults.go`) and those of a file source.
pub(super) fn spec(spec: &mut PodSpec, origin: Origin<'_>) {
    spec.node_name = Some(origin.node_name.to_owned());
    spec.restart_policy.get_or_insert_with(|| "Always".to_owned());
    let grace = spec.termination_grace_period_seconds.get_or_insert(30);
    // As upstream converts it: a grace period cannot end before it begins.
    if *grace < 0 {
        *grace = 1;
    }
    spec.dns_policy.get_or_insert_with(|| "ClusterFirst".to_owned());
    spec.scheduler_name.get_or_insert_with(|| "default-scheduler".to_owned());
    spec.enable_service_links.get_or_insert(true);
    spec.security_context.get_or_insert_default();
    if let Place::File(_) = origin.place {
        tolerate_no_execute(spec);
    }
    let host_network = spec.host_network.unwrap_or(false);
    for one in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
        container(one, host_network);
    }
    pod_requests(spec);
    for one in spec.volumes.iter_mut().flatten() {
        volume(one);
    }
}

/// A pod that has limits of its own asks for what its containers ask for together, else for as much as it may use
/// (`defaultPodRequests`).
fn pod_requests(spec: &mut PodSpec) {
    let own = spec.resources.as_ref().and_then(|own| own.limits.clone());
    let Some(limits) = own.filter(|limits| !limits.is_empty()) else { return };
    let asked =
        ["cpu", "memory"].map(|name| (name, resources::of_containers(spec, false, name, resources::unit(name))));
    let requests = spec.resources.get_or_insert_default().requests.get_or_insert_default();
    for (name, amount) in asked.into_iter().filter(|(_, amount)| *amount > 0) {
        requests.entry(name.to_owned()).or_insert_with(|| resources::quantity(name, amount));
    }
    for (name, limit) in limits.into_iter().filter(|(name, _)| resources::is_of_pods(name)) {
        requests.entry(name).or_insert(limit);
    }
}

/// A pod from a file stays on its node whatever taints it gets.
fn tolerate_no_execute(spec: &mut PodSpec) {
    let toleration = Toleration {
        operator: Some("Exists".to_owned()),
        effect: Some("NoExecute".to_owned()),
        ..Toleration::default()
    };
    let tolerations = spec.tolerations.get_or_insert_default();
    if !tolerations.contains(&toleration) {
        tolerations.push(toleration);
    }
}

fn container(container: &mut Container, host_network: bool) {
    let image = container.image.as_deref().unwrap_or_default();
    let policy = if is_latest(image) { "Always" } else { "IfNotPresent" };
    container.image_pull_policy.get_or_insert_with(|| policy.to_owned());
    container.termination_message_path.get_or_insert_with(|| "/dev/termination-log".to_owned());
    container.termination_message_policy.get_or_insert_with(|| "File".to_owned());
    if let Some(resources) = &mut container.resources
        && let Some(limits) = &resources.limits
    {
        let requests = resources.requests.get_or_insert_default();
        for (name, limit) in limits {
            requests.entry(name.clone()).or_insert_with(|| limit.clone());
        }
    }
    for port in container.ports.iter_mut().flatten() {
        port.protocol.get_or_insert_with(|| "TCP".to_owned());
        if host_network && port.host_port.unwrap_or(0) == 0 {
            port.host_port = Some(port.container_port);
        }
    }
    let probes = [&mut container.liveness_probe, &mut container.readiness_probe, &mut container.startup_probe];
    probes.into_iter().flatten().for_each(probe);
    for lifecycle in container.lifecycle.iter_mut() {
        let hooks = [&mut lifecycle.post_start, &mut lifecycle.pre_stop].into_iter().flatten();
        hooks.filter_map(|hook| hook.http_get.as_mut()).for_each(http_get);
    }
    let variables = container.env.iter_mut().flatten().filter_map(|variable| variable.value_from.as_mut());
    variables.filter_map(|from| from.field_ref.as_mut()).for_each(field_ref);
}

fn field_ref(field: &mut ObjectFieldSelector) {
    field.api_version.get_or_insert_with(|| "v1".to_owned());
}

fn files(items: Option<&mut Vec<DownwardAPIVolumeFile>>) {
    items.into_iter().flatten().filter_map(|item| item.field_ref.as_mut()).for_each(field_ref);
}

/// Whether the reference means "whatever is newest": the tag `latest`, or neither tag nor digest.
fn is_latest(image: &str) -> bool {
    if image.contains('@') {
        return false;
    }
    let last = image.rsplit('/').next().unwrap_or(image);
    last.split_once(':').is_none_or(|(_, tag)| tag == "latest")
}

fn probe(probe: &mut Probe) {
    for (field, default) in [
        (&mut probe.timeout_seconds, 1),
        (&mut probe.period_seconds, 10),
        (&mut probe.success_threshold, 1),
        (&mut probe.failure_threshold, 3),
    ] {
        if field.unwrap_or(0) == 0 {
            *field = Some(default);
        }
    }
    probe.http_get.iter_mut().for_each(http_get);
}

fn http_get(get: &mut HTTPGetAction) {
    get.path.get_or_insert_with(|| "/".to_owned());
    get.scheme.get_or_insert_with(|| "HTTP".to_owned());
}

fn volume(volume: &mut Volume) {
    if let Some(path) = &mut volume.host_path {
        path.type_.get_or_insert_default();
    }
    if let Some(api) = &mut volume.downward_api {
        api.default_mode.get_or_insert(DEFAULT_MODE);
        files(api.items.as_mut());
    }
    if let Some(projected) = &mut volume.projected {
        projected.default_mode.get_or_insert(DEFAULT_MODE);
        let sources = projected.sources.iter_mut().flatten().filter_map(|source| source.downward_api.as_mut());
        sources.for_each(|api| files(api.items.as_mut()));
    }
    let bare = Volume { name: volume.name.clone(), ..Volume::default() };
    if *volume == bare {
        volume.empty_dir = Some(EmptyDirVolumeSource::default());
    }
}
