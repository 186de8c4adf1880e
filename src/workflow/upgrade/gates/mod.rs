//! What a replaced component has to show besides its health before an upgrade goes on: [`GATES`]. The first that is not passed
//! in time brings everything old back, as an unhealthy component does.
//!
//! A gate that cannot be asked (an image whose tag is no version, an API server that answered no administrator before the
//! upgrade either) is reported as not checked, and passed: it must not keep an upgrade away that would mend just that. A run
//! that goes on with one that was cut off checks all of them again.

mod check;
mod format;
mod leader;
mod settled;

use std::sync::OnceLock;
use std::time::Duration;

use futures::future::BoxFuture;
use tracing::debug;

use super::UpgradeError;
use super::apply::{Machine, tell};
use super::journal::Journal;
use crate::agent::control::expect::HealthSource;
use crate::etcd::Server;
use crate::event::Reporter;
use crate::host::clock::{Instant, timeout_at};
use crate::manifests::{COMPONENTS, ETCD};
use crate::workflow::machine::cluster::Api;

pub use format::{Formats, formats};
pub use settled::{SETTLING, Settling};

/// Names of components.
const API_SERVER: &str = "kube-apiserver";
const CONTROLLER_MANAGER: &str = "kube-controller-manager";
const SCHEDULER: &str = "kube-scheduler";

/// A row: what is checked, when, and how long that may take.
pub struct Gate {
    /// Its name.
    pub name: &'static str,
    /// When it is checked.
    pub when: When,
    /// How long it may take from the component's health on.
    pub limit: Duration,
    /// How it is checked.
    check: Check,
}

/// When a gate is checked.
pub enum When {
    /// After each of these has been replaced.
    Each(&'static [&'static str]),
    /// After the last of all that are replaced.
    Last,
}

/// How a gate is checked.
enum Check {
    /// By looking until it is passed.
    Look(Look),
    /// By the agent's reports, for all its time: see [`Settling`].
    Reports,
}

/// What is looked at once.
type Look = for<'a> fn(&'a Subject<'a>) -> BoxFuture<'a, Sight>;

const fn each(components: &'static [&'static str], name: &'static str, seconds: u64, look: Look) -> Gate {
    Gate { name, when: When::Each(components), limit: Duration::from_secs(seconds), check: Check::Look(look) }
}

/// Every gate, in order.
pub const GATES: &[Gate] = &[
    // The program in the image is the one that its tag names.
    each(&COMPONENTS, "version", 10, check::version),
    // The cluster's version and that of the data are what this etcd makes of them: it looks every few seconds, and so has taken
    // them along before anything else relies on it.
    each(&[ETCD], "format", 20, format::made),
    // An object can be written and read by way of the API server and etcd.
    each(&[ETCD, API_SERVER], "write", 10, check::write),
    // Somebody leads: a controller manager without a lease is healthy and does nothing. A lease that is left to run out
    // takes 15 s and a candidate's next look.
    each(&[CONTROLLER_MANAGER, SCHEDULER], "leader", 30, leader::held),
    // What has become healthy does not crash in its first seconds.
    Gate { name: settled::NAME, when: When::Last, limit: SETTLING, check: Check::Reports },
];

/// The pause between two looks: none of what is looked at reports an event.
const PAUSE: Duration = Duration::from_millis(100);
/// What is passed sooner is not told of.
const QUIET: Duration = Duration::from_secs(1);
/// How long an API server may take to answer before the upgrade.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);

/// What one look has come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sight {
    /// It is as it should be.
    Passed,
    /// It is not yet.
    NotYet(String),
    /// It cannot be seen yet: where that stays so, it is not checked.
    Unseen(String),
    /// It cannot be checked.
    Skipped(String),
}

/// What the gates ask.
#[derive(Clone, Copy)]
pub struct Parts<'a> {
    /// The agent.
    pub health: &'a dyn HealthSource,
    /// The API server and, by its administrator's certificate, the others.
    pub api: Api<'a>,
    /// Whether it answered an administrator before the upgrade.
    pub api_answered: bool,
    /// The etcd of this node.
    pub etcd: &'a dyn Server,
    /// What it was before it was replaced; None where it was not, or where nothing told.
    pub etcd_before: Option<Formats>,
    /// Where it is told.
    pub reporter: &'a dyn Reporter,
}

impl<'a> Parts<'a> {
    /// Those of a machine and of the upgrade on it.
    pub fn of(machine: &'a Machine<'_>, journal: &Journal) -> Self {
        let Machine { health, api, etcd, reporter, .. } = machine;
        let Journal { api_answered, etcd_before, .. } = *journal;
        Self { health: *health, api: *api, api_answered, etcd: *etcd, etcd_before, reporter: *reporter }
    }
}

/// What a gate looks at.
pub struct Subject<'a> {
    /// Which component was replaced.
    pub component: &'static str,
    /// Its manifest.
    pub manifest: &'a [u8],
    /// What is asked.
    pub parts: Parts<'a>,
    /// What the lease of its leader was at the first look.
    first: OnceLock<leader::Lease>,
}

/// Whether the API server answers the administrator.
pub async fn answers(api: Api<'_>) -> bool {
    let Some(map) = check::config_map("kubeadm-config", "") else { return false };
    let asked = tokio::time::timeout(ANSWERED_WITHIN, api.cluster.get(api.site, &map));
    matches!(asked.await, Ok(Ok(_)))
}

/// Checks a component that was replaced and is healthy.
///
/// # Errors
/// The first gate that is not passed.
pub async fn pass(parts: Parts<'_>, component: &'static str, manifest: &[u8]) -> Result<(), UpgradeError> {
    let subject = Subject { component, manifest, parts, first: OnceLock::new() };
    for gate in GATES {
        if let (When::Each(components), Check::Look(look)) = (&gate.when, &gate.check)
            && components.contains(&component)
        {
            pass_one(gate, *look, &subject).await?;
        }
    }
    Ok(())
}

async fn pass_one(gate: &Gate, look: Look, subject: &Subject<'_>) -> Result<(), UpgradeError> {
    let (begun, reporter, component) = (Instant::now(), subject.parts.reporter, subject.component);
    let deadline = begun + gate.limit;
    let (mut last, mut is_told) = (None::<Sight>, false);
    let why = loop {
        let sight = timeout_at(deadline, look(subject)).await;
        let sight = sight.ok().or(last.clone()).unwrap_or(Sight::NotYet("it does not answer".into()));
        let is_over = Instant::now() + PAUSE >= deadline;
        match &sight {
            Sight::Passed => {
                debug!(component, gate = gate.name, took = ?begun.elapsed(), "passed");
                if is_told {
                    tell(reporter, component, "healthy".into(), true);
                }
                return Ok(());
            }
            Sight::NotYet(why) if is_over => break why.clone(),
            Sight::Unseen(why) | Sight::Skipped(why) if is_over || matches!(sight, Sight::Skipped(_)) => {
                reporter.note("upgrade", format!("{component}: the check `{}` was left out: {why}", gate.name));
                return Ok(());
            }
            Sight::NotYet(why) | Sight::Unseen(why) | Sight::Skipped(why) => {
                if begun.elapsed() >= QUIET && !(is_told && last.as_ref() == Some(&sight)) {
                    is_told = true;
                    tell(reporter, component, format!("healthy, not past the check `{}` yet: {why}", gate.name), true);
                }
            }
        }
        last = Some(sight);
        tokio::time::sleep(PAUSE).await;
    };
    Err(UpgradeError::Gate { gate: gate.name, component, limit: gate.limit, why })
}
