//! What the node and its containers use, as the files of their cgroups say.

use std::collections::HashMap;
use std::fs;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::{StreamExt, stream};
use jiff::Timestamp;

use crate::agent::cgroups::{Details, Mounts, Usage};
use crate::agent::context::Context;
use crate::agent::report::StateReport;
use crate::host::clock::Instant;

/// Containers that the runtime is asked of at once.
const AT_ONCE: usize = 8;
/// Two measurements closer together tell no rate.
const APART: Duration = Duration::from_millis(200);

/// One measurement of everything.
pub struct Measured {
    /// When.
    pub at: Timestamp,
    /// The machine.
    pub node: Usage,
    /// The agent itself.
    pub agent: Usage,
    /// The machine's network.
    pub network: Vec<Interface>,
    /// Its pods, those of which something runs.
    pub pods: Vec<PodUsage>,
}

/// A pod.
pub struct PodUsage {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub containers: Vec<ContainerUsage>,
    /// Its network, None for the machine's.
    pub network: Option<Vec<Interface>>,
}

/// A container that runs.
pub struct ContainerUsage {
    pub name: String,
    pub id: String,
    pub image: String,
    pub started_at: Timestamp,
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
    /// All of it together; what no container knows is not known.
    pub fn total(&self) -> Usage {
        Self::of_all(std::slice::from_ref(self))
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

/// Measures everything.
pub async fn measure(context: &Context) -> Measured {
    let mounts = Mounts::read();
    let wanted = context.board.pods().into_iter().flat_map(|entry| {
        let on_host = entry.pod.as_ref().is_none_or(|pod| pod.spec.host_network == Some(true));
        entry.report.containers.clone().into_iter().map(move |container| (entry.report.clone(), on_host, container))
    });
    let measured = stream::iter(wanted).map(|(pod, on_host, container)| {
        let mounts = &mounts;
        async move {
            let StateReport::Running { started_at } = container.state else { return None };
            let id = container.id?;
            let pid = context.runtime.process(&id).await.ok()?.pid;
            let usage = pid.map(|pid| mounts.of_process(pid)).unwrap_or_default();
            let details = pid.map(|pid| mounts.details_of(pid)).unwrap_or_default();
            let network = pid.filter(|_| !on_host).map(|pid| interfaces(&format!("/proc/{pid}/net/dev")));
            let container =
                ContainerUsage { name: container.name, id, image: container.image, started_at, usage, details };
            Some((pod, network, container))
        }
    });
    let mut pods: Vec<PodUsage> = Vec::new();
    let mut measured = measured.buffered(AT_ONCE);
    while let Some(one) = measured.next().await {
        let Some((pod, network, container)) = one else { continue };
        if pods.last().is_none_or(|last| last.uid != pod.uid) {
            let (namespace, name, uid) = (pod.namespace, pod.name, pod.uid);
            pods.push(PodUsage { namespace, name, uid, containers: Vec::new(), network });
        }
        if let Some(last) = pods.last_mut() {
            last.containers.push(container);
        }
    }
    let (node, agent) = (mounts.of_machine(), mounts.of_process(std::process::id()));
    Measured { at: Timestamp::now(), node, agent, network: interfaces("/proc/net/dev"), pods }
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
/// What the agent's is kept under.
pub const AGENT: &str = "agent";

impl Rates {
    /// Takes a measurement in. False when some rate is not known yet.
    pub fn learn(&self, measured: &Measured) -> bool {
        let containers = measured.pods.iter().flat_map(|pod| &pod.containers);
        let all = containers
            .map(|one| (one.id.as_str(), one.usage))
            .chain([(MACHINE, measured.node), (AGENT, measured.agent)]);
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
        let measured = measure(context).await;
        if self.learn(&measured) {
            return measured;
        }
        tokio::time::sleep(APART).await;
        let measured = measure(context).await;
        self.learn(&measured);
        measured
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
            image: "i".into(),
            started_at: Timestamp::UNIX_EPOCH,
            usage: Usage { cpu_nanos: Some(nanos), memory: Some(memory) },
            details: Details::default(),
        }
    }

    fn measured(node: u64, containers: Vec<ContainerUsage>) -> Measured {
        let (namespace, name, uid) = ("default".into(), "p".into(), "u".into());
        let pods = vec![PodUsage { namespace, name, uid, containers, network: None }];
        let node = Usage { cpu_nanos: Some(node), memory: None };
        Measured { at: Timestamp::UNIX_EPOCH, node, agent: Usage::default(), network: vec![], pods }
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
        let measured = measured(0, vec![container("a", 3, 10), container("b", 4, 20)]);
        let total = measured.pods[0].total();
        assert_eq!((total.cpu_nanos, total.memory.map(|memory| memory.working_set)), (Some(7), Some(30)));
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
