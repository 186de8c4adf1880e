//! Which instances have passed their startup probes, which are ready and which were stopped for a probe that failed, on
//! disk: a restarted agent must not hold a container's liveness and readiness back again that has long been started, nor
//! call one unready that it has not asked yet, nor take one for done that was stopped to be started again. So are those that
//! have given their connections to another one: they are not to have them back, nor to be sent a second signal, which ends a
//! component of Kubernetes at once.

use std::path::{Path, PathBuf};

use tracing::warn;

use crate::agent::volumes::pod_dir;
use crate::host::fs::{FsError, make_dirs, read_if_exists, write_file};

/// What is remembered of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// It has passed its startup probe.
    Started,
    /// Its readiness probe has called it ready, and nothing has been said against that since.
    Ready,
    /// Its liveness or startup probe has failed for good, for which it is stopped.
    Condemned,
    /// Another one has its connections.
    Relieved,
    /// Its stop signal was sent, or was about to be.
    Told,
}

impl Mark {
    fn file(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Ready => "ready",
            Self::Condemned => "condemned",
            Self::Relieved => "relieved",
            Self::Told => "told",
        }
    }
}

/// One file a container and [`Mark`], in the pod's own directory, which holds the id of the instance that has it.
#[derive(Debug, Clone)]
pub struct Memory {
    root: PathBuf,
}

impl Memory {
    /// A memory below the agent's root directory.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    fn file(&self, uid: &str, container: &str, mark: Mark) -> PathBuf {
        pod_dir(&self.root, uid).join("containers").join(container).join(mark.file())
    }

    /// Whether this instance has the mark.
    pub fn has(&self, mark: Mark, uid: &str, container: &str, id: &str) -> bool {
        matches!(read_if_exists(&self.file(uid, container, mark)), Ok(Some(known)) if known == id.as_bytes())
    }

    /// Remembers that this instance has the mark or (None) that none has. What is forgotten is found out again by asking,
    /// so a failure is only said.
    pub fn note(&self, mark: Mark, uid: &str, container: &str, id: Option<&str>) {
        let file = self.file(uid, container, mark);
        if let Err(error) = self.write(uid, &file, id.unwrap_or_default()) {
            let error = crate::error::chain(&error);
            warn!(uid, container, ?mark, error, "cannot remember what a probe has said");
        }
    }

    fn write(&self, uid: &str, file: &Path, id: &str) -> Result<(), FsError> {
        // A pod that is gone leaves nothing behind.
        let Some(directory) = file.parent().filter(|_| pod_dir(&self.root, uid).is_dir()) else { return Ok(()) };
        make_dirs(directory, 0o755)?;
        write_file(file, id.as_bytes(), 0o600).map(drop)
    }
}
