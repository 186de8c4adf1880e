//! What new certificates say, read by another library than the one that makes them.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use x509_parser::prelude::*;

use super::*;
use crate::config::spec::{Endpoint, EtcdSpec, ExternalEtcd, KeyAlgorithm};

fn with_certificate<T>(tree: &MemoryTree, file: &str, look: impl FnOnce(&X509Certificate<'_>) -> T) -> T {
    let pem = read(tree, &pki(file));
    let (rest, pem) = parse_x509_pem(&pem).unwrap();
    assert!(rest.is_empty(), "{file} holds one certificate");
    look(&pem.parse_x509().unwrap())
}

fn sans(x509: &X509Certificate<'_>) -> String {
    let Some(names) = x509.subject_alternative_name().unwrap() else { return String::new() };
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => (*name).to_owned(),
        GeneralName::IPAddress(bytes) => match <[u8; 4]>::try_from(*bytes) {
            Ok(v4) => std::net::IpAddr::from(v4).to_string(),
            Err(_) => std::net::IpAddr::from(<[u8; 16]>::try_from(*bytes).unwrap()).to_string(),
        },
        other => panic!("{other:?}"),
    };
    names.value.general_names.iter().map(text).collect::<Vec<_>>().join(" ")
}

/// File, signer's file, subject, extended key usages, alternative names.
const EXPECTED: &[(&str, &str, &str, &str, &str)] = &[
    ("ca", "ca", "CN=kubernetes", "", "kubernetes"),
    (
        "apiserver",
        "ca",
        "CN=kube-apiserver",
        "server",
        "cp1 kubernetes kubernetes.default kubernetes.default.svc kubernetes.default.svc.cluster.local 10.0.0.5 10.96.0.1",
    ),
    ("apiserver-kubelet-client", "ca", "CN=kube-apiserver-kubelet-client", "client", ""),
    ("front-proxy-ca", "front-proxy-ca", "CN=front-proxy-ca", "", "front-proxy-ca"),
    ("front-proxy-client", "front-proxy-ca", "CN=front-proxy-client", "client", ""),
    ("etcd/ca", "etcd/ca", "CN=etcd-ca", "", "etcd-ca"),
    ("etcd/server", "etcd/ca", "CN=cp1", "server client", "cp1 localhost 10.0.0.5 127.0.0.1 ::1"),
    ("etcd/peer", "etcd/ca", "CN=cp1", "server client", "cp1 localhost 10.0.0.5 127.0.0.1 ::1"),
    ("etcd/healthcheck-client", "etcd/ca", "CN=kube-etcd-healthcheck-client", "client", ""),
    ("apiserver-etcd-client", "etcd/ca", "CN=kube-apiserver-etcd-client", "client", ""),
];

#[test]
fn every_certificate_says_what_kubeadms_does() {
    let tree = made(&spec());
    let mut serials = BTreeSet::new();
    for (base, signer, subject, usages, names) in EXPECTED {
        let authority = base == signer;
        let spki = with_certificate(&tree, &format!("{signer}.crt"), |x| x.public_key().raw.to_vec());
        let signer_key = with_certificate(&tree, &format!("{signer}.crt"), |x| {
            x.get_extension_unique(&oid_registry::OID_X509_EXT_SUBJECT_KEY_IDENTIFIER).unwrap().unwrap().value.to_vec()
        });
        with_certificate(&tree, &format!("{base}.crt"), |x509| {
            assert_eq!(x509.version(), X509Version::V3);
            assert_eq!(x509.subject().to_string(), *subject);
            assert_eq!(sans(x509), *names, "{base}");
            let spki = SubjectPublicKeyInfo::from_der(&spki).unwrap().1;
            x509.verify_signature(Some(&spki)).unwrap();

            assert!(x509.raw_serial().len() <= 8 && x509.raw_serial()[0] < 0x80, "positive, at most 63 bits");
            assert!(serials.insert(x509.raw_serial().to_vec()), "no serial number twice");
            let validity = x509.validity();
            assert_eq!(validity.not_before.timestamp(), now().as_second() - 300);
            let days = if authority { 3650 } else { 365 };
            assert_eq!(validity.not_after.timestamp(), now().as_second() + days * 86400);

            let basic = x509.basic_constraints().unwrap().unwrap();
            assert!(basic.critical);
            assert_eq!((basic.value.ca, basic.value.path_len_constraint), (authority, None));
            let usage = x509.key_usage().unwrap().unwrap();
            assert!(usage.critical);
            let bits = usage.value.flags;
            assert_eq!(
                bits,
                if authority { 0b10_0101 } else { 0b101 },
                "digitalSignature, keyEncipherment, keyCertSign"
            );
            let extended = x509.extended_key_usage().unwrap().map_or(String::new(), |usage| {
                assert!(usage.value.other.is_empty());
                let all = [(usage.value.server_auth, "server"), (usage.value.client_auth, "client")];
                all.iter().filter(|(has, _)| *has).map(|(_, name)| *name).collect::<Vec<_>>().join(" ")
            });
            assert_eq!(extended, *usages);
            let own = x509.get_extension_unique(&oid_registry::OID_X509_EXT_SUBJECT_KEY_IDENTIFIER).unwrap();
            let issuers = x509.get_extension_unique(&oid_registry::OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER).unwrap();
            assert_eq!((own.is_some(), issuers.is_some()), (authority, !authority));
            if let Some(issuers) = issuers {
                assert!(issuers.value.ends_with(&signer_key[2..]), "the AKI is the CA's SKI");
            }
        });
    }
    assert_eq!(EXPECTED.len() + 1, CERTIFICATES.len());
}

