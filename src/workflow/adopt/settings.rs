//! The configuration of a node that kubeadm made, as kubeadm itself finds it for an upgrade: from the cluster's config maps
//! and the node's own files. It is kept where that of `init` is, for `upgrade`, `upgrade rollback` and `certs renew`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::ObjectMeta;
use serde_json::{Value, json};

use super::{PHASE, Run};
use crate::cluster::SYSTEM;
use crate::cluster::object::Object;
use crate::config::{self, ClusterSpec, ConfigError, Flags, HostDefaults, Input};
use crate::error::chain;
use crate::host::facts;
use crate::host::fs::FsError;
use crate::host::paths::{KUBELET_FLAGS_ENV, MANIFESTS_DIR};
use crate::host::tree::Tree;
use crate::release::{KubernetesVersion, VersionError, kubelet_config_map};
use crate::workflow::machine::cluster::{Api, Site};
use crate::workflow::machine::{Cause, Machine};
use crate::workflow::state::saved::{Saved, SavedError};
use crate::yaml::{self, EmitError, YamlError};

/// The config map with kubeadm's ClusterConfiguration, and its key.
const CLUSTER: (&str, &str) = ("kubeadm-config", "ClusterConfiguration");
/// The kind of the document that is about one node.
const INIT: &str = "InitConfiguration";
/// The key of the kubelets' settings in their config map.
const KUBELET_KEY: &str = "kubelet";
/// The config map of kube-proxy's settings, and its key.
const KUBE_PROXY: (&str, &str) = ("kube-proxy", "config.conf");
/// kubeadm's note of an API server's address.
const ADDRESS: &str = "/metadata/annotations/kubeadm.kubernetes.io~1kube-apiserver.advertise-address.endpoint";
/// The flag by which kubeadm tells a kubelet the node's name, where that is not the machine's.
const NODE_NAME: &str = "--hostname-override=";
/// The feature gate of kubeadm 1.22 to 1.30 that stands for another kind of keys than RSA.
const ECDSA: &str = "/featureGates/PublicKeysECDSA";
/// How long the API server, which is healthy by then, may take to answer.
const LIMIT: Duration = Duration::from_secs(10);

