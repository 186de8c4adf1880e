//! Servers in the test itself, at 127.0.0.1: what probes and the agent ask, and what they are told.

use std::convert::Infallible;
use std::future::Future;
use std::sync::{Arc, Mutex};

use http::{Request, Response};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

/// A request that came.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Path and query.
    pub path: String,
    /// Its headers.
    pub headers: http::HeaderMap,
}

/// An HTTP or HTTPS server.
#[derive(Clone)]
pub struct Server {
    /// Its port at 127.0.0.1.
    pub port: u16,
    seen: Arc<Mutex<Vec<Seen>>>,
    listener: AbortHandle,
}

impl Server {
    /// An HTTP server that answers a path as `answer` does.
    pub async fn http(answer: impl Fn(&str) -> Response<String> + Send + Sync + 'static) -> Self {
        Self::start(None, move |path| Some(answer(path))).await
    }

    /// An HTTP server that answers nothing where `answer` does not.
    pub async fn silent(answer: impl Fn(&str) -> Option<Response<String>> + Send + Sync + 'static) -> Self {
        Self::start(None, answer).await
    }

    /// An HTTPS server with a certificate that it signed itself.
    pub async fn https(answer: impl Fn(&str) -> Response<String> + Send + Sync + 'static) -> Self {
        Self::start(Some(acceptor()), move |path| Some(answer(path))).await
    }

    async fn start(
        tls: Option<TlsAcceptor>,
        answer: impl Fn(&str) -> Option<Response<String>> + Send + Sync + 'static,
    ) -> Self {
        let answer = Arc::new(answer);
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let record = Arc::clone(&seen);
        let (port, listener) = listen(move |stream| {
            let (answer, record, tls) = (Arc::clone(&answer), Arc::clone(&record), tls.clone());
            let service = service_fn(move |request: Request<Incoming>| {
                let path = request.uri().path_and_query().unwrap().to_string();
                let response = answer(&path).map(|response| response.map(|body| Full::new(Bytes::from(body))));
                record.lock().unwrap().push(Seen { path, headers: request.headers().clone() });
                async move {
                    match response {
                        Some(response) => Ok::<_, Infallible>(response),
                        None => std::future::pending().await,
                    }
                }
            });
            async move {
                let stream: Box<dyn Stream> = match tls {
                    Some(tls) => match tls.accept(stream).await {
                        Ok(stream) => Box::new(stream),
                        // A client that does not like it hangs up.
                        Err(_) => return,
                    },
                    None => Box::new(stream),
                };
                let server = hyper::server::conn::http1::Builder::new();
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            }
        })
        .await;
        Self { port, seen, listener }
    }

    /// Refuses every connection from now on.
    pub fn close(&self) {
        self.listener.abort();
    }

    /// What has been asked so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// How often a path has been asked.
    pub fn count(&self, path: &str) -> usize {
        self.seen().iter().filter(|request| request.path == path).count()
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// An answer with a status.
pub fn status(code: u16) -> Response<String> {
    Response::builder().status(code).body(String::new()).unwrap()
}

/// A redirect.
pub fn redirect(location: &str) -> Response<String> {
    Response::builder().status(302).header("location", location).body(String::new()).unwrap()
}

/// A gRPC health server, its port, and what sets its health. It begins as serving.
pub async fn grpc() -> (u16, HealthReporter) {
    let reporter = HealthReporter::new();
    reporter.set_service_status("", ServingStatus::Serving).await;
    let service = TowerToHyperService::new(HealthServer::new(HealthService::from_health_reporter(reporter.clone())));
    let port = listen(move |stream| {
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let connection = server.serve_connection(TokioIo::new(stream), service.clone());
        async move {
            let _ = connection.await;
        }
    });
    (port.await.0, reporter)
}

async fn listen<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> (u16, AbortHandle)
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    (port, task.abort_handle())
}

fn acceptor() -> TlsAcceptor {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["nobody.invalid".into()]).unwrap().self_signed(&key).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}
