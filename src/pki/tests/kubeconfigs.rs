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
        (String::new(), 0, "is no usable kubeconfig (it has no context \"\")"),
        ("kind: Pod".into(), 0, "is no usable kubeconfig (its kind is not Config)"),
        ("users: {a: b}".into(), 0, "is no usable kubeconfig (users in it is no list)"),
        ("clusters: [{name: 7}]".into(), 0, "is no usable kubeconfig (clusters in it has a name of another type"),
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

/// `text` with its data broken into lines, each after `before`, with `end` behind the last one.
fn broken(text: &str, before: &str, end: &str) -> String {
    let line = |line: &str| match line.split_once("-data: ") {
        None => format!("{line}\n"),
        Some((key, data)) => {
            let lines: Vec<&str> = (0..data.len()).step_by(64).map(|at| &data[at..data.len().min(at + 64)]).collect();
            format!("{key}-data: {before}{}{end}\n", lines.join(&format!("\n{}", " ".repeat(6))))
        }
    };
    text.lines().map(line).collect()
}

#[test]
fn a_kubeconfig_is_read_as_kubectl_reads_it() {
    let spec = spec();
    let whole = made(&spec);
    let admin = text(&whole, "admin.conf");
    let other = text(&made(&spec), "admin.conf");
    let quoted = |text: &str| {
        let line = |line: &str| match line.split_once("-data: ") {
            None => format!("{line}\n"),
            Some((key, data)) => format!("{key}-data: \"{}\\n\"\n", data),
        };
        text.lines().map(line).collect::<String>()
    };
    let several = admin
        .replace(
            "contexts:\n",
            "contexts:\n- name: bare\n- {name: nobody, context: {cluster: c}}\n- context: null\n  name: empty\n",
        )
        .replace("users:\n", "users:\n- name: nothing\n- {name: other, user: {token: a, exec: null}}\n")
        .replace(
            "clusters:\n",
            "clusters:\n- {name: elsewhere, cluster: {server: 'https://e', certificate-authority-data: Q0E=}}\n",
        );
    let crlf = admin.replace('\n', "\r\n");
    let untyped = admin.replace("apiVersion: v1\n", "").replace("kind: Config\n", "");
    let empty_files = admin.replace("    client-key-data:", "    client-key: ''\n    token: ''\n    client-key-data:");
    let cases = [
        ("a block", broken(&admin, "|\n      ", "")),
        ("a block kept to its end", broken(&admin, "|+\n      ", "\n")),
        ("a newline in quotes", quoted(&admin)),
        ("a second document", format!("{admin}---\n{other}")),
        ("several contexts", several),
        ("CRLF", crlf),
        ("a byte order mark", format!("\u{feff}{admin}")),
        ("neither kind nor version", untyped),
        ("empty fields", empty_files),
        ("unknown fields", format!("{admin}extra: [1, {{a: b}}]\npreferences: null\nextensions: null\n")),
    ];
    for (what, content) in cases {
        let mut tree = whole.clone();
        put(&mut tree, &conf("admin.conf"), &content);
        let outcomes = ensure_kubeconfigs(&spec, &mut tree, &["admin"], now())
            .unwrap_or_else(|error| panic!("{what}: {error}\n{content}"));
        assert_eq!((outcomes[0].action, outcomes[0].warnings.len()), (Action::Kept, 0), "{what}");
        // Renewing it changes the current context's certificate alone.
        let wanted: Vec<Renewable> = renewables(&spec).into_iter().filter(|one| one.name == "admin.conf").collect();
        renew(&spec, &mut tree, &wanted, days_later(1)).unwrap();
        let after = ensure_kubeconfigs(&spec, &mut tree, &["admin"], days_later(365)).unwrap();
        assert_eq!(after[0].action, Action::Kept, "{what}");
    }
    let utf16: Vec<u8> = [0xff, 0xfe].into_iter().chain(admin.encode_utf16().flat_map(u16::to_le_bytes)).collect();
    assert!(Kubeconfig::parse(&utf16).unwrap().current().is_ok());
}

