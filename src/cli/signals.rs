//! Ctrl-C and SIGTERM: the command stops at the next safe point. A second one kills it: whatever it does then is
//! finished, or taken back, by the next run.

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
        for action in [|stop: &CancellationToken| stop.cancel(), |_: &CancellationToken| kill_self()] {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            action(&stop);
        }
    });
}

fn kill_self() {
    // It cannot fail: every process may signal itself.
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
}
