//! Container runtimes behind one trait. `docker` and `cri` are the only places that know a runtime; `endpoint` says
//! which one a machine has.

// As in the agent: what a manifest asks for reaches this far.
#![deny(clippy::disallowed_types)]

pub mod cri;
pub mod docker;
pub mod endpoint;
pub mod images;
mod oom;
pub mod streaming;
mod records;
mod types;

pub use records::*;
pub use types::*;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream, Stream};

use crate::host::silence::Silence;

/// Why no runtime answers: in front of the transport's own words.
#[derive(Debug, thiserror::Error)]
#[error("{why}{}", if *by_environment { " (DOCKER_HOST names the address)" } else { "" })]
pub struct NoAnswer {
    /// What kind of silence it is.
    pub why: Silence,
    /// Whether the address comes from DOCKER_HOST in the environment.
    pub by_environment: bool,
    /// The transport's error.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

impl RuntimeError {
    /// What kind of silence there is where no runtime answers, and whether DOCKER_HOST led there; None for other errors.
    pub fn silence(&self) -> Option<(Silence, bool)> {
        let Self::Unreachable { source, .. } = self else { return None };
        Some(match source.downcast_ref::<NoAnswer>() {
            Some(answer) => (answer.why, answer.by_environment),
            None => (Silence::of(&**source), false),
        })
    }
}

/// What went wrong in a runtime. Decisions match on the variant, never on the text.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// No one answers at the address.
    #[error("cannot reach the container runtime at {address}")]
    Unreachable {
        /// The socket or URL.
        address: String,
        /// The transport's error.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The container or image is not there.
    #[error("{what} not found")]
    NotFound {
        /// Which one.
        what: String,
    },
    /// The name is taken, or the state does not allow the call.
    #[error("conflict: {message}")]
    Conflict {
        /// The runtime's words.
        message: String,
    },
    /// An image could not be had.
    #[error("cannot pull image {image}: {message}")]
    Pull {
        /// The reference.
        image: String,
        /// The runtime's words.
        message: String,
    },
    /// The runtime refused the call for another reason.
    #[error("{call}: {message}")]
    Refused {
        /// Which call (`create container etcd`).
        call: String,
        /// The runtime's words.
        message: String,
    },
    /// The call took longer than it may.
    #[error("{call}: no answer within {} s", limit.as_secs())]
    Timeout {
        /// Which call.
        call: String,
        /// The limit.
        limit: Duration,
    },
}

/// Result of a runtime call.
pub type Result<T> = std::result::Result<T, RuntimeError>;

/// A container runtime as the static-pod agent needs it, in CRI's shape: sandboxes, containers, images, events.
///
/// Every call may be repeated: starting what runs, stopping what stopped or is gone, and removing what is gone
/// succeed.
#[async_trait]
pub trait ContainerRuntime: Send + Sync {
    /// Name and version (`docker 20.10.24`, API 1.41); also the reachability check.
    async fn version(&self) -> Result<RuntimeVersion>;

    /// How it makes cgroups; None where it cannot be told of a parent.
    async fn cgroup_driver(&self) -> Result<Option<CgroupDriver>> {
        Ok(None)
    }

    /// Whether a container can only be in a sandbox, and goes with it. A sandbox runs then as soon as it is made.
    fn needs_sandbox(&self) -> bool {
        false
    }

    /// Every sandbox and container, running or not, that carries the agent's owner label with this value.
    async fn list(&self, owner: &str) -> Result<Vec<ContainerRecord>>;

    /// The current record of one container; `NotFound` when it is gone.
    async fn inspect(&self, id: &str) -> Result<ContainerRecord>;

    /// Creates the pause container of a pod, and does not start it unless the runtime can do no other.
    async fn create_sandbox(&self, config: &SandboxConfig) -> Result<String>;

    /// Creates (does not start) a container.
    async fn create_container(&self, config: &ContainerConfig) -> Result<String>;

    /// Starts a created container.
    async fn start(&self, id: &str) -> Result<()>;

    /// Sends the stop signal, waits `grace`, then kills. Returns when the container has stopped.
    async fn stop(&self, id: &str, grace: Duration) -> Result<()>;

    /// Removes a container, its anonymous volumes and its log, by force.
    async fn remove(&self, id: &str) -> Result<()>;

    /// Waits for the changes that were begun and whose callers have gone. A runtime that is left in the middle of one does
    /// not finish it: containerd kills a network plugin at work, and what that plugin has made is left for good.
    async fn finish(&self) {}

    /// Runs a command in a container and waits for it, for `limit` at most.
    async fn exec(&self, id: &str, command: &[String], limit: Duration) -> Result<ExecOutput>;

    /// The last `lines` lines of stdout and stderr, oldest first.
    async fn log_tail(&self, id: &str, lines: usize) -> Result<Vec<String>>;

