//! This node: its registration, its tokens, its patience.

use std::time::Duration;

use k8s_openapi::api::core::v1 as core;

use super::bootstrap_token::{Token, USAGES, is_group};
use super::components::args;
use super::durations::GoDuration;
use super::load::Input;
use super::names;
use super::network::or;
use super::report::{Part, Report};
use super::spec::{NodeSpec, Timeouts};
use super::wire::{BootstrapToken, InitConfiguration, NodeRegistration};

/// `nodeRegistration` and `localAPIEndpoint`, with the flags that may go beside a file.
pub(super) fn node(init: &InitConfiguration, input: &Input, report: &mut Report) -> NodeSpec {
    let wire = &init.node_registration;
    let (advertise_address, bind_port) =
        super::network::local_endpoint(&init.local_api_endpoint, input.host.address, report);
    args(Part::Init, "nodeRegistration.kubeletExtraArgs", &wire.kubelet_extra_args, report);
    NodeSpec {
        name: name(wire, input, report),
        hostname: input.host.hostname.clone(),
        advertise_address,
        bind_port,
        cri_socket: cri_socket(&wire.cri_socket, report),
        taints: taints(wire, report),
        kubelet_extra_args: wire.kubelet_extra_args.clone(),
        ignore_preflight_errors: ignored(wire, input, report),
        image_pull_policy: wire.image_pull_policy,
    }
}

/// The flag, else the file, else the host name; trimmed and in lower case, as kubeadm does.
fn name(wire: &NodeRegistration, input: &Input, report: &mut Report) -> String {
    const FIELD: &str = "nodeRegistration.name";
    let flag = input.flags.node_name.as_deref().map(str::trim).filter(|name| !name.is_empty());
    let given = flag.unwrap_or(or(&wire.name, &input.host.hostname)).trim();
    let name = given.to_lowercase();
    // The complaint quotes what was written.
    let message = match names::dns_subdomain(&name) {
        Ok(()) => return name,
        Err(message) => names::dns_subdomain(given).err().unwrap_or(message),
    };
    if flag.is_some() {
        report.problem_at(None, "--node-name", message);
    } else if or(&wire.name, "").is_empty() {
        let message =
            format!("the host name cannot be the node's: {message}, with --node-name or nodeRegistration.name");
        report.problem_at(None, FIELD, message);
    } else {
        report.problem(Part::Init, FIELD, message);
    }
    name
}

fn cri_socket(text: &str, report: &mut Report) -> Option<String> {
    const FIELD: &str = "nodeRegistration.criSocket";
    let text = Some(text.trim()).filter(|text| !text.is_empty())?;
    let (socket, completed) = report.check(Part::Init, FIELD, names::socket(text))?;
    if completed {
        report.warn(Part::Init, FIELD, format!("taken as {socket}; write it with its scheme"));
    }
    Some(socket)
}

const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

fn taints(wire: &NodeRegistration, report: &mut Report) -> Option<Vec<core::Taint>> {
    let taints = wire.taints.as_ref()?;
    for (index, taint) in taints.iter().enumerate() {
        let field = |name: &str| format!("nodeRegistration.taints[{index}].{name}");
        if taint.key.is_empty() {
            report.problem(Part::Init, &field("key"), "the key of the taint is empty");
        }
        if !EFFECTS.contains(&taint.effect.as_str()) {
            let message = format!("{:?} is none of {}", taint.effect, EFFECTS.join(", "));
            report.problem(Part::Init, &field("effect"), message);
        }
    }
    let convert = |taint: &super::wire::Taint| core::Taint {
        key: taint.key.clone(),
        value: taint.value.clone(),
        effect: taint.effect.clone(),
        time_added: None,
    };
    Some(taints.iter().map(convert).collect())
}

/// The file's names and the flag's, in lower case, each once.
fn ignored(wire: &NodeRegistration, input: &Input, report: &mut Report) -> Vec<String> {
    let flag = input.flags.ignore_preflight_errors.iter();
    let mut names = Vec::new();
    for name in flag.chain(&wire.ignore_preflight_errors).flat_map(|names| names.split(',')) {
        let name = name.trim().to_lowercase();
        if !name.is_empty() && !names.contains(&name) {
            names.push(name);
        }
    }
    if names.len() > 1 && names.iter().any(|name| name == "all") {
        let message = "all takes in every check, so no other may be named beside it; leave the others out";
        match wire.ignore_preflight_errors.is_empty() {
            true => report.problem_at(None, "--ignore-preflight-errors", message),
            false => report.problem(Part::Init, "nodeRegistration.ignorePreflightErrors", message),
        }
    }
    names
}

/// `timeouts`, with kubeadm's where there is none.
pub(super) fn timeouts(init: &InitConfiguration, report: &mut Report) -> Timeouts {
    let wire = &init.timeouts;
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
        if let Some(duration) = report.check(Part::Init, &format!("timeouts.{name}"), positive(given)) {
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
        if !token.token.0.is_empty() && token.token.0.parse::<Token>().is_err() {
            let message = "not a token; write 6 characters, a dot and 16 characters of a-z and 0-9";
            report.problem(Part::Init, &field("token"), message);
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
