#![allow(clippy::unwrap_used, reason = "tests")]

use bollard::models::{
    ContainerConfig as ApiConfig, ContainerInspectResponse, ContainerState as ApiState, CreateImageInfo, ProgressDetail,
};
use serde_json::{Value, json};

use super::progress::PullProgress;
use super::*;
use crate::testing::runtime::container_config;

fn config() -> ContainerConfig {
    container_config("me", "web-cp1", "web", 3, "web:1")
}

fn as_json(config: &ContainerConfig) -> Value {
    serde_json::to_value(spec::container(config).unwrap()).unwrap()
}

#[test]
fn an_address_is_a_socket_or_a_tcp_port_and_nothing_else() {
    for (text, expected) in [
        ("unix:///run/docker.sock", "unix:///run/docker.sock"),
        ("/run/docker.sock", "unix:///run/docker.sock"),
        ("tcp://10.0.0.1:2375", "tcp://10.0.0.1:2375"),
        ("http://10.0.0.1:2375/", "tcp://10.0.0.1:2375"),
    ] {
        assert_eq!(Address::parse(text).unwrap().to_string(), expected);
    }
    for wrong in ["", "unix://", "docker", "ssh://root@host"] {
        assert!(matches!(Address::parse(wrong), Err(RuntimeError::Refused { .. })), "{wrong}");
    }
}

#[tokio::test]
async fn a_socket_that_is_not_there_is_unreachable_by_name() {
    let docker = Docker::connect(Some("/nowhere/docker.sock")).unwrap();
    let error = docker.version().await.unwrap_err();
    assert!(matches!(&error, RuntimeError::Unreachable { address, .. } if address == "unix:///nowhere/docker.sock"));
}

#[tokio::test]
async fn why_a_daemon_does_not_answer_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let left = dir.path().join("left.sock");
    drop(std::os::unix::net::UnixListener::bind(&left).unwrap());
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let cases = [
        (dir.path().join("none.sock").display().to_string(), Silence::Missing, "there is no such socket"),
        (left.display().to_string(), Silence::Refused, "nothing listens there"),
        (format!("tcp://{closed}"), Silence::Refused, "nothing listens there"),
    ];
    for (address, why, words) in cases {
        let docker = Docker::connect(Some(&address)).unwrap();
        let error = docker.version().await.unwrap_err();
        assert_eq!(error.silence(), Some((why, false)), "{address}");
        assert_eq!(std::error::Error::source(&error).unwrap().to_string(), words, "{address}");
        let listed = docker.list_images().await.unwrap_err();
        assert!(address.starts_with("tcp:") || listed.silence() == Some((why, false)), "{address}: {listed:?}");
    }
    let mut docker = Docker::connect(Some("/nowhere/docker.sock")).unwrap();
    docker.by_environment = true;
    let error = docker.version().await.unwrap_err();
    assert_eq!(error.silence(), Some((Silence::Missing, true)));
    let words = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(words, "there is no such socket (DOCKER_HOST names the address)");
    assert_eq!(RuntimeError::NotFound { what: "x".into() }.silence(), None);
}

#[test]
fn annotations_become_labels_with_a_prefix_and_the_image_keeps_its_command_unless_told() {
    let body = as_json(&config());
    assert_eq!(body["Labels"]["annotation.io.kubernetes.container.restartCount"], "3");
    assert_eq!(body["Labels"]["io.kubernetes.pod.uid"], "uid-web-cp1");
    assert_eq!(body["Healthcheck"]["Test"], json!(["NONE"]));
    assert_eq!(body["HostConfig"]["RestartPolicy"]["Name"], "no");
    assert_eq!((&body["Entrypoint"], &body["Cmd"]), (&Value::Null, &Value::Null));
}

#[test]
fn security_and_limits_are_said_in_dockers_words() {
    let mut config = config();
    config.security = SecurityConfig {
        user: Some(1000),
        group: Some(2000),
        supplemental_groups: vec![7, 8],
        add_capabilities: vec!["NET_ADMIN".into()],
        drop_capabilities: vec!["ALL".into()],
        read_only_root: true,
        no_new_privileges: true,
        ..SecurityConfig::default()
    };
    config.resources = ResourceConfig {
        cpu_shares: 256,
        cpu_quota: 50_000,
        cpu_period: 100_000,
        memory_bytes: 1 << 26,
        pids: 9,
        oom_score_adj: 999,
    };
    let body = as_json(&config);
    assert_eq!(body["User"], "1000:2000");
    let host = &body["HostConfig"];
    assert_eq!(host["GroupAdd"], json!(["7", "8"]));
    assert_eq!(host["SecurityOpt"], json!(["no-new-privileges", "seccomp=unconfined"]));
    assert_eq!((&host["CapAdd"], &host["CapDrop"]), (&json!(["NET_ADMIN"]), &json!(["ALL"])));
    assert_eq!(host["ReadonlyRootfs"], true);
    assert_eq!((&host["Memory"], &host["MemorySwap"]), (&json!(1 << 26), &json!(1 << 26)));
    assert_eq!(
        (&host["CpuShares"], &host["CpuQuota"], &host["CpuPeriod"]),
        (&json!(256), &json!(50000), &json!(100_000))
    );
    assert_eq!((&host["OomScoreAdj"], &host["PidsLimit"]), (&json!(999), &json!(9)));
}

