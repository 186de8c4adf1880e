//! Documents and flags in, one [`ClusterSpec`] out.

use std::net::IpAddr;
use std::path::PathBuf;

use super::cluster::{
    certificate_key, check_kubeboot, dns, feature_gates, is_skipped, key_algorithm, skip_phases, validity, version,
    warn_of_unused,
};
use super::components::{component, etcd, sans};
use super::error::ConfigError;
use super::flags::{self, FLAGS, FlagRow, Flags};
use super::kinds;
use super::names;
use super::network::{self, or};
use super::node::{NodeInputs, check_tokens, node, timeouts};
use super::report::{Part, Report};
use super::spec::{ClusterSpec, EtcdSpec, HideSecrets, KubebootSpec, NodeSpec, ProxySpec};
use super::tokens::tokens;
use super::wire::{ClusterConfiguration, Component, InitConfiguration};

/// All that a configuration is made of. Nothing else is read.
#[derive(Debug, Clone, Default)]
pub struct Input<F = Flags> {
    /// The file of `--config`: its name, for messages, and its text.
    pub file: Option<(PathBuf, String)>,
    /// The flags.
    pub flags: F,
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
pub struct Loaded<S = ClusterSpec> {
    /// The configuration, complete and valid.
    pub spec: S,
    /// `dryRun` of the file; upgrade has one in each of its sections instead, and never one here.
    pub dry_run: bool,
    /// What the user should know, with its place in the file; one line each.
    pub warnings: Vec<String>,
}

/// The documents that make a [`ClusterSpec`].
pub(super) struct Documents {
    init: InitConfiguration,
    cluster: ClusterConfiguration,
    kubeboot: KubebootSpec,
    /// `KubeletConfiguration` as written.
    kubelet: Option<serde_json::Value>,
    /// `KubeProxyConfiguration` as written.
    kube_proxy: Option<serde_json::Value>,
}

/// What init reads.
pub(super) const PARTS: &[Part] = &[Part::Init, Part::Cluster, Part::Kubeboot, Part::Kubelet, Part::KubeProxy];

/// Reads, defaults and checks the configuration of `init`. No file is opened, no network asked.
///
/// # Errors
/// Everything that is wrong with the file and the flags, at once.
pub fn load(input: &Input) -> Result<Loaded, ConfigError> {
    let mut report = report_on(input, FLAGS);
    let mut documents = match &input.file {
        Some((_, text)) => {
            flags::refuse(FLAGS, &input.flags, &mut report);
            kinds::read(text, PARTS, &mut report);
            let any = [Part::Init, Part::Cluster, Part::Kubeboot];
            kinds::demand_any(&any, "InitConfiguration or ClusterConfiguration", &mut report);
            decode(&mut report)
        }
        None => {
            let (init, cluster) = flags::documents(&input.flags, &mut report);
            Documents { init, cluster, kubeboot: KubebootSpec::default(), kubelet: None, kube_proxy: None }
        }
    };
    let dry_run = documents.init.dry_run;
    if let Some(agent) = input.flags.node_agent {
        documents.kubeboot.node_agent = agent;
    }
    let spec = resolve(documents, input, &mut report);
    conclude(spec, dry_run, report)
}

/// Decodes what was read.
pub(super) fn decode(report: &mut Report) -> Documents {
    Documents {
        init: kinds::decode(Part::Init, report),
        cluster: kinds::decode(Part::Cluster, report),
        kubeboot: kinds::decode(Part::Kubeboot, report),
        kubelet: kinds::value(Part::Kubelet, report),
        kube_proxy: kinds::value(Part::KubeProxy, report),
    }
}

/// An empty report on the file or the flags of `input`.
pub(super) fn report_on<F>(input: &Input<F>, rows: &[FlagRow<F>]) -> Report {
    Report::of(input.file.as_ref().map(|(name, _)| name.clone()), flags::names(rows, &input.flags))
}

/// The spec, if nothing is wrong.
pub(super) fn conclude<S>(spec: Option<S>, dry_run: bool, report: Report) -> Result<Loaded<S>, ConfigError> {
    let (problems, warnings) = report.finish();
    match (spec, problems.is_empty()) {
        (Some(spec), true) => Ok(Loaded { spec, dry_run, warnings }),
        _ => Err(ConfigError { problems }),
    }
}

/// `patches.directory`; None where there is none.
pub(super) fn directory(text: &str) -> Option<PathBuf> {
    Some(PathBuf::from(text.trim())).filter(|_| !text.trim().is_empty())
}

fn this_node(init: &InitConfiguration, input: &Input, report: &mut Report) -> NodeSpec {
    let given = NodeInputs {
        part: Part::Init,
        registration: &init.node_registration,
        endpoint: Some((&init.local_api_endpoint, "localAPIEndpoint")),
        host: &input.host,
        name: input.flags.node_name.as_deref(),
        ignore: &input.flags.ignore_preflight_errors,
    };
    node(&given, report)
}

/// None only where the report has a problem.
pub(super) fn resolve(documents: Documents, input: &Input, report: &mut Report) -> Option<ClusterSpec> {
    let Documents { init, cluster, kubeboot, kubelet, kube_proxy } = documents;
    let node = this_node(&init, input, report);
    let networking = network::networking(&cluster, report);
    let etcd = etcd(&cluster.etcd, report);
    network::check_family(node.advertise_address, &networking, &cluster.api_server.extra_args, report);
    let port = (Part::Init, "localAPIEndpoint.bindPort");
    network::check_port(port, node.bind_port, matches!(etcd, EtcdSpec::Local(_)), report);
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
    let skip_phases = skip_phases(&init.skip_phases, &input.flags.skip_phases);
    Some(ClusterSpec {
        kubeconfig_dir: crate::host::paths::KUBERNETES_DIR.into(),
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
        patches_dir: directory(&init.patches.directory),
        timeouts: timeouts(Part::Init, &init.timeouts, report),
        bootstrap_tokens: tokens(&init.bootstrap_tokens, report),
        certificate_key: certificate_key((Part::Init, "certificateKey"), &init.certificate_key, report),
        upload_certs: input.flags.upload_certs,
        hide_secrets: HideSecrets {
            token: input.flags.skip_token_print,
            certificate_key: input.flags.skip_certificate_key_print,
        },
        dns: dns(&cluster.dns, &skip_phases, report),
        proxy: ProxySpec { disabled: cluster.proxy.disabled || is_skipped(&skip_phases, "addon", "kube-proxy") },
        skip_phases,
        feature_gates: feature_gates(&cluster, report),
        kube_proxy: kube_proxy.unwrap_or_else(|| serde_json::json!({})),
        kubelet: kubelet.unwrap_or_else(|| serde_json::json!({})),
        kubernetes_version: version((Part::Cluster, "kubernetesVersion"), &cluster.kubernetes_version, report)?,
        node,
        networking,
        etcd,
        kubeboot,
    })
}
