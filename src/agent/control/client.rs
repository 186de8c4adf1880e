//! The asking side, for `status`, `init` and `upgrade`.

use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream, Stream};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::{ControlError, Refusal, Request, VERSION};
use crate::agent::expect::HealthSource;
use crate::agent::report::HealthReport;

/// No report is longer; a peer that sends more is not an agent.
const LINE_LIMIT: u64 = 16 << 20;

/// The agent's present report.
///
/// # Errors
/// [`ControlError::NotRunning`] when nobody answers at the socket.
pub async fn report(socket: &Path) -> Result<HealthReport, ControlError> {
    let mut connection = Connection::open(socket, "report").await?;
    let unanswered = io::Error::from(io::ErrorKind::UnexpectedEof);
    connection.next().await?.ok_or(ControlError::NotRunning { socket: socket.to_owned(), source: unanswered })
}

/// The agent's present report at once, then each newer one; a slow reader misses some but always gets the newest. The
/// stream ends when the agent does: connect again, or say that it is gone.
///
/// # Errors
/// [`ControlError::NotRunning`] when nobody answers at the socket.
pub async fn watch(
    socket: &Path,
) -> Result<impl Stream<Item = Result<HealthReport, ControlError>> + Send + Unpin + 'static, ControlError> {
    let connection = Connection::open(socket, "watch").await?;
    Ok(Box::pin(stream::try_unfold(connection, |mut connection| async move {
        Ok(connection.next().await?.map(|report| (report, connection)))
    })))
}

struct Connection {
    socket: PathBuf,
    lines: BufReader<OwnedReadHalf>,
    /// Kept open: the server takes its end for the client's.
    _requests: OwnedWriteHalf,
}

impl Connection {
    async fn open(socket: &Path, request: &str) -> Result<Self, ControlError> {
        let stream = UnixStream::connect(socket).await.map_err(|source| {
            let socket = socket.to_owned();
            match source.kind() {
                io::ErrorKind::PermissionDenied => ControlError::Forbidden { socket, source },
                _ => ControlError::NotRunning { socket, source },
            }
        })?;
        let (read, mut write) = stream.into_split();
        let request = Request { version: VERSION, request: request.to_owned() };
        let line = serde_json::to_string(&request)
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

    async fn next(&mut self) -> Result<Option<HealthReport>, ControlError> {
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
