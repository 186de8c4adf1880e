//! `init` on a machine where an earlier run has been: what stands in its way, and whether there is anything to do.

use super::table::Work;
use super::{Init, InitError, StepError};
use crate::config::differences;
use crate::error::chain;
use crate::host::fs::FsError;
use crate::host::tree::Tree;
use crate::pki::PkiError;
use crate::workflow::error::failure;
use crate::workflow::phase::Selected;
use crate::workflow::stage;
use crate::workflow::state::saved::Saved;
use crate::workflow::upgrade::UpgradeError;
use crate::workflow::upgrade::journal::{Journal as Upgrade, State as UpgradeState};

impl Init<'_> {
    /// Manifests that an upgrade has taken away must not come back before it is finished: etcd's data may be half restored.
    pub(super) fn refuse_half_an_upgrade(&self) -> Result<(), InitError> {
        match Upgrade::read(&*self.machine.tree)? {
            Some(Upgrade { state: UpgradeState::Applying, target, command, .. }) => {
                Err(UpgradeError::Interrupted { target, command }.into())
            }
            _ => Ok(()),
        }
    }

    /// Says so where the record of the configuration is damaged, or a newer program's; returns whether it is.
    pub(super) fn look_at_record(&self) -> bool {
        let read = Saved::read(&*self.machine.tree).and_then(|saved| saved.map(|saved| saved.spec()).transpose());
        let Err(error) = read else { return false };
        let then = match self.saved {
            Some(_) => "it is written again from the configuration of this run",
            None => "`kubeboot init` with this machine's configuration writes it again",
        };
        self.machine.reporter.warn("init", format!("{}; {then}", chain(&error)));
        true
    }

    /// Whether there is nothing to do: initialised before, with these very files, and healthy.
    pub(super) async fn is_initialised(&mut self, selected: &[Selected<'static, Work>]) -> Result<bool, InitError> {
        self.initialised = self.session.state().is_some_and(|state| state.journal.has_finished("init"));
        if !self.initialised {
            return Ok(false);
        }
        // None where it is not known what the machine was made with.
        let settings = self.other_settings();
        let said = || settings.clone().unwrap_or_default();
        let is_other = settings.as_ref().is_none_or(|settings| !settings.is_empty());
        self.stage(selected).map_err(|error| match error {
            InitError::Failed { phase, source }
                if is_other && matches!(*source, StepError::Pki(PkiError::Refused { .. })) =>
            {
                InitError::Unlike { phase, settings: said(), source }
            }
            other => other,
        })?;
        let tree = &*self.machine.tree;
        let mut differ = Vec::new();
        for (phase, staged) in &mut self.staged {
            let failed = |source: FsError| failure(phase, source.into());
            let changed = stage::changed_paths(&staged.files, tree).map_err(failed)?;
            if !is_other {
                for path in &changed {
                    staged.files.remove(path).map_err(failed)?;
                    let text = format!(
                        "{} is not as this machine's configuration makes it, and stays as it is; `kubeboot init phase \
                         {phase}` writes it again",
                        path.display()
                    );
                    self.machine.reporter.warn("init", text);
                }
            }
            differ.extend(changed);
        }
        if is_other && !differ.is_empty() {
            return Err(InitError::Differs { settings: said(), paths: differ });
        }
        let tree = &*self.machine.tree;
        let complete = self.staged.values().all(|staged| stage::new_paths(&staged.files, tree).is_empty());
        Ok(complete && (!self.machine.live || self.is_healthy().await))
    }

    /// In what this run's configuration differs from the one that the machine was made with; None where that is not known.
    fn other_settings(&self) -> Option<Vec<String>> {
        let saved = Saved::read(&*self.machine.tree).ok().flatten()?;
        Some(differences(&saved.spec().ok()?.0, self.spec))
    }
}

#[cfg(test)]
mod tests;
