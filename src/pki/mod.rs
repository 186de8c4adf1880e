//! The certificate table, issuing, storing and inspecting; kubeconfigs.
//!
//! [`CERTIFICATES`] and [`KUBECONFIGS`] are the tables that everything walks. [`ensure_certificates`] and
//! [`ensure_kubeconfigs`] look at what is there, decide everything before they write anything, and never overwrite: a
//! file that cannot be used is refused by name. Files are written in an order in which a killed run leaves only states
//! that the next run completes: the key before its certificate, an authority before what it signs.

mod certificates;
mod check;
mod error;
pub mod inspect;
mod issue;
mod key;
mod kubeconfig;
mod plan;
mod renew;
mod request;
mod serving;
mod subject;
mod table;
mod user;
pub mod verifier;
#[cfg(test)]
mod tests;

use std::path::Path;

pub use certificates::ensure_certificates;
pub use error::{IssueError, PkiError, Problem, Refusal};
pub use key::{KeyError, PrivateKey, in_kubeadms_form};
pub use kubeconfig::client;
pub use kubeconfig::read::{Fields, Kubeconfig, data_in, text_in};
pub use kubeconfig::{client_pair, ensure_kubeconfigs, point_at_client_certificate};
pub use renew::{Expiration, Fate, Renewable, Renewal, expirations, renew, renewable_names, renewables};
pub use request::{generate_requests, node_request};
pub use serving::{ServingPair, serving_pair};
pub use table::{CERTIFICATES, CertificateRow, KUBECONFIGS, Kind, KubeconfigRow, Leaf, San, Usage};
pub use user::{NewUser, user_kubeconfig};

use crate::config::ClusterSpec;
use crate::host::fs::FsError;
use crate::host::paths::KUBERNETES_DIR;
use crate::host::tree::Tree;

/// What became of one row of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The file, as the node sees it: the certificate of a pair, `sa.key` of the service-account pair, a kubeconfig.
    pub file: String,
    /// Whether it was there.
    pub action: Action,
    /// What the user should know of a file that was kept although it is not what would be written today.
    pub warnings: Vec<String>,
}

/// What was done to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It is new, or the missing half of its pair was added.
    Created,
    /// It was there, is valid and stays as it is.
    Kept,
}

/// A new key for the certificates in the cluster: 32 random bytes in hex, as kubeadm has it.
///
/// # Errors
/// That the system gives no random numbers.
pub fn certificate_key() -> Result<String, error::IssueError> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| error::IssueError::Random)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A file that is to be written.
struct NewFile {
    path: std::path::PathBuf,
    content: Vec<u8>,
    mode: u32,
}

/// Makes the directory kubeadm keeps everything in as closed as kubeadm makes it; an existing one stays as it is.
fn make_kubernetes_dir(tree: &mut dyn Tree) -> Result<(), FsError> {
    tree.make_dir(Path::new(KUBERNETES_DIR), 0o700)
}

/// Writes `files` in order.
fn write_all(tree: &mut dyn Tree, files: &[NewFile]) -> Result<(), FsError> {
    for file in files {
        tree.write(&file.path, &file.content, file.mode)?;
    }
    Ok(())
}

/// The rows that `select` names by phase, in the table's order; all of them when it names none.
fn select_rows<'a, R>(
    table: &'a [R],
    phase: impl Fn(&R) -> &'static str,
    select: &[&str],
) -> Result<Vec<&'a R>, PkiError> {
    if let Some(unknown) = select.iter().find(|name| !table.iter().any(|row| phase(row) == **name)) {
        let known = table.iter().map(&phase).collect();
        return Err(PkiError::UnknownPhase { phase: (*unknown).to_owned(), known });
    }
    Ok(table.iter().filter(|row| select.is_empty() || select.contains(&phase(row))).collect())
}

/// Where the certificate and the key of a base name are, as the node sees them.
fn pair_paths(spec: &ClusterSpec, base: &str) -> (std::path::PathBuf, std::path::PathBuf) {
    (spec.certificates_dir.join(format!("{base}.crt")), spec.certificates_dir.join(format!("{base}.key")))
}
