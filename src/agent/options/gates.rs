//! `featureGates` and `--feature-gates`: those of Kubernetes 1.36 that mean something to this agent.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::kubelet_config::KubeletConfiguration;
use super::{AgentOptions, Flags, flag_value};

/// The field of the configuration.
const FIELD: &str = "featureGates";

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
type Row = (&'static str, &'static str, fn(&mut Gates, bool));

const ALPHA: &str = "AllAlpha";
const BETA: &str = "AllBeta";

const GATES: [Row; 3] = [
    ("PodsAPI", ALPHA, |gates, on| gates.pods_api = on),
    ("ComponentFlagz", BETA, |gates, on| gates.flagz = on),
    ("ComponentStatusz", BETA, |gates, on| gates.statusz = on),
];

/// Follows the gates of the file, those of flags over them. One that is set goes over that of its stage. Returns the names
/// of those that mean nothing here.
pub(super) fn follow(options: &mut AgentOptions, flags: &Flags, file: &KubeletConfiguration) -> Vec<String> {
    let mut given: BTreeMap<String, bool> = file.feature_gates.clone().unwrap_or_default();
    let by_flags: BTreeMap<String, bool> = flags.feature_gates.iter().flat_map(|text| pairs(text)).collect();
    if !by_flags.is_empty() {
        given.extend(by_flags);
        // What is read there goes over the defaults of a kubelet that is given it as its configuration.
        options.written.insert(FIELD.to_owned(), given.iter().map(|(name, on)| (name.clone(), json!(on))).collect::<Value>());
    }
    for (name, stage, set) in GATES {
        if let Some(on) = given.get(name).or_else(|| given.get(stage)) {
            set(&mut options.gates, *on);
        }
    }
    let means_something = |name: &String| GATES.iter().any(|(gate, stage, _)| name == gate || name == stage);
    given.into_keys().filter(|name| !means_something(name)).collect()
}

/// `Name=true,Other=false`, which has been read once.
fn pairs(text: &str) -> impl Iterator<Item = (String, bool)> {
    text.split(',').filter_map(|part| {
        let (name, on) = part.split_once('=')?;
        Some((name.trim().to_owned(), flag_value::boolean(on.trim()).ok()?))
    })
}
