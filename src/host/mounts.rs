//! The kernel's table of mounts, for everything that asks what is mounted where.
//!
//! It is read as bytes, because the name of a mount point need not be text, and whole or not at all: a caller that deletes
//! below a directory would otherwise take a table that cannot be read for one without mounts.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::fs::FsError;

/// Of the mount namespace of the thread that asks, which all threads of this process share.
const TABLE: &str = "/proc/thread-self/mountinfo";

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// What of the file system is mounted: its top, or a directory or file in it.
    pub root: PathBuf,
    /// Where it is mounted.
    pub point: PathBuf,
    /// The type of the file system (`tmpfs`, `cgroup2`).
    pub system: String,
    /// The options of the file system, comma-separated; of cgroup v1 also its controllers.
    pub options: String,
}

/// Every mount of this machine, in the order of mounting.
///
/// # Errors
/// The table cannot be read, or a line of it is not understood.
pub fn read() -> Result<Vec<Mount>, FsError> {
    read_from(Path::new(TABLE))
}

/// Every mount that the process `pid` has, in the order of mounting.
///
/// # Errors
/// As [`read`], and a process that is no longer there.
pub fn of_process(pid: u32) -> Result<Vec<Mount>, FsError> {
    read_from(Path::new(&format!("/proc/{pid}/mountinfo")))
}

fn read_from(table: &Path) -> Result<Vec<Mount>, FsError> {
    fs::read(table).and_then(|bytes| parse(&bytes)).map_err(|e| FsError::new("read the mounts in", table, e))
}

/// Reads the text of a `mountinfo`.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] for a line that is none of such a table.
pub fn parse(table: &[u8]) -> io::Result<Vec<Mount>> {
    let lines = table.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let not_understood = |line: &[u8]| {
        let line = String::from_utf8_lossy(line).into_owned();
        io::Error::new(io::ErrorKind::InvalidData, format!("this line is no mount: {line}"))
    };
    lines.map(|line| mount(line).ok_or_else(|| not_understood(line))).collect()
}

/// `36 35 98:0 /root /point rw,noatime master:1 - ext3 /dev/root rw,errors=continue`: any number of optional fields
/// before the hyphen.
fn mount(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let (root, point) = (fields.nth(3)?, fields.next()?);
    if !point.starts_with(b"/") {
        return None;
    }
    let mut kind = fields.skip_while(|field| *field != b"-").skip(1);
    let (system, _source, options) = (kind.next()?, kind.next()?, kind.next()?);
    let text = |field: &[u8]| String::from_utf8_lossy(field).into_owned();
    Some(Mount { root: unescape(root), point: unescape(point), system: text(system), options: text(options) })
}

/// Blanks and backslashes are written as a backslash and three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..3).filter(|_| *first == b'\\').and_then(octal);
        plain.push(code.unwrap_or(*first));
        rest = if code.is_some() { &after[3..] } else { after };
    }
    OsString::from_vec(plain).into()
}

fn octal(digits: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    u8::from_str_radix(text, 8).ok()
}

/// The mount points at and below `dir`, in the order of mounting, as the kernel names them: every link on the way to
/// `dir` is resolved. What is not there has none.
///
/// # Errors
/// The table cannot be read, or `dir` not be resolved.
pub fn below(dir: &Path) -> Result<Vec<PathBuf>, FsError> {
    let real = match fs::canonicalize(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        other => other.map_err(|e| FsError::new("resolve", dir, e))?,
    };
    Ok(read()?.into_iter().map(|mount| mount.point).filter(|point| point.starts_with(&real)).collect())
}

/// Whether something is mounted just there.
///
/// # Errors
/// As [`below`].
pub fn is_mount_point(path: &Path) -> Result<bool, FsError> {
    let points = below(path)?;
    Ok(!points.is_empty() && fs::canonicalize(path).is_ok_and(|real| points.contains(&real)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn a_table_is_read_with_its_blanks_and_with_names_that_are_no_text() {
        let table = b"22 1 0:20 / /proc rw - proc proc rw\n\
                      30 22 0:3 /a\\134b /mnt/a\\040b rw shared:1 master:2 - tmpfs tmpfs rw,size=4k\n\
                      31 22 0:3 / /mnt/\xff\\012 rw - cgroup cgroup rw,cpu,cpuacct\n";
        let mounts = parse(table).unwrap();
        let points: Vec<&[u8]> = mounts.iter().map(|mount| mount.point.as_os_str().as_bytes()).collect();
        assert_eq!(points, [b"/proc".as_slice(), b"/mnt/a b", b"/mnt/\xff\n"]);
        let Mount { root, system, options, .. } = &mounts[1];
        assert_eq!((root.as_path(), system.as_str(), options.as_str()), (Path::new("/a\\b"), "tmpfs", "rw,size=4k"));
        assert_eq!(mounts[2].options, "rw,cpu,cpuacct");
    }

    #[test]
    fn a_table_that_cannot_be_read_or_understood_is_an_error_and_not_an_empty_one() {
        assert!(read_from(Path::new("/nonexistent-kubeboot/mountinfo")).is_err());
        for line in
            ["garbage", "22 1 0:20 / /proc rw", "22 1 0:20 / relative rw - proc proc rw", "22 1 0:20 / /p rw - proc"]
        {
            let error = parse(line.as_bytes()).unwrap_err();
            assert!(error.to_string().contains(line), "{error}");
        }
        assert!(parse(b"").unwrap().is_empty());
    }

    #[test]
    fn this_machine_has_a_root_and_what_is_not_there_has_no_mounts() {
        assert!(read().unwrap().iter().any(|mount| mount.point == Path::new("/")));
        assert!(is_mount_point(Path::new("/proc")).unwrap());
        assert!(below(Path::new("/nonexistent-kubeboot")).unwrap().is_empty());
    }
}
