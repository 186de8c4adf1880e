//! What happens, as data: every room that does something long says so with an [`Event`]; who shows it, and how, is the
//! business of `ui`. Library code never prints.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One thing that happened while a command ran. Serialised, it is one line of `-o json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Event {
    /// A phase begins, by kubeadm's name (`certs`, `certs/ca`).
    PhaseStarted {
        /// kubeadm's name of it.
        phase: String,
        /// What it does, in a few words.
        title: String,
    },
    /// A phase has ended; `changed` is false where everything was in place already.
    PhaseDone {
        /// kubeadm's name of it.
        phase: String,
        /// Whether anything on the machine is other than before.
        changed: bool,
        /// How long it took, in milliseconds.
        millis: u64,
    },
    /// A phase was left out, and why (`--skip-phases`, external etcd, done by an earlier run).
    PhaseSkipped {
        /// kubeadm's name of it.
        phase: String,
        /// Why.
        reason: String,
    },
    /// A line of information that belongs to the running phase.
    Note {
        /// The phase it belongs to, None outside any.
        phase: Option<String>,
        /// The line.
        text: String,
    },
    /// Something the user should know of that does not stop the command.
    Warning {
        /// The phase it belongs to, None outside any.
        phase: Option<String>,
        /// What to know, and what to do.
        text: String,
    },
    /// Bytes of an image that have come so far; `total` is None while the registry has not said.
    Pull {
        /// Reference of the image.
        image: String,
        /// Bytes that are here.
        current: u64,
        /// Bytes there will be, as far as the registry has said.
        total: Option<u64>,
        /// Whether the image is there.
        done: bool,
    },
    /// The key that uploaded certificates are encrypted with, which only who is to join a control-plane node should have.
    CertificateKey {
        /// 64 hexadecimal digits.
        key: String,
    },
    /// A component's state changed while a command waits for the control plane.
    Component {
        /// Its `component` label.
        name: String,
        /// Its state in a few words: what it waits for, `healthy`, why it failed.
        state: String,
        /// Whether it is as it should be.
        healthy: bool,
        /// More words.
        detail: Option<String>,
    },
    /// A component is on its way to another version.
    Replacement {
        /// kubeadm's name of it.
        name: String,
        /// The old version, or the old image where that says none.
        from: String,
        /// The new version, or the new image.
        to: String,
        /// How far it is.
        step: ReplacementStep,
        /// How long it has taken so far, in milliseconds.
        millis: u64,
    },
    /// For how long the API server did not answer while components were replaced.
    ApiAway(Away),
}

/// How far the replacement of a component is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ReplacementStep {
    /// What the next one might change is kept.
    Data,
    /// The next one takes the place of the one before.
    Swap,
    /// The next one is healthy, and shows whether it does what it is there for.
    Checks,
    /// It is replaced.
    Done,
}

impl ReplacementStep {
    /// In words, before which the component is named.
    pub fn words(self) -> &'static str {
        match self {
            Self::Data => "keeping its data",
            Self::Swap => "replacing it",
            Self::Checks => "checking what it does",
            Self::Done => "replaced",
        }
    }
}

/// For how long the API server did not answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Away {
    /// All in all, in milliseconds.
    pub millis: u64,
    /// How many times.
    pub times: u32,
    /// Whether it may have been longer: an attempt was cut off while it was measured.
    #[serde(default)]
    pub at_least: bool,
}

impl fmt::Display for Away {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let least = if self.at_least { "at least " } else { "" };
        match (self.millis, self.times) {
            (0, _) => write!(f, "{least}0 s"),
            (millis, 0 | 1) => write!(f, "{least}{:.1} s", seconds(millis)),
            (millis, times) => write!(f, "{least}{:.1} s, {times} times", seconds(millis)),
        }
    }
}

/// Milliseconds as seconds.
pub fn seconds(millis: u64) -> f64 {
    millis as f64 / 1e3
}

/// Takes events. `ui` has the ones that print; tests have one that collects.
pub trait Reporter: Send + Sync {
    /// Shows or stores one event. Must not block for long and must not fail.
    fn event(&self, event: Event);

    /// Shorthand for [`Event::Note`].
    fn note(&self, phase: &str, text: String) {
        self.event(Event::Note { phase: Some(phase.to_owned()), text });
    }

    /// Shorthand for [`Event::Warning`].
    fn warn(&self, phase: &str, text: String) {
        self.event(Event::Warning { phase: Some(phase.to_owned()), text });
    }
}

/// A reporter that drops everything.
pub struct Silent;

impl Reporter for Silent {
    fn event(&self, _: Event) {}
}
