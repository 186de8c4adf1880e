//! The calls of the API, one function each.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

use bollard::auth::DockerCredentials;
use bollard::errors::Error as BollardError;
use bollard::models::{ContainerCreateBody, ContainerInspectResponse};
use bollard::query_parameters::*;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};

use super::podman::{self, Engine};
use super::progress::PullProgress;
use super::{Docker, raw, record};
use crate::host::clock;
use crate::runtime::*;

/// How many containers are inspected at once.
const INSPECT_AT_ONCE: usize = 8;

/// How long a registry may say nothing (the kubelet's `imagePullProgressDeadline`).
const PULL_STALL: Duration = Duration::from_secs(60);

/// How long a container may be in the way of its removal by somebody else.
const REMOVAL_LIMIT: Duration = Duration::from_secs(60);

impl Docker {
    pub(super) async fn get_version(&self) -> Result<RuntimeVersion> {
        let version = self.client().await?.version().await;
        let version = version.map_err(|error| self.error("ask docker for its version", "docker", error))?;
        Ok(RuntimeVersion {
            name: Engine::of(&version).name().to_owned(),
            version: version.version.unwrap_or_default(),
            api_version: version.api_version.unwrap_or_default(),
        })
    }

    /// The machine's cgroups are out of reach behind a network, and rootless daemons (`none`) have none to give.
    pub(super) async fn get_cgroup_driver(&self) -> Result<Option<CgroupDriver>> {
        if !self.address.is_local() {
            return Ok(None);
        }
        let info = self.client().await?.info().await;
        let info = info.map_err(|error| self.error("ask docker about its cgroups", "docker", error))?;
        Ok(match info.cgroup_driver.map(|driver| driver.to_string()).as_deref() {
            Some("cgroupfs") => Some(CgroupDriver::Cgroupfs),
            Some("systemd") => Some(CgroupDriver::Systemd),
            _ => None,
        })
    }

