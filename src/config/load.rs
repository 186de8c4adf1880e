//! Documents and flags in, one [`ClusterSpec`] out.

use std::net::IpAddr;
use std::path::PathBuf;

use super::cluster::warn_of_unused;
use super::cluster::{
    certificate_key, check_kubeboot, dns, feature_gates, is_skipped, key_algorithm, skip_phases, validity, version,
};
use super::components::{component, etcd, sans};
use super::error::ConfigError;
use super::flags::{self, Flags};
use super::kinds::{self, Documents};
use super::names;
use super::network::{self, or};
use super::node::{check_tokens, node, timeouts};
use super::report::{Part, Report};
use super::spec::{ClusterSpec, EtcdSpec, ProxySpec, Withheld};
use super::tokens::tokens;
use super::wire::Component;

/// All that a configuration is made of. Nothing else is read.
#[derive(Debug, Clone, Default)]
pub struct Input {
    /// The file of `--config`: its name, for messages, and its text.
    pub file: Option<(PathBuf, String)>,
    /// The flags.
    pub flags: Flags,
    /// What the machine says of itself.
    pub host: HostDefaults,
}

/// What is asked of the machine where neither file nor flag says it.
#[derive(Debug, Clone, Default)]
pub struct HostDefaults {
    /// The operating system's host name.
    pub hostname: String,
    /// The source address of the default route; None where there is none.
    pub address: Option<IpAddr>,
}

/// What came out.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The configuration, complete and valid.
    pub spec: ClusterSpec,
    /// `dryRun` of the file.
    pub dry_run: bool,
    /// What the user should know, with its place in the file; one line each.
    pub warnings: Vec<String>,
}

/// Reads, defaults and checks the configuration of `init`. No file is opened, no network asked.
///
/// # Errors
/// Everything that is wrong with the file and the flags, at once.
pub fn load(input: &Input) -> Result<Loaded, ConfigError> {
    let mut report = Report::of(input.file.as_ref().map(|(name, _)| name.clone()));
    let documents = match &input.file {
        Some((_, text)) => {
            flags::refuse_beside_config(&input.flags, &mut report);
            kinds::read(text, &mut report)
        }
        None => {
            let (init, cluster) = flags::documents(&input.flags, &mut report);
            Documents { init, cluster, ..Documents::default() }
        }
    };
    let dry_run = documents.init.dry_run;
    let spec = resolve(documents, input, &mut report);
    let (problems, warnings) = report.finish();
    match (spec, problems.is_empty()) {
        (Some(spec), true) => Ok(Loaded { spec, dry_run, warnings }),
        _ => Err(ConfigError { problems }),
    }
}

/// None only where the report has a problem.
fn resolve(documents: Documents, input: &Input, report: &mut Report) -> Option<ClusterSpec> {
    let Documents { init, cluster, kubeboot, kubelet, kube_proxy } = documents;
    let node = node(&init, input, report);
    let networking = network::networking(&cluster, report);
    let etcd = etcd(&cluster.etcd, report);
    network::check_family(node.advertise_address, &networking, &cluster.api_server.extra_args, report);
    network::check_port(node.bind_port, matches!(etcd, EtcdSpec::Local(_)), report);
    check_tokens(&init.bootstrap_tokens, report);
    warn_of_unused(report);
    check_kubeboot(&kubeboot, report);
    let api_server = Component {
        extra_args: cluster.api_server.extra_args.clone(),
        extra_volumes: cluster.api_server.extra_volumes.clone(),
        extra_envs: cluster.api_server.extra_envs.clone(),
    };
    let certificates_dir = names::absolute(or(&cluster.certificates_dir, "/etc/kubernetes/pki"));
    let image_repository = or(&cluster.image_repository, "registry.k8s.io");
    report.check(Part::Cluster, "imageRepository", names::image_repository(image_repository));
    let (certificate_validity, ca_certificate_validity) = validity(&cluster, report);
    let patches = init.patches.directory.trim();
    let skip_phases = skip_phases(&init, &input.flags);
    Some(ClusterSpec {
        control_plane_endpoint: network::control_plane_endpoint(
            &cluster.control_plane_endpoint,
            node.bind_port,
            report,
        ),
        cluster_name: or(&cluster.cluster_name, "kubernetes").to_owned(),
        certificates_dir: report.check(Part::Cluster, "certificatesDir", certificates_dir).unwrap_or_default(),
        image_repository: image_repository.to_owned(),
        api_server: component("apiServer", &api_server, report),
        api_server_cert_sans: sans("apiServer.certSANs", &cluster.api_server.cert_sans, report),
        controller_manager: component("controllerManager", &cluster.controller_manager, report),
        scheduler: component("scheduler", &cluster.scheduler, report),
        key_algorithm: key_algorithm(&cluster, report),
        certificate_validity,
        ca_certificate_validity,
        patches_dir: Some(PathBuf::from(patches)).filter(|_| !patches.is_empty()),
        timeouts: timeouts(&init, report),
        bootstrap_tokens: tokens(&init.bootstrap_tokens, report),
        certificate_key: certificate_key(&init, report),
        upload_certs: input.flags.upload_certs,
        withheld: Withheld {
            token: input.flags.skip_token_print,
            certificate_key: input.flags.skip_certificate_key_print,
        },
        dns: dns(&cluster.dns, &skip_phases, report),
        proxy: ProxySpec { disabled: cluster.proxy.disabled || is_skipped(&skip_phases, "addon", "kube-proxy") },
        skip_phases,
        feature_gates: feature_gates(&cluster, report),
        kube_proxy: kube_proxy.unwrap_or_else(|| serde_json::json!({})),
        kubelet: kubelet.unwrap_or_else(|| serde_json::json!({})),
        kubernetes_version: version(&cluster.kubernetes_version, report)?,
        node,
        networking,
        etcd,
        kubeboot,
    })
}
