use bytes::BytesMut;
use futures::{FutureExt, SinkExt, StreamExt, stream};
use tokio::io::{AsyncReadExt, DuplexStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::super::negotiate::COMMANDS;
use super::*;
use crate::agent::server::stream::spdy::protocol::{Decoder, Encoder, Frame};
use crate::runtime::RuntimeError;

pub const ALL: StdStreams = StdStreams { stdin: true, stdout: true, stderr: true, tty: false };

fn protocol(name: &str, spdy: bool) -> &'static Protocol {
    COMMANDS.iter().find(|one| one.name == name && (one.transport == Transport::Spdy) == spdy).unwrap()
}

/// A command that gives its input back on stdout once it has all of it, says `warn` on stderr, and exits with `code`.
pub fn cat(code: i64) -> Starting {
    let (input, mut given) = tokio::io::duplex(1 << 10);
    let output = stream::once(async move {
        let mut all = Vec::new();
        given.read_to_end(&mut all).await.unwrap();
        stream::iter([Ok((Output::Stderr, Bytes::from_static(b"warn"))), Ok((Output::Stdout, all.into()))])
    });
    let session = Session {
        input: Some(Box::new(input)),
        output: output.flatten().boxed(),
        resize: Box::new(|_| async { Ok(()) }.boxed()),
        exit: async move { Ok(Some(code)) }.boxed(),
    };
    async move { Ok(session) }.boxed()
}

pub fn looking(start: Starting, wanted: StdStreams, protocol: &'static Protocol) -> Looking {
    Looking { start, wanted, protocol, failure: "error executing command in container" }
}

/// A client that speaks SPDY.
struct Client {
    io: DuplexStream,
    encoder: Encoder,
    decoder: Decoder,
}

impl Client {
    fn new(io: DuplexStream) -> Self {
        Self { io, encoder: Encoder::default(), decoder: Decoder::default() }
    }

    async fn send(&mut self, frame: Frame) {
        let mut bytes = BytesMut::new();
        self.encoder.encode(&frame, &mut bytes);
        self.io.write_all(&bytes).await.unwrap();
    }

    async fn open(&mut self, id: u32, kind: &str) {
        let headers = vec![("streamtype".to_owned(), kind.to_owned())];
        self.send(Frame::SynStream { id, fin: false, unidirectional: false, headers }).await;
    }

    async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.decoder.frame().unwrap() {
                return Some(frame);
            }
            if self.io.read_buf(self.decoder.buffer()).await.unwrap() == 0 {
                return None;
            }
        }
    }

    /// Everything that comes until the server closes, by stream, and how many streams were finished.
    async fn rest(&mut self) -> (BTreeMap<u32, Vec<u8>>, usize) {
        let (mut all, mut finished) = (BTreeMap::<u32, Vec<u8>>::new(), 0);
        while let Some(frame) = self.next().await {
            if let Frame::Data { id, fin, bytes } = frame {
                all.entry(id).or_default().extend_from_slice(&bytes);
                finished += usize::from(fin);
            }
        }
        (all, finished)
    }
}

#[tokio::test]
async fn a_command_gets_its_input_and_gives_its_outputs_and_exit_code_over_spdy() {
    let (io, client) = tokio::io::duplex(1 << 12);
    let serving = tokio::spawn(serve(io, looking(cat(3), ALL, protocol("v4.channel.k8s.io", true))));
    let mut client = Client::new(client);
    for (id, kind) in [(1, "error"), (3, "stdin"), (5, "stdout"), (7, "stderr")] {
        client.open(id, kind).await;
        assert_eq!(client.next().await, Some(Frame::SynReply { id, fin: false, headers: vec![] }));
    }
    client.send(Frame::Ping { id: 9 }).await;
    assert_eq!(client.next().await, Some(Frame::Ping { id: 9 }));
    let sent: Vec<u8> = (0..200_000u32).map(|n| n.to_be_bytes()[3]).collect();
    for piece in sent.chunks(3000) {
        client.send(Frame::Data { id: 3, fin: false, bytes: Bytes::copy_from_slice(piece) }).await;
    }
    client.send(Frame::Data { id: 3, fin: true, bytes: Bytes::new() }).await;
    let (all, finished) = client.rest().await;
    assert!(all[&5] == sent);
    assert_eq!((all[&7].as_slice(), finished), (&b"warn"[..], 3));
    let status: Value = serde_json::from_slice(&all[&1]).unwrap();
    assert_eq!(status["reason"], "NonZeroExitCode");
    assert_eq!(status["details"]["causes"], json!([{"reason": "ExitCode", "message": "3"}]));
    drop(client);
    serving.await.unwrap();
}

