//! Who ran what and how far it came, so that the next run knows whether this machine is initialised or half-way.

use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::StateError;
use super::record::RecordLog;

/// One record of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Record {
    /// A command begins.
    Begun {
        /// `init`, `init phase certs`, `upgrade apply`, ...
        command: String,
        /// kubeboot's version.
        version: String,
        /// Its process.
        pid: u32,
        /// When.
        at: Timestamp,
        /// SHA-256 in hex of the configuration.
        config: String,
    },
    /// A phase begins.
    Started {
        /// kubeadm's name for it.
        phase: String,
    },
    /// A phase has ended well.
    Done {
        /// kubeadm's name for it.
        phase: String,
    },
    /// The command has ended well.
    Finished {
        /// When.
        at: Timestamp,
    },
}

/// The journal of a machine.
#[derive(Debug)]
pub struct Journal {
    log: RecordLog,
    records: Vec<Record>,
}

impl Journal {
    /// File name below the state directory.
    pub const FILE: &str = "journal.json";

    pub(super) fn open(path: &Path) -> Result<Self, StateError> {
        let (log, records) = RecordLog::open(path)?;
        Ok(Self { log, records })
    }

    /// The same of one that may be damaged; returns what makes no sense in it too.
    pub(super) fn open_leniently(path: &Path) -> Result<(Self, Vec<StateError>), StateError> {
        let (log, records, errors) = RecordLog::open_leniently(path)?;
        Ok((Self { log, records }, errors))
    }

    /// Every record, oldest first.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// A command begins, with a configuration of this digest.
    pub fn begin(&mut self, command: &str, config: &str) -> Result<(), StateError> {
        self.add(Record::Begun {
            command: command.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            at: Timestamp::now(),
            config: config.to_owned(),
        })?;
        self.log.sync()
    }

    /// A phase begins. What a power cut takes of this is only repeated, so it is not waited for.
    pub fn start(&mut self, phase: &str) -> Result<(), StateError> {
        self.add(Record::Started { phase: phase.to_owned() })
    }

    /// A phase has ended well.
    pub fn done(&mut self, phase: &str) -> Result<(), StateError> {
        self.add(Record::Done { phase: phase.to_owned() })
    }

    /// The command has ended well.
    pub fn finish(&mut self) -> Result<(), StateError> {
        self.add(Record::Finished { at: Timestamp::now() })?;
        self.log.sync()
    }

    /// Whether `command` has ever been run to its end.
    pub fn has_finished(&self, command: &str) -> bool {
        let mut running = false;
        self.records.iter().any(|record| match record {
            Record::Begun { command: started, .. } => {
                running = started == command;
                false
            }
            Record::Finished { .. } => running,
            _ => false,
        })
    }

    fn add(&mut self, record: Record) -> Result<(), StateError> {
        self.log.append(std::slice::from_ref(&record))?;
        self.records.push(record);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_has_finished_only_when_its_own_run_came_to_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let mut journal = Journal::open(&path).unwrap();
        journal.begin("init", "x").unwrap();
        journal.start("certs").unwrap();
        journal.done("certs").unwrap();
        assert!(!journal.has_finished("init"));
        journal.begin("init phase certs", "x").unwrap();
        journal.finish().unwrap();
        assert!(!journal.has_finished("init"));
        journal.begin("init", "x").unwrap();
        journal.finish().unwrap();
        journal.begin("init", "x").unwrap();
        assert!(Journal::open(&path).unwrap().has_finished("init"));
    }
}
