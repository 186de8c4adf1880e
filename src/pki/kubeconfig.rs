//! [`ensure_kubeconfigs`]: the files with which components and people talk to the API server.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::check::{self, Expected};
use super::error::{IssueError, PkiError, Problem, Refusal};
use super::inspect;
use super::issue::{self, Request, Window};
use super::key::PrivateKey;
use super::plan::{Authority, Found, Stop, at, authority_row, find_authority};
use super::table::{KUBECONFIGS, KubeconfigRow, Usage};
use super::{Action, NewFile, Outcome, make_kubernetes_dir, pair_paths, select_rows, write_all};
use crate::config::ClusterSpec;
use crate::host::paths::KUBERNETES_DIR;
use crate::host::tree::Tree;
use crate::yaml;

/// The authority of clients.
const AUTHORITY: &str = "ca";

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
    let rows = select_rows(KUBECONFIGS, |row| row.phase, select)?;
    let authority = authority(spec, tree, now)?;
    let (mut plan, mut refusals) = (Vec::new(), Vec::new());
    for row in rows {
        match examine(spec, tree, row, &authority, now) {
            Ok(existing) => plan.push((row, existing)),
            Err(Stop::File(error)) => return Err(error.into()),
            Err(Stop::Refuse(path, problem)) => refusals.push(refusal(row, path, problem)),
        }
    }
    if !refusals.is_empty() {
        return Err(PkiError::Refused { refusals });
    }
    let (files, outcomes) = make(spec, plan, &authority, now)?;
    if !files.is_empty() {
        make_kubernetes_dir(tree)?;
    }
    write_all(tree, &files)?;
    Ok(outcomes)
}

/// A kubeconfig as far as it is read and written here. Holds a private key, hence no Debug.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Kubeconfig {
    #[serde(rename = "apiVersion")]
    api_version: String,
    clusters: Vec<NamedCluster>,
    contexts: Vec<NamedContext>,
    current_context: String,
    kind: String,
    users: Vec<NamedUser>,
}

#[derive(Serialize, Deserialize)]
struct NamedCluster {
    cluster: Cluster,
    name: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_authority: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_authority_data: Option<String>,
    server: String,
}

#[derive(Serialize, Deserialize)]
struct NamedContext {
    context: Context,
    name: String,
}

#[derive(Serialize, Deserialize)]
struct Context {
    cluster: String,
    user: String,
}

