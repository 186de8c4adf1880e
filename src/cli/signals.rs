//! Ctrl-C and SIGTERM: the command stops at the next safe point. A second Ctrl-C ends it as it would any program.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Cancels `stop` at the first SIGINT or SIGTERM. Must be called on a tokio runtime.
pub fn stop_on_signals(stop: &CancellationToken) {
    let stop = stop.clone();
    // Both streams are made here, not in the task, so that no signal falls between.
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return;
    };
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        stop.cancel();
    });
}
