//! From what a URL answers to the pods that are wanted. Pure.

use std::sync::Arc;

use jiff::Timestamp;

use super::{Kind, Update};
use crate::agent::control::report::{Problem, Severity};
use crate::agent::crash::caught_now;
use crate::agent::pod::{Origin, Place, PodList, StaticPod};
use crate::error::chain;

/// What is known of a URL: the pods of its last good answer.
pub struct Remote {
    node_name: String,
    url: String,
    pods: Vec<Arc<StaticPod>>,
    /// The last good answer; None before the first.
    good: Option<Arc<[u8]>>,
    /// The last answer, good or not, with what is wrong with it: the same bytes are not read twice.
    latest: Option<(Arc<[u8]>, Vec<Problem>)>,
}

impl Remote {
    /// Nothing is known yet of what `url` answers.
    pub fn new(node_name: &str, url: &str) -> Self {
        Self { node_name: node_name.to_owned(), url: url.to_owned(), pods: vec![], good: None, latest: None }
    }

    /// The last good answer, None before the first.
    pub fn good(&self) -> Option<Arc<[u8]>> {
        self.good.clone()
    }

    /// Takes in what an earlier agent kept.
    pub fn remember(&mut self, body: &[u8], now: Timestamp) {
        self.read(body, now);
    }

    /// Takes in an answer, or why there is none, and says what is wanted now.
    pub fn take(&mut self, answer: Result<Vec<u8>, String>, now: Timestamp) -> Update {
        let problems = match answer {
            Ok(body) => self.read(&body, now),
            Err(why) => vec![self.error(&why)],
        };
        let held = if self.good.is_some() { vec![] } else { vec![Kind::Http] };
        Update { pods: self.pods.clone(), problems, synced: true, held: held.into_iter().collect() }
    }

    fn read(&mut self, body: &[u8], now: Timestamp) -> Vec<Problem> {
        if let Some((latest, problems)) = &self.latest
            && **latest == *body
        {
            return problems.clone();
        }
        let origin = Origin { node_name: &self.node_name, place: Place::Url(&self.url), seen: now };
        let bytes: Arc<[u8]> = body.into();
        let problems = match caught_now(|| PodList::from_bytes(body, origin)) {
            Ok(Ok(list)) => {
                let problems = self.oddities(&list, body.is_empty());
                self.pods = list.pods.into_iter().map(|pod| self.as_before(pod)).collect();
                self.good = Some(Arc::clone(&bytes));
                problems
            }
            Ok(Err(error)) => vec![self.error(&chain(&error))],
            Err(crash) => vec![self.error(&crash.to_string())],
        };
        self.latest = Some((bytes, problems.clone()));
        problems
    }

    /// A pod that was there before is the one that was seen then.
    fn as_before(&self, mut pod: StaticPod) -> Arc<StaticPod> {
        let Some(before) = self.pods.iter().find(|before| before.uid == pod.uid) else { return Arc::new(pod) };
        pod.keep_seen(before);
        if **before == pod { Arc::clone(before) } else { Arc::new(pod) }
    }

    fn oddities(&self, list: &PodList, empty: bool) -> Vec<Problem> {
        let subject = shown(&self.url);
        let nothing = empty.then(|| "answered with nothing: no pod runs from it".to_owned());
        let twice = list.duplicates.iter().map(|key| format!("pod {key} is in the list twice; the first one is used"));
        let odd = list.pods.iter().flat_map(|pod| pod.warnings.iter().map(|text| format!("pod {}: {text}", pod.key)));
        let all = nothing.into_iter().chain(list.warnings.iter().cloned()).chain(twice).chain(odd);
        all.map(|text| Problem { severity: Severity::Warning, ..Problem::error(&subject, text) }).collect()
    }

    fn error(&self, why: &str) -> Problem {
        let keeps = match (self.pods.len(), self.good.is_some()) {
            (0, _) => "nothing runs from it",
            _ => "its pods stay as they were",
        };
        Problem::error(shown(&self.url), format!("{why}; {keeps}"))
    }
}

