//! Images out of local binaries, without a registry and without a Dockerfile: one layer with the program, what it links
//! and the few files every program expects. The same files make the same image, to its id.

mod archive;
mod components;
mod elf;

pub use components::{BuiltImage, Components, build_components};

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Docker;
use crate::runtime::{ContainerRuntime, ImageRecord, RuntimeError};

/// Search path of every image built here.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where programs go.
pub const BIN_DIR: &str = "/usr/local/bin";

/// Why an image could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is no program for Linux.
    #[error("{} is not a 64-bit Linux program (ELF): name the binary itself", path.display())]
    NotElf {
        /// Which one.
        path: PathBuf,
    },
    /// A linked program's libraries cannot be listed.
    #[error("cannot list the libraries of {}: {message}", path.display())]
    Libraries {
        /// The program.
        path: PathBuf,
        /// Why.
        message: String,
    },
    /// The reference has no tag, or a digest.
    #[error("image reference {reference:?} needs a tag (name:tag) to build it under")]
    Reference {
        /// The reference.
        reference: String,
    },
    /// A directory has no binary of any component.
    #[error("no component's binary is in {}: it may hold {names}", dir.display())]
    NoComponents {
        /// The directory.
        dir: PathBuf,
        /// What was looked for.
        names: String,
    },
    /// Docker did not take the image.
    #[error("cannot load image {reference} into docker")]
    Load {
        /// The reference.
        reference: String,
        /// Why.
        #[source]
        source: RuntimeError,
    },
}

/// An image to build.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageSpec {
    /// `repository:tag`.
    pub reference: String,
    /// Programs: the name below [`BIN_DIR`], and the local file.
    pub programs: Vec<(String, PathBuf)>,
    /// Symbolic links: the path in the image, and what it points to.
    pub links: Vec<(String, String)>,
    /// ENTRYPOINT.
    pub entrypoint: Vec<String>,
}

impl ImageSpec {
    /// An image of one program, which is its entry point.
    pub fn of_program(reference: &str, name: &str, path: &Path) -> Self {
        Self {
            reference: reference.to_owned(),
            programs: vec![(name.to_owned(), path.to_owned())],
            links: vec![],
            entrypoint: vec![format!("{BIN_DIR}/{name}")],
        }
    }
}

/// Builds an image and loads it into Docker under its reference. An image that had the reference before and has no
/// other goes, unless a container uses it.
///
/// # Errors
/// [`BuildError`]; nothing is loaded then.
pub async fn build_image(docker: &Docker, spec: &ImageSpec) -> Result<ImageRecord, BuildError> {
    let failed = |source| BuildError::Load { reference: spec.reference.clone(), source };
    let before = docker.image(&spec.reference).await.map_err(failed)?;
    let files = Files::gather(spec)?;
    let image = archive::Image {
        reference: spec.reference.clone(),
        architecture: files.architecture,
        entrypoint: spec.entrypoint.clone(),
        entries: layout(spec, &files.libraries),
    };
    docker.load(image).await?;
    let loaded = docker.image(&spec.reference).await.map_err(failed)?;
    let loaded = loaded
        .ok_or_else(|| failed(RuntimeError::NotFound { what: format!("image {} after its load", spec.reference) }))?;
    if let Some(before) = before.filter(|before| before.id != loaded.id && before.tags.len() <= 1) {
        let removed = docker.remove_image(&before.id).await;
        tracing::debug!(image = before.id, ?removed, "removed the image this one replaces");
    }
    Ok(loaded)
}

/// One thing in an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Absolute path in the image.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// What it is.
    pub content: Content,
}

/// What an [`Entry`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A directory.
    Directory,
    /// A copy of a local file.
    Local(PathBuf),
    /// A small text.
    Text(&'static str),
    /// A symbolic link.
    Link(String),
}

/// Files that libc and Go look for.
const FILES: [(&str, &str); 3] = [
    ("/etc/passwd", "root:x:0:0:root:/root:/sbin/nologin\nnobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin\n"),
    ("/etc/group", "root:x:0:\nnogroup:x:65534:\n"),
    ("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
];

/// What goes into the image, every directory before what is in it. `libraries` keep their local paths.
pub fn layout(spec: &ImageSpec, libraries: &BTreeSet<PathBuf>) -> Vec<Entry> {
    let mut contents: BTreeMap<String, (u32, Content)> = BTreeMap::new();
    contents.insert("/tmp".to_owned(), (0o1777, Content::Directory));
    contents.insert("/root".to_owned(), (0o700, Content::Directory));
    for (path, text) in FILES {
        contents.insert(path.to_owned(), (0o644, Content::Text(text)));
    }
    for library in libraries {
        contents.insert(library.to_string_lossy().into_owned(), (0o755, Content::Local(library.clone())));
    }
    for (name, path) in &spec.programs {
        contents.insert(format!("{BIN_DIR}/{name}"), (0o755, Content::Local(path.clone())));
    }
    for (path, target) in &spec.links {
        contents.insert(path.clone(), (0o777, Content::Link(target.clone())));
    }
    let parents: BTreeSet<String> = contents
        .keys()
        .flat_map(|path| Path::new(path).ancestors().skip(1))
        .map(|parent| parent.to_string_lossy().into_owned())
        .filter(|parent| parent != "/" && !parent.is_empty())
        .collect();
    for parent in parents {
        contents.entry(parent).or_insert((0o755, Content::Directory));
    }
    contents.into_iter().map(|(path, (mode, content))| Entry { path, mode, content }).collect()
}

/// What the programs need, found on this machine.
struct Files {
    architecture: &'static str,
    libraries: BTreeSet<PathBuf>,
}

impl Files {
    fn gather(spec: &ImageSpec) -> Result<Self, BuildError> {
        let mut files = Self { architecture: elf::own_architecture(), libraries: BTreeSet::new() };
        for (_, path) in &spec.programs {
            let program = elf::read(path)?;
            files.architecture = program.architecture;
            if program.interpreter.is_some() {
                files.libraries.extend(libraries(path)?);
            }
        }
        Ok(files)
    }
}

/// The libraries of a linked program and its interpreter, by `ldd`, which asks the machine's own dynamic linker.
fn libraries(program: &Path) -> Result<Vec<PathBuf>, BuildError> {
    let failed = |message: String| BuildError::Libraries { path: program.to_owned(), message };
    let ldd = which::which("ldd")
        .map_err(|_| failed("it is dynamically linked and there is no ldd: install libc-bin".to_owned()))?;
    let listed = Command::new(ldd).arg(program).env("LC_ALL", "C").output();
    let listed = listed.map_err(|error| failed(format!("ldd does not run: {error}")))?;
    if !listed.status.success() {
        return Err(failed(format!("ldd: {}", String::from_utf8_lossy(&listed.stderr).trim())));
    }
    elf::parse_ldd(&String::from_utf8_lossy(&listed.stdout))
        .map_err(|library| failed(format!("{library} is not installed")))
}

#[cfg(test)]
mod tests;
