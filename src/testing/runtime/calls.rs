//! The trait's calls on the fake.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use jiff::Timestamp;

use super::{Behaviour, FakeRuntime, MadeFrom, image_record, serial};
use crate::runtime::*;

#[async_trait]
impl ContainerRuntime for FakeRuntime {
    async fn version(&self) -> Result<RuntimeVersion> {
        self.record("version", "")?;
        Ok(RuntimeVersion { name: "fake".into(), version: "1.0".into(), api_version: "1.41".into() })
    }

    async fn cgroup_driver(&self) -> Result<Option<CgroupDriver>> {
        Ok(self.lock().cgroup_driver)
    }

    async fn pod_network(&self) -> Result<PodNetwork> {
        Ok(self.lock().network.clone())
    }

    async fn features(&self) -> Result<RuntimeFeatures> {
        Ok(self.lock().features)
    }

    fn needs_sandbox(&self) -> bool {
        self.lock().needs_sandbox
    }

    async fn reopen_log(&self, id: &str) -> Result<bool> {
        self.record("reopen_log", id)?;
        let path = self.get(id, |container| container.record.labels.get(labels::LOG_PATH).cloned())?;
        if let Some(path) = path {
            let made = std::fs::File::create(&path);
            made.map_err(|error| RuntimeError::Refused { call: format!("make {path}"), message: error.to_string() })?;
        }
        Ok(true)
    }

    async fn list(&self, owner: &str) -> Result<Vec<ContainerRecord>> {
        self.record("list", owner)?;
        let of_owner = |one: &ContainerRecord| one.labels.get(labels::OWNER).is_some_and(|label| label == owner);
        Ok(self.containers().into_iter().filter(of_owner).collect())
    }

    async fn inspect(&self, id: &str) -> Result<ContainerRecord> {
        self.record("inspect", id)?;
        self.get(id, |container| container.record.clone())
    }

    async fn create_sandbox(&self, config: &SandboxConfig) -> Result<String> {
        self.record("create_sandbox", &config.name.to_string())?;
        self.create(&config.image, &config.name, MadeFrom::Sandbox(Box::new(config.clone())))
    }

    async fn create_container(&self, config: &ContainerConfig) -> Result<String> {
        self.record("create_container", &config.name.to_string())?;
        self.create(&config.image, &config.name, MadeFrom::Container(Box::new(config.clone())))
    }

    async fn start(&self, id: &str) -> Result<()> {
        self.record("start", id)?;
        let now = self.now();
        let (record, run, was_running) = self.get(id, |container| {
            let was_running = container.record.state.is_running();
            if !was_running {
                container.run += 1;
                container.record.state = ContainerState::Running { started_at: now };
                if matches!(&container.made_from, MadeFrom::Sandbox(config) if config.network == NetworkMode::Default) {
                    container.record.ip = Some(format!("172.17.0.{}", serial(&container.record.id) % 250 + 2));
                }
            }
            (container.record.clone(), container.run, was_running)
        })?;
        if was_running {
            return Ok(());
        }
        self.tell(&record, RuntimeEventKind::Started);
        if let Some((after, code)) = self.behaviour(&record.name.container).exits_after {
            self.end_later(id.to_owned(), run, after, code);
        }
        Ok(())
    }

    async fn finish(&self) {
        let _ = self.record("finish", "");
    }

    async fn stop(&self, id: &str, grace: Duration) -> Result<()> {
        self.record("stop", &format!("{id} {}s", grace.as_secs()))?;
        let Some((name, run)) = self.with(id, |container| (container.record.name.container.clone(), container.run))
        else {
            return Ok(());
        };
        let behaviour = self.behaviour(&name);
        let (takes, code) = match behaviour {
            Behaviour { ignores_sigterm: true, .. } => (grace, 137),
            Behaviour { sigterm_takes, .. } if sigterm_takes > grace => (grace, 137),
            Behaviour { sigterm_takes, sigterm_exit_code, .. } => (sigterm_takes, sigterm_exit_code),
        };
        if takes.is_zero() {
            self.exit_container(id, code);
        } else {
            self.end_later(id.to_owned(), run, takes, code);
            self.until_stopped(id).await;
        }
        Ok(())
    }

    async fn remove(&self, id: &str) -> Result<()> {
        self.record("remove", id)?;
        self.destroy(id);
        Ok(())
    }

    async fn exec(&self, id: &str, command: &[String], limit: Duration) -> Result<ExecOutput> {
        self.record("exec", &format!("{id} {}", command.join(" ")))?;
        let (name, running) =
            self.get(id, |container| (container.record.name.container.clone(), container.record.state.is_running()))?;
        if !running {
            return Err(RuntimeError::Conflict { message: format!("container {id} is not running") });
        }
        let answer = self.lock().exec_answers.get(&name).cloned();
        let Some((takes, answer)) = answer else { return Ok(ExecOutput { exit_code: 0, output: String::new() }) };
        tokio::time::sleep(takes.min(limit)).await;
        if takes > limit {
            return Err(RuntimeError::Timeout { call: format!("exec in container {id}"), limit });
        }
        answer(command)
    }

