//! Who listens on which TCP port, read from `/proc`.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use serde::Serialize;

/// A listening TCP socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Listener {
    /// Where it listens.
    pub address: SocketAddr,
    /// Whose it is; None when that may not be known (another user's, another PID namespace's).
    pub process: Option<Owner>,
}

/// The process that holds a socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    /// Its id.
    pub pid: u32,
    /// Its name (`comm`).
    pub name: String,
}

/// The listeners on `ports`, in this process's network namespace. `proc` is `/proc`.
///
/// Owners are looked for only when there is a listener, for that reads the open files of every process.
pub fn listeners(proc: &Path, ports: &[u16]) -> Vec<Listener> {
    let mut found: Vec<(SocketAddr, u64)> = Vec::new();
    for file in ["net/tcp", "net/tcp6"] {
        let text = fs::read_to_string(proc.join(file)).unwrap_or_default();
        found.extend(text.lines().skip(1).filter_map(listening).filter(|(address, _)| ports.contains(&address.port())));
    }
    let owners = if found.is_empty() { Vec::new() } else { owners(proc) };
    let owner = |inode| owners.iter().find(|(held, _)| *held == inode).map(|(_, owner)| owner.clone());
    let mut listeners: Vec<Listener> =
        found.into_iter().map(|(address, inode)| Listener { address, process: owner(inode) }).collect();
    listeners.sort_by_key(|listener| (listener.address.port(), listener.address));
    listeners
}

/// Whether a process listens on one of `ports`; cheap, because it does not look up the process.
pub fn is_listening(proc: &Path, ports: &[u16]) -> bool {
    !addresses(proc, ports).is_empty()
}

/// Where processes listen on `ports`, an address as often as there are listeners at it; as cheap.
pub fn addresses(proc: &Path, ports: &[u16]) -> Vec<SocketAddr> {
    let mut found = Vec::new();
    for file in ["net/tcp", "net/tcp6"] {
        let text = fs::read_to_string(proc.join(file)).unwrap_or_default();
        let all = text.lines().skip(1).filter_map(listening).map(|(address, _)| address);
        found.extend(all.filter(|address| ports.contains(&address.port())));
    }
    found
}

/// Whether the process `pid` listens on any port, in its own network namespace.
pub fn listens(proc: &Path, pid: u32) -> bool {
    let process = proc.join(pid.to_string());
    let tables = ["net/tcp", "net/tcp6"].map(|file| fs::read_to_string(process.join(file)).unwrap_or_default());
    let listeners: Vec<u64> =
        tables.iter().flat_map(|text| text.lines().skip(1)).filter_map(|line| Some(listening(line)?.1)).collect();
    sockets(&process).any(|inode| listeners.contains(&inode))
}

/// The inodes of the sockets that a process holds.
fn sockets(process: &Path) -> impl Iterator<Item = u64> {
    let files = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    files.filter_map(|fd| {
        let target = fs::read_link(fd.path()).ok()?;
        target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    })
}

/// Address and inode of a line of `/proc/net/tcp{,6}`, None unless it listens (state 0A).
fn listening(line: &str) -> Option<(SocketAddr, u64)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    if *fields.get(3)? != "0A" {
        return None;
    }
    let (address, port) = fields.get(1)?.split_once(':')?;
    let ip = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(address)?)),
        32 => {
            let mut bytes = [0; 16];
            for (i, part) in bytes.chunks_mut(4).enumerate() {
                part.copy_from_slice(&word(address.get(i * 8..i * 8 + 8)?)?);
            }
            IpAddr::V6(Ipv6Addr::from(bytes))
        }
        _ => return None,
    };
    Some((SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?), fields.get(9)?.parse().ok()?))
}

/// Four bytes, printed by the kernel as one number in the machine's byte order.
fn word(hex: &str) -> Option<[u8; 4]> {
    u32::from_str_radix(hex, 16).ok().map(u32::to_ne_bytes)
}

/// Every socket inode with a process that holds it.
fn owners(proc: &Path) -> Vec<(u64, Owner)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(proc).into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        for inode in sockets(&entry.path()) {
            let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            found.push((inode, Owner { pid, name: name.trim_end().to_owned() }));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_listener_of_this_process_is_found_with_its_pid() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let socket = TcpListener::bind(address).unwrap();
            let address = socket.local_addr().unwrap();
            let found = listeners(Path::new("/proc"), &[address.port()]);
            assert_eq!(found.len(), 1, "{found:?}");
            assert_eq!(found[0].address, address);
            assert_eq!(found[0].process.as_ref().unwrap().pid, std::process::id());
        }
    }

    #[test]
    fn a_process_listens_until_its_listener_is_closed() {
        let (proc, pid) = (Path::new("/proc"), std::process::id());
        let mut other = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let listener = TcpListener::bind("[::1]:0").or_else(|_| TcpListener::bind("127.0.0.1:0")).unwrap();
        assert!(listens(proc, pid));
        assert!(!listens(proc, other.id()));
        drop(listener);
        other.kill().unwrap();
        other.wait().unwrap();
        assert!(!listens(proc, other.id()));
    }

    #[test]
    fn only_listening_sockets_count() {
        let line = |state: &str| {
            format!(
                "   0: 0100007F:192B 00000000:0000 {state} 00000000:00000000 00:00000000 00000000     0        0 77 1 0"
            )
        };
        assert_eq!(listening(&line("0A")), Some(("127.0.0.1:6443".parse().unwrap(), 77)));
        assert_eq!(listening(&line("01")), None);
        assert_eq!(listening("nonsense"), None);
    }
}
