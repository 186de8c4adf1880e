//! One run of a command that changes the machine: its lock, its journal, its inventory, and what is reported of its phases.

use std::path::{Path, PathBuf};
use std::time::Instant;

use super::machine::Machine;
use super::stage::{self, CommitError};
use super::state::inventory::{Entry, Inventory, Item};
use super::state::journal::Journal;
use super::state::{State, StateError};
use crate::event::{Event, Reporter};
use crate::host::Paths;
use crate::host::tree::{MemoryTree, Tree};

/// The state of the machine as one run has it.
pub struct Session {
    /// None until something is to be written on a machine that had none.
    state: Option<State>,
    /// What the journal does not know yet: the command, and the digest of its configuration.
    begin: Option<(String, String)>,
}

impl Session {
    /// A run of `command`, with a configuration of the digest `config`, that has looked at nothing yet.
    pub fn new(command: impl Into<String>, config: impl Into<String>) -> Self {
        Self { state: None, begin: Some((command.into(), config.into())) }
    }

    /// A run of a command that goes on with what an earlier one has made and has no phases of its own in the journal: its
    /// lock and its inventory. None where there is no state.
    ///
    /// # Errors
    /// A state that cannot be read, or that another command has locked.
    pub fn attach(paths: &Paths) -> Result<Option<Self>, StateError> {
        Ok(State::open(paths)?.map(|state| Self { state: Some(state), begin: None }))
    }

    /// The same with what can be read of records that are damaged, and what is wrong with them.
    ///
    /// # Errors
    /// See [`State::open_leniently`].
    pub fn attach_leniently(paths: &Paths) -> Result<Option<(Self, Vec<StateError>)>, StateError> {
        let found = State::open_leniently(paths)?;
        Ok(found.map(|(state, wrong)| (Self { state: Some(state), begin: None }, wrong)))
    }

    /// Locks the state of an earlier run and takes it over, if there is one; returns whether there is.
    ///
    /// # Errors
    /// A state that cannot be read, or that another command has locked.
    pub fn open(&mut self, paths: &Paths) -> Result<bool, StateError> {
        self.state = State::open(paths)?;
        Ok(self.state.is_some())
    }

    /// Takes back what the earlier run had half written; returns whether there was any.
    ///
    /// # Errors
    /// A file that cannot be taken back.
    pub fn recover(&mut self, paths: &Paths) -> Result<bool, CommitError> {
        self.state.as_mut().map_or(Ok(false), |state| stage::recover(&mut state.inventory, paths))
    }

    /// The state, where there is one.
    pub fn state(&self) -> Option<&State> {
        self.state.as_ref()
    }

    /// What an earlier run has made; None where there is no state.
    pub fn inventory_mut(&mut self) -> Option<&mut Inventory> {
        self.state.as_mut().map(|state| &mut state.inventory)
    }

    /// What has been made, by the record.
    pub fn items(&self) -> Vec<&Item> {
        self.state.as_ref().map(|state| state.inventory.items()).unwrap_or_default()
    }

    /// Whether the journal knows that the command has begun.
    pub fn has_started(&self) -> bool {
        self.begin.is_none()
    }

    /// The state, made now where there is none; the journal records that the command has begun.
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

    /// Records what will be made, in a state that is there; without one nothing has been made yet.
    ///
    /// # Errors
    /// The inventory cannot be written.
    pub fn expect(&mut self, entries: Vec<Entry>) -> Result<(), StateError> {
        self.state.as_mut().map_or(Ok(()), |state| state.inventory.expect(entries))
    }

    /// Whether `path` is an earlier run's.
    pub fn owns(&self, path: &Path) -> bool {
        self.state.as_ref().is_some_and(|state| state.inventory.contains(path))
    }

    /// What is recorded of phases, and what of things that are made: a command that records both at once takes the two
    /// apart.
    pub fn split(&mut self) -> (PhaseLog<'_>, Option<&mut Inventory>) {
        let Self { state, begin } = self;
        let (journal, inventory) = match state {
            Some(State { journal, inventory, .. }) => (Some(journal), Some(inventory)),
            None => (None, None),
        };
        (PhaseLog { journal, begin }, inventory)
    }

    /// What is recorded of phases.
    pub fn phases(&mut self) -> PhaseLog<'_> {
        self.split().0
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

