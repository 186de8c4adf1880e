//! 1 to 20: the directory of manifests.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::Duration;

use kubeboot::agent::control::report::{HealthReport, Severity};
use kubeboot::testing::real::command::put;
use kubeboot::testing::real::pod::Pod;
use serde_json::json;

use crate::history::Action::{Create, Die, Start};
use crate::node::Node;
use crate::reports::{id, refusals};

fn refused<'a>(report: &'a HealthReport, file: &str) -> Option<&'a str> {
    let about = |subject: &str| subject.ends_with(&format!("/{file}"));
    report.problems.iter().find(|problem| about(&problem.subject)).map(|problem| problem.message.as_str())
}

/// Refusals and losses are shown as something that lasts over several lists.
const OFTEN: &str = "fileCheckFrequency: 300ms";
const SEVERAL_LISTS: Duration = Duration::from_millis(1500);
/// A list of its own accord would come too late for any test.
const NEVER: &str = "fileCheckFrequency: 1h";

pub async fn b001_a_manifest_that_is_there_before_the_start_runs(node: &mut Node) {
    node.run(&Pod::new("web"));
    node.start();
    let web = node.ready("web").await;
    assert_eq!((web.name.as_str(), web.namespace.as_str()), ("web-node1", "default"));
    let seen = node.look(id(&web));
    assert!(seen.running && seen.name.starts_with("k8s_main_web-node1_default_"), "{seen:#?}");
}

pub async fn b002_a_manifest_that_is_written_runs_without_waiting_for_a_list(node: &mut Node) {
    node.config.push(NEVER.to_owned());
    node.start();
    node.until("the empty directory was read", |r| r.agent.synced && r.pods.is_empty()).await;
    node.up(&Pod::new("web")).await;
}

pub async fn b003_a_path_that_is_missing_holds_no_pods_until_it_is_there(node: &mut Node) {
    fs::remove_dir(&node.manifests).unwrap();
    node.start();
    let missing = |r: &HealthReport| r.problems.iter().any(|p| p.message.contains("is missing"));
    let report = node.until("the path is told missing", missing).await;
    assert!(report.pods.is_empty() && node.is_up());
    fs::create_dir(&node.manifests).unwrap();
    node.up(&Pod::new("web")).await;
}

pub async fn b004_a_single_file_of_garbage_is_told_and_runs_nothing(node: &mut Node) {
    node.manifests = node.path("one.yaml");
    put(&node.manifests, b"{ this is: [no manifest");
    node.start();
    let report = node.until("it is refused", |r| refused(r, "one.yaml").is_some()).await;
    assert!(report.pods.is_empty() && node.is_up(), "{report:#?}");
    assert!(node.log().contains("one.yaml"), "the log tells it too");
    put(&node.manifests, Pod::new("web").yaml().as_bytes());
    node.ready("web").await;
}

pub async fn b005_a_bad_manifest_among_good_ones_hurts_none(node: &mut Node) {
    node.run(&Pod::new("first"));
    node.write("middle.yaml", "kind: Pod\n  spec: nonsense");
    node.run(&Pod::new("second"));
    node.start();
    node.ready("first").await;
    node.ready("second").await;
    let report = node.until("the bad one is refused", |r| refused(r, "middle.yaml").is_some()).await;
    assert_eq!(report.pods.len(), 2);
}

/// A file that is to be let be, and a good one behind it by name and in time, which shows that the list is done.
async fn ignored(node: &mut Node, file: &str) {
    node.start();
    node.until("the directory was read", |r| r.agent.synced).await;
    node.write(file, Pod::new("hidden").yaml());
    node.up(&Pod::new("web")).await;
    let report = node.until("every pod is told", |r| !r.pods.is_empty()).await;
    assert_eq!(report.pods.iter().map(|pod| pod.name.as_str()).collect::<Vec<_>>(), ["web-node1"]);
    assert!(refusals(&report).is_empty(), "{:#?}", report.problems);
}

pub async fn b006_a_file_whose_name_begins_with_a_dot_is_ignored(node: &mut Node) {
    ignored(node, ".hidden.yaml").await;
}

pub async fn b007_a_file_in_a_directory_below_is_ignored(node: &mut Node) {
    fs::create_dir(node.manifest("sub")).unwrap();
    ignored(node, "sub/x.yaml").await;
}

pub async fn b008_a_file_without_a_manifests_ending_is_ignored(node: &mut Node) {
    for file in ["web.yaml.bak", "web.yaml~", "README"] {
        node.write(file, Pod::new("hidden").yaml());
    }
    ignored(node, "hidden").await;
}

