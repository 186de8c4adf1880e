//! What is known of a cluster, judged for an upgrade. Pure.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::Node;
use crate::etcd::Minor;
use crate::pki::Expiration;
use crate::release::{KubernetesVersion, etcd_goes_back, etcds_for, newest};
use crate::workflow::preflight::upgrade::KUBELETS;
use crate::workflow::preflight::{Finding, Severity};

/// Certificates that end within this time are shown: the agent and kubeadm leave a month for their renewal.
const SOON: SignedDuration = SignedDuration::from_hours(24 * 30);
/// The same for authorities, which no upgrade renews: another one has to reach every node first.
const SOON_FOR_AUTHORITIES: SignedDuration = SignedDuration::from_hours(24 * 365);

/// What becomes of etcd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EtcdStep {
    /// The version that runs.
    pub from: String,
    /// The version that the upgrade goes to.
    pub to: String,
    /// Whether it is replaced.
    pub replaced: bool,
    /// The minor versions of etcd that open the data as they are.
    pub data_opened_by: Vec<String>,
    /// Whether the new one can take its data back to the old one's format, so that a rollback loses nothing.
    pub goes_back: bool,
}

/// What becomes of an etcd of the version `from` when `to` follows it.
pub fn etcd_step(from: &str, to: &str, replaced: bool) -> EtcdStep {
    let pair = |text: &str| Minor::of(text).map(|minor| (minor.major, minor.minor));
    let (old, new) = (pair(from), pair(to));
    let opened_by = old.map(etcds_for).unwrap_or_default();
    EtcdStep {
        from: from.to_owned(),
        to: to.to_owned(),
        replaced,
        data_opened_by: opened_by.into_iter().map(|(major, minor)| format!("{major}.{minor}")).collect(),
        goes_back: matches!((old, new), (Some(old), Some(new)) if old == new || etcd_goes_back(new, old)),
    }
}

/// The versions that a control plane of `from` may go to, of those that this program knows.
pub fn reachable(from: &KubernetesVersion) -> Vec<KubernetesVersion> {
    let known = [from.minor(), from.minor() + 1].into_iter().filter_map(newest);
    known.filter_map(|version| version.parse().ok()).filter(|version| version > from).collect()
}

/// Kubelets that are newer than the control plane would be: Kubernetes supports none.
pub fn newer_kubelets(nodes: &[Node], to: &KubernetesVersion) -> Option<Finding> {
    let is_newer = |node: &&Node| {
        let version = node.kubelet.as_ref().and_then(|version| version.parse::<KubernetesVersion>().ok());
        version.is_some_and(|version| version.minor() > to.minor())
    };
    let newer: Vec<&str> = nodes.iter().filter(is_newer).map(|node| node.name.as_str()).collect();
    let message = format!(
        "the kubelets of these nodes are newer than {to}, which Kubernetes does not support: {}",
        newer.join(", ")
    );
    (!newer.is_empty()).then(|| Finding { check: KUBELETS.into(), severity: Severity::Warning, message })
}

/// A certificate that ends soon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Expiring {
    /// kubeadm's name.
    pub name: String,
    /// When it ends.
    pub expires: Timestamp,
    /// Whether it is a CA's.
    pub authority: bool,
    /// Whether the upgrade renews it.
    pub renewed: bool,
}

/// Certificates and authorities that end soon, `renewed` being the names of those that the upgrade renews; and a warning for
/// each that it does not.
pub fn expiring(
    (certificates, authorities): (&[Expiration], &[Expiration]),
    renewed: &[&str],
    now: Timestamp,
) -> (Vec<Expiring>, Vec<Finding>) {
    let soon = |limit: SignedDuration| move |one: &&Expiration| one.at.is_some_and(|at| at < now + limit);
    let of = |one: &Expiration, authority: bool| Expiring {
        name: one.name.to_owned(),
        expires: one.at.unwrap_or(now),
        authority,
        renewed: !authority && !one.external && renewed.contains(&one.name),
    };
    let leaves = certificates.iter().filter(soon(SOON)).map(|one| of(one, false));
    let all: Vec<Expiring> =
        leaves.chain(authorities.iter().filter(soon(SOON_FOR_AUTHORITIES)).map(|one| of(one, true))).collect();
    let warnings = all.iter().filter(|one| !one.renewed).map(|one| warning(one, now)).collect();
    (all, warnings)
}

