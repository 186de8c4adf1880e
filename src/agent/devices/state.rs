//! Which devices there are, and which container has which. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::messages::{ContainerAllocateResponse, Device, DevicePluginOptions, HEALTHY};
use crate::host::clock::Instant;

/// How long the devices of a plugin that has ended are still shown as capacity of the Node.
pub const STOP_GRACE: Duration = Duration::from_secs(300);
/// The NUMA node of a device that is of none.
const NO_NUMA: i64 = -1;

/// Devices by their ids.
pub type Ids = BTreeSet<String>;

/// The devices of a plugin.
#[derive(Debug, Default)]
struct Resource {
    /// None before they were listed once, by the plugin or by one before it.
    healthy: Option<Ids>,
    /// None before they were listed, or the plugin ended.
    unhealthy: Option<Ids>,
    numa: BTreeMap<String, Vec<i64>>,
    /// Those that were unhealthy when they were listed last; that the plugin has ended since says nothing of a device.
    ill: Ids,
    options: DevicePluginOptions,
    /// Since when there is no plugin.
    stopped: Option<Instant>,
}

/// What a container was given of a resource.
#[derive(Debug, Clone, PartialEq)]
pub struct Allocation {
    /// Devices by NUMA node.
    pub devices: BTreeMap<i64, Vec<String>>,
    /// What the plugin said; None while it is asked.
    pub answer: Option<ContainerAllocateResponse>,
}

impl Allocation {
    fn ids(&self) -> impl Iterator<Item = &String> {
        self.devices.values().flatten()
    }
}

/// What a container asks for.
#[derive(Debug, Clone, Copy)]
pub struct Want<'a> {
    /// UID of its pod.
    pub uid: &'a str,
    /// Its name.
    pub container: &'a str,
    /// The resource.
    pub resource: &'a str,
    /// How many devices.
    pub count: usize,
}

/// What is to be done about a [`Want`].
#[derive(Debug, PartialEq, Eq)]
pub enum Choice {
    /// Nothing: the container has its devices, or asks for none.
    Nothing,
    /// The plugin is to be asked which ones it prefers.
    Ask {
        /// Of these,
        available: Ids,
        /// with all of these.
        must_include: Ids,
    },
    /// These are reserved for it, and the plugin is to allocate them.
    Take(Ids),
}

/// A resource in the status of the Node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Amounts {
    /// All devices.
    pub capacity: usize,
    /// Those that are healthy.
    pub allocatable: usize,
}

/// What each container has, by UID of its pod, name and resource.
pub type Pods = BTreeMap<String, BTreeMap<String, BTreeMap<String, Allocation>>>;

/// See the module.
#[derive(Debug, Default)]
pub struct State {
    resources: BTreeMap<String, Resource>,
    /// Resources whose plugins have ended long ago. The Node shows that it has none of them.
    removed: Ids,
    pods: Pods,
}

impl State {
    /// What an agent before this one knew. Its plugins have to register again.
    pub fn restored(pods: Pods, registered: Ids, now: Instant) -> Self {
        let resource = || Resource {
            healthy: Some(Ids::new()),
            unhealthy: Some(Ids::new()),
            stopped: Some(now),
            ..Resource::default()
        };
        let resources = registered.into_iter().map(|name| (name, resource())).collect();
        Self { resources, removed: Ids::new(), pods }
    }

    /// Whether nothing was ever heard of a plugin.
    pub fn is_empty(&self) -> bool {
        self.resources.is_empty() && self.pods.is_empty()
    }

    /// A plugin has registered. Its devices are what they were until it lists them.
    pub fn connected(&mut self, resource: &str, options: DevicePluginOptions) {
        let known = self.resources.entry(resource.to_owned()).or_default();
        (known.options, known.stopped) = (options, None);
    }

    /// A plugin says which devices there are.
    pub fn listed(&mut self, resource: &str, devices: Vec<Device>) {
        self.removed.remove(resource);
        let known = self.resources.entry(resource.to_owned()).or_default();
        let (healthy, unhealthy): (Vec<&Device>, _) = devices.iter().partition(|device| device.health == HEALTHY);
        let ids = |devices: Vec<&Device>| devices.into_iter().map(|device| device.id.clone()).collect();
        known.ill = ids(unhealthy);
        (known.healthy, known.unhealthy) = (Some(ids(healthy)), Some(known.ill.clone()));
        let nodes = |device: &Device| device.topology.iter().flat_map(|all| &all.nodes).map(|node| node.id).collect();
        known.numa = devices.iter().map(|device| (device.id.clone(), nodes(device))).collect();
    }

