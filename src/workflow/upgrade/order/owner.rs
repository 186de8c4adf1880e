//! The side of the agent: as long as there is an order, a process that carries it out; and renewals whose command was killed.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::ORDER;
use crate::agent::options::UpgradeSignal;
use crate::host::Paths;
use crate::workflow::renewal;

/// The first pause before a process that has ended too early is started again, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// The words that make this program carry an order out.
pub const WORDS: [&str; 2] = ["upgrade", "carry-out"];

/// Does for the commands on the machine below `paths` what is to be done whatever becomes of them, until `shutdown`: has every
/// order carried out by `program`, and finishes the files of renewals that were killed. `signal` tells of either.
pub async fn own(paths: Paths, program: PathBuf, signal: UpgradeSignal, shutdown: CancellationToken) {
    let renewals = Notify::new();
    let orders = own_orders(&paths, program, (signal, &renewals), &shutdown);
    tokio::join!(orders, own_renewals(&paths, &renewals, &shutdown));
}

async fn own_renewals(paths: &Paths, begun: &Notify, shutdown: &CancellationToken) {
    let finish = async {
        loop {
            begun.notified().await;
            match renewal::recover_when_free(paths.clone()).await {
                Ok(true) => warn!("put the files of a renewal of certificates in place whose command was killed"),
                Ok(false) => {}
                Err(error) => warn!(%error, "cannot finish a renewal of certificates whose command was killed"),
            }
        }
    };
    shutdown.run_until_cancelled(finish).await;
}

/// Has every order on the machine below `paths` carried out by `program`, until `shutdown`: a process that is at work then
/// goes on, and the next agent waits for its end.
///
/// It is a process of its own so that nothing that goes wrong in it harms the agent, and none of its memory stays.
async fn own_orders(
    paths: &Paths,
    program: PathBuf,
    (signal, renewals): (UpgradeSignal, &Notify),
    shutdown: &CancellationToken,
) {
    let mut pause = PAUSES.0;
    loop {
        if paths.on_host(ORDER).exists() {
            let started = tokio::time::Instant::now();
            info!("carrying an upgrade out");
            let mut command = Command::new(&program);
            let ended = match command.args(WORDS).stdin(Stdio::null()).spawn() {
                Ok(mut child) => tokio::select! {
                    status = child.wait() => status,
                    () = shutdown.cancelled() => return,
                },
                Err(error) => Err(error),
            };
            if paths.on_host(ORDER).exists() {
                // One that has come far is no sign of a fault that would only come again.
                pause = if started.elapsed() > PAUSES.1 { PAUSES.0 } else { (pause * 2).min(PAUSES.1) };
                match ended {
                    Ok(status) => warn!(%status, ?pause, "what carries the upgrade out has ended too early"),
                    Err(error) => warn!(%error, ?pause, "cannot carry the upgrade out"),
                }
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = shutdown.cancelled() => return,
                }
                continue;
            }
        }
        pause = PAUSES.0;
        tokio::select! {
            () = signal.woken() => renewals.notify_one(),
            () = shutdown.cancelled() => return,
        }
    }
}
