//! hostPath volumes of the components.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::config::spec::{ExternalEtcd, HostPathMount};

/// Where the machine keeps its certificate authorities; always mounted.
const CA_CERTS: &str = "/etc/ssl/certs";

/// Where some distributions keep or point theirs; mounted where they exist.
const OPTIONAL_CA_CERTS: [&str; 5] = [
    "/etc/pki/ca-trust",
    "/etc/pki/tls/certs",
    "/etc/ca-certificates",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
];

/// Volumes by name, each mounted where it is on the host unless the user says otherwise.
#[derive(Debug, Default)]
pub(super) struct Volumes(BTreeMap<String, HostPathMount>);

impl Volumes {
    /// A read-only volume of `path`, mounted at the same place.
    pub fn add(&mut self, name: &str, path: impl AsRef<Path>, path_type: &str) {
        let path = path.as_ref().to_string_lossy().into_owned();
        let mount = HostPathMount {
            name: name.to_owned(),
            host_path: path.clone(),
            mount_path: path,
            read_only: true,
            path_type: path_type.to_owned(),
        };
        self.0.insert(mount.name.clone(), mount);
    }

    /// The machine's certificate authorities.
    pub fn add_ca_certs(&mut self, exists: &dyn Fn(&Path) -> bool) {
        self.add("ca-certs", CA_CERTS, "DirectoryOrCreate");
        for path in OPTIONAL_CA_CERTS.into_iter().filter(|path| exists(Path::new(path))) {
            self.add(&path.trim_start_matches('/').replace('/', "-"), path, "DirectoryOrCreate");
        }
    }

    /// The directories of an external etcd's files, where nothing mounted holds them yet.
    pub fn add_external_etcd(&mut self, etcd: &ExternalEtcd, pki: &Path) {
        let mounted = |dir: &Path| {
            OPTIONAL_CA_CERTS.iter().chain([&CA_CERTS]).any(|path| dir.starts_with(path)) || dir.starts_with(pki)
        };
        let files = [&etcd.ca_file, &etcd.cert_file, &etcd.key_file].into_iter().flatten();
        let dirs: BTreeSet<PathBuf> = files.filter_map(|file| file.parent()).map(Path::to_owned).collect();
        let outermost = |dir: &&PathBuf| !dirs.iter().any(|other| other != *dir && dir.starts_with(other));
        for (index, dir) in dirs.iter().filter(|dir| !mounted(dir)).filter(outermost).enumerate() {
            self.add(&format!("etcd-certs-{index}"), dir, "DirectoryOrCreate");
        }
    }

    /// The user's; one of the same name takes the place of ours.
    pub fn extend(&mut self, extra: &[HostPathMount]) {
        self.0.extend(extra.iter().map(|mount| (mount.name.clone(), mount.clone())));
    }

    /// All, sorted by name.
    pub fn into_sorted(self) -> Vec<HostPathMount> {
        self.0.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(volumes: Volumes) -> Vec<(String, String)> {
        volumes.into_sorted().into_iter().map(|v| (v.name, v.host_path)).collect()
    }

    fn etcd(ca: &str, cert: &str, key: &str) -> ExternalEtcd {
        ExternalEtcd {
            endpoints: vec![],
            http_endpoints: vec![],
            ca_file: Some(ca.into()),
            cert_file: Some(cert.into()),
            key_file: Some(key.into()),
        }
    }

    fn external(ca: &str, cert: &str, key: &str) -> Vec<(String, String)> {
        let mut volumes = Volumes::default();
        volumes.add_external_etcd(&etcd(ca, cert, key), Path::new("/etc/kubernetes/pki"));
        names(volumes)
    }

    #[test]
    fn ca_directories_of_other_distributions_are_mounted_where_they_exist() {
        let mut volumes = Volumes::default();
        volumes.add_ca_certs(&|path| path == Path::new("/etc/pki/tls/certs"));
        let found = names(volumes);
        assert_eq!(found.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["ca-certs", "etc-pki-tls-certs"]);
    }

    #[test]
    fn the_files_of_an_external_etcd_are_mounted_once_and_by_their_outermost_directory() {
        let at = |dirs: &[&str]| -> Vec<(String, String)> {
            dirs.iter().enumerate().map(|(i, dir)| (format!("etcd-certs-{i}"), dir.to_string())).collect()
        };
        assert_eq!(external("/etc/etcd/ca.crt", "/etc/etcd/a/c.crt", "/etc/etcd/a/c.key"), at(&["/etc/etcd"]));
        assert_eq!(external("/b/ca.crt", "/a/c.crt", "/bc/c.key"), at(&["/a", "/b", "/bc"]));
        assert_eq!(external("/etc/kubernetes/pki/x/ca.crt", "/etc/ssl/certs/c.crt", "/a/k"), at(&["/a"]));
    }

    #[test]
    fn a_volume_of_the_users_takes_the_place_of_ours() {
        let mut volumes = Volumes::default();
        volumes.add("k8s-certs", "/etc/kubernetes/pki", "DirectoryOrCreate");
        let mine = HostPathMount {
            name: "k8s-certs".into(),
            host_path: "/mine".into(),
            mount_path: "/etc/kubernetes/pki".into(),
            read_only: false,
            path_type: String::new(),
        };
        volumes.extend(std::slice::from_ref(&mine));
        assert_eq!(volumes.into_sorted(), [mine]);
    }
}
