use super::*;

fn load_flags(flags: Flags) -> Result<Loaded, String> {
    load(&Input { file: None, flags, host: host() }).map_err(|error| error.to_string())
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn no_file_and_no_flags_give_kubeadms_defaults() {
    let loaded = load_flags(Flags::default()).unwrap();
    let mut expected = crate::testing::spec();
    expected.kubernetes_version = crate::release::DEFAULT_VERSION.parse().unwrap();
    assert_eq!(loaded, Loaded { spec: expected, dry_run: false, warnings: vec![] });
}

#[test]
fn every_flag_arrives_where_the_file_would_have_put_it() {
    let flags = Flags {
        kubernetes_version: some("1.36.2"),
        apiserver_advertise_address: some("10.1.1.1"),
        apiserver_bind_port: some("8443"),
        apiserver_cert_extra_sans: vec!["API.example.com".into(), "203.0.113.7".into()],
        control_plane_endpoint: some("k8s.example.com"),
        image_repository: some("registry.example.com:5000/k8s"),
        node_name: some("Node-7"),
        pod_network_cidr: some("10.244.0.0/16,fd00:10:244::/56"),
        service_cidr: some("10.96.0.0/16"),
        service_dns_domain: some("corp.local"),
        cert_dir: some("/pki"),
        ignore_preflight_errors: vec!["Swap,NumCPU".into(), "swap".into()],
        skip_phases: vec!["preflight,addon".into()],
        patches: some("patches"),
        cri_socket: some("unix:///run/crio/crio.sock"),
    };
    let file = "\
apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
localAPIEndpoint: {advertiseAddress: 10.1.1.1, bindPort: 8443}
nodeRegistration:
  name: Node-7
  criSocket: unix:///run/crio/crio.sock
  ignorePreflightErrors: [Swap, NumCPU]
skipPhases: [preflight, addon]
patches: {directory: patches}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: v1.36.2
controlPlaneEndpoint: k8s.example.com
imageRepository: registry.example.com:5000/k8s
certificatesDir: /pki
networking: {podSubnet: '10.244.0.0/16,fd00:10:244::/56', serviceSubnet: 10.96.0.0/16, dnsDomain: corp.local}
apiServer: {certSANs: [API.example.com, 203.0.113.7]}
";
    let by_flags = load_flags(flags).unwrap();
    assert_eq!(by_flags, good(file));
    assert_ne!(by_flags.spec, load_flags(Flags::default()).unwrap().spec);
    assert_eq!(by_flags.spec.node.name, "node-7");
    assert_eq!(by_flags.spec.node.ignore_preflight_errors, ["swap", "numcpu"]);
    assert_eq!(by_flags.spec.control_plane_endpoint.unwrap().to_string(), "k8s.example.com:8443");
}

#[test]
fn a_bad_flag_is_called_by_its_name() {
    let cases = [
        (
            Flags { pod_network_cidr: some("10.0.0.0/99"), ..Flags::default() },
            "--pod-network-cidr: \"10.0.0.0/99\" is not a network; write ADDRESS/BITS, such as 10.244.0.0/16 or \
             fd00:10:244::/56",
        ),
        (
            Flags { apiserver_bind_port: some("https"), ..Flags::default() },
            "--apiserver-bind-port: \"https\" is not a port from 1 to 65535",
        ),
        (
            Flags { apiserver_bind_port: some("0"), ..Flags::default() },
            "--apiserver-bind-port: 0 is not a port from 1 to 65535",
        ),
        (
            Flags { apiserver_cert_extra_sans: vec!["a".into(), "b c".into()], ..Flags::default() },
            "--apiserver-cert-extra-sans: \"b c\" is neither an address nor a DNS name; write a name such as \
             api.example.com or *.example.com",
        ),
        (
            Flags { ignore_preflight_errors: vec!["all".into(), "Swap".into()], ..Flags::default() },
            "--ignore-preflight-errors: all takes in every check, so no other may be named beside it; leave the others \
             out",
        ),
        (Flags { node_name: some("a_b"), ..Flags::default() }, "--node-name: \"a_b\" is not a DNS name; write \"a-b\""),
    ];
    for (flags, expected) in cases {
        assert_eq!(load_flags(flags).unwrap_err(), expected);
    }
}

#[test]
fn flags_that_configure_are_refused_beside_a_file() {
    let mut input = input(&cluster(""));
    input.flags = Flags {
        pod_network_cidr: some("10.244.0.0/16"),
        cri_socket: some("unix:///a"),
        patches: some(""),
        ..Flags::default()
    };
    let text = load(&input).unwrap_err().to_string();
    let expected = "the configuration has 2 problems:\n  --pod-network-cidr: cannot be given together with --config; \
                    set networking.podSubnet in the file instead\n  --cri-socket: cannot be given together with \
                    --config; set nodeRegistration.criSocket in the file instead";
    assert_eq!(text, expected);
}

#[test]
fn the_three_flags_that_may_go_beside_a_file_add_to_it_or_win() {
    let mut input =
        input(&init("nodeRegistration: {name: from-file, ignorePreflightErrors: [Swap]}\nskipPhases: [preflight]"));
    input.flags = Flags {
        node_name: some("from-flag"),
        ignore_preflight_errors: vec!["Mem".into()],
        skip_phases: vec!["addon/coredns".into()],
        ..Flags::default()
    };
    let spec = load(&input).unwrap().spec;
    assert_eq!(spec.node.name, "from-flag");
    assert_eq!(spec.node.ignore_preflight_errors, ["mem", "swap"]);
    assert_eq!(spec.skip_phases, ["addon/coredns"]);
}
