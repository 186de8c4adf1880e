//! Connections on which nothing goes to and fro are closed.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::host::clock::{self, Instant};

/// A connection whose reads fail once nothing has been read or written for a time.
pub struct Idle<I> {
    io: I,
    limit: Duration,
    sleep: Pin<Box<Sleep>>,
    /// When something went to or fro.
    last: Instant,
}

impl<I> Idle<I> {
    /// Watches `io`.
    pub fn new(io: I, limit: Duration) -> Self {
        Self { io, limit, sleep: Box::pin(tokio::time::sleep(limit)), last: Instant::now() }
    }

    /// Whether nothing has happened for too long; wakes the task then.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sleep.as_mut().poll(cx).is_ready() {
            let until = self.last + self.limit;
            if until <= Instant::now() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            clock::reset(self.sleep.as_mut(), until);
        }
        Poll::Pending
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Idle<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.io).poll_read(cx, buf) {
            Poll::Pending => self.poll_idle(cx),
            ready => {
                self.last = Instant::now();
                ready
            }
        }
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Idle<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        if written.is_ready() {
            self.last = Instant::now();
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_lives_as_long_as_something_goes_either_way() {
        let (io, mut peer) = tokio::io::duplex(64);
        let begun = Instant::now();
        let (mut reading, mut writing) = tokio::io::split(Idle::new(io, Duration::from_secs(60)));
        let busy = tokio::spawn(async move {
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_secs(40)).await;
                writing.write_all(b"x").await.unwrap();
            }
            writing
        });
        let error = reading.read(&mut [0; 8]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(begun.elapsed().as_secs(), 3 * 40 + 60);
        drop(busy.await.unwrap());
        peer.read_exact(&mut [0; 3]).await.unwrap();
    }
}
