//! `featureGates` and `--feature-gates`: those of Kubernetes 1.36 that mean something to this agent.

/// The field of the configuration.
pub(super) const FIELD: &str = "featureGates";

/// What gates open, as 1.36 has it where none is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gates {
    /// `PodsAPI`: the pods of the node on a socket of their own.
    pub pods_api: bool,
    /// `ComponentFlagz`: the path `/flagz`.
    pub flagz: bool,
    /// `ComponentStatusz`: the path `/statusz`.
    pub statusz: bool,
}

impl Default for Gates {
    fn default() -> Self {
        Self { pods_api: false, flagz: true, statusz: true }
    }
}

/// A gate, the one that opens all of its stage, and what it sets.
pub(super) type Row = (&'static str, &'static str, fn(&mut Gates, bool));

const ALPHA: &str = "AllAlpha";
const BETA: &str = "AllBeta";

/// Those that mean something here.
pub(super) const GATES: [Row; 3] = [
    ("PodsAPI", ALPHA, |gates, on| gates.pods_api = on),
    ("ComponentFlagz", BETA, |gates, on| gates.flagz = on),
    ("ComponentStatusz", BETA, |gates, on| gates.statusz = on),
];