#[test]
fn the_log_driver_is_always_said_and_rotates_by_the_kubelets_limits() {
    let mut config = config();
    config.log = LogLimits { max_bytes: 1 << 20, max_files: 3 };
    let expected =
        json!({"Type": "json-file", "Config": {"max-size": "1048576", "max-file": "3", "compress": "false"}});
    assert_eq!(as_json(&config)["HostConfig"]["LogConfig"], expected);
    let sandbox = serde_json::to_value(spec::sandbox(&sandbox_config())).unwrap();
    assert_eq!(sandbox["HostConfig"]["LogConfig"]["Type"], "json-file");
}

#[test]
fn profiles_labels_and_an_open_proc_are_said_in_dockers_words() {
    let mut config = config();
    config.security = SecurityConfig {
        user_name: Some("web".into()),
        group: Some(7),
        unmasked_proc: true,
        seccomp: Seccomp::RuntimeDefault,
        apparmor: AppArmor::Localhost("mine".into()),
        selinux: vec!["type:spc_t".into()],
        ..SecurityConfig::default()
    };
    let body = as_json(&config);
    let host = &body["HostConfig"];
    assert_eq!(body["User"], "web:7");
    assert_eq!(host["SecurityOpt"], json!(["apparmor=mine", "label=type:spc_t"]));
    assert_eq!((&host["MaskedPaths"], &host["ReadonlyPaths"]), (&json!([]), &json!([])));
    config.security.apparmor = AppArmor::Unconfined;
    config.security.unmasked_proc = false;
    let host = &as_json(&config)["HostConfig"];
    assert_eq!(host["SecurityOpt"], json!(["apparmor=unconfined", "label=type:spc_t"]));
    assert_eq!(host["MaskedPaths"], Value::Null);
}

#[test]
fn seccomp_runtime_default_says_nothing_and_a_local_profile_is_sent_whole() {
    let mut config = config();
    config.security.seccomp = Seccomp::RuntimeDefault;
    assert_eq!(as_json(&config)["HostConfig"]["SecurityOpt"], Value::Null);
    let profile = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut profile.as_file(), b"{\"defaultAction\":\"SCMP_ACT_ALLOW\"}").unwrap();
    config.security.seccomp = Seccomp::Localhost(profile.path().to_str().unwrap().to_owned());
    assert_eq!(
        as_json(&config)["HostConfig"]["SecurityOpt"],
        json!(["seccomp={\"defaultAction\":\"SCMP_ACT_ALLOW\"}"])
    );
    config.security.seccomp = Seccomp::Localhost("/nowhere.json".into());
    let error = spec::container(&config).unwrap_err().to_string();
    assert!(error.contains("/nowhere.json"), "{error}");
}

#[test]
fn a_group_without_a_user_is_refused() {
    let mut config = config();
    config.security.group = Some(1);
    assert!(matches!(spec::container(&config), Err(RuntimeError::Refused { .. })));
}

#[test]
fn devices_are_mapped_and_those_of_cdi_are_refused_by_name() {
    let mut config = config();
    assert!(as_json(&config)["HostConfig"].get("Devices").is_none());
    let device = Device { host_path: "/dev/a".into(), container_path: "/dev/b".into(), permissions: "rw".into() };
    config.devices = vec![device];
    let mapped = json!([{"PathOnHost": "/dev/a", "PathInContainer": "/dev/b", "CgroupPermissions": "rw"}]);
    assert_eq!(as_json(&config)["HostConfig"]["Devices"], mapped);
    config.cdi_devices = vec!["vendor.com/gpu=one".into()];
    let error = spec::container(&config).unwrap_err();
    assert!(error.to_string().contains("vendor.com/gpu=one"), "{error}");
}

#[test]
fn mounts_are_binds_except_where_a_path_has_a_colon() {
    let mount = |host: &str, read_only, propagation| Mount {
        host_path: host.into(),
        container_path: "/in".into(),
        read_only,
        recursive_read_only: false,
        propagation,
    };
    let mut config = config();
    config.mounts = vec![
        mount("/a", false, Propagation::Private),
        mount("/b", true, Propagation::HostToContainer),
        mount("/c", false, Propagation::Bidirectional),
        mount("/d:e", true, Propagation::Private),
    ];
    let host = &as_json(&config)["HostConfig"];
    assert_eq!(host["Binds"], json!(["/a:/in", "/b:/in:ro,rslave", "/c:/in:rshared"]));
    assert_eq!(host["Mounts"][0]["Source"], "/d:e");
    assert_eq!(host["Mounts"].as_array().unwrap().len(), 1);
}