    /// The command has ended well. The journal does not know that a run began which has written nothing: the end would be
    /// an earlier run's.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub fn finish(&mut self) -> Result<(), StateError> {
        self.phases().finish()
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

    /// Removes the state: nothing of what it records is there.
    ///
    /// # Errors
    /// The directory cannot be removed.
    pub fn discard(self) -> Result<(), StateError> {
        self.state.map_or(Ok(()), State::discard)
    }
}

/// What the journal knows of a run's phases. It records nothing of a run that it does not know to have begun.
pub struct PhaseLog<'a> {
    /// None where there is no state.
    journal: Option<&'a mut Journal>,
    begin: &'a mut Option<(String, String)>,
}

impl PhaseLog<'_> {
    /// The same for a while.
    pub fn reborrow(&mut self) -> PhaseLog<'_> {
        PhaseLog { journal: self.journal.as_deref_mut(), begin: self.begin }
    }

    /// The command has begun, in a state that is there.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub fn begin(&mut self) -> Result<(), StateError> {
        match (&mut self.journal, self.begin.take()) {
            (Some(journal), Some((command, config))) => journal.begin(&command, &config),
            (_, begin) => {
                *self.begin = begin;
                Ok(())
            }
        }
    }

    /// A phase begins.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub fn start(&mut self, phase: &str) -> Result<(), StateError> {
        self.begun().map_or(Ok(()), |journal| journal.start(phase))
    }

    /// A phase has ended well.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub fn done(&mut self, phase: &str) -> Result<(), StateError> {
        self.begun().map_or(Ok(()), |journal| journal.done(phase))
    }

    /// The command has ended well.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub fn finish(&mut self) -> Result<(), StateError> {
        self.begun().map_or(Ok(()), Journal::finish)
    }

    fn begun(&mut self) -> Option<&mut Journal> {
        self.journal.as_deref_mut().filter(|_| self.begin.is_none())
    }
}

/// Reports that a phase begins, whichever command's it is; returns when.
pub(super) fn report_start(reporter: &dyn Reporter, phase: &str, title: &str) -> Instant {
    reporter.event(Event::PhaseStarted { phase: phase.into(), title: title.into() });
    Instant::now()
}

/// Reports that a phase has ended well.
pub(super) fn report_end(reporter: &dyn Reporter, phase: &str, started: Instant, changed: bool) {
    let millis = started.elapsed().as_millis().try_into().unwrap_or(u64::MAX);
    reporter.event(Event::PhaseDone { phase: phase.into(), changed, millis });
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::listing;

    #[test]
    fn a_command_is_journalled_when_it_first_writes_and_one_that_makes_nothing_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let (paths, before) = (Paths::new(root.path()), listing(root.path()));
        let mut session = Session::new("init", "digest");
        assert!(!session.open(&paths).unwrap() && !session.recover(&paths).unwrap());
        session.expect(vec![Entry::Adopted]).unwrap();
        session.finish().unwrap();
        assert!(session.state().is_none() && !session.has_started());
        assert_eq!(listing(root.path()), before);

        assert_eq!(session.state_mut(&paths).unwrap().journal.records().len(), 1);
        assert_eq!(session.state_mut(&paths).unwrap().journal.records().len(), 1, "it has begun once");
        session.finish().unwrap();
        assert!(session.has_started() && session.state().unwrap().journal.has_finished("init"));
        session.close().unwrap();
        assert_eq!(listing(root.path()), before);
    }

    #[test]
    fn a_session_takes_over_what_an_earlier_one_has_made_and_back_what_it_has_half_made() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        let mut first = Session::new("init", "");
        let half = vec![Item::file("/half")];
        first.state_mut(&paths).unwrap().inventory.begin_batch(half).unwrap();
        crate::host::fs::write_file(&paths.on_host("/half"), b"x", 0o600).unwrap();
        drop(first);
        let mut second = Session::new("init", "");
        assert!(second.open(&paths).unwrap());
        second.expect(vec![Entry::Expected { items: vec![Item::file("/ours")] }]).unwrap();
        assert!(second.owns(Path::new("/ours")));
        assert!(second.recover(&paths).unwrap() && !second.recover(&paths).unwrap());
        assert!(!paths.on_host("/half").exists());
    }
}
