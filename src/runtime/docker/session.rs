//! Commands and containers with their streams. Docker turns the connection of `exec` and `attach` over to them: bytes in,
//! and bytes out, which without a terminal stand in frames that tell stdout from stderr.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use bollard::exec::CreateExecOptions;
use bollard::query_parameters::{ResizeContainerTTYOptionsBuilder, ResizeExecOptionsBuilder};
use bytes::{Buf, Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadHalf, WriteHalf};
use tokio::net::{TcpStream, UnixStream};
use tokio_util::task::AbortOnDropHandle;

use super::address::Address;
use super::{Docker, podman, translate};
use crate::runtime::streaming::{Output, Session, Size, StdStreams, Streamed, Streaming};
use crate::runtime::{Process, Result, RuntimeError};

/// Bytes that are read at once.
const PIECE: usize = 16 << 10;
/// How long the daemon may take to turn a connection over, as for any call.
const CALL: Duration = Duration::from_secs(120);
/// The most bytes of its reasons that are read.
const REASONS: usize = 64 << 10;
/// A frame's head: the stream, three zeros, and the length.
const HEAD: usize = 8;
const STDERR: u8 = 2;
const EXEC: &str = "run a command in a container";
const ATTACH: &str = "attach to a container";

type Upgraded = TokioIo<hyper::upgrade::Upgraded>;
type Pieces = BoxStream<'static, Result<(Output, Bytes)>>;
type Resizer = Box<dyn Fn(Size) -> BoxFuture<'static, Result<()>> + Send + Sync>;

#[async_trait::async_trait]
impl Streaming for Docker {
    async fn exec(&self, id: &str, command: &[String], wanted: StdStreams) -> Result<Streamed> {
        let (client, address) = (self.client().await?.clone(), self.address.clone());
        let (what, command) = (format!("container {id}"), command.to_vec());
        let (id, podman) = (id.to_owned(), self.is_podman());
        let starting = async move {
            let failed = |error| {
                let error = if podman { podman::as_docker(error) } else { error };
                translate(&address.to_string(), EXEC, &what, error)
            };
            let config = CreateExecOptions {
                cmd: Some(command),
                attach_stdin: Some(wanted.stdin),
                // Docker would send nothing at all, not even the end, of a command of which no output is wanted.
                attach_stdout: Some(true),
                attach_stderr: Some(wanted.stderr),
                tty: Some(wanted.tty),
                ..CreateExecOptions::default()
            };
            let exec = client.create_exec(&id, config).await.map_err(failed)?.id;
            let start = json!({"Detach": false, "Tty": wanted.tty});
            let (output, input) = hijack(&address, &format!("/exec/{exec}/start"), &start, EXEC, &what).await?;
            Ok(Session {
                input: wanted.stdin.then(|| Box::new(input) as _),
                output: pieces(output, wanted.tty),
                resize: resize_exec(&client, &address, &exec),
                exit: exit_code(client, address.to_string(), exec, what).boxed(),
            })
        };
        Ok(Streamed::Session(starting.boxed()))
    }

    async fn attach(&self, id: &str, wanted: StdStreams) -> Result<Streamed> {
        let (client, address) = (self.client().await?.clone(), self.address.clone());
        // Whether its output stands in frames is the container's matter, whatever the client calls a terminal.
        let tty = self.inspect_container(id).await?.config.and_then(|config| config.tty).unwrap_or(false);
        let id = id.to_owned();
        let starting = async move {
            let query = format!("stream=1&stdin={}&stdout=1&stderr=1", u8::from(wanted.stdin));
            let (path, what) = (format!("/containers/{id}/attach?{query}"), format!("container {id}"));
            let (output, input) = hijack(&address, &path, &Value::Null, ATTACH, &what).await?;
            Ok(Session {
                input: wanted.stdin.then(|| Box::new(input) as _),
                output: pieces(output, tty),
                resize: resize_container(&client, &address, &id),
                exit: async { Ok(None) }.boxed(),
            })
        };
        Ok(Streamed::Session(starting.boxed()))
    }
}

