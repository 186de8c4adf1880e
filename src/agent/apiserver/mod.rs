//! The agent's way to an API server, where it has one: clients with the node's own credentials.
//!
//! Nothing that runs pods waits for it.

pub mod call;
pub mod pod_status;

use kube::Client;
use tokio::sync::watch;

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
