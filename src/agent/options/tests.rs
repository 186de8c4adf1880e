use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::runtime::endpoint::Endpoint;

const FILE: &str = "/var/lib/kubelet/config.yaml";
const HEAD: &str = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";

fn main_file(text: &str) -> ConfigFile {
    ConfigFile::main(FILE.into(), text.to_owned())
}

fn drop_in(path: &str, text: &str) -> ConfigFile {
    ConfigFile { base: "/cwd".into(), ..ConfigFile::drop_in(path.into(), text.to_owned()) }
}

fn with_file(body: &str) -> Result<Resolved, OptionsError> {
    resolve(&Flags::default(), &[main_file(&format!("{HEAD}{body}"))], "cp1")
}

fn with_flags(flags: Flags) -> Result<Resolved, OptionsError> {
    let given = Flags { pod_manifest_path: flags.pod_manifest_path.or(Some("/m".into())), ..flags };
    resolve(&given, &[], "cp1")
}

/// Flags as a command line has them.
fn given<'a>(flags: impl IntoIterator<Item = (&'a str, &'a str)>) -> Flags {
    Flags::read(flags).unwrap()
}

#[test]
fn a_directory_is_all_that_has_to_be_said() {
    let resolved = with_flags(Flags::default()).unwrap();
    let expected = AgentOptions { static_pod_path: Some("/m".into()), ..AgentOptions::new("cp1") };
    assert_eq!(resolved, Resolved { options: expected, notes: vec![], warnings: vec![] });
}

#[test]
fn the_file_kubeadm_writes_is_followed_and_what_means_nothing_is_named_in_one_line() {
    let resolved = with_file(
        "authentication:\n  anonymous:\n    enabled: false\ncgroupDriver: systemd\nclusterDNS:\n- 10.96.0.10\n\
         clusterDomain: cluster.local\ncpuManagerReconcilePeriod: 0s\nfileCheckFrequency: 0s\nhealthzPort: 10248\n\
         healthzBindAddress: 127.0.0.1\nstaticPodPath: /etc/kubernetes/manifests\nsyncFrequency: 1m30s\n\
         crashLoopBackOff: {maxContainerRestartPeriod: 60s}\nresolvConf: resolv.conf\n",
    )
    .unwrap();
    let expected = AgentOptions {
        static_pod_path: Some("/etc/kubernetes/manifests".into()),
        cluster_dns: vec!["10.96.0.10".into()],
        cluster_domain: Some("cluster.local".into()),
        sync_frequency: Duration::from_secs(90),
        max_restart_backoff: Duration::from_secs(60),
        resolv_conf: Some("/var/lib/kubelet/resolv.conf".into()),
        written: resolved.options.written.clone(),
        ..AgentOptions::new("cp1")
    };
    assert_eq!(resolved.options, expected);
    let note = "/var/lib/kubelet/config.yaml: these fields mean nothing to this agent: cgroupDriver, \
                cpuManagerReconcilePeriod";
    assert_eq!((resolved.notes, resolved.warnings), (vec![note.to_owned()], vec![]));
}

#[test]
fn every_fault_of_the_file_is_told_with_its_place() {
    let error = with_file("staticPodPath: /m\nfileCheckFrequency: 20\nhealthzPort: 70000\nsyncFrequency: -1s\n");
    let Err(OptionsError::Config { problems, .. }) = error else { panic!("{error:?}") };
    assert_eq!(problems.len(), 3, "{problems:#?}");
    for (line, words) in [(4, "fileCheckFrequency: "), (5, "healthzPort: "), (6, "syncFrequency: ")] {
        let place = format!("{FILE}:{line}:");
        assert!(problems.iter().any(|p| p.starts_with(&place) && p.contains(words)), "{line} {words}: {problems:#?}");
    }
}