/// A configuration that cannot be found.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// kubeadm notes the address in the manifest of the API server.
    #[error("{} has no annotation with the address of the API server", path.display())]
    NoAddress {
        /// The manifest.
        path: PathBuf,
    },
    /// The API server.
    #[error(transparent)]
    Api(Cause),
    /// kubeadm made it; without it kubeadm does not upgrade either.
    #[error("the cluster has no ConfigMap {SYSTEM}/{name} with {key}")]
    Missing {
        /// Which one.
        name: String,
        /// Which key.
        key: &'static str,
    },
    /// What is in a config map.
    #[error("{key} in the ConfigMap {SYSTEM}/{name} is no YAML")]
    Unreadable {
        /// Which one.
        name: String,
        /// Which key.
        key: &'static str,
        /// Why.
        #[source]
        source: YamlError,
    },
    /// The version in it.
    #[error(transparent)]
    Version(#[from] VersionError),
    /// It is not valid for this kubeboot.
    #[error("the cluster's configuration is not valid for this kubeboot")]
    Config(#[from] ConfigError),
    /// It cannot be written as YAML.
    #[error(transparent)]
    Emit(#[from] EmitError),
    /// A file.
    #[error(transparent)]
    File(#[from] FsError),
    /// The file that keeps it.
    #[error(transparent)]
    Saved(#[from] SavedError),
}

/// Reads the configuration of this node, which runs, and keeps it; returns whether it is new. `docker_host` is where the
/// agent's Docker is.
///
/// # Errors
/// See [`SettingsError`]; what was kept before stays.
pub async fn keep(machine: &mut Machine, docker_host: Option<&str>) -> Result<bool, SettingsError> {
    let (hostname, address) = facts::identity();
    let host = HostDefaults { hostname, address };
    let node = Node::of(&*machine.tree)?;
    let here = node.reached(&host)?;
    let site = Site { paths: &machine.paths, spec: &here };
    let maps = Maps::read(Api { cluster: &*machine.cluster, site }).await?;
    let text = documents(maps, &node, docker_host)?;
    let input = Input { file: Some((PathBuf::from(CLUSTER.0), text)), flags: Flags::default(), host };
    let saved = Saved::new(&input, &config::load(&input)?.spec);
    // One that cannot be read is written anew.
    if Saved::read(&*machine.tree).ok().flatten().as_ref() == Some(&saved) {
        return Ok(false);
    }
    saved.write(&mut *machine.tree)?;
    Ok(true)
}

impl Run<'_> {
    /// Keeps the configuration; returns whether it is new. The static pods run without it as well.
    pub(super) async fn keep_settings(&mut self) -> bool {
        match keep(self.machine, self.order.docker_host.as_deref()).await {
            Ok(changed) => changed,
            Err(error) => {
                let text = format!("the node's configuration is not known, and `upgrade` needs it: {}", chain(&error));
                self.machine.reporter.warn(PHASE, text + "; mend the cause and run `kubeboot adopt` again");
                false
            }
        }
    }
}

/// A configuration with what it takes to ask this node's API server.
///
/// # Errors
/// A manifest without an address.
pub(super) fn reached(tree: &dyn Tree) -> Result<ClusterSpec, SettingsError> {
    let (hostname, address) = facts::identity();
    Node::of(tree)?.reached(&HostDefaults { hostname, address })
}

/// What only the node's own files say.
struct Node {
    /// The name, where it is not the machine's.
    name: Option<String>,
    /// The address of its API server.
    address: SocketAddr,
}

impl Node {
    fn of(tree: &dyn Tree) -> Result<Self, SettingsError> {
        let path = Path::new(MANIFESTS_DIR).join("kube-apiserver.yaml");
        let text =
            |path: &Path| Ok::<_, FsError>(tree.read(path)?.map(|text| String::from_utf8_lossy(&text).into_owned()));
        let pod = text(&path)?.and_then(|text| yaml::to_value_lenient(&text).ok());
        let address = pod.as_ref().and_then(|pod| pod.pointer(ADDRESS)?.as_str()?.parse().ok());
        let address = address.ok_or(SettingsError::NoAddress { path })?;
        let flags = text(Path::new(KUBELET_FLAGS_ENV))?.unwrap_or_default();
        let words = flags.split(|letter: char| letter.is_whitespace() || letter == '"');
        let name = words.filter_map(|word| word.strip_prefix(NODE_NAME)).next_back().map(str::to_owned);
        Ok(Self { name, address })
    }

    /// See [`reached`].
    fn reached(&self, host: &HostDefaults) -> Result<ClusterSpec, SettingsError> {
        let flags = Flags {
            apiserver_advertise_address: Some(self.address.ip().to_string()),
            apiserver_bind_port: Some(self.address.port().to_string()),
            ..Flags::default()
        };
        let mut spec = config::load(&Input { file: None, flags, host: host.clone() })?.spec;
        spec.timeouts.kubernetes_api_call = LIMIT;
        Ok(spec)
    }
}

/// The cluster's config maps.
struct Maps {
    cluster: Value,
    kubelet: Option<Value>,
    kube_proxy: Option<Value>,
}

impl Maps {
    async fn read(api: Api<'_>) -> Result<Self, SettingsError> {
        let (name, key) = CLUSTER;
        let missing = || SettingsError::Missing { name: name.into(), key };
        let mut cluster = read(api, name, key).await?.ok_or_else(missing)?;
        let version: KubernetesVersion = cluster["kubernetesVersion"].as_str().unwrap_or_default().parse()?;
        convert(&mut cluster);
        Ok(Self {
            cluster,
            kubelet: read(api, &kubelet_config_map(&version), KUBELET_KEY).await?,
            kube_proxy: read(api, KUBE_PROXY.0, KUBE_PROXY.1).await?,
        })
    }
}

/// The document in a config map; None where there is none.
async fn read(api: Api<'_>, name: &str, key: &'static str) -> Result<Option<Value>, SettingsError> {
    let metadata = ObjectMeta { name: Some(name.into()), namespace: Some(SYSTEM.into()), ..ObjectMeta::default() };
    let wanted = Object::new(&ConfigMap { metadata, ..ConfigMap::default() });
    let map = api.cluster.get(api.site, &wanted).await.map_err(SettingsError::Api)?;
    let Some(text) = map.as_ref().and_then(|map| map.get("data")?.get(key)?.as_str()) else { return Ok(None) };
    let unreadable = |source| SettingsError::Unreadable { name: name.into(), key, source };
    yaml::to_value(text).map(Some).map_err(unreadable)
}

/// Makes a ClusterConfiguration of kubeadm 1.15 to 1.21 one of v1beta3, which has two fields less.
fn convert(cluster: &mut Value) {
    if cluster["apiVersion"] != "kubeadm.k8s.io/v1beta2" {
        return;
    }
    cluster["apiVersion"] = "kubeadm.k8s.io/v1beta3".into();
    if let Some(fields) = cluster.as_object_mut() {
        fields.remove("useHyperKubeImage");
    }
    if let Some(dns) = cluster["dns"].as_object_mut() {
        dns.remove("type");
    }
}

/// The file that `init` could have been given for this node.
fn documents(maps: Maps, node: &Node, docker_host: Option<&str>) -> Result<String, SettingsError> {
    let Maps { cluster, kubelet, kube_proxy } = maps;
    let written = yaml::to_string(&cluster)?;
    // In the newest version there are no warnings of an old one for what the user has not written.
    let (newest, _) = config::migrate(Path::new(CLUSTER.0), &written)?;
    // A timeout of older versions is the other document's now.
    let (mut init, mut documents): (Vec<_>, Vec<_>) = newest.into_iter().partition(|one| one["kind"] == INIT);
    for cluster in &mut documents {
        // Up to v1beta3 there was nothing to choose.
        if cluster.get("encryptionAlgorithm").is_none() && cluster.pointer(ECDSA) != Some(&Value::Bool(true)) {
            cluster["encryptionAlgorithm"] = "RSA-2048".into();
        }
    }
    let mut init = init.pop().unwrap_or_else(|| json!({"apiVersion": "kubeadm.k8s.io/v1beta4", "kind": INIT}));
    init["localAPIEndpoint"] =
        json!({"advertiseAddress": node.address.ip().to_string(), "bindPort": node.address.port()});
    if let Some(name) = &node.name {
        init["nodeRegistration"] = json!({ "name": name });
    }
    documents.push(init);
    documents.extend(kubelet.into_iter().chain(kube_proxy));
    if let Some(address) = docker_host {
        let kind = "KubebootConfiguration";
        documents.push(json!({"apiVersion": "kubeboot.dev/v1alpha1", "kind": kind, "dockerHost": address}));
    }
    let texts: Result<Vec<String>, EmitError> = documents.iter().map(yaml::to_string).collect();
    Ok(texts?.join("---\n"))
}
