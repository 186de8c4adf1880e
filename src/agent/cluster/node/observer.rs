//! What the agent sees of its node, gathered for the status.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerImage, NodeStatus};
use tokio::time::timeout;
use tracing::debug;

use super::machine::{self, Machine};
use super::status::{Seen, status};
use crate::agent::cluster::Parts;
use crate::error::chain;
use crate::host::clock::Instant;
use crate::runtime::PodNetwork;

/// How long a runtime may be away before its Node is not ready, as with a kubelet.
const RUNTIME_AWAY: Duration = Duration::from_secs(30);
/// How often the runtime is asked for its images.
const IMAGES_EVERY: Duration = Duration::from_secs(60);
/// The longest the status waits for the runtime's answer.
const RUNTIME_LIMIT: Duration = Duration::from_secs(5);

/// The version of Kubernetes that a Node speaks: that of its API server, which no kubelet may be newer than. The agent
/// has none of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Version {
    /// `v1.36.2`.
    pub full: String,
    /// 36.
    pub minor: u64,
}

/// Looks at the node, and remembers what is not looked at each time.
pub struct Observer {
    machine: Machine,
    addresses: Vec<String>,
    runtime: String,
    /// Since when the runtime is away; None while it answers.
    away: Option<Instant>,
    network: PodNetwork,
    images: Vec<ContainerImage>,
    images_at: Option<Instant>,
}

impl Observer {
    /// Nothing is known of the runtime yet.
    pub async fn new(parts: &Parts) -> Self {
        let root = parts.options.root_dir.clone();
        // Off the runtime's threads: a network file system may hang.
        let machine = tokio::task::spawn_blocking(move || Machine::look(Path::new("/"), &root)).await;
        Self {
            machine: machine.unwrap_or_default(),
            addresses: super::addresses(&parts.options, parts.address.as_deref()),
            runtime: String::new(),
            away: None,
            network: PodNetwork::Absent,
            images: Vec::new(),
            images_at: None,
        }
    }

    /// The status as it is now.
    pub async fn status(&mut self, parts: &Parts, version: &Version, before: &NodeStatus) -> NodeStatus {
        let runtime = parts.board.reports().borrow().agent.runtime.clone();
        match runtime {
            Some(runtime) => {
                (self.runtime, self.away) = (runtime, None);
                self.ask_runtime(parts).await;
            }
            None => drop(self.away.get_or_insert_with(Instant::now)),
        }
        let trouble = self.runtime_trouble(parts);
        let disks: Vec<String> = parts
            .board
            .problems("disk")
            .into_iter()
            .map(|problem| format!("{}: {}", problem.subject, problem.message))
            .collect();
        let disks = disks.join("; ");
        let devices = parts.devices.amounts().await;
        let seen = Seen {
            devices: &devices,
            machine: &self.machine,
            options: &parts.options.node,
            name: &parts.options.node_name,
            addresses: &self.addresses,
            runtime: &self.runtime,
            runtime_trouble: trouble.as_deref(),
            network: &self.network,
            disk_trouble: Some(disks.as_str()).filter(|disks| !disks.is_empty()),
            available_memory: machine::available_memory(),
            version: &version.full,
            minor: version.minor,
            port: parts.options.api_port(),
            images: &self.images,
            now: Timestamp::now(),
        };
        status(&seen, before)
    }

    /// What is wrong with the runtime, once it is away for long or was never there.
    fn runtime_trouble(&self, parts: &Parts) -> Option<String> {
        let away = self.away?;
        if !self.runtime.is_empty() && away.elapsed() < RUNTIME_AWAY {
            return None;
        }
        let said = parts.board.problems("runtime").into_iter().next().map(|problem| problem.message);
        Some(said.unwrap_or_else(|| "it has not answered yet".to_owned()))
    }

    async fn ask_runtime(&mut self, parts: &Parts) {
        match timeout(RUNTIME_LIMIT, parts.runtime.pod_network()).await {
            Ok(Ok(network)) => self.network = network,
            Ok(Err(error)) => debug!(error = chain(&error), "the runtime does not say what network pods have"),
            Err(_) => debug!("the runtime does not say in time what network pods have"),
        }
        if self.images_at.is_some_and(|at| at.elapsed() < IMAGES_EVERY) {
            return;
        }
        self.images_at = Some(Instant::now());
        if let Ok(Ok(images)) = timeout(RUNTIME_LIMIT, parts.runtime.images()).await {
            let most = parts.options.node.max_images.unwrap_or(usize::MAX);
            let image = |image: crate::runtime::StoredImage| ContainerImage {
                names: Some(image.names),
                size_bytes: i64::try_from(image.size).ok(),
            };
            self.images = images.into_iter().take(most).map(image).collect();
        }
    }
}
