//! `JoinConfiguration` and the flags of `join`, into a [`JoinSpec`].

use super::bootstrap_token::Token;
use super::cluster::{certificate_key, check_kubeboot, skip_phases, warn_of_unused};
use super::error::ConfigError;
use super::flags::{self, FlagRow, beside, has, row, text};
use super::kinds;
use super::load::{Input, Loaded, conclude, directory, report_on};
use super::names;
use super::network::{check_port, or};
use super::node::{NodeInputs, node, timeouts, token};
use super::report::{Part, Report};
use super::spec::{CaPin, ControlPlaneJoin, Discovery, JoinSpec, KubebootSpec, KubeconfigSource, TokenDiscovery};
use super::wire::{self, BootstrapTokenDiscovery, FileDiscovery, JoinConfiguration, JoinControlPlane, Secret};

/// The flags of `join` as the user gave them; one that was not given is None, empty or false.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JoinFlags {
    /// The argument, `HOST:PORT`.
    pub endpoint: Option<String>,
    /// `--token`: for both of the next two where they are not given.
    pub token: Option<Secret>,
    /// `--discovery-token`.
    pub discovery_token: Option<Secret>,
    /// `--tls-bootstrap-token`.
    pub tls_bootstrap_token: Option<Secret>,
    /// `--discovery-token-ca-cert-hash`.
    pub discovery_token_ca_cert_hash: Vec<String>,
    /// `--discovery-token-unsafe-skip-ca-verification`.
    pub discovery_token_unsafe_skip_ca_verification: bool,
    /// `--discovery-file`.
    pub discovery_file: Option<String>,
    /// `--control-plane`.
    pub control_plane: bool,
    /// `--apiserver-advertise-address`.
    pub apiserver_advertise_address: Option<String>,
    /// `--apiserver-bind-port`.
    pub apiserver_bind_port: Option<String>,
    /// `--certificate-key`.
    pub certificate_key: Option<Secret>,
    /// `--node-name`; may go with `--config`.
    pub node_name: Option<String>,
    /// `--ignore-preflight-errors`; may go with `--config`, which it adds to.
    pub ignore_preflight_errors: Vec<String>,
    /// `--skip-phases`; may go with `--config`, whose `skipPhases` it replaces.
    pub skip_phases: Vec<String>,
    /// `--patches`.
    pub patches: Option<String>,
    /// `--cri-socket`.
    pub cri_socket: Option<String>,
}

const TOKEN: &str = "discovery.bootstrapToken.token";
const TLS_TOKEN: &str = "discovery.tlsBootstrapToken";
const ENDPOINT: &str = "discovery.bootstrapToken.apiServerEndpoint";
const HASHES: &str = "discovery.bootstrapToken.caCertHashes";
const FILE: &str = "discovery.file.kubeConfigPath";

const FLAGS: &[FlagRow<JoinFlags>] = &[
    row("--discovery-token", TOKEN, |flags| flags.discovery_token.is_some()),
    row("--token", TOKEN, |flags| flags.token.is_some()),
    row("--tls-bootstrap-token", TLS_TOKEN, |flags| flags.tls_bootstrap_token.is_some()),
    row("--token", TLS_TOKEN, |flags| flags.token.is_some()),
    row("--discovery-token-ca-cert-hash", HASHES, |flags| !flags.discovery_token_ca_cert_hash.is_empty()),
    row(
        "--discovery-token-unsafe-skip-ca-verification",
        "discovery.bootstrapToken.unsafeSkipCAVerification",
        |flags| flags.discovery_token_unsafe_skip_ca_verification,
    ),
    row("--discovery-file", FILE, |flags| has(&flags.discovery_file)),
    row("--control-plane", "controlPlane", |flags| flags.control_plane),
    row("--apiserver-advertise-address", "controlPlane.localAPIEndpoint.advertiseAddress", |flags| {
        has(&flags.apiserver_advertise_address)
    }),
    row("--apiserver-bind-port", "controlPlane.localAPIEndpoint.bindPort", |flags| has(&flags.apiserver_bind_port)),
    row("--certificate-key", "controlPlane.certificateKey", |flags| flags.certificate_key.is_some()),
    row("--patches", "patches.directory", |flags| has(&flags.patches)),
    row("--cri-socket", "nodeRegistration.criSocket", |flags| has(&flags.cri_socket)),
    beside("HOST:PORT", ENDPOINT, |flags| has(&flags.endpoint)),
    beside("--node-name", "nodeRegistration.name", |flags| has(&flags.node_name)),
    beside("--ignore-preflight-errors", "nodeRegistration.ignorePreflightErrors", |flags| {
        !flags.ignore_preflight_errors.is_empty()
    }),
    beside("--skip-phases", "skipPhases", |flags| !flags.skip_phases.is_empty()),
];

