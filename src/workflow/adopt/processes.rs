//! The processes of the kubelet's static pods, known by their command lines: the manifests spell them out, and the
//! kubelet's own interfaces ask the API server for leave, which is one of those that end.

use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::host::process::{self, Handle, ProcessError};

/// Finds processes and waits for their end.
#[async_trait]
pub trait Processes: Send + Sync {
    /// The processes that were started with one of these command lines.
    fn find(&self, commands: &[Vec<String>]) -> Vec<u32>;

    /// Waits until a process has ended.
    async fn ended(&self, pid: u32) -> Result<(), ProcessError>;
}

/// Those of this machine.
pub struct Running;

#[async_trait]
impl Processes for Running {
    fn find(&self, commands: &[Vec<String>]) -> Vec<u32> {
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(|pid| commands.contains(&process::arguments(*pid))).collect()
    }

    async fn ended(&self, pid: u32) -> Result<(), ProcessError> {
        match Handle::open(pid)? {
            Some(process) => process.ended().await,
            None => Ok(()),
        }
    }
}

/// Waits until none of the processes is left; returns the pids that are at the end of `limit`.
///
/// # Errors
/// A process that cannot be waited for.
pub async fn all_ended(
    processes: &dyn Processes,
    commands: &[Vec<String>],
    limit: Duration,
) -> Result<Vec<u32>, ProcessError> {
    let deadline = Instant::now() + limit;
    loop {
        // Looked for anew each time: the kubelet may just have started one again.
        let left = processes.find(commands);
        let Some(first) = left.first() else { return Ok(left) };
        match tokio::time::timeout_at(deadline, processes.ended(*first)).await {
            Ok(ended) => ended?,
            Err(_) => return Ok(processes.find(commands)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_is_found_by_its_command_line_and_its_end_is_noticed() {
        let argument = format!("for-test-{}", std::process::id());
        let script = ["sh", "-c", "read -r line", argument.as_str()];
        let commands = [script.map(str::to_owned).to_vec()];
        let mut child =
            std::process::Command::new("sh").args(&script[1..]).stdin(std::process::Stdio::piped()).spawn().unwrap();
        // Between fork and exec it is this program still.
        while Running.find(&commands).is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(Running.find(&commands), [child.id()]);
        assert_eq!(all_ended(&Running, &commands, Duration::ZERO).await.unwrap(), [child.id()]);
        drop(child.stdin.take());
        let reaped = tokio::task::spawn_blocking(move || child.wait());
        assert!(all_ended(&Running, &commands, Duration::from_secs(30)).await.unwrap().is_empty());
        reaped.await.unwrap().unwrap();
    }
}
