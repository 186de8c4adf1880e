//! `upgrade apply`, `upgrade node` and `upgrade rollback` on a machine, from what is asked for to how it ended. Each is
//! prepared first, which touches nothing and says what would be done, and then run.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::apply::{ImageSource, Machine, Title, Work, apply};
use super::assess::{self, Assessment};
use super::data::loss;
use super::diff::{self, Change, unified};
use super::etcd::Aim;
use super::journal::{JOURNAL, Journal, State as JournalState};
use super::order::{Order, OrderError, Wanted, What};
use super::prepare::{Goal, PrepareError, Prepared, look, prepare};
use super::rollback::{RollbackOptions, is_last, rollback};
use super::table::{Part, SelectedPhases};
use super::target::running_version;
use super::{Outcome, UpgradeError, current, settings};
use crate::agent::control::ControlSocket;
use crate::agent::control::expect::HealthSource;
use crate::config::ClusterSpec;
use crate::config::spec::PullPolicy;
use crate::etcd::{Etcd, Member};
use crate::event::{Reporter, Silent};
use crate::host::Paths;
use crate::host::disk::HostDisk;
use crate::host::paths::{CONTROL_SOCKET, KUBELET_DIR};
use crate::host::tree::{HostTree, NoRecord};
use crate::runtime::endpoint::Endpoint;
use crate::workflow::machine::cluster::{AdminApi, Api, Cluster, Site};
use crate::workflow::machine::{Cause, Here, Runtimes};
use crate::workflow::preflight::{PreflightError, conclude, upgrade as checks, with_ignored};
use crate::workflow::session::Session;
use crate::workflow::state::StateError;
use crate::workflow::state::inventory::Inventory;
use crate::workflow::state::saved::{Saved, SavedError};

/// Why an upgrade, or taking one back, was not begun. What fails after that is in the [`Outcome`].
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Nothing was asked for.
    #[error("name a version (kubeboot upgrade apply v1.36.3) or an image (--image COMPONENT=IMAGE)")]
    NoGoal,
    /// No control plane of ours.
    #[error("this machine was not initialised by `kubeboot init`: there is nothing to upgrade")]
    NotOurs,
    /// Its configuration was not kept.
    #[error("this machine was not initialised by `kubeboot init`")]
    NotKept,
    /// There was no upgrade.
    #[error("no upgrade to take back: {JOURNAL} is not there")]
    NoUpgrade,
    /// kubeboot's own directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// What init was given.
    #[error(transparent)]
    Saved(#[from] SavedError),
    /// What was asked for cannot be made.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// The machine or the cluster is not fit.
    #[error(transparent)]
    Preflight(#[from] PreflightError),
    /// The upgrade itself.
    #[error(transparent)]
    Upgrade(#[from] UpgradeError),
}

/// What is to be done when the API server is needed and cannot be asked.
const WITHOUT_API: &str = "nothing was changed; to upgrade without the cluster's objects add \
                           --skip-phases=upload-config,bootstrap-token,addon";

impl RunError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Prepare(PrepareError::NotInitialised) => Some("run `kubeboot init` first"),
            Self::Prepare(PrepareError::NotRead) => Some("run `kubeboot adopt` again: it reads it from the cluster"),
            Self::Upgrade(UpgradeError::Unreadable(_)) => Some(WITHOUT_API),
            _ => None,
        }
    }
}

/// What an upgrade talks to while it runs. Tests put fakes into it.
#[derive(Clone)]
pub struct Parts {
    /// The API server.
    pub cluster: Arc<dyn Cluster>,
    /// Container runtimes by address.
    pub runtimes: Arc<dyn Runtimes>,
    /// What the agent says.
    pub health: Arc<dyn HealthSource>,
    /// Where events go.
    pub reporter: Arc<dyn Reporter>,
}

impl Parts {
    /// Those of the running machine; without a `kubeconfig` the API server is asked with admin.conf.
    pub fn of_machine(paths: &Paths, kubeconfig: Option<PathBuf>, reporter: Arc<dyn Reporter>) -> Self {
        Self {
            cluster: Arc::new(AdminApi { kubeconfig }),
            runtimes: Arc::new(Here),
            health: Arc::new(ControlSocket(paths.on_host(CONTROL_SOCKET))),
            reporter,
        }
    }

    /// The machine, which records no phases and gives a component a minute.
    fn machine<'a>(&'a self, site: Site<'a>, local: &'a mut Local<'_>) -> Machine<'a> {
        Machine {
            paths: site.paths.clone(),
            tree: &mut local.tree,
            disk: &mut local.disk,
            etcd: &local.etcd,
            health: &*self.health,
            api: Api { cluster: &*self.cluster, site },
            runtimes: &*self.runtimes,
            log: None,
            reporter: &*self.reporter,
            limit: Duration::from_secs(60),
        }
    }
}

