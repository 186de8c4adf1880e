//! A few files that are watched together.

use std::path::PathBuf;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tracing::debug;

use super::clock::{Instant, timeout_at};

/// How long what is being written is let be.
const COALESCE: Duration = Duration::from_millis(50);
/// Where a directory is missing, there is nothing to watch.
const RETRY: Duration = Duration::from_secs(1);

/// No wait is longer: a clock has an end.
const LONGEST: Duration = Duration::from_secs(86_400);

/// Files, there or not, by their paths.
pub struct Files {
    paths: Vec<PathBuf>,
    watcher: Option<RecommendedWatcher>,
    sender: mpsc::UnboundedSender<notify::Event>,
    events: mpsc::UnboundedReceiver<notify::Event>,
}

impl Files {
    /// Watches the directories of these files, and so knows when one comes, goes or is replaced. What happens from now
    /// on is not missed.
    pub fn new(paths: Vec<PathBuf>) -> Self {
        let (sender, events) = mpsc::unbounded_channel();
        let mut files = Self { paths, watcher: None, sender, events };
        files.arm();
        files
    }

    /// Returns once something has happened to one of the files, at the latest after `limit`.
    pub async fn changed(&mut self, limit: Duration) {
        let was_armed = self.watcher.is_some();
        if !was_armed {
            self.arm();
        }
        // What came before the watch did is no event.
        let limit = match (&self.watcher, was_armed) {
            (Some(_), true) => limit,
            (Some(_), false) => COALESCE,
            (None, _) => RETRY.min(limit),
        };
        let mut due = Instant::now() + limit.min(LONGEST);
        while let Ok(Some(event)) = timeout_at(due, self.events.recv()).await {
            if self.concerns(&event) {
                due = due.min(Instant::now() + COALESCE);
            }
        }
        // The directories may be others by now, without an event; what the watch on them says until then is kept.
        let before = self.watcher.take();
        self.arm();
        drop(before);
    }

    fn arm(&mut self) {
        match self.new_watcher() {
            Ok(watcher) => self.watcher = Some(watcher),
            Err(error) => debug!(%error, "cannot watch yet"),
        }
    }

    fn new_watcher(&self) -> notify::Result<RecommendedWatcher> {
        let sender = self.sender.clone();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // An error means that events were lost.
            let _ = sender.send(event.unwrap_or_else(|_| notify::Event::new(EventKind::Other)));
        })?;
        let mut directories: Vec<_> = self.paths.iter().filter_map(|path| path.parent()).collect();
        directories.sort_unstable();
        directories.dedup();
        directories.into_iter().try_for_each(|directory| watcher.watch(directory, RecursiveMode::NonRecursive))?;
        Ok(watcher)
    }

    fn concerns(&self, event: &notify::Event) -> bool {
        let reading = matches!(event.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write));
        let lost = event.need_rescan() || event.kind == EventKind::Other;
        lost || (!reading && event.paths.iter().any(|path| self.paths.contains(path)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fs::write_file;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_file_that_comes_is_noticed_and_its_neighbours_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kubelet.conf");
        let mut files = Files::new(vec![path.clone()]);
        let begin = Instant::now();
        write_file(&dir.path().join("other"), b"1", 0o600).unwrap();
        let quiet = Duration::from_millis(300);
        files.changed(quiet).await;
        assert!(begin.elapsed() >= quiet);
        write_file(&path, b"1", 0o600).unwrap();
        files.changed(LONG).await;
        assert!(begin.elapsed() < LONG / 2);
    }

    #[tokio::test]
    async fn a_directory_that_is_missing_is_watched_once_it_comes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kubernetes/kubelet.conf");
        let mut files = Files::new(vec![path.clone()]);
        let begin = Instant::now();
        files.changed(LONG).await;
        assert!(begin.elapsed() < LONG / 2, "it is looked for soon");
        std::fs::create_dir(dir.path().join("kubernetes")).unwrap();
        files.changed(LONG).await;
        write_file(&path, b"1", 0o600).unwrap();
        files.changed(LONG).await;
        assert!(begin.elapsed() < LONG / 2);
    }
}
