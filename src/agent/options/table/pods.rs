//! Options of what pods are run by, and of the agent itself.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use super::print;
use super::row::{AS_WRITTEN, OptionRow, Setting, duration, joint, joint_field, number, path, switch, text, texts};
use crate::agent::options::flag_value::Kind;
use crate::agent::options::values;

pub(super) static ROWS: &[OptionRow] = &[
    path(|flags| &mut flags.config, AS_WRITTEN).flag("config", "").help("FILE", "KubeletConfiguration file"),
    path(|flags| &mut flags.config_dir, AS_WRITTEN)
        .flag("config-dir", "")
        .help("DIR", "Directory of drop-in files (*.conf), each merged over the file and those before it"),
    path(|flags| &mut flags.pod_manifest_path, |options| print::some_path(options.static_pod_path.as_ref()))
        .flag("pod-manifest-path", "")
        .help("PATH", "Directory of manifests, or one manifest; staticPodPath of the file")
        .path_field("staticPodPath", "null"),
    joint(Kind::Secret, |flags, given| flags.manifest_url = given.text(), |options| json!(options.static_pod_url))
        .flag("manifest-url", "")
        .help("URL", "URL of a manifest or a list of pods; staticPodURL of the file")
        .field("staticPodURL", "null"),
    joint(Kind::Headers, |flags, given| flags.manifest_url_headers.extend(given.list()), print::headers)
        .flag("manifest-url-header", "")
        .help("HEADERS", "Headers of the requests to it: name:value,name2:value2")
        .field("staticPodURLHeader", "null"),
    duration(|options| &mut options.http_check_frequency)
        .flag("http-check-frequency", "20s")
        .help("DURATION", "How often it is asked")
        .field("httpCheckFrequency", r#""20s""#),
    joint(Kind::Text, |flags, given| flags.hostname_override = given.text(), AS_WRITTEN)
        .flag("hostname-override", "")
        .help("NAME", "Name of the node, which pods' names end with")
        .otherwise("the host name"),
    path(|flags| &mut flags.root_dir, AS_WRITTEN)
        .flag("root-dir", "/var/lib/kubelet")
        .help("DIR", "Directory for volumes; agents with different ones live side by side"),
    duration(|options| &mut options.file_check_frequency)
        .flag("file-check-frequency", "20s")
        .help("DURATION", "How often the manifests are listed whatever the watch says")
        .field("fileCheckFrequency", r#""20s""#),
    duration(|options| &mut options.sync_frequency)
        .flag("sync-frequency", "1m0s")
        .help("DURATION", "How often every pod is looked at whatever its events say")
        .field("syncFrequency", r#""1m0s""#),
    joint(
        Kind::Port,
        |flags, given| flags.healthz_port = given.port(),
        |options| json!(options.healthz.map_or(0, |at| at.port())),
    )
    .flag("healthz-port", "10248")
    .help("PORT", "Port of /healthz, 0 for none")
    .field("healthzPort", "10248"),
    joint(
        Kind::Ip,
        |flags, given| flags.healthz_bind_address = given.text(),
        |options| json!(options.healthz.map(|at| at.ip())),
    )
    .flag("healthz-bind-address", "127.0.0.1")
    .help("IP", "Address of /healthz")
    .field("healthzBindAddress", r#""127.0.0.1""#),
    text(
        |options, image| {
            options.pause_image = image.to_owned();
            Ok(())
        },
        AS_WRITTEN,
    )
    .old_flag("pod-infra-container-image")
    .help("IMAGE", "Image of pause containers"),
    texts(|options| &mut options.cluster_dns, |text| Ok(text.to_owned()))
        .flag("cluster-dns", "[]")
        .help("IP", "Name servers of pods")
        .field("clusterDNS", "null"),
    text(
        |options, domain| {
            options.cluster_domain = Some(domain.to_owned());
            Ok(())
        },
        |options| json!(options.cluster_domain),
    )
    .flag("cluster-domain", "")
    .help("DOMAIN", "Search domain of pods")
    .field("clusterDomain", "null"),
    text(
        |options, file| {
            options.resolv_conf = Some(PathBuf::from(file));
            Ok(())
        },
        |options| print::some_path(options.resolv_conf.as_ref()),
    )
    .flag("resolv-conf", "/etc/resolv.conf")
    .help("FILE", "The machine's resolver file, for pods")
    .otherwise("")
    .path_field("resolvConf", r#""/etc/resolv.conf""#),
    texts(|options| &mut options.unsafe_sysctls, values::sysctl)
        .flag("allowed-unsafe-sysctls", "[]")
        .help("NAMES", "Kernel parameters that pods may set beside the safe ones (net.core.*)")
        .field("allowedUnsafeSysctls", "null"),
    number(
        Kind::Int,
        |options, score| {
            let fault = |_| format!("expected a whole number, found the number {score}");
            options.oom_score_adj = i32::try_from(score).map_err(fault)?;
            Ok(())
        },
        |options| json!(options.oom_score_adj),
    )
    .flag("oom-score-adj", "-999")
    .help("N", "The agent's own OOM score")
    .field("oomScoreAdj", "-999"),
    switch(|options| &mut options.seccomp_default)
        .flag("seccomp-default", "false")
        .help("BOOL", "Give containers without a seccomp profile the runtime's")
        .otherwise("")
        .field("seccompDefault", "false"),
    switch(|options| &mut options.cpu_cfs_quota)
        .flag("cpu-cfs-quota", "true")
        .help("BOOL", "Enforce CPU limits")
        .field("cpuCFSQuota", "true"),
    duration(|options| &mut options.cpu_cfs_quota_period)
        .flag("cpu-cfs-quota-period", "100ms")
        .help("DURATION", "The period over which they are enforced")
        .field("cpuCFSQuotaPeriod", r#""100ms""#),
    text(
        |options, size| {
            options.container_log_max_size = values::log_size(size)?.unwrap_or(options.container_log_max_size);
            Ok(())
        },
        |options| json!(print::quantity(options.container_log_max_size)),
    )
    .flag("container-log-max-size", "10Mi")
    .help("QUANTITY", "Bytes at which a container's log is rotated; negative for never")
    .field("containerLogMaxSize", r#""10Mi""#),
    number(
        Kind::Int,
        |options, files| {
            options.container_log_max_files = values::log_files(files)?.unwrap_or(options.container_log_max_files);
            Ok(())
        },
        |options| json!(options.container_log_max_files),
    )
    .flag("container-log-max-files", "5")
    .help("N", "How many files of a container's log are kept")
    .field("containerLogMaxFiles", "5"),
    // What is set is written back by the reader of gates.
    joint(Kind::Gates, |flags, given| flags.feature_gates.extend(given.text()), AS_WRITTEN)
        .flag("feature-gates", "")
        .help("GATES", "Name=true,...; PodsAPI serves the pods on a socket below the root directory")
        .field("featureGates", "null"),
    joint(
        Kind::Port,
        |flags, given| flags.read_only_port = given.port(),
        |options| json!(options.read_only.map_or(0, |at| at.port())),
    )
    .flag("read-only-port", "0")
    .help("PORT", "Port of the kubelet's read-only paths, 0 for none")
    .field("readOnlyPort", "null"),
    joint(Kind::Ip, |flags, given| flags.address = given.text(), |options| json!(print::address(options)))
        .flag("address", "0.0.0.0")
        .help("IP", "Address of the read-only port")
        .otherwise("127.0.0.1")
        .field("address", "null"),
    switch(|options| &mut options.cgroups_per_qos)
        .flag("cgroups-per-qos", "true")
        .help("BOOL", "Give pods cgroups of their own, by quality of service")
        .field("cgroupsPerQOS", "true"),
    text(
        |options, path| {
            if let Some(path) = values::cgroup(path)? {
                options.cgroup_root = path;
            }
            Ok(())
        },
        |options| json!(Some(&options.cgroup_root).filter(|root| !root.is_empty())),
    )
    .flag("cgroup-root", "")
    .help("PATH", "The cgroup below which pods' cgroups are")
    .field("cgroupRoot", "null"),
    number(
        Kind::Int64,
        |options, limit| {
            options.pod_pids_limit = Some(limit).filter(|limit| *limit > 0);
            Ok(())
        },
        |options| json!(options.pod_pids_limit.unwrap_or(-1)),
    )
    .flag("pod-max-pids", "-1")
    .help("N", "The most processes of a pod, -1 for no limit")
    .field("podPidsLimit", "-1"),
    joint(
        Kind::Bool,
        |flags, given| flags.serialize_image_pulls = given.boolean(),
        |options| json!(options.parallel_image_pulls == Some(1)),
    )
    .flag("serialize-image-pulls", "true")
    .help("BOOL", "Pull one image at a time")
    .field("serializeImagePulls", "true"),
    joint(
        Kind::Text,
        |flags, given| flags.container_runtime_endpoint = given.text(),
        |options| json!(print::endpoint(options)),
    )
    .flag("container-runtime-endpoint", "")
    .help("SOCKET", "Socket of the container runtime, a unix:// URL")
    .otherwise("Docker, else the only one that speaks CRI")
    .field("containerRuntimeEndpoint", r#""""#),
    joint(
        Kind::Version,
        |flags, given| {
            flags.version = matches!(given.text().as_deref(), Some("1" | "t" | "T" | "true" | "TRUE" | "True" | "raw"));
        },
        AS_WRITTEN,
    )
    .flag("version", "false")
    .help("BOOL", "Print the version, and run nothing")
    .otherwise(""),
    text(
        |options, directory| {
            options.pod_logs_dir = PathBuf::from(directory);
            Ok(())
        },
        |options| print::path(&options.pod_logs_dir),
    )
    .path_field("podLogsDir", r#""/var/log/pods""#)
    .about("Directory of containers' logs"),
    joint_field(Kind::Duration, |options| print::duration(options.max_restart_backoff))
        .field("crashLoopBackOff.maxContainerRestartPeriod", r#""5m0s""#)
        .about("The longest back-off of a container that crashes"),
    OptionRow::followed(
        Kind::Duration,
        Setting::Duration(|options| &mut options.container_log_monitor_interval, Duration::from_secs(3)),
    )
    .field("containerLogMonitorInterval", r#""10s""#)
    .about("How often logs are looked at where the agent rotates them; 3s or more"),
    joint_field(Kind::Int, |options| json!(options.parallel_image_pulls.filter(|pulls| *pulls > 1)))
        .field("maxParallelImagePulls", "null")
        .about("Images pulled at a time, where serializeImagePulls is false; no limit without it"),
];

/// Those that no kubelet has.
pub(super) static OWN: &[OptionRow] = &[
    path(|flags| &mut flags.control_socket, AS_WRITTEN)
        .flag("control-socket", "/run/kubeboot/agent.sock")
        .help("PATH", "Control socket, where `kubeboot status` asks"),
    joint(Kind::Text, |flags, given| flags.docker_host = given.text(), AS_WRITTEN)
        .flag("docker-host", "")
        .help("ADDRESS", "Address of the Docker engine")
        .otherwise("DOCKER_HOST, else unix:///var/run/docker.sock"),
];
