//! What a worker is checked for.

use super::*;

/// A worker that is told of the API server at 10.0.0.5.
pub(super) fn worker() -> JoinSpec {
    testing::join_spec()
}

type Shortcoming = (&'static str, Severity, &'static str, Facts);

fn kernel_shortcomings() -> Vec<Shortcoming> {
    let (e, w) = (Severity::Error, Severity::Warning);
    let v1 = |f: &mut Facts| {
        let controllers = ["cpu", "cpuacct", "cpuset", "devices", "freezer", "memory", "pids", "hugetlb", "blkio"];
        f.cgroup = Cgroup { version: Some(1), controllers: controllers.map(str::to_owned).to_vec() };
    };
    vec![
        ("IsPrivilegedUser", e, "sudo", with(|f| f.uid = 1000)),
        ("DiskSpace", e, "/etc", with(|f| f.space.get_mut(Path::new("/etc")).unwrap().available = 1)),
        ("SystemVerification", e, "unsupported kernel release 4.18.0", with(|f| f.kernel = "4.18.0-348.el8".into())),
        ("SystemVerification", e, "required cgroups: cpuset", with(|f| f.cgroup.controllers.retain(|c| c != "cpuset"))),
        ("SystemVerification", e, "no control groups", with(|f| f.cgroup = Cgroup::default())),
        ("SystemVerification", w, "optional cgroups: io", with(|f| f.cgroup.controllers.retain(|c| c != "io"))),
        ("SystemVerification", e, "does not run on cgroup v1", with(v1)),
        (
            "SystemVerification",
            w,
            "going away",
            with(|f| {
                v1(f);
                f.kubelet_version = Some("v1.34.0".into());
            }),
        ),
    ]
}

fn shortcomings_around_the_kubelet() -> Vec<Shortcoming> {
    let (e, w) = (Severity::Error, Severity::Warning);
    let unreachable = || Runtime::Unreachable {
        address: "unix:///run/c.sock".into(),
        error: "refused".into(),
        why: Silence::Refused,
        by_environment: false,
    };
    let lose = |name: &'static str| with(move |f| drop(f.programs.insert(name.into(), None)));
    let set_path = |path: &str| {
        let path = PathBuf::from(path);
        with(move |f| drop(f.paths.insert(path.clone(), Presence::File)))
    };
    vec![
        ("CRI", e, "unix:///run/c.sock (refused)", with(|f| f.cri = unreachable())),
        ("ContainerRuntimeVersion", w, "containerd 2.1.0", with(|f| f.cri_has_runtime_config = Some(false))),
        ("Swap", w, "failSwapOn", with(|f| f.swap = vec!["/dev/sda2".into()])),
        ("FileExisting-kubelet", e, "install it", lose("kubelet")),
        ("FileExisting-losetup", e, "install it", lose("losetup")),
        ("FileExisting-mount", e, "install it", lose("mount")),
        ("FileExisting-cp", e, "install it", lose("cp")),
        (
            "FileExisting-conntrack",
            e,
            "install it",
            with(|f| {
                f.programs.insert("conntrack".into(), None);
                f.kubelet_version = Some("v1.31.0".into());
            }),
        ),
        ("Hostname", w, "\"w1\"", with(|f| f.resolves = Some(false))),
        ("Port-10250", e, "nginx (pid 4242)", with(|f| f.listeners = vec![listening(10250)])),
        ("FileContent--proc-sys-net-ipv4-ip_forward", e, "sysctl -w", with(|f| f.forwards_v4 = Some(false))),
        ("HTTPProxy", w, "10.0.0.5", with(|f| drop(f.proxy.insert("HTTPS_PROXY".into(), "http://p:3128".into())))),
        ("FileAvailable--etc-kubernetes-kubelet.conf", e, "kubeadm reset", set_path("/etc/kubernetes/kubelet.conf")),
        (
            "FileAvailable--etc-kubernetes-bootstrap-kubelet.conf",
            e,
            "kubeadm reset",
            set_path("/etc/kubernetes/bootstrap-kubelet.conf"),
        ),
        ("FileAvailable--etc-kubernetes-pki-ca.crt", e, "kubeadm reset", set_path("/etc/kubernetes/pki/ca.crt")),
    ]
}

/// Every check of `join`, with a machine that it is for.
#[test]
fn each_shortcoming_of_a_worker_is_found_under_its_name() {
    let spec = worker();
    assert_eq!(found(Goal::Join(&spec, None), &fit()), []);
    let mut tried = BTreeSet::from(["KubeletVersion", "DiskSpace"]);
    for (name, severity, words, facts) in kernel_shortcomings().into_iter().chain(shortcomings_around_the_kubelet()) {
        let found = found(Goal::Join(&spec, None), &facts);
        assert_eq!(found.len(), 1, "{name}: {found:?}");
        assert_eq!((found[0].0.as_str(), found[0].1), (name, severity));
        assert!(found[0].2.contains(words), "{words:?} in {:?}", found[0].2);
        tried.extend(CHECKS.iter().map(|row| row.name).filter(|row| name.starts_with(row)));
    }
    let of_join = CHECKS.iter().filter(|row| row.on != On::Init && row.scope != Scope::Embedded).map(|row| row.name);
    assert_eq!(of_join.filter(|row| !tried.contains(row)).collect::<Vec<_>>(), Vec::<&str>::new());
}

#[test]
fn a_kubelet_has_to_go_with_the_control_plane_that_is_found() {
    let spec = worker();
    let check = |version: &str, facts: &Facts| {
        check_kubelet(&spec, &version.parse().unwrap(), facts, &crate::event::Silent).map_err(|error| error.to_string())
    };
    check("v1.36.0", &fit()).unwrap();
    check("v1.39.1", &fit()).unwrap();
    assert!(check("v1.35.4", &fit()).unwrap_err().contains("[ERROR KubeletVersion]: the kubelet is v1.36.2, newer"));
    assert!(check("v1.40.0", &fit()).unwrap_err().contains("more than 3 minors older"));
    check("v1.20.2", &with(|f| f.kubelet_version = None)).unwrap();
    let mut ignoring = worker();
    ignoring.node.ignore_preflight_errors = vec!["kubeletversion".into()];
    check_kubelet(&ignoring, &"v1.35.4".parse().unwrap(), &fit(), &crate::event::Silent).unwrap();
}
