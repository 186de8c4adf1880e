//! `exec` and `attach`: a command, or a container, and a client that looks at it.

use std::collections::BTreeMap;
use std::future::pending;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::channel::{Gone, QUEUE, Writer};
use super::negotiate::{Protocol, Transport};
use super::spdy;
use super::websocket::{self, Format, Inlet};
use crate::agent::server::query::Query;
use crate::error::chain;
use crate::runtime;
use crate::runtime::streaming::{Output, Session, Size, Starting, StdStreams};

/// How long a client may take to open its streams (the kubelet's `streamCreationTimeout`).
const OPENING: Duration = Duration::from_secs(30);
/// Pieces from the client that a command has not taken yet.
const PIECES: usize = 8;

/// Channels of a WebSocket; those of SPDY have names.
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;

/// Where a client gets and sends what.
struct Remote {
    stdin: Option<mpsc::Receiver<Bytes>>,
    resize: Option<mpsc::Receiver<Bytes>>,
    stdout: Option<Writer>,
    stderr: Option<Writer>,
    error: Writer,
}

/// What a client looks at.
pub struct Looking {
    /// What to start.
    pub start: Starting,
    /// What it wants of it.
    pub wanted: StdStreams,
    /// How it speaks.
    pub protocol: &'static Protocol,
    /// What failed if it cannot be started: `error executing command in container`.
    pub failure: &'static str,
}

/// Which streams a query asks for.
///
/// # Errors
/// It asks for none.
pub fn wanted(query: &Query) -> Result<StdStreams, &'static str> {
    let has = |name: &str| query.get(name) == Some("1") || query.is_set(name);
    let tty = has("tty");
    // A terminal has one output.
    let wanted = StdStreams { stdin: has("input"), stdout: has("output"), stderr: has("error") && !tty, tty };
    if wanted.stdin || wanted.stdout || wanted.stderr || (tty && has("error")) {
        return Ok(wanted);
    }
    Err("you must specify at least 1 of stdin, stdout, stderr")
}

/// Serves a client on the connection it has upgraded.
pub async fn serve<I>(io: I, looking: Looking)
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let gone = CancellationToken::new();
    match looking.protocol.transport {
        Transport::WebSocket(format) => over_web_socket(io, looking, format, gone).await,
        Transport::Spdy | Transport::Tunnel => {
            let (mut accept, serving) = spdy::serve(io, gone.clone());
            let looked = async {
                let resizes = looking.wanted.tty && looking.protocol.resizes;
                match tokio::time::timeout(OPENING, streams(&mut accept, looking.wanted, resizes)).await {
                    Ok(Some(remote)) => look(looking, remote, gone).await,
                    Ok(None) => {}
                    Err(_) => debug!("a client did not open its streams in time"),
                }
                drop(accept);
            };
            tokio::join!(serving, looked);
        }
    }
}

/// Waits for the streams that are to be opened; None when the client leaves before.
async fn streams(accept: &mut spdy::Accept, wanted: StdStreams, resizes: bool) -> Option<Remote> {
    let names = [
        ("error", true),
        ("stdin", wanted.stdin),
        ("stdout", wanted.stdout),
        ("stderr", wanted.stderr),
        ("resize", resizes),
    ];
    let mut missing: Vec<&str> = names.into_iter().filter_map(|(name, is)| is.then_some(name)).collect();
    let mut found = BTreeMap::new();
    while !missing.is_empty() {
        let stream = accept.next().await?;
        let kind = stream.header(spdy::STREAM_TYPE).unwrap_or_default().to_owned();
        missing.retain(|name| *name != kind);
        found.insert(kind, stream);
    }
    let mut take = |name: &str| found.remove(name);
    Some(Remote {
        error: take("error")?.writer,
        stdin: take("stdin").map(|stream| stream.data),
        resize: take("resize").map(|stream| stream.data),
        stdout: take("stdout").map(|stream| stream.writer),
        stderr: take("stderr").map(|stream| stream.writer),
    })
}

async fn over_web_socket<I>(io: I, looking: Looking, format: Format, gone: CancellationToken)
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let (wanted, mut inlets) = (looking.wanted, Vec::new());
    let mut inlet = |channel: u8, is: bool| {
        is.then(|| {
            let (sender, receiver) = mpsc::channel(PIECES);
            inlets.push(Inlet { channel, sender });
            receiver
        })
    };
    let (stdin, resize) = (inlet(STDIN, wanted.stdin), inlet(RESIZE, wanted.tty));
    let (queue, commands) = mpsc::channel(QUEUE);
    let writer = |channel: u8| Writer::new(channel.into(), queue.clone(), vec![]);
    let outlet = |channel: u8, is: bool| is.then(|| writer(channel));
    let remote = Remote {
        stdin,
        resize,
        stdout: outlet(STDOUT, wanted.stdout),
        stderr: outlet(STDERR, wanted.stderr),
        error: writer(ERROR),
    };
    drop(queue);
    let socket = websocket::open(io).await;
    let serving = websocket::serve(socket, format, inlets, commands, gone.clone());
    let looked = async {
        // Clients wait for a first message to know that all is well.
        let first = remote.stdout.as_ref().or(remote.stderr.as_ref()).unwrap_or(&remote.error);
        if first.write(Bytes::new()).await.is_ok() {
            look(looking, remote, gone).await;
        }
    };
    tokio::join!(serving, looked);
}

