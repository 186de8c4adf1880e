//! Which of several processes that share one TCP port gets its new connections.
//!
//! Listeners that share a port by `SO_REUSEPORT` are a group, and the kernel deals new connections out among them by a hash
//! of their addresses, whether they are ready to serve or not. A classic BPF program of the group chooses instead: it returns
//! the place of a listener in the group. A listener that joins takes the last place; when one leaves, the last one moves into
//! its place. Where the program names a place that is not taken, the kernel deals by hash among those that are there.
//!
//! The program belongs to the group, and stays when the listener leaves through which it was attached. A listener of MPTCP,
//! which those of Go are by default, takes none (`EOPNOTSUPP`); its subflow is a member of the group all the same. So the
//! program is attached through a plain listener that joins for a moment, and drops every segment it is sent: a connection
//! that reaches it in that moment is asked for again by its client's kernel.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use super::ports;

/// Who gets new connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aim {
    /// The listener at the first place gets all.
    First,
    /// The listener at the first place gets all but those that this machine makes to itself from this port, and those from a
    /// loopback address: the one at the second place gets them, as soon as it is there.
    FirstBut {
        /// The port.
        port: u16,
        /// The address.
        loopback: Option<IpAddr>,
    },
    /// The listener at the second place gets all.
    Second,
}

/// Has the group of the listeners at `address` deal out new connections by `aim`. Existing connections stay where they are.
///
/// # Errors
/// No listener is there that could be joined: none at all, one that does not share its port, or one of another user; or the
/// kernel has no such programs.
pub fn steer(address: SocketAddr, aim: Aim) -> io::Result<()> {
    if listeners(address) == 0 {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("no process listens at {address}")));
    }
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // As Go has it: the address that means all of them means those of IPv4 too.
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_reuse_port(true)?;
    match socket.attach_filter(&[SockFilter::new(DROP.code, DROP.jt, DROP.jf, DROP.k)]) {
        // A kernel that wants CAP_NET_ADMIN for it, and a process without: two system calls later the program keeps
        // connections away.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
        attached => attached?,
    }
    socket.bind(&address.into())?;
    socket.listen(1)?;
    attach(&socket, &program(aim))
}

/// The address at which the only listeners of `port` listen; None where there are none, or at several.
pub fn address_of(port: u16) -> Option<SocketAddr> {
    let mut found: Vec<SocketAddr> = ports::addresses(Path::new("/proc"), &[port]);
    found.dedup();
    match found.as_slice() {
        [one] => Some(*one),
        _ => None,
    }
}

/// How many listeners there are at `address`.
pub fn listeners(address: SocketAddr) -> usize {
    let all = ports::addresses(Path::new("/proc"), &[address.port()]);
    all.into_iter().filter(|one| *one == address).count()
}

/// A local port that only its holder makes connections from.
#[derive(Debug)]
pub struct SourcePort {
    /// Bound as long as this lives: the kernel gives no other connection a port that is bound.
    _holder: Socket,
    port: u16,
}

impl SourcePort {
    /// Takes a port that is free.
    ///
    /// # Errors
    /// No socket can be bound.
    pub fn reserve() -> io::Result<Self> {
        let any = [SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)), SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))];
        // A machine without IPv6 has the second one alone.
        let [first, second] = any;
        let holder = bound(first).or_else(|_| bound(second))?;
        let port = holder.local_addr()?.as_socket().map(|address| address.port()).unwrap_or_default();
        Ok(Self { _holder: holder, port })
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A socket that connects to `to` from this port. Its end leaves nothing: the next one may go the same way at once.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn socket(&self, to: SocketAddr) -> io::Result<std::net::TcpStream> {
        let any = match to {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, self.port)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, self.port)),
        };
        let socket = bound(any)?;
        socket.set_linger(Some(std::time::Duration::ZERO))?;
        Ok(socket.into())
    }
}

fn bound(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // Several may be bound to one port as long as none listens.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn attach(socket: &Socket, program: &[libc::sock_filter]) -> io::Result<()> {
    let mut program = program.to_vec();
    let len = u16::try_from(program.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len, filter: program.as_mut_ptr() };
    setsockopt(socket, sockopt::AttachReusePortCbpf, &program).map_err(io::Error::from)
}

/// Where a program of a group sees the network header; its own offsets count from behind that of TCP.
const NETWORK: u32 = libc::SKF_NET_OFF as u32;

/// Takes no segment.
const DROP: libc::sock_filter = one(libc::BPF_RET | libc::BPF_K, 0);

/// How a program goes on.
enum Step {
    /// With the next instruction.
    Do(u32, u32),
    /// With the next one if the accumulator is the same as this constant (`BPF_K`) or as the index (`BPF_X`); else with the
    /// next rule.
    Only(u32, u32),
}