#[derive(Serialize, Deserialize)]
struct NamedUser {
    name: String,
    user: User,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct User {
    #[serde(skip_serializing_if = "Option::is_none")]
    client_certificate: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_certificate_data: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_key: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_key_data: Option<String>,
}

/// The CA that kubeconfigs embed; it has to be there.
fn authority(spec: &ClusterSpec, tree: &dyn Tree, now: Timestamp) -> Result<Authority, PkiError> {
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

fn path_of(row: &KubeconfigRow) -> PathBuf {
    Path::new(KUBERNETES_DIR).join(row.file)
}

fn refusal(row: &KubeconfigRow, path: PathBuf, problem: Problem) -> Refusal {
    let remedy = match problem {
        Problem::ExternalAuthority { .. } => "make it where the CA's key is, and put it there".to_owned(),
        _ => format!("remove {} to have a new one written", path_of(row).display()),
    };
    Refusal { path, problem, remedy }
}

/// None where the file is to be made, else the warnings about the one that is there.
fn examine(
    spec: &ClusterSpec,
    tree: &dyn Tree,
    row: &KubeconfigRow,
    authority: &Authority,
    now: Timestamp,
) -> Result<Option<Vec<String>>, Stop> {
    let path = path_of(row);
    let (authority_crt, authority_key) = pair_paths(spec, AUTHORITY);
    let Some(text) = tree.read(&path)? else {
        return match authority.signer {
            Some(_) => Ok(None),
            None => Err(Stop::Refuse(path, Problem::ExternalAuthority { key: authority_key })),
        };
    };
    let config = at(&path, parse(&text))?;
    let (cluster, user_name, user) = at(&path, current(&config))?;
    let trusted = embedded(tree, &path, &cluster.certificate_authority, &cluster.certificate_authority_data)?;
    let trusted = at(&path, check::certificates(&trusted.unwrap_or_default()))?;
    let same = trusted.iter().all(|one| authority.certificates.contains(one))
        && authority.certificates.iter().all(|one| trusted.contains(one));
    if !same {
        return Err(Stop::Refuse(path, Problem::OtherTrust { authority: authority_crt }));
    }
    let certificate = embedded(tree, &path, &user.client_certificate, &user.client_certificate_data)?;
    if let Some(certificate) = &certificate {
        let key = embedded(tree, &path, &user.client_key, &user.client_key_data)?;
        let key = at(&path, check::key(&key.unwrap_or_default()))?;
        let expected = Expected {
            authority: &authority_crt,
            trusted: &authority.certificates,
            usages: &[Usage::Client],
            sans: vec![],
            now,
        };
        let checked = check::pair(certificate, &key, &path, &expected);
        at(&path, checked.map_err(|problem| Problem::Client(Box::new(problem))))?;
    }
    let mut warnings = Vec::new();
    let server = format!("https://{}", (row.server)(spec));
    if cluster.server != server {
        warnings.push(format!("{} goes to {}, not to {server}; it is kept", path.display(), cluster.server));
    }
    let expected_user = (row.user)(spec);
    let name = certificate.and_then(|pem| inspect::read(&pem).ok()?.into_iter().next()?.common_name);
    let name = name.unwrap_or_else(|| user_name.to_owned());
    if name != expected_user {
        warnings.push(format!("{} is for user {name}, not for {expected_user}; it is kept", path.display()));
    }
    Ok(Some(warnings))
}

/// The cluster and the user that the current context names.
fn current(config: &Kubeconfig) -> Result<(&Cluster, &str, &User), Problem> {
    let lacks = |what: &str, name: &str| Problem::Kubeconfig { reason: format!("it has no {what} {name:?}") };
    let name = &config.current_context;
    let context = config.contexts.iter().find(|context| context.name == *name).ok_or_else(|| lacks("context", name))?;
    let Context { cluster, user } = &context.context;
    let cluster = config.clusters.iter().find(|c| c.name == *cluster).ok_or_else(|| lacks("cluster", cluster))?;
    let named = config.users.iter().find(|u| u.name == *user).ok_or_else(|| lacks("user", user))?;
    Ok((&cluster.cluster, user, &named.user))
}

/// What a kubeconfig holds as data, or in a file that it names (relative to its own directory).
fn embedded(
    tree: &dyn Tree,
    config: &Path,
    file: &Option<PathBuf>,
    data: &Option<String>,
) -> Result<Option<Vec<u8>>, Stop> {
    let refuse = |reason: String| Stop::Refuse(config.to_owned(), Problem::Kubeconfig { reason });
    if let Some(data) = data {
        let bytes = STANDARD.decode(data).map_err(|_| refuse("data in it is not base64".into()))?;
        return Ok(Some(bytes));
    }
    let Some(file) = file else { return Ok(None) };
    let path = config.parent().unwrap_or(Path::new("/")).join(file);
    match tree.read(&path)? {
        Some(bytes) => Ok(Some(bytes)),
        None => Err(refuse(format!("it names {}, which is not there", path.display()))),
    }
}

fn make(
    spec: &ClusterSpec,
    plan: Vec<(&KubeconfigRow, Option<Vec<String>>)>,
    authority: &Authority,
    now: Timestamp,
) -> Result<(Vec<NewFile>, Vec<Outcome>), PkiError> {
    let count = plan.iter().filter(|(_, existing)| existing.is_none()).count();
    let mut keys = PrivateKey::generate_many(spec.key_algorithm, count)
        .map_err(|source| PkiError::Key { path: KUBERNETES_DIR.into(), source })?
        .into_iter();
    let (mut files, mut outcomes) = (Vec::new(), Vec::new());
    for (row, existing) in plan {
        let path = path_of(row);
        let file = path.display().to_string();
        if let Some(warnings) = existing {
            outcomes.push(Outcome { file, action: Action::Kept, warnings });
            continue;
        }
        let key = keys.next().map_or_else(|| PrivateKey::generate(spec.key_algorithm), Ok);
        let key = key.map_err(|source| PkiError::Key { path: path.clone(), source })?;
        let content = issue_one(spec, row, &key, authority, now)?;
        files.push(NewFile { path, content: content.into_bytes(), mode: 0o600 });
        outcomes.push(Outcome { file, action: Action::Created, warnings: vec![] });
    }
    Ok((files, outcomes))
}

/// The text of one kubeconfig with a new client certificate in it.
fn issue_one(
    spec: &ClusterSpec,
    row: &KubeconfigRow,
    key: &PrivateKey,
    authority: &Authority,
    now: Timestamp,
) -> Result<String, PkiError> {
    let fail = |source| PkiError::Issue { path: path_of(row), source };
    let (own, own_key) = authority.signer.as_deref().ok_or_else(|| fail(IssueError::Unsigned))?;
    let user = (row.user)(spec);
    let request = Request {
        common_name: user.clone(),
        organization: row.organization,
        usages: &[Usage::Client],
        sans: vec![],
        window: Window::from(own.not_before, now, spec.certificate_validity)?,
    };
    let certificate = issue::leaf(&request, key, own, own_key).map_err(fail)?;
    let trusted: String = authority.certificates.iter().map(inspect::Certificate::pem).collect();
    let cluster = spec.cluster_name.clone();
    let name = format!("{user}@{cluster}");
    let config = Kubeconfig {
        api_version: "v1".into(),
        kind: "Config".into(),
        current_context: name.clone(),
        clusters: vec![NamedCluster {
            name: cluster.clone(),
            cluster: Cluster {
                certificate_authority: None,
                certificate_authority_data: Some(STANDARD.encode(trusted)),
                server: format!("https://{}", (row.server)(spec)),
            },
        }],
        contexts: vec![NamedContext { name, context: Context { cluster, user: user.clone() } }],
        users: vec![NamedUser {
            name: user,
            user: User {
                client_certificate_data: Some(STANDARD.encode(certificate)),
                client_key_data: Some(STANDARD.encode(key.pem())),
                ..User::default()
            },
        }],
    };
    yaml::to_string(&config).map_err(|source| PkiError::Yaml { path: path_of(row), source })
}

fn parse(text: &[u8]) -> Result<Kubeconfig, Problem> {
    let unusable = |reason: String| Problem::Kubeconfig { reason };
    let text = std::str::from_utf8(text).map_err(|_| unusable("not a text".into()))?;
    // Only where it fails: the parser's words may repeat a value, and values here may be keys.
    yaml::from_str(text).map_err(|error| unusable(format!("see line {}, column {}", error.line, error.column)))
}
