//! Flags and fields about the API server and the Node.

use std::collections::BTreeMap;
use std::path::PathBuf;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::agent::options::agent_options::AgentOptions;
use crate::agent::options::error::{OptionsError, checked, wrong};
use crate::agent::options::eviction::{self, Thresholds};
use crate::agent::options::given::NodeFlags;
use crate::agent::options::kubelet_config::KubeletConfiguration;
use crate::agent::options::node::{NodeOptions, NodeTaint};
use crate::agent::options::values;
use crate::agent::pod::resources;

/// Fills in `options.node`; the root directory is known by now.
pub(super) fn follow(
    options: &mut AgentOptions,
    flags: &NodeFlags,
    file: &KubeletConfiguration,
) -> Result<(), OptionsError> {
    let path = |path: &Option<PathBuf>| path.clone().filter(|path| !path.as_os_str().is_empty());
    let node = &mut options.node;
    node.cert_dir = options.root_dir.join("pki");
    node.kubeconfig = path(&flags.kubeconfig);
    node.bootstrap_kubeconfig = path(&flags.bootstrap_kubeconfig);
    if let Some(directory) = path(&flags.cert_dir) {
        node.cert_dir = directory;
    }
    for given in &flags.node_labels {
        let found = labels(given).map_err(|problem| wrong("--node-labels", given, problem))?;
        node.labels.extend(found);
    }
    let mut taints = Vec::new();
    for given in &flags.register_with_taints {
        // One with a dash behind it is of no use here, and taken by the kubelet all the same.
        let named = given.split(',').filter(|text| !text.is_empty() && !text.ends_with('-'));
        let found = named.map(taint).collect::<Result<Vec<_>, _>>();
        taints.extend(found.map_err(|problem| wrong("--register-with-taints", given, problem))?);
    }
    node.taints = if taints.is_empty() { file.register_with_taints.clone().unwrap_or_default() } else { taints };
    follow_numbers(node, flags, file)?;
    Ok(())
}

fn follow_numbers(node: &mut NodeOptions, flags: &NodeFlags, file: &KubeletConfiguration) -> Result<(), OptionsError> {
    let flag = "--node-status-update-frequency";
    let update = checked(flag, &flags.node_status_update_frequency, values::duration)?;
    let update = update.or(file.node_status_update_frequency);
    node.status_update = update.unwrap_or(node.status_update);
    // Who sets the one and not the other wants that often to be heard of.
    node.status_report = file.node_status_report_frequency.or(update).unwrap_or(node.status_report);
    let system = checked("--system-reserved", &flags.system_reserved, pairs)?;
    let kube = checked("--kube-reserved", &flags.kube_reserved, pairs)?;
    node.system_reserved = system.or_else(|| file.system_reserved.clone()).unwrap_or_default();
    node.kube_reserved = kube.or_else(|| file.kube_reserved.clone()).unwrap_or_default();
    node.eviction = follow_eviction(flags, file)?;
    for (resource, quantity) in node.system_reserved.iter().chain(&node.kube_reserved) {
        let amount = amount(resource, quantity).map_err(|problem| wrong("systemReserved", resource, problem))?;
        let sum = node.reserved.entry(resource.clone()).or_default();
        *sum = sum.saturating_add(amount);
    }
    Ok(())
}

fn follow_eviction(flags: &NodeFlags, file: &KubeletConfiguration) -> Result<Thresholds, OptionsError> {
    let thresholds = |written: &BTreeMap<String, String>| {
        Thresholds::new(written, file.merge_default_eviction_settings.unwrap_or(false))
    };
    let flag = checked("--eviction-hard", &flags.eviction_hard, |text| thresholds(&eviction::pairs(text)?).map(Some))?;
    match (flag, &file.eviction_hard) {
        (Some(given), _) => Ok(given),
        (None, Some(written)) => {
            thresholds(written).map_err(|problem| wrong("evictionHard", &format!("{written:?}"), problem))
        }
        (None, None) => Ok(Thresholds::default()),
    }
}

/// Resources that can be reserved.
const RESERVABLE: &[&str] = &["cpu", "memory", "ephemeral-storage", "pid"];

