//! What `upgrade plan` shows: what runs, what an upgrade would make of it, and everything that stands in its way, found
//! before anything is touched.

mod judge;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

pub use self::judge::{EtcdStep, Expiring, reachable};
use super::apply::Machine;
use super::certificates::{ADMIN, RENEWED_WITH};
use super::journal::{BACKUP_PREFIX, Journal, State};
use super::manifest::{image, image_version, parse};
use super::objects::{self, Group};
use super::order::Order;
use super::prepare::Prepared;
use super::run::Request;
use super::target::file;
use super::{UpgradeError, data, settings};
use crate::cluster::addons::coredns;
use crate::cluster::metrics::{DeprecatedApi, deprecated_apis};
use crate::config::ClusterSpec;
use crate::config::spec::PullPolicy;
use crate::error::chain;
use crate::host::environment;
use crate::host::paths::TMP_DIR;
use crate::manifests::{COMPONENTS, ETCD};
use crate::pki;
use crate::release::Refusal;
use crate::runtime::endpoint::Endpoint;
use crate::workflow::preflight::{Finding, Severity, upgrade as checks, with_ignored};
use crate::workflow::state::saved::SAVED;

/// What runs, what would be, and what stands in the way.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Assessment {
    /// The version that runs; None where the API server's image says none.
    pub running: Option<String>,
    /// The version that was asked for.
    pub target: Option<String>,
    /// Versions that this program knows and that may follow.
    pub reachable: Vec<String>,
    /// The static pods, in the order in which they are replaced.
    pub components: Vec<Component>,
    /// The addons that are installed.
    pub addons: Vec<Component>,
    /// The nodes; empty where the cluster cannot be asked.
    pub nodes: Vec<Node>,
    /// etcd's step; None where etcd does not run here.
    pub etcd: Option<EtcdStep>,
    /// Files of this node that would change besides the manifests.
    pub files: Vec<PathBuf>,
    /// Certificates that end soon.
    pub certificates: Vec<Expiring>,
    /// Deprecated APIs that have been called since the API server started.
    pub deprecated_apis: Vec<DeprecatedApi>,
    /// Everything that stands in the way, and what the user should know.
    pub findings: Vec<Finding>,
}

/// A component, as it is and as it would be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Component {
    /// kubeadm's name.
    pub name: String,
    /// Its image.
    pub current_image: String,
    /// Its version; None where the image says none.
    pub current_version: Option<String>,
    /// The image that it would have.
    pub target_image: String,
    /// The version of that.
    pub target_version: Option<String>,
    /// Whether it would be replaced.
    pub replaced: bool,
    /// Whether that image is on this machine; None where nothing tells, or where it is not this machine's affair.
    pub image_present: Option<bool>,
}

/// A node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// Its name.
    pub name: String,
    /// The version of its kubelet.
    pub kubelet: Option<String>,
}

impl Assessment {
    /// Whether anything stands in the way.
    pub fn is_blocked(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Error)
    }

    fn add(&mut self, check: &str, severity: Severity, message: String) {
        self.findings.push(Finding { check: check.to_owned(), severity, message });
    }
}

/// Looks at the machine, and at the cluster where this is the running machine. What cannot be found out is a finding.
///
/// # Errors
/// Files of this machine that cannot be read or understood.
pub async fn assess(
    machine: &Machine<'_>,
    prepared: &Prepared,
    request: &Request,
    live: bool,
) -> Result<Assessment, UpgradeError> {
    let mut all = Assessment {
        running: prepared.from.as_ref().map(ToString::to_string),
        target: request.goal.version.as_ref().map(ToString::to_string),
        reachable: prepared.from.iter().flat_map(reachable).map(|version| version.to_string()).collect(),
        components: components(machine, prepared)?,
        files: prepared.files.iter().map(|file| file.path.clone()).filter(|path| path.as_os_str() != SAVED).collect(),
        ..Assessment::default()
    };
    all.findings.extend(prepared.refusal.as_ref().map(refused));
    unfinished(machine, request, &mut all)?;
    all.findings.extend(checks::findings(&checks::see_files(&machine.paths), &[]));
    all.findings.extend(settings::findings(prepared, request.goal.version.as_ref())?);
    certificates(machine, prepared, &mut all)?;
    if live {
        images(machine, prepared, request, &mut all).await;
        etcd(machine, prepared, &mut all).await;
        cluster(machine, prepared, request, &mut all).await;
    }
    for warning in prepared.warnings.iter().chain(&request.warnings) {
        all.add("Configuration", Severity::Warning, warning.clone());
    }
    all.findings = with_ignored(all.findings, &request.ignored);
    all.findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    Ok(all)
}

