//! What is done, and in which order: nothing but the seed decides it.

use std::time::Duration;

/// One kind of harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// SIGKILL to a container's main process.
    KillProcess,
    /// `docker kill -s TERM` of a container.
    StopContainer,
    /// `docker rm -f` of a container.
    RemoveContainer,
    /// SIGKILL to a pause container.
    KillPause,
    /// `docker rm -f` of a pause container.
    RemovePause,
    /// SIGKILL to the agent, then a new one.
    KillAgent,
    /// SIGTERM to the agent, then a new one.
    StopAgent,
    /// The agent stands still for a while (SIGSTOP, SIGCONT).
    FreezeAgent,
    /// SIGKILL to dockerd and its containerd, then new ones.
    KillDocker,
    /// SIGTERM to dockerd, then a new one.
    StopDocker,
    /// A manifest is changed.
    Edit,
    /// A manifest is changed twenty times in a row.
    EditTwentyTimes,
    /// A manifest is removed.
    Remove,
    /// Manifests that were removed or invalid are written again.
    Restore,
    /// Half a manifest is written in place, and left so.
    WriteHalf,
    /// A manifest is replaced by one of another kind.
    WriteOtherKind,
    /// The directory is replaced by a copy of itself.
    ReplaceDirectory,
    /// The directory is away for a while.
    HideDirectory,
    /// The file systems of container logs and of the agent's files are full for a while.
    FillDisk,
    /// The agent's wall clock jumps.
    JumpClock,
}

/// Every action and how often it is done, relative to the others.
pub const ACTIONS: &[(Action, u32)] = &[
    (Action::KillProcess, 14),
    (Action::StopContainer, 5),
    (Action::RemoveContainer, 8),
    (Action::KillPause, 6),
    (Action::RemovePause, 4),
    (Action::KillAgent, 6),
    (Action::StopAgent, 3),
    (Action::FreezeAgent, 2),
    (Action::KillDocker, 3),
    (Action::StopDocker, 2),
    (Action::Edit, 14),
    (Action::EditTwentyTimes, 3),
    (Action::Remove, 6),
    (Action::Restore, 6),
    (Action::WriteHalf, 3),
    (Action::WriteOtherKind, 3),
    (Action::ReplaceDirectory, 3),
    (Action::HideDirectory, 2),
    (Action::FillDisk, 3),
    (Action::JumpClock, 4),
];

/// What is done next.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// What.
    pub action: Action,
    /// To the manifest with this number.
    pub pod: usize,
    /// To which of several things, modulo how many there are.
    pub pick: usize,
    /// How long nothing is done afterwards.
    pub pause: Duration,
}

/// Steps without end, the same for the same seed (SplitMix64).
#[derive(Debug)]
pub struct Script {
    state: u64,
    pods: usize,
}

impl Script {
    /// The script of this seed for so many pods.
    pub fn new(seed: u64, pods: usize) -> Self {
        Self { state: seed, pods }
    }

    fn draw(&mut self, below: usize) -> usize {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((z ^ (z >> 31)) >> 33).unwrap_or_default() % below.max(1)
    }
}

impl Iterator for Script {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        let total: u32 = ACTIONS.iter().map(|(_, weight)| weight).sum();
        let mut at = u32::try_from(self.draw(total as usize)).unwrap_or_default();
        let (action, _) = ACTIONS.iter().find(|(_, weight)| {
            let hit = at < *weight;
            at = at.saturating_sub(*weight);
            hit
        })?;
        let (pod, pick, pause) = (self.draw(self.pods), self.draw(1 << 20), self.draw(1000));
        Some(Step { action: *action, pod, pick, pause: Duration::from_millis(pause as u64) })
    }
}
