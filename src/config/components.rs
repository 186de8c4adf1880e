//! etcd, kube-apiserver, kube-controller-manager and kube-scheduler.

use k8s_openapi::api::core::v1 as core;

use super::names;
use super::network::or;
use super::report::{Part, Report};
use super::spec::{Arg, ComponentSpec, EtcdSpec, ExternalEtcd, HostPathMount, LocalEtcd};
use super::wire::{self, EnvVar};

/// `apiServer`, `controllerManager`, `scheduler`; `field` is which.
pub(super) fn component(field: &str, wire: &wire::Component, report: &mut Report) -> ComponentSpec {
    args(Part::Cluster, &format!("{field}.extraArgs"), &wire.extra_args, report);
    volumes(&format!("{field}.extraVolumes"), &wire.extra_volumes, report);
    ComponentSpec {
        extra_args: wire.extra_args.clone(),
        extra_volumes: wire.extra_volumes.clone(),
        extra_envs: envs(&format!("{field}.extraEnvs"), &wire.extra_envs, report),
    }
}

/// Checks the names of arguments.
pub(super) fn args(part: Part, field: &str, args: &[Arg], report: &mut Report) {
    for (index, arg) in args.iter().enumerate() {
        let bare = arg.name.trim_start_matches('-');
        let message = if bare.is_empty() {
            "the name of the argument is empty".to_owned()
        } else if bare != arg.name {
            format!("{:?} begins with dashes, which are added for you; write {bare:?}", arg.name)
        } else if arg.name.contains(|c: char| c == '=' || c.is_whitespace() || c.is_control()) {
            format!("{:?} is not the name of an argument; what follows the = goes into value", arg.name)
        } else {
            continue;
        };
        report.problem(part, &format!("{field}[{index}].name"), message);
    }
}

/// Kubernetes' types of host paths.
const PATH_TYPES: &[&str] =
    &["", "DirectoryOrCreate", "Directory", "FileOrCreate", "File", "Socket", "CharDevice", "BlockDevice"];

fn volumes(field: &str, volumes: &[HostPathMount], report: &mut Report) {
    for (index, volume) in volumes.iter().enumerate() {
        let field = |name: &str| format!("{field}[{index}].{name}");
        report.check(Part::Cluster, &field("name"), names::dns_label(&volume.name));
        report.check(Part::Cluster, &field("hostPath"), names::absolute(&volume.host_path));
        report.check(Part::Cluster, &field("mountPath"), names::absolute(&volume.mount_path));
        if !PATH_TYPES.contains(&volume.path_type.as_str()) {
            let message = format!("{:?} is none of {}", volume.path_type, PATH_TYPES[1..].join(", "));
            report.problem(Part::Cluster, &field("pathType"), message);
        }
        if volumes[..index].iter().any(|earlier| earlier.name == volume.name) {
            let message = format!("{:?} is the name of an earlier volume too; give each its own", volume.name);
            report.problem(Part::Cluster, &field("name"), message);
        }
    }
}

fn envs(field: &str, envs: &[EnvVar], report: &mut Report) -> Vec<core::EnvVar> {
    for (index, env) in envs.iter().enumerate() {
        if env.name.is_empty() || env.name.contains(|c: char| c == '=' || c.is_control()) {
            let message = format!("{:?} is not the name of an environment variable", env.name);
            report.problem(Part::Cluster, &format!("{field}[{index}].name"), message);
        }
        if env.value.as_deref().is_some_and(|value| !value.is_empty()) && env.value_from.is_some() {
            let message = "value and valueFrom exclude each other; leave one out";
            report.problem(Part::Cluster, &format!("{field}[{index}].valueFrom"), message);
        }
    }
    let convert = |env: &EnvVar| core::EnvVar {
        name: env.name.clone(),
        value: env.value.clone(),
        value_from: env.value_from.clone(),
    };
    envs.iter().map(convert).collect()
}

/// A list of subject alternative names, in lower case.
pub(super) fn sans(field: &str, sans: &[String], report: &mut Report) -> Vec<String> {
    let mut found = Vec::new();
    for (index, san) in sans.iter().enumerate() {
        found.extend(report.check(Part::Cluster, &format!("{field}[{index}]"), names::san(san.trim())));
    }
    found
}

/// `etcd`: local in `/var/lib/etcd` unless something else is written.
pub(super) fn etcd(wire: &wire::Etcd, report: &mut Report) -> EtcdSpec {
    if wire.local.is_some() && wire.external.is_some() {
        report.problem(Part::Cluster, "etcd", "local and external exclude each other; leave one out");
    }
    match &wire.external {
        Some(external) => EtcdSpec::External(external_etcd(external, report)),
        None => EtcdSpec::Local(local_etcd(&wire.local.clone().unwrap_or_default(), report)),
    }
}

