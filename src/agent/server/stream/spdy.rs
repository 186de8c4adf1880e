//! SPDY connections: a client's, with the streams that it opens, what comes on them and where to answer; and one to a
//! runtime, with streams that are opened here.

pub mod protocol;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::channel::{Command, QUEUE, Window, Writer};
use crate::agent::server::stream::spdy::protocol::{Decoder, Encoder, Frame, Headers, status};

/// Streams at a time; more are refused.
const STREAMS: usize = 256;
/// Pieces of a stream that are not read yet. A stream without a reader holds its connection up, as by the kubelet.
const PIECES: usize = 8;
/// Bytes in a piece, at most.
const READ: usize = 16 << 10;
/// What a window is by default.
const WINDOW: u32 = 64 << 10;
/// How long a client may take to leave after everything was said.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// The header that says what a stream is for.
pub const STREAM_TYPE: &str = "streamtype";

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    /// Its numbers are odd.
    Client,
    /// Its numbers are even.
    Server,
}

impl Side {
    fn has_sent(self, id: u32) -> bool {
        id.is_multiple_of(2) == (self == Self::Server)
    }
}

/// A stream that is open.
pub struct Stream {
    /// Its number.
    pub id: u32,
    /// What it is for.
    pub headers: Headers,
    /// What comes on it; ends when the client has said everything, has broken it off, or is gone.
    pub data: mpsc::Receiver<Bytes>,
    /// Where to answer.
    pub writer: Writer,
}

impl Stream {
    /// The first value of a header, the name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let values = self.headers.iter().find(|(key, _)| key == name).map(|(_, values)| values.as_str());
        values.map(|values| values.split('\0').next().unwrap_or_default())
    }
}

/// Serves a connection until everything is said: [`Accept`] was dropped, and every [`Writer`]. `gone` is cancelled when
/// the client leaves before.
pub fn serve<I>(io: I, gone: CancellationToken) -> (Accept, impl Future<Output = ()> + Send)
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (reading, writing) = tokio::io::split(io);
    let (queue, commands) = mpsc::channel(QUEUE);
    let (accepted, streams) = mpsc::channel(PIECES);
    let reader = Reader { accepted: Some(accepted), ..Reader::new(reading, &queue, Side::Client) };
    let accept = Accept { streams, _queue: queue };
    (accept, run(reader, writing, commands, gone))
}

/// Opens a stream of each of these types (`streamType`, as `stdin`) on a connection to a server. They come in this order.
/// The connection is carried until every [`Writer`] was dropped; `gone` is cancelled when the server leaves before.
pub fn open<I>(
    io: I,
    types: &[&'static str],
    gone: CancellationToken,
) -> (Vec<Stream>, impl Future<Output = ()> + Send + use<I>)
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (reading, writing) = tokio::io::split(io);
    // They are asked for before anything is said on them.
    let (queue, commands) = mpsc::channel(QUEUE.max(types.len()));
    let mut reader = Reader::new(reading, &queue, Side::Server);
    let mut streams = Vec::new();
    for (id, kind) in (1..).step_by(2).zip(types) {
        let _ = queue.try_send(Command::Open(id, kind));
        streams.push(reader.opened(id, vec![(STREAM_TYPE.to_owned(), (*kind).to_owned())], queue.clone(), false));
    }
    (streams, run(reader, writing, commands, gone))
}

async fn run<I>(reader: Reader<I>, writing: WriteHalf<I>, commands: mpsc::Receiver<Command>, gone: CancellationToken)
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let read = async {
        reader.run().await;
        gone.cancel();
    };
    let write = write(writing, commands);
    tokio::pin!(read, write);
    tokio::select! {
        () = &mut read => write.await,
        () = &mut write => {
            // A connection that is closed while bytes are unread loses what was sent last.
            let _ = timeout(CLOSE_LIMIT, read).await;
        }
    }
}

/// The streams that a client opens.
pub struct Accept {
    streams: mpsc::Receiver<Stream>,
    /// Keeps the connection open while streams may still come.
    _queue: mpsc::Sender<Command>,
}

impl Accept {
    /// The next one; None when the client is gone.
    pub async fn next(&mut self) -> Option<Stream> {
        self.streams.recv().await
    }
}

struct Open {
    /// None when the client has said everything on it.
    data: Option<mpsc::Sender<Bytes>>,
    window: Arc<Window>,
}

struct Reader<I> {
    io: ReadHalf<I>,
    queue: mpsc::WeakSender<Command>,
    accepted: Option<mpsc::Sender<Stream>>,
    open: HashMap<u32, Open>,
    /// That of the whole connection.
    window: Arc<Window>,
    initial: u32,
    last: u32,
    peer: Side,
}

impl<I: AsyncRead> Reader<I> {
    /// One that takes no streams.
    fn new(io: ReadHalf<I>, queue: &mpsc::Sender<Command>, peer: Side) -> Self {
        let (queue, window) = (queue.downgrade(), Arc::new(Window::new(WINDOW)));
        Self { io, queue, accepted: None, open: HashMap::new(), window, initial: WINDOW, last: 0, peer }
    }

    /// A stream that is open from now on. `fin`: nothing comes on it.
    fn opened(&mut self, id: u32, headers: Headers, queue: mpsc::Sender<Command>, fin: bool) -> Stream {
        let (sender, data) = mpsc::channel(PIECES);
        let window = Arc::new(Window::new(self.initial));
        if self.window.counts() {
            window.count();
        }
        let windows = vec![Arc::clone(&window), Arc::clone(&self.window)];
        self.open.insert(id, Open { data: Some(sender).filter(|_| !fin), window });
        Stream { id, headers, data, writer: Writer::new(id, queue, windows) }
    }