impl Docker {
    /// Where the main process of a container is, if it is on this machine.
    pub(super) async fn main_process(&self, id: &str) -> Result<Process> {
        let state = self.inspect_container(id).await?.state.unwrap_or_default();
        let pid = state.pid.filter(|_| self.address.is_local()).and_then(|pid| u32::try_from(pid).ok());
        Ok(Process { pid: pid.filter(|pid| *pid > 0), network_namespace: None })
    }
}

fn resize_exec(client: &bollard::Docker, address: &Address, exec: &str) -> Resizer {
    let (client, address, exec) = (client.clone(), address.to_string(), exec.to_owned());
    Box::new(move |size| {
        let (client, address, exec) = (client.clone(), address.clone(), exec.clone());
        async move {
            let options = ResizeExecOptionsBuilder::new().h(size.height.into()).w(size.width.into()).build();
            client
                .resize_exec(&exec, options)
                .await
                .map_err(|error| translate(&address, "resize a terminal", &exec, error))
        }
        .boxed()
    })
}

fn resize_container(client: &bollard::Docker, address: &Address, id: &str) -> Resizer {
    let (client, address, id) = (client.clone(), address.to_string(), id.to_owned());
    Box::new(move |size| {
        let (client, address, id) = (client.clone(), address.clone(), id.clone());
        async move {
            let options = ResizeContainerTTYOptionsBuilder::new().h(size.height.into()).w(size.width.into()).build();
            client
                .resize_container_tty(&id, options)
                .await
                .map_err(|error| translate(&address, "resize a terminal", &id, error))
        }
        .boxed()
    })
}

