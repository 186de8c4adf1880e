//! The phases of `upgrade apply` and `upgrade node`, by kubeadm's names and in its order.

use std::sync::LazyLock;

use crate::workflow::phase::{Child, Phase, PhaseError, PhaseOptions, Phases, Selected};

/// What a phase of an upgrade does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Looks whether it may be done.
    Preflight,
    /// The components, their certificates, and the version that is remembered.
    ControlPlane,
    /// kubeadm-config and kubelet-config.
    UploadConfig,
    /// The node's kubelet settings.
    KubeletConfig,
    /// The rights of nodes that join.
    BootstrapToken,
    /// CoreDNS and kube-proxy.
    Addon,
    /// Sees everything healthy.
    PostUpgrade,
}

/// kubeadm's phase that repairs kubeconfigs which older versions wrote; there are none of ours.
const NOT_BUILT: &[&str] = &["kubeconfig"];

/// The phases of `upgrade apply`.
pub static PHASES: LazyLock<Phases<Part>> = LazyLock::new(|| {
    let mut list = rows();
    list.insert(2, upload_config());
    list.insert(4, phase("bootstrap-token", "renew the rights of nodes that join", vec![], Part::BootstrapToken));
    Phases { list, not_built: NOT_BUILT }
});

/// The phases of `upgrade node`.
pub static NODE_PHASES: LazyLock<Phases<Part>> = LazyLock::new(|| Phases { list: rows(), not_built: NOT_BUILT });

fn rows() -> Vec<Phase<Part>> {
    let addons = vec![
        Child { name: "coredns", title: "CoreDNS, the DNS server" },
        Child { name: "kube-proxy", title: "kube-proxy, on every node" },
    ];
    vec![
        phase("preflight", "see whether this may be done, and fetch the images", vec![], Part::Preflight),
        phase("control-plane", "replace the components, their certificates with them", vec![], Part::ControlPlane),
        phase("kubelet-config", "write the node's kubelet settings anew", vec![], Part::KubeletConfig),
        phase("addon", "bring the addons up to date that are installed", addons, Part::Addon),
        phase("post-upgrade", "see every component healthy", vec![], Part::PostUpgrade),
    ]
}

fn upload_config() -> Phase<Part> {
    let children = vec![
        Child { name: "kubeadm", title: "the ClusterConfiguration, in the config map kubeadm-config" },
        Child { name: "kubelet", title: "the KubeletConfiguration, in the config map kubelet-config" },
    ];
    phase("upload-config", "store the configuration in the cluster", children, Part::UploadConfig)
}

fn phase(name: &'static str, title: &'static str, children: Vec<Child>, work: Part) -> Phase<Part> {
    Phase { name, aliases: &[], title, children, work }
}

const fn row(name: &'static str, flags: &'static str, help: &'static str) -> PhaseOptions {
    PhaseOptions { name, flags, help }
}

/// What `upgrade apply phase NAME` and `upgrade node phase NAME` take, as kubeadm has it, and how their help explains it.
pub const OPTIONS: &[PhaseOptions] = &[
    row(
        "preflight",
        "allow-experimental-upgrades allow-release-candidate-upgrades force ignore-preflight-errors image kubeconfig yes",
        "Compares the version with what runs by Kubernetes' rules, sees whether the cluster would take a Job, its \
         control-plane nodes are ready and every manifest is there, looks at CoreDNS' settings, and fetches every image \
         that is missing.",
    ),
    row(
        "control-plane",
        "allow-experimental-upgrades allow-release-candidate-upgrades certificate-renewal etcd-upgrade force image \
         kubeconfig patches timeout yes",
        "Replaces etcd, kube-apiserver, kube-controller-manager and kube-scheduler, each as soon as the one before is \
         healthy, and each with new certificates. The first that fails brings all of them back.",
    ),
    row(
        "upload-config",
        "kubeconfig yes",
        "Uploads the configuration for the new version: the config maps kubeadm-config and kubelet-config, and the roles \
         that let nodes read them.",
    ),
    row(
        "kubelet-config",
        "kubeconfig patches yes",
        "Writes the kubelet's settings (config.yaml, instance-config.yaml, kubeadm-flags.env) for the new version.",
    ),
    row("bootstrap-token", "kubeconfig yes", "Renews the roles that let a node join and get its certificate approved."),
    row(
        "addon",
        "kubeconfig patches yes",
        "Brings CoreDNS and kube-proxy to the new version, where they are installed. A Corefile that somebody has changed \
         keeps the changes.",
    ),
    row(
        "post-upgrade",
        "kubeconfig yes",
        "Waits until every component of the control plane is healthy, those that stayed as they were too.",
    ),
];

/// The phases that are to run.
#[derive(Debug, Clone)]
pub struct SelectedPhases(Vec<Selected<'static, Part>>);

impl Default for SelectedPhases {
    /// All of `upgrade apply`.
    fn default() -> Self {
        let all = |phase: &'static Phase<Part>| {
            let children = phase.children.iter().map(|child| child.name).collect();
            Selected { phase, children }
        };
        Self(PHASES.list.iter().map(all).collect())
    }
}

