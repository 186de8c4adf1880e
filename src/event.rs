//! What happens, as data: every room that does something long says so with an [`Event`]; who shows it, and how, is the
//! business of `ui`. Library code never prints.

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
