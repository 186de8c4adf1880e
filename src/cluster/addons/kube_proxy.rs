//! kube-proxy, which makes services reachable on every node.

use askama::Template;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRoleBinding, Role, RoleBinding};
use serde_json::{Map, Value, json};

use super::super::object::Object;
use super::{AddonError, Objects};
use crate::config::ClusterSpec;
use crate::host::digest::sha256;
use crate::manifests::kube_proxy_image;
use crate::manifests::patches::{KUBE_PROXY_TARGET, Patches};
use crate::manifests::template::filters;
use crate::release;
use crate::yaml;

/// The name of the addon, of its DaemonSet and of its config map.
pub const NAME: &str = "kube-proxy";
/// The key of the config map that the KubeProxyConfiguration is under.
pub const CONFIG: &str = "config.conf";

/// Where the config map is mounted.
const KUBECONFIG_PATH: &str = "/var/lib/kube-proxy/kubeconfig.conf";
/// What every pod finds of its service account.
const CREDENTIALS: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Everything that kube-proxy is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct KubeProxy {
    /// Who it is.
    pub service_account: ServiceAccount,
    /// Its KubeProxyConfiguration and kubeconfig.
    pub config_map: ConfigMap,
    /// One on every node.
    pub daemon_set: DaemonSet,
    /// That it may do what kube-proxy does.
    pub cluster_role_binding: ClusterRoleBinding,
    /// Reading the config map, for nodes that join.
    pub role: Role,
    /// That they may.
    pub role_binding: RoleBinding,
    /// Settings of the user's that stand, though they are not what this cluster is made for.
    pub warnings: Vec<String>,
}

impl KubeProxy {
    /// All of them, to be written.
    pub fn objects(&self) -> Vec<Object> {
        vec![
            Object::new(&self.service_account),
            Object::new(&self.config_map),
            Object::new(&self.daemon_set),
            Object::new(&self.cluster_role_binding),
            Object::new(&self.role),
            Object::new(&self.role_binding),
        ]
    }
}

#[derive(Template)]
#[template(path = "kube-proxy.yml")]
struct KubeProxyTemplate<'a> {
    hash: Option<&'a str>,
    config: &'a str,
    kubeconfig: &'a str,
    image: &'a str,
    proxy_env: &'a [(String, String)],
}

/// Makes the objects of kube-proxy, which gets the proxy variables `proxy_env`.
///
/// # Errors
/// A KubeProxyConfiguration that has a field which is none, or of another type; patches that cannot be read, do not apply or
/// do not leave a DaemonSet.
pub fn objects(spec: &ClusterSpec, proxy_env: &[(String, String)]) -> Result<KubeProxy, AddonError> {
    let addon = NAME;
    let (configuration, warnings) = configuration(spec)?;
    let emit = |source| AddonError::Emit { addon, source };
    let config = yaml::to_string(&configuration).map_err(emit)?;
    let kubeconfig = yaml::to_string(&kubeconfig(spec)).map_err(emit)?;
    // kubeadm knows by the hash that the document is its own, and recreates it when it upgrades.
    let hash = is_default(&spec.kube_proxy).then(|| hash(&[&config, &kubeconfig]));
    let template = KubeProxyTemplate {
        hash: hash.as_deref(),
        config: &config,
        kubeconfig: &kubeconfig,
        image: &kube_proxy_image(spec),
        proxy_env,
    };
    let text = template.render().map_err(|source| AddonError::Template { addon, source })?;
    let mut objects = Objects::parse(addon, &text)?;
    let mut daemon_set = objects.take("DaemonSet")?;
    if let Some(dir) = &spec.patches_dir {
        Patches::read(dir)
            .and_then(|patches| patches.apply(KUBE_PROXY_TARGET, &mut daemon_set))
            .map_err(|source| AddonError::Patch { addon, source })?;
    }
    Ok(KubeProxy {
        service_account: objects.typed("ServiceAccount")?,
        config_map: objects.typed("ConfigMap")?,
        daemon_set: objects.decode("DaemonSet", daemon_set)?,
        cluster_role_binding: objects.typed("ClusterRoleBinding")?,
        role: objects.typed("Role")?,
        role_binding: objects.typed("RoleBinding")?,
        warnings,
    })
}

