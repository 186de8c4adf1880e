//! The answering side, in the agent. Clients are strangers: few at a time, short requests, and none can hold the agent
//! up.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::{AgentView, ControlError, Refusal, Request, VERSION};
use crate::agent::control::log::LogRequest;
use crate::agent::control::report::HealthReport;
use crate::agent::events::Recorder;
use crate::error::chain;
use crate::host::socket::{self, Listener};

/// Clients at a time.
const CLIENTS: usize = 32;
/// The longest request.
const REQUEST_LIMIT: u64 = 4096;
/// How long a client may take to ask, and to take one report.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it may read nothing of a log.
const PAGER_PATIENCE: Duration = Duration::from_secs(3600);
/// What can be asked.
const KNOWN: &str = "report, watch, pods, events, watch-events, restart, upgrade and logs";

/// Listens at `path` with mode 0600, making its directory. The file of an agent that is gone is replaced.
///
/// # Errors
/// [`ControlError::InUse`] when an agent answers there, [`ControlError::Listen`] when the socket cannot be made or
/// something else than a socket is in its place.
pub async fn bind(path: &Path) -> Result<Listener, ControlError> {
    socket::bind(path, 0o755).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ControlError::InUse { socket: path.to_owned() },
        _ => ControlError::Listen { socket: path.to_owned(), source },
    })
}

/// Answers clients until `shutdown`, then ends their streams and removes the socket file.
pub async fn serve(
    listener: Listener,
    reports: watch::Receiver<Arc<HealthReport>>,
    view: Arc<dyn AgentView>,
    shutdown: CancellationToken,
) {
    let (clients, slots) = (TaskTracker::new(), Arc::new(Semaphore::new(CLIENTS)));
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                // Out of file descriptors, as a rule; accept would fail again at once.
                debug!(%error, "cannot accept a control client");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let slot = Arc::clone(&slots).try_acquire_owned().ok();
        let (reports, view, shutdown) = (reports.clone(), Arc::clone(&view), shutdown.clone());
        clients.spawn(async move {
            let talk = async {
                match slot {
                    Some(_slot) => answer(stream, reports, &*view).await,
                    None => refuse(stream, format!("{CLIENTS} clients are connected already")).await,
                }
            };
            if let Some(Err(error)) = shutdown.run_until_cancelled(talk).await {
                debug!(%error, "control client left");
            }
        });
    }
    clients.close();
    clients.wait().await;
}

async fn answer(
    mut stream: UnixStream,
    reports: watch::Receiver<Arc<HealthReport>>,
    view: &dyn AgentView,
) -> io::Result<()> {
    let (read, mut write) = stream.split();
    let mut lines = BufReader::new(read);
    let mut line = Vec::new();
    within((&mut lines).take(REQUEST_LIMIT).read_until(b'\n', &mut line)).await?;
    let request = match serde_json::from_slice::<Request>(&line) {
        Err(error) => return refuse(stream, format!("cannot read the request: {error}")).await,
        Ok(request) if request.version != VERSION => {
            let why = format!("this agent speaks version {VERSION} of the protocol, not {}", request.version);
            return refuse(stream, why).await;
        }
        Ok(request) => request,
    };
    // Nothing more is to come from the client but its end.
    let gone = async {
        while lines.read_u8().await.is_ok() {}
        Ok(())
    };
    let answering = async {
        let uid = request.uid.as_deref().unwrap_or_default();
        match (request.request.as_str(), &request.log) {
            ("restart", _) if view.restart(uid) => send(&mut write, &serde_json::json!({})).await,
            ("restart", _) => send(&mut write, &Refusal { error: format!("no pod has the UID {uid:?}") }).await,
            ("upgrade", _) if view.look_for_upgrade() => send(&mut write, &serde_json::json!({})).await,
            ("upgrade", _) => {
                send(&mut write, &Refusal { error: "this agent carries no upgrades out".to_owned() }).await
            }
            ("report", _) => send_reports(&mut write, reports, false).await,
            ("watch", _) => send_reports(&mut write, reports, true).await,
            ("pods", _) => send(&mut write, &view.pods()).await,
            ("events", _) => send_events(&mut write, view.events(), false).await,
            ("watch-events", _) => send_events(&mut write, view.events(), true).await,
            ("logs", Some(wanted)) => send_log(&mut write, wanted, view).await,
            ("logs", None) => {
                send(&mut write, &Refusal { error: "the request does not say whose log".to_owned() }).await
            }
            (other, _) => {
                let error = format!("unknown request {other:?}; known are {KNOWN}");
                send(&mut write, &Refusal { error }).await
            }
        }
    };
    let lasting = matches!(request.request.as_str(), "watch" | "watch-events" | "logs");
    tokio::select! {
        biased;
        answered = answering => answered,
        left = gone, if lasting => left,
    }
}

async fn send_reports(
    write: &mut (impl AsyncWriteExt + Unpin),
    mut reports: watch::Receiver<Arc<HealthReport>>,
    watching: bool,
) -> io::Result<()> {
    loop {
        let report = Arc::clone(&reports.borrow_and_update());
        send(write, &*report).await?;
        if !watching || reports.changed().await.is_err() {
            return Ok(());
        }
    }
}

async fn send_events(write: &mut (impl AsyncWriteExt + Unpin), recorder: &Recorder, watching: bool) -> io::Result<()> {
    let (mut latest, mut reported) = (recorder.latest(), 0);
    loop {
        latest.borrow_and_update();
        for event in recorder.since(reported) {
            reported = event.sequence;
            send(write, &event).await?;
        }
        if !watching || latest.changed().await.is_err() {
            return Ok(());
        }
    }
}

async fn send_log(
    write: &mut (impl AsyncWriteExt + Unpin),
    wanted: &LogRequest,
    view: &dyn AgentView,
) -> io::Result<()> {
    let mut log = match view.logs(wanted).await {
        Ok(log) => log,
        Err(error) => return send(write, &Refusal { error: chain(&error) }).await,
    };
    send(write, &serde_json::json!({})).await?;
    while let Some(bytes) = log.next().await {
        let bytes = bytes.map_err(io::Error::other)?;
        // Somebody may well read it page by page.
        let written = tokio::time::timeout(PAGER_PATIENCE, write.write_all(&bytes)).await;
        written.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
    }
    Ok(())
}

async fn refuse(mut stream: UnixStream, error: String) -> io::Result<()> {
    send(&mut stream, &Refusal { error }).await
}

async fn send(write: &mut (impl AsyncWriteExt + Unpin), value: &impl serde::Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    within(write.write_all(&line)).await
}

async fn within<T>(io: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(PATIENCE, io).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
