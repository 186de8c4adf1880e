//! The directory source: a full list at the start, after every event and each `fileCheckFrequency`. Events are hints,
//! the list is the truth.
//!
//! The directory and its parent are both watched, so that a directory that is removed, recreated or replaced is noticed
//! at once; and each list checks that the watch is still on the directory of that name.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use notify::event::{AccessKind, AccessMode, CreateKind, EventKind, ModifyKind, RenameMode};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use rustix::fs::OFlags;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::Update;
use super::checkpoint::Checkpoint;
use super::listing::{Entry, Known, Scan, is_manifest};
use crate::agent::options::AgentOptions;
use crate::agent::pod::MANIFEST_LIMIT;
use crate::error::chain;
use crate::host::clock::Instant;

/// How long a burst of events may grow before the directory is listed.
const COALESCE: Duration = Duration::from_millis(5);
/// A file that was changed and not closed is read all the same when nothing more happens for this long.
const SETTLED_AFTER: Duration = Duration::from_millis(200);
/// The link by which projected volumes replace all their files at once; the files are links through it.
const PROJECTED: &str = "..data";
/// Files that have gone are looked for again after this long; and where none is left, after so much.
const GONE: Duration = Duration::from_millis(25);
const ALL_GONE: Duration = Duration::from_millis(75);
/// A missing path, or one that could not be watched, is looked at this often.
const RETRY: Duration = Duration::from_secs(1);

/// Publishes what `path` (a directory or one file) holds until `shutdown`. Only what differs from the last update is
/// published.
pub async fn watch(path: PathBuf, options: AgentOptions, updates: mpsc::Sender<Update>, shutdown: CancellationToken) {
    let source = DirSource::new(path, &options);
    shutdown.run_until_cancelled(source.run(updates)).await;
}

/// Device and inode of the directory and of its parent: what a watch is really on.
type Identity = [Option<(u64, u64)>; 2];

struct DirSource {
    path: PathBuf,
    node_name: String,
    frequency: Duration,
    known: Option<Known>,
    checkpoint: Checkpoint,
    /// The directory of the path, when the path was a single file the last time it was there.
    single_in: Option<PathBuf>,
    /// The checkpoint of an earlier agent has been looked at.
    recalled: bool,
    events: mpsc::UnboundedReceiver<notify::Event>,
    sender: mpsc::UnboundedSender<notify::Event>,
    watch: Option<(RecommendedWatcher, Identity)>,
    /// Files that were changed and not closed since, with the moment of their last change.
    unsettled: HashMap<String, Instant>,
}

impl DirSource {
    fn new(path: PathBuf, options: &AgentOptions) -> Self {
        let (sender, events) = mpsc::unbounded_channel();
        // A trailing slash must not become part of the pods' UIDs.
        let path = path.components().collect();
        Self {
            path,
            node_name: options.node_name.clone(),
            frequency: options.file_check_frequency,
            known: None,
            checkpoint: Checkpoint::new(&options.root_dir),
            single_in: None,
            recalled: false,
            events,
            sender,
            watch: None,
            unsettled: HashMap::new(),
        }
    }

    async fn run(mut self, updates: mpsc::Sender<Update>) {
        let mut last: Option<Update> = None;
        loop {
            // First the watch, then the list: what changes in between is an event.
            self.arm().await;
            let update = self.list().await;
            if last.as_ref() != Some(&update) {
                for problem in &update.problems {
                    if !last.as_ref().is_some_and(|last| last.problems.contains(problem)) {
                        warn!(subject = problem.subject, message = problem.message, "manifest problem");
                    }
                }
                last = Some(update.clone());
                if updates.send(update).await.is_err() {
                    return;
                }
            }
            self.keep().await;
            self.pause().await;
        }
    }

    /// Keeps what is good, after every receiver that waits for it has it.
    async fn keep(&mut self) {
        let Some(known) = self.known.as_ref().filter(|_| self.recalled) else { return };
        let (good, mut checkpoint) = (known.good(), self.checkpoint.clone());
        let kept = tokio::task::spawn_blocking(move || (checkpoint.keep(good), checkpoint));
        let Ok((kept, checkpoint)) = kept.await else { return };
        self.checkpoint = checkpoint;
        if let Err(error) = kept {
            debug!(error = chain(&error), "cannot keep the manifests");
        }
    }

