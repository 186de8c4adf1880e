//! What containers have said: links to their logs, and the last words of those that ended.

use super::*;

/// Bytes of a termination message that are read (the kubelet's `MaxContainerTerminationMessageLength`).
const MESSAGE_LIMIT: u64 = 4096;

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

    /// Reads what containers that ended badly have left. Returns whether there was something new.
    pub(in crate::agent::worker) async fn hear_last_words(&mut self) -> bool {
        let unheard = |one: &&Instance| {
            let ended = one.exit_code().is_some() && !one.record.is_sandbox;
            ended && !self.words.contains_key(&one.record.id)
        };
        let ended: Vec<_> = self.seen.instances.values().filter(unheard).cloned().collect();
        if self.suspended {
            return false;
        }
        for one in &ended {
            let record = &one.record;
            let log = match one.exit_code() {
                Some(0) => vec![],
                _ => self.context.runtime.log_tail(&record.id, logs::READ_LINES).await.unwrap_or_default(),
            };
            let tail = logs::tail(&log);
            let log = logs::last_words(log);
            let (uid, name) = (&record.name.uid, &record.name);
            let file = volumes::termination_file(&self.context.options.root_dir, uid, &name.container, name.attempt);
            self.words.insert(record.id.clone(), Words { log, message: read_message(&file).await, tail });
        }
        !ended.is_empty()
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
