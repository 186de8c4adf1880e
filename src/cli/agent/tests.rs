use std::collections::BTreeMap;

use clap::Parser;

use super::*;
use crate::agent::options::{FlagKind, Given, NodeFlags, table};

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    globals: Globals,
    #[command(flatten)]
    args: Args,
}

fn flags(words: &[&str]) -> Result<Flags, clap::Error> {
    Line::try_parse_from(["agent"].iter().chain(words)).map(|line| line.args.flags.0)
}

#[test]
fn flags_are_followed_in_every_form_the_kubelet_takes() {
    let given = flags(&[
        "--pod-manifest-path=/m",
        "--hostname-override",
        "n",
        "--healthz-port=0",
        "--oom-score-adj",
        "-500",
        "--cluster-dns=1.1.1.1,2.2.2.2",
        "--cluster-dns=3.3.3.3",
        "--seccomp-default",
        "--cpu-cfs-quota=false",
        "--manifest-url-header=a:b,c:d",
        "--manifest-url-header",
        "a:e",
        "--pod-max-pids",
        "-1",
        "--container-log-max-size=-1",
    ]);
    let given = given.unwrap();
    let expected = Flags {
        given: given.given.clone(),
        pod_manifest_path: Some("/m".into()),
        hostname_override: Some("n".into()),
        healthz_port: Some(0),
        manifest_url_headers: vec!["a:b,c:d".into(), "a:e".into()],
        followed: BTreeMap::from([
            ("oom-score-adj", Given::Number(-500)),
            ("cluster-dns", Given::List(["1.1.1.1", "2.2.2.2", "3.3.3.3"].map(str::to_owned).to_vec())),
            ("seccomp-default", Given::Bool(true)),
            ("cpu-cfs-quota", Given::Bool(false)),
            ("pod-max-pids", Given::Number(-1)),
            ("container-log-max-size", Given::Text("-1".to_owned())),
        ]),
        ..Flags::default()
    };
    assert_eq!(given, expected);
}

#[test]
fn the_last_of_a_repeated_flag_counts() {
    let given = flags(&["--hostname-override=a", "--root-dir=/a", "--hostname-override=b"]).unwrap();
    assert_eq!(given.hostname_override.as_deref(), Some("b"));
}

#[test]
fn what_kubeadms_drop_in_may_carry_is_accepted_and_named() {
    let given = flags(&[
        "--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf",
        "--kubeconfig=/etc/kubernetes/kubelet.conf",
        "--config=/var/lib/kubelet/config.yaml",
        "--node-ip",
        "10.0.0.5",
        "--register-with-taints=a=b:NoSchedule",
        "--max-pods",
        "10",
        "--fail-swap-on=false",
        "--rotate-certificates",
        "--node-labels=a=b",
        "--node-labels=c=d",
    ]);
    let given = given.unwrap();
    let expected = NodeFlags {
        bootstrap_kubeconfig: Some("/etc/kubernetes/bootstrap-kubelet.conf".into()),
        kubeconfig: Some("/etc/kubernetes/kubelet.conf".into()),
        register_with_taints: vec!["a=b:NoSchedule".into()],
        node_labels: vec!["a=b".into(), "c=d".into()],
        ..NodeFlags::default()
    };
    assert_eq!((given.node, given.ignored), (expected, vec!["fail-swap-on".to_owned()]));
    let followed = [
        ("max-pods", Given::Number(10)),
        ("node-ip", Given::Text("10.0.0.5".to_owned())),
        ("rotate-certificates", Given::Bool(true)),
    ];
    assert_eq!(given.followed, BTreeMap::from(followed));
    assert_eq!(given.config.as_deref(), Some(Path::new("/var/lib/kubelet/config.yaml")));
}

#[test]
fn a_flag_that_no_kubelet_has_is_refused() {
    let error = flags(&["--pod-manifest-paht=/m"]).unwrap_err().to_string();
    assert!(error.contains("--pod-manifest-paht"), "{error}");
}

#[test]
fn a_file_that_is_not_there_is_told_with_what_to_do() {
    let line = Line::try_parse_from(["agent", "--config=/nowhere/config.yaml"]).unwrap();
    let error = options(line.args.flags.0, &line.globals).unwrap_err();
    assert!(error.chain().any(|e| e.to_string() == "cannot read /nowhere/config.yaml"));
    assert!(error.downcast_ref::<Hint>().unwrap().to_string().contains("--pod-manifest-path"));
}

