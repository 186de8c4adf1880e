//! What Kubernetes refuses in a static pod, and what this agent cannot run. Every problem is told, not only the first.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, PodSpec, Probe, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use super::{PodError, context_fields, volume_fields};
use crate::agent::resources;

/// Types of `hostPath` volumes; the empty one checks nothing.
const HOST_PATH_TYPES: &[&str] =
    &["", "DirectoryOrCreate", "Directory", "FileOrCreate", "File", "Socket", "CharDevice", "BlockDevice"];

/// Volume sources that need the API server, as [`volume_source`] names them: a static pod may not reference its
/// objects.
const API_VOLUMES: &[&str] =
    &["configMap", "secret", "persistentVolumeClaim", "ephemeral", "csi", "glusterfs", "azureFile"];

#[derive(Default)]
pub(super) struct Problems(Vec<String>);

impl Problems {
    pub(super) fn add(&mut self, field: &str, problem: impl std::fmt::Display) {
        self.0.push(format!("{field}: {problem}"));
    }

    pub(super) fn refuse(&mut self, present: bool, field: &str, problem: &str) {
        if present {
            self.add(field, problem);
        }
    }

    pub(super) fn one_of(&mut self, field: &str, value: Option<&str>, allowed: &[&str]) {
        if let Some(value) = value
            && !allowed.contains(&value)
        {
            self.add(field, format!("{value:?} is none of {}", allowed.join(", ")));
        }
    }

    fn finish(self) -> Result<(), PodError> {
        if self.0.is_empty() { Ok(()) } else { Err(PodError::Invalid { problems: self.0 }) }
    }
}

/// Checks that must come before the node's name is put behind the pod's.
pub(super) fn written(metadata: &ObjectMeta, spec: &PodSpec) -> Result<(), PodError> {
    let mut problems = Problems::default();
    let unnamed = metadata.name.as_deref().unwrap_or_default().is_empty();
    problems.refuse(unnamed, "metadata.name", "is required (generateName is not enough)");
    // The UID becomes a directory's name, which is removed with the pod.
    let uid = metadata.uid.as_deref().unwrap_or_default();
    let plain = uid.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') && uid.len() <= 64;
    problems.refuse(!plain, "metadata.uid", "may have letters, digits and '-' only, 64 at most");
    problems.refuse(spec.containers.is_empty(), "spec.containers", "at least one container is required");
    problems.finish()
}

/// Checks of the whole pod after defaulting.
pub(super) fn defaulted(metadata: &ObjectMeta, spec: &PodSpec) -> Result<(), PodError> {
    let mut problems = Problems::default();
    let name = metadata.name.as_deref().unwrap_or_default();
    if !is_dns_subdomain(name) {
        problems.add("metadata.name", format!("{name:?} is not a lower-case DNS name"));
    }
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    if !is_dns_label(namespace) {
        problems.add("metadata.namespace", format!("{namespace:?} is not a lower-case DNS label"));
    }
    references(spec, &mut problems);
    pod_fields(spec, &mut problems);
    context_fields::pod(spec, &mut problems);
    let volumes = volumes(spec, &mut problems);
    containers(spec, &volumes, &mut problems);
    problems.finish()
}

/// References to API objects, which a static pod may not have (gate `PreventStaticPodAPIReferences`).
fn references(spec: &PodSpec, problems: &mut Problems) {
    let account =
        [&spec.service_account_name, &spec.service_account].into_iter().flatten().any(|name| !name.is_empty());
    let rows = [
        (account, "spec.serviceAccountName", "a static pod may not reference service accounts"),
        (filled(&spec.image_pull_secrets), "spec.imagePullSecrets", "a static pod may not reference secrets"),
        (filled(&spec.resource_claims), "spec.resourceClaims", "a static pod may not reference resource claims"),
        (
            filled(&spec.ephemeral_containers),
            "spec.ephemeralContainers",
            "a static pod may not have ephemeral containers",
        ),
        (filled(&spec.scheduling_gates), "spec.schedulingGates", "a static pod is bound to its node already"),
    ];
    for (present, field, problem) in rows {
        problems.refuse(present, field, problem);
    }
}

