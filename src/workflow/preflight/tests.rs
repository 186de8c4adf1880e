mod worker;

use std::collections::BTreeMap;

use super::*;
use crate::config::spec::{Discovery, EtcdSpec, ExternalEtcd, KubebootSpec, NodeAgent};
use crate::event::Event;
use crate::host::facts::{Cgroup, EtcdAnswer, InitSystem, Presence, Runtime, Space};
use crate::host::ports::{Listener, Owner};
use crate::host::silence::Silence;
use crate::testing;

const CONTROLLERS: [&str; 6] = ["cpu", "cpuset", "hugetlb", "io", "memory", "pids"];

/// A machine with which nothing is wrong.
fn fit() -> Facts {
    let space = Space { available: 20 << 30, read_only: false };
    Facts {
        live: true,
        uid: 0,
        hostname: "cp1".into(),
        cpus: 2,
        memory: Some(1700),
        kernel: "6.1.0-28-amd64".into(),
        kernel_options: Some(kernel_options()),
        cgroup: Cgroup { version: Some(2), controllers: CONTROLLERS.map(str::to_owned).to_vec() },
        forwards_v4: Some(true),
        forwards_v6: Some(false),
        init: InitSystem::Systemd,
        programs: [("dockerd".to_owned(), Some("/usr/sbin/dockerd".into()))].into(),
        space: ["/etc", "/var/lib"].map(|path| (PathBuf::from(path), space)).into(),
        resolves: Some(true),
        runtime: Runtime::Reachable("docker 20.10.24".into()),
        kubelet_version: Some("v1.36.2".into()),
        cri: Runtime::Reachable("containerd 2.1.0".into()),
        cri_has_runtime_config: Some(true),
        ..Facts::default()
    }
}

/// A kernel with every option that is looked for.
fn kernel_options() -> BTreeMap<String, String> {
    let all = kubelet::REQUIRED_OPTIONS.iter().chain(kubelet::OPTIONAL_OPTIONS);
    all.map(|names| (names[0].to_owned(), "m".to_owned())).collect()
}

#[test]
fn a_kubelets_kernel_is_judged_by_how_it_was_built() {
    let spec = ClusterSpec {
        kubeboot: KubebootSpec { node_agent: NodeAgent::Kubelet, ..KubebootSpec::default() },
        ..testing::spec()
    };
    let of_kernel = |change: &dyn Fn(&mut Facts)| {
        let found = found(&spec, &with(change)).into_iter().filter(|(name, ..)| name == "SystemVerification");
        found.map(|(_, severity, text)| (severity, text)).collect::<Vec<_>>()
    };
    let without = |names: &'static [&'static str]| {
        of_kernel(&move |facts| {
            facts.kernel_options.as_mut().unwrap().retain(|name, _| !names.contains(&name.as_str()))
        })
    };
    assert_eq!(without(&[]), []);
    let text = "the kernel was built without CONFIG_CPUSETS, CONFIG_MEMCG, which a kubelet needs".to_owned();
    assert_eq!(without(&["MEMCG", "CPUSETS"]), [(Severity::Error, text)]);
    assert_eq!(without(&["OVERLAY_FS"])[0].0, Severity::Warning);
    let older = |facts: &mut Facts| {
        let options = facts.kernel_options.as_mut().unwrap();
        options.remove("NETFILTER_XT_TARGET_REDIRECT");
        options.insert("IP_NF_TARGET_REDIRECT".into(), "y".into());
    };
    assert_eq!(of_kernel(&older), []);
    let silent = of_kernel(&|facts| facts.kernel_options = None);
    assert!(silent.len() == 1 && silent[0].0 == Severity::Warning, "{silent:?}");
}

