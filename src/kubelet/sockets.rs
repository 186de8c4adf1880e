//! Which container runtime a kubelet is to use where none is configured.

use crate::host::Paths;

/// Sockets at which runtimes that speak CRI listen.
const KNOWN: [&str; 3] =
    ["/var/run/containerd/containerd.sock", "/var/run/crio/crio.sock", "/var/run/cri-dockerd.sock"];

/// More than one runtime is there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "found multiple CRI endpoints on the host ({}): name one with --cri-socket, or in nodeRegistration.criSocket",
    found.join(", ")
)]
pub struct Ambiguous {
    /// What is there.
    pub found: Vec<String>,
}

/// The one that is there, as a URL; None where none is.
///
/// # Errors
/// [`Ambiguous`]: kubeadm does not choose either.
pub fn find(paths: &Paths) -> Result<Option<String>, Ambiguous> {
    let there = KNOWN.iter().filter(|path| paths.on_host(path).exists());
    let mut found: Vec<String> = there.map(|path| format!("unix://{path}")).collect();
    if found.len() > 1 { Err(Ambiguous { found }) } else { Ok(found.pop()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_only_one_counts_and_two_are_one_too_many() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        assert_eq!(find(&paths), Ok(None));
        let make = |path: &str| {
            crate::host::fs::make_dirs(paths.on_host(path).parent().unwrap(), 0o755).unwrap();
            crate::host::fs::write_file(&paths.on_host(path), b"", 0o600).unwrap();
        };
        make(KNOWN[1]);
        assert_eq!(find(&paths), Ok(Some("unix:///var/run/crio/crio.sock".into())));
        make(KNOWN[0]);
        assert!(
            find(&paths)
                .unwrap_err()
                .to_string()
                .starts_with("found multiple CRI endpoints on the host (unix:///var/run/containerd")
        );
    }
}
