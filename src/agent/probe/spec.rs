//! Probes as a manifest has them, read once and with the kubelet's defaults, and where each of them is to ask.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, ContainerPort, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{LOOPBACK, ProbeKind};
use crate::agent::container::env::{Known, expand_each};
use crate::host::clock;

/// The probes of one container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Probes {
    /// `startupProbe`.
    pub startup: Option<ProbeSpec>,
    /// `livenessProbe`.
    pub liveness: Option<ProbeSpec>,
    /// `readinessProbe`.
    pub readiness: Option<ProbeSpec>,
}

/// One probe, defaults applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeSpec {
    /// What to do.
    pub action: Action,
    /// Counted from the container's start.
    pub initial_delay: Duration,
    /// From one check to the next.
    pub period: Duration,
    /// How long one check may take.
    pub timeout: Duration,
    /// Successes in a row that make a success.
    pub success_threshold: u32,
    /// Failures in a row that make a failure.
    pub failure_threshold: u32,
    /// Grace for stopping the container this probe failed; None takes the pod's. Never set on a readiness probe.
    pub grace: Option<Duration>,
}

/// How a probe asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// `httpGet`.
    Http(HttpGet),
    /// `tcpSocket`: connecting is enough.
    Tcp {
        /// None is the pod's address.
        host: Option<String>,
        /// Where.
        port: Port,
    },
    /// `grpc`: the health service's `Check`, in plain text, at the pod's address.
    Grpc {
        /// Where.
        port: Port,
        /// `service` of the question; empty asks for the server as a whole.
        service: String,
    },
    /// `exec`: exit code 0 is a success.
    Exec {
        /// The command, not run in a shell; references to variables are expanded.
        command: Vec<String>,
    },
}

/// `httpGet`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpGet {
    /// HTTPS instead of HTTP; certificates are not verified.
    pub tls: bool,
    /// None is the pod's address.
    pub host: Option<String>,
    /// Where.
    pub port: Port,
    /// Path and query.
    pub path: String,
    /// `httpHeaders`, in order.
    pub headers: Vec<(String, String)>,
}

/// A port, looked up among the container's own if it was given by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Port {
    /// A number.
    Number(u16),
    /// A name that no port of the container has, or a number that is none. Asking it is an error each time.
    Unknown(String),
}

/// Where one check goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// GET this.
    Http {
        /// HTTPS.
        tls: bool,
        /// Name or address, an IPv6 one without brackets.
        host: String,
        /// Port.
        port: u16,
        /// Path and query.
        path: String,
        /// Headers, in order.
        headers: Vec<(String, String)>,
    },
    /// Connect to this.
    Tcp {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
    },
    /// Ask the health service here.
    Grpc {
        /// Address, an IPv6 one without brackets.
        host: String,
        /// Port.
        port: u16,
        /// Which service's health; empty for the server's as a whole.
        service: String,
    },
    /// Run this.
    Exec {
        /// The runtime's id of the container.
        container: String,
        /// Command and arguments.
        command: Vec<String>,
    },
    /// Cannot be asked, and why.
    Unresolvable(String),
}

impl Probes {
    /// Reads the probes of a container. What cannot be done is left out and said in the second value, one line a
    /// probe, for the pod's message: `livenessProbe of container web: exec has no command`.
    pub fn of(container: &Container) -> (Self, Vec<String>) {
        let facts = Facts { ports: named_ports(container), env: literal_env(container) };
        let mut problems = Vec::new();
        let mut read = |field: &str, kind, probe: &Option<Probe>| {
            let spec = ProbeSpec::parse(kind, probe.as_ref()?, &facts);
            spec.map_err(|why| problems.push(format!("{field} of container {}: {why}", container.name))).ok()
        };
        let probes = Self {
            startup: read("startupProbe", ProbeKind::Startup, &container.startup_probe),
            liveness: read("livenessProbe", ProbeKind::Liveness, &container.liveness_probe),
            readiness: read("readinessProbe", ProbeKind::Readiness, &container.readiness_probe),
        };
        (probes, problems)
    }

    /// The probe of one kind.
    pub fn get(&self, kind: ProbeKind) -> Option<&ProbeSpec> {
        match kind {
            ProbeKind::Startup => self.startup.as_ref(),
            ProbeKind::Liveness => self.liveness.as_ref(),
            ProbeKind::Readiness => self.readiness.as_ref(),
        }
    }

    /// Which probe's check the eager checker asks: the readiness probe's, else the startup, else the liveness probe's.
    pub fn eager_kind(&self) -> Option<ProbeKind> {
        [ProbeKind::Readiness, ProbeKind::Startup, ProbeKind::Liveness]
            .into_iter()
            .find(|kind| self.get(*kind).is_some())
    }
}

impl HttpGet {
    /// Reads an action; a port name is looked up among `ports`.
    ///
    /// # Errors
    /// What of it cannot be done, in words.
    pub fn of(get: &HTTPGetAction, ports: &[ContainerPort]) -> Result<Self, String> {
        http_get(get, &names_of(ports.iter()))
    }
}

impl ProbeSpec {
    fn parse(kind: ProbeKind, probe: &Probe, facts: &Facts<'_>) -> Result<Self, String> {
        let seconds = |value: Option<i32>, default: u64| {
            Duration::from_secs(value.and_then(|v| u64::try_from(v).ok()).filter(|v| *v > 0).unwrap_or(default))
        };
        let count = |value: Option<i32>, default: u32| {
            value.and_then(|v| u32::try_from(v).ok()).filter(|v| *v > 0).unwrap_or(default)
        };
        let grace = probe.termination_grace_period_seconds.filter(|v| *v > 0);
        Ok(Self {
            action: Action::parse(probe, facts)?,
            initial_delay: seconds(probe.initial_delay_seconds, 0),
            period: seconds(probe.period_seconds, 10),
            timeout: seconds(probe.timeout_seconds, 1),
            success_threshold: count(probe.success_threshold, 1),
            failure_threshold: count(probe.failure_threshold, 3),
            grace: grace.filter(|_| kind != ProbeKind::Readiness).map(clock::seconds),
        })
    }