fn filled<T>(list: &Option<Vec<T>>) -> bool {
    list.as_ref().is_some_and(|list| !list.is_empty())
}

fn pod_fields(spec: &PodSpec, problems: &mut Problems) {
    problems.one_of("spec.restartPolicy", spec.restart_policy.as_deref(), &["Always", "OnFailure", "Never"]);
    let policies = ["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"];
    problems.one_of("spec.dnsPolicy", spec.dns_policy.as_deref(), &policies);
    let deadline = spec.active_deadline_seconds.unwrap_or(1);
    problems.refuse(deadline < 1, "spec.activeDeadlineSeconds", "must be at least 1");
    let negative = spec.termination_grace_period_seconds.unwrap_or(0) < 0;
    problems.refuse(negative, "spec.terminationGracePeriodSeconds", "must not be negative");
    if let Some(hostname) = &spec.hostname
        && !is_dns_label(hostname)
    {
        problems.add("spec.hostname", format!("{hostname:?} is not a lower-case DNS label"));
    }
    let both = spec.host_pid.unwrap_or(false) && spec.share_process_namespace.unwrap_or(false);
    problems.refuse(both, "spec.shareProcessNamespace", "cannot be combined with hostPID");
}

/// Checks volumes and returns their names.
fn volumes(spec: &PodSpec, problems: &mut Problems) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (index, volume) in spec.volumes.iter().flatten().enumerate() {
        let field = format!("spec.volumes[{index}]");
        if !is_dns_label(&volume.name) {
            problems.add(&field, format!("name {:?} is not a lower-case DNS label", volume.name));
        }
        if !names.insert(volume.name.clone()) {
            problems.add(&field, format!("there is another volume named {:?}", volume.name));
        }
        match volume_source(volume).as_slice() {
            [one] if API_VOLUMES.contains(&one.as_str()) => {
                problems.add(&field, format!("a static pod may not reference API objects ({one})"));
            }
            // Which of them are mounted shows when they are: the kubelet waits with FailedMount then.
            [_] => volume_fields::source(&field, volume, problems),
            _ => problems.add(&field, "must have exactly one source"),
        }
        if let Some(path) = &volume.host_path {
            problems.one_of(&format!("{field}.hostPath.type"), path.type_.as_deref(), HOST_PATH_TYPES);
            problems.refuse(!path.path.starts_with('/'), &format!("{field}.hostPath.path"), "must be absolute");
            problems.refuse(climbs(&path.path), &format!("{field}.hostPath.path"), "must not contain '..'");
        }
        if let Some(limit) = volume.empty_dir.as_ref().and_then(|dir| dir.size_limit.as_ref())
            && resources::bytes(limit).is_none()
        {
            problems.add(&format!("{field}.emptyDir.sizeLimit"), format!("{:?} is not a quantity", limit.0));
        }
    }
    names
}

/// The names of a volume's sources, of which there must be one.
fn volume_source(volume: &Volume) -> Vec<String> {
    match serde_json::to_value(volume) {
        Ok(Value::Object(fields)) => fields.into_iter().map(|(name, _)| name).filter(|name| name != "name").collect(),
        _ => vec![],
    }
}

pub(super) fn climbs(path: &str) -> bool {
    path.split('/').any(|part| part == "..")
}

