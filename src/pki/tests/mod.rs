//! The whole room, over trees in memory.

mod content;
mod existing;
mod faults;
mod kubeconfigs;
mod renewal;
mod verifier;

use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::host::tree::MemoryTree;
pub(super) use crate::testing::spec;

/// The moment of every test.
fn now() -> Timestamp {
    "2027-01-01T12:00:00Z".parse().unwrap()
}

fn days_later(days: i64) -> Timestamp {
    now() + SignedDuration::from_hours(24 * days)
}

fn pki(file: &str) -> PathBuf {
    Path::new("/etc/kubernetes/pki").join(file)
}

fn conf(file: &str) -> PathBuf {
    Path::new("/etc/kubernetes").join(file)
}

/// Everything, made for `spec` in an empty tree.
fn made(spec: &ClusterSpec) -> MemoryTree {
    let mut tree = MemoryTree::empty();
    ensure_certificates(spec, &mut tree, &[], now()).unwrap();
    ensure_kubeconfigs(spec, &mut tree, &[], now()).unwrap();
    tree
}

fn put(tree: &mut MemoryTree, path: &Path, content: impl AsRef<[u8]>) {
    tree.write(path, content.as_ref(), 0o600).unwrap();
}

fn remove(tree: &mut MemoryTree, path: &Path) {
    assert!(tree.remove(path).unwrap(), "{} was there", path.display());
}

fn read(tree: &MemoryTree, path: &Path) -> Vec<u8> {
    tree.read(path).unwrap().unwrap()
}

/// The only refusal of a result: its file's name and its problem.
fn refusal(result: Result<Vec<Outcome>, PkiError>) -> (PathBuf, Problem) {
    match result {
        Err(PkiError::Refused { mut refusals }) if refusals.len() == 1 => {
            let refusal = refusals.remove(0);
            (refusal.path, refusal.problem)
        }
        Err(error) => panic!("another error: {error}"),
        Ok(_) => panic!("nothing was refused"),
    }
}

fn with_action(outcomes: &[Outcome], action: Action) -> Vec<&str> {
    outcomes.iter().filter(|outcome| outcome.action == action).map(|outcome| outcome.file.as_str()).collect()
}
