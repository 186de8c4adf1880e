//! systemd, by way of `systemctl`.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use async_trait::async_trait;

use super::{LOG_LINES, ServiceError, ServiceManager, UNIT};

/// The unit `kubelet.service`.
pub struct Systemd {
    systemctl: PathBuf,
}

impl Systemd {
    /// `systemctl` is the program.
    pub fn new(systemctl: PathBuf) -> Self {
        Self { systemctl }
    }

    fn output(&self, args: &[&str]) -> Result<Output, ServiceError> {
        let run = Command::new(&self.systemctl).args(args).stdin(Stdio::null()).output();
        run.map_err(|source| ServiceError::Run { command: command(args), source })
    }

    fn run(&self, args: &[&str]) -> Result<(), ServiceError> {
        let output = self.output(args)?;
        if output.status.success() {
            return Ok(());
        }
        Err(ServiceError::Command {
            command: command(args),
            status: output.status.to_string(),
            said: text(&output.stderr),
            log: self.status(),
        })
    }

    /// `systemctl is-enabled`, `is-active`: an exit code other than 0 is an answer, not an error.
    fn answer(&self, args: &[&str]) -> Result<String, ServiceError> {
        Ok(text(&self.output(args)?.stdout))
    }

    /// What systemd knows of the unit, with the last lines of its journal.
    fn status(&self) -> Vec<String> {
        let lines = LOG_LINES.to_string();
        let args = ["status", "--no-pager", "--full", "--lines", &lines, UNIT];
        let status = self.output(&args).map(|output| text(&output.stdout)).unwrap_or_default();
        status.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect()
    }
}

fn command(args: &[&str]) -> String {
    format!("systemctl {}", args.join(" "))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

#[async_trait]
impl ServiceManager for Systemd {
    fn name(&self) -> &'static str {
        "systemd"
    }

    fn is_enabled(&self) -> Result<bool, ServiceError> {
        Ok(self.answer(&["is-enabled", UNIT])? == "enabled")
    }

    fn is_running(&self) -> Result<bool, ServiceError> {
        // A service that fails and is started again and again is `activating` most of the time.
        Ok(matches!(self.answer(&["is-active", UNIT])?.as_str(), "active" | "activating" | "reloading"))
    }

    fn pid(&self) -> Option<u32> {
        let pid = self.answer(&["show", "--property=MainPID", "--value", UNIT]).ok()?.parse().ok();
        pid.filter(|pid| *pid != 0)
    }

    fn start(&self) -> Result<String, ServiceError> {
        self.run(&["daemon-reload"])?;
        self.run(&["enable", "--quiet", UNIT])?;
        self.run(&["restart", UNIT])?;
        Ok(format!("started the unit {UNIT}.service; its log: journalctl -u {UNIT}"))
    }

    fn stop(&self) -> Result<bool, ServiceError> {
        let runs = self.is_running()?;
        if runs {
            self.run(&["stop", UNIT])?;
        }
        Ok(runs)
    }

    fn disable(&self) -> Result<(), ServiceError> {
        if self.is_enabled()? { self.run(&["disable", "--quiet", UNIT]) } else { Ok(()) }
    }

    fn reload(&self) -> Result<(), ServiceError> {
        self.run(&["daemon-reload"])?;
        // A unit that had failed is remembered after its file is gone; one that had not is no error worth a word.
        self.output(&["reset-failed", UNIT]).map(drop)
    }

    fn log_tail(&self) -> Vec<String> {
        self.status()
    }

    async fn ended(&self) -> Vec<String> {
        // Restart=always: there is always a next time.
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::host::fs::write_file;

    /// A systemctl that keeps its arguments and answers by the first one.
    fn systemctl(dir: &Path, answers: &str) -> Systemd {
        let script =
            format!("#!/bin/sh\necho \"$*\" >> {}\ncase \"$1\" in\n{answers}\nesac\n", dir.join("calls").display());
        let path = dir.join("systemctl");
        write_file(&path, script.as_bytes(), 0o755).unwrap();
        Systemd::new(path)
    }

    fn calls(dir: &Path) -> Vec<String> {
        fs::read_to_string(dir.join("calls")).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    #[test]
    fn starting_reads_the_unit_anew_enables_and_restarts_it() {
        let dir = tempfile::tempdir().unwrap();
        assert!(systemctl(dir.path(), "").start().unwrap().contains("journalctl -u kubelet"));
        assert_eq!(calls(dir.path()), ["daemon-reload", "enable --quiet kubelet", "restart kubelet"]);
    }

    #[test]
    fn a_failure_says_what_was_tried_and_what_the_unit_s_status_is() {
        let dir = tempfile::tempdir().unwrap();
        let answers = "restart) echo 'Job failed.' >&2; exit 1;;\n\
                       status) echo '* kubelet.service'; echo; echo 'bad flag'; exit 3;;";
        let error = systemctl(dir.path(), answers).start().unwrap_err();
        assert_eq!(
            error.to_string(),
            "systemctl restart kubelet failed (exit status: 1): Job failed.\n\t* kubelet.service\n\tbad flag"
        );
    }

    #[test]
    fn what_does_not_run_is_not_stopped_and_what_is_not_enabled_not_disabled() {
        let dir = tempfile::tempdir().unwrap();
        let answers = "is-active) echo inactive; exit 3;;\nis-enabled) echo 'not-found' ; exit 4;;";
        let service = systemctl(dir.path(), answers);
        assert!(!service.stop().unwrap());
        service.disable().unwrap();
        assert_eq!(calls(dir.path()), ["is-active kubelet", "is-enabled kubelet"]);
    }

    #[test]
    fn what_runs_is_stopped_and_known_by_its_pid() {
        let dir = tempfile::tempdir().unwrap();
        let service = systemctl(dir.path(), "is-active) echo active;;\nis-enabled) echo enabled;;\nshow) echo 77;;");
        assert_eq!(service.pid(), Some(77));
        assert!(service.stop().unwrap());
        service.disable().unwrap();
        let expected = [
            "show --property=MainPID --value kubelet",
            "is-active kubelet",
            "stop kubelet",
            "is-enabled kubelet",
            "disable --quiet kubelet",
        ];
        assert_eq!(calls(dir.path()), expected);
    }

    #[test]
    fn a_systemctl_that_is_not_there_is_named() {
        let error = Systemd::new("/nonexistent/systemctl".into()).is_running().unwrap_err();
        assert_eq!(error.to_string(), "cannot run systemctl is-active kubelet");
    }
}
