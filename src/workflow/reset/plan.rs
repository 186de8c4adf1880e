//! What a reset has to do, from what the inventory says was made and what is there now.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::host::paths::{CONTAINER_LOGS_DIR, KUBELET_DIR, MANIFESTS_DIR, POD_LOGS_DIR, RUN_DIR, TMP_DIR};
use crate::workflow::state::inventory::{Entry, Item, Kind};

/// One step of a reset. Paths are as the node sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Stop the node agent; `disable` also takes the service out of the boot, unless it was in it before.
    StopAgent {
        /// Whether to disable the service.
        disable: bool,
    },
    /// Stop and remove every container of the agent's pods.
    RemoveContainers {
        /// Address of the runtime; None for the default.
        runtime: Option<String>,
        /// Value of the owner label.
        owner: String,
        /// Whether what they hold is needed on, so that they get the time to stop by themselves.
        gently: bool,
    },
    /// Move the manifests back that taking the node over has moved aside.
    PutManifestsBack(Vec<String>),
    /// Start the kubelet again, whose node was taken over.
    StartKubelet {
        /// Whether it starts with the machine.
        enabled: bool,
    },
    /// Stop and remove every pod sandbox that the kubelet has made.
    RemoveSandboxes {
        /// The socket of its runtime.
        socket: String,
        /// Ids of those that were there before.
        before: Vec<String>,
    },
    /// Unmount a volume of a pod.
    Unmount(PathBuf),
    /// Remove a file or a link.
    RemoveFile(PathBuf),
    /// Remove a directory with everything in it.
    RemoveTree(PathBuf),
    /// Remove a directory if nothing is in it.
    RemoveDir(PathBuf),
    /// Remove what an agent that has ended left in its directory of pid file and socket, whoever started it.
    RemoveLeftovers,
    /// Make the service manager forget the unit.
    ReloadServices,
    /// Remove an image that init pulled.
    RemoveImage {
        /// Address of the runtime; None for the default.
        runtime: Option<String>,
        /// Reference of the image.
        reference: String,
    },
    /// Remove kubeboot's own directory, the inventory with it.
    RemoveState(PathBuf),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StopAgent { disable: true } => write!(f, "stop and disable the node agent (service kubelet)"),
            Self::StopAgent { disable: false } => write!(f, "stop the node agent (service kubelet)"),
            Self::RemoveContainers { .. } => write!(f, "stop and remove the containers of the static pods"),
            Self::PutManifestsBack(names) => write!(f, "move {} back to {MANIFESTS_DIR}", names.join(", ")),
            Self::StartKubelet { .. } => write!(f, "start the kubelet, which runs the static pods again"),
            Self::RemoveSandboxes { socket, .. } => write!(f, "stop and remove the kubelet's pods at {socket}"),
            Self::Unmount(path) => write!(f, "unmount {}", path.display()),
            Self::RemoveFile(path) => write!(f, "remove {}", path.display()),
            Self::RemoveTree(path) => write!(f, "remove {} and everything in it", path.display()),
            Self::RemoveDir(path) => write!(f, "remove directory {}", path.display()),
            Self::RemoveLeftovers => write!(f, "remove what the node agent left in {RUN_DIR}"),
            Self::ReloadServices => write!(f, "make the service manager forget the unit"),
            Self::RemoveImage { reference, .. } => write!(f, "remove image {reference}"),
            Self::RemoveState(path) => write!(f, "remove {}, kubeboot's own records", path.display()),
        }
    }
}

impl Step {
    /// The path it removes.
    pub(super) fn path(&self) -> Option<&Path> {
        match self {
            Self::RemoveFile(path) | Self::RemoveTree(path) | Self::RemoveDir(path) => Some(path),
            _ => None,
        }
    }

    /// Asks another runtime for the kubelet's pods.
    pub(super) fn ask_socket(&mut self, wanted: &str) {
        if let Self::RemoveSandboxes { socket, .. } = self {
            wanted.clone_into(socket);
        }
    }
}

/// Adds what is in `/etc/kubernetes/tmp`, unless the directory goes as a whole.
pub(super) fn add_tmp_dir(steps: &mut Vec<Step>, observed: &Observed) {
    let dir = Path::new(TMP_DIR);
    if steps.iter().any(|step| *step == Step::RemoveTree(dir.to_owned())) {
        return;
    }
    let last = steps.len().saturating_sub(1);
    steps.splice(last..last, observed.tmp.iter().map(|name| Step::RemoveTree(dir.join(name))));
}

