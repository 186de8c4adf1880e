//! What is put in the place of something that was configured: a resolved configuration is never written to, it is resolved
//! once more.

use std::path::PathBuf;

use super::ClusterSpec;
use crate::release::KubernetesVersion;

/// What a flag of one command, an upgrade or the machine itself says in the place of the configuration. What is None stays.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Overrides {
    /// The version to go to, or that runs since an upgrade.
    pub kubernetes_version: Option<KubernetesVersion>,
    /// Directory of patches.
    pub patches_dir: Option<PathBuf>,
    /// Directory of kubeconfigs.
    pub kubeconfig_dir: Option<PathBuf>,
    /// Directory of certificates.
    pub certificates_dir: Option<PathBuf>,
    /// Socket of the container runtime; `Some(None)` is none, and so Docker.
    pub cri_socket: Option<Option<String>>,
    /// Address of Docker.
    pub docker_host: Option<String>,
}

impl ClusterSpec {
    /// The same configuration with `overrides`.
    #[must_use]
    pub fn with(mut self, overrides: Overrides) -> Self {
        let Overrides { kubernetes_version, patches_dir, kubeconfig_dir, certificates_dir, cri_socket, docker_host } =
            overrides;
        if let Some(version) = kubernetes_version {
            self.kubernetes_version = version;
        }
        self.patches_dir = patches_dir.or(self.patches_dir);
        self.kubeconfig_dir = kubeconfig_dir.unwrap_or(self.kubeconfig_dir);
        self.certificates_dir = certificates_dir.unwrap_or(self.certificates_dir);
        self.node.cri_socket = cri_socket.unwrap_or(self.node.cri_socket);
        self.kubeboot.docker_host = docker_host.or(self.kubeboot.docker_host);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::spec;

    #[test]
    fn what_is_not_overridden_stays() {
        assert_eq!(spec().with(Overrides::default()), spec());
        let there = spec().with(Overrides {
            kubernetes_version: Some("v1.36.3".parse().unwrap()),
            patches_dir: Some("/patches".into()),
            cri_socket: Some(Some("unix:///run/c.sock".into())),
            docker_host: Some("unix:///d.sock".into()),
            ..Overrides::default()
        });
        assert_eq!(
            (there.kubernetes_version.to_string().as_str(), there.patches_dir),
            ("v1.36.3", Some("/patches".into()))
        );
        assert_eq!(there.node.cri_socket.as_deref(), Some("unix:///run/c.sock"));
        assert_eq!(there.certificates_dir, spec().certificates_dir);
        let docker = spec().with(Overrides { cri_socket: Some(None), ..Overrides::default() });
        assert_eq!(docker.node.cri_socket, None);
    }
}
