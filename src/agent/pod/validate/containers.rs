//! Containers: names, images, environment, mounts, ports, resources.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, EnvVarSource, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::names::{is_dns_label, is_env_name, is_port_name, is_resource};
use super::{Problems, climbs, context_fields, filled, handlers, volume_fields};
use crate::agent::pod::resources;

/// Fields of a pod that a variable can have, besides single labels and annotations.
const FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// What differs between kinds of containers.
struct Facts<'a> {
    host_network: bool,
    host_users: bool,
    grace: i64,
    volumes: &'a BTreeSet<String>,
}

/// All containers of a pod.
pub(super) fn all(spec: &PodSpec, volumes: &BTreeSet<String>, problems: &mut Problems) {
    let (host_network, host_users) = (spec.host_network.unwrap_or(false), spec.host_users.unwrap_or(true));
    let grace = spec.termination_grace_period_seconds.unwrap_or(30);
    let facts = Facts { host_network, host_users, grace, volumes };
    let init = spec.init_containers.iter().flatten().enumerate().map(|(i, c)| (true, i, c));
    let mains = spec.containers.iter().enumerate().map(|(i, c)| (false, i, c));
    let (mut names, mut host_ports) = (BTreeSet::new(), BTreeSet::new());
    // Init containers run one by one, and a sidecar counts as one of them: each of them alone must not clash with itself.
    for (is_init, index, container) in init.chain(mains) {
        let field = format!("spec.{}[{index}]", if is_init { "initContainers" } else { "containers" });
        if !is_dns_label(&container.name) {
            problems.add(&field, format!("name {:?} is not a lower-case DNS label", container.name));
        }
        if !names.insert(&container.name) {
            problems.add(&field, format!("there is another container named {:?}", container.name));
        }
        own_fields(&field, container, problems);
        environment(&field, container, facts.volumes, problems);
        mounts(&field, container, facts.volumes, problems);
        ports(&field, container, facts.host_network, problems);
        let known = if is_init { &mut BTreeSet::new() } else { &mut host_ports };
        claim_host_ports(&field, container, known, problems);
        amounts(&field, container, problems);
        context_fields::container(&field, container, facts.host_users, problems);
        handlers::restarts(&field, container, is_init, problems);
        handlers::probes(&field, container, is_init, problems);
        handlers::hooks(&field, container, is_init, facts.grace, problems);
    }
}

/// A port of the machine: number, protocol and address.
type HostPort<'a> = (i32, &'a str, &'a str);

/// Adds a container's host ports to those that are taken.
fn claim_host_ports<'a>(
    field: &str,
    container: &'a Container,
    taken: &mut BTreeSet<HostPort<'a>>,
    problems: &mut Problems,
) {
    for port in container.ports.iter().flatten().filter(|port| port.host_port.unwrap_or(0) != 0) {
        let number = port.host_port.unwrap_or(0);
        let key = (number, port.protocol.as_deref().unwrap_or("TCP"), port.host_ip.as_deref().unwrap_or_default());
        let problem = format!("hostPort {number} is used twice");
        problems.refuse(!taken.insert(key), &format!("{field}.ports"), &problem);
    }
}

fn own_fields(field: &str, container: &Container, problems: &mut Problems) {
    let image = container.image.as_deref().unwrap_or_default();
    problems.refuse(image.is_empty(), &format!("{field}.image"), "is required");
    problems.refuse(image.trim() != image, &format!("{field}.image"), "must not begin or end with a space");
    let policy = container.image_pull_policy.as_deref();
    problems.one_of(&format!("{field}.imagePullPolicy"), policy, &["Always", "IfNotPresent", "Never"]);
    let policy = container.termination_message_policy.as_deref();
    problems.one_of(&format!("{field}.terminationMessagePolicy"), policy, &["File", "FallbackToLogsOnError"]);
    let devices = filled(&container.volume_devices);
    problems.refuse(devices, &format!("{field}.volumeDevices"), "block devices are not supported");
}

fn environment(field: &str, container: &Container, volumes: &BTreeSet<String>, problems: &mut Problems) {
    for (index, from) in container.env_from.iter().flatten().enumerate() {
        let what = if from.secret_ref.is_some() { "secrets" } else { "config maps" };
        problems.add(&format!("{field}.envFrom[{index}]"), format!("a static pod may not reference {what}"));
    }
    for (index, variable) in container.env.iter().flatten().enumerate() {
        let field = format!("{field}.env[{index}]");
        let named = is_env_name(&variable.name);
        problems.refuse(!named, &field, "the name must be filled, in printable ASCII, and have no '='");
        let Some(from) = &variable.value_from else { continue };
        let valued = !variable.value.as_deref().unwrap_or_default().is_empty();
        problems.refuse(valued, &field, "value and valueFrom cannot be combined");
        value_from(&field, from, volumes, problems);
    }
}

