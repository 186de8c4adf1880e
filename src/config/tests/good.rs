use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use super::spec::*;
use super::*;

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn empty_documents_give_the_defaults() {
    let mut expected = load(&Input { file: None, flags: Flags::default(), host: host() }).unwrap();
    // kubeadm describes the token of a run without a file only.
    expected.spec.bootstrap_tokens[0].description.clear();
    for file in [
        init(""),
        format!("# nothing\n---\n---\n{}---\n", cluster("")),
        cluster("etcd:\nnetworking: null\napiServer: {}\n"),
    ] {
        let file = file.as_str();
        assert_eq!(good(file), expected, "{file}");
    }
}

#[test]
fn a_file_with_everything_resolves_field_by_field() {
    let loaded = good(include_str!("everything.yaml"));
    let spec = &loaded.spec;
    assert!(loaded.dry_run);
    assert_eq!(spec.kubernetes_version.to_string(), "v1.36.2");
    assert_eq!((spec.cluster_name.as_str(), spec.image_repository.as_str()), ("prod", "registry.example.com/k8s"));
    assert_eq!((&spec.node.name[..], &spec.node.hostname[..], spec.node.bind_port), ("cp1.example.com", "cp1", 8443));
    assert_eq!(spec.node.cri_socket.as_deref(), Some("unix:///run/crio/crio.sock"));
    let taint = &spec.node.taints.as_ref().unwrap()[0];
    assert_eq!((&taint.key[..], taint.value.as_deref(), &taint.effect[..]), ("dedicated", Some("cp"), "NoExecute"));
    let args =
        [Arg { name: "node-ip".into(), value: "10.0.0.5".into() }, Arg { name: "v".into(), value: String::new() }];
    assert_eq!(spec.node.kubelet_extra_args, args);
    assert_eq!(spec.node.ignore_preflight_errors, ["numcpu", "mem"]);
    assert_eq!(spec.node.image_pull_policy, PullPolicy::Never);
    assert_eq!(spec.control_plane_endpoint.as_ref().unwrap().to_string(), "[fd00::10]:8443");
    assert_eq!(
        (spec.patches_dir.clone(), &spec.skip_phases[..]),
        (Some("/patches".into()), &["addon/kube-proxy".into()][..])
    );
    assert_eq!(spec.key_algorithm, KeyAlgorithm::Rsa3072);
    assert_eq!((spec.certificate_validity, spec.ca_certificate_validity), (2160 * HOUR, 43800 * HOUR));
    assert_eq!(spec.timeouts.control_plane_component_health_check, Duration::from_secs(90));
    assert_eq!(spec.timeouts.upgrade_manifests, Duration::from_secs(600));
    assert_eq!(spec.timeouts.discovery, Timeouts::default().discovery);
    assert_eq!(spec.certificates_dir, PathBuf::from("/pki"));
    assert_eq!(spec.api_server_cert_sans, ["*.example.com", "203.0.113.7"]);
    assert_eq!(spec.api_server.extra_args.iter().map(|arg| &arg.value[..]).collect::<Vec<_>>(), ["2", "4"]);
    assert!(spec.api_server.extra_volumes[0].read_only);
    let source = spec.scheduler.extra_envs[0].value_from.as_ref().unwrap();
    assert_eq!(source.field_ref.as_ref().unwrap().field_path, "spec.nodeName");
    let etcd = spec.etcd.local().unwrap();
    assert_eq!((etcd.data_dir.to_str(), etcd.image_tag.as_deref()), (Some("/data/etcd"), Some("3.6.8-0")));
    assert_eq!((&etcd.server_cert_sans[0][..], &etcd.peer_cert_sans[0][..]), ("etcd.example.com", "10.9.9.9"));
    assert_eq!(etcd.component.extra_envs[0].value.as_deref(), Some("2"));
    let kubeboot = KubebootSpec {
        node_agent: NodeAgent::Kubelet,
        docker_host: Some("unix:///run/docker.sock".into()),
        surge: Surge { api_server: false },
    };
    assert_eq!(spec.kubeboot, kubeboot);
    let expected = [
        "c.yaml:9:14: nodeRegistration.criSocket: taken as unix:///run/crio/crio.sock; write it with its scheme",
        "c.yaml:28:36: featureGates.NodeLocalCRISocket: always on; the line can go",
    ];
    assert_eq!(loaded.warnings, expected);
}

