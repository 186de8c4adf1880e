//! The asking side, for `status`, `init`, `upgrade` and the commands below `agent`.

use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream, Stream};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::{ControlError, PodList, Refusal, Request, VERSION};
use crate::agent::control::expect::HealthSource;
use crate::agent::control::log::LogRequest;
use crate::agent::control::report::HealthReport;
use crate::agent::control::restart::Restarter;
use crate::agent::events::Event;

/// No report is longer; a peer that sends more is not an agent.
const LINE_LIMIT: u64 = 16 << 20;

/// The agent's present report.
///
/// # Errors
/// [`ControlError::NotRunning`] when no agent answers at the socket.
pub async fn report(socket: &Path) -> Result<HealthReport, ControlError> {
    let mut connection = Connection::open(socket, "report").await?;
    connection.next().await?.ok_or_else(|| unanswered(socket))
}

/// The agent's present report at once, then each newer one; a slow reader misses some but always gets the newest. The
/// stream ends when the agent does: connect again, or say that it is gone.
///
/// # Errors
/// [`ControlError::NotRunning`] when no agent answers at the socket.
pub async fn watch(
    socket: &Path,
) -> Result<impl Stream<Item = Result<HealthReport, ControlError>> + Send + Unpin + 'static, ControlError> {
    let connection = Connection::open(socket, "watch").await?;
    Ok(Box::pin(stream::try_unfold(connection, |mut connection| async move {
        Ok(connection.next().await?.map(|report| (report, connection)))
    })))
}

/// Every pod the agent knows.
///
/// # Errors
/// [`ControlError::NotRunning`] when no agent answers at the socket.
pub async fn pods(socket: &Path) -> Result<PodList, ControlError> {
    let mut connection = Connection::open(socket, "pods").await?;
    connection.next().await?.ok_or_else(|| unanswered(socket))
}

/// What happened to pods, oldest first; with `watching` also what happens from now on, until the agent ends.
///
/// # Errors
/// [`ControlError::NotRunning`] when no agent answers at the socket.
pub async fn events(
    socket: &Path,
    watching: bool,
) -> Result<impl Stream<Item = Result<Event, ControlError>> + Send + Unpin + 'static, ControlError> {
    let connection = Connection::open(socket, if watching { "watch-events" } else { "events" }).await?;
    Ok(Box::pin(stream::try_unfold(connection, |mut connection| async move {
        Ok(connection.next().await?.map(|event| (event, connection)))
    })))
}

/// Has the pod of this UID stopped and started again; returns once the agent has taken the request.
///
/// # Errors
/// [`ControlError::Refused`] when there is none, [`ControlError::NotRunning`] when no agent answers at the socket.
pub async fn restart(socket: &Path, uid: &str) -> Result<(), ControlError> {
    let request = Request { version: VERSION, request: "restart".to_owned(), log: None, uid: Some(uid.to_owned()) };
    let started: Option<serde_json::Value> = Connection::ask(socket, &request).await?.next().await?;
    started.map(drop).ok_or_else(|| unanswered(socket))
}

/// Has the agent look whether an upgrade was ordered, and for a renewal of certificates that has begun; returns once it will.
///
/// # Errors
/// [`ControlError::Refused`] when this agent carries none out, as one of an earlier version does not;
/// [`ControlError::NotRunning`] when no agent answers at the socket.
pub async fn look_for_upgrade(socket: &Path) -> Result<(), ControlError> {
    let taken: Option<serde_json::Value> = Connection::open(socket, "upgrade").await?.next().await?;
    taken.map(drop).ok_or_else(|| unanswered(socket))
}

/// A container's log.
///
/// # Errors
/// [`ControlError::Refused`] when there is none, [`ControlError::NotRunning`] when no agent answers at the socket.
pub async fn logs(socket: &Path, wanted: &LogRequest) -> Result<Log, ControlError> {
    let request = Request { version: VERSION, request: "logs".to_owned(), log: Some(wanted.clone()), uid: None };
    let mut connection = Connection::ask(socket, &request).await?;
    let started: Option<serde_json::Value> = connection.next().await?;
    started.map(|_| Log(connection)).ok_or_else(|| unanswered(socket))
}

/// A log on its way.
pub struct Log(Connection);

impl Log {
    /// What comes next, None at the end.
    ///
    /// # Errors
    /// [`ControlError::Broken`] when the connection does.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ControlError> {
        let Connection { socket, lines, .. } = &mut self.0;
        let read = lines.fill_buf().await.map(Bytes::copy_from_slice);
        let bytes = read.map_err(|source| ControlError::Broken { socket: socket.clone(), source })?;
        lines.consume(bytes.len());
        Ok(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }
}

fn unanswered(socket: &Path) -> ControlError {
    ControlError::NotRunning { socket: socket.to_owned(), source: io::ErrorKind::UnexpectedEof.into() }
}

struct Connection {
    socket: PathBuf,
    lines: BufReader<OwnedReadHalf>,
    /// Kept open: the server takes its end for the client's.
    _requests: OwnedWriteHalf,
}

impl Connection {
    async fn open(socket: &Path, request: &str) -> Result<Self, ControlError> {
        Self::ask(socket, &Request { version: VERSION, request: request.to_owned(), log: None, uid: None }).await
    }

    async fn ask(socket: &Path, request: &Request) -> Result<Self, ControlError> {
        let stream = UnixStream::connect(socket).await.map_err(|source| {
            let socket = socket.to_owned();
            match source.kind() {
                io::ErrorKind::PermissionDenied => ControlError::Forbidden { socket, source },
                _ => ControlError::NotRunning { socket, source },
            }
        })?;
        let (read, mut write) = stream.into_split();
        let line = serde_json::to_string(request)
            .map_err(|source| ControlError::Malformed { socket: socket.to_owned(), source })?;
        let sent = write.write_all(format!("{line}\n").as_bytes()).await;
        // A server that is full answers before it has read: what it says counts, not that it did not listen.
        match sent {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(ControlError::Broken { socket: socket.to_owned(), source: error })
            }
            _ => Ok(Self { socket: socket.to_owned(), lines: BufReader::new(read), _requests: write }),
        }
    }

    async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ControlError> {
        let mut line = Vec::new();
        let read = (&mut self.lines).take(LINE_LIMIT).read_until(b'\n', &mut line).await;
        match read {
            // An agent that is killed resets the connection or breaks off in the middle of a line.
            Ok(_) if line.last() != Some(&b'\n') => return Ok(None),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
            Err(source) => return Err(ControlError::Broken { socket: self.socket.clone(), source }),
        }
        if let Ok(Refusal { error: message }) = serde_json::from_slice(&line) {
            return Err(ControlError::Refused { socket: self.socket.clone(), message });
        }
        let parsed = serde_json::from_slice(&line);
        parsed.map(Some).map_err(|source| ControlError::Malformed { socket: self.socket.clone(), source })
    }
}

/// The agent behind a control socket, as what waits for health sees it.
#[derive(Debug, Clone)]
pub struct ControlSocket(pub PathBuf);

#[async_trait]
impl HealthSource for ControlSocket {
    async fn watch(&self) -> Result<BoxStream<'static, HealthReport>, Box<dyn std::error::Error + Send + Sync>> {
        // A line that cannot be read ends the stream, and the caller connects again.
        Ok(watch(&self.0)
            .await?
            .take_while(|report| std::future::ready(report.is_ok()))
            .filter_map(|report| std::future::ready(report.ok()))
            .boxed())
    }
}

#[async_trait]
impl Restarter for ControlSocket {
    async fn restart(&self, uid: &str) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Ok(restart(&self.0, uid).await?)
    }
}