/// How it came out.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Exited(i64),
    Failed(String),
    /// There is no client to be notified.
    Unwatched,
}

async fn look(looking: Looking, remote: Remote, gone: CancellationToken) {
    let Remote { stdin, resize, stdout, stderr, error } = remote;
    let outcome = match gone.run_until_cancelled(looking.start).await {
        None => Outcome::Unwatched,
        Some(Err(failure)) => Outcome::Failed(chain(&failure)),
        Some(Ok(session)) => {
            let Session { input, output, resize: resizer, exit } = session;
            let inwards = async {
                tokio::join!(feed(stdin, input), resizes(resize, resizer));
                pending::<()>().await
            };
            let outwards = async {
                match relay(output, stdout.as_ref(), stderr.as_ref()).await {
                    Ok(()) => match exit.await {
                        Ok(code) => Outcome::Exited(code.unwrap_or(0)),
                        Err(failure) => Outcome::Failed(chain(&failure)),
                    },
                    Err(Some(failure)) => Outcome::Failed(failure),
                    Err(None) => Outcome::Unwatched,
                }
            };
            tokio::select! {
                outcome = outwards => outcome,
                () = inwards => Outcome::Unwatched,
                () = gone.cancelled() => Outcome::Unwatched,
            }
        }
    };
    if outcome == Outcome::Unwatched {
        return;
    }
    if let Some(status) = status(&outcome, looking.failure, looking.protocol.json_status) {
        let _ = error.write(status).await;
    }
    for writer in [stdout, stderr].into_iter().flatten().chain([error]) {
        writer.finish().await;
    }
}

/// Sends what the client sends on, and its end. Where it cannot be taken, it is thrown away, so that whatever else the
/// client says is heard.
async fn feed(stdin: Option<mpsc::Receiver<Bytes>>, input: Option<Box<dyn AsyncWrite + Send + Unpin>>) {
    let Some(mut stdin) = stdin else { return };
    let mut input = input;
    while let Some(bytes) = stdin.recv().await {
        if let Some(open) = &mut input
            && (open.write_all(&bytes).await.is_err() || open.flush().await.is_err())
        {
            input = None;
        }
    }
    if let Some(mut input) = input {
        let _ = input.shutdown().await;
    }
}

/// Sizes of a terminal come as JSON, one behind the other.
async fn resizes(
    sizes: Option<mpsc::Receiver<Bytes>>,
    resize: Box<dyn Fn(Size) -> futures::future::BoxFuture<'static, runtime::Result<()>> + Send + Sync>,
) {
    let Some(mut sizes) = sizes else { return };
    let mut text = Vec::new();
    while let Some(bytes) = sizes.recv().await {
        text.extend_from_slice(&bytes);
        let (found, used) = parse_sizes(&text);
        text.drain(..used);
        for size in found {
            if let Err(error) = resize(size).await {
                debug!(error = chain(&error), "cannot resize a terminal");
            }
        }
        // No client sends so long a size.
        text.truncate(1024);
    }
}

fn parse_sizes(text: &[u8]) -> (Vec<Size>, usize) {
    let mut values = serde_json::Deserializer::from_slice(text).into_iter::<Value>();
    let (mut found, mut used) = (Vec::new(), 0);
    while let Some(Ok(value)) = values.next() {
        used = values.byte_offset();
        let side = |name: &str| value.get(name).and_then(Value::as_u64).and_then(|side| u16::try_from(side).ok());
        if let (Some(width @ 1..), Some(height @ 1..)) = (side("Width"), side("Height")) {
            found.push(Size { width, height });
        }
    }
    (found, used)
}

/// Sends on what comes out, to its end. The error is what failed, None where the client is gone.
async fn relay(
    mut output: futures::stream::BoxStream<'static, runtime::Result<(Output, Bytes)>>,
    stdout: Option<&Writer>,
    stderr: Option<&Writer>,
) -> Result<(), Option<String>> {
    while let Some(piece) = output.next().await {
        let (from, bytes) = piece.map_err(|error| Some(chain(&error)))?;
        let to = if from == Output::Stdout { stdout } else { stderr };
        if let Some(writer) = to {
            writer.write(bytes).await.map_err(|Gone| None)?;
        }
    }
    Ok(())
}

/// What the client gets at the end: JSON whatever it is, or words where something failed.
fn status(outcome: &Outcome, failure: &str, json: bool) -> Option<Bytes> {
    let failed = |message: &str, reason: &str, causes: Value| json!({"metadata": {}, "status": "Failure", "message": message, "reason": reason, "details": {"causes": causes}});
    let value = match outcome {
        Outcome::Unwatched => return None,
        Outcome::Exited(0) => json!({"metadata": {}, "status": "Success"}),
        Outcome::Exited(code) => {
            let message = format!("command terminated with non-zero exit code: exit status {code}");
            failed(&message, "NonZeroExitCode", json!([{"reason": "ExitCode", "message": code.to_string()}]))
        }
        Outcome::Failed(why) => {
            let why = format!("{failure}: {why}");
            let mut value =
                failed(&format!("Internal error occurred: {why}"), "InternalError", json!([{ "message": why }]));
            value["code"] = json!(500);
            value
        }
    };
    if json {
        return Some(value.to_string().into());
    }
    value.get("message").and_then(Value::as_str).map(|words| words.to_owned().into())
}

#[cfg(test)]
pub(super) mod tests;
