//! The kubelet's API of an agent on a real Docker daemon, or the containerd whose socket `KUBEBOOT_TEST_CRI` names: over
//! TLS, with clients of our own that speak SPDY and WebSockets.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::collections::BTreeMap;
use std::ops::Deref;

use bytes::{Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use kubeboot::agent::options::{Authorization, ServerOptions};
use kubeboot::agent::server::stream::spdy::protocol::{Decoder, Encoder, Frame};
use kubeboot::testing::Machine;
use kubeboot::testing::real::engine::Kind;
use kubeboot::testing::real::image::IMAGE;
use kubeboot::testing::real::ports;
use kubeboot::testing::real::wait::LIMIT;
use kubeboot::testing::tls::connector;
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

const V5: &str = "v5.channel.k8s.io";

/// A machine whose agent serves the kubelet's API, with a pod `web` that runs.
struct Served {
    machine: Machine,
    port: u16,
}

impl Deref for Served {
    type Target = Machine;

    fn deref(&self) -> &Machine {
        &self.machine
    }
}

impl Served {
    /// `spec` are further lines of the pod's spec; `command` is what its container runs.
    async fn start(spec: &str, command: &str, change: impl FnOnce(&mut ServerOptions)) -> Self {
        let (machine, port) = (Machine::new(), ports::free());
        let mut options = machine.options();
        options.server = ServerOptions {
            listen: Some(([127, 0, 0, 1], port).into()),
            anonymous: true,
            tokens: false,
            authorization: Authorization::AlwaysAllow,
            ..ServerOptions::default()
        };
        change(&mut options.server);
        let manifest = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: web}}\nspec:\n  terminationGracePeriodSeconds: 1\n{spec}  \
             containers:\n  - name: main\n    image: {IMAGE}\n    imagePullPolicy: Never\n    stdin: true\n    command: [sh, \
             -c, {command:?}]\n"
        );
        machine.write("web.yaml", manifest);
        machine.embed(options);
        machine.healthy("web").await;
        Self { machine, port }
    }

    async fn connect(&self) -> TlsStream<TcpStream> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        connector().connect(ServerName::try_from("node1").unwrap(), stream).await.unwrap()
    }

    /// Status and body of an answer, to its end.
    async fn get(&self, path: &str) -> (u16, String) {
        let mut stream = self.connect().await;
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // A peer that closes without a farewell of TLS is no matter of these tests.
        let _ = tokio::time::timeout(LIMIT, stream.read_to_end(&mut answer)).await.unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// A connection that has been turned over, or the status of the refusal.
    async fn upgrade(&self, path: &str, method: &str, headers: &str) -> Result<TlsStream<TcpStream>, u16> {
        let mut stream = self.connect().await;
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nContent-Length: 0\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        let status: u16 = head.split(' ').nth(1).unwrap().parse().unwrap();
        if status == 101 { Ok(stream) } else { Err(status) }
    }

    async fn web_socket(&self, path: &str, protocol: &str) -> Result<WebSocketStream<TlsStream<TcpStream>>, u16> {
        let headers = format!(
            "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: {protocol}\r\n"
        );
        let stream = self.upgrade(path, "GET", &headers).await?;
        Ok(WebSocketStream::from_raw_socket(stream, Role::Client, None).await)
    }

    async fn spdy(&self, path: &str, protocol: &str) -> Spdy {
        let headers = format!("Upgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: {protocol}\r\n");
        let io = self.upgrade(path, "POST", &headers).await.unwrap();
        Spdy { io, encoder: Encoder::default(), decoder: Decoder::default() }
    }
}

/// A client that speaks SPDY.
struct Spdy {
    io: TlsStream<TcpStream>,
    encoder: Encoder,
    decoder: Decoder,
}

impl Spdy {
    async fn send(&mut self, frame: Frame) {
        let mut bytes = BytesMut::new();
        self.encoder.encode(&frame, &mut bytes);
        self.io.write_all(&bytes).await.unwrap();
        self.io.flush().await.unwrap();
    }

