//! Environment, command and arguments of a container: `$(VAR)` expansion and the downward API.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{Container, EnvFromSource, EnvVarSource, FileKeySelector};

use crate::agent::objects::{Kind, Object, Objects};
use crate::agent::pod::downward;
pub use crate::agent::pod::downward::Facts;
use crate::agent::pod::{StaticPod, is_env_name};
use crate::runtime::Env;

/// The longest word that a program can be started with, argument or variable (Linux' `MAX_ARG_STRLEN`, its end included).
const WORD_LIMIT: usize = (128 << 10) - 1;
/// The most bytes of all arguments or all variables together (no Linux takes more, most take a third of it).
const ALL_LIMIT: usize = 6 << 20;

/// Variables by name.
pub type Known = HashMap<String, Vec<u8>>;

/// Reads the key of a file in a volume; None where it is not there.
pub type ReadKey<'a> = &'a dyn Fn(&FileKeySelector) -> Result<Option<String>, String>;

/// What values are taken from.
pub struct Sources<'a> {
    /// The node and the pod's place on it.
    pub facts: &'a Facts,
    /// Files in volumes.
    pub read: ReadKey<'a>,
    /// Config maps, secrets and services.
    pub objects: &'a Objects,
}

/// The environment in order: services, whole config maps and secrets, single variables. A value sees the variables
/// defined before it.
///
/// An error names the variable whose field cannot be had.
pub fn environment(pod: &StaticPod, container: &Container, sources: &Sources<'_>) -> Result<Env, String> {
    let mut all = Variables::default();
    for (name, value) in sources.objects.services.iter().cloned() {
        all.put(name, value.into_bytes())?;
    }
    for from in container.env_from.iter().flatten() {
        for (name, value) in whole(from, sources.objects)?.into_iter().filter(|(name, _)| is_env_name(name)) {
            all.put(name, value)?;
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match &variable.value_from {
            None => all.expand(variable.value.as_deref().unwrap_or_default()).map(Some),
            Some(from) => value_from(pod, container, from, sources),
        };
        let value = value.map_err(|problem| format!("env {}: {problem}", variable.name))?;
        if let Some(value) = value {
            all.put(variable.name.clone(), value)?;
        }
    }
    Ok(all.in_order())
}

/// Variables by name, each with its place. A pod's author may write many, and each may name all before it twice.
#[derive(Default)]
struct Variables {
    values: HashMap<String, (usize, Vec<u8>)>,
    puts: usize,
    bytes: usize,
}

/// What a variable takes in a program's environment: `NAME=VALUE` and a zero.
fn bytes_of(name: &str, value: &[u8]) -> usize {
    name.len().saturating_add(value.len()).saturating_add(2)
}

impl Variables {
    /// Puts a variable behind the others. A later definition of the same name takes the place of the earlier one.
    fn put(&mut self, name: String, value: Vec<u8>) -> Result<(), String> {
        let length = bytes_of(&name, &value);
        if length > WORD_LIMIT {
            return Err(format!("env {name}: {}", too_long()));
        }
        self.bytes = self.bytes.saturating_add(length);
        if self.bytes > ALL_LIMIT {
            return Err(format!("env {name}: {}", too_much()));
        }
        self.puts = self.puts.saturating_add(1);
        if let Some((_, before)) = self.values.insert(name.clone(), (self.puts, value)) {
            self.bytes = self.bytes.saturating_sub(bytes_of(&name, &before));
        }
        Ok(())
    }

    fn expand(&self, text: &str) -> Result<Vec<u8>, String> {
        expand_with(text, &mut |name| self.values.get(name).map(|(_, value)| value.clone()))
    }

    fn in_order(self) -> Env {
        let mut all: Vec<_> = self.values.into_iter().map(|(name, (at, value))| (at, name, value)).collect();
        all.sort_unstable_by_key(|(at, ..)| *at);
        all.into_iter().map(|(_, name, value)| (name, value)).collect()
    }
}

/// Keys of whole config maps and secrets that can be no variable's name, which are left out.
pub fn left_out(container: &Container, objects: &Objects) -> Vec<String> {
    let all = container.env_from.iter().flatten().filter_map(|from| whole(from, objects).ok()).flatten();
    all.map(|(name, _)| name).filter(|name| !is_env_name(name)).collect()
}

/// The variables of a whole config map or secret.
fn whole(from: &EnvFromSource, objects: &Objects) -> Result<Env, String> {
    let found = match (&from.config_map_ref, &from.secret_ref) {
        (Some(map), _) => objects.get_optional(Kind::ConfigMap, &map.name, map.optional)?,
        (_, Some(secret)) => objects.get_optional(Kind::Secret, &secret.name, secret.optional)?,
        _ => None,
    };
    let prefix = from.prefix.as_deref().unwrap_or_default();
    let named = |(key, bytes): (&String, &Vec<u8>)| (format!("{prefix}{key}"), bytes.clone());
    Ok(found.into_iter().flat_map(|object| &object.data).map(named).collect())
}

/// One key of an object. The words are the kubelet's.
fn key_of(
    object: Option<&Object>,
    (kind, name, key): (&str, &str, &str),
    optional: Option<bool>,
) -> Result<Option<Vec<u8>>, String> {
    match object.and_then(|object| object.data.get(key)) {
        Some(bytes) => Ok(Some(bytes.clone())),
        None if optional.unwrap_or(false) => Ok(None),
        None => Err(format!("couldn't find key {key} in {kind} {name}")),
    }
}

/// None for a variable that may be missing, and is.
fn value_from(
    pod: &StaticPod,
    container: &Container,
    from: &EnvVarSource,
    sources: &Sources<'_>,
) -> Result<Option<Vec<u8>>, String> {
    let Sources { facts, objects, .. } = sources;
    if let Some(of) = &from.config_map_key_ref {
        let object = objects.get_optional(Kind::ConfigMap, &of.name, of.optional)?;
        return key_of(object, ("ConfigMap", &of.name, &of.key), of.optional);
    }
    if let Some(of) = &from.secret_key_ref {
        let object = objects.get_optional(Kind::Secret, &of.name, of.optional)?;
        return key_of(object, ("Secret", &of.name, &of.key), of.optional);
    }
    if let Some(file) = &from.file_key_ref {
        let value = (sources.read)(file)?;
        let missing = value.is_none() && !file.optional.unwrap_or(false);
        return if missing {
            Err(format!("there is no {} in {}", file.key, file.path))
        } else {
            Ok(value.map(String::into_bytes))
        };
    }
    let value = match (&from.field_ref, &from.resource_field_ref) {
        (Some(field), _) => downward::field(pod, &field.field_path, facts),
        (_, Some(resource)) => downward::resource(pod, Some(container), resource, facts),
        _ => None,
    };
    value.map(|value| Some(value.into_bytes())).ok_or_else(|| "this field cannot be read here".to_owned())
}

/// Command or arguments, which see the whole environment.
///
/// # Errors
/// They are longer than a program can be started with, or no UTF-8, which no runtime can be asked for.
pub fn expand_all(words: Option<&Vec<String>>, env: &[(String, Vec<u8>)]) -> Result<Vec<String>, String> {
    let known: Known = env.iter().cloned().collect();
    expand_each(words.into_iter().flatten(), &known)
}

/// The same of words with these variables.
///
/// # Errors
/// As [`expand_all`].
pub fn expand_each<'w>(words: impl Iterator<Item = &'w String>, known: &Known) -> Result<Vec<String>, String> {
    let (mut all, mut bytes) = (Vec::new(), 0_usize);
    for word in words {
        let word = utf8(expand(word, known)?)?;
        bytes = word.len().saturating_add(bytes).saturating_add(1);
        if bytes > ALL_LIMIT {
            return Err(too_much());
        }
        all.push(word);
    }
    Ok(all)
}

