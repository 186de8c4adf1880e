//! Flags over files over defaults, resolved into the agent's options.

mod gates;
mod node;
mod server;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::agent_options::AgentOptions;
use super::config_files::ConfigFile;
use super::error::{OptionsError, checked, not_empty, wrong};
use super::given::Flags;
use super::kubelet_config::{self, KubeletConfiguration};
use super::{table, values};
use crate::runtime::endpoint::Endpoint;

/// What the flags and the file come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The options.
    pub options: AgentOptions,
    /// One line each on what was accepted and means nothing to this agent.
    pub notes: Vec<String>,
    /// One line each on what was asked for and is not done.
    pub warnings: Vec<String>,
}

/// Resolves flags over files over defaults, as the kubelet does. `files` are `--config` and the drop-ins of `--config-dir`,
/// each over those before it; `hostname` is the machine's.
///
/// Without a file the kubelet falls back to older defaults, a read-only port 10255 among them; this agent has the same
/// defaults with and without, and opens no port that was not asked for.
///
/// # Errors
/// Every kind of [`OptionsError`].
pub fn resolve(flags: &Flags, files: &[ConfigFile], hostname: &str) -> Result<Resolved, OptionsError> {
    let kubelet_config::Read { config: file, mut options, written, mut notes, warnings } = kubelet_config::read(files)?;
    if !flags.ignored.is_empty() {
        notes.push(format!("these flags mean nothing to this agent: --{}", flags.ignored.join(", --")));
    }
    (options.node_name, options.written) = (node_name(flags, hostname)?, written);
    let closed = gates::follow(&mut options, flags, &file);
    if !closed.is_empty() {
        notes.push(format!("these feature gates mean nothing to this agent: {}", closed.join(", ")));
    }
    options.given_flags = flags.shown();
    follow_rows(&mut options, flags)?;
    follow_paths(&mut options, flags, &file);
    follow_sources(&mut options, flags, &file)?;
    options.parallel_image_pulls = pulls(flags.serialize_image_pulls.or(file.serialize_image_pulls), &file)?;
    node::follow(&mut options, &flags.node, &file)?;
    follow_runtime(&mut options, flags, &file)?;
    let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let address = checked("--healthz-bind-address", &flags.healthz_bind_address, values::address)?;
    let address = address.or(file.healthz_bind_address).unwrap_or(local);
    options.healthz = listen(address, flags.healthz_port.or(file.healthz_port).unwrap_or(10248));
    let address = checked("--address", &flags.address, values::address)?.or(file.address);
    server::follow(&mut options, &flags.server, address, &file)?;
    options.read_only = listen(address.unwrap_or(local), flags.read_only_port.or(file.read_only_port).unwrap_or(0));
    if options.static_pod_path.is_none() && options.static_pod_url.is_none() {
        return Err(OptionsError::NoSource);
    }
    Ok(Resolved { options, notes, warnings })
}

fn listen(address: IpAddr, port: u16) -> Option<SocketAddr> {
    (port != 0).then(|| SocketAddr::new(address, port))
}

/// The flags that stand for one option alone, over what the file says of it.
fn follow_rows(options: &mut AgentOptions, flags: &Flags) -> Result<(), OptionsError> {
    let given = flags.followed.iter().filter_map(|(name, given)| Some((table::of_flag(name)?, given)));
    for (row, given) in given {
        if let Some(setting) = row.setting() {
            setting.by_flag(options, &row.dashed(), given)?;
        }
    }
    Ok(())
}

fn follow_paths(options: &mut AgentOptions, flags: &Flags, file: &KubeletConfiguration) {
    let flag = flags.pod_manifest_path.clone().filter(|path| !path.as_os_str().is_empty());
    options.static_pod_path = flag.or_else(|| not_empty(&file.static_pod_path).map(PathBuf::from));
    let back_off = file.crash_loop_back_off.as_ref().and_then(|back_off| back_off.max_container_restart_period);
    options.max_restart_backoff = back_off.unwrap_or(options.max_restart_backoff);
    if let Some(directory) = &flags.root_dir {
        options.root_dir.clone_from(directory);
        options.control_socket = AgentOptions::default_control_socket(directory);
    }
    if let Some(socket) = &flags.control_socket {
        options.control_socket.clone_from(socket);
    }
}

