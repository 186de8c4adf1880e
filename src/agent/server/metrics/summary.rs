//! `/stats/summary`: what the node and its pods use, in the kubelet's JSON (`pkg/apis/stats/v1alpha1`).

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use ::http::{Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::Measurer;
use super::storage::{FileSystem, PodStorage};
use super::usage::{AGENT, ContainerUsage, GroupUsage, Interface, MACHINE, Measured, PODS, PodUsage, RUNTIME, Rates};
use crate::agent::cgroups::{Details, Pressure, Stall, Usage};
use crate::agent::context::Context;
use crate::agent::control::report::AgentReport;
use crate::agent::server::http::{Body, respond, text_response};
use crate::agent::server::query::Query;
use crate::runtime::ImageFileSystem;

/// The answer.
pub async fn answer(context: &Arc<Context>, measurer: &Arc<Measurer>, query: &Query) -> Response<Body> {
    let measured = measurer.rates.measure(context).await;
    let all = !query.is_set("only_cpu_and_memory");
    let (storage, images) = match all {
        true => {
            let images = context.runtime.image_file_system();
            let (storage, images) = tokio::join!(measurer.storage.of(context, &measured.pods), images);
            (storage, images.ok().flatten())
        }
        false => Default::default(),
    };
    let (context, measurer) = (Arc::clone(context), Arc::clone(measurer));
    // Off the runtime's threads: a network file system may hang.
    let reported = tokio::task::spawn_blocking(move || {
        let agent = context.board.reports().borrow().agent.clone();
        let summary = Summary { agent: &agent, measured: &measured, rates: &measurer.rates, storage, all };
        let pods: Vec<Value> = measured.pods.iter().map(|pod| summary.pod(pod)).collect();
        json!({ "node": summary.node(&context.options.root_dir, images), "pods": pods }).to_string()
    });
    match reported.await {
        Ok(reported) => respond(StatusCode::OK, "application/json", reported),
        Err(error) => text_response(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot measure: {error}\n")),
    }
}

/// What a summary is made from.
struct Summary<'a> {
    agent: &'a AgentReport,
    measured: &'a Measured,
    rates: &'a Rates,
    /// By UID.
    storage: HashMap<String, Arc<PodStorage>>,
    /// Whether more is wanted than processors and memory.
    all: bool,
}

impl Summary<'_> {
    fn node(&self, root: &Path, images: Option<ImageFileSystem>) -> Value {
        let (measured, at) = (self.measured, self.measured.at);
        let mut node = json!({ "nodeName": self.agent.node_name, "startTime": time(started(at)) });
        self.used(&mut node, &measured.node.usage, &measured.node.details, MACHINE);
        node["systemContainers"] = self.system();
        if self.all {
            node["network"] = network(&measured.network, at);
            node["fs"] = file_system(FileSystem::of(root).as_ref());
            let images = image_file_system(root, images);
            node["runtime"] = json!({ "imageFs": images, "containerFs": images });
            node["rlimit"] = processes(at);
        }
        node
    }

    /// What runs the pods, and all of them together, under the names that a kubelet gives to its system containers.
    fn system(&self) -> Value {
        let container = |name: &str, since: Timestamp, usage: &Usage, details: &Details| {
            let mut container = json!({ "name": name, "startTime": time(since) });
            let key = if name == "kubelet" { AGENT } else { name };
            self.used(&mut container, usage, details, key);
            container
        };
        let Measured { agent, runtime, all_pods, pods, .. } = self.measured;
        let boot = started(self.measured.at);
        let none = GroupUsage { usage: PodUsage::of_all(pods), ..GroupUsage::default() };
        let all = all_pods.as_ref().unwrap_or(&none);
        let kubelet = container("kubelet", self.agent.started_at, &agent.usage, &agent.details);
        let runtime = runtime.as_ref().map(|group| container(RUNTIME, boot, &group.usage, &group.details));
        let pods = container(PODS, boot, &all.usage, &all.details);
        [Some(kubelet), runtime, Some(pods)].into_iter().flatten().collect()
    }

    fn pod(&self, pod: &PodUsage) -> Value {
        let storage = self.storage.get(&pod.uid);
        let containers: Vec<Value> =
            pod.containers.iter().map(|one| self.container(one, storage.map(|storage| &**storage))).collect();
        let started = pod.containers.iter().map(|container| container.started_at).min();
        let mut value = json!({
            "podRef": { "name": pod.name, "namespace": pod.namespace, "uid": pod.uid },
            "startTime": time(started.unwrap_or(self.measured.at)),
            "containers": containers,
        });
        let none = Details::default();
        let details = pod.own.as_ref().map_or(&none, |own| &own.details);
        self.used(&mut value, &pod.total(), details, &pod.uid);
        value["swap"] = swap(pod.swap(), details.swap_limit, self.measured);
        if !self.all {
            return value;
        }
        value["network"] = network(pod.network.as_ref().unwrap_or(&self.measured.network), self.measured.at);
        let processes = pod.containers.iter().filter_map(|one| one.details.processes).reduce(u64::saturating_add);
        if let Some(count) = processes {
            value["process_stats"] = json!({ "process_count": count });
        }
        if let Some(storage) = storage {
            let volume = |(name, system): &(String, FileSystem)| {
                let mut value = file_system(Some(system));
                value["name"] = name.as_str().into();
                value
            };
            value["volume"] = storage.volumes.iter().map(volume).collect();
            value["ephemeral-storage"] = file_system(storage.ephemeral.as_ref());
        }
        value
    }

    fn container(&self, container: &ContainerUsage, storage: Option<&PodStorage>) -> Value {
        let mut value = json!({ "name": container.name, "startTime": time(container.started_at) });
        self.used(&mut value, &container.usage, &container.details, &container.id);
        if let Some(storage) = storage {
            value["rootfs"] = file_system(storage.written.get(&container.id));
            value["logs"] = file_system(storage.logs.get(&container.name));
        }
        value
    }

    /// Adds `cpu`, `memory`, `swap` and `io`, as far as they are known.
    fn used(&self, value: &mut Value, usage: &Usage, details: &Details, key: &str) {
        let at = self.measured.at;
        if let Some(nanos) = usage.cpu_nanos {
            let mut cpu = json!({ "time": time(at), "usageCoreNanoSeconds": nanos, "psi": psi(details.cpu_pressure) });
            if let Some(rate) = self.rate(key) {
                cpu["usageNanoCores"] = rate.into();
            }
            value["cpu"] = cpu;
        }
        if let Some(memory) = usage.memory {
            let mut reported = json!({
                "time": time(at),
                "usageBytes": memory.usage,
                "workingSetBytes": memory.working_set,
                "rssBytes": memory.rss,
                "pageFaults": memory.page_faults,
                "majorPageFaults": memory.major_page_faults,
                "psi": psi(details.memory_pressure),
            });
            if let Some(limit) = memory.limit {
                reported["availableBytes"] = limit.saturating_sub(memory.working_set).into();
            }
            value["memory"] = reported;
        }
        value["swap"] = swap(details.swap, details.swap_limit, self.measured);
        if self.all {
            value["io"] = json!({ "time": time(at), "psi": psi(details.io_pressure) });
        }
    }

    /// The rate of a pod or of all pods without a cgroup of their own is that of their containers.
    fn rate(&self, key: &str) -> Option<u64> {
        let own = || self.measured.pods.iter().filter(|pod| key == PODS || pod.uid == key);
        let ids = || own().flat_map(|pod| &pod.containers).filter_map(|one| self.rates.of(&one.id));
        self.rates.of(key).or_else(|| ids().reduce(u64::saturating_add))
    }
}

