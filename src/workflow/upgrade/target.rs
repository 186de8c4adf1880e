//! The manifests an upgrade goes to: rendered for another version, or those on disk with another image.

use std::path::{Path, PathBuf};

use super::UpgradeError;
use super::manifest::{image, parse, with_image};
use super::plan::Target;
use crate::host::paths::MANIFESTS_DIR;
use crate::manifests::{COMPONENTS, ETCD, Manifest};
use crate::release::KubernetesVersion;

/// `--image COMPONENT=IMAGE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageChange {
    /// One of [`COMPONENTS`].
    pub component: &'static str,
    /// The reference.
    pub image: String,
}

impl ImageChange {
    /// Reads `COMPONENT=IMAGE`.
    pub fn parse(given: &str) -> Result<Self, UpgradeError> {
        let wrong = || UpgradeError::ImageFlag { given: given.to_owned(), known: COMPONENTS.to_vec() };
        let (name, image) = given.split_once('=').ok_or_else(wrong)?;
        let component = COMPONENTS.into_iter().find(|c| *c == name).ok_or_else(wrong)?;
        if image.is_empty() || image.contains(char::is_whitespace) {
            return Err(wrong());
        }
        Ok(Self { component, image: image.to_owned() })
    }
}

/// Where a component's manifest is, as the node sees it.
pub fn file(component: &str) -> PathBuf {
    Path::new(MANIFESTS_DIR).join(format!("{component}.yaml"))
}

/// The manifests to go to: `rendered` ones where a version was named, what `current` gives elsewhere, with `images` put
/// in.
///
/// etcd never goes back to an older image of the same repository, because an older etcd may not read what a newer one
/// wrote; as with kubeadm, its manifest then stays as it is. Without `etcd` it stays in any case.
pub fn targets(
    rendered: &[Manifest],
    images: &[ImageChange],
    etcd: bool,
    current: impl Fn(&Path) -> Result<Option<Vec<u8>>, UpgradeError>,
) -> Result<Vec<Target>, UpgradeError> {
    let mut targets = Vec::new();
    for component in COMPONENTS {
        let file = file(component);
        let change = images.iter().find(|c| c.component == component);
        let mut content = match rendered.iter().find(|m| m.component == component) {
            Some(manifest) => {
                let new = manifest.yaml.clone().into_bytes();
                if component == ETCD && change.is_none() && !(etcd && etcd_goes_forward(&file, &new, &current)?) {
                    continue;
                }
                new
            }
            None if change.is_some() => {
                current(&file)?.ok_or_else(|| UpgradeError::NoManifest { path: file.clone() })?
            }
            None => continue,
        };
        if let Some(change) = change {
            content = with_image(&file, &content, &change.image)?;
        }
        targets.push(Target { component, file, content });
    }
    Ok(targets)
}

fn etcd_goes_forward(
    file: &Path,
    new: &[u8],
    current: impl Fn(&Path) -> Result<Option<Vec<u8>>, UpgradeError>,
) -> Result<bool, UpgradeError> {
    let Some(old) = current(file)? else { return Ok(true) };
    let (old, new) = (parse(file, &old)?, parse(file, new)?);
    Ok(match (tag_version(image(&old)), tag_version(image(&new))) {
        (Some(old), Some(new)) => new >= old,
        _ => true,
    })
}

/// The version in an image's tag: 3.6.8 of `registry.k8s.io/etcd:3.6.8-0`.
pub(super) fn tag_version(image: &str) -> Option<(u64, u64, u64)> {
    let (_, tag) = image.rsplit_once(':')?;
    let version = semver::Version::parse(tag.trim_start_matches('v')).ok()?;
    Some((version.major, version.minor, version.patch))
}

/// The Kubernetes version that runs: the tag of the API server's image. None where the tag is no version.
pub fn running_version(
    current: impl Fn(&Path) -> Result<Option<Vec<u8>>, UpgradeError>,
) -> Result<Option<KubernetesVersion>, UpgradeError> {
    let file = file("kube-apiserver");
    let content = current(&file)?.ok_or_else(|| UpgradeError::NoManifest { path: file.clone() })?;
    let manifest = parse(&file, &content)?;
    Ok(image(&manifest).rsplit_once(':').and_then(|(_, tag)| tag.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::super::plan::tests::manifest;
    use super::*;

    fn rendered(component: &'static str, image: &str) -> Manifest {
        let yaml = String::from_utf8(manifest(component, image)).unwrap();
        Manifest { component, yaml, pod: Default::default(), made_dirs: vec![] }
    }

    fn running(image: &'static str) -> impl Fn(&Path) -> Result<Option<Vec<u8>>, UpgradeError> {
        move |path| Ok(Some(manifest(path.file_stem().unwrap().to_str().unwrap(), image)))
    }

    #[test]
    fn an_image_flag_names_a_component_and_an_image() {
        let change = ImageChange::parse("etcd=host:5000/etcd:1").unwrap();
        assert_eq!((change.component, change.image.as_str()), ("etcd", "host:5000/etcd:1"));
        for wrong in ["etcd", "etcd=", "kubelet=x:1", "=x", "etcd=a b"] {
            let error = ImageChange::parse(wrong).unwrap_err().to_string();
            assert!(error.contains(wrong) && error.contains("kube-scheduler"), "{error}");
        }
    }

    #[test]
    fn etcd_never_goes_back_unless_its_image_is_named() {
        let new = [rendered("etcd", "r/etcd:3.4.13-0")];
        let components = |t: Vec<Target>| t.iter().map(|t| t.component).collect::<Vec<_>>();
        assert!(targets(&new, &[], true, running("r/etcd:3.5.0-0")).unwrap().is_empty());
        assert_eq!(components(targets(&new, &[], true, running("r/etcd:3.4.3-0")).unwrap()), ["etcd"]);
        assert!(targets(&new, &[], false, running("r/etcd:3.4.3-0")).unwrap().is_empty());
        let named = [ImageChange::parse("etcd=r/etcd:3.4.13-0").unwrap()];
        assert_eq!(components(targets(&new, &named, true, running("r/etcd:3.5.0-0")).unwrap()), ["etcd"]);
    }

    #[test]
    fn an_image_alone_changes_what_is_on_disk_and_only_that_component() {
        let change = [ImageChange::parse("kube-scheduler=r/x:v9").unwrap()];
        let targets = targets(&[], &change, true, running("r/x:v1")).unwrap();
        assert_eq!(targets.len(), 1);
        let value = parse(&targets[0].file, &targets[0].content).unwrap();
        assert_eq!(image(&value), "r/x:v9");
    }

    #[test]
    fn the_running_version_is_the_api_servers_tag() {
        assert_eq!(running_version(running("r/x:v1.20.2")).unwrap().unwrap().to_string(), "v1.20.2");
        assert_eq!(running_version(running("r/x:latest")).unwrap(), None);
    }
}
