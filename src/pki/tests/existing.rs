//! Files that were there before.

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer;

use super::*;
use crate::host::fs::Written;
use crate::pki::key::PrivateKey;
use crate::pki::{Usage, issue};

// Made with openssl for these tests alone; valid until 2126. The EC key has a block EC PARAMETERS in front, the RSA key
// is PKCS#1, the others are SEC1 and PKCS#8.
const EC_CA: (&[u8], &[u8]) = (include_bytes!("../fixtures/ec-ca.crt"), include_bytes!("../fixtures/ec-ca.key"));
const RSA_CA: (&[u8], &[u8]) = (include_bytes!("../fixtures/rsa-ca.crt"), include_bytes!("../fixtures/rsa-ca.key"));
const P521_CA: (&[u8], &[u8]) = (include_bytes!("../fixtures/p521-ca.crt"), include_bytes!("../fixtures/p521-ca.key"));
/// CAs on the EC key whose subjects a certificate library may not be able to write: several DC and OU with a name of two
/// attributes, two OU, and texts of the old kinds. Those of old kinds have no subject key identifier either.
const ODD_CAS: [(&str, &[u8]); 5] = [
    ("directory", include_bytes!("../fixtures/directory-ca.crt")),
    ("two units", include_bytes!("../fixtures/two-units-ca.crt")),
    ("T61String", include_bytes!("../fixtures/t61-ca.crt")),
    ("BMPString", include_bytes!("../fixtures/bmp-ca.crt")),
    ("PrintableString", include_bytes!("../fixtures/printable-ca.crt")),
];
const ED25519_KEY: &[u8] = include_bytes!("../fixtures/ed25519.key");

fn with_ca((crt, key): (&[u8], &[u8])) -> MemoryTree {
    let mut tree = MemoryTree::empty();
    put(&mut tree, &pki("ca.crt"), crt);
    put(&mut tree, &pki("ca.key"), key);
    tree
}

#[test]
fn a_second_run_keeps_everything() {
    let spec = spec();
    let mut tree = made(&spec);
    let before = tree.files().clone();
    let outcomes = ensure_certificates(&spec, &mut tree, &[], days_later(364)).unwrap();
    assert_eq!(with_action(&outcomes, Action::Kept).len(), CERTIFICATES.len());
    let outcomes = ensure_kubeconfigs(&spec, &mut tree, &[], days_later(364)).unwrap();
    assert_eq!(with_action(&outcomes, Action::Kept).len(), KUBECONFIGS.len());
    assert!(outcomes.iter().all(|outcome| outcome.warnings.is_empty()));
    assert!(tree.files() == &before);
}

#[test]
fn cas_that_others_made_sign_and_their_files_stay_as_they_are() {
    for ca in [EC_CA, RSA_CA, P521_CA] {
        let mut tree = with_ca(ca);
        let outcomes = ensure_certificates(&spec(), &mut tree, &[], now()).unwrap();
        assert_eq!(with_action(&outcomes, Action::Kept), ["/etc/kubernetes/pki/ca.crt"]);
        ensure_kubeconfigs(&spec(), &mut tree, &[], now()).unwrap();
        assert!(read(&tree, &pki("ca.crt")) == ca.0 && read(&tree, &pki("ca.key")) == ca.1);

        let leaf = &inspect::read(&read(&tree, &pki("apiserver.crt"))).unwrap()[0];
        assert!(leaf.is_signed_by(&inspect::read(ca.0).unwrap()[0]));
        let again = ensure_certificates(&spec(), &mut tree, &[], now()).unwrap();
        assert!(with_action(&again, Action::Created).is_empty());
        let again = ensure_kubeconfigs(&spec(), &mut tree, &[], now()).unwrap();
        assert!(with_action(&again, Action::Created).is_empty());
    }
}

#[test]
fn the_one_of_several_cas_that_the_key_fits_signs_and_all_are_trusted() {
    let old = made(&spec());
    let bundle = [read(&old, &pki("ca.crt")), EC_CA.0.to_vec()].concat();
    let mut tree = with_ca((&bundle, EC_CA.1));
    put(&mut tree, &pki("apiserver.crt"), read(&old, &pki("apiserver.crt")));
    put(&mut tree, &pki("apiserver.key"), read(&old, &pki("apiserver.key")));
    ensure_certificates(&spec(), &mut tree, &["ca", "apiserver", "apiserver-kubelet-client"], now()).unwrap();
    let made = &inspect::read(&read(&tree, &pki("apiserver-kubelet-client.crt"))).unwrap()[0];
    assert_eq!(made.issuer.as_deref(), Some("example ca"));
    let kept = &inspect::read(&read(&tree, &pki("apiserver.crt"))).unwrap()[0];
    assert_eq!(kept.issuer.as_deref(), Some("kubernetes"));
}

