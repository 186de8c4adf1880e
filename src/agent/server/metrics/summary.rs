//! `/stats/summary`: what the node and its pods use, in the kubelet's JSON.

use std::path::Path;
use std::sync::Arc;

use ::http::{Response, StatusCode};
use jiff::Timestamp;
use rustix::fs::{StatVfs, statvfs};
use serde_json::{Map, Value, json};

use super::usage::{AGENT, Interface, MACHINE, Measured, PodUsage, Rates};
use crate::agent::cgroups::Usage;
use crate::agent::context::Context;
use crate::agent::server::http::{Body, respond, say};
use crate::agent::server::query::Query;

/// Where Docker keeps images; the root directory's file system stands in where it is not.
const IMAGES: &str = "/var/lib/docker";

/// The answer.
pub async fn answer(context: &Arc<Context>, rates: &Arc<Rates>, query: &Query) -> Response<Body> {
    let measured = rates.measure(context).await;
    let all = !query.is_set("only_cpu_and_memory");
    let (context, rates) = (Arc::clone(context), Arc::clone(rates));
    // Off the runtime's threads: a network file system may hang.
    let told = tokio::task::spawn_blocking(move || {
        let pods = measured.pods.iter().map(|pod| of_pod(&context, pod, &measured, &rates, all));
        let pods: Vec<Value> = pods.collect();
        json!({ "node": of_node(&context, &measured, &rates, all), "pods": pods }).to_string()
    });
    match told.await {
        Ok(told) => respond(StatusCode::OK, "application/json", told),
        Err(error) => say(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot measure: {error}\n")),
    }
}

fn of_node(context: &Context, measured: &Measured, rates: &Rates, all: bool) -> Value {
    let report = context.board.reports().borrow().clone();
    let mut node = json!({ "nodeName": report.agent.node_name, "startTime": time(started(measured.at)) });
    used(&mut node, &measured.node, rates.of(MACHINE), measured.at);
    if all {
        node["network"] = network(&measured.network, measured.at);
        let root = context.options.root_dir.as_path();
        node["fs"] = file_system(root, measured.at);
        let images = if Path::new(IMAGES).exists() { Path::new(IMAGES) } else { root };
        node["runtime"] = json!({ "imageFs": file_system(images, measured.at) });
        node["rlimit"] = processes(measured.at);
        node["systemContainers"] = system(measured, rates);
    }
    node
}

/// What runs the pods, and all of them together, under the names that a kubelet gives to its system containers.
fn system(measured: &Measured, rates: &Rates) -> Value {
    let mut kubelet = json!({ "name": "kubelet" });
    used(&mut kubelet, &measured.agent, rates.of(AGENT), measured.at);
    let containers = || measured.pods.iter().flat_map(|pod| &pod.containers);
    let all = PodUsage::of_all(&measured.pods);
    let rate = containers().filter_map(|container| rates.of(&container.id)).reduce(u64::saturating_add);
    let mut pods = json!({ "name": "pods" });
    used(&mut pods, &all, rate, measured.at);
    json!([kubelet, pods])
}

/// What was swapped out, as far as it is counted.
fn swap(all: impl Iterator<Item = Option<u64>>, at: Timestamp) -> Value {
    let sum = all.flatten().reduce(u64::saturating_add);
    sum.map_or(Value::Null, |bytes| json!({ "time": time(at), "swapUsageBytes": bytes }))
}

/// When the machine was started.
fn started(now: Timestamp) -> Timestamp {
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds = uptime.split('.').next().and_then(|seconds| seconds.parse::<i64>().ok()).unwrap_or(0);
    Timestamp::from_second(now.as_second().saturating_sub(seconds)).unwrap_or(now)
}

fn of_pod(context: &Context, pod: &PodUsage, measured: &Measured, rates: &Rates, all: bool) -> Value {
    let containers = pod.containers.iter().map(|container| {
        let mut value = json!({ "name": container.name, "startTime": time(container.started_at) });
        used(&mut value, &container.usage, rates.of(&container.id), measured.at);
        if all {
            value["swap"] = swap([container.details.swap].into_iter(), measured.at);
        }
        value
    });
    let started = pod.containers.iter().map(|container| container.started_at).min().unwrap_or(measured.at);
    let mut value = json!({
        "podRef": { "name": pod.name, "namespace": pod.namespace, "uid": pod.uid },
        "startTime": time(started),
        "containers": containers.collect::<Vec<_>>(),
    });
    let rate = pod.containers.iter().filter_map(|container| rates.of(&container.id)).reduce(u64::saturating_add);
    used(&mut value, &pod.total(), rate, measured.at);
    if all {
        value["swap"] = swap(pod.containers.iter().map(|one| one.details.swap), measured.at);
        value["network"] = network(pod.network.as_ref().unwrap_or(&measured.network), measured.at);
        let volumes = context.options.root_dir.join("pods").join(&pod.uid);
        if volumes.exists() {
            value["ephemeral-storage"] = file_system(&volumes, measured.at);
        }
    }
    value
}

/// Adds `cpu` and `memory`, as far as they are known.
fn used(value: &mut Value, usage: &Usage, rate: Option<u64>, at: Timestamp) {
    if let Some(nanos) = usage.cpu_nanos {
        let mut cpu = json!({ "time": time(at), "usageCoreNanoSeconds": nanos });
        if let Some(rate) = rate {
            cpu["usageNanoCores"] = rate.into();
        }
        value["cpu"] = cpu;
    }
    if let Some(memory) = usage.memory {
        let mut told = json!({
            "time": time(at),
            "usageBytes": memory.usage,
            "workingSetBytes": memory.working_set,
            "rssBytes": memory.rss,
            "pageFaults": memory.page_faults,
            "majorPageFaults": memory.major_page_faults,
        });
        if let Some(limit) = memory.limit {
            told["availableBytes"] = limit.saturating_sub(memory.working_set).into();
        }
        value["memory"] = told;
    }
}

/// The first interface stands for all, as by the kubelet, which looks for `eth0`.
fn network(interfaces: &[Interface], at: Timestamp) -> Value {
    let told = |interface: &Interface| -> Map<String, Value> {
        let counts = [
            ("rxBytes", interface.received),
            ("rxErrors", interface.receive_errors),
            ("txBytes", interface.sent),
            ("txErrors", interface.send_errors),
        ];
        let name = [("name".to_owned(), Value::from(interface.name.clone()))].into_iter();
        name.chain(counts.map(|(name, count)| (name.to_owned(), count.into()))).collect()
    };
    let first = interfaces.iter().find(|interface| interface.name == "eth0").or(interfaces.first());
    let mut value = first.map(told).unwrap_or_default();
    value.insert("time".to_owned(), time(at));
    value.insert("interfaces".to_owned(), interfaces.iter().map(|one| Value::Object(told(one))).collect());
    Value::Object(value)
}

fn file_system(path: &Path, at: Timestamp) -> Value {
    statvfs(path).map_or(Value::Null, |found| file_system_of(&found, at))
}

fn file_system_of(found: &StatVfs, at: Timestamp) -> Value {
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    json!({
        "time": time(at),
        "capacityBytes": bytes(found.f_blocks),
        "availableBytes": bytes(found.f_bavail),
        "usedBytes": bytes(found.f_blocks.saturating_sub(found.f_bfree)),
        "inodes": found.f_files,
        "inodesFree": found.f_ffree,
        "inodesUsed": found.f_files.saturating_sub(found.f_ffree),
    })
}

fn processes(at: Timestamp) -> Value {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let most = read("/proc/sys/kernel/pid_max").trim().parse::<i64>().ok();
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

    #[test]
    fn what_is_known_is_told_in_the_kubelets_fields() {
        let memory = MemoryUsage { usage: 9, working_set: 7, rss: 5, limit: Some(100), ..MemoryUsage::default() };
        let mut value = json!({});
        used(&mut value, &Usage { cpu_nanos: Some(3), memory: Some(memory) }, Some(2), Timestamp::UNIX_EPOCH);
        let cpu = json!({"time": "1970-01-01T00:00:00Z", "usageCoreNanoSeconds": 3, "usageNanoCores": 2});
        assert_eq!(value["cpu"], cpu);
        assert_eq!((&value["memory"]["workingSetBytes"], &value["memory"]["availableBytes"]), (&json!(7), &json!(93)));
        let mut nothing = json!({});
        used(&mut nothing, &Usage::default(), None, Timestamp::UNIX_EPOCH);
        assert_eq!(nothing, json!({}));
    }

    #[test]
    fn a_network_is_that_of_eth0_and_of_each_interface() {
        let of = |name: &str, received| Interface { name: name.into(), received, sent: 1, ..Interface::default() };
        let value = network(&[of("docker0", 1), of("eth0", 2)], Timestamp::UNIX_EPOCH);
        assert_eq!((&value["name"], &value["rxBytes"]), (&json!("eth0"), &json!(2)));
        assert_eq!(value["interfaces"].as_array().unwrap().len(), 2);
        assert!(file_system(Path::new("/"), Timestamp::UNIX_EPOCH)["capacityBytes"].as_u64() > Some(0));
        assert!(processes(Timestamp::UNIX_EPOCH)["maxpid"].as_i64() > Some(0));
    }
}