#[tokio::test]
async fn old_clients_are_told_of_failures_in_words_and_of_success_in_none() {
    for (code, expected) in [(0, None), (1, Some(&b"command terminated with non-zero exit code: exit status 1"[..]))] {
        let (io, client) = tokio::io::duplex(1 << 12);
        let wanted = StdStreams { stderr: false, ..ALL };
        let serving = tokio::spawn(serve(io, looking(cat(code), wanted, protocol("channel.k8s.io", true))));
        let mut client = Client::new(client);
        for (id, kind) in [(1, "error"), (3, "stdin"), (5, "stdout")] {
            client.open(id, kind).await;
        }
        client.send(Frame::Data { id: 3, fin: true, bytes: Bytes::new() }).await;
        let (all, _) = client.rest().await;
        assert_eq!(all[&1], expected.unwrap_or_default());
        drop(client);
        serving.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_opens_no_streams_is_given_up_and_nothing_is_started() {
    let (io, client) = tokio::io::duplex(1 << 12);
    let start = async { panic!("started") }.boxed();
    let mut client = Client::new(client);
    client.open(1, "error").await;
    let started = crate::host::clock::Instant::now();
    let serving = tokio::spawn(serve(io, looking(start, ALL, protocol("v4.channel.k8s.io", true))));
    while client.next().await.is_some() {}
    assert_eq!(started.elapsed(), OPENING);
    drop(client);
    serving.await.unwrap();
}

#[tokio::test]
async fn a_command_is_left_when_its_client_leaves() {
    let (io, client) = tokio::io::duplex(1 << 12);
    let serving = tokio::spawn(serve(io, looking(cat(0), ALL, protocol("v4.channel.k8s.io", true))));
    let mut client = Client::new(client);
    for (id, kind) in [(1, "error"), (3, "stdin"), (5, "stdout"), (7, "stderr")] {
        client.open(id, kind).await;
    }
    client.next().await.unwrap();
    drop(client);
    serving.await.unwrap();
}

#[tokio::test]
async fn over_a_web_socket_everything_is_on_its_channel() {
    let (io, client) = tokio::io::duplex(1 << 12);
    let serving = tokio::spawn(serve(io, looking(cat(0), ALL, protocol("v5.channel.k8s.io", false))));
    let mut client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
    for message in [&b"\0hello"[..], b"\xff\0"] {
        client.send(Message::Binary(Bytes::copy_from_slice(message))).await.unwrap();
    }
    let mut all = Vec::new();
    while let Some(Ok(Message::Binary(bytes))) = client.next().await {
        all.push(bytes.to_vec());
    }
    let status = [&[ERROR][..], br#"{"metadata":{},"status":"Success"}"#].concat();
    let expected = [&b"\x01"[..], b"\x02warn", b"\x01hello", &status];
    assert_eq!(all, expected.map(<[u8]>::to_vec));
    drop(client);
    serving.await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_started_is_an_internal_error() {
    let (io, client) = tokio::io::duplex(1 << 12);
    let start = async { Err(RuntimeError::Conflict { message: "container x is not running".into() }) }.boxed();
    let wanted = StdStreams { stdout: true, ..StdStreams::default() };
    let serving = tokio::spawn(serve(io, looking(start, wanted, protocol("v4.channel.k8s.io", true))));
    let mut client = Client::new(client);
    client.open(1, "error").await;
    client.open(3, "stdout").await;
    let (all, _) = client.rest().await;
    let status: Value = serde_json::from_slice(&all[&1]).unwrap();
    assert_eq!((&status["reason"], &status["code"]), (&json!("InternalError"), &json!(500)));
    let words = "Internal error occurred: error executing command in container: conflict: container x is not running";
    assert_eq!(status["message"], words);
    drop(client);
    serving.await.unwrap();
}

#[test]
fn sizes_are_read_one_behind_the_other() {
    let (found, used) = parse_sizes(br#"{"Width":80,"Height":24}{"Width":0,"Height":1} {"Width":1"#);
    assert_eq!(found, [Size { width: 80, height: 24 }]);
    assert_eq!(&br#"{"Width":80,"Height":24}{"Width":0,"Height":1} {"Width":1"#[used..], br#" {"Width":1"#);
}

#[test]
fn a_query_says_which_streams_there_are() {
    let of = |query: &str| wanted(&Query::of(Some(query)));
    assert_eq!(of("input=1&output=1&error=1"), Ok(ALL));
    assert_eq!(of("output=1&error=1&tty=1"), Ok(StdStreams { stdout: true, tty: true, ..StdStreams::default() }));
    assert!(of("command=ls").is_err());
}
