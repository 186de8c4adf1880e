//! kubeadm's flags that configure, and what each is in a document.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::durations::GoDuration;
use super::report::{FlagNames, Report};
use super::spec::NodeAgent;
use super::tokens::DEFAULT_DESCRIPTION;
use super::wire::{BootstrapToken, ClusterConfiguration, InitConfiguration, Secret};

/// The values of the flags as the user gave them; a flag that was not given is None or empty. Empty texts count as not
/// given, as with kubeadm.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Flags {
    /// `--kubernetes-version`.
    pub kubernetes_version: Option<String>,
    /// `--apiserver-advertise-address`.
    pub apiserver_advertise_address: Option<String>,
    /// `--apiserver-bind-port`.
    pub apiserver_bind_port: Option<String>,
    /// `--apiserver-cert-extra-sans`.
    pub apiserver_cert_extra_sans: Vec<String>,
    /// `--control-plane-endpoint`.
    pub control_plane_endpoint: Option<String>,
    /// `--image-repository`.
    pub image_repository: Option<String>,
    /// `--node-name`; may go with `--config`.
    pub node_name: Option<String>,
    /// `--pod-network-cidr`.
    pub pod_network_cidr: Option<String>,
    /// `--service-cidr`.
    pub service_cidr: Option<String>,
    /// `--service-dns-domain`.
    pub service_dns_domain: Option<String>,
    /// `--cert-dir`.
    pub cert_dir: Option<String>,
    /// `--ignore-preflight-errors`; may go with `--config`, which it adds to.
    pub ignore_preflight_errors: Vec<String>,
    /// `--node-agent`; may go with `--config`, whose `nodeAgent` it replaces.
    pub node_agent: Option<NodeAgent>,
    /// `--skip-phases`; may go with `--config`, whose `skipPhases` it replaces.
    pub skip_phases: Vec<String>,
    /// `--patches`.
    pub patches: Option<String>,
    /// `--cri-socket`.
    pub cri_socket: Option<String>,
    /// `--feature-gates`, `NAME=true` or `NAME=false` each.
    pub feature_gates: Vec<String>,
    /// `--token`; not kept, as the cluster has it then.
    #[serde(skip)]
    pub token: Secret,
    /// `--token-ttl`.
    pub token_ttl: Option<String>,
    /// `--certificate-key`; not kept, as the certificates it encrypts are not.
    #[serde(skip)]
    pub certificate_key: Secret,
    /// `--upload-certs`; may go with `--config`.
    pub upload_certs: bool,
    /// `--skip-token-print`; may go with `--config`.
    pub skip_token_print: bool,
    /// `--skip-certificate-key-print`; may go with `--config`.
    pub skip_certificate_key_print: bool,
}

impl Flags {
    /// What of them is about a run, and not about what it makes.
    fn of_run(&self) -> Self {
        Self {
            ignore_preflight_errors: self.ignore_preflight_errors.clone(),
            skip_phases: self.skip_phases.clone(),
            token: self.token.clone(),
            token_ttl: self.token_ttl.clone(),
            certificate_key: self.certificate_key.clone(),
            upload_certs: self.upload_certs,
            skip_token_print: self.skip_token_print,
            skip_certificate_key_print: self.skip_certificate_key_print,
            ..Self::default()
        }
    }

    /// Whether any of them says what is to be made.
    pub fn configure(&self) -> bool {
        let run = self.of_run();
        FLAGS.iter().any(|row| (row.given)(self) && !(row.given)(&run)) || self.node_agent.is_some()
    }

