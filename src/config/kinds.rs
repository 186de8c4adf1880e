//! The documents of a file, sorted by kind.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::report::{Part, Report};
use super::v1beta3;
use crate::yaml::{self, DecodeError, Kind, Node, Position, Problem, Segment, nearest};

/// One kind of document.
struct Row {
    kind: &'static str,
    part: Part,
    /// Why a command that does not read it passes it over.
    whose: &'static str,
}

const fn row(kind: &'static str, part: Part, whose: &'static str) -> Row {
    Row { kind, part, whose }
}

struct Group {
    name: &'static str,
    versions: &'static [&'static str],
    kinds: &'static [Row],
}

const KUBEADM: &str = "kubeadm.k8s.io";

const GROUPS: &[Group] = &[
    Group {
        name: KUBEADM,
        versions: &["v1beta4", "v1beta3"],
        kinds: &[
            row("InitConfiguration", Part::Init, "it is for init"),
            row("ClusterConfiguration", Part::Cluster, "it is for init"),
            row("JoinConfiguration", Part::Join, "it is for join"),
            row("ResetConfiguration", Part::Reset, "it is for reset"),
            row("UpgradeConfiguration", Part::Upgrade, "it is for upgrade"),
        ],
    },
    Group {
        name: "kubelet.config.k8s.io",
        versions: &["v1beta1"],
        kinds: &[row("KubeletConfiguration", Part::Kubelet, "it is for init")],
    },
    Group {
        name: "kubeproxy.config.k8s.io",
        versions: &["v1alpha1"],
        kinds: &[row("KubeProxyConfiguration", Part::KubeProxy, "it is for init")],
    },
    Group {
        name: "kubeboot.dev",
        versions: &["v1alpha1"],
        kinds: &[row("KubebootConfiguration", Part::Kubeboot, "it is for init and join")],
    },
];

/// Reads every document of `text` into `report`, those of `parts` to be decoded, and says what is wrong with any of them.
/// Documents of groups that are for other programs are warned of and passed over, as kubeadm does. Returns whether there
/// was any other.
pub(super) fn read(text: &str, parts: &[Part], report: &mut Report) -> bool {
    let mut found = Found { parts, seen: Vec::new(), has_known: false, old_cluster: false };
    match yaml::documents(text) {
        Ok(documents) => {
            for document in documents {
                match Node::parse(&document) {
                    Ok(node) => found.sort_in(node, report),
                    Err(error) => report.syntax(&error),
                }
            }
        }
        Err(error) => report.syntax(&error),
    }
    if found.old_cluster {
        v1beta3::move_timeout(report);
    }
    found.has_known
}

/// The documents before decoding.
struct Found<'a> {
    parts: &'a [Part],
    seen: Vec<(String, Position)>,
    has_known: bool,
    old_cluster: bool,
}

impl Found<'_> {
    fn sort_in(&mut self, mut node: Node, report: &mut Report) {
        let Some(identity) = identify(&node, report) else { return };
        let at = node.get("kind").map_or(node.at, |kind| kind.at);
        let kind = match &identity {
            Identity::Known(row, _) => row.kind,
            Identity::Foreign { kind, .. } => kind,
        };
        if let Some((_, first)) = self.seen.iter().find(|(seen, _)| *seen == kind) {
            let message = format!("a second {kind}; the first is at line {}; make one of the two", first.line);
            return report.problem_at(Some(at), "kind", message);
        }
        self.seen.push((kind.to_owned(), at));
        let (row, version) = match identity {
            Identity::Known(row, version) => (row, version),
            Identity::Foreign { api_version, kind } => {
                let group = api_version.split('/').next().unwrap_or_default();
                let likely = nearest(group, &[KUBEADM]).map(|likely| format!(" (did you mean {likely}?)"));
                let message =
                    format!("{api_version} {kind} is for another program{}{TOLERATED}", likely.unwrap_or_default());
                return report.warn_at(Some(at), "kind", message);
            }
        };
        let (kind, part) = (row.kind, row.part);
        self.has_known = true;
        if !self.parts.contains(&part) {
            return report.warn_at(Some(at), "kind", format!("{kind} is ignored: {}", row.whose));
        }
        if version == "v1beta3" {
            v1beta3::convert(part, &mut node, report);
            self.old_cluster |= part == Part::Cluster;
        }
        if let Part::Init | Part::Join = part {
            for (field, at) in misplaced(&mut node) {
                let message = format!("{field} belongs below nodeRegistration{TOLERATED}");
                report.warn_at(Some(at), "", message);
            }
        }
        report.keep(part, node);
    }
}

