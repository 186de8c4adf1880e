//! A disk that fills up in the middle of an upgrade, by somebody who takes every byte.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use futures::FutureExt;

use super::status::{State, status};
use super::tests::{carry, ordered};
use crate::host::fs::write_file;
use crate::host::reserve;
use crate::testing::threads::{apart, small_disk};
use crate::workflow::upgrade::run::tests::{NEW, scheduler};

/// Puts what is in `dir` on a file system of its own with little room.
fn on_small_disk(dir: &Path) {
    let upgrade = dir.join("upgrade");
    let read = |dir: &Path| {
        let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.is_file()).map(|path| (fs::read(&path).unwrap(), path)).collect::<Vec<_>>()
    };
    let files = [read(dir), read(&upgrade)].concat();
    small_disk(dir, reserve::SIZE + (256 << 10));
    fs::create_dir(&upgrade).unwrap();
    for (content, path) in &files {
        write_file(path, content, 0o600).unwrap();
    }
}

fn fill(dir: &Path) {
    let mut file = OpenOptions::new().create(true).append(true).open(dir.join("fill")).unwrap();
    while file.write_all(&[1; 512]).is_ok() {}
}

async fn whole_way(taken_for: usize) {
    let (bench, paths) = ordered(NEW).await;
    let dir = paths.on_host("/var/lib/kubeboot");
    on_small_disk(&dir);
    let mut carried = Box::pin(carry(&bench));
    while !scheduler(&bench).contains(NEW) {
        assert!(carried.as_mut().now_or_never().is_none());
        tokio::time::advance(Duration::from_millis(1)).await;
        tokio::task::yield_now().await;
    }
    let mut ended = None;
    for _ in 0..taken_for {
        if taken_for > 1 {
            // What was set aside is taken by somebody else as well.
            let _ = fs::remove_file(dir.join("upgrade").join(reserve::NAME));
        }
        fill(&dir);
        ended = ended.or_else(|| carried.as_mut().now_or_never());
        tokio::time::advance(Duration::from_millis(100)).await;
        tokio::task::yield_now().await;
    }
    if taken_for > 1 {
        assert!(ended.is_none(), "it is neither new nor old, and has not ended: {ended:?}");
        assert!(matches!(status(&paths).unwrap().unwrap().state, State::Running | State::Ordered));
        fs::remove_file(dir.join("fill")).unwrap();
    }
    let ending = match ended {
        Some(ending) => ending,
        None => carried.await,
    };
    assert_eq!(ending.unwrap().unwrap().code, 0);
    assert!(scheduler(&bench).contains(NEW));
    assert!(!dir.join("upgrade").join(reserve::NAME).exists());
}

#[test]
fn a_disk_that_is_full_for_a_while_or_to_the_end_leaves_everything_new() {
    apart(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(whole_way(1));
        runtime.block_on(whole_way(100));
    });
}
