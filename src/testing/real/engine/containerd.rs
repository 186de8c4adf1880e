//! containerd, as `ctr` tells of it: its own records, which CRI's are made of.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::Value;

use super::{Action, Engine, Event, Look, Parse, block};
use crate::runtime::ContainerRuntime;
use crate::runtime::cri::Cri;
use crate::runtime::labels::OWNER;
use crate::testing::real::cri::{ctr, import};
use crate::testing::real::image;

/// CRI's label of what a container is to it, and what its own records begin with.
const KIND: &str = "io.cri-containerd.kind";
const RECORDS: &str = "io.cri-containerd.";

/// How long a command may take on a busy machine.
const EXEC: Duration = Duration::from_secs(60);

/// A containerd.
pub struct Containerd {
    socket: String,
    client: Arc<Cri>,
}

impl Containerd {
    /// The one at a socket.
    pub fn at(socket: String) -> Self {
        let client = Arc::new(Cri::new(&format!("unix://{socket}")).unwrap());
        Self { socket, client }
    }

    fn ctr(&self, args: &[&str]) -> String {
        ctr(&self.socket, args)
    }

    /// The processes of containers that run.
    fn tasks(&self) -> BTreeMap<String, u32> {
        let all = self.ctr(&["tasks", "ls"]);
        let words = all.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let running = words.filter(|words| words.get(2) == Some(&"RUNNING"));
        running.map(|words| (words[0].to_owned(), words[1].parse().unwrap())).collect()
    }
}

impl Engine for Containerd {
    fn scheme(&self) -> &'static str {
        "containerd"
    }

    fn flags(&self) -> Vec<String> {
        vec![format!("--container-runtime-endpoint=unix://{}", self.socket)]
    }

    fn client(&self) -> Arc<dyn ContainerRuntime> {
        self.client.clone()
    }

    fn take_images(&self) {
        block(image::docker());
        // Another test program may have brought them.
        let is_missing = |name: &&str| block(self.client.image(name)).unwrap().is_none();
        if image::ALL.iter().any(is_missing) {
            import(&self.socket, &image::ALL);
        }
    }

    fn running(&self, owner: &str) -> BTreeMap<String, bool> {
        let filter = format!("labels.\"{OWNER}\"==\"{owner}\"");
        let ids = self.ctr(&["containers", "ls", "--quiet", &filter]);
        let running = self.tasks();
        ids.split_whitespace().map(|id| (id.to_owned(), running.contains_key(id))).collect()
    }

    fn look(&self, id: &str) -> Look {
        let info = info(&self.socket, id).unwrap();
        let metadata = metadata(&info).unwrap();
        let env = info["Spec"]["process"]["env"].as_array().unwrap().iter();
        let pid = self.tasks().get(id).copied();
        Look {
            running: pid.is_some(),
            pid: pid.unwrap_or(0),
            name: name(&info).unwrap(),
            env: env.map(|one| one.as_str().unwrap().to_owned()).collect(),
            log: metadata["LogPath"].as_str().unwrap_or_default().into(),
        }
    }

    fn kill(&self, id: &str) {
        self.ctr(&["tasks", "kill", "--signal", "SIGKILL", id]);
    }

    /// By who speaks CRI, as `crictl rm -f` does: it would not notice that a container of its was gone.
    fn remove(&self, id: &str) {
        block(self.client.remove(id)).unwrap();
    }

    /// By CRI: `ctr tasks exec` cancels its copy of the output when the command ends, and may lose all of it.
    fn exec(&self, id: &str, command: &[&str]) -> String {
        let words: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
        let ended = block(self.client.exec(id, &words, EXEC)).unwrap();
        assert_eq!(ended.exit_code, 0, "{command:?}: {}", ended.output);
        ended.output.trim().to_owned()
    }

    /// All of the namespace: events do not say whose a container is, and neither do they say its name. That is asked
    /// for as soon as one is made.
    fn events(&self, owner: &str) -> (Command, Parse) {
        let mut command = Command::new("ctr");
        command.args(["--address", &self.socket, "--namespace", "k8s.io", "events"]);
        let (socket, owner) = (self.socket.clone(), owner.to_owned());
        let mut names: HashMap<String, String> = HashMap::new();
        let parse = move |line: &str| {
            let mut event = event(line)?;
            if event.action == Action::Create {
                let info = info(&socket, &event.id)?;
                let own = info["Labels"][OWNER] == owner.as_str();
                names.insert(event.id.clone(), name(&info).filter(|_| own)?);
            }
            event.name.clone_from(names.get(&event.id)?);
            Some(event)
        };
        (command, Box::new(parse))
    }

    fn mark(&self, _: &str) -> String {
        let mark = format!("mark-{}-{}", std::process::id(), next());
        self.ctr(&["namespaces", "label", "k8s.io", &format!("kubeboot-test={mark}")]);
        mark
    }

    fn clear(&self, owner: &str) {
        let gone = !Path::new(&self.socket).exists();
        for _ in 0..10 {
            let all = if gone { vec![] } else { block(self.client.list(owner)).unwrap_or_default() };
            if all.is_empty() {
                break;
            }
            // A sandbox takes its containers with it.
            for one in all.iter().filter(|one| one.is_sandbox) {
                let _ = block(self.client.remove(&one.id));
            }
        }
    }
}