/// What of this machine an upgrade acts on.
struct Local<'a> {
    tree: HostTree<Option<&'a mut Inventory>>,
    disk: HostDisk,
    etcd: Member,
}

impl<'a> Local<'a> {
    fn of(site: Site<'_>, inventory: Option<&'a mut Inventory>) -> Self {
        let tree = HostTree::new(site.paths.clone(), inventory);
        Self { tree, disk: HostDisk, etcd: Member::of(site.spec, site.paths) }
    }
}

/// What is asked for.
pub struct Request {
    /// Where it goes, and how.
    pub goal: Goal,
    /// The words of the command that does the same again.
    pub command: String,
    /// Whether one phase alone was named.
    pub one_phase: bool,
    /// Checks whose errors are only warnings.
    pub ignored: Vec<String>,
    /// What the user should know of the configuration.
    pub warnings: Vec<String>,
    /// Whether the user has seen every warning: this carries out what a command has prepared before.
    pub warned: bool,
    /// When images are fetched; None as for `init`.
    pub pull_policy: Option<PullPolicy>,
}

/// An upgrade that can be run: the locked machine, and what would be done.
pub struct Upgrade {
    paths: Paths,
    parts: Parts,
    request: Request,
    session: Session,
    prepared: Prepared,
    /// Whether a run before this one was cut off.
    cut_off: bool,
}

impl Upgrade {
    /// Looks at the machine below `paths`, which is locked from now on, and makes everything that is asked for.
    ///
    /// # Errors
    /// See [`RunError`]; nothing has been touched.
    pub fn prepare(paths: &Paths, parts: Parts, mut request: Request) -> Result<Self, RunError> {
        if request.goal.policy.force {
            request.ignored.push(checks::KUBELETS.to_owned());
        }
        let goal = &request.goal;
        if goal.version.is_none() && goal.images.is_empty() {
            return Err(RunError::NoGoal);
        }
        let mut session = Session::new(request.command.clone(), "");
        if !session.open(paths)? {
            return Err(RunError::NotOurs);
        }
        let reporter: &dyn Reporter = if request.warned { &Silent } else { &*parts.reporter };
        if goal.parts.has(Part::Preflight) {
            conclude(checks::findings(&checks::see_files(paths), &request.ignored), reporter)?;
        }
        let is_preflight = goal.parts.is_preflight_alone();
        // It judges what the whole upgrade would do.
        let parts_to_make = if is_preflight { SelectedPhases::default() } else { goal.parts.clone() };
        let mut prepared = prepare(paths, &Goal { parts: parts_to_make, ..goal.clone() })?;
        if goal.parts.has(Part::Preflight) {
            let found = settings::findings(&prepared, goal.version.as_ref())?;
            conclude(with_ignored(found, &request.ignored), reporter)?;
        }
        if !paths.is_live() {
            prepared.objects.clear();
        }
        for warning in prepared.warnings.iter().chain(&request.warnings) {
            reporter.warn("upgrade", warning.clone());
        }
        let journal = Journal::read(&HostTree::new(paths.clone(), NoRecord))?;
        let cut_off = journal.filter(|journal| journal.state == JournalState::Applying);
        if let Some(Journal { target, command, .. }) = cut_off.as_ref().filter(|_| is_preflight) {
            // What runs half old and half new may well fail the checks.
            let (target, command) = (target.clone(), command.clone());
            return Err(UpgradeError::Interrupted { target, command }.into());
        }
        let cut_off = cut_off.is_some();
        Ok(Self { paths: paths.clone(), parts, request, session, prepared, cut_off })
    }

    /// Whether it only looks, and fetches images.
    pub fn is_preflight(&self) -> bool {
        self.request.goal.parts.is_preflight_alone()
    }

    /// The cluster as it will be.
    pub fn spec(&self) -> &ClusterSpec {
        &self.prepared.spec
    }

    /// Whether there is nothing to do.
    pub fn is_idle(&self) -> bool {
        let only_objects = self.request.one_phase && !self.prepared.objects.is_empty();
        !self.is_preflight() && self.prepared.work(Timestamp::now()).is_idle() && !self.cut_off && !only_objects
    }

    /// How the manifests would change, and what else would be done.
    pub fn would(&self) -> String {
        if self.is_preflight() {
            let images = self
                .prepared
                .steps
                .iter()
                .map(|step| format!("[dryrun] Would fetch {} if it is missing\n", step.new_image));
            return images.collect();
        }
        let lines: String = self.prepared.would().iter().map(|line| format!("[dryrun] {line}\n")).collect();
        unified(&self.prepared.steps, 3) + &lines
    }

