//! The steps of a plan, done. What fails is remembered with the moment of the next try, so that the next plan leaves it
//! alone until then.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tracing::{debug, info, warn};

use super::super::messages::Message;
use super::Worker;
use super::action::Action;
use super::plan::sandbox_tries;
use super::report::LogTail;
use super::view::{Fault, Instance, Kill, PostStart, Pull};
use crate::agent::backoff::{CALL, MOUNT, PULL, Steps};
use crate::agent::container::SANDBOX;
use crate::agent::container::config;
use crate::agent::container::config::Place;
use crate::agent::container::env;
use crate::agent::container::prepare;
use crate::agent::container::prepare::{PrepareError, Prepared};
use crate::agent::events::Subject;
use crate::agent::hooks::{self, Hook, HookError, HookKind};
use crate::agent::objects::Objects;
use crate::agent::objects::store::ObjectScope;
use crate::agent::pod::StaticPod;
use crate::agent::pull;
use crate::agent::volumes::VolumeError;
use crate::agent::volumes::{self, Inputs};
use crate::agent::worker::order;
use crate::agent::{logs, wording};
use crate::error::chain;
use crate::host::clock::Instant;
use crate::runtime::{ContainerState, ImageRecord, PodNetwork, RuntimeError, SandboxConfig};

mod class;
mod ending;
mod events;
mod hook;
mod image;
mod mounts;
mod users;
mod log_tail;

/// What a container is prepared with.
struct ContainerInputs {
    facts: env::Facts,
    objects: Objects,
}

/// Why a container could not be made: the kubelet's reason and the words.
struct Failure {
    reason: &'static str,
    message: String,
    steps: Steps,
}

impl Failure {
    fn new(reason: &'static str, message: String) -> Self {
        Self { reason, message, steps: CALL }
    }
}

impl From<PrepareError> for Failure {
    fn from(error: PrepareError) -> Self {
        match error {
            PrepareError::Volume(error) => {
                Self { reason: "ContainerCreating", message: not_set_up(&error), steps: MOUNT }
            }
            PrepareError::Config(message) => Self::new("CreateContainerConfigError", message),
            PrepareError::File(error) => Self::new("CreateContainerError", chain(&error)),
        }
    }
}

impl Worker {
    pub(super) async fn execute(&mut self, action: Action) {
        if self.suspended {
            return;
        }
        let is_start = matches!(action, Action::Run { .. } | Action::Prepare { .. } | Action::Resume { .. });
        if is_start && self.is_hooked() {
            // An earlier step of the same plan has begun a postStart hook.
            return;
        }
        debug!(pod = %self.key, ?action, "step");
        match action {
            Action::Kill { id, grace, why, ordered } => {
                self.kill(&id, grace, why, ordered);
                self.remember_condemned(&id).await;
            }
            Action::Stop { id, grace } => self.stop(id, grace),
            Action::Hurry { id } => self.force_stop(id),
            Action::Remove { id } => self.remove(&id).await,
            Action::CreateSandbox { attempt } => self.create_sandbox(attempt).await,
            Action::Run { container, attempt, tries } => self.run_container(&container, attempt, tries).await,
            Action::Prepare { container, attempt } => {
                if let Some(id) = self.make_container(&container, attempt).await {
                    self.refresh(&id).await;
                }
            }
            Action::Resume { id } => self.resume(&id).await,
            Action::Forget { uid } => self.forget(uid).await,
        }
    }

    async fn resume(&mut self, id: &str) {
        let Some(one) = self.seen.instances.get(id) else { return };
        let name = one.record.name.container.clone();
        self.context.runs.clear(&self.key).await;
        match self.context.runtime.start(id).await {
            Ok(()) => {
                self.count_start(&name);
                self.note_event(&name, "Started", wording::STARTED.with(&[]));
                self.clear_fault(&name);
                self.refresh(id).await;
                self.post_start(id, &name);
            }
            Err(error) => {
                self.fail(&name, runtime_failure("RunContainerError", &error), Some(&error));
                self.refresh(id).await;
            }
        }
        self.link_logs().await;
    }