    async fn run(mut self) {
        let mut decoder = Decoder::default();
        loop {
            match decoder.frame() {
                Ok(Some(frame)) => self.take(frame).await,
                Ok(None) => {
                    decoder.buffer().reserve(READ);
                    match self.io.read_buf(decoder.buffer()).await {
                        Ok(1..) => {}
                        Ok(0) => break,
                        Err(error) => {
                            debug!(%error, "a SPDY client left");
                            break;
                        }
                    }
                }
                Err(error) => {
                    debug!(%error, "a SPDY client said what cannot be understood");
                    break;
                }
            }
        }
        self.window.close();
        self.open.values().for_each(|stream| stream.window.close());
    }

    async fn take(&mut self, frame: Frame) {
        match frame {
            Frame::SynStream { id, fin, headers, .. } => self.begin(id, fin, headers).await,
            Frame::Data { id, fin, bytes } => self.data(id, fin, bytes).await,
            Frame::Headers { id, fin: true, .. } => self.finish(id),
            Frame::RstStream { id, .. } => {
                if let Some(stream) = self.open.remove(&id) {
                    stream.window.close();
                }
            }
            Frame::Ping { id } if self.peer.has_sent(id) => self.send(Command::Pong(id)).await,
            Frame::WindowUpdate { id: 0, delta } => drop(self.window.widen(delta)),
            Frame::WindowUpdate { id, delta } => {
                let fits = self.open.get(&id).is_none_or(|stream| stream.window.widen(delta));
                if !fits {
                    self.refuse(id, status::FLOW_CONTROL_ERROR).await;
                }
            }
            Frame::Settings { initial_window: Some(bytes) } => {
                self.initial = bytes.min(0x7fff_ffff);
                self.window.count();
                self.open.values().for_each(|stream| stream.window.count());
            }
            // Streams that are open go on after GOAWAY, until the client closes the connection.
            _ => {}
        }
    }

    async fn begin(&mut self, id: u32, fin: bool, headers: Headers) {
        // Numbers grow.
        if !self.peer.has_sent(id) || id <= self.last {
            return self.refuse(id, status::PROTOCOL_ERROR).await;
        }
        self.last = id;
        let (Some(queue), true) = (self.queue.upgrade(), self.open.len() < STREAMS) else {
            return self.refuse(id, status::REFUSED_STREAM).await;
        };
        self.send(Command::Accept(id)).await;
        let stream = self.opened(id, headers, queue, fin);
        let taken = match &self.accepted {
            Some(accepted) => accepted.send(stream).await.is_ok(),
            None => false,
        };
        if !taken {
            self.accepted = None;
            self.refuse(id, status::REFUSED_STREAM).await;
        }
    }

    async fn data(&mut self, id: u32, fin: bool, bytes: Bytes) {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let stream = self.open.get(&id).and_then(|stream| stream.data.as_ref());
        // What has no reader any more is taken all the same, else the others would never come.
        if let (Some(data), 1..) = (stream, length) {
            let _ = data.send(bytes).await;
        }
        if self.window.counts() && length > 0 {
            self.send(Command::Took(id, length)).await;
            self.send(Command::Took(0, length)).await;
        }
        if fin {
            self.finish(id);
        }
    }

    fn finish(&mut self, id: u32) {
        if let Entry::Occupied(mut stream) = self.open.entry(id) {
            stream.get_mut().data = None;
            // Both sides have said everything where its writer is gone; kept, it would count for ever.
            if Arc::strong_count(&stream.get().window) == 1 {
                stream.remove();
            }
        }
        self.open.retain(|_, stream| stream.data.is_some() || Arc::strong_count(&stream.window) > 1);
    }

    async fn refuse(&mut self, id: u32, status: u32) {
        if let Some(stream) = self.open.remove(&id) {
            stream.window.close();
        }
        self.send(Command::Reset(id, status)).await;
    }

    async fn send(&mut self, command: Command) {
        if let Some(queue) = self.queue.upgrade() {
            let _ = queue.send(command).await;
        }
    }
}

/// Writes what is to be sent until its senders are gone, then closes the session.
async fn write<I: AsyncWrite>(mut io: WriteHalf<I>, mut commands: mpsc::Receiver<Command>) {
    let (mut encoder, mut bytes, mut last) = (Encoder::default(), BytesMut::new(), 0);
    while let Some(command) = commands.recv().await {
        let mut next = Some(command);
        while let Some(command) = next {
            if let Command::Accept(id) = command {
                last = id;
            }
            encoder.encode(&frame(command), &mut bytes);
            next = commands.try_recv().ok();
            if bytes.len() > READ && io.write_all_buf(&mut bytes).await.is_err() {
                return;
            }
        }
        if io.write_all_buf(&mut bytes).await.is_err() || io.flush().await.is_err() {
            return;
        }
    }
    encoder.encode(&Frame::GoAway { last, status: 0 }, &mut bytes);
    let _ = io.write_all_buf(&mut bytes).await;
    let _ = io.shutdown().await;
}

fn frame(command: Command) -> Frame {
    match command {
        Command::Data(id, bytes) => Frame::Data { id, fin: false, bytes },
        Command::Finish(id) => Frame::Data { id, fin: true, bytes: Bytes::new() },
        Command::Open(id, kind) => {
            let headers = vec![(STREAM_TYPE.to_owned(), kind.to_owned())];
            Frame::SynStream { id, fin: false, unidirectional: false, headers }
        }
        Command::Accept(id) => Frame::SynReply { id, fin: false, headers: Headers::new() },
        Command::Reset(id, status) => Frame::RstStream { id, status },
        Command::Pong(id) => Frame::Ping { id },
        Command::Took(id, delta) => Frame::WindowUpdate { id, delta },
    }
}