fn containers(spec: &PodSpec, volumes: &BTreeSet<String>, problems: &mut Problems) {
    let init = spec.init_containers.iter().flatten().enumerate().map(|(i, c)| (true, i, c));
    let mains = spec.containers.iter().enumerate().map(|(i, c)| (false, i, c));
    let mut names = BTreeSet::new();
    for (is_init, index, container) in init.chain(mains) {
        let field = format!("spec.{}[{index}]", if is_init { "initContainers" } else { "containers" });
        if !is_dns_label(&container.name) {
            problems.add(&field, format!("name {:?} is not a lower-case DNS label", container.name));
        }
        if !names.insert(&container.name) {
            problems.add(&field, format!("there is another container named {:?}", container.name));
        }
        let image = container.image.as_deref().unwrap_or_default();
        problems.refuse(image.is_empty(), &format!("{field}.image"), "is required");
        problems.refuse(image.trim() != image, &format!("{field}.image"), "must not begin or end with a space");
        let policy = container.image_pull_policy.as_deref();
        problems.one_of(&format!("{field}.imagePullPolicy"), policy, &["Always", "IfNotPresent", "Never"]);
        restart(&field, container, problems);
        environment(&field, container, volumes, problems);
        context_fields::container(&field, container, problems);
        mounts(&field, container, volumes, problems);
        ports(&field, container, spec.host_network.unwrap_or(false), problems);
        quantities(&field, container, problems);
        probes(&field, container, is_init, problems);
    }
}

/// The container's own restart policy and rules.
fn restart(field: &str, container: &Container, problems: &mut Problems) {
    let policy = container.restart_policy.as_deref();
    problems.one_of(&format!("{field}.restartPolicy"), policy, &["Always", "OnFailure", "Never"]);
    let rules = container.restart_policy_rules.iter().flatten();
    for (index, rule) in rules.enumerate() {
        let field = format!("{field}.restartPolicyRules[{index}]");
        problems.refuse(policy.is_none(), &field, "needs a restartPolicy of the container beside it");
        problems.one_of(&format!("{field}.action"), Some(&rule.action), &["Restart", "RestartAllContainers"]);
        let Some(codes) = &rule.exit_codes else {
            problems.add(&field, "must have exitCodes");
            continue;
        };
        problems.one_of(&format!("{field}.exitCodes.operator"), Some(&codes.operator), &["In", "NotIn"]);
        let known = codes.values.iter().flatten().all(|code| (0..=255).contains(code));
        problems.refuse(!known, &format!("{field}.exitCodes.values"), "must be 0 to 255");
    }
}

fn environment(field: &str, container: &Container, volumes: &BTreeSet<String>, problems: &mut Problems) {
    problems.refuse(
        filled(&container.env_from),
        &format!("{field}.envFrom"),
        "a static pod may not reference config maps or secrets",
    );
    for (index, variable) in container.env.iter().flatten().enumerate() {
        let field = format!("{field}.env[{index}]");
        let bad = variable.name.is_empty() || variable.name.contains(['=', '\0']);
        problems.refuse(bad, &field, "the name must be filled and have no '='");
        let Some(from) = &variable.value_from else { continue };
        problems.refuse(from.secret_key_ref.is_some(), &field, "a static pod may not reference secrets");
        problems.refuse(from.config_map_key_ref.is_some(), &field, "a static pod may not reference config maps");
        if let Some(file) = &from.file_key_ref {
            context_fields::file_key(&field, file, volumes, problems);
        }
    }
}

fn mounts(field: &str, container: &Container, volumes: &BTreeSet<String>, problems: &mut Problems) {
    problems.refuse(
        filled(&container.volume_devices),
        &format!("{field}.volumeDevices"),
        "block devices are not supported",
    );
    let mut targets = BTreeSet::new();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let field = format!("{field}.volumeMounts[{index}]");
        if !volumes.contains(&mount.name) {
            problems.add(&field, format!("there is no volume named {:?}", mount.name));
        }
        problems.refuse(mount.mount_path.is_empty(), &format!("{field}.mountPath"), "is required");
        problems.refuse(mount.mount_path.contains(':'), &format!("{field}.mountPath"), "must not contain ':'");
        if !targets.insert(&mount.mount_path) {
            problems.add(&field, format!("{} is mounted twice", mount.mount_path));
        }
        let sub = mount.sub_path.as_deref().unwrap_or_default();
        problems.refuse(
            sub.starts_with('/') || climbs(sub),
            &format!("{field}.subPath"),
            "must be relative, without '..'",
        );
        volume_fields::mount(&field, mount, container, problems);
        let modes = ["None", "HostToContainer", "Bidirectional"];
        problems.one_of(&format!("{field}.mountPropagation"), mount.mount_propagation.as_deref(), &modes);
    }
}

