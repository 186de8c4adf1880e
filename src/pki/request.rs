//! Keys and signing requests, for a CA whose key is kept elsewhere.

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::check;
use super::error::{IssueError, PkiError, Problem, Refusal};
use super::issue::{self, Request, Window};
use super::key::PrivateKey;
use super::kubeconfig::document::Client;
use super::kubeconfig::read::Kubeconfig;
use super::kubeconfig::{self, request_of};
use super::plan::{Found, Stop, at, authority_row, find_authority};
use super::table::{CERTIFICATES, CertificateRow, KUBECONFIGS, Kind, KubeconfigRow, Leaf, San, Usage};
use super::{make_kubernetes_dir, pair_paths};
use crate::config::ClusterSpec;
use crate::host::fs::{FsError, Written};
use crate::host::paths::KUBERNETES_DIR;
use crate::host::tree::Tree;

/// Makes a key and a signing request for every certificate the spec needs (`NAME.key`, `NAME.csr`), and a kubeconfig
/// without its certificate and a request beside it (`NAME.conf`, `NAME.conf.csr`) for every kubeconfig. Returns the
/// files it wrote, as the node sees them.
///
/// A key that is there is used again and stays, so that a run that was cut off is finished by the next one and a
/// certificate that has been signed meanwhile keeps fitting; requests are rewritten. No authority needs to be there;
/// one that is goes into the kubeconfigs.
///
/// # Errors
/// [`PkiError::Refused`] where a key cannot be used.
pub fn generate_requests(spec: &ClusterSpec, tree: &mut dyn Tree, now: Timestamp) -> Result<Vec<PathBuf>, PkiError> {
    let kubeconfig_dir = spec.kubeconfig_dir.as_path();
    let mut new = Writer { tree, written: Vec::new() };
    if spec.certificates_dir.starts_with(KUBERNETES_DIR) || kubeconfig_dir.starts_with(KUBERNETES_DIR) {
        make_kubernetes_dir(new.tree)?;
    }
    new.tree.make_dir(&spec.certificates_dir, 0o755)?;
    new.tree.make_dir(kubeconfig_dir, 0o700)?;
    for row in CERTIFICATES.iter().filter(|row| row.needed(spec)) {
        if let Kind::Leaf(leaf) = &row.kind {
            new.pair(spec, row, leaf, now)?;
        }
    }
    for row in KUBECONFIGS {
        new.kubeconfig(spec, row, &kubeconfig_dir.join(row.file), now)?;
    }
    Ok(new.written)
}

/// A signing request of the node `name` on `key`, as PEM: the user and the group that the cluster knows a node by, and
/// the names it serves under, if it is to serve.
///
/// # Errors
/// A name that no certificate can hold.
pub fn node_request(name: &str, sans: Vec<San>, key: &PrivateKey) -> Result<String, IssueError> {
    let usage = if sans.is_empty() { Usage::Client } else { Usage::Server };
    let request = Request {
        common_name: format!("system:node:{name}"),
        organizations: vec!["system:nodes".to_owned()],
        usages: vec![usage],
        sans,
        // Which validity a certificate gets is for its signer to say.
        window: Window::unset(),
    };
    issue::signing_request(&request, key)
}

struct Writer<'a> {
    tree: &'a mut dyn Tree,
    written: Vec<PathBuf>,
}

impl Writer<'_> {
    fn pair(&mut self, spec: &ClusterSpec, row: &CertificateRow, leaf: &Leaf, now: Timestamp) -> Result<(), PkiError> {
        let (crt, key_path) = pair_paths(spec, row.base);
        let key = match self.tree.read(&key_path)? {
            Some(pem) => usable(&key_path, check::key(&pem))?,
            None => self.new_key(spec, &key_path)?,
        };
        let request = Request {
            common_name: (leaf.common_name)(spec),
            organizations: leaf.organizations(),
            usages: leaf.usages.to_vec(),
            sans: (leaf.sans)(spec),
            window: Window::backdated(now, spec.certificate_validity)?,
        };
        self.write(&key_path, key.pem())?;
        self.request(&crt.with_extension("csr"), &request, &key)
    }

    fn kubeconfig(
        &mut self,
        spec: &ClusterSpec,
        row: &KubeconfigRow,
        path: &Path,
        now: Timestamp,
    ) -> Result<(), PkiError> {
        let authority = authority_row(kubeconfig::AUTHORITY).map(|row| find_authority(spec, self.tree, row, now));
        let authority = match authority.transpose() {
            Ok(Some(Found::There(authority))) => Some(authority),
            Ok(_) => None,
            Err(Stop::File(error)) => return Err(error.into()),
            Err(Stop::Refuse(path, problem)) => return Err(refuse(path, problem)),
        };
        let key = match self.tree.read(path)? {
            Some(text) => usable(path, key_in(self.tree, path, &text))?,
            None => {
                let key = self.new_key(spec, path)?;
                let text = kubeconfig::compose(spec, row, authority.as_ref(), Client::Key(key.pem()))
                    .map_err(|source| PkiError::Yaml { path: path.to_owned(), source })?;
                self.write(path, text.as_bytes())?;
                key
            }
        };
        let window = Window::backdated(now, spec.certificate_validity)?;
        let request = request_of(spec, row, window);
        let mut file = path.as_os_str().to_owned();
        file.push(".csr");
        self.request(Path::new(&file), &request, &key)
    }

    fn new_key(&self, spec: &ClusterSpec, path: &Path) -> Result<PrivateKey, PkiError> {
        let key = PrivateKey::generate(spec.key_algorithm);
        key.map_err(|source| PkiError::Key { path: path.to_owned(), source })
    }

    fn request(&mut self, path: &Path, request: &Request, key: &PrivateKey) -> Result<(), PkiError> {
        let pem = issue::signing_request(request, key);
        let pem = pem.map_err(|source| PkiError::Issue { path: path.to_owned(), source })?;
        Ok(self.write(path, pem.as_bytes())?)
    }

    fn write(&mut self, path: &Path, content: &[u8]) -> Result<(), FsError> {
        if self.tree.write(path, content, 0o600)? != Written::Same {
            self.written.push(path.to_owned());
        }
        Ok(())
    }
}

/// The client key in a kubeconfig.
fn key_in(tree: &dyn Tree, path: &Path, text: &[u8]) -> Result<PrivateKey, Problem> {
    let config = Kubeconfig::parse(text)?;
    let pem = match config.current()?.key(tree, path) {
        Ok(pem) => pem.unwrap_or_default(),
        Err(Stop::Refuse(_, problem)) => return Err(problem),
        Err(Stop::File(error)) => return Err(Problem::Kubeconfig { reason: error.to_string() }),
    };
    check::key(&pem)
}

fn usable<T>(path: &Path, result: Result<T, Problem>) -> Result<T, PkiError> {
    at(path, result).map_err(|stop| match stop {
        Stop::File(error) => error.into(),
        Stop::Refuse(path, problem) => refuse(path, problem),
    })
}

fn refuse(path: PathBuf, problem: Problem) -> PkiError {
    let remedy = format!("move {} away to have a new one made", path.display());
    PkiError::Refused { refusals: vec![Refusal { path, problem, remedy }] }
}
