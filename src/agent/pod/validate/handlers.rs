//! Probes, hooks and restart rules of containers.

use k8s_openapi::api::core::v1::{Container, ExecAction, HTTPGetAction, LifecycleHandler, Probe, TCPSocketAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::names::{is_header_name, is_port_name};
use super::{Problems, filled};

/// Rules of a container.
const MAX_RULES: usize = 20;
/// Exit codes of a rule.
const MAX_CODES: usize = 255;

/// `restartPolicy` and `restartPolicyRules`.
pub(super) fn restarts(field: &str, container: &Container, is_init: bool, problems: &mut Problems) {
    let policy = container.restart_policy.as_deref();
    problems.one_of(&format!("{field}.restartPolicy"), policy, &["Always", "OnFailure", "Never"]);
    let Some(rules) = container.restart_policy_rules.as_ref().filter(|rules| !rules.is_empty()) else { return };
    let field = format!("{field}.restartPolicyRules");
    problems.refuse(policy.is_none(), &field, "needs a restartPolicy of the container");
    let sidecar = is_init && policy == Some("Always");
    problems.refuse(sidecar, &field, "a sidecar is always restarted: it may not have rules");
    problems.refuse(rules.len() > MAX_RULES, &field, "may have 20 entries at most");
    for (index, rule) in rules.iter().enumerate() {
        let field = format!("{field}[{index}]");
        problems.one_of(&format!("{field}.action"), Some(&rule.action), &["Restart", "RestartAllContainers"]);
        let Some(codes) = &rule.exit_codes else {
            problems.add(&format!("{field}.exitCodes"), "is required");
            continue;
        };
        problems.one_of(&format!("{field}.exitCodes.operator"), Some(&codes.operator), &["In", "NotIn"]);
        let known = codes.values.iter().flatten().all(|code| (0..=255).contains(code));
        problems.refuse(!known, &format!("{field}.exitCodes.values"), "must be 0 to 255");
        let count = codes.values.iter().flatten().count();
        problems.refuse(
            !(1..=MAX_CODES).contains(&count),
            &format!("{field}.exitCodes.values"),
            "must be 1 to 255 codes",
        );
    }
}

/// The three probes.
pub(super) fn probes(field: &str, container: &Container, is_init: bool, problems: &mut Problems) {
    let sidecar = container.restart_policy.as_deref() == Some("Always");
    for (name, found, once) in [
        ("livenessProbe", &container.liveness_probe, true),
        ("readinessProbe", &container.readiness_probe, false),
        ("startupProbe", &container.startup_probe, true),
    ] {
        let Some(found) = found else { continue };
        let field = format!("{field}.{name}");
        problems.refuse(is_init && !sidecar, &field, "an init container may not have probes");
        problems.refuse(once && found.success_threshold.unwrap_or(1) != 1, &field, "successThreshold must be 1");
        let grace = found.termination_grace_period_seconds;
        problems.refuse(!once && grace.is_some(), &field, "terminationGracePeriodSeconds is for liveness and startup");
        problems.refuse(
            once && grace.is_some_and(|s| s < 1),
            &field,
            "terminationGracePeriodSeconds must be 1 or more",
        );
        probe(&field, found, problems);
    }
}

fn probe(field: &str, probe: &Probe, problems: &mut Problems) {
    for (name, value) in [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ] {
        problems.refuse(value.is_some_and(|value| value < 0), &format!("{field}.{name}"), "must not be negative");
    }
    let present = [probe.http_get.is_some(), probe.tcp_socket.is_some(), probe.exec.is_some(), probe.grpc.is_some()];
    let one = present.into_iter().filter(|present| *present).count() == 1;
    problems.refuse(!one, field, "must have exactly one of httpGet, tcpSocket, exec, grpc");
    exec(field, probe.exec.as_ref(), problems);
    http(field, probe.http_get.as_ref(), problems);
    tcp(field, probe.tcp_socket.as_ref(), problems);
    let wrong = probe.grpc.as_ref().is_some_and(|grpc| !(1..=65535).contains(&grpc.port));
    problems.refuse(wrong, field, "grpc.port must be 1 to 65535");
}

/// `lifecycle`.
pub(super) fn hooks(field: &str, container: &Container, is_init: bool, grace: i64, problems: &mut Problems) {
    let Some(lifecycle) = &container.lifecycle else { return };
    let field = format!("{field}.lifecycle");
    let unnamed = lifecycle.stop_signal.as_deref() == Some("");
    problems.refuse(unnamed, &format!("{field}.stopSignal"), "must name a signal");
    let hooked = lifecycle.post_start.is_some() || lifecycle.pre_stop.is_some();
    let sidecar = container.restart_policy.as_deref() == Some("Always");
    problems.refuse(hooked && is_init && !sidecar, &field, "an init container may not have hooks");
    for (name, handler) in [("postStart", &lifecycle.post_start), ("preStop", &lifecycle.pre_stop)] {
        if let Some(handler) = handler {
            hook(&format!("{field}.{name}"), handler, grace, problems);
        }
    }
}

fn hook(field: &str, handler: &LifecycleHandler, grace: i64, problems: &mut Problems) {
    let nothing = "tcpSocket does nothing in a hook; use exec, httpGet or sleep";
    problems.refuse(handler.tcp_socket.is_some(), field, nothing);
    let present = [handler.exec.is_some(), handler.http_get.is_some(), handler.sleep.is_some()];
    let count = present
        .into_iter()
        .filter(|present| *present)
        .count()
        .saturating_add(usize::from(handler.tcp_socket.is_some()));
    problems.refuse(count != 1, field, "must have exactly one of exec, httpGet, sleep");
    exec(field, handler.exec.as_ref(), problems);
    http(field, handler.http_get.as_ref(), problems);
    let seconds = handler.sleep.as_ref().map_or(0, |sleep| sleep.seconds);
    let problem = format!("sleep.seconds must be 0 to the pod's grace period ({grace})");
    problems.refuse(!(0..=grace.max(0)).contains(&seconds), field, &problem);
}

fn exec(field: &str, exec: Option<&ExecAction>, problems: &mut Problems) {
    problems.refuse(exec.is_some_and(|exec| !filled(&exec.command)), &format!("{field}.exec.command"), "is required");
}

fn http(field: &str, get: Option<&HTTPGetAction>, problems: &mut Problems) {
    let Some(get) = get else { return };
    let field = format!("{field}.httpGet");
    port(&field, &get.port, problems);
    problems.one_of(&format!("{field}.scheme"), get.scheme.as_deref(), &["HTTP", "HTTPS"]);
    for header in get.http_headers.iter().flatten().filter(|header| !is_header_name(&header.name)) {
        problems.add(&format!("{field}.httpHeaders"), format!("{:?} is no name of a header", header.name));
    }
}

fn tcp(field: &str, socket: Option<&TCPSocketAction>, problems: &mut Problems) {
    if let Some(socket) = socket {
        port(&format!("{field}.tcpSocket"), &socket.port, problems);
    }
}

fn port(field: &str, port: &IntOrString, problems: &mut Problems) {
    let good = match port {
        IntOrString::Int(number) => (1..=65535).contains(number),
        IntOrString::String(name) => is_port_name(name),
    };
    problems.refuse(!good, &format!("{field}.port"), "must be 1 to 65535 or the name of a port");
}
