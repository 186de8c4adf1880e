use bytes::BytesMut;
use futures::{FutureExt, SinkExt, StreamExt, stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::super::command::{self, Looking};
use super::super::negotiate::{COMMANDS, Transport};
use super::*;
use crate::agent::server::stream::spdy::protocol::{Decoder, Encoder, Frame};
use crate::runtime::streaming::{Session, StdStreams};

const LONG: Duration = Duration::from_secs(3600);
/// Longer than a session stays when its client is gone, also on a busy machine.
const SOON: Duration = Duration::from_secs(30);

/// A client's end and the server's, watched.
async fn pair() -> (TcpStream, Watched<TcpStream>, Watch) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    let socket = server.as_fd().try_clone_to_owned().unwrap();
    let (io, watch) = watched(server, Bytes::new(), socket).unwrap();
    (client, io, watch)
}

/// A command that takes no input, says nothing and does not end, over this protocol.
fn deaf(name: &str, spdy: bool) -> (Looking, tokio::io::DuplexStream) {
    let (input, kept) = tokio::io::duplex(1);
    let session = Session {
        input: Some(Box::new(input)),
        output: stream::pending().boxed(),
        resize: Box::new(|_| async { Ok(()) }.boxed()),
        exit: std::future::pending().boxed(),
    };
    let protocol = COMMANDS.iter().find(|one| one.name == name && (one.transport == Transport::Spdy) == spdy).unwrap();
    let wanted = StdStreams { stdin: true, stdout: true, stderr: false, tty: false };
    (Looking { start: async { Ok(session) }.boxed(), wanted, protocol, failure: "f" }, kept)
}

#[tokio::test]
async fn a_spdy_session_whose_input_is_taken_by_no_process_ends_with_its_client() {
    let (mut client, io, watch) = pair().await;
    let (looking, _kept) = deaf("v4.channel.k8s.io", true);
    let session = tokio::spawn(async move { while_there(&watch, LONG, command::serve(io, looking)).await });
    let (mut encoder, mut decoder, mut bytes) = (Encoder::default(), Decoder::default(), BytesMut::new());
    for (id, kind) in [(1, "error"), (3, "stdin"), (5, "stdout")] {
        let headers = vec![("streamtype".to_owned(), kind.to_owned())];
        encoder.encode(&Frame::SynStream { id, fin: false, unidirectional: false, headers }, &mut bytes);
    }
    // More pieces than are kept for a command.
    for _ in 0..100 {
        encoder.encode(&Frame::Data { id: 3, fin: false, bytes: Bytes::from_static(b"x") }, &mut bytes);
    }
    client.write_all(&bytes).await.unwrap();
    // All streams are taken, so that what follows them has been read too.
    let mut taken = 0;
    while taken < 3 {
        match decoder.frame().unwrap() {
            Some(_) => taken += 1,
            None => assert_ne!(client.read_buf(decoder.buffer()).await.unwrap(), 0),
        }
    }
    drop(client);
    tokio::time::timeout(SOON, session).await.expect("the session ends").unwrap();
}

#[tokio::test]
async fn a_web_socket_session_whose_input_is_taken_by_no_process_ends_with_its_client() {
    let (client, io, watch) = pair().await;
    let (looking, _kept) = deaf("v5.channel.k8s.io", false);
    let session = tokio::spawn(async move { while_there(&watch, LONG, command::serve(io, looking)).await });
    let mut client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
    for _ in 0..100 {
        client.send(Message::Binary(Bytes::from_static(b"\0x"))).await.unwrap();
    }
    // The first message says that the session is there.
    client.next().await.unwrap().unwrap();
    drop(client);
    tokio::time::timeout(SOON, session).await.expect("the session ends").unwrap();
}

#[tokio::test]
async fn what_a_client_had_sent_before_it_left_is_still_taken() {
    let (mut client, mut io, watch) = pair().await;
    client.write_all(b"all of it").await.unwrap();
    drop(client);
    let mut got = Vec::new();
    let session = async {
        watch.left().await;
        io.read_to_end(&mut got).await.unwrap();
    };
    while_there(&watch, LONG, session).await;
    assert_eq!(got, b"all of it");
}

#[tokio::test(start_paused = true)]
async fn a_session_lives_as_long_as_something_goes_either_way() {
    let (mut client, io, watch) = pair().await;
    let started = Instant::now();
    let session = async move {
        let (mut reading, mut writing) = tokio::io::split(io);
        let writes = async {
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_secs(40)).await;
                writing.write_all(b"x").await.unwrap();
            }
            std::future::pending::<()>().await;
        };
        let mut buffer = [0; 8];
        tokio::select! {
            () = writes => {}
            _ = reading.read(&mut buffer) => panic!("the client says nothing"),
        }
    };
    while_there(&watch, Duration::from_secs(60), session).await;
    assert_eq!(started.elapsed().as_secs(), 3 * 40 + 60);
    client.read_exact(&mut [0; 3]).await.unwrap();
}

#[tokio::test]
async fn what_was_read_before_the_connection_was_turned_over_comes_first() {
    let (mut client, mut io, _watch) = pair().await;
    io.read = Bytes::from_static(b"before ");
    client.write_all(b"after").await.unwrap();
    drop(client);
    let mut all = String::new();
    io.read_to_string(&mut all).await.unwrap();
    assert_eq!(all, "before after");
}
