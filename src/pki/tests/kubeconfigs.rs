//! Kubeconfigs.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::config::spec::Endpoint;

fn text(tree: &MemoryTree, file: &str) -> String {
    String::from_utf8(read(tree, &conf(file))).unwrap()
}

/// The value of a line `key: value`, decoded.
fn data(text: &str, key: &str) -> Vec<u8> {
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix(key)).unwrap();
    STANDARD.decode(line.trim_start_matches(':').trim()).unwrap()
}

/// The text without what is different every time.
fn redacted(text: &str) -> String {
    let line = |line: &str| match line.split_once("-data: ") {
        Some((key, _)) => format!("{key}-data: REDACTED\n"),
        None => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

#[test]
fn a_kubeconfig_reads_as_kubeadms_does() {
    let mut spec = spec();
    spec.cluster_name = "prod".into();
    spec.control_plane_endpoint = Some(Endpoint { host: "k8s.example.com".into(), port: 443 });
    let tree = made(&spec);
    insta::assert_snapshot!(redacted(&text(&tree, "admin.conf")), @r"
    apiVersion: v1
    clusters:
    - cluster:
        certificate-authority-data: REDACTED
        server: https://k8s.example.com:443
      name: prod
    contexts:
    - context:
        cluster: prod
        user: kubernetes-admin
      name: kubernetes-admin@prod
    current-context: kubernetes-admin@prod
    kind: Config
    users:
    - name: kubernetes-admin
      user:
        client-certificate-data: REDACTED
        client-key-data: REDACTED
    ");
}

#[test]
fn who_goes_where() {
    let mut spec = spec();
    spec.control_plane_endpoint = Some(Endpoint { host: "k8s.example.com".into(), port: 443 });
    spec.node.advertise_address = "fd00::5".parse().unwrap();
    let tree = made(&spec);
    let ca = &inspect::read(&read(&tree, &pki("ca.crt"))).unwrap()[0];
    let local = "https://[fd00::5]:6443";
    let expected = [
        ("admin.conf", "kubernetes-admin", "kubeadm:cluster-admins", "https://k8s.example.com:443"),
        ("super-admin.conf", "kubernetes-super-admin", "system:masters", "https://k8s.example.com:443"),
        ("kubelet.conf", "system:node:cp1", "system:nodes", local),
        ("controller-manager.conf", "system:kube-controller-manager", "", local),
        ("scheduler.conf", "system:kube-scheduler", "", local),
    ];
    assert_eq!(expected.map(|row| row.0).to_vec(), KUBECONFIGS.iter().map(|row| row.file).collect::<Vec<_>>());
    for (file, user, group, server) in expected {
        let text = text(&tree, file);
        assert!(text.contains(&format!("\n    server: {server}\n")), "{text}");
        assert!(text.contains(&format!("\ncurrent-context: {user}@kubernetes\n")), "{text}");
        assert_eq!(data(&text, "certificate-authority-data"), read(&tree, &pki("ca.crt")));
        let client = inspect::read(&data(&text, "client-certificate-data")).unwrap().remove(0);
        assert_eq!(client.common_name.as_deref(), Some(user));
        assert_eq!(client.organizations.join(","), group);
        assert_eq!(client.usages, Some(vec![Usage::Client]));
        assert!(client.is_signed_by(ca));
        assert_eq!(client.not_before, ca.not_before);
        assert_eq!(client.not_after, days_later(365));
        let key = PrivateKey::load(&data(&text, "client-key-data")).map_err(|error| error.to_string()).unwrap();
        assert!(client.is_for(&key));
    }
}

#[test]
fn names_that_yaml_would_take_for_something_else_stay_names() {
    let tree = made(&ClusterSpec { cluster_name: "1_000".into(), ..spec() });
    let text = text(&tree, "admin.conf");
    assert!(text.contains("name: '1_000'") || text.contains("name: \"1_000\""), "{text}");
}

#[test]
fn another_server_or_node_name_is_kept_with_a_warning() {
    let mut spec = spec();
    let mut tree = made(&spec);
    spec.node.name = "cp2".into();
    spec.node.bind_port = 7443;
    let outcomes = ensure_kubeconfigs(&spec, &mut tree, &["admin", "kubelet"], now()).unwrap();
    assert_eq!(with_action(&outcomes, Action::Kept).len(), 2);
    let warnings: Vec<_> = outcomes.into_iter().flat_map(|outcome| outcome.warnings).collect();
    insta::assert_snapshot!(warnings.join("\n"), @r"
    /etc/kubernetes/admin.conf goes to https://10.0.0.5:6443, not to https://10.0.0.5:7443; it is kept
    /etc/kubernetes/kubelet.conf goes to https://10.0.0.5:6443, not to https://10.0.0.5:7443; it is kept
    /etc/kubernetes/kubelet.conf is for user system:node:cp1, not for system:node:cp2; it is kept
    ");
}

#[test]
fn kubeconfigs_that_cannot_be_used_are_refused_by_name() {
    let spec = spec();
    let whole = made(&spec);
    let other = made(&spec);
    let admin = text(&whole, "admin.conf");
    let swapped = |key: &str| {
        let theirs = text(&other, "admin.conf");
        let line = |text: &str| text.lines().find(|line| line.trim_start().starts_with(key)).unwrap().to_owned();
        admin.replace(&line(&admin), &line(&theirs))
    };
    let cases = [
        (text(&other, "admin.conf"), 0, "trusts another CA than the one in /etc/kubernetes/pki/ca.crt"),
        (
            swapped("client-key-data"),
            0,
            "holds a client certificate that does not belong to the private key in /etc/kubernetes/admin.conf",
        ),
        (admin.clone(), 366, "holds a client certificate that has expired at 2028-01-01T12:00:00Z"),
        ("kind: [".into(), 0, "is no usable kubeconfig (see line 1, column "),
        (String::new(), 0, "is no usable kubeconfig (see line 1, column "),
        (admin.replace("current-context: k", "current-context: x"), 0, "is no usable kubeconfig (it has no context"),
        (admin.replace("client-key-data: ", "client-key-data: _"), 0, "is no usable kubeconfig ("),
    ];
    for (content, days, expected) in cases {
        let mut tree = whole.clone();
        put(&mut tree, &conf("admin.conf"), content);
        let (path, problem) = refusal(ensure_kubeconfigs(&spec, &mut tree, &["admin"], days_later(days)));
        assert_eq!(path, conf("admin.conf"));
        assert!(problem.to_string().starts_with(expected), "{problem} instead of {expected}");
    }
}

#[test]
fn a_kubeconfig_may_name_files_or_carry_a_token() {
    let spec = spec();
    let mut tree = made(&spec);
    let kubelet = text(&tree, "kubelet.conf");
    let current = Path::new("/var/lib/kubelet/pki/kubelet-client-current.pem");
    let both = [data(&kubelet, "client-certificate-data"), data(&kubelet, "client-key-data")].concat();
    put(&mut tree, current, both);
    let head = kubelet.split("    client-certificate-data").next().unwrap();
    put(
        &mut tree,
        &conf("kubelet.conf"),
        format!("{head}    client-certificate: {0}\n    client-key: {0}\n", current.display()),
    );
    let head = text(&tree, "scheduler.conf");
    let head = head.split("    client-certificate-data").next().unwrap();
    put(&mut tree, &conf("scheduler.conf"), format!("{head}    token: abc\n"));
    let outcomes = ensure_kubeconfigs(&spec, &mut tree, &[], now()).unwrap();
    assert!(outcomes.iter().all(|outcome| outcome.action == Action::Kept && outcome.warnings.is_empty()));

    remove(&mut tree, current);
    let (path, problem) = refusal(ensure_kubeconfigs(&spec, &mut tree, &[], now()));
    assert_eq!(path, conf("kubelet.conf"));
    assert!(problem.to_string().contains("kubelet-client-current.pem, which is not there"), "{problem}");
}

#[test]
fn without_a_ca_there_are_no_kubeconfigs() {
    let (path, problem) = refusal(ensure_kubeconfigs(&spec(), &mut MemoryTree::empty(), &[], now()));
    assert_eq!((path, problem), (pki("ca.crt"), Problem::NoAuthority));
}
