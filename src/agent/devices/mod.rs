//! Device plugins, as a kubelet has them (`k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1`): they register at a socket in
//! `device-plugins` below the root directory, list devices of an extended resource, which the Node then has, and say what a
//! container needs that is given some.
//!
//! [`gate`] has the pods that ask for devices wait until they have them. Which container has which is kept in a file
//! ([`checkpoint`]), for an agent that is restarted. Where no plugin has registered nothing of all that does anything.
//! There is no topology manager: devices are chosen without regard to NUMA nodes, as with the kubelet's policy `none`.

mod checkpoint;
pub mod gate;
mod grant;
mod messages;
mod plugin;
#[rustfmt::skip]
#[allow(dead_code, missing_docs, clippy::all, reason = "generated from src/agent/devices/device_plugin.proto")]
mod proto;
mod server;
mod state;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::{Container, ContainerStatus, ResourceHealth, ResourceStatus};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

pub use grant::Grant;
pub use server::{listen, serve};
pub use state::Amounts;

use super::histogram::{Counters, DEFAULT, Histograms};
use super::pod::StaticPod;
use super::pod::resources::bytes;
use crate::error::chain;
use crate::host::clock::Instant;
use messages::{ContainerAllocateResponse, Device};
use plugin::{Plugin, in_words};
use state::{Choice, Ids, State, Want};

/// Every device plugin, and what its devices are used for.
pub struct Devices {
    dir: PathBuf,
    known: Mutex<Known>,
    /// Something of the Node's resources is another than before.
    changes: watch::Sender<()>,
    /// Held by who writes the file, so that what is older is not written later.
    writes: tokio::sync::Mutex<()>,
    shutdown: CancellationToken,
    tasks: TaskTracker,
    /// Registrations, by resource.
    pub registrations: Counters<1>,
    /// How long plugins take to allocate devices, by resource.
    pub allocations: Histograms<1>,
}

#[derive(Default)]
struct Known {
    state: State,
    /// Those that answer, by resource.
    plugins: BTreeMap<String, Arc<Plugin>>,
}

impl Devices {
    /// Nothing is known. Plugins are watched among `tasks`, until `shutdown`.
    pub fn new(root_dir: &Path, shutdown: CancellationToken, tasks: TaskTracker) -> Self {
        Self {
            dir: root_dir.join("device-plugins"),
            known: Mutex::default(),
            changes: watch::Sender::new(()),
            writes: tokio::sync::Mutex::default(),
            shutdown,
            tasks,
            registrations: Counters::default(),
            allocations: Histograms::new(DEFAULT),
        }
    }

    /// Takes up what an agent or a kubelet before this one has given.
    pub fn restore(&self) {
        match checkpoint::read(&self.dir) {
            Ok((pods, registered)) => self.lock().state = State::restored(pods, registered, Instant::now()),
            Err(error) => {
                warn!(error = chain(&error), "what containers have of devices is not known: give them again by hand");
            }
        }
    }

    /// Tells each time the resources of the Node change.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// What the Node has of the resources of plugins.
    pub async fn amounts(&self) -> BTreeMap<String, Amounts> {
        let expired = self.lock().state.expire(Instant::now());
        if expired {
            self.save_or_warn().await;
        }
        self.lock().state.amounts()
    }

    /// Whether no plugin has ever registered, or none is known any more.
    pub fn is_idle(&self) -> bool {
        self.lock().state.is_empty()
    }

    /// Whether a pod has devices.
    pub fn has(&self, uid: &str) -> bool {
        self.lock().state.pods().contains_key(uid)
    }

    /// Adds to the statuses of a pod's containers which devices they have, and whether they are healthy.
    pub fn show(&self, uid: &str, statuses: &mut [ContainerStatus]) {
        let state = &self.lock().state;
        for status in statuses.iter_mut().filter(|_| state.pods().contains_key(uid)) {
            let health = |(resource_id, is): (String, bool)| {
                let word = if is { "Healthy" } else { "Unhealthy" };
                ResourceHealth { resource_id, health: Some(word.to_owned()), ..ResourceHealth::default() }
            };
            let all = state.health(uid, &status.name).into_iter().map(|(name, devices)| ResourceStatus {
                name,
                resources: Some(devices.into_iter().map(health).collect()),
            });
            status.allocated_resources_status = Some(all.collect()).filter(|all: &Vec<_>| !all.is_empty());
        }
    }