#[test]
fn a_container_of_a_sandbox_joins_its_network_and_ipc_and_its_processes_only_when_shared() {
    let mut config = config();
    config.network = NetworkMode::Sandbox("box".into());
    config.sandbox = Some("box".into());
    let host = &as_json(&config)["HostConfig"];
    assert_eq!((&host["NetworkMode"], &host["IpcMode"]), (&json!("container:box"), &json!("container:box")));
    assert_eq!((&host["PidMode"], &host["UTSMode"]), (&Value::Null, &Value::Null));
    config.share_pid = true;
    assert_eq!(as_json(&config)["HostConfig"]["PidMode"], "container:box");
    config.host_pid = true;
    config.host_ipc = true;
    let host = &as_json(&config)["HostConfig"];
    assert_eq!((&host["PidMode"], &host["IpcMode"]), (&json!("host"), &json!("host")));
    config.pid_target = Some("main-id".into());
    assert_eq!(as_json(&config)["HostConfig"]["PidMode"], "container:main-id");
}

fn sandbox_config() -> SandboxConfig {
    let of = config();
    SandboxConfig {
        name: ContainerName { container: "POD".into(), attempt: 0, ..of.name },
        image: "pause:3".into(),
        hostname: Some("web-cp1".into()),
        network: NetworkMode::Default,
        ports: vec![
            PortMapping { container_port: 80, host_port: 8080, host_ip: String::new(), protocol: "TCP".into() },
            PortMapping { container_port: 80, host_port: 8081, host_ip: "127.0.0.1".into(), protocol: "TCP".into() },
        ],
        selinux: vec!["type:t".into()],
        cgroup_parent: Some("/kubepods/podx".into()),
        log: LogLimits::default(),
        labels: of.labels,
        annotations: of.annotations,
        host_ipc: false,
        host_pid: false,
        users: None,
        sysctls: [("net.core.somaxconn".to_owned(), "1024".to_owned())].into(),
        oom_score_adj: -998,
        runtime_handler: String::new(),
        log_directory: None,
        privileged: false,
    }
}

#[test]
fn a_sandbox_publishes_ports_shares_its_ipc_and_leaves_the_host_name_to_the_host_under_its_network() {
    let mut config = sandbox_config();
    let body = serde_json::to_value(spec::sandbox(&config)).unwrap();
    let host = &body["HostConfig"];
    assert_eq!(body["Hostname"], "web-cp1");
    assert_eq!(
        host["PortBindings"]["80/tcp"],
        json!([{"HostPort": "8080"}, {"HostIp": "127.0.0.1", "HostPort": "8081"}])
    );
    assert_eq!((&host["NetworkMode"], &host["IpcMode"]), (&json!("default"), &json!("shareable")));
    assert_eq!(host["SecurityOpt"], json!(["no-new-privileges", "label=type:t"]));
    assert_eq!(host["CgroupParent"], "/kubepods/podx");
    assert_eq!(host["Sysctls"]["net.core.somaxconn"], "1024");
    config.network = NetworkMode::Host;
    let body = serde_json::to_value(spec::sandbox(&config)).unwrap();
    assert_eq!((&body["Hostname"], &body["HostConfig"]["UTSMode"]), (&Value::Null, &json!("host")));
}

#[test]
fn an_adjustment_below_the_floor_is_raised_to_it_and_the_others_stay() {
    let mut docker = Docker::connect(Some("/nowhere")).unwrap();
    docker.oom_score_floor = Some(0);
    assert_eq!([-998, 0, 999].map(|value| docker.allowed_oom_score_adj(value)), [0, 0, 999]);
    docker.oom_score_floor = None;
    assert_eq!(docker.allowed_oom_score_adj(-998), -998);
}

fn state(exit_code: i64, oom_killed: bool, started: &str, finished: &str) -> ContainerState {
    record::state(&ApiState {
        running: Some(false),
        exit_code: Some(exit_code),
        oom_killed: Some(oom_killed),
        started_at: Some(started.to_owned()),
        finished_at: Some(finished.to_owned()),
        ..ApiState::default()
    })
}

