use std::collections::BTreeMap;

use super::*;
use crate::config::spec::{EtcdSpec, ExternalEtcd};
use crate::event::Event;
use crate::host::facts::{Cgroup, InitSystem, Presence, Runtime, Space};
use crate::host::ports::{Listener, Owner};
use crate::testing;

/// A machine with which nothing is wrong.
fn fit() -> Facts {
    let space = Space { available: 20 << 30, read_only: false };
    Facts {
        live: true,
        uid: 0,
        hostname: "cp1".into(),
        cpus: 2,
        memory: Some(1700),
        cgroup: Cgroup { version: Some(2), controllers: ["cpu", "memory", "pids"].map(str::to_owned).to_vec() },
        forwards_v4: Some(true),
        forwards_v6: Some(false),
        init: InitSystem::Systemd,
        programs: [("dockerd".to_owned(), Some("/usr/sbin/dockerd".into()))].into(),
        space: ["/etc", "/var/lib"].map(|path| (PathBuf::from(path), space)).into(),
        resolves: Some(true),
        runtime: Runtime::Reachable("docker 20.10.24".into()),
        ..Facts::default()
    }
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

fn found(spec: &ClusterSpec, facts: &Facts) -> Vec<(String, Severity, String)> {
    run(spec, facts, &Ours::default()).into_iter().map(|f| (f.check, f.severity, f.message)).collect()
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
    let unreachable = Runtime::Unreachable { address: "unix:///var/run/docker.sock".into(), error: "refused".into() };
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
fn every_row_of_the_table_is_tried_by_some_machine() {
    let mut spec = testing::spec();
    spec.kubeboot.node_agent = NodeAgent::Kubelet;
    let external = ExternalEtcd {
        endpoints: vec![],
        http_endpoints: vec![],
        ca_file: Some("/etcd/ca.crt".into()),
        cert_file: None,
        key_file: None,
    };
    let facts = with(|f| {
        f.cgroup.version = Some(1);
        f.programs.insert("losetup".into(), None);
        f.forwards_v4 = Some(false);
        f.listeners = vec![listening(10250)];
        f.paths.insert("/etcd/ca.crt".into(), Presence::Missing);
    });
    spec.etcd = EtcdSpec::External(external);
    let names: Vec<String> = found(&spec, &facts).into_iter().map(|(name, ..)| name).collect();
    let expected = [
        "SystemVerification",
        "FileExisting-losetup",
        "Port-10250",
        "FileContent--proc-sys-net-ipv4-ip_forward",
        "ExternalEtcdClientCertificates",
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
    let ours = Ours {
        paths: ["/etc/kubernetes/manifests/etcd.yaml", "/var/lib/etcd"].map(PathBuf::from).into(),
        ports: [2379].into(),
        pids: [4242].into(),
    };
    assert_eq!(run(&testing::spec(), &facts, &ours), []);
    assert_eq!(run(&testing::spec(), &facts, &Ours::default()).len(), 4);
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
        let findings = run(&spec, &facts, &Ours::default());
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
    let findings = run(&spec, &fit(), &Ours::default());
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
    let error = check_machine(&testing::spec(), &facts, &Ours::default(), &reporter).unwrap_err();
    insta::assert_snapshot!(error.to_string(), @r"
    the machine is not ready:
    	[ERROR IsPrivilegedUser]: not run as root: run it with sudo, or look at what it would do with --dry-run
    	[ERROR NumCPU]: 1 CPU available, at least 2 are needed
    mend these, or pass --ignore-preflight-errors=IsPrivilegedUser,NumCPU to go on all the same
    ");
    let warnings = reporter.0.into_inner().unwrap();
    assert!(matches!(&warnings[..], [Event::Warning { text, .. }] if text.starts_with("Swap: ")), "{warnings:?}");
    check_machine(&testing::spec(), &fit(), &Ours::default(), &crate::event::Silent).unwrap();
}

#[test]
fn the_facts_that_are_gathered_are_those_the_checks_look_at() {
    let interest = interest(&testing::spec());
    assert_eq!(interest.ports, [6443, 10259, 10257, 10248, 2379, 2380, 2381]);
    assert!(interest.paths.contains(&"/var/lib/etcd".into()));
    let mut spec = testing::spec();
    spec.kubelet = serde_json::json!({"healthzPort": 0});
    assert!(!super::interest(&spec).ports.contains(&10248));
}
