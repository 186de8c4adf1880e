//! The kubelet's files: what a kubelet, and the embedded agent in its place, reads when it starts.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::config::spec::{Arg, ClusterSpec, NodeSpec};
use crate::host::fs::{FsError, Written};
use crate::host::paths::{KUBELET_CONFIG, KUBELET_DIR, KUBELET_FLAGS_ENV, KUBELET_INSTANCE_CONFIG, MANIFESTS_DIR};
use crate::host::tree::Tree;
use crate::manifests::patches::{KUBELET_TARGET, PatchError, Patches};
use crate::release::KubeletRow;
use crate::yaml::{self, EmitError};

/// The socket that kubeadm takes when it finds none.
pub const DEFAULT_CRI_SOCKET: &str = "unix:///var/run/containerd/containerd.sock";

/// The resolver file that holds real servers where systemd-resolved puts its own stub into /etc/resolv.conf.
const RESOLVED_CONF: &str = "/run/systemd/resolve/resolv.conf";

/// The variable in the flags file.
const FLAGS_VARIABLE: &str = "KUBELET_KUBEADM_ARGS";

/// The contents of the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubeletFiles {
    /// `/var/lib/kubelet/config.yaml`.
    pub config: String,
    /// `/var/lib/kubelet/instance-config.yaml`.
    pub instance_config: String,
    /// `/var/lib/kubelet/kubeadm-flags.env`.
    pub flags_env: String,
    /// Settings of the user's that stand, though they are not what a control-plane node is made for, and one that does
    /// not stand.
    pub warnings: Vec<String>,
}

/// What [`write()`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenFiles {
    /// Each file, as the node sees it, and what became of it.
    pub files: Vec<(&'static str, Written)>,
    /// As in [`KubeletFiles::warnings`].
    pub warnings: Vec<String>,
}

