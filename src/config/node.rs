//! This node: its registration, its tokens, its patience.

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1 as core;

use super::bootstrap_token::{Token, USAGES, is_group};
use super::components::args;
use super::durations::GoDuration;
use super::load::HostDefaults;
use super::names;
use super::network::{local_endpoint, or};
use super::report::{Part, Report};
use super::spec::{NodeSpec, Timeouts};
use super::wire::{self, BootstrapToken, LocalApiEndpoint, NodeRegistration, Secret};

/// What a node is made of.
pub(super) struct NodeInputs<'a> {
    /// The document whose `nodeRegistration` it is.
    pub part: Part,
    pub registration: &'a NodeRegistration,
    /// `localAPIEndpoint` and the field it is in; None for a worker.
    pub endpoint: Option<(&'a LocalApiEndpoint, &'static str)>,
    pub host: &'a HostDefaults,
    /// `--node-name`.
    pub name: Option<&'a str>,
    /// `--ignore-preflight-errors`.
    pub ignore: &'a [String],
}

/// `nodeRegistration` and `localAPIEndpoint`, with the flags that may go beside a file.
pub(super) fn node(given: &NodeInputs<'_>, report: &mut Report) -> NodeSpec {
    let (wire, part) = (given.registration, given.part);
    let (advertise_address, bind_port) = match given.endpoint {
        Some((endpoint, field)) => local_endpoint((part, field), endpoint, given.host.address, report),
        None => (given.host.address.unwrap_or(IpAddr::from([0, 0, 0, 0])), 6443),
    };
    args(part, "nodeRegistration.kubeletExtraArgs", &wire.kubelet_extra_args, report);
    let ignored = (part, "nodeRegistration.ignorePreflightErrors");
    NodeSpec {
        name: name(given, report),
        hostname: given.host.hostname.clone(),
        advertise_address,
        bind_port,
        cri_socket: cri_socket((part, "nodeRegistration.criSocket"), &wire.cri_socket, report),
        taints: taints(given, report),
        kubelet_extra_args: wire.kubelet_extra_args.clone(),
        ignore_preflight_errors: ignore_list(ignored, &wire.ignore_preflight_errors, given.ignore, report),
        image_pull_policy: wire.image_pull_policy,
    }
}

/// The flag, else the file, else the host name; trimmed and in lower case, as kubeadm does.
fn name(given: &NodeInputs<'_>, report: &mut Report) -> String {
    const FIELD: &str = "nodeRegistration.name";
    let wire = given.registration;
    let flag = given.name.map(str::trim).filter(|name| !name.is_empty());
    let written = flag.unwrap_or(or(&wire.name, &given.host.hostname)).trim();
    let name = written.to_lowercase();
    // The complaint quotes what was written.
    let message = match names::dns_subdomain(&name) {
        Ok(()) => return name,
        Err(message) => names::dns_subdomain(written).err().unwrap_or(message),
    };
    if flag.is_some() {
        report.problem_at(None, "--node-name", message);
    } else if or(&wire.name, "").is_empty() {
        let message =
            format!("the host name cannot be the node's: {message}, with --node-name or nodeRegistration.name");
        report.problem_at(None, FIELD, message);
    } else {
        report.problem(given.part, FIELD, message);
    }
    name
}

/// A socket of a container runtime; None where there is none.
pub(super) fn cri_socket((part, field): (Part, &str), text: &str, report: &mut Report) -> Option<String> {
    let text = Some(text.trim()).filter(|text| !text.is_empty())?;
    let (socket, completed) = report.check(part, field, names::socket(text))?;
    if completed {
        report.warn(part, field, format!("taken as {socket}; write it with its scheme"));
    }
    Some(socket)
}

const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

fn taints(given: &NodeInputs<'_>, report: &mut Report) -> Option<Vec<core::Taint>> {
    let (taints, part) = (given.registration.taints.as_ref()?, given.part);
    for (index, taint) in taints.iter().enumerate() {
        let field = |name: &str| format!("nodeRegistration.taints[{index}].{name}");
        if taint.key.is_empty() {
            report.problem(part, &field("key"), "the key of the taint is empty");
        }
        if !EFFECTS.contains(&taint.effect.as_str()) {
            let message = format!("{:?} is none of {}", taint.effect, EFFECTS.join(", "));
            report.problem(part, &field("effect"), message);
        }
    }
    let convert = |taint: &wire::Taint| core::Taint {
        key: taint.key.clone(),
        value: taint.value.clone(),
        effect: taint.effect.clone(),
        time_added: None,
    };
    Some(taints.iter().map(convert).collect())
}

