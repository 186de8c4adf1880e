//! From what a directory holds to the pods that are wanted. Pure.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;

use super::Update;
use crate::agent::control::report::{Problem, Severity};
use crate::agent::crash::caught_now;
use crate::agent::pod::{Origin, Place, PodKey, StaticPod};
use crate::error::chain;
use crate::host::digest::sha256;

/// One manifest file as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// File name.
    pub name: String,
    /// Its bytes, or why they could not be read.
    pub content: Result<Vec<u8>, String>,
}

/// What was found at the path of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scan {
    /// Manifest files, by name; of those in the second list it is known that they are being written right now.
    Files(Vec<Entry>, Vec<String>),
    /// The path could not be read.
    Failed(String),
}

/// What is known of a source: the last good pod of each file.
pub struct Known {
    node_name: String,
    /// Directory of the files.
    dir: PathBuf,
    files: BTreeMap<String, Good>,
    problems: Vec<Problem>,
    synced: bool,
}

struct Good {
    pod: Arc<StaticPod>,
    bytes: Arc<[u8]>,
    hash: String,
}

impl Known {
    /// Nothing is known yet of the files in `dir`.
    pub fn new(node_name: &str, dir: &Path) -> Self {
        Self {
            node_name: node_name.to_owned(),
            dir: dir.to_owned(),
            files: BTreeMap::new(),
            problems: vec![],
            synced: false,
        }
    }

    /// The last good bytes of each file.
    pub fn good(&self) -> BTreeMap<String, Arc<[u8]>> {
        self.files.iter().map(|(name, good)| (name.clone(), Arc::clone(&good.bytes))).collect()
    }

    /// How many of the files that have a good pod are not among these.
    pub fn missing_from(&self, entries: &[Entry]) -> usize {
        self.files.keys().filter(|name| entries.iter().all(|entry| entry.name != **name)).count()
    }

    /// Takes in what an earlier agent kept, before the first scan: what has turned bad since keeps its pod.
    pub fn remember(&mut self, entries: &[Entry], now: Timestamp) {
        for entry in entries {
            self.take_file(entry, now);
        }
    }

    /// Says where the files are, which a path that was missing at first did not.
    pub fn set_dir(&mut self, dir: &Path) {
        if self.files.is_empty() {
            self.dir = dir.to_owned();
        }
    }

    /// Takes a scan in and says what is wanted now.
    ///
    /// A file that cannot be used keeps the last good pod it had; only a file that is gone loses it. A path that cannot
    /// be read keeps everything.
    pub fn take(&mut self, path: &Path, scan: Scan, now: Timestamp) -> Update {
        match scan {
            Scan::Files(entries, unsettled) => {
                self.synced = true;
                self.problems.clear();
                let names: Vec<&String> = entries.iter().map(|entry| &entry.name).chain(&unsettled).collect();
                self.files.retain(|name, _| names.contains(&name));
                for entry in entries.iter().filter(|entry| !unsettled.contains(&entry.name)) {
                    self.take_file(entry, now);
                }
            }
            Scan::Failed(why) => {
                let keeps = match self.files.len() {
                    0 => "nothing runs from it",
                    _ => "its pods are kept",
                };
                let subject = path.display().to_string();
                self.problems = vec![Problem::error(subject, format!("{why}; {keeps}"))];
            }
        }
        self.update()
    }

    fn take_file(&mut self, entry: &Entry, now: Timestamp) {
        let file = self.dir.join(&entry.name);
        let known = self.files.get(&entry.name);
        let bytes = match &entry.content {
            Ok(bytes) => bytes,
            Err(why) => return self.refuse(&entry.name, why, None),
        };
        // The same bytes are the same pod, first seen when it was first seen.
        let hash = sha256(bytes);
        if known.is_some_and(|good| good.hash == hash) {
            return;
        }
        let origin = Origin { node_name: &self.node_name, place: Place::File(&file), seen: now };
        match caught_now(|| StaticPod::from_bytes(bytes, origin)) {
            Ok(Ok(mut pod)) => {
                if let Some(good) = known
                    && good.pod.uid == pod.uid
                {
                    pod.keep_seen(&good.pod);
                }
                let bytes = bytes.as_slice().into();
                self.files.insert(entry.name.clone(), Good { pod: Arc::new(pod), bytes, hash });
            }
            Ok(Err(error)) => self.refuse(&entry.name, &chain(&error), Some(hash)),
            Err(crash) => self.refuse(&entry.name, &crash.to_string(), Some(hash)),
        }
    }

