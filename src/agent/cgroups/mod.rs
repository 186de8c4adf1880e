//! cgroups of pods: the parent of a pod's containers, with the limits of the pod as a whole, in the kubelet's places
//! (`/kubepods[/burstable|/besteffort]/pod<uid>`).
//!
//! The runtime makes what is missing when it starts a container, so a machine on which none can be made here loses the
//! limits of pods as a whole, which is said once, and nothing else. With the systemd driver the slices are systemd's:
//! it makes them with the first container, and is notified when the last one is gone.

mod names;
mod tree;
mod usage;
mod details;

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::{debug, warn};

use super::histogram::{self, Histograms};
use super::options::AgentOptions;
use super::pod::StaticPod;
use super::pod::resources;
use super::pod::resources::QosClass;
use crate::error::chain;
use crate::host::clock::Instant;
use crate::host::fs::FsError;
use crate::host::{mounts, process};
use crate::runtime::CgroupDriver;
pub use details::{Details, Device, Pressure, Stall};
use names::{Names, TIERS};
use tree::Tree;
pub use usage::{Group, MemoryUsage, Mounts, Usage};

/// A cgroup that another agent removes while this one makes something in it is made again, this often.
const TRIES: u32 = 5;
/// How long systemd may take to stop a slice in which nothing is to run any more.
const STOP: Duration = Duration::from_secs(10);

/// Who makes and removes cgroups on a machine.
pub(in crate::agent) trait Machine: Send + Sync {
    /// The cgroup file systems; None where there are none.
    fn tree(&self) -> Result<Option<Tree>, FsError>;

    /// Has systemd stop a slice, which removes it. Blocks until that is done, for [`STOP`] at most.
    fn stop_slice(&self, slice: &str) -> io::Result<()>;
}

/// This machine.
struct Local;

impl Machine for Local {
    fn tree(&self) -> Result<Option<Tree>, FsError> {
        mounts::read().map(Tree::of)
    }

    fn stop_slice(&self, slice: &str) -> io::Result<()> {
        match process::run_within(Command::new("systemctl").args(["stop", "--", slice]), STOP) {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(io::ErrorKind::TimedOut.into()),
            Err(error) => {
                debug!(slice, %error, "cannot stop the slice");
                Ok(())
            }
        }
    }
}

/// The cgroups of an agent's pods.
pub struct Cgroups {
    machine: Arc<dyn Machine>,
    /// None until the runtime has said what it uses, or where pods are to have none.
    names: Mutex<Option<Names>>,
    enabled: bool,
    root: String,
    pids: Option<i64>,
    period: i64,
    quota: bool,
    /// Held for a few system calls: an empty parent must not go while a child is being made.
    making: Mutex<()>,
    warned: AtomicBool,
    /// How long it takes to make and remove them, by the kubelet's words for that.
    pub times: Histograms<1>,
}

impl Cgroups {
    /// Nothing is known of the runtime yet.
    pub fn new(options: &AgentOptions) -> Self {
        Self::on(Arc::new(Local), options)
    }

    /// Those of another machine.
    pub(in crate::agent) fn on(machine: Arc<dyn Machine>, options: &AgentOptions) -> Self {
        Self {
            machine,
            names: Mutex::default(),
            enabled: options.cgroups_per_qos,
            root: options.cgroup_root.clone(),
            pids: options.pod_pids_limit,
            period: i64::try_from(options.cpu_cfs_quota_period.as_micros()).unwrap_or(100_000),
            quota: options.cpu_cfs_quota,
            making: Mutex::default(),
            warned: AtomicBool::new(false),
            times: Histograms::new(histogram::DEFAULT),
        }
    }

    /// The runtime has said what it uses; None where it keeps no cgroups that can be passed to it.
    pub fn set_driver(&self, driver: Option<CgroupDriver>) {
        *lock(&self.names) = driver.filter(|_| self.enabled).map(|driver| Names::new(driver, &self.root));
    }

    /// None without any cgroup file system, and where that is not known: for what a pod can do without.
    fn tree_or_warning(&self) -> Option<Tree> {
        self.machine.tree().unwrap_or_else(|error| {
            warn!(error = chain(&error), "it is not known where cgroups are");
            None
        })
    }

    fn names(&self) -> Option<Names> {
        lock(&self.names).clone()
    }

    /// What the runtime is given as the parent of a pod's containers.
    pub fn parent(&self, pod: &StaticPod) -> Option<String> {
        self.names().map(|names| names.parent(resources::qos_class(&pod.spec), &pod.uid))
    }

    /// Makes a pod's cgroup and sets its limits. Blocks for the time of a few system calls.
    pub fn make(&self, pod: &StaticPod) {
        let (Some(names), Some(tree)) = (self.names(), self.tree_or_warning()) else { return };
        let started = Instant::now();
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
        self.times.time(["create".into()], started.elapsed());
    }

    /// Ends the processes of a pod that are in none of its containers that run. A daemon that was killed may think that a
    /// container has ended which has not, and what still runs of it has the next one's port.
    pub fn end_forgotten(&self, pod: &StaticPod, running: &BTreeSet<String>) {
        let (Some(names), Some(tree)) = (self.names(), self.tree_or_warning()) else { return };
        tree.end_forgotten(&names.pod_dir(resources::qos_class(&pod.spec), &pod.uid), running);
    }

    /// Removes what a pod of this UID has left, whichever its class was.
    ///
    /// # Errors
    /// A cgroup in which something does not end, or it is not known where cgroups are; try again later.
    pub fn remove(&self, uid: &str) -> Result<(), FsError> {
        // The UID may come from a label that any user of the runtime can set.
        let plain = !uid.is_empty() && uid.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
        let Some(names) = self.names().filter(|_| plain) else { return Ok(()) };
        let Some(tree) = self.machine.tree()? else { return Ok(()) };
        let started = Instant::now();
        let mut removed = Ok(());
        for class in TIERS {
            let dir = names.pod_dir(class, uid);
            if !tree.exists(&dir) {
                continue;
            }
            if names.is_managed() {
                let stopped = self.machine.stop_slice(&names.parent(class, uid));
                removed = removed.and(stopped.map_err(|error| FsError::new("stop the slice", &dir, error)));
            } else {
                match tree.remove(&dir) {
                    Err(error) if error.source.kind() != io::ErrorKind::ResourceBusy => {
                        // It may not be removed from here, now or ever.
                        warn!(error = chain(&error), "a cgroup is left");
                    }
                    other => removed = removed.and(other),
                }
            }
        }
        let _making = lock(&self.making);
        if !names.is_managed() {
            TIERS.iter().for_each(|class| tree.remove_if_empty(&names.tier_dir(*class)));
        }
        share(&tree, &names);
        self.times.time(["destroy".into()], started.elapsed());
        removed
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn make(tree: &Tree, dir: &Path) -> Result<(), FsError> {
    let mut made = tree.make(dir);
    for _ in 1..TRIES {
        match &made {
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => made = tree.make(dir),
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
        // What is not there needs none, and a failure to write was reported before.
        let _ = tree.set_shares(&dir, shares);
    }
}

#[cfg(test)]
pub(in crate::agent) mod tests;
