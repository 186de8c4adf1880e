//! What happens, as data: every room that does something long says so with an [`Event`]; who shows it, and how, is the
//! business of `ui`. Library code never prints.

use serde::Serialize;

/// One thing that happened while a command ran. Serialised, it is one line of `-o json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Event {
    /// A phase begins, by kubeadm's name (`certs`, `certs/ca`).
    PhaseStarted { phase: String, title: String },
    /// A phase has ended; `changed` is false where everything was in place already.
    PhaseDone { phase: String, changed: bool, millis: u64 },
    /// A phase was left out, and why (`--skip-phases`, external etcd, done by an earlier run).
    PhaseSkipped { phase: String, reason: String },
    /// A line of information that belongs to the running phase.
    Note { phase: Option<String>, text: String },
    /// Something the user should know of that does not stop the command.
    Warning { phase: Option<String>, text: String },
    /// Bytes of an image that have come so far; `total` is None while the registry has not said.
    Pull { image: String, current: u64, total: Option<u64>, done: bool },
    /// A component's state changed while a command waits for the control plane.
    Component { name: String, state: String, healthy: bool, detail: Option<String> },
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
