//! Files of variables in a volume, which `fileKeyRef` reads: one `NAME=VALUE` a line.
//!
//! A value in single quotes is taken as it is, over several lines if need be; one without ends with its line. Blank
//! lines and lines that begin with `#` say nothing.

use std::io::Read;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};

/// The most that is read of a file.
const LIMIT: u64 = 64 * 1024;

/// The value of `key` in a file below a volume, which is the containers' to write: no link leads out of it. None where
/// the file or the key is not there.
pub fn read(volume: &Path, path: &str, key: &str) -> Result<Option<String>, String> {
    let fail = |error: std::io::Error| format!("cannot read {path}: {error}");
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, volume, flags | OFlags::DIRECTORY, Mode::empty());
    let root = root.map_err(|error| fail(error.into()))?;
    // A pipe would keep the agent waiting.
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let file = match rustix::fs::openat2(&root, path, flags | OFlags::NONBLOCK, Mode::empty(), how) {
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        other => std::fs::File::from(other.map_err(|error| fail(error.into()))?),
    };
    let mut text = String::new();
    file.take(LIMIT + 1).read_to_string(&mut text).map_err(fail)?;
    if text.len() as u64 > LIMIT {
        return Err(format!("{path} has more than {LIMIT} bytes"));
    }
    value(&text, key).map_err(|line| format!("{path}: line {line} is not NAME=VALUE"))
}

/// The last value of `key`. The error is the number of a line that is wrong.
fn value(text: &str, key: &str) -> Result<Option<String>, usize> {
    let mut found = None;
    let mut lines = text.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, rest) = line.split_once('=').ok_or(index.saturating_add(1))?;
        let mut value = rest.trim_end().to_owned();
        if let Some(quoted) = rest.strip_prefix('\'') {
            let mut inner = quoted.to_owned();
            let mut last = quoted;
            // The last line says whether it is the end: all of it looked through for each would be a walk without end.
            while !last.trim_end().ends_with('\'') {
                (_, last) = lines.next().ok_or(index.saturating_add(1))?;
                inner.push('\n');
                inner.push_str(last);
            }
            inner.truncate(inner.trim_end().len().saturating_sub(1));
            value = inner;
        }
        if name == key {
            found = Some(value);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_value_of_thousands_of_lines_is_read_at_once() {
        let started = crate::host::clock::Instant::now();
        assert_eq!(value(&format!("A='{}", "\n".repeat(64 << 10)), "A"), Err(1));
        assert!(started.elapsed() < std::time::Duration::from_secs(5), "{:?}", started.elapsed());
        assert_eq!(value("A='b\n\n c' \nB=d", "A"), Ok(Some("b\n\n c".to_owned())));
    }

    #[test]
    fn values_are_plain_or_quoted_and_the_last_one_counts() {
        let text = "# comment\n\nA=1\nB='two words '\nC='a\nb'\n  D=\nA=3\n";
        for (key, expected) in
            [("A", Some("3")), ("B", Some("two words ")), ("C", Some("a\nb")), ("D", Some("")), ("E", None)]
        {
            assert_eq!(value(text, key).unwrap().as_deref(), expected, "{key}");
        }
        assert_eq!(value("A=1\nnothing\n", "A"), Err(2));
        assert_eq!(value("A='open\n", "A"), Err(1));
    }

    #[test]
    fn a_file_is_read_within_its_volume_alone() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("v");
        std::fs::create_dir(&volume).unwrap();
        std::io::Write::write_all(&mut std::fs::File::create(volume.join("env")).unwrap(), b"A=1\n").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", volume.join("out")).unwrap();
        assert_eq!(read(&volume, "env", "A"), Ok(Some("1".to_owned())));
        assert_eq!(read(&volume, "none", "A"), Ok(None));
        assert!(read(&volume, "out", "root").unwrap_err().starts_with("cannot read out"));
    }
}
