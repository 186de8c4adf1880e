use std::convert::Infallible;

use futures::{FutureExt, TryStreamExt};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::super::command::tests::{ALL, cat, looking};
use super::super::{command, negotiate};
use super::*;
use crate::agent::server::http::Body;

const FAILURE: &str = "error executing command in container";

/// A runtime that serves one request with what starts then, as runtimes do.
async fn runtime(start: impl Fn() -> Starting + Send + Sync + 'static, wanted: StdStreams) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/exec/token", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let service = service_fn(|mut request: Request<Incoming>| {
            let answer = negotiate::negotiate(request.headers(), negotiate::COMMANDS).map(|(protocol, response)| {
                let (upgrade, start) = (hyper::upgrade::on(&mut request), start());
                tokio::spawn(async move {
                    let looked = looking(start, wanted, protocol);
                    command::serve(TokioIo::new(upgrade.await.unwrap()), looked).await;
                });
                response
            });
            async move { Ok::<Response<Body>, Infallible>(answer.unwrap_or_else(|refusal| refusal)) }
        });
        let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        connection.with_upgrades().await.unwrap();
    });
    url
}

async fn all(session: Session) -> (Vec<u8>, Vec<u8>, Result<Option<i64>>) {
    let pieces: Vec<_> = session.output.try_collect().await.unwrap();
    let of = |from| pieces.iter().filter(|(one, _)| *one == from).flat_map(|(_, bytes)| bytes.to_vec()).collect();
    (of(Output::Stdout), of(Output::Stderr), session.exit.await)
}

#[tokio::test]
async fn input_output_and_exit_code_go_through() {
    let url = runtime(|| cat(3), ALL).await;
    let mut session = session(url, ALL, FAILURE).await.unwrap();
    let text = "x".repeat(3 * INPUT);
    let mut input = session.input.take().unwrap();
    input.write_all(text.as_bytes()).await.unwrap();
    input.shutdown().await.unwrap();
    let (stdout, stderr, exit) = all(session).await;
    assert!(stdout == text.as_bytes());
    assert_eq!((stderr.as_slice(), exit.unwrap()), (b"warn".as_slice(), Some(3)));
}

#[tokio::test]
async fn a_command_without_input_is_waited_for_as_well() {
    let wanted = StdStreams { stdin: false, stderr: false, ..ALL };
    let session = session(runtime(|| cat(0), wanted).await, wanted, FAILURE).await.unwrap();
    assert!(session.input.is_none());
    let (stdout, stderr, exit) = all(session).await;
    assert_eq!((stdout.len(), stderr.len(), exit.unwrap()), (0, 0, Some(0)));
}

#[tokio::test]
async fn a_terminals_size_is_told() {
    let wanted = StdStreams { stderr: false, tty: true, ..ALL };
    let (reported, mut sizes) = mpsc::channel(4);
    let start = move || {
        let reported = reported.clone();
        let resize = move |size| {
            let reported = reported.clone();
            async move { reported.send(size).await.map_err(refused) }.boxed()
        };
        cat(0).map(|session| session.map(|session| Session { resize: Box::new(resize), ..session })).boxed()
    };
    let mut session = session(runtime(start, wanted).await, wanted, FAILURE).await.unwrap();
    let size = Size { width: 80, height: 24 };
    (session.resize)(size).await.unwrap();
    assert_eq!(sizes.recv().await, Some(size));
    drop(session.input.take());
    assert_eq!(all(session).await.2.unwrap(), Some(0));
}

#[tokio::test]
async fn what_fails_is_said_once() {
    let failed = || async { Err(refused("no such file")) }.boxed();
    let session = session(runtime(failed, ALL).await, ALL, FAILURE).await.unwrap();
    let error = all(session).await.2.unwrap_err();
    let own = "streams of the container runtime: ";
    assert_eq!(error.to_string(), format!("{own}{own}no such file"), "the second is the fake runtime's");
}

#[tokio::test]
async fn a_runtime_that_turns_nothing_over_says_why() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/exec/token", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 1024]).await;
        let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\ngone").await;
    });
    let Err(error) = session(url, ALL, FAILURE).await else { panic!("there is none") };
    assert_eq!(error.to_string(), "streams of the container runtime: it answers gone");
}

#[test]
fn an_end_is_read_as_the_kubelets_server_writes_it() {
    for (status, expected) in [
        (r#"{"status": "Success"}"#, Ok(Some(0))),
        (
            r#"{"status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": [{"reason": "ExitCode", "message": "7"}]}}"#,
            Ok(Some(7)),
        ),
        (r#"{"status": "Failure", "reason": "NonZeroExitCode"}"#, Err("no number")),
        (r#"{"status": "Failure", "message": "why"}"#, Err(": why")),
        ("", Err("ended before")),
    ] {
        match (outcome(status.as_bytes(), FAILURE), expected) {
            (Ok(code), Ok(expected)) => assert_eq!(code, expected, "{status}"),
            (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{error}"),
            (got, expected) => panic!("{status}: {got:?}, not {expected:?}"),
        }
    }
}
