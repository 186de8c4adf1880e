//! What the node and its containers use, as the files of their cgroups say.

use std::collections::HashMap;
use std::fs;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{StreamExt, stream};
use jiff::Timestamp;

use crate::agent::board::Entry;
use crate::agent::cgroups::{Details, Group, Mounts, Usage};
use crate::agent::context::Context;
use crate::agent::control::report::StateReport;
use crate::agent::pod::StaticPod;
use crate::host::clock::Instant;

/// Containers that the runtime is asked of at once.
const AT_ONCE: usize = 8;
/// Two measurements closer together tell no rate.
const APART: Duration = Duration::from_millis(200);

/// A cgroup.
#[derive(Debug, Default)]
pub struct GroupUsage {
    /// Its path.
    pub path: String,
    pub usage: Usage,
    /// What else it counts.
    pub details: Details,
}

impl GroupUsage {
    fn of(mounts: &Mounts, group: &Group) -> Self {
        let (usage, details) = (mounts.usage_of(group), mounts.details_of(group));
        Self { path: group.path().to_owned(), usage, details }
    }
}

/// One measurement of everything.
#[derive(Default)]
pub struct Measured {
    /// When.
    pub at: Timestamp,
    /// The machine.
    pub node: GroupUsage,
    /// The agent itself.
    pub agent: GroupUsage,
    /// What runs the container runtime, where it was asked for and is found.
    pub runtime: Option<GroupUsage>,
    /// The cgroup that all pods are in, where one runs in it.
    pub all_pods: Option<GroupUsage>,
    /// The machine's network.
    pub network: Vec<Interface>,
    /// Its pods, those of which something runs.
    pub pods: Vec<PodUsage>,
}

/// A pod.
#[derive(Default)]
pub struct PodUsage {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub containers: Vec<ContainerUsage>,
    /// Its own cgroup, which holds its sandbox too; None where it has none.
    pub own: Option<GroupUsage>,
    /// The pod, where it is wanted.
    pub pod: Option<Arc<StaticPod>>,
    /// Its network, None for the machine's.
    pub network: Option<Vec<Interface>>,
}

/// A container that runs.
#[derive(Default)]
pub struct ContainerUsage {
    pub name: String,
    pub id: String,
    pub image: String,
    pub started_at: Timestamp,
    /// Its main process, 0 where that is not known.
    pub pid: u32,
    /// The path of its cgroup.
    pub cgroup: String,
    pub usage: Usage,
    /// What else its cgroups count.
    pub details: Details,
}

/// What went through a network interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub received: u64,
    pub received_packets: u64,
    pub receive_errors: u64,
    pub receive_drops: u64,
    pub sent: u64,
    pub sent_packets: u64,
    pub send_errors: u64,
    pub send_drops: u64,
}

impl PodUsage {
    /// All of it together, by its own cgroup, and where that does not say it, by what its containers know.
    pub fn total(&self) -> Usage {
        let (sum, own) = (Self::of_all(std::slice::from_ref(self)), self.own.as_ref());
        let own = own.map(|own| own.usage).unwrap_or_default();
        Usage { cpu_nanos: own.cpu_nanos.or(sum.cpu_nanos), memory: own.memory.or(sum.memory) }
    }

    /// Bytes that were swapped out of it.
    pub fn swap(&self) -> Option<u64> {
        let own = self.own.as_ref().and_then(|own| own.details.swap);
        own.or_else(|| self.containers.iter().filter_map(|one| one.details.swap).reduce(u64::saturating_add))
    }

