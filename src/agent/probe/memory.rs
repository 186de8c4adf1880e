//! Which instances have passed their startup probes, on disk: a restarted agent must not hold a container's liveness
//! and readiness back again that has long been started.

use std::path::{Path, PathBuf};

use tracing::warn;

use crate::agent::volumes::pod_dir;
use crate::host::fs::{FsError, make_dirs, read_if_exists, write_file};

/// One file a container, in the pod's own directory, which holds the id of the instance that has started.
#[derive(Debug, Clone)]
pub struct Memory {
    root: PathBuf,
}

impl Memory {
    /// A memory below the agent's root directory.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    fn file(&self, uid: &str, container: &str) -> PathBuf {
        pod_dir(&self.root, uid).join("containers").join(container).join("started")
    }

    /// Whether this instance has passed its startup probe before.
    pub(super) fn has_started(&self, uid: &str, container: &str, id: &str) -> bool {
        matches!(read_if_exists(&self.file(uid, container)), Ok(Some(known)) if known == id.as_bytes())
    }

    /// Remembers that it has. What is forgotten is found out again by asking, so a failure is only said.
    pub(super) fn note_started(&self, uid: &str, container: &str, id: &str) {
        let file = self.file(uid, container);
        if let Err(error) = self.write(uid, &file, id) {
            warn!(
                uid,
                container,
                error = crate::agent::status::chain(&error),
                "cannot remember a startup probe's success"
            );
        }
    }

    fn write(&self, uid: &str, file: &Path, id: &str) -> Result<(), FsError> {
        // A pod that is gone leaves nothing behind.
        let Some(directory) = file.parent().filter(|_| pod_dir(&self.root, uid).is_dir()) else { return Ok(()) };
        make_dirs(directory, 0o755)?;
        write_file(file, id.as_bytes(), 0o600).map(drop)
    }
}