#[test]
fn every_server_of_an_external_etcd_has_to_be_new_enough_and_to_say_so() {
    let answers = |versions: &[Result<&str, &str>]| {
        let answer = |version: &Result<&str, &str>| EtcdAnswer {
            endpoint: "https://10.0.0.9:2379".into(),
            version: version.map(str::to_owned).map_err(str::to_owned),
        };
        let answers: Vec<_> = versions.iter().map(answer).collect();
        found(&testing::spec(), &with(move |facts| facts.external_etcd = answers.clone()))
    };
    assert_eq!(answers(&[Ok("3.5.24"), Ok("3.6.0")]), []);
    let found = answers(&[Ok("3.6.0"), Ok("3.4.23"), Err("connection refused")]);
    let names: Vec<_> = found.iter().map(|(name, severity, _)| (name.as_str(), *severity)).collect();
    assert_eq!(names, [("ExternalEtcdVersion", Severity::Error); 2]);
    assert_eq!(found[0].2, "etcd at https://10.0.0.9:2379 is 3.4.23, Kubernetes v1.36.2 needs 3.5.24 or newer");
    assert!(found[1].2.contains("connection refused"), "{found:?}");
}

#[tokio::test]
async fn an_external_etcd_is_asked_for_its_version_over_http() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 4096];
        let read = stream.read(&mut request).await.unwrap();
        let body = r#"{"etcdserver":"3.4.23","etcdcluster":"3.4.0"}"#;
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8_lossy(&request[..read]).into_owned()
    });
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let external = ExternalEtcd {
        endpoints: vec![endpoint.clone(), format!("http://{closed}")],
        http_endpoints: vec![],
        ca_file: None,
        cert_file: None,
        key_file: None,
    };
    let spec = ClusterSpec { etcd: EtcdSpec::External(external), ..testing::spec() };
    let answers = etcd::ask(&spec, &crate::host::Paths::default()).await;
    assert_eq!(answers[0], EtcdAnswer { endpoint, version: Ok("3.4.23".into()) });
    assert!(answers[1].version.is_err(), "{answers:?}");
    assert!(server.await.unwrap().starts_with("GET /version "));
    assert_eq!(etcd::ask(&testing::spec(), &crate::host::Paths::default()).await, []);
}

fn listening(port: u16) -> Listener {
    let process = Some(Owner { pid: 4242, name: "nginx".into() });
    Listener { address: ([0, 0, 0, 0], port).into(), process }
}

fn with(change: impl Fn(&mut Facts)) -> Facts {
    let mut facts = fit();
    change(&mut facts);
    facts
}

fn found<'a>(goal: impl Into<Goal<'a>>, facts: &Facts) -> Vec<(String, Severity, String)> {
    run(goal, facts, &OwnLeftovers::default()).into_iter().map(|f| (f.check, f.severity, f.message)).collect()
}

#[test]
fn nothing_is_found_on_a_fit_machine() {
    assert_eq!(found(&testing::spec(), &fit()), []);
}