    /// All of several pods together.
    pub fn of_all(pods: &[Self]) -> Usage {
        let all = || pods.iter().flat_map(|pod| &pod.containers).map(|container| container.usage);
        let sum = |of: fn(&Usage) -> Option<u64>| all().filter_map(|usage| of(&usage)).reduce(u64::saturating_add);
        let memory = all().filter_map(|usage| usage.memory).reduce(|mut a, b| {
            let sums = [
                (&mut a.usage, b.usage),
                (&mut a.working_set, b.working_set),
                (&mut a.rss, b.rss),
                (&mut a.cache, b.cache),
                (&mut a.page_faults, b.page_faults),
                (&mut a.major_page_faults, b.major_page_faults),
            ];
            for (sum, more) in sums {
                *sum = sum.saturating_add(more);
            }
            a.limit = a.limit.zip(b.limit).map(|(a, b)| a.saturating_add(b));
            a
        });
        Usage { cpu_nanos: sum(|usage| usage.cpu_nanos), memory }
    }
}

/// Measures everything but the runtime itself.
pub async fn measure(context: &Context) -> Measured {
    let mounts = Mounts::read();
    let wanted =
        context.board.pods().into_iter().flat_map(|entry| {
            entry.report.containers.clone().into_iter().map(move |container| (entry.clone(), container))
        });
    let measured = stream::iter(wanted).map(|(entry, container)| {
        let mounts = &mounts;
        async move {
            let StateReport::Running { started_at } = container.state else { return None };
            let id = container.id?;
            let pid = context.runtime.process(&id).await.ok()?.pid;
            let group = pid.map(Group::of_process).unwrap_or_default();
            let GroupUsage { path, usage, details } = GroupUsage::of(mounts, &group);
            let (name, image, pid) = (container.name, container.image, pid.unwrap_or_default());
            let one = ContainerUsage { name, id, image, started_at, pid, cgroup: path, usage, details };
            Some((entry, group, one))
        }
    });
    let mut pods: Vec<PodUsage> = Vec::new();
    let mut all_pods = None;
    let mut measured = measured.buffered(AT_ONCE);
    while let Some(one) = measured.next().await {
        let Some((entry, group, container)) = one else { continue };
        all_pods = all_pods.or_else(|| group.ancestor(is_of_all_pods));
        if pods.last().is_none_or(|last| last.uid != entry.report.uid) {
            pods.push(pod(&mounts, entry, &group, container.pid));
        }
        if let Some(last) = pods.last_mut() {
            last.containers.push(container);
        }
    }
    let node = GroupUsage { path: "/".to_owned(), usage: mounts.of_machine(), details: Details::of_machine() };
    let agent = GroupUsage::of(&mounts, &Group::of_process(std::process::id()));
    let all_pods = all_pods.map(|group| GroupUsage::of(&mounts, &group));
    Measured { at: Timestamp::now(), node, agent, runtime: None, all_pods, network: interfaces("/proc/net/dev"), pods }
}

/// A pod without its containers yet, of which one is in this cgroup.
fn pod(mounts: &Mounts, entry: Entry, group: &Group, pid: u32) -> PodUsage {
    let on_host = entry.pod.as_ref().is_none_or(|pod| pod.spec.host_network == Some(true));
    let network = (pid > 0 && !on_host).then(|| interfaces(&format!("/proc/{pid}/net/dev")));
    let (namespace, name, uid) = (entry.report.namespace, entry.report.name, entry.report.uid);
    let own = group.ancestor(|name| is_of_pod(name, &uid)).map(|group| GroupUsage::of(mounts, &group));
    PodUsage { namespace, name, uid, containers: Vec::new(), own, pod: entry.pod, network }
}

/// `kubepods`, by both drivers.
fn is_of_all_pods(name: &str) -> bool {
    matches!(name, "kubepods" | "kubepods.slice")
}

/// `podUID`, or `kubepods-burstable-podUID.slice` with underscores.
fn is_of_pod(name: &str, uid: &str) -> bool {
    let is_slice = |slice: &str| slice.ends_with(&format!("-pod{}", uid.replace('-', "_")));
    name.strip_prefix("pod") == Some(uid) || name.strip_suffix(".slice").is_some_and(is_slice)
}

