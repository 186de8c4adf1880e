//! Power cuts. A [`Disk`] follows which files and names below a root were synced; at the n-th sync the power is cut, and the
//! root can be brought into a state that a machine may find there afterwards.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::SystemTime;

/// What has not been synced when the power goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// All of it is lost: contents and names.
    All,
    /// The names are there, and contents are not, as on file systems that write names first.
    Contents,
}

/// An inode number may be used again.
type Inode = (u64, Option<SystemTime>);

#[derive(Clone)]
enum Node {
    File { content: Vec<u8>, mode: u32 },
    Link(PathBuf),
    Dir { names: Vec<(OsString, Inode)>, mode: u32 },
}

#[derive(Default)]
struct State {
    synced: HashMap<Inode, Node>,
    syncs: usize,
    cut_at: usize,
    /// What is found afterwards, by loss.
    found: Option<[Vec<(PathBuf, Node)>; 2]>,
}

/// The disk below one root.
pub struct Disk {
    root: PathBuf,
    state: Mutex<State>,
}

/// Those that are followed: tests run side by side, each below a root of its own.
static FOLLOWED: Mutex<Vec<Weak<Disk>>> = Mutex::new(Vec::new());

/// A file or directory is about to be synced.
pub fn before_sync(file: &File, path: &Path) {
    let followed = FOLLOWED.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for disk in followed.iter().filter_map(Weak::upgrade).filter(|disk| path.starts_with(&disk.root)) {
        disk.before_sync(file, path);
    }
}

impl Disk {
    /// Follows what is below `root` from now on, where everything is synced; the power is cut before the `n`-th sync.
    pub fn cut_before(root: &Path, n: usize) -> Arc<Self> {
        let disk = Self { root: root.to_owned(), state: Mutex::new(State { cut_at: n, ..State::default() }) };
        let whole = live(&disk.root);
        disk.state().synced = whole.into_iter().map(|(_, inode, node)| (inode, node)).collect();
        let disk = Arc::new(disk);
        let mut followed = FOLLOWED.lock().unwrap_or_else(PoisonError::into_inner);
        followed.retain(|one| one.strong_count() > 0);
        followed.push(Arc::downgrade(&disk));
        disk
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there were as many syncs.
    pub fn was_cut(&self) -> bool {
        self.state().found.is_some()
    }

    fn before_sync(&self, file: &File, path: &Path) {
        let mut state = self.state();
        if state.found.is_some() {
            return;
        }
        state.syncs += 1;
        if state.syncs == state.cut_at {
            let mut all = Vec::new();
            gather(&state.synced, inode_of(&self.root), Path::new(""), &mut all);
            let contents = live(&self.root).into_iter().map(|(path, inode, node)| {
                let node = match (node, state.synced.get(&inode)) {
                    (Node::File { .. }, Some(synced @ Node::File { .. })) => synced.clone(),
                    (Node::File { mode, .. }, _) => Node::File { content: vec![], mode },
                    (other, _) => other,
                };
                (path, node)
            });
            state.found = Some([all, contents.collect()]);
            return;
        }
        let meta = file.metadata().expect("an open file");
        let node = match meta.is_dir() {
            true => dir(path, &meta),
            false => {
                let mut content = Vec::new();
                let own = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file));
                File::open(own).and_then(|mut file| file.read_to_end(&mut content)).expect("a file that can be read");
                Node::File { content, mode: meta.mode() & 0o7777 }
            }
        };
        // A name whose file was never synced is there, with nothing in it; a directory's own names survive with it alone.
        if let Node::Dir { names, .. } = &node {
            for (name, inode) in names {
                let meta = path.join(name).symlink_metadata();
                let Some(meta) = meta.as_ref().ok().filter(|_| !state.synced.contains_key(inode)) else { continue };
                let empty = match meta {
                    meta if meta.is_dir() => Node::Dir { names: vec![], mode: meta.mode() & 0o7777 },
                    meta if meta.is_symlink() => Node::Link(fs::read_link(path.join(name)).expect("a link")),
                    meta => Node::File { content: vec![], mode: meta.mode() & 0o7777 },
                };
                state.synced.insert(*inode, empty);
            }
        }
        state.synced.insert(inode(&meta), node);
    }

    /// Brings the root into the state that is found after the cut, as often as it is called.
    pub fn restore(&self, loss: Loss) {
        let [all, contents] = self.state().found.clone().expect("the power was cut");
        let nodes = if loss == Loss::All { all } else { contents };
        for entry in fs::read_dir(&self.root).expect("the root") {
            let path = entry.expect("an entry").path();
            let is_dir = path.symlink_metadata().is_ok_and(|meta| meta.is_dir());
            if is_dir { fs::remove_dir_all(&path) } else { fs::remove_file(&path) }.expect("it can be removed");
        }
        for (path, node) in nodes.into_iter().filter(|(path, _)| !path.as_os_str().is_empty()) {
            let path = self.root.join(path);
            let mode = match node {
                Node::Dir { mode, .. } => fs::create_dir(&path).map(|()| mode),
                Node::Link(target) => {
                    symlink(target, &path).expect("a link");
                    continue;
                }
                Node::File { content, mode } => File::create(&path)
                    .and_then(|mut file| std::io::Write::write_all(&mut file, &content))
                    .map(|()| mode),
            };
            let mode = mode.expect("it can be made");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("its mode");
        }
    }
}

