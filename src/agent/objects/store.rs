//! What bound pods are given to read: asked of the API server, one object by its name at a time, which is all that a
//! node may ask (the Node authorizer), and remembered per pod for the time when no API server answers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service, ServiceAccount};
use kube::api::{ListParams, PostParams};
use kube::{Api, Client};

use super::services::{KUBERNETES, variables};
use super::{Key, Kind, Object, Objects, TokenKey, references};
use crate::agent::apiserver::ApiServer;
use crate::agent::apiserver::call::{CallError, within_limit};
use crate::agent::pod::StaticPod;
use crate::error::chain;

/// No token is used longer (the kubelet's `maxTTL`).
const TOKEN_LIVES: SignedDuration = SignedDuration::from_hours(24);

/// What is remembered of every bound pod that has been given something.
#[derive(Default)]
pub struct Store(Mutex<BTreeMap<String, Arc<PodObjects>>>);

/// What is remembered of one pod.
#[derive(Default)]
struct PodObjects {
    /// Held by who writes the pod's files; true once they are gone for good.
    files: Mutex<bool>,
    cache: Mutex<Cache>,
}

#[derive(Clone, Default)]
struct Cache {
    /// None of one that is known not to be there.
    found: BTreeMap<Key, Option<Arc<Object>>>,
    tokens: BTreeMap<TokenKey, Token>,
    services: Vec<(String, String)>,
}

#[derive(Clone)]
struct Token {
    text: Arc<str>,
    asked: Timestamp,
    expires: Timestamp,
}

impl Token {
    /// Whether another one is to be asked for: four fifths of its time are over.
    fn is_old(&self, now: Timestamp) -> bool {
        let lives = self.expires.duration_since(self.asked).min(TOKEN_LIVES);
        now.duration_since(self.asked) >= lives.saturating_mul(4).checked_div(5).unwrap_or(lives)
    }
}

/// What was asked for one by one: what came of it, and why nothing did.
type Answers<K, V> = (BTreeMap<K, V>, BTreeMap<K, String>);

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectScope<'a> {
    /// What the volumes refer to.
    Files,
    /// That, and what the environment of this container does.
    Container(&'a str),
}

impl Store {
    /// What a pod refers to, asked for now. Something that cannot be had now is as it was when it last could, or is among the
    /// answer's failures if it never could; one that is not there is missing in the answer. A static pod refers to nothing.
    ///
    /// # Errors
    /// The services cannot be had, and never could.
    pub async fn objects(
        &self,
        api: Option<&ApiServer>,
        pod: &StaticPod,
        wanted: ObjectScope<'_>,
    ) -> Result<Objects, String> {
        if pod.bound.is_none() {
            return Ok(Objects::default());
        }
        let client = api.and_then(ApiServer::client);
        let of_pod = self.of_pod(&pod.uid);
        let container = match wanted {
            ObjectScope::Files => None,
            ObjectScope::Container(name) => Some(name),
        };
        let references = references(pod, container);
        let ask = Ask { client: client.as_ref(), pod, before: lock(&of_pod.cache).clone() };
        let (found, unread) = ask.objects(&references.objects).await;
        let (tokens, refused) = ask.tokens(&references.tokens).await;
        let mut now = Cache { found, tokens, services: ask.before.services.clone() };
        if container.is_some() {
            now.services = ask.services().await?;
        }
        let tokens = now.tokens.iter().map(|(key, token)| (key.clone(), Arc::clone(&token.text))).collect();
        let there = now.found.iter().filter_map(|(key, object)| Some((key.clone(), object.clone()?)));
        let objects = Objects { found: there.collect(), unread, tokens, refused, services: now.services.clone() };
        // What was not asked for this time stays known.
        let mut cache = lock(&of_pod.cache);
        cache.found.extend(now.found);
        cache.tokens.extend(now.tokens);
        cache.services = now.services;
        Ok(objects)
    }

