use clap::Parser;

use super::*;
use crate::agent::options::NodeFlags;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    globals: Globals,
    #[command(flatten)]
    args: Args,
}

fn flags(words: &[&str]) -> Result<Flags, clap::Error> {
    Line::try_parse_from(["agent"].iter().chain(words)).map(|line| line.args.into())
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
    let expected = Flags {
        pod_manifest_path: Some("/m".into()),
        hostname_override: Some("n".into()),
        healthz_port: Some(0),
        oom_score_adj: Some(-500),
        cluster_dns: ["1.1.1.1", "2.2.2.2", "3.3.3.3"].map(str::to_owned).to_vec(),
        seccomp_default: Some(true),
        cpu_cfs_quota: Some(false),
        manifest_url_headers: vec!["a:b,c:d".into(), "a:e".into()],
        pod_max_pids: Some(-1),
        container_log_max_size: Some("-1".into()),
        ..Flags::default()
    };
    assert_eq!(given.unwrap(), expected);
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
        node_ip: Some("10.0.0.5".into()),
        register_with_taints: vec!["a=b:NoSchedule".into()],
        max_pods: Some(10),
        rotate_certificates: Some(true),
        node_labels: vec!["a=b".into(), "c=d".into()],
        ..NodeFlags::default()
    };
    assert_eq!((given.node, given.let_be), (expected, vec!["fail-swap-on".to_owned()]));
}

#[test]
fn a_flag_that_no_kubelet_has_is_refused() {
    let error = flags(&["--pod-manifest-paht=/m"]).unwrap_err().to_string();
    assert!(error.contains("--pod-manifest-paht"), "{error}");
}

#[test]
fn a_file_that_is_not_there_is_told_with_what_to_do() {
    let line = Line::try_parse_from(["agent", "--config=/nowhere/config.yaml"]).unwrap();
    let error = options(line.args, &line.globals).unwrap_err();
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
