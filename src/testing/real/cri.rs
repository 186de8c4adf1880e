//! A runtime that speaks CRI, for tests: whoever sets `KUBEBOOT_TEST_CRI` to its socket has one.

use std::fs::File;
use std::process::{Command, Stdio};

/// Names the socket.
pub const VARIABLE: &str = "KUBEBOOT_TEST_CRI";

/// The socket's path; None where tests run on Docker.
pub fn chosen() -> Option<String> {
    let socket = std::env::var(VARIABLE).ok().filter(|path| !path.is_empty())?;
    Some(socket.trim_start_matches("unix://").to_owned())
}

/// [`chosen`] for a test that is of CRI alone, and says so where it does not run.
///
/// # Panics
/// There is none, and this is a run in which everything is to be tested.
pub fn socket() -> Option<String> {
    let path = chosen();
    if path.is_none() {
        assert!(
            std::env::var_os("CI").is_none(),
            "{VARIABLE} names no CRI socket: start one (`. scripts/lib.sh; containerd_up DIR`) and set it"
        );
        eprintln!("not tested: {VARIABLE} names no CRI socket");
    }
    path
}

/// What `ctr`, told the socket and CRI's namespace, says.
///
/// # Panics
/// It fails.
pub fn ctr(socket: &str, args: &[&str]) -> String {
    let output = Command::new("ctr").args(["--address", socket, "--namespace", "k8s.io"]).args(args).output();
    let output = output.unwrap_or_else(|error| panic!("cannot run ctr: {error}"));
    assert!(output.status.success(), "ctr {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Brings images of Docker's into containerd. Two imports at once get in each other's way: a lock keeps them apart.
///
/// # Panics
/// Docker has one of them not.
pub fn import(socket: &str, images: &[&str]) {
    let lock = File::create(std::env::temp_dir().join("kubeboot-ctr-import.lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let mut save = Command::new("docker").arg("save").args(images).stdout(Stdio::piped()).spawn().unwrap();
    let archive = save.stdout.take().unwrap();
    let import = Command::new("ctr")
        .args(["--address", socket, "--namespace", "k8s.io", "images", "import", "-"])
        .stdin(archive)
        .output()
        .unwrap();
    assert!(save.wait().unwrap().success(), "docker save {images:?} failed");
    assert!(import.status.success(), "ctr images import: {}", String::from_utf8_lossy(&import.stderr));
}