impl SelectedPhases {
    /// All of `phases` but those in `skip`.
    ///
    /// # Errors
    /// A phase that is none.
    pub fn of(phases: &'static Phases<Part>, skip: &[String]) -> Result<Self, PhaseError> {
        Ok(Self(phases.select(skip)?.run))
    }

    /// One of `phases`, one of a group, or `all` of it.
    ///
    /// # Errors
    /// A phase that is none.
    pub fn one(phases: &'static Phases<Part>, name: &str, sub: Option<&str>) -> Result<Self, PhaseError> {
        Ok(Self(vec![phases.one(name, sub)?]))
    }

    /// Those with these names: phases and `group/child`, as [`Self::names`] gives them.
    ///
    /// # Errors
    /// A phase that is none.
    pub fn named(names: &[String]) -> Result<Self, PhaseError> {
        let mut all: Vec<Selected<'static, Part>> = Vec::new();
        for name in names {
            let (group, child) = name.split_once('/').map_or((name.as_str(), None), |(group, one)| (group, Some(one)));
            let one = PHASES.one(group, child)?;
            match all.iter_mut().find(|known| known.phase.name == one.phase.name) {
                Some(known) => known.children.extend(one.children),
                None => all.push(one),
            }
        }
        Ok(Self(all))
    }

    /// Their names, `group/child` for each child of a group.
    pub fn names(&self) -> Vec<String> {
        let of = |one: &Selected<'static, Part>| match one.children[..] {
            [] => vec![one.phase.name.to_owned()],
            _ => one.children.iter().map(|child| format!("{}/{child}", one.phase.name)).collect(),
        };
        self.0.iter().flat_map(of).collect()
    }

    /// Whether the preflight alone runs: it judges the whole upgrade, and changes nothing.
    pub fn is_preflight_alone(&self) -> bool {
        matches!(self.0.as_slice(), [one] if one.phase.work == Part::Preflight)
    }

    /// Whether a phase runs.
    pub fn has(&self, part: Part) -> bool {
        self.0.iter().any(|one| one.phase.work == part)
    }

    /// Whether a phase of a group runs.
    pub fn has_child(&self, part: Part, child: &str) -> bool {
        self.0.iter().any(|one| one.phase.work == part && one.children.contains(&child))
    }

    /// Those for which `has_work` holds, in the table's order.
    pub(super) fn with_work(&self, has_work: impl Fn(Part) -> bool) -> Vec<Selected<'static, Part>> {
        self.0.iter().filter(|one| has_work(one.phase.work)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workflow::phase::options_of;

    #[test]
    fn the_phases_are_kubeadms_in_its_order_and_each_is_explained() {
        let names = |phases: &Phases<Part>| phases.list.iter().map(|phase| phase.name).collect::<Vec<_>>();
        let apply = [
            "preflight",
            "control-plane",
            "upload-config",
            "kubelet-config",
            "bootstrap-token",
            "addon",
            "post-upgrade",
        ];
        assert_eq!(names(&PHASES), apply);
        assert_eq!(names(&NODE_PHASES), ["preflight", "control-plane", "kubelet-config", "addon", "post-upgrade"]);
        assert!(apply.iter().all(|name| options_of(OPTIONS, name, None).is_some_and(|row| row.help.len() > 40)));
    }

    #[test]
    fn phases_are_left_out_and_picked() {
        let skip =
            |names: &[&str]| SelectedPhases::of(&PHASES, &names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>());
        let all = skip(&["addon/coredns", "kubelet-config", "kubeconfig"]).unwrap();
        assert!(!all.has(Part::KubeletConfig) && all.has(Part::ControlPlane));
        assert!(!all.has_child(Part::Addon, "coredns") && all.has_child(Part::Addon, "kube-proxy"));
        assert!(skip(&["etcd"]).is_err());
        let one = SelectedPhases::one(&PHASES, "upload-config", Some("all")).unwrap();
        assert!(one.has_child(Part::UploadConfig, "kubelet") && !one.has(Part::ControlPlane));
        assert!(SelectedPhases::one(&NODE_PHASES, "upload-config", Some("all")).is_err());
    }

    #[test]
    fn phases_that_were_written_down_by_name_are_the_same_again() {
        let node = SelectedPhases::of(&NODE_PHASES, &["addon/coredns".to_owned()]).unwrap();
        for phases in [SelectedPhases::default(), node] {
            let again = SelectedPhases::named(&phases.names()).unwrap();
            assert_eq!(again.names(), phases.names());
            assert!(again.has(Part::ControlPlane) && again.has_child(Part::Addon, "kube-proxy"));
        }
        assert!(SelectedPhases::named(&["nope".to_owned()]).is_err());
    }
}