    /// The list says neither when a container started nor how it ended, so each one is inspected of which it does not
    /// say that nothing has changed.
    pub(super) async fn list_containers(&self, owner: &str) -> Result<Vec<ContainerRecord>> {
        let filters = HashMap::from([("label", vec![format!("{}={owner}", labels::OWNER)])]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let client = self.client().await?;
        let begun = jiff::Timestamp::now();
        let listed = match client.list_containers(Some(options)).await {
            Err(error @ BollardError::JsonDataError { .. }) => {
                let filters = raw::query(&serde_json::json!(filters).to_string());
                self.read_again(&format!("/containers/json?all=true&filters={filters}"), error).await
            }
            other => other,
        };
        let listed = listed.map_err(|error| self.error("list containers", "docker", error))?;
        let asked = [begun, jiff::Timestamp::now()];
        let found = stream::iter(listed).map(|one| async move {
            if let Some(record) = self.known.unchanged(&one, asked) {
                return Ok(Some(record));
            }
            match self.inspect_container(&one.id.unwrap_or_default()).await {
                Ok(inspected) => Ok(Some(record::container(&inspected))),
                Err(RuntimeError::NotFound { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        });
        let found: Vec<_> =
            found.buffered(INSPECT_AT_ONCE).try_filter_map(|record| async { Ok(record) }).try_collect().await?;
        self.known.replace(owner, &found);
        Ok(found)
    }

    pub(super) async fn inspect_container(&self, id: &str) -> Result<ContainerInspectResponse> {
        let inspected = match self.client().await?.inspect_container(id, None).await {
            Err(error @ BollardError::JsonDataError { .. }) => {
                self.read_again(&format!("/containers/{id}/json"), error).await
            }
            other => other,
        };
        inspected.map_err(|error| self.error("inspect container", &format!("container {id}"), error))
    }

    /// The answer at a path that the client could not read, which is the error where it cannot be read otherwise either.
    async fn read_again<T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        unread: BollardError,
    ) -> std::result::Result<T, BollardError> {
        raw::get(&self.address, path).await.map_err(|error| {
            tracing::debug!(path, %error, "not read the second time either");
            unread
        })
    }

    /// Creates a container under dockershim's name. Where the name is taken by a dead container of ours, that goes
    /// first; where it is taken otherwise, a random suffix makes another.
    pub(super) async fn create(
        &self,
        name: &ContainerName,
        labels: &BTreeMap<String, String>,
        mut body: ContainerCreateBody,
    ) -> Result<String> {
        if self.engine().await? == Engine::Podman {
            podman::adapt(&mut body, self.podman_limits().await);
        }
        let plain = name.to_string();
        let first = self.create_named(&plain, &body).await;
        let Err(RuntimeError::Conflict { .. }) = first else { return first };
        if self.remove_leftover(&plain, labels.get(labels::OWNER)).await? {
            let second = self.create_named(&plain, &body).await;
            let Err(RuntimeError::Conflict { .. }) = second else { return second };
        }
        self.create_named(&format!("{plain}_{:08x}", random()), &body).await
    }

    async fn create_named(&self, name: &str, body: &ContainerCreateBody) -> Result<String> {
        let options = CreateContainerOptionsBuilder::default().name(name).build();
        let created = self.client().await?.create_container(Some(options), body.clone()).await;
        // What is missing when nothing exists yet is the image, or the sandbox whose namespaces are joined: Docker says
        // which one.
        let created = created.map_err(|error| match error {
            BollardError::DockerResponseServerError { status_code: 404, message } => {
                let what = message.trim_start_matches("No such ").trim_start_matches("no such ");
                // podman says the same twice.
                let what = what.trim_end_matches(": image not known");
                RuntimeError::NotFound { what: what.replacen(": ", " ", 1) }
            }
            other => self.error(&format!("create container {name}"), name, other),
        })?;
        for warning in created.warnings {
            tracing::debug!(container = name, %warning, "docker warns");
        }
        Ok(created.id)
    }

    /// Removes the container of this name if it does not run and is its owner's (or no one's); returns whether the name
    /// is free now.
    async fn remove_leftover(&self, name: &str, owner: Option<&String>) -> Result<bool> {
        let inspected = match self.inspect_container(name).await {
            Err(RuntimeError::NotFound { .. }) => return Ok(true),
            other => record::container(&other?),
        };
        let foreign = inspected.labels.get(labels::OWNER).is_some_and(|other| Some(other) != owner);
        if inspected.state.is_running() || foreign {
            return Ok(false);
        }
        self.remove_container(&inspected.id).await?;
        Ok(true)
    }

    pub(super) async fn start_container(&self, id: &str) -> Result<()> {
        let started = self.client().await?.start_container(id, None).await;
        started.map_err(|error| self.error("start container", &format!("container {id}"), error))
    }

    pub(super) async fn stop_container(&self, id: &str, grace: Duration) -> Result<()> {
        let seconds = clock::whole_seconds(grace);
        let options = StopContainerOptionsBuilder::default().t(seconds).build();
        // The answer comes when the container has stopped.
        let limit = clock::seconds(seconds.into()).saturating_add(super::CALL_LIMIT);
        let client = self.client().await?.clone().with_timeout(limit);
        match client.stop_container(id, Some(options)).await {
            Ok(()) | Err(BollardError::DockerResponseServerError { status_code: 404, .. }) => Ok(()),
            Err(BollardError::RequestTimeoutError) => {
                Err(RuntimeError::Timeout { call: format!("stop container {id}"), limit })
            }
            Err(error) => Err(self.error("stop container", &format!("container {id}"), error)),
        }
    }

    pub(super) async fn remove_container(&self, id: &str) -> Result<()> {
        let client = self.client().await?;
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        match client.remove_container(id, Some(options)).await.map_err(|error| self.as_docker(error)) {
            Ok(()) | Err(BollardError::DockerResponseServerError { status_code: 404, .. }) => Ok(()),
            // Something else removes it too: what counts is that it is gone.
            Err(BollardError::DockerResponseServerError { status_code: 409, .. }) => {
                let options = WaitContainerOptionsBuilder::default().condition("removed").build();
                let gone = client.wait_container(id, Some(options)).collect::<Vec<_>>();
                let timeout = || RuntimeError::Timeout { call: format!("remove container {id}"), limit: REMOVAL_LIMIT };
                tokio::time::timeout(REMOVAL_LIMIT, gone).await.map_err(|_| timeout())?;
                Ok(())
            }
            Err(error) => Err(self.error("remove container", &format!("container {id}"), error)),
        }
    }

    /// The request goes out at the first poll only, so Docker is asked for what happened since now; and somebody must
    /// answer now, or a missing daemon would show as a quiet one.
    pub(super) async fn subscribe(&self, owner: &str) -> Result<BoxStream<'static, Result<RuntimeEvent>>> {
        let client = self.client().await?.clone();
        let since = jiff::Timestamp::now();
        client.ping().await.map_err(|error| self.error("watch events", "docker", error))?;
        let filters = HashMap::from([
            ("type", vec!["container".to_owned()]),
            // The last two are podman's words; it answers with `die` when asked for `died`.
            ("event", ["start", "die", "destroy", "died", "remove"].map(str::to_owned).to_vec()),
            ("label", vec![format!("{}={owner}", labels::OWNER)]),
        ]);
        let since = format!("{}.{:09}", since.as_second(), since.subsec_nanosecond());
        let events = client.events(Some(EventsOptionsBuilder::default().since(&since).filters(&filters).build()));
        let address = self.address();
        let events = events.filter_map(move |message| {
            let event = match message {
                Ok(message) => record::event(message).map(Ok),
                Err(error) => {
                    Some(Err(RuntimeError::Unreachable { address: address.clone(), source: Box::new(error) }))
                }
            };
            std::future::ready(event)
        });
        Ok(events.boxed())
    }

    /// Every image that has a name, the largest first. Read without the client, which wants lists where some engines have
    /// none.
    pub(super) async fn list_images(&self) -> Result<Vec<StoredImage>> {
        let listed: std::result::Result<Vec<record::Image>, _> = raw::get(&self.address, "/images/json").await;
        let listed = listed.map_err(|source| self.unreachable(false, source))?;
        let mut images: Vec<StoredImage> = listed.into_iter().filter_map(record::Image::named).collect();
        images.sort_by_key(|image| std::cmp::Reverse(image.size));
        Ok(images)
    }

    /// The daemon's directory, with the sizes of all images, as a kubelet adds them up.
    pub(super) async fn get_image_file_system(&self) -> Result<Option<ImageFileSystem>> {
        if !self.address.is_local() {
            return Ok(None);
        }
        let info = self.client().await?.info().await;
        let info = info.map_err(|error| self.error("ask docker where it keeps images", "docker", error))?;
        let bytes = self.list_images().await?.iter().map(|image| image.size).fold(0, u64::saturating_add);
        let dir = info.docker_root_dir.filter(|dir| !dir.is_empty());
        Ok(dir.map(|dir| ImageFileSystem { dir: dir.into(), bytes, inodes: None }))
    }

    pub(super) async fn inspect_image(&self, reference: &str) -> Result<Option<ImageRecord>> {
        match self.client().await?.inspect_image(reference).await {
            Ok(inspected) => Ok(Some(record::image(inspected))),
            Err(BollardError::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
            Err(error) => Err(self.error("inspect image", &format!("image {reference}"), error)),
        }
    }

    pub(super) async fn pull_image(
        &self,
        reference: &str,
        credential: Option<&Credential>,
        progress: &(dyn Fn(u64, Option<u64>) + Send + Sync),
    ) -> Result<ImageRecord> {
        let failed = |message: String| RuntimeError::Pull { image: reference.to_owned(), message };
        // Without a tag Docker would pull every tag there is.
        let options = CreateImageOptionsBuilder::default().from_image(&with_tag(reference)).build();
        let mut lines = self.client().await?.create_image(Some(options), None, credential.map(credentials));
        let mut layers = PullProgress::default();
        loop {
            let line = tokio::time::timeout(PULL_STALL, lines.next())
                .await
                .map_err(|_| failed(format!("the registry has sent nothing for {} s", PULL_STALL.as_secs())))?;
            let line = match line {
                None => break,
                Some(Ok(line)) => line,
                Some(Err(
                    BollardError::DockerStreamError { error: message }
                    | BollardError::DockerResponseServerError { message, .. },
                )) => return Err(failed(message.trim().to_owned())),
                Some(Err(other)) => return Err(self.error(&format!("pull image {reference}"), reference, other)),
            };
            if let Some((current, total)) = layers.update(&line) {
                progress(current, total);
            }
        }
        self.inspect_image(reference).await?.ok_or_else(|| failed("pulled, but not there".to_owned()))
    }

    pub(super) async fn delete_image(&self, reference: &str) -> Result<()> {
        match self.client().await?.remove_image(reference, None::<RemoveImageOptions>, None).await {
            Ok(_) | Err(BollardError::DockerResponseServerError { status_code: 404, .. }) => Ok(()),
            Err(error) => Err(self.error("remove image", &format!("image {reference}"), error)),
        }
    }
}

fn credentials(of: &Credential) -> DockerCredentials {
    let (username, password) = (Some(of.username.clone()), Some(of.password.clone()));
    DockerCredentials { username, password, ..DockerCredentials::default() }
}

/// A reference with neither tag nor digest means `latest`.
fn with_tag(reference: &str) -> String {
    let last = reference.rsplit('/').next().unwrap_or(reference);
    if last.contains(':') || last.contains('@') { reference.to_owned() } else { format!("{reference}:latest") }
}

fn random() -> u32 {
    let hash = std::hash::RandomState::new().build_hasher().finish();
    u32::try_from(hash & u64::from(u32::MAX)).unwrap_or_default()
}