#[test]
fn each_shortcoming_is_found_under_its_name_and_says_what_to_do() {
    let set_path = |path: &str, presence: Presence| {
        let path = PathBuf::from(path);
        with(move |f| drop(f.paths.insert(path.clone(), presence.clone())))
    };
    let unreachable = Runtime::Unreachable {
        address: "unix:///var/run/docker.sock".into(),
        error: "refused".into(),
        why: Silence::Refused,
        by_environment: false,
    };
    let down = |init, program: Option<&str>| {
        let (runtime, program) = (unreachable.clone(), program.map(PathBuf::from));
        with(move |f| {
            (f.runtime, f.init) = (runtime.clone(), init);
            f.programs = [("dockerd".to_owned(), program.clone())].into();
        })
    };
    let proxied = |no_proxy: &str| {
        let pairs = [("HTTPS_PROXY", "http://proxy:3128"), ("NO_PROXY", no_proxy)];
        let proxy: BTreeMap<_, _> = pairs.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        with(move |f| f.proxy = proxy.clone())
    };
    let (e, w) = (Severity::Error, Severity::Warning);
    let dockerd = Some("/usr/sbin/dockerd");
    let table: &[(&str, Severity, &str, Facts)] = &[
        ("IsPrivilegedUser", e, "sudo", with(|f| f.uid = 1000)),
        ("NumCPU", e, "at least 2", with(|f| f.cpus = 1)),
        ("Mem", e, "at least 1700 MB", with(|f| f.memory = Some(1699))),
        ("DiskSpace", e, "/etc", with(|f| f.space.get_mut(Path::new("/etc")).unwrap().available = 1)),
        ("DiskSpace", e, "read-only", with(|f| f.space.get_mut(Path::new("/etc")).unwrap().read_only = true)),
        ("DiskSpace", w, "2048 MiB", with(|f| f.space.get_mut(Path::new("/var/lib")).unwrap().available = 1 << 30)),
        ("SystemVerification", w, "memory", with(|f| f.cgroup.controllers.retain(|c| c != "memory"))),
        ("CRI", e, "systemctl enable --now docker", down(InitSystem::Systemd, dockerd)),
        ("CRI", e, "rc-service docker start", down(InitSystem::OpenRc, dockerd)),
        ("CRI", e, "dockerd >", down(InitSystem::None, dockerd)),
        ("CRI", e, "apt-get install docker.io", down(InitSystem::None, None)),
        ("Swap", w, "/dev/sda2", with(|f| f.swap = vec!["/dev/sda2".into()])),
        ("Hostname", w, "\"10.0.0.5 cp1\" to /etc/hosts", with(|f| f.resolves = Some(false))),
        ("Port-6443", e, "nginx (pid 4242) listens on 0.0.0.0:6443", with(|f| f.listeners = vec![listening(6443)])),
        ("Port-10248", e, "healthzPort", with(|f| f.listeners = vec![listening(10248)])),
        ("Port-2381", e, "etcd", with(|f| f.listeners = vec![listening(2381)])),
        ("Firewalld", w, "6443", with(|f| f.firewalld = true)),
        ("FileContent--proc-sys-net-ipv4-ip_forward", w, "sysctl -w", with(|f| f.forwards_v4 = Some(false))),
        ("HTTPProxy", w, "10.0.0.5", proxied("10.96.0.0/12")),
        ("HTTPProxyCIDR", w, "10.96.0.0/12", proxied("10.0.0.0/24")),
        (
            "FileAvailable--etc-kubernetes-manifests-etcd.yaml",
            e,
            "kubeadm reset",
            set_path("/etc/kubernetes/manifests/etcd.yaml", Presence::File),
        ),
        ("DirAvailable--var-lib-etcd", e, "dataDir", set_path("/var/lib/etcd", Presence::Directory(1))),
        ("DirAvailable--var-lib-etcd", e, "is a file", set_path("/var/lib/etcd", Presence::File)),
    ];
    for (name, severity, words, facts) in table {
        let found = found(&testing::spec(), facts);
        assert_eq!(found.len(), 1, "{name}: {found:?}");
        assert_eq!((found[0].0.as_str(), found[0].1), (*name, *severity));
        assert!(found[0].2.contains(words), "{words:?} in {:?}", found[0].2);
    }
}

#[test]
fn a_release_that_is_newer_than_this_program_is_told_of() {
    let mut spec = testing::spec();
    spec.kubernetes_version = "v1.99.0".parse().unwrap();
    let found = found(&spec, &fit());
    assert_eq!((found[0].0.as_str(), found[0].1, found.len()), ("KubernetesVersion", Severity::Warning, 1));
}

#[test]
fn files_of_an_external_etcd_that_are_missing_are_named() {
    let mut spec = testing::spec();
    let external = ExternalEtcd {
        endpoints: vec![],
        http_endpoints: vec![],
        ca_file: Some("/etcd/ca.crt".into()),
        cert_file: None,
        key_file: None,
    };
    spec.etcd = EtcdSpec::External(external);
    let missing = with(|f| drop(f.paths.insert("/etcd/ca.crt".into(), Presence::Missing)));
    let there = with(|f| drop(f.paths.insert("/etcd/ca.crt".into(), Presence::File)));
    assert_eq!(found(&spec, &missing)[0].0, "ExternalEtcdClientCertificates");
    assert_eq!(found(&spec, &there), []);
}

