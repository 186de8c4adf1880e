//! The service manager's watchdog: it hears from the agent as long as the supervisor's loop turns and the control socket
//! answers, and starts another agent where it does not. Containers go on meanwhile.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, timeout};
use tracing::{debug, warn};

use super::control;
use super::counters::Metrics;
use super::options::AgentOptions;

/// Tells the service manager as often as it asks for that the agent is alive, until the agent ends.
pub async fn keep(options: Arc<AgentOptions>, metrics: Arc<Metrics>) {
    let Some(every) = options.watchdog else { return };
    let ping = || sd_notify::notify(&[NotifyState::Watchdog]);
    keep_with(&options.control_socket, &metrics, every, ping).await;
}

async fn keep_with<P>(socket: &Path, metrics: &Metrics, every: Duration, ping: P)
where
    P: Fn() -> io::Result<()> + Clone + Send + 'static,
{
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match alive(socket, metrics, every).await {
            // The service manager may not take it at once.
            Ok(()) => match tokio::task::spawn_blocking(ping.clone()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => debug!(%error, "cannot talk to the service manager"),
                Err(error) => debug!(%error, "cannot talk to the service manager"),
            },
            Err(why) => warn!("{why}: the service manager is not told that the agent is alive"),
        }
    }
}

/// Whether the loop has turned since the last time, and the agent answers itself.
async fn alive(socket: &Path, metrics: &Metrics, every: Duration) -> Result<(), String> {
    let since = metrics.since_turn();
    if since > every {
        return Err(format!("the agent's loop has not turned for {} s", since.as_secs()));
    }
    match timeout(every, control::report(socket)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(format!("the agent does not answer itself ({error})")),
        Err(_) => Err(format!("the agent takes longer than {every:?} to answer itself")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::agent::context::Context;
    use crate::agent::probe::Prober;
    use crate::runtime::ContainerRuntime;
    use crate::testing::runtime::FakeRuntime;

    #[tokio::test(start_paused = true)]
    async fn the_service_manager_hears_of_an_agent_whose_loop_turns_and_that_answers_itself() {
        let dir = tempfile::tempdir().unwrap();
        let mut options = AgentOptions::new("n");
        options.root_dir = dir.path().join("root");
        options.control_socket = dir.path().join("agent.sock");
        let runtime = Arc::new(FakeRuntime::new()) as Arc<dyn ContainerRuntime>;
        let end = CancellationToken::new();
        let context = Context::new(options, Arc::clone(&runtime), Arc::new(Prober::new(runtime)), end.clone());
        let (every, pings) = (Duration::from_secs(10), Arc::new(AtomicUsize::new(0)));
        let (watched, counted) = (Arc::clone(&context), Arc::clone(&pings));
        let ping = move || {
            counted.fetch_add(1, Ordering::SeqCst);
            Ok(())
        };
        tokio::spawn(async move { keep_with(&watched.options.control_socket, &watched.metrics, every, ping).await });
        let heard = async |seconds: u64, turns: bool| {
            let before = pings.load(Ordering::SeqCst);
            for _ in 0..seconds {
                if turns {
                    context.metrics.turn();
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            pings.load(Ordering::SeqCst) - before
        };
        assert_eq!(heard(30, true).await, 0, "no control socket answers");
        let socket = control::bind(&context.options.control_socket).await.unwrap();
        tokio::spawn(control::serve(socket, context.board.reports(), context.clone(), end));
        let pinged = heard(50, true).await;
        assert!((4..=6).contains(&pinged), "{pinged}");
        heard(11, false).await;
        assert_eq!(heard(60, false).await, 0, "the loop stands still");
        assert!(heard(25, true).await >= 1);
    }
}
