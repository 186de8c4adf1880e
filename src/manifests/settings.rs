//! From a [`ClusterSpec`] to what a template takes, one function a component.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::EnvVar;

use super::args::Flags;
use super::images::etcd_image;
use super::template::{PodSettings, Probe};
use super::volumes::Volumes;
use super::{API_SERVER, CONTROLLER_MANAGER, ETCD, Host, SCHEDULER};
use crate::config::spec::{Arg, ClusterSpec, Endpoint, EtcdSpec, HostPathMount, LocalEtcd, NodeAgent, last_arg};
use crate::host::paths::KUBERNETES_DIR;
use crate::release::{self, ComponentRow, ProbePaths, Release};

const ETCD_METRICS_PORT: u16 = 2381;
const CONTROLLER_MANAGER_PORT: u16 = 10257;
const SCHEDULER_PORT: u16 = 10259;

/// Authorizers that the API server knows; others in `authorization-mode` are dropped, as kubeadm does it.
const AUTHORIZERS: [&str; 6] = ["Node", "RBAC", "Webhook", "ABAC", "AlwaysAllow", "AlwaysDeny"];

/// The etcd URL for clients or peers on this node.
pub(super) fn etcd_url(spec: &ClusterSpec, port: u16) -> String {
    format!("https://{}", Endpoint { host: spec.node.advertise_address.to_string(), port })
}

/// etcd of this node, the first member of its cluster.
pub(super) fn etcd(spec: &ClusterSpec, local: &LocalEtcd) -> PodSettings {
    let row = release::etcd_row(release::find(&spec.kubernetes_version).row, local.image_tag.as_deref());
    let own = |scheme: &str, port| format!("{scheme}://{}", Endpoint { host: spec.loopback().into(), port });
    let pki = spec.certificates_dir.join("etcd");
    let file = |name: &str| display(pki.join(name));
    let (clients, peers) = (etcd_url(spec, 2379), etcd_url(spec, 2380));
    let mut flags = Flags::default();
    flags.set_all(row.flags);
    flags.set_all(&[("client-cert-auth", "true"), ("peer-client-cert-auth", "true"), ("snapshot-count", "10000")]);
    flags.set("advertise-client-urls", &clients);
    flags.set("cert-file", file("server.crt"));
    flags.set("data-dir", display(&local.data_dir));
    flags.set("initial-advertise-peer-urls", &peers);
    flags.set("initial-cluster", format!("{}={peers}", spec.node.name));
    flags.set("key-file", file("server.key"));
    flags.set("listen-client-urls", format!("{},{clients}", own("https", 2379)));
    flags.set("listen-metrics-urls", own("http", ETCD_METRICS_PORT));
    flags.set("listen-peer-urls", &peers);
    flags.set("name", &spec.node.name);
    flags.set("peer-cert-file", file("peer.crt"));
    flags.set("peer-key-file", file("peer.key"));
    flags.set("peer-trusted-ca-file", file("ca.crt"));
    flags.set("trusted-ca-file", file("ca.crt"));

    let extra = &local.component;
    let probe = metrics_endpoint(last_arg(&extra.extra_args, "listen-metrics-urls"), spec.loopback());
    let volume = |name: &str, path: &Path| HostPathMount {
        name: name.into(),
        host_path: display(path),
        mount_path: display(path),
        read_only: false,
        path_type: "DirectoryOrCreate".into(),
    };
    let (certs, data) = (volume("etcd-certs", &pki), volume("etcd-data", &local.data_dir));
    let mut volumes = Volumes::default();
    volumes.extend(&[certs.clone(), data.clone()]);
    volumes.extend(&extra.extra_volumes);
    let mut mounts = vec![data, certs];
    mounts.extend(extra.extra_volumes.iter().cloned());
    PodSettings {
        name: ETCD,
        image: etcd_image(spec, local),
        args: flags.into_args(&extra.extra_args),
        env: merged_env(&[], &extra.extra_envs),
        probe_host: Some(probe.host),
        probe_port: probe.port,
        probe_scheme: probe.scheme,
        probes: probes(spec, &row.probes),
        volumes: volumes.into_sorted(),
        mounts,
    }
}