fn refused(refusal: &Refusal) -> Finding {
    let way = if refusal.can_be_forced() { " (--force gets past it)" } else { "" };
    Finding { check: "KubernetesVersion".into(), severity: Severity::Error, message: format!("{refusal}{way}") }
}

/// An upgrade that has not ended.
fn unfinished(machine: &Machine<'_>, request: &Request, all: &mut Assessment) -> Result<(), UpgradeError> {
    const CHECK: &str = "UnfinishedUpgrade";
    match Order::read(&machine.paths) {
        Ok(Some(order)) => {
            let message = format!("another upgrade is under way: {}; wait until it has ended", order.command);
            all.add(CHECK, Severity::Error, message);
        }
        Ok(None) => {}
        Err(error) => all.add(CHECK, Severity::Error, chain(&error)),
    }
    match Journal::read(machine.tree)? {
        Some(Journal { state: State::Applying, target, command, .. }) if target != request.command => {
            all.add(CHECK, Severity::Error, UpgradeError::Interrupted { target, command }.to_string());
        }
        _ => {}
    }
    Ok(())
}

/// Every static pod of the control plane that is here.
fn components(machine: &Machine<'_>, prepared: &Prepared) -> Result<Vec<Component>, UpgradeError> {
    let mut all = Vec::new();
    for name in COMPONENTS {
        let path = file(name);
        let Some(content) = super::current(machine.tree, &path)? else { continue };
        let now = image(&parse(&path, &content)?).to_owned();
        let step = prepared.steps.iter().find(|step| step.component == name);
        let then = step.map_or_else(|| now.clone(), |step| step.new_image.clone());
        all.push(Component { replaced: step.is_some(), ..component(name, now, then) });
    }
    Ok(all)
}

fn component(name: &str, current_image: String, target_image: String) -> Component {
    Component {
        name: name.to_owned(),
        current_version: image_version(&current_image),
        target_version: image_version(&target_image),
        replaced: current_image != target_image,
        current_image,
        target_image,
        image_present: None,
    }
}

/// Which images are on this machine.
async fn images(machine: &Machine<'_>, prepared: &Prepared, request: &Request, all: &mut Assessment) {
    let runtime = match machine.runtimes.connect(Endpoint::of(&prepared.spec).address().as_deref()) {
        Ok(runtime) => runtime,
        Err(error) => return all.add("CRI", Severity::Error, chain(&error)),
    };
    let mut failed = None;
    for one in &mut all.components {
        match runtime.image(&one.target_image).await {
            Ok(found) => one.image_present = Some(found.is_some()),
            Err(error) => failed = Some(chain(&error)),
        }
    }
    if let Some(failed) = failed {
        all.add("CRI", Severity::Error, failed);
    }
    let policy = request.pull_policy.unwrap_or(prepared.spec.node.image_pull_policy);
    if policy == PullPolicy::Never {
        let missing = |one: &&Component| one.replaced && one.image_present == Some(false);
        let names: Vec<String> = all.components.iter().filter(missing).map(|one| one.target_image.clone()).collect();
        if !names.is_empty() {
            let text = format!("not on this machine, and imagePullPolicy is Never: {}", names.join(", "));
            all.add("ImagePull", Severity::Error, text);
        }
    }
}

/// What becomes of etcd, and whether the next one opens the data and there is room for their copy.
async fn etcd(machine: &Machine<'_>, prepared: &Prepared, all: &mut Assessment) {
    let Some(one) = all.components.iter().find(|one| one.name == ETCD) else { return };
    let said = machine.etcd.status().await.ok().map(|status| status.version);
    let from = said.or_else(|| one.current_version.clone()).unwrap_or_else(|| one.current_image.clone());
    let replaced = one.current_image != one.target_image;
    let to = match (replaced, &one.target_version) {
        // Its tag may be another than what it says itself.
        (false, _) => from.clone(),
        (true, Some(version)) => version.clone(),
        (true, None) => one.target_image.clone(),
    };
    all.etcd = Some(judge::etcd_step(&from, &to, replaced));
    let mut nothing_yet = Journal::new("", "", PathBuf::from(TMP_DIR).join(BACKUP_PREFIX));
    for step in &prepared.steps {
        match data::look(machine, step, &mut nothing_yet) {
            Ok(()) => {}
            Err(error @ UpgradeError::Unopened { .. }) => all.add("EtcdVersion", Severity::Error, error.to_string()),
            Err(error) => all.add("DiskSpace", Severity::Error, chain(&error)),
        }
    }
}

