//! What happened to a node's containers, as Docker tells it: independent of what the agent says.

use std::fs::{self, File};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

/// A running `docker events`.
pub struct History {
    process: Child,
    file: PathBuf,
}

/// One thing that happened to a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Container id.
    pub id: String,
    /// `create`, `start`, `kill`, `die`, `destroy`, ...
    pub action: String,
    /// Container name.
    pub name: String,
    /// Signal of a `kill`.
    pub signal: Option<u32>,
    /// When, since the epoch, by the daemon's clock.
    pub at: Duration,
}

/// Events in the order in which they happened.
#[derive(Debug, Clone)]
pub struct Events(Vec<Event>);

impl History {
    /// Starts recording to `file`.
    pub fn start(args: &[&str], file: &Path) -> Self {
        let output = File::create(file).unwrap();
        let process = Command::new("docker").args(args).stdin(Stdio::null()).stdout(output).spawn().unwrap();
        Self { process, file: file.to_owned() }
    }

    /// What has happened so far.
    pub fn events(&self) -> Events {
        let text = fs::read_to_string(&self.file).unwrap();
        // The last line may be half written.
        let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        Events(lines.filter_map(|line| Event::parse(&serde_json::from_str(line).unwrap())).collect())
    }
}

impl Drop for History {
    fn drop(&mut self) {
        let _ = (self.process.kill(), self.process.wait());
    }
}

impl Event {
    fn parse(value: &Value) -> Option<Self> {
        let text = |path: &str| value.pointer(path).and_then(Value::as_str).map(str::to_owned);
        Some(Self {
            id: text("/Actor/ID")?,
            action: text("/Action").filter(|_| text("/Type").as_deref() == Some("container"))?,
            name: text("/Actor/Attributes/name")?,
            signal: text("/Actor/Attributes/signal").and_then(|signal| signal.parse().ok()),
            at: Duration::from_nanos(value.pointer("/timeNano").and_then(Value::as_u64)?),
        })
    }

    /// The container's name in its pod, empty for what no agent made.
    pub fn container(&self) -> &str {
        self.name.strip_prefix("k8s_").and_then(|name| name.split('_').next()).unwrap_or_default()
    }
}

impl Events {
    /// What happened to one container.
    pub fn of(&self, id: &str) -> Vec<Event> {
        self.0.iter().filter(|event| event.id == id).cloned().collect()
    }

    /// Every time a container of this name in its pod had this happen to it.
    pub fn each(&self, action: &str, container: &str) -> Vec<Event> {
        self.0.iter().filter(|e| e.action == action && e.container() == container).cloned().collect()
    }

    /// The one such event.
    pub fn one(&self, action: &str, id: &str) -> Event {
        let all: Vec<&Event> = self.0.iter().filter(|e| e.action == action && e.id == id).collect();
        assert_eq!(all.len(), 1, "{action} of {id}: {self:#?}");
        all[0].clone()
    }
}

impl Deref for Events {
    type Target = [Event];

    fn deref(&self) -> &[Event] {
        &self.0
    }
}
