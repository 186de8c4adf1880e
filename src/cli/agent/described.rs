//! A pod in words, laid out as `kubectl describe pod` lays it out.

use std::collections::BTreeMap;
use std::fmt::Write;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateTerminated, ContainerStatus, PodSpec, PodStatus, Probe, Volume,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use super::ask::clean;
use crate::agent::control::PodView;
use crate::agent::events::Event;
use crate::agent::pod::ephemeral;
use crate::cli::status::age;

/// How wide the names of fields are, by how far they are indented.
const WIDTH: usize = 20;

/// Lines of `name: value` below each other.
#[derive(Default)]
struct Page(String);

impl Page {
    fn line(&mut self, indent: usize, name: &str, value: impl AsRef<str>) {
        let width = WIDTH.saturating_sub(indent).max(name.len() + 2);
        let line = format!("{:indent$}{:width$}{}", "", format!("{name}:"), value.as_ref());
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "{}", line.trim_end());
    }

    /// A line, if there is something to say.
    fn maybe(&mut self, indent: usize, name: &str, value: Option<impl AsRef<str>>) {
        if let Some(value) = value.filter(|value| !value.as_ref().is_empty()) {
            self.line(indent, name, value);
        }
    }

    /// Several values, one below the other.
    fn list(&mut self, indent: usize, name: &str, values: impl IntoIterator<Item = String>) {
        let mut values = values.into_iter();
        self.line(indent, name, values.next().unwrap_or_else(|| "<none>".to_owned()));
        for value in values {
            let _ = writeln!(self.0, "{:WIDTH$}{value}", "");
        }
    }
}

/// Everything that is known of a pod.
pub fn text(view: &PodView, events: &[Event], now: Timestamp) -> String {
    let (report, metadata) = (&view.report, &view.pod.metadata);
    let spec = view.pod.spec.clone().unwrap_or_default();
    let status = view.pod.status.clone().unwrap_or_default();
    let mut page = Page::default();
    page.line(0, "Name", &report.name);
    page.line(0, "Namespace", &report.namespace);
    page.maybe(0, "Priority Class", spec.priority_class_name.as_deref());
    let node = [spec.node_name.as_deref(), status.host_ip.as_deref()];
    page.line(0, "Node", node.into_iter().flatten().collect::<Vec<_>>().join("/"));
    page.maybe(0, "Start Time", status.start_time.as_ref().map(|at| moment(at.0, now)));
    page.list(0, "Labels", pairs(metadata.labels.as_ref(), "="));
    page.list(0, "Annotations", pairs(metadata.annotations.as_ref(), ": "));
    page.maybe(0, "Manifest", report.file.as_deref());
    let phase = if report.terminating { "Terminating" } else { status.phase.as_deref().unwrap_or("Unknown") };
    page.line(0, "Status", phase);
    page.maybe(0, "Reason", status.reason.as_deref());
    page.maybe(0, "Message", status.message.as_deref().or(report.message.as_deref()).map(clean));
    page.line(0, "Healthy", format!("{} since {}", yes(report.healthy), moment(report.since, now)));
    page.maybe(0, "IP", status.pod_ip.as_deref());
    let ephemeral = ephemeral(&spec);
    for (title, containers, statuses) in [
        ("Init Containers", spec.init_containers.as_deref().unwrap_or_default(), &status.init_container_statuses),
        ("Containers", &spec.containers, &status.container_statuses),
        ("Ephemeral Containers", &ephemeral, &status.ephemeral_container_statuses),
    ] {
        if containers.is_empty() {
            continue;
        }
        page.line(0, title, "");
        for container in containers {
            let status = statuses.iter().flatten().find(|status| status.name == container.name);
            print_container(&mut page, container, status, now);
        }
    }
    print_rest(&mut page, &spec, &status);
    print_events(&mut page, events, now);
    page.0
}

