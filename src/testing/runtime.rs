//! A container runtime in memory: it records every call, fails the n-th one by name, and its containers live, exit and
//! ignore signals as the test says. It waits on tokio's clock alone, so that it works under a paused one.

mod calls;
mod container;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{broadcast, watch};

use crate::host::clock::Instant;
use crate::runtime::*;

pub use container::container_config;

/// One call the runtime has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The trait's method name (`create_container`).
    pub name: &'static str,
    /// Container id, image reference or owner; for `create_*`, the dockershim name `k8s_<container>_<pod>_...`; for
    /// `exec`, the id and the command, joined by spaces; for `stop`, the id and the grace (`etcd-3 30s`).
    pub argument: String,
    /// When, on tokio's clock.
    pub at: Instant,
}

/// What the containers of one name do, besides running for ever.
#[derive(Debug, Clone)]
pub struct Behaviour {
    /// Exit by itself this long after the start, with this code.
    pub exits_after: Option<(Duration, i64)>,
    /// Survive SIGTERM until the grace is used up.
    pub ignores_sigterm: bool,
    /// How long the way from SIGTERM to the exit takes.
    pub sigterm_takes: Duration,
    /// Exit code after SIGTERM.
    pub sigterm_exit_code: i64,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self { exits_after: None, ignores_sigterm: false, sigterm_takes: Duration::ZERO, sigterm_exit_code: 143 }
    }
}

/// What a container was made from.
#[allow(clippy::large_enum_variant, reason = "tests have few of them")]
#[derive(Debug, Clone, PartialEq)]
pub enum MadeFrom {
    /// By `create_sandbox`.
    Sandbox(Box<SandboxConfig>),
    /// By `create_container`.
    Container(Box<ContainerConfig>),
}

type ExecAnswer = Arc<dyn Fn(&[String]) -> Result<ExecOutput> + Send + Sync>;
type Failure = Box<dyn Fn(&str) -> Option<RuntimeError> + Send>;

struct FakeContainer {
    record: ContainerRecord,
    made_from: MadeFrom,
    log: Vec<String>,
    /// Its last line has no newline yet.
    log_is_open: bool,
    /// Grows with each start, so that a timer of an earlier run does not end a later one.
    run: u64,
}

#[derive(Default)]
struct Inner {
    calls: Vec<Call>,
    failures: Vec<(String, usize, RuntimeError)>,
    rules: Vec<(String, Failure)>,
    containers: BTreeMap<String, FakeContainer>,
    made: u64,
    images: BTreeMap<String, ImageRecord>,
    registry: BTreeMap<String, Duration>,
    demands: BTreeMap<String, (String, String)>,
    pulled_as: Vec<Option<String>>,
    behaviours: HashMap<String, Behaviour>,
    exec_answers: HashMap<String, (Duration, ExecAnswer)>,
    unreachable: bool,
    network: PodNetwork,
    cgroup_driver: Option<CgroupDriver>,
    features: RuntimeFeatures,
    needs_sandbox: bool,
}

struct Shared {
    inner: Mutex<Inner>,
    events: Mutex<broadcast::Sender<(RuntimeEvent, String)>>,
    changed: watch::Sender<u64>,
    started: (Timestamp, Instant),
}

/// See the module. Clones share everything.
#[derive(Clone)]
pub struct FakeRuntime(Arc<Shared>);

impl Default for FakeRuntime {
    fn default() -> Self {
        Self::new()
    }
}

/// Setting up, and looking.
impl FakeRuntime {
    /// A runtime with no containers and no images, whose registry has none either.
    pub fn new() -> Self {
        Self(Arc::new(Shared {
            inner: Mutex::default(),
            events: Mutex::new(broadcast::channel(1024).0),
            changed: watch::channel(0).0,
            started: (Timestamp::now(), Instant::now()),
        }))
    }

    /// Puts an image into the local store.
    pub fn with_image(self, reference: &str) -> Self {
        self.add_image(reference);
        self
    }

    /// Puts an image into the local store.
    pub fn add_image(&self, reference: &str) {
        self.lock().images.insert(reference.to_owned(), image_record(reference));
    }

