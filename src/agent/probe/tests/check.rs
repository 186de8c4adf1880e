use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::super::{Checker, Outcome, Prober, Target};
use super::success;
use crate::runtime::{ContainerRuntime, ExecOutput, RuntimeError};
use crate::testing::runtime::{FakeRuntime, container_config};

const LIMIT: Duration = Duration::from_secs(5);

/// What the server was asked: path and query, headers.
type Seen = Arc<Mutex<Vec<(String, HeaderMap)>>>;

async fn answer(seen: Seen, port: u16, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().to_string();
    seen.lock().unwrap().push((path.clone(), request.headers().clone()));
    let (status, location, body) = match path.as_str() {
        "/ok" => (200, None, "ok".to_owned()),
        "/sad" => (500, None, "[+]ping ok\n[-]etcd failed: reason withheld\nreadyz check failed\n".to_owned()),
        "/plain" => (503, None, "starting up\nmore\n".to_owned()),
        "/page" => (404, None, "<html>\n<title>404</title>\n".to_owned()),
        "/here" => (302, Some("/ok".to_owned()), String::new()),
        "/elsewhere" => (302, Some("http://example.invalid/".to_owned()), String::new()),
        "/round" => (302, Some(format!("http://127.0.0.1:{port}/round")), String::new()),
        "/unmodified" => (304, None, String::new()),
        "/forbidden" => (
            403,
            None,
            format!(
                "{:#}",
                serde_json::json!({
                    "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "Forbidden",
                    "message": "forbidden: User \"system:anonymous\" cannot get path \"/livez\"", "code": 403,
                })
            ),
        ),
        "/long" => (500, None, "wort ".repeat(100)),
        "/large" => (200, None, "x".repeat(1 << 20)),
        "/never" => return std::future::pending().await,
        _ => (404, None, String::new()),
    };
    let mut response = Response::builder().status(status);
    if let Some(location) = location {
        response = response.header("Location", location);
    }
    Ok(response.body(Full::new(Bytes::from(body))).unwrap())
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, port: u16, seen: Seen) {
    let service = service_fn(|request| answer(Arc::clone(&seen), port, request));
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn server(tls: Option<TlsAcceptor>) -> (u16, Seen) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let (port, seen) = (listener.local_addr().unwrap().port(), Seen::default());
    let for_server = Arc::clone(&seen);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (seen, tls) = (Arc::clone(&for_server), tls.clone());
            tokio::spawn(async move {
                match tls {
                    None => serve(stream, port, seen).await,
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            serve(stream, port, seen).await;
                        }
                    }
                }
            });
        }
    });
    (port, seen)
}

/// A server configuration that shows `shown`'s certificate and signs with `key`.
fn acceptor(shown: &rcgen::Certificate, key: &rcgen::KeyPair) -> TlsAcceptor {
    #[derive(Debug)]
    struct Always(Arc<rustls::sign::CertifiedKey>);
    impl rustls::server::ResolvesServerCert for Always {
        fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<rustls::sign::CertifiedKey>> {
            Some(Arc::clone(&self.0))
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let key = provider.key_provider.load_private_key(der).unwrap();
    let certified = rustls::sign::CertifiedKey::new(vec![shown.der().clone()], key);
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Always(Arc::new(certified))));
    TlsAcceptor::from(Arc::new(config))
}

fn self_signed() -> (rcgen::Certificate, rcgen::KeyPair) {
    let key = rcgen::KeyPair::generate().unwrap();
    (rcgen::CertificateParams::new(vec!["nobody.invalid".into()]).unwrap().self_signed(&key).unwrap(), key)
}

fn prober() -> Prober {
    Prober::new(Arc::new(FakeRuntime::new()))
}

fn target(tls: bool, port: u16, path: &str) -> Target {
    Target::Http { tls, host: "127.0.0.1".into(), port, path: path.into(), headers: vec![] }
}

