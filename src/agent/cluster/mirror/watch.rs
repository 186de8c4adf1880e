//! What mirrors the API server has: a list, then what changes, and a list again after each interruption.
//!
//! Only metadata is asked for, and of that only what the plan needs is kept. Not kube's `metadata_watcher`: it decodes all
//! metadata, managed fields included, for which the heap of a process with 100 mirrors was twice as large (1.6 MB, not
//! 0.8 MB).

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::core::Request;
use kube::{Client, Resource};
use tokio::sync::{mpsc, watch::Receiver};
use tokio::time::timeout;
use tracing::{debug, info};

use super::object::{Found, FoundList};
use super::plan::Mirror;
use crate::agent::apiserver::ApiServer;
use crate::agent::apiserver::call::{CallError, within_limit};
use crate::agent::apiserver::registered::NodeIdentity;
use crate::agent::backoff::Steps;
use crate::agent::pod::PodKey;
use crate::error::chain;
use crate::host::clock::Instant;

/// How long to wait for an API server that is away. A refused connection costs nothing, and who starts one waits to see
/// the mirrors.
const RECONNECT: Steps = Steps { initial: Duration::from_millis(200), cap: Duration::from_secs(2) };
/// How long the API server keeps a watch, in seconds.
const WATCH_SECONDS: u32 = 290;
/// Longer than a watch lasts: one that is silent for so long has lost its server.
const SILENCE: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 30);
/// A watch that ends sooner than this was not meant to.
const SHORT: Duration = Duration::from_secs(1);

/// What the watch has to say.
#[derive(Debug)]
pub enum News {
    /// Every mirror there is.
    Listed(BTreeMap<PodKey, Mirror>),
    /// One that was made or changed.
    Seen(PodKey, Mirror),
    /// One that is gone, with its UID.
    Gone(PodKey, String),
    /// The API server is away: what was said before may not be so any more.
    Lost,
}

/// Why a session has ended.
enum Ended {
    /// The API server has forgotten what happened since: list again.
    Expired,
    /// It is away.
    Failed(CallError),
    /// The receiver is gone.
    Unwanted,
}

/// Watches until its receiver is gone. Restarts with each client, and does not wait any longer once the Node is known to be
/// registered: the API server has answered then.
pub async fn run(
    api: Arc<ApiServer>,
    node_name: String,
    mut node: Receiver<Option<NodeIdentity>>,
    news: mpsc::Sender<News>,
) {
    let mut clients = api.clients();
    let mut failures = 0;
    loop {
        let client = clients.borrow_and_update().clone();
        let ended = match client {
            None => {
                if clients.changed().await.is_err() {
                    return;
                }
                continue;
            }
            Some(client) => tokio::select! {
                ended = session(&client, &node_name, &news, &mut failures) => ended,
                _ = clients.changed() => continue,
            },
        };
        match ended {
            Ended::Unwanted => return,
            Ended::Expired => debug!("the API server has forgotten the mirrors' versions: listing them"),
            Ended::Failed(error) if failures == 0 => {
                info!(error = chain(&error), "no mirror pods while the API server is away");
            }
            Ended::Failed(error) => debug!(error = chain(&error), failures, "the API server is still away"),
        }
        if news.send(News::Lost).await.is_err() {
            return;
        }
        failures = failures.saturating_add(1);
        tokio::select! {
            () = tokio::time::sleep(RECONNECT.spread(failures)) => {}
            _ = clients.changed() => {}
            Ok(()) = node.changed() => {}
        }
    }
}

/// From one list to the next interruption.
async fn session(client: &Client, node_name: &str, news: &mpsc::Sender<News>, failures: &mut u32) -> Ended {
    let fields = format!("spec.nodeName={node_name}");
    let (mut version, mirrors) = match list(client, &fields).await {
        Ok(list) => list.into_mirrors(),
        Err(error) => return Ended::Failed(error),
    };
    debug!(mirrors = mirrors.len(), version, "listed the mirror pods");
    if news.send(News::Listed(mirrors)).await.is_err() {
        return Ended::Unwanted;
    }
    *failures = 0;
    loop {
        let started = Instant::now();
        if let Some(ended) = watch(client, &fields, &mut version, news).await {
            return ended;
        }
        if started.elapsed() < SHORT {
            // It goes on from where it was, but not in a hot loop.
            tokio::time::sleep(SHORT).await;
        }
    }
}

fn request() -> Request {
    Request::new(Pod::url_path(&(), None))
}

async fn list(client: &Client, fields: &str) -> Result<FoundList, CallError> {
    let request = request().list_metadata(&ListParams::default().fields(fields));
    within_limit(async { client.request(request.map_err(kube::Error::BuildRequest)?).await }).await
}

/// Tells what happens after `version` and keeps it up to date. None when the server has ended the watch in time.
async fn watch(client: &Client, fields: &str, version: &mut String, news: &mpsc::Sender<News>) -> Option<Ended> {
    let params = WatchParams::default().fields(fields).timeout(WATCH_SECONDS);
    let request = request().watch_metadata(&params, version);
    let events =
        within_limit(async { client.request_events::<Found>(request.map_err(kube::Error::BuildRequest)?).await });
    let mut events = match events.await {
        Ok(events) => pin!(events),
        Err(error) if error.code() == Some(410) => return Some(Ended::Expired),
        Err(error) => return Some(Ended::Failed(error)),
    };
    loop {
        let next = match timeout(SILENCE, events.try_next()).await {
            Err(_) => return Some(Ended::Failed(CallError::Timeout)),
            Ok(Err(error)) => return Some(Ended::Failed(CallError::Failed(Box::new(error)))),
            Ok(Ok(None)) => return None,
            Ok(Ok(Some(event))) => event,
        };
        let reported = match next {
            WatchEvent::Added(found) | WatchEvent::Modified(found) => {
                found.version().clone_into(version);
                let key = found.key();
                found.into_mirror().map(|mirror| News::Seen(key, mirror))
            }
            WatchEvent::Deleted(found) => {
                found.version().clone_into(version);
                Some(News::Gone(found.key(), found.uid().to_owned()))
            }
            WatchEvent::Bookmark(bookmark) => {
                *version = bookmark.metadata.resource_version;
                None
            }
            WatchEvent::Error(status) if status.code == 410 => return Some(Ended::Expired),
            WatchEvent::Error(status) => {
                return Some(Ended::Failed(CallError::Failed(Box::new(kube::Error::Api(status)))));
            }
        };
        if let Some(reported) = reported
            && news.send(reported).await.is_err()
        {
            return Some(Ended::Unwanted);
        }
    }
}
