//! The container runtime behind a machine, as the tests look at it without the agent: Docker through `docker`, or the
//! containerd whose socket `KUBEBOOT_TEST_CRI` names through `ctr`. What a test asks for it asks by its meaning.

mod containerd;
mod docker;

pub use containerd::Containerd;
pub use docker::Docker;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use super::cri;
use crate::runtime::ContainerRuntime;

/// What may happen to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It is made.
    Create,
    /// It runs.
    Start,
    /// It ended.
    Die,
    /// It is gone.
    Destroy,
}

/// One thing that happened to a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Container id.
    pub id: String,
    /// What.
    pub action: Action,
    /// Container name, `k8s_CONTAINER_POD_...`.
    pub name: String,
    /// How it ended.
    pub code: Option<i64>,
    /// When, since the epoch, by the machine's clock.
    pub at: Duration,
}

impl Event {
    /// The container's name in its pod, empty for what no agent made.
    pub fn container(&self) -> &str {
        self.name.strip_prefix("k8s_").and_then(|name| name.split('_').next()).unwrap_or_default()
    }
}

/// Turns a line of a runtime's events into what happened, if it is of interest.
pub type Parse = Box<dyn FnMut(&str) -> Option<Event> + Send>;

/// A runtime. Whatever goes wrong here fails the test.
pub trait Engine {
    /// What the API calls it.
    fn scheme(&self) -> &'static str;

    /// Flags that point an agent at it.
    fn flags(&self) -> Vec<String>;

    /// A client of its API, which does what is done by hand with a tool that speaks it.
    fn client(&self) -> Arc<dyn ContainerRuntime>;

    /// Brings the images of the pods here to it.
    fn take_images(&self);

    /// Everything that carries an owner's label, sandboxes included, and whether it runs.
    fn running(&self, owner: &str) -> BTreeMap<String, bool>;

    /// What it has noted of one container.
    fn look(&self, id: &str) -> Look;

    /// Ends a container's main process with SIGKILL, behind the agent's back.
    fn kill(&self, id: &str);

    /// Removes a container, running or not, behind the agent's back.
    fn remove(&self, id: &str);

    /// Runs a command in a container, and returns what it printed.
    fn exec(&self, id: &str, command: &[&str]) -> String;

    /// The program that tells, line by line, what happens to an owner's containers, and what reads it.
    fn events(&self, owner: &str) -> (Command, Parse);

    /// Makes something happen that is told in a line in which the returned text is.
    fn mark(&self, owner: &str) -> String;

    /// Takes everything that carries an owner's label away. A runtime that is gone has nothing.
    fn clear(&self, owner: &str);
}

/// What a runtime has noted of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// Whether its main process lives.
    pub running: bool,
    /// Its main process; 0 where none runs.
    pub pid: u32,
    /// `k8s_CONTAINER_POD_NAMESPACE_UID_ATTEMPT`.
    pub name: String,
    /// `NAME=VALUE`.
    pub env: Vec<String>,
    /// The file into which its output goes.
    pub log: PathBuf,
}

/// Which runtime the tests run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Docker.
    Docker,
    /// containerd.
    Containerd,
}

impl Kind {
    /// The one that is asked for.
    pub fn chosen() -> Self {
        if cri::chosen().is_some() { Self::Containerd } else { Self::Docker }
    }
}

/// The runtime that all tests share.
pub fn shared() -> Box<dyn Engine> {
    match cri::chosen() {
        Some(socket) => Box::new(Containerd::at(socket)),
        None => Box::new(Docker::at(None)),
    }
}

/// Waits on whichever thread this is, in a runtime or beside one.
fn block<F: Future>(future: F) -> F::Output {
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(future))
}
