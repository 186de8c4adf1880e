//! Volumes of a pod on the machine: hostPath with its types, emptyDir below the root directory, and the pod's own
//! directory `ROOT/pods/UID`.

use std::fs::{self, FileType, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, HostPathVolumeSource, Volume};
use rustix::mount::{MountFlags, UnmountFlags};

use super::pod::StaticPod;
use super::resources;
use crate::host::fs::{FsError, make_dirs};

/// Why a volume cannot be mounted (the kubelet's event `FailedMount`).
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// A hostPath is not there, or is something else than its type says.
    #[error("volume {volume}: hostPath type {wanted}: {} is {found}", path.display())]
    Type {
        /// The volume's name.
        volume: String,
        /// The path.
        path: PathBuf,
        /// What it should be.
        wanted: String,
        /// What it is.
        found: &'static str,
    },
    /// A sub-path leads out of its volume.
    #[error("subPath {sub_path} leads out of volume {volume}")]
    Escape {
        /// The volume's name.
        volume: String,
        /// The sub-path.
        sub_path: String,
    },
    /// The file system refused.
    #[error("volume {volume}")]
    Io {
        /// The volume's name.
        volume: String,
        /// What failed.
        #[source]
        source: FsError,
    },
}

/// `ROOT/pods/UID`: emptyDirs and termination messages of a pod.
pub fn pod_dir(root: &Path, uid: &str) -> PathBuf {
    root.join("pods").join(uid)
}

/// The path a volume has on the machine; None for a source that validation refuses.
pub fn path(volume: &Volume, root: &Path, uid: &str) -> Option<PathBuf> {
    if let Some(host) = &volume.host_path {
        return Some(PathBuf::from(&host.path));
    }
    volume.empty_dir.as_ref().map(|_| pod_dir(root, uid).join("volumes/kubernetes.io~empty-dir").join(&volume.name))
}

/// The file that is mounted at a container's terminationMessagePath, one an instance.
pub fn termination_file(root: &Path, uid: &str, container: &str, attempt: u32) -> PathBuf {
    pod_dir(root, uid).join("containers").join(container).join(format!("{attempt:08x}"))
}

/// Makes and checks every volume of a pod. May be repeated: what is there stays as it is.
pub fn prepare(pod: &StaticPod, root: &Path) -> Result<(), VolumeError> {
    for volume in pod.spec.volumes.iter().flatten() {
        let Some(path) = path(volume, root, &pod.uid) else { continue };
        if let Some(host) = &volume.host_path {
            host_path(&volume.name, &path, host)?;
        }
        if let Some(source) = &volume.empty_dir {
            empty_dir(&path, source).map_err(|source| VolumeError::Io { volume: volume.name.clone(), source })?;
        }
    }
    Ok(())
}

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

fn host_path(volume: &str, path: &Path, source: &HostPathVolumeSource) -> Result<(), VolumeError> {
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
            // Parents are not made: a file in a directory nobody made is a mistake in the manifest.
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

fn empty_dir(path: &Path, source: &EmptyDirVolumeSource) -> Result<(), FsError> {
    if !path.is_dir() {
        if let Some(parent) = path.parent() {
            make_dirs(parent, 0o750)?;
        }
        fs::DirBuilder::new().create(path).map_err(|e| FsError::new("create directory", path, e))?;
        // The umask must not close it: any user of any container may write there.
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).map_err(|e| FsError::new("open up", path, e))?;
    }
    if source.medium.as_deref() == Some("Memory") && !is_mount_point(path) {
        let size = source.size_limit.as_ref().and_then(resources::bytes).filter(|bytes| *bytes > 0);
        let options = size.map_or_else(|| "mode=0777".to_owned(), |bytes| format!("mode=0777,size={bytes}"));
        let options = std::ffi::CString::new(options).unwrap_or_default();
        rustix::mount::mount("tmpfs", path, "tmpfs", MountFlags::empty(), options.as_c_str())
            .map_err(|e| FsError::new("mount a tmpfs on", path, e.into()))?;
    }
    Ok(())
}