    async fn open(&mut self, id: u32, headers: &[(&str, &str)]) {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.send(Frame::SynStream { id, fin: false, unidirectional: false, headers }).await;
    }

    async fn data(&mut self, id: u32, fin: bool, bytes: &[u8]) {
        self.send(Frame::Data { id, fin, bytes: Bytes::copy_from_slice(bytes) }).await;
    }

    /// What comes until so many streams are finished, by stream.
    async fn until_finished(&mut self, mut streams: usize) -> BTreeMap<u32, Vec<u8>> {
        let mut all = BTreeMap::<u32, Vec<u8>>::new();
        while streams > 0 {
            match self.decoder.frame().unwrap() {
                Some(Frame::Data { id, fin, bytes }) => {
                    all.entry(id).or_default().extend_from_slice(&bytes);
                    streams -= usize::from(fin);
                }
                Some(_) => {}
                None => assert_ne!(self.io.read_buf(self.decoder.buffer()).await.unwrap(), 0, "closed: {all:?}"),
            }
        }
        all
    }
}

/// What comes on each channel until the server closes.
async fn by_channel(socket: &mut WebSocketStream<TlsStream<TcpStream>>) -> BTreeMap<u8, Vec<u8>> {
    let mut all = BTreeMap::<u8, Vec<u8>>::new();
    while let Some(Ok(message)) = tokio::time::timeout(LIMIT, socket.next()).await.unwrap() {
        if let Message::Binary(bytes) = message {
            all.entry(bytes[0]).or_default().extend_from_slice(&bytes[1..]);
        }
    }
    all
}

fn random(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    aws_lc_rs::rand::fill(&mut bytes).unwrap();
    bytes
}

/// The container gives its input back line by line.
const ECHO: &str = "trap 'exit 0' TERM; echo begun; while read line; do echo got $line; done; sleep 100000 & wait";
const TARGET: &str = "default/web-node1/main";