    /// Watches the directory of this name, unless that is what is watched already.
    async fn arm(&mut self) {
        let watched = self.watch.as_ref().map(|(_, watched)| *watched);
        let (path, sender) = (self.path.clone(), self.sender.clone());
        let look = move || {
            let now = identity(&path);
            (watched != Some(now)).then(|| (new_watch(&path, sender), now))
        };
        let Ok(Some((watcher, now))) = tokio::task::spawn_blocking(look).await else { return };
        match watcher {
            Ok(watcher) => self.watch = Some((watcher, now)),
            Err(error) => {
                self.watch = None;
                debug!(path = %self.path.display(), %error, "cannot watch yet");
            }
        }
    }

    async fn list(&mut self) -> Update {
        let now = Instant::now();
        self.unsettled.retain(|_, changed| *changed + SETTLED_AFTER > now);
        let unsettled: Vec<String> = self.unsettled.keys().cloned().collect();
        let scanned = self.scan_settled().await;
        let (dir, scan) = match self.judge_missing(scanned).await {
            (dir, Ok(entries)) => (dir, Scan::Files(entries, unsettled)),
            (dir, Err(why)) => (dir, Scan::Failed(why)),
        };
        let dir = dir.unwrap_or_else(|| self.path.clone());
        let known = self.known.get_or_insert_with(|| Known::new(&self.node_name, &dir));
        known.set_dir(&dir);
        let now = Timestamp::now();
        if let Scan::Files(entries, _) = &scan
            && !std::mem::replace(&mut self.recalled, true)
        {
            let names: Vec<String> = entries.iter().map(|entry| entry.name.clone()).collect();
            known.remember(&self.checkpoint.load(&names), now);
        }
        known.take(&self.path, scan, now)
    }

    /// Reads what is there, and where files have gone once more until none goes any more: a program that removes a directory
    /// removes its files first, and the pods of a directory that is gone are kept.
    async fn scan_settled(&self) -> Scanned {
        let mut before = 0;
        loop {
            let path = self.path.clone();
            let scanned = tokio::task::spawn_blocking(move || scan(&path)).await;
            let scanned = scanned.unwrap_or_else(|error| (None, Err(error.to_string())));
            let Ok(entries) = &scanned.1 else { return scanned };
            let missing = self.known.as_ref().map_or(0, |known| known.missing_from(entries));
            if missing == before {
                return scanned;
            }
            before = missing;
            tokio::time::sleep(if entries.is_empty() { ALL_GONE } else { GONE }).await;
        }
    }

    /// A single file that is gone takes its pod with it, as one in a directory does; a directory that is gone is an
    /// accident.
    async fn judge_missing(&mut self, (dir, entries): Scanned) -> Scanned {
        if let Some(dir) = &dir {
            self.single_in = (*dir != self.path).then(|| dir.clone());
        }
        match &self.single_in {
            Some(parent) if dir.is_none() && is_dir(parent).await => (Some(parent.clone()), Ok(vec![])),
            _ => (dir, entries),
        }
    }

    /// Waits until the directory is to be listed again.
    async fn pause(&mut self) {
        let watched = self.watch.is_some() && tokio::fs::metadata(&self.path).await.is_ok();
        let mut due = Instant::now() + if watched { self.frequency } else { RETRY.min(self.frequency) };
        if let Some(settled) = self.unsettled.values().map(|changed| *changed + SETTLED_AFTER).min() {
            due = due.min(settled);
        }
        loop {
            let Ok(event) = crate::host::clock::timeout_at(due, self.events.recv()).await else { return };
            let Some(event) = event else { return std::future::pending().await };
            if let Some(wait) = self.weigh(&event) {
                due = due.min(Instant::now() + wait);
            }
        }
    }

