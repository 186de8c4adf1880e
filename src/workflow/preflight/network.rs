//! Checks of names, forwarding and proxies.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{Goal, Problem, Subject};
use crate::config::spec::Discovery;

pub(super) fn hostname(s: &Subject) -> Vec<Problem> {
    let name = &s.goal.node().name;
    let line = match s.cluster() {
        Some(spec) => format!("the line \"{} {name}\"", spec.node.advertise_address),
        None => "it with this machine's address".to_owned(),
    };
    let message = || format!("node name {name:?} does not resolve: add {line} to /etc/hosts");
    (s.facts.resolves == Some(false)).then(|| Problem::new(message())).into_iter().collect()
}

pub(super) fn firewalld(s: &Subject) -> Vec<Problem> {
    let port = s.goal.node().bind_port;
    let message = || format!("firewalld is active: see to it that ports {port} and 10250 are open for other nodes");
    s.facts.firewalld.then(|| Problem::new(message())).into_iter().collect()
}

/// Addresses of the kinds that the node will use.
fn addresses(s: &Subject) -> Vec<IpAddr> {
    match s.goal {
        Goal::Init(spec) => {
            let subnets = spec.networking.service_subnets.iter().map(IpNet::addr);
            subnets.chain([spec.node.advertise_address]).collect()
        }
        // The cluster's address is the only thing known of its networks; behind a name there is IPv4 as a rule.
        Goal::Join(..) => vec![server(s).and_then(|host| host.parse().ok()).unwrap_or([0, 0, 0, 0].into())],
    }
}

pub(super) fn forwarding(s: &Subject) -> Vec<Problem> {
    let used = addresses(s);
    let rows = [
        ("/proc/sys/net/ipv4/ip_forward", "net.ipv4.ip_forward", s.facts.forwards_v4, used.iter().any(IpAddr::is_ipv4)),
        (
            "/proc/sys/net/ipv6/conf/default/forwarding",
            "net.ipv6.conf.default.forwarding",
            s.facts.forwards_v6,
            used.iter().any(IpAddr::is_ipv6),
        ),
    ];
    let off = rows.into_iter().filter(|(_, _, forwards, used)| *used && *forwards == Some(false));
    let problem = |(file, key, ..): (&str, &str, _, _)| {
        let message = format!("{file} is not 1: a pod network needs it; set it with sysctl -w {key}=1");
        Problem::of_path(file.as_ref(), message)
    };
    off.map(problem).collect()
}

/// The host at which this machine reaches an API server; None where only a file knows.
fn server(s: &Subject) -> Option<String> {
    match s.goal {
        Goal::Init(spec) => Some(spec.node.advertise_address.to_string()),
        Goal::Join(spec, _) => match &spec.discovery {
            Discovery::Token(by_token) => Some(by_token.endpoint.host.clone()),
            Discovery::File(_) => None,
        },
    }
}

pub(super) fn proxy(s: &Subject) -> Vec<Problem> {
    let (Some(proxy), Some(host)) = (s.facts.proxy.get("HTTPS_PROXY"), server(s)) else { return vec![] };
    let holds = |entry: &str| match host.parse() {
        Ok(address) => entry_holds(entry, address),
        Err(_) => entry_names(entry, &host),
    };
    if avoids_proxy(&s.facts.proxy, holds) {
        return vec![];
    }
    vec![Problem::new(format!(
        "connections to the API server at {host} go through the proxy {proxy}: add it to NO_PROXY"
    ))]
}

pub(super) fn proxy_of_networks(s: &Subject) -> Vec<Problem> {
    let (Some(proxy), Some(spec)) = (s.facts.proxy.get("HTTPS_PROXY"), s.cluster()) else { return vec![] };
    let networks = spec.networking.service_subnets.iter().chain(&spec.networking.pod_subnets);
    let proxied = networks.filter(|network| {
        // As kubeadm looks at it: the first address of the network stands for all.
        !avoids_proxy(&s.facts.proxy, |entry| entry_holds(entry, network.network()))
    });
    let message = |network| format!("connections to {network} go through the proxy {proxy}: add it to NO_PROXY");
    proxied.map(|network| Problem::new(message(network))).collect()
}

fn avoids_proxy(proxy: &BTreeMap<String, String>, holds: impl Fn(&str) -> bool) -> bool {
    let list = proxy.get("NO_PROXY").map(String::as_str).unwrap_or_default();
    list.split(',').map(str::trim).any(|entry| entry == "*" || holds(entry))
}

/// Whether an entry of `NO_PROXY`, an address or a network, is about `address`.
fn entry_holds(entry: &str, address: IpAddr) -> bool {
    let network = entry.parse::<IpNet>().is_ok_and(|network| network.contains(&address));
    network || entry.parse::<IpAddr>().is_ok_and(|entry| entry == address)
}

/// Whether an entry of `NO_PROXY`, a domain, is about `host`.
fn entry_names(entry: &str, host: &str) -> bool {
    let domain = entry.trim_start_matches("*.").trim_start_matches('.').to_ascii_lowercase();
    let host = host.to_ascii_lowercase();
    !domain.is_empty() && (host == domain || host.strip_suffix(&domain).is_some_and(|rest| rest.ends_with('.')))
}
