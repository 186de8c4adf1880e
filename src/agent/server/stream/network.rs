//! A pod's network, and connections into it.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream as Blocking};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

/// A server on this machine answers at once.
const CONNECT: Duration = Duration::from_secs(10);
const OWN: &str = "/proc/self/ns/net";
/// What is listened on in a pod that is reached from within.
const LOCAL: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// Where a pod's ports are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Network {
    /// On the machine itself.
    Host,
    /// In a namespace, which this names.
    Namespace(PathBuf),
    /// At an address.
    At(IpAddr),
}

impl Network {
    /// Connects to a port.
    ///
    /// # Errors
    /// As the system says.
    pub async fn connect(&self, port: u16) -> io::Result<TcpStream> {
        match self {
            Self::Host => any(&LOCAL, port).await,
            Self::At(address) => any(&[*address], port).await,
            Self::Namespace(path) if is_own(path) => any(&LOCAL, port).await,
            Self::Namespace(path) => within(path.clone(), port).await,
        }
    }
}

async fn any(addresses: &[IpAddr], port: u16) -> io::Result<TcpStream> {
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        let connecting = TcpStream::connect(SocketAddr::new(*address, port));
        match tokio::time::timeout(CONNECT, connecting).await {
            Ok(Ok(socket)) => return Ok(socket),
            // Of several, the first one's failure tells most.
            Ok(Err(error)) if failure.kind() == io::ErrorKind::AddrNotAvailable => failure = error,
            Ok(Err(_)) => {}
            Err(_) => failure = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(failure)
}

fn is_own(path: &Path) -> bool {
    let inode = |path: &Path| std::fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
    inode(path).is_some_and(|found| Some(found) == inode(Path::new(OWN)))
}

/// A namespace is a thread's: one of its own enters it and ends in it.
async fn within(path: PathBuf, port: u16) -> io::Result<TcpStream> {
    let (tell, reported) = oneshot::channel();
    let work = move || {
        let _ = tell.send(connect_within(&path, port));
    };
    std::thread::Builder::new().name("pod-network".to_owned()).spawn(work)?;
    let socket = reported.await.map_err(|_| io::Error::other("the thread that connects died"))??;
    socket.set_nonblocking(true)?;
    TcpStream::from_std(socket)
}

fn connect_within(path: &Path, port: u16) -> io::Result<Blocking> {
    let namespace = File::open(path)?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
    let [first, second] = LOCAL.map(|address| SocketAddr::new(address, port));
    Blocking::connect_timeout(&first, CONNECT)
        .or_else(|error| Blocking::connect_timeout(&second, CONNECT).map_err(|_| error))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn either_family_is_found_and_a_closed_port_says_so() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        for network in [Network::Host, Network::Namespace(OWN.into()), Network::At(LOCAL[0])] {
            assert!(network.connect(port).await.is_ok(), "{network:?}");
        }
        drop(listener);
        assert_eq!(Network::Host.connect(port).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        let missing = Network::Namespace("/nonexistent/ns".into()).connect(port).await.unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }
}