    /// How long after an event the directory is to be listed; None if the event is none of ours.
    fn weigh(&mut self, event: &notify::Event) -> Option<Duration> {
        if event.need_rescan() || event.kind == EventKind::Other {
            return Some(COALESCE);
        }
        // Our own reading raises these.
        if matches!(event.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write)) {
            return None;
        }
        event.paths.iter().filter_map(|path| self.weigh_path(path, event.kind)).min()
    }

    fn weigh_path(&mut self, path: &Path, kind: EventKind) -> Option<Duration> {
        let itself = path == self.path;
        let replaced = kind.is_create() || kind.is_remove() || matches!(kind, EventKind::Modify(ModifyKind::Name(_)));
        if itself && replaced {
            // What is watched came, went or was replaced: the watch is on nothing now.
            self.watch = None;
        }
        let name = path.file_name()?.to_str()?;
        let ours = itself || (path.parent() == Some(&self.path) && (is_manifest(name) || name == PROJECTED));
        ours.then(|| self.weigh_file(name, kind))
    }

    /// A file that is being written is not read before it is closed: half a manifest may well be a valid one.
    fn weigh_file(&mut self, name: &str, kind: EventKind) -> Duration {
        let being_written = match kind {
            EventKind::Create(CreateKind::Folder) => false,
            EventKind::Create(_) | EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Any) => true,
            EventKind::Modify(ModifyKind::Name(RenameMode::To)) | EventKind::Access(_) | EventKind::Remove(_) => false,
            _ => return COALESCE,
        };
        if being_written {
            self.unsettled.insert(name.to_owned(), Instant::now());
            SETTLED_AFTER
        } else {
            self.unsettled.remove(name);
            COALESCE
        }
    }
}

fn new_watch(path: &Path, sender: mpsc::UnboundedSender<notify::Event>) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // An error means that events were lost: list again.
        let event = event.unwrap_or_else(|_| notify::Event::new(EventKind::Other));
        let _ = sender.send(event);
    })?;
    if let Some(parent) = path.parent().filter(|parent| parent.is_dir()) {
        watcher.watch(parent, RecursiveMode::NonRecursive)?;
    }
    if path.is_dir() {
        watcher.watch(path, RecursiveMode::NonRecursive)?;
    }
    Ok(watcher)
}

async fn is_dir(path: &Path) -> bool {
    tokio::fs::metadata(path).await.is_ok_and(|found| found.is_dir())
}

fn identity(path: &Path) -> Identity {
    [Some(path), path.parent()].map(|dir| {
        let meta = fs::metadata(dir?).ok().filter(fs::Metadata::is_dir)?;
        Some((meta.dev(), meta.ino()))
    })
}

/// The directory the files are in, None when nothing is at the path; and the files, or why they could not be read.
type Scanned = (Option<PathBuf>, Result<Vec<Entry>, String>);

/// Reads every manifest file at `path`.
fn scan(path: &Path) -> Scanned {
    let meta = match fs::metadata(path) {
        Ok(meta) => meta,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return (None, Err("is missing".to_owned())),
        Err(e) => return (None, Err(e.to_string())),
    };
    if meta.is_dir() {
        return (Some(path.to_owned()), scan_dir(path).map_err(|e| format!("cannot be listed: {e}")));
    }
    let (Some(dir), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return (None, Err("is no path of a file".to_owned()));
    };
    if !meta.is_file() {
        return (Some(dir.to_owned()), Err("is neither a directory nor a regular file".to_owned()));
    }
    let entry = Entry { name: name.to_owned(), content: read(path).map_err(|e| format!("cannot be read: {e}")) };
    (Some(dir.to_owned()), Ok(vec![entry]))
}

fn scan_dir(path: &Path) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if !is_manifest(&name) {
            continue;
        }
        // Links are followed; directories, pipes and sockets are not manifests.
        let content = match fs::metadata(entry.path()) {
            Ok(meta) if meta.is_file() => read(&entry.path()),
            Ok(_) => continue,
            Err(e) => Err(e),
        };
        match content {
            Err(e) if e.kind() == io::ErrorKind::NotFound && entry.path().symlink_metadata().is_err() => {}
            content => entries.push(Entry { name, content: content.map_err(|e| format!("cannot be read: {e}")) }),
        }
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

/// Reads a file up to the size at which it is refused. A pipe that has just taken its place is not waited for.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let no_wait = OFlags::NONBLOCK.bits().cast_signed();
    let file = fs::OpenOptions::new().read(true).custom_flags(no_wait).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    file.take(MANIFEST_LIMIT as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