/// The cgroup of the daemon of this runtime (`docker 20.10`): the oldest process with its name.
fn of_runtime(runtime: &str) -> Option<GroupUsage> {
    let daemons = [("docker", "dockerd"), ("containerd", "containerd"), ("cri-o", "crio")];
    let (_, daemon) = daemons.into_iter().find(|(name, _)| runtime.starts_with(name))?;
    let processes = fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_it = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim_end() == daemon);
    let found = processes.filter(is_it).min()?;
    Some(GroupUsage::of(&Mounts::read(), &Group::of_process(found)))
}

fn interfaces(file: &str) -> Vec<Interface> {
    parse_interfaces(&fs::read_to_string(file).unwrap_or_default())
}

/// Reads `/proc/net/dev`; the machine's talk with itself is left out.
fn parse_interfaces(text: &str) -> Vec<Interface> {
    let interface = |line: &str| {
        let (name, counts) = line.split_once(':')?;
        let counts: Vec<u64> = counts.split_whitespace().filter_map(|count| count.parse().ok()).collect();
        let at = |index: usize| counts.get(index).copied();
        Some(Interface {
            name: name.trim().to_owned(),
            received: at(0)?,
            received_packets: at(1)?,
            receive_errors: at(2)?,
            receive_drops: at(3)?,
            sent: at(8)?,
            sent_packets: at(9)?,
            send_errors: at(10)?,
            send_drops: at(11)?,
        })
    };
    text.lines().filter_map(interface).filter(|interface| interface.name != "lo").collect()
}

/// How fast processor time is used, in billionths of a processor, between one measurement and the one before.
#[derive(Default)]
pub struct Rates(Mutex<HashMap<String, Rate>>);

#[derive(Clone, Copy)]
struct Rate {
    at: Instant,
    nanos: u64,
    rate: Option<u64>,
}

/// What the machine's own rate is kept under; no container has such an id.
pub const MACHINE: &str = "";
/// What the agent's is kept under,
pub const AGENT: &str = "agent";
/// the container runtime's,
pub const RUNTIME: &str = "runtime";
/// and that of all pods together. A pod's is kept under its UID.
pub const PODS: &str = "pods";

impl Rates {
    /// Takes a measurement in. False when some rate is not known yet.
    pub fn learn(&self, measured: &Measured) -> bool {
        let containers = measured.pods.iter().flat_map(|pod| &pod.containers);
        let groups = [
            (MACHINE, Some(&measured.node)),
            (AGENT, Some(&measured.agent)),
            (RUNTIME, measured.runtime.as_ref()),
            (PODS, measured.all_pods.as_ref()),
        ];
        let groups = groups.into_iter().chain(measured.pods.iter().map(|pod| (pod.uid.as_str(), pod.own.as_ref())));
        let groups = groups.filter_map(|(key, group)| Some((key, group?.usage)));
        let all = containers.map(|one| (one.id.as_str(), one.usage)).chain(groups);
        let (mut known, now) = (self.0.lock().unwrap_or_else(PoisonError::into_inner), Instant::now());
        // Only what is there is remembered.
        let old = std::mem::take(&mut *known);
        for (id, usage) in all {
            let Some(nanos) = usage.cpu_nanos else { continue };
            let first = Rate { at: now, nanos, rate: None };
            let rate = old.get(id).map_or(first, |before| before.then(now, nanos));
            known.insert(id.to_owned(), rate);
        }
        known.values().all(|rate| rate.rate.is_some())
    }

    /// The rate of a container, or of the machine.
    pub fn of(&self, id: &str) -> Option<u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(id)?.rate
    }

    /// Measures, and once more where that is needed to know every rate.
    pub async fn measure(&self, context: &Context) -> Measured {
        let measured = Self::measure_all(context).await;
        if self.learn(&measured) {
            return measured;
        }
        tokio::time::sleep(APART).await;
        let measured = Self::measure_all(context).await;
        self.learn(&measured);
        measured
    }

    async fn measure_all(context: &Context) -> Measured {
        let runtime = context.board.reports().borrow().agent.runtime.clone().unwrap_or_default();
        let runtime = tokio::task::spawn_blocking(move || of_runtime(&runtime)).await.ok().flatten();
        Measured { runtime, ..measure(context).await }
    }
}

