//! cgroups of pods: the parent of a pod's containers, with the limits of the pod as a whole, in the kubelet's places
//! (`/kubepods[/burstable|/besteffort]/pod<uid>`).
//!
//! The runtime makes what is missing when it starts a container, so a machine on which none can be made here loses the
//! limits of pods as a whole, which is said once, and nothing else. With the systemd driver the slices are systemd's:
//! it makes them with the first container, and is told when the last one is gone.

mod names;
mod tree;
mod usage;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tracing::{debug, warn};

use super::AgentOptions;
use super::pod::StaticPod;
use super::resources::{self, QosClass};
use super::status::chain;
use crate::host::fs::FsError;
use crate::host::mounts;
use crate::runtime::CgroupDriver;
use names::{Names, TIERS};
use tree::Tree;
pub use usage::{MemoryUsage, Mounts, Usage};

/// A cgroup that another agent removes while this one makes something in it is made again, this often.
const TRIES: u32 = 5;

/// The cgroups of an agent's pods.
pub struct Cgroups {
    /// None until the runtime has said what it uses, or where pods are to have none.
    names: Mutex<Option<Names>>,
    enabled: bool,
    root: String,
    pids: Option<i64>,
    period: i64,
    quota: bool,
    /// Directories are made and removed by one at a time: an empty parent must not go while a child is being made.
    making: Mutex<()>,
    warned: AtomicBool,
}

impl Cgroups {
    /// Nothing is known of the runtime yet.
    pub fn new(options: &AgentOptions) -> Self {
        Self {
            names: Mutex::default(),
            enabled: options.cgroups_per_qos,
            root: options.cgroup_root.clone(),
            pids: options.pod_pids_limit,
            period: i64::try_from(options.cpu_cfs_quota_period.as_micros()).unwrap_or(100_000),
            quota: options.cpu_cfs_quota,
            making: Mutex::default(),
            warned: AtomicBool::new(false),
        }
    }

    /// The runtime has said what it uses; None where it keeps no cgroups that it can be told of.
    pub fn set_driver(&self, driver: Option<CgroupDriver>) {
        *lock(&self.names) = driver.filter(|_| self.enabled).map(|driver| Names::new(driver, &self.root));
    }

    fn names(&self) -> Option<Names> {
        lock(&self.names).clone()
    }

    /// What the runtime is told as the parent of a pod's containers.
    pub fn parent(&self, pod: &StaticPod) -> Option<String> {
        self.names().map(|names| names.parent(resources::qos_class(&pod.spec), &pod.uid))
    }

    /// Makes a pod's cgroup and sets its limits. Blocks for the time of a few system calls.
    pub fn make(&self, pod: &StaticPod) {
        let (Some(names), Some(tree)) = (self.names(), tree_or_warning()) else { return };
        let class = resources::qos_class(&pod.spec);
        let dir = names.pod_dir(class, &pod.uid);
        let mut limits = resources::pod_limits(&pod.spec, self.period);
        if !self.quota {
            limits.cpu_quota = 0;
        }
        let _making = lock(&self.making);
        let made = if names.is_managed() { Ok(()) } else { make(&tree, &dir) };
        if let Err(error) = made.and_then(|()| tree.limit(&dir, limits, self.pids)) {
            if self.warned.swap(true, Ordering::Relaxed) {
                debug!(pod = %pod.key, error = chain(&error), "no cgroup of its own");
            } else {
                warn!(error = chain(&error), "pods have no cgroup limits as a whole; those of containers hold");
            }
        }
        share(&tree, &names);
    }

    /// Ends the processes of a pod that are in none of its containers that run. A daemon that was killed may think that a
    /// container has ended which has not, and what still runs of it has the next one's port.
    pub fn end_forgotten(&self, pod: &StaticPod, running: &BTreeSet<String>) {
        let (Some(names), Some(tree)) = (self.names(), tree_or_warning()) else { return };
        tree.end_forgotten(&names.pod_dir(resources::qos_class(&pod.spec), &pod.uid), running);
    }

    /// Removes what a pod of this UID has left, whichever its class was.
    ///
    /// # Errors
    /// A cgroup in which something does not end, or it is not known where cgroups are; try again later.
    pub fn remove(&self, uid: &str) -> Result<(), FsError> {
        // The UID may come from a label that anybody can set.
        let plain = !uid.is_empty() && uid.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
        let Some(names) = self.names().filter(|_| plain) else { return Ok(()) };
        let Some(tree) = tree()? else { return Ok(()) };
        let _making = lock(&self.making);
        let mut removed = Ok(());
        for class in TIERS {
            let dir = names.pod_dir(class, uid);
            if !tree.exists(&dir) {
                continue;
            }
            if names.is_managed() {
                stop_slice(&names.parent(class, uid));
            } else {
                match tree.remove(&dir) {
                    Err(error) if error.source.kind() != std::io::ErrorKind::ResourceBusy => {
                        // It may not be removed from here, now or ever.
                        warn!(error = chain(&error), "a cgroup is left");
                    }
                    other => removed = removed.and(other),
                }
            }
        }
        if !names.is_managed() {
            TIERS.iter().for_each(|class| tree.remove_if_empty(&names.tier_dir(*class)));
        }
        share(&tree, &names);
        removed
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// None without any cgroup file system.
fn tree() -> Result<Option<Tree>, FsError> {
    mounts::read().map(Tree::of)
}

/// The same for what a pod can do without, if it is said.
fn tree_or_warning() -> Option<Tree> {
    tree().unwrap_or_else(|error| {
        warn!(error = chain(&error), "it is not known where cgroups are");
        None
    })
}

fn make(tree: &Tree, dir: &Path) -> Result<(), FsError> {
    let mut made = tree.make(dir);
    for _ in 1..TRIES {
        match &made {
            Err(error) if error.source.kind() == std::io::ErrorKind::NotFound => made = tree.make(dir),
            _ => break,
        }
    }
    made
}

/// A class of service has as much as its pods ask for, and the one that asks for nothing the least there is.
fn share(tree: &Tree, names: &Names) {
    let burstable = names.tier_dir(QosClass::Burstable);
    let shares = tree.sum_of_shares(&burstable).clamp(2, 262_144);
    for (dir, shares) in [(burstable, shares), (names.tier_dir(QosClass::BestEffort), 2)] {
        // What is not there needs none, and whoever cannot write has been told.
        let _ = tree.set_shares(&dir, shares);
    }
}

/// systemd removes a slice when it is stopped.
fn stop_slice(slice: &str) {
    let stopped = std::process::Command::new("systemctl").args(["stop", "--", slice]).output();
    if let Err(error) = stopped {
        debug!(slice, %error, "cannot stop the slice");
    }
}
