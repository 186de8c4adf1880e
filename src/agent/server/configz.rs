//! `/configz`: the configuration the agent follows, as a `KubeletConfiguration`. Fields that mean nothing to it are left
//! out.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use ::http::{Response, StatusCode};
use serde_json::{Value, json};

use super::http::{Body, respond};
use crate::agent::AgentOptions;
use crate::config::GoDuration;

/// What stands for a header's value: it may be a password.
const MASKED: &str = "<masked>";

/// The answer.
pub fn answer(options: &AgentOptions) -> Response<Body> {
    respond(StatusCode::OK, "application/json", json!({ "kubeletconfig": effective(options) }).to_string())
}

fn effective(options: &AgentOptions) -> Value {
    let path = |path: &Path| path.display().to_string();
    let optional = |at: &Option<std::path::PathBuf>| at.as_deref().map(path);
    let address = |at: Option<SocketAddr>| at.map(|at| at.ip().to_string());
    let port = |at: Option<SocketAddr>| at.map_or(0, |at| at.port());
    let headers: serde_json::Map<String, Value> =
        options.static_pod_url_headers.iter().map(|(name, _)| (name.clone(), json!([MASKED]))).collect();
    let mut config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "staticPodPath": optional(&options.static_pod_path),
        "fileCheckFrequency": duration(options.file_check_frequency),
        "staticPodURL": options.static_pod_url,
        "staticPodURLHeader": if headers.is_empty() { Value::Null } else { headers.into() },
        "httpCheckFrequency": duration(options.http_check_frequency),
        "syncFrequency": duration(options.sync_frequency),
        "podLogsDir": path(&options.pod_logs_dir),
        "healthzBindAddress": address(options.healthz),
        "healthzPort": port(options.healthz),
        "address": address(options.read_only),
        "readOnlyPort": port(options.read_only),
        "clusterDNS": options.cluster_dns,
        "clusterDomain": options.cluster_domain,
        "resolvConf": optional(&options.resolv_conf),
        "crashLoopBackOff": { "maxContainerRestartPeriod": duration(options.max_restart_backoff) },
        "cpuCFSQuota": options.cpu_cfs_quota,
        "cpuCFSQuotaPeriod": duration(options.cpu_cfs_quota_period),
        "seccompDefault": options.seccomp_default,
        "oomScoreAdj": options.oom_score_adj,
        "containerLogMaxSize": quantity(options.container_log_max_size),
        "containerLogMaxFiles": options.container_log_max_files,
        "containerLogMonitorInterval": duration(options.container_log_monitor_interval),
        "cgroupsPerQOS": options.cgroups_per_qos,
        "cgroupRoot": options.cgroup_root,
        "podPidsLimit": options.pod_pids_limit.unwrap_or(-1),
        "serializeImagePulls": options.parallel_image_pulls == Some(1),
        "maxParallelImagePulls": options.parallel_image_pulls,
    });
    if let Some(fields) = config.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    config
}

/// As Go writes it.
fn duration(duration: Duration) -> String {
    let text = format!("{}ns", duration.as_nanos());
    text.parse::<GoDuration>().map_or(text, |duration| duration.to_string())
}

/// In the largest binary unit that leaves a whole number.
fn quantity(bytes: u64) -> String {
    let units = [(1 << 30, "Gi"), (1 << 20, "Mi"), (1 << 10, "Ki")];
    let unit = units.into_iter().find(|(size, _)| bytes != 0 && bytes.is_multiple_of(*size));
    unit.map_or_else(|| bytes.to_string(), |(size, unit)| format!("{}{unit}", bytes.checked_div(size).unwrap_or(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_the_kubelets_and_says_no_password() {
        let mut options = AgentOptions::new("n");
        options.static_pod_path = Some("/m".into());
        options.static_pod_url_headers = vec![("Authorization".into(), "secret".into())];
        let config = effective(&options);
        assert_eq!(config["staticPodPath"], "/m");
        assert_eq!((&config["syncFrequency"], &config["cpuCFSQuotaPeriod"]), (&json!("1m0s"), &json!("100ms")));
        assert_eq!((&config["readOnlyPort"], &config["healthzPort"]), (&json!(0), &json!(10248)));
        assert_eq!((&config["containerLogMaxSize"], &config["podPidsLimit"]), (&json!("10Mi"), &json!(-1)));
        assert_eq!(config["serializeImagePulls"], true);
        assert!(config.get("staticPodURL").is_none());
        assert!(!config.to_string().contains("secret"));
        assert_eq!([quantity(0), quantity(1536), quantity(3)], ["0", "1536", "3"]);
    }
}
