//! [`ensure_kubeconfigs`]: the files with which components and people talk to the API server.

pub mod client;
pub(super) mod document;
pub mod read;

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::check::{self, Expected};
use super::error::{IssueError, PkiError, Problem, Refusal};
use super::inspect;
use super::issue::{self, Request, Window};
use super::key::PrivateKey;
use super::plan::{Authority, Found, Stop, at, authority_row, find_authority, kept};
use super::table::{KUBECONFIGS, KubeconfigRow, Usage};
use super::{Action, NewFile, Outcome, make_kubernetes_dir, pair_paths, select_rows, write_all};
use crate::config::ClusterSpec;
use crate::host::paths::KUBERNETES_DIR;
use crate::host::tree::Tree;
use crate::yaml::EmitError;
use document::{Client, Parts};
use read::Kubeconfig;

/// The authority of clients.
pub(super) const AUTHORITY: &str = "ca";

/// Makes the kubeconfigs of the phases in `select` that are not there; an empty `select` means all. Everything is
/// embedded; the client certificates are valid from the CA's own start on, as kubeadm's are.
///
/// One that is there is kept when it trusts this cluster's CA and its client certificate, if it has one, is valid and
/// signed by that CA. Another server or user is a warning in the outcome, as kubeadm has it. Without `ca.key` (an
/// external CA) all of them must be there.
///
/// # Errors
/// [`PkiError::Refused`] lists every file that stands in the way; nothing was written then. After
/// [`PkiError::File`] the same call completes what is missing.
pub fn ensure_kubeconfigs(
    spec: &ClusterSpec,
    tree: &mut dyn Tree,
    select: &[&str],
    now: Timestamp,
) -> Result<Vec<Outcome>, PkiError> {
    let dir = spec.kubeconfig_dir.as_path();
    let rows = select_rows(KUBECONFIGS, |row| row.phase, select)?;
    let authority = authority(spec, tree, now)?;
    let (mut plan, mut refusals) = (Vec::new(), Vec::new());
    for row in rows {
        let path = dir.join(row.file);
        match examine(spec, tree, row, &path, &authority, now) {
            Ok(existing) => plan.push((row, path, existing)),
            Err(Stop::File(error)) => return Err(error.into()),
            Err(Stop::Refuse(at, problem)) => refusals.push(refusal(&path, at, problem)),
        }
    }
    if !refusals.is_empty() {
        return Err(PkiError::Refused { refusals });
    }
    let (files, mut outcomes) = make(spec, plan, &authority, now)?;
    if let Some(first) = outcomes.first_mut() {
        first.warnings.splice(0..0, authority.warnings);
    }
    if !files.is_empty() {
        match dir == Path::new(KUBERNETES_DIR) {
            true => make_kubernetes_dir(tree)?,
            false => tree.make_dir(dir, 0o700)?,
        }
    }
    write_all(tree, &files)?;
    Ok(outcomes)
}

/// The CA that kubeconfigs embed; it has to be there.
pub(super) fn authority(spec: &ClusterSpec, tree: &dyn Tree, now: Timestamp) -> Result<Authority, PkiError> {
    let (crt, key) = pair_paths(spec, AUTHORITY);
    let refuse = |path, problem, remedy| Err(PkiError::Refused { refusals: vec![Refusal { path, problem, remedy }] });
    let remedy = format!("put the cluster's {} and {} there", crt.display(), key.display());
    let Some(row) = authority_row(AUTHORITY) else { return refuse(crt, Problem::NoAuthority, remedy) };
    match find_authority(spec, tree, row, now) {
        Ok(Found::There(authority)) => Ok(authority),
        Ok(Found::Nothing | Found::KeyOnly(_)) => {
            refuse(crt, Problem::NoAuthority, "run `kubeboot init phase certs ca` first".to_owned())
        }
        Err(Stop::File(error)) => Err(error.into()),
        Err(Stop::Refuse(path, problem)) => refuse(path, problem, remedy),
    }
}

