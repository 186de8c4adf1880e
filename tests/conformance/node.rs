//! A machine whose runtime is asked, beside its agent, what happened; and the paths that the agent serves there.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use kubeboot::testing::Machine;
use kubeboot::testing::real::daemon::Daemon;
use kubeboot::testing::real::ports;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::history::{Events, History};

/// After this long an event that has not come is lost.
const LOST: Duration = Duration::from_secs(15);

/// See the module.
pub struct Node {
    history: Option<History>,
    read_only_port: Option<u16>,
    machine: Machine,
}

impl Deref for Node {
    type Target = Machine;

    fn deref(&self) -> &Machine {
        &self.machine
    }
}

impl DerefMut for Node {
    fn deref_mut(&mut self) -> &mut Machine {
        &mut self.machine
    }
}

impl Node {
    /// A node on the runtime that all share, whose agent has not been started.
    pub fn new() -> Self {
        Self { history: None, read_only_port: None, machine: Machine::new() }
    }

    /// The same on a runtime of its own.
    pub fn on(daemon: Daemon) -> Self {
        Self { history: None, read_only_port: None, machine: Machine::on(daemon) }
    }

    /// Records from now on what happens to this node's containers; called before the agent is started.
    pub async fn record(&mut self) {
        self.history = Some(History::start(self.engine.events(&self.owner())));
        // Nothing says that the recording has begun but something recorded.
        let look = || {
            let mark = self.engine.mark(&self.owner());
            std::future::ready(self.recorder().has_told(&mark))
        };
        self.eventually("the recording began", look).await;
        self.settled(&self.engine.mark(&self.owner())).await;
    }

    /// What was recorded until now: a runtime tells late of what has happened.
    pub async fn history(&self) -> Events {
        self.settled(&self.engine.mark(&self.owner())).await
    }

    /// What is recorded, as soon as it has come to a mark and is what led to now.
    async fn settled(&self, mark: &str) -> Events {
        let begun = Instant::now();
        let look = || {
            let recorder = self.recorder();
            assert!(recorder.goes_on(), "what tells of the containers has ended");
            let (marked, events) = (recorder.has_told(mark), recorder.events());
            let untold = marked && begun.elapsed() > LOST;
            let missing = events.missing(&self.engine.running(&self.owner()), untold);
            let led_to_now = marked && missing.is_empty();
            std::future::ready(if led_to_now {
                Ok(events)
            } else {
                Err(format!("at the mark: {marked}; {missing:#?}"))
            })
        };
        self.eventually("all that happened is recorded", look).await
    }

    fn recorder(&self) -> &History {
        self.history.as_ref().unwrap()
    }

    /// Serves the kubelet's read-only paths from the next start on.
    pub fn serve(&mut self) {
        let port = ports::free();
        self.read_only_port = Some(port);
        self.flags.extend(["--read-only-port".to_owned(), port.to_string()]);
    }

    /// Where they are served.
    pub fn read_only_port(&self) -> u16 {
        self.read_only_port.unwrap()
    }

    /// `/pods`, by name, as the API's objects; called after [`Node::serve`].
    pub async fn pods(&self) -> BTreeMap<String, Value> {
        let port = self.read_only_port.unwrap();
        let (status, body) = self.eventually("/pods is served", || std::future::ready(ports::get(port, "/pods"))).await;
        assert_eq!(status, 200, "{body}");
        let list: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("PodList"), &json!("v1")));
        let items = list["items"].as_array().unwrap().iter();
        items.map(|pod| (pod["metadata"]["name"].as_str().unwrap().to_owned(), pod.clone())).collect()
    }
}
