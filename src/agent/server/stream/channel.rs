//! What goes out to a client: bytes on numbered channels, which a connection's own task writes as its protocol has it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc};

/// Bytes in one piece. Whatever is larger is sent in several.
const PIECE: usize = 32 << 10;
/// Pieces on their way to the connection's task, of all channels together.
pub const QUEUE: usize = 16;
/// The most bytes a window may ever allow.
const WIDEST: usize = 0x7fff_ffff;

/// What a connection's task is to write.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Bytes of a channel.
    Data(u32, Bytes),
    /// A channel says nothing more.
    Finish(u32),
    /// SPDY: a channel of this type is asked for.
    Open(u32, &'static str),
    /// SPDY: a channel is taken.
    Accept(u32),
    /// SPDY: a channel is broken off, for this reason.
    Reset(u32, u32),
    /// SPDY: an answer to a ping.
    Pong(u32),
    /// SPDY: bytes of a channel (0: of all together) were taken.
    Took(u32, u32),
}

/// The client is gone, or has broken the channel off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client is gone")]
pub struct Gone;

/// How many bytes may be on their way to a client that counts them. Clients of Kubernetes do not count, so that a window
/// is looked at only once the client has spoken of one.
pub struct Window {
    counts: AtomicBool,
    left: Semaphore,
}

impl Window {
    /// One that the client has not mentioned yet.
    pub fn new(bytes: u32) -> Self {
        Self { counts: AtomicBool::new(false), left: Semaphore::new(bytes as usize) }
    }

    /// From now on bytes are counted.
    pub fn count(&self) {
        self.counts.store(true, Ordering::Relaxed);
    }

    /// Whether they are.
    pub fn counts(&self) -> bool {
        self.counts.load(Ordering::Relaxed)
    }

    /// More may come. False for more than can be.
    #[must_use]
    pub fn widen(&self, bytes: u32) -> bool {
        self.count();
        let fits = self.left.available_permits().saturating_add(bytes as usize) <= WIDEST;
        if fits {
            self.left.add_permits(bytes as usize);
        }
        fits
    }

    /// The reader is gone.
    pub fn close(&self) {
        self.left.close();
    }

    async fn take(&self, bytes: usize) -> Result<(), Gone> {
        if self.left.is_closed() {
            return Err(Gone);
        }
        if self.counts() {
            let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
            self.left.acquire_many(bytes).await.map_err(|_| Gone)?.forget();
        }
        Ok(())
    }
}

/// The outgoing half of a channel.
#[derive(Clone)]
pub struct Writer {
    id: u32,
    queue: mpsc::Sender<Command>,
    windows: Vec<Arc<Window>>,
}

impl Writer {
    /// Writes on channel `id` by way of `queue`, as far as all `windows` allow.
    pub fn new(id: u32, queue: mpsc::Sender<Command>, windows: Vec<Arc<Window>>) -> Self {
        Self { id, queue, windows }
    }

    /// Sends bytes; returns when they are on their way.
    ///
    /// # Errors
    /// There is no reader for them.
    pub async fn write(&self, mut bytes: Bytes) -> Result<(), Gone> {
        loop {
            let piece = bytes.split_to(bytes.len().min(PIECE));
            for window in &self.windows {
                window.take(piece.len()).await?;
            }
            self.send(Command::Data(self.id, piece)).await?;
            if bytes.is_empty() {
                return Ok(());
            }
        }
    }

    /// Says that nothing more comes.
    pub async fn finish(&self) {
        // A client that is gone need not be notified.
        let _ = self.send(Command::Finish(self.id)).await;
    }

    async fn send(&self, command: Command) -> Result<(), Gone> {
        self.queue.send(command).await.map_err(|_| Gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn large_pieces_are_parted_and_empty_ones_are_sent() {
        let (queue, mut commands) = mpsc::channel(8);
        let writer = Writer::new(5, queue, vec![]);
        writer.write(Bytes::new()).await.unwrap();
        writer.write(vec![1; PIECE + 1].into()).await.unwrap();
        writer.finish().await;
        let lengths = [0, PIECE, 1].map(|length| Command::Data(5, vec![1; length].into()));
        for expected in lengths.into_iter().chain([Command::Finish(5)]) {
            assert_eq!(commands.recv().await.unwrap(), expected);
        }
        drop(commands);
        assert_eq!(writer.write(Bytes::new()).await, Err(Gone));
    }

    #[tokio::test]
    async fn a_window_holds_back_only_what_goes_to_a_client_that_counts() {
        let (queue, mut commands) = mpsc::channel(8);
        let window = Arc::new(Window::new(4));
        let writer = Writer::new(1, queue, vec![Arc::clone(&window)]);
        writer.write(vec![0; 100].into()).await.unwrap();
        commands.recv().await.unwrap();
        assert!(window.widen(2));
        let (sender, six) = (writer.clone(), Bytes::from_static(b"abcdef"));
        sender.write(six).await.unwrap();
        let more = tokio::spawn(async move { writer.write(Bytes::from_static(b"g")).await });
        commands.recv().await.unwrap();
        assert!(commands.try_recv().is_err(), "the window is used up");
        assert!(window.widen(1));
        assert_eq!(commands.recv().await.unwrap(), Command::Data(1, Bytes::from_static(b"g")));
        more.await.unwrap().unwrap();
        assert!(!window.widen(u32::MAX));
        window.close();
        assert_eq!(sender.write(Bytes::from_static(b"h")).await, Err(Gone));
    }
}