    async fn create_sandbox(&mut self, attempt: u32) {
        let Some((pod, _)) = self.pod.clone() else { return };
        let image = self.context.options.pause_image.clone();
        if let Some(why) = self.lacks_network(&pod).await {
            return self.fail(SANDBOX, Failure::new("NetworkNotReady", why), None);
        }
        if let Err(failure) = self.mount_volumes(&pod).await {
            return self.fail(SANDBOX, failure, None);
        }
        let users = match self.own_users(&pod).await {
            Ok(users) => users,
            Err((failure, error)) => return self.fail(SANDBOX, failure, error.as_ref()),
        };
        let runtime_handler = match self.runtime_handler(&pod).await {
            Ok(handler) => handler,
            Err(failure) => return self.fail(SANDBOX, failure, None),
        };
        // A CRI runtime knows an image of its own for that.
        let brings_own = self.context.runtime.needs_sandbox();
        if !brings_own && self.image(SANDBOX, &image, "IfNotPresent").await.is_none() {
            return;
        }
        if attempt > 0 {
            self.note_event(SANDBOX, "SandboxChanged", wording::SANDBOX_CHANGED.with(&[]));
        }
        let before = self.seen.instances.values();
        let newest = before
            .filter(|one| one.record.is_sandbox && one.uid() == pod.uid)
            .max_by_key(|one| one.record.name.attempt);
        let tries = sandbox_tries(self.seen.slots.get(SANDBOX).map_or(0, |slot| slot.tries), newest);
        let parent = self.make_cgroup(&pod).await;
        let config = match config::sandbox(&pod, attempt, parent, users, &self.context.options) {
            Ok(config) => SandboxConfig { runtime_handler, ..config },
            Err(refusal) => return self.fail(SANDBOX, Failure::new(refusal.reason, refusal.message), None),
        };
        let begun = Instant::now();
        let created = self.context.runtime.create_sandbox(&config).await;
        let started = match &created {
            Ok(id) => self.context.runtime.start(id).await,
            Err(_) => Ok(()),
        };
        self.context.metrics.sandboxes.time([config.runtime_handler.into()], begun.elapsed());
        if let Ok(id) = &created {
            self.refresh(id).await;
        }
        match created.map(drop).and(started) {
            Ok(()) => {
                info!(pod = %self.key, attempt, "sandbox started");
                self.seen.slots.entry(SANDBOX.to_owned()).or_default().tries = tries.saturating_add(1);
                self.context.metrics.started_sandboxes.count();
                self.clear_fault(SANDBOX);
            }
            Err(error) => {
                self.context.metrics.failed_sandboxes.count();
                self.fail(SANDBOX, runtime_failure("CreatePodSandboxError", &error), Some(&error));
            }
        }
    }

    /// Why a pod with a network of its own has to wait, in the kubelet's words. A sandbox that is tried without the plugin
    /// leaves a rest which the runtime cannot take away either.
    async fn lacks_network(&self, pod: &StaticPod) -> Option<String> {
        if pod.host_network() {
            return None;
        }
        match self.context.runtime.pod_network().await {
            Ok(PodNetwork::NotReady { reason, message }) => {
                let text = format!("NetworkReady=false reason:{reason} message:{message}");
                Some(wording::NO_NETWORK.with(&[&format!("container runtime network not ready: {text}")]))
            }
            // A runtime that does not answer refuses the sandbox too.
            Ok(PodNetwork::Ready | PodNetwork::Absent) | Err(_) => None,
        }
    }

