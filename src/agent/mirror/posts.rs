//! What happened to pods, told to the API server: `kubectl describe pod` and `kubectl get events` show it.
//!
//! As by the kubelet an event is about the static pod's own UID, by which kubectl looks for those of a mirror. What
//! happens again counts in the same event. Best effort: what cannot be told while the recorder still knows it is lost, and
//! nobody waits for it.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event as ApiEvent, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::Request;
use kube::{Client, Resource};
use serde::de::IgnoredAny;
use serde_json::json;
use tracing::debug;

use crate::agent::apiserver::ApiServer;
use crate::agent::apiserver::call::{CallError, within_limit};
use crate::agent::backoff::Steps;
use crate::agent::crash::caught;
use crate::agent::events::{Event, Kind, Recorder};
use crate::agent::pod::PodKey;
use crate::agent::status::{Board, chain};
use crate::host::clock::Instant;

/// Events of one pod that may come at once, and how long it takes until one more may (client-go's spam filter).
const BURST: u32 = 25;
/// See [`BURST`].
const REFILL: Duration = Duration::from_secs(300);
/// How long to wait for an API server that is away or cannot keep it now.
const RETRY: Steps = Steps { initial: Duration::from_secs(1), cap: Duration::from_secs(30) };
/// How often one that is refused for a reason that may pass is sent.
const TRIES: u32 = 4;
/// How long a namespace that is missing is taken for missing without asking.
const MISSING: Duration = Duration::from_secs(60);
/// Who tells, as everybody expects of a node.
const COMPONENT: &str = "kubelet";

/// What the poster works with.
pub struct Parts {
    pub board: Arc<Board>,
    pub api: Arc<ApiServer>,
    pub events: Arc<Recorder>,
    pub node_name: String,
}

/// What becomes of an event that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// The API server has it, or never will.
    Over,
    /// Its namespace is not there.
    Homeless,
    /// It may be kept later.
    Later,
    /// Nobody answers.
    Away,
}

/// Tells for ever.
pub async fn run(parts: Parts) {
    let mut latest = parts.events.latest();
    let mut clients = parts.api.clients();
    let mut poster = Poster { parts, told: 0, buckets: HashMap::new(), missing: BTreeMap::new() };
    let mut failures = 0_u32;
    loop {
        latest.borrow_and_update();
        let client = clients.borrow_and_update().clone();
        let all = match client {
            Some(client) => poster.tell(&client).await,
            None => true,
        };
        failures = if all { 0 } else { failures.saturating_add(1) };
        tokio::select! {
            changed = latest.changed(), if all => if changed.is_err() { return },
            _ = clients.changed() => {}
            () = tokio::time::sleep(RETRY.spread(failures)), if !all => {}
        }
    }
}

struct Poster {
    parts: Parts,
    /// The sequence number of the last event that is done with.
    told: u64,
    /// By UID of a pod.
    buckets: HashMap<String, Bucket>,
    /// Namespaces that were missing, and when.
    missing: BTreeMap<String, Instant>,
}

impl Poster {
    /// Tells what has not been told. Returns whether that was all.
    async fn tell(&mut self, client: &Client) -> bool {
        for event in self.parts.events.since(self.told) {
            let now = Instant::now();
            self.buckets.retain(|_, bucket| !bucket.is_full(now));
            self.missing.retain(|_, since| *since + MISSING > now);
            let dropped = self.missing.contains_key(&event.namespace);
            if !dropped && self.buckets.entry(event.uid.clone()).or_insert_with(|| Bucket::new(now)).take(now) {
                match caught(self.send(client, &event)).await.unwrap_or(Fate::Over) {
                    Fate::Over => {}
                    Fate::Away => return false,
                    Fate::Homeless | Fate::Later => {
                        self.missing.insert(event.namespace.clone(), Instant::now());
                    }
                }
            }
            self.told = event.sequence;
        }
        true
    }

    /// Sends one event, several times where that may help: an API server makes its namespaces only once it runs.
    async fn send(&self, client: &Client, event: &Event) -> Fate {
        let mut tries = 0_u32;
        loop {
            let (fate, error) = match self.post(client, event).await {
                Ok(()) => return Fate::Over,
                Err(error) => (fate(&error), error),
            };
            tries = tries.saturating_add(1);
            debug!(pod = event.pod, reason = event.reason, error = chain(&error), ?fate, "an event is not told");
            if matches!(fate, Fate::Over | Fate::Away) || tries == TRIES {
                return if fate == Fate::Later { Fate::Over } else { fate };
            }
            tokio::time::sleep(RETRY.spread(tries)).await;
        }
    }