/// The file's names and the flag's, in lower case, each once.
pub(super) fn ignore_list(
    (part, field): (Part, &str),
    written: &[String],
    flag: &[String],
    report: &mut Report,
) -> Vec<String> {
    let mut names = Vec::new();
    for name in flag.iter().chain(written).flat_map(|names| names.split(',')) {
        let name = name.trim().to_lowercase();
        if !name.is_empty() && !names.contains(&name) {
            names.push(name);
        }
    }
    if names.len() > 1 && names.iter().any(|name| name == "all") {
        let message = "all takes in every check, so no other may be named beside it; leave the others out";
        match written.is_empty() {
            true => report.problem_at(None, "--ignore-preflight-errors", message),
            false => report.problem(part, field, message),
        }
    }
    names
}

/// `timeouts`, with kubeadm's where there is none.
pub(super) fn timeouts(part: Part, wire: &wire::Timeouts, report: &mut Report) -> Timeouts {
    let mut found = Timeouts::default();
    let rows: [(&str, Option<GoDuration>, &mut Duration); 7] = [
        (
            "controlPlaneComponentHealthCheck",
            wire.control_plane_component_health_check,
            &mut found.control_plane_component_health_check,
        ),
        ("kubeletHealthCheck", wire.kubelet_health_check, &mut found.kubelet_health_check),
        ("kubernetesAPICall", wire.kubernetes_api_call, &mut found.kubernetes_api_call),
        ("etcdAPICall", wire.etcd_api_call, &mut found.etcd_api_call),
        ("tlsBootstrap", wire.tls_bootstrap, &mut found.tls_bootstrap),
        ("discovery", wire.discovery, &mut found.discovery),
        ("upgradeManifests", wire.upgrade_manifests, &mut found.upgrade_manifests),
    ];
    for (name, given, target) in rows {
        let Some(given) = given else { continue };
        if let Some(duration) = report.check(part, &format!("timeouts.{name}"), positive(given)) {
            *target = duration;
        }
    }
    found
}

/// A duration that is longer than nothing.
pub(super) fn positive(duration: GoDuration) -> Result<Duration, String> {
    let std = duration.to_std().filter(|duration| !duration.is_zero());
    std.ok_or_else(|| format!("{duration} is too short; write a duration such as 5m or 24h"))
}

/// Checks `bootstrapTokens`. No message shows a token.
pub(super) fn check_tokens(tokens: &[BootstrapToken], report: &mut Report) {
    for (index, token) in tokens.iter().enumerate() {
        let field = |name: &str| format!("bootstrapTokens[{index}].{name}");
        if !token.token.0.is_empty() {
            self::token((Part::Init, &field("token")), &token.token, report);
        }
        if token.ttl.is_some_and(GoDuration::is_negative) {
            report.problem(Part::Init, &field("ttl"), "a token cannot live shorter than 0s; 0s lets it live for ever");
        }
        if let Some(expires) = &token.expires {
            if token.ttl.is_some() {
                report.problem(Part::Init, &field("expires"), "ttl and expires exclude each other; leave one out");
            }
            if expires.parse::<jiff::Timestamp>().is_err() {
                let message = format!("{expires:?} is not a time; write it as 2030-01-02T15:04:05Z");
                report.problem(Part::Init, &field("expires"), message);
            }
        }
        for (at, usage) in token.usages.iter().enumerate().filter(|(_, usage)| !USAGES.contains(&usage.as_str())) {
            let message = format!("{usage:?} is none of {}", USAGES.join(", "));
            report.problem(Part::Init, &field(&format!("usages[{at}]")), message);
        }
        for (at, group) in token.groups.iter().enumerate().filter(|(_, group)| !is_group(group)) {
            let message = format!("{group:?} is not a group of bootstrap tokens; it begins with system:bootstrappers:");
            report.problem(Part::Init, &field(&format!("groups[{at}]")), message);
        }
        let authenticates = token.usages.is_empty() || token.usages.iter().any(|usage| usage == "authentication");
        if !token.groups.is_empty() && !authenticates {
            report.problem(
                Part::Init,
                &field("groups"),
                "groups need the usage authentication; add it or leave them out",
            );
        }
    }
}

/// A token, or None after complaining without showing it.
pub(super) fn token((part, field): (Part, &str), text: &Secret, report: &mut Report) -> Option<Token> {
    const MESSAGE: &str = "not a token; write 6 characters, a dot and 16 characters of a-z and 0-9";
    report.check(part, field, text.0.trim().parse::<Token>().map_err(|_| MESSAGE.to_owned()))
}
