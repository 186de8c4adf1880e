//! An API server that keeps objects in memory, tells who watches, and fails what it is told to fail.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::Client;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

type Body = BoxBody<Bytes, Infallible>;

/// See the module. Cheap to clone; all clones are the same server.
#[derive(Clone)]
pub struct FakeApi {
    state: Arc<Mutex<State>>,
    version: watch::Sender<u64>,
    port: u16,
}

#[derive(Default)]
struct State {
    /// By path.
    objects: BTreeMap<String, Value>,
    /// What happened, by resource version: path, kind of event, object.
    log: Vec<(u64, String, &'static str, Value)>,
    version: u64,
    /// Watches from before this version are answered 410.
    oldest: u64,
    /// Method, beginning of the path, code.
    faults: Vec<(String, String, u16)>,
    /// Method, path, what is merged into the object there before such a request is answered.
    before: Vec<(String, String, Value)>,
    requests: Vec<(String, Value)>,
    /// What a POST to a path is answered with, instead of making an object.
    answers: BTreeMap<String, Value>,
    down: bool,
}

/// A request, as it is answered.
struct Asked {
    method: String,
    path: String,
    query: String,
    body: Value,
}

impl FakeApi {
    /// Starts one, with a client for it.
    pub async fn serve() -> (Self, Client) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let api = Self { state: Arc::default(), version: watch::Sender::new(0), port: address.port() };
        let shared = api.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let api = shared.clone();
                let answer = service_fn(move |request| api.clone().hear(request));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
            }
        });
        let mut config = kube::Config::new(format!("http://{address}").parse().expect("a URL"));
        config.default_retry = false;
        (api, Client::try_from(config).expect("a client"))
    }

    /// The port of the loopback address at which it is served.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Keeps an object in the collection at `path`, as if somebody had made it, and returns its UID.
    pub fn put(&self, path: &str, object: Value) -> String {
        let path = format!("{path}/{}", object["metadata"]["name"].as_str().expect("a name"));
        let kept = self.lock().keep(path, object, "ADDED");
        self.tell();
        kept["metadata"]["uid"].as_str().expect("a UID").to_owned()
    }

    /// The object at `path`; null if there is none.
    pub fn get(&self, path: &str) -> Value {
        self.lock().objects.get(path).cloned().unwrap_or_default()
    }

    /// Merges `change` into the object at `path`, as if somebody had.
    pub fn change(&self, path: &str, change: &Value) {
        let mut object = self.get(path);
        json_patch::merge(&mut object, change);
        self.lock().keep(path.to_owned(), object, "MODIFIED");
        self.tell();
    }

    /// Takes the object at `path` away, as if somebody had.
    pub fn remove(&self, path: &str) {
        self.lock().remove(path);
        self.tell();
    }

    /// The next requests of `method` for paths that begin with `path` are answered with these codes.
    pub fn fail(&self, method: &str, path: &str, codes: &[u16]) {
        self.lock().faults.extend(codes.iter().map(|code| (method.to_owned(), path.to_owned(), *code)));
    }

    /// Before the next request of `method` for the object at `path` is answered, somebody else merges `change` into it.
    pub fn change_before(&self, method: &str, path: &str, change: Value) {
        self.lock().before.push((method.to_owned(), path.to_owned(), change));
    }

    /// From now on a POST to `path`, which is a subresource, is answered with this.
    pub fn answer_post(&self, path: &str, answer: Value) {
        self.lock().answers.insert(path.to_owned(), answer);
    }

    /// Every connection breaks from now on, or none.
    pub fn set_down(&self, down: bool) {
        self.lock().down = down;
        self.version.send_modify(|_| ());
    }

    /// Forgets what happened: who watches from before now must list again.
    pub fn forget(&self) {
        let mut state = self.lock();
        state.oldest = state.version;
        state.log.clear();
    }

    /// `METHOD path` of every request so far, with `?watch` behind those that watch.
    pub fn requests(&self) -> Vec<String> {
        self.lock().requests.iter().map(|(request, _)| request.clone()).collect()
    }

    /// What the requests of a method carried.
    pub fn bodies(&self, method: &str) -> Vec<Value> {
        let state = self.lock();
        state.requests.iter().filter(|(one, _)| one.starts_with(method)).map(|(_, body)| body.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self) {
        let version = self.lock().version;
        self.version.send_replace(version);
    }

    async fn hear(self, request: Request<Incoming>) -> Result<Response<Body>, std::io::Error> {
        let (parts, body) = request.into_parts();
        let bytes = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
        let asked = Asked {
            method: parts.method.to_string(),
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            body: serde_json::from_slice(&bytes).unwrap_or_default(),
        };
        if self.lock().down {
            return Err(std::io::ErrorKind::ConnectionReset.into());
        }
        let watches = asked.query.contains("watch=true");
        let mark = if watches { "?watch" } else { "" };
        self.lock().requests.push((format!("{} {}{mark}", asked.method, asked.path), asked.body.clone()));
        let change = self.lock().change_before(&asked);
        if let Some(change) = change {
            self.change(&asked.path, &change);
        }
        let fault = self.lock().fault(&asked);
        let (code, body) = match fault {
            Some(code) => (code, whole(&status(code))),
            None if watches => (200, self.watch(&asked)),
            None => {
                let (code, value) = self.lock().answer(&asked);
                (code, whole(&value))
            }
        };
        self.tell();
        Ok(Response::builder().status(code).body(body).expect("a valid response"))
    }

    fn watch(&self, asked: &Asked) -> Body {
        let from = asked.query.split('&').find_map(|pair| pair.strip_prefix("resourceVersion="));
        let from: u64 = from.and_then(|text| text.parse().ok()).unwrap_or(0);
        let events: BoxStream<'static, Value> = if from < self.lock().oldest {
            stream::iter([json!({"type": "ERROR", "object": status(410)})]).boxed()
        } else {
            self.events(asked.path.clone(), from)
        };
        let frames = events.map(|event| Ok::<_, Infallible>(Frame::data(Bytes::from(format!("{event}\n")))));
        BodyExt::boxed(StreamBody::new(SyncStream(Mutex::new(frames.boxed()))))
    }

    /// What happens in a collection after a version, until the server goes down.
    fn events(&self, collection: String, from: u64) -> BoxStream<'static, Value> {
        let (api, changes) = (self.clone(), self.version.subscribe());
        stream::unfold((api, changes, from, collection), |(api, mut changes, from, collection)| async move {
            loop {
                changes.borrow_and_update();
                if api.lock().down {
                    return None;
                }
                let next = api.lock().next(&collection, from);
                if let Some((version, event)) = next {
                    return Some((event, (api, changes, version, collection)));
                }
                changes.changed().await.ok()?;
            }
        })
        .boxed()
    }
}

