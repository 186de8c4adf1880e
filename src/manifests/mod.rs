//! Component settings -> askama template -> typed Pod -> patches -> file.

mod args;
mod images;
mod json_patch;
mod settings;
mod strategic;
pub(crate) mod template;
mod volumes;

pub mod patches;
pub(crate) mod typed;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use askama::Template;
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

use crate::config::spec::{ClusterSpec, EtcdSpec};
use crate::host::fs::{FsError, Written};
use crate::host::paths::MANIFESTS_DIR;
use crate::host::tree::Tree;
use crate::yaml::{self, EmitError, YamlError};
use patches::{PatchError, Patches};
use settings::{etcd_url, known_authorizers};
use template::{ApiServerTemplate, ControllerManagerTemplate, EtcdTemplate, SchedulerTemplate};
use typed::NotTyped;

pub use images::{ComponentImage, cluster_images, coredns_image, etcd_image, images, kube_proxy_image, pause_image};

/// The etcd static pod.
pub const ETCD: &str = "etcd";
/// The kube-apiserver static pod.
pub const API_SERVER: &str = "kube-apiserver";
/// The kube-controller-manager static pod.
pub const CONTROLLER_MANAGER: &str = "kube-controller-manager";
/// The kube-scheduler static pod.
pub const SCHEDULER: &str = "kube-scheduler";

/// Every static pod of a control-plane node, in the order in which they are started and upgraded.
pub const COMPONENTS: [&str; 4] = [ETCD, API_SERVER, CONTROLLER_MANAGER, SCHEDULER];

/// What a manifest takes from the machine it is made on.
pub struct Host<'a> {
    /// Whether a path, as the node sees it, is there.
    pub exists: &'a dyn Fn(&Path) -> bool,
    /// The proxy variables of this process ([`proxies`](crate::host::environment::proxies)), which the Kubernetes components get too.
    pub proxy_env: Vec<(String, String)>,
}

/// A static pod, ready to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// One of [`COMPONENTS`].
    pub component: &'static str,
    /// The file's content.
    pub yaml: String,
    /// The same as a type.
    pub pod: Pod,
    /// Paths on the node that starting the pod makes where they are missing: hostPath volumes of a `...OrCreate` type.
    pub made_dirs: Vec<PathBuf>,
}

/// A manifest that cannot be made or written.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// No such static pod.
    #[error("{component:?} is no control-plane component; there are {}", COMPONENTS.join(", "))]
    Unknown {
        /// What was asked for.
        component: String,
    },
    /// etcd is external.
    #[error("there is no etcd manifest where the configuration names an external etcd")]
    ExternalEtcd,
    /// The template could not be filled in.
    #[error("cannot fill in the template of {component}")]
    Template {
        /// Whose.
        component: &'static str,
        /// Why.
        #[source]
        source: askama::Error,
    },
    /// What the template gave is no YAML, or not the same to two readers of it.
    #[error("the template of {component} gave no YAML")]
    Yaml {
        /// Whose.
        component: &'static str,
        /// Why.
        #[source]
        source: YamlError,
    },
    /// Not a Pod, as a rule because of a patch.
    #[error("the manifest of {component} is no Pod; look at its patches and at extraEnvs")]
    NotAPod {
        /// Whose.
        component: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A field that Pods do not have.
    #[error("the manifest of {component} has {field}, which no Pod has; a patch must have put it there")]
    UnknownField {
        /// Whose.
        component: &'static str,
        /// Path of the field.
        field: String,
    },
    /// A patch that cannot be read or applied.
    #[error("cannot patch {component}")]
    Patch {
        /// Whose.
        component: &'static str,
        /// Why.
        #[source]
        source: PatchError,
    },
    /// The Pod cannot be written as YAML.
    #[error("cannot write the manifest of {component} as YAML")]
    Emit {
        /// Whose.
        component: &'static str,
        /// Why.
        #[source]
        source: EmitError,
    },
    /// The file cannot be written.
    #[error("cannot write the manifest of {component}")]
    File {
        /// Whose.
        component: &'static str,
        /// Why.
        #[source]
        source: FsError,
    },
}

/// The static pods that `spec` wants on this node: all, or all but etcd where that is external.
pub fn wanted(spec: &ClusterSpec) -> Vec<&'static str> {
    COMPONENTS.into_iter().filter(|component| *component != ETCD || spec.etcd.local().is_some()).collect()
}

