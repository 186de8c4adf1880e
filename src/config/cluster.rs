//! What is the cluster's as a whole: version, certificates, feature gates; and what has no effect.

use std::time::Duration;

use super::certificate_key::{CertificateKey, CertificateKeyError};
use super::durations::GoDuration;
use super::names;
use super::node::positive;
use super::report::{Part, Report};
use super::spec::{DnsSpec, KeyAlgorithm, KubebootSpec};
use super::wire::{self, ClusterConfiguration, Secret};
use crate::release::{self, KubernetesVersion};

/// Labels that stand for the newest release. kubeadm asks the network; we take the newest release we know.
const LABELS: &[&str] = &["stable", "stable-1", "latest", "latest-1"];

/// `kubernetesVersion`; the newest known release where there is none or a label that means it.
pub(super) fn version((part, field): (Part, &str), text: &str, report: &mut Report) -> Option<KubernetesVersion> {
    let text = text.trim();
    let resolved = report.check(part, field, resolve_label(text))?;
    let default = release::DEFAULT_VERSION;
    let parsed = resolved
        .parse::<KubernetesVersion>()
        .map_err(|_| format!("{text:?} is not a Kubernetes version; write all three numbers, such as {default}"));
    let version = report.check(part, field, parsed)?;
    if !text.is_empty() && resolved != text {
        report.warn(
            part,
            field,
            format!("{text} is taken as {resolved}, the newest known here; the network is not asked"),
        );
    }
    if let Some(warning) = release::find(&version).warning {
        report.warn(part, field, warning);
    }
    Some(version)
}

/// The version that a label stands for; a text that is none stays as it is.
fn resolve_label(text: &str) -> Result<String, String> {
    let default = release::DEFAULT_VERSION;
    if text.is_empty() || LABELS.contains(&text) {
        return Ok(default.to_owned());
    }
    let Some((kind, minor)) = text.split_once('-').filter(|(kind, _)| ["stable", "latest"].contains(kind)) else {
        return match text.starts_with("ci/") {
            true => Err(format!("{text:?} is a label of CI builds, which are not looked up; write the version itself")),
            false => Ok(text.to_owned()),
        };
    };
    let known = minor.strip_prefix("1.").and_then(|minor| minor.parse().ok()).and_then(release::newest);
    known.ok_or_else(|| {
        format!("the {kind} release of {minor} is not looked up; write the version itself, such as {default}")
    })
}

const DAY: i64 = 24 * 3600;
const YEAR: GoDuration = GoDuration::from_secs(365 * DAY);
const TEN_YEARS: GoDuration = GoDuration::from_secs(3650 * DAY);

/// How long certificates and CAs are valid.
pub(super) fn validity(cluster: &ClusterConfiguration, report: &mut Report) -> (Duration, Duration) {
    let leaf = period("certificateValidityPeriod", cluster.certificate_validity_period, YEAR, report);
    let ca = period("caCertificateValidityPeriod", cluster.ca_certificate_validity_period, TEN_YEARS, report);
    if leaf > ca {
        report.warn(Part::Cluster, "certificateValidityPeriod", "certificates outlive the CA that signs them");
    }
    (leaf, ca)
}

fn period(field: &str, given: Option<GoDuration>, default: GoDuration, report: &mut Report) -> Duration {
    let given = given.unwrap_or(default);
    if given > default {
        report.warn(Part::Cluster, field, format!("{given} is longer than the recommended {default}"));
    }
    report.check(Part::Cluster, field, positive(given)).unwrap_or_default()
}

/// `encryptionAlgorithm`'s words.
pub(super) const ALGORITHMS: &[(&str, KeyAlgorithm)] = &[
    ("RSA-2048", KeyAlgorithm::Rsa2048),
    ("RSA-3072", KeyAlgorithm::Rsa3072),
    ("RSA-4096", KeyAlgorithm::Rsa4096),
    ("ECDSA-P256", KeyAlgorithm::EcdsaP256),
    ("ECDSA-P384", KeyAlgorithm::EcdsaP384),
];

/// `encryptionAlgorithm`; ours is ECDSA P-256 where there is none.
pub(super) fn key_algorithm(cluster: &ClusterConfiguration, report: &mut Report) -> KeyAlgorithm {
    let word = cluster.encryption_algorithm.trim();
    if word.is_empty() {
        return KeyAlgorithm::default();
    }
    let found = ALGORITHMS.iter().find(|(name, _)| *name == word).map(|(_, algorithm)| *algorithm);
    found.unwrap_or_else(|| {
        let known = ALGORITHMS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        report.problem(Part::Cluster, "encryptionAlgorithm", format!("{word:?} is none of {known}"));
        KeyAlgorithm::default()
    })
}

/// What may be done with a feature gate.
enum Gate {
    /// Set, with no effect here.
    NoEffect,
    /// Only `true` is left.
    Locked,
    /// Gone from kubeadm.
    Removed,
}

const GATES: &[(&str, Gate)] = &[
    ("PublicKeysECDSA", Gate::NoEffect),
    ("RootlessControlPlane", Gate::NoEffect),
    ("NodeLocalCRISocket", Gate::Locked),
    ("ControlPlaneKubeletLocalMode", Gate::Removed),
    ("WaitForAllControlPlaneComponents", Gate::Removed),
    ("EtcdLearnerMode", Gate::Removed),
    ("UpgradeAddonsBeforeControlPlane", Gate::Removed),
    ("IPv6DualStack", Gate::Removed),
];

