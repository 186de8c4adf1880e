use proptest::prelude::*;

use super::*;
use crate::config::spec::ExternalEtcd;
use crate::host::tree::MemoryTree;
use crate::testing::spec;

fn key(digits: &str) -> CertificateKey {
    digits.repeat(64 / digits.len()).parse().unwrap()
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// A node with every file, each with its own path as content.
fn node(spec: &ClusterSpec) -> MemoryTree {
    let mut tree = MemoryTree::empty();
    for path in files(spec).into_iter().filter_map(|(_, path)| path) {
        tree.write(&path, path.to_string_lossy().as_bytes(), 0o600).unwrap();
    }
    tree
}

fn sealed(spec: &ClusterSpec, tree: &MemoryTree, key: &CertificateKey) -> Secret {
    secret(seal_files(spec, tree, key).unwrap())
}

#[test]
fn a_value_is_nonce_ciphertext_and_tag_of_aes_256_gcm() {
    // Test case 14 of the specification of GCM (McGrew and Viega).
    let value = bytes("000000000000000000000000cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919");
    assert_eq!(open(&value, &key("0")), Some(vec![0; 16]));
}

#[test]
fn what_was_sealed_opens_to_the_very_files_with_its_key_alone() {
    let (spec, right) = (spec(), key("0a"));
    let secret = sealed(&spec, &node(&spec), &right);
    let opened = open_files(&spec, &secret, &right).unwrap();
    let names: Vec<_> = opened.keys().copied().collect();
    let expected = [
        "ca.crt",
        "ca.key",
        "etcd-ca.crt",
        "etcd-ca.key",
        "front-proxy-ca.crt",
        "front-proxy-ca.key",
        "sa.key",
        "sa.pub",
    ];
    assert_eq!(names, expected);
    assert_eq!(opened["etcd-ca.key"], b"/etc/kubernetes/pki/etcd/ca.key");
    let error = open_files(&spec, &secret, &key("0b")).unwrap_err();
    assert!(matches!(error, CertsError::Decrypt { .. }), "{error}");
}

#[test]
fn a_key_that_kubeadm_would_not_read_is_sealed_in_the_form_it_reads() {
    let (spec, right, mut tree) = (spec(), key("0a"), node(&spec()));
    let pkcs8 = rcgen::KeyPair::generate().unwrap().serialize_pem();
    tree.write(&spec.certificates_dir.join("ca.key"), pkcs8.as_bytes(), 0o600).unwrap();
    let opened = open_files(&spec, &sealed(&spec, &tree, &right), &right).unwrap();
    assert!(opened["ca.key"].starts_with(b"-----BEGIN EC PRIVATE KEY-----"));
}

#[test]
fn no_two_values_have_the_same_nonce() {
    let spec = spec();
    let mut nonces = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let data = sealed(&spec, &node(&spec), &key("0a")).data.unwrap();
        nonces.extend(data.into_values().map(|value| value.0[..NONCE_LEN].to_vec()));
    }
    assert_eq!(nonces.len(), 20 * 8);
}

#[test]
fn a_value_that_was_changed_or_is_missing_is_named() {
    let (spec, key) = (spec(), key("0a"));
    let whole = sealed(&spec, &node(&spec), &key);
    let broken = |change: &dyn Fn(&mut BTreeMap<String, ByteString>)| {
        let mut secret = whole.clone();
        change(secret.data.as_mut().unwrap());
        open_files(&spec, &secret, &key).unwrap_err().to_string()
    };
    let flip = |at: usize| {
        broken(&|data| {
            let value = &mut data.get_mut("sa.key").unwrap().0;
            let at = at.min(value.len() - 1);
            value[at] ^= 1;
        })
    };
    for at in [0, NONCE_LEN, usize::MAX] {
        assert!(flip(at).starts_with("cannot decrypt sa.key of the Secret kubeadm-certs"), "{at}");
    }
    assert!(broken(&|data| data.get_mut("sa.key").unwrap().0.truncate(5)).contains("sa.key"));
    assert_eq!(broken(&|data| drop(data.remove("sa.pub"))), "the Secret kubeadm-certs has no sa.pub");
}

#[test]
fn files_of_an_external_etcd_take_the_place_of_its_ca_and_those_that_are_not_there_stay_empty() {
    let mut spec = spec();
    let etcd = ExternalEtcd {
        endpoints: vec!["https://10.1.0.1:2379".into()],
        http_endpoints: vec![],
        ca_file: Some("/etc/etcd/ca.crt".into()),
        cert_file: Some("/etc/etcd/client.crt".into()),
        key_file: None,
    };
    spec.etcd = EtcdSpec::External(etcd);
    let secret = sealed(&spec, &node(&spec), &key("0a"));
    let data = secret.data.as_ref().unwrap();
    assert!(data["external-etcd.key"].0.is_empty() && !data.contains_key("etcd-ca.crt"));
    let opened = open_files(&spec, &secret, &key("0a")).unwrap();
    assert_eq!(opened["external-etcd.crt"], b"/etc/etcd/client.crt");
    assert_eq!(opened.get("external-etcd.key"), None);
}

#[test]
fn an_external_ca_is_refused() {
    let spec = spec();
    let mut tree = node(&spec);
    assert!(check_authorities(&spec, &tree).is_ok());
    tree.remove(Path::new("/etc/kubernetes/pki/front-proxy-ca.key")).unwrap();
    let error = check_authorities(&spec, &tree).unwrap_err().to_string();
    assert!(error.contains("/etc/kubernetes/pki/front-proxy-ca.key is not"), "{error}");
    assert!(check_authorities(&spec, &MemoryTree::empty()).is_ok());
}

#[test]
fn the_secret_goes_with_its_token_which_opens_nothing() {
    let token = ttl_token("abcdef.0123456789abcdef".parse().unwrap());
    assert!(token.usages.is_empty() && token.groups.is_empty());
    let objects = objects(BTreeMap::new(), &token, "2026-01-01T00:00:00Z".parse().unwrap());
    let keys: Vec<_> = objects.iter().map(|object| object.key().to_string()).collect();
    let expected = [
        "Secret kube-system/bootstrap-token-abcdef",
        "Secret kube-system/kubeadm-certs",
        "Role kube-system/kubeadm:kubeadm-certs",
        "RoleBinding kube-system/kubeadm:kubeadm-certs",
    ];
    assert_eq!(keys, expected);
    let ttl: Secret = serde_json::from_value(objects[0].value.clone()).unwrap();
    assert_eq!(ttl.data.unwrap()["expiration"].0, b"2026-01-01T02:00:00Z");
    assert_eq!(objects[1].owner.as_deref(), Some("bootstrap-token-abcdef"));
}

proptest! {
    #[test]
    fn sealing_and_opening_cancel_out(plain in proptest::collection::vec(any::<u8>(), 0..300)) {
        let key = key("c3");
        let value = seal(&plain, &key).unwrap();
        prop_assert_eq!(value.len(), plain.len() + 12 + 16);
        prop_assert_eq!(open(&value, &key), Some(plain));
    }

    #[test]
    fn nothing_that_is_no_value_makes_it_panic(value in proptest::collection::vec(any::<u8>(), 0..60)) {
        prop_assert_eq!(open(&value, &key("c3")), None);
    }
}