fn amount(resource: &str, quantity: &str) -> Result<i64, String> {
    if !RESERVABLE.contains(&resource) {
        return Err(format!("{resource:?} cannot be reserved, only {}", RESERVABLE.join(", ")));
    }
    let quantity = Quantity(quantity.to_owned());
    let found = if resource == "cpu" { resources::millis(&quantity) } else { resources::bytes(&quantity) };
    found.filter(|amount| *amount >= 0).ok_or_else(|| format!("{:?} is no quantity to reserve", quantity.0))
}

/// `name=value,name2=value2`.
fn pairs(text: &str) -> Result<Option<BTreeMap<String, String>>, String> {
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').ok_or("must be written as name=value,name2=value2")?;
        Ok((name.trim().to_owned(), value.trim().to_owned()))
    };
    let found: Result<_, String> = text.split(',').filter(|part| !part.trim().is_empty()).map(pair).collect();
    found.map(Some)
}

/// Labels in Kubernetes' own domains that a node may give itself; the admission of nodes refuses any other.
const OWN_LABELS: &[&str] = &[
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "kubernetes.io/arch",
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];

/// Whether a node may give itself this label (`NodeRestriction`).
fn is_own_label(name: &str) -> bool {
    let domain = name.split_once('/').map_or("", |(domain, _)| domain);
    let within = |parent: &str| domain == parent || domain.ends_with(&format!(".{parent}"));
    let kubernetes = within("kubernetes.io") || within("k8s.io");
    let reserved = within("node-restriction.kubernetes.io");
    let open = (within("kubelet.kubernetes.io") || within("node.kubernetes.io")) && !reserved;
    !kubernetes || open || OWN_LABELS.contains(&name)
}

/// `name=value,name2`: a label may have no value.
fn labels(text: &str) -> Result<BTreeMap<String, String>, String> {
    let parts = text.split(',').filter(|part| !part.is_empty());
    let found: BTreeMap<String, String> = parts
        .map(|part| part.split_once('=').unwrap_or((part, "")))
        .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
        .collect();
    for (name, value) in &found {
        if !is_own_label(name) {
            return Err(format!("a node must not give itself the label {name}; set it with `kubectl label node`"));
        }
        if !is_label_name(name) {
            return Err(format!("{name:?} is no name of a label"));
        }
        if !value.is_empty() && !is_label_word(value) {
            return Err(format!("{value:?} is no value of the label {name}"));
        }
    }
    Ok(found)
}

/// A name, or a domain and a name (`validation.IsQualifiedName`).
fn is_label_name(text: &str) -> bool {
    let part = |part: &str| {
        let inner = part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        inner && !part.is_empty() && !part.starts_with('-') && !part.ends_with('-')
    };
    match text.split_once('/') {
        Some((domain, name)) => domain.len() <= 253 && domain.split('.').all(part) && is_label_word(name),
        None => is_label_word(text),
    }
}

/// A name or a value of a label, 63 characters at most.
fn is_label_word(text: &str) -> bool {
    let is_end = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    let inner = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    text.len() <= 63 && inner && is_end(text.bytes().next()) && is_end(text.bytes().last())
}

