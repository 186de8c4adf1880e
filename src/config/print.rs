//! Specs as kubeadm's v1beta4 documents: what a spec prints as loads to the same spec again.
//!
//! Empty fields are left out, but for those objects that kubeadm always writes. Only `init_configuration` and
//! `join_configuration` hold secrets.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::bootstrap_token::Lifetime;
use super::cluster::ALGORITHMS;
use super::durations::GoDuration;
use super::reset::UNMOUNT_FLAGS;
use super::spec::{
    ClusterSpec, ComponentSpec, Discovery, EtcdSpec, ExternalEtcd, JoinSpec, KubeconfigSource, LocalEtcd, NodeSpec,
    PullPolicy, ResetSpec, Timeouts, TokenSpec, UpgradeCommon, UpgradeSpec,
};

/// The newest version of kubeadm's API.
pub const API_VERSION: &str = "kubeadm.k8s.io/v1beta4";

/// An object of the fields that are not empty.
fn object<const N: usize>(fields: [(&str, Value); N]) -> Value {
    let empty = |value: &Value| match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Bool(on) => !on,
        _ => false,
    };
    Value::Object(fields.into_iter().filter(|(_, value)| !empty(value)).map(|(k, v)| (k.to_owned(), v)).collect())
}

/// The same with `apiVersion` and `kind`.
fn document(kind: &str, mut fields: Value) -> Value {
    if let Value::Object(map) = &mut fields {
        map.insert("apiVersion".into(), API_VERSION.into());
        map.insert("kind".into(), kind.into());
    }
    fields
}

/// What can be written as JSON by its type.
fn json<T: Serialize>(value: &T) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

fn path(path: &Path) -> Value {
    path.display().to_string().into()
}

fn duration(duration: Duration) -> Value {
    GoDuration::from(duration).to_string().into()
}

/// A map that is left out when nothing is in it.
fn unless_empty(value: Value) -> Value {
    match value.as_object().is_some_and(Map::is_empty) {
        true => Value::Null,
        false => value,
    }
}

/// `ClusterConfiguration`, as `init` uploads it.
pub fn cluster_configuration(spec: &ClusterSpec) -> Value {
    let algorithm = ALGORITHMS.iter().find(|(_, algorithm)| *algorithm == spec.key_algorithm).map(|(word, _)| *word);
    let gates = spec.feature_gates.iter().map(|(name, on)| (name.clone(), Value::Bool(*on))).collect();
    let mut api_server = component(&spec.api_server);
    if let (Value::Object(map), false) = (&mut api_server, spec.api_server_cert_sans.is_empty()) {
        map.insert("certSANs".into(), json(&spec.api_server_cert_sans));
    }
    let networks = |nets: &[ipnet::IpNet]| nets.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let fields = object([
        ("apiServer", api_server),
        ("caCertificateValidityPeriod", duration(spec.ca_certificate_validity)),
        ("certificateValidityPeriod", duration(spec.certificate_validity)),
        ("certificatesDir", path(&spec.certificates_dir)),
        ("clusterName", spec.cluster_name.clone().into()),
        ("controlPlaneEndpoint", spec.control_plane_endpoint.as_ref().map(ToString::to_string).into()),
        ("controllerManager", component(&spec.controller_manager)),
        (
            "dns",
            object([
                ("disabled", spec.dns.disabled.into()),
                ("imageRepository", spec.dns.image_repository.clone().into()),
                ("imageTag", spec.dns.image_tag.clone().into()),
            ]),
        ),
        ("encryptionAlgorithm", algorithm.into()),
        ("etcd", etcd(&spec.etcd)),
        ("featureGates", unless_empty(Value::Object(gates))),
        ("imageRepository", spec.image_repository.clone().into()),
        ("kubernetesVersion", spec.kubernetes_version.to_string().into()),
        (
            "networking",
            object([
                ("dnsDomain", spec.networking.dns_domain.clone().into()),
                ("podSubnet", networks(&spec.networking.pod_subnets).into()),
                ("serviceSubnet", networks(&spec.networking.service_subnets).into()),
            ]),
        ),
        ("proxy", object([("disabled", spec.proxy.disabled.into())])),
        ("scheduler", component(&spec.scheduler)),
    ]);
    document("ClusterConfiguration", fields)
}

fn component(spec: &ComponentSpec) -> Value {
    let volumes = spec.extra_volumes.iter().map(|volume| {
        object([
            ("hostPath", volume.host_path.clone().into()),
            ("mountPath", volume.mount_path.clone().into()),
            ("name", volume.name.clone().into()),
            ("pathType", volume.path_type.clone().into()),
            ("readOnly", volume.read_only.into()),
        ])
    });
    object([
        ("extraArgs", json(&spec.extra_args)),
        ("extraEnvs", json(&spec.extra_envs)),
        ("extraVolumes", volumes.collect()),
    ])
}