/// The kubeconfig `text` of `path` with its current user's certificate and key in `file`, as kubeadm leaves that of a
/// kubelet which rotates them; None when it is so already.
///
/// # Errors
/// A kubeconfig that cannot be read.
pub fn point_at_client_certificate(path: &Path, text: &[u8], file: &Path) -> Result<Option<String>, PkiError> {
    let pointed = document::point_at(text, file).map_err(|problem| {
        let remedy = format!("remove {} and run `kubeboot init phase kubeconfig kubelet`", path.display());
        PkiError::Refused { refusals: vec![Refusal { path: path.to_owned(), problem, remedy }] }
    })?;
    let yaml =
        |config| crate::yaml::to_string(&config).map_err(|source| PkiError::Yaml { path: path.to_owned(), source });
    pointed.map(yaml).transpose()
}

/// A certificate with its chain, and its key, both PEM.
pub type ClientPair = (Vec<u8>, Vec<u8>);

/// The client certificate and the key of the kubeconfig `text` of `path`, in it or in files it names; None where it has
/// other means, or none.
///
/// # Errors
/// A kubeconfig that cannot be read, and files that are not there.
pub fn client_pair(path: &Path, text: &[u8], tree: &dyn Tree) -> Result<Option<ClientPair>, PkiError> {
    let refuse = |path: PathBuf, problem| {
        let remedy = format!("remove {} and run `kubeboot init phase kubeconfig kubelet`", path.display());
        PkiError::Refused { refusals: vec![Refusal { path, problem, remedy }] }
    };
    let stopped = |stop| match stop {
        Stop::File(error) => error.into(),
        Stop::Refuse(path, problem) => refuse(path, problem),
    };
    let config = Kubeconfig::parse(text).map_err(|problem| refuse(path.to_owned(), problem))?;
    let current = config.current().map_err(|problem| refuse(path.to_owned(), problem))?;
    let (certificate, key) = (current.certificate(tree, path), current.key(tree, path));
    Ok(certificate.map_err(stopped)?.zip(key.map_err(stopped)?))
}

fn refusal(file: &Path, path: PathBuf, problem: Problem) -> Refusal {
    let remedy = match problem {
        Problem::ExternalAuthority { .. } | Problem::NoClient => {
            "make it where the CA's key is, and put it there".to_owned()
        }
        _ => format!("remove {} to have a new one written", file.display()),
    };
    Refusal { path, problem, remedy }
}

/// None where the file is to be made, else the warnings about the one that is there.
fn examine(
    spec: &ClusterSpec,
    tree: &dyn Tree,
    row: &KubeconfigRow,
    path: &Path,
    authority: &Authority,
    now: Timestamp,
) -> Result<Option<Vec<String>>, Stop> {
    let (authority_crt, authority_key) = pair_paths(spec, AUTHORITY);
    let Some(text) = tree.read(path)? else {
        return match authority.signer {
            Some(_) => Ok(None),
            None => Err(Stop::Refuse(path.to_owned(), Problem::ExternalAuthority { key: authority_key })),
        };
    };
    let config = at(path, Kubeconfig::parse(&text))?;
    let current = at(path, config.current())?;
    let trusted = at(path, check::certificates(&current.trusted(tree, path)?.unwrap_or_default()))?;
    let same = trusted.iter().all(|one| authority.certificates.contains(one))
        && authority.certificates.iter().all(|one| trusted.contains(one));
    if !same {
        return Err(Stop::Refuse(path.to_owned(), Problem::OtherTrust { authority: authority_crt }));
    }
    let certificate = current.certificate(tree, path)?;
    let mut warnings = Vec::new();
    match &certificate {
        Some(certificate) => {
            let key = at(path, check::key(&current.key(tree, path)?.unwrap_or_default()))?;
            let expected = Expected {
                authority: &authority_crt,
                trusted: &authority.certificates,
                usages: &[Usage::Client],
                sans: vec![],
                now,
            };
            let checked = check::pair(certificate, &key, path, &expected);
            let doubts = at(path, checked.map_err(|problem| Problem::Client(Box::new(problem))))?;
            let of_client = doubts.into_iter().map(|doubt| format!("holds a client certificate that {doubt}"));
            warnings.extend(kept(path, of_client.collect()));
        }
        // A file that waits for its certificate, as `certs generate-csr` leaves it.
        None if authority.signer.is_none() && !current.has_other_means() => {
            return Err(Stop::Refuse(path.to_owned(), Problem::NoClient));
        }
        None => {}
    }
    let server = format!("https://{}", (row.server)(spec));
    if current.server != server {
        warnings.push(format!("{} goes to {}, not to {server}; it is kept", path.display(), current.server));
    }
    let expected_user = (row.user)(spec);
    let name = certificate.and_then(|pem| inspect::read(&pem).ok()?.into_iter().next()?.common_name);
    let name = name.unwrap_or_else(|| current.user_name.to_owned());
    if name != expected_user {
        warnings.push(format!("{} is for user {name}, not for {expected_user}; it is kept", path.display()));
    }
    Ok(Some(warnings))
}