    async fn post(&self, client: &Client, event: &Event) -> Result<(), CallError> {
        let request = Request::new(ApiEvent::url_path(&(), Some(&event.namespace)));
        if event.count > 1 {
            let change = json!({"count": event.count, "lastTimestamp": Time(event.last)});
            let patch = request.patch(&name(event), &PatchParams::default(), &Patch::Strategic(change));
            match send(client, patch).await {
                // It was never told, or the API server has forgotten it.
                Err(error) if error.code() == Some(404) => {}
                other => return other,
            }
        }
        // These types are structs of texts, numbers and maps of them: there is none that JSON cannot hold.
        let body = serde_json::to_vec(&self.object(event)).unwrap_or_default();
        match send(client, request.create(&PostParams::default(), body)).await {
            // It was told, and the answer was lost.
            Err(error) if error.code() == Some(409) => Ok(()),
            other => other,
        }
    }

    fn object(&self, event: &Event) -> ApiEvent {
        let text = |text: &str| Some(text.to_owned());
        ApiEvent {
            metadata: ObjectMeta {
                name: Some(name(event)),
                namespace: text(&event.namespace),
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                api_version: Some(Pod::api_version(&()).into_owned()),
                kind: Some(Pod::kind(&()).into_owned()),
                namespace: text(&event.namespace),
                name: text(&event.pod),
                uid: text(&event.uid),
                field_path: event.container.as_deref().map(|container| self.field(event, container)),
                ..ObjectReference::default()
            },
            type_: text(match event.kind {
                Kind::Normal => "Normal",
                Kind::Warning => "Warning",
            }),
            reason: text(&event.reason),
            message: text(&event.message),
            count: i32::try_from(event.count).ok(),
            first_timestamp: Some(Time(event.first)),
            last_timestamp: Some(Time(event.last)),
            source: Some(EventSource { component: text(COMPONENT), host: text(&self.parts.node_name) }),
            reporting_component: text(COMPONENT),
            reporting_instance: text(&self.parts.node_name),
            ..ApiEvent::default()
        }
    }

    /// Where in the pod the container is.
    fn field(&self, event: &Event, container: &str) -> String {
        let key = PodKey { namespace: event.namespace.clone(), name: event.pod.clone() };
        let init = self.parts.board.visit(|pods, _| {
            let pod = pods.get(&key).and_then(|entry| entry.pod.as_deref());
            pod.is_some_and(|pod| pod.containers().any(|(init, one)| init && one.name == container))
        });
        let list = if init { "initContainers" } else { "containers" };
        format!("spec.{list}{{{container}}}")
    }
}

async fn send(
    client: &Client,
    request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
) -> Result<(), CallError> {
    within_limit(async { client.request::<IgnoredAny>(request.map_err(kube::Error::BuildRequest)?).await.map(drop) })
        .await
}

fn fate(error: &CallError) -> Fate {
    match error.code() {
        None => Fate::Away,
        Some(404) => Fate::Homeless,
        Some(429 | 500..) => Fate::Later,
        Some(_) => Fate::Over,
    }
}

/// The same for each occurrence of an event, and another for any other event: pod and a number, as everywhere.
fn name(event: &Event) -> String {
    let mut hasher = DefaultHasher::new();
    let Event { uid, container, kind, reason, message, first, .. } = event;
    (uid, container, *kind == Kind::Warning, reason, message, first.as_nanosecond()).hash(&mut hasher);
    format!("{}.{:016x}", event.pod, hasher.finish())
}

/// How many more events of a pod may be told.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: u32,
    /// Since when the next one is waited for.
    since: Instant,
}

impl Bucket {
    fn new(now: Instant) -> Self {
        Self { left: BURST, since: now }
    }

    fn fill(&mut self, now: Instant) {
        while self.left < BURST && self.since + REFILL <= now {
            (self.left, self.since) = (self.left.saturating_add(1), self.since + REFILL);
        }
        if self.left == BURST {
            self.since = now;
        }
    }

    fn take(&mut self, now: Instant) -> bool {
        self.fill(now);
        let some = self.left > 0;
        self.left = self.left.saturating_sub(1);
        some
    }

