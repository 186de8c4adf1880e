//! The phases that act on the running machine: preflight, starting the agent, waiting for it.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::LocalBoxFuture;
use tokio::sync::oneshot;

use super::{Init, InitError, StepError, images, join_instructions};
use crate::agent::control::expect::{Expectation, Verdict, judge, until_met};
use crate::cluster::discovery::pins;
use crate::cluster::object::Object;
use crate::config::ClusterSpec;
use crate::config::spec::{NodeAgent, PullPolicy};
use crate::error::chain;
use crate::host::digest::sha256;
use crate::host::facts::{Facts, Runtime};
use crate::host::paths::{KUBELET_DIR, KUBERNETES_DIR, MANIFESTS_DIR};
use crate::manifests;
use crate::runtime::endpoint::Endpoint;
use crate::runtime::images::present;
use crate::runtime::{ContainerRuntime, RuntimeError};
use crate::workflow::error::failure;
use crate::workflow::machine::cluster::Site;
use crate::workflow::preflight::{self, OwnLeftovers};
use crate::workflow::session::{report_end, report_start};
use crate::workflow::state::inventory::{Entry, Kind};
use crate::workflow::state::saved::Saved;

/// How long an agent may take to answer whether a machine that was initialised before is healthy.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// `preflight`: every check, then the images: those that are missing are being pulled when this returns.
pub fn preflight<'a>(init: &'a mut Init<'_>, _: bool) -> LocalBoxFuture<'a, Result<bool, StepError>> {
    Box::pin(async move {
        let mut facts = init.machine.facts.gather(&init.machine.paths, &preflight::interest(init.spec));
        let runtime = if init.machine.live { init.ask_runtime(&mut facts).await } else { None };
        if init.machine.live {
            facts.external_etcd = preflight::etcd::ask(init.spec, &init.machine.paths).await;
        }
        let own_leftovers = init.own_leftovers(&facts, runtime.as_deref()).await;
        preflight::check_machine(init.spec, &facts, &own_leftovers, &*init.machine.reporter)?;
        let Some(runtime) = runtime else { return Ok(false) };
        let there = present(&*runtime, &images::needed(init.spec)).await?;
        let missing: Vec<String> =
            there.into_iter().filter(|(_, image)| image.is_none()).map(|(name, _)| name).collect();
        if missing.is_empty() && init.spec.node.image_pull_policy != PullPolicy::Always {
            return Ok(false);
        }
        init.begin()?;
        let address = Endpoint::of(init.spec).address();
        let entry = |reference: String| Entry::Image { runtime: address.clone(), reference };
        init.session.expect(missing.into_iter().map(entry).collect())?;
        init.pulls = Some(images::Pulls::start(runtime, init.spec, init.machine.reporter.clone()));
        Ok(true)
    })
}

pub fn would_preflight(spec: &ClusterSpec) -> Vec<String> {
    let pulls =
        images::needed(spec).into_iter().map(|image| format!("Would make sure that the image {image} is there"));
    std::iter::once("Would check the machine".to_owned()).chain(pulls).collect()
}

/// `kubelet-start`: the service is enabled and runs, with what its files say now.
pub fn start_agent<'a>(init: &'a mut Init<'_>, changed: bool) -> LocalBoxFuture<'a, Result<bool, StepError>> {
    Box::pin(async move {
        let service = &init.machine.service;
        let enabled_before = service.is_enabled()?;
        init.session.expect(vec![Entry::Service { enabled_before }])?;
        if !changed && service.is_running()? {
            return Ok(false);
        }
        let mut how = service.start()?;
        if !service.outlives_machine() {
            let made = Saved::read(&*init.machine.tree).is_ok_and(|saved| saved.is_some());
            how += match made {
                true => "; after a restart of the machine `kubeboot init` starts it again, with what it was made with",
                false => "; after a restart of the machine run this command again",
            };
        }
        init.machine.reporter.note("kubelet-start", how);
        Ok(true)
    })
}

