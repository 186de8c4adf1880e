//! The agent's own API as the kubelet's on port 10250: TLS, and behind it credentials and rights before every path.

use std::sync::Arc;

use ::http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::auth::{self, Gate, Presented};
use super::http::{self, Body, say};
use super::stream::Streams;
use super::tls::{self, Served, TlsDoor, TlsError};
use super::{Router, syslogs};
use crate::agent::apiserver::ApiServer;
use crate::agent::context::Context;

/// Paths that are there only with `enableDebuggingHandlers`.
const DEBUGGING: &[&str] =
    &["/run", "/exec", "/attach", "/portForward", "/containerLogs", "/runningpods", "/logs", "/debug"];

/// Serves until `shutdown`.
///
/// # Errors
/// The certificate of the options cannot be used, or their TLS settings cannot be.
pub fn serve(
    listener: TcpListener,
    context: Arc<Context>,
    shutdown: CancellationToken,
) -> Result<impl Future<Output = ()> + Send, TlsError> {
    let options = &context.options.server;
    let served = Arc::new(Served::default());
    let door = TlsDoor::new(options, Arc::clone(&served))?;
    tls::begin(&context, &served)?;
    if let Some(file) = &options.client_ca
        && let Err(error) = auth::check_authorities(file)
    {
        // It may come later, with a cluster that is being made.
        warn!(file = %file.display(), error, "cannot read the authorities of clients yet");
    }
    let secured = Arc::new(Secured {
        gate: Gate::new(&context.options.node_name, options, context.api.clone()),
        router: Router::new(Arc::clone(&context)),
        streams: Streams::new(Arc::clone(&context)),
    });
    let answer = move |request: Request<Incoming>| {
        let secured = Arc::clone(&secured);
        async move { secured.answer(request).await }
    };
    Ok(async move {
        let until = shutdown.clone();
        let kept = until.run_until_cancelled(tls::keep(context, served));
        tokio::join!(http::serve(listener, door, answer, shutdown), kept);
    })
}

struct Secured<R> {
    gate: Gate<R>,
    router: Router,
    streams: Streams,
}

impl Secured<Option<Arc<ApiServer>>> {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let presented = request.extensions().get::<Presented>();
        let path = request.uri().path();
        if let Err(refusal) = self.gate.admit(presented, request.headers(), request.method(), path).await {
            return refusal;
        }
        if !self.router.context.options.server.debugging && is_debugging(path) {
            return say(StatusCode::METHOD_NOT_ALLOWED, "Debug endpoints are disabled.\n");
        }
        // Only here: logs of the machine are for nobody who has not said who he is.
        if let Some(below) = path.strip_prefix("/logs")
            && (below.is_empty() || below.starts_with('/'))
        {
            return self.system_logs(below).await;
        }
        match self.streams.answer(request).await {
            Ok(response) => response,
            Err(request) => self.router.answer(&request).await,
        }
    }

    async fn system_logs(&self, below: &str) -> Response<Body> {
        if self.router.context.options.server.system_logs {
            return syslogs::answer(below).await;
        }
        say(StatusCode::METHOD_NOT_ALLOWED, "logs endpoint is disabled.\n")
    }
}

fn is_debugging(path: &str) -> bool {
    DEBUGGING.iter().any(|one| path.strip_prefix(one).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_shows_containers_from_within_is_for_debugging() {
        for path in ["/exec/a/b/c", "/run", "/containerLogs/a/b/c", "/runningpods/", "/logs/"] {
            assert!(is_debugging(path), "{path}");
        }
        for path in ["/pods", "/metrics", "/healthz", "/stats/summary", "/execute"] {
            assert!(!is_debugging(path), "{path}");
        }
    }
}
