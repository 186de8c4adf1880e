//! The certificates that another control-plane node needs, kept for two hours in the Secret `kubeadm-certs`, each
//! encrypted with a key that is shown only to the user who joins the node.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject};
use kube::api::ObjectMeta;

use super::bootstrap_token::to_secret;
use super::object::Object;
use super::rbac;
use crate::config::ClusterSpec;
use crate::config::bootstrap_token::{BootstrapToken, Lifetime, NODE_GROUP, Token};
use crate::config::certificate_key::CertificateKey;
use crate::config::spec::EtcdSpec;
use crate::host::fs::FsError;
use crate::host::tree::Tree;
use crate::pki;

/// The Secret.
pub const SECRET_NAME: &str = "kubeadm-certs";
/// Role and binding that let joining nodes read it.
pub const ROLE_NAME: &str = "kubeadm:kubeadm-certs";

const NAMESPACE: &str = "kube-system";
/// How long the Secret lives.
const TTL: Duration = Duration::from_secs(2 * 3600);
/// kubeadm's words.
const TTL_DESCRIPTION: &str = "Proxy for managing TTL for the kubeadm-certs secret";

/// Certificates that cannot be uploaded, or not be read back.
#[derive(Debug, thiserror::Error)]
pub enum CertsError {
    /// A CA whose key is elsewhere: another node could not issue certificates with what there is here.
    #[error(
        "cannot upload certificates with an external CA: {} is there and {} is not; copy the certificates of the new \
         node to it by hand",
        certificate.display(),
        key.display()
    )]
    ExternalCa {
        /// The CA's certificate.
        certificate: PathBuf,
        /// Its key.
        key: PathBuf,
    },
    /// A file that cannot be read.
    #[error("cannot read what is to be uploaded")]
    File(#[from] FsError),
    /// The cipher refused.
    #[error("cannot encrypt {name}")]
    Encrypt {
        /// Which file.
        name: String,
    },
    /// Another key, or a value that was changed.
    #[error(
        "cannot decrypt {name} of the Secret {SECRET_NAME}: the certificate key is another one, or the value is damaged"
    )]
    Decrypt {
        /// Which file.
        name: String,
    },
    /// A value that is missing from the Secret.
    #[error("the Secret {SECRET_NAME} has no {name}")]
    Missing {
        /// Which file.
        name: String,
    },
}

/// The files that a further control-plane node needs: their names in the Secret and their paths as the node sees them.
/// A path is None where the cluster needs no such file: an external etcd without TLS.
pub fn files(spec: &ClusterSpec) -> Vec<(&'static str, Option<PathBuf>)> {
    let pki = |file: &str| Some(spec.certificates_dir.join(file));
    let shared = ["ca.crt", "ca.key", "front-proxy-ca.crt", "front-proxy-ca.key", "sa.pub", "sa.key"];
    let mut files: Vec<_> = shared.into_iter().map(|name| (name, pki(name))).collect();
    match &spec.etcd {
        EtcdSpec::Local(_) => {
            files.extend([("etcd-ca.crt", pki("etcd/ca.crt")), ("etcd-ca.key", pki("etcd/ca.key"))]);
        }
        EtcdSpec::External(etcd) => files.extend([
            ("external-etcd-ca.crt", etcd.ca_file.clone()),
            ("external-etcd.crt", etcd.cert_file.clone()),
            ("external-etcd.key", etcd.key_file.clone()),
        ]),
    }
    files
}

/// Refuses what kubeadm refuses: a cluster CA or front-proxy CA without its key.
///
/// # Errors
/// [`CertsError::ExternalCa`].
pub fn check_authorities(spec: &ClusterSpec, tree: &dyn Tree) -> Result<(), CertsError> {
    for name in ["ca", "front-proxy-ca"] {
        let path = |kind: &str| spec.certificates_dir.join(format!("{name}.{kind}"));
        let (certificate, key) = (path("crt"), path("key"));
        if tree.exists(&certificate) && !tree.exists(&key) {
            return Err(CertsError::ExternalCa { certificate, key });
        }
    }
    Ok(())
}