/// `wait-control-plane`: every component whose manifest is there is healthy, and the administrators have their rights.
pub fn wait<'a>(init: &'a mut Init<'_>, _: bool) -> LocalBoxFuture<'a, Result<bool, StepError>> {
    Box::pin(async move {
        let wants = init.expectations()?;
        let machine = &*init.machine;
        let spec = init.spec;
        let (answers, answering) = oneshot::channel();
        let mut answers = Some(answers);
        let reporter = machine.reporter.clone();
        let mut changed = move |want: &Expectation, verdict: &Verdict| {
            reporter.event(want.event(verdict));
            if want.component == manifests::API_SERVER && *verdict == Verdict::Met {
                answers.take().map(|answers| answers.send(()));
            }
        };
        let limit = spec.timeouts.control_plane_component_health_check;
        let healthy =
            async { until_met(&*machine.health, &wants, limit, &mut changed).await.map_err(StepError::Unhealthy) };
        let admins = async {
            // No API server is waited for: no one to grant anything.
            let Ok(()) = answering.await else { return Ok(false) };
            let limit = spec.timeouts.kubernetes_api_call;
            machine.cluster.ensure_admins(Site { paths: &machine.paths, spec }, limit).await.map_err(StepError::Admin)
        };
        let both = async { tokio::try_join!(healthy, admins) };
        tokio::select! {
            done = both => done.map(|((), granted)| granted),
            () = machine.stop.cancelled() => Err(StepError::Interrupted),
            gone = machine.service.ended() => Err(StepError::AgentGone { log: gone }),
        }
    })
}

pub fn would_wait(spec: &ClusterSpec) -> Vec<String> {
    let limit = spec.timeouts.control_plane_component_health_check.as_secs();
    let components = manifests::wanted(spec).join(", ");
    vec![
        format!("Would wait for {components} to become healthy, {limit} s at most"),
        "Would make the ClusterRoleBinding kubeadm:cluster-admins with super-admin.conf".to_owned(),
    ]
}

/// Where a kubelet keeps the client certificate that it rotates.
const ROTATED: &str = "/var/lib/kubelet/pki/kubelet-client-current.pem";

/// `kubelet-finalize`: kubelet.conf points at the rotated certificate, once a kubelet has got one.
pub fn finalize_kubelet<'a>(init: &'a mut Init<'_>, _: bool) -> LocalBoxFuture<'a, Result<bool, StepError>> {
    Box::pin(async move {
        let path = Path::new(KUBERNETES_DIR).join("kubelet.conf");
        let tree = &mut init.machine.tree;
        if !tree.exists(Path::new(ROTATED)) {
            let text = format!("{ROTATED} is not there: no kubelet has a client certificate to rotate yet");
            init.machine.reporter.note("kubelet-finalize", text);
            return Ok(false);
        }
        let Some(text) = tree.read(&path)? else { return Ok(false) };
        let Some(pointed) = crate::pki::point_at_client_certificate(&path, &text, Path::new(ROTATED))? else {
            return Ok(false);
        };
        tree.write(&path, pointed.as_bytes(), 0o600)?;
        init.machine.reporter.note("kubelet-finalize", format!("pointed {} at {ROTATED}", path.display()));
        if init.spec.kubeboot.node_agent == NodeAgent::Kubelet {
            init.machine.service.start()?;
        }
        Ok(true)
    })
}

pub fn would_finalize_kubelet(_: &ClusterSpec) -> Vec<String> {
    vec![format!("Would point /etc/kubernetes/kubelet.conf at {ROTATED}, were that there")]
}

/// `show-join-command`: what is printed in the end.
pub fn show_join_command<'a>(init: &'a mut Init<'_>, _: bool) -> LocalBoxFuture<'a, Result<bool, StepError>> {
    Box::pin(async move {
        let generated_secrets = init.draw()?;
        let path = init.spec.certificates_dir.join("ca.crt");
        let Some(authority) = init.machine.tree.read(&path)? else { return Err(StepError::NoAuthority { path }) };
        let pins = pins::of_pem(&authority).map_err(|error| StepError::Cluster(Box::new(error)))?;
        let admin = init.machine.paths.kubeconfig("admin.conf").display().to_string();
        init.text += &join_instructions::text(init.spec, &admin, &generated_secrets, &pins);
        Ok(false)
    })
}

/// Why an object was left alone that is not there.
pub fn not_registered(object: &Object) -> String {
    format!(
        "{} is not registered: no kubelet has announced it yet; `kubeboot init phase mark-control-plane` marks it then",
        object.key()
    )
}

