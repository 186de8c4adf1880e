//! One run of a command that changes the machine: its journal, its inventory, and what is told of its phases.

use std::path::{Path, PathBuf};
use std::time::Instant;

use super::machine::Machine;
use super::stage::{self, CommitError};
use super::state::inventory::{Entry, Item};
use super::state::{State, StateError};
use crate::event::Event;
use crate::host::Paths;
use crate::host::tree::{MemoryTree, Tree};

/// The state of the machine as one run has it.
pub struct Session {
    /// None until something is to be written on a machine that had none.
    state: Option<State>,
    /// What the journal has yet to hear of: the command, and the digest of its configuration.
    begin: Option<(String, String)>,
}

impl Session {
    /// Takes over what an earlier run left, and back what that one had half written; returns whether there was any of
    /// the latter.
    ///
    /// # Errors
    /// A state that cannot be read, is locked, or a file that cannot be taken back.
    pub fn open(paths: &Paths, command: &str, config: &str) -> Result<(Self, bool), CommitError> {
        let mut state = State::open(paths)?;
        let recovered = match &mut state {
            Some(state) => stage::recover(&mut state.inventory, paths)?,
            None => false,
        };
        Ok((Self { state, begin: Some((command.to_owned(), config.to_owned())) }, recovered))
    }

    /// The state, where there is one.
    pub fn state(&self) -> Option<&State> {
        self.state.as_ref()
    }

    /// The state, made now where there is none; the journal hears that the command has begun.
    ///
    /// # Errors
    /// The state directory or one of its files cannot be written.
    pub fn state_mut(&mut self, paths: &Paths) -> Result<&mut State, StateError> {
        let state = match &mut self.state {
            Some(state) => state,
            none => none.insert(State::open_or_create(paths)?),
        };
        if let Some((command, config)) = self.begin.take() {
            state.journal.begin(&command, &config)?;
        }
        Ok(state)
    }

    /// Whether `path` is an earlier run's.
    pub fn owns(&self, path: &Path) -> bool {
        self.state.as_ref().is_some_and(|state| state.inventory.contains(path))
    }

    /// Tells that a phase begins.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub fn start_phase(&mut self, machine: &Machine, phase: &str, title: &str) -> Result<Instant, StateError> {
        machine.reporter.event(Event::PhaseStarted { phase: phase.into(), title: title.into() });
        if let Some(state) = &mut self.state {
            state.journal.start(phase)?;
        }
        Ok(Instant::now())
    }

    /// Tells that a phase has ended well.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub fn end_phase(
        &mut self,
        machine: &Machine,
        phase: &str,
        started: Instant,
        changed: bool,
    ) -> Result<(), StateError> {
        if let Some(state) = &mut self.state {
            state.journal.done(phase)?;
        }
        let millis = started.elapsed().as_millis().try_into().unwrap_or(u64::MAX);
        machine.reporter.event(Event::PhaseDone { phase: phase.into(), changed, millis });
        Ok(())
    }

    /// Writes files that were made in memory as one batch, with `entries` and `will_be_made` on record before; returns
    /// whether anything was new.
    ///
    /// # Errors
    /// See [`CommitError`]; what was written of the batch is taken back.
    pub fn commit(
        &mut self,
        machine: &mut Machine,
        files: &MemoryTree,
        mut entries: Vec<Entry>,
        will_be_made: &[Item],
    ) -> Result<bool, CommitError> {
        let paths = machine.paths.clone();
        let state = self.state_mut(&paths)?;
        entries.push(Entry::Expected { items: with_missing_parents(will_be_made, &*machine.tree) });
        state.inventory.expect(entries)?;
        stage::commit(files, &mut *machine.tree, &mut state.inventory, &paths)
    }

    /// The command has ended well.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub fn finish(&mut self) -> Result<(), StateError> {
        // The journal does not know that a run began which has written nothing: the end would be an earlier run's.
        let state = self.state.as_mut().filter(|_| self.begin.is_none());
        state.map_or(Ok(()), |state| state.journal.finish())
    }

    /// Where nothing has been made after all, nothing of ours stays.
    ///
    /// # Errors
    /// The directory cannot be removed.
    pub fn close(self) -> Result<(), StateError> {
        match self.state {
            Some(state) if state.inventory.is_unused() => state.discard(),
            _ => Ok(()),
        }
    }
}

/// `items` that are not there, each with the directories that are missing above it.
pub(super) fn with_missing_parents(items: &[Item], tree: &dyn Tree) -> Vec<Item> {
    let mut all = Vec::new();
    for item in items.iter().filter(|item| !tree.is_taken(&item.path)) {
        let mut above: Vec<&Path> = item.path.ancestors().skip(1).take_while(|dir| !tree.exists(dir)).collect();
        above.reverse();
        all.extend(above.into_iter().map(Item::dir));
        all.push(item.clone());
    }
    all
}

/// Those of `dirs` below `parent` that its own keeper makes: whole where `parent` is missing, else by name.
pub(super) fn made_below(parent: &Path, names: &[&str], tree: &dyn Tree) -> Vec<Item> {
    match tree.exists(parent) {
        true => names.iter().map(|name| Item::tree(parent.join(name))).collect(),
        false => vec![Item::tree(PathBuf::from(parent))],
    }
}
