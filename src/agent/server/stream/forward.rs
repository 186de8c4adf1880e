//! `portForward`: connections to ports of a pod.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::channel::{QUEUE, Writer};
use super::negotiate::{Protocol, Transport};
use super::network::Network;
use super::spdy::{self, Stream};
use super::tunnel::Tunnel;
use super::websocket::{self, Format, Inlet};
use crate::host::clock::Instant;

/// How long the second of two streams may be away (the kubelet's `streamCreationTimeout`).
const OPENING: Duration = Duration::from_secs(30);
/// Pieces from the client that a port has not taken yet.
const PIECES: usize = 8;
/// Bytes in a piece, at most.
const PIECE: usize = 16 << 10;

/// What is connected to.
pub struct Forwarding {
    /// The pod's network.
    pub network: Network,
    /// The pod, as errors name it.
    pub pod: String,
    /// Ports that the query names; for clients that speak WebSocket.
    pub ports: Vec<u16>,
    /// How the client speaks.
    pub protocol: &'static Protocol,
}

/// Serves a client on the connection it has upgraded.
pub async fn serve<I>(io: I, forwarding: Forwarding)
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    match forwarding.protocol.transport {
        Transport::Spdy => over_spdy(io, Arc::new(forwarding)).await,
        Transport::Tunnel => {
            let tunnel = Tunnel::new(websocket::open(io).await);
            over_spdy(tunnel, Arc::new(forwarding)).await;
        }
        Transport::WebSocket(format) => over_web_socket(io, forwarding, format).await,
    }
}

async fn over_spdy<I>(io: I, forwarding: Arc<Forwarding>)
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let gone = CancellationToken::new();
    let (mut accept, serving) = spdy::serve(io, gone.clone());
    let forwards = async {
        let (mut halves, mut forwards) = (Halves::default(), JoinSet::new());
        loop {
            let next = tokio::select! {
                next = accept.next() => next,
                Some(_) = forwards.join_next() => continue,
                () = halves.expired() => {
                    halves.forget();
                    continue;
                }
            };
            let Some(stream) = next else { break };
            if let Some(pair) = halves.add(stream).await {
                let (forwarding, gone) = (Arc::clone(&forwarding), gone.clone());
                forwards.spawn(async move { gone.run_until_cancelled(forward(&forwarding, pair)).await });
            }
        }
        drop(accept);
        while forwards.join_next().await.is_some() {}
    };
    tokio::join!(serving, forwards);
}

/// One connection's streams.
struct Pair {
    port: u16,
    data: mpsc::Receiver<Bytes>,
    out: Writer,
    error: Writer,
}

/// Streams whose other half has not come yet, by request.
#[derive(Default)]
struct Halves(HashMap<String, (Stream, Instant)>);

impl Halves {
    /// Takes a stream in; the pair when it is the second of its request.
    async fn add(&mut self, stream: Stream) -> Option<Pair> {
        let kind = stream.header(spdy::STREAM_TYPE).map(str::to_owned);
        let port = stream.header("port").and_then(|port| port.parse::<u16>().ok()).filter(|port| *port > 0);
        let (Some(kind @ ("data" | "error")), Some(port)) = (kind.as_deref(), port) else {
            stream.writer.finish().await;
            return None;
        };
        // Old clients do not number their requests; they open the stream of errors first.
        let numbered = stream.header("requestid").map(str::to_owned);
        let request = numbered
            .unwrap_or_else(|| if kind == "error" { stream.id } else { stream.id.saturating_sub(2) }.to_string());
        let Some((other, _)) = self.0.remove(&request) else {
            self.0.insert(request, (stream, Instant::now() + OPENING));
            return None;
        };
        let (data, error) = if kind == "data" { (stream, other) } else { (other, stream) };
        Some(Pair { port, data: data.data, out: data.writer, error: error.writer })
    }

    /// Returns when one has waited too long.
    async fn expired(&self) {
        match self.0.values().map(|(_, until)| *until).min() {
            Some(until) => crate::host::clock::sleep_until(until).await,
            None => std::future::pending().await,
        }
    }

    fn forget(&mut self) {
        let now = Instant::now();
        self.0.retain(|_, (_, until)| *until > now);
    }
}

/// One connection, from its beginning to its end.
async fn forward(forwarding: &Forwarding, pair: Pair) {
    let Pair { port, data, out, error } = pair;
    let failure = match forwarding.network.connect(port).await {
        Ok(socket) => copy(socket, data, &out).await.err(),
        Err(failure) => Some(failure),
    };
    if let Some(failure) = failure {
        let words = format!("error forwarding port {port} to pod {}: {failure}", forwarding.pod);
        let _ = error.write(words.into()).await;
    }
    out.finish().await;
    error.finish().await;
}

/// Carries bytes both ways. The pod may say more after the client has said everything; it is over when the pod has.
async fn copy(socket: TcpStream, mut data: mpsc::Receiver<Bytes>, out: &Writer) -> std::io::Result<()> {
    let (mut reading, mut writing) = socket.into_split();
    let inwards = async {
        while let Some(bytes) = data.recv().await {
            writing.write_all(&bytes).await?;
        }
        writing.shutdown().await
    };
    let outwards = async {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(PIECE);
            if reading.read_buf(&mut buffer).await? == 0 || out.write(buffer.split().freeze()).await.is_err() {
                return Ok(());
            }
        }
    };
    tokio::pin!(inwards, outwards);
    tokio::select! {
        sent = &mut inwards => {
            // A pod that has closed already is no failure: what it said is still read.
            let _ = sent;
            outwards.await
        }
        received = &mut outwards => received,
    }
}

/// Clients without SPDY name the ports beforehand. Each has a channel for data and the next one for errors, which both
/// begin with the port.
async fn over_web_socket<I>(io: I, forwarding: Forwarding, format: Format)
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let (queue, commands) = mpsc::channel(QUEUE);
    let (mut inlets, mut pairs) = (Vec::new(), Vec::new());
    for (port, channel) in forwarding.ports.iter().zip((0u8..=254).step_by(2)) {
        let (sender, data) = mpsc::channel(PIECES);
        inlets.push(Inlet { channel, sender });
        let writer = |channel: u8| Writer::new(channel.into(), queue.clone(), vec![]);
        pairs.push(Pair { port: *port, data, out: writer(channel), error: writer(channel.saturating_add(1)) });
    }
    drop(queue);
    let gone = CancellationToken::new();
    let socket = websocket::open(io).await;
    let serving = websocket::serve(socket, format, inlets, commands, gone.clone());
    let forwards = pairs.into_iter().map(|pair| async {
        let head = Bytes::copy_from_slice(&pair.port.to_le_bytes());
        for writer in [&pair.out, &pair.error] {
            let _ = writer.write(head.clone()).await;
        }
        gone.run_until_cancelled(forward(&forwarding, pair)).await;
    });
    tokio::join!(serving, futures::future::join_all(forwards));
}

/// The ports a query names, each once, in its order.
pub fn ports<'q>(given: impl Iterator<Item = &'q str>) -> Result<Vec<u16>, String> {
    let numbers = given.flat_map(|text| text.split(',')).filter(|text| !text.is_empty());
    let mut found = Vec::new();
    for text in numbers {
        let port = text.parse::<u16>().ok().filter(|port| *port > 0);
        let port = port.ok_or_else(|| format!("unable to parse {text:?} as a port"))?;
        if !found.contains(&port) {
            found.push(port);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