#[test]
fn dual_stack_and_node_fields_in_the_wrong_place_load_as_kubeadm_loads_them() {
    let loaded = good(
        "\
apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
localAPIEndpoint: {advertiseAddress: 10.0.0.5}
taints: []
kubeletExtraArgs: [{name: node-ip, value: '10.0.0.5,fd00::5'}]
criSocket: unix:///run/crio/crio.sock
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
networking:
  podSubnet: 10.244.0.0/16,fd00:10:244::/56
  serviceSubnet: 10.96.0.0/16,fd00:10:96::/112
---
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
cgroupDriver: cgroupfs
maxPods: 0372
serverTLSBootstrap: on
evictionHard: null
",
    );
    let networks = |nets: &[ipnet::IpNet]| nets.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(networks(&loaded.spec.networking.pod_subnets), ["10.244.0.0/16", "fd00:10:244::/56"]);
    assert_eq!(networks(&loaded.spec.networking.service_subnets), ["10.96.0.0/16", "fd00:10:96::/112"]);
    assert_eq!((&loaded.spec.node.taints, &loaded.spec.node.cri_socket), (&None, &None));
    let kubelet = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "cgroupDriver": "cgroupfs",
        "maxPods": 250,
        "serverTLSBootstrap": true,
        "evictionHard": null,
    });
    assert_eq!(loaded.spec.kubelet, kubelet);
    let expected = [
        "c.yaml:4:1: taints belongs below nodeRegistration; ignored, as kubeadm does",
        "c.yaml:5:1: kubeletExtraArgs belongs below nodeRegistration; ignored, as kubeadm does",
        "c.yaml:6:1: criSocket belongs below nodeRegistration; ignored, as kubeadm does",
    ];
    assert_eq!(loaded.warnings, expected);
}

#[test]
fn an_ipv6_node_loads() {
    let file = init("localAPIEndpoint: {advertiseAddress: 'fd00::5'}\n---\n")
        + &cluster("networking: {serviceSubnet: 'fd00:10:96::/112,10.96.0.0/12', podSubnet: 'fd00:10:244::/56'}");
    let spec = good(&file).spec;
    assert_eq!((spec.local_endpoint().to_string(), spec.loopback()), ("[fd00::5]:6443".to_owned(), "::1"));
}

#[test]
fn external_etcd_loads_with_and_without_tls() {
    let spec = good(&cluster("etcd: {external: {endpoints: ['http://etcd.example.com:2379']}}")).spec;
    let plain = ExternalEtcd {
        endpoints: vec!["http://etcd.example.com:2379".into()],
        http_endpoints: vec![],
        ca_file: None,
        cert_file: None,
        key_file: None,
    };
    assert_eq!(spec.etcd, EtcdSpec::External(plain));
    let body = "etcd: {external: {endpoints: ['https://[fd00::1]:2379', 'https://b:2379'], caFile: /a/ca.crt, \
                certFile: /a/c.crt, keyFile: /a/c.key}}";
    let EtcdSpec::External(tls) = good(&cluster(body)).spec.etcd else { panic!("not external") };
    let files = [tls.ca_file, tls.cert_file, tls.key_file].map(|file| file.unwrap().display().to_string());
    assert_eq!((tls.endpoints.len(), files), (2, ["/a/ca.crt", "/a/c.crt", "/a/c.key"].map(String::from)));
}

#[test]
fn taints_may_be_absent_null_or_empty() {
    assert_eq!(good(&init("nodeRegistration: {taints: null}")).spec.node.taints, None);
    assert_eq!(good(&init("nodeRegistration: {taints: []}")).spec.node.taints, Some(vec![]));
}

