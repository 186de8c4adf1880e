//! Which container runtime a machine has, and how one is named.
//!
//! A name is a `unix://` URL or a path, as kubeadm's `--cri-socket` and the kubelet's `--container-runtime-endpoint` take
//! it. The sockets of cri-dockerd and of dockershim mean Docker, with which is spoken directly. In records and between
//! the workflows an address says which of the two it is: `cri:unix:///run/containerd/containerd.sock`, everything else is
//! Docker's.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::cri::Cri;
use super::docker::Docker;
use super::{ContainerRuntime, Result};
use crate::config::ClusterSpec;
use crate::config::spec::Overrides;
use crate::host::{Paths, environment};

/// Docker's socket.
pub const DOCKER_SOCKET: &str = "/var/run/docker.sock";
/// Sockets at which runtimes that speak CRI listen, those of Docker's adapters last.
const CRI_SOCKETS: [&str; 3] = ["/run/containerd/containerd.sock", "/var/run/crio/crio.sock", "/run/cri-dockerd.sock"];
/// File names of sockets behind which Docker is.
const DOCKERS: [&str; 3] = ["cri-dockerd.sock", "dockershim.sock", "docker.sock"];
/// What an address of a CRI runtime begins with.
const CRI_PREFIX: &str = "cri:";

/// A container runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// Docker at this address; None is `DOCKER_HOST`, else its default socket.
    Docker(Option<String>),
    /// One that speaks CRI at this `unix://` URL.
    Cri(String),
}

/// Why a machine's runtime is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// That is no socket.
    #[error(
        "{text:?} is no container runtime endpoint: use unix:///path/to/the.sock or a path, such as \
         unix:///run/containerd/containerd.sock"
    )]
    NoSocket {
        /// What was given.
        text: String,
    },
    /// More than one is there and none was chosen.
    #[error(
        "found multiple CRI endpoints on the host ({}): name one with --cri-socket, or in nodeRegistration.criSocket",
        found.join(", ")
    )]
    Ambiguous {
        /// What is there.
        found: Vec<String>,
    },
}

impl Endpoint {
    /// The runtime at a socket.
    ///
    /// # Errors
    /// [`EndpointError::NoSocket`].
    pub fn parse(text: &str) -> std::result::Result<Self, EndpointError> {
        let path = text.strip_prefix("unix://").unwrap_or(text);
        let has_end = !path.ends_with('/') && !path.contains(char::is_control);
        if !path.starts_with('/') || !has_end {
            return Err(EndpointError::NoSocket { text: text.to_owned() });
        }
        let name = Path::new(path).file_name().and_then(|name| name.to_str()).unwrap_or_default();
        Ok(match name {
            "docker.sock" => Self::Docker(Some(format!("unix://{path}"))),
            name if DOCKERS.contains(&name) => Self::Docker(None),
            _ => Self::Cri(format!("unix://{path}")),
        })
    }

    /// The runtime of a machine on which no one has chosen one: Docker where its socket is, else the only one that speaks
    /// CRI. Where there is none it is Docker, of which somebody will say then that it is missing.
    ///
    /// # Errors
    /// [`EndpointError::Ambiguous`]: kubeadm does not choose either.
    pub fn detect(paths: &Paths) -> std::result::Result<Self, EndpointError> {
        let there = |path: &str| paths.on_host(path).exists();
        if there(DOCKER_SOCKET) || environment::docker_host().is_some() {
            return Ok(Self::Docker(None));
        }
        let found: Vec<String> =
            CRI_SOCKETS.iter().filter(|path| there(path)).map(|path| format!("unix://{path}")).collect();
        match found.as_slice() {
            [] => Ok(Self::Docker(None)),
            [one] => Self::parse(one),
            _ => Err(EndpointError::Ambiguous { found }),
        }
    }

    /// The runtime that a configuration names: Docker, unless a socket is another's.
    pub fn of(spec: &ClusterSpec) -> Self {
        match spec.node.cri_socket.as_deref().map(Self::parse) {
            Some(Ok(Self::Docker(None)) | Err(_)) | None => Self::Docker(spec.kubeboot.docker_host.clone()),
            Some(Ok(named)) => named,
        }
    }

