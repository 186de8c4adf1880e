//! Sandboxes and containers: one function a call.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use tonic::{Code, Status};

use super::{CALL, Cri, logs, proto, record, rpc, spec};
use crate::host::clock;
use crate::host::fs::make_dirs;
use crate::runtime::*;

/// How many containers are looked at at once.
const LOOK_AT_ONCE: usize = 8;
/// How many other numbers are tried where a name is taken.
const OTHER_ATTEMPTS: u32 = 20;

impl Cri {
    /// Asked each time: this is also the check whether the runtime is there.
    pub(super) async fn get_version(&self) -> Result<RuntimeVersion> {
        Ok(self.negotiate().await?.1)
    }

    /// Runtimes that do not know the question have it in their configuration.
    pub(super) async fn get_cgroup_driver(&self) -> Result<Option<CgroupDriver>> {
        match self.call::<_, proto::RuntimeConfigResponse>("RuntimeConfig", proto::Empty {}).await {
            Ok(answer) => Ok(Some(match answer.linux.unwrap_or_default().cgroup_driver {
                0 => CgroupDriver::Systemd,
                _ => CgroupDriver::Cgroupfs,
            })),
            Err(status) if status.code() == Code::Unimplemented => {
                let question = proto::RuntimeStatusRequest { verbose: true };
                let answer = self.call::<_, proto::RuntimeStatusResponse>("Status", question).await;
                let answer = answer.map_err(|status| self.error("ask about cgroups", "the runtime", status))?;
                Ok(Some(driver_of(answer.info.get("config").map_or("", String::as_str))))
            }
            Err(status) => Err(self.error("ask about cgroups", "the runtime", status)),
        }
    }