/// Every feature gate and what may be done with it, for the reference.
pub(super) fn gate_rows() -> impl Iterator<Item = (&'static str, &'static str)> {
    GATES.iter().map(|(name, gate)| {
        let state = match gate {
            Gate::NoEffect => "may be set, has no effect",
            Gate::Locked => "always on; `false` is an error",
            Gate::Removed => "gone from kubeadm; an error",
        };
        (*name, state)
    })
}

/// `featureGates`, the known ones.
pub(super) fn feature_gates(cluster: &ClusterConfiguration, report: &mut Report) -> Vec<(String, bool)> {
    let mut found = Vec::new();
    for (name, enabled) in &cluster.feature_gates {
        let field = format!("featureGates.{name}");
        match GATES.iter().find(|(known, _)| known == name).map(|(_, gate)| gate) {
            Some(Gate::NoEffect) => {
                let hint = if name == "PublicKeysECDSA" { "; set encryptionAlgorithm instead" } else { "" };
                report.warn(Part::Cluster, &field, format!("this feature gate has no effect{hint}"));
            }
            Some(Gate::Locked) if *enabled => report.warn(Part::Cluster, &field, "always on; the line can go"),
            Some(Gate::Locked) => {
                report.problem(Part::Cluster, &field, "always on and cannot be turned off; delete the line")
            }
            Some(Gate::Removed) => {
                report.problem(Part::Cluster, &field, "this feature gate is gone from kubeadm; delete the line");
            }
            None => {
                let gates = GATES.iter().filter(|(_, gate)| !matches!(gate, Gate::Removed));
                let known = gates.map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
                report.problem(Part::Cluster, &field, format!("unknown feature gate; known are {known}"));
            }
        }
        found.push((name.clone(), *enabled));
    }
    found
}

/// `skipPhases`, unless the flag is given.
pub(super) fn skip_phases(written: &[String], flag: &[String]) -> Vec<String> {
    let source = if flag.is_empty() { written } else { flag };
    let phases = source.iter().flat_map(|phases| phases.split(',')).map(str::trim);
    phases.filter(|phase| !phase.is_empty()).map(str::to_owned).collect()
}

/// Fields that are read and checked but change nothing in this version: part, field, why.
const UNUSED: &[(Part, &str, &str)] = &[
    (Part::Cluster, "etcd.external.httpEndpoints", "endpoints are asked instead"),
    (Part::Upgrade, "apply.allowExperimentalUpgrades", "--force goes to such a version"),
    (Part::Upgrade, "apply.allowRCUpgrades", "--force goes to such a version"),
    (Part::Upgrade, "apply.ignorePreflightErrors", "upgrade makes no preflight checks"),
    (Part::Upgrade, "apply.printConfig", "see the config map kubeadm-config"),
    (Part::Upgrade, "apply.skipPhases", "upgrade has no phases"),
];

/// Warns of what has no effect.
pub(super) fn warn_of_unused(report: &mut Report) {
    for (part, field, why) in UNUSED {
        if report.wrote(*part, field) {
            report.warn(*part, field, format!("has no effect: {why}"));
        }
    }
}

/// `certificateKey`, which no message may show.
pub(super) fn certificate_key(
    (part, field): (Part, &str),
    key: &Secret,
    report: &mut Report,
) -> Option<CertificateKey> {
    let key = Some(key.0.trim()).filter(|key| !key.is_empty())?;
    report.check(part, field, key.parse().map_err(|e: CertificateKeyError| e.to_string()))
}

/// `dns`; skipping its phase disables it, as with kubeadm.
pub(super) fn dns(wire: &wire::Dns, skip_phases: &[String], report: &mut Report) -> DnsSpec {
    let given = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
    let (image_repository, image_tag) = (given(&wire.image_repository), given(&wire.image_tag));
    if let Some(repository) = &image_repository {
        report.check(Part::Cluster, "dns.imageRepository", names::image_repository(repository));
    }
    if let Some(tag) = &image_tag {
        report.check(Part::Cluster, "dns.imageTag", names::image_tag(tag));
    }
    DnsSpec { image_repository, image_tag, disabled: wire.disabled || is_skipped(skip_phases, "addon", "coredns") }
}

/// Whether `skip_phases` takes away the phase `child` of `group`.
pub(super) fn is_skipped(skip_phases: &[String], group: &str, child: &str) -> bool {
    skip_phases.iter().any(|phase| phase == group || phase.strip_prefix(group) == Some(&format!("/{child}")))
}

const DOCKER_SCHEMES: &[&str] = &["unix://", "tcp://", "http://"];

/// Checks our own document.
pub(super) fn check_kubeboot(kubeboot: &KubebootSpec, report: &mut Report) {
    let Some(host) = &kubeboot.docker_host else { return };
    let known = DOCKER_SCHEMES.iter().find_map(|scheme| host.strip_prefix(scheme));
    let valid =
        known.is_some_and(|rest| if host.starts_with("unix") { rest.starts_with('/') } else { !rest.is_empty() });
    if !valid {
        let message =
            format!("{host:?} is not the address of a Docker Engine; write it as unix:///var/run/docker.sock");
        report.problem(Part::Kubeboot, "dockerHost", message);
    }
}
