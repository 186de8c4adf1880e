//! All sources as one.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Kind, Update, dir, http};
use crate::agent::control::report::Problem;
use crate::agent::options::AgentOptions;
use crate::agent::pod::StaticPod;

/// Publishes what all sources of these options want together, and what is `bound` to the node where it has an API server,
/// until `shutdown`.
pub async fn watch(
    options: AgentOptions,
    bound: Option<mpsc::Receiver<Update>>,
    updates: mpsc::Sender<Update>,
    shutdown: CancellationToken,
) {
    let (file_sender, file) = mpsc::channel(1);
    let (http_sender, http) = mpsc::channel(1);
    let (path, url) = (options.static_pod_path.clone(), options.static_pod_url.clone());
    let merged = Merged { has_bound: bound.is_some(), ..Merged::new(path.is_some(), url.is_some()) };
    let bound = bound.unwrap_or_else(|| mpsc::channel(1).1);
    let watch_file = async {
        match path {
            Some(path) => dir::watch(path, options.clone(), file_sender, shutdown.clone()).await,
            None => drop(file_sender),
        }
    };
    let watch_http = async {
        match url {
            Some(url) => http::watch(url, options.clone(), http_sender, shutdown.clone()).await,
            None => drop(http_sender),
        }
    };
    tokio::join!(watch_file, watch_http, merged.run(file, http, bound, updates));
}

/// The latest of each source; None of the URL and the API server where there is none, or where it has not been asked yet.
#[derive(Default)]
struct Merged {
    file: Option<Update>,
    http: Option<Update>,
    bound: Option<Update>,
    has_file: bool,
    has_http: bool,
    has_bound: bool,
}

impl Merged {
    fn new(has_file: bool, has_http: bool) -> Self {
        Self { has_file, has_http, ..Self::default() }
    }

    async fn run(
        mut self,
        mut file: mpsc::Receiver<Update>,
        mut http: mpsc::Receiver<Update>,
        mut bound: mpsc::Receiver<Update>,
        updates: mpsc::Sender<Update>,
    ) {
        loop {
            tokio::select! {
                Some(update) = file.recv() => self.file = Some(update),
                Some(update) = http.recv() => self.http = Some(update),
                Some(update) = bound.recv() => self.bound = Some(update),
                else => return,
            }
            // The directory is read at once, and goes before the URL: without it there is no telling what the URL may add.
            if self.file.is_some() == self.has_file && updates.send(self.merge()).await.is_err() {
                return;
            }
        }
    }

    /// The directory's pods, and those of the URL whose name and UID are still free.
    fn merge(&self) -> Update {
        let mut all = self.file.clone().unwrap_or(Update { synced: true, ..Update::default() });
        if let Some(http) = &self.http {
            all.problems.extend(http.problems.iter().cloned());
            all.held.extend(&http.held);
            all.synced &= http.synced;
            for pod in &http.pods {
                match all.pods.iter().find(|one| one.key == pod.key || one.uid == pod.uid) {
                    Some(first) => all.problems.push(taken(pod, first)),
                    None => all.pods.push(Arc::clone(pod)),
                }
            }
        } else if self.has_http {
            all.synced = false;
            all.held.insert(Kind::Http);
        }
        self.merge_bound(&mut all);
        all
    }

    /// The API server may come long after the node's own pods, which need not wait for it; it may be one of them.
    fn merge_bound(&self, all: &mut Update) {
        let Some(bound) = &self.bound else {
            all.held.extend(self.has_bound.then_some(Kind::Api));
            return;
        };
        all.held.extend(&bound.held);
        for pod in &bound.pods {
            match all.pods.iter().find(|one| one.key == pod.key || one.uid == pod.uid) {
                Some(_) => {
                    let message = format!("pod {} is a static pod's name already; the bound one is not run", pod.key);
                    all.problems.push(Problem::error("API server", message));
                }
                None => all.pods.push(Arc::clone(pod)),
            }
        }
    }
}