/// How long was waited. Where the kernel counts that for none but the machine (cgroups of v1), nothing was counted, and
/// as a kubelet says it that is 0.
fn psi(pressure: Option<Pressure>) -> Value {
    let Pressure { some, full } = pressure.unwrap_or_default();
    let data = |Stall { averages: [avg10, avg60, avg300], micros }| json!({ "total": micros, "avg10": avg10, "avg60": avg60, "avg300": avg300 });
    json!({ "full": data(full), "some": data(some) })
}

/// What was swapped out, as far as it is counted: nothing, on a machine without swap.
fn swap(used: Option<u64>, limit: Option<u64>, measured: &Measured) -> Value {
    let none = (measured.node.details.swap_limit == Some(0)).then_some(0);
    let Some(used) = used.or(none) else { return Value::Null };
    let mut value = json!({ "time": time(measured.at), "swapUsageBytes": used });
    if let Some(limit) = limit {
        value["swapAvailableBytes"] = limit.saturating_sub(used).into();
    }
    value
}

/// When the machine was started.
fn started(now: Timestamp) -> Timestamp {
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds = uptime.split('.').next().and_then(|seconds| seconds.parse::<i64>().ok()).unwrap_or(0);
    Timestamp::from_second(now.as_second().saturating_sub(seconds)).unwrap_or(now)
}

