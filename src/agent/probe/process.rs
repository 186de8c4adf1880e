//! Asking one of two processes that share a port, and who gets the port's other connections meanwhile.
//!
//! A probe of a port that is shared asks whichever process the kernel chooses. While a process is started beside the one it
//! is to replace, its probes have to reach it and nothing else: they come from a port of this machine that the kernel's rule
//! for the shared port knows, and count only where both listened before and after.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Mutex, MutexGuard};

use crate::host::memory::{MemInfo, field};
use crate::host::steer::{self, Aim, SourcePort};

/// What is left free of the machine's memory beside a second process.
const MARGIN: u64 = 128 << 20;

/// The way to the process that was started second, while two share a port.
#[derive(Debug)]
pub struct Route {
    /// Where both listen.
    address: SocketAddr,
    source: SourcePort,
    /// One connection at a time goes from one port to another.
    turn: Mutex<()>,
    /// There is nothing to choose any more.
    over: AtomicBool,
}

impl Route {
    /// A way to the second process at `address`.
    ///
    /// # Errors
    /// There is no port left to ask from.
    pub fn to(address: SocketAddr) -> io::Result<Self> {
        let (source, turn, over) = (SourcePort::reserve()?, Mutex::default(), AtomicBool::new(false));
        Ok(Self { address, source, turn, over })
    }

