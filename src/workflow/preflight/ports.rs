//! Checks of the ports that a node's components will listen on, each at the addresses it is configured for, as kubeadm
//! looks at them from 1.37 on: what listens on another address of this machine is in no one's way.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use http::Uri;
use serde_json::Value;

use super::{Goal, Problem, Subject};
use crate::config::spec::{Arg, ClusterSpec, EtcdSpec, LocalEtcd, NodeAgent, last_arg};

/// What Go listens on for `0.0.0.0` and for `::` alike: every address of both families.
const EVERY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// A port that something of ours will listen on.
pub(super) struct NeededPort {
    pub port: u16,
    addresses: Vec<IpAddr>,
    owner: &'static str,
    /// How to have it elsewhere.
    otherwise: &'static str,
}

impl NeededPort {
    fn of(owner: &'static str, addresses: Vec<IpAddr>, port: u16) -> Self {
        Self { port, addresses, owner, otherwise: "" }
    }

    fn or(self, otherwise: &'static str) -> Self {
        Self { otherwise, ..self }
    }

    /// Whether what listens on `listener` keeps the owner from listening.
    fn is_taken_by(&self, listener: SocketAddr) -> bool {
        let (port, taken) = (listener.port(), listener.ip().to_canonical());
        let clash = |own: &IpAddr| own.is_unspecified() || taken.is_unspecified() || *own == taken;
        port == self.port && self.addresses.iter().any(clash)
    }
}

/// kubeadm's ports in kubeadm's order, then those that kubeadm forgets.
pub(super) fn needed_ports(goal: Goal<'_>) -> Vec<NeededPort> {
    match goal {
        Goal::Init(spec) => of_control_plane(spec),
        Goal::Join(..) => vec![NeededPort::of("the kubelet", vec![EVERY], 10250)],
    }
}

fn of_control_plane(spec: &ClusterSpec) -> Vec<NeededPort> {
    let bound = |component: &[Arg], default| match last_arg(component, "bind-address").map(str::parse) {
        Some(Ok(address)) => vec![address],
        // What is no address, the component itself refuses.
        Some(Err(_)) => vec![EVERY],
        None => vec![default],
    };
    let loopback = loopback(spec);
    let elsewhere = ", or choose another port with --apiserver-bind-port";
    let mut ports = vec![
        NeededPort::of("kube-apiserver", bound(&spec.api_server.extra_args, EVERY), spec.node.bind_port).or(elsewhere),
        NeededPort::of("kube-scheduler", bound(&spec.scheduler.extra_args, loopback), 10259),
        NeededPort::of("kube-controller-manager", bound(&spec.controller_manager.extra_args, loopback), 10257),
    ];
    ports.extend(of_node(spec));
    if let EtcdSpec::Local(local) = &spec.etcd {
        ports.extend(of_etcd(spec, local));
    }
    ports
}

/// The ports of the kubelet's API and health check, whoever serves them.
fn of_node(spec: &ClusterSpec) -> Vec<NeededPort> {
    let (api, health) = match spec.kubeboot.node_agent {
        NodeAgent::Kubelet => ("the kubelet", "the kubelet's health check"),
        NodeAgent::Embedded => ("the agent", "the agent's health check"),
    };
    let row = |owner, (port, default): (&str, u16), (address, all): (&str, IpAddr), otherwise| {
        let port =
            spec.kubelet.get(port).and_then(Value::as_u64).map_or(Some(default), |port| u16::try_from(port).ok());
        let address =
            spec.kubelet.get(address).and_then(Value::as_str).and_then(|text| text.parse().ok()).unwrap_or(all);
        // Port 0 turns the health check off, and stands for the default of the API.
        port.filter(|port| *port != 0).map(|port| NeededPort::of(owner, vec![address], port).or(otherwise))
    };
    let loopback = loopback(spec);
    let rows = [
        row(api, ("port", 10250), ("address", EVERY), ", or choose another port with port in KubeletConfiguration"),
        row(
            health,
            ("healthzPort", 10248),
            ("healthzBindAddress", loopback),
            ", or choose another port with healthzPort in KubeletConfiguration",
        ),
    ];
    rows.into_iter().flatten().collect()
}

/// The ports of etcd's clients, peers and metrics, each with all its addresses.
fn of_etcd(spec: &ClusterSpec, local: &LocalEtcd) -> Vec<NeededPort> {
    let (own, node) = (loopback(spec), spec.node.advertise_address);
    let defaults = [
        ("listen-client-urls", 2379, vec![own, node]),
        ("listen-peer-urls", 2380, vec![node]),
        ("listen-metrics-urls", 2381, vec![own]),
    ];
    let mut ports: Vec<NeededPort> = Vec::new();
    for (flag, port, addresses) in defaults {
        let listened = match last_arg(&local.component.extra_args, flag) {
            Some(urls) => urls.split(',').filter_map(|url| listened_on(url, port)).collect(),
            None => addresses.into_iter().map(|address| (address, port)).collect::<Vec<_>>(),
        };
        for (address, port) in listened {
            match ports.iter_mut().find(|needed| needed.port == port) {
                Some(needed) => needed.addresses.push(address),
                None => ports.push(NeededPort::of("etcd", vec![address], port)),
            }
        }
    }
    ports
}

