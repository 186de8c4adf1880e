//! Whether what runs is what is wanted, as docker and the file system show it, and as the agent reports it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use kubeboot::agent::control;
use kubeboot::agent::control::report::{HealthReport, Phase, Severity};
use kubeboot::testing::real::wait::POLL;
use serde_json::Value;

use crate::machine::Machine;
use crate::pods::{KINDS, Kind};

/// What one manifest asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Nothing.
    Absent,
    /// This revision, whole.
    Revision(u32),
    /// The file is no pod: what ran before goes on. Of a revision that was seen to run it is known that it did.
    Spoilt(Option<u32>),
}

/// One container, of what `docker inspect` says.
struct Seen {
    uid: String,
    container: String,
    running: bool,
    revision: Option<String>,
}

fn seen(inspected: &Value) -> Seen {
    let label = |key: &str| inspected["Config"]["Labels"][key].as_str().unwrap_or_default().to_owned();
    let env = inspected["Config"]["Env"].as_array().into_iter().flatten().filter_map(Value::as_str);
    Seen {
        uid: label("io.kubernetes.pod.uid"),
        container: label("io.kubernetes.container.name"),
        running: inspected["State"]["Running"].as_bool().unwrap_or_default(),
        revision: env.filter_map(|pair| pair.strip_prefix("REVISION=")).next().map(str::to_owned),
    }
}

/// What keeps the machine from being what it should be; empty when nothing does.
pub async fn differences(machine: &Machine, wanted: &[Wanted]) -> Vec<String> {
    let Ok(report) = control::report(&machine.control_socket()).await else {
        return vec!["the agent does not answer".to_owned()];
    };
    let Some(inspected) = machine.containers() else { return vec!["dockerd does not answer".to_owned()] };
    let all: Vec<Seen> = inspected.iter().map(seen).collect();
    let mut wrong = Vec::new();
    let mut known = BTreeSet::new();
    for (kind, wanted) in KINDS.iter().zip(wanted) {
        let name = format!("{}-{}", kind.name, machine.tag);
        let pod = report.pods.iter().find(|pod| pod.name == name);
        match (pod, wanted) {
            (None, Wanted::Absent | Wanted::Spoilt(None)) => {}
            (None, _) => wrong.push(format!("{name} is not reported")),
            (Some(_), Wanted::Absent) => wrong.push(format!("{name} is still reported")),
            (Some(pod), _) => {
                known.insert(pod.uid.clone());
                let own: Vec<&Seen> = all.iter().filter(|one| one.uid == pod.uid).collect();
                let revision = match wanted {
                    Wanted::Revision(revision) => Some(*revision),
                    Wanted::Spoilt(before) => *before,
                    Wanted::Absent => None,
                };
                let fine = if kind.ends { pod.phase == Phase::Succeeded } else { pod.healthy };
                if !fine || pod.terminating {
                    wrong.push(format!("{name} is {:?}, not well: {:?}", pod.phase, summary(&report, &name)));
                }
                wrong.extend(containers(kind, &own, revision).into_iter().map(|what| format!("{name}: {what}")));
            }
        }
    }
    for one in all.iter().filter(|one| !known.contains(&one.uid)) {
        wrong.push(format!("container {} of {} is nobody's (running: {})", one.container, one.uid, one.running));
    }
    let spoilt = wanted.iter().any(|wanted| matches!(wanted, Wanted::Spoilt(_)));
    let problems = report.problems.iter().filter(|problem| !spoilt && problem.severity == Severity::Error);
    wrong.extend(problems.map(|problem| format!("problem: {}: {}", problem.subject, problem.message)));
    wrong
}

