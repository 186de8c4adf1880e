//! The URL source: `staticPodURL` is asked at the start and each `httpCheckFrequency`, for a Pod or a PodList.
//!
//! Only an answer 200 that can be read changes anything. What cannot be had or read is a problem on the board and keeps
//! what runs; so does an agent that is restarted while the server is down, which knows the last good answer from a file
//! below its root directory. A first failure is tried again sooner than the kubelet would.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::Update;
use super::checkpoint::Answer;
use super::remote::Remote;
use crate::agent::options::AgentOptions;
use crate::agent::pod::MANIFEST_LIMIT;
use crate::error::chain;
use crate::pki::verifier::Verifier;

/// A whole request, redirects included, as by the kubelet.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Redirects that are followed, as by Go's client.
const REDIRECTS: usize = 10;
/// The first wait after a failure; it doubles up to the usual frequency.
const RETRY: Duration = Duration::from_secs(1);
/// Levels of the client's errors that say nothing.
const SAYS_NOTHING: &[&str] = &["error sending request", "client error (Connect)", "request or response body error"];

/// Publishes what `url` answers until `shutdown`. Only what differs from the last update is published; the first one
/// comes when the server has answered or has failed to.
pub async fn watch(url: String, options: AgentOptions, updates: mpsc::Sender<Update>, shutdown: CancellationToken) {
    let source = HttpSource::new(url, &options);
    shutdown.run_until_cancelled(source.run(updates)).await;
}

struct HttpSource {
    url: String,
    headers: HeaderMap,
    frequency: Duration,
    client: Option<reqwest::Client>,
    remote: Remote,
    checkpoint: Answer,
}

impl HttpSource {
    fn new(url: String, options: &AgentOptions) -> Self {
        Self {
            remote: Remote::new(&options.node_name, &url),
            checkpoint: Answer::new(&options.root_dir, &url),
            headers: header_map(&options.static_pod_url_headers),
            frequency: options.http_check_frequency,
            client: None,
            url,
        }
    }

    async fn run(mut self, updates: mpsc::Sender<Update>) {
        let mut last: Option<Update> = None;
        let mut pause = RETRY;
        loop {
            let answer = self.ask().await;
            let answered = answer.is_ok();
            if last.is_none() {
                self.recall().await;
            }
            let update = self.remote.take(answer, Timestamp::now());
            if last.as_ref() != Some(&update) {
                for problem in &update.problems {
                    if !last.as_ref().is_some_and(|last| last.problems.contains(problem)) {
                        warn!(subject = problem.subject, message = problem.message, "manifest problem");
                    }
                }
                last = Some(update.clone());
                if updates.send(update).await.is_err() {
                    return;
                }
            }
            self.keep().await;
            let wait = if answered { self.frequency } else { pause.min(self.frequency) };
            pause = if answered { RETRY } else { pause.saturating_mul(2) };
            tokio::time::sleep(wait).await;
        }
    }

    /// Takes in what an earlier agent kept, before the first answer, which knows better if it is a good one.
    async fn recall(&mut self) {
        if let Some(Some(body)) = self.on_disk(Answer::load).await {
            self.remote.remember(&body, Timestamp::now());
        }
    }

    /// Keeps what is good, after every receiver that waits for it has it.
    async fn keep(&mut self) {
        let Some(body) = self.remote.good() else { return };
        if let Some(Err(error)) = self.on_disk(move |kept| kept.keep(&body)).await {
            debug!(error = chain(&error), "cannot keep the answer");
        }
    }

    /// Does something with what is kept, off the runtime's threads: a disk may hang.
    async fn on_disk<T: Send + 'static>(&mut self, act: impl FnOnce(&mut Answer) -> T + Send + 'static) -> Option<T> {
        let mut checkpoint = self.checkpoint.clone();
        let (done, checkpoint) = tokio::task::spawn_blocking(move || (act(&mut checkpoint), checkpoint)).await.ok()?;
        self.checkpoint = checkpoint;
        Some(done)
    }

    async fn ask(&mut self) -> Result<Vec<u8>, String> {
        let client = match &self.client {
            Some(client) => client.clone(),
            None => {
                let client = client().map_err(|e| format!("cannot be asked: {}", reason(e)))?;
                self.client.insert(client).clone()
            }
        };
        let asked = tokio::time::timeout(TIMEOUT, fetch(&client, &self.url, &self.headers)).await;
        asked.unwrap_or_else(|_| Err(format!("has not answered within {} s", TIMEOUT.as_secs())))
    }
}

/// Headers with all values of a name, none of which any log may show.
fn header_map(headers: &[(String, String)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        if let (Ok(name), Ok(mut value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
            value.set_sensitive(true);
            map.append(name, value);
        }
    }
    map
}

/// A client with the proxies of the environment and the machine's certificate authorities.
fn client() -> Result<reqwest::Client, reqwest::Error> {
    let builder = match Verifier::of_machine().and_then(|verifier| verifier.client_config(None)) {
        Ok(tls) => reqwest::Client::builder().tls_backend_preconfigured(tls),
        // Without any authority every https:// URL is refused, and others are not.
        Err(_) => reqwest::Client::builder(),
    };
    builder
        .user_agent(concat!("kubeboot/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::limited(REDIRECTS))
        // Asked so seldom that a connection kept open is one that may have died.
        .pool_max_idle_per_host(0)
        .build()
}

async fn fetch(client: &reqwest::Client, url: &str, headers: &HeaderMap) -> Result<Vec<u8>, String> {
    let failed = |e: reqwest::Error| format!("cannot be read: {}", reason(e));
    let mut response = client.get(url).headers(headers.clone()).send().await.map_err(failed)?;
    if response.status() != StatusCode::OK {
        return Err(format!("answered {}", response.status()));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        body.extend_from_slice(&chunk);
        if body.len() >= MANIFEST_LIMIT {
            return Err(format!("answered with {MANIFEST_LIMIT} bytes or more"));
        }
    }
    Ok(body)
}

/// An error's causes in one line, without the URL, which may hold a password.
fn reason(error: reqwest::Error) -> String {
    let text = chain(&error.without_url());
    let mut parts: Vec<&str> = text.split(": ").filter(|part| !SAYS_NOTHING.contains(part)).collect();
    parts.dedup();
    parts.join(": ")
}

#[cfg(test)]
mod tests;