pub async fn b009_a_link_to_a_manifest_runs_and_its_target_is_followed(node: &mut Node) {
    node.config.push("fileCheckFrequency: 2s".to_owned());
    fs::create_dir(node.path("elsewhere")).unwrap();
    let target = node.path("elsewhere/web");
    put(&target, Pod::new("web").env("A", "one").yaml().as_bytes());
    node.start();
    node.until("the directory was read", |r| r.agent.synced).await;
    symlink(&target, node.manifest("web.yaml")).unwrap();
    let first = node.ready("web").await;
    put(&target, Pod::new("web").env("A", "two").yaml().as_bytes());
    node.pod("web", "follows the target", |pod| pod.ready && pod.uid != first.uid).await;
}

pub async fn b010_a_renamed_manifest_ends_its_pod_and_starts_another(node: &mut Node) {
    node.record().await;
    node.start();
    let old = node.up(&Pod::new("web")).await;
    fs::rename(node.manifest("web.yaml"), node.manifest("www.yaml")).unwrap();
    let new = node.pod("web", "is another pod", |pod| pod.ready && pod.uid != old.uid).await;
    let history = node.history().await;
    assert!(history.one(Die, id(&old)).at < history.one(Start, id(&new)).at, "{history:#?}");
}

pub async fn b011_an_edited_manifest_is_replaced_exactly_once(node: &mut Node) {
    node.record().await;
    node.config.push(OFTEN.to_owned());
    node.start();
    let old = node.up(&Pod::new("web").env("A", "one")).await;
    node.run(&Pod::new("web").env("A", "two"));
    let new = node.pod("web", "is another pod", |pod| pod.ready && pod.uid != old.uid).await;
    let env = node.look(id(&new)).env;
    assert!(env.contains(&"A=two".to_owned()), "{env:?}");
    node.all_along(SEVERAL_LISTS, "it stays", |r| r.pods.len() == 1 && id(&r.pods[0]) == id(&new)).await;
    assert_eq!(node.history().await.each(Create, "main").len(), 2);
}

pub async fn b012_a_manifest_renamed_into_place_is_one_update_without_an_error(node: &mut Node) {
    node.record().await;
    node.start();
    node.until("the directory was read", |r| r.agent.synced).await;
    let text = Pod::new("web").yaml();
    let (half, rest) = text.split_at(text.len() / 2);
    let mut file = fs::File::create(node.manifest(".web.yaml.new")).unwrap();
    file.write_all(half.as_bytes()).unwrap();
    // Another manifest makes the agent list the directory with half of it in there.
    node.up(&Pod::new("other")).await;
    file.write_all(rest.as_bytes()).unwrap();
    drop(file);
    fs::rename(node.manifest(".web.yaml.new"), node.manifest("web.yaml")).unwrap();
    let web = node.ready("web").await;
    let made = node.history().await.each(Create, "main").into_iter().filter(|e| e.name.contains(&web.uid));
    assert_eq!(made.count(), 1);
    assert!(!node.log().contains("manifest problem"), "{}", node.log());
}

pub async fn b013_a_manifest_of_ten_mebibytes_is_refused(node: &mut Node) {
    let padded = |name: &str, length: usize| {
        let mut text = format!("{}#", Pod::new(name).yaml()).into_bytes();
        text.resize(length, b'x');
        text
    };
    node.write("much.yaml", padded("much", (10 << 20) - 1));
    node.write("more.yaml", padded("more", 10 << 20));
    node.start();
    node.ready("much").await;
    let report = node.until("the larger one is refused", |r| refused(r, "more.yaml").is_some()).await;
    assert!(refused(&report, "more.yaml").unwrap().contains("10485760"), "{:#?}", report.problems);
    assert_eq!(report.pods.len(), 1);
}

pub async fn b014_the_same_pod_in_json_is_the_same_pod(node: &mut Node) {
    let pod = Pod::new("web").env("A", "1").main("ports", json!([{"containerPort": 8080}]));
    node.start();
    let yaml = node.up(&pod).await;
    node.write("web.yaml", pod.json());
    let json = node.pod("web", "is read again", |pod| pod.file_hash != yaml.file_hash).await;
    assert_eq!((&json.uid, id(&json)), (&yaml.uid, id(&yaml)));
}