    pub(super) async fn list_all(&self, owner: &str) -> Result<Vec<ContainerRecord>> {
        let label_selector = BTreeMap::from([(labels::OWNER.to_owned(), owner.to_owned())]);
        let filter = proto::PodSandboxFilter { label_selector: label_selector.clone(), ..Default::default() };
        let sandboxes = self.call("ListPodSandbox", proto::ListPodSandboxRequest { filter: Some(filter) });
        let filter = proto::ContainerFilter { label_selector, ..Default::default() };
        let containers = self.call("ListContainers", proto::ListContainersRequest { filter: Some(filter) });
        let (sandboxes, containers): (proto::ListPodSandboxResponse, proto::ListContainersResponse) =
            tokio::try_join!(sandboxes, containers)
                .map_err(|status| self.error("list containers", "the runtime", status))?;
        let sandboxes = sandboxes.items.into_iter().map(|one| (one.id, None, one.state));
        let containers = containers.containers.into_iter().map(|one| (one.id, Some(one.pod_sandbox_id), one.state));
        let all: Vec<_> = sandboxes.chain(containers).collect();
        let found = stream::iter(all).map(|(id, sandbox, state)| async move {
            let seen = match sandbox {
                None => self.sandbox_record(&id, Some(state == 0)).await,
                Some(sandbox) => {
                    self.container_record(&id, &sandbox, proto::ContainerState::try_from(state).ok()).await
                }
            };
            match seen {
                Ok(record) => Ok(Some(record)),
                Err(RuntimeError::NotFound { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        });
        let found: Vec<_> =
            found.buffered(LOOK_AT_ONCE).try_filter_map(|record| async { Ok(record) }).try_collect().await?;
        self.0.known.replace(owner, &found);
        Ok(found)
    }

    /// A container's or a sandbox's record: only who has looked at one before knows which of them an id names.
    pub(super) async fn look_at(&self, id: &str) -> Result<ContainerRecord> {
        let known = self.0.known.get(id);
        if known.as_ref().is_some_and(|record| record.is_sandbox) {
            return self.sandbox_record(id, None).await;
        }
        let sandbox = match known.and_then(|record| record.labels.get(labels::SANDBOX_ID).cloned()) {
            Some(sandbox) => sandbox,
            None => match self.listed(id).await? {
                Some(listed) => listed.pod_sandbox_id,
                None => return self.sandbox_record(id, None).await,
            },
        };
        self.container_record(id, &sandbox, None).await
    }

    /// A container as a list has it; None if there is no such container.
    async fn listed(&self, id: &str) -> Result<Option<proto::Container>> {
        let filter = proto::ContainerFilter { id: id.to_owned(), ..Default::default() };
        let question = proto::ListContainersRequest { filter: Some(filter) };
        let answer = self.call::<_, proto::ListContainersResponse>("ListContainers", question).await;
        let answer = answer.map_err(|status| self.error("find a container", &format!("container {id}"), status))?;
        Ok(answer.containers.into_iter().find(|one| one.id == id))
    }

    /// The record of a container, the one that is known where that holds of the state it is listed in.
    async fn container_record(
        &self,
        id: &str,
        sandbox: &str,
        listed: Option<proto::ContainerState>,
    ) -> Result<ContainerRecord> {
        if let Some(known) =
            self.0.known.get(id).filter(|known| listed.is_some_and(|state| record::holds(known, state)))
        {
            return Ok(known);
        }
        let found = record::container(self.scheme(), self.container_status(id).await?, sandbox);
        self.0.known.put(&found);
        Ok(found)
    }

    /// The same of a sandbox, which is listed as ready or not.
    async fn sandbox_record(&self, id: &str, ready: Option<bool>) -> Result<ContainerRecord> {
        let known = self.0.known.get(id);
        if let Some(known) = known.as_ref().filter(|known| ready == Some(known.state.is_running())) {
            return Ok(known.clone());
        }
        let found = record::sandbox(self.scheme(), self.sandbox_status(id).await?, Timestamp::now());
        let found = known.filter(|known| !known.state.is_running() && !found.state.is_running()).unwrap_or(found);
        self.0.known.put(&found);
        Ok(found)
    }

    pub(super) async fn container_status(&self, id: &str) -> Result<proto::ContainerStatus> {
        let answer = self.call("ContainerStatus", proto::StatusRequest { id: id.to_owned(), verbose: false }).await;
        let answer: Option<proto::ContainerStatusResponse> = self.found(id, "container", answer)?;
        self.there(id, "container", answer.and_then(|answer| answer.status))
    }

    async fn sandbox_status(&self, id: &str) -> Result<proto::PodSandboxStatus> {
        let answer = self.call("PodSandboxStatus", proto::StatusRequest { id: id.to_owned(), verbose: false }).await;
        let answer: Option<proto::PodSandboxStatusResponse> = self.found(id, "sandbox", answer)?;
        self.there(id, "container", answer.and_then(|answer| answer.status))
    }

    /// None for what is not there.
    fn found<A>(&self, id: &str, kind: &str, answer: std::result::Result<A, Status>) -> Result<Option<A>> {
        match answer {
            Ok(answer) => Ok(Some(answer)),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(self.error(&format!("inspect {kind} {id}"), &format!("{kind} {id}"), status)),
        }
    }

    fn there<T>(&self, id: &str, kind: &str, found: Option<T>) -> Result<T> {
        found.ok_or_else(|| {
            self.0.known.forget(id);
            RuntimeError::NotFound { what: format!("{kind} {id}") }
        })
    }

    /// Makes and starts a sandbox. One that has its name and does not run makes way; where the name is taken otherwise,
    /// another number makes another.
    pub(super) async fn run_sandbox(&self, config: &SandboxConfig) -> Result<String> {
        let mut wanted = spec::sandbox(config);
        make_log_dir(&wanted.log_directory).await?;
        let what = format!("create sandbox {}", config.name);
        let run = async |wanted: &proto::PodSandboxConfig| {
            let question = proto::RunPodSandboxRequest {
                config: Some(wanted.clone()),
                runtime_handler: config.runtime_handler.clone(),
            };
            self.call::<_, proto::ById>("RunPodSandbox", question).await
        };
        let first = run(&wanted).await;
        let mut last = match taken(&first) {
            None => return self.made(first, &what, &what),
            Some(said) => said.to_owned(),
        };
        if self.make_way(&config.name, &config.labels, true).await? {
            let second = run(&wanted).await;
            let Some(_) = taken(&second) else { return self.made(second, &what, &what) };
        }
        for more in 1..=OTHER_ATTEMPTS {
            wanted.metadata.get_or_insert_default().attempt = config.name.attempt + more;
            let next = run(&wanted).await;
            match taken(&next) {
                None => return self.made(next, &what, &what),
                Some(said) => said.clone_into(&mut last),
            }
        }
        Err(RuntimeError::Conflict { message: last })
    }

    /// Makes a container. One that has its name and does not run makes way; where the name is taken otherwise, another
    /// number makes another, and its restart count stands in its annotations.
    pub(super) async fn make_container(&self, config: &ContainerConfig) -> Result<String> {
        let mut config = config.clone();
        config.resources.oom_score_adj = self.allowed_oom_score_adj(config.resources.oom_score_adj);
        let mut wanted = spec::container(&config);
        let mut sandbox = config.sandbox_config.as_deref().map(spec::sandbox).unwrap_or_default();
        if let Some((directory, file)) = spec::log_path(&config) {
            let beside = Path::new(&directory).join(file);
            make_log_dir(&beside.parent().unwrap_or(Path::new("")).display().to_string()).await?;
            sandbox.log_directory = directory;
        }
        let pod_sandbox_id = config.sandbox.clone().unwrap_or_default();
        let create = async |wanted: &proto::ContainerConfig| {
            let question = proto::CreateContainerRequest {
                pod_sandbox_id: pod_sandbox_id.clone(),
                config: Some(wanted.clone()),
                sandbox_config: Some(sandbox.clone()),
            };
            self.call::<_, proto::ById>("CreateContainer", question).await
        };
        let call = format!("create container {}", config.name);
        let first = create(&wanted).await;
        let mut last = match taken(&first) {
            None => return self.made_of_image(first, &call, &config).await,
            Some(message) => message.to_owned(),
        };
        if self.make_way(&config.name, &config.labels, false).await? {
            let second = create(&wanted).await;
            let Some(_) = taken(&second) else { return self.made_of_image(second, &call, &config).await };
        }
        for more in 1..=OTHER_ATTEMPTS {
            wanted.metadata.get_or_insert_default().attempt = config.name.attempt + more;
            let next = create(&wanted).await;
            match taken(&next) {
                None => return self.made_of_image(next, &call, &config).await,
                Some(message) => message.clone_into(&mut last),
            }
        }
        Err(RuntimeError::Conflict { message: last })
    }

    fn made(&self, answer: std::result::Result<proto::ById, Status>, call: &str, what: &str) -> Result<String> {
        answer.map(|made| made.id).map_err(|status| self.error(call, what, status))
    }

    /// What is missing when nothing exists yet is the image or the sandbox.
    async fn made_of_image(
        &self,
        answer: std::result::Result<proto::ById, Status>,
        call: &str,
        config: &ContainerConfig,
    ) -> Result<String> {
        let is_missing = answer.as_ref().is_err_and(|status| status.code() == Code::NotFound);
        let what = match is_missing && self.image_status(&config.image).await?.is_some() {
            true => format!("sandbox {}", config.sandbox.as_deref().unwrap_or_default()),
            false => format!("image {}", config.image),
        };
        self.made(answer, call, &what)
    }

    /// Removes what has this name if it does not run and is its owner's (or no one's); returns whether something was.
    async fn make_way(&self, name: &ContainerName, of: &BTreeMap<String, String>, is_sandbox: bool) -> Result<bool> {
        let owner = of.get(labels::OWNER).cloned().unwrap_or_default();
        let all = self.list_all(&owner).await?;
        let dead =
            all.iter().filter(|one| one.name == *name && one.is_sandbox == is_sandbox && !one.state.is_running());
        let mut removed = false;
        for one in dead {
            self.remove_any(&one.id).await?;
            removed = true;
        }
        Ok(removed)
    }

    /// Starts a created container. A sandbox runs since it was made.
    pub(super) async fn start_container(&self, id: &str) -> Result<()> {
        let is_sandbox = self.0.known.get(id).is_some_and(|known| known.is_sandbox);
        if is_sandbox || self.look_at(id).await?.state.is_running() {
            return Ok(());
        }
        let started = self.call::<_, proto::Empty>("StartContainer", proto::ById { id: id.to_owned() }).await;
        started.map(drop).map_err(|status| self.error("start container", &format!("container {id}"), status))
    }

    pub(super) async fn stop_container(&self, id: &str, grace: Duration) -> Result<()> {
        let record = match self.look_at(id).await {
            Err(RuntimeError::NotFound { .. }) => return Ok(()),
            other => other?,
        };
        if record.is_sandbox {
            return self.gone_is_fine("StopPodSandbox", id).await;
        }
        if !record.state.is_running() {
            return Ok(());
        }
        // None at all kills at once.
        let timeout = clock::whole_seconds(grace).into();
        let question = proto::StopContainerRequest { container_id: id.to_owned(), timeout };
        let limit = CALL.saturating_add(clock::seconds(timeout));
        match self.call_within::<_, proto::Empty>("RuntimeService", "StopContainer", question, Some(limit)).await {
            Err(status) if status.code() != Code::NotFound => {
                Err(self.error("stop container", &format!("container {id}"), status))
            }
            _ => Ok(()),
        }
    }

    /// Removes a container with its log, or a sandbox with all that is in it.
    pub(super) async fn remove_any(&self, id: &str) -> Result<()> {
        let record = match self.look_at(id).await {
            Err(RuntimeError::NotFound { .. }) => return Ok(()),
            other => other?,
        };
        if record.is_sandbox {
            self.remove_sandbox(id).await?;
        } else {
            self.gone_is_fine("RemoveContainer", id).await?;
            if let Some(path) = record.labels.get(labels::LOG_PATH) {
                let path = PathBuf::from(path);
                let _ = tokio::task::spawn_blocking(move || logs::remove_files(&path)).await;
            }
        }
        Ok(())
    }

    pub(super) async fn remove_sandbox(&self, id: &str) -> Result<()> {
        self.gone_is_fine("StopPodSandbox", id).await?;
        self.gone_is_fine("RemovePodSandbox", id).await
    }

    async fn gone_is_fine(&self, method: &str, id: &str) -> Result<()> {
        match self.call::<_, proto::Empty>(method, proto::ById { id: id.to_owned() }).await {
            Err(status) if status.code() != Code::NotFound => {
                Err(self.error(&format!("{method} {id}"), &format!("container {id}"), status))
            }
            _ => Ok(()),
        }
    }
}

/// The runtime's words where a name is taken. containerd says it with no code of its own.
fn taken(answer: &std::result::Result<proto::ById, Status>) -> Option<&str> {
    let status = answer.as_ref().err()?;
    let said = rpc::words(status);
    (status.code() == Code::AlreadyExists || said.contains("is reserved for") || said.contains("is in use"))
        .then_some(said)
}

/// Makes the directory of logs, which a runtime expects to be there.
async fn make_log_dir(path: &str) -> Result<()> {
    if path.is_empty() {
        return Ok(());
    }
    let path = PathBuf::from(path);
    let made = tokio::task::spawn_blocking(move || make_dirs(&path, 0o755)).await;
    let message = match made {
        Ok(Ok(_)) => return Ok(()),
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    Err(RuntimeError::Refused { call: "make the directory of logs".to_owned(), message })
}

/// What containerd's configuration says of its default runtime's cgroups.
fn driver_of(config: &str) -> CgroupDriver {
    let config: serde_json::Value = serde_json::from_str(config).unwrap_or_default();
    let containerd = &config["containerd"];
    let default = containerd["defaultRuntimeName"].as_str().unwrap_or("runc");
    let by_systemd = &containerd["runtimes"][default]["options"]["SystemdCgroup"];
    match by_systemd.as_bool() == Some(true) || config["systemdCgroup"].as_bool() == Some(true) {
        true => CgroupDriver::Systemd,
        false => CgroupDriver::Cgroupfs,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cgroup_driver_is_the_default_runtimes() {
        let config = |name: &str| {
            format!(
                r#"{{"containerd": {{"defaultRuntimeName": "{name}", "runtimes": {{
                    "runc": {{"options": {{"SystemdCgroup": true}}}}, "crun": {{"options": {{"SystemdCgroup": false}}}}
                }}}}}}"#
            )
        };
        assert_eq!(driver_of(&config("runc")), CgroupDriver::Systemd);
        assert_eq!(driver_of(&config("crun")), CgroupDriver::Cgroupfs);
        assert_eq!(driver_of(r#"{"systemdCgroup": true}"#), CgroupDriver::Systemd);
        assert_eq!(driver_of(""), CgroupDriver::Cgroupfs);
    }
}