impl Init<'_> {
    /// The manifests that are there, by their hashes.
    fn expectations(&self) -> Result<Vec<Expectation>, StepError> {
        let mut wants = Vec::new();
        for component in manifests::COMPONENTS {
            let file = Path::new(MANIFESTS_DIR).join(format!("{component}.yaml"));
            if let Some(content) = self.machine.tree.read(&file)? {
                wants.push(Expectation {
                    component: component.to_owned(),
                    file: file.display().to_string(),
                    file_hash: Some(sha256(&content)),
                });
            }
        }
        Ok(wants)
    }

    /// Whether the agent answers and reports every manifest healthy that is there.
    pub(super) async fn is_healthy(&self) -> bool {
        let Ok(wants) = self.expectations() else { return false };
        let answer = async { self.machine.health.watch().await.ok()?.next().await };
        match tokio::time::timeout(ANSWER_LIMIT, answer).await {
            Ok(Some(report)) => wants.iter().all(|want| judge(&report, want) == Verdict::Met),
            _ => false,
        }
    }

    /// Waits for the images that are being pulled, if any are, and says so: getting them is a part of preflight, as with
    /// kubeadm, whichever phase waits for them.
    pub(super) async fn await_images(&mut self) -> Result<(), InitError> {
        const IMAGES: &str = "images";
        let Some(pulls) = self.pulls.take() else { return Ok(()) };
        let (reporter, started) = (&self.machine.reporter, Cell::new(None));
        let waits = || {
            started.set(Some(report_start(&**reporter, IMAGES, "wait for the images that are being pulled")));
        };
        let waited = tokio::select! {
            done = pulls.wait(waits) => done.map_err(StepError::from),
            () = self.machine.stop.cancelled() => Err(StepError::Interrupted),
        };
        waited.map_err(|source| failure("preflight", source))?;
        if let Some(started) = started.get() {
            report_end(&**reporter, IMAGES, started, true);
        }
        Ok(())
    }

    /// Fills in whether the runtime answers, and returns it if it does.
    async fn ask_runtime(&self, facts: &mut Facts) -> Option<Arc<dyn ContainerRuntime>> {
        let address = Endpoint::of(self.spec).address();
        let wanted = address.as_deref();
        let asked = async {
            let runtime = self.machine.runtimes.connect(wanted)?;
            let version = runtime.version().await?;
            Ok::<_, RuntimeError>((runtime, format!("{} {}", version.name, version.version)))
        };
        match asked.await {
            Ok((runtime, version)) => {
                facts.runtime = Runtime::Reachable(version);
                Some(runtime)
            }
            Err(error) => {
                let address = match &error {
                    RuntimeError::Unreachable { address, .. } => address.clone(),
                    _ => wanted.unwrap_or_default().to_owned(),
                };
                let (why, by_environment) = error.silence().unwrap_or_default();
                facts.runtime = Runtime::Unreachable { address, error: chain(&error), why, by_environment };
                None
            }
        }
    }

    /// What of the machine's state is an earlier run's, and so no obstacle.
    async fn own_leftovers(&self, facts: &Facts, runtime: Option<&dyn ContainerRuntime>) -> OwnLeftovers {
        let Some(state) = self.session.state() else { return OwnLeftovers::default() };
        let mut paths: BTreeSet<PathBuf> = state.inventory.items().iter().map(|item| item.path.clone()).collect();
        // A directory that was there, empty, for what is ours in it now.
        let trees = state.inventory.items().into_iter().filter(|item| item.kind == Kind::Tree);
        paths.extend(trees.filter_map(|item| item.path.parent().map(PathBuf::from)));
        let mut containers = Vec::new();
        if let Some(runtime) = runtime {
            containers = runtime.list(KUBELET_DIR).await.unwrap_or_default();
        }
        let listening: BTreeSet<u32> = facts.listeners.iter().filter_map(|l| Some(l.process.as_ref()?.pid)).collect();
        let is_ours = |pid: &u32| {
            let cgroups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
            containers.iter().any(|container| cgroups.contains(&container.id))
        };
        let mut pids: BTreeSet<u32> = listening.into_iter().filter(is_ours).collect();
        pids.extend(self.machine.service.pid());
        OwnLeftovers { paths, ports: BTreeSet::new(), pids }
    }
}