fn ports(field: &str, container: &Container, host_network: bool, problems: &mut Problems) {
    for (index, port) in container.ports.iter().flatten().enumerate() {
        let field = format!("{field}.ports[{index}]");
        problems.refuse(!(1..=65535).contains(&port.container_port), &field, "containerPort must be 1 to 65535");
        let host_port = port.host_port.unwrap_or(0);
        problems.refuse(!(0..=65535).contains(&host_port), &field, "hostPort must be 1 to 65535");
        let differs = host_network && host_port != port.container_port;
        problems.refuse(differs, &field, "hostPort must equal containerPort under hostNetwork");
        problems.one_of(&format!("{field}.protocol"), port.protocol.as_deref(), &["TCP", "UDP", "SCTP"]);
    }
}

fn quantities(field: &str, container: &Container, problems: &mut Problems) {
    let Some(resources) = &container.resources else { return };
    let defaulted = |name: &str| resources.limits.as_ref().and_then(|limits| limits.get(name));
    for (list, values) in [("limits", &resources.limits), ("requests", &resources.requests)] {
        for (name, quantity) in values.iter().flatten() {
            let told = list == "requests" && defaulted(name) == Some(quantity);
            if resources::bytes(quantity).is_none() && !told {
                problems
                    .add(&format!("{field}.resources.{list}.{name}"), format!("{:?} is not a quantity", quantity.0));
            }
        }
    }
}

fn probes(field: &str, container: &Container, is_init: bool, problems: &mut Problems) {
    let sidecar = container.restart_policy.as_deref() == Some("Always");
    for (name, probe, once) in [
        ("livenessProbe", &container.liveness_probe, true),
        ("readinessProbe", &container.readiness_probe, false),
        ("startupProbe", &container.startup_probe, true),
    ] {
        let Some(probe) = probe else { continue };
        let field = format!("{field}.{name}");
        problems.refuse(is_init && !sidecar, &field, "an init container may not have probes");
        problems.refuse(handlers(probe) != 1, &field, "must have exactly one of httpGet, tcpSocket, exec, grpc");
        let wrong_port = probe.grpc.as_ref().is_some_and(|grpc| !(1..=65535).contains(&grpc.port));
        problems.refuse(wrong_port, &field, "grpc.port must be 1 to 65535");
        problems.refuse(once && probe.success_threshold.unwrap_or(1) != 1, &field, "successThreshold must be 1");
    }
}

fn handlers(probe: &Probe) -> usize {
    [probe.http_get.is_some(), probe.tcp_socket.is_some(), probe.exec.is_some(), probe.grpc.is_some()]
        .into_iter()
        .filter(|present| *present)
        .count()
}

/// What is accepted but does nothing here, said aloud.
pub(super) fn without_effect(spec: &PodSpec) -> Vec<String> {
    let mut fields = Vec::new();
    let rows = [
        (filled(&spec.readiness_gates), "readinessGates"),
        (spec.runtime_class_name.is_some(), "runtimeClassName"),
        (spec.host_users == Some(false), "hostUsers"),
    ];
    fields.extend(rows.into_iter().filter(|(present, _)| *present).map(|(_, name)| name.to_owned()));
    fields.into_iter().map(|field| format!("{field} has no effect in this agent")).collect()
}

fn is_dns_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

pub(super) fn is_dns_subdomain(text: &str) -> bool {
    (1..=253).contains(&text.len()) && text.split('.').all(is_dns_label)
}
