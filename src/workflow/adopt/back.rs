//! Giving a node back to its kubelet.

use tokio::time::Instant;

use super::manifests::Found;
use super::processes::Processes;
use super::{AdoptError, HEALTH_LIMIT, LOOK, found, observe, settings};
use crate::workflow::machine::Machine;
use crate::workflow::machine::cluster::Site;
use crate::workflow::reset;

/// What giving back would do.
///
/// # Errors
/// [`AdoptError::NotAdopted`], and another command that runs.
pub fn prepare_back(machine: &Machine) -> Result<Vec<reset::plan::Step>, AdoptError> {
    Ok(plan_back(machine)?.steps().cloned().collect())
}

fn plan_back(machine: &Machine) -> Result<reset::Reset, AdoptError> {
    reset::prepare(machine, &reset::ResetOptions::everything())?
        .filter(reset::Reset::gives_back)
        .ok_or(AdoptError::NotAdopted)
}

/// Gives the node back to the kubelet, and waits until that runs the static pods again and the API server
/// does what an administrator asks.
///
/// # Errors
/// [`AdoptError::NotAdopted`], and what a reset can fail with; it is finished by the next one.
pub async fn give_back(machine: &mut Machine, processes: &dyn Processes) -> Result<(), AdoptError> {
    let planned = plan_back(machine)?;
    let found = found(machine, &observe(machine)?)?;
    reset::run(machine, planned).await?;
    let deadline = Instant::now() + HEALTH_LIMIT;
    loop {
        let is_back =
            |one: &&Found| one.commands().iter().all(|line| !processes.find(std::slice::from_ref(line)).is_empty());
        let missing: Vec<String> = found.iter().filter(|one| !is_back(one)).map(|one| one.name.clone()).collect();
        if missing.is_empty() && serves(machine).await {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(match missing.is_empty() {
                true => AdoptError::NotServing { limit: HEALTH_LIMIT },
                false => AdoptError::NotBack { missing, limit: HEALTH_LIMIT },
            });
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = machine.stop.cancelled() => return Err(AdoptError::Interrupted),
        }
    }
}

/// Whether the API server does what an administrator asks: it answers before it knows who may do what. Where there is no
/// administrator's kubeconfig it cannot be asked.
async fn serves(machine: &Machine) -> bool {
    if !machine.paths.kubeconfig("admin.conf").exists() {
        return true;
    }
    let Ok(spec) = settings::reached(&*machine.tree) else { return true };
    machine.cluster.list_nodes(Site { paths: &machine.paths, spec: &spec }, "").await.is_ok()
}