/// `eth0` stands for all where there is one, as by the kubelet.
fn network(interfaces: &[Interface], at: Timestamp) -> Value {
    let reported = |interface: &Interface| -> Map<String, Value> {
        let counts = [
            ("rxBytes", interface.received),
            ("rxErrors", interface.receive_errors),
            ("txBytes", interface.sent),
            ("txErrors", interface.send_errors),
        ];
        let name = [("name".to_owned(), Value::from(interface.name.clone()))].into_iter();
        name.chain(counts.map(|(name, count)| (name.to_owned(), count.into()))).collect()
    };
    let first = interfaces.iter().find(|interface| interface.name == "eth0");
    let mut value = first.map_or_else(|| Map::from_iter([("name".to_owned(), "".into())]), reported);
    value.insert("time".to_owned(), time(at));
    value.insert("interfaces".to_owned(), interfaces.iter().map(|one| Value::Object(reported(one))).collect());
    Value::Object(value)
}

/// Where images are: on the file system of the agent's own directory, where the runtime does not say it.
fn image_file_system(root: &Path, images: Option<ImageFileSystem>) -> Value {
    let Some(images) = images else { return file_system(FileSystem::of(root).as_ref()) };
    let system = FileSystem::of(&images.dir).map(|system| FileSystem {
        used: Some(images.bytes),
        inodes_used: images.inodes.or(system.inodes_used),
        ..system
    });
    file_system(system.as_ref())
}

fn file_system(found: Option<&FileSystem>) -> Value {
    let Some(found) = found else { return Value::Null };
    json!({
        "time": time(found.at),
        "capacityBytes": found.capacity,
        "availableBytes": found.available,
        "usedBytes": found.used,
        "inodes": found.inodes,
        "inodesFree": found.inodes_free,
        "inodesUsed": found.inodes_used,
    })
}

fn processes(at: Timestamp) -> Value {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let limit = |name: &str| read(&format!("/proc/sys/kernel/{name}")).trim().parse::<i64>().ok();
    let most = limit("pid_max").into_iter().chain(limit("threads-max")).min();
    let load = read("/proc/loadavg");
    let now = load.split_whitespace().nth(3).and_then(|tasks| tasks.split_once('/')?.1.parse::<i64>().ok());
    json!({ "time": time(at), "maxpid": most, "curproc": now })
}

