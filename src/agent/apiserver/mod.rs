//! The agent's way to an API server, where it has one: clients with the node's own credentials.
//!
//! Nothing that runs pods waits for it. The kubeconfig need not be there when the agent starts: whoever makes a cluster
//! of this machine starts the agent first. It is read again whenever it changes.

mod credentials;
pub mod files;

use std::sync::Arc;
use std::time::Duration;

pub mod call;
pub mod pod_status;

use kube::Client;
use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::context::Context;
use super::report::Problem;
use super::status::chain;
use credentials::Credentials;
use files::Files;

/// The longest a single request may take. A client does not end a request by itself: a watch lasts.
pub const CALL_LIMIT: Duration = Duration::from_secs(15);

/// How often the files are read although nothing happened to them.
const REREAD: Duration = Duration::from_secs(30);

/// The API server, once there are credentials for it. Cheap to share; made once an agent.
pub struct ApiServer {
    clients: watch::Sender<Option<Client>>,
}

impl Default for ApiServer {
    fn default() -> Self {
        Self { clients: watch::Sender::new(None) }
    }
}

impl ApiServer {
    /// The client to use now; None while there are no credentials. A call may still fail: nobody asked the server.
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

/// Keeps the client up to date with the kubeconfig until the agent ends. Needs an agent with a kubeconfig.
pub async fn keep(context: Arc<Context>) {
    let (Some(api), Some(kubeconfig)) = (&context.api, &context.options.node.kubeconfig) else { return };
    let mut files = Files::new(vec![kubeconfig.clone()]);
    let mut used: Option<Vec<u8>> = None;
    let mut said = String::new();
    loop {
        match Credentials::load(kubeconfig).await {
            Ok(Some(found)) => {
                if used.as_ref() != Some(&found.digest) {
                    info!(kubeconfig = %kubeconfig.display(), server = found.server, "the API server is known");
                    files = Files::new(found.files);
                    used = Some(found.digest);
                    api.set(found.client);
                    context.board.set_problems("kubeconfig", vec![]);
                    said.clear();
                }
            }
            Ok(None) => debug!(kubeconfig = %kubeconfig.display(), "there is no kubeconfig yet"),
            Err(error) => {
                let message = chain(&error);
                if said != message {
                    warn!(error = message, "cannot use the kubeconfig");
                    let problem = Problem::error(kubeconfig.display().to_string(), message.clone());
                    context.board.set_problems("kubeconfig", vec![problem]);
                    said = message;
                }
            }
        }
        files.changed(REREAD).await;
    }
}
