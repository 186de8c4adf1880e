//! What runs while somebody looks at it: a command in a container, or the container itself, with its input and output
//! as streams.
//!
//! A runtime either carries the bytes itself ([`Streamed::Session`]) or serves the kubelet's own protocols at a URL to
//! which a client's connection is handed through as it is ([`Streamed::Served`], as by the CRI).

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use tokio::io::AsyncWrite;

use super::Result;

/// Which streams somebody wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StdStreams {
    /// Bytes go in.
    pub stdin: bool,
    /// Standard output comes back.
    pub stdout: bool,
    /// Standard error comes back; never with a terminal, which has one output.
    pub stderr: bool,
    /// There is a terminal.
    pub tty: bool,
}

/// Which output bytes came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Standard output, a terminal's too.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Columns and rows of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Characters in a row.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// Streams that go through the agent.
pub struct Session {
    /// Where input goes; dropping or shutting it down is its end. None where no input was wanted.
    pub input: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// What comes back, until both outputs end.
    pub output: BoxStream<'static, Result<(Output, Bytes)>>,
    /// Changes the terminal's size.
    pub resize: Box<dyn Fn(Size) -> BoxFuture<'static, Result<()>> + Send + Sync>,
    /// The exit code, when the command has ended; None for a container that was looked at and goes on.
    pub exit: BoxFuture<'static, Result<Option<i64>>>,
}

/// Begins when it is awaited, and not before.
pub type Starting = BoxFuture<'static, Result<Session>>;

/// How somebody gets the streams.
pub enum Streamed {
    /// Through the agent. Nothing has begun yet: a client has to open its streams first, and may never do so.
    Session(Starting),
    /// By the runtime's own server, at this URL (`http://127.0.0.1:PORT/exec/TOKEN`), which is good for one use.
    Served(String),
}

/// A runtime that can do it.
#[async_trait]
pub trait Streaming: Send + Sync {
    /// Runs a command in a running container.
    async fn exec(&self, id: &str, command: &[String], wanted: StdStreams) -> Result<Streamed>;

    /// Looks at a running container's main process.
    async fn attach(&self, id: &str, wanted: StdStreams) -> Result<Streamed>;
}
