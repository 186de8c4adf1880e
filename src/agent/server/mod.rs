//! The kubelet's HTTP paths, read-only: what runs, what is wanted, how it is.
//!
//! [`Router`] answers a request of any listener: the listener of the read-only address asks for no credentials and is
//! for loopback; [`serve_secure`] puts it behind TLS, credentials and rights, together with what only it serves: streams.

pub mod pods_api;
mod auth;
mod configz;
mod connections;
mod healthz;
pub mod http;
mod logs;
mod metrics;
mod negotiate;
mod pods;
mod query;
mod secure;
mod slots;
pub mod stream;
mod syslogs;
mod tls;
mod zpages;

use std::sync::Arc;

use ::http::{Method, Request, Response, StatusCode};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use self::healthz::local::serve as serve_healthz;
use self::http::{Body, PlainTransport, text_response};
use self::metrics::Measurer;
use self::query::Query;
pub use self::secure::serve as serve_secure;
pub use self::tls::TlsError;
use super::context::Context;

/// Paths that are there only with `enableDebuggingHandlers`, and where credentials are asked for: what runs in containers,
/// and what they say. Without, the kubelet answers that they are disabled,
const DEBUGGING: &[&str] =
    &["/run", "/exec", "/attach", "/portForward", "/containerLogs", "/runningpods", "/logs", "/debug/pprof"];
/// and knows nothing of these.
const DEBUGGING_UNSAID: &[&str] = &["/configz", "/flagz", "/statusz"];

/// Answers requests to the kubelet's paths.
#[derive(Clone)]
pub struct Router {
    context: Arc<Context>,
    measurer: Arc<Measurer>,
    /// Whether there are the paths of `enableDebuggingHandlers`.
    debugging: bool,
}

/// Serves the read-only paths until `shutdown`.
pub async fn serve(listener: TcpListener, context: Arc<Context>, shutdown: CancellationToken) {
    // The kubelet has none of them here, whatever its configuration says.
    let router = Router::new(context, false);
    let answer = move |request: Request<_>| {
        let router = router.clone();
        async move { router.answer(&request).await }
    };
    http::serve(listener, PlainTransport, answer, shutdown).await;
}

impl Router {
    /// Of this agent, with the paths of `enableDebuggingHandlers` or without.
    pub fn new(context: Arc<Context>, debugging: bool) -> Self {
        Self { context, measurer: Arc::default(), debugging }
    }

    /// What is answered to a request of a path that is not there for want of `enableDebuggingHandlers`; None for any other.
    pub fn disabled(&self, path: &str) -> Option<Response<Body>> {
        let is_below = |one: &str| path.strip_prefix(one).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        match self.debugging {
            true => None,
            false if DEBUGGING.iter().any(|one| is_below(one)) => {
                Some(text_response(StatusCode::METHOD_NOT_ALLOWED, "Debug endpoints are disabled.\n"))
            }
            false => DEBUGGING_UNSAID.iter().any(|one| is_below(one)).then(not_found),
        }
    }

    /// The answer to a request; what it carries is not read.
    pub async fn answer<B>(&self, request: &Request<B>) -> Response<Body> {
        let path = request.uri().path().trim_end_matches('/');
        if let Some(refusal) = self.disabled(path) {
            return refusal;
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return text_response(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");
        }
        let (query, gates) = (Query::of(request.uri().query()), self.context.options.gates);
        match path {
            "/pods" => pods::desired(&self.context),
            "/runningpods" => pods::running(&self.context).await,
            "/configz" => configz::answer(&self.context.options),
            "/metrics" => metrics::all(&self.context),
            "/metrics/cadvisor" => metrics::cadvisor(&self.context).await,
            "/metrics/resource" => metrics::resource(&self.context).await,
            "/metrics/probes" => metrics::of_probes(&self.context),
            "/metrics/slis" => metrics::slis(&self.context),
            "/statusz" if gates.statusz => {
                let reports = self.context.board.reports();
                zpages::status(&reports.borrow().agent, gates, request.headers(), jiff::Timestamp::now())
            }
            "/flagz" if gates.flagz => zpages::flags(&self.context.options, request.headers()),
            "/stats/summary" | "/stats" => metrics::summary::answer(&self.context, &self.measurer, &query).await,
            _ => match (path.strip_prefix("/containerLogs/"), path.strip_prefix("/healthz")) {
                (Some(container), _) => logs::stream(&self.context, container, &query).await,
                (_, Some(check)) => {
                    let known = healthz::answer(&self.context, check.trim_start_matches('/'), &query);
                    known.unwrap_or_else(not_found)
                }
                _ => not_found(),
            },
        }
    }
}

fn not_found() -> Response<Body> {
    text_response(StatusCode::NOT_FOUND, "404 page not found\n")
}