fn make(
    spec: &ClusterSpec,
    plan: Vec<(&KubeconfigRow, PathBuf, Option<Vec<String>>)>,
    authority: &Authority,
    now: Timestamp,
) -> Result<(Vec<NewFile>, Vec<Outcome>), PkiError> {
    let count = plan.iter().filter(|(_, _, existing)| existing.is_none()).count();
    let mut keys = PrivateKey::generate_many(spec.key_algorithm, count)
        .map_err(|source| PkiError::Key { path: KUBERNETES_DIR.into(), source })?
        .into_iter();
    let (mut files, mut outcomes) = (Vec::new(), Vec::new());
    for (row, path, existing) in plan {
        let file = path.display().to_string();
        if let Some(warnings) = existing {
            outcomes.push(Outcome { file, action: Action::Kept, warnings });
            continue;
        }
        let key = keys.next().map_or_else(|| PrivateKey::generate(spec.key_algorithm), Ok);
        let key = key.map_err(|source| PkiError::Key { path: path.clone(), source })?;
        let fail = |source| PkiError::Issue { path: path.clone(), source };
        let request = request_of(spec, row, window(spec, authority, now)?);
        let certificate = sign(&request, &key, authority).map_err(fail)?;
        let client = Client::Certificate { certificate: &certificate, key: key.pem() };
        let content = compose(spec, row, Some(authority), client)
            .map_err(|source| PkiError::Yaml { path: path.clone(), source })?;
        files.push(NewFile { path, content: content.into_bytes(), mode: 0o600 });
        outcomes.push(Outcome { file, action: Action::Created, warnings: vec![] });
    }
    Ok((files, outcomes))
}

/// What the client certificate of a row says.
pub(super) fn request_of(spec: &ClusterSpec, row: &KubeconfigRow, window: Window) -> Request {
    Request {
        common_name: (row.user)(spec),
        organizations: row.organization.iter().map(|organization| (*organization).to_owned()).collect(),
        usages: vec![Usage::Client],
        sans: vec![],
        window,
    }
}

/// From the CA's own start on, as kubeadm has it for clients.
pub(super) fn window(spec: &ClusterSpec, authority: &Authority, now: Timestamp) -> Result<Window, PkiError> {
    match authority.signer.as_deref() {
        Some((own, _)) => Window::from(own.not_before, now, spec.certificate_validity),
        None => Window::backdated(now, spec.certificate_validity),
    }
}

/// Signs with the authority's key, which has to be there.
pub(super) fn sign(request: &Request, key: &PrivateKey, authority: &Authority) -> Result<String, IssueError> {
    let (own, own_key) = authority.signer.as_deref().ok_or(IssueError::Unsigned)?;
    issue::leaf(request, key, own, own_key)
}

/// The text of a row's kubeconfig.
pub(super) fn compose(
    spec: &ClusterSpec,
    row: &KubeconfigRow,
    authority: Option<&Authority>,
    client: Client<'_>,
) -> Result<String, EmitError> {
    let (user, server) = ((row.user)(spec), format!("https://{}", (row.server)(spec)));
    let trusted = authority.map(trusted_pem);
    let trusted = trusted.as_deref();
    document::compose(&Parts { cluster: &spec.cluster_name, server, user: &user, trusted, client })
}

/// Every certificate of an authority's file.
pub(super) fn trusted_pem(authority: &Authority) -> String {
    authority.certificates.iter().map(inspect::Certificate::pem).collect()
}