    /// A plugin has ended: none of its devices can be used.
    pub fn disconnected(&mut self, resource: &str, now: Instant) {
        let Some(known) = self.resources.get_mut(resource) else { return };
        let before = known.healthy.as_mut().map(std::mem::take).unwrap_or_default();
        known.unhealthy.get_or_insert_default().extend(before);
        known.stopped = Some(now);
    }

    /// Forgets the resources whose plugins have ended long ago, and returns whether there were any.
    pub fn expire(&mut self, now: Instant) -> bool {
        let is_over = |known: &Resource| known.stopped.is_some_and(|since| now.duration_since(since) > STOP_GRACE);
        let over: Ids =
            self.resources.iter().filter(|(_, known)| is_over(known)).map(|(name, _)| name.clone()).collect();
        self.resources.retain(|name, _| !over.contains(name));
        let some = !over.is_empty();
        self.removed.extend(over);
        some
    }

    /// What the Node has. A resource that was removed stays, as nothing, as with the kubelet: so it differs from those of
    /// the cluster, which Nodes do not have.
    pub fn amounts(&self) -> BTreeMap<String, Amounts> {
        let none = Amounts { capacity: 0, allocatable: 0 };
        let mut all: BTreeMap<String, Amounts> = self.removed.iter().map(|name| (name.clone(), none)).collect();
        for (name, known) in &self.resources {
            let count = |ids: &Option<Ids>| ids.as_ref().map_or(0, Ids::len);
            let (healthy, unhealthy) = (count(&known.healthy), count(&known.unhealthy));
            if known.healthy.is_some() || known.unhealthy.is_some() {
                let amounts = Amounts { capacity: healthy.saturating_add(unhealthy), allocatable: healthy };
                all.insert(name.clone(), amounts);
            }
        }
        all
    }

    /// Whether a resource is, or was, a plugin's. Others are no devices.
    pub fn manages(&self, resource: &str) -> bool {
        self.resources.get(resource).is_some_and(|known| known.healthy.is_some())
            || self.allocations().any(|(name, _)| name == resource)
    }

    /// The options of the plugin that a resource has or had; None where it was removed.
    pub fn options(&self, resource: &str) -> Option<DevicePluginOptions> {
        self.resources.get(resource).map(|known| known.options)
    }

    fn allocations(&self) -> impl Iterator<Item = (&String, &Allocation)> {
        self.pods.values().flat_map(BTreeMap::values).flatten()
    }

    /// The devices that a container has of a resource; None where it was given none.
    pub fn devices_of(&self, want: Want<'_>) -> Option<Ids> {
        let allocation = self.pods.get(want.uid)?.get(want.container)?.get(want.resource)?;
        allocation.answer.as_ref().map(|_| allocation.ids().cloned().collect())
    }

    /// Chooses the devices of a container: `reusable` ones first, which an init container of its pod had, then those that
    /// the plugin prefers, once it was asked, then any.
    ///
    /// # Errors
    /// Why there are none for it, in the kubelet's words.
    pub fn choose(&mut self, want: Want<'_>, reusable: &Ids, preferred: Option<&Ids>) -> Result<Choice, String> {
        let Want { uid, container, resource, count } = want;
        let had = self.devices_of(want);
        if let Some(had) = had.as_ref().filter(|had| had.len() != count) {
            let before = had.len();
            return Err(format!(
                "pod {uid:?} container {container:?} changed request for resource {resource:?} from {before} to {count}"
            ));
        }
        let known = self.resources.get(resource);
        let healthy = known.and_then(|known| known.healthy.as_ref());
        let Some((known, healthy)) = known.zip(healthy) else {
            return Err(format!("cannot allocate unregistered device {resource}"));
        };
        if healthy.is_empty() {
            return Err(format!("no healthy devices present; cannot allocate unhealthy devices {resource}"));
        }
        if had.as_ref().is_some_and(|had| !had.is_subset(healthy)) {
            return Err(format!(
                "previously allocated devices are no longer healthy; cannot allocate unhealthy devices {resource}"
            ));
        }
        if had.is_some() || count == 0 {
            return Ok(Choice::Nothing);
        }
        let mut taken: Ids = reusable.iter().take(count).cloned().collect();
        let missing = count.saturating_sub(taken.len());
        if missing > 0 {
            let of_it = self.allocations().filter(|(name, _)| *name == resource);
            let in_use: BTreeSet<&String> = of_it.flat_map(|(_, allocation)| allocation.ids()).collect();
            let available: Ids = healthy.iter().filter(|id| !in_use.contains(id)).cloned().collect();
            if available.len() < missing {
                return Err(format!(
                    "requested number of devices unavailable for {resource}. Requested: {missing}, Available: {}",
                    available.len()
                ));
            }
            let Some(preferred) = preferred.or_else(|| no_preference(known.options)) else {
                return Ok(Choice::Ask { available: available.union(&taken).cloned().collect(), must_include: taken });
            };
            let in_order = preferred.intersection(&available).chain(available.difference(preferred));
            taken.extend(in_order.take(missing).cloned());
        }
        let devices = known.by_numa(&taken);
        let of_container = self.pods.entry(uid.to_owned()).or_default().entry(container.to_owned()).or_default();
        of_container.insert(resource.to_owned(), Allocation { devices, answer: None });
        Ok(Choice::Take(taken))
    }

