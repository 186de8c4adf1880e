//! Which certificates are renewed, how long they last, and renewing them.

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::check;
use super::error::{PkiError, Problem, Refusal};
use super::inspect::Certificate;
use super::issue::{self, Request, Window};
use super::key::PrivateKey;
use super::kubeconfig::read::Kubeconfig;
use super::kubeconfig::{self, document};
use super::pair_paths;
use super::plan::{Authority, Found, Stop, at, authority_row, find_authority};
use super::table::{CERTIFICATES, CertificateRow, KUBECONFIGS, Kind, KubeconfigRow};
use crate::config::ClusterSpec;
use crate::host::paths::KUBERNETES_DIR;
use crate::host::tree::Tree;
use crate::yaml;

/// A certificate that is renewed: one of its own files, or one inside a kubeconfig.
#[derive(Clone, Copy)]
pub struct Renewable {
    /// kubeadm's name: the phase of a certificate, the file of a kubeconfig.
    pub name: &'static str,
    of: Of,
}

#[derive(Clone, Copy)]
enum Of {
    Certificate(&'static CertificateRow, &'static str),
    Kubeconfig(&'static KubeconfigRow),
}

/// The kubeconfig that is not renewed here: the kubelet does that itself.
const KUBELET: &str = "kubelet";

/// Everything that is renewed in a cluster of this spec, by name, as kubeadm lists it.
pub fn renewables(spec: &ClusterSpec) -> Vec<Renewable> {
    let mut all: Vec<Renewable> = every_renewable().filter(|one| one.is_needed(spec)).collect();
    all.sort_by_key(|one| one.name);
    all
}

/// The names of everything that is renewed, by name.
pub fn renewable_names() -> Vec<&'static str> {
    let mut names: Vec<&str> = every_renewable().map(|one| one.name).collect();
    names.sort_unstable();
    names
}

fn every_renewable() -> impl Iterator<Item = Renewable> {
    let certificates = CERTIFICATES
        .iter()
        .filter_map(|row| Some(Renewable { name: row.phase, of: Of::Certificate(row, row.parent()?) }));
    let kubeconfigs = KUBECONFIGS.iter().filter(|row| row.phase != KUBELET);
    certificates.chain(kubeconfigs.map(|row| Renewable { name: row.file, of: Of::Kubeconfig(row) }))
}

impl Renewable {
    /// What it is, in kubeadm's words.
    pub fn title(&self) -> String {
        match self.of {
            Of::Certificate(row, _) => row.title.trim_start_matches("the ").to_owned(),
            Of::Kubeconfig(row) => {
                format!("certificate embedded in the {}", row.title.trim_start_matches("a "))
            }
        }
    }

    /// The phase name of the authority that signs it.
    pub fn authority(&self) -> &'static str {
        match self.of {
            Of::Certificate(_, authority) => authority,
            Of::Kubeconfig(_) => kubeconfig::AUTHORITY,
        }
    }

    /// The file that holds the certificate.
    pub fn path(&self, spec: &ClusterSpec) -> PathBuf {
        match self.of {
            Of::Certificate(row, _) => pair_paths(spec, row.base).0,
            Of::Kubeconfig(row) => Path::new(KUBERNETES_DIR).join(row.file),
        }
    }

    /// Whether it is inside a kubeconfig, which is this machine's wherever the certificates are.
    pub fn is_kubeconfig(&self) -> bool {
        matches!(self.of, Of::Kubeconfig(_))
    }

    fn is_needed(&self, spec: &ClusterSpec) -> bool {
        match self.of {
            Of::Certificate(row, _) => row.needed(spec),
            Of::Kubeconfig(_) => true,
        }
    }

    /// The certificate that is there now; None where its file is missing.
    ///
    /// # Errors
    /// That the file cannot be read or holds none.
    pub fn current(&self, spec: &ClusterSpec, tree: &dyn Tree) -> Result<Option<Certificate>, PkiError> {
        self.look(spec, tree).map_err(|stop| refused(vec![self.stopped(spec, stop)]))
    }

    fn look(&self, spec: &ClusterSpec, tree: &dyn Tree) -> Result<Option<Certificate>, Stop> {
        let path = self.path(spec);
        let Some(content) = tree.read(&path)? else { return Ok(None) };
        let pem = match self.of {
            Of::Certificate(..) => content,
            Of::Kubeconfig(_) => {
                let config = at(&path, Kubeconfig::parse(&content))?;
                let pem = at(&path, config.current())?.certificate(tree, &path)?;
                pem.ok_or_else(|| Stop::Refuse(path.clone(), Problem::NoClient))?
            }
        };
        at(&path, check::certificates(&pem)).map(|certificates| certificates.into_iter().next())
    }

    fn stopped(&self, spec: &ClusterSpec, stop: Stop) -> Result<Refusal, PkiError> {
        match stop {
            Stop::File(error) => Err(error.into()),
            Stop::Refuse(path, problem) => {
                let phase = match self.of {
                    Of::Certificate(row, _) => format!("certs {}", row.phase),
                    Of::Kubeconfig(row) => format!("kubeconfig {}", row.phase),
                };
                let file = self.path(spec);
                let remedy = format!("remove {} and run `kubeboot init phase {phase}`", file.display());
                Ok(Refusal { path, problem, remedy })
            }
        }
    }
}