/// Whether the user gave no document.
fn is_default(document: &Value) -> bool {
    document.as_object().is_none_or(Map::is_empty)
}

/// kubeadm's hash of a config map: over the values of its data, in the order of their keys.
fn hash(values: &[&str]) -> String {
    format!("sha256:{}", sha256(values.concat().as_bytes()))
}

/// The user's KubeProxyConfiguration with kubeadm's values where it has none.
fn configuration(spec: &ClusterSpec) -> Result<(Value, Vec<String>), AddonError> {
    let mut config = match &spec.kube_proxy {
        document if is_default(document) => json!({}),
        document => document.clone(),
    };
    check(&config)?;
    let any = if spec.node.advertise_address.is_ipv6() { "::" } else { "0.0.0.0" };
    let networks: Vec<String> = spec.networking.pod_subnets.iter().map(ToString::to_string).collect();
    let mut defaults = vec![
        (&["bindAddress"][..], json!(any)),
        (&["clientConnection", "kubeconfig"], json!(KUBECONFIG_PATH)),
        (&["clusterCIDR"], json!(networks.join(","))),
    ];
    let row = release::find(&spec.kubernetes_version).row;
    let gate = row.dual_stack_gate.and_then(|gate| gate.split_once('='));
    let dual_stack = spec.networking.service_subnets.len().max(spec.networking.pod_subnets.len()) > 1;
    let gate = gate.filter(|_| dual_stack).map(|(name, _)| ["featureGates", name]);
    if let Some(path) = &gate {
        defaults.push((path, json!(true)));
    }
    if let Some(mode) = row.kube_proxy_mode {
        // Another mode is the user's choice, and no reason for a warning.
        set_default(&mut config, &["mode"], &json!(mode));
    }
    let mut warnings = Vec::new();
    if row.ipvs_deprecated && config["mode"] == "ipvs" {
        let instead = "use nftables, or iptables where the kernel is older than 5.13";
        warnings.push(format!("KubeProxyConfiguration: mode ipvs is deprecated since Kubernetes 1.35; {instead}"));
    }
    for (path, default) in defaults.into_iter().filter(|(_, default)| *default != "") {
        if let Some(own) = set_default(&mut config, path, &default) {
            let field = path.join(".");
            warnings.push(format!("KubeProxyConfiguration: {field} is {own}; this cluster expects {default}"));
        }
    }
    config["apiVersion"] = json!("kubeproxy.config.k8s.io/v1alpha1");
    config["kind"] = json!("KubeProxyConfiguration");
    Ok((config, warnings))
}

/// Sets the field at `path` where it has no value; returns the value it has where that is another.
fn set_default(config: &mut Value, path: &[&str], default: &Value) -> Option<Value> {
    let mut place = config;
    for field in path {
        if !place.is_object() {
            *place = Value::Object(Map::new());
        }
        let Value::Object(fields) = place else { return None };
        place = fields.entry(*field).or_insert(Value::Null);
    }
    if place.is_null() || *place == "" {
        *place = default.clone();
    }
    (place != default).then(|| place.clone())
}

/// How kube-proxy reaches the API server: with what it finds of its service account.
fn kubeconfig(spec: &ClusterSpec) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "default",
            "cluster": {
                "certificate-authority": format!("{CREDENTIALS}/ca.crt"),
                "server": format!("https://{}", spec.shared_endpoint()),
            },
        }],
        "contexts": [{"name": "default", "context": {"cluster": "default", "namespace": "default", "user": "default"}}],
        "current-context": "default",
        "users": [{"name": "default", "user": {"tokenFile": format!("{CREDENTIALS}/token")}}],
    })
}

/// What a field holds.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Text,
    Bool,
    Number,
    Texts,
    /// Anything below it is taken as it is.
    Free,
    Fields(&'static [(&'static str, Kind)]),
}

use Kind::{Bool, Fields, Free, Number, Text, Texts};

const SYNC: [(&str, Kind); 2] = [("minSyncPeriod", Text), ("syncPeriod", Text)];

