//! The agent's own API as the kubelet's on port 10250: TLS, and behind it credentials and rights before every path. A
//! client that has neither gets one answer, and holds up none that has: see [`connections`](super::connections).

use std::sync::Arc;

use ::http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::auth::{self, Gate, Presented};
use super::connections::Connection;
use super::http::{self, Body, text_response};
use super::slots::Slots;
use super::stream::Streams;
use super::tls::{self, Served, TlsError, TlsTransport};
use super::{Router, syslogs};
use crate::agent::apiserver::ApiServer;
use crate::agent::context::Context;

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
    let transport = TlsTransport::new(options, Arc::clone(&served))?;
    tls::begin(&context, &served)?;
    if let Some(file) = &options.client_ca
        && let Err(error) = auth::check_authorities(file)
    {
        // It may come later, with a cluster that is being made.
        warn!(file = %file.display(), error, "cannot read the authorities of clients yet");
    }
    let secured = Arc::new(Secured {
        gate: Gate::new(&context.options.node_name, options, context.api.clone()),
        router: Router::new(Arc::clone(&context), options.debugging),
        streams: Streams::new(Arc::clone(&context)),
        slots: Slots::new(),
    });
    let answer = move |request: Request<Incoming>| {
        let secured = Arc::clone(&secured);
        async move { secured.answer(request).await }
    };
    Ok(async move {
        let until = shutdown.clone();
        let kept = until.run_until_cancelled(tls::keep(context, served));
        tokio::join!(http::serve(listener, transport, answer, shutdown), kept);
    })
}

struct Secured<R> {
    gate: Gate<R>,
    router: Router,
    streams: Streams,
    slots: Slots,
}

impl Secured<Option<Arc<ApiServer>>> {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let presented = request.extensions().get::<Presented>();
        let (connection, path) = (request.extensions().get::<Arc<Connection>>().cloned(), request.uri().path());
        if let Err(refusal) = self.gate.admit(presented, request.headers(), request.method(), path).await {
            let stays = connection.is_some_and(|one| one.is_admitted()) && refusal.status() != StatusCode::UNAUTHORIZED;
            return if stays { refusal } else { closing(refusal) };
        }
        if connection.as_ref().is_some_and(|one| !one.admit()) {
            return closing(text_response(StatusCode::TOO_MANY_REQUESTS, "too many connections at a time\n"));
        }
        if let Some(refusal) = self.router.disabled(path) {
            return refusal;
        }
        let slot = match self.slots.take(path) {
            Ok(slot) => slot,
            Err(refusal) => return refusal,
        };
        if let Some(connection) = connection {
            connection.patience().set(slot.patience);
        }
        // Only here: logs of the machine are not for clients without an identity.
        if let Some(below) = path.strip_prefix("/logs")
            && (below.is_empty() || below.starts_with('/'))
        {
            return slot.hold(self.system_logs(below).await);
        }
        let response = match self.streams.answer(request, &slot).await {
            Ok(response) => response,
            Err(request) => self.router.answer(&request).await,
        };
        slot.hold(response)
    }

    async fn system_logs(&self, below: &str) -> Response<Body> {
        if self.router.context.options.server.system_logs {
            return syslogs::answer(below).await;
        }
        text_response(StatusCode::METHOD_NOT_ALLOWED, "logs endpoint is disabled.\n")
    }
}

/// The last answer on its connection.
fn closing(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

#[cfg(test)]
mod tests;