#[tokio::test(flavor = "multi_thread")]
async fn commands_run_over_spdy_with_their_streams_whole() {
    let machine = Served::start("  hostNetwork: true\n", ECHO, |_| {}).await;
    let path = format!(
        "/exec/{TARGET}?input=1&output=1&error=1&command=sh&command=-c&command=cat;echo%20warn%20%3E%262;exit%203"
    );
    let mut client = machine.spdy(&path, "v4.channel.k8s.io").await;
    for (id, kind) in [(1, "error"), (3, "stdin"), (5, "stdout"), (7, "stderr")] {
        client.open(id, &[("streamtype", kind)]).await;
    }
    let sent = random(3 << 20);
    let Spdy { io, mut encoder, decoder } = client;
    let (reading, mut writing) = tokio::io::split(io);
    let expected = sent.clone();
    let sending = tokio::spawn(async move {
        let mut bytes = BytesMut::new();
        for piece in sent.chunks(32 << 10) {
            encoder.encode(&Frame::Data { id: 3, fin: false, bytes: Bytes::copy_from_slice(piece) }, &mut bytes);
            writing.write_all_buf(&mut bytes).await.unwrap();
        }
        encoder.encode(&Frame::Data { id: 3, fin: true, bytes: Bytes::new() }, &mut bytes);
        writing.write_all_buf(&mut bytes).await.unwrap();
        writing.flush().await.unwrap();
        (writing, encoder)
    });
    let (mut reading, mut decoder, mut all) = (reading, decoder, BTreeMap::<u32, Vec<u8>>::new());
    let mut finished = 0;
    while finished < 3 {
        match decoder.frame().unwrap() {
            Some(Frame::Data { id, fin, bytes }) => {
                all.entry(id).or_default().extend_from_slice(&bytes);
                finished += usize::from(fin);
            }
            Some(_) => {}
            // containerd closes the connection rather than each stream.
            None if reading.read_buf(decoder.buffer()).await.unwrap() == 0 => break,
            None => {}
        }
    }
    drop(sending.await.unwrap());
    assert!(all[&5] == expected, "{} of {} bytes came back, or others", all[&5].len(), expected.len());
    assert_eq!(all[&7], b"warn\n");
    let status: Value = serde_json::from_slice(&all[&1]).unwrap();
    assert_eq!(
        (&status["reason"], &status["details"]["causes"][0]["message"]),
        (&"NonZeroExitCode".into(), &"3".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_has_a_size_and_a_container_is_looked_at_over_web_sockets() {
    let machine = Served::start("  hostNetwork: true\n", ECHO, |_| {}).await;
    let path = format!("/exec/{TARGET}?input=1&output=1&tty=1&command=sh");
    let mut socket = machine.web_socket(&path, V5).await.unwrap();
    socket.send(Message::Binary(Bytes::from_static(b"\x04{\"Width\":91,\"Height\":37}"))).await.unwrap();
    socket.send(Message::Binary(Bytes::from_static(b"\0sleep 1; stty size; exit 4\n"))).await.unwrap();
    let all = by_channel(&mut socket).await;
    let shown = String::from_utf8_lossy(&all[&1]).into_owned();
    assert!(shown.contains("37 91"), "{shown}");
    assert!(String::from_utf8_lossy(&all[&3]).contains("\"message\":\"4\""));
    // Only the fifth protocol tells that the input has ended.
    let path = format!("/exec/{TARGET}?input=1&output=1&command=cat");
    let mut socket = machine.web_socket(&path, V5).await.unwrap();
    for message in [&b"\0to the end"[..], &[255, 0]] {
        socket.send(Message::Binary(Bytes::copy_from_slice(message))).await.unwrap();
    }
    let all = by_channel(&mut socket).await;
    assert_eq!(all[&1], b"to the end");
    assert!(String::from_utf8_lossy(&all[&3]).contains("Success"));
    // The container's own main process.
    let path = format!("/attach/{TARGET}?input=1&output=1&error=1");
    let mut socket = machine.web_socket(&path, V5).await.unwrap();
    socket.send(Message::Binary(Bytes::from_static(b"\0hello\n"))).await.unwrap();
    let mut got = Vec::new();
    while !got.ends_with(b"got hello\n") {
        let message = tokio::time::timeout(LIMIT, socket.next()).await.unwrap().unwrap().unwrap();
        got.extend_from_slice(&message.into_data()[1..]);
    }
    drop(socket);
    let (status, log) = machine.get(&format!("/containerLogs/{TARGET}?tailLines=1")).await;
    assert_eq!(status, 200);
    assert!(log.contains("got hello"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_run_is_told_in_the_kubelets_way() {
    let machine = Served::start("  hostNetwork: true\n", ECHO, |_| {}).await;
    let path = format!("/exec/{TARGET}?output=1&command=no-such-program");
    let mut socket = machine.web_socket(&path, "v4.channel.k8s.io").await.unwrap();
    let all = by_channel(&mut socket).await;
    let status: Value = serde_json::from_slice(&all[&3]).unwrap();
    if Kind::chosen() == Kind::Containerd {
        // A runtime's own server does not give such an end a code.
        assert_eq!(status["reason"], "InternalError", "{status}");
        assert!(status["message"].as_str().unwrap().contains("no-such-program"), "{status}");
    } else {
        assert_eq!(status["reason"], "NonZeroExitCode");
        assert!(["126", "127"].contains(&status["details"]["causes"][0]["message"].as_str().unwrap()), "{status}");
    }
    for (path, expected) in [
        ("/exec/default/web-node1/other?output=1&command=true", 500),
        ("/exec/default/none/main?output=1&command=true", 404),
        ("/exec/default/web-node1/stale-uid/main?output=1&command=true", 404),
        ("/exec/default/web-node1/main?command=true", 400),
        ("/attach/default/none/main?output=1", 404),
        ("/portForward/default/none", 404),
    ] {
        assert_eq!(machine.web_socket(path, V5).await.err(), Some(expected), "{path}");
    }
    assert_eq!(machine.get(&path).await.0, 400, "no upgrade was asked for");
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_of_a_pod_with_a_network_of_its_own_are_reached() {
    let shout = "trap 'exit 0' TERM; while :; do nc -l -p 7777 -e sh -c 'read x; echo you said $x'; done & wait";
    let machine = Served::start("", shout, |_| {}).await;
    let mut client = machine.spdy("/portForward/default/web-node1", "portforward.k8s.io").await;
    for (first, port, expected) in [(1, "7777", "you said hello\n"), (5, "7778", "")] {
        let of = |kind| [("streamtype", kind), ("port", port), ("requestid", port)];
        client.open(first, &of("error")).await;
        client.data(first, true, b"").await;
        client.open(first + 2, &of("data")).await;
        client.data(first + 2, false, b"hello\n").await;
        let all = tokio::time::timeout(LIMIT, client.until_finished(2)).await.unwrap();
        assert_eq!(String::from_utf8_lossy(all.get(&(first + 2)).map_or(&[][..], Vec::as_slice)), expected);
        let error = String::from_utf8_lossy(&all[&first]).into_owned();
        assert_eq!(error.starts_with("error forwarding port 7778 to pod web-node1"), expected.is_empty(), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_is_measured_and_told_in_three_ways() {
    let busy = "trap 'exit 0' TERM; i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; sleep 100000 & wait";
    let machine = Served::start("", busy, |_| {}).await;
    let (status, summary) = machine.get("/stats/summary").await;
    assert_eq!(status, 200);
    let summary: Value = serde_json::from_str(&summary).unwrap();
    let container = &summary["pods"][0]["containers"][0];
    assert_eq!((&summary["node"]["nodeName"], &container["name"]), (&"node1".into(), &"main".into()));
    for at in ["/node/cpu/usageNanoCores", "/node/memory/workingSetBytes", "/node/fs/capacityBytes"] {
        assert!(summary.pointer(at).is_some_and(Value::is_u64), "{at}: {summary}");
    }
    for at in ["/cpu/usageCoreNanoSeconds", "/cpu/usageNanoCores", "/memory/workingSetBytes"] {
        assert!(container.pointer(at).is_some_and(Value::is_u64), "{at}: {container}");
    }
    assert!(container["cpu"]["usageCoreNanoSeconds"].as_u64() > Some(10_000_000), "{container}");
    let (_, only) = machine.get("/stats/summary?only_cpu_and_memory=true").await;
    assert!(!only.contains("imageFs"), "{only}");
    for (path, line) in [
        (
            "/metrics/resource",
            "container_cpu_usage_seconds_total{container=\"main\",namespace=\"default\",pod=\"web-node1\"} ",
        ),
        ("/metrics/cadvisor", "container_memory_working_set_bytes{container=\"main\",id=\"/kubepods/besteffort/pod"),
        ("/metrics", "kubelet_running_pods 1"),
        ("/metrics/probes", "# TYPE prober_probe_total counter"),
    ] {
        let (status, text) = machine.get(path).await;
        assert!(status == 200 && text.contains(line), "{path}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_gets_nothing_and_debugging_can_be_turned_off() {
    let machine = Served::start("  hostNetwork: true\n", ECHO, |server| server.anonymous = false).await;
    for path in ["/pods", "/healthz", "/metrics", "/logs/", "/none", &format!("/containerLogs/{TARGET}")] {
        assert_eq!(machine.get(path).await, (401, "Unauthorized".to_owned()), "{path}");
    }
    drop(machine);
    let machine = Served::start("  hostNetwork: true\n", ECHO, |server| server.debugging = false).await;
    assert_eq!(machine.get("/healthz").await, (200, "ok".to_owned()));
    let (status, words) = machine.get(&format!("/containerLogs/{TARGET}")).await;
    assert_eq!((status, words.as_str()), (405, "Debug endpoints are disabled.\n"));
    assert_eq!(machine.web_socket(&format!("/exec/{TARGET}?output=1&command=true"), V5).await.err(), Some(405));
}
