//! Reading a container's log: a file of lines `TIME STREAM TAGS TEXT`, where the tag `P` says that the line goes on in the
//! next one. A file that has become full is renamed, and the runtime goes on in a new one of the old name.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use jiff::Timestamp;
use notify::{RecursiveMode, Watcher};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::mpsc;

use super::Cri;
use crate::runtime::*;

/// How much is read at once.
const BLOCK: usize = 64 << 10;
/// How often a log that is followed is looked at whatever its watch says, and its container, whether it still runs.
const LOOK: Duration = Duration::from_secs(1);

impl Cri {
    /// The last lines, stdout and stderr in one.
    pub(super) async fn last_log_lines(&self, id: &str, lines: usize) -> Result<Vec<String>> {
        let options = LogOptions { tail: u64::try_from(lines).ok(), ..LogOptions::default() };
        last_lines(self.read_log(id, &options).await?, lines).await
    }

    pub(super) async fn read_log(&self, id: &str, options: &LogOptions) -> Result<BoxStream<'static, Result<Bytes>>> {
        let path = PathBuf::from(self.container_status(id).await?.log_path);
        let file = match File::open(&path).await {
            Ok(file) => file,
            // It has said nothing yet, or logs are kept nowhere.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(stream::empty().boxed()),
            Err(error) => return Err(unreadable(&path, &error)),
        };
        let mut reader = Reader { file, rest: vec![], path, options: options.clone(), follow: None };
        reader.skip_to_tail().await.map_err(|error| unreadable(&reader.path, &error))?;
        if options.follow {
            reader.follow = Some(Follow::new(self.clone(), id, &reader.path));
        }
        let pieces = stream::try_unfold(reader, |mut reader| async {
            match reader.next().await {
                Ok(piece) => Ok(piece.map(|piece| (piece, reader))),
                Err(error) => Err(unreadable(&reader.path, &error)),
            }
        });
        Ok(limited(pieces, options.limit_bytes))
    }
}

fn unreadable(path: &Path, error: &io::Error) -> RuntimeError {
    RuntimeError::Refused { call: format!("read the log {}", path.display()), message: error.to_string() }
}

/// Removes a log and what was rotated out of it.
pub fn remove_files(path: &Path) {
    let _ = fs::remove_file(path);
    for old in rotated(path) {
        let _ = fs::remove_file(old);
    }
}

/// The files that were rotated out of a log, in no order: `0.log.20260102-030405`, `...gz`.
fn rotated(path: &Path) -> Vec<PathBuf> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return vec![];
    };
    let prefix = format!("{name}.");
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let old = entries.filter(|entry| entry.file_name().to_str().is_some_and(|name| name.starts_with(&prefix)));
    old.map(|entry| entry.path()).collect()
}

/// Goes through a log.
struct Reader {
    file: File,
    /// Bytes of a line that has not ended yet.
    rest: Vec<u8>,
    path: PathBuf,
    options: LogOptions,
    follow: Option<Follow>,
}

impl Reader {
    /// The next lines, as they are wanted; None at the end.
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            let mut block = vec![0; BLOCK];
            let length = self.file.read(&mut block).await?;
            if length > 0 {
                self.rest.extend_from_slice(&block[..length]);
                let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else { continue };
                let lines: Vec<u8> = self.rest.drain(..=end).collect();
                let wanted = said(&lines, &self.options);
                if !wanted.is_empty() {
                    return Ok(Some(wanted.into()));
                }
                continue;
            }
            // A client that followed the file under its old name goes on in the new one.
            if self.follow.is_some() && self.reopen().await? {
                continue;
            }
            match &mut self.follow {
                Some(follow) => {
                    if !follow.more().await {
                        self.follow = None;
                    }
                }
                None => return Ok(None),
            }
        }
    }

    /// Opens the log again if its name belongs to another file now.
    async fn reopen(&mut self) -> io::Result<bool> {
        use std::os::unix::fs::MetadataExt;
        let Ok(named) = tokio::fs::metadata(&self.path).await else { return Ok(false) };
        let open = self.file.metadata().await?;
        if (named.dev(), named.ino()) == (open.dev(), open.ino()) {
            return Ok(false);
        }
        self.file = File::open(&self.path).await?;
        self.rest.clear();
        Ok(true)
    }

    /// Goes to where the last lines begin, as many as are wanted.
    async fn skip_to_tail(&mut self) -> io::Result<()> {
        let Some(tail) = self.options.tail else { return Ok(()) };
        let mut end = self.file.seek(io::SeekFrom::End(0)).await?;
        let mut begin = end;
        if tail > 0 {
            begin = 0;
            let (mut lines, mut behind) = (0, None);
            while end > 0 {
                let start = end.saturating_sub(BLOCK as u64);
                let mut block = vec![0; usize::try_from(end - start).unwrap_or(BLOCK)];
                self.file.seek(io::SeekFrom::Start(start)).await?;
                self.file.read_exact(&mut block).await?;
                // A line counts once the one before it is seen to have ended, with a whole line.
                if let Some(at) = line_start(&block, start, tail, &mut lines, &mut behind) {
                    begin = at;
                    break;
                }
                end = start;
            }
        }
        self.file.seek(io::SeekFrom::Start(begin)).await?;
        Ok(())
    }
}