    /// Where to ask: the probe's host, else the pod's address `ip`, else (the host's network, and no cluster) this machine.
    /// `container` is the runtime's id for exec.
    pub fn target(&self, container: &str, ip: Option<&str>) -> Target {
        let host = |host: &Option<String>| {
            let host = host.as_deref().or(ip).unwrap_or(LOOPBACK);
            host.trim_start_matches('[').trim_end_matches(']').to_owned()
        };
        match &self.action {
            Action::Exec { command } => Target::Exec { container: container.to_owned(), command: command.clone() },
            Action::Tcp { host: name, port: Port::Number(port) } => Target::Tcp { host: host(name), port: *port },
            Action::Http(HttpGet { tls, host: name, port: Port::Number(port), path, headers }) => {
                Target::Http { tls: *tls, host: host(name), port: *port, path: path.clone(), headers: headers.clone() }
            }
            Action::Grpc { port: Port::Number(port), service } => {
                Target::Grpc { host: host(&None), port: *port, service: service.clone() }
            }
            Action::Tcp { port: Port::Unknown(name), .. }
            | Action::Grpc { port: Port::Unknown(name), .. }
            | Action::Http(HttpGet { port: Port::Unknown(name), .. }) => {
                Target::Unresolvable(format!("no port of the container is called {name:?}"))
            }
        }
    }
}

impl Action {
    fn parse(probe: &Probe, facts: &Facts<'_>) -> Result<Self, String> {
        let ports = &facts.ports;
        let set = [probe.exec.is_some(), probe.http_get.is_some(), probe.tcp_socket.is_some(), probe.grpc.is_some()];
        match set.into_iter().filter(|is_set| *is_set).count() {
            0 => return Err("has no exec, httpGet, tcpSocket or grpc".to_owned()),
            1 => {}
            _ => return Err("has more than one of exec, httpGet, tcpSocket and grpc".to_owned()),
        }
        if let Some(exec) = &probe.exec {
            let command = expand_each(exec.command.iter().flatten(), &facts.env);
            let command = command.map_err(|why| format!("exec has a command {why}"))?;
            return if command.is_empty() { Err("exec has no command".into()) } else { Ok(Self::Exec { command }) };
        }
        if let Some(get) = &probe.http_get {
            return Ok(Self::Http(http_get(get, ports)?));
        }
        if let Some(grpc) = &probe.grpc {
            let port = port(&IntOrString::Int(grpc.port), ports);
            return Ok(Self::Grpc { port, service: grpc.service.clone().unwrap_or_default() });
        }
        let tcp = probe.tcp_socket.as_ref().ok_or_else(|| "has no tcpSocket".to_owned())?;
        Ok(Self::Tcp { host: not_empty(&tcp.host), port: port(&tcp.port, ports) })
    }
}

fn http_get(get: &HTTPGetAction, ports: &BTreeMap<&str, u16>) -> Result<HttpGet, String> {
    let tls = match get.scheme.as_deref() {
        None | Some("" | "HTTP") => false,
        Some("HTTPS") => true,
        Some(other) => return Err(format!("httpGet has scheme {other:?}, which is neither HTTP nor HTTPS")),
    };
    if let Some(protocol) = get.protocol.as_deref().filter(|p| !p.is_empty() && *p != "HTTP/1.1") {
        return Err(format!("httpGet has protocol {protocol:?}; only HTTP/1.1 is supported yet"));
    }
    let headers = get.http_headers.iter().flatten().map(|h| (h.name.clone(), h.value.clone())).collect();
    let path = not_empty(&get.path).unwrap_or_else(|| "/".to_owned());
    Ok(HttpGet { tls, host: not_empty(&get.host), port: port(&get.port, ports), path, headers })
}

fn not_empty(value: &Option<String>) -> Option<String> {
    value.clone().filter(|v| !v.is_empty())
}

/// What of a container its probes refer to.
struct Facts<'a> {
    ports: BTreeMap<&'a str, u16>,
    env: Known,
}

/// What the kubelet expands in a probe's command: values as they are written, and those from elsewhere as empty.
fn literal_env(container: &Container) -> Known {
    let variables = container.env.iter().flatten();
    variables.map(|variable| (variable.name.clone(), variable.value.clone().unwrap_or_default().into_bytes())).collect()
}

fn named_ports(container: &Container) -> BTreeMap<&str, u16> {
    names_of(container.ports.iter().flatten())
}

fn names_of<'a>(ports: impl Iterator<Item = &'a ContainerPort>) -> BTreeMap<&'a str, u16> {
    ports.filter_map(|p| Some((p.name.as_deref()?, u16::try_from(p.container_port).ok()?))).collect()
}

/// A number, a name of one of the container's ports, or (as the kubelet has it) a number in quotes.
fn port(port: &IntOrString, ports: &BTreeMap<&str, u16>) -> Port {
    let number = |n: u16| if n == 0 { Port::Unknown("0".into()) } else { Port::Number(n) };
    match port {
        IntOrString::Int(n) => u16::try_from(*n).map_or_else(|_| Port::Unknown(n.to_string()), number),
        IntOrString::String(name) => match ports.get(name.as_str()).copied().or_else(|| name.parse().ok()) {
            Some(n) => number(n),
            None => Port::Unknown(name.clone()),
        },
    }
}
