use jiff::Timestamp;
use rcgen::{CertificateParams, KeyPair};
use time::OffsetDateTime;

use super::client::choose;
use super::store::{Pair, Store, StoreError};
use super::*;
use crate::host::fs::write_file;

/// A pair that is valid from one second of the epoch to another.
fn pair(from: i64, to: i64) -> Pair {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["cp1".to_owned()]).unwrap();
    let at = |second| OffsetDateTime::from_unix_timestamp(second).unwrap();
    (params.not_before, params.not_after) = (at(from), at(to));
    let certificate = params.self_signed(&key).unwrap();
    Pair::new(certificate.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap()
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

#[test]
fn a_certificate_is_renewed_between_seven_and_nine_tenths_of_its_validity() {
    let certificate = pair(1000, 2000).certificate;
    assert_eq!(renewal(&certificate, 0.0), at(1700));
    assert_eq!(renewal(&certificate, 0.5), at(1800));
    assert_eq!(renewal(&certificate, 1.0), at(1900));
    assert_eq!(renewal(&certificate, 9.0), at(1900));
    assert!(is_valid(&certificate, at(1000)) && !is_valid(&certificate, at(2000)) && !is_valid(&certificate, at(999)));
}

#[test]
fn the_pair_that_is_valid_and_lasts_longer_is_used() {
    let (short, long, future) = (pair(0, 1000), pair(0, 2000), pair(1500, 3000));
    let chosen = |held: &Pair, kept: &Pair, now| choose(Some(held.clone()), Some(kept.clone()), at(now)).unwrap();
    assert!(chosen(&short, &long, 500) == long);
    assert!(chosen(&long, &short, 500) == long, "a new kubeconfig mends a node");
    assert!(chosen(&future, &short, 500) == short);
    assert!(chosen(&short, &long, 5000) == long, "none is valid");
    assert!(choose(None, Some(short.clone()), at(1)).unwrap() == short);
    assert!(choose(None, None, at(1)).is_none());
}

#[test]
fn a_store_keeps_each_pair_and_links_to_the_last() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::client(&dir.path().join("pki"));
    assert!(store.current().unwrap().is_none());
    let (first, second) = (pair(0, 1000), pair(0, 2000));
    store.keep(&first, at(0)).unwrap();
    assert!(store.current().unwrap().unwrap() == first);
    store.keep(&second, at(86_399)).unwrap();
    assert!(store.current().unwrap().unwrap() == second);
    let mut names: Vec<_> =
        std::fs::read_dir(dir.path().join("pki")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(
        names,
        [
            "kubelet-client-1970-01-01-00-00-00.pem",
            "kubelet-client-1970-01-01-23-59-59.pem",
            "kubelet-client-current.pem"
        ]
    );
    assert!(second.certified().is_some_and(|certified| certified.cert.len() == 1));
    write_file(&dir.path().join("pki/kubelet-client-1970-01-01-23-59-59.pem"), b"half", 0o600).unwrap();
    assert!(matches!(store.current(), Err(StoreError::NoPair { .. })));
}

#[test]
fn a_certificate_and_a_key_that_do_not_belong_together_are_no_pair() {
    let (one, other) = (pair(0, 1000), pair(0, 1000));
    assert!(Pair::new(&one.pem, &other.pem).is_none());
    assert!(Pair::read(&one.pem).is_some() && Pair::read(b"").is_none());
}
