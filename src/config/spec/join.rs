//! What `join` and `reset` need to know.

use std::path::PathBuf;

use super::{Endpoint, KubebootSpec, NodeSpec, Timeouts};
use crate::config::bootstrap_token::Token;
use crate::config::certificate_key::CertificateKey;

/// Everything `join` needs to know, with every default filled in and every value checked.
#[derive(Debug, Clone, PartialEq)]
pub struct JoinSpec {
    /// This machine. On a worker `advertise_address` is the host's, else unspecified, and nothing is served on it.
    pub node: NodeSpec,
    /// How the cluster is found and trusted.
    pub discovery: Discovery,
    /// `discovery.tlsBootstrapToken`, else the token of the discovery; None where the file of the discovery must hold
    /// credentials itself.
    pub tls_bootstrap_token: Option<Token>,
    /// `caCertPath`, as the node sees it.
    pub ca_cert_path: PathBuf,
    /// `controlPlane`: None joins a worker.
    pub control_plane: Option<ControlPlaneJoin>,
    /// `patches.directory` or `--patches`.
    pub patches_dir: Option<PathBuf>,
    /// `timeouts`.
    pub timeouts: Timeouts,
    /// `skipPhases` or `--skip-phases`.
    pub skip_phases: Vec<String>,
    /// Our own document.
    pub kubeboot: KubebootSpec,
}

impl JoinSpec {
    /// The same configuration with the runtime at `socket`; None is the default one.
    #[must_use]
    pub fn with_cri_socket(mut self, socket: Option<String>) -> Self {
        self.node.cri_socket = socket;
        self
    }
}

/// `controlPlane`; its `localAPIEndpoint` is in [`JoinSpec::node`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlPlaneJoin {
    /// `certificateKey`, which decrypts the uploaded certificates.
    pub certificate_key: Option<CertificateKey>,
}

/// `discovery`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Discovery {
    /// `bootstrapToken`: the cluster's public information, signed with a token.
    Token(TokenDiscovery),
    /// `file`: a kubeconfig.
    File(KubeconfigSource),
}

/// `discovery.bootstrapToken`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenDiscovery {
    /// `apiServerEndpoint`.
    pub endpoint: Endpoint,
    /// `token`.
    pub token: Token,
    /// `caCertHashes`: the cluster's CA must match one of them. Empty only where `unsafe_skip_ca_verification` is set.
    pub pins: Vec<CaPin>,
    /// `unsafeSkipCAVerification`: trust whatever CA a holder of the token presents.
    pub unsafe_skip_ca_verification: bool,
}

/// Where the kubeconfig of a file discovery is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KubeconfigSource {
    /// A file, relative to the working directory where it is not absolute.
    Path(PathBuf),
    /// An https URL.
    Url(String),
}

/// SHA-256 of a CA's SubjectPublicKeyInfo in DER.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CaPin(pub [u8; 32]);

impl std::fmt::Display for CaPin {
    /// `sha256:HEX`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A text that is no pin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the hash of a CA's public key; write sha256: and 64 hexadecimal digits")]
pub struct CaPinError(String);

impl std::str::FromStr for CaPin {
    type Err = CaPinError;

    fn from_str(text: &str) -> Result<Self, CaPinError> {
        let error = || CaPinError(text.to_owned());
        let (kind, digits) = text.split_once(':').ok_or_else(error)?;
        let hex = digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit());
        if !kind.eq_ignore_ascii_case("sha256") || !hex {
            return Err(error());
        }
        let mut pin = [0; 32];
        for (byte, at) in pin.iter_mut().zip((0..64).step_by(2)) {
            *byte = u8::from_str_radix(&digits[at..at + 2], 16).map_err(|_| error())?;
        }
        Ok(Self(pin))
    }
}

/// Everything `reset` takes from its configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResetSpec {
    /// `certificatesDir`, as the node sees it.
    pub certificates_dir: PathBuf,
    /// `cleanupTmpDir`: empty `/etc/kubernetes/tmp` too.
    pub cleanup_tmp_dir: bool,
    /// `criSocket`, a `unix://` URL; None when the configuration named none.
    pub cri_socket: Option<String>,
    /// `force`: do not ask.
    pub force: bool,
    /// `ignorePreflightErrors` and the flag, merged, lower case.
    pub ignore_preflight_errors: Vec<String>,
    /// `skipPhases` or `--skip-phases`.
    pub skip_phases: Vec<String>,
    /// `unmountFlags`.
    pub unmount_flags: Vec<UnmountFlag>,
    /// `timeouts`.
    pub timeouts: Timeouts,
}

/// One of `unmountFlags`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnmountFlag {
    /// `MNT_FORCE`.
    Force,
    /// `MNT_DETACH`.
    Detach,
    /// `MNT_EXPIRE`.
    Expire,
    /// `UMOUNT_NOFOLLOW`.
    NoFollow,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_reads_and_writes_and_nothing_else_passes() {
        let text = format!("sha256:{}", "0a".repeat(32));
        let pin: CaPin = text.parse().unwrap();
        assert_eq!((pin.0, pin.to_string()), ([10; 32], text.clone()));
        let upper = text.to_uppercase();
        assert_eq!(upper.parse::<CaPin>(), Ok(pin));
        let wrong =
            [text.replace("sha256", "sha512"), format!("{text}0"), text[..70].into(), "0a".repeat(32), String::new()];
        for wrong in wrong.into_iter().chain([format!("sha256:{}é", "a".repeat(62))]) {
            assert!(wrong.parse::<CaPin>().is_err(), "{wrong}");
        }
    }
}