/// What is there now. Paths are as the node sees them.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// Whether this is the running machine, where services, agents and containers are.
    pub live: bool,
    /// Which of the recorded paths exist.
    pub present: BTreeSet<PathBuf>,
    /// Every mount point below a recorded tree, in the order of mounting.
    pub mounts: Vec<PathBuf>,
    /// Names in the directory of pod logs.
    pub pod_logs: Vec<String>,
    /// Names in the directory of container logs.
    pub container_logs: Vec<String>,
    /// What the agent has made, recorded or not: directories of its pods and their logs.
    pub of_agent: Vec<Item>,
    /// Names of manifests that taking the node over has moved aside.
    pub aside: Vec<String>,
    /// Names in kubeadm's directory of backups.
    pub tmp: Vec<String>,
    /// Whether there is a pid file or a socket of an agent's.
    pub leftovers: bool,
}

/// The steps, in order. Nothing recorded, nothing to do but forget.
pub fn plan<'a>(entries: impl Iterator<Item = &'a Entry> + Clone, state: &Path, observed: &Observed) -> Vec<Step> {
    let mut steps = Vec::new();
    if observed.live {
        steps.extend(stop_steps(entries.clone()));
    }
    let stays = |item: &Item| stays(entries.clone(), item);
    let items: Vec<&Item> = entries
        .clone()
        .flat_map(|entry| match entry {
            Entry::Batch { items, .. } | Entry::Expected { items } => items.as_slice(),
            _ => &[],
        })
        .chain(&observed.of_agent)
        .filter(|item| !stays(item))
        .collect();
    let trees: BTreeSet<&Path> = items.iter().filter(|i| i.kind == Kind::Tree).map(|i| i.path.as_path()).collect();
    let volumes = observed.mounts.iter().rev().filter(|mount| {
        mount.starts_with(KUBELET_DIR) && trees.iter().any(|tree| mount.starts_with(tree) && mount.as_path() != *tree)
    });
    steps.extend(volumes.cloned().map(Step::Unmount));
    steps.extend(log_steps(entries.clone(), &trees, observed));
    // A pod's logs are known by its name and by its directory.
    let paths = path_steps(&items, &trees, observed).into_iter().filter(|step| !steps.contains(step));
    let paths: Vec<Step> = paths.collect();
    steps.extend(paths);
    if !observed.aside.is_empty() {
        steps.push(Step::PutManifestsBack(observed.aside.clone()));
    }
    if observed.live && observed.leftovers {
        steps.push(Step::RemoveLeftovers);
    }
    let has_service = entries.clone().any(|entry| matches!(entry, Entry::Service { .. }));
    if observed.live && has_service {
        steps.push(Step::ReloadServices);
    }
    if observed.live {
        steps.extend(give_back_steps(entries.clone()));
        steps.extend(image_steps(entries));
    }
    steps.push(Step::RemoveState(state.to_owned()));
    steps
}

fn stop_steps<'a>(entries: impl Iterator<Item = &'a Entry> + Clone) -> Vec<Step> {
    let gently = is_adopted(entries.clone());
    let mut steps = Vec::new();
    for entry in entries {
        let step = match entry {
            Entry::Service { enabled_before } => Step::StopAgent { disable: !enabled_before },
            Entry::Containers { runtime, owner } => {
                Step::RemoveContainers { runtime: runtime.clone(), owner: owner.clone(), gently }
            }
            Entry::Sandboxes { socket, before } => {
                Step::RemoveSandboxes { socket: socket.clone(), before: before.clone() }
            }
            _ => continue,
        };
        if !steps.contains(&step) {
            steps.push(step);
        }
    }
    // The agent first: it would start again what is stopped.
    steps.sort_by_key(|step| !matches!(step, Step::StopAgent { .. }));
    steps
}

/// Whether the node is somebody else's, and its static pods are a kubelet's.
pub fn is_adopted<'a>(mut entries: impl Iterator<Item = &'a Entry>) -> bool {
    entries.any(|entry| *entry == Entry::Adopted)
}

/// Whether what was recorded is not taken away: backups of upgrades, kubeadm's own among them, stay with a node that was
/// taken over.
pub(super) fn stays<'a>(entries: impl Iterator<Item = &'a Entry>, item: &Item) -> bool {
    is_adopted(entries) && item.path.starts_with(TMP_DIR)
}

fn give_back_steps<'a>(entries: impl Iterator<Item = &'a Entry> + Clone) -> Option<Step> {
    let enabled_before = |entry: &Entry| match entry {
        Entry::Service { enabled_before } => Some(*enabled_before),
        _ => None,
    };
    is_adopted(entries.clone())
        .then(|| Step::StartKubelet { enabled: entries.into_iter().find_map(enabled_before).unwrap_or(true) })
}

fn image_steps<'a>(entries: impl Iterator<Item = &'a Entry>) -> Vec<Step> {
    let mut steps = Vec::new();
    for entry in entries {
        if let Entry::Image { runtime, reference } = entry {
            steps.push(Step::RemoveImage { runtime: runtime.clone(), reference: reference.clone() });
        }
    }
    steps
}