#[test]
fn keys_are_closed_and_certificates_open() {
    let tree = made(&spec());
    assert_eq!(tree.files().len(), 2 * CERTIFICATES.len() + KUBECONFIGS.len());
    for (path, file) in tree.files() {
        let open = path.extension().is_some_and(|extension| extension == "crt");
        assert_eq!(file.mode, if open { 0o644 } else { 0o600 }, "{}", path.display());
    }
    assert_eq!(tree.dirs()[Path::new("/etc/kubernetes")], 0o700);
    assert_eq!(tree.dirs()[Path::new("/etc/kubernetes/pki")], 0o755);
}

#[test]
fn every_certificate_belongs_to_its_key_in_every_algorithm() {
    for key_algorithm in [KeyAlgorithm::Rsa2048, KeyAlgorithm::EcdsaP256, KeyAlgorithm::EcdsaP384] {
        let tree = made(&ClusterSpec { key_algorithm, ..spec() });
        for row in CERTIFICATES {
            let [key, public] = row.files().map(|file| read(&tree, &pki(&file)));
            let key = PrivateKey::load(&key).map_err(|error| error.to_string()).unwrap();
            match row.kind {
                Kind::KeyPair => assert_eq!(String::from_utf8(public).unwrap(), key.public_pem()),
                _ => assert!(inspect::read(&public).unwrap()[0].is_for(&key), "{}", row.base),
            }
        }
        let (rsa, bits) = with_certificate(&tree, "apiserver.crt", |x509| match x509.public_key().parsed().unwrap() {
            x509_parser::public_key::PublicKey::RSA(key) => (true, key.key_size()),
            x509_parser::public_key::PublicKey::EC(point) => (false, point.key_size()),
            _ => panic!("another kind of key"),
        });
        let expected = match key_algorithm {
            KeyAlgorithm::Rsa2048 => (true, 2048),
            KeyAlgorithm::EcdsaP256 => (false, 256),
            _ => (false, 384),
        };
        assert_eq!((rsa, bits), expected);
    }
}

#[test]
fn new_keys_are_in_kubeadms_form_and_others_are_brought_to_it() {
    for (key_algorithm, label) in [
        (KeyAlgorithm::Rsa2048, "RSA PRIVATE KEY"),
        (KeyAlgorithm::EcdsaP256, "EC PRIVATE KEY"),
        (KeyAlgorithm::EcdsaP384, "EC PRIVATE KEY"),
    ] {
        let begin = format!("-----BEGIN {label}-----\n");
        let tree = made(&ClusterSpec { key_algorithm, ..spec() });
        for file in ["ca.key", "etcd/peer.key", "sa.key"] {
            assert!(read(&tree, &pki(file)).starts_with(begin.as_bytes()), "{file}");
        }
        let admin = String::from_utf8(read(&tree, &conf("admin.conf"))).unwrap();
        let inside = admin.lines().find_map(|line| line.trim().strip_prefix("client-key-data: ")).unwrap();
        assert!(STANDARD.decode(inside).unwrap().starts_with(begin.as_bytes()));

        let key = PrivateKey::generate(key_algorithm).map_err(|error| error.to_string()).unwrap();
        let pkcs8 = inspect::pem("PRIVATE KEY", key.pair().serialized_der());
        assert!(in_kubeadms_form(pkcs8.as_bytes()).is_some_and(|text| text.as_bytes() == key.pem()));
        assert!(in_kubeadms_form(key.pem()).is_none(), "it is in that form");
        let again = PrivateKey::load(key.pem()).map_err(|error| error.to_string()).unwrap();
        assert_eq!(again.public_der(), key.public_der());
    }
    for other in [include_bytes!("../fixtures/ed25519.key").as_slice(), b"-----BEGIN CERTIFICATE-----", b""] {
        assert!(in_kubeadms_form(other).is_none());
    }
}

