//! The manifests as wholes: golden files, values that are hostile to YAML, and the rules that several components share.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, EnvVar};
use serde_json::json;

use super::*;
use crate::config::spec::{Arg, ComponentSpec, ExternalEtcd, HostPathMount, LocalEtcd, NodeAgent};
use crate::host::tree::MemoryTree;
use crate::kubelet;
use crate::testing::golden::{assert_golden, dump};
use crate::testing::spec;

fn host(exists: &dyn Fn(&Path) -> bool) -> Host<'_> {
    Host { exists, proxy_env: vec![] }
}

fn bare() -> Host<'static> {
    host(&|_| false)
}

fn arg(name: &str, value: &str) -> Arg {
    Arg { name: name.into(), value: value.into() }
}

fn variable(name: &str, value: &str) -> EnvVar {
    EnvVar { name: name.into(), value: Some(value.into()), ..EnvVar::default() }
}

fn local(spec: &mut ClusterSpec) -> &mut LocalEtcd {
    match &mut spec.etcd {
        EtcdSpec::Local(local) => local,
        EtcdSpec::External(_) => unreachable!(),
    }
}

fn container(spec: &ClusterSpec, component: &str, host: &Host<'_>) -> Container {
    let manifest = render(spec, component, host).unwrap();
    manifest.pod.spec.unwrap().containers.into_iter().find(|container| container.name == component).unwrap()
}

fn command(spec: &ClusterSpec, component: &str) -> Vec<String> {
    container(spec, component, &bare()).command.unwrap()
}

/// Every file a node gets from `spec`, compared with `tests/golden/node/NAME.txt`.
fn golden(name: &str, spec: &ClusterSpec, host: &Host<'_>) {
    let mut tree = MemoryTree::empty();
    for component in wanted(spec) {
        write(&render(spec, component, host).unwrap(), &mut tree).unwrap();
    }
    kubelet::files::write(spec, false, &mut tree).unwrap();
    kubelet::unit::write(spec, Path::new("/usr/local/bin/kubeboot"), &mut tree).unwrap();
    assert_golden(&format!("node/{name}.txt"), &dump(&tree));
}

#[test]
fn golden_defaults() {
    golden("defaults", &spec(), &bare());
}

#[test]
fn golden_ipv6() {
    let mut spec = spec();
    spec.node.advertise_address = "fd00::5".parse().unwrap();
    spec.networking.service_subnets = vec!["fd00:10:96::/112".parse().unwrap()];
    spec.networking.pod_subnets = vec!["fd00:10:244::/56".parse().unwrap()];
    golden("ipv6", &spec, &bare());
}

fn dual_stack() -> ClusterSpec {
    let mut spec = spec();
    spec.networking.service_subnets = vec!["10.96.0.0/16".parse().unwrap(), "fd00:10:96::/112".parse().unwrap()];
    spec.networking.pod_subnets = vec!["10.244.0.0/16".parse().unwrap(), "fd00:10:244::/56".parse().unwrap()];
    spec.node.kubelet_extra_args = vec![arg("node-ip", "10.0.0.5,fd00::5")];
    spec
}

#[test]
fn golden_dual_stack() {
    golden("dual-stack", &dual_stack(), &bare());
}

#[test]
fn golden_external_etcd() {
    let mut spec = spec();
    spec.etcd = EtcdSpec::External(ExternalEtcd {
        endpoints: vec!["https://10.1.0.1:2379".into(), "https://10.1.0.2:2379".into()],
        http_endpoints: vec![],
        ca_file: Some("/etc/etcd/ca.crt".into()),
        cert_file: Some("/etc/etcd/client.crt".into()),
        key_file: Some("/etc/etcd/client.key".into()),
    });
    golden("external-etcd", &spec, &bare());
}