#[test]
fn the_issuer_of_all_that_is_signed_is_the_cas_subject_byte_for_byte() {
    for (name, ca) in ODD_CAS {
        let authority = &inspect::read(ca).unwrap()[0];
        let subject = authority.subject_der().unwrap();
        let mut tree = with_ca((ca, EC_CA.1));
        ensure_certificates(&spec(), &mut tree, &[], now()).unwrap();
        ensure_kubeconfigs(&spec(), &mut tree, &[], now()).unwrap();
        let mut signed = vec![("user", user(&tree))];
        let wanted: Vec<Renewable> = renewables(&spec()).into_iter().filter(|one| one.authority() == "ca").collect();
        for one in &wanted {
            signed.push((one.name, one.current(&spec(), &tree).unwrap().unwrap()));
        }
        for renewal in renew(&spec(), &mut tree, &wanted, days_later(9)).unwrap() {
            let Fate::Renewed(certificate) = renewal.fate else { panic!("{name}: {:?}", renewal.fate) };
            signed.push((renewal.renewable.name, *certificate));
        }
        assert_eq!(signed.len(), 1 + 2 * (2 + 4), "apiserver, its client of kubelets, and four kubeconfigs, twice");
        for (what, certificate) in signed {
            let (_, x509) = X509Certificate::from_der(certificate.der()).unwrap();
            assert_eq!(x509.issuer().as_raw(), subject, "{name}: {what}");
            assert!(certificate.is_signed_by(authority), "{name}: {what}");
            let key_id = x509.iter_extensions().find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0.to_vec()),
                _ => None,
            });
            assert_eq!(key_id, authority.subject_key_id().unwrap(), "{name}: {what}");
        }
        let again = ensure_certificates(&spec(), &mut tree, &[], days_later(9)).unwrap();
        assert!(with_action(&again, Action::Created).is_empty(), "{name}");
    }
}

/// The certificate of a new user.
fn user(tree: &MemoryTree) -> inspect::Certificate {
    let wanted = NewUser {
        name: "jane".into(),
        organizations: vec!["a".into(), "b".into()],
        token: None,
        validity: std::time::Duration::from_secs(3600),
    };
    let text = user_kubeconfig(&spec(), tree, &wanted, now()).unwrap();
    let config = Kubeconfig::parse(text.as_bytes()).unwrap();
    let pem = data_in(config.user().unwrap().1, "client-certificate-data").unwrap().unwrap();
    let certificate = inspect::read(&pem).unwrap().remove(0);
    assert_eq!(certificate.organizations, ["a", "b"]);
    certificate
}

#[test]
fn names_are_read_in_every_kind_of_text() {
    let names = ODD_CAS.map(|(_, ca)| inspect::read(ca).unwrap().remove(0).common_name.unwrap());
    let expected = ["Example Issuing CA 01", "example ca", "Example CA", "Example CA", "Example CA"];
    assert_eq!(names, expected);
}

#[test]
fn what_becomes_valid_later_is_used_with_a_warning() {
    let spec = spec();
    let early = now() - SignedDuration::from_mins(5 + 3);
    let mut tree = MemoryTree::empty();
    // A CA of a machine whose clock is ahead: it begins in three minutes.
    ensure_certificates(&spec, &mut tree, &["ca"], now()).unwrap();
    let warnings = |outcomes: &[Outcome]| outcomes.iter().flat_map(|one| one.warnings.clone()).collect::<Vec<_>>();
    let about = |file: &str| {
        format!(
            "{} is not valid before 2027-01-01T11:55:00Z, and it is {early}; is the clock right?; it is kept",
            pki(file).display()
        )
    };
    let outcomes = ensure_certificates(&spec, &mut tree, &["apiserver"], early).unwrap();
    assert_eq!(warnings(&outcomes), [about("ca.crt")], "a phase alone says it too");
    let outcomes = ensure_certificates(&spec, &mut tree, &[], early).unwrap();
    assert_eq!(warnings(&outcomes), [about("ca.crt")]);
    let outcomes = ensure_kubeconfigs(&spec, &mut tree, &[], early).unwrap();
    assert_eq!(warnings(&outcomes), [about("ca.crt")]);
    // Its clients begin when it does, and are kept when they are looked at again.
    let outcomes = ensure_kubeconfigs(&spec, &mut tree, &["admin"], early).unwrap();
    assert_eq!(with_action(&outcomes, Action::Kept).len(), 1);
    assert!(warnings(&outcomes)[1].contains("admin.conf holds a client certificate that is not valid before"));
    // So is a certificate of its own.
    let outcomes =
        ensure_certificates(&spec, &mut tree, &["apiserver"], early - SignedDuration::from_mins(30)).unwrap();
    assert!(warnings(&outcomes)[1].starts_with("/etc/kubernetes/pki/apiserver.crt is not valid before"));
    let renewals = renew(&spec, &mut tree, &renewables(&spec)[..1], early).unwrap();
    assert_eq!(renewals[0].warnings, [about("ca.crt")]);
}