    /// From now on pods' network is like this.
    pub fn set_pod_network(&self, network: PodNetwork) {
        self.lock().network = network;
    }

    /// How it makes cgroups; None, which it begins with, where it cannot be told of a parent.
    pub fn set_cgroup_driver(&self, driver: Option<CgroupDriver>) {
        self.lock().cgroup_driver = driver;
    }

    /// From now on it can this.
    pub fn set_features(&self, features: RuntimeFeatures) {
        self.lock().features = features;
    }

    /// From now on every pod has a sandbox and the agent rotates logs, as with a runtime that speaks CRI.
    pub fn set_needs_sandbox(&self) {
        self.lock().needs_sandbox = true;
    }

    /// Makes an image pullable; the pull takes this long.
    pub fn registry_has(&self, reference: &str, takes: Duration) {
        self.lock().registry.insert(reference.to_owned(), takes);
    }

    /// Lets no one but this user with this password pull an image.
    pub fn registry_demands(&self, reference: &str, username: &str, password: &str) {
        self.lock().demands.insert(reference.to_owned(), (username.to_owned(), password.to_owned()));
    }

    /// As whom it was tried to pull, in order.
    pub fn pulled_as(&self) -> Vec<Option<String>> {
        self.lock().pulled_as.clone()
    }

    /// Makes the `n`-th call of `name` from now on (1 is the next one) fail with `error`, once.
    pub fn fail_nth(&self, name: &str, n: usize, error: RuntimeError) {
        let mut inner = self.lock();
        let seen = inner.calls.iter().filter(|call| call.name == name).count();
        inner.failures.push((name.to_owned(), seen + n, error));
    }

    /// Makes every call of `name` fail for whose argument (see [`Call::argument`]) `rule` returns an error, until
    /// [`FakeRuntime::heal`].
    pub fn fail_when(&self, name: &str, rule: impl Fn(&str) -> Option<RuntimeError> + Send + 'static) {
        self.lock().rules.push((name.to_owned(), Box::new(rule)));
    }

    /// Forgets every failure that was asked for.
    pub fn heal(&self) {
        let mut inner = self.lock();
        inner.failures.clear();
        inner.rules.clear();
    }

    /// Whether every call fails as `Unreachable`. Going away also ends every event stream.
    pub fn set_unreachable(&self, unreachable: bool) {
        self.lock().unreachable = unreachable;
        if unreachable {
            self.disconnect_events();
        }
    }

    /// Ends every event stream, as a restart of the daemon does.
    pub fn disconnect_events(&self) {
        *self.0.events.lock().expect("no test panicked") = broadcast::channel(1024).0;
    }

    /// How many event streams are being listened to.
    pub fn listeners(&self) -> usize {
        self.0.events.lock().expect("no test panicked").receiver_count()
    }

    /// What containers named `container` do from their next start on.
    pub fn behave(&self, container: &str, behaviour: Behaviour) {
        self.lock().behaviours.insert(container.to_owned(), behaviour);
    }

    /// What a command in containers named `container` answers, and how long it takes. Without this: exit code 0 at
    /// once.
    pub fn answer_exec(
        &self,
        container: &str,
        takes: Duration,
        answer: impl Fn(&[String]) -> Result<ExecOutput> + Send + Sync + 'static,
    ) {
        self.lock().exec_answers.insert(container.to_owned(), (takes, Arc::new(answer)));
    }

    /// Sets what `log_tail` finds.
    pub fn set_log(&self, id: &str, lines: &[&str]) {
        let lines = lines.iter().map(|line| (*line).to_owned()).collect();
        self.with(id, |container| container.log = lines);
    }

    /// Takes the newline of its last line out of a container's log.
    pub fn open_log(&self, id: &str) {
        self.with(id, |container| container.log_is_open = true);
    }

    /// Writes a line to a container's log.
    pub fn write_log(&self, id: &str, line: &str) {
        self.with(id, |container| container.log.push(line.to_owned()));
    }

    /// Ends a running container by itself, with this code.
    pub fn exit_container(&self, id: &str, code: i64) {
        self.end(id, code, if code == 0 { "Completed" } else { "Error" });
    }