fn warning(one: &Expiring, now: Timestamp) -> Finding {
    let what = if one.authority { "the certificate of the authority" } else { "the certificate" };
    let when = one.expires.strftime("%Y-%m-%d");
    let ends = if one.expires <= now { "has ended on" } else { "ends on" };
    let remedy = if one.authority { "no upgrade renews it" } else { "this upgrade does not renew it" };
    let message = format!("{what} {} {ends} {when}, and {remedy}", one.name);
    Finding { check: "CertificateExpiration".into(), severity: Severity::Warning, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_follow_is_of_this_minor_or_the_next_and_newer() {
        let from = |text: &str| reachable(&text.parse().unwrap()).iter().map(ToString::to_string).collect::<Vec<_>>();
        let (next, last) = (newest(36).unwrap(), newest(37).unwrap());
        assert_eq!(from("v1.36.2"), [next.clone(), last.clone()]);
        assert_eq!(from(&next), std::slice::from_ref(&last));
        assert_eq!(from("v1.35.99"), [next]);
        assert_eq!((from(&last), from("v1.28.0")), (vec![], vec![]));
        assert_eq!(from("v1.20.2"), ["v1.20.15"]);
    }

    #[test]
    fn an_etcds_step_names_what_opens_its_data_and_whether_it_goes_back() {
        let step = etcd_step("3.6.8", "3.7.0-0", true);
        assert_eq!((step.data_opened_by, step.goes_back), (vec!["3.6".to_owned(), "3.7".to_owned()], true));
        assert!(!etcd_step("3.4.13-0", "3.5.16-0", true).goes_back);
        assert!(etcd_step("3.6.8-0", "3.6.8-0", false).goes_back);
        let unknown = etcd_step("mine", "3.6.8", true);
        assert!(unknown.data_opened_by.is_empty() && !unknown.goes_back);
    }

    #[test]
    fn kubelets_that_are_newer_are_named() {
        let node = |name: &str, kubelet: Option<&str>| Node { name: name.into(), kubelet: kubelet.map(str::to_owned) };
        let nodes = [node("a", Some("v1.37.0")), node("b", Some("v1.36.9")), node("c", None), node("d", Some("?"))];
        let found = newer_kubelets(&nodes, &"v1.36.2".parse().unwrap()).unwrap();
        assert!(found.message.ends_with("does not support: a"), "{}", found.message);
        assert_eq!(newer_kubelets(&nodes, &"v1.37.0".parse().unwrap()), None);
    }

    #[test]
    fn what_ends_soon_is_shown_and_a_warning_where_it_is_not_renewed() {
        let now: Timestamp = "2027-01-01T12:00:00Z".parse().unwrap();
        let ends = |name, days: Option<i64>, external| Expiration {
            name,
            at: days.map(|days| now + SignedDuration::from_hours(24 * days)),
            authority: None,
            external,
        };
        let leaves = [
            ends("apiserver", Some(3), false),
            ends("etcd-server", Some(-3), true),
            ends("admin.conf", Some(300), false),
            ends("scheduler.conf", None, false),
        ];
        let authorities = [ends("ca", Some(100), false), ends("etcd-ca", Some(3000), false)];
        let (all, warnings) = expiring((&leaves, &authorities), &["apiserver", "etcd-server", "admin.conf"], now);
        let short: Vec<_> = all.iter().map(|one| (one.name.as_str(), one.authority, one.renewed)).collect();
        assert_eq!(short, [("apiserver", false, true), ("etcd-server", false, false), ("ca", true, false)]);
        let texts: Vec<String> = warnings.iter().map(|one| one.message.clone()).collect();
        assert_eq!(
            texts,
            [
                "the certificate etcd-server has ended on 2026-12-29, and this upgrade does not renew it",
                "the certificate of the authority ca ends on 2027-04-11, and no upgrade renews it",
            ]
        );
    }
}