    /// The secrets that a pod's images are pulled with, by name, asked for as other objects are; an error in words for one
    /// that is not there or cannot be had. A static pod has none.
    pub async fn pull_secrets(
        &self,
        api: Option<&ApiServer>,
        pod: &StaticPod,
    ) -> Vec<(String, Result<Arc<Object>, String>)> {
        let mut all = Vec::new();
        let secrets = pod.spec.image_pull_secrets.iter().flatten().filter(|one| !one.name.is_empty());
        for name in secrets.filter(|_| pod.bound.is_some()).map(|one| &one.name) {
            let (client, of_pod) = (api.and_then(ApiServer::client), self.of_pod(&pod.uid));
            let ask = Ask { client: client.as_ref(), pod, before: lock(&of_pod.cache).clone() };
            let key = (Kind::Secret, name.clone());
            let (mut found, unread) = ask.objects(&BTreeSet::from([key.clone()])).await;
            let secret = match found.remove(&key) {
                Some(object) => {
                    lock(&of_pod.cache).found.insert(key, object.clone());
                    object.ok_or_else(|| format!("secret {name:?} not found"))
                }
                None => {
                    let why = unread.into_values().next().unwrap_or_default();
                    Err(format!("secret {name:?} cannot be read: {why}"))
                }
            };
            all.push((name.clone(), secret));
        }
        all
    }

    /// Runs `write` with no other task at the files of a bound pod.
    pub fn alone<T>(&self, pod: &StaticPod, write: impl FnOnce() -> T) -> T {
        let of_pod = pod.bound.as_ref().map(|_| self.of_pod(&pod.uid));
        let _files = of_pod.as_ref().map(|of_pod| lock(&of_pod.files));
        write()
    }

    /// The same of a pod whose files are there, made by this agent or one before it; None where they were removed
    /// meanwhile. `write` looks whether they are there.
    pub fn alone_unless_gone<T>(&self, uid: &str, write: impl FnOnce() -> Option<T>) -> Option<T> {
        let of_pod = self.of_pod(uid);
        let gone = lock(&of_pod.files);
        if *gone { None } else { write() }
    }

    /// Runs `remove`, which takes the files of the pod away, and forgets the pod.
    pub fn forget<T>(&self, uid: &str, remove: impl FnOnce() -> T) -> T {
        let of_pod = self.of_pod(uid);
        let mut gone = lock(&of_pod.files);
        *gone = true;
        let removed = remove();
        // Only now may there be another desk for the same pod, which may be recreated.
        lock(&self.0).remove(uid);
        removed
    }

    fn of_pod(&self, uid: &str) -> Arc<PodObjects> {
        Arc::clone(lock(&self.0).entry(uid.to_owned()).or_default())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Ask<'a> {
    client: Option<&'a Client>,
    pod: &'a StaticPod,
    before: Cache,
}

impl Ask<'_> {
    fn client(&self) -> Result<&Client, String> {
        self.client.ok_or_else(|| "there are no credentials for the API server yet".to_owned())
    }

    async fn objects(&self, keys: &BTreeSet<Key>) -> Answers<Key, Option<Arc<Object>>> {
        let mut answers = Answers::default();
        for key in keys {
            let known = self.before.found.get(key).cloned();
            let fixed = known.clone().filter(|object| object.as_ref().is_some_and(|object| object.immutable));
            let answer = match fixed {
                Some(fixed) => Ok(fixed),
                None => match self.object(key).await {
                    Ok(answer) => Ok(answer.map(Arc::new)),
                    Err(why) => known.ok_or(why),
                },
            };
            note(&mut answers, key, answer);
        }
        answers
    }

    async fn object(&self, (kind, name): &Key) -> Result<Option<Object>, String> {
        let (client, namespace) = (self.client()?.clone(), &self.pod.key.namespace);
        let found = match kind {
            Kind::ConfigMap => {
                let api = Api::<ConfigMap>::namespaced(client, namespace);
                within_limit(api.get_opt(name)).await.map(|found| found.map(Object::from))
            }
            Kind::Secret => {
                let api = Api::<Secret>::namespaced(client, namespace);
                within_limit(api.get_opt(name)).await.map(|found| found.map(Object::from))
            }
        };
        found.map_err(|error| words(&error))
    }

