//! [`ensure_certificates`]: looks at everything, decides everything, then writes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::error::{IssueError, PkiError};
use super::inspect;
use super::issue::{self, Request, Window};
use super::key::PrivateKey;
use super::plan::{Authority, Make, Plan, Planner, Step};
use super::table::{CERTIFICATES, CertificateRow, Kind, San};
use super::{Action, NewFile, Outcome, make_kubernetes_dir, select_rows, write_all};
use crate::config::ClusterSpec;
use crate::host::paths::KUBERNETES_DIR;
use crate::host::tree::Tree;

/// Makes the certificates and key pairs of the phases in `select` that are not there; an empty `select` means all that
/// the spec needs. Rows of etcd are passed over where etcd is external. Outcomes come in the table's order.
///
/// What is there is reused when it is valid, as kubeadm does it, and never overwritten. Halves of pairs are what a
/// killed run may leave, because the key is written before its certificate and an authority before what it signs:
///
/// | there | then |
/// |---|---|
/// | a key without its certificate (or `sa.pub`) | the missing half is made from that key |
/// | an authority's key without its certificate, but certificates below it | refused: a killed run leaves no such thing |
/// | a certificate (or `sa.pub`) without its key | refused |
/// | an authority's certificate without its key | an external CA: everything it signs must be there |
///
/// # Errors
/// [`PkiError::Refused`] lists every file that stands in the way; nothing was written then. After
/// [`PkiError::File`] the same call completes what is missing.
pub fn ensure_certificates(
    spec: &ClusterSpec,
    tree: &mut dyn Tree,
    select: &[&str],
    now: Timestamp,
) -> Result<Vec<Outcome>, PkiError> {
    let mut rows = select_rows(CERTIFICATES, |row| row.phase, select)?;
    rows.retain(|row| row.needed(spec));
    let plan = Planner::new(spec, tree, now).plan(&rows)?;
    let (files, outcomes) = make(spec, plan, now)?;
    if !files.is_empty() {
        if spec.certificates_dir.starts_with(KUBERNETES_DIR) {
            make_kubernetes_dir(tree)?;
        }
        tree.make_dir(&spec.certificates_dir, 0o755)?;
    }
    write_all(tree, &files)?;
    Ok(outcomes)
}

/// Makes keys and certificates in memory.
fn make(spec: &ClusterSpec, plan: Plan<'_>, now: Timestamp) -> Result<(Vec<NewFile>, Vec<Outcome>), PkiError> {
    let Plan { steps, mut authorities } = plan;
    let count = steps.iter().filter(|step| matches!(step.make, Make::New)).count();
    let key_error = |path: &Path| {
        let path = path.to_owned();
        move |source| PkiError::Key { path, source }
    };
    let mut keys =
        PrivateKey::generate_many(spec.key_algorithm, count).map_err(key_error(&spec.certificates_dir))?.into_iter();
    let (mut files, mut outcomes) = (Vec::new(), Vec::new());
    for Step { row, make, warnings } in steps {
        let [key_path, path] = row.files().map(|file| spec.certificates_dir.join(file));
        let file = if matches!(row.kind, Kind::KeyPair) { &key_path } else { &path };
        let file = file.display().to_string();
        let (key, is_new) = match make {
            Make::Keep => {
                outcomes.push(Outcome { file, action: Action::Kept, warnings });
                continue;
            }
            Make::New => {
                let next = keys.next().map_or_else(|| PrivateKey::generate(spec.key_algorithm), Ok);
                (next.map_err(key_error(&key_path))?, true)
            }
            Make::FromKey(key) => (key, false),
        };
        if is_new {
            files.push(NewFile { path: key_path, content: key.pem().to_vec(), mode: 0o600 });
        }
        files.push(public_half(spec, row, key, path, &mut authorities, now)?);
        outcomes.push(Outcome { file, action: Action::Created, warnings });
    }
    Ok((files, outcomes))
}

/// The public half of a row's pair; a new authority joins `authorities`.
fn public_half(
    spec: &ClusterSpec,
    row: &CertificateRow,
    key: PrivateKey,
    path: PathBuf,
    authorities: &mut BTreeMap<&'static str, Authority>,
    now: Timestamp,
) -> Result<NewFile, PkiError> {
    let fail = |source| PkiError::Issue { path: path.clone(), source };
    let (pem, mode) = match &row.kind {
        Kind::KeyPair => (key.public_pem(), 0o600),
        Kind::Authority { common_name } => {
            let request = Request {
                common_name: (*common_name).to_owned(),
                organizations: vec![],
                usages: vec![],
                sans: vec![San::Dns((*common_name).to_owned())],
                window: Window::backdated(now, spec.ca_certificate_validity)?,
            };
            let pem = issue::authority(&request, &key).map_err(fail)?;
            let certificates = inspect::read(pem.as_bytes()).map_err(|error| fail(error.into()))?;
            let signer = certificates.first().cloned().map(|own| Box::new((own, key)));
            authorities.insert(row.phase, Authority { signer, certificates, warnings: vec![] });
            (pem, 0o644)
        }
        Kind::Leaf(leaf) => {
            let request = Request {
                common_name: (leaf.common_name)(spec),
                organizations: leaf.organizations(),
                usages: leaf.usages.to_vec(),
                sans: (leaf.sans)(spec),
                window: Window::backdated(now, spec.certificate_validity)?,
            };
            let signer = authorities.get(leaf.authority).and_then(|authority| authority.signer.as_deref());
            let (authority, authority_key) = signer.ok_or_else(|| fail(IssueError::Unsigned))?;
            (issue::leaf(&request, &key, authority, authority_key).map_err(fail)?, 0o644)
        }
    };
    Ok(NewFile { path, content: pem.into_bytes(), mode })
}