/// Every kind there is.
pub(super) const ALL: &[Part] = &[
    Part::Init,
    Part::Cluster,
    Part::Join,
    Part::Reset,
    Part::Upgrade,
    Part::Kubelet,
    Part::KubeProxy,
    Part::Kubeboot,
];

/// Each document that was read, in the newest version of its kind.
pub(super) fn newest(report: &Report) -> Vec<Value> {
    let rows = GROUPS.iter().flat_map(|group| group.kinds.iter().map(move |row| (group, row)));
    let document = |(group, row): (&Group, &Row)| {
        let mut value = value(row.part, report)?;
        value["apiVersion"] = format!("{}/{}", group.name, group.versions[0]).into();
        value["kind"] = row.kind.into();
        Some(value)
    };
    rows.filter_map(document).collect()
}

/// What is said after a complaint of which kubeadm only warns.
pub(super) const TOLERATED: &str = "; ignored, as kubeadm does";

/// Complains of a file without a document of `parts`, unless it is not even readable. One of `kind` is asked for, of which
/// kubeadm says the same.
pub(super) fn demand_any(parts: &[Part], kind: &str, report: &mut Report) {
    if report.has_problems() || parts.iter().any(|part| report.part(*part).is_some()) {
        return;
    }
    let newest = GROUPS[0].versions[0];
    let message = format!("the file has no {kind}; begin one with apiVersion: {KUBEADM}/{newest} and kind: {kind}");
    report.problem_at(Some(Position { line: 1, column: 1 }), "", message);
}

/// Complains of a file without the document of `part`, unless it is not even readable.
pub(super) fn demand(part: Part, report: &mut Report) {
    if report.part(part).is_some() || report.has_problems() {
        return;
    }
    let rows = GROUPS.iter().flat_map(|group| group.kinds.iter().map(move |row| (group, row)));
    if let Some((group, row)) = rows.into_iter().find(|(_, row)| row.part == part) {
        let message = format!(
            "the file has no {kind}; begin one with apiVersion: {}/{} and kind: {kind}",
            group.name,
            group.versions[0],
            kind = row.kind
        );
        report.problem_at(Some(Position { line: 1, column: 1 }), "", message);
    }
}

/// The document of `part` as it is written; None where the file has none.
pub(super) fn value(part: Part, report: &Report) -> Option<Value> {
    report.part(part).map(Node::to_value)
}

/// The document of `part`, its defaults where there is none or where it is faulty.
pub(super) fn decode<T: DeserializeOwned + Default>(part: Part, report: &mut Report) -> T {
    let Some(mut node) = report.part_mut(part).take() else { return T::default() };
    if let Kind::Map(entries) = &mut node.kind {
        entries.retain(|entry| entry.key != "apiVersion" && entry.key != "kind");
    }
    let (value, faults) = node.decode_all();
    report.keep(part, node);
    for mut fault in faults {
        hint(&mut fault);
        report.fault(&fault);
    }
    value
}

/// Arguments were a map up to v1beta3, and are often still written so.
fn hint(fault: &mut DecodeError) {
    let Some(Segment::Key(field)) = fault.path.last() else { return };
    if let (Problem::Mismatch(_, expected), true) = (&mut fault.problem, field.ends_with("xtraArgs")) {
        *expected = "a list of {name: NAME, value: VALUE}".into();
    }
}

