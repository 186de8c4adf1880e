//! Containers to make.

use std::collections::BTreeMap;

use crate::runtime::*;

/// A container that is nothing but its identity (namespace `default`, UID `uid-<pod>`), with the labels that make it
/// the owner's.
pub fn container_config(owner: &str, pod: &str, container: &str, attempt: u32, image: &str) -> ContainerConfig {
    let name = ContainerName {
        pod: pod.into(),
        namespace: "default".into(),
        uid: format!("uid-{pod}"),
        container: container.into(),
        attempt,
    };
    let labels = [
        (labels::OWNER, owner),
        (labels::POD_NAME, pod),
        (labels::POD_NAMESPACE, "default"),
        (labels::POD_UID, &name.uid),
        (labels::CONTAINER_NAME, container),
        (labels::DOCKER_TYPE, "container"),
    ];
    let labels = labels.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    let annotations = BTreeMap::from([(labels::RESTART_COUNT.to_owned(), attempt.to_string())]);
    ContainerConfig {
        name,
        image: image.into(),
        command: vec![],
        args: vec![],
        working_dir: None,
        env: vec![],
        mounts: vec![],
        devices: vec![],
        cdi_devices: vec![],
        labels,
        annotations,
        network: NetworkMode::Host,
        sandbox: None,
        sandbox_config: None,
        host_ipc: false,
        host_pid: false,
        share_pid: false,
        pid_target: None,
        users: None,
        security: SecurityConfig::default(),
        resources: ResourceConfig::default(),
        cgroup_parent: None,
        log: LogLimits::default(),
        stdin: false,
        stdin_once: false,
        tty: false,
    }
}
