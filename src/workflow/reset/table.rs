//! The phases of `reset`, by kubeadm's names.

use std::sync::LazyLock;

use crate::config::spec::{ResetSpec, UnmountFlag};
use crate::workflow::phase::{Phase, PhaseError, PhaseOptions, Phases, Selected};

/// What a phase of `reset` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Asks, and looks whether it may.
    Preflight,
    /// Takes etcd's data away.
    Etcd,
    /// Takes all the rest away.
    Node,
}

/// The phases of `reset`.
pub static PHASES: LazyLock<Phases<Part>> = LazyLock::new(|| {
    let row = |name, title, work| Phase { name, aliases: &[], title, children: vec![], work };
    Phases {
        list: vec![
            row("preflight", "ask, and see whether this may be done", Part::Preflight),
            row("remove-etcd-member", "take a local etcd's data away", Part::Etcd),
            row("cleanup-node", "stop the node agent and take everything else away", Part::Node),
        ],
        not_built: &[],
    }
});

/// What `reset phase NAME` takes, as kubeadm has it, and how its help explains it.
pub const OPTIONS: &[PhaseOptions] = &[
    PhaseOptions {
        name: "preflight",
        flags: "force ignore-preflight-errors",
        help: "Asks whether to go on, unless --force is given, and makes sure that it runs as root.",
    },
    PhaseOptions {
        name: "remove-etcd-member",
        flags: "kubeconfig",
        help: "Removes the data of the etcd that init has made on this node. An etcd of kubeboot's has one member, which \
               leaves no other behind. The etcd must not run any more: clean the node up first.",
    },
    PhaseOptions {
        name: "cleanup-node",
        flags: "cert-dir cleanup-tmp-dir cri-socket",
        help: "Stops the node agent, removes the containers of its pods, unmounts what they had mounted, and removes \
               every file that init or join wrote down that it made. What was there before stays.",
    },
];

/// What of a reset is to be done, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResetOptions {
    /// The phases.
    pub parts: Vec<Part>,
    /// Empty `/etc/kubernetes/tmp` even where it was there before.
    pub cleanup_tmp_dir: bool,
    /// Ask this runtime for the kubelet's pods rather than the one that join has written down.
    pub cri_socket: Option<String>,
    /// How to unmount.
    pub unmount_flags: Vec<UnmountFlag>,
}

impl ResetOptions {
    /// Everything, as it was made.
    pub fn everything() -> Self {
        let parts = PHASES.list.iter().map(|phase| phase.work).collect();
        Self { parts, cleanup_tmp_dir: false, cri_socket: None, unmount_flags: vec![] }
    }

    /// What `spec` says, of one phase or of all that are not skipped.
    ///
    /// # Errors
    /// A phase that is none.
    pub fn of(spec: &ResetSpec, phase: Option<&str>) -> Result<Self, PhaseError> {
        let parts = match phase {
            Some(name) => vec![PHASES.one(name, None)?.phase.work],
            None => PHASES.select(&spec.skip_phases)?.run.iter().map(|one| one.phase.work).collect(),
        };
        Ok(Self {
            parts,
            cleanup_tmp_dir: spec.cleanup_tmp_dir,
            cri_socket: spec.cri_socket.clone(),
            unmount_flags: spec.unmount_flags.clone(),
        })
    }

    /// Their rows, in the table's order.
    pub(super) fn phases(&self) -> Vec<Selected<'static, Part>> {
        let rows = PHASES.list.iter().filter(|phase| self.has(phase.work));
        rows.map(|phase| Selected { phase, children: vec![] }).collect()
    }

    /// Whether a phase is among them.
    pub fn has(&self, part: Part) -> bool {
        self.parts.contains(&part)
    }
}