fn inode(meta: &Metadata) -> Inode {
    (meta.ino(), meta.created().ok())
}

fn inode_of(path: &Path) -> Inode {
    inode(&path.symlink_metadata().expect("it is there"))
}

fn dir(path: &Path, meta: &Metadata) -> Node {
    let mut names = Vec::new();
    for entry in fs::read_dir(path).expect("a directory").flatten() {
        // Another thread may have removed it since.
        if let Ok(meta) = entry.path().symlink_metadata() {
            names.push((entry.file_name(), inode(&meta)));
        }
    }
    Node::Dir { names, mode: meta.mode() & 0o7777 }
}

/// Everything below a directory as it is now, itself first, each directory before what is in it; paths are relative.
fn live(root: &Path) -> Vec<(PathBuf, Inode, Node)> {
    let mut all = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(relative) = open.pop() {
        let path = root.join(&relative);
        let Ok(meta) = path.symlink_metadata() else { continue };
        let node = match &meta {
            meta if meta.is_dir() => dir(&path, meta),
            meta if meta.is_symlink() => Node::Link(fs::read_link(&path).expect("a link")),
            // Sockets and the like do not outlive the machine.
            meta if !meta.is_file() => continue,
            meta => {
                Node::File { content: fs::read(&path).expect("a file that can be read"), mode: meta.mode() & 0o7777 }
            }
        };
        if let Node::Dir { names, .. } = &node {
            open.extend(names.iter().map(|(name, _)| relative.join(name)));
        }
        all.push((relative, inode(&meta), node));
    }
    all
}

fn gather(synced: &HashMap<Inode, Node>, at: Inode, path: &Path, all: &mut Vec<(PathBuf, Node)>) {
    let Some(node) = synced.get(&at) else { return };
    all.push((path.to_owned(), node.clone()));
    if let Node::Dir { names, .. } = node {
        names.iter().for_each(|(name, inode)| gather(synced, *inode, &path.join(name), all));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fs::{make_dirs, make_dirs_durably, write_file};

    fn after(loss: Loss, n: usize, what: impl Fn(&Path)) -> Vec<String> {
        let root = tempfile::tempdir().unwrap();
        write_file(&root.path().join("old"), b"1", 0o600).unwrap();
        let disk = Disk::cut_before(root.path(), n);
        what(root.path());
        assert!(disk.was_cut(), "fewer than {n} syncs");
        disk.restore(loss);
        let text = |name: String| match fs::read(root.path().join(&name)) {
            Ok(content) => format!("{name}={}", String::from_utf8_lossy(&content)),
            Err(_) => name,
        };
        crate::testing::listing(root.path()).into_iter().map(text).collect()
    }

    #[test]
    fn what_was_not_synced_is_lost_and_what_was_is_there() {
        let replace = |root: &Path| {
            write_file(&root.join("old"), b"2", 0o600).unwrap();
            write_file(&root.join("end"), b"", 0o600).unwrap();
        };
        // Its content is synced, then the rename.
        assert_eq!(after(Loss::All, 1, replace), ["old=1"]);
        assert_eq!(after(Loss::All, 2, replace), ["old=1"], "the rename is not in the directory yet");
        assert_eq!(after(Loss::All, 3, replace), ["old=2"]);
        assert_eq!(after(Loss::Contents, 2, replace), ["old=2"]);
        let careless = |root: &Path| {
            fs::File::create(root.join("new")).unwrap();
            std::io::Write::write_all(&mut fs::File::create(root.join("new")).unwrap(), b"3").unwrap();
            fs::rename(root.join("new"), root.join("old")).unwrap();
            write_file(&root.join("end"), b"", 0o600).unwrap();
        };
        let torn = after(Loss::Contents, 1, careless);
        assert!(torn.contains(&"old=".to_owned()), "a rename without a sync before it: {torn:?}");
    }

    #[test]
    fn a_directory_is_lost_whose_name_was_not_synced_whatever_is_in_it() {
        let in_dir = |make: fn(&Path)| {
            move |root: &Path| {
                make(&root.join("a/b"));
                write_file(&root.join("a/b/file"), b"x", 0o600).unwrap();
                write_file(&root.join("a/b/other"), b"", 0o600).unwrap();
            }
        };
        let lost = after(Loss::All, 3, in_dir(|dir| drop(make_dirs(dir, 0o755).unwrap())));
        assert_eq!(lost, ["old=1"]);
        let kept = after(Loss::All, 5, in_dir(|dir| drop(make_dirs_durably(dir, 0o755).unwrap())));
        assert_eq!(kept, ["a/", "a/b/", "a/b/file=x", "old=1"]);
    }
}
