//! What a URL answers: a Pod or a PodList.

use serde_json::Value;

use super::{Origin, PodError, PodKey, StaticPod, decode};
use crate::yaml::{Kind, Node};

/// The pods of a body.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PodList {
    /// The pods, in the order of the body, one a namespace and name.
    pub pods: Vec<StaticPod>,
    /// Later ones of the same name, which are not used.
    pub duplicates: Vec<PodKey>,
    /// What was odd about the body as a whole.
    pub warnings: Vec<String>,
}

impl PodList {
    /// Reads a body: JSON or YAML, one v1 Pod or a v1 PodList. An empty one holds no pods.
    ///
    /// # Errors
    /// Every kind of [`PodError`]; one item that cannot run spoils the list, since there is no telling a pod that is
    /// meant to go from one that was written wrongly.
    pub fn from_bytes(bytes: &[u8], origin: Origin<'_>) -> Result<Self, PodError> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let decoded = decode::decode(bytes)?;
        if decode::kind(&decoded.value) != ("PodList".to_owned(), "v1".to_owned()) {
            decode::check_kind(&decoded.value, origin.place)?;
            let typed = decoded.typed()?;
            let pods = vec![StaticPod::from_object(decoded.value, typed, origin)?];
            return Ok(Self { pods, duplicates: vec![], warnings: decoded.warnings });
        }
        let mut list = Self { warnings: decoded.warnings, ..Self::default() };
        let mut known = std::collections::BTreeSet::new();
        for (index, item) in items(&decoded.node)?.iter().enumerate() {
            let pod = read_item(item, origin).map_err(|source| PodError::Item { index, source: Box::new(source) })?;
            if known.insert(pod.key.clone()) {
                list.pods.push(pod);
            } else {
                list.duplicates.push(pod.key);
            }
        }
        Ok(list)
    }
}

fn items(list: &Node) -> Result<&[Node], PodError> {
    match list.get("items").map(|items| &items.kind) {
        None | Some(Kind::Null) => Ok(&[]),
        Some(Kind::List(items)) => Ok(items),
        Some(_) => Err(PodError::Shape { message: "items: expected a list".to_owned() }),
    }
}

/// One item. Items of a list need not say what they are; said or not, they are the same pod.
fn read_item(node: &Node, origin: Origin<'_>) -> Result<StaticPod, PodError> {
    let mut item = node.to_value();
    if let Value::Object(fields) = &mut item {
        for (field, value) in [("apiVersion", "v1"), ("kind", "Pod")] {
            if fields.get(field).is_none_or(Value::is_null) {
                fields.insert(field.to_owned(), Value::from(value));
            }
        }
    }
    decode::check_kind(&item, origin.place)?;
    let typed = decode::typed(node)?;
    StaticPod::from_object(item, typed, origin)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use jiff::Timestamp;

    use super::super::{CONFIG_SOURCE, Place};
    use super::*;

    const URL: &str = "http://x/pods";

    fn read(text: &str) -> Result<PodList, PodError> {
        read_at(text, Place::Url(URL))
    }

    fn read_at(text: &str, place: Place<'_>) -> Result<PodList, PodError> {
        let origin = Origin { node_name: "n", place, seen: Timestamp::UNIX_EPOCH };
        PodList::from_bytes(text.as_bytes(), origin)
    }

    fn item(name: &str) -> String {
        format!(r#"{{"metadata": {{"name": "{name}"}}, "spec": {{"containers": [{{"name": "c", "image": "x:1"}}]}}}}"#)
    }

    fn list(items: &[String]) -> String {
        format!(r#"{{"kind": "PodList", "apiVersion": "v1", "items": [{}]}}"#, items.join(", "))
    }

    fn names(list: &PodList) -> Vec<&str> {
        list.pods.iter().map(|pod| pod.key.name.as_str()).collect()
    }

    #[test]
    fn a_pod_and_a_list_of_pods_are_read_as_json_and_as_yaml() {
        let alone = "kind: Pod\napiVersion: v1\nmetadata: {name: a}\nspec: {containers: [{name: c, image: 'x:1'}]}\n";
        let one = read(alone).unwrap();
        assert_eq!(names(&one), ["a-n"]);
        let both = read(&list(&[item("a"), item("b")])).unwrap();
        assert_eq!(names(&both), ["a-n", "b-n"]);
        assert_eq!(both.pods[0], one.pods[0], "the same pod, alone or in a list");
        let yaml = format!("kind: PodList\napiVersion: v1\nitems:\n- {}\n", item("a"));
        assert_eq!(read(&yaml).unwrap().pods, one.pods);
        for empty in ["", "kind: PodList\napiVersion: v1\n", "kind: PodList\napiVersion: v1\nitems: []\n"] {
            assert_eq!(read(empty).unwrap(), PodList::default());
        }
    }

    #[test]
    fn a_pod_from_a_url_says_so_and_has_no_toleration_and_the_urls_uid() {
        let pod = read(&list(&[item("a")])).unwrap().pods.remove(0);
        assert_eq!(pod.metadata.annotations.as_ref().unwrap()[CONFIG_SOURCE], "http");
        assert_eq!((pod.spec.tolerations.as_ref(), &pod.file, &pod.file_hash), (None, &None, &None));
        let uid = |place: Place<'_>, node_name: &str| {
            let origin = Origin { node_name, place, seen: Timestamp::UNIX_EPOCH };
            PodList::from_bytes(list(&[item("a")]).as_bytes(), origin).unwrap().pods.remove(0).uid
        };
        assert_eq!(uid(Place::Url(URL), "other"), pod.uid, "the same on every node");
        assert_ne!(uid(Place::Url("http://x/other"), "n"), pod.uid);
        assert_ne!(uid(Place::File(Path::new("/m/a.yaml")), "n"), pod.uid);
    }

    #[test]
    fn one_bad_item_spoils_the_list_and_is_named() {
        let bad = item("b").replace("x:1", "");
        let error = read(&list(&[item("a"), bad])).unwrap_err();
        let text = crate::error::chain(&error);
        assert_eq!(text, "items[1]: invalid Pod: spec.containers[0].image: is required");
        for (text, words) in [
            (list(&[r#"{"kind": "Service", "apiVersion": "v1"}"#.to_owned()]), "Service (v1) is not run from a URL"),
            (list(&["7".to_owned()]), "none (none) is not run from a URL: only Pod or PodList (v1) is"),
            (r#"{"kind": "List", "apiVersion": "v1", "items": []}"#.to_owned(), "List (v1) is not run"),
            (r#"{"kind": "PodList", "apiVersion": "v2", "items": []}"#.to_owned(), "PodList (v2) is not run"),
            (r#"{"kind": "PodList", "apiVersion": "v1", "items": {}}"#.to_owned(), "items: expected a list"),
            ("<html>".to_owned(), "none (none) is not run"),
        ] {
            let error = crate::error::chain(&read(&text).unwrap_err());
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn of_one_name_twice_in_a_list_the_first_counts() {
        let found = read(&list(&[item("a"), item("b"), item("a").replace("x:1", "x:2")])).unwrap();
        assert_eq!(names(&found), ["a-n", "b-n"]);
        assert_eq!(found.pods[0].spec.containers[0].image.as_deref(), Some("x:1"));
        assert_eq!(found.duplicates, [PodKey { namespace: "default".into(), name: "a-n".into() }]);
    }
}
