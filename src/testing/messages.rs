//! The Rust types of what is spoken over gRPC (and of etcd's log) are generated from .proto files beside them and
//! committed, so that a build needs neither protoc nor a generator. These tests generate them again, in Rust alone, and
//! fail where what is committed is not what the files say.
//!
//! After a change to a .proto file, while the sources still compile:
//! `KUBEBOOT_UPDATE_GOLDEN=1 cargo test --lib testing::messages`.

use std::path::Path;

use prost_build::{Config, Module};

use super::golden::assert_generated;

/// Compares the file `path` with what the file `proto` generates, or writes it ([`assert_generated`]).
fn check(proto: &str, path: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let set = protox::compile([root.join(proto)], [root]).unwrap();
    let module = |package: &str| Module::from_protobuf_package_name(package);
    let requests = set.file.into_iter().map(|file| (module(file.package()), file)).collect();
    let mut config = Config::new();
    // Sorted, so that what is sent is the same every time; and what holds a password has no Debug.
    config.btree_map(["."]).skip_debug(["cri.PullImageRequest", "cri.AuthConfig"]);
    let made: Vec<String> = config.generate(requests).unwrap().into_values().collect();
    let head =
        format!("// Generated from {proto}: KUBEBOOT_UPDATE_GOLDEN=1 cargo test --lib testing::messages writes it.\n");
    assert_generated(path, &(head + &made.concat()));
}

#[test]
fn cri() {
    check("src/runtime/cri/proto/cri.proto", "src/runtime/cri/proto/cri.rs");
}

#[test]
fn containerd() {
    check("src/runtime/cri/proto/containerd.proto", "src/runtime/cri/proto/containerd.rs");
}

#[test]
fn etcd() {
    check("src/etcd/etcd.proto", "src/etcd/proto.rs");
}

#[test]
fn device_plugin() {
    check("src/agent/devices/device_plugin.proto", "src/agent/devices/proto.rs");
}

#[test]
fn pods() {
    check("src/agent/server/pods_api/pods.proto", "src/agent/server/pods_api/proto.rs");
}