    async fn tokens(&self, keys: &BTreeSet<TokenKey>) -> Answers<TokenKey, Token> {
        let (mut answers, now) = (Answers::default(), Timestamp::now());
        for key in keys {
            let known = self.before.tokens.get(key).cloned();
            let token = match known {
                Some(token) if !token.is_old(now) => Ok(token),
                known => match self.token(key, now).await {
                    Ok(token) => Ok(token),
                    Err(why) => known.filter(|token| token.expires > now).ok_or(why),
                },
            };
            note(&mut answers, key, token);
        }
        answers
    }

    /// Asks for a token that holds as long as the pod is there.
    async fn token(&self, (audience, seconds): &TokenKey, now: Timestamp) -> Result<Token, String> {
        let account = self.pod.spec.service_account_name.as_deref().filter(|name| !name.is_empty());
        let account = account.unwrap_or("default");
        let fail = |why: String| format!("no token of the service account {account:?}: {why}");
        let api = Api::<ServiceAccount>::namespaced(self.client().map_err(fail)?.clone(), &self.pod.key.namespace);
        let pod = BoundObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(self.pod.key.name.clone()),
            uid: Some(self.pod.uid.clone()),
        };
        let audiences = if audience.is_empty() { vec![] } else { vec![audience.clone()] };
        let spec = TokenRequestSpec {
            audiences: Some(audiences),
            expiration_seconds: Some(*seconds),
            bound_object_ref: Some(pod),
            ..TokenRequestSpec::default()
        };
        let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
        let answer = within_limit(api.create_token_request(account, &PostParams::default(), &request)).await;
        let status = answer.map_err(|error| fail(words(&error)))?.status.unwrap_or_default();
        let text =
            status.token.filter(|text| !text.is_empty()).ok_or_else(|| fail("there is none in the answer".into()))?;
        let by_request = now.saturating_add(SignedDuration::from_secs(*seconds)).unwrap_or(now);
        let expires = status.expiration_timestamp.map_or(by_request, |time| time.0);
        Ok(Token { text: text.into(), asked: now, expires })
    }

    /// The variables of the services of the pod's namespace, unless it wants none, after those of `kubernetes`.
    async fn services(&self) -> Result<Vec<(String, String)>, String> {
        match self.asked_services().await {
            Ok(services) => Ok(variables(&services)),
            Err(_) if !self.before.services.is_empty() => Ok(self.before.services.clone()),
            Err(why) => Err(format!("services cannot be read: {why}")),
        }
    }

    async fn asked_services(&self) -> Result<Vec<Service>, String> {
        let (client, (namespace, name)) = (self.client()?, KUBERNETES);
        let api = Api::<Service>::namespaced(client.clone(), namespace);
        let kubernetes = within_limit(api.get_opt(name)).await.map_err(|error| words(&error))?;
        let mut all: Vec<Service> = kubernetes.into_iter().collect();
        if self.pod.spec.enable_service_links.unwrap_or(true) {
            let api = Api::<Service>::namespaced(client.clone(), &self.pod.key.namespace);
            let own = within_limit(api.list(&ListParams::default())).await.map_err(|error| words(&error))?;
            let (mut own, first) = (own.items, all.first().map(|one| one.metadata.uid.clone()));
            own.retain(|one| first.as_ref() != Some(&one.metadata.uid));
            all.extend(own);
        }
        Ok(all)
    }
}

fn note<K: Ord + Clone, V>((found, failed): &mut Answers<K, V>, key: &K, answer: Result<V, String>) {
    match answer {
        Ok(value) => drop(found.insert(key.clone(), value)),
        Err(why) => drop(failed.insert(key.clone(), why)),
    }
}

/// An error in words; those of a body that cannot be read may show what is in it.
fn words(error: &CallError) -> String {
    match error {
        CallError::Failed(error) => match error.as_ref() {
            kube::Error::SerdeError(_) => "the API server's answer cannot be understood".to_owned(),
            kube::Error::Api(status) => status.message.clone(),
            other => chain(other),
        },
        CallError::Timeout => error.to_string(),
    }
}

#[cfg(test)]
mod tests;