impl State {
    fn fault(&mut self, asked: &Asked) -> Option<u16> {
        let hit = |(method, path, _): &(String, String, u16)| *method == asked.method && asked.path.starts_with(path);
        self.faults.iter().position(hit).map(|at| self.faults.remove(at).2)
    }

    fn change_before(&mut self, asked: &Asked) -> Option<Value> {
        let hit = |(method, path, _): &(String, String, Value)| *method == asked.method && *path == asked.path;
        self.before.iter().position(hit).map(|at| self.before.remove(at).2)
    }

    fn next(&self, collection: &str, from: u64) -> Option<(u64, Value)> {
        let mut later = self.log.iter().filter(|(version, path, ..)| *version > from && is_in(path, collection));
        later.next().map(|(version, _, kind, object)| (*version, json!({"type": kind, "object": object})))
    }

    fn answer(&mut self, asked: &Asked) -> (u16, Value) {
        let (path, body) = (asked.path.as_str(), asked.body.clone());
        let object = path.strip_suffix("/status").unwrap_or(path).to_owned();
        let current = self.objects.get(&object).cloned();
        let wanted = [&body["metadata"]["uid"], &body["preconditions"]["uid"]].into_iter().find_map(Value::as_str);
        let strange = current.as_ref().is_some_and(|one| wanted.is_some_and(|uid| one["metadata"]["uid"] != uid));
        match (asked.method.as_str(), current) {
            ("GET", Some(current)) => (200, current),
            ("GET", None) if object.matches('/').count() % 2 == 1 => self.list(&object),
            ("POST", _) if self.answers.contains_key(path) => (201, self.answers[path].clone()),
            ("POST", _) => self.make(&object, body),
            (_, None) => (404, status(404)),
            _ if strange => (409, status(409)),
            ("DELETE", Some(current)) => {
                self.remove(&object);
                (200, current)
            }
            ("PUT", Some(current)) => {
                let version = &body["metadata"]["resourceVersion"];
                let is_old = version.is_string() && *version != current["metadata"]["resourceVersion"];
                if is_old { (409, status(409)) } else { (200, self.keep(object, body, "MODIFIED")) }
            }
            ("PATCH", Some(current)) => {
                let mut new = current.clone();
                json_patch::merge(&mut new, &body);
                if new == current { (200, current) } else { (200, self.keep(object, new, "MODIFIED")) }
            }
            (other, _) => panic!("{other} {path}"),
        }
    }

    fn list(&self, collection: &str) -> (u16, Value) {
        let items: Vec<_> = self.objects.iter().filter(|(path, _)| is_in(path, collection)).map(|(_, o)| o).collect();
        // As a real one answers who asks for metadata only.
        let items = if items.is_empty() { Value::Null } else { json!(items) };
        (200, json!({"kind": "List", "metadata": {"resourceVersion": self.version.to_string()}, "items": items}))
    }

    fn make(&mut self, collection: &str, object: Value) -> (u16, Value) {
        let path = format!("{collection}/{}", object["metadata"]["name"].as_str().unwrap_or_default());
        if self.objects.contains_key(&path) {
            return (409, status(409));
        }
        (201, self.keep(path, object, "ADDED"))
    }

    fn keep(&mut self, path: String, mut object: Value, kind: &'static str) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        if kind == "ADDED" {
            object["metadata"]["uid"] = json!(format!("uid-{}", self.version));
        }
        self.log.push((self.version, path.clone(), kind, object.clone()));
        self.objects.insert(path, object.clone());
        object
    }

    fn remove(&mut self, path: &str) {
        let Some(object) = self.objects.remove(path) else { return };
        self.version += 1;
        self.log.push((self.version, path.to_owned(), "DELETED", object));
    }
}

/// Whether an object's path is one of a collection, or of it in any namespace.
fn is_in(path: &str, collection: &str) -> bool {
    let Some((own, _)) = path.rsplit_once('/') else { return false };
    let all = own.split_once("/namespaces/").and_then(|(group, rest)| Some((group, rest.split_once('/')?.1)));
    own == collection || all.is_some_and(|(group, kind)| format!("{group}/{kind}") == collection)
}

fn whole(value: &Value) -> Body {
    Full::new(Bytes::from(value.to_string())).boxed()
}

fn status(code: u16) -> Value {
    let reason = if code == 404 { "NotFound" } else { "Told" };
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": "m"})
}

/// A body must be Sync; a boxed stream is not by itself.
struct SyncStream(Mutex<BoxStream<'static, Result<Frame<Bytes>, Infallible>>>);

impl stream::Stream for SyncStream {
    type Item = Result<Frame<Bytes>, Infallible>;

    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.get_mut().0.get_mut().unwrap_or_else(PoisonError::into_inner).poll_next_unpin(cx)
    }
}
