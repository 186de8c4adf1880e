//! Options of the API server and the Node.

use serde_json::json;

use super::print;
use super::row::{AS_WRITTEN, OptionRow, joint, joint_field, number, path, switch, text};
use crate::agent::options::flag_value::{Given, Kind};
use crate::agent::options::values;

/// A value that adds to what was given before.
fn join(to: &mut Option<String>, more: Given) {
    let Some(more) = more.text() else { return };
    *to = Some(match to.take() {
        Some(before) => format!("{before},{more}"),
        None => more,
    });
}

pub(super) static ROWS: &[OptionRow] = &[
    path(|flags| &mut flags.node.kubeconfig, AS_WRITTEN)
        .flag("kubeconfig", "")
        .help("FILE", "Credentials for the API server, waited for if not there; without it the agent knows no cluster"),
    path(|flags| &mut flags.node.bootstrap_kubeconfig, AS_WRITTEN)
        .flag("bootstrap-kubeconfig", "")
        .help("FILE", "Credentials to ask for a first client certificate with, while --kubeconfig is not there"),
    path(|flags| &mut flags.node.cert_dir, AS_WRITTEN)
        .flag("cert-dir", "/var/lib/kubelet/pki")
        .help("DIR", "Directory of certificates that the cluster has signed")
        .otherwise("pki in the root directory"),
    text(
        |options, addresses| {
            options.node.ips = values::addresses(addresses)?;
            Ok(())
        },
        AS_WRITTEN,
    )
    .flag("node-ip", "")
    .help("IP", "Address of the node, or one of each family"),
    joint(Kind::Labels, |flags, given| flags.node.node_labels.extend(given.list()), AS_WRITTEN)
        .flag("node-labels", "")
        .help("LABELS", "Labels of the Node: name=value,name2=value2"),
    switch(|options| &mut options.node.register)
        .flag("register-node", "true")
        .help("BOOL", "Make the Node if there is none")
        .field("registerNode", "true"),
    joint(Kind::Taints, |flags, given| flags.node.register_with_taints = given.list(), print::taints)
        .flag("register-with-taints", "")
        .help("TAINTS", "Taints it is made with: key=value:effect,...")
        .field("registerWithTaints", "null"),
    joint(
        Kind::Duration,
        |flags, given| flags.node.node_status_update_frequency = given.text(),
        |options| print::duration(options.node.status_update),
    )
    .flag("node-status-update-frequency", "10s")
    .help("DURATION", "How often its status is computed")
    .field("nodeStatusUpdateFrequency", r#""10s""#),
    number(
        Kind::Int,
        |options, images| {
            options.node.max_images = usize::try_from(values::at_least_minus_one(images)?).ok();
            Ok(())
        },
        |options| options.node.max_images.map_or(json!(-1), |most| json!(most)),
    )
    .flag("node-status-max-images", "50")
    .help("N", "The most images in its status, -1 for all")
    .field("nodeStatusMaxImages", "50"),
    number(
        Kind::Int,
        |options, pods| {
            options.node.max_pods = values::natural(pods)?.map_or(options.node.max_pods, i32::unsigned_abs);
            Ok(())
        },
        |options| json!(options.node.max_pods),
    )
    .flag("max-pods", "110")
    .help("N", "The most pods of the node, as its status says")
    .field("maxPods", "110"),
    joint(
        Kind::Map,
        |flags, given| join(&mut flags.node.system_reserved, given),
        |options| json!(Some(&options.node.system_reserved).filter(|reserved| !reserved.is_empty())),
    )
    .flag("system-reserved", "")
    .help("RESOURCES", "What pods cannot have: cpu=100m,memory=1Gi")
    .field("systemReserved", "null"),
    joint(
        Kind::Map,
        |flags, given| join(&mut flags.node.kube_reserved, given),
        |options| json!(Some(&options.node.kube_reserved).filter(|reserved| !reserved.is_empty())),
    )
    .flag("kube-reserved", "")
    .help("RESOURCES", "What pods cannot have besides")
    .field("kubeReserved", "null"),
    joint(
        Kind::Thresholds,
        |flags, given| join(&mut flags.node.eviction_hard, given),
        |options| json!(options.node.eviction.written()),
    )
    .flag("eviction-hard", "")
    .help(
        "THRESHOLDS",
        "When memory and disk are short, which pods cannot have either: memory.available<100Mi,nodefs.available<10%",
    )
    .field(
        "evictionHard",
        r#"{"imagefs.available": "15%", "imagefs.inodesFree": "5%", "memory.available": "100Mi", "nodefs.available": "10%", "nodefs.inodesFree": "5%"}"#,
    ),
    text(
        |options, id| {
            options.node.provider_id = Some(id.to_owned());
            Ok(())
        },
        |options| json!(options.node.provider_id),
    )
    .flag("provider-id", "")
    .help("ID", "The machine's name at its cloud")
    .field("providerID", "null"),
    switch(|options| &mut options.node.rotate_certificates)
        .flag("rotate-certificates", "false")
        .help("BOOL", "Renew the client certificate before it expires")
        .field("rotateCertificates", "null"),
    switch(|options| &mut options.node.server_tls_bootstrap)
        .flag("rotate-server-certificates", "false")
        .help("BOOL", "Ask the cluster for the serving certificate")
        .field("serverTLSBootstrap", "null"),
    joint_field(Kind::Duration, |options| print::duration(options.node.status_report))
        .field("nodeStatusReportFrequency", r#""5m0s""#)
        .about("How often the status is sent although nothing has changed; that of nodeStatusUpdateFrequency where this alone is set"),
    number(
        Kind::Int,
        |options, seconds| {
            options.node.lease_seconds = values::natural(seconds)?.unwrap_or(options.node.lease_seconds);
            Ok(())
        },
        |options| json!(options.node.lease_seconds),
    )
    .field("nodeLeaseDurationSeconds", "40")
        .about("Seconds that the Node's lease lasts"),
    joint_field(Kind::Bool, AS_WRITTEN).field("mergeDefaultEvictionSettings", "false")
        .about("Whether the default thresholds stand for those that evictionHard does not name"),
];