fn message(outcome: Outcome) -> String {
    match outcome {
        Outcome::Failure { message, .. } => message,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_http_check_succeeds_from_200_to_399_and_says_why_it_failed() {
    let (port, _) = server(None).await;
    let check = async |path: &str| prober().check(&target(false, port, path), LIMIT).await;
    assert_eq!(check("/ok").await, success());
    assert_eq!(check("ok").await, success(), "a path without a slash gets one");
    assert_eq!(check("/large").await, success());
    assert!(matches!(check("/unmodified").await, Outcome::Success { warning: Some(_) }));
    let etcd = "HTTP probe failed with statuscode: 500: [-]etcd failed: reason withheld";
    assert_eq!(message(check("/sad").await), etcd);
    assert_eq!(message(check("/plain").await), "HTTP probe failed with statuscode: 503: starting up");
    let forbidden = r#"403: forbidden: User "system:anonymous" cannot get path "/livez""#;
    assert_eq!(message(check("/forbidden").await), format!("HTTP probe failed with statuscode: {forbidden}"));
    let long = message(check("/long").await);
    assert!(long.ends_with("wo...") && long.len() == "HTTP probe failed with statuscode: 500: ".len() + 120, "{long}");
    assert_eq!(message(check("/page").await), "HTTP probe failed with statuscode: 404");
    assert_eq!(message(check("/nowhere").await), "HTTP probe failed with statuscode: 404");
}

#[tokio::test]
async fn redirects_are_followed_on_the_same_host_alone_and_not_for_ever() {
    let (port, seen) = server(None).await;
    let check = async |path: &str| prober().check(&target(false, port, path), LIMIT).await;
    assert_eq!(check("/here").await, success());
    assert!(
        matches!(check("/elsewhere").await, Outcome::Success { warning: Some(w) } if w.starts_with("Probe terminated redirects, Response body: "))
    );
    seen.lock().unwrap().clear();
    assert_eq!(
        message(check("/round").await),
        format!("Get \"http://127.0.0.1:{port}/round\": stopped after 10 redirects")
    );
    assert_eq!(seen.lock().unwrap().len(), 10);
}

#[tokio::test]
async fn a_request_carries_the_kubelets_headers_unless_the_probe_has_its_own() {
    let (port, seen) = server(None).await;
    let check = async |headers: &[(&str, &str)]| {
        let headers = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let target = Target::Http { tls: false, host: "127.0.0.1".into(), port, path: "/ok?a=b c#d".into(), headers };
        prober().check(&target, LIMIT).await;
        seen.lock().unwrap().pop().unwrap()
    };
    let (path, headers) = check(&[]).await;
    assert_eq!(path, "/ok?a=b%20c");
    let get = |headers: &HeaderMap, name: &str| headers.get(name).map(|v| v.to_str().unwrap().to_owned());
    assert!(get(&headers, "user-agent").unwrap().starts_with("kube-probe/1."));
    assert_eq!(get(&headers, "accept").as_deref(), Some("*/*"));
    assert_eq!(get(&headers, "connection").as_deref(), Some("close"));
    assert_eq!(get(&headers, "host"), Some(format!("127.0.0.1:{port}")));
    let (_, headers) = check(&[("Accept", ""), ("User-agent", "me"), ("host", "web.example"), ("X", "1")]).await;
    assert_eq!(get(&headers, "accept"), None);
    assert_eq!(get(&headers, "user-agent").as_deref(), Some("me"));
    assert_eq!(get(&headers, "host").as_deref(), Some("web.example"));
    assert_eq!(get(&headers, "x").as_deref(), Some("1"));
    let odd = [
        ("Host", ""),
        ("User-Agent", ""),
        ("Content-Length", "5"),
        ("Connection", "keep-alive"),
        ("X", "1"),
        ("X", "2"),
    ];
    let (_, headers) = check(&odd).await;
    assert_eq!(get(&headers, "host"), Some(format!("127.0.0.1:{port}")), "an empty host is none");
    assert_eq!((get(&headers, "user-agent"), get(&headers, "content-length")), (None, None));
    assert_eq!(get(&headers, "connection").as_deref(), Some("close"));
    assert_eq!(headers.get_all("x").iter().count(), 2);
    assert_eq!(get(&headers, "accept-encoding"), None);
}

#[tokio::test]
async fn https_takes_any_certificate_whose_key_the_server_holds() {
    let (certificate, key) = self_signed();
    let (port, _) = server(Some(acceptor(&certificate, &key))).await;
    assert_eq!(prober().check(&target(true, port, "/ok"), LIMIT).await, success());
    assert!(message(prober().check(&target(false, port, "/ok"), LIMIT).await).contains("HTTP exchange failed"));

    let (_, foreign) = self_signed();
    let (port, _) = server(Some(acceptor(&certificate, &foreign))).await;
    assert!(message(prober().check(&target(true, port, "/ok"), LIMIT).await).contains("TLS handshake failed"));
}

#[tokio::test]
async fn nobody_listening_is_a_refusal_and_a_server_that_hangs_a_failure() {
    let free = TcpListener::bind(("127.0.0.1", 0)).await.unwrap().local_addr().unwrap().port();
    for target in [target(true, free, "/"), Target::Tcp { host: "127.0.0.1".into(), port: free }] {
        let outcome = prober().check(&target, LIMIT).await;
        assert!(matches!(&outcome, Outcome::Failure { refused: true, message } if message.contains("refused")));
    }
    let (port, _) = server(None).await;
    let outcome = prober().check(&target(false, port, "/never"), Duration::from_millis(50)).await;
    assert_eq!(
        outcome,
        Outcome::Failure {
            message: format!(
                "Get \"http://127.0.0.1:{port}/never\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
            ),
            refused: false
        }
    );
    assert_eq!(prober().check(&Target::Tcp { host: "localhost".into(), port }, LIMIT).await, success());
}

#[tokio::test]
async fn an_exec_check_goes_by_the_exit_code() {
    let runtime = FakeRuntime::new().with_image("img");
    let id = runtime.create_container(&container_config("test", "web", "web", 0, "img")).await.unwrap();
    runtime.start(&id).await.unwrap();
    let outcome = async |answer: Result<ExecOutput, RuntimeError>| {
        let answer = Mutex::new(Some(answer));
        runtime.answer_exec("web", Duration::ZERO, move |_| answer.lock().unwrap().take().unwrap());
        let target = Target::Exec { container: id.clone(), command: vec!["probe".into(), "-x".into()] };
        Prober::new(Arc::new(runtime.clone())).check(&target, LIMIT).await
    };
    let exit = |exit_code, output: &str| Ok(ExecOutput { exit_code, output: output.into() });
    assert_eq!(outcome(exit(0, "fine")).await, success());
    assert_eq!(message(outcome(exit(3, "no file\n")).await), "no file");
    assert_eq!(message(outcome(exit(1, "")).await), "\"probe -x\" exited with code 1");
    let late = RuntimeError::Timeout { call: "exec".into(), limit: Duration::from_secs(1) };
    assert_eq!(message(outcome(Err(late)).await), "command timed out: \"probe -x\" timed out after 1s");
    let refused = RuntimeError::Refused { call: "exec".into(), message: "no".into() };
    assert!(matches!(outcome(Err(refused)).await, Outcome::Error { .. }));
}