    /// These flags, with what `run` says about a run of its own in place of theirs; phases that were skipped are skipped
    /// again unless `run` names others.
    pub fn for_run(&self, run: &Self) -> Self {
        let skip_phases = if run.skip_phases.is_empty() { &self.skip_phases } else { &run.skip_phases };
        let ignored = self.ignore_preflight_errors.iter().chain(&run.ignore_preflight_errors);
        Self {
            ignore_preflight_errors: ignored.cloned().collect(),
            skip_phases: skip_phases.clone(),
            token: run.token.clone(),
            token_ttl: run.token_ttl.clone(),
            certificate_key: run.certificate_key.clone(),
            upload_certs: run.upload_certs,
            skip_token_print: self.skip_token_print || run.skip_token_print,
            skip_certificate_key_print: self.skip_certificate_key_print || run.skip_certificate_key_print,
            ..self.clone()
        }
    }
}

/// What a flag of `F` is in a document.
pub(super) struct FlagRow<F> {
    pub flag: &'static str,
    pub field: &'static str,
    /// Whether kubeadm allows it beside `--config`.
    pub with_config: bool,
    pub given: fn(&F) -> bool,
}

/// A flag that must not go beside `--config`.
pub(super) const fn row<F>(flag: &'static str, field: &'static str, given: fn(&F) -> bool) -> FlagRow<F> {
    FlagRow { flag, field, with_config: false, given }
}

/// A flag that may.
pub(super) const fn beside<F>(flag: &'static str, field: &'static str, given: fn(&F) -> bool) -> FlagRow<F> {
    FlagRow { flag, field, with_config: true, given }
}

/// Whether a flag was given.
pub(super) fn has(flag: &Option<String>) -> bool {
    flag.as_deref().is_some_and(|text| !text.trim().is_empty())
}

/// The value of a flag, empty when it was not given.
pub(super) fn text(flag: &Option<String>) -> String {
    flag.as_deref().unwrap_or_default().trim().to_owned()
}

pub(super) const FLAGS: &[FlagRow<Flags>] = &[
    row("--kubernetes-version", "kubernetesVersion", |flags| has(&flags.kubernetes_version)),
    row("--apiserver-advertise-address", "localAPIEndpoint.advertiseAddress", |flags| {
        has(&flags.apiserver_advertise_address)
    }),
    row("--apiserver-bind-port", "localAPIEndpoint.bindPort", |flags| has(&flags.apiserver_bind_port)),
    row("--apiserver-cert-extra-sans", "apiServer.certSANs", |flags| !flags.apiserver_cert_extra_sans.is_empty()),
    row("--control-plane-endpoint", "controlPlaneEndpoint", |flags| has(&flags.control_plane_endpoint)),
    row("--image-repository", "imageRepository", |flags| has(&flags.image_repository)),
    row("--pod-network-cidr", "networking.podSubnet", |flags| has(&flags.pod_network_cidr)),
    row("--service-cidr", "networking.serviceSubnet", |flags| has(&flags.service_cidr)),
    row("--service-dns-domain", "networking.dnsDomain", |flags| has(&flags.service_dns_domain)),
    row("--cert-dir", "certificatesDir", |flags| has(&flags.cert_dir)),
    row("--patches", "patches.directory", |flags| has(&flags.patches)),
    row("--cri-socket", "nodeRegistration.criSocket", |flags| has(&flags.cri_socket)),
    row("--feature-gates", "featureGates", |flags| !flags.feature_gates.is_empty()),
    row("--token", "bootstrapTokens", |flags| !flags.token.0.trim().is_empty()),
    row("--token-ttl", "bootstrapTokens[].ttl", |flags| has(&flags.token_ttl)),
    row("--certificate-key", "certificateKey", |flags| !flags.certificate_key.0.trim().is_empty()),
    beside("--node-name", "nodeRegistration.name", |flags| has(&flags.node_name)),
    beside("--ignore-preflight-errors", "nodeRegistration.ignorePreflightErrors", |flags| {
        !flags.ignore_preflight_errors.is_empty()
    }),
    beside("--skip-phases", "skipPhases", |flags| !flags.skip_phases.is_empty()),
];

/// Fields and their flags; where a field has several, those that were given come first.
pub(super) fn names<F>(rows: &[FlagRow<F>], flags: &F) -> FlagNames {
    let (given, others): (Vec<_>, Vec<_>) = rows.iter().partition(|row| (row.given)(flags));
    given.into_iter().chain(others).map(|row| (row.field, row.flag)).collect()
}