/// The fields of `kubeproxy.config.k8s.io/v1alpha1 KubeProxyConfiguration`, of every release that has a row: durations
/// are texts.
const FIELDS: &[(&str, Kind)] = &[
    ("apiVersion", Text),
    ("kind", Text),
    ("featureGates", Free),
    ("clientConnection", Fields(&CLIENT_CONNECTION)),
    ("logging", Free),
    ("hostnameOverride", Text),
    ("bindAddress", Text),
    ("healthzBindAddress", Text),
    ("metricsBindAddress", Text),
    ("bindAddressHardFail", Bool),
    ("enableProfiling", Bool),
    ("showHiddenMetricsForVersion", Text),
    ("mode", Text),
    ("iptables", Fields(&IPTABLES)),
    ("ipvs", Fields(&IPVS)),
    ("nftables", Fields(&NFTABLES)),
    ("winkernel", Free),
    ("detectLocalMode", Text),
    ("detectLocal", Fields(&[("bridgeInterface", Text), ("interfaceNamePrefix", Text)])),
    ("clusterCIDR", Text),
    ("nodePortAddresses", Texts),
    ("oomScoreAdj", Number),
    ("conntrack", Fields(&CONNTRACK)),
    ("configSyncPeriod", Text),
    ("portRange", Text),
    ("windowsRunAsService", Bool),
    ("udpIdleTimeout", Text),
];

const CLIENT_CONNECTION: [(&str, Kind); 5] =
    [("kubeconfig", Text), ("acceptContentTypes", Text), ("contentType", Text), ("qps", Number), ("burst", Number)];

const IPTABLES: [(&str, Kind); 5] =
    [("masqueradeBit", Number), ("masqueradeAll", Bool), ("localhostNodePorts", Bool), SYNC[0], SYNC[1]];

const IPVS: [(&str, Kind); 8] = [
    SYNC[0],
    SYNC[1],
    ("scheduler", Text),
    ("excludeCIDRs", Texts),
    ("strictARP", Bool),
    ("tcpTimeout", Text),
    ("tcpFinTimeout", Text),
    ("udpTimeout", Text),
];

const NFTABLES: [(&str, Kind); 4] = [("masqueradeBit", Number), ("masqueradeAll", Bool), SYNC[0], SYNC[1]];

const CONNTRACK: [(&str, Kind); 7] = [
    ("maxPerCore", Number),
    ("min", Number),
    ("tcpEstablishedTimeout", Text),
    ("tcpCloseWaitTimeout", Text),
    ("tcpBeLiberal", Bool),
    ("udpTimeout", Text),
    ("udpStreamTimeout", Text),
];

/// Refuses what is no field, and what is of another type than the field: kube-proxy would not start with it, on every
/// node of the cluster.
///
/// # Errors
/// The first such field.
pub fn check(document: &Value) -> Result<(), AddonError> {
    check_fields(document, FIELDS, "").map_err(|problem| AddonError::KubeProxyField { problem })
}

fn check_fields(value: &Value, known: &[(&str, Kind)], path: &str) -> Result<(), String> {
    let Value::Object(fields) = value else { return Err(format!("{} is no object", named(path))) };
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let Some((_, kind)) = known.iter().find(|(known, _)| known == name) else {
            let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
            let near = yaml::nearest(name, &names).map(|near| format!("; did you mean {near}?")).unwrap_or_default();
            return Err(format!("there is no field {path}{near}"));
        };
        let is_text = |value: &Value| value.is_string();
        let (fits, wanted) = match kind {
            Text => (value.is_string(), "a text"),
            Bool => (value.is_boolean(), "true or false"),
            Number => (value.is_number(), "a number"),
            Texts => (value.as_array().is_some_and(|items| items.iter().all(is_text)), "a list of texts"),
            Free => (true, ""),
            Fields(known) => {
                check_fields(value, known, &path)?;
                continue;
            }
        };
        if !fits {
            return Err(format!("{path} is not {wanted}"));
        }
    }
    Ok(())
}

fn named(path: &str) -> &str {
    if path.is_empty() { "the document" } else { path }
}
