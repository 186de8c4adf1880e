//! What becomes of an order, line by line: written by who carries it out, read by who follows or asks.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::{Order, OrderError, RECORD};
use crate::error::causes;
use crate::event::{Event, Reporter};
use crate::host::Paths;
use crate::workflow::state::StateError;
use crate::workflow::state::record::{RecordLog, read};
use crate::workflow::upgrade::Outcome;
use crate::workflow::upgrade::run::TakenBack;

/// How often the bytes of an image that is being pulled are recorded.
const PULL_INTERVAL: Duration = Duration::from_secs(1);

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// When.
    pub at: Timestamp,
    /// What.
    #[serde(flatten)]
    pub what: Said,
}

/// What a line says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Said {
    /// The first line.
    Ordered {
        /// Of the order.
        id: String,
        /// The words of the command.
        command: String,
    },
    /// It is being carried out; again, where an attempt before was cut off.
    Begun {
        /// By which process.
        pid: u32,
    },
    /// Something happened.
    Event(Event),
    /// The last line.
    Ended(Ending),
}

/// How an upgrade has ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ending {
    /// The exit code: see [`Outcome::exit_code`]; 1 is any other error.
    pub code: u8,
    /// What failed, each with its causes, the outermost first.
    pub errors: Vec<Vec<String>>,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Ending {
    /// The end that `outcome` is.
    pub fn of(outcome: &Outcome) -> Self {
        let errors = match outcome {
            Outcome::Upgraded { .. } => vec![],
            Outcome::RolledBack { cause, etcd } => {
                let ended = etcd.as_ref().map_or_else(
                    || "the upgrade failed, and everything is as it was before".to_owned(),
                    |version| format!("the upgrade failed, and everything is old again, with etcd {version}"),
                );
                vec![words(ended, cause)]
            }
            Outcome::Failed { cause, rollback } => {
                let text = "and putting everything old back failed too; when its cause is mended, run `kubeboot upgrade \
                            rollback`";
                vec![words("the upgrade failed".to_owned(), cause), words(text.to_owned(), rollback)]
            }
        };
        Self { code: outcome.exit_code(), errors, hint: None }
    }

    /// The end of a rollback.
    pub fn of_rollback(taken_back: &TakenBack) -> Self {
        let TakenBack::ButEtcd { version, has_copy } = taken_back else { return Self::default() };
        let text =
            format!("everything is old again, but etcd {version} stays: its data hold writes that must not be lost");
        let again = "`kubeboot upgrade rollback` tries again to take etcd back";
        let copy =
            "`kubeboot upgrade rollback --etcd-copy` puts the copy of its data back, without what was written since";
        let hint = if *has_copy { format!("{again}; {copy}") } else { again.to_owned() };
        Self { code: 2, errors: vec![vec![text]], hint: Some(hint) }
    }

    /// An upgrade that could not be begun.
    pub fn refused(error: &(dyn Error + 'static), hint: Option<&str>) -> Self {
        let chain = causes(Some(error)).map(ToString::to_string).collect();
        Self { code: 1, errors: vec![chain], hint: hint.map(str::to_owned) }
    }
}

fn words(first: String, error: &(dyn Error + 'static)) -> Vec<String> {
    std::iter::once(first).chain(causes(Some(error)).map(ToString::to_string)).collect()
}

/// The record of the order that is being carried out.
pub struct OrderRecord {
    log: Mutex<RecordLog>,
    has_ended: AtomicBool,
    pulls: Mutex<BTreeMap<String, Instant>>,
}

impl OrderRecord {
    /// Takes the record of `order` up, or begins it; returns how the order has ended, if it has.
    ///
    /// # Errors
    /// A file that cannot be read or written.
    pub fn open(paths: &Paths, order: &Order) -> Result<(Self, Option<Ending>), OrderError> {
        let path = paths.on_host(RECORD);
        let (mut log, lines) = match RecordLog::open::<Line>(&path) {
            Ok(opened) => opened,
            // It is an account, and nothing depends on it: one that is damaged is begun again.
            Err(error) => {
                warn!(%error, "the record of the upgrade is damaged, and begins again");
                crate::host::fs::remove_file(&path)?;
                RecordLog::open::<Line>(&path)?
            }
        };
        let is_of = |line: &Line| matches!(&line.what, Said::Ordered { id, .. } if *id == order.id);
        if !lines.first().is_some_and(is_of) {
            crate::host::fs::remove_file(&path)?;
            log = RecordLog::open::<Line>(&path)?.0;
            log.append_durably(&[line(Said::Ordered { id: order.id.clone(), command: order.command.clone() })])?;
        }
        let ended = lines.into_iter().rev().find_map(|line| match line.what {
            Said::Ended(ending) => Some(ending),
            _ => None,
        });
        let has_ended = AtomicBool::new(ended.is_some());
        Ok((Self { log: Mutex::new(log), has_ended, pulls: Mutex::default() }, ended))
    }

    /// It is being carried out by this process.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn begin(&self) -> Result<(), OrderError> {
        Ok(self.append(Said::Begun { pid: std::process::id() }, true)?)
    }

    /// It has ended. The first end counts.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn end(&self, ending: Ending) -> Result<(), OrderError> {
        if !self.has_ended.load(Ordering::Acquire) {
            self.append(Said::Ended(ending), true)?;
            self.has_ended.store(true, Ordering::Release);
        }
        Ok(())
    }

    fn append(&self, what: Said, durably: bool) -> Result<(), StateError> {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        match durably {
            true => log.append_durably(&[line(what)]),
            false => log.append(&[line(what)]),
        }
    }

    /// Whether there is no need to record how far this pull is: one of the same image was recorded just now.
    fn is_too_soon(&self, event: &Event) -> bool {
        let Event::Pull { image, done: false, .. } = event else { return false };
        let mut pulls = self.pulls.lock().unwrap_or_else(PoisonError::into_inner);
        let too_soon = pulls.get(image).is_some_and(|last| last.elapsed() < PULL_INTERVAL);
        if !too_soon {
            pulls.insert(image.clone(), Instant::now());
        }
        too_soon
    }
}

impl Reporter for OrderRecord {
    fn event(&self, event: Event) {
        if !self.is_too_soon(&event)
            && let Err(error) = self.append(Said::Event(event), false)
        {
            warn!(%error, "cannot record what happens");
        }
    }
}

fn line(what: Said) -> Line {
    Line { at: Timestamp::now(), what }
}

/// The record of the last order, as far as it can be read.
///
/// # Errors
/// A file that cannot be read.
pub fn lines(paths: &Paths) -> Result<Vec<Line>, OrderError> {
    Ok(read(&paths.on_host(RECORD))?)
}