#[test]
fn a_field_that_there_is_not_or_that_stands_twice_is_one_warning_and_keeps_nothing_down() {
    let unknown =
        with_file("staticPodPath: /m\nstaticPodPaths: /n\ncrashLoopBackOff: {minimum: 1s}\nmaxPods: 7\n").unwrap();
    assert_eq!((unknown.options.static_pod_path.as_deref(), unknown.options.node.max_pods), (Some(Path::new("/m")), 7));
    let [warning] = &unknown.warnings[..] else { panic!("{:?}", unknown.warnings) };
    assert!(
        warning.starts_with("/var/lib/kubelet/config.yaml is read leniently, as a kubelet reads it: "),
        "{warning}"
    );
    assert!(warning.contains(":4:1: staticPodPaths: unknown field; did you mean staticPodPath?"), "{warning}");
    assert!(warning.contains("crashLoopBackOff.minimum: unknown field"), "{warning}");
    let repeated =
        with_file("staticPodPath: /m\nmaxPods: 7\nmaxPods: 8\nclusterDNS: [1.1.1.1]\ncgroupDriver: x\n").unwrap();
    assert_eq!(repeated.options.node.max_pods, 8, "the last one counts");
    assert!(
        repeated.warnings[0].contains("maxPods: is written twice: line 5 counts, line 4 does not"),
        "{:?}",
        repeated.warnings
    );
    assert_eq!((repeated.warnings.len(), repeated.notes.len()), (1, 1));
    let nested =
        with_file("staticPodPath: /m\nauthentication: {anonymous: {enabled: false, enabled: true}}\n").unwrap();
    assert!(nested.options.server.anonymous && nested.warnings.len() == 1);
    for (body, words) in [
        ("maxPods: 7\nmaxPods: many\n", "maxPods: expected a whole number"),
        ("maxPod: 7\nhealthzPort: many\n", "healthzPort: expected a whole number"),
    ] {
        let error = with_file(&format!("staticPodPath: /m\n{body}")).unwrap_err().to_string();
        assert!(error.contains(words), "what a kubelet refuses stays refused: {error}");
    }
}

