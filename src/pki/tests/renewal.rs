//! Renewing, requests and kubeconfigs for others.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use super::*;
use crate::pki::inspect::Certificate;

fn all(spec: &ClusterSpec) -> Vec<Renewable> {
    renewables(spec)
}

fn fates(renewals: &[Renewal]) -> Vec<(&str, &Fate)> {
    renewals.iter().map(|renewal| (renewal.renewable.name, &renewal.fate)).collect()
}

#[test]
fn everything_has_kubeadms_name_and_title() {
    let names: Vec<&str> = all(&spec()).iter().map(|one| one.name).collect();
    assert_eq!(names, renewable_names());
    insta::assert_snapshot!(all(&spec()).iter().map(|one| format!("{}: {}\n", one.name, one.title())).collect::<String>(), @r"
    admin.conf: certificate embedded in the kubeconfig file for the admin to use and for kubeboot itself
    apiserver: certificate for serving the Kubernetes API
    apiserver-etcd-client: certificate the API server uses to access etcd
    apiserver-kubelet-client: certificate for the API server to connect to the kubelet
    controller-manager.conf: certificate embedded in the kubeconfig file for the controller manager to use
    etcd-healthcheck-client: certificate for liveness probes to healthcheck etcd
    etcd-peer: certificate for etcd nodes to communicate with each other
    etcd-server: certificate for serving etcd
    front-proxy-client: certificate for the front proxy client
    scheduler.conf: certificate embedded in the kubeconfig file for the scheduler to use
    super-admin.conf: certificate embedded in the kubeconfig file for the super-admin
    ");
}

#[test]
fn a_new_certificate_says_what_the_old_one_says_with_a_new_key_and_lasts_longer() {
    let spec = spec();
    let mut tree = made(&spec);
    let old = tree.clone();
    // What the configuration says by now does not matter.
    let mut later = spec.clone();
    later.node.name = "other".into();
    later.api_server_cert_sans = vec!["api.example.com".into()];
    let renewals = renew(&later, &mut tree, &all(&later), days_later(100)).unwrap();
    assert!(renewals.iter().all(|renewal| matches!(renewal.fate, Fate::Renewed(_))));
    for one in all(&spec) {
        let (before, after) = (one.current(&spec, &old).unwrap().unwrap(), one.current(&spec, &tree).unwrap().unwrap());
        let said = |c: &Certificate| (c.common_name.clone(), c.organizations.clone(), c.usages.clone(), c.sans.clone());
        assert_eq!(said(&before), said(&after), "{}", one.name);
        assert_eq!(after.not_after, days_later(465), "{}", one.name);
        assert_eq!(
            after.not_before,
            if one.name.ends_with(".conf") {
                before.not_before
            } else {
                days_later(100) - SignedDuration::from_mins(5)
            }
        );
    }
    for (path, file) in old.files() {
        let same = tree.files()[path].content == file.content && tree.files()[path].mode == file.mode;
        let name = path.display().to_string();
        let stays = name.ends_with("ca.crt")
            || name.ends_with("ca.key")
            || name.contains("/sa.")
            || name.ends_with("kubelet.conf");
        assert_eq!(same, stays, "{name}");
        assert_eq!(tree.files()[path].mode, file.mode, "{name}");
    }
}

#[test]
fn what_was_renewed_passes_every_check_of_init() {
    let spec = spec();
    let mut tree = made(&spec);
    renew(&spec, &mut tree, &all(&spec), days_later(100)).unwrap();
    let outcomes = ensure_certificates(&spec, &mut tree, &[], days_later(464)).unwrap();
    assert!(with_action(&outcomes, Action::Created).is_empty());
    let select = ["admin", "super-admin", "controller-manager", "scheduler"];
    let outcomes = ensure_kubeconfigs(&spec, &mut tree, &select, days_later(464)).unwrap();
    assert!(with_action(&outcomes, Action::Created).is_empty());
    assert!(outcomes.iter().all(|outcome| outcome.warnings.is_empty()));
}

#[test]
fn a_kubeconfig_keeps_what_others_have_put_into_it_and_gets_the_ca_that_is_there_now() {
    let spec = spec();
    let mut tree = made(&spec);
    let text = String::from_utf8(read(&tree, &conf("admin.conf"))).unwrap();
    let text = text.replace("    user: kubernetes-admin\n", "    namespace: prod\n    user: kubernetes-admin\n");
    let text = text.replace("    server: ", "    tls-server-name: api\n    server: ") + "preferences: {}\n";
    put(&mut tree, &conf("admin.conf"), &text);
    // Another CA stands beside the one that signs.
    let bundle = [read(&tree, &pki("ca.crt")), read(&made(&spec), &pki("ca.crt"))].concat();
    put(&mut tree, &pki("ca.crt"), &bundle);
    let admin: Vec<Renewable> = all(&spec).into_iter().filter(|one| one.name == "admin.conf").collect();
    renew(&spec, &mut tree, &admin, now()).unwrap();
    let after = String::from_utf8(read(&tree, &conf("admin.conf"))).unwrap();
    for line in ["namespace: prod", "tls-server-name: api", "server: https://10.0.0.5:6443", "preferences: {}"] {
        assert!(after.contains(line), "{line}\n{after}");
    }
    assert!(after.contains(&STANDARD.encode(&bundle)));
    ensure_kubeconfigs(&spec, &mut tree, &["admin"], now()).unwrap();
}

#[test]
fn external_and_missing_ones_are_told_apart_and_left_alone() {
    let spec = spec();
    let mut tree = made(&spec);
    remove(&mut tree, &pki("etcd/ca.key"));
    remove(&mut tree, &pki("etcd/peer.crt"));
    remove(&mut tree, &pki("apiserver.crt"));
    remove(&mut tree, &conf("super-admin.conf"));
    let before = tree.clone();
    let renewals = renew(&spec, &mut tree, &all(&spec), now()).unwrap();
    for (name, fate) in fates(&renewals) {
        let expected = match name {
            "apiserver" | "super-admin.conf" | "etcd-peer" => &Fate::Missing,
            "etcd-server" | "etcd-healthcheck-client" | "apiserver-etcd-client" => &Fate::External,
            _ => {
                assert!(matches!(fate, Fate::Renewed(_)), "{name}");
                continue;
            }
        };
        assert_eq!(fate, expected, "{name}");
    }
    for path in [pki("etcd/server.crt"), pki("etcd/server.key"), pki("apiserver.key"), pki("apiserver-etcd-client.crt")]
    {
        assert!(read(&tree, &path) == read(&before, &path), "{}", path.display());
    }
    let (certificates, authorities) = expirations(&spec, &tree).unwrap();
    let of = |name: &str| certificates.iter().chain(&authorities).find(|one| one.name == name).unwrap();
    assert_eq!((of("apiserver").at, of("apiserver").external, of("apiserver").authority), (None, false, Some("ca")));
    assert!(of("etcd-server").external && of("etcd-ca").external && !of("ca").external);
    assert_eq!(of("etcd-ca").at, Some(days_later(3650)));
    assert_eq!(authorities.iter().map(|one| one.name).collect::<Vec<_>>(), ["ca", "etcd-ca", "front-proxy-ca"]);
}

#[test]
fn files_that_stand_in_the_way_are_all_named_and_nothing_is_written() {
    let spec = spec();
    let mut tree = made(&spec);
    put(&mut tree, &pki("front-proxy-client.crt"), "junk");
    put(&mut tree, &conf("scheduler.conf"), "junk: [");
    put(
        &mut tree,
        &conf("admin.conf"),
        "apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: s}}]\nusers: [{name: u, user: {token: t}}]\ncontexts: [{name: x, context: {cluster: c, user: u}}]\ncurrent-context: x\n",
    );
    let before = tree.files().clone();
    let error = renew(&spec, &mut tree, &all(&spec), now()).err().unwrap().to_string();
    for file in [
        "front-proxy-client.crt holds no certificate",
        "scheduler.conf is no usable kubeconfig",
        "admin.conf holds no client certificate",
    ] {
        assert!(error.contains(file), "{error}");
    }
    assert!(tree.files() == &before);
    // Of what is fine by itself nothing is said.
    let fine: Vec<Renewable> = all(&spec).into_iter().filter(|one| one.name == "apiserver").collect();
    renew(&spec, &mut tree, &fine, now()).unwrap();
}

#[test]
fn requests_ask_for_what_init_would_issue_and_keys_stay() {
    let mut spec = spec();
    spec.api_server_cert_sans = vec!["api.example.com".into()];
    let mut tree = MemoryTree::empty();
    let written = generate_requests(&spec, &mut tree, now()).unwrap();
    assert_eq!(written.len(), 7 * 2 + 5 * 2);
    assert!(tree.files().values().all(|file| file.mode == 0o600));
    let issued = made(&spec);
    for (file, crt) in [("apiserver.csr", "apiserver.crt"), ("etcd/peer.csr", "etcd/peer.crt")] {
        let block = x509_parser::pem::parse_x509_pem(&read(&tree, &pki(file))).unwrap().1;
        assert_eq!(block.label, "CERTIFICATE REQUEST");
        let (_, request) = X509CertificationRequest::from_der(&block.contents).unwrap();
        request.verify_signature().unwrap();
        let expected = inspect::read(&read(&issued, &pki(crt))).unwrap().remove(0);
        let subject = request.certification_request_info.subject.to_string();
        assert_eq!(subject, format!("CN={}", expected.common_name.unwrap()));
    }
    let conf_text = String::from_utf8(read(&tree, &conf("admin.conf"))).unwrap();
    assert!(
        conf_text.contains("client-key-data")
            && !conf_text.contains("client-certificate")
            && !conf_text.contains("certificate-authority")
    );
    // Again: the same keys, also with a CA by then.
    let keys = |tree: &MemoryTree| -> Vec<Vec<u8>> {
        tree.files()
            .iter()
            .filter(|(path, _)| !path.display().to_string().ends_with("csr"))
            .map(|(_, file)| file.content.clone())
            .collect()
    };
    let before = keys(&tree);
    generate_requests(&spec, &mut tree, now()).unwrap();
    assert!(keys(&tree) == before);
}

#[test]
fn with_a_ca_at_hand_the_kubeconfigs_trust_it_and_wait_for_their_certificates() {
    let spec = spec();
    let mut tree = made(&spec);
    for row in CERTIFICATES.iter().filter(|row| row.parent().is_some()) {
        let [key, crt] = row.files();
        remove(&mut tree, &pki(&key));
        remove(&mut tree, &pki(&crt));
    }
    KUBECONFIGS.iter().for_each(|row| remove(&mut tree, &conf(row.file)));
    remove(&mut tree, &pki("ca.key"));
    generate_requests(&spec, &mut tree, now()).unwrap();
    let Err(PkiError::Refused { refusals }) = ensure_kubeconfigs(&spec, &mut tree, &[], now()) else {
        panic!("not refused")
    };
    assert_eq!(refusals.len(), 5);
    assert!(refusals.iter().all(|refusal| refusal.problem == Problem::NoClient));
    let Err(PkiError::Refused { refusals }) = ensure_certificates(&spec, &mut tree, &[], now()) else {
        panic!("not refused")
    };
    assert_eq!(refusals.len(), 2, "of the CA whose key is here everything is made");
}

#[test]
fn somebody_else_gets_a_kubeconfig_with_every_group_or_a_token() {
    let mut spec = spec();
    spec.control_plane_endpoint = Some(crate::config::spec::Endpoint { host: "k8s.example.com".into(), port: 443 });
    for algorithm in [crate::config::spec::KeyAlgorithm::EcdsaP256, crate::config::spec::KeyAlgorithm::Rsa2048] {
        spec.key_algorithm = algorithm;
        let tree = made(&spec);
        let organizations = ["z", "developers", "a"].map(str::to_owned).to_vec();
        let mut user =
            NewUser { name: "ada".into(), organizations, token: None, validity: std::time::Duration::from_secs(3600) };
        let text = user_kubeconfig(&spec, &tree, &user, now()).unwrap();
        assert!(
            text.contains("server: https://k8s.example.com:443") && text.contains("current-context: ada@kubernetes")
        );
        let data = text.lines().find_map(|line| line.trim().strip_prefix("client-certificate-data: ")).unwrap();
        let certificate = inspect::read(&STANDARD.decode(data).unwrap()).unwrap().remove(0);
        assert_eq!(certificate.common_name.as_deref(), Some("ada"));
        assert_eq!(certificate.organizations, ["a", "z", "developers"], "in the order of their encodings");
        assert_eq!(certificate.usages, Some(vec![Usage::Client]));
        assert_eq!(certificate.not_after, now() + SignedDuration::from_hours(1));
        assert!(certificate.is_signed_by(&inspect::read(&read(&tree, &pki("ca.crt"))).unwrap()[0]));
        user.token = Some("s3cret".into());
        let text = user_kubeconfig(&spec, &tree, &user, now()).unwrap();
        assert!(text.contains("token: s3cret") && !text.contains("client-key-data"));
    }
    let mut tree = made(&spec);
    remove(&mut tree, &pki("ca.key"));
    let user = NewUser {
        name: "ada".into(),
        organizations: vec![],
        token: None,
        validity: std::time::Duration::from_secs(60),
    };
    let error = user_kubeconfig(&spec, &tree, &user, now()).unwrap_err();
    assert!(matches!(error, PkiError::Issue { source: error::IssueError::Unsigned, .. }));
    assert_eq!(certificate_key().unwrap().len(), 64);
}