/// Certificates that end soon.
fn certificates(machine: &Machine<'_>, prepared: &Prepared, all: &mut Assessment) -> Result<(), UpgradeError> {
    let (certificates, authorities) = pki::expirations(&prepared.spec, machine.tree)?;
    let is_replaced = |owner: &str| match owner {
        ADMIN => !prepared.steps.is_empty(),
        owner => prepared.steps.iter().any(|step| step.component == owner),
    };
    let with = RENEWED_WITH.iter().filter(|(owner, _)| prepared.renews() && is_replaced(owner));
    let renewed: Vec<&str> = with.flat_map(|(_, names)| *names).copied().collect();
    let (found, warnings) = judge::expiring((&certificates, &authorities), &renewed, Timestamp::now());
    all.certificates = found;
    all.findings.extend(warnings);
    Ok(())
}

/// What the cluster is asked: its nodes, addons, deprecated APIs, and whether it is well.
async fn cluster(machine: &Machine<'_>, prepared: &Prepared, request: &Request, all: &mut Assessment) {
    let api = machine.api;
    let nodes = match api.cluster.list_nodes(api.site, "").await {
        Ok(nodes) => nodes,
        // Whatever else it would be asked has the same answer; images alone are replaced without it.
        Err(error) => {
            let seen = checks::Seen { no_nodes: Some(chain(&*error)), ..checks::Seen::default() };
            let needed = request.goal.version.is_some();
            let ignored = if needed { vec![] } else { vec!["all".to_owned()] };
            return all.findings.extend(checks::findings(&seen, &ignored));
        }
    };
    let named = |node: &Value| {
        let kubelet = node["status"]["nodeInfo"]["kubeletVersion"].as_str().map(str::to_owned);
        Some(Node { name: node["metadata"]["name"].as_str()?.to_owned(), kubelet })
    };
    all.nodes = nodes.iter().filter_map(named).collect();
    addons(machine, &prepared.spec, all).await;
    match api.cluster.metrics(api.site).await {
        Ok(text) => all.deprecated_apis = deprecated_apis(&text),
        Err(error) => {
            let text = format!("deprecated APIs that are in use are not known: {}", chain(&*error));
            all.add("DeprecatedAPIs", Severity::Warning, text);
        }
    }
    let Some(target) = &request.goal.version else { return };
    all.findings.extend(judge::newer_kubelets(&all.nodes, target));
    for api in all.deprecated_apis.clone().iter().filter(|api| api.is_gone_in(target.minor())) {
        let release = api.removed_release.as_deref().unwrap_or_default();
        let text = format!(
            "{} has been called since the API server started, and Kubernetes {release} does not serve it: move its callers to a \
             newer version of the API first",
            api.name()
        );
        all.add("DeprecatedAPIs", Severity::Warning, text);
    }
    let mut maps = prepared.objects.iter().flat_map(|group| &group.objects);
    let settings = maps.find(|object| object.resource.kind == "ConfigMap" && object.name() == coredns::NAME);
    match checks::see_cluster(api, settings).await {
        Ok(seen) => all.findings.extend(checks::findings(&seen, &[])),
        Err(error) => all.add("CoreDNSMigration", Severity::Error, chain(&*error)),
    }
}

/// The addons that are installed.
async fn addons(machine: &Machine<'_>, spec: &ClusterSpec, all: &mut Assessment) {
    let groups: [Option<Group>; 2] =
        [objects::coredns(spec).ok().flatten(), objects::kube_proxy(spec, &environment::proxies()).ok().flatten()];
    for group in groups.iter().flatten() {
        let Some(decisive) = group.decisive() else { continue };
        let Ok(Some(there)) = machine.api.cluster.get(machine.api.site, decisive).await else { continue };
        let image =
            |object: &Value| object["spec"]["template"]["spec"]["containers"][0]["image"].as_str().map(str::to_owned);
        if let (Some(now), Some(then)) = (image(&there), image(&decisive.value)) {
            all.addons.push(component(group.title, now, then));
        }
    }
}
