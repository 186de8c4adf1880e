//! The documents of a file, sorted by kind.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::report::{Part, Report};
use super::spec::KubebootSpec;
use super::v1beta3;
use super::wire::{ClusterConfiguration, InitConfiguration};
use crate::yaml::{self, DecodeError, Kind, Node, Position, Problem, Segment, nearest};

/// What a file has for us.
#[derive(Debug, Default)]
pub(super) struct Documents {
    pub init: InitConfiguration,
    pub cluster: ClusterConfiguration,
    pub kubeboot: KubebootSpec,
    /// `KubeletConfiguration` as written.
    pub kubelet: Option<Value>,
    /// `KubeProxyConfiguration` as written.
    pub kube_proxy: Option<Value>,
}

/// What is done with a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Init,
    Cluster,
    Kubeboot,
    Kubelet,
    KubeProxy,
    /// Not read here: whose it is.
    Ignored(&'static str),
}

struct Group {
    name: &'static str,
    versions: &'static [&'static str],
    kinds: &'static [(&'static str, Use)],
}

const KUBEADM: &str = "kubeadm.k8s.io";

const GROUPS: &[Group] = &[
    Group {
        name: KUBEADM,
        versions: &["v1beta4", "v1beta3"],
        kinds: &[
            ("InitConfiguration", Use::Init),
            ("ClusterConfiguration", Use::Cluster),
            ("JoinConfiguration", Use::Ignored("it is for join")),
            ("ResetConfiguration", Use::Ignored("it is for reset")),
            ("UpgradeConfiguration", Use::Ignored("it is for upgrade")),
        ],
    },
    Group { name: "kubelet.config.k8s.io", versions: &["v1beta1"], kinds: &[("KubeletConfiguration", Use::Kubelet)] },
    Group {
        name: "kubeproxy.config.k8s.io",
        versions: &["v1alpha1"],
        kinds: &[("KubeProxyConfiguration", Use::KubeProxy)],
    },
    Group { name: "kubeboot.dev", versions: &["v1alpha1"], kinds: &[("KubebootConfiguration", Use::Kubeboot)] },
];

/// Reads every document of `text` and says what is wrong with any of them.
pub(super) fn read(text: &str, report: &mut Report) -> Documents {
    let mut found = Found::default();
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
    found.decode(report)
}

/// The documents before decoding.
#[derive(Default)]
struct Found {
    seen: Vec<(&'static str, Position)>,
    kubelet: Option<Value>,
    kube_proxy: Option<Value>,
    old_cluster: bool,
}

impl Found {
    fn sort_in(&mut self, node: Node, report: &mut Report) {
        let Some((kind, action, version)) = identify(&node, report) else { return };
        let at = node.get("kind").map_or(node.at, |kind| kind.at);
        if let Some((_, first)) = self.seen.iter().find(|(seen, _)| *seen == kind) {
            let message = format!("a second {kind}; the first is at line {}; make one of the two", first.line);
            return report.problem_at(Some(at), "kind", message);
        }
        self.seen.push((kind, at));
        let mut node = node;
        if version == "v1beta3" && matches!(action, Use::Init | Use::Cluster) {
            let part = if action == Use::Init { Part::Init } else { Part::Cluster };
            v1beta3::convert(part, &mut node, report);
            self.old_cluster |= action == Use::Cluster;
        }
        match action {
            Use::Init => report.keep(Part::Init, node),
            Use::Cluster => report.keep(Part::Cluster, node),
            Use::Kubeboot => report.keep(Part::Kubeboot, node),
            Use::Kubelet => self.kubelet = Some(node.to_value()),
            Use::KubeProxy => self.kube_proxy = Some(node.to_value()),
            Use::Ignored(why) => report.warn_at(Some(at), "kind", format!("{kind} is ignored: {why}")),
        }
    }

    fn decode(self, report: &mut Report) -> Documents {
        if self.old_cluster {
            v1beta3::move_timeout(report);
        }
        if let Some(init) = report.part_mut(Part::Init) {
            let misplaced = misplaced(init);
            for (field, at) in misplaced {
                let message = format!("{field} belongs below nodeRegistration; ignored, as kubeadm does");
                report.warn_at(Some(at), "", message);
            }
        }
        Documents {
            init: decode(Part::Init, report),
            cluster: decode(Part::Cluster, report),
            kubeboot: decode(Part::Kubeboot, report),
            kubelet: self.kubelet,
            kube_proxy: self.kube_proxy,
        }
    }
}

fn decode<T: DeserializeOwned + Default>(part: Part, report: &mut Report) -> T {
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

/// The row of a document's kind and its version, or None after saying why there is none.
fn identify(node: &Node, report: &mut Report) -> Option<(&'static str, Use, String)> {
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
        report.problem_at(Some(version_at), "apiVersion", unknown_group(&api_version));
        return None;
    };
    if !known.versions.contains(&version) {
        report.problem_at(Some(version_at), "apiVersion", unknown_version(known, version));
        return None;
    }
    let Some((kind, action)) = known.kinds.iter().find(|(name, _)| *name == kind) else {
        let names = known.kinds.iter().map(|(name, _)| *name).collect::<Vec<_>>();
        let hint = match nearest(&kind, &names) {
            Some(likely) => format!("did you mean {likely}?"),
            None => format!("known are {}", names.join(", ")),
        };
        report.problem_at(Some(kind_at), "kind", format!("{api_version} has no kind {kind:?}; {hint}"));
        return None;
    };
    Some((kind, *action, version.to_owned()))
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

/// Fields of `nodeRegistration`; kubeadm only warns of them where `InitConfiguration` itself has them, so files in the
/// field do.
const NODE_REGISTRATION: &[&str] =
    &["name", "criSocket", "taints", "kubeletExtraArgs", "ignorePreflightErrors", "imagePullPolicy", "imagePullSerial"];

/// Takes the fields of `nodeRegistration` out of the top level.
fn misplaced(init: &mut Node) -> Vec<(&'static str, Position)> {
    let Kind::Map(entries) = &mut init.kind else { return Vec::new() };
    let known = |key: &str| NODE_REGISTRATION.iter().find(|field| **field == key).copied();
    let found = entries.iter().filter_map(|entry| known(&entry.key).map(|field| (field, entry.at))).collect();
    entries.retain(|entry| known(&entry.key).is_none());
    found
}