#[test]
fn a_certificate_without_a_usage_is_kept_with_a_warning() {
    let spec = spec();
    let mut tree = made(&spec);
    let authority = inspect::read(&read(&tree, &pki("etcd/ca.crt"))).unwrap().remove(0);
    let authority_key = PrivateKey::load(&read(&tree, &pki("etcd/ca.key"))).unwrap();
    let key = PrivateKey::load(&read(&tree, &pki("etcd/server.key"))).unwrap();
    let whole = inspect::read(&read(&tree, &pki("etcd/server.crt"))).unwrap().remove(0);
    let mut put_with = |usages: Vec<Usage>| {
        let request = issue::Request {
            common_name: "cp1".into(),
            organizations: vec![],
            usages,
            sans: whole.sans.clone(),
            window: issue::Window::backdated(now(), spec.certificate_validity).unwrap(),
        };
        let pem = issue::leaf(&request, &key, &authority, &authority_key).unwrap();
        put(&mut tree, &pki("etcd/server.crt"), pem);
        let outcomes = ensure_certificates(&spec, &mut tree, &["etcd-server"], now()).unwrap();
        assert_eq!(outcomes[0].action, Action::Kept);
        outcomes[0].warnings.clone()
    };
    let lacks = |usages: &str| {
        format!("/etc/kubernetes/pki/etcd/server.crt may not be used for {usages}, for which it is used; it is kept")
    };
    assert_eq!(put_with(vec![Usage::Server]), [lacks("clientAuth")]);
    assert_eq!(put_with(vec![Usage::Client]), [lacks("serverAuth")]);
    assert_eq!(put_with(vec![Usage::Server, Usage::Client]), Vec::<String>::new());
    assert_eq!(put_with(vec![]), Vec::<String>::new(), "without the extension every use is allowed");
}

#[test]
fn files_that_cannot_be_used_are_refused_by_name() {
    let spec = spec();
    let whole = made(&spec);
    let other = made(&spec);
    let mismatch = |key: &str| Problem::Mismatch { key: pki(key) };
    let not_signed_by = |ca: &str| Problem::OtherAuthority { authority: pki(ca) };
    let expired = Problem::Expired { at: now() + SignedDuration::from_hours(24 * 365) };
    let unreadable = Problem::NoCertificate { reason: "no PEM block CERTIFICATE".into() };
    let own = |file: &str| read(&whole, &pki(file));
    let cases = [
        ("apiserver.key", read(&other, &pki("apiserver.key")), 0, "apiserver.crt", mismatch("apiserver.key")),
        ("etcd/ca.key", read(&other, &pki("etcd/ca.key")), 0, "etcd/ca.crt", mismatch("etcd/ca.key")),
        ("sa.pub", read(&other, &pki("sa.pub")), 0, "sa.pub", mismatch("sa.key")),
        ("sa.pub", b"junk".to_vec(), 0, "sa.pub", Problem::NoPublicKey),
        ("ca.crt", b"".to_vec(), 0, "ca.crt", unreadable),
        ("sa.key", ED25519_KEY.to_vec(), 0, "sa.key", Problem::Ed25519),
        ("front-proxy-client.crt", own("front-proxy-client.crt"), 366, "front-proxy-client.crt", expired),
    ];
    for (file, content, days, refused, expected) in cases {
        let mut tree = whole.clone();
        put(&mut tree, &pki(file), content);
        let phase =
            CERTIFICATES.iter().find(|row| refused.starts_with(row.base) && row.files().contains(&refused.into()));
        let (path, problem) = refusal(ensure_certificates(&spec, &mut tree, &[phase.unwrap().phase], days_later(days)));
        assert_eq!((path, problem), (pki(refused), expected));
    }
    // A pair that is sound in itself, but of another CA, or of no CA at all.
    let mut tree = whole.clone();
    for file in ["apiserver.crt", "apiserver.key"] {
        put(&mut tree, &pki(file), read(&other, &pki(file)));
    }
    let (path, problem) = refusal(ensure_certificates(&spec, &mut tree, &[], now()));
    assert_eq!((path, problem), (pki("apiserver.crt"), not_signed_by("ca.crt")));
    let mut tree = with_ca((&own("apiserver.crt"), &own("apiserver.key")));
    let (path, problem) = refusal(ensure_certificates(&spec, &mut tree, &[], now()));
    assert_eq!((path, problem), (pki("ca.crt"), Problem::NotAuthority));
}