/// Replaces `$(NAME)` by its value; `$$` is a `$` that expands nothing, unknown names and lone `$` stay as they are.
///
/// # Errors
/// What comes of it is longer than a word of a program may be.
pub fn expand(text: &str, known: &Known) -> Result<Vec<u8>, String> {
    expand_with(text, &mut |name| known.get(name).cloned())
}

/// A command's word or a path as text. Variables may be any bytes; of these a runtime takes UTF-8 only.
///
/// # Errors
/// It is no UTF-8, as a secret's value may make it.
pub fn utf8(bytes: Vec<u8>) -> Result<String, String> {
    String::from_utf8(bytes)
        .map_err(|_| "a variable in it is no UTF-8, which only a variable's value may be".to_owned())
}

fn too_long() -> String {
    format!("longer than {WORD_LIMIT} bytes, which no program can be started with")
}

fn too_much() -> String {
    format!("more than {} MiB in all, which no program can be started with", ALL_LIMIT >> 20)
}

/// The same with what `value` says of a name.
///
/// # Errors
/// As [`expand`].
pub fn expand_with(text: &str, value: &mut dyn FnMut(&str) -> Option<Vec<u8>>) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        // A value may be named many times, in the next value as well: what it comes to has no bounds.
        if out.len() > WORD_LIMIT {
            return Err(too_long());
        }
        out.extend_from_slice(before.as_bytes());
        rest = after;
        if let Some(after) = rest.strip_prefix('$') {
            out.push(b'$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match value(name) {
                Some(value) => out.extend_from_slice(&value),
                None => out.extend_from_slice(format!("$({name})").as_bytes()),
            }
            rest = after;
        } else {
            out.push(b'$');
        }
    }
    out.extend_from_slice(rest.as_bytes());
    if out.len() > WORD_LIMIT { Err(too_long()) } else { Ok(out) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use serde_json::{Value, json};

    use crate::agent::pod::bound_tests::bound;
    use crate::agent::pod::tests::{pod, pod_with};

    fn of_pod(pod: &StaticPod, facts: &Facts, objects: &Objects) -> Result<Env, String> {
        let sources = Sources { facts, read: &|_| Err("there are no files".to_owned()), objects };
        environment(pod, &pod.spec.containers[0], &sources)
    }

    #[test]
    fn references_expand_as_the_kubelet_expands_them() {
        let known = Known::from([("A".to_owned(), b"val".to_vec()), ("E".to_owned(), vec![])]);
        for (text, expected) in [
            ("$(A) $(B) $$(A)", "val $(B) $(A)"),
            ("a$b", "a$b"),
            ("$", "$"),
            ("$$", "$"),
            ("$(A", "$(A"),
            ("x$(E)y", "xy"),
            ("$()", "$()"),
            ("$$$(A)", "$val"),
            ("é$(A)é", "évalé"),
        ] {
            assert_eq!(expand(text, &known).as_deref(), Ok(expected.as_bytes()), "{text}");
        }
    }

    #[test]
    fn a_value_sees_only_earlier_variables_and_the_arguments_see_all() {
        let pod = pod("env: [{name: A, value: '$(B)'}, {name: B, value: b}, {name: C, value: '$(B)c'},\
             {name: NN, valueFrom: {fieldRef: {fieldPath: metadata.name}}},\
             {name: L, valueFrom: {fieldRef: {fieldPath: \"metadata.labels['x']\"}}},\
             {name: M, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: 1Mi}}}]");
        let facts = Facts { node_memory: 4 << 20, ..Facts::default() };
        let env = of_pod(&pod, &facts, &Objects::default()).unwrap();
        let pairs: Vec<_> = env.iter().map(|(k, v)| (k.as_str(), str::from_utf8(v).unwrap())).collect();
        assert_eq!(pairs, [("A", "$(B)"), ("B", "b"), ("C", "bc"), ("NN", "p-node1"), ("L", ""), ("M", "4")]);
        assert_eq!(expand_all(Some(&vec!["$(A)-$(C)".into()]), &env).unwrap(), ["$(B)-bc"]);
    }

    #[test]
    fn variables_that_name_one_another_do_not_become_more_than_a_program_can_have() {
        // Each twice the one before: the last one would be 10^12 bytes.
        let doubled = (1..=40).map(|n| format!("{{name: V{n}, value: '$(V{})$(V{})'}}", n - 1, n - 1));
        let doubled: Vec<String> = doubled.collect();
        let text = format!("env: [{{name: V0, value: x}}, {}]", doubled.join(", "));
        let error = of_pod(&pod(&text), &Facts::default(), &Objects::default()).unwrap_err();
        assert_eq!(error, "env V17: longer than 131071 bytes, which no program can be started with");
        // As many as fit into a manifest, each as long as it may be.
        let long = "x".repeat(60 << 10);
        let many: Vec<String> = (0..2000).map(|n| format!("{{name: W{n}, value: $(V)}}")).collect();
        let text = format!("env: [{{name: V, value: {long}}}, {}]", many.join(", "));
        let error = of_pod(&pod(&text), &Facts::default(), &Objects::default()).unwrap_err();
        assert!(error.ends_with(": more than 6 MiB in all, which no program can be started with"), "{error}");
    }

    #[test]
    fn a_command_does_not_become_more_than_a_program_can_have() {
        let env = [("V".to_owned(), vec![b'x'; 60 << 10])];
        let of = |words: Vec<String>| expand_all(Some(&words), &env).map(|words| words.len());
        assert_eq!(of(vec!["$(V)$(V)".into(), "a".into()]), Ok(2));
        assert!(of(vec!["$(V)".repeat(100_000)]).unwrap_err().contains("longer than 131071 bytes"));
        assert!(of(vec!["x".repeat(1 << 20)]).is_err());
        assert!(of(vec!["$(V)".into(); 10_000]).unwrap_err().contains("more than 6 MiB"));
    }

    #[test]
    fn thousands_of_variables_are_put_in_order_at_once() {
        let many: Vec<String> = (0..20_000).map(|n| format!("{{name: V{n}, value: a}}")).collect();
        let text = format!("env: [{}, {{name: V1, value: b}}]", many.join(", "));
        let pod = pod(&text);
        let started = crate::host::clock::Instant::now();
        let env = of_pod(&pod, &Facts::default(), &Objects::default()).unwrap();
        assert!(started.elapsed() < std::time::Duration::from_secs(5), "{:?}", started.elapsed());
        assert_eq!((env.len(), env[1].0.as_str()), (20_000, "V2"));
        assert_eq!(env[19_999], ("V1".to_owned(), b"b".to_vec()), "the last definition counts");
    }

    #[test]
    fn a_field_that_is_not_known_yet_names_its_variable() {
        let pod = pod("env: [{name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]");
        let error = of_pod(&pod, &Facts::default(), &Objects::default()).unwrap_err();
        assert!(error.starts_with("env IP: "), "{error}");
    }

    #[test]
    fn a_key_of_a_file_may_be_missing_only_where_the_manifest_says_so() {
        let of = |optional: bool, read: ReadKey<'_>| {
            let text = format!(
                "env: [{{name: A, valueFrom: {{fileKeyRef: {{volumeName: v, path: f, key: k, optional: {optional}}}}}}}]"
            );
            let pod = pod_with("volumes: [{name: v, emptyDir: {}}]", &text);
            let sources = Sources { facts: &Facts::default(), read, objects: &Objects::default() };
            environment(&pod, &pod.spec.containers[0], &sources)
        };
        assert_eq!(of(false, &|_| Ok(Some("x".into()))), Ok(vec![("A".to_owned(), b"x".to_vec())]));
        assert_eq!(of(true, &|_| Ok(None)), Ok(vec![]));
        assert_eq!(of(false, &|_| Ok(None)), Err("env A: there is no k in f".to_owned()));
        assert_eq!(of(true, &|_| Err("bad".into())), Err("env A: bad".to_owned()));
    }

    fn raw_secret() -> Arc<Object> {
        let data = [("A".to_owned(), b"secret".to_vec()), ("raw".to_owned(), b"a\xff\xfeb".to_vec())];
        Arc::new(Object { data: data.into(), ..Object::default() })
    }

    fn objects() -> Objects {
        let object = |data: &[(&str, &str)]| {
            let data = data.iter().map(|(key, text)| ((*key).to_owned(), text.as_bytes().to_vec())).collect();
            Arc::new(Object { data, binary: [("raw".to_owned(), vec![0xff])].into(), ..Object::default() })
        };
        let found = [
            ((Kind::ConfigMap, "m".to_owned()), object(&[("A", "map"), ("B", "b"), ("x=y", "no name")])),
            ((Kind::Secret, "s".to_owned()), raw_secret()),
        ];
        let services = vec![("DB_SERVICE_HOST".to_owned(), "10.0.0.1".to_owned()), ("B".to_owned(), "old".to_owned())];
        Objects { found: found.into(), services, ..Objects::default() }
    }

    fn shown(container: Value) -> Result<String, String> {
        let mut container = container;
        container["name"] = json!("c");
        let pod = bound(json!({"containers": [container]}), json!({}));
        let env = of_pod(&pod, &Facts::default(), &objects())?;
        Ok(env.iter().map(|(name, value)| format!("{name}={}", value.escape_ascii())).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn services_whole_objects_and_variables_follow_one_another_and_the_last_one_counts() {
        let map = json!({"configMapRef": {"name": "m"}});
        let secret = json!({"secretRef": {"name": "s"}, "prefix": "S_"});
        let all = json!({"envFrom": [map, secret], "env": [{"name": "A", "value": "$(B)/$(S_A)/$(DB_SERVICE_HOST)"}]});
        assert_eq!(
            shown(all).unwrap(),
            "DB_SERVICE_HOST=10.0.0.1 B=b S_A=secret S_raw=a\\xff\\xfeb A=b/secret/10.0.0.1"
        );
        let missing = |optional: bool| json!({"envFrom": [{"secretRef": {"name": "none", "optional": optional}}]});
        assert_eq!(shown(missing(false)).unwrap_err(), "secret \"none\" not found");
        assert!(shown(missing(true)).is_ok());
        let pod = bound(json!({"containers": [{"name": "c", "envFrom": [map]}]}), json!({}));
        assert_eq!(left_out(&pod.spec.containers[0], &objects()), ["x=y"]);
    }

    #[test]
    fn a_key_of_an_object_must_be_there_unless_it_may_be_missing() {
        let of = |kind: &str, name: &str, key: &str, optional: bool| {
            let from = json!({kind: {"name": name, "key": key, "optional": optional}});
            shown(json!({"env": [{"name": "V", "valueFrom": from}]}))
        };
        assert!(of("configMapKeyRef", "m", "A", false).unwrap().ends_with(" V=map"));
        assert!(of("secretKeyRef", "s", "A", false).unwrap().ends_with(" V=secret"));
        let error = of("secretKeyRef", "s", "Z", false).unwrap_err();
        assert_eq!(error, "env V: couldn't find key Z in Secret s");
        assert_eq!(of("configMapKeyRef", "none", "A", false).unwrap_err(), "env V: configmap \"none\" not found");
        assert!(!of("secretKeyRef", "s", "Z", true).unwrap().contains("V="));
        assert!(!of("configMapKeyRef", "none", "Z", true).unwrap().contains("V="));
    }

    #[test]
    fn a_secrets_bytes_are_a_variables_bytes_also_within_another_one() {
        let from = json!({"secretKeyRef": {"name": "s", "key": "raw"}});
        let env = json!([{"name": "V", "valueFrom": from}, {"name": "W", "value": "<$(V)>"}]);
        assert!(shown(json!({"env": env})).unwrap().ends_with(r" V=a\xff\xfeb W=<a\xff\xfeb>"));
        let whole = json!([{"secretRef": {"name": "s"}}]);
        assert!(shown(json!({"envFrom": whole})).unwrap().ends_with(r" raw=a\xff\xfeb"));
        // A command's words are text to every runtime.
        let env = [("V".to_owned(), b"\xff".to_vec())];
        let error = expand_all(Some(&vec!["-x=$(V)".into()]), &env).unwrap_err();
        assert!(error.contains("no UTF-8"), "{error}");
    }

    #[test]
    fn binary_data_of_a_config_map_is_for_volumes_alone() {
        let from = json!({"configMapKeyRef": {"name": "m", "key": "raw"}});
        let error = shown(json!({"env": [{"name": "V", "valueFrom": from}]})).unwrap_err();
        assert_eq!(error, "env V: couldn't find key raw in ConfigMap m");
        let whole = shown(json!({"envFrom": [{"configMapRef": {"name": "m"}}]})).unwrap();
        assert!(!whole.contains("raw"), "{whole}");
    }
}
