//! The whole PKI on a real file system, below a root of its own.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use jiff::Timestamp;
use kubeboot::host::Paths;
use kubeboot::host::tree::{HostTree, NoRecord};
use kubeboot::pki::{Action, CERTIFICATES, KUBECONFIGS, Kind, ensure_certificates, ensure_kubeconfigs, inspect};
use kubeboot::testing::spec;

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn the_files_of_a_new_cluster_have_kubeadms_places_modes_and_chains() {
    let root = tempfile::tempdir().unwrap();
    let mut tree = HostTree::new(Paths::new(root.path()), NoRecord);
    let (spec, now) = (spec(), Timestamp::now());
    ensure_certificates(&spec, &mut tree, &[], now).unwrap();
    ensure_kubeconfigs(&spec, &mut tree, &[], now).unwrap();

    let kubernetes = root.path().join("etc/kubernetes");
    let pki = kubernetes.join("pki");
    assert_eq!([&kubernetes, &pki, &pki.join("etcd")].map(|dir| mode(dir)), [0o700, 0o755, 0o755]);
    let read = |base: &str| inspect::read(&std::fs::read(pki.join(format!("{base}.crt"))).unwrap()).unwrap().remove(0);
    for row in CERTIFICATES {
        let [key, public] = row.files().map(|file| pki.join(file));
        let is_pair = matches!(row.kind, Kind::KeyPair);
        assert_eq!((mode(&key), mode(&public)), (0o600, if is_pair { 0o600 } else { 0o644 }), "{}", row.base);
        if let Some(parent) = row.parent() {
            let authority = CERTIFICATES.iter().find(|row| row.phase == parent).unwrap();
            assert!(read(row.base).is_signed_by(&read(authority.base)), "{}", row.base);
        }
    }
    for row in KUBECONFIGS {
        assert_eq!(mode(&kubernetes.join(row.file)), 0o600);
    }

    let modified = |path: &Path| std::fs::metadata(path).unwrap().modified().unwrap();
    let before = modified(&pki.join("apiserver.crt"));
    let again = ensure_certificates(&spec, &mut tree, &[], now).unwrap();
    assert!(again.iter().all(|outcome| outcome.action == Action::Kept));
    assert_eq!(modified(&pki.join("apiserver.crt")), before);
}