/// The source of a mount with a sub-path, which is made where it is missing and may not lead out of the volume.
pub fn sub_path(volume: &str, base: &Path, sub_path: &str) -> Result<PathBuf, VolumeError> {
    let io = |action, path: &Path, source| VolumeError::Io {
        volume: volume.to_owned(),
        source: FsError::new(action, path, source),
    };
    let real_base = fs::canonicalize(base).map_err(|e| io("resolve", base, e))?;
    let mut at = real_base.clone();
    // One step at a time, so that nothing is made behind a link that leads elsewhere.
    for part in Path::new(sub_path).components() {
        at.push(part);
        if fs::symlink_metadata(&at).is_err() {
            fs::DirBuilder::new().mode(0o750).create(&at).map_err(|e| io("create directory", &at, e))?;
        }
        at = fs::canonicalize(&at).map_err(|e| io("resolve", &at, e))?;
        if !at.starts_with(&real_base) {
            return Err(VolumeError::Escape { volume: volume.to_owned(), sub_path: sub_path.to_owned() });
        }
    }
    Ok(at)
}

/// Makes the file a container writes its last words to, empty and open to all.
pub fn make_termination_file(path: &Path) -> Result<(), FsError> {
    if let Some(parent) = path.parent() {
        make_dirs(parent, 0o750)?;
    }
    let open = OpenOptions::new().write(true).create(true).truncate(true).open(path);
    let made = open.and_then(|_| fs::set_permissions(path, fs::Permissions::from_mode(0o666)));
    made.map_err(|e| FsError::new("create", path, e))
}

/// Removes a pod's directory, unmounting what was mounted below it. Never deletes below a mount point that stays.
pub fn remove_pod_dir(root: &Path, uid: &str) -> Result<(), FsError> {
    let dir = pod_dir(root, uid);
    // The UID may come from a label that anybody can set.
    let plain = !uid.is_empty() && !uid.contains('/') && !uid.starts_with('.');
    if !plain || fs::symlink_metadata(&dir).is_err() {
        return Ok(());
    }
    let mut mounts = mounts_below(&dir);
    mounts.sort_by_key(|mount| std::cmp::Reverse(mount.as_os_str().len()));
    for mount in mounts {
        rustix::mount::unmount(&mount, UnmountFlags::NOFOLLOW)
            .map_err(|e| FsError::new("unmount", &mount, e.into()))?;
    }
    fs::remove_dir_all(&dir).map_err(|e| FsError::new("remove", &dir, e))
}

fn is_mount_point(path: &Path) -> bool {
    mounts_below(path).iter().any(|mount| mount == path)
}

/// Mount points at and below `path`.
fn mounts_below(path: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape);
    points.filter(|point| point.starts_with(path)).collect()
}

/// mountinfo writes space, tab, newline and backslash as three octal digits.
fn unescape(text: &str) -> PathBuf {
    let mut out = text.to_owned();
    for (code, plain) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        out = out.replace(code, plain);
    }
    PathBuf::from(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::pod::tests::pod_with;

    fn host(path: &Path, type_: &str) -> Result<(), VolumeError> {
        let source = HostPathVolumeSource { path: path.display().to_string(), type_: Some(type_.into()) };
        host_path("v", path, &source)
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

    #[test]
    fn an_empty_dir_is_open_to_all_survives_a_second_prepare_and_goes_with_the_pod() {
        let root = tempfile::tempdir().unwrap();
        let pod = pod_with("volumes: [{name: v, emptyDir: {}}]", "");
        prepare(&pod, root.path()).unwrap();
        let dir = root.path().join("pods").join(&pod.uid).join("volumes/kubernetes.io~empty-dir/v");
        assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o777);
        fs::File::create(dir.join("kept")).unwrap();
        prepare(&pod, root.path()).unwrap();
        assert!(dir.join("kept").exists());
        remove_pod_dir(root.path(), &pod.uid).unwrap();
        remove_pod_dir(root.path(), &pod.uid).unwrap();
        assert_eq!(fs::read_dir(root.path().join("pods")).unwrap().count(), 0);
    }

    #[test]
    fn a_sub_path_is_made_and_cannot_leave_its_volume() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("volume");
        fs::create_dir(&base).unwrap();
        std::os::unix::fs::symlink("/etc", base.join("out")).unwrap();
        assert_eq!(sub_path("v", &base, "a/b").unwrap(), base.canonicalize().unwrap().join("a/b"));
        assert!(base.join("a/b").is_dir());
        assert!(matches!(sub_path("v", &base, "out/ssl"), Err(VolumeError::Escape { .. })));
    }
}