/// What a document is.
enum Identity {
    /// One of ours, with its version.
    Known(&'static Row, String),
    /// One of a group that is for another program.
    Foreign { api_version: String, kind: String },
}

/// What a document is, or None after saying why it can be nothing.
fn identify(node: &Node, report: &mut Report) -> Option<Identity> {
    let field = |name: &str| node.get(name).and_then(|node| node.as_str().map(|text| (text.to_owned(), node.at)));
    let (Some((api_version, version_at)), Some((kind, kind_at))) = (field("apiVersion"), field("kind")) else {
        let missing = if field("apiVersion").is_none() { "apiVersion" } else { "kind" };
        let message = format!(
            "this document has no {missing}; begin it with apiVersion: {KUBEADM}/v1beta4 and kind: InitConfiguration \
             or ClusterConfiguration"
        );
        report.problem_at(Some(node.at), "", message);
        return None;
    };
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    let Some(known) = GROUPS.iter().find(|known| known.name == group) else {
        if ![group, version, kind.as_str()].contains(&"") {
            return Some(Identity::Foreign { api_version, kind });
        }
        report.problem_at(Some(version_at), "apiVersion", unknown_group(&api_version));
        return None;
    };
    if !known.versions.contains(&version) {
        report.problem_at(Some(version_at), "apiVersion", unknown_version(known, version));
        return None;
    }
    let Some(row) = known.kinds.iter().find(|row| row.kind == kind) else {
        let names = known.kinds.iter().map(|row| row.kind).collect::<Vec<_>>();
        let hint = match nearest(&kind, &names) {
            Some(likely) => format!("did you mean {likely}?"),
            None => format!("known are {}", names.join(", ")),
        };
        report.problem_at(Some(kind_at), "kind", format!("{api_version} has no kind {kind:?}; {hint}"));
        return None;
    };
    if version == "v1beta3" && v1beta3::LATER_KINDS.contains(&row.part) {
        let message = format!("{kind} came with {KUBEADM}/v1beta4; write that");
        report.problem_at(Some(version_at), "apiVersion", message);
        return None;
    }
    Some(Identity::Known(row, version.to_owned()))
}

fn unknown_group(api_version: &str) -> String {
    let known = GROUPS.iter().map(|group| format!("{}/{}", group.name, group.versions[0])).collect::<Vec<_>>();
    format!("{api_version:?} has no place in this file; known are {}", known.join(", "))
}

fn unknown_version(group: &Group, version: &str) -> String {
    let newest = format!("{}/{}", group.name, group.versions[0]);
    if group.name == KUBEADM && ["v1alpha1", "v1alpha2", "v1alpha3", "v1beta1", "v1beta2"].contains(&version) {
        return format!(
            "{KUBEADM}/{version} is too old; `kubeadm config migrate` of the last release that knows it turns it into \
             {newest}"
        );
    }
    format!("{}/{version} is not known; write {newest}", group.name)
}

/// Fields of `nodeRegistration`; kubeadm only warns of them where the document itself has them, so files in the
/// field do.
const NODE_REGISTRATION: &[&str] =
    &["name", "criSocket", "taints", "kubeletExtraArgs", "ignorePreflightErrors", "imagePullPolicy", "imagePullSerial"];

/// Takes the fields of `nodeRegistration` out of the top level.
fn misplaced(document: &mut Node) -> Vec<(&'static str, Position)> {
    let Kind::Map(entries) = &mut document.kind else { return Vec::new() };
    let known = |key: &str| NODE_REGISTRATION.iter().find(|field| **field == key).copied();
    let found = entries.iter().filter_map(|entry| known(&entry.key).map(|field| (field, entry.at))).collect();
    entries.retain(|entry| known(&entry.key).is_none());
    found
}
