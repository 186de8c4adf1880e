//! Which addresses the machine has, read from `/proc/net`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;

use ipnet::Ipv4Net;
use serde::Serialize;

/// The addresses that other machines may reach this one at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Addresses {
    /// The source address of the IPv4 default route.
    pub default_v4: Option<Ipv4Addr>,
    /// The source address of the IPv6 default route.
    pub default_v6: Option<Ipv6Addr>,
    /// Every other global address, IPv4 first, bridges of container runtimes left out.
    pub others: Vec<IpAddr>,
}

impl Addresses {
    /// The address to advertise when none was given: the default route's, IPv4 before IPv6, as kubeadm takes it; on a
    /// machine without a default route the only address it has, None when it has none or several.
    pub fn advertise(&self) -> Option<IpAddr> {
        let default = self.default_v4.map(IpAddr::V4).or(self.default_v6.map(IpAddr::V6));
        default.or(match self.others.as_slice() {
            [only] => Some(*only),
            _ => None,
        })
    }
}

/// Reads the addresses from `net` (`/proc/net`). `sys` (`/sys`) tells bridges from cards.
pub fn addresses(net: &Path, sys: &Path) -> Addresses {
    let text = |file: &str| std::fs::read_to_string(net.join(file)).unwrap_or_default();
    let routes = routes_v4(&text("route"));
    let is_bridge = |interface: &str| sys.join("class/net").join(interface).join("bridge").exists();
    let has_default_v4 = routes.iter().any(|(_, network)| network.prefix_len() == 0);
    let v4 = local_v4(&text("fib_trie"));
    let v6 = local_v6(&text("if_inet6"));
    // The kernel is asked only where the files name the answer, so that a fixture decides what a test sees.
    let default_v4 = has_default_v4.then(source_v4).flatten().filter(|address| v4.contains(address));
    let default_v6 =
        default_v6(&text("ipv6_route")).then(source_v6).flatten().filter(|a| v6.iter().any(|(b, _)| a == b));
    let others_v4 = v4.iter().copied().filter(|address| Some(*address) != default_v4).filter(|address| {
        let interface =
            routes.iter().filter(|(_, network)| network.contains(address)).max_by_key(|(_, n)| n.prefix_len());
        !interface.is_some_and(|(name, _)| is_bridge(name))
    });
    let others_v6 = v6.iter().filter(|(address, name)| Some(*address) != default_v6 && !is_bridge(name));
    let others = others_v4.map(IpAddr::V4).chain(others_v6.map(|(address, _)| IpAddr::V6(*address))).collect();
    Addresses { default_v4, default_v6, others }
}

/// Interface and network of each route in `/proc/net/route`; numbers there are hexadecimal in the machine's byte order.
fn routes_v4(text: &str) -> Vec<(String, Ipv4Net)> {
    let address = |hex: &str| u32::from_str_radix(hex, 16).ok().map(|n| Ipv4Addr::from(n.to_ne_bytes()));
    let route = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (name, destination, mask) = (fields.first()?, address(fields.get(1)?)?, address(fields.get(7)?)?);
        Some(((*name).to_owned(), Ipv4Net::with_netmask(destination, mask).ok()?))
    };
    text.lines().skip(1).filter_map(route).collect()
}

/// The machine's own addresses in `/proc/net/fib_trie`: a leaf that a `/32 host LOCAL` follows. Loopback is left out.
fn local_v4(text: &str) -> Vec<Ipv4Addr> {
    let mut found = Vec::new();
    let mut leaf: Option<Ipv4Addr> = None;
    for line in text.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            leaf = address.parse().ok();
        } else if line == "/32 host LOCAL"
            && let Some(address) = leaf
            && !(address.is_loopback() || address.is_link_local() || found.contains(&address))
        {
            found.push(address);
        }
    }
    found
}