fn program(aim: Aim) -> Vec<libc::sock_filter> {
    use libc::{BPF_ABS, BPF_ALU, BPF_B, BPF_H, BPF_IND, BPF_K, BPF_LD, BPF_LDX, BPF_MSH, BPF_RSH};
    let answer = |place| one(libc::BPF_RET | BPF_K, place);
    let (port, loopback) = match aim {
        Aim::First => return vec![answer(0)],
        Aim::Second => return vec![answer(1)],
        Aim::FirstBut { port, loopback } => (u32::from(port), loopback),
    };
    let mut v4 = vec![
        Step::Do(BPF_LDX | BPF_B | BPF_MSH, NETWORK),
        Step::Do(BPF_LD | BPF_H | BPF_IND, NETWORK),
        Step::Only(BPF_K, port),
    ];
    v4.extend(same(12, 16));
    let mut v4 = rule(&v4, 1);
    let mut v6 = vec![Step::Do(BPF_LD | BPF_H | BPF_ABS, NETWORK + 40), Step::Only(BPF_K, port)];
    v6.extend([(8, 24), (12, 28), (16, 32), (20, 36)].into_iter().flat_map(|(from, to)| same(from, to)));
    let mut v6 = rule(&v6, 1);
    match loopback {
        Some(IpAddr::V4(address)) => v4.extend(rule(&from(12, &address.octets()), 1)),
        Some(IpAddr::V6(address)) => v6.extend(rule(&from(8, &address.octets()), 1)),
        None => {}
    }
    v4.push(answer(0));
    v6.push(answer(0));
    let version =
        [one(BPF_LD | BPF_B | BPF_ABS, NETWORK), one(BPF_ALU | BPF_RSH | BPF_K, 4), unless_equal(BPF_K, 4, v4.len())];
    version.into_iter().chain(v4).chain(v6).collect()
}

/// From an address to the same one: of this machine to itself. Offsets are those of the network header.
fn same(from: u32, to: u32) -> [Step; 4] {
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    [
        Step::Do(load, NETWORK + from),
        Step::Do(libc::BPF_MISC | libc::BPF_TAX, 0),
        Step::Do(load, NETWORK + to),
        Step::Only(libc::BPF_X, 0),
    ]
}

/// From this address, which stands at this offset.
fn from(offset: u32, address: &[u8]) -> Vec<Step> {
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let words = address.chunks(4).zip((NETWORK + offset..).step_by(4));
    words
        .flat_map(|(word, at)| {
            let word = word.iter().fold(0, |all, byte| all << 8 | u32::from(*byte));
            [Step::Do(load, at), Step::Only(libc::BPF_K, word)]
        })
        .collect()
}

/// Steps at whose end this place is named; where one of them says so, the next rule counts.
fn rule(steps: &[Step], place: u32) -> Vec<libc::sock_filter> {
    let step = |(at, step): (usize, &Step)| match step {
        Step::Do(code, operand) => one(*code, *operand),
        // Over the steps that are left and the answer behind them.
        Step::Only(source, operand) => unless_equal(*source, *operand, steps.len() - at),
    };
    steps.iter().enumerate().map(step).chain([one(libc::BPF_RET | libc::BPF_K, place)]).collect()
}

const fn one(code: u32, operand: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: 0, jf: 0, k: operand }
}

