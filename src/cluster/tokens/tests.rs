use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http::Response;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::{Client, Config};
use tokio::net::TcpListener;

use super::*;

fn now() -> Timestamp {
    "2026-01-02T15:04:05Z".parse().unwrap()
}

fn token() -> BootstrapToken {
    BootstrapToken::new("abcdef.0123456789abcdef".parse().unwrap())
}

/// An API server that answers every request alike, and what it was asked: method, path with query, body.
async fn server(code: u16, body: Value) -> (Remote, Arc<Mutex<Vec<(String, String, String)>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let asked = seen.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (asked, body) = (asked.clone(), body.clone());
            let answer = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let (asked, body) = (asked.clone(), body.clone());
                async move {
                    let (parts, sent) = request.into_parts();
                    let sent = String::from_utf8(sent.collect().await.unwrap().to_bytes().to_vec()).unwrap();
                    asked.lock().unwrap().push((parts.method.to_string(), parts.uri.to_string(), sent));
                    let body = Full::new(Bytes::from(body.to_string()));
                    Ok::<_, Infallible>(Response::builder().status(code).body(body).unwrap())
                }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
        }
    });
    let mut config = Config::new(server.parse().unwrap());
    config.default_retry = false;
    (Remote { client: Client::try_from(config).unwrap(), server, authority: String::new() }, seen)
}

fn status(code: u16, reason: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": "no"})
}

#[tokio::test]
async fn a_token_is_created_as_its_secret() {
    let (remote, asked) = server(201, serde_json::to_value(to_secret(&token(), now())).unwrap()).await;
    create(&remote, &token(), now()).await.unwrap();
    let (method, path, body) = asked.lock().unwrap()[0].clone();
    assert_eq!((method.as_str(), path.split('?').next()), ("POST", Some("/api/v1/namespaces/kube-system/secrets")));
    let sent: Secret = serde_json::from_str(&body).unwrap();
    assert_eq!(sent, to_secret(&token(), now()));
}

#[tokio::test]
async fn the_answers_that_are_no_reason_to_try_again_are_told_apart() {
    let (remote, asked) = server(409, status(409, "AlreadyExists")).await;
    let error = create(&remote, &token(), now()).await.unwrap_err();
    assert_eq!(error.to_string(), "a token with id \"abcdef\" already exists");
    assert_eq!(asked.lock().unwrap().len(), 1);

    let (remote, _) = server(404, status(404, "NotFound")).await;
    let error = delete(&remote, "abcdef").await.unwrap_err();
    assert!(matches!(&error, TokensError::NotFound { id } if id == "abcdef"), "{error}");

    let (remote, asked) = server(403, status(403, "Forbidden")).await;
    let error = list(&remote).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("the API server at {} does not let this user list the bootstrap tokens", remote.server)
    );
    assert_eq!(asked.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_list_asks_for_tokens_alone_and_keeps_what_is_wrong_beside_what_is_right() {
    let mut broken = to_secret(&token(), now());
    broken.data = None;
    let items = json!([to_secret(&token(), now()), broken]);
    let body = json!({"kind": "SecretList", "apiVersion": "v1", "metadata": {}, "items": items});
    let (remote, asked) = server(200, body).await;
    let tokens = list(&remote).await.unwrap();
    assert_eq!(tokens[0].as_ref().unwrap().token, token().token);
    assert!(tokens[1].is_err());
    let path = asked.lock().unwrap()[0].1.clone();
    assert!(path.contains("fieldSelector=type%3Dbootstrap.kubernetes.io%2Ftoken"), "{path}");
}

#[tokio::test]
async fn a_token_is_deleted_by_the_name_of_its_secret() {
    let (remote, asked) = server(200, json!({"kind": "Status", "apiVersion": "v1", "status": "Success"})).await;
    delete(&remote, "abcdef").await.unwrap();
    let (method, path, _) = asked.lock().unwrap()[0].clone();
    let expected = Some("/api/v1/namespaces/kube-system/secrets/bootstrap-token-abcdef");
    assert_eq!((method.as_str(), path.split('?').next()), ("DELETE", expected));
}

#[test]
fn a_row_has_kubeadms_words() {
    let until = Lifetime::Until("2026-01-03T14:04:05Z".parse().unwrap());
    let usual = BootstrapToken { lifetime: until, ..token() };
    let groups = "system:bootstrappers:kubeadm:default-node-token";
    let expected =
        ["abcdef.0123456789abcdef", "23h", "2026-01-03T14:04:05Z", "signing,authentication", "<none>", groups];
    assert_eq!(row(&usual, now()), expected);
    let bare = BootstrapToken { lifetime: Lifetime::Endless, usages: vec![], groups: vec![], ..token() };
    let expected = ["abcdef.0123456789abcdef", "<forever>", "<never>", "<none>", "<none>", "<none>"];
    assert_eq!(row(&bare, now()), expected);
}

#[test]
fn the_shown_value_is_kubeadms_and_has_no_empty_fields() {
    let until = Lifetime::Until("2026-01-03T14:04:05Z".parse().unwrap());
    let usual = BootstrapToken { lifetime: until, description: "tea".into(), ..token() };
    let expected = json!({
        "apiVersion": "output.kubeadm.k8s.io/v1alpha3",
        "kind": "BootstrapToken",
        "token": "abcdef.0123456789abcdef",
        "description": "tea",
        "expires": "2026-01-03T14:04:05Z",
        "usages": ["signing", "authentication"],
        "groups": ["system:bootstrappers:kubeadm:default-node-token"],
    });
    assert_eq!(shown(&usual), expected);
    let bare = BootstrapToken { lifetime: Lifetime::Endless, usages: vec![], groups: vec![], ..token() };
    assert_eq!(shown(&bare).as_object().unwrap().len(), 3);
}

#[test]
fn durations_are_short() {
    let cases = [
        (-5, "<invalid>"),
        (-1, "0s"),
        (0, "0s"),
        (59, "59s"),
        (60, "1m"),
        (3599, "59m"),
        (86_399, "23h"),
        (86_400, "1d"),
        (364 * 86_400, "364d"),
        (800 * 86_400, "2y"),
    ];
    for (seconds, expected) in cases {
        assert_eq!(short(SignedDuration::from_secs(seconds)), expected, "{seconds}");
    }
}
