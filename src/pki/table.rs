//! The two tables: what certificates there are, and what kubeconfigs. kubeadm's names, subjects and alternative names.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::config::ClusterSpec;
use crate::config::spec::Endpoint;

/// One pair of files in `certificatesDir`.
pub struct CertificateRow {
    /// kubeadm's name of the phase that makes it: `init phase certs NAME`.
    pub phase: &'static str,
    /// The files' path below `certificatesDir`, without `.crt` and `.key`.
    pub base: &'static str,
    /// What it is, as help texts say it.
    pub title: &'static str,
    /// Whether it is needed only where etcd runs on this node.
    pub etcd: bool,
    /// Authority, certificate or bare key pair.
    pub kind: Kind,
}

/// What kind of pair a row is.
pub enum Kind {
    /// A certificate authority, signed by itself.
    Authority {
        /// The common name of its subject, also its only DNS name, as kubeadm has it.
        common_name: &'static str,
    },
    /// A certificate that an authority of the table signs.
    Leaf(Leaf),
    /// A private key (`.key`) and its public key (`.pub`), without a certificate.
    KeyPair,
}

/// What a certificate says.
pub struct Leaf {
    /// The phase name of the authority that signs it.
    pub authority: &'static str,
    /// The common name of its subject.
    pub common_name: fn(&ClusterSpec) -> String,
    /// The organization of its subject, which is the group of a client.
    pub organization: Option<&'static str>,
    /// What it may be used for.
    pub usages: &'static [Usage],
    /// Under which names a server answers.
    pub sans: fn(&ClusterSpec) -> Vec<San>,
}

impl Leaf {
    /// Its organization as a list.
    pub(super) fn organizations(&self) -> Vec<String> {
        self.organization.iter().map(|organization| (*organization).to_owned()).collect()
    }
}

/// An extended key usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// `serverAuth`.
    Server,
    /// `clientAuth`.
    Client,
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server => "serverAuth",
            Self::Client => "clientAuth",
        })
    }
}

/// A subject alternative name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum San {
    /// A DNS name, possibly with a wildcard in front.
    Dns(String),
    /// An address.
    Ip(IpAddr),
}

impl San {
    /// An address where `text` is one, else a DNS name.
    pub fn new(text: &str) -> Self {
        text.parse().map_or_else(|_| Self::Dns(text.to_owned()), Self::Ip)
    }
}

impl fmt::Display for San {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => f.write_str(name),
            Self::Ip(address) => address.fmt(f),
        }
    }
}

impl CertificateRow {
    /// The phase name of the authority that signs it, None for authorities and bare keys.
    pub fn parent(&self) -> Option<&'static str> {
        match &self.kind {
            Kind::Leaf(leaf) => Some(leaf.authority),
            Kind::Authority { .. } | Kind::KeyPair => None,
        }
    }

    /// The names of its two files below `certificatesDir`, the private key first.
    pub fn files(&self) -> [String; 2] {
        let public = if matches!(self.kind, Kind::KeyPair) { "pub" } else { "crt" };
        [format!("{}.key", self.base), format!("{}.{public}", self.base)]
    }

    /// Whether a cluster of this spec has it: the etcd rows only exist where etcd is local.
    pub fn needed(&self, spec: &ClusterSpec) -> bool {
        !self.etcd || spec.etcd.local().is_some()
    }
}