fn print_container(page: &mut Page, container: &Container, status: Option<&ContainerStatus>, now: Timestamp) {
    let blank = ContainerStatus::default();
    let status = status.unwrap_or(&blank);
    page.line(2, &container.name, "");
    page.maybe(4, "Container ID", status.container_id.as_deref());
    page.maybe(4, "Image", container.image.as_deref());
    page.maybe(4, "Image ID", Some(&status.image_id));
    let ports = container.ports.iter().flatten().map(|port| {
        let host = port.host_port.map_or_else(String::new, |host| format!(" (host {host})"));
        format!("{}/{}{host}", port.container_port, port.protocol.as_deref().unwrap_or("TCP"))
    });
    page.maybe(4, "Ports", Some(ports.collect::<Vec<_>>().join(", ")));
    for (name, words) in [("Command", &container.command), ("Args", &container.args)] {
        if let Some(words) = words.as_ref().filter(|words| !words.is_empty()) {
            page.list(4, name, words.iter().map(|word| clean(word)));
        }
    }
    print_state(page, "State", status.state.as_ref(), now);
    if status.last_state.as_ref().is_some_and(|state| state.terminated.is_some()) {
        print_state(page, "Last State", status.last_state.as_ref(), now);
    }
    page.line(4, "Ready", yes(status.ready));
    page.line(4, "Restart Count", status.restart_count.to_string());
    let resources = container.resources.clone().unwrap_or_default();
    for (name, quantities) in [("Limits", resources.limits), ("Requests", resources.requests)] {
        let quantities = quantities.unwrap_or_default().into_iter();
        page.maybe(
            4,
            name,
            Some(quantities.map(|(what, much)| format!("{what}={}", much.0)).collect::<Vec<_>>().join(", ")),
        );
    }
    for (name, probe) in [
        ("Startup", &container.startup_probe),
        ("Liveness", &container.liveness_probe),
        ("Readiness", &container.readiness_probe),
    ] {
        page.maybe(4, name, probe.as_ref().map(probe_text));
    }
    let env = container.env.iter().flatten().map(|variable| match (&variable.value, &variable.value_from) {
        (Some(value), _) => format!("{}={}", variable.name, clean(value)),
        (None, Some(_)) => format!("{} (from the pod)", variable.name),
        (None, None) => format!("{}=", variable.name),
    });
    page.list(4, "Environment", env);
    let mounts = container.volume_mounts.iter().flatten().map(|mount| {
        let mode = if mount.read_only == Some(true) { "ro" } else { "rw" };
        format!("{} from {} ({mode})", mount.mount_path, mount.name)
    });
    page.list(4, "Mounts", mounts);
}

fn print_state(page: &mut Page, name: &str, state: Option<&ContainerState>, now: Timestamp) {
    let at =
        |at: &Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>| at.as_ref().map(|at| moment(at.0, now));
    match state {
        Some(ContainerState { running: Some(running), .. }) => {
            page.line(4, name, "Running");
            page.maybe(6, "Started", at(&running.started_at));
        }
        Some(ContainerState { terminated: Some(ended), .. }) => {
            let ContainerStateTerminated { reason, message, exit_code, started_at, finished_at, .. } = ended;
            page.line(4, name, "Terminated");
            page.maybe(6, "Reason", reason.as_deref());
            page.maybe(6, "Message", message.as_deref().map(clean));
            page.line(6, "Exit Code", exit_code.to_string());
            page.maybe(6, "Started", at(started_at));
            page.maybe(6, "Finished", at(finished_at));
        }
        Some(ContainerState { waiting: Some(waiting), .. }) => {
            page.line(4, name, "Waiting");
            page.maybe(6, "Reason", waiting.reason.as_deref());
            page.maybe(6, "Message", waiting.message.as_deref().map(clean));
        }
        _ => page.line(4, name, "Unknown"),
    }
}