/// What join reads.
const PARTS: &[Part] = &[Part::Join, Part::Kubeboot];

/// Reads, defaults and checks the configuration of `join`. No file is opened, no network asked: a kubeconfig of the
/// discovery is only named.
///
/// # Errors
/// Everything that is wrong with the file and the flags, at once.
pub fn load_join(input: &Input<JoinFlags>) -> Result<Loaded<JoinSpec>, ConfigError> {
    let mut report = report_on(input, FLAGS);
    let (join, kubeboot) = match &input.file {
        Some((_, text)) => {
            flags::refuse(FLAGS, &input.flags, &mut report);
            if has(&input.flags.endpoint) {
                report.warn_at(None, "HOST:PORT", format!("ignored beside --config: {ENDPOINT} of the file counts"));
            }
            kinds::read(text, PARTS, &mut report);
            kinds::demand(Part::Join, &mut report);
            decode(&mut report)
        }
        None => (document(&input.flags, &mut report), KubebootSpec::default()),
    };
    let spec = resolve(&join, kubeboot, input, &mut report);
    conclude(spec, join.dry_run, report)
}

/// Decodes what was read.
pub(super) fn decode(report: &mut Report) -> (JoinConfiguration, KubebootSpec) {
    (kinds::decode(Part::Join, report), kinds::decode(Part::Kubeboot, report))
}

/// The document that the flags stand for.
fn document(flags: &JoinFlags, report: &mut Report) -> JoinConfiguration {
    let mut join = JoinConfiguration::default();
    join.node_registration.cri_socket = text(&flags.cri_socket);
    join.patches.directory = text(&flags.patches);
    let secret = |flag: &Option<Secret>| flag.clone().or_else(|| flags.token.clone()).unwrap_or_default();
    join.discovery.tls_bootstrap_token = secret(&flags.tls_bootstrap_token);
    if has(&flags.discovery_file) {
        join.discovery.file = Some(FileDiscovery { kube_config_path: text(&flags.discovery_file) });
    }
    if has(&flags.endpoint) {
        join.discovery.bootstrap_token = Some(BootstrapTokenDiscovery {
            token: secret(&flags.discovery_token),
            api_server_endpoint: text(&flags.endpoint),
            ca_cert_hashes: flags.discovery_token_ca_cert_hash.clone(),
            unsafe_skip_ca_verification: flags.discovery_token_unsafe_skip_ca_verification,
        });
    }
    if flags.control_plane {
        let mut control_plane = JoinControlPlane::default();
        control_plane.local_api_endpoint.advertise_address = text(&flags.apiserver_advertise_address);
        control_plane.local_api_endpoint.bind_port = flags::port(&flags.apiserver_bind_port, report);
        control_plane.certificate_key = flags.certificate_key.clone().unwrap_or_default();
        join.control_plane = Some(control_plane);
    } else {
        warn_of_worker(flags, report);
    }
    join
}

/// kubeadm only warns of these too.
fn warn_of_worker(flags: &JoinFlags, report: &mut Report) {
    let rows = FLAGS.iter().filter(|row| row.field.starts_with("controlPlane.") && (row.given)(flags));
    for row in rows {
        report.warn_at(None, row.flag, "has no effect without --control-plane");
    }
}