/// `key=value:effect` or `key:effect`.
fn taint(text: &str) -> Result<NodeTaint, String> {
    let (what, effect) = text.rsplit_once(':').ok_or("must be written as key=value:effect")?;
    let (key, value) = what.split_once('=').unwrap_or((what, ""));
    let taint = NodeTaint { key: key.into(), value: value.into(), effect: effect.into(), _time_added: None };
    let problem = "the effect of a taint is NoSchedule, PreferNoSchedule or NoExecute";
    if taint.is_valid() { Ok(taint) } else { Err(problem.to_owned()) }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::agent::options::{ConfigFile, Flags, Resolved, resolve};

    fn with(node: NodeFlags, body: &str) -> Result<Resolved, OptionsError> {
        resolved(&Flags { node, ..Flags::default() }, body)
    }

    fn resolved(flags: &Flags, body: &str) -> Result<Resolved, OptionsError> {
        let head = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nstaticPodPath: /m\n";
        let file = ConfigFile::main("/var/lib/kubelet/config.yaml".into(), format!("{head}{body}"));
        resolve(flags, &[file], "cp1")
    }

    fn node(flags: NodeFlags, body: &str) -> NodeOptions {
        with(flags, body).unwrap().options.node
    }

    #[test]
    fn an_agent_without_a_kubeconfig_has_no_api_server() {
        assert_eq!(node(NodeFlags::default(), ""), NodeOptions::new(Path::new("/var/lib/kubelet")));
        let empty = NodeFlags { kubeconfig: Some("".into()), ..NodeFlags::default() };
        assert_eq!(node(empty, "").kubeconfig, None);
    }

    #[test]
    fn the_file_says_what_the_node_is_like_and_flags_go_before_it() {
        let body = "registerNode: false\nregisterWithTaints: [{key: a, effect: NoSchedule}]\nmaxPods: 7\n\
                    nodeStatusUpdateFrequency: 5s\nnodeLeaseDurationSeconds: 20\nrotateCertificates: true\n\
                    serverTLSBootstrap: true\nproviderID: x://1\nnodeStatusMaxImages: -1\n\
                    systemReserved: {cpu: 100m, memory: 1Ki}\nkubeReserved: {cpu: 50m}\n";
        let found = node(NodeFlags::default(), body);
        assert!(!found.register && found.rotate_certificates && found.server_tls_bootstrap);
        assert_eq!((found.max_pods, found.lease_seconds, found.max_images), (7, 20, None));
        assert_eq!(found.status_report, Duration::from_secs(5), "the report is as frequent as the update");
        assert_eq!(found.reserved, BTreeMap::from([("cpu".to_owned(), 150), ("memory".to_owned(), 1024)]));
        assert_eq!(found.taints.len(), 1);
        let flags = NodeFlags {
            register_with_taints: vec!["b=c:NoExecute,d:NoSchedule,gone-".into()],
            node_labels: vec!["zone=a,bare".into(), "x.node.kubernetes.io/y=1".into(), "e=".into()],
            cert_dir: Some("/c".into()),
            ..NodeFlags::default()
        };
        let alone = [("max-pods", "9"), ("register-node", "true"), ("node-ip", "10.0.0.1,fd00::1")];
        let flags = Flags { node: flags, ..Flags::read(alone).unwrap() };
        let found = resolved(&flags, body).unwrap().options.node;
        assert!(found.register && found.max_pods == 9 && found.cert_dir == Path::new("/c"));
        let taints: Vec<_> =
            found.taints.iter().map(|t| (t.key.as_str(), t.value.as_str(), t.effect.as_str())).collect();
        assert_eq!(taints, [("b", "c", "NoExecute"), ("d", "", "NoSchedule")]);
        assert_eq!((found.labels.len(), found.labels["bare"].as_str(), found.ips.len()), (4, "", 2));
    }

    #[test]
    fn what_a_node_must_not_say_of_itself_is_refused_with_the_flag() {
        let labels = |text: &str| NodeFlags { node_labels: vec![text.into()], ..NodeFlags::default() };
        for (flags, words) in [
            (labels("node-role.kubernetes.io/worker="), "--node-labels is"),
            (labels("a.node-restriction.kubernetes.io/x=1"), "must not give itself"),
            (labels("a b=1"), "is no name of a label"),
            (labels("zone=a b"), "is no value of the label zone"),
            (labels("Zone.example/x=1"), "is no name of a label"),
            (NodeFlags { register_with_taints: vec!["a:Never".into()], ..NodeFlags::default() }, "effect of a taint"),
            (NodeFlags { system_reserved: Some("gpu=1".into()), ..NodeFlags::default() }, "cannot be reserved"),
        ] {
            let error = with(flags, "").unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        for (ip, words) in [("10.0.0.1,10.0.0.2", "one of each family"), ("host", "--node-ip is \"host\"")] {
            let error = resolved(&Flags::read([("node-ip", ip)]).unwrap(), "").unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
