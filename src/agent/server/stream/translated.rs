//! `exec` and `attach` behind a runtime's own server, for clients of a protocol that it does not speak: their channels
//! become streams of SPDY. The kubelet has the same (`ExtendWebSocketsToKubelet`): on a WebSocket runtimes speak
//! `v4.channel.k8s.io`, in which there is no way to say that a command's input has ended.

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWrite, DuplexStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::channel::Writer;
use super::passed;
use super::spdy::{self, STREAM_TYPE, Stream};
use crate::runtime::streaming::{Output, Session, Size, Starting, StdStreams};
use crate::runtime::{Result, RuntimeError};

/// The one that tells its end in JSON, on SPDY.
const PROTOCOL: &str = "v4.channel.k8s.io";
/// Bytes on their way from the client to the runtime.
const INPUT: usize = 32 << 10;
/// The most bytes of a status that are kept.
const STATUS: usize = 64 << 10;

/// What begins at `url`. `failure` are the words with which the runtime's server says that it could not be started
/// (`error executing command in container`); they stand in no error of this.
pub fn session(url: String, wanted: StdStreams, failure: &'static str) -> Starting {
    Box::pin(async move { begin(&url, wanted, failure).await })
}

fn refused(message: impl ToString) -> RuntimeError {
    RuntimeError::Refused { call: "streams of the container runtime".into(), message: message.to_string() }
}

async fn begin(url: &str, wanted: StdStreams, failure: &'static str) -> Result<Session> {
    let io = passed::spdy(url, PROTOCOL).await.map_err(refused)?;
    let types = [
        ("error", true),
        ("stdin", wanted.stdin),
        ("stdout", wanted.stdout),
        ("stderr", wanted.stderr),
        ("resize", wanted.tty),
    ];
    let types: Vec<&str> = types.into_iter().filter_map(|(name, is)| is.then_some(name)).collect();
    let (mut streams, serving) = spdy::open(io, &types, CancellationToken::new());
    let connection = AbortOnDropHandle::new(tokio::spawn(serving));
    let mut take = |name: &str| {
        let at = streams.iter().position(|stream| stream.header(STREAM_TYPE) == Some(name))?;
        Some(streams.swap_remove(at))
    };
    // Its writer keeps the connection open while nothing is to be said.
    let status = take("error");
    let resizes = take("resize").map(|stream| stream.writer);
    let outputs = [("stdout", Output::Stdout), ("stderr", Output::Stderr)];
    let outputs = outputs.into_iter().filter_map(|(name, from)| Some(output(take(name)?.data, from)));
    Ok(Session {
        output: stream::select_all(outputs.collect::<Vec<_>>()).boxed(),
        input: take("stdin").map(|stream| input(stream.writer)),
        resize: Box::new(move |size| resize(resizes.clone(), size)),
        exit: Box::pin(async move {
            let outcome = exit(status, failure).await;
            drop(connection);
            outcome
        }),
    })
}

fn output(mut data: mpsc::Receiver<Bytes>, from: Output) -> BoxStream<'static, Result<(Output, Bytes)>> {
    stream::poll_fn(move |cx| data.poll_recv(cx)).map(move |bytes| Ok((from, bytes))).boxed()
}

/// Where input goes; its end is the stream's.
fn input(writer: Writer) -> Box<dyn AsyncWrite + Send + Unpin> {
    let (here, there) = tokio::io::duplex(INPUT);
    tokio::spawn(feed(there, writer));
    Box::new(here)
}

async fn feed(mut from: DuplexStream, to: Writer) {
    let mut bytes = BytesMut::new();
    while let Ok(1..) = from.read_buf(&mut bytes).await {
        if to.write(bytes.split().freeze()).await.is_err() {
            return;
        }
    }
    to.finish().await;
}

fn resize(to: Option<Writer>, size: Size) -> BoxFuture<'static, Result<()>> {
    let text = json!({"Width": size.width, "Height": size.height}).to_string();
    Box::pin(async move {
        match to {
            Some(to) => to.write(text.into()).await.map_err(refused),
            None => Ok(()),
        }
    })
}

/// What the runtime's server says at the end.
async fn exit(status: Option<Stream>, failure: &str) -> Result<Option<i64>> {
    let mut text = Vec::new();
    let Some(mut status) = status else { return Ok(None) };
    while let Some(bytes) = status.data.recv().await {
        let room = STATUS.saturating_sub(text.len());
        text.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
    outcome(&text, failure)
}

fn outcome(status: &[u8], failure: &str) -> Result<Option<i64>> {
    let Ok(status) = serde_json::from_slice::<Value>(status) else {
        return Err(refused("they ended before it said how the command did"));
    };
    let cause = &status["details"]["causes"][0];
    let words = |value: &Value| value.as_str().map(str::to_owned);
    match (status["status"].as_str(), status["reason"].as_str()) {
        (Some("Success"), _) => Ok(Some(0)),
        (_, Some("NonZeroExitCode")) => {
            let code = words(&cause["message"]).and_then(|code| code.parse().ok());
            code.map(Some).ok_or_else(|| refused("the command's exit code is no number"))
        }
        _ => {
            let message = words(&cause["message"]).or_else(|| words(&status["message"])).unwrap_or_default();
            Err(refused(message.strip_prefix(failure).map_or(message.as_str(), |rest| rest.trim_start_matches(": "))))
        }
    }
}

#[cfg(test)]
mod tests;