#[test]
fn an_agent_is_run_unless_one_is_asked() {
    let asks = |words: &[&str]| Line::try_parse_from(["agent"].iter().chain(words)).map(|line| line.args.asks());
    assert!(!asks(&["--pod-manifest-path=/m"]).unwrap());
    for words in [&["ps"][..], &["logs", "-f", "--tail", "-1", "--since=5s", "web"], &["describe", "web"], &["events"]]
    {
        assert!(asks(words).unwrap(), "{words:?}");
    }
    assert!(asks(&["--pod-manifest-path=/m", "ps"]).is_err(), "nobody can want both");
    assert!(asks(&["logs"]).is_err());
}

#[test]
fn every_flag_of_a_kubelet_is_taken_and_an_empty_value_is_as_none() {
    let words = [
        "--housekeeping-interval=30s",
        "--containerd=/run/containerd/containerd.sock",
        "--global-housekeeping-interval=1m",
        "--event-storage-event-limit=default=0",
        "--serialize-image-pulls=False",
        "--kubeconfig=",
        "--bootstrap-kubeconfig=",
        "--cert-dir=",
        "--node-labels=",
        "--hostname-override=N1.Example",
        "--node-ip=10.0.0.5,fd00::5",
        "--read-only-port=0",
        "--config-dir",
        "d",
        "--feature-gates=A=t,B=F",
        "--eviction-hard=memory.available<5%",
    ];
    let given = flags(&words).unwrap();
    let ignored = ["containerd", "event-storage-event-limit", "global-housekeeping-interval", "housekeeping-interval"];
    assert_eq!(given.ignored, ignored);
    assert_eq!(given.feature_gates, ["A=t,B=F"]);
    let expected = Flags {
        feature_gates: given.feature_gates.clone(),
        given: given.given.clone(),
        serialize_image_pulls: Some(false),
        hostname_override: Some("N1.Example".into()),
        read_only_port: Some(0),
        config_dir: Some("d".into()),
        followed: BTreeMap::from([("node-ip", Given::Text("10.0.0.5,fd00::5".to_owned()))]),
        node: NodeFlags { eviction_hard: Some("memory.available<5%".into()), ..NodeFlags::default() },
        ignored: given.ignored.clone(),
        ..Flags::default()
    };
    assert_eq!(given, expected);
    for (flag, _) in table::flags().filter(|(flag, row)| row.kind.is_switch() && flag.name != "help") {
        let bare = format!("--{}", flag.name);
        assert!(flags(&[&bare]).is_ok() && flags(&[&format!("{bare}=F")]).is_ok(), "{bare}");
        assert!(flags(&[&format!("{bare}=")]).is_err() && flags(&[&bare, "false"]).is_err(), "{bare}");
    }
    for (flag, _) in table::flags().filter(|(flag, row)| row.kind == FlagKind::Text && flag.name != "vmodule") {
        let (empty, bare) = (format!("--{}=", flag.name), format!("--{}", flag.name));
        let mut taken = flags(&[&empty]).unwrap();
        assert_eq!(std::mem::take(&mut taken.given)[flag.name].to_string(), "", "{empty}");
        assert_eq!(taken, Flags::default(), "{empty}");
        assert!(flags(&[&bare, "-x"]).is_ok() && flags(&[&bare]).is_err(), "{bare}");
    }
}

#[test]
fn a_value_that_a_kubelet_refuses_is_refused_with_the_flag() {
    for word in ["--fail-swap-on=no", "--max-pods=ten", "--sync-frequency=5", "--feature-gates=A=maybe", "--event-qps="]
    {
        let error = flags(&[word]).unwrap_err().to_string();
        assert!(error.contains(word.split_once('=').unwrap().0), "{error}");
    }
}

#[test]
fn a_directory_of_drop_ins_is_enough() {
    let dir = tempfile::tempdir().unwrap();
    let text =
        "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nstaticPodPath: /m\nmaxPods: 40\n";
    crate::host::fs::write_file(&dir.path().join("00.conf"), text.as_bytes(), 0o600).unwrap();
    let line = Line::try_parse_from(["agent", "--kubeconfig=", "--config-dir", dir.path().to_str().unwrap()]).unwrap();
    let options = options(line.args.flags.0, &line.globals).unwrap();
    assert_eq!((options.static_pod_path.as_deref(), options.node.max_pods), (Some(Path::new("/m")), 40));
    assert_eq!(options.node.kubeconfig, None);
}
