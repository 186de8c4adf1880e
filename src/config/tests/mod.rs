//! Whole configurations in, specs or messages out.

mod bad;
mod flags;
mod foreign;
mod good;
mod join;
mod older;
mod print;
mod tables;

use super::spec::KubebootSpec;
use super::*;

/// `file` and nothing else, for whichever command.
fn file_of<F: Default>(file: &str) -> Input<F> {
    Input { file: Some(("c.yaml".into(), file.into())), flags: F::default(), host: host() }
}

/// A document of kubeadm's; its first own line is line 3.
fn document(kind: &str, body: &str) -> String {
    format!("apiVersion: kubeadm.k8s.io/v1beta4\nkind: {kind}\n{body}")
}

/// A machine called `cp1` at 10.0.0.5.
fn host() -> HostDefaults {
    HostDefaults { hostname: "cp1".into(), address: Some([10, 0, 0, 5].into()) }
}

fn input(file: &str) -> Input {
    file_of(file)
}

/// The spec and the warnings of `file`.
fn good(file: &str) -> Loaded {
    load(&input(file)).unwrap_or_else(|error| panic!("{error}\n{file}"))
}

/// The lines of problems of `file`, without the heading.
fn bad(file: &str) -> Vec<String> {
    let error = load(&input(file)).expect_err(file);
    error.problems.iter().map(ToString::to_string).collect()
}

/// A ClusterConfiguration; its first own line is line 3.
fn cluster(body: &str) -> String {
    document("ClusterConfiguration", body)
}

/// An InitConfiguration; its first own line is line 3.
fn init(body: &str) -> String {
    document("InitConfiguration", body)
}