/// Where etcd listens for one of its URLs: at an address, as a name is none that it takes; None for a socket's path.
fn listened_on(url: &str, default: u16) -> Option<(IpAddr, u16)> {
    let url: Uri = url.trim().parse().ok()?;
    let address = match url.host()?.trim_matches(['[', ']']) {
        "localhost" => Ipv4Addr::LOCALHOST.into(),
        host => host.parse().ok()?,
    };
    Some((address, url.port_u16().unwrap_or(default)))
}

fn loopback(spec: &ClusterSpec) -> IpAddr {
    spec.loopback().parse().unwrap_or(EVERY)
}

pub(super) fn ports(s: &Subject) -> Vec<Problem> {
    let is_ours = |pid: Option<u32>| pid.is_some_and(|pid| s.ours.pids.contains(&pid));
    let problem = |needed: NeededPort| {
        let NeededPort { port, owner, otherwise, .. } = needed;
        let listener = s.facts.listeners.iter().find(|listener| {
            let pid = listener.process.as_ref().map(|process| process.pid);
            needed.is_taken_by(listener.address) && !s.ours.ports.contains(&port) && !is_ours(pid)
        })?;
        let address = listener.address;
        let message = match &listener.process {
            Some(process) => {
                let (name, pid) = (&process.name, process.pid);
                format!(
                    "port {port}, which {owner} needs, is in use: {name} (pid {pid}) listens on {address}; stop \
                     it{otherwise}"
                )
            }
            None => format!(
                "port {port}, which {owner} needs, is in use: a process that is not visible from here listens on \
                 {address}; find it with ss -ltnp and stop it{otherwise}"
            ),
        };
        Some(Problem::of_port(port, message))
    };
    needed_ports(s.goal).into_iter().filter_map(problem).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn arg(name: &str, value: &str) -> Arg {
        Arg { name: name.into(), value: value.into() }
    }

    /// The ports of ours that a listener on `address` is in the way of.
    fn taken(spec: &ClusterSpec, address: &str) -> Vec<u16> {
        let listener = address.parse().unwrap();
        let needed = needed_ports(Goal::Init(spec));
        needed.iter().filter(|needed| needed.is_taken_by(listener)).map(|needed| needed.port).collect()
    }

    #[test]
    fn a_port_is_taken_by_what_listens_on_an_address_that_its_owner_listens_on() {
        let spec = testing::spec();
        for (address, expected) in [
            ("0.0.0.0:6443", &[6443][..]),
            ("192.168.7.7:6443", &[6443]),
            ("[::]:10259", &[10259]),
            ("127.0.0.1:10259", &[10259]),
            ("192.168.7.7:10259", &[]),
            ("192.168.7.7:10257", &[]),
            ("10.0.0.5:2379", &[2379]),
            ("127.0.0.1:2379", &[2379]),
            ("192.168.7.7:2379", &[]),
            ("127.0.0.1:2380", &[]),
            ("10.0.0.5:2380", &[2380]),
            ("10.0.0.5:2381", &[]),
            ("[::ffff:127.0.0.1]:2381", &[2381]),
            ("192.168.7.7:10250", &[10250]),
            ("192.168.7.7:10248", &[]),
        ] {
            assert_eq!(taken(&spec, address), expected, "{address}");
        }
    }

    #[test]
    fn the_users_own_addresses_and_ports_count() {
        let mut spec = testing::spec();
        spec.api_server.extra_args = vec![arg("bind-address", "10.0.0.5")];
        spec.scheduler.extra_args = vec![arg("bind-address", "127.0.0.1"), arg("bind-address", "0.0.0.0")];
        spec.controller_manager.extra_args = vec![arg("bind-address", "no address")];
        let EtcdSpec::Local(local) = &mut spec.etcd else { unreachable!() };
        local.component.extra_args = vec![
            arg("listen-client-urls", "https://127.0.0.1:12379, https://[fd00::1]:12379,unix://etcd.sock"),
            arg("listen-metrics-urls", "http://0.0.0.0"),
        ];
        spec.kubelet = serde_json::json!({"healthzBindAddress": "0.0.0.0", "healthzPort": 10249, "port": 10255});
        for (address, expected) in [
            ("192.168.7.7:6443", &[][..]),
            ("10.0.0.5:6443", &[6443]),
            ("192.168.7.7:10259", &[10259]),
            ("192.168.7.7:10257", &[10257]),
            ("127.0.0.1:2379", &[]),
            ("127.0.0.1:12379", &[12379]),
            ("[fd00::1]:12379", &[12379]),
            ("10.0.0.5:12379", &[]),
            ("192.168.7.7:2381", &[2381]),
            ("192.168.7.7:10249", &[10249]),
            ("192.168.7.7:10250", &[]),
            ("192.168.7.7:10255", &[10255]),
        ] {
            assert_eq!(taken(&spec, address), expected, "{address}");
        }
    }
}