    /// Kills a running container as `kill -9` does: exit code 137.
    pub fn kill(&self, id: &str) {
        self.end(id, 137, "Error");
    }

    /// Kills a running container as the kernel does when memory is short.
    pub fn oom_kill(&self, id: &str) {
        self.end(id, 137, "OOMKilled");
    }

    /// Removes a container behind everybody's back, as `docker rm -f` does.
    pub fn destroy(&self, id: &str) {
        self.kill(id);
        self.drop_container(id);
    }

    /// Every call so far, in order.
    pub fn calls(&self) -> Vec<Call> {
        self.lock().calls.clone()
    }

    /// The arguments of every call of this name so far, in order.
    pub fn calls_of(&self, name: &str) -> Vec<String> {
        self.lock().calls.iter().filter(|call| call.name == name).map(|call| call.argument.clone()).collect()
    }

    /// Forgets the calls so far.
    pub fn clear_calls(&self) {
        self.lock().calls.clear();
    }

    /// Every container and sandbox, in the order they were made.
    pub fn containers(&self) -> Vec<ContainerRecord> {
        let mut all: Vec<(u64, ContainerRecord)> =
            self.lock().containers.values().map(|one| (serial(&one.record.id), one.record.clone())).collect();
        all.sort_by_key(|(serial, _)| *serial);
        all.into_iter().map(|(_, record)| record).collect()
    }

    /// The newest container of this pod (name with the node's suffix) and name (`POD` for the sandbox).
    pub fn find(&self, pod: &str, container: &str) -> Option<ContainerRecord> {
        self.containers().into_iter().rev().find(|one| one.name.pod == pod && one.name.container == container)
    }

    /// What a container was made from.
    pub fn made_from(&self, id: &str) -> Option<MadeFrom> {
        self.lock().containers.get(id).map(|container| container.made_from.clone())
    }

    /// Waits until `condition` holds; panics with all calls when it does not within 10 minutes of tokio's clock.
    pub async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let mut changed = self.0.changed.subscribe();
        let wait = async {
            while !condition(self) {
                changed.changed().await.expect("the sender lives as long as self");
            }
        };
        if tokio::time::timeout(Duration::from_secs(600), wait).await.is_err() {
            panic!("{what}: not within 600 s; containers {:#?}; calls {:#?}", self.containers(), self.calls());
        }
    }
}

/// How it works.
impl FakeRuntime {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A rule may panic to see what becomes of its caller.
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Timestamp {
        let (timestamp, instant) = self.0.started;
        timestamp + jiff::SignedDuration::try_from(instant.elapsed()).expect("a short test")
    }

    fn touch(&self) {
        self.0.changed.send_modify(|version| *version += 1);
    }

    /// Records a call and fails it if that was asked for.
    fn record(&self, name: &'static str, argument: &str) -> Result<()> {
        let answer = {
            let mut inner = self.lock();
            inner.calls.push(Call { name, argument: argument.to_owned(), at: Instant::now() });
            let count = inner.calls.iter().filter(|call| call.name == name).count();
            let due = inner.failures.iter().position(|(failing, nth, _)| failing == name && *nth == count);
            if let Some(due) = due {
                Err(inner.failures.remove(due).2)
            } else if inner.unreachable {
                Err(RuntimeError::Unreachable { address: "fake".into(), source: "set unreachable".into() })
            } else {
                let error = inner.rules.iter().find_map(|(failing, rule)| (failing == name).then(|| rule(argument))?);
                error.map_or(Ok(()), Err)
            }
        };
        self.touch();
        answer
    }

    fn with<T>(&self, id: &str, act: impl FnOnce(&mut FakeContainer) -> T) -> Option<T> {
        let done = self.lock().containers.get_mut(id).map(act);
        self.touch();
        done
    }

    /// Looks at a container, which wakes no one.
    fn with_quietly<T>(&self, id: &str, look: impl FnOnce(&FakeContainer) -> T) -> Option<T> {
        self.lock().containers.get(id).map(look)
    }