#[test]
fn endpoints_take_every_form_of_host_and_port() {
    let cases = [
        ("k8s.example.com", "k8s.example.com:6443"),
        ("k8s.example.com:443", "k8s.example.com:443"),
        ("10.0.0.1", "10.0.0.1:6443"),
        ("10.0.0.1:1", "10.0.0.1:1"),
        ("fd00::1", "[fd00::1]:6443"),
        ("'[fd00::1]:443'", "[fd00::1]:443"),
    ];
    for (text, expected) in cases {
        let spec = good(&cluster(&format!("controlPlaneEndpoint: {text}"))).spec;
        assert_eq!(spec.shared_endpoint().to_string(), expected);
    }
}

#[test]
fn labels_are_the_newest_known_release_and_never_a_question_to_the_network() {
    let default = crate::release::DEFAULT_VERSION;
    let cases = [
        ("stable", default),
        ("stable-1", default),
        ("latest", default),
        ("latest-1", default),
        ("stable-1.37", default),
        ("latest-1.36", "v1.36.4"),
        ("stable-1.35", "v1.35.9"),
        ("stable-1.20", "v1.20.15"),
    ];
    for (label, version) in cases {
        let loaded = good(&cluster(&format!("kubernetesVersion: {label}")));
        assert_eq!(loaded.spec.kubernetes_version.to_string(), version);
        let said = format!("is taken as {version}, the newest known here; the network is not asked");
        assert_eq!(loaded.warnings, [format!("c.yaml:3:20: kubernetesVersion: {label} {said}")]);
    }
    assert_eq!(good(&cluster("")).warnings, Vec::<String>::new());
}

#[test]
fn what_has_no_effect_is_warned_of_where_it_is_written() {
    let file = init("bootstrapTokens: [{token: abcdef.0123456789abcdef, ttl: 0s}]\n---\n")
        + &cluster(
            "dns: {disabled: true}\ncertificateValidityPeriod: 87600h\ncaCertificateValidityPeriod: 8760h\n---\n",
        )
        + "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: ipvs\n---\n"
        + "apiVersion: kubeadm.k8s.io/v1beta4\nkind: JoinConfiguration\nanything: goes\n";
    let expected = [
        "c.yaml:8:28: certificateValidityPeriod: 87600h0m0s is longer than the recommended 8760h0m0s",
        "c.yaml:8:28: certificateValidityPeriod: certificates outlive the CA that signs them",
        "c.yaml:16:7: kind: JoinConfiguration is ignored: it is for join",
    ];
    let loaded = good(&file);
    assert_eq!(loaded.warnings, expected);
    assert_eq!(loaded.spec.kube_proxy["mode"], "ipvs");
}

#[test]
fn v1beta3_loads_as_the_v1beta4_it_migrates_to() {
    let old = "\
apiVersion: kubeadm.k8s.io/v1beta3
kind: ClusterConfiguration
kubernetesVersion: v1.36.2
apiServer:
  timeoutForControlPlane: 6m0s
  extraArgs: {v: '4', audit-log-path: /var/log/audit.log}
etcd: {local: {extraArgs: {quota-backend-bytes: '1'}}}
---
apiVersion: kubeadm.k8s.io/v1beta3
kind: InitConfiguration
nodeRegistration: {kubeletExtraArgs: {node-ip: 10.0.0.5}}
";
    let new = init(
        "nodeRegistration: {kubeletExtraArgs: [{name: node-ip, value: 10.0.0.5}]}\n\
         timeouts: {controlPlaneComponentHealthCheck: 6m}\n---\n",
    ) + &cluster(
        "kubernetesVersion: v1.36.2\n\
         apiServer: {extraArgs: [{name: audit-log-path, value: /var/log/audit.log}, {name: v, value: '4'}]}\n\
         etcd: {local: {extraArgs: [{name: quota-backend-bytes, value: '1'}]}}\n",
    );
    let (old, new) = (good(old), good(&new));
    assert_eq!(old.spec, new.spec);
    let said = "apiVersion: kubeadm.k8s.io/v1beta3 is deprecated; `kubeboot config migrate` makes v1beta4 of it";
    assert_eq!(old.warnings, [format!("c.yaml:1:13: {said}"), format!("c.yaml:9:13: {said}")]);
    let alone = good(
        "apiVersion: kubeadm.k8s.io/v1beta3\nkind: ClusterConfiguration\napiServer: {timeoutForControlPlane: 30s}\n",
    );
    assert_eq!(alone.spec.timeouts.control_plane_component_health_check, Duration::from_secs(30));
}

