//! Networks, addresses and ports.

use std::net::IpAddr;

use ipnet::IpNet;

use super::names;
use super::report::{Part, Report};
use super::spec::{Arg, Endpoint, Networking};
use super::wire::{ClusterConfiguration, LocalApiEndpoint};

/// As kubeadm: fewer leave no room for the API server and DNS.
const MIN_SERVICE_ADDRESSES: u32 = 10;
const MIN_POD_ADDRESSES: u32 = 14;
/// The API server keeps a bit per service address.
const MAX_SERVICE_BITS: u8 = 20;
/// The controller manager keeps a bit per node network.
const MAX_NODE_NETWORK_BITS: u8 = 16;
const POD: &str = "networking.podSubnet";
const SERVICE: &str = "networking.serviceSubnet";

/// `networking`, with `10.96.0.0/12` and `cluster.local` for what is not there.
pub(super) fn networking(cluster: &ClusterConfiguration, report: &mut Report) -> Networking {
    let wire = &cluster.networking;
    let service_subnets = service_subnets(or(&wire.service_subnet, "10.96.0.0/12"), report);
    let pod_subnets = match wire.pod_subnet.trim() {
        "" => Vec::new(),
        text => pod_subnets(text, &cluster.controller_manager.extra_args, report),
    };
    let dns_domain = or(&wire.dns_domain, "cluster.local");
    report.check(Part::Cluster, "networking.dnsDomain", names::dns_subdomain(dns_domain));
    Networking { service_subnets, pod_subnets, dns_domain: dns_domain.to_owned() }
}

/// `text`, or `default` when it is empty.
pub(super) fn or<'a>(text: &'a str, default: &'a str) -> &'a str {
    if text.trim().is_empty() { default } else { text.trim() }
}

/// One network, or two of different families, separated by a comma.
fn subnets(field: &str, text: &str, report: &mut Report) -> Option<Vec<IpNet>> {
    let mut found = Vec::new();
    for part in text.split(',').map(str::trim) {
        let advice = "write ADDRESS/BITS, such as 10.244.0.0/16 or fd00:10:244::/56";
        let network = part.parse::<IpNet>().map_err(|_| format!("{part:?} is not a network; {advice}"));
        found.push(report.check(Part::Cluster, field, network)?);
    }
    let families = found.iter().map(|network: &IpNet| network.addr().is_ipv6()).collect::<Vec<_>>();
    let message = match families.as_slice() {
        [_] => return Some(found),
        [a, b] if a != b => return Some(found),
        [a, _] => format!("{text:?} has two {} networks; a pair must be one IPv4 and one IPv6", family(*a)),
        _ => format!("{text:?} has {} networks; write one, or one IPv4 and one IPv6", families.len()),
    };
    report.problem(Part::Cluster, field, message);
    None
}

fn family(is_ipv6: bool) -> &'static str {
    if is_ipv6 { "IPv6" } else { "IPv4" }
}

/// How many bits of the address are the network's own.
fn host_bits(network: &IpNet) -> u8 {
    network.max_prefix_len() - network.prefix_len()
}

/// Complains of a network that has fewer than `least` addresses.
fn too_small(network: &IpNet, least: u32) -> Option<String> {
    let addresses = 1_u128.checked_shl(host_bits(network).into()).unwrap_or(u128::MAX);
    (addresses < u128::from(least)).then(|| format!("{network} has {addresses} addresses; at least {least} are needed"))
}

fn service_subnets(text: &str, report: &mut Report) -> Vec<IpNet> {
    let found = subnets(SERVICE, text, report).unwrap_or_default();
    for network in &found {
        let wide = (host_bits(network) > MAX_SERVICE_BITS).then(|| {
            let least = network.max_prefix_len() - MAX_SERVICE_BITS;
            format!("{network} is wider than kube-apiserver allows; write {}/{least} or smaller", network.addr())
        });
        if let Some(message) = too_small(network, MIN_SERVICE_ADDRESSES).or(wide) {
            report.problem(Part::Cluster, SERVICE, message);
        }
        if matches!(network, IpNet::V6(v6) if v6.addr().segments()[0] & 0xffc0 == 0xfec0) {
            report.warn(
                Part::Cluster,
                SERVICE,
                format!("{network} is site-local, which IPv6 has given up; use fd00::/8"),
            );
        }
    }
    found
}

fn pod_subnets(text: &str, manager_args: &[Arg], report: &mut Report) -> Vec<IpNet> {
    let found = subnets(POD, text, report).unwrap_or_default();
    let allocated = last(manager_args, "allocate-node-cidrs").is_none_or(|(_, value)| value != "false");
    for network in &found {
        let message = too_small(network, MIN_POD_ADDRESSES).or_else(|| {
            let bits = allocated.then(|| node_mask(network, found.len() > 1, manager_args, report)).flatten()?;
            node_room(network, bits)
        });
        if let Some(message) = message {
            report.problem(Part::Cluster, POD, message);
        }
    }
    found
}

/// What is wrong when nodes get networks of `mask` bits out of `network`.
fn node_room(network: &IpNet, mask: u8) -> Option<String> {
    let prefix = network.prefix_len();
    if prefix > mask {
        return Some(format!(
            "{network} is smaller than one node's part of it, /{mask}; widen it, or set node-cidr-mask-size in \
             controllerManager.extraArgs"
        ));
    }
    (mask - prefix > MAX_NODE_NETWORK_BITS).then(|| {
        format!(
            "{network} has more than 2^{MAX_NODE_NETWORK_BITS} node networks of /{mask}; write /{} or smaller, or set \
             node-cidr-mask-size in controllerManager.extraArgs",
            mask - MAX_NODE_NETWORK_BITS
        )
    })
}