/// kube-apiserver.
pub(super) fn api_server(spec: &ClusterSpec, host: &Host<'_>) -> PodSettings {
    let release = release::find(&spec.kubernetes_version).row;
    let extra = &spec.api_server;
    let mut flags = Flags::default();
    flags.set_all(release.api_server.flags);
    flags.set_all(&[
        ("allow-privileged", "true"),
        ("enable-admission-plugins", "NodeRestriction"),
        ("enable-bootstrap-token-auth", "true"),
        ("kubelet-preferred-address-types", "InternalIP,ExternalIP,Hostname"),
        ("requestheader-allowed-names", "front-proxy-client"),
        ("requestheader-extra-headers-prefix", "X-Remote-Extra-"),
        ("requestheader-group-headers", "X-Remote-Group"),
        ("requestheader-username-headers", "X-Remote-User"),
    ]);
    for (name, file) in [
        ("client-ca-file", "ca.crt"),
        ("kubelet-client-certificate", "apiserver-kubelet-client.crt"),
        ("kubelet-client-key", "apiserver-kubelet-client.key"),
        ("proxy-client-cert-file", "front-proxy-client.crt"),
        ("proxy-client-key-file", "front-proxy-client.key"),
        ("requestheader-client-ca-file", "front-proxy-ca.crt"),
        ("service-account-key-file", "sa.pub"),
        ("service-account-signing-key-file", "sa.key"),
        ("tls-cert-file", "apiserver.crt"),
        ("tls-private-key-file", "apiserver.key"),
    ] {
        flags.set(name, display(spec.certificates_dir.join(file)));
    }
    flags.set("advertise-address", spec.node.advertise_address.to_string());
    flags.set("secure-port", spec.node.bind_port.to_string());
    flags.set("service-account-issuer", format!("https://kubernetes.default.svc.{}", spec.networking.dns_domain));
    flags.set("service-cluster-ip-range", joined(&spec.networking.service_subnets));
    set_authorization(&mut flags, &extra.extra_args);
    set_etcd(&mut flags, spec);
    set_dual_stack(&mut flags, spec, release);
    set_surge(&mut flags, spec, API_SERVER);

    let mut volumes = certificate_volumes(spec, host);
    if let EtcdSpec::External(etcd) = &spec.etcd {
        volumes.add_external_etcd(etcd, &spec.certificates_dir);
    }
    volumes.extend(&extra.extra_volumes);
    let advertise = spec.node.advertise_address.to_string();
    PodSettings {
        probe_host: reachable(&advertise),
        ..component(spec, host, API_SERVER, flags, volumes, &release.api_server)
    }
}

/// kube-controller-manager.
pub(super) fn controller_manager(spec: &ClusterSpec, host: &Host<'_>) -> PodSettings {
    let release = release::find(&spec.kubernetes_version).row;
    let pki = |file: &str| spec.certificates_dir.join(file);
    let mut flags = Flags::default();
    flags.set_all(release.controller_manager.flags);
    flags.set_all(&[
        ("bind-address", "127.0.0.1"),
        ("controllers", "*,bootstrapsigner,tokencleaner"),
        ("leader-elect", "true"),
        ("use-service-account-credentials", "true"),
    ]);
    let kubeconfig = kubeconfig("controller-manager.conf");
    set_kubeconfigs(&mut flags, &kubeconfig);
    flags.set("client-ca-file", display(pki("ca.crt")));
    flags.set("root-ca-file", display(pki("ca.crt")));
    flags.set("requestheader-client-ca-file", display(pki("front-proxy-ca.crt")));
    flags.set("service-account-private-key-file", display(pki("sa.key")));
    flags.set("cluster-name", &spec.cluster_name);
    // With the CA's key kept elsewhere nothing here can sign, and empty files keep the signer from being started.
    let external_ca = (host.exists)(&pki("ca.crt")) && !(host.exists)(&pki("ca.key"));
    for (name, file) in [("cluster-signing-cert-file", "ca.crt"), ("cluster-signing-key-file", "ca.key")] {
        flags.set(name, if external_ca { String::new() } else { display(pki(file)) });
    }
    if !spec.networking.pod_subnets.is_empty() {
        flags.set("allocate-node-cidrs", "true");
        flags.set("cluster-cidr", joined(&spec.networking.pod_subnets));
        flags.set("service-cluster-ip-range", joined(&spec.networking.service_subnets));
    }
    set_dual_stack(&mut flags, spec, release);

    let mut volumes = certificate_volumes(spec, host);
    volumes.add("kubeconfig", &kubeconfig, "FileOrCreate");
    volumes.extend(&spec.controller_manager.extra_volumes);
    component(spec, host, CONTROLLER_MANAGER, flags, volumes, &release.controller_manager)
}

