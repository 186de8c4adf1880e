//! The client's side of a stream: its connection, and when the session ends whatever else holds it: once the client is
//! gone, or once nothing has gone to and fro for too long.
//!
//! A session whose input is taken by no process does not read from its client any more, and so would not see it leave.

use bytes::{Buf, Bytes};
use hyper_util::rt::TokioIo;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tracing::debug;

use crate::agent::server::http::Patient;
use crate::host::clock::{self, Instant};

/// How long a session whose client has left may still take in what the client had sent.
const LEAVE: Duration = Duration::from_secs(5);

/// A client's connection, turned over.
pub type Client = Watched<Patient<TlsStream<TcpStream>>>;

/// The connection of a client whose request was an upgrade, and what to watch of it.
///
/// # Errors
/// It is none of this server's, or the system gives no descriptor.
pub fn of(upgraded: hyper::upgrade::Upgraded) -> io::Result<(Client, Watch)> {
    let parts = upgraded.downcast::<TokioIo<Patient<TlsStream<TcpStream>>>>();
    let parts = parts.map_err(|_| io::Error::other("not a connection of this server"))?;
    let io = parts.io.into_inner();
    let socket = io.get_ref().get_ref().0.as_fd().try_clone_to_owned()?;
    watched(io, parts.read_buf, socket)
}

/// A connection with what was read of it already, and what to watch of it: `socket` is another descriptor of its.
fn watched<I>(io: I, read: Bytes, socket: OwnedFd) -> io::Result<(Watched<I>, Watch)> {
    let activity = Arc::new(Activity { started: Instant::now(), latest: AtomicU64::new(0) });
    let socket = TcpStream::from_std(socket.into())?;
    Ok((Watched { io, read, activity: Arc::clone(&activity) }, Watch { socket, activity }))
}

/// Runs a session until it ends, or its client has left and no more is taken of what it had sent, or nothing has gone to
/// and fro for `limit`.
pub async fn while_there(watch: &Watch, limit: Duration, session: impl Future<Output = ()>) {
    let left = async {
        watch.left().await;
        watch.activity.quiet_for(LEAVE).await;
    };
    tokio::select! {
        () = session => {}
        () = left => debug!("a client left, and nothing takes what it had sent"),
        () = watch.activity.quiet_for(limit) => debug!("nothing has gone to and fro on a stream for too long"),
    }
}

/// What says when a session is to end.
pub struct Watch {
    socket: TcpStream,
    activity: Arc<Activity>,
}

impl Watch {
    /// Returns when the client has closed its side or is gone, whatever of it is still to be read.
    async fn left(&self) {
        loop {
            // It cannot be watched any more; the session's own reads and writes fail then.
            let Ok(ready) = self.socket.ready(Interest::READABLE).await else { return std::future::pending().await };
            if ready.is_read_closed() || ready.is_write_closed() || ready.is_error() {
                return;
            }
            // There is something to read, which is the session's matter: the next event is waited for.
            let _ = self.socket.try_io(Interest::READABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
        }
    }
}

/// When something went to or fro.
struct Activity {
    started: Instant,
    /// Milliseconds after the beginning.
    latest: AtomicU64,
}

impl Activity {
    fn note(&self) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.latest.store(now, Ordering::Relaxed);
    }

    /// Returns when nothing has gone to or fro for `limit`.
    async fn quiet_for(&self, limit: Duration) {
        loop {
            let latest = Duration::from_millis(self.latest.load(Ordering::Relaxed));
            let until = self.started + latest.saturating_add(limit);
            if until <= Instant::now() {
                return;
            }
            clock::sleep_until(until).await;
        }
    }
}

/// A connection that notes when something goes to or fro.
pub struct Watched<I> {
    io: I,
    /// What was read of it before it was turned over.
    read: Bytes,
    activity: Arc<Activity>,
}

impl<I> Watched<I> {
    fn note<T>(&self, progress: Poll<T>) -> Poll<T> {
        if progress.is_ready() {
            self.activity.note();
        }
        progress
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Watched<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.read.is_empty() {
            let length = self.read.len().min(buf.remaining());
            buf.put_slice(&self.read[..length]);
            self.read.advance(length);
            return Poll::Ready(Ok(()));
        }
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        self.note(read)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Watched<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        self.note(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
