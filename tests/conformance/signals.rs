//! When a container was asked to end, by its own word: not every runtime tells of the signals that it sends. What is told
//! of one that does not heed them is its end by SIGKILL, as exit code 137.

use std::fs;
use std::time::{Duration, UNIX_EPOCH};

use kubeboot::testing::real::pod::Pod;

use crate::node::Node;

/// Exit code of what SIGKILL has ended.
pub const KILLED: Option<i64> = Some(137);

/// A main process that notes SIGTERM and goes on.
const NOTES: &str = "trap 'echo TERM >> /told/signals' TERM; touch /told/heeds; while :; do sleep 1000 & wait $!; done";

/// Makes the pod's main container one that notes SIGTERM in this node's directory and goes on.
pub fn noting(node: &Node, pod: Pod) -> Pod {
    fs::create_dir_all(node.path("told")).unwrap();
    pod.script(NOTES).mount("told", &node.path("told"))
}

/// Waits until it would note one.
pub async fn heeds(node: &Node) {
    let look = || std::future::ready(node.path("told/heeds").exists().then_some(()));
    node.eventually("the container heeds signals", look).await;
}

/// When the only SIGTERM came, since the epoch.
pub fn asked(node: &Node) -> Duration {
    let path = node.path("told/signals");
    assert_eq!(fs::read_to_string(&path).unwrap(), "TERM\n");
    fs::metadata(&path).unwrap().modified().unwrap().duration_since(UNIX_EPOCH).unwrap()
}
