//! The Rust types of what is spoken over gRPC (and of etcd's log) are generated from the files below `proto/` and
//! committed, so that a build needs neither protoc nor a generator. These tests generate them again, in Rust alone, and
//! fail where what is committed is not what the files say.
//!
//! After a change to a file below `proto/`, while the sources still compile:
//! `KUBEBOOT_UPDATE_GOLDEN=1 cargo test --lib testing::messages`.

use std::path::Path;

use prost_build::{Config, Module};

use super::golden::assert_generated;

/// Compares the file `path` with what `proto/NAME.proto` generates, or writes it ([`assert_generated`]).
fn check(name: &str, path: &str) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    let set = protox::compile([dir.join(format!("{name}.proto"))], [&dir]).unwrap();
    let module = |package: &str| Module::from_protobuf_package_name(package);
    let requests = set.file.into_iter().map(|file| (module(file.package()), file)).collect();
    let mut config = Config::new();
    // Sorted, so that what is sent is the same every time; and what holds a password has no Debug.
    config.btree_map(["."]).skip_debug(["cri.PullImageRequest", "cri.AuthConfig"]);
    let made: Vec<String> = config.generate(requests).unwrap().into_values().collect();
    let head = format!(
        "// Generated from proto/{name}.proto: KUBEBOOT_UPDATE_GOLDEN=1 cargo test --lib testing::messages writes it.\n"
    );
    assert_generated(path, &(head + &made.concat()));
}

#[test]
fn cri() {
    check("cri", "src/runtime/cri/proto/cri.rs");
}

#[test]
fn containerd() {
    check("containerd", "src/runtime/cri/proto/containerd.rs");
}

#[test]
fn etcd() {
    check("etcd", "src/etcd/proto.rs");
}

#[test]
fn device_plugin() {
    check("device_plugin", "src/agent/devices/proto.rs");
}

#[test]
fn pods() {
    check("pods", "src/agent/server/pods_api/proto.rs");
}