#[test]
fn states_are_read_as_dockershim_reads_them() {
    const NEVER: &str = "0001-01-01T00:00:00Z";
    const THEN: &str = "2026-01-02T03:04:05.678901234Z";
    assert_eq!(state(0, false, NEVER, NEVER), ContainerState::Created);
    for (exit_code, oom, start, end, expected) in [
        (0, false, THEN, THEN, "Completed"),
        (1, false, THEN, THEN, "Error"),
        (137, true, THEN, THEN, "OOMKilled"),
        (128, false, NEVER, NEVER, "StartError"),
    ] {
        let state = state(exit_code, oom, start, end);
        let ContainerState::Exited { reason, started_at, finished_at, exit_code: code, .. } = state else { panic!() };
        assert_eq!((reason.as_str(), code), (expected, exit_code));
        assert_eq!(started_at.is_some(), start == THEN);
        assert_eq!(finished_at.map(|at| at.subsec_nanosecond()), (end == THEN).then_some(678_901_234));
    }
}

#[test]
fn what_is_being_stopped_or_paused_runs_on_also_where_podman_says_otherwise() {
    for status in ["stopping", "paused"] {
        // As podman 4.3 has it.
        let state: ApiState = serde_json::from_value(serde_json::json!({
            "Status": status, "Running": false, "Pid": 7, "ExitCode": 0, "StartedAt": "2026-01-02T03:04:05Z",
            "FinishedAt": "0001-01-01T00:00:00Z"
        }))
        .unwrap();
        assert!(record::state(&state).is_running(), "{status}");
    }
}

#[test]
fn what_never_started_has_not_ended_well_whatever_its_code() {
    const NEVER: &str = "0001-01-01T00:00:00Z";
    const THEN: &str = "2026-01-02T03:04:05Z";
    for (code, expected) in [(0, 128), (127, 127)] {
        let ContainerState::Exited { reason, exit_code, started_at, .. } = state(code, false, NEVER, THEN) else {
            panic!()
        };
        assert_eq!((reason.as_str(), exit_code, started_at), ("StartError", expected, None));
    }
}

#[test]
fn what_ended_at_once_did_not_end_before_it_began() {
    let (start, end) = ("2026-01-02T03:04:05.2Z", "2026-01-02T03:04:05.1Z");
    let ContainerState::Exited { started_at, finished_at, .. } = state(3, false, start, end) else { panic!() };
    assert_eq!(finished_at, started_at);
}

fn inspected(name: &str, labels: &[(&str, &str)]) -> ContainerRecord {
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    record::container(&ContainerInspectResponse {
        name: Some(name.to_owned()),
        config: Some(ApiConfig { labels: Some(labels), ..ApiConfig::default() }),
        ..ContainerInspectResponse::default()
    })
}

#[test]
fn identity_comes_from_labels_and_else_from_the_name() {
    let by_name = inspected("/k8s_POD_web-cp1_default_u1_4_1a2b3c4d", &[]);
    assert_eq!(by_name.name.to_string(), "k8s_POD_web-cp1_default_u1_4");
    assert!(by_name.is_sandbox);
    let by_label = inspected(
        "/k8s_web_web-cp1_default_u1_0",
        &[
            ("io.kubernetes.container.name", "web"),
            ("io.kubernetes.docker.type", "container"),
            ("annotation.io.kubernetes.container.restartCount", "7"),
        ],
    );
    assert_eq!(by_label.name.attempt, 7);
    assert_eq!(by_label.annotations["io.kubernetes.container.restartCount"], "7");
    assert!(!by_label.is_sandbox && !by_label.labels.contains_key("annotation.io.kubernetes.container.restartCount"));
    let foreign = inspected("/somebody_else", &[]);
    assert_eq!((foreign.name.container.as_str(), foreign.is_sandbox), ("", false));
}

#[test]
fn a_pull_counts_bytes_over_layers_and_knows_the_total_once_all_layers_have_said_theirs() {
    let line = |id: &str, status: &str, bytes: Option<(i64, i64)>| CreateImageInfo {
        id: Some(id.to_owned()),
        status: Some(status.to_owned()),
        progress_detail: bytes.map(|(current, total)| ProgressDetail { current: Some(current), total: Some(total) }),
        ..CreateImageInfo::default()
    };
    let mut pull = PullProgress::default();
    assert_eq!(pull.update(&line("v1", "Pulling from web", None)), None);
    assert_eq!(pull.update(&line("a", "Pulling fs layer", None)), None);
    assert_eq!(pull.update(&line("b", "Pulling fs layer", None)), None);
    assert_eq!(pull.update(&line("a", "Downloading", Some((10, 100)))), Some((10, None)));
    assert_eq!(pull.update(&line("b", "Downloading", Some((5, 50)))), Some((15, Some(150))));
    assert_eq!(pull.update(&line("a", "Download complete", None)), Some((110 - 5, Some(150))));
    assert_eq!(pull.update(&line("a", "Extracting", Some((1, 100)))), None);
    assert_eq!(pull.update(&line("c", "Already exists", None)), Some((105, Some(150))));
}