fn containers(kind: &Kind, own: &[&Seen], revision: Option<u32>) -> Vec<String> {
    let mut running: BTreeMap<&str, u32> = BTreeMap::new();
    for one in own.iter().filter(|one| one.running) {
        *running.entry(&one.container).or_default() += 1;
    }
    let sandbox = (kind.sandbox && !kind.ends).then_some("POD");
    let expected: BTreeMap<&str, u32> = kind.lasting.iter().copied().chain(sandbox).map(|name| (name, 1)).collect();
    let mut wrong = Vec::new();
    if running != expected {
        wrong.push(format!("these run: {running:?}, expected {expected:?}"));
    }
    let other =
        |one: &&&Seen| revision.is_some() && one.revision.is_some() && one.revision != revision.map(|r| r.to_string());
    wrong.extend(own.iter().filter(other).map(|one| format!("{} is of revision {:?}", one.container, one.revision)));
    // The newest dead one of each container is kept, and that of the instance that runs.
    let dead = own.iter().filter(|one| !one.running).count();
    if dead > 2 * (kind.lasting.len() + 3) {
        wrong.push(format!("{dead} dead containers are kept"));
    }
    wrong
}

fn summary(report: &HealthReport, name: &str) -> Vec<String> {
    let pod = report.pods.iter().find(|pod| pod.name == name);
    let of = |c: &kubeboot::agent::control::report::ContainerReport| {
        format!("{}: {:?} started {} {:?}", c.name, c.state, c.started, c.probe_message)
    };
    pod.map(|pod| pod.message.iter().cloned().chain(pod.containers.iter().map(of)).collect()).unwrap_or_default()
}

/// Waits until nothing is different, for `limit` at most.
pub async fn settle(machine: &Machine, wanted: &[Wanted], limit: Duration) -> Result<Duration, Vec<String>> {
    let begin = Instant::now();
    loop {
        let wrong = differences(machine, wanted).await;
        // Once is not enough: what is right for a moment only is wrong.
        if wrong.is_empty() && differences(machine, wanted).await.is_empty() {
            return Ok(begin.elapsed());
        }
        if begin.elapsed() > limit {
            return Err(wrong);
        }
        std::thread::sleep(POLL);
    }
}

/// What is left after the last manifest has gone; `uids` are those of every pod there was.
pub fn leftovers(machine: &Machine, uids: &BTreeSet<String>) -> Vec<String> {
    let mut left: Vec<String> = Vec::new();
    match machine.containers() {
        None => left.push("dockerd does not answer".to_owned()),
        Some(all) => left.extend(all.iter().map(|one| format!("container {}", one["Name"]))),
    }
    left.extend(machine.agent_mounts().into_iter().map(|mount| format!("mount {mount}")));
    for dir in ["agent/root/pods", "agent/logs", "agent/root/kubeboot-manifests"] {
        left.extend(entries(&machine.path(dir)).into_iter().map(|name| format!("{dir}/{name}")));
    }
    let link = format!("-{}_chaos_", machine.tag);
    let links = entries(Path::new("/var/log/containers")).into_iter().filter(|name| name.contains(&link));
    left.extend(links.map(|name| format!("/var/log/containers/{name}")));
    let named =
        |name: &str| uids.iter().any(|uid| name.contains(uid.as_str()) || name.contains(&uid.replace('-', "_")));
    for hierarchy in entries(Path::new("/sys/fs/cgroup")) {
        cgroups(&Path::new("/sys/fs/cgroup").join(hierarchy), 0, &named, &mut left);
    }
    left
}

/// Cgroups of pods, which are a few levels down at most.
fn cgroups(dir: &Path, depth: u32, named: &dyn Fn(&str) -> bool, left: &mut Vec<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if entry.file_name().to_str().is_some_and(named) {
            left.push(format!("cgroup {}", entry.path().display()));
        } else if depth < 4 {
            cgroups(&entry.path(), depth + 1, named, left);
        }
    }
}

fn entries(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// UIDs of everything docker has.
pub fn uids(machine: &Machine) -> BTreeSet<String> {
    machine.containers().unwrap_or_default().iter().map(|one| seen(one).uid).filter(|uid| !uid.is_empty()).collect()
}
