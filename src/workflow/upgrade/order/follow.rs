//! Following an order that somebody else carries out.

use std::time::{Duration, Instant};

use super::record::{Ending, Said, lines};
use super::{Order, OrderError, RECORD};
use crate::agent::control::{self, ControlError};
use crate::event::Reporter;
use crate::host::Paths;
use crate::host::paths::CONTROL_SOCKET;
use crate::host::watched::Files;

/// How long nothing may happen until the agent is asked whether it is there.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why an order is not followed to its end.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// Its files.
    #[error(transparent)]
    Order(#[from] OrderError),
    /// It has ended, and how could not be recorded.
    #[error("the upgrade has ended, and how could not be recorded (is the disk full?): see `kubeboot upgrade status`")]
    Unrecorded,
    /// Another one has taken its place, or it was taken away.
    #[error("the upgrade is no longer on record: the machine was reset, or another upgrade was ordered")]
    Gone,
}

/// Reports what happens to the order `id` until it has ended, what has happened already first.
///
/// # Errors
/// A record that cannot be read or is gone.
pub async fn follow(paths: &Paths, id: &str, reporter: &dyn Reporter) -> Result<Ending, FollowError> {
    let mut files = Files::new(vec![paths.on_host(RECORD)]);
    let (mut reported, mut warned, mut is_quiet) = (0, false, false);
    loop {
        // Before the record: the order goes when the end is there.
        let is_open = Order::read(paths)?.is_some_and(|order| order.id == id);
        let lines = lines(paths)?;
        match lines.first().map(|line| &line.what) {
            Some(Said::Ordered { id: there, .. }) if there == id => {}
            None if is_open => {}
            _ => return Err(FollowError::Gone),
        }
        is_quiet &= lines.len() == reported;
        for line in lines.into_iter().skip(reported) {
            reported += 1;
            match line.what {
                Said::Event(event) => reporter.event(event),
                Said::Ended(ending) => return Ok(ending),
                Said::Ordered { .. } | Said::Begun { .. } => {}
            }
        }
        if !is_open {
            return Err(FollowError::Unrecorded);
        }
        if is_quiet && !warned && is_alone(paths).await {
            reporter.warn("upgrade", "the agent does not answer: the upgrade goes on when it runs again".to_owned());
            warned = true;
        }
        let asked = Instant::now();
        files.changed(PATIENCE).await;
        is_quiet = asked.elapsed() >= PATIENCE;
    }
}

/// Whether no agent answers.
async fn is_alone(paths: &Paths) -> bool {
    let socket = paths.on_host(CONTROL_SOCKET);
    matches!(control::look_for_upgrade(&socket).await, Err(ControlError::NotRunning { .. }))
}