    /// The plugin has allocated what was reserved, unless the pod has gone meanwhile.
    pub fn given(&mut self, want: Want<'_>, answer: ContainerAllocateResponse) {
        let of_pod = self.pods.get_mut(want.uid).and_then(|pod| pod.get_mut(want.container));
        if let Some(allocation) = of_pod.and_then(|container| container.get_mut(want.resource)) {
            allocation.answer = Some(answer);
        }
    }

    /// The plugin has not.
    pub fn take_back(&mut self, want: Want<'_>) {
        if let Some(of_container) = self.pods.get_mut(want.uid).and_then(|pod| pod.get_mut(want.container)) {
            of_container.remove(want.resource);
        }
    }

    /// All that a pod has is free.
    pub fn forget(&mut self, uid: &str) {
        self.pods.remove(uid);
    }

    /// Only pods with these UIDs have devices from now on.
    pub fn keep(&mut self, active: &BTreeSet<String>) {
        self.pods.retain(|uid, _| active.contains(uid));
    }

    /// What plugins have answered for a container, by resource.
    pub fn answers(&self, uid: &str, container: &str) -> Vec<ContainerAllocateResponse> {
        let given = self.pods.get(uid).and_then(|pod| pod.get(container)).into_iter().flatten();
        given.filter_map(|(_, allocation)| allocation.answer.clone()).collect()
    }

    /// All that a container has, by resource.
    pub fn all_of(&self, uid: &str, container: &str) -> BTreeMap<String, Ids> {
        let given = self.pods.get(uid).and_then(|pod| pod.get(container)).into_iter().flatten();
        given.map(|(resource, allocation)| (resource.clone(), allocation.ids().cloned().collect())).collect()
    }

    /// How the devices of a container are: by resource each one, and whether it is healthy.
    pub fn health(&self, uid: &str, container: &str) -> BTreeMap<String, Vec<(String, bool)>> {
        let given = self.pods.get(uid).and_then(|pod| pod.get(container)).into_iter().flatten();
        let of_resource = |(resource, allocation): (&String, &Allocation)| {
            let ill = self.resources.get(resource).map(|known| &known.ill);
            let ids: Ids = allocation.ids().cloned().collect();
            let is_healthy = |id: &String| !ill.is_some_and(|ill| ill.contains(id));
            (resource.clone(), ids.iter().map(|id| (id.clone(), is_healthy(id))).collect())
        };
        given.filter(|(_, allocation)| allocation.answer.is_some()).map(of_resource).collect()
    }

    /// What containers have.
    pub fn pods(&self) -> &Pods {
        &self.pods
    }

    /// The healthy devices of each resource that is registered.
    pub fn registered(&self) -> BTreeMap<String, Vec<String>> {
        let listed = self.resources.iter().filter_map(|(name, known)| Some((name, known.healthy.as_ref()?)));
        listed.map(|(name, healthy)| (name.clone(), healthy.iter().cloned().collect())).collect()
    }
}

/// An empty preference, of a plugin that has none.
fn no_preference(options: DevicePluginOptions) -> Option<&'static Ids> {
    static NONE: Ids = Ids::new();
    (!options.get_preferred_allocation_available).then_some(&NONE)
}

impl Resource {
    fn by_numa(&self, ids: &Ids) -> BTreeMap<i64, Vec<String>> {
        let mut devices: BTreeMap<i64, Vec<String>> = BTreeMap::new();
        for id in ids {
            let nodes = self.numa.get(id).filter(|nodes| !nodes.is_empty());
            for node in nodes.map_or(&[NO_NUMA][..], Vec::as_slice) {
                devices.entry(*node).or_default().push(id.clone());
            }
        }
        devices
    }
}
