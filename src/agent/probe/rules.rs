//! The kubelet's rules about probe results, and ours about health, with neither clock nor socket.

use std::sync::Arc;
use std::time::Duration;

use super::{Outcome, ProbeKind, Probes};

/// What the probes say of one running container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// The runtime's id of the instance this is about. A result for another instance says nothing.
    pub id: String,
    /// The startup probe has passed, or there is none.
    pub started: bool,
    /// Ready in the kubelet's sense.
    pub ready: bool,
    /// It has answered its eager check since it started, and no probe says otherwise now.
    pub healthy: bool,
    /// What the last failing (or doubtful) check said; None once the same check succeeds.
    pub message: Option<String>,
    /// Set once its liveness or startup probe has failed for good. Only its readiness is asked from then on.
    pub must_restart: Option<MustRestart>,
}

/// A container has to be stopped and, as its restart policy says, started again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MustRestart {
    /// Which probe failed: liveness or startup.
    pub kind: ProbeKind,
    /// `Liveness probe failed 8 times in a row: ...`
    pub message: String,
    /// The probe's own grace for the stop; None takes the pod's.
    pub grace: Option<Duration>,
}

/// Results in a row.
#[derive(Debug, Clone, Copy, Default)]
struct Run {
    success: bool,
    length: u32,
}

impl Run {
    fn push(&mut self, success: bool) -> u32 {
        self.length = if self.length > 0 && self.success == success { self.length.saturating_add(1) } else { 1 };
        self.success = success;
        self.length
    }
}

/// The state of one container instance's probes.
#[derive(Debug)]
pub struct Rules {
    id: String,
    probes: Arc<Probes>,
    runs: [Run; 3],
    started: bool,
    live: bool,
    /// What the readiness probe's thresholds have led to; None while they have led to nothing.
    readiness: Option<bool>,
    /// Whose check shows that the container answers.
    eager: Option<ProbeKind>,
    answered: bool,
    message: Option<(ProbeKind, String)>,
    must_restart: Option<MustRestart>,
}

impl Rules {
    /// A container that has just started: not ready if it has a readiness probe, live whatever it has.
    pub fn new(id: String, probes: Arc<Probes>) -> Self {
        Self {
            id,
            runs: [Run::default(); 3],
            started: probes.startup.is_none(),
            live: true,
            readiness: None,
            eager: probes.eager_kind(),
            answered: probes.eager_kind().is_none(),
            message: None,
            must_restart: None,
            probes,
        }
    }

    /// The startup probe has passed before, under an earlier agent.
    pub fn start(&mut self) {
        self.started = true;
        if self.eager == Some(ProbeKind::Startup) {
            // That one is not asked again: the others say how it is now.
            self.eager = self.probes.liveness.is_some().then_some(ProbeKind::Liveness);
            self.answered = self.eager.is_none();
        }
    }

    /// The readiness probe had called it ready under an earlier agent, which stands until it is not any more.
    pub fn stay_ready(&mut self) {
        if self.probes.readiness.is_some() {
            self.readiness = Some(true);
        }
    }

    /// Takes the result of a probe that was due by its own rules. An error counts as nothing.
    pub fn record(&mut self, kind: ProbeKind, outcome: &Outcome) {
        let Some(spec) = self.probes.get(kind) else { return };
        let over = self.must_restart.is_some() && kind != ProbeKind::Readiness;
        if over || (kind == ProbeKind::Startup && self.started) {
            return;
        }
        let (needed_up, needed_down, grace) = (spec.success_threshold, spec.failure_threshold, spec.grace);
        match outcome {
            Outcome::Error { .. } => self.note(kind, outcome),
            Outcome::Success { .. } => {
                self.note(kind, outcome);
                if self.runs[kind as usize].push(true) >= needed_up {
                    self.passed(kind);
                }
            }
            Outcome::Failure { message, .. } => {
                self.note(kind, outcome);
                let length = self.runs[kind as usize].push(false);
                match kind {
                    _ if length < needed_down => {}
                    ProbeKind::Readiness => self.readiness = Some(false),
                    ProbeKind::Liveness | ProbeKind::Startup => {
                        self.live = false;
                        let message = format!("{} probe failed {length} times in a row: {message}", kind.title());
                        self.must_restart = Some(MustRestart { kind, message, grace });
                    }
                }
            }
        }
    }

    /// Takes the result of an eager check. Only a success counts: it makes the container healthy, and it is the startup
    /// probe's success if that is what was asked.
    pub fn record_eager(&mut self, kind: ProbeKind, outcome: &Outcome) {
        if self.must_restart.is_some() {
            return;
        }
        self.note(kind, outcome);
        if !matches!(outcome, Outcome::Success { .. }) {
            return;
        }
        self.answered |= self.eager == Some(kind);
        match kind {
            ProbeKind::Startup => self.started = true,
            // Failures from before the first answer say nothing of a container that answers now.
            ProbeKind::Readiness if self.readiness == Some(false) => self.readiness = None,
            ProbeKind::Readiness | ProbeKind::Liveness => {}
        }
    }

    fn passed(&mut self, kind: ProbeKind) {
        self.answered |= self.eager == Some(kind);
        match kind {
            ProbeKind::Startup => self.started = true,
            ProbeKind::Liveness => self.live = true,
            ProbeKind::Readiness => self.readiness = Some(true),
        }
    }

    fn note(&mut self, kind: ProbeKind, outcome: &Outcome) {
        let title = kind.title();
        match outcome {
            Outcome::Failure { message, .. } => self.message = Some((kind, format!("{title} probe failed: {message}"))),
            Outcome::Error { message } => self.message = Some((kind, format!("{title} probe errored: {message}"))),
            Outcome::Success { warning: Some(text) } => {
                self.message = Some((kind, format!("{title} probe warning: {text}")));
            }
            Outcome::Success { warning: None } => {
                self.message.take_if(|(of, _)| *of == kind);
            }
        }
    }

    /// Which probe's check the eager checker asks next: first the one that makes the container healthy, then the
    /// startup probe's, which the other two wait for. None when there is nothing left to find out.
    pub fn wants_eager(&self) -> Option<ProbeKind> {
        match self {
            Self { must_restart: Some(_), .. } => None,
            Self { answered: false, eager, .. } => *eager,
            Self { started: false, .. } => Some(ProbeKind::Startup),
            _ => None,
        }
    }

    /// Whether the startup probe has passed or there is none.
    pub fn started(&self) -> bool {
        self.started
    }

    /// Whether a probe has condemned the container.
    pub fn condemned(&self) -> bool {
        self.must_restart.is_some()
    }

    /// What it all comes to.
    pub fn health(&self) -> Health {
        Health {
            id: self.id.clone(),
            started: self.started,
            ready: self.started && (self.probes.readiness.is_none() || self.readiness == Some(true)),
            healthy: self.answered && self.live && self.readiness != Some(false),
            message: self.message.as_ref().map(|(_, text)| text.clone()),
            must_restart: self.must_restart.clone(),
        }
    }
}
