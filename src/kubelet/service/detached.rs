//! No service manager: the agent is a detached process, which is not restarted.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;

use super::flags_on;
use super::{LOG_LINES, Program, ServiceError, ServiceManager};
use crate::config::spec::NodeAgent;
use crate::host::Paths;
use crate::host::paths::{AGENT_LOG, AGENT_PID, KUBELET_CONFIG, KUBERNETES_DIR};
use crate::host::process::{Daemon, Handle, ProcessError};
use crate::kubelet::unit::ARENAS;

/// How long the agent may take to end by itself; it leaves its pods alone, so that is quick.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// The agent as a process with a pid file and a log.
pub struct Detached {
    paths: Paths,
    program: Program,
}

impl Detached {
    /// Runs `program`, its pid file and log below `paths`.
    pub fn new(paths: &Paths, program: Program) -> Self {
        Self { paths: paths.clone(), program }
    }

    /// The log.
    pub fn log(&self) -> PathBuf {
        self.paths.on_host(AGENT_LOG)
    }

    /// What the unit and its drop-in would run.
    fn daemon(&self) -> Daemon {
        // Where it is not Docker, this process's settings of Docker mean nothing to the agent.
        let host = self.program.docker_host.clone().unwrap_or_default();
        let variables = [("DOCKER_HOST", host.as_str()), ARENAS];
        let env = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        Daemon {
            program: self.program.path.clone(),
            args: self.arguments(),
            env,
            log: self.log(),
            pid_file: self.paths.on_host(AGENT_PID),
        }
    }

    fn arguments(&self) -> Vec<String> {
        let command = match self.program.agent {
            NodeAgent::Embedded => Some("agent".to_owned()),
            NodeAgent::Kubelet => None,
        };
        let mut args: Vec<String> = command.into_iter().collect();
        args.extend([
            format!("--bootstrap-kubeconfig={KUBERNETES_DIR}/bootstrap-kubelet.conf"),
            format!("--kubeconfig={KUBERNETES_DIR}/kubelet.conf"),
            format!("--config={KUBELET_CONFIG}"),
        ]);
        args.extend(flags_on(&self.paths));
        // On a node that was made for another runtime its flags name that.
        let names_another = args.iter().any(|arg| arg.starts_with("--container-runtime-endpoint"));
        args.extend(
            self.program.docker_host.iter().filter(|_| names_another).map(|host| format!("--docker-host={host}")),
        );
        args
    }

    fn running(&self) -> Result<Option<Handle>, ServiceError> {
        self.daemon().running().map_err(fail("find"))
    }
}

fn fail(action: &'static str) -> impl FnOnce(ProcessError) -> ServiceError {
    move |source| ServiceError::Process { action, source }
}