    /// Makes a container of its image, or remembers why not.
    async fn make_container(&mut self, name: &str, attempt: u32) -> Option<String> {
        let (pod, _) = self.pod.clone()?;
        let container = pod.container(name)?;
        let image = container.image.clone().unwrap_or_default();
        let policy = container.image_pull_policy.clone().unwrap_or_default();
        if self.own_sandbox(&pod).is_none()
            && let Err(failure) = self.mount_volumes(&pod).await
        {
            self.fail(name, failure, None);
            return None;
        }
        let image = self.image(name, &image, &policy).await?;
        match self.create(&pod, name, attempt, &image).await {
            Ok(id) => Some(id),
            Err((failure, error)) => {
                self.fail(name, failure, error.as_ref());
                None
            }
        }
    }

    /// Before a container of a pod starts again: whatever of its predecessors runs on unknown to the runtime goes.
    async fn end_forgotten(&self) {
        let Some((pod, _)) = self.pod.clone() else { return };
        let running = self.seen.instances.values().filter(|one| one.is_running()).map(|one| one.record.id.clone());
        let (running, context) = (running.collect(), Arc::clone(&self.context));
        let _ = tokio::task::spawn_blocking(move || context.cgroups.end_forgotten(&pod, &running)).await;
    }

    async fn run_container(&mut self, name: &str, attempt: u32, tries: u32) {
        if attempt > 0 {
            self.end_forgotten().await;
        }
        let Some(id) = self.make_container(name, attempt).await else { return };
        self.context.runs.clear(&self.key).await;
        let is_first = self.is_first_run(name, &id);
        let started = self.context.runtime.start(&id).await;
        let slot = self.seen.slots.entry(name.to_owned()).or_default();
        (slot.tries, slot.pull) = (tries.saturating_add(1), Pull::Idle);
        if tries == 0 && is_first {
            // The first start is no restart: the first restart is free.
            slot.tries = 0;
        }
        self.refresh(&id).await;
        match started {
            Ok(()) => {
                info!(pod = %self.key, container = name, attempt, "container started");
                self.count_start(name);
                self.note_event(name, "Started", wording::STARTED.with(&[]));
                self.clear_fault(name);
                self.post_start(&id, name);
            }
            Err(error) => self.fail(name, runtime_failure("RunContainerError", &error), Some(&error)),
        }
        self.link_logs().await;
    }

    /// Whether nothing is left of an earlier run of a container: it was never started, or its pod was ended as a whole
    /// (`kubeboot agent restart`, a renewal), which is no crash. The attempt does not tell: it goes on counting.
    fn is_first_run(&self, name: &str, id: &str) -> bool {
        let Some(uid) = self.wanted_uid() else { return false };
        let mut earlier = self.seen.instances.values().filter(|one| one.record.id != id && one.uid() == uid);
        !earlier.any(|one| !one.record.is_sandbox && one.record.name.container == name)
    }

