//! How often the API server is asked, what it answers, and how long that takes, by client-go's labels.

use std::borrow::Cow;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Method, Request, Response, StatusCode};
use tower::Service;

use crate::agent::histogram::{Counters, Histograms, REQUESTS};
use crate::host::clock::Instant;

/// What was asked since the agent started.
#[derive(Debug)]
pub struct Requests {
    /// How often, by code, method and host. A request that is not answered has the code `<error>`.
    pub results: Counters<3>,
    /// How long until an answer began, by method and host.
    pub times: Histograms<2>,
}

impl Default for Requests {
    fn default() -> Self {
        Self { results: Counters::default(), times: Histograms::new(REQUESTS) }
    }
}

/// A client whose requests are counted.
#[derive(Clone)]
pub struct Counting<S> {
    inner: S,
    host: Arc<str>,
    requests: Arc<Requests>,
}

impl<S> Counting<S> {
    /// Counts what `inner` is asked, which asks `host`.
    pub fn new(inner: S, host: Arc<str>, requests: Arc<Requests>) -> Self {
        Self { inner, host, requests }
    }
}

impl<S, B, R> Service<Request<B>> for Counting<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let mut pending = Pending {
            code: Cow::Borrowed("<error>"),
            method: request.method().clone(),
            host: Arc::clone(&self.host),
            started: Instant::now(),
            requests: Arc::clone(&self.requests),
        };
        let answered = self.inner.call(request);
        async move {
            let answer = answered.await;
            if let Ok(answer) = &answer {
                pending.answered(answer.status());
            }
            answer
        }
        .boxed()
    }
}

/// A request under way. It is counted at its end, also where nothing waits for it any more.
struct Pending {
    code: Cow<'static, str>,
    method: Method,
    host: Arc<str>,
    started: Instant,
    requests: Arc<Requests>,
}

impl Pending {
    fn answered(&mut self, status: StatusCode) {
        self.code = Cow::Owned(status.as_u16().to_string());
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let label = |text: &str| -> Cow<'static, str> { Cow::Owned(text.to_owned()) };
        let (method, host) = (label(self.method.as_str()), label(&self.host));
        self.requests.times.time([method.clone(), host.clone()], self.started.elapsed());
        self.requests.results.count([self.code.clone(), method, host]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_that_is_given_up_is_counted_as_one_without_an_answer() {
        let requests = Arc::new(Requests::default());
        let never = tower::service_fn(|_: Request<()>| std::future::pending::<Result<Response<()>, std::io::Error>>());
        let mut client = Counting::new(never, "h:1".into(), Arc::clone(&requests));
        drop(client.call(Request::post("/x").body(()).unwrap()));
        assert_eq!(requests.results.all(), [(["<error>".into(), "POST".into(), "h:1".into()], 1)]);
    }
}
