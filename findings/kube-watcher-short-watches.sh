#!/usr/bin/env bash
# kube 5.0.0 (crate, feature runtime): a watch that a server ends at once, without an error, is opened again without a pause,
# although the stream has `default_backoff()`: the back-off counts errors of the stream alone, and none is reported.
# Against a server, or a proxy before it, that closes every watch when it begins, that is a request as fast as the
# connection gives them. client-go (tools/cache, Reflector) calls a watch shorter than a second without events "very short" and
# backs off; a program moved from one to the other loses that.
#
# Needs cargo and a package registry. Works in a directory of its own, prints what it sees, and fails if that changes.
# Seen with rustc 1.95, 2026-11-30. Source: kube-runtime's src/watcher.rs (a stream that ends goes back to the state that opens
# the next one) and src/utils/stream_backoff.rs (the delay follows an Err); client-go's tools/cache/reflector.go (VeryShortWatchError).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/src"
cat >"$work/Cargo.toml" <<'TOML'
[package]
name = "seen"
version = "0.0.0"
edition = "2024"

[dependencies]
kube = { version = "=5.0.0", default-features = false, features = ["client", "runtime"] }
k8s-openapi = { version = "0.29", features = ["v1_37"] }
tokio = { version = "1", features = ["rt-multi-thread", "macros", "time"] }
futures = "0.3"
http = "1"
TOML
cat >"$work/src/main.rs" <<'RUST'
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::{WatchStreamExt, watcher};

/// Answers lists with nothing, and ends every watch as soon as it has begun.
fn serve(listener: TcpListener, watches: Arc<AtomicUsize>) {
    for stream in listener.incoming() {
        let (mut stream, watches) = (stream.unwrap(), watches.clone());
        std::thread::spawn(move || {
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            while let Some(Ok(request)) = lines.next() {
                while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
                let body = if request.contains("watch=true") {
                    watches.fetch_add(1, Relaxed);
                    ""
                } else {
                    r#"{"kind":"ConfigMapList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[]}"#
                };
                let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length:";
                if write!(stream, "{head} {}\r\n\r\n{body}", body.len()).is_err() {
                    return;
                }
            }
        });
    }
}

#[tokio::main]
async fn main() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url: http::Uri = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let watches = Arc::new(AtomicUsize::new(0));
    let counted = watches.clone();
    std::thread::spawn(move || serve(listener, counted));
    let client = kube::Client::try_from(kube::Config::new(url)).unwrap();
    let stream = watcher(kube::Api::<ConfigMap>::namespaced(client, "default"), watcher::Config::default());
    let mut stream = Box::pin(stream.default_backoff());
    let mut errors = 0;
    let _ = tokio::time::timeout(Duration::from_secs(3), async {
        while let Some(event) = stream.next().await {
            errors += usize::from(event.is_err());
        }
    })
    .await;
    println!("{} {errors}", watches.load(Relaxed));
}
RUST
read -r watches errors < <(cargo run --quiet --manifest-path "$work/Cargo.toml")
echo "kube 5.0.0: $watches watches opened in 3 s, $errors errors reported"
# With any back-off that begins at 0.8 s there would be three or four.
if [ "$watches" -lt 20 ] || [ "$errors" -ne 0 ]; then
  echo "changed: there were tens of watches a second and no error" >&2
  exit 1
fi
