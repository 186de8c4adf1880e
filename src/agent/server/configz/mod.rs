//! `/configz`: the configuration the agent follows, as a whole `KubeletConfiguration` in which no field is missing that a
//! kubelet would print: tools read it, change a field and write it back as `--config`.
//!
//! What the agent follows is as it follows it, whether flags or files said so. What means nothing to it is as the files
//! have it, else as a kubelet takes it by default.

mod defaults;

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use ::http::{Response, StatusCode};
use serde_json::{Map, Value, json};

use self::defaults::FIELDS;
use super::http::{Body, respond};
use crate::agent::options::AgentOptions;
use crate::agent::options::{Authorization, NodeTaint};
use crate::config::GoDuration;
use crate::runtime::endpoint::Endpoint;

/// What stands for a header's value: it may be a password.
const MASKED: &str = "<masked>";

/// The answer.
pub fn answer(options: &AgentOptions) -> Response<Body> {
    respond(StatusCode::OK, "application/json", json!({ "kubeletconfig": effective(options) }).to_string())
}

fn effective(options: &AgentOptions) -> Value {
    let mut fields = Map::new();
    for (name, default) in FIELDS {
        // The table is checked by a test: there is none that is no JSON.
        let default = serde_json::from_str(default).unwrap_or(Value::Null);
        let written = options.written.get(*name).filter(|written| says_something(name, written)).cloned();
        let written = written.unwrap_or(Value::Null);
        fields.insert((*name).to_owned(), laid_over(default, written));
    }
    for part in [pods(options), node(options), server(options)] {
        let Value::Object(part) = part else { continue };
        // What nothing was said of stays as it is written: an option that is null.
        fields.extend(part.into_iter().filter(|(_, value)| !value.is_null()));
    }
    fields.retain(|_, value| !value.is_null());
    fields.into()
}

/// Numbers of which 0 stands for the default; of others it is an answer of its own.
const ZERO_IS_NONE: [&str; 4] = ["registryBurst", "eventBurst", "maxOpenFiles", "kubeAPIBurst"];

/// Whether what is written in a field is no word for its default.
fn says_something(name: &str, written: &Value) -> bool {
    let is_zero = written == &json!(0) && ZERO_IS_NONE.contains(&name);
    !(is_zero || matches!(written.as_str(), Some("" | "0" | "0s")))
}

/// What is written in a field, over its default: only parts of `logging` are taken one by one.
fn laid_over(default: Value, written: Value) -> Value {
    match (default, written) {
        (default, Value::Null) => default,
        (Value::Object(mut below), Value::Object(above)) if below.contains_key("flushFrequency") => {
            below.extend(above);
            below.into()
        }
        (_, written) => written,
    }
}

/// What pods are run by.
fn pods(options: &AgentOptions) -> Value {
    let path = |path: &Path| path.display().to_string();
    let headers: Map<String, Value> =
        options.static_pod_url_headers.iter().map(|(name, _)| (name.clone(), json!([MASKED]))).collect();
    let several = options.parallel_image_pulls.filter(|pulls| *pulls > 1);
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "staticPodPath": options.static_pod_path.as_deref().map(path),
        "fileCheckFrequency": duration(options.file_check_frequency),
        "staticPodURL": options.static_pod_url,
        "staticPodURLHeader": if headers.is_empty() { Value::Null } else { headers.into() },
        "httpCheckFrequency": duration(options.http_check_frequency),
        "syncFrequency": duration(options.sync_frequency),
        "podLogsDir": path(&options.pod_logs_dir),
        "clusterDNS": some(&options.cluster_dns),
        "clusterDomain": options.cluster_domain,
        "resolvConf": options.resolv_conf.as_deref().map(path),
        "crashLoopBackOff": { "maxContainerRestartPeriod": duration(options.max_restart_backoff) },
        "cpuCFSQuota": options.cpu_cfs_quota,
        "cpuCFSQuotaPeriod": duration(options.cpu_cfs_quota_period),
        "seccompDefault": options.seccomp_default,
        "oomScoreAdj": options.oom_score_adj,
        "containerLogMaxSize": quantity(options.container_log_max_size),
        "containerLogMaxFiles": options.container_log_max_files,
        "containerLogMonitorInterval": duration(options.container_log_monitor_interval),
        "cgroupsPerQOS": options.cgroups_per_qos,
        "cgroupRoot": Some(&options.cgroup_root).filter(|root| !root.is_empty()),
        "allowedUnsafeSysctls": some(&options.unsafe_sysctls),
        "podPidsLimit": options.pod_pids_limit.unwrap_or(-1),
        "serializeImagePulls": options.parallel_image_pulls == Some(1),
        "maxParallelImagePulls": several,
        "containerRuntimeEndpoint": endpoint(options),
    })
}

