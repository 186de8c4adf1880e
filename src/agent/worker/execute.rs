//! The steps of a plan, done. What fails is remembered with the moment of the next try, so that the next plan leaves it
//! alone until then.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::action::Action;
use super::config::{self, Place};
use super::plan::SANDBOX;
use super::report::Words;
use super::view::{Fault, Instance, Pull};
use super::{Message, Worker};
use crate::agent::backoff::{CALL, MOUNT, PULL, Steps};
use crate::agent::events::Subject;
use crate::agent::pacing;
use crate::agent::pod::StaticPod;
use crate::agent::status::chain;
use crate::agent::volumes::{self, VolumeError};
use crate::agent::{env, logs};
use crate::runtime::{ContainerState, ImageRecord, RuntimeError};

/// Bytes of a termination message that are read (the kubelet's `MaxContainerTerminationMessageLength`).
const MESSAGE_LIMIT: u64 = 4096;

/// How often a pod that is being stopped is asked whether it has closed its ports, and how many times.
const PORT_LOOK: Duration = Duration::from_millis(10);
const PORT_LOOKS: u32 = 3000;

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

impl From<VolumeError> for Failure {
    fn from(error: VolumeError) -> Self {
        Self { reason: "ContainerCreating", message: format!("cannot mount: {}", chain(&error)), steps: MOUNT }
    }
}

