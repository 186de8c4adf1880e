//! The askama templates of the static pods and what fills them in. Everything here is data: which flag or volume a
//! component gets is decided by the modules beside this one.

use askama::Template;
use k8s_openapi::api::core::v1::EnvVar;

use crate::config::spec::HostPathMount;

/// What all four templates take.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PodSettings {
    /// The component: name of the pod, of its container and of its binary.
    pub name: &'static str,
    /// Image reference.
    pub image: String,
    /// `--name=value`, in the order of the command line.
    pub args: Vec<String>,
    /// Environment, sorted by name.
    pub env: Vec<EnvVar>,
    /// Where probes go; None leaves the host to the agent.
    pub probe_host: Option<String>,
    /// Port of all probes.
    pub probe_port: u16,
    /// `HTTP` or `HTTPS`.
    pub probe_scheme: &'static str,
    /// The probes it has.
    pub probes: Vec<Probe>,
    /// hostPath volumes, sorted by name.
    pub volumes: Vec<HostPathMount>,
    /// The same, in the order in which they are mounted.
    pub mounts: Vec<HostPathMount>,
}

/// One probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Probe {
    /// `livenessProbe`, `readinessProbe` or `startupProbe`.
    pub kind: &'static str,
    /// HTTP path.
    pub path: &'static str,
    /// Seconds before the first one.
    pub initial_delay: u32,
    /// Seconds between two.
    pub period: u32,
    /// How many may fail.
    pub failure_threshold: u64,
}

/// `templates/etcd.yml`.
#[derive(Template)]
#[template(path = "etcd.yml")]
pub(super) struct EtcdTemplate<'a> {
    pub pod: &'a PodSettings,
    pub advertise_client_urls: &'a str,
}

/// `templates/kube-apiserver.yml`.
#[derive(Template)]
#[template(path = "kube-apiserver.yml")]
pub(super) struct ApiServerTemplate<'a> {
    pub pod: &'a PodSettings,
    pub endpoint: &'a str,
    pub surges: bool,
}

/// `templates/kube-controller-manager.yml`.
#[derive(Template)]
#[template(path = "kube-controller-manager.yml")]
pub(super) struct ControllerManagerTemplate<'a> {
    pub pod: &'a PodSettings,
}

/// `templates/kube-scheduler.yml`.
#[derive(Template)]
#[template(path = "kube-scheduler.yml")]
pub(super) struct SchedulerTemplate<'a> {
    pub pod: &'a PodSettings,
}

/// Filters of the templates.
pub(crate) mod filters {
    use std::fmt::Write as _;

    use serde::Serialize;

    /// The value as JSON in ASCII, which is YAML that no reader takes for anything else: `on`, `a: b` and `0644` stay
    /// the strings they are.
    #[askama::filter_fn]
    pub fn yaml(value: impl Serialize, _: &dyn askama::Values) -> askama::Result<String> {
        let json = serde_json::to_string(&value).map_err(|e| askama::Error::Custom(Box::new(e)))?;
        let mut ascii = String::with_capacity(json.len());
        for c in json.chars() {
            // Outside ASCII there are only strings, and inside them YAML knows both escapes.
            let written = match c {
                ' '..='~' => write!(ascii, "{c}"),
                '\u{10000}'.. => write!(ascii, "\\U{:08x}", u32::from(c)),
                _ => write!(ascii, "\\u{:04x}", u32::from(c)),
            };
            written?;
        }
        Ok(ascii)
    }
}
