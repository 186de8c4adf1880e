use super::*;
use crate::config::older::{cluster_configuration, cluster_status};
use crate::release::ConfigApi;
use crate::yaml;

/// The cluster's part of a spec: everything else is this node's, or this run's.
fn without_node(mut spec: ClusterSpec, like: &ClusterSpec) -> ClusterSpec {
    spec.node = like.node.clone();
    spec.patches_dir = like.patches_dir.clone();
    spec.timeouts = like.timeouts;
    spec.skip_phases = like.skip_phases.clone();
    spec.bootstrap_tokens = like.bootstrap_tokens.clone();
    spec.kubeboot = like.kubeboot.clone();
    spec
}

fn printed(spec: &ClusterSpec, api: ConfigApi) -> String {
    yaml::to_string(&cluster_configuration(spec, api)).unwrap()
}

#[test]
fn defaults_print_as_kubeadm_stores_them() {
    let expected = "\
apiServer: {}
apiVersion: kubeadm.k8s.io/v1beta4
caCertificateValidityPeriod: 87600h0m0s
certificateValidityPeriod: 8760h0m0s
certificatesDir: /etc/kubernetes/pki
clusterName: kubernetes
controllerManager: {}
dns: {}
encryptionAlgorithm: ECDSA-P256
etcd:
  local:
    dataDir: /var/lib/etcd
imageRepository: registry.k8s.io
kind: ClusterConfiguration
kubernetesVersion: v1.36.2
networking:
  dnsDomain: cluster.local
  serviceSubnet: 10.96.0.0/12
proxy: {}
scheduler: {}
";
    assert_eq!(printed(&crate::testing::spec(), ConfigApi::V1Beta4), expected);
}

#[test]
fn what_is_printed_loads_as_the_same_cluster() {
    let external = cluster(
        "etcd: {external: {endpoints: ['https://a:2379'], httpEndpoints: ['https://a:2381'], caFile: /ca, certFile: \
         /crt, keyFile: /key}}\ndns: {imageTag: v1, disabled: true}\nproxy: {disabled: true}\n",
    );
    let dual = cluster("networking: {podSubnet: '10.244.0.0/16,fd00:10:244::/56', serviceSubnet: 10.96.0.0/16}\n");
    for file in [include_str!("everything.yaml"), &external, &dual, &cluster("")] {
        let spec = good(file).spec;
        let text = printed(&spec, ConfigApi::V1Beta4);
        let again = without_node(good(&text).spec, &spec);
        assert_eq!(again, spec, "{text}");
        assert_eq!(printed(&again, ConfigApi::V1Beta4), text);
    }
}

#[test]
fn older_kubeadms_get_what_they_can_read() {
    let spec = good(include_str!("everything.yaml")).spec;
    let value = cluster_configuration(&spec, ConfigApi::V1Beta2);
    assert_eq!(value["apiServer"]["extraArgs"], serde_json::json!({"v": "4"}));
    assert_eq!(value["apiServer"]["timeoutForControlPlane"], "1m30s");
    assert_eq!(value["dns"]["type"], "CoreDNS");
    for later in ["encryptionAlgorithm", "proxy", "certificateValidityPeriod"] {
        assert_eq!(value.get(later), None, "{later}");
    }
    let again = good(&printed(&spec, ConfigApi::V1Beta3)).spec;
    assert_eq!(again.networking, spec.networking);
    let patience = again.timeouts.control_plane_component_health_check;
    assert_eq!(patience, std::time::Duration::from_secs(90));
    let status = cluster_status(&spec, ConfigApi::V1Beta2);
    assert_eq!(status["apiEndpoints"]["cp1.example.com"]["bindPort"], 8443);
}