#[test]
fn golden_extra_args_volumes_and_envs() {
    let mut spec = spec();
    spec.api_server = ComponentSpec {
        extra_args: vec![
            arg("audit-log-path", "/var/log/kubernetes/audit.log"),
            arg("authorization-mode", "Node,RBAC,Webhook"),
            arg("service-account-issuer", "https://one"),
            arg("service-account-issuer", "https://two"),
        ],
        extra_volumes: vec![HostPathMount {
            name: "audit".into(),
            host_path: "/var/log/kubernetes".into(),
            mount_path: "/var/log/kubernetes".into(),
            read_only: false,
            path_type: "DirectoryOrCreate".into(),
        }],
        extra_envs: vec![
            serde_json::from_value(json!({
                "name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}
            }))
            .unwrap(),
        ],
    };
    spec.controller_manager.extra_args = vec![arg("node-cidr-mask-size", "25"), arg("bind-address", "0.0.0.0")];
    spec.scheduler.extra_args = vec![arg("v", "4"), arg("bind-address", "10.0.0.5")];
    spec.scheduler.extra_envs = vec![variable("GOGC", "50"), variable("HTTP_PROXY", "")];
    local(&mut spec).component.extra_args = vec![arg("listen-metrics-urls", "https://10.0.0.5:9381,http://[::1]:1")];
    local(&mut spec).component.extra_envs = vec![variable("ETCD_LOG_LEVEL", "debug")];
    let proxy_env = crate::host::environment::proxies_among([
        ("HTTP_PROXY".into(), "http://proxy:3128".into()),
        ("no_proxy".into(), "10.0.0.0/8,.svc".into()),
        ("HTTPS_PROXY".into(), String::new()),
        ("PATH".into(), "/bin".into()),
    ]);
    golden("extra-args-volumes-envs", &spec, &Host { exists: &|_| false, proxy_env });
}

#[test]
fn golden_custom_networks() {
    let mut spec = spec();
    spec.cluster_name = "prod".into();
    spec.networking.dns_domain = "corp.local".into();
    spec.networking.service_subnets = vec!["10.100.0.0/16".parse().unwrap()];
    spec.networking.pod_subnets = vec!["10.244.0.0/16".parse().unwrap()];
    spec.node.bind_port = 8443;
    golden("custom-networks", &spec, &bare());
}

#[test]
fn golden_custom_repository() {
    let mut spec = spec();
    spec.image_repository = "registry.example.com:5000/k8s".into();
    spec.kubernetes_version = "v1.36.0-rc.1+build".parse().unwrap();
    local(&mut spec).image_repository = Some("quay.io/coreos".into());
    local(&mut spec).image_tag = Some("v3.5.21".into());
    golden("custom-repository", &spec, &bare());
}

#[test]
fn golden_control_plane_endpoint() {
    let mut spec = spec();
    spec.control_plane_endpoint = Some(crate::config::spec::Endpoint { host: "k8s.example.com".into(), port: 6443 });
    spec.node.hostname = "machine".into();
    spec.node.cri_socket = Some("unix:///run/crio/crio.sock".into());
    spec.kubelet = json!({"maxPods": 250, "cgroupDriver": "cgroupfs", "serverTLSBootstrap": true});
    golden("control-plane-endpoint", &spec, &bare());
}

#[test]
fn golden_v1_20() {
    let mut spec = spec();
    spec.kubernetes_version = "v1.20.2".parse().unwrap();
    golden("v1.20", &spec, &bare());
}

#[test]
fn golden_v1_20_dual_stack() {
    let mut spec = dual_stack();
    spec.kubernetes_version = "v1.20.2".parse().unwrap();
    golden("v1.20-dual-stack", &spec, &bare());
}

#[test]
fn only_an_api_server_under_our_own_agent_asks_for_a_successor_beside_it() {
    let (mut off, mut kubelet) = (spec(), spec());
    off.kubeboot.surge.api_server = false;
    kubelet.kubeboot.node_agent = NodeAgent::Kubelet;
    let words = ["kubeboot.dev/surge", "permit-port-sharing", "shutdown-delay", "shutdown-watch"];
    let said = |spec: &ClusterSpec, component: &str| {
        let yaml = render(spec, component, &bare()).unwrap().yaml;
        words.iter().filter(|word| yaml.contains(**word)).count()
    };
    assert_eq!(said(&spec(), "kube-apiserver"), 4);
    for component in wanted(&off) {
        assert_eq!((said(&off, component), said(&kubelet, component)), (0, 0), "{component}");
    }
    assert_eq!(said(&spec(), "kube-scheduler"), 0);
    let mut own = spec();
    own.api_server.extra_args = vec![arg("permit-port-sharing", "false")];
    assert!(!render(&own, "kube-apiserver", &bare()).unwrap().yaml.contains("permit-port-sharing=true"));
}

