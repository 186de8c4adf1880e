//! Certificates that are renewed with a component, as kubeadm renews them: it reads them when it starts.

use jiff::Timestamp;

use super::UpgradeError;
use super::kept::FileChange;
use crate::config::ClusterSpec;
use crate::event::Reporter;
use crate::host::Paths;
use crate::host::tree::MemoryTree;
use crate::pki::{self, Fate, Kubeconfig, Renewable, data_in};

/// The kubeconfigs of administrators, which no component reads: renewed last.
pub const ADMIN: &str = "administrators";

/// kubeadm's names of what is renewed with each component.
pub const RENEWED_WITH: &[(&str, &[&str])] = &[
    ("etcd", &["etcd-server", "etcd-peer", "etcd-healthcheck-client"]),
    ("kube-apiserver", &["apiserver", "apiserver-kubelet-client", "front-proxy-client", "apiserver-etcd-client"]),
    ("kube-controller-manager", &["controller-manager.conf"]),
    ("kube-scheduler", &["scheduler.conf"]),
    (ADMIN, &["admin.conf", "super-admin.conf"]),
];

/// The files of new certificates for `component`: nothing is written. What is missing, or is signed by a CA whose key is
/// elsewhere, is passed over, as kubeadm does it.
///
/// # Errors
/// Certificates or authorities that cannot be read.
pub fn renew(
    spec: &ClusterSpec,
    paths: &Paths,
    component: &str,
    now: Timestamp,
    reporter: &dyn Reporter,
) -> Result<Vec<FileChange>, UpgradeError> {
    let names = RENEWED_WITH.iter().find(|(name, _)| *name == component).map_or(&[][..], |(_, names)| names);
    let wanted: Vec<Renewable> = pki::renewables(spec).into_iter().filter(|one| names.contains(&one.name)).collect();
    let mut staged = MemoryTree::staging(paths.clone());
    for renewal in pki::renew(spec, &mut staged, &wanted, now)? {
        if renewal.fate == Fate::External {
            let (title, authority) = (renewal.renewable.title(), renewal.renewable.authority());
            reporter.note("upgrade", format!("detected external {authority}, {title} can't be renewed"));
        }
    }
    let file = |(path, file): (&std::path::PathBuf, &crate::host::tree::MemoryFile)| FileChange {
        path: path.clone(),
        content: file.content.clone(),
        mode: file.mode,
    };
    Ok(staged.files().iter().map(file).collect())
}

/// When the certificate in a file ends: a file of certificates, or a kubeconfig with one inside. None where there is none.
pub fn not_after(content: &[u8]) -> Option<Timestamp> {
    let of = |pem: &[u8]| Some(pki::inspect::read(pem).ok()?.first()?.not_after);
    of(content).or_else(|| {
        let kubeconfig = Kubeconfig::parse(content).ok()?;
        of(&data_in(kubeconfig.user()?.1, "client-certificate-data").ok()??)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifests::COMPONENTS;

    #[test]
    fn every_certificate_is_renewed_with_one_component() {
        let mut names: Vec<&str> = RENEWED_WITH.iter().flat_map(|(_, names)| *names).copied().collect();
        names.sort_unstable();
        assert_eq!(names, pki::renewable_names());
        let owners: Vec<&str> = RENEWED_WITH.iter().map(|(name, _)| *name).collect();
        assert_eq!(owners[..COMPONENTS.len()], COMPONENTS);
    }
}
