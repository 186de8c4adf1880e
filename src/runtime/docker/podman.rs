//! podman behind its Docker-compatible socket (`podman system service`): where it answers otherwise than Docker does.

use std::sync::Once;

use bollard::errors::Error as BollardError;
use bollard::models::{ContainerCreateBody, ResourcesUlimits, SystemVersion};
use tokio::net::UnixStream;

use super::Docker;
use super::address::Address;
use super::spec::CONTAINER_MODE;

/// The limits that podman raises, and their lines in /proc/PID/limits.
const RAISED: [(&str, &str); 2] = [("nofile", "Max open files"), ("nproc", "Max processes")];

/// Who answers at a Docker engine's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// Docker, or a runtime that does not say that it is another.
    Docker,
    /// podman.
    Podman,
}

impl Engine {
    /// The engine that says this of its version.
    pub fn of(version: &SystemVersion) -> Self {
        let mut components = version.components.iter().flatten();
        if components.any(|part| part.name.starts_with("Podman")) { Self::Podman } else { Self::Docker }
    }

    /// Its name, as people write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
        }
    }
}

/// Whether an error that podman answers with status 500 is one that Docker would answer with 409.
pub fn is_conflict(message: &str) -> bool {
    ["is already in use", "container state improper", "image is in use"].iter().any(|words| message.contains(words))
}

/// An error of podman as Docker would answer it.
pub fn as_docker(error: BollardError) -> BollardError {
    match error {
        BollardError::DockerResponseServerError { status_code: 500, message } if is_conflict(&message) => {
            BollardError::DockerResponseServerError { status_code: 409, message }
        }
        other => other,
    }
}

/// Says what is to be made in a way that podman makes the same of it; `limits` are those of [`Docker::podman_limits`].
pub fn adapt(body: &mut ContainerCreateBody, limits: Vec<ResourcesUlimits>) {
    let host = body.host_config.get_or_insert_default();
    // Docker gives a container the host name of the one whose network it joins; podman has to be told.
    if let Some(sandbox) = host.network_mode.as_ref().filter(|mode| mode.starts_with(CONTAINER_MODE))
        && host.uts_mode.is_none()
    {
        host.uts_mode = Some(sandbox.clone());
    }
    if !limits.is_empty() && host.ulimits.is_none() {
        host.ulimits = Some(limits);
    }
}

impl Docker {
    /// podman raises the limits of files and processes to a million, which a machine without CAP_SYS_RESOURCE forbids,
    /// and then starts nothing at all. There, containers are given what podman has itself; elsewhere this is empty.
    pub(super) async fn podman_limits(&self) -> Vec<ResourcesUlimits> {
        static SAID: Once = Once::new();
        let (Address::Unix(path), Some(_)) = (&self.address, self.oom_score_floor) else { return vec![] };
        SAID.call_once(|| {
            tracing::warn!("no CAP_SYS_RESOURCE: containers have podman's own limits of open files and processes");
        });
        let peer = UnixStream::connect(path).await.and_then(|stream| stream.peer_cred());
        // Without a peer that can be seen, what this process may have is the best guess.
        let pid = peer.ok().and_then(|peer| peer.pid()).map_or_else(|| "self".to_owned(), |pid| pid.to_string());
        limits(&tokio::fs::read_to_string(format!("/proc/{pid}/limits")).await.unwrap_or_default())
    }
}

/// The hard limits of a process, as its /proc/PID/limits tells them; those that are unlimited need no telling.
fn limits(table: &str) -> Vec<ResourcesUlimits> {
    let hard =
        |line: &str| table.lines().find_map(|row| row.strip_prefix(line))?.split_whitespace().nth(1)?.parse().ok();
    let limit = |(name, line): (&str, &str)| {
        let hard: i64 = hard(line)?;
        Some(ResourcesUlimits { name: Some(name.to_owned()), soft: Some(hard), hard: Some(hard) })
    };
    RAISED.into_iter().filter_map(limit).collect()
}

#[cfg(test)]
mod tests {
    use bollard::models::{HostConfig, SystemVersionComponents};

    use super::*;

    fn body(network: &str) -> ContainerCreateBody {
        let host = HostConfig { network_mode: Some(network.to_owned()), ..HostConfig::default() };
        ContainerCreateBody { host_config: Some(host), ..ContainerCreateBody::default() }
    }

    #[test]
    fn podman_is_known_by_its_components_and_everybody_else_is_docker() {
        let says = |name: &str| SystemVersion {
            components: Some(vec![SystemVersionComponents { name: name.to_owned(), ..Default::default() }]),
            ..SystemVersion::default()
        };
        assert_eq!(Engine::of(&says("Podman Engine")).name(), "podman");
        assert_eq!(Engine::of(&says("Engine")).name(), "docker");
        assert_eq!(Engine::of(&SystemVersion::default()), Engine::Docker);
    }

    #[test]
    fn a_container_in_a_sandbox_has_the_sandboxes_host_name_and_no_other_has() {
        for (network, expected) in [("container:box", Some("container:box")), ("host", None), ("default", None)] {
            let mut body = body(network);
            adapt(&mut body, vec![]);
            let host = body.host_config.unwrap();
            assert_eq!((host.uts_mode.as_deref(), host.ulimits), (expected, None), "{network}");
        }
    }

    #[test]
    fn where_limits_cannot_be_raised_containers_have_those_of_podman() {
        let table = "Limit                     Soft Limit           Hard Limit           Units     \n\
                     Max processes             16384                32768                processes \n\
                     Max open files            1024                 20000                files     \n";
        let mut body = body("host");
        adapt(&mut body, limits(table));
        let given = body.host_config.unwrap().ulimits.unwrap();
        let given: Vec<_> = given.iter().map(|one| (one.name.as_deref().unwrap(), one.soft, one.hard)).collect();
        assert_eq!(given, [("nofile", Some(20000), Some(20000)), ("nproc", Some(32768), Some(32768))]);
        assert_eq!(limits("Max processes             unlimited            unlimited            processes\n"), []);
    }

    #[test]
    fn what_docker_calls_a_conflict_is_one() {
        assert!(is_conflict("can only create exec sessions on running containers: container state improper"));
        assert!(is_conflict("the container name \"a\" is already in use by b"));
        assert!(!is_conflict("container b has dependent containers: container already exists"));
        let answer =
            |message: &str| BollardError::DockerResponseServerError { status_code: 500, message: message.into() };
        let code = |error| match error {
            BollardError::DockerResponseServerError { status_code, .. } => status_code,
            _ => 0,
        };
        assert_eq!(code(as_docker(answer("the container name \"a\" is already in use"))), 409);
        assert_eq!(code(as_docker(answer("no such file"))), 500);
    }
}
