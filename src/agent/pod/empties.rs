//! Empty texts that Go cannot tell from absent ones.
//!
//! Where Go's type of a field is a plain string, `""` is its zero value, which takes the default or means nothing. Where it
//! is a pointer (`procMount`, `mountPropagation`, a container's `restartPolicy`, the `type` of a `hostPath`), `""` is a value
//! of its own, mostly a wrong one: those fields are not listed here.

use k8s_openapi::api::core::v1::{
    Container, DownwardAPIVolumeFile, HTTPGetAction, ObjectFieldSelector, PodSpec, ResourceFieldSelector,
    TCPSocketAction, Volume,
};

type Text = Option<String>;

/// Makes empty texts of plain type absent.
pub(super) fn forget(spec: &mut PodSpec) {
    let mut fields: Vec<&mut Text> = vec![
        &mut spec.dns_policy,
        &mut spec.hostname,
        &mut spec.node_name,
        &mut spec.priority_class_name,
        &mut spec.restart_policy,
        &mut spec.scheduler_name,
        &mut spec.service_account,
        &mut spec.service_account_name,
        &mut spec.subdomain,
    ];
    for one in spec.tolerations.iter_mut().flatten() {
        fields.extend([&mut one.effect, &mut one.key, &mut one.operator, &mut one.value]);
    }
    spec.volumes.iter_mut().flatten().for_each(|one| volume(one, &mut fields));
    let init = spec.init_containers.iter_mut().flatten();
    init.chain(&mut spec.containers).for_each(|one| container(one, &mut fields));
    for field in fields.into_iter().filter(|field| field.as_deref() == Some("")) {
        *field = None;
    }
}

fn container<'a>(container: &'a mut Container, fields: &mut Vec<&'a mut Text>) {
    fields.extend([
        &mut container.image,
        &mut container.image_pull_policy,
        &mut container.termination_message_path,
        &mut container.termination_message_policy,
        &mut container.working_dir,
    ]);
    for one in container.ports.iter_mut().flatten() {
        fields.extend([&mut one.host_ip, &mut one.name, &mut one.protocol]);
    }
    for one in container.volume_mounts.iter_mut().flatten() {
        fields.extend([&mut one.sub_path, &mut one.sub_path_expr]);
    }
    for from in container.env.iter_mut().flatten().filter_map(|one| one.value_from.as_mut()) {
        selectors(&mut from.field_ref, &mut from.resource_field_ref, fields);
    }
    let probes = [&mut container.liveness_probe, &mut container.readiness_probe, &mut container.startup_probe];
    for one in probes.into_iter().flatten() {
        requests(&mut one.http_get, &mut one.tcp_socket, fields);
    }
    for lifecycle in container.lifecycle.iter_mut() {
        for one in [&mut lifecycle.post_start, &mut lifecycle.pre_stop].into_iter().flatten() {
            requests(&mut one.http_get, &mut one.tcp_socket, fields);
        }
    }
}

/// What probes and hooks ask.
fn requests<'a>(
    get: &'a mut Option<HTTPGetAction>,
    socket: &'a mut Option<TCPSocketAction>,
    fields: &mut Vec<&'a mut Text>,
) {
    if let Some(get) = get {
        fields.extend([&mut get.host, &mut get.path, &mut get.scheme]);
    }
    fields.extend(socket.iter_mut().map(|socket| &mut socket.host));
}

fn volume<'a>(volume: &'a mut Volume, fields: &mut Vec<&'a mut Text>) {
    fields.extend(volume.empty_dir.iter_mut().map(|dir| &mut dir.medium));
    if let Some(image) = &mut volume.image {
        fields.extend([&mut image.reference, &mut image.pull_policy]);
    }
    let own = volume.downward_api.iter_mut().flat_map(|api| api.items.iter_mut().flatten());
    let sources = volume.projected.iter_mut().flat_map(|projected| projected.sources.iter_mut().flatten());
    let projected = sources.filter_map(|source| source.downward_api.as_mut());
    let projected = projected.flat_map(|api| api.items.iter_mut().flatten());
    for DownwardAPIVolumeFile { field_ref, resource_field_ref, .. } in own.chain(projected) {
        selectors(field_ref, resource_field_ref, fields);
    }
}

/// References of variables and files to the pod itself.
fn selectors<'a>(
    field: &'a mut Option<ObjectFieldSelector>,
    resource: &'a mut Option<ResourceFieldSelector>,
    fields: &mut Vec<&'a mut Text>,
) {
    fields.extend(field.iter_mut().map(|of| &mut of.api_version));
    fields.extend(resource.iter_mut().map(|of| &mut of.container_name));
}