    /// Makes a container: volumes, termination file, configuration, and the runtime's part.
    async fn create(
        &mut self,
        pod: &Arc<StaticPod>,
        name: &str,
        attempt: u32,
        image: &ImageRecord,
    ) -> Result<String, (Failure, Option<RuntimeError>)> {
        let quiet = |failure: Failure| (failure, None);
        let sandbox = self.own_sandbox(pod).map(|one| (one.record.id.clone(), one.record.ip.clone()));
        let sandbox_attempt = self.own_sandbox(pod).map(|one| one.record.name.attempt);
        let (sandbox, ip) = sandbox.unwrap_or_default();
        let mut facts = self.context.facts.clone();
        if !pod.host_network() {
            facts.pod_ip = ip;
        }
        let node_memory = self.context.memory_capacity;
        let objects =
            self.context.objects.objects(self.context.api.as_deref(), pod, ObjectScope::Container(name)).await;
        let objects =
            objects.map_err(|why| quiet(Failure::new("ContainerCreating", wording::NOT_MOUNTED.with(&[&why]))))?;
        let given = ContainerInputs { facts, objects };
        let Some(container) = pod.container(name) else { return Err(quiet(no_such(name))) };
        let grant = self.context.devices.grant(&pod.uid, container).await;
        let grant = grant.map_err(|why| quiet(Failure::new("CreateContainerConfigError", why)))?;
        let prepared = self.prepare(Arc::clone(pod), name.to_owned(), attempt, given).await.map_err(quiet)?;
        let cgroup_parent =
            if sandbox.is_empty() { self.make_cgroup(pod).await } else { self.context.cgroups.parent(pod) };
        let sandbox_config = sandbox_attempt.filter(|_| self.context.runtime.needs_sandbox()).and_then(|attempt| {
            let (parent, users) = (cgroup_parent.clone(), prepared.users);
            config::sandbox(pod, attempt, parent, users, &self.context.options).ok().map(Box::new)
        });
        let features = self.features_for(pod, name).await;
        let pid_target =
            self.target_id(pod, name).map_err(|message| quiet(Failure::new("CreateContainerConfigError", message)))?;
        let config = {
            let place = Place {
                attempt,
                sandbox: &sandbox,
                sandbox_config,
                image_user: &image.user,
                node_memory,
                prepared: &prepared,
                grant: &grant,
                cgroup_parent,
                apparmor: self.context.apparmor,
                features,
                pid_target,
            };
            config::container(pod, container, &place, &self.context.options)
        };
        let config = config.map_err(|message| quiet(Failure::new("CreateContainerConfigError", message)))?;
        match self.context.runtime.create_container(&config).await {
            Ok(id) => {
                self.note_event(name, "Created", wording::CREATED.with(&[]));
                Ok(id)
            }
            Err(error) => {
                if matches!(error, RuntimeError::NotFound { .. }) && !sandbox.is_empty() {
                    self.refresh(&sandbox).await;
                }
                Err((runtime_failure("CreateContainerError", &error), Some(error)))
            }
        }
    }

    /// The file system's part, off the runtime's threads: a network mount may hang.
    async fn prepare(
        &self,
        pod: Arc<StaticPod>,
        name: String,
        attempt: u32,
        given: ContainerInputs,
    ) -> Result<Prepared, Failure> {
        let context = Arc::clone(&self.context);
        let prepared = tokio::task::spawn_blocking(move || {
            let Some(container) = pod.container(&name) else {
                return Err(no_such(&name));
            };
            let inputs = Inputs { facts: &given.facts, objects: &given.objects };
            let prepare = || prepare::prepare(&pod, container, attempt, &inputs, &context.options);
            let prepared = context.objects.alone(&pod, prepare);
            let subject = Subject { pod: &pod.key, uid: &pod.uid, container: Some(&name) };
            for notice in prepared.iter().flat_map(|prepared| &prepared.notices) {
                context.events.warning(subject, notice.reason, &notice.message);
            }
            prepared.map_err(Failure::from)
        });
        prepared.await.unwrap_or_else(|error| Err(Failure::new("CreateContainerError", error.to_string())))
    }

    /// Makes the cgroup that a pod's containers are made in, and says which it is.
    async fn make_cgroup(&self, pod: &Arc<StaticPod>) -> Option<String> {
        let parent = self.context.cgroups.parent(pod)?;
        let (context, pod) = (Arc::clone(&self.context), Arc::clone(pod));
        let make = move || match volumes::claim(&context.options.root_dir, &pod.uid) {
            Ok(()) => context.cgroups.make(&pod),
            Err(error) => warn!(pod = %pod.key, error = chain(&error), "no cgroup of its own"),
        };
        let _ = tokio::task::spawn_blocking(make).await;
        Some(parent)
    }

    /// The UID of the pod that is wanted, or was until a moment ago; empty for an orphan.
    fn uid(&self) -> String {
        self.pod.as_ref().map(|(pod, _)| pod.uid.clone()).unwrap_or_default()
    }

    fn own_sandbox(&self, pod: &StaticPod) -> Option<&Instance> {
        let own = self.seen.instances.values().filter(|one| one.uid() == pod.uid && one.record.is_sandbox);
        own.filter(|one| one.is_running()).max_by_key(|one| one.record.name.attempt)
    }