#[async_trait]
impl ServiceManager for Detached {
    fn name(&self) -> &'static str {
        "none"
    }

    fn is_enabled(&self) -> Result<bool, ServiceError> {
        Ok(false)
    }

    fn outlives_machine(&self) -> bool {
        false
    }

    fn is_running(&self) -> Result<bool, ServiceError> {
        Ok(self.running()?.is_some())
    }

    fn pid(&self) -> Option<u32> {
        Some(self.running().ok()??.pid)
    }

    fn start(&self) -> Result<String, ServiceError> {
        self.stop()?;
        let pid = self.daemon().start().map_err(fail("start"))?;
        let log = self.log();
        Ok(format!(
            "no service manager that is known runs here: started the node agent as process {pid}, log {}",
            log.display()
        ))
    }

    fn stop(&self) -> Result<bool, ServiceError> {
        let handle = self.running()?;
        if let Some(handle) = &handle {
            handle.terminate(STOP_GRACE).map_err(fail("stop"))?;
        }
        // One that was not stopped, or that ended by itself, has left its pid file behind.
        self.daemon().forget().map_err(fail("stop"))?;
        Ok(handle.is_some())
    }

    fn disable(&self) -> Result<(), ServiceError> {
        Ok(())
    }

    fn reload(&self) -> Result<(), ServiceError> {
        Ok(())
    }

    fn log_tail(&self) -> Vec<String> {
        let log = std::fs::read(self.log()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].iter().map(|line| (*line).to_owned()).collect()
    }

    async fn ended(&self) -> Vec<String> {
        let daemon = self.daemon();
        if !daemon.pid_file.exists() {
            // Never started by us (an agent in a terminal): not ours to restart.
            std::future::pending::<()>().await;
        }
        if let Ok(Some(handle)) = daemon.running()
            && handle.ended().await.is_err()
        {
            // It cannot be watched; what waits for it has a deadline of its own.
            std::future::pending::<()>().await;
        }
        self.log_tail()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::host::fs::{make_dirs, write_file};

    /// A machine whose agent is a shell script.
    fn machine(root: &Path, script: &str) -> Detached {
        let paths = Paths::new(root);
        let program = root.join("kubeboot");
        write_file(&program, format!("#!/bin/sh\n{script}\n").as_bytes(), 0o755).unwrap();
        Detached::new(
            &paths,
            Program { path: program, agent: NodeAgent::Embedded, docker_host: Some("unix:///d".into()) },
        )
    }

    #[test]
    fn the_agent_gets_what_the_unit_would_give_it() {
        let root = tempfile::tempdir().unwrap();
        let service = machine(root.path(), "");
        make_dirs(&root.path().join("var/lib/kubelet"), 0o755).unwrap();
        make_dirs(&root.path().join("etc/default"), 0o755).unwrap();
        let write = |file: &str, text: &str| write_file(&root.path().join(file), text.as_bytes(), 0o644).unwrap();
        write("var/lib/kubelet/kubeadm-flags.env", "KUBELET_KUBEADM_ARGS=\"--hostname-override=cp1 --v=2\"\n");
        write("etc/default/kubelet", "KUBELET_EXTRA_ARGS=--v=4\n");
        let expected = [
            "agent",
            "--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf",
            "--kubeconfig=/etc/kubernetes/kubelet.conf",
            "--config=/var/lib/kubelet/config.yaml",
            "--hostname-override=cp1",
            "--v=2",
            "--v=4",
        ];
        assert_eq!(service.daemon().args, expected);
        let env = [("DOCKER_HOST", "unix:///d"), ("MALLOC_ARENA_MAX", "1")];
        assert_eq!(service.daemon().env, env.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[tokio::test]
    async fn it_is_started_anew_stopped_and_its_end_is_noticed_with_its_last_words() {
        let root = tempfile::tempdir().unwrap();
        let service = machine(root.path(), "echo \"docker at $DOCKER_HOST\"; read -r line < \"$0.wait\"; echo end");
        let wait = root.path().join("kubeboot.wait");
        rustix::fs::mknodat(rustix::fs::CWD, &wait, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(!service.is_running().unwrap());
        assert!(service.start().unwrap().starts_with("no service manager that is known runs here"));
        let first = service.pid().unwrap();
        service.start().unwrap();
        assert_ne!(service.pid().unwrap(), first);
        // Opening the pipe for writing waits until the second one reads it, so that both have spoken.
        let speak = tokio::task::spawn_blocking(move || fs::OpenOptions::new().write(true).open(wait).map(drop));
        let log = service.ended().await;
        speak.await.unwrap().unwrap();
        assert_eq!(log.last().map(String::as_str), Some("end"));
        assert!(log.contains(&"docker at unix:///d".to_owned()), "{log:?}");
        assert!(!service.is_running().unwrap() && !service.stop().unwrap());
    }

    #[test]
    fn it_is_stopped_at_once() {
        let root = tempfile::tempdir().unwrap();
        let service = machine(root.path(), "while :; do /bin/sleep 1; done");
        service.start().unwrap();
        assert!(service.stop().unwrap());
        assert_eq!(service.pid(), None);
        let run = root.path().join("run/kubeboot");
        assert!(!run.exists(), "neither the pid file nor its directory stays");
        make_dirs(&run, 0o755).unwrap();
        write_file(&run.join("agent.pid"), b"4194305\n", 0o644).unwrap();
        assert!(!service.stop().unwrap() && !run.exists(), "a stale one goes too");
    }
}