#[test]
fn data_with_spaces_is_no_base64_to_kubectl_either() {
    let spec = spec();
    let mut tree = made(&spec);
    // A plain scalar over several lines has blanks where the lines end.
    let folded = broken(&text(&tree, "admin.conf"), "\n      ", "");
    put(&mut tree, &conf("admin.conf"), folded);
    let (_, problem) = refusal(ensure_kubeconfigs(&spec, &mut tree, &["admin"], now()));
    assert_eq!(problem.to_string(), "is no usable kubeconfig (certificate-authority-data in it is not base64)");
}

#[tokio::test]
async fn a_client_gets_what_kubectl_would_use() {
    use crate::host::fs::write_file;
    use crate::pki::client::{plain, read, settings};
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let tree = made(&spec());
    let admin = text(&tree, "admin.conf");
    write_file(&at("broken"), broken(&admin, "|\n      ", "").as_bytes(), 0o600).unwrap();
    let config = settings(&read(&[at("broken")]).unwrap()).await.unwrap();
    let authority = inspect::read(&super::read(&tree, &pki("ca.crt"))).unwrap().remove(0);
    assert_eq!(config.root_cert.unwrap(), [authority.der()]);
    assert_eq!(
        config.cluster_url.to_string(),
        format!("{}/", Kubeconfig::parse(admin.as_bytes()).unwrap().current().unwrap().server)
    );
    assert!(config.auth_info.client_key_data.is_some());

    let with = |user: &str| {
        format!(
            "current-context: x\nclusters: [{{name: c, cluster: {{server: 'https://a:1', certificate-authority: ''}}}}]\n\
             users: [{{name: u, user: {user}}}]\ncontexts: [{{name: x, context: {{cluster: c, user: u, namespace: ns}}}}]\n"
        )
    };
    write_file(&at("token"), b"of-the-file\n", 0o600).unwrap();
    write_file(&at("empty"), b"\n", 0o600).unwrap();
    for (user, token, file) in [
        ("{token: inline}", true, None),
        ("{token: inline, tokenFile: token}", false, Some("token")),
        ("{token: inline, tokenFile: empty}", true, None),
        ("{token: inline, tokenFile: none}", true, None),
        ("{token: inline, tokenFile: ''}", true, None),
        ("{token: '', tokenFile: token}", false, Some("token")),
    ] {
        write_file(&at("config"), with(user).as_bytes(), 0o600).unwrap();
        let config = plain(&read(&[at("config")]).unwrap()).unwrap();
        let auth = config.auth_infos[0].auth_info.as_ref().unwrap();
        assert_eq!(auth.token.is_some(), token, "{user}");
        assert_eq!(auth.token_file, file.map(|file| at(file).display().to_string()), "{user}");
    }
    write_file(&at("config"), with("{token: 7}").as_bytes(), 0o600).unwrap();
    let error = settings(&read(&[at("config")]).unwrap()).await.err().unwrap().to_string();
    assert!(error.starts_with("it is no usable kubeconfig (") && !error.contains('7'), "{error}");
    assert_eq!(read(&[at("missing")]).err().unwrap().to_string(), "it cannot be read");
}

#[test]
fn pointing_at_a_rotated_certificate_leaves_everything_else() {
    let tree = made(&spec());
    let file = Path::new("/var/lib/kubelet/pki/kubelet-client-current.pem");
    let before = text(&tree, "kubelet.conf").replace("- context:\n", "- context:\n    namespace: here\n");
    let after = point_at_client_certificate(&conf("kubelet.conf"), before.as_bytes(), file).unwrap().unwrap();
    assert!(
        after.contains("namespace: here") && after.contains("current-context: ") && !after.contains("client-key-data")
    );
    assert_eq!(point_at_client_certificate(&conf("kubelet.conf"), after.as_bytes(), file).unwrap(), None);
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