/// A URL for people: without what may be a secret, user and query.
pub fn shown(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let (rest, query) = rest.split_once('?').map_or((rest, ""), |(rest, _)| (rest, "?..."));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}{path}{query}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "http://me:hunter2@x/pods?token=hunter2";

    fn body(pods: &[(&str, &str)]) -> Vec<u8> {
        let items: Vec<_> = pods
            .iter()
            .map(|(name, image)| {
                format!(r#"{{"metadata": {{"name": "{name}"}}, "spec": {{"containers": [{{"name": "c", "image": "{image}"}}]}}}}"#)
            })
            .collect();
        format!(r#"{{"kind": "PodList", "apiVersion": "v1", "items": [{}]}}"#, items.join(",")).into_bytes()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn names(update: &Update) -> Vec<&str> {
        update.pods.iter().map(|pod| pod.key.name.as_str()).collect()
    }

    fn reported(update: &Update) -> Vec<&str> {
        update.problems.iter().map(|problem| problem.message.as_str()).collect()
    }

    #[test]
    fn what_cannot_be_had_or_read_keeps_the_pods_and_says_so_without_secrets() {
        let mut remote = Remote::new("n", URL);
        assert_eq!(names(&remote.take(Ok(body(&[("a", "x:1")])), at(0))), ["a-n"]);
        let down = remote.take(Err("answered 404 Not Found".into()), at(1));
        assert_eq!(
            (names(&down), reported(&down)),
            (vec!["a-n"], vec!["answered 404 Not Found; its pods stay as they were"])
        );
        assert_eq!(down.problems[0].subject, "http://x/pods?...");
        let bad = remote.take(Ok(b"<html>".to_vec()), at(2));
        assert_eq!(names(&bad), ["a-n"]);
        assert!(reported(&bad)[0].ends_with("; its pods stay as they were"), "{bad:?}");
        assert_eq!(remote.take(Ok(b"<html>".to_vec()), at(3)), bad, "the same bytes are the same fault");
        let up = remote.take(Ok(body(&[("a", "x:1")])), at(4));
        assert_eq!((names(&up), reported(&up)), (vec!["a-n"], vec![]));
    }

    #[test]
    fn an_empty_answer_removes_the_pods_and_the_same_bytes_bring_them_back() {
        let mut remote = Remote::new("n", URL);
        let first = remote.take(Ok(body(&[("a", "x:1")])), at(0));
        let empty = remote.take(Ok(vec![]), at(1));
        assert_eq!((names(&empty), reported(&empty)), (vec![], vec!["answered with nothing: no pod runs from it"]));
        assert!(empty.held.is_empty());
        assert_eq!(names(&remote.take(Ok(body(&[("a", "x:1")])), at(2))), names(&first));
    }

    #[test]
    fn an_unchanged_answer_changes_nothing_and_a_changed_one_only_what_it_changes() {
        let mut remote = Remote::new("n", URL);
        let first = remote.take(Ok(body(&[("a", "x:1"), ("b", "x:1")])), at(0));
        assert_eq!(remote.take(Ok(body(&[("a", "x:1"), ("b", "x:1")])), at(1)), first);
        let edited = remote.take(Ok(body(&[("a", "x:1"), ("b", "x:2")])), at(2));
        assert!(Arc::ptr_eq(&edited.pods[0], &first.pods[0]));
        assert_ne!(edited.pods[1].uid, first.pods[1].uid);
    }

    #[test]
    fn what_runs_is_nobodys_until_the_url_or_what_was_kept_of_it_is_known() {
        let down = || Err("cannot be read".to_owned());
        let mut remote = Remote::new("n", URL);
        let never = remote.take(down(), at(0));
        assert!(never.held.contains(&Kind::Http) && never.synced);
        assert_eq!(reported(&never), ["cannot be read; nothing runs from it"]);
        assert!(remote.take(Ok(b"nonsense".to_vec()), at(1)).held.contains(&Kind::Http));
        assert_eq!(remote.good(), None);
        let mut again = Remote::new("n", URL);
        again.remember(&body(&[("a", "x:1")]), at(0));
        let kept = again.take(down(), at(1));
        assert_eq!((names(&kept), kept.held.is_empty()), (vec!["a-n"], true));
    }

    #[test]
    fn duplicates_and_unknown_fields_are_warned_of() {
        let mut remote = Remote::new("n", URL);
        let update = remote.take(Ok(body(&[("a", "x:1"), ("a", "x:2")])), at(0));
        assert_eq!(reported(&update), ["pod default/a-n is in the list twice; the first one is used"]);
        assert_eq!(update.problems[0].severity, Severity::Warning);
        let text = String::from_utf8(body(&[("a", "x:1")])).unwrap().replace("\"spec\": {", "\"spec\": {\"x\": 1, ");
        let update = remote.take(Ok(text.into_bytes()), at(1));
        assert_eq!(reported(&update), ["pod default/a-n: spec.x is no field of a Pod and has no effect"]);
    }

    #[test]
    fn a_url_is_shown_without_its_secrets() {
        for (url, expected) in [
            ("http://x", "http://x"),
            ("https://u:p@x:1/a/b", "https://x:1/a/b"),
            ("http://x/a@b", "http://x/a@b"),
            ("http://x?k=v@w/z", "http://x?..."),
            ("http://[::1]:80/", "http://[::1]:80/"),
        ] {
            assert_eq!(shown(url), expected);
        }
    }
}
