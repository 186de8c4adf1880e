use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::stream::BoxStream;
use http::HeaderMap;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tonic::{Request, Response, Status};
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::super::{Checker, Outcome, Prober, Target};
use super::success;
use crate::testing::runtime::FakeRuntime;

const LIMIT: Duration = Duration::from_secs(5);

async fn serve(health: impl Health) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let service = TowerToHyperService::new(HealthServer::new(health));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(server.serve_connection(TokioIo::new(stream), service.clone()));
        }
    });
    port
}

async fn check(port: u16, service: &str, limit: Duration) -> Outcome {
    let target = Target::Grpc { host: "127.0.0.1".into(), port, service: service.into() };
    Prober::new(Arc::new(FakeRuntime::new())).check(&target, limit).await
}

fn message(outcome: Outcome) -> String {
    match outcome {
        Outcome::Failure { message, refused: false } => message,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn only_serving_is_a_success_and_each_service_has_its_own_health() {
    let reporter = tonic_health::server::HealthReporter::new();
    let port = serve(tonic_health::server::HealthService::from_health_reporter(reporter.clone())).await;
    assert_eq!(check(port, "", LIMIT).await, success(), "the server as a whole");
    reporter.set_service_status("store", ServingStatus::NotServing).await;
    assert_eq!(message(check(port, "store", LIMIT).await), r#"service unhealthy (responded with "NOT_SERVING")"#);
    reporter.set_service_status("store", ServingStatus::Serving).await;
    assert_eq!(check(port, "store", LIMIT).await, success());
    reporter.set_service_status("", ServingStatus::Unknown).await;
    assert_eq!(message(check(port, "", LIMIT).await), r#"service unhealthy (responded with "UNKNOWN")"#);
    let unknown = message(check(port, "nobody", LIMIT).await);
    assert!(unknown.starts_with("error: health rpc probe failed: rpc error: code = NotFound desc = "), "{unknown}");
}

#[derive(Clone, Default)]
struct Recording {
    seen: Arc<Mutex<Vec<HeaderMap>>>,
}

#[tonic::async_trait]
impl Health for Recording {
    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        self.seen.lock().unwrap().push(request.metadata().clone().into_headers());
        if request.get_ref().service == "never" {
            std::future::pending::<()>().await;
        }
        Err(Status::unimplemented("no health here"))
    }

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("no watching here"))
    }
}

#[tokio::test]
async fn a_question_names_the_agent_as_the_kubelet_does_and_an_error_or_no_answer_is_a_failure() {
    let health = Recording::default();
    let port = serve(health.clone()).await;
    let refused = message(check(port, "", LIMIT).await);
    assert_eq!(
        refused,
        "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): no health here"
    );
    let headers = health.seen.lock().unwrap().pop().unwrap();
    assert!(headers["user-agent"].to_str().unwrap().starts_with("kube-probe/1."), "{headers:?}");
    let late = message(check(port, "never", Duration::from_millis(100)).await);
    assert_eq!(late, "timeout: health rpc did not complete within 100ms");
}

#[tokio::test]
async fn nobody_listening_is_a_refusal_and_another_protocol_a_failure() {
    let free = TcpListener::bind(("127.0.0.1", 0)).await.unwrap().local_addr().unwrap().port();
    let refused = Outcome::Failure {
        message: format!(
            "error: failed to connect service at \"127.0.0.1:{free}\": dial tcp 127.0.0.1:{free}: connect: connection refused"
        ),
        refused: true,
    };
    assert_eq!(check(free, "", LIMIT).await, refused);
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let other = message(check(port, "", LIMIT).await);
    assert!(other.starts_with("error: health rpc probe failed: rpc error: code = "), "{other}");
}
