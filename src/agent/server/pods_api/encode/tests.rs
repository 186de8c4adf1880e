use std::collections::BTreeSet;
use std::iter;

use serde::de::value::{Error, MapDeserializer, SeqDeserializer};
use serde::de::{Deserialize, Deserializer, IntoDeserializer, Visitor};
use serde_json::json;

use super::*;

/// Fields of Kubernetes 1.37, which 1.36 has no numbers for. `apiVersion` and `kind` are in no message.
const WITHOUT: &[&str] = &[
    "ClusterTrustBundleProjection.user",
    "ConfigMapVolumeSource.defaultUser",
    "DownwardAPIVolumeFile.user",
    "DownwardAPIVolumeSource.defaultUser",
    "EmptyDirVolumeSource.mode",
    "GRPCAction.mode",
    "HTTPGetAction.protocol",
    "KeyToPath.user",
    "NodeAllocatableResourceClaimStatus.mapping",
    "NodeAllocatableResourceClaimStatus.overhead",
    "Pod.apiVersion",
    "Pod.kind",
    "PodCertificateProjection.user",
    "PodSpec.evictionResponders",
    "PodStatus.volumeHealth",
    "ProjectedVolumeSource.defaultUser",
    "SecretVolumeSource.defaultUser",
    "ServiceAccountTokenProjection.user",
    "VolumeMount.bindMountOptions",
];

/// Gives every field of a type a value: of a list one element, of a map one entry.
#[derive(Clone, Copy)]
struct Whole;

/// Good as a text, a moment and a quantity's name alike.
const TEXT: &str = "2026-01-02T03:04:05Z";

impl<'de> IntoDeserializer<'de, Error> for Whole {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Whole {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_str(TEXT)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_bool(true)
    }

    fn deserialize_i32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_i32(7)
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_i64(7)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_seq(SeqDeserializer::new(iter::once(self)))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_map(MapDeserializer::new(iter::once(("name", self))))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        // What kind of object it is, is not asked.
        let is_asked = |field: &&&str| name != "Pod" || !["apiVersion", "kind"].contains(*field);
        visitor.visit_map(MapDeserializer::new(fields.iter().filter(is_asked).map(|field| (*field, self))))
    }

    serde::forward_to_deserialize_any! {
        i8 i16 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf unit unit_struct tuple tuple_struct enum identifier
        ignored_any
    }
}

/// Adds what `value` has and its message has not.
fn unknown(message: &str, value: &Value, found: &mut BTreeSet<String>) {
    for (name, value) in value.as_object().into_iter().flatten() {
        let Some(field) = look(message, name) else {
            found.insert(format!("{message}.{name}"));
            continue;
        };
        let items = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        if let Kind::Message(inner) = field.kind {
            items.iter().for_each(|item| unknown(inner, item, found));
        }
    }
}

/// A field of a message by its name in JSON, also of those whose fields stand among its own.
fn look(message: &str, name: &str) -> Option<Field> {
    MESSAGES[message].iter().find_map(|field| match field.kind {
        Kind::Message(inner) if field.name.is_empty() => look(inner, name),
        _ => Some(*field).filter(|field| field.name == name),
    })
}

#[test]
fn every_field_of_a_pod_has_its_number() {
    let whole = Pod::deserialize(Whole).unwrap();
    let value = serde_json::to_value(&whole).unwrap();
    assert_eq!(value["spec"]["containers"][0]["livenessProbe"]["httpGet"]["port"], TEXT, "all of it is there");
    let mut found = BTreeSet::new();
    unknown("Pod", &value, &mut found);
    assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), WITHOUT);
    assert!(pod(&whole).unwrap().len() > 5000);
}

#[test]
fn the_table_of_messages_is_whole() {
    let words: Vec<&str> = TABLE.split_ascii_whitespace().collect();
    let messages = words.iter().filter(|word| word.ends_with(':')).count();
    let fields: usize = MESSAGES.values().map(Vec::len).sum();
    assert_eq!((MESSAGES.len(), fields), (messages, words.len() - messages));
    for (name, fields) in &*MESSAGES {
        let numbers: BTreeSet<u32> = fields.iter().map(|field| field.number).collect();
        assert_eq!(numbers.len(), fields.len(), "{name}");
        for field in fields {
            assert!(!matches!(field.kind, Kind::Message(inner) if !MESSAGES.contains_key(inner)), "{name}: {field:?}");
        }
    }
}

/// The bytes of a field that holds others.
fn holding(key: u8, inner: &[u8]) -> Vec<u8> {
    [&[key, u8::try_from(inner.len()).unwrap()], inner].concat()
}

#[test]
fn the_bytes_are_those_that_protobuf_has_for_each_kind() {
    let of = |message_name: &str, value: Value| message(message_name, &value);
    let text = |key, text: &str| holding(key, text.as_bytes());
    let moment = json!({"name": "p", "creationTimestamp": "1970-01-01T00:05:00Z", "generation": -1});
    let minus_one = [0x38, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    let expected = [&text(0x0a, "p")[..], &minus_one, &holding(0x42, &[0x08, 0xac, 0x02])].concat();
    assert_eq!(of("ObjectMeta", moment), expected, "a text, a number below zero, a moment");
    let labels = holding(0x5a, &[text(0x0a, "a"), text(0x12, "b")].concat());
    assert_eq!(of("ObjectMeta", json!({"labels": {"a": "b"}})), labels);
    let limits = holding(0x0a, &[text(0x0a, "cpu"), holding(0x12, &text(0x0a, "5m"))].concat());
    assert_eq!(of("ResourceRequirements", json!({"limits": {"cpu": "5m"}})), limits);
    assert_eq!(of("HTTPGetAction", json!({"port": 80})), holding(0x12, &[0x10, 80]));
    assert_eq!(of("HTTPGetAction", json!({"port": "w"})), holding(0x12, &[0x08, 1, 0x1a, 1, b'w']));
    assert_eq!(
        of("Container", json!({"command": ["a", ""], "tty": true})),
        [&text(0x1a, "a")[..], &[0x1a, 0], &[0x90, 0x01, 1]].concat(),
        "an empty text of a list is one"
    );
    let empty_dir = [text(0x0a, "v"), holding(0x12, &holding(0x12, &[]))].concat();
    assert_eq!(of("Volume", json!({"name": "v", "emptyDir": {}})), empty_dir, "what stands among the fields around it");
    let raw = holding(0x3a, &text(0x0a, "{\"f:a\":{}}"));
    assert_eq!(of("ManagedFieldsEntry", json!({"fieldsV1": {"f:a": {}}})), raw);
}
