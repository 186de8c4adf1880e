//! A client's WebSocket: the first byte of each message says which channel the rest belongs to.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::channel::Command;

/// The most bytes of a message; clients of Kubernetes send 32 KiB at most.
const MESSAGE: usize = 1 << 20;
/// Bytes that are read and written at once.
const BUFFER: usize = 16 << 10;
/// How long a client may take to leave after everything was said.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);
/// With it begins a message that says which channel has ended (`v5.channel.k8s.io`).
const CLOSE: u8 = 255;

/// How a protocol writes messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Format {
    /// In text messages, the channel as a digit and the rest in Base64.
    pub base64: bool,
    /// The client says when a channel ends. The server does not: clients take that for a channel they do not know.
    pub closes: bool,
}

/// What comes on one channel.
pub struct Inlet {
    /// Its number.
    pub channel: u8,
    /// Where it goes.
    pub sender: mpsc::Sender<Bytes>,
}

type Socket<I> = WebSocketStream<I>;

/// A socket on a connection that has been upgraded.
pub async fn open<I>(io: I) -> Socket<I>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let config = WebSocketConfig::default()
        .read_buffer_size(BUFFER)
        .write_buffer_size(0)
        .max_message_size(Some(MESSAGE))
        .max_frame_size(Some(MESSAGE));
    WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await
}

/// Serves a connection until everything is said: every sender of `commands` was dropped. `gone` is cancelled when the
/// client leaves before.
pub async fn serve<I>(
    socket: Socket<I>,
    format: Format,
    inlets: Vec<Inlet>,
    commands: mpsc::Receiver<Command>,
    gone: CancellationToken,
) where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let (sink, stream) = socket.split();
    let read = async {
        read(stream, format, inlets).await;
        gone.cancel();
    };
    let write = write(sink, format, commands);
    tokio::pin!(read, write);
    tokio::select! {
        () = &mut read => {}
        () = &mut write => {
            // A connection that is closed while bytes are unread loses what was sent last.
            let _ = timeout(CLOSE_LIMIT, read).await;
        }
    }
}

async fn read<I>(mut stream: SplitStream<Socket<I>>, format: Format, mut inlets: Vec<Inlet>)
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(message) = stream.next().await {
        let message = match message {
            Ok(message) => message,
            Err(error) => {
                debug!(%error, "a WebSocket client left");
                return;
            }
        };
        let Some((channel, bytes)) = received(message, format) else { continue };
        if channel == CLOSE && format.closes {
            inlets.retain(|inlet| Some(&inlet.channel) != bytes.first());
        } else if let Some(inlet) = inlets.iter().find(|inlet| inlet.channel == channel)
            && !bytes.is_empty()
        {
            let _ = inlet.sender.send(bytes).await;
        }
    }
}

/// Channel and content of a message; None for one that has none.
fn received(message: Message, format: Format) -> Option<(u8, Bytes)> {
    let mut bytes = match message {
        Message::Binary(bytes) => bytes,
        Message::Text(text) => text.into(),
        _ => return None,
    };
    if bytes.is_empty() {
        return None;
    }
    let content = bytes.split_off(1);
    match (bytes[0], format.base64) {
        (channel, false) => Some((channel, content)),
        (digit @ b'0'..=b'9', true) => Some((digit & 0x0f, STANDARD.decode(&content).ok()?.into())),
        _ => None,
    }
}

/// The message that says it; None for what a WebSocket has no words for.
fn message(command: Command, format: Format) -> Option<Message> {
    match command {
        Command::Data(channel, bytes) => {
            let channel = u8::try_from(channel).ok()?;
            if format.base64 {
                let digit = char::from_digit(channel.into(), 10)?;
                return Some(Message::text(format!("{digit}{}", STANDARD.encode(&bytes))));
            }
            let mut content = BytesMut::with_capacity(bytes.len().saturating_add(1));
            content.put_u8(channel);
            content.put_slice(&bytes);
            Some(Message::Binary(content.freeze()))
        }
        _ => None,
    }
}

async fn write<I>(mut sink: SplitSink<Socket<I>, Message>, format: Format, mut commands: mpsc::Receiver<Command>)
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(command) = commands.recv().await {
        if let Some(message) = message(command, format)
            && sink.send(message).await.is_err()
        {
            return;
        }
    }
    // Without the code, clients take the end for a failure.
    let frame = CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() };
    let _ = sink.send(Message::Close(Some(frame))).await;
    let _ = sink.close().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Format = Format { base64: false, closes: false };

    #[test]
    fn the_first_byte_is_the_channel() {
        let sent = message(Command::Data(1, Bytes::from_static(b"hi")), PLAIN).unwrap();
        assert_eq!(sent, Message::Binary(Bytes::from_static(b"\x01hi")));
        assert_eq!(received(sent, PLAIN), Some((1, Bytes::from_static(b"hi"))));
        let base64 = Format { base64: true, ..PLAIN };
        let sent = message(Command::Data(2, Bytes::from_static(b"hi")), base64).unwrap();
        assert_eq!(sent, Message::text("2aGk="));
        assert_eq!(received(sent, base64), Some((2, Bytes::from_static(b"hi"))));
        assert_eq!(received(Message::text("x"), base64), None);
        assert_eq!(received(Message::Binary(Bytes::new()), PLAIN), None);
    }

    #[tokio::test]
    async fn a_client_of_the_fifth_protocol_closes_one_channel_and_goes_on_with_others() {
        let (server, client) = tokio::io::duplex(1 << 16);
        let mut client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
        let (stdin, mut input) = mpsc::channel(8);
        let (resize, mut sizes) = mpsc::channel(8);
        let inlets = vec![Inlet { channel: 0, sender: stdin }, Inlet { channel: 4, sender: resize }];
        let (queue, commands) = mpsc::channel(8);
        let gone = CancellationToken::new();
        let format = Format { base64: false, closes: true };
        let server = open(server).await;
        let serving = tokio::spawn(serve(server, format, inlets, commands, gone.clone()));
        for bytes in [&b"\x00abc"[..], b"\xff\x00", b"\x04{}"] {
            client.send(Message::Binary(Bytes::copy_from_slice(bytes))).await.unwrap();
        }
        assert_eq!(input.recv().await.unwrap(), "abc");
        assert_eq!(input.recv().await, None);
        assert_eq!(sizes.recv().await.unwrap(), "{}");
        client.send(Message::Ping(Bytes::from_static(b"x"))).await.unwrap();
        assert_eq!(client.next().await.unwrap().unwrap(), Message::Pong(Bytes::from_static(b"x")));
        queue.send(Command::Data(3, Bytes::from_static(b"end"))).await.unwrap();
        queue.send(Command::Finish(3)).await.unwrap();
        drop(queue);
        assert_eq!(client.next().await.unwrap().unwrap(), Message::Binary(Bytes::from_static(b"\x03end")));
        let Message::Close(Some(frame)) = client.next().await.unwrap().unwrap() else { panic!("no end") };
        assert_eq!(frame.code, CloseCode::Normal);
        drop(client);
        serving.await.unwrap();
        assert!(gone.is_cancelled());
    }
}
