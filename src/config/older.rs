//! The ClusterConfiguration as the kubeadm of each release reads it in the cluster. What an older API has no field for is
//! left out.

use serde_json::{Map, Value, json};

use super::durations::GoDuration;
use super::print;
use super::spec::ClusterSpec;
use crate::release::ConfigApi;

/// Where arguments are.
const ARGUMENTS: &[&str] =
    &["/apiServer/extraArgs", "/controllerManager/extraArgs", "/scheduler/extraArgs", "/etcd/local/extraArgs"];

/// Fields that came with v1beta4: the object they are in, and their names.
const LATER: &[(&str, &[&str])] = &[
    ("", &["encryptionAlgorithm", "certificateValidityPeriod", "caCertificateValidityPeriod", "proxy"]),
    ("/dns", &["disabled"]),
    ("/apiServer", &["extraEnvs"]),
    ("/controllerManager", &["extraEnvs"]),
    ("/scheduler", &["extraEnvs"]),
    ("/etcd/local", &["extraEnvs"]),
    ("/etcd/external", &["httpEndpoints"]),
];

/// The ClusterConfiguration in a version of kubeadm's API.
pub fn cluster_configuration(spec: &ClusterSpec, api: ConfigApi) -> Value {
    let mut config = print::cluster_configuration(spec);
    if api >= ConfigApi::V1Beta4 {
        return config;
    }
    for (pointer, fields) in LATER {
        let object = config.pointer_mut(pointer).and_then(Value::as_object_mut);
        object.into_iter().for_each(|object| object.retain(|name, _| !fields.contains(&name.as_str())));
    }
    for arguments in ARGUMENTS {
        config.pointer_mut(arguments).into_iter().for_each(make_map);
    }
    let patience = GoDuration::from(spec.timeouts.control_plane_component_health_check);
    config["apiServer"]["timeoutForControlPlane"] = json!(patience.to_string());
    config["apiVersion"] = json!(api.api_version());
    if api == ConfigApi::V1Beta2 {
        config["dns"]["type"] = json!("CoreDNS");
    }
    config
}

/// A list of names and values as a map, in which the last of several values of a name counts.
fn make_map(list: &mut Value) {
    let pairs = list.as_array().into_iter().flatten();
    let map: Map<_, _> =
        pairs.filter_map(|arg| Some((arg["name"].as_str()?.to_owned(), arg["value"].clone()))).collect();
    *list = map.into();
}

/// The list of API servers that kubeadm kept beside the ClusterConfiguration up to 1.21.
pub fn cluster_status(spec: &ClusterSpec, api: ConfigApi) -> Value {
    let endpoint = json!({ "advertiseAddress": spec.node.advertise_address, "bindPort": spec.node.bind_port });
    json!({
        "apiVersion": api.api_version(),
        "kind": "ClusterStatus",
        "apiEndpoints": { &spec.node.name: endpoint },
    })
}