    /// The same as an order for somebody else to carry out.
    ///
    /// # Errors
    /// See [`Order::new`].
    pub fn order(&self, kubeconfig: Option<&Path>, limit: Duration) -> Result<Order, OrderError> {
        let what = What::Apply(Box::new(Wanted::of(&self.request)?));
        Order::new(self.request.command.clone(), what, kubeconfig, limit)
    }

    /// What is asked before.
    pub fn question(&self) -> String {
        let replaced: Vec<&str> = self.prepared.steps.iter().map(|step| step.component).collect();
        match replaced.is_empty() {
            _ if self.is_preflight() => "Ask the cluster, and fetch the images that are missing?".to_owned(),
            true => "Go on?".to_owned(),
            false => format!("Replace {}?", replaced.join(", ")),
        }
    }

    /// Carries it out: asks the cluster whether it may be, fetches every image, and replaces one component after the other.
    /// `limit` is how long one of them may take to be healthy.
    ///
    /// # Errors
    /// Only what happens before anything is touched; from then on the [`Outcome`] tells.
    pub async fn run(&mut self, limit: Duration) -> Result<Outcome, RunError> {
        let Self { paths, parts, request, session, prepared, .. } = self;
        let (log, inventory) = session.split();
        let work = Work {
            phases: request.goal.parts.clone(),
            checks: request.goal.parts.has(Part::Preflight).then_some(&request.ignored),
            images: Some(ImageSource {
                runtime: Endpoint::of(&prepared.spec).address(),
                policy: request.pull_policy.unwrap_or(prepared.spec.node.image_pull_policy),
            }),
            ..prepared.work(Timestamp::now())
        };
        let site = Site { paths, spec: &prepared.spec };
        let mut local = Local::of(site, inventory);
        let mut machine = Machine { log: Some(log), limit, ..parts.machine(site, &mut local) };
        let title = Title { target: request.command.clone(), command: request.command.clone(), stamp: stamp() };
        let outcome = apply(&mut machine, &work, &title).await?;
        if let Outcome::Upgraded { replaced } = &outcome {
            self.report(replaced);
        }
        Ok(outcome)
    }

    fn report(&self, replaced: &[&str]) {
        let version = self.request.goal.version.as_ref();
        if self.is_preflight() {
            let text = "nothing stands in the way, and every image is here: nothing was changed";
            return self.parts.reporter.note("upgrade", text.into());
        }
        let what = version.map_or_else(
            || "the new images are running".to_owned(),
            |version| format!("Kubernetes {version} is running"),
        );
        let replaced = if replaced.is_empty() { "nothing was".to_owned() } else { replaced.join(", ") };
        self.parts.reporter.note("upgrade", format!("{what}: {replaced} replaced"));
        if self.prepared.files.iter().any(|file| file.path.starts_with(KUBELET_DIR)) {
            let text = "the kubelet's settings are new: they count from its next start (systemctl restart kubelet)";
            self.parts.reporter.note("upgrade", text.into());
        }
    }
}

/// How long the API server may take to answer a command that only looks.
const LOOK_LIMIT: Duration = Duration::from_secs(10);

/// What `request` would do and what stands in its way. Nothing is touched, and the machine is not locked. `live` is whether
/// the machine below `paths` runs, so that its cluster, etcd and runtime may be asked.
///
/// # Errors
/// A machine without a control plane of ours, or whose files cannot be read or understood.
pub async fn assess(
    paths: &Paths,
    parts: &Parts,
    request: &Request,
    live: bool,
) -> Result<(Prepared, Assessment), RunError> {
    let prepared = look(paths, &request.goal)?;
    let spec = looking(&prepared.spec);
    let site = Site { paths, spec: &spec };
    let mut local = Local::of(site, None);
    let found = assess::assess(&parts.machine(site, &mut local), &prepared, request, live).await?;
    Ok((prepared, found))
}

/// What an upgrade to `goal` would change, with `context` lines around each change; and why the cluster's config maps are not
/// among it, where they are not.
///
/// # Errors
/// See [`prepare`].
pub async fn changes(
    paths: &Paths,
    parts: &Parts,
    goal: &Goal,
    context: usize,
) -> Result<(Vec<Change>, Option<Cause>), RunError> {
    let prepared = prepare(paths, goal)?;
    let mut all = diff::files(&HostTree::new(paths.clone(), NoRecord), &prepared, context)?;
    if !paths.is_live() {
        return Ok((all, None));
    }
    let spec = looking(&prepared.spec);
    let api = Api { cluster: &*parts.cluster, site: Site { paths, spec: &spec } };
    match diff::config_maps(api, &prepared, context).await {
        Ok(maps) => all.extend(maps),
        Err(error) => return Ok((all, Some(error))),
    }
    Ok((all, None))
}

