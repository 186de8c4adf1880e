//! Who uses which certificate, and how its renewal shows.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::config::ClusterSpec;
use crate::manifests::{API_SERVER, ETCD};

/// The use of a certificate.
pub struct Use {
    /// kubeadm's name of the certificate.
    pub name: &'static str,
    /// The component that reads it when it starts; None where only people and commands do, who read it each time.
    pub component: Option<&'static str>,
    /// How it shows that the new one is in use.
    pub shows: Shows,
}

/// How it shows that a certificate is in use.
#[derive(Clone, Copy)]
pub enum Shows {
    /// A server shows it to who connects.
    Served(fn(&ClusterSpec) -> SocketAddr),
    /// The API server takes its bearer for who it is, and the component that uses it works.
    Known,
    /// The component that was started after it was written works.
    Works,
    /// No one uses it now.
    Nowhere,
}

/// One row a certificate.
pub const USES: &[Use] = &[
    Use { name: "etcd-server", component: Some(ETCD), shows: Shows::Served(etcd_client_port) },
    Use { name: "etcd-peer", component: Some(ETCD), shows: Shows::Served(|spec| here(spec, 2380)) },
    Use { name: "etcd-healthcheck-client", component: None, shows: Shows::Nowhere },
    Use {
        name: "apiserver",
        component: Some(API_SERVER),
        shows: Shows::Served(|spec| here(spec, spec.node.bind_port)),
    },
    Use { name: "apiserver-kubelet-client", component: Some(API_SERVER), shows: Shows::Works },
    Use { name: "apiserver-etcd-client", component: Some(API_SERVER), shows: Shows::Works },
    Use { name: "front-proxy-client", component: Some(API_SERVER), shows: Shows::Works },
    Use { name: "controller-manager.conf", component: Some("kube-controller-manager"), shows: Shows::Known },
    Use { name: "scheduler.conf", component: Some("kube-scheduler"), shows: Shows::Known },
    Use { name: "admin.conf", component: None, shows: Shows::Known },
    Use { name: "super-admin.conf", component: None, shows: Shows::Known },
];

/// The use of the certificate with kubeadm's name `name`.
pub fn use_of(name: &str) -> Option<&'static Use> {
    USES.iter().find(|row| row.name == name)
}

/// Where a self-signed certificate tells one process of a component from the next.
pub fn own_port(spec: &ClusterSpec, component: &str) -> Option<SocketAddr> {
    let port = match component {
        "kube-controller-manager" => 10257,
        "kube-scheduler" => 10259,
        _ => return None,
    };
    Some(loopback(spec, port))
}

fn here(spec: &ClusterSpec, port: u16) -> SocketAddr {
    SocketAddr::new(spec.node.advertise_address, port)
}

fn etcd_client_port(spec: &ClusterSpec) -> SocketAddr {
    loopback(spec, 2379)
}

fn loopback(spec: &ClusterSpec, port: u16) -> SocketAddr {
    match spec.node.advertise_address.is_ipv6() {
        true => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), port),
        false => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_certificate_that_is_renewed_has_its_use() {
        let mut names: Vec<&str> = USES.iter().map(|row| row.name).collect();
        names.sort_unstable();
        assert_eq!(names, crate::pki::renewable_names());
    }
}