    fn is_full(&self, now: Instant) -> bool {
        let mut copy = *self;
        copy.fill(now);
        copy.left == BURST
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::PodStatus;

    use super::*;
    use crate::agent::AgentOptions;
    use crate::agent::events::Subject;
    use crate::agent::pod::tests::read;
    use crate::agent::status::Entry;
    use crate::testing::api::FakeApi;

    const EVENTS: &str = "/api/v1/namespaces/default/events";

    struct World {
        fake: FakeApi,
        events: Arc<Recorder>,
        key: PodKey,
    }

    impl World {
        async fn new() -> Self {
            let (fake, client) = FakeApi::serve().await;
            let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  initContainers: [{name: i, image: x:1}]\n  \
                       containers: [{name: c, image: x:1}]\n";
            let pod = Arc::new(read(pod).unwrap());
            let (board, events) = (Arc::new(Board::new(&AgentOptions::new("n"))), Arc::new(Recorder::default()));
            let key = pod.key.clone();
            let entry = crate::agent::status::tests::entry(true, 1);
            board.set_pod(&key, Entry { pod: Some(pod), status: PodStatus::default(), ..entry });
            let api = Arc::new(ApiServer::default());
            api.set(client);
            tokio::spawn(run(Parts { board, api, events: Arc::clone(&events), node_name: "n".into() }));
            Self { fake, events, key }
        }

        fn subject<'a>(&'a self, container: Option<&'a str>) -> Subject<'a> {
            Subject { pod: &self.key, uid: "u", container }
        }

        /// What the API server has been asked, once it was asked so often.
        async fn asked(&self, times: usize) -> Vec<String> {
            let all = async {
                while self.fake.requests().len() < times {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(20), all).await.unwrap();
            self.fake.requests()
        }
    }

    #[tokio::test]
    async fn an_event_is_told_once_and_counted_when_it_comes_again() {
        let world = World::new().await;
        world.events.normal(world.subject(Some("i")), "Started", "Started container i");
        world.asked(1).await;
        world.events.normal(world.subject(Some("i")), "Started", "Started container i");
        let asked = world.asked(2).await;
        let told = &world.fake.bodies("POST")[0];
        let path = format!("{EVENTS}/{}", told["metadata"]["name"].as_str().unwrap());
        assert_eq!(asked, [format!("POST {EVENTS}"), format!("PATCH {path}")]);
        assert_eq!(told["involvedObject"]["uid"], "u");
        assert_eq!(told["involvedObject"]["fieldPath"], "spec.initContainers{i}");
        assert_eq!((&told["type"], &told["source"]), (&json!("Normal"), &json!({"component": "kubelet", "host": "n"})));
        let kept = world.fake.get(&path);
        assert_eq!((&kept["count"], &kept["reason"]), (&json!(2), &json!("Started")));
        // The API server forgets events after an hour.
        world.fake.remove(&path);
        world.events.normal(world.subject(Some("i")), "Started", "Started container i");
        world.asked(4).await;
        assert_eq!(world.fake.get(&path)["count"], 3);
    }

    #[tokio::test]
    async fn what_happens_while_the_api_server_is_away_is_told_when_it_is_back_and_what_it_never_takes_is_dropped() {
        let world = World::new().await;
        world.fake.fail("POST", EVENTS, &[403]);
        world.fake.set_down(true);
        for number in 0..3 {
            world.events.warning(world.subject(None), "Unhealthy", format!("{number}"));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(world.fake.requests().is_empty());
        world.fake.set_down(false);
        world.asked(3).await;
        let told: Vec<_> = world.fake.bodies("POST").iter().map(|body| body["message"].clone()).collect();
        assert_eq!(told, ["0", "1", "2"]);
        assert_eq!(world.fake.get(&format!("{EVENTS}/none")), serde_json::Value::Null);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_may_tell_so_much_at_once_and_no_more_until_time_has_passed() {
        let mut bucket = Bucket::new(Instant::now());
        let taken = |bucket: &mut Bucket| (0..BURST + 5).filter(|_| bucket.take(Instant::now())).count();
        assert_eq!(taken(&mut bucket), BURST as usize);
        tokio::time::advance(REFILL * 2).await;
        assert!(!bucket.is_full(Instant::now()));
        assert_eq!(taken(&mut bucket), 2);
        tokio::time::advance(REFILL * BURST).await;
        assert!(bucket.is_full(Instant::now()));
    }
}