/// Makes the manifest of one component: its template, filled in, checked against the Pod type, patched from
/// `spec.patches_dir`, checked again, and written with sorted keys as kubeadm writes it.
///
/// # Errors
/// An unknown component, etcd where it is external, and patches that cannot be read, do not apply, or do not leave a
/// Pod.
pub fn render(spec: &ClusterSpec, component: &str, host: &Host<'_>) -> Result<Manifest, ManifestError> {
    let Some(component) = COMPONENTS.into_iter().find(|known| *known == component) else {
        return Err(ManifestError::Unknown { component: component.to_owned() });
    };
    let text = fill_in(spec, component, host)?;
    let value = yaml::to_confirmed_value(&text).map_err(|source| ManifestError::Yaml { component, source })?;
    let mut pod = serde_json::to_value(decode(component, value)?)
        .map_err(|source| ManifestError::NotAPod { component, source })?;
    if let Some(dir) = &spec.patches_dir {
        Patches::read(dir)
            .and_then(|patches| patches.apply(component, &mut pod))
            .map_err(|source| ManifestError::Patch { component, source })?;
    }
    Manifest::of(component, decode(component, pod)?)
}

impl Manifest {
    fn of(component: &'static str, pod: Pod) -> Result<Self, ManifestError> {
        let yaml = yaml::to_string(&pod).map_err(|source| ManifestError::Emit { component, source })?;
        let made_dirs = made_dirs(&pod);
        Ok(Self { component, yaml, pod, made_dirs })
    }

    /// The same pod with another image in its component's container.
    ///
    /// # Errors
    /// None but those of writing YAML.
    pub fn with_image(mut self, image: &str) -> Result<Self, ManifestError> {
        let containers = self.pod.spec.iter_mut().flat_map(|spec| &mut spec.containers);
        for container in containers.filter(|container| container.name == self.component) {
            container.image = Some(image.to_owned());
        }
        Self::of(self.component, self.pod)
    }

    /// Where the file goes, as the node sees it.
    pub fn path(&self) -> PathBuf {
        Path::new(MANIFESTS_DIR).join(format!("{}.yaml", self.component))
    }
}

/// Writes a manifest, 0600, into the manifest directory, which is made 0700 where it is missing.
///
/// # Errors
/// What the file system refuses.
pub fn write(manifest: &Manifest, tree: &mut dyn Tree) -> Result<Written, ManifestError> {
    let written = tree
        .make_dir(Path::new(MANIFESTS_DIR), 0o700)
        .and_then(|()| tree.write(&manifest.path(), manifest.yaml.as_bytes(), 0o600));
    written.map_err(|source| ManifestError::File { component: manifest.component, source })
}

fn fill_in(spec: &ClusterSpec, component: &'static str, host: &Host<'_>) -> Result<String, ManifestError> {
    let text = match component {
        ETCD => {
            let EtcdSpec::Local(local) = &spec.etcd else { return Err(ManifestError::ExternalEtcd) };
            let pod = settings::etcd(spec, local);
            EtcdTemplate { pod: &pod, advertise_client_urls: &etcd_url(spec, 2379) }.render()
        }
        API_SERVER => {
            let mut spec = spec.clone();
            spec.api_server.extra_args = known_authorizers(&spec.api_server.extra_args);
            let pod = settings::api_server(&spec, host);
            let (endpoint, surges) = (spec.local_endpoint().to_string(), settings::surges(&spec));
            ApiServerTemplate { pod: &pod, endpoint: &endpoint, surges }.render()
        }
        CONTROLLER_MANAGER => {
            let pod = settings::controller_manager(spec, host);
            ControllerManagerTemplate { pod: &pod }.render()
        }
        _ => SchedulerTemplate { pod: &settings::scheduler(spec, host) }.render(),
    };
    text.map_err(|source| ManifestError::Template { component, source })
}

/// `value` as a Pod.
fn decode(component: &'static str, value: Value) -> Result<Pod, ManifestError> {
    typed::decode(value, "").map_err(|error| match error {
        NotTyped::Shape(source) => ManifestError::NotAPod { component, source },
        NotTyped::UnknownField(field) => ManifestError::UnknownField { component, field },
    })
}

fn made_dirs(pod: &Pod) -> Vec<PathBuf> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let sources = volumes.filter_map(|volume| volume.host_path.as_ref());
    let made = sources.filter(|source| source.type_.as_deref().is_some_and(|kind| kind.ends_with("OrCreate")));
    made.map(|source| PathBuf::from(&source.path)).collect::<BTreeSet<_>>().into_iter().collect()
}
