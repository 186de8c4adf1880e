//! Renewing certificates on a machine: new files, all or none; restarts of what reads them only when it starts, one
//! component after the other; and proof that the new ones are in use.
//!
//! What was decided is in a journal before the first file is replaced. A renewal that is killed, or whose restarts
//! fail, is finished by the next one.

pub mod journal;
pub mod table;
#[cfg(test)]
mod tests;
pub mod live_certificates;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;

use self::journal::{Journal, Pending};
use self::live_certificates::LiveCertificates;
use self::table::{Shows, Use, own_port, use_of};
use super::machine::Cause;
use super::session::Session;
use super::state::lock::LockError;
use super::state::{LOCK, StateError};
use crate::agent::control::expect::{Expectation, Verdict, WaitError};
use crate::agent::control::report::HealthReport;
use crate::agent::control::restart::{Restarter, containers, replace};
use crate::config::ClusterSpec;
use crate::event::{Event, Reporter};
use crate::host::Paths;
use crate::host::digest::sha256;
use crate::host::fs::FsError;
use crate::host::lock::wait_until_free;
use crate::host::paths::MANIFESTS_DIR;
use crate::host::tree::{HostTree, MemoryTree, NoRecord, Tree};
use crate::manifests::COMPONENTS;
use crate::pki::inspect::Certificate;
use crate::pki::{self, Fate, PkiError, Renewable};

/// How long the agent may take to say what runs.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// How long a server that is healthy may take to show its new certificate.
const SHOW_LIMIT: Duration = Duration::from_secs(10);
/// The pause between two looks: no event tells that a server has read a file.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// What a renewal acts on.
pub struct Machine<'a> {
    /// Where files are.
    pub paths: Paths,
    /// How they are written.
    pub tree: &'a mut dyn Tree,
    /// The cluster.
    pub spec: &'a ClusterSpec,
    /// Who restarts components; None where files are all that is wanted.
    pub agent: Option<&'a dyn Restarter>,
    /// Who sees what is in use.
    pub live_certificates: &'a dyn LiveCertificates,
    /// Where restarts are reported.
    pub reporter: &'a dyn Reporter,
    /// Hears what became of each certificate, once its file is in place.
    pub reported: &'a mut (dyn FnMut(&str, RenewalStatus) + Send),
    /// How long one restarted component may take to be healthy.
    pub limit: Duration,
}

/// What became of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RenewalStatus {
    /// There is a new one.
    Renewed,
    /// Its authority's key is elsewhere.
    External(&'static str),
    /// There was none.
    Missing,
}

/// What a renewal came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Components that were restarted.
    pub restarted: Vec<String>,
    /// Certificates that were seen in use.
    pub proven: Vec<String>,
    /// Components that somebody has to restart: no agent was asked to.
    pub left: Vec<&'static str>,
}