#[test]
fn no_proxy_is_understood_for_addresses_and_for_names() {
    for (host, no_proxy, goes_direct) in [
        ("10.0.0.5", "10.0.0.0/8", true),
        ("10.0.0.5", "10.0.0.5", true),
        ("10.0.0.5", "10.1.0.0/16", false),
        ("api.example.com", "example.com", true),
        ("api.example.com", ".example.com", true),
        ("api.example.com", "API.example.com", true),
        ("api.badexample.com", "example.com", false),
        ("api.example.com", "*", true),
        ("api.example.com", "", false),
    ] {
        let mut spec = worker::worker();
        if let Discovery::Token(by_token) = &mut spec.discovery {
            by_token.endpoint.host = host.into();
        }
        let facts = with(|f| {
            f.proxy = [("HTTPS_PROXY", "http://p:3128"), ("NO_PROXY", no_proxy)]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into();
        });
        assert_eq!(found(Goal::Join(&spec, None), &facts).is_empty(), goes_direct, "{host} with {no_proxy:?}");
    }
}

#[test]
fn a_control_plane_node_with_a_real_kubelet_is_asked_for_what_that_needs() {
    let mut spec = testing::spec();
    spec.kubeboot.node_agent = NodeAgent::Kubelet;
    let facts = with(|f| {
        f.cgroup.version = Some(1);
        f.cgroup.controllers.extend(["cpuacct", "devices", "freezer", "blkio"].map(str::to_owned));
        f.programs.insert("losetup".into(), None);
        f.forwards_v4 = Some(false);
        f.listeners = vec![listening(10250)];
        f.kubelet_version = Some("v1.37.0".into());
    });
    let names: Vec<String> = found(&spec, &facts).into_iter().map(|(name, ..)| name).collect();
    let expected = [
        "KubeletVersion",
        "SystemVerification",
        "FileExisting-losetup",
        "Port-10250",
        "FileContent--proc-sys-net-ipv4-ip_forward",
    ];
    assert_eq!(names, expected);
}

#[test]
fn what_is_ours_is_no_finding() {
    let facts = with(|f| {
        f.paths.insert("/etc/kubernetes/manifests/etcd.yaml".into(), Presence::File);
        f.paths.insert("/var/lib/etcd".into(), Presence::Directory(1));
        f.listeners = vec![listening(6443), listening(2379)];
    });
    let ours = OwnLeftovers {
        paths: ["/etc/kubernetes/manifests/etcd.yaml", "/var/lib/etcd"].map(PathBuf::from).into(),
        ports: [2379].into(),
        pids: [4242].into(),
    };
    assert_eq!(run(&testing::spec(), &facts, &ours), []);
    assert_eq!(run(&testing::spec(), &facts, &OwnLeftovers::default()).len(), 4);
}

#[test]
fn below_another_root_only_files_matter() {
    let facts = with(|f| {
        (f.live, f.uid, f.cpus) = (false, 1000, 1);
        f.listeners = vec![listening(6443)];
        f.paths.insert("/var/lib/etcd".into(), Presence::Directory(1));
    });
    let names: Vec<String> = found(&testing::spec(), &facts).into_iter().map(|(name, ..)| name).collect();
    assert_eq!(names, ["DirAvailable--var-lib-etcd"]);
}

#[test]
fn ignored_errors_become_warnings_in_any_case_and_all_means_all() {
    let facts = with(|f| (f.uid, f.cpus) = (1000, 1));
    for (ignored, errors) in
        [(vec![], 2), (vec!["numcpu"], 1), (vec!["NumCPU", "isprivilegeduser"], 0), (vec!["all"], 0)]
    {
        let mut spec = testing::spec();
        spec.node.ignore_preflight_errors = ignored.iter().map(|name| (*name).to_owned()).collect();
        let findings = run(&spec, &facts, &OwnLeftovers::default());
        assert_eq!(findings.len(), 2, "{ignored:?}");
        assert_eq!(findings.iter().filter(|f| f.severity == Severity::Error).count(), errors, "{ignored:?}");
    }
}

#[test]
fn names_of_checks_that_only_kubeadm_has_are_taken_and_slips_of_the_pen_are_told() {
    let mut spec = testing::spec();
    let names =
        ["kubeletversion", "service-kubelet", "fileexisting-conntrack", "swap", "port-10250", "imagepull", "numcpus"];
    spec.node.ignore_preflight_errors = names.map(str::to_owned).to_vec();
    let findings = run(&spec, &fit(), &OwnLeftovers::default());
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert!(findings[0].message.contains("\"numcpus\"") && findings[0].severity == Severity::Warning);
}

