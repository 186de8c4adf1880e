//! What Kubernetes refuses in a static pod, and what this agent cannot run. Every problem is reported, not only the first.

mod volume_fields;
mod context_fields;
mod containers;
mod handlers;
pub(super) mod names;
mod security;
mod whole;

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{PodSpec, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use super::{CONFIG_MIRROR, PodError};
use crate::yaml::shorten;
use names::{is_dns_label, is_dns_part, is_label_value, is_qualified};

pub(super) use names::is_dns_subdomain;
pub use names::{is_env_name, is_extended_resource};

/// Types of `hostPath` volumes; the empty one checks nothing.
const HOST_PATH_TYPES: &[&str] =
    &["", "DirectoryOrCreate", "Directory", "FileOrCreate", "File", "Socket", "CharDevice", "BlockDevice"];

/// Volume sources that need the API server, as [`volume_source`] names them, with what a static pod may not reference
/// through them.
const API_VOLUMES: &[(&str, &str)] = &[
    ("azureFile", "secrets"),
    ("configMap", "config maps"),
    ("csi", "CSI drivers"),
    ("ephemeral", "persistent volume claims"),
    ("glusterfs", "endpoints"),
    ("persistentVolumeClaim", "persistent volume claims"),
    ("secret", "secrets"),
];
/// Other volume sources that may name a secret.
const SECRET_VOLUMES: &[&str] = &["cephfs", "cinder", "flexVolume", "iscsi", "rbd", "scaleIO", "storageos"];
/// Problems that are reported of one pod; more are not read.
const REPORTED: usize = 20;
/// Bytes of all annotations together.
const ANNOTATIONS_LIMIT: usize = 256 * 1024;

#[derive(Default)]
pub(super) struct Problems(Vec<String>);

impl Problems {
    pub(super) fn add(&mut self, field: &str, problem: impl std::fmt::Display) {
        self.0.push(format!("{field}: {}", shorten(&problem.to_string())));
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

    fn finish(mut self) -> Result<(), PodError> {
        let more = self.0.len().saturating_sub(REPORTED);
        if more > 0 {
            self.0.truncate(REPORTED);
            self.0.push(format!("and {more} more"));
        }
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
    labels(metadata, &mut problems);
    references(spec, &mut problems);
    pod_fields(spec, &mut problems);
    resolver(spec, &mut problems);
    context_fields::pod(spec, &mut problems);
    security::pod(spec, &mut problems);
    let volumes = volumes(spec, &mut problems);
    containers::all(spec, &volumes, &mut problems);
    whole::resources(spec, &mut problems);
    problems.finish()
}

fn labels(metadata: &ObjectMeta, problems: &mut Problems) {
    for (key, value) in metadata.labels.iter().flatten() {
        problems.refuse(!is_qualified(key), "metadata.labels", &format!("{key:?} is no key of a label"));
        problems.refuse(!is_label_value(value), "metadata.labels", &format!("{value:?} is no value of a label"));
    }
    for key in metadata.annotations.iter().flatten().map(|(key, _)| key) {
        let good = is_qualified(&key.to_lowercase());
        problems.refuse(!good, "metadata.annotations", &format!("{key:?} is no key of an annotation"));
        let mirror = key == CONFIG_MIRROR;
        problems.refuse(mirror, "metadata.annotations", "config.mirror marks the API server's copy of a static pod");
    }
    let size: usize =
        metadata.annotations.iter().flatten().map(|(key, value)| key.len().saturating_add(value.len())).sum();
    problems.refuse(size > ANNOTATIONS_LIMIT, "metadata.annotations", "all together may have 262144 bytes");
}

/// References to API objects, which a static pod may not have (gate `PreventStaticPodAPIReferences`).
fn references(spec: &PodSpec, problems: &mut Problems) {
    let account =
        [&spec.service_account_name, &spec.service_account].into_iter().flatten().any(|name| !name.is_empty());
    // One without a name references nothing.
    let pull_secrets = spec.image_pull_secrets.iter().flatten().any(|secret| !secret.name.is_empty());
    let rows = [
        (account, "spec.serviceAccountName", "a static pod may not reference service accounts"),
        (pull_secrets, "spec.imagePullSecrets", "a static pod may not reference secrets"),
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
    if let Some(hostname) = &spec.hostname
        && !is_dns_label(hostname)
    {
        problems.add("spec.hostname", format!("{hostname:?} is not a lower-case DNS label"));
    }
    named(spec, problems);
    if let Some(subdomain) = spec.subdomain.as_deref().filter(|text| !text.is_empty()) {
        let problem = format!("{subdomain:?} is not a lower-case DNS label");
        problems.refuse(!is_dns_label(subdomain), "spec.subdomain", &problem);
    }
    let deadline = spec.active_deadline_seconds.unwrap_or(1);
    let whole = (1..=i64::from(i32::MAX)).contains(&deadline);
    problems.refuse(!whole, "spec.activeDeadlineSeconds", "must be 1 to 2147483647");
    let rows =
        [(spec.host_network, "spec.hostNetwork"), (spec.host_pid, "spec.hostPID"), (spec.host_ipc, "spec.hostIPC")];
    for (of_host, field) in rows {
        let mixed = spec.host_users == Some(false) && of_host.unwrap_or(false);
        problems.refuse(mixed, field, "cannot be true when hostUsers is false");
    }
    let both = spec.host_pid.unwrap_or(false) && spec.share_process_namespace.unwrap_or(false);
    problems.refuse(both, "spec.shareProcessNamespace", "cannot be combined with hostPID");
    // Whether it is this node's is a matter of admission.
    let other = spec.os.as_ref().is_some_and(|os| !["linux", "windows"].contains(&os.name.as_str()));
    problems.refuse(other, "spec.os.name", "must be linux or windows");
    for (index, toleration) in spec.tolerations.iter().flatten().enumerate() {
        let field = format!("spec.tolerations[{index}]");
        let effects = ["", "NoSchedule", "PreferNoSchedule", "NoExecute"];
        problems.one_of(&format!("{field}.effect"), toleration.effect.as_deref(), &effects);
        let operators = ["", "Equal", "Exists", "Lt", "Gt"];
        problems.one_of(&format!("{field}.operator"), toleration.operator.as_deref(), &operators);
        let exists = toleration.operator.as_deref() == Some("Exists");
        let keyless = toleration.key.as_deref().unwrap_or_default().is_empty();
        problems.refuse(keyless && !exists, &field, "without a key the operator must be Exists");
        let valued = !toleration.value.as_deref().unwrap_or_default().is_empty();
        problems.refuse(exists && valued, &field, "Exists takes no value");
    }
}

/// Names whose fields are absent or filled: an empty one is a wrong value.
fn named(spec: &PodSpec, problems: &mut Problems) {
    let rows =
        [(&spec.runtime_class_name, "spec.runtimeClassName"), (&spec.hostname_override, "spec.hostnameOverride")];
    for (name, field) in rows.into_iter().filter_map(|(name, field)| Some((name.as_deref()?, field))) {
        let problem = format!("{name:?} is not a lower-case DNS name");
        problems.refuse(!is_dns_subdomain(name), field, &problem);
    }
    let policy = spec.preemption_policy.as_deref();
    problems.one_of("spec.preemptionPolicy", policy, &["PreemptLowerPriority", "Never"]);
    for (index, gate) in spec.readiness_gates.iter().flatten().enumerate() {
        let problem = format!("{:?} is no type of a condition", gate.condition_type);
        problems.refuse(!is_qualified(&gate.condition_type), &format!("spec.readinessGates[{index}]"), &problem);
    }
}

/// Search domains and options of the resolver.
fn resolver(spec: &PodSpec, problems: &mut Problems) {
    let Some(config) = &spec.dns_config else { return };
    for search in config.searches.iter().flatten() {
        // A lone dot is the root; a name may end with it, and may begin its labels with an underscore.
        let bare = search.strip_suffix('.').unwrap_or(search);
        let good = *search == "." || bare.split('.').all(|part| is_dns_part(part.strip_prefix('_').unwrap_or(part)));
        problems.refuse(!good, "spec.dnsConfig.searches", &format!("{search:?} is not a lower-case DNS name"));
    }
    let mut options = config.options.iter().flatten();
    let unnamed = options.any(|option| option.name.as_deref().unwrap_or_default().is_empty());
    problems.refuse(unnamed, "spec.dnsConfig.options", "every option needs a name");
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
            [one] if reference(one, volume).is_some() => {
                let what = reference(one, volume).unwrap_or_default();
                problems.add(&field, format!("a static pod may not reference {what} ({one})"));
            }
            // Which of them are mounted shows when they are: the kubelet waits with FailedMount then.
            [_] => volume_fields::source(&field, volume, problems),
            _ => problems.add(&field, "must have exactly one source"),
        }
        if let Some(path) = &volume.host_path {
            problems.one_of(&format!("{field}.hostPath.type"), path.type_.as_deref(), HOST_PATH_TYPES);
            problems.refuse(path.path.is_empty(), &format!("{field}.hostPath.path"), "is required");
            problems.refuse(
                !path.path.is_empty() && !path.path.starts_with('/'),
                &format!("{field}.hostPath.path"),
                "must be absolute",
            );
            problems.refuse(climbs(&path.path), &format!("{field}.hostPath.path"), "must not contain '..'");
        }
        if let Some(limit) = volume.empty_dir.as_ref().and_then(|dir| dir.size_limit.as_ref()) {
            containers::quantity(&format!("{field}.emptyDir.sizeLimit"), limit, problems);
        }
    }
    names
}

/// What of the API server's a volume with this source references, None if nothing.
fn reference(source: &str, volume: &Volume) -> Option<&'static str> {
    let listed = API_VOLUMES.iter().find(|(name, _)| *name == source).map(|(_, what)| *what);
    let secret = || {
        let value = serde_json::to_value(volume).unwrap_or_default();
        let secret = &value[source]["secretRef"];
        (SECRET_VOLUMES.contains(&source) && !secret.is_null()).then_some("secrets")
    };
    listed.or_else(secret)
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

/// What is accepted but does nothing here, said aloud.
pub(super) fn without_effect(spec: &PodSpec) -> Vec<String> {
    let rows = [(filled(&spec.readiness_gates), "readinessGates")];
    let fields = rows.into_iter().filter(|(present, _)| *present).map(|(_, name)| name);
    fields.map(|field| format!("{field} has no effect in this agent")).collect()
}
