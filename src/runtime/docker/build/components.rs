//! Images of the control plane's components, out of a directory of their binaries.

use std::path::Path;

use serde::Serialize;

use super::{BuildError, Docker, ImageSpec, build_image};
use crate::event::Reporter;

/// What came of a directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Components {
    /// The images that were built.
    pub images: Vec<BuiltImage>,
    /// Components of which the directory has no binary.
    pub absent: Vec<String>,
}

/// An image that was built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BuiltImage {
    /// `kube-apiserver`, ...
    pub component: String,
    /// Its reference.
    pub image: String,
    /// Its id.
    pub id: String,
    /// Bytes.
    pub size: u64,
}

/// Builds an image for every component of `wanted` (name and reference) whose binary lies in `dir` under its name, and
/// reports each as a note. All binaries are looked at before the first image is built.
///
/// # Errors
/// [`BuildError::NoComponents`] when `dir` has none of them, and those of [`build_image`].
pub async fn build_components(
    docker: &Docker,
    dir: &Path,
    wanted: &[(&str, String)],
    reporter: &dyn Reporter,
) -> Result<Components, BuildError> {
    let (found, absent): (Vec<_>, Vec<_>) = wanted.iter().partition(|(name, _)| dir.join(name).exists());
    if found.is_empty() {
        let names = wanted.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        return Err(BuildError::NoComponents { dir: dir.to_owned(), names });
    }
    for (name, _) in &found {
        super::elf::read(&dir.join(name))?;
    }
    let mut components =
        Components { absent: absent.iter().map(|(name, _)| (*name).to_owned()).collect(), images: vec![] };
    for (name, reference) in found {
        let built = build_image(docker, &ImageSpec::of_program(reference, name, &dir.join(name))).await?;
        reporter.note("images", format!("Built {reference} out of {}", dir.join(name).display()));
        components.images.push(BuiltImage {
            component: (*name).to_owned(),
            image: reference.clone(),
            id: built.id,
            size: built.size,
        });
    }
    Ok(components)
}
