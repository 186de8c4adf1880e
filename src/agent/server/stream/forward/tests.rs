use futures::{SinkExt, StreamExt};
use tokio::io::DuplexStream;
use tokio::net::TcpListener;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::super::negotiate::FORWARDS;
use super::*;
use crate::agent::server::stream::spdy::protocol::{Decoder, Encoder, Frame};

fn forwarding(name: &str, ports: Vec<u16>) -> Forwarding {
    let protocol = FORWARDS.iter().find(|one| one.name == name).unwrap();
    Forwarding { network: Network::Host, pod: "p-n, uid u".into(), ports, protocol }
}

/// A port that answers what it receives, in capitals, once everything is said.
async fn shouting() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut reported = Vec::new();
                socket.read_to_end(&mut reported).await.unwrap();
                socket.write_all(&reported.to_ascii_uppercase()).await.unwrap();
            });
        }
    });
    port
}

async fn closed() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

/// Opens a connection's two streams and says something. Returns what comes back, by stream.
async fn exchange<I>(mut io: I, codec: &mut (Encoder, Decoder), first: u32, port: u16) -> HashMap<u32, Vec<u8>>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let (encoder, decoder) = codec;
    let mut bytes = BytesMut::new();
    for (id, kind) in [(first, "error"), (first + 2, "data")] {
        let headers = [("streamtype", kind), ("port", &port.to_string()), ("requestid", "0")];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        encoder.encode(&Frame::SynStream { id, fin: false, unidirectional: false, headers }, &mut bytes);
    }
    encoder.encode(&Frame::Data { id: first, fin: true, bytes: Bytes::new() }, &mut bytes);
    encoder.encode(&Frame::Data { id: first + 2, fin: true, bytes: Bytes::from_static(b"hello") }, &mut bytes);
    io.write_all(&bytes).await.unwrap();
    io.flush().await.unwrap();
    let (mut all, mut open) = (HashMap::<u32, Vec<u8>>::new(), 2);
    while open > 0 {
        match decoder.frame().unwrap() {
            Some(Frame::Data { id, fin, bytes }) => {
                all.entry(id).or_default().extend_from_slice(&bytes);
                open -= usize::from(fin);
            }
            Some(_) => {}
            None => assert_ne!(io.read_buf(decoder.buffer()).await.unwrap(), 0, "closed too early"),
        }
    }
    all
}

fn connected(forwarding: Forwarding) -> (DuplexStream, tokio::task::JoinHandle<()>) {
    let (io, client) = tokio::io::duplex(1 << 12);
    (client, tokio::spawn(serve(io, forwarding)))
}

#[tokio::test]
async fn a_port_is_spoken_with_over_spdy_and_a_closed_one_is_an_error() {
    let (mut client, serving) = connected(forwarding("portforward.k8s.io", vec![]));
    let mut codec = <(Encoder, Decoder)>::default();
    let all = exchange(&mut client, &mut codec, 1, shouting().await).await;
    assert_eq!((all[&1].as_slice(), all[&3].as_slice()), (&b""[..], &b"HELLO"[..]));
    let port = closed().await;
    let all = exchange(&mut client, &mut codec, 5, port).await;
    let words = String::from_utf8(all[&5].clone()).unwrap();
    assert!(words.starts_with(&format!("error forwarding port {port} to pod p-n, uid u: ")), "{words}");
    drop(client);
    serving.await.unwrap();
}

#[tokio::test]
async fn spdy_goes_through_a_web_socket_too() {
    let (client, serving) = connected(forwarding("SPDY/3.1+portforward.k8s.io", vec![]));
    let mut client = Tunnel::new(WebSocketStream::from_raw_socket(client, Role::Client, None).await);
    let all = exchange(&mut client, &mut Default::default(), 1, shouting().await).await;
    assert_eq!(all[&3], b"HELLO");
    drop(client);
    serving.await.unwrap();
}

#[tokio::test]
async fn a_web_socket_has_two_channels_a_port() {
    let port = closed().await;
    let (client, serving) = connected(forwarding("v4.channel.k8s.io", vec![port]));
    let mut client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
    client.send(Message::Binary(Bytes::from_static(b"\0x"))).await.unwrap();
    let mut all = Vec::new();
    while let Some(Ok(Message::Binary(bytes))) = client.next().await {
        all.push(bytes);
    }
    let head = |channel: u8| [&[channel][..], &port.to_le_bytes()].concat();
    assert_eq!(all[..2], [head(0), head(1)]);
    assert!(all[2].starts_with(b"\x01error forwarding port"), "{:?}", all[2]);
    drop(client);
    serving.await.unwrap();
}

#[test]
fn ports_are_read_once_each() {
    assert_eq!(ports(["80,443", "80", ""].into_iter()).unwrap(), [80, 443]);
    assert!(ports(["http"].into_iter()).is_err() && ports(["0"].into_iter()).is_err());
}