impl Rate {
    fn then(self, now: Instant, nanos: u64) -> Self {
        let apart = now.duration_since(self.at);
        if apart < APART {
            return self;
        }
        let used = u128::from(nanos.saturating_sub(self.nanos));
        let rate = used.saturating_mul(1_000_000_000).checked_div(apart.as_nanos()).unwrap_or(0);
        Self { at: now, nanos, rate: u64::try_from(rate).ok() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::cgroups::MemoryUsage;

    fn container(id: &str, nanos: u64, bytes: u64) -> ContainerUsage {
        let memory = MemoryUsage { usage: bytes, working_set: bytes, ..MemoryUsage::default() };
        ContainerUsage {
            name: id.into(),
            id: id.into(),
            usage: Usage { cpu_nanos: Some(nanos), memory: Some(memory) },
            ..ContainerUsage::default()
        }
    }

    fn measured(node: u64, containers: Vec<ContainerUsage>) -> Measured {
        let pods = vec![PodUsage { uid: "u".into(), containers, ..PodUsage::default() }];
        let node = GroupUsage { usage: Usage { cpu_nanos: Some(node), memory: None }, ..GroupUsage::default() };
        Measured { node, pods, ..Measured::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_what_was_used_between_two_measurements() {
        let rates = Rates::default();
        assert!(!rates.learn(&measured(0, vec![container("a", 100, 1)])));
        assert_eq!(rates.of("a"), None);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(rates.learn(&measured(3_000_000_000, vec![container("a", 1_000_000_100, 1)])));
        assert_eq!((rates.of("a"), rates.of(MACHINE)), (Some(500_000_000), Some(1_500_000_000)));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!rates.learn(&measured(3_000_000_000, vec![container("a", 9_000_000_000, 1), container("b", 1, 1)])));
        assert_eq!((rates.of("a"), rates.of("b")), (Some(500_000_000), None), "too close together");
        rates.learn(&measured(3_000_000_000, vec![]));
        assert_eq!(rates.of("a"), None, "what is gone is forgotten");
    }

    #[test]
    fn a_pod_uses_what_its_containers_use() {
        let mut measured = measured(0, vec![container("a", 3, 10), container("b", 4, 20)]);
        let pod = &mut measured.pods[0];
        let of = |total: Usage| (total.cpu_nanos, total.memory.map(|memory| memory.working_set));
        assert_eq!(of(pod.total()), (Some(7), Some(30)));
        let usage = Usage { cpu_nanos: Some(9), memory: None };
        pod.own = Some(GroupUsage { usage, ..GroupUsage::default() });
        assert_eq!(of(pod.total()), (Some(9), Some(30)), "its own cgroup knows better, as far as it counts");
    }

    #[test]
    fn cgroups_of_pods_are_known_by_their_names() {
        assert!(is_of_pod("poda-b", "a-b") && is_of_pod("kubepods-besteffort-poda_b.slice", "a-b"));
        assert!(!is_of_pod("poda-bc", "a-b") && !is_of_pod("a-b", "a-b") && !is_of_pod("pod.slice", ""));
        assert!(is_of_all_pods("kubepods") && is_of_all_pods("kubepods.slice") && !is_of_all_pods("kubepodsx"));
    }

    #[test]
    fn interfaces_are_read_without_the_loopback() {
        let text = "Inter-|   Receive\n face |bytes packets errs\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  \
                    eth0: 500 5 1 0 0 0 0 0 700 7 2 0 0 0 0 0\n";
        let expected = Interface {
            name: "eth0".into(),
            received: 500,
            received_packets: 5,
            receive_errors: 1,
            sent: 700,
            sent_packets: 7,
            send_errors: 2,
            ..Interface::default()
        };
        assert_eq!(parse_interfaces(text), [expected]);
    }
}
