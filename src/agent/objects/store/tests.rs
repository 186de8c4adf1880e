use serde_json::{Value, json};

use super::*;
use crate::agent::pod::bound_tests::bound;
use crate::testing::api::FakeApi;

const MAPS: &str = "/api/v1/namespaces/ns/configmaps";
const SECRETS: &str = "/api/v1/namespaces/ns/secrets";
const TOKEN: &str = "/api/v1/namespaces/ns/serviceaccounts/robot/token";

async fn world() -> (FakeApi, ApiServer, Store) {
    let (fake, client) = FakeApi::serve().await;
    let api = ApiServer::default();
    api.set(client);
    (fake, api, Store::default())
}

/// A pod with a config map and a secret as volumes, and another secret in its environment.
fn pod() -> StaticPod {
    let volumes = json!([{"name": "a", "configMap": {"name": "m"}}, {"name": "b", "secret": {"secretName": "s"}}]);
    let env = json!([{"name": "A", "valueFrom": {"secretKeyRef": {"name": "e", "key": "k", "optional": true}}}]);
    bound(json!({"volumes": volumes, "containers": [{"name": "c", "env": env}]}), json!({}))
}

fn put(fake: &FakeApi) {
    fake.put(MAPS, json!({"metadata": {"name": "m"}, "data": {"k": "1"}}));
    fake.put(SECRETS, json!({"metadata": {"name": "s"}, "data": {"k": "aGlkZGVu"}, "immutable": true}));
    let service =
        json!({"metadata": {"name": "kubernetes"}, "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 443}]}});
    fake.put("/api/v1/namespaces/default/services", service);
    let own = json!({"metadata": {"name": "web"}, "spec": {"clusterIP": "10.96.0.2", "ports": [{"port": 80}]}});
    fake.put("/api/v1/namespaces/ns/services", own);
}

fn value(objects: &Objects, kind: Kind, name: &str) -> Option<String> {
    objects.get(kind, name).ok().map(|object| String::from_utf8(object.data["k"].clone()).unwrap())
}

#[tokio::test]
async fn only_what_a_pod_refers_to_is_asked_for_and_each_by_its_name() {
    let (fake, api, store) = world().await;
    put(&fake);
    let files = store.objects(Some(&api), &pod(), ObjectScope::Files).await.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(value(&files, Kind::ConfigMap, "m").as_deref(), Some("1"));
    assert_eq!(value(&files, Kind::Secret, "s").as_deref(), Some("hidden"));
    assert_eq!(fake.requests(), [format!("GET {MAPS}/m"), format!("GET {SECRETS}/s")]);
    let all = store.objects(Some(&api), &pod(), ObjectScope::Container("c")).await.unwrap_or_else(|e| panic!("{e}"));
    assert!(all.get(Kind::Secret, "e").is_err(), "it is not there");
    let names: Vec<_> = all.services.iter().map(|(name, _)| name.as_str()).collect();
    assert!(names.contains(&"KUBERNETES_SERVICE_HOST") && names.contains(&"WEB_SERVICE_PORT"), "{names:?}");
    let later: Vec<String> = fake.requests().split_off(2);
    assert!(later.contains(&format!("GET {SECRETS}/e")), "{later:?}");
    assert!(!later.contains(&format!("GET {SECRETS}/s")), "what is immutable is asked for once: {later:?}");
}

#[tokio::test]
async fn who_wants_no_links_gets_the_kubernetes_service_alone() {
    let (fake, api, store) = world().await;
    put(&fake);
    let mut pod = pod();
    pod.spec.enable_service_links = Some(false);
    let all = store.objects(Some(&api), &pod, ObjectScope::Container("c")).await.unwrap_or_else(|e| panic!("{e}"));
    assert!(all.services.iter().all(|(name, _)| name.starts_with("KUBERNETES_")), "{:?}", all.services);
}

#[tokio::test]
async fn without_an_answer_things_are_as_they_were_and_unknown_ones_an_error() {
    let (fake, api, store) = world().await;
    put(&fake);
    fake.fail("GET", &format!("{MAPS}/m"), &[403]);
    let files = store.objects(Some(&api), &pod(), ObjectScope::Files).await.unwrap_or_else(|e| panic!("{e}"));
    let error = files.get_optional(Kind::ConfigMap, "m", Some(true)).err().unwrap();
    assert!(error.starts_with("configmap \"m\" cannot be read: "), "{error}");
    assert_eq!(value(&files, Kind::Secret, "s").as_deref(), Some("hidden"), "it holds no other up");
    assert!(store.objects(Some(&api), &pod(), ObjectScope::Container("c")).await.is_ok());
    fake.set_down(true);
    let known = store.objects(Some(&api), &pod(), ObjectScope::Container("c")).await.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(value(&known, Kind::ConfigMap, "m").as_deref(), Some("1"));
    assert!(!known.services.is_empty());
    let mut other = pod();
    other.uid = "other".into();
    let none = store.objects(Some(&api), &other, ObjectScope::Files).await.unwrap_or_else(|e| panic!("{e}"));
    assert!(none.get(Kind::ConfigMap, "m").is_err() && none.get(Kind::Secret, "s").is_err());
    let none = store.objects(None, &other, ObjectScope::Files).await.unwrap_or_else(|e| panic!("{e}"));
    assert!(none.get(Kind::ConfigMap, "m").err().unwrap().contains("no credentials"));
    assert!(store.objects(None, &other, ObjectScope::Container("c")).await.err().unwrap().contains("no credentials"));
}

#[tokio::test]
async fn an_object_that_is_gone_is_missing_and_a_changed_one_changed() {
    let (fake, api, store) = world().await;
    put(&fake);
    assert!(store.objects(Some(&api), &pod(), ObjectScope::Files).await.is_ok());
    fake.change(&format!("{MAPS}/m"), &json!({"data": {"k": "2"}}));
    let now = store.objects(Some(&api), &pod(), ObjectScope::Files).await.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(value(&now, Kind::ConfigMap, "m").as_deref(), Some("2"));
    fake.remove(&format!("{MAPS}/m"));
    let gone = store.objects(Some(&api), &pod(), ObjectScope::Files).await.unwrap_or_else(|e| panic!("{e}"));
    assert!(gone.get(Kind::ConfigMap, "m").is_err());
    fake.set_down(true);
    let still = store.objects(Some(&api), &pod(), ObjectScope::Files).await.unwrap_or_else(|e| panic!("{e}"));
    assert!(still.get(Kind::ConfigMap, "m").is_err(), "that it is gone is known too");
}

fn answer(token: &str, seconds: i64) -> Value {
    let expires = Timestamp::now() + SignedDuration::from_secs(seconds);
    json!({"kind": "TokenRequest", "status": {"token": token, "expirationTimestamp": expires.to_string()}})
}

#[tokio::test]
async fn a_token_is_asked_for_the_pod_and_again_when_it_is_old() {
    let (fake, api, store) = world().await;
    let sources = json!([{"serviceAccountToken": {"path": "t", "audience": "x", "expirationSeconds": 600}}]);
    let spec = json!({"serviceAccountName": "robot", "volumes": [{"name": "v", "projected": {"sources": sources}}]});
    let pod = bound(spec, json!({}));
    let ask = async || {
        let (objects, key) = (
            store.objects(Some(&api), &pod, ObjectScope::Files).await.unwrap_or_else(|e| panic!("{e}")),
            ("x".into(), 600),
        );
        objects.tokens.get(&key).map(ToString::to_string).ok_or_else(|| objects.refused[&key].clone())
    };
    fake.answer_post(TOKEN, answer("one", 600));
    assert_eq!(ask().await.unwrap(), "one");
    let sent = fake.bodies("POST").remove(0)["spec"].clone();
    let object = json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"});
    assert_eq!(sent, json!({"audiences": ["x"], "expirationSeconds": 600, "boundObjectRef": object}));
    fake.answer_post(TOKEN, answer("two", 0));
    assert_eq!(ask().await.unwrap(), "one", "it still holds");
    assert_eq!(fake.bodies("POST").len(), 1);

    // One that has expired is no use, and no server gives another.
    store.forget("u", || ());
    assert_eq!(ask().await.unwrap(), "two");
    fake.fail("POST", TOKEN, &[403]);
    let error = ask().await.unwrap_err();
    assert!(error.starts_with("no token of the service account \"robot\": "), "{error}");
}

#[test]
fn a_token_is_old_after_four_fifths_of_its_time_and_after_a_day_at_most() {
    let at = |second: i64| Timestamp::from_second(second).unwrap();
    let token = |seconds: i64| Token { text: "t".into(), asked: at(0), expires: at(seconds) };
    assert!(!token(1000).is_old(at(799)) && token(1000).is_old(at(800)));
    assert!(!token(1_000_000).is_old(at(60_000)) && token(1_000_000).is_old(at(86_400)));
}

#[test]
fn nobody_writes_files_of_a_pod_that_is_gone() {
    let (store, pod) = (Store::default(), pod());
    assert_eq!(store.alone(&pod, || 1), 1);
    assert_eq!(store.alone_unless_gone("u", || Some(1)), Some(1));
    let before = store.of_pod("u");
    assert_eq!(store.forget("u", || 2), 2);
    assert!(lock(&store.0).is_empty() && *lock(&before.files), "who has waited for his turn sees that it is over");
    assert!(!*lock(&store.of_pod("u").files), "the same pod may come again");
}
