//! What the workflows act on. Tests put fakes into it.

pub mod cluster;
pub mod joining;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::agent::control::ControlSocket;
use crate::agent::control::expect::HealthSource;
use crate::event::Reporter;
use crate::host::Paths;
use crate::host::facts::{self, Facts, Interest};
use crate::host::paths::CONTROL_SOCKET;
use crate::host::tree::{HostTree, NoRecord, Tree};
use crate::kubelet::service::{Program, ServiceManager, detect};
use crate::runtime::cri::{Cri, Sandboxes};
use crate::runtime::endpoint::Endpoint;
use crate::runtime::{self, ContainerRuntime};
use cluster::{AdminApi, Cluster};
use joining::{Joining, Real};

/// The machine a command changes.
pub struct Machine {
    /// Where files are.
    pub paths: Paths,
    /// Whether this is the running machine, where services, agents and runtimes may be touched.
    pub live: bool,
    /// How they are written. What is made must be recorded before.
    pub tree: Box<dyn Tree>,
    /// Where events go.
    pub reporter: Arc<dyn Reporter>,
    /// Who runs the node agent.
    pub service: Box<dyn ServiceManager>,
    /// What is known of the machine.
    pub facts: Arc<dyn FactSource>,
    /// Container runtimes by address.
    pub runtimes: Arc<dyn Runtimes>,
    /// What the agent says.
    pub health: Arc<dyn HealthSource>,
    /// What is done through the API server.
    pub cluster: Arc<dyn Cluster>,
    /// What is asked of a cluster that this machine joins.
    pub joining: Arc<dyn Joining>,
    /// This program, as a unit is to call it.
    pub program: PathBuf,
    /// Proxy variables that the components are to have.
    pub proxy_env: Vec<(String, String)>,
    /// Cancelled when the command is to stop (Ctrl-C).
    pub stop: CancellationToken,
}

/// Knows the machine.
pub trait FactSource: Send + Sync {
    /// The facts, those of `interest` too; the runtime is asked by the caller.
    fn gather(&self, paths: &Paths, interest: &Interest) -> Facts;
}

impl Machine {
    /// The machine this process runs on, or the files below another root.
    pub fn this(paths: &Paths, service: Program, reporter: Arc<dyn Reporter>) -> Self {
        Self {
            paths: paths.clone(),
            live: paths.is_live(),
            tree: Box::new(HostTree::new(paths.clone(), NoRecord)),
            reporter,
            program: service.path.clone(),
            service: detect(paths, service),
            facts: Arc::new(Here),
            runtimes: Arc::new(Here),
            health: Arc::new(ControlSocket(paths.on_host(CONTROL_SOCKET))),
            cluster: Arc::new(AdminApi::default()),
            joining: Arc::new(Real),
            proxy_env: crate::host::environment::proxies(),
            stop: CancellationToken::new(),
        }
    }
}

/// What is really there.
pub struct Here;

impl FactSource for Here {
    fn gather(&self, paths: &Paths, interest: &Interest) -> Facts {
        facts::gather(paths, interest)
    }
}

#[async_trait]
impl Runtimes for Here {
    fn connect(&self, address: Option<&str>) -> runtime::Result<Arc<dyn ContainerRuntime>> {
        Endpoint::at(address).connect()
    }

    async fn sandboxes(&self, socket: &str) -> runtime::Result<Arc<dyn Sandboxes>> {
        Ok(Arc::new(Cri::connect(socket).await?))
    }
}

/// What somebody outside the workflows reports of a failure.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Finds container runtimes.
#[async_trait]
pub trait Runtimes: Send + Sync {
    /// The runtime at `address`; None is the default.
    fn connect(&self, address: Option<&str>) -> runtime::Result<Arc<dyn ContainerRuntime>>;

    /// The kubelet's runtime at `socket`.
    async fn sandboxes(&self, socket: &str) -> runtime::Result<Arc<dyn Sandboxes>>;
}
