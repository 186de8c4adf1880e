//! What is there, and what is to be made of it: the part of [`super::ensure_certificates`] that only reads.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use x509_parser::pem::Pem;

use super::check::{self, Doubts, Expected};
use super::error::{PkiError, Problem, Refusal};
use super::inspect::Certificate;
use super::key::PrivateKey;
use super::pair_paths;
use super::table::{CERTIFICATES, CertificateRow, Kind, Leaf};
use crate::config::ClusterSpec;
use crate::host::fs::FsError;
use crate::host::tree::Tree;

/// What is to be done for one row.
pub(super) enum Make {
    Keep,
    New,
    FromKey(PrivateKey),
}

/// What is to be done for one row, and what the user should know of files that are used.
pub(super) struct Step<'a> {
    pub(super) row: &'a CertificateRow,
    pub(super) make: Make,
    pub(super) warnings: Vec<String>,
}

pub(super) struct Plan<'a> {
    pub(super) steps: Vec<Step<'a>>,
    pub(super) authorities: BTreeMap<&'static str, Authority>,
}

/// An authority that is there: the certificates of its file, and who signs, unless the key is elsewhere.
pub(super) struct Authority {
    pub(super) certificates: Vec<Certificate>,
    pub(super) signer: Option<Box<(Certificate, PrivateKey)>>,
    /// What the user should know of it.
    pub(super) warnings: Vec<String>,
}

/// What stands of an authority.
pub(super) enum Found {
    Nothing,
    KeyOnly(PrivateKey),
    There(Authority),
}

/// Why a row cannot be planned.
pub(super) enum Stop {
    File(FsError),
    Refuse(PathBuf, Problem),
}

impl From<FsError> for Stop {
    fn from(error: FsError) -> Self {
        Self::File(error)
    }
}

/// Puts the file's name to a problem.
pub(super) fn at<T>(path: &Path, result: Result<T, Problem>) -> Result<T, Stop> {
    result.map_err(|problem| Stop::Refuse(path.to_owned(), problem))
}

/// The warnings about a file that is used in spite of them.
pub(super) fn kept(path: &Path, doubts: Doubts) -> Vec<String> {
    doubts.into_iter().map(|doubt| format!("{} {doubt}; it is kept", path.display())).collect()
}

/// What is known of an authority while the rows below it are planned.
enum Standing {
    Planned,
    There(Authority),
    Refused,
}

pub(super) struct Planner<'a> {
    spec: &'a ClusterSpec,
    tree: &'a dyn Tree,
    now: Timestamp,
    authorities: BTreeMap<&'static str, Standing>,
    refusals: Vec<Refusal>,
    /// About the files of the row that is being planned.
    warnings: Vec<String>,
}

impl<'a> Planner<'a> {
    pub(super) fn new(spec: &'a ClusterSpec, tree: &'a dyn Tree, now: Timestamp) -> Self {
        Self { spec, tree, now, authorities: BTreeMap::new(), refusals: Vec::new(), warnings: Vec::new() }
    }

