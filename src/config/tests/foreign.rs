//! Documents that are for other programs, and files without any.

use std::path::Path;

use super::*;

const SCHEDULER: &str = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n\
                         leaderElection: {leaderElect: true}\n";
const AUDIT: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]\n";

fn with_others() -> String {
    format!("{}---\n{SCHEDULER}---\n{AUDIT}", cluster("clusterName: x\n"))
}

#[test]
fn documents_for_other_programs_are_warned_of_and_the_rest_is_used() {
    let loaded = good(&with_others());
    assert_eq!(loaded.spec.cluster_name, "x");
    let scheduler = "kubescheduler.config.k8s.io/v1 KubeSchedulerConfiguration";
    let expected = [
        format!("c.yaml:6:7: kind: {scheduler} is for another program; ignored, as kubeadm does"),
        "c.yaml:10:7: kind: audit.k8s.io/v1 Policy is for another program; ignored, as kubeadm does".to_owned(),
    ];
    assert_eq!(loaded.warnings, expected);
    let typo =
        good(&(cluster("clusterName: x\n---\n") + "apiVersion: kubeadm.k8s.oi/v1beta4\nkind: InitConfiguration\n"));
    assert!(typo.warnings[0].contains("(did you mean kubeadm.k8s.io?)"), "{:?}", typo.warnings);
}

#[test]
fn join_reset_and_upgrade_pass_them_over_too() {
    let with = |kind: &str, body: &str| format!("{AUDIT}---\n{}", document(kind, body));
    let discovery = "discovery: {bootstrapToken: {token: abcdef.0123456789abcdef, apiServerEndpoint: 'a:1', \
                     unsafeSkipCAVerification: true}}\n";
    let join = load_join(&file_of(&with("JoinConfiguration", discovery))).unwrap().warnings;
    let reset = load_reset(&file_of(&with("ResetConfiguration", ""))).unwrap().warnings;
    let upgrade = load_upgrade(&file_of(&with("UpgradeConfiguration", ""))).unwrap().warnings;
    for warnings in [join, reset, upgrade] {
        assert!(
            warnings[0].starts_with("c.yaml:2:7: kind: audit.k8s.io/v1 Policy is for another program"),
            "{warnings:?}"
        );
    }
}

#[test]
fn a_check_of_the_file_stays_strict() {
    let error = check::validate(Path::new("c.yaml"), &with_others(), false).unwrap_err().to_string();
    assert!(error.contains("c.yaml:6:7: kind: kubescheduler.config.k8s.io/v1 KubeSchedulerConfiguration"), "{error}");
    assert!(error.contains("c.yaml:10:7: kind: audit.k8s.io/v1 Policy is for another program"), "{error}");
}

#[test]
fn no_kind_comes_twice_whichever_group_it_is_of() {
    let twice = format!("{}---\n{AUDIT}---\n{AUDIT}", cluster(""));
    assert_eq!(bad(&twice), ["c.yaml:9:7: kind: a second Policy; the first is at line 5; make one of the two"]);
}

#[test]
fn a_file_without_a_document_for_the_command_is_an_error() {
    for empty in ["", "\n\n", "# nothing yet\n", "---\n---\n", AUDIT, "\u{feff}"] {
        let words = |kind: &str| {
            format!(
                "c.yaml:1:1: the file has no {kind}; begin one with apiVersion: kubeadm.k8s.io/v1beta4 and kind: {kind}"
            )
        };
        assert_eq!(bad(empty), [words("InitConfiguration or ClusterConfiguration")], "{empty:?}");
        let problems = |error: ConfigError| error.problems.iter().map(ToString::to_string).collect::<Vec<_>>();
        let join = problems(load_join(&file_of(empty)).unwrap_err());
        assert!(join.contains(&words("JoinConfiguration")), "{empty:?}: {join:?}");
        assert_eq!(problems(load_reset(&file_of(empty)).unwrap_err()), [words("ResetConfiguration")], "{empty:?}");
        assert_eq!(problems(load_upgrade(&file_of(empty)).unwrap_err()), [words("UpgradeConfiguration")], "{empty:?}");
        assert!(check::validate(Path::new("c.yaml"), empty, false).is_err(), "{empty:?}");
    }
    let kubelet = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nmaxPods: 7\n";
    assert!(load(&input(kubelet)).is_err(), "settings of the kubelet alone are no configuration of a cluster");
    let own = "apiVersion: kubeboot.dev/v1alpha1\nkind: KubebootConfiguration\n";
    assert!(load(&input(own)).is_ok(), "our own document alone is one");
}
