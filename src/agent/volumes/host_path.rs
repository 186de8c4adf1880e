//! hostPath volumes and their types.

use std::fs::{self, FileType, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use k8s_openapi::api::core::v1::HostPathVolumeSource;

use super::VolumeError;
use crate::host::fs::{FsError, make_dirs};

/// The hostPath types: what must be there, and what is made when nothing is. Links are followed.
type Check = fn(FileType) -> bool;
const TYPES: &[(&str, Check)] = &[
    ("Directory", |t| t.is_dir()),
    ("DirectoryOrCreate", |t| t.is_dir()),
    ("File", |t| t.is_file()),
    ("FileOrCreate", |t| t.is_file()),
    ("Socket", |t| t.is_socket()),
    ("CharDevice", |t| t.is_char_device()),
    ("BlockDevice", |t| t.is_block_device()),
];

/// Checks a path by its type, and makes what the type says is made.
pub(super) fn prepare(volume: &str, source: &HostPathVolumeSource) -> Result<(), VolumeError> {
    let path = Path::new(&source.path);
    let wanted = source.type_.as_deref().unwrap_or_default();
    let Some((_, fits)) = TYPES.iter().find(|(name, _)| *name == wanted) else { return Ok(()) };
    let io = |action, source| VolumeError::Io { volume: volume.to_owned(), source: FsError::new(action, path, source) };
    let found = match fs::metadata(path) {
        Ok(meta) if fits(meta.file_type()) => return Ok(()),
        Ok(meta) => describe(&meta),
        Err(e) if e.kind() == io::ErrorKind::NotFound => match wanted {
            "DirectoryOrCreate" => {
                let made = make_dirs(path, 0o755).map(drop);
                return made.map_err(|source| VolumeError::Io { volume: volume.to_owned(), source });
            }
            // Parents are not made: a file in a directory that is missing is a mistake in the manifest.
            "FileOrCreate" => {
                let made = OpenOptions::new().write(true).create_new(true).mode(0o644).open(path);
                return made.map(drop).map_err(|e| io("create", e));
            }
            _ => "missing",
        },
        Err(e) => return Err(io("look at", e)),
    };
    Err(VolumeError::Type { volume: volume.to_owned(), path: path.to_owned(), wanted: wanted.to_owned(), found })
}

fn describe(meta: &Metadata) -> &'static str {
    let kind = meta.file_type();
    if kind.is_dir() {
        "a directory"
    } else if kind.is_file() {
        "a file"
    } else if kind.is_socket() {
        "a socket"
    } else if kind.is_char_device() || kind.is_block_device() {
        "a device"
    } else {
        "something else"
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn host(path: &Path, type_: &str) -> Result<(), VolumeError> {
        let source = HostPathVolumeSource { path: path.display().to_string(), type_: Some(type_.into()) };
        prepare("v", &source)
    }

    #[test]
    fn host_paths_are_checked_and_made_by_their_type() {
        let dir = tempfile::tempdir().unwrap();
        let (file, missing) = (dir.path().join("file"), dir.path().join("a/b"));
        fs::File::create(&file).unwrap();
        for (path, type_, expected) in [
            (dir.path(), "", Ok(())),
            (&missing, "", Ok(())),
            (dir.path(), "Directory", Ok(())),
            (&file, "Directory", Err("a file")),
            (&missing, "Directory", Err("missing")),
            (&file, "File", Ok(())),
            (dir.path(), "File", Err("a directory")),
            (&missing, "File", Err("missing")),
            (&file, "FileOrCreate", Ok(())),
            (&file, "DirectoryOrCreate", Err("a file")),
            (&file, "Socket", Err("a file")),
            (Path::new("/dev/null"), "CharDevice", Ok(())),
            (Path::new("/dev/null"), "BlockDevice", Err("a device")),
        ] {
            let found = host(path, type_).map_err(|e| match e {
                VolumeError::Type { found, .. } => found,
                other => panic!("{other}"),
            });
            assert_eq!(found, expected, "{} {type_}", path.display());
        }
        assert!(host(&missing, "FileOrCreate").is_err(), "parents of a file are not made");
        host(&missing, "DirectoryOrCreate").unwrap();
        assert_eq!(fs::metadata(&missing).unwrap().permissions().mode() & 0o777, 0o755);
        host(&dir.path().join("new"), "FileOrCreate").unwrap();
        assert_eq!(fs::metadata(dir.path().join("new")).unwrap().permissions().mode() & 0o777, 0o644);
    }
}