/// Logs of our pods in directories that were there before.
fn log_steps<'a>(entries: impl Iterator<Item = &'a Entry>, trees: &BTreeSet<&Path>, observed: &Observed) -> Vec<Step> {
    let mut steps = Vec::new();
    for entry in entries {
        let Entry::Pod { namespace, name } = entry else { continue };
        if !trees.contains(Path::new(CONTAINER_LOGS_DIR)) {
            let prefix = format!("{name}_{namespace}_");
            let links = observed.container_logs.iter().filter(|link| link.starts_with(&prefix));
            steps.extend(links.map(|link| Step::RemoveFile(Path::new(CONTAINER_LOGS_DIR).join(link))));
        }
        if !trees.contains(Path::new(POD_LOGS_DIR)) {
            let prefix = format!("{namespace}_{name}_");
            let dirs = observed.pod_logs.iter().filter(|dir| dir.starts_with(&prefix));
            steps.extend(dirs.map(|dir| Step::RemoveTree(Path::new(POD_LOGS_DIR).join(dir))));
        }
    }
    steps
}

/// Recorded paths, what was made last first; what is below a tree goes with the tree.
fn path_steps(items: &[&Item], trees: &BTreeSet<&Path>, observed: &Observed) -> Vec<Step> {
    let mut seen = BTreeSet::new();
    let mut steps = Vec::new();
    for item in items.iter().rev() {
        let below = trees.iter().any(|tree| item.path.starts_with(tree) && item.path.as_path() != *tree);
        let shadowed = item.kind != Kind::Tree && trees.contains(item.path.as_path());
        if below || shadowed || !observed.present.contains(&item.path) || !seen.insert(&item.path) {
            continue;
        }
        steps.push(match item.kind {
            Kind::File => Step::RemoveFile(item.path.clone()),
            Kind::Tree => Step::RemoveTree(item.path.clone()),
            Kind::Dir => Step::RemoveDir(item.path.clone()),
        });
    }
    // Directories last, the deepest first: they are empty only then.
    steps.sort_by_key(|step| match step {
        Step::RemoveDir(path) => (true, usize::MAX - path.components().count()),
        _ => (false, 0),
    });
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(entries: &[Entry], observed: &Observed) -> Vec<String> {
        plan(entries.iter(), Path::new("/s"), observed).iter().map(Step::to_string).collect()
    }

    fn entries() -> Vec<Entry> {
        vec![
            Entry::Batch {
                id: 1,
                items: vec![Item::dir("/etc/k"), Item::dir("/etc/k/pki"), Item::file("/etc/k/pki/a")],
            },
            Entry::Expected { items: vec![Item::tree("/var/lib/kubelet"), Item::tree("/var/lib/etcd")] },
            Entry::Batch { id: 2, items: vec![Item::dir("/var/lib/kubelet"), Item::file("/var/lib/kubelet/c")] },
            Entry::Image { runtime: None, reference: "etcd:1".into() },
            Entry::Containers { runtime: None, owner: "/var/lib/kubelet".into() },
            Entry::Service { enabled_before: false },
            Entry::Pod { namespace: "kube-system".into(), name: "etcd-cp1".into() },
        ]
    }

    fn observed() -> Observed {
        let present =
            ["/etc/k", "/etc/k/pki", "/etc/k/pki/a", "/var/lib/kubelet", "/var/lib/kubelet/c", "/var/lib/etcd"];
        Observed {
            live: true,
            present: present.iter().map(PathBuf::from).collect(),
            mounts: ["/", "/var/lib/kubelet/pods/u/v", "/var/lib/kubelet/pods/u/v/w", "/mnt"].map(PathBuf::from).into(),
            pod_logs: vec!["kube-system_etcd-cp1_u".into(), "kube-system_etcd-cp2_u".into()],
            aside: vec![],
            of_agent: vec![],
            container_logs: vec!["etcd-cp1_kube-system_etcd-1.log".into(), "web_default_web-1.log".into()],
            tmp: vec!["kubeadm-backup-etcd".into()],
            leftovers: false,
        }
    }

    #[test]
    fn everything_recorded_goes_in_an_order_in_which_each_step_can_succeed() {
        assert_eq!(
            texts(&entries(), &observed()),
            [
                "stop and disable the node agent (service kubelet)",
                "stop and remove the containers of the static pods",
                "unmount /var/lib/kubelet/pods/u/v/w",
                "unmount /var/lib/kubelet/pods/u/v",
                "remove /var/log/containers/etcd-cp1_kube-system_etcd-1.log",
                "remove /var/log/pods/kube-system_etcd-cp1_u and everything in it",
                "remove /var/lib/etcd and everything in it",
                "remove /var/lib/kubelet and everything in it",
                "remove /etc/k/pki/a",
                "remove directory /etc/k/pki",
                "remove directory /etc/k",
                "make the service manager forget the unit",
                "remove image etcd:1",
                "remove /s, kubeboot's own records",
            ]
        );
    }

    #[test]
    fn below_another_root_only_files_go() {
        let observed = Observed { live: false, mounts: vec![], pod_logs: vec![], container_logs: vec![], ..observed() };
        let texts = texts(&entries(), &observed);
        assert!(texts.iter().all(|text| text.starts_with("remove /") || text.starts_with("remove directory /")));
    }

    #[test]
    fn what_is_gone_already_is_not_planned() {
        let observed = Observed { live: true, ..Observed::default() };
        let entries = &entries()[..3];
        assert_eq!(texts(entries, &observed), ["remove /s, kubeboot's own records"]);
    }

    #[test]
    fn a_node_that_was_taken_over_is_given_back_and_the_kubelet_starts_when_all_else_is_as_it_was() {
        let entries = [
            Entry::Adopted,
            Entry::Service { enabled_before: true },
            Entry::Containers { runtime: None, owner: "/var/lib/kubelet".into() },
            Entry::Expected { items: vec![Item::file("/etc/drop-in"), Item::tree(TMP_DIR)] },
        ];
        let present = ["/etc/drop-in", "/var/lib/kubelet/pods/u", TMP_DIR].map(PathBuf::from).into();
        let observed = Observed {
            live: true,
            aside: vec!["etcd.yaml".into()],
            of_agent: vec![Item::tree("/var/lib/kubelet/pods/u")],
            mounts: vec!["/var/lib/kubelet/pods/u/v".into(), "/var/lib/kubelet/pods/theirs/v".into()],
            present,
            ..Observed::default()
        };
        assert_eq!(
            texts(&entries, &observed),
            [
                "stop the node agent (service kubelet)",
                "stop and remove the containers of the static pods",
                "unmount /var/lib/kubelet/pods/u/v",
                "remove /var/lib/kubelet/pods/u and everything in it",
                "remove /etc/drop-in",
                "move etcd.yaml back to /etc/kubernetes/manifests",
                "make the service manager forget the unit",
                "start the kubelet, which runs the static pods again",
                "remove /s, kubeboot's own records",
            ]
        );
    }

    #[test]
    fn what_an_agent_left_goes_though_the_inventory_does_not_know_it() {
        let observed = Observed { live: true, leftovers: true, ..Observed::default() };
        let expected = ["remove what the node agent left in /run/kubeboot", "remove /s, kubeboot's own records"];
        assert_eq!(texts(&[], &observed), expected);
    }

    #[test]
    fn a_service_that_was_enabled_before_stays_so() {
        let steps = texts(&[Entry::Service { enabled_before: true }], &Observed { live: true, ..Observed::default() });
        assert_eq!(steps[0], "stop the node agent (service kubelet)");
    }

    #[test]
    fn backups_go_when_they_are_asked_to_and_the_records_still_last() {
        let (entries, observed) = (entries(), observed());
        let mut steps = plan(entries.iter(), Path::new("/s"), &observed);
        add_tmp_dir(&mut steps, &observed);
        let texts: Vec<String> = steps.iter().rev().take(2).map(Step::to_string).collect();
        assert_eq!(
            texts,
            [
                "remove /s, kubeboot's own records",
                "remove /etc/kubernetes/tmp/kubeadm-backup-etcd and everything in it"
            ]
        );
    }

    #[test]
    fn a_kubelets_pods_go_before_its_mounts_and_those_that_were_there_stay() {
        let before = vec!["theirs".to_owned()];
        let mut entries = entries();
        entries.push(Entry::Sandboxes { socket: "unix:///run/c.sock".into(), before: before.clone() });
        let mut steps = plan(entries.iter(), Path::new("/s"), &observed());
        let place = |steps: &[Step], wanted: &Step| steps.iter().position(|step| step == wanted).unwrap();
        let sandboxes = Step::RemoveSandboxes { socket: "unix:///run/c.sock".into(), before };
        let unmount = Step::Unmount("/var/lib/kubelet/pods/u/v/w".into());
        assert!(matches!(steps[0], Step::StopAgent { .. }));
        assert!(place(&steps, &sandboxes) < place(&steps, &unmount));
        steps.iter_mut().for_each(|step| step.ask_socket("unix:///other.sock"));
        assert!(
            steps.iter().any(|step| step.to_string() == "stop and remove the kubelet's pods at unix:///other.sock")
        );
    }
}
