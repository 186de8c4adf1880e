//! Failed and killed runs.

use super::*;
use crate::testing::tree::FaultyTree;

fn make_all(spec: &ClusterSpec, tree: &mut dyn Tree, at: Timestamp) -> Result<Vec<Outcome>, PkiError> {
    let mut outcomes = ensure_certificates(spec, tree, &[], at)?;
    outcomes.extend(ensure_kubeconfigs(spec, tree, &[], at)?);
    Ok(outcomes)
}

#[test]
fn whichever_write_fails_the_next_run_completes_the_set() {
    let spec = spec();
    let whole = made(&spec);
    let mut tree = FaultyTree::new(MemoryTree::empty());
    make_all(&spec, &mut tree, now()).unwrap();
    let changes = tree.changes();
    assert!(changes > whole.files().len());
    for fail_at in 1..=changes {
        let mut tree = FaultyTree::new(MemoryTree::empty());
        tree.fail_at(fail_at);
        assert!(matches!(make_all(&spec, &mut tree, now()), Err(PkiError::File(_))), "change {fail_at} fails");
        let content = |tree: &FaultyTree<MemoryTree>| {
            whole.files().keys().map(|path| tree.read(path).unwrap()).collect::<Vec<_>>()
        };
        let before = content(&tree);

        make_all(&spec, &mut tree, days_later(1)).unwrap();
        for (before, after) in before.iter().zip(content(&tree)) {
            assert!(after.is_some(), "everything is there after change {fail_at} had failed");
            assert!(before.is_none() || *before == after, "nothing that was written is written again");
        }
        // What is kept has passed every check.
        let third = make_all(&spec, &mut tree, days_later(2)).unwrap();
        assert!(with_action(&third, Action::Created).is_empty(), "change {fail_at}");
    }
}

#[test]
fn a_run_that_is_refused_writes_nothing() {
    let spec = spec();
    let mut tree = made(&spec);
    remove(&mut tree, &pki("apiserver.key"));
    remove(&mut tree, &pki("sa.key"));
    remove(&mut tree, &pki("etcd/peer.key"));
    remove(&mut tree, &pki("etcd/peer.crt"));
    let before = tree.files().clone();
    let error = ensure_certificates(&spec, &mut tree, &[], now()).unwrap_err();
    assert!(tree.files() == &before);
    insta::assert_snapshot!(error, @r"
    2 files stand in the way, nothing was written:
      /etc/kubernetes/pki/apiserver.crt is there, but its private key /etc/kubernetes/pki/apiserver.key is not: put a matching /etc/kubernetes/pki/apiserver.crt and /etc/kubernetes/pki/apiserver.key there, or remove both to have new ones issued
      /etc/kubernetes/pki/sa.pub is there, but its private key /etc/kubernetes/pki/sa.key is not: put the matching /etc/kubernetes/pki/sa.pub and /etc/kubernetes/pki/sa.key there, or remove both, which makes every service account token invalid
    ");
}

#[test]
fn a_key_without_its_certificate_gets_one() {
    let spec = spec();
    for file in ["apiserver.crt", "etcd/server.crt", "sa.pub"] {
        let mut tree = made(&spec);
        let key = pki(file).with_extension("key");
        let before = read(&tree, &key);
        remove(&mut tree, &pki(file));
        let outcomes = ensure_certificates(&spec, &mut tree, &[], now()).unwrap();
        assert_eq!(with_action(&outcomes, Action::Created).len(), 1);
        assert!(read(&tree, &key) == before);
        let again = ensure_certificates(&spec, &mut tree, &[], now()).unwrap();
        assert!(with_action(&again, Action::Created).is_empty());
    }
}

#[test]
fn a_ca_key_alone_gets_its_certificate_but_not_when_it_has_signed_others() {
    let spec = spec();
    let mut tree = MemoryTree::empty();
    ensure_certificates(&spec, &mut tree, &["front-proxy-ca"], now()).unwrap();
    remove(&mut tree, &pki("front-proxy-ca.crt"));
    ensure_certificates(&spec, &mut tree, &[], now()).unwrap();

    remove(&mut tree, &pki("front-proxy-ca.crt"));
    let (path, problem) = refusal(ensure_certificates(&spec, &mut tree, &[], now()));
    assert_eq!(path, pki("front-proxy-ca.crt"));
    let (key, signed) = (pki("front-proxy-ca.key"), vec!["front-proxy-client.crt".to_owned()]);
    assert_eq!(problem, Problem::AuthorityGone { key, signed });
}

#[test]
fn a_new_ca_is_not_put_above_certificates_of_another() {
    let spec = spec();
    let mut tree = made(&spec);
    remove(&mut tree, &pki("front-proxy-ca.crt"));
    remove(&mut tree, &pki("front-proxy-ca.key"));
    let (path, problem) = refusal(ensure_certificates(&spec, &mut tree, &[], now()));
    assert_eq!(path, pki("front-proxy-client.crt"));
    assert_eq!(problem, Problem::OtherAuthority { authority: pki("front-proxy-ca.crt") });
    assert!(!tree.exists(&pki("front-proxy-ca.key")));
}