/// Looks backwards through a block for where the `tail`th line from the end begins. `behind` is the place behind the
/// line break that was seen last.
fn line_start(block: &[u8], start: u64, tail: u64, lines: &mut u64, behind: &mut Option<u64>) -> Option<u64> {
    for (at, byte) in block.iter().enumerate().rev() {
        if *byte != b'\n' {
            continue;
        }
        let here = start + at as u64 + 1;
        if behind.is_some() {
            *lines += 1;
            if *lines == tail {
                return Some(here);
            }
        }
        *behind = Some(here);
    }
    None
}

/// What whole lines of a log say: the text alone, or behind its time.
fn said(lines: &[u8], options: &LogOptions) -> Vec<u8> {
    let mut out = Vec::new();
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let (Some(time), Some(_), Some(tags), Some(text)) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        if options.since.is_some_and(|since| moment(time).is_some_and(|at| at.as_second() < since.as_second())) {
            continue;
        }
        // The rest of a line that was too long for one entry stands behind its beginning.
        let goes_on = out.last().is_some_and(|byte| *byte != b'\n');
        if options.timestamps && !goes_on {
            out.extend_from_slice(time);
            out.push(b' ');
        }
        let is_partial = tags.split(|byte| *byte == b':').next() == Some(b"P");
        out.extend_from_slice(if is_partial { text.strip_suffix(b"\n").unwrap_or(text) } else { text });
    }
    out
}

fn moment(time: &[u8]) -> Option<Timestamp> {
    std::str::from_utf8(time).ok()?.parse().ok()
}

/// Waits for more of a log.
struct Follow {
    cri: Cri,
    id: String,
    changed: mpsc::Receiver<()>,
    /// Ends with this; None where the system gives no more watches.
    _watcher: Option<notify::RecommendedWatcher>,
    /// The container has ended: what it has said until then is read once more.
    ended: bool,
}

impl Follow {
    fn new(cri: Cri, id: &str, path: &Path) -> Self {
        let (sender, changed) = mpsc::channel(1);
        // Somebody looks at the next change anyway where one is noted already.
        let watcher = notify::recommended_watcher(move |_| {
            let _ = sender.try_send(());
        })
        .ok();
        let watcher = watcher.and_then(|mut watcher| {
            watcher.watch(path.parent()?, RecursiveMode::NonRecursive).ok()?;
            Some(watcher)
        });
        Self { cri, id: id.to_owned(), changed, _watcher: watcher, ended: false }
    }

    /// Waits until there may be more; false once the container has ended and all is read.
    async fn more(&mut self) -> bool {
        if self.ended {
            return false;
        }
        if tokio::time::timeout(LOOK, self.changed.recv()).await.is_ok_and(|noted| noted.is_some()) {
            return true;
        }
        self.ended = !self.cri.look_at(&self.id).await.is_ok_and(|record| record.state.is_running());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "2026-01-02T03:04:05.000000001Z stdout F one\n\
        2026-01-02T03:04:06.5Z stderr P tw\n2026-01-02T03:04:06.6Z stderr F o\n\
        2026-01-02T03:04:07Z stdout F \nnonsense\n2026-01-02T03:04:08Z stdout F:x a b\n";

    fn text(options: &LogOptions) -> String {
        String::from_utf8(said(LOG.as_bytes(), options)).unwrap()
    }

    #[test]
    fn a_log_is_its_texts_in_one_with_broken_lines_put_together() {
        assert_eq!(text(&LogOptions::default()), "one\ntwo\n\na b\n");
        let stamped = text(&LogOptions { timestamps: true, ..LogOptions::default() });
        assert_eq!(stamped.lines().nth(1), Some("2026-01-02T03:04:06.5Z two"));
        assert_eq!(stamped.lines().count(), 4);
        let since = Some("2026-01-02T03:04:07.9Z".parse().unwrap());
        assert_eq!(text(&LogOptions { since, ..LogOptions::default() }), "\na b\n", "whole seconds count");
    }

    #[tokio::test]
    async fn the_tail_begins_so_many_lines_before_the_end_however_long_the_log_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let lines: String = (0..9000).map(|n| format!("2026-01-02T03:04:05Z stdout F line {n}\n")).collect();
        crate::host::fs::write_file(&path, lines.as_bytes(), 0o600).unwrap();
        for (tail, expected) in [(0, None), (1, Some(8999)), (5000, Some(4000)), (9000, Some(0)), (20000, Some(0))] {
            let options = LogOptions { tail: Some(tail), ..LogOptions::default() };
            let file = File::open(&path).await.unwrap();
            let mut reader = Reader { file, rest: vec![], path: path.clone(), options, follow: None };
            reader.skip_to_tail().await.unwrap();
            let first = reader.next().await.unwrap().map(|bytes| String::from_utf8(bytes.to_vec()).unwrap());
            let first = first.and_then(|text| text.lines().next().map(str::to_owned));
            assert_eq!(first, expected.map(|n| format!("line {n}")), "{tail}");
        }
    }

    #[test]
    fn what_was_rotated_goes_with_the_log_and_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["0.log", "0.log.20260102-030405", "0.log.20260102-030304.gz", "10.log", "1.log"] {
            crate::host::fs::write_file(&dir.path().join(name), b"x", 0o600).unwrap();
        }
        remove_files(&dir.path().join("0.log"));
        let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["1.log", "10.log"]);
    }
}