/// The first error among them, else all refusals as one.
fn refused(found: Vec<Result<Refusal, PkiError>>) -> PkiError {
    match found.into_iter().collect::<Result<Vec<_>, _>>() {
        Ok(refusals) => PkiError::Refused { refusals },
        Err(error) => error,
    }
}

/// How long a certificate lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiration {
    /// kubeadm's name.
    pub name: &'static str,
    /// When it ends; None where it is missing.
    pub at: Option<Timestamp>,
    /// The phase name of the authority that signs it; None for an authority.
    pub authority: Option<&'static str>,
    /// The key that signs it is not here.
    pub external: bool,
}

/// How long everything lasts: what is renewed, and the authorities, each by name.
///
/// # Errors
/// Files that cannot be read, all of them.
pub fn expirations(spec: &ClusterSpec, tree: &dyn Tree) -> Result<(Vec<Expiration>, Vec<Expiration>), PkiError> {
    let (mut certificates, mut authorities, mut stopped) = (Vec::new(), Vec::new(), Vec::new());
    for one in renewables(spec) {
        let external = is_external(spec, tree, one.authority())?;
        match one.look(spec, tree) {
            Ok(found) => certificates.push(Expiration {
                name: one.name,
                at: found.map(|certificate| certificate.not_after),
                authority: Some(one.authority()),
                external,
            }),
            Err(stop) => stopped.push(one.stopped(spec, stop)),
        }
    }
    let mut rows: Vec<&CertificateRow> = CERTIFICATES.iter().filter(|row| row.needed(spec)).collect();
    rows.retain(|row| matches!(row.kind, Kind::Authority { .. }));
    rows.sort_by_key(|row| row.phase);
    for row in rows {
        let path = pair_paths(spec, row.base).0;
        let external = is_external(spec, tree, row.phase)?;
        let at = match tree.read(&path)?.map(|pem| check::certificates(&pem)) {
            None => None,
            Some(Ok(found)) => found.first().map(|certificate| certificate.not_after),
            Some(Err(problem)) => {
                let remedy = "put the certificate of the CA there".to_owned();
                stopped.push(Ok(Refusal { path, problem, remedy }));
                continue;
            }
        };
        authorities.push(Expiration { name: row.phase, at, authority: None, external });
    }
    if stopped.is_empty() { Ok((certificates, authorities)) } else { Err(refused(stopped)) }
}

/// Whether an authority's certificate is here and its key is not.
fn is_external(spec: &ClusterSpec, tree: &dyn Tree, phase: &str) -> Result<bool, PkiError> {
    let Some(row) = authority_row(phase) else { return Ok(false) };
    let (crt, key) = pair_paths(spec, row.base);
    Ok(tree.read(&crt)?.is_some() && !tree.exists(&key))
}

/// What became of one renewal.
pub struct Renewal {
    /// What was to be renewed.
    pub renewable: Renewable,
    /// What was done.
    pub fate: Fate,
    /// What the user should know of the authority that has signed it.
    pub warnings: Vec<String>,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// There is a new certificate.
    Renewed(Box<Certificate>),
    /// Nothing: the authority's key is elsewhere.
    External,
    /// Nothing: there is no certificate to renew.
    Missing,
}