    /// Whether a pod asks for devices.
    pub fn wants(&self, pod: &StaticPod) -> bool {
        let known = self.lock();
        pod.containers().any(|(_, container)| asks(container).any(|(name, _)| known.state.manages(name)))
    }

    /// Gives a pod its devices, container by container, in the kubelet's order: what an init container has may be had by
    /// the next ones too, unless it is a sidecar. Before that, what all but `active` pods have is free; nothing is where it
    /// is not known which they are.
    ///
    /// # Errors
    /// Why it cannot have them, in the kubelet's words. It has none then.
    pub async fn allocate(&self, pod: &StaticPod, active: Option<&BTreeSet<String>>) -> Result<(), String> {
        if let Some(active) = active {
            self.lock().state.keep(active);
        }
        let given = self.allocate_all(pod).await;
        if given.is_err() {
            self.lock().state.forget(&pod.uid);
        }
        given?;
        self.save().await
    }

    async fn allocate_all(&self, pod: &StaticPod) -> Result<(), String> {
        let mut reusable = BTreeMap::new();
        for (is_init, container) in pod.containers() {
            self.allocate_for(&pod.uid, container, &reusable).await?;
            let passes_on = is_init && container.restart_policy.as_deref() != Some("Always");
            for (resource, ids) in self.lock().state.all_of(&pod.uid, &container.name) {
                let left: &mut Ids = reusable.entry(resource).or_default();
                match passes_on {
                    true => left.extend(ids),
                    false => left.retain(|id| !ids.contains(id)),
                }
            }
        }
        Ok(())
    }

    async fn allocate_for(
        &self,
        uid: &str,
        container: &Container,
        reusable: &BTreeMap<String, Ids>,
    ) -> Result<(), String> {
        let none = Ids::new();
        for (resource, count) in asks(container) {
            if !self.lock().state.manages(resource) {
                continue;
            }
            let want = Want { uid, container: &container.name, resource, count };
            let Some(devices) = self.choose(want, reusable.get(resource).unwrap_or(&none)).await? else { continue };
            let answer = self.ask_to_allocate(resource, &devices).await;
            let state = &mut self.lock().state;
            match answer {
                Ok(answer) => state.given(want, answer),
                Err(why) => {
                    state.take_back(want);
                    return Err(why);
                }
            }
        }
        Ok(())
    }

    /// The devices that are reserved for a container; None where it needs no more than it has.
    async fn choose(&self, want: Want<'_>, reusable: &Ids) -> Result<Option<Ids>, String> {
        let choice = self.lock().state.choose(want, reusable, None)?;
        let choice = match choice {
            Choice::Ask { available, must_include } => {
                let plugin = self.plugin(want.resource)?;
                let preferred = plugin.preferred(available, must_include, want.count).await?;
                // What was free then may not be any more: chosen is now.
                self.lock().state.choose(want, reusable, Some(&preferred))?
            }
            choice => choice,
        };
        Ok(match choice {
            Choice::Take(devices) => Some(devices),
            Choice::Nothing | Choice::Ask { .. } => None,
        })
    }

    async fn ask_to_allocate(&self, resource: &str, devices: &Ids) -> Result<ContainerAllocateResponse, String> {
        let (plugin, started) = (self.plugin(resource)?, Instant::now());
        let answer = plugin.allocate(devices).await;
        self.allocations.time([resource.to_owned().into()], started.elapsed());
        answer
    }

    fn plugin(&self, resource: &str) -> Result<Arc<Plugin>, String> {
        let known = self.lock();
        match (known.plugins.get(resource), known.state.options(resource)) {
            (Some(plugin), _) => Ok(Arc::clone(plugin)),
            (None, Some(_)) => Err(format!("endpoint {resource} has been stopped")),
            (None, None) => Err(format!("unknown Device Plugin {resource}")),
        }
    }

