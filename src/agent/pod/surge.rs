//! Which pods ask to be replaced by one that is started beside them.

use k8s_openapi::api::core::v1::{Container, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::StaticPod;

/// The annotation by which a pod asks for it, with the value `true`.
pub const ANNOTATION: &str = "kubeboot.dev/surge";
/// The flag with which components of Kubernetes let several processes listen on one port.
const SHARING: &str = "--permit-port-sharing";

/// What a pod says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Surge {
    /// It does not ask.
    None,
    /// It asks, and cannot have it for this reason.
    Impossible(String),
    /// It asks: its successor may serve on this port beside it.
    Port(u16),
}

/// Whether `pod` asks not to be waited for longer than can be helped when it replaces another one.
pub fn asks(pod: &StaticPod) -> bool {
    let annotations = pod.metadata.annotations.as_ref();
    let asks = annotations.and_then(|all| all.get(ANNOTATION)).is_some_and(|value| value == "true");
    asks && pod.bound.is_none()
}

/// Whether `pod` asks to be started beside its predecessor. It has to be on the machine's network, have one container alone
/// that shares its port, and a readiness probe there which tells when it may have the connections.
pub fn of(pod: &StaticPod) -> Surge {
    if !asks(pod) {
        return Surge::None;
    }
    let impossible = |why: &str| Surge::Impossible(why.to_owned());
    if !pod.host_network() {
        return impossible("it is not on the network of the machine (hostNetwork)");
    }
    let mut containers = pod.containers();
    let (Some((false, container)), None) = (containers.next(), containers.next()) else {
        return impossible("it has not one container alone");
    };
    if !shares_port(container) {
        return impossible("its container does not run with --permit-port-sharing=true");
    }
    let Some(port) = container.readiness_probe.as_ref().and_then(|probe| asked_port(container, probe)) else {
        return impossible("its container has no readiness probe of HTTP");
    };
    let probes = [&container.liveness_probe, &container.startup_probe];
    let elsewhere = |probe: &Probe| probe.exec.is_none() && asked_port(container, probe) != Some(port);
    if probes.into_iter().flatten().any(elsewhere) {
        return impossible("a probe of its container asks another port than the readiness probe");
    }
    Surge::Port(port)
}

/// Whether the container runs with the flag; of several the last counts.
fn shares_port(container: &Container) -> bool {
    let words = container.command.iter().chain(&container.args).flatten();
    let value = |word: &String| {
        let rest = word.strip_prefix(SHARING)?;
        if rest.is_empty() { Some("true".to_owned()) } else { rest.strip_prefix('=').map(str::to_owned) }
    };
    words
        .filter_map(value)
        .next_back()
        .is_some_and(|value| ["true", "TRUE", "True", "t", "T", "1"].contains(&value.as_str()))
}

fn asked_port(container: &Container, probe: &Probe) -> Option<u16> {
    let number = |port: i32| u16::try_from(port).ok().filter(|port| *port > 0);
    match &probe.http_get.as_ref()?.port {
        IntOrString::Int(port) => number(*port),
        IntOrString::String(name) => {
            let mut ports = container.ports.iter().flatten();
            let named = ports.find(|port| port.name.as_ref() == Some(name)).map(|port| port.container_port);
            named.and_then(number).or_else(|| name.parse().ok())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::pod::tests::read;

    fn asks(annotation: &str, spec: &str, command: &str, more: &str) -> Surge {
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: p, annotations: {{{annotation}}}}}\nspec:\n  {spec}\n  \
             containers:\n  - name: c\n    image: x:1\n    command: {command}\n    ports: [{{name: probe, containerPort: \
             6443}}]\n    {more}\n"
        );
        of(&read(&text).unwrap())
    }

    const ASKED: &str = "kubeboot.dev/surge: 'true'";
    const HOST: &str = "hostNetwork: true";
    const SHARES: &str = "[kube-apiserver, --permit-port-sharing=true]";
    const READY: &str = "readinessProbe: {httpGet: {port: probe}}";

    #[test]
    fn a_pod_is_replaced_beside_itself_only_where_it_asks_and_can_share_its_port() {
        assert_eq!(asks(ASKED, HOST, SHARES, READY), Surge::Port(6443));
        let number = "readinessProbe: {httpGet: {port: 7}}";
        assert_eq!(asks(ASKED, HOST, SHARES, number), Surge::Port(7));
        assert_eq!(asks(ASKED, HOST, "[a, --permit-port-sharing]", READY), Surge::Port(6443));
        for annotation in ["", "kubeboot.dev/surge: 'false'", "kubeboot.dev/surge: ''", "other: 'true'"] {
            assert_eq!(asks(annotation, HOST, SHARES, READY), Surge::None, "{annotation}");
        }
        let two = format!("{READY}\n  - {{name: d, image: 'x:1'}}");
        let other = format!("{READY}\n    livenessProbe: {{httpGet: {{port: 1}}}}");
        for (spec, command, more, why) in [
            ("hostNetwork: false", SHARES, READY, "network"),
            (HOST, "[kube-apiserver]", READY, "--permit-port-sharing=true"),
            (HOST, "[a, --permit-port-sharing=true, --permit-port-sharing=false]", READY, "--permit-port-sharing=true"),
            (HOST, "[a, --permit-port-sharing-not=true]", READY, "--permit-port-sharing=true"),
            (HOST, SHARES, "", "readiness"),
            (HOST, SHARES, "readinessProbe: {tcpSocket: {port: 6443}}", "readiness"),
            (HOST, SHARES, &two, "one container"),
            (HOST, SHARES, &other, "another port"),
        ] {
            let surge = asks(ASKED, spec, command, more);
            assert!(matches!(&surge, Surge::Impossible(said) if said.contains(why)), "{why}: {surge:?}");
        }
    }
}
