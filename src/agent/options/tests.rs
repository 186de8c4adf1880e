use std::collections::BTreeSet;

use super::*;

const FILE: &str = "/var/lib/kubelet/config.yaml";
const HEAD: &str = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";

fn with_file(body: &str) -> Result<Resolved, OptionsError> {
    resolve(&Flags::default(), Some((Path::new(FILE), &format!("{HEAD}{body}"))), "cp1")
}

fn with_flags(flags: Flags) -> Result<Resolved, OptionsError> {
    let given = Flags { pod_manifest_path: flags.pod_manifest_path.or(Some("/m".into())), ..flags };
    resolve(&given, None, "cp1")
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
        ..AgentOptions::new("cp1")
    };
    assert_eq!(resolved.options, expected);
    let note = "/var/lib/kubelet/config.yaml: these fields mean nothing to this agent: authentication, cgroupDriver, \
                cpuManagerReconcilePeriod";
    assert_eq!((resolved.notes, resolved.warnings), (vec![note.to_owned()], vec![]));
}

#[test]
fn every_fault_of_the_file_is_told_with_its_place() {
    let error = with_file("staticPodPaths: /m\nfileCheckFrequency: 20\nhealthzPort: 70000\nsyncFrequency: -1s\n");
    let Err(OptionsError::Config { problems, .. }) = error else { panic!("{error:?}") };
    assert_eq!(problems.len(), 4, "{problems:#?}");
    for (line, words) in [
        (3, "staticPodPaths: unknown field; did you mean staticPodPath?"),
        (4, "fileCheckFrequency: "),
        (5, "healthzPort: "),
        (6, "syncFrequency: "),
    ] {
        let place = format!("{FILE}:{line}:");
        assert!(problems.iter().any(|p| p.starts_with(&place) && p.contains(words)), "{line} {words}: {problems:#?}");
    }
}

#[test]
fn another_kind_version_or_number_of_documents_is_refused() {
    for (text, words) in [
        ("kind: Pod\napiVersion: v1\n", "kind must be KubeletConfiguration, found Pod"),
        ("", "must hold one document, found 0"),
        (
            "apiVersion: kubelet.config.k8s.io/v1\nkind: KubeletConfiguration\n",
            "apiVersion must be kubelet.config.k8s.io/v1beta1, found kubelet.config.k8s.io/v1",
        ),
        ("a: b\n---\nc: d\n", "must hold one document, found 2"),
        ("[1, 2]\n", "config.yaml:1"),
        ("a: [\n", "config.yaml:"),
    ] {
        let error = resolve(&Flags::default(), Some((Path::new(FILE), text)), "cp1").unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn flags_go_before_the_file() {
    let flags = Flags {
        pod_manifest_path: Some("/flag".into()),
        file_check_frequency: Some("5s".into()),
        healthz_port: Some(0),
        cluster_dns: vec!["1.1.1.1".into()],
        cluster_domain: Some("b".into()),
        seccomp_default: Some(false),
        oom_score_adj: Some(-500),
        pod_infra_container_image: Some("pause:1".into()),
        ..Flags::default()
    };
    let file = format!(
        "{HEAD}staticPodPath: /file\nfileCheckFrequency: 9s\nhealthzPort: 1\nclusterDNS: [2.2.2.2]\nclusterDomain: a\n\
         seccompDefault: true\noomScoreAdj: 1\nsyncFrequency: 7s\n"
    );
    let options = resolve(&flags, Some((Path::new(FILE), &file)), "cp1").unwrap().options;
    let expected = AgentOptions {
        static_pod_path: Some("/flag".into()),
        file_check_frequency: Duration::from_secs(5),
        sync_frequency: Duration::from_secs(7),
        healthz: None,
        cluster_dns: vec!["1.1.1.1".into()],
        cluster_domain: Some("b".into()),
        oom_score_adj: -500,
        pause_image: "pause:1".into(),
        ..AgentOptions::new("cp1")
    };
    assert_eq!(options, expected);
}

#[test]
fn an_agent_without_a_source_is_refused_and_a_url_is_warned_of() {
    assert!(matches!(resolve(&Flags::default(), None, "cp1"), Err(OptionsError::NoSource)));
    assert!(matches!(with_file("staticPodPath: \"\"\n"), Err(OptionsError::NoSource)));
    let resolved = with_file("staticPodURL: http://x/pods\n").unwrap();
    assert_eq!(resolved.options.static_pod_path, None);
    assert!(resolved.warnings.len() == 1 && resolved.warnings[0].contains("not supported yet"));
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
        resolve(&flags, None, host).map(|r| r.options.node_name)
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
    for (flags, words) in [
        (
            Flags { file_check_frequency: Some("soon".into()), ..Flags::default() },
            "--file-check-frequency is \"soon\": ",
        ),
        (Flags { sync_frequency: Some("-5s".into()), ..Flags::default() }, "--sync-frequency is \"-5s\": "),
        (Flags { healthz_bind_address: Some("lo".into()), ..Flags::default() }, "must be an IP address"),
    ] {
        let error = with_flags(flags).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn flags_that_mean_nothing_are_named_in_one_line() {
    let flags = Flags { let_be: vec!["node-ip".into(), "cgroup-driver".into()], ..Flags::default() };
    assert_eq!(
        with_flags(flags).unwrap().notes,
        ["these flags mean nothing to this agent: --node-ip, --cgroup-driver"]
    );
}

#[test]
fn the_tables_of_what_is_let_be_are_sorted_and_name_nothing_twice() {
    let fields = kubelet_config::LET_BE;
    let flags: Vec<_> = FLAGS_LET_BE.iter().map(|(name, _)| *name).collect();
    assert_eq!(fields.iter().collect::<BTreeSet<_>>().len(), fields.len());
    assert_eq!(flags.iter().collect::<BTreeSet<_>>().len(), flags.len());
    assert!(flags.is_sorted());
}