fn value_from(field: &str, from: &EnvVarSource, volumes: &BTreeSet<String>, problems: &mut Problems) {
    let sources = [
        from.secret_key_ref.is_some(),
        from.config_map_key_ref.is_some(),
        from.file_key_ref.is_some(),
        from.field_ref.is_some(),
        from.resource_field_ref.is_some(),
    ];
    let one = sources.into_iter().filter(|there| *there).count() == 1;
    problems.refuse(!one, field, "valueFrom must have exactly one source");
    problems.refuse(from.secret_key_ref.is_some(), field, "a static pod may not reference secrets");
    problems.refuse(from.config_map_key_ref.is_some(), field, "a static pod may not reference config maps");
    if let Some(file) = &from.file_key_ref {
        context_fields::file_key(field, file, volumes, problems);
    }
    if let Some(of) = &from.field_ref {
        let keyed = ["metadata.labels['", "metadata.annotations['"];
        let keyed = keyed.iter().any(|start| of.field_path.starts_with(start)) && of.field_path.ends_with("']");
        let known = keyed || FIELDS.contains(&of.field_path.as_str());
        problems.refuse(!known, field, &format!("a variable cannot have the fieldPath {:?}", of.field_path));
    }
    if let Some(of) = &from.resource_field_ref {
        let known = of.resource.split_once('.').is_some_and(|(list, name)| {
            matches!(list, "limits" | "requests") && !name.contains('/') && is_resource(name)
        });
        problems.refuse(!known, field, &format!("a variable cannot have the resource {:?}", of.resource));
        if let Some(divisor) = &of.divisor {
            quantity(&format!("{field}.divisor"), divisor, problems);
        }
    }
}

fn mounts(field: &str, container: &Container, volumes: &BTreeSet<String>, problems: &mut Problems) {
    let mut targets = BTreeSet::new();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let field = format!("{field}.volumeMounts[{index}]");
        if !volumes.contains(&mount.name) {
            problems.add(&field, format!("there is no volume named {:?}", mount.name));
        }
        problems.refuse(mount.mount_path.is_empty(), &format!("{field}.mountPath"), "is required");
        if !targets.insert(&mount.mount_path) {
            problems.add(&field, format!("{:?} is mounted twice", mount.mount_path));
        }
        let sub = mount.sub_path.as_deref().unwrap_or_default();
        let leaves = sub.starts_with('/') || climbs(sub);
        problems.refuse(leaves, &format!("{field}.subPath"), "must be relative, without '..'");
        volume_fields::mount(&field, mount, container, problems);
        let modes = ["None", "HostToContainer", "Bidirectional"];
        problems.one_of(&format!("{field}.mountPropagation"), mount.mount_propagation.as_deref(), &modes);
    }
}

fn ports(field: &str, container: &Container, host_network: bool, problems: &mut Problems) {
    let mut names = BTreeSet::new();
    for (index, port) in container.ports.iter().flatten().enumerate() {
        let field = format!("{field}.ports[{index}]");
        problems.refuse(!(1..=65535).contains(&port.container_port), &field, "containerPort must be 1 to 65535");
        let host_port = port.host_port.unwrap_or(0);
        problems.refuse(!(0..=65535).contains(&host_port), &field, "hostPort must be 1 to 65535");
        let differs = host_network && host_port != port.container_port;
        problems.refuse(differs, &field, "hostPort must equal containerPort under hostNetwork");
        problems.one_of(&format!("{field}.protocol"), port.protocol.as_deref(), &["TCP", "UDP", "SCTP"]);
        if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            let problem =
                format!("{name:?} is no name of a port: at most 15 of a-z, 0-9 and '-', one of them a letter");
            problems.refuse(!is_port_name(name), &field, &problem);
            problems.refuse(!names.insert(name), &field, &format!("there is another port named {name:?}"));
        }
        if let Some(address) = port.host_ip.as_deref().filter(|address| !address.is_empty()) {
            let bad = address.parse::<IpAddr>().is_err();
            problems.refuse(bad, &format!("{field}.hostIP"), &format!("{address:?} is no IP address"));
        }
    }
}

/// A quantity that is one, and is not negative.
pub(super) fn quantity(field: &str, quantity: &Quantity, problems: &mut Problems) {
    match resources::bytes(quantity) {
        None => problems.add(field, format!("{:?} is not a quantity", quantity.0)),
        Some(value) => problems.refuse(value < 0, field, "must not be negative"),
    }
}

fn amounts(field: &str, container: &Container, problems: &mut Problems) {
    let Some(wanted) = &container.resources else { return };
    let known: (fn(&str) -> bool, _) = (is_resource, "no resource of this name; others need a domain, as in x.io/gpu");
    requirements(&format!("{field}.resources"), wanted, known, problems);
}

/// Requests and limits of a container or of a pod as a whole, with a test of their names and what is wrong with
/// others.
pub(super) fn requirements(
    field: &str,
    wanted: &ResourceRequirements,
    (is_known, words): (fn(&str) -> bool, &str),
    problems: &mut Problems,
) {
    problems.refuse(
        filled(&wanted.claims),
        &format!("{field}.claims"),
        "a static pod may not reference resource claims",
    );
    let limit_of = |name: &str| wanted.limits.as_ref().and_then(|limits| limits.get(name));
    for (list, values) in [("limits", &wanted.limits), ("requests", &wanted.requests)] {
        for (name, value) in values.iter().flatten() {
            // A request that is a copy of its limit has been reported there.
            if list == "requests" && limit_of(name) == Some(value) {
                continue;
            }
            let field = format!("{field}.{list}.{name}");
            problems.refuse(!is_known(name), &field, words);
            quantity(&field, value, problems);
            if list == "requests" {
                let (asked, limit) = (resources::millis(value), limit_of(name).and_then(resources::millis));
                let more = limit.is_some_and(|limit| asked.is_some_and(|asked| asked > limit));
                problems.refuse(more, &field, "must not be more than the limit");
            }
        }
    }
}