#[test]
fn json_loads_too() {
    let file =
        "{\"apiVersion\": \"kubeadm.k8s.io/v1beta4\", \"kind\": \"ClusterConfiguration\",\n\t\"clusterName\": \"j\"}";
    assert_eq!(good(file).spec.cluster_name, "j");
}

#[test]
fn a_node_mask_argument_makes_room_for_narrow_and_wide_pod_networks() {
    let with = |subnet: &str, name: &str, value: &str| {
        let args = format!("controllerManager: {{extraArgs: [{{name: {name}, value: '{value}'}}]}}");
        good(&cluster(&format!("networking: {{podSubnet: '{subnet}'}}\n{args}")))
    };
    with("10.244.0.0/26", "node-cidr-mask-size", "28");
    with("10.0.0.0/7", "node-cidr-mask-size-ipv4", "22");
    with("fd00::/32,10.244.0.0/16", "node-cidr-mask-size-ipv6", "48");
    with("10.244.0.0/28", "allocate-node-cidrs", "false");
}

#[test]
fn tokens_keep_what_they_say_and_get_kubeadms_defaults_for_the_rest() {
    use crate::config::bootstrap_token::{Lifetime, NODE_GROUP};
    let body = "bootstrapTokens:\n- {token: abcdef.0123456789abcdef, description: mine, ttl: 0s}\n- {ttl: 1h, usages: \
                [signing]}\n- {expires: '2030-01-02T15:04:05Z', groups: ['system:bootstrappers:a']}\n";
    let tokens = good(&init(body)).spec.bootstrap_tokens;
    let hour = std::time::Duration::from_secs(3600);
    let until = Lifetime::Until("2030-01-02T15:04:05Z".parse().unwrap());
    let lifetimes: Vec<_> = tokens.iter().map(|token| token.lifetime).collect();
    assert_eq!(lifetimes, [Lifetime::Endless, Lifetime::For(hour), until]);
    assert_eq!(tokens[0].token, Some("abcdef.0123456789abcdef".parse().unwrap()));
    assert_eq!((tokens[0].description.as_str(), tokens[1].token.as_ref()), ("mine", None));
    assert_eq!((&tokens[1].usages, &tokens[1].groups), (&vec!["signing".to_owned()], &vec![]));
    assert_eq!(tokens[0].groups, [NODE_GROUP]);
    assert_eq!(tokens[2].groups, ["system:bootstrappers:a"]);
}

#[test]
fn addons_are_disabled_by_their_fields_and_by_skipping_their_phases() {
    let disabled = |file: &str| {
        let spec = good(file).spec;
        (spec.dns.disabled, spec.proxy.disabled)
    };
    assert_eq!(disabled(&cluster("")), (false, false));
    assert_eq!(disabled(&cluster("dns: {disabled: true}")), (true, false));
    assert_eq!(disabled(&cluster("proxy: {disabled: true}")), (false, true));
    assert_eq!(disabled(&init("skipPhases: [addon]")), (true, true));
    assert_eq!(disabled(&init("skipPhases: [addon/kube-proxy, addon/corednsx]")), (false, true));
}

#[test]
fn no_particular_address_is_the_one_of_the_default_route() {
    for any in ["0.0.0.0", "\"::\""] {
        let spec = good(&init(&format!("localAPIEndpoint: {{advertiseAddress: {any}}}"))).spec;
        assert_eq!(Some(spec.node.advertise_address), host().address, "{any}");
    }
}