/// Why a renewal failed.
#[derive(Debug, thiserror::Error)]
pub enum RenewalError {
    /// A certificate cannot be renewed; nothing was changed.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// A file could not be written, and everything is as it was before.
    #[error("nothing was changed")]
    Unchanged(#[source] FsError),
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FsError),
    /// The journal cannot be understood.
    #[error("{} is damaged: remove it, and renew all certificates", journal::JOURNAL)]
    Journal,
    /// The agent does not say what runs.
    #[error("the new certificates are in place, but the agent does not say what is to be restarted")]
    Agent(#[source] Cause),
    /// A component did not come back.
    #[error("the new certificates are in place, but {component} did not become healthy with them")]
    Unhealthy {
        /// Which.
        component: String,
        /// Why.
        #[source]
        source: Box<WaitError>,
    },
    /// A server shows another certificate.
    #[error("{name} is in place, but {address} serves another certificate (SHA-256 {served}, not {expected})")]
    Other {
        /// kubeadm's name of the certificate.
        name: String,
        /// Where.
        address: SocketAddr,
        /// What is shown.
        served: String,
        /// What is in the file.
        expected: String,
    },
    /// A new certificate was not seen in use.
    #[error("{name} is in place, but it was not seen in use")]
    Unseen {
        /// kubeadm's name of the certificate.
        name: String,
        /// Why.
        #[source]
        source: Cause,
    },
}

/// Renews `wanted`, after what an earlier renewal has left undone.
///
/// # Errors
/// Before the first file is replaced nothing is changed; from then on the same call finishes what is left.
pub async fn run(machine: &mut Machine<'_>, wanted: &[Renewable], now: Timestamp) -> Result<Summary, RenewalError> {
    let mut summary = Summary::default();
    let mut done = Vec::new();
    if let Some(journal) = Journal::read(machine.tree)? {
        machine.reporter.note("certs", "finishing a renewal that was cut off".into());
        done.clone_from(&journal.names);
        finish(machine, journal, &mut summary).await?;
    }
    let rest: Vec<Renewable> = wanted.iter().filter(|one| !done.iter().any(|name| name == one.name)).copied().collect();
    let mut staged = MemoryTree::staging(machine.paths.clone());
    let mut names = Vec::new();
    let mut idle = Vec::new();
    let mut warned = BTreeSet::new();
    for renewal in pki::renew(machine.spec, &mut staged, &rest, now)? {
        for warning in renewal.warnings {
            if warned.insert(warning.clone()) {
                machine.reporter.warn("certs", warning);
            }
        }
        match renewal.fate {
            Fate::Renewed(_) => names.push(renewal.renewable.name.to_owned()),
            Fate::External => idle.push((renewal.renewable, RenewalStatus::External(renewal.renewable.authority()))),
            Fate::Missing => idle.push((renewal.renewable, RenewalStatus::Missing)),
        }
    }
    idle.into_iter().for_each(|(renewable, reported)| (machine.reported)(renewable.name, reported));
    if !names.is_empty() {
        let journal = Journal::of(names, &staged, machine.tree, machine.agent.is_some())?;
        journal.write(machine.tree)?;
        finish(machine, journal, &mut summary).await?;
    }
    Ok(summary)
}

/// Puts the files of a killed renewal in place, if there is one; what has yet to be restarted stays for the next
/// renewal. Returns whether there was anything to do.
///
/// # Errors
/// A journal that is damaged, or files that cannot be written.
pub fn recover(tree: &mut dyn Tree) -> Result<bool, RenewalError> {
    match Journal::read(tree)? {
        Some(journal) if !journal.files.is_empty() => journal.replace(tree).map(|()| true),
        _ => Ok(false),
    }
}

/// Waits until no command has the lock of the machine below `paths`, and puts the files of a renewal in place that was killed:
/// etcd reads its certificate and key for each connection, and the one without the other serves no client. Returns whether there
/// was anything to do.
///
/// # Errors
/// Those of [`recover`]; a lock or records that cannot be read.
pub async fn recover_when_free(paths: Paths) -> Result<bool, Cause> {
    let (ended, end) = tokio::sync::oneshot::channel();
    // A thread that the end of the agent does not wait for: the lock may be held for minutes.
    std::thread::Builder::new().name("renewals".into()).spawn(move || ended.send(recover_locked(&paths)))?;
    end.await?
}

fn recover_locked(paths: &Paths) -> Result<bool, Cause> {
    loop {
        wait_until_free(&paths.state().join(LOCK))?;
        let mut tree = HostTree::new(paths.clone(), NoRecord);
        // No command is to find the machine locked for nothing.
        if Journal::read(&tree)?.is_none_or(|journal| journal.files.is_empty()) {
            return Ok(false);
        }
        match Session::attach(paths) {
            Err(StateError::Lock(LockError::Held { .. } | LockError::Gone { .. })) => {}
            session => {
                let _session = session?;
                return Ok(recover(&mut tree)?);
            }
        }
    }
}

async fn finish(machine: &mut Machine<'_>, mut journal: Journal, summary: &mut Summary) -> Result<(), RenewalError> {
    if !journal.files.is_empty() {
        match journal.replace(machine.tree) {
            Err(error @ RenewalError::Unchanged(_)) => {
                Journal::remove(machine.tree)?;
                return Err(error);
            }
            other => other?,
        }
        journal.names.iter().for_each(|name| (machine.reported)(name, RenewalStatus::Renewed));
    }
    let users = components(&journal.names);
    let Some(agent) = machine.agent.filter(|_| journal.restart) else {
        summary.left.extend(users);
        return Ok(Journal::remove(machine.tree)?);
    };
    if !journal.files.is_empty() {
        journal.pending = pending(machine, agent, &users, &journal.names).await?;
        journal.files.clear();
        journal.write(machine.tree)?;
    }
    while let Some(next) = journal.pending.first().cloned() {
        restart(machine, agent, &next).await?;
        summary.restarted.push(next.component);
        journal.pending.remove(0);
        journal.write(machine.tree)?;
    }
    for name in &journal.names {
        if prove(machine, name).await? {
            summary.proven.push(name.clone());
        }
    }
    Ok(Journal::remove(machine.tree)?)
}

/// The components that use these certificates, in the order in which they are restarted.
fn components(names: &[String]) -> Vec<&'static str> {
    let used: Vec<&str> = names.iter().filter_map(|name| use_of(name)?.component).collect();
    COMPONENTS.into_iter().filter(|component| used.contains(component)).collect()
}

fn file_of(component: &str) -> PathBuf {
    Path::new(MANIFESTS_DIR).join(format!("{component}.yaml"))
}

/// Which of `users` have to be restarted: those that run here and do not serve all their new certificates already, as
/// etcd does, which reads them for each connection.
async fn pending(
    machine: &Machine<'_>,
    agent: &dyn Restarter,
    users: &[&str],
    names: &[String],
) -> Result<Vec<Pending>, RenewalError> {
    let mut report = None;
    let mut pending = Vec::new();
    for component in users {
        if machine.tree.read(&file_of(component))?.is_none() || serves_all(machine, component, names).await? {
            continue;
        }
        let report = match &mut report {
            Some(report) => report,
            none => none.insert(ask(agent).await.map_err(RenewalError::Agent)?),
        };
        let served = match own_port(machine.spec, component) {
            Some(address) => {
                machine.live_certificates.served(address).await.ok().map(|certificate| certificate.fingerprint())
            }
            None => None,
        };
        let before = containers(report, component);
        pending.push(Pending { component: (*component).to_owned(), before, served });
    }
    Ok(pending)
}