/// Every certificate and key pair, in kubeadm's order; an authority stands before what it signs.
pub const CERTIFICATES: &[CertificateRow] = &[
    CertificateRow {
        phase: "ca",
        base: "ca",
        title: "the self-signed Kubernetes CA that provisions identities for Kubernetes components",
        etcd: false,
        kind: Kind::Authority { common_name: "kubernetes" },
    },
    CertificateRow {
        phase: "apiserver",
        base: "apiserver",
        title: "the certificate for serving the Kubernetes API",
        etcd: false,
        kind: Kind::Leaf(Leaf {
            authority: "ca",
            common_name: |_| "kube-apiserver".into(),
            organization: None,
            usages: &[Usage::Server],
            sans: api_server_sans,
        }),
    },
    CertificateRow {
        phase: "apiserver-kubelet-client",
        base: "apiserver-kubelet-client",
        title: "the certificate for the API server to connect to the kubelet",
        etcd: false,
        kind: Kind::Leaf(Leaf {
            authority: "ca",
            common_name: |_| "kube-apiserver-kubelet-client".into(),
            organization: None,
            usages: &[Usage::Client],
            sans: no_sans,
        }),
    },
    CertificateRow {
        phase: "front-proxy-ca",
        base: "front-proxy-ca",
        title: "the self-signed CA that provisions identities for the front proxy",
        etcd: false,
        kind: Kind::Authority { common_name: "front-proxy-ca" },
    },
    CertificateRow {
        phase: "front-proxy-client",
        base: "front-proxy-client",
        title: "the certificate for the front proxy client",
        etcd: false,
        kind: Kind::Leaf(Leaf {
            authority: "front-proxy-ca",
            common_name: |_| "front-proxy-client".into(),
            organization: None,
            usages: &[Usage::Client],
            sans: no_sans,
        }),
    },
    CertificateRow {
        phase: "etcd-ca",
        base: "etcd/ca",
        title: "the self-signed CA that provisions identities for etcd",
        etcd: true,
        kind: Kind::Authority { common_name: "etcd-ca" },
    },
    CertificateRow {
        phase: "etcd-server",
        base: "etcd/server",
        title: "the certificate for serving etcd",
        etcd: true,
        kind: Kind::Leaf(Leaf {
            authority: "etcd-ca",
            common_name: |spec| spec.node.name.clone(),
            organization: None,
            usages: &[Usage::Server, Usage::Client],
            sans: etcd_server_sans,
        }),
    },
    CertificateRow {
        phase: "etcd-peer",
        base: "etcd/peer",
        title: "the certificate for etcd nodes to communicate with each other",
        etcd: true,
        kind: Kind::Leaf(Leaf {
            authority: "etcd-ca",
            common_name: |spec| spec.node.name.clone(),
            organization: None,
            usages: &[Usage::Server, Usage::Client],
            sans: etcd_peer_sans,
        }),
    },
    CertificateRow {
        phase: "etcd-healthcheck-client",
        base: "etcd/healthcheck-client",
        title: "the certificate for liveness probes to healthcheck etcd",
        etcd: true,
        kind: Kind::Leaf(Leaf {
            authority: "etcd-ca",
            common_name: |_| "kube-etcd-healthcheck-client".into(),
            organization: None,
            usages: &[Usage::Client],
            sans: no_sans,
        }),
    },
    CertificateRow {
        phase: "apiserver-etcd-client",
        base: "apiserver-etcd-client",
        title: "the certificate the API server uses to access etcd",
        etcd: true,
        kind: Kind::Leaf(Leaf {
            authority: "etcd-ca",
            common_name: |_| "kube-apiserver-etcd-client".into(),
            organization: None,
            usages: &[Usage::Client],
            sans: no_sans,
        }),
    },
    CertificateRow {
        phase: "sa",
        base: "sa",
        title: "the private key for signing service account tokens along with its public key",
        etcd: false,
        kind: Kind::KeyPair,
    },
];

/// One kubeconfig in `/etc/kubernetes`.
pub struct KubeconfigRow {
    /// kubeadm's name of the phase that makes it: `init phase kubeconfig NAME`.
    pub phase: &'static str,
    /// The file's name.
    pub file: &'static str,
    /// What it is, as help texts say it.
    pub title: &'static str,
    /// The user: the common name of the client certificate.
    pub user: fn(&ClusterSpec) -> String,
    /// The user's group: the organization of the client certificate.
    pub organization: Option<&'static str>,
    /// Which API server it goes to.
    pub server: fn(&ClusterSpec) -> Endpoint,
}

