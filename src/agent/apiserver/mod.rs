//! The agent's way to an API server, where it has one: clients with the node's own credentials.
//!
//! Nothing that runs pods waits for it. The kubeconfig need not be there when the agent starts: a tool that makes a cluster
//! of this machine starts the agent first. It is read again whenever it changes.

pub mod certificates;
mod credentials;
pub mod registered;
mod requests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub mod call;

use kube::Client;
use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::backoff::Steps;
use super::board::Board;
use super::control::report::Problem;
use super::counters::Metrics;
use super::options::AgentOptions;
use crate::agent::apiserver::certificates::store::Store;
use crate::error::chain;
use crate::host::watched::Files;
use credentials::Credentials;
use requests::Requests;

/// The longest a single request may take. A client does not end a request by itself: a watch lasts.
pub const CALL_LIMIT: Duration = Duration::from_secs(15);

/// How often the files are read although nothing happened to them.
const REREAD: Duration = Duration::from_secs(30);

/// How long to wait until a first certificate is asked for again.
const RETRY: Steps = Steps { initial: Duration::from_secs(2), cap: Duration::from_secs(120) };

/// The API server, once there are credentials for it. Cheap to share; made once an agent.
pub struct ApiServer {
    clients: watch::Sender<Option<Client>>,
    /// What it is asked.
    pub requests: Arc<Requests>,
}

impl Default for ApiServer {
    fn default() -> Self {
        Self { clients: watch::Sender::new(None), requests: Arc::default() }
    }
}

impl ApiServer {
    /// The client to use now; None while there are no credentials. A call may still fail: the server was not asked.
    pub fn client(&self) -> Option<Client> {
        self.clients.borrow().clone()
    }

    /// The client as it changes: credentials come, and are renewed.
    pub fn clients(&self) -> watch::Receiver<Option<Client>> {
        self.clients.subscribe()
    }

    /// From now on this client is used.
    pub fn set(&self, client: Client) {
        self.clients.send_replace(Some(client));
    }
}

/// What keeping the client and the certificates takes.
#[derive(Clone)]
pub struct Parts {
    /// What the agent was started with.
    pub options: Arc<AgentOptions>,
    /// What is kept, where the agent has an API server.
    pub api: Option<Arc<ApiServer>>,
    /// Where problems are reported.
    pub board: Arc<Board>,
    /// Where failures are counted.
    pub metrics: Arc<Metrics>,
}

/// Keeps the client up to date with the kubeconfig until the agent ends. Needs an agent with a kubeconfig.
pub async fn keep(parts: Parts) {
    let node = &parts.options.node;
    let (Some(api), Some(kubeconfig)) = (&parts.api, &node.kubeconfig) else { return };
    let first: Vec<_> = std::iter::once(kubeconfig.clone()).chain(node.bootstrap_kubeconfig.clone()).collect();
    let store = node.rotate_certificates.then(|| Store::client(&node.cert_dir));
    let files = Files::new(first.clone());
    let mut refresher = Refresher { api, kubeconfig, store, first, files, used: None };
    let (mut failures, mut said) = (0, String::new());
    loop {
        let (usable, mut trouble) = refresher.load().await;
        let mut pause = REREAD;
        if usable {
            failures = 0;
        } else {
            tokio::select! {
                started = begin(&parts) => match started {
                    // A certificate that is of no use is not asked for again and again.
                    Ok(true) => {
                        pause = RETRY.spread(failures);
                        failures = failures.saturating_add(1);
                    }
                    Ok(false) => {}
                    Err(error) => {
                        failures = failures.saturating_add(1);
                        (pause, trouble) = (RETRY.spread(failures), error);
                    }
                },
                // Whatever came may be the kubeconfig itself.
                () = refresher.files.changed(Duration::MAX) => continue,
            }
        }
        if said != trouble {
            if !trouble.is_empty() {
                warn!(error = trouble, "the API server cannot be reached with these credentials");
            }
            let problem = Problem::error(kubeconfig.display().to_string(), trouble.clone());
            let problems = Some(problem).filter(|_| !trouble.is_empty()).into_iter().collect();
            parts.board.set_problems("kubeconfig", problems);
            said = trouble;
        }
        refresher.files.changed(pause).await;
    }
}

struct Refresher<'a> {
    api: &'a ApiServer,
    kubeconfig: &'a Path,
    /// Where certificates are that are renewed.
    store: Option<Store>,
    /// The files that are watched whatever they hold.
    first: Vec<PathBuf>,
    files: Files,
    /// Hash of what the client was made of.
    used: Option<Vec<u8>>,
}

impl Refresher<'_> {
    /// Uses what the kubeconfig says now. Returns whether that is of any use, and what is wrong.
    async fn load(&mut self) -> (bool, String) {
        let found = match Credentials::load(self.kubeconfig, self.store.as_ref(), &self.api.requests).await {
            Ok(Some(found)) => found,
            Ok(None) => {
                debug!(kubeconfig = %self.kubeconfig.display(), "there is no kubeconfig yet");
                return (false, String::new());
            }
            Err(error) => return (false, chain(&error)),
        };
        if self.used.as_ref() != Some(&found.digest) {
            info!(kubeconfig = %self.kubeconfig.display(), server = found.server, "the API server is known");
            self.files = Files::new([self.first.clone(), found.files].concat());
            self.used = Some(found.digest);
            self.api.set(found.client);
        }
        let trouble = found.expired.map(|end| format!("the client certificate expired at {end}"));
        (trouble.is_none(), trouble.unwrap_or_default())
    }
}

/// Has a first certificate made, where there is a kubeconfig for that. Returns whether there was.
async fn begin(parts: &Parts) -> Result<bool, String> {
    let Some(path) = &parts.options.node.bootstrap_kubeconfig else { return Ok(false) };
    let Some(api) = &parts.api else { return Ok(false) };
    let found = Credentials::load(path, None, &api.requests).await.map_err(|error| chain(&error))?;
    let Some(found) = found else { return Ok(false) };
    certificates::client::bootstrap(&parts.options, path, &found.client).await.map_err(|error| chain(&error))?;
    Ok(true)
}