/// Skips as many instructions if the accumulator is another value.
fn unless_equal(source: u32, operand: u32, skipped: usize) -> libc::sock_filter {
    let jump = one(libc::BPF_JMP | libc::BPF_JEQ | source, operand);
    libc::sock_filter { jf: u8::try_from(skipped).unwrap_or(u8::MAX), ..jump }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::*;

    const MPTCP: i32 = 262;

    /// A process that says its name to each connection, for as long as it is not closed.
    struct Server {
        name: u8,
        socket: Socket,
    }

    impl Server {
        fn start(name: u8, address: SocketAddr, protocol: i32) -> Self {
            let socket =
                Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::from(protocol))).unwrap();
            socket.set_reuse_port(true).unwrap();
            socket.bind(&address.into()).unwrap();
            socket.listen(128).unwrap();
            socket.set_nonblocking(true).unwrap();
            Self { name, socket }
        }

        fn address(&self) -> SocketAddr {
            self.socket.local_addr().unwrap().as_socket().unwrap()
        }

        /// Answers what has connected.
        fn serve(&self) {
            while let Ok((mut connection, _)) = self.socket.accept() {
                let _ = connection.write_all(&[self.name]);
            }
        }
    }

    /// Who answers a connection.
    fn ask(servers: &[&Server], mut connection: TcpStream) -> u8 {
        servers.iter().for_each(|server| server.serve());
        let mut name = [0];
        connection.set_nonblocking(false).unwrap();
        connection.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
        connection.read_exact(&mut name).unwrap();
        name[0]
    }

    fn dial(at: SocketAddr, port: u16) -> TcpStream {
        TcpStream::connect(SocketAddr::new(at.ip(), port)).unwrap()
    }

    /// Who answers `times` connections from anywhere, each once.
    fn answers(servers: &[&Server], at: SocketAddr, port: u16) -> Vec<u8> {
        let mut all: Vec<u8> = (0..40).map(|_| ask(servers, dial(at, port))).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    fn by(source: &SourcePort, to: SocketAddr) -> TcpStream {
        let stream = Socket::from(source.socket(to).unwrap());
        stream.set_nonblocking(false).unwrap();
        stream.connect(&to.into()).unwrap();
        stream.into()
    }

    #[test]
    fn connections_go_where_they_are_aimed_and_to_who_is_left() {
        for (bound, asked) in [("127.0.0.1:0", "127.0.0.1:0"), ("[::]:0", "[::1]:0"), ("[::]:0", "127.0.0.1:0")] {
            for protocol in [libc::IPPROTO_TCP, MPTCP] {
                if Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::from(protocol))).is_err() {
                    eprintln!("this kernel has no MPTCP");
                    continue;
                }
                whole_way(bound.parse().unwrap(), asked.parse().unwrap(), protocol);
            }
        }
    }

    /// An agent's unit may leave it less than root has.
    #[test]
    fn no_capability_is_needed() {
        use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};
        std::thread::spawn(|| {
            let none = CapabilitySet::empty();
            set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none }).unwrap();
            whole_way("[::]:0".parse().unwrap(), "[::1]:0".parse().unwrap(), libc::IPPROTO_TCP);
        })
        .join()
        .unwrap();
    }

    fn whole_way(bound: SocketAddr, asked: SocketAddr, protocol: i32) {
        let case = format!("{bound} {asked} {protocol}");
        let old = Server::start(1, bound, protocol);
        let at = old.address();
        let port = at.port();
        let asked = SocketAddr::new(asked.ip(), port);
        let source = SourcePort::reserve().unwrap();
        steer(at, Aim::FirstBut { port: source.port(), loopback: None }).unwrap();
        assert_eq!((address_of(port), listeners(at)), (Some(at), 1), "{case}");
        assert_eq!(answers(&[&old], asked, port), [1], "{case}: alone");

        let new = Server::start(2, at, protocol);
        assert_eq!(listeners(at), 2, "{case}");
        assert_eq!(answers(&[&old, &new], asked, port), [1], "{case}: the new one is not ready");
        for _ in 0..5 {
            assert_eq!(ask(&[&old, &new], by(&source, asked)), 2, "{case}: asked by itself");
        }

        // It crashes and comes again.
        drop(new);
        assert_eq!(answers(&[&old], asked, port), [1], "{case}: the new one has crashed");
        let new = Server::start(3, at, protocol);
        // An agent that was started again takes another port.
        drop(source);
        let source = SourcePort::reserve().unwrap();
        steer(at, Aim::FirstBut { port: source.port(), loopback: None }).unwrap();
        assert_eq!(answers(&[&old, &new], asked, port), [1], "{case}: the new one is there again");
        assert_eq!(ask(&[&old, &new], by(&source, asked)), 3, "{case}");

        // What comes from a loopback address may be the new one's own.
        steer(at, Aim::FirstBut { port: source.port(), loopback: Some(asked.ip()) }).unwrap();
        assert_eq!(answers(&[&old, &new], asked, port), [3], "{case}: from the loopback address");
        assert_eq!(ask(&[&old, &new], by(&source, asked)), 3, "{case}");
        drop(new);
        assert_eq!(answers(&[&old], asked, port), [1], "{case}: from the loopback address, with one there alone");
        let new = Server::start(3, at, protocol);
        let other = if asked.is_ipv4() { "::1" } else { "127.0.0.1" };
        steer(at, Aim::FirstBut { port: source.port(), loopback: other.parse().ok() }).unwrap();
        assert_eq!(answers(&[&old, &new], asked, port), [1], "{case}: from another address");

        steer(at, Aim::Second).unwrap();
        assert_eq!(answers(&[&old, &new], asked, port), [3], "{case}: switched");
        steer(at, Aim::First).unwrap();
        assert_eq!(answers(&[&old, &new], asked, port), [1], "{case}: switched back");
        steer(at, Aim::Second).unwrap();
        drop(old);
        assert_eq!(answers(&[&new], asked, port), [3], "{case}: the old one is gone");

        // And the same again, from the one that is there now.
        steer(at, Aim::FirstBut { port: source.port(), loopback: None }).unwrap();
        let newest = Server::start(4, at, protocol);
        assert_eq!(answers(&[&new, &newest], asked, port), [3], "{case}: second time");
        assert_eq!(ask(&[&new, &newest], by(&source, asked)), 4, "{case}");
    }

    #[test]
    fn without_steering_the_kernel_deals_to_both() {
        let old = Server::start(1, "127.0.0.1:0".parse().unwrap(), libc::IPPROTO_TCP);
        let new = Server::start(2, old.address(), libc::IPPROTO_TCP);
        assert_eq!(answers(&[&old, &new], old.address(), old.address().port()), [1, 2]);
    }

    #[test]
    fn a_port_that_is_not_shared_cannot_be_steered() {
        let alone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let refused = steer(alone.local_addr().unwrap(), Aim::Second).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        let gone = alone.local_addr().unwrap();
        drop(alone);
        assert_eq!(steer(gone, Aim::Second).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