/// Renews what is `wanted`, whatever time is left: a new key each, and a certificate that says what the old one says.
/// Kubeconfigs keep everything but the client's certificate, its key and the cluster's CA.
///
/// Only `tree` is written, the two files of a pair one after the other; give it memory and put that in place whole.
///
/// # Errors
/// [`PkiError::Refused`] lists every file that stands in the way; nothing was written then.
pub fn renew(
    spec: &ClusterSpec,
    tree: &mut dyn Tree,
    wanted: &[Renewable],
    now: Timestamp,
) -> Result<Vec<Renewal>, PkiError> {
    let (mut plan, mut stopped) = (Vec::new(), Vec::new());
    for one in wanted {
        let there = one.look(spec, tree).and_then(|old| match old {
            // Of what is not there no authority is asked for.
            None => Ok(None),
            Some(old) => authority(spec, tree, one.authority(), now).map(|authority| Some((authority, old))),
        });
        match there {
            Ok(there) => plan.push((*one, there)),
            Err(stop) => stopped.push(one.stopped(spec, stop)),
        }
    }
    if !stopped.is_empty() {
        return Err(refused(stopped));
    }
    let signs =
        |there: &Option<(Authority, _)>| there.as_ref().is_some_and(|(authority, _)| authority.signer.is_some());
    let count = plan.iter().filter(|(_, there)| signs(there)).count();
    let keys = PrivateKey::generate_many(spec.key_algorithm, count);
    let mut keys = keys.map_err(|source| PkiError::Key { path: spec.certificates_dir.clone(), source })?.into_iter();
    let mut renewals = Vec::new();
    for (renewable, there) in plan {
        let Some((authority, old)) = there else {
            renewals.push(Renewal { renewable, fate: Fate::Missing, warnings: vec![] });
            continue;
        };
        let fate = match authority.signer.as_ref().and_then(|_| keys.next()) {
            None => Fate::External,
            Some(key) => {
                let request = copy(&old, renewable.window(spec, &authority, now)?);
                Fate::Renewed(Box::new(renewable.replace(spec, tree, &authority, &request, &key)?))
            }
        };
        renewals.push(Renewal { renewable, fate, warnings: authority.warnings });
    }
    Ok(renewals)
}

/// An authority that has to be there; its key need not.
fn authority(spec: &ClusterSpec, tree: &dyn Tree, phase: &str, now: Timestamp) -> Result<Authority, Stop> {
    let missing = |path| Stop::Refuse(path, Problem::NoAuthority);
    let row = authority_row(phase).ok_or_else(|| missing(spec.certificates_dir.clone()))?;
    match find_authority(spec, tree, row, now)? {
        Found::There(authority) => Ok(authority),
        Found::Nothing | Found::KeyOnly(_) => Err(missing(pair_paths(spec, row.base).0)),
    }
}

impl Renewable {
    fn window(&self, spec: &ClusterSpec, authority: &Authority, now: Timestamp) -> Result<Window, PkiError> {
        match self.of {
            Of::Certificate(..) => Window::backdated(now, spec.certificate_validity),
            Of::Kubeconfig(_) => kubeconfig::window(spec, authority, now),
        }
    }

    fn replace(
        &self,
        spec: &ClusterSpec,
        tree: &mut dyn Tree,
        authority: &Authority,
        request: &Request,
        key: &PrivateKey,
    ) -> Result<Certificate, PkiError> {
        let path = self.path(spec);
        let fail = |source| PkiError::Issue { path: path.clone(), source };
        let pem = kubeconfig::sign(request, key, authority).map_err(fail)?;
        let certificate = issue::read_back(&pem).map_err(fail)?;
        match self.of {
            Of::Certificate(row, _) => {
                tree.write(&pair_paths(spec, row.base).1, key.pem(), 0o600)?;
                tree.write(&path, pem.as_bytes(), 0o644)?;
            }
            Of::Kubeconfig(_) => {
                let before = tree.read(&path)?.unwrap_or_default();
                let trusted = kubeconfig::trusted_pem(authority);
                let config = document::replace(&before, &pem, key.pem(), &trusted);
                let config =
                    config.map_err(|problem| refused(vec![self.stopped(spec, Stop::Refuse(path.clone(), problem))]))?;
                let text = yaml::to_string(&config).map_err(|source| PkiError::Yaml { path: path.clone(), source })?;
                tree.write(&path, text.as_bytes(), 0o600)?;
            }
        }
        Ok(certificate)
    }
}

/// A request for what `old` says: its name, organizations, uses and alternative names.
fn copy(old: &Certificate, window: Window) -> Request {
    Request {
        common_name: old.common_name.clone().unwrap_or_default(),
        organizations: old.organizations.clone(),
        usages: old.usages.clone().unwrap_or_default(),
        sans: old.sans.clone(),
        window,
    }
}
