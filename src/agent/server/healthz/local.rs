//! `http://127.0.0.1:10248/healthz`: says `ok` as long as the process runs, as the kubelet's does. It needs no
//! credentials and says nothing else.

use http::{Method, Request, Response, StatusCode};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::agent::server::http as listen;
use crate::agent::server::http::{Body, text_response};

/// Serves until `shutdown`.
pub async fn serve(listener: TcpListener, shutdown: CancellationToken) {
    listen::serve(listener, listen::PlainTransport, |request| std::future::ready(answer(&request)), shutdown).await;
}

fn answer<B>(request: &Request<B>) -> Response<Body> {
    match (request.uri().path(), request.method()) {
        ("/healthz" | "/healthz/ping" | "/livez", &Method::GET | &Method::HEAD) => text_response(StatusCode::OK, "ok"),
        ("/healthz" | "/healthz/ping" | "/livez", _) => {
            text_response(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n")
        }
        _ => text_response(StatusCode::NOT_FOUND, "404 page not found\n"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    async fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream
            .write_all(format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn healthz_says_ok_until_the_agent_ends() {
        let listener = listen::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let server = tokio::spawn(serve(listener, shutdown.clone()));
        for path in ["/healthz", "/livez"] {
            let answer = ask(address, &format!("GET {path}")).await;
            assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\nok"), "{answer}");
        }
        assert!(ask(address, "GET /pods").await.starts_with("HTTP/1.1 404 "));
        assert!(ask(address, "POST /healthz").await.starts_with("HTTP/1.1 405 "));
        let _idle = TcpStream::connect(address).await.unwrap();
        shutdown.cancel();
        server.await.unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }
}