/// Every kubeconfig, in kubeadm's order.
pub const KUBECONFIGS: &[KubeconfigRow] = &[
    KubeconfigRow {
        phase: "admin",
        file: "admin.conf",
        title: "a kubeconfig file for the admin to use and for kubeboot itself",
        user: |_| "kubernetes-admin".into(),
        organization: Some("kubeadm:cluster-admins"),
        server: ClusterSpec::shared_endpoint,
    },
    KubeconfigRow {
        phase: "super-admin",
        file: "super-admin.conf",
        title: "a kubeconfig file for the super-admin",
        user: |_| "kubernetes-super-admin".into(),
        organization: Some("system:masters"),
        server: ClusterSpec::shared_endpoint,
    },
    KubeconfigRow {
        phase: "kubelet",
        file: "kubelet.conf",
        title: "a kubeconfig file for the kubelet to use only for cluster bootstrapping purposes",
        user: |spec| format!("system:node:{}", spec.node.name),
        organization: Some("system:nodes"),
        server: ClusterSpec::local_endpoint,
    },
    KubeconfigRow {
        phase: "controller-manager",
        file: "controller-manager.conf",
        title: "a kubeconfig file for the controller manager to use",
        user: |_| "system:kube-controller-manager".into(),
        organization: None,
        server: ClusterSpec::local_endpoint,
    },
    KubeconfigRow {
        phase: "scheduler",
        file: "scheduler.conf",
        title: "a kubeconfig file for the scheduler to use",
        user: |_| "system:kube-scheduler".into(),
        organization: None,
        server: ClusterSpec::local_endpoint,
    },
];

fn no_sans(_: &ClusterSpec) -> Vec<San> {
    Vec::new()
}

fn api_server_sans(spec: &ClusterSpec) -> Vec<San> {
    let service = format!("kubernetes.default.svc.{}", spec.networking.dns_domain);
    let names = [&spec.node.name, "kubernetes", "kubernetes.default", "kubernetes.default.svc", &service];
    let mut sans: Vec<San> = names.into_iter().map(San::new).collect();
    sans.extend(spec.networking.service_subnets.first().map(|subnet| San::Ip(first_address(subnet))));
    sans.push(San::Ip(spec.node.advertise_address));
    sans.extend(spec.control_plane_endpoint.iter().map(|endpoint| San::new(&endpoint.host)));
    sans.extend(spec.api_server_cert_sans.iter().map(|san| San::new(san)));
    tidy(sans)
}

fn etcd_server_sans(spec: &ClusterSpec) -> Vec<San> {
    etcd_sans(spec, spec.etcd.local().map_or(&[], |etcd| &etcd.server_cert_sans))
}

fn etcd_peer_sans(spec: &ClusterSpec) -> Vec<San> {
    etcd_sans(spec, spec.etcd.local().map_or(&[], |etcd| &etcd.peer_cert_sans))
}

fn etcd_sans(spec: &ClusterSpec, more: &[String]) -> Vec<San> {
    let mut sans = vec![
        San::new(&spec.node.name),
        San::Dns("localhost".into()),
        San::Ip(spec.node.advertise_address),
        San::Ip(Ipv4Addr::LOCALHOST.into()),
        San::Ip(Ipv6Addr::LOCALHOST.into()),
    ];
    sans.extend(more.iter().map(|san| San::new(san)));
    tidy(sans)
}

/// DNS names first, both sorted, none twice.
fn tidy(sans: Vec<San>) -> Vec<San> {
    sans.into_iter().collect::<BTreeSet<_>>().into_iter().collect()
}

/// The first address of a service network, which is that of the service `kubernetes`.
fn first_address(subnet: &IpNet) -> IpAddr {
    match subnet {
        IpNet::V4(v4) => Ipv4Addr::from_bits(v4.network().to_bits().wrapping_add(1)).into(),
        IpNet::V6(v6) => Ipv6Addr::from_bits(v6.network().to_bits().wrapping_add(1)).into(),
    }
}