/// What containerd has noted of a container; None when it is gone.
fn info(socket: &str, id: &str) -> Option<Value> {
    let args = ["--address", socket, "--namespace", "k8s.io", "containers", "info", id];
    // A busy machine may let `ctr` wait for longer than it does.
    let mut complaint = String::new();
    for _ in 0..5 {
        let answer = Command::new("ctr").args(args).output().unwrap();
        if answer.status.success() {
            return Some(serde_json::from_slice(&answer.stdout).unwrap());
        }
        complaint = String::from_utf8_lossy(&answer.stderr).into_owned();
        if complaint.contains("not found") {
            return None;
        }
    }
    panic!("ctr containers info {id}: {complaint}")
}

/// What CRI has noted there.
fn metadata(info: &Value) -> Option<Value> {
    let mut records = info["Extensions"].as_object()?.iter();
    let (_, record) = records.find(|(name, _)| name.starts_with(RECORDS) && name.ends_with(".metadata"))?;
    let text = STANDARD.decode(record["value"].as_str()?).unwrap();
    Some(serde_json::from_slice::<Value>(&text).unwrap()["Metadata"].take())
}

/// The name that CRI keeps free of others, as Docker's would be.
fn name(info: &Value) -> Option<String> {
    let sandbox = if info["Labels"][KIND] == "sandbox" { "POD_" } else { "" };
    Some(format!("k8s_{sandbox}{}", metadata(info)?["Name"].as_str()?))
}

/// `DATE TIME +0000 UTC NAMESPACE TOPIC JSON`; commands in containers end too.
fn event(line: &str) -> Option<Event> {
    let words: Vec<&str> = line.splitn(7, ' ').collect();
    let [date, time, _, _, _, topic, json] = words.try_into().ok()?;
    let value: Value = serde_json::from_str(json).ok()?;
    let (action, id) = match topic {
        "/containers/create" => (Action::Create, "id"),
        "/tasks/start" => (Action::Start, "container_id"),
        "/tasks/exit" if value["id"] == value["container_id"] => (Action::Die, "id"),
        "/containers/delete" => (Action::Destroy, "id"),
        _ => return None,
    };
    let at = value["exited_at"].as_str().map_or_else(|| format!("{date}T{time}Z"), str::to_owned);
    Some(Event {
        id: value[id].as_str()?.to_owned(),
        action,
        name: String::new(),
        code: (action == Action::Die).then(|| value["exit_status"].as_i64().unwrap_or(0)),
        at: at.parse::<Timestamp>().ok()?.duration_since(Timestamp::UNIX_EPOCH).unsigned_abs(),
    })
}

/// Another number at each call.
fn next() -> u64 {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    NUMBER.fetch_add(1, Ordering::Relaxed)
}
