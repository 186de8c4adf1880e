//! What containers have said: links to their logs, and the last words of those that ended.

use futures::StreamExt;

use super::*;
use crate::agent::worker::status::falls_back;
use crate::runtime::LogOptions;

/// Bytes of a termination message that are read (the kubelet's `MaxContainerTerminationMessageLength`).
const MESSAGE_LIMIT: u64 = 4096;
/// No log is waited for longer: what the pod does next waits with it.
const LOG_LIMIT: Duration = Duration::from_secs(5);

impl Worker {
    /// Links the logs of running containers that have none yet; also of those that were adopted.
    pub(in crate::agent::worker) async fn link_logs(&mut self) {
        let running = self.seen.instances.values_mut().filter(|one| !one.linked && !one.record.is_sandbox);
        for one in running.filter(|one| one.record.state != ContainerState::Created) {
            let Ok(path) = self.context.runtime.log_path(&one.record.id).await else { continue };
            one.linked = true;
            let Some(path) = path else { continue };
            let (context, name, id) = (Arc::clone(&self.context), one.record.name.clone(), one.record.id.clone());
            let link = move || logs::link(&context.options, &name, &id, Path::new(&path));
            if let Ok(Err(error)) = tokio::task::spawn_blocking(link).await {
                warn!(pod = %self.key, error = chain(&error), "cannot link the log");
            }
        }
    }

    /// Containers that have ended and whose last words are not known yet, of what is shown.
    pub(in crate::agent::worker) fn unheard(&self) -> impl Iterator<Item = &Instance> {
        let ended = self.seen.instances.values().filter(|one| one.exit_code().is_some() && !one.record.is_sandbox);
        // A predecessor of which nothing runs is not shown any more, and its successor waits for it.
        let shown = ended.filter(|one| self.pod.is_none() || self.known_pod(&one.record.name.uid).is_some());
        shown.filter(|one| !self.log_tails.contains_key(&one.record.id))
    }

    /// Reads what containers that ended have left: their messages, and the logs of those that ended badly.
    pub(in crate::agent::worker) async fn read_log_tails(&mut self) {
        if self.suspended {
            return;
        }
        let ended: Vec<_> = self.unheard().cloned().collect();
        for one in ended {
            let record = &one.record;
            let badly = one.exit_code() != Some(0);
            let log = if badly { self.last_lines(&record.id).await } else { vec![] };
            let name = &record.name;
            let spec = self.known_pod(&name.uid).and_then(|pod| pod.container(&name.container));
            let falls_back = spec.is_some_and(falls_back);
            let tail = if badly && falls_back { self.tail(&record.id).await } else { String::new() };
            let log = logs::log_tail(log);
            let root = &self.context.options.root_dir;
            let file = volumes::termination_file(root, &name.uid, &name.container, name.attempt);
            self.log_tails.insert(record.id.clone(), LogTail { log, message: read_message(&file).await, tail });
        }
    }

    async fn last_lines(&self, id: &str) -> Vec<String> {
        let lines = self.context.runtime.log_tail(id, logs::READ_LINES);
        tokio::time::timeout(LOG_LIMIT, lines).await.map(Result::unwrap_or_default).unwrap_or_default()
    }

    /// The end of a container's log as it was written: a message has no newline that the log has not.
    async fn tail(&self, id: &str) -> String {
        let options = LogOptions { tail: Some(logs::TAIL_LINES), ..LogOptions::default() };
        let mut end = logs::Tail::default();
        let read = async {
            let Ok(mut log) = self.context.runtime.logs(id, &options).await else { return };
            while let Some(Ok(bytes)) = log.next().await {
                end.push(&bytes);
            }
        };
        // What came in time is better than nothing.
        let _ = tokio::time::timeout(LOG_LIMIT, read).await;
        end.into_text()
    }
}

/// What a container wrote to its termination message file.
async fn read_message(file: &Path) -> String {
    use tokio::io::AsyncReadExt;
    let Ok(opened) = tokio::fs::File::open(file).await else { return String::new() };
    let mut bytes = Vec::new();
    let _ = opened.take(MESSAGE_LIMIT).read_to_end(&mut bytes).await;
    String::from_utf8_lossy(&bytes).into_owned()
}
