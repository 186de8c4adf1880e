//! What the cluster hears of the node and asks of it: the Node itself, mirrors of static pods, events, the pods that are
//! bound to it, and the leases of leaders that have ended here. Nothing that runs pods knows of it: without an API server everything else goes on.

pub mod bound;
pub mod leader_lease;
pub mod mirror;
pub mod node;
pub mod pod_status;
pub mod event_sink;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::watch;

use super::admission::{Refusal, Site};
use super::apiserver::ApiServer;
use super::apiserver::registered::NodeState;
use super::board::Board;
use super::counters::Metrics;
use super::devices::Devices;
use super::events::Recorder;
use super::options::AgentOptions;
use crate::runtime::ContainerRuntime;
use mirror::Uids;

/// What all of it takes. Cheap to clone.
#[derive(Clone)]
pub struct Parts {
    /// What the agent was started with.
    pub options: Arc<AgentOptions>,
    /// The API server.
    pub api: Arc<ApiServer>,
    /// The container runtime, which is asked for images and for the network of pods.
    pub runtime: Arc<dyn ContainerRuntime>,
    /// What there is of pods.
    pub board: Arc<Board>,
    /// What happened.
    pub events: Arc<Recorder>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// The Node, once it is registered.
    pub node: Arc<NodeState>,
    /// UIDs of the mirrors of the pods.
    pub mirrors: Uids,
    /// Device plugins, whose resources the Node has.
    pub devices: Arc<Devices>,
    /// The address that the machine uses towards others.
    pub address: Option<String>,
    /// The node as pods are admitted to it, without its labels.
    pub site: Site,
    /// UIDs of pods bound to the node that have to go for a static one.
    pub preempted: watch::Receiver<BTreeSet<String>>,
    /// Why pods bound to the node are not run that its devices were not enough for, by UID.
    pub without_devices: watch::Receiver<BTreeMap<String, Refusal>>,
}
