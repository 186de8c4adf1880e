//! Liveness, readiness and startup probes by the kubelet's rules, and the eager check that finds out that a container
//! answers long before its probes' delays and periods would.
//!
//! [`Probes::of`] reads a container's probes once. The [`Manager`] runs them for the containers it is given and keeps
//! one [`Health`] a container; [`Prober`] is the part that opens sockets. Rules ([`rules`]) are apart from doing.

mod check;
mod grpc;
pub(in crate::agent) mod http;
mod manager;
mod memory;
mod process;
pub mod rules;
mod spec;
mod tls;
mod worker;

pub use check::Prober;
pub use manager::{Manager, ProbedContainer, Wake};
pub use memory::{Mark, Memory};
pub use process::{KernelPorts, Route, SharedPorts};
pub use rules::{Health, MustRestart};
pub use spec::{Action, HttpGet, Port, ProbeSpec, Probes, Target};
pub(in crate::agent) use tls::client_config;

use std::time::Duration;

use async_trait::async_trait;

/// Where pods on the machine's network are asked, where that machine is in no cluster.
pub(in crate::agent) const LOOPBACK: &str = "127.0.0.1";

/// The three probes of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ProbeKind {
    /// Holds the other two back until it has succeeded once.
    Startup,
    /// Its failure gets the container restarted.
    Liveness,
    /// Its result is the container's `ready`.
    Readiness,
}

impl ProbeKind {
    /// The word the kubelet's messages use, capitalised: `Liveness`.
    pub fn title(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It answered as it should; a warning where the kubelet would make a `ProbeWarning` event of it.
    Success {
        /// Why the success is a doubtful one.
        warning: Option<String>,
    },
    /// It did not.
    Failure {
        /// What it did instead.
        message: String,
        /// No process listens at all: asking again at once costs next to nothing.
        refused: bool,
    },
    /// The check could not be made (a port name that no port has, an exec that cannot start). Counts as nothing.
    Error {
        /// Why.
        message: String,
    },
}

/// Makes one check. [`Prober`] is the real one; tests have one that answers from a script.
#[async_trait]
pub trait Checker: Send + Sync {
    /// Asks `target` once and gives it `limit` in all.
    async fn check(&self, target: &Target, limit: Duration) -> Outcome;

    /// The same of the process that `route` leads to, one of two at the target.
    async fn check_by(&self, _route: &Route, target: &Target, limit: Duration) -> Outcome {
        self.check(target, limit).await
    }
}

#[cfg(test)]
mod tests;