    async fn log_tail(&self, id: &str, lines: usize) -> Result<Vec<String>> {
        self.record("log_tail", id)?;
        self.get(id, |container| container.log[container.log.len().saturating_sub(lines)..].to_vec())
    }

    async fn logs(&self, id: &str, options: &LogOptions) -> Result<BoxStream<'static, Result<Bytes>>> {
        self.record("logs", id)?;
        let had = self.get(id, |container| container.log.len())?;
        let from = options.tail.map_or(0, |tail| had.saturating_sub(usize::try_from(tail).unwrap_or(usize::MAX)));
        let (fake, id, wanted) = (self.clone(), id.to_owned(), options.clone());
        let changed = self.0.changed.subscribe();
        let lines = stream::unfold((from, changed), move |(next, mut changed)| {
            let (fake, id, wanted) = (fake.clone(), id.clone(), wanted.clone());
            async move {
                loop {
                    let seen = fake.with_quietly(&id, |one| {
                        let is_open = one.log_is_open && next + 1 == one.log.len();
                        let end = if is_open { "" } else { "\n" };
                        (one.log.get(next).map(|line| format!("{line}{end}")), one.record.state.is_running())
                    });
                    match seen {
                        Some((Some(line), _)) => return Some((Ok(line_of(next, &line, &wanted)), (next + 1, changed))),
                        Some((None, true)) if wanted.follow => changed.changed().await.ok()?,
                        _ => return None,
                    }
                }
            }
        });
        Ok(limited(lines, options.limit_bytes))
    }

    async fn log_path(&self, id: &str) -> Result<Option<String>> {
        self.record("log_path", id)?;
        let own = self.lock().needs_sandbox;
        self.get(id, |container| match container.record.labels.get(labels::LOG_PATH).filter(|_| own) {
            Some(path) => Some(path.clone()),
            None => Some(format!("/var/lib/docker/containers/{id}/{id}-json.log")),
        })
    }

    async fn events(&self, owner: &str) -> Result<BoxStream<'static, Result<RuntimeEvent>>> {
        self.record("events", owner)?;
        let receiver = self.0.events.lock().expect("no test panicked").subscribe();
        self.touch();
        let owner = owner.to_owned();
        let events =
            stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await.ok()?, receiver)) });
        Ok(events.filter_map(move |(event, of)| std::future::ready((of == owner).then_some(Ok(event)))).boxed())
    }

    async fn image(&self, reference: &str) -> Result<Option<ImageRecord>> {
        self.record("image", reference)?;
        Ok(self.find_image(reference))
    }

    async fn pull(
        &self,
        reference: &str,
        credential: Option<&Credential>,
        progress: &(dyn Fn(u64, Option<u64>) + Send + Sync),
    ) -> Result<ImageRecord> {
        let who = credential.map(|one| (one.username.clone(), one.password.clone()));
        self.lock().pulled_as.push(who.as_ref().map(|(name, _)| name.clone()));
        self.record("pull", reference)?;
        let demanded = self.lock().demands.get(reference).cloned();
        if demanded.is_some() && demanded != who {
            let message = "unauthorized".to_owned();
            return Err(RuntimeError::Pull { image: reference.to_owned(), message });
        }
        let takes = self.lock().registry.get(reference).copied();
        let Some(takes) = takes else {
            let message = "manifest unknown".to_owned();
            return Err(RuntimeError::Pull { image: reference.to_owned(), message });
        };
        progress(0, None);
        tokio::time::sleep(takes / 2).await;
        progress(50, Some(100));
        tokio::time::sleep(takes / 2).await;
        progress(100, Some(100));
        self.add_image(reference);
        self.touch();
        Ok(image_record(reference))
    }

    async fn remove_image(&self, reference: &str) -> Result<()> {
        self.record("remove_image", reference)?;
        if self.containers().iter().any(|container| container.image == reference) {
            return Err(RuntimeError::Conflict { message: format!("image {reference} is in use") });
        }
        self.lock().images.remove(reference);
        self.touch();
        Ok(())
    }
}

/// The n-th line of a log was written n seconds after the epoch.
fn line_of(number: usize, line: &str, wanted: &LogOptions) -> Bytes {
    let at = Timestamp::from_second(i64::try_from(number).unwrap_or_default()).unwrap_or_default();
    if wanted.since.is_some_and(|since| at < since) {
        return Bytes::new();
    }
    let before = if wanted.timestamps { format!("{at} ") } else { String::new() };
    Bytes::from(format!("{before}{line}"))
}