    fn get<T>(&self, id: &str, act: impl FnOnce(&mut FakeContainer) -> T) -> Result<T> {
        self.with(id, act).ok_or_else(|| RuntimeError::NotFound { what: format!("container {id}") })
    }

    fn tell(&self, record: &ContainerRecord, kind: RuntimeEventKind) {
        let event = RuntimeEvent { id: record.id.clone(), pod_uid: record.name.uid.clone(), kind };
        let owner = record.labels.get(labels::OWNER).cloned().unwrap_or_default();
        let _ = self.0.events.lock().expect("no test panicked").send((event, owner));
        self.touch();
    }

    /// Ends a running container; nothing happens to another.
    fn end(&self, id: &str, exit_code: i64, reason: &str) {
        let now = self.now();
        let ended = self.with(id, |container| {
            let ContainerState::Running { started_at } = container.record.state else { return None };
            container.record.ip = None;
            container.record.state = ContainerState::Exited {
                exit_code,
                reason: reason.to_owned(),
                message: String::new(),
                started_at: Some(started_at),
                finished_at: Some(now),
            };
            Some(container.record.clone())
        });
        if let Some(Some(record)) = ended {
            self.tell(&record, RuntimeEventKind::Exited);
        }
    }

    fn drop_container(&self, id: &str) {
        let removed = self.lock().containers.remove(id);
        if let Some(container) = removed {
            self.tell(&container.record, RuntimeEventKind::Removed);
        }
    }

    fn create(&self, image: &str, name: &ContainerName, made_from: MadeFrom) -> Result<String> {
        let image = self.find_image(image).ok_or_else(|| RuntimeError::NotFound { what: format!("image {image}") })?;
        let leftovers: Vec<String> = self
            .containers()
            .into_iter()
            .filter(|one| one.name == *name && !one.state.is_running())
            .map(|c| c.id)
            .collect();
        for leftover in leftovers {
            self.drop_container(&leftover);
        }
        let (labels, annotations, is_sandbox) = match &made_from {
            MadeFrom::Sandbox(config) => (&config.labels, &config.annotations, true),
            MadeFrom::Container(config) => (&config.labels, &config.annotations, false),
        };
        let created_at = Some(self.now());
        let mut inner = self.lock();
        inner.made += 1;
        let id = format!("{}-{}", name.container, inner.made);
        let record = ContainerRecord {
            runtime: "docker",
            id: id.clone(),
            name: name.clone(),
            is_sandbox,
            image: image.tags.first().cloned().unwrap_or_default(),
            image_id: image.id,
            state: ContainerState::Created,
            created_at,
            ip: None,
            user: (!is_sandbox).then(|| ContainerUser { uid: 0, gid: 0, groups: vec![0] }),
            labels: labels.clone(),
            annotations: annotations.clone(),
        };
        inner
            .containers
            .insert(id.clone(), FakeContainer { record, made_from, log: vec![], log_is_open: false, run: 0 });
        drop(inner);
        self.touch();
        Ok(id)
    }

    fn find_image(&self, reference: &str) -> Option<ImageRecord> {
        let inner = self.lock();
        inner.images.get(reference).or_else(|| inner.images.values().find(|image| image.id == reference)).cloned()
    }

    fn behaviour(&self, container: &str) -> Behaviour {
        self.lock().behaviours.get(container).cloned().unwrap_or_default()
    }

    /// Ends the run of a container later, unless it was ended and started again by then.
    fn end_later(&self, id: String, run: u64, after: Duration, code: i64) {
        let fake = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            if fake.with(&id, |container| container.run == run) == Some(true) {
                fake.exit_container(&id, code);
            }
        });
    }

    async fn until_stopped(&self, id: &str) {
        let id = id.to_owned();
        self.until("a container stops", move |fake| {
            fake.lock().containers.get(&id).is_none_or(|container| !container.record.state.is_running())
        })
        .await;
    }
}

fn image_record(reference: &str) -> ImageRecord {
    ImageRecord { id: format!("sha256:{reference}"), tags: vec![reference.to_owned()], size: 100, user: String::new() }
}

/// The number at the end of a fake id.
fn serial(id: &str) -> u64 {
    id.rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