/// How many bits a node's own network has; None after complaining.
fn node_mask(network: &IpNet, dual: bool, args: &[Arg], report: &mut Report) -> Option<u8> {
    let is_ipv6 = network.addr().is_ipv6();
    let own = if is_ipv6 { "node-cidr-mask-size-ipv6" } else { "node-cidr-mask-size-ipv4" };
    let given = last(args, own).or_else(|| last(args, "node-cidr-mask-size").filter(|_| !dual));
    let Some((index, value)) = given else { return Some(if is_ipv6 { 64 } else { 24 }) };
    let bits = value.parse::<u8>().ok().filter(|bits| *bits <= network.max_prefix_len());
    if bits.is_none() {
        let message = format!("{value:?} is not a number of bits from 0 to {}", network.max_prefix_len());
        report.problem(Part::Cluster, &format!("controllerManager.extraArgs[{index}].value"), message);
    }
    bits
}

/// The last of several arguments of one name is the one that counts.
pub(super) fn last<'a>(args: &'a [Arg], name: &str) -> Option<(usize, &'a str)> {
    args.iter().enumerate().rev().find(|(_, arg)| arg.name == name).map(|(index, arg)| (index, arg.value.as_str()))
}

/// `localAPIEndpoint`: the address, else `found` on the host; the port, else 6443.
pub(super) fn local_endpoint(
    (part, field): (Part, &str),
    wire: &LocalApiEndpoint,
    found: Option<IpAddr>,
    report: &mut Report,
) -> (IpAddr, u16) {
    let address_field = format!("{field}.advertiseAddress");
    // No particular address is the one of the default route, as kubeadm reads it.
    let is_any = |text: &str| text.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified());
    let written = Some(wire.advertise_address.trim()).filter(|text| !is_any(text)).unwrap_or_default();
    let address = match (written, found) {
        ("", Some(found)) => Some(found),
        ("", None) => {
            let message = format!(
                "this machine has no default route to take the address from; give --apiserver-advertise-address, or set \
                 {address_field} in the file"
            );
            report.problem(part, &address_field, message);
            None
        }
        (text, _) => report.check(part, &address_field, advertisable(text)),
    };
    let port_field = format!("{field}.bindPort");
    let port = wire.bind_port.and_then(|port| report.check(part, &port_field, names::port(port)));
    (address.unwrap_or(IpAddr::from([0, 0, 0, 0])), port.unwrap_or(6443))
}

/// An address that others can reach: global unicast in kubeadm's words.
fn advertisable(text: &str) -> Result<IpAddr, String> {
    let address = text.parse::<IpAddr>().map_err(|_| format!("{text:?} is not an IPv4 or IPv6 address"))?;
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    let kinds = [
        (address.is_loopback(), "a loopback address"),
        (address.is_multicast(), "a multicast address"),
        (link_local, "a link-local address"),
        (broadcast, "the broadcast address"),
    ];
    match kinds.iter().find(|(is, _)| *is) {
        Some((_, kind)) => Err(format!("{text} is {kind}; give an address of this machine that other nodes reach")),
        None => Ok(address),
    }
}

/// Ports that something else of the control plane listens on, and what.
const TAKEN: &[(u16, bool, &str)] = &[
    (2379, true, "etcd's clients"),
    (2380, true, "etcd's peers"),
    (2381, true, "etcd's metrics"),
    (10248, false, "the node agent's health"),
    (10257, false, "kube-controller-manager"),
    (10259, false, "kube-scheduler"),
];

/// Complains of an API server port that the control plane itself uses otherwise.
pub(super) fn check_port((part, field): (Part, &str), port: u16, local_etcd: bool, report: &mut Report) {
    if let Some((_, _, whose)) = TAKEN.iter().find(|(taken, etcd, _)| *taken == port && (local_etcd || !etcd)) {
        report.problem(part, field, format!("{port} is the port of {whose}; choose another"));
    }
}

/// kube-apiserver refuses to start when its address and its first service network are not of one family, unless it
/// keeps no endpoints of itself.
pub(super) fn check_family(address: IpAddr, networking: &Networking, args: &[Arg], report: &mut Report) {
    let Some(first) = networking.service_subnets.first() else { return };
    let none = last(args, "endpoint-reconciler-type").is_some_and(|(_, value)| value == "none");
    if none || address.is_unspecified() || address.is_ipv6() == first.addr().is_ipv6() {
        return;
    }
    let wanted = family(address.is_ipv6());
    let example = if address.is_ipv6() { "fd00:10:96::/112" } else { "10.96.0.0/12" };
    let message = format!(
        "the first service network, {first}, must be {wanted} like the advertise address {address}, or kube-apiserver \
         does not start; write {wanted} first, such as {example}"
    );
    report.problem(Part::Cluster, SERVICE, message);
}

/// `controlPlaneEndpoint`, if there is one.
pub(super) fn control_plane_endpoint(text: &str, bind_port: u16, report: &mut Report) -> Option<Endpoint> {
    let text = Some(text.trim()).filter(|text| !text.is_empty())?;
    report.check(Part::Cluster, "controlPlaneEndpoint", names::endpoint(text, bind_port))
}