/// kube-scheduler.
pub(super) fn scheduler(spec: &ClusterSpec, host: &Host<'_>) -> PodSettings {
    let release = release::find(&spec.kubernetes_version).row;
    let kubeconfig = kubeconfig("scheduler.conf");
    let mut flags = Flags::default();
    flags.set_all(release.scheduler.flags);
    flags.set_all(&[("bind-address", "127.0.0.1"), ("leader-elect", "true")]);
    set_kubeconfigs(&mut flags, &kubeconfig);
    set_dual_stack(&mut flags, spec, release);
    let mut volumes = Volumes::default();
    volumes.add("kubeconfig", &kubeconfig, "FileOrCreate");
    volumes.extend(&spec.scheduler.extra_volumes);
    component(spec, host, SCHEDULER, flags, volumes, &release.scheduler)
}

/// What the three Kubernetes components have in common.
fn component(
    spec: &ClusterSpec,
    host: &Host<'_>,
    name: &'static str,
    flags: Flags,
    volumes: Volumes,
    row: &ComponentRow,
) -> PodSettings {
    let (extra, probe_port) = match name {
        API_SERVER => (&spec.api_server, spec.node.bind_port),
        CONTROLLER_MANAGER => (&spec.controller_manager, CONTROLLER_MANAGER_PORT),
        _ => (&spec.scheduler, SCHEDULER_PORT),
    };
    let volumes = volumes.into_sorted();
    PodSettings {
        name,
        image: format!("{}/{name}:{}", spec.image_repository, spec.kubernetes_version.image_tag()),
        args: flags.into_args(&extra.extra_args),
        env: merged_env(&host.proxy_env, &extra.extra_envs),
        probe_host: reachable(last_arg(&extra.extra_args, "bind-address").unwrap_or("127.0.0.1")),
        probe_port,
        probe_scheme: "HTTPS",
        probes: probes(spec, &row.probes),
        mounts: volumes.clone(),
        volumes,
    }
}

/// `Node,RBAC`, unless the user has modes of their own. A configuration file for authorization excludes the flag.
fn set_authorization(flags: &mut Flags, extra: &[Arg]) {
    if last_arg(extra, "authorization-config").is_none() {
        flags.set("authorization-mode", "Node,RBAC");
    }
}

/// Leaves unknown authorizers out of the user's `authorization-mode`; when none is left, the flag is not the user's.
pub(super) fn known_authorizers(extra: &[Arg]) -> Vec<Arg> {
    let known = |value: &str| value.split(',').filter(|mode| AUTHORIZERS.contains(mode)).collect::<Vec<_>>().join(",");
    extra
        .iter()
        .filter_map(|arg| match arg.name.as_str() {
            "authorization-mode" => Some(known(&arg.value))
                .filter(|value| !value.is_empty())
                .map(|value| Arg { name: arg.name.clone(), value }),
            _ => Some(arg.clone()),
        })
        .collect()
}

/// Where etcd is and what to show it.
fn set_etcd(flags: &mut Flags, spec: &ClusterSpec) {
    let pki = |file: &str| Some(spec.certificates_dir.join(file));
    let (servers, ca, cert, key) = match &spec.etcd {
        EtcdSpec::Local(local) => (
            match last_arg(&local.component.extra_args, "advertise-client-urls") {
                Some(urls) => urls.to_owned(),
                None => format!("https://{}", Endpoint { host: spec.loopback().into(), port: 2379 }),
            },
            pki("etcd/ca.crt"),
            pki("apiserver-etcd-client.crt"),
            pki("apiserver-etcd-client.key"),
        ),
        EtcdSpec::External(etcd) => {
            (etcd.endpoints.join(","), etcd.ca_file.clone(), etcd.cert_file.clone(), etcd.key_file.clone())
        }
    };
    flags.set("etcd-servers", servers);
    for (name, file) in [("etcd-cafile", ca), ("etcd-certfile", cert), ("etcd-keyfile", key)] {
        if let Some(file) = file {
            flags.set(name, display(file));
        }
    }
}

/// Turns dual-stack on where the release does not have it on by itself.
fn set_dual_stack(flags: &mut Flags, spec: &ClusterSpec, release: &Release) {
    let networks = &spec.networking;
    if let Some(gate) = release.dual_stack_gate
        && networks.service_subnets.len().max(networks.pod_subnets.len()) > 1
    {
        flags.set("feature-gates", gate);
    }
}