#[test]
fn another_kind_or_version_is_refused_and_of_several_documents_the_first_counts() {
    for (text, words) in [
        ("kind: Pod\napiVersion: v1\n", "kind must be KubeletConfiguration, found Pod"),
        ("", "must hold a document, found none"),
        (
            "apiVersion: kubelet.config.k8s.io/v1\nkind: KubeletConfiguration\n",
            "apiVersion must be kubelet.config.k8s.io/v1beta1, found kubelet.config.k8s.io/v1",
        ),
        ("[1, 2]\n", "config.yaml:1"),
        ("a: [\n", "config.yaml:"),
    ] {
        let error = resolve(&Flags::default(), &[main_file(text)], "cp1").unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    let two = with_file("staticPodPath: /m\n---\nkind: Other\n").unwrap();
    assert!(two.warnings[0].contains("only the first document is used"), "{:?}", two.warnings);
    assert!(with_file("staticPodPath: /m\n---\n").unwrap().warnings.is_empty());
}

#[test]
fn flags_go_before_the_file() {
    let flags = given([
        ("pod-manifest-path", "/flag"),
        ("file-check-frequency", "5s"),
        ("healthz-port", "0"),
        ("cluster-dns", "1.1.1.1"),
        ("cluster-domain", "b"),
        ("seccomp-default", "false"),
        ("oom-score-adj", "-500"),
        ("pod-infra-container-image", "pause:1"),
    ]);
    let file = format!(
        "{HEAD}staticPodPath: /file\nfileCheckFrequency: 9s\nhealthzPort: 1\nclusterDNS: [2.2.2.2]\nclusterDomain: a\n\
         seccompDefault: true\noomScoreAdj: 1\nsyncFrequency: 7s\n"
    );
    let options = resolve(&flags, &[main_file(&file)], "cp1").unwrap().options;
    let expected = AgentOptions {
        static_pod_path: Some("/flag".into()),
        file_check_frequency: Duration::from_secs(5),
        sync_frequency: Duration::from_secs(7),
        healthz: None,
        cluster_dns: vec!["1.1.1.1".into()],
        cluster_domain: Some("b".into()),
        oom_score_adj: -500,
        pause_image: "pause:1".into(),
        written: options.written.clone(),
        given_flags: options.given_flags.clone(),
        ..AgentOptions::new("cp1")
    };
    assert_eq!(options, expected);
}

#[test]
fn what_is_little_is_said_by_the_flag_then_by_the_file() {
    use crate::agent::options::eviction::{DISK, FILES};
    let file = format!("{HEAD}staticPodPath: /m\nevictionHard: {{nodefs.available: 2%}}\n");
    let read = |flag: Option<&str>, more: &str| {
        let flags = Flags {
            node: NodeFlags { eviction_hard: flag.map(str::to_owned), ..NodeFlags::default() },
            ..Flags::default()
        };
        let eviction = resolve(&flags, &[main_file(&format!("{file}{more}"))], "cp1").unwrap().options.node.eviction;
        (eviction.least(DISK, 100), eviction.least(FILES, 100))
    };
    assert_eq!(read(None, ""), (Some(2), None));
    assert_eq!(read(None, "mergeDefaultEvictionSettings: true\n"), (Some(2), Some(5)));
    assert_eq!(read(Some("nodefs.inodesFree<7%"), ""), (None, Some(7)));
    let error = with_file("staticPodPath: /m\nevictionHard: {nodefs.free: 2%}\n").unwrap_err().to_string();
    assert!(error.contains("evictionHard") && error.contains("nodefs.free"), "{error}");
}

#[test]
fn an_agent_needs_a_directory_or_a_url() {
    assert!(matches!(resolve(&Flags::default(), &[], "cp1"), Err(OptionsError::NoSource)));
    assert!(matches!(with_file("staticPodPath: \"\"\n"), Err(OptionsError::NoSource)));
    let resolved = with_file("staticPodURL: http://x/pods\n").unwrap();
    assert_eq!(resolved.options.static_pod_path, None);
    assert_eq!(resolved.options.static_pod_url.as_deref(), Some("http://x/pods"));
}

#[test]
fn a_url_has_its_headers_from_the_file_or_from_the_flags() {
    let file = "staticPodURL: http://x/pods\nstaticPodURLHeader: {Accept: [a, b], X: [c]}\nhttpCheckFrequency: 5s\n";
    let options = with_file(file).unwrap().options;
    let pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    assert_eq!(options.static_pod_url_headers, pairs(&[("Accept", "a"), ("Accept", "b"), ("X", "c")]));
    assert_eq!(options.http_check_frequency, Duration::from_secs(5));
    let manifest_url_headers = vec!["a:hello, b:again,".into(), "b:https://x".into()];
    let flags = Flags { manifest_url_headers, ..given([("http-check-frequency", "6s")]) };
    let options = resolve(&flags, &[main_file(&format!("{HEAD}{file}"))], "cp1").unwrap().options;
    assert_eq!(options.static_pod_url_headers, pairs(&[("a", "hello"), ("b", "again"), ("b", "https://x")]));
    assert_eq!(options.http_check_frequency, Duration::from_secs(6));
}

#[test]
fn no_message_shows_what_may_be_a_secret() {
    let header = Flags { manifest_url_headers: vec!["hunter2".into()], ..Flags::default() };
    let value = Flags { manifest_url_headers: vec!["a:hunter2\n".into(), "b:hunter2\u{1}".into()], ..Flags::default() };
    let url = Flags { manifest_url: Some("ftp://me:hunter2@x".into()), ..Flags::default() };
    let urls = "staticPodURL: ftp://me:hunter2@x\n";
    let values = "staticPodURL: http://x\nstaticPodURLHeader: {a: [\"hunter2\\u0001\"]}\n";
    let bare = "staticPodURL: http://x\nstaticPodURLHeader: {Authorization: hunter2}\n";
    let errors =
        [with_flags(header), with_flags(value), with_flags(url), with_file(urls), with_file(values), with_file(bare)];
    for error in errors {
        let error = error.unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
        assert!(error.contains("header") || error.contains("URL") || error.contains("a list"), "{error}");
    }
}

#[test]
fn limits_of_logs_processes_and_pulls_are_followed() {
    let options = |body: &str| with_file(&format!("staticPodPath: /m\n{body}")).unwrap().options;
    let file = options(
        "containerLogMaxSize: 1Mi\ncontainerLogMaxFiles: 3\ncontainerLogMonitorInterval: 3s\nreadOnlyPort: 10255\n\
         cgroupsPerQOS: false\n\
         cgroupRoot: /a/b/\npodPidsLimit: 100\nmaxParallelImagePulls: 4\n",
    );
    let expected = AgentOptions {
        static_pod_path: Some("/m".into()),
        container_log_max_size: 1 << 20,
        container_log_max_files: 3,
        container_log_monitor_interval: Duration::from_secs(3),
        read_only: Some(([127, 0, 0, 1], 10255).into()),
        cgroups_per_qos: false,
        cgroup_root: "a/b".into(),
        pod_pids_limit: Some(100),
        parallel_image_pulls: Some(4),
        written: file.written.clone(),
        ..AgentOptions::new("cp1")
    };
    assert_eq!(file, expected);
    assert_eq!(options("readOnlyPort: 1\naddress: 0.0.0.0\n").read_only, Some(([0, 0, 0, 0], 1).into()));
    assert_eq!(options("podPidsLimit: -1\n").pod_pids_limit, None);
    assert_eq!(options("serializeImagePulls: false\n").parallel_image_pulls, None);
    assert_eq!(options("serializeImagePulls: true\nmaxParallelImagePulls: 1\n").parallel_image_pulls, Some(1));
    assert_eq!(options("containerLogMaxSize: \"-1\"\n").container_log_max_size, u64::MAX);
    let flags = given([
        ("address", "::1"),
        ("read-only-port", "7"),
        ("container-log-max-size", "5k"),
        ("container-log-max-files", "2"),
        ("cgroups-per-qos", "true"),
        ("pod-max-pids", "5"),
        ("serialize-image-pulls", "false"),
    ]);
    let options = with_flags(flags).unwrap().options;
    let found = (options.container_log_max_size, options.container_log_max_files, options.parallel_image_pulls);
    assert_eq!(found, (5000, 2, None));
    assert_eq!((options.read_only, options.pod_pids_limit), (Some("[::1]:7".parse().unwrap()), Some(5)));
}

#[test]
fn an_impossible_value_of_a_field_names_file_line_and_field() {
    for (field, words) in [
        ("containerLogMaxSize: lots", "\"lots\" is no quantity"),
        ("containerLogMaxSize: \"0\"", "must not be 0"),
        ("containerLogMaxSize: 10", "found the number 10"),
        ("containerLogMaxFiles: 1", "must be 2 or more"),
        ("containerLogMonitorInterval: 2s", "must be 3s or more, found 2s"),
        ("readOnlyPort: -1", "expected a whole number that is not negative"),
        ("address: lo", "\"lo\" is no IP address"),
        ("healthzBindAddress: lo", "\"lo\" is no IP address"),
        ("staticPodURL: file:///x", "must be an http:// or https:// URL"),
        ("staticPodURLHeader: {a b: [c]}", "\"a b\" is no name of a header"),
        ("staticPodURLHeader: {a: b}", "expected a list"),
        ("cgroupRoot: /a/../b", "must not contain '..'"),
        ("podPidsLimit: many", "expected a whole number"),
        ("maxParallelImagePulls: 0", "must be 1 or more"),
        ("cgroupsPerQOS: maybe", "expected true or false"),
        ("allowedUnsafeSysctls: [net.*, kernel.*]", "\"kernel.*\": a pod has none of its own"),
        ("allowedUnsafeSysctls: [Net]", "is written as net.core.somaxconn"),
    ] {
        let error = with_file(&format!("staticPodPath: /m\n{field}\n")).unwrap_err().to_string();
        let place = format!("{FILE}:4:");
        let name = field.split_once(':').unwrap().0;
        assert!(error.contains(&place) && error.contains(words) && error.contains(name), "{field}: {error}");
    }
    let both = with_file("staticPodPath: /m\nserializeImagePulls: true\nmaxParallelImagePulls: 2\n");
    assert!(both.unwrap_err().to_string().contains("needs serializeImagePulls: false"));
}

#[test]
fn the_flags_sysctls_are_allowed_instead_of_the_files() {
    let file = "staticPodPath: /m\nallowedUnsafeSysctls: [kernel.msg*, net/core/somaxconn]\n";
    assert_eq!(with_file(file).unwrap().options.unsafe_sysctls, ["kernel.msg*", "net.core.somaxconn"]);
    let flags = given([("allowed-unsafe-sysctls", "net.ipv4.*")]);
    let options = resolve(&flags, &[main_file(&format!("{HEAD}{file}"))], "cp1").unwrap().options;
    assert_eq!(options.unsafe_sysctls, ["net.ipv4.*"]);
    let wrong = given([("allowed-unsafe-sysctls", "vm.swappiness")]);
    let error = with_flags(wrong).unwrap_err().to_string();
    assert!(error.starts_with("--allowed-unsafe-sysctls is \"vm.swappiness\": a pod has none of its own"), "{error}");
}

#[test]
fn drop_ins_are_merged_over_the_file_one_after_the_other() {
    let file = format!(
        "{HEAD}staticPodPath: /m\nclusterDNS: [1.1.1.1, 2.2.2.2]\nsyncFrequency: 7s\noomScoreAdj: -5\n\
         staticPodURLHeader: {{a: [x], b: [w]}}\n"
    );
    let first =
        format!("{HEAD}clusterDNS: [3.3.3.3]\nresolvConf: r\nstaticPodURLHeader: {{a: [z]}}\ncgroupDriver: x\n");
    let second = format!("{HEAD}syncFrequency: 9s\noomScoreAdj: null\n");
    let files = [main_file(&file), drop_in("/d/10-a.conf", &first), drop_in("/d/20-b.conf", &second)];
    let resolved = resolve(&Flags::default(), &files, "cp1").unwrap();
    let expected = AgentOptions {
        static_pod_path: Some("/m".into()),
        cluster_dns: vec!["3.3.3.3".into()],
        resolv_conf: Some("/cwd/r".into()),
        sync_frequency: Duration::from_secs(9),
        static_pod_url_headers: vec![("a".into(), "z".into()), ("b".into(), "w".into())],
        written: resolved.options.written.clone(),
        ..AgentOptions::new("cp1")
    };
    assert_eq!(resolved.options, expected);
    assert_eq!(resolved.notes, ["/d/10-a.conf: these fields mean nothing to this agent: cgroupDriver"]);
    let odd = [files[0].clone(), drop_in("/d/30.conf", &format!("{second}syncFrequenzy: 1s\n"))];
    let resolved = resolve(&Flags::default(), &odd, "cp1").unwrap();
    assert_eq!(resolved.options.sync_frequency, Duration::from_secs(9));
    assert!(resolved.warnings[0].contains("/d/30.conf:5:1: syncFrequenzy: unknown field"), "{:?}", resolved.warnings);
    let alone = resolve(&Flags::default(), &[drop_in("/d/1.conf", &file)], "cp1").unwrap();
    assert_eq!(alone.options.static_pod_path.as_deref(), Some(Path::new("/m")), "a directory of drop-ins is enough");
}

#[test]
fn another_root_directory_has_a_control_socket_of_its_own() {
    let root = Flags { root_dir: Some("/srv/agent".into()), ..Flags::default() };
    let options = with_flags(root.clone()).unwrap().options;
    assert_eq!(options.control_socket, Path::new("/srv/agent/agent.sock"));
    assert_eq!(options.owner(), "/srv/agent");
    let named = with_flags(Flags { control_socket: Some("/run/x.sock".into()), ..root }).unwrap().options;
    assert_eq!(named.control_socket, Path::new("/run/x.sock"));
    let usual = with_flags(Flags { root_dir: Some("/var/lib/kubelet".into()), ..Flags::default() }).unwrap().options;
    assert_eq!(usual.control_socket, Path::new("/run/kubeboot/agent.sock"));
}

#[test]
fn the_node_has_the_machines_name_in_lower_case_unless_overridden() {
    let name = |flags: &str, host: &str| {
        let hostname_override = Some(flags.to_owned());
        let flags = Flags { pod_manifest_path: Some("/m".into()), hostname_override, ..Flags::default() };
        resolve(&flags, &[], host).map(|r| r.options.node_name)
    };
    assert_eq!(name("", "CP1.Example.org\n").unwrap(), "cp1.example.org");
    assert_eq!(name("Other", "cp1").unwrap(), "other");
    for bad in ["", "a_b", "-a", "a-", "a..b", "a b", "ä"] {
        let error = name("", bad).unwrap_err().to_string();
        assert!(error.contains("--hostname-override"), "{error}");
    }
    assert!(name("a_b", "cp1").unwrap_err().to_string().starts_with("--hostname-override is \"a_b\""));
}

#[test]
fn impossible_flag_values_name_the_flag() {
    let node = |node| Flags { node, ..Flags::default() };
    for (flags, words) in [
        (given([("sync-frequency", "-5s")]), "--sync-frequency is \"-5s\": must not be negative"),
        (given([("container-log-max-files", "1")]), "--container-log-max-files is \"1\": must be 2 or more"),
        (given([("max-pods", "-1")]), "--max-pods is \"-1\": must be between 0"),
        (Flags { healthz_bind_address: Some("lo".into()), ..Flags::default() }, "no IP address"),
        (
            node(NodeFlags { node_status_update_frequency: Some("soon".into()), ..NodeFlags::default() }),
            "--node-status-update-frequency is \"soon\": ",
        ),
    ] {
        let error = with_flags(flags).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    let soon = Flags::read([("file-check-frequency", "soon")]).unwrap_err();
    assert!(soon[0].to_string().starts_with("--file-check-frequency is \"soon\": "), "{soon:?}");
}

#[test]
fn flags_that_mean_nothing_are_named_in_one_line() {
    let given =
        [("pod-manifest-path", "/m"), ("cloud-provider", "external"), ("cgroup-driver", ""), ("docker_only", "t")];
    let flags = Flags::read(given.into_iter().chain([("cloud-provider", "x")])).unwrap();
    let notes = resolve(&flags, &[], "cp1").unwrap().notes;
    assert_eq!(notes, ["these flags mean nothing to this agent: --cloud-provider, --docker-only"]);
}

#[test]
fn flags_are_read_with_their_values_and_every_fault_comes_out() {
    let given = [
        ("serialize-image-pulls", "False"),
        ("rotate-certificates", "T"),
        ("max-pods", "0x10"),
        ("kubeconfig", ""),
        ("cert-dir", "/a"),
        ("cert-dir", ""),
        ("node-labels", ""),
        ("cluster_dns", "1.1.1.1,2.2.2.2"),
        ("cluster-dns", "\"3.3.3.3\""),
        ("system-reserved", "cpu=1"),
        ("system-reserved", "memory=1Gi,cpu=2"),
        ("register-with-taints", "a:NoSchedule"),
        ("register-with-taints", "b:NoSchedule"),
        ("node-ip", "10.0.0.5,fd00::5"),
        ("v", "4"),
    ];
    let flags = Flags::read(given).unwrap();
    let shown = flags.shown();
    assert_eq!(shown["max-pods"], "16");
    let node = NodeFlags {
        system_reserved: Some("cpu=1,memory=1Gi,cpu=2".into()),
        register_with_taints: vec!["b:NoSchedule".into()],
        ..NodeFlags::default()
    };
    let followed = BTreeMap::from([
        ("cluster-dns", Given::List(["1.1.1.1", "2.2.2.2", "3.3.3.3"].map(str::to_owned).to_vec())),
        ("max-pods", Given::Number(16)),
        ("node-ip", Given::Text("10.0.0.5,fd00::5".to_owned())),
        ("rotate-certificates", Given::Bool(true)),
    ]);
    let given = flags.given.clone();
    assert_eq!(flags, Flags { serialize_image_pulls: Some(false), followed, node, given, ..Flags::default() });
    let faults = Flags::read([
        ("serialize-image-pulls", "no"),
        ("node-labels", "fine"),
        ("nod-labels", ""),
        ("registry-qps", "many"),
        ("manifest-url-header", "hunter2"),
    ]);
    let words: Vec<String> = faults.unwrap_err().iter().map(ToString::to_string).collect();
    let expected = [
        "--serialize-image-pulls is \"no\": must be true or false",
        "--nod-labels: no kubelet has this flag",
        "--registry-qps is \"many\": \"many\" is no whole number",
        "--manifest-url-header: every header must be written as name:value",
    ];
    assert_eq!(words, expected);
}

#[test]
fn fields_that_no_kubeletconfiguration_has_are_named() {
    let config = serde_json::json!({
        "kind": "KubeletConfiguration",
        "cgroupDriver": "systemd",
        "maxPods": 50,
        "maxPod": 50,
        "crashLoopBackOff": {"maxContainerRestartPeriod": "10s", "minimum": "1s"},
    });
    assert_eq!(unknown_fields(&config), ["crashLoopBackOff.minimum", "maxPod"]);
    assert!(unknown_fields(&serde_json::json!({})).is_empty());
}

#[test]
fn a_runtime_is_named_by_flags_then_by_the_file_and_anything_but_a_socket_is_refused() {
    let socket = |name: &str| Endpoint::Cri(format!("unix:///run/{name}.sock"));
    let file = format!("{HEAD}staticPodPath: /m\ncontainerRuntimeEndpoint: unix:///run/file.sock\n");
    let of = |docker: Option<&str>, endpoint: Option<&str>| {
        let flags = Flags {
            docker_host: docker.map(str::to_owned),
            container_runtime_endpoint: endpoint.map(str::to_owned),
            ..Flags::default()
        };
        resolve(&flags, &[main_file(&file)], "cp1").map(|resolved| resolved.options)
    };
    let options = of(None, None).unwrap();
    assert_eq!((options.runtime, options.runtime_from_file), (Some(socket("file")), true));
    let options = of(None, Some("/run/flag.sock")).unwrap();
    assert_eq!((options.runtime, options.runtime_from_file), (Some(socket("flag")), false));
    let options = of(Some("tcp://d:1"), Some("/run/flag.sock")).unwrap();
    assert_eq!(options.runtime, Some(Endpoint::Docker(Some("tcp://d:1".into()))));
    assert_eq!(of(None, Some("unix:///run/cri-dockerd.sock")).unwrap().runtime, Some(Endpoint::Docker(None)));
    let error = of(None, Some("tcp://127.0.0.1:1")).unwrap_err().to_string();
    assert!(error.starts_with("--container-runtime-endpoint is \"tcp://127.0.0.1:1\": no socket"), "{error}");
}