/// Whether `/proc/net/ipv6_route` has a default route that leads out.
fn default_v6(text: &str) -> bool {
    text.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [destination, "00", .., device] = fields.as_slice() else { return false };
        destination.bytes().all(|b| b == b'0') && *device != "lo"
    })
}

/// Addresses of global scope in `/proc/net/if_inet6`, with their interfaces.
fn local_v6(text: &str) -> Vec<(Ipv6Addr, String)> {
    let address = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [hex, _, _, "00", _, device] = fields.as_slice() else { return None };
        Some((Ipv6Addr::from(u128::from_str_radix(hex, 16).ok()?), (*device).to_owned()))
    };
    text.lines().filter_map(address).collect()
}

/// The address the kernel would send from. Connecting a datagram socket chooses a route and sends nothing.
fn source(from: SocketAddr, to: SocketAddr) -> Option<IpAddr> {
    let socket = UdpSocket::bind(from).ok()?;
    socket.connect(to).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

fn source_v4() -> Option<Ipv4Addr> {
    // Any address that only the default route leads to does; this one is a public resolver's.
    match source(([0, 0, 0, 0], 0).into(), ([8, 8, 8, 8], 53).into())? {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

fn source_v6() -> Option<Ipv6Addr> {
    let resolver = Ipv6Addr::new(0x2001, 0x4860, 0x4860, 0, 0, 0, 0, 0x8888);
    match source((Ipv6Addr::UNSPECIFIED, 0).into(), (resolver, 53).into())? {
        IpAddr::V6(address) => Some(address),
        IpAddr::V4(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const ROUTE: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                         docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n\
                         eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
    const FIB_TRIE: &str = "Main:\n  +-- 0.0.0.0/0 3 0 4\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     \
                            |-- 127.0.0.1\n        /32 host LOCAL\n     |-- 172.17.0.1\n        /32 host LOCAL\n     \
                            |-- 192.0.2.0\n        /24 link UNICAST\n     |-- 192.0.2.2\n        /32 host LOCAL\n";
    const IF_INET6: &str = "00000000000000000000000000000001 01 80 10 80       lo\n\
                            fd000000000000000000000000000002 04 40 00 82     eth0\n\
                            fe8000000000000000fc00fffe000001 04 40 20 80     eth0\n";

    fn fixture(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("class/net/docker0/bridge")).unwrap();
        for (name, text) in files {
            let mut file = fs::File::create(dir.path().join(name)).unwrap();
            std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        }
        dir
    }

    #[test]
    fn without_a_default_route_the_only_address_is_advertised_and_bridges_do_not_count() {
        let dir = fixture(&[("route", ROUTE), ("fib_trie", FIB_TRIE)]);
        let found = addresses(dir.path(), dir.path());
        assert_eq!(found.default_v4, None);
        assert_eq!(found.others, ["192.0.2.2".parse::<IpAddr>().unwrap()]);
        assert_eq!(found.advertise(), Some("192.0.2.2".parse().unwrap()));
    }

    #[test]
    fn among_several_addresses_without_a_route_none_is_chosen() {
        let dir = fixture(&[("route", ROUTE), ("fib_trie", FIB_TRIE), ("if_inet6", IF_INET6)]);
        let found = addresses(dir.path(), dir.path());
        assert_eq!(found.others.len(), 2, "link-local and loopback addresses are left out: {found:?}");
        assert_eq!(found.advertise(), None);
    }

    #[test]
    fn a_default_v6_route_counts_unless_it_is_the_loopback_s_reject_route() {
        let zero = "00000000000000000000000000000000";
        let line =
            |device: &str| format!("{zero} 00 {zero} 00 fd000000000000000000000000000001 00000400 2 0 3 {device}\n");
        assert!(default_v6(&line("eth0")));
        assert!(!default_v6(&line("lo")));
    }

    #[test]
    fn an_unreadable_proc_has_no_addresses() {
        assert_eq!(addresses(Path::new("/nonexistent"), Path::new("/nonexistent")), Addresses::default());
    }
}