/// The runtime's socket, where it is one that the field can have and the files do not name it.
fn endpoint(options: &AgentOptions) -> Option<&str> {
    match options.runtime.as_ref().filter(|_| !options.runtime_from_file)? {
        Endpoint::Cri(socket) => Some(socket),
        Endpoint::Docker(socket) => socket.as_deref().filter(|socket| socket.starts_with("unix://")),
    }
}

/// What the Node is made of.
fn node(options: &AgentOptions) -> Value {
    let node = &options.node;
    let taint = |taint: &NodeTaint| json!({"key": taint.key, "value": taint.value, "effect": taint.effect});
    let taints: Vec<Value> = node.taints.iter().map(taint).collect();
    json!({
        "registerNode": node.register,
        "registerWithTaints": some(&taints),
        "nodeStatusUpdateFrequency": duration(node.status_update),
        "nodeStatusReportFrequency": duration(node.status_report),
        "nodeLeaseDurationSeconds": node.lease_seconds,
        "maxPods": node.max_pods,
        "nodeStatusMaxImages": node.max_images.map_or(json!(-1), |most| json!(most)),
        "systemReserved": Some(&node.system_reserved).filter(|reserved| !reserved.is_empty()),
        "kubeReserved": Some(&node.kube_reserved).filter(|reserved| !reserved.is_empty()),
        "evictionHard": node.eviction.written(),
        "providerID": node.provider_id,
        "rotateCertificates": Some(true).filter(|_| node.rotate_certificates),
        "serverTLSBootstrap": Some(true).filter(|_| node.server_tls_bootstrap),
    })
}

/// What is served, and to whom.
fn server(options: &AgentOptions) -> Value {
    let server = &options.server;
    let path = |path: &Path| path.display().to_string();
    let (certificate, key) = server.certificate.as_ref().map(|(one, other)| (path(one), path(other))).unzip();
    let x509: Map<String, Value> =
        server.client_ca.as_deref().map(|ca| ("clientCAFile".to_owned(), json!(path(ca)))).into_iter().collect();
    let mode = match server.authorization {
        Authorization::AlwaysAllow => "AlwaysAllow",
        Authorization::Webhook => "Webhook",
    };
    json!({
        "enableServer": Some(true).filter(|_| server.listen.is_some()),
        "address": address(options),
        "port": server.listen.map(|at| at.port()),
        "readOnlyPort": options.read_only.map_or(0, |at| at.port()),
        "healthzBindAddress": options.healthz.map(|at| at.ip()),
        "healthzPort": options.healthz.map_or(0, |at| at.port()),
        "tlsCertFile": certificate,
        "tlsPrivateKeyFile": key,
        "tlsMinVersion": Some("VersionTLS13").filter(|_| server.only_tls13),
        "tlsCipherSuites": some(&server.cipher_suites),
        "authentication": {
            "x509": x509,
            "webhook": { "enabled": server.tokens, "cacheTTL": duration(server.token_ttl) },
            "anonymous": { "enabled": server.anonymous },
        },
        "authorization": {
            "mode": mode,
            "webhook": {
                "cacheAuthorizedTTL": duration(server.allowed_ttl),
                "cacheUnauthorizedTTL": duration(server.denied_ttl),
            },
        },
        "enableDebuggingHandlers": server.debugging,
        "enableSystemLogHandler": server.system_logs,
        "streamingConnectionIdleTimeout": duration(server.idle),
    })
}

/// The field `address`. Where it is not set the read-only port is on the loopback and the other one is not: to say an
/// address then would open the read-only port to the network once it is written back.
fn address(options: &AgentOptions) -> Option<IpAddr> {
    let (own, read_only) = (options.server.listen.map(|at| at.ip()), options.read_only.map(|at| at.ip()));
    match (own, read_only) {
        (Some(own), Some(read_only)) => (own == read_only).then_some(own),
        (own, read_only) => own.or(read_only),
    }
}

/// A list, null for an empty one.
fn some<T: serde::Serialize>(list: &[T]) -> Value {
    if list.is_empty() { Value::Null } else { json!(list) }
}

/// As Go writes it.
fn duration(duration: Duration) -> String {
    GoDuration::from(duration).to_string()
}

/// In the largest binary unit that leaves a whole number; a negative one where there is no limit.
fn quantity(bytes: u64) -> String {
    if bytes == u64::MAX {
        return "-1".to_owned();
    }
    let units = [(1 << 30, "Gi"), (1 << 20, "Mi"), (1 << 10, "Ki")];
    let unit = units.into_iter().find(|(size, _)| bytes != 0 && bytes.is_multiple_of(*size));
    unit.map_or_else(|| bytes.to_string(), |(size, unit)| format!("{}{unit}", bytes.checked_div(size).unwrap_or(bytes)))
}

#[cfg(test)]
mod tests;