async fn ask(agent: &dyn Restarter) -> Result<HealthReport, Cause> {
    let answer = async { agent.watch().await?.next().await.ok_or_else(|| Cause::from("the agent has ended")) };
    tokio::time::timeout(ANSWER_LIMIT, answer).await.unwrap_or_else(|_| Err("it does not answer".into()))
}

/// Whether a component serves each of its certificates among `names`, and has no others among them.
async fn serves_all(machine: &Machine<'_>, component: &str, names: &[String]) -> Result<bool, RenewalError> {
    let used = names.iter().filter_map(|name| use_of(name)).filter(|row| row.component == Some(component));
    for row in used {
        let Shows::Served(address) = row.shows else { return Ok(false) };
        let Some(expected) = current(machine, row.name)? else { return Ok(false) };
        match machine.live_certificates.served(address(machine.spec)).await {
            Ok(served) if served == expected => {}
            _ => return Ok(false),
        }
    }
    Ok(true)
}

fn current(machine: &Machine<'_>, name: &str) -> Result<Option<Certificate>, PkiError> {
    let all = pki::renewables(machine.spec);
    let Some(renewable) = all.iter().find(|renewable| renewable.name == name) else { return Ok(None) };
    renewable.current(machine.spec, machine.tree)
}

/// Restarts one component, waits for it, and sees that it is another process than before.
async fn restart(machine: &mut Machine<'_>, agent: &dyn Restarter, pending: &Pending) -> Result<(), RenewalError> {
    let component = pending.component.clone();
    let file = file_of(&component);
    // One whose manifest was taken away since then reads its certificates when it comes back.
    let Some(manifest) = machine.tree.read(&file)? else { return Ok(()) };
    let want = Expectation {
        component: component.clone(),
        file: file.display().to_string(),
        file_hash: Some(sha256(&manifest)),
    };
    let reporter = machine.reporter;
    let mut changed = |want: &Expectation, verdict: &Verdict| reporter.event(reported(want, verdict));
    replace(agent, &want, &pending.before, machine.limit, &mut changed)
        .await
        .map_err(|source| RenewalError::Unhealthy { component: component.clone(), source: Box::new(source) })?;
    let has_own = String::from_utf8_lossy(&manifest).contains("--tls-cert-file=");
    let (Some(address), Some(before)) = (own_port(machine.spec, &component).filter(|_| !has_own), &pending.served)
    else {
        return Ok(());
    };
    let unseen = |source| RenewalError::Unseen { name: component.clone(), source };
    match machine.live_certificates.served(address).await.map_err(unseen)?.fingerprint() {
        same if same == *before => Err(unseen(format!("{address} is served by the same process as before").into())),
        _ => Ok(()),
    }
}

fn reported(want: &Expectation, verdict: &Verdict) -> Event {
    let (state, healthy) = match verdict {
        Verdict::Waiting(text) => (text.clone(), false),
        Verdict::Met => ("healthy with its new certificates".to_owned(), true),
        Verdict::Failed(failure) => (failure.reason.clone(), false),
    };
    Event::Component { name: want.component.clone(), state, healthy, detail: None }
}

/// Sees that a new certificate is in use; false where it is not used.
async fn prove(machine: &Machine<'_>, name: &str) -> Result<bool, RenewalError> {
    let Some(Use { shows, component, .. }) = use_of(name) else { return Ok(false) };
    // Without its component no server shows it.
    if let Some(component) = component
        && machine.tree.read(&file_of(component))?.is_none()
    {
        return Ok(false);
    }
    match shows {
        Shows::Nowhere => Ok(false),
        // It was started, and became healthy, after the file was in place.
        Shows::Works => Ok(true),
        Shows::Known => {
            let known = machine.live_certificates.known(machine.spec, name).await;
            known.map(|()| true).map_err(|source| RenewalError::Unseen { name: name.to_owned(), source })
        }
        Shows::Served(address) => see(machine, name, address(machine.spec)).await,
    }
}

async fn see(machine: &Machine<'_>, name: &str, address: SocketAddr) -> Result<bool, RenewalError> {
    let Some(expected) = current(machine, name)? else { return Ok(false) };
    let until = tokio::time::Instant::now() + SHOW_LIMIT;
    loop {
        let error = match machine.live_certificates.served(address).await {
            Ok(served) if served == expected => return Ok(true),
            Ok(served) => RenewalError::Other {
                name: name.to_owned(),
                address,
                served: served.fingerprint(),
                expected: expected.fingerprint(),
            },
            Err(source) => RenewalError::Unseen { name: name.to_owned(), source },
        };
        if tokio::time::Instant::now() >= until {
            return Err(error);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}
