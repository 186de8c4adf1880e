//! Commands in containers: one that is waited for, and streams that the runtime serves itself.

use std::time::Duration;

use async_trait::async_trait;
use tonic::{Code, Status};

use super::{Cri, proto, rpc};
use crate::host::clock;
use crate::runtime::streaming::{StdStreams, Streamed, Streaming};
use crate::runtime::*;

/// What a command's output is cut to (the kubelet's `maxRespBodyLength` for probes).
const OUTPUT_LIMIT: usize = 10 * 1024;
/// What a shell says of a command that cannot be run.
const CANNOT_RUN: i64 = 126;

impl Cri {
    /// Runs a command and waits for it. The runtime counts whole seconds and ends it then; whoever gives up earlier takes
    /// the call back, which ends it too.
    pub(super) async fn exec_limited(&self, id: &str, command: &[String], limit: Duration) -> Result<ExecOutput> {
        // A second more than is waited for here.
        let timeout = i64::from(clock::whole_seconds(limit)).saturating_add(1);
        let question = proto::ExecSyncRequest { container_id: id.to_owned(), cmd: command.to_vec(), timeout };
        let answer =
            self.call_within::<_, proto::ExecSyncResponse>("RuntimeService", "ExecSync", question, Some(limit)).await;
        match answer {
            Ok(answer) => {
                let mut output = answer.stdout;
                output.extend(answer.stderr);
                output.truncate(OUTPUT_LIMIT);
                let output = String::from_utf8_lossy(&output).into_owned();
                Ok(ExecOutput { exit_code: answer.exit_code.into(), output })
            }
            Err(status) if status.code() == Code::DeadlineExceeded => {
                Err(RuntimeError::Timeout { call: format!("{} in container {id}", command.join(" ")), limit })
            }
            Err(status) => self.not_run(id, status).await,
        }
    }

    /// Why a command was not run: the container does not run, or (as with Docker) the command itself is to blame.
    async fn not_run(&self, id: &str, status: Status) -> Result<ExecOutput> {
        let error = self.error("run a command in a container", &format!("container {id}"), status.clone());
        // CRI-O calls a container that has ended not found.
        if !matches!(error, RuntimeError::Refused { .. } | RuntimeError::NotFound { .. }) {
            return Err(error);
        }
        if !self.look_at(id).await?.state.is_running() {
            return Err(RuntimeError::Conflict { message: format!("container {id} is not running") });
        }
        let said = rpc::words(&status);
        match said.find("exec failed").or_else(|| said.find("executable file")) {
            Some(from) => Ok(ExecOutput { exit_code: CANNOT_RUN, output: said[from..].to_owned() }),
            None => Err(error),
        }
    }

    async fn served<Q: prost::Message + 'static>(&self, id: &str, method: &str, question: Q) -> Result<Streamed> {
        let answer = self.call::<_, proto::UrlResponse>(method, question).await;
        let call = format!("{} container", method.to_lowercase());
        answer
            .map(|answer| Streamed::Served(answer.url))
            .map_err(|status| self.error(&call, &format!("container {id}"), status))
    }
}

#[async_trait]
impl Streaming for Cri {
    async fn exec(&self, id: &str, command: &[String], wanted: StdStreams) -> Result<Streamed> {
        let question = proto::ExecRequest {
            container_id: id.to_owned(),
            cmd: command.to_vec(),
            tty: wanted.tty,
            stdin: wanted.stdin,
            stdout: wanted.stdout,
            stderr: wanted.stderr,
        };
        self.served(id, "Exec", question).await
    }

    async fn attach(&self, id: &str, wanted: StdStreams) -> Result<Streamed> {
        let question = proto::AttachRequest {
            container_id: id.to_owned(),
            stdin: wanted.stdin,
            tty: wanted.tty,
            stdout: wanted.stdout,
            stderr: wanted.stderr,
        };
        self.served(id, "Attach", question).await
    }
}