/// None only where the report has a problem.
pub(super) fn resolve(
    join: &JoinConfiguration,
    kubeboot: KubebootSpec,
    input: &Input<JoinFlags>,
    report: &mut Report,
) -> Option<JoinSpec> {
    let endpoint = join.control_plane.as_ref().map(|wire| (&wire.local_api_endpoint, "controlPlane.localAPIEndpoint"));
    let given = NodeInputs {
        part: Part::Join,
        registration: &join.node_registration,
        endpoint,
        host: &input.host,
        name: input.flags.node_name.as_deref(),
        ignore: &input.flags.ignore_preflight_errors,
    };
    let node = node(&given, report);
    if join.control_plane.is_some() {
        check_port((Part::Join, "controlPlane.localAPIEndpoint.bindPort"), node.bind_port, true, report);
    }
    let control_plane = join.control_plane.as_ref().map(|wire| ControlPlaneJoin {
        certificate_key: certificate_key((Part::Join, "controlPlane.certificateKey"), &wire.certificate_key, report),
    });
    let ca_cert_path = or(&join.ca_cert_path, "/etc/kubernetes/pki/ca.crt");
    let ca_cert_path = names::absolute(ca_cert_path).and_then(|path| match path.extension() {
        Some(extension) if extension == "crt" => Ok(path),
        _ => Err(format!("{ca_cert_path:?} is not the path of a certificate; let it end in .crt")),
    });
    let ca_cert_path = report.check(Part::Join, "caCertPath", ca_cert_path);
    let timeouts = timeouts(Part::Join, &join.timeouts, report);
    let discovery = discovery(&join.discovery, report);
    check_kubeboot(&kubeboot, report);
    warn_of_unused(report);
    let (discovery, tls_bootstrap_token) = discovery?;
    Some(JoinSpec {
        node,
        discovery,
        tls_bootstrap_token,
        ca_cert_path: ca_cert_path?,
        control_plane,
        patches_dir: directory(&join.patches.directory),
        timeouts,
        skip_phases: skip_phases(&join.skip_phases, &input.flags.skip_phases),
        kubeboot,
    })
}

/// `discovery`, and the token of the TLS bootstrap.
fn discovery(wire: &wire::Discovery, report: &mut Report) -> Option<(Discovery, Option<Token>)> {
    let own = |report: &mut Report| {
        let text = Some(&wire.tls_bootstrap_token).filter(|text| !text.0.is_empty())?;
        token((Part::Join, TLS_TOKEN), text, report)
    };
    match (&wire.bootstrap_token, &wire.file) {
        (Some(by_token), None) => {
            let found = token_discovery(by_token, report);
            // The same text is complained of once.
            let same = wire.tls_bootstrap_token == by_token.token;
            let own = if same { None } else { own(report) };
            let found = found?;
            let tls = own.or_else(|| Some(found.token.clone()));
            Some((Discovery::Token(found), tls))
        }
        (None, Some(file)) => {
            let source = report.check(Part::Join, FILE, source(file.kube_config_path.trim()));
            let own = own(report);
            Some((Discovery::File(source?), own))
        }
        (Some(_), Some(_)) => {
            report.problem(Part::Join, "discovery", "bootstrapToken and file exclude each other; leave one out");
            None
        }
        (None, None) => {
            let message = "nothing says how to find the cluster; give HOST:PORT with --token and \
                           --discovery-token-ca-cert-hash, or --discovery-file (in a file: bootstrapToken or file)";
            report.problem(Part::Join, "discovery", message);
            None
        }
    }
}

fn token_discovery(wire: &BootstrapTokenDiscovery, report: &mut Report) -> Option<TokenDiscovery> {
    let token = token((Part::Join, TOKEN), &wire.token, report);
    let endpoint = report.check(Part::Join, ENDPOINT, names::host_port(wire.api_server_endpoint.trim()));
    let mut pins = Vec::new();
    for (index, hash) in wire.ca_cert_hashes.iter().enumerate() {
        let pin = hash.trim().parse::<CaPin>().map_err(|error| error.to_string());
        pins.extend(report.check(Part::Join, &format!("{HASHES}[{index}]"), pin));
    }
    if wire.ca_cert_hashes.is_empty() && !wire.unsafe_skip_ca_verification {
        let message = "without a hash of the cluster's CA anybody who holds the token can pose as the cluster; give one \
                       (`kubeboot token create --print-join-command` shows it), or set unsafeSkipCAVerification \
                       (--discovery-token-unsafe-skip-ca-verification)";
        report.problem(Part::Join, HASHES, message);
    }
    Some(TokenDiscovery {
        endpoint: endpoint?,
        token: token?,
        pins,
        unsafe_skip_ca_verification: wire.unsafe_skip_ca_verification,
    })
}

/// A path, or an https URL.
fn source(text: &str) -> Result<KubeconfigSource, String> {
    match text.split_once("://") {
        _ if text.is_empty() => Err("the path of a kubeconfig is missing; give one, or an https URL".into()),
        None => Ok(KubeconfigSource::Path(text.into())),
        Some(("https", rest))
            if !rest.is_empty() && text.parse::<http::Uri>().is_ok_and(|uri| uri.host().is_some()) =>
        {
            Ok(KubeconfigSource::Url(text.to_owned()))
        }
        Some(_) => Err(format!("{text:?} is neither a path nor an https URL; nothing else is safe to trust")),
    }
}