/// One line with what is asked, and by which rules.
fn probe_text(probe: &Probe) -> String {
    let port = |port: &IntOrString| match port {
        IntOrString::Int(number) => number.to_string(),
        IntOrString::String(name) => name.clone(),
    };
    let action = if let Some(exec) = &probe.exec {
        format!("exec [{}]", clean(&exec.command.iter().flatten().cloned().collect::<Vec<_>>().join(" ")))
    } else if let Some(get) = &probe.http_get {
        let scheme = get.scheme.as_deref().unwrap_or("HTTP").to_lowercase();
        let (host, path) = (get.host.as_deref().unwrap_or_default(), get.path.as_deref().unwrap_or("/"));
        format!("http-get {scheme}://{host}:{}{path}", port(&get.port))
    } else if let Some(socket) = &probe.tcp_socket {
        format!("tcp-socket {}:{}", socket.host.as_deref().unwrap_or_default(), port(&socket.port))
    } else if let Some(grpc) = &probe.grpc {
        format!("grpc :{} {}", grpc.port, grpc.service.as_deref().unwrap_or_default()).trim_end().to_owned()
    } else {
        "unknown".to_owned()
    };
    let or = |number: Option<i32>, default: i32| number.filter(|number| *number != 0).unwrap_or(default);
    format!(
        "{action} delay={}s timeout={}s period={}s #success={} #failure={}",
        or(probe.initial_delay_seconds, 0),
        or(probe.timeout_seconds, 1),
        or(probe.period_seconds, 10),
        or(probe.success_threshold, 1),
        or(probe.failure_threshold, 3)
    )
}

fn print_rest(page: &mut Page, spec: &PodSpec, status: &PodStatus) {
    page.line(0, "Conditions", "");
    for condition in status.conditions.iter().flatten() {
        let words = [condition.reason.clone(), condition.message.clone()].into_iter().flatten().collect::<Vec<_>>();
        let why = if words.is_empty() { String::new() } else { format!("  {}", clean(&words.join(": "))) };
        let _ = writeln!(page.0, "  {:27}{}{why}", condition.type_, condition.status);
    }
    page.list(0, "Volumes", spec.volumes.iter().flatten().map(volume_text));
    page.maybe(0, "QoS Class", status.qos_class.as_deref());
    page.maybe(0, "Restart Policy", spec.restart_policy.as_deref());
    page.maybe(0, "Grace Period", spec.termination_grace_period_seconds.map(|seconds| format!("{seconds}s")));
}

/// `name: hostPath path=/x type=Directory`.
fn volume_text(volume: &Volume) -> String {
    let value = serde_json::to_value(volume).unwrap_or_default();
    let source = value.as_object().and_then(|fields| fields.iter().find(|(name, _)| *name != "name"));
    let Some((kind, fields)) = source else { return volume.name.clone() };
    let simple = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    };
    let fields = fields.as_object().into_iter().flatten();
    let fields: String = fields
        .filter_map(|(name, value)| Some(format!(" {name}={}", simple(value).filter(|v| !v.is_empty())?)))
        .collect();
    format!(
        "{}: {kind}{}",
        volume.name,
        clean(&fields).split(' ').fold(String::new(), |all, one| format!("{all} {one}"))
    )
    .trim_end()
    .to_owned()
}

fn print_events(page: &mut Page, events: &[Event], now: Timestamp) {
    if events.is_empty() {
        page.line(0, "Events", "<none>");
        return;
    }
    page.line(0, "Events", "");
    for line in super::events::table(events, now).lines() {
        let _ = writeln!(page.0, "  {line}");
    }
}

fn pairs(map: Option<&BTreeMap<String, String>>, between: &str) -> Vec<String> {
    map.into_iter().flatten().map(|(name, value)| clean(&format!("{name}{between}{value}"))).collect()
}

fn moment(at: Timestamp, now: Timestamp) -> String {
    format!("{at:.0} ({} ago)", age(at, now))
}

fn yes(yes: bool) -> &'static str {
    if yes { "True" } else { "False" }
}

#[cfg(test)]
mod tests;
