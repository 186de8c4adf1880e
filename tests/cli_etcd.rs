//! The flags and errors of `kubeboot etcd`, without an etcd.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::Path;

use assert_cmd::Command;
use kubeboot::host::fs::write_file;
use kubeboot::testing::etcd::hash_of;
use kubeboot::testing::etcd_database::Builder;
use predicates::prelude::*;
use predicates::str::contains;

fn kubeboot(root: &Path, args: &[&str]) -> assert_cmd::assert::Assert {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubeboot"));
    command.arg("--rootfs").arg(root).arg("etcd").args(args).assert()
}

#[test]
fn a_member_that_is_not_there_is_an_error_with_the_way_out() {
    let root = tempfile::tempdir().unwrap();
    for command in ["members", "status", "defrag"] {
        kubeboot(root.path(), &[command, "--endpoints", "127.0.0.1:1"])
            .code(1)
            .stdout("")
            .stderr(contains("no member of etcd answers: https://127.0.0.1:1: ").and(contains("--endpoints")));
        kubeboot(root.path(), &[command, "--endpoints", "http://127.0.0.1:1"])
            .code(1)
            .stderr(contains("members are asked by TLS"));
    }
}

#[test]
fn a_snapshot_is_not_saved_where_a_file_is() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("etcd.db");
    write_file(&file, b"precious", 0o600).unwrap();
    let name = file.to_str().unwrap();
    kubeboot(root.path(), &["snapshot", "save", name]).code(1).stderr(contains("replace it with --force"));
    kubeboot(root.path(), &["snapshot", "save", "--force", name, "--endpoints", "127.0.0.1:1"])
        .code(1)
        .stderr(contains("no member of etcd answers"));
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");
    kubeboot(root.path(), &["snapshot", "save", "--force", "/dev/null"]).code(1).stderr(contains("no regular file"));
    kubeboot(root.path(), &["snapshot", "status", name]).code(1).stderr(contains("is no whole snapshot of etcd"));
}

#[test]
fn a_snapshot_is_looked_at_and_restored_without_an_etcd() {
    let root = tempfile::tempdir().unwrap();
    let mut builder = Builder::default();
    builder.bucket("meta", &[(b"storageVersion".to_vec(), b"3.6.0".to_vec())]);
    builder.keys(&[(2, "a", false), (3, "b", false), (4, "a", true)]);
    let bytes = builder.bytes();
    let file = root.path().join("etcd.db");
    write_file(&file, &[bytes.clone(), hash_of(&bytes)].concat(), 0o600).unwrap();
    let name = file.to_str().unwrap();
    let output = kubeboot(root.path(), &["snapshot", "status", name, "-o", "json"]).success();
    let found: serde_json::Value = serde_json::from_slice(&output.get_output().stdout).unwrap();
    assert_eq!((found["revision"].as_u64(), found["totalKey"].as_u64()), (Some(4), Some(1)));
    assert_eq!(found["storageVersion"], "3.6.0");

    let data = root.path().join("data");
    let dir = data.to_str().unwrap();
    let restore = |more: &[&str]| {
        let own = ["--name", "cp1", "--initial-advertise-peer-urls", "https://10.0.0.5:2380"];
        let args = [&["snapshot", "restore", name, "--data-dir", dir][..], &own, more].concat();
        kubeboot(root.path(), &args)
    };
    let wrong = [
        (&["--initial-cluster", "cp2=https://10.0.0.6:2380"][..], "has no member cp1, but cp2"),
        (&["--initial-cluster", "cp1=https://10.0.0.6:2380"], "both have to say the same"),
        (&["--initial-cluster", "cp1"], "expected NAME=URL"),
        (&["--bump-revision", "5"], "--mark-compacted"),
        (&["--mark-compacted"], "--bump-revision"),
    ];
    for (more, why) in wrong {
        restore(more).code(1).stdout("").stderr(contains(why));
    }
    assert!(!data.exists());
    restore(&[]).success().stdout(contains("as cp1, member "));
    restore(&[]).code(1).stderr(contains("is not empty (member is in it)"));
}