pub async fn b015_of_two_documents_only_the_first_runs(node: &mut Node) {
    node.write("two.yaml", format!("{}---\n{}", Pod::new("first").yaml(), Pod::new("second").yaml()));
    node.start();
    let first = node.ready("first").await;
    let report = node.until("the second one is told", |r| refused(r, "two.yaml").is_some()).await;
    assert_eq!(report.pods, [first]);
    assert_eq!(refusals(&report).iter().map(|p| p.severity).collect::<Vec<_>>(), [Severity::Warning]);
}

pub async fn b016_lists_and_other_kinds_are_refused_in_files(node: &mut Node) {
    let pod = Pod::new("inner").value();
    let list = |kind: &str| json!({"apiVersion": "v1", "kind": kind, "items": [pod]}).to_string();
    node.write("podlist.yaml", list("PodList"));
    node.write("list.yaml", list("List"));
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": pod["spec"]});
    let spec = json!({"selector": {"matchLabels": {"a": "b"}}, "template": template});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec});
    node.write("deployment.yaml", deployment.to_string());
    node.run(&Pod::new("web"));
    node.start();
    node.ready("web").await;
    let report = node.until("all three are refused", |r| refusals(r).len() == 3).await;
    for (file, kind) in [("podlist", "PodList"), ("list", "List"), ("deployment", "Deployment")] {
        let told = refused(&report, &format!("{file}.yaml")).unwrap();
        assert!(told.starts_with(kind), "{told}");
    }
    assert_eq!(report.pods.len(), 1);
}

pub async fn b017_of_two_files_with_one_pod_one_runs_and_stays(node: &mut Node) {
    node.config.push(OFTEN.to_owned());
    node.write("a.yaml", Pod::new("web").env("FROM", "a").yaml());
    node.write("b.yaml", Pod::new("web").env("FROM", "b").yaml());
    node.start();
    let web = node.ready("web").await;
    let env = node.look(id(&web)).env;
    assert!(env.contains(&"FROM=b".to_owned()), "the last file by name wins: {env:?}");
    node.all_along(SEVERAL_LISTS, "it stays", |r| r.pods.len() == 1 && id(&r.pods[0]) == id(&web)).await;
}

pub async fn b018_a_manifest_that_turns_invalid_keeps_its_pod(node: &mut Node) {
    node.config.push(OFTEN.to_owned());
    node.start();
    let before = [node.up(&Pod::new("other")).await, node.up(&Pod::new("web")).await];
    node.write("web.yaml", "kind: Pod\nspec: {containers: nonsense}");
    node.until("it is told", |r| refused(r, "web.yaml").is_some()).await;
    let same = |r: &HealthReport| r.pods.iter().map(id).eq(before.iter().map(id)) && r.pods.iter().all(|p| p.ready);
    node.all_along(SEVERAL_LISTS, "both stay", same).await;
}

pub async fn b019_a_directory_that_is_removed_keeps_its_pods(node: &mut Node) {
    node.config.push(OFTEN.to_owned());
    node.start();
    // As an unmounted disk goes, and file by file.
    for whole in [true, false] {
        let web = node.up(&Pod::new("web")).await;
        if whole {
            fs::rename(&node.manifests, node.path("away")).unwrap();
        } else {
            assert!(std::process::Command::new("rm").arg("-r").arg(&node.manifests).status().unwrap().success());
        }
        node.until("it is told", |r| r.problems.iter().any(|p| p.message.contains("is missing"))).await;
        node.all_along(SEVERAL_LISTS, "it stays", |r| r.pods.len() == 1 && id(&r.pods[0]) == id(&web)).await;
        // So is an empty directory.
        fs::create_dir(&node.manifests).unwrap();
        node.empty().await;
    }
}

pub async fn b020_touch_chmod_and_white_space_restart_nothing(node: &mut Node) {
    node.record().await;
    node.start();
    let before = node.up(&Pod::new("web")).await;
    let path = node.manifest("web.yaml");
    fs::File::options().append(true).open(&path).unwrap().set_modified(std::time::SystemTime::now()).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    node.write("web.yaml", format!("# a comment\n\n{}\n\n", Pod::new("web").yaml()));
    let after = node.pod("web", "is read again", |pod| pod.file_hash != before.file_hash).await;
    assert_eq!((&after.uid, id(&after)), (&before.uid, id(&before)));
    // What the agent did about the edit would be done before what it does about the next manifest.
    node.up(&Pod::new("other")).await;
    let restarted: Vec<_> = node.history().await.of(id(&before)).into_iter().filter(|e| e.action == Die).collect();
    assert!(restarted.is_empty(), "{restarted:?}");
}