fn etcd(etcd: &EtcdSpec) -> Value {
    match etcd {
        EtcdSpec::Local(local) => json!({ "local": local_etcd(local) }),
        EtcdSpec::External(external) => json!({ "external": external_etcd(external) }),
    }
}

fn local_etcd(local: &LocalEtcd) -> Value {
    object([
        ("dataDir", path(&local.data_dir)),
        ("extraArgs", json(&local.component.extra_args)),
        ("extraEnvs", json(&local.component.extra_envs)),
        ("imageRepository", local.image_repository.clone().into()),
        ("imageTag", local.image_tag.clone().into()),
        ("peerCertSANs", json(&local.peer_cert_sans)),
        ("serverCertSANs", json(&local.server_cert_sans)),
    ])
}

fn external_etcd(external: &ExternalEtcd) -> Value {
    let file = |file: &Option<std::path::PathBuf>| file.as_deref().map_or(Value::Null, path);
    object([
        ("caFile", file(&external.ca_file)),
        ("certFile", file(&external.cert_file)),
        ("endpoints", json(&external.endpoints)),
        ("httpEndpoints", json(&external.http_endpoints)),
        ("keyFile", file(&external.key_file)),
    ])
}

/// `InitConfiguration`, tokens and certificate key with it.
pub fn init_configuration(spec: &ClusterSpec) -> Value {
    let fields = object([
        ("bootstrapTokens", spec.bootstrap_tokens.iter().map(token).collect()),
        ("certificateKey", spec.certificate_key.as_ref().map(|key| key.reveal()).into()),
        ("localAPIEndpoint", local_endpoint(&spec.node)),
        ("nodeRegistration", registration(&spec.node)),
        ("patches", patches(spec.patches_dir.as_deref())),
        ("skipPhases", json(&spec.skip_phases)),
        ("timeouts", timeouts(&spec.timeouts)),
    ]);
    document("InitConfiguration", fields)
}

fn token(token: &TokenSpec) -> Value {
    let (ttl, expires) = match token.lifetime {
        Lifetime::Endless => (duration(Duration::ZERO), Value::Null),
        Lifetime::For(ttl) => (duration(ttl), Value::Null),
        Lifetime::Until(end) => (Value::Null, end.to_string().into()),
    };
    object([
        ("description", token.description.clone().into()),
        ("expires", expires),
        ("groups", json(&token.groups)),
        ("token", token.token.as_ref().map(|token| token.reveal()).into()),
        ("ttl", ttl),
        ("usages", json(&token.usages)),
    ])
}

fn local_endpoint(node: &NodeSpec) -> Value {
    json!({ "advertiseAddress": node.advertise_address, "bindPort": node.bind_port })
}

/// `taints` always, as none and an empty list differ.
fn registration(node: &NodeSpec) -> Value {
    let mut fields = object([
        ("criSocket", node.cri_socket.clone().into()),
        ("ignorePreflightErrors", json(&node.ignore_preflight_errors)),
        ("imagePullPolicy", json(&node.image_pull_policy)),
        ("imagePullSerial", true.into()),
        ("kubeletExtraArgs", json(&node.kubelet_extra_args)),
        ("name", node.name.clone().into()),
    ]);
    if let Value::Object(map) = &mut fields {
        map.insert("taints".into(), json(&node.taints));
    }
    fields
}

fn patches(dir: Option<&Path>) -> Value {
    dir.map_or(Value::Null, |dir| json!({ "directory": path(dir) }))
}

fn timeouts(timeouts: &Timeouts) -> Value {
    json!({
        "controlPlaneComponentHealthCheck": duration(timeouts.control_plane_component_health_check),
        "discovery": duration(timeouts.discovery),
        "etcdAPICall": duration(timeouts.etcd_api_call),
        "kubeletHealthCheck": duration(timeouts.kubelet_health_check),
        "kubernetesAPICall": duration(timeouts.kubernetes_api_call),
        "tlsBootstrap": duration(timeouts.tls_bootstrap),
        "upgradeManifests": duration(timeouts.upgrade_manifests),
    })
}

