//! `exec`, `attach`, `run` and `portForward`: what a client turns its connection over for.

#![allow(clippy::result_large_err, reason = "a refusal is an answer, on its way to the client")]

mod channel;
mod client;
mod command;
mod forward;
mod negotiate;
mod network;
mod passed;
pub mod spdy;
mod target;
mod translated;
mod tunnel;
mod websocket;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::upgrade::OnUpgrade;
use tracing::debug;

use self::client::Client;
use self::command::Looking;
use self::forward::Forwarding;
use self::network::Network;
use super::http::{Body, text_response};
use super::query::Query;
use super::slots::Slot;
use crate::agent::board::Entry;
use crate::agent::context::Context;
use crate::error::chain;
use crate::runtime::streaming::{StdStreams, Streamed};

/// How long `run` waits for a command.
const RUN: Duration = Duration::from_secs(600);

type Answer = Result<Response<Body>, Response<Body>>;

/// Answers the paths of streams.
#[derive(Clone)]
pub struct Streams {
    context: Arc<Context>,
}

/// What is looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum StreamKind {
    Exec,
    Attach,
}

impl StreamKind {
    fn failure(self) -> &'static str {
        match self {
            Self::Exec => "error executing command in container",
            Self::Attach => "error attaching to container",
        }
    }
}

impl Streams {
    /// Of this agent.
    pub fn new(context: Arc<Context>) -> Self {
        Self { context }
    }

    /// The answer to a request of one of these paths; the request itself for any other. A connection that is turned over
    /// keeps the slot.
    ///
    /// # Errors
    /// The request, which is for another handler.
    pub async fn answer(&self, request: Request<Incoming>, slot: &Slot) -> Result<Response<Body>, Request<Incoming>> {
        let path = request.uri().path().trim_end_matches('/').to_owned();
        let Some((kind, rest)) = path.get(1..).and_then(|path| path.split_once('/')) else { return Err(request) };
        let answer = match kind {
            "exec" => self.look(StreamKind::Exec, rest, request, slot).await,
            "attach" => self.look(StreamKind::Attach, rest, request, slot).await,
            "portForward" => self.forward(rest, request, slot).await,
            "run" => self.run(rest, &request).await,
            _ => return Err(request),
        };
        Ok(answer.unwrap_or_else(|refusal| refusal))
    }

    async fn look(&self, what: StreamKind, path: &str, request: Request<Incoming>, slot: &Slot) -> Answer {
        streamable(request.method())?;
        let query = Query::of(request.uri().query());
        let wanted = command::wanted(&query).map_err(|words| text_response(StatusCode::BAD_REQUEST, words))?;
        let id = self.container(path)?;
        let start = match self.streamed(what, &id, &query, wanted).await? {
            Streamed::Served(url) if negotiate::tells_ends(request.headers()) => {
                translated::session(url, wanted, what.failure())
            }
            Streamed::Served(url) => return self.pass_on(&url, request, slot).await,
            Streamed::Session(start) => start,
        };
        let (protocol, response) = negotiate::negotiate(request.headers(), negotiate::COMMANDS)?;
        let looking = Looking { start, wanted, protocol, failure: what.failure() };
        self.turn_over(request, slot, move |io| command::serve(io, looking));
        Ok(response)
    }

    async fn streamed(
        &self,
        what: StreamKind,
        id: &str,
        query: &Query,
        wanted: StdStreams,
    ) -> Result<Streamed, Response<Body>> {
        let streaming = self
            .context
            .runtime
            .streaming()
            .ok_or_else(|| text_response(StatusCode::NOT_IMPLEMENTED, "this container runtime gives no streams"))?;
        let streamed = match what {
            StreamKind::Exec => streaming.exec(id, &query.all("command"), wanted).await,
            StreamKind::Attach => streaming.attach(id, wanted).await,
        };
        streamed.map_err(|error| failed(&error))
    }

    async fn forward(&self, path: &str, request: Request<Incoming>, slot: &Slot) -> Answer {
        streamable(request.method())?;
        let query = Query::of(request.uri().query());
        let asked = query.all("port").into_iter().chain(query.all("ports")).collect::<Vec<_>>();
        let ports = forward::ports(asked.iter().map(String::as_str));
        let ports = ports.map_err(|words| text_response(StatusCode::BAD_REQUEST, words))?;
        let named = target::pod(path).map_err(Response::<Body>::from)?;
        let pods = self.context.board.pods();
        let entry = named.find(&pods, |uid| self.context.mirrors.local(uid)).map_err(Response::<Body>::from)?;
        let network = self.network(entry).await?;
        let (protocol, response) = negotiate::negotiate(request.headers(), negotiate::FORWARDS)?;
        if ports.is_empty() && matches!(protocol.transport, negotiate::Transport::WebSocket(_)) {
            return Err(text_response(StatusCode::BAD_REQUEST, "query parameter \"port\" is required"));
        }
        let pod = format!("{}, uid {}", entry.report.name, entry.report.uid);
        let forwarding = Forwarding { network, pod, ports, protocol };
        self.turn_over(request, slot, move |io| forward::serve(io, forwarding));
        Ok(response)
    }