fn local_etcd(wire: &wire::LocalEtcd, report: &mut Report) -> LocalEtcd {
    let data_dir =
        report.check(Part::Cluster, "etcd.local.dataDir", names::absolute(or(&wire.data_dir, "/var/lib/etcd")));
    let given = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
    let (image_repository, image_tag) = (given(&wire.image_repository), given(&wire.image_tag));
    if let Some(repository) = &image_repository {
        report.check(Part::Cluster, "etcd.local.imageRepository", names::image_repository(repository));
    }
    if let Some(tag) = &image_tag {
        report.check(Part::Cluster, "etcd.local.imageTag", names::image_tag(tag));
    }
    args(Part::Cluster, "etcd.local.extraArgs", &wire.extra_args, report);
    LocalEtcd {
        data_dir: data_dir.unwrap_or_default(),
        image_repository,
        image_tag,
        component: ComponentSpec {
            extra_args: wire.extra_args.clone(),
            extra_volumes: Vec::new(),
            extra_envs: envs("etcd.local.extraEnvs", &wire.extra_envs, report),
        },
        server_cert_sans: sans("etcd.local.serverCertSANs", &wire.server_cert_sans, report),
        peer_cert_sans: sans("etcd.local.peerCertSANs", &wire.peer_cert_sans, report),
    }
}

fn external_etcd(wire: &wire::ExternalEtcd, report: &mut Report) -> ExternalEtcd {
    let mut file = |name: &str, text: &str| {
        let text = Some(text.trim()).filter(|text| !text.is_empty())?;
        report.check(Part::Cluster, &format!("etcd.external.{name}"), names::absolute(text))
    };
    let (ca_file, cert_file, key_file) =
        (file("caFile", &wire.ca_file), file("certFile", &wire.cert_file), file("keyFile", &wire.key_file));
    let has = |text: &str| !text.trim().is_empty();
    let (ca, cert, key) = (has(&wire.ca_file), has(&wire.cert_file), has(&wire.key_file));
    if cert != key {
        let (there, missing) = if cert { ("certFile", "keyFile") } else { ("keyFile", "certFile") };
        let message = format!("{there} needs a {missing}; give both or neither");
        report.problem(Part::Cluster, &format!("etcd.external.{there}"), message);
    } else if cert && !ca {
        let message = "a client certificate needs the CA of the servers too; give caFile";
        report.problem(Part::Cluster, "etcd.external.certFile", message);
    }
    if wire.endpoints.is_empty() {
        report.problem(
            Part::Cluster,
            "etcd.external",
            "endpoints is missing; give at least one, such as https://10.0.0.1:2379",
        );
    }
    for (list, urls) in [("endpoints", &wire.endpoints), ("httpEndpoints", &wire.http_endpoints)] {
        for (index, url) in urls.iter().enumerate() {
            let field = format!("etcd.external.{list}[{index}]");
            report.check(Part::Cluster, &field, etcd_url(url, ca || cert || key));
        }
    }
    let http_endpoints =
        wire.http_endpoints.iter().filter(|_| wire.http_endpoints != wire.endpoints).cloned().collect();
    ExternalEtcd { endpoints: wire.endpoints.clone(), http_endpoints, ca_file, cert_file, key_file }
}

/// `https://HOST[:PORT]`, or `http://` where no file of TLS is given.
fn etcd_url(text: &str, tls: bool) -> Result<(), String> {
    if text.contains('@') {
        return Err("a URL of etcd holds no user and password; give certFile and keyFile instead".into());
    }
    let form = || format!("{text:?} is not the URL of an etcd; write it as https://10.0.0.1:2379");
    let uri = text.parse::<http::Uri>().map_err(|_| form())?;
    let port_ok = uri.authority().is_some_and(|authority| match authority.port() {
        Some(port) => port.as_u16() != 0,
        None => !authority.as_str().ends_with(':'),
    });
    match (uri.scheme_str(), uri.host()) {
        (Some("https"), Some(host)) if !host.is_empty() && port_ok => Ok(()),
        (Some("http"), Some(host)) if !host.is_empty() && port_ok && tls => {
            Err(format!("{text:?} is not https, though TLS files are given; write https:// or leave the files out"))
        }
        (Some("http"), Some(host)) if !host.is_empty() && port_ok => Ok(()),
        _ => Err(form()),
    }
}
