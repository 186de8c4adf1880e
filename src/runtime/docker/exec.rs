//! Commands in containers. Docker has no limit for them and no call that ends one, so a command that is given up is
//! ended from the host.

use std::time::Duration;

use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use futures::StreamExt;

use super::{Docker, linger};
use crate::runtime::*;

/// What a command's output is cut to (the kubelet's `maxRespBodyLength` for probes).
const OUTPUT_LIMIT: usize = 10 * 1024;
/// How often Docker is asked for the process of a command that is given up; it may be just about to start.
const LOOKS: u32 = 20;
/// The pause between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

impl Docker {
    /// Runs a command and waits for it, for `limit` at most. A caller that gives up waiting ends the command.
    pub(super) async fn exec_limited(&self, id: &str, command: &[String], limit: Duration) -> Result<ExecOutput> {
        let timeout = || RuntimeError::Timeout { call: format!("{} in container {id}", command.join(" ")), limit };
        tokio::time::timeout(limit, self.run_in_container(id, command)).await.map_err(|_| timeout())?
    }

    async fn run_in_container(&self, id: &str, command: &[String]) -> Result<ExecOutput> {
        let client = self.client().await?;
        let failed = |error| self.error("run a command in a container", &format!("container {id}"), error);
        let config = CreateExecOptions {
            cmd: Some(command.to_vec()),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            ..CreateExecOptions::default()
        };
        let exec = client.create_exec(id, config).await.map_err(failed)?.id;
        let mut unfinished = Unfinished {
            // Processes of a daemon elsewhere are not among this machine's.
            client: self.address.is_local().then(|| client.clone()),
            exec,
            container: id.to_owned(),
        };
        let exec = unfinished.exec.clone();
        let mut output = Vec::new();
        let started = client.start_exec(&exec, None::<StartExecOptions>).await.map_err(failed)?;
        if let StartExecResults::Attached { output: mut frames, .. } = started {
            while let Some(frame) = frames.next().await {
                let frame = frame.map_err(failed)?.into_bytes();
                let room = OUTPUT_LIMIT.saturating_sub(output.len()).min(frame.len());
                output.extend_from_slice(&frame[..room]);
            }
        }
        // The streams end a moment before Docker has taken the exit code in, and no event says when it has.
        let mut pause = Duration::from_millis(1);
        loop {
            let inspected = client.inspect_exec(&exec).await.map_err(failed)?;
            if let (Some(exit_code), Some(false) | None) = (inspected.exit_code, inspected.running) {
                unfinished.client = None;
                return Ok(ExecOutput { exit_code, output: String::from_utf8_lossy(&output).into_owned() });
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(100));
        }
    }
}

/// A command that may still run. Dropping it ends what is left of it, as CRI runtimes do.
struct Unfinished {
    /// None once it has ended.
    client: Option<bollard::Docker>,
    exec: String,
    container: String,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let Some(client) = self.client.take() else { return };
        let (exec, container) = (std::mem::take(&mut self.exec), std::mem::take(&mut self.container));
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { end(&client, &exec, container).await });
        }
    }
}

/// Asks for the process until there is one or it is sure that there will be none, and ends it.
async fn end(client: &bollard::Docker, exec: &str, container: String) {
    for _ in 0..LOOKS {
        let Ok(inspected) = client.inspect_exec(exec).await else { return };
        match (inspected.running, inspected.pid.and_then(|pid| i32::try_from(pid).ok())) {
            (Some(true), Some(pid)) if pid > 0 => {
                let _ = tokio::task::spawn_blocking(move || linger::end(pid, &container)).await;
                return;
            }
            (_, _) if inspected.exit_code.is_some() => return,
            _ => tokio::time::sleep(LOOK_PAUSE).await,
        }
    }
}
