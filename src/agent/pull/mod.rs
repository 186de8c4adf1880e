//! Pulling an image with the credentials that there are for its registry: those of the pod's `imagePullSecrets`, then the
//! node's, which the kubelet finds at the same places.

mod keyring;

use std::path::Path;

use tracing::{debug, warn};

use super::apiserver::ApiServer;
use super::events::{Recorder, Subject};
use super::objects::store::Store;
use super::pod::StaticPod;
use super::wording;
use crate::error::chain;
use crate::runtime::{ContainerRuntime, Credential, ImageRecord, RuntimeError};
use keyring::{Keyring, KeyringError};

/// Type and key of a secret that holds a `config.json`.
const CONFIG_JSON: (&str, &str) = ("kubernetes.io/dockerconfigjson", ".dockerconfigjson");
/// Type and key of one that holds a `.dockercfg`.
const DOCKERCFG: (&str, &str) = ("kubernetes.io/dockercfg", ".dockercfg");

/// What pulling takes.
#[derive(Clone, Copy)]
pub struct Parts<'a> {
    /// Who pulls.
    pub runtime: &'a dyn ContainerRuntime,
    /// Where the node's own credentials are looked for first.
    pub root_dir: &'a Path,
    /// Secrets of bound pods.
    pub objects: &'a Store,
    /// Whom they are asked of.
    pub api: Option<&'a ApiServer>,
    /// What happened.
    pub events: &'a Recorder,
}

/// Pulls an image for a pod.
///
/// # Errors
/// The runtime's; where several credentials were tried, with what was said to each.
pub async fn pull(parts: Parts<'_>, pod: &StaticPod, image: &str) -> Result<ImageRecord, RuntimeError> {
    let home = crate::host::environment::home();
    let (own, node) = (of_secrets(parts, pod).await, of_node(parts.root_dir, home.as_deref()).await);
    let credentials = [own.matching(image), node.matching(image)].concat();
    try_each(parts.runtime, image, credentials).await
}

/// Tries one credential after the other, and last of all none: what is public is to be had though a password is too old,
/// where the kubelet would give up.
async fn try_each(
    runtime: &dyn ContainerRuntime,
    image: &str,
    credentials: Vec<&Credential>,
) -> Result<ImageRecord, RuntimeError> {
    let mut refusals: Vec<String> = Vec::new();
    for credential in credentials.into_iter().map(Some).chain([None]) {
        match runtime.pull(image, credential, &|_, _| {}).await {
            Err(RuntimeError::Pull { message, .. }) => {
                debug!(image, with_credentials = credential.is_some(), message, "not pulled");
                if !refusals.contains(&message) {
                    refusals.push(message);
                }
            }
            other => return other,
        }
    }
    Err(RuntimeError::Pull { image: image.to_owned(), message: refusals.join("; ") })
}

/// What the secrets of a pod hold. Without one of them the image may be had all the same: that is only reported.
async fn of_secrets(parts: Parts<'_>, pod: &StaticPod) -> Keyring {
    let (mut keyring, mut missing) = (Keyring::default(), Vec::new());
    for (name, secret) in parts.objects.pull_secrets(parts.api, pod).await {
        let added = secret.and_then(|secret| {
            let of = |(kind, key): (&str, &str)| secret.data.get(key).filter(|_| secret.kind == kind);
            let added = match (of(CONFIG_JSON), of(DOCKERCFG)) {
                (Some(text), _) => keyring.add_config_json(text),
                (None, Some(text)) => keyring.add_dockercfg(text),
                (None, None) => return Err(format!("its type is {:?}, and it holds no credentials", secret.kind)),
            };
            added.map_err(|error| error.to_string())
        });
        if let Err(why) = added {
            warn!(pod = %pod.key, secret = name, why, "no credentials for images");
            missing.push(name);
        }
    }
    if !missing.is_empty() {
        let subject = Subject { pod: &pod.key, uid: &pod.uid, container: None };
        let message = wording::NO_PULL_SECRETS.with(&[&missing.join(", ")]);
        parts.events.warning(subject, "FailedToRetrieveImagePullSecret", message);
    }
    keyring
}

/// What the first of the node's files holds that can be read: every `config.json` comes before every `.dockercfg`. They
/// are read with each pull, so that a new password needs no restart.
async fn of_node(root_dir: &Path, home: Option<&Path>) -> Keyring {
    type Add = fn(&mut Keyring, &[u8]) -> Result<(), KeyringError>;
    let homes: Vec<&Path> = home.into_iter().chain([Path::new("/")]).collect();
    let configs = [root_dir.to_owned()].into_iter().chain(homes.iter().map(|home| home.join(".docker")));
    let configs = configs.map(|dir| (dir.join("config.json"), Keyring::add_config_json as Add));
    let legacy = [root_dir].into_iter().chain(homes.iter().copied());
    let legacy = legacy.map(|dir| (dir.join(".dockercfg"), Keyring::add_dockercfg as Add));
    for (path, add) in configs.chain(legacy) {
        let Ok(text) = tokio::fs::read(&path).await else { continue };
        let mut keyring = Keyring::default();
        match add(&mut keyring, &text) {
            Ok(()) => return keyring,
            Err(error) => {
                warn!(path = %path.display(), error = chain(&error), "credentials for images cannot be read");
                if matches!(error, KeyringError::Auth { .. }) {
                    return keyring;
                }
            }
        }
    }
    Keyring::default()
}
