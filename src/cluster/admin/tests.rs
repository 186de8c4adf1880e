use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use http::{Method, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::Config;
use tokio::net::TcpListener;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// An API server that gives these answers in turn, the last one for ever, and keeps what it is sent.
async fn server(answers: Vec<(u16, &'static str)>) -> (Client, Arc<Mutex<Vec<serde_json::Value>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sent = seen.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (answers, sent) = (answers.clone(), sent.clone());
            let answer = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let (answers, sent) = (answers.clone(), sent.clone());
                async move {
                    assert_eq!(request.method(), Method::POST);
                    assert_eq!(request.uri().path(), "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings");
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    let mut sent = sent.lock().unwrap();
                    let (code, reason) = answers[sent.len().min(answers.len() - 1)];
                    sent.push(serde_json::from_slice(&body).unwrap());
                    let text =
                        if code < 300 { String::from_utf8(body.to_vec()).unwrap() } else { status(code, reason) };
                    Ok::<_, Infallible>(Response::builder().status(code).body(Full::new(Bytes::from(text))).unwrap())
                }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
        }
    });
    (connect(address), seen)
}

fn connect(address: SocketAddr) -> Client {
    let mut config = Config::new(format!("http://{address}").parse().unwrap());
    config.default_retry = false;
    Client::try_from(config).unwrap()
}

fn status(code: u16, reason: &str) -> String {
    let status = serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason,
        "message": "in these words",
    });
    status.to_string()
}

#[tokio::test]
async fn the_binding_is_kubeadm_s() {
    let (client, seen) = server(vec![(201, "")]).await;
    assert!(create_binding(vec![client], "x", MINUTE).await.unwrap());
    let expected = serde_json::json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "kubeadm:cluster-admins"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "kubeadm:cluster-admins"}],
    });
    assert_eq!(*seen.lock().unwrap(), [expected]);
}

#[tokio::test]
async fn one_that_is_there_is_fine() {
    let (client, _) = server(vec![(409, "AlreadyExists")]).await;
    assert!(!create_binding(vec![client], "x", MINUTE).await.unwrap());
}

#[tokio::test]
async fn a_server_that_is_not_ready_is_asked_again() {
    let answers = vec![(503, "ServiceUnavailable"), (403, "Forbidden"), (500, "InternalError"), (201, "")];
    let (client, seen) = server(answers).await;
    assert!(create_binding(vec![client], "x", MINUTE).await.unwrap());
    assert_eq!(seen.lock().unwrap().len(), 4);
}

#[tokio::test]
async fn who_may_not_gives_way_to_who_may() {
    let (admin, asked) = server(vec![(403, "Forbidden")]).await;
    let (super_admin, made) = server(vec![(201, "")]).await;
    assert!(create_binding(vec![admin, super_admin], "x", MINUTE).await.unwrap());
    assert_eq!((asked.lock().unwrap().len(), made.lock().unwrap().len()), (1, 1));
    // The next time admin.conf may, and no other is asked.
    let (admin, _) = server(vec![(409, "AlreadyExists")]).await;
    let (super_admin, asked) = server(vec![(201, "")]).await;
    assert!(!create_binding(vec![admin, super_admin], "x", MINUTE).await.unwrap());
    assert!(asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn one_that_never_will_is_not() {
    let (client, seen) = server(vec![(401, "Unauthorized")]).await;
    let error = create_binding(vec![client], "https://10.0.0.5:6443", MINUTE).await.unwrap_err();
    assert!(matches!(error, ClusterError::Refused { .. }), "{error:?}");
    let expected =
        "the API server at https://10.0.0.5:6443 refuses to create the ClusterRoleBinding kubeadm:cluster-admins";
    assert_eq!(error.to_string(), expected);
    assert_eq!(seen.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn when_the_time_is_up_the_last_answer_is_told() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = create_binding(vec![connect(closed)], "x", SECOND).await.unwrap_err();
    assert!(matches!(&error, ClusterError::Timeout { last: Some(_), .. }), "{error:?}");
    assert!(error.to_string().ends_with("at x within 1 s"), "{error}");
}

#[tokio::test]
async fn a_server_with_another_ca_s_certificate_is_told_at_once() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let key = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into()]).unwrap();
    let der = rustls::pki_types::PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![key.cert.der().clone()], der)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // The client breaks this off.
            drop(acceptor.accept(stream).await);
        }
    });
    let other = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into()]).unwrap();
    let mut config = Config::new(format!("https://{address}").parse().unwrap());
    config.root_cert = Some(vec![other.cert.der().to_vec()]);
    let error = create_binding(vec![Client::try_from(config).unwrap()], "x", MINUTE).await.unwrap_err();
    assert!(matches!(error, ClusterError::Stranger { .. }), "{error:?}");
}