    /// The configuration with the runtime of this machine, where it names none.
    ///
    /// # Errors
    /// [`EndpointError::Ambiguous`].
    pub fn choose(spec: ClusterSpec, paths: &Paths) -> std::result::Result<ClusterSpec, EndpointError> {
        if spec.node.cri_socket.is_none()
            && spec.kubeboot.docker_host.is_none()
            && let Self::Cri(socket) = Self::detect(paths)?
        {
            return Ok(spec.with(Overrides { cri_socket: Some(Some(socket)), ..Overrides::default() }));
        }
        Ok(spec)
    }

    /// The runtime at a recorded address.
    pub fn at(address: Option<&str>) -> Self {
        match address.and_then(|address| address.strip_prefix(CRI_PREFIX)) {
            Some(socket) => Self::Cri(socket.to_owned()),
            None => Self::Docker(address.map(str::to_owned)),
        }
    }

    /// The address as it is recorded.
    pub fn address(&self) -> Option<String> {
        match self {
            Self::Docker(address) => address.clone(),
            Self::Cri(socket) => Some(format!("{CRI_PREFIX}{socket}")),
        }
    }

    /// Docker's address as its own programs take it; None for other runtimes.
    pub fn docker_host(&self) -> Option<String> {
        match self {
            Self::Docker(address) => Some(address.clone().unwrap_or_else(|| format!("unix://{DOCKER_SOCKET}"))),
            Self::Cri(_) => None,
        }
    }

    /// A client, connected at its first call.
    ///
    /// # Errors
    /// The address cannot be one.
    pub fn connect(&self) -> Result<Arc<dyn ContainerRuntime>> {
        Ok(match self {
            Self::Docker(address) => Arc::new(Docker::connect(address.as_deref())?),
            Self::Cri(socket) => Arc::new(Cri::new(socket)?),
        })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Docker(None) => f.write_str("Docker"),
            Self::Docker(Some(address)) => write!(f, "Docker at {address}"),
            Self::Cri(socket) => f.write_str(socket),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_dockers_or_one_that_speaks_cri_and_anything_else_is_an_error() {
        let docker = Endpoint::Docker(None);
        for (text, expected) in [
            ("unix:///run/containerd/containerd.sock", Endpoint::Cri("unix:///run/containerd/containerd.sock".into())),
            ("/var/run/crio/crio.sock", Endpoint::Cri("unix:///var/run/crio/crio.sock".into())),
            ("unix:///var/run/cri-dockerd.sock", docker.clone()),
            ("/var/run/dockershim.sock", docker),
            ("/run/docker.sock", Endpoint::Docker(Some("unix:///run/docker.sock".into()))),
        ] {
            assert_eq!(Endpoint::parse(text).unwrap(), expected);
            assert_eq!(Endpoint::at(expected.address().as_deref()), expected);
        }
        for text in ["", "run/c.sock", "tcp://127.0.0.1:1", "unix://", "unix:///", "unix://run/c.sock", "npipe:////x"] {
            assert!(matches!(Endpoint::parse(text), Err(EndpointError::NoSocket { .. })), "{text}");
        }
    }

    #[test]
    fn docker_comes_first_then_the_only_one_and_two_are_one_too_many() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        let make = |path: &str| {
            crate::host::fs::make_dirs(paths.on_host(path).parent().unwrap(), 0o755).unwrap();
            crate::host::fs::write_file(&paths.on_host(path), b"", 0o600).unwrap();
        };
        assert_eq!(Endpoint::detect(&paths), Ok(Endpoint::Docker(None)));
        make(CRI_SOCKETS[1]);
        let crio = Endpoint::Cri("unix:///var/run/crio/crio.sock".into());
        // What runs this may have set DOCKER_HOST.
        if environment::docker_host().is_none() {
            assert_eq!(Endpoint::detect(&paths), Ok(crio));
            make(CRI_SOCKETS[0]);
            let error = Endpoint::detect(&paths).unwrap_err().to_string();
            assert!(
                error.contains("containerd.sock, unix:///var/run/crio") && error.contains("--cri-socket"),
                "{error}"
            );
        }
        make(DOCKER_SOCKET);
        assert_eq!(Endpoint::detect(&paths), Ok(Endpoint::Docker(None)));
    }
}
