//! What keeps the node agent running: systemd through its unit `kubelet`; without one it is a detached process
//! with a pid file and a log.

mod detached;
mod environment;
mod systemd;

use std::path::PathBuf;

use async_trait::async_trait;

use self::environment::{variables, words};
use crate::config::spec::NodeAgent;
use crate::host::Paths;
use crate::host::facts::{InitSystem, find_program, init_system};
use crate::host::paths::KUBELET_FLAGS_ENV;
use crate::host::process::ProcessError;

pub use detached::Detached;
pub use systemd::Systemd;

/// The service's name, which every tool around Kubernetes expects.
pub const UNIT: &str = "kubelet";

/// The drop-in's files of variables, in its order.
pub const ENVIRONMENT_FILES: [&str; 3] = [KUBELET_FLAGS_ENV, "/etc/default/kubelet", "/etc/sysconfig/kubelet"];

/// The flags that those files give the kubelet of this machine, or the agent in its place: as in a unit, a later file's
/// variable replaces an earlier one's.
pub fn flags_on(paths: &Paths) -> Vec<String> {
    let read = |file: &str| std::fs::read_to_string(paths.on_host(file)).unwrap_or_default();
    let all: Vec<(String, String)> = ENVIRONMENT_FILES.iter().flat_map(|file| variables(&read(file))).collect();
    let value = |name| all.iter().rfind(|(found, _)| found == name).map(|(_, value)| value);
    ["KUBELET_KUBEADM_ARGS", "KUBELET_EXTRA_ARGS"]
        .into_iter()
        .filter_map(value)
        .flat_map(|value| words(value))
        .collect()
}

/// How many of the agent's last words an error carries.
const LOG_LINES: usize = 20;

/// A service manager that did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// A command of the service manager failed.
    #[error("{command} failed ({status}): {said}{}", lines(log))]
    Command {
        /// The command line.
        command: String,
        /// How it ended.
        status: String,
        /// What it said.
        said: String,
        /// The last lines of the service's status.
        log: Vec<String>,
    },
    /// A command of the service manager could not be started.
    #[error("cannot run {command}")]
    Run {
        /// The command line.
        command: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The agent as a process of its own.
    #[error("cannot {action} the node agent")]
    Process {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: ProcessError,
    },
}

fn lines(log: &[String]) -> String {
    log.iter().map(|line| format!("\n\t{line}")).collect()
}

/// Starts and stops the service `kubelet`. Every call may be repeated.
#[async_trait]
pub trait ServiceManager: Send + Sync {
    /// `systemd` or `none`.
    fn name(&self) -> &'static str;

    /// Whether the service starts with the machine.
    fn is_enabled(&self) -> Result<bool, ServiceError>;

    /// Whether it comes back by itself when the machine is started again, once it has been started.
    fn outlives_machine(&self) -> bool {
        true
    }

    /// Whether it runs.
    fn is_running(&self) -> Result<bool, ServiceError>;

    /// Its process, while it runs.
    fn pid(&self) -> Option<u32>;

    /// Makes it start with the machine and starts (or restarts) it now, with what its files say now. Returns one
    /// sentence for the user.
    fn start(&self) -> Result<String, ServiceError>;

    /// Stops it. Returns whether it ran. The pods stay.
    fn stop(&self) -> Result<bool, ServiceError>;

    /// Makes it not start with the machine any more; that there is no such service is fine.
    fn disable(&self) -> Result<(), ServiceError>;

    /// Makes the service manager read its files again, after one was removed.
    fn reload(&self) -> Result<(), ServiceError>;

    /// The last lines of its log, for an error that has to say why it did not do what it should.
    fn log_tail(&self) -> Vec<String>;

    /// Waits until the service has ended for good, and returns the last lines of its log. One that is started again by
    /// its manager never does.
    async fn ended(&self) -> Vec<String>;
}

/// What the service runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// This program, or the kubelet.
    pub path: PathBuf,
    /// Which of the two.
    pub agent: NodeAgent,
    /// `dockerHost`, where the configuration names one.
    pub docker_host: Option<String>,
}

/// The service manager of this machine.
///
/// systemd counts when it runs, not when it is installed. Any other way of starting services (OpenRC among them) is not
/// known: then the program is started as a detached process, and [`ServiceManager::start`] says so.
pub fn detect(paths: &Paths, program: Program) -> Box<dyn ServiceManager> {
    let systemctl = find_program("systemctl").filter(|_| paths.is_live() && init_system() == InitSystem::Systemd);
    match systemctl {
        Some(systemctl) => Box::new(Systemd::new(systemctl)),
        None => Box::new(Detached::new(paths, program)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn below_another_root_nothing_is_asked_of_the_machine_s_service_manager() {
        let root = tempfile::tempdir().unwrap();
        let program = Program { path: "/usr/bin/kubeboot".into(), agent: NodeAgent::Embedded, docker_host: None };
        let service = detect(&Paths::new(root.path()), program);
        assert_eq!(service.name(), "none");
        assert!(!service.is_running().unwrap() && !service.is_enabled().unwrap());
        assert!(!service.stop().unwrap());
    }
}