/// The data of the Secret: every file encrypted with `key`; a file that is not there is an empty value, as with
/// kubeadm.
///
/// # Errors
/// A file that cannot be read, random numbers that cannot be had.
pub fn seal_files(
    spec: &ClusterSpec,
    tree: &dyn Tree,
    key: &CertificateKey,
) -> Result<BTreeMap<String, ByteString>, CertsError> {
    let mut data = BTreeMap::new();
    for (name, path) in files(spec) {
        let content = path.map(|path: PathBuf| tree.read(Path::new(&path))).transpose()?.flatten();
        // kubeadm takes no ECDSA key in the form of PKCS#8, which others write.
        let content = content.map(|plain| pki::in_kubeadms_form(&plain).map_or(plain, String::into_bytes));
        let sealed = content.map(|plain| seal(&plain, key).ok_or_else(|| CertsError::Encrypt { name: name.into() }));
        data.insert(name.to_owned(), ByteString(sealed.transpose()?.unwrap_or_default()));
    }
    Ok(data)
}

/// What the Secret holds: each file decrypted, by its name in the Secret. Empty values are files that the first node
/// has not either, and are left out.
///
/// # Errors
/// A file that this cluster needs and the Secret has not; another key; a damaged value.
pub fn open_files(
    spec: &ClusterSpec,
    secret: &Secret,
    key: &CertificateKey,
) -> Result<BTreeMap<&'static str, Vec<u8>>, CertsError> {
    let mut opened = BTreeMap::new();
    for (name, _) in files(spec) {
        let sealed = secret.data.as_ref().and_then(|data| data.get(name));
        let sealed = sealed.ok_or_else(|| CertsError::Missing { name: name.into() })?;
        if !sealed.0.is_empty() {
            opened.insert(name, open(&sealed.0, key).ok_or_else(|| CertsError::Decrypt { name: name.into() })?);
        }
    }
    Ok(opened)
}

/// Nonce, ciphertext and tag, one behind the other, as kubeadm writes and reads them.
fn seal(plain: &[u8], key: &CertificateKey) -> Option<Vec<u8>> {
    let mut text = plain.to_vec();
    let cipher = RandomizedNonceKey::new(&AES_256_GCM, key.bytes()).ok()?;
    let nonce = cipher.seal_in_place_append_tag(Aad::empty(), &mut text).ok()?;
    Some([nonce.as_ref().as_slice(), &text].concat())
}

fn open(sealed: &[u8], key: &CertificateKey) -> Option<Vec<u8>> {
    let (nonce, text) = sealed.split_at_checked(NONCE_LEN)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let mut text = text.to_vec();
    let cipher = RandomizedNonceKey::new(&AES_256_GCM, key.bytes()).ok()?;
    let length = cipher.open_in_place(nonce, Aad::empty(), &mut text).ok()?.len();
    text.truncate(length);
    Some(text)
}

/// The token whose end takes the Secret with it. It opens nothing: it has no usages and no groups.
pub fn ttl_token(token: Token) -> BootstrapToken {
    BootstrapToken {
        token,
        description: TTL_DESCRIPTION.into(),
        lifetime: Lifetime::For(TTL),
        usages: vec![],
        groups: vec![],
    }
}

/// Everything that is written: the Secret of the token `ttl`, which lives from `now`; the Secret of sealed files, which
/// goes when that one goes; and what lets nodes that join read it.
pub fn objects(data: BTreeMap<String, ByteString>, ttl: &BootstrapToken, now: Timestamp) -> Vec<Object> {
    let owner = Object::new(&to_secret(ttl, now));
    let secret = Object::new(&secret(data)).owned_by(&owner);
    vec![owner, secret, Object::new(&role()), Object::new(&role_binding())]
}

fn secret(data: BTreeMap<String, ByteString>) -> Secret {
    Secret { metadata: metadata(SECRET_NAME), type_: Some("Opaque".into()), data: Some(data), ..Secret::default() }
}

/// Reading the Secret.
fn role() -> Role {
    Role {
        metadata: metadata(ROLE_NAME),
        rules: Some(vec![PolicyRule {
            api_groups: Some(vec![String::new()]),
            resources: Some(vec!["secrets".into()]),
            resource_names: Some(vec![SECRET_NAME.into()]),
            verbs: vec!["get".into()],
            ..PolicyRule::default()
        }]),
    }
}

/// That nodes which join may.
fn role_binding() -> RoleBinding {
    let subject =
        Subject { api_group: Some(rbac::GROUP.into()), kind: "Group".into(), name: NODE_GROUP.into(), namespace: None };
    RoleBinding {
        metadata: metadata(ROLE_NAME),
        role_ref: RoleRef { api_group: Some(rbac::GROUP.into()), kind: "Role".into(), name: ROLE_NAME.into() },
        subjects: Some(vec![subject]),
    }
}

fn metadata(name: &str) -> ObjectMeta {
    ObjectMeta { name: Some(name.into()), namespace: Some(NAMESPACE.into()), ..ObjectMeta::default() }
}

#[cfg(test)]
mod tests;