#[test]
fn all_errors_come_at_once_and_warnings_are_reported() {
    #[derive(Default)]
    struct Collect(std::sync::Mutex<Vec<Event>>);
    impl Reporter for Collect {
        fn event(&self, event: Event) {
            self.0.lock().unwrap().push(event);
        }
    }
    let reporter = Collect::default();
    let facts = with(|f| {
        (f.uid, f.cpus) = (1000, 1);
        f.swap = vec!["/swapfile".into()];
    });
    let error = check_machine(&testing::spec(), &facts, &OwnLeftovers::default(), &reporter).unwrap_err();
    insta::assert_snapshot!(error.to_string(), @r"
    [preflight] Some fatal errors occurred:
    	[ERROR IsPrivilegedUser]: not run as root: run it with sudo, or look at what it would do with --dry-run
    	[ERROR NumCPU]: 1 CPU available, at least 2 are needed
    [preflight] If you know what you are doing, you can make a check non-fatal with `--ignore-preflight-errors=IsPrivilegedUser,NumCPU`
    ");
    let warnings = reporter.0.into_inner().unwrap();
    assert!(matches!(&warnings[..], [Event::Warning { text, .. }] if text.starts_with("Swap: ")), "{warnings:?}");
    check_machine(&testing::spec(), &fit(), &OwnLeftovers::default(), &crate::event::Silent).unwrap();
}

#[test]
fn the_facts_that_are_gathered_are_those_the_checks_look_at() {
    let interest = interest(&testing::spec());
    assert_eq!(interest.ports, [6443, 10259, 10257, 10250, 10248, 2379, 2380, 2381]);
    assert!(interest.paths.contains(&"/var/lib/etcd".into()));
    let mut spec = testing::spec();
    spec.kubelet = serde_json::json!({"healthzPort": 0});
    assert!(!super::interest(&spec).ports.contains(&10248));
}

#[test]
fn extra_arguments_that_the_agent_would_refuse_are_found_before_anything_is_written() {
    let arg = |(name, value): (&str, &str)| crate::config::spec::Arg { name: name.into(), value: value.into() };
    let with = |args: &[(&str, &str)]| {
        let mut spec = testing::spec();
        spec.node.kubelet_extra_args = args.iter().copied().map(arg).collect();
        spec
    };
    let fine = [("housekeeping-interval", "30s"), ("serialize-image-pulls", "False"), ("node-labels", ""), ("v", "4")];
    assert_eq!(found(&with(&fine), &fit()), []);
    assert!(agent::check(&with(&fine)).unwrap().is_empty());
    let bad = with(&[("serialize-image-pulls", "no"), ("nod-ip", "10.0.0.5"), ("node-labels", "a=b")]);
    let reported = found(&bad, &fit());
    let [(name, Severity::Error, first), (_, _, second)] = &reported[..] else { panic!("{reported:?}") };
    assert_eq!(name, "KubeletExtraArgs");
    assert!(first.starts_with("nodeRegistration.kubeletExtraArgs: --serialize-image-pulls is \"no\": "), "{first}");
    assert!(second.contains("--nod-ip: no kubelet has this flag"), "{second}");
    assert!(agent::check(&bad).unwrap_err().to_string().contains("[ERROR KubeletExtraArgs]"));
    let labels = with(&[("node-labels", "node-role.kubernetes.io/x=")]);
    assert!(found(&labels, &fit())[0].2.contains("the node agent would not start: --node-labels is"), "{labels:?}");
    let mut ignored = bad.clone();
    ignored.node.ignore_preflight_errors = vec!["kubeletextraargs".into()];
    assert!(found(&ignored, &fit()).iter().all(|(_, severity, _)| *severity == Severity::Warning));
    assert_eq!(agent::check(&ignored).unwrap().len(), 2);
    let mut real = bad;
    real.kubeboot.node_agent = NodeAgent::Kubelet;
    assert!(agent::check(&real).unwrap().is_empty(), "a real kubelet knows its own flags");
    let mut config = testing::spec();
    config.kubelet = serde_json::json!({"maxPods": "many"});
    assert!(agent::check(&config).unwrap_err().to_string().contains("maxPods"));
}