/// The same with little time for the API server.
fn looking(spec: &ClusterSpec) -> ClusterSpec {
    let mut spec = spec.clone();
    spec.timeouts.kubernetes_api_call = spec.timeouts.kubernetes_api_call.min(LOOK_LIMIT);
    spec
}

/// An upgrade that can be taken back: the locked machine, and what the last upgrade has left.
pub struct Rollback {
    paths: Paths,
    parts: Parts,
    session: Session,
    journal: Journal,
    spec: ClusterSpec,
    options: RollbackOptions,
}

impl Rollback {
    /// Looks at the machine below `paths`, which is locked from now on.
    ///
    /// # Errors
    /// A machine without an upgrade, or with a later one; a configuration that cannot be read.
    pub fn prepare(paths: &Paths, parts: Parts, options: RollbackOptions) -> Result<Self, RunError> {
        let session = Session::attach(paths)?.ok_or(RunError::NotOurs)?;
        let tree = HostTree::new(paths.clone(), NoRecord);
        let journal = Journal::read(&tree)?.ok_or(RunError::NoUpgrade)?;
        if !options.force {
            is_last(&tree, &journal)?;
        }
        let spec = Saved::read(&tree)?.ok_or(RunError::NotKept)?.spec()?.0;
        Ok(Self { paths: paths.clone(), parts, session, journal, spec, options })
    }

    /// The cluster as the upgrade has left it.
    pub fn spec(&self) -> &ClusterSpec {
        &self.spec
    }

    /// The same as an order for somebody else to carry out.
    ///
    /// # Errors
    /// See [`Order::new`].
    pub fn order(&self, kubeconfig: Option<&Path>, limit: Duration) -> Result<Order, OrderError> {
        Order::new(self.options.command(), What::Rollback(self.options), kubeconfig, limit)
    }

    /// What would be done.
    pub fn would(&self) -> String {
        let journal = &self.journal;
        let mut lines = vec![format!("would put the manifests in {} back\n", journal.backup.display())];
        if let Some(data) = journal.restorable().filter(|_| self.options.etcd_copy) {
            lines.push(format!("would put {} back in the place of {}\n", data.to.display(), data.from.display()));
        }
        lines.extend(journal.files.iter().map(|file| format!("would put {} back\n", file.path.display())));
        lines.extend(journal.objects_written.then(|| "would put the cluster's objects back\n".to_owned()));
        lines.concat()
    }

    /// What is asked before.
    pub fn question(&self) -> String {
        let question = format!("Put the manifests in {} back?", self.journal.backup.display());
        let Some(data) = self.journal.restorable().filter(|_| self.options.etcd_copy) else { return question };
        let (copy, place) = (self.paths.on_host(&data.to), self.paths.on_host(&data.from));
        let writes = Member::of(&self.spec, &self.paths).writes_since(&copy, &place);
        format!("{question} {}.", capitalised(&loss(writes)))
    }

    /// Takes the upgrade back. `limit` is how long one component may take to be healthy.
    ///
    /// # Errors
    /// What stands in the way; the same call goes on from there.
    pub async fn run(&mut self, limit: Duration) -> Result<TakenBack, RunError> {
        let Self { paths, parts, session, spec, options, .. } = self;
        let site = Site { paths, spec };
        let mut local = Local::of(site, session.inventory_mut());
        let mut machine = Machine { limit, ..parts.machine(site, &mut local) };
        let journal = rollback(&mut machine, if options.etcd_copy { Aim::Copy } else { Aim::Old }).await?;
        // An upgrade of an earlier kubeboot's has not kept the version among its files.
        let tree = &mut local.tree;
        let version = running_version(|path: &Path| current(tree, path))?;
        if let (Some(version), Some(saved)) = (version, Saved::read(tree)?) {
            saved.with_version(&version).write(tree)?;
        }
        let but = journal.etcd_kept.as_ref().map_or_else(String::new, |version| format!(", with etcd {version}"));
        let text = format!("the manifests of {} are back and healthy{but}", journal.backup.display());
        parts.reporter.note("upgrade", text);
        let has_copy = journal.restorable().is_some();
        Ok(journal.etcd_kept.map_or(TakenBack::Whole, |version| TakenBack::ButEtcd { version, has_copy }))
    }
}

/// How an upgrade was taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TakenBack {
    /// Everything is old.
    Whole,
    /// The new etcd stays, and everything else is old.
    ButEtcd {
        /// Its version.
        version: String,
        /// Whether there is a copy of the data that may be put back.
        has_copy: bool,
    },
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// The time in the names of backups, as kubeadm writes it.
pub(super) fn stamp() -> String {
    jiff::Zoned::now().strftime("%Y-%m-%d-%H-%M-%S").to_string()
}

#[cfg(test)]
pub(super) mod tests;
