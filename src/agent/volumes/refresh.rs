//! The files of config maps, secrets, tokens and labels follow what the API server says, once each `syncFrequency` (a
//! minute): a change shows within that, as with the kubelet.

use std::sync::Arc;

use tokio::time::MissedTickBehavior;
use tracing::{debug, error};

use crate::agent::apiserver::ApiServer;
use crate::agent::board::Board;
use crate::agent::crash::caught;
use crate::agent::events::{Recorder, Subject};
use crate::agent::objects::has_files;
use crate::agent::objects::store::{ObjectScope, Store};
use crate::agent::options::AgentOptions;
use crate::agent::pod::StaticPod;
use crate::agent::pod::downward::Facts;
use crate::agent::volumes::{self, Inputs};
use crate::agent::wording;
use crate::error::chain;

/// What following takes.
pub struct Parts {
    /// What the agent was started with.
    pub options: Arc<AgentOptions>,
    /// The API server, where the agent has one.
    pub api: Option<Arc<ApiServer>>,
    /// Which pods there are.
    pub board: Arc<Board>,
    /// What bound pods were given to read.
    pub objects: Arc<Store>,
    /// What the downward API says of the node.
    pub facts: Facts,
    /// What happened.
    pub events: Arc<Recorder>,
}

/// Follows until the agent ends.
pub async fn run(parts: Arc<Parts>) {
    let mut ticks = tokio::time::interval(parts.options.sync_frequency);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        for pod in parts.board.pods().into_iter().filter_map(|entry| entry.pod) {
            let lives = pod.bound.is_some() && pod.ended().is_none() && pod.deletion().is_none();
            if lives && has_files(&pod) && volumes::is_made(&parts.options.root_dir, &pod.uid) {
                let key = pod.key.clone();
                if let Err(crash) = caught(follow(&parts, pod)).await {
                    error!(pod = %key, error = %crash, "the files of the pod stay as they are");
                }
            }
        }
    }
}

async fn follow(parts: &Arc<Parts>, pod: Arc<StaticPod>) {
    let objects = match parts.objects.objects(parts.api.as_deref(), &pod, ObjectScope::Files).await {
        Ok(objects) => objects,
        Err(why) => return debug!(pod = %pod.key, why, "files stay as they are"),
    };
    let (kept, parts) = (Arc::clone(parts), Arc::clone(parts));
    let written = tokio::task::spawn_blocking(move || {
        let inputs = Inputs { facts: &parts.facts, objects: &objects };
        let root = &parts.options.root_dir;
        let refresh = || volumes::refresh(&pod, root, &inputs).err();
        // A pod that is about to start makes them itself, and one that has ended has none any more.
        let write = || if volumes::is_made(root, &pod.uid) { refresh() } else { None };
        parts.objects.alone_unless_gone(&pod.uid, write).map(|error| (pod, error))
    });
    if let Ok(Some((pod, error))) = written.await {
        let subject = Subject { pod: &pod.key, uid: &pod.uid, container: None };
        let message = wording::NOT_MOUNTED.with(&[&format!("the files stay as they are: {}", chain(&error))]);
        kept.events.warning(subject, "FailedMount", message);
    }
}