    /// The process is to be asked as any other from now on.
    pub fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
    }

    /// Whether [`Route::end`] was called.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// Waits until the route is free, and returns whether both listen.
    pub(super) async fn take(&self) -> (MutexGuard<'_, ()>, bool) {
        (self.turn.lock().await, self.both_listen().await)
    }

    /// Whether there are two listeners, of which the second is the one that is asked.
    pub(super) async fn both_listen(&self) -> bool {
        let address = self.address;
        tokio::task::spawn_blocking(move || steer::listeners(address)).await.is_ok_and(|count| count == 2)
    }

    /// Connects to the process.
    pub(super) async fn connect(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for to in tokio::net::lookup_host((host, port)).await? {
            let socket = TcpSocket::from_std_stream(self.source.socket(to)?);
            match socket.connect(to).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// What is done with a port that two processes share. [`KernelPorts`] is the real one.
pub trait SharedPorts: Send + Sync {
    /// Has all new connections of `port` go to the process that listens now, whatever joins it, and returns the way to that
    /// second one, which may listen already if `second_runs`.
    ///
    /// # Errors
    /// Why that cannot be done.
    fn hold(&self, port: u16, second_runs: bool) -> Result<Route, String>;

    /// Has all new connections of `port` go to the process that has listened longest.
    ///
    /// # Errors
    /// Why that cannot be done.
    fn give_back(&self, port: u16) -> Result<(), String>;

    /// Has all new connections go to the second process.
    ///
    /// # Errors
    /// Why that cannot be done.
    fn switch(&self, route: &Route) -> Result<(), String>;

    /// Whether the machine has the memory for one more process like `pid`, if that is known.
    ///
    /// # Errors
    /// How much is missing.
    fn has_room(&self, pid: Option<u32>) -> Result<(), String>;
}

/// The kernel's.
#[derive(Debug, Default)]
pub struct KernelPorts;

impl SharedPorts for KernelPorts {
    fn hold(&self, port: u16, second_runs: bool) -> Result<Route, String> {
        let address = steer::address_of(port);
        let address = address.ok_or_else(|| format!("no one address is listened at on port {port}"))?;
        let count = steer::listeners(address);
        if count > if second_runs { 2 } else { 1 } {
            return Err(format!("{count} processes listen at {address} already"));
        }
        if !address.ip().is_unspecified() {
            return Err(format!(
                "it listens at {address} alone, where what it asks itself cannot be told from its clients"
            ));
        }
        let route = Route::to(address).map_err(|error| cannot_steer(address, &error))?;
        let loopback = Some(loopback_of(address, &fs::read_to_string("/proc/net/if_inet6").unwrap_or_default()));
        let aim = Aim::FirstBut { port: route.source.port(), loopback };
        steer::steer(address, aim).map_err(|error| cannot_steer(address, &error))?;
        Ok(route)
    }

    fn switch(&self, route: &Route) -> Result<(), String> {
        let address = route.address;
        steer::steer(address, Aim::Second).map_err(|error| cannot_steer(address, &error))
    }

    fn give_back(&self, port: u16) -> Result<(), String> {
        let Some(address) = steer::address_of(port) else { return Ok(()) };
        steer::steer(address, Aim::First).map_err(|error| cannot_steer(address, &error))
    }

    fn has_room(&self, pid: Option<u32>) -> Result<(), String> {
        // Without what the kernel says of it there is little to compare.
        let text = pid.and_then(|pid| fs::read_to_string(format!("/proc/{pid}/status")).ok()).unwrap_or_default();
        let used = field(&text, "VmRSS").unwrap_or_default().saturating_mul(1024);
        room(used, MemInfo::read().bytes("MemAvailable"))
    }
}

fn cannot_steer(address: SocketAddr, error: &io::Error) -> String {
    format!("connections to {address} cannot be steered: {error}")
}

/// From where a component of Kubernetes that listens at `address` asks itself, while it starts too: only it knows the
/// certificate it shows itself then, so that each connection has to find its own process. As it chooses (`LoopbackHostPort`),
/// by the addresses of `/proc/net/if_inet6`.
fn loopback_of(address: SocketAddr, if_inet6: &str) -> IpAddr {
    let of_v6 = address.is_ipv6() && if_inet6.lines().any(|line| line.starts_with("00000000000000000000000000000001 "));
    if of_v6 { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() }
}

fn room(used: u64, available: Option<u64>) -> Result<(), String> {
    let needed = used.saturating_add(MARGIN);
    match available.filter(|available| *available < needed) {
        None => Ok(()),
        Some(available) => {
            let mib = |bytes: u64| bytes >> 20;
            Err(format!("a second one would need {} MiB of memory, and {} MiB are free", mib(needed), mib(available)))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::Duration;

    use socket2::{Domain, Socket, Type};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::agent::probe::{Checker, Outcome, Prober, Target};
    use crate::testing::runtime::FakeRuntime;

    #[test]
    fn a_second_process_needs_as_much_memory_as_the_first_and_some_more() {
        assert_eq!(room(100 << 20, Some(228 << 20)), Ok(()));
        assert_eq!(room(100 << 20, None), Ok(()));
        let short = room(300 << 20, Some(400 << 20)).unwrap_err();
        assert_eq!(short, "a second one would need 428 MiB of memory, and 400 MiB are free");
        assert_eq!(KernelPorts.has_room(Some(std::process::id())), Ok(()));
    }

    #[test]
    fn a_component_asks_itself_at_the_loopback_address_of_its_family() {
        let has_v6 = "00000000000000000000000000000001 01 80 10 80       lo\n";
        for (address, table, expected) in [
            ("[::]:1", has_v6, "::1"),
            ("[::]:1", "fe80000000000000021a4afffe000001 02 40 20 80 eth0\n", "127.0.0.1"),
            ("0.0.0.0:1", has_v6, "127.0.0.1"),
        ] {
            assert_eq!(loopback_of(address.parse().unwrap(), table), expected.parse::<IpAddr>().unwrap(), "{address}");
        }
    }

    fn shared(address: SocketAddr) -> TcpListener {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        socket.set_reuse_port(true).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket.bind(&address.into()).unwrap();
        socket.listen(64).unwrap();
        socket.into()
    }

    /// Serves this status to every request.
    fn serve(listener: TcpListener, status: u16) -> tokio::task::JoinHandle<()> {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).await;
                let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        })
    }

    #[tokio::test]
    async fn a_probe_by_the_route_asks_the_second_process_and_nothing_else() {
        let alone = shared("127.0.0.1:0".parse().unwrap());
        assert!(KernelPorts.hold(alone.local_addr().unwrap().port(), false).unwrap_err().contains("cannot be told"));
        let first = shared("[::]:0".parse().unwrap());
        let address = first.local_addr().unwrap();
        let route = KernelPorts.hold(address.port(), false).unwrap();
        let first = serve(first, 200);
        let prober = Prober::new(std::sync::Arc::new(FakeRuntime::new()));
        let (host, port, path) = ("127.0.0.1".to_owned(), address.port(), "/readyz".to_owned());
        let target = Target::Http { tls: false, host, port, path, headers: vec![] };
        let limit = Duration::from_secs(5);
        let well = |outcome: &Outcome| matches!(outcome, Outcome::Success { .. });
        let alone = prober.check_by(&route, &target, limit).await;
        assert!(matches!(alone, Outcome::Failure { refused: true, .. }), "{alone:?}");

        let second = serve(shared(address), 503);
        for _ in 0..20 {
            assert!(well(&prober.check(&target, limit).await), "the first one has the connections");
            let asked = prober.check_by(&route, &target, limit).await;
            assert!(matches!(&asked, Outcome::Failure { message, .. } if message.contains("503")), "{asked:?}");
        }
        second.abort();
        let _ = second.await;
        let second = serve(shared(address), 204);
        assert!(well(&prober.check_by(&route, &target, limit).await));

        assert!(KernelPorts.hold(address.port(), false).unwrap_err().starts_with("2 processes listen"));
        KernelPorts.switch(&route).unwrap();
        route.end();
        first.abort();
        let _ = first.await;
        assert!(well(&prober.check_by(&route, &target, limit).await), "it is asked as any other");
        second.abort();
    }
}