    /// `hash` is that of the bytes that are not used, None if they could not be read.
    fn refuse(&mut self, name: &str, why: &str, hash: Option<String>) {
        let kept = match self.files.get(name) {
            Some(good) => format!("pod {} stays as the file had it before", good.pod.key),
            None => "nothing runs from this file".to_owned(),
        };
        let problem = Problem::error(self.subject(name), format!("{why}; {kept}"));
        self.problems.push(Problem { file_hash: hash, ..problem });
    }

    fn subject(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    /// One pod a namespace and name, and a UID: the last file by name wins, as in the kubelet's list.
    fn update(&self) -> Update {
        let mut problems = self.problems.clone();
        let mut pods: BTreeMap<PodKey, (&String, &Arc<StaticPod>)> = BTreeMap::new();
        let mut uids: HashMap<&str, &String> = HashMap::new();
        for (name, Good { pod, hash, .. }) in self.files.iter().rev() {
            let error = |message| Problem::error(self.subject(name), message).about(hash);
            if let Some((last, _)) = pods.get(&pod.key) {
                let message = format!("pod {} is in {last} too, the last by name; this file is not used", pod.key);
                problems.push(error(message));
                continue;
            }
            if let Some(last) = uids.get(pod.uid.as_str()) {
                let message =
                    format!("UID {} is the pod's in {last}, the last by name; this file is not used", pod.uid);
                problems.push(error(message));
                continue;
            }
            for warning in &pod.warnings {
                problems.push(Problem { severity: Severity::Warning, ..error(warning.clone()) });
            }
            uids.insert(&pod.uid, name);
            pods.insert(pod.key.clone(), (name, pod));
        }
        let pods = pods.into_values().map(|(_, pod)| Arc::clone(pod)).collect();
        Update { pods, problems, synced: self.synced, ..Update::default() }
    }
}

/// Whether a file name is a manifest's: no dot file, and one of the three endings. Editors' and package managers'
/// leftovers (`x.yaml~`, `x.yaml.bak`, `.x.yaml.swp`) are none.
pub fn is_manifest(name: &str) -> bool {
    let ending = name.rsplit_once('.').map(|(_, ending)| ending);
    !name.starts_with('.') && matches!(ending, Some("yaml" | "yml" | "json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIR: &str = "/m";

    fn manifest(name: &str, image: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{containers: [{{name: c, image: '{image}'}}]}}\n"
        )
    }

    fn take(known: &mut Known, files: &[(&str, &str)]) -> Update {
        take_with(known, files, &[])
    }

    fn take_with(known: &mut Known, files: &[(&str, &str)], unsettled: &[&str]) -> Update {
        let entries =
            files.iter().map(|(name, text)| Entry { name: (*name).to_owned(), content: Ok(text.as_bytes().to_vec()) });
        let unsettled = unsettled.iter().map(|name| (*name).to_owned()).collect();
        known.take(Path::new(DIR), Scan::Files(entries.collect(), unsettled), Timestamp::UNIX_EPOCH)
    }

    fn images(update: &Update) -> Vec<String> {
        let image = |pod: &Arc<StaticPod>| pod.spec.containers[0].image.clone().unwrap();
        update.pods.iter().map(|pod| format!("{} {}", pod.key.name, image(pod))).collect()
    }

    fn subjects(update: &Update) -> Vec<&str> {
        update.problems.iter().map(|problem| problem.subject.as_str()).collect()
    }

    #[test]
    fn one_bad_file_hurts_no_other() {
        let mut known = Known::new("n", Path::new(DIR));
        let set = "apiVersion: apps/v1\nkind: ReplicaSet\nmetadata: {name: r}\n";
        let update =
            take(&mut known, &[("a.yaml", &manifest("a", "x:1")), ("b.yaml", set), ("c.yaml", &manifest("c", "x:1"))]);
        assert_eq!(images(&update), ["a-n x:1", "c-n x:1"]);
        assert_eq!(subjects(&update), ["/m/b.yaml"]);
        assert_eq!(
            update.problems[0].message,
            "ReplicaSet (apps/v1) is not run from a manifest file: only Pod (v1) is; nothing runs from this file"
        );
        assert!(update.synced);
    }

    #[test]
    fn a_file_that_turns_bad_keeps_its_pod_and_a_file_that_is_gone_loses_it() {
        let mut known = Known::new("n", Path::new(DIR));
        take(&mut known, &[("a.yaml", &manifest("a", "x:1"))]);
        let bad = take(&mut known, &[("a.yaml", "kind: Pod\n  nonsense")]);
        assert_eq!(images(&bad), ["a-n x:1"]);
        assert!(bad.problems[0].message.ends_with("; pod default/a-n stays as the file had it before"), "{bad:?}");
        let about = Some(sha256(b"kind: Pod\n  nonsense"));
        assert_eq!((&bad.problems[0].file_hash, bad.problems[0].severity), (&about, Severity::Error));
        let good = take(&mut known, &[("a.yaml", &manifest("a", "x:2"))]);
        assert_eq!(images(&good), ["a-n x:2"]);
        assert!(good.problems.is_empty());
        assert!(take(&mut known, &[]).pods.is_empty());
    }

    #[test]
    fn a_directory_that_is_gone_keeps_the_pods_and_is_synced_only_if_it_was_read_once() {
        let mut known = Known::new("n", Path::new(DIR));
        let missing = || Scan::Failed("the directory is missing".into());
        let never = known.take(Path::new(DIR), missing(), Timestamp::UNIX_EPOCH);
        assert!(!never.synced);
        assert_eq!(never.problems[0].message, "the directory is missing; nothing runs from it");
        take(&mut known, &[("a.yaml", &manifest("a", "x:1"))]);
        let gone = known.take(Path::new(DIR), missing(), Timestamp::UNIX_EPOCH);
        assert_eq!((images(&gone), gone.synced), (vec!["a-n x:1".to_owned()], true));
        assert_eq!(
            (gone.problems[0].subject.as_str(), gone.problems[0].message.as_str()),
            (DIR, "the directory is missing; its pods are kept")
        );
    }

    #[test]
    fn of_two_files_with_one_pod_the_last_by_name_wins_whatever_came_first() {
        let mut known = Known::new("n", Path::new(DIR));
        take(&mut known, &[("a.yaml", &manifest("p", "x:a"))]);
        let both = take(&mut known, &[("a.yaml", &manifest("p", "x:a")), ("b.yaml", &manifest("p", "x:b"))]);
        assert_eq!(images(&both), ["p-n x:b"]);
        assert_eq!(
            both.problems[0].message,
            "pod default/p-n is in b.yaml too, the last by name; this file is not used"
        );
        assert_eq!(subjects(&both), ["/m/a.yaml"]);
        assert_eq!(images(&take(&mut known, &[("a.yaml", &manifest("p", "x:a"))])), ["p-n x:a"]);
    }

    #[test]
    fn a_restarted_agent_keeps_the_pod_of_a_file_that_turned_bad_meanwhile() {
        let mut known = Known::new("n", Path::new(DIR));
        take(&mut known, &[("a.yaml", &manifest("a", "x:1")), ("b.yaml", &manifest("b", "x:1"))]);
        let kept: Vec<Entry> =
            known.good().into_iter().map(|(name, bytes)| Entry { name, content: Ok(bytes.to_vec()) }).collect();
        let mut again = Known::new("n", Path::new(DIR));
        again.remember(&kept, Timestamp::UNIX_EPOCH);
        let update = take(&mut again, &[("a.yaml", "broken")]);
        assert_eq!(images(&update), ["a-n x:1"], "the file that is gone is gone");
        assert_eq!(subjects(&update), ["/m/a.yaml"]);
    }

    #[test]
    fn a_file_that_is_being_written_is_left_as_it_was() {
        let mut known = Known::new("n", Path::new(DIR));
        take(&mut known, &[("a.yaml", &manifest("a", "x:1"))]);
        let half = take_with(&mut known, &[("a.yaml", ""), ("b.yaml", "")], &["a.yaml", "b.yaml"]);
        assert_eq!(images(&half), ["a-n x:1"]);
        assert!(half.problems.is_empty());
    }

    #[test]
    fn a_comment_changes_the_hash_of_the_file_and_not_the_pod() {
        let mut known = Known::new("n", Path::new(DIR));
        let text = manifest("a", "x:1");
        let before = take(&mut known, &[("a.yaml", &text)]).pods[0].clone();
        let after = take(&mut known, &[("a.yaml", &format!("# why\n{text}"))]).pods[0].clone();
        assert_eq!(before.uid, after.uid);
        assert_eq!(before.metadata.annotations, after.metadata.annotations);
        assert_ne!(before.file_hash, after.file_hash);
    }

    #[test]
    fn only_plain_manifest_names_are_read() {
        for (name, expected) in [
            ("a.yaml", true),
            ("a.yml", true),
            ("a.json", true),
            (".a.yaml", false),
            ("a.yaml~", false),
            ("a.yaml.bak", false),
            ("README", false),
            ("yaml", false),
            (".a.yaml.swp", false),
        ] {
            assert_eq!(is_manifest(name), expected, "{name}");
        }
    }
}
