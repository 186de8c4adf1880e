//! How far the last upgrade is, from what is on disk: it can be asked from anywhere, with an agent or without.

use jiff::Timestamp;
use serde::Serialize;

use super::record::{Ending, Line, Said, lines};
use super::{Order, OrderError};
use crate::event::{Away, Event, ReplacementStep, seconds};
use crate::host::Paths;
use crate::host::tree::{HostTree, NoRecord};
use crate::workflow::upgrade::UpgradeError;
use crate::workflow::upgrade::journal::{Journal, State as JournalState};
use crate::workflow::upgrade::rollback::RollbackOptions;

/// How an upgrade stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    /// It was ordered, and is not being carried out yet.
    Ordered,
    /// It is being carried out, or was cut off and will be taken up again.
    Running,
    /// It was cut off, and no order has it taken up again: the command was carrying it out itself.
    CutOff,
    /// Everything is new.
    Upgraded,
    /// Everything is old again.
    RolledBack,
    /// It failed, and so did going back; or it is a rollback that failed.
    Failed,
    /// It could not be begun, and nothing was changed.
    Refused,
}

/// The last upgrade.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// How it stands.
    pub state: State,
    /// Of the order; None of an upgrade that the command carried out itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The command.
    pub command: String,
    /// When it was ordered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ordered: Option<Timestamp>,
    /// When something has last happened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<Timestamp>,
    /// How often it was begun: more than once where an attempt was cut off.
    pub attempts: usize,
    /// The phase that runs, or ran last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// The components that have been waited for, as they were last.
    pub components: Vec<Component>,
    /// For how long the API server did not answer while components were replaced; None where that was not measured, or where
    /// it has not ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_away: Option<Away>,
    /// How it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ending: Option<Ending>,
}

/// A component.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Component {
    /// Its name.
    pub name: String,
    /// Its state in a few words.
    pub state: String,
    /// Whether it is as it should be.
    pub healthy: bool,
    /// On its way to another version; None of one that stays.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub replacement: Option<Replacement>,
}

/// A component's way to another version.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Replacement {
    /// The old version, or the old image.
    pub from: String,
    /// The new version, or the new image.
    pub to: String,
    /// How far it is.
    pub step: ReplacementStep,
    /// How long that took from the beginning.
    pub seconds: f64,
}

/// What cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// The order or its record.
    #[error(transparent)]
    Order(#[from] OrderError),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] UpgradeError),
}

/// How the last upgrade on the machine below `paths` stands; None where there was none.
///
/// # Errors
/// Files that cannot be read.
pub fn status(paths: &Paths) -> Result<Option<Status>, StatusError> {
    let order = Order::read(paths)?;
    let lines = lines(paths)?;
    let journal = Journal::read(&HostTree::new(paths.clone(), NoRecord))?;
    let recorded = of_record(order.as_ref(), &lines);
    // An upgrade that has ended where its end could not be recorded: the journal knows.
    Ok(match (recorded, journal) {
        (Some(recorded), Some(journal)) if recorded.is_open() && order.is_none() => {
            Some(Status { state: state_in(&journal), ..recorded })
        }
        (recorded, journal) => recorded.or_else(|| journal.map(of_journal)),
    })
}

fn of_record(order: Option<&Order>, lines: &[Line]) -> Option<Status> {
    let first = lines.first().and_then(|line| match &line.what {
        Said::Ordered { id, command } => Some((id.clone(), command.clone(), line.at)),
        _ => None,
    });
    let (id, command, ordered) = first.or_else(|| order.map(|o| (o.id.clone(), o.command.clone(), o.ordered)))?;
    let mut status = Status {
        state: State::Ordered,
        id: Some(id),
        command,
        ordered: Some(ordered),
        last: lines.last().map(|line| line.at),
        attempts: 0,
        phase: None,
        components: Vec::new(),
        api_away: None,
        ending: None,
    };
    lines.iter().for_each(|line| status.take(&line.what));
    Some(status)
}

fn state_in(journal: &Journal) -> State {
    match journal.state {
        JournalState::Applying => State::CutOff,
        JournalState::Done => State::Upgraded,
        JournalState::RolledBack => State::RolledBack,
    }
}

fn of_journal(journal: Journal) -> Status {
    Status {
        state: state_in(&journal),
        id: None,
        command: journal.command,
        ordered: None,
        last: None,
        attempts: 1,
        phase: None,
        components: Vec::new(),
        api_away: journal.api_away,
        ending: None,
    }
}

impl Status {
    /// Whether it takes an upgrade back.
    pub fn is_rollback(&self) -> bool {
        self.command.starts_with(&RollbackOptions::default().command())
    }

    /// Whether it goes on without anybody's help.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Ordered | State::Running)
    }

    /// The component of that name, one that was not known being added.
    fn component(&mut self, name: &str) -> &mut Component {
        let at = self.components.iter().position(|one| one.name == name).unwrap_or_else(|| {
            self.components.push(Component { name: name.to_owned(), ..Component::default() });
            self.components.len() - 1
        });
        &mut self.components[at]
    }

    fn take(&mut self, what: &Said) {
        match what {
            Said::Ordered { .. } => {}
            Said::Begun { .. } => {
                self.attempts += 1;
                self.state = State::Running;
            }
            Said::Event(Event::PhaseStarted { phase, .. }) => self.phase = Some(phase.clone()),
            Said::Event(Event::Component { name, state, healthy, .. }) => {
                let one = self.component(name);
                (one.state, one.healthy) = (state.clone(), *healthy);
            }
            Said::Event(Event::Replacement { name, from, to, step, millis }) => {
                let (from, to, seconds) = (from.clone(), to.clone(), seconds(*millis));
                self.component(name).replacement = Some(Replacement { from, to, step: *step, seconds });
            }
            Said::Event(Event::ApiAway(away)) => self.api_away = Some(*away),
            Said::Event(_) => {}
            Said::Ended(ending) => {
                self.state = state_of(ending, self.is_rollback(), self.attempts > 0);
                self.ending = Some(ending.clone());
            }
        }
    }
}

/// The state that an exit code of an [`Outcome`](crate::workflow::upgrade::Outcome), or of a rollback, stands for.
fn state_of(ending: &Ending, is_rollback: bool, has_begun: bool) -> State {
    match ending.code {
        0 if is_rollback => State::RolledBack,
        1 if is_rollback && has_begun => State::Failed,
        0 => State::Upgraded,
        2 => State::RolledBack,
        3 => State::Failed,
        _ => State::Refused,
    }
}
