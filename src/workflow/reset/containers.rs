//! Containers and sandboxes that a reset stops and removes.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::join_all;

use super::{StepError, remove};
use crate::agent;
use crate::host::Paths;
use crate::host::paths::KUBELET_DIR;
use crate::manifests::ETCD;
use crate::runtime::cri::Sandboxes;
use crate::runtime::{ContainerRecord, ContainerRuntime, RuntimeError};

/// How long a container may take to stop. Its data go too, so it has nothing to save.
const GRACE: Duration = Duration::from_secs(5);
/// The same where their data stay: the default of a pod.
const GENTLE_GRACE: Duration = Duration::from_secs(30);
/// How often what is to go is listed again: an agent that is dying may just have made one more, and a runtime refuses calls
/// while it undoes one that was cut off.
const ROUNDS: u32 = 6;
/// The pause after a round in which a call was refused: no event tells when a runtime has tidied up. It doubles.
const PAUSE: Duration = Duration::from_millis(250);

/// The pods that have containers, and those that had some when a reset before this one was cut off.
async fn pod_uids(
    runtime: &dyn ContainerRuntime,
    owner: &str,
    paths: &Paths,
) -> Result<BTreeSet<String>, RuntimeError> {
    let containers = runtime.list(owner).await?.into_iter().map(|container| container.name.uid);
    Ok(containers.chain(agent::claimed_pods(&paths.on_host(KUBELET_DIR))).collect())
}

/// Stops and removes the owner's containers, and the cgroups of their pods.
pub(super) async fn remove_pods(
    runtime: &dyn ContainerRuntime,
    owner: &str,
    gently: bool,
    paths: &Paths,
) -> Result<bool, StepError> {
    let pods = pod_uids(runtime, owner, paths).await?;
    let grace = if gently { GENTLE_GRACE } else { GRACE };
    // etcd last: an API server that ends without it takes all the time it is given.
    let removed = match remove_containers(runtime, owner, grace, |name| name != ETCD).await {
        Ok(any) => remove_containers(runtime, owner, grace, |_| true).await.map(|more| any || more),
        error => error,
    };
    agent::remove_cgroups(runtime.cgroup_driver().await?, &pods);
    if removed.is_ok() {
        remove::pod_logs(paths, &pods)?;
    }
    removed
}

/// Stops and removes those containers of the owner whose names are wanted, until none is left.
async fn remove_containers(
    runtime: &dyn ContainerRuntime,
    owner: &str,
    grace: Duration,
    which: fn(&str) -> bool,
) -> Result<bool, StepError> {
    let mut any = false;
    let mut left = 0;
    let mut last = None;
    for round in 0..ROUNDS {
        let mut containers = runtime.list(owner).await?;
        if runtime.needs_sandbox() {
            // What is in a sandbox is killed with it: each goes when it is empty.
            let inside = |one: &&ContainerRecord| !one.is_sandbox;
            let full: BTreeSet<String> = containers.iter().filter(inside).map(|one| one.name.uid.clone()).collect();
            containers.retain(|one| !one.is_sandbox || !full.contains(&one.name.uid));
        }
        containers.retain(|container| which(&container.name.container));
        left = containers.len();
        if left == 0 {
            return Ok(any);
        }
        any = true;
        let gone = containers.iter().map(|container| async {
            if container.state.is_running() {
                runtime.stop(&container.id, grace).await?;
            }
            runtime.remove(&container.id).await
        });
        last = refused(round, join_all(gone).await).await;
    }
    Err(last.map_or(StepError::StillThere { count: left }, StepError::Runtime))
}

/// The first call of a round that was refused, after a pause in which the runtime may come to itself.
async fn refused(round: u32, results: Vec<Result<(), RuntimeError>>) -> Option<RuntimeError> {
    let is_failure = |error: &RuntimeError| !matches!(error, RuntimeError::NotFound { .. });
    let error = results.into_iter().filter_map(Result::err).find(is_failure)?;
    if round + 1 < ROUNDS {
        tokio::time::sleep(PAUSE * 2_u32.pow(round)).await;
    }
    Some(error)
}

/// Stops and removes all sandboxes but those in `before`, until none is left; one that fails is tried again, as kubeadm
/// does.
pub(super) async fn remove_sandboxes(runtime: &dyn Sandboxes, before: &[String]) -> Result<bool, StepError> {
    let mut any = false;
    let mut last = None;
    for round in 0..ROUNDS {
        let sandboxes = runtime.list().await?.into_iter().filter(|sandbox| !before.contains(&sandbox.id));
        let gone = join_all(sandboxes.map(|sandbox| async move { runtime.remove(&sandbox.id).await })).await;
        if gone.is_empty() {
            return Ok(any);
        }
        any = true;
        last = refused(round, gone).await;
    }
    let count = runtime.list().await?.iter().filter(|sandbox| !before.contains(&sandbox.id)).count();
    match last {
        _ if count == 0 => Ok(any),
        Some(error) => Err(error.into()),
        None => Err(StepError::StillThere { count }),
    }
}