impl Worker {
    pub(super) async fn execute(&mut self, action: Action) {
        if self.suspended {
            return;
        }
        debug!(pod = %self.key, ?action, "step");
        match action {
            Action::Stop { id, grace, why } => self.stop(id, grace, &why),
            Action::Hurry { id } => self.hurry(id),
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

    fn stop(&mut self, id: String, grace: Duration, why: &str) {
        let Some(one) = self.seen.instances.get_mut(&id) else { return };
        info!(pod = %self.key, container = %one.record.name.container, grace = grace.as_secs(), why, "stopping container");
        one.stopping = true;
        one.stopped_for = Some(why.to_owned());
        let uid = one.record.name.uid.clone();
        self.watch_ports(uid);
        let (runtime, myself) = (Arc::clone(&self.context.runtime), self.myself.clone());
        self.stops.spawn(async move {
            let result = runtime.stop(&id, grace).await;
            let _ = myself.send(Message::Stopped(id, result));
        });
    }

    /// The stop that is under way ends with the container, and reports it.
    fn hurry(&mut self, id: String) {
        let Some(one) = self.seen.instances.get_mut(&id) else { return };
        one.hurried = true;
        info!(pod = %self.key, container = %one.record.name.container, "ending the grace of a container that only drains");
        let runtime = Arc::clone(&self.context.runtime);
        self.stops.spawn(async move {
            // A failure costs the rest of the grace, no more.
            let _ = runtime.stop(&id, Duration::ZERO).await;
        });
    }

    /// Tells when the ports that the wanted pod needs are closed by the pod of `uid`, which is being stopped for it.
    fn watch_ports(&mut self, uid: String) {
        let Some((pod, _)) = self.pod.as_ref().filter(|(pod, _)| self.wanted && pod.uid != uid) else { return };
        let ports = pacing::overlap_ports(pod);
        if ports.is_empty() {
            return;
        }
        let myself = self.myself.clone();
        self.stops.spawn(async move {
            // The kernel tells nobody that a port was closed. Bounded: by then the grace period is over.
            for _ in 0..PORT_LOOKS {
                if !crate::host::ports::is_listening(Path::new("/proc"), &ports) {
                    let _ = myself.send(Message::Drained(uid));
                    return;
                }
                tokio::time::sleep(PORT_LOOK).await;
            }
        });
    }

    async fn remove(&mut self, id: &str) {
        match self.context.runtime.remove(id).await {
            Ok(()) => {
                if let Some(one) = self.seen.instances.get(id) {
                    logs::unlink(&self.context.options, &one.record.name, id);
                }
                self.vanish(id);
            }
            Err(error) => self.failed_on(id, &error),
        }
    }

    async fn forget(&mut self, uid: String) {
        let (root, removed) = (self.context.options.root_dir.clone(), uid.clone());
        let removal = tokio::task::spawn_blocking(move || volumes::remove_pod_dir(&root, &removed)).await;
        if let Ok(Err(error)) = removal {
            warn!(pod = %self.key, error = chain(&error), "cannot remove the pod's directory");
        }
        self.context.probes.remove_pod(&uid);
        self.context.routes.remove(&uid);
        self.seen.terminating.remove(&uid);
        self.seen.drained.remove(&uid);
        if let Some((pod, _)) = self.pod.as_ref().filter(|(pod, _)| pod.uid == uid) {
            if self.wanted {
                // The same pod again: it begins from the beginning.
                self.seen.slots = self.fresh_slots(pod);
                self.begun = false;
                self.since = Instant::now();
                self.context.routes.add(&uid, &self.myself);
            } else {
                self.pod = None;
            }
        }
        info!(pod = %self.key, %uid, "stopped");
    }

    async fn resume(&mut self, id: &str) {
        let Some(one) = self.seen.instances.get(id) else { return };
        let name = one.record.name.container.clone();
        match self.context.runtime.start(id).await {
            Ok(()) => self.clear_fault(&name),
            Err(error) => self.fail(&name, runtime_failure("RunContainerError", &error), Some(&error)),
        }
        self.refresh(id).await;
        self.link_logs().await;
    }

    async fn create_sandbox(&mut self, attempt: u32) {
        let Some((pod, _)) = self.pod.clone() else { return };
        let image = self.context.options.pause_image.clone();
        let Some(_) = self.image(SANDBOX, &image, "IfNotPresent").await else { return };
        let config = config::sandbox(&pod, attempt, &self.context.options);
        let created = self.context.runtime.create_sandbox(&config).await;
        let started = match &created {
            Ok(id) => self.context.runtime.start(id).await,
            Err(_) => Ok(()),
        };
        if let Ok(id) = &created {
            self.refresh(id).await;
        }
        match created.map(drop).and(started) {
            Ok(()) => {
                info!(pod = %self.key, attempt, "sandbox started");
                self.clear_fault(SANDBOX);
            }
            Err(error) => self.fail(SANDBOX, runtime_failure("CreatePodSandboxError", &error), Some(&error)),
        }
    }

    /// Makes a container of its image, or remembers why not.
    async fn make_container(&mut self, name: &str, attempt: u32) -> Option<String> {
        let (pod, _) = self.pod.clone()?;
        let (_, container) = pod.containers().find(|(_, c)| c.name == name)?;
        let image = container.image.clone().unwrap_or_default();
        let policy = container.image_pull_policy.clone().unwrap_or_default();
        let image = self.image(name, &image, &policy).await?;
        match self.create(&pod, name, attempt, &image).await {
            Ok(id) => Some(id),
            Err((failure, error)) => {
                self.fail(name, failure, error.as_ref());
                None
            }
        }
    }

    async fn run_container(&mut self, name: &str, attempt: u32, tries: u32) {
        let Some(id) = self.make_container(name, attempt).await else { return };
        let started = self.context.runtime.start(&id).await;
        let slot = self.seen.slots.entry(name.to_owned()).or_default();
        (slot.tries, slot.pull) = (tries + 1, Pull::Idle);
        if tries == 0 && attempt == 0 {
            // The first start is no restart: the first restart is free.
            slot.tries = 0;
        }
        self.refresh(&id).await;
        match started {
            Ok(()) => {
                info!(pod = %self.key, container = name, attempt, "container started");
                let subject = Subject { pod: &self.key, uid: &self.uid(), container: Some(name) };
                self.context.events.normal(subject, "Started", "Container started");
                self.clear_fault(name);
            }
            Err(error) => self.fail(name, runtime_failure("RunContainerError", &error), Some(&error)),
        }
        self.link_logs().await;
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
        let sources = self.prepare(Arc::clone(pod), name.to_owned(), attempt).await.map_err(quiet)?;
        let sandbox = self.own_sandbox(pod).map(|one| (one.record.id.clone(), one.record.ip.clone()));
        let (sandbox, ip) = sandbox.unwrap_or_default();
        let mut facts = self.context.facts.clone();
        if !pod.host_network() {
            facts.pod_ip = ip;
        }
        let config = {
            let container = pod.containers().map(|(_, c)| c).find(|c| c.name == name);
            let Some(container) = container else { return Err(quiet(no_such(name))) };
            let place = Place { attempt, sandbox: &sandbox, image_user: &image.user, facts: &facts, sources: &sources };
            config::container(pod, container, &place, &self.context.options)
        };
        let config = config.map_err(|message| quiet(Failure::new("CreateContainerConfigError", message)))?;
        match self.context.runtime.create_container(&config).await {
            Ok(id) => Ok(id),
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
    ) -> Result<Vec<std::path::PathBuf>, Failure> {
        let root = self.context.options.root_dir.clone();
        let prepared = tokio::task::spawn_blocking(move || {
            volumes::prepare(&pod, &root)?;
            let Some((_, container)) = pod.containers().find(|(_, c)| c.name == name) else {
                return Err(no_such(&name));
            };
            if container.termination_message_path.as_deref().is_some_and(|path| !path.is_empty()) {
                let file = volumes::termination_file(&root, &pod.uid, &name, attempt);
                volumes::make_termination_file(&file)
                    .map_err(|error| Failure::new("CreateContainerError", chain(&error)))?;
            }
            Ok(config::mount_sources(&pod, container, &root)?)
        });
        prepared.await.unwrap_or_else(|error| Err(Failure::new("CreateContainerError", error.to_string())))
    }

    /// The UID of the pod that is wanted, or was until a moment ago; empty for an orphan.
    fn uid(&self) -> String {
        self.pod.as_ref().map(|(pod, _)| pod.uid.clone()).unwrap_or_default()
    }

    fn own_sandbox(&self, pod: &StaticPod) -> Option<&Instance> {
        let own = self.seen.instances.values().filter(|one| one.record.name.uid == pod.uid && one.record.is_sandbox);
        own.filter(|one| one.is_running()).max_by_key(|one| one.record.name.attempt)
    }

    /// The image by its pull policy, or None after a pull was begun or a failure remembered.
    async fn image(&mut self, container: &str, image: &str, policy: &str) -> Option<ImageRecord> {
        let pulled = self.seen.slots.get(container).is_some_and(|slot| slot.pulled);
        let local = match self.context.runtime.image(image).await {
            Ok(local) => local,
            Err(error) => {
                self.fail(container, runtime_failure("ImageInspectError", &error), Some(&error));
                return None;
            }
        };
        let slot = self.seen.slots.entry(container.to_owned()).or_default();
        let wants_pull = match policy {
            "Always" => !pulled || local.is_none(),
            _ => local.is_none(),
        };
        if !wants_pull {
            slot.pulled = false;
            return local;
        }
        if policy == "Never" {
            let message = format!("image {image} is not present and its pull policy is Never");
            let until = Instant::now() + PULL.after(1);
            slot.pull = Pull::Failed { reason: "ErrImageNeverPull", message, until, tries: 1 };
            return None;
        }
        let tries = match &slot.pull {
            Pull::Failed { tries, .. } => *tries,
            _ => 0,
        };
        slot.pull_tries = tries;
        slot.pull = Pull::Running { image: image.to_owned() };
        info!(pod = %self.key, image, "pulling");
        let (context, myself) = (Arc::clone(&self.context), self.myself.clone());
        let (container, image) = (container.to_owned(), image.to_owned());
        let uid = self.uid();
        self.pulls.spawn(async move {
            let _turn = context.pulls.acquire().await;
            let result = context.runtime.pull(&image, &|_, _| {}).await;
            let _ = myself.send(Message::Pulled { uid, container, result });
        });
        None
    }

    pub(super) fn pulled(&mut self, container: &str, result: Result<ImageRecord, RuntimeError>) {
        let slot = self.seen.slots.entry(container.to_owned()).or_default();
        match result {
            Ok(_) => (slot.pull, slot.pulled, slot.pull_tries) = (Pull::Idle, true, 0),
            Err(error) => {
                let tries = slot.pull_tries + 1;
                let reason = if tries == 1 { "ErrImagePull" } else { "ImagePullBackOff" };
                let (message, until) = (chain(&error), Instant::now() + PULL.after(tries));
                warn!(pod = %self.key, container, error = message, "cannot pull");
                slot.pull = Pull::Failed { reason, message, until, tries };
                self.note_unreachable(&error);
            }
        }
    }

    /// Links the logs of running containers that have none yet; also of those that were adopted.
    pub(super) async fn link_logs(&mut self) {
        let running = self.seen.instances.values_mut().filter(|one| !one.linked && !one.record.is_sandbox);
        for one in running.filter(|one| one.record.state != ContainerState::Created) {
            let Ok(path) = self.context.runtime.log_path(&one.record.id).await else { continue };
            one.linked = true;
            let Some(path) = path else { continue };
            if let Err(error) = logs::link(&self.context.options, &one.record.name, &one.record.id, Path::new(&path)) {
                warn!(pod = %self.key, error = chain(&error), "cannot link the log");
            }
        }
    }

    /// Reads what containers that ended badly have left. Returns whether there was something new.
    pub(super) async fn hear_last_words(&mut self) -> bool {
        let unheard = |one: &&Instance| {
            let ended = one.exit_code().is_some() && !one.record.is_sandbox;
            ended && !self.words.contains_key(&one.record.id)
        };
        let ended: Vec<_> = self.seen.instances.values().filter(unheard).cloned().collect();
        if self.suspended {
            return false;
        }
        for one in &ended {
            let record = &one.record;
            let log = match one.exit_code() {
                Some(0) => vec![],
                _ => logs::last_words(
                    self.context.runtime.log_tail(&record.id, logs::READ_LINES).await.unwrap_or_default(),
                ),
            };
            let (uid, name) = (&record.name.uid, &record.name);
            let file = volumes::termination_file(&self.context.options.root_dir, uid, &name.container, name.attempt);
            self.words.insert(record.id.clone(), Words { log, message: read_message(&file).await });
        }
        !ended.is_empty()
    }

    fn clear_fault(&mut self, container: &str) {
        if let Some(slot) = self.seen.slots.get_mut(container) {
            slot.fault = None;
        }
    }

    fn fail(&mut self, container: &str, failure: Failure, error: Option<&RuntimeError>) {
        warn!(pod = %self.key, container, reason = failure.reason, message = failure.message, "step failed");
        let slot = self.seen.slots.entry(container.to_owned()).or_default();
        let tries = slot.fault.as_ref().map_or(1, |fault| fault.tries + 1);
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
            one.failures += 1;
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

fn runtime_failure(reason: &'static str, error: &RuntimeError) -> Failure {
    Failure::new(reason, chain(error))
}

/// What a container wrote to its termination message file.
async fn read_message(file: &Path) -> String {
    use tokio::io::AsyncReadExt;
    let Ok(opened) = tokio::fs::File::open(file).await else { return String::new() };
    let mut bytes = Vec::new();
    let _ = opened.take(MESSAGE_LIMIT).read_to_end(&mut bytes).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The probes of a container, with the references in exec commands expanded from what the environment says.
pub fn probes_of(
    pod: &StaticPod,
    container: &k8s_openapi::api::core::v1::Container,
    facts: &env::Facts,
) -> crate::agent::probe::Probes {
    let (mut probes, _) = crate::agent::probe::Probes::of(container);
    let env = env::environment(pod, container, facts).unwrap_or_default();
    let known = env.into_iter().collect();
    probes.expand_commands(&|word| env::expand(word, &known));
    probes
}
