//! `kubeadm.k8s.io/v1beta3`, turned into `v1beta4` before decoding, so that places in the file stay right.

use super::report::{Part, Report};
use crate::yaml::{Entry, Kind, Node, Position};

/// Maps of v1beta3 that are lists of name and value in v1beta4.
const ARGUMENTS: &[(Part, &[&str])] = &[
    (Part::Init, &["nodeRegistration", "kubeletExtraArgs"]),
    (Part::Join, &["nodeRegistration", "kubeletExtraArgs"]),
    (Part::Cluster, &["apiServer", "extraArgs"]),
    (Part::Cluster, &["controllerManager", "extraArgs"]),
    (Part::Cluster, &["scheduler", "extraArgs"]),
    (Part::Cluster, &["etcd", "local", "extraArgs"]),
];

/// Fields that came with v1beta4.
const LATER: &[(Part, &[&str])] = &[
    (Part::Init, &["dryRun"]),
    (Part::Init, &["timeouts"]),
    (Part::Init, &["nodeRegistration", "imagePullSerial"]),
    (Part::Join, &["dryRun"]),
    (Part::Join, &["timeouts"]),
    (Part::Join, &["nodeRegistration", "imagePullSerial"]),
    (Part::Cluster, &["encryptionAlgorithm"]),
    (Part::Cluster, &["certificateValidityPeriod"]),
    (Part::Cluster, &["caCertificateValidityPeriod"]),
    (Part::Cluster, &["proxy"]),
    (Part::Cluster, &["dns", "disabled"]),
    (Part::Cluster, &["apiServer", "extraEnvs"]),
    (Part::Cluster, &["controllerManager", "extraEnvs"]),
    (Part::Cluster, &["scheduler", "extraEnvs"]),
    (Part::Cluster, &["etcd", "local", "extraEnvs"]),
    (Part::Cluster, &["etcd", "external", "httpEndpoints"]),
];

/// The warning for every document of this version.
pub(super) const DEPRECATED: &str =
    "kubeadm.k8s.io/v1beta3 is deprecated; `kubeboot config migrate` makes v1beta4 of it";

/// Kinds that came with v1beta4.
pub(super) const LATER_KINDS: &[Part] = &[Part::Reset, Part::Upgrade];

/// Turns a v1beta3 document into a v1beta4 one.
pub(super) fn convert(part: Part, node: &mut Node, report: &mut Report) {
    let at = node.get("apiVersion").map(|version| version.at);
    report.warn_at(at, "apiVersion", DEPRECATED);
    for (_, path) in LATER.iter().filter(|(of, _)| *of == part) {
        if let Some(entry) = take(node, path) {
            let message = "unknown field in v1beta3; it came with kubeadm.k8s.io/v1beta4";
            report.problem_at(Some(entry.at), &path.join("."), message);
        }
    }
    for (_, path) in ARGUMENTS.iter().filter(|(of, _)| *of == part) {
        let Some(arguments) = get_mut(node, path) else { continue };
        match &mut arguments.kind {
            Kind::Map(entries) => arguments.kind = Kind::List(to_list(std::mem::take(entries))),
            Kind::List(_) => {
                let at = arguments.at;
                arguments.kind = Kind::Null;
                let message =
                    "expected a map of names and values, found a list; lists came with kubeadm.k8s.io/v1beta4";
                report.problem_at(Some(at), &path.join("."), message);
            }
            _ => {}
        }
    }
    if part == Part::Join
        && let Some(timeout) = take(node, &["discovery", "timeout"])
    {
        put_timeout(node, "discovery", timeout);
    }
}

/// `apiServer.timeoutForControlPlane` is `timeouts.controlPlaneComponentHealthCheck` of the other document in v1beta4.
pub(super) fn move_timeout(report: &mut Report) {
    let cluster = report.part_mut(Part::Cluster).as_mut();
    let Some(timeout) = cluster.and_then(|node| take(node, &["apiServer", "timeoutForControlPlane"])) else {
        return;
    };
    let init = report.part_mut(Part::Init).get_or_insert_with(|| Node::new(timeout.at, Kind::Map(Vec::new())));
    put_timeout(init, "controlPlaneComponentHealthCheck", timeout);
}

/// Puts a timeout under its new name, unless the document has `timeouts` already.
fn put_timeout(node: &mut Node, key: &str, mut timeout: Entry) {
    timeout.key = key.into();
    let at = timeout.at;
    let has_own = node.get("timeouts").is_some();
    if let (Kind::Map(entries), false) = (&mut node.kind, has_own) {
        entries.push(Entry { key: "timeouts".into(), at, node: Node::new(at, Kind::Map(vec![timeout])) });
    }
}

/// Name and value, sorted by name as kubeadm's conversion does.
fn to_list(mut entries: Vec<Entry>) -> Vec<Node> {
    entries.sort_by(|a, b| a.key.cmp(&b.key));
    let field = |key: &str, at: Position, node: Node| Entry { key: key.into(), at, node };
    let item = |entry: Entry| {
        let name = Node::new(entry.at, Kind::String(entry.key));
        Node::new(entry.at, Kind::Map(vec![field("name", entry.at, name), field("value", entry.at, entry.node)]))
    };
    entries.into_iter().map(item).collect()
}

fn get_mut<'a>(node: &'a mut Node, path: &[&str]) -> Option<&'a mut Node> {
    path.iter().try_fold(node, |node, key| match &mut node.kind {
        Kind::Map(entries) => entries.iter_mut().find(|entry| entry.key == **key).map(|entry| &mut entry.node),
        _ => None,
    })
}

fn take(node: &mut Node, path: &[&str]) -> Option<Entry> {
    let (last, above) = path.split_last()?;
    let Kind::Map(entries) = &mut get_mut(node, above)?.kind else { return None };
    let index = entries.iter().position(|entry| entry.key == *last)?;
    Some(entries.remove(index))
}
