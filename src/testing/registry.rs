//! A registry of one image on this machine, for one user: everybody else is asked who he is.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpListener;

use crate::host::digest::sha256;

const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";

/// See the module. It goes with the runtime of the test.
#[derive(Clone)]
pub struct Registry {
    /// The image's name.
    pub image: String,
    shared: Arc<Shared>,
}

struct Shared {
    authorization: String,
    manifest: Bytes,
    blobs: [Bytes; 2],
    users: Mutex<Vec<String>>,
}

impl Registry {
    /// Starts one that gives its image to `username` with `password`. Each has an image of its own.
    pub async fn serve(username: &str, password: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let image = format!("{}/kubeboot/private:1", listener.local_addr().expect("an address"));
        // The end of an archive with nothing in it.
        let layer = Bytes::from(vec![0; 1024]);
        let rootfs = json!({"type": "layers", "diff_ids": [digest_of(&layer)]});
        let config =
            json!({"architecture": "amd64", "os": "linux", "rootfs": rootfs, "config": {"Labels": {"of": image}}});
        let config = Bytes::from(config.to_string());
        let part = |kind: &str, of: &Bytes| json!({"mediaType": kind, "size": of.len(), "digest": digest_of(of)});
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": part(CONFIG, &config),
            "layers": [part(LAYER, &layer)]});
        let shared = Arc::new(Shared {
            authorization: format!("Basic {}", STANDARD.encode(format!("{username}:{password}"))),
            manifest: Bytes::from(manifest.to_string()),
            blobs: [config, layer],
            users: Mutex::default(),
        });
        let serving = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&serving);
                let answer = service_fn(move |request: Request<Incoming>| {
                    let answer = shared.answer(request.uri().path(), request.headers());
                    async move { Ok::<_, Infallible>(answer) }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
            }
        });
        Self { image, shared }
    }

    /// Who has come, each once for several times in a row; `-` is who did not say.
    pub fn users(&self) -> Vec<String> {
        let mut users = self.shared.users.lock().unwrap_or_else(PoisonError::into_inner).clone();
        users.dedup();
        users
    }
}

impl Shared {
    fn answer(&self, path: &str, headers: &HeaderMap) -> Response<Full<Bytes>> {
        let given = headers.get(header::AUTHORIZATION).and_then(|given| given.to_str().ok());
        let user = given.and_then(|given| STANDARD.decode(given.strip_prefix("Basic ")?).ok());
        let user = user.map_or_else(|| "-".to_owned(), |user| String::from_utf8_lossy(&user).into_owned());
        self.users.lock().unwrap_or_else(PoisonError::into_inner).push(user);
        let answer = |code: u16, kind: &str, body: Bytes| {
            let digest = digest_of(&body);
            let answer = Response::builder().status(code).header(header::CONTENT_TYPE, kind);
            let answer = answer.header("docker-content-digest", digest);
            answer.header(header::WWW_AUTHENTICATE, "Basic realm=\"test\"").body(Full::new(body)).expect("an answer")
        };
        if given != Some(&self.authorization) {
            return answer(401, "application/json", Bytes::from_static(b"{}"));
        }
        let last = path.rsplit('/').next().unwrap_or_default();
        match self.blobs.iter().find(|blob| digest_of(blob) == last) {
            Some(blob) => answer(200, "application/octet-stream", blob.clone()),
            None if path.contains("/manifests/") => answer(200, MANIFEST, self.manifest.clone()),
            None => answer(200, "application/json", Bytes::from_static(b"{}")),
        }
    }
}

fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", sha256(bytes))
}