    /// What a container gets that is about to be made, once plugins that want to be notified have been. One that was never
    /// given its devices, for its plugin came later, is given them now.
    ///
    /// # Errors
    /// In the kubelet's words.
    pub async fn grant(&self, uid: &str, container: &Container) -> Result<Grant, String> {
        if self.is_idle() {
            return Ok(Grant::default());
        }
        let mut is_new = false;
        for (resource, count) in asks(container).filter(|(_, count)| *count > 0) {
            let want = Want { uid, container: &container.name, resource, count };
            let (is_device, options, devices) = {
                let state = &self.lock().state;
                (state.manages(resource), state.options(resource), state.devices_of(want))
            };
            if !is_device {
                continue;
            }
            let missing = || format!("endpoint not found in cache for a registered resource: {resource}");
            let options = options.ok_or_else(missing)?;
            is_new |= devices.is_none();
            if options.pre_start_required {
                let devices = devices.ok_or_else(|| {
                    let container = &container.name;
                    format!(
                        "no devices found allocated in local cache for pod {uid}, container {container}, resource {resource}"
                    )
                })?;
                self.plugin(resource)?.pre_start(&devices).await?;
            }
        }
        if is_new {
            self.allocate_for(uid, container, &BTreeMap::new()).await?;
            self.save().await?;
        }
        Ok(Grant::of(self.lock().state.answers(uid, &container.name)))
    }

    /// A plugin has registered: from now on it is the one of its resource.
    async fn connect(self: &Arc<Self>, resource: &str, endpoint: &str) -> Result<(), String> {
        // As Go joins paths: what begins with a slash is below the directory too.
        let socket = self.dir.join(endpoint.trim_start_matches('/'));
        let plugin = Arc::new(Plugin::connect(resource, &socket).await?);
        let options = plugin.options().await?;
        let before = {
            let mut known = self.lock();
            known.state.connected(resource, options);
            known.plugins.insert(resource.to_owned(), Arc::clone(&plugin))
        };
        if let Some(before) = before {
            before.ended().cancel();
        }
        info!(resource, socket = %socket.display(), "a device plugin has registered");
        let (devices, resource, shutdown) = (Arc::clone(self), resource.to_owned(), self.shutdown.clone());
        self.tasks.spawn(async move { shutdown.run_until_cancelled(devices.watch(&resource, &plugin)).await });
        Ok(())
    }

    /// Hears of the devices of a plugin until it ends or is replaced. It is not asked again: it registers again.
    async fn watch(&self, resource: &str, plugin: &Arc<Plugin>) {
        let Some(why) = plugin.ended().run_until_cancelled(self.hear(resource, plugin)).await else { return };
        plugin.ended().cancel();
        {
            let mut known = self.lock();
            if !known.plugins.get(resource).is_some_and(|current| Arc::ptr_eq(current, plugin)) {
                return;
            }
            known.plugins.remove(resource);
            known.state.disconnected(resource, Instant::now());
        }
        warn!(resource, why, "a device plugin has ended; its devices cannot be used until it registers again");
        self.changes.send_replace(());
    }

    /// Returns why nothing is heard any more.
    async fn hear(&self, resource: &str, plugin: &Arc<Plugin>) -> String {
        let mut lists = match plugin.list_and_watch().await {
            Ok(lists) => lists,
            Err(why) => return why,
        };
        loop {
            match lists.message().await {
                Ok(Some(list)) => self.listed(resource, plugin, list.devices).await,
                Ok(None) => return "EOF".to_owned(),
                Err(status) => return in_words(&status),
            }
        }
    }

    async fn listed(&self, resource: &str, plugin: &Arc<Plugin>, devices: Vec<Device>) {
        {
            let mut known = self.lock();
            if !known.plugins.get(resource).is_some_and(|current| Arc::ptr_eq(current, plugin)) {
                return;
            }
            known.state.listed(resource, devices);
        }
        self.changes.send_replace(());
        self.save_or_warn().await;
    }

    async fn save_or_warn(&self) {
        if let Err(why) = self.save().await {
            warn!(why, "an agent that is restarted will not know which container has which devices");
        }
    }

    /// Writes the file.
    async fn save(&self) -> Result<(), String> {
        let _alone = self.writes.lock().await;
        let (pods, registered, dir) = {
            let state = &self.lock().state;
            (state.pods().clone(), state.registered(), self.dir.clone())
        };
        let written = tokio::task::spawn_blocking(move || checkpoint::write(&dir, &pods, registered)).await;
        let failed = |why: String| format!("failed to write checkpoint file {:?}: {why}", checkpoint::FILE);
        written.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(chain(&error)))
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The resources that a container asks for, and how much of each. Of extended ones the limit is what is asked for.
fn asks(container: &Container) -> impl Iterator<Item = (&str, usize)> {
    let limits = container.resources.iter().flat_map(|all| all.limits.iter().flatten());
    limits.map(|(name, quantity)| {
        let count = bytes(quantity).and_then(|count| usize::try_from(count).ok());
        (name.as_str(), count.unwrap_or(0))
    })
}

#[cfg(test)]
pub mod tests;
