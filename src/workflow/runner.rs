//! The loop that runs a command's table of phases: `init`, `join`, `reset`, `adopt` and `upgrade` have no other.

use super::phase::Selected;
use super::session::{PhaseLog, report_end, report_start};
use super::state::StateError;
use crate::event::{Event, Reporter};

/// What comes before a phase.
pub(super) enum Before {
    /// It runs.
    Run,
    /// It has nothing to do here.
    Skip {
        /// Why, for the report.
        reason: String,
    },
}

/// How a phase has ended.
pub(super) enum PhaseEnd {
    /// Well; it says whether it has changed anything.
    Whole {
        /// Whether it has.
        changed: bool,
    },
    /// Something of it failed, which the command reports when all else is done.
    Partly,
}

/// One run of a command that is a table of phases.
pub(super) trait Command {
    /// What the command's table says of a phase.
    type Work: 'static;
    /// Why a phase ends the run.
    type Error: From<StateError>;

    /// Where its phases are recorded (None where the command records none) and where they are reported.
    fn log(&mut self) -> (Option<PhaseLog<'_>>, &dyn Reporter);

    /// What has to be done or known before the first of `rest` is said to have begun.
    ///
    /// # Errors
    /// What ends the run.
    async fn before(&mut self, rest: &[Selected<'static, Self::Work>]) -> Result<Before, Self::Error>;

    /// Runs one phase.
    ///
    /// # Errors
    /// What ends the run.
    async fn act(&mut self, selected: &Selected<'static, Self::Work>) -> Result<PhaseEnd, Self::Error>;
}

/// Runs the phases of a command that were selected, one after the other.
///
/// # Errors
/// The first phase's that fails, and a journal that cannot be written.
pub(super) async fn run_phases<C: Command>(
    command: &mut C,
    selected: &[Selected<'static, C::Work>],
) -> Result<(), C::Error> {
    for (index, one) in selected.iter().enumerate() {
        let phase = one.phase.name;
        let before = command.before(&selected[index..]).await?;
        let (log, reporter) = command.log();
        if let Before::Skip { reason } = before {
            reporter.event(Event::PhaseSkipped { phase: phase.into(), reason });
            continue;
        }
        let started = report_start(reporter, phase, one.phase.title);
        log.map_or(Ok(()), |mut log| log.start(phase))?;
        let PhaseEnd::Whole { changed } = command.act(one).await? else { continue };
        let (log, reporter) = command.log();
        log.map_or(Ok(()), |mut log| log.done(phase))?;
        report_end(reporter, phase, started, changed);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::{LazyLock, Mutex};

    use super::*;
    use crate::host::Paths;
    use crate::workflow::phase::{Phase, Phases};
    use crate::workflow::session::Session;
    use crate::workflow::state::journal::Record;

    /// What a phase of the test's command does.
    #[derive(Clone, Copy, PartialEq)]
    enum Does {
        Work,
        Nothing,
        Fails,
        FailsPartly,
        IsSkipped,
    }

    #[derive(Default)]
    struct Events(Mutex<Vec<String>>);

    impl Reporter for Events {
        fn event(&self, event: Event) {
            let text = match event {
                Event::PhaseStarted { phase, title } => format!("{phase}: {title}"),
                Event::PhaseDone { phase, changed, .. } => format!("{phase} done, changed {changed}"),
                Event::PhaseSkipped { phase, reason } => format!("{phase} skipped: {reason}"),
                other => format!("{other:?}"),
            };
            self.0.lock().unwrap().push(text);
        }
    }

    struct Trial {
        session: Session,
        events: Events,
        /// How many phases were to come before each.
        rest: Vec<usize>,
    }

    impl Command for Trial {
        type Work = Does;
        type Error = StateError;

        fn log(&mut self) -> (Option<PhaseLog<'_>>, &dyn Reporter) {
            (Some(self.session.phases()), &self.events)
        }

        async fn before(&mut self, rest: &[Selected<'static, Does>]) -> Result<Before, StateError> {
            self.rest.push(rest.len());
            match rest[0].phase.work {
                Does::IsSkipped => Ok(Before::Skip { reason: "not here".into() }),
                _ => Ok(Before::Run),
            }
        }

        async fn act(&mut self, selected: &Selected<'static, Does>) -> Result<PhaseEnd, StateError> {
            match selected.phase.work {
                Does::Fails => Err(StateError::NoInventory { path: "/x".into() }),
                Does::FailsPartly => Ok(PhaseEnd::Partly),
                work => Ok(PhaseEnd::Whole { changed: work == Does::Work }),
            }
        }
    }

    static PHASES: LazyLock<Phases<Does>> = LazyLock::new(|| {
        let row = |name, work| Phase { name, aliases: &[], title: "its title", children: vec![], work };
        let list = vec![
            row("first", Does::Work),
            row("second", Does::Nothing),
            row("left-out", Does::IsSkipped),
            row("half", Does::FailsPartly),
            row("broken", Does::Fails),
            row("never", Does::Work),
        ];
        Phases { list, not_built: &[] }
    });

    #[tokio::test]
    async fn phases_run_in_order_until_one_fails_and_each_is_reported_and_recorded() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        let mut session = Session::new("trial", "");
        session.state_mut(&paths).unwrap();
        let mut trial = Trial { session, events: Events::default(), rest: Vec::new() };
        let selected = PHASES.select(&[]).unwrap().run;
        assert!(run_phases(&mut trial, &selected).await.is_err());
        assert_eq!(
            *trial.events.0.lock().unwrap(),
            [
                "first: its title",
                "first done, changed true",
                "second: its title",
                "second done, changed false",
                "left-out skipped: not here",
                "half: its title",
                "broken: its title",
            ]
        );
        assert_eq!(trial.rest, [6, 5, 4, 3, 2]);
        let recorded: Vec<String> = trial.session.state().unwrap().journal.records()[1..]
            .iter()
            .map(|record| match record {
                Record::Started { phase } => format!("started {phase}"),
                Record::Done { phase } => format!("done {phase}"),
                other => format!("{other:?}"),
            })
            .collect();
        assert_eq!(
            recorded,
            ["started first", "done first", "started second", "done second", "started half", "started broken"]
        );
    }

    #[tokio::test]
    async fn a_run_that_has_not_begun_records_nothing() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        Session::new("earlier", "").state_mut(&paths).unwrap();
        let mut session = Session::new("trial", "");
        assert!(session.open(&paths).unwrap());
        let mut trial = Trial { session, events: Events::default(), rest: Vec::new() };
        let first = [PHASES.one("first", None).unwrap()];
        run_phases(&mut trial, &first).await.unwrap();
        assert_eq!(trial.session.state().unwrap().journal.records().len(), 1, "the earlier run's");
        trial.session.phases().begin().unwrap();
        run_phases(&mut trial, &first).await.unwrap();
        assert_eq!(trial.session.state().unwrap().journal.records().len(), 4);
    }
}
