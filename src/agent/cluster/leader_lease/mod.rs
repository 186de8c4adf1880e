//! Leader leases of components that have ended on this machine are given free, so that the next leader does not wait until they
//! run out, which takes 15 s by default and in which no controller works.
//!
//! Workers report on [`Runs`] which container has ended, and hold back the next start of its pod for a moment: a candidate
//! asks for the lease when it starts and then only every 2 s and more (client-go's `RetryPeriod`), so that a lease has to be
//! free before that. It is the component's own kubeconfig that the lease is written with: a node's credentials may write
//! no lease outside of `kube-node-lease` (the API server's NodeRestriction). A lease is written as it was read: one that was
//! acquired meanwhile refuses that, and is read again.

mod decide;
mod lease;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tracing::{debug, info, warn};

use crate::agent::backoff::Steps;
use crate::agent::board::{Board, Gates};
use crate::agent::crash;
use crate::agent::events::{Recorder, Subject};
use crate::agent::runs::{Run, Runs};
use crate::agent::wording;
use crate::error::chain;
use crate::host::clock::Instant;
use lease::Outcome;

/// How long to wait for an API server that is away.
const RETRY: Steps = Steps { initial: Duration::from_millis(250), cap: Duration::from_secs(2) };
/// By then an API server that was restarted together with what has ended has answered or will not.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(60);
/// The component whose health says that it is worth trying again.
const API_SERVER: &str = "kube-apiserver";

/// What it takes. Cheap to clone.
#[derive(Clone)]
pub struct Parts {
    /// What has ended.
    pub runs: Arc<Runs>,
    /// Whether an API server of this machine is healthy.
    pub board: Arc<Board>,
    /// Where it is told.
    pub events: Arc<Recorder>,
}

/// Gives leases free until the agent ends.
pub async fn run(parts: Parts) {
    let (mut last, mut under_way) = (None, FuturesUnordered::new());
    loop {
        for (number, run) in parts.runs.open() {
            if Some(number) > last {
                last = Some(number);
                let parts = &parts;
                under_way.push(async move {
                    if let Err(crash) = crash::caught(settle(parts, number, &run)).await {
                        warn!(pod = %run.pod, error = %crash, "the leader lease of a container that has ended is left");
                    }
                    parts.runs.done(number);
                });
            }
        }
        tokio::select! {
            () = parts.runs.later_than(last) => {}
            Some(()) = under_way.next() => {}
        }
    }
}

/// Gives the lease of one run free. Its pod's next start waits for the first try alone.
async fn settle(parts: &Parts, number: u64, run: &Run) {
    let (begun, mut failures) = (Instant::now(), 0_u32);
    let (pod, lease) = (&run.pod, format!("{}/{}", run.election.namespace, run.election.lease));
    loop {
        match lease::release(run).await {
            Ok(Outcome::Released(holder)) => {
                info!(%pod, lease, holder, "released the leader lease of a container that has ended");
                let subject = Subject { pod, uid: &run.uid, container: Some(&run.container) };
                parts.events.normal(subject, "LeaderElection", wording::RELEASED.with(&[&lease]));
                return;
            }
            Ok(Outcome::Absent) => return debug!(%pod, lease, "there is no such lease"),
            Ok(Outcome::Left(why)) => return debug!(%pod, lease, %why, "the lease is left as it is"),
            Err(error) => {
                parts.runs.let_go(number);
                failures = failures.saturating_add(1);
                let error = chain(&error);
                if begun.elapsed() > GIVEN_UP_AFTER {
                    return warn!(%pod, lease, error, "cannot release the lease of a container that has ended: it runs out");
                }
                debug!(%pod, lease, error, failures, "cannot release the lease yet");
            }
        }
        pause(&parts.board, failures).await;
    }
}

/// Waits before the next try: until the API server of this machine becomes healthy, or else a while.
async fn pause(board: &Board, failures: u32) {
    let mut gates = board.gates();
    let is_healthy = |gates: &Gates| gates.get(API_SERVER).is_some_and(|gate| gate.healthy);
    let was_healthy = is_healthy(&gates.borrow());
    tokio::select! {
        () = tokio::time::sleep(RETRY.after(failures)) => {}
        Ok(_) = gates.wait_for(is_healthy), if !was_healthy => {}
    }
}