/// Files that cannot be made or written.
#[derive(Debug, thiserror::Error)]
pub enum KubeletFilesError {
    /// The user's document is no object.
    #[error("the KubeletConfiguration document is no object")]
    NotAnObject,
    /// A service network too small for a DNS server; validation lets none through.
    #[error("service network {network} has no tenth address for the cluster's DNS server")]
    NoDnsAddress {
        /// The network.
        network: String,
    },
    /// A control character, which no line of an environment file can hold.
    #[error("kubeletExtraArgs: the value of {name} has a line break or another control character in it")]
    ControlCharacter {
        /// The flag.
        name: String,
    },
    /// A patch of `kubeletconfiguration` that cannot be read or applied.
    #[error("cannot patch the KubeletConfiguration")]
    Patch(#[source] PatchError),
    /// A document that cannot be written as YAML.
    #[error("cannot write the KubeletConfiguration as YAML")]
    Emit(#[source] EmitError),
    /// A file that cannot be written.
    #[error("cannot write the kubelet's files")]
    File(#[source] FsError),
}

/// Makes the files. `systemd_resolved` says whether that service is active on the node, whose stub resolver no pod can
/// reach.
///
/// # Errors
/// Patches that do not apply, and values that the files cannot hold.
pub fn render(spec: &ClusterSpec, systemd_resolved: bool) -> Result<KubeletFiles, KubeletFilesError> {
    let (mut config, warnings) = configuration(spec, systemd_resolved)?;
    patch(&mut config, spec.patches_dir.as_deref())?;
    let instance = instance(&spec.node);
    config[ENDPOINT_FIELD] = instance[ENDPOINT_FIELD].clone();
    finish(&config, &instance, &arguments(&spec.node), warnings)
}

/// What the kubelet of a node that joins works from.
#[derive(Debug, Clone, Copy)]
pub struct Joining<'a> {
    /// This machine.
    pub node: &'a NodeSpec,
    /// Directory of patches.
    pub patches_dir: Option<&'a Path>,
    /// The KubeletConfiguration of the cluster, which fits the cluster's own version and is taken as it is.
    pub cluster: &'a Value,
    /// What this machine's kubelet takes.
    pub kubelet: &'a KubeletRow,
    /// As in [`render`].
    pub systemd_resolved: bool,
}

/// Makes the files of a node that joins a cluster: the cluster's KubeletConfiguration with what belongs to this node.
///
/// # Errors
/// Patches that do not apply, and values that the files cannot hold.
pub fn render_joining(joining: &Joining<'_>) -> Result<KubeletFiles, KubeletFilesError> {
    let mut config = joining.cluster.clone();
    if !config.is_object() {
        return Err(KubeletFilesError::NotAnObject);
    }
    if joining.systemd_resolved {
        set_default(&mut config, "/resolvConf", json!(RESOLVED_CONF));
    }
    patch(&mut config, joining.patches_dir)?;
    let instance = instance(joining.node);
    // One of the cluster's nodes may have left its own there.
    if let Value::Object(fields) = &mut config {
        fields.remove(ENDPOINT_FIELD);
    }
    if joining.kubelet.endpoint_in_config {
        config[ENDPOINT_FIELD] = instance[ENDPOINT_FIELD].clone();
    }
    let named = |name: &str| joining.node.kubelet_extra_args.iter().any(|arg| arg.name == name);
    let own = joining.kubelet.runtime_flags(socket(joining.node)).into_iter().filter(|(name, _)| !named(name));
    let mut flags: Vec<Arg> = own.map(|(name, value)| Arg { name, value }).collect();
    flags.extend(arguments(joining.node));
    finish(&config, &instance, &flags, vec![])
}

/// The settings of a node that is in a cluster, made again from the cluster's: where its runtime is, is the node's own
/// affair and stays as it is in `before`.
///
/// # Errors
/// Patches that do not apply, and values that YAML cannot hold.
pub fn in_cluster(
    cluster: &Value,
    before: &Value,
    patches_dir: Option<&Path>,
    systemd_resolved: bool,
) -> Result<String, KubeletFilesError> {
    let mut config = cluster.clone();
    let Value::Object(fields) = &mut config else { return Err(KubeletFilesError::NotAnObject) };
    fields.remove(ENDPOINT_FIELD);
    if systemd_resolved {
        set_default(&mut config, "/resolvConf", json!(RESOLVED_CONF));
    }
    patch(&mut config, patches_dir)?;
    if let Some(endpoint) = before.get(ENDPOINT_FIELD) {
        config[ENDPOINT_FIELD] = endpoint.clone();
    }
    yaml::to_string(&config).map_err(KubeletFilesError::Emit)
}

/// Where the node's kubelet finds its runtime.
const ENDPOINT_FIELD: &str = "containerRuntimeEndpoint";

/// The socket of the node's runtime, as its kubelet gets it.
pub fn socket(node: &NodeSpec) -> &str {
    node.cri_socket.as_deref().unwrap_or(DEFAULT_CRI_SOCKET)
}

fn instance(node: &NodeSpec) -> Value {
    json!({ ENDPOINT_FIELD: socket(node) })
}

fn patch(config: &mut Value, dir: Option<&Path>) -> Result<(), KubeletFilesError> {
    let Some(dir) = dir else { return Ok(()) };
    Patches::read(dir).and_then(|patches| patches.apply(KUBELET_TARGET, config)).map_err(KubeletFilesError::Patch)
}

fn finish(
    config: &Value,
    instance: &Value,
    flags: &[Arg],
    warnings: Vec<String>,
) -> Result<KubeletFiles, KubeletFilesError> {
    Ok(KubeletFiles {
        config: yaml::to_string(config).map_err(KubeletFilesError::Emit)?,
        instance_config: yaml::to_string(instance).map_err(KubeletFilesError::Emit)?,
        flags_env: flags_env(flags)?,
        warnings,
    })
}

/// The KubeletConfiguration that the kubelets of all nodes share: nothing of this very node is in it.
///
/// # Errors
/// Those of [`render`], but for patches, which are a node's own.
pub fn cluster_wide(spec: &ClusterSpec) -> Result<String, KubeletFilesError> {
    let (mut config, _) = configuration(spec, false)?;
    if let Value::Object(fields) = &mut config {
        fields.remove("containerRuntimeEndpoint");
    }
    yaml::to_string(&config).map_err(KubeletFilesError::Emit)
}

/// Makes the files and writes them, 0644 in a directory of mode 0700; returns what became of each and the warnings.
///
/// # Errors
/// Those of [`render`], and what the file system refuses.
pub fn write(
    spec: &ClusterSpec,
    systemd_resolved: bool,
    tree: &mut dyn Tree,
) -> Result<WrittenFiles, KubeletFilesError> {
    write_files(render(spec, systemd_resolved)?, tree)
}

/// Writes the files, 0644 in a directory of mode 0700.
///
/// # Errors
/// What the file system refuses.
pub fn write_files(files: KubeletFiles, tree: &mut dyn Tree) -> Result<WrittenFiles, KubeletFilesError> {
    tree.make_dir(Path::new(KUBELET_DIR), 0o700).map_err(KubeletFilesError::File)?;
    let mut written = Vec::new();
    for (path, content) in [
        (KUBELET_FLAGS_ENV, &files.flags_env),
        (KUBELET_INSTANCE_CONFIG, &files.instance_config),
        (KUBELET_CONFIG, &files.config),
    ] {
        let outcome = tree.write(Path::new(path), content.as_bytes(), 0o644).map_err(KubeletFilesError::File)?;
        written.push((path, outcome));
    }
    Ok(WrittenFiles { files: written, warnings: files.warnings })
}

/// The user's KubeletConfiguration with kubeadm's values where it has none.
fn configuration(spec: &ClusterSpec, systemd_resolved: bool) -> Result<(Value, Vec<String>), KubeletFilesError> {
    let mut warnings = Vec::new();
    let mut config = match &spec.kubelet {
        Value::Object(fields) => Value::Object(fields.clone()),
        Value::Null => Value::Object(Map::new()),
        _ => return Err(KubeletFilesError::NotAnObject),
    };
    config["apiVersion"] = json!("kubelet.config.k8s.io/v1beta1");
    config["kind"] = json!("KubeletConfiguration");
    let client_ca = spec.certificates_dir.join("ca.crt").to_string_lossy().into_owned();
    let mut defaults = vec![
        ("/authentication/anonymous/enabled", json!(false)),
        ("/authentication/webhook/enabled", json!(true)),
        ("/authentication/x509/clientCAFile", json!(client_ca)),
        ("/authorization/mode", json!("Webhook")),
        ("/cgroupDriver", json!("systemd")),
        ("/clusterDNS", json!([dns_address(spec)?])),
        ("/clusterDomain", json!(spec.networking.dns_domain)),
        ("/healthzBindAddress", json!("127.0.0.1")),
        ("/healthzPort", json!(10248)),
        ("/staticPodPath", json!(MANIFESTS_DIR)),
    ];
    if systemd_resolved {
        defaults.push(("/resolvConf", json!(RESOLVED_CONF)));
    }
    for (pointer, default) in defaults {
        if let Some(own) = set_default(&mut config, pointer, default.clone()) {
            let field = pointer.trim_start_matches('/').replace('/', ".");
            warnings.push(format!("KubeletConfiguration: {field} is {own}; a node of this cluster expects {default}"));
        }
    }
    if config.get("rotateCertificates") == Some(&json!(false)) {
        warnings.push("KubeletConfiguration: rotateCertificates is always true on a node of this cluster".to_owned());
    }
    config["rotateCertificates"] = json!(true);
    Ok((config, warnings))
}

/// Sets the field at `pointer` where it has no value; returns the value it has where that is another.
fn set_default(config: &mut Value, pointer: &str, default: Value) -> Option<Value> {
    let mut place = config;
    for field in pointer.split('/').skip(1) {
        if !place.is_object() {
            *place = Value::Object(Map::new());
        }
        let Value::Object(fields) = place else { return None };
        place = fields.entry(field).or_insert(Value::Null);
    }
    let is_unset = match &*place {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    };
    if is_unset {
        *place = default;
        return None;
    }
    (*place != default).then(|| place.clone())
}

/// The tenth address of the first service network, where kubeadm puts the cluster's DNS service.
///
/// # Errors
/// A network without one.
pub fn dns_address(spec: &ClusterSpec) -> Result<String, KubeletFilesError> {
    let network = spec.networking.service_subnets.first();
    let tenth = network.and_then(|network| match network {
        ipnet::IpNet::V4(net) => u32::from(net.network()).checked_add(10).map(|n| std::net::IpAddr::V4(n.into())),
        ipnet::IpNet::V6(net) => u128::from(net.network()).checked_add(10).map(|n| std::net::IpAddr::V6(n.into())),
    });
    tenth.filter(|address| network.is_some_and(|network| network.contains(address))).map(|a| a.to_string()).ok_or_else(
        || KubeletFilesError::NoDnsAddress { network: network.map(ToString::to_string).unwrap_or_default() },
    )
}

/// The node agent's own flags: `--hostname-override` where the node has another name than the machine, then the user's
/// `kubeletExtraArgs`. One item per flag, unquoted, for starting the agent without a shell or systemd in between.
pub fn flags(spec: &ClusterSpec) -> Vec<String> {
    arguments(&spec.node).iter().map(|arg| format!("--{}={}", arg.name, arg.value)).collect()
}

fn arguments(node: &NodeSpec) -> Vec<Arg> {
    let extra = &node.kubelet_extra_args;
    let named = node.name == node.hostname || extra.iter().any(|arg| arg.name == "hostname-override");
    let own = (!named).then(|| Arg { name: "hostname-override".into(), value: node.name.clone() });
    own.into_iter().chain(extra.iter().cloned()).collect()
}

/// `KUBELET_KUBEADM_ARGS="..."`: the flags, as systemd reads a file of variables.
fn flags_env(flags: &[Arg]) -> Result<String, KubeletFilesError> {
    let words = flags.iter().map(word).collect::<Result<Vec<_>, _>>()?;
    let line = words.join(" ").replace('\\', "\\\\").replace('"', "\\\"");
    Ok(format!("{FLAGS_VARIABLE}=\"{line}\"\n"))
}

/// One flag as a word that systemd finds again when it splits the variable: in quotes where it has to be.
fn word(arg: &Arg) -> Result<String, KubeletFilesError> {
    if arg.value.chars().any(char::is_control) {
        return Err(KubeletFilesError::ControlCharacter { name: arg.name.clone() });
    }
    let flag = format!("--{}={}", arg.name, arg.value);
    let plain = !flag.contains(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '\\'));
    Ok(if plain { flag } else { format!("\"{}\"", flag.replace('\\', "\\\\").replace('"', "\\\"")) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::spec;

    #[test]
    fn a_node_in_a_cluster_gets_the_clusters_settings_and_keeps_its_own_runtime() {
        let cluster = json!({"kind": "KubeletConfiguration", "maxPods": 50, ENDPOINT_FIELD: "unix:///theirs"});
        let before = json!({ENDPOINT_FIELD: "unix:///ours", "maxPods": 110});
        let parsed = |resolved| yaml::to_value(&in_cluster(&cluster, &before, None, resolved).unwrap()).unwrap();
        let expected = json!({"kind": "KubeletConfiguration", "maxPods": 50, ENDPOINT_FIELD: "unix:///ours"});
        assert_eq!(parsed(false), expected);
        assert_eq!(parsed(true)["resolvConf"], RESOLVED_CONF);
        let older = in_cluster(&cluster, &json!({}), None, false).unwrap();
        assert!(!older.contains(ENDPOINT_FIELD), "an older kubelet has a flag for it");
    }

    fn config(spec: &ClusterSpec, resolved: bool) -> (Value, Vec<String>) {
        let files = render(spec, resolved).unwrap();
        (yaml::to_value(&files.config).unwrap(), files.warnings)
    }

    #[test]
    fn a_users_document_keeps_its_values_and_gets_kubeadms_for_the_rest() {
        let mut spec = spec();
        spec.kubelet = json!({"maxPods": 250, "cgroupDriver": "cgroupfs", "authentication": {"anonymous": {}}});
        let (config, warnings) = config(&spec, false);
        assert_eq!(config["maxPods"], 250);
        assert_eq!(config["cgroupDriver"], "cgroupfs");
        assert_eq!(config["authentication"]["anonymous"]["enabled"], false);
        assert_eq!(config["clusterDNS"], json!(["10.96.0.10"]));
        assert_eq!(
            warnings,
            ["KubeletConfiguration: cgroupDriver is \"cgroupfs\"; a node of this cluster expects \"systemd\""]
        );
    }

    #[test]
    fn certificates_are_always_rotated() {
        let mut spec = spec();
        spec.kubelet = json!({"rotateCertificates": false});
        let (config, warnings) = config(&spec, false);
        assert_eq!(config["rotateCertificates"], true);
        assert_eq!(warnings.len(), 1);
    }

    #[test]
    fn the_resolver_file_is_systemds_only_where_that_resolves() {
        assert_eq!(config(&spec(), true).0["resolvConf"], RESOLVED_CONF);
        assert_eq!(config(&spec(), false).0.get("resolvConf"), None);
    }

    #[test]
    fn the_dns_address_of_an_ipv6_network_is_its_tenth() {
        let mut spec = spec();
        spec.networking.service_subnets = vec!["fd00:10:96::/112".parse().unwrap()];
        assert_eq!(config(&spec, false).0["clusterDNS"], json!(["fd00:10:96::a"]));
    }

    #[test]
    fn the_socket_of_the_node_is_in_both_documents() {
        let mut spec = spec();
        spec.node.cri_socket = Some("unix:///run/crio/crio.sock".into());
        let files = render(&spec, false).unwrap();
        assert_eq!(files.instance_config, "containerRuntimeEndpoint: unix:///run/crio/crio.sock\n");
        assert_eq!(config(&spec, false).0["containerRuntimeEndpoint"], "unix:///run/crio/crio.sock");
    }

    #[test]
    fn flags_are_words_in_one_quoted_line() {
        let mut spec = spec();
        let flags = |spec: &ClusterSpec| render(spec, false).map(|files| files.flags_env);
        assert_eq!(flags(&spec).unwrap(), "KUBELET_KUBEADM_ARGS=\"\"\n");
        spec.node.hostname = "machine".into();
        let arg = |name: &str, value: &str| Arg { name: name.into(), value: value.into() };
        spec.node.kubelet_extra_args = vec![arg("node-labels", "zone=a"), arg("x", "a \"b\"")];
        assert_eq!(
            flags(&spec).unwrap(),
            "KUBELET_KUBEADM_ARGS=\"--hostname-override=cp1 --node-labels=zone=a \
             \\\"--x=a \\\\\\\"b\\\\\\\"\\\"\"\n"
        );
        spec.node.kubelet_extra_args = vec![arg("hostname-override", "other")];
        assert_eq!(flags(&spec).unwrap(), "KUBELET_KUBEADM_ARGS=\"--hostname-override=other\"\n");
        spec.node.kubelet_extra_args = vec![arg("x", "a\nb")];
        assert!(matches!(flags(&spec), Err(KubeletFilesError::ControlCharacter { .. })));
    }

    #[test]
    fn a_node_that_joins_takes_the_clusters_settings_and_adds_its_own() {
        let mut node = spec().node;
        node.cri_socket = Some("unix:///run/c.sock".into());
        node.kubelet_extra_args = vec![Arg { name: "node-ip".into(), value: "10.0.0.7".into() }];
        let cluster =
            json!({"kind": "KubeletConfiguration", "maxPods": 7, "containerRuntimeEndpoint": "unix:///other"});
        let files = |version: &str| {
            let kubelet = crate::release::kubelet_row(&version.parse().unwrap());
            let joining =
                Joining { node: &node, patches_dir: None, cluster: &cluster, kubelet, systemd_resolved: true };
            render_joining(&joining).unwrap()
        };
        let old = files("v1.20.2");
        assert_eq!(
            yaml::to_value(&old.config).unwrap(),
            json!({"kind": "KubeletConfiguration", "maxPods": 7, "resolvConf": RESOLVED_CONF}),
            "nothing that this kubelet does not know"
        );
        assert_eq!(
            old.flags_env,
            "KUBELET_KUBEADM_ARGS=\"--container-runtime=remote --container-runtime-endpoint=unix:///run/c.sock \
             --node-ip=10.0.0.7\"\n"
        );
        let new = files("v1.36.2");
        assert_eq!(yaml::to_value(&new.config).unwrap()["containerRuntimeEndpoint"], "unix:///run/c.sock");
        assert_eq!(new.flags_env, "KUBELET_KUBEADM_ARGS=\"--node-ip=10.0.0.7\"\n");
        assert_eq!(new.instance_config, "containerRuntimeEndpoint: unix:///run/c.sock\n");
    }

    #[test]
    fn patches_of_a_node_that_joins_count_and_its_own_runtime_flags_too() {
        let dir = tempfile::tempdir().unwrap();
        let patch = dir.path().join("kubeletconfiguration.yaml");
        crate::host::fs::write_file(&patch, b"cgroupDriver: cgroupfs\n", 0o644).unwrap();
        let mut node = spec().node;
        node.kubelet_extra_args = vec![Arg { name: "container-runtime".into(), value: "docker".into() }];
        let cluster = json!({"cgroupDriver": "systemd"});
        let kubelet = crate::release::kubelet_row(&"v1.20.2".parse().unwrap());
        let joining =
            Joining { node: &node, patches_dir: Some(dir.path()), cluster: &cluster, kubelet, systemd_resolved: false };
        let files = render_joining(&joining).unwrap();
        assert_eq!(files.config, "cgroupDriver: cgroupfs\n");
        assert_eq!(files.flags_env.matches("--container-runtime=").count(), 1, "{}", files.flags_env);
    }
}