fn time(at: Timestamp) -> Value {
    format!("{at:.0}").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::cgroups::MemoryUsage;

    const AT: &str = "1970-01-01T00:00:00Z";

    fn usage() -> Usage {
        let memory = MemoryUsage { usage: 9, working_set: 7, rss: 5, limit: Some(100), ..MemoryUsage::default() };
        Usage { cpu_nanos: Some(3), memory: Some(memory) }
    }

    fn container() -> ContainerUsage {
        let waited = Pressure { some: Stall { averages: [1.5, 0.0, 0.0], micros: 8 }, full: Stall::default() };
        let details = Details {
            processes: Some(2),
            swap: Some(1),
            swap_limit: Some(4),
            cpu_pressure: Some(waited),
            ..Details::default()
        };
        ContainerUsage { name: "c".into(), id: "id".into(), usage: usage(), details, ..ContainerUsage::default() }
    }

    fn summary<'a>(agent: &'a AgentReport, measured: &'a Measured, rates: &'a Rates, all: bool) -> Summary<'a> {
        let system = FileSystem { capacity: 90, available: 60, used: Some(8), ..FileSystem::default() };
        let storage = PodStorage {
            volumes: vec![("v".into(), FileSystem { inodes_used: Some(3), ..system.clone() })],
            written: [("id".to_owned(), system.clone())].into(),
            logs: [("c".to_owned(), system.clone())].into(),
            ephemeral: Some(system),
        };
        Summary { agent, measured, rates, storage: [("u".to_owned(), Arc::new(storage))].into(), all }
    }

    fn measured() -> Measured {
        let own = GroupUsage { usage: usage(), ..GroupUsage::default() };
        let pod = PodUsage { uid: "u".into(), containers: vec![container()], own: Some(own), ..PodUsage::default() };
        let all_pods = Some(GroupUsage { usage: usage(), ..GroupUsage::default() });
        let runtime = Some(GroupUsage { usage: usage(), ..GroupUsage::default() });
        Measured { pods: vec![pod], all_pods, runtime, ..Measured::default() }
    }

    #[test]
    fn a_container_has_what_it_uses_waits_for_and_writes() {
        let (agent, measured, rates) = (crate::testing::report::report(vec![]).agent, measured(), Rates::default());
        let value = summary(&agent, &measured, &rates, true).pod(&measured.pods[0]);
        let container = &value["containers"][0];
        assert_eq!(container["cpu"]["psi"]["some"], json!({"total": 8, "avg10": 1.5, "avg60": 0.0, "avg300": 0.0}));
        let memory = &container["memory"];
        assert_eq!((&memory["workingSetBytes"], &memory["availableBytes"]), (&json!(7), &json!(93)));
        assert_eq!(container["swap"], json!({"time": AT, "swapUsageBytes": 1, "swapAvailableBytes": 3}));
        assert_eq!(container["io"]["psi"]["full"]["total"], 0);
        for (what, of) in [("rootfs", &container["rootfs"]), ("logs", &container["logs"])] {
            assert_eq!((&of["usedBytes"], &of["capacityBytes"]), (&json!(8), &json!(90)), "{what}");
        }
        assert_eq!((&value["volume"][0]["name"], &value["volume"][0]["inodesUsed"]), (&json!("v"), &json!(3)));
        assert_eq!(value["process_stats"], json!({"process_count": 2}));
        assert_eq!(value["ephemeral-storage"]["usedBytes"], 8);
    }

    #[test]
    fn processors_and_memory_alone_come_without_disks() {
        let (agent, measured, rates) = (crate::testing::report::report(vec![]).agent, measured(), Rates::default());
        let summary = summary(&agent, &measured, &rates, false);
        let value = summary.pod(&measured.pods[0]);
        for absent in ["network", "volume", "ephemeral-storage", "process_stats", "io"] {
            assert!(value.get(absent).is_none(), "{absent}");
        }
        assert!(value["cpu"].is_object() && summary.node(Path::new("/"), None).get("fs").is_none());
    }

    #[test]
    fn the_node_has_its_system_containers_and_file_systems() {
        let (agent, mut measured, rates) = (crate::testing::report::report(vec![]).agent, measured(), Rates::default());
        measured.node.details.swap_limit = Some(0);
        let images = ImageFileSystem { dir: "/".into(), bytes: 7, inodes: None };
        let node = summary(&agent, &measured, &rates, true).node(Path::new("/"), Some(images));
        let names: Vec<_> = node["systemContainers"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
        assert_eq!(names, ["kubelet", "runtime", "pods"]);
        assert!(node["systemContainers"].as_array().unwrap().iter().all(|one| one["startTime"].is_string()));
        assert_eq!(node["systemContainers"][2]["memory"]["rssBytes"], 5);
        assert_eq!(
            (&node["runtime"]["imageFs"]["usedBytes"], &node["runtime"]["containerFs"]["usedBytes"]),
            (&json!(7), &json!(7))
        );
        assert!(node["fs"]["capacityBytes"].as_u64() > Some(0));
        assert_eq!(node["swap"]["swapUsageBytes"], 0, "a machine without swap");
        measured.node.details.swap_limit = None;
        let node = summary(&agent, &measured, &rates, true).node(Path::new("/"), None);
        assert_eq!(node["swap"], Value::Null, "what is not counted is not told");
    }

    #[test]
    fn a_network_is_that_of_eth0_and_of_each_interface() {
        let of = |name: &str, received| Interface { name: name.into(), received, sent: 1, ..Interface::default() };
        let value = network(&[of("docker0", 1), of("eth0", 2)], Timestamp::UNIX_EPOCH);
        assert_eq!((&value["name"], &value["rxBytes"]), (&json!("eth0"), &json!(2)));
        assert_eq!(value["interfaces"].as_array().unwrap().len(), 2);
        let value = network(&[of("docker0", 1)], Timestamp::UNIX_EPOCH);
        assert_eq!((&value["name"], value.get("rxBytes")), (&json!(""), None), "no other stands for all");
        let most = processes(Timestamp::UNIX_EPOCH)["maxpid"].as_i64();
        let threads = std::fs::read_to_string("/proc/sys/kernel/threads-max").unwrap().trim().parse().ok();
        assert!(most > Some(0) && most <= threads);
    }
}