/// `JoinConfiguration`, tokens and certificate key with it.
pub fn join_configuration(spec: &JoinSpec) -> Value {
    let discovery = match &spec.discovery {
        Discovery::Token(by_token) => (
            "bootstrapToken",
            object([
                ("apiServerEndpoint", by_token.endpoint.to_string().into()),
                ("caCertHashes", by_token.pins.iter().map(ToString::to_string).collect()),
                ("token", by_token.token.reveal().into()),
                ("unsafeSkipCAVerification", by_token.unsafe_skip_ca_verification.into()),
            ]),
        ),
        Discovery::File(KubeconfigSource::Path(file)) => ("file", json!({ "kubeConfigPath": path(file) })),
        Discovery::File(KubeconfigSource::Url(url)) => ("file", json!({ "kubeConfigPath": url })),
    };
    let tls = spec.tls_bootstrap_token.as_ref().map(|token| token.reveal());
    let control_plane = spec.control_plane.as_ref().map(|control_plane| {
        object([
            ("certificateKey", control_plane.certificate_key.as_ref().map(|key| key.reveal()).into()),
            ("localAPIEndpoint", local_endpoint(&spec.node)),
        ])
    });
    let fields = object([
        ("caCertPath", path(&spec.ca_cert_path)),
        ("controlPlane", control_plane.into()),
        ("discovery", object([discovery, ("tlsBootstrapToken", tls.into())])),
        ("nodeRegistration", registration(&spec.node)),
        ("patches", patches(spec.patches_dir.as_deref())),
        ("skipPhases", json(&spec.skip_phases)),
        ("timeouts", timeouts(&spec.timeouts)),
    ]);
    document("JoinConfiguration", fields)
}

/// `ResetConfiguration`.
pub fn reset_configuration(spec: &ResetSpec) -> Value {
    let flags = spec.unmount_flags.iter();
    let words = flags.filter_map(|flag| UNMOUNT_FLAGS.iter().find(|(_, known)| known == flag).map(|(word, _)| *word));
    let fields = object([
        ("certificatesDir", path(&spec.certificates_dir)),
        ("cleanupTmpDir", spec.cleanup_tmp_dir.into()),
        ("criSocket", spec.cri_socket.clone().into()),
        ("force", spec.force.into()),
        ("ignorePreflightErrors", json(&spec.ignore_preflight_errors)),
        ("skipPhases", json(&spec.skip_phases)),
        ("timeouts", timeouts(&spec.timeouts)),
        ("unmountFlags", words.collect()),
    ]);
    document("ResetConfiguration", fields)
}

/// `UpgradeConfiguration`.
pub fn upgrade_configuration(spec: &UpgradeSpec) -> Value {
    let version = |version: &Option<crate::release::KubernetesVersion>| version.as_ref().map(ToString::to_string);
    let (apply, node, plan, diff) = (&spec.apply, &spec.node, &spec.plan, &spec.diff);
    let on = |map: &mut Map<String, Value>, fields: Value| map.extend(fields.as_object().cloned().unwrap_or_default());
    let mut apply_fields = common(&apply.common);
    let own = object([
        ("allowExperimentalUpgrades", apply.allow_experimental_upgrades.into()),
        ("allowRCUpgrades", apply.allow_rc_upgrades.into()),
        ("dryRun", apply.dry_run.into()),
        ("forceUpgrade", apply.force.into()),
        ("kubernetesVersion", version(&apply.kubernetes_version).into()),
        ("printConfig", apply.print_config.into()),
    ]);
    on(&mut apply_fields, own);
    let mut node_fields = common(&node.common);
    on(&mut node_fields, object([("dryRun", node.dry_run.into())]));
    let mut plan_fields = Map::from_iter([("etcdUpgrade".to_owned(), plan.etcd_upgrade.into())]);
    let own = object([
        ("allowExperimentalUpgrades", plan.allow_experimental_upgrades.into()),
        ("allowRCUpgrades", plan.allow_rc_upgrades.into()),
        ("dryRun", plan.dry_run.into()),
        ("ignorePreflightErrors", json(&plan.ignore_preflight_errors)),
        ("kubernetesVersion", version(&plan.kubernetes_version).into()),
        ("printConfig", plan.print_config.into()),
    ]);
    on(&mut plan_fields, own);
    let lines = Some(diff.context_lines).filter(|lines| *lines != super::upgrade::CONTEXT_LINES as usize);
    let diff =
        object([("contextLines", lines.into()), ("kubernetesVersion", version(&diff.kubernetes_version).into())]);
    let fields = object([
        ("apply", apply_fields.into()),
        ("diff", diff),
        ("node", node_fields.into()),
        ("plan", plan_fields.into()),
        ("timeouts", spec.timeouts.as_ref().map(timeouts).into()),
    ]);
    document("UpgradeConfiguration", fields)
}

/// What is true unless it is written stays when it is false.
fn common(common: &UpgradeCommon) -> Map<String, Value> {
    let mut map = Map::from_iter([
        ("certificateRenewal".to_owned(), common.certificate_renewal.into()),
        ("etcdUpgrade".to_owned(), common.etcd_upgrade.into()),
        ("imagePullPolicy".to_owned(), json(&common.image_pull_policy.unwrap_or(PullPolicy::IfNotPresent))),
        ("imagePullSerial".to_owned(), common.image_pull_serial.into()),
    ]);
    let rest = object([
        ("ignorePreflightErrors", json(&common.ignore_preflight_errors)),
        ("patches", patches(common.patches_dir.as_deref())),
        ("skipPhases", json(&common.skip_phases)),
    ]);
    map.extend(rest.as_object().cloned().unwrap_or_default());
    map
}
