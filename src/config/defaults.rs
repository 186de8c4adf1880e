//! The documents of `config print`: every default, and kubeadm's placeholders where only a user knows the value.

use serde_json::Value;

use super::error::ConfigError;
use super::flags::Flags;
use super::join::{JoinFlags, load_join};
use super::load::{HostDefaults, Input, load};
use super::print;
use super::reset::{ResetFlags, load_reset};
use super::spec::{ClusterSpec, Timeouts};
use super::upgrade::{UpgradeFlags, load_upgrade};
use super::wire::Secret;

const TOKEN: &str = "abcdef.0123456789abcdef";
const CRI_SOCKET: &str = "unix:///var/run/containerd/containerd.sock";

/// The spec that `config print init-defaults` shows.
///
/// # Errors
/// None: the placeholders are valid.
pub fn init_spec() -> Result<ClusterSpec, ConfigError> {
    let flags = Flags {
        node_name: Some("node".into()),
        apiserver_advertise_address: Some("1.2.3.4".into()),
        cri_socket: Some(CRI_SOCKET.into()),
        token: Secret(TOKEN.into()),
        ..Flags::default()
    };
    let mut spec = load(&Input { file: None, flags, host: HostDefaults::default() })?.spec;
    for token in &mut spec.bootstrap_tokens {
        token.description.clear();
    }
    Ok(spec)
}

/// `InitConfiguration` and `ClusterConfiguration`.
///
/// # Errors
/// None: the placeholders are valid.
pub fn init() -> Result<Vec<Value>, ConfigError> {
    let spec = init_spec()?;
    let mut cluster = print::cluster_configuration(&spec);
    // As kubeadm prints it.
    cluster["kubernetesVersion"] = spec.kubernetes_version.semver().to_string().into();
    Ok(vec![print::init_configuration(&spec), cluster])
}

/// `JoinConfiguration` for a machine called `hostname`.
///
/// # Errors
/// A host name that no node can have.
pub fn join(hostname: &str) -> Result<Vec<Value>, ConfigError> {
    let flags = JoinFlags {
        endpoint: Some("kube-apiserver:6443".into()),
        token: Some(Secret(TOKEN.into())),
        discovery_token_unsafe_skip_ca_verification: true,
        cri_socket: Some(CRI_SOCKET.into()),
        ..JoinFlags::default()
    };
    let host = HostDefaults { hostname: hostname.to_owned(), address: None };
    let spec = load_join(&Input { file: None, flags, host })?.spec;
    Ok(vec![print::join_configuration(&spec)])
}

/// `ResetConfiguration`.
///
/// # Errors
/// None: the placeholders are valid.
pub fn reset() -> Result<Vec<Value>, ConfigError> {
    let flags = ResetFlags { cri_socket: Some(CRI_SOCKET.into()), ..ResetFlags::default() };
    let spec = load_reset(&Input { file: None, flags, host: HostDefaults::default() })?.spec;
    Ok(vec![print::reset_configuration(&spec)])
}

/// `UpgradeConfiguration`.
///
/// # Errors
/// None: the defaults are valid.
pub fn upgrade() -> Result<Vec<Value>, ConfigError> {
    let mut spec = load_upgrade(&Input::<UpgradeFlags>::default())?.spec;
    spec.timeouts = Some(Timeouts::default());
    Ok(vec![print::upgrade_configuration(&spec)])
}
