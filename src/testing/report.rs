//! Health reports to test with.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use jiff::Timestamp;

use crate::agent::control::expect::HealthSource;
use crate::agent::control::report::*;

/// A report of `pods` by an agent that has synced.
pub fn report(pods: Vec<PodReport>) -> HealthReport {
    HealthReport {
        sequence: 1,
        agent: AgentReport {
            pid: 1,
            version: "0.1.0".into(),
            node_name: "cp1".into(),
            started_at: Timestamp::UNIX_EPOCH,
            static_pod_path: Some("/etc/kubernetes/manifests".into()),
            runtime: Some("docker 20.10.24".into()),
            synced: true,
        },
        pods,
        problems: vec![],
    }
}

/// A running pod of `component` from a file with `file_hash`, not healthy yet.
pub fn pod(component: &str, file_hash: &str) -> PodReport {
    PodReport {
        name: format!("{component}-cp1"),
        namespace: "kube-system".into(),
        uid: format!("uid-{component}-{file_hash}"),
        file: Some(format!("/etc/kubernetes/manifests/{component}.yaml")),
        file_hash: Some(file_hash.into()),
        component: Some(component.into()),
        bound: false,
        phase: Phase::Running,
        ready: false,
        healthy: false,
        terminating: false,
        since: Timestamp::UNIX_EPOCH,
        message: None,
        containers: vec![container(component)],
        successor: None,
    }
}

/// A running container, not healthy yet.
pub fn container(name: &str) -> ContainerReport {
    ContainerReport {
        name: name.into(),
        init: false,
        image: format!("registry.k8s.io/{name}:v1.36.2"),
        id: Some("0123456789ab".into()),
        state: StateReport::Running { started_at: Timestamp::UNIX_EPOCH },
        last_termination: None,
        started: false,
        ready: false,
        healthy: false,
        restarts: 0,
        probe_message: None,
    }
}

/// A source that plays one list of reports a connection; the last connection stays open.
pub struct Script(Mutex<VecDeque<Vec<HealthReport>>>);

impl Script {
    /// One inner list a connection.
    pub fn new(connections: Vec<Vec<HealthReport>>) -> Self {
        Self(Mutex::new(connections.into()))
    }
}

#[async_trait]
impl HealthSource for Script {
    async fn watch(&self) -> Result<BoxStream<'static, HealthReport>, Box<dyn std::error::Error + Send + Sync>> {
        let mut connections = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let reports = connections.pop_front().ok_or("the script is over")?;
        let open = connections.is_empty();
        let played = stream::iter(reports);
        Ok(if open { played.chain(stream::pending()).boxed() } else { played.boxed() })
    }
}
