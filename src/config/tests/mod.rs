//! Whole configurations in, specs or messages out.

mod bad;
mod flags;
mod good;

use super::*;

/// A machine called `cp1` at 10.0.0.5.
fn host() -> HostDefaults {
    HostDefaults { hostname: "cp1".into(), address: Some([10, 0, 0, 5].into()) }
}

fn input(file: &str) -> Input {
    Input { file: Some(("c.yaml".into(), file.into())), flags: Flags::default(), host: host() }
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
    format!("apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\n{body}")
}

/// An InitConfiguration; its first own line is line 3.
fn init(body: &str) -> String {
    format!("apiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\n{body}")
}
