//! What `join` would do: the cluster is found and read for real, which changes nothing anywhere; the rest is done in
//! memory.

use std::path::PathBuf;

use super::files::{self, Input};
use super::{JoinError, PHASES, PhaseSelection, StepError, kubelet, refuse_control_plane};
use crate::config::spec::JoinSpec;
use crate::event::Reporter;
use crate::host::Paths;
use crate::host::facts::Facts;
use crate::release::kubelet_row;
use crate::workflow::dry_run::DryRun;
use crate::workflow::error::failure;

use crate::workflow::machine::joining::{Found, Joining};

/// Where the packages of a kubelet put it: shown on a machine that has none yet.
const USUAL_KUBELET: &str = "/usr/bin/kubelet";

/// Goes through `what` in memory, above what is on the machine.
///
/// # Errors
/// What would stop `join` too.
pub async fn rehearse(
    spec: &JoinSpec,
    what: &PhaseSelection,
    (paths, facts): (&Paths, &Facts),
    joining: &dyn Joining,
    reporter: &dyn Reporter,
) -> Result<DryRun, JoinError> {
    refuse_control_plane(spec)?;
    let mut run = DryRun::above(paths);
    let mut found = None;
    for one in what.of(&PHASES, &spec.skip_phases, None)? {
        let (phase, work) = (one.phase.name, one.phase.work);
        if let Some(write) = work.files {
            let failed = |source| failure(phase, source);
            let found = match &found {
                Some(found) => found,
                None => found.insert(find(spec, joining, reporter).await.map_err(failed)?),
            };
            let (program, row) = kubelet(facts, &found.version)
                .unwrap_or_else(|_| (PathBuf::from(USUAL_KUBELET), kubelet_row(&found.version)));
            let input = Input { spec, found, program: &program, row, owns: &|_| false };
            run.files(|tree| write(&input, tree).map(drop)).map_err(failed)?;
        }
        (work.would)(spec).into_iter().for_each(|text| run.would(phase, text));
    }
    Ok(run)
}

async fn find(spec: &JoinSpec, joining: &dyn Joining, reporter: &dyn Reporter) -> Result<Found, StepError> {
    let access = joining.discover(spec, reporter).await.map_err(StepError::Discovery)?;
    let limit = spec.timeouts.kubernetes_api_call;
    let facts = joining.read(&access.kubeconfig, limit).await.map_err(StepError::Settings)?;
    Ok(Found {
        bootstrap: Some(access.kubeconfig),
        ca: access.ca,
        version: facts.version,
        kubelet_config: facts.kubelet_config,
    })
}

/// The socket that the kubelet would be given.
pub fn socket(spec: &JoinSpec) -> &str {
    files::socket(spec)
}