/// The exit code of a command whose output has ended. Docker takes it in a moment later, and no event says when.
async fn exit_code(client: bollard::Docker, address: String, exec: String, what: String) -> Result<Option<i64>> {
    let mut pause = Duration::from_millis(1);
    loop {
        let inspected = client.inspect_exec(&exec).await.map_err(|error| translate(&address, EXEC, &what, error))?;
        if let (Some(code), Some(false) | None) = (inspected.exit_code, inspected.running) {
            return Ok(Some(code));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

/// A stream to the daemon.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

async fn connect(address: &Address) -> io::Result<Box<dyn Stream>> {
    Ok(match address {
        Address::Unix(path) => Box::new(UnixStream::connect(path).await?),
        Address::Tcp(host) => Box::new(TcpStream::connect(host).await?),
    })
}

/// Posts `body` to `path`, and takes the connection over: what comes out of it, and what goes in. Not by bollard's `start_exec`
/// and `attach_container`: they have no raw mode, and lose what a terminal says wherever it begins like a frame (a test below
/// says when that has changed).
async fn hijack(
    address: &Address,
    path: &str,
    body: &Value,
    call: &str,
    what: &str,
) -> Result<(ReadHalf<Upgraded>, WriteHalf<Upgraded>)> {
    let asked = tokio::time::timeout(CALL, turned_over(address, path, body, call, what)).await;
    asked.unwrap_or_else(|_| Err(RuntimeError::Timeout { call: call.to_owned(), limit: CALL }))
}

async fn turned_over(
    address: &Address,
    path: &str,
    body: &Value,
    call: &str,
    what: &str,
) -> Result<(ReadHalf<Upgraded>, WriteHalf<Upgraded>)> {
    let unreachable = |source: Box<dyn std::error::Error + Send + Sync>| RuntimeError::Unreachable {
        address: address.to_string(),
        source,
    };
    let stream = connect(address).await.map_err(|error| unreachable(error.into()))?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| unreachable(error.into()))?;
    let connection = AbortOnDropHandle::new(tokio::spawn(connection.with_upgrades()));
    let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
    let request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(header::HOST, "docker")
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "tcp")
        .body(Full::new(body))
        .map_err(|error| unreachable(error.into()))?;
    let answer = sender.send_request(request).await.map_err(|error| unreachable(error.into()))?;
    let status = answer.status();
    if status != StatusCode::SWITCHING_PROTOCOLS {
        let body = Limited::new(answer.into_body(), REASONS).collect().await;
        let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        return Err(refusal(status, &body, call, what));
    }
    let upgraded = hyper::upgrade::on(answer).await.map_err(|error| unreachable(error.into()))?;
    drop(connection);
    Ok(tokio::io::split(TokioIo::new(upgraded)))
}

fn refusal(status: StatusCode, body: &[u8], call: &str, what: &str) -> RuntimeError {
    let reported = serde_json::from_slice::<Value>(body).ok();
    let reported =
        reported.as_ref().and_then(|reported| reported.get("message")).and_then(Value::as_str).map(str::to_owned);
    let message = reported.unwrap_or_else(|| format!("status {status}"));
    match status {
        StatusCode::NOT_FOUND => RuntimeError::NotFound { what: what.to_owned() },
        StatusCode::CONFLICT => RuntimeError::Conflict { message },
        // podman's answer for a container that does not run. Docker has no such words.
        StatusCode::INTERNAL_SERVER_ERROR if podman::is_conflict(&message) => RuntimeError::Conflict { message },
        _ => RuntimeError::Refused { call: call.to_owned(), message },
    }
}

/// What comes out, until it ends: raw with a terminal, else by frames.
fn pieces<R>(output: R, tty: bool) -> Pieces
where
    R: AsyncRead + Send + Unpin + 'static,
{
    let state = (output, BytesMut::new(), Frames { tty, rest: None });
    stream::unfold(Some(state), |state| async move {
        let (mut output, mut buffer, mut frames) = state?;
        let mut ready = VecDeque::new();
        loop {
            frames.take(&mut buffer, &mut ready);
            if !ready.is_empty() {
                return Some((ready, Some((output, buffer, frames))));
            }
            buffer.reserve(PIECE);
            match output.read_buf(&mut buffer).await {
                Ok(1..) => {}
                Ok(0) => return None,
                Err(error) => {
                    let failure = RuntimeError::Refused { call: "read a stream".into(), message: error.to_string() };
                    return Some((VecDeque::from([Err(failure)]), None));
                }
            }
        }
    })
    .flat_map(stream::iter)
    .boxed()
}

/// Where the reading is.
struct Frames {
    tty: bool,
    /// The frame that is being read: where it comes from and how much of it is still to come.
    rest: Option<(Output, usize)>,
}

impl Frames {
    /// Takes what has come, as it comes: a frame need not be there as a whole.
    fn take(&mut self, buffer: &mut BytesMut, ready: &mut VecDeque<Result<(Output, Bytes)>>) {
        if self.tty {
            if !buffer.is_empty() {
                ready.push_back(Ok((Output::Stdout, buffer.split().freeze())));
            }
            return;
        }
        loop {
            if let Some((from, rest)) = self.rest.take() {
                let length = rest.min(buffer.len());
                if length > 0 {
                    ready.push_back(Ok((from, buffer.split_to(length).freeze())));
                }
                if length < rest {
                    self.rest = Some((from, rest - length));
                    return;
                }
            }
            if buffer.len() < HEAD {
                return;
            }
            let from = if buffer[0] == STDERR { Output::Stderr } else { Output::Stdout };
            buffer.advance(HEAD / 2);
            self.rest = Some((from, usize::try_from(buffer.get_u32()).unwrap_or(usize::MAX)));
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;
    use tokio::io::AsyncWriteExt;

    use super::*;

    /// What comes of these bytes, read in pieces of a few.
    async fn read(bytes: &[u8], tty: bool, few: usize) -> (Vec<u8>, Vec<u8>) {
        let (mut into, from) = tokio::io::duplex(few);
        let bytes = bytes.to_vec();
        tokio::spawn(async move { into.write_all(&bytes).await });
        let all: Vec<_> = pieces(from, tty).try_collect().await.unwrap();
        let of =
            |output| all.iter().filter(|(from, _)| *from == output).flat_map(|(_, bytes)| bytes.to_vec()).collect();
        (of(Output::Stdout), of(Output::Stderr))
    }

    #[tokio::test]
    async fn outputs_are_told_apart_however_their_bytes_come() {
        let bytes =
            [&[1, 0, 0, 0, 0, 0, 0, 3][..], b"out", &[2, 0, 0, 0, 0, 0, 0, 3], b"err", &[1, 0, 0, 0, 0, 0, 0, 0]];
        for few in [1, 5, 1000] {
            let (out, err) = read(&bytes.concat(), false, few).await;
            assert_eq!((out.as_slice(), err.as_slice()), (&b"out"[..], &b"err"[..]), "{few} bytes at a time");
        }
    }

    #[tokio::test]
    async fn a_terminal_may_say_what_looks_like_a_frame() {
        let bytes = [1, 0, 0, 0, 0, 0, 0, 200, b'x', 0, 2];
        assert_eq!(read(&bytes, true, 3).await, (bytes.to_vec(), vec![]));
    }

    /// A daemon that turns one connection over, says these bytes and ends it.
    async fn daemon(socket: &std::path::Path, says: &'static [u8]) -> Address {
        let listener = tokio::net::UnixListener::bind(socket).unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"}") {
                stream.read_buf(&mut request).await.unwrap();
            }
            let head = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";
            stream.write_all(head).await.unwrap();
            stream.write_all(says).await.unwrap();
        });
        Address::parse(socket.to_str().unwrap()).unwrap()
    }

    /// Ctrl-A, Ctrl-B, as a terminal's program may send them, and more.
    const LIKE_FRAMES: &[u8] = b"\x01\x02 a line\r\n";

    #[tokio::test]
    async fn a_terminal_that_begins_like_a_frame_is_read_whole_which_the_clients_own_way_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let address = daemon(&dir.path().join("one"), LIKE_FRAMES).await;
        let (output, _input) = hijack(&address, "/exec/e/start", &json!({"Tty": true}), EXEC, "e").await.unwrap();
        let all: Vec<_> = pieces(output, true).try_collect().await.unwrap();
        let all: Vec<u8> = all.into_iter().flat_map(|(_, bytes)| bytes).collect();
        assert_eq!(all, LIKE_FRAMES);
        let address = daemon(&dir.path().join("two"), LIKE_FRAMES).await;
        let options = bollard::exec::StartExecOptions { tty: true, ..Default::default() };
        let started = address.client(CALL).unwrap().start_exec("e", Some(options)).await.unwrap();
        let bollard::exec::StartExecResults::Attached { output, .. } = started else { panic!() };
        let said: Vec<_> = output.map(|piece| piece.unwrap().into_bytes()).collect().await;
        assert_ne!(said.concat(), LIKE_FRAMES, "bollard reads terminals now: hijack() and pieces() can go");
    }

    #[test]
    fn a_refusal_is_read() {
        let body = br#"{"message":"container x is not running"}"#;
        let error = refusal(StatusCode::CONFLICT, body, EXEC, "container x");
        assert!(matches!(error, RuntimeError::Conflict { message } if message == "container x is not running"));
        let body = br#"{"message":"can only create exec sessions on running containers: container state improper"}"#;
        let podmans = refusal(StatusCode::INTERNAL_SERVER_ERROR, body, EXEC, "container x");
        assert!(matches!(podmans, RuntimeError::Conflict { .. }), "{podmans}");
        let error = refusal(StatusCode::BAD_GATEWAY, b"<html>", EXEC, "container x").to_string();
        assert_eq!(error, "run a command in a container: status 502 Bad Gateway");
    }
}