/// Complains of flags that may not go with `--config`: what the file says and what the flag says would be two truths.
pub(super) fn refuse<F>(rows: &[FlagRow<F>], flags: &F, report: &mut Report) {
    let mut reported = Vec::new();
    for row in rows.iter().filter(|row| !row.with_config && (row.given)(flags)) {
        // A flag that is several fields is reported once.
        if reported.contains(&row.flag) {
            continue;
        }
        reported.push(row.flag);
        let message = format!("cannot be given together with --config; set {} in the file instead", row.field);
        report.problem_at(None, row.flag, message);
    }
}

/// The port that `flag` names; None when it was not given, or after complaining.
pub(super) fn port(flag: &Option<String>, report: &mut Report) -> Option<i32> {
    let port = Some(text(flag)).filter(|port| !port.is_empty())?;
    let parsed = port.parse();
    if parsed.is_err() {
        report.problem_at(None, "--apiserver-bind-port", format!("{port:?} is not a port from 1 to 65535"));
    }
    parsed.ok()
}

/// The documents that the flags stand for.
pub(super) fn documents(flags: &Flags, report: &mut Report) -> (InitConfiguration, ClusterConfiguration) {
    let mut init = InitConfiguration::default();
    let mut cluster = ClusterConfiguration::default();
    init.local_api_endpoint.advertise_address = text(&flags.apiserver_advertise_address);
    init.local_api_endpoint.bind_port = port(&flags.apiserver_bind_port, report);
    init.node_registration.cri_socket = text(&flags.cri_socket);
    init.patches.directory = text(&flags.patches);
    init.certificate_key = flags.certificate_key.clone();
    init.bootstrap_tokens = vec![token(flags, report)];
    cluster.kubernetes_version = text(&flags.kubernetes_version);
    cluster.control_plane_endpoint = text(&flags.control_plane_endpoint);
    cluster.image_repository = text(&flags.image_repository);
    cluster.certificates_dir = text(&flags.cert_dir);
    cluster.networking.pod_subnet = text(&flags.pod_network_cidr);
    cluster.networking.service_subnet = text(&flags.service_cidr);
    cluster.networking.dns_domain = text(&flags.service_dns_domain);
    cluster.api_server.cert_sans = flags.apiserver_cert_extra_sans.clone();
    cluster.feature_gates = feature_gates(&flags.feature_gates, report);
    (init, cluster)
}

/// The one token that flags can name.
fn token(flags: &Flags, report: &mut Report) -> BootstrapToken {
    let mut token = BootstrapToken {
        token: Secret(flags.token.0.trim().to_owned()),
        description: DEFAULT_DESCRIPTION.to_owned(),
        ..BootstrapToken::default()
    };
    match flags.token_ttl.as_deref().map(str::trim).filter(|text| !text.is_empty()).map(str::parse::<GoDuration>) {
        Some(Ok(ttl)) if ttl.is_negative() => {
            report.problem_at(None, "--token-ttl", "a token cannot live shorter than 0s; 0s lets it live for ever");
        }
        Some(Ok(ttl)) => token.ttl = Some(ttl),
        Some(Err(error)) => report.problem_at(None, "--token-ttl", error.to_string()),
        None => {}
    }
    token
}

/// `NAME=true,NAME=false`.
fn feature_gates(texts: &[String], report: &mut Report) -> BTreeMap<String, bool> {
    let mut gates = BTreeMap::new();
    for text in texts.iter().map(|text| text.trim()).filter(|text| !text.is_empty()) {
        let parsed = text.split_once('=').and_then(|(name, on)| Some((name.trim(), on.trim().parse().ok()?)));
        match parsed {
            Some((name, on)) => drop(gates.insert(name.to_owned(), on)),
            None => report.problem_at(None, "--feature-gates", format!("{text:?} is not NAME=true or NAME=false")),
        }
    }
    gates
}
