//! What makes files and directories survive a power cut. Every sync of this program's files goes through here, so that a
//! test can cut the power before each of them (`testing/power.rs`).

use std::fs::File;
use std::path::Path;

use super::fs::FsError;

/// Makes a file's content survive. `path` is where it is, or will be.
///
/// # Errors
/// The disk does not take it.
pub fn sync_file(file: &File, path: &Path) -> Result<(), FsError> {
    #[cfg(test)]
    crate::testing::power::before_sync(file, path);
    file.sync_all().map_err(|e| FsError::new("write", path, e))
}

/// Makes what was appended to a file survive, its times not.
///
/// # Errors
/// The disk does not take it.
pub fn sync_data(file: &File, path: &Path) -> Result<(), FsError> {
    #[cfg(test)]
    crate::testing::power::before_sync(file, path);
    file.sync_data().map_err(|e| FsError::new("write", path, e))
}

/// Makes the names in `dir` survive: what was made, renamed and removed there.
///
/// # Errors
/// It cannot be opened, or the disk does not take it.
pub fn sync_dir(dir: &Path) -> Result<(), FsError> {
    let fail = |e| FsError::new("sync directory", dir, e);
    let opened = File::open(dir).map_err(fail)?;
    #[cfg(test)]
    crate::testing::power::before_sync(&opened, dir);
    opened.sync_all().map_err(fail)
}