/// The URL and its headers. Headers of flags replace those of the file, and add up among themselves.
fn follow_sources(options: &mut AgentOptions, flags: &Flags, file: &KubeletConfiguration) -> Result<(), OptionsError> {
    let hidden = |flag: &str, problem: String| OptionsError::Hidden { setting: flag.to_owned(), problem };
    let url = flags.manifest_url.as_deref().map(values::url).transpose();
    let url = url.map_err(|problem| hidden("--manifest-url", problem))?.flatten();
    options.static_pod_url = url.or_else(|| file.static_pod_url.clone());
    let pairs = |(name, values): (&String, &Vec<String>)| {
        let name = name.clone();
        values.clone().into_iter().map(move |value| (name.clone(), value)).collect::<Vec<_>>()
    };
    options.static_pod_url_headers = file.static_pod_url_header.iter().flatten().flat_map(pairs).collect();
    if !flags.manifest_url_headers.is_empty() {
        let given: Result<Vec<_>, _> =
            flags.manifest_url_headers.iter().map(|text| values::header_pairs(text)).collect();
        let given = given.map_err(|problem| hidden("--manifest-url-header", problem))?;
        options.static_pod_url_headers = given.into_iter().flatten().collect();
    }
    Ok(())
}

/// The runtime: `--docker-host`, else `--container-runtime-endpoint`, else `containerRuntimeEndpoint`.
fn follow_runtime(options: &mut AgentOptions, flags: &Flags, file: &KubeletConfiguration) -> Result<(), OptionsError> {
    let parse = |text: &str| match Endpoint::parse(text) {
        _ if text.is_empty() => Ok(None),
        Ok(endpoint) => Ok(Some(endpoint)),
        Err(_) => Err("no socket: use unix:///run/containerd/containerd.sock or another like it".to_owned()),
    };
    let flag = checked("--container-runtime-endpoint", &flags.container_runtime_endpoint, parse)?;
    let docker = not_empty(&flags.docker_host).map(|host| Endpoint::Docker(Some(host)));
    let named = docker.or(flag);
    let in_file = checked("containerRuntimeEndpoint", &file.container_runtime_endpoint, parse)?;
    options.runtime_from_file = named.is_none() && in_file.is_some();
    options.runtime = named.or(in_file);
    Ok(())
}

/// Pulls at a time. That several are allowed says by itself that they are not serialised.
fn pulls(serialize: Option<bool>, file: &KubeletConfiguration) -> Result<Option<usize>, OptionsError> {
    match (serialize, file.max_parallel_image_pulls) {
        (Some(true), Some(many @ 2..)) => {
            let problem = "more than one pull at a time needs serializeImagePulls: false".to_owned();
            Err(wrong("maxParallelImagePulls", &many.to_string(), problem))
        }
        (Some(true), _) | (None, None) => Ok(Some(1)),
        (_, many) => Ok(many),
    }
}

/// The node's name as kubelet and kubeadm make it: the host's, unless overridden, trimmed and in lower case.
fn node_name(flags: &Flags, hostname: &str) -> Result<String, OptionsError> {
    let overridden = not_empty(&flags.hostname_override);
    let setting = if overridden.is_some() { "--hostname-override" } else { "the machine's host name" };
    let given = overridden.unwrap_or_else(|| hostname.to_owned());
    let name = given.trim().to_lowercase();
    let word = |label: &str| {
        let inner = label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        !label.is_empty() && inner && !label.starts_with('-') && !label.ends_with('-')
    };
    if name.len() <= 253 && name.split('.').all(word) {
        return Ok(name);
    }
    let problem = "a node name has letters, digits, '-' and '.', and begins and ends with a letter or digit; \
                   choose one with --hostname-override";
    Err(wrong(setting, &given, problem.to_owned()))
}
