#![allow(clippy::expect_used, reason = "test support")]

//! Fakes that record calls and fail the n-th one by name, and sample values. Compiled for tests only.

pub mod golden;
pub mod machine;
pub mod tree;
pub mod runtime;
pub mod runtime_behaviour;
pub mod report;
pub mod service;

use std::path::PathBuf;
use std::time::Duration;

use crate::config::spec::*;

/// A resolved spec of one IPv4 node `cp1` at 10.0.0.5, Kubernetes v1.36.2, everything else at its default.
pub fn spec() -> ClusterSpec {
    let day = Duration::from_secs(24 * 3600);
    ClusterSpec {
        kubernetes_version: "v1.36.2".parse().expect("a valid version"),
        cluster_name: "kubernetes".into(),
        node: NodeSpec {
            name: "cp1".into(),
            hostname: "cp1".into(),
            advertise_address: [10, 0, 0, 5].into(),
            bind_port: 6443,
            cri_socket: None,
            taints: None,
            kubelet_extra_args: vec![],
            ignore_preflight_errors: vec![],
            image_pull_policy: PullPolicy::IfNotPresent,
        },
        control_plane_endpoint: None,
        certificates_dir: PathBuf::from("/etc/kubernetes/pki"),
        image_repository: "registry.k8s.io".into(),
        networking: Networking {
            service_subnets: vec!["10.96.0.0/12".parse().expect("a valid network")],
            pod_subnets: vec![],
            dns_domain: "cluster.local".into(),
        },
        etcd: EtcdSpec::Local(LocalEtcd {
            data_dir: PathBuf::from("/var/lib/etcd"),
            image_repository: None,
            image_tag: None,
            component: ComponentSpec::default(),
            server_cert_sans: vec![],
            peer_cert_sans: vec![],
        }),
        api_server: ComponentSpec::default(),
        api_server_cert_sans: vec![],
        controller_manager: ComponentSpec::default(),
        scheduler: ComponentSpec::default(),
        key_algorithm: KeyAlgorithm::EcdsaP256,
        certificate_validity: 365 * day,
        ca_certificate_validity: 3650 * day,
        patches_dir: None,
        timeouts: Timeouts::default(),
        skip_phases: vec![],
        feature_gates: vec![],
        kubelet: serde_json::json!({}),
        kubeboot: KubebootSpec::default(),
    }
}

/// Every path below `root`, relative and sorted, directories with a `/` behind them.
pub fn listing(root: &std::path::Path) -> Vec<String> {
    fn walk(root: &std::path::Path, dir: &std::path::Path, out: &mut Vec<String>) {
        for entry in std::fs::read_dir(dir).expect("a directory that can be read") {
            let path = entry.expect("an entry").path();
            let is_dir = path.symlink_metadata().is_ok_and(|meta| meta.is_dir());
            let name = path.strip_prefix(root).expect("a path below the root").display().to_string();
            out.push(if is_dir { format!("{name}/") } else { name });
            if is_dir {
                walk(root, &path, out);
            }
        }
    }
    let mut out = Vec::new();
    walk(root, root, &mut out);
    out.sort();
    out
}
