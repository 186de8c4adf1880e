//! The agent's link to the runtime: it listens to events, lists everything now and then in case one was missed, and
//! comes back when the runtime does.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::agent::backoff::Steps;
use crate::agent::context::Context;
use crate::agent::control::report::Problem;
use crate::error::chain;
use crate::host::clock::Instant;
use crate::runtime::{CgroupDriver, ContainerRecord, RuntimeError, RuntimeEvent};

/// How often everything is listed although events come.
const RELIST: Duration = Duration::from_secs(10);
/// How long to wait for a runtime that is away.
const RECONNECT: Steps = Steps { initial: Duration::from_millis(100), cap: Duration::from_secs(2) };

/// What the link has to say.
#[derive(Debug)]
pub enum News {
    /// Everything there is, a moment ago.
    Listed(Vec<ContainerRecord>),
    /// Something happened.
    Event(RuntimeEvent),
}

/// Keeps the link until the agent ends.
pub async fn run(context: Arc<Context>, news: mpsc::Sender<News>) {
    let mut failures = 0_u32;
    loop {
        let Err(error) = session(&context, &news, &mut failures).await else { return };
        if failures == 0 {
            warn!(error = chain(&error), "the container runtime is away");
        }
        failures = failures.saturating_add(1);
        let message = format!("{}; containers go on without the agent, which tries again", chain(&error));
        context.board.set_runtime(None);
        context.board.set_problems("runtime", vec![Problem::error("runtime", message)]);
        tokio::time::sleep(RECONNECT.after(failures)).await;
    }
}

/// One connection, from the first answer to the first failure. Ends well only when the receiver of news is gone.
async fn session(context: &Context, news: &mpsc::Sender<News>, failures: &mut u32) -> Result<(), RuntimeError> {
    let owner = context.options.owner();
    // First the events, then the list: what happens in between is an event.
    let mut events = context.runtime.events(&owner).await?;
    let (records, version, driver) =
        tokio::try_join!(list(context, &owner), context.runtime.version(), cgroup_driver(context))?;
    context.cgroups.set_driver(driver);
    info!(
        runtime = version.name,
        version = version.version,
        containers = records.len(),
        "linked to the container runtime"
    );
    *failures = 0;
    context.board.set_runtime(Some(format!("{} {}", version.name, version.version)));
    context.board.set_problems("runtime", vec![]);
    if news.send(News::Listed(records)).await.is_err() {
        return Ok(());
    }
    let mut relist = crate::host::clock::interval_at(Instant::now() + RELIST, RELIST);
    relist.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let next = tokio::select! {
            event = events.next() => match event {
                Some(event) => News::Event(event?),
                None => return Err(ended(&owner)),
            },
            _ = relist.tick() => News::Listed(list(context, &owner).await?),
            () = context.relink.notified() => News::Listed(list(context, &owner).await?),
        };
        if news.send(next).await.is_err() {
            return Ok(());
        }
    }
}

/// Everything that the runtime has, and how long that took.
async fn list(context: &Context, owner: &str) -> Result<Vec<ContainerRecord>, RuntimeError> {
    let started = Instant::now();
    let listed = context.runtime.list(owner).await;
    context.metrics.relisted(started);
    listed
}

/// A runtime that will not say has its own way with cgroups; one that is away is away.
async fn cgroup_driver(context: &Context) -> Result<Option<CgroupDriver>, RuntimeError> {
    match context.runtime.cgroup_driver().await {
        Err(error @ (RuntimeError::Refused { .. } | RuntimeError::NotFound { .. } | RuntimeError::Conflict { .. })) => {
            warn!(error = chain(&error), "pods have no cgroups of their own");
            Ok(None)
        }
        other => other,
    }
}

/// An event stream ends when the daemon does.
fn ended(owner: &str) -> RuntimeError {
    RuntimeError::Refused {
        call: format!("watch the containers of {owner}"),
        message: "the stream of events ended".into(),
    }
}