    /// What the container has written to stdout and stderr, both in one and in the order it came; a terminal's too. A
    /// container that is gone shows as `NotFound` in the first item at the latest.
    async fn logs(&self, id: &str, options: &LogOptions) -> Result<BoxStream<'static, Result<Bytes>>>;

    /// Where the runtime keeps the container's log, for the link in /var/log/pods; None if it has none.
    async fn log_path(&self, id: &str) -> Result<Option<String>>;

    /// Makes the runtime go on with the log in a new file, after the old one was renamed; false where it rotates logs
    /// itself.
    async fn reopen_log(&self, id: &str) -> Result<bool> {
        let _ = id;
        Ok(false)
    }

    /// Start, exit and removal of containers with the owner label, from now on. The stream ends when the connection
    /// does; the caller lists and subscribes again.
    async fn events(&self, owner: &str) -> Result<BoxStream<'static, Result<RuntimeEvent>>>;

    /// The image if it is present locally.
    async fn image(&self, reference: &str) -> Result<Option<ImageRecord>>;

    /// Pulls an image, as whom `credential` says or as no one, telling `progress` the bytes so far and, when known, in all. Returns when it is usable.
    async fn pull(
        &self,
        reference: &str,
        credential: Option<&Credential>,
        progress: &(dyn Fn(u64, Option<u64>) + Send + Sync),
    ) -> Result<ImageRecord>;

    /// Commands and containers with their input and output as streams; None where the runtime cannot.
    fn streaming(&self) -> Option<&dyn streaming::Streaming> {
        None
    }

    /// Every image there is, the largest first.
    async fn images(&self) -> Result<Vec<StoredImage>> {
        Ok(vec![])
    }

    /// Whether pods that are not on the host's network get one of the cluster's.
    async fn pod_network(&self) -> Result<PodNetwork> {
        Ok(PodNetwork::Absent)
    }

    /// What it can that not all runtimes can.
    async fn features(&self) -> Result<RuntimeFeatures> {
        Ok(RuntimeFeatures::default())
    }

    /// Where images are kept; None where that is not on this machine.
    async fn image_file_system(&self) -> Result<Option<ImageFileSystem>> {
        Ok(None)
    }

    /// Where a running container's main process is; `NotFound` when the container is gone.
    async fn process(&self, _id: &str) -> Result<Process> {
        Ok(Process::default())
    }

    /// Removes an image by reference; `Conflict` when a container uses it.
    async fn remove_image(&self, reference: &str) -> Result<()>;
}

/// The most bytes of a log that its last lines are looked for in: a container may say gigabytes in one line.
const LAST_LINES: usize = 1 << 20;

/// The last `lines` of a log that is read from about there on; of one of longer lines only the end.
pub(crate) async fn last_lines(mut log: BoxStream<'static, Result<Bytes>>, lines: usize) -> Result<Vec<String>> {
    let mut text = Vec::new();
    while let Some(bytes) = log.next().await {
        text.extend_from_slice(&bytes?);
        if text.len() > 2 * LAST_LINES {
            text.drain(..text.len() - LAST_LINES);
        }
    }
    text.drain(..text.len().saturating_sub(LAST_LINES));
    let all: Vec<String> = String::from_utf8_lossy(&text).lines().map(str::to_owned).collect();
    Ok(all[all.len().saturating_sub(lines)..].to_vec())
}

/// The first `limit` bytes of a log.
pub(crate) fn limited(
    log: impl Stream<Item = Result<Bytes>> + Send + 'static,
    limit: Option<u64>,
) -> BoxStream<'static, Result<Bytes>> {
    let Some(limit) = limit else { return log.boxed() };
    let start = (Box::pin(log), usize::try_from(limit).unwrap_or(usize::MAX));
    let cut = stream::unfold(start, |(mut log, room)| async move {
        if room == 0 {
            return None;
        }
        match log.next().await? {
            Ok(mut bytes) => {
                bytes.truncate(room);
                let left = room - bytes.len();
                Some((Ok(bytes), (log, left)))
            }
            Err(error) => Some((Err(error), (log, 0))),
        }
    });
    cut.boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_lines_of_a_log_are_no_more_than_a_mebibyte() {
        let said = |pieces: Vec<Bytes>| last_lines(stream::iter(pieces.into_iter().map(Ok)).boxed(), 2);
        let few = ["one\ntw", "o\nthree\n"].map(|text| Bytes::from_static(text.as_bytes())).to_vec();
        assert_eq!(said(few).await.unwrap(), ["two", "three"]);
        // One line of 64 MiB, and one more.
        let mut flood = vec![Bytes::from(vec![b'x'; 64 << 10]); 1 << 10];
        flood.push(Bytes::from_static(b"\nlast"));
        let last = said(flood).await.unwrap();
        assert_eq!(last[1], "last");
        assert!(last[0].len() <= LAST_LINES && last[0].starts_with('x'), "{}", last[0].len());
    }
}