    pub(super) fn plan(mut self, rows: &[&'static CertificateRow]) -> Result<Plan<'static>, PkiError> {
        let mut steps = Vec::new();
        for row in rows {
            let made = match &row.kind {
                Kind::Authority { .. } => self.authority(row, true),
                Kind::Leaf(leaf) => self.leaf(row, leaf),
                Kind::KeyPair => self.key_pair(row),
            };
            match made {
                Ok(make) => {
                    let warnings = std::mem::take(&mut self.warnings);
                    steps.extend(make.map(|make| Step { row, make, warnings }));
                }
                Err(stop) => self.refuse(row, stop)?,
            }
        }
        if !self.refusals.is_empty() {
            return Err(PkiError::Refused { refusals: self.refusals });
        }
        let there = self.authorities.into_iter().filter_map(|(phase, standing)| match standing {
            Standing::There(authority) => Some((phase, authority)),
            Standing::Planned | Standing::Refused => None,
        });
        Ok(Plan { steps, authorities: there.collect() })
    }

    fn refuse(&mut self, row: &CertificateRow, stop: Stop) -> Result<(), PkiError> {
        match stop {
            Stop::File(error) => Err(error.into()),
            Stop::Refuse(path, problem) => {
                if matches!(row.kind, Kind::Authority { .. }) {
                    self.authorities.insert(row.phase, Standing::Refused);
                }
                let remedy = remedy(self.spec, row, &problem);
                self.refusals.push(Refusal { path, problem, remedy });
                Ok(())
            }
        }
    }

    /// Plans an authority; one that is not `selected` has to be there.
    fn authority(&mut self, row: &CertificateRow, selected: bool) -> Result<Option<Make>, Stop> {
        let (crt, key) = pair_paths(self.spec, row.base);
        let make = match find_authority(self.spec, self.tree, row, self.now)? {
            Found::There(authority) => {
                self.warnings.extend_from_slice(&authority.warnings);
                self.authorities.insert(row.phase, Standing::There(authority));
                return Ok(Some(Make::Keep));
            }
            Found::Nothing | Found::KeyOnly(_) if !selected => return Err(Stop::Refuse(crt, Problem::NoAuthority)),
            Found::Nothing => Make::New,
            Found::KeyOnly(found) => {
                let signed = self.signed_by(row)?;
                if !signed.is_empty() {
                    return Err(Stop::Refuse(crt, Problem::AuthorityGone { key, signed }));
                }
                Make::FromKey(found)
            }
        };
        self.authorities.insert(row.phase, Standing::Planned);
        Ok(Some(make))
    }

    /// The certificates below an authority that are there.
    fn signed_by(&self, authority: &CertificateRow) -> Result<Vec<String>, FsError> {
        let mut signed = Vec::new();
        for row in CERTIFICATES.iter().filter(|row| row.parent() == Some(authority.phase)) {
            if self.tree.read(&pair_paths(self.spec, row.base).0)?.is_some() {
                signed.push(format!("{}.crt", row.base));
            }
        }
        Ok(signed)
    }

    /// Plans a certificate; None where its authority is refused, which says enough.
    fn leaf(&mut self, row: &CertificateRow, leaf: &Leaf) -> Result<Option<Make>, Stop> {
        if let Some(parent) = authority_row(leaf.authority).filter(|row| !self.authorities.contains_key(row.phase))
            && let Err(stop) = self.authority(parent, false)
        {
            match self.refuse(parent, stop) {
                Err(PkiError::File(error)) => return Err(error.into()),
                _ => return Ok(None),
            }
        }
        let (crt_path, key_path) = pair_paths(self.spec, row.base);
        let (crt, key) = read_pair(self.tree, &crt_path, &key_path)?;
        let authority = match self.authorities.get(leaf.authority) {
            Some(Standing::There(authority)) => Some(authority),
            Some(Standing::Planned) => None,
            Some(Standing::Refused) | None => return Ok(None),
        };
        let external = authority.is_some_and(|authority| authority.signer.is_none());
        let authority_paths = authority_row(leaf.authority).map(|row| pair_paths(self.spec, row.base));
        let (authority_crt, authority_key) = authority_paths.unwrap_or_default();
        match (crt, key) {
            (None, _) if external => Err(Stop::Refuse(crt_path, Problem::ExternalAuthority { key: authority_key })),
            (None, None) => Ok(Some(Make::New)),
            (None, Some(key)) => at(&key_path, check::key(&key)).map(|key| Some(Make::FromKey(key))),
            (Some(_), None) => Err(Stop::Refuse(crt_path, Problem::KeyMissing { key: key_path })),
            (Some(crt), Some(key)) => {
                let key = at(&key_path, check::key(&key))?;
                let expected = Expected {
                    authority: &authority_crt,
                    trusted: authority.map_or(&[], |authority| authority.certificates.as_slice()),
                    usages: leaf.usages,
                    sans: (leaf.sans)(self.spec),
                    now: self.now,
                };
                let doubts = at(&crt_path, check::pair(&crt, &key, &key_path, &expected))?;
                self.warnings.extend(kept(&crt_path, doubts));
                Ok(Some(Make::Keep))
            }
        }
    }

    fn key_pair(&mut self, row: &CertificateRow) -> Result<Option<Make>, Stop> {
        let [key_path, public_path] = row.files().map(|file| self.spec.certificates_dir.join(file));
        let (public, key) = read_pair(self.tree, &public_path, &key_path)?;
        let Some(key) = key else {
            return match public {
                None => Ok(Some(Make::New)),
                Some(_) => Err(Stop::Refuse(public_path, Problem::KeyMissing { key: key_path })),
            };
        };
        let key = at(&key_path, check::key(&key))?;
        if key.is_ed25519() {
            return Err(Stop::Refuse(key_path, Problem::Ed25519));
        }
        let Some(public) = public else { return Ok(Some(Make::FromKey(key))) };
        at(&public_path, public_of(&public, &key, &key_path))?;
        Ok(Some(Make::Keep))
    }
}

/// The row of an authority by its phase.
pub(super) fn authority_row(phase: &str) -> Option<&'static CertificateRow> {
    CERTIFICATES.iter().find(|row| row.phase == phase)
}

/// Looks at the files of an authority.
pub(super) fn find_authority(
    spec: &ClusterSpec,
    tree: &dyn Tree,
    row: &CertificateRow,
    now: Timestamp,
) -> Result<Found, Stop> {
    let (crt_path, key_path) = pair_paths(spec, row.base);
    let (crt, key) = read_pair(tree, &crt_path, &key_path)?;
    let key = key.map(|key| at(&key_path, check::key(&key))).transpose()?;
    let Some(crt) = crt else { return Ok(key.map_or(Found::Nothing, Found::KeyOnly)) };
    let certificates = at(&crt_path, check::certificates(&crt))?;
    // A file that holds several (old and new, while a CA is changed) is trusted whole; one of them signs.
    let own = match &key {
        Some(key) => certificates.iter().find(|certificate| certificate.is_for(key)),
        None => certificates.first(),
    };
    let Some(own) = own else { return Err(Stop::Refuse(crt_path, Problem::Mismatch { key: key_path })) };
    let warnings = kept(&crt_path, at(&crt_path, check::authority(own, now))?);
    let signer = key.map(|key| Box::new((own.clone(), key)));
    Ok(Found::There(Authority { signer, certificates, warnings }))
}

/// The contents of a pair, its public half first.
type Halves = (Option<Vec<u8>>, Option<Vec<u8>>);

/// Reads a pair. A key that is there but closed to this process (an ordinary user's dry run)
/// makes the pair count as absent.
fn read_pair(tree: &dyn Tree, public: &Path, key: &Path) -> Result<Halves, FsError> {
    match tree.read(key)? {
        None if tree.exists(key) => Ok((None, None)),
        content => Ok((tree.read(public)?, content)),
    }
}

/// Whether a file of public keys (PKIX or PKCS#1) holds that of `key`.
fn public_of(pem: &[u8], key: &PrivateKey, key_path: &Path) -> Result<(), Problem> {
    let mut any = false;
    for block in Pem::iter_from_buffer(pem).map_while(Result::ok) {
        let same = match block.label.as_str() {
            "PUBLIC KEY" => block.contents == key.public_der(),
            "RSA PUBLIC KEY" => block.contents == key.public_raw(),
            _ => continue,
        };
        if same {
            return Ok(());
        }
        any = true;
    }
    Err(if any { Problem::Mismatch { key: key_path.to_owned() } } else { Problem::NoPublicKey })
}

/// What the user can do about a row's problem.
fn remedy(spec: &ClusterSpec, row: &CertificateRow, problem: &Problem) -> String {
    let [key, public] = row.files().map(|file| spec.certificates_dir.join(file).display().to_string());
    match (&row.kind, problem) {
        (_, Problem::NoAuthority) => {
            format!("put {public} and {key} there, or run `kubeboot init phase certs {}` first", row.phase)
        }
        (_, Problem::ExternalAuthority { .. }) => {
            format!("have it signed where the CA's key is, and put {public} and {key} there")
        }
        (Kind::Authority { .. }, _) => format!(
            "put the matching {public} and {key} there; for a new CA, remove both and everything this one has signed"
        ),
        (Kind::Leaf(_), _) => {
            format!("put a matching {public} and {key} there, or remove both to have new ones issued")
        }
        (Kind::KeyPair, _) => format!(
            "put the matching {public} and {key} there, or remove both, which makes every service account token invalid"
        ),
    }
}