    /// The container whose processes an ephemeral one is to see; the error is the kubelet's.
    fn target_id(&self, pod: &StaticPod, name: &str) -> Result<Option<String>, String> {
        let Some(target) = pod.target_of(name) else { return Ok(None) };
        let mut own = self.seen.instances.values().filter(|one| one.uid() == pod.uid && one.is_running());
        let found = own.find(|one| !one.record.is_sandbox && one.record.name.container == target);
        let id = found.map(|one| one.record.id.clone());
        id.map(Some).ok_or_else(|| format!("unable to find target container {target}"))
    }

    /// A container has been started.
    fn count_start(&self, container: &str) {
        let Some((pod, _)) = &self.pod else { return };
        self.context.metrics.started_containers.count([pod.container_type(container).into()]);
    }

    /// A container could not be started. Sandboxes are counted apart, and a pod that waits for its volumes has not failed.
    pub(in crate::agent::worker) fn count_failure(&self, container: &str, reason: &'static str) {
        let Some((pod, _)) = self.pod.as_ref().filter(|_| container != SANDBOX && reason != "ContainerCreating") else {
            return;
        };
        self.context.metrics.failed_containers.count([pod.container_type(container).into(), reason.into()]);
    }

    fn clear_fault(&mut self, container: &str) {
        if let Some(slot) = self.seen.slots.get_mut(container) {
            slot.fault = None;
        }
    }

    fn fail(&mut self, container: &str, failure: Failure, error: Option<&RuntimeError>) {
        self.count_failure(container, failure.reason);
        warn!(pod = %self.key, container, reason = failure.reason, message = failure.message, "step failed");
        self.note_failure(container, &failure);
        let slot = self.seen.slots.entry(container.to_owned()).or_default();
        let tries = slot.fault.as_ref().map_or(1, |fault| fault.tries.saturating_add(1));
        let until = Instant::now() + failure.steps.after(tries);
        slot.fault = Some(Fault { reason: failure.reason, message: failure.message, until, tries });
        if let Some(error) = error {
            self.note_unreachable(error);
        }
    }

    /// A call about one container failed: it is left alone for a while.
    pub(super) fn failed_on(&mut self, id: &str, error: &RuntimeError) {
        warn!(pod = %self.key, id, error = chain(error), "call failed");
        if let Some(one) = self.seen.instances.get_mut(id) {
            one.failures = one.failures.saturating_add(1);
            one.retry_at = Some(Instant::now() + CALL.after(one.failures));
        }
        self.note_unreachable(error);
    }

    fn note_unreachable(&mut self, error: &RuntimeError) {
        if matches!(error, RuntimeError::Unreachable { .. }) {
            self.suspended = true;
            self.context.relink.notify_one();
        }
    }
}

fn no_such(name: &str) -> Failure {
    Failure::new("CreateContainerError", format!("the pod has no container {name}"))
}

/// In the runtime's own words, as a kubelet hands them on.
fn runtime_failure(reason: &'static str, error: &RuntimeError) -> Failure {
    match error {
        RuntimeError::Refused { message, .. } => Failure::new(reason, message.clone()),
        error => Failure::new(reason, chain(error)),
    }
}

/// Which volume could not be made, and why.
fn not_set_up(error: &VolumeError) -> String {
    let (VolumeError::Type { volume, .. }
    | VolumeError::Escape { volume, .. }
    | VolumeError::Unsupported { volume, .. }
    | VolumeError::Content { volume, .. }
    | VolumeError::Io { volume, .. }) = error;
    let text = chain(error);
    // The error names its volume first, as the form does.
    let why = text.strip_prefix(&format!("volume {volume}: ")).unwrap_or(&text);
    wording::SET_UP_FAILED.with(&[&wording::quoted(volume), &why])
}