    /// A command's output as it comes, without a connection turned over.
    async fn run(&self, path: &str, request: &Request<Incoming>) -> Answer {
        if *request.method() != Method::POST {
            return Err(text_response(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n"));
        }
        let query = Query::of(request.uri().query());
        let id = self.container(path)?;
        let command: Vec<String> = query.get("cmd").unwrap_or_default().split(' ').map(str::to_owned).collect();
        let wanted = StdStreams { stdout: true, stderr: true, ..StdStreams::default() };
        if let Some(streaming) = self.context.runtime.streaming()
            && let Ok(Streamed::Session(start)) = streaming.exec(&id, &command, wanted).await
        {
            let session = start.await.map_err(|error| failed(&error))?;
            let pieces = session.output.map_ok(|(_, bytes)| Frame::data(bytes)).map_err(Into::into).boxed();
            let mut response = text_response(StatusCode::OK, "");
            *response.body_mut() = StreamBody::new(pieces).boxed_unsync();
            return Ok(response);
        }
        let output = self.context.runtime.exec(&id, &command, RUN).await.map_err(|error| failed(&error))?;
        Ok(text_response(StatusCode::OK, output.output))
    }

    /// The runtime's id of the container that a path means.
    fn container(&self, path: &str) -> Result<String, Response<Body>> {
        let (named, container) = target::container(path).map_err(Response::<Body>::from)?;
        let pods = self.context.board.pods();
        let entry = named.find(&pods, |uid| self.context.mirrors.local(uid)).map_err(Response::<Body>::from)?;
        target::running(entry, container).map_err(Into::into)
    }

    /// Where a pod's ports are.
    async fn network(&self, entry: &Entry) -> Result<Network, Response<Body>> {
        let on_host = entry.to_pod().spec.is_some_and(|spec| spec.host_network == Some(true));
        if on_host {
            return Ok(Network::Host);
        }
        // Every container of a pod is in its network.
        for container in &entry.report.containers {
            let Ok(id) = target::running(entry, &container.name) else { continue };
            let process = self.context.runtime.process(&id).await.map_err(|error| failed(&error))?;
            if let Some(path) = process.network().filter(|path| path.exists()) {
                return Ok(Network::Namespace(path));
            }
        }
        let address = entry.status.pod_ip.as_deref().and_then(|address| address.parse::<IpAddr>().ok());
        address.map(Network::At).ok_or_else(|| {
            text_response(StatusCode::INTERNAL_SERVER_ERROR, format!("pod {} has no network yet", entry.report.name))
        })
    }

    async fn pass_on(&self, url: &str, request: Request<Incoming>, slot: &Slot) -> Answer {
        let asked = passed::ask(url, &request).await;
        let asked = asked.map_err(|error| {
            debug!(%error, "the container runtime does not answer");
            text_response(StatusCode::BAD_GATEWAY, format!("the container runtime does not answer: {error}"))
        })?;
        let (response, upgrade) = passed::answer(asked).await;
        if let Some(upgrade) = upgrade {
            self.turn_over(request, slot, move |io| passed::carry(io, upgrade));
        }
        Ok(response)
    }

    /// Gives the client's connection to `serve`, once it is turned over.
    fn turn_over<S, F>(&self, mut request: Request<Incoming>, slot: &Slot, serve: S)
    where
        S: FnOnce(Client) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let (upgrade, limit) = (hyper::upgrade::on(&mut request), self.context.options.server.idle);
        let (until, slot) = (self.context.shutdown.clone(), slot.clone());
        let served = async move {
            turned_over(upgrade, limit, serve).await;
            drop(slot);
        };
        self.context.tasks.spawn(async move { until.run_until_cancelled(served).await });
    }
}

async fn turned_over<S, F>(upgrade: OnUpgrade, limit: Duration, serve: S)
where
    S: FnOnce(Client) -> F + Send,
    F: Future<Output = ()> + Send,
{
    let upgraded = match upgrade.await {
        Ok(upgraded) => upgraded,
        Err(error) => return debug!(%error, "a client did not turn its connection over"),
    };
    match client::of(upgraded) {
        Ok((client, watch)) => client::while_there(&watch, limit, serve(client)).await,
        Err(error) => debug!(%error, "a client's connection cannot be watched"),
    }
}

fn streamable(method: &Method) -> Result<(), Response<Body>> {
    if matches!(*method, Method::GET | Method::POST) {
        return Ok(());
    }
    Err(text_response(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n"))
}

fn failed(error: &crate::runtime::RuntimeError) -> Response<Body> {
    text_response(StatusCode::INTERNAL_SERVER_ERROR, chain(error))
}