#[test]
fn a_private_key_that_cannot_be_read_is_refused_and_not_repeated() {
    let mut tree = made(&spec());
    put(&mut tree, &pki("apiserver.key"), "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n");
    let error = ensure_certificates(&spec(), &mut tree, &[], now()).unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(text.contains("/etc/kubernetes/pki/apiserver.key holds no private key that can be used"), "{text}");
    assert!(!text.contains("c2VjcmV0") && !text.contains("secret"), "{text}");
}

#[test]
fn names_that_a_server_certificate_lacks_are_listed() {
    let mut spec = spec();
    let mut tree = made(&spec);
    spec.api_server_cert_sans = vec!["api.example.com".into(), "203.0.113.7".into()];
    let (path, problem) = refusal(ensure_certificates(&spec, &mut tree, &[], now()));
    assert_eq!(path, pki("apiserver.crt"));
    assert_eq!(problem.to_string(), "does not cover api.example.com, 203.0.113.7");
}

#[test]
fn a_wildcard_covers_one_label() {
    let mut spec = spec();
    spec.api_server_cert_sans = vec!["*.example.com".into()];
    let mut tree = made(&spec);
    spec.api_server_cert_sans = vec!["API.example.com".into()];
    ensure_certificates(&spec, &mut tree, &[], now()).unwrap();
    spec.api_server_cert_sans = vec!["a.b.example.com".into()];
    assert_eq!(refusal(ensure_certificates(&spec, &mut tree, &[], now())).0, pki("apiserver.crt"));
}

#[test]
fn without_its_key_a_ca_is_kept_and_what_it_signs_must_be_there() {
    let spec = spec();
    let mut tree = made(&spec);
    remove(&mut tree, &pki("ca.key"));
    let outcomes = ensure_certificates(&spec, &mut tree, &[], now()).unwrap();
    assert!(with_action(&outcomes, Action::Created).is_empty());
    ensure_kubeconfigs(&spec, &mut tree, &[], now()).unwrap();

    let missing = Problem::ExternalAuthority { key: pki("ca.key") };
    remove(&mut tree, &pki("apiserver.crt"));
    assert_eq!(refusal(ensure_certificates(&spec, &mut tree, &[], now())), (pki("apiserver.crt"), missing));
    remove(&mut tree, &conf("admin.conf"));
    let missing = Problem::ExternalAuthority { key: pki("ca.key") };
    assert_eq!(refusal(ensure_kubeconfigs(&spec, &mut tree, &[], now())), (conf("admin.conf"), missing));
}

#[test]
fn a_certificate_alone_needs_its_ca() {
    let mut tree = MemoryTree::empty();
    let (path, problem) = refusal(ensure_certificates(&spec(), &mut tree, &["apiserver"], now()));
    assert_eq!((path, problem), (pki("ca.crt"), Problem::NoAuthority));
    ensure_certificates(&spec(), &mut tree, &["ca"], now()).unwrap();
    ensure_certificates(&spec(), &mut tree, &["apiserver"], now()).unwrap();
    assert_eq!(tree.files().len(), 4);
}

#[test]
fn a_pair_whose_key_is_closed_to_an_ordinary_user_counts_as_absent() {
    /// Keys are there but give nothing, as a tree of memory above a real one has it for an ordinary user.
    struct Closed(MemoryTree);
    impl Tree for Closed {
        fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, FsError> {
            let closed = path.extension().is_some_and(|extension| extension == "key");
            if closed { Ok(None) } else { self.0.read(path) }
        }
        fn exists(&self, path: &Path) -> bool {
            self.0.exists(path)
        }
        fn make_dir(&mut self, path: &Path, mode: u32) -> Result<(), FsError> {
            self.0.make_dir(path, mode)
        }
        fn write(&mut self, path: &Path, content: &[u8], mode: u32) -> Result<Written, FsError> {
            self.0.write(path, content, mode)
        }
        fn remove(&mut self, path: &Path) -> Result<bool, FsError> {
            self.0.remove(path)
        }
    }
    let mut tree = Closed(made(&spec()));
    let outcomes = ensure_certificates(&spec(), &mut tree, &[], now()).unwrap();
    assert_eq!(with_action(&outcomes, Action::Created).len(), CERTIFICATES.len());
}