#[test]
fn golden_v1_34() {
    let mut spec = spec();
    spec.kubernetes_version = "v1.34.3".parse().unwrap();
    golden("v1.34", &spec, &bare());
}

#[test]
fn golden_v1_37() {
    let mut spec = spec();
    spec.kubernetes_version = "v1.37.0".parse().unwrap();
    golden("v1.37", &spec, &bare());
}

#[test]
fn golden_etcd_data_dir_and_pki_elsewhere() {
    let mut spec = spec();
    local(&mut spec).data_dir = "/data/etcd".into();
    local(&mut spec).component.extra_args = vec![arg("quota-backend-bytes", "8589934592")];
    spec.certificates_dir = "/srv/pki".into();
    spec.kubeboot.node_agent = NodeAgent::Kubelet;
    golden("etcd-data-dir-and-pki-elsewhere", &spec, &bare());
}

#[test]
fn golden_external_ca_on_another_distribution() {
    let exists = |path: &Path| {
        ["/etc/kubernetes/pki/ca.crt", "/etc/pki/ca-trust", "/etc/pki/tls/certs", "/usr/share/ca-certificates"]
            .iter()
            .any(|there| path == Path::new(there))
    };
    golden("external-ca-on-another-distribution", &spec(), &host(&exists));
}

#[test]
fn golden_patches() {
    let mut spec = spec();
    spec.patches_dir = Some(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/patches"));
    golden("patches", &spec, &bare());
}

/// Words that some YAML reader or writer takes for something else.
const HOSTILE: [&str; 24] = [
    "on",
    "Yes",
    "~",
    "null",
    "0644",
    "1_000",
    "12:30",
    "a: b",
    "- x",
    "#x",
    "it's \"q\"",
    "a\nb: c",
    "\\n",
    "{{ x }}",
    "%!&*",
    "é\u{7f}\u{85}\u{1f600}",
    "yes",
    "0x1F",
    "0o17",
    "1e3",
    "2001-01-01",
    ".inf",
    "18446744073709551616",
    "a\u{2028}b\r\nc\t\u{fffe}\n\n",
];

#[test]
fn hostile_values_come_out_of_every_template_as_they_went_in() {
    for value in HOSTILE {
        let mut spec = spec();
        let mount = HostPathMount {
            name: value.into(),
            host_path: format!("/{value}"),
            mount_path: format!("/m/{value}"),
            read_only: true,
            path_type: value.into(),
        };
        let extra = ComponentSpec {
            extra_args: vec![arg("x", value)],
            extra_volumes: vec![mount.clone()],
            extra_envs: vec![variable("X", value)],
        };
        spec.image_repository = value.into();
        spec.node.name = value.into();
        (spec.api_server, spec.controller_manager, spec.scheduler) = (extra.clone(), extra.clone(), extra.clone());
        local(&mut spec).component = extra;
        for component in COMPONENTS {
            let pod = render(&spec, component, &bare()).unwrap();
            let read: Pod = yaml::from_str(&pod.yaml).unwrap();
            assert_eq!(read, pod.pod, "{component}: {value:?}");
            let container = container(&spec, component, &bare());
            assert!(container.image.unwrap().starts_with(&format!("{value}/{component}:")), "{component}: {value:?}");
            assert!(container.command.unwrap().contains(&format!("--x={value}")), "{component}: {value:?}");
            assert_eq!(container.env.unwrap(), [variable("X", value)], "{component}");
            let mounts = container.volume_mounts.unwrap();
            assert!(mounts.iter().any(|m| m.mount_path == mount.mount_path && m.name == value), "{component}");
            let volumes = read.spec.unwrap().volumes.unwrap();
            let volume = volumes.into_iter().find(|v| v.name == value).unwrap().host_path.unwrap();
            assert_eq!((volume.path.as_str(), volume.type_.as_deref()), (mount.host_path.as_str(), Some(value)));
        }
    }
}

#[test]
fn unknown_authorizers_are_left_out_and_a_file_for_authorization_excludes_the_flag() {
    let modes = |extra: Vec<Arg>| -> Vec<String> {
        let mut spec = spec();
        spec.api_server.extra_args = extra;
        command(&spec, API_SERVER).into_iter().filter(|arg| arg.starts_with("--authorization-mode")).collect()
    };
    assert_eq!(modes(vec![arg("authorization-mode", "Foo,RBAC")]), ["--authorization-mode=RBAC"]);
    assert_eq!(modes(vec![arg("authorization-mode", "Foo")]), ["--authorization-mode=Node,RBAC"]);
    assert!(modes(vec![arg("authorization-config", "/x")]).is_empty());
}

#[test]
fn startup_probes_allow_as_many_failures_as_the_health_check_has_time_for() {
    let mut spec = spec();
    spec.timeouts.control_plane_component_health_check = std::time::Duration::from_secs(61);
    for component in COMPONENTS {
        let probe = container(&spec, component, &bare()).startup_probe.unwrap();
        assert_eq!(probe.failure_threshold, Some(7), "{component}");
    }
}

#[test]
fn the_api_server_goes_where_etcd_is_told_to_advertise_itself() {
    let mut spec = spec();
    local(&mut spec).component.extra_args = vec![arg("advertise-client-urls", "https://10.0.0.9:2379")];
    assert!(command(&spec, API_SERVER).contains(&"--etcd-servers=https://10.0.0.9:2379".to_owned()));
}

#[test]
fn an_external_etcd_without_tls_gets_no_tls_flags_and_no_manifest() {
    let mut spec = spec();
    spec.etcd = EtcdSpec::External(ExternalEtcd {
        endpoints: vec!["http://10.1.0.1:2379".into()],
        http_endpoints: vec![],
        ca_file: None,
        cert_file: None,
        key_file: None,
    });
    let command = command(&spec, API_SERVER);
    assert!(!command.iter().any(|arg| arg.starts_with("--etcd-ca") || arg.starts_with("--etcd-cert")));
    assert!(matches!(render(&spec, ETCD, &bare()), Err(ManifestError::ExternalEtcd)));
    assert_eq!(wanted(&spec), COMPONENTS[1..]);
}

#[test]
fn a_manifest_knows_what_its_volumes_make_on_the_node() {
    let manifest = render(&spec(), ETCD, &bare()).unwrap();
    assert_eq!(manifest.made_dirs, [Path::new("/etc/kubernetes/pki/etcd"), Path::new("/var/lib/etcd")]);
}

#[test]
fn another_image_changes_that_and_nothing_else() {
    let manifest = render(&spec(), SCHEDULER, &bare()).unwrap();
    let other = manifest.clone().with_image("registry.example.com/x:1").unwrap();
    let expected = manifest.yaml.replace("registry.k8s.io/kube-scheduler:v1.36.2", "registry.example.com/x:1");
    assert_eq!(other.yaml, expected);
    assert_ne!(other.yaml, manifest.yaml);
}

#[test]
fn a_component_that_is_none_is_refused() {
    assert!(matches!(render(&spec(), "kube-proxy", &bare()), Err(ManifestError::Unknown { .. })));
}

fn patched(file: &str, text: &str) -> Result<Manifest, ManifestError> {
    let dir = tempfile::tempdir().unwrap();
    crate::host::fs::write_file(&dir.path().join(file), text.as_bytes(), 0o644).unwrap();
    let mut spec = spec();
    spec.patches_dir = Some(dir.path().to_owned());
    render(&spec, SCHEDULER, &bare())
}

#[test]
fn a_patch_must_leave_a_pod_of_known_fields() {
    let unknown = patched("kube-scheduler.yaml", "spec: {hostNetwrk: false}\n");
    assert!(matches!(unknown, Err(ManifestError::UnknownField { field, .. }) if field == "spec.hostNetwrk"));
    let no_pod = patched("kube-scheduler+merge.yaml", "spec: {containers: 3}\n");
    assert!(matches!(no_pod, Err(ManifestError::NotAPod { .. })));
    let other_kind = patched("kube-scheduler+merge.yaml", "kind: Job\n");
    assert!(matches!(other_kind, Err(ManifestError::NotAPod { .. })));
}

#[test]
fn a_patch_may_write_a_quantity_as_a_number() {
    let patch = "spec: {containers: [{name: kube-scheduler, resources: {requests: {cpu: 2}, limits: {cpu: 2.5}}}]}\n";
    let pod = patched("kube-scheduler.yaml", patch).unwrap().pod;
    let resources = serde_json::to_value(&pod.spec.unwrap().containers[0].resources).unwrap();
    assert_eq!(resources, json!({"requests": {"cpu": "2"}, "limits": {"cpu": "2.5"}}));
}

#[test]
fn patches_of_another_component_change_nothing() {
    let plain = render(&spec(), SCHEDULER, &bare()).unwrap();
    assert_eq!(patched("etcd.yaml", "metadata: {labels: {a: b}}\n").unwrap(), plain);
}

#[test]
fn etcds_probes_go_where_the_first_metrics_url_says_as_with_kubeadm() {
    for (urls, host, port, scheme) in [
        ("http://0.0.0.0:2381", "0.0.0.0", 2381, "HTTP"),
        ("https://[::]:9381,http://127.0.0.1:2381", "::", 9381, "HTTPS"),
        ("http://10.0.0.5", "10.0.0.5", 2381, "HTTP"),
        ("http://:2382", "127.0.0.1", 2382, "HTTP"),
        ("http://node:0/metrics", "node", 2381, "HTTP"),
        ("0.0.0.0:2381", "127.0.0.1", 2381, "HTTP"),
        ("http://10.0.0.5:http", "127.0.0.1", 2381, "HTTP"),
        ("", "127.0.0.1", 2381, "HTTP"),
    ] {
        let mut spec = spec();
        local(&mut spec).component.extra_args = vec![arg("listen-metrics-urls", urls)];
        let etcd = container(&spec, ETCD, &bare());
        let probes = [etcd.liveness_probe, etcd.readiness_probe, etcd.startup_probe];
        for get in probes.into_iter().flatten().map(|probe| probe.http_get.unwrap()) {
            assert_eq!((get.host.as_deref(), get.scheme.as_deref()), (Some(host), Some(scheme)), "{urls}");
        }
        let ports = etcd.ports.unwrap();
        assert_eq!(ports[0].container_port, port, "{urls}");
    }
}

#[test]
fn every_probe_says_where_it_goes_but_for_components_that_listen_everywhere() {
    let hosts = |spec: &ClusterSpec| {
        COMPONENTS.map(|component| {
            let container = container(spec, component, &bare());
            container.liveness_probe.unwrap().http_get.unwrap().host.unwrap_or_default()
        })
    };
    let mut spec = spec();
    let advertised = spec.node.advertise_address.to_string();
    let expected = |of: &dyn Fn(&str) -> String| COMPONENTS.map(of);
    let usual = |component: &str| if component == API_SERVER { advertised.clone() } else { "127.0.0.1".to_owned() };
    assert_eq!(hosts(&spec), expected(&usual));
    for component in [&mut spec.controller_manager, &mut spec.scheduler] {
        component.extra_args = vec![arg("bind-address", "0.0.0.0")];
    }
    let open = |component: &str| match component {
        CONTROLLER_MANAGER | SCHEDULER => String::new(),
        other => usual(other),
    };
    assert_eq!(hosts(&spec), expected(&open));
}
