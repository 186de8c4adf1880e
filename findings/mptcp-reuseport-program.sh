#!/usr/bin/env bash
# nix 0.32.0 and socket2 0.6 (crates) on Linux: a listener of MPTCP shares its port with others (SO_REUSEPORT) as one of plain
# TCP does, and takes no program that deals the port's connections out: AttachReusePortCbpf answers EOPNOTSUPP. Programs
# written in Go listen by MPTCP by default since Go 1.24, so what hands their listeners to such a filter stops working with
# the toolchain. The group of the port has both kinds in it all the same: a program that is attached through a plain listener
# deals out the connections of the MPTCP ones too, and stays when that listener has been closed.
#
# Needs cargo, a package registry, and a kernel with MPTCP (net.mptcp.enabled). Works in a directory of its own, prints what it
# sees, and fails if that changes. Seen on Linux 6.18 with rustc 1.95, 2026-11-30. Source: the kernel's net/mptcp/sockopt.c (the
# options of SOL_SOCKET that it hands on) and net/core/sock_reuseport.c (the program belongs to the group); Go 1.24's notes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
[ "$(cat /proc/sys/net/mptcp/enabled 2>/dev/null || echo 0)" = 1 ] || { echo "this kernel has no MPTCP: nothing to see"; exit 2; }
mkdir "$work/src"
cat >"$work/Cargo.toml" <<'TOML'
[package]
name = "seen"
version = "0.0.0"
edition = "2024"

[dependencies]
nix = { version = "=0.32.0", features = ["socket"] }
socket2 = { version = "=0.6.0", features = ["all"] }
TOML
cat >"$work/src/main.rs" <<'RUST'
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt::AttachReusePortCbpf};
use socket2::{Domain, Protocol, Socket, Type};

fn listen(protocol: Protocol, at: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(protocol)).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.bind(&at.into()).unwrap();
    socket.listen(16).unwrap();
    socket
}

/// Has every connection go to the listener at one place of the group.
fn steer(through: &Socket, place: u32) -> nix::Result<()> {
    let mut code = [libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: place }];
    setsockopt(through, AttachReusePortCbpf, &libc::sock_fprog { len: 1, filter: code.as_mut_ptr() })
}

/// How many of 32 connections each listener gets.
fn dealt(listeners: &[Socket; 2], at: SocketAddr) -> [usize; 2] {
    let mut got = [0, 0];
    for _ in 0..32 {
        let mut client = TcpStream::connect(at).unwrap();
        let ready = (0..).map(|turn| turn % 2).find_map(|which| Some((which, listeners[which].accept().ok()?.0)));
        let (which, mut server) = ready.unwrap();
        server.set_nonblocking(false).unwrap();
        client.write_all(b"x").unwrap();
        server.read_exact(&mut [0]).unwrap();
        got[which] += 1;
    }
    got
}

fn main() {
    let mptcp = Protocol::from(libc::IPPROTO_MPTCP);
    let first = listen(mptcp, "127.0.0.1:0".parse().unwrap());
    let at = first.local_addr().unwrap().as_socket().unwrap();
    let both = [first, listen(mptcp, at)];
    both.iter().for_each(|one| one.set_nonblocking(true).unwrap());
    println!("through mptcp: {:?}", steer(&both[0], 0));
    let shared = dealt(&both, at);
    println!("both have some: {}", shared.iter().all(|some| *some > 0));
    for place in [0, 1] {
        let plain = listen(Protocol::TCP, at);
        println!("through tcp: {:?}", steer(&plain, place));
        drop(plain);
        println!("place {place}: {:?}", dealt(&both, at));
    }
}
RUST
seen=$(cd "$work" && CARGO_TARGET_DIR=$work/target timeout 300 cargo run --quiet)
printf '%s\n' "$seen"
wanted='through mptcp: Err(EOPNOTSUPP)
both have some: true
through tcp: Ok(())
place 0: [32, 0]
through tcp: Ok(())
place 1: [0, 32]'
[ "$seen" = "$wanted" ] || { echo "this has changed; it was:"; printf '%s\n' "$wanted"; exit 1; }
echo "as seen before: no program through a listener of MPTCP, and its connections follow one that came through plain TCP"