/// Whether kube-apiserver asks to be replaced by one beside it. A kubelet would not do it.
pub(super) fn surges(spec: &ClusterSpec) -> bool {
    spec.kubeboot.surge.api_server && spec.kubeboot.node_agent == NodeAgent::Embedded
}

/// What a component needs to serve beside its successor.
fn set_surge(flags: &mut Flags, spec: &ClusterSpec, component: &str) {
    if surges(spec) {
        for (name, value) in release::surge_flags(component, spec.kubernetes_version.minor()) {
            flags.set(name, value);
        }
    }
}

fn set_kubeconfigs(flags: &mut Flags, file: &Path) {
    for name in ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"] {
        flags.set(name, display(file));
    }
}

fn certificate_volumes(spec: &ClusterSpec, host: &Host<'_>) -> Volumes {
    let mut volumes = Volumes::default();
    volumes.add("k8s-certs", &spec.certificates_dir, "DirectoryOrCreate");
    volumes.add_ca_certs(host.exists);
    volumes
}

/// The probes of a component. Startup may take as long as `timeouts.controlPlaneComponentHealthCheck` allows.
fn probes(spec: &ClusterSpec, paths: &ProbePaths) -> Vec<Probe> {
    let limit = spec.timeouts.control_plane_component_health_check.as_secs_f64();
    let startup_failures = (limit / 10.0).ceil() as u64;
    let probe = |kind, path, initial_delay, period, failure_threshold| Probe {
        kind,
        path,
        initial_delay,
        period,
        failure_threshold,
    };
    let mut probes = vec![probe("livenessProbe", paths.liveness, 10, 10, 8)];
    probes.extend(paths.readiness.map(|path| probe("readinessProbe", path, 0, 1, 3)));
    probes.push(probe("startupProbe", paths.startup, 10, 10, startup_failures));
    probes
}

/// `proxy` and the user's variables, sorted by name; of several with one name the user's last one counts.
fn merged_env(proxy: &[(String, String)], extra: &[EnvVar]) -> Vec<EnvVar> {
    let proxy = proxy.iter().map(|(name, value)| EnvVar {
        name: name.clone(),
        value: Some(value.clone()),
        ..EnvVar::default()
    });
    let by_name: std::collections::BTreeMap<String, EnvVar> =
        proxy.chain(extra.iter().cloned()).map(|variable| (variable.name.clone(), variable)).collect();
    by_name.into_values().collect()
}

/// Where etcd's probes go.
struct MetricsEndpoint {
    host: String,
    port: u16,
    scheme: &'static str,
}

/// The first of the user's `listen-metrics-urls`, else the default. Its host is taken as it is, one that means all
/// addresses too: kubeadm has it so.
fn metrics_endpoint(urls: Option<&str>, loopback: &str) -> MetricsEndpoint {
    let default = MetricsEndpoint { host: loopback.to_owned(), port: ETCD_METRICS_PORT, scheme: "HTTP" };
    let first = urls.and_then(|urls| urls.split(',').next()).and_then(|url| url.split_once("://"));
    let Some((scheme, rest)) = first else { return default };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let address = authority.rsplit('@').next().unwrap_or_default();
    let (host, port) = match address.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
        Some((host, after)) => (host, after.strip_prefix(':').unwrap_or_default()),
        None => address.rsplit_once(':').unwrap_or((address, "")),
    };
    // A port of other than digits makes it no URL at all.
    if !port.bytes().all(|b| b.is_ascii_digit()) {
        return default;
    }
    MetricsEndpoint {
        host: if host.is_empty() { loopback.to_owned() } else { host.to_owned() },
        port: port.parse().ok().filter(|port| *port > 0).unwrap_or(ETCD_METRICS_PORT),
        scheme: if scheme.eq_ignore_ascii_case("https") { "HTTPS" } else { "HTTP" },
    }
}

/// The host to probe; None for an address that means all of them, where the agent takes the pod's own.
fn reachable(host: &str) -> Option<String> {
    let any = host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_unspecified());
    (!any).then(|| host.to_owned())
}

fn kubeconfig(file: &str) -> PathBuf {
    Path::new(KUBERNETES_DIR).join(file)
}

fn joined(networks: &[ipnet::IpNet]) -> String {
    networks.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn display(path: impl AsRef<Path>) -> String {
    path.as_ref().to_string_lossy().into_owned()
}