#[test]
fn many_rsa_keys_are_made_and_all_differ() {
    let keys = PrivateKey::generate_many(KeyAlgorithm::Rsa2048, 5).map_err(|error| error.to_string()).unwrap();
    let different: BTreeSet<_> = keys.iter().map(PrivateKey::public_der).collect();
    assert_eq!(different.len(), 5);
}

#[test]
fn names_come_from_the_whole_configuration_sorted_and_once() {
    let mut spec = spec();
    spec.control_plane_endpoint = Some(Endpoint { host: "k8s.example.com".into(), port: 6443 });
    spec.networking.dns_domain = "corp.local".into();
    spec.networking.service_subnets = vec!["fd00:10:96::/112".parse().unwrap(), "10.96.0.0/16".parse().unwrap()];
    spec.node.advertise_address = "fd00::5".parse().unwrap();
    spec.api_server_cert_sans =
        ["203.0.113.7", "api.example.com", "cp1", "fd00::5", "203.0.113.7"].map(str::to_owned).to_vec();
    if let EtcdSpec::Local(etcd) = &mut spec.etcd {
        etcd.server_cert_sans = vec!["etcd.example.com".into()];
        etcd.peer_cert_sans = vec!["10.9.9.9".into()];
    }
    let tree = made(&spec);
    let names = |file: &str| with_certificate(&tree, file, sans);
    assert_eq!(
        names("apiserver.crt"),
        "api.example.com cp1 k8s.example.com kubernetes kubernetes.default kubernetes.default.svc \
         kubernetes.default.svc.corp.local 203.0.113.7 fd00::5 fd00:10:96::1"
    );
    assert_eq!(names("etcd/server.crt"), "cp1 etcd.example.com localhost 127.0.0.1 ::1 fd00::5");
    assert_eq!(names("etcd/peer.crt"), "cp1 localhost 10.9.9.9 127.0.0.1 ::1 fd00::5");

    spec.control_plane_endpoint = Some(Endpoint { host: "192.0.2.1".into(), port: 6443 });
    assert!(with_certificate(&made(&spec), "apiserver.crt", sans).contains(" 192.0.2.1"));
}

#[test]
fn an_external_etcd_leaves_its_certificates_out() {
    let external = ExternalEtcd {
        endpoints: vec!["https://10.0.0.9:2379".into()],
        http_endpoints: vec![],
        ca_file: None,
        cert_file: None,
        key_file: None,
    };
    let spec = ClusterSpec { etcd: EtcdSpec::External(external), ..spec() };
    let tree = made(&spec);
    assert!(!tree.files().keys().any(|path| path.display().to_string().contains("etcd")));
    assert!(ensure_certificates(&spec, &mut MemoryTree::empty(), &["etcd-ca"], now()).unwrap().is_empty());
}

#[test]
fn a_validity_beyond_all_calendars_is_an_error() {
    let spec = ClusterSpec { ca_certificate_validity: std::time::Duration::from_secs(u64::MAX / 2), ..spec() };
    let error = ensure_certificates(&spec, &mut MemoryTree::empty(), &[], now()).unwrap_err();
    assert!(matches!(error, PkiError::Validity { .. }), "{error}");
    let spec = ClusterSpec { ca_certificate_validity: std::time::Duration::from_secs(100 * 365 * 86400), ..spec };
    let mut tree = MemoryTree::empty();
    ensure_certificates(&spec, &mut tree, &[], now()).unwrap();
    ensure_certificates(&spec, &mut tree, &[], now()).unwrap();
}

#[test]
fn a_phase_that_is_not_there_is_named_with_those_that_are() {
    let error = ensure_certificates(&spec(), &mut MemoryTree::empty(), &["apisrver"], now()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "there is no phase \"apisrver\"; the phases are ca, apiserver, apiserver-kubelet-client, front-proxy-ca, \
         front-proxy-client, etcd-ca, etcd-server, etcd-peer, etcd-healthcheck-client, apiserver-etcd-client, sa"
    );
}

#[test]
fn an_authority_stands_before_what_it_signs() {
    for (at, row) in CERTIFICATES.iter().enumerate() {
        if let Some(parent) = row.parent() {
            let authority = CERTIFICATES.iter().position(|row| row.phase == parent).unwrap();
            assert!(authority < at && matches!(CERTIFICATES[authority].kind, Kind::Authority { .. }));
            assert_eq!(CERTIFICATES[authority].etcd, row.etcd);
        }
    }
}
