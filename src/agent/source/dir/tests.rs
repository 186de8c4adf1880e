use std::io::Write;
use std::os::unix::fs::symlink;

use super::*;

/// A source whose list never comes by itself, so that whatever is seen was seen by an event.
struct Watched {
    dir: tempfile::TempDir,
    updates: mpsc::Receiver<Update>,
    _end: tokio_util::sync::DropGuard,
}

impl Watched {
    fn new(what: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("m")).unwrap();
        let mut options = AgentOptions::new("n");
        options.root_dir = dir.path().join("root");
        options.file_check_frequency = Duration::from_secs(3600);
        let (sender, updates) = mpsc::channel(1);
        let end = CancellationToken::new();
        tokio::spawn(watch(dir.path().join(what), options, sender, end.clone()));
        Self { dir, updates, _end: end.drop_guard() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, image: &str) {
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec: {{containers: [{{name: c, image: '{image}'}}]}}\n"
        );
        fs::File::create(self.path(name)).and_then(|mut file| file.write_all(text.as_bytes())).unwrap();
    }

    /// Waits until these images are wanted.
    async fn until(&mut self, images: &[&str]) -> Update {
        let found = tokio::time::timeout(Duration::from_secs(20), async {
            loop {
                let update = self.updates.recv().await.unwrap();
                let image =
                    |pod: &std::sync::Arc<crate::agent::pod::StaticPod>| pod.spec.containers[0].image.clone().unwrap();
                if update.pods.iter().map(image).collect::<Vec<_>>() == images {
                    return update;
                }
            }
        });
        found.await.unwrap_or_else(|_| panic!("{images:?} were not seen"))
    }
}

#[tokio::test]
async fn every_way_of_changing_a_manifest_is_seen_by_its_event() {
    let mut watched = Watched::new("m");
    watched.until(&[]).await;
    watched.write("m/p.yaml", "written:1");
    watched.until(&["written:1"]).await;
    watched.write("m/.p.yaml", "renamed:1");
    fs::rename(watched.path("m/.p.yaml"), watched.path("m/p.yaml")).unwrap();
    watched.until(&["renamed:1"]).await;
    fs::remove_file(watched.path("m/p.yaml")).unwrap();
    watched.until(&[]).await;
    watched.write("aside", "linked:1");
    symlink(watched.path("aside"), watched.path("m/p.yaml")).unwrap();
    watched.until(&["linked:1"]).await;
}

#[tokio::test]
async fn what_is_no_manifest_is_left_alone() {
    let watched = &mut Watched::new("m");
    watched.until(&[]).await;
    fs::create_dir(watched.path("m/dir.yaml")).unwrap();
    for name in ["m/.hidden.yaml", "m/p.yaml~", "m/p.yaml.bak", "m/dir.yaml/p.yaml"] {
        watched.write(name, "left:1");
    }
    watched.write("m/p.json", "read:1");
    assert!(watched.until(&["read:1"]).await.problems.is_empty());
}

#[tokio::test]
async fn a_directory_that_was_missing_is_read_when_it_comes() {
    let watched = &mut Watched::new("late");
    let missing = watched.until(&[]).await;
    assert!(!missing.synced && missing.problems[0].message.starts_with("is missing"), "{missing:?}");
    fs::create_dir(watched.path("late")).unwrap();
    watched.write("late/p.yaml", "late:1");
    let there = watched.until(&["late:1"]).await;
    assert!(there.synced && there.problems.is_empty());
}

#[tokio::test]
async fn a_link_to_a_directory_is_followed_wherever_it_leads() {
    let watched = &mut Watched::new("link");
    fs::create_dir(watched.path("other")).unwrap();
    watched.write("m/p.yaml", "one:1");
    watched.write("other/p.yaml", "other:1");
    symlink(watched.path("m"), watched.path("link")).unwrap();
    watched.until(&["one:1"]).await;
    watched.write("m/p.yaml", "two:1");
    watched.until(&["two:1"]).await;
    symlink(watched.path("other"), watched.path("next")).unwrap();
    fs::rename(watched.path("next"), watched.path("link")).unwrap();
    watched.until(&["other:1"]).await;
    watched.write("other/p.yaml", "other:2");
    watched.until(&["other:2"]).await;
}

#[tokio::test]
async fn a_directory_that_is_replaced_is_watched_again() {
    let watched = &mut Watched::new("m");
    watched.write("m/p.yaml", "old:1");
    watched.until(&["old:1"]).await;
    fs::create_dir(watched.path("new")).unwrap();
    watched.write("new/p.yaml", "new:1");
    fs::rename(watched.path("m"), watched.path("away")).unwrap();
    fs::rename(watched.path("new"), watched.path("m")).unwrap();
    watched.until(&["new:1"]).await;
    watched.write("m/p.yaml", "new:2");
    watched.until(&["new:2"]).await;
}

#[tokio::test]
async fn a_directory_that_is_removed_file_by_file_keeps_all_its_pods_and_one_that_is_emptied_none() {
    let watched = &mut Watched::new("m");
    let names = ["m/a.yaml", "m/b.yaml", "m/c.yaml"];
    for (name, pod) in names.into_iter().zip(["a", "b", "c"]) {
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {pod}}}\nspec: {{containers: [{{name: c, image: '{pod}:1'}}]}}\n"
        );
        fs::File::create(watched.path(name)).and_then(|mut file| file.write_all(text.as_bytes())).unwrap();
    }
    watched.until(&["a:1", "b:1", "c:1"]).await;
    for name in names {
        fs::remove_file(watched.path(name)).unwrap();
        // Longer than the burst of events that is listed at once.
        tokio::time::sleep(COALESCE * 2).await;
    }
    fs::remove_dir(watched.path("m")).unwrap();
    // The next thing that is reported is that the directory is missing, and all three are there.
    let update = watched.updates.recv().await.unwrap();
    assert_eq!(update.pods.len(), 3, "{update:?}");
    assert!(update.problems[0].message.starts_with("is missing; its pods are kept"), "{update:?}");
    fs::create_dir(watched.path("m")).unwrap();
    watched.until(&[]).await;
}

#[tokio::test]
async fn a_projected_volume_that_switches_its_data_is_seen_at_once() {
    let watched = &mut Watched::new("m");
    for (version, image) in [("..1", "one:1"), ("..2", "two:1")] {
        fs::create_dir(watched.path(&format!("m/{version}"))).unwrap();
        watched.write(&format!("m/{version}/p.yaml"), image);
    }
    symlink("..1", watched.path("m/..data")).unwrap();
    symlink("..data/p.yaml", watched.path("m/p.yaml")).unwrap();
    watched.until(&["one:1"]).await;
    symlink("..2", watched.path("m/..data_tmp")).unwrap();
    fs::rename(watched.path("m/..data_tmp"), watched.path("m/..data")).unwrap();
    watched.until(&["two:1"]).await;
}

#[tokio::test]
async fn a_single_file_is_a_source_too_and_takes_its_pod_with_it() {
    let watched = &mut Watched::new("m/any-name");
    watched.until(&[]).await;
    watched.write("m/any-name", "one:1");
    watched.until(&["one:1"]).await;
    watched.write("m/next", "two:1");
    fs::rename(watched.path("m/next"), watched.path("m/any-name")).unwrap();
    watched.until(&["two:1"]).await;
    fs::remove_file(watched.path("m/any-name")).unwrap();
    assert!(watched.until(&[]).await.problems.is_empty());
    watched.write("m/any-name", "three:1");
    watched.until(&["three:1"]).await;
}
