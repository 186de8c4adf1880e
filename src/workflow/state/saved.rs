//! The configuration that this control plane was made from, as it was given: what `upgrade` renders again for another
//! version, and what a second `init` is compared with.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::spec::Overrides;
use crate::config::{self, ClusterSpec, ConfigError, Flags, HostDefaults, Input};
use crate::host::digest::sha256;
use crate::host::fs::FsError;
use crate::host::tree::Tree;
use crate::release::KubernetesVersion;

/// Where it is, as the node sees it. A configuration may hold bootstrap tokens, so only root reads it.
pub const SAVED: &str = "/var/lib/kubeboot/input.json";

/// The saved configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Saved {
    file: Option<File>,
    flags: Flags,
    hostname: String,
    address: Option<IpAddr>,
    /// The version that runs now; an upgrade changes it.
    kubernetes_version: String,
    /// The socket of the runtime, where it was found rather than named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cri_socket: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct File {
    name: PathBuf,
    text: String,
}

/// What can be wrong with it.
#[derive(Debug, thiserror::Error)]
pub enum SavedError {
    /// It cannot be read or written.
    #[error(transparent)]
    File(#[from] FsError),
    /// It is no such file.
    #[error("{SAVED} is damaged")]
    Damaged(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It was fine when it was saved, and is not for this kubeboot.
    #[error("the configuration in {SAVED} is not valid for this kubeboot")]
    Config(#[source] ConfigError),
}

impl Saved {
    /// What `input` came to.
    pub fn new(input: &Input, spec: &ClusterSpec) -> Self {
        Self {
            file: input.file.as_ref().map(|(name, text)| File { name: name.clone(), text: text.clone() }),
            flags: input.flags.clone(),
            hostname: input.host.hostname.clone(),
            address: input.host.address,
            kubernetes_version: spec.kubernetes_version.to_string(),
            cri_socket: spec.node.cri_socket.clone(),
        }
    }

    /// Reads it; None on a machine without.
    pub fn read(tree: &dyn Tree) -> Result<Option<Self>, SavedError> {
        let Some(content) = tree.read(Path::new(SAVED))? else { return Ok(None) };
        serde_json::from_slice(&content).map(Some).map_err(|e| SavedError::Damaged(e.into()))
    }

    /// Writes it.
    pub fn write(&self, tree: &mut dyn Tree) -> Result<(), SavedError> {
        let content = serde_json::to_vec_pretty(self).map_err(|e| SavedError::Damaged(e.into()))?;
        tree.write(Path::new(SAVED), &content, 0o600)?;
        Ok(())
    }

    /// SHA-256 in hex of what was given: the same for the same file and flags on the same machine, whichever kubeboot reads
    /// them.
    pub fn digest(&self) -> String {
        sha256(&serde_json::to_vec(self).unwrap_or_default())
    }

    /// The same with another version.
    pub fn with_version(&self, version: &KubernetesVersion) -> Self {
        Self { kubernetes_version: version.to_string(), ..self.clone() }
    }

    /// The configuration it stands for, and its warnings.
    pub fn spec(&self) -> Result<(ClusterSpec, Vec<String>), SavedError> {
        self.load(self.flags.clone())
    }

    /// The same for another run with `flags`, of which what is about a run counts.
    pub fn spec_for(&self, flags: &Flags) -> Result<(ClusterSpec, Vec<String>), SavedError> {
        self.load(self.flags.for_run(flags))
    }

    fn load(&self, flags: Flags) -> Result<(ClusterSpec, Vec<String>), SavedError> {
        let input = Input {
            file: self.file.as_ref().map(|f| (f.name.clone(), f.text.clone())),
            flags,
            host: HostDefaults { hostname: self.hostname.clone(), address: self.address },
        };
        let loaded = config::load(&input).map_err(SavedError::Config)?;
        let version = self.kubernetes_version.parse().map_err(|e| SavedError::Damaged(Box::new(e)))?;
        let found = self.cri_socket.clone().filter(|_| loaded.spec.node.cri_socket.is_none());
        let overrides =
            Overrides { kubernetes_version: Some(version), cri_socket: found.map(Some), ..Overrides::default() };
        Ok((loaded.spec.with(overrides), loaded.warnings))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::tree::MemoryTree;

    #[test]
    fn what_was_saved_comes_back_with_the_version_it_was_upgraded_to() {
        let input = Input {
            file: None,
            flags: Flags {
                kubernetes_version: Some("v1.36.2".into()),
                service_cidr: Some("10.50.0.0/16".into()),
                ..Flags::default()
            },
            host: HostDefaults { hostname: "cp1".into(), address: Some([10, 0, 0, 5].into()) },
        };
        let found = Some(Some("unix:///run/containerd/containerd.sock".into()));
        let spec = config::load(&input).unwrap().spec.with(Overrides { cri_socket: found, ..Overrides::default() });
        let mut tree = MemoryTree::empty();
        let saved = Saved::new(&input, &spec);
        saved.write(&mut tree).unwrap();
        let read = Saved::read(&tree).unwrap().unwrap();
        assert_eq!(read, saved);
        assert_eq!(read.spec().unwrap().0, spec);
        let next = read.with_version(&"v1.36.3".parse().unwrap()).spec().unwrap().0;
        assert_eq!(next.kubernetes_version.to_string(), "v1.36.3");
        assert_eq!(next.networking, spec.networking);
        assert_eq!(tree.files()[Path::new(SAVED)].mode, 0o600);
    }

    #[test]
    fn another_run_goes_on_with_it_and_says_itself_what_is_about_a_run() {
        let flags = Flags {
            service_cidr: Some("10.50.0.0/16".into()),
            skip_phases: vec!["addon".into()],
            upload_certs: true,
            ..Flags::default()
        };
        let input = Input {
            file: None,
            flags,
            host: HostDefaults { hostname: "cp1".into(), address: Some([10, 0, 0, 5].into()) },
        };
        let first = config::load(&input).unwrap().spec;
        let saved = Saved::new(&input, &first);
        let none = Flags { pod_network_cidr: Some(" ".into()), ..Flags::default() };
        assert!(!none.configure() && input.flags.configure());
        let run = Flags { ignore_preflight_errors: vec!["swap".into()], skip_token_print: true, ..Flags::default() };
        assert!(!run.configure());
        let (spec, _) = saved.spec_for(&run).unwrap();
        assert_eq!(config::differences(&first, &spec), Vec::<String>::new());
        assert_eq!(spec.skip_phases, ["addon"]);
        assert!(!spec.upload_certs && spec.hide_secrets.token);
        assert_eq!(spec.node.ignore_preflight_errors, ["swap"]);
    }

    #[test]
    fn a_machine_without_it_has_none_and_a_damaged_one_is_named() {
        let mut tree = MemoryTree::empty();
        assert!(Saved::read(&tree).unwrap().is_none());
        tree.write(Path::new(SAVED), b"{", 0o600).unwrap();
        assert_eq!(Saved::read(&tree).unwrap_err().to_string(), "/var/lib/kubeboot/input.json is damaged");
    }
}