fn taken(pod: &StaticPod, first: &StaticPod) -> Problem {
    let file = first.file.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    let what = if pod.key == first.key { "is" } else { "has the UID of the pod" };
    Problem::error("staticPodURL", format!("pod {} {what} in {file} already; the URL's is not used", pod.key))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use jiff::Timestamp;

    use super::*;
    use serde_json::json;

    use crate::agent::pod::bound_tests::bound_with;
    use crate::agent::pod::{Origin, Place};

    fn pod(name: &str, place: Place<'_>) -> Arc<StaticPod> {
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{containers: [{{name: c, image: 'x:1'}}]}}\n"
        );
        let origin = Origin { node_name: "n", place, seen: Timestamp::UNIX_EPOCH };
        Arc::new(StaticPod::from_bytes(text.as_bytes(), origin).unwrap())
    }

    fn file(names: &[&str]) -> Update {
        let pods = names.iter().map(|name| pod(name, Place::File(Path::new("/m/p.yaml")))).collect();
        Update { pods, synced: true, ..Update::default() }
    }

    fn http(names: &[&str]) -> Update {
        let pods = names.iter().map(|name| pod(name, Place::Url("http://x"))).collect();
        Update { pods, synced: true, ..Update::default() }
    }

    fn names(update: &Update) -> Vec<String> {
        let named = |pod: &Arc<StaticPod>| format!("{} {}", pod.key.name, pod.file.is_some());
        update.pods.iter().map(named).collect()
    }

    #[test]
    fn pods_of_both_are_wanted_and_the_directory_wins_a_name() {
        let merged = Merged { file: Some(file(&["a", "b"])), http: Some(http(&["b", "c"])), ..Merged::new(true, true) };
        let all = merged.merge();
        assert_eq!(names(&all), ["a-n true", "b-n true", "c-n false"]);
        let reported: Vec<_> = all.problems.iter().map(|problem| problem.message.as_str()).collect();
        assert_eq!(reported, ["pod default/b-n is in /m/p.yaml already; the URL's is not used"]);
        assert!(all.synced && all.held.is_empty());
    }

    #[test]
    fn the_directory_is_not_held_back_by_a_url_that_has_not_been_asked() {
        let mut merged = Merged { file: Some(file(&["a"])), ..Merged::new(true, true) };
        let before = merged.merge();
        assert_eq!((names(&before), before.synced), (vec!["a-n true".to_owned()], false));
        assert!(before.held.contains(&Kind::Http));
        merged.http = Some(Update { held: BTreeSet::from([Kind::Http]), synced: true, ..Update::default() });
        let failed = merged.merge();
        assert!(failed.synced && failed.held.contains(&Kind::Http), "asked in vain: what runs of it stays");
    }

    fn bound(names: &[&str]) -> Update {
        let pods = names.iter().map(|name| {
            let mut pod = bound_with(json!({"name": name, "namespace": "default", "uid": name}), json!({}), json!({}));
            pod.file = None;
            Arc::new(pod)
        });
        Update { pods: pods.collect(), synced: true, ..Update::default() }
    }

    #[test]
    fn bound_pods_come_after_static_ones_and_are_held_until_the_api_server_has_been_asked() {
        let mut merged = Merged { file: Some(file(&["a"])), has_bound: true, ..Merged::new(true, false) };
        let before = merged.merge();
        assert!(before.synced && before.held.contains(&Kind::Api), "static pods wait for no API server");
        merged.bound = Some(bound(&["a-n", "b"]));
        let all = merged.merge();
        assert_eq!(names(&all), ["a-n true", "b false"]);
        assert!(all.held.is_empty() && all.problems[0].message.contains("a static pod's name already"));
        merged.bound = Some(Update { held: BTreeSet::from([Kind::Api]), ..bound(&[]) });
        assert!(merged.merge().held.contains(&Kind::Api));
    }

    #[tokio::test]
    async fn one_source_alone_is_enough_and_the_end_of_all_ends_the_whole() {
        let dir = tempfile::tempdir().unwrap();
        let mut options = AgentOptions::new("n");
        options.root_dir = dir.path().join("root");
        options.static_pod_path = Some(dir.path().to_owned());
        let (sender, mut updates) = mpsc::channel(1);
        let end = CancellationToken::new();
        let task = tokio::spawn(watch(options, None, sender, end.clone()));
        assert!(updates.recv().await.unwrap().synced);
        end.cancel();
        task.await.unwrap();
        assert!(updates.recv().await.is_none());
    }
}
